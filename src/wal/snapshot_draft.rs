//! A snapshot of our own on its way to the disk: written block by block, read back, put in place.
//!
//! ```text
//! create   the .tmp file, in its directory       crash: removed at the next start
//! write    a block and a sync, again and again   the same
//! check    reads all of it from the medium: what cannot be read back is no snapshot
//! publish  rename to .snap, sync the directory   crash: garbage until the hard state names it
//! ```
//!
//! The loop hands over buffers with values of the checkpoint. They are framed, checksummed and
//! written by the `bg` thread, which also reads back; the buffers come back to be filled again.

use super::disk::DiskFile;
use super::files::{FileOutcome, FileStep, Garbage};
use super::snapshot_file::{
    BlockWriter, SNAP, SnapshotDamage, SnapshotHead, snapshot_name, unfinished_name,
};
use super::snapshot_scan::{Found, Scan, Wanted};
use crate::limits::SNAPSHOT_BLOCK_BYTES;
use crate::types::{LogPosition, SnapshotId};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// A buffer that held a value much larger than a block is not kept for the next one. Bytes.
const KEPT_BUFFER_BYTES_MAX: usize = 2 * SNAPSHOT_BLOCK_BYTES;

/// What a block is made of.
pub(super) enum Unframed {
    Head(SnapshotHead),
    /// Values of the checkpoint.
    Data(Vec<u8>),
    End,
}

/// Makes blocks and puts them one behind the other. It goes to the `bg` thread with each of them,
/// and comes back.
pub(super) struct Framer {
    position: LogPosition,
    writer: BlockWriter,
    /// What the file is, once it has its end.
    id: Option<SnapshotId>,
}

impl Framer {
    /// Writes a block. Returns the buffer it came in, emptied, if it is worth keeping. Blocks.
    pub(super) fn write(
        &mut self,
        block: Unframed,
        file: &dyn DiskFile,
    ) -> io::Result<Option<Vec<u8>>> {
        let at = self.writer.bytes();
        match block {
            Unframed::Head(head) => file.write_at(at, &self.writer.head(&head))?,
            Unframed::Data(mut payload) => {
                self.writer.write_data(&payload, file)?;
                payload.clear();
                return Ok((payload.capacity() <= KEPT_BUFFER_BYTES_MAX).then_some(payload));
            }
            Unframed::End => {
                let (end, bytes, crc) = self.writer.end();
                file.write_at(at, &end)?;
                self.id = Some(SnapshotId { position: self.position, bytes, crc });
            }
        }
        Ok(None)
    }
}

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
    /// None while a block is being written.
    framer: Option<Box<Framer>>,
    /// Blocks that are not written yet.
    waiting: VecDeque<Unframed>,
    /// Buffers for blocks to come.
    buffers: Vec<Vec<u8>>,
    /// The next job frees it.
    spent: Garbage,
    ended: bool,
    id: Option<SnapshotId>,
    file: Option<Arc<dyn DiskFile>>,
    stage: Stage,
    /// None before the check, and while it takes a step.
    scan: Option<Box<Scan>>,
}

impl Draft {
    pub(super) fn begin(head: SnapshotHead) -> Draft {
        let position = head.position;
        let framer = Framer { position, writer: BlockWriter::new(), id: None };
        Draft {
            position,
            framer: Some(Box::new(framer)),
            waiting: VecDeque::from([Unframed::Head(head)]),
            buffers: Vec::new(),
            spent: Vec::new(),
            ended: false,
            id: None,
            file: None,
            stage: Stage::Create,
            scan: None,
        }
    }

    /// How many blocks wait to be written, or are just being.
    pub(super) fn backlog(&self) -> usize {
        self.waiting.len() + usize::from(self.framer.is_none())
    }

    /// The next block of the checkpoint; an empty buffer takes its place.
    pub(super) fn push(&mut self, payload: &mut Vec<u8>) {
        assert!(!self.ended, "blocks come before the end");
        // As large as the one before had grown, so that this one need not.
        let room = payload.capacity().min(KEPT_BUFFER_BYTES_MAX);
        let buffer = self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(room));
        self.waiting.push_back(Unframed::Data(std::mem::replace(payload, buffer)));
    }

    /// That was the last block.
    pub(super) fn end(&mut self) {
        assert!(!self.ended, "a file ends once");
        self.ended = true;
        self.waiting.push_back(Unframed::End);
    }

    /// The file while it is not in place.
    pub(super) fn unfinished(&self) -> String {
        unfinished_name(self.position)
    }

    /// Which snapshot it is, once it is written to its end.
    pub(super) fn id(&self) -> Option<SnapshotId> {
        self.id
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
                let block = self.waiting.pop_front()?;
                let framer = self.framer.take().expect("it came back with the block before");
                Some(vec![FileStep::WriteBlock(framer, block), FileStep::Sync])
            }
            Stage::Check => {
                let scan = self.scan.take().expect("it came back from the step before");
                Some(vec![FileStep::Scan(scan)])
            }
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

    /// What the next job may free.
    pub(super) fn garbage(&mut self) -> Garbage {
        std::mem::take(&mut self.spent)
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
                let framer = outcome.framer.expect("it comes back with the block");
                self.buffers.extend(outcome.buffer);
                self.id = framer.id;
                if let Some(id) = framer.id {
                    self.scan = Some(Box::new(Scan::begin(id.bytes, Wanted::Verdict)));
                    self.stage = Stage::Check;
                }
                self.framer = Some(framer);
            }
            Stage::Check => self.check(outcome.scan.expect("it comes back from its step"))?,
            Stage::Publish => {
                self.file = outcome.file;
                return Ok(self.id);
            }
        }
        Ok(None)
    }

    fn check(&mut self, scan: Box<Scan>) -> Result<(), SnapshotDamage> {
        match scan.found() {
            Found::More => self.scan = Some(scan),
            Found::Whole => {
                self.spent.push(Box::new((scan, std::mem::take(&mut self.buffers))));
                self.stage = Stage::Publish;
            }
            Found::Short => {
                return Err(SnapshotDamage::of("it was not read back as it was written"));
            }
            Found::Damage(damage) => return Err(damage),
        }
        Ok(())
    }
}
