//! Ranges in slices, while the store changes between two of them.

use std::ops::ControlFlow;

use raftd::kv::{
    Order, RangeEnd, RangeRequest, RangeSummary, RangeWalk, RevisionSpan, Selection, SliceLimits,
    Sliced, SortBy, Store,
};
use raftd::limits::SORTED_KEYS_MAX;
use raftd::types::Revision;

use super::support::{self, Owned, Random, Row, everything};

const KEYS: u64 = 60;

fn some_selection(random: &mut Random, newest: u64) -> Selection {
    let by = [SortBy::Key, SortBy::Version, SortBy::Create, SortBy::Mod, SortBy::Value];
    let order = [Order::Unsorted, Order::Ascend, Order::Descend];
    let mut span = || match random.below(4) {
        0 => RevisionSpan { min: Revision(random.below(newest)), max: Revision(0) },
        1 => RevisionSpan { min: Revision(0), max: Revision(random.below(newest)) },
        _ => RevisionSpan::default(),
    };
    let (mod_revision, create_revision) = (span(), span());
    let by = if random.one_in(2) { SortBy::Key } else { by[random.size_below(5)] };
    Selection { by, order: order[random.size_below(3)], mod_revision, create_revision }
}

fn row_of(found: &raftd::kv::KeyValueRef<'_>) -> Row {
    let (create, modified) = (found.create_revision.0, found.mod_revision.0);
    (found.key.to_vec(), found.value.to_vec(), create, modified, found.version)
}

/// What the next slice brings.
fn slice(
    store: &Store,
    request: &RangeRequest<'_>,
    walk: &mut RangeWalk,
    mut left: SliceLimits,
) -> (Vec<Row>, Sliced) {
    let mut rows = Vec::new();
    let bytes_max = left.bytes;
    let sliced = store.walk(request, walk, &mut left, &mut |found| {
        rows.push(row_of(&found));
        ControlFlow::Continue(())
    });
    let bytes: usize = rows.iter().map(|row| row.0.len() + row.1.len()).sum();
    assert!(rows.len() <= 1 || bytes <= bytes_max, "{bytes} in a slice of {bytes_max}");
    (rows, sliced)
}

/// Changes, and all the forgetting that they allow.
fn change(store: &mut Store, random: &mut Random) {
    let key = support::some_key(random, KEYS);
    let value = vec![b'v'; random.size_below(40)];
    let command = match random.below(10) {
        0..=5 => Owned::Put { key, value },
        6 | 7 => Owned::Delete { key, end: vec![] },
        8 => Owned::Delete { end: support::some_key(random, KEYS), key },
        _ => Owned::Compact { revision: Revision(store.revision().0 - random.below(5).min(1)) },
    };
    support::apply(store, &[command]);
    store.tidy(usize::MAX);
}

/// The range as a whole, the moment it is asked, is the model: what comes in slices is the same,
/// whatever is put, deleted, compacted and freed meanwhile.
#[test]
fn a_range_in_slices_is_the_range_as_it_was_when_it_began() {
    let (mut slices, mut behind, mut sorted, mut many) = (0, 0, 0, 0);
    for seed in 0..400 {
        let mut random = Random(seed);
        let mut store = support::store_with(seed, 1 << 30);
        for _ in 0..random.below(200) {
            change(&mut store, &mut random);
        }
        let key = if random.one_in(2) { vec![0] } else { support::some_key(&mut random, KEYS) };
        let end =
            if random.one_in(2) { vec![0] } else { support::some_end(&mut random, &key, KEYS) };
        let oldest = store.compact_revision().0.max(1);
        let past = oldest + random.below(store.revision().0 - oldest + 1);
        let request = RangeRequest {
            key: &key,
            end: RangeEnd::from_bytes(&end),
            limit: if random.one_in(2) { 0 } else { random.below(20) },
            revision: Revision(if random.one_in(2) { 0 } else { past }),
            keys_only: random.one_in(4),
            count_only: random.one_in(6),
            selection: some_selection(&mut random, store.revision().0 + 1),
        };
        let expected = support::read(&store, &request).unwrap();
        let mut walk = store.begin_walk(&request).unwrap();
        store.pin_walk(&walk);
        let left = SliceLimits { steps: 1 + random.size_below(30), bytes: random.size_below(300) };
        let mut rows = Vec::new();
        loop {
            let (more, sliced) = slice(&store, &request, &mut walk, left);
            rows.extend(more);
            slices += 1;
            if sliced == Sliced::Done {
                break;
            }
            for _ in 0..random.below(8) {
                change(&mut store, &mut random);
            }
            behind += u64::from(walk.at() < store.compact_revision());
        }
        sorted += u64::from(request.selection.sorts());
        many += u64::from(rows.len() > 10);
        let found: (Vec<Row>, RangeSummary) = (rows, walk.summary(&request));
        assert_eq!(found, expected, "seed {seed}: {request:?} in {left:?}");
        store.unpin_walk(&walk);
        store.tidy(usize::MAX);
        assert_eq!(store.kept_for_walks(), None);
        let compacted = store.compact_revision();
        assert!(walk.at() >= compacted || support::read(&store, &everything(walk.at().0)).is_err());
    }
    assert!(slices > 5_000 && behind > 500, "{slices} slices, {behind} behind a compaction");
    assert!(sorted > 100 && many > 40, "{sorted} sorted, {many} of many keys");
}

/// Gives up all there is, and uses what is freed for something else.
fn give_up_everything(store: &mut Store) {
    support::apply(store, &[support::delete("\0", "\0"), support::put("last", "xxx")]);
    let newest = store.revision().0;
    support::apply(store, &[support::compact(newest)]);
    store.tidy(usize::MAX);
    let others = (0..60).map(|at| support::put(&format!("o{at:02}"), "xxx"));
    support::apply(store, &others.collect::<Vec<_>>());
}

/// Three ranges, two of them of the same moment, one of which is left in the middle. What each of
/// the others is still to read is there until it has been read, however far compaction is.
#[test]
fn compaction_never_overtakes_a_range_that_is_being_read() {
    let mut store = support::store_with(1, 1 << 30);
    let names: Vec<String> = (0..20).map(|at| format!("k{at:02}")).collect();
    let put_all = |store: &mut Store, value: &str| {
        let puts: Vec<Owned> = names.iter().map(|name| support::put(name, value)).collect();
        support::apply(store, &puts);
    };
    let begin = |store: &mut Store| {
        let moment = support::read(store, &everything(0)).unwrap().0;
        let mut walk = store.begin_walk(&everything(0)).unwrap();
        store.pin_walk(&walk);
        let few = SliceLimits { steps: 30, bytes: usize::MAX };
        let (rows, sliced) = slice(store, &everything(0), &mut walk, few);
        assert!(sliced == Sliced::More && !rows.is_empty(), "it is in the middle");
        (walk, moment, rows)
    };
    put_all(&mut store, "one");
    let (left, ..) = begin(&mut store);
    let early = begin(&mut store);
    put_all(&mut store, "two");
    let late = begin(&mut store);
    give_up_everything(&mut store);
    store.unpin_walk(&left);
    for (mut walk, moment, mut rows) in [early, late] {
        give_up_everything(&mut store);
        assert!(walk.at() < store.compact_revision());
        let rest = SliceLimits { steps: usize::MAX, bytes: usize::MAX };
        rows.extend(slice(&store, &everything(0), &mut walk, rest).0);
        assert_eq!(rows, moment);
        store.unpin_walk(&walk);
    }
    assert_eq!(store.kept_for_walks(), None);
}

/// A key that was put for ever since is not followed to the end in one slice.
#[test]
fn a_long_history_of_one_key_takes_many_slices() {
    let mut store = support::store_with(1, 1 << 30);
    let put = |key: &str| Owned::Put { key: key.into(), value: b"old".to_vec() };
    support::apply(&mut store, &[put("a"), put("b"), put("c")]);
    let request = everything(4);
    let mut walk = store.begin_walk(&request).unwrap();
    store.pin_walk(&walk);
    for _ in 0..1000 {
        support::apply(&mut store, &[put("b")]);
    }
    let (mut rows, mut slices) = (Vec::new(), 0);
    let left = SliceLimits { steps: 30, bytes: 1000 };
    loop {
        let (more, sliced) = slice(&store, &request, &mut walk, left);
        rows.extend(more);
        slices += 1;
        if sliced == Sliced::Done {
            break;
        }
    }
    let keys: Vec<_> = rows.iter().map(|row| (&row.0[..], row.3)).collect();
    assert_eq!(keys, [(&b"a"[..], 2), (b"b", 3), (b"c", 4)]);
    assert!(slices > 1000 / 30, "{slices}");
}

/// A key was a few steps, whatever there was to copy for it or to compare: so a turn copied as much
/// as there was room for, and compared as many megabytes with each other as it had steps.
#[test]
fn large_values_take_more_slices_to_copy_and_to_compare() {
    const VALUE_BYTES: usize = 64 * 1024;
    let mut store = support::store_with(1, 1 << 30);
    let value = "v".repeat(VALUE_BYTES);
    let puts = (0..64).map(|at| support::put(&format!("k{at:02}"), &value));
    support::apply(&mut store, &puts.collect::<Vec<_>>());
    let left = SliceLimits { steps: 4096, bytes: usize::MAX };
    for (by, least) in [(SortBy::Key, 4), (SortBy::Value, 20)] {
        let selection = Selection { by, ..Selection::ALL };
        let request = RangeRequest { selection, ..everything(0) };
        let mut walk = store.begin_walk(&request).unwrap();
        let mut slices = 0;
        loop {
            let (rows, sliced) = slice(&store, &request, &mut walk, left);
            assert!(rows.len() * VALUE_BYTES <= 4096 * 256, "{} keys in one slice", rows.len());
            slices += 1;
            if sliced == Sliced::Done {
                break;
            }
        }
        assert!(slices >= least, "{slices} slices by {by:?}");
    }
}

#[test]
fn what_a_walk_holds_back_is_counted_and_freed_after_it() {
    let mut store = support::store_with(1, 1 << 30);
    let put = |at: u64| Owned::Put { key: format!("k{at}").into_bytes(), value: vec![b'v'; 100] };
    support::apply(&mut store, &(0..100).map(put).collect::<Vec<_>>());
    let walk = store.begin_walk(&everything(0)).unwrap();
    store.pin_walk(&walk);
    assert_eq!(store.kept_for_walks(), Some((walk.at(), 0)));
    support::apply(&mut store, &(0..100).map(put).collect::<Vec<_>>());
    let revision = store.revision();
    support::apply(&mut store, &[Owned::Compact { revision }]);
    store.tidy(usize::MAX);
    let uncompacted = store.footprint().uncompacted;
    let (_, bytes) = store.kept_for_walks().unwrap();
    assert_eq!(uncompacted, 100);
    assert!(bytes > 99 * 100 && bytes < 100 * 300, "{bytes}");
    store.unpin_walk(&walk);
    store.tidy(usize::MAX);
    assert_eq!(store.footprint().uncompacted, 0);
    // All that was compacted is freed: nobody holds anything back. (Seed 525.)
    let walk = store.begin_walk(&everything(0)).unwrap();
    store.pin_walk(&walk);
    assert_eq!(store.kept_for_walks(), Some((walk.at(), 0)));
    store.unpin_walk(&walk);
}

#[test]
fn a_sorted_range_keeps_no_more_keys_than_its_answer_has() {
    let mut store = support::store_with(1, 1 << 30);
    let put = |at: usize| Owned::Put { key: format!("k{at:06}").into_bytes(), value: vec![] };
    support::apply(&mut store, &(0..SORTED_KEYS_MAX + 10).map(put).collect::<Vec<_>>());
    let selection = Selection { by: SortBy::Mod, order: Order::Descend, ..Selection::ALL };
    for (limit, expected) in [(0, SORTED_KEYS_MAX), (3, 3)] {
        let request = RangeRequest { limit, selection, ..everything(0) };
        let mut walk = store.begin_walk(&request).unwrap();
        let mut all = SliceLimits { steps: usize::MAX, bytes: usize::MAX };
        let mut keys = 0;
        let sliced = store.walk(&request, &mut walk, &mut all, &mut |_| {
            keys += 1;
            ControlFlow::Continue(())
        });
        assert_eq!((sliced, keys), (Sliced::Done, expected));
        assert!(walk.bytes() <= 16 * expected.max(4), "{} bytes", walk.bytes());
        assert!(walk.summary(&request).more);
    }
}
