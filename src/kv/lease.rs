//! Leases: keys that go when nobody asks for them to stay. etcd's.
//!
//! A lease is granted for a time to live. Puts hang keys on it, a key on one lease at most. Whoever
//! holds it keeps it alive; when nobody does for as long as its time, the leader's expiry command
//! ends it, as a revocation does, and all keys that hang on it go in one revision.
//!
//! **What is known of time here.** The table says when a lease is due only while nobody kept it
//! alive since that was said: in the leaders' stamps, which go on from leader to leader. A
//! keep-alive is the leader's own affair (`replica/leases.rs`) and no entry of the log, unless the
//! table says when the lease is due: then an entry takes that back before the keep-alive is
//! answered. So a new leader that reads a due stamp may trust it, and gives a lease without one its
//! whole time again: never too little.
//!
//! ```text
//! due_ms      the stamp at which it is due, if nobody has kept it alive since that was said;
//!             0: somebody may have
//! ```
//!
//! An expiry names the term of the leader that decided it, and is void in an entry of another term:
//! what one leader knows of time says nothing of what its successor has promised. It names the
//! grant as well, for while it is on its way a client may end the lease and make another of that
//! number.
//!
//! A key knows its lease by its newest version; a bit of its entry says whether there is one, so
//! that a put of a key without a lease touches nothing here.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::LEASES_MAX;

use super::Store;
use super::answer::{CommandReply, Refusal};
use super::apply::DELETE_STEPS;
use super::hash;
use super::keys::KeyId;

/// A lease without its keys, as a checkpoint holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseRow {
    /// Its number; never 0.
    pub id: u64,
    /// Which grant made it, counting all grants.
    pub grant: u64,
    /// For how long it was granted. Seconds.
    pub ttl_s: u64,
    /// The stamp at which it is due, if nobody has kept it alive since; 0: not known. Milliseconds.
    pub due_ms: u64,
}

struct Lease {
    grant: u64,
    ttl_s: u64,
    due_ms: u64,
    keys: BTreeSet<KeyId>,
}

impl Lease {
    fn row(&self, id: u64) -> LeaseRow {
        LeaseRow { id, grant: self.grant, ttl_s: self.ttl_s, due_ms: self.due_ms }
    }
}

/// A lease to be granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewLease {
    /// Its number; 0: the next one that is free.
    pub(super) id: u64,
    pub(super) ttl_s: u64,
}

/// What a leader says of a lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) lease: u64,
    pub(super) grant: u64,
    /// When it is due; `None`: its time is over.
    pub(super) due_ms: Option<u64>,
}

/// All leases.
pub(super) struct Leases {
    table: BTreeMap<u64, Lease>,
    /// The grants there were. Each is a number that a lease may have.
    grants: u64,
    hash: u64,
    /// What a checkpoint looks at while the table goes on: the rows that changed since, as they
    /// were; `None`: there was none.
    pinned: Option<BTreeMap<u64, Option<LeaseRow>>>,
}

/// What a pinned moment kept.
pub(super) struct SetAside {
    _pinned: Option<BTreeMap<u64, Option<LeaseRow>>>,
}

impl Leases {
    pub(super) fn new() -> Leases {
        Leases { table: BTreeMap::new(), grants: 0, hash: 0, pinned: None }
    }

    pub(super) fn grants(&self) -> u64 {
        self.grants
    }

    /// The sum of what the leases add to the state hash.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.table.contains_key(&id)
    }

    /// Makes a lease and says its number.
    fn grant(&mut self, new: NewLease, stamp_ms: u64) -> Result<u64, Refusal> {
        if self.has(new.id) {
            return Err(Refusal::LeaseExists);
        }
        if self.table.len() >= LEASES_MAX {
            return Err(Refusal::TooManyLeases);
        }
        self.grants += 1;
        // A client may have taken the number for a lease of its own.
        while new.id == 0 && self.has(self.grants) {
            self.grants += 1;
        }
        let (grant, ttl_s) = (self.grants, new.ttl_s);
        let id = if new.id == 0 { grant } else { new.id };
        let due_ms = stamp_ms.saturating_add(ttl_s.saturating_mul(1000));
        self.set_aside(id);
        self.insert(LeaseRow { id, grant, ttl_s, due_ms });
        Ok(id)
    }

    /// Takes a lease out; the keys that hung on it.
    fn end(&mut self, id: u64) -> Option<BTreeSet<KeyId>> {
        self.set_aside(id);
        let lease = self.table.remove(&id)?;
        self.hash = self.hash.wrapping_sub(hash::of_lease(&lease.row(id)));
        Some(lease.keys)
    }

    /// Notes when a lease is due, or with 0 that it is not known any more. Its time to live, if
    /// there is such a lease.
    fn note_due(&mut self, id: u64, due_ms: u64) -> Option<u64> {
        self.set_aside(id);
        let lease = self.table.get_mut(&id)?;
        self.hash = self.hash.wrapping_sub(hash::of_lease(&lease.row(id)));
        lease.due_ms = due_ms;
        self.hash = self.hash.wrapping_add(hash::of_lease(&lease.row(id)));
        Some(lease.ttl_s)
    }

    /// A key's lease changes; 0 is none.
    pub(super) fn change(&mut self, key: KeyId, before: u64, after: u64) {
        if before == after {
            return;
        }
        // A lease that is being ended has let go of its keys.
        if let Some(lease) = self.table.get_mut(&before) {
            let hung = lease.keys.remove(&key);
            assert!(hung, "a key hangs on the lease that its newest version names");
        }
        if after != 0 {
            self.hang(key, after);
        }
    }

    /// Hangs a key on a lease that was found to exist.
    pub(super) fn hang(&mut self, key: KeyId, id: u64) {
        let lease = self.table.get_mut(&id).expect("a put was checked to name a lease there is");
        let new = lease.keys.insert(key);
        assert!(new, "a key hangs on a lease once");
    }

    pub(super) fn pin(&mut self) {
        assert!(self.pinned.is_none(), "one moment at a time");
        self.pinned = Some(BTreeMap::new());
    }

    pub(super) fn unpin(&mut self) -> SetAside {
        SetAside { _pinned: self.pinned.take() }
    }

    /// The places at or behind `first` that the table has or had at the pinned moment, in order,
    /// and the lease that was there then.
    pub(super) fn pinned_from(
        &self,
        first: u64,
    ) -> impl Iterator<Item = (u64, Option<LeaseRow>)> + use<'_> {
        let pinned = self.pinned.as_ref().expect("a moment is pinned");
        let mut changed = pinned.range(first..).map(|(id, row)| (*id, *row)).peekable();
        let mut kept = self.table.range(first..).peekable();
        std::iter::from_fn(move || {
            let changed_at = changed.peek().map(|(id, _)| *id);
            if let Some((&id, lease)) =
                kept.next_if(|(id, _)| changed_at.is_none_or(|at| **id < at))
            {
                return Some((id, Some(lease.row(id))));
            }
            kept.next_if(|(id, _)| changed_at == Some(**id));
            changed.next()
        })
    }

    /// Takes over a lease of a checkpoint, with no keys yet.
    pub(super) fn restore(&mut self, row: LeaseRow) {
        assert!(row.id != 0 && !self.has(row.id), "its reader checked it");
        self.insert(row);
    }

    pub(super) fn restore_grants(&mut self, grants: u64) {
        self.grants = grants;
    }

    /// Counts grants that may have been made elsewhere: their numbers are not given here.
    pub(super) fn skip_grants(&mut self, count: u64) {
        self.grants = self.grants.saturating_add(count);
    }

    fn insert(&mut self, row: LeaseRow) {
        let LeaseRow { id, grant, ttl_s, due_ms } = row;
        self.table.insert(id, Lease { grant, ttl_s, due_ms, keys: BTreeSet::new() });
        self.hash = self.hash.wrapping_add(hash::of_lease(&row));
    }

    /// Keeps a place as a pinned moment saw it, before it changes for the first time since.
    fn set_aside(&mut self, id: u64) {
        if let Some(pinned) = &mut self.pinned {
            let row = self.table.get(&id).map(|lease| lease.row(id));
            pinned.entry(id).or_insert(row);
        }
    }
}

impl Store {
    /// Makes a lease.
    pub(super) fn grant(&mut self, new: NewLease) -> CommandReply {
        match self.leases.grant(new, self.stamp_ms) {
            Ok(lease) => {
                CommandReply::LeaseGrant { revision: self.revision, lease, ttl_s: new.ttl_s }
            }
            Err(why) => CommandReply::Refused { why },
        }
    }

    /// Ends a lease: all keys that hang on it go in one revision, in the order of their names.
    /// Whether there was such a lease.
    pub(super) fn end_lease(&mut self, lease: u64) -> bool {
        let Some(keys) = self.leases.end(lease) else { return false };
        assert!(self.found.is_empty(), "what was found before is deleted");
        let mut found = std::mem::take(&mut self.found);
        found.extend(keys);
        found.sort_unstable_by(|one, two| self.keys.at(*one).name().cmp(self.keys.at(*two).name()));
        self.found = found;
        self.walked += DELETE_STEPS * self.found.len();
        let revision = self.revision.next();
        self.delete_found(revision);
        self.bury_deleted(revision);
        true
    }

    /// Does what a leader says of a lease, unless it says so of another grant.
    pub(super) fn judge_lease(&mut self, said: Said) -> CommandReply {
        let (revision, lease) = (self.revision, said.lease);
        let meant = self.lease(lease).is_some_and(|row| row.grant == said.grant);
        match said.due_ms {
            None => {
                if meant {
                    self.end_lease(lease);
                }
                CommandReply::LeaseExpire { revision: self.revision, lease }
            }
            Some(_) if !meant => CommandReply::LeaseCheckpoint { revision, lease, ttl_s: 0 },
            Some(due_ms) => {
                let ttl_s = self.leases.note_due(lease, due_ms).unwrap_or(0);
                CommandReply::LeaseCheckpoint { revision, lease, ttl_s }
            }
        }
    }

    /// Nobody knows who was kept alive after this state was saved: when a lease is due is
    /// forgotten.
    pub(super) fn forget_dues(&mut self) {
        let ids: Vec<u64> = self.leases.table.keys().copied().collect();
        for id in ids {
            let noted = self.leases.note_due(id, 0);
            assert!(noted.is_some(), "it is in the table");
        }
    }

    /// A lease.
    pub fn lease(&self, id: u64) -> Option<LeaseRow> {
        self.leases.table.get(&id).map(|lease| lease.row(id))
    }

    /// The leases from `first` on, by their numbers.
    pub fn leases(&self, first: u64) -> impl Iterator<Item = LeaseRow> {
        self.leases.table.range(first..).map(|(id, lease)| lease.row(*id))
    }

    /// How many leases there are.
    pub fn lease_count(&self) -> usize {
        self.leases.table.len()
    }

    /// How many keys hang on a lease; 0 if there is no such lease.
    pub fn lease_key_count(&self, id: u64) -> usize {
        self.leases.table.get(&id).map_or(0, |lease| lease.keys.len())
    }

    /// The keys that hang on a lease, each with its place: those behind the place `after`, and
    /// behind 0 all. A key keeps its place as long as it is there; another store, of the same
    /// state, may have it at another one.
    pub fn lease_keys(&self, id: u64, after: u64) -> impl Iterator<Item = (u64, &[u8])> {
        // A place is above the key's number by one.
        let first = u32::try_from(after).ok().map(KeyId);
        let keys = first.and_then(|first| Some(self.leases.table.get(&id)?.keys.range(first..)));
        let placed = |key: &KeyId| (u64::from(key.0) + 1, self.keys.at(*key).name());
        keys.into_iter().flatten().map(placed)
    }

    /// How many leases were ever granted, or more.
    pub fn lease_grants(&self) -> u64 {
        self.leases.grants
    }
}
