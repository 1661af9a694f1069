//! The record: what a server remembers, and how it finds it again.
//!
//! ```text
//! DATA/
//!   LOCK            flock for the life of the process
//!   IDENTITY        whose directory this is; written last of all          identity.rs
//!   hs.0  hs.1      term, vote, which snapshot, each version in both      hard_state.rs
//!   log/<seq>.seg   the log, in files of one size, zeroed ahead           segment.rs
//!   snap/…          the snapshot in force, and those on their way         snapshot_file.rs
//!
//! a segment   |header|copy of it|batch  |batch          | ... zeros ... |
//!             0      4096       8192    each from a page                when full: FOOTER, trailer
//! a batch     |record|record|record|PAD|                                  record.rs
//! a record    |64 bytes: index, term, lengths, CRCs, W, C|payload|zeros to 64|
//! ```
//!
//! **One entry's life.** `append` copies it into the batch under construction (`staging.rs`) and
//! takes its CRC; that buffer is what followers are sent, what is written and what serves reads
//! afterwards. `begin_job` lays the headers of everything staged and hands out the operations
//! (`job.rs`); the sync thread runs them; `job_done` moves the watermark. Segments are prepared
//! ahead in the background (`background.rs`), so that appending never changes metadata. The loop
//! that owns a `Wal` never waits for a disk, except in `open`.
//!
//! **What a crash leaves.**
//! - Before a job's operations: nothing of it.
//! - During its writes: any of its sectors, the others zero. No record of it was acknowledged;
//!   `open` cuts the log at the first one that is not whole (L2).
//! - Between two segments of one job: the first one's batch whole, the second's absent.
//! - After its sync: all of it. Every later header says so (W), so that what is missing then is
//!   damage, never a tear.
//!
//! **A file's life.** Created, sized, zeroed, synced; headers written, synced: a spare. Written
//! batch by batch: in use. A FOOTER as the last record and the trailer page: closed. Nothing is
//! ever written twice, but what a torn, never acknowledged batch left, by `open`.
//!
//! **Truncation** appends: a TRUNC record that names the last entry kept, then the entries that
//! replace the others. A crash between leaves the old suffix or part of the new one; neither was
//! acknowledged.
//!
//! **Why not stores through the map?** They cost twice the fdatasync of a `pwrite` into zeroed
//! pages, and each faults into the file system on the loop. So maps are read-only, and read only
//! what was synced.
//!
//! **Why not close the segment behind a torn batch?** Each start after a power loss would burn a
//! segment. The torn pages were never acknowledged; zeroed and synced, they are as good as new.

mod background;
mod directory;
mod disk;
mod error;
mod file_system;
mod files;
mod hard_state;
mod identity;
mod inspection;
mod job;
mod mend;
mod options;
mod os_disk;
mod read_only;
mod record;
mod recovery;
mod replay;
mod restore;
mod scan;
mod segment;
mod snapshot_draft;
mod snapshot_event;
mod snapshot_file;
mod snapshot_part;
mod snapshot_scan;
mod snapshot_source;
mod snapshots;
mod staging;
mod verdict;

pub use background::Shortage;
pub use disk::{Disk, DiskFile, Region};
pub use error::{Damage, DamageExtent, OpenError, PayloadDamaged};
pub use identity::Identity;
pub use inspection::{
    Contents, EntryContents, HardStateContents, LogContents, SegmentContents, hard_state_version,
    inspect,
};
pub use job::{BackgroundDone, BackgroundJob, Job, Operation};
pub use options::{Options, Recovered, RecoveryReport};
pub use os_disk::OsDisk;
pub use read_only::ReadOnlyDisk;
pub use restore::restore;
pub use snapshot_event::{Piece, PieceFor, SnapshotEvent};
pub use snapshot_file::{Block, SnapshotCheck, SnapshotDamage, SnapshotHead};
pub use snapshot_source::SnapshotSource;

use crate::codec::crc;
use crate::types::{ClusterId, EntryKind, HardState, JobSeq, LogIndex, LogPosition, Term};
use background::{Need, Preparation, PrepareJob};
use directory::Directory;
use hard_state::{HardStateFiles, Slot};
use job::{Work, WorkDone};
use record::{FooterRow, Place, RecordHead, RecordKind, u32_of, usize_of};
use replay::Entry;
use segment::{Fill, Rows};
use snapshots::Snapshots;
use staging::{Staging, marker};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// What the log knows of an entry without its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryInfo {
    /// Its term.
    pub term: Term,
    /// What it holds.
    pub kind: EntryKind,
    /// Payload length. Bytes.
    pub bytes: u32,
    /// The payload's checksum, the same on every server and on the wire.
    pub crc: u32,
}

/// The log and the hard state of a server. Bookkeeping: what touches the disk is handed out as
/// jobs.
pub struct Wal {
    disk: Arc<dyn Disk>,
    directory: Directory,
    staging: Staging,
    preparation: Preparation,
    hard_state: HardStateFiles,
    /// What the hard state shall be; its `seq` and `last_durable` mean nothing.
    wanted: Slot,
    /// The entry before the first one: the snapshot in force, or an earlier entry that it covers.
    base: LogPosition,
    /// The entries behind the base.
    entries: VecDeque<Entry>,
    snapshots: Snapshots,
    /// Everything in the files before is durable.
    synced: Place,
    /// The last entry of what is durable.
    durable_last: LogPosition,
    /// The largest commit index heard of: nothing at or below is ever cut.
    commit: LogIndex,
    in_flight: Option<InFlight>,
    /// What is staged, or was synced last, is not yet covered by a watermark.
    mark: Mark,
    /// A segment was closed since the hard state was last written.
    rotated: bool,
    /// The next job writes the hard state, if that vouches for less than it could.
    lift: bool,
    operations: Vec<Operation>,
}

/// The job whose receipt is awaited.
struct InFlight {
    seq: JobSeq,
    last: LogPosition,
    end: Place,
    written: u64,
}

/// Whether the watermark on disk covers the last entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    /// It does, or there is none.
    Covered,
    /// Entries are staged.
    Staged,
    /// Entries are on their way; nothing was staged behind them.
    InFlight,
    /// Entries were synced, and nothing was written since.
    Due,
}

/// Opens the directory, or makes it. Reads and checks the whole log; blocks. Writes nothing if it
/// fails, unless the directory was blank.
pub fn open(disk: Arc<dyn Disk>, options: &Options) -> Result<(Wal, Recovered), OpenError> {
    let opened = recovery::open(&*disk, options)?;
    let recovered = opened.summary();
    let recovery::Opened { template, hard_state, segments, replay, resume, .. } = opened;
    let (snapshot, parts) = (opened.snapshot, opened.parts);
    let (used, spares): (Vec<_>, Vec<_>) =
        segments.into_iter().map(Arc::new).partition(|segment| segment.seq <= resume.place.segment);
    let beginnings = used.iter().map(|segment| replay.beginning_of(segment.seq)).collect();
    let covered = replay.torn_at.is_none() && replay.entries_end <= replay.watermark;
    let fill = Fill { end: resume.place.offset, rows: Rows::of(&resume.rows) };
    let mut wal = Wal {
        snapshots: Snapshots::new(Arc::clone(&disk), recovered.identity, snapshot, parts),
        disk,
        directory: Directory::new(used, beginnings, spares.into(), fill),
        staging: Staging::new((resume.place.segment, resume.chain), options.entry_cache_bytes),
        preparation: Preparation::new(template),
        wanted: *hard_state.written(),
        hard_state,
        base: replay.base,
        entries: replay.entries,
        synced: resume.place,
        durable_last: recovered.last,
        commit: recovered.commit_index,
        in_flight: None,
        mark: if covered { Mark::Covered } else { Mark::Due },
        rotated: false,
        lift: false,
        operations: Vec::new(),
    };
    wal.snapshots.log_grew(wal.directory.used_bytes());
    Ok((wal, recovered))
}

impl Wal {
    /// The last entry, staged ones included.
    pub fn last(&self) -> LogPosition {
        let index = self.base.index.advanced_by(u64_of(self.entries.len()));
        LogPosition::new(self.term_at(index), index)
    }

    /// The entry before the first one that the log holds.
    pub fn base(&self) -> LogPosition {
        self.base
    }

    /// What is known of the entry at `index`; `None` beyond the last one, and up to the base.
    pub fn meta(&self, index: LogIndex) -> Option<EntryInfo> {
        self.slot_of(index).and_then(|slot| self.entries.get(slot)).map(|entry| EntryInfo {
            term: entry.term,
            kind: entry.kind,
            bytes: entry.payload_len,
            crc: entry.payload_crc,
        })
    }

    /// Bytes that can be staged now for certain, if each entry is counted with
    /// `limits::ENTRY_OVERHEAD_BYTES` beside its payload. Segments of 1 MiB and more have a margin
    /// that makes counting payloads alone safe, up to `limits::APPEND_ENTRIES_MAX` entries. Room
    /// for one TRUNC is kept beside.
    pub fn room_bytes(&self) -> u64 {
        self.directory.room_bytes()
    }

    /// The largest payload that the next segment holds. An entry beyond it finds no room. Bytes.
    pub fn entry_bytes_max(&self) -> u64 {
        self.directory.entry_bytes_max()
    }

    /// Whether the last attempt to prepare a segment ended for want of disk space.
    pub fn out_of_space(&self) -> bool {
        self.shortage() == Some(Shortage::Space)
    }

    /// What the last attempt to prepare a segment ended for want of.
    pub fn shortage(&self) -> Option<Shortage> {
        self.preparation.shortage()
    }

    /// The size of the segments in use. Bytes.
    pub fn log_bytes(&self) -> u64 {
        self.directory.bytes()
    }

    /// How many segments hold the log behind `index`, the one that is written to among them, and
    /// the bytes that this one still takes.
    pub fn segments_behind(&self, index: LogIndex) -> (u64, u64) {
        let (count, room) = self.directory.behind(index);
        (count, u64::from(room))
    }

    /// Stages an entry behind the last one and returns the checksum of its payload. Panics without
    /// room, and if the position does not follow.
    pub fn append(&mut self, position: LogPosition, kind: EntryKind, payload: &[u8]) -> u32 {
        let crc = crc::payload_crc(position, self.last().term, payload);
        self.stage_entry(position, kind, payload, crc);
        crc
    }

    /// Stages an entry that came with its checksum. Panics as `append` does.
    pub fn append_verified(
        &mut self,
        position: LogPosition,
        kind: EntryKind,
        payload: &[u8],
        crc: u32,
    ) -> Result<(), PayloadDamaged> {
        if crc::payload_crc(position, self.last().term, payload) != crc {
            return Err(PayloadDamaged { index: position.index });
        }
        self.stage_entry(position, kind, payload, crc);
        Ok(())
    }

    /// Stages an entry whose checksum the caller has checked, seeded with `prev_term` as the term
    /// before: a second pass over the bytes would find nothing new. Panics as `append` does, and
    /// if that is not the term before it here.
    pub fn append_checked(
        &mut self,
        position: LogPosition,
        prev_term: Term,
        kind: EntryKind,
        payload: &[u8],
        crc: u32,
    ) {
        assert_eq!(prev_term, self.last().term, "the checksum names the entry before");
        self.stage_entry(position, kind, payload, crc);
    }

    fn stage_entry(&mut self, position: LogPosition, kind: EntryKind, payload: &[u8], crc: u32) {
        let last = self.last();
        assert_eq!(position.index, last.index.next(), "entries are appended in order");
        assert!(position.term >= last.term, "terms do not go back");
        let head = RecordHead {
            kind: RecordKind::Entry(kind),
            position,
            prev_term: last.term,
            payload_len: u32_of(payload.len()),
            payload_crc: crc,
        };
        let place = self.stage(&head, payload);
        self.entries.push_back(Entry {
            term: position.term,
            place,
            payload_len: head.payload_len,
            payload_crc: crc,
            kind,
        });
    }

    /// Cuts the log behind `to`. Panics if that is not an entry of the log, or if something
    /// committed would go.
    pub fn truncate(&mut self, to: LogPosition) {
        let last = self.last();
        assert!(to.index < last.index, "a truncation cuts something");
        assert!(to.index >= self.commit, "what is committed is never cut (I4)");
        assert_eq!(to.term, self.term_at(to.index), "the entry kept is in the log");
        self.stage(&marker(RecordKind::Trunc, to, &[]), &[]);
        self.directory.note_cut(to.index);
        let kept = usize::try_from(to.index.count_since(self.base.index));
        self.entries.truncate(kept.expect("an index of the log fits"));
        assert_eq!(self.last(), to);
    }

    /// Asks for term, vote and genesis to be written before anything else of the next job.
    pub fn set_hard_state(&mut self, hard_state: HardState, genesis: u64) {
        assert!(hard_state.term >= self.wanted.hard_state.term, "a term never goes back (I6)");
        self.wanted.hard_state = hard_state;
        self.wanted.genesis = genesis;
    }

    /// Speaks for another cluster from the next job on. The directory keeps its own id: by that the
    /// files in it are told from those of others.
    pub fn set_cluster_id(&mut self, cluster_id: ClusterId) {
        self.wanted.cluster_id = cluster_id;
        self.snapshots.set_cluster_id(cluster_id);
    }

    /// Notes with the next job whether the server was started to be a new cluster of its own.
    pub fn set_forced(&mut self, forced: bool) {
        self.wanted.forced = forced;
    }

    /// Notes with the next job whether the state differs from the other members'.
    pub fn set_diverged(&mut self, diverged: bool) {
        self.wanted.diverged = diverged;
    }

    /// Whether the hard state says that the state differs, as it is to be written next.
    pub fn notes_divergence(&self) -> bool {
        self.wanted.diverged
    }

    /// Asks for a note in the hard state that the process ends in order.
    pub fn stage_shutdown(&mut self) {
        self.wanted.clean = true;
    }

    /// The payload of an entry of the log: from memory as it lies there, or copied from the map
    /// into `scratch` and checked. Panics beyond the last entry.
    pub fn payload<'a>(
        &'a self,
        index: LogIndex,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], Damage> {
        let entry = self.entry(index);
        let Entry { place, payload_len: len, .. } = *entry;
        if let Some(payload) = self.staging.payload(place, len) {
            return Ok(payload);
        }
        assert!(place < self.synced, "what is not synced is in memory");
        let segment = self.directory.segment(place.segment);
        let from = u64::from(place.offset + record::HEADER_BYTES);
        scratch.clear();
        segment.map.copy_to(from, usize_of(len), scratch);
        let position = LogPosition::new(entry.term, index);
        if crc::payload_crc(position, self.term_at(index.prev()), scratch) == entry.payload_crc {
            Ok(scratch)
        } else {
            let extent = DamageExtent::Entries { first: index, last: index };
            Err(recovery::damage(&*self.disk, extent, place))
        }
    }

    /// Everything staged, as one job, if there is anything. Panics while a job is in flight.
    pub fn begin_job(&mut self, seq: JobSeq, commit: LogIndex) -> Option<Job> {
        assert!(self.in_flight.is_none(), "one job in flight (I2)");
        let last = self.last();
        assert!(commit <= last.index, "what is committed here is in the log");
        self.commit = self.commit.max(commit);
        let mut operations = std::mem::take(&mut self.operations);
        assert!(operations.is_empty());
        self.stage_hard_state(&mut operations);
        let (mut end, mut written) = (self.synced, 0);
        if !self.staging.is_empty() {
            self.directory.fill().end = self.staging.pad(last);
            (end, written) = self.staging.dispatch(&mut operations, self.synced, self.commit);
            assert_eq!(end, self.directory.end());
            self.mark = if self.mark == Mark::Staged { Mark::InFlight } else { Mark::Covered };
        }
        if operations.is_empty() {
            self.operations = operations;
            return None;
        }
        self.switch_dispatched(seq);
        self.in_flight = Some(InFlight { seq, last, end, written });
        Some(Job { seq, operations })
    }

    /// Puts the hard state in front of the job, if it changed, if a segment was closed, if it is
    /// asked to vouch for more, or if the job cuts the log below what it vouches for.
    fn stage_hard_state(&mut self, operations: &mut Vec<Operation>) {
        let cut = self.staging.lowest_cut();
        let last_durable = cut.map_or(self.durable_last, |cut| cut.min(self.durable_last));
        let written = self.hard_state.written();
        let wanted = Slot { seq: written.seq, last_durable: written.last_durable, ..self.wanted };
        let lowered = cut.is_some_and(|cut| cut < written.last_durable);
        let lifted = self.lift && last_durable > written.last_durable;
        if wanted != *written || self.rotated || lowered || lifted {
            self.hard_state.stage(Slot { last_durable, ..wanted }, operations);
            self.rotated = false;
        }
        self.lift = false;
    }

    /// The job in flight is durable. Panics if it has another number.
    pub fn job_done(&mut self, seq: JobSeq) {
        let done = self.in_flight.take().expect("a receipt answers a job");
        assert_eq!(done.seq, seq, "jobs are done in order");
        self.staging.job_done();
        self.preparation.earn(done.written);
        self.snapshots.log_grew(done.written);
        // A log that was replaced meanwhile is none of this job's.
        if done.end.segment >= self.directory.first_seq() {
            self.synced = done.end;
            self.durable_last = done.last;
        }
        self.switched(seq);
        if self.mark == Mark::InFlight {
            self.mark = Mark::Due;
        }
    }

    /// Takes back the list of a job that is done, so that the next job needs no allocation.
    pub fn recycle(&mut self, job: Job) {
        if self.operations.capacity() == 0 {
            self.operations = job.operations;
            self.operations.clear();
        }
    }

    /// Whether an idle log should be marked: the last sync brought entries that no later header
    /// vouches for.
    pub fn sync_mark_due(&self) -> bool {
        self.mark == Mark::Due && self.in_flight.is_none()
    }

    /// Stages a mark. If the segment in use is full and no spare is ready, the next record will do
    /// instead.
    pub fn stage_sync_mark(&mut self) {
        if self.directory.takes(0) || self.directory.spare_count() > 0 {
            self.stage(&marker(RecordKind::SyncMark, self.last(), &[]), &[]);
            self.mark = Mark::Covered;
        }
    }

    /// The number of the newest version of the hard state: larger at every start.
    pub fn hard_state_version(&self) -> u64 {
        self.hard_state.written().seq
    }

    /// Whether the hard state vouches for less than is durable. A log whose end is gone without a
    /// trace is told from a shorter one by nothing else.
    pub fn durable_end_lags(&self) -> bool {
        self.hard_state.written().last_durable < self.durable_last
    }

    /// Asks for the hard state to be written with the next job if it lags. Two syncs: once in a
    /// while.
    pub fn lift_durable_end(&mut self) {
        self.lift = true;
    }

    /// The next job for the `bg` thread, if one is due. A spare comes first: without one nothing
    /// can be appended soon.
    pub fn background_job(&mut self) -> Option<BackgroundJob> {
        let preparation = self.preparation_job().map(Work::Prepare);
        preparation.or_else(|| self.snapshots.job().map(Work::Files)).map(BackgroundJob)
    }

    fn preparation_job(&mut self) -> Option<PrepareJob> {
        // The second spare only when the log has shown that it grows. Design §12.6.
        let wanted = if self.directory.segment_count() == 1 { 1 } else { 2 };
        let used = u64::from(self.directory.end().offset);
        let half_full = 2 * used > u64::from(self.directory.active().file_len);
        let need = match self.directory.spare_count() {
            0 if half_full || self.snapshots.wants_spare() => Need::Urgent,
            count if count < wanted => Need::Paced,
            _enough => Need::None,
        };
        self.preparation.job(&self.disk, self.directory.next_seq(), need)
    }

    /// Takes note of a job that was run; what it means for a snapshot, if anything. What is lacking
    /// shows in `shortage`; after any other error in preparing a segment the process must end:
    /// without spares the log stands still.
    pub fn background_done(&mut self, done: BackgroundDone) -> io::Result<Option<SnapshotEvent>> {
        match done.0 {
            WorkDone::Prepare(done) => {
                if let Some(spare) = self.preparation.done(done)? {
                    self.directory.add_spare(spare);
                }
                Ok(None)
            }
            WorkDone::Files(done) => match done.read_only() {
                Some(error) => Err(error),
                None => Ok(self.snapshots.done(done)),
            },
        }
    }

    /// Lets `background_job` try again after a failure. For a timer: a full disk need not be asked
    /// every turn.
    pub fn retry_background(&mut self) {
        self.preparation.retry();
    }

    /// Keeps the entry cache within its bound, applied entries first.
    pub fn trim_cache(&mut self, applied: LogIndex) {
        self.staging.trim(applied);
    }

    fn entry(&self, index: LogIndex) -> &Entry {
        let entry = self.slot_of(index).and_then(|slot| self.entries.get(slot));
        entry.expect("the caller asks for entries of the log")
    }

    /// The place in the queue of the entry at `index`, if it lies behind the base.
    fn slot_of(&self, index: LogIndex) -> Option<usize> {
        let behind = index.get().checked_sub(self.base.index.get())?;
        usize::try_from(behind.checked_sub(1)?).ok()
    }

    fn term_at(&self, index: LogIndex) -> Term {
        if index == self.base.index { self.base.term } else { self.entry(index).term }
    }

    /// Puts a record into the batch under construction, closing the segment first if it does not
    /// fit.
    fn stage(&mut self, head: &RecordHead, payload: &[u8]) -> Place {
        if !self.directory.takes(head.payload_len) {
            self.close_segment();
            self.directory.rotate(self.last());
            assert!(self.directory.takes(head.payload_len), "limits.rs bounds entries by segments");
        }
        let place = self.directory.end();
        let end = self.staging.push(self.directory.active(), place.offset, head, payload);
        let fill = self.directory.fill();
        fill.end = end;
        match head.kind {
            RecordKind::Entry(_) | RecordKind::Trunc => {
                fill.rows.push(&FooterRow::of(head, place));
                self.mark = Mark::Staged;
            }
            RecordKind::Pad | RecordKind::Footer | RecordKind::SyncMark => {}
        }
        place
    }

    fn close_segment(&mut self) {
        let last = self.last();
        let at = self.directory.end().offset;
        let footer = self.directory.fill().rows.take();
        let padded = self.staging.push_footer(self.directory.active(), at, footer, last);
        assert!(
            padded + record::PAGE <= self.directory.active().file_len,
            "the footer's room was kept"
        );
        self.rotated = true;
    }
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).expect("usize is at most 64 bits")
}
