//! A segment: one fixed-size file of the log, made ahead, zero-filled and synced, never resized.
//!
//! ```text
//! page 0  0 8 magic "RAFTDSEG"  8 2 format version = 1  16 16 cluster_id  32 8 node  40 8 sequence
//!        48 8 salt             56 8 file length         … zero …          4092 4 crc32 of bytes
//!        0..4092
//! page 1  a copy of page 0
//! 8192 …  batches, each from a page boundary on; zero behind the last one
//! sealed  a FOOTER record: rows [index 8, term 8, offset 4, length 4, crc 4, kind 4]
//! ```
//!
//! A segment whose two header pages are invalid was never finished: its data area is zero and it
//! is removed.

use super::disk::{DiskFile, Region};
use super::record::{RecordKind, Site, u16_at, u32_at, u64_at, u128_at};
use crate::limits::{PAGE_BYTES, RECORD_HEADER_BYTES};
use crate::types::{ClusterId, NodeId};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"RAFTDSEG";
const VERSION: u16 = 1;
const CRC_AT: usize = PAGE_BYTES - 4;

/// Where the first batch begins. Bytes.
pub(super) const DATA_START: usize = 2 * PAGE_BYTES;
/// A row of the footer. Bytes.
pub(super) const FOOTER_ROW_BYTES: usize = 32;

/// What a segment's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) cluster_id: ClusterId,
    pub(super) node: NodeId,
    pub(super) sequence: u32,
    pub(super) salt: u64,
    pub(super) file_bytes: u64,
}

impl SegmentHeader {
    /// One header page.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        page[0..8].copy_from_slice(MAGIC);
        page[8..10].copy_from_slice(&VERSION.to_le_bytes());
        page[16..32].copy_from_slice(&self.cluster_id.0.to_le_bytes());
        page[32..40].copy_from_slice(&self.node.get().to_le_bytes());
        page[40..48].copy_from_slice(&u64::from(self.sequence).to_le_bytes());
        page[48..56].copy_from_slice(&self.salt.to_le_bytes());
        page[56..64].copy_from_slice(&self.file_bytes.to_le_bytes());
        let crc = crc32fast::hash(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// The first valid one of the two header pages.
    pub(super) fn decode(bytes: &[u8]) -> Option<SegmentHeader> {
        let pages = [bytes.get(..PAGE_BYTES)?, bytes.get(PAGE_BYTES..DATA_START)?];
        pages.into_iter().find_map(decode_page)
    }
}

fn decode_page(page: &[u8]) -> Option<SegmentHeader> {
    let valid = &page[0..8] == MAGIC
        && u16_at(page, 8) == VERSION
        && u32_at(page, CRC_AT) == crc32fast::hash(&page[..CRC_AT]);
    if !valid {
        return None;
    }
    Some(SegmentHeader {
        cluster_id: ClusterId(u128_at(page, 16)),
        node: NodeId::new(u64_at(page, 32))?,
        sequence: u32::try_from(u64_at(page, 40)).ok()?,
        salt: u64_at(page, 48),
        file_bytes: u64_at(page, 56),
    })
}

/// An open segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) sequence: u32,
    pub(super) salt: u64,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) region: Arc<dyn Region>,
}

impl Segment {
    pub(super) fn site(&self, offset: u32) -> Site {
        Site { salt: self.salt, segment: self.sequence, offset }
    }
}

/// The name of a segment's file in the data directory.
pub(super) fn name(sequence: u32) -> String {
    format!("log/{sequence:020}.seg")
}

/// The sequence of a file name in `log/`, if it is a segment's.
pub(super) fn sequence_of(name: &str) -> Option<u32> {
    name.strip_suffix(".seg").filter(|digits| digits.len() == 20)?.parse().ok()
}

/// One entry as the footer lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FooterRow {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) crc: u32,
    pub(super) kind: RecordKind,
}

/// Room that a footer of `rows` rows takes at most, from the end of the last batch. Bytes.
pub(super) fn footer_room(rows: usize) -> usize {
    let payload = super::record::padded(rows * FOOTER_ROW_BYTES);
    (RECORD_HEADER_BYTES + payload + RECORD_HEADER_BYTES).next_multiple_of(PAGE_BYTES)
}

/// The footer's payload.
pub(super) fn encode_footer(rows: &[FooterRow], out: &mut Vec<u8>) {
    for row in rows {
        let kind = match row.kind {
            RecordKind::Entry(kind) => kind.code(),
            RecordKind::Truncate => 4,
            RecordKind::Pad | RecordKind::Footer | RecordKind::SyncMark => 0,
        };
        out.extend_from_slice(&row.index.to_le_bytes());
        out.extend_from_slice(&row.term.to_le_bytes());
        out.extend_from_slice(&row.offset.to_le_bytes());
        out.extend_from_slice(&row.length.to_le_bytes());
        out.extend_from_slice(&row.crc.to_le_bytes());
        out.extend_from_slice(&u32::from(kind).to_le_bytes());
    }
}
