//! Deletes: of one key, or of a range, which may be of any size; whole, or in slices.
//!
//! ```text
//! find      the live keys of the range, in the order of their names   nothing is changed yet: a
//!                                                                     refusal has nothing to undo
//! delete    each gets a tombstone of the revision that is being made
//! bury      the tombstones queue for compaction, behind all that the revision superseded
//! ```
//!
//! A range of a million keys takes 100 to 200 ms, and nobody is to wait so long for the loop. So a
//! delete that is a command of its own goes on in slices, and so does an entry of many commands
//! (`kv/apply.rs`). Until the last slice an entry is **half applied**: `Store::is_halfway`. Nothing
//! else is applied meanwhile, so where a node stops between two slices is its own affair, and all
//! make the same state of the log. In between
//!
//! - `applied` is the entry before, `revision` that of the last command that is done, and the state
//!   hash that of the last whole entry: it is taken before each entry;
//! - whatever reads what is current must wait (`replica` sees to it); a walk that has begun goes
//!   on, for it reads a revision, and passes over what is newer;
//! - so does a checkpoint that has begun, and none begins: it is of whole entries. A crash, and a
//!   snapshot that takes the store's place, leave nothing of the half;
//! - nobody hears of a change: watches are not fed before the entry is whole, and what a delete has
//!   put into the ring is of a revision that is not made. Whoever begins to watch from now on hears
//!   of all of that delete;
//! - a key leaves its lease with its tombstone, and leases end by commands, which wait;
//! - the live keys, their bytes and the history are counted key by key. A quota judges what is not
//!   in the log yet by them, and what is admitted so would be after the last slice as well;
//! - nothing is freed that this delete names: it is not due before a later compaction;
//! - the call of a session has begun with the first slice and is answered with the last one, and a
//!   copy of it waits with all other commands.
//!
//! A transaction's deletes are done whole, and so is the end of a lease.

use std::ops::Bound;

use crate::limits::RANGE_REPLY_BYTES_MAX;
use crate::types::{LogIndex, Revision};

use super::Store;
use super::answer::{Refusal, bytes_of, write_kv};
use super::command::{DeleteWith, RangeEnd};
use super::index::KeyHash;
use super::keys::KeyId;
use super::range::key_value;
use super::transact::{check_size, write_length};
use super::versions::NewVersion;

/// Places kept for the keys of the next delete.
const FOUND_KEPT: usize = 1024;

/// Bytes of an answer that are a step to copy.
const STEP_BYTES: usize = 256;

/// How far an entry is applied that takes several slices.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The delete under way, if the entry stops within one.
    deletion: Option<Deletion>,
    /// Where in the entry's payload the next slice goes on, with the command of that delete or the
    /// next one; 0: no entry is half applied. Bytes.
    pub(super) from: usize,
    /// The state hash and the revisions before the entry.
    pub(super) hash_before: u64,
    pub(super) revision_before: Revision,
    pub(super) compact_revision_before: Revision,
}

/// How far a delete is.
#[derive(Debug)]
enum Deletion {
    Finding(Finding),
    /// Of those found, so many are deleted.
    Deleting(usize),
    /// All are, and so many are buried.
    Burying(usize),
}

#[derive(Debug, Default)]
struct Finding {
    /// The last key that was looked at.
    behind: Option<Box<[u8]>>,
    /// What is to be answered of those found. Bytes.
    bytes: usize,
}

impl Store {
    /// Whether an entry is half applied: nobody may read what is current.
    pub fn is_halfway(&self) -> bool {
        self.progress.from > 0
    }

    /// Whether it is so within a delete.
    pub fn is_deleting(&self) -> bool {
        self.progress.deletion.is_some()
    }

    /// The last entry of which anything is applied.
    pub fn begun(&self) -> LogIndex {
        if self.is_halfway() { self.applied.next() } else { self.applied }
    }

    /// Deletes the live keys of a range in one revision as far as `steps` go: one is to look at a
    /// key, to delete or to bury it, or to copy 256 bytes. Says how many there were; what was there
    /// before, if it is asked for, goes into `answer`. `None`: the next call, with the same delete,
    /// goes on.
    pub(super) fn delete_slice(
        &mut self,
        hash: KeyHash,
        delete: &DeleteWith<'_>,
        steps: &mut usize,
        answer: Option<&mut Vec<u8>>,
    ) -> Option<Result<u64, Refusal>> {
        let under_way = self.progress.deletion.take();
        let mut deletion = under_way.unwrap_or_else(|| Deletion::Finding(Finding::default()));
        let done = self.delete_on((hash, delete), &mut deletion, steps, answer);
        if done.is_none() {
            self.progress.deletion = Some(deletion);
        }
        done
    }

    fn delete_on(
        &mut self,
        (hash, delete): (KeyHash, &DeleteWith<'_>),
        deletion: &mut Deletion,
        steps: &mut usize,
        mut answer: Option<&mut Vec<u8>>,
    ) -> Option<Result<u64, Refusal>> {
        if let Deletion::Finding(finding) = deletion {
            self.find_on((hash, delete), finding, steps)?;
            if let Err(why) = check_size(finding.bytes) {
                self.forget_found();
                return Some(Err(why));
            }
            if let Some(body) = answer.as_deref_mut() {
                write_length(body, if delete.prev_kv { self.found.len() } else { 0 });
            }
            *deletion = Deletion::Deleting(0);
        }
        let revision = self.revision.next();
        if let Deletion::Deleting(next) = deletion {
            let before = answer.filter(|_| delete.prev_kv);
            self.delete_some(revision, next, steps, before)?;
            *deletion = Deletion::Burying(0);
        }
        if let Deletion::Burying(next) = deletion {
            self.bury_some(revision, next, steps)?;
        }
        self.owe_freeing(self.found.len());
        let deleted = u64::try_from(self.found.len()).expect("usize is 64 bits at most");
        if deleted > 0 {
            self.revision = revision;
        }
        self.forget_found();
        Some(Ok(deleted))
    }

    /// Looks for the live keys of a range, behind those that were looked at before. `None`: there
    /// are more to look at.
    fn find_on(
        &mut self,
        (hash, delete): (KeyHash, &DeleteWith<'_>),
        finding: &mut Finding,
        steps: &mut usize,
    ) -> Option<()> {
        let mut found = std::mem::take(&mut self.found);
        let (mut alone, mut many) = (None, None);
        match delete.end {
            RangeEnd::Key if finding.behind.is_some() => {}
            RangeEnd::Key => alone = self.find(hash, delete.key),
            RangeEnd::Unbounded | RangeEnd::Before(_) => {
                many = Some(self.ids_behind(finding.behind.as_deref(), delete));
            }
        }
        let mut last: Option<&[u8]> = None;
        let done = loop {
            if *steps == 0 {
                break None;
            }
            let next = many.as_mut().and_then(Iterator::next);
            let next = next.or_else(|| alone.take().map(|id| (delete.key, id)));
            let Some((name, id)) = next else { break Some(()) };
            (last, *steps) = (Some(name), *steps - 1);
            let entry = self.keys.at(id);
            if entry.is_live() {
                found.push(id);
                if delete.prev_kv {
                    finding.bytes += bytes_of(&key_value(entry, self.versions.at(entry.newest)));
                }
            }
            // That is refused, whatever else there is.
            if finding.bytes > RANGE_REPLY_BYTES_MAX {
                break Some(());
            }
        };
        let behind = if done.is_none() { last.map(Into::into) } else { None };
        drop(many);
        finding.behind = behind.or_else(|| finding.behind.take());
        self.found = found;
        done
    }

    /// The keys of a range that have versions, in ascending order, behind one of them.
    fn ids_behind<'s>(
        &'s self,
        behind: Option<&[u8]>,
        delete: &DeleteWith<'_>,
    ) -> impl Iterator<Item = (&'s [u8], KeyId)> + use<'s> {
        let first = behind.map_or(Bound::Included(delete.key), Bound::Excluded);
        let last = match delete.end {
            RangeEnd::Key => Bound::Included(delete.key),
            RangeEnd::Unbounded => Bound::Unbounded,
            // The map panics if a range ends before it starts; ours is then empty.
            RangeEnd::Before(end) => Bound::Excluded(end.max(delete.key)),
        };
        self.ordered.range::<[u8], _>((first, last)).map(|(name, id)| (&**name, *id))
    }

    /// Deletes those found from the `next` on; writes what was there before.
    fn delete_some(
        &mut self,
        revision: Revision,
        next: &mut usize,
        steps: &mut usize,
        mut before: Option<&mut Vec<u8>>,
    ) -> Option<()> {
        while let Some(id) = self.found.get(*next).copied() {
            *steps = steps.checked_sub(1)?;
            if let Some(body) = &mut before {
                let entry = self.keys.at(id);
                let kv = key_value(entry, self.versions.at(entry.newest));
                write_kv(body, &kv);
                *steps = steps.saturating_sub(bytes_of(&kv) / STEP_BYTES);
            }
            self.delete(revision, id);
            *next += 1;
        }
        Some(())
    }

    /// Buries those found from the `next` on.
    fn bury_some(&mut self, revision: Revision, next: &mut usize, steps: &mut usize) -> Option<()> {
        while let Some(id) = self.found.get(*next).copied() {
            *steps = steps.checked_sub(1)?;
            self.history.bury(revision, id, self.keys.at(id).name().len());
            *next += 1;
        }
        Some(())
    }

    fn forget_found(&mut self) {
        self.found.clear();
        self.found.shrink_to(FOUND_KEPT);
    }

    /// Notes the live keys of a range in `found`.
    pub(super) fn find_live(&mut self, hash: KeyHash, key: &[u8], end: RangeEnd<'_>) {
        assert!(self.found.is_empty(), "what was found before is deleted");
        let delete = DeleteWith { key, end, prev_kv: false };
        let mut steps = usize::MAX;
        let found = self.find_on((hash, &delete), &mut Finding::default(), &mut steps);
        assert!(found.is_some(), "a slice without an end holds everything");
    }

    /// Deletes the keys in `found` at a revision, as `set` sets one, and says how many there were.
    /// `bury_deleted` follows once the revision is made.
    pub(super) fn delete_found(&mut self, revision: Revision) -> u64 {
        assert!(self.makes(revision), "{revision} is made after {}", self.revision);
        let found = std::mem::take(&mut self.found);
        for id in &found {
            self.delete(revision, *id);
        }
        if !found.is_empty() {
            self.revision = revision;
        }
        self.owe_freeing(found.len());
        self.deleted.extend_from_slice(&found);
        self.found = found;
        let deleted = u64::try_from(self.found.len()).expect("usize is 64 bits at most");
        self.forget_found();
        deleted
    }

    /// Each key that ends leaves two things to be freed, and a command frees two.
    fn owe_freeing(&mut self, ended: usize) {
        self.to_free += 2 * ended.saturating_sub(1);
    }

    /// Queues the tombstones of a revision, which is made. They are due a revision later than what
    /// it superseded, so they queue behind all of that.
    pub(super) fn bury_deleted(&mut self, revision: Revision) {
        for id in &self.deleted {
            self.history.bury(revision, *id, self.keys.at(*id).name().len());
        }
        self.deleted.clear();
        self.deleted.shrink_to(FOUND_KEPT);
    }

    fn delete(&mut self, revision: Revision, id: KeyId) {
        let entry = self.keys.at_mut(id);
        assert!(entry.is_live(), "only a live key is deleted");
        self.history.supersede_value(revision, entry.newest, entry.value_bytes());
        self.live.keys -= 1;
        let name_bytes = u64::try_from(entry.name().len()).expect("usize is 64 bits at most");
        self.live.bytes -= name_bytes + u64::from(entry.value_bytes());
        self.live.hash = self.live.hash.wrapping_sub(entry.contribution);
        let older = entry.newest;
        if entry.is_leased() {
            self.leases.change(id, self.versions.at(older).lease, 0);
        }
        (entry.create_revision, entry.version, entry.contribution) = (0, 0, 0);
        entry.set_value(&[], 0);
        let mod_revision = revision.0;
        let tombstone =
            NewVersion { mod_revision, create_revision: 0, version: 0, lease: 0, older };
        entry.newest = self.versions.insert(tombstone, &[]);
        self.changes.push(revision, id, entry.newest);
    }
}

#[cfg(test)]
mod tests;
