//! The watches of one stream: requests come in, responses go out, and no task for either.
//!
//! ```text
//! client → requests → watchers → Link::watch → node
//! client ← ready    ← watchers ← inbox       ← node
//! ```
//!
//! The stream is moved when its client takes a response, sends a request, or a node has said
//! something. All that concerns it passes the one inbox, in the order in which it came: so a word
//! of how far the watches are never overtakes their events.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tonic::codegen::tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::gateway::auth::Who;
use crate::gateway::calls::{Cluster, REQUEST_TIMEOUT, check_size};
use crate::gateway::errand::Errand;
use crate::gateway::failure::{NO_LEADER, cancel_reason, known};
use crate::gateway::link::Link;
use crate::gateway::nodes::Leaderless;
use crate::gateway::proto::etcdserverpb::watch_request::RequestUnion;
use crate::gateway::proto::etcdserverpb::{
    ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse,
};
use crate::limits::WATCH_KEYS_BYTES_MAX;
use crate::types::Revision;
use crate::wire::auth::Denial;
use crate::wire::error::{Advice, Error as WireError};
use crate::wire::reply::{ReplyBody, decode_reply};
use crate::wire::watch::watch_request;

use super::inbox::{Asking, Inbox, Item, Waiting};
use super::waiters::Waiters;
use super::watcher::{NotTaken, Watcher, compacted, ended};

/// What stands for no watch, or for all of them.
const NO_WATCH: i64 = -1;

const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

const STREAM_IS_FULL: &str = "raftd: this stream has too many watches: open another one";
const ALL_ARE_FULL: &str = "raftd: there are too many watches: ask another gateway";

/// Watches of one stream, with their keys: more than a node takes of all. Bytes.
const STREAM_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(super) type Pause = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The watches of one stream.
pub(in crate::gateway) struct Watching {
    cluster: Arc<Cluster>,
    /// Whose watches they are.
    who: Who,
    /// How often those hear that nothing happens who ask for that. Milliseconds.
    progress_ms: u64,
    /// `None` once the client has said all.
    requests: Option<Streaming<WatchRequest>>,
    inbox: Arc<Inbox>,
    waiting: Arc<Waiting>,
    watchers: BTreeMap<i64, Watcher>,
    /// What those take.
    bytes: usize,
    ready: VecDeque<WatchResponse>,
    next_id: i64,
    /// What was said last that no watch misses. Another node may be behind.
    said: Revision,
    /// How often nodes were asked.
    times: u64,
    /// Watches that are not open at a node.
    waiters: Waiters,
    progress: Option<Round>,
    rounds: u64,
    /// The client has asked for another round meanwhile.
    progress_again: bool,
    /// When nobody leads, for clients that want to hear of it.
    leaderless: Option<Leaderless>,
}

/// A question of how far all watches are.
struct Round {
    number: u64,
    /// How often nodes had been asked for watches when it began: of a later one it says nothing.
    times: u64,
    answers_missing: usize,
    least: Revision,
}

impl Watching {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        who: Who,
        waiting: &Arc<Waiting>,
        progress_ms: u64,
        requests: Option<Streaming<WatchRequest>>,
    ) -> Watching {
        Watching {
            cluster,
            who,
            progress_ms,
            requests,
            inbox: Inbox::new(waiting),
            waiting: Arc::clone(waiting),
            watchers: BTreeMap::new(),
            bytes: 0,
            ready: VecDeque::new(),
            next_id: 0,
            said: Revision(0),
            times: 0,
            waiters: Waiters::new(),
            progress: None,
            rounds: 0,
            progress_again: false,
            leaderless: None,
        }
    }

    /// Ends the stream when nobody has led for longer than elections take.
    pub(super) fn ends_without_leader(mut self) -> Watching {
        self.leaderless = Some(self.cluster.nodes.leaderless());
        self
    }

    /// What leads a response by which the store is at `revision`.
    fn header(&self, revision: Revision) -> ResponseHeader {
        self.cluster.header_of_home(revision)
    }

    fn newest(&self) -> Revision {
        self.cluster.nodes.revision()
    }

    // ---- what the client says -----------------------------------------------------------------

    fn on_request(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request),
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.ask_progress(),
            None => {}
        }
    }

    pub(super) fn create(&mut self, mut request: WatchCreateRequest) {
        // What is below 0 is as old as can be, and not what comes from now on.
        if request.start_revision < 0 {
            request.start_revision = 1;
        }
        let keys = request.key.len() + request.range_end.len();
        let (share, parts) = (self.waiting.watches.share(), self.waiting.parts.share());
        let mut watcher = Watcher::new(request, share, parts);
        if watcher.is_empty() {
            return self.refuse(EMPTY_RANGE);
        }
        if let Err(why) = check_size(keys) {
            return self.refuse(why.message());
        }
        if keys > WATCH_KEYS_BYTES_MAX {
            let max = WATCH_KEYS_BYTES_MAX;
            return self.refuse(&format!("raftd: the keys of a watch have more than {max} bytes"));
        }
        if self.bytes + watcher.cost() > STREAM_BYTES_MAX {
            return self.refuse(STREAM_IS_FULL);
        }
        if watcher.id() == 0 {
            while self.watchers.contains_key(&self.next_id) {
                self.next_id += 1;
            }
            watcher.rename(self.next_id);
            self.next_id += 1;
        } else if self.watchers.contains_key(&watcher.id()) {
            return self.refuse(DUPLICATE_ID);
        }
        if watcher.settle().is_err() {
            return self.refuse(ALL_ARE_FULL);
        }
        self.bytes += watcher.cost();
        self.waiters.add(watcher.id(), Instant::now());
        self.watchers.insert(watcher.id(), watcher);
    }

    fn refuse(&mut self, why: &str) {
        let header = self.header(self.newest());
        self.ready.push_back(WatchResponse {
            created: true,
            cancel_reason: why.to_owned(),
            ..ended(header, NO_WATCH)
        });
    }

    /// Ends a watch. Of one that does not exist nothing is said.
    fn cancel(&mut self, watch: i64) {
        let header = self.header(self.newest());
        self.end(ended(header, watch));
    }

    /// Ends the watch that a response is of, if there is one. Whoever waits for it to open hears
    /// that first.
    fn end(&mut self, last: WatchResponse) {
        let watch_id = last.watch_id;
        let Some(watcher) = self.forget(watch_id) else { return };
        if !watcher.is_created() {
            let header = Some(self.header(self.newest()));
            let created =
                WatchResponse { header, watch_id, created: true, ..WatchResponse::default() };
            self.ready.push_back(created);
        }
        self.ready.push_back(last);
    }

    /// Takes a watch away, with whatever it has.
    fn forget(&mut self, watch: i64) -> Option<Watcher> {
        let watcher = self.watchers.remove(&watch)?;
        self.bytes -= watcher.cost();
        self.waiters.remove(watch);
        Some(watcher)
    }

    /// Asks all nodes that serve this stream how far its watches are. If that is not known of one
    /// of them, nothing is said: clients ask again.
    fn ask_progress(&mut self) {
        // One round at a time: who asks often is to hear something at all.
        self.progress_again = self.progress.is_some();
        if self.progress_again {
            return;
        }
        let mut links: Vec<Link> = Vec::new();
        for watcher in self.watchers.values() {
            let Some(link) = watcher.link_if_whole() else { return };
            if !links.iter().any(|it| it.is(link)) {
                links.push(link.clone());
            }
        }
        if links.is_empty() {
            return;
        }
        self.rounds += 1;
        let (number, answers_missing) = (self.rounds, links.len());
        let (times, least) = (self.times, Revision(u64::MAX));
        self.progress = Some(Round { number, times, answers_missing, least });
        for link in links {
            link.progress(self.inbox.progress_sink(number));
        }
    }

    // ---- what the nodes say -------------------------------------------------------------------

    fn on_item(&mut self, item: Item) {
        match item {
            Item::Reply(asking, body) => self.on_reply(asking, &body),
            Item::Lost(asking) => self.on_lost(asking),
            Item::Progress { round, reply } => self.on_progress(round, reply.as_ref()),
        }
    }

    fn on_lost(&mut self, asking: Asking) {
        if let Some(watcher) = self.asked(asking) {
            watcher.lost();
            self.waiters.add(asking.watch, Instant::now());
        }
    }

    /// The watch, if nobody was asked for it since.
    fn asked(&mut self, asking: Asking) -> Option<&mut Watcher> {
        let watcher = self.watchers.get_mut(&asking.watch);
        watcher.filter(|watcher| watcher.is_asked(asking.time))
    }

    fn on_reply(&mut self, asking: Asking, body: &Bytes) {
        let newest = self.newest();
        let header = |revision| self.cluster.header_of_home(revision);
        let watcher = self.watchers.get_mut(&asking.watch);
        let Some(watcher) = watcher.filter(|watcher| watcher.is_asked(asking.time)) else {
            return;
        };
        match decode_reply(body).map(|reply| reply.body) {
            Ok(ReplyBody::Watch(reply)) => {
                self.waiters.opened(asking.watch);
                match watcher.take(body, &reply, newest, header, &mut self.ready) {
                    Ok(()) => {}
                    Err(NotTaken::TooLarge) => {
                        self.end_because(asking.watch, "raftd: one revision has too many events");
                    }
                    Err(NotTaken::NoRoom) => {
                        self.on_lost(asking);
                        self.wait_before_asking();
                    }
                }
            }
            Ok(ReplyBody::Error(error)) => self.on_error(asking, &error),
            Ok(_) => self.end_because(asking.watch, "raftd: a node answered something else"),
            Err(why) => {
                let why = format!("raftd: a node answered what cannot be read: {why}");
                self.end_because(asking.watch, &why);
            }
        }
    }

    fn on_error(&mut self, asking: Asking, error: &WireError) {
        if let WireError::Compacted { compact_revision } = error {
            let header = self.header(self.newest());
            return self.end(compacted(header, asking.watch, *compact_revision));
        }
        if let WireError::Denied { why } = error {
            return self.on_denied(asking, *why);
        }
        match error.advice() {
            Advice::AskAgain | Advice::Unknown => {
                self.on_lost(asking);
                self.waiters.refused();
                if let WireError::Busy { .. } = error {
                    for watch in self.waiters.crowded(Instant::now()) {
                        self.end_because(watch, &format!("raftd: no node has room: {error}"));
                    }
                }
                self.wait_before_asking();
            }
            Advice::GiveUp => self.end_because(asking.watch, &format!("raftd: {error}")),
        }
    }

    /// The node does not let its owner watch that, or does not know the gateway. The latter is seen
    /// to once, before it is told to the client.
    fn on_denied(&mut self, asking: Asking, why: Denial) {
        let Some(watcher) = self.asked(asking) else { return };
        let numbered = watcher.is_numbered();
        let (created, first) = (watcher.is_created(), watcher.denied());
        if let Some((link, logins)) = first.filter(|_| why != Denial::NotPermitted) {
            self.on_lost(asking);
            let (cluster, who) = (Arc::clone(&self.cluster), self.who.clone());
            let asking = Errand::begin(async move {
                let asked = cluster.may_ask_again(&link, logins, &who, why);
                // Whatever it comes to, the node is asked again, and says so itself.
                let _said = timeout(REQUEST_TIMEOUT, asked).await;
            });
            self.waiters.wait_for(Box::pin(async move {
                let _ended = asking.await;
            }));
            return;
        }
        let reason = cancel_reason(why);
        if created {
            self.end_because(asking.watch, &reason);
        } else {
            self.forget(asking.watch);
            // The next one may have its number, as with etcd, which looks at rights first.
            if numbered && self.next_id.checked_sub(1) == Some(asking.watch) {
                self.next_id = asking.watch;
            }
            self.refuse(&reason);
        }
    }

    fn end_because(&mut self, watch: i64, why: &str) {
        let header = self.header(self.newest());
        let cancel_reason = why.to_owned();
        self.end(WatchResponse { cancel_reason, ..ended(header, watch) });
    }

    fn on_progress(&mut self, number: u64, reply: Option<&Bytes>) {
        let Some(round) = self.progress.as_mut().filter(|round| round.number == number) else {
            return;
        };
        let reply = reply.and_then(|body| decode_reply(body).ok());
        if let Some(ReplyBody::WatchProgress { revision }) = reply.map(|reply| reply.body) {
            round.least = round.least.min(revision);
            round.answers_missing -= 1;
            if round.answers_missing > 0 {
                return;
            }
            let (least, times) = (round.least, round.times);
            self.say_progress(least, times);
        }
        self.progress = None;
        if self.progress_again {
            self.ask_progress();
        }
    }

    /// Says that no watch misses anything up to a revision, if that says something to all of them.
    /// `times`: the last asking of which the nodes that were questioned know.
    fn say_progress(&mut self, revision: Revision, times: u64) {
        // Whoever has heard more would seem to go back; whoever waits for a node is not there yet.
        // If all have yet to hear something, they may have heard of more by another gateway.
        let is_there = |watcher: &Watcher| {
            let is_whole = watcher.link_if_whole().is_some();
            is_whole && watcher.was_asked_by(times) && watcher.misses_nothing(revision)
        };
        let goes_on = |watcher: &Watcher| watcher.is_just_before(revision);
        let says = self.watchers.is_empty() || self.watchers.values().any(goes_on);
        if says && revision >= self.said && self.watchers.values().all(is_there) {
            self.said = revision;
            self.watchers.values_mut().for_each(|watcher| watcher.has_heard(revision));
            let header = Some(self.header(revision));
            let watch_id = NO_WATCH;
            self.ready.push_back(WatchResponse { header, watch_id, ..WatchResponse::default() });
        }
    }

    // ---- whom to ask --------------------------------------------------------------------------

    fn wait_before_asking(&mut self) {
        let nodes = Arc::clone(&self.cluster.nodes);
        self.waiters.wait(|time| Box::pin(async move { nodes.pause_for(time).await }));
    }

    /// Asks for the watches that no node is asked for.
    fn ask(&mut self) {
        while let Some(id) = self.waiters.take() {
            let watcher = self.watchers.get_mut(&id).expect("who waits has not ended");
            self.times += 1;
            let sink = self.inbox.sink(Asking { watch: id, time: self.times });
            let attempts = self.waiters.attempts();
            let asked = self.cluster.nodes.home_now(attempts).and_then(|link| {
                let (logins, args) = (link.logins(), watcher.args(self.progress_ms));
                let number = link.watch(sink, |out, id| {
                    self.cluster.write_for(&self.who, out, |out| watch_request(out, id, &args));
                })?;
                Some((link, logins, number))
            });
            let Some((link, logins, number)) = asked else {
                self.waiters.add(id, Instant::now());
                return self.wait_before_asking();
            };
            watcher.asked(link, logins, number, self.times);
        }
    }

    /// Moves on until nothing is left to do, or there is something for the client.
    fn advance(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        while self.ready.is_empty() {
            if self.hear_client(context)? {
                continue;
            }
            if let Some(item) = self.inbox.take(context) {
                self.on_item(item);
                continue;
            }
            if !self.waiters.poll(context) {
                break;
            }
            self.ask();
        }
        Ok(())
    }

    /// Takes a request of the client. Whether there was one.
    fn hear_client(&mut self, context: &mut Context<'_>) -> Result<bool, Status> {
        let Some(requests) = &mut self.requests else { return Ok(false) };
        match Pin::new(requests).poll_next(context) {
            Poll::Pending => Ok(false),
            Poll::Ready(None) => {
                // It still listens.
                self.requests = None;
                Ok(false)
            }
            Poll::Ready(Some(Err(why))) => Err(why),
            Poll::Ready(Some(Ok(request))) => {
                self.on_request(request);
                Ok(true)
            }
        }
    }
}

impl Stream for Watching {
    type Item = Result<WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(leaderless) = &mut self.leaderless
            && leaderless.as_mut().poll(context).is_ready()
        {
            self.leaderless = None;
            return Poll::Ready(Some(Err(known(NO_LEADER))));
        }
        if let Err(why) = self.advance(context) {
            return Poll::Ready(Some(Err(why)));
        }
        match self.ready.pop_front() {
            Some(response) => Poll::Ready(Some(Ok(response))),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests;
