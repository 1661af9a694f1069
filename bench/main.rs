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
//! | `measure`, `contest` | one slice of load; a row, in turns with its peers |
//! | `parts/` | what each piece of an operation costs by itself |
//! | `floor`, `proc`, `strace`, `memory` | what the machine allows, and what it counts |
//! | `stats`, `report`, `results` | medians and ratios, for people and for machines |

mod contest;
mod floor;
mod measure;
mod memory;
mod options;
mod parts;
mod proc;
mod report;
mod results;
mod rows;
mod scratch;
mod stats;
mod strace;
mod systems;
mod wait;

use contest::Stage;
use floor::Floor;
use measure::Contestant;
use memory::Reserve;
use options::{Asked, Plan};
use parts::Figures;
use proc::{Device, Machine};
use raftd::client::Clock;
use raftd::client::load::{Layout, Ledger, Work, float};
use report::Facts;
use rows::{Group, Medium};
use serde_json::Value;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use systems::{Found, System, Who};

/// What went wrong, for a person to read.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// How long the disk may take to recover from the filling before the first row.
const REST: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match Plan::parse(&args) {
        Ok(Asked::Print(text)) => say(&text),
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

/// What was attempted and each reason below it, in one line.
fn whole_story(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut below = error.source();
    while let Some(reason) = below {
        line.push_str(&format!(": {reason}"));
        below = reason.source();
    }
    line
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

fn measure_all(plan: &Plan) -> Result<()> {
    let clock = Clock::start();
    fs::create_dir_all(disk_directory())?;
    let facts = facts(plan)?;
    say(&facts.text())?;
    let figures = measure_parts(clock, plan, &facts)?;
    if plan.catalogue.groups.is_empty() {
        return Ok(());
    }
    say(&report::head())?;
    let mut rows = Vec::new();
    for group in &plan.catalogue.groups {
        measure_group(clock, plan, group, &facts, &figures, &mut rows)?;
        // After every group, so that a run that is cut short leaves what it has.
        results::write(&disk_directory(), "result", &facts, &Value::from(rows.clone()))?;
    }
    say(&format!("\nwritten to {}", disk_directory().join("result.json").display()))
}

fn measure_parts(clock: Clock, plan: &Plan, facts: &Facts) -> Result<Figures> {
    let mut figures = Figures::default();
    for part in &plan.catalogue.parts {
        let found = parts::measure(clock, *part, &disk_directory())
            .map_err(|error| format!("{}: {}", part.name(), whole_story(&*error)))?;
        say(&Figures::lines(&found))?;
        figures.extend(found);
    }
    if !plan.catalogue.parts.is_empty() {
        let path = results::write(&disk_directory(), "parts", facts, &figures.json())?;
        say(&format!("written to {}\n", path.display()))?;
    }
    Ok(figures)
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

fn measure_group(
    clock: Clock,
    plan: &Plan,
    group: &Group,
    facts: &Facts,
    figures: &Figures,
    rows: &mut Vec<Value>,
) -> Result<()> {
    let parent = directory_of(group.medium);
    let mut floor = Floor::prepare(clock, &parent)?;
    let rested_ns = floor.sync_p50_ns()?;
    let mut contestants = Vec::new();
    for who in group.whos().into_iter().filter(|who| facts.peers.has(*who)) {
        contestants.push(start(clock, group, facts.peers.name(who), who)?);
    }
    let reserve = Reserve::hold(plan, group)?;
    rest(group, &mut floor, rested_ns)?;
    let may_trace = facts.may_trace;
    let mut stage = Stage { clock, plan, contestants, floor, reserve, parent, may_trace };
    for row in &group.rows {
        let outcome = contest::row(&mut stage, row)?;
        say(&report::lines(group, &outcome, figures))?;
        rows.push(results::row(group, &outcome, figures));
    }
    for side in &mut stage.contestants {
        check(clock, side)?;
    }
    Ok(())
}

/// Starts a system and puts every key.
fn start(clock: Clock, group: &Group, name: String, who: Who) -> Result<Contestant> {
    let parent = directory_of(group.medium);
    let system = System::start(who, &parent, group.nodes)?;
    let layout = Layout::new(b"key-", 16, group.value_bytes).ok_or("values are too small")?;
    let ledger = Ledger::new(layout, group.keys);
    let device = Device::below(&parent)?;
    let mut side = Contestant { name, who, system, ledger, device, peaks: Vec::new() };
    let filled = measure::every_key(clock, &mut side, Work::Fill)?;
    if filled.refusals() > 0 {
        return Err(format!("{}: while filling: {:?}", side.name, filled.errors).into());
    }
    let mut resident = 0;
    for pid in side.system.pids() {
        resident += proc::resident_bytes(pid)?;
    }
    let (keys, bytes) = (group.keys, group.value_bytes);
    let each = float(resident) / 1e6 / f64::from(u32::try_from(side.system.pids().len())?);
    say(&format!(
        "    {}: {keys} keys with values of {bytes} bytes put; {each:.0} MB resident a server",
        side.name
    ))?;
    Ok(side)
}

/// Reads everything back, and compares the servers.
fn check(clock: Clock, side: &mut Contestant) -> Result<()> {
    if !side.who.has_revisions() {
        return Ok(());
    }
    let checked = measure::every_key(clock, side, Work::Check)?;
    if checked.refusals() + checked.wrong > 0 {
        let (wrong, errors) = (checked.wrong, &checked.errors);
        let name = &side.name;
        return Err(format!("{name}: reading back: {wrong} keys wrong, errors {errors:?}").into());
    }
    side.system.agree()?;
    say(&format!("    {}: read back: all {} keys as acknowledged", side.name, side.ledger.keys()))
}

/// After a bulk write a disk syncs slowly for a while: waits until it syncs as it did before.
fn rest(group: &Group, floor: &mut Floor, rested_ns: u64) -> Result<()> {
    if group.medium == Medium::Memory {
        return Ok(());
    }
    if !floor.is_pinned() {
        say("    one core only: the floor's echoes share it")?;
    }
    let rested = wait::until(REST, || {
        let now_ns = floor.sync_p50_ns()?;
        Ok((now_ns <= rested_ns + rested_ns / 4).then_some(()))
    })?;
    match rested {
        Some(()) => Ok(()),
        None => say("    the disk has not recovered from the filling: its syncs are still slow"),
    }
}
