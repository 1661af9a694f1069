//! THE MEANING: a multi-version store of keys, the same on every node that applied the same
//! entries.
//!
//! ```text
//! Store ── index      hash → key id           every put and point read; seeded, never iterated
//!       ── ordered    name → key id                  ranges; touched when a key appears or goes
//!       ── keys       key id → name, what is current      a cache line each
//!       ── versions   version id → value, revisions       newest first, linked by `older`
//!       ── history    what compaction gives up, in the order of revisions
//!       ── leases     lease → its time, the keys that hang on it
//!       ── changes    every change that is not compacted, in that order: what watches read
//!       ── sessions   session → its latest replies: a retried command is answered, not applied
//!       ── auth       users, roles, rights: who may do what
//! ```
//!
//! The model is etcd's. The empty store has revision 1. A request that changes anything makes the
//! next revision, and all it changes carries that one. A deleted key leaves a tombstone; superseded
//! versions and tombstones stay readable until a compaction. The history is bounded: when it
//! exceeds its bytes, `compaction_due` names the revision that halves it, the leader puts that into
//! the log, and every node gives up the same history at the same index (design §12.13).
//!
//! **What may differ between nodes** is the hash seed, how far freed memory has been given back,
//! and where in memory things are. None of it reaches an answer, the state hash or a figure below.
//! No clock, no randomness, no iteration over the hash.
//!
//! Why not one ordered map: a prototype spent three quarters of a replicated put's CPU in it, paid
//! on
//! every node. Why not a log-structured store: the state fits memory by design.

pub mod answer;
pub mod command;

mod apply;
mod auth;
mod changes;
mod checkpoint;
mod command_error;
mod deletion;
mod hash;
mod history;
mod index;
mod issued;
mod keys;
mod lease;
mod loader;
mod mvcc;
mod outlet;
mod overlap;
mod queue;
mod quota;
mod range;
mod ranking;
mod select;
mod session;
mod slab;
mod stabbing;
mod transact;
mod txn;
mod versions;
mod walk;
mod watch;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;

pub use answer::{Answer, CommandReply, Refusal};
pub use apply::{ApplyError, GROUP_STEPS};
pub use auth::{
    Access, Asker, Auth, AuthChange, AuthNumbers, AuthRefusal, AuthVerb, Denial, PasswordProof,
    PasswordShape, Permission, Rights, Role, User,
};
pub use changes::{ChangeCursor, Event};
pub use checkpoint::{
    CHECKPOINT_FORMAT, Checkpoint, CheckpointError, SetAside, SliceLimits, Sliced,
};
pub use command::{
    Command, CommandError, DeleteWith, EntryHeader, PutWith, RangeEnd, SessionCall,
    validate_command,
};
pub use hash::FORMULA as STATE_HASH_FORMULA;
pub use lease::LeaseRow;
pub use loader::Loader;
pub use outlet::{Batch, Outlet, Room, WatchEnd, WatchSpec};
pub use range::{KeyValueRef, RangeError, RangeRequest, RangeSummary};
pub use select::{Order, RevisionSpan, Selection, SortBy};
pub use session::{KeptReply, SessionCounters, SessionRow};
pub use txn::{Compare, Operand, Relation, Request, Txn, TxnParts};
pub use walk::RangeWalk;
pub use watch::{WatchId, Watches};

use crate::types::{LogIndex, Revision, Term};
use changes::Changes;
use history::History;
use index::Index;
use keys::{KeyId, Keys};
use lease::Leases;
use session::Sessions;
use versions::Versions;

/// The revision of a store in which nothing was ever changed. etcd's.
const REVISION_EMPTY: Revision = Revision(1);

/// What a store is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreOptions {
    /// Seeds the hash of the index against chosen keys. Any number; another one on every node is
    /// best.
    pub index_seed: u64,
    /// History beyond which `compaction_due` speaks. Bytes.
    pub history_bytes_max: u64,
}

/// The replicated state: keys, their versions, and how far the log has been applied.
pub struct Store {
    index: Index,
    ordered: BTreeMap<Box<[u8]>, KeyId>,
    keys: Keys,
    versions: Versions,
    history: History,
    changes: Changes,
    history_bytes_max: u64,
    sessions: Sessions,
    leases: Leases,
    auth: Auth,
    live: Live,
    revision: Revision,
    compact_revision: Revision,
    applied: LogIndex,
    /// The term of the entry that is applied.
    term: Term,
    stamp_ms: u64,
    /// The compaction revision of the checkpoint under way: nothing due later is freed.
    pinned: Option<Revision>,
    /// The revisions that walks read, and how many read each: nothing due later is freed.
    walks: BTreeMap<Revision, usize>,
    /// Changes from this revision on are to be handed out: neither they nor what they superseded
    /// are freed.
    held: Option<Revision>,
    /// The keys one delete found, and those the revision under way deleted. Kept for their memory.
    found: Vec<KeyId>,
    /// What was queued to be freed, beyond what commands have freed: of each some more.
    to_free: usize,
    deleted: Vec<KeyId>,
    /// What a command answers beside its outline, and the branches that a transaction takes. Kept
    /// for their memory.
    body: Vec<u8>,
    path: transact::Path,
    /// What the command under way took beside what is known of it before. Steps.
    walked: usize,
    /// How far the entry is applied that takes several slices.
    progress: deletion::Progress,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store {{ applied: {}, revision: {} }}", self.applied, self.revision)
    }
}

/// Sums over the live keys.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Live {
    keys: u64,
    bytes: u64,
    hash: u64,
}

impl Store {
    /// The empty store, before the first entry of the log.
    pub fn new(options: StoreOptions) -> Store {
        let StoreOptions { index_seed, history_bytes_max } = options;
        // An automatic compaction frees half the history, and its records are what the next half
        // needs.
        let free_bytes_max = usize::try_from(history_bytes_max / 2).unwrap_or(usize::MAX);
        Store {
            index: Index::new(index_seed),
            ordered: BTreeMap::new(),
            keys: Keys::new(),
            versions: Versions::new(free_bytes_max),
            history: History::new(),
            changes: Changes::new(),
            history_bytes_max,
            sessions: Sessions::new(),
            leases: Leases::new(),
            auth: Auth::new(),
            live: Live::default(),
            revision: REVISION_EMPTY,
            compact_revision: Revision(0),
            applied: LogIndex::ZERO,
            term: Term::ZERO,
            stamp_ms: 0,
            pinned: None,
            walks: BTreeMap::new(),
            held: None,
            found: Vec::new(),
            to_free: 0,
            deleted: Vec::new(),
            body: Vec::new(),
            path: transact::Path::new(),
            walked: 0,
            progress: deletion::Progress::default(),
        }
    }

    /// The revision of the newest change; 1 if there was none.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The revision and the compaction revision without the entry that is half applied: what
    /// `state_hash` is of.
    pub fn whole_revisions(&self) -> (Revision, Revision) {
        if self.is_halfway() {
            (self.progress.revision_before, self.progress.compact_revision_before)
        } else {
            (self.revision, self.compact_revision)
        }
    }

    /// The oldest readable revision; 0 if nothing was compacted.
    pub fn compact_revision(&self) -> Revision {
        self.compact_revision
    }

    /// The last entry applied.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// The latest time a leader stamped on an applied entry; 0 before the first. Milliseconds.
    pub fn stamp_ms(&self) -> u64 {
        self.stamp_ms
    }

    /// A hash over the live keys, the leases, the client sessions, users and roles, the revision
    /// and the compaction revision: equal on every node at the same applied index, also while the
    /// next entry is half applied. `kv/hash.rs` has the formula.
    pub fn state_hash(&self) -> u64 {
        if self.is_halfway() {
            return self.progress.hash_before;
        }
        let counters = self.sessions.counters();
        let grants = self.leases.grants();
        let numbers = self.auth.numbers();
        let store = hash::of_store(self.revision, self.compact_revision, counters, grants, numbers);
        let tables = self.sessions.hash().wrapping_add(self.leases.hash());
        let tables = tables.wrapping_add(self.auth.hash());
        self.live.hash.wrapping_add(tables).wrapping_add(store)
    }

    /// Memory that nobody needs any more and that takes long to give back, if there is some.
    pub fn take_retired(&mut self) -> Option<Box<dyn Any + Send>> {
        let tables = self.index.take_retired();
        if tables.is_empty() { None } else { Some(Box::new(tables)) }
    }

    /// Users, roles and their rights.
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// Superseded versions and tombstones that are not compacted, and the ring of changes, with
    /// what each costs to keep. Bytes.
    pub fn history_bytes(&self) -> u64 {
        self.history.bytes() + self.changes.bytes_from(self.compact_revision)
    }

    /// Names and newest values of the live keys. Bytes, without what each costs to keep.
    pub fn live_bytes(&self) -> u64 {
        self.live.bytes
    }

    /// How many keys are live.
    pub fn keys(&self) -> u64 {
        self.live.keys
    }

    /// The client sessions, the one unused for longest first, each with the replies kept for it by
    /// their sequence. For a checkpoint, with `session_counters`.
    pub fn sessions(
        &self,
    ) -> impl Iterator<Item = (SessionRow, impl Iterator<Item = KeptReply<'_>>)> {
        self.sessions.iter()
    }

    /// How many client sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// The numbers from which later sessions and uses count on.
    pub fn session_counters(&self) -> SessionCounters {
        self.sessions.counters()
    }

    /// Keeps the sessions as they are now for `pinned_session`, until `unpin_sessions`, while
    /// entries go on to be applied.
    pub fn pin_sessions(&mut self) {
        self.sessions.pin();
    }

    /// Lets go of what `pin_sessions` keeps.
    pub fn unpin_sessions(&mut self) {
        self.sessions.unpin();
    }

    /// The first pinned session at or behind `place`, 0 being the first, with its place and the
    /// replies kept for it. The order is that of places, the same on every node.
    pub fn pinned_session(
        &self,
        place: u32,
    ) -> Option<(u32, SessionRow, impl Iterator<Item = KeptReply<'_>>)> {
        self.sessions.pinned_from(place)
    }

    /// Takes over a session from a checkpoint, in any order. Panics on one that no store has: a
    /// checkpoint's reader checks it first.
    pub fn restore_session<'a>(
        &mut self,
        row: SessionRow,
        replies: impl Iterator<Item = KeptReply<'a>>,
    ) {
        self.sessions.restore(row, replies);
    }

    /// Takes over the counters from a checkpoint, after its sessions; from then on they are in use.
    pub fn restore_session_counters(&mut self, counters: SessionCounters) {
        self.sessions.restore_counters(counters);
    }

    /// What memory the store holds beyond what its figures say. Nothing an answer may depend on.
    pub fn footprint(&self) -> Footprint {
        let (free_record_bytes, versions) = self.versions.footprint();
        Footprint { free_record_bytes, versions, uncompacted: self.history.len() }
    }
}

/// How the store uses memory. Differs between nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// Records that wait for a version and its value. Bytes.
    pub free_record_bytes: usize,
    /// Records for versions, used or free.
    pub versions: usize,
    /// Versions and tombstones queued for a compaction, or compacted and not yet freed.
    pub uncompacted: usize,
}
