//! A snapshot of our own on its way to the disk: written block by block, read back, put in place.
//!
//! ```text
//! create   the .tmp file, in its directory       crash: removed at the next start
//! write    a block and a sync, again and again   the same
//! check    reads all of it from the medium: what cannot be read back is no snapshot
//! publish  rename to .snap, sync the directory   crash: garbage until the hard state names it
//! ```

use super::disk::DiskFile;
use super::files::{FileOutcome, FileStep};
use super::snapshot_file::{
    BlockReader, BlockWriter, SNAP, SnapshotDamage, SnapshotHead, snapshot_name, unfinished_name,
};
use crate::types::{LogPosition, SnapshotId};
use std::collections::VecDeque;
use std::sync::Arc;

/// Read back by one job. Bytes; whole pages, for O_DIRECT.
pub(super) const CHECK_BYTES: usize = 1024 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Create,
    Write,
    Check,
    Publish,
}

/// The snapshot under way.
pub(super) struct Draft {
    position: LogPosition,
    writer: Option<BlockWriter>,
    id: Option<SnapshotId>,
    file: Option<Arc<dyn DiskFile>>,
    /// Blocks that are not written yet.
    waiting: VecDeque<Vec<u8>>,
    written: u64,
    stage: Stage,
    check: BlockReader,
    checked: u64,
}

impl Draft {
    pub(super) fn begin(head: &SnapshotHead) -> Draft {
        let (writer, block) = BlockWriter::begin(head);
        Draft {
            position: head.position,
            writer: Some(writer),
            id: None,
            file: None,
            waiting: VecDeque::from([block]),
            written: 0,
            stage: Stage::Create,
            check: BlockReader::new(),
            checked: 0,
        }
    }

    /// How many blocks wait to be written.
    pub(super) fn backlog(&self) -> usize {
        self.waiting.len()
    }

    /// The next block of the checkpoint.
    pub(super) fn push(&mut self, payload: &[u8]) {
        let writer = self.writer.as_mut().expect("blocks come before the end");
        self.waiting.push_back(writer.data(payload));
    }

    /// That was the last block.
    pub(super) fn end(&mut self) {
        let writer = self.writer.take().expect("a file ends once");
        let (block, bytes, crc) = writer.end();
        self.waiting.push_back(block);
        self.id = Some(SnapshotId { position: self.position, bytes, crc });
    }

    /// The file while it is not in place.
    pub(super) fn unfinished(&self) -> String {
        unfinished_name(self.position)
    }

    /// What is to be done next, with which file.
    pub(super) fn steps(&mut self) -> Option<Vec<FileStep>> {
        let from = self.unfinished();
        match self.stage {
            Stage::Create => Some(vec![
                FileStep::CreateDirectory(SNAP),
                FileStep::SyncDirectory(""),
                FileStep::Remove(from.clone()),
                FileStep::Create(from),
            ]),
            Stage::Write => {
                let block = self.waiting.front()?.clone();
                Some(vec![FileStep::Write(self.written, block), FileStep::Sync])
            }
            Stage::Check => Some(vec![FileStep::Read(self.checked, CHECK_BYTES)]),
            Stage::Publish => {
                let to = snapshot_name(self.id.expect("the file has its end"));
                Some(vec![
                    FileStep::Rename(from, to.clone()),
                    FileStep::SyncDirectory(SNAP),
                    FileStep::Open(to),
                ])
            }
        }
    }

    pub(super) fn file(&self) -> Option<Arc<dyn DiskFile>> {
        self.file.clone()
    }

    /// The steps were done. Says which snapshot is in place, once it is.
    pub(super) fn done(
        &mut self,
        outcome: FileOutcome,
    ) -> Result<Option<SnapshotId>, SnapshotDamage> {
        match self.stage {
            Stage::Create => {
                self.file = outcome.file;
                self.stage = Stage::Write;
            }
            Stage::Write => {
                let block = self.waiting.pop_front().expect("it was written from there");
                self.written += bytes_u64(&block);
                if self.waiting.is_empty() && self.id.is_some() {
                    self.stage = Stage::Check;
                }
            }
            Stage::Check => self.check(&outcome.bytes)?,
            Stage::Publish => {
                self.file = outcome.file;
                return Ok(self.id);
            }
        }
        Ok(None)
    }

    fn check(&mut self, bytes: &[u8]) -> Result<(), SnapshotDamage> {
        self.checked += bytes_u64(bytes);
        self.check.push(bytes);
        while self.check.next()?.is_some() {}
        if self.check.ended() && self.checked == self.written {
            self.stage = Stage::Publish;
            Ok(())
        } else if bytes.is_empty() || self.checked > self.written {
            Err(SnapshotDamage::of("it was not read back as it was written"))
        } else {
            Ok(())
        }
    }
}

fn bytes_u64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("usize is at most 64 bits")
}
