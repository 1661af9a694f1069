//! The command line.

use crate::Result;
use crate::kill::Kill;
use crate::parts::{self, Part};
use crate::recovery::Recovery;
use crate::rows::{self, Group};
use std::time::Duration;

/// What the command line asked for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// These rows.
    Measure(Plan),
    /// This text.
    Print(String),
    /// Whether the runs of these names agree.
    Compare(String, String),
}

/// What to measure, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What is measured.
    pub(crate) catalogue: Catalogue,
    /// Measured time of a row. Milliseconds.
    pub(crate) row_ms: u64,
    /// Into how many slices that time is cut; each has its own connections and its own warming up.
    pub(crate) slices: u32,
    /// How often two systems are measured in turns, A B B A.
    pub(crate) rounds: u32,
    /// What the file of the rows is called.
    pub(crate) name: String,
}

/// Everything that can be measured, or what was chosen of it.
#[derive(Clone, Debug)]
pub(crate) struct Catalogue {
    /// Pieces of operations.
    pub(crate) parts: Vec<Part>,
    /// Rows by the systems they share.
    pub(crate) groups: Vec<Group>,
    /// Leaders to be killed.
    pub(crate) kills: Vec<Kill>,
    /// Logs to start from.
    pub(crate) recoveries: Vec<Recovery>,
}

impl Catalogue {
    fn of(full: bool) -> Catalogue {
        let (mut kills, mut recoveries) = (Vec::new(), Vec::new());
        if full {
            kills.extend([Kill::Once, Kill::Often { times: 50 }]);
            recoveries.extend([16, 64, 256, 1024].map(|log_mib| Recovery { log_mib }));
        }
        Catalogue { parts: parts::all(full), groups: rows::groups(full), kills, recoveries }
    }

    /// What has one of `only` in its name; `None` if nothing has.
    fn chosen(mut self, only: &[String]) -> Option<Catalogue> {
        let wanted =
            |name: &str| only.is_empty() || only.iter().any(|text| name.contains(text.as_str()));
        self.parts.retain(|part| wanted(&part.name()));
        for group in &mut self.groups {
            group.rows.retain(|row| wanted(&row.name));
        }
        self.groups.retain(|group| !group.rows.is_empty());
        self.kills.retain(|kill| wanted(&kill.name()));
        self.recoveries.retain(|recovery| wanted(&recovery.name()));
        Some(self).filter(|catalogue| !catalogue.names().is_empty())
    }

    fn names(&self) -> Vec<String> {
        let rows = self.groups.iter().flat_map(|group| &group.rows);
        let parts = self.parts.iter().map(|part| part.name());
        let kills = self.kills.iter().map(|kill| kill.name());
        let recoveries = self.recoveries.iter().map(|recovery| recovery.name());
        parts.chain(rows.map(|row| row.name.clone())).chain(kills).chain(recoveries).collect()
    }
}

fn flags() -> getopts::Options {
    let mut flags = getopts::Options::new();
    flags.optflag("", "full", "the whole table, and longer");
    flags.optmulti(
        "",
        "only",
        "only rows whose name contains this, as 'shm put 100x10'; looked for in the quick rows \
         first, then in the whole table",
        "TEXT",
    );
    flags.optopt("", "seconds", "measured seconds a row (default 2, full 5)", "N");
    flags.optopt("", "rounds", "rounds of A B B A with each peer (default 3, full 5)", "N");
    flags.optopt("", "name", "write the rows to NAME.json (default result)", "NAME");
    flags.optmulti(
        "",
        "compare",
        "measure nothing, and say how far the ratios of two runs agree: twice, with their names",
        "NAME",
    );
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
        match &matches.opt_strs("compare")[..] {
            [] => {}
            [first, second] => return Ok(Asked::Compare(first.clone(), second.clone())),
            [_] | [_, _, _, ..] => return Err("--compare is given twice, with two names".into()),
        }
        let full = matches.opt_present("full");
        let row_ms = milliseconds(matches.opt_str("seconds"), full)?;
        let rounds = match matches.opt_str("rounds") {
            Some(rounds) => rounds.parse::<u32>()?.clamp(1, 100),
            None => 3 + 2 * u32::from(full),
        };
        let mut only = matches.opt_strs("only");
        only.extend(matches.free.iter().cloned());
        let catalogue = Catalogue::of(full)
            .chosen(&only)
            .or_else(|| Catalogue::of(true).chosen(&only))
            .ok_or_else(|| format!("no row's name contains any of {only:?}"))?;
        if matches.opt_present("list") {
            return Ok(Asked::Print(catalogue.names().join("\n")));
        }
        let name = matches.opt_str("name").unwrap_or_else(|| "result".to_owned());
        if ["parts", "kill", "recovery"].contains(&&*name) {
            return Err(format!("--name {name}: that file has something else").into());
        }
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(format!("--name takes letters, digits and -, not {name:?}").into());
        }
        Ok(Asked::Measure(Plan { catalogue, row_ms, slices: 5, rounds, name }))
    }
}

fn milliseconds(seconds: Option<String>, full: bool) -> Result<u64> {
    let seconds: f64 = match seconds {
        Some(seconds) => seconds.parse()?,
        None if full => 5.0,
        None => 2.0,
    };
    if !(0.1..=3600.0).contains(&seconds) {
        return Err("--seconds must lie between 0.1 and 3600".into());
    }
    Ok(u64::try_from(Duration::from_secs_f64(seconds).as_millis())?)
}
