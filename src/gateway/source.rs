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

use super::auth::{LoginError, Who};
use super::calls::{Answer, Cluster, REQUEST_TIMEOUT, Repeat, Whom, check_size, error_of};
use super::failure::{CONNECTION_LOST, Failure, TOO_MANY_REQUESTS, known};
use super::link::{Line, Link, LinkError, Lost};

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
    line: Line,
    #[expect(dead_code, reason = "it is held, not looked at")]
    permit: OwnedSemaphorePermit,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources(Arc::new(Semaphore::new(SOURCES_MAX)))
    }
}

impl Cluster {
    /// Asks for a range, for `who`, until somebody begins to answer.
    pub(super) async fn source(
        &self,
        who: &Who,
        whom: Whom,
        args: &RangeArgs<'_>,
    ) -> Result<(Answer, Source), Status> {
        check_size(args.key.len() + args.end.len())?;
        let turn = timeout(TURN_TIMEOUT, Arc::clone(&self.sources.0).acquire_owned()).await;
        // It is never closed.
        let Ok(Ok(permit)) = turn else { return Err(known(TOO_MANY_REQUESTS)) };
        let ask = |link: Link| async move {
            match unless_gone(&link, self.begin_source(who, &link, args)).await {
                Ok((body, line)) => Ok((body, (link, line))),
                Err(why) => {
                    log::debug!("no range node={} why={why}", link.node());
                    // Unlike a link it may be refused again and again, at once.
                    self.nodes.pause().await;
                    Err(Lost::Unanswered)
                }
            }
        };
        let asked = self.until_answered(who, whom, Repeat::Freely, ask);
        let asked = timeout(REQUEST_TIMEOUT, asked).await.unwrap_or(Err(Failure::TimedOut));
        let (answer, (link, line)) = asked?;
        Ok((answer, Source { link, line, permit }))
    }

    async fn begin_source(
        &self,
        who: &Who,
        link: &Link,
        args: &RangeArgs<'_>,
    ) -> Result<(Bytes, Line), LoginError> {
        let mut line = self.line(link).await?;
        let ask =
            |out: &mut Vec<u8>, id| self.write_for(who, out, |out| range_request(out, id, args));
        line.say(ask).await?;
        Ok((line.next().await?, line))
    }
}

async fn unless_gone<T, E: From<LinkError>>(
    link: &Link,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::select! {
        done = work => done,
        () = link.gone() => Err(LinkError::Closed.into()),
    }
}

impl Source {
    /// The next answer. `CONNECTION_LOST`: another node may go on.
    pub(super) async fn next(&mut self) -> Result<Answer, Status> {
        let next = unless_gone(&self.link, self.line.next());
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
