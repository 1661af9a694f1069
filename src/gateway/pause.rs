//! Time that passes, for whoever is polled.

use std::future::{Pending, pending};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Timeout, timeout};

/// Ends when its time has passed, always with an error: that is how a timeout ends.
pub(super) type Pause = Pin<Box<Timeout<Pending<()>>>>;

/// Begins to wait for so long.
pub(super) fn pause(time: Duration) -> Pause {
    Box::pin(timeout(time, pending()))
}
