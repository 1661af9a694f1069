//! Frames of puts over loopback, answered by a loop that stores nothing: what is left of a put when
//! the database is taken away. It reads once and writes once for all that is ready on a connection,
//! as the server does.

use super::{Figure, REPEATS};
use crate::Result;
use crate::measure::{self, Ending, Load};
use crate::proc;
use crate::stats::significant;
use crate::systems::Door;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use raftd::client::Clock;
use raftd::client::load::{Layout, Ledger, Mix, Pace, Shape, Signals, Target, Workload, float};
use raftd::limits::CLIENT_FRAME_BYTES_MAX;
use raftd::types::{ClusterId, DiskId, NodeId, Revision};
use raftd::wire::client::decode_request;
use raftd::wire::frame::next_frame;
use raftd::wire::hello::{HelloReply, VERSION, Welcome, encode_hello_reply};
use raftd::wire::reply::put_reply;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

const TIME: Duration = Duration::from_millis(300);
const THREAD: &str = "echo";
const LISTENER: Token = Token(usize::MAX - 1);
const STOP: Token = Token(usize::MAX);
const READ_BYTES: usize = 256 * 1024;

/// The CPU of the answering side, and how long the asking side waits.
pub(super) fn figures(clock: Clock, shape: Shape, name: &str) -> Result<Vec<Figure>> {
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let waker = Waker::new(poll.registry(), STOP)?;
    let server = Server { poll, listener, links: Vec::new(), input: vec![0; READ_BYTES] };
    thread::scope(|scope| {
        let serving = thread::Builder::new().name(THREAD.to_owned());
        let serving = serving.spawn_scoped(scope, move || server.run())?;
        let mut samples = Samples::default();
        let measured = (0..REPEATS).try_for_each(|_| sample(clock, address, shape, &mut samples));
        waker.wake()?;
        serving.join().expect("it does not panic")?;
        measured?;
        let cpu = Figure::of(name, &samples.cpu_ns)?;
        let wall = Figure::of(format!("{name}: p50"), &samples.p50_ns)?;
        let rate = samples.rates.iter().sum::<f64>() / 1000.0 / float(REPEATS.try_into()?);
        let note = format!("CPU of the answering side; {} thousand a second", significant(rate));
        Ok(vec![cpu.with(note), wall])
    })
}

#[derive(Default)]
struct Samples {
    cpu_ns: Vec<f64>,
    p50_ns: Vec<f64>,
    rates: Vec<f64>,
}

/// One load.
fn sample(clock: Clock, address: SocketAddr, shape: Shape, samples: &mut Samples) -> Result<()> {
    let layout = Layout::new(b"key-", 16, 256).ok_or("a key has room for its number")?;
    let mut ledger = Ledger::new(layout, 1);
    let door = Door::Raftd(Target { endpoints: vec![address], first: 0 });
    let load = Load::of(Workload::even(Mix::PUTS), shape, Pace::Closed);
    let looks = |signals: &Signals, ending: &Ending| {
        // The load ends by itself only if it fails; then these return at once.
        let _warm = ending.is_later_than(TIME / 4);
        let before = (clock.now_ns(), signals.done(), server_ns()?);
        signals.measure();
        let _measured = ending.is_later_than(TIME);
        let after = (clock.now_ns(), signals.done(), server_ns()?);
        Ok((before, after))
    };
    let ((before, after), tally) = measure::beside(clock, &door, load, &mut ledger, looks)?;
    let ops = float((after.1 - before.1).max(1));
    samples.cpu_ns.push(float(after.2 - before.2) / ops);
    samples.p50_ns.push(float(tally.latency().value_at_quantile(0.5)));
    samples.rates.push(ops * 1e9 / float(after.0 - before.0));
    Ok(())
}

/// CPU of the answering thread.
fn server_ns() -> Result<u64> {
    let threads = proc::threads_of(std::process::id())?;
    Ok(threads.0.get(THREAD).map_or(0, |cpu| cpu.run_ns))
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    links: Vec<Option<Link>>,
    input: Vec<u8>,
}

struct Link {
    stream: TcpStream,
    tail: Vec<u8>,
    out: Vec<u8>,
    greeted: bool,
}

impl Server {
    fn run(mut self) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    STOP => return Ok(()),
                    LISTENER => self.accept()?,
                    Token(at) => self.serve(at)?,
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nodelay(true)?;
                    let token = Token(self.links.len());
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    self.poll.registry().register(&mut stream, token, interest)?;
                    let (tail, out) = (Vec::new(), Vec::new());
                    self.links.push(Some(Link { stream, tail, out, greeted: false }));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn serve(&mut self, at: usize) -> Result<()> {
        let Some(link) = self.links.get_mut(at).and_then(Option::as_mut) else { return Ok(()) };
        let open = link.receive(&mut self.input)? && link.send()?;
        if !open {
            self.links[at] = None;
        }
        Ok(())
    }
}

impl Link {
    /// Reads what is there and prepares the answers. False at the end of the stream.
    fn receive(&mut self, input: &mut [u8]) -> Result<bool> {
        loop {
            let kept = self.tail.len();
            input[..kept].copy_from_slice(&self.tail);
            let count = match self.stream.read(&mut input[kept..]) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            self.tail.clear();
            let mut rest = &input[..kept + count];
            while let Some(frame) = next_frame(rest, CLIENT_FRAME_BYTES_MAX)? {
                self.answer(frame.body)?;
                rest = &rest[frame.consumed..];
            }
            self.tail.extend_from_slice(rest);
            if kept + count < input.len() {
                return Ok(true);
            }
        }
    }

    fn answer(&mut self, body: &[u8]) -> Result<()> {
        if self.greeted {
            let request = decode_request(body)?;
            put_reply(&mut self.out, request.id, Revision(request.id));
            return Ok(());
        }
        self.greeted = true;
        let welcome = Welcome {
            version: VERSION,
            cluster_id: ClusterId(0),
            node: NodeId::new(1).ok_or("1 is a node's number")?,
            disk_id: DiskId(0),
            boot_nonce: 0,
            genesis: 0,
            members: Vec::new(),
            request_bytes_max: 0,
            feature_level: 0,
        };
        encode_hello_reply(&mut self.out, &HelloReply::Welcome(welcome));
        Ok(())
    }

    /// Sends what the socket takes. False if nobody is there to read it.
    fn send(&mut self) -> Result<bool> {
        let mut sent = 0;
        while sent < self.out.len() {
            match self.stream.write(&self.out[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                    ) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.out.drain(..sent);
        Ok(true)
    }
}
