//! Ranges of more keys than a server sorts: whoever asks reads all of them by key, and puts them
//! into the order itself. protocol.md, Range.

use std::cmp::Ordering;

use crate::types::Revision;

use super::client::{Order, RangeArgs, Selection, SortBy};

/// A key and all about it, as whoever asked keeps it.
pub trait Sortable {
    /// Which of two is less.
    fn compare(&self, other: &Self, by: SortBy) -> Ordering;

    /// Forgets the value.
    fn clear_value(&mut self);
}

impl<'a> RangeArgs<'a> {
    /// Whether keys are missing that no limit leaves out: so many came, and `more` says that there
    /// are others.
    pub fn is_cut(&self, came: usize, more: bool) -> bool {
        let came = u64::try_from(came).unwrap_or(u64::MAX);
        more && came > 0 && (self.limit == 0 || came < self.limit)
    }

    /// All of the range by key, with what it is to be sorted by. `newest`: the store's revision as
    /// an answer to this range said it.
    pub fn by_key(&self, newest: Revision) -> RangeArgs<'a> {
        let Selection { by, .. } = self.selection;
        RangeArgs {
            limit: 0,
            revision: if self.revision == Revision(0) { newest } else { self.revision },
            keys_only: self.keys_only && by != SortBy::Value,
            selection: Selection { by: SortBy::Key, order: Order::Unsorted, ..self.selection },
            ..*self
        }
    }

    /// Makes the answer to this range of what `by_key` has found. Returns whether the range has
    /// more keys than the limit leaves.
    pub fn sort<T: Sortable>(&self, kvs: &mut Vec<T>) -> bool {
        let Selection { by, order, .. } = self.selection;
        // Equals stay in the order of their keys, whichever way it goes.
        kvs.sort_by(|one, two| match order {
            Order::Unsorted | Order::Ascend => one.compare(two, by),
            Order::Descend => two.compare(one, by),
        });
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = limit > 0 && limit < kvs.len();
        if more {
            kvs.truncate(limit);
        }
        if self.keys_only {
            kvs.iter_mut().for_each(T::clear_value);
        }
        more
    }
}
