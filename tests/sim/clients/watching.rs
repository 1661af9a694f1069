//! Clients that watch: from now, from what was, from what will be; on whatever node; and when it is
//! gone, or at times for no reason, on another one. What they hear is held against the log in the
//! end; that it comes in order, whole, and never goes back, at once.

use super::hearing::check_frame;
use crate::chance::Chance;
use crate::coverage::Point;
use crate::history::product::row_of;
use crate::history::watches::{Event as Change, Listener, Wish};
use crate::invariants::{broken, must};
use crate::network::PipeKey;
use crate::options::{MS, Options};
use crate::queue::Event;
use crate::trace::{Who, say};
use crate::world::World;
use raftd::types::Revision;
use raftd::wire::error::Error;
use raftd::wire::reply::ReplyBody;
use raftd::wire::watch::{self, WatchArgs, WatchEvent};

/// Between two looks at a client's watches.
const EVERY_NS: u64 = 150 * MS;

/// How often a node says that nothing happened. The least there is. Milliseconds.
const PROGRESS_MS: u64 = 100;

/// A node that has said nothing for so long is cut off.
const SILENCE_NS: u64 = 2_000 * MS;

/// A watch that a client wants, on whatever node.
#[derive(Debug)]
pub(super) struct Watching {
    listener: Listener,
    open: Option<Open>,
    /// Those that it has cancelled: nothing may come of one after the answer to that.
    cancelled: Vec<Cancelled>,
    /// Where it was open before.
    before: Option<usize>,
}

#[derive(Debug)]
struct Open {
    request: u64,
    pipe: PipeKey,
    node: usize,
    /// The revision asked for; 0: from then on.
    start: u64,
    /// When anything came of it.
    heard_at: u64,
}

#[derive(Debug)]
struct Cancelled {
    watch: u64,
    pipe: PipeKey,
    request: u64,
    answered: bool,
}

/// What clients watch.
#[derive(Debug)]
pub(super) struct Watchers {
    chance: Chance,
    pub(super) all: Vec<Watching>,
}

impl Watchers {
    pub(super) fn new(chance: Chance) -> Watchers {
        Watchers { chance, all: Vec::new() }
    }
}

fn some_key(chance: &mut Chance, options: &Options) -> Vec<u8> {
    let keys = options.clients.keys;
    let hot = chance.below(keys).min(chance.below(keys));
    format!("k{hot:03}").into_bytes()
}

fn some_wish(chance: &mut Chance, options: &Options) -> Wish {
    let (key, end) = match chance.below(3) {
        0 => (some_key(chance, options), Vec::new()),
        1 => (some_key(chance, options), some_key(chance, options)),
        _ => (vec![0], vec![0]),
    };
    let (prev_kv, no_put, no_delete) = (chance.one_in(2), chance.one_in(6), chance.one_in(6));
    Wish { key, end, prev_kv, no_put, no_delete }
}

impl World {
    pub(super) fn start_watching(&mut self) {
        for client in 0..self.crowd.clients.len() {
            let at = self.crowd.clients[client].watchers.chance.below(EVERY_NS);
            self.queue.at(at, Event::Watch { client });
        }
    }

    /// A client sees to its watches.
    pub(crate) fn on_watch(&mut self, client: usize) {
        let chance = &mut self.crowd.clients[client].watchers.chance;
        let wait = EVERY_NS / 2 + chance.below(EVERY_NS);
        self.queue.at(self.now + wait, Event::Watch { client });
        let (few, calm) = (self.options.clients.watches, self.faults.calm);
        let it = &mut self.crowd.clients[client].watchers;
        if it.all.len() < few && it.chance.one_in(3) {
            let wish = some_wish(&mut it.chance, &self.options);
            let start = match it.chance.below(4) {
                0 => 0,
                1 => self.crowd.told + 1 + it.chance.below(12),
                _ => self.crowd.told.saturating_sub(it.chance.below(80)).max(2),
            };
            let listener = Listener::new(wish, start);
            it.all.push(Watching { listener, open: None, cancelled: Vec::new(), before: None });
        }
        for nth in 0..self.crowd.clients[client].watchers.all.len() {
            let it = &mut self.crowd.clients[client].watchers;
            let tired = !calm && it.chance.one_in(40);
            match &it.all[nth].open {
                None => self.open_watch(client, nth),
                Some(open) if tired || open.heard_at + SILENCE_NS < self.now => {
                    self.cancel_watch(client, nth);
                }
                Some(_) => {}
            }
        }
    }

    fn open_watch(&mut self, client: usize, nth: usize) {
        let it = &mut self.crowd.clients[client].watchers;
        let node = it.chance.pick(&self.crowd.reach);
        if !self.has_line(client, node) {
            return;
        }
        let it = &mut self.crowd.clients[client];
        let pipe = it.lines[node].as_ref().expect("it was just made sure of").pipe;
        let watching = &mut it.watchers.all[nth];
        let start = watching.listener.resume();
        let wish = &watching.listener.heard.wish;
        let args = WatchArgs {
            key: &wish.key,
            end: &wish.end,
            start: Revision(start),
            prev_kv: wish.prev_kv,
            no_put: wish.no_put,
            no_delete: wish.no_delete,
            progress_ms: PROGRESS_MS,
        };
        let mut bytes = Vec::new();
        watch::watch_request(&mut bytes, it.requests + 1, &args);
        let moved = watching.before.is_some_and(|before| before != node);
        self.coverage.hit_if(moved && start > 0, Point::WatchResumed);
        let request = self.send_request(client, pipe, bytes);
        say!(self, Who::Client(client), "watch", "n{} #{request} from {start}", node + 1);
        let watching = &mut self.crowd.clients[client].watchers.all[nth];
        watching.open = Some(Open { request, pipe, node, start, heard_at: self.now });
        watching.before = Some(node);
    }

    fn cancel_watch(&mut self, client: usize, nth: usize) {
        let it = &mut self.crowd.clients[client];
        let open = it.watchers.all[nth].open.take().expect("it is open");
        let mut bytes = Vec::new();
        watch::watch_cancel_request(&mut bytes, it.requests + 1, open.request);
        let request = self.send_request(client, open.pipe, bytes);
        let (watch, pipe) = (open.request, open.pipe);
        let cancelled = Cancelled { watch, pipe, request, answered: false };
        self.crowd.clients[client].watchers.all[nth].cancelled.push(cancelled);
    }

    /// Whether a request is a watch, which is answered again and again.
    pub(super) fn is_watching(&self, client: usize, request: u64) -> bool {
        let watches = |watching: &Watching| {
            let open = watching.open.iter().map(|open| open.request);
            let cancelled = watching.cancelled.iter().map(|cancelled| cancelled.watch);
            open.chain(cancelled).any(|watch| watch == request)
        };
        let it = &self.crowd.clients[client];
        it.watchers.all.iter().any(watches) || it.guest.is_watching(request)
    }

    /// Whether an answer is for a watch; then it is taken.
    pub(super) fn hear_watch(&mut self, client: usize, id: u64, body: &ReplyBody<'_>) -> bool {
        let it = &mut self.crowd.clients[client].watchers;
        let open = |watching: &Watching| watching.open.as_ref().is_some_and(|it| it.request == id);
        if let Some(nth) = it.all.iter().position(open) {
            self.on_watch_reply(client, nth, body);
            return true;
        }
        for cancelled in it.all.iter_mut().flat_map(|watching| &mut watching.cancelled) {
            if cancelled.request == id {
                cancelled.answered = true;
                let expected = matches!(body, ReplyBody::WatchCancel { .. });
                must!(expected, "Answer", "a cancel was answered: {body:?}");
                return true;
            }
            let late = cancelled.watch == id && cancelled.answered;
            must!(!late, "Watch", "c{client} hears of #{id}, which has ended");
            if cancelled.watch == id {
                return true;
            }
        }
        false
    }

    fn on_watch_reply(&mut self, client: usize, nth: usize, body: &ReplyBody<'_>) {
        let watching = &mut self.crowd.clients[client].watchers.all[nth];
        let open = watching.open.as_mut().expect("it is open");
        open.heard_at = self.now;
        let Open { request, node, start, .. } = *open;
        if let ReplyBody::Watch(reply) = body {
            let (revision, more, count) = (reply.revision.0, reply.more, reply.len());
            say!(
                self,
                Who::Client(client),
                "hear",
                "n{} #{request} {count} events up to {revision} more={more}",
                node + 1
            );
            let change = |event: WatchEvent<'_>| Change {
                row: row_of(&event.kv),
                before: event.before.as_ref().map(row_of),
            };
            let sizes = reply.events().map(|event| {
                let before = event.before.map_or(0, |it| it.key.len() + it.value.len());
                event.kv.key.len() + event.kv.value.len() + before
            });
            check_frame("a watch", sizes, self.options.working.watch_batch_bytes);
            self.coverage.hit_if(more, Point::WatchSplit);
            self.coverage.hit_if(count == 0 && start > revision + 1, Point::WatchWaits);
            self.coverage.hit_if(count == 0, Point::WatchProgress);
            let events = reply.events().map(change).collect();
            if let Err(why) = watching.listener.hear(revision, more, events) {
                broken("Watch", format!("c{client} #{request} at n{}: {why}", node + 1));
            }
            return;
        }
        watching.open = None;
        if let ReplyBody::Error(Error::Compacted { compact_revision }) = body {
            self.coverage.hit(Point::WatchCompacted);
            let needed = watching.listener.heard.up_to + 1;
            let heard = watching.listener.skip_to(compact_revision.0);
            self.crowd.history.watched.heard.push(heard);
            self.crowd.history.watched.compacted.push((needed, compact_revision.0));
            return;
        }
        let elsewhere = matches!(
            body,
            ReplyBody::Error(
                Error::NotReady { .. }
                    | Error::Busy { .. }
                    | Error::Removed { .. }
                    | Error::Denied { .. }
            )
        );
        must!(elsewhere, "Answer", "a watch was answered: {body:?}");
    }

    /// A connection is gone, and all watches on it.
    pub(super) fn lose_watches(&mut self, client: usize, pipe: PipeKey) {
        for watching in &mut self.crowd.clients[client].watchers.all {
            watching.open.take_if(|open| open.pipe == pipe);
            watching.cancelled.retain(|cancelled| cancelled.pipe != pipe);
        }
    }

    /// The first watch that has not heard up to a revision, if there is one.
    pub(crate) fn deaf_watch(&self, revision: u64) -> Option<String> {
        let all = self.crowd.clients.iter().enumerate();
        let mut all =
            all.flat_map(|(client, it)| it.watchers.all.iter().map(move |it| (client, it)));
        let deaf = |(client, watching): (usize, &Watching)| {
            let heard = &watching.listener.heard;
            (heard.up_to < revision).then(|| {
                let open = watching.open.as_ref().map(|open| (open.node + 1, open.start));
                format!("c{client} heard up to {} of {revision}, open: {open:?}", heard.up_to)
            })
        };
        all.find_map(deaf)
    }

    /// Notes what the watches have heard, for the check of the history.
    pub(crate) fn end_watches(&mut self) {
        for client in &mut self.crowd.clients {
            let heard = client.watchers.all.drain(..).map(|watching| watching.listener.heard);
            let heard = heard.chain(client.guest.end_watch());
            self.crowd.history.watched.heard.extend(heard);
        }
    }
}
