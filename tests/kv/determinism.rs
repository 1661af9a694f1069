//! Nodes that applied the same commands are the same, however each was seeded, grouped and tidied.

use raftd::kv::{CommandReply, Store};

use super::support::{self, Owned, Random};

fn some_commands(random: &mut Random, count: usize) -> Vec<Owned> {
    let mut commands = Vec::new();
    for _ in 0..count {
        let key = support::some_key(random, 400);
        commands.push(match random.below(20) {
            0..=12 => Owned::Put { key, value: vec![b'v'; random.size_below(100)] },
            13..=18 => Owned::Delete { key, end: vec![] },
            _ => Owned::Delete { end: support::some_key(random, 400), key },
        });
    }
    commands
}

fn apply_grouped(store: &mut Store, commands: &[Owned], group: usize) -> Vec<CommandReply> {
    commands.chunks(group).flat_map(|commands| support::apply(store, commands)).collect()
}

fn assert_same(left: &Store, right: &Store) {
    assert_eq!(left.state_hash(), right.state_hash());
    assert_eq!(left.revision(), right.revision());
    assert_eq!(left.compact_revision(), right.compact_revision());
    assert_eq!(left.history_bytes(), right.history_bytes());
    assert_eq!(left.compaction_due(), right.compaction_due());
    assert_eq!((left.keys(), left.live_bytes()), (right.keys(), right.live_bytes()));
    for revision in [left.revision().0, left.compact_revision().0] {
        let request = support::everything(revision);
        assert_eq!(support::read(left, &request), support::read(right, &request));
    }
}

#[test]
fn seeds_groupings_and_tidying_change_no_answer_hash_or_figure() {
    let mut random = Random(7);
    let mut eager = support::store_with(1, 50_000);
    let mut lazy = support::store_with(2, 50_000);
    let mut erratic = support::store_with(3, 50_000);
    let mut compactions = 0;
    for _ in 0..600 {
        let mut commands = some_commands(&mut random, 100);
        if let Some(revision) = eager.compaction_due() {
            commands.insert(random.size_below(100), Owned::Compact { revision });
            compactions += 1;
        }
        let replies = apply_grouped(&mut eager, &commands, 1000);
        assert_eq!(apply_grouped(&mut lazy, &commands, 7), replies);
        assert_eq!(apply_grouped(&mut erratic, &commands, 1), replies);
        eager.tidy(usize::MAX);
        erratic.tidy(random.size_below(50));
        assert_same(&eager, &lazy);
        assert_same(&eager, &erratic);
    }
    assert!(compactions > 20, "{compactions} compactions prove little");
    assert!(eager.footprint().uncompacted < lazy.footprint().uncompacted);
}

#[test]
fn an_automatic_compaction_leaves_about_half_of_the_bound() {
    let mut random = Random(11);
    let mut store = support::store_with(1, 100_000);
    let mut compactions = 0;
    for _ in 0..500 {
        support::apply(&mut store, &some_commands(&mut random, 20));
        let Some(revision) = store.compaction_due() else { continue };
        assert!(store.history_bytes() > 100_000);
        support::apply(&mut store, &[Owned::Compact { revision }]);
        assert!(store.history_bytes() <= 50_000, "{} bytes remain", store.history_bytes());
        assert!(store.history_bytes() > 15_000, "{} bytes remain", store.history_bytes());
        assert_eq!(store.compaction_due(), None);
        compactions += 1;
    }
    assert!(compactions > 5);
}
