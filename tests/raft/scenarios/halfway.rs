//! The delete of a range that takes many turns: who comes in between waits, and a crash leaves
//! nothing of its half.

use super::nodes::{Answer, Nodes};
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
