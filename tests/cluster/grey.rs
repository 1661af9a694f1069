//! Nodes that are neither well nor dead: a leader whose disk hangs, a follower that does not read.
//!
//! `GREY_HANGS=20 cargo test --release a_leader_whose_disk_hangs` measures; once shows that it
//! works. Only strace can hold a disk: without it, that measurement fails.

use super::harness::{Cluster, PATIENCE, Shape, resident};
use super::patience::{ELECTION_TIMEOUT_UPPER, eventually, now};
use super::traced::Trace;
use super::variable;
use crate::untested::strace_works;
use raftd::client::{Client, Deadline};
use std::time::Duration;

/// How long each sync of the leader takes: longer than anybody here has patience.
const HANGS_US: &str = "inject=fdatasync:delay_enter=1200000000";

/// How long a leader whose disk hangs may lead on if its handover fails: it waits for its disk for
/// as long as the longest election timeout, and the others for its word as long, as they heard it
/// until then; with votes that split once.
const REPLACED_WITHIN: Duration = ELECTION_TIMEOUT_UPPER.saturating_mul(3);

/// Half of them: it hands over after three quarters of that, and the others have everything.
const HALF_REPLACED_WITHIN: Duration = ELECTION_TIMEOUT_UPPER;

/// How often a node gave its disk up.
fn waited_in_vain(cluster: &mut Cluster, id: u64) -> usize {
    let log = cluster.server(id).log_text();
    let said = ["handing over, for the disk does not answer", "waited for the disk for too long"];
    said.map(|words| log.matches(words).count()).iter().sum()
}

/// Lets the leader's disk hang until the trace is dropped, and waits until another one leads. Says
/// which one, and how long it took; nothing where this user may not trace.
fn hang(cluster: &mut Cluster, leader: u64, client: &mut Client) -> Option<(Trace, u64, Duration)> {
    let pid = cluster.server(leader).pid().unwrap();
    let file = cluster.folder().join("hang");
    let what = ["-e", "trace=fdatasync", "-e", HANGS_US];
    let trace = Trace::attach_with(pid, file, &what)?;
    let hung = now();
    // A write that its disk has to take; the others' disks are a majority, so it succeeds.
    client.put(b"during", b"").unwrap();
    let successor = eventually("another leads", PATIENCE, || {
        cluster.leader_now().filter(|now_leads| *now_leads != leader)
    });
    Some((trace, successor, hung.elapsed()))
}

#[test]
fn a_leader_whose_disk_hangs_is_replaced_and_does_not_campaign() {
    let asked = variable("GREY_HANGS");
    if !strace_works() {
        assert!(asked.is_none(), "no strace: nothing here can make a disk hang");
        return;
    }
    let mut cluster = Cluster::start_alone(3);
    cluster.leader();
    cluster.client().put(b"before", b"").unwrap();
    let mut times = Vec::new();
    for _ in 0..asked.unwrap_or(1) {
        let leader = cluster.leader();
        let before = waited_in_vain(&mut cluster, leader);
        let mut client = cluster.client_of(&cluster.others(leader));
        let Some((trace, successor, took)) = hang(&mut cluster, leader, &mut client) else {
            assert!(asked.is_none(), "strace may not trace: nothing here can make a disk hang");
            return;
        };
        times.push(took);
        client.put(b"after", b"").unwrap();
        eventually("it waited for the disk for too long", PATIENCE, || {
            (waited_in_vain(&mut cluster, leader) > before).then_some(())
        });
        does_not_campaign(&mut cluster, leader, successor);
        drop(trace);
        cluster.wait_until_equal();
    }
    times.sort();
    let (p50, max) = (times[times.len() / 2], times[times.len() - 1]);
    println!("grey: {} disks hung; another led after p50 {p50:?}, max {max:?}", times.len());
    if asked.is_some() {
        assert!(p50 <= HALF_REPLACED_WITHIN, "half of them after more than {p50:?}");
        assert!(max <= REPLACED_WITHIN, "one after {max:?}");
    }
}

/// The successor stops too: nobody leads for a while, and it would be time to campaign.
fn does_not_campaign(cluster: &mut Cluster, leader: u64, successor: u64) {
    cluster.server(successor).pause();
    let until = Deadline::after(Duration::from_secs(2));
    while !until.has_passed() {
        let status = cluster.server(leader).says();
        assert_eq!(status.role, "follower", "it campaigns with a disk that hangs");
    }
    cluster.server(successor).resume();
}

#[test]
fn a_follower_that_does_not_read_neither_slows_the_leader_nor_fills_its_memory() {
    // The store stays small, so what grows is what waits for the follower.
    let flags = ["--history-bytes", "4194304", "--segment-bytes", "16777216"];
    // A slow disk or a busy machine elects nobody; a leader that is blocked would not lead on.
    let patient = ["--election-timeout", "1000", "--heartbeat", "60"];
    let flags = flags.into_iter().chain(patient).map(str::to_owned).collect();
    let mut cluster = Cluster::start_shaped(3, &Shape { flags, ..Shape::default() });
    let leader = cluster.leader();
    let mut client = cluster.client_of(&[leader]);
    let large = vec![b'x'; 1 << 20];
    for _ in 0..40 {
        client.put(b"k", &large).unwrap();
    }
    let stopped = cluster.others(leader)[0];
    cluster.server(stopped).pause();
    for _ in 0..40 {
        client.put(b"k", &large).unwrap();
    }
    let before = resident(&mut cluster, leader);
    let (mut puts, mut slowest) = (0, Duration::ZERO);
    // Long enough for the window to be given up, after four election timeouts, and for many probes
    // of a mebibyte each.
    let until = Deadline::after(Duration::from_secs(11));
    while !until.has_passed() {
        let asked = now();
        client.put(b"k", b"small").unwrap();
        slowest = slowest.max(asked.elapsed());
        puts += 1;
    }
    let after = resident(&mut cluster, leader);
    let grown = after.saturating_sub(before) >> 20;
    println!(
        "{puts} puts beside a stopped follower, the slowest {slowest:?}; grown by {grown} MiB"
    );
    assert!(grown < 40, "the leader has grown by {grown} MiB");
    assert_eq!(cluster.leader(), leader, "and it still leads");
    cluster.server(stopped).resume();
    cluster.wait_until_equal();
}
