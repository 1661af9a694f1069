//! What a log asks of the operating system, as strace sees it: only a power loss would show what
//! was left out. This program runs itself, for the one test that writes real files and opens them
//! again.

use crate::untested::strace_works;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const RUN: &str = "wal::operating_system::a_log_on_a_disk_is_read_back";
/// The files of the log are below this in the data directory of that test, which it makes anew.
const DATA: &str = "/deep/data";

/// The calls that begin, one a line, with the paths of their descriptors.
struct Trace {
    lines: Vec<String>,
    /// Where the data directory was, with what is above it.
    temporary: PathBuf,
}

/// `None` where this user may not trace.
fn trace() -> Option<&'static Trace> {
    static TRACE: OnceLock<Option<Trace>> = OnceLock::new();
    TRACE.get_or_init(|| strace_works().then(run_traced)).as_ref()
}

fn run_traced() -> Trace {
    let directory = tempfile::tempdir().unwrap();
    // As the system names it.
    let temporary = std::fs::canonicalize(directory.path()).unwrap();
    let file = temporary.join("trace");
    let status = Command::new("strace")
        .args(["-f", "-y", "-s", "4096", "-e", "trace=openat,fsync", "-o"])
        .arg(&file)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", RUN])
        .env("TMPDIR", &temporary)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{RUN}: {status}");
    let text = std::fs::read_to_string(file).unwrap();
    let calls = text.lines().filter(|line| !line.contains(" resumed>"));
    let lines: Vec<String> = calls.map(str::to_owned).collect();
    assert!(lines.iter().any(|line| line.contains(DATA)), "{RUN} was not run");
    Trace { lines, temporary }
}

/// The directory or file whose sync this line begins.
fn synced(line: &str) -> Option<&str> {
    let (_, behind) = line.split_once("fsync(")?;
    let (_, path) = behind.split_once('<')?;
    path.split_once('>').map(|(path, _)| path)
}

/// The segment that this line opens, and how.
fn opened(line: &str) -> Option<(&str, &str)> {
    let (_, behind) = line.split_once("openat(")?;
    let (path, how) = behind.split_once("\", ")?;
    let (_, path) = path.split_once('"')?;
    path.ends_with(".seg").then_some((path, how))
}

/// Else the file is gone after a power loss, and with it what was acknowledged from it.
#[test]
fn the_directory_is_synced_after_each_segment_that_is_made() {
    let Some(trace) = trace() else { return };
    let (mut made, mut unsynced) = (0, None);
    for line in &trace.lines {
        if let Some((path, how)) = opened(line)
            && how.contains("O_EXCL")
        {
            assert_eq!(unsynced, None, "{path} is made as well");
            unsynced = Some(path);
            made += 1;
        } else if synced(line).is_some_and(|path| path.ends_with("/deep/data/log")) {
            unsynced = None;
        }
    }
    assert!(made > 3, "{made} segments are few");
}

/// Else all of it is gone. The directories above it that are made are made durable in theirs.
#[test]
fn a_new_data_directory_is_made_durable_in_its_parent() {
    let Some(trace) = trace() else { return };
    let is_synced = |is_it: &dyn Fn(&Path) -> bool| {
        let mut all = trace.lines.iter().filter_map(|line| synced(line));
        all.any(|path| is_it(Path::new(path)))
    };
    assert!(is_synced(&|path| path.ends_with("deep")), "for the data directory");
    assert!(
        is_synced(&|path| path.parent() == Some(trace.temporary.as_path())),
        "for the one above it"
    );
}

/// After a sync that failed the page cache shows what the medium does not have.
#[test]
fn a_log_is_recovered_from_the_medium_and_not_from_memory() {
    let Some(trace) = trace() else { return };
    let opened = trace.lines.iter().filter_map(|line| opened(line));
    let mut direct: Vec<&str> =
        opened.filter(|(_, how)| how.contains("O_DIRECT")).map(|(path, _)| path).collect();
    direct.sort_unstable();
    direct.dedup();
    assert!(direct.len() > 3, "{direct:?}");
}
