//! What servers answer.
//!
//! ```text
//! reply     array(3) [id: uint, kind: uint, args: array]
//!    0      an error, see error.rs
//!    1      [revision: uint]                               Put
//!    2      [revision: uint, deleted: uint]                DeleteRange
//!    3      [revision: uint]                               Compact
//!    5      [session: uint]                                OpenSession
//!    6      [revision: uint, done: bool, mod_revision: uint]     PutIf
//!    7      [revision: uint, before: array]                PutWith
//!    8      [revision: uint, deleted: uint, before: array] DeleteRangeWith
//!    9, 19  [revision: uint, succeeded: bool, results: array]     Txn, ReadTxn, see results.rs
//!   16      [revision: uint, kvs: array, more: bool, count: uint, goes_on: bool]     Range, again
//!           and again while it goes on; until then, `more` and `count` say nothing
//!     kv, and the items of before:
//!           array(6) [key: bin, value: bin, create_revision: uint, mod_revision: uint,
//!                     version: uint, lease: uint]
//!   17      status, see status.rs
//!   18      [term: uint, index: uint, bytes: uint, crc: uint, offset: uint, piece: bin]
//!           Snapshot, again and again until the last piece; all zero and empty: not yet
//!   10, 11, 20..22  leases, see leases.rs
//!   23..25  watches, see watch.rs
//!   14, 26..28      who asks, users and roles, see auth.rs
//!   40..45  members and their leader, see members.rs
//! ```
//!
//! A command in a session is answered as the command by itself, and so is a request for somebody.

use crate::codec::msgpack::{self, Reader};
use crate::kv::answer::KvArray;
use crate::types::{LogIndex, NodeId, Revision, SessionId, SnapshotId};

use super::auth::{self, AuthAnswer, LoginChallenge, LoginDone};
use super::client::Op;
use super::error::{self, Error};
use super::fields::{self, DecodeError, Fields};
use super::frame::{self, FrameStart};
use super::leases::{self, LeaseList, LeaseTerm, LeaseTimes, Names};
use super::members::{self, MemberList};
use super::results::{KeyValue, Kvs, Results};
use super::status::{self, Status};
use super::watch::WatchReply;

/// Appends the reply to a Put, as a whole frame.
#[inline]
pub fn put_reply(out: &mut Vec<u8>, id: u64, revision: Revision) {
    let start = begin_reply(out, id, Op::Put);
    msgpack::write_array(out, 1);
    msgpack::write_uint(out, revision.0);
    frame::finish(out, start);
}

/// Appends the reply to a DeleteRange, as a whole frame.
pub fn delete_reply(out: &mut Vec<u8>, id: u64, revision: Revision, deleted: u64) {
    let start = begin_reply(out, id, Op::DeleteRange);
    msgpack::write_array(out, 2);
    msgpack::write_uint(out, revision.0);
    msgpack::write_uint(out, deleted);
    frame::finish(out, start);
}

/// Appends the reply to an OpenSession, as a whole frame.
pub fn session_reply(out: &mut Vec<u8>, id: u64, session: SessionId) {
    let start = begin_reply(out, id, Op::OpenSession);
    msgpack::write_array(out, 1);
    msgpack::write_uint(out, session.0);
    frame::finish(out, start);
}

/// Appends the reply to a PutIf, as a whole frame. `refused`: why it put nothing, if so, the key's
/// mod revision.
pub fn put_if_reply(out: &mut Vec<u8>, id: u64, revision: Revision, refused: Option<Revision>) {
    let start = begin_reply(out, id, Op::PutIf);
    msgpack::write_array(out, 3);
    msgpack::write_uint(out, revision.0);
    fields::write_flag(out, refused.is_none());
    msgpack::write_uint(out, refused.unwrap_or(revision).0);
    frame::finish(out, start);
}

/// Appends the reply to a Compact, as a whole frame.
pub fn compact_reply(out: &mut Vec<u8>, id: u64, revision: Revision) {
    let start = begin_reply(out, id, Op::Compact);
    msgpack::write_array(out, 1);
    msgpack::write_uint(out, revision.0);
    frame::finish(out, start);
}

/// Appends the reply to a PutWith, as a whole frame. `before` is the body of its answer.
pub fn put_with_reply(out: &mut Vec<u8>, id: u64, revision: Revision, before: &[u8]) {
    let start = begin_reply(out, id, Op::PutWith);
    msgpack::write_array(out, 2);
    msgpack::write_uint(out, revision.0);
    out.extend_from_slice(before);
    frame::finish(out, start);
}

/// Appends the reply to a DeleteRangeWith, as a whole frame. `before` is the body of its answer.
pub fn delete_with_reply(
    out: &mut Vec<u8>,
    id: u64,
    revision: Revision,
    deleted: u64,
    before: &[u8],
) {
    let start = begin_reply(out, id, Op::DeleteRangeWith);
    msgpack::write_array(out, 3);
    msgpack::write_uint(out, revision.0);
    msgpack::write_uint(out, deleted);
    out.extend_from_slice(before);
    frame::finish(out, start);
}

/// What became of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnOutcome<'a> {
    /// The store's revision after it.
    pub revision: Revision,
    /// Whether its compares held.
    pub succeeded: bool,
    /// The body of its answer.
    pub results: &'a [u8],
}

/// Appends the reply to a Txn, or to a ReadTxn, as a whole frame.
pub fn txn_reply(out: &mut Vec<u8>, id: u64, op: Op, outcome: &TxnOutcome<'_>) {
    assert!(matches!(op, Op::Txn | Op::ReadTxn), "these are answered so");
    let TxnOutcome { revision, succeeded, results } = *outcome;
    let start = begin_reply(out, id, op);
    msgpack::write_array(out, 3);
    msgpack::write_uint(out, revision.0);
    fields::write_flag(out, succeeded);
    out.extend_from_slice(results);
    frame::finish(out, start);
}

/// Appends the reply to a Status, as a whole frame.
pub fn status_reply(out: &mut Vec<u8>, id: u64, status: &Status) {
    let start = begin_reply(out, id, Op::Status);
    status::encode_status(out, status);
    frame::finish(out, start);
}

/// A piece of a snapshot's file.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SnapshotPiece<'a> {
    /// Which file, with its size and its checksum. All zero: it is being made.
    pub snapshot: SnapshotId,
    /// Where the piece begins in it. Bytes.
    pub offset: u64,
    /// The piece.
    pub bytes: &'a [u8],
}

/// Appends one reply to a Snapshot, as a whole frame.
pub fn snapshot_reply(out: &mut Vec<u8>, id: u64, piece: &SnapshotPiece<'_>) {
    let SnapshotPiece { snapshot, offset, bytes } = piece;
    let start = begin_reply(out, id, Op::Snapshot);
    msgpack::write_array(out, 6);
    fields::write_position(out, snapshot.position);
    msgpack::write_uint(out, snapshot.bytes);
    msgpack::write_uint(out, u64::from(snapshot.crc));
    msgpack::write_uint(out, *offset);
    msgpack::write_bin(out, bytes);
    frame::finish(out, start);
}

/// Appends an error as a reply, as a whole frame.
pub fn error_reply(out: &mut Vec<u8>, id: u64, error: &Error) {
    error::error_reply(out, id, error);
}

/// Appends a reply to a Range key by key. How many there are is written at the end.
#[derive(Debug)]
#[must_use = "a reply that is not finished has no length"]
pub struct RangeReplyWriter {
    start: FrameStart,
    kvs: KvArray,
}

impl RangeReplyWriter {
    /// Begins the reply.
    #[inline]
    pub fn begin(out: &mut Vec<u8>, id: u64, revision: Revision) -> RangeReplyWriter {
        let start = begin_reply(out, id, Op::Range);
        msgpack::write_array(out, 5);
        msgpack::write_uint(out, revision.0);
        RangeReplyWriter { start, kvs: KvArray::begin(out) }
    }

    /// Appends one key.
    #[inline]
    pub fn push(&mut self, out: &mut Vec<u8>, kv: &KeyValue<'_>) {
        self.kvs.push(out, kv);
    }

    /// Whether it has no key yet.
    pub fn is_empty(&self) -> bool {
        self.kvs.is_empty()
    }

    /// Takes the reply back.
    pub fn abandon(self, out: &mut Vec<u8>) {
        self.start.abandon(out);
    }

    /// Ends the last reply. `more`: keys of the range were left out. `count`: how many it has in
    /// all.
    #[inline]
    pub fn finish(self, out: &mut Vec<u8>, more: bool, count: u64) {
        self.end(out, (more, count, false));
    }

    /// Ends a reply that others follow.
    pub fn finish_part(self, out: &mut Vec<u8>) {
        self.end(out, (false, 0, true));
    }

    #[inline]
    fn end(self, out: &mut Vec<u8>, (more, count, goes_on): (bool, u64, bool)) {
        self.kvs.finish(out);
        fields::write_flag(out, more);
        msgpack::write_uint(out, count);
        fields::write_flag(out, goes_on);
        frame::finish(out, self.start);
    }
}

/// A reply, borrowed from its frame.
#[derive(Debug)]
pub struct Reply<'a> {
    /// The request's id.
    pub id: u64,
    /// What is answered.
    pub body: ReplyBody<'a>,
}

/// What a reply says.
#[derive(Debug)]
pub enum ReplyBody<'a> {
    /// The request was not done as asked.
    Error(Error),
    /// A Put was done.
    Put {
        /// The revision it made.
        revision: Revision,
    },
    /// A DeleteRange was done.
    DeleteRange {
        /// The store's revision after it.
        revision: Revision,
        /// How many keys it deleted.
        deleted: u64,
    },
    /// A session was opened.
    OpenSession {
        /// It.
        session: SessionId,
    },
    /// A PutIf was decided.
    PutIf {
        /// The store's revision after it.
        revision: Revision,
        /// Why it put nothing, if so: the key's mod revision; 0: there is no such key.
        refused: Option<Revision>,
    },
    /// A Compact was done.
    Compact {
        /// The store's revision.
        revision: Revision,
    },
    /// A PutWith was done.
    PutWith {
        /// The revision it made.
        revision: Revision,
        /// The key before it, if that was asked for and there was one.
        before: Option<KeyValue<'a>>,
    },
    /// A DeleteRangeWith was done.
    DeleteRangeWith {
        /// The store's revision after it.
        revision: Revision,
        /// How many keys it deleted.
        deleted: u64,
        /// They, if that was asked for.
        before: Kvs<'a>,
    },
    /// A Txn or a ReadTxn was done.
    Txn {
        /// Which of them.
        op: Op,
        /// The store's revision after it.
        revision: Revision,
        /// Whether its compares held.
        succeeded: bool,
        /// What its requests came to.
        results: Results<'a>,
    },
    /// A LeaseGrant or a LeaseKeepAlive was done.
    LeaseTerm {
        /// Which of them.
        op: Op,
        /// What the lease is now.
        term: LeaseTerm,
    },
    /// A LeaseRevoke was done.
    LeaseRevoke {
        /// The store's revision after it.
        revision: Revision,
    },
    /// How long a lease has left, and keys that hang on it.
    LeaseTimes(LeaseTimes, Names<'a>),
    /// Which leases there are.
    LeaseList(LeaseList),
    /// What a Range found.
    Range(RangeReply<'a>),
    /// How the node sees itself.
    Status(Box<Status>),
    /// A piece of a snapshot; more replies follow unless it is the last one.
    Snapshot(SnapshotPiece<'a>),
    /// Changes that a watch is to hear of; more replies follow.
    Watch(WatchReply<'a>),
    /// A watch has ended because the client asked for it.
    WatchCancel {
        /// It had not ended before.
        was_open: bool,
    },
    /// How far the watches of the connection are.
    WatchProgress {
        /// None of them misses anything up to this revision.
        revision: Revision,
    },
    /// Users or roles were changed, or whether rights count.
    Auth {
        /// The store's revision.
        revision: Revision,
        /// How often users and roles were changed.
        auth_revision: u64,
    },
    /// How to prove a password.
    Login(LoginChallenge<'a>),
    /// Whoever asked has logged in.
    LoginProof(LoginDone),
    /// Which users and roles there are.
    AuthRead(Box<AuthAnswer>),
    /// Who the members are.
    MemberList(Box<MemberList>),
    /// The members were changed.
    MemberChange {
        /// Which change.
        op: Op,
        /// The entry of the configuration, which is committed.
        index: LogIndex,
    },
    /// The leadership was handed over.
    Transfer {
        /// Who leads.
        leader: NodeId,
    },
}

/// What a Range found, borrowed from the reply.
#[derive(Clone, Copy, Debug)]
pub struct RangeReply<'a> {
    /// The store's revision.
    pub revision: Revision,
    /// Whether keys of the range were left out. Not known while it goes on.
    pub more: bool,
    /// How many keys the range has in all. Not known while it goes on.
    pub count: u64,
    /// Whether other replies follow to the same request.
    pub goes_on: bool,
    kvs: Kvs<'a>,
}

impl<'a> RangeReply<'a> {
    /// How many keys the reply holds.
    pub const fn len(&self) -> usize {
        self.kvs.len()
    }

    /// Whether the reply holds no key.
    pub const fn is_empty(&self) -> bool {
        self.kvs.is_empty()
    }

    /// The keys, in order.
    pub fn kvs(&self) -> impl Iterator<Item = KeyValue<'a>> + use<'a> {
        self.kvs.iter()
    }
}

/// Reads of the body of a reply to which request it is, and of which kind: an op, or an error.
pub fn reply_head(body: &[u8]) -> Result<(u64, u64), DecodeError> {
    let mut reader = Reader::new(body);
    read_head(&mut reader)
}

fn read_head(reader: &mut Reader<'_>) -> Result<(u64, u64), DecodeError> {
    if reader.array()? != 3 {
        return Err(DecodeError::Inconsistent { what: "a reply has three parts" });
    }
    Ok((reader.uint()?, reader.uint()?))
}

/// Reads the body of a reply.
pub fn decode_reply(body: &[u8]) -> Result<Reply<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let (id, kind) = read_head(&mut reader)?;
    if kind == error::KIND_ERROR {
        let error = error::decode_error(reader.rest())?;
        return Ok(Reply { id, body: ReplyBody::Error(error) });
    }
    let op = Op::from_code(kind)
        .ok_or(DecodeError::Range { what: "the kind of a reply", found: kind })?;
    Ok(Reply { id, body: decode_args(op, reader)? })
}

fn decode_args(op: Op, mut reader: Reader<'_>) -> Result<ReplyBody<'_>, DecodeError> {
    let args = reader.rest();
    let mut fields = Fields::open(&mut reader)?;
    let body = match op {
        Op::Put => ReplyBody::Put { revision: fields.revision()? },
        Op::DeleteRange => {
            ReplyBody::DeleteRange { revision: fields.revision()?, deleted: fields.uint()? }
        }
        Op::OpenSession => ReplyBody::OpenSession { session: SessionId(fields.uint()?) },
        Op::PutIf => {
            let (revision, done) = (fields.revision()?, fields.flag()?);
            let found = fields.revision()?;
            ReplyBody::PutIf { revision, refused: Some(found).filter(|_| !done) }
        }
        Op::Compact => ReplyBody::Compact { revision: fields.revision()? },
        Op::PutWith => {
            let (revision, kvs) = (fields.revision()?, Kvs::decode(&mut fields)?);
            ReplyBody::PutWith { revision, before: kvs.iter().next() }
        }
        Op::DeleteRangeWith => {
            let (revision, deleted) = (fields.revision()?, fields.uint()?);
            ReplyBody::DeleteRangeWith { revision, deleted, before: Kvs::decode(&mut fields)? }
        }
        Op::Txn | Op::ReadTxn => {
            let (revision, succeeded) = (fields.revision()?, fields.flag()?);
            ReplyBody::Txn { op, revision, succeeded, results: Results::decode(&mut fields)? }
        }
        Op::LeaseGrant | Op::LeaseKeepAlive => {
            ReplyBody::LeaseTerm { op, term: leases::decode_term(&mut fields)? }
        }
        Op::LeaseRevoke => ReplyBody::LeaseRevoke { revision: fields.revision()? },
        Op::LeaseTimeToLive => {
            let (times, names) = leases::decode_times(&mut fields)?;
            ReplyBody::LeaseTimes(times, names)
        }
        Op::LeaseList => ReplyBody::LeaseList(leases::decode_list(&mut fields)?),
        Op::Auth => ReplyBody::Auth { revision: fields.revision()?, auth_revision: fields.uint()? },
        Op::Login => ReplyBody::Login(auth::decode_challenge(&mut fields)?),
        Op::LoginProof => ReplyBody::LoginProof(auth::decode_login_done(&mut fields)?),
        Op::AuthRead => ReplyBody::AuthRead(Box::new(auth::decode_answer(&mut fields)?)),
        Op::InSession | Op::As => {
            let found = u64::from(op.code());
            return Err(DecodeError::Range { what: "the kind of a reply", found });
        }
        Op::Range => ReplyBody::Range(decode_range(&mut fields)?),
        Op::Status => return Ok(ReplyBody::Status(Box::new(status::decode_status(args)?))),
        Op::Snapshot => ReplyBody::Snapshot(decode_piece(&mut fields)?),
        Op::Watch => ReplyBody::Watch(WatchReply::decode(&mut fields)?),
        Op::WatchCancel => ReplyBody::WatchCancel { was_open: fields.flag()? },
        Op::WatchProgress => ReplyBody::WatchProgress { revision: fields.revision()? },
        Op::MemberList => {
            return Ok(ReplyBody::MemberList(Box::new(members::decode_member_list(args)?)));
        }
        Op::MemberAdd | Op::MemberRemove | Op::MemberPromote | Op::MemberReplace => {
            ReplyBody::MemberChange { op, index: fields.index()? }
        }
        Op::TransferLeader => match fields.node()? {
            Some(leader) => ReplyBody::Transfer { leader },
            None => return Err(DecodeError::Range { what: "a node's id", found: 0 }),
        },
    };
    fields.close()?;
    fields::expect_end(&reader)?;
    Ok(body)
}

fn decode_range<'a>(fields: &mut Fields<'_, 'a>) -> Result<RangeReply<'a>, DecodeError> {
    let revision = fields.revision()?;
    let kvs = Kvs::decode(fields)?;
    let more = fields.flag()?;
    let count = fields.uint()?;
    let goes_on = fields.flag()?;
    Ok(RangeReply { revision, more, count, goes_on, kvs })
}

fn decode_piece<'a>(fields: &mut Fields<'_, 'a>) -> Result<SnapshotPiece<'a>, DecodeError> {
    let (position, bytes) = (fields.position()?, fields.uint()?);
    let crc = fields.uint_within("a checksum", u64::from(u32::MAX))?;
    let crc = u32::try_from(crc).unwrap_or(u32::MAX);
    let snapshot = SnapshotId { position, bytes, crc };
    let (offset, bytes) = (fields.uint()?, fields.bin()?);
    Ok(SnapshotPiece { snapshot, offset, bytes })
}

pub(super) fn begin_reply(out: &mut Vec<u8>, id: u64, op: Op) -> FrameStart {
    let start = frame::begin(out);
    msgpack::write_array(out, 3);
    msgpack::write_uint(out, id);
    msgpack::write_uint(out, u64::from(op.code()));
    start
}
