//! Opening a directory: make it, or find out what it holds, judge the damage, mend what a crash
//! left.
//!
//! Everything is read and judged before anything is written, so that a refused directory is as it
//! was found. The steps that mend may be cut short by another crash: the next start finds the same
//! torn batch, or less of it, and repeats them.

use super::background::Template;
use super::directory::{LOG, list_segments, segment_name};
use super::disk::{Disk, DiskFile};
use super::error::{Damage, DamageExtent, OpenError};
use super::hard_state::{self, HardStateFiles, Loaded, Slot};
use super::identity::{self, Identity};
use super::job::Operation;
use super::mend::{self, Resume};
use super::options::{Options, Recovered, RecoveryReport};
use super::record::{Place, page_up, usize_of};
use super::replay::{Replay, replay};
use super::restore;
use super::scan::{SegmentScan, scan, zero_from};
use super::segment::{DATA_START, HeaderPage, Segment, SegmentHeader};
use super::snapshot_file::{SNAP, SnapshotDamage, snapshot_name};
use super::snapshot_source::SnapshotSource;
use crate::limits::{PAGE_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::types::{HardState, SnapshotId, Vote};
use std::io;
use std::sync::Arc;

/// The files of ours that may lie in a directory whose making was cut short.
pub(super) const OURS: [&str; 7] = [
    "LOCK",
    LOG,
    SNAP,
    hard_state::NAMES[0],
    hard_state::NAMES[1],
    identity::NAME_UNFINISHED,
    "lost+found",
];

/// A directory, opened.
pub(super) struct Opened {
    /// Whose it is.
    pub(super) identity: Identity,
    /// What new segments look like.
    pub(super) template: Template,
    /// With this start's nonce written.
    pub(super) hard_state: HardStateFiles,
    /// In order, without gaps.
    pub(super) segments: Vec<Segment>,
    /// The log.
    pub(super) replay: Replay,
    /// Where the next batch goes.
    pub(super) resume: Resume,
    /// The snapshot in force.
    pub(super) snapshot: Option<SnapshotSource>,
    /// What was received of newer ones: names of files.
    pub(super) parts: Vec<String>,
    /// Whether the term and vote were older than the log.
    hard_state_stale: bool,
    /// Whether the process before this one said goodbye.
    clean: bool,
}

impl Opened {
    /// What the caller needs to know.
    pub(super) fn summary(&self) -> Recovered {
        let (replay, slot) = (&self.replay, self.hard_state.written());
        let last = replay.last();
        let used = self.segments.iter().filter(|one| one.seq <= self.resume.place.segment).count();
        let report = RecoveryReport {
            records: replay.records,
            segments: used,
            spares: self.segments.len() - used,
            torn_at: replay.torn_at.map(|place| (place.segment, place.offset)),
            harmless: replay.harmless,
            hard_state_stale: self.hard_state_stale,
            clean: self.clean,
        };
        let configurations = replay.configurations.iter();
        Recovered {
            identity: slot.identity_of(&self.identity),
            hard_state: slot.hard_state,
            genesis: slot.genesis,
            snapshot: self.snapshot.clone(),
            base: replay.base,
            runs: replay.runs(),
            sizes: replay.entries.iter().map(|entry| entry.payload_len).collect(),
            configurations: configurations
                .map(|(&index, payload)| (index, payload.clone()))
                .collect(),
            commit_index: replay.commit.min(last.index).max(slot.snapshot.position.index),
            last,
            forced: slot.forced,
            diverged: slot.diverged,
            report,
        }
    }
}

/// Opens or makes the directory.
pub(super) fn open(disk: &dyn Disk, options: &Options) -> Result<Opened, OpenError> {
    let identity = match Identity::read(disk)? {
        Some(identity) => identity,
        None => create(disk, options)?,
    };
    if identity.node != options.node {
        return Err(OpenError::WrongNode { found: identity.node, asked: options.node });
    }
    if identity.token_hash != options.token_hash {
        return Err(OpenError::WrongCluster { path: disk.path("") });
    }
    let loaded = HardStateFiles::load(disk, identity.disk_id)?;
    let snapshot = find_snapshot(disk, loaded.newest.snapshot)?;
    let read = read_segments(disk, &identity, loaded.newest.first_segment.max(1))?;
    let replay = judge(&read, &loaded.newest);
    if let Some((extent, place)) = replay.damage() {
        return Err(OpenError::Damaged(damage(disk, extent, place)));
    }
    // From here on the directory is ours to write to.
    let mut opened = mend(disk, read, replay, loaded, identity, options)?;
    opened.parts = remove_strays(disk, snapshot.as_ref())?;
    opened.snapshot = snapshot;
    Ok(opened)
}

/// The file of the snapshot in force. What is in it is judged when it is loaded.
pub(super) fn find_snapshot(
    disk: &dyn Disk,
    id: SnapshotId,
) -> Result<Option<SnapshotSource>, OpenError> {
    if id == SnapshotId::default() {
        return Ok(None);
    }
    let name = snapshot_name(id);
    match disk.open(&name) {
        Ok(file) => Ok(Some(SnapshotSource::new(disk, id, file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let damage = SnapshotDamage::of("its file is missing");
            Err(OpenError::SnapshotDamaged { path: disk.path(&name), damage })
        }
        Err(error) => Err(OpenError::io(disk, "open", &name)(error)),
    }
}

/// Removes the snapshots that are not in force: of switches that did not happen, or that did and
/// left the old one. Parts of others' stay, if they are newer: receiving one may go on. Answers
/// their names.
fn remove_strays(
    disk: &dyn Disk,
    current: Option<&SnapshotSource>,
) -> Result<Vec<String>, OpenError> {
    let names = match disk.list(SNAP) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(OpenError::io(disk, "list", SNAP)(error)),
    };
    let mut parts = Vec::new();
    let in_force = current.map(|source| snapshot_name(source.id)).unwrap_or_default();
    let mut removed = false;
    for name in names.iter().map(|name| format!("{SNAP}/{name}")) {
        // Names begin with the index, in digits of one length: they are in its order.
        if name.ends_with(".part") && name > in_force {
            parts.push(name);
        } else if name != in_force {
            remove(disk, &name)?;
            removed = true;
        }
    }
    if removed {
        disk.sync_directory(SNAP).map_err(OpenError::io(disk, "sync", SNAP))?;
    }
    Ok(parts)
}

pub(super) fn template(identity: Identity, options: &Options) -> Template {
    let fits = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&options.segment_bytes);
    assert!(fits, "config.rs refuses other sizes");
    let segment_bytes = u32::try_from(options.segment_bytes).expect("SEGMENT_BYTES_MAX fits");
    assert_eq!(page_up(segment_bytes), segment_bytes, "a segment is whole pages");
    Template {
        identity,
        segment_bytes,
        salt_seed: options.salt_seed,
        created_unix_ms: options.created_unix_ms,
    }
}

/// Makes the directory, IDENTITY last. What an earlier attempt left is removed first.
fn create(disk: &dyn Disk, options: &Options) -> Result<Identity, OpenError> {
    let Some(cluster_id) = options.cluster_id else {
        return Err(OpenError::NotADataDirectory { path: disk.path("") });
    };
    let identity = Identity {
        cluster_id,
        token_hash: options.token_hash,
        node: options.node,
        disk_id: options.disk_id_if_new,
        created_unix_ms: options.created_unix_ms,
    };
    let names = disk.list("").map_err(OpenError::io(disk, "list", ""))?;
    if names.iter().any(|name| name == restore::MARK) {
        return Err(OpenError::HalfRestored { path: disk.path("") });
    }
    if names.iter().any(|name| !OURS.contains(&name.as_str())) {
        return Err(OpenError::NotADataDirectory { path: disk.path("") });
    }
    let segments = list_segments(disk)?;
    let mut blank = hard_state::is_blank(disk)?;
    for &seq in &segments {
        blank = blank && is_blank_segment(disk, seq)?;
    }
    if !blank {
        return Err(OpenError::Incomplete { path: disk.path("") });
    }
    for seq in segments {
        remove(disk, &segment_name(seq))?;
    }
    for name in hard_state::NAMES.into_iter().chain([identity::NAME_UNFINISHED]) {
        if names.iter().any(|found| found == name) {
            remove(disk, name)?;
        }
    }
    disk.create_directory(LOG).map_err(OpenError::io(disk, "create", LOG))?;
    HardStateFiles::create(disk, options.disk_id_if_new, options.boot_nonce)?;
    let first = segment_name(1);
    template(identity, options)
        .prepare_now(disk, 1)
        .map_err(OpenError::io(disk, "prepare", &first))?;
    disk.sync_directory("").map_err(OpenError::io(disk, "sync", ""))?;
    identity.write(disk)?;
    Ok(identity)
}

pub(super) fn remove(disk: &dyn Disk, name: &str) -> Result<(), OpenError> {
    disk.remove(name).map_err(OpenError::io(disk, "remove", name))
}

fn is_blank_segment(disk: &dyn Disk, seq: u32) -> Result<bool, OpenError> {
    let name = segment_name(seq);
    let file = disk.open(&name).map_err(OpenError::io(disk, "open", &name))?;
    let bytes = read_all(&*file).map_err(OpenError::io(disk, "read", &name))?;
    Ok(zero_from(&bytes) <= DATA_START)
}

/// All that a segment can have. A length that is damaged does not decide how much memory is taken.
fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let len = file.len()?.min(SEGMENT_BYTES_MAX);
    file.read_durable(0, usize::try_from(len).map_err(io::Error::other)?)
}

/// What was read, and still open.
pub(super) struct Read {
    pub(super) scans: Vec<SegmentScan>,
    /// Of the segments with a header, in order.
    files: Vec<Arc<dyn DiskFile>>,
    /// A spare whose preparation was cut short.
    unfinished: Option<u32>,
    /// Segments before the first one of the log: a snapshot stands for them.
    dead: Vec<u32>,
}

/// Reads every segment, from the medium, after a sync: what is read then will still be there after
/// a crash.
pub(super) fn read_segments(
    disk: &dyn Disk,
    identity: &Identity,
    first: u32,
) -> Result<Read, OpenError> {
    let (dead, seqs) = list_segments(disk)?.into_iter().partition(|seq| *seq < first);
    let seqs: Vec<u32> = seqs;
    let mut read = Read { scans: Vec::new(), files: Vec::new(), unfinished: None, dead };
    let newest = seqs.last().copied();
    let mut next = first;
    for seq in seqs {
        let missing = (next < seq).then_some(next);
        // One hole, however many are missing: the number may be anything.
        read.scans.extend(missing.map(lost_segment));
        let name = segment_name(seq);
        let file = disk.open(&name).map_err(OpenError::io(disk, "open", &name))?;
        file.sync().map_err(OpenError::io(disk, "sync", &name))?;
        let scan = read_segment(disk, identity, seq, &*file)?;
        if let (Some(missing), None) = (missing, scan.header) {
            // Spares are prepared in order, so that it is not ours to remove; and a name alone does
            // not make it a part of the log.
            let missing = disk.path(&segment_name(missing));
            return Err(OpenError::Stray { path: disk.path(&name), missing });
        }
        let unfinished = scan.header.is_none() && scan.zero_from <= DATA_START;
        if unfinished && Some(seq) == newest && seq > first {
            read.unfinished = Some(seq);
        } else {
            if scan.header.is_some() {
                read.files.push(file);
            }
            read.scans.push(scan);
        }
        next = seq.saturating_add(1);
    }
    if read.scans.is_empty() {
        // IDENTITY is written after the first segment, and a log begins only in one that is there.
        read.scans.push(lost_segment(first));
    }
    Ok(read)
}

fn lost_segment(seq: u32) -> SegmentScan {
    SegmentScan {
        seq,
        header: None,
        bad_header: None,
        found: Vec::new(),
        rows: Vec::new(),
        zero_from: 0,
        wrong_length: false,
    }
}

fn read_segment(
    disk: &dyn Disk,
    identity: &Identity,
    seq: u32,
    file: &dyn DiskFile,
) -> Result<SegmentScan, OpenError> {
    let name = segment_name(seq);
    let failed = || OpenError::io(disk, "read", &name);
    let newer = |found| OpenError::Version { path: disk.path(&name), found, known: 1 };
    let pages = file.read_durable(0, 2 * PAGE_BYTES).map_err(failed())?;
    let headers = pages.chunks(PAGE_BYTES).map(|page| SegmentHeader::decode(page, identity, seq));
    let headers: Vec<HeaderPage> = headers.collect();
    let is_bad = |page: &HeaderPage| matches!(page, HeaderPage::Foreign | HeaderPage::Invalid);
    let bad_header = headers.iter().position(is_bad);
    for page in headers {
        match page {
            HeaderPage::Valid(header) => {
                let expected = usize_of(header.file_len);
                let length = file.len().map_err(failed())?;
                let wrong_length = length != u64::from(header.file_len);
                let mut bytes = file.read_durable(0, expected).map_err(failed())?;
                bytes.resize(expected, 0);
                let scan = scan(header, &bytes).map_err(newer)?;
                return Ok(SegmentScan { wrong_length, bad_header, ..scan });
            }
            HeaderPage::Newer(version) => return Err(newer(version)),
            HeaderPage::Foreign | HeaderPage::Invalid => {}
        }
    }
    let bytes = read_all(file).map_err(failed())?;
    Ok(SegmentScan { zero_from: zero_from(&bytes), ..lost_segment(seq) })
}

/// Replays the log, and holds it against what the hard state vouches for.
pub(super) fn judge(read: &Read, newest: &Slot) -> Replay {
    let mut replay = replay(newest.base, &read.scans);
    let last = replay.last();
    let committed = replay.commit.min(last.index);
    if let Some(scan) = read.scans.iter().find(|scan| scan.wrong_length) {
        replay.doubt(committed.next(), Place { segment: scan.seq, offset: 0 });
    }
    let next_is_there = read.scans.last().is_some_and(|scan| scan.seq > replay.end.segment);
    if replay.footer.is_some() && !next_is_there {
        // A segment is closed only when the next one stands ready.
        let next = replay.end.segment.saturating_add(1);
        replay.doubt(last.index.next(), Place { segment: next, offset: 0 });
    }
    if last < newest.last_durable {
        let first = if last.index < newest.last_durable.index { last.index } else { committed };
        replay.doubt(first.next(), replay.end);
    }
    if newest.uncertain {
        replay.doubt(committed.next(), replay.end);
    }
    if replay.damage().is_none()
        && let Some(lost) = read.scans.iter().find(|scan| scan.header.is_none())
    {
        // By its neighbours it held nothing that counts; but it was there.
        replay.doubt(last.index.next(), Place { segment: lost.seq, offset: 0 });
    }
    if last.index < newest.snapshot.position.index {
        // What a snapshot stands for was durable before it was put in force.
        replay.doubt(last.index.next(), replay.end);
    }
    replay
}

/// The error for damage found at `place`.
pub(super) fn damage(disk: &dyn Disk, extent: DamageExtent, place: Place) -> Damage {
    let file = disk.path(&segment_name(place.segment));
    Damage { file, offset: u64::from(place.offset), extent }
}

fn mend(
    disk: &dyn Disk,
    read: Read,
    replay: Replay,
    loaded: Loaded,
    identity: Identity,
    options: &Options,
) -> Result<Opened, OpenError> {
    if let Some(seq) = read.unfinished {
        remove(disk, &segment_name(seq))?;
        disk.sync_directory(LOG).map_err(OpenError::io(disk, "sync", LOG))?;
    }
    let mut segments = Vec::new();
    for (scan, file) in read.scans.iter().zip(read.files) {
        let header = scan.header.expect("a segment without a header is damage, and was refused");
        let name = segment_name(scan.seq);
        if let Some(bad) = scan.bad_header {
            let mended = mend::header(&*file, &header, bad, &identity);
            mended.map_err(OpenError::io(disk, "mend", &name))?;
            log::warn!(
                "mended one of the two header pages of a segment by the other one; if no power was \
                 lost, the disk rots file={} offset={}",
                disk.path(&name).display(),
                mend::header_offset(bad)
            );
        }
        let map = file.map().map_err(OpenError::io(disk, "map", &name))?;
        let SegmentHeader { seq, salt, file_len, .. } = header;
        segments.push(Segment { seq, salt, file_len, file, map });
    }
    let number = usize_of(replay.end.segment - read.scans[0].seq);
    let (scan, segment) = (&read.scans[number], &segments[number]);
    let resume = mend::tail(scan, segment, &replay).map_err(OpenError::io(
        disk,
        "mend",
        &segment_name(scan.seq),
    ))?;
    let stale = replay.term_max > loaded.newest.hard_state.term;
    let clean = loaded.newest.clean;
    let hard_state = write_hard_state(disk, loaded, &replay, (&identity, options))?;
    // Not before: what says that they are dead may have been read from memory alone, where a sync
    // that failed left it.
    for &seq in &read.dead {
        remove(disk, &segment_name(seq))?;
    }
    if !read.dead.is_empty() {
        disk.sync_directory(LOG).map_err(OpenError::io(disk, "sync", LOG))?;
    }
    let template = template(identity, options);
    Ok(Opened {
        identity,
        template,
        hard_state,
        segments,
        replay,
        resume,
        snapshot: None,
        parts: Vec::new(),
        hard_state_stale: stale,
        clean,
    })
}

/// Writes this start's nonce, and with it a term that is not behind the log's.
fn write_hard_state(
    disk: &dyn Disk,
    loaded: Loaded,
    replay: &Replay,
    (identity, options): (&Identity, &Options),
) -> Result<HardStateFiles, OpenError> {
    let found = loaded.newest;
    // A record of a term we have no hard state of: the vote of that term is unknown, so none is
    // given.
    let hard_state = if replay.term_max > found.hard_state.term {
        HardState { term: replay.term_max, vote: Vote::Abstain }
    } else {
        found.hard_state
    };
    let slot = Slot {
        hard_state,
        boot_nonce: options.boot_nonce,
        last_durable: replay.last(),
        disk_id: identity.disk_id,
        clean: false,
        ..found
    };
    // A second version repairs the other slot.
    let versions = if loaded.bad_copies.is_empty() { 1 } else { 2 };
    let mut files = loaded.into_files(disk)?;
    let mut operations = Vec::new();
    for _ in 0..versions {
        files.stage(slot, &mut operations);
    }
    let name = hard_state::NAMES[0];
    operations.iter().try_for_each(Operation::run).map_err(OpenError::io(disk, "write", name))?;
    Ok(files)
}
