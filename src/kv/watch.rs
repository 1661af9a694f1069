//! The watches of one node: who is to hear of which changes, and how far each has heard.
//!
//! ```text
//! synced    in the index: a change finds who waits for it. All stand at one cursor, `fed`; but a
//!           revision of many changes goes out in slices (`large`)
//! behind    in a queue: reads history in slices, then joins the synced (`behind`)
//! parked    behind, and whoever reads for it does not keep up: waits for room
//! ```
//!
//! **Ordered, unique**: events go out in the order of the ring, and a watch's cursor passes each
//! once. **Reliable**: what a synced watch cannot take makes it fall behind, at the revision that
//! it has not got; what it needs and is compacted ends it, and it hears up to where. **Atomic**: a
//! batch holds whole revisions; a revision larger than a batch goes out in several, each but the
//! last marked `more`, and nothing comes between. **Resumable, bookmarkable**: each batch says up
//! to which revision nothing is missing, and one without events may say so too.
//!
//! A slow reader costs the memory of its batches up to its bound, and then a place in the queue:
//! it stands in nobody's way. Nothing is pinned for it: only what is new to the synced, a turn's
//! worth, outlives a compaction that comes in the same turn.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::types::Revision;

use super::Store;
use super::answer::bytes_of;
use super::changes::{ChangeCursor, Event};
use super::command::RangeEnd;
use super::outlet::{Batch, Outlet, Room, WatchEnd, WatchSpec};
use super::stabbing::Ranges;
use behind::Behind;
use large::{Known, Large};

/// Changes looked at for the synced in a turn, and for those behind: some 100 ns each.
const STEPS_PER_TURN: usize = 8192;

/// Changes handed out in a turn: some 100 ns each. One revision's are not split.
const MATCHES_PER_TURN: usize = 16 * 1024;

/// Events handed out in a turn, of whatever size: 1 ms to copy and to send. Beyond, who is to hear
/// of more reads on as history. Bytes.
const BYTES_PER_TURN: usize = 2 * 1024 * 1024;

/// Changes of one revision beyond which it goes out in slices; fewer if there are so many synced
/// that this could be more than so many to hand out, which is all that is held at once.
const LARGE_REVISION: usize = 256;
const MATCHES_MAX: usize = 64 * 1024;

/// What it costs to enter a watch in the index, or to take it out: 2 to 5 µs. Steps.
const FALL_STEPS: usize = 32;

/// Watches of one key that are looked at in a step, of whom some may have fallen behind.
const LOOKS_PER_STEP: usize = 8;

/// Changes that the synced have not heard of beyond which they all read on as history: what they
/// have not heard of is not freed.
const LAG_MAX: usize = 64 * 1024;

/// A watch's name: a place, and which use of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WatchId {
    slot: u32,
    used: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Synced,
    Behind,
    Parked,
}

struct Watcher<T> {
    to: T,
    key: Box<[u8]>,
    /// The wire's form.
    end: Box<[u8]>,
    prev_kv: bool,
    no_put: bool,
    no_delete: bool,
    standing: Standing,
    /// In the index. Who has just fallen behind still is: it may come back soon, and thousands may
    /// fall in one turn.
    indexed: bool,
    /// Where it goes on. While it is synced: it is not to hear of anything before.
    cursor: ChangeCursor,
    /// A batch of this revision went out that is not its last.
    owed: Option<Revision>,
    /// A batch went out since anybody asked.
    spoke: bool,
}

impl<T> Watcher<T> {
    fn takes(&self, event: &Event<'_>) -> bool {
        !(if event.is_delete() { self.no_delete } else { self.no_put })
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        self.takes(event) && RangeEnd::from_bytes(&self.end).holds(&self.key, event.key())
    }

    fn bytes_of(&self, event: &Event<'_>) -> usize {
        let before = event.before().filter(|_| self.prev_kv);
        bytes_of(&event.kv()) + before.as_ref().map_or(0, bytes_of)
    }
}

struct Slot<T> {
    used: u32,
    watcher: Option<Watcher<T>>,
}

impl<T> Slot<T> {
    /// Whether a watch of this slot is the one that is open in it.
    fn holds(&self, id: WatchId) -> bool {
        self.used == id.used && self.watcher.is_some()
    }
}

/// All watches of a node. `T` says where the batches of one go.
pub struct Watches<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    seed: u64,
    /// Events in one batch, unless a single one is larger. Bytes.
    batch_bytes: usize,
    /// The synced watches of single keys, by the key's hash.
    singles: BTreeSet<(u64, u32)>,
    /// The synced watches of ranges.
    ranges: Ranges,
    synced: usize,
    /// How far all who are synced have heard.
    fed: ChangeCursor,
    /// The revision that they hear of now, if it is large.
    large: Option<Large>,
    known: Known,
    behind: Behind,
    /// Whom a change is for, and which change, by its place in the ring, and what one is to hear.
    /// Kept for their memory.
    hits: Vec<u32>,
    matches: Vec<(u32, usize)>,
    events: Vec<Event<'static>>,
}

impl<T: Copy> Watches<T> {
    /// None. The seed is the hash's; a batch has events of so many bytes, unless a single one is
    /// larger.
    pub fn new(seed: u64, batch_bytes: usize) -> Watches<T> {
        Watches {
            slots: Vec::new(),
            free: Vec::new(),
            seed,
            batch_bytes,
            singles: BTreeSet::new(),
            ranges: Ranges::new(),
            synced: 0,
            fed: ChangeCursor::at(Revision(0)),
            large: None,
            known: Known::default(),
            behind: Behind::default(),
            hits: Vec::new(),
            matches: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Begins a watch. From a revision on that the store has not made yet, it waits for it.
    pub fn open(&mut self, store: &Store, spec: &WatchSpec<'_>, to: T) -> WatchId {
        let next = store.revision.next();
        let start = if spec.start == Revision(0) { next } else { spec.start };
        let watcher = Watcher {
            to,
            key: spec.key.into(),
            end: spec.end.as_bytes().into(),
            prev_kv: spec.prev_kv,
            no_put: spec.no_put,
            no_delete: spec.no_delete,
            standing: Standing::Behind,
            indexed: false,
            cursor: ChangeCursor::at(start),
            owed: None,
            spoke: false,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { used: 0, watcher: None });
            u32::try_from(self.slots.len() - 1).expect("limits.rs bounds the watches")
        });
        let place = &mut self.slots[index(slot)];
        // Of four thousand million before it in this place, none is known any more.
        place.used = place.used.wrapping_add(1);
        place.watcher = Some(watcher);
        if start >= next {
            if self.synced == 0 {
                self.pass_to(next);
            }
            self.join(slot);
        } else {
            self.queue(slot);
        }
        self.id_of(slot)
    }

    /// Ends a watch.
    pub fn close(&mut self, id: WatchId) {
        let Some(watcher) = self.get(id) else { return };
        self.synced -= usize::from(watcher.standing == Standing::Synced);
        self.leave_index(id.slot);
        self.known.take(id);
        self.slots[index(id.slot)].watcher = None;
        self.free.push(id.slot);
        self.forget_closed();
    }

    /// A watch that is closed while it is behind leaves its name in the queue, and nobody looks
    /// there while no watch is open, or while the first one finds no room: so the queue is never
    /// longer than twice the watches there are.
    fn forget_closed(&mut self) {
        if self.behind.len() > 2 * self.len() {
            let slots = &self.slots;
            self.behind.retain(|id| slots[index(id.slot)].holds(id));
        }
    }

    /// What a watch is of: the first key, and where the range ends. `None`: it has ended.
    pub fn range_of(&self, id: WatchId) -> Option<(&[u8], RangeEnd<'_>)> {
        self.get(id).map(|it| (&*it.key, RangeEnd::from_bytes(&it.end)))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// There is room for a watch that had none.
    pub fn unpark(&mut self, id: WatchId) {
        if self.get(id).is_some_and(|watcher| watcher.standing == Standing::Parked) {
            self.queue(id.slot);
        }
    }

    /// Up to which revision a watch has got everything. `None`: it has ended.
    pub fn heard(&self, store: &Store, id: WatchId) -> Option<Revision> {
        let watcher = self.get(id)?;
        let next = match watcher.standing {
            Standing::Synced => {
                self.fed.revision.max(watcher.cursor.revision.min(store.revision.next()))
            }
            // One that waits for a revision has got everything too.
            Standing::Behind | Standing::Parked => {
                watcher.cursor.revision.min(store.revision.next())
            }
        };
        Some(Revision(next.0.saturating_sub(1)))
    }

    /// Whether a watch's first revision has been made, and it has got everything.
    pub fn is_synced(&self, store: &Store, id: WatchId) -> bool {
        self.get(id).is_some_and(|watcher| {
            watcher.standing == Standing::Synced && watcher.cursor.revision <= store.revision.next()
        }) && self.fed.revision > store.revision
    }

    /// What may be said of a watch to which nothing comes: up to which revision it has got
    /// everything. One that reads a long history without finding anything has got that. `None`:
    /// nothing, for it waits for a revision, or is owed the rest of one.
    pub fn bookmark(&self, store: &Store, id: WatchId) -> Option<Revision> {
        let watcher = self.get(id).filter(|watcher| watcher.owed.is_none())?;
        match watcher.standing {
            Standing::Synced => Some(store.revision).filter(|_| self.is_synced(store, id)),
            Standing::Behind | Standing::Parked => self.heard(store, id),
        }
    }

    /// Whether something has come to a watch since this was asked last.
    pub fn take_spoke(&mut self, id: WatchId) -> bool {
        let watcher = self.slots.get_mut(index(id.slot)).filter(|slot| slot.used == id.used);
        let watcher = watcher.and_then(|slot| slot.watcher.as_mut());
        watcher.is_some_and(|watcher| std::mem::replace(&mut watcher.spoke, false))
    }

    /// The first change that the synced have not heard of. To be told to the store's
    /// `hold_changes` whenever the store is about to change.
    pub fn first_unheard(&self) -> Option<Revision> {
        if self.synced > 0 { Some(self.fed.revision) } else { None }
    }

    /// Whether a turn would bring somebody further.
    pub fn has_work(&self, store: &Store) -> bool {
        !self.behind.is_empty() || (self.synced > 0 && self.fed.revision <= store.revision)
    }

    /// Hands out what was changed since, and lets those behind read on: a bounded piece. Of a
    /// revision that is being made nobody hears before it is.
    pub fn advance(&mut self, store: &Store, outlet: &mut impl Outlet<T>) {
        if store.is_halfway() {
            return;
        }
        let mut bytes = BYTES_PER_TURN;
        self.feed(store, outlet, &mut bytes);
        self.catch_up(store, outlet, &mut bytes);
    }

    /// Another store, which has applied more, has taken the place of the one before.
    pub fn on_store_replaced(&mut self, outlet: &mut impl Outlet<T>) {
        // Within a revision, its order may be another.
        self.pass_to(self.fed.revision);
        self.known = Known::default();
        for slot in 0..u32::try_from(self.slots.len()).expect("limits.rs bounds the watches") {
            let Some(watcher) = &mut self.slots[index(slot)].watcher else { continue };
            watcher.cursor.skip = 0;
            if watcher.owed.is_some() {
                outlet.end(watcher.to, WatchEnd::Interrupted);
                self.close(self.id_of(slot));
            }
        }
    }

    fn feed(&mut self, store: &Store, outlet: &mut impl Outlet<T>, bytes: &mut usize) {
        let (mut steps, mut left) = (STEPS_PER_TURN, MATCHES_PER_TURN);
        while self.fed.revision <= store.revision && steps > 0 && left > 0 {
            if self.synced == 0 {
                self.pass_to(store.revision.next());
            } else if self.fed.revision < store.first_change() {
                // Another store: who missed something cannot be told from who did not.
                self.fall_behind_all();
            } else if self.is_large_next(store) {
                if self.feed_large(store, outlet, (&mut steps, &mut left), bytes).is_break() {
                    break;
                }
            } else {
                self.gather(store, &mut steps, left);
                left = left.saturating_sub(self.matches.len());
                self.hand_out(store, outlet, bytes);
            }
        }
        // A large one that they are hearing of is held for them, whatever its size.
        let large = self.large.is_some();
        let lags_from = if large { self.fed.revision.next() } else { self.fed.revision };
        if store.changes_from(lags_from) > LAG_MAX {
            self.fall_behind_all();
        }
    }

    /// The next revision to be fed is this one, from its beginning.
    fn pass_to(&mut self, revision: Revision) {
        self.fed = ChangeCursor::at(revision);
        self.large = None;
    }

    /// Finds who is to hear of the next changes, in whole revisions, up to a large one.
    fn gather(&mut self, store: &Store, steps: &mut usize, left: usize) {
        assert!(self.matches.is_empty(), "what was found before is handed out");
        assert!(!self.fed.is_within(), "only a large revision is fed in slices");
        for place in store.changes.place_of(self.fed.revision).. {
            let Some(change) = store.changes.get(place) else {
                self.fed = ChangeCursor::at(store.revision.next());
                return;
            };
            let full = *steps == 0 || self.matches.len() >= left;
            if !self.fed.is_within() && (full || self.is_large(store, place)) {
                return;
            }
            *steps = steps.saturating_sub(self.find(store, place));
            self.matches.extend(self.hits.drain(..).map(|slot| (slot, place)));
            self.fed.pass(&store.changes, place, change.revision);
        }
    }

    /// Notes in `hits` who is to hear of one change. Says how many steps it took.
    fn find(&mut self, store: &Store, place: usize) -> usize {
        let Some(change) = store.changes.get(place) else { return 0 };
        let event = store.event(change, store.given_up());
        let mut hits = std::mem::take(&mut self.hits);
        let hash = xxh3_64_with_seed(event.key(), self.seed);
        hits.extend(self.singles.range((hash, 0)..=(hash, u32::MAX)).map(|(_, slot)| *slot));
        self.ranges.each_holding(event.key(), &mut |slot| hits.push(slot));
        let steps = 1 + hits.len() / LOOKS_PER_STEP;
        hits.retain(|slot| {
            let watcher = self.at(*slot);
            watcher.standing == Standing::Synced
                && watcher.cursor.revision <= change.revision
                && watcher.wants(&event)
        });
        self.hits = hits;
        steps
    }

    fn hand_out(&mut self, store: &Store, outlet: &mut impl Outlet<T>, bytes: &mut usize) {
        let mut matches = std::mem::take(&mut self.matches);
        matches.sort_unstable();
        let oldest = store.given_up();
        let mut events: Vec<Event<'_>> = std::mem::take(&mut self.events);
        for run in matches.chunk_by(|one, next| one.0 == next.0) {
            let slot = run[0].0;
            events.clear();
            events.extend(run.iter().map(|(_, place)| {
                let change = store.changes.get(*place);
                store.event(change.expect("nothing was cut since it was found"), oldest)
            }));
            self.at_mut(slot).spoke = true;
            let next = self.fed.revision;
            if let Some(missed) = self.write_whole(slot, &events, next, outlet, bytes) {
                self.fall_behind(slot, missed);
            }
        }
        matches.clear();
        self.matches = matches;
        events.clear();
        // In place: the standard library reuses the memory of what has the same layout.
        let none = |_: Event<'_>| -> Event<'static> { unreachable!("it is empty") };
        self.events = events.into_iter().map(none).collect();
    }

    /// Writes events in batches of whole revisions: all there are below `end`. Says at which
    /// revision it could not go on.
    fn write_whole(
        &self,
        slot: u32,
        events: &[Event<'_>],
        end: Revision,
        outlet: &mut impl Outlet<T>,
        turn_bytes: &mut usize,
    ) -> Option<Revision> {
        let watcher = self.at(slot);
        let mut rest = events;
        while let Some(first) = rest.first() {
            if *turn_bytes == 0 || outlet.room(watcher.to) != Room::Open {
                return Some(first.revision());
            }
            let (mut count, mut bytes) = (0, 0);
            for revision in rest.chunk_by(|one, next| one.revision() == next.revision()) {
                bytes += revision.iter().map(|event| watcher.bytes_of(event)).sum::<usize>();
                let fits = bytes <= self.batch_bytes || (count == 0 && revision.len() == 1);
                if !fits {
                    break;
                }
                count += revision.len();
            }
            if count == 0 {
                return Some(first.revision());
            }
            *turn_bytes = turn_bytes.saturating_sub(bytes);
            let (now, later) = rest.split_at(count);
            let next = later.first().map_or(end, Event::revision);
            let revision = Revision(next.0 - 1);
            let prev_kv = watcher.prev_kv;
            outlet.write(watcher.to, &Batch { revision, more: false, events: now, prev_kv });
            rest = later;
        }
        None
    }

    /// Enters a watch that has read everything among the synced. Says how many steps it took.
    fn join(&mut self, slot: u32) -> usize {
        self.synced += 1;
        let (hash, watcher) = self.hash_and_watcher(slot);
        watcher.standing = Standing::Synced;
        if std::mem::replace(&mut watcher.indexed, true) {
            return 0;
        }
        let (key, end) = (watcher.key.clone(), watcher.end.clone());
        match RangeEnd::from_bytes(&end) {
            RangeEnd::Key => drop(self.singles.insert((hash, slot))),
            RangeEnd::Unbounded => self.ranges.insert(&key, None, slot),
            RangeEnd::Before(end) => self.ranges.insert(&key, Some(end), slot),
        }
        FALL_STEPS
    }

    /// Takes a watch out of the index, if it is there. Says how many steps it took.
    fn leave_index(&mut self, slot: u32) -> usize {
        let (hash, watcher) = self.hash_and_watcher(slot);
        if !std::mem::replace(&mut watcher.indexed, false) {
            return 0;
        }
        let (key, single) = (watcher.key.clone(), watcher.end.is_empty());
        if single {
            self.singles.remove(&(hash, slot));
        } else {
            self.ranges.remove(&key, slot);
        }
        FALL_STEPS
    }

    /// A synced watch has to read on at a revision by itself.
    fn fall_behind(&mut self, slot: u32, revision: Revision) {
        self.synced -= 1;
        self.at_mut(slot).cursor = ChangeCursor::at(revision);
        self.queue(slot);
    }

    /// All synced watches have to read on by themselves: the index is left as a whole, for to leave
    /// it one by one takes milliseconds where there are thousands.
    fn fall_behind_all(&mut self) {
        let fed = self.fed.revision;
        self.singles.clear();
        self.ranges = Ranges::new();
        self.synced = 0;
        self.large = None;
        for slot in 0..u32::try_from(self.slots.len()).expect("limits.rs bounds the watches") {
            let Some(watcher) = &mut self.slots[index(slot)].watcher else { continue };
            watcher.indexed = false;
            if watcher.standing == Standing::Synced {
                watcher.cursor = ChangeCursor::at(watcher.cursor.revision.max(fed));
                self.queue(slot);
            }
        }
    }

    fn hash_and_watcher(&mut self, slot: u32) -> (u64, &mut Watcher<T>) {
        let seed = self.seed;
        let watcher = self.at_mut(slot);
        (xxh3_64_with_seed(&watcher.key, seed), watcher)
    }

    fn id_of(&self, slot: u32) -> WatchId {
        WatchId { slot, used: self.slots[index(slot)].used }
    }

    fn get(&self, id: WatchId) -> Option<&Watcher<T>> {
        let slot = self.slots.get(index(id.slot))?;
        slot.watcher.as_ref().filter(|_| slot.used == id.used)
    }

    fn at(&self, slot: u32) -> &Watcher<T> {
        self.slots[index(slot)].watcher.as_ref().expect("it stands in the index or the queue")
    }

    fn at_mut(&mut self, slot: u32) -> &mut Watcher<T> {
        self.slots[index(slot)].watcher.as_mut().expect("it stands in the index or the queue")
    }
}

fn index(slot: u32) -> usize {
    usize::try_from(slot).expect("raftd runs on 64 bits")
}

mod behind;
mod large;
#[cfg(test)]
mod tests;
