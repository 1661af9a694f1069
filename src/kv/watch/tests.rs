//! How much of its queue and of its index a turn looks at, which nothing from outside shows.

use std::collections::BTreeMap;

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

/// A watch of all keys.
const ALL: u32 = u32::MAX;

/// Notes what comes to whom: the revision, and whether it is a delete.
#[derive(Default)]
struct Notes(BTreeMap<u32, Vec<(Revision, bool)>>);

impl Outlet<u32> for Notes {
    fn room(&mut self, _to: u32) -> Room {
        Room::Open
    }

    fn write(&mut self, to: u32, batch: &Batch<'_, '_>) {
        let events = batch.events.iter().map(|event| (event.revision(), event.is_delete()));
        self.0.entry(to).or_default().extend(events);
        assert!(!batch.more || to == ALL);
    }

    fn end(&mut self, to: u32, why: WatchEnd) {
        panic!("{to} ends: {why:?}");
    }
}

/// Watches a key from now on.
fn watch_key(watches: &mut Watches<u32>, store: &Store, number: u32, to: u32) -> WatchId {
    let (key, end, start) = (&number.to_be_bytes()[..], RangeEnd::Key, Revision(0));
    let (prev_kv, no_put, no_delete) = (false, false, false);
    watches.open(store, &WatchSpec { key, end, start, prev_kv, no_put, no_delete }, to)
}

/// A store with so many keys.
fn filled(count: u32) -> Store {
    let mut store = Store::new(StoreOptions { index_seed: 1, history_bytes_max: 1 << 30 });
    for number in 0..count {
        let key = number.to_be_bytes();
        store.put(store.index.hash(&key), &key, b"v");
    }
    store
}

/// So many keys, each with a watch of its number.
fn each_watched(count: u32) -> (Store, Watches<u32>, Vec<WatchId>) {
    let (store, mut watches) = (filled(count), Watches::new(1, 1024));
    let ids = (0..count).map(|it| watch_key(&mut watches, &store, it, it)).collect();
    (store, watches, ids)
}

/// Who finds no room for a large revision leaves the index, and of a delete of ten thousand watched
/// keys all did in one turn, of 15 to 30 ms.
#[test]
fn a_large_revision_makes_some_fall_behind_in_each_turn() {
    let (mut store, mut watches, _) = each_watched(1000);
    delete_all(&mut store);
    let (mut before, mut turns) = (watches.synced, 0);
    while watches.synced > 0 {
        watches.advance(&store, &mut Nobody);
        assert!(before - watches.synced <= MATCHES_PER_TURN / FALL_STEPS, "in turn {turns}");
        (before, turns) = (watches.synced, turns + 1);
    }
    assert!(turns > 2, "{turns} turns");
}

/// Each of those watches read the whole revision for the one change that was for it: with ten
/// thousand of them 12,000 turns, of 7 to 8 s together.
#[test]
fn a_large_revision_is_looked_at_once_however_many_watch_its_keys() {
    let (mut store, mut watches, _) = each_watched(3000);
    delete_all(&mut store);
    let (mut notes, mut turns) = (Notes::default(), 0);
    while watches.has_work(&store) {
        watches.advance(&store, &mut notes);
        turns += 1;
    }
    assert!(turns <= 2, "{turns} turns");
    assert_eq!(notes.0.len(), 3000);
    let once = [(store.revision, true)];
    assert!(notes.0.values().all(|heard| *heard == once), "each hears of its key");
}

/// There was no place left for the others, and each of them looked at the whole revision.
#[test]
fn who_watches_everything_leaves_places_to_others() {
    let (mut store, mut watches) = (filled(70_000), Watches::new(1, 1024));
    let (key, end, start) = (&[0][..], RangeEnd::Unbounded, Revision(0));
    let (prev_kv, no_put, no_delete) = (false, false, false);
    watches.open(&store, &WatchSpec { key, end, start, prev_kv, no_put, no_delete }, ALL);
    (69_900..70_000).for_each(|it| _ = watch_key(&mut watches, &store, it, it));
    delete_all(&mut store);
    let (mut notes, mut turns) = (Notes::default(), 0);
    while watches.has_work(&store) {
        watches.advance(&store, &mut notes);
        turns += 1;
    }
    assert!(turns < 60, "{turns} turns");
    assert_eq!(notes.0.remove(&ALL).map(|heard| heard.len()), Some(70_000));
    assert_eq!(notes.0.len(), 100);
    assert!(notes.0.values().all(|heard| *heard == [(store.revision, true)]));
}

#[test]
fn whatever_befalls_those_who_hear_of_a_large_revision_each_does_once() {
    let (mut store, mut watches, ids) = each_watched(6000);
    delete_all(&mut store);
    let (mut notes, deleted) = (Notes::default(), store.revision);
    watches.advance(&store, &mut notes);
    assert!(notes.0.is_empty() && watches.fed.is_within(), "the turn looked at a part of it");
    // Some end, and others take their places; one key is put again, and all that is compacted.
    ids[..100].iter().for_each(|id| watches.close(*id));
    for number in 0..100 {
        watch_key(&mut watches, &store, number, 10_000 + number);
    }
    for number in [7_u32, 5000] {
        let key = number.to_be_bytes();
        store.put(store.index.hash(&key), &key, b"again");
    }
    store.hold_changes(watches.first_unheard());
    store.compact(store.revision).unwrap();
    store.tidy(100_000);
    watches.advance(&store, &mut notes);
    let some = notes.0.len();
    assert!((1..5900).contains(&some), "the turn handed out a part: {some}");
    assert_eq!(watches.heard(&store, ids[200]), Some(deleted), "it has got all of it");
    assert_eq!(watches.heard(&store, ids[5999]), Some(Revision(deleted.0 - 1)), "it has not");
    assert!(!watches.is_synced(&store, ids[200]));
    // Another store, in which the order within a revision may be another.
    watches.on_store_replaced(&mut notes);
    while watches.has_work(&store) {
        store.hold_changes(watches.first_unheard());
        watches.advance(&store, &mut notes);
    }
    let heard = |to| notes.0.get(&to).map_or(&[][..], |heard| heard);
    let put = |nth| (Revision(deleted.0 + nth), false);
    assert!((0..100).all(|it| heard(it).is_empty()), "they had ended");
    assert_eq!(heard(10_007), [put(1)]);
    assert!((0..100).all(|it| it == 7 || heard(10_000 + it).is_empty()), "it was before them");
    assert_eq!(heard(5000), [(deleted, true), put(2)]);
    assert!((100..6000).all(|it| it == 5000 || heard(it) == [(deleted, true)]), "once each");
}

/// Reads a hundred batches between two turns.
#[derive(Default)]
struct Slow {
    notes: Notes,
    room: usize,
    parked: Vec<u32>,
}

impl Outlet<u32> for Slow {
    fn room(&mut self, to: u32) -> Room {
        if self.room > 0 {
            return Room::Open;
        }
        self.parked.push(to);
        Room::Parked
    }

    fn write(&mut self, to: u32, batch: &Batch<'_, '_>) {
        self.room -= 1;
        self.notes.write(to, batch);
    }

    fn end(&mut self, to: u32, why: WatchEnd) {
        self.notes.end(to, why);
    }
}

/// All of one connection that has no room for so many events: each of them looked at the whole
/// revision, again.
#[test]
fn who_finds_no_room_for_a_large_revision_does_not_look_at_all_of_it_later() {
    let (mut store, mut watches, ids) = each_watched(3000);
    delete_all(&mut store);
    let (mut slow, mut turns, deleted) = (Slow::default(), 0, store.revision);
    store.put(store.index.hash(b"other"), b"other", b"");
    while slow.notes.0.len() < 3000 {
        slow.room = 100;
        for to in std::mem::take(&mut slow.parked) {
            watches.unpark(ids[usize::try_from(to).unwrap()]);
        }
        store.hold_changes(watches.first_unheard());
        watches.advance(&store, &mut slow);
        turns += 1;
        assert!(turns <= 40, "thirty times a hundred, and {turns} turns");
    }
    assert!(slow.notes.0.values().all(|heard| *heard == [(deleted, true)]), "once each");
    assert_eq!(watches.known.take(ids[0]), None);
    // It is compacted before some have read it: they hear that, whatever was found for them.
    let (mut store, mut watches, ids) = each_watched(3000);
    delete_all(&mut store);
    watches.advance(&store, &mut slow);
    store.hold_changes(None);
    store.put(store.index.hash(b"other"), b"other", b"");
    store.compact(store.revision).unwrap();
    let mut ears = Ended::default();
    ids.iter().for_each(|id| watches.unpark(*id));
    while watches.has_work(&store) {
        watches.advance(&store, &mut ears);
    }
    assert!(ears.0 > 2500 && watches.len() + ears.0 == 3000);
}

/// Counts those who end.
#[derive(Default)]
struct Ended(usize);

impl Outlet<u32> for Ended {
    fn room(&mut self, _to: u32) -> Room {
        Room::Open
    }

    fn write(&mut self, to: u32, _batch: &Batch<'_, '_>) {
        panic!("{to} hears of what is compacted");
    }

    fn end(&mut self, _to: u32, why: WatchEnd) {
        assert!(matches!(why, WatchEnd::Compacted { .. }));
        self.0 += 1;
    }
}

/// All stood in one line and read a slice in turn, so each got on only as fast as all of them
/// together: where more happened meanwhile than they read, none of a thousand ever got there.
#[test]
fn those_who_are_behind_get_there_though_more_happens_than_all_of_them_read_in_turns() {
    let (mut store, mut watches) = (filled(5_000), Watches::new(1, 1024));
    let start = Revision(1);
    let ids: Vec<WatchId> = (0..1_000).map(|_| open_from(&mut watches, &store, start)).collect();
    let (mut turns, mut synced) = (0, 0);
    while synced < ids.len() {
        for _ in 0..8 {
            store.put(store.index.hash(b"other"), b"other", b"");
        }
        store.hold_changes(watches.first_unheard());
        watches.advance(&store, &mut Everybody);
        synced = ids.iter().filter(|id| watches.is_synced(&store, **id)).count();
        turns += 1;
        assert!(turns < 2_000, "{synced} of a thousand have got there");
    }
}

/// Watches a key that nobody changes.
fn open_from(watches: &mut Watches<u32>, store: &Store, start: Revision) -> WatchId {
    let (key, end) = (&b"quiet"[..], RangeEnd::Key);
    let (prev_kv, no_put, no_delete) = (false, false, false);
    watches.open(store, &WatchSpec { key, end, start, prev_kv, no_put, no_delete }, 1)
}

/// It read a long history in which nothing was for it, and was said nothing of that: its client
/// took it for dead, and began at the beginning elsewhere.
#[test]
fn of_one_that_reads_a_long_history_can_be_said_how_far_it_is() {
    let (store, mut watches) = (filled(100_000), Watches::new(1, 1024));
    let id = open_from(&mut watches, &store, Revision(1));
    let mut before = watches.bookmark(&store, id).expect("nothing is owed to it");
    assert_eq!(before, Revision(0));
    while !watches.is_synced(&store, id) {
        watches.advance(&store, &mut Everybody);
        let now = watches.bookmark(&store, id).expect("nothing is owed to it");
        assert!(before < now && now <= store.revision, "{now} behind {before}");
        before = now;
    }
    assert_eq!(before, store.revision);
}

/// Thousands fell behind in one turn, and each left the index in it.
#[test]
fn whoever_falls_behind_leaves_the_index_when_it_waits_and_not_before() {
    let (mut store, mut watches) = (filled(1), Watches::new(1, 1024));
    let ids: Vec<WatchId> = (0..3_000).map(|to| watch_key(&mut watches, &store, 0, to)).collect();
    let (key, mut slow) = (0_u32.to_be_bytes(), Slow { room: 100, ..Slow::default() });
    store.put(store.index.hash(&key), &key, b"v");
    watches.advance(&store, &mut slow);
    assert_eq!(slow.notes.0.len(), 100);
    let left = 3_000 - watches.singles.len();
    assert!((1..=STEPS_PER_TURN / FALL_STEPS).contains(&left), "{left} have left in a turn");
    let mut turns = 1;
    while slow.notes.0.len() < 3_000 {
        slow.room = 100;
        for to in std::mem::take(&mut slow.parked) {
            watches.unpark(ids[usize::try_from(to).unwrap()]);
        }
        watches.advance(&store, &mut slow);
        turns += 1;
        assert!(turns < 100, "{} have heard", slow.notes.0.len());
    }
    assert!(slow.notes.0.values().all(|heard| heard.len() == 1), "once each");
    assert_eq!((watches.synced, watches.singles.len()), (3_000, 3_000));
}

/// A place that was used four thousand million times stopped the server.
#[test]
fn a_place_may_be_used_as_often_as_anybody_likes() {
    let (store, mut watches) = (written(), Watches::new(1, 1024));
    let first = open_behind(&mut watches, &store);
    watches.slots[0].used = u32::MAX;
    watches.close(WatchId { used: u32::MAX, ..first });
    let next = open_behind(&mut watches, &store);
    assert_eq!((next.slot, next.used), (0, 0));
}
