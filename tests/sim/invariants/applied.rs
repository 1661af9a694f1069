//! What the nodes make of the committed entries.
//!
//! A twin applies every committed entry, one by one and once, from the log alone: no snapshot, no
//! restart, no piece of work that ends between two turns. Its hash at an index is what every node
//! must have there, in each of its starts and however it came to that state. A node shows its hash
//! where a turn ends, so an entry that was applied wrongly, twice or never is seen there.

use super::{Proof, Seen, broken, must};
use crate::chance::{u64_of, usize_of};
use crate::coverage::{Coverage, Point};
use crate::disk::SimDisk;
use crate::world::id_of;
use raftd::kv::{Store, StoreOptions};
use raftd::raft::Raft;
use raftd::replica::{Inspection, load_snapshot};
use raftd::types::{LogIndex, LogPosition};
use raftd::wal::SnapshotSource;

/// Of so many snapshots that come into force one is loaded.
const SNAPSHOTS_PER_LOOK: u64 = 8;
/// Versions that are freed after each entry.
const TIDY_PER_ENTRY: usize = 16;

/// No node's seed and no bound of anybody's history: neither may matter.
const OPTIONS: StoreOptions = StoreOptions { index_seed: 0x7717, history_bytes_max: u64::MAX };

/// A store beside those of the nodes.
pub(super) struct Twin {
    store: Store,
    /// Snapshots that came into force.
    snapshots: u64,
}

impl std::fmt::Debug for Twin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a twin at {}", self.store.applied())
    }
}

impl Twin {
    pub(super) fn new() -> Twin {
        Twin { store: Store::new(OPTIONS), snapshots: 0 }
    }
}

impl Proof {
    /// The twin applies what is committed, as far as it was readable where it was committed.
    pub(super) fn follow_committed(&mut self) {
        loop {
            let slot = usize_of(self.twin.store.applied().get());
            let Some(Some(payload)) = self.payloads.get(slot) else { return };
            let index = self.twin.store.applied().next();
            let position = LogPosition::new(self.committed[slot].link.term, index);
            if payload.is_empty() {
                self.twin.store.apply_other(index);
            } else {
                let applied = self.twin.store.apply(position, payload, &mut |_| {});
                applied.unwrap_or_else(|why| broken("StateMachineSafety", why.to_string()));
            }
            self.twin.store.tidy(TIDY_PER_ENTRY);
            let hash = self.twin.store.state_hash();
            let slot = usize_of(index.get());
            if self.hashes.len() <= slot {
                self.hashes.resize(slot + 1, None);
            }
            let known = *self.hashes[slot].get_or_insert(hash);
            must!(known == hash, "StateMachineSafety", "somebody had another state at {index}");
        }
    }

    /// A state that is said to be that of everything up to `position`, wherever it was found.
    pub(crate) fn check_state(&self, machine: usize, position: LogPosition, hash: u64) {
        let name = machine + 1;
        must!(
            self.ground.up_to(position).is_some(),
            "SnapshotCommitted",
            "n{name} gives away what stands for {position}"
        );
        let known = self.hashes.get(usize_of(position.index.get())).copied().flatten();
        must!(
            known.is_none_or(|known| known == hash) || self.states[machine].was_spoiled,
            "SnapshotEquivalence",
            "n{name} gives away another state at {position}"
        );
    }

    pub(super) fn check_applied(
        &mut self,
        machine: usize,
        seen: &mut Seen,
        node: &Inspection<'_>,
        disk: &SimDisk,
        coverage: &mut Coverage,
    ) {
        let (applied, hash) = (node.store.applied(), node.store.state_hash());
        let name = machine + 1;
        let (halfway, deleting) = (node.store.is_halfway(), node.store.is_deleting());
        coverage.hit_if(deleting, Point::HalfApplied);
        coverage.hit_if(halfway && !deleting, Point::HalfBetween);
        let reloaded = self.check_state_known(machine, seen, node, coverage);
        if reloaded {
            (seen.loaded, seen.loaded_end) = (true, node.wal.last().index);
        }
        if applied == seen.applied && !reloaded {
            must!(
                hash == seen.hash || seen.hash == 0,
                "StateMachineSafety",
                "n{name} changes its state at {applied} without an entry"
            );
            return;
        }
        let goes_on = applied > seen.applied || reloaded;
        must!(goes_on, "CommitMonotonic", "n{name} applied {}", seen.applied);
        must!(applied <= seen.commit, "CommitMonotonic", "n{name} applied {applied} beyond commit");
        self.check_hash(machine, seen, applied, hash);
        let durable = disk.platter(|platter| platter.log.last());
        coverage.hit_if(applied > durable, Point::AppliedBeforeDurable);
        let compacted = node.store.compact_revision().0;
        coverage.hit_if(compacted > seen.compacted, Point::Compacted);
        (seen.applied, seen.hash, seen.compacted) = (applied, hash, compacted);
    }

    /// A node's state at an index against the twin's; if that has not got there, against whichever
    /// node was there first.
    fn check_hash(&mut self, machine: usize, seen: &Seen, applied: LogIndex, hash: u64) {
        let name = machine + 1;
        let slot = usize_of(applied.get());
        if self.hashes.len() <= slot {
            self.hashes.resize(slot + 1, None);
        }
        if self.states[machine].spoiled {
            // A start may have made it of the log alone, or of an older snapshot.
            self.states[machine].spoiled = self.hashes[slot] != Some(hash);
            return;
        }
        let known = *self.hashes[slot].get_or_insert(hash);
        let by_twin = applied <= self.twin.store.applied();
        must!(
            known == hash || !seen.loaded,
            "SnapshotEquivalence",
            "n{name}, which began with a snapshot, has another state at {applied}"
        );
        must!(
            known == hash || !by_twin,
            "StateMachineSafety",
            "n{name} has another state at {applied} than the entries up to there make"
        );
        must!(known == hash, "ReplicaHashEquality", "n{name} differs at {applied}");
    }

    /// Another snapshot is in force, or the log begins elsewhere.
    pub(super) fn check_snapshot(
        &mut self,
        machine: usize,
        seen: &mut Seen,
        node: &Inspection<'_>,
        disk: &SimDisk,
    ) {
        let name = machine + 1;
        let source = node.wal.snapshot();
        let snapshot = source.map_or(LogIndex::ZERO, |it| it.id.position.index);
        let (base, applied) = (node.wal.base().index, node.store.applied());
        // While one takes the place of another, the log goes with the new one already.
        let noted = node.wal.noted_snapshot().position.index;
        must!(
            base <= noted && snapshot <= noted,
            "SnapshotOrder",
            "n{name}: a log after {base}, snapshots {snapshot} and {noted}"
        );
        // A state that is another one than the rest's is made anew of an older one.
        must!(
            noted <= applied || node.diverged || node.fails,
            "SnapshotOrder",
            "n{name} has a snapshot up to {noted} and applied {applied}"
        );
        if snapshot == seen.snapshot {
            return;
        }
        self.twin.snapshots += 1;
        if let Some(source) = source
            && self.twin.snapshots.is_multiple_of(SNAPSHOTS_PER_LOOK)
            && !disk.snapshot_is_rotten()
        {
            self.look_into(machine, source);
        }
    }

    /// Loads a snapshot beside the node. Whether it must be readable is for others to say.
    fn look_into(&self, machine: usize, source: &SnapshotSource) {
        if let Ok((store, head)) = load_snapshot(source, OPTIONS) {
            self.check_state(machine, head.position, store.state_hash());
        }
    }

    /// What a leader counts for a follower. An answer of an older connection, start or term says
    /// nothing of what is there now: were it counted, an entry would be held for stored that is
    /// not. Who leads an old term may count what was cut since, for it commits nothing by it.
    pub(super) fn check_match(
        &self,
        machine: usize,
        seen: &mut Seen,
        raft: &Raft,
        disks: &[SimDisk],
    ) {
        seen.matches.clear();
        let newer = self.leaders.range(raft.term().next()..).next().is_some();
        if !raft.is_leader() {
            return;
        }
        for (other, disk) in disks.iter().enumerate() {
            let id = id_of(other);
            let Some(index) = raft.match_index(id).filter(|it| *it > LogIndex::ZERO) else {
                continue;
            };
            seen.matches.push((other, index));
            // Who was removed may be on its way out, disk and all.
            if newer || !raft.configuration().is_member(id) {
                continue;
            }
            let ours = seen.chain.at(index).map(|link| link.chain);
            let theirs = disk.platter(|it| it.log.at(index)).map(|link| link.chain);
            must!(
                ours.is_some() && ours == theirs,
                "MatchDurability",
                "n{} counts {index} for {id}, whose platters end at {} of {}",
                machine + 1,
                disk.platter(|it| it.log.last()),
                u64_of(self.committed.len())
            );
        }
    }
}
