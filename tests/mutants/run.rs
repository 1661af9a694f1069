//! Planting one bug after the other, and keeping score.

use super::list::Mutant;
use super::suite::{End, Suite, build, now, run};
use super::tree::Tree;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Seeds that are simulated without a bug, to know how fast that is.
const BASELINE_SEEDS: u64 = 60;
/// A program that takes so many times as long as without a bug hangs.
const PATIENCE: u32 = 8;
/// But nothing hangs before this.
const LIMIT_MIN: Duration = Duration::from_secs(90);

/// What noticed a bug.
pub(crate) enum Verdict {
    /// A seed failed, and which invariant.
    Simulator {
        what: String,
        seed: u64,
        took: Duration,
    },
    /// No seed failed, but a test did.
    Test {
        what: String,
        took: Duration,
    },
    /// Something ran far longer than without the bug.
    Hung {
        what: String,
        took: Duration,
    },
    Survived {
        took: Duration,
    },
}

pub(crate) struct Runner {
    tree: Tree,
    seeds: u64,
    jobs: u64,
    /// The simulator without a bug: a seed that fails there proves nothing.
    innocent: PathBuf,
    /// How long all seeds may take.
    limit: Duration,
    /// The directed tests, each with its limit.
    tests: Vec<(Suite, Duration)>,
}

impl Runner {
    /// Makes the copy, and sees to it that it passes without a bug.
    pub(crate) fn start(
        package: &Path,
        seeds: u64,
        jobs: u64,
        sim_only: bool,
    ) -> Result<Runner, String> {
        let tree = Tree::copy(package).map_err(|why| format!("cannot copy the package: {why}"))?;
        let limit = |alone: Duration| alone.saturating_mul(PATIENCE).max(LIMIT_MIN);
        let seeds_alone = BASELINE_SEEDS.min(seeds);
        let simulator = simulator(1, seeds_alone, jobs);
        let alone = baseline(&tree, &simulator)?;
        println!("without a bug: {seeds_alone} seeds in {:.1} s", alone.as_secs_f64());
        let innocent = package.join("target/mutants/innocent");
        let program = tree.root().join(build(tree.root(), &simulator)?);
        fs::copy(program, &innocent).map_err(|why| format!("{innocent:?}: {why}"))?;
        let scale = u32::try_from(seeds / seeds_alone.max(1) + 1).unwrap_or(u32::MAX);
        let all = limit(alone.saturating_mul(scale));
        let mut tests = Vec::new();
        for suite in if sim_only { Vec::new() } else { vec![units(), directed()] } {
            let alone = baseline(&tree, &suite)?;
            tests.push((suite, limit(alone)));
        }
        Ok(Runner { tree, seeds, jobs, innocent, limit: all, tests })
    }

    /// Plants a bug, looks who notices, and takes it out again.
    pub(crate) fn judge(&self, mutant: &Mutant) -> Result<Verdict, String> {
        self.tree.plant(mutant)?;
        let verdict = self.notice();
        let restored = self.tree.restore(mutant);
        restored.map_err(|why| format!("cannot take it out: {why}"))?;
        verdict
    }

    fn notice(&self) -> Result<Verdict, String> {
        let start = now();
        if let Some(verdict) = self.simulate(start)? {
            return Ok(verdict);
        }
        for suite in &self.tests {
            match self.attempt(suite)? {
                End::Passed => {}
                End::Failed { said } => {
                    let what = failed_test(&said);
                    return Ok(Verdict::Test { what, took: start.elapsed() });
                }
                End::Hung => {
                    let what = "a directed test".to_owned();
                    return Ok(Verdict::Hung { what, took: start.elapsed() });
                }
            }
        }
        Ok(Verdict::Survived { took: start.elapsed() })
    }

    /// Simulates until a seed fails that passes without the bug.
    fn simulate(&self, start: Instant) -> Result<Option<Verdict>, String> {
        let mut first = 1;
        while first <= self.seeds {
            let suite = (simulator(first, self.seeds - first + 1, self.jobs), self.limit);
            let said = match self.attempt(&suite)? {
                End::Passed => return Ok(None),
                End::Failed { said } => said,
                End::Hung => {
                    let what = "the simulator".to_owned();
                    return Ok(Some(Verdict::Hung { what, took: start.elapsed() }));
                }
            };
            let failure = Failure::read(&said)?;
            if self.is_innocent(failure.seed)? {
                let Failure { seed, what } = failure;
                return Ok(Some(Verdict::Simulator { what, seed, took: start.elapsed() }));
            }
            println!("note: seed {} fails without any bug planted", failure.seed);
            first = failure.seed + 1;
        }
        Ok(None)
    }

    /// Whether a seed passes without the bug.
    fn is_innocent(&self, seed: u64) -> Result<bool, String> {
        let (end, _) = run(self.tree.root(), &self.innocent, &simulator(seed, 1, 1), self.limit)?;
        Ok(matches!(end, End::Passed))
    }

    fn attempt(&self, (suite, limit): &(Suite, Duration)) -> Result<End, String> {
        let program = build(self.tree.root(), suite).map_err(|said| {
            let errors = said.lines().skip_while(|line| !line.starts_with("error"));
            let first: Vec<&str> = errors.take(12).collect();
            format!("it does not compile:\n{}", first.join("\n"))
        })?;
        Ok(run(self.tree.root(), &program, suite, *limit)?.0)
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

fn simulator(first: u64, seeds: u64, jobs: u64) -> Suite {
    let numbers = [("--first", first), ("--seeds", seeds), ("--jobs", jobs)];
    let words = numbers.into_iter().flat_map(|(flag, it)| [flag.to_owned(), it.to_string()]);
    Suite {
        build: &["--profile", "sim", "--no-default-features", "--test", "sim"],
        arguments: words.chain(["--no-shrink".to_owned()]).collect(),
    }
}

/// The tests that stand in the sources.
fn units() -> Suite {
    Suite { build: &["--lib"], arguments: Vec::new() }
}

/// The directed tests: what has a name and is quick. Clusters of processes, documents and the house
/// rules notice little of what a bug is, and take long.
fn directed() -> Suite {
    let names = ["raft::", "wal::", "kv::", "wire::", "replica::", "scenarios::"];
    Suite { build: &["--test", "raftd"], arguments: names.into_iter().map(str::to_owned).collect() }
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
fn failed_test(said: &str) -> String {
    let failed = said.lines().find_map(|line| {
        line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned)
    });
    failed.unwrap_or_else(|| "a test program that ended early".to_owned())
}

impl Verdict {
    /// What is printed of a bug.
    pub(crate) fn line(&self, mutant: &Mutant) -> String {
        let Mutant { name, caught_by, .. } = mutant;
        match self {
            Verdict::Simulator { what, seed, took } => {
                format!("killed {name} by sim: {what} after {seed} seeds in {} s", took.as_secs())
            }
            Verdict::Test { what, took } => {
                format!("killed {name} by test {what} after no seed in {} s", took.as_secs())
            }
            Verdict::Hung { what, took } => {
                format!("hung {name}: {what} did not end in {} s", took.as_secs())
            }
            Verdict::Survived { took } => {
                let took = took.as_secs();
                format!("SURVIVED {name} after {took} s; expected to be caught by {caught_by}")
            }
        }
    }
}

/// How many of the bugs were noticed, and by what.
#[derive(Default)]
pub(crate) struct Score {
    simulator: usize,
    tests: usize,
    hung: usize,
    survivors: Vec<String>,
    /// Bugs that could not be judged.
    pub(crate) errors: usize,
    seeds: Vec<u64>,
}

impl Score {
    pub(crate) fn add(&mut self, mutant: &Mutant, verdict: &Verdict) {
        match verdict {
            Verdict::Simulator { seed, .. } => {
                self.simulator += 1;
                self.seeds.push(*seed);
            }
            Verdict::Test { .. } => self.tests += 1,
            Verdict::Hung { .. } => self.hung += 1,
            Verdict::Survived { .. } => self.survivors.push(mutant.name.clone()),
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match (self.errors, self.survivors.len()) {
            (0, 0) => 0,
            (0, _) => 1,
            (_, _) => 2,
        }
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Score { simulator, tests, hung, survivors, .. } = self;
        let all = simulator + tests + hung + survivors.len() + self.errors;
        let mut seeds = self.seeds.clone();
        seeds.sort_unstable();
        let at = |percent: usize| {
            let last = seeds.len().saturating_sub(1);
            seeds.get(last * percent / 100).copied().unwrap_or(0)
        };
        writeln!(
            f,
            "score {} of {all}: {simulator} killed by the simulator, {hung} hung, {tests} killed \
             by a directed test, {} survived, {} could not be judged",
            simulator + tests + hung,
            survivors.len(),
            self.errors
        )?;
        write!(f, "seeds to a kill: median {}, p90 {}, most {}", at(50), at(90), at(100))?;
        survivors.iter().try_for_each(|name| write!(f, "\nSURVIVED {name}"))
    }
}
