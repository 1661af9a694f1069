//! Choices that a number repeats.

/// splitmix64: the same choices from the same seed, for ever.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).expect("small");
        usize::try_from(self.below(length)).expect("small")
    }

    /// 0: never.
    pub(crate) fn once_in(&mut self, turns: u64) -> bool {
        turns > 0 && self.below(turns) == 0
    }
}
