//! `cargo bench`: what operations cost on real servers, raftd's and those of others.
//!
//! Starts processes on free loopback ports, raftd's own and whatever of etcd and Redis is found on
//! PATH, fills them, measures row by row and in turns, reads every key back, compares the servers'
//! states, and removes what it made. `cargo bench -- --help` names the options.
//!
//! | file | what |
//! |---|---|
//! | `options`, `rows` | the command line; what is measured |
//! | `systems/` | those who are measured, and how they are spoken to |
//! | `measure`, `contest`, `group` | a slice of load; a row and its peers in turns; a group |
//! | `kill`, `recovery` | what clients see while a leader dies; how long a start takes |
//! | `parts/` | what each piece of an operation costs by itself |
//! | `floor`, `proc`, `strace`, `memory` | what the machine allows, and what it counts |
//! | `stats`, `report`, `results` | medians and ratios, for people and for machines |
//! | `compare` | whether two runs agree |
//! | `model`, `plots`, `plot/` | what should be by counting; pictures |

mod compare;
mod contest;
mod floor;
mod group;
mod kill;
mod measure;
mod memory;
mod model;
mod options;
mod parts;
mod plot;
mod plots;
mod proc;
mod recovery;
mod report;
mod results;
mod rows;
mod scratch;
mod stats;
mod strace;
mod systems;
mod wait;

use model::Model;
use options::{Asked, Plan};
use parts::Figures;
use proc::Machine;
use raftd::client::Clock;
use raftd::program::{raise_descriptor_limit, whole_story};
use report::Facts;
use rows::{Group, Medium};
use serde_json::Value;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use systems::{Found, Who};

/// What went wrong, for a person to read.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match Plan::parse(&args) {
        Ok(Asked::Print(text)) => say(&text),
        Ok(Asked::Compare(first, second)) => {
            compare::runs(&disk_directory(), &first, &second).and_then(|text| say(&text))
        }
        Ok(Asked::Measure(plan)) => measure_all(&plan),
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed stderr leaves the exit code to tell.
            let _closed = writeln!(io::stderr(), "bench: {}", whole_story(&*error));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.trim_end())?;
    Ok(out.flush()?)
}

/// `target/bench`, wherever `target` is.
fn disk_directory() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap_or(tmp).join("bench")
}

fn directory_of(medium: Medium) -> PathBuf {
    match medium {
        Medium::Disk => disk_directory(),
        Medium::Memory => PathBuf::from("/dev/shm"),
    }
}

/// What all sections share.
struct Bench<'p> {
    clock: Clock,
    plan: &'p Plan,
    facts: Facts,
    /// Where results go.
    directory: PathBuf,
}

fn measure_all(plan: &Plan) -> Result<()> {
    raise_descriptor_limit();
    let directory = disk_directory();
    fs::create_dir_all(&directory)?;
    let bench = Bench { clock: Clock::start(), plan, facts: facts(plan)?, directory };
    say(&bench.facts.text())?;
    let figures = bench.parts()?;
    // Each for itself: what went wrong in one is said at the end, and the others are measured.
    let done = [bench.rows(&figures), bench.kills(), bench.recoveries()];
    let failed = done.into_iter().filter_map(Result::err);
    let failed: Vec<String> = failed.map(|error| whole_story(&*error)).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
}

fn facts(plan: &Plan) -> Result<Facts> {
    let place = |medium| -> Result<String> {
        let directory = directory_of(medium);
        Ok(format!("{} · {}", proc::file_system_of(&directory)?, directory.display()))
    };
    let slice_ms = plan.row_ms / u64::from(plan.slices);
    Ok(Facts {
        machine: Machine::look(),
        disk: place(Medium::Disk)?,
        memory: place(Medium::Memory)?,
        peers: Found::look(),
        time: format!(
            "slices of {slice_ms} ms, {} a row, or {} rounds of four with each peer",
            plan.slices, plan.rounds
        ),
        may_trace: strace::is_possible(),
    })
}

impl Bench<'_> {
    /// Writes the rows of a section, and says where.
    fn write(&self, name: &str, rows: &Value) -> Result<()> {
        let path = results::write(&self.directory, name, &self.facts, rows)?;
        say(&format!("written to {}\n", path.display()))
    }

    fn parts(&self) -> Result<Figures> {
        let mut figures = Figures::default();
        let parts = &self.plan.catalogue.parts;
        for part in parts {
            let found = parts::measure(self.clock, *part, &self.directory)
                .map_err(|error| format!("{}: {}", part.name(), whole_story(&*error)))?;
            say(&Figures::lines(&found))?;
            figures.extend(found);
        }
        if !parts.is_empty() {
            self.write("parts", &figures.json())?;
        }
        Ok(figures)
    }

    fn rows(&self, figures: &Figures) -> Result<()> {
        let groups = &self.plan.catalogue.groups;
        if groups.is_empty() {
            return Ok(());
        }
        say(&report::head())?;
        let (mut rows, mut outcomes) = (Vec::new(), Vec::new());
        let mut failed = Vec::new();
        for group in groups {
            let mut found = Vec::new();
            let measured =
                group::measure(self.clock, self.plan, group, &self.facts, figures, &mut found);
            if let Err(error) = measured {
                // The others may go well: what is missing is said at the end.
                let story = whole_story(&*error);
                say(&format!("    FAILED: {story}"))?;
                failed.push(story);
            }
            for outcome in found {
                rows.push(results::row(group, &outcome, figures));
                outcomes.push((group.clone(), outcome));
            }
            // After every group, so that a run that is cut short leaves what it has.
            let so_far = Value::from(rows.clone());
            results::write(&self.directory, &self.plan.name, &self.facts, &so_far)?;
        }
        for file in plots::of_rows(&self.directory, &outcomes, &Model::new(figures))? {
            say(&format!("drawn in {}", file.display()))?;
        }
        self.write(&self.plan.name, &Value::from(rows))?;
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
    }

    fn kills(&self) -> Result<()> {
        let kills = &self.plan.catalogue.kills;
        if kills.is_empty() {
            return Ok(());
        }
        let group = Group {
            medium: kill::MEDIUM,
            keys: kill::KEYS,
            value_bytes: kill::VALUE_BYTES,
            nodes: 3,
            rows: Vec::new(),
        };
        let mut side = group::start(self.clock, &group, "raftd".to_owned(), Who::Raftd)?;
        let mut rows = Vec::new();
        for kill in kills {
            let (seen, said) = kill::measure(self.clock, &mut side, *kill)
                .map_err(|error| format!("{}: {}", kill.name(), whole_story(&*error)))?;
            say(&said)?;
            for file in plots::of_kill(&self.directory, *kill, &seen)? {
                say(&format!("drawn in {}", file.display()))?;
            }
            rows.push(kill::json(*kill, &seen, &said));
        }
        group::check(self.clock, &mut side)?;
        self.write("kill", &Value::from(rows))
    }

    fn recoveries(&self) -> Result<()> {
        let recoveries = &self.plan.catalogue.recoveries;
        let (mut found, mut rows) = (Vec::new(), Vec::new());
        for recovery in recoveries {
            let name = recovery.name();
            let recovered = recovery::measure(self.clock, *recovery, &self.directory)
                .map_err(|error| format!("{name}: {}", whole_story(&*error)))?;
            say(&recovered.line(&name))?;
            rows.push(recovered.json(&name));
            found.push(recovered);
        }
        if let Some(file) = plots::of_recoveries(&self.directory, &found)? {
            say(&format!("drawn in {}", file.display()))?;
        }
        if rows.is_empty() { Ok(()) } else { self.write("recovery", &Value::from(rows)) }
    }
}
