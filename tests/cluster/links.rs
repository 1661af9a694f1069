//! A TCP proxy in front of every node. It reads who dials from the first frame, so that single
//! links can be cut: bytes then stay where they are, as in a network that loses everything, and
//! arrive late when the link heals.

use super::harness::free_address;
use raftd::limits::HELLO_BYTES_MAX;
use raftd::wire::frame::next_frame;
use raftd::wire::hello::{Sender, decode_hello};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// A link between two nodes, the smaller number first: both directions, whoever dialed.
type Link = (u64, u64);

#[derive(Default)]
struct State {
    cut: Mutex<BTreeSet<Link>>,
    changed: Condvar,
    closing: AtomicBool,
}

/// The proxies of a cluster.
pub(super) struct Links {
    /// Where the proxies listen, by node from 1 on.
    pub(super) addresses: Vec<String>,
    state: Arc<State>,
}

/// A listener of ours. Other processes take addresses too, some of them at the same moment.
fn listen() -> (String, TcpListener) {
    loop {
        let address = free_address();
        if let Ok(listener) = TcpListener::bind(&address) {
            return (address, listener);
        }
    }
}

impl Links {
    /// Opens a proxy in front of each of these addresses.
    pub(super) fn open(nodes: &[String]) -> Links {
        let state = Arc::new(State::default());
        let mut addresses = Vec::new();
        for (id, node) in (1..).zip(nodes) {
            let (address, listener) = listen();
            let (state, node) = (state.clone(), node.clone());
            thread::spawn(move || accept(&listener, id, &node, &state));
            addresses.push(address);
        }
        Links { addresses, state }
    }

    /// Nothing passes between `id` and these others any more.
    pub(super) fn cut(&self, id: u64, others: &[u64]) {
        let mut cut = self.state.cut.lock().unwrap();
        cut.extend(others.iter().map(|other| link(id, *other)));
    }

    /// Everything passes again.
    pub(super) fn heal(&self) {
        self.state.cut.lock().unwrap().clear();
        self.state.changed.notify_all();
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::Relaxed);
        self.heal();
        for address in &self.addresses {
            // A last connection wakes the acceptor, which then sees that it is over.
            let _refused = TcpStream::connect(address);
        }
    }
}

fn link(one: u64, other: u64) -> Link {
    (one.min(other), one.max(other))
}

fn accept(listener: &TcpListener, id: u64, node: &str, state: &Arc<State>) {
    for stream in listener.incoming() {
        if state.closing.load(Ordering::Relaxed) {
            return;
        }
        let (Ok(stream), node, state) = (stream, node.to_owned(), state.clone()) else { continue };
        // A connection that fails is closed on both sides, as without us.
        thread::spawn(move || {
            let _failed = serve(stream, id, &node, &state);
        });
    }
}

/// Carries one connection until either side closes it.
fn serve(mut dialer: TcpStream, id: u64, node: &str, state: &Arc<State>) -> io::Result<()> {
    dialer.set_nodelay(true)?;
    let (sender, first) = read_hello(&mut dialer)?;
    let through = sender.map(|sender| link(sender, id));
    wait_while_cut(through, state);
    let mut target = TcpStream::connect(node)?;
    target.set_nodelay(true)?;
    target.write_all(&first)?;
    let (back_from, back_to) = (target.try_clone()?, dialer.try_clone()?);
    let back_state = state.clone();
    let back = thread::spawn(move || pump(back_from, back_to, through, &back_state));
    pump(dialer, target, through, state);
    // It only returns; a panic of its own has been printed.
    let _ended = back.join();
    Ok(())
}

/// The bytes of the first frame, and which node sent it; `None` for a client.
fn read_hello(dialer: &mut TcpStream) -> io::Result<(Option<u64>, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match next_frame(&bytes, HELLO_BYTES_MAX) {
            Ok(Some(frame)) => {
                let sender = match decode_hello(frame.body).map(|hello| hello.sender) {
                    Ok(Sender::Peer(peer)) => Some(peer.node.get()),
                    Ok(Sender::Client) | Err(_) => None,
                };
                return Ok((sender, bytes));
            }
            Ok(None) => {}
            Err(_) => return Ok((None, bytes)),
        }
        match dialer.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, through: Option<Link>, state: &State) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        wait_while_cut(through, state);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    wait_while_cut(through, state);
    // Either may be closed already.
    let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn wait_while_cut(through: Option<Link>, state: &State) {
    let Some(link) = through else { return };
    let cut = state.cut.lock().unwrap();
    let closing = || state.closing.load(Ordering::Relaxed);
    let _healed = state.changed.wait_while(cut, |cut| cut.contains(&link) && !closing()).unwrap();
}
