//! What is printed: a failure with all that is needed to repeat it, and the figures of a run.

use crate::clients::Changes;
use crate::coverage::Coverage;
use crate::invariants::Broken;
use crate::options::{CLASSES, MS, Options, Overrides, SECOND};
use crate::output::tell;
use crate::run::{Report, run};
use crate::shrink::shrink;
use crate::trace::{Tracing, take_lines};
use std::fmt::Write;

/// Sums over seeds.
#[derive(Clone, Default, Debug)]
pub(crate) struct Totals {
    pub(crate) seeds: u64,
    pub(crate) events: u64,
    pub(crate) simulated_ns: u64,
    pub(crate) issued: u64,
    pub(crate) committed: u64,
    pub(crate) changes: Changes,
    /// The smallest share of them that was done in a seed, in a hundred.
    pub(crate) changes_least: Option<u64>,
    pub(crate) attempts: u64,
    pub(crate) losses: u64,
    /// Of each seed, in tenths of an election timeout.
    pub(crate) served_after: Vec<u64>,
    pub(crate) ordered: u64,
    pub(crate) unordered: u64,
    pub(crate) coverage: Coverage,
}

impl Totals {
    pub(crate) fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.events += report.events;
        self.simulated_ns += report.simulated_ns;
        self.issued += report.issued;
        self.committed += report.committed;
        self.changes.add(report.changes);
        let share = report.changes.percent();
        self.changes_least = Some(self.changes_least.map_or(share, |least| least.min(share)));
        self.attempts += report.attempts;
        self.losses += report.losses;
        self.served_after.push(report.served_after);
        self.ordered += report.ordered;
        self.unordered += report.unordered;
        self.coverage.merge(&report.coverage);
    }

    /// Takes in another thread's sums.
    pub(crate) fn absorb(&mut self, other: &Totals) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.simulated_ns += other.simulated_ns;
        self.issued += other.issued;
        self.committed += other.committed;
        self.changes.add(other.changes);
        self.changes_least = self.changes_least.into_iter().chain(other.changes_least).min();
        self.attempts += other.attempts;
        self.losses += other.losses;
        self.served_after.extend(&other.served_after);
        self.ordered += other.ordered;
        self.unordered += other.unordered;
        self.coverage.merge(&other.coverage);
    }

    /// A line of figures. `busy_ns`: time of all threads together.
    pub(crate) fn line(&mut self, busy_ns: u64) -> String {
        self.served_after.sort_unstable();
        let at = |percent: usize| {
            let last = self.served_after.len().saturating_sub(1);
            self.served_after.get(last * percent / 100).copied().unwrap_or(0)
        };
        let tenths = |value: u64| format!("{}.{}", value / 10, value % 10);
        let busy = busy_ns.max(1);
        let per_second = self.events * MS / (busy / 1000).max(1);
        let minutes = self.simulated_ns / 60;
        let hours_per_minute = minutes * 10 / 60 * 60 / (busy / 60).max(1);
        format!(
            "{} seeds, {} simulated s, {} events, {} ops ({} % answered, {} % of {} \
             changes, in every seed at least {} %), {} attempts, {} power losses\n\
             {per_second} events/s per core, {} simulated hours per CPU minute\n\
             a healed quorum served after (election timeouts) p50 {} p99 {} max {}\n\
             {} ops were put in order without their revisions, {} at once were too many",
            self.seeds,
            self.simulated_ns / SECOND,
            self.events,
            self.issued,
            self.committed * 100 / self.issued.max(1),
            self.changes.percent(),
            self.changes.due(),
            self.changes_least.unwrap_or(0),
            self.attempts,
            self.losses,
            tenths(hours_per_minute / 60),
            tenths(at(50)),
            tenths(at(99)),
            tenths(at(100)),
            self.ordered,
            self.unordered,
        )
    }
}

/// The flags that repeat a run.
pub(crate) fn flags(overrides: &Overrides) -> String {
    let mut text = String::new();
    if !overrides.without.is_empty() {
        let names = CLASSES.iter().filter(|(class, _)| overrides.without.contains(class));
        let names: Vec<&str> = names.map(|(_, name)| *name).collect();
        let _ = write!(text, " --without {}", names.join(","));
    }
    if let Some(nodes) = overrides.nodes {
        let _ = write!(text, " --nodes {nodes}");
    }
    if let Some(clients) = overrides.clients {
        let _ = write!(text, " --clients {clients}");
    }
    if let Some(horizon) = overrides.horizon_ns {
        let _ = write!(text, " --horizon-ms {}", horizon / MS);
    }
    if let Some(losses) = overrides.power_losses {
        let _ = write!(text, " --power-losses {losses}");
    }
    text
}

/// Prints a failure: it is run again, this time with its trace kept, and then made smaller.
pub(crate) fn print_failure(seed: u64, overrides: &Overrides, found: &Broken, smaller: bool) {
    tell!("FAILED seed={seed} invariant={}", found.invariant);
    tell!("{}", found.why);
    tell!("\nthe seed draws");
    tell!("{}", Options::draw(seed, overrides));
    let _ = take_lines();
    let again = run(seed, overrides, Tracing::Keep);
    tell!("\nthe last events: true time, who, what, details");
    for line in take_lines() {
        tell!("{line}");
    }
    match again {
        Err(again) if again.is_like(found) => {}
        Err(again) => tell!(
            "NOT REPEATABLE: the second run of this seed broke {} at {}, the first at {}",
            again.invariant,
            again.rule,
            found.rule
        ),
        Ok(_) => tell!("NOT REPEATABLE: the second run of this seed passed"),
    }
    tell!("\nrepeat it:  scripts/sim --seed {seed}{} --trace", flags(overrides));
    if smaller {
        let (small, found) = shrink(seed, overrides, found);
        tell!("smaller:    scripts/sim --seed {seed}{} --trace", flags(&small));
        tell!("            {}: {}", found.invariant, found.why.lines().next().unwrap_or(""));
        tell!(
            "            {}",
            Options::draw(seed, &small).to_string().replace('\n', "\n            ")
        );
    }
}

/// Prints every point, and how many were reached.
pub(crate) fn print_coverage(coverage: &Coverage) {
    for (point, text, hits) in coverage.rows() {
        tell!("{hits:>10}  {:<24}  {text}", format!("{point:?}"));
    }
    let missing = coverage.missing();
    let all = coverage.rows().count();
    tell!("{} of {all} sometimes-points reached", all - missing.len());
}
