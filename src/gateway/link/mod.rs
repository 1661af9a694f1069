//! One connection to one node: as many requests in flight as the node takes, and no task for any of
//! them.
//!
//! Whoever asks appends a frame to the buffer and waits for the reply with its number. The link's
//! own task sends what has gathered, reads, and hands out replies. While it sends, the next
//! requests gather: the more there are, the more go out with one system call.
//!
//! ```text
//! asked, not answered   room for ROOM requests, a large one counts for several: whoever comes
//!                       later waits, and with it its client, whose stream is not read on
//! read, not handed out  nothing: a reply goes to whoever waits, a range's to a queue and a watch's
//!                       to an inbox of bounded size, see replies.rs and watch/inbox.rs
//! ```
//!
//! Replies are slices of what was read, not copies.

mod alone;
mod dial;
mod greet;
mod pump;
mod replies;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::limits::CONNECTION_REQUESTS_MAX;
use crate::types::{ClusterId, NodeId};
use crate::wire::client::Op;
use crate::wire::error::Error as WireError;
use crate::wire::fields::DecodeError;
use crate::wire::frame::FrameError;
use crate::wire::hello::Welcome;
use crate::wire::reply::reply_head;
use crate::wire::watch::{WatchArgs, watch_cancel_request, watch_progress_request, watch_request};

use crate::gateway::watch::inbox::{ProgressSink, Sink, Taken};

pub(super) use alone::Alone;
use greet::greet;
use pump::Pump;
pub(super) use replies::Replies;

/// Bytes read at a time: hundreds of small replies.
const READ_BYTES: usize = 64 * 1024;

/// Requests in flight: what a node reads on with, less those that take no room here.
pub(super) const ROOM: usize = CONNECTION_REQUESTS_MAX - 96;

/// A request counts once more for each so many bytes: 16 MB in all. Bytes.
const ROOM_BYTES: usize = 4096;

/// Why there is no connection to a node, or not any more.
#[derive(Debug)]
pub(super) enum LinkError {
    /// Connecting, sending or receiving failed.
    Io(io::Error),
    /// The node hung up.
    Closed,
    /// The node has said nothing for too long.
    Silent,
    /// The node hears no leader, and another one does.
    CutOff,
    /// The node does not take us.
    Refused(WireError),
    /// A frame of an impossible length.
    Frame(FrameError),
    /// A body that is not the reply it should be.
    Reply(DecodeError),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Io(why) => write!(f, "{why}"),
            LinkError::Closed => f.write_str("the node hung up"),
            LinkError::Silent => f.write_str("the node does not answer"),
            LinkError::CutOff => f.write_str("the node hears no leader, and others do"),
            LinkError::Refused(why) => write!(f, "the node refused: {why}"),
            LinkError::Frame(why) => write!(f, "the node does not speak raftd's protocol: {why}"),
            LinkError::Reply(why) => write!(f, "the node does not speak raftd's protocol: {why}"),
        }
    }
}

impl std::error::Error for LinkError {}

impl From<io::Error> for LinkError {
    fn from(why: io::Error) -> LinkError {
        LinkError::Io(why)
    }
}

/// Why a request has no reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lost {
    /// It was not sent: the link was lost before.
    Unsent,
    /// Perhaps it was received, and the link was lost before a reply came.
    Unanswered,
}

/// A connection to a node, for everybody.
#[derive(Clone)]
pub(super) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    address: String,
    welcome: Welcome,
    room: Arc<Semaphore>,
    state: Mutex<State>,
    gone: Notify,
}

#[derive(Default)]
struct State {
    out: Vec<u8>,
    last_id: u64,
    waiting: BTreeMap<u64, Waiting>,
    task: Option<Waker>,
    closed: bool,
}

/// Who waits for replies to a request.
enum Waiting {
    /// For one. It takes room until then.
    Reply(
        oneshot::Sender<Bytes>,
        #[expect(dead_code, reason = "it is held, not looked at")] Option<OwnedSemaphorePermit>,
    ),
    /// For as many as one request has: a range. Whoever waits says when it was the last.
    Replies(mpsc::Sender<Bytes>),
    /// For as many as come: a watch.
    Watch(Sink),
    /// For how far all watches of the link are.
    Progress(ProgressSink),
}

impl Link {
    /// Connects to `address` (host:port), introduces itself, and serves whoever asks from then on.
    /// `cluster_id` 0 takes any cluster.
    pub(super) async fn open(address: &str, cluster_id: ClusterId) -> Result<Link, LinkError> {
        let (stream, input, welcome) = greet(address, cluster_id).await?;
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            welcome,
            room: Arc::new(Semaphore::new(ROOM)),
            state: Mutex::default(),
            gone: Notify::new(),
        });
        tokio::spawn(Pump::new(Arc::clone(&shared), stream, input).run());
        Ok(Link { shared })
    }

    /// Where it was opened to.
    pub(super) fn address(&self) -> &str {
        &self.shared.address
    }

    /// Who answered there.
    pub(super) fn welcome(&self) -> &Welcome {
        &self.shared.welcome
    }

    /// Which node that is.
    pub(super) fn node(&self) -> NodeId {
        self.shared.welcome.node
    }

    /// Whether it leads to the same place by the same connection.
    pub(super) fn is(&self, other: &Link) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Sends a request of about so many bytes, once there is room; answers the reply's body.
    pub(super) async fn ask(
        &self,
        bytes: usize,
        encode: impl FnOnce(&mut Vec<u8>, u64),
    ) -> Result<Bytes, Lost> {
        let permit = self.room(bytes).await?;
        let answer = self.send(Some(permit), encode)?;
        answer.await.map_err(|_| Lost::Unanswered)
    }

    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Lost> {
        let units = u32::try_from((1 + bytes / ROOM_BYTES).min(ROOM)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.shared.room);
        room.acquire_many_owned(units).await.map_err(|_| Lost::Unsent)
    }

    /// Sends a small request past those that wait for room.
    pub(super) fn ask_at_once(
        &self,
        encode: impl FnOnce(&mut Vec<u8>, u64),
    ) -> Result<oneshot::Receiver<Bytes>, Lost> {
        self.send(None, encode)
    }

    fn send(
        &self,
        permit: Option<OwnedSemaphorePermit>,
        encode: impl FnOnce(&mut Vec<u8>, u64),
    ) -> Result<oneshot::Receiver<Bytes>, Lost> {
        let (tell, answer) = oneshot::channel();
        let begun = self.shared.state().begin(Waiting::Reply(tell, permit), encode);
        begun.map(|_| answer).map_err(|_| Lost::Unsent)
    }

    /// Opens a watch, whose replies go to `sink`. Answers its number; `None`: the link is lost.
    pub(super) fn watch(&self, args: &WatchArgs<'_>, sink: Sink) -> Option<u64> {
        let encode = |out: &mut Vec<u8>, id| watch_request(out, id, args);
        self.shared.state().begin(Waiting::Watch(sink), encode).ok()
    }

    /// Asks how far the watches of this link are. The answer comes behind their replies, up to
    /// there.
    pub(super) fn progress(&self, sink: ProgressSink) {
        if let Err(waiting) =
            self.shared.state().begin(Waiting::Progress(sink), watch_progress_request)
        {
            waiting.lose();
        }
    }

    /// Ends a watch. Nothing comes to its sink any more.
    pub(super) fn forget_watch(&self, watch: u64) {
        self.shared.state().cancel_watch(watch);
    }

    /// Whether anybody watches by it.
    pub(super) fn has_watches(&self) -> bool {
        let state = self.shared.state();
        state.waiting.values().any(|waiting| matches!(waiting, Waiting::Watch(_)))
    }

    /// Ends the connection, and whatever waits for it.
    pub(super) fn close(&self) {
        self.shared.close();
    }

    /// Waits until it is lost.
    pub(super) async fn gone(&self) {
        let gone = self.shared.gone.notified();
        if self.is_open() {
            gone.await;
        }
    }

    /// Whether it can be asked.
    pub(super) fn is_open(&self) -> bool {
        !self.shared.state().closed
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.room.close();
        let mut state = self.state();
        state.closed = true;
        state.wake();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.gone.notify_waiters();
        waiting.into_values().for_each(Waiting::lose);
    }
}

impl Waiting {
    /// Says that nothing more comes.
    fn lose(self) {
        match self {
            // Whoever waits hears that nobody will answer.
            Waiting::Reply(tell, _) => drop(tell),
            Waiting::Replies(queue) => drop(queue),
            Waiting::Watch(sink) => sink.lose(),
            Waiting::Progress(sink) => sink.take(None),
        }
    }
}

impl State {
    fn begin(
        &mut self,
        waiting: Waiting,
        encode: impl FnOnce(&mut Vec<u8>, u64),
    ) -> Result<u64, Waiting> {
        if self.closed {
            return Err(waiting);
        }
        self.last_id += 1;
        encode(&mut self.out, self.last_id);
        self.waiting.insert(self.last_id, waiting);
        self.wake();
        Ok(self.last_id)
    }

    fn wake(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    fn cancel_watch(&mut self, watch: u64) {
        if self.waiting.remove(&watch).is_none() || self.closed {
            return;
        }
        // Its reply has a number that nobody waits for.
        self.last_id += 1;
        watch_cancel_request(&mut self.out, self.last_id, watch);
        self.wake();
    }

    /// Gives a reply to whoever waits for it. Nobody does for what comes to a watch that was ended.
    fn hand_out(&mut self, body: Bytes) -> Result<(), LinkError> {
        let (id, kind) = reply_head(&body).map_err(LinkError::Reply)?;
        match self.waiting.get_mut(&id) {
            Some(Waiting::Watch(sink)) => match sink.take(body) {
                Taken::Gladly if kind == u64::from(Op::Watch.code()) => {}
                // An error is the last that comes.
                Taken::Gladly => drop(self.waiting.remove(&id)),
                Taken::TooMuch => self.cancel_watch(id),
            },
            Some(Waiting::Replies(queue)) => match queue.try_send(body) {
                Ok(()) => {}
                // That one is missing is seen where they are read.
                Err(_) => drop(self.waiting.remove(&id)),
            },
            Some(Waiting::Reply(..) | Waiting::Progress(_)) => match self.waiting.remove(&id) {
                // Whoever asked may have gone.
                Some(Waiting::Reply(tell, _)) => drop(tell.send(body)),
                Some(Waiting::Progress(sink)) => sink.take(Some(body)),
                Some(Waiting::Replies(_) | Waiting::Watch(_)) | None => {}
            },
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
impl Link {
    /// A link on which nothing is sent, and nothing comes by itself.
    pub(super) fn to_nobody() -> Link {
        let welcome = Welcome {
            version: 1,
            cluster_id: ClusterId(1),
            node: NodeId::new(1).unwrap(),
            disk_id: crate::types::DiskId(1),
            boot_nonce: 1,
            genesis: 0,
            members: Vec::new(),
            request_bytes_max: 0,
            feature_level: 0,
        };
        let room = Arc::new(Semaphore::new(ROOM));
        let (state, gone) = (State::default().into(), Notify::new());
        Link { shared: Arc::new(Shared { address: String::new(), welcome, room, state, gone }) }
    }

    /// Takes all room.
    pub(super) fn fill(&self) -> OwnedSemaphorePermit {
        let room = u32::try_from(ROOM).unwrap();
        Arc::clone(&self.shared.room).try_acquire_many_owned(room).unwrap()
    }

    /// How many wait for replies.
    pub(super) fn waiting(&self) -> usize {
        self.shared.state().waiting.len()
    }

    /// Takes a reply as if it had come; tells its body.
    pub(super) fn hear(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let mut frame = Vec::new();
        encode(&mut frame);
        let body = Bytes::from(frame).slice(crate::wire::frame::LENGTH_BYTES..);
        self.shared.state().hand_out(body.clone()).unwrap();
        body
    }
}
