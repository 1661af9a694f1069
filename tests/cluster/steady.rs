//! A cluster under steady load, whose leader nobody disturbs, keeps it.
//!
//! | variable | meaning |
//! |---|---|
//! | `STEADY_SECONDS` | for how long; 3 if it is not set |
//! | `STEADY_PERCENT` | of the rate that was measured before at the most; 80 if it is not set |
//! | `CLUSTER_DIRECTORY` | where the data lies |

use super::harness::{Cluster, PATIENCE};
use super::patience::{breathe, now};
use super::variable;
use raftd::client::{Connection, Deadline};
use raftd::wire::reply::ReplyBody;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const CLIENTS: u64 = 4;
/// Puts of one client on their way.
const WINDOW: u64 = 250;
const KEYS: u64 = 100_000;

/// Puts at `rate` a second, or as many as there is room for, for so long. Returns how many were
/// acknowledged.
fn load(cluster: &mut Cluster, leader: u64, rate: Option<u64>, lasts: Duration) -> u64 {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let connections: Vec<Connection> =
        (0..CLIENTS).map(|_| cluster.server(leader).connection()).collect();
    thread::scope(|scope| {
        let (stop, done) = (&stop, &done);
        for (client, connection) in (0..).zip(connections) {
            scope.spawn(move || {
                done.fetch_add(put(connection, client, rate, stop), Ordering::Relaxed)
            });
        }
        breathe_for(lasts);
        stop.store(true, Ordering::Relaxed);
    });
    done.into_inner()
}

/// Waits for about so long, whatever wakes us.
fn breathe_for(lasts: Duration) {
    let end = Deadline::after(lasts);
    while let Some(left) = end.remaining() {
        breathe(left);
    }
}

fn put(mut connection: Connection, client: u64, rate: Option<u64>, stop: &AtomicBool) -> u64 {
    let deadline = || Deadline::after(PATIENCE);
    let (began, mut sent, mut heard) = (now(), 0, 0);
    while !stop.load(Ordering::Relaxed) || heard < sent {
        let due = rate.map_or(u64::MAX, |rate| {
            let elapsed_us = u64::try_from(began.elapsed().as_micros()).unwrap();
            elapsed_us * rate / CLIENTS / 1_000_000
        });
        let stopped = stop.load(Ordering::Relaxed);
        while sent < due && sent - heard < WINDOW && !stopped {
            let key = format!("key/{:06}", (sent * CLIENTS + client) * 7_919 % KEYS);
            connection.put(key.as_bytes(), &[b'v'; 128]);
            sent += 1;
        }
        connection.flush(deadline()).unwrap();
        if heard == sent {
            breathe(Duration::from_millis(1));
        }
        while heard < sent && (sent - heard > WINDOW / 2 || connection.has_reply() || stopped) {
            match connection.receive(deadline()).unwrap().body {
                ReplyBody::Put { .. } => heard += 1,
                other => panic!("a put was answered with {other:?}"),
            }
        }
    }
    heard
}

#[test]
fn under_steady_load_nobody_is_elected() {
    let seconds = variable("STEADY_SECONDS").unwrap_or(3);
    let percent = variable("STEADY_PERCENT").unwrap_or(80);
    let mut cluster = Cluster::start_alone(3);
    let leader = cluster.leader();
    let trial = Duration::from_secs(if seconds > 10 { 5 } else { 1 });
    let peak = load(&mut cluster, leader, None, trial) / trial.as_secs();
    let before = cluster.server(leader).says().term;
    let rate = peak * percent / 100;
    let done = load(&mut cluster, leader, Some(rate), Duration::from_secs(seconds));
    cluster.wait_until_equal();
    let after = cluster.server(leader).says().term;
    println!("steady: {peak} puts a second at most; {done} in {seconds} s, {rate} a second wanted");
    println!("steady: term {before} before, {after} after");
    assert_eq!(before, after, "somebody was elected though the leader was well");
    assert!(done * 10 > rate * seconds * 7, "too little was done: {done}");
}
