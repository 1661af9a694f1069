//! Why a load ended before its time.

use std::error::Error;
use std::fmt;
use std::io;

/// Why a load ended before its time.
#[derive(Debug)]
pub enum LoadError {
    /// The operating system refused.
    Io {
        /// What was attempted.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Bytes that are no answer, or an answer to nothing.
    Answer {
        /// What is wrong with them.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A server would not speak with us.
    TurnedAway {
        /// Its words.
        why: String,
    },
    /// Who led at the start no longer leads.
    LeaderLost,
    /// More refusals than a load that says anything.
    Refused {
        /// How many.
        count: u64,
        /// The last one.
        last: String,
    },
    /// Nobody answered for long.
    Stalled {
        /// How many operations wait.
        in_flight: usize,
    },
}

impl LoadError {
    pub(super) fn answer(source: impl Into<Box<dyn Error + Send + Sync>>) -> LoadError {
        LoadError::Answer { source: source.into() }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Io { doing, .. } => write!(f, "cannot {doing}"),
            LoadError::Answer { .. } => f.write_str("cannot understand an answer"),
            LoadError::TurnedAway { why } => write!(f, "the server refused the client: {why}"),
            LoadError::LeaderLost => f.write_str("the leader lost its leadership during the load"),
            LoadError::Refused { count, last } => {
                write!(f, "{count} operations were refused, the last one: {last}")
            }
            LoadError::Stalled { in_flight } => {
                write!(f, "no answer for 10 s, {in_flight} operations wait")
            }
        }
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            LoadError::Io { source, .. } => Some(source),
            LoadError::Answer { source } => Some(&**source),
            LoadError::TurnedAway { .. }
            | LoadError::LeaderLost
            | LoadError::Refused { .. }
            | LoadError::Stalled { .. } => None,
        }
    }
}
