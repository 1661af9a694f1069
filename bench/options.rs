//! The command line.

use crate::Result;
use crate::rows::{self, Group, Row};
use std::time::Duration;

/// What the command line asked for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// These rows.
    Measure(Plan),
    /// This text.
    Print(String),
}

/// What to measure, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Rows by the systems they share.
    pub(crate) groups: Vec<Group>,
    /// Measured time of a row. Milliseconds.
    pub(crate) row_ms: u64,
    /// Into how many slices that time is cut; each has its own connections and its own warming up.
    pub(crate) slices: u32,
    /// How often two systems are measured in turns, A B B A.
    pub(crate) rounds: u32,
}

fn flags() -> getopts::Options {
    let mut flags = getopts::Options::new();
    flags.optflag("", "full", "the whole table, longer; half an hour and more");
    flags.optmulti(
        "",
        "only",
        "only rows whose name contains this, as 'shm put 100x10'; looked for in the quick rows \
         first, then in the whole table",
        "TEXT",
    );
    flags.optopt("", "seconds", "measured seconds a row (default 2, full 10)", "N");
    flags.optopt("", "rounds", "rounds of A B B A with each peer (default 3, full 5)", "N");
    flags.optflag(
        "",
        "list",
        "print the rows' names and end; with --full those of the whole table",
    );
    flags.optflag("", "bench", "what cargo adds; means nothing");
    flags.optflag("h", "help", "print this help");
    flags
}

impl Plan {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(args: &[String]) -> Result<Asked> {
        let flags = flags();
        let matches = flags.parse(args)?;
        if matches.opt_present("help") {
            let brief = "Usage: cargo bench -- [options] [TEXT, as --only]";
            return Ok(Asked::Print(flags.usage(brief)));
        }
        let full = matches.opt_present("full");
        let row_ms = milliseconds(matches.opt_str("seconds"), full)?;
        let rounds = match matches.opt_str("rounds") {
            Some(rounds) => rounds.parse::<u32>()?.clamp(1, 100),
            None => 3 + 2 * u32::from(full),
        };
        let mut only = matches.opt_strs("only");
        only.extend(matches.free.iter().cloned());
        let groups = chosen(rows::groups(full), &only)
            .or_else(|| chosen(rows::groups(true), &only))
            .ok_or_else(|| format!("no row's name contains any of {only:?}"))?;
        if matches.opt_present("list") {
            return Ok(Asked::Print(names(&groups)));
        }
        Ok(Asked::Measure(Plan { groups, row_ms, slices: 5, rounds }))
    }
}

fn milliseconds(seconds: Option<String>, full: bool) -> Result<u64> {
    let seconds: f64 = match seconds {
        Some(seconds) => seconds.parse()?,
        None if full => 10.0,
        None => 2.0,
    };
    if !(0.1..=3600.0).contains(&seconds) {
        return Err("--seconds must lie between 0.1 and 3600".into());
    }
    Ok(u64::try_from(Duration::from_secs_f64(seconds).as_millis())?)
}

/// The rows whose names contain one of `only`; `None` if there are none.
fn chosen(mut groups: Vec<Group>, only: &[String]) -> Option<Vec<Group>> {
    let wanted =
        |row: &Row| only.is_empty() || only.iter().any(|text| row.name.contains(text.as_str()));
    for group in &mut groups {
        group.rows.retain(wanted);
    }
    groups.retain(|group| !group.rows.is_empty());
    Some(groups).filter(|groups| !groups.is_empty())
}

fn names(groups: &[Group]) -> String {
    let rows = groups.iter().flat_map(|group| &group.rows);
    rows.map(|row| format!("{}\n", row.name)).collect()
}
