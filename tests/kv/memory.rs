//! Memory is bounded by the live keys and the history, whatever was written before.

use raftd::types::Revision;

use super::support::{self, Owned, Random};

#[test]
fn a_million_overwrites_with_a_history_of_a_mebibyte_stay_bounded() {
    let history_bytes_max = 1 << 20;
    let mut store = support::store_with(1, history_bytes_max);
    let mut random = Random(5);
    let (mut versions_max, mut free_max) = (0, 0);
    for _ in 0..2_000 {
        let mut commands: Vec<Owned> = (0..500)
            .map(|_| Owned::Put {
                key: random.below(1000).to_string().into_bytes(),
                value: vec![b'v'; 64 + random.size_below(64)],
            })
            .collect();
        commands.extend(store.compaction_due().map(|revision| Owned::Compact { revision }));
        support::apply(&mut store, &commands);
        store.tidy(16);
        assert!(store.history_bytes() < history_bytes_max + 500 * 256);
        versions_max = versions_max.max(store.footprint().versions);
        free_max = free_max.max(store.footprint().free_record_bytes);
    }
    assert_eq!(store.revision(), Revision(1_000_001));
    // 1000 live, and what a history of 1.1 MiB, and as much again on its way out, holds at 176
    // bytes each.
    assert!(versions_max < 1000 + 2 * 6_800, "{versions_max} versions");
    // Half the history's bound may wait, and of chunks that are in use a quarter.
    assert!(free_max < (1 << 19) + versions_max * 168 / 4, "{free_max} bytes are free");
}

#[test]
fn keys_that_come_and_go_leave_nothing_behind() {
    let mut store = support::store_with(1, 1 << 16);
    for round in 0..300 {
        let key =
            |n: u64| format!("round {round} key {n} of a length that is not inline").into_bytes();
        let mut commands: Vec<Owned> =
            (0..100).map(|n| Owned::Put { key: key(n), value: vec![1; 20] }).collect();
        commands.push(Owned::Delete { key: vec![0], end: vec![0] });
        commands.extend(store.compaction_due().map(|revision| Owned::Compact { revision }));
        support::apply(&mut store, &commands);
        store.tidy(400);
    }
    assert_eq!((store.keys(), store.live_bytes()), (0, 0));
    assert!(store.history_bytes() < 1 << 17);
    assert!(store.footprint().versions < 2_000, "{:?}", store.footprint());
}

/// Each put freed one thing, a delete of all of them two, and each of them left two: under a load
/// that left no turn idle, what waited to be freed was more after each round.
#[test]
fn keys_that_come_one_by_one_and_go_together_leave_nothing_behind_under_load() {
    let mut store = support::store_with(1, 1 << 16);
    let mut most = 0;
    for round in 0..300 {
        let key = |n: u64| format!("round {round} key {n}").into_bytes();
        let mut commands: Vec<Owned> =
            (0..1_000).map(|n| Owned::Put { key: key(n), value: vec![1; 20] }).collect();
        commands.push(Owned::Delete { key: vec![0], end: vec![0] });
        commands.extend(store.compaction_due().map(|revision| Owned::Compact { revision }));
        support::apply(&mut store, &commands);
        store.tidy(16);
        most = most.max(store.footprint().versions);
    }
    assert!(most < 4 * 2_000, "{most} versions, of rounds that make two thousand each");
}
