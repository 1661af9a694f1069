//! Who may speak as a member: a process of this cluster, on the data directory that the
//! configuration names.

use super::nodes::{Answer, CLUSTER, Nodes, disk_of, id};
use raftd::types::{ClusterId, DiskId};
use raftd::wire::error::Error;
use raftd::wire::hello::{HelloReply, PeerHello, Purpose};

const MS: u64 = 1_000_000;

#[test]
fn a_member_is_let_in_from_its_own_cluster_and_directory_only() {
    let mut nodes = Nodes::new(3);
    nodes.pass(200 * MS);
    let nth = nodes.leader().expect("elected");
    let other = nth % 3 + 1;
    nodes.crash(other);
    let hello = |genesis, disk_id| PeerHello {
        node: id(other),
        to: id(nth),
        disk_id,
        boot_nonce: 9 << 32,
        genesis,
        members: Vec::new(),
        purpose: Purpose::Replication,
    };
    let disk = disk_of(other);
    let HelloReply::Welcome(welcome) = nodes.say_hello(nth, CLUSTER, hello(0, disk)) else {
        panic!("it may have lost its log, and is told who the members are")
    };
    let genesis = welcome.genesis;
    let foreign = nodes.say_hello(nth, ClusterId(8), hello(genesis, disk));
    assert_eq!(foreign, HelloReply::Refused(Error::WrongCluster { ours: CLUSTER }));
    let moved = nodes.say_hello(nth, CLUSTER, hello(genesis, DiskId(99)));
    assert!(matches!(moved, HelloReply::Refused(Error::Refused { .. })), "{moved:?}");
    let sound = nodes.say_hello(nth, CLUSTER, hello(genesis, disk));
    assert!(matches!(sound, HelloReply::Welcome(_)), "{sound:?}");
}

/// A leader that nobody hears adds a server, which learns from it who the members are and dials
/// it. The addition comes to nothing. The old leader goes on to answer the newcomer, which knows
/// no better, but does not dial it for ever.
#[test]
fn who_was_to_become_a_member_is_dialed_no_more() {
    let mut nodes = Nodes::new(3);
    nodes.pass(200 * MS);
    let old = nodes.leader().expect("elected");
    let others: Vec<usize> = (1..=3).filter(|nth| *nth != old).collect();
    let newcomer = nodes.arrive();
    nodes.pass(50 * MS);
    others.iter().for_each(|other| nodes.freeze(*other));
    let added = nodes.add_learner(old, newcomer);
    nodes.pass_until(|nodes| nodes.dials_of(old).contains(&id(newcomer)));
    let last = |nodes: &Nodes, nth| nodes.status_of(nth).last_index;
    nodes.pass_until(|nodes| last(nodes, newcomer) == last(nodes, old));
    for other in &others {
        nodes.cut(old, *other);
        nodes.cut(newcomer, *other);
    }
    others.iter().for_each(|other| nodes.thaw(*other));
    nodes.pass_until(|nodes| nodes.leader().is_some_and(|nth| nth != old));
    nodes.mend();
    nodes.pass(1_000 * MS);
    assert_eq!(nodes.answers.get(&added), Some(&Answer::Failed(Error::OutcomeUnknown)));
    let members: Vec<_> = others.iter().map(|nth| id(*nth)).collect();
    assert_eq!(nodes.dials_of(old), members);
    assert!(nodes.dials_of(newcomer).contains(&id(old)), "it knows no better");
}

/// A server is to be added, forgotten before it answers, and to be added again: two dials are under
/// way, and the first fails last. That ends nothing of the second, whose handshake goes on and is
/// ended in time; else its answer would come from a server that nobody knows. Seed 29279.
#[test]
fn a_dial_that_fails_late_does_not_touch_the_next_one() {
    let mut nodes = Nodes::new(3);
    nodes.pass(200 * MS);
    let leader = nodes.leader().expect("elected");
    let newcomer = nodes.arrive();
    nodes.freeze(newcomer);
    let added = nodes.add_learner(leader, newcomer);
    nodes.pass(10 * MS);
    nodes.fail_dial(leader, newcomer);
    nodes.pass_until(|nodes| nodes.answers.contains_key(&added));
    assert!(matches!(nodes.answers[&added], Answer::Failed(_)), "it did not answer");
    nodes.pass(20 * MS);
    nodes.thaw(newcomer);
    nodes.pass(100 * MS);
    assert_eq!(nodes.dials_of(leader).len(), 2, "the other members");
    let again = nodes.add_learner(leader, newcomer);
    nodes.pass_until(|nodes| nodes.answers.contains_key(&again));
    assert_eq!(nodes.answers[&again], Answer::Done);
}
