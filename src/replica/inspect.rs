//! What a node holds, by reference and read-only, for whoever checks it from outside: a simulator
//! compares every turn of every node with the proof. Serving needs none of it.

use super::{Node, Stage};
use crate::kv::Store;
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
        let ranges_walked = self.ranges.walked;
        Inspection { raft, wal: &self.wal, store: &self.store, reads_unconfirmed, ranges_walked }
    }

    /// Whom it dials, or has dialed.
    pub fn dials(&self) -> impl Iterator<Item = NodeId> {
        self.peers.iter().filter(|peer| !peer.address.is_empty()).map(|peer| peer.id)
    }
}
