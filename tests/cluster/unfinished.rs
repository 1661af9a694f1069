//! Clients that begin requests and do not end them.

use super::harness::{Cluster, PATIENCE, STEADFAST, Shape, resident};
use super::patience::{breathe, now};
use raftd::client::{Connection, Deadline};
use raftd::limits::{CLIENT_INPUT_LARGE_BYTES_MAX, HELLO_BYTES_MAX, REQUEST_BYTES_MAX};
use raftd::types::ClusterId;
use raftd::wire::client::put_request;
use raftd::wire::frame::next_frame;
use raftd::wire::hello::{Hello, HelloReply, Sender, VERSION, decode_hello_reply, encode_hello};
use raftd::wire::reply::{ReplyBody, decode_reply};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How much memory attackers may cost a node. Bytes.
const MEMORY_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// A connection that says hello and then exactly what it is told to.
pub(super) struct Raw {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Raw {
    pub(super) fn greet(address: &str) -> Raw {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Raw { stream, input: Vec::new() };
        let (version_min, version_max) = (VERSION, VERSION);
        let (cluster_id, sender) = (ClusterId(0), Sender::Client);
        let mut hello = Vec::new();
        encode_hello(
            &mut hello,
            &Hello { version_min, version_max, cluster_id, sender, auth: Vec::new() },
        );
        raw.stream.write_all(&hello).unwrap();
        let body = raw.frame();
        assert!(matches!(decode_hello_reply(&body), Ok(HelloReply::Welcome(_))));
        raw
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the node takes it in time");
    }

    /// The body of the next frame.
    pub(super) fn frame(&mut self) -> Vec<u8> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = next_frame(&self.input, HELLO_BYTES_MAX).unwrap() {
                let (body, consumed) = (frame.body.to_vec(), frame.consumed);
                self.input.drain(..consumed);
                return body;
            }
            let count = self.stream.read(&mut buffer).expect("the node answers in time");
            assert!(count > 0, "the node hung up");
            self.input.extend_from_slice(&buffer[..count]);
        }
    }
}

/// It was taken for one frame that never ends, and closed after ten seconds.
#[test]
fn a_client_with_the_beginning_of_the_next_request_always_under_way_is_served() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let mut raw = Raw::greet(cluster.server(1).listen());
    let request = |id| {
        let mut frame = Vec::new();
        put_request(&mut frame, id, b"key", b"a value to be cut in two");
        frame
    };
    let mut rest = request(1);
    let started = now();
    for id in 1.. {
        // What a node waits for at most is ten seconds.
        if started.elapsed() > Duration::from_secs(13) {
            break;
        }
        let next = request(id + 1);
        let (begin, end) = next.split_at(next.len() / 2);
        raw.stream.write_all(&[&rest, begin].concat()).unwrap();
        rest = end.to_vec();
        let body = raw.frame();
        let reply = decode_reply(&body).unwrap();
        assert_eq!(reply.id, id);
        assert!(matches!(reply.body, ReplyBody::Put { .. }), "{:?}", reply.body);
        breathe(Duration::from_millis(50));
    }
}

/// Half of a request as large as can be: its length and the first half of it.
fn half() -> Vec<u8> {
    let mut bytes = u32::try_from(REQUEST_BYTES_MAX).unwrap().to_le_bytes().to_vec();
    bytes.resize(REQUEST_BYTES_MAX / 2, 0x93);
    bytes
}

/// Holders of all the memory that unfinished requests may take. Those that are closed do not mind.
fn hoard(address: &str, holders: &mut Vec<Raw>) {
    let half = half();
    for _ in 0..CLIENT_INPUT_LARGE_BYTES_MAX / half.len() {
        let mut raw = Raw::greet(address);
        let _closed = raw.stream.write_all(&half);
        holders.push(raw);
    }
}

fn large_put(connection: &mut Connection) {
    let deadline = Deadline::after(PATIENCE);
    connection.put(b"large", &vec![b'v'; 1024 * 1024]);
    connection.flush(deadline).unwrap();
    let reply = connection.receive(deadline).unwrap();
    assert!(matches!(reply.body, ReplyBody::Put { .. }), "{:?}", reply.body);
}

/// Whoever read next was closed, which was a client with a large request, with a line in the log
/// each time.
#[test]
fn hoarders_of_half_requests_are_closed_and_nobody_else() {
    let flags = ["--segment-bytes", "16777216", "--history-bytes", "4096"];
    let flags = flags.into_iter().chain(STEADFAST).map(str::to_owned).collect();
    let mut cluster = Cluster::start_shaped(3, &Shape { flags, ..Shape::default() });
    let leader = cluster.leader();
    let address = cluster.server(leader).listen().to_owned();
    let mut good = cluster.server(leader).connection();
    // Until everything that good requests may fill is full.
    for _ in 0..30 {
        large_put(&mut good);
    }
    let idle_bytes = resident(&mut cluster, leader);
    let started = now();
    let (mut holders, mut most) = (Vec::new(), 0);
    for _ in 0..6 {
        hoard(&address, &mut holders);
        for _ in 0..5 {
            large_put(&mut good);
        }
        most = most.max(resident(&mut cluster, leader).saturating_sub(idle_bytes));
    }
    assert_eq!(cluster.leader(), leader, "a peer is not affected");
    let log = cluster.server(leader).log_text();
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();
    println!("hoarders cost {most} bytes in {seconds} s");
    assert!(most <= MEMORY_BYTES_MAX, "hoarders cost {most} bytes");
    let lines = log.lines().filter(|line| line.contains("unfinished requests")).count();
    assert!((1..=seconds + 1).contains(&lines), "{lines} lines in {seconds} s:\n{log}");
}
