//! Who may speak as a member: a process of this cluster, on the data directory that the
//! configuration names.

use super::nodes::{Answer, CLUSTER, Nodes, Tuning, disk_of, hello_of, id, peer_hello};
use crate::wal::sim_disk::SimDisk;
use crate::wal::support::options;
use raftd::types::{ClusterId, DiskId};
use raftd::wal::{self, Options};
use raftd::wire::error::Error;
use raftd::wire::hello::{Hello, HelloReply, PeerHello, Purpose, Sender, VERSION};

const MS: u64 = 1_000_000;

#[test]
fn who_dials_another_server_or_has_our_number_is_told_so() {
    let (mut nodes, leader, [other, third]) = Nodes::cluster();
    let misled = nodes.say_hello(leader, CLUSTER, peer_hello(other, third));
    assert_eq!(misled, HelloReply::Refused(Error::WrongNode { ours: id(leader) }));
    let same = nodes.say_hello(leader, CLUSTER, peer_hello(leader, leader));
    assert!(matches!(same, HelloReply::Refused(Error::Refused { .. })), "{same:?}");
}

#[test]
fn who_speaks_only_other_versions_is_told_ours() {
    let (mut nodes, leader, [other, _]) = Nodes::cluster();
    let told = Error::Unsupported { version_min: VERSION, version_max: VERSION };
    for (version_min, version_max) in [(VERSION + 1, VERSION + 2), (VERSION - 1, VERSION - 1)] {
        for sender in [Sender::Client, Sender::Peer(peer_hello(other, leader))] {
            let hello = Hello { version_min, version_max, ..hello_of(sender) };
            assert_eq!(nodes.open(leader, &hello).1, HelloReply::Refused(told.clone()));
        }
    }
    let hello =
        Hello { version_min: VERSION - 1, version_max: VERSION + 1, ..hello_of(Sender::Client) };
    assert!(matches!(nodes.open(leader, &hello).1, HelloReply::Welcome(_)));
}

#[test]
fn one_client_more_than_there_may_be_is_turned_away() {
    let mut nodes = Nodes::tuned(1, Tuning { clients_max: 2, ..Tuning::default() });
    let mut come = || nodes.open(1, &hello_of(Sender::Client)).1;
    assert!(matches!([come(), come()], [HelloReply::Welcome(_), HelloReply::Welcome(_)]));
    assert_eq!(come(), HelloReply::Refused(Error::TOO_MANY_CLIENTS));
}

/// Its other end may have vanished without a word: then nobody else would ever close it.
#[test]
fn a_newer_connection_of_a_member_takes_the_place_of_the_older_one() {
    for purpose in [Purpose::Replication, Purpose::Snapshot] {
        let (mut nodes, leader, [other, _]) = Nodes::cluster();
        nodes.vanish(other);
        let hello = hello_of(Sender::Peer(PeerHello { purpose, ..peer_hello(other, leader) }));
        let [older, newer] = [0, 0].map(|_| nodes.open(leader, &hello).0);
        nodes.pass(MS);
        assert!(nodes.closed.contains(&older) && !nodes.closed.contains(&newer), "{purpose:?}");
    }
}

/// It has stopped before its first entry was durable, takes part with an empty log while there is
/// another member, and is started again when the members are those of the first entry. It may have
/// voted meanwhile.
#[test]
fn a_founder_without_a_first_entry_keeps_what_it_has_promised() {
    let (mut nodes, leader, [founder, _]) = Nodes::cluster();
    nodes.crash(founder);
    let disk = SimDisk::new(70);
    let (node, disk_id_if_new) = (id(founder), disk_of(founder));
    let new =
        Options { cluster_id: Some(CLUSTER), token_hash: 0, node, disk_id_if_new, ..options() };
    drop(wal::open(disk.disk(), &new).expect("a new directory"));
    nodes.replace_disk(founder, &disk.image());
    nodes.put(leader, "k");
    nodes.pass(100 * MS);
    let fourth = nodes.arrive();
    let added = nodes.add_learner(leader, fourth);
    nodes.pass_until(|nodes| nodes.answers.contains_key(&added));
    assert_eq!(nodes.answers[&added], Answer::Done);

    nodes.hold_sync(founder);
    nodes.boot_with(founder, 3).expect("its disk is well");
    nodes.pass_until(|nodes| nodes.status_of(founder).term == nodes.status_of(leader).term);
    nodes.let_one_sync_through(founder);
    assert_eq!(nodes.status_of(founder).durable_index.get(), 0, "no entry is on disk yet");
    nodes.crash(founder);
    let removed = nodes.remove_member(leader, fourth);
    nodes.pass_until(|nodes| nodes.answers.contains_key(&removed));
    assert_eq!(nodes.answers[&removed], Answer::Done);

    nodes.release_sync(founder);
    nodes.boot_with(founder, 3).expect("its disk is well");
    nodes.pass_until(|nodes| nodes.status_of(founder).keys == 1);
}

#[test]
fn a_member_is_let_in_from_its_own_cluster_and_directory_only() {
    let (mut nodes, nth, [other, _]) = Nodes::cluster();
    nodes.crash(other);
    let hello = |genesis, disk_id| PeerHello { genesis, disk_id, ..peer_hello(other, nth) };
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
