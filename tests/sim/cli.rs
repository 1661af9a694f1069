//! The command line: our own flags, and those that `cargo test` hands to every target.

use crate::options::{CLASSES, Class, MS, Overrides};

pub(crate) const USAGE: &str = "\
scripts/sim [--seeds N] [--first N] [--minutes N] [--jobs N] [--coverage]
scripts/sim --seed N [--trace] [--options] [--no-shrink]

  --seeds N         run so many seeds (default 200)
  --first N         the first of them (default 1)
  --minutes N       run seeds for so long instead
  --jobs N          on so many threads (default: one for each core)
  --coverage        print every sometimes-point with its hits; fail if one was not reached
  --seed N          run this one
  --trace           print everything that happens: true time, who, what, details
  --options         print what the seed draws
  --without A,B     leave these kinds of faults out: partitions frames streams crashes pauses
                    slow-nodes slow-disks disk-errors full-disks damage clocks garbage
                    small-windows transfers members saves states rights
  --nodes N         so many nodes, whatever the seed draws
  --clients N       so many clients
  --horizon-ms N    the safety phase ends then
  --power-losses N  nothing but power losses, so many in each run
  --keep-going      do not stop at a failure: name every seed that fails
  --no-shrink       do not look for a smaller failure";

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Help,
    Seeds(Asked),
    Checks(Filter),
}

/// Seeds, and how to run them.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) first: u64,
    pub(crate) seeds: u64,
    /// A single seed, to be looked at.
    pub(crate) single: bool,
    pub(crate) minutes: Option<u64>,
    pub(crate) jobs: Option<usize>,
    pub(crate) coverage: bool,
    pub(crate) trace: bool,
    pub(crate) options: bool,
    pub(crate) shrink: bool,
    pub(crate) keep_going: bool,
    pub(crate) overrides: Overrides,
}

impl Default for Asked {
    fn default() -> Asked {
        Asked {
            first: 1,
            seeds: 200,
            single: false,
            minutes: None,
            jobs: None,
            coverage: false,
            trace: false,
            options: false,
            shrink: true,
            keep_going: false,
            overrides: Overrides::default(),
        }
    }
}

/// Which of the checks of `cargo test` to run.
#[derive(Clone, Default, Debug)]
pub(crate) struct Filter {
    names: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    pub(crate) list: bool,
    nothing: bool,
}

impl Filter {
    pub(crate) fn takes(&self, name: &str) -> bool {
        let fits = |wanted: &String| {
            if self.exact { name == wanted } else { name.contains(wanted.as_str()) }
        };
        let wanted = self.names.is_empty() || self.names.iter().any(fits);
        wanted && !self.nothing && !self.skipped.iter().any(fits)
    }
}

impl Command {
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Command, String> {
        let (mut asked, mut filter) = (Asked::default(), Filter::default());
        let (mut ours, mut theirs) = (false, false);
        let mut args = args.map(split).collect::<Vec<_>>().into_iter().flatten();
        while let Some(arg) = args.next() {
            if matches!(arg.as_str(), "-h" | "--help") {
                return Ok(Command::Help);
            }
            if parse_ours(&arg, &mut args, &mut asked)? {
                ours = true;
            } else {
                theirs = true;
                parse_theirs(&arg, &mut args, &mut filter)?;
            }
        }
        match (ours, theirs) {
            (true, false) => check(&asked).map(|()| Command::Seeds(asked)),
            (false, _) => Ok(Command::Checks(filter)),
            (true, true) => Err("names of checks and flags of seeds do not mix".to_owned()),
        }
    }
}

/// A run of nothing passes, and so must not be asked for.
fn check(asked: &Asked) -> Result<(), String> {
    let Some(more) = asked.seeds.checked_sub(1).filter(|_| asked.minutes != Some(0)) else {
        return Err("no seed is asked for".to_owned());
    };
    match asked.first.checked_add(more) {
        Some(_) => Ok(()),
        None => Err(format!("there are not so many seeds from {} on", asked.first)),
    }
}

/// `--flag=value` as two words.
fn split(arg: String) -> Vec<String> {
    match arg.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => vec![flag.to_owned(), value.to_owned()],
        Some(_) | None => vec![arg],
    }
}

fn parse_ours(
    arg: &str,
    args: &mut impl Iterator<Item = String>,
    asked: &mut Asked,
) -> Result<bool, String> {
    let mut number = || -> Result<u64, String> {
        let text = args.next().ok_or_else(|| format!("{arg} takes a number"))?;
        text.parse().map_err(|_| format!("{arg} takes a number, not {text}"))
    };
    match arg {
        "--seed" => {
            asked.first = number()?;
            asked.seeds = 1;
            asked.single = true;
        }
        "--seeds" => asked.seeds = number()?,
        "--first" => asked.first = number()?,
        "--minutes" => {
            asked.minutes = Some(number()?);
            asked.seeds = u64::MAX / 2;
        }
        "--jobs" => asked.jobs = Some(usize::try_from(number()?.clamp(1, 1024)).expect("small")),
        "--coverage" => asked.coverage = true,
        "--trace" => asked.trace = true,
        "--options" => asked.options = true,
        "--keep-going" => asked.keep_going = true,
        "--no-shrink" => asked.shrink = false,
        "--nodes" => {
            let nodes = number()?.clamp(1, 5);
            asked.overrides.nodes = Some(usize::try_from(nodes).expect("small"));
        }
        "--clients" => {
            let clients = number()?.clamp(1, 64);
            asked.overrides.clients = Some(u32::try_from(clients).expect("small"));
        }
        "--horizon-ms" => asked.overrides.horizon_ns = Some(number()?.saturating_mul(MS)),
        "--power-losses" => asked.overrides.power_losses = Some(number()?),
        "--without" => {
            let names = args.next().ok_or("--without takes kinds of faults")?;
            for name in names.split(',').filter(|name| !name.is_empty()) {
                asked.overrides.without.push(class(name)?);
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn class(name: &str) -> Result<Class, String> {
    let found = CLASSES.iter().find(|(_, known)| *known == name);
    found.map(|(class, _)| *class).ok_or_else(|| format!("no kind of fault is called {name}"))
}

/// What libtest would take: filters, and flags of which few mean anything here.
fn parse_theirs(
    arg: &str,
    args: &mut impl Iterator<Item = String>,
    filter: &mut Filter,
) -> Result<(), String> {
    match arg {
        "--exact" => filter.exact = true,
        "--list" => filter.list = true,
        "--ignored" => filter.nothing = true,
        "--skip" => filter.skipped.extend(args.next()),
        "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" | "--shuffle-seed" => {
            args.next();
        }
        "--nocapture"
        | "--no-capture"
        | "--quiet"
        | "-q"
        | "--include-ignored"
        | "--show-output"
        | "--test"
        | "--bench"
        | "--force-run-in-process"
        | "--shuffle" => {}
        flag if flag.starts_with('-') => return Err(format!("{flag} is no flag")),
        name => filter.names.push(name.to_owned()),
    }
    Ok(())
}
