//! Deletes in slices against the same delete done whole, and who comes in between.

use super::*;
use crate::kv::command::{EntryHeader, PutWith, encode_call, encode_command, encode_header};
use crate::kv::{
    Batch, ChangeCursor, Checkpoint, Command, CommandReply, Outlet, RangeRequest, Request, Room,
    Selection, SessionCall, SliceLimits, Sliced, StoreOptions, Txn, TxnParts, WatchEnd, WatchSpec,
    Watches,
};
use crate::types::{LogPosition, SessionId, Term};
use std::ops::ControlFlow;

const MANY: u64 = 40;

fn all(prev_kv: bool) -> DeleteWith<'static> {
    DeleteWith { key: b"k", end: RangeEnd::Before(b"l"), prev_kv }
}

fn entry(commands: &[(Option<u64>, Command<'_>)]) -> Vec<u8> {
    let mut payload = Vec::new();
    encode_header(&mut payload, EntryHeader { stamp_ms: 1 });
    for (sequence, command) in commands {
        if let Some(sequence) = *sequence {
            let call = SessionCall { session: SessionId(1), sequence, acknowledged: 0 };
            encode_call(&mut payload, call);
        }
        encode_command(&mut payload, *command);
    }
    payload
}

/// An outline and a body.
type Said = (CommandReply, Vec<u8>);

fn next(store: &Store) -> LogPosition {
    LogPosition::new(Term::new(1), store.applied().next())
}

fn whole(store: &mut Store, payload: &[u8]) -> Vec<Said> {
    let mut said = Vec::new();
    let position = next(store);
    let mut keep = |answer: crate::kv::Answer<'_>| said.push((answer.outline, answer.body.into()));
    store.apply(position, payload, &mut keep).unwrap();
    said
}

/// The next slice of an entry.
fn slice(store: &mut Store, payload: &[u8], most: usize, said: &mut Vec<Said>) -> Sliced {
    let (position, mut steps) = (next(store), most);
    let mut keep = |answer: crate::kv::Answer<'_>| said.push((answer.outline, answer.body.into()));
    store.apply_slice(position, payload, &mut steps, &mut keep).unwrap()
}

/// Forty keys, some of them deleted before, one on a lease, and a session.
fn filled() -> Store {
    let mut store = Store::new(StoreOptions { index_seed: 1, history_bytes_max: 1 << 30 });
    let names: Vec<String> = (0..MANY).map(|nth| format!("k{nth:02}")).collect();
    let puts = names.iter().map(|name| (name.as_bytes(), name.as_bytes()));
    let mut commands = vec![(None, Command::OpenSession)];
    commands.push((None, Command::LeaseGrant { lease: 7, ttl_s: 60 }));
    commands.extend(puts.map(|(key, value)| (None, Command::Put { key, value })));
    commands.push((None, Command::DeleteRange { key: b"k05", end: RangeEnd::Before(b"k08") }));
    commands.push((None, Command::Put { key: b"k06", value: b"again" }));
    let (key, value, lease) = (&b"k30"[..], &b"leased"[..], 7);
    let leased =
        PutWith { key, value, lease, prev_kv: false, ignore_value: false, ignore_lease: false };
    commands.push((None, Command::PutWith(leased)));
    whole(&mut store, &entry(&commands));
    store
}

/// What a watch of everything hears from revision 1 on.
fn changes(store: &Store) -> Vec<(Revision, Vec<u8>, bool)> {
    let (mut cursor, mut heard) = (ChangeCursor::at(Revision(1)), Vec::new());
    let read = store.read_changes(&mut cursor, usize::MAX, &mut |event| {
        heard.push((event.revision(), event.key().to_vec(), event.is_delete()));
        ControlFlow::Continue(())
    });
    assert_eq!(read, Ok(Sliced::Done));
    heard
}

fn checkpoint(store: &Store, pinned: &mut Checkpoint, steps: usize, out: &mut Vec<u8>) -> Sliced {
    store.write_checkpoint(pinned, out, SliceLimits { steps, bytes: usize::MAX })
}

/// Everything that can be asked of a store.
fn image(store: &mut Store) -> impl PartialEq + std::fmt::Debug + use<> {
    let (mut pinned, mut out) = (store.begin_checkpoint(), Vec::new());
    assert_eq!(checkpoint(store, &mut pinned, usize::MAX, &mut out), Sliced::Done);
    store.end_checkpoint(pinned);
    let figures = (store.state_hash(), store.keys(), store.live_bytes(), store.history_bytes());
    (out, figures, changes(store), store.lease_key_count(7))
}

/// Deletes of every kind, with something before, between and behind them.
fn deletes() -> Vec<u8> {
    let one = DeleteWith { key: b"k02", end: RangeEnd::Key, prev_kv: true };
    let last = Command::DeleteRange { key: b"k38", end: RangeEnd::Unbounded };
    entry(&[
        (None, Command::Put { key: b"k10", value: b"new" }),
        (None, Command::DeleteRange { key: b"k39", end: RangeEnd::Before(b"k20") }),
        (None, Command::DeleteRangeWith(one)),
        (None, Command::DeleteRange { key: b"k03", end: RangeEnd::Key }),
        (Some(1), last),
        (Some(1), last),
        (Some(2), Command::DeleteRangeWith(all(true))),
        (Some(2), Command::DeleteRangeWith(all(true))),
        (None, Command::DeleteRangeWith(all(false))),
        (None, Command::Put { key: b"k11", value: b"newest" }),
    ])
}

#[test]
fn a_delete_in_slices_makes_what_the_whole_one_does() {
    let payload = deletes();
    let mut one = filled();
    let expected = whole(&mut one, &payload);
    assert!(expected.iter().any(|(_, body)| body.len() > 500), "what was there is answered");
    let expected_image = image(&mut one);
    for steps in [1, 2, 3, 7, 50, 1000] {
        let (mut store, mut said, mut slices) = (filled(), Vec::new(), 1);
        while slice(&mut store, &payload, steps, &mut said) == Sliced::More {
            slices += 1;
        }
        assert!(said == expected, "in {steps} steps");
        assert!(image(&mut store) == expected_image, "in {steps} steps");
        // To find, to delete and to bury each key, and more: copies, and keys that are dead.
        assert!(slices * steps >= 3 * 38, "{slices} slices of {steps} steps");
    }
}

/// Whatever a delete leaves of a slice, none at all too: what was read with it waits.
#[test]
fn what_stands_behind_a_short_delete_in_slices_is_done_once() {
    let put = |key| (None, Command::Put { key, value: b"v" });
    let delete = Command::DeleteRange { key: b"k10", end: RangeEnd::Before(b"k13") };
    let payload = entry(&[put(b"k01"), (None, delete), put(b"k02"), put(b"k11"), put(b"k03")]);
    let mut one = filled();
    let expected = whole(&mut one, &payload);
    let expected_image = image(&mut one);
    for steps in 1..=60 {
        let (mut store, mut said) = (filled(), Vec::new());
        while slice(&mut store, &payload, steps, &mut said) == Sliced::More {
            assert!(said.len() < 5, "in {steps} steps");
        }
        assert!(said == expected, "in {steps} steps");
        assert!(image(&mut store) == expected_image, "in {steps} steps");
    }
}

#[test]
fn many_commands_in_slices_make_what_the_whole_entry_does() {
    let names: Vec<String> = (0..100).map(|nth| format!("n{:02}", nth % 70)).collect();
    let puts = names.iter().map(|name| (None, Command::Put { key: name.as_bytes(), value: b"v" }));
    let mut commands: Vec<_> = puts.collect();
    commands.insert(50, (None, Command::DeleteRangeWith(all(true))));
    let payload = entry(&commands);
    let mut one = filled();
    let expected = whole(&mut one, &payload);
    let expected_image = image(&mut one);
    for (steps, most) in [(1, 1), (8 * 30, 30), (8 * 64, 64)] {
        let (mut store, mut said, mut before) = (filled(), Vec::new(), 0);
        let untouched = (store.applied(), store.state_hash());
        while slice(&mut store, &payload, steps, &mut said) == Sliced::More {
            assert!(store.is_halfway());
            assert_eq!((store.applied(), store.state_hash()), untouched);
            // And the delete that ends with the slice.
            assert!(said.len() - before <= most + 1, "{steps} steps");
            before = said.len();
        }
        assert!(said.len() - before <= most + 1, "{steps} steps");
        assert!(said == expected, "in {steps} steps");
        assert!(image(&mut store) == expected_image, "in {steps} steps");
    }
}

/// Sixteen transactions of a thousand changes were one step of a turn.
#[test]
fn a_transaction_takes_steps_for_each_change() {
    let put = |key| Request::Put(PutWith { key, value: b"v", ..PutWith::default() });
    let (puts, mut args) = ([put(b"a"), put(b"b"), put(b"c")], Vec::new());
    TxnParts { then: &puts, ..TxnParts::default() }.encode(&mut args);
    let txn = Command::Txn(Txn::from_args(&args).unwrap());
    let payload = entry(&[(None, txn); 10]);
    let mut one = filled();
    let expected = whole(&mut one, &payload);
    for (steps, most) in [(1, 1), (8 * 4, 1), (8 * 4 + 1, 2), (8 * 12, 3)] {
        let (mut store, mut said, mut before) = (filled(), Vec::new(), 0);
        while slice(&mut store, &payload, steps, &mut said) == Sliced::More {
            assert_eq!(said.len() - before, most, "{steps} steps");
            before = said.len();
        }
        assert!(said == expected, "in {steps} steps");
        assert_eq!(store.state_hash(), one.state_hash());
    }
}

#[test]
fn half_a_delete_shows_in_nothing_that_is_said_of_the_state() {
    let mut store = filled();
    let payload = entry(&[(None, Command::DeleteRangeWith(all(false)))]);
    let before = (store.applied(), store.revision(), store.state_hash());
    let mut said = Vec::new();
    while slice(&mut store, &payload, 1, &mut said) == Sliced::More {
        assert!(store.is_halfway() && said.is_empty());
        assert_eq!((store.applied(), store.revision(), store.state_hash()), before);
        assert_eq!(store.begun(), store.applied().next());
    }
    assert!(!store.is_halfway());
    assert_eq!(store.begun(), store.applied());
    assert_eq!((store.keys(), store.revision()), (0, before.1.next()));
    assert_ne!(store.state_hash(), before.2);
}

#[test]
fn what_reads_an_older_revision_goes_on_while_a_delete_does() {
    let request = RangeRequest {
        key: b"k",
        end: RangeEnd::Unbounded,
        limit: 0,
        revision: Revision(0),
        keys_only: false,
        count_only: false,
        selection: Selection::ALL,
    };
    let (mut store, mut undisturbed) = (filled(), filled());
    let mut expected = Vec::new();
    let mut pinned = undisturbed.begin_checkpoint();
    checkpoint(&undisturbed, &mut pinned, usize::MAX, &mut expected);
    let (mut pinned, mut out) = (store.begin_checkpoint(), Vec::new());
    let (mut walk, mut found) = (store.begin_walk(&request).unwrap(), 0);
    store.pin_walk(&walk);
    // One that only counts, and one that has enough and goes on counting.
    let counting =
        [RangeRequest { count_only: true, ..request }, RangeRequest { limit: 1, ..request }];
    let mut counters = counting.each_ref().map(|request| store.begin_walk(request).unwrap());
    counters.iter().for_each(|it| store.pin_walk(it));
    let payload = entry(&[(None, Command::DeleteRangeWith(all(true)))]);
    let (mut sliced, mut written, mut walked) = (Sliced::More, Sliced::More, Sliced::More);
    while sliced == Sliced::More {
        sliced = slice(&mut store, &payload, 2, &mut Vec::new());
        store.tidy(1000);
        written = checkpoint(&store, &mut pinned, 2, &mut out);
        let mut left = SliceLimits { steps: 4, bytes: usize::MAX };
        walked = store.walk(&request, &mut walk, &mut left, &mut |_| {
            found += 1;
            ControlFlow::Continue(())
        });
        // These come when the first keys are deleted already.
        let steps = if store.keys() < MANY - 2 { 4 } else { 0 };
        for (request, counter) in counting.iter().zip(&mut counters) {
            let mut left = SliceLimits { steps, bytes: usize::MAX };
            store.walk(request, counter, &mut left, &mut |_| ControlFlow::Continue(()));
        }
    }
    assert_eq!((written, walked), (Sliced::Done, Sliced::Done), "they took no longer");
    for (request, mut counter) in counting.iter().zip(counters) {
        let mut all = SliceLimits { steps: usize::MAX, bytes: usize::MAX };
        store.walk(request, &mut counter, &mut all, &mut |_| ControlFlow::Continue(()));
        assert_eq!(counter.summary(request).count, MANY - 2);
        store.unpin_walk(&counter);
    }
    assert!(out == expected, "the checkpoint is of its moment");
    assert_eq!(found, MANY - 2);
    store.unpin_walk(&walk);
    store.end_checkpoint(pinned);
}

/// Counts the deletes that it hears of.
#[derive(Default)]
struct Ear(usize);

impl Outlet<u32> for Ear {
    fn room(&mut self, _to: u32) -> Room {
        Room::Open
    }

    fn write(&mut self, _to: u32, batch: &Batch<'_, '_>) {
        self.0 += batch.events.iter().filter(|event| event.is_delete()).count();
    }

    fn end(&mut self, to: u32, why: WatchEnd) {
        panic!("{to} ends: {why:?}");
    }
}

#[test]
fn a_watch_hears_of_a_delete_when_all_of_it_is_done_whenever_the_watch_began() {
    let (mut store, mut watches, mut ear) = (filled(), Watches::new(1, 1024), Ear::default());
    let watch = |watches: &mut Watches<u32>, store: &Store, to, start| {
        let (key, end) = (&b"k"[..], RangeEnd::Unbounded);
        let (prev_kv, no_put, no_delete) = (false, true, false);
        watches.open(store, &WatchSpec { key, end, start, prev_kv, no_put, no_delete }, to);
    };
    watch(&mut watches, &store, 1, Revision(0));
    let behind = store.revision();
    let payload = entry(&[(None, Command::DeleteRangeWith(all(false)))]);
    let mut slices = 0;
    while slice(&mut store, &payload, 5, &mut Vec::new()) == Sliced::More {
        slices += 1;
        match slices {
            10 => watch(&mut watches, &store, 2, Revision(0)),
            12 => watch(&mut watches, &store, 3, behind),
            _ => {}
        }
        store.hold_changes(watches.first_unheard());
        watches.advance(&store, &mut ear);
        assert_eq!(ear.0, 0, "after {slices} slices");
    }
    assert!(slices > 12);
    while watches.has_work(&store) {
        watches.advance(&store, &mut ear);
    }
    assert_eq!(ear.0, 3 * 38, "each hears of all");
}

#[test]
fn a_delete_whose_answer_is_too_large_is_refused_after_some_slices_and_leaves_no_trace() {
    let mut store = filled();
    let large = vec![b'v'; 1_400_000];
    for key in [b"k31", b"k32", b"k33"] {
        whole(&mut store, &entry(&[(None, Command::Put { key, value: &large })]));
    }
    let before = (store.keys(), store.revision(), store.history_bytes());
    let payload = entry(&[(Some(1), Command::DeleteRangeWith(all(true)))]);
    let (mut said, mut slices) = (Vec::new(), 1);
    while slice(&mut store, &payload, 3, &mut said) == Sliced::More {
        slices += 1;
    }
    let refused = CommandReply::Refused { why: Refusal::AnswerTooLarge };
    assert_eq!(said, [(refused, Vec::new())]);
    assert!(slices > 5);
    assert_eq!((store.keys(), store.revision(), store.history_bytes()), before);
    assert!(store.found.is_empty());
}

/// What hangs on a lease counted for nothing, and a turn ended a thousand of them at once.
#[test]
fn an_entry_that_ends_leases_of_many_keys_takes_as_many_slices_as_they_have_keys() {
    let mut store = filled();
    let names: Vec<String> = (0..20 * 50).map(|nth| format!("l{nth:04}")).collect();
    let mut commands: Vec<_> =
        (101..121).map(|lease| (None, Command::LeaseGrant { lease, ttl_s: 60 })).collect();
    for (lease, names) in (101..).zip(names.chunks(50)) {
        commands.extend(names.iter().map(|name| {
            let key = name.as_bytes();
            (None, Command::PutWith(PutWith { key, value: b"v", lease, ..PutWith::default() }))
        }));
    }
    whole(&mut store, &entry(&commands));
    let before = store.keys();
    let ends: Vec<_> = (101..121).map(|lease| (None, Command::LeaseRevoke { lease })).collect();
    let (payload, mut slices) = (entry(&ends), 1);
    while slice(&mut store, &payload, 500, &mut Vec::new()) == Sliced::More {
        slices += 1;
    }
    assert_eq!(before - store.keys(), 1_000);
    assert!(slices >= 7, "{slices}: a thousand keys, of four steps each, and 500 steps a slice");
}

/// A transaction counted what it changes and not what it looks at, and a turn did hundreds of them.
#[test]
fn an_entry_of_transactions_takes_as_many_slices_as_they_look_at_keys() {
    let mut store = filled();
    let range = |revision| RangeRequest {
        key: b"k",
        end: RangeEnd::Unbounded,
        limit: 0,
        revision,
        keys_only: false,
        count_only: false,
        selection: Selection::default(),
    };
    let mut args = Vec::new();
    let then = &[Request::Range(range(Revision(0)))];
    TxnParts { compares: &[], then, otherwise: &[] }.encode(&mut args);
    let txn = || (None, Command::Txn(Txn::from_args(&args).unwrap()));
    let payload = entry(&[txn(), txn(), txn(), txn(), txn(), txn()]);
    let (mut said, mut slices) = (Vec::new(), 1);
    while slice(&mut store, &payload, 40, &mut said) == Sliced::More {
        slices += 1;
    }
    assert_eq!((slices, said.len()), (6, 6), "each looks at forty keys");
    let (mut walked, mut body) = (0, Vec::new());
    let txn = Txn::from_args(&args).unwrap();
    assert_eq!(store.read_txn(txn, &mut walked, &mut body), Ok(true));
    assert!((38..200).contains(&walked), "{walked}");
}
