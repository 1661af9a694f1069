//! What clients ask. Body: `[id, op, args]`; the bytes from `op` on are a command as the log keeps it.
//!
//! ```text
//!  1 put           [key bin, value bin]
//!  2 delete range  [key bin, end bin]
//! 16 range         [key bin, end bin, limit, revision, consistency, flags]
//! 17 status        []
//! ```

use super::frame;
use crate::codec::msgpack::{DecodeError, Reader, write_array, write_bin, write_uint};
use std::fmt;

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Set a key.
    Put,
    /// Delete a key or a range of keys.
    DeleteRange,
    /// Read a key or a range of keys.
    Range,
    /// Say how the server is.
    Status,
}

impl Op {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Op::Put => 1,
            Op::DeleteRange => 2,
            Op::Range => 16,
            Op::Status => 17,
        }
    }

    const fn from_code(code: u64) -> Option<Op> {
        match code {
            1 => Some(Op::Put),
            2 => Some(Op::DeleteRange),
            16 => Some(Op::Range),
            17 => Some(Op::Status),
            _ => None,
        }
    }
}

/// A request, borrowed from its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// The client's number for it; the reply carries it.
    pub id: u64,
    /// What is asked.
    pub op: Op,
    /// The bytes from the op on: a command's stored form.
    pub command: &'a [u8],
    /// The bytes after the op.
    pub args: &'a [u8],
}

/// Why a body is not a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestError {
    /// The request's number, if it could be read: the refusal carries it.
    pub id: Option<u64>,
    /// What is wrong.
    pub why: RequestFault,
}

/// What is wrong with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestFault {
    /// It is not `[id, op, args]`.
    Malformed(DecodeError),
    /// No such operation.
    Operation(u64),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            RequestFault::Malformed(error) => write!(f, "not a request [id, op, args]: {error}"),
            RequestFault::Operation(op) => write!(f, "no operation has the number {op}"),
        }
    }
}

impl std::error::Error for RequestError {}

/// Reads a request's envelope. Its arguments are left for whoever serves it.
#[inline]
pub fn decode_request(body: &[u8]) -> Result<Request<'_>, RequestError> {
    let mut reader = Reader::new(body);
    let malformed = |id| move |why| RequestError { id, why: RequestFault::Malformed(why) };
    let length = reader.array().map_err(malformed(None))?;
    let id = reader.uint().map_err(malformed(None))?;
    if length != 3 {
        return Err(malformed(Some(id))(DecodeError::Truncated));
    }
    let command = reader.rest();
    let code = reader.uint().map_err(malformed(Some(id)))?;
    let op = Op::from_code(code)
        .ok_or(RequestError { id: Some(id), why: RequestFault::Operation(code) })?;
    Ok(Request { id, op, command, args: reader.rest() })
}

/// Appends a request whose command, op and arguments, is already encoded.
pub fn encode_request(out: &mut Vec<u8>, id: u64, command: &[u8]) {
    let start = frame::begin(out);
    write_array(out, 3);
    write_uint(out, id);
    out.extend_from_slice(command);
    frame::finish(out, start);
}

/// Appends a status request.
pub fn encode_status_request(out: &mut Vec<u8>, id: u64) {
    let start = frame::begin(out);
    write_array(out, 3);
    write_uint(out, id);
    out.push(Op::Status.code());
    write_array(out, 0);
    frame::finish(out, start);
}

/// How fresh a read must be.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Consistency {
    /// Every write acknowledged before the read began is seen. The leader confirms that it still leads.
    #[default]
    Linearizable,
    /// The state of the server asked, however old.
    Serializable,
}

/// The arguments of a range request.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RangeArgs<'a> {
    /// The first key.
    pub key: &'a [u8],
    /// Empty: the one key. A single zero byte: every key from `key` on. Else: before this key.
    pub end: &'a [u8],
    /// At most this many keys; 0 is no limit.
    pub limit: u64,
    /// As the store was then; 0 is now.
    pub revision: u64,
    /// How fresh it must be.
    pub consistency: Consistency,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
}

const KEYS_ONLY: u64 = 1;
const COUNT_ONLY: u64 = 2;

impl<'a> RangeArgs<'a> {
    /// Appends a range request as a whole frame.
    pub fn request(&self, out: &mut Vec<u8>, id: u64) {
        let start = frame::begin(out);
        write_array(out, 3);
        write_uint(out, id);
        out.push(Op::Range.code());
        self.encode(out);
        frame::finish(out, start);
    }

    /// Appends the arguments.
    pub fn encode(&self, out: &mut Vec<u8>) {
        write_array(out, 6);
        write_bin(out, self.key);
        write_bin(out, self.end);
        write_uint(out, self.limit);
        write_uint(out, self.revision);
        write_uint(out, u64::from(self.consistency == Consistency::Serializable));
        let keys_only = if self.keys_only { KEYS_ONLY } else { 0 };
        let count_only = if self.count_only { COUNT_ONLY } else { 0 };
        write_uint(out, keys_only | count_only);
    }

    /// Reads the arguments; what follows the known ones was added by a newer version and is left aside.
    #[inline]
    pub fn decode(args: &'a [u8]) -> Result<RangeArgs<'a>, DecodeError> {
        let mut reader = Reader::new(args);
        if reader.array()? < 6 {
            return Err(DecodeError::Truncated);
        }
        let (key, end) = (reader.bin()?, reader.bin()?);
        let (limit, revision) = (reader.uint()?, reader.uint()?);
        let consistency = match reader.fixint()? {
            0 => Consistency::Linearizable,
            1 => Consistency::Serializable,
            marker => {
                return Err(DecodeError::Unexpected { wanted: "consistency 0 or 1", marker });
            }
        };
        let flags = reader.uint()?;
        Ok(RangeArgs {
            key,
            end,
            limit,
            revision,
            consistency,
            keys_only: flags & KEYS_ONLY != 0,
            count_only: flags & COUNT_ONLY != 0,
        })
    }
}
