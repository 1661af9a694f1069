//! Many clients that write large values at once: each is read in its turn, and nobody is closed.

use super::harness::{Cluster, NO_SNAPSHOTS, PATIENCE, STEADFAST, Shape, anonymous};
use super::patience::{breathe, eventually, now};
use super::unfinished::Raw;
use raftd::client::{Connection, Deadline};
use raftd::limits::CLIENTS_COST_BYTES_MAX;
use raftd::wire::client::put_request;
use raftd::wire::error::Error as WireError;
use raftd::wire::reply::{ReplyBody, decode_reply};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const WRITERS: usize = 300;
const PUTS_EACH: u64 = 4;
const VALUE_BYTES: usize = 240_000;

fn request(id: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_request(&mut bytes, id, b"large", &[b'v'; VALUE_BYTES]);
    bytes
}

/// Counts who has ended, well or not, so that nobody waits for ever for one that failed.
struct Ended<'a>(&'a AtomicUsize);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends all requests before it looks at an answer, and those again for which the disks stood still
/// for too long.
fn write(address: &str, requests: &[u8]) {
    let mut raw = Raw::greet(address);
    raw.send(requests);
    let mut done = 0;
    while done < PUTS_EACH {
        let body = raw.frame();
        let reply = decode_reply(&body).unwrap();
        match reply.body {
            ReplyBody::Put { .. } => done += 1,
            ReplyBody::Error(WireError::Busy { .. }) => raw.send(&request(reply.id)),
            other => panic!("{}: {other:?}", reply.id),
        }
    }
}

fn put(connection: &mut Connection, value: &[u8]) -> Duration {
    let (asked, deadline) = (now(), Deadline::after(PATIENCE));
    eventually("a small put is done", PATIENCE, || {
        connection.put(b"small", value);
        connection.flush(deadline).unwrap();
        match connection.receive(deadline).unwrap().body {
            ReplyBody::Put { .. } => Some(()),
            ReplyBody::Error(WireError::Busy { .. }) => None,
            other => panic!("a small put was answered with {other:?}"),
        }
    });
    asked.elapsed()
}

/// Memory grew by 250 MB, and whoever had waited longest was closed: 221 of the 300.
#[test]
fn large_writers_are_slowed_down_and_not_closed() {
    // A snapshot keeps what is put over while it is made, which no client costs.
    let flags = ["--segment-bytes", "16777216", "--history-bytes", "4096"];
    let flags = [&flags[..], &NO_SNAPSHOTS, &STEADFAST].concat();
    let flags = flags.into_iter().map(str::to_owned).collect();
    let mut cluster = Cluster::start_shaped(3, &Shape { flags, ..Shape::default() });
    let leader = cluster.leader();
    let address = cluster.server(leader).listen().to_owned();
    let mut small = cluster.server(leader).connection();
    put(&mut small, b"v");
    let idle_bytes = anonymous(&mut cluster, leader);
    let requests = (1..=PUTS_EACH).map(request).collect::<Vec<_>>().concat();
    let ended = AtomicUsize::new(0);
    let (mut most, mut puts, mut slowest) = (0, 0, Duration::ZERO);
    let started = now();
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            let write = || {
                let _ended = Ended(&ended);
                write(&address, &requests);
            };
            thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, write).unwrap();
        }
        while ended.load(Ordering::Relaxed) < WRITERS {
            slowest = slowest.max(put(&mut small, b"v"));
            puts += 1;
            let used = anonymous(&mut cluster, leader).saturating_sub(idle_bytes);
            most = most.max(used);
            breathe(Duration::from_millis(10));
        }
    });
    let took = started.elapsed();
    println!(
        "{WRITERS} writers in {took:?} cost {most} bytes; {puts} small puts meanwhile, the slowest \
         {slowest:?}"
    );
    let log = cluster.server(leader).log_text();
    assert!(!log.contains("closed clients"), "{log}");
    let bound = u64::try_from(CLIENTS_COST_BYTES_MAX).unwrap();
    assert!(most <= bound, "{most} bytes, more than {bound}");
    assert_eq!(cluster.leader(), leader, "and it still leads");
}
