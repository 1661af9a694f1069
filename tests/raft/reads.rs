//! ReadIndex: a read sees everything committed before it was asked, without a log entry. Thesis
//! §6.4.

use super::election::leader_of_three;
use super::server::{Server, at, id};
use raftd::raft::message::{AppendOutcome, Message};
use raftd::raft::{Dropped, NotLeader};
use raftd::types::{Instant, LogIndex, Term};

const NOW: Instant = Instant::from_ns(1_000_000_000_000);

fn confirm(server: &mut Server, from: u64, round: u64, index: u64) -> Vec<Message> {
    let outcome = AppendOutcome::Matched { index: at(index) };
    let term = server.raft.term();
    let reply = Message::AppendReply { term, session: from, round, outcome, first_faulty: None };
    server.receive(NOW, from, reply)
}

/// The newest round among `messages`, and how many there are.
fn rounds(messages: &[Message]) -> (u64, usize) {
    let round = |message: &Message| {
        if let Message::Heartbeat { round, .. } | Message::Append { round, .. } = message {
            *round
        } else {
            0
        }
    };
    (messages.iter().map(round).max().unwrap_or(0), messages.len())
}

fn answers(server: &mut Server) -> Vec<Result<LogIndex, Dropped>> {
    server.reads.drain(..).map(|ready| ready.result).collect()
}

#[test]
fn a_read_waits_for_an_entry_of_our_term_and_then_for_a_quorum_that_still_knows_us() {
    let mut server = leader_of_three(NOW);
    server.raft.read().expect("leads");
    assert!(server.settle(NOW).is_empty(), "no round before the term's first commit");
    let left = confirm(&mut server, 2, 0, 2);
    assert_eq!(server.raft.commit_index(), at(2));
    assert_eq!(rounds(&left), (1, 2));
    assert!(answers(&mut server).is_empty());
    confirm(&mut server, 2, 1, 2);
    assert_eq!(answers(&mut server), [Ok(at(2))]);
}

#[test]
fn reads_that_come_while_a_round_is_out_share_the_next() {
    let mut server = leader_of_three(NOW);
    confirm(&mut server, 2, 0, 2);
    let first = server.raft.read().expect("leads");
    assert_eq!(rounds(&server.settle(NOW)), (1, 2));
    let second = server.raft.read().expect("leads");
    assert!(server.settle(NOW).is_empty());
    let third = server.raft.read().expect("leads");
    assert!(first < second);
    assert!(second < third);
    let left = confirm(&mut server, 3, 1, 0);
    assert_eq!(answers(&mut server), [Ok(at(2))]);
    assert_eq!(rounds(&left), (2, 2));
    confirm(&mut server, 2, 1, 2);
    assert!(answers(&mut server).is_empty(), "an old round confirms nothing newer");
    confirm(&mut server, 2, 2, 2);
    assert_eq!(answers(&mut server), [Ok(at(2)), Ok(at(2))]);
}

#[test]
fn a_round_rides_on_the_entries_of_its_turn() {
    let mut server = leader_of_three(NOW);
    confirm(&mut server, 2, 0, 2);
    confirm(&mut server, 3, 0, 2);
    server.raft.read().expect("leads");
    server.propose(NOW, 5).expect("leads");
    let left = server.settle(NOW);
    assert_eq!(rounds(&left), (1, 2), "one message to each: {left:?}");
    assert!(left.iter().all(|message| matches!(message, Message::Append { .. })));
}

#[test]
fn a_round_we_did_not_begin_and_a_session_that_is_over_confirm_nothing() {
    let mut server = leader_of_three(NOW);
    confirm(&mut server, 2, 0, 2);
    server.raft.read().expect("leads");
    server.settle(NOW);
    confirm(&mut server, 2, 9, 2);
    server.raft.connected(id(3), 33);
    confirm(&mut server, 3, 1, 2);
    assert!(answers(&mut server).is_empty());
}

/// The leader of this term led an earlier one as well, over the same connection, and what it said
/// then comes late. The answer is of this term; if it named the round, it would confirm one of this
/// term that began long after: whoever sent the answer may have voted for another by now.
#[test]
fn what_was_said_in_an_earlier_term_confirms_no_round_of_this_one() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, super::election::heartbeat(5));
    server.sync(NOW);
    let old = |round| Message::Heartbeat {
        term: Term::new(3),
        session: 2,
        round,
        commit: LogIndex::ZERO,
    };
    let answer = server.receive(NOW, 2, old(7));
    let (term, outcome) = (Term::new(5), AppendOutcome::Matched { index: LogIndex::ZERO });
    let nothing = Message::AppendReply { term, session: 2, round: 0, outcome, first_faulty: None };
    assert_eq!(answer, [nothing], "it tells our term, and confirms nothing");
}

#[test]
fn reads_end_with_the_leadership() {
    let mut server = leader_of_three(NOW);
    confirm(&mut server, 2, 0, 2);
    server.raft.read().expect("leads");
    server.settle(NOW);
    server.raft.read().expect("leads");
    server.receive(NOW, 2, super::election::heartbeat(9));
    assert_eq!(answers(&mut server), [Err(Dropped), Err(Dropped)]);
    let term = server.raft.term();
    server.receive(NOW, 2, Message::VoteReply { term: term.next(), granted: false });
    assert_eq!(server.raft.read(), Err(NotLeader { leader: None }));
}

#[test]
fn a_sole_voter_answers_at_once() {
    let mut server = Server::new(1, 1, &[1]);
    server.tick(NOW);
    server.sync(NOW);
    assert!(server.raft.leader_ready());
    server.raft.read().expect("leads");
    assert!(server.settle(NOW).is_empty());
    assert_eq!(answers(&mut server), [Ok(at(2))]);
}

#[test]
fn a_follower_confirms_a_round_before_its_entries_are_durable() {
    let mut server = Server::new(1, 3, &[1]);
    let Message::Append { term, session, prev, entries, commit, .. } =
        super::followers::append(1, super::server::pos(1, 1), &[1], 0)
    else {
        unreachable!("an append")
    };
    let message = Message::Append { term, session, round: 4, prev, entries, commit };
    let left = server.receive(NOW, 2, message);
    let outcome = AppendOutcome::Matched { index: at(1) };
    let expected = Message::AppendReply { term, session, round: 4, outcome, first_faulty: None };
    assert_eq!(left, [expected]);
}
