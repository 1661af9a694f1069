//! What is measured: the command line, the rows, and the order.

use crate::Result;
use crate::load::{Shape, Work};
use std::fmt;

/// Where the servers keep their logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Medium {
    /// `target/bench`, on whatever disk that is.
    Disk,
    /// `/dev/shm`: syncs cost nothing, what remains is CPU.
    Memory,
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Medium::Disk => "disk",
            Medium::Memory => "shm",
        })
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Where the logs are.
    pub(crate) medium: Medium,
    /// How many keys the store holds.
    pub(crate) keys: u32,
    /// What is asked.
    pub(crate) work: Work,
    /// How much at once.
    pub(crate) shape: Shape,
}

impl Row {
    /// Whether the row's latency is compared with the machine's floor, slice by slice.
    pub(crate) fn has_floor(&self) -> bool {
        let alone = self.shape == Shape { connections: 1, depth: 1 };
        self.medium == Medium::Disk && self.work == Work::Put && alone
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = match self.work {
            Work::Put | Work::Fill => "put",
            Work::Get | Work::Check => "get",
        };
        let Shape { connections, depth } = self.shape;
        let keys = self.keys / 1000;
        write!(f, "{} {work} {connections}x{depth} {keys}k", self.medium)
    }
}

/// Rows that share one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Where the logs are.
    pub(crate) medium: Medium,
    /// How many keys are put before the first row.
    pub(crate) keys: u32,
    /// In this order: the light ones first, so that the disk is rested for them.
    pub(crate) rows: Vec<Row>,
}

/// What the command line asked for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What to measure.
    pub(crate) groups: Vec<Group>,
    /// Measured time of a row. Milliseconds.
    pub(crate) row_ms: u64,
    /// Into how many slices that time is cut; each has its own connections and its own warming up.
    pub(crate) slices: u32,
}

const KEYS: u32 = 100_000;
const MORE_KEYS: u32 = 1_000_000;

fn groups(full: bool) -> Vec<Group> {
    let shapes = [(1, 1), (8, 8), (100, 10)];
    let mut groups = Vec::new();
    for medium in [Medium::Disk, Medium::Memory] {
        let mut shapes = shapes.to_vec();
        if full {
            shapes.push((100, 16));
        }
        groups.push(group(medium, KEYS, &shapes));
    }
    if full {
        groups.push(group(Medium::Memory, MORE_KEYS, &[(100, 10)]));
    }
    groups
}

fn group(medium: Medium, keys: u32, shapes: &[(usize, usize)]) -> Group {
    let mut rows = Vec::new();
    for (connections, depth) in shapes.iter().copied() {
        for work in [Work::Put, Work::Get] {
            rows.push(Row { medium, keys, work, shape: Shape { connections, depth } });
        }
    }
    Group { medium, keys, rows }
}

impl Plan {
    /// Reads the arguments after the program's name. `None`: help was asked for, and is in the
    /// error's place.
    pub(crate) fn parse(args: &[String]) -> Result<Asked> {
        let mut flags = getopts::Options::new();
        flags.optflag("", "full", "longer rows, 100x16, and a million keys");
        flags.optopt("", "seconds", "measured seconds a row (default 2, full 10)", "N");
        flags.optmulti(
            "",
            "only",
            "only rows whose name contains this, as 'shm put 100x10'",
            "TEXT",
        );
        flags.optflag("", "bench", "what cargo adds; means nothing");
        flags.optflag("h", "help", "print this help");
        let matches = flags.parse(args)?;
        if matches.opt_present("help") {
            let brief = "Usage: cargo bench -- [options] [TEXT, as --only]";
            return Ok(Asked::Help(flags.usage(brief)));
        }
        let full = matches.opt_present("full");
        let seconds: f64 = match matches.opt_str("seconds") {
            Some(seconds) => seconds.parse()?,
            None if full => 10.0,
            None => 2.0,
        };
        if !(0.1..=3600.0).contains(&seconds) {
            return Err("--seconds must lie between 0.1 and 3600".into());
        }
        let row_ms = u64::try_from(std::time::Duration::from_secs_f64(seconds).as_millis())?;
        let mut only = matches.opt_strs("only");
        only.extend(matches.free.iter().cloned());
        let wanted = |row: &Row| {
            let name = row.to_string();
            only.is_empty() || only.iter().any(|text| name.contains(text.as_str()))
        };
        let mut groups = groups(full);
        for group in &mut groups {
            group.rows.retain(wanted);
        }
        groups.retain(|group| !group.rows.is_empty());
        if groups.is_empty() {
            return Err(format!("no row's name contains any of {only:?}").into());
        }
        Ok(Asked::Measure(Plan { groups, row_ms, slices: 5 }))
    }
}

/// What the command line asked for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// These rows.
    Measure(Plan),
    /// This text.
    Help(String),
}
