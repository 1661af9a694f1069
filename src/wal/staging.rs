//! [`Wal`]: the log as the loop sees it. Bookkeeping and memory; no file is touched here.

use super::background::{BackgroundDone, BackgroundJob, Progress};
use super::batch::{Batch, Known};
use super::disk::{Disk, DiskFile};
use super::hard_state::Stored;
use super::job::{Job, Operation};
use super::locations::{Locations, Meta};
use super::record::{RecordKind, narrow, payload_crc, wide};
use super::segment::{DATA_START, FooterRow, Segment, SegmentHeader, footer_room};
use super::{Place, record};
use crate::limits::{ENTRY_CACHE_BYTES, PAGE_BYTES, RECORD_HEADER_BYTES};
use crate::types::{EntryKind, HardState, JobSeq, LogIndex, LogPosition, Term};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Buffers kept for the next batches.
const SPARE_BUFFERS: usize = 4;

/// An entry whose bytes are not what was written. It is never served, sent or applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damaged {
    /// Which entry.
    pub index: LogIndex,
    /// The segment it lies in.
    pub segment: u32,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "entry {} in {} is damaged on disk: restart to have the log checked",
            self.index,
            super::segment::name(self.segment)
        )
    }
}

impl std::error::Error for Damaged {}

/// A batch that was written, kept for readers.
#[derive(Debug)]
struct Written {
    segment: u32,
    start: u32,
    bytes: Arc<Vec<u8>>,
    last: LogIndex,
}

/// What the job in flight will have made durable.
#[derive(Debug)]
struct InFlight {
    seq: JobSeq,
    synced: Place,
    last: LogPosition,
}

/// The segment under preparation.
#[derive(Debug)]
struct Preparing {
    header: SegmentHeader,
    file: Option<Arc<dyn DiskFile>>,
    zeroed: u64,
    running: bool,
}

/// The durable log and hard state, seen from the loop.
#[derive(Debug)]
pub struct Wal {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) template: SegmentHeader,
    pub(super) hard_state_files: [Arc<dyn DiskFile>; 2],
    pub(super) stored: Stored,
    pub(super) hard_state_dirty: bool,
    pub(super) locations: Locations,
    /// All segments with entries, ascending; the last one is written to.
    pub(super) segments: Vec<Segment>,
    pub(super) spares: VecDeque<Segment>,
    /// Where the next batch begins in the last segment.
    pub(super) cursor: u32,
    pub(super) prev_crc: u32,
    pub(super) rows: Vec<FooterRow>,
    pub(super) synced: Place,
    pub(super) commit: LogIndex,
    pub(super) durable: LogPosition,
    staged: VecDeque<Batch>,
    written: VecDeque<Written>,
    written_bytes: usize,
    buffers: Vec<Vec<u8>>,
    in_flight: Option<InFlight>,
    preparing: Option<Preparing>,
    next_sequence: u32,
    out_of_space: bool,
    retry_space: bool,
    rotated: bool,
    salts: u64,
}

/// The parts with which recovery makes a `Wal`.
pub(super) struct Parts {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) template: SegmentHeader,
    pub(super) hard_state_files: [Arc<dyn DiskFile>; 2],
    pub(super) stored: Stored,
    pub(super) locations: Locations,
    pub(super) segments: Vec<Segment>,
    pub(super) spares: VecDeque<Segment>,
    pub(super) cursor: u32,
    pub(super) prev_crc: u32,
    pub(super) rows: Vec<FooterRow>,
    pub(super) commit: LogIndex,
    pub(super) next_sequence: u32,
    pub(super) salts: u64,
}

impl Wal {
    pub(super) fn new(parts: Parts) -> Wal {
        let active = parts.segments.last().expect("recovery leaves a segment to write to");
        let synced = Place { segment: active.sequence, offset: parts.cursor };
        Wal {
            disk: parts.disk,
            template: parts.template,
            hard_state_files: parts.hard_state_files,
            stored: parts.stored,
            hard_state_dirty: false,
            durable: parts.locations.last(),
            rotated: parts.segments.len() > 1,
            locations: parts.locations,
            segments: parts.segments,
            spares: parts.spares,
            cursor: parts.cursor,
            prev_crc: parts.prev_crc,
            rows: parts.rows,
            synced,
            commit: parts.commit,
            staged: VecDeque::new(),
            written: VecDeque::new(),
            written_bytes: 0,
            buffers: Vec::new(),
            in_flight: None,
            preparing: None,
            next_sequence: parts.next_sequence,
            out_of_space: false,
            retry_space: false,
            salts: parts.salts,
        }
    }

    /// The size of a segment. Bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.template.file_bytes
    }

    /// The last entry, durable or not.
    pub fn last(&self) -> LogPosition {
        self.locations.last()
    }

    /// What the record knows of the entry at `index`.
    pub fn meta(&self, index: LogIndex) -> Option<Meta> {
        self.locations.get(index).copied()
    }

    /// The hard state as it was set last.
    pub fn hard_state(&self) -> HardState {
        self.stored.hard_state
    }

    /// The segments on disk, those made ahead left out. Bytes.
    pub fn log_bytes(&self) -> u64 {
        let sealed = u64::try_from(self.segments.len() - 1).expect("a count fits");
        sealed * self.segment_bytes() + u64::from(self.cursor)
    }

    /// Whether the last attempt to prepare a segment found the disk full.
    pub fn out_of_space(&self) -> bool {
        self.out_of_space
    }

    /// Payload bytes that one more entry may have for certain, without a segment that is not ready
    /// yet.
    pub fn room_bytes(&self) -> u64 {
        if !self.spares.is_empty() {
            let empty = self.capacity() - DATA_START - footer_room(2) - 3 * PAGE_BYTES;
            return u64::try_from(empty).expect("a size fits");
        }
        let used = match self.staged.back() {
            Some(batch) => wide(batch.start) + batch.bytes.len(),
            None => wide(self.cursor),
        };
        let reserved = footer_room(self.rows.len() + 3) + 2 * PAGE_BYTES;
        let left = self.capacity().saturating_sub(used + reserved);
        u64::try_from(left).expect("a size fits")
    }

    fn capacity(&self) -> usize {
        usize::try_from(self.template.file_bytes).expect("limits.rs bounds segments")
    }

    /// Stages an entry made here. Panics unless it follows the last one and there is room.
    pub fn append(&mut self, position: LogPosition, kind: EntryKind, payload: &[u8]) {
        let crc = payload_crc(position, self.last().term, payload);
        self.append_checked(position, kind, payload, crc);
    }

    /// Stages an entry whose checksum `payload_crc` has confirmed. Panics unless it follows the
    /// last one and
    /// there is room.
    pub fn append_checked(
        &mut self,
        position: LogPosition,
        kind: EntryKind,
        payload: &[u8],
        crc: u32,
    ) {
        let prev_term = self.last().term;
        let place = self.stage(position, prev_term, RecordKind::Entry(kind), payload, crc);
        let bytes = narrow(payload.len());
        let meta = Meta { term: position.term, kind, bytes, payload_crc: crc, place };
        self.locations.push(position.index, meta);
    }

    /// Stages the removal of every entry after `to`. Panics at or below the commit index: no
    /// leader asks that.
    pub fn truncate(&mut self, to: LogPosition) {
        assert!(to.index >= self.commit, "I4: truncation to {to} below commit {}", self.commit);
        let term = self.locations.term_at(to.index);
        assert_eq!(term, Some(to.term), "a truncation names the entry that stays last");
        self.locations.truncate(to.index);
        // What was durable beyond the cut is not the log any more.
        if self.durable.index > to.index {
            self.durable = to;
        }
        if let Some(job) = &mut self.in_flight
            && job.last.index > to.index
        {
            job.last = to;
        }
        self.stage(to, Term::ZERO, RecordKind::Truncate, &[], payload_crc(to, Term::ZERO, &[]));
    }

    /// Stages a record that carries the watermark alone, so that recovery can tell damage of the
    /// last batch
    /// from a torn tail. Storage §6.3.
    pub fn stage_sync_mark(&mut self) {
        let last = self.last();
        if self.room_bytes() > 0 {
            self.stage(last, Term::ZERO, RecordKind::SyncMark, &[], 0);
        }
    }

    fn stage(
        &mut self,
        position: LogPosition,
        prev_term: Term,
        kind: RecordKind,
        payload: &[u8],
        crc: u32,
    ) -> Place {
        if !self.fits(payload.len()) {
            self.rotate();
        }
        if self.staged.back().is_none_or(|batch| batch.seals) {
            let buffer = self.buffers.pop().unwrap_or_default();
            let segment = self.segments.last().expect("there is a segment to write to").clone();
            self.staged.push_back(Batch::new(segment, self.cursor, buffer));
        }
        let batch = self.staged.back_mut().expect("one has been made");
        let offset = batch.push(position, prev_term, kind, payload, crc);
        let place = Place { segment: batch.segment.sequence, offset };
        if matches!(kind, RecordKind::Entry(_) | RecordKind::Truncate) {
            self.rows.push(FooterRow {
                index: position.index.get(),
                term: position.term.get(),
                offset,
                length: narrow(payload.len()),
                crc,
                kind,
            });
        }
        place
    }

    fn fits(&self, payload_len: usize) -> bool {
        let end = match self.staged.back() {
            Some(batch) if !batch.seals => batch.end_with(payload_len),
            Some(_) | None => {
                let record = RECORD_HEADER_BYTES + record::padded(payload_len);
                (wide(self.cursor) + record + RECORD_HEADER_BYTES).next_multiple_of(PAGE_BYTES)
            }
        };
        end + footer_room(self.rows.len() + 1) <= self.capacity()
    }

    /// Seals the segment and goes on in the next one, which was made ahead: no metadata operation
    /// here.
    fn rotate(&mut self) {
        if self.staged.back().is_none_or(|batch| batch.seals) {
            let buffer = self.buffers.pop().unwrap_or_default();
            let segment = self.segments.last().expect("there is a segment to write to").clone();
            self.staged.push_back(Batch::new(segment, self.cursor, buffer));
        }
        let batch = self.staged.back_mut().expect("one has been made");
        batch.seals = true;
        let last = self.locations.last();
        let sealed_rows = std::mem::take(&mut self.rows);
        // The footer is laid with the rest of the batch: keep its rows until then.
        batch.keep_rows(sealed_rows, last);
        let next = self.spares.pop_front().expect("admission checks room_bytes first");
        self.segments.push(next);
        self.cursor = narrow(DATA_START);
        self.rotated = true;
    }

    /// Sets the hard state; durable with the next job. Panics if the term goes back.
    pub fn set_hard_state(&mut self, hard_state: HardState, genesis: u64) {
        assert!(hard_state.term >= self.stored.hard_state.term, "I6: a term never goes back");
        self.stored = Stored { hard_state, genesis, ..self.stored };
        self.hard_state_dirty = true;
    }

    /// Forms the job for everything staged; `None` if nothing is. Panics while one is in flight
    /// (I2).
    pub fn begin_job(&mut self, seq: JobSeq, commit: LogIndex) -> Option<Job> {
        assert!(self.in_flight.is_none(), "I2: one sync job in flight");
        assert!(commit >= self.commit, "a commit index never goes back");
        self.commit = commit;
        let mut operations = Vec::new();
        if self.hard_state_dirty {
            self.write_hard_state(&mut operations);
        }
        let mut synced = self.synced;
        let staged = std::mem::take(&mut self.staged);
        for batch in staged {
            synced = self.write_batch(batch, &mut operations);
        }
        if operations.is_empty() {
            return None;
        }
        self.in_flight = Some(InFlight { seq, synced, last: self.last() });
        Some(Job { seq, operations })
    }

    fn write_hard_state(&mut self, operations: &mut Vec<Operation>) {
        self.stored = Stored { last_durable: self.durable, ..self.stored.next() };
        self.hard_state_dirty = false;
        let bytes = Arc::new(self.stored.encode());
        for file in &self.hard_state_files {
            let (file, bytes) = (file.clone(), bytes.clone());
            operations.push(Operation::Write {
                file: file.clone(),
                offset: self.stored.offset(),
                bytes,
            });
            operations.push(Operation::Sync { file });
        }
    }

    fn write_batch(&mut self, mut batch: Batch, operations: &mut Vec<Operation>) -> Place {
        if batch.start == narrow(DATA_START) {
            self.prev_crc = 0;
        }
        let last = batch.last_at_seal().unwrap_or(self.last());
        let known =
            Known { synced: self.synced, commit: self.commit, last, prev_crc: self.prev_crc };
        self.prev_crc = batch.lay(known);
        let end = batch.start + narrow(batch.bytes.len());
        assert!(wide(end) <= self.capacity(), "a batch never crosses its segment");
        let sequence = batch.segment.sequence;
        if self.segments.last().is_some_and(|active| active.sequence == sequence) {
            self.cursor = end;
        }
        let file = batch.segment.file.clone();
        let (start, bytes) = (batch.start, Arc::new(batch.bytes));
        let offset = u64::from(start);
        operations.push(Operation::Write { file: file.clone(), offset, bytes: bytes.clone() });
        operations.push(Operation::Sync { file });
        self.written_bytes += bytes.len();
        self.written.push_back(Written {
            segment: sequence,
            start,
            bytes,
            last: self.last().index,
        });
        Place { segment: sequence, offset: end }
    }

    /// Job `seq` is durable.
    pub fn job_done(&mut self, seq: JobSeq) {
        let job = self.in_flight.take().expect("a job was in flight");
        assert_eq!(job.seq, seq, "jobs finish in order");
        assert!(job.synced >= self.synced, "the watermark never goes back");
        self.synced = job.synced;
        self.durable = job.last;
    }

    /// The payload of the entry at `index`: from memory if it is recent, else through the map,
    /// checked.
    /// Panics if there is no such entry.
    pub fn payload<'a>(
        &'a self,
        index: LogIndex,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], Damaged> {
        let meta = self.meta(index).expect("the caller asks for entries of the log");
        if let Some(bytes) = self.in_memory(&meta) {
            return Ok(bytes);
        }
        let segment = self
            .segments
            .iter()
            .rev()
            .find(|segment| segment.sequence == meta.place.segment)
            .expect("an entry lies in a segment that is open");
        scratch.clear();
        let header = narrow(RECORD_HEADER_BYTES);
        segment.region.copy_to(meta.place.offset + header, meta.bytes, scratch);
        let before = self.locations.term_at(index.prev()).unwrap_or(Term::ZERO);
        let crc = payload_crc(LogPosition::new(meta.term, index), before, scratch);
        if crc == meta.payload_crc {
            Ok(scratch)
        } else {
            Err(Damaged { index, segment: meta.place.segment })
        }
    }

    fn in_memory(&self, meta: &Meta) -> Option<&[u8]> {
        let place = meta.place;
        let staged =
            self.staged.iter().rev().find(|batch| {
                (batch.segment.sequence, batch.start) <= (place.segment, place.offset)
            });
        if let Some(batch) = staged {
            return Some(batch.payload(place.offset, meta.bytes));
        }
        let before = self.written.partition_point(|written| {
            (written.segment, written.start) <= (place.segment, place.offset)
        });
        let written = self.written.get(before.checked_sub(1)?)?;
        let from = wide(place.offset.checked_sub(written.start)?) + RECORD_HEADER_BYTES;
        if written.segment == place.segment {
            written.bytes.get(from..from + wide(meta.bytes))
        } else {
            None
        }
    }

    /// Lets go of written batches beyond the cache's size whose entries are all applied.
    pub fn trim_cache(&mut self, applied: LogIndex) {
        while self.written_bytes > ENTRY_CACHE_BYTES || self.written.len() > 4096 {
            let Some(first) = self.written.front() else { return };
            let place = Place { segment: first.segment, offset: first.start };
            if first.last > applied || place >= self.synced {
                return;
            }
            let written = self.written.pop_front().expect("there is a first one");
            self.written_bytes -= written.bytes.len();
            if self.buffers.len() < SPARE_BUFFERS
                && let Ok(mut buffer) = Arc::try_unwrap(written.bytes)
            {
                buffer.clear();
                self.buffers.push(buffer);
            }
        }
    }

    /// The next step towards the next segment, if one is due. At most one is out at a time.
    pub fn background_job(&mut self) -> Option<BackgroundJob> {
        let wanted = if self.rotated { 2 } else { 1 };
        if (self.out_of_space && !self.retry_space) || self.spares.len() >= wanted {
            return None;
        }
        let (template, sequence) = (self.template, self.next_sequence);
        let salts = &mut self.salts;
        let preparing = self.preparing.get_or_insert_with(|| {
            *salts = record::next_salt(*salts);
            let header = SegmentHeader { sequence, salt: *salts, ..template };
            Preparing { header, file: None, zeroed: 0, running: false }
        });
        // Ahead of the log by a factor, so that the segment is ready when half of this one is
        // written.
        let written = u64::from(self.cursor);
        let ahead = preparing.zeroed > 2 * written + super::background::SLICE_BYTES;
        let urgent = self.spares.is_empty() && written * 2 > self.template.file_bytes;
        if preparing.running || (ahead && !urgent) {
            return None;
        }
        preparing.running = true;
        self.retry_space = false;
        let (disk, header) = (self.disk.clone(), preparing.header);
        Some(match preparing.file.clone() {
            None => BackgroundJob::create(disk, header),
            Some(file) => BackgroundJob::go_on(disk, header, file, preparing.zeroed),
        })
    }

    /// A background job has ended.
    pub fn background_done(&mut self, done: BackgroundDone) {
        let preparing = self.preparing.as_mut().expect("a segment was being prepared");
        preparing.running = false;
        match done.0 {
            Ok(Progress::Zeroed { file, bytes }) => {
                preparing.file = Some(file);
                preparing.zeroed = bytes;
                // The room is reserved before the first slice.
                if std::mem::replace(&mut self.out_of_space, false) {
                    log::info!("disk has space again");
                }
            }
            Ok(Progress::Ready(segment)) => {
                self.spares.push_back(segment);
                self.preparing = None;
                self.next_sequence += 1;
            }
            Err(error) => {
                let full = error.kind() == io::ErrorKind::StorageFull
                    || error.kind() == io::ErrorKind::QuotaExceeded;
                if !std::mem::replace(&mut self.out_of_space, true) {
                    log::error!("cannot prepare a log segment full={full} error={error}");
                }
                self.preparing = None;
            }
        }
    }

    /// Tries a full disk once more.
    pub fn retry_background(&mut self) {
        self.retry_space = true;
    }
}
