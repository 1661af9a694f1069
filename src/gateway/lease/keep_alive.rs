//! Leases that are kept alive: a stream of requests, and one of answers in the same order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::codegen::tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::gateway::calls::{Cluster, Whom, number};
use crate::gateway::failure::unexpected;
use crate::gateway::proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use crate::wire::leases::LeaseRequest;
use crate::wire::reply::ReplyBody;

use super::ask;

/// Requests of one stream under way at once; those behind wait with their client. A client keeps
/// all of its leases alive by one stream.
const UNDER_WAY_MAX: usize = 64;

type Answering = Pin<Box<dyn Future<Output = Answered> + Send>>;
type Answered = Result<LeaseKeepAliveResponse, Status>;

/// The answers of one stream.
pub(in crate::gateway) struct KeepAlives {
    cluster: Arc<Cluster>,
    /// `None` once the client has said all.
    requests: Option<Streaming<LeaseKeepAliveRequest>>,
    under_way: VecDeque<Turn>,
}

/// A request's place in the order of answers.
enum Turn {
    Waits(Answering),
    Has(Answered),
}

impl KeepAlives {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        requests: Streaming<LeaseKeepAliveRequest>,
    ) -> KeepAlives {
        KeepAlives { cluster, requests: Some(requests), under_way: VecDeque::new() }
    }

    /// Takes requests while there is room. An error ends the stream behind the answers before it.
    fn take_requests(&mut self, context: &mut Context<'_>) {
        while self.under_way.len() < UNDER_WAY_MAX
            && let Some(requests) = &mut self.requests
        {
            match Pin::new(requests).poll_next(context) {
                Poll::Pending => return,
                Poll::Ready(None) => self.requests = None,
                Poll::Ready(Some(Err(why))) => {
                    self.requests = None;
                    self.under_way.push_back(Turn::Has(Err(why)));
                }
                Poll::Ready(Some(Ok(request))) => {
                    let cluster = Arc::clone(&self.cluster);
                    let answering = Box::pin(keep_alive(cluster, request.id));
                    self.under_way.push_back(Turn::Waits(answering));
                }
            }
        }
    }
}

impl Stream for KeepAlives {
    type Item = Answered;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.take_requests(context);
        for turn in &mut self.under_way {
            if let Turn::Waits(answering) = turn
                && let Poll::Ready(answer) = answering.as_mut().poll(context)
            {
                *turn = Turn::Has(answer);
            }
        }
        match self.under_way.pop_front() {
            Some(Turn::Has(answer)) => Poll::Ready(Some(answer)),
            Some(waits @ Turn::Waits(_)) => {
                self.under_way.push_front(waits);
                Poll::Pending
            }
            None if self.requests.is_none() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

pub(super) async fn keep_alive(cluster: Arc<Cluster>, id: i64) -> Answered {
    let asked = LeaseRequest::KeepAlive { lease: id.cast_unsigned() };
    let answer = ask(&cluster, Whom::Leader, &asked).await?;
    let ReplyBody::LeaseTerm { term, .. } = answer.reply()? else { return Err(unexpected()) };
    // A lease that does not exist, or not any more, has a time to live of 0: that is no error.
    Ok(LeaseKeepAliveResponse {
        header: Some(cluster.header(answer.node, term.revision)),
        id,
        ttl: number(term.ttl_s),
    })
}
