//! A watch by gRPC, held to what watches promise while it listens; what it has heard is for the
//! checker of histories, which knows the log.

use super::asking::row_of;
use super::program::Clients;
use super::said::said;
use crate::history::checker::watches::{Event, Listener, Wish};
use raftd::gateway::proto::etcdserverpb::watch_create_request::FilterType;
use raftd::gateway::proto::etcdserverpb::watch_request::RequestUnion;
use raftd::gateway::proto::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use raftd::gateway::proto::mvccpb;
use raftd::gateway::proto::mvccpb::event::EventType;
use tokio::sync::mpsc::UnboundedSender;
use tonic::{Status, Streaming};

/// A stream of watches.
pub(super) struct Line {
    say: UnboundedSender<WatchRequest>,
    heard: Streaming<WatchResponse>,
}

impl Line {
    /// Opens one with these watches, as Kubernetes does: it is to end when nobody leads.
    pub(super) async fn open(
        clients: &Clients,
        watches: impl IntoIterator<Item = WatchCreateRequest>,
    ) -> Result<Line, Status> {
        let (say, said) = said();
        let mut request = tonic::Request::new(said);
        request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        for watch in watches {
            say.send(request_of(RequestUnion::CreateRequest(watch))).unwrap();
        }
        let heard = clients.watch().watch(request).await?.into_inner();
        Ok(Line { say, heard })
    }

    /// One watch more. That the stream has ended is heard, not seen here.
    pub(super) fn create(&self, watch: WatchCreateRequest) {
        let _over = self.say.send(request_of(RequestUnion::CreateRequest(watch)));
    }

    /// Asks how far the watches are.
    pub(super) fn ask_progress(&self) {
        let _over =
            self.say.send(request_of(RequestUnion::ProgressRequest(WatchProgressRequest {})));
    }

    /// What comes next; `None`: the stream has ended.
    pub(super) async fn next(&mut self) -> Result<Option<WatchResponse>, Status> {
        self.heard.message().await
    }
}

fn request_of(request: RequestUnion) -> WatchRequest {
    WatchRequest { request_union: Some(request) }
}

/// One watch, on whichever stream it is open.
pub(super) struct Ear {
    pub(super) listener: Listener,
    /// It is said to be open on the stream of now.
    pub(super) is_open: bool,
}

/// What a watch needed was compacted.
pub(super) struct TooLate {
    /// The revision that it needed.
    pub(super) needed: u64,
    /// Up to where all is gone.
    pub(super) compact_revision: u64,
}

impl Ear {
    /// One that is to hear of everything from `start` on; 0: of what comes.
    pub(super) fn new(wish: Wish, start: u64) -> Ear {
        Ear { listener: Listener::new(wish, start), is_open: false }
    }

    /// What to ask for, to go on from where it is.
    pub(super) fn request(&mut self, watch_id: i64) -> WatchCreateRequest {
        self.is_open = false;
        let start_revision = self.listener.resume().try_into().unwrap();
        let Wish { key, end, prev_kv, no_put, no_delete } = self.listener.heard.wish.clone();
        let filters = [(no_put, FilterType::Noput), (no_delete, FilterType::Nodelete)];
        let filters = filters.into_iter().filter(|(wanted, _)| *wanted);
        WatchCreateRequest {
            key: key.into(),
            range_end: end.into(),
            start_revision,
            progress_notify: true,
            filters: filters.map(|(_, filter)| filter.into()).collect(),
            prev_kv,
            watch_id,
            fragment: false,
        }
    }

    /// Hears a response to it, or of all watches. Panics if that breaks a promise.
    pub(super) fn hear(&mut self, response: &WatchResponse) -> Option<TooLate> {
        let up_to = self.listener.heard.up_to;
        let at = revision_of(response);
        if response.compact_revision > 0 {
            let compact_revision = response.compact_revision.try_into().unwrap();
            return Some(TooLate { needed: up_to + 1, compact_revision });
        }
        assert!(!response.canceled, "{response:?}");
        let heard = if response.created {
            assert!(!self.is_open, "it is opened twice: {response:?}");
            self.is_open = true;
            // It says where the store is, which may be far ahead of the watch.
            let at = if up_to == 0 { at } else { at.min(up_to) };
            self.listener.hear(at, false, response.events.iter().map(event).collect())
        } else {
            assert!(self.is_open, "it is not open: {response:?}");
            let events: Vec<Event> = response.events.iter().map(event).collect();
            // The header may be ahead of the events, but not behind them.
            let last = events.last().map_or(at, |event| event.row.mod_revision);
            assert!(last <= at, "the header is behind its events: {response:?}");
            self.listener.hear(last, false, events)
        };
        heard.unwrap_or_else(|why| panic!("{why}: {response:?}"));
        None
    }
}

/// The revision of the header.
pub(super) fn revision_of(response: &WatchResponse) -> u64 {
    response.header.as_ref().expect("every response has one").revision.try_into().unwrap()
}

fn event(event: &mvccpb::Event) -> Event {
    let kv = event.kv.as_ref().expect("an event is of a key");
    let row = row_of(kv);
    let is_delete = event.r#type == i32::from(EventType::Delete);
    assert_eq!(is_delete, row.version == 0, "a delete has a name and a revision: {event:?}");
    Event { row, before: event.prev_kv.as_ref().map(row_of) }
}
