//! Where the replies to a stream's watches wait until its client takes them.
//!
//! An inbox is bounded, and so are all of them together. What does not fit is not kept: the watch
//! is ended at its node, and asked for anew from where it was once the client has taken what is
//! here. The node still has it then, or says that it is compacted: a client that does not read
//! costs what fits, and stands in nobody's way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::Bytes;

/// What waits in one inbox, at most and one reply more. Bytes.
const INBOX_BYTES_MAX: usize = 512 * 1024;

/// What waits in all of them. Beyond, an inbox takes a reply only if it is empty. Bytes.
const INBOXES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What it costs to hold a reply. Bytes.
const ITEM_BYTES: usize = 96;

/// A reply below this is copied: a slice would keep all of what was read with it. Bytes.
const COPIED_BELOW: usize = 16 * 1024;

/// What waits in all inboxes.
#[derive(Default)]
pub(in crate::gateway) struct Waiting(AtomicUsize);

impl Waiting {
    /// How much that is. Bytes.
    pub(in crate::gateway) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Which watch of a stream, and which time that it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    pub(super) fn take(&self, context: &Context<'_>) -> Option<Item> {
        let mut items = self.items();
        let Some(item) = items.queue.pop_front() else {
            items.reader = Some(context.waker().clone());
            return None;
        };
        items.bytes -= item.bytes();
        self.waiting.0.fetch_sub(item.bytes(), Ordering::Relaxed);
        Some(item)
    }

    /// Adds something, however much there is.
    pub(super) fn add(&self, item: Item) {
        let mut items = self.items();
        items.bytes += item.bytes();
        self.waiting.0.fetch_add(item.bytes(), Ordering::Relaxed);
        items.queue.push_back(item);
        if let Some(reader) = items.reader.take() {
            reader.wake();
        }
    }

    fn has_room(&self) -> bool {
        let bytes = self.items().bytes;
        let all = self.waiting.0.load(Ordering::Relaxed);
        bytes == 0 || bytes < INBOX_BYTES_MAX && all < INBOXES_BYTES_MAX
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let bytes = self.items().bytes;
        self.waiting.0.fetch_sub(bytes, Ordering::Relaxed);
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
        if !self.inbox.has_room() {
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
