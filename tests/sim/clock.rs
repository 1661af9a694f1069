//! Each machine's own clock: it starts anywhere at every start of the process, and runs a little
//! wrong.

use crate::chance::Chance;
use raftd::types::Instant;

const MILLION: u64 = 1_000_000;

/// A monotonic clock. Nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// True time when it read `shown_then`.
    then: u64,
    shown_then: u64,
    /// Nanoseconds it shows for a million true ones.
    rate: u64,
}

impl Clock {
    /// Starts at `now`, at most `ppm` wrong.
    pub(crate) fn start(now: u64, ppm: u64, chance: &mut Chance) -> Clock {
        let rate = MILLION - ppm + chance.below(2 * ppm + 1);
        Clock { then: now, shown_then: chance.below(1 << 40), rate }
    }

    pub(crate) fn read(&self, now: u64) -> Instant {
        Instant::from_ns(self.shown_then + scale(now - self.then, self.rate, MILLION))
    }

    /// The first true time at which it shows `shown`; `None` if it never will.
    pub(crate) fn when(&self, shown: Instant) -> Option<u64> {
        if shown == Instant::FAR {
            return None;
        }
        let ahead = shown.as_ns().saturating_sub(self.shown_then);
        Some(self.then + scale(ahead, MILLION, self.rate) + 1)
    }
}

fn scale(value: u64, by: u64, over: u64) -> u64 {
    let wide = u128::from(value) * u128::from(by) / u128::from(over);
    u64::try_from(wide).expect("a run lasts less than 500 years")
}
