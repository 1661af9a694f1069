//! How long the turns of a node's loop were while somebody looked, and whose fault that is.

use raftd::wire::status::{Status, TurnTimes};
use std::fs;
use std::mem;

/// The bound on the CPU time of a turn. Microseconds.
pub(super) const TURN_US: u64 = 5_000;

/// One of so many turns may be excused, or a few of fewer. With more, the host's theft may hide
/// what is our own.
const TURNS_TO_AN_EXCUSE: u64 = 10_000;
const EXCUSES: u64 = 3;

/// The turns of one node, looked at every few milliseconds.
pub(super) struct TurnsSeen {
    /// At the first look.
    first: TurnTimes,
    /// At the last look: the turns so far, and what the host had stolen.
    last: (TurnTimes, u64),
    excused: Vec<Excused>,
    /// Turns above the bound that the host does not explain.
    long: u64,
}

/// A turn above the bound that the host explains.
struct Excused {
    /// The longest turn so far: this one was no longer. CPU time, microseconds.
    at_most_us: u64,
    /// What the host took meanwhile.
    stolen_ms: u64,
}

impl TurnsSeen {
    /// Of what was before it knows nothing.
    pub(super) fn start(status: &Status) -> TurnsSeen {
        let times = status.turn_times.clone();
        let last = (times.clone(), stolen_ms());
        TurnsSeen { first: times, last, excused: Vec::new(), long: 0 }
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
        if is_excused(above, longest, stolen_ms) {
            self.excused.push(Excused { at_most_us: longest, stolen_ms });
        } else {
            self.long += above;
        }
    }

    /// Asserts that no turn from the first look to the last was above the bound but a few that the
    /// host explains.
    pub(super) fn assert_short(&self) {
        let (turns, ..) = between(&self.first, &self.last.0);
        let excused = u64::try_from(self.excused.len()).expect("each was seen");
        assert_short(turns, excused, self.long);
    }

    /// Prints what was seen, from the first look to the last.
    pub(super) fn report(&self, who: &str) {
        let times = &self.last.0;
        let (turns, above, wall) = between(&self.first, times);
        let (longest, by_clock) = (times.longest_cpu_us, times.longest_wall_us);
        println!("{who}: {turns} turns, {above} above {TURN_US} us of CPU, at most {longest}");
        println!("{who}: of the long ones {} are our own", self.long);
        for Excused { at_most_us, stolen_ms } in &self.excused {
            println!("{who}: one of at most {at_most_us} us while the host took {stolen_ms} ms");
        }
        println!("{who}: by the clock p99, p99.9 {wall:?} us, at most {by_clock}");
    }
}

/// Whether all of `above` turns are the host's: of two nobody knows which it made longer.
pub(super) fn is_excused(above: u64, longest_us: u64, stolen_ms: u64) -> bool {
    above == 1 && longest_us <= TURN_US + 1000 * stolen_ms
}

/// Asserts that of all `turns` none was above the bound but a few that the host explains.
pub(super) fn assert_short(turns: u64, excused: u64, long: u64) {
    assert_eq!(long, 0, "turns above {TURN_US} us of CPU");
    let most = EXCUSES.max(turns / TURNS_TO_AN_EXCUSE);
    assert!(excused <= most, "{excused} of {turns} turns long by the host, more than {most}");
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

#[test]
fn a_few_turns_are_excused_and_no_more() {
    let is_short = |turns, excused, long| {
        std::panic::catch_unwind(|| assert_short(turns, excused, long)).is_ok()
    };
    assert!(is_short(100, 3, 0));
    assert!(!is_short(100, 4, 0) && !is_short(39_999, 4, 0));
    assert!(is_short(40_000, 4, 0) && !is_short(40_000, 5, 0));
    assert!(!is_short(1_000_000, 0, 1), "one of our own");
    assert!(is_excused(1, TURN_US + 10_000, 10) && !is_excused(1, TURN_US + 10_001, 10));
    assert!(!is_excused(2, TURN_US + 1, 10), "one of them may be our own");
}
