//! The program, and what it prints.

use crate::harness::PATIENCE;
use crate::patience::eventually;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// What came of a verb that ended: what it printed, and behind that its errors.
pub(super) struct Run {
    pub(super) code: Option<i32>,
    pub(super) lines: Vec<String>,
}

/// Whether there is one.
pub(super) fn is_here() -> bool {
    let mut version = Command::new("etcdctl");
    version.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// etcdctl with these words, of which `''` and what stands between `'` are one each.
pub(super) fn etcdctl(endpoint: &str, words: &str) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoint]);
    let (mut rest, mut all) = (words.trim(), Vec::new());
    while !rest.is_empty() {
        let (word, behind) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').expect("a quote ends"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        all.push(word);
        rest = behind.trim_start();
    }
    command.args(all);
    command
}

/// Runs a verb that ends; if it does not, its code is that of `timeout`.
pub(super) fn run(endpoint: &str, words: &str, input: &str) -> Run {
    let mut command = Command::new("timeout");
    command.args(["30", "etcdctl"]).args(etcdctl(endpoint, words).get_args());
    command.env("ETCDCTL_API", "3");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may not want to read it.
    let _closed = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    // What it logs has times in it.
    let is_said = |line: &&str| line.starts_with("Error: ") || line.contains("healthy");
    let errors = errors.lines().filter(is_said);
    let lines = out.lines().chain(errors).map(str::to_owned).collect();
    Run { code: output.status.code(), lines }
}

/// A verb that does not end by itself.
pub(super) struct Endless {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Endless {
    pub(super) fn start(mut command: Command) -> Endless {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Endless { input: child.stdin.take().unwrap(), child, lines }
    }

    /// Types something.
    pub(super) fn say(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
    }

    /// The next line that it prints.
    pub(super) fn next(&mut self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("it prints something more")
    }

    /// Sends what a terminal sends for Ctrl-C.
    pub(super) fn interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    /// Its exit code, once it has ended.
    pub(super) fn end(&mut self) -> Option<i32> {
        eventually("it ends", PATIENCE, || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
