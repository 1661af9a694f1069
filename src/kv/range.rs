//! Reads: one key or a range of them, now or at an earlier revision. etcd's `Range`.

use std::error::Error;
use std::fmt;
use std::hint::black_box;
use std::ops::{Bound, ControlFlow};

use crate::types::Revision;

use super::Store;
use super::checkpoint::{SliceLimits, Sliced};
use super::command::RangeEnd;
use super::index::KeyHash;
use super::keys::{KeyEntry, KeyId};
use super::select::Selection;
use super::versions::{Version, VersionId};

/// Keys warmed at once: about as many misses as a core keeps in flight..
const WARM_MAX: usize = 16;

/// What to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeRequest<'a> {
    /// The first key.
    pub key: &'a [u8],
    /// Where the range ends.
    pub end: RangeEnd<'a>,
    /// At most this many keys; 0 is no limit.
    pub limit: u64,
    /// As the store was then; 0 is now.
    pub revision: Revision,
    /// Leave the values empty.
    pub keys_only: bool,
    /// Visit nothing, only count.
    pub count_only: bool,
    /// Which keys, and in which order.
    pub selection: Selection,
}

/// A key as it is, or was at the revision asked for. Borrowed from the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyValueRef<'a> {
    /// Its name.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// The revision of the put that created it.
    pub create_revision: Revision,
    /// The revision of the last put.
    pub mod_revision: Revision,
    /// How many puts since its creation, that one included.
    pub version: u64,
    /// The lease it hangs on; 0 is none.
    pub lease: u64,
}

/// What a range read found beside the keys visited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeSummary {
    /// The store's revision, whatever revision was read.
    pub revision: Revision,
    /// How many keys the range has at the revision read, beyond the limit and the filters as well.
    pub count: u64,
    /// Whether the limit or the visitor left keys out, beside those that the filters did. Never so
    /// if only counting.
    pub more: bool,
}

/// Why a revision cannot be read, or compacted to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeError {
    /// Its history was given up.
    Compacted {
        /// The oldest revision that is still there.
        compact_revision: Revision,
    },
    /// It has not been made.
    Future {
        /// The newest revision there is.
        revision: Revision,
    },
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RangeError::Compacted { compact_revision } => {
                write!(f, "the revision has been compacted, the oldest is {compact_revision}")
            }
            RangeError::Future { revision } => {
                write!(f, "the revision is in the future, the newest is {revision}")
            }
        }
    }
}

impl Error for RangeError {}

impl Store {
    /// The key as it is now.
    pub fn get(&self, key: &[u8]) -> Option<KeyValueRef<'_>> {
        self.get_hashed(self.index.hash(key), key)
    }

    pub(super) fn get_hashed(&self, hash: KeyHash, key: &[u8]) -> Option<KeyValueRef<'_>> {
        let entry = self.keys.at(self.find(hash, key)?);
        if entry.is_live() { Some(key_value(entry, self.versions.at(entry.newest))) } else { None }
    }

    /// Loads what reading each of `keys` will load, all of it at the same time: one read after the
    /// other
    /// would wait for every line of memory in turn. Changes nothing; more than 16 keys are passed
    /// over.
    pub fn warm<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut hashes = [KeyHash::default(); WARM_MAX];
        let mut count = 0;
        for (place, key) in hashes.iter_mut().zip(keys) {
            *place = self.index.hash(key);
            count += 1;
        }
        let hashes = &hashes[..count];
        black_box(hashes.iter().fold(0, |seen, hash| seen ^ self.index.touch(*hash)));
        let mut newest = [None; WARM_MAX];
        for (place, hash) in newest.iter_mut().zip(hashes) {
            *place = self.index.candidate(*hash).map(|id| self.keys.at(id).newest);
        }
        let found = || newest.iter().flatten();
        black_box(found().fold(0, |seen, id| seen ^ self.versions.at(*id).mod_revision));
        let first = |id: &VersionId| self.versions.at(*id).value().first().copied();
        black_box(found().filter_map(first).fold(0, |seen, byte| seen ^ byte));
    }

    /// Visits the selected keys of a range, in ascending order if no other is asked for, until the
    /// limit, or until `visit` breaks: the key it breaks at counts as left out. A walk over the
    /// whole range at once, because all of it is counted; `walk` does it in slices.
    pub fn range(
        &self,
        request: &RangeRequest<'_>,
        visit: &mut dyn FnMut(KeyValueRef<'_>) -> ControlFlow<()>,
    ) -> Result<RangeSummary, RangeError> {
        self.range_counted(request, &mut 0, visit)
    }

    /// The same; adds the steps that it takes.
    pub(super) fn range_counted(
        &self,
        request: &RangeRequest<'_>,
        walked: &mut usize,
        visit: &mut dyn FnMut(KeyValueRef<'_>) -> ControlFlow<()>,
    ) -> Result<RangeSummary, RangeError> {
        let mut walk = self.begin_walk(request)?;
        let mut all = SliceLimits { steps: usize::MAX, bytes: usize::MAX };
        let sliced = self.walk(request, &mut walk, &mut all, visit);
        assert_eq!(sliced, Sliced::Done, "a slice without an end holds everything");
        *walked += usize::MAX - all.steps;
        Ok(walk.summary(request))
    }

    /// Looks at the keys of a range that have versions, in ascending order.
    pub(super) fn each_entry<'s>(
        &'s self,
        key: &[u8],
        end: RangeEnd<'_>,
        mut look: impl FnMut(&'s KeyEntry),
    ) {
        match end {
            RangeEnd::Key => {
                if let Some(id) = self.find(self.index.hash(key), key) {
                    look(self.keys.at(id));
                }
            }
            RangeEnd::Unbounded | RangeEnd::Before(_) => {
                for (_, id) in self.ids_in(key, end) {
                    look(self.keys.at(id));
                }
            }
        }
    }

    /// The revision that a request for `revision` reads.
    pub(super) fn readable(&self, revision: Revision) -> Result<Revision, RangeError> {
        if revision == Revision(0) {
            return Ok(self.revision);
        }
        if revision > self.revision {
            return Err(RangeError::Future { revision: self.revision });
        }
        if revision < self.compact_revision {
            return Err(RangeError::Compacted { compact_revision: self.compact_revision });
        }
        Ok(revision)
    }

    /// The keys of a range that have versions, in ascending order.
    pub(super) fn ids_in<'s>(
        &'s self,
        key: &[u8],
        end: RangeEnd<'_>,
    ) -> impl Iterator<Item = (&'s [u8], KeyId)> {
        let last = match end {
            RangeEnd::Key => Bound::Included(key),
            RangeEnd::Unbounded => Bound::Unbounded,
            // The map panics if a range ends before it starts; ours is then empty.
            RangeEnd::Before(end) => Bound::Excluded(end.max(key)),
        };
        let bounds = (Bound::Included(key), last);
        self.ordered.range::<[u8], _>(bounds).map(|(name, id)| (&**name, *id))
    }
}

pub(super) fn key_value<'s>(entry: &'s KeyEntry, version: Version<'s>) -> KeyValueRef<'s> {
    KeyValueRef {
        key: entry.name(),
        value: version.value(),
        create_revision: Revision(version.create_revision),
        mod_revision: Revision(version.mod_revision),
        version: version.version,
        lease: version.lease,
    }
}
