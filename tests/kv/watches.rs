//! Watches against a list of everything that ever happened: each batch is held against it, whoever
//! is slow, compacted away, closed, or sees the store replaced by one out of a checkpoint.

use std::collections::BTreeMap;

use raftd::kv::command::{EntryHeader, encode_command, encode_header};
use raftd::kv::{
    Batch, Command, Outlet, PutWith, RangeEnd, Request, Room, Store, Txn, TxnParts, WatchEnd,
    WatchId, WatchSpec, Watches,
};
use raftd::types::Revision;

use super::checkpoint::reloaded;
use super::support::{self, Owned, Random, compact, delete, put};

const BATCH_BYTES: usize = 512 * 1024;

/// A change of a key: its revision, its name, its value if it was put, and what was there before.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Change {
    revision: u64,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    before: Option<Vec<u8>>,
}

/// All changes there ever were, and what is there now.
#[derive(Default)]
struct Truth {
    live: BTreeMap<Vec<u8>, Vec<u8>>,
    changes: Vec<Change>,
    compacted: u64,
}

/// One who watches, and what has come.
struct Reader {
    id: Option<WatchId>,
    key: Vec<u8>,
    end: Vec<u8>,
    start: u64,
    prev_kv: bool,
    no_put: bool,
    no_delete: bool,
    /// Nothing up to here is missing.
    up_to: u64,
    /// Batches of the revision behind that have come, and are not all.
    open: bool,
    got: Vec<Change>,
    room: Room,
    ended: Option<WatchEnd>,
}

impl Reader {
    fn wants(&self, change: &Change) -> bool {
        let kind = if change.value.is_some() { self.no_put } else { self.no_delete };
        let end = RangeEnd::from_bytes(&self.end);
        !kind && change.revision >= self.start && end.holds(&self.key, &change.key)
    }

    fn spec(&self) -> WatchSpec<'_> {
        WatchSpec {
            key: &self.key,
            end: RangeEnd::from_bytes(&self.end),
            start: Revision(self.start),
            prev_kv: self.prev_kv,
            no_put: self.no_put,
            no_delete: self.no_delete,
        }
    }
}

struct World {
    readers: Vec<Reader>,
    truth: Truth,
    full: bool,
    batches: u64,
    split: u64,
}

impl Outlet<usize> for World {
    fn room(&mut self, to: usize) -> Room {
        if self.full { Room::Full } else { self.readers[to].room }
    }

    fn write(&mut self, to: usize, batch: &Batch<'_, '_>) {
        let World { readers, truth, .. } = self;
        let reader = &mut readers[to];
        assert_eq!(reader.room, Room::Open, "nobody writes without asking");
        assert!(reader.up_to <= batch.revision.0, "what was said holds");
        for event in batch.events {
            let kv = event.kv();
            let value = Some(kv.value.to_vec()).filter(|_| !event.is_delete());
            assert_eq!(event.is_delete(), kv.version == 0);
            let before = event.before().map(|before| before.value.to_vec());
            let (revision, key) = (event.revision().0, event.key().to_vec());
            assert!(reader.got.last().is_none_or(|last| last.revision <= revision), "ordered");
            reader.got.push(Change { revision, key, value, before });
        }
        // Nothing is missing, nothing is twice, and nothing else is there.
        let first = truth.changes.partition_point(|change| change.revision <= reader.up_to);
        let last = truth.changes.partition_point(|change| change.revision <= batch.revision.0);
        let due = truth.changes[first..last].iter();
        let mut due: Vec<&Change> = due.filter(|change| reader.wants(change)).collect();
        due.sort();
        let whole = reader.got.partition_point(|change| change.revision <= batch.revision.0);
        let mut got: Vec<Change> = reader.got.drain(..whole).collect();
        got.sort();
        assert_eq!(got.len(), due.len(), "{to}: {got:?} is not {due:?}");
        for (one, other) in got.iter_mut().zip(due) {
            if one.revision <= truth.compacted && one.before.is_none() {
                one.before.clone_from(&other.before);
            }
            assert_eq!(one, other);
        }
        reader.up_to = batch.revision.0;
        reader.open = batch.more;
        assert_eq!(batch.more, !reader.got.is_empty() || (batch.more && batch.events.is_empty()));
        assert!(reader.got.iter().all(|change| change.revision == batch.revision.0 + 1), "atomic");
        self.batches += 1;
        self.split += u64::from(batch.more);
    }

    fn end(&mut self, to: usize, why: WatchEnd) {
        self.readers[to].ended = Some(why);
    }
}

impl Truth {
    fn put(&mut self, revision: u64, key: &[u8], value: &[u8]) {
        let before = self.live.insert(key.to_vec(), value.to_vec());
        let (key, value) = (key.to_vec(), Some(value.to_vec()));
        self.changes.push(Change { revision, key, value, before });
    }

    fn delete(&mut self, revision: u64, key: &[u8], end: &[u8]) -> bool {
        let holds = |name: &[u8]| RangeEnd::from_bytes(end).holds(key, name);
        let keys: Vec<_> = self.live.keys().filter(|name| holds(name)).cloned().collect();
        for key in &keys {
            let before = self.live.remove(key);
            self.changes.push(Change { revision, key: key.clone(), value: None, before });
        }
        !keys.is_empty()
    }
}

/// Some commands, as bytes; the truth after them.
fn some_commands(random: &mut Random, store: &Store, truth: &mut Truth, keys: u64) -> Vec<Vec<u8>> {
    let mut revision = store.revision().0;
    let mut commands = Vec::new();
    for _ in 0..random.below(12) {
        let mut bytes = Vec::new();
        let key = support::some_key(random, keys);
        let size = if random.one_in(60) { 300_000 } else { random.size_below(40) };
        match random.below(40) {
            0..=22 => {
                revision += 1;
                let value = vec![b'a' + u8::try_from(revision % 26).unwrap(); size];
                truth.put(revision, &key, &value);
                encode_command(&mut bytes, Command::Put { key: &key, value: &value });
            }
            23..=29 => {
                // Several keys in one revision, in no order; now and then more than a batch holds.
                let mut names: Vec<_> = (0..4).map(|_| support::some_key(random, keys)).collect();
                names.dedup();
                names.sort();
                names.dedup();
                names.reverse();
                revision += 1;
                let value = vec![b'A' + u8::try_from(revision % 26).unwrap(); size];
                names.iter().for_each(|name| truth.put(revision, name, &value));
                let put = |key| PutWith { key, value: &value, ..PutWith::default() };
                let then: Vec<_> = names.iter().map(|name| Request::Put(put(name))).collect();
                let mut args = Vec::new();
                TxnParts { compares: &[], then: &then, otherwise: &[] }.encode(&mut args);
                encode_command(&mut bytes, Command::Txn(Txn::from_args(&args).unwrap()));
            }
            30..=37 => {
                let wide = random.one_in(12);
                let (key, end) = if wide { (vec![0], vec![0]) } else { (key, vec![]) };
                revision += u64::from(truth.delete(revision + 1, &key, &end));
                let end = RangeEnd::from_bytes(&end);
                encode_command(&mut bytes, Command::DeleteRange { key: &key, end });
            }
            _ => {
                let near = random.below(40);
                let to = if random.one_in(2) { revision } else { revision.saturating_sub(near) };
                truth.compacted = truth.compacted.max(to);
                encode_command(&mut bytes, Command::Compact { revision: Revision(to) });
            }
        }
        commands.push(bytes);
    }
    commands
}

fn apply_bytes(store: &mut Store, commands: &[Vec<u8>]) {
    let mut payload = Vec::new();
    encode_header(&mut payload, EntryHeader { stamp_ms: 7 });
    commands.iter().for_each(|command| payload.extend_from_slice(command));
    store.apply(support::at(store.applied().next()), &payload, &mut |_| ()).unwrap();
}

fn some_reader(random: &mut Random, store: &Store, keys: u64) -> Reader {
    let (key, end) = match random.below(4) {
        0 => (vec![0], vec![0]),
        1 => {
            let key = support::some_key(random, keys);
            let end = support::some_end(random, &key, keys);
            (key, end)
        }
        _ => (support::some_key(random, keys), vec![]),
    };
    let newest = store.revision().0;
    let start = match random.below(6) {
        0..=2 => newest + 1,
        3 => newest + random.below(40),
        _ => newest.saturating_sub(random.below(60)).max(1),
    };
    Reader {
        id: None,
        key,
        end,
        start,
        prev_kv: random.one_in(2),
        no_put: random.one_in(6),
        no_delete: random.one_in(6),
        up_to: 0,
        open: false,
        got: Vec::new(),
        room: if random.one_in(4) { Room::Parked } else { Room::Open },
        ended: None,
    }
}

/// Ends were due: what was not heard is gone. Who has ended watches again from what is left.
fn resume_ended(world: &mut World, watches: &mut Watches<usize>, store: &Store, replaced: bool) {
    for place in 0..world.readers.len() {
        let reader = &mut world.readers[place];
        let Some(why) = reader.ended.take() else { continue };
        match why {
            WatchEnd::Compacted { compact_revision } => {
                assert_eq!(compact_revision, store.compact_revision());
                let next = reader.start.max(reader.up_to + 1);
                assert!(next < compact_revision.0, "it has what it needs from {next} on");
                reader.start = compact_revision.0;
                reader.up_to = compact_revision.0 - 1;
            }
            WatchEnd::Interrupted => {
                assert!(replaced && reader.open, "nothing was interrupted");
                reader.start = reader.up_to + 1;
            }
        }
        (reader.open, reader.got) = (false, Vec::new());
        reader.id = Some(watches.open(store, &reader.spec(), place));
    }
}

fn some_change_of_readers(
    random: &mut Random,
    world: &mut World,
    watches: &mut Watches<usize>,
    store: &Store,
    keys: u64,
) {
    world.full = random.one_in(10);
    if world.readers.len() < 60 || random.one_in(3) {
        let mut reader = some_reader(random, store, keys);
        reader.up_to = reader.start - 1;
        let place = world.readers.len();
        reader.id = Some(watches.open(store, &reader.spec(), place));
        world.readers.push(reader);
    }
    for _ in 0..3 {
        let place = random.size_below(world.readers.len());
        let reader = &mut world.readers[place];
        let Some(id) = reader.id else { continue };
        if random.one_in(12) {
            watches.close(id);
            reader.id = None;
        } else if reader.room == Room::Open {
            reader.room = Room::Parked;
        } else {
            reader.room = Room::Open;
            watches.unpark(id);
        }
    }
}

#[test]
fn a_watch_gets_every_change_once_in_order_and_whole_whatever_befalls_it() {
    for (seed, keys) in [(1, 12), (2, 60), (3, 600)] {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut store = support::store_with(seed, u64::MAX);
        let (readers, truth) = (Vec::new(), Truth::default());
        let mut world = World { readers, truth, full: false, batches: 0, split: 0 };
        let mut watches: Watches<usize> = Watches::new(seed, BATCH_BYTES);
        let mut ends = 0;
        for _ in 0..3000 {
            some_change_of_readers(&mut random, &mut world, &mut watches, &store, keys);
            store.hold_changes(watches.first_unheard());
            let synced: Vec<usize> = (0..world.readers.len())
                .filter(|place| {
                    let id = world.readers[*place].id;
                    id.is_some_and(|id| watches.is_synced(&store, id))
                })
                .collect();
            let commands = some_commands(&mut random, &store, &mut world.truth, keys);
            apply_bytes(&mut store, &commands);
            let replaced = random.one_in(50);
            if replaced {
                store = reloaded(&mut store);
                watches.on_store_replaced(&mut world);
                resume_ended(&mut world, &mut watches, &store, true);
                store.hold_changes(watches.first_unheard());
            }
            store.tidy(random.size_below(100));
            watches.advance(&store, &mut world);
            for place in synced.iter().filter(|_| !replaced) {
                let reader = &world.readers[*place];
                // Even if the changes came with the compaction that gives them up.
                let kept = reader.room == Room::Open && !world.full;
                assert!(!kept || reader.ended.is_none(), "{place} kept up, and was ended");
            }
            ends += world.readers.iter().filter(|reader| reader.ended.is_some()).count();
            resume_ended(&mut world, &mut watches, &store, false);
            store.hold_changes(watches.first_unheard());
        }
        world.full = false;
        for reader in &mut world.readers {
            reader.room = Room::Open;
            reader.id.into_iter().for_each(|id| watches.unpark(id));
        }
        while watches.has_work(&store) {
            watches.advance(&store, &mut world);
            resume_ended(&mut world, &mut watches, &store, false);
        }
        for reader in world.readers.iter().filter(|reader| reader.id.is_some()) {
            let heard = watches.heard(&store, reader.id.unwrap()).unwrap();
            assert_eq!(heard, store.revision());
            let missed = world.truth.changes.iter();
            let missed = missed.filter(|it| it.revision > reader.up_to && reader.wants(it));
            assert_eq!(missed.count(), 0, "everything has come");
        }
        let World { batches, split, .. } = world;
        assert!(batches > 10_000 && split > 20 && ends > 20, "{batches} {split} {ends}");
    }
}

/// Takes everything, and keeps the revisions and keys that came.
#[derive(Default)]
struct Keeps(Vec<(u64, Vec<u8>)>, Vec<WatchEnd>, Option<Vec<u8>>);

impl Outlet<()> for Keeps {
    fn room(&mut self, (): ()) -> Room {
        Room::Open
    }

    fn write(&mut self, (): (), batch: &Batch<'_, '_>) {
        for event in batch.events {
            self.0.push((event.revision().0, event.key().to_vec()));
            self.2 = event.before().map(|before| before.value.to_vec());
        }
    }

    fn end(&mut self, (): (), why: WatchEnd) {
        self.1.push(why);
    }
}

fn spec(key: &[u8], start: u64) -> WatchSpec<'_> {
    let (end, start) = (RangeEnd::Key, Revision(start));
    WatchSpec { key, end, start, prev_kv: true, no_put: false, no_delete: false }
}

fn watched(store: &Store, start: u64) -> Keeps {
    let (mut watches, mut keeps) = (Watches::new(1, BATCH_BYTES), Keeps::default());
    watches.open(store, &spec(b"a", start), ());
    while watches.has_work(store) {
        watches.advance(store, &mut keeps);
    }
    keeps
}

#[test]
fn a_watch_from_the_compaction_revision_still_sees_a_deletion_there_and_none_from_before_does() {
    let mut store = support::store_with(1, 1 << 20);
    support::apply(&mut store, &[put("a", "1"), put("a", "2"), delete("a", ""), compact(4)]);
    store.tidy(100);
    assert_eq!(watched(&store, 4).0, [(4, b"a".to_vec())]);
    assert_eq!(watched(&store, 4).2, None, "what was before it is compacted");
    let compact_revision = Revision(4);
    assert_eq!(watched(&store, 3).1, [WatchEnd::Compacted { compact_revision }]);
}

#[test]
fn changes_and_the_compaction_that_gives_them_up_may_come_in_one_entry() {
    let mut store = support::store_with(1, 1 << 20);
    let (mut watches, mut keeps) = (Watches::new(1, BATCH_BYTES), Keeps::default());
    watches.open(&store, &spec(b"a", 0), ());
    store.hold_changes(watches.first_unheard());
    support::apply(&mut store, &[put("a", "1"), put("a", "2"), put("a", "3"), compact(4)]);
    store.tidy(100);
    watches.advance(&store, &mut keeps);
    assert_eq!(keeps.0.len(), 3);
    assert_eq!(keeps.2.as_deref(), Some(&b"2"[..]), "with what was there before");
    store.hold_changes(watches.first_unheard());
    store.tidy(100);
    assert_eq!(store.footprint().uncompacted, 0, "nothing is kept any longer");
}

#[test]
fn keys_that_are_only_created_count_as_history_and_are_compacted_in_time() {
    let mut store = support::store_with(1, 10_000);
    for key in 0..2000_u64 {
        let key = key.to_string().into_bytes();
        support::apply(&mut store, &[Owned::Put { key, value: vec![] }]);
        let due = store.compaction_due();
        support::apply(&mut store, &due.map(|it| compact(it.0)).into_iter().collect::<Vec<_>>());
        assert!(store.history_bytes() <= 10_000);
    }
    assert!(store.compact_revision() > Revision(1500));
}
