//! What the history holds and in which order it goes.
//!
//! Each change queues what it will let go: the version it superseded, due once the store is
//! compacted to the change's revision; a tombstone, due one revision later, so that a watch from
//! the compaction revision on still sees the deletion, as etcd once did not. The queue is in the
//! order of those revisions, so compaction costs what it frees and nothing else.
//!
//! Bytes are counted as the queue is filled, and a compaction is counted at once although its
//! memory is freed later. So the figures depend on the commands alone, not on how far the freeing
//! has come.

use crate::types::Revision;

use super::keys::KeyId;
use super::queue::Queue;
use super::versions::VersionId;

/// What a superseded version counts for beside its value: what stands before that, its place in the
/// queue, what is rounded up. It takes somewhat less; but what counts decides what is compacted, so
/// all servers of a cluster count alike, whatever they keep it in. Bytes.
const VERSION_BYTES: u64 = 112;

/// What a deleted key costs beside its name, twice: entry, version, index, ordered map, queue.
/// Bytes.
const TOMBSTONE_BYTES: u64 = 256;

/// What can be given up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spent {
    /// A version that has a newer one.
    Superseded(VersionId),
    /// A key, if its newest version is still the tombstone queued here.
    Tombstone(KeyId),
}

#[derive(Clone, Copy)]
struct Due {
    /// The compaction revision from which on it can go.
    revision: Revision,
    /// The bytes ever queued, this one included.
    bytes_after: u64,
    spent: Spent,
}

/// The queue of what compaction gives up.
pub(super) struct History {
    queue: Queue<Due>,
    queued_bytes: u64,
    compacted_bytes: u64,
}

impl History {
    pub(super) fn new() -> History {
        History { queue: Queue::new(), queued_bytes: 0, compacted_bytes: 0 }
    }

    /// Bytes of history that are not compacted.
    pub(super) fn bytes(&self) -> u64 {
        self.queued_bytes - self.compacted_bytes
    }

    /// Queues a version with a value that the change at `by` superseded.
    pub(super) fn supersede_value(&mut self, by: Revision, version: VersionId, value_bytes: u32) {
        self.queued_bytes += VERSION_BYTES + u64::from(value_bytes);
        self.push(by, Spent::Superseded(version));
    }

    /// Queues a tombstone that the put at `by` superseded. It was counted when it was made; and if
    /// the key had been freed in time there would be nothing to count.
    pub(super) fn supersede_tombstone(&mut self, by: Revision, version: VersionId) {
        self.push(by, Spent::Superseded(version));
    }

    /// Queues a key deleted at `by`. After all that `by` supersedes and before the next revision.
    pub(super) fn bury(&mut self, by: Revision, key: KeyId, key_bytes: usize) {
        let names = 2 * u64::try_from(key_bytes).expect("limits.rs bounds every key");
        self.queued_bytes += TOMBSTONE_BYTES + names;
        self.push(by.next(), Spent::Tombstone(key));
    }

    fn push(&mut self, revision: Revision, spent: Spent) {
        // Compaction and `pop_due` rely on it.
        assert!(self.queue.back().is_none_or(|last| last.revision <= revision));
        self.queue.push_back(Due { revision, bytes_after: self.queued_bytes, spent });
    }

    /// Counts everything due at `revision` as gone.
    pub(super) fn compact(&mut self, revision: Revision) {
        if let Some(gone) = self.last_due(revision).map(|last| last.bytes_after) {
            assert!(self.compacted_bytes <= gone);
            self.compacted_bytes = gone;
        }
    }

    /// The last thing in the queue that is due at `revision`.
    fn last_due(&self, revision: Revision) -> Option<&Due> {
        let count = self.queue.partition_point(|due| due.revision <= revision);
        count.checked_sub(1).and_then(|at| self.queue.get(at))
    }

    /// Takes the next thing that can go and the revision it was due at, now that the store is
    /// compacted to `revision`.
    #[inline]
    pub(super) fn pop_due(&mut self, revision: Revision) -> Option<(Revision, Spent)> {
        match self.queue.front() {
            Some(due) if due.revision <= revision => {
                self.queue.pop_front().map(|due| (due.revision, due.spent))
            }
            Some(_) | None => None,
        }
    }

    /// What a compaction to a revision leaves. Bytes.
    pub(super) fn bytes_left_by(&self, revision: Revision) -> u64 {
        let last = self.last_due(revision);
        let gone = last.map_or(0, |last| last.bytes_after).max(self.compacted_bytes);
        self.queued_bytes - gone
    }

    /// What is compacted, due above a revision, and not freed. Bytes.
    pub(super) fn compacted_after(&self, revision: Revision) -> u64 {
        // What is freed is not in the queue any more: then the first in it tells, and if there is
        // none, all is freed.
        let before = self.last_due(revision).or_else(|| self.queue.front());
        let before = before.map_or(self.compacted_bytes, |due| due.bytes_after);
        self.compacted_bytes.saturating_sub(before)
    }

    /// How many things wait in it.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}
