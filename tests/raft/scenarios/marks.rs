//! How much of what was acknowledged may vanish from the end of the log without anybody noticing.
//! The loss is one that no record can show: from some byte on, the file is zeros, as if nothing had
//! ever been written there.

use super::nodes::{Answer, Nodes, Tuning};
use crate::wal::sim_disk::Image;
use raftd::types::LogIndex;
use raftd::wal::{DamageExtent, OpenError};

const MS: u64 = 1_000_000;
const SEGMENT: &str = "log/00000000000000000001.seg";
const PAGE: usize = 4096;

fn put(nodes: &mut Nodes, nth: usize, key: &str) {
    let put = nodes.put(nth, key);
    nodes.pass_until(|nodes| nodes.answers.contains_key(&put));
    assert_eq!(nodes.answers.get(&put), Some(&Answer::Done), "{key}");
}

/// A cluster with room for many batches in one segment, who leads it, and who does not.
fn cluster() -> (Nodes, usize, usize) {
    let mut nodes = Nodes::tuned(3, Tuning { segment_bytes: 4 * 1024 * 1024, ..Tuning::default() });
    nodes.pass(200 * MS);
    let leader = nodes.leader().expect("elected");
    (nodes, leader, leader % 3 + 1)
}

/// Zeroes the segment from the page on in which `key` was put.
fn lose_from(image: &mut Image, key: &str) {
    let bytes = image.get_mut(SEGMENT).expect("the first segment");
    let at = bytes.windows(key.len()).position(|window| window == key.as_bytes());
    let page = at.expect("it was put") / PAGE * PAGE;
    bytes[page..].fill(0);
}

/// The power of `nth` goes, its log ends before `key`, it starts again: from where on it says that
/// something is lost, or `None` if it takes that for a torn batch.
fn lost_from(nodes: &mut Nodes, nth: usize, key: &str) -> Option<LogIndex> {
    nodes.crash(nth);
    let whole = nodes.image(nth);
    let mut image = whole.clone();
    lose_from(&mut image, key);
    nodes.replace_disk(nth, &image);
    let found = match nodes.boot(nth) {
        Ok(()) => {
            nodes.crash(nth);
            None
        }
        Err(OpenError::Damaged(damage)) => {
            assert_eq!(nodes.image(nth), image, "a refused directory was written to");
            let DamageExtent::From(index) = damage.extent else { panic!("{damage}") };
            Some(index)
        }
        Err(error) => panic!("{error}"),
    };
    nodes.replace_disk(nth, &whole);
    nodes.boot(nth).expect("its own disk is well");
    found
}

/// The end of the segment in use reads as zeros. However long that suffix was, and however long ago
/// it was acknowledged, it was taken for a torn batch: only the vote, a rotation and an end in good
/// order noted how long the log was.
#[test]
fn what_was_acknowledged_a_second_before_the_quiet_is_missed() {
    let (mut nodes, leader, victim) = cluster();
    let mut indexes = Vec::new();
    for nth in 0..8 {
        put(&mut nodes, leader, &format!("key-{nth}"));
        indexes.push(nodes.status_of(leader).last_index);
    }
    nodes.pass(1_100 * MS);
    for (nth, index) in indexes.iter().enumerate() {
        assert_eq!(lost_from(&mut nodes, victim, &format!("key-{nth}")), Some(*index));
    }
}

/// Nobody is ever quiet here. What is older than a second is missed all the same.
#[test]
fn what_was_acknowledged_a_second_ago_under_load_is_missed() {
    let (mut nodes, leader, victim) = cluster();
    let mut indexes = Vec::new();
    for nth in 0..150 {
        put(&mut nodes, leader, &format!("key-{nth:03}"));
        indexes.push(nodes.status_of(leader).last_index);
        nodes.pass(15 * MS);
    }
    for nth in [0, 40, 70] {
        let found = lost_from(&mut nodes, victim, &format!("key-{nth:03}"));
        assert_eq!(found, Some(indexes[nth]), "put {} ms before the end", (150 - nth) * 15);
    }
}

/// Noting that costs one job for each second in which something was written, and nothing in the
/// others.
#[test]
fn an_idle_server_writes_once_and_then_sleeps() {
    let (mut nodes, leader, follower) = cluster();
    put(&mut nodes, leader, "last");
    nodes.pass(1_500 * MS);
    let syncs = nodes.status_of(follower).syncs;
    for _ in 0..20 {
        nodes.pass(100 * MS);
        assert!(nodes.sleeps(follower), "it wants to be woken in the past");
    }
    assert_eq!(nodes.status_of(follower).syncs, syncs, "nothing was written");
    for nth in 0..150 {
        put(&mut nodes, leader, &format!("key-{nth:03}"));
        nodes.pass(5 * MS);
    }
    let more = nodes.status_of(follower).syncs - syncs;
    assert!((150..=153).contains(&more), "{more} jobs for 150 entries, one at a time");
}
