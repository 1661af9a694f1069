//! A batch under construction: records of one segment behind each other, from a page boundary on.
//! Headers are
//! laid at the end, when the sync job is formed: only then are the watermark and the commit index
//! known.

use super::Place;
use super::record::{FIRST, Header, LAST, RecordKind, narrow, padded, wide};
use super::segment::{FooterRow, Segment, encode_footer};
use crate::limits::{PAGE_BYTES, RECORD_HEADER_BYTES};
use crate::types::{LogIndex, LogPosition, Term};

/// Fills the rest of a batch's last page. Not zero, or every batch would look torn to rule L2.
const FILLER: u8 = 0xa5;

/// A record whose header is not laid yet.
#[derive(Clone, Copy, Debug)]
struct Planned {
    at: u32,
    position: LogPosition,
    prev_term: Term,
    payload_len: u32,
    payload_crc: u32,
    kind: RecordKind,
}

/// The records staged for one segment.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) segment: Segment,
    /// Where in the file it begins.
    pub(super) start: u32,
    pub(super) bytes: Vec<u8>,
    planned: Vec<Planned>,
    /// Whether the segment ends with this batch.
    pub(super) seals: bool,
    /// The footer's rows and the log's last entry, as of the moment of sealing.
    sealed: Option<(Vec<FooterRow>, LogPosition)>,
}

/// What the headers of a batch say beside their own entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) synced: Place,
    pub(super) commit: LogIndex,
    pub(super) last: LogPosition,
    /// The checksum of the segment's last header.
    pub(super) prev_crc: u32,
}

impl Batch {
    pub(super) fn new(segment: Segment, start: u32, bytes: Vec<u8>) -> Batch {
        assert!(bytes.is_empty(), "buffers are recycled empty");
        assert!(wide(start).is_multiple_of(PAGE_BYTES), "a batch begins a page");
        Batch { segment, start, bytes, planned: Vec::new(), seals: false, sealed: None }
    }

    /// Keeps what the footer will say.
    pub(super) fn keep_rows(&mut self, rows: Vec<FooterRow>, last: LogPosition) {
        assert!(self.seals, "only a sealing batch has a footer");
        self.sealed = Some((rows, last));
    }

    /// The log's last entry when the batch was sealed.
    pub(super) fn last_at_seal(&self) -> Option<LogPosition> {
        self.sealed.as_ref().map(|(_, last)| *last)
    }

    /// Appends a record; returns where in the file its header will lie.
    pub(super) fn push(
        &mut self,
        position: LogPosition,
        prev_term: Term,
        kind: RecordKind,
        payload: &[u8],
        payload_crc: u32,
    ) -> u32 {
        let at = narrow(self.bytes.len());
        let payload_len = narrow(payload.len());
        self.bytes.resize(self.bytes.len() + RECORD_HEADER_BYTES, 0);
        self.bytes.extend_from_slice(payload);
        let end = wide(at) + RECORD_HEADER_BYTES + padded(payload.len());
        self.bytes.resize(end, 0);
        self.planned.push(Planned { at, position, prev_term, payload_len, payload_crc, kind });
        self.start + at
    }

    /// Where the file ends for this batch if a record with `payload_len` bytes is added, its PAD
    /// included.
    pub(super) fn end_with(&self, payload_len: usize) -> usize {
        let record = RECORD_HEADER_BYTES + padded(payload_len);
        let end = wide(self.start) + self.bytes.len() + record + RECORD_HEADER_BYTES;
        end.next_multiple_of(PAGE_BYTES)
    }

    /// The payload that begins behind the header at `offset` of the file.
    pub(super) fn payload(&self, offset: u32, len: u32) -> &[u8] {
        let from = wide(offset - self.start) + RECORD_HEADER_BYTES;
        &self.bytes[from..from + wide(len)]
    }

    /// Adds footer and padding and lays every header. Returns the checksum of the last one.
    pub(super) fn lay(&mut self, known: Known) -> u32 {
        if let Some((rows, _)) = self.sealed.take() {
            let mut footer = Vec::new();
            encode_footer(&rows, &mut footer);
            let crc = super::record::payload_crc(known.last, Term::ZERO, &footer);
            self.push(known.last, Term::ZERO, RecordKind::Footer, &footer, crc);
        }
        self.pad(known.last);
        let last = self.planned.len() - 1;
        let mut prev_crc = known.prev_crc;
        for (nth, planned) in self.planned.iter().enumerate() {
            let first = if nth == 0 { FIRST } else { 0 };
            let header = Header {
                position: planned.position,
                prev_term: planned.prev_term,
                payload_len: planned.payload_len,
                payload_crc: planned.payload_crc,
                synced: known.synced,
                commit: known.commit,
                prev_crc,
                kind: planned.kind,
                flags: first | if nth == last { LAST } else { 0 },
            };
            let site = self.segment.site(self.start + planned.at);
            prev_crc = header.encode(site, &mut self.bytes[wide(planned.at)..]);
        }
        assert!(self.bytes.len().is_multiple_of(PAGE_BYTES), "a batch ends a page");
        prev_crc
    }

    fn pad(&mut self, last: LogPosition) {
        let rest = self.bytes.len().next_multiple_of(PAGE_BYTES) - self.bytes.len();
        if rest > 0 {
            let filler = [FILLER; PAGE_BYTES];
            self.push(last, Term::ZERO, RecordKind::Pad, &filler[RECORD_HEADER_BYTES..rest], 0);
        }
    }
}

/// One page that closes the place at `offset`, mid-page, where a torn batch was cut off.
pub(super) fn lone_pad(segment: &Segment, offset: u32, known: Known) -> Vec<u8> {
    let rest = wide(offset).next_multiple_of(PAGE_BYTES) - wide(offset);
    let mut bytes = vec![FILLER; rest];
    let header = Header {
        position: known.last,
        prev_term: Term::ZERO,
        payload_len: narrow(rest - RECORD_HEADER_BYTES),
        payload_crc: 0,
        synced: known.synced,
        commit: known.commit,
        prev_crc: known.prev_crc,
        kind: RecordKind::Pad,
        flags: LAST,
    };
    header.encode(segment.site(offset), &mut bytes);
    bytes
}
