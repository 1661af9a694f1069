//! What is not gRPC, on the same port: whether all is well, the version, numbers, and etcd's API as
//! JSON.
//!
//! ```text
//! GET /health /version /metrics      health   here   metrics
//! POST /v3/…                         json: a call of the service that gRPC's clients call
//!   paths    which method a path means          values   JSON that comes, as it comes
//!   codec    messages out of JSON and into it   answer   responses, and errors as etcd has them
//!   names    names that are known          timed    how long a request may take
//!   aside    what is large is read and written beside the thread that serves
//! ```
//!
//! Nothing here knows a message: what JSON means is read from the compiled .proto files, so that a
//! method that is served is served both ways.
mod answer;
mod aside;
mod codec;
mod health;
mod json;
mod names;
mod paths;
mod timed;
mod values;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use prost_reflect::DescriptorPool;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use tonic::codegen::{Body as AnyBody, BoxFuture, Service, StdError};
use tonic::service::Routes;

use super::calls::Cluster;
use super::maintenance::ETCD_VERSION;
use super::metrics::Metrics;
use super::watch::inbox::Waiting;
use answer::{error, json_text, not_allowed, text};
use json::Json;

pub(super) use timed::Timed;

/// The oldest etcd that a cluster may have beside one of `ETCD_VERSION`.
const ETCD_CLUSTER_VERSION: &str = "3.5.0";

/// Prometheus' text.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whatever no service of gRPC has taken.
#[derive(Clone)]
pub(super) struct Http(Arc<Shared>);

struct Shared {
    cluster: Arc<Cluster>,
    metrics: Arc<Metrics>,
    waiting: Arc<Waiting>,
    json: Json,
}

impl Http {
    /// Beside these services, whose descriptors are in `pool`. `waiting` is shown.
    pub(super) fn new(
        routes: Routes,
        pool: &DescriptorPool,
        cluster: Arc<Cluster>,
        metrics: Arc<Metrics>,
        waiting: Arc<Waiting>,
    ) -> Http {
        Http(Arc::new(Shared { cluster, metrics, waiting, json: Json::new(routes, pool) }))
    }
}

impl<B> Service<Request<B>> for Http
where
    B: AnyBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        let request = request.map(Body::new);
        Box::pin(async move { Ok(shared.answer(request).await) })
    }
}

impl Shared {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if is_grpc(request.headers()) {
            return Status::unimplemented("").into_http();
        }
        if is_of_another_page(&request) {
            return error(&Status::permission_denied("raftd: a page of another origin asks"));
        }
        let path = request.uri().path();
        if let Some(rpc) = self.json.rpc(path) {
            if request.method() != Method::POST {
                return not_allowed("POST");
            }
            return self.json.call(rpc, request).await;
        }
        match path {
            "/health" | "/version" | "/metrics" if request.method() != Method::GET => {
                not_allowed("GET")
            }
            "/health" => {
                health::health(&self.cluster, request.uri().query().unwrap_or_default()).await
            }
            "/version" => json_text(StatusCode::OK, version()),
            "/metrics" => {
                let metrics = self.metrics.text(&self.cluster, &self.waiting);
                text(StatusCode::OK, METRICS_TYPE, metrics)
            }
            _ => text(StatusCode::NOT_FOUND, answer::TEXT_TYPE, "404 page not found\n"),
        }
    }
}

fn version() -> String {
    format!(r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{ETCD_CLUSTER_VERSION}"}}"#)
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content = headers.get(header::CONTENT_TYPE);
    content.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"))
}

/// Whether a browser asks for a page that comes from elsewhere. Any page may have a browser send
/// what it likes to an address that only its user reaches; the browser then says whose it is.
fn is_of_another_page(request: &Request<Body>) -> bool {
    let headers = request.headers();
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let host = headers.get(header::HOST).map(|host| host.as_bytes());
    let host = host.or(request.uri().authority().map(|host| host.as_str().as_bytes()));
    let origin = origin.as_bytes();
    let page = [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
        let (begin, page) = origin.split_at_checked(scheme.len())?;
        begin.eq_ignore_ascii_case(scheme).then_some(page)
    });
    page.is_none() || !page.zip(host).is_some_and(|(page, host)| page.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_another_origin_are_known() {
        let asks = |origin: &str, host: &str| {
            let request = Request::builder().uri("/v3/kv/put");
            let request = request.header(header::ORIGIN, origin).header(header::HOST, host);
            is_of_another_page(&request.body(Body::empty()).unwrap())
        };
        assert!(!asks("http://127.0.0.1:2379", "127.0.0.1:2379"));
        assert!(!asks("https://Store:2379", "store:2379"));
        assert!(!asks("HTTP://127.0.0.1:2379", "127.0.0.1:2379"));
        assert!(asks("HTTP://elsewhere.example", "127.0.0.1:2379"));
        assert!(asks("http://elsewhere.example", "127.0.0.1:2379"));
        assert!(asks("http://127.0.0.1:8080", "127.0.0.1:2379"));
        assert!(asks("null", "127.0.0.1:2379"));
        let nobody = Request::builder().uri("/v3/kv/put").body(Body::empty()).unwrap();
        assert!(!is_of_another_page(&nobody), "no browser asks");
    }
}
