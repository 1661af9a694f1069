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
