//! The only clock of the server. Read once a turn; everything in the turn shares the moment.

use crate::types::Instant;
use std::time::{SystemTime, UNIX_EPOCH};

/// Monotonic time since the process started.
#[derive(Debug)]
pub(super) struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// Starts counting.
    #[expect(clippy::disallowed_methods, reason = "the only clock of the server")]
    pub(super) fn start() -> Clock {
        Clock { start: std::time::Instant::now() }
    }

    /// The moment now.
    #[expect(clippy::disallowed_methods, reason = "the only clock of the server")]
    pub(super) fn now(&self) -> Instant {
        let elapsed = std::time::Instant::now().duration_since(self.start);
        Instant::from_ns(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX - 1))
    }
}

/// Wall time now, milliseconds since 1970. Read once, at start: later jumps of the wall clock
/// change nothing.
#[expect(clippy::disallowed_methods, reason = "the only clock of the server")]
pub fn unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
