//! IDENTITY: which data directory this is. Written last when a directory is made, never changed.
//!
//! ```text
//!  0  8 magic "RAFTDID1"      8 2 format version = 1     16 16 cluster_id    32 8 node
//! 40 16 disk_id              56 8 token_hash             64 8 created, ms since 1970
//! 72  8 segment_bytes        … zero …                    4092 4 crc32 of bytes 0..4092
//! ```

use super::record::{u16_at, u32_at, u64_at, u128_at};
use crate::limits::PAGE_BYTES;
use crate::types::{ClusterId, DiskId, NodeId};

const MAGIC: &[u8; 8] = b"RAFTDID1";
const VERSION: u16 = 1;
const CRC_AT: usize = PAGE_BYTES - 4;

/// Whose data directory it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The server.
    pub node: NodeId,
    /// The directory itself.
    pub disk_id: DiskId,
    /// A hash of the cluster token; 0 if none was given.
    pub token_hash: u64,
    /// When it was made. Milliseconds since 1970.
    pub created_unix_ms: u64,
    /// The size of its segments. Bytes.
    pub segment_bytes: u64,
}

impl Identity {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        page[0..8].copy_from_slice(MAGIC);
        page[8..10].copy_from_slice(&VERSION.to_le_bytes());
        page[16..32].copy_from_slice(&self.cluster_id.0.to_le_bytes());
        page[32..40].copy_from_slice(&self.node.get().to_le_bytes());
        page[40..56].copy_from_slice(&self.disk_id.0.to_le_bytes());
        page[56..64].copy_from_slice(&self.token_hash.to_le_bytes());
        page[64..72].copy_from_slice(&self.created_unix_ms.to_le_bytes());
        page[72..80].copy_from_slice(&self.segment_bytes.to_le_bytes());
        let crc = crc32fast::hash(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// `None` if the bytes are not an identity of a version we know.
    pub(super) fn decode(page: &[u8]) -> Option<Identity> {
        if page.len() != PAGE_BYTES || &page[0..8] != MAGIC || u16_at(page, 8) != VERSION {
            return None;
        }
        if u32_at(page, CRC_AT) != crc32fast::hash(&page[..CRC_AT]) {
            return None;
        }
        Some(Identity {
            cluster_id: ClusterId(u128_at(page, 16)),
            node: NodeId::new(u64_at(page, 32))?,
            disk_id: DiskId(u128_at(page, 40)),
            token_hash: u64_at(page, 56),
            created_unix_ms: u64_at(page, 64),
            segment_bytes: u64_at(page, 72),
        })
    }
}
