//! A write that is sent again is done once: clients that increment a counter while leaders are
//! killed, and raftctl across a leader's death.
//!
//! `EXACTLY_ONCE_INCREMENTS=10000 cargo test increments` is the full run.

use super::harness::{Cluster, PATIENCE};
use super::patience::{breathe, eventually};
use raftd::client::{Client, ClientOptions, PutIf};
use raftd::types::{ClusterId, Revision};
use std::env;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const CLIENTS: u64 = 8;

/// Increments between two kills, so that each leader has work in flight.
const PER_KILL: u64 = 100;

fn increments() -> u64 {
    let text = env::var("EXACTLY_ONCE_INCREMENTS").ok();
    text.map_or(400, |text| text.parse().expect("EXACTLY_ONCE_INCREMENTS is a number"))
}

fn endpoints(cluster: &Cluster) -> Vec<String> {
    cluster.servers.iter().map(|server| server.listen().to_owned()).collect()
}

fn patient_client(cluster: &Cluster) -> Client {
    let (endpoints, cluster_id) = (endpoints(cluster), ClusterId(0));
    Client::new(ClientOptions { endpoints, timeout: PATIENCE, cluster_id, login: None })
}

/// Reads the counter and puts one more, until nobody else was faster.
fn increment(client: &mut Client) {
    loop {
        let found = client.get(b"counter").unwrap();
        let (value, revision) = match found {
            Some(kv) => (String::from_utf8(kv.value).unwrap(), kv.mod_revision),
            None => ("0".to_owned(), Revision(0)),
        };
        let next = value.parse::<u64>().unwrap() + 1;
        match client.put_if(b"counter", next.to_string().as_bytes(), revision).unwrap() {
            PutIf::Done { .. } => return,
            PutIf::Refused { .. } => {}
        }
    }
}

/// Kills the leader after every `PER_KILL` increments and restarts it once others go on; returns
/// how often.
fn kill_leaders(cluster: &mut Cluster, done: &AtomicU64, total: u64) -> u64 {
    let mut kills = 0;
    let progress = |from: u64, by: u64| {
        let goal = total.min(from + by);
        eventually("increments go on", 2 * PATIENCE, || {
            let now = done.load(Ordering::Relaxed);
            (now >= goal).then_some(now)
        })
    };
    while progress(done.load(Ordering::Relaxed), PER_KILL) < total {
        let leader = cluster.leader();
        cluster.server(leader).kill();
        kills += 1;
        progress(done.load(Ordering::Relaxed), 1);
        cluster.server(leader).start();
    }
    kills
}

#[test]
fn increments_under_leader_kills_add_up() {
    let total = increments() / CLIENTS * CLIENTS;
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let done = AtomicU64::new(0);
    let clients: Vec<Client> = (0..CLIENTS).map(|_| patient_client(&cluster)).collect();
    let (kills, repeated) = thread::scope(|scope| {
        let done = &done;
        let clients = clients.into_iter().map(|mut client| {
            scope.spawn(move || {
                for _ in 0..total / CLIENTS {
                    increment(&mut client);
                    done.fetch_add(1, Ordering::Relaxed);
                }
                client.repeated()
            })
        });
        let clients: Vec<_> = clients.collect();
        let kills = kill_leaders(&mut cluster, done, total);
        let repeated = clients.into_iter().map(|it| it.join().expect("a client ends"));
        (kills, repeated.sum::<u64>())
    });
    let counter = cluster.client().get(b"counter").unwrap().expect("it was put");
    println!("{total} increments by {CLIENTS} clients under {kills} kills of leaders");
    println!("{repeated} puts were sent again though they may have been done");
    assert_eq!(String::from_utf8(counter.value).unwrap(), total.to_string());
    // Each increment is one put and nothing else is: so many versions, so many changes.
    assert_eq!(counter.version, total);
    // Until a kill is noticed, and a leader found again, some are done beside those waited for.
    assert!(kills * 2 >= total / PER_KILL, "{kills} kills in {total} increments");
    assert!(repeated > 0, "no put was ever sent twice");
    if total >= 1000 {
        assert!(repeated * 2 >= kills, "{repeated} puts sent twice under {kills} kills");
    }
    cluster.start_all();
    cluster.wait_until_equal();
}

#[test]
fn raftctl_puts_once_across_a_leaders_death() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let endpoints = endpoints(&cluster).join(",");
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let (stop, done) = (&stop, &done);
        let puts = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let key = format!("k{}", done.load(Ordering::Relaxed));
                let status = Command::new(env!("CARGO_BIN_EXE_raftctl"))
                    .args(["--endpoints", &endpoints, "--timeout", "60s", "put", &key, "v"])
                    .stdout(Stdio::null())
                    .status()
                    .unwrap();
                assert_eq!(status.code(), Some(0), "put of {key}");
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..3 {
            let before = done.load(Ordering::Relaxed);
            await_puts(done, before + 5);
            let leader = cluster.leader();
            cluster.server(leader).kill();
            let killed = done.load(Ordering::Relaxed);
            await_puts(done, killed + 2);
            cluster.server(leader).start();
        }
        stop.store(true, Ordering::Relaxed);
        puts.join().unwrap();
    });
    let mut client = cluster.client();
    for number in 0..done.into_inner() {
        let found = client.get(format!("k{number}").as_bytes()).unwrap().expect("acknowledged");
        assert_eq!(found.version, 1, "k{number} was put once");
    }
}

fn await_puts(done: &AtomicU64, goal: u64) {
    eventually("puts go on", PATIENCE, || {
        breathe(Duration::from_millis(1));
        (done.load(Ordering::Relaxed) >= goal).then_some(())
    });
}

#[test]
fn raftctl_puts_only_over_the_change_it_names() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let endpoint = endpoints(&cluster).join(",");
    let put = |value: &str, revision: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_raftctl"))
            .args(["--endpoints", &endpoint, "--timeout", "60s"])
            .args(["put", "k", value, "--if-mod-revision", revision])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), said)
    };
    assert_eq!(put("1", "0"), (Some(0), "OK\n".to_owned(), String::new()));
    let refused = "raftctl: the key's mod revision is 2, not 0: nothing was put\n".to_owned();
    assert_eq!(put("2", "0"), (Some(1), String::new(), refused));
    assert_eq!(put("2", "2"), (Some(0), "OK\n".to_owned(), String::new()));
    assert_eq!(cluster.client().get(b"k").unwrap().unwrap().value, b"2");
}
