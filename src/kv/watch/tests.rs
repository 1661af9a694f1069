//! How much of its queue and of its index a turn looks at, which nothing from outside shows.

use super::*;
use crate::kv::{DeleteWith, StoreOptions};

struct Nobody;

impl Outlet<u32> for Nobody {
    fn room(&mut self, _to: u32) -> Room {
        Room::Full
    }

    fn write(&mut self, _to: u32, _batch: &Batch<'_, '_>) {}

    fn end(&mut self, _to: u32, _why: WatchEnd) {}
}

/// Reads everything, at once.
struct Everybody;

impl Outlet<u32> for Everybody {
    fn room(&mut self, _to: u32) -> Room {
        Room::Open
    }

    fn write(&mut self, _to: u32, _batch: &Batch<'_, '_>) {}

    fn end(&mut self, _to: u32, _why: WatchEnd) {}
}

/// Deletes all keys in one revision.
fn delete_all(store: &mut Store) {
    let (hash, key, end) = (store.index.hash(&[0]), &[0][..], RangeEnd::Unbounded);
    let (delete, mut steps) = (DeleteWith { key, end, prev_kv: false }, usize::MAX);
    let done = store.delete_slice(hash, &delete, &mut steps, None);
    assert!(matches!(done, Some(Ok(deleted)) if deleted > 0));
}

fn written() -> Store {
    let mut store = Store::new(StoreOptions { index_seed: 1, history_bytes_max: 1 << 30 });
    store.put(store.index.hash(b"key"), b"key", b"v");
    store
}

/// Opens a watch that has to read history.
fn open_behind(watches: &mut Watches<u32>, store: &Store) -> WatchId {
    let (key, end, start) = (&b"key"[..], RangeEnd::Key, Revision(1));
    let (prev_kv, no_put, no_delete) = (false, false, false);
    let spec = WatchSpec { key, end, start, prev_kv, no_put, no_delete };
    watches.open(store, &spec, 1)
}

/// The queue kept the names of watches that were closed before their turn came, and it never
/// came while no other one was open: each pair of requests took memory for ever.
#[test]
fn watches_that_are_closed_while_they_are_behind_leave_nothing_in_the_queue() {
    let (store, mut watches) = (written(), Watches::new(1, 1024));
    for _ in 0..10_000 {
        let id = open_behind(&mut watches, &store);
        watches.close(id);
        assert!(watches.behind.is_empty());
    }
    assert!(!watches.has_work(&store));
    // Nor does one grow the queue that is behind, and finds no room.
    open_behind(&mut watches, &store);
    for _ in 0..10_000 {
        let id = open_behind(&mut watches, &store);
        watches.close(id);
        assert!(watches.behind.len() <= 2);
        watches.advance(&store, &mut Nobody);
    }
}

/// They were passed over for nothing, all in one turn.
#[test]
fn a_turn_passes_over_so_many_closed_watches_and_not_more() {
    let (store, mut watches) = (written(), Watches::new(1, 1024));
    let ids: Vec<WatchId> =
        (0..5 * STEPS_PER_TURN).map(|_| open_behind(&mut watches, &store)).collect();
    ids[..2 * STEPS_PER_TURN].iter().for_each(|id| watches.close(*id));
    let mut before = watches.behind.len();
    assert_eq!(before, ids.len());
    while !watches.behind.is_empty() {
        watches.advance(&store, &mut Everybody);
        let passed = before - watches.behind.len();
        assert!((1..=STEPS_PER_TURN).contains(&passed), "{passed}");
        before = watches.behind.len();
    }
    assert_eq!(watches.len(), 3 * STEPS_PER_TURN);
}

/// Who waits for a large revision leaves the index, and of a delete of ten thousand watched
/// keys all did in one turn, of 15 to 30 ms.
#[test]
fn a_large_revision_makes_some_fall_behind_in_each_turn() {
    let mut store = Store::new(StoreOptions { index_seed: 1, history_bytes_max: 1 << 30 });
    let mut watches = Watches::new(1, 1024);
    for number in 0..1000_u32 {
        let key = number.to_be_bytes();
        store.put(store.index.hash(&key), &key, b"v");
    }
    for number in 0..1000 {
        let (key, end, start) = (&u32::to_be_bytes(number)[..], RangeEnd::Key, Revision(0));
        let (prev_kv, no_put, no_delete) = (false, false, false);
        let spec = WatchSpec { key, end, start, prev_kv, no_put, no_delete };
        watches.open(&store, &spec, number);
    }
    delete_all(&mut store);
    let (mut before, mut turns) = (watches.synced, 0);
    while watches.synced > 0 {
        watches.advance(&store, &mut Nobody);
        assert!(before - watches.synced <= STEPS_PER_TURN / FALL_STEPS, "in turn {turns}");
        (before, turns) = (watches.synced, turns + 1);
    }
    assert!(turns > 2, "{turns} turns");
}
