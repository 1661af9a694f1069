//! A timer wheel: deadlines in, due keys out. O(1) each, coarse, never cancelled: who is called
//! looks again.
//!
//! 256 slots of 64 ms. A deadline beyond the horizon of 16 s waits in the last slot and is looked
//! at again there. Keys that have become pointless fire once and are ignored by their owner.

use crate::types::Instant;

const SLOTS: u64 = 256;
const TICK_NS: u64 = 64_000_000;

/// The wheel. `K` names what is due.
#[derive(Debug)]
pub(super) struct Wheel<K> {
    slots: Vec<Vec<(Instant, K)>>,
    /// The first tick that has not been expired yet.
    next_tick: u64,
    count: usize,
}

impl<K> Wheel<K> {
    /// An empty wheel.
    pub(super) fn new(now: Instant) -> Wheel<K> {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        Wheel { slots, next_tick: now.as_ns() / TICK_NS, count: 0 }
    }

    /// Calls `key` at the first tick that is not before `deadline`.
    pub(super) fn insert(&mut self, deadline: Instant, key: K) {
        let tick = deadline.as_ns().div_ceil(TICK_NS);
        let tick = tick.clamp(self.next_tick, self.next_tick + SLOTS - 1);
        self.slot(tick).push((deadline, key));
        self.count += 1;
    }

    /// Moves every key whose deadline is not after `now` to `due`.
    pub(super) fn expire(&mut self, now: Instant, due: &mut Vec<K>) {
        let now_tick = now.as_ns() / TICK_NS;
        let mut early = Vec::new();
        let last = now_tick.min(self.next_tick + SLOTS - 1);
        let mut tick = self.next_tick;
        while tick <= last && self.count > early.len() {
            for (deadline, key) in std::mem::take(self.slot(tick)) {
                if deadline <= now {
                    self.count -= 1;
                    due.push(key);
                } else {
                    early.push((deadline, key));
                }
            }
            tick += 1;
        }
        self.next_tick = self.next_tick.max(now_tick + 1);
        self.count -= early.len();
        for (deadline, key) in early {
            self.insert(deadline, key);
        }
    }

    /// When `expire` should be called next; `FAR` for an empty wheel.
    pub(super) fn wake_at(&self) -> Instant {
        if self.count == 0 {
            return Instant::FAR;
        }
        let tick = (self.next_tick..self.next_tick + SLOTS)
            .find(|tick| !self.slots[slot_of(*tick)].is_empty())
            .expect("a counted key lies in one of the slots");
        Instant::from_ns(tick.saturating_mul(TICK_NS))
    }

    fn slot(&mut self, tick: u64) -> &mut Vec<(Instant, K)> {
        &mut self.slots[slot_of(tick)]
    }
}

fn slot_of(tick: u64) -> usize {
    usize::try_from(tick % SLOTS).expect("a remainder of 256 fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_fires_once_not_early_and_at_most_a_tick_late() {
        let mut wheel = Wheel::new(Instant::ZERO);
        let deadline = |key: u64| Instant::from_ns(key * 7_654_321_987 % 40_000_000_000);
        for key in 0..500 {
            wheel.insert(deadline(key), key);
        }
        let mut fired = vec![false; 500];
        let mut due = Vec::new();
        let mut now = Instant::ZERO;
        while wheel.wake_at() != Instant::FAR {
            now = wheel.wake_at().max(now.after_ns(1));
            wheel.expire(now, &mut due);
            for key in due.drain(..) {
                assert!(deadline(key) <= now);
                assert!(now.ns_since(deadline(key)) <= 2 * TICK_NS, "{key} fired late");
                assert!(!std::mem::replace(&mut fired[usize::try_from(key).unwrap()], true));
            }
        }
        assert!(fired.iter().all(|fired| *fired));
    }

    #[test]
    fn after_a_sleep_of_a_whole_horizon_or_more_no_slot_is_left_out() {
        for (begun, slept) in [(0, SLOTS - 1), (0, SLOTS), (77, SLOTS - 1), (77, 3 * SLOTS + 5)] {
            let at = |tick: u64| Instant::from_ns((begun + tick) * TICK_NS);
            let mut wheel = Wheel::new(at(0));
            for tick in 0..SLOTS {
                wheel.insert(at(tick), tick);
            }
            let mut due = Vec::new();
            wheel.expire(at(slept), &mut due);
            due.sort_unstable();
            assert!(due.iter().copied().eq(0..SLOTS), "after {slept} ticks: {due:?}");
            assert_eq!(wheel.wake_at(), Instant::FAR);
        }
    }
}
