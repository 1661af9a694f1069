//! IDENTITY: whose directory this is. One page, written last of all when a directory is made, never
//! changed.
//!
//! ```text
//!  0  8 magic "RAFTDIDN"   8 2 version 1   10 6 zero
//! 16 16 cluster_id        32 8 token_hash  40 8 node
//! 48 16 disk_id           64 8 created, Unix ms   ...zero...   4092 4 crc32 of bytes 0..4092
//! ```
//!
//! All numbers are little-endian, the two ids of 16 bytes as well (storage §6.3). In messages and
//! log entries, where they are strings of bytes, ids are big-endian: as people write them.
//!
//! It is written to IDENTITY.tmp, synced, renamed, and the directory synced: a crash leaves no
//! IDENTITY or a whole one. A directory with files of ours and no IDENTITY was never finished, or
//! has lost it.

use super::disk::{Disk, DiskFile};
use super::error::OpenError;
use super::record::{get_u16, get_u32, get_u64, get_u128, put_u16, put_u32, put_u64, put_u128};
use crate::codec::crc;
use crate::limits::PAGE_BYTES;
use crate::types::{ClusterId, DiskId, NodeId};
use std::io;

const MAGIC: &[u8; 8] = b"RAFTDIDN";
const VERSION: u16 = 1;
const CRC_AT: usize = PAGE_BYTES - 4;
/// The file's name.
pub(super) const NAME: &str = "IDENTITY";
/// Its name while it is written.
pub(super) const NAME_UNFINISHED: &str = "IDENTITY.tmp";

/// Whose directory this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Hash of the cluster's token: a node started with another token does not touch the directory.
    pub token_hash: u64,
    /// The server.
    pub node: NodeId,
    /// The directory itself.
    pub disk_id: DiskId,
    /// When it was made. Unix milliseconds; for people.
    pub created_unix_ms: u64,
}

impl Identity {
    fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        page[..8].copy_from_slice(MAGIC);
        put_u16(&mut page, 8, VERSION);
        put_u128(&mut page, 16, self.cluster_id.0);
        put_u64(&mut page, 32, self.token_hash);
        put_u64(&mut page, 40, self.node.get());
        put_u128(&mut page, 48, self.disk_id.0);
        put_u64(&mut page, 64, self.created_unix_ms);
        let crc = crc::crc32(&[&page[..CRC_AT]]);
        put_u32(&mut page, CRC_AT, crc);
        page
    }

    fn decode(disk: &dyn Disk, page: &[u8]) -> Result<Identity, OpenError> {
        let damaged = || OpenError::IdentityDamaged { path: disk.path(NAME) };
        let whole = page.len() == PAGE_BYTES
            && &page[..8] == MAGIC
            && get_u32(page, CRC_AT) == crc::crc32(&[&page[..CRC_AT]]);
        if !whole {
            return Err(damaged());
        }
        let version = get_u16(page, 8);
        if version != VERSION {
            return Err(OpenError::Version {
                path: disk.path(NAME),
                found: version,
                known: VERSION,
            });
        }
        Ok(Identity {
            cluster_id: ClusterId(get_u128(page, 16)),
            token_hash: get_u64(page, 32),
            node: NodeId::new(get_u64(page, 40)).ok_or_else(damaged)?,
            disk_id: DiskId(get_u128(page, 48)),
            created_unix_ms: get_u64(page, 64),
        })
    }

    /// Writes the file and everything above it in the directory for good.
    pub(super) fn write(&self, disk: &dyn Disk) -> Result<(), OpenError> {
        let io = |doing, name| OpenError::io(disk, doing, name);
        let file = disk.create_new(NAME_UNFINISHED).map_err(io("create", NAME_UNFINISHED))?;
        file.write_at(0, &self.encode()).map_err(io("write", NAME_UNFINISHED))?;
        file.sync().map_err(io("sync", NAME_UNFINISHED))?;
        disk.rename(NAME_UNFINISHED, NAME).map_err(io("rename", NAME_UNFINISHED))?;
        disk.sync_directory("").map_err(io("sync", ""))
    }

    /// Reads the file; `None` if there is none.
    pub(super) fn read(disk: &dyn Disk) -> Result<Option<Identity>, OpenError> {
        let file = match disk.open(NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::io(disk, "open", NAME)(error)),
        };
        let page = read_page(&*file).map_err(OpenError::io(disk, "read", NAME))?;
        Identity::decode(disk, &page).map(Some)
    }
}

fn read_page(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    file.read_durable(0, PAGE_BYTES)
}
