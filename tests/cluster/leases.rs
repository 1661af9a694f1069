//! Leases on real servers: never ended early, whatever happens to leaders, and how late; and what
//! many that nobody uses cost.
//!
//! `LEASE_SECONDS=120 cargo test --release leases` measures lateness over many faults; a few show
//! that it works.

use super::harness::{Cluster, PATIENCE, resident};
use super::patience::{StopAtEnd, breathe, eventually, now};
use super::variable;
use raftd::client::{Client, Deadline, PutWith};
use raftd::wire::client::Command;
use raftd::wire::reply::ReplyBody;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What a holder was promised: how long each lease lives from when.
#[derive(Clone, Copy)]
struct Promise {
    since: Instant,
    ttl: Duration,
}

/// Leases granted at once, of two seconds each: the shortest are of one.
const BATCH: usize = 20;
const TTL_S: u64 = 2;

/// What holders saw.
#[derive(Default)]
struct Seen {
    kept: u64,
    /// How long after its time each lease was seen to be gone.
    late: Vec<Duration>,
    /// All that were ever gone.
    gone: BTreeSet<u64>,
}

impl Seen {
    fn end(&mut self, lease: u64, promise: Promise) {
        let (lived, ttl) = (promise.since.elapsed(), promise.ttl);
        assert!(lived >= ttl, "lease {lease} of {ttl:?} ended after {lived:?}");
        self.late.push(lived - ttl);
        self.gone.insert(lease);
    }
}

/// Grants leases, hangs a key on each, keeps them alive for a while, and then watches them end.
fn hold_and_let_go(client: &mut Client, seen: &mut Seen, rounds: u64) {
    let mut held = BTreeMap::new();
    for _ in 0..BATCH {
        let since = now();
        let Ok(term) = client.lease_grant(0, TTL_S) else { continue };
        assert!(!seen.gone.contains(&term.lease), "a number is given once");
        held.insert(term.lease, Promise { since, ttl: Duration::from_secs(term.ttl_s) });
        let key = format!("on/{}", term.lease);
        let put = PutWith { key: key.as_bytes(), lease: term.lease, ..PutWith::default() };
        let _may_be_gone = client.put_with(put);
    }
    for _ in 0..rounds {
        for (lease, promise) in held.clone() {
            let since = now();
            match client.lease_keep_alive(lease) {
                Ok(term) if term.ttl_s == 0 => {
                    seen.end(lease, promise);
                    held.remove(&lease);
                }
                Ok(_) => {
                    seen.kept += 1;
                    held.insert(lease, Promise { since, ..promise });
                }
                Err(_) => {}
            }
        }
    }
    let until = Deadline::after(PATIENCE);
    while !held.is_empty() {
        assert!(!until.has_passed(), "{} leases do not end", held.len());
        let Ok(list) = client.lease_list() else { continue };
        let listed: BTreeSet<u64> = list.leases.into_iter().collect();
        assert!(listed.is_disjoint(&seen.gone), "what was gone is back");
        for (lease, promise) in held.clone() {
            if !listed.contains(&lease) {
                seen.end(lease, promise);
                held.remove(&lease);
            }
        }
        breathe(Duration::from_millis(10));
    }
}

/// Breaks leaders until the time is up: kills them, stops them for longer than an election takes,
/// or leaves them alone.
fn break_leaders(cluster: &mut Cluster, seconds: u64) -> [u64; 2] {
    let until = Deadline::after(Duration::from_secs(seconds));
    let (mut killed, mut paused) = (0, 0);
    for turn in 0_u64.. {
        let leader = cluster.leader();
        match turn % 4 {
            0 | 2 => {
                cluster.server(leader).kill();
                cluster.leader();
                cluster.server(leader).start();
                killed += 1;
            }
            1 => {
                cluster.server(leader).pause();
                breathe(Duration::from_millis(2_500));
                cluster.server(leader).resume();
                paused += 1;
            }
            _ => {}
        }
        breathe(Duration::from_millis(1_500));
        if until.has_passed() {
            break;
        }
    }
    [killed, paused]
}

#[test]
fn leases_never_end_early_though_leaders_are_killed_and_stopped() {
    let seconds = variable("LEASE_SECONDS").unwrap_or(12);
    let mut cluster = Cluster::start_alone(3);
    cluster.leader();
    // They soon ask others than a leader that is stopped.
    let soon = Duration::from_secs(5);
    let mut clients: Vec<Client> =
        (0..3).map(|_| cluster.client_within(soon, &[1, 2, 3])).collect();
    let over = &AtomicBool::new(false);
    let mut seen: Vec<Seen> = (0..3).map(|_| Seen::default()).collect();
    let [killed, paused] = thread::scope(|scope| {
        let _stop = StopAtEnd(over);
        for (client, (seen, rounds)) in clients.iter_mut().zip(seen.iter_mut().zip([0, 2, 20])) {
            scope.spawn(move || {
                let deadline = Deadline::after(Duration::from_secs(seconds) + PATIENCE);
                // On a slow machine some see none of theirs end while leaders are broken.
                while !over.load(Ordering::Relaxed) || seen.late.is_empty() {
                    assert!(!deadline.has_passed(), "none of its leases could be held to the end");
                    hold_and_let_go(client, seen, rounds);
                }
            });
        }
        break_leaders(&mut cluster, seconds)
    });
    cluster.start_all();
    let mut client = cluster.client();
    eventually("what nobody knows of ends as well", PATIENCE, || {
        client.lease_list().ok().filter(|list| list.leases.is_empty())
    });
    cluster.wait_until_equal();
    assert_eq!(cluster.server(1).says().keys, 0, "keys go with their leases");
    let kept: u64 = seen.iter().map(|seen| seen.kept).sum();
    for (seen, holder) in seen.iter_mut().zip(["never", "twice", "often"]) {
        seen.late.sort();
        let late = &seen.late;
        assert!(!late.is_empty(), "nothing ended");
        let (p50, p99) = (late[late.len() / 2], late[late.len() * 99 / 100]);
        let (max, ended) = (late[late.len() - 1], late.len());
        println!("kept alive {holder}: {ended} ended, late p50 {p50:?} p99 {p99:?} max {max:?}");
    }
    println!("{killed} leaders killed, {paused} stopped, {kept} keep-alives; none ended early");
}

/// The processor time of a node's process. Ticks of 10 ms.
fn ticks(cluster: &mut Cluster, id: u64) -> u64 {
    let pid = cluster.server(id).pid().expect("the node runs");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = after_name.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn ticks_of(cluster: &mut Cluster, id: u64, seconds: u64) -> u64 {
    let before = ticks(cluster, id);
    Deadline::after(Duration::from_secs(seconds)).wait();
    ticks(cluster, id) - before
}

const MANY: usize = 100_000;

#[test]
fn a_hundred_thousand_idle_leases_cost_a_leader_nothing() {
    let seconds = variable("LEASE_IDLE_SECONDS").unwrap_or(3);
    let mut cluster = Cluster::start_alone(3);
    let leader = cluster.leader();
    let follower = cluster.others(leader)[0];
    let without = ticks_of(&mut cluster, leader, seconds);
    let before = [leader, follower].map(|id| resident(&mut cluster, id));
    let mut connection = cluster.server(leader).connection();
    for _ in 0..MANY / 500 {
        let deadline = Deadline::after(PATIENCE);
        for _ in 0..500 {
            connection.command(None, Command::LeaseGrant { lease: 0, ttl_s: 3600 });
        }
        connection.flush(deadline).unwrap();
        for _ in 0..500 {
            let reply = connection.receive(deadline).unwrap();
            assert!(matches!(reply.body, ReplyBody::LeaseTerm { .. }), "{:?}", reply.body);
        }
    }
    cluster.wait_until_equal();
    // What has to be done once is done sooner or later, and what the machine adds comes and goes.
    eventually("they cost less than two hundredths of a core", PATIENCE, || {
        let with = ticks_of(&mut cluster, leader, seconds);
        println!("an idle leader: {without} ticks in {seconds} s, {with} with {MANY} leases");
        (with <= without + 2 * seconds).then_some(())
    });
    let after = [leader, follower].map(|id| resident(&mut cluster, id));
    let grown = [0, 1].map(|nth| after[nth].saturating_sub(before[nth]) >> 20);
    println!("they and their log take {} MiB of the leader, {} of a follower", grown[0], grown[1]);
    let mut client = cluster.client_of(&cluster.others(leader));
    cluster.server(leader).kill();
    let killed = now();
    let asked = eventually("somebody leads", PATIENCE, || client.lease_time_to_live(5, false).ok());
    println!("a new leader told of one of them {:?} after the old one's death", killed.elapsed());
    assert!(asked.times.left_ms > 3_500_000, "{:?}", asked.times);
    assert_eq!(client.lease_list().unwrap().leases.len(), MANY);
}

const HUNG: usize = 50_000;

/// A reply was cut at 4 MiB, and nobody asked for the rest.
#[test]
fn all_of_fifty_thousand_keys_that_hang_on_a_lease_are_listed() {
    let mut cluster = Cluster::start_alone(1);
    let mut client = cluster.client();
    let lease = client.lease_grant(0, 3600).unwrap().lease;
    let mut connection = cluster.server(1).connection();
    let names: Vec<Vec<u8>> =
        (0..HUNG).map(|number| format!("{number:0100}").into_bytes()).collect();
    for some in names.chunks(500) {
        let deadline = Deadline::after(PATIENCE);
        for key in some {
            let put = PutWith { key, value: b"v", lease, ..PutWith::default() };
            connection.command(None, Command::PutWith(put));
        }
        connection.flush(deadline).unwrap();
        for _ in some {
            let reply = connection.receive(deadline).unwrap();
            assert!(matches!(reply.body, ReplyBody::PutWith { .. }), "{:?}", reply.body);
        }
    }
    let found = client.lease_time_to_live(lease, true).unwrap();
    assert_eq!(found.times.key_count, u64::try_from(HUNG).unwrap());
    assert!(found.keys == names, "{} keys are listed", found.keys.len());
}
