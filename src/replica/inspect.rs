//! What a node holds, by reference and read-only, for whoever checks it from outside: a simulator
//! compares every turn of every node with the proof. Serving needs none of it.

use super::{Node, Stage};
use crate::kv::{SessionCounters, Store};
use crate::raft::Raft;
use crate::types::NodeId;
use crate::wal::Wal;

/// A node laid open.
#[derive(Clone, Copy)]
pub struct Inspection<'a> {
    /// The rules' state; `None` until the node has a configuration.
    pub raft: Option<&'a Raft>,
    /// The log, staged entries included.
    pub wal: &'a Wal,
    /// The applied state.
    pub store: &'a Store,
    /// Batches of reads for which the rules have not said yet up to where to apply.
    pub reads_unconfirmed: usize,
    /// Whether it must stop: it takes no more turns, and nothing more leaves it.
    pub fails: bool,
    /// Whether the state is known to differ from the other members', and serves nobody.
    pub diverged: bool,
    /// Whether the hard state says so, as it is to be written next.
    pub diverged_noted: bool,
    /// How often it came anew for that reason.
    pub reloads: u64,
    /// Whether states differ and no majority agrees: it serves only as a leader.
    pub disputed: bool,
    /// Whether the last turn looked at a key for a range of many.
    pub ranges_walked: bool,
}

impl Node {
    /// Lays the node open.
    pub fn inspect(&self) -> Inspection<'_> {
        let raft = match &self.stage {
            Stage::Member(raft) => Some(raft.as_ref()),
            Stage::Alone(_) | Stage::Founding => None,
        };
        let reads_unconfirmed = self.reads.unconfirmed();
        Inspection {
            raft,
            wal: &self.wal,
            store: &self.store,
            reads_unconfirmed,
            fails: self.fatal.is_some(),
            diverged: self.lost_states.is_own(),
            diverged_noted: self.wal.notes_divergence(),
            reloads: self.lost_states.reloads(),
            ranges_walked: self.ranges.walked,
            disputed: self.state_hashes.disputed().is_some(),
        }
    }

    /// Makes the state another one than the log says, as a fault of the memory or of the rules
    /// might: for a simulator, which has no other way to. It counts one use of a session too many,
    /// which no answer shows and the state hash does.
    #[doc(hidden)]
    pub fn spoil_state(&mut self) {
        let SessionCounters { last, uses } = self.store.session_counters();
        self.store.restore_session_counters(SessionCounters { last, uses: uses + 1 });
    }

    /// The same, and every answer shows it: the revisions are others, and sessions are gone.
    #[doc(hidden)]
    pub fn spoil_revision(&mut self, by: u64) {
        self.store.begin_anew(by);
    }

    /// Whom it dials, or has dialed.
    pub fn dials(&self) -> impl Iterator<Item = NodeId> {
        self.peers.iter().filter(|peer| !peer.address.is_empty()).map(|peer| peer.id)
    }
}
