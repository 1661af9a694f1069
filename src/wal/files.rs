//! Work on files beside the log, for the `bg` thread, as data: a few disk operations in a row, and
//! what they are for. Snapshots are written, checked, received and sent by it, and what is no
//! longer needed is removed. Checksums are taken there too, and files taken apart: what it needs to
//! know for that goes with a step, and comes back with the outcome.

use super::disk::{Disk, DiskFile};
use super::snapshot_draft::{Framer, Unframed};
use super::snapshot_file::SnapshotCheck;
use super::snapshot_scan::Scan;
use std::any::Any;
use std::io;
use std::sync::Arc;

/// One disk operation. Those without a name work on the file that was opened last.
pub(super) enum FileStep {
    /// Makes a directory, or finds it made.
    CreateDirectory(&'static str),
    /// Makes a file that must not be there.
    Create(String),
    /// Opens a file, or makes it.
    OpenOrCreate(String),
    /// Opens a file that is there.
    Open(String),
    /// Writes at an offset.
    Write(u64, Vec<u8>),
    /// Makes a block of a snapshot and writes it behind those before.
    WriteBlock(Box<Framer>, Unframed),
    /// Makes what was written durable.
    Sync,
    /// Reads from the medium: offset and length.
    Read(u64, usize),
    /// Looks at what was read before it is given away.
    Check(Box<SnapshotCheck>),
    /// Reads on in a snapshot, and checks what was read.
    Scan(Box<Scan>),
    /// Asks for the length.
    Length,
    /// Gives a file another name.
    Rename(String, String),
    /// Removes a file, if it is there.
    Remove(String),
    /// Makes creations, removals and renames in a directory durable.
    SyncDirectory(&'static str),
}

/// Who asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The snapshot that is being written.
    Draft,
    /// The snapshot that is being received.
    Part,
    /// A piece for another server.
    Piece,
    /// A piece for a client.
    Reading,
    /// What nobody needs any more.
    Removal,
}

/// What takes a while to free.
pub(super) type Garbage = Vec<Box<dyn Any + Send>>;

/// Operations for one purpose.
pub(super) struct FileJob {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) purpose: Purpose,
    pub(super) file: Option<Arc<dyn DiskFile>>,
    pub(super) steps: Vec<FileStep>,
    /// Freed where the job runs: unmapping a segment or dropping a store takes a while.
    pub(super) garbage: Garbage,
}

/// What came of a `FileJob`.
pub(super) struct FileDone {
    pub(super) purpose: Purpose,
    pub(super) outcome: io::Result<FileOutcome>,
}

/// What its operations brought.
#[derive(Default)]
pub(super) struct FileOutcome {
    pub(super) file: Option<Arc<dyn DiskFile>>,
    pub(super) bytes: Vec<u8>,
    pub(super) length: u64,
    pub(super) framer: Option<Box<Framer>>,
    /// What a block came in, emptied.
    pub(super) buffer: Option<Vec<u8>>,
    pub(super) scan: Option<Box<Scan>>,
    pub(super) check: Option<Box<SnapshotCheck>>,
}

impl FileJob {
    /// Does the steps in order, up to the first that fails.
    pub(super) fn run(self) -> FileDone {
        let mut outcome = FileOutcome { file: self.file, ..FileOutcome::default() };
        let mut steps = self.steps.into_iter();
        let done = steps.try_for_each(|step| step.run(&*self.disk, &mut outcome));
        drop(self.garbage);
        FileDone { purpose: self.purpose, outcome: done.map(|()| outcome) }
    }
}

impl FileDone {
    /// The error, if it says that the file system takes no more changes, as after a failed sync of
    /// a directory. That ends the process: a snapshot would be refused for ever by who needs it to
    /// write anything else, and so never finds out.
    pub(super) fn read_only(&self) -> Option<io::Error> {
        let error = self.outcome.as_ref().err()?;
        let kind = io::ErrorKind::ReadOnlyFilesystem;
        (error.kind() == kind).then(|| io::Error::new(kind, error.to_string()))
    }
}

impl FileStep {
    fn run(self, disk: &dyn Disk, outcome: &mut FileOutcome) -> io::Result<()> {
        let opened = || io::Error::other("no file was opened before");
        match self {
            FileStep::CreateDirectory(name) => disk.create_directory(name)?,
            FileStep::Create(name) => outcome.file = Some(disk.create_new(&name)?),
            FileStep::Open(name) => outcome.file = Some(disk.open(&name)?),
            FileStep::OpenOrCreate(name) => {
                outcome.file = Some(match disk.open(&name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        disk.create_new(&name)?
                    }
                    opened => opened?,
                });
            }
            FileStep::Write(offset, bytes) => {
                outcome.file.as_ref().ok_or_else(opened)?.write_at(offset, &bytes)?;
            }
            FileStep::WriteBlock(mut framer, block) => {
                let file = outcome.file.as_ref().ok_or_else(opened)?;
                outcome.buffer = framer.write(block, &**file)?;
                outcome.framer = Some(framer);
            }
            FileStep::Sync => outcome.file.as_ref().ok_or_else(opened)?.sync()?,
            FileStep::Read(offset, len) => {
                let file = outcome.file.as_ref().ok_or_else(opened)?;
                outcome.bytes = file.read_durable(offset, len)?;
            }
            FileStep::Check(mut check) => {
                check.push(&outcome.bytes);
                outcome.check = Some(check);
            }
            FileStep::Scan(mut scan) => {
                scan.step(&**outcome.file.as_ref().ok_or_else(opened)?)?;
                outcome.scan = Some(scan);
            }
            FileStep::Length => {
                outcome.length = outcome.file.as_ref().ok_or_else(opened)?.len()?;
            }
            FileStep::Rename(from, to) => disk.rename(&from, &to)?,
            FileStep::Remove(name) => match disk.remove(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            },
            FileStep::SyncDirectory(name) => disk.sync_directory(name)?,
        }
        Ok(())
    }
}
