//! The task of a link: sends what has gathered, reads, hands out replies.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;

use crate::limits::REPLY_BYTES_MAX;
use crate::wire::frame::{self, LENGTH_BYTES};

use super::dial::NodeStream;
use super::{LinkError, READ_BYTES, Shared};

/// What moves the bytes of a link.
pub(super) struct Pump {
    shared: Arc<Shared>,
    stream: NodeStream,
    input: BytesMut,
    /// What is being sent, and how much of it is.
    out: Vec<u8>,
    sent: usize,
}

impl Pump {
    /// `input`: what was read behind the welcome.
    pub(super) fn new(shared: Arc<Shared>, stream: NodeStream, input: BytesMut) -> Pump {
        Pump { shared, stream, input, out: Vec::new(), sent: 0 }
    }

    /// Moves bytes until the link is lost.
    pub(super) async fn run(mut self) {
        let why = poll_fn(|context| self.poll(context)).await;
        let Shared { address, welcome, .. } = &*self.shared;
        log::debug!("link lost node={} address={address} why={why}", welcome.node);
        self.shared.close();
    }

    /// Moves what can be moved. Ready: the link is lost.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<LinkError> {
        {
            let mut state = self.shared.state();
            if state.closed {
                return Poll::Ready(LinkError::Closed);
            }
            if !state.task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
                state.task = Some(context.waker().clone());
            }
        }
        loop {
            if let Err(why) = self.send(context) {
                return Poll::Ready(why);
            }
            match ready!(self.receive(context)) {
                Ok(()) => {}
                Err(why) => return Poll::Ready(why),
            }
        }
    }

    /// Sends until there is nothing to send, or the socket takes no more.
    fn send(&mut self, context: &mut Context<'_>) -> Result<(), LinkError> {
        loop {
            if self.sent == self.out.len() {
                self.out.clear();
                // What one burst needed is not kept for ever.
                self.out.shrink_to(READ_BYTES);
                self.sent = 0;
                std::mem::swap(&mut self.out, &mut self.shared.state().out);
                if self.out.is_empty() {
                    return Ok(());
                }
            }
            match self.stream.poll_write_ready(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(why)) => return Err(why.into()),
                Poll::Pending => return Ok(()),
            }
            match self.stream.try_write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(why) => return Err(why.into()),
            }
        }
    }

    /// Reads once, and hands out the replies that are whole.
    fn receive(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        ready!(self.stream.poll_read_ready(context))?;
        self.input.reserve(READ_BYTES.max(missing(&self.input)));
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => return Poll::Ready(Err(LinkError::Closed)),
            Ok(_) => {}
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Poll::Ready(Ok(())),
            Err(why) => return Poll::Ready(Err(why.into())),
        }
        let mut state = self.shared.state();
        loop {
            let frame = match frame::next_frame(&self.input, REPLY_BYTES_MAX) {
                Ok(Some(frame)) => frame.consumed,
                Ok(None) => return Poll::Ready(Ok(())),
                Err(why) => return Poll::Ready(Err(LinkError::Frame(why))),
            };
            let body = self.input.split_to(frame).freeze().slice(LENGTH_BYTES..);
            if let Err(why) = state.hand_out(body) {
                return Poll::Ready(Err(why));
            }
        }
    }
}

/// How much of the frame at the front has not come yet. It is read into one piece of memory.
fn missing(input: &[u8]) -> usize {
    let Some((length, body)) = input.split_first_chunk::<LENGTH_BYTES>() else { return 0 };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    length.min(REPLY_BYTES_MAX).saturating_sub(body.len())
}
