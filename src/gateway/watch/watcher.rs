//! One watch of a client: what it is to hear, and how far it has heard.

use bytes::Bytes;
use std::collections::VecDeque;
use std::mem::size_of;

use crate::gateway::calls::number;
use crate::gateway::kv::translate;
use crate::gateway::link::Link;
use crate::gateway::proto::etcdserverpb::watch_create_request::FilterType;
use crate::gateway::proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use crate::gateway::proto::mvccpb::Event;
use crate::gateway::proto::mvccpb::event::EventType;
use crate::gateway::room::{Full, Share};
use crate::limits::REQUEST_BYTES_MAX;
use crate::types::Revision;
use crate::wire::watch::{WatchArgs, WatchEvent, WatchReply};

/// Events of one response to a client that takes fragments: etcd's. Bytes.
const FRAGMENT_BYTES: usize = REQUEST_BYTES_MAX;

/// What an event takes in a response beside its keys and values, about. Bytes.
const EVENT_BYTES: usize = 64;

/// What a watch takes beside its keys: itself, and its places in the tables. Bytes.
const WATCHER_BYTES: usize = 512;

/// What the events of one revision may take. Bytes.
const PART_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A watch.
pub(super) struct Watcher {
    /// The client's number for it.
    id: i64,
    key: Bytes,
    end: Bytes,
    prev_kv: bool,
    no_put: bool,
    no_delete: bool,
    /// Whether to say that nothing happens.
    progress_notify: bool,
    /// Whether events of one revision may come in several responses.
    fragment: bool,
    /// From which revision on its client wants to hear; 0: from then on.
    start: Revision,
    /// Everything below was handed out, or is not to be heard of; 0: that is not known yet.
    next: Revision,
    /// Whether the client has been told that it is open.
    created: bool,
    /// Its number was chosen here.
    numbered: bool,
    asked: Option<Asked>,
    /// By which link it was refused last since a node has opened it, and how often that had logged
    /// in.
    denied: Option<(Link, u64)>,
    /// Events whose revision is not whole yet.
    part: Vec<Event>,
    part_bytes: usize,
    /// What those have of the room for all of them.
    part_share: Share,
    /// What the watch itself has of the room for watches.
    share: Share,
}

/// At which node it is open, until this is dropped.
struct Asked {
    link: Link,
    /// How often the link had logged in before.
    logins: u64,
    /// The watch's number there.
    id: u64,
    /// Which asking it is.
    time: u64,
    /// The node has said that it is open.
    greeted: bool,
}

/// Why a reply is not taken.
pub(super) enum NotTaken {
    /// The events of one revision are too many.
    TooLarge,
    /// There is no room for them now.
    NoRoom,
}

impl Watcher {
    /// What a client asks for. It is not asked of any node yet. `share` is what it takes,
    /// `part_share` what events of a revision will.
    pub(super) fn new(request: WatchCreateRequest, share: Share, part_share: Share) -> Watcher {
        let id = request.watch_id;
        // What came with the request is not to be kept for its keys.
        let WatchCreateRequest { key, range_end, start_revision, filters, .. } = request;
        let leaves_out = |filter: FilterType| filters.contains(&i32::from(filter));
        Watcher {
            id,
            // Whoever names no key means the first there can be.
            key: if key.is_empty() {
                Bytes::from_static(&[0])
            } else {
                Bytes::copy_from_slice(&key)
            },
            end: Bytes::copy_from_slice(&range_end),
            prev_kv: request.prev_kv,
            no_put: leaves_out(FilterType::Noput),
            no_delete: leaves_out(FilterType::Nodelete),
            progress_notify: request.progress_notify,
            fragment: request.fragment,
            start: translate::revision(start_revision),
            next: translate::revision(start_revision),
            created: false,
            numbered: false,
            asked: None,
            denied: None,
            part: Vec::new(),
            part_bytes: 0,
            part_share,
            share,
        }
    }

    /// The client's number for it.
    pub(super) fn id(&self) -> i64 {
        self.id
    }

    /// Gives it another number.
    pub(super) fn rename(&mut self, id: i64) {
        (self.id, self.numbered) = (id, true);
    }

    /// Whether its number was chosen here, not by the client.
    pub(super) fn is_numbered(&self) -> bool {
        self.numbered
    }

    /// Takes what it needs of the room for watches.
    pub(super) fn settle(&mut self) -> Result<(), Full> {
        self.share.set(self.cost())
    }

    /// What it takes as long as it is there. Bytes.
    pub(super) fn cost(&self) -> usize {
        WATCHER_BYTES + self.key.len() + self.end.len()
    }

    /// Whether there can be no key in its range.
    pub(super) fn is_empty(&self) -> bool {
        !matches!(&self.end[..], [] | [0]) && self.end <= self.key
    }

    /// What to ask of a node.
    pub(super) fn args(&self, progress_ms: u64) -> WatchArgs<'_> {
        WatchArgs {
            key: &self.key,
            end: &self.end,
            start: self.next,
            prev_kv: self.prev_kv,
            no_put: self.no_put,
            no_delete: self.no_delete,
            progress_ms: if self.progress_notify { progress_ms } else { 0 },
        }
    }

    /// It was asked of a node, by a link that had logged in so often.
    pub(super) fn asked(&mut self, link: Link, logins: u64, id: u64, time: u64) {
        self.asked = Some(Asked { link, logins, id, time, greeted: false });
    }

    /// A node has refused it. Unless that is once more the same: by which link, and how often that
    /// had logged in.
    pub(super) fn denied(&mut self) -> Option<(Link, u64)> {
        let asked = self.asked.as_ref()?;
        let now = (asked.link.clone(), asked.logins);
        let before = self.denied.replace(now.clone());
        let again = before.is_some_and(|(link, logins)| link.is(&now.0) && logins == now.1);
        (!again).then_some(now)
    }

    /// Whether this asking is the last one.
    pub(super) fn is_asked(&self, time: u64) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.time == time)
    }

    /// Whether it was asked for by then, and not since.
    pub(super) fn was_asked_by(&self, time: u64) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.time <= time)
    }

    /// Nothing more comes of the last asking.
    pub(super) fn lost(&mut self) {
        self.asked = None;
        self.part = Vec::new();
        self.part_bytes = 0;
        self.part_share.clear();
    }

    /// Whether the client has been told that it is open.
    pub(super) fn is_created(&self) -> bool {
        self.created
    }

    /// Where it is open, if all of what it has got has been handed out.
    pub(super) fn link_if_whole(&self) -> Option<&Link> {
        let asked = self.asked.as_ref().filter(|asked| asked.greeted)?;
        self.part.is_empty().then_some(&asked.link)
    }

    /// Whether it waits for nothing up to `revision`, and has handed out nothing behind it.
    pub(super) fn is_just_before(&self, revision: Revision) -> bool {
        self.created && self.next <= revision.next()
    }

    /// Whether it can be said to miss nothing up to `revision`: it is there, or has yet to hear
    /// anything, and nothing of what it is to hear is that old.
    pub(super) fn misses_nothing(&self, revision: Revision) -> bool {
        self.is_just_before(revision) || (self.created && self.next == self.start)
    }

    /// It misses nothing up to `revision`.
    pub(super) fn has_heard(&mut self, revision: Revision) {
        self.next = self.next.max(revision.next());
    }

    /// Takes a reply of its node. `newest`: the newest revision that a client can have heard of.
    pub(super) fn take(
        &mut self,
        body: &Bytes,
        reply: &WatchReply<'_>,
        newest: Revision,
        header: impl Fn(Revision) -> ResponseHeader,
        out: &mut VecDeque<WatchResponse>,
    ) -> Result<(), NotTaken> {
        let Some(asked) = &mut self.asked else { return Ok(()) };
        if !std::mem::replace(&mut asked.greeted, true) {
            self.denied = None;
            self.greet(reply.revision, newest, header, out);
            return Ok(());
        }
        for event in reply.events() {
            self.keep(body, &event);
        }
        if self.part_bytes > PART_BYTES_MAX {
            return Err(NotTaken::TooLarge);
        }
        if reply.more {
            return self.part_share.set_in_turn(self.part_bytes).map_err(|_| NotTaken::NoRoom);
        }
        self.part_bytes = 0;
        self.part_share.clear();
        if !self.part.is_empty() {
            self.hand_out(header(reply.revision), out);
        } else if self.progress_notify && self.is_just_before(reply.revision) {
            out.push_back(self.response(header(reply.revision)));
        }
        self.has_heard(reply.revision);
        Ok(())
    }

    /// The node has opened it, at `revision` if it was asked for what is new.
    fn greet(
        &mut self,
        revision: Revision,
        newest: Revision,
        header: impl Fn(Revision) -> ResponseHeader,
        out: &mut VecDeque<WatchResponse>,
    ) {
        let newest = newest.max(revision);
        if self.next == Revision(0) {
            // The node may be behind what the client has seen by another one.
            self.next = newest.next();
        }
        if !std::mem::replace(&mut self.created, true) {
            out.push_back(WatchResponse { created: true, ..self.response(header(newest)) });
        }
    }

    fn keep(&mut self, body: &Bytes, event: &WatchEvent<'_>) {
        if event.kv.mod_revision < self.next {
            return;
        }
        let r#type = if event.is_delete() { EventType::Delete } else { EventType::Put };
        let before = event.before.as_ref();
        let size = |kv: &crate::wire::results::KeyValue<'_>| kv.key.len() + kv.value.len();
        self.part_bytes += size_of::<Event>() + size(&event.kv) + before.map_or(0, size);
        self.part.push(Event {
            r#type: i32::from(r#type),
            kv: Some(translate::key_value(body, &event.kv)),
            prev_kv: before.map(|kv| translate::key_value(body, kv)),
        });
    }

    /// Hands out the events of whole revisions.
    fn hand_out(&mut self, header: ResponseHeader, out: &mut VecDeque<WatchResponse>) {
        let mut events = Vec::new();
        let mut bytes = 0;
        for event in std::mem::take(&mut self.part) {
            let size = |kv: &Option<crate::gateway::proto::mvccpb::KeyValue>| {
                kv.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len())
            };
            let size = EVENT_BYTES + size(&event.kv) + size(&event.prev_kv);
            if self.fragment && !events.is_empty() && bytes + size > FRAGMENT_BYTES {
                let events = std::mem::take(&mut events);
                out.push_back(WatchResponse { fragment: true, events, ..self.response(header) });
                bytes = 0;
            }
            bytes += size;
            events.push(event);
        }
        out.push_back(WatchResponse { events, ..self.response(header) });
    }

    /// A response that says nothing yet.
    fn response(&self, header: ResponseHeader) -> WatchResponse {
        WatchResponse { header: Some(header), watch_id: self.id, ..WatchResponse::default() }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.link.forget_watch(self.id);
    }
}

/// A response that says that a watch is not, or not any more.
pub(super) fn ended(header: ResponseHeader, watch_id: i64) -> WatchResponse {
    WatchResponse { header: Some(header), watch_id, canceled: true, ..WatchResponse::default() }
}

/// The same, because what it has not got is compacted.
pub(super) fn compacted(
    header: ResponseHeader,
    watch_id: i64,
    compact_revision: Revision,
) -> WatchResponse {
    let compact_revision = number(compact_revision.0);
    let header = ResponseHeader { revision: 0, ..header };
    WatchResponse { compact_revision, ..ended(header, watch_id) }
}
