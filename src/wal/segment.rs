//! One file of the log: two header pages, batches, a footer, a trailer.
//!
//! ```text
//! page 0, written and synced when the file is prepared, never changed
//!  0  8 magic "RAFTDSEG"    8 2 version 1        10 2 header length 96   12 4 flags 0
//! 16 16 cluster_id         32 8 node             40 8 sequence number, as in the name
//! 48  8 salt               56 8 file length      64 8 data start 8192    72 4 batch alignment 4096
//! 80  8 created, Unix ms   ...zero...          4092 4 crc32 of bytes 0..4092
//! page 1: the same again
//! 8192: batches, each from a page boundary; zeros behind the last
//! sealed: the last batch is a FOOTER, and the last page's last 64 bytes point back at it
//! ```
//!
//! No index is in the header: spares are prepared ahead, and the first record says where the log
//! is.

use super::disk::{DiskFile, Region};
use super::identity::Identity;
use super::record::{
    FooterRow, HEADER_BYTES, OVERHEAD_BYTES, PAGE, ROW_BYTES, extent, get_u16, get_u32, get_u64,
    get_u128, page_up, put_u16, put_u32, put_u64, put_u128, u32_of, usize_of,
};
use crate::codec::crc;
use crate::limits::PAGE_BYTES;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"RAFTDSEG";
const VERSION: u16 = 1;
const HEADER_LEN: u16 = 96;
const CRC_AT: usize = PAGE_BYTES - 4;
/// Where batches begin.
pub(super) const DATA_START: u32 = 2 * PAGE;

/// What a segment's header says, less what `Identity` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    /// Its sequence number: 1 for the first of a log.
    pub(super) seq: u32,
    /// Seeds the CRC of every record header in it.
    pub(super) salt: u64,
    /// The length of its file. Bytes.
    pub(super) file_len: u32,
    /// When it was prepared. Unix milliseconds; for people.
    pub(super) created_unix_ms: u64,
}

/// What a header page turned out to be.
pub(super) enum HeaderPage {
    /// Of this log.
    Valid(SegmentHeader),
    /// Valid, but of another node or cluster.
    Foreign,
    /// Of a version this program does not know.
    Newer(u16),
    /// Anything else.
    Invalid,
}

impl SegmentHeader {
    /// The two header pages.
    pub(super) fn encode(&self, identity: &Identity) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        page[..8].copy_from_slice(MAGIC);
        put_u16(&mut page, 8, VERSION);
        put_u16(&mut page, 10, HEADER_LEN);
        put_u128(&mut page, 16, identity.cluster_id.0);
        put_u64(&mut page, 32, identity.node.get());
        put_u64(&mut page, 40, u64::from(self.seq));
        put_u64(&mut page, 48, self.salt);
        put_u64(&mut page, 56, u64::from(self.file_len));
        put_u64(&mut page, 64, u64::from(DATA_START));
        put_u32(&mut page, 72, PAGE);
        put_u64(&mut page, 80, self.created_unix_ms);
        let crc = crc::crc32(&[&page[..CRC_AT]]);
        put_u32(&mut page, CRC_AT, crc);
        let copy = page.clone();
        page.extend_from_slice(&copy);
        page
    }

    /// Reads one header page of segment `seq`.
    pub(super) fn decode(page: &[u8], identity: &Identity, seq: u32) -> HeaderPage {
        if page.len() < PAGE_BYTES || &page[..8] != MAGIC {
            return HeaderPage::Invalid;
        }
        if get_u32(page, CRC_AT) != crc::crc32(&[&page[..CRC_AT]]) {
            return HeaderPage::Invalid;
        }
        let version = get_u16(page, 8);
        // Flag bits 16..32 change what follows; 0..16 may be ignored. Storage §6.10.
        if version != VERSION || get_u32(page, 12) >> 16 != 0 {
            return HeaderPage::Newer(version);
        }
        let ours = get_u128(page, 16) == identity.cluster_id.0
            && get_u64(page, 32) == identity.node.get()
            && get_u64(page, 40) == u64::from(seq);
        let Some(file_len) = u32::try_from(get_u64(page, 56)).ok().filter(|_| ours) else {
            return HeaderPage::Foreign;
        };
        HeaderPage::Valid(SegmentHeader {
            seq,
            salt: get_u64(page, 48),
            file_len,
            created_unix_ms: get_u64(page, 80),
        })
    }
}

/// A segment in use.
pub(super) struct Segment {
    /// Its sequence number.
    pub(super) seq: u32,
    /// Seeds the CRC of every record header in it.
    pub(super) salt: u64,
    /// Bytes.
    pub(super) file_len: u32,
    /// For the sync thread.
    pub(super) file: Arc<dyn DiskFile>,
    /// For the loop.
    pub(super) map: Box<dyn Region>,
}

/// How far the segment that is written to is filled, with what is staged.
#[derive(Debug)]
pub(super) struct Fill {
    /// Where the next record goes.
    pub(super) end: u32,
    /// What its footer will say.
    pub(super) rows: Rows,
}

/// The FOOTER of a segment as it grows: room for its header, and a row for each record. A large
/// segment has hundreds of thousands: to write them all once it is full took a turn of several
/// milliseconds.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Nothing at all before the first row.
    record: Vec<u8>,
}

impl Rows {
    /// Those of a segment that was found.
    pub(super) fn of(found: &[FooterRow]) -> Rows {
        let mut rows = Rows::default();
        found.iter().for_each(|row| rows.push(row));
        rows
    }

    pub(super) fn push(&mut self, row: &FooterRow) {
        self.keep_header();
        row.encode(&mut self.record);
    }

    pub(super) fn count(&self) -> u32 {
        u32_of(self.record.len()).saturating_sub(HEADER_BYTES) / ROW_BYTES
    }

    /// The record, without a header yet; nothing is left.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.keep_header();
        std::mem::take(&mut self.record)
    }

    fn keep_header(&mut self) {
        if self.record.is_empty() {
            self.record.resize(usize_of(HEADER_BYTES), 0);
        }
    }
}

impl Fill {
    /// Of a segment without a record.
    pub(super) fn empty() -> Fill {
        Fill { end: DATA_START, rows: Rows::default() }
    }

    /// Whether a record fits, with room left to pad its batch and to close the segment.
    pub(super) fn takes(&self, file_len: u32, payload_len: u32) -> bool {
        let rows = self.rows.count() + 1;
        let batch_end = page_up(self.end + extent(payload_len));
        let footer_end = page_up(batch_end + HEADER_BYTES + rows * ROW_BYTES);
        footer_end + PAGE <= file_len
    }

    /// A bound on the payloads that fit, each with `OVERHEAD_BYTES`. Bytes.
    pub(super) fn room(&self, file_len: u32) -> u32 {
        // One page each for the padding of the batch, of the footer, and the trailer; a TRUNC; a
        // margin of one record for what rounding takes.
        let reserved = 3 * PAGE
            + HEADER_BYTES
            + self.rows.count() * ROW_BYTES
            + OVERHEAD_BYTES
            + OVERHEAD_BYTES;
        file_len.saturating_sub(self.end).saturating_sub(reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterId, DiskId, EntryKind, LogPosition, NodeId};
    use crate::wal::record::RecordKind;

    /// A file that was copied from elsewhere is as sound as ours are.
    #[test]
    fn a_header_is_ours_if_cluster_server_and_number_are() {
        let node = |id| NodeId::new(id).unwrap();
        let ours = Identity {
            cluster_id: ClusterId(7),
            token_hash: 1,
            node: node(3),
            disk_id: DiskId(5),
            created_unix_ms: 0,
        };
        let header = SegmentHeader { seq: 9, salt: 1, file_len: 65_536, created_unix_ms: 2 };
        let page = header.encode(&ours);
        let is_ours = |identity: &Identity, seq| match SegmentHeader::decode(&page, identity, seq) {
            HeaderPage::Valid(found) => found == header,
            HeaderPage::Foreign => false,
            HeaderPage::Newer(_) | HeaderPage::Invalid => panic!("it is sound"),
        };
        assert!(is_ours(&ours, 9));
        assert!(!is_ours(&Identity { cluster_id: ClusterId(8), ..ours }, 9));
        assert!(!is_ours(&Identity { node: node(4), ..ours }, 9));
        assert!(!is_ours(&ours, 8), "the name says another number");
    }

    #[test]
    fn what_room_promises_fits() {
        for file_len in [64 * 1024, 256 * 1024] {
            for payload in [0, 1, 63, 64, 65, 1000, 4095, 10_000] {
                let mut fill = Fill::empty();
                let mut promised = fill.room(file_len);
                while promised >= payload + OVERHEAD_BYTES {
                    assert!(fill.takes(file_len, payload), "{file_len} {payload} {promised}");
                    promised -= payload + OVERHEAD_BYTES;
                    fill.rows.push(&FooterRow {
                        position: LogPosition::ZERO,
                        offset: fill.end,
                        payload_len: payload,
                        payload_crc: 0,
                        kind: RecordKind::Entry(EntryKind::Commands),
                    });
                    fill.end += extent(payload);
                }
                assert!(fill.takes(file_len, 0), "a TRUNC still fits");
            }
        }
    }
}
