//! Leases that are kept alive: a stream of requests, and one of answers in the same order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::codegen::tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::gateway::auth::Who;
use crate::gateway::calls::{Cluster, Whom, number};
use crate::gateway::errand::Errand;
use crate::gateway::failure::{Failure, NO_LEADER, known, unexpected};
use crate::gateway::nodes::Leaderless;
use crate::gateway::proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use crate::wire::leases::LeaseRequest;
use crate::wire::reply::ReplyBody;

use super::ask;

/// Requests of one stream under way at once; those behind wait with their client. A client keeps
/// all of its leases alive by one stream.
const UNDER_WAY_MAX: usize = 64;

type Answered = Result<LeaseKeepAliveResponse, Status>;

/// The answers of one stream.
pub(in crate::gateway) struct KeepAlives {
    cluster: Arc<Cluster>,
    /// In whose name.
    who: Who,
    /// `None` once the client has said all.
    requests: Option<Streaming<LeaseKeepAliveRequest>>,
    under_way: VecDeque<Turn>,
    /// Over when nobody has led for long, if the client wants to hear that.
    leaderless: Option<Leaderless>,
}

/// A request's place in the order of answers.
enum Turn {
    /// A task of its own, or what it holds would be kept from all others.
    Waits(Errand<Answered>),
    Has(Answered),
}

impl KeepAlives {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        who: Who,
        requests: Streaming<LeaseKeepAliveRequest>,
    ) -> KeepAlives {
        let (requests, under_way) = (Some(requests), VecDeque::new());
        KeepAlives { cluster, who, requests, under_way, leaderless: None }
    }

    /// Ends the stream when nobody has led for longer than elections take.
    pub(super) fn ends_without_leader(mut self) -> KeepAlives {
        self.leaderless = Some(self.cluster.nodes.leaderless());
        self
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
                    let (cluster, who) = (Arc::clone(&self.cluster), self.who.clone());
                    let asking = Errand::begin(keep_alive(cluster, who, request.id));
                    self.under_way.push_back(Turn::Waits(asking));
                }
            }
        }
    }
}

impl Stream for KeepAlives {
    type Item = Answered;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(leaderless) = &mut self.leaderless
            && leaderless.as_mut().poll(context).is_ready()
        {
            (self.leaderless, self.requests) = (None, None);
            self.under_way.clear();
            return Poll::Ready(Some(Err(known(NO_LEADER))));
        }
        self.take_requests(context);
        for turn in &mut self.under_way {
            if let Turn::Waits(asking) = turn
                && let Poll::Ready(ended) = Pin::new(asking).poll(context)
            {
                // It is not awaited once it is aborted.
                *turn = Turn::Has(ended.unwrap_or_else(|_| Err(Failure::TimedOut.into())));
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

pub(super) async fn keep_alive(cluster: Arc<Cluster>, who: Who, id: i64) -> Answered {
    let asked = LeaseRequest::KeepAlive { lease: id.cast_unsigned() };
    let answer = ask(&cluster, &who, Whom::Leader, &asked).await?;
    let ReplyBody::LeaseTerm { term, .. } = answer.reply()? else { return Err(unexpected()) };
    // A lease that does not exist, or not any more, has a time to live of 0: that is no error.
    Ok(LeaseKeepAliveResponse {
        header: Some(cluster.header(answer.node, term.revision)),
        id,
        ttl: number(term.ttl_s),
    })
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tonic::codec::{Codec, EncodeBody};
    use tonic::codegen::tokio_stream;
    use tonic_prost::ProstCodec;

    use super::*;
    use crate::gateway::link::{Link, ROOM};
    use crate::types::Revision;
    use crate::wire::client::{Op, status_request};
    use crate::wire::leases::{LeaseTerm, lease_term_reply};

    /// As many requests as one stream has under way.
    fn requests() -> Streaming<LeaseKeepAliveRequest> {
        let mut codec = ProstCodec::<LeaseKeepAliveRequest, LeaseKeepAliveRequest>::default();
        let said = vec![Ok(LeaseKeepAliveRequest { id: 1 }); UNDER_WAY_MAX];
        let said = tokio_stream::iter(said);
        let body = EncodeBody::new_client(codec.encoder(), said, None, None);
        Streaming::new_request(codec.decoder(), body, None, None)
    }

    /// Streams that waited for room, and whose clients did not read on, kept the room that they
    /// were given then: enough of them, and nobody could ask the leader any more.
    #[test]
    fn who_does_not_read_keeps_no_room_from_others() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cluster = Arc::new(Cluster::start(&[], None, 0));
            let link = Link::to_nobody();
            cluster.nodes.take_for_leader(&link);
            let all_room = link.fill();
            let streams = ROOM / UNDER_WAY_MAX + 1;
            let mut streams: Vec<KeepAlives> = (0..streams)
                .map(|_| KeepAlives::new(Arc::clone(&cluster), Who::Nobody, requests()))
                .collect();
            poll_fn(|context| {
                for stream in &mut streams {
                    assert!(Pin::new(stream).poll_next(context).is_pending());
                }
                Poll::Ready(())
            })
            .await;
            drop(all_room);
            let other = link.clone();
            let other = tokio::spawn(async move { other.ask(1, status_request).await.map(|_| ()) });
            let term = LeaseTerm { revision: Revision(1), lease: 1, ttl_s: 60 };
            // The node answers whatever it was asked; the tasks have their turns meanwhile.
            for _ in 0..ROOM {
                if other.is_finished() {
                    return;
                }
                tokio::task::yield_now().await;
                for id in 0..2 * u64::try_from(ROOM).unwrap() {
                    link.hear(|out| lease_term_reply(out, id, Op::LeaseKeepAlive, &term));
                }
            }
            panic!("nobody else can ask the leader");
        });
    }
}
