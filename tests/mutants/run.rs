//! Planting one bug after the other, and looking who notices.

use super::list::Mutant;
use super::score::{Judged, Verdict};
use super::suite::{End, Suite, build, now, run};
use super::tree::Tree;
use super::weave::{Weave, weave};
use std::collections::{BTreeMap, BTreeSet};
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
    asked: Asked,
    /// Where those are planted that cannot be woven.
    tree: Tree,
    woven: Woven,
    /// How long a seed may take, on average.
    seed_limit: Duration,
}

/// The programs with all bugs that can be woven. With none of them in force they are without a
/// bug: what fails then as well proves nothing.
struct Woven {
    weave: Weave,
    tree: Tree,
    /// By what cargo calls them.
    programs: BTreeMap<&'static str, PathBuf>,
}

impl Woven {
    /// Weaves, and builds. What does not compile there is left out, to be planted alone.
    fn build(package: &Path, mutants: &[Mutant]) -> Result<Woven, String> {
        let said = |why| format!("cannot copy the package: {why}");
        let tree = Tree::copy(package, "woven").map_err(said)?;
        let mut left_out = BTreeSet::new();
        loop {
            let weave = weave(package, mutants, &left_out)?;
            tree.write(&weave.files).map_err(said)?;
            println!("{} of {} bugs in one program", weave.len(), mutants.len());
            let mut programs = BTreeMap::new();
            let quick = &Filter::Quick;
            let suites = [simulator(0, 1, 1), directed(quick, 1), units(quick, 1), costs(quick, 1)];
            let built: Result<(), String> = suites.iter().try_for_each(|suite| {
                let built = tree.root().join(build(tree.root(), suite)?);
                // Those of the other tree are built in the same place.
                let program = package.join("target/mutants").join(suite.name());
                // One that an interrupted run left running cannot be written over.
                let _ = fs::remove_file(&program);
                let kept = fs::copy(&built, &program).map(|_| ());
                let _before = programs.insert(suite.name(), program);
                kept.map_err(|why| format!("{built:?}: {why}"))
            });
            let Err(errors) = built else { return Ok(Woven { weave, tree, programs }) };
            let guilty: Vec<String> = places_of(&errors)
                .filter_map(|(file, line)| weave.at(file, line).cloned())
                .filter(|name| !left_out.contains(name))
                .collect();
            if guilty.is_empty() {
                return Err(first_errors(&errors));
            }
            println!("planted alone: {}", guilty.join("; "));
            left_out.extend(guilty);
        }
    }

    fn run(&self, suite: &Suite, limit: Duration) -> Result<(End, Duration), String> {
        run(self.tree.root(), &self.programs[suite.name()], suite, limit)
    }
}

/// The files and lines that a compiler's errors name.
fn places_of(said: &str) -> impl Iterator<Item = (&str, usize)> {
    said.lines().filter_map(|line| {
        let (_, place) = line.split_once("--> ").or_else(|| line.split_once("::: "))?;
        let mut parts = place.split(':');
        Some((parts.next()?, parts.next()?.parse().ok()?))
    })
}

fn first_errors(said: &str) -> String {
    let errors = said.lines().skip_while(|line| !line.starts_with("error"));
    let first: Vec<&str> = errors.take(12).collect();
    let shown = if first.is_empty() { said.to_owned() } else { first.join("\n") };
    format!("it does not compile:\n{shown}")
}

impl Runner {
    /// Makes the copies, and the programs.
    pub(crate) fn start(
        package: &Path,
        mutants: &[Mutant],
        asked: Asked,
    ) -> Result<Runner, String> {
        let tree = Tree::copy(package, "tree");
        let tree = tree.map_err(|why| format!("cannot copy the package: {why}"))?;
        let woven = Woven::build(package, mutants)?;
        let seeds = simulator(0, BASELINE_SEEDS, asked.jobs);
        let (end, alone) = woven.run(&seeds, TESTS_LIMIT)?;
        if let End::Failed { said } = end {
            return Err(format!("the package fails without any bug planted:\n{said}"));
        }
        println!("without a bug: {BASELINE_SEEDS} seeds in {:.1} s", alone.as_secs_f64());
        let seeds = u32::try_from(BASELINE_SEEDS).unwrap_or(u32::MAX);
        let seed_limit = alone.saturating_mul(PATIENCE) / seeds;
        Ok(Runner { asked, tree, woven, seed_limit })
    }

    /// Plants a bug, looks who notices, and takes it out again. `earlier` is what became of it in
    /// an earlier run.
    pub(crate) fn judge(
        &self,
        mutant: &Mutant,
        earlier: Option<&Verdict>,
    ) -> Result<Judged, String> {
        let start = now();
        let number = self.woven.weave.number(mutant);
        let verdict = if number.is_some() {
            self.notice(number, mutant, earlier)?
        } else {
            let sound = self.tree.plant(mutant)?;
            let verdict = self.notice(None, mutant, earlier);
            let restored = self.tree.restore(sound);
            restored.map_err(|why| format!("cannot take it out: {why}"))?;
            verdict?
        };
        Ok(Judged { verdict, took: start.elapsed() })
    }

    /// `number` is that of a bug that is woven; else it stands in the tree.
    fn notice(
        &self,
        number: Option<u32>,
        mutant: &Mutant,
        earlier: Option<&Verdict>,
    ) -> Result<Verdict, String> {
        let first = earlier.and_then(again).filter(|_| !self.asked.sim_only);
        for stage in first.into_iter().chain(stages(&mutant.caught_by, &self.asked)) {
            let verdict = match stage {
                Stage::Tests(filter) => self.test(number, &filter)?,
                Stage::Seeds { after, last } => self.simulate(number, after, last)?,
            };
            if let Some(verdict) = verdict {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Survived { seeds: self.asked.seeds })
    }

    /// Simulates until a seed fails that passes without the bug.
    fn simulate(
        &self,
        number: Option<u32>,
        mut after: u64,
        last: u64,
    ) -> Result<Option<Verdict>, String> {
        while after < last {
            let mut suite = simulator(after, last - after, self.asked.jobs);
            let seeds = u32::try_from(last - after).unwrap_or(u32::MAX);
            let limit = self.seed_limit.saturating_mul(seeds).max(LIMIT_MIN);
            let said = match self.attempt(number, &mut suite, limit)? {
                End::Passed => return Ok(None),
                End::Failed { said } => said,
                End::Hung => return Ok(Some(Verdict::Hung { what: "the simulator".to_owned() })),
            };
            let Failure { seed, what } = Failure::read(&said)?;
            // Alone, as it is said to be repeated.
            let (alone, _) = self.woven.run(&simulator(seed - 1, 1, 1), TESTS_LIMIT)?;
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
    fn test(&self, number: Option<u32>, filter: &Filter) -> Result<Option<Verdict>, String> {
        let jobs = self.asked.jobs;
        let (suites, limit) = match filter {
            Filter::Named(name) if name.contains("::tests") => {
                (vec![units(filter, jobs)], LIMIT_MIN)
            }
            Filter::Named(name) if name.starts_with("costs::") => {
                (vec![costs(filter, jobs)], LIMIT_MIN)
            }
            Filter::Named(_) => (vec![directed(filter, jobs)], LIMIT_MIN),
            Filter::Slow => (vec![directed(filter, jobs)], TESTS_LIMIT),
            Filter::Quick => (vec![directed(filter, jobs), units(filter, jobs)], TESTS_LIMIT),
        };
        for mut suite in suites {
            let said = match self.attempt(number, &mut suite, limit)? {
                End::Passed => continue,
                End::Failed { said } => said,
                End::Hung => return Ok(Some(Verdict::Hung { what: "a directed test".to_owned() })),
            };
            let Some(failed) = failed_test(&said) else {
                let what = "a test program that ended early".to_owned();
                return Ok(Some(Verdict::Test { what }));
            };
            suite.arguments = vec!["--exact".to_owned(), failed.clone()];
            let again = !matches!(self.attempt(number, &mut suite, limit)?, End::Passed);
            suite.planted = 0;
            if again && matches!(self.woven.run(&suite, limit)?.0, End::Passed) {
                return Ok(Some(Verdict::Test { what: failed }));
            }
            println!("note: {failed} failed, but not always, or without a bug as well");
        }
        Ok(None)
    }

    fn attempt(
        &self,
        number: Option<u32>,
        suite: &mut Suite,
        limit: Duration,
    ) -> Result<End, String> {
        if let Some(number) = number {
            suite.planted = number;
            return Ok(self.woven.run(suite, limit)?.0);
        }
        let program = build(self.tree.root(), suite).map_err(|said| first_errors(&said))?;
        Ok(run(self.tree.root(), &program, suite, limit)?.0)
    }
}

fn simulator(after: u64, seeds: u64, jobs: u64) -> Suite {
    let numbers = [("--first", after + 1), ("--seeds", seeds), ("--jobs", jobs)];
    let words = numbers.into_iter().flat_map(|(flag, it)| [flag.to_owned(), it.to_string()]);
    Suite {
        build: &["--test", "sim"],
        arguments: words.chain(["--no-shrink".to_owned()]).collect(),
        planted: 0,
    }
}

/// The tests that stand in the sources.
fn units(filter: &Filter, jobs: u64) -> Suite {
    Suite { build: &["--lib"], arguments: filtered(filter, jobs), planted: 0 }
}

/// The directed tests: those that `tree` leaves in.
fn directed(filter: &Filter, jobs: u64) -> Suite {
    Suite { build: &["--test", "raftd"], arguments: filtered(filter, jobs), planted: 0 }
}

/// What operations cost: for bugs that only make them dearer.
fn costs(filter: &Filter, jobs: u64) -> Suite {
    Suite { build: &["--test", "costs"], arguments: filtered(filter, jobs), planted: 0 }
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
