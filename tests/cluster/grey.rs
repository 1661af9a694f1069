//! Nodes that are neither well nor dead: a leader whose disk hangs, a follower that does not read.
//!
//! `GREY_HANGS=20 cargo test --release a_leader_whose_disk_hangs` measures; once shows that it
//! works. Only strace can hold a disk: without it, that measurement fails.

use super::harness::{Cluster, NO_SNAPSHOTS, PATIENCE, Shape, anonymous};
use super::patience::{ELECTION_TIMEOUT_UPPER, eventually, now};
use super::traced::Trace;
use super::turns::Company;
use super::variable;
use crate::untested::strace_works;
use raftd::client::{Client, Deadline};
use raftd::limits::{FRAME_BYTES_MAX, PEER_OUT_MAX};
use raftd::types::LogIndex;
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

/// The leader's election timeout beside a follower that is stopped: a slow disk or a busy machine
/// elects nobody; a leader that is blocked would not lead on. Milliseconds.
const PATIENT_MS: u64 = 1000;

/// A put beside a stopped follower: the longest timeout drawn from that. Longer, and the others
/// would have missed a leader that waits for it.
const PUT_WITHIN: Duration = Duration::from_millis(2 * PATIENT_MS);

/// What may wait for a follower that does not read: its outgoing buffer takes one more message if
/// it is not full, and a buffer that grows doubles. What else there is, there is for all. Bytes.
const UNREAD_BYTES_MAX: usize = 2 * (PEER_OUT_MAX + FRAME_BYTES_MAX);

const LARGE_BYTES: usize = 1 << 20;
/// As much is put as would be far too much if a part of it waited.
const LARGE_PUTS: usize = 128;
const _: () = assert!(LARGE_PUTS * LARGE_BYTES >= 4 * UNREAD_BYTES_MAX);

/// How puts went, and what the leader kept in memory at most meanwhile, looked at now and then.
#[derive(Default, Debug)]
struct Course {
    puts: usize,
    slowest: Duration,
    bytes: u64,
}

impl Course {
    fn put(&mut self, client: &mut Client, value: &[u8]) {
        let asked = now();
        client.put(b"k", value).unwrap();
        self.slowest = self.slowest.max(asked.elapsed());
        self.puts += 1;
    }

    fn look(&mut self, cluster: &mut Cluster, leader: u64) {
        self.bytes = self.bytes.max(anonymous(cluster, leader));
    }

    /// Many times what an outgoing buffer takes.
    fn put_large(&mut self, cluster: &mut Cluster, leader: u64, client: &mut Client) {
        let large = vec![b'x'; LARGE_BYTES];
        for _ in 0..LARGE_PUTS {
            self.put(client, &large);
            self.look(cluster, leader);
        }
    }
}

#[test]
fn a_follower_that_does_not_read_neither_slows_the_leader_nor_fills_its_memory() {
    // The store stays small, so what grows is what waits for the follower: a snapshot would keep
    // what is put over while it is made.
    let flags = ["--history-bytes", "4194304", "--segment-bytes", "16777216"];
    let patient = ["--election-timeout", &PATIENT_MS.to_string(), "--heartbeat", "60"];
    let flags = [&flags[..], &NO_SNAPSHOTS, &patient].concat();
    let flags = flags.into_iter().map(str::to_owned).collect();
    let shape = Shape { flags, company: Company::Nobody, ..Shape::default() };
    let mut cluster = Cluster::start_shaped(3, &shape);
    let leader = cluster.leader();
    let mut client = cluster.client_of(&[leader]);
    let (mut before, mut beside) = (Course::default(), Course::default());
    before.put_large(&mut cluster, leader, &mut client);
    cluster.wait_until_equal();
    before.look(&mut cluster, leader);
    let stopped = cluster.others(leader)[0];
    let behind = cluster.server(stopped).says().last_index;
    cluster.server(stopped).pause();
    beside.put_large(&mut cluster, leader, &mut client);
    // Long enough for the window to be given up, after four election timeouts, and for many probes
    // of a mebibyte each.
    let until = Deadline::after(Duration::from_secs(11));
    while !until.has_passed() {
        beside.put(&mut client, b"small");
    }
    beside.look(&mut cluster, leader);
    println!("grey: before {before:?}, beside a stopped follower {beside:?}");
    let grown = beside.bytes.saturating_sub(before.bytes);
    assert!(grown <= UNREAD_BYTES_MAX.try_into().unwrap(), "the leader has grown by {grown} bytes");
    assert!(beside.slowest <= PUT_WITHIN, "a put took {:?}", beside.slowest);
    assert_eq!(cluster.leader(), leader, "and it still leads");
    returns(&mut cluster, leader, stopped, behind);
}

/// Lets a stopped follower go on, whose log ended at `behind`: it gets what it lacks by entries,
/// for the leader has them all.
fn returns(cluster: &mut Cluster, leader: u64, stopped: u64, behind: LogIndex) {
    let status = cluster.server(leader).says();
    assert!(status.log_base <= behind, "the leader's log begins behind {}", status.log_base);
    cluster.server(stopped).resume();
    cluster.wait_until_equal();
    let (arrived, last) = (cluster.server(stopped).says().applied_index, status.last_index);
    println!("grey: the follower had entries up to {behind}, of {last}; now up to {arrived}");
    assert!(arrived >= last);
}
