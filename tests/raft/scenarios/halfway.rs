//! The delete of a range that takes many turns: who comes in between waits, and a crash leaves
//! nothing of its half.

use super::nodes::{Answer, Nodes, Tuning};
use raftd::kv::RangeEnd;
use raftd::limits::WorkingLimits;
use raftd::types::Revision;
use raftd::wire::client::Command;

const MS: u64 = 1_000_000;

/// A node with twenty keys within the delete of all of them, and the number of that.
fn halfway() -> (Nodes, u64) {
    let working = WorkingLimits { apply_steps: 4, ..WorkingLimits::default() };
    let mut nodes = Nodes::with_twenty_keys(working);
    let delete = Command::DeleteRange { key: b"k", end: RangeEnd::Unbounded };
    let number = nodes.command(1, None, delete);
    for _ in 0..20 {
        nodes.one_turn(1);
        if nodes.is_halfway(1) {
            return (nodes, number);
        }
    }
    panic!("it is done at once, or not at all");
}

#[test]
fn whoever_reads_within_a_delete_waits_for_its_end() {
    let (mut nodes, delete) = halfway();
    let before = nodes.status_of(1);
    let (all, _) = nodes.read_all(1);
    let one = nodes.read(1, "k19");
    let mut turns = 0;
    while nodes.is_halfway(1) {
        nodes.hear_answers();
        for number in [delete, all, one] {
            assert_eq!(nodes.answers.get(&number), None, "after {turns} turns");
        }
        let now = nodes.status_of(1);
        assert_eq!((now.applied_index, now.state_hash), (before.applied_index, before.state_hash));
        assert_eq!(now.revision, Revision(21));
        nodes.one_turn(1);
        turns += 1;
    }
    assert!(turns > 10, "three steps for each key, and four to a turn: {turns}");
    nodes.pass(500 * MS);
    for number in [delete, all, one] {
        assert_eq!(nodes.answers.get(&number), Some(&Answer::Done));
    }
    assert_eq!((nodes.status_of(1).keys, nodes.status_of(1).revision), (0, Revision(22)));
}

#[test]
fn a_crash_within_a_delete_leaves_nothing_of_its_half() {
    let (mut nodes, _) = halfway();
    nodes.crash(1);
    nodes.boot(1).unwrap();
    nodes.pass(2_000 * MS);
    assert!(!nodes.is_halfway(1));
    assert_eq!((nodes.status_of(1).keys, nodes.status_of(1).revision), (0, Revision(22)));
}

/// Whoever reads waits for the end of an entry that is half applied. With one entry after the other
/// begun in the turn in which the one before ended, there would hardly be an end.
#[test]
fn a_turn_that_ends_an_entry_begins_none() {
    // Of 48 commands of an entry in the first turn: half, then the next one ends with its steps; or
    // more, then it has steps left.
    for a_turn in [24, 40] {
        ends_of_entries_are_seen(8 * a_turn);
    }
}

fn ends_of_entries_are_seen(apply_steps: usize) {
    let working = WorkingLimits { apply_steps, ..WorkingLimits::default() };
    let mut nodes = Nodes::with_twenty_keys(working);
    let mut puts = Vec::new();
    for _ in 0..6 {
        puts.extend((0..48).map(|nth| nodes.put(1, &format!("k{nth:02}"))));
        nodes.one_turn(1);
    }
    let (mut halves, mut before) = (0, false);
    for _ in 0..40 {
        nodes.one_turn(1);
        let now = nodes.is_halfway(1);
        assert!(!(before && now), "the end of an entry is never seen");
        halves += usize::from(now);
        before = now;
    }
    assert!(halves >= 3, "{halves}");
    nodes.pass(100 * MS);
    assert!(puts.iter().all(|put| nodes.answers.get(put) == Some(&Answer::Done)));
}

/// Each turn used the last of its steps to begin another entry of ten puts, and readers waited
/// every other turn.
#[test]
fn an_entry_that_few_steps_are_left_for_waits() {
    let working = WorkingLimits { apply_steps: 8 * 25, ..WorkingLimits::default() };
    let mut nodes = Nodes::with_twenty_keys(working);
    nodes.hold_sync(1);
    let mut puts = Vec::new();
    for _ in 0..12 {
        puts.extend((0..10).map(|nth| nodes.put(1, &format!("k{nth:02}"))));
        nodes.one_turn(1);
    }
    nodes.freeze(1);
    nodes.release_sync(1);
    nodes.wake(1);
    let mut turns = 0;
    while puts.iter().any(|put| !nodes.answers.contains_key(put)) {
        let before = nodes.status_of(1).applied_index;
        nodes.one_turn(1);
        nodes.hear_answers();
        assert!(!nodes.is_halfway(1), "after {turns} turns");
        turns += usize::from(nodes.status_of(1).applied_index > before);
    }
    assert!((5..=12).contains(&turns), "two entries a turn: {turns}");
}

/// The revision of half an entry stood beside the hash of what came before it: no other server had
/// the two together.
#[test]
fn what_is_said_of_the_state_is_of_whole_entries() {
    let working = WorkingLimits { apply_steps: 8 * 16, ..WorkingLimits::default() };
    let mut nodes = Nodes::with_twenty_keys(working);
    let said = |nodes: &Nodes| {
        let status = nodes.status_of(1);
        (status.applied_index, status.revision, status.compact_revision, status.state_hash)
    };
    let mut before = said(&nodes);
    let compact = nodes.command(1, None, Command::Compact { revision: Revision(10) });
    let mut puts = vec![compact];
    puts.extend((0..48).map(|nth| nodes.put(1, &format!("k{nth:02}"))));
    let mut halves = 0;
    while puts.iter().any(|put| !nodes.answers.contains_key(put)) {
        nodes.one_turn(1);
        nodes.hear_answers();
        let now = said(&nodes);
        assert!(now == before || now.0 > before.0, "{now:?} after {before:?}");
        halves += usize::from(nodes.is_halfway(1));
        before = now;
    }
    assert!(halves >= 2, "{halves}");
    assert_eq!(before.1, Revision(21 + 48));
}

/// What is half applied is committed, and its end is near: a leader that stepped down just then
/// told whoever had asked for it that nobody knows what became of it.
#[test]
fn who_asked_for_a_delete_hears_of_its_end_though_its_leader_stepped_down_within_it() {
    let working = WorkingLimits { apply_steps: 4, ..WorkingLimits::default() };
    let mut nodes = Nodes::tuned(3, Tuning { working, ..Tuning::default() });
    nodes.pass(200 * MS);
    let old = nodes.leader().expect("elected");
    for number in 0..20 {
        let put = nodes.put(old, &format!("k{number:02}"));
        nodes.pass(10 * MS);
        assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
    }
    let delete = Command::DeleteRange { key: b"k", end: RangeEnd::Unbounded };
    let delete = nodes.command(old, None, delete);
    for _ in 0..20 {
        if !nodes.is_halfway(old) {
            (1..=3).for_each(|nth| nodes.one_turn(nth));
        }
    }
    assert!(nodes.is_halfway(old));
    nodes.freeze(old);
    nodes.pass_until(|nodes| nodes.leader().is_some());
    nodes.wake(old);
    for _ in 0..5 {
        if nodes.status_of(old).role == "leader" {
            (1..=3).for_each(|nth| nodes.one_turn(nth));
        }
    }
    assert_eq!(nodes.status_of(old).role, "follower");
    assert!(nodes.is_halfway(old), "it is not done yet");
    nodes.pass(500 * MS);
    assert_eq!(nodes.answers.get(&delete), Some(&Answer::Done));
}
