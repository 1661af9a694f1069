//! The disk of the operating system, and the only `unsafe` of raftd: copying out of a read-only
//! map, and letting go of its pages.
//!
//! Segments are read through maps and written with `pwrite`; stores through a map cost twice the
//! sync and stall the loop. Recovery reads past the page cache (O_DIRECT), because after a failed
//! sync the cache shows what the medium does not have.

use super::disk::{Disk, DiskFile, Region};
use super::error::OpenError;
use super::file_system::FileSystem;
use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};
use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Alignment that O_DIRECT asks for at most: the page.
const DIRECT_ALIGN: usize = 4096;
/// Held by flock(2) while a process has the directory open.
pub(super) const LOCK: &str = "LOCK";
/// Read at once during recovery. Bytes.
const READ_BYTES: usize = 1024 * 1024;
/// Read through a map before its pages are let go of. Bytes.
const TOUCHED_BYTES_MAX: usize = 1024 * 1024;

/// A data directory, locked for the life of the value.
#[derive(Debug)]
pub struct OsDisk {
    root: PathBuf,
    file_system: FileSystem,
    lock: File,
}

impl OsDisk {
    /// Makes the directory if it is missing, and locks it.
    pub fn open(root: &Path) -> Result<OsDisk, OpenError> {
        let failed = |doing, path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenError::Io { doing, path, source }
        };
        let missing: Vec<&Path> = root.ancestors().take_while(|path| !path.exists()).collect();
        std::fs::create_dir_all(root).map_err(failed("create", root))?;
        // A directory is there after a power loss only when its parent was synced.
        for path in missing.into_iter().chain([root]) {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let synced = File::open(parent).and_then(|parent| parent.sync_all());
            synced.map_err(failed("sync", parent))?;
        }
        refuse_foreign(root)?;
        let file_system = FileSystem::of(root).map_err(failed("look at", root))?;
        if let FileSystem::Network(name) = file_system {
            return Err(OpenError::NetworkFileSystem { path: root.to_path_buf(), name });
        }
        let path = root.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(OsDisk { root: root.to_path_buf(), file_system, lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse { path }),
            Err(error) => Err(failed("lock", &path)(error.into())),
        }
    }

    /// What an operator should know of the file system, for the log.
    pub fn file_system_warning(&self) -> Option<&'static str> {
        self.file_system.warning()
    }

    fn file(&self, name: &str, options: &mut OpenOptions) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.root.join(name);
        let file = options.read(true).write(true).open(&path)?;
        Ok(Arc::new(OsFile { file, path }))
    }
}

impl Drop for OsDisk {
    /// Closing the file would do, if no child process had it open too, between its fork and its
    /// exec.
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(&self.lock, FlockOperation::Unlock) {
            log::warn!("cannot unlock a data directory error={error}");
        }
    }
}

/// A directory of others, as a mistyped `--data-dir` names it, is left as it is: no lock file
/// either. What is ours has had a LOCK from its first moment, or an IDENTITY if it is a copy.
fn refuse_foreign(root: &Path) -> Result<(), OpenError> {
    if root.join(LOCK).exists() || root.join("IDENTITY").exists() {
        return Ok(());
    }
    let list = |source| OpenError::Io { doing: "list", path: root.to_path_buf(), source };
    for entry in std::fs::read_dir(root).map_err(list)? {
        if entry.map_err(list)?.file_name() != "lost+found" {
            return Err(OpenError::NotADataDirectory { path: root.to_path_buf() });
        }
    }
    Ok(())
}

impl Disk for OsDisk {
    fn create_new(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.file(name, OpenOptions::new().create_new(true))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.file(name, &mut OpenOptions::new())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        list(&self.root.join(directory))
    }

    fn create_directory(&self, name: &str) -> io::Result<()> {
        std::fs::create_dir_all(self.root.join(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.root.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.root.join(from), self.root.join(to))
    }

    fn sync_directory(&self, name: &str) -> io::Result<()> {
        File::open(self.root.join(name))?.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.root.clone() } else { self.root.join(name) }
    }
}

/// The names in a directory.
pub(super) fn list(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// An open file, and its name to open it again.
#[derive(Debug)]
pub(super) struct OsFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl DiskFile for OsFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn read_durable(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        match self.read_direct(offset, len) {
            // tmpfs and some network file systems have no O_DIRECT, or another alignment; a file
            // that was removed while it is open can be read, but not opened again.
            Err(error) if no_direct_io(&error) => {
                rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)?;
                read(&self.file, offset, len)
            }
            result => result,
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            // The zeros that follow take the space then, and show a full disk as well.
            Err(rustix::io::Errno::OPNOTSUPP) => self.file.set_len(len),
            result => Ok(result?),
        }
    }

    fn map(&self) -> io::Result<Box<dyn Region>> {
        let map = MmapOptions::new().map_raw_read_only(&self.file)?;
        Ok(Box::new(OsRegion { map, touched: AtomicUsize::new(0) }))
    }
}

impl OsFile {
    fn read_direct(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let flags = i32::try_from(OFlags::DIRECT.bits()).expect("O_DIRECT is a bit of an int");
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&self.path)?;
        read(&file, offset, len)
    }
}

fn no_direct_io(error: &io::Error) -> bool {
    let invalid = rustix::io::Errno::INVAL.raw_os_error();
    error.raw_os_error() == Some(invalid) || error.kind() == io::ErrorKind::NotFound
}

/// Reads through an aligned buffer, as O_DIRECT wants it.
fn read(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut room = vec![0; READ_BYTES + DIRECT_ALIGN];
    let start = room.as_ptr().align_offset(DIRECT_ALIGN);
    let buffer = &mut room[start..start + READ_BYTES];
    let mut bytes = Vec::with_capacity(len);
    let mut at = offset;
    while bytes.len() < len {
        let wanted = (len - bytes.len()).next_multiple_of(DIRECT_ALIGN).min(READ_BYTES);
        let count = match file.read_at(&mut buffer[..wanted], at) {
            Ok(0) => break,
            Ok(count) => count.min(len - bytes.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        bytes.extend_from_slice(&buffer[..count]);
        at += u64::try_from(count).expect("usize is at most 64 bits");
    }
    Ok(bytes)
}

struct OsRegion {
    map: MmapRaw,
    /// Copied out since its pages were last let go of. Bytes.
    touched: AtomicUsize,
}

impl OsRegion {
    /// Pages read through a map count as our memory until somebody needs them: a server that sends
    /// old entries would seem to hold its whole log.
    #[expect(unsafe_code, reason = "letting go of pages, of private ones too, has no safe call")]
    fn note_touched(&self, len: usize) {
        if self.touched.fetch_add(len, Ordering::Relaxed) + len < TOUCHED_BYTES_MAX {
            return;
        }
        self.touched.store(0, Ordering::Relaxed);
        // SAFETY: the map is shared and read-only, so nothing in it differs from the file, and the
        // next access finds the same bytes there.
        let advised = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
        // Without it the kernel lets go of them when it wants to.
        let _counted_on = advised;
    }
}

impl Region for OsRegion {
    #[expect(unsafe_code, reason = "a map has no safe reader; this is the only one")]
    fn copy_to(&self, offset: u64, len: usize, out: &mut Vec<u8>) {
        let offset = usize::try_from(offset).expect("usize is 64 bits");
        let end = offset.checked_add(len).expect("a range of a file does not overflow");
        assert!(end <= self.map.len(), "bytes {offset}..{end} of a map of {}", self.map.len());
        out.reserve(len);
        // SAFETY: the source lies within the map, checked above, and stays mapped while `self`
        // lives. The file is never shortened (the directory is locked, segments keep their length),
        // so no page of it goes away. The target has `len` bytes of spare capacity and is
        // initialised by the copy before `set_len` exposes it. Nobody writes the source meanwhile:
        // callers ask only for synced ranges, which are never written again, and no reference to
        // the mapped bytes is ever formed.
        unsafe {
            let from = self.map.as_ptr().add(offset);
            let to = out.as_mut_ptr().add(out.len());
            std::ptr::copy_nonoverlapping(from, to, len);
            out.set_len(out.len() + len);
        }
        self.note_touched(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No file of /proc has space taken for it, as on some file systems no file has.
    #[test]
    fn a_file_gets_its_length_where_no_space_can_be_taken_beforehand() {
        let path = PathBuf::from("/proc/self/comm");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let refused = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 4096);
        assert_eq!(refused, Err(rustix::io::Errno::OPNOTSUPP), "another file is needed here");
        OsFile { file, path }.allocate(4096).unwrap();
    }
}
