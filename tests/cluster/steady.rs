//! A cluster under steady load, whose leader nobody disturbs, keeps it.
//!
//! | variable | meaning |
//! |---|---|
//! | `STEADY_SECONDS` | for how long; 3 if it is not set |
//! | `STEADY_PERCENT` | of the rate that was measured before at the most; 80 if it is not set |
//! | `CLUSTER_DIRECTORY` | where the data lies |

use super::harness::{Cluster, PATIENCE};
use super::patience::{breathe, now};
use super::pipelined::put_all;
use super::variable;
use raftd::client::{Connection, Deadline};
use raftd::wire::reply::ReplyBody;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const CLIENTS: u64 = 4;
/// Puts of one client on their way.
const WINDOW: u64 = 250;
const KEYS: u64 = 100_000;
const VALUE: [u8; 128] = [b'v'; 128];

fn key(number: u64) -> Vec<u8> {
    format!("key/{:06}", number * 7_919 % KEYS).into_bytes()
}

/// Puts at `rate` a second, or as many as there is room for, for so long. Returns how many were
/// acknowledged, or what another answer was.
fn load(
    cluster: &mut Cluster,
    leader: u64,
    rate: Option<u64>,
    lasts: Duration,
) -> Result<u64, String> {
    let stop = AtomicBool::new(false);
    let connections: Vec<Connection> =
        (0..CLIENTS).map(|_| cluster.server(leader).connection()).collect();
    thread::scope(|scope| {
        let stop = &stop;
        let clients: Vec<_> = (0..)
            .zip(connections)
            .map(|(client, connection)| scope.spawn(move || put(connection, client, rate, stop)))
            .collect();
        breathe_for(lasts);
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("a client ends")).sum()
    })
}

/// Waits for about so long, whatever wakes us.
fn breathe_for(lasts: Duration) {
    let end = Deadline::after(lasts);
    while let Some(left) = end.remaining() {
        breathe(left);
    }
}

fn put(
    mut connection: Connection,
    client: u64,
    rate: Option<u64>,
    stop: &AtomicBool,
) -> Result<u64, String> {
    let deadline = || Deadline::after(PATIENCE);
    let (began, mut sent, mut heard) = (now(), 0, 0);
    while !stop.load(Ordering::Relaxed) || heard < sent {
        let due = rate.map_or(u64::MAX, |rate| {
            let elapsed_us = u64::try_from(began.elapsed().as_micros()).unwrap();
            elapsed_us * rate / CLIENTS / 1_000_000
        });
        let stopped = stop.load(Ordering::Relaxed);
        while sent < due && sent - heard < WINDOW && !stopped {
            connection.put(&key(sent * CLIENTS + client), &VALUE);
            sent += 1;
        }
        connection.flush(deadline()).unwrap();
        if heard == sent {
            breathe(Duration::from_millis(1));
        }
        while heard < sent && (sent - heard > WINDOW / 2 || connection.has_reply() || stopped) {
            match connection.receive(deadline()).unwrap().body {
                ReplyBody::Put { .. } => heard += 1,
                other => return Err(format!("a put was answered with {other:?}")),
            }
        }
    }
    Ok(heard)
}

/// Measures what the cluster takes, then loads it with less. Says who was elected or what was not
/// done: of what was due, at least `least_percent` has to be.
fn attempt(
    cluster: &mut Cluster,
    seconds: u64,
    percent: u64,
    least_percent: u64,
) -> Result<(), String> {
    let leader = cluster.leader();
    let trial = Duration::from_secs(if seconds > 10 { 5 } else { 1 });
    // The load overwrites keys that are there, beside a history: so does what it is measured by.
    put_all(&mut cluster.server(leader).connection(), (0..KEYS).map(key), &VALUE, |_| {});
    assert_eq!(cluster.server(leader).says().keys, KEYS);
    load(cluster, leader, None, trial)?;
    let peak = load(cluster, leader, None, trial)? / trial.as_secs();
    let before = cluster.server(leader).says().term;
    let rate = peak * percent / 100;
    let done = load(cluster, leader, Some(rate), Duration::from_secs(seconds))?;
    cluster.wait_until_equal();
    let after = cluster.server(leader).says().term;
    println!("steady: {peak} puts a second at most; {done} in {seconds} s, {rate} a second wanted");
    println!("steady: term {before} before, {after} after");
    if before != after {
        return Err("somebody was elected though the leader was well".to_owned());
    }
    if done * 100 < rate * seconds * least_percent {
        return Err(format!("too little was done: {done}, not {least_percent} % of what was due"));
    }
    Ok(())
}

/// What a machine does beside may stop a leader for longer than an election timeout, or take what
/// was there for the load when it was measured: then it is tried again. A leader that its load
/// keeps from its followers is deposed each time.
#[test]
fn under_steady_load_nobody_is_elected() {
    let asked = variable("STEADY_SECONDS");
    let percent = variable("STEADY_PERCENT").unwrap_or(80);
    let mut cluster = Cluster::start_alone(3);
    let deadline = Deadline::after(PATIENCE);
    // What is asked for is that load, and not one that the machine makes of it.
    let (seconds, least_percent) = asked.map_or((3, 70), |seconds| (seconds, 95));
    while let Err(why) = attempt(&mut cluster, seconds, percent, least_percent) {
        println!("steady: {why}");
        assert!(asked.is_none() && !deadline.has_passed(), "{why}");
    }
}
