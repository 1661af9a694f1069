//! Why bytes are no entry and no command: one enum for whoever reads them.

use std::error::Error;
use std::fmt;

use crate::codec::msgpack::DecodeError;
use crate::limits::{
    AUTH_NAME_BYTES_MAX, LEASE_TTL_S_MAX, SESSION_WINDOW, TXN_DEPTH_MAX, TXN_OPS_MAX,
    TXN_OPS_TOTAL_MAX,
};

use super::command::{FORMAT_VERSION, SessionCall};

/// Why bytes are not an entry or a command of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandError {
    /// Not the MessagePack value that should stand here.
    Malformed(DecodeError),
    /// The entry has a format this version does not know.
    Version {
        /// The version it names.
        found: u64,
    },
    /// No such operation.
    Operation {
        /// The number it names.
        op: u8,
    },
    /// An array with the wrong number of values.
    Arity {
        /// What the array is.
        of: &'static str,
        /// How many values it should have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// A key of no bytes.
    EmptyKey,
    /// Bytes after the command.
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// Larger than a request may be.
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest size.
        bytes_max: usize,
    },
    /// A number that stands for nothing.
    Number {
        /// What it should stand for.
        of: &'static str,
        /// It.
        found: u64,
    },
    /// A name of a user or a role that is too long, or no UTF-8.
    Name {
        /// How many bytes it has.
        bytes: usize,
    },
    /// A put that keeps the value and brings one.
    ValueGiven,
    /// A put that keeps the lease and brings one.
    LeaseGiven,
    /// A transaction with more compares or requests than it may have.
    TooManyOperations,
    /// Too many transactions inside each other.
    TooDeep,
    /// A transaction that puts a key twice, or puts a key and deletes it.
    DuplicateKey,
    /// A lease for longer than `LEASE_TTL_S_MAX`.
    LeaseTooLong {
        /// For how long. Seconds.
        ttl_s: u64,
    },
    /// A call that no client makes: of session 0, or not within the window above what it has
    /// acknowledged.
    Call {
        /// The call.
        call: SessionCall,
    },
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Malformed(_) => f.write_str("cannot decode a command"),
            CommandError::Version { found } => {
                write!(f, "entry format {found} is not known, only {FORMAT_VERSION}")
            }
            CommandError::Operation { op } => write!(f, "operation {op} is not known"),
            CommandError::Arity { of, expected, found } => {
                write!(f, "{of} has {found} fields instead of {expected}")
            }
            CommandError::EmptyKey => f.write_str("the key is empty"),
            CommandError::Trailing { bytes } => write!(f, "{bytes} bytes follow the command"),
            CommandError::TooLarge { bytes, bytes_max } => {
                write!(f, "the command has {bytes} bytes, more than {bytes_max}")
            }
            CommandError::Number { of, found } => write!(f, "{found} is no {of}"),
            CommandError::Name { bytes } => write!(
                f,
                "a name of {bytes} bytes is not UTF-8, or has more than {AUTH_NAME_BYTES_MAX}"
            ),
            CommandError::ValueGiven => f.write_str("a put that keeps the value brings a value"),
            CommandError::LeaseGiven => f.write_str("a put that keeps the lease brings a lease"),
            CommandError::TooManyOperations => write!(
                f,
                "a transaction has more than {TXN_OPS_MAX} compares or requests, or more than \
                 {TXN_OPS_TOTAL_MAX} with those inside it"
            ),
            CommandError::TooDeep => {
                write!(f, "more than {TXN_DEPTH_MAX} transactions are inside each other")
            }
            CommandError::DuplicateKey => {
                f.write_str("a transaction changes a key twice: puts it and puts or deletes it")
            }
            CommandError::LeaseTooLong { ttl_s } => {
                write!(f, "a lease of {ttl_s} s is longer than {LEASE_TTL_S_MAX} s")
            }
            CommandError::Call { call: SessionCall { session, sequence, acknowledged } } => write!(
                f,
                "session {session} cannot make call {sequence} having acknowledged {acknowledged}: \
                 at most {SESSION_WINDOW} later"
            ),
        }
    }
}

impl Error for CommandError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CommandError::Malformed(why) => Some(why),
            CommandError::Version { .. }
            | CommandError::Operation { .. }
            | CommandError::Arity { .. }
            | CommandError::EmptyKey
            | CommandError::Trailing { .. }
            | CommandError::TooLarge { .. }
            | CommandError::Number { .. }
            | CommandError::Name { .. }
            | CommandError::ValueGiven
            | CommandError::LeaseGiven
            | CommandError::TooManyOperations
            | CommandError::TooDeep
            | CommandError::DuplicateKey
            | CommandError::LeaseTooLong { .. }
            | CommandError::Call { .. } => None,
        }
    }
}

impl From<DecodeError> for CommandError {
    fn from(why: DecodeError) -> CommandError {
        CommandError::Malformed(why)
    }
}
