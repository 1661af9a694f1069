//! Errors that reach a client. Each is in protocol.md with what to do about it. Style rule 29.

use crate::codec::msgpack::{DecodeError, Reader, write_array, write_uint};
use crate::codec::text::{read_text, write_text};
use crate::types::{ClusterId, NodeId, Revision};
use std::fmt;

/// Why a request was not done, or that nobody knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Certainly not done: this server does not lead. Ask `leader`, if it is known.
    NotLeader {
        /// The leader and its address.
        leader: Option<(NodeId, String)>,
    },
    /// Certainly not done: a bound has been reached. Ask again, later.
    Busy {
        /// What is full.
        what: String,
    },
    /// Certainly not done: the server's disk is full. Free space, then ask again.
    NoSpace,
    /// Certainly not done, and never will be as it is.
    BadRequest {
        /// What is wrong with it.
        why: String,
    },
    /// Certainly not done: larger than the server takes.
    TooLarge {
        /// The request's size. Bytes.
        bytes: u64,
        /// The largest it takes. Bytes.
        max: u64,
    },
    /// The history before this revision has been given up.
    Compacted {
        /// The oldest revision that can be read.
        compact_revision: Revision,
    },
    /// The revision has not been made yet.
    FutureRevision {
        /// The newest revision there is.
        revision: Revision,
    },
    /// Perhaps done: leadership ended before the answer was known.
    OutcomeUnknown,
    /// The hello named another cluster.
    WrongCluster {
        /// The cluster of the server.
        ours: ClusterId,
    },
    /// The hello named no version that the server speaks.
    Unsupported {
        /// The oldest it speaks.
        version_min: u16,
        /// The newest it speaks.
        version_max: u16,
    },
    /// Certainly not done: the server is not a member yet. Ask again, later or elsewhere.
    NotReady {
        /// What it waits for.
        why: String,
    },
    /// The server will not talk to this peer.
    Refused {
        /// Why.
        why: String,
    },
    /// A code that this version does not know. Treat a write as perhaps done.
    Unknown {
        /// The code.
        code: u64,
        /// What the server said.
        text: String,
    },
}

/// What a client may do with the same request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// It was certainly not done: ask again, at the leader if it was named.
    Elsewhere,
    /// It was certainly not done: ask again after a moment.
    Later,
    /// It was certainly not done and asking again does not help.
    Never,
    /// It may have been done: a write must not be repeated blindly.
    Unsafe,
}

impl Error {
    /// The number on the wire.
    pub fn code(&self) -> u64 {
        match self {
            Error::NotLeader { .. } => 1,
            Error::Busy { .. } => 2,
            Error::NoSpace => 3,
            Error::BadRequest { .. } => 4,
            Error::TooLarge { .. } => 5,
            Error::Compacted { .. } => 6,
            Error::FutureRevision { .. } => 7,
            Error::OutcomeUnknown => 8,
            Error::WrongCluster { .. } => 9,
            Error::Unsupported { .. } => 10,
            Error::NotReady { .. } => 11,
            Error::Refused { .. } => 12,
            Error::Unknown { code, .. } => *code,
        }
    }

    /// What may be done about it.
    pub fn retry(&self) -> Retry {
        match self {
            Error::NotLeader { .. } | Error::NotReady { .. } => Retry::Elsewhere,
            Error::Busy { .. } => Retry::Later,
            Error::NoSpace
            | Error::BadRequest { .. }
            | Error::TooLarge { .. }
            | Error::Compacted { .. }
            | Error::FutureRevision { .. }
            | Error::WrongCluster { .. }
            | Error::Unsupported { .. }
            | Error::Refused { .. } => Retry::Never,
            Error::OutcomeUnknown | Error::Unknown { .. } => Retry::Unsafe,
        }
    }

    /// Appends `[code, text, a, b]`; what a and b are depends on the code.
    pub fn encode(&self, out: &mut Vec<u8>) {
        write_array(out, 4);
        write_uint(out, self.code());
        let (number, other, text): (u64, u64, &str) = match self {
            Error::NotLeader { leader: Some((id, address)) } => (id.get(), 0, address),
            Error::NotLeader { leader: None } | Error::NoSpace | Error::OutcomeUnknown => (0, 0, ""),
            Error::Busy { what } => (0, 0, what),
            Error::BadRequest { why } | Error::NotReady { why } | Error::Refused { why } => {
                (0, 0, why)
            }
            Error::TooLarge { bytes, max } => (*bytes, *max, ""),
            Error::Compacted { compact_revision } => (compact_revision.0, 0, ""),
            Error::FutureRevision { revision } => (revision.0, 0, ""),
            Error::WrongCluster { ours } => {
                let (high, low) = halves(ours.0);
                (high, low, "")
            }
            Error::Unsupported { version_min, version_max } => {
                (u64::from(*version_min), u64::from(*version_max), "")
            }
            Error::Unknown { text, .. } => (0, 0, text),
        };
        write_text(out, text);
        write_uint(out, number);
        write_uint(out, other);
    }

    /// Reads what `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Error, DecodeError> {
        let length = reader.array()?;
        if length < 4 {
            return Err(DecodeError::Truncated);
        }
        let code = reader.uint()?;
        let text = read_text(reader)?.to_owned();
        let (number, other) = (reader.uint()?, reader.uint()?);
        reader.skip(length - 4)?;
        let version = |number| u16::try_from(number).unwrap_or(u16::MAX);
        Ok(match code {
            1 => Error::NotLeader { leader: NodeId::new(number).map(|id| (id, text)) },
            2 => Error::Busy { what: text },
            3 => Error::NoSpace,
            4 => Error::BadRequest { why: text },
            5 => Error::TooLarge { bytes: number, max: other },
            6 => Error::Compacted { compact_revision: Revision(number) },
            7 => Error::FutureRevision { revision: Revision(number) },
            8 => Error::OutcomeUnknown,
            9 => Error::WrongCluster { ours: ClusterId(whole(number, other)) },
            10 => {
                Error::Unsupported { version_min: version(number), version_max: version(other) }
            }
            11 => Error::NotReady { why: text },
            12 => Error::Refused { why: text },
            code => Error::Unknown { code, text },
        })
    }
}

fn halves(id: u128) -> (u64, u64) {
    let high = u64::try_from(id >> 64).expect("64 bits are left");
    let low = u64::try_from(id & u128::from(u64::MAX)).expect("64 bits are left");
    (high, low)
}

fn whole(high: u64, low: u64) -> u128 {
    (u128::from(high) << 64) | u128::from(low)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotLeader { leader: Some((id, address)) } => {
                write!(f, "not the leader; server {} at {address} is", id.get())
            }
            Error::NotLeader { leader: None } => f.write_str("not the leader, and none is known"),
            Error::Busy { what } => write!(f, "busy: too much waits for {what}; try again"),
            Error::NoSpace => f.write_str("no space left on the server's disk: free some"),
            Error::BadRequest { why } => write!(f, "bad request: {why}"),
            Error::TooLarge { bytes, max } => {
                write!(f, "the request has {bytes} bytes, the server takes {max}")
            }
            Error::Compacted { compact_revision } => write!(
                f,
                "the revision has been compacted; the oldest that can be read is {compact_revision}"
            ),
            Error::FutureRevision { revision } => {
                write!(f, "the revision is in the future; the newest is {revision}")
            }
            Error::OutcomeUnknown => {
                f.write_str("outcome unknown: it may or may not have been done; read to find out")
            }
            Error::WrongCluster { ours } => write!(f, "the server belongs to cluster {ours}"),
            Error::Unsupported { version_min, version_max } => {
                write!(f, "the server speaks protocol versions {version_min} to {version_max}")
            }
            Error::NotReady { why } => write!(f, "not ready: {why}"),
            Error::Refused { why } => write!(f, "refused: {why}"),
            Error::Unknown { code, text } => write!(f, "error {code}: {text}"),
        }
    }
}

impl std::error::Error for Error {}
