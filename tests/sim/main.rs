//! The deterministic simulator: whole nodes (`replica::Node` with all that is in it, bytes on the
//! wire, disk jobs operation by operation) under a virtual clock, network and disk, from one seed.
//!
//! | file | what |
//! |---|---|
//! | `cli`, `runner`, `report`, `shrink` | seeds over threads; what is printed; smaller failures |
//! | `watchdog`, `output` | seeds that do not end; lines that nobody reads |
//! | `options`, `chance` | what a seed draws |
//! | `run` | one seed: safety, liveness, history |
//! | `world`, `queue`, `clock` | true time and what happens in it |
//! | `machine`, `turn`, `power` | nodes, their turns as a shell does them, their ends and starts |
//! | `wires`, `network/` | connections, and what becomes of bytes and frames |
//! | `disk/` | pages, platters, names, damage |
//! | `clients/`, `history/`, `finals` | who asks; whether the answers can be true |
//! | `rights/` | who may do what, as the log says it |
//! | `faults/`, `liveness` | what breaks; what must work when the rest is broken for ever |
//! | `invariants/`, `chain` | what must be true after every turn |
//! | `coverage`, `trace` | states that must be reached; what happened |
//!
//! Determinism: nothing but the seed decides. No clock, no address, no order of a hash map; events
//! due at the same time happen in the order in which they were asked for.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that prints: clippy's allowance for tests does not reach this target"
)]
#![allow(dead_code, reason = "the history's checks are shared with real clusters")]

mod chain;
mod chance;
mod checks;
mod cli;
mod clients;
mod clock;
mod coverage;
mod disk;
mod faults;
mod finals;
mod history;
mod invariants;
mod liveness;
mod machine;
mod network;
mod options;
mod output;
mod power;
mod queue;
mod report;
mod rights;
mod run;
mod runner;
mod shrink;
mod trace;
mod turn;
mod watchdog;
mod wires;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    run::catch_panics();
    match cli::Command::parse(std::env::args().skip(1)) {
        Ok(cli::Command::Help) => {
            output::line(format_args!("{}", cli::USAGE));
            ExitCode::SUCCESS
        }
        Ok(cli::Command::Seeds(asked)) => {
            let cores = runner::cores();
            watchdog::start(asked.seed_seconds, asked.jobs.unwrap_or(cores), cores);
            runner::run_seeds(&asked)
        }
        Ok(cli::Command::Checks(filter)) => {
            let cores = runner::cores();
            watchdog::start(watchdog::SEED_SECONDS, cores, cores);
            checks::run_checks(&filter)
        }
        Err(why) => {
            output::complain(format_args!("sim: {why}\n{}", cli::USAGE));
            ExitCode::from(2)
        }
    }
}
