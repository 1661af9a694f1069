//! What the two threads do, as data. The sync thread: a list of disk operations, run strictly one
//! after the other. The `bg` thread: a step of preparing a segment, or a few operations on other
//! files.
//!
//! Why not a trait with a method for each: the simulator runs a job operation by operation and cuts
//! the power between any two of them, and the executor on the thread is a loop of four lines.

use super::background::{PrepareDone, PrepareJob};
use super::disk::DiskFile;
use super::files::{FileDone, FileJob};
use crate::types::JobSeq;
use std::io;
use std::sync::Arc;

/// One group commit: hard state first, then the log. At most one is in flight.
pub struct Job {
    /// Its number, which comes back in the receipt.
    pub seq: JobSeq,
    /// To be run in this order. The first error ends the process: nothing may be retried. Storage
    /// §6.9.
    pub operations: Vec<Operation>,
}

/// One operation on one file.
pub enum Operation {
    /// Writes `bytes` at `offset`.
    Write {
        /// Where to.
        file: Arc<dyn DiskFile>,
        /// Bytes from the start of the file.
        offset: u64,
        /// What; shared with the entry cache, which serves it meanwhile.
        bytes: Arc<Vec<u8>>,
    },
    /// Makes everything written to `file` durable.
    Sync {
        /// Which file.
        file: Arc<dyn DiskFile>,
    },
}

impl Operation {
    /// Does it.
    pub fn run(&self) -> io::Result<()> {
        match self {
            Operation::Write { file, offset, bytes } => file.write_at(*offset, bytes),
            Operation::Sync { file } => file.sync(),
        }
    }
}

impl Job {
    /// Runs the operations in order, up to the first that fails.
    pub fn run(&self) -> io::Result<()> {
        self.operations.iter().try_for_each(Operation::run)
    }
}

/// A job for the `bg` thread. At most one is in flight.
pub struct BackgroundJob(pub(super) Work);

pub(super) enum Work {
    /// A step of preparing a segment.
    Prepare(PrepareJob),
    /// Operations on files beside the log.
    Files(FileJob),
}

/// What came of a `BackgroundJob`.
pub struct BackgroundDone(pub(super) WorkDone);

pub(super) enum WorkDone {
    Prepare(PrepareDone),
    Files(FileDone),
}

impl BackgroundDone {
    /// Why a step of preparing a segment failed, if it did; for a log line.
    pub fn error(&self) -> Option<&io::Error> {
        match &self.0 {
            WorkDone::Prepare(done) => done.error(),
            WorkDone::Files(_) => None,
        }
    }
}

impl BackgroundJob {
    /// Does it, up to the first operation that fails.
    pub fn run(self) -> BackgroundDone {
        BackgroundDone(match self.0 {
            Work::Prepare(job) => WorkDone::Prepare(job.run()),
            Work::Files(job) => WorkDone::Files(job.run()),
        })
    }
}
