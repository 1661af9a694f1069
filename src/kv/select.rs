//! Which keys of a range are answered, and in which order: etcd's filters and sorts.

use crate::types::Revision;

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

    /// Whether the order is known only once all keys have been seen: it is by something else.
    pub fn sorts(&self) -> bool {
        self.by != SortBy::Key
    }

    /// Whether the greatest key comes first.
    pub fn is_backwards(&self) -> bool {
        self.by == SortBy::Key && self.order == Order::Descend
    }

    /// Whether keys are left out.
    pub fn filters(&self) -> bool {
        let all = RevisionSpan::default();
        self.mod_revision != all || self.create_revision != all
    }

    pub(super) fn takes(&self, version: &Version<'_>) -> bool {
        self.mod_revision.holds(version.mod_revision)
            && self.create_revision.holds(version.create_revision)
    }
}
