//! A snapshot's file read back from the medium and checked, by the `bg` thread: the loop hears what
//! was found, and gets the blocks it wants as they are, each in a buffer of its own.

use super::disk::DiskFile;
use super::snapshot_file::{Block, BlockReader, SnapshotDamage};
use std::io;

/// Read by one step, and so how far the loop lets it run ahead. Bytes; whole pages, for O_DIRECT.
pub(super) const SCAN_BYTES: usize = 1024 * 1024;

/// What is wanted of a file that is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// Whether it is whole.
    Verdict,
    /// Its blocks too.
    Blocks,
}

/// What a step has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// No damage so far; there is more to read.
    More,
    /// Every block up to the end, which is where it should be.
    Whole,
    /// No damage, and no end: it is cut short.
    Short,
    /// A block is damaged. Those before are good.
    Damage(SnapshotDamage),
}

/// How far a file is read. It goes to the `bg` thread with each step, and comes back.
pub(super) struct Scan {
    wanted: Wanted,
    reader: BlockReader,
    /// Up to here the file was read, and to there it goes. Bytes.
    at: u64,
    end: u64,
    blocks: Vec<Block>,
    found: Found,
}

impl Scan {
    /// Nothing of a file of `end` bytes is read yet. Bytes behind them do not count.
    pub(super) fn begin(end: u64, wanted: Wanted) -> Scan {
        let (reader, blocks) = (BlockReader::new(), Vec::new());
        Scan { wanted, reader, at: 0, end, blocks, found: Found::More }
    }

    /// The next step: reads on and looks at all blocks that are complete with it. Blocks.
    pub(super) fn step(&mut self, file: &dyn DiskFile) -> io::Result<()> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let mut bytes = file.read_durable(self.at, SCAN_BYTES)?;
        bytes.truncate(left);
        self.reader.push(&bytes);
        self.at += u64::try_from(bytes.len()).expect("usize is at most 64 bits");
        loop {
            match self.reader.next() {
                Ok(Some(block)) if self.wanted == Wanted::Blocks => self.blocks.push(block),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(damage) => {
                    self.found = Found::Damage(damage);
                    return Ok(());
                }
            }
        }
        let (all, ended) = (self.at == self.end, self.reader.ended());
        self.found = match (all || bytes.is_empty(), ended) {
            (false, _) => Found::More,
            (true, true) if all => Found::Whole,
            (true, _) => Found::Short,
        };
        Ok(())
    }

    /// What the last step has found.
    pub(super) fn found(&self) -> Found {
        self.found
    }

    /// The blocks found since they were last taken.
    pub(super) fn take_blocks(&mut self) -> Vec<Block> {
        std::mem::take(&mut self.blocks)
    }

    /// Up to where it was read. Bytes.
    pub(super) fn read(&self) -> u64 {
        self.at
    }

    /// The end of the last block found. Bytes.
    pub(super) fn good(&self) -> u64 {
        self.reader.bytes()
    }

    /// Whether the last block was found.
    pub(super) fn ended(&self) -> bool {
        self.reader.ended()
    }

    /// Goes back to the end of the last good block: what is behind it comes again.
    pub(super) fn rewind(&mut self) {
        self.reader.rewind();
        (self.at, self.found) = (self.reader.bytes(), Found::More);
    }
}
