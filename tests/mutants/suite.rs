//! A test program of the copy: building it, running it within a limit, reading what it says.

use super::weave::PLANTED;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// What a program may have of memory: ten times what it takes without a bug. Bytes.
const MEMORY_MAX: u64 = 4 << 30;
/// What is kept of what a program says, of its beginning and of its end. Bytes.
const SAID_MAX: usize = 4 << 20;

/// A test program, by how it is built and started.
#[derive(Clone)]
pub(crate) struct Suite {
    /// Of its program, and of no other.
    pub(crate) name: &'static str,
    /// What cargo builds.
    pub(crate) build: &'static [&'static str],
    pub(crate) arguments: Vec<String>,
    /// The bug that is in force, of those in the program.
    pub(crate) planted: u32,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Passed,
    Failed {
        said: String,
        /// By itself, or by which signal.
        how: ExitStatus,
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
        // It names the program, and warns of what a bug leaves over.
        .env("CARGO_TERM_QUIET", "false")
        .envs(std::env::var("RUSTFLAGS").map(|flags| ("RUSTFLAGS", flags + " --cap-lints=warn")))
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

/// The first of the errors, if all of them are assertions that the compiler evaluated.
pub(crate) fn failed_assertion(said: &str) -> Option<&str> {
    let errors = said.lines().filter(|line| line.starts_with("error["));
    let mut words = errors.map(|line| line.split_once("evaluation panicked: "));
    let (_, first) = words.next()??;
    words.all(|split| split.is_some()).then_some(first)
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
        // The last line says why it ended.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|why| format!("cannot start {program:?}: {why}"))?;
    bound(&child);
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
        (false, false) => End::Failed { said, how: status },
    };
    Ok((end, start.elapsed()))
}

/// Sees to it that a bug takes no more memory than there is, and that its end leaves no file.
fn bound(child: &Child) {
    for (resource, most) in [(Resource::Data, MEMORY_MAX), (Resource::Core, 0)] {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        // Who has ended already needs no bound.
        let _ = prlimit(Some(Pid::from_child(child)), resource, limit);
    }
}

/// Collects what comes through a pipe, but not the middle of too much; says when its other end is
/// closed.
fn read_on(
    mut pipe: impl Read + Send + 'static,
    done: mpsc::Sender<()>,
) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let (mut bytes, mut part) = (Vec::new(), vec![0; 65_536]);
        loop {
            match pipe.read(&mut part) {
                Ok(length @ 1..) => bytes.extend_from_slice(&part[..length]),
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                // What was read before an error is all there is.
                Ok(0) | Err(_) => break,
            }
            if bytes.len() > 4 * SAID_MAX {
                bytes.drain(SAID_MAX..bytes.len() - SAID_MAX);
            }
        }
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

/// Ends a program, and the servers that it has started.
fn end(child: &mut Child) -> Result<(), String> {
    let started = started_by(&child.id().to_string());
    child.kill().map_err(|why| format!("cannot end a program that hangs: {why}"))?;
    for pid in started.iter().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
        // Who has ended meanwhile is what was wanted.
        let _ = kill_process(pid, Signal::KILL);
    }
    Ok(())
}

/// The processes that one has started, and those that they have: any thread may have.
fn started_by(process: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")));
    let lists: Vec<String> = lists.map(Result::unwrap_or_default).collect();
    let own = lists.iter().flat_map(|list| list.split_whitespace());
    own.flat_map(|pid| [vec![pid.to_owned()], started_by(pid)].concat()).collect()
}

#[expect(clippy::disallowed_methods, reason = "how long a mutant lives is printed, and limited")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
