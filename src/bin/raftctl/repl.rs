//! Verbs one after the other: what raftctl is on a terminal, if it is started without one. What is
//! typed is kept for the arrow keys and written nowhere: values may be secrets.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::Command;

use anyhow::Context;
use clap::{CommandFactory, Parser, ValueEnum};
use raftd::client::{Client, ClientOptions};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Editor, Helper};

use super::args::{Format, LeaseVerb, Verb};
use super::carry_out;
use super::exit::{End, Failure};
use super::txn;
use super::verbs::{Reach, reach_of_get};

const PROMPT: &str = "raftd> ";

/// A line of the conversation: a verb, and how to print what comes back.
#[derive(Parser, Debug)]
#[command(name = "raftd>", no_binary_name = true, disable_version_flag = true)]
struct Line {
    /// How to print what comes back.
    #[arg(long, short, global = true, value_enum)]
    output: Option<Format>,
    #[command(subcommand)]
    verb: Spoken,
}

#[derive(clap::Subcommand, Debug)]
enum Spoken {
    #[command(flatten)]
    Verb(Verb),
    /// End the conversation, as Ctrl-D does.
    #[command(visible_alias = "quit")]
    Exit,
}

/// Whether there is somebody to talk to.
pub(crate) fn is_possible() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Asks for verbs and carries them out, until the terminal has no more. A verb that fails says so,
/// and the next one is asked for.
pub(crate) fn converse(client: &mut Client, format: Format) -> Result<End, Failure> {
    let ended = |why: ReadlineError| Failure {
        end: End::Refused,
        why: anyhow::Error::new(why).context("cannot read from the terminal"),
    };
    let mut editor = Editor::with_history(Config::default(), MemHistory::new()).map_err(ended)?;
    editor.set_helper(Some(Verbs::known()));
    loop {
        let line = match editor.readline(PROMPT) {
            Ok(line) => line,
            // Ctrl-C gives up the line, Ctrl-D all of it.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Io(why)) if why.kind() == ErrorKind::InvalidData => {
                say(&anyhow::anyhow!("what was typed is not UTF-8: write \\xHH within quotes"));
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(End::Done),
            Err(why) => return Err(ended(why)),
        };
        if line.trim().is_empty() {
            continue;
        }
        // It is only not remembered.
        let _ = editor.add_history_entry(line.as_str());
        match read(&line) {
            Ok((Line { verb: Spoken::Exit, .. }, _)) => return Ok(End::Done),
            Ok((Line { output, verb: Spoken::Verb(verb) }, words)) => {
                if takes_the_terminal(&verb) {
                    let format = output.is_none().then_some(format);
                    in_a_process(client.options(), format, &words).unwrap_or_else(|why| say(&why));
                } else {
                    answer(client, output.unwrap_or(format), verb)?;
                }
            }
            Err(why) => say(&why),
        }
    }
}

/// What a line says, and its words.
fn read(line: &str) -> anyhow::Result<(Line, Vec<OsString>)> {
    let words = txn::words(line.trim().as_bytes()).context("a quotation does not end")?;
    Ok((Line::try_parse_from(&words)?, words))
}

/// Whether a verb goes on until Ctrl-C, says much, or reads the terminal itself. What others say is
/// nobody's to see: a process has its words where all can read them.
fn takes_the_terminal(verb: &Verb) -> bool {
    match verb {
        Verb::Watch(_)
        | Verb::Bench(_)
        | Verb::Txn { .. }
        | Verb::Member(_)
        | Verb::Snapshot(_)
        | Verb::Log(_) => true,
        Verb::Lease(LeaseVerb::KeepAlive { once, .. }) => !once,
        Verb::Put(put) => put.value.as_deref() == Some(OsStr::new("-")),
        Verb::Get(get) => reach_of_get(get) != Reach::Key,
        Verb::User(user) => user.asks_for_a_password(),
        Verb::Del(_)
        | Verb::Compact { .. }
        | Verb::Lease(_)
        | Verb::Status { .. }
        | Verb::TransferLeader { .. }
        | Verb::Auth(_)
        | Verb::Role(_)
        | Verb::Completions { .. } => false,
    }
}

/// Carries a verb out as a process of its own. Here the editor catches Ctrl-C, and nobody hears of
/// it before the next line is asked for; there it ends the verb, and the conversation goes on.
fn in_a_process(
    options: &ClientOptions,
    format: Option<Format>,
    words: &[OsString],
) -> anyhow::Result<()> {
    // Itself, also if another version has been put in its place.
    let mut command = Command::new("/proc/self/exe");
    command.arg("--endpoints").arg(options.endpoints.join(","));
    command.arg("--timeout").arg(format!("{}ms", options.timeout.as_millis()));
    if let Some(login) = &options.login {
        // The environment of a process is its owner's; its arguments are everybody's.
        command.env("RAFTCTL_USER", format!("{}:{}", login.user(), login.password()));
    }
    if let Some(name) = format.and_then(|format| format.to_possible_value()) {
        command.arg("--output").arg(name.get_name());
    }
    // One that is ended while it reads a password leaves the terminal as it was for that.
    let before = tcgetattr(std::io::stdin());
    // How it ends, it says itself.
    let ended = command.args(words).status().context("cannot start raftctl");
    if let Ok(before) = before {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
    ended.map(|_| ())
}

fn answer(client: &mut Client, format: Format, verb: Verb) -> Result<(), Failure> {
    match carry_out(client, format, verb) {
        Ok((text, _)) => super::print(&text),
        Err(failure) => {
            say(&failure.why);
            Ok(())
        }
    }
}

/// clap's errors are whole texts, help among them.
fn say(why: &anyhow::Error) {
    let _ = match why.downcast_ref::<clap::Error>() {
        Some(told) => told.print(),
        None => writeln!(std::io::stderr(), "{why:#}"),
    };
}

/// Completes the first word of a line.
#[derive(Debug)]
struct Verbs(Vec<String>);

impl Verbs {
    fn known() -> Verbs {
        let line = Line::command();
        Verbs(line.get_subcommands().map(|verb| verb.get_name().to_owned()).collect())
    }

    fn beginning_with<'a>(&'a self, begun: &'a str) -> impl Iterator<Item = &'a String> {
        self.0.iter().filter(move |verb| verb.starts_with(begun))
    }
}

impl Completer for Verbs {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let pair = |verb: &String| Pair { display: verb.clone(), replacement: format!("{verb} ") };
        let found = self.beginning_with(&line[..at]).map(pair).collect();
        Ok((0, found))
    }
}

impl Hinter for Verbs {
    type Hint = String;
}

impl Highlighter for Verbs {}

impl Validator for Verbs {}

impl Helper for Verbs {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_verb_with_its_flags_and_quotation_marks() {
        let (line, _) = read("put \"a key\" value -o json").unwrap();
        assert_eq!(line.output, Some(Format::Json));
        let Spoken::Verb(Verb::Put(put)) = line.verb else { panic!("{line:?}") };
        assert_eq!(put.key, "a key");
        assert!(matches!(read(" exit ").unwrap().0.verb, Spoken::Exit));
        assert!(matches!(read("quit").unwrap().0.verb, Spoken::Exit));
        assert!(read("put \"a").is_err());
        assert!(read("pit a b").unwrap_err().to_string().contains("put"), "it guesses");
    }

    #[test]
    fn verbs_are_completed() {
        let verbs = Verbs::known();
        assert_eq!(verbs.beginning_with("sta").collect::<Vec<_>>(), ["status"]);
        assert!(verbs.beginning_with("").any(|verb| verb == "exit"));
    }
}
