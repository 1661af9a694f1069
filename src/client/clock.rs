//! The client's time: deadlines, waits between attempts, and what loads are measured with.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// Shortest and longest wait before a request is repeated. Long enough not to hammer a cluster
/// that elects (300 ms and more), short enough to add little to an outage.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_SPREAD_MS: u32 = 30;

/// When to stop waiting.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// This long from now.
    pub fn after(timeout: Duration) -> Deadline {
        let now = now();
        // Beyond what the clock can count is for ever; a hundred years will do.
        let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        Deadline(now.checked_add(timeout).unwrap_or(now + century))
    }

    /// How long there is left; `None` when it has passed.
    pub fn remaining(self) -> Option<Duration> {
        self.0.checked_duration_since(now()).filter(|left| !left.is_zero())
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        self.remaining().is_none()
    }

    /// The earlier of this and `timeout` from now.
    #[must_use]
    pub fn at_most(self, timeout: Duration) -> Deadline {
        self.min(Deadline::after(timeout))
    }

    /// Waits until it has passed.
    pub fn wait(self) {
        let mutex = Mutex::new(());
        let condition = Condvar::new();
        let Ok(mut guard) = mutex.lock() else { return };
        while let Some(left) = self.remaining() {
            // Nobody notifies; the loop is for spurious wake-ups.
            match condition.wait_timeout(guard, left) {
                Ok((woken, _)) => guard = woken,
                Err(_) => return,
            }
        }
    }
}

/// Nanoseconds since it was started: what latencies are measured with.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts counting.
    pub fn start() -> Clock {
        Clock { start: now() }
    }

    /// Nanoseconds since the start.
    pub fn now_ns(self) -> u64 {
        u64::try_from(now().duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Waits 20 to 50 ms, but not beyond the deadline.
///
/// The jitter needs no quality, only to differ between clients that failed together: the clock's
/// nanoseconds do.
pub(super) fn back_off(deadline: Deadline) {
    let jitter_ns = deadline.remaining().unwrap_or_default().subsec_nanos();
    let jitter = Duration::from_millis(u64::from(jitter_ns % BACKOFF_SPREAD_MS));
    deadline.at_most(BACKOFF_MIN + jitter).wait();
}

/// Milliseconds since 1970: for people who look at a data directory.
#[expect(clippy::disallowed_methods, reason = "the one place where the client reads a clock")]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// CPU that this process has used, of all its threads. Nanoseconds.
pub fn process_cpu_ns() -> u64 {
    let used = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
    u64::try_from(used.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "the one place where the client reads a clock")]
fn now() -> Instant {
    Instant::now()
}
