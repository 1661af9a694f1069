//! A log as a chain of hashes: each link stands for its entry and all before it, so that two logs
//! that agree at a place are known to agree up to there (Log Matching) by one comparison.

use crate::chance::{fold, u64_of, usize_of};
use raftd::types::{LogIndex, LogPosition, Term};
use std::sync::{Arc, Mutex, MutexGuard};

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Link {
    pub(crate) term: Term,
    /// Of this entry and all before it.
    pub(crate) chain: u64,
    /// What identifies the entry by itself: its kind, length and checksum.
    pub(crate) own: u64,
}

/// What identifies an entry beside its place and term.
pub(crate) fn own_hash(kind: u8, bytes: u32, crc: u32) -> u64 {
    (u64::from(kind) << 56) | (u64::from(bytes & 0x00ff_ffff) << 32) | u64::from(crc)
}

/// Entries 1, 2, …
#[derive(Clone, Default, Debug)]
pub(crate) struct Chain {
    links: Vec<Link>,
}

impl Chain {
    pub(crate) fn last(&self) -> LogIndex {
        LogIndex::new(u64_of(self.links.len()))
    }

    /// The entry at `index`; the place before the first has the zero link.
    pub(crate) fn at(&self, index: LogIndex) -> Option<Link> {
        match index.get().checked_sub(1) {
            None => Some(Link::default()),
            Some(slot) => self.links.get(usize_of(slot)).copied(),
        }
    }

    pub(crate) fn push(&mut self, term: Term, own: u64) -> Link {
        let before = self.links.last().copied().unwrap_or_default();
        let chain = fold(fold(before.chain, term.get()), own);
        let link = Link { term, chain, own };
        self.links.push(link);
        link
    }

    pub(crate) fn truncate(&mut self, to: LogIndex) {
        self.links.truncate(usize_of(to.get()));
    }

    /// How far the two are equal.
    pub(crate) fn common(&self, other: &Chain) -> LogIndex {
        let mut at = self.last().min(other.last());
        while self.at(at) != other.at(at) {
            at = at.prev();
        }
        at
    }
}

/// What the cluster has committed, in one place for the proof, which adds to it, and the disks:
/// what a log stands on that begins behind a snapshot.
#[derive(Clone, Default, Debug)]
pub(crate) struct Ground(Arc<Mutex<Chain>>);

impl Ground {
    fn chain(&self) -> MutexGuard<'_, Chain> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// The next entry is committed.
    pub(crate) fn push(&self, link: Link) {
        self.chain().links.push(link);
    }

    /// Everything up to `base`, if that is committed.
    pub(crate) fn up_to(&self, base: LogPosition) -> Option<Chain> {
        let chain = self.chain();
        let committed = chain.at(base.index).is_some_and(|link| link.term == base.term);
        committed.then(|| Chain { links: chain.links[..usize_of(base.index.get())].to_vec() })
    }
}
