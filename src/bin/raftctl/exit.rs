//! How the program ends: the exit codes that scripts rely on.

use std::process::ExitCode;

use raftd::client::{Attempt, Error, Why};
use raftd::wire::error::Error as WireError;

/// An end that is not success, and what to say about it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What kind of end.
    pub(crate) end: End,
    /// What to print on standard error.
    pub(crate) why: anyhow::Error,
}

/// The kinds of end, numbered as `raftctl --help` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Done.
    Done,
    /// Refused, or certainly not done.
    Refused,
    /// The command line is wrong.
    Usage,
    /// Nobody reachable, or no leader.
    Unavailable,
    /// A write may or may not be done.
    OutcomeUnknown,
    /// Reachable, but not as it should be.
    Unhealthy,
}

impl From<End> for ExitCode {
    fn from(end: End) -> ExitCode {
        ExitCode::from(match end {
            End::Done => 0,
            End::Refused => 1,
            End::Usage => 2,
            End::Unavailable => 3,
            End::OutcomeUnknown => 4,
            End::Unhealthy => 5,
        })
    }
}

impl Failure {
    pub(crate) fn usage(why: &'static str) -> Failure {
        Failure { end: End::Usage, why: anyhow::Error::msg(why) }
    }

    /// Certainly not done, and this is why.
    pub(crate) fn refused(why: String) -> Failure {
        Failure { end: End::Refused, why: anyhow::Error::msg(why) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let end = match &error {
            Error::Refused { .. } => End::Refused,
            Error::OutcomeUnknown { .. } => End::OutcomeUnknown,
            // Somebody leads and says no, for longer than we wait.
            Error::Unavailable { attempts, .. } if attempts.iter().any(is_refusal) => End::Refused,
            Error::Unavailable { .. } => End::Unavailable,
        };
        Failure { end, why: error.into() }
    }
}

fn is_refusal(attempt: &Attempt) -> bool {
    matches!(attempt.why, Why::Answer(WireError::Busy { .. } | WireError::NoSpace))
}
