//! `cargo bench`: what a put and a linearizable get cost on three real servers, on disk and on
//! /dev/shm.
//!
//! Starts `raftd` processes on free loopback ports, fills them, measures row by row, reads every
//! key back,
//! compares the servers' states, and removes what it made. `cargo bench -- --help` names the
//! options.

mod clock;
mod cluster;
mod control;
mod floor;
mod ledger;
mod link;
mod load;
mod measure;
mod memory;
mod plan;
mod proc;
mod report;

use clock::Clock;
use cluster::{Cluster, Scratch};
use floor::Floor;
use ledger::Ledger;
use load::Work;
use measure::Bench;
use memory::Reserve;
use plan::{Asked, Group, Medium, Plan};
use proc::Machine;
use report::Facts;
use serde_json::Value;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What went wrong, for a person to read.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// How long the disk may take to recover from the filling before the first row.
const REST: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match Plan::parse(&args) {
        Ok(Asked::Help(text)) => say(&text),
        Ok(Asked::Measure(plan)) => measure_all(&plan),
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed stderr leaves the exit code to tell.
            let _closed = writeln!(io::stderr(), "bench: {error}");
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

fn measure_all(plan: &Plan) -> Result<()> {
    let clock = Clock::start();
    fs::create_dir_all(disk_directory())?;
    let facts = facts(plan)?;
    say(&facts.text())?;
    say(&report::head())?;
    let mut rows = Vec::new();
    for group in &plan.groups {
        measure_group(clock, plan, group, &mut rows)?;
    }
    let result = disk_directory().join("result.json");
    fs::write(&result, report::document(&facts, &rows)?)?;
    say(&format!("\nwritten to {}", result.display()))
}

fn facts(plan: &Plan) -> Result<Facts> {
    let place = |medium| -> Result<String> {
        let directory = directory_of(medium);
        Ok(format!("{} · {}", proc::file_system_of(&directory)?, directory.display()))
    };
    let (row_ms, slices) = (plan.row_ms, plan.slices);
    Ok(Facts {
        machine: Machine::look(),
        disk: place(Medium::Disk)?,
        memory: place(Medium::Memory)?,
        time: format!("{row_ms} ms a row in {slices} slices"),
    })
}

fn measure_group(clock: Clock, plan: &Plan, group: &Group, rows: &mut Vec<Value>) -> Result<()> {
    let parent = directory_of(group.medium);
    let mut floor = Floor::prepare(clock, &parent)?;
    let rested_ns = floor.sync_p50_ns()?;
    let directory = Scratch::make(&parent, &format!("{}k", group.keys / 1000))?;
    let mut cluster = Cluster::start(clock, directory)?;
    let mut ledger = Ledger::new(group.keys);
    let filled = measure::every_key(clock, Work::Fill, &mut cluster, &mut ledger)?;
    if filled.errors() > 0 {
        return Err(format!("while filling: {:?}", filled.errors).into());
    }
    let reserve = Reserve::hold(plan, group)?;
    rest(clock, group, &mut floor, rested_ns)?;
    let mut bench = Bench { clock, plan, cluster, ledger, floor, reserve };
    for row in &group.rows {
        let measured = measure::row(&mut bench, *row)?;
        say(&report::line(&measured))?;
        rows.push(report::json(&measured));
    }
    let Bench { mut cluster, mut ledger, .. } = bench;
    let checked = measure::every_key(clock, Work::Check, &mut cluster, &mut ledger)?;
    if checked.errors() + checked.wrong > 0 {
        let (wrong, errors) = (checked.wrong, &checked.errors);
        return Err(format!("reading back: {wrong} keys wrong, errors {errors:?}").into());
    }
    cluster.agree()?;
    let keys = group.keys;
    say(&format!("    read back: all {keys} keys as acknowledged; three equal states"))
}

/// After a bulk write a disk syncs slowly for a while: waits until it syncs as it did before.
fn rest(clock: Clock, group: &Group, floor: &mut Floor, rested_ns: u64) -> Result<()> {
    if group.medium == Medium::Memory {
        return Ok(());
    }
    if !floor.is_pinned() {
        say("    one core only: the floor's echoes share it")?;
    }
    let rested = clock.poll_until(REST, || {
        let now_ns = floor.sync_p50_ns()?;
        Ok((now_ns <= rested_ns + rested_ns / 4).then_some(()))
    })?;
    match rested {
        Some(()) => Ok(()),
        None => say("    the disk has not recovered from the filling: its syncs are still slow"),
    }
}
