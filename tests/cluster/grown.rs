//! A store of many keys under load: snapshots come by themselves, disk and log stay bounded while
//! it grows and afterwards, and no turn of the loop is long.
//!
//! | variable | meaning |
//! |---|---|
//! | `GROWN_KEYS` | 200000 and 1000000 measure, in a release build; a few show that it works |
//! | `GROWN_DEFAULTS` | 1: with the flags that a server has by default, under a lighter load |

use super::filled::Filled;
use super::harness::{Cluster, PATIENCE, STEADFAST, Server, Shape};
use super::patience::{StopAtEnd, breathe, eventually, now};
use super::turn_lengths::{TurnsSeen, stolen_ms};
use super::turns::Company;
use super::variable;
use raftd::client::{Connection, Deadline};
use raftd::limits;
use raftd::types::LogIndex;
use raftd::wire::reply::ReplyBody;
use raftd::wire::status::Status;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

pub(super) const VALUE_BYTES: usize = 256;
/// Puts a second.
pub(super) const RATE: u32 = 20_000;
/// What a put takes in the log, a little more: an entry with a few of them is the shortest. Bytes.
const PUT_LOG_BYTES: u64 = 400;
/// Puts on their way at once.
const WINDOW: u64 = 512;
/// Snapshots that are watched, once all keys are there.
const SNAPSHOTS: usize = 3;

/// Puts the keys `numbers` on one connection, many at a time, and no more than `rate` a second if
/// there is one. Stops early if told so.
pub(super) fn put(
    connection: &mut Connection,
    numbers: impl Iterator<Item = u64>,
    rate: Option<u32>,
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
            let due = rate.map(|rate| Duration::from_secs(sent) / rate);
            if let Some(early) = due.and_then(|due| due.checked_sub(began.elapsed())) {
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

/// How the servers are set up, and how fast they are written to.
#[derive(Clone, Copy)]
struct Setup {
    segment_bytes: u64,
    entries: u64,
    interval_ms: u64,
    rate: u32,
}

impl Setup {
    /// A snapshot every second if the log grows so fast. Few entries bring one where few keys are
    /// there, so that some turns see it.
    fn hurried(asked: Option<u64>) -> Setup {
        let (segment_bytes, entries) = match asked {
            Some(_) => (8 << 20, limits::SNAPSHOT_ENTRIES_DEFAULT),
            None => (1 << 20, 20),
        };
        Setup { segment_bytes, entries, interval_ms: 1000, rate: RATE }
    }

    fn by_default() -> Setup {
        Setup {
            segment_bytes: limits::SEGMENT_BYTES_DEFAULT,
            entries: limits::SNAPSHOT_ENTRIES_DEFAULT,
            interval_ms: limits::SNAPSHOT_INTERVAL_MS_DEFAULT,
            rate: RATE,
        }
    }

    fn flags(&self) -> Vec<String> {
        let Setup { segment_bytes, entries, interval_ms, .. } = self;
        let flags = [
            ("--segment-bytes", segment_bytes),
            ("--snapshot-entries", entries),
            ("--snapshot-interval", interval_ms),
        ];
        let words = flags.map(|(flag, value)| [flag.to_owned(), value.to_string()]);
        words.into_iter().flatten().collect()
    }

    /// The most that may be on the disk beside snapshots, and in the log: the segment in use and
    /// two that stand ready, what may be written from one snapshot to the next and as long again,
    /// while the next one is made, and as much log as a snapshot.
    fn log_bytes_max(&self, snapshot_bytes: u64) -> u64 {
        let written = u64::from(self.rate) * PUT_LOG_BYTES * self.interval_ms / 1000;
        3 * self.segment_bytes + 2 * written + snapshot_bytes
    }
}

/// What was seen of a node from one snapshot to the next.
#[derive(Clone, Copy, Default, Debug)]
struct Period {
    /// The one in force, and its size.
    index: LogIndex,
    snapshot_bytes: u64,
    most_log: u64,
    most_disk: u64,
}

/// What was seen of a node while it made snapshots under load.
struct Seen {
    turns: TurnsSeen,
    /// The last one is not over.
    periods: Vec<Period>,
    /// The index of its snapshot when all keys were there.
    filled_at: LogIndex,
}

impl Seen {
    fn start(status: &Status) -> Seen {
        let periods = vec![Period::default()];
        Seen { turns: TurnsSeen::start(status), periods, filled_at: LogIndex::ZERO }
    }

    fn look(&mut self, status: &Status, disk_bytes: u64) {
        self.turns.look(status);
        let (index, snapshot_bytes) = (status.snapshot_index, status.snapshot_bytes);
        let last = self.periods.last_mut().expect("it begins with one");
        // The disk was looked at a moment later or before: it belongs to both.
        last.most_log = last.most_log.max(status.log_bytes);
        last.most_disk = last.most_disk.max(disk_bytes);
        if last.index != index {
            let (most_log, most_disk) = (status.log_bytes, disk_bytes);
            self.periods.push(Period { index, snapshot_bytes, most_log, most_disk });
        }
    }

    /// All keys are there. Its turns until then are a figure without a bound.
    fn is_filled(&mut self, status: &Status) {
        self.turns.report(&format!("grown: {}: while it grew", status.node));
        self.turns = TurnsSeen::start(status);
        self.filled_at = self.periods.last().expect("it begins with one").index;
    }

    /// Snapshots that came since all keys are there.
    fn snapshots(&self) -> usize {
        self.periods.iter().filter(|it| it.index > self.filled_at).count()
    }

    /// Asserts the bounds of each period: they go by the larger of the snapshot in force and the
    /// next one, of which the most of it is on the disk already.
    fn stays_within(&self, setup: &Setup) {
        let next = self.periods.iter().skip(1).chain(self.periods.last());
        for (period, next) in self.periods.iter().zip(next) {
            let snapshot = period.snapshot_bytes.max(next.snapshot_bytes);
            let log_max = setup.log_bytes_max(snapshot);
            assert!(period.most_log <= log_max, "more log than {log_max}: {period:?}");
            let disk_max = 2 * snapshot + log_max;
            assert!(period.most_disk <= disk_max, "more than {disk_max}: {period:?}");
            // Once it grows no more: three times the snapshot, and the segments: the one in use
            // and two that stand ready.
            if period.index > self.filled_at {
                let disk_max = 3 * snapshot + 3 * setup.segment_bytes;
                assert!(period.most_disk <= disk_max, "more than {disk_max}: {period:?}");
            }
        }
    }
}

/// Prints what was seen of a node.
fn report(seen: &Seen, status: &Status) {
    let id = status.node;
    let (growing, grown): (Vec<_>, Vec<_>) =
        seen.periods.iter().partition(|it: &&Period| it.index <= seen.filled_at);
    for (when, periods) in [("while it grew", growing), ("then", grown)] {
        let most = |of: fn(&Period) -> u64| periods.iter().map(of).max().unwrap_or(0);
        let snapshot = most(|it| it.snapshot_bytes);
        let (disk, log) = (most(|it| it.most_disk), most(|it| it.most_log));
        println!("grown: {id}: {when} {} snapshots of at most {snapshot} bytes", periods.len());
        println!("grown: {id}: {when} most on disk {disk} bytes, in the log {log}");
    }
    seen.turns.report(&format!("grown: {id}"));
}

/// What `raftctl log dump` says of the log of a dead server.
fn dump(directory: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_raftctl"))
        .args(["log", "dump", &directory.to_string_lossy(), "--limit", "1", "--output", "json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Kills a server and asserts that its log is what is bounded: it begins behind a snapshot, and
/// what its segments hold is within the bound. Prints it.
fn log_is_bounded(server: &mut Server, setup: &Setup, strict: bool) {
    let status = server.says();
    server.kill();
    let dumped = dump(&server.directory);
    let number = |name: &str| dumped[name].as_u64().unwrap();
    let (base, snapshot) = (number("log_base"), number("snapshot_index"));
    let last = number("last_index");
    let segments = dumped["segments"].as_array().unwrap();
    let used: u64 = segments.iter().map(|it| it["used"].as_u64().unwrap()).sum();
    let (id, count) = (server.id, segments.len());
    println!(
        "grown: n{id}: the dump of its log: ({base}, {last}], {used} bytes in {count} segments"
    );
    assert!(base > 0 && base <= snapshot, "the log behind a snapshot goes: {base}, {snapshot}");
    assert!(snapshot <= last && last >= status.last_index.get(), "the rest of it stays");
    if strict {
        let most = setup.log_bytes_max(status.snapshot_bytes);
        assert!(used <= most, "{used} bytes of log, more than {most}");
    }
}

#[test]
fn snapshots_under_load_keep_the_disk_bounded_and_turns_short() {
    let asked = variable("GROWN_KEYS");
    let keys = asked.unwrap_or(5_000);
    let setup = match variable("GROWN_DEFAULTS") {
        Some(_) => Setup::by_default(),
        None => Setup::hurried(asked),
    };
    // A machine that does other things as well must not depose the leader.
    let patient = STEADFAST.iter().filter(|_| asked.is_none()).map(|it| (*it).to_owned());
    let flags = setup.flags().into_iter().chain(patient).collect();
    let company = if asked.is_some() { Company::Nobody } else { Company::Others };
    let _filled = asked.map(|_| Filled::touch());
    let mut cluster = Cluster::start_shaped(3, &Shape { flags, company, ..Shape::default() });
    let leader = cluster.leader();
    let (mut connection, stop) = (cluster.server(leader).connection(), AtomicBool::new(false));
    let stolen_before = stolen_ms();
    let mut seen: Vec<Seen> = cluster.servers.iter().map(|it| Seen::start(&it.says())).collect();
    let patience = PATIENCE + Duration::from_secs(keys / 200);
    thread::scope(|scope| {
        let (stop, rate) = (&stop, Some(setup.rate));
        let (told, all_there) = channel();
        let writer = scope.spawn(move || {
            put(&mut connection, 0..keys, rate, stop);
            let _gone = told.send(());
            // Multiples of a number without common factors: every key in turn, in no order.
            let numbers = (1..).map(|step: u64| step * 7_368_787 % keys);
            put(&mut connection, numbers, rate, stop);
        });
        let _stop = StopAtEnd(stop);
        let look = |seen: &mut [Seen]| {
            assert!(!writer.is_finished(), "nobody writes any more");
            for (server, seen) in cluster.servers.iter().zip(seen) {
                seen.look(&server.status().ok()?, disk_bytes(&server.directory));
            }
            Some(())
        };
        eventually("all keys are there", patience, || {
            look(&mut seen)?;
            all_there.try_recv().ok()
        });
        for (server, seen) in cluster.servers.iter().zip(&mut seen) {
            seen.is_filled(&server.says());
        }
        eventually("snapshots come by themselves", patience, || {
            look(&mut seen)?;
            seen.iter().all(|it| it.snapshots() > SNAPSHOTS).then_some(())
        });
    });
    println!("grown: {keys} keys, {} ms stolen by the host", stolen_ms() - stolen_before);
    for (server, seen) in cluster.servers.iter().zip(&mut seen) {
        let status = server.says();
        assert_eq!(status.keys, keys);
        seen.turns.look(&status);
        report(seen, &status);
        if asked.is_some() {
            seen.stays_within(&setup);
            seen.turns.assert_short();
        }
    }
    cluster.wait_until_equal();
    for server in &mut cluster.servers {
        log_is_bounded(server, &setup, asked.is_some());
    }
}
