//! The watches of clients: who asked, and where their events go. `kv/watch.rs` decides what each is
//! to hear.
//!
//! A watch is named by the connection and the id of its request, and every member serves it, from
//! what it has applied. Events are written when the connection has read what came before, up to
//! `WATCH_OUT_HIGH_WATER`; else they wait in the history, where compaction may overtake them. When
//! all connections together hold much, only those are written to that have read everything; and
//! when they hold so much that nobody can be, those are closed that do not read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::connections::{ConnectionId, Connections};
use super::identity::denied;
use super::{Node, Stage};
use crate::kv::{
    Asker, Batch, Denial, Outlet, RangeEnd, Room, Store, WatchEnd, WatchId, WatchSpec, Watches,
};
use crate::limits;
use crate::types::{Instant, Revision};
use crate::wire::client::{Request, decode_status_args};
use crate::wire::error::{Error, error_reply};
use crate::wire::fields::DecodeError;
use crate::wire::watch::{
    WatchArgs, WatchHead, decode_watch_cancel, watch_cancel_reply, watch_progress_reply,
    watch_reply,
};

/// Nobody hears more often that nothing happened. Nanoseconds.
const PROGRESS_NS_MIN: u64 = 100_000_000;

/// So many watches at most are told so in one turn, a millisecond's work.
const PROGRESS_PER_TURN: usize = 1024;

/// So many watches at most are forgotten in one turn, 1 to 3 ms, because their connections are gone
/// or because all end: to leave the index costs more than a word.
const FORGOTTEN_PER_TURN: usize = 512;

/// What a watch takes beside its keys: its places in the tables. 10,000 of keys of 17 bytes cost
/// 3.3 MB. Bytes.
const WATCH_BYTES: usize = 304;

/// What a watch hears whose keys are too long.
const WATCH_KEYS_TOO_LONG: &str = "the key and the end of a watch have more than 16 KiB";
const _: () = assert!(limits::WATCH_KEYS_BYTES_MAX == 16 * 1024);

/// A watch's name.
pub(super) type Name = (ConnectionId, u64);

/// What is known of a watch here.
#[derive(Debug)]
struct Open {
    id: WatchId,
    asker: Asker,
    bytes: usize,
    /// From one word to the next; 0: there are none.
    progress_ns: u64,
    due_at: Instant,
}

/// All watches of a node's clients.
pub(super) struct ClientWatches {
    engine: Watches<Name>,
    open: BTreeMap<Name, Open>,
    due: BTreeSet<(Instant, Name)>,
    /// Connections with events that wait for them to read.
    parked: BTreeSet<ConnectionId>,
    /// Connections that are gone, and have watches.
    gone: VecDeque<ConnectionId>,
    /// All watches end, and hear this. Until the last one has, none is fed and none is opened.
    ending: Option<Error>,
    /// What this turn said last of the progress of a connection's watches: all of them are looked
    /// at for it, and it may be asked thousands of times.
    said: Option<(ConnectionId, Revision)>,
    /// The changes of rights by which they were judged last; `None`: they are to be judged.
    judged: Option<u64>,
    bytes: usize,
}

impl ClientWatches {
    pub(super) fn new(seed: u64, batch_bytes: usize) -> ClientWatches {
        ClientWatches {
            engine: Watches::new(seed, batch_bytes),
            open: BTreeMap::new(),
            due: BTreeSet::new(),
            parked: BTreeSet::new(),
            gone: VecDeque::new(),
            ending: None,
            said: None,
            judged: None,
            bytes: 0,
        }
    }

    fn of(&self, connection: ConnectionId) -> impl Iterator<Item = (Name, WatchId)> {
        let all = self.open.range((connection, 0)..=(connection, u64::MAX));
        all.map(|(name, open)| (*name, open.id))
    }

    fn forget(&mut self, name: Name) -> bool {
        let Some(open) = self.open.remove(&name) else { return false };
        self.engine.close(open.id);
        self.due.remove(&(open.due_at, name));
        self.bytes -= open.bytes;
        true
    }

    /// The watches of a connection that is gone end, a slice a turn. What they hear until then goes
    /// nowhere.
    pub(super) fn on_closed(&mut self, connection: ConnectionId) {
        if self.of(connection).next().is_some() {
            self.gone.push_back(connection);
        }
        self.parked.remove(&connection);
    }

    /// Says how many more may be forgotten in this turn.
    fn forget_gone(&mut self) -> usize {
        let mut left = FORGOTTEN_PER_TURN;
        while left > 0
            && let Some(connection) = self.gone.pop_front()
        {
            let names: Vec<Name> = self.of(connection).map(|(name, _)| name).take(left).collect();
            left -= names.len();
            for name in names {
                self.forget(name);
            }
            if left == 0 {
                self.gone.push_front(connection);
            }
        }
        left
    }

    /// Whether somebody is to hear of what changes.
    fn are_fed(&self) -> bool {
        !self.open.is_empty() && self.ending.is_none()
    }

    /// All that are open end, a slice a turn, and hear why: who hears so later hears nothing else
    /// in between, even if the reason is gone by then. The state that it has heard of is not the
    /// one that would go on.
    fn end_all(&mut self, error: &Error) {
        if self.are_fed() {
            self.ending = Some(error.clone());
        }
    }

    /// Ends the next of them, so many at most.
    fn continue_ending(&mut self, connections: &mut Connections, most: usize) {
        let Some(error) = &self.ending else { return };
        let names: Vec<Name> = self.open.keys().take(most).copied().collect();
        for name in &names {
            connections.write(name.0, |out| error_reply(out, name.1, error));
        }
        for name in names {
            self.forget(name);
        }
        if self.open.is_empty() {
            self.ending = None;
        }
    }

    fn unpark(&mut self, connection: ConnectionId) {
        let ids: Vec<WatchId> = self.of(connection).map(|(_, id)| id).collect();
        ids.into_iter().for_each(|id| self.engine.unpark(id));
    }

    /// Up to which revision no watch of a connection misses anything.
    fn heard_by(&mut self, connection: ConnectionId, store: &Store) -> Revision {
        if let Some((_, revision)) = self.said.filter(|(to, _)| *to == connection) {
            return revision;
        }
        let heard = self.of(connection).filter_map(|(_, watch)| self.engine.heard(store, watch));
        let revision = heard.min().unwrap_or(store.revision());
        self.said = Some((connection, revision));
        revision
    }

    /// A watch of a connection was opened.
    fn note_opened(&mut self, connection: ConnectionId, watch: WatchId, store: &Store) {
        if let Some((to, revision)) = &mut self.said
            && *to == connection
            && let Some(heard) = self.engine.heard(store, watch)
        {
            *revision = heard.min(*revision);
        }
    }

    /// Whether rights have changed since this was asked.
    pub(super) fn must_judge(&mut self, changes: u64) -> bool {
        self.judged.replace(changes) != Some(changes)
    }

    /// The watches that may not go on, while rights count.
    pub(super) fn denied(&self, store: &Store) -> Vec<(Name, Denial)> {
        let judge = |open: &Open| {
            let (key, end) = self.engine.range_of(open.id)?;
            let rights = store.auth().rights(open.asker);
            rights.and_then(|rights| rights.read(key, end)).err()
        };
        let all = self.open.iter();
        all.filter_map(|(name, open)| Some((*name, judge(open)?))).collect()
    }

    /// Whether the next turn must not wait.
    pub(super) fn has_work(&self, store: &Store, connections: &Connections) -> bool {
        let feeds = self.are_fed() && connections.has_room_for_large();
        let ends = !self.gone.is_empty() || self.ending.is_some();
        ends || (feeds && self.engine.has_work(store))
    }

    /// When somebody is to hear that nothing happened.
    pub(super) fn wake_at(&self) -> Instant {
        self.due.first().map_or(Instant::FAR, |(due_at, _)| *due_at)
    }
}

/// Out-buffers, as the engine sees them.
struct ToConnections<'n> {
    connections: &'n mut Connections,
    parked: &'n mut BTreeSet<ConnectionId>,
    ended: Vec<Name>,
}

impl Outlet<Name> for ToConnections<'_> {
    fn room(&mut self, (connection, _): Name) -> Room {
        if !self.connections.has_room_for_large() {
            return Room::Full;
        }
        if self.connections.takes_events(connection) {
            return Room::Open;
        }
        self.parked.insert(connection);
        Room::Parked
    }

    fn write(&mut self, name: Name, batch: &Batch<'_, '_>) {
        let Batch { revision, more, events, prev_kv } = *batch;
        let head = WatchHead { revision, more };
        let events = events.iter().map(|event| {
            let before = if prev_kv { event.before() } else { None };
            (event.kv(), before)
        });
        self.connections.write(name.0, |out| watch_reply(out, name.1, head, events));
    }

    fn end(&mut self, name: Name, why: WatchEnd) {
        let error = match why {
            WatchEnd::Compacted { compact_revision } => Error::Compacted { compact_revision },
            WatchEnd::Interrupted => {
                Error::NotReady { why: "the state came anew in the middle of a revision".into() }
            }
        };
        self.connections.write(name.0, |out| error_reply(out, name.1, &error));
        self.ended.push(name);
    }
}

fn spec<'a>(args: &WatchArgs<'a>) -> WatchSpec<'a> {
    let WatchArgs { key, end, start, prev_kv, no_put, no_delete, .. } = *args;
    let end = RangeEnd::from_bytes(end);
    WatchSpec { key, end, start, prev_kv, no_put, no_delete }
}

fn bad(why: &DecodeError) -> Error {
    Error::BadRequest { why: why.to_string().into() }
}

impl Node {
    pub(super) fn admit_watch(
        &mut self,
        id: ConnectionId,
        asker: Asker,
        request: &Request<'_>,
        now: Instant,
    ) -> Result<(), Error> {
        self.check_watchable()?;
        let args = WatchArgs::decode(request.args).map_err(|why| bad(&why))?;
        let name = (id, request.id);
        if self.watches.open.contains_key(&name) {
            return Err(Error::BadRequest { why: "a watch has this id".into() });
        }
        let keys = args.key.len() + args.end.len();
        if keys > limits::WATCH_KEYS_BYTES_MAX {
            return Err(Error::BadRequest { why: WATCH_KEYS_TOO_LONG.into() });
        }
        self.may_watch(asker, args.key, RangeEnd::from_bytes(args.end)).map_err(denied)?;
        let bytes = WATCH_BYTES + 2 * keys;
        if self.watches.bytes + bytes > limits::WATCHES_BYTES_MAX {
            return Err(Error::Busy { what: "too many watches".into() });
        }
        self.watches.bytes += bytes;
        let watch = self.watches.engine.open(&self.store, &spec(&args), name);
        let progress_ns = match args.progress_ms.saturating_mul(1_000_000) {
            0 => 0,
            ns => ns.max(PROGRESS_NS_MIN),
        };
        let due_at = if progress_ns == 0 { Instant::FAR } else { now.after_ns(progress_ns) };
        if progress_ns > 0 {
            self.watches.due.insert((due_at, name));
        }
        let open = Open { id: watch, asker, bytes, progress_ns, due_at };
        self.watches.open.insert(name, open);
        self.watches.note_opened(id, watch, &self.store);
        // Of what comes in this turn it is to hear, even if it is compacted in the same.
        self.store.hold_changes(self.watches.engine.first_unheard());
        let newest = self.store.revision();
        let before = Revision(args.start.0.saturating_sub(1));
        let revision = if args.start == Revision(0) { newest } else { newest.min(before) };
        let head = WatchHead { revision, more: false };
        self.connections.write(id, |out| watch_reply(out, request.id, head, [].into_iter()));
        Ok(())
    }

    /// A server that is no member yet knows nothing; one that is to stop sends its clients away.
    fn check_watchable(&self) -> Result<(), Error> {
        if let Some(error) = &self.watches.ending {
            return Err(error.clone());
        }
        match &self.stage {
            Stage::Member(_) if self.leaving.is_none() => Ok(()),
            Stage::Member(_) => Err(Error::NotReady { why: "this server is stopping".into() }),
            Stage::Alone(_) | Stage::Founding => {
                Err(Error::NotReady { why: "this server is not a member yet".into() })
            }
        }
    }

    pub(super) fn cancel_watch(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
    ) -> Result<(), Error> {
        let watch = decode_watch_cancel(request.args).map_err(|why| bad(&why))?;
        let was_open = self.watches.forget((id, watch));
        self.connections.write(id, |out| watch_cancel_reply(out, request.id, was_open));
        Ok(())
    }

    /// Says up to which revision no watch of the connection misses anything.
    pub(super) fn answer_watch_progress(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
    ) -> Result<(), Error> {
        decode_status_args(request.args).map_err(|why| bad(&why))?;
        let revision = self.watches.heard_by(id, &self.store);
        self.connections.write(id, |out| watch_progress_reply(out, request.id, revision));
        Ok(())
    }

    /// Hands out what was applied, and lets those behind read on.
    pub(super) fn feed_watches(&mut self, now: Instant) {
        self.watches.said = None;
        let left = self.watches.forget_gone();
        self.watches.continue_ending(&mut self.connections, left);
        if !self.watches.are_fed() {
            self.connections.events_wait = false;
            return self.store.hold_changes(None);
        }
        self.judge_watches();
        self.with_watches(|engine, store, outlet| engine.advance(store, outlet));
        self.say_progress(now);
        self.connections.events_wait = self.watches.engine.has_work(&self.store);
        self.store.hold_changes(self.watches.engine.first_unheard());
    }

    /// Lets the engine write to the connections, and forgets the watches that it ends.
    fn with_watches(
        &mut self,
        work: impl FnOnce(&mut Watches<Name>, &Store, &mut ToConnections<'_>),
    ) {
        let ClientWatches { engine, parked, .. } = &mut self.watches;
        let connections = &mut self.connections;
        let mut outlet = ToConnections { connections, parked, ended: Vec::new() };
        work(engine, &self.store, &mut outlet);
        for name in outlet.ended {
            self.watches.forget(name);
        }
    }

    /// A connection has read: perhaps enough for more events.
    pub(super) fn unpark_watches(&mut self, id: ConnectionId) {
        if self.watches.parked.contains(&id) && self.connections.takes_events(id) {
            self.watches.parked.remove(&id);
            self.watches.unpark(id);
        }
    }

    /// Says that nothing happened, if it is known: a server that is cut off, or takes no entries
    /// for want of space, says nothing, so that its clients go elsewhere.
    fn say_progress(&mut self, now: Instant) {
        if self.store.is_halfway() {
            return; // nobody is told of half an entry, and the next turn comes by itself
        }
        let keeps_up = match &self.stage {
            Stage::Member(raft) => raft.leader().is_some() && !raft.lacks_room(),
            Stage::Alone(_) | Stage::Founding => false,
        };
        for _ in 0..PROGRESS_PER_TURN {
            let Some((due_at, name)) = self.watches.due.first().copied() else { return };
            if due_at > now {
                return;
            }
            self.watches.due.remove(&(due_at, name));
            let open = self.watches.open.get_mut(&name).expect("it is due as long as it is open");
            open.due_at = now.after_ns(open.progress_ns);
            self.watches.due.insert((open.due_at, name));
            let engine = &mut self.watches.engine;
            let spoke = engine.take_spoke(open.id);
            let reads = self.connections.takes_events(name.0);
            if !spoke
                && reads
                && keeps_up
                && let Some(revision) = engine.bookmark(&self.store, open.id)
            {
                let head = WatchHead { revision, more: false };
                self.connections.write(name.0, |out| {
                    watch_reply(out, name.1, head, [].into_iter());
                });
            }
        }
    }

    /// Ends all watches, a slice a turn, and says why. From now on none of them is fed.
    pub(super) fn end_watches(&mut self, error: &Error) {
        self.watches.end_all(error);
    }

    /// Ends a watch, and says why.
    pub(super) fn end_watch(&mut self, name: Name, error: &Error) {
        self.connections.write(name.0, |out| error_reply(out, name.1, error));
        self.watches.forget(name);
    }

    /// A snapshot's store has taken the place of ours.
    pub(super) fn watch_new_store(&mut self) {
        self.watches.judged = None;
        self.with_watches(|engine, _, outlet| engine.on_store_replaced(outlet));
        self.store.hold_changes(self.watches.engine.first_unheard());
        let count = self.watches.open.len();
        log::debug!("watches go on with a snapshot count={count}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::connections::Party;
    use super::*;
    use crate::kv::StoreOptions;

    fn open(watches: &mut ClientWatches, store: &Store, name: Name, start: Revision) {
        let (key, end) = (&b"key"[..], RangeEnd::Key);
        let (prev_kv, no_put, no_delete) = (false, false, false);
        let spec = WatchSpec { key, end, start, prev_kv, no_put, no_delete };
        let id = watches.engine.open(store, &spec, name);
        let (asker, due_at) = (Asker::NOBODY, Instant::FAR);
        watches.open.insert(name, Open { id, asker, bytes: 7, progress_ns: 0, due_at });
        watches.bytes += 7;
        watches.note_opened(name.0, id, store);
    }

    fn empty() -> (Store, ClientWatches, [ConnectionId; 2]) {
        let store = Store::new(StoreOptions { index_seed: 1, history_bytes_max: 1 });
        (store, ClientWatches::new(1, 1), [1, 2].map(|slot| ConnectionId::new(slot, 1)))
    }

    /// Ten thousand watches of one connection ended in the turn that saw it go, and all others
    /// waited for that.
    #[test]
    fn the_watches_of_a_connection_that_is_gone_are_forgotten_a_slice_a_turn() {
        let (store, mut watches, [gone, stays]) = empty();
        let few = u64::try_from(FORGOTTEN_PER_TURN + 5).expect("some");
        for name in (0..few).map(|nth| (gone, nth)).chain([(stays, 1)]) {
            open(&mut watches, &store, name, Revision(0));
        }
        let connections = Connections::default();
        watches.on_closed(gone);
        for left in [6, 1] {
            assert!(watches.has_work(&store, &connections), "there is more to forget");
            watches.forget_gone();
            assert_eq!((watches.open.len(), watches.bytes), (left, 7 * left));
            assert_eq!(watches.engine.len(), left);
        }
        assert!(!watches.has_work(&store, &connections));
        assert!(watches.open.contains_key(&(stays, 1)));
    }

    /// A server whose state was found to be another one ended ten thousand watches in the turn that
    /// found it, and its peers waited for that.
    #[test]
    fn all_watches_end_a_slice_a_turn_and_none_is_fed_meanwhile() {
        let (store, mut watches, [one, gone]) = empty();
        let few = u64::try_from(FORGOTTEN_PER_TURN).expect("some");
        for name in (0..few + 5).map(|nth| (one, nth)).chain([(gone, 1), (gone, 2)]) {
            open(&mut watches, &store, name, Revision(0));
        }
        let mut connections = Connections::default();
        connections.open(one, Party::Client);
        let error = Error::NotReady { why: "the state is another one".into() };
        watches.end_all(&error);
        watches.end_all(&Error::NotReady { why: "it is still silent".into() });
        watches.on_closed(gone);
        let mut expected = Vec::new();
        for (left, words) in [(7, few - 2), (0, few + 5)] {
            assert!(watches.has_work(&store, &connections) && !watches.are_fed());
            assert_eq!(watches.ending.as_ref(), Some(&error), "they hear what was said first");
            let most = watches.forget_gone();
            watches.continue_ending(&mut connections, most);
            assert_eq!((watches.open.len(), watches.engine.len()), (left, left));
            expected.clear();
            (0..words).for_each(|nth| error_reply(&mut expected, nth, &error));
            assert!(connections.unsent(one) == expected, "each hears it, once");
        }
        assert!(!watches.has_work(&store, &connections) && watches.ending.is_none());
        watches.end_all(&error);
        assert_eq!(watches.ending, None, "there is nobody to tell");
    }

    /// Each question looked at all watches of the connection, and a turn may take thousands.
    #[test]
    fn progress_that_is_asked_for_again_in_a_turn_is_not_looked_up_again() {
        let (store, mut watches, [one, other]) = empty();
        open(&mut watches, &store, (one, 1), Revision(0));
        assert_eq!(watches.heard_by(one, &store), Revision(1));
        open(&mut watches, &store, (one, 2), Revision(1));
        assert_eq!(watches.heard_by(one, &store), Revision(0), "it has heard nothing yet");
        watches.forget((one, 2));
        assert_eq!(watches.heard_by(one, &store), Revision(0), "it was not looked up");
        assert_eq!(watches.heard_by(other, &store), Revision(1), "another one's was");
        assert_eq!(watches.heard_by(one, &store), Revision(1));
    }
}
