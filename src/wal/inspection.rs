//! What a data directory holds, for people: read and judged as `open` does, and nothing changed.

use super::directory::segment_name;
use super::disk::Disk;
use super::error::{Damage, OpenError};
use super::hard_state::{self, HardStateFiles};
use super::identity::Identity;
use super::mend::header_offset;
use super::record::Place;
use super::recovery::{self, Read};
use super::replay::Replay;
use super::snapshot_file::SNAP;
use super::snapshot_source::SnapshotSource;
use crate::types::{EntryKind, HardState, LogIndex, LogPosition, SnapshotId};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// A data directory, read.
#[derive(Debug)]
pub struct Contents {
    /// Whose it is.
    pub identity: Identity,
    /// The newest version of the hard state.
    pub hard_state: HardStateContents,
    /// The log.
    pub log: LogContents,
    /// The snapshot in force. What is in it is for `SnapshotSource::read` to judge.
    pub snapshot: Option<SnapshotSource>,
    /// The files of snapshots, with their lengths: in force, on their way, left over.
    pub snapshot_files: Vec<(String, u64)>,
    /// What may have been acknowledged and is lost: a server refuses to start on it.
    pub damages: Vec<Damage>,
    /// Copies of the hard state and header pages of segments that do not validate, by file and
    /// offset, while the other copy does: the next start mends them.
    pub bad_copies: Vec<(PathBuf, u64)>,
}

/// The hard state, as it was written last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HardStateContents {
    /// How often it was written.
    pub version: u64,
    /// Term and vote.
    pub hard_state: HardState,
    /// A lower bound of the last entry on disk.
    pub last_durable: LogPosition,
    /// Hash of the bootstrap configuration; 0 before bootstrap.
    pub genesis: u64,
    /// Whether the last process ended in order.
    pub clean: bool,
    /// Whether its state differed from the other members' and has not come anew since.
    pub diverged: bool,
    /// The snapshot in force; all zero if there is none.
    pub snapshot: SnapshotId,
}

/// The log, replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogContents {
    /// The entry before the first one.
    pub base: LogPosition,
    /// The last entry.
    pub last: LogPosition,
    /// The largest index known to be committed.
    pub commit_index: LogIndex,
    /// Everything before was synced for certain: file and offset. `None` in an empty log.
    pub watermark: Option<(PathBuf, u64)>,
    /// Where a batch that was never acknowledged is torn, as a crash leaves it.
    pub torn_at: Option<(PathBuf, u64)>,
    /// Records read.
    pub records: u64,
    /// Damaged places that held nothing.
    pub harmless: u64,
    /// The files, in order, spares last.
    pub segments: Vec<SegmentContents>,
    /// The entries behind the base.
    pub entries: Vec<EntryContents>,
}

/// A file of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentContents {
    /// Where it is.
    pub file: PathBuf,
    /// Its length. Bytes.
    pub bytes: u64,
    /// Up to where anything is written in it. Bytes.
    pub used: u64,
    /// The first and the last entry of the log that stand in it; `None`: it is a spare, or holds
    /// only what was cut away.
    pub entries: Option<(LogIndex, LogIndex)>,
}

/// An entry of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryContents {
    /// Its place.
    pub position: LogPosition,
    /// What it holds.
    pub kind: EntryKind,
    /// Payload length. Bytes.
    pub bytes: u32,
}

/// Reads a directory and changes nothing. Refuses what cannot be told apart: a directory of
/// others, a lost identity, a lost hard state.
pub fn inspect(disk: &dyn Disk) -> Result<Contents, OpenError> {
    let identity = identity(disk)?;
    let loaded = HardStateFiles::load(disk, identity.disk_id)?;
    let newest = loaded.newest;
    let snapshot = recovery::find_snapshot(disk, newest.snapshot)?;
    let read = recovery::read_segments(disk, &identity, newest.first_segment.max(1))?;
    let replay = recovery::judge(&read, &newest);
    let damages = replay.damages();
    let bad_copies = loaded.bad_copies.iter().map(|&(name, offset)| (disk.path(name), offset));
    let bad_headers = read.scans.iter().filter_map(|scan| {
        let offset = header_offset(scan.bad_header?);
        Some((disk.path(&segment_name(scan.seq)), offset))
    });
    Ok(Contents {
        identity: newest.identity_of(&identity),
        hard_state: HardStateContents {
            version: newest.seq,
            hard_state: newest.hard_state,
            last_durable: newest.last_durable,
            genesis: newest.genesis,
            clean: newest.clean,
            diverged: newest.diverged,
            snapshot: newest.snapshot,
        },
        log: log_contents(disk, &read, &replay, newest.snapshot),
        snapshot,
        snapshot_files: snapshot_files(disk)?,
        damages: damages.map(|(extent, place)| recovery::damage(disk, extent, place)).collect(),
        bad_copies: bad_copies.chain(bad_headers).collect(),
    })
}

/// Whose it is. Without its name it may still be one of ours, as a start finds as well.
fn identity(disk: &dyn Disk) -> Result<Identity, OpenError> {
    if let Some(identity) = Identity::read(disk)? {
        return Ok(identity);
    }
    let (path, blank) = (disk.path(""), hard_state::is_blank(disk)?);
    Err(if blank { OpenError::NotADataDirectory { path } } else { OpenError::Incomplete { path } })
}

/// How often the hard state of a directory was written: whoever starts on it writes it first.
pub fn hard_state_version(disk: &dyn Disk) -> Result<u64, OpenError> {
    let identity = identity(disk)?;
    Ok(HardStateFiles::load(disk, identity.disk_id)?.newest.seq)
}

fn log_contents(
    disk: &dyn Disk,
    read: &Read,
    replay: &Replay,
    snapshot: SnapshotId,
) -> LogContents {
    let named = |place: Place| (disk.path(&segment_name(place.segment)), u64::from(place.offset));
    let mut index = replay.base.index;
    let entries = replay.entries.iter().map(|entry| {
        index = index.next();
        let position = LogPosition::new(entry.term, index);
        EntryContents { position, kind: entry.kind, bytes: entry.payload_len }
    });
    let entries: Vec<EntryContents> = entries.collect();
    let mut ranges = BTreeMap::new();
    for (entry, found) in replay.entries.iter().zip(&entries) {
        let index = found.position.index;
        ranges.entry(entry.place.segment).or_insert((index, index)).1 = index;
    }
    let segments = read.scans.iter().map(|scan| SegmentContents {
        file: disk.path(&segment_name(scan.seq)),
        bytes: scan.header.map_or(0, |header| u64::from(header.file_len)),
        used: u64::from(scan.zero_from),
        entries: ranges.get(&scan.seq).copied(),
    });
    let last = replay.last();
    LogContents {
        base: replay.base,
        last,
        commit_index: replay.commit.min(last.index).max(snapshot.position.index),
        watermark: Some(replay.watermark).filter(|it| *it != Place::default()).map(named),
        torn_at: replay.torn_at.map(named),
        records: replay.records,
        harmless: replay.harmless,
        segments: segments.collect(),
        entries,
    }
}

fn snapshot_files(disk: &dyn Disk) -> Result<Vec<(String, u64)>, OpenError> {
    let mut names = match disk.list(SNAP) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(OpenError::io(disk, "list", SNAP)(error)),
    };
    names.sort();
    let mut files = Vec::new();
    for name in names.iter().map(|name| format!("{SNAP}/{name}")) {
        let file = disk.open(&name).map_err(OpenError::io(disk, "open", &name))?;
        let bytes = file.len().map_err(OpenError::io(disk, "look at", &name))?;
        files.push((name, bytes));
    }
    Ok(files)
}
