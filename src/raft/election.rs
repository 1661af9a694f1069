//! Elections: pre-votes, votes, and who may not be disturbed. Paper §5.2, §5.4.1; thesis §4.2.3,
//! §9.6.
//!
//! Pre-vote keeps a cut-off server from raising terms; stickiness keeps it from deposing a leader
//! that a quorum hears; check-quorum (`replication`) silences a leader that no quorum hears.
//! Partial partitions need all three.

use super::Raft;
use super::configuration::Configuration;
use super::durability::Durable;
use super::message::Message;
use super::output::{Mark, Notice};
use super::role::Role;
use crate::limits::TERM_JUMP_MAX;
use crate::types::{Instant, LogPosition, NodeId, Term, Vote};

impl Raft {
    /// No word from a leader, or no decision, for an election timeout.
    pub(super) fn on_election_timeout(&mut self, now: Instant) {
        self.become_pre_candidate(now);
        if self.log.configuration().is_sole_voter(self.settings.id) {
            self.campaign(now);
        } else {
            self.ask_all();
        }
    }

    /// No word from the leader for as long, and we are no voter: who reads here waits in vain.
    pub(super) fn forget_leader(&mut self, now: Instant) {
        if self.leader().is_some() {
            self.become_follower(now, self.hard_state.term);
        }
    }

    fn ask_all(&mut self) {
        for to in self.log.configuration().voters() {
            if to != self.settings.id {
                self.ask(to);
            }
        }
    }

    /// The connection to a voter came up while we campaign: it has not heard our request.
    pub(super) fn ask_again(&mut self, to: NodeId) {
        if self.log.configuration().is_voter(to) {
            self.ask(to);
        }
    }

    fn ask(&mut self, to: NodeId) {
        let last = self.log.last();
        let term = self.hard_state.term;
        match &self.role {
            Role::PreCandidate(_) => {
                let message = Message::PreVote { campaign_term: term.next(), last };
                // It promises nothing, so it waits for nothing.
                self.output.send_after(Durable::Now, term, to, message);
            }
            // Our term and own vote are a promise like any other: durable before anyone hears of
            // them.
            Role::Candidate(candidate) => {
                let asked_by = candidate.asked_by;
                self.reply(to, Message::Vote { term, last, asked_by });
            }
            Role::Follower(_) | Role::Leader(_) => {}
        }
    }

    /// "Would you vote for me in `campaign_term`?" Changes nothing here, not even a deadline.
    pub(super) fn on_pre_vote(
        &mut self,
        now: Instant,
        from: NodeId,
        campaign_term: Term,
        last: LogPosition,
    ) {
        let term = self.hard_state.term;
        let sticky = self.is_sticky(now);
        if sticky {
            self.output.marks.add(Mark::Sticky);
        }
        let newer = campaign_term > term;
        let reachable = campaign_term.get() <= term.get().saturating_add(TERM_JUMP_MAX);
        let up_to_date = last >= self.log.last();
        let granted = newer && reachable && up_to_date && !sticky;
        // A refusal tells our term, so that a candidate with the better log but an older term
        // learns it.
        self.reply(from, Message::PreVoteReply { term, campaign_term, granted });
    }

    /// Someone would vote for us, or not.
    pub(super) fn on_pre_vote_reply(&mut self, now: Instant, from: NodeId, campaign_term: Term) {
        let Role::PreCandidate(candidate) = &mut self.role else { return };
        // The answer to this very question: an older round's campaign term was lower.
        if campaign_term != self.hard_state.term.next() {
            return;
        }
        add(&mut candidate.granted, from, self.log.configuration());
        let granted = &candidate.granted;
        if self.log.configuration().reached(|id| granted.contains(&id)) {
            self.campaign(now);
        }
    }

    /// Figure 2, Candidates: increment the term, vote for self, reset the timer, ask for votes.
    fn campaign(&mut self, now: Instant) {
        self.campaign_for(now, None);
    }

    /// A campaign, on behalf of the leader that asked us to take over if one did.
    pub(super) fn campaign_for(&mut self, now: Instant, asked_by: Option<NodeId>) {
        self.become_candidate(now, asked_by);
        self.ask_all();
        // It may be no voter any more; so it hears that its term is over, and stops waiting.
        if let Some(leader) = asked_by.filter(|leader| !self.log.configuration().is_voter(*leader))
        {
            self.ask(leader);
        }
    }

    /// Figure 2, RequestVote. Its term is ours: `admit` saw to it.
    pub(super) fn on_vote(&mut self, now: Instant, from: NodeId, last: LogPosition) {
        let term = self.hard_state.term;
        let free = match self.hard_state.vote {
            Vote::None => true,
            Vote::For(candidate) => candidate == from,
            Vote::Abstain => false,
        };
        // Compared on every grant, repeated ones too: a vote found in an old record proves nothing
        // about this candidate's log. Paper §5.4.1: by last term, then by last index.
        let up_to_date = last >= self.log.last();
        let granted = free && up_to_date && !self.is_sticky(now);
        if granted {
            self.hard_state.vote = Vote::For(from);
            self.wait_for(now);
        }
        self.reply(from, Message::VoteReply { term, granted });
    }

    /// A vote given is a reason to wait for its outcome; a vote refused is not.
    fn wait_for(&mut self, now: Instant) {
        if matches!(self.role, Role::PreCandidate(_)) {
            self.become_follower(now, self.hard_state.term);
        }
        let deadline = self.draw_election_deadline(now);
        match &mut self.role {
            Role::Follower(follower) => follower.election_deadline = deadline,
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => {
                unreachable!("who campaigns or leads has voted for itself")
            }
        }
    }

    /// Figure 2, RequestVote's result.
    pub(super) fn on_vote_reply(&mut self, now: Instant, from: NodeId) {
        self.count_vote(now, from);
    }

    /// Our term and own vote are durable.
    pub(super) fn on_own_vote_durable(&mut self, now: Instant) {
        self.count_vote(now, self.settings.id);
    }

    fn count_vote(&mut self, now: Instant, from: NodeId) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        if from == self.settings.id {
            candidate.own_vote_durable = true;
        }
        add(&mut candidate.granted, from, self.log.configuration());
        let granted = &candidate.granted;
        let elected = self.log.configuration().reached(|id| granted.contains(&id));
        // Nobody heard of our candidacy before our own vote was durable; it counts like any other,
        // that is, if we are a voter.
        if elected && candidate.own_vote_durable {
            self.become_leader(now);
        }
    }

    /// Whether we may be needed as a leader: a voter of the configuration in force, or of the one
    /// before it while we do not know it to be committed. Then our log may be the only one from
    /// which it can be, and those who lack it cannot be elected without us. Thesis §4.2.2, Figure
    /// 4.6.
    pub(super) fn may_campaign(&self) -> bool {
        let own = self.settings.id;
        let committed = self.log.configuration_at_or_below(self.commit_index).1;
        self.log.configuration().is_voter(own) || committed.is_voter(own)
    }

    /// Whether we hear a leader, are one, or confirmed one's round: then nobody gets our vote,
    /// whatever its term. Thesis §4.2.3; the promise outlives the leader's term (`reads`).
    pub(super) fn is_sticky(&self, now: Instant) -> bool {
        let hears = match &self.role {
            Role::Follower(follower) => follower.following.as_ref().is_some_and(|following| {
                now.ns_since(following.heard_at) < self.settings.election_timeout_ns
            }),
            Role::PreCandidate(_) | Role::Candidate(_) => false,
            Role::Leader(_) => true,
        };
        hears || now < self.promise_until
    }

    /// Our disk hangs: in office we would be of no use, and our vote for ourselves would not leave.
    /// Try again later.
    pub(super) fn postpone_election(&mut self, now: Instant) {
        let later = self.draw_election_deadline(now);
        self.output.marks.add(Mark::DiskStalled);
        match &mut self.role {
            Role::Follower(follower) => follower.election_deadline = later,
            Role::PreCandidate(candidate) => candidate.election_deadline = later,
            Role::Candidate(candidate) => candidate.election_deadline = later,
            Role::Leader(_) => unreachable!("a leader does not campaign"),
        }
    }

    /// A leader that waits for its own disk for too long leaves office, while a quorum of other
    /// disks may still do its work: it would answer every heartbeat and be slow for ever.
    pub(super) fn on_disk_stalled(&mut self, now: Instant) {
        assert!(self.is_leader(), "only a leader leaves office");
        let term = self.hard_state.term;
        self.output.marks.add(Mark::DiskStalled);
        self.output.notices.push(Notice::DiskStalled { term });
        self.become_follower(now, term);
    }

    /// A leader that no quorum heard of for an election timeout falls silent: its followers' timers
    /// must run out, or a server that hears it alone would never help elect another. Thesis §6.2.
    pub(super) fn on_quorum_lost(&mut self, now: Instant) {
        assert!(self.is_leader(), "only a leader needs to be heard");
        let term = self.hard_state.term;
        self.output.notices.push(Notice::LostQuorum { term });
        self.become_follower(now, term);
    }
}

/// Voters are a set, not a count of answers: duplicates and strangers change nothing.
fn add(granted: &mut Vec<NodeId>, from: NodeId, configuration: &Configuration) {
    if configuration.is_voter(from) && !granted.contains(&from) {
        granted.push(from);
    }
}
