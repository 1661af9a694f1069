//! What the programs that serve, `raftd` and `raftd-gateway`, do alike: they read flags, take
//! descriptors, and end with one line and an exit code. What asks much of them, `raftctl bench` and
//! the bench, takes descriptors as they do.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// What the command line asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed<T> {
    /// Serve so.
    Serve(T),
    /// Print this text and exit 0.
    Print(String),
}

/// Why a command line was refused: one line that says what to write instead.
#[derive(Debug)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for UsageError {}

/// Refuses a command line.
pub(crate) fn refuse<T>(why: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError(why.into()))
}

/// The arguments of this process, without its name.
pub fn arguments() -> Result<Vec<String>, UsageError> {
    let arguments = std::env::args_os().skip(1).map(OsString::into_string);
    arguments.collect::<Result<_, _>>().or_else(|argument: OsString| {
        refuse(format!("the argument {argument:?} is not UTF-8: name another"))
    })
}

/// Reads `flags`, and the two that every program has. `brief`: what stands above the help.
pub(crate) fn read_flags(
    program: &str,
    brief: &str,
    mut flags: getopts::Options,
    arguments: &[String],
) -> Result<Parsed<getopts::Matches>, UsageError> {
    flags.optflag("h", "help", "print this help");
    flags.optflag("V", "version", "print the version");
    let matches = match flags.parse(arguments) {
        Ok(matches) => matches,
        Err(why) => return refuse(format!("{why}; see {program} --help")),
    };
    if matches.opt_present("help") {
        return Ok(Parsed::Print(flags.usage(brief)));
    }
    if matches.opt_present("version") {
        return Ok(Parsed::Print(format!("{program} {}\n", env!("CARGO_PKG_VERSION"))));
    }
    if let Some(stray) = matches.free.first() {
        return refuse(format!("unexpected argument '{stray}'; see {program} --help"));
    }
    Ok(Parsed::Serve(matches))
}

/// Prints what was asked for, and is done.
pub fn print(text: &str) -> ExitCode {
    // A closed pipe is no reason to fail.
    let _closed = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// A connection is a descriptor: takes as many as the system allows this process. Returns how many
/// it may have open at once.
pub fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _as_before = setrlimit(Resource::Nofile, raised);
    let current = getrlimit(Resource::Nofile).current;
    current.and_then(|it| usize::try_from(it).ok()).unwrap_or(usize::MAX)
}

/// What was attempted and each reason below it, in one line.
pub fn whole_story(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut below = error.source();
    while let Some(reason) = below {
        line.push_str(&format!(": {reason}"));
        below = reason.source();
    }
    line
}
