//! How the program ends: the exit codes that scripts rely on.

use std::process::ExitCode;

use raftd::client::{Attempt, Error, Why};
use raftd::wal::OpenError;
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
    /// A data directory or a snapshot is damaged. The number is that of raftd, which refuses it.
    Damaged,
}

impl From<End> for ExitCode {
    fn from(end: End) -> ExitCode {
        ExitCode::from(match end {
            End::Done => 0,
            End::Refused => 1,
            End::Usage => 2,
            End::Unavailable | End::Damaged => 3,
            End::OutcomeUnknown => 4,
            End::Unhealthy => 5,
        })
    }
}

impl Failure {
    pub(crate) fn usage(why: &'static str) -> Failure {
        Failure { end: End::Usage, why: anyhow::Error::msg(why) }
    }

    /// A data directory or a file of one cannot be used.
    pub(crate) fn of_directory(error: OpenError) -> Failure {
        let end = match &error {
            OpenError::InUse { .. }
            | OpenError::WrongNode { .. }
            | OpenError::WrongCluster { .. }
            | OpenError::NotADataDirectory { .. }
            | OpenError::NetworkFileSystem { .. }
            | OpenError::Version { .. }
            | OpenError::HalfRestored { .. }
            | OpenError::NotEmpty { .. }
            | OpenError::Io { .. } => End::Refused,
            OpenError::Incomplete { .. }
            | OpenError::IdentityDamaged { .. }
            | OpenError::HardStateLost { .. }
            | OpenError::Stray { .. }
            | OpenError::OtherDisk { .. }
            | OpenError::Damaged(_)
            | OpenError::SnapshotDamaged { .. } => End::Damaged,
        };
        let why = if let OpenError::NotADataDirectory { path } = error {
            anyhow::anyhow!("{} is not a data directory of raftd", path.display())
        } else {
            error.into()
        };
        Failure { end, why }
    }

    /// A saved snapshot cannot be used. It is nobody's data directory.
    pub(crate) fn of_snapshot(error: OpenError) -> Failure {
        if let OpenError::SnapshotDamaged { path, damage } = error {
            let why = anyhow::anyhow!("{}: {damage}: take another copy", path.display());
            return Failure { end: End::Damaged, why };
        }
        if let OpenError::Io { doing, path, source } = error {
            let what = format!("cannot {doing} {}", path.display());
            return Failure { end: End::Refused, why: anyhow::Error::new(source).context(what) };
        }
        Failure::of_directory(error)
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
            Error::OutcomeUnknown { .. } | Error::AnswerNotKept { .. } => End::OutcomeUnknown,
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
