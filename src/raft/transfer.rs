//! Leadership transfer. Thesis §3.10.
//!
//! A leader that hands over takes no proposals, waits until the target has all of its log and all
//! of it is committed, and tells it to campaign at once: `TimeoutNow`. The state belongs to
//! `role::Leader` and has a deadline of one election timeout, so it cannot outlive the leadership,
//! nor keep proposals out for longer; after the deadline the leader goes on as before.
//!
//! The target asks for no pre-votes, and its `Vote` names the leader that it takes over from: a
//! voter that hears exactly this leader, in the term just before, gives up its stickiness for it;
//! the leader itself only while the transfer lasts. A `TimeoutNow` that was on its way for long
//! finds a target whose log has moved on, and is void.
//!
//! Leases end for the rest of the term when a transfer begins, because a late `TimeoutNow` deposes
//! a leader that a quorum hears. So a voter that gives up its stickiness for the leader that it
//! follows gives up what it promised too: nobody's lease rests on it any more. That leader's own
//! are over, and those of the leaders before were when it was elected.

use super::log::Log;
use super::message::Message;
use super::output::{Notice, TransferError};
use super::progress::Peer;
use super::role::{Leader, Role};
use super::{Raft, Settings};
use crate::limits::ENTRY_OVERHEAD_BYTES;
use crate::types::{Instant, LogPosition, LogRange, NodeId, Term};
use std::cmp::Reverse;

impl Raft {
    /// Begins to hand over to `target`. Ends with the leadership, or with
    /// `Notice::TransferFailed`.
    pub fn transfer(&mut self, now: Instant, target: NodeId) -> Result<(), TransferError> {
        let leader_known = self.leader();
        let Role::Leader(leader) = &mut self.role else {
            return Err(TransferError::NotLeader { leader: leader_known });
        };
        if target == self.settings.id {
            return Err(TransferError::Leads);
        }
        if leader.hands_over() {
            return Err(TransferError::Underway);
        }
        if !self.log.configuration().keeps_vote(target) {
            return Err(TransferError::NoVoter { target });
        }
        let peer = leader.peers.iter().find(|peer| peer.id == target);
        let Some(peer) = peer.filter(|peer| peer.session.is_some()) else {
            return Err(TransferError::Unreachable { target });
        };
        // Proposals wait while it catches up: only if that is a matter of a full pipeline.
        if is_far_behind(peer, &self.log, &self.settings) {
            let entries = missing(peer, &self.log).count();
            return Err(TransferError::Behind { target, entries });
        }
        let deadline = now.after_ns(self.settings.election_timeout_ns);
        leader.begin_transfer(target, deadline);
        Ok(())
    }

    /// As leader, to whom we hand over.
    pub fn transferring_to(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.transfer.as_ref().map(|transfer| transfer.target),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// As leader, the connected voter that is furthest and stays a voter. Others come before one
    /// that is too far behind to be handed anything, one that has no room for entries, and those
    /// who were asked and did not take over, of whom it is the turn of who was asked longest ago:
    /// any of them may be unable for ever.
    pub fn successor(&self, now: Instant) -> Option<NodeId> {
        let Role::Leader(leader) = &self.role else { return None };
        let configuration = self.log.configuration();
        let timeout = self.settings.election_timeout_ns;
        let able = leader.peers.iter().filter(|peer| {
            let answers = peer.session.is_some() && now.ns_since(peer.heard_at) < timeout;
            answers && configuration.keeps_vote(peer.id)
        });
        let asked = |peer: &Peer| leader.passed_over.iter().position(|id| *id == peer.id);
        let rank = |peer: &&Peer| {
            let near = !is_far_behind(peer, &self.log, &self.settings);
            (near, !peer.lacks_room(), Reverse(asked(peer)), peer.match_index)
        };
        able.max_by_key(rank).map(|peer| peer.id)
    }

    /// Gives up what has become pointless, and tells a target that has everything.
    pub(super) fn continue_transfer(&mut self, now: Instant) {
        let (last, term) = (self.log.last(), self.hard_state.term);
        let all_committed = self.commit_index == last.index;
        let Role::Leader(leader) = &mut self.role else { return };
        let Leader { peers, transfer: slot, passed_over, .. } = leader;
        let Some(transfer) = slot else { return };
        let target = transfer.target;
        // Asked anew each time: the configuration or the connection may have changed since.
        let electable = self.log.configuration().keeps_vote(target);
        let peer = peers.iter().find(|peer| peer.id == target);
        let session = peer.and_then(|peer| peer.session);
        let (Some(peer), Some(session), true, true) =
            (peer, session, electable, now < transfer.deadline)
        else {
            *slot = None;
            passed_over.retain(|id| *id != target);
            passed_over.push(target);
            self.output.notices.push(Notice::TransferFailed { term, target });
            return;
        };
        // Committed too: so nobody who waits for a proposal is left without an answer.
        if peer.match_index == last.index && all_committed && transfer.told != Some(session) {
            transfer.told = Some(session);
            let message = Message::TimeoutNow { term, last };
            self.reply(target, message);
        }
    }

    /// Our leader wants us to take over, now. Void if we are not who it thinks we are: a voter that
    /// has all of its log, and a disk that takes our vote for ourselves.
    pub(super) fn on_timeout_now(&mut self, now: Instant, from: NodeId, last: LogPosition) {
        let leads = self.leader() == Some(from);
        let able = self.log.configuration().is_voter(self.settings.id);
        let writes = now < self.disk_deadline();
        if leads && able && writes && self.log.last() == last {
            self.campaign_for(now, Some(from));
        }
    }

    /// Whether a vote of `term` for `candidate` is one that our own leader, `named`, asked for.
    pub(super) fn yields_to(&self, candidate: NodeId, named: Option<NodeId>, term: Term) -> bool {
        let next = self.hard_state.term.next() == term;
        let ours = named.is_some() && self.leader() == named;
        let handed_over = match &self.role {
            Role::Leader(leader) => leader
                .transfer
                .as_ref()
                .is_some_and(|it| it.target == candidate && it.told.is_some()),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => true,
        };
        next && ours && handed_over
    }
}

/// What is not known to be in its log.
fn missing(peer: &Peer, log: &Log) -> LogRange {
    LogRange::new(peer.match_index, log.last().index)
}

/// Whether it lacks more than may be on its way to it at a time.
fn is_far_behind(peer: &Peer, log: &Log, settings: &Settings) -> bool {
    let missing = missing(peer, log);
    let overhead = missing.count().saturating_mul(ENTRY_OVERHEAD_BYTES);
    // What a snapshot has to bring first has no size in the log.
    let held = peer.match_index >= log.base().index;
    let bytes = if held { log.bytes_in(missing) } else { u64::MAX };
    bytes.saturating_add(overhead) > settings.in_flight_bytes_max
}
