//! What the log needs of a disk. Two implementations: the operating system (`os_disk.rs`) and, in
//! the tests, a simulated one that loses, tears and reorders what was not synced.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A directory of files. Names are relative to it, with `/` before the last part.
pub trait Disk: Send + Sync {
    /// Makes a file that must not exist yet. It is there after a crash only once `sync_directory`
    /// returned.
    fn create_new(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing. `NotFound` if it is not there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// The names in a directory (`""`: this one), in any order. `NotFound` if it is not there.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;
    /// Makes a directory, or finds it made.
    fn create_directory(&self, name: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes creations, removals and renames in a directory durable.
    fn sync_directory(&self, name: &str) -> io::Result<()>;
    /// How people call this file.
    fn path(&self, name: &str) -> PathBuf;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes`. Durable only after `sync`, and until then page by page in any order.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written before durable, the file's length included. After an error nothing
    /// is known, and a second call may lie: the caller must stop. Storage §2.1.
    fn sync(&self) -> io::Result<()>;
    /// Reads from the medium, not from memory. Shorter than asked at the end of the file.
    fn read_durable(&self, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// The file's length. Bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Sets the length and reserves the space, so that a full disk shows here and not later.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// A read-only view of the whole file, which must keep its length.
    fn map(&self) -> io::Result<Box<dyn Region>>;
}

/// A read-only view of a file.
pub trait Region: Send + Sync {
    /// Appends `len` bytes from `offset` to `out`. They must have been synced. Panics beyond the
    /// end.
    fn copy_to(&self, offset: u64, len: usize, out: &mut Vec<u8>);
}
