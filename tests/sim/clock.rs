//! Each machine's own clock: it starts anywhere at every start of the process, and runs a little
//! wrong, not always equally.

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
    /// Starts at `now`, at most `ppm` wrong; half of the time by all of that.
    pub(crate) fn start(now: u64, ppm: u64, chance: &mut Chance) -> Clock {
        let rate = if chance.one_in(2) {
            MILLION - ppm + chance.below(2 * ppm + 1)
        } else {
            chance.pick(&[MILLION - ppm, MILLION + ppm])
        };
        Clock { then: now, shown_then: chance.below(1 << 40), rate }
    }

    /// Goes on from what it shows at `now`, at another rate.
    pub(crate) fn at_another_rate(self, now: u64, ppm: u64, chance: &mut Chance) -> Clock {
        let shown_then = self.read(now).as_ns();
        Clock { then: now, shown_then, ..Clock::start(now, ppm, chance) }
    }

    /// Goes on from what it shows at `now`, as slowly as it may.
    pub(crate) fn slowest(self, now: u64, ppm: u64) -> Clock {
        Clock { then: now, shown_then: self.read(now).as_ns(), rate: MILLION - ppm }
    }

    /// Goes on from what it shows at `now`, as fast as it may.
    pub(crate) fn fastest(self, now: u64, ppm: u64) -> Clock {
        Clock { then: now, shown_then: self.read(now).as_ns(), rate: MILLION + ppm }
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
