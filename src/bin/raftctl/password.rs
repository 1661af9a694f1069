//! Passwords: of whoever asks, and those that are to be set. They are asked for on the terminal,
//! without being shown.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use raftd::client::Login;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::exit::{End, Failure};

/// Whom `--user` and `--password` stand for.
pub(crate) fn login(
    user: Option<String>,
    password: Option<String>,
) -> Result<Option<Login>, Failure> {
    let Some(user) = user else { return Ok(None) };
    let (name, password) = match (password, user.split_once(':')) {
        (Some(password), _) => (user, password),
        (None, Some((name, password))) => (name.to_owned(), password.to_owned()),
        (None, None) => {
            if !io::stdin().is_terminal() {
                return Err(Failure::usage(
                    "there is no terminal to ask for the password on: give it as --password or \
                     as --user NAME:PASSWORD, or in RAFTCTL_USER",
                ));
            }
            let password = ask(&format!("Password of {user}: "))?;
            (user, password)
        }
    };
    if name.is_empty() {
        return Err(Failure::usage("--user has no name in front of the password"));
    }
    Ok(Some(Login::new(name, password)))
}

/// A password that is to be set: from the terminal, twice the same; else the first line of standard
/// input.
pub(crate) fn new_password(user: &str) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return read_line();
    }
    let password = ask(&format!("Password of {user}: "))?;
    let again = ask(&format!("Type password of {user} again for confirmation: "))?;
    if password == again {
        Ok(password)
    } else {
        Err(Failure::refused("the two passwords differ: nothing was done".to_owned()))
    }
}

fn ask(question: &str) -> Result<String, Failure> {
    // Nobody is left to ask if standard error is closed.
    let _ = write!(io::stderr(), "{question}");
    let _ = io::stderr().flush();
    let quiet = Quiet::begin();
    let line = read_line();
    drop(quiet);
    // The line break that was typed was not shown either.
    let _ = writeln!(io::stderr());
    line
}

fn read_line() -> Result<String, Failure> {
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .context("cannot read the password")
        .map_err(|why| Failure { end: End::Refused, why })?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that does not show what is typed, for as long as this lives.
struct Quiet {
    before: Option<Termios>,
}

impl Quiet {
    fn begin() -> Quiet {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).ok();
        if let Some(before) = &before {
            let mut quiet = before.clone();
            quiet.local_modes.remove(LocalModes::ECHO);
            // Then it is shown: better than not to be asked.
            let _ = tcsetattr(&stdin, OptionalActions::Now, &quiet);
        }
        Quiet { before }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
