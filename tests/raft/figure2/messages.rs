//! Figure 2, the arguments and results of both requests, one by one.

use super::{NOW, in_role};
use crate::raft::election::{elect, heartbeat, pre_vote, pre_voted, vote, voted};
use crate::raft::followers::{append, matched, terms};
use crate::raft::leaders::{appends, commits, leader, matches, reply};
use crate::raft::server::{HEARTBEAT_NS, Packet, Server, at, id, pos};
use raftd::raft::message::{AppendOutcome, Message};
use raftd::types::{HardState, LogPosition, Term, Vote};

/// `RequestVote`, arguments, `term`: "candidate's term".
#[test]
fn a_request_for_votes_is_of_the_term_that_its_candidate_has_begun() {
    let (term, _, begun) = asked(&[1, 2, 2]);
    assert_eq!(term, Term::new(3));
    assert_eq!(begun, HardState { term, vote: Vote::For(id(1)) });
}

/// `RequestVote`, arguments, `candidateId`: "candidate requesting vote". Here that is whoever the
/// connection belongs to.
#[test]
fn a_vote_is_for_the_server_that_asked() {
    for candidate in [2, 3] {
        let mut server = Server::new(1, 3, &[1]);
        server.step(NOW, &packet(candidate, vote(2, pos(1, 1))));
        server.raft.settle(NOW);
        assert!(server.begin_job());
        server.finish_job(NOW);
        server.raft.settle(NOW);
        server.step_output();
        assert_eq!(server.disk.hard_state.vote, Vote::For(id(candidate)));
        let left = server.sent.pop().expect("it answers");
        assert_eq!((left.to, left.message), (id(candidate), voted(2, true)));
        assert!(server.sent.is_empty(), "nobody else");
    }
}

/// `RequestVote`, arguments, `lastLogIndex`: "index of candidate's last log entry".
#[test]
fn a_request_for_votes_names_the_index_of_the_candidates_last_entry() {
    for (log, index) in [(&[1][..], 1), (&[1, 2, 2][..], 3), (&[1, 1, 1, 1][..], 4)] {
        assert_eq!(asked(log).1.index, at(index), "{log:?}");
    }
}

/// `RequestVote`, arguments, `lastLogTerm`: "term of candidate's last log entry".
#[test]
fn a_request_for_votes_names_the_term_of_the_candidates_last_entry() {
    for (log, term) in [(&[1][..], 1), (&[1, 2, 2][..], 2), (&[1, 1, 7][..], 7)] {
        assert_eq!(asked(log).1.term, Term::new(term), "{log:?}");
    }
    // Also if its own term has gone on since.
    let mut server = Server::new(1, 3, &[1, 2]);
    server.receive(NOW, 2, voted(8, false));
    server.sync(NOW);
    let late = server.raft.wake_at();
    server.tick(late);
    assert_eq!(server.settle(late), [pre_vote(9, pos(2, 2)), pre_vote(9, pos(2, 2))]);
}

/// `RequestVote`, results, `voteGranted`: "true means candidate received vote".
#[test]
fn a_vote_that_was_granted_counts_and_one_that_was_not_does_not() {
    for granted in [true, false] {
        let mut server = in_role("candidate");
        server.receive(NOW, 2, voted(2, granted));
        assert_eq!(server.raft.is_leader(), granted);
    }
}

/// `AppendEntries`, arguments, `term`: "leader's term".
#[test]
fn what_a_leader_sends_is_of_its_term() {
    let (mut server, first) = leader(3, &[1, 1, 6]);
    assert_eq!(first.len(), 1);
    server.sync(NOW);
    server.receive(NOW, 2, matches(&server, 4));
    let later = NOW.after_ns(HEARTBEAT_NS);
    server.tick(later);
    let beats = server.settle(later);
    assert_eq!(commits(&beats).len(), 1);
    for message in first.iter().chain(&beats) {
        assert_eq!(message.term(), Some(Term::new(7)), "{message:?}");
    }
}

/// `AppendEntries`, arguments, `prevLogIndex` and `prevLogTerm`: "index of log entry immediately
/// preceding new ones", "term of prevLogIndex entry".
#[test]
fn a_request_names_the_entry_before_those_that_it_brings() {
    let (mut server, first) = leader(3, &[1, 2, 2]);
    assert_eq!(prevs(&first), [pos(3, 2)], "before the one that opens term 3");
    server.receive(NOW, 2, matches(&server, 4));
    server.propose(NOW, 1).expect("leads");
    assert_eq!(prevs(&server.settle(NOW)), [pos(4, 3)]);
    server.propose(NOW, 2).expect("leads");
    assert_eq!(prevs(&server.settle(NOW)), [pos(5, 3)]);
    // Back to where the logs may agree, in a term of before.
    server.raft.connected(id(2), 7);
    let probe = server.settle(NOW);
    assert_eq!(prevs(&probe).len(), 1);
    let probe = prevs(&probe)[0].index;
    let outcome = AppendOutcome::Conflict { probe, hint: pos(2, 2) };
    let left = server.receive(NOW, 2, reply(&server, outcome));
    assert_eq!(prevs(&left), [pos(2, 2)]);
}

/// `AppendEntries`, arguments, `entries[]`: "log entries to store (empty for heartbeat […])".
#[test]
fn a_request_without_entries_stores_nothing_and_is_heard_as_a_heartbeat() {
    for word in [append(1, pos(2, 1), &[], 0), heartbeat(1)] {
        let mut server = Server::new(1, 3, &[1, 1]);
        let deadline = server.raft.wake_at();
        server.receive(deadline, 2, word);
        assert_eq!(terms(&server), [1, 1]);
        assert_eq!(server.raft.leader(), Some(id(2)));
        assert!(server.raft.wake_at() > deadline, "it campaigns later");
        assert!(!server.begin_job(), "nothing is to be written");
    }
    let (mut server, _) = leader(3, &[1]);
    server.sync(NOW);
    server.receive(NOW, 2, matches(&server, 2));
    let later = NOW.after_ns(HEARTBEAT_NS);
    server.tick(later);
    let left = server.settle(later);
    assert_eq!(commits(&left), [at(2)]);
    assert!(appends(&left).is_empty(), "an idle leader sends no entries");
}

/// `AppendEntries`, arguments, `entries[]`: "may send more than one for efficiency".
#[test]
fn a_request_brings_all_entries_that_there_are_and_they_are_stored_in_order() {
    let (mut server, _) = leader(3, &[1]);
    server.receive(NOW, 2, matches(&server, 2));
    for value in 1..=5 {
        server.propose(NOW, value).expect("leads");
    }
    assert_eq!(appends(&server.settle(NOW)), [(pos(2, 2), 7, 0)], "five in one");
    let mut follower = Server::new(2, 3, &[1]);
    assert!(follower.receive(NOW, 1, append(4, pos(1, 1), &[2, 2, 3, 4, 4], 0)).is_empty());
    assert_eq!(follower.sync(NOW), [matched(4, 6)]);
    assert_eq!(terms(&follower), [1, 2, 2, 3, 4, 4]);
    assert_eq!(follower.disk.entries, follower.log);
}

/// `AppendEntries`, arguments, `leaderCommit`: "leader's commitIndex".
#[test]
fn a_leader_says_what_it_has_committed() {
    let (mut server, first) = leader(3, &[1]);
    assert_eq!(appends(&first), [(pos(1, 1), 2, 0)]);
    server.sync(NOW);
    server.receive(NOW, 2, matches(&server, 2));
    assert_eq!(server.raft.commit_index(), at(2));
    server.propose(NOW, 1).expect("leads");
    assert_eq!(appends(&server.settle(NOW)), [(pos(2, 2), 3, 2)]);
}

/// `AppendEntries`, results, `term`: "currentTerm, for leader to update itself".
#[test]
fn an_answer_to_a_leader_names_the_followers_term_and_the_leader_takes_it() {
    let mut follower = Server::new(2, 3, &[1, 7]);
    for request in [append(3, pos(9, 3), &[3], 0), heartbeat(3)] {
        let left = follower.receive(NOW, 1, request);
        let term = left.first().and_then(Message::term);
        assert_eq!((left.len(), term), (1, Some(Term::new(7))), "{left:?}");
    }
    for outcome in [
        AppendOutcome::Matched { index: at(0) },
        AppendOutcome::Conflict { probe: at(1), hint: LogPosition::ZERO },
        AppendOutcome::NoRoom { index: at(0) },
    ] {
        let (mut server, _) = leader(3, &[1]);
        server.sync(NOW);
        let term = Term::new(7);
        let answer =
            Message::AppendReply { term, session: 0, round: 0, outcome, first_faulty: None };
        server.receive(NOW, 2, answer);
        assert_eq!(server.raft.hard_state(), HardState { term, vote: Vote::None });
        assert_eq!(server.raft.role_name(), "follower");
        assert_eq!(server.raft.leader(), None, "nor is whoever answered one");
        server.sync(NOW);
        assert_eq!(server.disk.hard_state.term, term);
    }
    // Its own term says nothing new.
    let mut server = Server::new(1, 3, &[1]);
    elect(&mut server, NOW);
    server.receive(NOW, 2, matched(2, 0));
    assert!(server.raft.is_leader());
}

fn packet(from: u64, message: Message) -> Packet {
    Packet { from: id(from), to: id(1), message, entries: Vec::new() }
}

/// The term and last entry that a candidate with this log names to both others, and what is on its
/// disk by then.
fn asked(log: &[u64]) -> (Term, LogPosition, HardState) {
    let mut server = Server::new(1, 3, log);
    let term = server.raft.term().get();
    server.tick(NOW);
    server.receive(NOW, 2, pre_voted(term, term + 1, true));
    let left = server.sync(NOW);
    let [Message::Vote { term, last, asked_by: None }, other] = &left[..] else {
        panic!("{left:?}");
    };
    assert_eq!(left[0], *other, "each other server is asked the same");
    (*term, *last, server.disk.hard_state)
}

/// The entry before those of each request, which name it as the sender's log has it.
fn prevs(messages: &[Message]) -> Vec<LogPosition> {
    appends(messages).iter().map(|(prev, ..)| *prev).collect()
}
