//! The watches of clients: who asked, and where their events go. `kv/watch.rs` decides what each is
//! to hear.
//!
//! A watch is named by the connection and the id of its request, and every member serves it, from
//! what it has applied. Events are written when the connection has read what came before, up to
//! `WATCH_OUT_HIGH_WATER`; else they wait in the history, where compaction may overtake them. When
//! all connections together hold much, only those are written to that have read everything; and
//! when they hold so much that nobody can be, those are closed that do not read.

use std::collections::{BTreeMap, BTreeSet};

use super::connections::{ConnectionId, Connections};
use super::{Node, Stage};
use crate::kv::{Batch, Outlet, RangeEnd, Room, Store, WatchEnd, WatchId, WatchSpec, Watches};
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

/// What a watch takes beside its keys: its places in the tables. 10,000 of keys of 17 bytes cost
/// 3.3 MB. Bytes.
const WATCH_BYTES: usize = 304;

/// A watch's name.
type Name = (ConnectionId, u64);

/// What is known of a watch here.
#[derive(Debug)]
struct Open {
    id: WatchId,
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
    bytes: usize,
}

impl ClientWatches {
    pub(super) fn new(seed: u64, batch_bytes: usize) -> ClientWatches {
        ClientWatches {
            engine: Watches::new(seed, batch_bytes),
            open: BTreeMap::new(),
            due: BTreeSet::new(),
            parked: BTreeSet::new(),
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

    /// Ends the watches of a connection that is gone.
    pub(super) fn on_closed(&mut self, connection: ConnectionId) {
        let names: Vec<Name> = self.of(connection).map(|(name, _)| name).collect();
        for name in names {
            self.forget(name);
        }
        self.parked.remove(&connection);
    }

    fn unpark(&mut self, connection: ConnectionId) {
        let ids: Vec<WatchId> = self.of(connection).map(|(_, id)| id).collect();
        ids.into_iter().for_each(|id| self.engine.unpark(id));
    }

    /// Whether the next turn must not wait.
    pub(super) fn has_work(&self, store: &Store, connections: &Connections) -> bool {
        !self.open.is_empty() && connections.has_room_for_large() && self.engine.has_work(store)
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
        request: &Request<'_>,
        now: Instant,
    ) -> Result<(), Error> {
        self.check_watchable()?;
        let args = WatchArgs::decode(request.args).map_err(|why| bad(&why))?;
        let name = (id, request.id);
        if self.watches.open.contains_key(&name) {
            return Err(Error::BadRequest { why: "a watch has this id".into() });
        }
        let bytes = WATCH_BYTES + 2 * (args.key.len() + args.end.len());
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
        let open = Open { id: watch, bytes, progress_ns, due_at };
        self.watches.open.insert(name, open);
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
        let heard = |(_, watch)| self.watches.engine.heard(&self.store, watch);
        let least = self.watches.of(id).filter_map(heard).min();
        let revision = least.unwrap_or(self.store.revision());
        self.connections.write(id, |out| watch_progress_reply(out, request.id, revision));
        Ok(())
    }

    /// Hands out what was applied, and lets those behind read on.
    pub(super) fn feed_watches(&mut self, now: Instant) {
        if self.watches.open.is_empty() {
            self.connections.events_wait = false;
            return self.store.hold_changes(None);
        }
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

    /// Says that nothing happened, if it is known: a server that is cut off says nothing, so that
    /// its clients go elsewhere.
    fn say_progress(&mut self, now: Instant) {
        let hears_leader = match &self.stage {
            Stage::Member(raft) => raft.leader().is_some(),
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
            if !spoke && reads && hears_leader && engine.is_synced(&self.store, open.id) {
                let head = WatchHead { revision: self.store.revision(), more: false };
                self.connections.write(name.0, |out| {
                    watch_reply(out, name.1, head, [].into_iter());
                });
            }
        }
    }

    /// Ends all watches, and says why.
    pub(super) fn end_watches(&mut self, error: &Error) {
        let names: Vec<Name> = self.watches.open.keys().copied().collect();
        for name in names {
            self.connections.write(name.0, |out| error_reply(out, name.1, error));
            self.watches.forget(name);
        }
    }

    /// A snapshot's store has taken the place of ours.
    pub(super) fn watch_new_store(&mut self) {
        self.with_watches(|engine, _, outlet| engine.on_store_replaced(outlet));
        self.store.hold_changes(self.watches.engine.first_unheard());
        let count = self.watches.open.len();
        log::debug!("watches go on with a snapshot count={count}");
    }
}
