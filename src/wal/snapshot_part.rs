//! A snapshot of another server on its way in: pieces to a file, then the file to blocks.
//!
//! ```text
//! open     the .part file of this very snapshot: made, or found from before a restart and synced
//! resume   read what is there: it goes on behind that, or behind the last whole block
//! receive  a piece and a sync, again and again     crash: the next start finds it, and resumes
//! read     from the medium, block by block, each checked, all of it checked at the end; what a
//!          power loss tore is received again from there, once
//! publish  rename to .snap, sync the directory     crash: garbage until the hard state names it
//! ```
//!
//! The file's name says which snapshot it is part of: another one, or another sender's of other
//! bytes, has another file and begins at 0.

use super::disk::DiskFile;
use super::files::{FileOutcome, FileStep};
use super::snapshot_draft::CHECK_BYTES;
use super::snapshot_file::{Block, BlockReader, SNAP, SnapshotDamage, part_name, snapshot_name};
use super::snapshots::SnapshotEvent;
use crate::types::SnapshotId;
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Open,
    /// Up to here the file has been read.
    Resume(u64),
    Receive,
    /// Up to here the file has been read.
    Read(u64),
    /// All blocks are found; the owner has not said that they are good.
    Whole,
    Publish,
    Ready,
}

/// The snapshot that is being received.
pub(super) struct Part {
    pub(super) id: SnapshotId,
    file: Option<Arc<dyn DiskFile>>,
    stage: Stage,
    /// Everything before is durable.
    stored: u64,
    /// Pieces that are not written yet, in order, without gaps.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: u64,
    reader: BlockReader,
    blocks: VecDeque<Block>,
    /// The whole blocks before the damage that was received again.
    rewound: Option<u64>,
}

impl Part {
    pub(super) fn begin(id: SnapshotId) -> Part {
        Part {
            id,
            file: None,
            stage: Stage::Open,
            stored: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            reader: BlockReader::new(),
            blocks: VecDeque::new(),
            rewound: None,
        }
    }

    /// The file while it is not in place.
    pub(super) fn unfinished(&self) -> String {
        part_name(self.id)
    }

    /// How much of it is durable here, once that is known. Bytes.
    pub(super) fn stored(&self) -> Option<u64> {
        match self.stage {
            Stage::Open | Stage::Resume(_) => None,
            Stage::Receive | Stage::Read(_) | Stage::Whole | Stage::Publish | Stage::Ready => {
                Some(self.stored)
            }
        }
    }

    /// A piece that begins where the last one ended; says no to any other, and to one too many.
    pub(super) fn push(&mut self, offset: u64, piece: &[u8], waiting_max: usize) -> bool {
        let next = self.stored + self.waiting_bytes;
        let fits = self.stage == Stage::Receive && self.waiting.len() < waiting_max;
        if !fits || offset != next || piece.is_empty() {
            return false;
        }
        self.waiting_bytes += bytes_u64(piece);
        self.waiting.push_back(piece.to_vec());
        true
    }

    /// The next block that was read and is whole.
    pub(super) fn take_block(&mut self) -> Option<Block> {
        self.blocks.pop_front()
    }

    /// Its blocks are good: put it in place.
    pub(super) fn accept(&mut self) {
        assert_eq!(self.stage, Stage::Whole, "all blocks were handed out");
        self.stage = Stage::Publish;
    }

    pub(super) fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    pub(super) fn file(&self) -> Option<Arc<dyn DiskFile>> {
        self.file.clone()
    }

    /// What is to be done next.
    pub(super) fn steps(&mut self) -> Option<Vec<FileStep>> {
        let name = self.unfinished();
        match self.stage {
            Stage::Open => Some(vec![
                FileStep::CreateDirectory(SNAP),
                FileStep::SyncDirectory(""),
                FileStep::OpenOrCreate(name),
                FileStep::SyncDirectory(SNAP),
                // A process that was killed between a piece and its sync leaves bytes that can be
                // read and are not durable.
                FileStep::Sync,
                FileStep::Length,
            ]),
            Stage::Resume(at) => Some(vec![FileStep::Read(at, CHECK_BYTES)]),
            Stage::Receive => {
                let piece = self.waiting.front()?.clone();
                Some(vec![FileStep::Write(self.stored, piece), FileStep::Sync])
            }
            // Not further ahead than one read: a large file never waits in memory.
            Stage::Read(_) if !self.blocks.is_empty() => None,
            Stage::Read(at) => Some(vec![FileStep::Read(at, CHECK_BYTES)]),
            Stage::Whole | Stage::Ready => None,
            Stage::Publish => {
                let to = snapshot_name(self.id);
                Some(vec![
                    FileStep::Rename(name, to.clone()),
                    FileStep::SyncDirectory(SNAP),
                    FileStep::Open(to),
                ])
            }
        }
    }

    /// The steps were done: what the owner should hear.
    pub(super) fn done(
        &mut self,
        outcome: FileOutcome,
    ) -> Result<Option<SnapshotEvent>, SnapshotDamage> {
        let id = self.id;
        match self.stage {
            Stage::Open => {
                self.file = outcome.file;
                if outcome.length > 0 {
                    self.stage = Stage::Resume(0);
                    return Ok(None);
                }
                self.stage = Stage::Receive;
                Ok(Some(SnapshotEvent::PartStored { id, offset: 0 }))
            }
            Stage::Resume(at) => Ok(self.resume(at, &outcome.bytes)),
            Stage::Receive => {
                let piece = self.waiting.pop_front().expect("it was written from there");
                self.waiting_bytes -= bytes_u64(&piece);
                self.stored += bytes_u64(&piece);
                self.read_once_complete();
                Ok(Some(SnapshotEvent::PartStored { id, offset: self.stored }))
            }
            Stage::Read(at) => self.read(at, &outcome.bytes).map(Some),
            Stage::Publish => {
                self.file = outcome.file;
                self.stage = Stage::Ready;
                Ok(Some(SnapshotEvent::PartReady { id }))
            }
            Stage::Whole | Stage::Ready => unreachable!("nothing was to be done"),
        }
    }

    /// What was there before a restart counts as far as no block of it is damaged.
    fn resume(&mut self, at: u64, bytes: &[u8]) -> Option<SnapshotEvent> {
        self.reader.push(bytes);
        let whole = loop {
            match self.reader.next() {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        if whole && !bytes.is_empty() && !self.reader.ended() {
            self.stage = Stage::Resume(at + bytes_u64(bytes));
            return None;
        }
        let found = if whole { at + bytes_u64(bytes) } else { self.reader.bytes() };
        self.stored = found.min(self.id.bytes);
        self.reader = BlockReader::new();
        self.stage = Stage::Receive;
        self.read_once_complete();
        Some(SnapshotEvent::PartStored { id: self.id, offset: self.stored })
    }

    fn read_once_complete(&mut self) {
        if self.stored == self.id.bytes {
            self.stage = Stage::Read(self.reader.bytes());
        }
    }

    /// A block is damaged: what is from there on is wanted again, but not for ever.
    fn rewind(&mut self, damage: SnapshotDamage) -> Result<SnapshotEvent, SnapshotDamage> {
        let good = self.reader.bytes();
        if self.reader.ended() || self.rewound.is_some_and(|before| before >= good) {
            return Err(damage);
        }
        self.rewound = Some(good);
        self.reader.rewind();
        self.stored = good;
        self.stage = Stage::Receive;
        Ok(SnapshotEvent::PartStored { id: self.id, offset: good })
    }

    fn read(&mut self, at: u64, bytes: &[u8]) -> Result<SnapshotEvent, SnapshotDamage> {
        // A file that was longer once may have bytes behind the end.
        let left = usize::try_from(self.id.bytes - at).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(left)];
        self.reader.push(bytes);
        loop {
            let block = match self.reader.next() {
                Ok(Some(block)) => block,
                Ok(None) => break,
                Err(damage) => return self.rewind(damage),
            };
            if let Block::End { bytes, crc } = &block
                && (*bytes, *crc) != (self.id.bytes, self.id.crc)
            {
                return Err(SnapshotDamage::of("it is not the file that was announced"));
            }
            self.blocks.push_back(block);
        }
        let at = at + bytes_u64(bytes);
        self.stage = if self.reader.ended() { Stage::Whole } else { Stage::Read(at) };
        let short = bytes.is_empty() || at == self.id.bytes;
        if short && !self.reader.ended() {
            return self.rewind(SnapshotDamage::of("it ends too early"));
        }
        Ok(SnapshotEvent::PartRead { id: self.id })
    }
}

fn bytes_u64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("usize is at most 64 bits")
}
