//! A service whose calls are counted. What became of a call stands in the header of its response if
//! it was refused; else at the end of its body, which is looked at only if it may take a while.
//!
//! All answers pass here, and so here their bytes get what they take of the room for them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::server::NamedService;
use tonic::{Code, Status};

use super::{Metrics, Tally};
use crate::gateway::delivery::held;
use crate::gateway::identity::PeerIdentity;

/// A service.
#[derive(Clone)]
pub(in crate::gateway) struct Counted<S> {
    service: S,
    metrics: Arc<Metrics>,
}

/// Its answer on the way.
pub(in crate::gateway) struct Counting<F> {
    answer: F,
    tally: Option<Tally>,
}

impl<S> Counted<S> {
    /// Counts its calls in `metrics`.
    pub(in crate::gateway) fn new(service: S, metrics: &Arc<Metrics>) -> Counted<S> {
        Counted { service, metrics: Arc::clone(metrics) }
    }
}

impl<S: NamedService> NamedService for Counted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, F> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = F>,
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Counting<F>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Counting<F> {
        let path = request.uri().path();
        // A path may hold any letters but those of ASCII's controls.
        let (rpc, user) = (path.escape_debug(), PeerIdentity::of(request.extensions()));
        log::debug!("a call rpc={rpc} user={user}");
        let tally = self.metrics.begin(path);
        Counting { answer: self.service.call(request), tally }
    }
}

impl<F> Future for Counting<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match ready!(Pin::new(&mut self.answer).poll(context)) {
            Ok(response) => held(response),
            Err(never) => match never {},
        };
        let Some(mut tally) = self.tally.take() else { return Poll::Ready(Ok(response)) };
        if let Some(code) = code(response.headers()) {
            tally.end(code);
        } else if tally.answers_many() {
            return Poll::Ready(Ok(response.map(|body| watched(body, tally))));
        } else {
            tally.end(Code::Ok);
        }
        Poll::Ready(Ok(response))
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

/// A body whose end is counted.
fn watched(body: Body, mut tally: Tally) -> Body {
    Body::new(body.inspect_frame(move |frame| {
        if let Some(code) = frame.trailers_ref().and_then(code) {
            tally.end(code);
        }
    }))
}
