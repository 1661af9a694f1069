//! Nodes that are neither well nor dead: a leader whose disk hangs, a follower that does not read.

use super::harness::{Cluster, PATIENCE, Shape, resident, strace_works};
use super::patience::{eventually, now};
use super::traced::Trace;
use raftd::client::Deadline;
use std::time::Duration;

/// How long each sync of the leader takes: longer than anybody here has patience.
const HANGS_US: &str = "inject=fdatasync:delay_enter=1200000000";

#[test]
fn a_leader_whose_disk_hangs_is_replaced_and_does_not_campaign() {
    if !strace_works() {
        return;
    }
    let mut cluster = Cluster::start_alone(3);
    let leader = cluster.leader();
    cluster.client().put(b"before", b"").unwrap();
    let others = cluster.others(leader);
    let mut client = cluster.client_of(&others);
    let pid = cluster.server(leader).pid().unwrap();
    let file = cluster.folder().join("hang");
    let what = ["-e", "trace=fdatasync", "-e", HANGS_US];
    let Some(trace) = Trace::attach_with(pid, file, &what) else { return };
    let hung = now();
    // A write that its disk has to take; the others' disks are a majority, so it succeeds.
    client.put(b"during", b"").unwrap();
    let successor = eventually("another leads", PATIENCE, || {
        cluster.leader_now().filter(|now_leads| *now_leads != leader)
    });
    let replaced = hung.elapsed();
    client.put(b"after", b"").unwrap();
    println!("replaced after {replaced:?}, and a put through {successor} took no longer");
    eventually("it waited for the disk for too long", PATIENCE, || {
        let log = cluster.server(leader).log_text();
        log.contains("waited for the disk for too long").then_some(())
    });
    // The successor stops too: nobody leads for a while, and it would be time to campaign.
    cluster.server(successor).pause();
    let until = Deadline::after(Duration::from_secs(2));
    while !until.has_passed() {
        let status = cluster.server(leader).says();
        assert_eq!(status.role, "follower", "it campaigns with a disk that hangs");
    }
    cluster.server(successor).resume();
    drop(trace);
    cluster.wait_until_equal();
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
