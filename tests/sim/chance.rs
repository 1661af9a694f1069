//! Chance from a seed: the same numbers on every machine, for ever.
//!
//! Each concern has a stream of its own, and each kind of fault a timer beside
//! (`faults/schedule.rs`), so that taking one kind away leaves the times and draws of all others as
//! they were: that is what makes shrinking work.

/// splitmix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

/// One in a million: the unit of `hit`.
pub(crate) const MILLION: u64 = 1_000_000;

impl Chance {
    /// The stream called `concern` of a seed.
    pub(crate) fn of(seed: u64, concern: &str) -> Chance {
        let mut state = seed ^ 0x5eed_0f5e_ed5e_ed00;
        for byte in concern.bytes() {
            state = Chance(state ^ u64::from(byte)).draw();
        }
        Chance(state)
    }

    /// A stream that no other draw disturbs.
    pub(crate) fn split(&mut self) -> Chance {
        Chance(self.draw())
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "nothing is below zero");
        self.draw() % end
    }

    /// A place in a list of `len`.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize_of(self.below(u64_of(len)))
    }

    /// A number of `least..=most`.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// A number of `least..=most`, small ones as likely as large ones: even in the logarithm.
    pub(crate) fn scaled(&mut self, least: u64, most: u64) -> u64 {
        let doublings = (most / least.max(1)).max(1).ilog2();
        let low = least.max(1) << self.below(u64::from(doublings) + 1);
        self.between(low, (2 * low).min(most).max(low))
    }

    /// True `millionths` times in a million.
    pub(crate) fn hit(&mut self, millionths: u64) -> bool {
        self.below(MILLION) < millionths
    }

    /// True once in `n`.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// Exponential with this mean, in whole numbers: the logarithm is piecewise linear.
    pub(crate) fn exponential(&mut self, mean: u64) -> u64 {
        let bits = self.draw();
        let whole = u64::from(bits.leading_zeros().min(24));
        let fraction = self.draw() & 0xffff;
        // -log2 of a uniform number, in 65536ths; ln 2 is 45426 of them.
        let logarithm = (whole << 16) + fraction;
        (mean.saturating_mul(logarithm) >> 16).saturating_mul(45_426) >> 16
    }
}

/// A step of splitmix64's output: every bit of the input changes half of the bits of the output.
pub(crate) fn mix(bits: u64) -> u64 {
    let mut mixed = bits;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Two values as one.
pub(crate) fn fold(hash: u64, value: u64) -> u64 {
    mix(hash ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(hash.rotate_left(23))
}

pub(crate) fn u64_of(len: usize) -> u64 {
    u64::try_from(len).expect("usize is at most 64 bits")
}

pub(crate) fn usize_of(number: u64) -> usize {
    usize::try_from(number).expect("a number of things in memory fits")
}
