//! raftctl: puts, gets, deletes, loads, status, members and disasters from the command line.
mod args;
mod auth;
mod bench;
mod exit;
mod leases;
mod log;
mod members;
mod output;
mod password;
mod repl;
mod restore;
mod save;
mod snapshot;
mod status;
mod turns;
mod txn;
mod verbs;
mod watch;

use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use raftd::client::{Client, ClientOptions};
use raftd::types::{ClusterId, Revision};

use args::{Cli, Format, Verb};
use exit::{End, Failure};
use status::View;

fn main() -> ExitCode {
    let parsed = Cli::try_parse().and_then(|cli| {
        let nobody_to_ask = cli.verb.is_none() && !repl::is_possible();
        if nobody_to_ask { Err(args::a_verb_is_missing()) } else { Ok(cli) }
    });
    let cli = match parsed {
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
    // Whoever only reads a directory or a file need not be known.
    let asks = cli.verb.as_ref().is_none_or(Verb::asks_the_cluster);
    let login = if asks { password::login(cli.user, cli.password)? } else { None };
    let (endpoints, timeout, cluster_id) = (cli.endpoints, cli.timeout, ClusterId(0));
    let options = ClientOptions { endpoints, timeout, cluster_id, login };
    let mut client = Client::new(options);
    let Some(verb) = cli.verb else { return repl::converse(&mut client, cli.output) };
    let (text, end) = carry_out(&mut client, cli.output, verb)?;
    print(&text)?;
    Ok(end)
}

/// Does what a verb says. Returns what to print, and how it ended.
fn carry_out(client: &mut Client, output: Format, verb: Verb) -> Result<(Vec<u8>, End), Failure> {
    Ok(match verb {
        Verb::Put(args) => (verbs::put(client, output, args)?, End::Done),
        Verb::Get(args) => (verbs::get(client, output, args)?, End::Done),
        Verb::Del(args) => (verbs::del(client, output, &args)?, End::Done),
        Verb::Txn { interactive } => (txn::txn(client, output, interactive)?, End::Done),
        Verb::Compact { revision } => {
            (verbs::compact(client, output, Revision(revision.0))?, End::Done)
        }
        Verb::Lease(verb) => (leases::lease(client, output, verb)?, End::Done),
        Verb::Bench(args) => bench::bench(client, output, &args)?,
        Verb::Status { turns: false } => status::status(client, output, View::State),
        Verb::Status { turns: true } => status::status(client, output, View::Turns),
        Verb::Member(verb) => (members::member(client, output, verb)?, End::Done),
        Verb::TransferLeader { id } => (members::transfer_leader(client, output, id)?, End::Done),
        Verb::Auth(verb) => (auth::auth(client, output, verb)?, End::Done),
        Verb::User(verb) => (auth::user(client, output, verb)?, End::Done),
        Verb::Role(verb) => (auth::role(client, output, verb)?, End::Done),
        Verb::Log(verb) => log::log(output, verb)?,
        Verb::Snapshot(verb) => snapshot::snapshot(client, output, verb)?,
        // It prints by itself, as long as it goes on.
        Verb::Watch(args) => (Vec::new(), watch::watch(client.options().clone(), output, &args)?),
        Verb::Completions { shell } => (args::completions(shell), End::Done),
    })
}

fn print(text: &[u8]) -> Result<(), Failure> {
    print_on(text).map(|_| ())
}

/// Prints, and says whether anybody wants more: a reader that has seen enough (`raftctl get
/// --prefix "" | head`) is no failure.
fn print_on(text: &[u8]) -> Result<ControlFlow<()>, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(why) if why.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(why) => {
            let why = Err(why).context("cannot write to standard output");
            why.map_err(|why| Failure { end: End::Refused, why })
        }
    }
}
