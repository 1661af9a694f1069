//! Bounds that a leader keeps: how old the history gets, and what the keys may take.

use super::nodes::{Answer, Nodes, Tuning};
use raftd::wire::error::Error;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// Puts a key and waits for the answer.
fn put(nodes: &mut Nodes, key: &str) -> Option<Answer> {
    let leader = nodes.leader().expect("somebody leads");
    let put = nodes.put(leader, key);
    nodes.pass(100 * MS);
    nodes.answers.remove(&put)
}

fn compacted(nodes: &Nodes, nth: usize) -> u64 {
    nodes.status_of(nth).compact_revision.0
}

fn aged(count: usize) -> Nodes {
    let tuning = Tuning { history_age_ns: Some(4 * SECOND), ..Tuning::default() };
    let mut nodes = Nodes::tuned(count, tuning);
    nodes.pass(300 * MS);
    nodes
}

#[test]
fn history_goes_when_it_is_old_and_not_before() {
    let mut nodes = aged(3);
    let first = put(&mut nodes, "k");
    assert_eq!(first, Some(Answer::Done));
    put(&mut nodes, "k");
    let newest = nodes.status_of(1).revision.0;
    let leader = nodes.leader().expect("elected");
    nodes.pass(2_300 * MS);
    assert_eq!(compacted(&nodes, leader), 0, "nothing is old");
    nodes.pass(1_400 * MS);
    assert!(compacted(&nodes, leader) < newest, "four seconds have not passed");
    // A sixteenth of that until the revision was noted, and the round.
    nodes.pass(700 * MS);
    for nth in 1..=3 {
        assert_eq!(compacted(&nodes, nth), newest, "node {nth}");
    }
    // The change that is left, which can still be heard of.
    assert_eq!(nodes.status_of(leader).history_bytes, 24);
}

/// Nothing else wakes it up.
#[test]
fn a_server_alone_wakes_up_to_give_up_its_history_and_then_sleeps() {
    let mut nodes = aged(1);
    put(&mut nodes, "k");
    put(&mut nodes, "k");
    let newest = nodes.status_of(1).revision.0;
    nodes.pass(1_500 * MS);
    assert!(nodes.wakes_within(1, 3 * SECOND), "the history gets old");
    nodes.pass(3 * SECOND);
    assert_eq!(compacted(&nodes, 1), newest);
    nodes.pass(5 * SECOND);
    assert!(!nodes.wakes_within(1, 60 * SECOND), "there is nothing to give up any more");
}

/// Who takes over has seen how old the history is: it does not count anew.
#[test]
fn a_new_leader_knows_how_old_the_history_is() {
    let mut nodes = aged(3);
    put(&mut nodes, "k");
    put(&mut nodes, "k");
    let newest = nodes.status_of(1).revision.0;
    nodes.pass(2 * SECOND);
    let first = nodes.leader().expect("elected");
    nodes.crash(first);
    nodes.pass(2_600 * MS);
    let second = nodes.leader().expect("another one");
    assert_ne!(second, first);
    assert_eq!(compacted(&nodes, second), newest);
}

/// Three keys of 259 bytes fit, and the one with which they are too many.
#[test]
fn a_full_store_takes_nothing_that_grows_it_until_it_shrinks() {
    let tuning = Tuning { quota_bytes: Some(3 * 259 + 1), ..Tuning::default() };
    let mut nodes = Nodes::tuned(3, tuning);
    for key in ["k1", "k2", "k3", "k4"] {
        assert_eq!(put(&mut nodes, key), Some(Answer::Done), "{key}");
    }
    let full = Some(Answer::Failed(Error::OverQuota { bytes: 4 * 259, max: 3 * 259 + 1 }));
    assert_eq!(put(&mut nodes, "k5"), full);
    assert_eq!(put(&mut nodes, "k1"), Some(Answer::Done), "it gets no larger");
    assert!((1..=3).all(|nth| nodes.status_of(nth).out_of_space), "whoever asks is told");
    let leader = nodes.leader().expect("elected");
    nodes.crash(leader);
    nodes.pass(3 * SECOND);
    assert_eq!(put(&mut nodes, "k5"), full, "another leader refuses it as well");
}
