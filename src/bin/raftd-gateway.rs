//! `raftd-gateway`: parses, runs, and maps errors to exit codes.
//!
//! 0 stopped by a signal · 2 wrong flags · 3 cannot serve (the line says why)

use raftd::gateway::{Options, Parsed, serve};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

const USAGE: u8 = 2;
const REFUSED: u8 = 3;

fn main() -> ExitCode {
    let arguments: Result<Vec<String>, _> =
        std::env::args_os().skip(1).map(OsString::into_string).collect();
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(argument) => return say(USAGE, &format!("the argument {argument:?} is not UTF-8")),
    };
    let options = match Options::parse(&arguments) {
        Ok(Parsed::Serve(options)) => options,
        Ok(Parsed::Print(text)) => {
            // A closed pipe is no reason to fail.
            let _closed = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => return say(USAGE, &error.to_string()),
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    raise_descriptor_limit();
    log::info!("starting version={} pid={}", env!("CARGO_PKG_VERSION"), std::process::id());
    match run(&options) {
        Ok(()) => {
            log::info!("stopped reason=signal");
            ExitCode::SUCCESS
        }
        Err(error) => say(REFUSED, &whole_story(&*error)),
    }
}

/// A client is a descriptor: takes as many as the system allows this process.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _as_before = setrlimit(Resource::Nofile, raised);
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(serve(options, either(terminate, interrupt)).await?)
    })
}

async fn either(mut one: Signal, mut other: Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

fn say(code: u8, why: &str) -> ExitCode {
    let _closed = writeln!(io::stderr(), "raftd-gateway: {why}");
    ExitCode::from(code)
}

/// What was attempted and each reason below it, in one line.
fn whole_story(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut below = error.source();
    while let Some(reason) = below {
        line.push_str(&format!(": {reason}"));
        below = reason.source();
    }
    line
}
