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
//! The `bg` thread reads, checks and takes the file apart; the loop hears what was found, and takes
//! the blocks of one read before the next begins.
//!
//! The file's name says which snapshot it is part of: another one, or another sender's of other
//! bytes, has another file and begins at 0.

use super::disk::DiskFile;
use super::files::{FileOutcome, FileStep, Garbage};
use super::snapshot_event::SnapshotEvent;
use super::snapshot_file::{Block, SNAP, SnapshotDamage, part_name, snapshot_name};
use super::snapshot_scan::{Found, Scan, Wanted};
use crate::types::SnapshotId;
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Open,
    Resume,
    Receive,
    Read,
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
    /// Of them and of the one that is being written. Bytes.
    waiting_bytes: u64,
    /// The length of the piece that is being written. Bytes.
    writing: Option<u64>,
    /// None while it takes a step.
    scan: Option<Box<Scan>>,
    blocks: VecDeque<Block>,
    /// Blocks that are loaded, and what they were read with: the next job frees it.
    spent: Garbage,
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
            writing: None,
            scan: None,
            blocks: VecDeque::new(),
            spent: Vec::new(),
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
            Stage::Open | Stage::Resume => None,
            Stage::Receive | Stage::Read | Stage::Whole | Stage::Publish | Stage::Ready => {
                Some(self.stored)
            }
        }
    }

    /// A piece that begins where the last one ended; says no to any other, and to one too many.
    pub(super) fn push(&mut self, offset: u64, piece: &[u8], waiting_max: usize) -> bool {
        let next = self.stored + self.waiting_bytes;
        let waiting = self.waiting.len() + usize::from(self.writing.is_some());
        let fits = self.stage == Stage::Receive && waiting < waiting_max;
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

    /// A block that was taken, and is not needed any more.
    pub(super) fn free(&mut self, block: Vec<u8>) {
        self.spent.push(Box::new(block));
    }

    /// What the next job may free.
    pub(super) fn garbage(&mut self) -> Garbage {
        std::mem::take(&mut self.spent)
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
            Stage::Receive => {
                let piece = self.waiting.pop_front()?;
                self.writing = Some(bytes_u64(&piece));
                Some(vec![FileStep::Write(self.stored, piece), FileStep::Sync])
            }
            // Not further ahead than one read: a large file never waits in memory.
            Stage::Read if !self.blocks.is_empty() => None,
            Stage::Resume | Stage::Read => {
                let scan = self.scan.take().expect("it came back from the step before");
                Some(vec![FileStep::Scan(scan)])
            }
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
                    self.scan = Some(Box::new(Scan::begin(id.bytes, Wanted::Verdict)));
                    self.stage = Stage::Resume;
                    return Ok(None);
                }
                self.stage = Stage::Receive;
                Ok(Some(SnapshotEvent::PartStored { id, offset: 0 }))
            }
            Stage::Resume => Ok(self.resume(outcome.scan.expect("it comes back from its step"))),
            Stage::Receive => {
                let written = self.writing.take().expect("a piece was written");
                self.waiting_bytes -= written;
                self.stored += written;
                self.read_once_complete();
                Ok(Some(SnapshotEvent::PartStored { id, offset: self.stored }))
            }
            Stage::Read => self.read(outcome.scan.expect("it comes back from its step")).map(Some),
            Stage::Publish => {
                self.file = outcome.file;
                self.stage = Stage::Ready;
                Ok(Some(SnapshotEvent::PartReady { id }))
            }
            Stage::Whole | Stage::Ready => unreachable!("nothing was to be done"),
        }
    }

    /// What was there before a restart counts as far as no block of it is damaged.
    fn resume(&mut self, scan: Box<Scan>) -> Option<SnapshotEvent> {
        self.stored = match scan.found() {
            Found::More => {
                self.scan = Some(scan);
                return None;
            }
            Found::Whole | Found::Short => scan.read(),
            Found::Damage(_) => scan.good(),
        };
        self.spent.push(scan);
        self.stage = Stage::Receive;
        self.read_once_complete();
        Some(SnapshotEvent::PartStored { id: self.id, offset: self.stored })
    }

    /// Goes on behind the last block found, if some were.
    fn read_once_complete(&mut self) {
        if self.stored == self.id.bytes {
            let anew = || Box::new(Scan::begin(self.id.bytes, Wanted::Blocks));
            self.scan.get_or_insert_with(anew);
            self.stage = Stage::Read;
        }
    }

    /// Takes the blocks that were found.
    fn read(&mut self, mut scan: Box<Scan>) -> Result<SnapshotEvent, SnapshotDamage> {
        for block in scan.take_blocks() {
            if let Block::End { bytes, crc } = &block
                && (*bytes, *crc) != (self.id.bytes, self.id.crc)
            {
                return Err(SnapshotDamage::of("it is not the file that was announced"));
            }
            self.blocks.push_back(block);
        }
        match scan.found() {
            Found::More => self.scan = Some(scan),
            Found::Whole => {
                self.spent.push(scan);
                self.stage = Stage::Whole;
            }
            Found::Short => return self.rewind(scan, SnapshotDamage::of("it ends too early")),
            Found::Damage(damage) => return self.rewind(scan, damage),
        }
        Ok(SnapshotEvent::PartRead { id: self.id })
    }

    /// A block is damaged: what is from there on is wanted again, but not for ever.
    fn rewind(
        &mut self,
        mut scan: Box<Scan>,
        damage: SnapshotDamage,
    ) -> Result<SnapshotEvent, SnapshotDamage> {
        let good = scan.good();
        if scan.ended() || self.rewound.is_some_and(|before| before >= good) {
            return Err(damage);
        }
        self.rewound = Some(good);
        scan.rewind();
        self.scan = Some(scan);
        self.stored = good;
        self.stage = Stage::Receive;
        Ok(SnapshotEvent::PartStored { id: self.id, offset: good })
    }
}

fn bytes_u64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("usize is at most 64 bits")
}
