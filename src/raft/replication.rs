//! The leader's side of replication: proposals, pipelines, acknowledgements, commits. Paper §5.3,
//! §5.4.2.

use super::Raft;
use super::Settings;
use super::log::Log;
use super::message::{AppendOutcome, Message};
use super::output::{Body, Mark, Output, ProposeError, Send};
use super::progress::{InFlight, Peer, Progress};
use super::role::Role;
use crate::types::{EntryKind, Instant, LogIndex, LogPosition, LogRange, NodeId, Term};

/// After this many election timeouts without an answer a pipeline is taken for lost. Connections do
/// not lose messages; a disk that hangs for long looks the same, and gets its entries again.
const PATIENCE_ELECTION_TIMEOUTS: u64 = 4;

impl Raft {
    /// Appends an entry of `kind` with a payload of `bytes`. The caller stages the payload at the
    /// position returned; nothing about it is in `Output::log_ops`.
    pub fn propose(
        &mut self,
        _now: Instant,
        kind: EntryKind,
        bytes: u32,
    ) -> Result<LogPosition, ProposeError> {
        assert!(kind == EntryKind::Commands, "{kind:?} has a door of its own");
        let Role::Leader(leader) = &self.role else {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        };
        if leader.hands_over() {
            return Err(ProposeError::Transferring);
        }
        let uncommitted = self.uncommitted_bytes();
        let total = uncommitted.saturating_add(u64::from(bytes));
        // One proposal is always allowed, or a large one could never be made.
        if uncommitted > 0 && total > self.settings.uncommitted_bytes_max {
            return Err(ProposeError::Busy);
        }
        Ok(self.append(bytes))
    }

    /// A follower answered, in our term. What it says of an older connection, or beyond what we
    /// sent, is not about us.
    pub(super) fn on_append_reply(
        &mut self,
        now: Instant,
        from: NodeId,
        (session, round): (u64, u64),
        outcome: AppendOutcome,
        first_faulty: Option<LogIndex>,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        let newest_round = leader.reads.round();
        let Some(peer) = leader.peers.iter_mut().find(|peer| peer.id == from) else { return };
        if peer.session != Some(session) {
            return;
        }
        if round > newest_round || !is_sound(outcome, first_faulty, self.log.last().index) {
            self.output.marks.add(Mark::Malformed);
            return;
        }
        peer.heard_at = peer.heard_at.max(now);
        peer.round_heard = peer.round_heard.max(round);
        let bound = first_faulty.map_or(self.log.last().index, LogIndex::prev);
        match outcome {
            AppendOutcome::Matched { index } => peer.matched(index.min(bound)),
            AppendOutcome::Conflict { probe, hint } => {
                if peer.awaits_refusal_of(probe) {
                    // Our last entry that theirs may equal: nothing of a later term than their
                    // hint's.
                    let common = self.log.last_at_most(hint.index, hint.term);
                    peer.probe_after(common.map(|common| common.index));
                    self.output.marks.add(Mark::Reprobed);
                }
            }
            AppendOutcome::NoRoom { index } => {
                peer.matched(index.min(bound));
                peer.pause();
            }
        }
        if let Some(faulty) = first_faulty {
            peer.found_faulty(faulty);
        }
        peer.leave_snapshot(self.log.base().index);
    }

    /// It is time to say that we are there, and to repeat what may have been lost.
    pub(super) fn on_heartbeat_due(&mut self, now: Instant) {
        let patience = self.settings.election_timeout_ns.saturating_mul(PATIENCE_ELECTION_TIMEOUTS);
        let lost_before = Instant::from_ns(now.as_ns().saturating_sub(patience));
        let Role::Leader(leader) = &mut self.role else { return };
        leader.heartbeat_at = now.after_ns(self.settings.heartbeat_ns);
        if self.settings.lease_drift_ppm.is_some() {
            leader.reads.begin_lease_round(now);
        }
        for peer in &mut leader.peers {
            if peer.on_heartbeat_due(lost_before) {
                self.output.marks.add(Mark::Reprobed);
            }
        }
    }

    /// Figure 2, Leaders, last rule: what a quorum has on disk is committed, if it is of our own
    /// term. An entry of an earlier term on a quorum may still be overwritten (Figure 8); it is
    /// committed with the first of ours.
    pub(super) fn advance_commit_index(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        // Our own log counts like any other: by what is durable.
        let stored = leader.voters_have(self.durability.last(), |peer| peer.match_index);
        let quorum = self.log.configuration().reached(stored);
        let of_our_term = self.log.term_at(quorum) == Some(self.hard_state.term);
        if quorum > self.commit_index && of_our_term {
            self.commit_index = quorum;
        }
    }

    /// Sends each follower the next stretch while its pipeline has room, else the heartbeat or
    /// round that is due. Before our own sync: the leader's disk and the followers' work at the
    /// same time. Thesis §10.2.1.
    pub(super) fn fill_pipelines(&mut self, now: Instant) {
        let Role::Leader(leader) = &mut self.role else { return };
        let outgoing = Outgoing {
            term: self.hard_state.term,
            commit_index: self.commit_index,
            round: leader.reads.round(),
            log: &self.log,
            settings: &self.settings,
            now,
        };
        for peer in &mut leader.peers {
            if let Some(session) = peer.session {
                outgoing.fill(peer, session, &mut self.output);
            }
        }
    }

    /// When a leader that hears nothing more has lost its quorum.
    pub(super) fn quorum_deadline(&self) -> Instant {
        let Role::Leader(leader) = &self.role else { return Instant::FAR };
        let heard = leader.voters_have(Instant::FAR, |peer| peer.heard_at);
        let quorum_heard = self.log.configuration().reached(heard);
        quorum_heard.after_ns(self.settings.election_timeout_ns)
    }
}

/// Whether a sound follower of ours could have said this about a log that ends at `last`.
fn is_sound(outcome: AppendOutcome, first_faulty: Option<LogIndex>, last: LogIndex) -> bool {
    let sound = match outcome {
        AppendOutcome::Matched { index } | AppendOutcome::NoRoom { index } => index <= last,
        AppendOutcome::Conflict { probe, hint } => probe <= last && hint.index < probe,
    };
    sound && first_faulty != Some(LogIndex::ZERO)
}

/// What all messages of one settle share.
struct Outgoing<'raft> {
    term: Term,
    commit_index: LogIndex,
    round: u64,
    log: &'raft Log,
    settings: &'raft Settings,
    now: Instant,
}

impl Outgoing<'_> {
    fn fill(&self, peer: &mut Peer, session: u64, output: &mut Output) {
        let mut heard_from_us = false;
        let last = self.log.last().index;
        if peer.enter_snapshot(self.log.base().index) {
            output.marks.add(Mark::SnapshotNeeded);
        }
        match &mut peer.progress {
            Progress::Snapshot => {}
            Progress::Probe(probe) if probe.sent.is_none() && !probe.paused => {
                let range = if probe.prev < last {
                    let entries_max =
                        if probe.cautious { 1 } else { self.settings.append_entries_max };
                    self.log.chunk(probe.prev, entries_max, self.settings.append_bytes_max)
                } else {
                    LogRange::new(last, last)
                };
                probe.sent = Some(self.in_flight(range));
                output.sends.push(self.append(peer.id, session, range));
                heard_from_us = true;
            }
            Progress::Probe(_) => {}
            Progress::Replicate(stream) => {
                let messages_max = self.settings.in_flight_messages_max;
                let bytes_max = self.settings.in_flight_bytes_max;
                while stream.sent < last && stream.has_room(messages_max, bytes_max) {
                    let range = self.log.chunk(
                        stream.sent,
                        self.settings.append_entries_max,
                        self.settings.append_bytes_max,
                    );
                    stream.record(self.in_flight(range));
                    output.sends.push(self.append(peer.id, session, range));
                    heard_from_us = true;
                }
            }
        }
        let due = peer.heartbeat_due || peer.round_sent < self.round;
        if !heard_from_us && due {
            output.sends.push(self.heartbeat(peer, session));
            heard_from_us = true;
        }
        if heard_from_us {
            peer.heartbeat_due = false;
            peer.round_sent = self.round;
        }
    }

    fn append(&self, to: NodeId, session: u64, range: LogRange) -> Send {
        let prev = self.log.position(range.after());
        let commit = self.commit_index.min(range.last());
        let (term, round) = (self.term, self.round);
        Send { to, body: Body::Append { term, session, round, prev, range, commit } }
    }

    fn in_flight(&self, range: LogRange) -> InFlight {
        let bytes = self.log.bytes_in(range);
        InFlight { last: range.last(), bytes, sent_at: self.now }
    }

    /// A heartbeat verifies nothing, so it commits nothing that its receiver has not been proven to
    /// hold.
    fn heartbeat(&self, peer: &Peer, session: u64) -> Send {
        let commit = self.commit_index.min(peer.match_index);
        let (term, round) = (self.term, self.round);
        let message = Message::Heartbeat { term, session, round, commit };
        Send { to: peer.id, body: Body::Message(message) }
    }
}
