//! The batches in memory: under construction, in flight, and those of late that still serve reads.
//!
//! A batch is built in the buffer that is written to disk and that serves reads afterwards: a
//! payload is copied once. Buffers come back when the cache lets go of them, so that in the steady
//! state nothing is allocated.

use super::job::Operation;
use super::record::{
    HEADER_BYTES, PAD_BYTE, PAGE, Place, RecordHead, RecordKind, RecordLinks, lay, page_up,
    put_head, staged_extent, staged_kind, trailer_page, u32_of, usize_of,
};
use super::segment::Segment;
use crate::codec::crc;
use crate::limits;
use crate::types::{LogIndex, LogPosition};
use std::collections::VecDeque;
use std::sync::Arc;

/// Recycled buffers kept, and the largest worth keeping: the largest batch of normal operation.
const FREE_MAX: usize = 8;
const FREE_BYTES_MAX: usize = limits::BATCH_BYTES_MAX;

/// What one write puts behind the last one: records, padded to a page.
struct Batch {
    segment: Arc<Segment>,
    start: u32,
    bytes: Arc<Vec<u8>>,
    /// The highest entry in it.
    last_index: LogIndex,
}

impl Batch {
    fn start(&self) -> Place {
        Place { segment: self.segment.seq, offset: self.start }
    }

    fn end(&self) -> Place {
        let offset = self.start + u32_of(self.bytes.len());
        Place { segment: self.segment.seq, offset }
    }

    fn contains(&self, place: Place) -> bool {
        self.start() <= place && place < self.end()
    }

    fn payload(&self, place: Place, len: u32) -> &[u8] {
        let from = usize_of(place.offset - self.start + HEADER_BYTES);
        &self.bytes[from..from + usize_of(len)]
    }

    fn bytes_mut(&mut self) -> &mut Vec<u8> {
        Arc::get_mut(&mut self.bytes).expect("a batch is shared only once it is dispatched")
    }
}

/// Everything of the log that is in memory.
pub(super) struct Staging {
    building: Vec<Batch>,
    /// The TRUNCs under construction: where, and what each keeps.
    cuts: Vec<(Place, LogPosition)>,
    in_flight: Vec<Batch>,
    cached: VecDeque<Batch>,
    cached_bytes: usize,
    cached_bytes_max: usize,
    free: Vec<Arc<Vec<u8>>>,
    /// The last header laid: its segment and its CRC.
    chain: (u32, u32),
}

impl Staging {
    /// Nothing in memory; the chain goes on from the last record of the segment in use.
    pub(super) fn new(chain: (u32, u32), cached_bytes_max: usize) -> Staging {
        Staging {
            building: Vec::new(),
            cuts: Vec::new(),
            in_flight: Vec::new(),
            cached: VecDeque::new(),
            cached_bytes: 0,
            cached_bytes_max,
            free: Vec::new(),
            chain,
        }
    }

    /// Forgets what was not dispatched, and what is cached: the log begins anew, behind nothing.
    pub(super) fn restart(&mut self, chain: (u32, u32)) {
        let in_flight = std::mem::take(&mut self.in_flight);
        *self = Staging { in_flight, ..Staging::new(chain, self.cached_bytes_max) };
    }

    /// The log begins with segment `first`: lets go of the batches before it, and with them of
    /// their segments. A file that is removed takes space until nobody has it open.
    pub(super) fn begin_at(&mut self, first: u32) {
        while self.cached.front().is_some_and(|batch| batch.segment.seq < first) {
            let Some(batch) = self.cached.pop_front() else { return };
            self.cached_bytes -= batch.bytes.capacity();
            self.recycle(batch.bytes);
        }
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.building.is_empty()
    }

    /// Puts a record at `at` of `segment`, which is where the last one ended. Returns where the
    /// next one goes.
    pub(super) fn push(
        &mut self,
        segment: &Arc<Segment>,
        at: u32,
        head: &RecordHead,
        payload: &[u8],
    ) -> u32 {
        assert_eq!(usize_of(head.payload_len), payload.len());
        if self.building.last().is_none_or(|batch| batch.segment.seq != segment.seq) {
            assert_eq!(at % PAGE, 0, "a batch begins on a page");
            let bytes = self.free.pop().unwrap_or_default();
            let segment = Arc::clone(segment);
            self.building.push(Batch { segment, start: at, bytes, last_index: LogIndex::ZERO });
        }
        let batch = self.building.last_mut().expect("one was pushed if there was none");
        assert_eq!(batch.end().offset, at, "records are laid without gaps");
        match head.kind {
            RecordKind::Entry(_) => batch.last_index = batch.last_index.max(head.position.index),
            RecordKind::Trunc => {
                let place = Place { segment: segment.seq, offset: at };
                self.cuts.push((place, head.position));
            }
            RecordKind::Pad | RecordKind::Footer | RecordKind::SyncMark => {}
        }
        let bytes = batch.bytes_mut();
        let from = bytes.len();
        let wanted = 2 * usize_of(HEADER_BYTES) + payload.len();
        if bytes.len() + wanted > bytes.capacity().max(FREE_BYTES_MAX) {
            // It is large, and there may be several: it does not double.
            bytes.reserve_exact(wanted.max(bytes.len() / 4));
        }
        bytes.resize(from + usize_of(HEADER_BYTES), 0);
        put_head(&mut bytes[from..], head);
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(usize_of(HEADER_BYTES)), 0);
        batch.end().offset
    }

    /// Fills the batch under construction up to its page. Returns where the next one begins.
    pub(super) fn pad(&mut self, last: LogPosition) -> u32 {
        const PATTERN: [u8; limits::PAGE_BYTES] = [PAD_BYTE; limits::PAGE_BYTES];
        let batch = self.building.last().expect("only a batch with a record is padded");
        let at = batch.end().offset;
        let gap = page_up(at) - at;
        if gap == 0 {
            return at;
        }
        let payload = &PATTERN[..usize_of(gap - HEADER_BYTES)];
        let head = marker(RecordKind::Pad, last, payload);
        let segment = Arc::clone(&batch.segment);
        let end = self.push(&segment, at, &head, payload);
        assert_eq!(end % PAGE, 0);
        end
    }

    /// Closes `segment`, whose last record ends at `at`: a batch of its FOOTER alone, so that the
    /// rows lie where they were collected and are copied nowhere. `footer` has room for the header
    /// in front. Returns where the batch ends.
    pub(super) fn push_footer(
        &mut self,
        segment: &Arc<Segment>,
        at: u32,
        mut footer: Vec<u8>,
        last: LogPosition,
    ) -> u32 {
        let open = self.building.last().is_some_and(|batch| batch.segment.seq == segment.seq);
        let start = if open { self.pad(last) } else { at };
        assert_eq!(start % PAGE, 0, "a batch begins on a page");
        let head = marker(RecordKind::Footer, last, &footer[usize_of(HEADER_BYTES)..]);
        put_head(&mut footer[..usize_of(HEADER_BYTES)], &head);
        footer.resize(footer.len().next_multiple_of(usize_of(HEADER_BYTES)), 0);
        let (segment, bytes) = (Arc::clone(segment), Arc::new(footer));
        self.building.push(Batch { segment, start, bytes, last_index: LogIndex::ZERO });
        self.pad(last)
    }

    /// The lowest position that a TRUNC under construction keeps.
    pub(super) fn lowest_cut(&self) -> Option<LogPosition> {
        self.cuts.iter().map(|&(_, keep)| keep).min()
    }

    /// Lays the headers of everything under construction and appends the operations that make it
    /// durable. Returns where the log ends then, and how many bytes are written.
    pub(super) fn dispatch(
        &mut self,
        operations: &mut Vec<Operation>,
        synced: Place,
        commit: LogIndex,
    ) -> (Place, u64) {
        assert!(self.in_flight.is_empty(), "one job in flight");
        let mut synced = synced;
        let mut written = 0;
        for batch in &mut self.building {
            assert!(batch.start() >= synced, "a page that a sync covered is never written again");
            let footer = lay_batch(batch, &mut self.chain, synced, commit, &self.cuts);
            let file = &batch.segment.file;
            operations.push(Operation::Write {
                file: Arc::clone(file),
                offset: u64::from(batch.start),
                bytes: Arc::clone(&batch.bytes),
            });
            if let Some((offset, crc)) = footer {
                let page =
                    Place { segment: batch.segment.seq, offset: batch.segment.file_len - PAGE };
                let bytes = trailer_page(batch.segment.salt, page, offset, crc);
                operations.push(Operation::Write {
                    file: Arc::clone(file),
                    offset: u64::from(page.offset),
                    bytes: Arc::new(bytes),
                });
            }
            operations.push(Operation::Sync { file: Arc::clone(file) });
            written += u64::from(u32_of(batch.bytes.len()));
            // The next batch of this job is written only after the sync of this one has returned.
            synced = batch.end();
        }
        self.cuts.clear();
        std::mem::swap(&mut self.building, &mut self.in_flight);
        (synced, written)
    }

    /// The batches in flight are durable: those with entries serve reads until the cache is full.
    pub(super) fn job_done(&mut self) {
        for batch in self.in_flight.drain(..) {
            if batch.last_index > LogIndex::ZERO {
                self.cached_bytes += batch.bytes.capacity();
                self.cached.push_back(batch);
            }
        }
    }

    /// Lets go of the oldest batches beyond the bound; those not applied yet only beyond twice the
    /// bound.
    pub(super) fn trim(&mut self, applied: LogIndex) {
        while self.cached_bytes > self.cached_bytes_max {
            let Some(oldest) = self.cached.front() else { return };
            let needed = oldest.last_index > applied;
            if needed && self.cached_bytes <= 2 * self.cached_bytes_max {
                return;
            }
            let batch = self.cached.pop_front().expect("front was just looked at");
            self.cached_bytes -= batch.bytes.capacity();
            self.recycle(batch.bytes);
        }
    }

    fn recycle(&mut self, mut bytes: Arc<Vec<u8>>) {
        // Still shared if the executor has not dropped its job: then it is freed there.
        if let Some(buffer) = Arc::get_mut(&mut bytes) {
            buffer.clear();
            if buffer.capacity() <= FREE_BYTES_MAX && self.free.len() < FREE_MAX {
                self.free.push(bytes);
            }
        }
    }

    /// The payload of the record at `place`, if it is in memory.
    pub(super) fn payload(&self, place: Place, len: u32) -> Option<&[u8]> {
        let recent = self.building.iter().chain(&self.in_flight);
        for batch in recent {
            if batch.contains(place) {
                return Some(batch.payload(place, len));
            }
        }
        let after = self.cached.partition_point(|batch| batch.start() <= place);
        let batch = self.cached.get(after.checked_sub(1)?)?;
        batch.contains(place).then(|| batch.payload(place, len))
    }
}

/// The head of a record that is no entry: it repeats the last position.
pub(super) fn marker(kind: RecordKind, last: LogPosition, payload: &[u8]) -> RecordHead {
    RecordHead {
        kind,
        position: last,
        prev_term: last.term,
        payload_len: u32_of(payload.len()),
        payload_crc: crc::payload_crc(last, last.term, payload),
    }
}

/// Completes the headers of a batch. Returns offset and CRC of its FOOTER, if it has one.
fn lay_batch(
    batch: &mut Batch,
    chain: &mut (u32, u32),
    synced: Place,
    commit: LogIndex,
    cuts: &[(Place, LogPosition)],
) -> Option<(u32, u32)> {
    let segment = Arc::clone(&batch.segment);
    let start = batch.start;
    let bytes = batch.bytes_mut();
    let end = start + u32_of(bytes.len());
    assert_eq!(end % PAGE, 0, "a batch is padded before it is dispatched");
    if chain.0 != segment.seq {
        *chain = (segment.seq, 0);
    }
    let mut footer = None;
    let mut at = start;
    while at < end {
        let place = Place { segment: segment.seq, offset: at };
        let record = &mut bytes[usize_of(at - start)..];
        let next = at + staged_extent(record);
        let links = RecordLinks {
            synced,
            commit: commit_at(place, commit, cuts),
            prev_crc: chain.1,
            first: at == start,
            last: next == end,
        };
        chain.1 = lay(&mut record[..usize_of(HEADER_BYTES)], segment.salt, place, &links);
        match staged_kind(record) {
            RecordKind::Footer => footer = Some((at, chain.1)),
            RecordKind::Entry(_) | RecordKind::Trunc | RecordKind::Pad | RecordKind::SyncMark => {}
        }
        at = next;
    }
    assert_eq!(at, end, "records fill their batch");
    footer
}

/// What the record at `place` may say is committed. If the batch tears behind it, a TRUNC that
/// follows is lost and the suffix it cuts is back: nothing above what that TRUNC keeps may then
/// count as committed.
fn commit_at(place: Place, commit: LogIndex, cuts: &[(Place, LogPosition)]) -> LogIndex {
    let ahead = cuts.iter().filter(|(cut, _)| *cut >= place);
    ahead.map(|(_, keep)| keep.index).fold(commit, LogIndex::min)
}
