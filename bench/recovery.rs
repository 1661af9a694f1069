//! How long a server takes from its start to the first put that it acknowledges, by the size of its
//! log. Beside it: how long reading the same files and a checksum over them takes, which no start
//! can do without.
//!
//! A cluster of one, so that no other server has a part in it; no snapshots, so that all of the log
//! is replayed. The files are in the page cache both times.

use crate::Result;
use crate::measure::{self, Ending, Load};
use crate::scratch::Scratch;
use crate::stats::{Ratio, significant};
use crate::systems::{Cluster, Door};
use crate::wait;
use raftd::client::load::{Layout, Ledger, Mix, Pace, Shape, Signals, Work, Workload, float};
use raftd::client::{Clock, Connection, Deadline};
use raftd::codec::crc::Crc32;
use raftd::types::ClusterId;
use raftd::wire::reply::ReplyBody;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// A log of so many MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Recovery {
    /// Its size.
    pub(crate) log_mib: u64,
}

const KEYS: u32 = 100_000;
const VALUE_BYTES: usize = 256;

/// No snapshot is due within any run. Segments of 16 MiB, since logs grow by segments.
const FLAGS: [&str; 6] = [
    "--snapshot-entries",
    "1099511627776",
    "--snapshot-log-bytes",
    "1099511627776",
    "--segment-bytes",
    "16777216",
];

/// The largest log is written and read in much less.
const PATIENCE: Duration = Duration::from_secs(600);

impl Recovery {
    /// What people call it.
    pub(crate) fn name(self) -> String {
        format!("recovery {} MiB", self.log_mib)
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovered {
    /// Bytes of the files that were read.
    pub(crate) file_bytes: u64,
    /// Entries in the log.
    pub(crate) entries: u64,
    /// From the start of the process to the first acknowledged put. Seconds.
    pub(crate) start_s: f64,
    /// Reading the files and a CRC over them. Seconds.
    pub(crate) read_s: f64,
}

impl Recovered {
    /// Of these files. MiB.
    pub(crate) fn mib(&self) -> f64 {
        float(self.file_bytes) / 1_048_576.0
    }

    /// As a line of text.
    pub(crate) fn line(&self, name: &str) -> String {
        format!(
            "{name}: {} s from start to serving, {} of reading {:.0} MiB and a CRC ({} s); {} \
             entries",
            significant(self.start_s),
            Ratio(self.start_s / self.read_s),
            self.mib(),
            significant(self.read_s),
            self.entries,
        )
    }

    /// For machines.
    pub(crate) fn json(&self, name: &str) -> Value {
        json!({
            "name": name,
            "file_bytes": self.file_bytes,
            "entries": self.entries,
            "start_to_serving_s": self.start_s,
            "read_and_crc_s": self.read_s,
        })
    }
}

/// Writes the log below `parent`, kills its server, and times the start.
pub(crate) fn measure(clock: Clock, recovery: Recovery, parent: &Path) -> Result<Recovered> {
    let mut cluster = Cluster::start(Scratch::make(parent, "recovery")?, 1, &FLAGS)?;
    let leader = cluster.leader()?;
    let door = Door::Raftd(cluster.target(leader));
    let layout = Layout::new(b"key-", 16, VALUE_BYTES).ok_or("a key has room for its number")?;
    let mut ledger = Ledger::new(layout, KEYS);
    let shape = Shape { connections: 16, depth: 64 };
    let fill = Load::of(Workload::of_all(Work::Fill), shape, Pace::Closed);
    measure::beside(clock, &door, fill, &mut ledger, |_, ending| {
        let _filled = ending.is_later_than(PATIENCE);
        Ok(())
    })?;
    let load = Load::of(Workload::even(Mix::PUTS), shape, Pace::Closed);
    let bytes = recovery.log_mib * 1024 * 1024;
    let entries =
        measure::beside(clock, &door, load, &mut ledger, |_: &Signals, ending: &Ending| {
            let grown = wait::until(PATIENCE, || {
                let status = &cluster.statuses()?[0];
                // One segment more is in use: those before it are full.
                let grown = status.log_bytes > bytes || !ending.is_later_than(Duration::ZERO);
                Ok(grown.then(|| status.last_index.get()))
            })?;
            Ok(grown.ok_or("the log did not grow")?)
        })?;
    cluster.kill(leader)?;
    let start_ns = clock.now_ns();
    let file_bytes = read_all(&cluster.data_of(leader))?;
    let read_s = float(clock.now_ns() - start_ns) / 1e9;
    let start_ns = clock.now_ns();
    cluster.start_server(leader)?;
    let address = cluster.servers[leader].address.to_string();
    let served = wait::until(PATIENCE, || Ok(put(&address).ok()))?;
    served.ok_or("it does not serve again")?;
    let start_s = float(clock.now_ns() - start_ns) / 1e9;
    Ok(Recovered { file_bytes, entries: entries.0, start_s, read_s })
}

/// One put, which nobody repeats.
fn put(address: &str) -> Result<()> {
    let deadline = Deadline::after(Duration::from_secs(5));
    let mut connection = Connection::open(address, ClusterId(0), deadline)?;
    connection.put(b"after", b"the start");
    connection.flush(deadline)?;
    let body = connection.receive(deadline)?.body;
    if let ReplyBody::Put { .. } = body { Ok(()) } else { Err(format!("got {body:?}").into()) }
}

/// Reads every file below `directory`, and makes a CRC of all. Returns how many bytes there were.
fn read_all(directory: &Path) -> Result<u64> {
    let (mut crc, mut bytes) = (Crc32::new(), 0);
    let mut buffer = vec![0; 1024 * 1024];
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            bytes += read_all(&path)?;
            continue;
        }
        let mut file = File::open(path)?;
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            crc.update(&buffer[..count]);
            bytes += u64::try_from(count)?;
        }
    }
    std::hint::black_box(crc.value());
    Ok(bytes)
}
