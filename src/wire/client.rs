//! What clients ask.
//!
//! ```text
//! request   array(3) [id: uint, op: uint, args: array]     exactly three; nothing after args
//!    1      [key: bin, value: bin]                         Put
//!    2      [key: bin, end: bin]                           DeleteRange
//!    3      [revision: uint]                               Compact
//!    4      [session: uint, sequence: uint, acknowledged: uint, op, args]     InSession
//!    5      []                                             OpenSession
//!    6      [key: bin, value: bin, mod_revision: uint]     PutIf
//!    7      [key: bin, value: bin, lease: uint, prev_kv: bool, ignore_value: bool,
//!            ignore_lease: bool]                           PutWith
//!    8      [key: bin, end: bin, prev_kv: bool]            DeleteRangeWith
//!    9      see kv/txn.rs                                  Txn
//!   10      [lease: uint, ttl_s: uint]                     LeaseGrant
//!   11      [lease: uint]                                  LeaseRevoke
//!   14      users and roles, see auth.rs
//!   16      [key: bin, end: bin, limit: uint, revision: uint, consistency: uint,
//!            keys_only: bool, count_only: bool]            Range
//!            and perhaps, behind them, [sort_by: uint, order: uint, min_mod: uint, max_mod: uint,
//!            min_create: uint, max_create: uint]
//!   17      []                                             Status
//!   18      []                                             Snapshot
//!   19      [consistency: uint, txn: array]               ReadTxn, a Txn that changes nothing
//!   20..22  leases, see leases.rs
//!   23..25  watches, see watch.rs
//!   26..29  who asks, users and roles, see auth.rs
//!   40..45  members and their leader, see members.rs
//! end       empty: the one key; a single zero byte: every key from `key` on; else [key, end)
//! ```
//!
//! Ops below 16 are commands: from `op` on, the request goes into the log, byte for byte. Its args
//! are judged there (`kv::command`), strictly; the args of the others may grow at the end.

use std::fmt;

use crate::codec::msgpack::{self, Reader};
use crate::kv::command;
use crate::limits::REQUEST_BYTES_MAX;
use crate::types::Revision;

use super::error::Error;
use super::fields::{self, DecodeError, Fields};
use super::frame::{self, FrameStart};

pub use crate::kv::command::{
    Access, AuthChange, AuthVerb, Command, Compare, DeleteWith, Operand, Order, PasswordProof,
    Permission, PutWith, RangeEnd, RangeRequest, Relation, Request as TxnRequest, RevisionSpan,
    Selection, SessionCall, SortBy, Txn, TxnParts,
};

pub use super::read_txn::{ReadTxnError, decode_read_txn, read_txn_request};

/// What a request wants. Below 16 are the commands of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Set a key's value.
    Put,
    /// Delete the keys of a range.
    DeleteRange,
    /// Give up the history below a revision.
    Compact,
    /// Do a command as a call of a session: once, however often it is asked.
    InSession,
    /// Make a session.
    OpenSession,
    /// Set a key's value if its last change is a certain one.
    PutIf,
    /// Set a key's value, with options.
    PutWith,
    /// Delete the keys of a range, with options.
    DeleteRangeWith,
    /// Do one of two lists of requests, at once.
    Txn,
    /// Make a lease.
    LeaseGrant,
    /// End a lease, and delete the keys that hang on it.
    LeaseRevoke,
    /// Change users or roles, or whether rights count.
    Auth,
    /// Read the keys of a range.
    Range,
    /// The node's own view of itself.
    Status,
    /// The store at one moment, as a file.
    Snapshot,
    /// Read several ranges at once, one of two lists.
    ReadTxn,
    /// Let a lease live for all of its time again.
    LeaseKeepAlive,
    /// How long a lease has left.
    LeaseTimeToLive,
    /// Which leases there are.
    LeaseList,
    /// Hear of changes.
    Watch,
    /// Hear of them no more.
    WatchCancel,
    /// Up to where everything was heard.
    WatchProgress,
    /// Say who one is.
    Login,
    /// Prove it.
    LoginProof,
    /// Which users and roles there are.
    AuthRead,
    /// Do a request for somebody.
    As,
    /// Who the members are.
    MemberList,
    /// A new member.
    MemberAdd,
    /// A member leaves.
    MemberRemove,
    /// A learner becomes a voter.
    MemberPromote,
    /// A new member takes the place of another.
    MemberReplace,
    /// Another member is to lead.
    TransferLeader,
}

impl Op {
    /// The number on the wire, and the kind of the reply.
    pub const fn code(self) -> u8 {
        match self {
            Op::Put => 1,
            Op::DeleteRange => 2,
            Op::Compact => 3,
            Op::InSession => 4,
            Op::OpenSession => 5,
            Op::PutIf => 6,
            Op::PutWith => 7,
            Op::DeleteRangeWith => 8,
            Op::Txn => 9,
            Op::LeaseGrant => 10,
            Op::LeaseRevoke => 11,
            Op::Auth => 14,
            Op::Range => 16,
            Op::Status => 17,
            Op::Snapshot => 18,
            Op::ReadTxn => 19,
            Op::LeaseKeepAlive => 20,
            Op::LeaseTimeToLive => 21,
            Op::LeaseList => 22,
            Op::Watch => 23,
            Op::WatchCancel => 24,
            Op::WatchProgress => 25,
            Op::Login => 26,
            Op::LoginProof => 27,
            Op::AuthRead => 28,
            Op::As => 29,
            Op::MemberList => 40,
            Op::MemberAdd => 41,
            Op::MemberRemove => 42,
            Op::MemberPromote => 43,
            Op::MemberReplace => 44,
            Op::TransferLeader => 45,
        }
    }

    /// The op of a number from the wire.
    pub const fn from_code(code: u64) -> Option<Op> {
        match code {
            1 => Some(Op::Put),
            2 => Some(Op::DeleteRange),
            3 => Some(Op::Compact),
            4 => Some(Op::InSession),
            5 => Some(Op::OpenSession),
            6 => Some(Op::PutIf),
            7 => Some(Op::PutWith),
            8 => Some(Op::DeleteRangeWith),
            9 => Some(Op::Txn),
            10 => Some(Op::LeaseGrant),
            11 => Some(Op::LeaseRevoke),
            14 => Some(Op::Auth),
            16 => Some(Op::Range),
            17 => Some(Op::Status),
            18 => Some(Op::Snapshot),
            19 => Some(Op::ReadTxn),
            20 => Some(Op::LeaseKeepAlive),
            21 => Some(Op::LeaseTimeToLive),
            22 => Some(Op::LeaseList),
            23 => Some(Op::Watch),
            24 => Some(Op::WatchCancel),
            25 => Some(Op::WatchProgress),
            26 => Some(Op::Login),
            27 => Some(Op::LoginProof),
            28 => Some(Op::AuthRead),
            29 => Some(Op::As),
            40 => Some(Op::MemberList),
            41 => Some(Op::MemberAdd),
            42 => Some(Op::MemberRemove),
            43 => Some(Op::MemberPromote),
            44 => Some(Op::MemberReplace),
            45 => Some(Op::TransferLeader),
            _ => None,
        }
    }

    /// Whether it changes the store, and so goes through the log.
    pub const fn is_command(self) -> bool {
        match self {
            Op::Put
            | Op::DeleteRange
            | Op::Compact
            | Op::InSession
            | Op::OpenSession
            | Op::PutIf
            | Op::PutWith
            | Op::DeleteRangeWith
            | Op::Txn
            | Op::LeaseGrant
            | Op::LeaseRevoke
            | Op::Auth => true,
            Op::Range
            | Op::Status
            | Op::Snapshot
            | Op::ReadTxn
            | Op::LeaseKeepAlive
            | Op::LeaseTimeToLive
            | Op::LeaseList
            | Op::Watch
            | Op::WatchCancel
            | Op::WatchProgress
            | Op::Login
            | Op::LoginProof
            | Op::AuthRead
            | Op::As
            | Op::MemberList
            | Op::MemberAdd
            | Op::MemberRemove
            | Op::MemberPromote
            | Op::MemberReplace
            | Op::TransferLeader => false,
        }
    }
}

/// A request, borrowed from its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// The client's number for it; the reply repeats it.
    pub id: u64,
    /// What it wants.
    pub op: Op,
    /// The bytes from `op` on: what goes into the log if it is a command.
    pub command: &'a [u8],
    /// The bytes from `args` on.
    pub args: &'a [u8],
}

/// A body that is no request. With an id it can be answered; without, only hung up on.
#[derive(Debug)]
pub struct RequestError {
    /// The request's id, if it got that far.
    pub id: Option<u64>,
    /// What is wrong.
    pub why: RequestWhy,
}

/// What is wrong with a request.
#[derive(Debug)]
pub enum RequestWhy {
    /// Not the shape of a request.
    Malformed(DecodeError),
    /// No such op in this version.
    UnknownOp {
        /// Its number.
        op: u64,
    },
    /// Larger than any node takes.
    TooLarge {
        /// Its size from `op` on. Bytes.
        bytes: usize,
    },
}

impl RequestError {
    /// What to answer.
    pub fn to_error(&self) -> Error {
        match &self.why {
            RequestWhy::Malformed(why) => {
                Error::BadRequest { why: format!("cannot decode it: {why}").into() }
            }
            RequestWhy::UnknownOp { .. } => Error::BadRequest { why: self.to_string().into() },
            RequestWhy::TooLarge { bytes } => Error::TooLarge {
                bytes: u64::try_from(*bytes).unwrap_or(u64::MAX),
                max: u64::try_from(REQUEST_BYTES_MAX).unwrap_or(u64::MAX),
            },
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            RequestWhy::Malformed(_) => f.write_str("cannot decode a request"),
            RequestWhy::UnknownOp { op } => write!(f, "op {op} is not known"),
            RequestWhy::TooLarge { bytes } => {
                write!(f, "a request of {bytes} bytes is larger than {REQUEST_BYTES_MAX}")
            }
        }
    }
}

impl std::error::Error for RequestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.why {
            RequestWhy::Malformed(why) => Some(why),
            RequestWhy::UnknownOp { .. } | RequestWhy::TooLarge { .. } => None,
        }
    }
}

/// Reads a request's envelope. The args are read by whoever does the op.
#[inline]
pub fn decode_request(body: &[u8]) -> Result<Request<'_>, RequestError> {
    let mut reader = Reader::new(body);
    let id = decode_id(&mut reader)
        .map_err(|why| RequestError { id: None, why: RequestWhy::Malformed(why) })?;
    decode_rest(id, reader).map_err(|why| RequestError { id: Some(id), why })
}

#[inline]
fn decode_id(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    if reader.array()? != 3 {
        return Err(DecodeError::Inconsistent { what: "a request has three parts" });
    }
    Ok(reader.uint()?)
}

#[inline]
fn decode_rest(id: u64, mut reader: Reader<'_>) -> Result<Request<'_>, RequestWhy> {
    let command = reader.rest();
    if command.len() > REQUEST_BYTES_MAX {
        return Err(RequestWhy::TooLarge { bytes: command.len() });
    }
    let code = reader.uint().map_err(|why| RequestWhy::Malformed(why.into()))?;
    let op = Op::from_code(code).ok_or(RequestWhy::UnknownOp { op: code })?;
    Ok(Request { id, op, command, args: reader.rest() })
}

/// How fresh a read must be.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Consistency {
    /// As of a moment between request and reply: the leader proves that it still leads.
    #[default]
    Linearizable,
    /// The asked node's own state, however old.
    Serializable,
    /// As linearizable, while the servers' clocks run alike within the bound they were told: a
    /// leader with a lease answers at once. Without one, as linearizable.
    Lease,
}

impl Consistency {
    /// The number on the wire.
    pub const fn code(self) -> u64 {
        match self {
            Consistency::Linearizable => 0,
            Consistency::Serializable => 1,
            Consistency::Lease => 2,
        }
    }

    /// The consistency of a number from the wire.
    pub const fn from_code(code: u64) -> Option<Consistency> {
        match code {
            0 => Some(Consistency::Linearizable),
            1 => Some(Consistency::Serializable),
            2 => Some(Consistency::Lease),
            _ => None,
        }
    }
}

/// The args of a Range, borrowed from the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeArgs<'a> {
    /// The first key. Not empty.
    pub key: &'a [u8],
    /// Where the range ends, as in a DeleteRange.
    pub end: &'a [u8],
    /// At most this many keys; 0 is no limit.
    pub limit: u64,
    /// As the store was then; 0 is now.
    pub revision: Revision,
    /// How fresh.
    pub consistency: Consistency,
    /// Leave the values empty.
    pub keys_only: bool,
    /// Send no keys at all, only their count.
    pub count_only: bool,
    /// Which keys, and in which order.
    pub selection: Selection,
}

impl<'a> RangeArgs<'a> {
    /// Everything about the one key, now.
    pub const fn of_key(key: &'a [u8]) -> RangeArgs<'a> {
        RangeArgs {
            key,
            end: &[],
            limit: 0,
            revision: Revision(0),
            consistency: Consistency::Linearizable,
            keys_only: false,
            count_only: false,
            selection: Selection::ALL,
        }
    }

    /// Reads the args of a request with `Op::Range`.
    pub fn decode(args: &'a [u8]) -> Result<RangeArgs<'a>, DecodeError> {
        let mut reader = Reader::new(args);
        let mut fields = Fields::open(&mut reader)?;
        let key = fields.bin()?;
        if key.is_empty() {
            return Err(DecodeError::Inconsistent { what: "the key is empty" });
        }
        let end = fields.bin()?;
        let limit = fields.uint()?;
        let revision = fields.revision()?;
        let found = fields.uint()?;
        let consistency = Consistency::from_code(found)
            .ok_or(DecodeError::Range { what: "a consistency", found })?;
        let keys_only = fields.flag()?;
        let count_only = fields.flag()?;
        let selection =
            if fields.is_empty() { Selection::ALL } else { decode_selection(&mut fields)? };
        fields.close()?;
        fields::expect_end(&reader)?;
        Ok(RangeArgs { key, end, limit, revision, consistency, keys_only, count_only, selection })
    }

    /// Appends the args.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let plain = self.selection == Selection::ALL;
        msgpack::write_array(out, if plain { 7 } else { 13 });
        msgpack::write_bin(out, self.key);
        msgpack::write_bin(out, self.end);
        msgpack::write_uint(out, self.limit);
        msgpack::write_uint(out, self.revision.0);
        msgpack::write_uint(out, self.consistency.code());
        fields::write_flag(out, self.keys_only);
        fields::write_flag(out, self.count_only);
        if !plain {
            let Selection { by, order, mod_revision, create_revision } = self.selection;
            msgpack::write_uint(out, by.code());
            msgpack::write_uint(out, order.code());
            for span in [mod_revision, create_revision] {
                msgpack::write_uint(out, span.min.0);
                msgpack::write_uint(out, span.max.0);
            }
        }
    }
}

/// Reads what of a range is asked for, and in which order: six fields behind those of version 1.
fn decode_selection(fields: &mut Fields<'_, '_>) -> Result<Selection, DecodeError> {
    let found = fields.uint()?;
    let what = "what to sort by";
    let by = SortBy::from_code(found).ok_or(DecodeError::Range { what, found })?;
    let found = fields.uint()?;
    let what = "a sort order";
    let order = Order::from_code(found).ok_or(DecodeError::Range { what, found })?;
    let mod_revision = decode_span(fields)?;
    let create_revision = decode_span(fields)?;
    Ok(Selection { by, order, mod_revision, create_revision })
}

fn decode_span(fields: &mut Fields<'_, '_>) -> Result<RevisionSpan, DecodeError> {
    Ok(RevisionSpan { min: fields.revision()?, max: fields.revision()? })
}

/// Reads the args of a request with `Op::Status`, `Op::Snapshot` or `Op::WatchProgress`: none yet.
pub fn decode_status_args(args: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(args);
    Fields::open(&mut reader)?.close()?;
    fields::expect_end(&reader)
}

/// Appends a Put, as a whole frame.
pub fn put_request(out: &mut Vec<u8>, id: u64, key: &[u8], value: &[u8]) {
    let start = begin_request(out, id, Op::Put);
    msgpack::write_array(out, 2);
    msgpack::write_bin(out, key);
    msgpack::write_bin(out, value);
    frame::finish(out, start);
}

/// Appends a DeleteRange, as a whole frame. `end` is the wire's form.
pub fn delete_request(out: &mut Vec<u8>, id: u64, key: &[u8], end: &[u8]) {
    let start = begin_request(out, id, Op::DeleteRange);
    msgpack::write_array(out, 2);
    msgpack::write_bin(out, key);
    msgpack::write_bin(out, end);
    frame::finish(out, start);
}

/// Appends a command, as a whole frame: as a call of a session, or by itself.
pub fn command_request(
    out: &mut Vec<u8>,
    id: u64,
    call: Option<SessionCall>,
    command: Command<'_>,
) {
    let start = begin_envelope(out, id);
    if let Some(call) = call {
        command::encode_call(out, call);
    }
    command::encode_command(out, command);
    frame::finish(out, start);
}

/// Appends a Range, as a whole frame.
pub fn range_request(out: &mut Vec<u8>, id: u64, args: &RangeArgs<'_>) {
    let start = begin_request(out, id, Op::Range);
    args.encode(out);
    frame::finish(out, start);
}

/// Appends a Status, as a whole frame.
pub fn status_request(out: &mut Vec<u8>, id: u64) {
    let start = begin_request(out, id, Op::Status);
    msgpack::write_array(out, 0);
    frame::finish(out, start);
}

/// Appends a Snapshot, as a whole frame.
pub fn snapshot_request(out: &mut Vec<u8>, id: u64) {
    let start = begin_request(out, id, Op::Snapshot);
    msgpack::write_array(out, 0);
    frame::finish(out, start);
}

pub(super) fn begin_request(out: &mut Vec<u8>, id: u64, op: Op) -> FrameStart {
    let start = begin_envelope(out, id);
    msgpack::write_uint(out, u64::from(op.code()));
    start
}

fn begin_envelope(out: &mut Vec<u8>, id: u64) -> FrameStart {
    let start = frame::begin(out);
    msgpack::write_array(out, 3);
    msgpack::write_uint(out, id);
    start
}
