//! Planting one bug after the other: in one program as many as can be, each other in a copy.

use super::arguments::say;
use super::judge::{
    Asked, CLUSTERED, Filter, Judge, Programs, TESTS_LIMIT, clusters, costs, directed, simulator,
    units,
};
use super::list::{Edit, Mutant};
use super::score::{Judged, Verdict};
use super::suite::{End, Suite, build, failed_assertion, now, run};
use super::tree::{For, Tree};
use super::weave::{Weave, weave};
use rustix::fs::{FlockOperation, flock};
use std::cell::OnceCell;
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
    clusters: Clusters,
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
    fn build(package: &Path, mutants: &[Mutant], made_for: For) -> Result<Woven, String> {
        let name = match made_for {
            For::QuickTests => "woven",
            For::Clusters => "clusters",
        };
        let copy = || {
            let copied = Tree::copy(package, name, made_for);
            copied.map_err(|why| format!("cannot copy the package: {why}"))
        };
        let tree = copy()?;
        let mut left_out = BTreeSet::new();
        loop {
            let weave = weave(package, mutants, &left_out)?;
            tree.write(&weave.files).map_err(|why| format!("cannot weave: {why}"))?;
            say(format!("{} of {} bugs in one program", weave.len(), mutants.len()));
            let errors = match build_all(package, &tree, made_for) {
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
            copy()?;
        }
    }

    fn run(&self, suite: &Suite, limit: Duration) -> Result<(End, Duration), String> {
        run(self.tree.root(), &self.programs[suite.name], suite, limit)
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

fn build_all(package: &Path, tree: &Tree, made_for: For) -> Result<Built, String> {
    let (mut programs, mut made_of) = (BTreeMap::new(), BTreeSet::new());
    let quick = &Filter::Quick;
    let suites = match made_for {
        For::QuickTests => {
            vec![simulator(0, 1, 1), directed(quick, 1), units(quick, 1), costs(quick, 1)]
        }
        For::Clusters => vec![clusters(quick)],
    };
    for suite in suites {
        let built = tree.root().join(build(tree.root(), &suite)?);
        // Those of the other tree are built in the same place.
        let program = package.join("target/mutants").join(suite.name);
        // One that an interrupted run left running cannot be written over.
        let _ = fs::remove_file(&program);
        fs::copy(&built, &program).map_err(|why| format!("{built:?}: {why}"))?;
        let _before = programs.insert(suite.name, program);
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
        let tree = Tree::copy(package, "tree", For::QuickTests);
        let tree = tree.map_err(|why| format!("cannot copy the package: {why}"))?;
        let woven = Woven::build(package, mutants, For::QuickTests)?;
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
        let clusters = Clusters::of(package, mutants);
        Ok(Runner { asked, tree, woven, clusters, seed_limit, _lock: lock })
    }

    /// Plants a bug, looks who notices, and takes it out again. `earlier` is what became of it in
    /// an earlier run.
    pub(crate) fn judge(
        &self,
        mutant: &Mutant,
        earlier: Option<&Verdict>,
    ) -> Result<Judged, String> {
        let start = now();
        let clusters = mutant.names_clusters() && !self.asked.sim_only;
        let not_run = format!("not run by any program here: {}", mutant.edits[0].file);
        let not_run = not_run + "; see tests/cluster, whose test may be named in `caught by`";
        let is_here = |edit: &Edit| self.woven.made_of.contains(&edit.file);
        if !clusters && !mutant.edits.iter().any(is_here) {
            return Err(not_run);
        }
        let alone = mutant.is_for_clusters_alone();
        let number = self.woven.weave.number(mutant);
        let sound = if number.is_none() { Some(self.tree.plant(mutant)?) } else { None };
        let programs = Planted { runner: self, mutant, number };
        // What simulates has no socket.
        let asked = if alone { Asked { seeds: 0, ..self.asked } } else { self.asked };
        let judge = Judge { programs: &programs, asked: &asked, seed_limit: self.seed_limit };
        let refused = if number.is_none() { self.refused_by_assertion() } else { None };
        let verdict = refused.map_or_else(|| judge.notice(&mutant.caught_by, earlier), Ok);
        if let Some(sound) = sound {
            let restored = self.tree.restore(sound);
            restored.map_err(|why| format!("cannot take it out: {why}"))?;
        }
        let verdict = verdict?;
        if alone && !clusters && matches!(verdict, Verdict::Survived { .. }) {
            return Err(not_run);
        }
        Ok(Judged { verdict, took: start.elapsed() })
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

/// raftd, raftctl and the tests that start them, with the bugs that those are to notice.
struct Clusters {
    package: PathBuf,
    mutants: Vec<Mutant>,
    /// They are built when one of them is judged.
    woven: OnceCell<Result<Woven, String>>,
}

impl Clusters {
    fn of(package: &Path, mutants: &[Mutant]) -> Clusters {
        let mutants = mutants.iter().filter(|mutant| mutant.names_clusters()).cloned().collect();
        Clusters { package: package.to_owned(), mutants, woven: OnceCell::new() }
    }

    fn woven(&self) -> Result<&Woven, String> {
        let build = || Woven::build(&self.package, &self.mutants, For::Clusters);
        self.woven.get_or_init(build).as_ref().map_err(Clone::clone)
    }
}

/// The programs with one bug.
struct Planted<'a> {
    runner: &'a Runner,
    mutant: &'a Mutant,
    /// That of a bug that is woven; else it stands in the tree.
    number: Option<u32>,
}

impl Programs for Planted<'_> {
    fn with_bug(&self, suite: &Suite, limit: Duration) -> Result<End, String> {
        if suite.name == CLUSTERED {
            let woven = self.runner.clusters.woven()?;
            let planted = woven.weave.number(self.mutant);
            let planted = planted.ok_or("real clusters run no bug that is planted alone")?;
            return Ok(woven.run(&Suite { planted, ..suite.clone() }, limit)?.0);
        }
        if let Some(planted) = self.number {
            return Ok(self.runner.woven.run(&Suite { planted, ..suite.clone() }, limit)?.0);
        }
        let root = self.runner.tree.root();
        let program = build(root, suite).map_err(|said| first_errors(&said))?;
        Ok(run(root, &program, suite, limit)?.0)
    }

    fn without(&self, suite: &Suite, limit: Duration) -> Result<End, String> {
        let clustered = suite.name == CLUSTERED;
        let woven = if clustered { self.runner.clusters.woven()? } else { &self.runner.woven };
        Ok(woven.run(suite, limit)?.0)
    }

    fn note(&self, words: String) {
        say(words);
    }
}
