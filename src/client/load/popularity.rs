//! Which key is next: evenly, by Zipf's law, or the latest most often.

use super::numbers::{float, whole};

/// How often keys are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Popularity {
    /// All alike.
    Even,
    /// The n-th most popular key 1/n^0.99 as often as the first, and the popular ones lie anywhere:
    /// YCSB's "scrambled zipfian".
    Zipfian,
    /// As `Zipfian`, and the newest key is the most popular: YCSB's "latest".
    Latest,
}

/// Pseudo-random numbers, the same for the same seed. xorshift64*, Vigna 2016.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`: the upper half of a product, whose bias is below 2^-32 for small
    /// bounds.
    pub fn below(&mut self, bound: u32) -> u32 {
        let product = (self.draw() >> 32) * u64::from(bound);
        u32::try_from(product >> 32).expect("the upper half of a product of two 32-bit numbers")
    }

    /// A number from 0 to 1, without 1.
    fn fraction(&mut self) -> f64 {
        float(self.draw() >> 11) / 9_007_199_254_740_992.0
    }
}

/// Draws key numbers.
#[derive(Clone, Debug)]
pub(super) struct Chooser {
    popularity: Popularity,
    random: Random,
    zipf: Zipf,
}

impl Chooser {
    pub(super) fn new(popularity: Popularity, seed: u64) -> Chooser {
        Chooser { popularity, random: Random::new(seed), zipf: Zipf::new() }
    }

    /// One of the keys 0 to `keys` - 1. Panics if there are none.
    pub(super) fn choose(&mut self, keys: u32) -> u32 {
        assert!(keys > 0, "there is a key to choose");
        match self.popularity {
            Popularity::Even => self.random.below(keys),
            Popularity::Zipfian => scatter(self.zipf.rank(&mut self.random, keys), keys),
            Popularity::Latest => keys - 1 - self.zipf.rank(&mut self.random, keys),
        }
    }

    /// A number below `bound`, all alike.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        self.random.below(bound)
    }
}

/// Where the key of a rank lies: neighbours in rank are no neighbours in the store.
fn scatter(rank: u32, keys: u32) -> u32 {
    let mixed = Random::new(u64::from(rank) + 1).draw();
    u32::try_from(mixed % u64::from(keys)).expect("less than a u32")
}

/// The exponent that YCSB uses.
const EXPONENT: f64 = 0.99;

/// Ranks by Zipf's law, by Gray's closed approximation ("Quickly generating billion-record
/// synthetic databases", 1994, §3.2), which YCSB uses too. It needs the sum of 1/n^0.99, which is
/// kept and added to when there are more keys.
#[derive(Clone, Debug)]
struct Zipf {
    /// The sum over `keys` ranks.
    sum: f64,
    keys: u32,
}

impl Zipf {
    fn new() -> Zipf {
        Zipf { sum: 0.0, keys: 0 }
    }

    /// A rank below `keys`; 0 is the most popular.
    fn rank(&mut self, random: &mut Random, keys: u32) -> u32 {
        if keys < self.keys {
            *self = Zipf::new();
        }
        for rank in self.keys + 1..=keys {
            self.sum += f64::from(rank).powf(-EXPONENT);
        }
        self.keys = keys;
        let fraction = random.fraction();
        let scaled = fraction * self.sum;
        let second = 0.5_f64.powf(EXPONENT);
        if scaled < 1.0 || keys == 1 {
            return 0;
        }
        if scaled < 1.0 + second || keys == 2 {
            return 1;
        }
        let count = f64::from(keys);
        let tail = (1.0 - (2.0 / count).powf(1.0 - EXPONENT)) / (1.0 - (1.0 + second) / self.sum);
        let place = count * (tail * fraction - tail + 1.0).powf(1.0 / (1.0 - EXPONENT));
        u32::try_from(whole(place)).unwrap_or(u32::MAX).min(keys - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(popularity: Popularity, keys: u32) -> Vec<u32> {
        let mut chooser = Chooser::new(popularity, 7);
        let mut counts = vec![0; usize::try_from(keys).unwrap()];
        for _ in 0..100_000 {
            counts[usize::try_from(chooser.choose(keys)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn even_is_even() {
        let counts = drawn(Popularity::Even, 100);
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    /// Of 1000 keys the first has 1/7.7 of all, the second half of that, the tenth a tenth.
    #[test]
    fn zipf_is_zipf() {
        let mut counts = drawn(Popularity::Latest, 1000);
        counts.reverse();
        assert!((12_000..14_000).contains(&counts[0]), "{}", counts[0]);
        assert!((6_000..7_200).contains(&counts[1]), "{}", counts[1]);
        let tenth = counts[9] * 10;
        assert!((9_000..18_000).contains(&tenth), "{tenth}");
        let mut scattered = drawn(Popularity::Zipfian, 1000);
        assert!(scattered[0] < 12_000, "the most popular key is not the first");
        scattered.sort_unstable();
        assert!(scattered.last().is_some_and(|most| (12_000..15_000).contains(most)));
    }

    #[test]
    fn few_keys_are_enough() {
        for keys in 1..4 {
            for popularity in [Popularity::Even, Popularity::Zipfian, Popularity::Latest] {
                assert_eq!(drawn(popularity, keys).iter().sum::<u32>(), 100_000);
            }
        }
    }
}
