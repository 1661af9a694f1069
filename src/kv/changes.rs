//! Every change since the compaction revision, in the order in which they were made: what a watch
//! reads.
//!
//! ```text
//! ring   (revision, key id, version id) …      16 bytes a change, appended by every put and delete
//! ```
//!
//! Nothing is pinned for whoever reads history. A place in it is a revision and how many of that
//! revision's changes were read, looked up anew each time; and whoever comes back when its revision
//! is compacted hears so. What the ring names is there: a version is freed only when a compaction
//! reaches the revision behind it, and a tombstone the one after its own, and a compaction cuts off
//! everything below its revision at once. Only what is new in a turn is held until it is handed
//! out: a compaction may come in the same entry as the changes that it gives up.
//!
//! Within one revision the order is that in which the changes were made; in a store that came out
//! of a checkpoint it is that of the keys, for a checkpoint does not say.

use std::ops::ControlFlow;

use crate::types::Revision;

use super::Store;
use super::checkpoint::Sliced;
use super::keys::{KeyEntry, KeyId};
use super::queue::Queue;
use super::range::{KeyValueRef, RangeError, key_value};
use super::versions::{Version, VersionId};

/// What a change counts for beside its version. It takes 16 in the ring; but what counts decides
/// what is compacted, so all servers of a cluster count alike, whatever they keep it in. Bytes.
const CHANGE_BYTES: u64 = 24;

/// A key that was put or deleted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) revision: Revision,
    key: KeyId,
    version: VersionId,
}

/// All of them that are not compacted.
pub(super) struct Changes {
    ring: Queue<Change>,
}

impl Changes {
    pub(super) fn new() -> Changes {
        Changes { ring: Queue::new() }
    }

    /// Notes that a revision gave a key a version.
    #[inline]
    pub(super) fn push(&mut self, revision: Revision, key: KeyId, version: VersionId) {
        assert!(self.ring.back().is_none_or(|last| last.revision <= revision));
        self.ring.push_back(Change { revision, key, version });
    }

    /// Forgets what was changed before a revision.
    pub(super) fn cut(&mut self, revision: Revision) {
        self.ring.drop_front(self.place_of(revision));
    }

    /// What the changes from a revision on count for. Bytes.
    pub(super) fn bytes_from(&self, revision: Revision) -> u64 {
        CHANGE_BYTES * u64::try_from(self.count_from(revision)).expect("usize is 64 bits at most")
    }

    fn count_from(&self, revision: Revision) -> usize {
        self.ring.len() - self.place_of(revision)
    }

    /// Where the changes of a revision begin, or those behind it.
    pub(super) fn place_of(&self, revision: Revision) -> usize {
        // Whoever keeps up asks for the end, and whoever counts for all of it.
        if self.ring.back().is_none_or(|last| last.revision < revision) {
            return self.ring.len();
        }
        if self.ring.front().is_some_and(|first| first.revision >= revision) {
            return 0;
        }
        self.ring.partition_point(|change| change.revision < revision)
    }

    #[inline]
    pub(super) fn get(&self, place: usize) -> Option<Change> {
        self.ring.get(place).copied()
    }

    /// Whether the change behind `place` belongs to its revision.
    #[inline]
    pub(super) fn goes_on(&self, place: usize) -> bool {
        let revision = |place| self.get(place).map(|change: Change| change.revision);
        revision(place).is_some() && revision(place) == revision(place + 1)
    }
}

/// Where a reader of the changes goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChangeCursor {
    /// With this revision: everything before it was read.
    pub revision: Revision,
    /// And of it, so many changes.
    pub(super) skip: usize,
}

impl ChangeCursor {
    /// From a revision on.
    pub fn at(revision: Revision) -> ChangeCursor {
        ChangeCursor { revision, skip: 0 }
    }

    /// Whether it stands between two changes of one revision.
    pub fn is_within(&self) -> bool {
        self.skip > 0
    }

    /// Goes on behind the change at a place.
    pub(super) fn pass(&mut self, changes: &Changes, place: usize, revision: Revision) {
        *self = if changes.goes_on(place) {
            let before = if self.revision == revision { self.skip } else { 0 };
            ChangeCursor { revision, skip: before + 1 }
        } else {
            ChangeCursor::at(revision.next())
        };
    }
}

/// A change of one key. Borrowed from the store.
#[derive(Clone, Copy)]
pub struct Event<'s> {
    store: &'s Store,
    entry: &'s KeyEntry,
    version: Version<'s>,
    /// What this revision and those before it superseded may be gone.
    oldest: Revision,
}

impl<'s> Event<'s> {
    /// The revision that made it.
    pub fn revision(&self) -> Revision {
        Revision(self.version.mod_revision)
    }

    /// The key.
    pub fn key(&self) -> &'s [u8] {
        self.entry.name()
    }

    /// Whether the key was deleted.
    pub fn is_delete(&self) -> bool {
        self.version.is_tombstone()
    }

    /// The key as it was from then on. Of a deleted one there is the name and the revision.
    pub fn kv(&self) -> KeyValueRef<'s> {
        key_value(self.entry, self.version)
    }

    /// The key as it was before. `None`: there was none, or that is compacted.
    pub fn before(&self) -> Option<KeyValueRef<'s>> {
        if self.revision() <= self.oldest || self.version.older == VersionId::NONE {
            return None;
        }
        let before = self.store.versions.at(self.version.older);
        if before.is_tombstone() { None } else { Some(key_value(self.entry, before)) }
    }
}

impl Store {
    /// The revision of the first change that can be read: the compaction revision, or what is held.
    pub(super) fn first_change(&self) -> Revision {
        self.held.map_or(self.compact_revision, |held| held.min(self.compact_revision))
    }

    /// What this revision and those before it superseded may be gone.
    pub(super) fn given_up(&self) -> Revision {
        // What the first change that is held superseded was due at that change.
        let held = self.held.map(|held| Revision(held.0.saturating_sub(1)));
        held.map_or(self.compact_revision, |held| held.min(self.compact_revision))
    }

    /// How many changes there are from a revision on.
    pub(super) fn changes_from(&self, revision: Revision) -> usize {
        self.changes.count_from(revision)
    }

    /// Keeps what was changed from a revision on, compacted or not, and lets go of what was kept
    /// before: for whoever is to hear of it soon.
    pub fn hold_changes(&mut self, from: Option<Revision>) {
        // What is gone does not come back: another store may have taken the place of the one that
        // kept it.
        self.held = from.map(|from| from.max(self.given_up().next()));
        self.changes.cut(self.first_change());
    }

    /// A change; what revisions up to `oldest` superseded may be gone.
    pub(super) fn event(&self, change: Change, oldest: Revision) -> Event<'_> {
        let Change { revision, key, version } = change;
        let (entry, version) = (self.keys.at(key), self.versions.at(version));
        assert_eq!(version.mod_revision, revision.0, "a version in the ring is there");
        Event { store: self, entry, version, oldest }
    }

    /// Visits the changes from the cursor on, up to `steps` of them or until `visit` breaks, and
    /// moves the cursor behind the last one visited. `Done`: there are no more, and it stands
    /// behind the newest revision.
    pub fn read_changes<'s>(
        &'s self,
        cursor: &mut ChangeCursor,
        steps: usize,
        visit: &mut dyn FnMut(Event<'s>) -> ControlFlow<()>,
    ) -> Result<Sliced, RangeError> {
        // What is held can be read as well: who falls behind in a turn reads on in the same.
        if cursor.revision < self.first_change() {
            return Err(RangeError::Compacted { compact_revision: self.compact_revision });
        }
        let first = self.changes.place_of(cursor.revision) + cursor.skip;
        for place in first..first.saturating_add(steps) {
            let Some(change) = self.changes.get(place) else {
                cursor.skip = 0;
                cursor.revision = cursor.revision.max(self.revision.next());
                return Ok(Sliced::Done);
            };
            cursor.pass(&self.changes, place, change.revision);
            if visit(self.event(change, self.given_up())).is_break() {
                break;
            }
        }
        Ok(Sliced::More)
    }
}
