//! Ranges, which may be of any size: begun at once, and if a turn does not end one, gone on with in
//! the turns that follow.
//!
//! ```text
//! asked     → confirmed (`reads`), or at once if it is serializable
//! begun     → its first part is written; is there more, its revision is pinned in the store
//! under way → the next part, if the client has read enough of those before; they take turns
//! ended     → the last part; or an error: the store was replaced, or compaction is so far ahead
//!             that what the revision keeps from it would be too much
//! ```
//!
//! A range under way keeps no keys but those that it has sorted so far, and where it is. So an
//! answer costs the server the same memory however long it is, and a client that does not read
//! costs it what the pinned revision holds back: as much as the history may be, at most.

use super::Node;
use super::apply::error_of_range;
use super::connections::{ConnectionId, Deferred, Written};
use super::pending::Waiter;
use crate::kv::{Asker, RangeEnd, RangeRequest, RangeWalk, SliceLimits, Sliced, Store};
use crate::limits;
use crate::types::{Instant, Revision};
use crate::wire::client::{Op, RangeArgs};
use crate::wire::error::Error;
use crate::wire::reply::{RangeReplyWriter, error_reply};
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

/// A client that has not read enough for the next part after so long is left. Nanoseconds.
const PATIENCE_NS: u64 = 30_000_000_000;

/// A range under way.
#[derive(Debug)]
struct Running {
    waiter: Waiter,
    args: Vec<u8>,
    walk: RangeWalk,
    /// When the patience with its client ends.
    due_at: Instant,
}

impl Running {
    /// What it asks counts for. Bytes.
    fn args_bytes(&self) -> usize {
        self.args.capacity() + size_of::<Running>()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    list: VecDeque<Running>,
    /// How many of them a connection has; it is here if it has any.
    of: BTreeMap<ConnectionId, usize>,
    /// What they ask, and what they keep. Bytes.
    args_bytes: usize,
    kept_bytes: usize,
    /// Steps of this turn that are left for ranges that begin, and for lists about leases.
    fresh_steps: usize,
    /// The last turn looked at a key, for a range that began or for one under way.
    pub(super) walked: bool,
}

impl Ranges {
    /// What they ask counts for. Bytes.
    pub(super) fn args_bytes(&self) -> usize {
        self.args_bytes
    }

    /// Whether this turn can begin another.
    pub(super) fn may_begin(&self) -> bool {
        self.fresh_steps > 0
    }

    /// What this turn may still look at for those that begin. Steps.
    pub(super) fn fresh_steps(&self) -> usize {
        self.fresh_steps
    }

    /// So many steps of this turn are left.
    pub(super) fn spend_to(&mut self, left: usize) {
        assert!(left <= self.fresh_steps, "what was looked at is not given back");
        self.fresh_steps = left;
    }

    pub(super) fn wake_at(&self) -> Instant {
        self.list.iter().map(|running| running.due_at).min().unwrap_or(Instant::FAR)
    }

    fn push(&mut self, running: Running) {
        self.args_bytes += running.args_bytes();
        self.kept_bytes += running.walk.bytes();
        *self.of.entry(running.waiter.connection).or_default() += 1;
        self.list.push_back(running);
    }

    fn pop(&mut self) -> Option<Running> {
        let running = self.list.pop_front()?;
        self.args_bytes -= running.args_bytes();
        self.kept_bytes -= running.walk.bytes();
        let connection = running.waiter.connection;
        let count = self.of.get_mut(&connection).expect("it was counted when it was pushed");
        *count -= 1;
        if *count == 0 {
            self.of.remove(&connection);
        }
        Some(running)
    }

    /// Takes out those for which `ends` holds.
    fn take_if(&mut self, ends: impl Fn(&Running) -> bool) -> Vec<Running> {
        let mut taken = Vec::new();
        for _ in 0..self.list.len() {
            let Some(running) = self.pop() else { break };
            if ends(&running) { taken.push(running) } else { self.push(running) }
        }
        taken
    }

    /// Why another one of this connection that keeps so many bytes cannot be under way.
    fn no_room_for(&self, connection: ConnectionId, bytes: usize) -> Option<Error> {
        let own = self.of.get(&connection).copied().unwrap_or_default();
        let bytes = self.kept_bytes + bytes;
        let full = self.list.len() >= limits::RANGES_MAX
            || (bytes > limits::RANGES_BYTES_MAX && !self.list.is_empty());
        let what = match (full, own >= limits::CONNECTION_RANGES_MAX) {
            (true, _) => "too many ranges are under way",
            (false, true) => "too many ranges of this connection are under way",
            (false, false) => return None,
        };
        Some(Error::Busy { what: what.into() })
    }
}

impl Node {
    /// Answers a range from the applied state, or begins to. Later, if the client does not read
    /// fast enough or this turn has begun enough.
    pub(super) fn answer_range(&mut self, waiter: Waiter, asker: Asker, args: &RangeArgs<'_>) {
        let Waiter { connection: id, request } = waiter;
        // One key as it is now costs what every request costs.
        let point = args.end.is_empty() && args.revision == Revision(0);
        let steps = if point { usize::MAX } else { self.ranges.fresh_steps };
        // Large replies wait for room; small ones need not wait for those who do not read.
        let large = self.connections.has_room_for_large();
        let most = if large { usize::MAX } else { limits::RANGE_REPLY_BYTES_SMALL };
        let mut left = SliceLimits { steps, bytes: self.options.working.range_part_bytes };
        let (store, mut begun) = (&self.store, None);
        let written = match steps {
            0 => Written::Nothing,
            _ => self.connections.answer_if_read(id, |out| {
                let mut walk = match store.begin_walk(&request_of(args)) {
                    Ok(walk) => walk,
                    Err(why) => {
                        error_reply(out, request, &error_of_range(why));
                        return Written::Whole;
                    }
                };
                let start = out.len();
                let written = write_part(out, store, request, args, (&mut walk, &mut left));
                if !large && (written == Written::Part || out.len() - start > most) {
                    out.truncate(start);
                    return Written::Nothing;
                }
                begun = Some(walk);
                written
            }),
        };
        if !point {
            self.ranges.fresh_steps = left.steps;
        }
        match (written, begun) {
            (Written::Part, Some(walk)) => {
                let mut encoded = Vec::new();
                args.encode(&mut encoded);
                self.store.pin_walk(&walk);
                let due_at = self.now.after_ns(PATIENCE_NS);
                self.keep_or_refuse(Running { waiter, args: encoded, walk, due_at });
            }
            (Written::Nothing, _) => {
                let mut args_again = Vec::new();
                args.encode(&mut args_again);
                let (op, args) = (Op::Range, args_again);
                self.connections.defer(id, Deferred { request, op, asker, args });
            }
            (Written::Whole | Written::Part, _) => {}
        }
    }

    /// Goes on with the ranges under way, each in turn, as far as a turn goes.
    pub(super) fn continue_ranges(&mut self, now: Instant) {
        let mut steps = self.options.working.range_steps;
        self.ranges.walked = self.ranges.fresh_steps < steps;
        self.ranges.fresh_steps = steps;
        self.connections.ranges_wait = false;
        self.end_overtaken();
        for _ in 0..self.ranges.list.len() {
            if steps == 0 {
                break;
            }
            let Some(mut running) = self.ranges.pop() else { break };
            match self.continue_range(&mut running, &mut steps, now) {
                Written::Whole => self.store.unpin_walk(&running.walk),
                Written::Part | Written::Nothing => self.keep_or_refuse(running),
            }
        }
        self.ranges.walked |= steps < self.options.working.range_steps;
    }

    /// Writes the next part of a range, if its client has read enough.
    fn continue_range(
        &mut self,
        running: &mut Running,
        steps: &mut usize,
        now: Instant,
    ) -> Written {
        let Waiter { connection, request } = running.waiter;
        if !self.connections.takes_part(connection) {
            if running.due_at <= now {
                self.connections.end(connection);
            }
            return Written::Nothing;
        }
        if !self.connections.has_room_for_large() {
            // Its client has read enough, and is not to blame.
            running.due_at = now.after_ns(PATIENCE_NS);
            self.connections.ranges_wait = true;
            return Written::Nothing;
        }
        let args = RangeArgs::decode(&running.args).expect("it was encoded when it was begun");
        let bytes = self.options.working.range_part_bytes;
        let mut left = SliceLimits { steps: *steps, bytes };
        let (store, walk) = (&self.store, &mut running.walk);
        let written = self.connections.answer_if_read(connection, |out| {
            write_part(out, store, request, &args, (walk, &mut left))
        });
        *steps = left.steps;
        running.due_at = now.after_ns(PATIENCE_NS);
        written
    }

    /// Keeps a range for the next turn, or says that there is no room for what it would keep.
    fn keep_or_refuse(&mut self, running: Running) {
        match self.ranges.no_room_for(running.waiter.connection, running.walk.bytes()) {
            None => self.ranges.push(running),
            Some(error) => self.end_range(&running, &error),
        }
    }

    fn end_range(&mut self, running: &Running, error: &Error) {
        self.store.unpin_walk(&running.walk);
        let Waiter { connection, request } = running.waiter;
        self.connections.answer(connection, |out| error_reply(out, request, error));
    }

    /// Ends the ranges of the lowest revisions while they hold back too much of what is compacted.
    fn end_overtaken(&mut self) {
        while let Some((lowest, bytes)) = self.store.kept_for_walks()
            && bytes > self.options.history_bytes_max
        {
            let compact_revision = self.store.compact_revision();
            let overtaken = self.ranges.take_if(|running| running.walk.at() == lowest);
            assert!(!overtaken.is_empty(), "a revision is kept for a range under way");
            let (node, count) = (self.identity.node, overtaken.len());
            log::debug!("ended ranges node={node} count={count} at={lowest} held_bytes={bytes}");
            for running in overtaken {
                self.end_range(&running, &Error::Compacted { compact_revision });
            }
        }
    }

    /// The store that they read counts no more, or another one is about to take its place.
    pub(super) fn end_all_ranges(&mut self, error: &Error) {
        for running in self.ranges.take_if(|_| true) {
            self.end_range(&running, error);
        }
    }

    /// Nobody reads the ranges of a connection that is gone.
    pub(super) fn forget_ranges_of(&mut self, id: ConnectionId) {
        // A thousand connections may end in one turn, and most have none.
        if !self.ranges.of.contains_key(&id) {
            return;
        }
        for running in self.ranges.take_if(|running| running.waiter.connection == id) {
            self.store.unpin_walk(&running.walk);
        }
    }

    /// Whether a range can go on, so that the next turn must not wait.
    pub(super) fn has_ready_range(&self) -> bool {
        let ready = |running: &Running| self.connections.takes_part(running.waiter.connection);
        self.connections.has_room_for_large() && self.ranges.list.iter().any(ready)
    }
}

fn request_of<'a>(args: &RangeArgs<'a>) -> RangeRequest<'a> {
    RangeRequest {
        key: args.key,
        end: RangeEnd::from_bytes(args.end),
        limit: args.limit,
        revision: args.revision,
        keys_only: args.keys_only,
        count_only: args.count_only,
        selection: args.selection,
    }
}

/// Writes what a slice of the walk brings. A slice that brings no key, and is not the last one,
/// leaves nothing to say.
fn write_part(
    out: &mut Vec<u8>,
    store: &Store,
    id: u64,
    args: &RangeArgs<'_>,
    (walk, left): (&mut RangeWalk, &mut SliceLimits),
) -> Written {
    let request = request_of(args);
    let mut writer = RangeReplyWriter::begin(out, id, walk.revision());
    let sliced = store.walk(&request, walk, left, &mut |found| {
        writer.push(out, &found);
        ControlFlow::Continue(())
    });
    match sliced {
        Sliced::Done => {
            let summary = walk.summary(&request);
            writer.finish(out, summary.more, summary.count);
            Written::Whole
        }
        Sliced::More if writer.is_empty() => {
            writer.abandon(out);
            Written::Part
        }
        Sliced::More => {
            writer.finish_part(out);
            Written::Part
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Selection, StoreOptions};
    use crate::wire::client::Consistency;

    fn empty_store() -> Store {
        Store::new(StoreOptions { index_seed: 1, history_bytes_max: 1 })
    }

    fn connection(slot: u32) -> ConnectionId {
        ConnectionId::new(slot, 1)
    }

    /// All keys, for one of the connections.
    fn running(store: &Store, slot: u32) -> Running {
        let args = RangeArgs {
            key: b"",
            end: RangeEnd::Unbounded.as_bytes(),
            limit: 0,
            revision: Revision(0),
            consistency: Consistency::Serializable,
            keys_only: false,
            count_only: false,
            selection: Selection::default(),
        };
        let waiter = Waiter { connection: connection(slot), request: 1 };
        let walk = store.begin_walk(&request_of(&args)).expect("it reads what is now");
        Running { waiter, args: Vec::new(), walk, due_at: Instant::FAR }
    }

    /// One client with a thousand ranges that it does not read left no place to anybody else.
    #[test]
    fn a_connection_has_so_many_ranges_and_leaves_places_to_others() {
        let (store, mut ranges) = (empty_store(), Ranges::default());
        for _ in 0..limits::CONNECTION_RANGES_MAX {
            assert_eq!(ranges.no_room_for(connection(1), 0), None);
            ranges.push(running(&store, 1));
        }
        assert!(matches!(ranges.no_room_for(connection(1), 0), Some(Error::Busy { .. })));
        assert_eq!(ranges.no_room_for(connection(2), 0), None, "others have theirs");
        let ended = ranges.pop().expect("there are some");
        assert_eq!(ranges.no_room_for(connection(1), 0), None, "one has ended");
        ranges.push(ended);
        assert_eq!(ranges.take_if(|_| true).len(), limits::CONNECTION_RANGES_MAX);
        assert!(ranges.of.is_empty() && ranges.no_room_for(connection(1), 0).is_none());
    }

    #[test]
    fn what_ranges_keep_together_has_a_bound_for_all_but_one_that_is_alone() {
        let (store, mut ranges) = (empty_store(), Ranges::default());
        let most = limits::RANGES_BYTES_MAX;
        assert_eq!(ranges.no_room_for(connection(1), most + 1), None, "it is alone");
        ranges.push(running(&store, 1));
        let left = most - ranges.kept_bytes;
        assert_eq!(ranges.no_room_for(connection(2), left), None, "they fit");
        let refused = ranges.no_room_for(connection(2), left + 1);
        assert!(matches!(refused, Some(Error::Busy { .. })), "{refused:?}");
    }
}
