//! Ranges over connections of their own: for whoever hands the keys on as its client takes them,
//! and keeps none. What is not taken waits in the node, which looks for more keys only then.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::Status;

use crate::types::NodeId;
use crate::wire::client::{RangeArgs, range_request};
use crate::wire::error::{Advice, Error as WireError};

use super::calls::{Answer, Cluster, REQUEST_TIMEOUT, Repeat, Whom, check_size, error_of};
use super::failure::{CONNECTION_LOST, Failure, TOO_MANY_REQUESTS, known};
use super::link::{Alone, Link, LinkError, Lost};

/// Such connections at once. A node takes some thousands of clients in all, and looks at each range
/// in each of its turns.
const SOURCES_MAX: usize = 64;

/// How long one more waits for its turn.
const TURN_TIMEOUT: Duration = REQUEST_TIMEOUT;

/// Room for sources.
pub(super) struct Sources(Arc<Semaphore>);

/// The answers to a range.
pub(super) struct Source {
    /// What everybody else asks the same node by: it is looked after, and so it is seen by it when
    /// the node has gone.
    link: Link,
    alone: Alone,
    #[expect(dead_code, reason = "it is held, not looked at")]
    permit: OwnedSemaphorePermit,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources(Arc::new(Semaphore::new(SOURCES_MAX)))
    }
}

impl Cluster {
    /// Asks for a range until somebody begins to answer.
    pub(super) async fn source(
        &self,
        whom: Whom,
        args: &RangeArgs<'_>,
    ) -> Result<(Answer, Source), Status> {
        check_size(args.key.len() + args.end.len())?;
        let turn = timeout(TURN_TIMEOUT, Arc::clone(&self.sources.0).acquire_owned()).await;
        // It is never closed.
        let Ok(Ok(permit)) = turn else { return Err(known(TOO_MANY_REQUESTS)) };
        let ask = |link: Link| async move {
            match unless_gone(&link, begin(&link, args)).await {
                Ok((body, alone)) => Ok((body, (link, alone))),
                Err(why) => {
                    log::debug!("no range node={} why={why}", link.node());
                    // Unlike a link it may be refused again and again, at once.
                    self.nodes.pause().await;
                    Err(Lost::Unanswered)
                }
            }
        };
        let asked = self.until_answered(whom, Repeat::Freely, ask);
        let asked = timeout(REQUEST_TIMEOUT, asked).await.unwrap_or(Err(Failure::TimedOut));
        let (answer, (link, alone)) = asked?;
        Ok((answer, Source { link, alone, permit }))
    }
}

async fn begin(link: &Link, args: &RangeArgs<'_>) -> Result<(Bytes, Alone), LinkError> {
    let mut alone = Alone::ask(link, |out, id| range_request(out, id, args)).await?;
    Ok((alone.next().await?, alone))
}

async fn unless_gone<T>(
    link: &Link,
    work: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    tokio::select! {
        done = work => done,
        () = link.gone() => Err(LinkError::Closed),
    }
}

impl Source {
    /// The next answer. `CONNECTION_LOST`: another node may go on.
    pub(super) async fn next(&mut self) -> Result<Answer, Status> {
        let next = unless_gone(&self.link, self.alone.next());
        let Ok(next) = timeout(REQUEST_TIMEOUT, next).await else {
            return Err(Failure::TimedOut.into());
        };
        let body = next.map_err(|_| known(CONNECTION_LOST))?;
        match error_of(&body) {
            None => Ok(Answer { body, node: self.node() }),
            Some(why) if may_go_on_elsewhere(&why) => Err(known(CONNECTION_LOST)),
            Some(why) => Err(Failure::Refused(why).into()),
        }
    }

    fn node(&self) -> NodeId {
        self.link.node()
    }
}

fn may_go_on_elsewhere(why: &WireError) -> bool {
    why.advice() == Advice::AskAgain && *why != WireError::NoSpace
}
