//! Linearizable reads on followers: the leader says up to where to apply. raft-bugs F2, F3, F7.

use super::election::{elect, heartbeat, voted};
use super::followers::append;
use super::server::{HEARTBEAT_NS, Server, TIMEOUT_NS, at, id, pos};
use raftd::raft::message::{AppendOutcome, Message};
use raftd::raft::{Dropped, NotLeader};
use raftd::types::{Instant, LogIndex};

const NOW: Instant = Instant::from_ns(1_000_000_000_000);

/// Server 2, which hears the leader 1 of term 1 and has its first four entries, none committed.
fn follower() -> Server {
    let mut server = Server::new(2, 3, &[1]);
    server.receive(NOW, 1, append(1, pos(1, 1), &[1, 1, 1], 0));
    server.sync(NOW);
    server
}

/// The number of the question among what left.
fn question(left: &[Message]) -> Option<u64> {
    left.iter().find_map(|message| {
        if let Message::ReadIndex { sequence, .. } = message { Some(*sequence) } else { None }
    })
}

fn reply(server: &Server, sequence: u64, index: u64) -> Message {
    Message::ReadIndexReply { term: server.raft.term(), sequence, index: at(index) }
}

fn answers(server: &mut Server) -> Vec<Result<LogIndex, Dropped>> {
    server.reads.drain(..).map(|ready| ready.result).collect()
}

#[test]
fn a_followers_reads_share_a_question_and_learn_the_commit_from_the_answer() {
    let mut server = follower();
    server.raft.read().expect("hears a leader");
    server.raft.read().expect("hears a leader");
    let first = question(&server.settle(NOW)).expect("asked");
    server.raft.read().expect("hears a leader");
    assert_eq!(question(&server.settle(NOW)), None, "one question at a time");
    let left = server.receive(NOW, 1, reply(&server, first, 3));
    assert_eq!(answers(&mut server), [Ok(at(3)), Ok(at(3))]);
    assert_eq!(server.raft.commit_index(), at(3), "what the leader has committed, and we hold");
    let second = question(&left).expect("the third read's");
    assert_eq!(second, first.wrapping_add(1));
    server.receive(NOW, 1, reply(&server, second, 9));
    assert_eq!(answers(&mut server), [Ok(at(9))]);
    assert_eq!(server.raft.commit_index(), at(4), "no further than our log is known to be equal");
}

#[test]
fn an_answer_to_another_question_or_from_another_server_is_none() {
    let mut server = follower();
    server.raft.read().expect("hears a leader");
    let asked = question(&server.settle(NOW)).expect("asked");
    server.receive(NOW, 1, reply(&server, asked.wrapping_sub(1), 3));
    server.receive(NOW, 3, reply(&server, asked, 3));
    assert!(answers(&mut server).is_empty());
    server.receive(NOW, 1, reply(&server, asked, 3));
    server.receive(NOW, 1, reply(&server, asked, 4));
    assert_eq!(answers(&mut server), [Ok(at(3))], "and once");
}

/// Not only those whose question is out.
#[test]
fn all_that_wait_are_told_when_another_leads() {
    let mut server = follower();
    server.raft.read().expect("hears a leader");
    question(&server.settle(NOW)).expect("asked");
    server.raft.read().expect("hears a leader");
    assert_eq!(question(&server.settle(NOW)), None, "one question at a time");
    server.receive(NOW, 3, heartbeat(2));
    assert_eq!(answers(&mut server), [Err(Dropped), Err(Dropped)]);
}

#[test]
fn a_restarted_server_does_not_ask_under_the_numbers_of_before() {
    let mut numbers = Vec::new();
    for seed in 1..=20 {
        let mut settings = super::server::settings(2);
        settings.seed = seed;
        let mut server = Server::start(settings, 3, super::server::disk(&[1]), NOW);
        server.receive(NOW, 1, heartbeat(1));
        server.raft.read().expect("hears a leader");
        numbers.push(question(&server.settle(NOW)).expect("asked"));
    }
    numbers.sort_unstable();
    assert!(numbers.windows(2).all(|pair| pair[1] - pair[0] > 1 << 32), "{numbers:?}");
}

#[test]
fn a_question_is_repeated_until_it_is_answered() {
    let mut server = follower();
    server.raft.read().expect("hears a leader");
    let asked = question(&server.settle(NOW)).expect("asked");
    let later = NOW.after_ns(HEARTBEAT_NS);
    assert_eq!(server.raft.wake_at(), later);
    assert_eq!(question(&server.settle(later)), Some(asked));
}

#[test]
fn a_followers_reads_end_with_its_leader() {
    let mut server = follower();
    server.raft.read().expect("hears a leader");
    server.settle(NOW);
    server.raft.read().expect("hears a leader");
    server.receive(NOW, 3, voted(7, false));
    assert_eq!(answers(&mut server), [Err(Dropped), Err(Dropped)]);
    assert_eq!(server.raft.read(), Err(NotLeader { leader: None }));
    let mut server = follower();
    server.raft.read().expect("hears a leader");
    let timeout = Instant::from_ns(NOW.as_ns() + 1_000_000_000);
    server.tick(timeout);
    assert_eq!(server.raft.role_name(), "pre-candidate");
    assert_eq!(answers(&mut server), [Err(Dropped)]);
}

/// They once stayed unanswered, and the node, which has one round out at a time, asked for no
/// other as long as it led.
#[test]
fn they_end_too_when_it_takes_over_from_its_leader() {
    let mut server = follower();
    server.raft.read().expect("hears a leader");
    server.settle(NOW);
    server.raft.read().expect("hears a leader");
    let (term, last) = (server.raft.term(), server.raft.last());
    server.receive(NOW, 1, Message::TimeoutNow { term, last });
    assert_eq!(server.raft.role_name(), "candidate");
    assert_eq!(answers(&mut server), [Err(Dropped), Err(Dropped)]);
}

#[test]
fn a_leader_answers_a_follower_with_a_round_of_its_own_and_not_before_its_first_commit() {
    let mut server = Server::new(1, 3, &[1]);
    server.raft.connected(id(2), 2);
    server.raft.connected(id(3), 3);
    elect(&mut server, NOW);
    server.sync(NOW);
    let term = server.raft.term();
    let ask = |sequence| Message::ReadIndex { term, sequence };
    let confirm = |round| {
        let outcome = AppendOutcome::Matched { index: at(2) };
        Message::AppendReply { term, session: 3, round, outcome, first_faulty: None }
    };
    let answered = |left: Vec<Message>| {
        let replies = left.into_iter().filter(|it| matches!(it, Message::ReadIndexReply { .. }));
        replies.collect::<Vec<_>>()
    };
    // The second question replaces the first: its asker does not wait for that any more.
    assert!(answered(server.receive(NOW, 2, ask(70))).is_empty());
    assert!(answered(server.receive(NOW, 2, ask(71))).is_empty());
    assert!(answered(server.receive(NOW, 3, confirm(0))).is_empty(), "a round of before");
    let expected = Message::ReadIndexReply { term, sequence: 71, index: at(2) };
    assert_eq!(answered(server.receive(NOW, 3, confirm(1))), [expected]);
    assert!(answered(server.receive(NOW, 77, ask(1))).is_empty(), "no stranger is answered");
}

/// A voter asks for votes after a while, and its readers go elsewhere. So should those of a server
/// that is no voter.
#[test]
fn a_server_that_is_no_voter_forgets_a_leader_that_it_does_not_hear() {
    let mut server = Server::new(9, 3, &[1]);
    server.receive(NOW, 1, heartbeat(1));
    server.sync(NOW);
    server.raft.read().expect("hears a leader");
    server.settle(NOW);
    let heard = NOW.after_ns(TIMEOUT_NS - 1);
    server.receive(heard, 1, heartbeat(1));
    server.tick(NOW.after_ns(2 * TIMEOUT_NS - 2));
    assert_eq!(server.raft.leader(), Some(id(1)));
    let late = heard.after_ns(2 * TIMEOUT_NS);
    assert!(server.raft.wake_at() < late);
    server.tick(late);
    server.settle(late);
    assert_eq!(server.raft.leader(), None);
    assert_eq!(answers(&mut server), [Err(Dropped)]);
    assert_eq!(server.raft.read(), Err(NotLeader { leader: None }));
    assert_eq!(server.raft.wake_at(), Instant::FAR);
    server.receive(late, 1, heartbeat(1));
    assert_eq!(server.raft.leader(), Some(id(1)));
}
