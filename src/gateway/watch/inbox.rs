//! Where the replies to a stream's watches wait until its client takes them.
//!
//! An inbox is bounded, and so are all of them together. What does not fit is not kept: the watch
//! is ended at its node, and asked for anew from where it was once the client has taken what is
//! here. The node still has it then, or says that it is compacted: a client that does not read
//! costs what fits, and stands in nobody's way. When there is no room for somebody who has taken
//! everything, that inbox is emptied of which nothing was taken for longest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};

use bytes::Bytes;

use crate::gateway::room::Room;

/// What waits in one inbox, at most and one reply more. Bytes.
const INBOX_BYTES_MAX: usize = 512 * 1024;

/// What waits in all of them. Beyond, an inbox takes a reply only if it is empty, and another one
/// loses what it has. Bytes.
const INBOXES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What it costs to hold a reply. Bytes.
const ITEM_BYTES: usize = 96;

/// A reply below this is copied: a slice would keep all of what was read with it. Bytes.
const COPIED_BELOW: usize = 16 * 1024;

/// Events of all watches whose revisions are not whole, and one such revision more: it may be as
/// large as all of it. Bytes.
const PARTS_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Watches of all streams, with their keys: 100,000 of small keys. Bytes.
const WATCHES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What all streams have together.
pub(in crate::gateway) struct Waiting {
    /// In all inboxes.
    bytes: AtomicUsize,
    order: Mutex<Order>,
    /// For revisions that are not whole.
    pub(super) parts: Arc<Room>,
    /// For watches.
    pub(super) watches: Arc<Room>,
}

/// Inboxes with replies, by when something was taken of them.
#[derive(Default)]
struct Order {
    last: u64,
    inboxes: BTreeMap<u64, Weak<Inbox>>,
}

impl Default for Waiting {
    fn default() -> Waiting {
        Waiting {
            bytes: AtomicUsize::new(0),
            order: Mutex::default(),
            parts: Room::of(PARTS_BYTES_MAX),
            watches: Room::of(WATCHES_BYTES_MAX),
        }
    }
}

impl Waiting {
    /// How much waits in all inboxes. Bytes.
    pub(in crate::gateway) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties inboxes until there is room for so many bytes, or none is left that can be.
    fn make_room(&self, bytes: usize) {
        while self.bytes() + bytes > INBOXES_BYTES_MAX {
            // The lock is let go before another one is taken.
            let oldest = self.order().inboxes.pop_first();
            let Some((_, inbox)) = oldest else { return };
            if let Some(inbox) = inbox.upgrade() {
                inbox.lose_all();
            }
        }
    }
}

/// Which watch of a stream, and which time that it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::gateway) struct Asking {
    /// The client's number for the watch.
    pub(in crate::gateway) watch: i64,
    /// Counts up whenever a node is asked for it.
    pub(in crate::gateway) time: u64,
}

/// Something for a stream.
#[derive(Debug)]
pub(super) enum Item {
    /// A reply to a watch.
    Reply(Asking, Bytes),
    /// Nothing more comes of this asking, and what came is incomplete.
    Lost(Asking),
    /// The answer to the question of how far the watches of a link are; `None`: it is lost.
    Progress { round: u64, reply: Option<Bytes> },
}

/// An inbox.
pub(super) struct Inbox {
    items: Mutex<Items>,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Items {
    queue: VecDeque<Item>,
    bytes: usize,
    reader: Option<Waker>,
    /// Its place among all with replies.
    place: Option<u64>,
    /// Of these some replies were thrown away: no more may come behind.
    lost: BTreeSet<Asking>,
}

/// Whether a reply was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::gateway) enum Taken {
    /// It was.
    Gladly,
    /// It was not: nothing more is to come of this asking.
    TooMuch,
}

/// The way of an answer to `Link::progress` into the inbox of the stream that asked.
pub(in crate::gateway) struct ProgressSink {
    inbox: Arc<Inbox>,
    round: u64,
}

/// The way of a watch's replies into the inbox of its stream.
pub(in crate::gateway) struct Sink {
    inbox: Arc<Inbox>,
    asking: Asking,
}

impl Item {
    fn bytes(&self) -> usize {
        ITEM_BYTES
            + match self {
                Item::Reply(_, reply) => reply.len(),
                Item::Lost(_) | Item::Progress { .. } => 0,
            }
    }
}

impl Inbox {
    pub(super) fn new(waiting: &Arc<Waiting>) -> Arc<Inbox> {
        Arc::new(Inbox { items: Mutex::default(), waiting: Arc::clone(waiting) })
    }

    /// The way into it for the replies of one asking.
    pub(super) fn sink(self: &Arc<Inbox>, asking: Asking) -> Sink {
        Sink { inbox: Arc::clone(self), asking }
    }

    /// The way into it for how far the watches of a link are.
    pub(super) fn progress_sink(self: &Arc<Inbox>, round: u64) -> ProgressSink {
        ProgressSink { inbox: Arc::clone(self), round }
    }

    fn items(&self) -> MutexGuard<'_, Items> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has waited for longest. If there is nothing, the reader is woken when something comes.
    pub(super) fn take(self: &Arc<Inbox>, context: &Context<'_>) -> Option<Item> {
        let mut items = self.items();
        let Some(item) = items.queue.pop_front() else {
            items.reader = Some(context.waker().clone());
            return None;
        };
        items.bytes -= item.bytes();
        self.waiting.bytes.fetch_sub(item.bytes(), Ordering::Relaxed);
        if let Item::Lost(asking) = &item {
            items.lost.remove(asking);
        }
        self.leave(&mut items);
        if items.bytes > 0 {
            self.line_up(&mut items);
        }
        Some(item)
    }

    /// Adds something, however much there is.
    pub(super) fn add(self: &Arc<Inbox>, item: Item) {
        let mut items = self.items();
        items.bytes += item.bytes();
        self.waiting.bytes.fetch_add(item.bytes(), Ordering::Relaxed);
        items.queue.push_back(item);
        if items.place.is_none() {
            self.line_up(&mut items);
        }
        if let Some(reader) = items.reader.take() {
            reader.wake();
        }
    }

    /// Takes the last place among all.
    fn line_up(self: &Arc<Inbox>, items: &mut Items) {
        let mut order = self.waiting.order();
        order.last += 1;
        let place = order.last;
        order.inboxes.insert(place, Arc::downgrade(self));
        items.place = Some(place);
    }

    fn leave(&self, items: &mut Items) {
        if let Some(place) = items.place.take() {
            self.waiting.order().inboxes.remove(&place);
        }
    }

    /// Throws away all replies. What says that they are lost takes the place of the first of each
    /// asking, and so comes before whatever is said of later.
    fn lose_all(&self) {
        let mut items = self.items();
        let Items { queue, bytes, lost, place, .. } = &mut *items;
        *place = None;
        let before = *bytes;
        let kept = std::mem::take(queue).into_iter().filter_map(|item| match item {
            Item::Reply(asking, _) => lost.insert(asking).then_some(Item::Lost(asking)),
            Item::Lost(_) | Item::Progress { .. } => Some(item),
        });
        *queue = kept.collect();
        *bytes = queue.iter().map(Item::bytes).sum();
        self.waiting.bytes.fetch_sub(before - *bytes, Ordering::Relaxed);
    }

    /// Whether a reply of so many bytes may be added. Whoever has taken everything is in the way of
    /// nobody, and so others are in the way of it.
    fn has_room(&self, reply: usize) -> bool {
        let bytes = self.items().bytes;
        if bytes == 0 {
            self.waiting.make_room(ITEM_BYTES + reply);
            return true;
        }
        bytes < INBOX_BYTES_MAX && self.waiting.bytes() + ITEM_BYTES + reply <= INBOXES_BYTES_MAX
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut items = self.items();
        self.waiting.bytes.fetch_sub(items.bytes, Ordering::Relaxed);
        self.leave(&mut items);
    }
}

impl ProgressSink {
    /// Takes the reply; `None`: none will come.
    pub(in crate::gateway) fn take(self, reply: Option<Bytes>) {
        let ProgressSink { inbox, round } = self;
        inbox.add(Item::Progress { round, reply });
    }
}

impl Sink {
    /// Takes a reply, if there is room.
    pub(in crate::gateway) fn take(&mut self, reply: Bytes) -> Taken {
        if self.inbox.items().lost.contains(&self.asking) {
            return Taken::TooMuch;
        }
        if !self.inbox.has_room(reply.len()) {
            self.inbox.add(Item::Lost(self.asking));
            return Taken::TooMuch;
        }
        let reply = if reply.len() < COPIED_BELOW { Bytes::copy_from_slice(&reply) } else { reply };
        self.inbox.add(Item::Reply(self.asking, reply));
        Taken::Gladly
    }

    /// No more replies will come.
    pub(in crate::gateway) fn lose(self) {
        self.inbox.add(Item::Lost(self.asking));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY_BYTES: usize = 64 * 1024;

    fn asking(watch: i64) -> Asking {
        Asking { watch, time: 1 }
    }

    /// What has come into an inbox: which watches, and whether it is a reply.
    fn taken(inbox: &Arc<Inbox>) -> Vec<(i64, bool)> {
        let context = Context::from_waker(Waker::noop());
        let items = std::iter::from_fn(|| inbox.take(&context));
        let seen = items.map(|item| match item {
            Item::Reply(asking, _) => (asking.watch, true),
            Item::Lost(asking) => (asking.watch, false),
            Item::Progress { .. } => panic!("nobody has asked"),
        });
        seen.collect()
    }

    /// An inbox that was empty took a reply whatever there was: with enough clients that did not
    /// read there was no bound.
    #[test]
    fn who_reads_has_room_at_the_cost_of_who_stood_still_for_longest() {
        let waiting: Arc<Waiting> = Arc::default();
        // Replies are slices of the same memory.
        let reply = Bytes::from(vec![0; REPLY_BYTES]);
        let fill = |inbox: &Arc<Inbox>| {
            let mut sinks = [1, 2].map(|watch| inbox.sink(asking(watch)));
            while sinks.iter_mut().all(|sink| sink.take(reply.clone()) == Taken::Gladly) {}
            sinks
        };
        let mut still = Vec::new();
        while waiting.bytes() + REPLY_BYTES + 2 * ITEM_BYTES <= INBOXES_BYTES_MAX {
            let inbox = Inbox::new(&waiting);
            let sinks = fill(&inbox);
            still.push((inbox, sinks));
            assert!(still.len() < 1000, "there is a bound");
        }
        let mut first = still.swap_remove(0);
        let reads = Inbox::new(&waiting);
        let mut sink = reads.sink(asking(3));
        for _ in 0..1000 {
            assert_eq!(sink.take(reply.clone()), Taken::Gladly);
            assert!(waiting.bytes() <= INBOXES_BYTES_MAX);
            assert_eq!(taken(&reads), [(3, true)]);
        }
        // Nothing comes behind what was lost.
        assert_eq!(first.1[0].take(reply.clone()), Taken::TooMuch);
        let lost: Vec<_> = taken(&first.0).into_iter().take(2).collect();
        assert_eq!(lost, [(1, false), (2, false)]);
        assert_eq!(first.1[0].take(reply.clone()), Taken::Gladly);
        assert!(still.iter().all(|(inbox, _)| taken(inbox).contains(&(1, true))));
        drop((first, still, reads));
        drop(sink);
        assert_eq!(waiting.bytes(), 0);
        assert!(waiting.order().inboxes.is_empty());
    }
}
