//! How long the loop's turns take: what a slow turn costs, everybody waits.

use crate::wire::status::{TurnBucket, TurnTimes};

/// Upper bounds of the buckets. Microseconds.
const BOUNDS_US: [u64; 24] = [
    10, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1_000, 1_500, 2_000, 3_000, 5_000, 7_000,
    10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
];

/// Counts of turns by the CPU time of the loop's thread and by the time on the wall.
#[derive(Clone, Default, Debug)]
pub(super) struct Turns {
    cpu: Spread,
    wall: Spread,
}

/// One bucket for each bound, and one for what is beyond all of them.
#[derive(Clone, Default, Debug)]
struct Spread {
    counts: [u64; BOUNDS_US.len() + 1],
    longest_ns: u64,
}

impl Spread {
    fn add(&mut self, ns: u64) {
        let bucket = BOUNDS_US.partition_point(|bound_us| bound_us * 1_000 < ns);
        self.counts[bucket] += 1;
        self.longest_ns = self.longest_ns.max(ns);
    }
}

impl Turns {
    pub(super) fn add(&mut self, cpu_ns: u64, wall_ns: u64) {
        self.cpu.add(cpu_ns);
        self.wall.add(wall_ns);
    }

    pub(super) fn report(&self) -> TurnTimes {
        let bounds = BOUNDS_US.iter().copied().map(Some).chain([None]);
        let counts = self.cpu.counts.iter().zip(&self.wall.counts);
        let bucket = |(at_most_us, (&cpu, &wall))| TurnBucket { at_most_us, cpu, wall };
        TurnTimes {
            longest_cpu_us: self.cpu.longest_ns / 1_000,
            longest_wall_us: self.wall.longest_ns / 1_000,
            buckets: bounds.zip(counts).map(bucket).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Turns;

    #[test]
    fn a_turn_is_counted_where_its_time_is_within_the_bound() {
        let mut turns = Turns::default();
        turns.add(10_000, 10_001);
        turns.add(0, 5_000_000);
        turns.add(5_000_001, 2_000_000_000);
        let report = turns.report();
        let of = |at_most_us| {
            let bucket = report.buckets.iter().find(|bucket| bucket.at_most_us == at_most_us);
            bucket.map(|bucket| (bucket.cpu, bucket.wall))
        };
        assert_eq!(of(Some(10)), Some((2, 0)));
        assert_eq!(of(Some(20)), Some((0, 1)));
        assert_eq!(of(Some(5_000)), Some((0, 1)));
        assert_eq!(of(Some(7_000)), Some((1, 0)));
        assert_eq!(of(None), Some((0, 1)));
        assert_eq!((report.longest_cpu_us, report.longest_wall_us), (5_000, 2_000_000));
    }
}
