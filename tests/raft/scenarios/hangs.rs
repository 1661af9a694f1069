//! Disks that hang, seen from the clients: nobody waits without end, and another server leads.

use super::nodes::{Answer, Nodes, id};
use raftd::wire::error::Error;

const MS: u64 = 1_000_000;
/// Of the servers here.
const ELECTION_TIMEOUT_NS: u64 = 300 * MS;
/// So long a disk may take.
const PATIENCE_NS: u64 = 2 * ELECTION_TIMEOUT_NS;

/// Puts until one is not answered: the log is full, and its next file is not ready.
fn put_until_held(nodes: &mut Nodes, nth: usize) -> u64 {
    for _ in 0..100 {
        let put = nodes.put(nth, &"k".repeat(3_000));
        nodes.pass(5 * MS);
        if !nodes.answers.contains_key(&put) {
            return put;
        }
    }
    panic!("everything fits");
}

/// Who reads waits for what the leader has committed. A server whose disk is full may never have
/// that: after a while it says who has.
#[test]
fn who_reads_where_the_log_finds_no_room_is_sent_elsewhere_after_ten_election_timeouts() {
    let (mut nodes, leader, [behind, _]) = Nodes::cluster();
    nodes.fill_disk(behind);
    for _ in 0..100 {
        if nodes.status_of(behind).last_index == nodes.status_of(leader).last_index {
            let put = nodes.put(leader, &"k".repeat(3_000));
            nodes.pass(10 * MS);
            assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
        }
    }
    assert!(nodes.status_of(behind).last_index < nodes.status_of(leader).last_index);
    let read = nodes.read(behind, "k");
    nodes.pass(10 * ELECTION_TIMEOUT_NS - 50 * MS);
    assert_eq!(nodes.answers.get(&read), None, "it may yet find some");
    nodes.pass(200 * MS);
    let answer = nodes.answers.get(&read);
    let Some(Answer::Failed(Error::NotLeader { leader: Some((to, _)) })) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(*to, id(leader));
}

/// A stall that hit only the thread that makes the files of the log was noticed by nobody: no job
/// of the log was in flight, and nothing was lacking. All clients waited, readers too, unread.
#[test]
fn a_server_whose_disk_makes_no_file_for_its_log_refuses_writes_until_it_does() {
    let mut nodes = Nodes::new(1);
    nodes.pass(200 * MS);
    nodes.hold_background(1);
    let held = put_until_held(&mut nodes, 1);
    let read = nodes.read(1, "k");
    assert!(nodes.wakes_within(1, PATIENCE_NS), "to tell them");
    nodes.pass(PATIENCE_NS);
    let Some(Answer::Failed(Error::NotReady { why })) = nodes.answers.get(&held) else {
        panic!("{:?}", nodes.answers.get(&held));
    };
    assert!(why.contains("its disk is slow or hangs"), "{why}");
    assert_eq!(nodes.answers.get(&read), Some(&Answer::Done));
    nodes.pass(2_000 * MS);
    assert!(nodes.sleeps(1));
    nodes.release_background(1);
    let put = nodes.put(1, "k");
    nodes.pass(100 * MS);
    assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
}

/// With others there, one of them leads then.
#[test]
fn a_leader_whose_disk_makes_no_file_for_its_log_hands_over() {
    let (mut nodes, hung, _) = Nodes::cluster();
    let term = nodes.status_of(hung).term;
    nodes.hold_background(hung);
    let held = put_until_held(&mut nodes, hung);
    nodes.pass(PATIENCE_NS + 100 * MS);
    assert!(matches!(
        nodes.answers.get(&held),
        Some(Answer::Failed(Error::NotLeader { .. } | Error::NotReady { .. }))
    ));
    let other = nodes.leader().expect("it had everything");
    assert_ne!(other, hung);
    assert_eq!(nodes.status_of(other).term, term.next(), "at once");
    let put = nodes.put(other, "k");
    nodes.pass(100 * MS);
    assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
    nodes.pass(4 * PATIENCE_NS);
    assert_eq!(nodes.leader(), Some(other), "for good");
}

/// A leader whose disk hung left office, and was followed after an election. Most of that time
/// nobody led who could write anything.
#[test]
fn a_leader_whose_disk_does_not_answer_hands_over_before_it_leaves_office() {
    let (mut nodes, hung, _) = Nodes::cluster();
    let term = nodes.status_of(hung).term;
    nodes.hold_sync(hung);
    let put = nodes.put(hung, "k");
    nodes.pass(PATIENCE_NS / 2);
    assert_eq!(nodes.answers.get(&put), Some(&Answer::Done), "the others' disks are a quorum");
    assert_eq!(nodes.leader(), Some(hung), "most stalls are over sooner");
    nodes.pass(PATIENCE_NS / 2 - 50 * MS);
    let other = nodes.leader().expect("it had everything");
    assert_ne!(other, hung);
    assert_eq!(nodes.status_of(other).term, term.next());
}

/// A follower that was behind and had no segment ready got one segment with each heartbeat of its
/// leader, though the next was ready at once, and was never level again.
#[test]
fn who_has_room_again_is_sent_entries_before_the_next_heartbeat() {
    let (mut nodes, leader, others) = Nodes::cluster();
    let behind = others[0];
    nodes.hold_background(behind);
    for nth in 0..200 {
        nodes.put(leader, &format!("{nth:01000}"));
        nodes.pass(5 * MS);
    }
    let last = nodes.status_of(leader).last_index;
    assert!(nodes.status_of(behind).last_index.advanced_by(50) < last, "it has no room");
    // No time passes.
    nodes.release_background(behind);
    assert_eq!(nodes.status_of(behind).last_index, last);
}

/// What came next waited like the first one, and nobody heard why: its own disk was well, and
/// the others answered its heartbeats.
#[test]
fn a_leader_whose_followers_disks_hang_refuses_writes_after_a_while() {
    let (mut nodes, leader, others) = Nodes::cluster();
    let warm = nodes.put(leader, "k");
    nodes.pass(20 * ELECTION_TIMEOUT_NS);
    assert_eq!(nodes.answers.get(&warm), Some(&Answer::Done));
    others.iter().for_each(|nth| nodes.hold_sync(*nth));
    let first = nodes.put(leader, "k");
    nodes.pass(10 * ELECTION_TIMEOUT_NS - 50 * MS);
    let second = nodes.put(leader, "k");
    nodes.pass(100 * MS);
    assert_eq!((nodes.answers.get(&first), nodes.answers.get(&second)), (None, None));
    let third = nodes.put(leader, "k");
    nodes.pass(10 * MS);
    let Some(Answer::Failed(Error::Busy { what })) = nodes.answers.get(&third) else {
        panic!("{:?}", nodes.answers.get(&third));
    };
    assert!(what.contains("a majority is slow or its disks are full or hang"), "{what}");
    assert_eq!(nodes.leader(), Some(leader), "nobody is better off");
    nodes.release_sync(others[0]);
    nodes.pass(100 * MS);
    let fourth = nodes.put(leader, "k");
    nodes.pass(100 * MS);
    for done in [first, second, fourth] {
        assert_eq!(nodes.answers.get(&done), Some(&Answer::Done));
    }
}
