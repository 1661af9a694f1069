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

#[cfg(test)]
mod tests {
    use super::*;

    /// A key's name, its version and its value.
    #[derive(Clone, PartialEq, Eq, Debug)]
    struct Row(&'static str, u64, &'static str);

    impl Sortable for Row {
        fn compare(&self, other: &Row, by: SortBy) -> Ordering {
            match by {
                SortBy::Version => self.1.cmp(&other.1),
                SortBy::Value => self.2.cmp(other.2),
                SortBy::Key | SortBy::Create | SortBy::Mod => self.0.cmp(other.0),
            }
        }

        fn clear_value(&mut self) {
            self.2 = "";
        }
    }

    fn args(by: SortBy, order: Order, limit: u64) -> RangeArgs<'static> {
        let selection = Selection { by, order, ..Selection::ALL };
        RangeArgs { limit, selection, ..RangeArgs::of_key(b"a") }
    }

    fn sorted(args: &RangeArgs<'_>) -> (String, bool) {
        let mut rows = vec![Row("a", 2, "z"), Row("b", 1, "y"), Row("c", 2, "x"), Row("d", 1, "w")];
        let more = args.sort(&mut rows);
        (rows.iter().map(|row| row.0).collect(), more)
    }

    #[test]
    fn equals_stay_in_the_order_of_their_keys_whichever_way_it_goes() {
        let cases = [
            (SortBy::Version, Order::Unsorted, 0, "bdac", false),
            (SortBy::Version, Order::Ascend, 3, "bda", true),
            (SortBy::Version, Order::Descend, 4, "acbd", false),
            (SortBy::Value, Order::Ascend, 1, "d", true),
            (SortBy::Value, Order::Descend, 9, "abcd", false),
        ];
        for (by, order, limit, names, more) in cases {
            assert_eq!(
                sorted(&args(by, order, limit)),
                (names.to_owned(), more),
                "{by:?} {order:?}"
            );
        }
    }

    #[test]
    fn an_answer_is_cut_if_no_limit_leaves_out_what_is_missing() {
        let cut = |limit, came, more| args(SortBy::Mod, Order::Ascend, limit).is_cut(came, more);
        assert!(cut(0, 5, true) && cut(6, 5, true));
        assert!(!cut(5, 5, true) && !cut(0, 5, false) && !cut(0, 0, true));
    }

    #[test]
    fn values_are_read_to_sort_by_them_and_not_answered() {
        let keys_only = RangeArgs { keys_only: true, ..args(SortBy::Value, Order::Ascend, 2) };
        let by_key = keys_only.by_key(Revision(7));
        assert_eq!((by_key.keys_only, by_key.limit, by_key.revision), (false, 0, Revision(7)));
        assert!(!by_key.selection.sorts());
        let past = RangeArgs { revision: Revision(3), ..args(SortBy::Mod, Order::Ascend, 2) };
        assert_eq!(past.by_key(Revision(7)).revision, Revision(3));
        let mut rows = vec![Row("a", 1, "z"), Row("b", 1, "y")];
        assert!(!keys_only.sort(&mut rows));
        assert_eq!(rows, [Row("b", 1, ""), Row("a", 1, "")]);
    }
}
