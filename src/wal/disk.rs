//! The seam where the disk is: what the log needs of one. The operating system is one
//! implementation
//! (`os_disk`), a simulated one that loses, tears and reorders un-synced pages is another
//! (tests/wal).
//!
//! Names are relative to the data directory; `/` separates the one level of folders.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// A data directory.
pub trait Disk: Send + Sync + Debug {
    /// The names in a folder (`""` is the directory itself), unordered; empty if there is no such
    /// folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Makes a folder unless it exists, durably.
    fn create_folder(&self, folder: &str) -> io::Result<()>;
    /// Makes a file; fails if the name is taken. Not durable before `sync_folder`.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a name. Not durable before `sync_folder`.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Renames over whatever has the new name. Not durable before `sync_folder`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes creations, removals and renames in a folder durable.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send + Sync + Debug {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written durable, the size included. fdatasync.
    fn sync(&self) -> io::Result<()>;
    /// Reads all of the file from the medium, not from what a cache believes after a failed sync.
    fn read_durable(&self) -> io::Result<Vec<u8>>;
    /// Reserves room for `len` bytes, or fails with ENOSPC now rather than later.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// A read-only map of the first `len` bytes.
    fn map(&self, len: u64) -> io::Result<Box<dyn Region>>;
}

/// A read-only map of a file. Only synced bytes, which never change again, are read through it.
pub trait Region: Send + Sync + Debug {
    /// Appends `len` bytes from `offset` on to `out`. Panics beyond the end.
    fn copy_to(&self, offset: u32, len: u32, out: &mut Vec<u8>);
}
