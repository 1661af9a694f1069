//! etcd's API as JSON: `POST /v3/…` is a call of the method that gRPC's clients call, and goes to
//! the same service.
//!
//! Methods that answer once answer with the message. Those that answer many times answer a line for
//! each, `{"result":…}`; requests to those that hear many are values behind each other. A
//! `Grpc-Timeout` ends either.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};
use tokio::sync::{mpsc, oneshot};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Code, Status, Streaming};

use crate::gateway::delivery::deliver;
use crate::gateway::identity::PeerIdentity;
use crate::gateway::pause::{Pause, pause};
use crate::gateway::room::Held;

use super::answer::{error, json_text, stream, stream_end, stream_error};
use super::codec::{Raw, Writer, read};
use super::paths::PATHS;
use super::timed;
use super::values::{Values, gather};

/// Largest message that is written as JSON: what is larger is to be read in parts, or by gRPC.
/// Bytes.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What tonic says of one that is larger.
const TOO_LARGE: &str = "Error, decoded message length too large";

/// What begins headers that are meant for the service.
const PASSED: &str = "grpc-metadata-";

/// All methods that have a path.
pub(super) struct Json {
    rpcs: BTreeMap<&'static str, Rpc>,
    routes: Routes,
}

/// A method.
pub(super) struct Rpc {
    path: PathAndQuery,
    request: MessageDescriptor,
    response: MessageDescriptor,
    form: Form,
}

/// How often it is asked, and answers.
#[derive(Clone, Copy)]
enum Form {
    OnceOnce,
    OnceMany,
    ManyMany,
}

impl Rpc {
    fn of(method: &MethodDescriptor) -> Rpc {
        let service = method.parent_service();
        let path = format!("/{}/{}", service.full_name(), method.name());
        let form = match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => Form::OnceOnce,
            (false, true) => Form::OnceMany,
            (true, true | false) => Form::ManyMany,
        };
        Rpc {
            path: PathAndQuery::try_from(path).expect("names of methods have letters and dots"),
            request: method.input(),
            response: method.output(),
            form,
        }
    }
}

impl Json {
    /// The methods of `pool`, which these services have.
    pub(super) fn new(routes: Routes, pool: &DescriptorPool) -> Json {
        let find = |service, method: &str| {
            let service = pool.get_service_by_name(service)?;
            let found = service.methods().find(|it| it.name() == method);
            found.map(|method| Rpc::of(&method))
        };
        let rpc = |(path, service, method)| find(service, method).map(|rpc| (path, rpc));
        Json { rpcs: PATHS.into_iter().filter_map(rpc).collect(), routes }
    }

    /// The method of a path.
    pub(super) fn rpc(&self, path: &str) -> Option<&Rpc> {
        self.rpcs.get(path)
    }

    /// Calls a method.
    pub(super) async fn call(&self, rpc: &Rpc, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let client = Grpc::new(self.routes.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let done = match rpc.form {
            Form::OnceOnce => once(client, rpc, parts, body).await,
            Form::OnceMany => many(client, rpc, parts, body).await,
            Form::ManyMany => both(client, rpc, parts, body).await,
        };
        done.unwrap_or_else(|why| error(&why))
    }
}

async fn once(
    mut client: Grpc<Routes>,
    rpc: &Rpc,
    parts: Parts,
    body: Body,
) -> Result<Response<Body>, Status> {
    // Its time is measured around all of this.
    timed::time_of(&parts.headers)?;
    let message = read(&rpc.request, gather(body).await?).await?;
    let answered = client.unary(asked(parts, message), rpc.path.clone(), Raw).await;
    let answered = answered.map_err(in_our_words)?;
    let held = answered.extensions().get::<Held>().cloned();
    let json = Writer::one(rpc.response.clone()).write(answered.into_inner()).await?;
    let response = json_text(StatusCode::OK, json);
    Ok(if let Some(held) = held { deliver(response, held) } else { response })
}

async fn many(
    mut client: Grpc<Routes>,
    rpc: &Rpc,
    parts: Parts,
    body: Body,
) -> Result<Response<Body>, Status> {
    let time = timed::time_of(&parts.headers)?.map(pause);
    let message = read(&rpc.request, gather(body).await?).await?;
    let begun = client.server_streaming(asked(parts, message), rpc.path.clone(), Raw).await;
    Ok(lines(rpc, begun, None, time))
}

async fn both(
    mut client: Grpc<Routes>,
    rpc: &Rpc,
    parts: Parts,
    body: Body,
) -> Result<Response<Body>, Status> {
    let time = timed::time_of(&parts.headers)?.map(pause);
    let mut values = Values::of(body, rpc.request.clone());
    // Whoever begins with nonsense hears so.
    let first = values.next().await?;
    let (tell, trouble) = oneshot::channel();
    let said = asked(parts, Said::of(first, values, tell));
    let begun = client.streaming(said, rpc.path.clone(), Raw).await;
    Ok(lines(rpc, begun, Some(trouble), time))
}

/// A request, with whatever of its headers is meant for the service: as etcd has it, the token of
/// whoever asks, and those that say so by their name. Its client's certificate names no user.
fn asked<T>(mut parts: Parts, message: T) -> tonic::Request<T> {
    let mut passed = HeaderMap::new();
    for (name, value) in &parts.headers {
        let name = name.as_str().strip_prefix(PASSED).map(str::parse::<HeaderName>);
        if let Some(Ok(name)) = name {
            passed.append(name, value.clone());
        }
    }
    if let Some(token) = parts.headers.get(header::AUTHORIZATION) {
        passed.insert("token", token.clone());
    }
    PeerIdentity::by_json(&mut parts.extensions);
    tonic::Request::from_parts(MetadataMap::from_headers(passed), parts.extensions, message)
}

fn in_our_words(why: Status) -> Status {
    if why.code() == Code::OutOfRange && why.message().starts_with(TOO_LARGE) {
        let text =
            format!("raftd: the answer has more than {ANSWER_BYTES_MAX} bytes: ask in parts");
        return Status::resource_exhausted(text);
    }
    why
}

fn lines(
    rpc: &Rpc,
    begun: Result<tonic::Response<Streaming<Bytes>>, Status>,
    trouble: Option<oneshot::Receiver<Status>>,
    time: Option<Pause>,
) -> Response<Body> {
    match begun {
        Ok(heard) => {
            let (heard, writer) = (Some(heard.into_inner()), Writer::many(rpc.response.clone()));
            let lines = Lines { heard, writer, writing: None, trouble, time };
            stream(StatusCode::OK, Body::new(StreamBody::new(lines)))
        }
        Err(why) => stream_error(&why),
    }
}

type Writing = Pin<Box<dyn Future<Output = Result<Bytes, Status>> + Send>>;

/// The answers of a stream, and why it has ended.
struct Lines {
    /// `None` once it has.
    heard: Option<Streaming<Bytes>>,
    writer: Writer,
    /// The line that is being made of an answer.
    writing: Option<Writing>,
    /// What is wrong with the requests: whoever has hung up in the middle of one is noticed by
    /// nothing else.
    trouble: Option<oneshot::Receiver<Status>>,
    /// How long it may go on.
    time: Option<Pause>,
}

impl Lines {
    /// Says why nothing more comes.
    fn end(&mut self, why: &Status) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.heard = None;
        // What waits for its turn and is not asked about any more would keep it from all others.
        self.writing = None;
        Poll::Ready(Some(Ok(Frame::data(stream_end(why)))))
    }

    /// The next line, or why there is none.
    fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        let Some(heard) = &mut self.heard else { return Poll::Ready(None) };
        let writing = match &mut self.writing {
            Some(writing) => writing,
            None => match Pin::new(heard).poll_next(context) {
                Poll::Ready(Some(Ok(message))) => {
                    self.writing.insert(Box::pin(self.writer.clone().write(message)))
                }
                Poll::Ready(Some(Err(why))) => return Poll::Ready(Some(Err(in_our_words(why)))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return self.poll_trouble(context).map(|why| Some(Err(why))),
            },
        };
        let written = ready!(writing.as_mut().poll(context));
        self.writing = None;
        Poll::Ready(Some(written))
    }

    fn poll_trouble(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let Some(trouble) = &mut self.trouble else { return Poll::Pending };
        match ready!(Pin::new(trouble).poll(context)) {
            Ok(why) => Poll::Ready(why),
            Err(_) => {
                // All requests were said.
                self.trouble = None;
                Poll::Pending
            }
        }
    }
}

impl Stream for Lines {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let lines = &mut *self;
        if lines.heard.is_none() {
            return Poll::Ready(None);
        }
        // Before anything else: what always has something to say comes to its end as well.
        if let Some(time) = &mut lines.time
            && time.as_mut().poll(context).is_ready()
        {
            return self.end(&timed::expired());
        }
        match ready!(lines.poll_line(context)) {
            Some(Ok(line)) => Poll::Ready(Some(Ok(Frame::data(line)))),
            Some(Err(why)) => self.end(&why),
            None => Poll::Ready(None),
        }
    }
}

/// The requests of a stream, as they come.
struct Said(mpsc::Receiver<Bytes>);

impl Said {
    /// The first one, and those behind it. Says so if something is wrong with them.
    fn of(first: Option<Bytes>, values: Values, tell: oneshot::Sender<Status>) -> Said {
        let (say, said) = mpsc::channel(1);
        tokio::spawn(async move {
            if let Err(why) = say_all(first, values, say).await {
                // Whoever asked may have gone.
                let _gone = tell.send(why);
            }
        });
        Said(said)
    }
}

impl Stream for Said {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_recv(context)
    }
}

async fn say_all(
    first: Option<Bytes>,
    mut values: Values,
    say: mpsc::Sender<Bytes>,
) -> Result<(), Status> {
    let mut next = first;
    while let Some(value) = next {
        if say.send(value).await.is_err() {
            return Ok(());
        }
        next = tokio::select! {
            value = values.next() => value?,
            () = say.closed() => return Ok(()),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::proto::DESCRIPTORS;

    #[test]
    fn every_method_that_etcd_serves_both_ways_has_its_paths() {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let json = Json::new(Routes::default(), &pool);
        let not_served = ["MemberUpdate", "Downgrade"];
        for (path, service, method) in PATHS {
            let served = pool.get_service_by_name(service).is_some();
            let expected = served && !not_served.contains(&method);
            assert_eq!(json.rpc(path).is_some(), expected, "{path} {service}/{method}");
        }
        for service in pool.services().filter(|it| it.full_name().starts_with("etcdserverpb")) {
            for method in service.methods() {
                let (service, method) = (service.full_name(), method.name());
                let found = PATHS.iter().any(|(_, one, other)| (*one, *other) == (service, method));
                assert_eq!(found, method != "RangeStream", "{service}/{method}");
            }
        }
    }
}
