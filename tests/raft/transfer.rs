//! Handing over the leadership: what goes wrong elsewhere, and what must hold here instead.

use super::election::leader_of_three;
use super::membership::matches;
use super::server::{HEARTBEAT_NS, Server, TIMEOUT_NS, at, id, pos};
use super::town::Town;
use raftd::raft::message::{AppendOutcome, Message};
use raftd::raft::{Change, ProposeError, TransferError, Wish};
use raftd::types::Instant;

const NOW: Instant = Instant::from_ns(1_000_000_000_000);

/// G1 (hashicorp 696, openraft 1747): a handover that nobody ended stopped writes for good.
#[test]
fn a_handover_that_fails_ends_with_its_deadline_and_proposals_go_on() {
    let mut town = Town::new(3);
    let now = town.now;
    town.send_away(&[3]);
    town.server(1).raft.transfer(now, id(3)).expect("its connection stands");
    town.run();
    assert_eq!(town.server(1).raft.transferring_to(), Some(id(3)));
    assert_eq!(town.server(1).propose(now, 7), Err(ProposeError::Transferring));
    assert!(town.server(1).raft.wake_at() <= now.after_ns(TIMEOUT_NS));
    town.now = now.after_ns(TIMEOUT_NS);
    town.run();
    assert_eq!(town.server(1).raft.transferring_to(), None);
    town.propose(1);
    assert!(town.leads(1));
}

#[test]
fn who_did_not_take_over_is_not_asked_again_before_others() {
    let mut town = Town::new(3);
    let now = town.now;
    let first = town.server(1).raft.successor(now).expect("both are connected");
    town.send_away(&[first.get()]);
    town.server(1).raft.transfer(now, first).expect("its connection stands");
    town.now = now.after_ns(TIMEOUT_NS);
    town.run();
    town.bring_back();
    town.heartbeat(1);
    let now = town.now;
    let second = town.server(1).raft.successor(now).expect("both are connected");
    assert_ne!(first, second);
}

/// It is connected, and the furthest of all; but it may be dead since.
#[test]
fn who_has_not_answered_for_long_is_no_successor() {
    let mut server = leader_of_three(NOW);
    matches(&mut server, NOW, 2, 2);
    server.propose(NOW, 7).expect("leads");
    server.sync(NOW);
    matches(&mut server, NOW, 3, 3);
    assert_eq!(server.raft.successor(NOW), Some(id(3)), "it has more");
    let later = NOW.after_ns(TIMEOUT_NS - 1);
    matches(&mut server, later, 2, 2);
    assert_eq!(server.raft.successor(later), Some(id(3)));
    assert_eq!(server.raft.successor(later.after_ns(1)), Some(id(2)));
}

/// Two that could not take over were asked in turns, and nobody else was. So where three of seven
/// had lost their states and one of them led, it led for ever, and served nobody.
#[test]
fn whoever_did_not_take_over_is_asked_again_after_all_others() {
    let mut town = Town::new(5);
    let mut asked = Vec::new();
    for _ in 0..8 {
        let now = town.now;
        let next = town.server(1).raft.successor(now).expect("all are connected");
        asked.push(next);
        town.send_away(&[next.get()]);
        town.server(1).raft.transfer(now, next).expect("its connection stands");
        town.now = now.after_ns(TIMEOUT_NS);
        town.run();
        town.bring_back();
        town.heartbeat(1);
    }
    let (first, again) = asked.split_at(4);
    assert_eq!(first, again, "the others are asked, one after the other");
    assert!((2..=5).all(|number| first.contains(&id(number))), "{first:?}");
}

/// One follower waited for a snapshot, and the other one had missed a handover, as a machine that
/// stops for a second does. From then on only the first was asked, and refused each time: a leader
/// that was told to stop, or had no space, kept the leadership to the end.
#[test]
fn who_is_far_behind_is_not_asked_before_who_did_not_take_over_once() {
    let mut town = Town::new(3);
    town.send_away(&[3]);
    for _ in 0..100 {
        town.propose(1);
    }
    town.server(1).compact(at(50));
    town.bring_back();
    town.heartbeat(1);
    assert!(town.server(1).raft.needs_snapshot(id(3)));
    let now = town.now;
    town.send_away(&[2]);
    town.server(1).raft.transfer(now, id(2)).expect("its connection stands");
    town.now = now.after_ns(TIMEOUT_NS);
    town.run();
    assert_eq!(town.server(1).raft.transferring_to(), None, "2 did not take over");
    town.bring_back();
    town.heartbeat(1);
    let now = town.now;
    let refused = town.server(1).raft.transfer(now, id(3));
    assert_eq!(refused, Err(TransferError::Behind { target: id(3), entries: 100 }));
    let next = town.server(1).raft.successor(now);
    assert_eq!(next, Some(id(2)));
    town.server(1).raft.transfer(now, id(2)).expect("it has everything");
    town.run();
    assert!(town.leads(2));
}

/// Where nobody else is there, who is far behind is still the one who may take over in a while.
#[test]
fn who_is_far_behind_is_a_successor_where_nobody_else_is() {
    let mut town = Town::new(3);
    town.send_away(&[3]);
    for _ in 0..100 {
        town.propose(1);
    }
    town.server(1).compact(at(50));
    town.return_all_but(&[2]);
    for _ in 0..=TIMEOUT_NS / HEARTBEAT_NS {
        town.heartbeat(1);
    }
    let now = town.now;
    assert_eq!(town.server(1).raft.successor(now), Some(id(3)));
}

/// G1: it belongs to one leadership.
#[test]
fn a_leader_that_is_elected_again_has_forgotten_its_handover() {
    let mut town = Town::new(3);
    let now = town.now;
    town.send_away(&[3]);
    town.server(1).raft.transfer(now, id(3)).expect("its connection stands");
    town.elect(1);
    assert!(!town.leads(1), "it has heard no quorum for long");
    town.elect(2);
    assert!(town.leads(2));
    town.bring_back();
    town.elect(2);
    town.elect(1);
    assert!(town.leads(1));
    town.propose(1);
}

/// G2 (redpanda 2606): a target that lacks the newest entry cannot win.
#[test]
fn the_target_is_told_only_when_it_has_everything_and_all_is_committed() {
    let mut town = Town::new(3);
    town.send_away(&[2, 3]);
    let now = town.now;
    town.server(1).propose(now, 7).expect("it leads");
    town.run();
    town.server(1).raft.transfer(now, id(3)).expect("its connection stands");
    town.server(1).raft.settle(now);
    town.server(1).step_output();
    let told = |town: &mut Town| {
        let sent = &town.server(1).sent;
        sent.iter().any(|packet| matches!(packet.message, Message::TimeoutNow { .. }))
    };
    assert!(!told(&mut town), "3 lacks the last entry");
    town.bring_back();
    assert!(town.leads(3), "and is told when it has it");
}

/// Who waits for a proposal would hear from no leader what became of it.
#[test]
fn a_target_that_has_everything_is_told_only_when_all_of_it_is_committed() {
    let mut town = Town::new(5);
    town.send_away(&[3, 4, 5]);
    town.propose(1);
    let now = town.now;
    town.server(1).raft.transfer(now, id(2)).expect("its connection stands");
    town.run();
    assert_eq!(town.server(2).raft.last(), town.server(1).raft.last(), "it has everything");
    assert_eq!(town.server(2).raft.role_name(), "follower");
    town.bring_back();
    assert!(town.leads(2));
}

/// What was on its way over a connection that broke is lost.
#[test]
fn a_target_that_was_told_is_told_again_over_a_new_connection() {
    let mut server = leader_of_three(NOW);
    let (term, index) = (server.raft.term(), server.raft.last().index);
    let matched = |session| Message::AppendReply {
        term,
        session,
        round: 0,
        outcome: AppendOutcome::Matched { index },
        first_faulty: None,
    };
    let told = |said: &[Message]| said.iter().any(|it| matches!(it, Message::TimeoutNow { .. }));
    server.receive(NOW, 2, matched(2));
    server.receive(NOW, 3, matched(3));
    server.raft.transfer(NOW, id(3)).expect("its connection stands");
    assert!(told(&server.settle(NOW)));
    assert!(!told(&server.settle(NOW)), "once");
    server.raft.disconnected(id(3), 3);
    server.raft.connected(id(3), 4);
    assert!(!told(&server.settle(NOW)), "nothing is proven of who is there now");
    assert!(told(&server.receive(NOW, 3, matched(4))));
}

/// G3 (redpanda 2592), G5 (raft-rs 24280e8, hashicorp PR 398).
#[test]
fn a_target_that_cannot_lead_or_is_far_behind_is_refused() {
    let mut town = Town::new(3);
    town.add(1, 4, Wish::Stay);
    let now = town.now;
    let transfer = |town: &mut Town, number| town.server(1).raft.transfer(now, id(number));
    assert_eq!(transfer(&mut town, 1), Err(TransferError::Leads));
    assert_eq!(transfer(&mut town, 4), Err(TransferError::NoVoter { target: id(4) }));
    assert_eq!(transfer(&mut town, 9), Err(TransferError::NoVoter { target: id(9) }));
    town.send_away(&[3]);
    for _ in 0..100 {
        town.propose(1);
    }
    let behind = Err(TransferError::Behind { target: id(3), entries: 100 });
    assert_eq!(transfer(&mut town, 3), behind);
    // It needs a snapshot first: how many bytes it lacks, the log no longer says.
    town.server(1).compact(at(50));
    assert_eq!(transfer(&mut town, 3), behind);
    assert_eq!(transfer(&mut town, 2), Ok(()));
    assert_eq!(transfer(&mut town, 2), Err(TransferError::Underway));
}

#[test]
fn members_do_not_change_while_the_leadership_does() {
    let mut town = Town::new(3);
    let now = town.now;
    town.send_away(&[3]);
    town.server(1).raft.transfer(now, id(3)).expect("its connection stands");
    assert!(town.change(1, Change::Remove(id(3))).is_err());
}

/// G4 (braft PR 262, etcd 36d7d43). Only the leader that a voter hears can give it away, and only
/// to whom it hands over.
#[test]
fn a_vote_on_behalf_of_somebody_else_finds_loyal_voters() {
    for (term_ahead, asked_by, granted) in
        [(1, Some(1), true), (1, None, false), (1, Some(3), false), (2, Some(1), false)]
    {
        let mut town = Town::new(3);
        town.heartbeat(1);
        let term = town.server(2).raft.term().get() + term_ahead;
        let term = raftd::types::Term::new(term);
        let last = pos(9, term.get() - 1);
        let vote = Message::Vote { term, last, asked_by: asked_by.map(id) };
        let now = town.now;
        let mut sent = town.server(2).receive(now, 3, vote.clone());
        sent.extend(town.server(2).sync(now));
        let reply = Message::VoteReply { term, granted: true };
        assert_eq!(sent.contains(&reply), granted, "{asked_by:?} {term_ahead}: {sent:?}");
        // The leader itself hands over to nobody, so it is not for the taking.
        town.server(1).receive(now, 3, vote);
        assert!(town.leads(1));
    }
}

/// Another voter that names us in its request was not asked by us.
#[test]
fn a_leader_that_hands_over_gives_way_to_its_target_alone() {
    let mut server = leader_of_three(NOW);
    matches(&mut server, NOW, 2, 2);
    matches(&mut server, NOW, 3, 2);
    server.raft.transfer(NOW, id(3)).expect("it is connected and has everything");
    let (term, last) = (server.raft.term(), server.raft.last());
    assert_eq!(server.settle(NOW), [Message::TimeoutNow { term, last }]);
    let vote = Message::Vote { term: term.next(), last, asked_by: Some(id(1)) };
    server.receive(NOW, 2, vote.clone());
    assert!(server.raft.is_leader(), "2 was not asked");
    server.receive(NOW, 3, vote);
    assert!(!server.raft.is_leader());
}

/// G5: only our leader may ask, and only a voter takes over.
#[test]
fn a_request_to_take_over_is_obeyed_by_a_voter_that_has_a_leader() {
    let mut server = Server::new(2, 3, &[1]);
    let (term, last) = (server.raft.term(), server.raft.last());
    server.receive(NOW, 1, Message::TimeoutNow { term, last });
    assert_eq!(server.raft.role_name(), "follower", "it has heard no leader of this term");
    let mut town = Town::new(3);
    town.add(1, 4, Wish::Stay);
    let (term, last) = (town.server(4).raft.term(), town.server(4).raft.last());
    let now = town.now;
    town.server(4).receive(now, 1, Message::TimeoutNow { term, last });
    assert_eq!(town.server(4).raft.role_name(), "follower", "it is a learner");
}

/// A message that was long on its way, after the handover was given up.
#[test]
fn a_late_request_to_take_over_is_void_once_the_log_has_moved_on() {
    let mut town = Town::new(3);
    let (term, last) = (town.server(1).raft.term(), town.server(1).raft.last());
    town.propose(1);
    let now = town.now;
    town.server(3).receive(now, 1, Message::TimeoutNow { term, last });
    assert_eq!(town.server(3).raft.role_name(), "follower");
    let last = town.server(3).raft.last();
    town.server(3).receive(now, 2, Message::TimeoutNow { term, last });
    assert_eq!(town.server(3).raft.role_name(), "follower", "2 is not its leader");
    town.server(3).receive(now, 1, Message::TimeoutNow { term, last });
    assert_eq!(town.server(3).raft.role_name(), "candidate");
}
