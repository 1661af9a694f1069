//! A disk that hangs: heartbeats go on without it, and a leader does not stay for long. raft-bugs
//! H7.

use super::election::leader_of_three;
use super::followers::append;
use super::server::{HEARTBEAT_NS, Server, TIMEOUT_NS, at, pos};
use raftd::raft::message::{AppendOutcome, Message};
use raftd::raft::{Mark, Notice};
use raftd::types::{Instant, Term};

const NOW: Instant = Instant::from_ns(1_000_000_000_000);
const PATIENCE_NS: u64 = 2 * TIMEOUT_NS;

/// Both followers have everything up to `index`.
fn acknowledge(server: &mut Server, now: Instant, index: u64) {
    let (term, outcome) = (server.raft.term(), AppendOutcome::Matched { index: at(index) });
    for session in [2, 3] {
        let reply = Message::AppendReply { term, session, round: 0, outcome, first_faulty: None };
        server.receive(now, session, reply);
    }
}

#[test]
fn heartbeats_and_commits_go_on_while_the_leaders_disk_hangs_and_then_it_leaves() {
    let mut server = leader_of_three(NOW);
    acknowledge(&mut server, NOW, 2);
    server.propose(NOW, 7).expect("leads");
    server.settle(NOW);
    assert!(server.begin_job(), "and it never ends");
    let mut now = NOW;
    while now.after_ns(HEARTBEAT_NS) < NOW.after_ns(PATIENCE_NS) {
        now = now.after_ns(HEARTBEAT_NS);
        server.tick(now);
        assert_eq!(server.settle(now).len(), 2, "a heartbeat to each");
        acknowledge(&mut server, now, 3);
    }
    assert_eq!(server.raft.commit_index(), at(3), "the others' disks are a quorum");
    let end = NOW.after_ns(PATIENCE_NS);
    assert!(server.raft.wake_at() <= end);
    server.tick(end);
    assert!(!server.raft.is_leader());
    assert!(server.settle(end).is_empty(), "silent, so that the others elect");
    let term = server.raft.term();
    assert!(server.notices.contains(&Notice::DiskStalled { term }));
}

#[test]
fn a_server_whose_disk_hangs_does_not_campaign_until_it_is_back() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, append(1, pos(1, 1), &[1], 0));
    assert!(server.begin_job());
    let mut now = NOW.after_ns(PATIENCE_NS);
    for _ in 0..5 {
        now = now.max(server.raft.wake_at());
        server.tick(now);
        assert!(server.settle(now).is_empty());
        assert_eq!(server.raft.role_name(), "follower");
    }
    assert_eq!(server.raft.term(), Term::new(1));
    assert!(server.raft.output().marks.count(Mark::DiskStalled) >= 5);
    server.finish_job(now);
    server.settle(now);
    let due = server.raft.wake_at();
    assert!(due > now, "not at once, but");
    server.tick(due);
    assert_eq!(server.raft.role_name(), "pre-candidate");
}

#[test]
fn a_server_whose_disk_hangs_does_not_take_over() {
    let mut server = Server::new(2, 3, &[1]);
    let term = Term::new(1);
    server.receive(NOW, 1, append(1, pos(1, 1), &[1], 0));
    assert!(server.begin_job());
    let take_over = Message::TimeoutNow { term, last: pos(2, 1) };
    let late = NOW.after_ns(PATIENCE_NS);
    server.receive(late, 1, take_over.clone());
    assert_eq!((server.raft.role_name(), server.raft.term()), ("follower", term));
    server.finish_job(late);
    server.receive(late, 1, take_over);
    assert_eq!(server.raft.role_name(), "candidate");
}

#[test]
fn a_follower_whose_disk_hangs_answers_heartbeats_with_what_is_durable() {
    let mut server = Server::new(2, 3, &[1]);
    server.receive(NOW, 1, append(1, pos(1, 1), &[1], 0));
    assert!(server.begin_job());
    for beat in 1..20 {
        let now = NOW.after_ns(beat * HEARTBEAT_NS);
        let left = server.receive(now, 1, super::election::heartbeat(1));
        assert_eq!(left, [super::followers::matched(1, 1)]);
    }
}

#[test]
fn a_sole_voter_waits_for_its_disk_because_nobody_else_would_do_better() {
    let mut server = Server::new(1, 1, &[1]);
    server.tick(NOW);
    server.sync(NOW);
    server.propose(NOW, 7).expect("leads");
    server.settle(NOW);
    assert!(server.begin_job());
    server.tick(NOW.after_ns(10 * PATIENCE_NS));
    assert!(server.raft.is_leader());
}
