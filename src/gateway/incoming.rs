//! Clients that connect. While there is no descriptor for one more, they wait in the system's
//! queue: tonic alone would try again at once, for ever, and nobody else would be served much.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tonic::codegen::tokio_stream::Stream;

/// From a connection that could not be accepted to the next attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// From one line about that to the next.
const LINES_APART: Duration = Duration::from_secs(60);

type Pause = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The connections of clients, as they come.
pub(super) struct Incoming {
    listener: TcpListener,
    pause: Option<Pause>,
    /// Until then nothing more is said about it.
    hush: Option<Pause>,
}

impl Incoming {
    /// What `listener` accepts.
    pub(super) fn of(listener: TcpListener) -> Incoming {
        Incoming { listener, pause: None, hush: None }
    }

    fn rest(&mut self, why: &io::Error, context: &mut Context<'_>) {
        let hush = self.hush.as_mut();
        if hush.is_none_or(|hush| hush.as_mut().poll(context).is_ready()) {
            log::warn!("cannot accept a client, see ulimit -n why={why}");
            self.hush = Some(pause(LINES_APART));
        }
        self.pause = Some(pause(PAUSE));
    }
}

fn pause(duration: Duration) -> Pause {
    Box::pin(async move {
        let _over = timeout(duration, std::future::pending::<()>()).await;
    })
}

impl Stream for Incoming {
    type Item = io::Result<TcpStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(context)) {
                Ok((stream, _)) => {
                    // Without it answers are slow, and that is all.
                    let _slow = stream.set_nodelay(true);
                    return Poll::Ready(Some(Ok(stream)));
                }
                Err(why) => self.rest(&why, context),
            }
        }
    }
}
