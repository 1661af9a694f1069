//! Opening a data directory: make it, or read it back and judge it. Blocks; start-up only.

use super::background::create_now;
use super::batch::{Known, lone_pad};
use super::disk::{Disk, DiskFile};
use super::hard_state::{self, FILES, Stored};
use super::identity::Identity;
use super::record::{RecordKind, narrow, wide};
use super::recovery::{Found, Item, Scan, scan};
use super::segment::{DATA_START, FooterRow, Segment, SegmentHeader, name, sequence_of};
use super::staging::{Parts, Wal};
use super::verdict::{Damage, Replayed, judge};
use super::{Place, record};
use crate::limits::PAGE_BYTES;
use crate::types::{
    ClusterId, DiskId, EntryKind, HardState, LogIndex, LogPosition, NodeId, Term, Vote,
};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;

/// What the log is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The cluster of a new directory.
    pub cluster_id: ClusterId,
    /// A hash of the cluster token; 0 if none was given, then any directory fits.
    pub token_hash: u64,
    /// The server.
    pub node: NodeId,
    /// The name of a new directory.
    pub disk_id_if_new: DiskId,
    /// New at every start.
    pub boot_nonce: u64,
    /// The segments of a new directory. Bytes.
    pub segment_bytes: u64,
    /// Seeds the salts of segments.
    pub salt_seed: u64,
    /// Milliseconds since 1970.
    pub created_unix_ms: u64,
}

/// What a directory held.
#[derive(Debug)]
pub struct Recovered {
    /// Whose it is.
    pub identity: Identity,
    /// Term and vote.
    pub hard_state: HardState,
    /// The hash of the first entry; 0 if there never was one.
    pub genesis: u64,
    /// The last index of each run of one term, ascending.
    pub runs: Vec<(LogIndex, Term)>,
    /// Payload bytes of each entry.
    pub sizes: Vec<u32>,
    /// The configuration entries with their payloads, ascending.
    pub configurations: Vec<(LogIndex, Vec<u8>)>,
    /// The largest commit index that any record knew.
    pub commit_index: LogIndex,
    /// The last entry.
    pub last: LogPosition,
    /// What recovery did.
    pub report: RecoveryReport,
}

/// What recovery did, for the log line.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RecoveryReport {
    /// Whole records read.
    pub records: u64,
    /// Bytes of a torn, never acknowledged tail that were cut off.
    pub torn_bytes: u64,
}

/// Why a data directory cannot be used. Each is one line that says what to do.
#[derive(Debug)]
pub enum OpenError {
    /// It belongs to another server.
    WrongNode {
        /// Whose it is.
        found: NodeId,
        /// Who asked.
        asked: NodeId,
    },
    /// It belongs to a cluster with another token.
    WrongCluster {
        /// The cluster whose it is.
        found: ClusterId,
    },
    /// Parts of it are missing or of a version we do not know.
    Incomplete {
        /// Which part.
        what: String,
    },
    /// Term and vote are damaged in both copies.
    HardStateLost,
    /// Entries of the log are damaged.
    Damaged {
        /// The file.
        file: String,
        /// Where in the file. Bytes.
        offset: u32,
        /// The first damaged index.
        first: LogIndex,
        /// The last damaged index, if it can be told.
        last: Option<LogIndex>,
        /// Why it is damage and no torn tail.
        rule: &'static str,
    },
    /// The disk refused.
    Io {
        /// What was attempted, and on what.
        doing: String,
        /// Why not.
        source: io::Error,
    },
}

impl OpenError {
    /// Whether the disk failed, rather than what it holds being wrong.
    pub fn is_io(&self) -> bool {
        matches!(self, OpenError::Io { .. })
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replace =
            "empty the data directory and replace the member with `raftctl member replace`";
        match self {
            OpenError::WrongNode { found, asked } => write!(
                f,
                "the data directory belongs to server {}, not {}: correct --id or --data-dir",
                found.get(),
                asked.get()
            ),
            OpenError::WrongCluster { found } => write!(
                f,
                "the data directory belongs to cluster {found}, which has another \
                --cluster-token: correct \
                 --cluster-token or --data-dir"
            ),
            OpenError::Incomplete { what } => write!(
                f,
                "the data directory is not whole: {what}; restore it from where it was copied, or \
                {replace}"
            ),
            OpenError::HardStateLost => write!(
                f,
                "hs.0 and hs.1 are both damaged: what this server promised is lost, so it must \
                not vote; \
                 {replace}"
            ),
            OpenError::Damaged { file, offset, first, last, rule } => {
                write!(f, "{file} is damaged at byte {offset}: ")?;
                match last {
                    Some(last) if last == first => write!(f, "entry {first}")?,
                    Some(last) => write!(f, "entries {first} to {last}")?,
                    None => write!(f, "entries from {first} on")?,
                }
                write!(
                    f,
                    " ({rule}); nothing was changed; restore the file from a good copy, or, while \
                    a majority \
                     of the others is well, {replace}"
                )
            }
            OpenError::Io { doing, source } => {
                write!(f, "cannot {doing}: {source}; check the disk, then start again")
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Io { source, .. } => Some(source),
            OpenError::WrongNode { .. }
            | OpenError::WrongCluster { .. }
            | OpenError::Incomplete { .. }
            | OpenError::HardStateLost
            | OpenError::Damaged { .. } => None,
        }
    }
}

fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    let doing = doing.into();
    move |source| OpenError::Io { doing, source }
}

/// Opens the directory behind `disk`, or makes it.
pub fn open(disk: Arc<dyn Disk>, options: &Options) -> Result<(Wal, Recovered), OpenError> {
    let names = disk.list("").map_err(io_error("list the data directory"))?;
    if !names.iter().any(|name| name == "IDENTITY") {
        create(&disk, options)?;
    }
    let file = disk.open("IDENTITY").map_err(io_error("open IDENTITY"))?;
    let page = file.read_durable().map_err(io_error("read IDENTITY"))?;
    let identity = Identity::decode(&page).ok_or_else(|| OpenError::Incomplete {
        what: "IDENTITY is damaged or of a newer version".to_owned(),
    })?;
    if identity.node != options.node {
        return Err(OpenError::WrongNode { found: identity.node, asked: options.node });
    }
    if options.token_hash != 0 && options.token_hash != identity.token_hash {
        return Err(OpenError::WrongCluster { found: identity.cluster_id });
    }
    recover(disk, identity, options)
}

/// Makes a directory. IDENTITY comes last: without it, and with nothing written to the log, a
/// creation that was
/// interrupted is begun anew.
fn create(disk: &Arc<dyn Disk>, options: &Options) -> Result<(), OpenError> {
    clear_unfinished(disk)?;
    disk.create_folder("log").map_err(io_error("create log/"))?;
    let header = SegmentHeader {
        cluster_id: options.cluster_id,
        node: options.node,
        sequence: 1,
        salt: record::next_salt(options.salt_seed),
        file_bytes: options.segment_bytes,
    };
    create_now(disk, header).map_err(io_error("create the first log segment"))?;
    let first = Stored {
        version: 0,
        hard_state: HardState { term: Term::ZERO, vote: Vote::None },
        boot_nonce: 0,
        genesis: 0,
        last_durable: LogPosition::ZERO,
        uncertain: false,
    };
    for name in FILES {
        let file = disk.create(name).map_err(io_error(format!("create {name}")))?;
        for stored in [first, first.next()] {
            let written = file.write_at(stored.offset(), &stored.encode());
            written.map_err(io_error(format!("write {name}")))?;
        }
        file.sync().map_err(io_error(format!("sync {name}")))?;
    }
    let identity = Identity {
        cluster_id: options.cluster_id,
        node: options.node,
        disk_id: options.disk_id_if_new,
        token_hash: options.token_hash,
        created_unix_ms: options.created_unix_ms,
        segment_bytes: options.segment_bytes,
    };
    let written = disk.create("IDENTITY.new").and_then(|file| {
        file.write_at(0, &identity.encode())?;
        file.sync()?;
        // What IDENTITY vouches for must be there before it is.
        disk.sync_folder("")?;
        disk.rename("IDENTITY.new", "IDENTITY")?;
        disk.sync_folder("")
    });
    written.map_err(io_error("write IDENTITY"))
}

/// Removes what an interrupted creation left; refuses if the log holds anything.
fn clear_unfinished(disk: &Arc<dyn Disk>) -> Result<(), OpenError> {
    for file in disk.list("log").map_err(io_error("list log/"))? {
        let path = format!("log/{file}");
        let opened = disk.open(&path).map_err(io_error(format!("open {path}")))?;
        let bytes = opened.read_durable().map_err(io_error(format!("read {path}")))?;
        if bytes.iter().skip(DATA_START).any(|byte| *byte != 0) {
            let what = format!("there is a log ({path}) but no IDENTITY");
            return Err(OpenError::Incomplete { what });
        }
        disk.remove(&path).map_err(io_error(format!("remove {path}")))?;
    }
    for file in disk.list("").map_err(io_error("list the data directory"))? {
        if FILES.contains(&file.as_str()) || file == "IDENTITY.new" {
            disk.remove(&file).map_err(io_error(format!("remove {file}")))?;
        }
    }
    Ok(())
}

/// A segment as it was read.
struct Read {
    segment: Segment,
    scan: Scan,
}

fn recover(
    disk: Arc<dyn Disk>,
    identity: Identity,
    options: &Options,
) -> Result<(Wal, Recovered), OpenError> {
    let (hard_state_files, stored) = read_hard_state(&disk)?;
    let mut unfinished = Vec::new();
    let mut read = read_segments(&disk, &identity, &mut unfinished)?;
    let items: Vec<Item> = read.iter().flat_map(|read| read.scan.items.iter().copied()).collect();
    let replayed = judge(&items).map_err(damaged)?;
    check_last(&replayed, &stored)?;

    // Only now, with nothing damaged, is anything written.
    for path in unfinished {
        disk.remove(&path).map_err(io_error(format!("remove {path}")))?;
    }
    let torn_bytes = match replayed.torn_at {
        Some(place) => cut_torn(&mut read, place, &replayed)?,
        None => 0,
    };
    let stored = renew(&hard_state_files, stored, &replayed, options)?;
    let report = RecoveryReport { records: replayed.records, torn_bytes };
    assemble(disk, identity, hard_state_files, stored, read, replayed, report, options)
}

fn read_hard_state(disk: &Arc<dyn Disk>) -> Result<([Arc<dyn DiskFile>; 2], Stored), OpenError> {
    let open = |name: &str| disk.open(name).map_err(io_error(format!("open {name}")));
    let files = [open(FILES[0])?, open(FILES[1])?];
    let read =
        |file: &Arc<dyn DiskFile>| file.read_durable().map_err(io_error("read the hard state"));
    let bytes = [read(&files[0])?, read(&files[1])?];
    let stored = hard_state::newest([&bytes[0], &bytes[1]]).ok_or(OpenError::HardStateLost)?;
    Ok((files, stored))
}

fn read_segments(
    disk: &Arc<dyn Disk>,
    identity: &Identity,
    unfinished: &mut Vec<String>,
) -> Result<Vec<Read>, OpenError> {
    let names = disk.list("log").map_err(io_error("list log/"))?;
    let mut sequences: Vec<u32> = names.iter().filter_map(|name| sequence_of(name)).collect();
    sequences.sort_unstable();
    let mut read: Vec<Read> = Vec::new();
    for sequence in sequences {
        let path = name(sequence);
        let file = disk.open(&path).map_err(io_error(format!("open {path}")))?;
        let bytes = file.read_durable().map_err(io_error(format!("read {path}")))?;
        let Some(header) = SegmentHeader::decode(&bytes) else {
            if bytes.iter().skip(DATA_START).all(|byte| *byte == 0) {
                unfinished.push(path);
                continue;
            }
            let what = format!("both header pages of {path} are damaged");
            return Err(OpenError::Incomplete { what });
        };
        check_segment(&header, &bytes, sequence, identity, &path)?;
        if let Some(before) = read.last()
            && before.segment.sequence + 1 != sequence
        {
            let what = format!("the log file before {path} is missing");
            return Err(OpenError::Incomplete { what });
        }
        let region = file.map(header.file_bytes).map_err(io_error(format!("map {path}")))?;
        let segment = Segment { sequence, salt: header.salt, file, region: Arc::from(region) };
        let scan = scan(&bytes, header.salt, sequence);
        read.push(Read { segment, scan });
    }
    if read.first().is_none_or(|first| first.segment.sequence != 1) {
        let what = format!("{} is missing", name(1));
        return Err(OpenError::Incomplete { what });
    }
    Ok(read)
}

fn check_segment(
    header: &SegmentHeader,
    bytes: &[u8],
    sequence: u32,
    identity: &Identity,
    path: &str,
) -> Result<(), OpenError> {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let what = if header.file_bytes != length {
        format!("{path} has {length} bytes where its header says {}", header.file_bytes)
    } else if header.sequence != sequence {
        format!("{path} is segment {} under a wrong name", header.sequence)
    } else if header.cluster_id != identity.cluster_id || header.node != identity.node {
        format!("{path} belongs to another server")
    } else {
        return Ok(());
    };
    Err(OpenError::Incomplete { what })
}

fn damaged(damage: Damage) -> OpenError {
    OpenError::Damaged {
        file: name(damage.place.segment),
        offset: damage.place.offset,
        first: damage.first,
        last: damage.last,
        rule: damage.rule,
    }
}

/// The last entry's identity only grows: a log that ends below what was durable has lost
/// acknowledged entries
/// without a trace.
fn check_last(replayed: &Replayed, stored: &Stored) -> Result<(), OpenError> {
    let last = replayed.locations.last();
    if last >= stored.last_durable {
        return Ok(());
    }
    let place = replayed.torn_at.unwrap_or(Place { segment: 1, offset: narrow(DATA_START) });
    Err(OpenError::Damaged {
        file: name(place.segment),
        offset: place.offset,
        first: last.index.next(),
        last: Some(stored.last_durable.index).filter(|durable| *durable > last.index),
        rule: "the hard state knew later entries to be durable",
    })
}

/// Writes zeros over a torn tail, from the back to the front, and closes the page in which it
/// began: repeated
/// after a crash in between, it finds the same tear.
fn cut_torn(read: &mut [Read], at: Place, replayed: &Replayed) -> Result<u64, OpenError> {
    let mut torn_bytes = 0;
    for torn in read.iter_mut().rev() {
        if torn.segment.sequence < at.segment {
            break;
        }
        let path = name(torn.segment.sequence);
        let failed = || io_error(format!("cut the torn tail of {path}"));
        let from = if torn.segment.sequence == at.segment { at.offset } else { narrow(DATA_START) };
        let bytes = torn.segment.file.read_durable().map_err(failed())?;
        let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        let page = wide(from).next_multiple_of(PAGE_BYTES);
        torn_bytes += u64::try_from(used.saturating_sub(wide(from))).unwrap_or(0);
        let second = page + if wide(from) == page { PAGE_BYTES } else { 0 };
        let file = &torn.segment.file;
        for (start, end) in [(second, used.next_multiple_of(PAGE_BYTES)), (page, second)] {
            if start < end.min(bytes.len()) {
                let zeros = vec![0; end.min(bytes.len()) - start];
                file.write_at(u64::from(narrow(start)), &zeros).map_err(failed())?;
                file.sync().map_err(failed())?;
            }
        }
        torn.scan.items.retain(|item| item.place < at);
        torn.scan.sealed = false;
        torn.scan.end = wide(from);
        torn.scan.prev_crc = 0;
        if wide(from) != page {
            let known = Known {
                synced: Place { segment: torn.segment.sequence, offset: 0 },
                commit: replayed.commit,
                last: replayed.locations.last(),
                prev_crc: 0,
            };
            let pad = lone_pad(&torn.segment, from, known);
            file.write_at(u64::from(from), &pad).map_err(failed())?;
            file.sync().map_err(failed())?;
            torn.scan.end = page;
        }
    }
    Ok(torn_bytes)
}

/// Writes the hard state anew, to both slots of both files, with this start's nonce.
fn renew(
    files: &[Arc<dyn DiskFile>; 2],
    stored: Stored,
    replayed: &Replayed,
    options: &Options,
) -> Result<Stored, OpenError> {
    let last = replayed.locations.last();
    let mut renewed =
        Stored { boot_nonce: options.boot_nonce, last_durable: last, ..stored.next() };
    if last.term > renewed.hard_state.term {
        // The log has seen a term that the hard state has not: whom we voted for then is unknown.
        log::error!("hard state is stale term={} log={last}", renewed.hard_state.term);
        renewed.hard_state = HardState { term: last.term, vote: Vote::Abstain };
    }
    for _ in 0..2 {
        hard_state::write_now(files, &renewed).map_err(io_error("write the hard state"))?;
        renewed = renewed.next();
    }
    renewed.version -= 1;
    Ok(renewed)
}

#[expect(clippy::too_many_arguments, reason = "the parts of one value, put together once")]
fn assemble(
    disk: Arc<dyn Disk>,
    identity: Identity,
    hard_state_files: [Arc<dyn DiskFile>; 2],
    stored: Stored,
    read: Vec<Read>,
    replayed: Replayed,
    report: RecoveryReport,
    options: &Options,
) -> Result<(Wal, Recovered), OpenError> {
    let used = read.iter().rposition(|read| !read.scan.items.is_empty()).unwrap_or(0);
    // A sealed segment is followed by one to write to.
    let active = if read[used].scan.sealed { (used + 1).min(read.len() - 1) } else { used };
    let next_sequence = read.last().map_or(1, |read| read.segment.sequence) + 1;
    let scan = &read[active].scan;
    let cursor = narrow(scan.end.next_multiple_of(PAGE_BYTES));
    let (prev_crc, rows) = (scan.prev_crc, footer_rows(&scan.items));
    let mut segments: Vec<Segment> = read.into_iter().map(|read| read.segment).collect();
    let spares: VecDeque<Segment> = segments.split_off(active + 1).into();
    let parts = Parts {
        disk,
        template: SegmentHeader {
            cluster_id: identity.cluster_id,
            node: identity.node,
            sequence: 0,
            salt: 0,
            file_bytes: identity.segment_bytes,
        },
        hard_state_files,
        stored,
        locations: replayed.locations,
        segments,
        spares,
        cursor,
        prev_crc,
        rows,
        commit: replayed.commit,
        next_sequence,
        salts: options.salt_seed,
    };
    let wal = Wal::new(parts);
    let recovered = summary(&wal, identity, stored, &replayed.configurations, report)?;
    Ok((wal, recovered))
}

fn footer_rows(items: &[Item]) -> Vec<FooterRow> {
    let row = |item: &Item| match item.found {
        Found::Record(header) => match header.kind {
            RecordKind::Entry(_) | RecordKind::Truncate => Some(FooterRow {
                index: header.position.index.get(),
                term: header.position.term.get(),
                offset: item.place.offset,
                length: header.payload_len,
                crc: header.payload_crc,
                kind: header.kind,
            }),
            RecordKind::Pad | RecordKind::Footer | RecordKind::SyncMark => None,
        },
        Found::BadPayload { .. } | Found::BadHeader { .. } => None,
    };
    items.iter().filter_map(row).collect()
}

fn summary(
    wal: &Wal,
    identity: Identity,
    stored: Stored,
    configurations: &[LogIndex],
    report: RecoveryReport,
) -> Result<Recovered, OpenError> {
    let mut runs: Vec<(LogIndex, Term)> = Vec::new();
    let mut sizes = Vec::new();
    for (index, meta) in wal.locations.iter() {
        match runs.last_mut() {
            Some((last, term)) if *term == meta.term => *last = index,
            Some(_) | None => runs.push((index, meta.term)),
        }
        sizes.push(meta.bytes);
    }
    let mut scratch = Vec::new();
    let mut payloads = Vec::new();
    for index in configurations {
        debug_assert_eq!(wal.meta(*index).map(|meta| meta.kind), Some(EntryKind::Configuration));
        let payload = wal
            .payload(*index, &mut scratch)
            .map_err(|damaged| OpenError::Incomplete { what: damaged.to_string() })?;
        payloads.push((*index, payload.to_vec()));
    }
    Ok(Recovered {
        identity,
        hard_state: stored.hard_state,
        genesis: stored.genesis,
        runs,
        sizes,
        configurations: payloads,
        commit_index: wal.commit.min(wal.last().index),
        last: wal.last(),
        report,
    })
}
