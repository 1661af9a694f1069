//! What the node says of itself.

use super::connections::ConnectionId;
use super::peers::Outbound;
use super::{Node, Stage};
use crate::raft::{Mark, Raft};
use crate::types::Term;
use crate::wire::error::Error;
use crate::wire::reply::status_reply;
use crate::wire::status::{PeerStatus, Status};

impl Node {
    /// This node's standing now. Cheap; never waits for anything.
    pub fn status(&self) -> Status {
        let raft = match &self.stage {
            Stage::Member(raft) => Some(raft.as_ref()),
            Stage::Alone(_) | Stage::Founding => None,
        };
        let leader = raft.and_then(Raft::leader);
        let own = |id| self.memberships.newest().get(id);
        let snapshot = self.wal.snapshot().map(|source| source.id).unwrap_or_default();
        let (snapshot_received, snapshot_expected) = self.received();
        let (revision, compact_revision) = self.store.whole_revisions();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_id: self.identity.cluster_id,
            node: self.identity.node,
            role: raft.map_or("waiting", Raft::role_name).to_owned(),
            term: raft.map_or(Term::ZERO, Raft::term),
            leader,
            leader_address: leader.and_then(own).map(|member| member.address.clone()),
            commit_index: raft.map_or(self.store.applied(), Raft::commit_index),
            applied_index: self.store.applied(),
            last_index: self.wal.last().index,
            durable_index: raft.map_or(self.wal.last().index, Raft::durable),
            revision,
            compact_revision,
            state_hash: self.store.state_hash(),
            keys: self.store.keys(),
            history_bytes: self.store.history_bytes(),
            log_bytes: self.wal.log_bytes(),
            connections: u64::try_from(self.connections.clients()).expect("a count fits"),
            syncs: self.jobs.finished,
            out_of_space: self.wal.out_of_space() || self.is_over_quota(),
            lease_drift_ppm: self.options.lease_drift_ppm.map_or(0, u64::from),
            sessions: u64::try_from(self.store.session_count()).expect("a count fits"),
            log_base: self.wal.base().index,
            snapshot_index: snapshot.position.index,
            snapshot_bytes: snapshot.bytes,
            snapshot_received,
            snapshot_expected,
            turn_times: self.turns.report(),
            state: self.state_name().to_owned(),
            state_agreed_index: self.state_hashes.agreed(),
            state_reloads: self.lost_states.reloads(),
            lease_reads: raft.map_or(0, |raft| raft.marks().count(Mark::LeaseRead)),
            peers: self.peer_statuses(raft),
        }
    }

    /// Counts a turn of the loop: CPU time of its thread and time on the wall, in nanoseconds.
    pub fn note_turn_time(&mut self, cpu_ns: u64, wall_ns: u64) {
        self.turns.add(cpu_ns, wall_ns);
    }

    fn peer_statuses(&self, raft: Option<&Raft>) -> Vec<PeerStatus> {
        let sent = |peer: &super::peers::Peer| self.transfers.progress(peer.id);
        let status = |peer: &super::peers::Peer| PeerStatus {
            snapshot_sent: sent(peer).0,
            snapshot_bytes: sent(peer).1,
            node: peer.id,
            address: peer.address.clone(),
            connected: matches!(peer.outbound, Outbound::Up { .. }),
            match_index: raft.and_then(|raft| raft.match_index(peer.id)).unwrap_or_default(),
        };
        self.peers.iter().map(status).collect()
    }

    pub(super) fn answer_status(&mut self, id: ConnectionId, request: u64) -> Result<(), Error> {
        let status = self.status();
        self.connections.write(id, |out| status_reply(out, request, &status));
        Ok(())
    }
}
