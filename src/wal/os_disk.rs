//! The operating system's disk. The only `unsafe` of raftd stands here.

use super::disk::{Disk, DiskFile, Region};
use crate::limits::PAGE_BYTES;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes read at once from the medium: large enough for the device, small enough for any machine.
const READ_BYTES: usize = 1024 * 1024;

/// A directory of the file system, locked for the life of the process.
#[derive(Debug)]
pub struct OsDisk {
    root: PathBuf,
    /// Holds the lock until it is dropped.
    _lock: File,
}

/// Why a directory cannot be taken.
#[derive(Debug)]
pub enum TakeError {
    /// Another process has it.
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The system refused.
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TakeError::InUse { path } => write!(
                f,
                "the data directory {} is in use by another raftd: stop it, or give this one its \
                own \
                 --data-dir",
                path.display()
            ),
            TakeError::Io { doing, path, source } => {
                write!(f, "cannot {doing} {}: {source}; check --data-dir", path.display())
            }
        }
    }
}

impl std::error::Error for TakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TakeError::InUse { .. } => None,
            TakeError::Io { source, .. } => Some(source),
        }
    }
}

impl OsDisk {
    /// Takes the directory, which is made if there is none.
    pub fn open(root: &Path) -> Result<OsDisk, TakeError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| TakeError::Io { doing, path, source }
        };
        fs::create_dir_all(root).map_err(failed("create the data directory", root))?;
        let path = root.join("LOCK");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed("open the lock", &path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(OsDisk { root: root.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(TakeError::InUse { path: root.to_owned() }),
            Err(error) => Err(failed("lock", &path)(error.into())),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Disk for OsDisk {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
        };
        entries.map(name).collect()
    }

    fn create_folder(&self, folder: &str) -> io::Result<()> {
        fs::create_dir_all(self.path(folder))?;
        self.sync_folder("")
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(Arc::new(OsFile { file, path }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(name);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Arc::new(OsFile { file, path }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        File::open(self.path(folder))?.sync_all()
    }
}

#[derive(Debug)]
struct OsFile {
    file: File,
    path: PathBuf,
}

impl DiskFile for OsFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn read_durable(&self) -> io::Result<Vec<u8>> {
        // What the cache holds and the medium does not is written or reported now.
        self.sync()?;
        let len = usize::try_from(self.file.metadata()?.len()).map_err(io::Error::other)?;
        let direct = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
        match OpenOptions::new().read(true).custom_flags(direct).open(&self.path) {
            Ok(file) => read_all(&file, len),
            Err(_) => {
                // tmpfs knows no O_DIRECT and has no medium; elsewhere the cache is dropped first.
                rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)?;
                read_all(&self.file, len)
            }
        }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len)?)
    }

    fn map(&self, len: u64) -> io::Result<Box<dyn Region>> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let map = MmapOptions::new().len(len).map_raw_read_only(&self.file)?;
        Ok(Box::new(OsRegion { map }))
    }
}

/// Reads `len` bytes through an aligned buffer, as O_DIRECT demands.
fn read_all(file: &File, len: usize) -> io::Result<Vec<u8>> {
    let mut space = vec![0; READ_BYTES + PAGE_BYTES];
    let align = space.as_ptr().align_offset(PAGE_BYTES);
    let buffer = &mut space[align..align + READ_BYTES];
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let offset = u64::try_from(bytes.len()).map_err(io::Error::other)?;
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes.extend_from_slice(&buffer[..count.min(len - bytes.len())]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[derive(Debug)]
struct OsRegion {
    map: MmapRaw,
}

impl Region for OsRegion {
    #[expect(unsafe_code, reason = "a memory-mapped log is read through a pointer")]
    fn copy_to(&self, offset: u32, len: u32, out: &mut Vec<u8>) {
        let offset = usize::try_from(offset).expect("u32 fits usize wherever raftd runs");
        let len = usize::try_from(len).expect("u32 fits usize wherever raftd runs");
        let end = offset.checked_add(len).expect("segments are smaller than the address space");
        assert!(
            end <= self.map.len(),
            "read of {offset}..{end} beyond a map of {}",
            self.map.len()
        );
        // SAFETY: offset..end lies inside the map, which lives as long as `self`. The file is
        // neither cut nor
        // written in this range while mapped: segments have a fixed size, are removed only by
        // name, and the
        // log reads only synced ranges, which are never written again (invariant I1 of `wal`). The
        // data
        // directory is locked against other raftd processes. The slice does not outlive this call.
        let bytes = unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(offset), len) };
        out.extend_from_slice(bytes);
    }
}
