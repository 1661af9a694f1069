//! The roles, what each owns, and the only functions that change a role. Paper Figure 4, with
//! pre-candidates.
//!
//! State that belongs to a role lives in its value and dies with it: votes cannot be counted after
//! the election, and a deposed leader has no reads, no pipelines and no term to propose in.

use super::Raft;
use super::membership::Membership;
use super::output::{LogOp, Notice};
use super::progress::Peer;
use super::reads::{ForwardedReads, Reads};
use crate::types::{HardState, Instant, LogIndex, LogPosition, NodeId, Term, Vote};
use std::mem;

/// What a server is.
#[derive(Debug)]
pub(super) enum Role {
    Follower(Follower),
    /// Asks who would vote for it, without disturbing anybody. Thesis §9.6.
    PreCandidate(PreCandidate),
    Candidate(Candidate),
    Leader(Leader),
}

/// Waits for a leader's word.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) election_deadline: Instant,
    /// The leader of our term, once heard.
    pub(super) following: Option<Following>,
}

/// What a follower keeps about the leader of its term.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) leader: NodeId,
    pub(super) heard_at: Instant,
    /// The replication session of its newest message.
    pub(super) session: u64,
    /// The newest ReadIndex round heard from it, and the newest one answered.
    pub(super) round: u64,
    pub(super) round_answered: u64,
    /// The last entry known to equal the leader's: what it sent us in this term, and what is
    /// committed.
    pub(super) verified: LogIndex,
    /// The last match index told to it.
    pub(super) acked: LogIndex,
    /// An answer is to leave at the next `settle`.
    pub(super) reply_due: bool,
    /// Why that answer is a refusal, if it is one.
    pub(super) refusal: Option<Refusal>,
    /// The size of an entry that found no room, if there has been none since. Bytes.
    pub(super) cramped: Option<u32>,
    /// The reads for which it must say up to where to apply.
    pub(super) reads: ForwardedReads,
}

/// Why a follower did not take entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// The previous entry is not in our log; where the logs may agree.
    Conflict { probe: LogIndex, hint: LogPosition },
    /// The entries found no room.
    NoRoom,
}

/// Counts who would vote for it.
#[derive(Debug)]
pub(super) struct PreCandidate {
    pub(super) election_deadline: Instant,
    /// Who would, ourselves included. A set: an answer that comes twice counts once.
    pub(super) granted: Vec<NodeId>,
}

/// Counts its votes.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) election_deadline: Instant,
    /// Which voters did; ourselves once our vote is durable.
    pub(super) granted: Vec<NodeId>,
    /// Whether our own vote is durable.
    pub(super) own_vote_durable: bool,
    /// The leader that asked us to take over, if one did.
    pub(super) asked_by: Option<NodeId>,
}

/// Leads the term.
#[derive(Debug)]
pub(super) struct Leader {
    /// Ourselves.
    pub(super) id: NodeId,
    /// The entry that opened the term.
    pub(super) noop: LogPosition,
    /// The other members and those who just left, ascending.
    pub(super) peers: Vec<Peer>,
    pub(super) membership: Membership,
    pub(super) reads: Reads,
    /// A handover under way.
    pub(super) transfer: Option<Transfer>,
    /// Who did not take over when they were asked to, the last one last.
    pub(super) passed_over: Vec<NodeId>,
    pub(super) heartbeat_at: Instant,
}

/// A handover of the leadership under way. Its rules: `transfer.rs`.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) target: NodeId,
    /// When it is given up.
    pub(super) deadline: Instant,
    /// The session over which the target was told to campaign.
    pub(super) told: Option<u64>,
}

impl Leader {
    /// Begins a handover to `target` that is given up at `deadline`. Whom it tells to campaign need
    /// not wait for the end of a lease, so there is none from now on.
    pub(super) fn begin_transfer(&mut self, target: NodeId, deadline: Instant) {
        assert!(self.transfer.is_none(), "one handover at a time");
        self.transfer = Some(Transfer { target, deadline, told: None });
        self.reads.end_leases();
    }

    /// Whether we hand over, and so take no proposals.
    pub(super) fn hands_over(&self) -> bool {
        self.transfer.is_some() || self.membership.left()
    }

    /// What `of` says about each voter, `own` being what it would say about ourselves.
    /// `follow_configuration` made every other voter a peer.
    pub(super) fn voters_have<T: Copy>(
        &self,
        own: T,
        of: impl Fn(&Peer) -> T,
    ) -> impl Fn(NodeId) -> T {
        move |id| match self.peers.binary_search_by_key(&id, |peer| peer.id) {
            Ok(at) => of(&self.peers[at]),
            Err(_) => {
                assert_eq!(id, self.id, "every other voter is a peer");
                own
            }
        }
    }
}

impl Role {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Role::Follower(_) => "follower",
            Role::PreCandidate(_) => "pre-candidate",
            Role::Candidate(_) => "candidate",
            Role::Leader(_) => "leader",
        }
    }

    /// When a follower repeats its readers' question to the leader.
    pub(super) fn asks_again_at(&self) -> Instant {
        match self {
            Role::Follower(Follower { following: Some(following), .. }) => {
                following.reads.wake_at()
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => {
                Instant::FAR
            }
        }
    }

    /// When we campaign, unless we hear something; a leader does not.
    pub(super) fn election_deadline(&self) -> Option<Instant> {
        match self {
            Role::Follower(follower) => Some(follower.election_deadline),
            Role::PreCandidate(candidate) => Some(candidate.election_deadline),
            Role::Candidate(candidate) => Some(candidate.election_deadline),
            Role::Leader(_) => None,
        }
    }
}

impl Raft {
    /// Adopts `term`, if it is later than ours, and follows whoever leads it. The only place that
    /// forgets a vote, and only with its term. The election deadline stays: a term alone is no word
    /// from a leader.
    pub(super) fn become_follower(&mut self, now: Instant, term: Term) {
        assert!(term >= self.hard_state.term, "term {term} is older than {:?}", self.hard_state);
        if term > self.hard_state.term {
            self.hard_state = HardState { term, vote: Vote::None };
        }
        let election_deadline = match self.role.election_deadline() {
            Some(deadline) => deadline,
            None => self.draw_election_deadline(now),
        };
        let was_follower = matches!(self.role, Role::Follower(_));
        self.change_role(Role::Follower(Follower { election_deadline, following: None }));
        if was_follower {
            return;
        }
        self.output.notices.push(Notice::BecameFollower { term, leader: None });
    }

    /// Takes up a role; what the one before still owed to readers ends with it.
    fn change_role(&mut self, role: Role) {
        match mem::replace(&mut self.role, role) {
            Role::Follower(Follower { following: Some(following), .. }) => {
                following.reads.drop_all(&mut self.output);
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {}
            Role::Leader(leader) => leader.reads.drop_all(&mut self.output),
        }
    }

    /// Takes `from` for the leader of our term and hears its `session` and `round`. Says no if
    /// there is another one, which Election Safety excludes: then the message is not what it seems.
    pub(super) fn follow(&mut self, now: Instant, from: NodeId, session: u64, round: u64) -> bool {
        let term = self.hard_state.term;
        let election_deadline = self.draw_election_deadline(now);
        match &mut self.role {
            Role::Leader(_) => return false,
            Role::Follower(Follower { following: Some(following), .. })
                if following.leader != from =>
            {
                return false;
            }
            Role::Follower(follower) => {
                follower.election_deadline = election_deadline;
                if let Some(following) = &mut follower.following {
                    following.heard_at = now;
                    following.session = session;
                    following.round = following.round.max(round);
                    return true;
                }
                self.output.notices.push(Notice::LeaderChanged { term, leader: from });
            }
            Role::PreCandidate(_) | Role::Candidate(_) => {
                let notice = Notice::BecameFollower { term, leader: Some(from) };
                self.output.notices.push(notice);
            }
        }
        let following = Following {
            leader: from,
            heard_at: now,
            session,
            round,
            round_answered: 0,
            // Leader Completeness: what is committed is in every later leader's log.
            verified: self.commit_index,
            acked: LogIndex::ZERO,
            reply_due: false,
            refusal: None,
            cramped: None,
            reads: ForwardedReads::default(),
        };
        self.role = Role::Follower(Follower { election_deadline, following: Some(following) });
        true
    }

    /// Word from `from`, the leader of our term, that is no heartbeat: for the timers it counts as
    /// one, and a campaign ends. Says no as `follow` does.
    pub(super) fn hear_leader(&mut self, now: Instant, from: NodeId) -> bool {
        let deadline = self.draw_election_deadline(now);
        match &self.role {
            Role::Leader(_) => return false,
            Role::PreCandidate(_) | Role::Candidate(_) => {
                self.become_follower(now, self.hard_state.term);
            }
            Role::Follower(_) => {}
        }
        let Role::Follower(follower) = &mut self.role else { return false };
        if let Some(following) = &mut follower.following {
            if following.leader != from {
                return false;
            }
            following.heard_at = now;
        }
        follower.election_deadline = deadline;
        true
    }

    /// Forgets its leader and asks who would vote for us; term and vote stay.
    pub(super) fn become_pre_candidate(&mut self, now: Instant) {
        assert!(!self.is_leader(), "a leader does not campaign");
        assert!(self.may_campaign(), "only voters campaign");
        let election_deadline = self.draw_election_deadline(now);
        let granted = vec![self.settings.id];
        self.change_role(Role::PreCandidate(PreCandidate { election_deadline, granted }));
        self.output.notices.push(Notice::AskingForPreVotes { term: self.hard_state.term });
    }

    /// Begins a term of our own and votes for ourselves. Figure 2, Candidates.
    ///
    /// Without pre-votes only if our leader `asked_by` asked us to take over.
    pub(super) fn become_candidate(&mut self, now: Instant, asked_by: Option<NodeId>) {
        let may = matches!(self.role, Role::PreCandidate(_)) || asked_by.is_some();
        assert!(may && !self.is_leader(), "from {}", self.role.name());
        assert!(self.may_campaign(), "only voters campaign");
        let term = self.hard_state.term.next();
        self.hard_state = HardState { term, vote: Vote::For(self.settings.id) };
        let election_deadline = self.draw_election_deadline(now);
        // Who takes over was a follower, perhaps with readers that wait for its leader's word.
        self.change_role(Role::Candidate(Candidate {
            election_deadline,
            granted: Vec::new(),
            own_vote_durable: false,
            asked_by,
        }));
        self.output.notices.push(Notice::Campaigning { term });
    }

    /// Leads the term that elected us, and opens it with an empty entry: only an entry of our own
    /// term can be committed by counting, and commits what is before it. Paper §5.4.2, §8.
    pub(super) fn become_leader(&mut self, now: Instant) {
        assert!(matches!(self.role, Role::Candidate(_)), "from {}", self.role.name());
        assert_eq!(self.hard_state.vote, Vote::For(self.settings.id), "elected by our vote too");
        let prev = self.log.last().index;
        let noop = self.append(0);
        self.output.log_ops.push(LogOp::NoOp { position: noop });
        self.role = Role::Leader(Leader {
            id: self.settings.id,
            noop,
            peers: Vec::new(),
            membership: Membership::new(),
            reads: Reads::default(),
            transfer: None,
            passed_over: Vec::new(),
            heartbeat_at: now.after_ns(self.settings.heartbeat_ns),
        });
        self.follow_configuration(now, prev);
        self.output.notices.push(Notice::BecameLeader { term: noop.term, noop });
    }
}
