//! Tests that need what not every machine has say so.

use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Says loudly that a test cannot be run by this user on this machine. Where everything must be
/// run, in CI, that is a failure.
pub(crate) fn not_tested(why: &str) {
    // To the descriptor itself: what a passing test prints is not shown.
    let _closed = writeln!(io::stderr(), "NOT TESTED: {why}");
    assert!(std::env::var_os("CI").is_none(), "CI must test everything: {why}");
}

/// Whether strace is here and may trace; says so if not.
pub(crate) fn strace_works() -> bool {
    let mut probe = Command::new("strace");
    probe.args(["-f", "-e", "trace=none", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    let works = probe.status().is_ok_and(|status| status.success());
    if !works {
        not_tested("strace is not installed, or may not trace");
    }
    works
}
