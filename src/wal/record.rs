#![expect(clippy::as_conversions, reason = "widening between u32, u64 and usize, once, here")]
//! The record: a 64-byte header and a payload, padded with zeros to 64.
//!
//! ```text
//!  0  4  magic "RFR1"
//!  4  4  header_crc   crc32(salt u64, segment u64, offset u64, bytes 8..64):
//!                     a stale or misplaced header never validates
//!  8  8  index        16 8 term        24 8 prev_term, the term of index-1 in this log
//! 32  4  payload_len  36 4 payload_crc crc32(bytes 8..32, payload): the same on every node
//! 40  8  synced       segment u32, offset u32: what was durable when the batch was written (W)
//! 48  8  commit       the commit index then, not above what a later TRUNC of the batch keeps (C)
//! 56  4  prev_crc     header_crc of the record physically before it in the segment; 0: the first
//! 60  1  kind         1 commands 2 no-op 3 configuration
//!                     4 TRUNC 5 PAD 6 FOOTER 7 (REPAIR) 8 SYNCMARK
//! 61  1  flags        bit 0 first of its batch, bit 1 last of its batch
//! 62  2  version      1
//! ```
//!
//! Little endian. Aligned to 64, a header never straddles a sector, so a crash leaves all of it or
//! nothing. TRUNC names the entry that becomes the last one. PAD, FOOTER and SYNCMARK repeat the
//! last index and term.

use crate::codec::crc;
use crate::limits::{PAGE_BYTES, RECORD_HEADER_BYTES};
use crate::types::{EntryKind, LogIndex, LogPosition, Term};

/// "RFR1", little endian.
const MAGIC: u32 = 0x3152_4652;
/// "RFTL", little endian.
const TRAILER_MAGIC: u32 = 0x4c54_4652;
/// The record version this program writes and reads.
const VERSION: u16 = 1;
const FLAG_FIRST: u8 = 1;
const FLAG_LAST: u8 = 2;
/// What PAD holds. Not zero: a zero sector inside a batch is how a tear shows. Storage §6.3.
pub(super) const PAD_BYTE: u8 = 0xa5;
/// One row of a FOOTER. Bytes.
pub(super) const ROW_BYTES: u32 = 32;
/// What a record adds to a segment beyond its payload, at most: header, alignment, its row in the
/// footer.
pub(super) const OVERHEAD_BYTES: u32 = HEADER_BYTES + HEADER_BYTES + ROW_BYTES;
const _: () = assert!(OVERHEAD_BYTES as u64 == crate::limits::ENTRY_OVERHEAD_BYTES);
/// `RECORD_HEADER_BYTES` as positions are counted.
pub(super) const HEADER_BYTES: u32 = RECORD_HEADER_BYTES as u32;
/// `PAGE_BYTES` as positions are counted.
pub(super) const PAGE: u32 = PAGE_BYTES as u32;
/// What the device writes whole or not at all. Bytes.
pub(super) const SECTOR_BYTES: u32 = 512;

/// A place in the log's files. Ordered as written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Place {
    /// The segment's sequence number.
    pub(crate) segment: u32,
    /// Bytes from the start of its file.
    pub(crate) offset: u32,
}

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RecordKind {
    /// An entry of the log.
    Entry(EntryKind),
    /// The entries behind the one named are gone.
    Trunc,
    /// Fills a batch up to its page.
    Pad,
    /// Closes a segment: rows with the identity of its entries and TRUNCs.
    Footer,
    /// Carries the watermark past the last batch of an idle node.
    SyncMark,
}

impl RecordKind {
    const fn code(self) -> u8 {
        match self {
            RecordKind::Entry(kind) => kind.code(),
            RecordKind::Trunc => 4,
            RecordKind::Pad => 5,
            RecordKind::Footer => 6,
            RecordKind::SyncMark => 8,
        }
    }

    fn from_code(code: u8) -> Option<RecordKind> {
        match code {
            4 => Some(RecordKind::Trunc),
            5 => Some(RecordKind::Pad),
            6 => Some(RecordKind::Footer),
            8 => Some(RecordKind::SyncMark),
            code => EntryKind::from_code(code).map(RecordKind::Entry),
        }
    }
}

/// What a record says of itself when it is staged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RecordHead {
    /// What it is.
    pub(crate) kind: RecordKind,
    /// Which entry, or the last entry of the log.
    pub(crate) position: LogPosition,
    /// The term of the entry before; of `position` itself where the record is no entry.
    pub(crate) prev_term: Term,
    /// Bytes.
    pub(crate) payload_len: u32,
    /// `codec::crc::payload_crc`.
    pub(crate) payload_crc: u32,
}

/// What a record is told when its batch is dispatched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RecordLinks {
    /// W: everything before is durable.
    pub(crate) synced: Place,
    /// C: everything up to here is committed.
    pub(crate) commit: LogIndex,
    /// The header CRC of the record before.
    pub(crate) prev_crc: u32,
    /// Whether it begins its batch.
    pub(crate) first: bool,
    /// Whether it ends its batch.
    pub(crate) last: bool,
}

/// A header read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RecordHeader {
    /// As staged.
    pub(crate) head: RecordHead,
    /// As laid.
    pub(crate) links: RecordLinks,
    /// Its own CRC, which the next record repeats.
    pub(crate) crc: u32,
}

/// What 64 bytes turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decoded {
    /// A header written by us at this place.
    Valid(RecordHeader),
    /// Anything else.
    Invalid,
    /// A header that validates but is of a later version of raftd.
    Newer {
        /// Its version.
        version: u16,
    },
}

/// Writes what is known when a record is staged into its header.
pub(super) fn put_head(header: &mut [u8], head: &RecordHead) {
    assert_eq!(header.len(), RECORD_HEADER_BYTES);
    header.fill(0);
    put_u32(header, 0, MAGIC);
    put_u64(header, 8, head.position.index.get());
    put_u64(header, 16, head.position.term.get());
    put_u64(header, 24, head.prev_term.get());
    put_u32(header, 32, head.payload_len);
    put_u32(header, 36, head.payload_crc);
    header[60] = head.kind.code();
    put_u16(header, 62, VERSION);
}

/// Completes a staged header and returns its CRC, which the next record repeats.
pub(super) fn lay(header: &mut [u8], salt: u64, place: Place, links: &RecordLinks) -> u32 {
    assert_eq!(get_u32(header, 0), MAGIC);
    put_u32(header, 40, links.synced.segment);
    put_u32(header, 44, links.synced.offset);
    put_u64(header, 48, links.commit.get());
    put_u32(header, 56, links.prev_crc);
    header[61] = u8::from(links.first) * FLAG_FIRST + u8::from(links.last) * FLAG_LAST;
    let crc = header_crc(header, salt, place);
    put_u32(header, 4, crc);
    crc
}

/// How many bytes the staged record at the start of `bytes` takes, its header included.
pub(super) fn staged_extent(bytes: &[u8]) -> u32 {
    assert_eq!(get_u32(bytes, 0), MAGIC);
    extent(get_u32(bytes, 32))
}

/// Reads the header at `place`. Never panics, whatever the bytes.
pub(crate) fn decode(header: &[u8], salt: u64, place: Place) -> Decoded {
    if header.len() < RECORD_HEADER_BYTES || get_u32(header, 0) != MAGIC {
        return Decoded::Invalid;
    }
    let header = &header[..RECORD_HEADER_BYTES];
    let crc = get_u32(header, 4);
    if crc != header_crc(header, salt, place) {
        return Decoded::Invalid;
    }
    let version = get_u16(header, 62);
    let Some(kind) = RecordKind::from_code(header[60]).filter(|_| version == VERSION) else {
        return Decoded::Newer { version };
    };
    let position =
        LogPosition::new(Term::new(get_u64(header, 16)), LogIndex::new(get_u64(header, 8)));
    let head = RecordHead {
        kind,
        position,
        prev_term: Term::new(get_u64(header, 24)),
        payload_len: get_u32(header, 32),
        payload_crc: get_u32(header, 36),
    };
    let links = RecordLinks {
        synced: Place { segment: get_u32(header, 40), offset: get_u32(header, 44) },
        commit: LogIndex::new(get_u64(header, 48)),
        prev_crc: get_u32(header, 56),
        first: header[61] & FLAG_FIRST != 0,
        last: header[61] & FLAG_LAST != 0,
    };
    Decoded::Valid(RecordHeader { head, links, crc })
}

fn header_crc(header: &[u8], salt: u64, place: Place) -> u32 {
    let salt = salt.to_le_bytes();
    let segment = u64::from(place.segment).to_le_bytes();
    let offset = u64::from(place.offset).to_le_bytes();
    crc::crc32(&[&salt, &segment, &offset, &header[8..RECORD_HEADER_BYTES]])
}

/// One row of a FOOTER: enough to name and replay a record whose own header is lost.
///
/// `0 8 index | 8 8 term | 16 4 offset | 20 4 payload_len | 24 4 payload_crc | 28 1 kind | 29 3
/// zero`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FooterRow {
    /// Which entry, or where a TRUNC cuts.
    pub(crate) position: LogPosition,
    /// Where its record begins in the segment.
    pub(crate) offset: u32,
    /// Bytes.
    pub(crate) payload_len: u32,
    /// As in its header.
    pub(crate) payload_crc: u32,
    /// An entry or TRUNC.
    pub(crate) kind: RecordKind,
}

impl FooterRow {
    /// The row of the record staged or found at `place`.
    pub(super) fn of(head: &RecordHead, place: Place) -> FooterRow {
        FooterRow {
            position: head.position,
            offset: place.offset,
            payload_len: head.payload_len,
            payload_crc: head.payload_crc,
            kind: head.kind,
        }
    }

    /// Appends the row to a FOOTER's payload.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.position.index.get().to_le_bytes());
        out.extend_from_slice(&self.position.term.get().to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.payload_len.to_le_bytes());
        out.extend_from_slice(&self.payload_crc.to_le_bytes());
        out.extend_from_slice(&[self.kind.code(), 0, 0, 0]);
    }

    /// The rows of a FOOTER's payload; none if one of them is not a row.
    pub(super) fn decode_all(payload: &[u8]) -> Vec<FooterRow> {
        let rows = payload.chunks_exact(usize_of(ROW_BYTES)).map(|row| {
            let index = LogIndex::new(get_u64(row, 0));
            Some(FooterRow {
                position: LogPosition::new(Term::new(get_u64(row, 8)), index),
                offset: get_u32(row, 16),
                payload_len: get_u32(row, 20),
                payload_crc: get_u32(row, 24),
                kind: RecordKind::from_code(row[28])?,
            })
        });
        rows.collect::<Option<Vec<FooterRow>>>().unwrap_or_default()
    }
}

/// The last page of a sealed segment, all zero but for its last 64 bytes, which point back at the
/// FOOTER: `0 4 magic "RFTL" | 4 4 crc as a record's | 8 4 offset of the FOOTER | 12 4 its
/// header_crc | zero`
pub(super) fn trailer_page(salt: u64, page: Place, footer_offset: u32, footer_crc: u32) -> Vec<u8> {
    let mut bytes = vec![0; PAGE_BYTES];
    let trailer = &mut bytes[PAGE_BYTES - RECORD_HEADER_BYTES..];
    put_u32(trailer, 0, TRAILER_MAGIC);
    put_u32(trailer, 8, footer_offset);
    put_u32(trailer, 12, footer_crc);
    let place = Place { segment: page.segment, offset: page.offset + PAGE - HEADER_BYTES };
    let crc = header_crc(trailer, salt, place);
    put_u32(trailer, 4, crc);
    bytes
}

/// Bytes of a record with a payload of `payload_len`: header, payload, zeros up to 64.
pub(super) const fn extent(payload_len: u32) -> u32 {
    HEADER_BYTES + payload_len.next_multiple_of(HEADER_BYTES)
}

/// The page boundary at or behind `offset`.
pub(super) const fn page_up(offset: u32) -> u32 {
    offset.next_multiple_of(PAGE)
}

/// The length of something that fits a segment, as positions are counted.
pub(super) fn u32_of(length: usize) -> u32 {
    u32::try_from(length).expect("a segment is at most SEGMENT_BYTES_MAX, which is below 2^32")
}

/// A position as an index into a slice.
pub(super) const fn usize_of(offset: u32) -> usize {
    offset as usize
}

/// Writes a little-endian number.
pub(super) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// Writes a little-endian number.
pub(super) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Writes a little-endian number.
pub(super) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Writes a little-endian number.
pub(super) fn put_u128(bytes: &mut [u8], at: usize, value: u128) {
    bytes[at..at + 16].copy_from_slice(&value.to_le_bytes());
}

/// Reads a little-endian number.
pub(super) fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

/// Reads a little-endian number.
pub(super) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

/// Reads a little-endian number.
pub(super) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// Reads a little-endian number.
pub(super) fn get_u128(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// What the staged record at the start of `bytes` is.
pub(super) fn staged_kind(bytes: &[u8]) -> RecordKind {
    RecordKind::from_code(bytes[60]).expect("put_head wrote a kind's code")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> RecordHead {
        RecordHead {
            kind: RecordKind::Entry(EntryKind::Commands),
            position: LogPosition::new(Term::new(7), LogIndex::new(9)),
            prev_term: Term::new(6),
            payload_len: 100,
            payload_crc: 5,
        }
    }

    fn laid(salt: u64, place: Place) -> [u8; RECORD_HEADER_BYTES] {
        let mut header = [0; RECORD_HEADER_BYTES];
        put_head(&mut header, &head());
        let links = RecordLinks {
            synced: Place { segment: 1, offset: 8192 },
            commit: LogIndex::new(8),
            prev_crc: 3,
            first: true,
            last: false,
        };
        lay(&mut header, salt, place, &links);
        header
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_header(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let place = Place { segment: 1, offset: 8192 };
            prop_assert_eq!(decode(&bytes, 7, place), Decoded::Invalid);
        }

        #[test]
        fn arbitrary_bytes_behind_the_magic_are_no_header(rest in any::<[u8; 32]>()) {
            let mut bytes = [0; RECORD_HEADER_BYTES];
            put_u32(&mut bytes, 0, MAGIC);
            bytes[32..].copy_from_slice(&rest);
            let place = Place { segment: 1, offset: 8192 };
            prop_assert_eq!(decode(&bytes, 7, place), Decoded::Invalid);
        }

        #[test]
        fn a_header_is_read_back_in_its_place_only(
            salt in any::<u64>(), segment in 1_u32.., slot in 0_u32..1000, bit in 0_usize..512,
        ) {
            let place = Place { segment, offset: slot * 64 };
            let mut header = laid(salt, place);
            let Decoded::Valid(read) = decode(&header, salt, place) else {
                return Err(TestCaseError::fail("not read back"));
            };
            prop_assert_eq!(read.head, head());
            let moved = Place { offset: place.offset + 64, ..place };
            prop_assert_eq!(decode(&header, salt, moved), Decoded::Invalid);
            prop_assert_eq!(decode(&header, salt ^ 1, place), Decoded::Invalid);
            header[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(&header, salt, place), Decoded::Invalid);
        }
    }
}
