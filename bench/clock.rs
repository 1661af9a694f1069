//! The only clock of the benchmark, and the only way it waits.

use std::thread;
use std::time::{Duration, Instant};

/// Monotonic time since the benchmark started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts counting.
    #[expect(clippy::disallowed_methods, reason = "the only clock of the benchmark")]
    pub(crate) fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Nanoseconds since the start.
    #[expect(clippy::disallowed_methods, reason = "the only clock of the benchmark")]
    pub(crate) fn now_ns(self) -> u64 {
        let elapsed = Instant::now().duration_since(self.start);
        u64::try_from(elapsed.as_nanos()).expect("no benchmark runs for 500 years")
    }

    /// Asks `ready` again and again, a little apart, until it answers or `limit` has passed.
    pub(crate) fn poll_until<T>(
        self,
        limit: Duration,
        mut ready: impl FnMut() -> crate::Result<Option<T>>,
    ) -> crate::Result<Option<T>> {
        let limit_ns = u64::try_from(limit.as_nanos()).expect("limits are seconds");
        let deadline_ns = self.now_ns() + limit_ns;
        loop {
            if let Some(found) = ready()? {
                return Ok(Some(found));
            }
            if self.now_ns() >= deadline_ns {
                return Ok(None);
            }
            thread::park_timeout(Duration::from_millis(5));
        }
    }
}
