//! Seeds over threads. Each seed runs on one thread and knows nothing of the others.

use crate::cli::Asked;
use crate::coverage::{POINTS, Point};
use crate::invariants::Broken;
use crate::options::{Class, Options, Overrides};
use crate::output::tell;
use crate::report::{Totals, flags, print_coverage, print_failure};
use crate::run::{Report, run};
use crate::trace::Tracing;
use rustix::time::{ClockId, clock_gettime};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long this thread has worked.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanoseconds)
}

/// The real time.
#[expect(clippy::disallowed_methods, reason = "real time, for figures and --minutes alone")]
pub(crate) fn real_now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Sums, and the failure with the lowest seed.
pub(crate) struct Outcome {
    pub(crate) totals: Totals,
    pub(crate) failure: Option<(u64, Broken)>,
    pub(crate) busy: Duration,
    pub(crate) took: Duration,
}

/// Threads to use if nobody says.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs seeds until all are done, the time is up, or one fails.
pub(crate) fn run_range(
    first: u64,
    seeds: u64,
    limit: Option<Duration>,
    jobs: usize,
    overrides: &Overrides,
    keep_going: bool,
    each: &(impl Fn(u64, &Report) + Sync),
) -> Outcome {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let begun = real_now();
    let outcome = Mutex::new(Outcome {
        totals: Totals::default(),
        failure: None,
        busy: Duration::ZERO,
        took: Duration::ZERO,
    });
    let work = || {
        let started = cpu_time();
        let mut totals = Totals::default();
        loop {
            let late = limit.is_some_and(|limit| begun.elapsed() >= limit);
            let nth = next.fetch_add(1, Ordering::Relaxed);
            if nth >= seeds || late || stop.load(Ordering::Relaxed) {
                break;
            }
            let seed = first + nth;
            match run(seed, overrides, Tracing::Off) {
                Ok(report) => {
                    each(seed, &report);
                    totals.add(&report);
                }
                Err(broken) => {
                    stop.store(!keep_going, Ordering::Relaxed);
                    if keep_going {
                        let why = broken.why.lines().next().unwrap_or_default();
                        tell!("FAILED seed={seed} invariant={}: {why}", broken.invariant);
                    }
                    let mut outcome = outcome.lock().expect("nobody panics here");
                    let lower = outcome.failure.as_ref().is_none_or(|(other, _)| seed < *other);
                    if lower {
                        outcome.failure = Some((seed, broken));
                    }
                }
            }
        }
        let mut outcome = outcome.lock().expect("nobody panics here");
        outcome.totals.absorb(&totals);
        outcome.busy += cpu_time().saturating_sub(started);
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    let mut outcome = outcome.into_inner().expect("nobody panics here");
    outcome.took = begun.elapsed();
    outcome
}

/// `scripts/sim`.
pub(crate) fn run_seeds(asked: &Asked) -> ExitCode {
    if asked.options {
        tell!("{}", Options::draw(asked.first, &asked.overrides));
    }
    if asked.single {
        return run_one(asked);
    }
    let limit = asked.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let jobs = asked.jobs.unwrap_or_else(cores);
    let ignore = |_: u64, _: &Report| {};
    let mut outcome = run_range(
        asked.first,
        asked.seeds.expect("the command line was read"),
        limit,
        jobs,
        &asked.overrides,
        asked.keep_going,
        &ignore,
    );
    if let Some((seed, broken)) = &outcome.failure
        && !asked.keep_going
    {
        print_failure(*seed, &asked.overrides, broken, asked.shrink);
        tell!("after {} seeds without one", outcome.totals.seeds);
        return ExitCode::FAILURE;
    }
    let busy = u64::try_from(outcome.busy.as_nanos()).unwrap_or(u64::MAX);
    tell!("{}", outcome.totals.line(busy));
    if asked.coverage {
        print_coverage(&outcome.totals.coverage);
    }
    let seeds = outcome.totals.seeds;
    let took = outcome.took.as_secs_f64();
    tell!("{seeds} seeds passed in {took:.1} s on {jobs} threads");
    let gate = Gate::of(seeds, outcome.totals.coverage.missing(), &asked.overrides);
    match &gate {
        Gate::Reached => {}
        Gate::Open { why } if asked.coverage => tell!("not every point was reached: {why}"),
        Gate::Open { .. } => {}
        Gate::Missed(points) => {
            tell!("FAILED {} sometimes-points were not reached:", points.len());
            points.iter().for_each(|(point, text)| tell!("  {point:?}: {text}"));
        }
    }
    let covered = !matches!(gate, Gate::Missed(_));
    if covered && outcome.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Seeds of a run that must have reached every point. The rarest point is reached about once in
/// three hundred seeds: of a thousand runs over so many, one or two would miss it.
pub(crate) const ENOUGH_SEEDS: u64 = 2000;

/// Whether a run reached the points that it must.
enum Gate {
    Reached,
    /// It did not have to.
    Open {
        why: String,
    },
    Missed(Vec<(Point, &'static str)>),
}

impl Gate {
    fn of(seeds: u64, missing: Vec<(Point, &'static str)>, overrides: &Overrides) -> Gate {
        if missing.is_empty() {
            return Gate::Reached;
        }
        if !flags(overrides).is_empty() {
            return Gate::Open { why: "the flags make the seeds others".to_owned() };
        }
        if seeds < ENOUGH_SEEDS {
            return Gate::Open { why: format!("{seeds} seeds are few, {ENOUGH_SEEDS} enough") };
        }
        Gate::Missed(missing)
    }
}

/// Enough seeds must reach every point, unless flags make them others.
pub(crate) fn tells_a_run_that_misses_a_point() -> bool {
    let missing = || vec![POINTS[0]];
    let as_drawn = Overrides::default();
    assert!(matches!(Gate::of(ENOUGH_SEEDS, Vec::new(), &as_drawn), Gate::Reached));
    assert!(matches!(Gate::of(ENOUGH_SEEDS, missing(), &as_drawn), Gate::Missed(_)));
    assert!(matches!(Gate::of(ENOUGH_SEEDS - 1, missing(), &as_drawn), Gate::Open { .. }));
    for others in [
        Overrides { without: vec![Class::Clocks], ..Overrides::default() },
        Overrides { nodes: Some(3), ..Overrides::default() },
        Overrides { power_losses: Some(1), ..Overrides::default() },
    ] {
        assert!(matches!(Gate::of(ENOUGH_SEEDS, missing(), &others), Gate::Open { .. }));
    }
    true
}

fn run_one(asked: &Asked) -> ExitCode {
    let tracing = if asked.trace { Tracing::Print } else { Tracing::Off };
    let started = cpu_time();
    match run(asked.first, &asked.overrides, tracing) {
        Ok(report) => {
            let busy =
                u64::try_from(cpu_time().saturating_sub(started).as_nanos()).unwrap_or(u64::MAX);
            let mut totals = Totals::default();
            totals.add(&report);
            tell!("{}", totals.line(busy));
            if asked.coverage {
                print_coverage(&totals.coverage);
            }
            tell!("seed {} passed, trace hash {:016x}", asked.first, report.hash);
            ExitCode::SUCCESS
        }
        Err(broken) if asked.trace => {
            tell!("FAILED seed={} invariant={}\n{}", asked.first, broken.invariant, broken.why);
            ExitCode::FAILURE
        }
        Err(broken) => {
            print_failure(asked.first, &asked.overrides, &broken, asked.shrink);
            ExitCode::FAILURE
        }
    }
}
