//! The hard state: what a server must remember before it speaks. Two files, two slots each.
//!
//! ```text
//! hs.0, hs.1   slot 0 at 0, slot 1 at 4096; version n lies in slot n % 2 of both files
//! slot:  0 8 magic "RAFTDHS1"   8 2 format version = 1   10 2 flags: bit 0 UNCERTAIN   16 8
//! version n
//!       24 8 term              32 8 voted_for (0 nobody, 2^64-1 abstained)
//!       40 8 boot_nonce        48 8 genesis   56 8 last durable term   64 8 last durable index
//!       124 4 crc32 of bytes 0..124        … zero to 4096 …
//! ```
//!
//! The content lies in one sector, so a crash leaves the old or the new: any invalid slot is
//! damage. A version
//! is durable once both files are synced; with one copy damaged the other serves and both are
//! written anew.

use super::disk::DiskFile;
use super::record::{u16_at, u32_at, u64_at};
use crate::limits::PAGE_BYTES;
use crate::types::{HardState, LogIndex, LogPosition, NodeId, Term, Vote};

const MAGIC: &[u8; 8] = b"RAFTDHS1";
const VERSION: u16 = 1;
const CRC_AT: usize = 124;

/// The names of the two files.
pub(super) const FILES: [&str; 2] = ["hs.0", "hs.1"];

/// One version of the hard state as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stored {
    pub(super) version: u64,
    pub(super) hard_state: HardState,
    pub(super) boot_nonce: u64,
    pub(super) genesis: u64,
    pub(super) last_durable: LogPosition,
    pub(super) uncertain: bool,
}

impl Stored {
    /// The next version, with the same content.
    #[must_use]
    pub(super) fn next(mut self) -> Stored {
        self.version += 1;
        self
    }

    /// Where this version lies in both files.
    pub(super) fn offset(&self) -> u64 {
        if self.version.is_multiple_of(2) { 0 } else { u64::try_from(PAGE_BYTES).expect("a page") }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        let vote = match self.hard_state.vote {
            Vote::None => 0,
            Vote::For(node) => node.get(),
            Vote::Abstain => u64::MAX,
        };
        page[0..8].copy_from_slice(MAGIC);
        page[8..10].copy_from_slice(&VERSION.to_le_bytes());
        page[10..12].copy_from_slice(&u16::from(self.uncertain).to_le_bytes());
        page[16..24].copy_from_slice(&self.version.to_le_bytes());
        page[24..32].copy_from_slice(&self.hard_state.term.get().to_le_bytes());
        page[32..40].copy_from_slice(&vote.to_le_bytes());
        page[40..48].copy_from_slice(&self.boot_nonce.to_le_bytes());
        page[48..56].copy_from_slice(&self.genesis.to_le_bytes());
        page[56..64].copy_from_slice(&self.last_durable.term.get().to_le_bytes());
        page[64..72].copy_from_slice(&self.last_durable.index.get().to_le_bytes());
        let crc = crc32fast::hash(&page[..CRC_AT]);
        page[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        page
    }

    fn decode(page: &[u8]) -> Option<Stored> {
        if &page[0..8] != MAGIC || u16_at(page, 8) != VERSION {
            return None;
        }
        if u32_at(page, CRC_AT) != crc32fast::hash(&page[..CRC_AT]) {
            return None;
        }
        let vote = match u64_at(page, 32) {
            0 => Vote::None,
            u64::MAX => Vote::Abstain,
            node => Vote::For(NodeId::new(node)?),
        };
        Some(Stored {
            version: u64_at(page, 16),
            hard_state: HardState { term: Term::new(u64_at(page, 24)), vote },
            boot_nonce: u64_at(page, 40),
            genesis: u64_at(page, 48),
            last_durable: LogPosition::new(
                Term::new(u64_at(page, 56)),
                LogIndex::new(u64_at(page, 64)),
            ),
            uncertain: u16_at(page, 10) & 1 != 0,
        })
    }
}

/// The newest version of two files' bytes. `None` if for a slot both copies are damaged: what was
/// promised
/// may be lost.
pub(super) fn newest(files: [&[u8]; 2]) -> Option<Stored> {
    let slot = |file: &[u8], at: usize| file.get(at..at + PAGE_BYTES).and_then(Stored::decode);
    let either = |at: usize| {
        let copies = files.map(|file| slot(file, at));
        copies.into_iter().flatten().max_by_key(|stored| stored.version)
    };
    let (even, odd) = (either(0)?, either(PAGE_BYTES)?);
    Some(if even.version > odd.version { even } else { odd })
}

/// Writes a version to both files, one after the other, each synced. Start-up only.
pub(super) fn write_now(
    files: &[std::sync::Arc<dyn DiskFile>; 2],
    stored: &Stored,
) -> std::io::Result<()> {
    let page = stored.encode();
    for file in files {
        file.write_at(stored.offset(), &page)?;
        file.sync()?;
    }
    Ok(())
}
