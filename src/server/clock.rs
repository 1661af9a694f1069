//! The only clock of the server. Read before the inputs of a turn, behind each read of a socket,
//! and behind all of them.

use crate::types::Instant;
use rustix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// Monotonic time since the process started. It goes on while the machine sleeps, as the others'
/// does: a leader that wakes up must know that its lease is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start_ns: u64,
}

impl Clock {
    /// Starts counting.
    pub(super) fn start() -> Clock {
        Clock { start_ns: since_boot_ns() }
    }

    /// The moment now.
    pub(super) fn now(&self) -> Instant {
        Instant::from_ns(since_boot_ns().saturating_sub(self.start_ns))
    }
}

fn since_boot_ns() -> u64 {
    read_ns(ClockId::Boottime)
}

/// What the calling thread has used of a CPU. Nanoseconds.
pub(super) fn thread_cpu_ns() -> u64 {
    read_ns(ClockId::ThreadCPUTime)
}

fn read_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let (seconds, ns) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    let seconds = seconds.expect("the kernel counts up from 0");
    seconds.saturating_mul(1_000_000_000) + ns.expect("a part of a second")
}

/// Wall time now, milliseconds since 1970. Read once, at start: later jumps of the wall clock
/// change nothing.
#[expect(clippy::disallowed_methods, reason = "the only clock of the server")]
pub fn unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
