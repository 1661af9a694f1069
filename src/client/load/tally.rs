//! What came of a load.

use std::collections::BTreeMap;
use std::time::Duration;

use super::workload::Kind;

/// Latencies. Nanoseconds.
pub type Histogram = hdrhistogram::Histogram<u64>;

/// Latencies from 100 ns to 60 s, each within a thousandth.
pub fn histogram() -> Histogram {
    Histogram::new_with_bounds(100, 60_000_000_000, 3).expect("constant bounds are valid")
}

/// What came of a load.
#[derive(Debug)]
pub struct Tally {
    latencies: [Option<Histogram>; Kind::ALL.len()],
    /// In an open loop, from the moment an operation was due to the moment it was asked.
    /// Nanoseconds.
    pub late: Histogram,
    /// Refusals by what they said.
    pub errors: BTreeMap<String, u64>,
    /// Answers that cannot be right.
    pub wrong: u64,
    /// Operations that were asked once more: their server was gone, or did not lead.
    pub repeated: u64,
    /// Operations of an open loop that were due and never asked: the server did not keep up.
    pub unasked: u64,
    /// How latencies went over time, if that was asked for.
    pub timeline: Option<Timeline>,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally::new()
    }
}

impl Tally {
    /// Of no load yet.
    pub fn new() -> Tally {
        Tally {
            latencies: [const { None }; Kind::ALL.len()],
            late: histogram(),
            errors: BTreeMap::new(),
            wrong: 0,
            repeated: 0,
            unasked: 0,
            timeline: None,
        }
    }

    /// Counts an operation.
    pub(super) fn record(&mut self, kind: Kind, latency_ns: u64) {
        let latency = self.latencies[kind.slot()].get_or_insert_with(histogram);
        latency.saturating_record(latency_ns);
    }

    /// Latencies of the operations of this kind, if there were any. Nanoseconds, of the operations
    /// answered within the measured time.
    pub fn latency_of(&self, kind: Kind) -> Option<&Histogram> {
        self.latencies[kind.slot()].as_ref()
    }

    /// Latencies of all operations.
    pub fn latency(&self) -> Histogram {
        let mut all = histogram();
        for latency in self.latencies.iter().flatten() {
            add(&mut all, latency);
        }
        all
    }

    /// Adds another load's; timelines are not added.
    pub fn merge(&mut self, other: &Tally) {
        for (own, latency) in self.latencies.iter_mut().zip(&other.latencies) {
            if let Some(latency) = latency {
                add(own.get_or_insert_with(histogram), latency);
            }
        }
        add(&mut self.late, &other.late);
        self.wrong += other.wrong;
        self.repeated += other.repeated;
        self.unasked += other.unasked;
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
    }

    /// Refusals of all kinds.
    pub fn refusals(&self) -> u64 {
        self.errors.values().sum()
    }
}

fn add(to: &mut Histogram, other: &Histogram) {
    to.add(other).expect("both have the same bounds");
}

/// Latencies over time, by the moment an operation was due.
#[derive(Debug)]
pub struct Timeline {
    start_ns: u64,
    bucket_ns: u64,
    /// Within a hundredth, so that many fit.
    buckets: Vec<Histogram>,
}

impl Timeline {
    /// `count` buckets of this length from `start_ns` on. Later operations count into the last.
    pub fn new(start_ns: u64, bucket: Duration, count: usize) -> Timeline {
        let empty = Histogram::new_with_bounds(1000, 60_000_000_000, 2);
        let empty = empty.expect("constant bounds are valid");
        let bucket_ns = u64::try_from(bucket.as_nanos()).unwrap_or(u64::MAX).max(1);
        Timeline { start_ns, bucket_ns, buckets: vec![empty; count.max(1)] }
    }

    /// Counts an operation that was due then.
    pub(super) fn record(&mut self, due_ns: u64, latency_ns: u64) {
        let at = due_ns.saturating_sub(self.start_ns) / self.bucket_ns;
        let last = self.buckets.len() - 1;
        let at = usize::try_from(at).unwrap_or(last).min(last);
        self.buckets[at].saturating_record(latency_ns);
    }

    /// The buckets: seconds from the start to the middle of each, and its latencies.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, &Histogram)> {
        let length = super::float(self.bucket_ns) / 1e9;
        let middles =
            std::iter::successors(Some(length / 2.0), move |middle| Some(middle + length));
        middles.zip(&self.buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_keeps_kinds_apart_and_adds_up() {
        let (mut one, mut other) = (Tally::new(), Tally::new());
        one.record(Kind::Read, 1_000);
        other.record(Kind::Update, 3_000);
        other.record(Kind::Read, 2_000);
        *other.errors.entry("busy".to_owned()).or_default() += 2;
        one.merge(&other);
        assert_eq!(one.latency_of(Kind::Read).map(Histogram::len), Some(2));
        assert_eq!(one.latency_of(Kind::Update).map(Histogram::len), Some(1));
        assert!(one.latency_of(Kind::Scan).is_none());
        assert_eq!((one.latency().len(), one.refusals()), (3, 2));
        assert!((2_990..=3_010).contains(&one.latency().max()));
    }

    #[test]
    fn a_timeline_counts_by_the_moment_due() {
        let mut timeline = Timeline::new(1_000_000, Duration::from_millis(1), 3);
        for (due_ns, latency_ns) in [(0, 5_000), (1_999_999, 6_000), (2_000_000, 7_000)] {
            timeline.record(due_ns, latency_ns);
        }
        timeline.record(99_000_000, 8_000);
        let found: Vec<_> = timeline.buckets().map(|(_, bucket)| bucket.len()).collect();
        assert_eq!(found, [2, 1, 1]);
        let middle = timeline.buckets().next().map(|(seconds, _)| seconds);
        assert!(middle.is_some_and(|middle| (middle - 0.0005).abs() < 1e-9));
    }
}
