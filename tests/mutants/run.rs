//! Planting one bug after the other: in one program as many as can be, each other in a copy.

use super::arguments::say;
use super::judge::{
    Asked, Filter, Judge, Programs, TESTS_LIMIT, costs, directed, simulator, units,
};
use super::list::Mutant;
use super::score::{Judged, Verdict};
use super::suite::{End, Suite, build, failed_assertion, now, run};
use super::tree::Tree;
use super::weave::{Weave, weave};
use rustix::fs::{FlockOperation, flock};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Seeds that are simulated without a bug, to know how fast that is.
const BASELINE_SEEDS: u64 = 20;
/// A program that takes so many times as long as without a bug hangs.
const PATIENCE: u32 = 8;

pub(crate) struct Runner {
    asked: Asked,
    /// Where those are planted that cannot be woven.
    tree: Tree,
    woven: Woven,
    /// How long a seed may take, on average.
    seed_limit: Duration,
    /// Two runs at a time would plant in each other's copies.
    _lock: File,
}

/// The programs with all bugs that can be woven. With none of them in force they are without a
/// bug: what fails then as well proves nothing.
struct Woven {
    weave: Weave,
    tree: Tree,
    /// By what cargo calls them.
    programs: BTreeMap<&'static str, PathBuf>,
    /// The files that these programs are made of, by their paths below the package.
    made_of: BTreeSet<String>,
}

impl Woven {
    /// Weaves, and builds. What does not compile there is left out, to be planted alone.
    fn build(package: &Path, mutants: &[Mutant]) -> Result<Woven, String> {
        let tree = Tree::copy(package, "woven")
            .map_err(|why| format!("cannot copy the package: {why}"))?;
        let mut left_out = BTreeSet::new();
        loop {
            let weave = weave(package, mutants, &left_out)?;
            tree.write(&weave.files).map_err(|why| format!("cannot weave: {why}"))?;
            say(format!("{} of {} bugs in one program", weave.len(), mutants.len()));
            let errors = match build_all(package, &tree) {
                Ok((programs, made_of)) => return Ok(Woven { weave, tree, programs, made_of }),
                Err(errors) => errors,
            };
            let guilty = guilty_of(&errors, &weave);
            if guilty.is_empty() {
                return Err(first_errors(&errors));
            }
            let names: Vec<&str> = guilty.iter().map(String::as_str).collect();
            say(format!("planted alone: {}", names.join("; ")));
            left_out.extend(guilty);
            // What was woven once and is not any more must be as it was.
            Tree::copy(package, "woven").map_err(|why| format!("cannot copy it: {why}"))?;
        }
    }

    fn run(&self, suite: &Suite, limit: Duration) -> Result<(End, Duration), String> {
        run(self.tree.root(), &self.programs[suite.name()], suite, limit)
    }
}

/// The bugs that are woven and may have caused these errors: those in whose bodies they are, or
/// else all in the files that are named, or all.
fn guilty_of(errors: &str, weave: &Weave) -> BTreeSet<String> {
    let places: Vec<(&str, usize)> = places_of(errors).collect();
    let here = |(file, line): &(&str, usize)| weave.at(file, *line).cloned();
    let in_bodies: BTreeSet<String> = places.iter().filter_map(here).collect();
    if !in_bodies.is_empty() {
        return in_bodies;
    }
    let named: BTreeSet<&str> = places.iter().map(|(file, _)| *file).collect();
    let in_files: BTreeSet<String> = weave.within(|file| named.contains(file)).collect();
    if in_files.is_empty() { weave.within(|_| true).collect() } else { in_files }
}

/// Programs by what cargo calls them, and the files that they are made of.
type Built = (BTreeMap<&'static str, PathBuf>, BTreeSet<String>);

fn build_all(package: &Path, tree: &Tree) -> Result<Built, String> {
    let (mut programs, mut made_of) = (BTreeMap::new(), BTreeSet::new());
    let quick = &Filter::Quick;
    for suite in [simulator(0, 1, 1), directed(quick, 1), units(quick, 1), costs(quick, 1)] {
        let built = tree.root().join(build(tree.root(), &suite)?);
        // Those of the other tree are built in the same place.
        let program = package.join("target/mutants").join(suite.name());
        // One that an interrupted run left running cannot be written over.
        let _ = fs::remove_file(&program);
        fs::copy(&built, &program).map_err(|why| format!("{built:?}: {why}"))?;
        let _before = programs.insert(suite.name(), program);
        // Beside each program cargo lists, as for make, what it is made of.
        let list = built.with_extension("d");
        let list = fs::read_to_string(&list).map_err(|why| format!("{list:?}: {why}"))?;
        made_of.extend(list.lines().filter_map(|line| line.strip_suffix(':')).map(str::to_owned));
    }
    Ok((programs, made_of))
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
        let lock = lock(package)?;
        let tree = Tree::copy(package, "tree");
        let tree = tree.map_err(|why| format!("cannot copy the package: {why}"))?;
        let woven = Woven::build(package, mutants)?;
        let seeds = simulator(0, BASELINE_SEEDS, asked.jobs);
        let (end, alone) = woven.run(&seeds, TESTS_LIMIT)?;
        match end {
            End::Passed => {}
            End::Failed { said, how } => {
                return Err(format!("the package fails without any bug planted ({how}):\n{said}"));
            }
            End::Hung => return Err("the simulator hangs without any bug planted".to_owned()),
        }
        say(format!("without a bug: {BASELINE_SEEDS} seeds in {:.1} s", alone.as_secs_f64()));
        let seeds = u32::try_from(BASELINE_SEEDS).unwrap_or(u32::MAX);
        let seed_limit = alone.saturating_mul(PATIENCE) / seeds;
        Ok(Runner { asked, tree, woven, seed_limit, _lock: lock })
    }

    /// Plants a bug, looks who notices, and takes it out again. `earlier` is what became of it in
    /// an earlier run.
    pub(crate) fn judge(
        &self,
        mutant: &Mutant,
        earlier: Option<&Verdict>,
    ) -> Result<Judged, String> {
        let start = now();
        if !mutant.edits.iter().any(|edit| self.woven.made_of.contains(&edit.file)) {
            let file = &mutant.edits[0].file;
            return Err(format!("no program that is run here is made of {file}"));
        }
        let number = self.woven.weave.number(mutant);
        let sound = if number.is_none() { Some(self.tree.plant(mutant)?) } else { None };
        let programs = Planted { runner: self, number };
        let judge = Judge { programs: &programs, asked: &self.asked, seed_limit: self.seed_limit };
        let refused = if number.is_none() { self.refused_by_assertion() } else { None };
        let verdict = refused.map_or_else(|| judge.notice(&mutant.caught_by, earlier), Ok);
        if let Some(sound) = sound {
            let restored = self.tree.restore(sound);
            restored.map_err(|why| format!("cannot take it out: {why}"))?;
        }
        Ok(Judged { verdict: verdict?, took: start.elapsed() })
    }
}

impl Runner {
    /// What stands in the tree may break an assertion that the compiler evaluates: it is noticed
    /// before anything runs.
    fn refused_by_assertion(&self) -> Option<Verdict> {
        let said = build(self.tree.root(), &simulator(0, 1, 1)).err()?;
        let what = failed_assertion(&said)?;
        Some(Verdict::Died { what: format!("the compiler evaluated what fails: {what}") })
    }
}

/// The lock on the copies, which ends with the process.
fn lock(package: &Path) -> Result<File, String> {
    let (folder, name) = (package.join("target/mutants"), "lock");
    let made = fs::create_dir_all(&folder).and_then(|()| File::create(folder.join(name)));
    let lock = made.map_err(|why| format!("cannot write in {folder:?}: {why}"))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        say(format!("another run is at work on {folder:?}: waiting for it"));
        let locked = flock(&lock, FlockOperation::LockExclusive);
        locked.map_err(|why| format!("cannot lock {folder:?}: {why}"))?;
    }
    Ok(lock)
}

/// The programs with one bug.
struct Planted<'a> {
    runner: &'a Runner,
    /// That of a bug that is woven; else it stands in the tree.
    number: Option<u32>,
}

impl Programs for Planted<'_> {
    fn with_bug(&self, suite: &Suite, limit: Duration) -> Result<End, String> {
        if let Some(planted) = self.number {
            return Ok(self.runner.woven.run(&Suite { planted, ..suite.clone() }, limit)?.0);
        }
        let root = self.runner.tree.root();
        let program = build(root, suite).map_err(|said| first_errors(&said))?;
        Ok(run(root, &program, suite, limit)?.0)
    }

    fn without(&self, suite: &Suite, limit: Duration) -> Result<End, String> {
        Ok(self.runner.woven.run(suite, limit)?.0)
    }

    fn note(&self, words: String) {
        say(words);
    }
}
