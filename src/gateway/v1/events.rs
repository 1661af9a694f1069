//! One watch as a stream of its own.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tonic::codegen::tokio_stream::Stream;
use tonic::{Code, Status};

use crate::gateway::failure::{COMPACTED, denial_in, known};
use crate::gateway::proto::etcdserverpb as etcd;
use crate::gateway::proto::raftd::WatchResponse;
use crate::gateway::watch::Watching;

use super::words;

/// The events of one watch. It ends with an error only.
pub(in crate::gateway) struct Events(Option<Watching>);

impl Events {
    pub(super) fn new(watching: Watching) -> Events {
        Events(Some(watching))
    }
}

impl Stream for Events {
    type Item = Result<WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(watching) = &mut self.0 else { return Poll::Ready(None) };
        let Some(response) = ready!(Pin::new(watching).poll_next(context)) else {
            return Poll::Ready(None);
        };
        let item = response.and_then(|response| {
            if response.canceled { Err(end(&response)) } else { Ok(events(response)) }
        });
        if item.is_err() {
            self.0 = None;
        }
        Poll::Ready(Some(item))
    }
}

fn events(response: etcd::WatchResponse) -> WatchResponse {
    WatchResponse {
        revision: words::revision(response.header),
        events: response.events.into_iter().map(words::event).collect(),
    }
}

/// Why the watch has ended. Of a compaction it says from where there is something to hear.
fn end(response: &etcd::WatchResponse) -> Status {
    if response.compact_revision > 0 {
        let why = known(COMPACTED);
        let from = response.compact_revision;
        return Status::new(why.code(), format!("{}: watch from {from} on", why.message()));
    }
    let reason = &response.cancel_reason;
    denial_in(reason).unwrap_or_else(|| Status::new(Code::InvalidArgument, reason.clone()))
}
