//! The record: a 64-byte header and a payload, padded to 64 bytes, so that a header never
//! straddles a
//! sector. Little endian. Encode and decode, nothing else.
//!
//! ```text
//!  0 4 magic "RFR1"
//!  4 4 header_crc   crc32(salt, segment sequence, offset in the file, bytes 8..64)
//!  8 8 index       16 8 term       24 8 prev_term   (of index-1 in this log)
//! 32 4 payload_len 36 4 payload_crc  crc32(bytes 8..32, payload): equal on every node
//! 40 4 synced segment   44 4 synced offset   what this node knew to be durable when the batch was
//! laid
//! 48 8 commit_index     known then
//! 56 4 prev_crc   header_crc of the record before it in the segment; 0 for the first
//! 60 1 kind  1 commands 2 no-op 3 configuration 4 truncate 5 pad 6 footer 7 repair 8 sync mark
//! 61 1 flags bit 0 first of its batch, bit 1 last     62 2 record version = 1
//! 64 … payload
//! ```
//!
//! The salt and the place are in the checksum so that stale or misdirected bytes never look valid.

#![expect(clippy::as_conversions, reason = "a codec: widths are the format's")]

use super::Place;
use crate::limits::RECORD_HEADER_BYTES;
use crate::types::{EntryKind, LogIndex, LogPosition, Term};
use crc32fast::Hasher;

const MAGIC: u32 = 0x3152_4652;
const VERSION: u16 = 1;

/// The first record of a batch.
pub(super) const FIRST: u8 = 1;
/// The last record of a batch.
pub(super) const LAST: u8 = 2;

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RecordKind {
    Entry(EntryKind),
    Truncate,
    Pad,
    Footer,
    SyncMark,
}

impl RecordKind {
    fn code(self) -> u8 {
        match self {
            RecordKind::Entry(kind) => kind.code(),
            RecordKind::Truncate => 4,
            RecordKind::Pad => 5,
            RecordKind::Footer => 6,
            RecordKind::SyncMark => 8,
        }
    }

    fn from_code(code: u8) -> Option<RecordKind> {
        match code {
            4 => Some(RecordKind::Truncate),
            5 => Some(RecordKind::Pad),
            6 => Some(RecordKind::Footer),
            8 => Some(RecordKind::SyncMark),
            other => EntryKind::from_code(other).map(RecordKind::Entry),
        }
    }
}

/// A record's header. `index` and `term` of TRUNC are the last entry kept; of PAD, FOOTER and
/// SYNCMARK the
/// last entry of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) position: LogPosition,
    pub(super) prev_term: Term,
    pub(super) payload_len: u32,
    pub(super) payload_crc: u32,
    pub(super) synced: Place,
    pub(super) commit: LogIndex,
    pub(super) prev_crc: u32,
    pub(super) kind: RecordKind,
    pub(super) flags: u8,
}

/// Where a record lies: part of its checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Site {
    pub(super) salt: u64,
    pub(super) segment: u32,
    pub(super) offset: u32,
}

impl Header {
    /// Writes the header to the front of `out`; returns its checksum, which the next record
    /// repeats.
    pub(super) fn encode(&self, site: Site, out: &mut [u8]) -> u32 {
        let out = &mut out[..RECORD_HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..16].copy_from_slice(&self.position.index.get().to_le_bytes());
        out[16..24].copy_from_slice(&self.position.term.get().to_le_bytes());
        out[24..32].copy_from_slice(&self.prev_term.get().to_le_bytes());
        out[32..36].copy_from_slice(&self.payload_len.to_le_bytes());
        out[36..40].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[40..44].copy_from_slice(&self.synced.segment.to_le_bytes());
        out[44..48].copy_from_slice(&self.synced.offset.to_le_bytes());
        out[48..56].copy_from_slice(&self.commit.get().to_le_bytes());
        out[56..60].copy_from_slice(&self.prev_crc.to_le_bytes());
        out[60] = self.kind.code();
        out[61] = self.flags;
        out[62..64].copy_from_slice(&VERSION.to_le_bytes());
        let crc = header_crc(site, &out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Reads the header at the front of `bytes`, with its checksum; `None` if no valid record of
    /// this site
    /// begins there.
    pub(super) fn decode(site: Site, bytes: &[u8]) -> Option<(Header, u32)> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        if u32_at(bytes, 0) != MAGIC {
            return None;
        }
        let crc = u32_at(bytes, 4);
        if crc != header_crc(site, &bytes[8..]) || u16_at(bytes, 62) != VERSION {
            return None;
        }
        let position =
            LogPosition::new(Term::new(u64_at(bytes, 16)), LogIndex::new(u64_at(bytes, 8)));
        let header = Header {
            position,
            prev_term: Term::new(u64_at(bytes, 24)),
            payload_len: u32_at(bytes, 32),
            payload_crc: u32_at(bytes, 36),
            synced: Place { segment: u32_at(bytes, 40), offset: u32_at(bytes, 44) },
            commit: LogIndex::new(u64_at(bytes, 48)),
            prev_crc: u32_at(bytes, 56),
            kind: RecordKind::from_code(bytes[60])?,
            flags: bytes[61],
        };
        Some((header, crc))
    }
}

fn header_crc(site: Site, covered: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    let mut place = [0; 16];
    place[0..8].copy_from_slice(&site.salt.to_le_bytes());
    place[8..12].copy_from_slice(&site.segment.to_le_bytes());
    place[12..16].copy_from_slice(&site.offset.to_le_bytes());
    hasher.update(&place);
    hasher.update(covered);
    hasher.finalize()
}

/// The checksum of an entry: its identity and its bytes, the same on every node. The leader
/// computes it, every
/// follower checks it before it stores the entry, and it is checked again before the entry is read
/// from disk.
pub fn payload_crc(position: LogPosition, prev_term: Term, payload: &[u8]) -> u32 {
    let mut identity = [0; 24];
    identity[0..8].copy_from_slice(&position.index.get().to_le_bytes());
    identity[8..16].copy_from_slice(&position.term.get().to_le_bytes());
    identity[16..24].copy_from_slice(&prev_term.get().to_le_bytes());
    let mut hasher = Hasher::new();
    hasher.update(&identity);
    hasher.update(payload);
    hasher.finalize()
}

/// A payload's room in the file: padded so that the next header is aligned. Bytes.
pub(super) const fn padded(payload_len: usize) -> usize {
    payload_len.next_multiple_of(RECORD_HEADER_BYTES)
}

/// Little-endian numbers out of a page whose length is known.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | (u32::from(u16_at(bytes, at + 2)) << 16)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | (u64::from(u32_at(bytes, at + 4)) << 32)
}

pub(super) fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from(u64_at(bytes, at)) | (u128::from(u64_at(bytes, at + 8)) << 64)
}

/// `u32` to `usize`, which is wider wherever raftd runs.
pub(super) const fn wide(number: u32) -> usize {
    number as usize
}

/// A position in a segment, which limits.rs keeps below 4 GiB.
pub(super) const fn narrow(bytes: usize) -> u32 {
    assert!(bytes <= u32::MAX as usize, "segments are smaller than 4 GiB");
    bytes as u32
}

/// The next salt after `salt`: a step of splitmix64. Only its being different from others matters.
pub(super) const fn next_salt(salt: u64) -> u64 {
    let next = salt.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}
