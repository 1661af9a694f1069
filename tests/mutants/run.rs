//! Planting one bug after the other, and looking who notices.

use super::list::Mutant;
use super::score::{Judged, Verdict};
use super::suite::{End, Suite, build, now, run};
use super::tree::Tree;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Seeds that are simulated without a bug, to know how fast that is.
const BASELINE_SEEDS: u64 = 60;
/// Seeds that come before all directed tests: most bugs are noticed within.
const FIRST_SEEDS: u64 = 300;
/// A program that takes so many times as long as without a bug hangs.
const PATIENCE: u32 = 8;
/// But nothing hangs before this.
const LIMIT_MIN: Duration = Duration::from_secs(90);

/// What is asked of a runner.
pub(crate) struct Asked {
    pub(crate) seeds: u64,
    /// Seeds, or tests, at a time.
    pub(crate) jobs: u64,
    pub(crate) sim_only: bool,
}

/// A step on the way to a verdict.
#[derive(Debug)]
enum Stage {
    /// The directed tests with this in their name.
    Named(String),
    /// The seeds behind `after`, up to `last`.
    Seeds {
        after: u64,
        last: u64,
    },
    AllTests,
}

/// The steps for a bug, the likeliest to notice it first.
fn stages(caught_by: &str, asked: &Asked) -> Vec<Stage> {
    let first = FIRST_SEEDS.min(asked.seeds);
    let mut stages = vec![
        Stage::Seeds { after: 0, last: first },
        Stage::Seeds { after: first, last: asked.seeds },
    ];
    if !asked.sim_only {
        stages.insert(1, Stage::AllTests);
        let named = caught_by.split([' ', ',', ';', '`']).find(|word| word.contains("::"));
        if let Some(name) = named {
            stages.insert(0, Stage::Named(name.to_owned()));
        }
    }
    stages
}

pub(crate) struct Runner {
    tree: Tree,
    asked: Asked,
    /// The simulator without a bug: a seed that fails there proves nothing.
    innocent: PathBuf,
    /// How long a seed may take, on average.
    seed_limit: Duration,
    tests_limit: Duration,
}

impl Runner {
    /// Makes the copy, and sees to it that it passes without a bug.
    pub(crate) fn start(package: &Path, asked: Asked) -> Result<Runner, String> {
        let tree = Tree::copy(package).map_err(|why| format!("cannot copy the package: {why}"))?;
        let simulator = simulator(0, BASELINE_SEEDS, asked.jobs);
        let alone = baseline(&tree, &simulator)?;
        println!("without a bug: {BASELINE_SEEDS} seeds in {:.1} s", alone.as_secs_f64());
        let innocent = package.join("target/mutants/innocent");
        let program = tree.root().join(build(tree.root(), &simulator)?);
        fs::copy(program, &innocent).map_err(|why| format!("{innocent:?}: {why}"))?;
        let baseline_seeds = u32::try_from(BASELINE_SEEDS).unwrap_or(u32::MAX);
        let seed_limit = alone.saturating_mul(PATIENCE) / baseline_seeds;
        let mut tests_limit = LIMIT_MIN;
        if !asked.sim_only {
            for suite in [directed("", asked.jobs), units("", asked.jobs)] {
                let alone = baseline(&tree, &suite)?;
                println!("without a bug: {:?} in {:.1} s", suite.build, alone.as_secs_f64());
                tests_limit = tests_limit.max(alone.saturating_mul(PATIENCE));
            }
        }
        Ok(Runner { tree, asked, innocent, seed_limit, tests_limit })
    }

    /// Plants a bug, looks who notices, and takes it out again.
    pub(crate) fn judge(&self, mutant: &Mutant) -> Result<Judged, String> {
        let start = now();
        let sound = self.tree.plant(mutant)?;
        let verdict = self.notice(mutant);
        let restored = self.tree.restore(sound);
        restored.map_err(|why| format!("cannot take it out: {why}"))?;
        Ok(Judged { verdict: verdict?, took: start.elapsed() })
    }

    fn notice(&self, mutant: &Mutant) -> Result<Verdict, String> {
        for stage in stages(&mutant.caught_by, &self.asked) {
            let verdict = match stage {
                Stage::Named(name) => self.test(&name)?,
                Stage::AllTests => self.test("")?,
                Stage::Seeds { after, last } => self.simulate(after, last)?,
            };
            if let Some(verdict) = verdict {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Survived { seeds: self.asked.seeds })
    }

    /// Simulates until a seed fails that passes without the bug.
    fn simulate(&self, mut after: u64, last: u64) -> Result<Option<Verdict>, String> {
        while after < last {
            let suite = simulator(after, last - after, self.asked.jobs);
            let seeds = u32::try_from(last - after).unwrap_or(u32::MAX);
            let limit = self.seed_limit.saturating_mul(seeds).max(LIMIT_MIN);
            let said = match self.attempt(&suite, limit)? {
                End::Passed => return Ok(None),
                End::Failed { said } => said,
                End::Hung => return Ok(Some(Verdict::Hung { what: "the simulator".to_owned() })),
            };
            let Failure { seed, what } = Failure::read(&said)?;
            if self.is_innocent(seed)? {
                return Ok(Some(Verdict::Seed { seed, what }));
            }
            println!("note: seed {seed} fails without any bug planted");
            after = seed;
        }
        Ok(None)
    }

    /// Whether a seed passes without the bug.
    fn is_innocent(&self, seed: u64) -> Result<bool, String> {
        let alone = simulator(seed - 1, 1, 1);
        let (end, _) = run(self.tree.root(), &self.innocent, &alone, LIMIT_MIN)?;
        Ok(matches!(end, End::Passed))
    }

    /// Runs the directed tests whose names hold `filter`. A test that fails must fail twice: some
    /// of them have threads, and a busy machine is no bug.
    fn test(&self, filter: &str) -> Result<Option<Verdict>, String> {
        let in_sources = filter.contains("::tests");
        let mut suites = Vec::new();
        if !in_sources {
            suites.push(directed(filter, self.asked.jobs));
        }
        if in_sources || filter.is_empty() {
            suites.push(units(filter, self.asked.jobs));
        }
        for mut suite in suites {
            let said = match self.attempt(&suite, self.tests_limit)? {
                End::Passed => continue,
                End::Failed { said } => said,
                End::Hung => return Ok(Some(Verdict::Hung { what: "a directed test".to_owned() })),
            };
            let Some(failed) = failed_test(&said) else {
                let what = "a test program that ended early".to_owned();
                return Ok(Some(Verdict::Test { what }));
            };
            suite.arguments = vec!["--exact".to_owned(), failed.clone()];
            if !matches!(self.attempt(&suite, self.tests_limit)?, End::Passed) {
                return Ok(Some(Verdict::Test { what: failed }));
            }
            println!("note: {failed} failed once and passed then");
        }
        Ok(None)
    }

    fn attempt(&self, suite: &Suite, limit: Duration) -> Result<End, String> {
        let program = build(self.tree.root(), suite).map_err(|said| {
            let errors = said.lines().skip_while(|line| !line.starts_with("error"));
            let first: Vec<&str> = errors.take(12).collect();
            format!("it does not compile:\n{}", first.join("\n"))
        })?;
        Ok(run(self.tree.root(), &program, suite, limit)?.0)
    }
}

/// How long a suite takes without a bug. It must pass.
fn baseline(tree: &Tree, suite: &Suite) -> Result<Duration, String> {
    let program = build(tree.root(), suite)?;
    match run(tree.root(), &program, suite, Duration::from_secs(60 * 60))? {
        (End::Passed, took) => Ok(took),
        (End::Failed { said }, _) => {
            Err(format!("the package fails without any bug planted:\n{said}"))
        }
        (End::Hung, _) => Err("the package hangs without any bug planted".to_owned()),
    }
}

fn simulator(after: u64, seeds: u64, jobs: u64) -> Suite {
    let numbers = [("--first", after + 1), ("--seeds", seeds), ("--jobs", jobs)];
    let words = numbers.into_iter().flat_map(|(flag, it)| [flag.to_owned(), it.to_string()]);
    Suite {
        build: &["--test", "sim"],
        arguments: words.chain(["--no-shrink".to_owned()]).collect(),
    }
}

/// The tests that stand in the sources.
fn units(filter: &str, jobs: u64) -> Suite {
    Suite { build: &["--lib"], arguments: filtered(filter, jobs) }
}

/// The directed tests: those that `tree` leaves in.
fn directed(filter: &str, jobs: u64) -> Suite {
    Suite { build: &["--test", "raftd"], arguments: filtered(filter, jobs) }
}

fn filtered(filter: &str, jobs: u64) -> Vec<String> {
    let threads = ["--test-threads".to_owned(), jobs.to_string()];
    let filter = Some(filter).filter(|filter| !filter.is_empty()).map(str::to_owned);
    threads.into_iter().chain(filter).collect()
}

/// The seed that failed, and which invariant it broke.
struct Failure {
    seed: u64,
    what: String,
}

impl Failure {
    fn read(said: &str) -> Result<Failure, String> {
        let unread = || format!("the simulator failed without a report:\n{said}");
        let mut lines = said.lines().skip_while(|line| !line.starts_with("FAILED seed="));
        let line = lines.next().ok_or_else(unread)?;
        let (seed, invariant) = line.split_once(" invariant=").ok_or_else(unread)?;
        let seed = seed.trim_start_matches("FAILED seed=").parse().map_err(|_| unread())?;
        let why: String = lines.next().unwrap_or_default().chars().take(90).collect();
        Ok(Failure { seed, what: format!("{} ({})", invariant.trim(), why.trim()) })
    }
}

/// The first test that failed.
fn failed_test(said: &str) -> Option<String> {
    said.lines()
        .find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned))
}
