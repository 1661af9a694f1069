//! Plants the bugs of a list, one after the other, and says what notices them. Started by
//! `scripts/mutants`, with `--plant` in front; `cargo test` starts it too, and then it does
//! nothing: a test of the other binary looks whether the list fits.
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

mod list;
mod run;
mod score;
mod suite;
mod tree;
mod weave;

use list::{Mutant, parse};
use run::Runner;
use score::{Results, Score, write_result};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: scripts/mutants [FILE] [--only NAME]… [--seeds N] [--jobs N] [--results FILE] [--first FILE]
                       [--sim-only] [--check]
  FILE            a list in the format of tests/mutants.txt, which is the default
  --only NAME     only bugs whose name contains NAME
  --seeds N       simulate at most N seeds for each (2000)
  --jobs N        seeds, or tests, at a time (as many as there are cores)
  --results FILE  write each verdict there, and take those that are there for granted
  --first FILE    verdicts of an earlier run: who noticed a bug then is asked first
  --sim-only      leave the directed tests out
  --check         only look whether every block fits the sources
For each bug: the test that its block names or 30 seeds, 300 seeds, all quick directed tests, the
other seeds, the slow tests.
exit status: 0 every bug was noticed; 1 one survived; 2 the list or a bug in it is wrong";

/// What was asked for.
struct Asked {
    file: String,
    only: Vec<String>,
    seeds: u64,
    jobs: Option<u64>,
    results: Option<String>,
    first: Option<String>,
    sim_only: bool,
    check: bool,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() != Some("--plant") {
        return ExitCode::SUCCESS;
    }
    let asked = match read_arguments(words) {
        Ok(asked) => asked,
        Err(why) => {
            println!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match carry_out(&asked) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            println!("error: {why}");
            ExitCode::from(2)
        }
    }
}

fn read_arguments(mut rest: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked {
        file: "tests/mutants.txt".to_owned(),
        only: Vec::new(),
        seeds: 2000,
        jobs: None,
        results: None,
        first: None,
        sim_only: false,
        check: false,
    };
    while let Some(word) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{word} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text} is no number"));
        match word.as_str() {
            "--only" => asked.only.push(value()?),
            "--seeds" => asked.seeds = number(value()?)?,
            "--jobs" => asked.jobs = Some(number(value()?)?),
            "--results" => asked.results = Some(value()?),
            "--first" => asked.first = Some(value()?),
            "--sim-only" => asked.sim_only = true,
            "--check" => asked.check = true,
            option if option.starts_with('-') => return Err(format!("{option} is no option")),
            file => file.clone_into(&mut asked.file),
        }
    }
    Ok(asked)
}

fn carry_out(asked: &Asked) -> Result<u8, String> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mutants = read_list(package, asked)?;
    if asked.check {
        println!("{} bugs find their places", mutants.len());
        return Ok(0);
    }
    let results_file = asked.results.as_deref().map(from_caller);
    let known = match &results_file {
        Some(file) if file.exists() => read_results(file)?,
        Some(_) | None => Results::default(),
    };
    let earlier = match &asked.first {
        Some(name) => read_results(&from_caller(name))?,
        None => Results::default(),
    };
    let mut score = Score::default();
    let mut runner = None;
    for mutant in &mutants {
        if let Some(verdict) = known.of(mutant, asked.seeds) {
            score.add(mutant, verdict);
            continue;
        }
        if runner.is_none() {
            runner = Some(start_runner(package, &mutants, asked)?);
        }
        let runner = runner.as_ref().expect("it was just started");
        match runner.judge(mutant, earlier.of(mutant, 0)) {
            Ok(judged) => {
                println!("{}", judged.line(mutant));
                score.add(mutant, &judged.verdict);
                if let Some(file) = &results_file {
                    append(file, &write_result(mutant, &judged.verdict))?;
                }
            }
            Err(why) => {
                println!("ERROR {}: {why}", mutant.name);
                score.errors += 1;
            }
        }
    }
    println!("{score}");
    Ok(score.exit_code())
}

fn start_runner(package: &Path, mutants: &[Mutant], asked: &Asked) -> Result<Runner, String> {
    let jobs = asked.jobs.unwrap_or_else(cores);
    Runner::start(
        package,
        mutants,
        run::Asked { seeds: asked.seeds, jobs, sim_only: asked.sim_only },
    )
}

fn read_results(file: &Path) -> Result<Results, String> {
    let text = fs::read_to_string(file).map_err(|why| format!("cannot read {file:?}: {why}"))?;
    Results::read(&text).map_err(|why| format!("{file:?}: {why}"))
}

fn append(file: &Path, line: &str) -> Result<(), String> {
    let opened = OpenOptions::new().create(true).append(true).open(file);
    let written = opened.and_then(|mut file| file.write_all(line.as_bytes()));
    written.map_err(|why| format!("cannot write {file:?}: {why}"))
}

/// The script has gone to the package; files are named from where it was called.
fn from_caller(name: &str) -> PathBuf {
    Path::new(&std::env::var_os("MUTANTS_FROM").unwrap_or_default()).join(name)
}

/// The bugs asked for. Nothing runs before all blocks of the list are known to fit.
fn read_list(package: &Path, asked: &Asked) -> Result<Vec<Mutant>, String> {
    let named = from_caller(&asked.file);
    let path = if named.is_file() { named } else { package.join(&asked.file) };
    let text = fs::read_to_string(&path).map_err(|why| format!("cannot read {path:?}: {why}"))?;
    let said = |error: list::ListError| format!("{}, {error}", asked.file);
    let mutants = parse(&text).map_err(said)?;
    let mut wrong = Vec::new();
    for mutant in &mutants {
        if let Err(why) = tree::changed_files(package, mutant) {
            wrong.push(format!("{}, {why}, in `{}`", asked.file, mutant.name));
        }
    }
    if !wrong.is_empty() {
        return Err(wrong.join("\nerror: "));
    }
    let is_asked = |mutant: &Mutant| {
        asked.only.is_empty() || asked.only.iter().any(|part| mutant.name.contains(part.as_str()))
    };
    let chosen: Vec<Mutant> = mutants.into_iter().filter(is_asked).collect();
    if chosen.is_empty() { Err("no bug has such a name".to_owned()) } else { Ok(chosen) }
}

fn cores() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u64::try_from(cores).unwrap_or(1)
}
