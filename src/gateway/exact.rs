//! A message beyond the bound, refused as etcd refuses it: tonic has another code and other words
//! for it, and clients tell by the code whether to try again.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::server::NamedService;
use tonic::{Code, Status};

/// What tonic says, as it goes out.
const TOO_LARGE: &[u8] = b"Error,%20decoded%20message%20length%20too%20large";

/// A service, with that changed.
#[derive(Clone)]
pub(super) struct Exact<S>(pub(super) S);

/// Its answer on the way.
pub(super) struct Answering<F>(F);

impl<S: NamedService> NamedService for Exact<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, F> Service<Request<Body>> for Exact<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = F>,
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering<F>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Answering<F> {
        Answering(self.0.call(request))
    }
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = match ready!(Pin::new(&mut self.0).poll(context)) {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let message = response.headers().get(Status::GRPC_MESSAGE);
        if let Some(message) = message.filter(|it| it.as_bytes().starts_with(TOO_LARGE)) {
            let message = in_other_words(message);
            let headers = response.headers_mut();
            let code = HeaderValue::from(i32::from(Code::ResourceExhausted));
            headers.insert(Status::GRPC_STATUS, code);
            headers.insert(Status::GRPC_MESSAGE, message);
        }
        Poll::Ready(Ok(response))
    }
}

/// The same by grpc-go, with the numbers of bytes that are found and allowed.
fn in_other_words(message: &HeaderValue) -> HeaderValue {
    let words = message.to_str().unwrap_or_default().split("%20");
    let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    let text = match numbers[..] {
        [found, max] => {
            format!("grpc:%20received%20message%20larger%20than%20max%20({found}%20vs.%20{max})")
        }
        _ => "grpc:%20received%20message%20larger%20than%20max".to_owned(),
    };
    HeaderValue::try_from(text).expect("it is visible ASCII")
}
