//! Something that is done for a stream, by a task of its own, until the stream is dropped.
//!
//! A stream is not moved while its client does not read. What it had begun would stand still with
//! it, and whatever that holds, or was given meanwhile, a lock or room on a link, would be kept
//! from all others.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::{JoinError, JoinHandle};

/// What is being done; dropped, it ends.
#[derive(Debug)]
pub(super) struct Errand<T>(JoinHandle<T>);

impl<T: Send + 'static> Errand<T> {
    /// Begins it.
    pub(super) fn begin(work: impl Future<Output = T> + Send + 'static) -> Errand<T> {
        Errand(tokio::spawn(work))
    }
}

impl<T> Future for Errand<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for Errand<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Mutex;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;

    /// A stream that was not moved any more stood in the queue for a lock; the lock was handed to
    /// it, and nobody else had it before the stream ended.
    #[tokio::test]
    async fn what_nobody_waits_for_goes_on_and_what_is_dropped_ends() {
        let lock = Arc::new(Mutex::new(0));
        let adds = |lock: &Arc<Mutex<u32>>| {
            let lock = Arc::clone(lock);
            Errand::begin(async move {
                let mut held = lock.lock().await;
                yield_now().await;
                *held += 1;
            })
        };
        let (unmoved, held) = (adds(&lock), lock.lock().await);
        yield_now().await;
        drop(held);
        let found = timeout(Duration::from_secs(30), lock.lock()).await.expect("it is given back");
        assert_eq!(*found, 1);
        let waits = adds(&lock);
        yield_now().await;
        drop((unmoved, waits, found));
        for _ in 0..10 {
            yield_now().await;
        }
        assert_eq!(*lock.lock().await, 1, "it ended in the queue");
    }
}
