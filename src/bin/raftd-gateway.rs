//! `raftd-gateway`: parses, runs, and maps errors to exit codes.
//!
//! 0 stopped by a signal · 2 wrong flags · 3 cannot serve (the line says why)

use raftd::gateway::{Options, serve};
use raftd::program::{Parsed, arguments, print, raise_descriptor_limit, whole_story};
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

const USAGE: u8 = 2;
const REFUSED: u8 = 3;

fn main() -> ExitCode {
    let options = match arguments().and_then(|arguments| Options::parse(&arguments)) {
        Ok(Parsed::Serve(options)) => options,
        Ok(Parsed::Print(text)) => return print(&text),
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

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        // Without files to read again it ends the program, as it always has.
        let hangups = options.tls.as_ref().map(|_| signal(SignalKind::hangup())).transpose()?;
        Ok(serve(options, either(terminate, interrupt), hangups).await?)
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
