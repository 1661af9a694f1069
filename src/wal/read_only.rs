//! A data directory that is read and never written: for whoever looks at it while no server runs.
//!
//! **Why no lock is held.** A lock would keep a supervisor from restarting the server meanwhile,
//! because somebody looks at its log. So the lock is only tried, before and after: what was read
//! while a server was started is not shown.

use super::disk::{Disk, DiskFile};
use super::error::OpenError;
use super::os_disk::{LOCK, OsFile};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory for reading. Whatever would change it fails.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    root: PathBuf,
}

impl ReadOnlyDisk {
    /// A directory of any files.
    pub fn new(root: &Path) -> ReadOnlyDisk {
        ReadOnlyDisk { root: root.to_path_buf() }
    }

    /// Refuses a directory that a server has open. It may be opened right afterwards: ask again
    /// when everything is read.
    pub fn refuse_if_in_use(&self) -> Result<(), OpenError> {
        let path = self.root.join(LOCK);
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            // A copy has none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(OpenError::Io { doing: "open", path, source }),
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(()), // and let go at once
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse { path }),
            Err(error) => Err(OpenError::Io { doing: "lock", path, source: error.into() }),
        }
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnlyDisk {
    fn create_new(&self, _name: &str) -> io::Result<Arc<dyn DiskFile>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.root.join(name);
        let file = OsFile { file: File::open(&path)?, path };
        Ok(Arc::new(ReadOnlyFile(file)))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        super::os_disk::list(&self.root.join(directory))
    }

    fn create_directory(&self, _name: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        refused()
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        refused()
    }

    fn sync_directory(&self, _name: &str) -> io::Result<()> {
        refused()
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.root.clone() } else { self.root.join(name) }
    }
}

struct ReadOnlyFile(OsFile);

impl DiskFile for ReadOnlyFile {
    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        refused()
    }

    /// Nothing to do: nothing was written.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn read_durable(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.0.read_durable(offset, len)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        refused()
    }

    fn map(&self) -> io::Result<Box<dyn super::Region>> {
        self.0.map()
    }
}
