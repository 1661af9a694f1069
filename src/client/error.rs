//! What can go wrong between a client and a cluster, by what the caller can do about it.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::types::Revision;
use crate::wire::error::Error as WireError;
use crate::wire::fields::DecodeError;
use crate::wire::frame::FrameError;

/// Why one connection could not be opened, or is of no use any more.
#[derive(Debug)]
pub enum ConnectionError {
    /// The endpoint's name has no address.
    Resolve {
        /// The endpoint.
        endpoint: String,
        /// Why not; `None` if it resolved to nothing.
        source: Option<io::Error>,
    },
    /// Nobody answers there.
    Connect {
        /// The endpoint.
        endpoint: String,
        /// Why not.
        source: io::Error,
    },
    /// The node does not take us.
    Refused {
        /// The endpoint.
        endpoint: String,
        /// What it says.
        source: WireError,
    },
    /// Sending or receiving failed.
    Io {
        /// The endpoint.
        endpoint: String,
        /// What failed.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The deadline passed.
    TimedOut {
        /// The endpoint.
        endpoint: String,
        /// What was waited for.
        doing: &'static str,
    },
    /// The other side hung up.
    Closed {
        /// The endpoint.
        endpoint: String,
    },
    /// A frame of an impossible length.
    Frame {
        /// The endpoint.
        endpoint: String,
        /// Why it is none.
        source: FrameError,
    },
    /// Whoever answers does not know the password that it is to know: no server of the cluster.
    Impostor {
        /// The endpoint.
        endpoint: String,
    },
    /// A body that is not the reply it should be.
    Reply {
        /// The endpoint.
        endpoint: String,
        /// Why not; `None` if it is a reply to something else.
        source: Option<DecodeError>,
    },
}

impl ConnectionError {
    /// What a server has said of the login, if that is why: asking others, or again, is in vain.
    pub(super) fn login_refusal(&self) -> Option<(String, WireError)> {
        let ConnectionError::Refused { endpoint, source } = self else { return None };
        matches!(source, WireError::Auth { .. }).then(|| (endpoint.clone(), source.clone()))
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectionError::Resolve { endpoint, .. } => write!(f, "cannot resolve {endpoint}"),
            ConnectionError::Connect { endpoint, .. } => write!(f, "cannot connect to {endpoint}"),
            ConnectionError::Refused { endpoint, .. } => {
                write!(f, "{endpoint} refused the connection")
            }
            ConnectionError::Io { endpoint, doing, .. } => write!(f, "cannot {doing} {endpoint}"),
            ConnectionError::TimedOut { endpoint, doing } => {
                write!(f, "{endpoint} took too long: {doing}")
            }
            ConnectionError::Closed { endpoint } => write!(f, "{endpoint} closed the connection"),
            ConnectionError::Impostor { endpoint } => {
                write!(f, "{endpoint} does not know the password, and may be no server of yours")
            }
            ConnectionError::Frame { endpoint, .. } | ConnectionError::Reply { endpoint, .. } => {
                write!(f, "{endpoint} does not speak raftd's protocol")
            }
        }
    }
}

impl StdError for ConnectionError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            ConnectionError::Resolve { source: Some(source), .. }
            | ConnectionError::Connect { source, .. }
            | ConnectionError::Io { source, .. } => Some(source),
            ConnectionError::Refused { source, .. } => Some(source),
            ConnectionError::Frame { source, .. } => Some(source),
            ConnectionError::Reply { source: Some(source), .. } => Some(source),
            ConnectionError::Resolve { source: None, .. }
            | ConnectionError::Reply { source: None, .. }
            | ConnectionError::TimedOut { .. }
            | ConnectionError::Impostor { .. }
            | ConnectionError::Closed { .. } => None,
        }
    }
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum Error {
    /// Certainly not done: nobody reached within the timeout could do it. Try again later.
    Unavailable {
        /// The timeout.
        within: Duration,
        /// The last word of every endpoint tried.
        attempts: Vec<Attempt>,
    },
    /// Certainly not done: the request itself was refused.
    Refused {
        /// Who refused.
        endpoint: String,
        /// Why.
        source: WireError,
    },
    /// Done, by an earlier copy of the call, whose answer was lost; it was too large to be kept.
    AnswerNotKept {
        /// The store's revision after the call.
        revision: Revision,
    },
    /// Perhaps done: a write was sent, and no answer came or one that does not know.
    OutcomeUnknown {
        /// Who may have done it.
        attempt: Attempt,
    },
}

/// What came of asking one endpoint.
#[derive(Debug)]
pub struct Attempt {
    /// Whom we asked.
    pub endpoint: String,
    /// Why that was in vain.
    pub why: Why,
}

/// Why asking one endpoint was in vain.
#[derive(Debug)]
pub enum Why {
    /// The connection failed.
    Connection(ConnectionError),
    /// The node answered an error.
    Answer(WireError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unavailable { within, attempts } if attempts.is_empty() => {
                write!(f, "no node answered within {within:?}")
            }
            Error::Unavailable { within, attempts } => {
                write!(f, "no node could do it within {within:?} (")?;
                for (at, attempt) in attempts.iter().enumerate() {
                    let separator = if at == 0 { "" } else { "; " };
                    write!(f, "{separator}{attempt}")?;
                }
                f.write_str(")")
            }
            Error::Refused { endpoint, .. } => write!(f, "{endpoint} refused the request"),
            Error::AnswerNotKept { revision } => {
                write!(f, "done, at revision {revision} at the latest; the answer was lost")
            }
            Error::OutcomeUnknown { attempt } => write!(
                f,
                "sent to {}, but nobody knows the end: the write may or may not be done",
                attempt.endpoint
            ),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Unavailable { .. } | Error::AnswerNotKept { .. } => None,
            Error::Refused { source, .. } => Some(source),
            Error::OutcomeUnknown { attempt } => match &attempt.why {
                Why::Connection(why) => Some(why),
                Why::Answer(why) => Some(why),
            },
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::Answer(why) => write!(f, "{}: {why}", self.endpoint),
            Why::Connection(why) => {
                // The connection's error names the endpoint itself.
                write!(f, "{why}")?;
                match why.source() {
                    Some(source) => write!(f, ": {source}"),
                    None => Ok(()),
                }
            }
        }
    }
}
