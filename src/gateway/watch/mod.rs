//! The Watch service.
//!
//! Any node serves a watch; here it is the home node, and when that is gone another one, from the
//! revision after the last that was handed out. So a watch outlives nodes and leaders without a gap
//! and without an event that comes twice.
pub(super) mod inbox;
mod stream;
mod waiters;
mod watcher;

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming, async_trait};

use super::auth::Who;
use super::calls::{Cluster, wants_leader};
use super::proto::etcdserverpb::watch_server::Watch;
use super::proto::etcdserverpb::{WatchCreateRequest, WatchRequest};
use inbox::Waiting;
pub(super) use stream::Watching;

/// Watches, by etcd's names.
#[derive(Clone)]
pub(super) struct WatchService {
    pub(super) cluster: Arc<Cluster>,
    /// How often a client hears that nothing happens, if it asks for that. Milliseconds.
    pub(super) progress_ms: u64,
    /// What waits in the inboxes of all streams.
    pub(super) waiting: Arc<Waiting>,
}

impl WatchService {
    /// A stream with one watch, of which its client says nothing more.
    pub(super) fn open_one(&self, request: Request<WatchCreateRequest>) -> Watching {
        let ends_without_leader = wants_leader(&request);
        let mut stream = self.stream(Who::of(&request), None, ends_without_leader);
        stream.create(request.into_inner());
        stream
    }

    fn stream(
        &self,
        who: Who,
        requests: Option<Streaming<WatchRequest>>,
        ends_without_leader: bool,
    ) -> Watching {
        let cluster = Arc::clone(&self.cluster);
        let stream = Watching::new(cluster, who, &self.waiting, self.progress_ms, requests);
        if ends_without_leader { stream.ends_without_leader() } else { stream }
    }
}

#[async_trait]
impl Watch for WatchService {
    type WatchStream = Watching;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Watching>, Status> {
        let ends_without_leader = wants_leader(&request);
        let (who, requests) = (Who::of(&request), Some(request.into_inner()));
        Ok(Response::new(self.stream(who, requests, ends_without_leader)))
    }
}
