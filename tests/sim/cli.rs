//! The command line: our own flags, and those that `cargo test` hands to every target.

use crate::options::{CLASSES, Class, MS, Overrides};
use crate::runner::ENOUGH_SEEDS;
use crate::watchdog::SEED_SECONDS;
use std::ops::RangeInclusive;

pub(crate) const USAGE: &str = "\
scripts/sim [--seeds N] [--first N] [--minutes N] [--jobs N] [--coverage] [--keep-going]
scripts/sim --seed N [--trace] [--options] [--coverage]
scripts/sim --marathon …    the same, in front of all other flags: for long runs, it takes longer to
                            build and less time to run; so are 1000 seeds and more, unasked

  --seeds N         run so many seeds (default 200)
  --first N         the first of them (default 1)
  --minutes N       begin no seed after so long; without --seeds nothing else ends the run
  --jobs N          on so many threads (default: one for each core)
  --coverage        print every sometimes-point with its hits. With this flag or without it, a run
                    over 2000 seeds or more fails if it did not reach a point, unless a flag below
                    makes its seeds others than they are drawn; fewer seeds are too few to tell
  --keep-going      do not stop at a failure: name every seed that fails
  --seed N          run this one
  --trace           print everything that happens: true time, who, what, details
  --options         print what the seed draws
  --no-shrink       do not look for a smaller failure
  --seed-seconds N  a seed that takes longer is named, and the run fails (default 120; more when
                    there are more threads than cores); not with --trace

make the seeds others:
  --without A,B     leave these kinds of faults out: partitions frames streams crashes pauses
                    slow-nodes slow-disks disk-errors full-disks damage clocks garbage
                    small-windows transfers members saves states rights
  --nodes N         so many nodes, whatever the seed draws
  --clients N       so many clients
  --horizon-ms N    the safety phase ends then (at least 1000)
  --power-losses N  instead of breaking by chance, the power goes so many times in each run, of one
                    machine or of all; of the kinds above only streams and small-windows stay, in
                    the seeds that draw them

exit status: 0 all passed; 1 a seed failed, or a point was missed; 2 no such flags";

/// Said by scripts/sim in front: seeds are asked for, whatever follows.
const SIMULATE: &str = "--simulate";

/// Taken by scripts/sim, if it comes first.
const MARATHON: &str = "--marathon";

/// Seeds, if nobody says how many.
const SEEDS: u64 = 200;
/// A year.
const MINUTES_MAX: u64 = 525_600;
/// Shorter than this, there may be no cluster yet of which a quorum could be healed.
pub(crate) const HORIZON_MS_MIN: u64 = 1000;
/// A day.
const HORIZON_MS_MAX: u64 = 86_400_000;

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
    /// How many; always there once the command line was read.
    pub(crate) seeds: Option<u64>,
    /// A single seed, to be looked at.
    pub(crate) single: bool,
    pub(crate) minutes: Option<u64>,
    pub(crate) jobs: Option<usize>,
    pub(crate) coverage: bool,
    pub(crate) trace: bool,
    pub(crate) options: bool,
    pub(crate) shrink: bool,
    pub(crate) keep_going: bool,
    /// How long a seed may take.
    pub(crate) seed_seconds: u64,
    pub(crate) overrides: Overrides,
}

impl Default for Asked {
    fn default() -> Asked {
        Asked {
            first: 1,
            seeds: None,
            single: false,
            minutes: None,
            jobs: None,
            coverage: false,
            trace: false,
            options: false,
            shrink: true,
            keep_going: false,
            seed_seconds: SEED_SECONDS,
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
        let mut args = args.map(split).collect::<Vec<_>>().into_iter().flatten().peekable();
        let simulate = args.next_if(|arg| arg == SIMULATE).is_some();
        let (mut ours, mut theirs) = (Vec::new(), false);
        while let Some(arg) = args.next() {
            if matches!(arg.as_str(), "-h" | "--help") {
                return Ok(Command::Help);
            }
            if parse_ours(&arg, &mut args, &mut asked)? {
                ours.push(arg);
            } else if arg == MARATHON {
                return Err(format!("{arg} is for scripts/sim, in front of all other flags"));
            } else if simulate {
                return Err(format!("{arg} is no flag"));
            } else {
                theirs = true;
                parse_theirs(&arg, &mut args, &mut filter)?;
            }
        }
        match (simulate || !ours.is_empty(), theirs) {
            (true, false) => {
                check_together(&ours)?;
                Ok(Command::Seeds(check_range(asked)?))
            }
            (false, _) => Ok(Command::Checks(filter)),
            (true, true) => Err("names of checks and flags of seeds do not mix".to_owned()),
        }
    }
}

/// No flag is given in vain.
fn check_together(flags: &[String]) -> Result<(), String> {
    let given = |flag: &&&str| flags.iter().any(|it| it == **flag);
    for (at, flag) in flags.iter().enumerate() {
        if flag != "--without" && flags[..at].contains(flag) {
            return Err(format!("{flag} is given twice"));
        }
    }
    let single = given(&&"--seed");
    let of_many = ["--seeds", "--first", "--minutes", "--jobs", "--keep-going"];
    let of_one = ["--trace", "--options"];
    // Whoever prints all that happens may stand still for as long as its reader likes.
    if given(&&"--trace") && given(&&"--seed-seconds") {
        return Err("--seed-seconds and --trace do not go together".to_owned());
    }
    match (of_many.iter().find(given), of_one.iter().find(given)) {
        (Some(flag), _) if single => Err(format!("{flag} and --seed do not go together")),
        (_, Some(flag)) if !single => Err(format!("{flag} looks at one seed: say --seed N")),
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

/// All seeds that are asked for are there: of a time, all from the first on.
fn check_range(mut asked: Asked) -> Result<Asked, String> {
    let last = match asked.seeds {
        Some(seeds) => asked.first.checked_add(seeds - 1),
        None if asked.minutes.is_some() => Some(u64::MAX),
        None => asked.first.checked_add(SEEDS - 1),
    };
    let Some(last) = last else {
        return Err(format!("there are not so many seeds from {} on", asked.first));
    };
    asked.seeds = Some((last - asked.first).saturating_add(1));
    Ok(asked)
}

/// `--flag=value` as two words.
fn split(arg: String) -> Vec<String> {
    match arg.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => vec![flag.to_owned(), value.to_owned()],
        Some(_) | None => vec![arg],
    }
}

/// The number behind a flag.
fn number(
    flag: &str,
    args: &mut impl Iterator<Item = String>,
    range: RangeInclusive<u64>,
) -> Result<u64, String> {
    let (least, most) = (range.start(), range.end());
    let takes = match *most {
        u64::MAX => format!("{flag} takes a number of at least {least}"),
        most => format!("{flag} takes a number from {least} to {most}"),
    };
    let Some(text) = args.next() else { return Err(takes) };
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("{takes}, not {text}"))
}

fn parse_ours(
    arg: &str,
    args: &mut impl Iterator<Item = String>,
    asked: &mut Asked,
) -> Result<bool, String> {
    let mut number = |range| number(arg, args, range);
    let few = |number: u64| usize::try_from(number).expect("small");
    match arg {
        "--seed" => {
            asked.first = number(0..=u64::MAX)?;
            asked.seeds = Some(1);
            asked.single = true;
        }
        "--seeds" => asked.seeds = Some(number(1..=u64::MAX)?),
        "--first" => asked.first = number(0..=u64::MAX)?,
        "--minutes" => asked.minutes = Some(number(1..=MINUTES_MAX)?),
        "--jobs" => asked.jobs = Some(few(number(1..=1024)?)),
        "--seed-seconds" => asked.seed_seconds = number(1..=60 * MINUTES_MAX)?,
        "--coverage" => asked.coverage = true,
        "--trace" => asked.trace = true,
        "--options" => asked.options = true,
        "--keep-going" => asked.keep_going = true,
        "--no-shrink" => asked.shrink = false,
        "--nodes" => asked.overrides.nodes = Some(few(number(1..=5)?)),
        "--clients" => {
            let clients = number(1..=64)?;
            asked.overrides.clients = Some(u32::try_from(clients).expect("small"));
        }
        "--horizon-ms" => {
            asked.overrides.horizon_ns = Some(number(HORIZON_MS_MIN..=HORIZON_MS_MAX)? * MS)
        }
        "--power-losses" => asked.overrides.power_losses = Some(number(1..=1_000_000)?),
        "--without" => {
            let names = args.next().ok_or("--without takes kinds of faults")?;
            for name in names.split(',') {
                asked.overrides.without.push(class(name.trim())?);
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

/// What does not make sense is refused, and nothing is ignored.
pub(crate) fn refuses_what_makes_no_sense() -> bool {
    let parse = |line: &str| Command::parse(line.split_whitespace().map(str::to_owned));
    let refused = [
        ("--simulate stray", "is no flag"),
        ("--simulate --seeds 3 --marathon", "in front"),
        ("--seed 1 --trace --seed-seconds 5", "do not go together"),
        ("--seed 1 --seeds 3", "do not go together"),
        ("--jobs 2 --seed 1", "do not go together"),
        ("--seeds 2 --trace", "--seed N"),
        ("--seeds 2 --options", "--seed N"),
        ("--seeds 2 --seeds 3", "given twice"),
        ("--seeds 0", "at least 1"),
        ("--seeds", "at least 1"),
        ("--seeds x", "not x"),
        ("--minutes 0", "from 1"),
        ("--minutes 9999999999999999999", "from 1"),
        ("--horizon-ms 0", "from 1000"),
        ("--power-losses 0", "from 1"),
        ("--jobs 0", "from 1"),
        ("--nodes 99", "to 5"),
        ("--clients 0", "to 64"),
        ("--without", "kinds of faults"),
        ("--without wind", "wind"),
        ("--first 18446744073709551614 --seeds 3", "not so many"),
        ("--seeds 3 a_name", "do not mix"),
        ("--nonsense", "is no flag"),
    ];
    for (line, why) in refused {
        match parse(line) {
            Err(said) => assert!(said.contains(why), "{line}: {said}"),
            Ok(_) => panic!("{line} is taken"),
        }
    }
    let seeds = |line: &str| match parse(line) {
        Ok(Command::Seeds(asked)) => (asked.first, asked.seeds),
        Ok(Command::Help | Command::Checks(_)) => panic!("{line} asks for no seeds"),
        Err(why) => panic!("{line}: {why}"),
    };
    assert_eq!(seeds("--simulate"), (1, Some(SEEDS)));
    assert_eq!(seeds("--seeds=7 --without=clocks"), (1, Some(7)));
    assert_eq!(seeds("--seed 9 --trace --no-shrink"), (9, Some(1)));
    assert_eq!(seeds("--seed 9 --seed-seconds 5"), (9, Some(1)));
    assert_eq!(seeds("--minutes 1 --first 2"), (2, Some(u64::MAX - 1)));
    assert_eq!(seeds("--first 18446744073709551614 --seeds 2"), (u64::MAX - 1, Some(2)));
    assert!(matches!(parse("a_name --test-threads 2"), Ok(Command::Checks(_))));
    let enough = format!("over {ENOUGH_SEEDS} seeds");
    assert!(USAGE.contains(&enough), "the help says how many seeds are enough");
    assert!(CLASSES.iter().all(|(_, name)| USAGE.contains(name)), "and which faults there are");
    true
}
