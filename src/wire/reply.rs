//! What clients are answered. Body: `[id, kind, args]`.
//!
//! ```text
//!  0 error   [code, text, a, b]
//!  1 put     [revision]
//!  2 delete  [revision, deleted]
//! 16 range   [revision, [[key, value, create, mod, version, lease], …], more 0/1, count]
//! 17 status  see status.rs
//! ```

use super::error::Error;
use super::frame::{self, FrameStart};
use super::status::Status;
use crate::codec::msgpack::{DecodeError, Reader, write_array, write_bin, write_uint};
use crate::types::Revision;

const ERROR: u8 = 0;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const RANGE: u8 = 16;
const STATUS: u8 = 17;

#[inline]
fn begin(out: &mut Vec<u8>, id: u64, kind: u8) -> FrameStart {
    let start = frame::begin(out);
    write_array(out, 3);
    write_uint(out, id);
    out.push(kind);
    start
}

/// Appends an error as a whole frame.
pub fn error_reply(out: &mut Vec<u8>, id: u64, error: &Error) {
    let start = begin(out, id, ERROR);
    error.encode(out);
    frame::finish(out, start);
}

/// Appends the answer to a put as a whole frame.
#[inline]
pub fn put_reply(out: &mut Vec<u8>, id: u64, revision: Revision) {
    let start = begin(out, id, PUT);
    write_array(out, 1);
    write_uint(out, revision.0);
    frame::finish(out, start);
}

/// Appends the answer to a delete as a whole frame.
pub fn delete_reply(out: &mut Vec<u8>, id: u64, revision: Revision, deleted: u64) {
    let start = begin(out, id, DELETE);
    write_array(out, 2);
    write_uint(out, revision.0);
    write_uint(out, deleted);
    frame::finish(out, start);
}

/// Appends the answer to a status request as a whole frame.
pub fn status_reply(out: &mut Vec<u8>, id: u64, status: &Status) {
    let start = begin(out, id, STATUS);
    status.encode(out);
    frame::finish(out, start);
}

/// A key as it was read. Owned by the reader of a reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyValue {
    /// Its name.
    pub key: Vec<u8>,
    /// Its value; empty if only keys were asked for.
    pub value: Vec<u8>,
    /// The revision of the put that created it.
    pub create_revision: Revision,
    /// The revision of the last put.
    pub mod_revision: Revision,
    /// Puts since its creation, that one included.
    pub version: u64,
    /// The lease it hangs on; 0 is none.
    pub lease: u64,
}

/// Writes the answer to a range request key by key.
#[derive(Debug)]
pub struct RangeReplyWriter {
    start: FrameStart,
    count_at: usize,
    pushed: u32,
}

impl RangeReplyWriter {
    /// Begins the frame.
    #[inline]
    pub fn begin(out: &mut Vec<u8>, id: u64, revision: Revision) -> RangeReplyWriter {
        let start = begin(out, id, RANGE);
        write_array(out, 4);
        write_uint(out, revision.0);
        // How many keys follow is known at the end: a header of full width, patched then.
        out.push(0xdd);
        let count_at = out.len();
        out.extend_from_slice(&[0; 4]);
        RangeReplyWriter { start, count_at, pushed: 0 }
    }

    /// Appends one key.
    #[inline]
    pub fn push(&mut self, out: &mut Vec<u8>, found: &crate::kv::KeyValueRef<'_>, keys_only: bool) {
        write_array(out, 6);
        write_bin(out, found.key);
        write_bin(out, if keys_only { &[] } else { found.value });
        write_uint(out, found.create_revision.0);
        write_uint(out, found.mod_revision.0);
        write_uint(out, found.version);
        write_uint(out, found.lease);
        self.pushed += 1;
    }

    /// Ends the frame.
    #[inline]
    pub fn finish(self, out: &mut Vec<u8>, more: bool, count: u64) {
        write_uint(out, u64::from(more));
        write_uint(out, count);
        crate::codec::msgpack::patch_u32(out, self.count_at, self.pushed);
        frame::finish(out, self.start);
    }
}

/// The answer to a range request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeReply {
    /// The store's revision.
    pub revision: Revision,
    /// The keys, ascending.
    pub kvs: Vec<KeyValue>,
    /// Whether keys were left out, because of the limit or the size.
    pub more: bool,
    /// How many keys the range has.
    pub count: u64,
}

/// A reply, decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// It was not done, or nobody knows.
    Error(Error),
    /// Done.
    Put {
        /// The revision it made.
        revision: Revision,
    },
    /// Done.
    DeleteRange {
        /// The store's revision after it.
        revision: Revision,
        /// How many keys it deleted.
        deleted: u64,
    },
    /// What was read.
    Range(RangeReply),
    /// How the server is.
    Status(Box<Status>),
}

/// Reads a reply's body: the request's id and what came of it. Unknown trailing values are left aside.
pub fn decode_reply(body: &[u8]) -> Result<(u64, Reply), DecodeError> {
    let mut reader = Reader::new(body);
    if reader.array()? < 3 {
        return Err(DecodeError::Truncated);
    }
    let id = reader.uint()?;
    let reply = match reader.fixint()? {
        ERROR => Reply::Error(Error::decode(&mut reader)?),
        PUT => {
            at_least(&mut reader, 1)?;
            Reply::Put { revision: Revision(reader.uint()?) }
        }
        DELETE => {
            at_least(&mut reader, 2)?;
            let revision = Revision(reader.uint()?);
            Reply::DeleteRange { revision, deleted: reader.uint()? }
        }
        RANGE => Reply::Range(decode_range(&mut reader)?),
        STATUS => Reply::Status(Box::new(Status::decode(&mut reader)?)),
        marker => return Err(DecodeError::Unexpected { wanted: "a kind of reply", marker }),
    };
    Ok((id, reply))
}

fn at_least(reader: &mut Reader<'_>, values: usize) -> Result<usize, DecodeError> {
    let length = reader.array()?;
    if length < values { Err(DecodeError::Truncated) } else { Ok(length - values) }
}

fn decode_range(reader: &mut Reader<'_>) -> Result<RangeReply, DecodeError> {
    at_least(reader, 4)?;
    let revision = Revision(reader.uint()?);
    let length = reader.array()?;
    let mut kvs = Vec::new();
    for _ in 0..length {
        let newer = at_least(reader, 6)?;
        kvs.push(KeyValue {
            key: reader.bin()?.to_vec(),
            value: reader.bin()?.to_vec(),
            create_revision: Revision(reader.uint()?),
            mod_revision: Revision(reader.uint()?),
            version: reader.uint()?,
            lease: reader.uint()?,
        });
        reader.skip(newer)?;
    }
    let more = reader.uint()? != 0;
    Ok(RangeReply { revision, kvs, more, count: reader.uint()? })
}
