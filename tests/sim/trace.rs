//! What happened, as lines in columns, kept only when asked for; and as one number, always.
//!
//! ```text
//! true time   who       what        details
//!   12.345ms  n2        turn        term=3 leader commit=17 applied=17 last=18@3
//! ```

use crate::chance::{fold, u64_of};
use crate::output::tell;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;

/// Multiplies bits all over a word: the golden ratio's, as in many a hash.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Lines kept for the report of a failure.
const KEPT: usize = 100;

/// Where lines go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tracing {
    Off,
    /// The last lines, for a report.
    Keep,
    /// All of them, to standard output.
    Print,
}

thread_local! {
    static LINES: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

/// The lines kept on this thread, oldest first.
pub(crate) fn take_lines() -> Vec<String> {
    LINES.take().into()
}

#[derive(Debug)]
pub(crate) struct Trace {
    tracing: Tracing,
    /// Of everything that happened: every byte said, and every entry of every log.
    pub(crate) hash: u64,
    pub(crate) events: u64,
}

impl Trace {
    pub(crate) fn new(tracing: Tracing) -> Trace {
        Trace { tracing, hash: 0, events: 0 }
    }

    pub(crate) fn add(&mut self, value: u64) {
        self.hash = fold(self.hash, value);
    }

    /// What was said, every byte of it.
    pub(crate) fn add_bytes(&mut self, bytes: &[u8]) {
        let mut hash = u64_of(bytes.len());
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            // Little for each word, for there are many; `add` mixes what comes of them.
            hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(ODD);
        }
        self.add(hash);
    }

    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.tracing != Tracing::Off
    }

    pub(crate) fn line(&self, now: u64, who: Who, what: &str, details: fmt::Arguments<'_>) {
        let line = format!(
            "{:>6}.{:06}ms  {who:<8}  {what:<10}  {details}",
            now / 1_000_000,
            now % 1_000_000
        );
        match self.tracing {
            Tracing::Off => {}
            Tracing::Print => tell!("{line}"),
            Tracing::Keep => LINES.with_borrow_mut(|lines| {
                if lines.len() == KEPT {
                    lines.pop_front();
                }
                lines.push_back(line);
            }),
        }
    }
}

/// Whom a line is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    Node(usize),
    Client(usize),
    World,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Who::Node(machine) => format!("n{}", machine + 1),
            Who::Client(client) => format!("c{client}"),
            Who::World => "world".to_owned(),
        };
        f.pad(&name)
    }
}

/// A line of the trace; costs nothing when nobody reads it.
macro_rules! say {
    ($world:expr, $who:expr, $what:expr, $($details:tt)*) => {
        if $world.trace.is_on() {
            $world.trace.line($world.now, $who, $what, format_args!($($details)*));
        }
    };
}
pub(crate) use say;
