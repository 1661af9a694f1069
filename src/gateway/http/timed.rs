//! How long a request may take that is not gRPC: as long as its `Grpc-Timeout` says, if it has one.
//!
//! tonic looks at that header as well, whatever a request is, and answers by gRPC when the time is
//! over, which no client of HTTP understands. So our own time begins in the moment in which tonic
//! hands the request on, before its own does, and is looked at first.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response};

use crate::gateway::pause::{Pause, pause};

use super::answer::error;
use super::is_grpc;

const GRPC_TIMEOUT: &str = "grpc-timeout";

/// Digits of a time, at most: gRPC's own bound.
const DIGITS_MAX: usize = 8;

/// All that is served.
#[derive(Clone)]
pub(in crate::gateway) struct Timed<S>(S);

/// Its answer on the way.
pub(in crate::gateway) struct Answering<F> {
    answer: F,
    time: Option<Pause>,
}

impl<S> Timed<S> {
    /// A service, with that changed.
    pub(in crate::gateway) fn new(service: S) -> Timed<S> {
        Timed(service)
    }
}

impl<S, F> Service<Request<Body>> for Timed<S>
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
        let headers = request.headers();
        // What is wrong with it is said where the request is read.
        let time = if is_grpc(headers) { None } else { time_of(headers).ok().flatten() };
        Answering { time: time.map(pause), answer: self.0.call(request) }
    }
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(context) {
            return Poll::Ready(answer);
        }
        let Some(time) = &mut self.time else { return Poll::Pending };
        let _over = ready!(time.as_mut().poll(context));
        Poll::Ready(Ok(error(&expired())))
    }
}

/// The time is over, in the words of etcd.
pub(super) fn expired() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// How long a request with these headers may take.
pub(super) fn time_of(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    match read(text) {
        Some(time) => Ok(Some(time)),
        None => Err(Status::invalid_argument(format!("invalid grpc-timeout: {text}"))),
    }
}

/// A time as gRPC writes it: digits, and a letter for their unit.
fn read(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_digits_and_a_unit() {
        let cases = [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("200m", Some(Duration::from_millis(200))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("+5S", None),
            ("5 S", None),
            ("123456789S", None),
            ("5µ", None),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }
}
