//! Clients that connect. While there is no descriptor for one more, they wait in the system's
//! queue: tonic alone would try again at once, for ever, and nobody else would be served much.
//!
//! With TLS a client is handed on once its handshake is done (`handshakes`), as a `stream` that
//! knows who it is.
mod handshakes;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tonic::codegen::tokio_stream::Stream;

use super::metrics::Metrics;
use super::pause::{Pause, pause};
use super::tls::Tls;
use handshakes::Handshakes;
use stream::ClientStream;

/// From a connection that could not be accepted to the next attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// From one line about that to the next.
const LINES_APART: Duration = Duration::from_secs(60);

/// A client whose machine is gone is found out by the system, whatever it speaks and however little
/// it says: of those who speak HTTP/2, tonic asks as well.
fn keepalive() -> TcpKeepalive {
    let (time, interval) = (Duration::from_secs(30), Duration::from_secs(10));
    TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(3)
}

/// The connections of clients, as they come.
pub(super) struct Incoming {
    listener: TcpListener,
    pause: Option<Pause>,
    unaccepted: Complaint,
    handshakes: Option<Handshakes>,
    /// Whose handshake is to begin.
    next: Option<(TcpStream, SocketAddr)>,
    unshaken: Complaint,
}

/// Something that is said now and then, however often it happens.
#[derive(Default)]
struct Complaint {
    /// Until then nothing more is said about it.
    hush: Option<Pause>,
}

impl Incoming {
    /// What `listener` accepts, and meets by TLS if there is any.
    pub(super) fn of(
        listener: TcpListener,
        tls: Option<Arc<Tls>>,
        metrics: &Arc<Metrics>,
    ) -> Incoming {
        let handshakes = tls.map(|tls| Handshakes::new(tls, Arc::clone(metrics)));
        let (unaccepted, unshaken) = (Complaint::default(), Complaint::default());
        Incoming { listener, pause: None, unaccepted, handshakes, next: None, unshaken }
    }

    /// The next connection that is ready to be served, whose handshake was begun before.
    fn poll_shaken(&mut self, context: &mut Context<'_>) -> Poll<ClientStream> {
        let Some(handshakes) = &mut self.handshakes else { return Poll::Pending };
        handshakes.poll_done(context, |failure, context| {
            self.unshaken.line(context, || {
                log::warn!("a TLS handshake failed (RUST_LOG=debug shows each) {failure}");
            });
        })
    }
}

impl Complaint {
    /// Says it, unless it was said a short while ago.
    fn line(&mut self, context: &mut Context<'_>, say: impl FnOnce()) {
        let hush = self.hush.as_mut();
        if hush.is_none_or(|hush| hush.as_mut().poll(context).is_ready()) {
            say();
            self.hush = Some(pause(LINES_APART));
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<ClientStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let incoming = &mut *self;
        loop {
            if let Poll::Ready(stream) = incoming.poll_shaken(context) {
                return Poll::Ready(Some(Ok(stream)));
            }
            if let (Some(handshakes), true) = (&mut incoming.handshakes, incoming.next.is_some()) {
                ready!(handshakes.poll_room(context));
                if let Some((stream, peer)) = incoming.next.take() {
                    handshakes.begin(stream, peer);
                }
                continue;
            }
            if let Some(pause) = &mut incoming.pause {
                let _passed = ready!(pause.as_mut().poll(context));
                incoming.pause = None;
            }
            match ready!(incoming.listener.poll_accept(context)) {
                Ok((stream, peer)) => {
                    // Without them answers are slow, or who is gone is missed for longer; no more.
                    let _slow = stream.set_nodelay(true);
                    let _deaf = SockRef::from(&stream).set_tcp_keepalive(&keepalive());
                    if incoming.handshakes.is_none() {
                        return Poll::Ready(Some(Ok(ClientStream::bare(stream))));
                    }
                    incoming.next = Some((stream, peer));
                }
                Err(why) => {
                    incoming.unaccepted.line(context, || {
                        log::warn!("cannot accept a client, see ulimit -n why={why}");
                    });
                    incoming.pause = Some(pause(PAUSE));
                }
            }
        }
    }
}
