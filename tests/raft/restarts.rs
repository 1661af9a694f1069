//! What a power loss takes and what it must not. Paper §5.2, thesis §3.8.

use super::election::{vote, voted};
use super::followers::{append, matched};
use super::server::{Disk, Server, at, disk, pos, settings};
use raftd::types::{HardState, Instant, Term, Vote};

const NOW: Instant = Instant::from_ns(1_000_000_000_000);

fn restart(disk: Disk) -> Server {
    Server::start(settings(1), 3, disk, NOW)
}

#[test]
fn a_vote_survives_a_restart() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, vote(5, pos(1, 1)));
    assert_eq!(server.sync(NOW), [voted(5, true)]);
    let mut server = restart(server.power_loss(0));
    assert_eq!(server.receive(NOW, 3, vote(5, pos(9, 4))), [voted(5, false)]);
    assert_eq!(server.receive(NOW, 2, vote(5, pos(1, 1))), [voted(5, true)]);
}

#[test]
fn a_vote_that_was_lost_had_been_told_to_nobody() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, vote(5, pos(1, 1)));
    assert!(server.begin_job());
    assert!(server.settle(NOW).is_empty());
    let mut server = restart(server.power_loss(0));
    server.receive(NOW, 3, vote(5, pos(1, 1)));
    assert_eq!(server.sync(NOW), [voted(5, true)], "free to vote: nobody counts on the other");
}

#[test]
fn a_restarted_leader_is_a_follower_of_a_term_it_may_not_lead_again() {
    let mut server = Server::new(1, 3, &[1]);
    super::election::elect(&mut server, NOW);
    server.propose(NOW, 7).expect("leads");
    server.settle(NOW);
    let mut server = restart(server.power_loss(0));
    assert_eq!(server.raft.role_name(), "follower");
    assert_eq!(server.raft.last(), pos(1, 1), "what it had sent may differ from what it will send");
    let now = server.raft.wake_at();
    super::election::elect(&mut server, now);
    assert_eq!(server.raft.term(), Term::new(3));
}

#[test]
fn acknowledged_entries_survive_and_the_others_may_go() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, append(1, pos(1, 1), &[1, 1], 0));
    assert_eq!(server.sync(NOW), [matched(1, 3)]);
    server.receive(NOW, 2, append(1, pos(3, 1), &[1], 0));
    assert!(server.begin_job());
    let server = restart(server.power_loss(0));
    assert_eq!(server.raft.last(), pos(3, 1));
    assert_eq!(server.raft.durable(), at(3));
}

#[test]
fn a_term_in_the_log_is_a_term_that_began_and_no_vote_is_given_in_it() {
    let mut disk = disk(&[1, 4]);
    disk.hard_state = HardState { term: Term::new(2), vote: Vote::None };
    let mut server = restart(disk);
    assert_eq!(server.raft.term(), Term::new(4));
    assert!(server.raft.has_job(), "and that is made durable");
    server.receive(NOW, 2, vote(4, pos(9, 4)));
    assert_eq!(server.sync(NOW), [voted(4, false)]);
}

#[test]
fn what_was_known_to_be_committed_is_known_after_a_restart() {
    let mut server = Server::new(1, 3, &[1, 1, 1]);
    server.receive(NOW, 2, append(1, pos(3, 1), &[1], 3));
    server.sync(NOW);
    let server = restart(server.power_loss(0));
    assert_eq!(server.raft.commit_index(), at(3));
}
