//! How long the turns of a node's loop were while somebody looked, and whose fault that is.

use raftd::wire::status::{Status, TurnTimes};
use std::fs;
use std::mem;

/// The bound on the CPU time of a turn. Microseconds.
pub(super) const TURN_US: u64 = 5_000;

/// The turns of one node, looked at every few milliseconds.
pub(super) struct TurnsSeen {
    /// At the first look.
    first: TurnTimes,
    /// At the last look: the turns so far, and what the host had stolen.
    last: (TurnTimes, u64),
    /// Turns above the bound that the host explains.
    pub(super) robbed: u64,
    /// Those that it does not explain.
    pub(super) long: u64,
}

impl TurnsSeen {
    /// Of what was before it knows nothing.
    pub(super) fn start(status: &Status) -> TurnsSeen {
        let times = status.turn_times.clone();
        TurnsSeen { first: times.clone(), last: (times, stolen_ms()), robbed: 0, long: 0 }
    }

    /// A host that takes the CPU away during a turn makes it longer: a thread's CPU time counts
    /// what was stolen as its own. A long turn is excused only if without all that was stolen since
    /// the last look, which is some milliseconds ago, it were within the bound.
    pub(super) fn look(&mut self, status: &Status) {
        let last = (status.turn_times.clone(), stolen_ms());
        let before = mem::replace(&mut self.last, last);
        let (_, above, _) = between(&before.0, &self.last.0);
        if above == 0 {
            return;
        }
        let (stolen_ms, longest) = (self.last.1 - before.1, status.turn_times.longest_cpu_us);
        println!("turns: {}: {above} long, {stolen_ms} ms stolen meanwhile", status.node);
        if above == 1 && longest <= TURN_US + 1000 * stolen_ms {
            self.robbed += above;
        } else {
            self.long += above;
        }
    }

    /// Prints what was seen, from the first look to the last.
    pub(super) fn report(&self, who: &str) {
        let times = &self.last.0;
        let (turns, above, wall) = between(&self.first, times);
        let (longest, by_clock) = (times.longest_cpu_us, times.longest_wall_us);
        println!("{who}: {turns} turns, {above} above {TURN_US} us of CPU, at most {longest}");
        println!("{who}: of the long ones {} are the host's, {} our own", self.robbed, self.long);
        println!("{who}: by the clock p99, p99.9 {wall:?} us, at most {by_clock}");
    }
}

/// The turns between two looks: those above the bound, and bounds on the percentiles by the clock.
pub(super) fn between(before: &TurnTimes, after: &TurnTimes) -> (u64, u64, [Option<u64>; 2]) {
    let pairs = before.buckets.iter().zip(&after.buckets);
    let counts: Vec<_> =
        pairs.map(|(b, a)| (a.at_most_us, a.cpu - b.cpu, a.wall - b.wall)).collect();
    let long = |&(at_most_us, ..): &(Option<u64>, _, _)| at_most_us.is_none_or(|it| it > TURN_US);
    let above = counts.iter().filter(|it| long(it)).map(|it| it.1).sum();
    let all: u64 = counts.iter().map(|it| it.1).sum();
    let percentile = |per_mille: u64| {
        let mut left = (all * per_mille).div_ceil(1000);
        let holds = |it: &&(Option<u64>, u64, u64)| {
            let found = it.2 >= left;
            left = left.saturating_sub(it.2);
            found
        };
        counts.iter().find(holds).and_then(|it| it.0)
    };
    (all, above, [percentile(990), percentile(999)])
}

/// What the host has taken from this machine since it started, where there is a host. A thread's
/// CPU time counts it as its own. Milliseconds.
pub(super) fn stolen_ms() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = text.split_whitespace().nth(8).and_then(|word| word.parse().ok());
    ticks.map_or(0, |ticks: u64| ticks * 10)
}
