//! A store of many keys under load: snapshots come by themselves, disk and log stay bounded, and no
//! turn of the loop is long.
//!
//! `GROWN_KEYS=200000` and `GROWN_KEYS=1000000` measure, in a release build; a few keys show that
//! it works.

use super::filled::Filled;
use super::harness::{Cluster, PATIENCE, STEADFAST, Server, Shape};
use super::patience::{StopAtEnd, breathe, eventually, now};
use super::turns::Company;
use super::variable;
use raftd::client::{Connection, Deadline};
use raftd::types::LogIndex;
use raftd::wire::reply::ReplyBody;
use raftd::wire::status::{Status, TurnTimes};
use std::fs;
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

pub(super) const VALUE_BYTES: usize = 256;
/// Puts a second, once all keys are there.
const RATE: u32 = 20_000;
/// Puts on their way at once.
const WINDOW: u64 = 512;
/// The bound on the CPU time of a turn while a snapshot is made. Microseconds.
pub(super) const TURN_US: u64 = 5_000;
/// Snapshots that are watched, once all keys are there.
const SNAPSHOTS: usize = 3;

/// Puts the keys `numbers` on one connection, many at a time, and no more than `RATE` a second if
/// `steadily`. Stops early if told so.
pub(super) fn put(
    connection: &mut Connection,
    numbers: impl Iterator<Item = u64>,
    steadily: bool,
    stop: &AtomicBool,
) {
    let began = now();
    let deadline = || Deadline::after(PATIENCE);
    let hear = |connection: &mut Connection| match connection.receive(deadline()).unwrap().body {
        ReplyBody::Put { .. } => {}
        other => panic!("a put was answered with {other:?}"),
    };
    let mut open = 0;
    for (sent, number) in (0..).zip(numbers) {
        connection.put(format!("key/{number:09}").as_bytes(), &[b'v'; VALUE_BYTES]);
        open += 1;
        if open == WINDOW {
            connection.flush(deadline()).unwrap();
            for _ in 0..WINDOW / 2 {
                hear(connection);
            }
            open -= WINDOW / 2;
            let due = Duration::from_secs(sent) / RATE;
            if steadily && let Some(early) = due.checked_sub(began.elapsed()) {
                breathe(early);
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    connection.flush(deadline()).unwrap();
    for _ in 0..open {
        hear(connection);
    }
}

/// Bytes on the disk of everything in a directory, as `du` counts; what is removed meanwhile is
/// not there.
fn disk_bytes(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

/// What was seen of a node while it made snapshots under load.
struct Seen {
    snapshots: Vec<LogIndex>,
    most_log: u64,
    /// The most on the disk, and the size of the snapshot in force then.
    most_disk: (u64, u64),
    /// At the last look: the turns so far, and what the host had stolen.
    last: (TurnTimes, u64),
    /// Turns above the bound that the host explains, and those that it does not.
    robbed: u64,
    long: u64,
}

impl Seen {
    fn start(status: &Status) -> Seen {
        Seen {
            snapshots: Vec::new(),
            most_log: 0,
            most_disk: (0, 0),
            last: (status.turn_times.clone(), stolen_ms()),
            robbed: 0,
            long: 0,
        }
    }

    fn look(&mut self, status: &Status, disk_bytes: u64) {
        self.look_at_turns(status);
        let index = status.snapshot_index;
        if self.snapshots.last() != Some(&index) {
            self.snapshots.push(index);
        }
        self.most_log = self.most_log.max(status.log_bytes);
        self.most_disk = self.most_disk.max((disk_bytes, status.snapshot_bytes));
    }

    /// A host that takes the CPU away during a turn makes it longer: a thread's CPU time counts
    /// what was stolen as its own. A long turn is excused only if without all that was stolen since
    /// the last look, which is some milliseconds ago, it were within the bound.
    fn look_at_turns(&mut self, status: &Status) {
        let last = (status.turn_times.clone(), stolen_ms());
        let before = mem::replace(&mut self.last, last);
        let (_, above, _) = between(&before.0, &self.last.0);
        if above == 0 {
            return;
        }
        let (stolen_ms, longest) = (self.last.1 - before.1, status.turn_times.longest_cpu_us);
        println!("grown: {}: {above} long, {stolen_ms} ms stolen meanwhile", status.node);
        if above == 1 && longest <= TURN_US + 1000 * stolen_ms {
            self.robbed += above;
        } else {
            self.long += above;
        }
    }
}

/// The turns between two looks: those above the bound, and bounds on the percentiles by the clock.
pub(super) fn between(before: &TurnTimes, after: &TurnTimes) -> (u64, u64, [Option<u64>; 2]) {
    let pairs = before.buckets.iter().zip(&after.buckets);
    let counts: Vec<_> =
        pairs.map(|(b, a)| (a.at_most_us, a.cpu - b.cpu, a.wall - b.wall)).collect();
    let long = |&(at_most_us, ..): &(Option<u64>, _, _)| at_most_us.is_none_or(|it| it > TURN_US);
    let above = counts.iter().filter(|it| long(it)).map(|it| it.1).sum();
    let all: u64 = counts.iter().map(|it| it.1).sum();
    let percentile = |per_mille: u64| {
        let mut left = (all * per_mille).div_ceil(1000);
        let holds = |it: &&(Option<u64>, u64, u64)| {
            let found = it.2 >= left;
            left = left.saturating_sub(it.2);
            found
        };
        counts.iter().find(holds).and_then(|it| it.0)
    };
    (all, above, [percentile(990), percentile(999)])
}

/// What the host has taken from this machine since it started, where there is a host. A thread's
/// CPU time counts it as its own. Milliseconds.
pub(super) fn stolen_ms() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = text.split_whitespace().nth(8).and_then(|word| word.parse().ok());
    ticks.map_or(0, |ticks: u64| ticks * 10)
}

/// Prints what was seen of a node.
fn report(seen: &Seen, before: &TurnTimes, status: &Status) {
    let (id, times) = (status.node, &status.turn_times);
    let (turns, above, wall) = between(before, times);
    let (longest, by_clock) = (times.longest_cpu_us, times.longest_wall_us);
    let ((disk, snapshot), log) = (seen.most_disk, seen.most_log);
    println!("grown: {id}: {} keys, {SNAPSHOTS} snapshots of {snapshot} bytes", status.keys);
    println!("grown: {id}: most on disk {disk} bytes, in the log {log}");
    println!("grown: {id}: {turns} turns, {above} above {TURN_US} us of CPU, at most {longest}");
    println!("grown: {id}: of the long ones {} are the host's, {} our own", seen.robbed, seen.long);
    println!("grown: {id}: by the clock p99, p99.9 {wall:?} us, at most {by_clock}");
}

#[test]
fn snapshots_under_load_keep_the_disk_bounded_and_turns_short() {
    let asked = variable("GROWN_KEYS");
    let keys = asked.unwrap_or(5_000);
    // The default of entries, or so few that some turns bring a snapshot.
    let (segment_bytes, entries) =
        if asked.is_some() { (8 << 20, "1000") } else { (1 << 20, "20") };
    let segment = u64::to_string(&segment_bytes);
    let flags = ["--segment-bytes", &segment, "--snapshot-interval", "1000"];
    let flags = flags.into_iter().chain(["--snapshot-entries", entries]);
    // A machine that does other things as well must not depose the leader.
    let patient = STEADFAST.iter().copied().filter(|_| asked.is_none());
    let flags = flags.chain(patient).map(str::to_owned).collect();
    let company = if asked.is_some() { Company::Nobody } else { Company::Others };
    let _filled = asked.map(|_| Filled::touch());
    let mut cluster = Cluster::start_shaped(3, &Shape { flags, company, ..Shape::default() });
    let leader = cluster.leader();
    let (mut connection, stop) = (cluster.server(leader).connection(), AtomicBool::new(false));
    put(&mut connection, 0..keys, false, &stop);

    let directories: Vec<_> = cluster.servers.iter().map(|it| it.directory.clone()).collect();
    let before: Vec<Status> = cluster.servers.iter().map(Server::says).collect();
    let stolen_before = stolen_ms();
    let mut seen: Vec<Seen> = before.iter().map(Seen::start).collect();
    thread::scope(|scope| {
        let stop = &stop;
        // Multiples of a number without common factors: every key in turn, in no order.
        let numbers = (1..).map(|step: u64| step * 7_368_787 % keys);
        scope.spawn(move || put(&mut connection, numbers, true, stop));
        let _stop = StopAtEnd(stop);
        let patience = PATIENCE + Duration::from_secs(keys / 1000);
        eventually("snapshots come by themselves", patience, || {
            for (nth, seen) in seen.iter_mut().enumerate() {
                let bytes = disk_bytes(&directories[nth]);
                seen.look(&cluster.servers[nth].status().ok()?, bytes);
            }
            seen.iter().all(|it| it.snapshots.len() > SNAPSHOTS).then_some(())
        });
    });
    println!("grown: {} ms stolen by the host", stolen_ms() - stolen_before);
    for (nth, seen) in seen.iter_mut().enumerate() {
        let status = cluster.servers[nth].says();
        assert_eq!(status.keys, keys);
        seen.look_at_turns(&status);
        report(seen, &before[nth].turn_times, &status);
        assert!(status.log_base > LogIndex::ZERO, "the log behind a snapshot goes");
        if asked.is_some() {
            // The segment in use, and two that stand ready.
            let ((disk, snapshot), ready) = (seen.most_disk, 3 * segment_bytes);
            assert!(disk <= 3 * snapshot + ready, "{disk} bytes for a snapshot of {snapshot}");
            assert_eq!(seen.long, 0, "turns above {TURN_US} us of CPU");
        }
    }
    cluster.wait_until_equal();
}
