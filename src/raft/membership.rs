//! Changes of the configuration. Paper §6, thesis chapter 4.
//!
//! A configuration counts from the moment its entry is in the log (`Log::adopt`), until it is
//! truncated away (`Log::truncate`). The core never sees a payload, so whoever decodes one says
//! what it holds; and whoever encodes one asks here for what to encode (`plan`, or
//! `Output::configuration_due`) and brings it to the log (`propose_configuration`).
//!
//! **One voter at a time is one step.** Any majority of n voters and any majority of the same n and
//! one more share a voter, so the two configurations cannot decide apart (thesis §4.1). That proof
//! needs what the thesis forgot and Ongaro added in 2015: the leader has committed an entry of its
//! own term first. Or two leaders may each step from the same configuration to another one, and two
//! steps away majorities need not meet. Every other change goes through a joint configuration,
//! whose decisions need both majorities.
//!
//! **What is left to do is a function of the configuration in force**, asked at every `settle`: a
//! joint one is left, a learner that wishes to vote and has caught up is promoted. So it does not
//! matter which leader began, and nothing is forgotten with one.
//!
//! Why not reject votes of servers outside the configuration: a server that has not heard of its
//! successors may need them (thesis §4.2.2). Pre-votes and stickiness keep the removed quiet.

use super::Raft;
use super::configuration::{Configuration, Learner, Learners, Voters, Wish};
use super::output::ChangeError;
use super::progress::Peer;
use super::role::{Leader, Role};
use crate::types::{Instant, LogIndex, LogPosition, NodeId};

/// What somebody asks of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new member: a learner first, whatever it wishes to become.
    Add(Learner),
    /// A learner becomes a voter now.
    Promote(NodeId),
    /// A voter or learner leaves.
    Remove(NodeId),
}

/// What a leader keeps about the members, beside how far each one's log is.
#[derive(Debug)]
pub(super) struct Membership {
    /// The entry whose configuration `Leader::peers` follow.
    followed: LogIndex,
    /// How the learners catch up.
    rounds: Vec<Round>,
    /// Who left the configuration and may not know it yet: still gets entries.
    departing: Vec<Departing>,
    /// We left the configuration, that is committed, and we have begun to hand over.
    left: bool,
}

/// A learner's replication in rounds, each up to where the log ended when the round began. Who does
/// the last one within an election timeout has caught up: as a voter it would not hold commits up
/// for longer. Thesis §4.2.1.
#[derive(Debug)]
struct Round {
    id: NodeId,
    began_at: Instant,
    target: LogIndex,
    /// Where the last round ended, if it was quick.
    done: Option<LogIndex>,
}

#[derive(Debug)]
struct Departing {
    id: NodeId,
    until: Instant,
}

impl Membership {
    /// A leader that has not looked at any configuration.
    pub(super) fn new() -> Membership {
        Membership {
            followed: LogIndex::ZERO,
            rounds: Vec::new(),
            departing: Vec::new(),
            left: false,
        }
    }

    /// Whether we hand over because we are no member any more.
    pub(super) fn left(&self) -> bool {
        self.left
    }

    fn has_caught_up(&self, peer: &Peer) -> bool {
        let round = self.rounds.iter().find(|round| round.id == peer.id);
        // A new connection begins with nothing proven.
        round.and_then(|round| round.done).is_some_and(|done| peer.match_index >= done)
    }
}

impl Round {
    fn advance(&mut self, peer: &Peer, last: LogIndex, now: Instant, timeout_ns: u64) {
        let quick = now.ns_since(self.began_at) <= timeout_ns;
        if peer.match_index >= self.target {
            self.done = quick.then_some(self.target);
            self.target = last;
            self.began_at = now;
        } else if !quick {
            self.done = None;
        }
    }
}

impl Raft {
    /// The entry at `index`, just appended, holds `configuration`: it is in force from now on. To
    /// be called before the next input. Panics if a newer one is in force already, or the log ends
    /// before `index`.
    pub fn adopt_configuration(&mut self, index: LogIndex, configuration: Configuration) {
        assert!(configuration.is_sound(), "{configuration:?} names somebody twice");
        self.log.adopt(index, configuration);
    }

    /// The configuration that `change` leads to, if it may be proposed now.
    pub fn plan(&self, now: Instant, change: Change) -> Result<Configuration, ChangeError> {
        let leader = self.may_change()?;
        let Configuration::Stable { voters, learners } = self.log.configuration() else {
            return Err(ChangeError::Underway);
        };
        let next = match change {
            Change::Add(learner) => {
                if self.log.configuration().is_member(learner.id) {
                    return Err(ChangeError::Member { id: learner.id });
                }
                let learners = learners.with(learner);
                Configuration::Stable { voters: voters.clone(), learners }
            }
            Change::Promote(id) => {
                let learner = learners.list().iter().find(|learner| learner.id == id);
                let learner = *learner.ok_or(ChangeError::NoLearner { id })?;
                self.check_ready(leader, id, now)?;
                promote(voters, learners, learner).ok_or(ChangeError::TooMany)?
            }
            Change::Remove(id) if voters.contains(id) => {
                let voters = voters.without(id).ok_or(ChangeError::LastVoter)?;
                Configuration::Stable { voters, learners: learners.clone() }
            }
            Change::Remove(id) if self.log.configuration().is_member(id) => {
                let learners = learners.without(id);
                Configuration::Stable { voters: voters.clone(), learners }
            }
            Change::Remove(id) => return Err(ChangeError::NoMember { id }),
        };
        if !next.is_sound() {
            return Err(ChangeError::TooMany);
        }
        self.check_alive(leader, &next, now)?;
        Ok(next)
    }

    /// Appends the entry of a configuration that `plan` or `Output::configuration_due` gave in this
    /// turn. The caller stages its payload of `bytes` at the position returned.
    pub fn propose_configuration(
        &mut self,
        now: Instant,
        configuration: Configuration,
        bytes: u32,
    ) -> Result<LogPosition, ChangeError> {
        self.may_change()?;
        let prev = self.log.last().index;
        let position = self.append(bytes);
        self.adopt_configuration(position.index, configuration);
        // At once: whoever counts next must find every voter among the peers.
        self.follow_configuration(now, prev);
        Ok(position)
    }

    /// As leader, whether `peer` is connected and answers.
    pub fn is_alive(&self, now: Instant, peer: NodeId) -> bool {
        match &self.role {
            Role::Leader(leader) => self.hears(leader, peer, now),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// What every change waits for, and why:
    /// - an entry of our own term is committed, or two leaders may step apart (Ongaro 2015);
    /// - the configuration in force is committed, or a step is counted from one that may vanish;
    /// - we are not handing over, or the successor would be waited for in vain.
    fn may_change(&self) -> Result<&Leader, ChangeError> {
        let Role::Leader(leader) = &self.role else {
            return Err(ChangeError::NotLeader { leader: self.leader() });
        };
        if leader.hands_over() {
            Err(ChangeError::Transferring)
        } else if self.commit_index < leader.noop.index {
            Err(ChangeError::NotReady)
        } else if self.commit_index < self.log.configuration_index() {
            Err(ChangeError::Underway)
        } else {
            Ok(leader)
        }
    }

    /// A voter that is not there, or far behind, would stop commits from its first moment on.
    fn check_ready(&self, leader: &Leader, id: NodeId, now: Instant) -> Result<(), ChangeError> {
        let Some(peer) = leader.peers.iter().find(|peer| peer.id == id) else {
            return Err(ChangeError::Unreachable { id });
        };
        if !self.hears(leader, id, now) {
            Err(ChangeError::Unreachable { id })
        } else if leader.membership.has_caught_up(peer) {
            Ok(())
        } else {
            let entries = self.log.last().index.count_since(peer.match_index);
            Err(ChangeError::Behind { id, entries })
        }
    }

    /// A configuration whose quorum does not answer could never be left again. And one whose quorum
    /// needs a voter that waits for a snapshot commits nothing until that has come.
    fn check_alive(
        &self,
        leader: &Leader,
        next: &Configuration,
        now: Instant,
    ) -> Result<(), ChangeError> {
        let hears = |id| self.hears(leader, id, now);
        if next.reached(|id| hears(id) && !self.needs_snapshot(id)) {
            return Ok(());
        }
        let after = match next {
            Configuration::Stable { voters, .. } => voters,
            Configuration::Joint { new, .. } => new,
        };
        let behind = |peer: &&Peer| after.contains(peer.id) && self.needs_snapshot(peer.id);
        if next.reached(hears)
            && let Some(peer) = leader.peers.iter().find(behind)
        {
            let entries = self.log.last().index.count_since(peer.match_index);
            return Err(ChangeError::Behind { id: peer.id, entries });
        }
        let alive = after.ids().iter().filter(|id| hears(**id)).count();
        Err(ChangeError::NoQuorum { alive, voters: after.ids().len() })
    }

    fn hears(&self, leader: &Leader, id: NodeId, now: Instant) -> bool {
        let timeout = self.settings.election_timeout_ns;
        let answers = |peer: &Peer| peer.session.is_some() && now.ns_since(peer.heard_at) < timeout;
        id == self.settings.id || leader.peers.iter().any(|it| it.id == id && answers(it))
    }

    /// A leader replicates to the members of the configuration in force, those it does not know yet
    /// probed after `prev`; and, for a while, to those who left it, so that they know.
    pub(super) fn follow_configuration(&mut self, now: Instant, prev: LogIndex) {
        let Role::Leader(leader) = &mut self.role else { return };
        let configuration = self.log.configuration();
        let membership = &mut leader.membership;
        membership.followed = self.log.configuration_index();
        for peer in &leader.peers {
            let known = membership.departing.iter().any(|it| it.id == peer.id);
            if !known && !configuration.is_member(peer.id) {
                membership.departing.push(Departing { id: peer.id, until: Instant::FAR });
            }
        }
        let own = self.settings.id;
        for id in configuration.members().into_iter().filter(|id| *id != own) {
            if let Err(at) = leader.peers.binary_search_by_key(&id, |peer| peer.id) {
                let session = self.sessions.get(&id).copied();
                leader.peers.insert(at, Peer::new(id, session, prev, now));
            }
        }
        let learners = configuration.learners();
        membership.rounds.retain(|round| learners.iter().any(|it| it.id == round.id));
        for learner in learners.iter().filter(|it| it.id != own) {
            if !membership.rounds.iter().any(|round| round.id == learner.id) {
                let round = Round { id: learner.id, began_at: now, target: prev, done: None };
                membership.rounds.push(round);
            }
        }
    }

    /// What the configuration in force still asks for.
    pub(super) fn continue_reconfiguration(&mut self, now: Instant) {
        self.output.configuration_due = None;
        let committed = self.log.configuration_index() <= self.commit_index;
        let Role::Leader(leader) = &mut self.role else { return };
        assert_eq!(
            leader.membership.followed,
            self.log.configuration_index(),
            "peers are followed"
        );
        let (last, timeout) = (self.log.last().index, self.settings.election_timeout_ns);
        for round in &mut leader.membership.rounds {
            if let Some(peer) = leader.peers.iter().find(|peer| peer.id == round.id) {
                round.advance(peer, last, now, timeout);
            }
        }
        if !committed {
            return;
        }
        forget_departed(leader, now, now.after_ns(timeout.saturating_mul(2)));
        if !self.log.configuration().is_voter(self.settings.id) {
            self.leave(now);
        } else if let Ok(leader) = self.may_change() {
            self.output.configuration_due = self.due(leader, now);
        }
    }

    /// The next configuration on the way, if there is one and its quorum answers.
    fn due(&self, leader: &Leader, now: Instant) -> Option<Configuration> {
        match self.log.configuration() {
            Configuration::Joint { new, learners, .. } => {
                Some(Configuration::Stable { voters: new.clone(), learners: learners.clone() })
            }
            Configuration::Stable { voters, learners } => {
                let wishing = learners.list().iter().filter(|it| it.wish != Wish::Stay);
                let mut ready = wishing.filter(|it| self.check_ready(leader, it.id, now).is_ok());
                let next = promote(voters, learners, *ready.next()?)?;
                self.check_alive(leader, &next, now).is_ok().then_some(next)
            }
        }
    }

    /// A leader that is no voter any more leads until the configuration without it is committed:
    /// before, nobody else may be able to commit it (thesis §4.2.2). Then it hands over to the
    /// voter that is furthest, which so learns of the commit, and is a follower for good.
    fn leave(&mut self, now: Instant) {
        let successor = self.successor(now);
        let timeout = self.settings.election_timeout_ns;
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.transfer.is_some() {
            return;
        }
        if let Some(target) = successor.filter(|_| !leader.membership.left) {
            leader.membership.left = true;
            leader.begin_transfer(target, now.after_ns(timeout));
        } else {
            self.become_follower(now, self.hard_state.term);
        }
    }
}

/// Once the configuration without them is committed, those who left it hear of that until `until`;
/// whose time is up is forgotten.
fn forget_departed(leader: &mut Leader, now: Instant, until: Instant) {
    let departing = &mut leader.membership.departing;
    for departed in departing.extract_if(.., |it| it.until <= now) {
        leader.peers.retain(|peer| peer.id != departed.id);
    }
    for departed in departing {
        departed.until = departed.until.min(until);
    }
}

/// The step that makes a learner a voter, in place of whom it wishes to replace if that is one.
/// `None` if there would be too many voters.
fn promote(voters: &Voters, learners: &Learners, learner: Learner) -> Option<Configuration> {
    let more = voters.with(learner.id)?;
    let after = match learner.wish {
        Wish::Replace(old) => more.without(old).expect("the promoted learner is left"),
        Wish::Stay | Wish::Vote => more,
    };
    let learners = learners.without(learner.id);
    Some(if voters.differences(&after) <= 1 {
        Configuration::Stable { voters: after, learners }
    } else {
        Configuration::Joint { old: voters.clone(), new: after, learners }
    })
}
