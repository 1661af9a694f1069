//! raftctl: puts, gets, deletes, status, members and disasters from the command line.
mod args;
mod exit;
mod log;
mod members;
mod output;
mod restore;
mod save;
mod snapshot;
mod status;
mod txn;
mod verbs;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use raftd::client::{Client, ClientOptions};
use raftd::types::{ClusterId, Revision};

use args::{Cli, Verb};
use exit::{End, Failure};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version come here as well, with exit code 0.
        Err(why) => {
            let end = if why.use_stderr() { End::Usage } else { End::Done };
            // Nobody is left to hear that standard output is closed.
            let _ = why.print();
            return end.into();
        }
    };
    match run(cli) {
        Ok(end) => end.into(),
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "raftctl: {:#}", failure.why);
            failure.end.into()
        }
    }
}

fn run(cli: Cli) -> Result<End, Failure> {
    let options =
        ClientOptions { endpoints: cli.endpoints, timeout: cli.timeout, cluster_id: ClusterId(0) };
    let mut client = Client::new(options);
    let (text, end) = match cli.verb {
        Verb::Put(args) => (verbs::put(&mut client, cli.output, args)?, End::Done),
        Verb::Get(args) => (verbs::get(&mut client, cli.output, args)?, End::Done),
        Verb::Del(args) => (verbs::del(&mut client, cli.output, &args)?, End::Done),
        Verb::Txn { interactive } => (txn::txn(&mut client, cli.output, interactive)?, End::Done),
        Verb::Compact { revision } => {
            (verbs::compact(&mut client, cli.output, Revision(revision.0))?, End::Done)
        }
        Verb::Status => status::status(&client, cli.output),
        Verb::Member(verb) => (members::member(&mut client, cli.output, verb)?, End::Done),
        Verb::TransferLeader { id } => {
            (members::transfer_leader(&mut client, cli.output, id)?, End::Done)
        }
        Verb::Log(verb) => log::log(cli.output, verb)?,
        Verb::Snapshot(verb) => snapshot::snapshot(&mut client, cli.output, verb)?,
        Verb::Completions { shell } => (args::completions(shell), End::Done),
    };
    print(&text)?;
    Ok(end)
}

/// A reader that has seen enough (`raftctl get --prefix "" | head`) is no failure.
fn print(text: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(why) if why.kind() != ErrorKind::BrokenPipe => {
            let why = Err(why).context("cannot write to standard output");
            why.map_err(|why| Failure { end: End::Refused, why })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
