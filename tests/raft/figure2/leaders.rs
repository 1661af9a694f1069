//! Figure 2, Rules for Servers, Leaders.

use super::{NOW, in_role};
use crate::raft::election::elect;
use crate::raft::leaders::{appends, commits, conflicts, leader, matches};
use crate::raft::server::{HEARTBEAT_NS, Server, TIMEOUT_NS, at, id, pos};
use raftd::types::EntryKind;

/// Leaders: "Upon election: send initial empty `AppendEntries` RPCs (heartbeat) to each server".
#[test]
fn a_new_leader_is_heard_by_everybody_at_once_and_opens_its_term() {
    let mut server = Server::new(1, 5, &[1]);
    for other in 2..=5 {
        server.raft.connected(id(other), other);
    }
    let first = elect(&mut server, NOW);
    assert_eq!(appends(&first), [(pos(1, 1), 2, 0); 4]);
    assert_eq!(server.log[1].meta.kind, EntryKind::NoOp);
}

/// Leaders: "repeat during idle periods to prevent election timeouts".
#[test]
fn an_idle_leader_is_heard_several_times_within_an_election_timeout() {
    let (mut server, _) = leader(3, &[1]);
    server.sync(NOW);
    server.receive(NOW, 2, matches(&server, 2));
    let mut now = NOW;
    for _ in 0..20 {
        let due = server.raft.wake_at();
        assert!(due.ns_since(now) <= HEARTBEAT_NS);
        now = due;
        server.tick(now);
        let left = server.settle(now);
        assert_eq!(commits(&left), [at(2)]);
        server.receive(now, 2, matches(&server, 2));
    }
    const { assert!(TIMEOUT_NS >= 3 * HEARTBEAT_NS) };
}

/// Leaders: "If command received from client: append entry to local log".
#[test]
fn a_leader_appends_what_it_is_given_and_nobody_else_does() {
    let (mut server, _) = leader(3, &[1]);
    assert_eq!(server.propose(NOW, 7), Ok(pos(3, 2)));
    assert_eq!(server.propose(NOW, 8), Ok(pos(4, 2)));
    assert_eq!(server.raft.last(), pos(4, 2));
    for role in ["follower", "pre-candidate", "candidate"] {
        let mut server = in_role(role);
        assert!(server.propose(NOW, 7).is_err());
        assert_eq!(server.raft.last(), pos(1, 1));
    }
}

/// Leaders: "If last log index ≥ nextIndex for a follower: send `AppendEntries` RPC with log
/// entries starting at nextIndex".
#[test]
fn a_follower_is_sent_all_that_it_was_not_sent_yet_without_waiting() {
    let (mut server, _) = leader(3, &[1]);
    server.sync(NOW);
    server.receive(NOW, 2, matches(&server, 2));
    assert!(server.settle(NOW).is_empty(), "nothing follows");
    server.propose(NOW, 1).expect("leads");
    server.propose(NOW, 2).expect("leads");
    assert_eq!(appends(&server.settle(NOW)), [(pos(2, 2), 4, 2)]);
    server.propose(NOW, 3).expect("leads");
    assert_eq!(appends(&server.settle(NOW)), [(pos(4, 2), 5, 2)]);
    assert!(server.settle(NOW).is_empty(), "once");
}

/// Leaders: "If successful: update nextIndex and matchIndex for follower".
#[test]
fn an_acknowledgement_moves_what_is_known_of_the_follower() {
    let (mut server, first) = leader(3, &[1, 1]);
    assert_eq!(appends(&first), [(pos(2, 1), 3, 0)]);
    server.propose(NOW, 1).expect("leads");
    let left = server.receive(NOW, 2, matches(&server, 3));
    assert_eq!(server.raft.match_index(id(2)), Some(at(3)));
    assert_eq!(appends(&left), [(pos(3, 2), 4, 0)]);
}

/// Leaders: "If `AppendEntries` fails because of log inconsistency: decrement nextIndex and retry".
#[test]
fn a_refusal_is_answered_at_once_from_further_back() {
    let (mut server, _) = leader(3, &[1, 2, 2, 4]);
    let left = server.receive(NOW, 2, conflicts(&server, 4, pos(3, 3)));
    assert_eq!(appends(&left), [(pos(3, 2), 5, 0)]);
    let left = server.receive(NOW, 2, conflicts(&server, 3, pos(1, 1)));
    assert_eq!(appends(&left), [(pos(1, 1), 5, 0)]);
    assert_eq!(server.raft.match_index(id(2)), Some(at(0)));
}

/// Leaders: "If there exists an N such that N > commitIndex, a majority of matchIndex[i] ≥ N, and
/// log[N].term == currentTerm: set commitIndex = N".
#[test]
fn the_highest_entry_of_the_leaders_term_on_a_majority_of_disks_is_committed() {
    // (match indexes of servers 2 to 5, our own disk, commit index); entries 1 and 2 are of term 1
    // and 2, those from 3 on of ours.
    for (others, own, expected) in [
        ([0, 0, 0, 0], 5, 0),
        ([2, 2, 2, 2], 5, 0), // an earlier term's
        ([3, 3, 2, 2], 5, 3),
        ([5, 4, 3, 0], 5, 4),
        ([5, 4, 3, 0], 2, 3), // our own disk counts like any other
        ([5, 5, 5, 0], 2, 5),
        ([5, 5, 0, 0], 5, 5),
    ] {
        let mut server = Server::new(1, 5, &[1, 2]);
        for other in 2..=5 {
            server.raft.connected(id(other), 7);
        }
        elect(&mut server, NOW);
        server.propose(NOW, 1).expect("leads");
        server.propose(NOW, 2).expect("leads");
        if own == 5 {
            server.sync(NOW);
        }
        for (other, index) in (2..).zip(others) {
            server.receive(NOW, other, matches(&server, index));
        }
        assert_eq!(server.raft.durable(), at(own));
        assert_eq!(server.raft.commit_index(), at(expected), "{others:?} {own}");
    }
}
