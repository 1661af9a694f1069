//! Changes: put, compact; and the freeing that follows a compaction in small steps.
//!
//! A key's versions form a chain, newest first. The chain is never repaired when its end is freed:
//! a version is freed only when the store is compacted to the revision that superseded it, and from
//! then on every readable revision finds the superseding version first. So a link is followed only
//! from a version newer than the revision asked for, hence newer than the compaction revision, and
//! what such a version superseded is still there.

use crate::types::Revision;

use super::Store;
use super::hash::{self, LiveVersion};
use super::history::Spent;
use super::index::KeyHash;
use super::keys::KeyId;
use super::range::RangeError;
use super::versions::{NewVersion, VersionId};

/// Buckets of the index carried over for one unit of `tidy`: one cache line.
const BUCKETS_PER_WORK: usize = 8;

/// What a key is set to.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewValue<'a> {
    pub(super) value: &'a [u8],
    pub(super) lease: u64,
}

impl Store {
    /// Sets a key.
    pub(super) fn put(&mut self, hash: KeyHash, key: &[u8], value: &[u8]) -> Revision {
        let revision = self.revision.next();
        self.set(revision, hash, key, NewValue { value, lease: 0 });
        revision
    }

    /// Sets a key at a revision: the next one, or the newest, if it is being made and has not
    /// changed this key.
    pub(super) fn set(&mut self, revision: Revision, hash: KeyHash, key: &[u8], new: NewValue<'_>) {
        assert!(self.makes(revision), "{revision} is made after {}", self.revision);
        let NewValue { value, lease } = new;
        let id = match self.find(hash, key) {
            Some(id) => id,
            None => self.add_key(hash, key),
        };
        let entry = self.keys.at_mut(id);
        let older = entry.newest;
        let leased = entry.is_leased();
        if entry.is_live() {
            self.history.supersede_value(revision, older, entry.value_bytes());
            self.live.hash = self.live.hash.wrapping_sub(entry.contribution);
            self.live.bytes -= u64::from(entry.value_bytes());
        } else {
            if older != VersionId::NONE {
                self.history.supersede_tombstone(revision, older);
            }
            self.live.keys += 1;
            self.live.bytes += bytes_u64(key);
            entry.create_revision = revision.0;
        }
        entry.version += 1;
        entry.set_value(value, lease);
        let (create_revision, version) = (entry.create_revision, entry.version);
        let mod_revision = revision.0;
        let live = LiveVersion { key, value, create_revision, mod_revision, version, lease };
        entry.contribution = hash::of_live(&live);
        self.live.hash = self.live.hash.wrapping_add(entry.contribution);
        self.live.bytes += u64::from(entry.value_bytes());
        let new = NewVersion { mod_revision, create_revision, version, lease, older };
        entry.newest = self.versions.insert(new, value);
        if leased || lease != 0 {
            let before = if leased { self.versions.at(older).lease } else { 0 };
            self.leases.change(id, before, lease);
        }
        self.changes.push(revision, id, entry.newest);
        self.revision = revision;
    }

    /// Sets a key whose mod revision is `expected`, 0 for none. The error is what it is instead.
    pub(super) fn put_if(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        value: &[u8],
        expected: Revision,
    ) -> Result<Revision, Revision> {
        let entry = self.find(hash, key).map(|id| self.keys.at(id));
        let live = entry.filter(|entry| entry.is_live());
        let newest = live.map(|entry| self.versions.at(entry.newest).mod_revision);
        let found = Revision(newest.unwrap_or_default());
        if found == expected { Ok(self.put(hash, key, value)) } else { Err(found) }
    }

    /// Whether a change may be of this revision: the next one, or the one that is being made.
    pub(super) fn makes(&self, revision: Revision) -> bool {
        revision == self.revision || revision == self.revision.next()
    }

    /// Gives up what only revisions below `revision` can see. At once for every reader and every
    /// figure; the memory follows with `tidy` and with later changes.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<(), RangeError> {
        if revision > self.revision {
            return Err(RangeError::Future { revision: self.revision });
        }
        if revision <= self.compact_revision {
            return Err(RangeError::Compacted { compact_revision: self.compact_revision });
        }
        self.compact_revision = revision;
        self.history.compact(revision);
        self.changes.cut(self.first_change());
        Ok(())
    }

    /// Makes this the first state of a new cluster. Its revision is higher by `bump`, which is more
    /// than the old cluster can have handed out since, and all before it is compacted: who followed
    /// the old cluster hears that it must read again. Its sessions end: what their calls did since
    /// the snapshot is not known here. Its leases begin their time anew, and new ones get numbers
    /// that the old cluster cannot have given: `bump` is more than its grants since, too. Panics
    /// while a checkpoint is pinned.
    pub fn begin_anew(&mut self, bump: u64) {
        assert!(self.pinned.is_none(), "nobody looks at the state before");
        self.sessions.end_all();
        self.forget_dues();
        self.leases.skip_grants(bump);
        self.auth.skip_credentials(bump);
        self.revision = Revision(self.revision.0.saturating_add(bump));
        // Refused if everything before it is compacted already.
        let _compacted = self.compact(self.revision);
    }

    /// The revision to compact to, if the history exceeds its bound: the one that leaves half of
    /// the bound. The leader proposes it as a `Compact` command, once: until that is applied, the
    /// answer stays. Later ones may name a larger revision; a smaller one is refused when it is
    /// applied.
    pub fn compaction_due(&self) -> Option<Revision> {
        let surplus = self.history_bytes() > self.history_bytes_max;
        if !surplus || self.compact_revision == self.revision {
            return None;
        }
        // The least that leaves little enough; if none does, everything before the newest goes.
        let (mut leaves_more, mut revision) = (self.compact_revision.0, self.revision.0);
        while leaves_more + 1 < revision {
            let between = leaves_more + (revision - leaves_more) / 2;
            if self.bytes_left_by(Revision(between)) <= self.history_bytes_max / 2 {
                revision = between;
            } else {
                leaves_more = between;
            }
        }
        Some(Revision(revision))
    }

    /// What of the history a compaction to a revision leaves. Bytes.
    fn bytes_left_by(&self, revision: Revision) -> u64 {
        self.history.bytes_left_by(revision) + self.changes.bytes_from(revision)
    }

    /// Frees up to `work` versions or keys that a compaction gave up, and carries over that many
    /// lines of a growing index: some 50 ns each, 1 µs for a key. To be called once a turn; nothing
    /// depends on it but memory.
    pub fn tidy(&mut self, work: usize) {
        self.index.step(work.saturating_mul(BUCKETS_PER_WORK));
        self.to_free = self.to_free.saturating_sub(self.free_due(work));
    }

    /// What was due at this revision may be freed: a checkpoint or a walk may still need the rest.
    fn freeable(&self) -> Revision {
        let walks = self.walks.first_key_value().map(|(lowest, _)| *lowest);
        self.pinned.into_iter().chain(walks).fold(self.given_up(), Revision::min)
    }

    /// Frees up to `count` versions or keys that a compaction gave up; says how many.
    pub(super) fn free_due(&mut self, count: usize) -> usize {
        for freed in 0..count {
            let Some((due, spent)) = self.history.pop_due(self.freeable()) else { return freed };
            match spent {
                Spent::Superseded(version) => self.versions.remove(version),
                Spent::Tombstone(id) => self.forget(due, id),
            }
        }
        count
    }

    /// Frees up to `count` of what ends of ranges and of leases have left. Else keys that come one
    /// by one and go together would be more with each round, under a load that leaves no turn for
    /// `tidy`: each put frees one thing, and each key that goes leaves two.
    pub(super) fn free_more(&mut self, count: usize) {
        self.to_free -= self.free_due(count.min(self.to_free));
    }

    /// Forgets a key whose tombstone was due at `due`, unless it was put again since.
    fn forget(&mut self, due: Revision, id: KeyId) {
        let entry = self.keys.at(id);
        if entry.is_live() {
            return;
        }
        let tombstone = self.versions.at(entry.newest);
        assert!(tombstone.is_tombstone(), "a deleted key's newest version is a tombstone");
        if Revision(tombstone.mod_revision).next() != due {
            return;
        }
        let name = entry.name();
        self.index.remove(self.index.hash(name), id);
        let removed = self.ordered.remove(name);
        assert_eq!(removed, Some(id), "the ordered map and the index hold the same keys");
        self.versions.remove(entry.newest);
        self.keys.remove(id);
    }

    #[inline]
    pub(super) fn find(&self, hash: KeyHash, key: &[u8]) -> Option<KeyId> {
        self.index.find(hash, |id| self.keys.is_named(id, key))
    }

    pub(super) fn add_key(&mut self, hash: KeyHash, key: &[u8]) -> KeyId {
        let id = self.keys.insert(key);
        self.index.insert(hash, id);
        let replaced = self.ordered.insert(key.into(), id);
        assert!(replaced.is_none(), "the ordered map and the index hold the same keys");
        id
    }
}

fn bytes_u64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("usize is 64 bits at most")
}
