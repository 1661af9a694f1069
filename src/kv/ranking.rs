//! The first keys of a sorted answer, as far as they have been seen.
//!
//! What the order is, is known only when the whole range has been seen. What is kept until then are
//! ids, 16 bytes a key, and no more keys than an answer has: the best so far, in a heap whose top
//! is the one to drop. So the memory is bounded by the answer, not by the range. In the end the
//! heap is taken apart where it lies, from the top, and is in order.
//!
//! Why not the standard library's heap: its order must not depend on anything beside the items, and
//! here keys and values are the store's.

use std::cmp::Ordering;

use crate::limits::SORTED_KEYS_MAX;

use super::Store;
use super::keys::KeyId;
use super::range::RangeRequest;
use super::select::{Order, Selection, SortBy};
use super::versions::VersionId;
use super::walk::Slice;

/// A key with a place in the answer.
#[derive(Clone, Copy, Debug)]
struct Ranked {
    key: KeyId,
    version: VersionId,
    /// What it is sorted by, if that is a number.
    rank: u64,
}

/// The best keys so far.
#[derive(Debug)]
pub(super) struct Ranking {
    by: SortBy,
    descends: bool,
    keys_max: usize,
    heap: Vec<Ranked>,
}

impl Ranking {
    pub(super) fn new(request: &RangeRequest<'_>) -> Ranking {
        let Selection { by, order, .. } = request.selection;
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let keys_max = if limit == 0 { SORTED_KEYS_MAX } else { limit.min(SORTED_KEYS_MAX) };
        Ranking { by, descends: order == Order::Descend, keys_max, heap: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.heap.capacity() * size_of::<Ranked>()
    }

    /// The `nth` key, once all are in order.
    pub(super) fn at(&self, nth: usize) -> Option<(KeyId, VersionId)> {
        self.heap.get(nth).map(|ranked| (ranked.key, ranked.version))
    }

    /// Takes a key in, if it is one of the best.
    pub(super) fn consider(
        &mut self,
        store: &Store,
        (key, version): (KeyId, VersionId),
        slice: &mut Slice<'_>,
    ) {
        let found = store.versions.at(version);
        let rank = match self.by {
            SortBy::Key | SortBy::Value => 0,
            SortBy::Version => found.version,
            SortBy::Create => found.create_revision,
            SortBy::Mod => found.mod_revision,
        };
        let ranked = Ranked { key, version, rank };
        if self.heap.len() < self.keys_max {
            self.heap.push(ranked);
            slice.spend(self.depth());
            self.sift_up(store, self.heap.len() - 1, slice);
        } else if self.compare(store, (&ranked, &self.heap[0]), slice).is_lt() {
            self.heap[0] = ranked;
            slice.spend(2 * self.depth());
            self.sift_down(store, (0, self.heap.len()), slice);
        }
    }

    /// Puts the last of the `unordered` first ones where they belong, as far as the slice goes, and
    /// says how many are left.
    pub(super) fn order(
        &mut self,
        store: &Store,
        mut unordered: usize,
        slice: &mut Slice<'_>,
    ) -> usize {
        while unordered > 0 && slice.goes_on() {
            slice.spend(2 * self.depth());
            unordered -= 1;
            self.heap.swap(0, unordered);
            self.sift_down(store, (0, unordered), slice);
        }
        unordered
    }

    /// How many comparisons lead from the top to the bottom, at least one.
    fn depth(&self) -> usize {
        usize::try_from(self.heap.len().max(2).ilog2()).expect("at most 64")
    }

    fn sift_up(&mut self, store: &Store, mut at: usize, slice: &mut Slice<'_>) {
        while at > 0 {
            let above = (at - 1) / 2;
            if self.compare_at(store, (at, above), slice).is_le() {
                break;
            }
            self.heap.swap(at, above);
            at = above;
        }
    }

    /// Moves one down within the first `count`.
    fn sift_down(&mut self, store: &Store, (mut at, count): (usize, usize), slice: &mut Slice<'_>) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            if left >= count {
                break;
            }
            let goes_right = right < count && self.compare_at(store, (right, left), slice).is_gt();
            let below = if goes_right { right } else { left };
            if self.compare_at(store, (below, at), slice).is_le() {
                break;
            }
            self.heap.swap(at, below);
            at = below;
        }
    }

    fn compare_at(
        &self,
        store: &Store,
        (one, two): (usize, usize),
        slice: &mut Slice<'_>,
    ) -> Ordering {
        self.compare(store, (&self.heap[one], &self.heap[two]), slice)
    }

    /// Which of two comes first. Equals are in the order of their keys, whichever way it goes.
    /// Counts what may have to be looked at: large values may differ in the last byte, or nowhere.
    fn compare(
        &self,
        store: &Store,
        (one, two): (&Ranked, &Ranked),
        slice: &mut Slice<'_>,
    ) -> Ordering {
        let name = |ranked: &Ranked| store.keys.at(ranked.key).name();
        let value = |ranked: &Ranked| store.versions.at(ranked.version).value();
        let mut compare = |one: &[u8], two: &[u8]| {
            slice.spend_bytes(one.len().min(two.len()));
            one.cmp(two)
        };
        let order = match self.by {
            SortBy::Key => compare(name(one), name(two)),
            SortBy::Version | SortBy::Create | SortBy::Mod => one.rank.cmp(&two.rank),
            SortBy::Value => compare(value(one), value(two)),
        };
        let order = if self.descends { order.reverse() } else { order };
        order.then_with(|| compare(name(one), name(two)))
    }
}
