//! When a node wants another turn: whatever is due or left to do says so here, or nobody wakes it.

use super::{Farewell, Node, Stage, drive};
use crate::types::Instant;

impl Node {
    /// When `advance` must be called even if nothing happens.
    pub fn wake_at(&self) -> Instant {
        let farewell_due = self.farewell == Farewell::Asked && !self.jobs.in_flight;
        // Found in `open`, a bootstrap's first job waits for no input.
        let job = self.jobs.ready.is_some();
        let ready = self.connections.has_ready_deferred() || self.has_ready_save();
        let ready = ready || self.has_ready_range();
        // A keep-alive may need an entry after the turn's was closed.
        let ready = ready || !self.leases.to_take_back.is_empty();
        let ready = ready || self.watches.has_work(&self.store, &self.connections);
        let ready =
            ready || (matches!(self.stage, Stage::Member(_)) && self.reads.wait_for_a_turn());
        if self.more_to_apply || farewell_due || job || ready {
            return Instant::ZERO;
        }
        let core = match &self.stage {
            Stage::Member(raft) if drive::minds_deadlines(raft, &self.wal) => raft.wake_at(),
            Stage::Member(_) | Stage::Alone(_) | Stage::Founding => Instant::FAR,
        };
        let snapshots = self.snapshots.wake_at().min(self.receiving_wake_at());
        core.min(self.peers.wake_at())
            .min(self.jobs.wake_at())
            .min(self.administration.wake_at())
            .min(self.handover_wake_at())
            .min(snapshots)
            .min(self.reads_wake_at())
            .min(self.connections.wake_at())
            .min(self.stall_ends_at())
            .min(self.leases_wake_at())
            .min(self.saves.wake_at())
            .min(self.ranges.wake_at())
            .min(self.compaction_wake_at())
            .min(self.watches.wake_at())
            .min(self.transfers.wake_at(self.now))
    }
}
