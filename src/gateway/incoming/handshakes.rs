//! Handshakes of TLS, side by side: whoever dawdles with one keeps nobody else waiting.
//!
//! ```text
//! begun    at most HANDSHAKES_MAX at once; one more takes the place of the oldest once that has
//!          had its PLACE_TIME: who holds many of them half open keeps others waiting for no longer
//! ends     with a connection, or within HANDSHAKE_TIMEOUT, whatever the client does
//! ```
//!
//! A client that does not speak TLS is told so in the words of HTTP, which is what it speaks if it
//! is one of ours.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::gateway::metrics::{Handshake, Metrics};
use crate::gateway::pause::{Pause, pause};
use crate::gateway::tls::Tls;

use super::stream::ClientStream;

/// Handshakes at once. One takes some 50 KiB and, between near machines, a few milliseconds.
const HANDSHAKES_MAX: usize = 256;

/// How long a handshake may take. Some round trips, to anywhere on earth.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a handshake keeps its place at least, so that of a crowd of honest clients each has its
/// turn.
const PLACE_TIME: Duration = Duration::from_secs(1);

/// What a record of TLS with a handshake begins with; nothing of HTTP does.
const HANDSHAKE_RECORD: u8 = 22;

/// What a client has said in vain is read, so that it takes the answer before the connection ends:
/// at most so many bytes.
const DRAINED_BYTES_MAX: u64 = 64 * 1024;

const NO_TLS: &str = "this port speaks TLS: ask https://\n";

/// Handshakes that are under way, and those that are done.
pub(super) struct Handshakes {
    tls: Arc<Tls>,
    metrics: Arc<Metrics>,
    tasks: JoinSet<Result<ClientStream, Failure>>,
    /// Those that are under way, the oldest first, and some that are done.
    places: VecDeque<Place>,
}

struct Place {
    task: AbortHandle,
    /// Ends when its time is over.
    time: Pause,
}

/// Why a handshake has led to nothing.
pub(super) struct Failure {
    peer: SocketAddr,
    why: Why,
}

enum Why {
    /// It took too long.
    Late,
    /// There was none: the client speaks something else.
    Bare,
    /// There was none: the client has said nothing, as those do that only look whether the port is
    /// open.
    Silent,
    /// The client has gone, or one of us does not want the other.
    Io(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer={} why=", self.peer)?;
        match &self.why {
            Why::Late => write!(f, "nothing came of it within {HANDSHAKE_TIMEOUT:?}"),
            Why::Bare => f.write_str("the client does not speak TLS"),
            Why::Silent => f.write_str("the client has said nothing"),
            Why::Io(why) => write!(f, "{why}"),
        }
    }
}

impl Handshakes {
    /// By these files.
    pub(super) fn new(tls: Arc<Tls>, metrics: Arc<Metrics>) -> Handshakes {
        Handshakes { tls, metrics, tasks: JoinSet::new(), places: VecDeque::new() }
    }

    /// Ready: one more may be begun.
    pub(super) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.places.len() >= HANDSHAKES_MAX {
            self.places.retain(|place| !place.task.is_finished());
        }
        if self.places.len() >= HANDSHAKES_MAX
            && let Some(oldest) = self.places.front_mut()
        {
            // That time has passed is what it ends with.
            let _passed = ready!(oldest.time.as_mut().poll(context));
            oldest.task.abort();
            self.places.pop_front();
        }
        Poll::Ready(())
    }

    /// Begins one.
    pub(super) fn begin(&mut self, stream: TcpStream, peer: SocketAddr) {
        let acceptor = self.tls.acceptor();
        let shake = async move {
            match first_byte(&stream).await.map_err(Why::Io)? {
                None => Err(Why::Silent),
                Some(HANDSHAKE_RECORD) => {
                    acceptor.accept(stream).await.map(ClientStream::tls).map_err(Why::Io)
                }
                Some(_) => {
                    refuse(stream).await;
                    Err(Why::Bare)
                }
            }
        };
        let task = self.tasks.spawn(async move {
            let done = timeout(HANDSHAKE_TIMEOUT, shake).await.unwrap_or(Err(Why::Late));
            done.map_err(|why| Failure { peer, why })
        });
        self.places.push_back(Place { task, time: pause(PLACE_TIME) });
    }

    /// The next one that has led to a connection. Pending also if there is none under way: then
    /// whoever begins one asks again. `complain` hears of those that have failed.
    pub(super) fn poll_done(
        &mut self,
        context: &mut Context<'_>,
        mut complain: impl FnMut(&Failure, &mut Context<'_>),
    ) -> Poll<ClientStream> {
        loop {
            let Some(done) = ready!(self.tasks.poll_join_next(context)) else {
                return Poll::Pending;
            };
            let failure = match done {
                Ok(Ok(stream)) => {
                    self.metrics.count(Handshake::Done);
                    return Poll::Ready(stream);
                }
                Ok(Err(failure)) => failure,
                // It was the oldest when another one came.
                Err(_) => {
                    self.metrics.count(Handshake::Displaced);
                    continue;
                }
            };
            log::debug!("a TLS handshake failed {failure}");
            self.metrics.count(failure.outcome());
            if failure.outcome() != Handshake::Silent {
                complain(&failure, context);
            }
        }
    }
}

impl Failure {
    fn outcome(&self) -> Handshake {
        match self.why {
            Why::Late => Handshake::Late,
            Why::Bare => Handshake::Bare,
            Why::Silent => Handshake::Silent,
            Why::Io(_) => Handshake::Failed,
        }
    }
}

/// What a client begins with, once it does; `None`: it has hung up before.
async fn first_byte(stream: &TcpStream) -> io::Result<Option<u8>> {
    let mut first = [0];
    let count = stream.peek(&mut first).await?;
    Ok((count > 0).then_some(first[0]))
}

/// Tells a client in its own words that it should speak TLS, and hangs up.
async fn refuse(mut stream: TcpStream) {
    let length = NO_TLS.len();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Connection: close\r\nContent-Length: {length}\r\n\r\n{NO_TLS}"
    );
    // Whoever does not listen misses nothing.
    let _unheard = stream.write_all(answer.as_bytes()).await;
    let _unheard = stream.shutdown().await;
    let mut rest = stream.take(DRAINED_BYTES_MAX);
    let _gone = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
}
