//! What a client says over a stream, as it says it.

use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::codegen::tokio_stream::Stream;

/// The stream, as tonic takes it.
pub(super) struct Said<T>(UnboundedReceiver<T>);

/// Whereby it is said, and the stream.
pub(super) fn said<T>() -> (UnboundedSender<T>, Said<T>) {
    let (say, said) = unbounded_channel();
    (say, Said(said))
}

impl<T> Stream for Said<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}
