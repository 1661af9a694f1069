//! A test program of the copy: building it, running it within a limit, reading what it says.

use super::weave::PLANTED;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// A test program, by how it is built and started.
pub(crate) struct Suite {
    /// What cargo builds.
    pub(crate) build: &'static [&'static str],
    pub(crate) arguments: Vec<String>,
    /// The bug that is in force, of those in the program.
    pub(crate) planted: u32,
}

impl Suite {
    /// What cargo builds, as a file's name.
    pub(crate) fn name(&self) -> &'static str {
        self.build.last().expect("cargo is told what to build").trim_start_matches('-')
    }
}

/// How a program ended.
pub(crate) enum End {
    Passed,
    Failed {
        said: String,
    },
    /// It was still running at its limit, and was ended.
    Hung,
}

/// Builds the program. `Err` is what the compiler says.
pub(crate) fn build(root: &Path, suite: &Suite) -> Result<PathBuf, String> {
    let built = Command::new(env!("CARGO"))
        .args(["test", "--no-run", "--color=never", "--profile", "sim", "--no-default-features"])
        .args(suite.build)
        .current_dir(root)
        .env("CARGO_TARGET_DIR", target(root))
        // Building anew takes longer than most bugs live.
        .env("CARGO_PROFILE_SIM_DEBUG", "none")
        .env("CARGO_PROFILE_SIM_OPT_LEVEL", "1")
        .output()
        .map_err(|why| format!("cannot start cargo: {why}"))?;
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    if !built.status.success() {
        return Err(said);
    }
    let program = said.lines().rev().find_map(|line| {
        let (_, program) = line.trim().strip_prefix("Executable ")?.rsplit_once('(')?;
        program.strip_suffix(')').map(PathBuf::from)
    });
    program.ok_or_else(|| format!("cargo names no program: {said}"))
}

fn target(root: &Path) -> PathBuf {
    root.parent().expect("the copy lies in a folder").join("build")
}

/// Runs a program for at most `limit`.
pub(crate) fn run(
    root: &Path,
    program: &Path,
    suite: &Suite,
    limit: Duration,
) -> Result<(End, Duration), String> {
    let start = now();
    let mut child = Command::new(root.join(program))
        .args(&suite.arguments)
        .current_dir(root)
        .env("CARGO_MANIFEST_DIR", root)
        .env(PLANTED, suite.planted.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|why| format!("cannot start {program:?}: {why}"))?;
    let (done, ended) = mpsc::channel();
    let readers = [
        read_on(child.stdout.take().expect("it is piped"), done.clone()),
        read_on(child.stderr.take().expect("it is piped"), done),
    ];
    let hung = !both_end(&ended, start, limit);
    if hung {
        end(&mut child)?;
    }
    let status = child.wait().map_err(|why| why.to_string())?;
    let said: Vec<String> =
        readers.into_iter().map(|reader| reader.join().expect("reading does not panic")).collect();
    let said = said.concat();
    let end = match (hung, status.success()) {
        (true, _) => End::Hung,
        (false, true) => End::Passed,
        (false, false) => End::Failed { said },
    };
    Ok((end, start.elapsed()))
}

/// Collects what comes through a pipe; says when its other end is closed.
fn read_on(
    mut pipe: impl Read + Send + 'static,
    done: mpsc::Sender<()>,
) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is all there is.
        let _ = pipe.read_to_end(&mut bytes);
        let _ = done.send(());
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits until both pipes are closed, which is when the program has ended.
fn both_end(ended: &mpsc::Receiver<()>, start: Instant, limit: Duration) -> bool {
    (0..2).all(|_| {
        let left = limit.saturating_sub(start.elapsed());
        ended.recv_timeout(left) != Err(RecvTimeoutError::Timeout)
    })
}

fn end(child: &mut Child) -> Result<(), String> {
    child.kill().map_err(|why| format!("cannot end a program that hangs: {why}"))
}

#[expect(clippy::disallowed_methods, reason = "how long a mutant lives is printed, and limited")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
