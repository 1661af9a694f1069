//! A stream of responses that a task feeds.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tonic::Status;
use tonic::codegen::tokio_stream::Stream;

/// Responses that wait for their client, at most.
const WAITING_MAX: usize = 2;

/// The responses of one stream.
pub(super) struct Channel<T>(mpsc::Receiver<Result<T, Status>>);

impl<T: Send + 'static> Channel<T> {
    /// What comes out of `feed`. It is held up while the client takes nothing, and hears of it when
    /// the client has gone.
    pub(super) fn fed<F: Future<Output = ()> + Send + 'static>(
        feed: impl FnOnce(mpsc::Sender<Result<T, Status>>) -> F,
    ) -> Channel<T> {
        let (out, responses) = mpsc::channel(WAITING_MAX);
        tokio::spawn(feed(out));
        Channel(responses)
    }
}

impl<T> Stream for Channel<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}
