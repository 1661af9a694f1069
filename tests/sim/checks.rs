//! What `cargo test` runs of the simulator.

use crate::cli::{Filter, refuses_what_makes_no_sense};
use crate::coverage::POINTS;
use crate::faults::first_plans;
use crate::options::{CLASSES, Class, Options, Overrides};
use crate::output::tell;
use crate::report::{print_coverage, print_failure};
use crate::run::{Report, run};
use crate::runner::{Outcome, cores, run_range, tells_a_run_that_misses_a_point};
use crate::trace::Tracing;
use crate::watchdog::names_who_does_not_end;
use raftd::limits::WorkingLimits;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;

/// Seeds of the short version.
const SEEDS: u64 = 600;
/// Seeds run twice.
const TWICE: u64 = 40;
/// Power losses over all seeds, and in each.
const POWER_LOSSES: u64 = 10_000;
const LOSSES_PER_SEED: u64 = 100;

type Check = fn() -> bool;

const CHECKS: [(&str, Check); 7] = [
    ("sim::flags_that_make_no_sense_are_refused", refuses_what_makes_no_sense),
    ("sim::a_run_over_enough_seeds_must_reach_every_point", tells_a_run_that_misses_a_point),
    ("sim::a_seed_that_does_not_end_is_named", names_who_does_not_end),
    ("sim::what_is_left_out_changes_no_plan_of_the_rest", left_out_changes_no_plan),
    ("sim::seeds_hold_every_invariant_and_reach_every_point", seeds_hold),
    ("sim::equal_seeds_give_equal_runs", equal_seeds_give_equal_runs),
    (
        "sim::ten_thousand_power_losses_lose_nothing_that_was_acknowledged",
        power_losses_lose_nothing,
    ),
];

/// Runs the checks that the filter takes, and says so as libtest does.
pub(crate) fn run_checks(filter: &Filter) -> ExitCode {
    let chosen: Vec<_> = CHECKS.iter().filter(|(name, _)| filter.takes(name)).collect();
    if filter.list {
        chosen.iter().for_each(|(name, _)| tell!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    tell!("\nrunning {} tests", chosen.len());
    let mut failed = 0;
    for (name, check) in &chosen {
        let passed = check();
        tell!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    tell!(
        "\ntest result: {verdict}. {} passed; {failed} failed; 0 ignored; {} filtered out\n",
        chosen.len() - failed,
        CHECKS.len() - chosen.len()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the failure of a range of seeds, if there is one, and else its figures.
fn judge(outcome: &mut Outcome, overrides: &Overrides) -> bool {
    if let Some((seed, broken)) = &outcome.failure {
        print_failure(*seed, overrides, broken, true);
        return false;
    }
    let busy = u64::try_from(outcome.busy.as_nanos()).unwrap_or(u64::MAX);
    tell!("{}", outcome.totals.line(busy));
    true
}

fn seeds_hold() -> bool {
    let overrides = Overrides::default();
    let mut outcome = run_range(1, SEEDS, None, cores(), &overrides, false, &|_, _| {});
    assert!(POINTS.len() >= 60, "the list of sometimes-points is the point");
    if !judge(&mut outcome, &overrides) {
        return false;
    }
    // The search that does not look at revisions has seen most of what there was.
    let (ordered, unordered) = (outcome.totals.ordered, outcome.totals.unordered);
    assert!(ordered > 2 * unordered, "{ordered} ops were ordered, {unordered} were not");
    let covered = outcome.totals.coverage.missing().is_empty();
    if !covered {
        print_coverage(&outcome.totals.coverage);
    }
    covered
}

/// A smaller failure is one of the same faults, less some, in a cluster of the same sizes.
fn left_out_changes_no_plan() -> bool {
    let holds = |seed: u64, class: Class| {
        let whole = Options::draw(seed, &Overrides::default());
        let without = Overrides { without: vec![class], ..Overrides::default() };
        let less = Options::draw(seed, &without);
        let mut all = first_plans(&whole);
        all.retain(|(planned, _)| *planned != class);
        let same_plans = first_plans(&less) == all;
        let (sizes, others) = (sizes_beside(class, whole), sizes_beside(class, less));
        if !same_plans {
            tell!("seed {seed} without {class:?} plans other faults");
        }
        if sizes != others {
            tell!("seed {seed} without {class:?} draws other sizes:\n{sizes}\nand\n{others}");
        }
        same_plans && sizes == others
    };
    (1..=SEEDS).all(|seed| CLASSES.iter().all(|(class, _)| holds(seed, *class)))
}

/// All that a seed draws but what lies in this kind of fault, as it is printed.
fn sizes_beside(class: Class, mut options: Options) -> String {
    options.classes.clear();
    let (network, clients) = (&mut options.network, &mut options.clients);
    match class {
        Class::Frames => (network.drop, network.duplicate, network.late) = (0, 0, 0),
        Class::Streams => (network.split, network.resend, network.reset) = (0, 0, 0),
        Class::SlowDisks => options.disk.hang = 0,
        // What is not in memory shows its damage; small windows have a short history.
        Class::Damage | Class::SmallWindows => {
            options.working = WorkingLimits::default();
            options.history_bytes_max = 0;
        }
        Class::Clocks => (options.clock_ppm, options.declared_ppm) = (0, 0),
        Class::Garbage => clients.garbage = 0,
        Class::Members => options.spares = 0,
        Class::Rights => {
            clients.rights = 0;
            // What guests put needs room.
            options.quota_bytes = options.quota_bytes.map(|_| 0);
        }
        Class::Partitions
        | Class::Crashes
        | Class::Pauses
        | Class::SlowNodes
        | Class::DiskErrors
        | Class::FullDisks
        | Class::Transfers
        | Class::Saves
        | Class::States => {}
    }
    options.to_string()
}

fn equal_seeds_give_equal_runs() -> bool {
    let overrides = Overrides::default();
    let hashes = Mutex::new(BTreeMap::new());
    let note = |seed: u64, report: &Report| {
        hashes.lock().expect("nobody panics here").insert(seed, (report.hash, report.events));
    };
    let mut outcome = run_range(1, TWICE, None, cores(), &overrides, false, &note);
    if !judge(&mut outcome, &overrides) {
        return false;
    }
    // The second time in the other order, each on whatever thread: nothing but the seed decides.
    let hashes = hashes.into_inner().expect("nobody panics here");
    let mut equal = true;
    for (seed, first) in hashes.iter().rev() {
        let second = run(*seed, &overrides, Tracing::Keep);
        let second = second.map(|report| (report.hash, report.events));
        if second.as_ref().ok() != Some(first) {
            tell!("seed {seed} ran as {first:x?} and as {second:x?}");
            equal = false;
        }
    }
    equal
}

fn power_losses_lose_nothing() -> bool {
    let overrides = Overrides { power_losses: Some(LOSSES_PER_SEED), ..Overrides::default() };
    let seeds = POWER_LOSSES / LOSSES_PER_SEED;
    let mut outcome = run_range(1, seeds, None, cores(), &overrides, false, &|_, _| {});
    if !judge(&mut outcome, &overrides) {
        return false;
    }
    let (losses, committed) = (outcome.totals.losses, outcome.totals.committed);
    tell!("{losses} power losses over {seeds} seeds, {committed} answered ops checked");
    losses >= POWER_LOSSES && committed > losses
}
