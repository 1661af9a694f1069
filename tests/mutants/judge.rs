//! Who notices a bug. Whatever fails with a bug must pass without it, or it proves nothing: a
//! program that ends early or hangs as much as a seed or a test.

use super::list::{CLUSTERS, named_test};
use super::score::Verdict;
use super::suite::{End, Suite};
use std::process::ExitStatus;
use std::time::Duration;

/// Seeds that come before all tests: the simulator is built in a tenth of the time of the tests.
const GLANCE_SEEDS: u64 = 30;
/// Seeds that come before all tests but the named one: most bugs are noticed within.
const FIRST_SEEDS: u64 = 300;
/// Seeds of one run that the simulator wants to reach every sometimes-point, see `ENOUGH_SEEDS`
/// there. Points are counted for a run: in stages, none had enough.
pub(crate) const SEEDS_FOR_POINTS: u64 = 2000;
/// Nothing hangs before this.
pub(crate) const LIMIT_MIN: Duration = Duration::from_secs(90);
/// Tests hang then: a hundred seconds do for all of them.
pub(crate) const TESTS_LIMIT: Duration = Duration::from_secs(600);
/// Seconds that a seed may take; the simulator itself names one that takes longer.
const SEED_SECONDS: u64 = 60;
/// The tests that take nine tenths of the time of all.
const SLOW: [&str; 4] = ["raft::chaos::", "wal::attack", "wal::power_loss::", "kv::model::"];
/// The simulator's exit status without a seed that failed: a sometimes-point was missed.
const MISSED: i32 = 1;
/// The program of the tests of clusters.
pub(crate) const CLUSTERED: &str = "clustered";
/// Tests that are looked at of those that fail at once.
const FAILED_TESTS_MAX: usize = 8;

/// What is asked of a runner.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) seeds: u64,
    /// Seeds, or tests, at a time.
    pub(crate) jobs: u64,
    pub(crate) sim_only: bool,
}

/// The programs, with the bug that is judged and without it.
pub(crate) trait Programs {
    fn with_bug(&self, suite: &Suite, limit: Duration) -> Result<End, String>;
    fn without(&self, suite: &Suite, limit: Duration) -> Result<End, String>;
    /// What is said beside the verdict.
    fn note(&self, words: String);
}

/// Judges one bug.
pub(crate) struct Judge<'a, P> {
    pub(crate) programs: &'a P,
    pub(crate) asked: &'a Asked,
    /// How long a seed may take, on average.
    pub(crate) seed_limit: Duration,
}

/// A step on the way to a verdict.
enum Stage {
    /// The directed tests that fit.
    Tests(Filter),
    /// The seeds behind `after`, up to `last`.
    Seeds { after: u64, last: u64 },
}

/// Which tests.
#[derive(Clone)]
pub(crate) enum Filter {
    /// With this in their names.
    Named(String),
    Quick,
    Slow,
}

/// The steps for a bug, the likeliest to notice it first.
fn stages(caught_by: &str, asked: &Asked) -> Vec<Stage> {
    let glance = GLANCE_SEEDS.min(asked.seeds);
    let first = FIRST_SEEDS.min(asked.seeds);
    let seeds = |after, last| Stage::Seeds { after, last };
    if asked.sim_only {
        return vec![seeds(0, asked.seeds)];
    }
    let named = named_test(caught_by).map(|name| Stage::Tests(Filter::Named(name.to_owned())));
    let after = if named.is_some() { 0 } else { glance };
    // Where there are enough, those that came before once more: a state that is reached no more is
    // then missed as in a run of the simulator alone. Only survivors come here.
    let tried = if asked.seeds < SEEDS_FOR_POINTS { first } else { 0 };
    let rest = [
        seeds(after, first),
        Stage::Tests(Filter::Quick),
        seeds(tried, asked.seeds),
        Stage::Tests(Filter::Slow),
    ];
    [named.unwrap_or(seeds(0, glance))].into_iter().chain(rest).collect()
}

/// Who noticed the bug once is asked again.
fn again(verdict: &Verdict) -> Option<Stage> {
    match verdict {
        Verdict::Seed { seed, .. } => Some(Stage::Seeds { after: seed - 1, last: *seed }),
        Verdict::Test { what } if what.contains("::") => {
            Some(Stage::Tests(Filter::Named(what.clone())))
        }
        Verdict::Test { .. }
        | Verdict::Hung { .. }
        | Verdict::Died { .. }
        | Verdict::Survived { .. } => None,
    }
}

impl<P: Programs> Judge<'_, P> {
    /// Looks who notices, the likeliest first. `earlier` is what became of the bug in an earlier
    /// run.
    pub(crate) fn notice(
        &self,
        caught_by: &str,
        earlier: Option<&Verdict>,
    ) -> Result<Verdict, String> {
        let first = earlier.and_then(again).filter(|_| !self.asked.sim_only);
        for stage in first.into_iter().chain(stages(caught_by, self.asked)) {
            let verdict = match stage {
                Stage::Tests(filter) => self.test(&filter)?,
                Stage::Seeds { after, last } => self.simulate(after, last)?,
            };
            if let Some(verdict) = verdict {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Survived { seeds: self.asked.seeds })
    }

    /// What becomes of a program with the bug. It must hang twice: a machine that stands still for
    /// a while is no bug.
    fn with_bug(&self, suite: &Suite, limit: Duration) -> Result<End, String> {
        match self.programs.with_bug(suite, limit)? {
            End::Hung => self.programs.with_bug(suite, limit),
            ended @ (End::Passed | End::Failed { .. }) => Ok(ended),
        }
    }

    fn passes_without(&self, suite: &Suite, limit: Duration) -> Result<bool, String> {
        Ok(matches!(self.programs.without(suite, limit)?, End::Passed))
    }

    /// Simulates until a seed fails that passes without the bug.
    fn simulate(&self, mut after: u64, last: u64) -> Result<Option<Verdict>, String> {
        while after < last {
            let suite = simulator(after, last - after, self.asked.jobs);
            let limit = self.limit_of(last - after);
            let (seed, what) = match self.with_bug(&suite, limit)? {
                End::Passed => return Ok(None),
                End::Hung => {
                    let what = "the simulator".to_owned();
                    let proves = self.passes_without(&suite, limit)?;
                    return Ok(proves.then_some(Verdict::Hung { what }));
                }
                End::Failed { said, how } => match Failure::read(&said) {
                    Some(Failure { seed, what }) => (seed, what),
                    None => {
                        let what = early("the simulator", &said, how);
                        match self.seed_that_ends_it(after, last, how)? {
                            Some(seed) => (seed, what),
                            None => {
                                let proves = self.passes_without(&suite, limit)?;
                                return Ok(proves.then_some(Verdict::Died { what }));
                            }
                        }
                    }
                },
            };
            // Alone, as it is said to be repeated.
            if self.passes_without(&simulator(seed - 1, 1, 1), TESTS_LIMIT)? {
                return Ok(Some(Verdict::Seed { seed, what }));
            }
            let note = format!("note: seed {seed} fails without any bug planted");
            self.programs.note(note);
            after = seed.max(after + 1);
        }
        Ok(None)
    }

    fn limit_of(&self, seeds: u64) -> Duration {
        let seeds = u32::try_from(seeds).unwrap_or(u32::MAX);
        self.seed_limit.saturating_mul(seeds).max(LIMIT_MIN)
    }

    /// A simulator that ended without a report has named no seed. Halves lead to one, unless it
    /// takes several: as for memory, or for a state that none of enough seeds was in.
    fn seed_that_ends_it(
        &self,
        mut after: u64,
        mut last: u64,
        how: ExitStatus,
    ) -> Result<Option<u64>, String> {
        if how.code() == Some(MISSED) {
            return Ok(None);
        }
        while last - after > 1 {
            let middle = after + (last - after) / 2;
            let half = simulator(after, middle - after, self.asked.jobs);
            match self.programs.with_bug(&half, self.limit_of(middle - after))? {
                End::Passed => after = middle,
                End::Failed { .. } | End::Hung => last = middle,
            }
        }
        let alone = self.programs.with_bug(&simulator(after, 1, 1), TESTS_LIMIT)?;
        Ok((!matches!(alone, End::Passed)).then_some(last))
    }

    /// Runs directed tests. One that fails must fail twice, and pass without the bug: some of them
    /// have threads, and a busy machine is no bug.
    fn test(&self, filter: &Filter) -> Result<Option<Verdict>, String> {
        let (suites, limit) = tests_of(filter, self.asked.jobs);
        for suite in suites {
            let (said, how) = match self.with_bug(&suite, limit)? {
                End::Passed => continue,
                End::Failed { said, how } => (said, how),
                End::Hung => {
                    if self.passes_without(&suite, limit)? {
                        let what = "a directed test".to_owned();
                        return Ok(Some(Verdict::Hung { what }));
                    }
                    let note = "note: directed tests hang without a bug as well";
                    self.programs.note(note.to_owned());
                    continue;
                }
            };
            let failed = failed_tests(&said);
            for name in failed.iter().take(FAILED_TESTS_MAX) {
                let arguments = vec!["--exact".to_owned(), name.clone()];
                let alone = Suite { arguments, ..suite.clone() };
                if self.proves(&alone, limit)? {
                    return Ok(Some(Verdict::Test { what: name.clone() }));
                }
                let note = format!("note: {name} failed, but not always, or without a bug as well");
                self.programs.note(note);
            }
            // By a signal, it ended before all tests had.
            let ended_early = failed.is_empty() || how.code().is_none();
            if ended_early && self.proves(&suite, limit)? {
                let what = early("a test program", &said, how);
                return Ok(Some(Verdict::Died { what }));
            }
        }
        Ok(None)
    }

    /// Whether what failed once fails again, and passes without the bug.
    fn proves(&self, suite: &Suite, limit: Duration) -> Result<bool, String> {
        let again = self.programs.with_bug(suite, limit)?;
        Ok(!matches!(again, End::Passed) && self.passes_without(suite, limit)?)
    }
}

/// Words for a program that ended without a report: how, and its last line.
fn early(program: &str, said: &str, how: ExitStatus) -> String {
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let last: String = last.trim().chars().take(90).collect();
    format!("{program} ended early ({how}): {last}")
}

/// The programs that have these tests, and how long they may take.
fn tests_of(filter: &Filter, jobs: u64) -> (Vec<Suite>, Duration) {
    match filter {
        Filter::Named(name) if name.contains("::tests") => (vec![units(filter, jobs)], LIMIT_MIN),
        Filter::Named(name) if name.starts_with("costs::") => {
            (vec![costs(filter, jobs)], LIMIT_MIN)
        }
        Filter::Named(name) if name.starts_with(CLUSTERS) => (vec![clusters(filter)], TESTS_LIMIT),
        Filter::Named(_) => (vec![directed(filter, jobs)], LIMIT_MIN),
        Filter::Slow => (vec![directed(filter, jobs)], TESTS_LIMIT),
        Filter::Quick => (vec![directed(filter, jobs), units(filter, jobs)], TESTS_LIMIT),
    }
}

pub(crate) fn simulator(after: u64, seeds: u64, jobs: u64) -> Suite {
    let numbers = [
        ("--first", after + 1),
        ("--seeds", seeds),
        ("--jobs", jobs),
        ("--seed-seconds", SEED_SECONDS),
    ];
    let words = numbers.into_iter().flat_map(|(flag, it)| [flag.to_owned(), it.to_string()]);
    Suite {
        name: "sim",
        build: &["--test", "sim"],
        arguments: words.chain(["--no-shrink".to_owned()]).collect(),
        planted: 0,
    }
}

/// The tests that stand in the sources.
pub(crate) fn units(filter: &Filter, jobs: u64) -> Suite {
    suite("lib", &["--lib"], filtered(filter, jobs))
}

/// The directed tests: those that `tree` leaves in.
pub(crate) fn directed(filter: &Filter, jobs: u64) -> Suite {
    suite("raftd", &["--test", "raftd"], filtered(filter, jobs))
}

/// What operations cost: for bugs that only make them dearer.
pub(crate) fn costs(filter: &Filter, jobs: u64) -> Suite {
    suite("costs", &["--test", "costs"], filtered(filter, jobs))
}

/// Clusters of real processes, one at a time: each has several.
pub(crate) fn clusters(filter: &Filter) -> Suite {
    suite(CLUSTERED, &["--features", "ctl", "--test", "raftd"], filtered(filter, 1))
}

fn suite(name: &'static str, build: &'static [&'static str], arguments: Vec<String>) -> Suite {
    Suite { name, build, arguments, planted: 0 }
}

fn filtered(filter: &Filter, jobs: u64) -> Vec<String> {
    let threads = ["--test-threads".to_owned(), jobs.to_string()];
    let not_slow = SLOW.into_iter().flat_map(|name| ["--skip", name]);
    let words: Vec<&str> = match filter {
        Filter::Named(name) if SLOW.iter().any(|slow| name.starts_with(slow)) => vec![name],
        Filter::Named(name) => not_slow.chain([name.as_str()]).collect(),
        Filter::Quick => not_slow.collect(),
        Filter::Slow => SLOW.to_vec(),
    };
    threads.into_iter().chain(words.into_iter().map(str::to_owned)).collect()
}

/// The seed that failed, and which invariant it broke.
struct Failure {
    seed: u64,
    what: String,
}

impl Failure {
    /// `None` if the simulator ended without a report.
    fn read(said: &str) -> Option<Failure> {
        let mut lines = said.lines().skip_while(|line| !line.starts_with("FAILED seed="));
        let (seed, invariant) = lines.next()?.split_once(" invariant=")?;
        let seed = seed.trim_start_matches("FAILED seed=").parse().ok().filter(|seed| *seed > 0)?;
        let why: String = lines.next().unwrap_or_default().chars().take(90).collect();
        Some(Failure { seed, what: format!("{} ({})", invariant.trim(), why.trim()) })
    }
}

/// The tests that failed, in the order in which they did.
fn failed_tests(said: &str) -> Vec<String> {
    let failed = |line: &str| {
        let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
        // One that should have panicked says so behind its name.
        Some(name.split(" - ").next().unwrap_or(name).to_owned())
    };
    said.lines().filter_map(failed).collect()
}
