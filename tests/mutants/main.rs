//! Plants the bugs of a list, one after the other, and says what notices them. Started by
//! `scripts/mutants`, with `--plant` in front; `cargo test` starts it too, and then it does
//! nothing: a test of the other binary looks whether the list fits.
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

mod list;
mod run;
mod suite;
mod tree;

use list::{Mutant, parse};
use run::{Runner, Score};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: scripts/mutants [FILE] [--only NAME]… [--seeds N] [--jobs N] [--sim-only] [--check]
  FILE         a list in the format of tests/mutants.txt, which is the default
  --only NAME  only bugs whose name contains NAME
  --seeds N    simulate at most N seeds for each (2000)
  --jobs N     seeds at a time (as many as there are cores)
  --sim-only   leave the directed tests out
  --check      only look whether every block fits the sources
exit status: 0 every bug was noticed; 1 one survived; 2 the list or a bug in it is wrong";

/// What was asked for.
struct Asked {
    file: String,
    only: Vec<String>,
    seeds: u64,
    jobs: Option<u64>,
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
    let jobs = asked.jobs.unwrap_or_else(cores);
    let runner = Runner::start(package, asked.seeds, jobs, asked.sim_only)?;
    let mut score = Score::default();
    for mutant in &mutants {
        match runner.judge(mutant) {
            Ok(verdict) => {
                println!("{}", verdict.line(mutant));
                score.add(mutant, &verdict);
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

/// The bugs asked for. Nothing runs before all blocks of the list are known to fit.
fn read_list(package: &Path, asked: &Asked) -> Result<Vec<Mutant>, String> {
    // The script has gone to the package; a list is named from where it was called.
    let called_from = std::env::var_os("MUTANTS_FROM").unwrap_or_default();
    let named = Path::new(&called_from).join(&asked.file);
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
