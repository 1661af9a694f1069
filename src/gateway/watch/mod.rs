//! The Watch service.
//!
//! Any node serves a watch; here it is the home node, and when that is gone another one, from the
//! revision after the last that was handed out. So a watch outlives nodes and leaders without a gap
//! and without an event that comes twice.
pub(super) mod inbox;
mod stream;
mod watcher;

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming, async_trait};

use super::calls::{Cluster, wants_leader};
use super::proto::etcdserverpb::WatchRequest;
use super::proto::etcdserverpb::watch_server::Watch;
use inbox::Waiting;
use stream::Watching;

/// Watches, by etcd's names.
pub(super) struct WatchService {
    pub(super) cluster: Arc<Cluster>,
    /// How often a client hears that nothing happens, if it asks for that. Milliseconds.
    pub(super) progress_ms: u64,
    /// What waits in the inboxes of all streams.
    pub(super) waiting: Arc<Waiting>,
}

#[async_trait]
impl Watch for WatchService {
    type WatchStream = Watching;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Watching>, Status> {
        let ends_without_leader = wants_leader(&request);
        let cluster = Arc::clone(&self.cluster);
        let requests = request.into_inner();
        let stream = Watching::new(cluster, &self.waiting, self.progress_ms, requests);
        let stream = if ends_without_leader { stream.ends_without_leader() } else { stream };
        Ok(Response::new(stream))
    }
}
