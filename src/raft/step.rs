//! The door. Every input is admitted (terms), handled by exactly one rule, then its consequences
//! settle in one fixed order, then the invariants are checked.

use super::Raft;
use super::message::{AppendOutcome, Message, SnapshotOutcome};
use super::output::Mark;
use super::role::Role;
use crate::limits::TERM_JUMP_MAX;
use crate::types::{Instant, LogIndex, NodeId, Term};
use std::cmp::Ordering;

impl Raft {
    /// A message from `from` arrived. Of an `Append`, only entries that fit into `room_bytes` are
    /// taken; an entry takes its payload and a record header. Nothing that a peer sends panics.
    pub fn step(&mut self, now: Instant, from: NodeId, message: &Message, room_bytes: u64) {
        if !self.admit(now, from, message) {
            return;
        }
        match *message {
            Message::PreVote { campaign_term, last } => {
                self.on_pre_vote(now, from, campaign_term, last);
            }
            Message::PreVoteReply { term: _, campaign_term, granted } => {
                if granted {
                    self.on_pre_vote_reply(now, from, campaign_term);
                }
            }
            Message::Vote { term: _, last, asked_by: _ } => self.on_vote(now, from, last),
            Message::VoteReply { term: _, granted } => {
                if granted {
                    self.on_vote_reply(now, from);
                }
            }
            Message::Append { term: _, session, round, prev, ref entries, commit } => {
                if self.follow(now, from, session, round) {
                    self.on_append(prev, entries, commit, room_bytes);
                } else {
                    self.output.marks.add(Mark::Malformed);
                }
            }
            Message::Heartbeat { term: _, session, round, commit } => {
                if self.follow(now, from, session, round) {
                    self.on_heartbeat(commit);
                } else {
                    self.output.marks.add(Mark::Malformed);
                }
            }
            Message::TimeoutNow { term: _, last } => self.on_timeout_now(now, from, last),
            Message::AppendReply { term: _, session, round, outcome, first_faulty } => {
                self.on_append_reply(now, from, (session, round), outcome, first_faulty);
            }
            Message::ReadIndex { term: _, sequence } => self.on_read_index(from, sequence),
            Message::ReadIndexReply { term: _, sequence, index } => {
                self.on_read_index_reply(from, sequence, index);
            }
            Message::InstallSnapshot { term: _, snapshot, offset: _, bytes: _ } => {
                if self.hear_leader(now, from) {
                    self.on_install_snapshot(snapshot);
                } else {
                    self.output.marks.add(Mark::Malformed);
                }
            }
            Message::InstallSnapshotReply { term: _, snapshot, outcome } => {
                self.on_install_snapshot_reply(now, from, snapshot, outcome);
            }
        }
    }

    /// The deadlines that are due.
    pub fn tick(&mut self, now: Instant) {
        match &self.role {
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                let due = self.role.election_deadline().is_some_and(|deadline| deadline <= now);
                if due && !self.may_campaign() {
                    self.forget_leader(now);
                } else if due && self.disk_deadline() <= now {
                    self.postpone_election(now);
                } else if due {
                    self.on_election_timeout(now);
                }
            }
            Role::Leader(leader) => {
                if self.quorum_deadline() <= now {
                    self.on_quorum_lost(now);
                } else if !leader.peers.is_empty() && self.disk_deadline() <= now {
                    self.on_disk_stalled(now);
                } else if leader.heartbeat_at <= now {
                    self.on_heartbeat_due(now);
                }
            }
        }
    }

    /// Our connection to `peer` is up and is the replication session `session`, a number never used
    /// before.
    pub fn connected(&mut self, peer: NodeId, session: u64) {
        self.sessions.insert(peer, session);
        match &mut self.role {
            Role::Leader(leader) => {
                if let Some(it) = leader.peers.iter_mut().find(|it| it.id == peer) {
                    it.connected(session);
                }
            }
            Role::PreCandidate(_) | Role::Candidate(_) => self.ask_again(peer),
            Role::Follower(_) => {}
        }
    }

    /// The connection of this session is down.
    pub fn disconnected(&mut self, peer: NodeId, session: u64) {
        if self.sessions.get(&peer) == Some(&session) {
            self.sessions.remove(&peer);
        }
        if let Role::Leader(leader) = &mut self.role
            && let Some(it) = leader.peers.iter_mut().find(|it| it.id == peer)
        {
            it.disconnected(session);
        }
    }

    /// Draws the consequences of the turn's inputs, always all, always in this order: each line
    /// reads what the lines above left.
    pub fn settle(&mut self, now: Instant) {
        self.advance_commit_index(); // what the acknowledgements of this turn commit
        self.continue_reconfiguration(now); // a committed configuration may end our leadership
        self.release_reads(now); // a new round rides on the Appends below
        self.continue_transfer(now); // the target may have caught up
        self.answer_leader(now); // one answer for all that the turn brought
        self.forward_reads(now); // our readers' question to the leader
        self.fill_pipelines(now); // entries, else the heartbeats that are due
        self.choose_wake_at();
        self.check_invariants();
    }

    /// Looks at the term of a message and says whether a rule is to handle it.
    fn admit(&mut self, now: Instant, from: NodeId, message: &Message) -> bool {
        let Some(term) = message.term() else {
            return from != self.settings.id;
        };
        let current = self.hard_state.term;
        let leap = term.get() > current.get().saturating_add(TERM_JUMP_MAX);
        if leap || from == self.settings.id {
            self.output.marks.add(Mark::Malformed);
            return false;
        }
        match term.cmp(&current) {
            Ordering::Less => self.admit_stale(from, message),
            Ordering::Equal => true,
            Ordering::Greater => self.admit_newer(now, from, term, message),
        }
    }

    /// A message of a former term: its sender should learn ours, and no rule sees it.
    fn admit_stale(&mut self, from: NodeId, message: &Message) -> bool {
        let term = self.hard_state.term;
        match message {
            // A grant may come from a voter behind our term; what it answers is the campaign term.
            Message::PreVote { .. } | Message::PreVoteReply { .. } => return true,
            Message::Vote { .. } => self.reply(from, Message::VoteReply { term, granted: false }),
            Message::Append { session, .. } | Message::Heartbeat { session, .. } => {
                // It names our term, and its sender may lead that too by now: its old round's
                // number would confirm a round of this term that we have not heard of.
                let (session, round) = (*session, 0);
                let outcome = AppendOutcome::Matched { index: LogIndex::ZERO };
                self.reply(
                    from,
                    Message::AppendReply { term, session, round, outcome, first_faulty: None },
                );
            }
            // A follower of a former term learns of ours from its leader or from our campaign.
            Message::VoteReply { .. }
            | Message::AppendReply { .. }
            | Message::TimeoutNow { .. }
            | Message::ReadIndex { .. }
            | Message::ReadIndexReply { .. }
            | Message::InstallSnapshotReply { .. } => {}
            Message::InstallSnapshot { snapshot, .. } => {
                let (snapshot, outcome) = (*snapshot, SnapshotOutcome::Refused);
                self.reply(from, Message::InstallSnapshotReply { term, snapshot, outcome });
            }
        }
        false
    }

    /// A message of a later term: we follow, unless it only asks us to leave a leader that we hear.
    fn admit_newer(&mut self, now: Instant, from: NodeId, term: Term, message: &Message) -> bool {
        if let Message::Vote { asked_by, .. } = message {
            if self.yields_to(from, *asked_by, term) {
                // Whom we follow has ended its leases: `transfer`.
                self.promise_until = now;
            } else if self.is_sticky(now) {
                self.output.marks.add(Mark::Sticky);
                return false;
            }
        }
        self.become_follower(now, term);
        true
    }

    /// Sends what speaks for our term and vote, once they are durable.
    pub(super) fn reply(&mut self, to: NodeId, message: Message) {
        let durable = self.durability.of(self.hard_state);
        self.output.send_after(durable, self.hard_state.term, to, message);
    }

    /// The earliest deadline of our role.
    pub(super) fn choose_wake_at(&mut self) {
        let waits = self.may_campaign() || self.leader().is_some();
        self.wake_at = match &self.role {
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                let deadline = self.role.election_deadline().filter(|_| waits);
                deadline.unwrap_or(Instant::FAR).min(self.role.asks_again_at())
            }
            Role::Leader(leader) if leader.peers.is_empty() => Instant::FAR,
            Role::Leader(leader) => {
                let handover = leader.transfer.as_ref().map_or(Instant::FAR, |it| it.deadline);
                let lost = self.quorum_deadline().min(self.disk_deadline());
                leader.heartbeat_at.min(lost).min(handover)
            }
        };
    }
}
