//! Lines to standard output. Who reads no further, as `head` does, ends the process without a word.

use std::fmt;
use std::io::{ErrorKind, Write, stderr, stdout};

/// What a shell says of a process that SIGPIPE ended: 128 and the signal's number.
const NOBODY_READS: i32 = 141;
/// EX_IOERR: standard output cannot be written.
const CANNOT_WRITE: i32 = 74;

/// Like `println!`, which panics when nobody reads.
macro_rules! tell {
    ($($words:tt)*) => {
        $crate::output::line(format_args!($($words)*))
    };
}
pub(crate) use tell;

#[expect(clippy::disallowed_methods, reason = "there is nobody left to tell")]
pub(crate) fn line(words: fmt::Arguments<'_>) {
    let written = writeln!(stdout().lock(), "{words}");
    match written {
        Ok(()) => {}
        Err(why) if why.kind() == ErrorKind::BrokenPipe => std::process::exit(NOBODY_READS),
        Err(why) => {
            complain(format_args!("sim: cannot write to standard output: {why}"));
            std::process::exit(CANNOT_WRITE);
        }
    }
}

/// A line to standard error, if anybody reads it.
pub(crate) fn complain(words: fmt::Arguments<'_>) {
    let _ = writeln!(stderr().lock(), "{words}");
}
