//! Planting one bug after the other, and looking who notices.

use super::list::Mutant;
use super::score::{Judged, Verdict};
use super::suite::{End, Suite, build, now, run};
use super::tree::Tree;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Seeds that are simulated without a bug, to know how fast that is.
const BASELINE_SEEDS: u64 = 20;
/// Seeds that come before all tests: the simulator is built in a tenth of the time of the tests.
const GLANCE_SEEDS: u64 = 30;
/// Seeds that come before all tests but the named one: most bugs are noticed within.
const FIRST_SEEDS: u64 = 300;
/// A program that takes so many times as long as without a bug hangs.
const PATIENCE: u32 = 8;
/// But nothing hangs before this.
const LIMIT_MIN: Duration = Duration::from_secs(90);
/// Tests hang then: a hundred seconds do for all of them.
const TESTS_LIMIT: Duration = Duration::from_secs(600);
/// The tests that take nine tenths of the time of all.
const SLOW: [&str; 4] = ["raft::chaos::", "wal::attack", "wal::power_loss::", "kv::model::"];

/// What is asked of a runner.
pub(crate) struct Asked {
    pub(crate) seeds: u64,
    /// Seeds, or tests, at a time.
    pub(crate) jobs: u64,
    pub(crate) sim_only: bool,
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
enum Filter {
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
    let word = caught_by.split([' ', ',', ';', '`']).find(|word| word.contains("::"));
    let named = word.map(|name| Stage::Tests(Filter::Named(name.to_owned())));
    let after = if named.is_some() { 0 } else { glance };
    let rest = [
        seeds(after, first),
        Stage::Tests(Filter::Quick),
        seeds(first, asked.seeds),
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
        Verdict::Test { .. } | Verdict::Hung { .. } | Verdict::Survived { .. } => None,
    }
}

pub(crate) struct Runner {
    tree: Tree,
    asked: Asked,
    /// Programs without a bug: what fails in them as well proves nothing.
    innocent: PathBuf,
    /// Which of them are there.
    kept: RefCell<BTreeSet<&'static str>>,
    /// How long a seed may take, on average.
    seed_limit: Duration,
}

impl Runner {
    /// Makes the copy, and the programs without a bug.
    pub(crate) fn start(package: &Path, asked: Asked) -> Result<Runner, String> {
        let tree = Tree::copy(package).map_err(|why| format!("cannot copy the package: {why}"))?;
        let innocent = package.join("target/mutants/innocent");
        fs::create_dir_all(&innocent).map_err(|why| format!("{innocent:?}: {why}"))?;
        let seeds = simulator(0, BASELINE_SEEDS, asked.jobs);
        let (kept, seed_limit) = (RefCell::default(), Duration::ZERO);
        let mut runner = Runner { tree, asked, innocent, kept, seed_limit };
        for suite in [&seeds, &directed(&Filter::Slow, 1), &units(&Filter::Slow, 1)] {
            runner.keep_innocent(suite)?;
        }
        let (end, alone) = runner.run_innocent(&seeds)?;
        if let End::Failed { said } = end {
            return Err(format!("the package fails without any bug planted:\n{said}"));
        }
        println!("without a bug: {BASELINE_SEEDS} seeds in {:.1} s", alone.as_secs_f64());
        let seeds = u32::try_from(BASELINE_SEEDS).unwrap_or(u32::MAX);
        runner.seed_limit = alone.saturating_mul(PATIENCE) / seeds;
        Ok(runner)
    }

    fn run_innocent(&self, suite: &Suite) -> Result<(End, Duration), String> {
        run(self.tree.root(), &self.innocent.join(suite.name()), suite, TESTS_LIMIT)
    }

    /// The program of directed tests that stand alone, without a bug. Before one is planted.
    fn keep_innocent(&self, suite: &Suite) -> Result<(), String> {
        let kept = self.innocent.join(suite.name());
        if self.kept.borrow_mut().insert(suite.name()) {
            let program = self.tree.root().join(build(self.tree.root(), suite)?);
            fs::copy(program, &kept).map_err(|why| format!("{kept:?}: {why}"))?;
        }
        Ok(())
    }

    /// Plants a bug, looks who notices, and takes it out again. `earlier` is what became of it in
    /// an earlier run.
    pub(crate) fn judge(
        &self,
        mutant: &Mutant,
        earlier: Option<&Verdict>,
    ) -> Result<Judged, String> {
        let start = now();
        for stage in self.stages(mutant, earlier) {
            if let Stage::Tests(filter @ Filter::Named(_)) = stage {
                self.keep_innocent(&directed(&filter, 1))?;
            }
        }
        let sound = self.tree.plant(mutant)?;
        let verdict = self.notice(mutant, earlier);
        let restored = self.tree.restore(sound);
        restored.map_err(|why| format!("cannot take it out: {why}"))?;
        Ok(Judged { verdict: verdict?, took: start.elapsed() })
    }

    fn stages(
        &self,
        mutant: &Mutant,
        earlier: Option<&Verdict>,
    ) -> impl Iterator<Item = Stage> + use<> {
        let first = earlier.and_then(again).filter(|_| !self.asked.sim_only);
        first.into_iter().chain(stages(&mutant.caught_by, &self.asked))
    }

    fn notice(&self, mutant: &Mutant, earlier: Option<&Verdict>) -> Result<Verdict, String> {
        for stage in self.stages(mutant, earlier) {
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
            // Alone, as it is said to be repeated.
            let (alone, _) = self.run_innocent(&simulator(seed - 1, 1, 1))?;
            if matches!(alone, End::Passed) {
                return Ok(Some(Verdict::Seed { seed, what }));
            }
            println!("note: seed {seed} fails without any bug planted");
            after = seed;
        }
        Ok(None)
    }

    /// Runs directed tests. One that fails must fail twice, and pass without the bug: some of them
    /// have threads, and a busy machine is no bug.
    fn test(&self, filter: &Filter) -> Result<Option<Verdict>, String> {
        let jobs = self.asked.jobs;
        let suites = match filter {
            Filter::Named(name) if name.contains("::tests") => vec![units(filter, jobs)],
            Filter::Named(_) | Filter::Slow => vec![directed(filter, jobs)],
            Filter::Quick => vec![directed(filter, jobs), units(filter, jobs)],
        };
        for mut suite in suites {
            let said = match self.attempt(&suite, TESTS_LIMIT)? {
                End::Passed => continue,
                End::Failed { said } => said,
                End::Hung => return Ok(Some(Verdict::Hung { what: "a directed test".to_owned() })),
            };
            let Some(failed) = failed_test(&said) else {
                let what = "a test program that ended early".to_owned();
                return Ok(Some(Verdict::Test { what }));
            };
            suite.arguments = vec!["--exact".to_owned(), failed.clone()];
            let again = !matches!(self.attempt(&suite, TESTS_LIMIT)?, End::Passed);
            if again && matches!(self.run_innocent(&suite)?.0, End::Passed) {
                return Ok(Some(Verdict::Test { what: failed }));
            }
            println!("note: {failed} failed, but not always, or without a bug as well");
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

fn simulator(after: u64, seeds: u64, jobs: u64) -> Suite {
    let numbers = [("--first", after + 1), ("--seeds", seeds), ("--jobs", jobs)];
    let words = numbers.into_iter().flat_map(|(flag, it)| [flag.to_owned(), it.to_string()]);
    Suite {
        build: &["--test", "sim"],
        arguments: words.chain(["--no-shrink".to_owned()]).collect(),
    }
}

/// The tests that stand in the sources.
fn units(filter: &Filter, jobs: u64) -> Suite {
    Suite { build: &["--lib"], arguments: filtered(filter, jobs) }
}

/// The directed tests: those that `tree` leaves in, or only those beside the one that is named.
fn directed(filter: &Filter, jobs: u64) -> Suite {
    let module = match filter {
        Filter::Named(name) => name.split("::").next().unwrap_or_default(),
        Filter::Quick | Filter::Slow => "",
    };
    let build: &'static [&'static str] = match module {
        "kv" => &["--test", "alone_kv"],
        "raft" => &["--test", "alone_raft"],
        "wal" => &["--test", "alone_wal"],
        "wire" => &["--test", "alone_wire"],
        _ => &["--test", "raftd"],
    };
    Suite { build, arguments: filtered(filter, jobs) }
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
