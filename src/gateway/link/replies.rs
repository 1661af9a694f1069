//! A request that has several replies, and their queue.

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{Link, Lost, Waiting};

/// Replies in a queue, about 64 KiB each. Who takes them only puts them together, and so is no
/// slower than the link; but if it is, its request is lost, and the others on the link do not wait.
const REPLIES_MAX: usize = 1024;

/// What comes for one request. It takes room until it is dropped; what comes later is for nobody.
pub(in crate::gateway) struct Replies {
    link: Link,
    id: u64,
    queue: mpsc::Receiver<Bytes>,
    #[expect(dead_code, reason = "it is held, not looked at")]
    permit: OwnedSemaphorePermit,
}

impl Link {
    /// Sends a request of about so many bytes, once there is room; answers the way of its replies.
    pub(in crate::gateway) async fn ask_for_replies(
        &self,
        bytes: usize,
        encode: impl FnOnce(&mut Vec<u8>, u64),
    ) -> Result<Replies, Lost> {
        let permit = self.room(bytes).await?;
        let (sender, queue) = mpsc::channel(REPLIES_MAX);
        let begun = self.shared.state().begin(Waiting::Replies(sender), encode);
        let id = begun.map_err(|_| Lost::Unsent)?;
        Ok(Replies { link: self.clone(), id, queue, permit })
    }
}

impl Replies {
    /// The body of the next one.
    pub(in crate::gateway) async fn next(&mut self) -> Result<Bytes, Lost> {
        self.queue.recv().await.ok_or(Lost::Unanswered)
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        // What waits there is dropped once the state is let go: it may be the last of something.
        let waiting = self.link.shared.state().waiting.remove(&self.id);
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::link::ROOM;
    use crate::types::Revision;
    use crate::wire::client::{RangeArgs, range_request};
    use crate::wire::reply::RangeReplyWriter;

    async fn ask(link: &Link) -> Replies {
        let encode = |out: &mut Vec<u8>, id| range_request(out, id, &RangeArgs::of_key(b"a"));
        link.ask_for_replies(1, encode).await.unwrap()
    }

    /// One more part comes; tells its body.
    fn part(link: &Link, id: u64, revision: u64) -> Bytes {
        link.hear(|out| RangeReplyWriter::begin(out, id, Revision(revision)).finish_part(out))
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
    }

    #[test]
    fn each_request_gets_all_its_replies_in_their_order() {
        run(async {
            let link = Link::to_nobody();
            let (mut one, mut two) = (ask(&link).await, ask(&link).await);
            let sent = [(1, 5), (2, 6), (1, 7), (1, 8)].map(|(id, at)| part(&link, id, at));
            for body in [&sent[0], &sent[2], &sent[3]] {
                assert_eq!(one.next().await.unwrap(), body);
            }
            assert_eq!(two.next().await.unwrap(), sent[1]);
        });
    }

    #[test]
    fn whoever_goes_leaves_nothing_behind() {
        run(async {
            let link = Link::to_nobody();
            let replies = ask(&link).await;
            part(&link, 1, 5);
            drop(replies);
            assert!(link.shared.state().waiting.is_empty());
            assert_eq!(link.shared.room.available_permits(), ROOM);
            // What still comes is for nobody.
            part(&link, 1, 6);
        });
    }

    #[test]
    fn what_came_before_the_link_was_lost_is_not_taken_for_all() {
        run(async {
            let link = Link::to_nobody();
            let mut replies = ask(&link).await;
            let body = part(&link, 1, 5);
            link.close();
            assert_eq!(replies.next().await, Ok(body));
            assert_eq!(replies.next().await, Err(Lost::Unanswered));
        });
    }

    #[test]
    fn whoever_does_not_take_is_lost_and_costs_no_more() {
        run(async {
            let link = Link::to_nobody();
            let mut replies = ask(&link).await;
            for _ in 0..REPLIES_MAX + 2 {
                part(&link, 1, 5);
            }
            assert!(link.shared.state().waiting.is_empty());
            for _ in 0..REPLIES_MAX {
                assert!(replies.next().await.is_ok());
            }
            assert_eq!(replies.next().await, Err(Lost::Unanswered));
        });
    }
}
