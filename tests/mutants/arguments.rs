//! The command line of `scripts/mutants`, and its lines to standard output.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

pub(crate) const USAGE: &str = "\
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
Files are named from where the script is called; FILE also from the package.
For each bug: the test that its block names or 30 seeds, 300 seeds, all quick directed tests, the
other seeds (all, if there are 2000: a state that none of so many is in is noticed as well), the
slow tests. What fails, hangs or ends early must not do so without the bug. A block that is wrong
or a bug that does not compile is an ERROR by its name, and the others are judged.
Of src/bin, src/client, src/gateway, src/net and src/server no program here runs more than what has
tests beside it or in tests/wire: a bug there that lives is an ERROR, not run by any program here,
unless its block names a test of real clusters (`caught by: cluster::…`). Then raftd and raftctl are
built with it, and that test is run.
exit status: 0 every bug was noticed; 1 one survived; 2 the list or a bug in it is wrong";

/// What was asked for.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    /// `None` is the package's own list.
    pub(crate) file: Option<String>,
    pub(crate) only: Vec<String>,
    pub(crate) seeds: u64,
    pub(crate) jobs: Option<u64>,
    pub(crate) results: Option<String>,
    pub(crate) first: Option<String>,
    pub(crate) sim_only: bool,
    pub(crate) check: bool,
    pub(crate) help: bool,
}

pub(crate) fn read_arguments(mut rest: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked {
        file: None,
        only: Vec::new(),
        seeds: 2000,
        jobs: None,
        results: None,
        first: None,
        sim_only: false,
        check: false,
        help: false,
    };
    let mut options_end = false;
    while let Some(word) = rest.next() {
        let (flag, behind) = match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag, Some(value.to_owned())),
            Some(_) | None => (word.as_str(), None),
        };
        let mut value = || {
            let given = behind.clone().or_else(|| rest.next());
            given.filter(|value| !value.is_empty()).ok_or(format!("{flag} needs a value"))
        };
        let number = |text: String, most: u64| match text.parse() {
            Ok(number @ 1..) if number <= most => Ok(number),
            Ok(0..) | Err(_) => Err(format!("{flag} takes a number from 1 to {most}, not {text}")),
        };
        match flag {
            file if options_end || !file.starts_with('-') => {
                if let Some(other) = asked.file.replace(word.clone()) {
                    return Err(format!("two lists are asked for: {other} and {word}"));
                }
            }
            "--" => options_end = true,
            "--only" => asked.only.push(value()?),
            "--seeds" => asked.seeds = number(value()?, 1_000_000_000)?,
            "--jobs" => asked.jobs = Some(number(value()?, 1024)?),
            "--results" => asked.results = Some(value()?),
            "--first" => asked.first = Some(value()?),
            "--sim-only" if behind.is_none() => asked.sim_only = true,
            "--check" if behind.is_none() => asked.check = true,
            "--help" | "-h" => asked.help = true,
            _ => return Err(format!("{word} is no option")),
        }
    }
    Ok(asked)
}

/// The script has gone to the package; files are named from where it was called.
pub(crate) fn from_caller(name: &str) -> PathBuf {
    Path::new(&std::env::var_os("MUTANTS_FROM").unwrap_or_default()).join(name)
}

/// Seeds at a time, if nobody says.
pub(crate) fn cores() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u64::try_from(cores).unwrap_or(1)
}

/// A line to standard output. Who reads no further ends this without a word.
#[expect(clippy::disallowed_methods, reason = "there is nobody left to tell")]
pub(crate) fn say(words: impl std::fmt::Display) {
    // As after SIGPIPE.
    const NOBODY_READS: i32 = 141;
    if writeln!(stdout().lock(), "{words}").is_err() {
        std::process::exit(NOBODY_READS);
    }
}
