//! What a watch hears, batch by batch, where the history makes it hard: a revision of many slices,
//! a first revision that is still to come, a store that another one replaces.

use raftd::kv::{
    Batch, Command, DeleteWith, Outlet, PutWith, RangeEnd, Request, Room, Store, Txn, TxnParts,
    WatchEnd, WatchId, WatchSpec, Watches,
};
use raftd::types::Revision;

use super::checkpoint::reloaded;
use super::support::{Owned, apply, compact, put, store_with};
use super::transactions::do_call;

/// A batch: up to where nothing is missing, whether the revision behind goes on, and its keys.
type Said = (u64, bool, Vec<String>);

/// Takes everything of one watch, and keeps it.
#[derive(Default)]
struct Ear {
    said: Vec<Said>,
    first: Option<u64>,
    ends: Vec<WatchEnd>,
}

impl Outlet<()> for Ear {
    fn room(&mut self, (): ()) -> Room {
        Room::Open
    }

    fn write(&mut self, (): (), batch: &Batch<'_, '_>) {
        let name = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
        let keys = batch.events.iter().map(|event| name(event.key())).collect();
        self.first = self.first.or(batch.events.first().map(|event| event.revision().0));
        self.said.push((batch.revision.0, batch.more, keys));
    }

    fn end(&mut self, (): (), why: WatchEnd) {
        self.ends.push(why);
    }
}

fn watches() -> Watches<()> {
    Watches::new(1, 512 * 1024)
}

fn listen(
    watches: &mut Watches<()>,
    store: &Store,
    (key, end): (&[u8], RangeEnd<'_>),
    start: u64,
) -> WatchId {
    let start = Revision(start);
    let spec = WatchSpec { key, end, start, prev_kv: false, no_put: false, no_delete: false };
    watches.open(store, &spec, ())
}

fn advance(watches: &mut Watches<()>, store: &Store, ear: &mut Ear) {
    while watches.has_work(store) {
        watches.advance(store, ear);
    }
}

/// Changes the keys that begin, then those of `with_others`, which are no one's business, then the
/// keys that end: all in one revision, whose number it returns.
fn large_revision(store: &mut Store, begin: &[&str], end: &[&str]) -> u64 {
    fn of<'k>(key: &&'k str) -> Request<'k> {
        Request::Put(PutWith { key: key.as_bytes(), value: b"v", ..PutWith::default() })
    }
    let others = DeleteWith { key: b"m", end: RangeEnd::Before(b"n"), prev_kv: false };
    let mut then: Vec<Request<'_>> = begin.iter().map(of).collect();
    then.push(Request::Delete(others));
    then.extend(end.iter().map(of));
    let mut args = Vec::new();
    TxnParts { then: &then, ..TxnParts::default() }.encode(&mut args);
    do_call(store, None, Command::Txn(Txn::from_args(&args).unwrap()));
    store.revision().0
}

fn with_others(count: usize) -> Store {
    let mut store = store_with(1, 1 << 30);
    let others: Vec<Owned> = (0..count).map(|nth| put(&format!("m{nth:05}"), "")).collect();
    apply(&mut store, &others);
    store
}

/// The keys of the one revision that was heard of, in however many batches: all but the last one
/// say that it goes on.
fn heard_of(said: &[Said], revision: u64) -> Vec<&str> {
    let (last, before) = said.split_last().expect("something was heard");
    assert_eq!((last.0, last.1), (revision, false), "{said:?}");
    assert!(before.iter().all(|it| (it.0, it.1) == (revision - 1, true)), "{said:?}");
    said.iter().flat_map(|(_, _, keys)| keys).map(String::as_str).collect()
}

/// A slice in which nothing is for the watch ends neither the revision nor what it is owed of it.
#[test]
fn a_revision_of_many_slices_is_complete_with_its_last_change_and_not_before() {
    for ends in [true, false] {
        for from_now in [true, false] {
            let (mut store, mut watches, mut ear) = (with_others(2_500), watches(), Ear::default());
            let range = (&b"a"[..], RangeEnd::Before(b"b"));
            if from_now {
                listen(&mut watches, &store, range, 0);
                advance(&mut watches, &store, &mut ear);
                store.hold_changes(watches.first_unheard());
            }
            let end = if ends { &["a2"][..] } else { &[] };
            let revision = large_revision(&mut store, &["a1"], end);
            if !from_now {
                listen(&mut watches, &store, range, revision);
            }
            advance(&mut watches, &store, &mut ear);
            let due = if ends { &["a1", "a2"][..] } else { &["a1"] };
            assert_eq!(heard_of(&ear.said, revision), due, "{ends} {from_now}");
        }
    }
}

/// Else a frame could be as large as a transaction, for each who watches.
#[test]
fn a_revision_of_large_values_comes_in_several_batches_to_who_keeps_up_too() {
    let mut store = store_with(1, 1 << 30);
    let (mut watches, mut ear) = (watches(), Ear::default());
    listen(&mut watches, &store, (b"a", RangeEnd::Before(b"b")), 0);
    store.hold_changes(watches.first_unheard());
    let value = vec![7; 300 * 1024];
    let of = |key| Request::Put(PutWith { key, value: &value, ..PutWith::default() });
    let then = [of(&b"a1"[..]), of(b"a2"), of(b"a3"), of(b"a4")];
    let mut args = Vec::new();
    TxnParts { then: &then, ..TxnParts::default() }.encode(&mut args);
    do_call(&mut store, None, Command::Txn(Txn::from_args(&args).unwrap()));
    advance(&mut watches, &store, &mut ear);
    let keys =
        |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let (first, rest) = (keys(&["a1", "a2"]), keys(&["a3", "a4"]));
    assert_eq!(ear.said, [(1, true, first), (2, false, rest)]);
}

/// Another server has the changes of a revision in another order: what was passed over in this one
/// may come late in that.
#[test]
fn a_revision_that_was_begun_is_read_anew_in_the_store_that_replaces_this_one() {
    for from_now in [true, false] {
        let (mut store, mut watches, mut ear) = (with_others(20_000), watches(), Ear::default());
        let range = (&b"a"[..], RangeEnd::Before(b"b"));
        if from_now {
            listen(&mut watches, &store, range, 0);
            store.hold_changes(watches.first_unheard());
        }
        let revision = large_revision(&mut store, &[], &["a2"]);
        if !from_now {
            listen(&mut watches, &store, range, revision);
        }
        watches.advance(&store, &mut ear);
        assert!(watches.has_work(&store) && ear.said.is_empty(), "it is in the middle");
        // There it is the first one.
        let mut other = reloaded(&mut store);
        watches.on_store_replaced(&mut ear);
        other.hold_changes(watches.first_unheard());
        advance(&mut watches, &other, &mut ear);
        assert_eq!(heard_of(&ear.said, revision), ["a2"], "{from_now}");
    }
}

/// Whoever waits for a revision to come has needed nothing of what all others have missed.
#[test]
fn who_waits_for_a_revision_does_not_mind_that_another_store_has_given_up_those_before() {
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "1")]);
    let (mut watches, mut ear) = (watches(), Ear::default());
    let of_a = (&b"a"[..], RangeEnd::Key);
    let waits = listen(&mut watches, &store, of_a, 20);
    advance(&mut watches, &store, &mut ear);
    let mut newer = store_with(2, 1 << 20);
    let puts: Vec<Owned> = (2..=15).map(|_| put("a", "2")).collect();
    apply(&mut newer, &puts);
    apply(&mut newer, &[compact(12)]);
    watches.on_store_replaced(&mut ear);
    newer.hold_changes(watches.first_unheard());
    advance(&mut watches, &newer, &mut ear);
    assert_eq!((&ear.ends[..], ear.said.len()), (&[][..], 0), "nothing was for it yet");
    assert!(!watches.is_synced(&newer, waits), "its revision is still to come");
    assert_eq!(watches.heard(&newer, waits), Some(newer.revision()), "and not what is to come");
    let puts: Vec<Owned> = (16..=21).map(|_| put("a", "3")).collect();
    apply(&mut newer, &puts);
    advance(&mut watches, &newer, &mut ear);
    assert_eq!(ear.first, Some(20));
    assert_eq!(watches.heard(&newer, waits), Some(Revision(21)));
    assert!(watches.is_synced(&newer, waits));
    // Whoever was there, and needs what is gone, hears that it is.
    let mut newest = store_with(3, 1 << 20);
    let puts: Vec<Owned> = (2..=30).map(|_| put("a", "4")).collect();
    apply(&mut newest, &puts);
    apply(&mut newest, &[compact(25)]);
    watches.on_store_replaced(&mut ear);
    newest.hold_changes(watches.first_unheard());
    advance(&mut watches, &newest, &mut ear);
    let compact_revision = Revision(25);
    assert_eq!(ear.ends, [WatchEnd::Compacted { compact_revision }]);
    assert!(watches.is_empty());
}

/// When far more changes at once than is handed out in a turn, all who kept up read on by
/// themselves: each from where it has to.
#[test]
fn who_waits_for_a_revision_hears_nothing_before_it_however_much_comes_at_once() {
    const CHANGES: u64 = 90_000;
    let mut store = store_with(1, 1 << 30);
    let (mut watches, mut ear) = (watches(), Ear::default());
    listen(&mut watches, &store, (b"a", RangeEnd::Key), CHANGES - 10);
    store.hold_changes(watches.first_unheard());
    for _ in 0..CHANGES / 1000 {
        apply(&mut store, &(0..1000).map(|_| put("a", "v")).collect::<Vec<_>>());
    }
    advance(&mut watches, &store, &mut ear);
    let events: usize = ear.said.iter().map(|(_, _, keys)| keys.len()).sum();
    assert_eq!((ear.first, events), (Some(CHANGES - 10), 12));
    assert_eq!(ear.said.last().map(|said| said.0), Some(CHANGES + 1));
}

/// Nobody is told that nothing happened who has just heard of something.
#[test]
fn whoever_is_spoken_to_was_whether_it_kept_up_or_read_on() {
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "1")]);
    let (mut watches, mut ear) = (watches(), Ear::default());
    let of_a = (&b"a"[..], RangeEnd::Key);
    let (behind, synced) = (
        listen(&mut watches, &store, of_a, 2),
        listen(&mut watches, &store, (b"b", RangeEnd::Key), 0),
    );
    advance(&mut watches, &store, &mut ear);
    assert_eq!([behind, synced].map(|id| watches.take_spoke(id)), [true, false]);
    assert_eq!([behind, synced].map(|id| watches.take_spoke(id)), [false, false], "said once");
    store.hold_changes(watches.first_unheard());
    apply(&mut store, &[put("b", "1")]);
    advance(&mut watches, &store, &mut ear);
    assert_eq!([behind, synced].map(|id| watches.take_spoke(id)), [false, true]);
    watches.close(synced);
    assert!(!watches.take_spoke(synced));
    assert_eq!(watches.heard(&store, synced), None);
}

/// What a store gives up it gives up in one go: no more than it must, so that its history is half
/// as long as it may be.
#[test]
fn a_compaction_that_is_due_leaves_half_of_what_there_may_be() {
    const MOST: u64 = 20_000;
    let grown = || {
        let mut store = store_with(1, MOST);
        for nth in 0.. {
            if store.compaction_due().is_some() {
                break;
            }
            apply(&mut store, &[put("hot", "0123456789"), put(&format!("k{nth}"), "v")]);
        }
        store
    };
    let mut store = grown();
    let due = store.compaction_due().unwrap();
    assert!(store.history_bytes() > MOST && due < store.revision());
    apply(&mut store, &[compact(due.0)]);
    assert!(store.history_bytes() <= MOST / 2, "{} are left", store.history_bytes());
    assert_eq!(store.compaction_due(), None);
    let mut before = grown();
    apply(&mut before, &[compact(due.0 - 1)]);
    assert!(before.history_bytes() > MOST / 2, "{} would do", before.history_bytes());
}
