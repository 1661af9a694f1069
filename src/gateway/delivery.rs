//! A large answer on its way: handed on piece by piece, as its client takes them. While room for
//! answers is scarce the rest is taken away from a client that takes none for some time, and
//! whoever else asks for much has its room.
//!
//! HTTP/2 takes a piece when the client's window has room for it, HTTP/1.1 when the socket has.
//! Each is a copy: a slice would keep all of the answer.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as AnyBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Response;

use super::errand::Errand;
use super::pause::pause;
use super::room::Held;

/// Largest piece: the least window of HTTP/2 that a client begins with. Bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// How long a client may take nothing; it may be twice that before it is noticed. The buffer of a
/// socket takes some MiB, and of those a third must have gone before it takes more: this is some
/// 100 KB/s.
const STANDSTILL_MAX: Duration = Duration::from_secs(15);

/// A response whose body has what its answer has, until that is sent or taken away.
pub(super) fn held(response: Response<Body>) -> Response<Body> {
    let Some(held) = response.extensions().get::<Held>().cloned() else { return response };
    deliver(response, held)
}

/// A response whose body has this.
pub(super) fn deliver(response: Response<Body>, held: Held) -> Response<Body> {
    response.map(|body| Body::new(Delivery::begin(Undelivered { body, rest: Bytes::new(), held })))
}

/// The body of such a response.
struct Delivery {
    shared: Arc<Mutex<Shared>>,
    #[expect(dead_code, reason = "it is held, not looked at")]
    watch: Errand<()>,
}

struct Shared {
    /// `None` once it was taken away.
    undelivered: Option<Undelivered>,
    /// Whether a piece was taken since that was looked at.
    moved: bool,
}

/// What has not been sent.
struct Undelivered {
    body: Body,
    /// What it has said, and nobody has taken.
    rest: Bytes,
    held: Held,
}

impl Delivery {
    fn begin(undelivered: Undelivered) -> Delivery {
        let undelivered = Some(undelivered);
        let shared = Arc::new(Mutex::new(Shared { undelivered, moved: false }));
        let watch = Errand::begin(watch(Arc::downgrade(&shared)));
        Delivery { shared, watch }
    }
}

/// Takes away what a client does not take.
async fn watch(shared: Weak<Mutex<Shared>>) {
    loop {
        let _over = pause(STANDSTILL_MAX).await;
        let Some(shared) = shared.upgrade() else { return };
        if !lock(&shared).goes_on() {
            log::debug!("took away an answer that stood still for={STANDSTILL_MAX:?}");
            return;
        }
    }
}

impl Shared {
    /// Whether something was taken since this was asked last, or need not have been; else nothing
    /// more will be.
    fn goes_on(&mut self) -> bool {
        let Some(undelivered) = &self.undelivered else { return false };
        let goes_on = std::mem::take(&mut self.moved) || !undelivered.held.room_is_scarce();
        if !goes_on {
            self.undelivered = None;
        }
        goes_on
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AnyBody for Delivery {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut shared = lock(&self.shared);
        let Some(undelivered) = &mut shared.undelivered else {
            return Poll::Ready(Some(Err(Status::cancelled("raftd: the answer was not read"))));
        };
        let frame = ready!(undelivered.poll_piece(context));
        shared.moved = true;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        let undelivered = shared.undelivered.as_ref();
        undelivered.is_some_and(|it| it.rest.is_empty() && it.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let shared = lock(&self.shared);
        let Some(undelivered) = &shared.undelivered else { return SizeHint::default() };
        let rest = u64::try_from(undelivered.rest.len()).unwrap_or(u64::MAX);
        let mut hint = undelivered.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

impl Undelivered {
    fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        let piece = Bytes::copy_from_slice(&piece);
        Poll::Ready(Some(Ok(Frame::data(self.held.charge(piece)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::room::Room;
    use http_body_util::{BodyExt, Full};

    /// A body of so many bytes, which has as much of the room.
    fn delivery(room: &Arc<Room>, bytes: usize) -> Delivery {
        let mut share = room.share();
        share.set(bytes).unwrap();
        let (_, answer, extensions) = share.hold(vec![b'v'; bytes]).into_parts();
        let held = extensions.get::<Held>().unwrap().clone();
        let body = Body::new(Full::new(Bytes::from(answer)));
        Delivery::begin(Undelivered { body, rest: Bytes::new(), held })
    }

    async fn piece(body: &mut Delivery) -> Option<Bytes> {
        body.frame().await.map(|frame| frame.unwrap().into_data().unwrap())
    }

    /// What HTTP/2 had taken and not sent was nobody's any more: the body ends when its last byte
    /// is taken, not when the client has it.
    #[tokio::test]
    async fn what_is_sent_late_is_let_go_late() {
        let room = Room::of(1 << 20);
        let mut body = delivery(&room, PIECE_BYTES + 3);
        assert_eq!(body.size_hint().exact(), Some(65_539));
        let first = piece(&mut body).await.unwrap();
        assert_eq!((first.len(), body.size_hint().exact()), (PIECE_BYTES, Some(3)));
        let mut last = piece(&mut body).await.unwrap();
        assert!(body.is_end_stream());
        assert_eq!((last.len(), piece(&mut body).await), (3, None));
        drop(body);
        assert_eq!(room.taken(), PIECE_BYTES + 3);
        drop(first);
        let some = last.split_to(1);
        drop(last);
        assert_eq!((&some[..], room.taken()), (&b"v"[..], 3));
        drop(some);
        assert_eq!(room.taken(), 0);
    }

    /// Who asked for much and read nothing kept everybody else from it, as long as it liked.
    #[tokio::test]
    async fn what_stands_still_is_taken_away() {
        let room = Room::of(1 << 20);
        let mut body = delivery(&room, 5 * PIECE_BYTES);
        for _ in 0..3 {
            assert_eq!(piece(&mut body).await.unwrap().len(), PIECE_BYTES);
            assert!(lock(&body.shared).goes_on());
        }
        assert_eq!(room.taken(), 5 * PIECE_BYTES);
        assert!(lock(&body.shared).goes_on(), "it is in nobody's way");
        let mut other = room.share();
        other.set(8 * PIECE_BYTES).unwrap();
        assert!(!lock(&body.shared).goes_on());
        assert_eq!((room.taken(), body.is_end_stream()), (8 * PIECE_BYTES, false));
        assert!(body.frame().await.unwrap().is_err(), "it is not whole");
    }
}
