//! Which keys of a range are answered, and in which order: etcd's filters and sorts.
//!
//! A sorted answer is known only when the whole range has been seen. What is kept until then are
//! references, and no more of them than an answer can hold: the best so far, in a heap whose top is
//! the one to drop. So the memory is bounded by the reply, not by the range.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::limits::RANGE_REPLY_BYTES_MAX;
use crate::types::Revision;

use super::answer::KV_OVERHEAD_BYTES;
use super::keys::KeyEntry;
use super::range::RangeRequest;
use super::versions::Version;

/// What a range is sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum SortBy {
    /// The key.
    #[default]
    Key,
    /// How many puts since its creation.
    Version,
    /// The revision that created it.
    Create,
    /// The revision of the last put.
    Mod,
    /// The value, byte by byte.
    Value,
}

/// In which order a range is answered.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Order {
    /// By key as it is stored; by anything else ascending.
    #[default]
    Unsorted,
    /// The least first.
    Ascend,
    /// The greatest first.
    Descend,
}

/// The revisions from `min` to `max`, both included; 0 is no bound.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RevisionSpan {
    /// The least.
    pub min: Revision,
    /// The greatest.
    pub max: Revision,
}

/// What of a range is answered, and in which order. The default is all, by key.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Selection {
    /// What it is sorted by. Among equals, by key, ascending.
    pub by: SortBy,
    /// Which way.
    pub order: Order,
    /// Only keys last put within this.
    pub mod_revision: RevisionSpan,
    /// Only keys created within this.
    pub create_revision: RevisionSpan,
}

impl SortBy {
    /// The number in requests. etcd's.
    pub const fn code(self) -> u64 {
        match self {
            SortBy::Key => 0,
            SortBy::Version => 1,
            SortBy::Create => 2,
            SortBy::Mod => 3,
            SortBy::Value => 4,
        }
    }

    /// What a number in a request says.
    pub const fn from_code(code: u64) -> Option<SortBy> {
        match code {
            0 => Some(SortBy::Key),
            1 => Some(SortBy::Version),
            2 => Some(SortBy::Create),
            3 => Some(SortBy::Mod),
            4 => Some(SortBy::Value),
            _ => None,
        }
    }
}

impl Order {
    /// The number in requests. etcd's.
    pub const fn code(self) -> u64 {
        match self {
            Order::Unsorted => 0,
            Order::Ascend => 1,
            Order::Descend => 2,
        }
    }

    /// What a number in a request says.
    pub const fn from_code(code: u64) -> Option<Order> {
        match code {
            0 => Some(Order::Unsorted),
            1 => Some(Order::Ascend),
            2 => Some(Order::Descend),
            _ => None,
        }
    }
}

impl RevisionSpan {
    fn holds(self, revision: u64) -> bool {
        let RevisionSpan { min: Revision(min), max: Revision(max) } = self;
        min <= revision && (max == 0 || revision <= max)
    }
}

impl Selection {
    /// Everything, by key.
    pub const ALL: Selection = {
        let all = RevisionSpan { min: Revision(0), max: Revision(0) };
        let (by, order) = (SortBy::Key, Order::Unsorted);
        Selection { by, order, mod_revision: all, create_revision: all }
    };

    /// Whether the order is another than that of the keys.
    pub fn sorts(&self) -> bool {
        self.by != SortBy::Key || self.order == Order::Descend
    }

    /// Whether keys are left out.
    pub fn filters(&self) -> bool {
        let all = RevisionSpan::default();
        self.mod_revision != all || self.create_revision != all
    }

    pub(super) fn takes(&self, version: &Version) -> bool {
        self.mod_revision.holds(version.mod_revision)
            && self.create_revision.holds(version.create_revision)
    }
}

/// A key with a place in the answer.
struct Ranked<'s> {
    entry: &'s KeyEntry,
    version: &'s Version,
    by: SortBy,
    descends: bool,
}

impl Ord for Ranked<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, two) = (self.version, other.version);
        let order = match self.by {
            SortBy::Key => self.entry.name().cmp(other.entry.name()),
            SortBy::Version => one.version.cmp(&two.version),
            SortBy::Create => one.create_revision.cmp(&two.create_revision),
            SortBy::Mod => one.mod_revision.cmp(&two.mod_revision),
            SortBy::Value => one.value().cmp(two.value()),
        };
        let order = if self.descends { order.reverse() } else { order };
        order.then_with(|| self.entry.name().cmp(other.entry.name()))
    }
}

impl PartialOrd for Ranked<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked<'_> {}

/// The first keys of a sorted answer, as far as they have been seen.
pub(super) struct Best<'s> {
    by: SortBy,
    descends: bool,
    keys_only: bool,
    limit: usize,
    heap: BinaryHeap<Ranked<'s>>,
    bytes: usize,
}

impl<'s> Best<'s> {
    pub(super) fn new(request: &RangeRequest<'_>) -> Best<'s> {
        let Selection { by, order, .. } = request.selection;
        let limit = match request.limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let (descends, keys_only) = (order == Order::Descend, request.keys_only);
        Best { by, descends, keys_only, limit, heap: BinaryHeap::new(), bytes: 0 }
    }

    pub(super) fn consider(&mut self, entry: &'s KeyEntry, version: &'s Version) {
        let (by, descends) = (self.by, self.descends);
        let ranked = Ranked { entry, version, by, descends };
        self.bytes += self.bytes_of(&ranked);
        self.heap.push(ranked);
        while let Some(last) = self.heap.peek() {
            // What stands before the last one fills a reply by itself: the last one is never sent.
            let without = self.bytes - self.bytes_of(last);
            if self.heap.len() <= self.limit && without < RANGE_REPLY_BYTES_MAX {
                break;
            }
            self.bytes = without;
            self.heap.pop();
        }
    }

    /// The keys in the order of the answer.
    pub(super) fn into_sorted(self) -> impl Iterator<Item = (&'s KeyEntry, &'s Version)> {
        self.heap.into_sorted_vec().into_iter().map(|ranked| (ranked.entry, ranked.version))
    }

    fn bytes_of(&self, ranked: &Ranked<'_>) -> usize {
        let value = if self.keys_only { 0 } else { ranked.version.value().len() };
        KV_OVERHEAD_BYTES + ranked.entry.name().len() + value
    }
}
