//! Random kill -9 and restart of random nodes, also of all at once, under load from 16 writers and
//! two that ask whom they should not.
//!
//! Every acknowledged put must be there at the end, nothing that was refused may be, every node
//! must start again. `scripts/chaos` runs it for as long as asked; `cargo test` runs a few cycles.
//!
//! | variable | meaning |
//! |---|---|
//! | `CHAOS_CYCLES` | how many times something is killed |
//! | `CHAOS_SECONDS` | instead: for how long |
//! | `CHAOS_SEED` | repeats the choices of an earlier run, not its timing |

use super::chaos_ledger::{Ledger, Service, Tally, Told, parse};
use super::harness::{Cluster, PATIENCE};
use super::patience::{ELECTION_TIMEOUT_UPPER, StopAtEnd, breathe, eventually};
use super::variable;
use crate::dice::Dice;
use raftd::client::{Client, Connection, Deadline, Error};
use raftd::types::ClusterId;
use raftd::wire::client::RangeArgs;
use raftd::wire::error::Advice;
use raftd::wire::reply::ReplyBody;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const WRITERS: usize = 16;

/// Writers who ask followers as well. Beyond the 16.
const PROVOKERS: usize = 2;

/// A writer's pause between puts: the log is not compacted, so an hour must not fill the disk.
const PACE: Duration = Duration::from_millis(10);

#[test]
fn acknowledged_puts_survive_random_kills_under_load() {
    let cycles = variable("CHAOS_CYCLES");
    let seconds = variable("CHAOS_SECONDS");
    let seed = variable("CHAOS_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("chaos: CHAOS_SEED={seed} repeats the choices");
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let clients: Vec<Client> = (0..WRITERS).map(|_| cluster.client()).collect();
    let nodes: Vec<String> =
        cluster.servers.iter().map(|server| server.listen().to_owned()).collect();
    let (stop, service) = (AtomicBool::new(false), Service::start());

    let (ledgers, windows) = thread::scope(|scope| {
        let (stop, service) = (&stop, &service);
        let writers = (0..).zip(clients);
        let writers = writers
            .map(|(n, client)| scope.spawn(move || write(Keys::of(n), client, stop, service)));
        let nodes = &nodes;
        let provokers = (WRITERS..WRITERS + PROVOKERS)
            .map(|n| scope.spawn(move || provoke(Keys::of(n), nodes, stop, service)));
        let writers: Vec<_> = writers.chain(provokers).collect();
        let windows = {
            let _stop = StopAtEnd(stop);
            let mut dice = Dice(seed);
            let mut windows = Vec::new();
            let most = cycles.or(seconds.map(|_| u64::MAX)).unwrap_or(15);
            let until_us = seconds.map_or(u64::MAX, |seconds| seconds * 1_000_000);
            for _ in 0..most {
                if service.now_us() > until_us {
                    break;
                }
                windows.push(cycle(&mut cluster, &mut dice, service));
            }
            windows
        };
        let ended = writers.into_iter().map(|writer| writer.join().expect("a writer ends"));
        (ended.collect::<Vec<Ledger>>(), windows)
    });

    cluster.wait_until_equal();
    verify(&cluster, &ledgers);
    report(windows, cycles.is_some() || seconds.is_some());
}

/// Kills, waits for service, restarts, waits for health. Returns the longest time without service
/// while a majority lived.
fn cycle(cluster: &mut Cluster, dice: &mut Dice, service: &Service) -> Duration {
    let all = dice.below(10) == 0;
    let began_us = if all {
        for server in &mut cluster.servers {
            server.kill();
        }
        let first = dice.below(3);
        for step in 0..2 {
            cluster.server((first + step) % 3 + 1).start();
        }
        let majority_us = service.now_us();
        cluster.start_all();
        majority_us
    } else {
        let began_us = service.now_us();
        let victim = dice.below(3) + 1;
        cluster.server(victim).kill();
        await_service(service, service.now_us());
        breathe(Duration::from_millis(dice.below(300)));
        cluster.server(victim).start();
        began_us
    };
    await_service(service, service.now_us());
    eventually("every node follows again", PATIENCE, || {
        for server in &mut cluster.servers {
            let (id, runs) = (server.id, server.is_running());
            assert!(runs, "node {id} refused to start:\n{}", server.log_text());
        }
        let leader = cluster.leader_now()?;
        let commit = cluster.server(leader).status().ok()?.commit_index;
        let caught_up = cluster.servers.iter().all(|server| {
            server.status().is_ok_and(|status| {
                status.applied_index.get() + 1000 > commit.get() && status.leader.is_some()
            })
        });
        caught_up.then_some(())
    });
    service.longest_gap(began_us, service.now_us())
}

fn await_service(service: &Service, moment_us: u64) {
    eventually("a put is acknowledged again", PATIENCE, || service.since(moment_us).then_some(()));
}

/// What a writer puts: mostly new keys, every fourth time over a key of its own.
struct Keys {
    writer: usize,
    number: u64,
    generation: u64,
}

impl Keys {
    fn of(writer: usize) -> Keys {
        Keys { writer, number: 0, generation: 0 }
    }

    fn is_over(&self) -> bool {
        self.number.is_multiple_of(4)
    }

    /// The next key; its value is `number`.
    fn next(&mut self) -> String {
        self.number += 1;
        let Keys { writer, number, generation } = *self;
        if self.is_over() {
            format!("over/{writer}/{generation}")
        } else {
            format!("new/{writer}/{number}")
        }
    }

    /// Notes what came of the put. A key of which nobody knows the value is left alone.
    fn told(&mut self, key: &str, told: Told, ledger: &mut Ledger, service: &Service) {
        match told {
            Told::Done => service.acknowledged(),
            Told::Nothing if self.is_over() => self.generation += 1,
            Told::Nothing | Told::Refused => {}
        }
        ledger.note(key, self.number, told);
    }
}

/// Puts until told to stop, as a client does: redirects are followed, refusals tried elsewhere.
fn write(mut keys: Keys, mut client: Client, stop: &AtomicBool, service: &Service) -> Ledger {
    let mut ledger = Ledger::default();
    while !stop.load(Ordering::Relaxed) {
        let key = keys.next();
        let told = match client.put(key.as_bytes(), keys.number.to_string().as_bytes()) {
            Ok(_) => Told::Done,
            Err(Error::Unavailable { .. } | Error::Refused { .. }) => Told::Refused,
            Err(Error::OutcomeUnknown { .. } | Error::AnswerNotKept { .. }) => Told::Nothing,
        };
        keys.told(&key, told, &mut ledger, service);
        breathe(PACE);
    }
    ledger
}

/// Puts to one node after the other, whoever leads, and takes no for an answer: so that there are
/// refusals to be held to, also around elections.
fn provoke(mut keys: Keys, nodes: &[String], stop: &AtomicBool, service: &Service) -> Ledger {
    let mut ledger = Ledger::default();
    let mut connections: Vec<Option<Connection>> = nodes.iter().map(|_| None).collect();
    for turn in (0..nodes.len()).cycle() {
        if stop.load(Ordering::Relaxed) {
            return ledger;
        }
        breathe(PACE);
        let deadline = Deadline::after(Duration::from_secs(1));
        let connection = connections[turn]
            .take()
            .filter(Connection::is_alive)
            .or_else(|| Connection::open(&nodes[turn], ClusterId(0), deadline).ok());
        let Some(mut connection) = connection else { continue };
        let key = keys.next();
        connection.put(key.as_bytes(), keys.number.to_string().as_bytes());
        let told = match connection.flush(deadline).and_then(|()| connection.receive(deadline)) {
            Err(_) => Told::Nothing,
            Ok(reply) => match reply.body {
                ReplyBody::Put { .. } => Told::Done,
                ReplyBody::Error(error) if error.advice() == Advice::Unknown => Told::Nothing,
                ReplyBody::Error(_) => Told::Refused,
                other => panic!("a put was answered with {other:?}"),
            },
        };
        keys.told(&key, told, &mut ledger, service);
        // After silence an answer may still come: to nobody.
        connections[turn] = Some(connection).filter(|_| told != Told::Nothing);
    }
    unreachable!("a cycle has no end")
}

fn verify(cluster: &Cluster, ledgers: &[Ledger]) {
    let mut tally = Tally::default();
    let range = RangeArgs { end: &[0], ..RangeArgs::of_key(&[0]) };
    let kvs = cluster.client().range(&range).unwrap().kvs;
    let mut found: BTreeMap<String, u64> = kvs.iter().map(parse).collect();
    let mut broken = Vec::new();
    for ledger in ledgers {
        ledger.count(&mut tally);
        ledger.compare(&mut found, &mut broken);
    }
    broken.extend(found.into_keys().map(|key| format!("{key} was never put")));
    println!("chaos: {tally:?}, {} promises broken", broken.len());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(tally.done > 100, "too little was done to prove anything: {tally:?}");
    assert!(tally.refused > 50, "too little was refused to prove anything: {tally:?}");
}

/// Prints the times without service; holds them to the goal when the run was asked for by name, on
/// a machine that does nothing else.
fn report(mut windows: Vec<Duration>, strict: bool) {
    windows.sort();
    let at = |percent: usize| windows[(windows.len() * percent).div_ceil(100).max(1) - 1];
    let (p50, p99, max) = (at(50), at(99), at(100));
    println!(
        "chaos: {} cycles; time without service while a majority lived: \
         p50 {p50:?}, p99 {p99:?} (goal {:?}), max {max:?} (goal {:?})",
        windows.len(),
        ELECTION_TIMEOUT_UPPER * 2,
        ELECTION_TIMEOUT_UPPER * 3,
    );
    if strict {
        assert!(p99 <= ELECTION_TIMEOUT_UPPER * 2, "p99 {p99:?}");
        assert!(max <= ELECTION_TIMEOUT_UPPER * 3, "max {max:?}");
    }
}
