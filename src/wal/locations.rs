//! Where each entry lies: a list by index, because indexes are dense.

use super::Place;
use crate::types::{EntryKind, LogIndex, LogPosition, Term};
use std::collections::VecDeque;

/// What the record knows of an entry without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// The term of the leader that made it.
    pub term: Term,
    /// What it holds.
    pub kind: EntryKind,
    /// Payload length. Bytes.
    pub bytes: u32,
    /// The checksum over its identity and payload.
    pub payload_crc: u32,
    pub(super) place: Place,
}

/// The entries `(base, last]`.
#[derive(Debug)]
pub(super) struct Locations {
    base: LogPosition,
    list: VecDeque<Meta>,
}

impl Locations {
    /// No entries, on top of `base`.
    pub(super) fn new(base: LogPosition) -> Locations {
        Locations { base, list: VecDeque::new() }
    }

    pub(super) fn last(&self) -> LogPosition {
        match self.list.back() {
            None => self.base,
            Some(meta) => LogPosition::new(meta.term, self.last_index()),
        }
    }

    fn last_index(&self) -> LogIndex {
        self.base.index.advanced_by(u64::try_from(self.list.len()).expect("a length fits"))
    }

    /// The entry at `index`, if it is there.
    pub(super) fn get(&self, index: LogIndex) -> Option<&Meta> {
        if index <= self.base.index || index > self.last_index() {
            return None;
        }
        self.list.get(self.slot(index))
    }

    /// The term of the entry at `index`, or of the base.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.get(index).map(|meta| meta.term)
    }

    /// Appends the entry after the last one.
    pub(super) fn push(&mut self, index: LogIndex, meta: Meta) {
        assert_eq!(index, self.last_index().next(), "entries are appended in order");
        assert!(meta.term >= self.last().term, "terms do not decrease along a log");
        self.list.push_back(meta);
    }

    /// Forgets everything after `index`.
    pub(super) fn truncate(&mut self, index: LogIndex) {
        assert!(index >= self.base.index, "what a base covers is committed");
        if index < self.last_index() {
            self.list.truncate(self.slot(index.next()));
        }
    }

    /// All entries with their indexes, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (LogIndex, &Meta)> {
        let mut index = self.base.index;
        self.list.iter().map(move |meta| {
            index = index.next();
            (index, meta)
        })
    }

    fn slot(&self, index: LogIndex) -> usize {
        usize::try_from(index.count_since(self.base.index.next())).expect("a slot of a list")
    }
}
