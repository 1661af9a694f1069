//! Operations that fail, and a disk without space.

use super::content::PAGE;
use super::{Role, SimDisk, State};
use std::io;

/// Operations that may fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// Of a file with something to write.
    Sync,
    /// The sync of a directory with changes.
    Directory,
    Write,
    /// Past the cache.
    Read,
}

/// How often space was refused, by what it was for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Refusals {
    pub(crate) segments: u64,
    /// Snapshots that were made.
    pub(crate) drafts: u64,
    /// And received.
    pub(crate) parts: u64,
    pub(super) others: u64,
}

impl SimDisk {
    /// How often space was refused.
    pub(crate) fn refusals(&self) -> Refusals {
        self.state().refusals
    }

    /// Whether a segment was ever refused space.
    pub(crate) fn refused_for_space(&self) -> u64 {
        self.state().refusals.segments
    }

    pub(crate) fn fail_next(&self, failure: Failure) {
        self.state().fails = Some(failure);
    }

    /// What failed since the machine started; a read only if nothing else did.
    pub(crate) fn failed(&self) -> Option<Failure> {
        self.state().failed
    }

    /// Whether a node may stop with this error: something that makes data durable has failed since
    /// the machine started. For want of space none stops.
    pub(crate) fn explains(&self, error: &io::Error) -> bool {
        let failed = match self.failed() {
            Some(Failure::Sync | Failure::Directory | Failure::Write) => true,
            Some(Failure::Read) | None => false,
        };
        if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
            self.is_frozen()
        } else {
            failed && error.kind() != io::ErrorKind::StorageFull
        }
    }

    /// Whether its file system takes no more changes: the machine must be started anew.
    pub(crate) fn is_frozen(&self) -> bool {
        self.state().frozen
    }
}

impl State {
    /// An operation that may fail: it does if that was planned.
    pub(super) fn try_to(&mut self, failure: Failure) -> io::Result<()> {
        if self.fails.take_if(|planned| *planned == failure).is_none() {
            return Ok(());
        }
        if failure != Failure::Read || self.failed.is_none() {
            self.failed = Some(failure);
        }
        Err(io::Error::other("input/output error"))
    }

    /// A write that fails may have done its first pages: the system takes them one by one.
    pub(super) fn write_some_pages(&mut self, file: usize, offset: usize, bytes: &[u8]) {
        let pages = (offset % PAGE + bytes.len()).div_ceil(PAGE);
        let reached = (offset / PAGE + self.faults.index(pages)) * PAGE;
        if let Some(count) = reached.checked_sub(offset).filter(|count| *count > 0) {
            self.files[file].write(offset, &bytes[..count]);
        }
    }

    /// The disk is full.
    pub(super) fn refuse(&mut self, role: &Role) -> io::Error {
        match role {
            Role::Segment(_) => self.refusals.segments += 1,
            Role::Draft => self.refusals.drafts += 1,
            Role::Part => self.refusals.parts += 1,
            Role::HardState(_) | Role::Other => self.refusals.others += 1,
        }
        io::ErrorKind::StorageFull.into()
    }
}
