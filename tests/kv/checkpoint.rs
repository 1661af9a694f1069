//! Checkpoints: written while the store goes on, read back to a store that nobody can tell from the
//! one that stopped there.

use std::collections::BTreeSet;

use proptest::prelude::*;

use raftd::kv::{
    CheckpointError, Command, CommandReply, Loader, PutWith, SessionCall, SliceLimits, Sliced,
    Store, StoreOptions,
};
use raftd::types::{LogIndex, Revision, SessionId};

use super::sessions::{Item, apply_at, call};
use super::support::{self, Owned, Random, compact, delete, put, put_if, store_with};
use super::transactions::do_call;

const ALL: SliceLimits = SliceLimits { steps: usize::MAX, bytes: usize::MAX };
const OPTIONS: StoreOptions = StoreOptions { index_seed: 77, history_bytes_max: 20_000 };

/// A checkpoint as it stands in a format's golden file.
const GOLDEN: &str = include_str!("golden/checkpoint-3.hex");

pub(super) fn checkpoint_at_once(store: &mut Store) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut checkpoint = store.begin_checkpoint();
    assert_eq!(store.write_checkpoint(&mut checkpoint, &mut bytes, ALL), Sliced::Done);
    store.end_checkpoint(checkpoint);
    bytes
}

fn load(bytes: &[u8], applied: LogIndex, limits: SliceLimits) -> Result<Store, CheckpointError> {
    let mut loader = Loader::new(OPTIONS, applied);
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[loader.read(rest, limits)?..];
    }
    while loader.settle(limits)? == Sliced::More {}
    Ok(loader.into_store())
}

pub(super) fn load_at_once(bytes: &[u8], applied: LogIndex) -> Store {
    load(bytes, applied, ALL).unwrap()
}

/// A store out of the checkpoint of another.
pub(super) fn reloaded(store: &mut Store) -> Store {
    let bytes = checkpoint_at_once(store);
    load(&bytes, store.applied(), ALL).unwrap()
}

/// Every figure and every answer that a store can give.
fn everything(store: &Store) -> impl PartialEq + std::fmt::Debug {
    let oldest = store.compact_revision().0.max(1);
    let reads: Vec<_> = (oldest..=store.revision().0)
        .map(|revision| support::read(store, &support::everything(revision)))
        .collect();
    let figures = [
        store.revision().0,
        store.compact_revision().0,
        store.applied().get(),
        store.stamp_ms(),
        store.state_hash(),
        store.history_bytes(),
        store.live_bytes(),
        store.keys(),
    ];
    let sessions: Vec<_> =
        store.sessions().map(|(row, replies)| (row, replies.collect::<Vec<_>>())).collect();
    let hung = |lease| store.lease_keys(lease, 0).map(|(_, name)| name.to_vec());
    let leases: Vec<_> =
        store.leases(0).map(|row| (row, hung(row.id).collect::<BTreeSet<_>>())).collect();
    let numbers = (store.session_counters(), store.lease_grants());
    (figures, store.compaction_due(), reads, sessions, leases, numbers)
}

/// Applies an entry. A minute passes from one to the next: a session that an hour of them leaves
/// alone ends.
fn apply_items(store: &mut Store, items: &[Item]) -> Vec<CommandReply> {
    let stamp_ms = 60_000 * store.applied().next().get();
    apply_at(store, stamp_ms, items)
}

fn apply(store: &mut Store, commands: &[Owned]) -> Vec<CommandReply> {
    let items: Vec<Item> = commands.iter().cloned().map(Item::Plain).collect();
    apply_items(store, &items)
}

fn some_items(random: &mut Random, store: &Store, keys: u64) -> Vec<Item> {
    let count = 1 + random.size_below(12);
    let rows: Vec<_> = store.sessions().map(|(row, _)| row).collect();
    let one = |random: &mut Random| {
        let key = support::some_key(random, keys);
        let value = vec![b'v'; random.size_below(90)];
        let mod_revision = store.get(&key).map_or(Revision(0), |found| found.mod_revision);
        let command = match random.below(20) {
            0..=11 => Owned::Put { key, value },
            12..=13 => Owned::PutIf { key, value, mod_revision },
            14..=18 => Owned::Delete { key, end: vec![] },
            _ => Owned::Delete { end: support::some_end(random, &key, keys), key },
        };
        match random.below(20) {
            0 => Item::Open,
            1..=9 if !rows.is_empty() => {
                let row = rows[random.size_below(rows.len())];
                let acknowledged = row.acknowledged + random.below(3);
                call(row.id, acknowledged + 1 + random.below(9), acknowledged, command)
            }
            10 => {
                let span = store.revision().0 - store.compact_revision().0 + 1;
                Item::Plain(compact(store.compact_revision().0 + random.below(span)))
            }
            _ => Item::Plain(command),
        }
    };
    (0..count).map(|_| one(random)).collect()
}

#[test]
fn a_loaded_store_is_the_one_that_stopped_there_though_the_writer_went_on() {
    let (mut went_on, mut sessions) = (0, 0);
    for seed in 0..300 {
        let mut random = Random(seed);
        let keys = [3, 20, 200][random.size_below(3)];
        let mut store = store_with(seed, 20_000);
        // Another node: another hash seed, another pace of freeing.
        let mut twin = store_with(seed + 1000, 20_000);
        for _ in 0..random.size_below(120) {
            let items = some_items(&mut random, &store, keys);
            assert_eq!(apply_items(&mut store, &items), apply_items(&mut twin, &items));
            if random.one_in(3) {
                store.tidy(random.size_below(30));
            }
        }
        let mut checkpoint = store.begin_checkpoint();
        let mut bytes = Vec::new();
        let mut later = Vec::new();
        loop {
            let limits = SliceLimits { steps: 1 + random.size_below(40), bytes: 500 };
            if store.write_checkpoint(&mut checkpoint, &mut bytes, limits) == Sliced::Done {
                break;
            }
            if random.one_in(2) {
                later.push(some_items(&mut random, &store, keys));
                apply_items(&mut store, later.last().unwrap());
                store.tidy(random.size_below(200));
                went_on += 1;
            }
        }
        assert_eq!(checkpoint.applied(), twin.applied());
        store.end_checkpoint(checkpoint);
        assert_eq!(bytes, checkpoint_at_once(&mut twin), "seed {seed}: bytes by the log alone");

        let limits = SliceLimits { steps: 1 + random.size_below(30), bytes: 300 };
        let mut loaded = load(&bytes, twin.applied(), limits).unwrap();
        assert_eq!(everything(&loaded), everything(&twin), "seed {seed}");
        // It goes on as the one that never stopped, history and all.
        sessions += loaded.session_count();
        for items in &later {
            apply_items(&mut loaded, items);
            loaded.tidy(random.size_below(50));
        }
        assert_eq!(everything(&loaded), everything(&store), "seed {seed}");
        for store in [&mut loaded, &mut store] {
            apply(store, &[put("last", "one")]);
            let newest = store.revision().0;
            apply(store, &[compact(newest)]);
            store.tidy(usize::MAX >> 8);
            assert_eq!(store.footprint().uncompacted, 0, "seed {seed}: all of it can be freed");
        }
        assert_eq!(everything(&loaded), everything(&store), "seed {seed}");
    }
    assert!(went_on > 1000, "too few writes between slices: {went_on}");
    assert!(sessions > 1000, "too few sessions: {sessions}");
}

/// What was wrong: a slice ended at a key that was deleted and compacted before the pin, the key
/// was freed, its place went to a new version of another key, and the next slice walked that one's
/// versions under the name of the first.
#[test]
fn a_slice_never_ends_at_what_may_be_freed() {
    let mut bytes = [Vec::new(), Vec::new()];
    for (bytes, slice) in bytes.iter_mut().zip([ALL.steps, 1]) {
        let mut store = store_with(1, u64::MAX);
        apply(&mut store, &[put("b", "1"), put("a", "x"), delete("a", ""), put("c", "1")]);
        apply(&mut store, &[compact(5)]);
        let mut checkpoint = store.begin_checkpoint();
        let limits = SliceLimits { steps: slice, bytes: usize::MAX };
        // The first slice of one step writes the header, the second comes to "a".
        let mut slices = 0;
        while store.write_checkpoint(&mut checkpoint, bytes, limits) == Sliced::More {
            slices += 1;
            if slices == 2 {
                store.tidy(1000);
                apply(&mut store, &[put("b", "2"), put("c", "2")]);
            }
        }
    }
    assert_eq!(bytes[0], bytes[1]);
}

#[test]
fn what_was_pinned_is_freed_after_the_checkpoint() {
    let mut store = store_with(1, u64::MAX);
    for round in 0..50 {
        apply(&mut store, &[put("hot", &"x".repeat(round)), put(&format!("k{round}"), "v")]);
    }
    let mut checkpoint = store.begin_checkpoint();
    let slice = SliceLimits { steps: 3, bytes: 1000 };
    let mut bytes = Vec::new();
    store.write_checkpoint(&mut checkpoint, &mut bytes, slice);
    let newest = store.revision().0;
    apply(&mut store, &[compact(newest)]);
    store.tidy(1000);
    assert!(store.footprint().uncompacted > 40, "the cursor still needs them");
    assert_eq!(store.history_bytes(), 24, "to a reader they are gone");
    store.end_checkpoint(checkpoint);
    store.tidy(1000);
    assert_eq!(store.footprint().uncompacted, 0);
}

#[test]
fn a_slice_ends_at_its_limits_even_within_one_key() {
    let mut store = store_with(1, u64::MAX);
    for _ in 0..1000 {
        apply(&mut store, &[put("hot", "0123456789")]);
    }
    let mut checkpoint = store.begin_checkpoint();
    for _ in 0..1000 {
        apply(&mut store, &[put("hot", "newer than the pin")]);
    }
    let mut bytes = Vec::new();
    let mut slices = 0;
    let limits = SliceLimits { steps: 64, bytes: 256 };
    loop {
        let before = bytes.len();
        let sliced = store.write_checkpoint(&mut checkpoint, &mut bytes, limits);
        assert!(bytes.len() - before < 256 + 40, "one version more than the limit at most");
        slices += 1;
        if sliced == Sliced::Done {
            break;
        }
    }
    assert!(slices > 2000 / 64, "{slices} slices");
    store.end_checkpoint(checkpoint);
    let loaded = load(&bytes, LogIndex::new(1000), ALL).unwrap();
    assert_eq!(loaded.revision().0, 1001);
}

fn golden_store() -> Store {
    let mut store = store_with(1, u64::MAX);
    apply(&mut store, &[put("a", "1"), put("b", "2"), put("gone", "x"), put("kept", "")]);
    apply(&mut store, &[delete("gone", ""), put("a", "3"), delete("b", "")]);
    apply(&mut store, &[compact(7), put("a", "4"), put("b", "5"), put("long", &"l".repeat(300))]);
    apply_items(&mut store, &[Item::Open, Item::Open]);
    let calls = [
        call(SessionId(1), 2, 0, put("a", "5")),
        call(SessionId(2), 3, 2, put_if("b", "6", 8)),
        call(SessionId(2), 4, 2, put_if("b", "7", 8)),
        call(SessionId(2), 6, 2, delete("b", "")),
    ];
    apply_items(&mut store, &calls);
    let put = PutWith { key: b"a", value: b"8", prev_kv: true, ..PutWith::default() };
    let one = SessionCall { session: SessionId(1), sequence: 4, acknowledged: 1 };
    do_call(&mut store, Some(one), Command::PutWith(put));
    let keep = PutWith { key: b"none", ignore_value: true, ..PutWith::default() };
    let two = SessionCall { sequence: 5, ..one };
    do_call(&mut store, Some(two), Command::PutWith(keep));
    do_call(&mut store, None, Command::LeaseGrant { lease: 300, ttl_s: 60 });
    do_call(&mut store, None, Command::LeaseGrant { lease: 0, ttl_s: 5 });
    let hung = PutWith { key: b"hung", value: b"v", lease: 300, ..PutWith::default() };
    do_call(&mut store, None, Command::PutWith(hung));
    store
}

#[test]
fn the_stored_form_never_changes() {
    let hex: String =
        checkpoint_at_once(&mut golden_store()).iter().map(|byte| format!("{byte:02x}")).collect();
    if std::env::var_os("UPDATE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kv/golden/checkpoint-3.hex");
        std::fs::write(path, format!("{hex}\n")).unwrap();
    }
    assert_eq!(hex, GOLDEN.trim());
}

#[test]
fn a_damaged_checkpoint_is_an_error_and_no_other_store() {
    let mut store = golden_store();
    let (bytes, hash) = (checkpoint_at_once(&mut store), store.state_hash());
    for end in 0..bytes.len() {
        assert!(load(&bytes[..end], store.applied(), ALL).is_err(), "cut at {end}");
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            // A superseded version has no part in the state hash; the file's checksum covers it.
            if let Ok(loaded) = load(&flipped, store.applied(), ALL) {
                assert_eq!(loaded.state_hash(), hash, "byte {at} bit {bit}");
            }
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(load(&bytes, LogIndex::new(3), ALL).is_err());
    }
}
