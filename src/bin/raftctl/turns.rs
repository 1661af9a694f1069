//! status --turns: how long the turns of every server's loop were, for a person.
//!
//! A server counts its turns by buckets, so a percentile is the upper bound of the bucket that it
//! is in: the turn itself was no longer. The counts are in `status --output json`.

use raftd::wire::status::{TurnBucket, TurnTimes};

use super::output::text_of;
use super::status::Answer;

/// No turn should take more CPU time than this: everybody else waits for it. Microseconds.
const LONG_US: u64 = 5_000;

/// The percentiles shown: their names, and how many turns of a thousand are no longer.
const PERCENTILES: [(&str, u64); 3] = [("p50", 500), ("p99", 990), ("p99.9", 999)];

pub(crate) const HEADINGS: &[&str] = &[
    "ENDPOINT",
    "NODE",
    "TURNS",
    "CPU > 5MS",
    "CPU P50",
    "P99",
    "P99.9",
    "MAX",
    "WALL P50",
    "P99",
    "P99.9",
    "MAX",
    "NOTE",
];

/// Turns by one of the two clocks.
struct Spread {
    name: &'static str,
    /// By the bounds of their buckets, ascending; none in the last one. Microseconds.
    counts: Vec<(Option<u64>, u64)>,
    longest_us: u64,
}

fn spreads(times: &TurnTimes) -> [Spread; 2] {
    let counts = |of: fn(&TurnBucket) -> u64| {
        times.buckets.iter().map(|bucket| (bucket.at_most_us, of(bucket))).collect()
    };
    [
        Spread {
            name: "cpu",
            counts: counts(|bucket| bucket.cpu),
            longest_us: times.longest_cpu_us,
        },
        Spread {
            name: "wall",
            counts: counts(|bucket| bucket.wall),
            longest_us: times.longest_wall_us,
        },
    ]
}

impl Spread {
    fn turns(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// So many turns of a thousand were no longer than this; 0 if there was none. Microseconds.
    fn percentile_us(&self, per_mille: u64) -> u64 {
        let mut left = self.turns().saturating_mul(per_mille).div_ceil(1000);
        for (at_most_us, count) in &self.counts {
            if *count >= left {
                return at_most_us.unwrap_or(self.longest_us).min(self.longest_us);
            }
            left -= count;
        }
        self.longest_us
    }

    fn above(&self, bound_us: u64) -> u64 {
        let above = |at_most_us: &Option<u64>| at_most_us.is_none_or(|it| it > bound_us);
        self.counts.iter().filter(|(it, _)| above(it)).map(|(_, count)| count).sum()
    }

    /// The percentiles and the longest, with their names. Microseconds.
    fn marks(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let marks = PERCENTILES.iter().map(move |(name, it)| (*name, self.percentile_us(*it)));
        marks.chain([("max", self.longest_us)])
    }
}

pub(crate) fn line((endpoint, answer): &Answer) -> String {
    match answer {
        Ok(node) => {
            let spreads = spreads(&node.turn_times);
            let [cpu, _] = &spreads;
            let marks = spreads.iter().flat_map(|spread| {
                let name = spread.name;
                spread.marks().map(move |(mark, us)| format!(" {name}_{mark}_us={us}"))
            });
            format!(
                "{endpoint} {} turns={} cpu_above_5ms={}{}\n",
                node.node,
                cpu.turns(),
                cpu.above(LONG_US),
                marks.collect::<String>(),
            )
        }
        Err(why) => format!("{endpoint} error={}\n", text_of(why)),
    }
}

pub(crate) fn row((endpoint, answer): &Answer) -> Vec<String> {
    let mut row = vec![endpoint.clone()];
    match answer {
        Ok(node) => {
            let spreads = spreads(&node.turn_times);
            let [cpu, _] = &spreads;
            row.push(node.node.to_string());
            row.push(cpu.turns().to_string());
            row.push(cpu.above(LONG_US).to_string());
            let marks = spreads.iter().flat_map(Spread::marks);
            row.extend(marks.map(|(_, us)| format!("{us}us")));
            row.push(String::new());
        }
        Err(why) => {
            row.resize(HEADINGS.len() - 1, "-".to_owned());
            row.push(text_of(why));
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::{LONG_US, TurnBucket, TurnTimes, spreads};

    #[test]
    fn a_percentile_is_the_bound_of_its_bucket_and_never_beyond_the_longest_turn() {
        let bucket = |at_most_us, cpu, wall| TurnBucket { at_most_us, cpu, wall };
        let buckets = vec![
            bucket(Some(10), 500, 0),
            bucket(Some(100), 490, 999),
            bucket(Some(5_000), 9, 0),
            bucket(Some(7_000), 1, 0),
            bucket(None, 0, 1),
        ];
        let times = TurnTimes { longest_cpu_us: 6_001, longest_wall_us: 2_000_000, buckets };
        let [cpu, wall] = spreads(&times);
        let us = |marks: &[(&str, u64)]| marks.iter().map(|mark| mark.1).collect::<Vec<_>>();
        assert_eq!(us(&cpu.marks().collect::<Vec<_>>()), [10, 100, 5_000, 6_001]);
        assert_eq!(us(&wall.marks().collect::<Vec<_>>()), [100, 100, 100, 2_000_000]);
        assert_eq!((cpu.percentile_us(1000), wall.percentile_us(1000)), (6_001, 2_000_000));
        assert_eq!((cpu.turns(), cpu.above(LONG_US), wall.above(LONG_US)), (1_000, 1, 1));
        let [none, _] = spreads(&TurnTimes::default());
        assert_eq!((none.turns(), none.percentile_us(990)), (0, 0));
    }
}
