//! Reading a segment back: which records stand in it, and where something else does.
//!
//! Nothing is judged here. The scan walks from record to record; where no valid header stands it
//! looks for the next one in steps of 64 bytes and reports the hole.

use super::record::{
    Decoded, FooterRow, HEADER_BYTES, PAGE, Place, RecordHeader, RecordKind, SECTOR_BYTES, decode,
    extent, u32_of, usize_of,
};
use super::segment::{DATA_START, SegmentHeader};
use crate::codec::crc;
use crate::limits::PAGE_BYTES;
use crate::types::EntryKind;

/// What stands at one place of a segment.
#[derive(Debug)]
pub(super) enum Found {
    /// A record with a valid header.
    Record(Scanned),
    /// Bytes without one.
    Hole(Hole),
}

/// A record with a valid header.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Where it begins.
    pub(super) place: Place,
    /// Its header.
    pub(super) header: RecordHeader,
    /// Whether its payload is what was written.
    pub(super) payload: PayloadState,
    /// The payload of a configuration entry; empty for others.
    pub(super) configuration: Vec<u8>,
}

/// Whether a payload passes its checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PayloadState {
    /// It does.
    Whole,
    /// It does not.
    Bad(Trace),
}

/// What damage looks like. A crash leaves a sector as it was, and it was zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trace {
    /// A whole sector that the record touches is zero: as a torn write leaves it.
    ZeroSector,
    /// None is.
    NoZeroSector,
}

/// Bytes without a valid header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hole {
    /// Where a record should begin.
    pub(super) from: Place,
    /// Where the next one does, or the end of the segment.
    pub(super) until: u32,
    /// What the sector of the missing header looks like.
    pub(super) trace: Trace,
}

/// A segment, read.
#[derive(Debug)]
pub(super) struct SegmentScan {
    /// Its number.
    pub(super) seq: u32,
    /// Its header; `None` if neither copy is ours.
    pub(super) header: Option<SegmentHeader>,
    /// The header page that is not ours, if the other one is: a spare's preparation was cut short,
    /// or it rots.
    pub(super) bad_header: Option<usize>,
    /// What stands in it, in order. Empty: a spare.
    pub(super) found: Vec<Found>,
    /// What its FOOTER says, if it has a whole one.
    pub(super) rows: Vec<FooterRow>,
    /// Bytes from here on are zero, up to the end of the file. A page boundary.
    pub(super) zero_from: u32,
    /// Whether the file has another length than its header says.
    pub(super) wrong_length: bool,
}

/// Reads the batches of a segment. `bytes` is the whole file, at the length its header gives.
/// `Err`: a record of a later version, which this program cannot read.
pub(super) fn scan(header: SegmentHeader, bytes: &[u8]) -> Result<SegmentScan, u16> {
    assert_eq!(bytes.len(), usize_of(header.file_len));
    let mut scanner = Scanner {
        header,
        bytes,
        data_end: header.file_len - PAGE,
        found: Vec::new(),
        rows: vec![],
    };
    scanner.walk()?;
    let Scanner { found, rows, .. } = scanner;
    Ok(SegmentScan {
        bad_header: None,
        seq: header.seq,
        header: Some(header),
        found,
        rows,
        zero_from: zero_from(bytes),
        wrong_length: false,
    })
}

/// The page boundary behind the last byte that is not zero.
pub(super) fn zero_from(bytes: &[u8]) -> u32 {
    let used = bytes.chunks(PAGE_BYTES).rposition(|page| !is_zero(page));
    used.map_or(0, |last| PAGE * (u32_of(last) + 1))
}

struct Scanner<'a> {
    header: SegmentHeader,
    bytes: &'a [u8],
    data_end: u32,
    found: Vec<Found>,
    rows: Vec<FooterRow>,
}

impl Scanner<'_> {
    fn walk(&mut self) -> Result<(), u16> {
        let mut at = DATA_START;
        // The CRC the next record must repeat; behind a hole it cannot be known.
        let mut chain = Some(0);
        while at < self.data_end {
            if let Some(header) = self.header_at(at, chain)? {
                chain = Some(header.crc);
                at = self.take(at, header);
                continue;
            }
            let next = self.next_header(at)?;
            let rest_is_zero = || is_zero(&self.bytes[usize_of(at)..usize_of(self.data_end)]);
            if next.is_none() && at.is_multiple_of(PAGE) && rest_is_zero() {
                return Ok(());
            }
            let until = next.unwrap_or(self.data_end);
            self.found.push(Found::Hole(Hole {
                from: self.place(at),
                until,
                trace: self.trace(at, at + 1),
            }));
            chain = None;
            at = until;
        }
        Ok(())
    }

    fn place(&self, offset: u32) -> Place {
        Place { segment: self.header.seq, offset }
    }

    /// The valid header at `at`, if it also follows the one before and its payload ends within the
    /// segment.
    fn header_at(&self, at: u32, chain: Option<u32>) -> Result<Option<RecordHeader>, u16> {
        let bytes = &self.bytes[usize_of(at)..usize_of(self.data_end)];
        match decode(bytes, self.header.salt, self.place(at)) {
            Decoded::Valid(header) => {
                let fits =
                    usize_of(header.head.payload_len) <= bytes.len() - usize_of(HEADER_BYTES);
                let follows = chain.is_none_or(|crc| header.links.prev_crc == crc);
                Ok(Some(header).filter(|_| fits).filter(|_| follows))
            }
            Decoded::Invalid => Ok(None),
            Decoded::Newer { version } => Err(version),
        }
    }

    fn next_header(&self, after: u32) -> Result<Option<u32>, u16> {
        let mut at = after + HEADER_BYTES;
        while at < self.data_end {
            if self.header_at(at, None)?.is_some() {
                return Ok(Some(at));
            }
            at += HEADER_BYTES;
        }
        Ok(None)
    }

    /// Notes the record at `at` and returns where it ends.
    fn take(&mut self, at: u32, header: RecordHeader) -> u32 {
        let head = &header.head;
        let from = usize_of(at + HEADER_BYTES);
        let payload = &self.bytes[from..from + usize_of(head.payload_len)];
        let end = at + extent(head.payload_len);
        let whole = crc::payload_crc(head.position, head.prev_term, payload) == head.payload_crc;
        let state =
            if whole { PayloadState::Whole } else { PayloadState::Bad(self.trace(at, end)) };
        match head.kind {
            RecordKind::Footer if whole => self.rows = FooterRow::decode_all(payload),
            RecordKind::Footer
            | RecordKind::Entry(_)
            | RecordKind::Trunc
            | RecordKind::Pad
            | RecordKind::SyncMark => {}
        }
        let configuration = if head.kind == RecordKind::Entry(EntryKind::Configuration) {
            payload.to_vec()
        } else {
            Vec::new()
        };
        let place = self.place(at);
        self.found.push(Found::Record(Scanned { place, header, payload: state, configuration }));
        end
    }

    /// Whether one of the sectors that `from..until` touches is zero from end to end.
    fn trace(&self, from: u32, until: u32) -> Trace {
        let mut sector = from - from % SECTOR_BYTES;
        while sector < until {
            let bytes = &self.bytes[usize_of(sector)..usize_of(sector + SECTOR_BYTES)];
            if is_zero(bytes) {
                return Trace::ZeroSector;
            }
            sector += SECTOR_BYTES;
        }
        Trace::NoZeroSector
    }
}

/// Compares page by page, which is a `memcmp`: most of a segment is zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    bytes.chunks(PAGE_BYTES).all(|page| *page == ZEROS[..page.len()])
}
