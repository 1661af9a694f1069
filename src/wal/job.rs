//! A sync job as data: what to write where, and when to sync. The shell's thread runs it whole, a
//! simulator
//! one operation at a time, and may lose power between any two.

use super::disk::DiskFile;
use crate::types::JobSeq;
use std::io;
use std::sync::Arc;

/// One group commit: hard state first (hs.0, then hs.1), then the log. Run in order; stop at the
/// first failure.
#[derive(Debug)]
pub struct Job {
    /// Its number; the receipt carries it.
    pub seq: JobSeq,
    /// What to do, strictly in this order.
    pub operations: Vec<Operation>,
}

/// One operation on the disk.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Write bytes at an offset.
    Write {
        /// The file.
        file: Arc<dyn DiskFile>,
        /// Where.
        offset: u64,
        /// What.
        bytes: Arc<Vec<u8>>,
    },
    /// Make what was written to a file durable.
    Sync {
        /// The file.
        file: Arc<dyn DiskFile>,
    },
}

impl Operation {
    /// Carries it out. A failure ends the node: what the disk holds is unknown from here on.
    pub fn run(&self) -> io::Result<()> {
        match self {
            Operation::Write { file, offset, bytes } => file.write_at(*offset, bytes),
            Operation::Sync { file } => file.sync(),
        }
    }
}
