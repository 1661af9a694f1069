//! The only way the benchmark waits.

use crate::Result;
use raftd::client::Deadline;
use std::thread;
use std::time::Duration;

/// Asks `ready` again and again, a little apart, until it answers or `limit` has passed.
pub(crate) fn until<T>(
    limit: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let deadline = Deadline::after(limit);
    loop {
        if let Some(found) = ready()? {
            return Ok(Some(found));
        }
        if deadline.has_passed() {
            return Ok(None);
        }
        thread::park_timeout(Duration::from_millis(5));
    }
}
