//! A snapshot's file, open for reading, and read from end to end.

use super::disk::{Disk, DiskFile};
use super::error::OpenError;
use super::snapshot_file::{Block, BlockReader, SnapshotDamage, snapshot_name, stated_crc};
use super::snapshot_scan::SCAN_BYTES;
use crate::types::SnapshotId;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A snapshot's file, open for reading: removing it does not take it away.
#[derive(Clone)]
pub struct SnapshotSource {
    /// Which one it is.
    pub id: SnapshotId,
    pub(super) file: Arc<dyn DiskFile>,
    path: PathBuf,
}

impl std::fmt::Debug for SnapshotSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SnapshotSource {{ id: {} }}", self.id)
    }
}

impl PartialEq for SnapshotSource {
    fn eq(&self, other: &SnapshotSource) -> bool {
        self.id == other.id
    }
}

impl Eq for SnapshotSource {}

/// What the gateway sends to etcd's clients goes on with zeros to a multiple of this, and a SHA-256
/// of all before it. Bytes.
const PADDED_BYTES: u64 = 512;
const SHA256_BYTES: u64 = 32;

/// Where a file of `length` bytes ends, and the checksum that it states there.
fn find_end(file: &dyn DiskFile, length: u64) -> io::Result<Option<(u64, u32)>> {
    let most = if length % PADDED_BYTES == SHA256_BYTES { PADDED_BYTES } else { 0 };
    let ends = (0..most).filter_map(|zeros| length.checked_sub(SHA256_BYTES + zeros));
    for end in std::iter::once(length).chain(ends) {
        if let Some(crc) = stated_crc(file, end)? {
            return Ok(Some((end, crc)));
        }
    }
    Ok(None)
}

impl SnapshotSource {
    pub(super) fn new(disk: &dyn Disk, id: SnapshotId, file: Arc<dyn DiskFile>) -> SnapshotSource {
        SnapshotSource { id, file, path: disk.path(&snapshot_name(id)) }
    }

    /// A file of any name, which says itself what it is, as `raftctl` saves it or as etcd's clients
    /// do. Only its first and its last block are looked at; `read` checks it.
    pub fn of_file(disk: &dyn Disk, name: &str) -> Result<SnapshotSource, OpenError> {
        let file = disk.open(name).map_err(OpenError::io(disk, "open", name))?;
        let bytes = file.len().map_err(OpenError::io(disk, "look at", name))?;
        let io = |doing| OpenError::io(disk, doing, name);
        let begin = file.read_durable(0, SCAN_BYTES).map_err(io("read"))?;
        let mut reader = BlockReader::new();
        reader.push(&begin);
        let damaged = |what, at| {
            let damage = SnapshotDamage::of(what).at(at);
            OpenError::SnapshotDamaged { path: disk.path(name), damage }
        };
        let position = match reader.next() {
            Ok(Some(Block::Head(head))) => head.position,
            Ok(Some(Block::Data(_) | Block::End { .. }) | None) => {
                return Err(damaged("its first block is not a head", 0));
            }
            Err(damage) => {
                let (path, damage) = (disk.path(name), damage.at(0));
                return Err(OpenError::SnapshotDamaged { path, damage });
            }
        };
        let end = find_end(&*file, bytes).map_err(io("read"))?;
        let Some((bytes, crc)) = end else {
            return Err(damaged(
                "it has no end: it was cut short, or its last bytes are not its own",
                bytes,
            ));
        };
        let id = SnapshotId { position, bytes, crc };
        Ok(SnapshotSource { id, file, path: disk.path(name) })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The error that says what is wrong with it.
    pub fn damaged(&self, damage: SnapshotDamage) -> OpenError {
        OpenError::SnapshotDamaged { path: self.path.clone(), damage }
    }

    /// The error that says that it cannot be read.
    pub fn unreadable(&self, source: io::Error) -> OpenError {
        OpenError::Io { doing: "read", path: self.path.clone(), source }
    }

    /// Hands every block to `visit`, in order; checks all of them, and says where the first one is
    /// that is damaged. Blocks: for the start.
    pub fn read(
        &self,
        visit: &mut dyn FnMut(Block) -> Result<(), SnapshotDamage>,
    ) -> io::Result<Result<(), SnapshotDamage>> {
        let mut reader = BlockReader::new();
        let mut at = 0;
        while at < self.id.bytes {
            let mut bytes = self.file.read_durable(at, SCAN_BYTES)?;
            // What follows the end is for others.
            bytes.truncate(usize::try_from(self.id.bytes - at).unwrap_or(SCAN_BYTES));
            if bytes.is_empty() {
                break;
            }
            reader.push(&bytes);
            at += u64::try_from(bytes.len()).expect("usize is at most 64 bits");
            loop {
                let block_at = reader.bytes();
                let visited = match reader.next() {
                    Ok(None) => break,
                    Err(damage) => Err(damage),
                    Ok(Some(block)) => self.check(&block).and_then(|()| visit(block)),
                };
                if let Err(damage) = visited {
                    return Ok(Err(damage.at(block_at)));
                }
            }
        }
        let early = || SnapshotDamage::of("it ends too early").at(reader.bytes());
        if reader.ended() { Ok(Ok(())) } else { Ok(Err(early())) }
    }

    fn check(&self, block: &Block) -> Result<(), SnapshotDamage> {
        match block {
            Block::Head(head) if head.position != self.id.position => {
                Err(SnapshotDamage::of("it stands for another entry than its name says"))
            }
            Block::End { bytes, crc } if (*bytes, *crc) != (self.id.bytes, self.id.crc) => {
                Err(SnapshotDamage::of("it is not the file that was put in force"))
            }
            Block::Head(_) | Block::Data(_) | Block::End { .. } => Ok(()),
        }
    }
}
