//! Changes of the members: what goes wrong elsewhere, by name, and what must hold here instead.

use super::election::leader_of_three;
use super::server::{HEARTBEAT_NS, Server, TIMEOUT_NS, at, id, pos};
use super::town::Town;
use raftd::raft::message::{AppendOutcome, Message};
use raftd::raft::{Change, ChangeError, Wish};
use raftd::types::{Instant, Term};

const NOW: Instant = Instant::from_ns(1_000_000_000_000);

#[test]
fn a_learner_catches_up_and_becomes_a_voter_by_itself() {
    let mut town = Town::new(3);
    for _ in 0..50 {
        town.propose(1);
    }
    town.add(1, 4, Wish::Vote);
    assert_eq!(town.voters_at(1), [1, 2, 3, 4]);
    town.heartbeat(1);
    assert_eq!(town.voters_at(4), [1, 2, 3, 4]);
    let last = town.server(1).raft.last().index;
    assert_eq!(town.commit_at(4), last);
}

#[test]
fn a_learner_that_wishes_to_stay_one_never_counts_and_never_campaigns() {
    let mut town = Town::new(3);
    town.add(1, 4, Wish::Stay);
    assert_eq!(town.voters_at(1), [1, 2, 3]);
    town.send_away(&[2, 3]);
    let before = town.commit_at(1);
    town.propose(1);
    assert_eq!(town.commit_at(1), before, "1 and a learner are no majority of three");
    town.elect(4);
    assert_eq!(town.server(4).raft.role_name(), "follower");
}

/// E1, the bug of 2015 (Ongaro): two leaders step apart from one configuration, and two steps away
/// majorities need not meet. The guard: a leader commits an entry of its own term first.
#[test]
fn leaders_of_two_terms_cannot_step_apart_from_one_configuration() {
    let mut town = Town::new(4);
    town.add(1, 5, Wish::Stay);
    town.send_away(&[2, 3, 4]);
    town.change(1, Change::Promote(id(5))).expect("a quorum answered lately");
    assert_eq!(town.voters_at(5), [1, 2, 3, 4, 5], "only 1 and 5 have it");
    town.bring_back_without(&[1, 5]);
    // 2 wins, but nobody has heard of its first entry yet.
    town.campaign_silently(2);
    assert!(town.leads(2));
    assert_eq!(town.plan(2, Change::Remove(id(1))), Some(ChangeError::NotReady));
    town.heartbeat(2);
    town.change(2, Change::Remove(id(1))).expect("now 3 and 4 have an entry of its term");
    assert_eq!(town.voters_at(3), [2, 3, 4]);
    // So 4 has a newer log than 1, and 1 and 5 find no third.
    town.bring_back();
    town.elect(1);
    assert!(!town.leads(1));
}

/// E2. Adopting a configuration when it is applied lets those who have not applied it elect by the
/// old one.
#[test]
fn the_removed_cannot_elect_by_the_old_configuration() {
    let mut town = Town::new(3);
    town.change(1, Change::Remove(id(3))).expect("1 and 2 answer");
    town.change(1, Change::Remove(id(2))).expect("1 answers");
    assert_eq!(town.voters_at(1), [1]);
    for removed in [2, 3] {
        town.elect(removed);
        assert!(!town.leads(removed));
    }
    assert!(town.leads(1));
}

/// E3. A voter answers by its log and term, not by what it believes itself to be: its promotion may
/// be in the candidate's log and not yet in its own.
#[test]
fn a_learner_votes_for_who_knows_better() {
    let mut town = Town::new(3);
    town.add(1, 4, Wish::Stay);
    town.now = town.now.after_ns(3 * TIMEOUT_NS);
    let term = town.server(4).raft.term().next();
    let vote = Message::Vote { term, last: pos(99, term.get() - 1), asked_by: None };
    let now = town.now;
    let mut sent = town.server(4).receive(now, 3, vote);
    sent.extend(town.server(4).sync(now));
    assert!(sent.contains(&Message::VoteReply { term, granted: true }), "{sent:?}");
}

/// E5. In the middle of a replacement the leader dies. Who has the joint configuration can be
/// elected by it, and leaves it: what is left to do is read from the configuration, not remembered.
#[test]
fn a_new_leader_leaves_the_joint_configuration_that_its_predecessor_began() {
    let mut town = Town::new(3);
    town.arrive(4);
    town.send_away(&[2]);
    town.add_joint_but_do_not_leave(1, 4, 3);
    assert!(town.server(4).raft.configuration().is_joint());
    town.bring_back_without(&[1]);
    town.elect(4);
    assert!(town.leads(4), "2 and 3 of the old half, 2 and 4 of the new");
    town.heartbeat(4);
    assert_eq!(town.voters_at(4), [1, 2, 4]);
    assert_eq!(town.voters_at(2), [1, 2, 4]);
    assert!(!town.server(4).raft.configuration().is_joint());
}

/// E7 (scylladb 10618). A leader that is replaced counts in the old half like any other, leads
/// until the configuration without it is committed, and hands over.
#[test]
fn a_leader_that_is_replaced_hands_over_to_a_voter_of_the_new_configuration() {
    let mut town = Town::new(3);
    town.add(1, 4, Wish::Replace(id(1)));
    assert!(!town.leads(1));
    let leaders: Vec<u64> = (2..=4).filter(|number| town.leads(*number)).collect();
    let [leader] = leaders[..] else { panic!("{leaders:?} lead") };
    assert_eq!(town.voters_at(leader), [2, 3, 4]);
    town.heartbeat(leader);
    let committed = town.commit_at(leader);
    for number in 2..=4 {
        assert_eq!(town.commit_at(number), committed, "{number} knows");
    }
    town.elect(1);
    assert!(!town.leads(1), "it is no voter any more");
}

/// E10. Before, nobody else may be able to commit it; and a handover would end the leadership with
/// its deadline.
#[test]
fn a_leader_that_is_removed_stays_until_the_configuration_without_it_is_committed() {
    let mut town = Town::new(3);
    town.send_away(&[2, 3]);
    town.change(1, Change::Remove(id(1))).expect("a quorum answered lately");
    assert!(town.leads(1));
    assert_eq!(town.server(1).raft.transferring_to(), None);
    town.bring_back();
    assert!(!town.leads(1));
    assert_eq!(town.voters_at(2), [2, 3]);
}

/// E8. A configuration is a function of the log: gone when its entry is truncated, there again
/// after a restart.
#[test]
fn an_uncommitted_configuration_survives_a_restart_and_goes_with_its_entry() {
    let mut town = Town::new(3);
    town.send_away(&[2, 3]);
    town.change(1, Change::Remove(id(3))).expect("a quorum answered lately");
    assert_eq!(town.voters_at(1), [1, 2]);
    town.restart(1);
    assert_eq!(town.voters_at(1), [1, 2]);
    town.bring_back_without(&[1]);
    town.elect(2);
    town.propose(2);
    town.bring_back();
    town.heartbeat(2);
    assert_eq!(town.voters_at(1), [1, 2, 3]);
}

/// E9. Pre-votes and stickiness keep it quiet.
#[test]
fn a_removed_server_that_was_not_told_disturbs_nobody() {
    let mut town = Town::new(3);
    town.send_away(&[3]);
    town.change(1, Change::Remove(id(3))).expect("1 and 2 answer");
    let term = town.server(1).raft.term();
    for _ in 0..20 {
        town.heartbeat(1);
    }
    town.bring_back();
    let now = town.now;
    town.server(3).tick(now);
    town.run();
    assert!(town.leads(1));
    assert_eq!(town.server(1).raft.term(), term);
}

/// E9, E10: so it need not find out by itself.
#[test]
fn a_removed_server_hears_of_its_removal() {
    let mut town = Town::new(3);
    town.change(1, Change::Remove(id(3))).expect("1 and 2 answer");
    town.heartbeat(1);
    assert_eq!(town.voters_at(3), [1, 2]);
    let index = town.server(1).raft.configuration_index();
    assert!(town.commit_at(3) >= index);
}

/// E9, the other side: who left is told for two election timeouts, and then nothing any more.
#[test]
fn who_left_is_forgotten_after_a_while() {
    let mut server = leader_of_three(NOW);
    matches(&mut server, NOW, 2, 2);
    matches(&mut server, NOW, 3, 2);
    server.change(NOW, Change::Remove(id(3))).expect("a quorum answers");
    server.sync(NOW);
    matches(&mut server, NOW, 2, 3);
    assert_eq!(server.raft.commit_index(), at(3));
    let until = NOW.after_ns(2 * TIMEOUT_NS);
    let mut now = NOW;
    while now < until {
        assert!(server.raft.match_index(id(3)).is_some(), "it may not know yet");
        now = now.after_ns(HEARTBEAT_NS);
        server.tick(now);
        server.settle(now);
        matches(&mut server, now, 2, 3);
    }
    assert_eq!(server.raft.match_index(id(3)), None);
    let later = now.after_ns(HEARTBEAT_NS);
    server.tick(later);
    assert_eq!(server.settle(later).len(), 1, "2 alone hears a heartbeat");
}

/// A server that is down is waited for by nobody but itself.
#[test]
fn a_learner_that_is_away_keeps_no_other_from_becoming_a_voter() {
    let mut server = leader_with_a_learner(Wish::Vote);
    server.raft.disconnected(id(4), 4);
    server.change(NOW, Change::Add(learner_that_wishes(5))).expect("a quorum answers");
    server.sync(NOW);
    for voter in [2, 3] {
        matches(&mut server, NOW, voter, 4);
    }
    assert_eq!(server.raft.commit_index(), at(4));
    server.raft.connected(id(5), 5);
    server.settle(NOW);
    assert_eq!(server.raft.output().configuration_due, None, "neither has anything");
    matches(&mut server, NOW, 5, 4);
    let due = server.raft.output().configuration_due.take().expect("5 has caught up");
    assert_eq!(due.voters(), [1, 2, 3, 5].map(id));
    assert_eq!(due.learners(), [learner_that_wishes(4)]);
}

fn learner_that_wishes(number: u64) -> raftd::raft::Learner {
    raftd::raft::Learner { id: id(number), wish: Wish::Vote }
}

/// E11: a voter that is not there is a majority's missing vote.
#[test]
fn nobody_becomes_a_voter_who_is_not_there_or_far_behind() {
    let mut town = Town::new(3);
    assert_eq!(town.plan(1, Change::Promote(id(4))), Some(ChangeError::NoLearner { id: id(4) }));
    town.arrive(4);
    town.send_away(&[4]);
    town.add_without_arriving(1, 4, Wish::Stay);
    town.propose(1);
    let behind = town.plan(1, Change::Promote(id(4)));
    assert!(matches!(behind, Some(ChangeError::Behind { entries: 4.., .. })), "{behind:?}");
    town.now = town.now.after_ns(TIMEOUT_NS);
    let gone = town.plan(1, Change::Promote(id(4)));
    assert_eq!(gone, Some(ChangeError::Unreachable { id: id(4) }));
}

/// A learner that has had every entry of a moment ago, but late, would stop commits for as long.
#[test]
fn a_learner_has_caught_up_when_its_last_round_was_quick() {
    let mut server = leader_with_a_learner(Wish::Stay);
    for value in 0..2 {
        server.propose(NOW, value).expect("leads");
    }
    server.sync(NOW);
    let slow = NOW.after_ns(TIMEOUT_NS + 1);
    matches(&mut server, slow, 2, 5);
    matches(&mut server, slow, 4, 3);
    let behind = ChangeError::Behind { id: id(4), entries: 2 };
    assert_eq!(server.raft.plan(slow, Change::Promote(id(4))), Err(behind));
    let quick = slow.after_ns(TIMEOUT_NS);
    matches(&mut server, quick, 2, 5);
    matches(&mut server, quick, 4, 5);
    server.raft.plan(quick, Change::Promote(id(4))).expect("its second round was quick");
}

/// A learner that was quick once may be slow now: what it has proven counts until it has been at
/// one round for too long.
#[test]
fn a_learner_that_had_caught_up_and_is_late_again_is_behind() {
    let mut server = leader_with_a_learner(Wish::Stay);
    matches(&mut server, NOW, 4, 3);
    server.raft.plan(NOW, Change::Promote(id(4))).expect("it has everything");
    for value in 0..2 {
        server.propose(NOW, value).expect("leads");
    }
    server.sync(NOW);
    let slow = NOW.after_ns(TIMEOUT_NS + 1);
    matches(&mut server, slow, 2, 5);
    matches(&mut server, slow, 4, 4);
    let behind = ChangeError::Behind { id: id(4), entries: 1 };
    assert_eq!(server.raft.plan(slow, Change::Promote(id(4))), Err(behind));
}

/// That it is ready and the log is committed does not say that anybody is left.
#[test]
fn a_learner_is_not_promoted_into_a_configuration_whose_quorum_is_gone() {
    let mut server = leader_with_a_learner(Wish::Vote);
    server.raft.disconnected(id(2), 2);
    server.raft.disconnected(id(3), 3);
    matches(&mut server, NOW, 4, 3);
    assert_eq!(server.raft.output().configuration_due, None, "1 and 4 are two of four");
    server.raft.connected(id(2), 5);
    server.settle(NOW);
    assert!(server.raft.output().configuration_due.is_some(), "and with 2 they are three");
}

/// E13: the side of a minority removes nobody.
#[test]
fn a_leader_that_hears_nobody_changes_nothing() {
    let mut town = Town::new(3);
    town.send_away(&[2, 3]);
    town.now = town.now.after_ns(TIMEOUT_NS);
    let refused = town.plan(1, Change::Remove(id(3)));
    assert_eq!(refused, Some(ChangeError::NoQuorum { alive: 1, voters: 2 }));
    let last = town.server(1).raft.last();
    assert_eq!(last, pos(2, 2), "nothing of it is in the log");
}

#[test]
fn one_change_at_a_time_and_never_the_last_voter() {
    let mut town = Town::new(2);
    town.send_away(&[2]);
    town.change(1, Change::Add(raftd::raft::Learner { id: id(3), wish: Wish::Stay })).unwrap();
    assert_eq!(town.plan(1, Change::Remove(id(3))), Some(ChangeError::Underway));
    town.bring_back();
    town.heartbeat(1);
    assert_eq!(town.plan(1, Change::Add(learner(3))), Some(ChangeError::Member { id: id(3) }));
    assert_eq!(town.plan(1, Change::Add(learner(2))), Some(ChangeError::Member { id: id(2) }));
    assert_eq!(town.plan(1, Change::Remove(id(9))), Some(ChangeError::NoMember { id: id(9) }));
    town.change(1, Change::Remove(id(2))).expect("1 answers");
    assert_eq!(town.plan(1, Change::Remove(id(1))), Some(ChangeError::LastVoter));
}

fn learner(number: u64) -> raftd::raft::Learner {
    raftd::raft::Learner { id: id(number), wish: Wish::Stay }
}

/// Server 1 of three leads, and 4 has joined them: its entry, 3, is committed, and it is connected
/// but has nothing yet.
fn leader_with_a_learner(wish: Wish) -> Server {
    let mut server = leader_of_three(NOW);
    matches(&mut server, NOW, 2, 2);
    server.raft.connected(id(4), 4);
    let learner = raftd::raft::Learner { id: id(4), wish };
    server.change(NOW, Change::Add(learner)).expect("a quorum answers");
    server.sync(NOW);
    for voter in [2, 3] {
        matches(&mut server, NOW, voter, 3);
    }
    assert_eq!(server.raft.commit_index(), at(3));
    server
}

/// `from`, whose session has its number, has everything up to `index`.
pub(super) fn matches(server: &mut Server, now: Instant, from: u64, index: u64) {
    let (term, outcome) = (server.raft.term(), AppendOutcome::Matched { index: at(index) });
    let reply = Message::AppendReply { term, session: from, round: 0, outcome, first_faulty: None };
    server.receive(now, from, reply);
}

impl Town {
    /// As `bring_back`, but these stay away.
    fn bring_back_without(&mut self, numbers: &[u64]) {
        self.return_all_but(numbers);
        self.run();
    }

    /// Why `change` cannot be proposed now.
    fn plan(&mut self, leader: u64, change: Change) -> Option<ChangeError> {
        let now = self.now;
        self.server(leader).raft.plan(now, change).err()
    }

    fn add_without_arriving(&mut self, leader: u64, number: u64, wish: Wish) {
        let learner = raftd::raft::Learner { id: id(number), wish };
        self.change(leader, Change::Add(learner)).expect("a quorum answers");
    }

    /// `number` joins in place of `old`; the leader goes away as soon as the joint configuration is
    /// committed.
    fn add_joint_but_do_not_leave(&mut self, leader: u64, number: u64, old: u64) {
        let learner = raftd::raft::Learner { id: id(number), wish: Wish::Replace(id(old)) };
        let now = self.now;
        self.server(leader).change(now, Change::Add(learner)).expect("a quorum answers");
        self.run_until(|town| town.server(number).raft.configuration().is_joint());
    }

    /// `number` wins an election, and nobody hears of its first entry.
    fn campaign_silently(&mut self, number: u64) {
        self.now = self.now.after_ns(3 * TIMEOUT_NS);
        let now = self.now;
        self.server(number).tick(now);
        self.run_until(|town| town.leads(number));
    }
}

#[test]
fn a_leader_hands_over_and_its_followers_follow() {
    let mut town = Town::new(3);
    town.propose(1);
    let (term, now) = (town.server(1).raft.term(), town.now);
    town.server(1).raft.transfer(now, id(3)).expect("it is connected and has everything");
    town.run();
    assert!(town.leads(3));
    assert!(!town.leads(1));
    assert_eq!(town.server(3).raft.term(), Term::new(term.get() + 1), "no pre-votes, one campaign");
    town.propose(3);
    assert_eq!(town.server(1).raft.leader(), Some(id(3)));
    assert_eq!(town.server(2).raft.leader(), Some(id(3)));
    assert!(town.commit_at(3) > at(3));
}
