//! Many clients that write large values at once: each is read in its turn, and nobody is closed.

use super::harness::{Cluster, PATIENCE, Shape, resident};
use super::patience::{StopAtEnd, breathe, now};
use super::unfinished::Raw;
use raftd::client::{Connection, Deadline};
use raftd::limits::CLIENTS_COST_BYTES_MAX;
use raftd::wire::client::put_request;
use raftd::wire::reply::{ReplyBody, decode_reply};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const WRITERS: usize = 300;
const PUTS_EACH: u64 = 4;
const VALUE_BYTES: usize = 240_000;

/// A few requests in a row, sent at once.
fn requests() -> Vec<u8> {
    let (mut bytes, value) = (Vec::new(), vec![b'v'; VALUE_BYTES]);
    for id in 1..=PUTS_EACH {
        put_request(&mut bytes, id, b"large", &value);
    }
    bytes
}

/// Sends all requests before it looks at an answer.
fn write(address: &str, requests: &[u8]) {
    let mut raw = Raw::greet(address);
    raw.send(requests);
    for id in 1..=PUTS_EACH {
        let body = raw.frame();
        let reply = decode_reply(&body).unwrap();
        assert!(matches!(reply.body, ReplyBody::Put { .. }), "{id}: {:?}", reply.body);
    }
}

fn put(connection: &mut Connection, value: &[u8]) -> Duration {
    let (asked, deadline) = (now(), Deadline::after(PATIENCE));
    connection.put(b"small", value);
    connection.flush(deadline).unwrap();
    let reply = connection.receive(deadline).unwrap();
    assert!(matches!(reply.body, ReplyBody::Put { .. }), "{:?}", reply.body);
    asked.elapsed()
}

/// Memory grew by 250 MB, and whoever had waited longest was closed: 221 of the 300.
#[test]
fn large_writers_are_slowed_down_and_not_closed() {
    let flags = ["--segment-bytes", "16777216", "--history-bytes", "4096"];
    let flags = flags.map(str::to_owned).to_vec();
    let mut cluster = Cluster::start_shaped(3, &Shape { flags, ..Shape::default() });
    let leader = cluster.leader();
    let address = cluster.server(leader).listen().to_owned();
    let mut small = cluster.server(leader).connection();
    put(&mut small, b"v");
    let idle_bytes = resident(&mut cluster, leader);
    let requests = requests();
    let (done, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (mut most, mut puts, mut slowest) = (0, 0, Duration::ZERO);
    let started = now();
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            let write = || {
                write(&address, &requests);
                done.fetch_add(1, Ordering::Relaxed);
            };
            thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, write).unwrap();
        }
        let _stop = StopAtEnd(&stop);
        while done.load(Ordering::Relaxed) < WRITERS && started.elapsed() < Duration::from_secs(60)
        {
            slowest = slowest.max(put(&mut small, b"v"));
            puts += 1;
            let used = resident(&mut cluster, leader).saturating_sub(idle_bytes);
            most = most.max(used);
            breathe(Duration::from_millis(10));
        }
    });
    let took = started.elapsed();
    println!(
        "{} of {WRITERS} writers in {took:?} cost {most} bytes; {puts} small puts meanwhile, \
         the slowest {slowest:?}",
        done.load(Ordering::Relaxed)
    );
    let log = cluster.server(leader).log_text();
    assert!(!log.contains("closed clients"), "{log}");
    let bound = u64::try_from(CLIENTS_COST_BYTES_MAX).unwrap();
    assert!(most <= bound, "{most} bytes, more than {bound}");
    assert_eq!(cluster.leader(), leader, "and it still leads");
}
