//! What an entry of kind `Commands` holds.
//!
//! ```text
//! payload   header command*                     MessagePack values in a row, to the last byte
//! header    array(2) [format_version: uint = 1, leader_stamp_ms: uint]
//! command   op args                             the client's request after its id, unchanged
//!   01      array(2) [key: bin, value: bin]     Put
//!   02      array(2) [key: bin, end: bin]       DeleteRange
//!   03      array(1) [revision: uint]           Compact
//!   04      array(5) [session: uint, sequence: uint, acknowledged: uint, op, args]     InSession:
//!                                               any of these but 04, 05, 12, 13, 15, done once
//!   05      array(0) []                         OpenSession
//!   06      array(3) [key: bin, value: bin, mod_revision: uint]     PutIf
//!   07      array(6) [key: bin, value: bin, lease: uint, prev_kv: bool, ignore_value: bool,
//!                     ignore_lease: bool]       PutWith
//!   08      array(3) [key: bin, end: bin, prev_kv: bool]            DeleteRangeWith
//!   09      array(3)                            Txn, see txn.rs
//!   10      array(2) [lease: uint, ttl_s: uint] LeaseGrant; lease 0: choose one
//!   11      array(1) [lease: uint]                                  LeaseRevoke
//!   12      array(3) [term: uint, lease: uint, grant: uint]         LeaseExpire
//!   13      array(4) [term: uint, lease: uint, grant: uint, due_ms: uint]       LeaseCheckpoint
//!   14      array                               Auth, see auth/change.rs
//!   15      array(4) [login: uint, acting: uint, op, args]    As: any of these but 12, 13, 15
//! end       empty: the one key; a single zero byte: every key from `key` on; else [key, end)
//! ```
//!
//! 12, 13 and 15 are the leader's own: no client's request becomes one. 15 says who asks: the
//! leader puts it in front of what comes from whoever has logged in.
//!
//! A command in a session is the plain command behind its call (`04 95 session sequence
//! acknowledged`), so reading one costs nothing to the others. So it is with one behind its asker
//! (`0f 94 login acting`).
//!
//! Reading is strict: another version, operation, arity or type, an empty key or a byte too many is
//! an error. At admission it refuses the request; at apply it stops the node, because one node that
//! skips what another applies is no replica. New fields come with a new format version (design
//! §12.9). `tests/kv/golden/` holds every form.

use crate::codec::msgpack::{self, Reader};
use crate::limits::{LEASE_TTL_S_MAX, SESSION_WINDOW};
use crate::types::{Revision, SessionId, Term};

pub use super::auth::{Access, Asker, AuthChange, AuthVerb, PasswordProof, Permission};
pub use super::command_error::CommandError;
pub use super::issued::{ASKER_BYTES_MAX, Issued, decode_issued, encode_asker};
pub use super::range::RangeRequest;
pub use super::select::{Order, RevisionSpan, Selection, SortBy};
pub use super::txn::{Compare, Operand, Relation, Request, Txn, TxnParts};

/// The version of the format above.
pub const FORMAT_VERSION: u64 = 1;

const OP_PUT: u8 = 1;
const OP_DELETE_RANGE: u8 = 2;
const OP_COMPACT: u8 = 3;
const OP_IN_SESSION: u8 = 4;
const OP_OPEN_SESSION: u8 = 5;
const OP_PUT_IF: u8 = 6;
pub(super) const OP_PUT_WITH: u8 = 7;
pub(super) const OP_DELETE_RANGE_WITH: u8 = 8;
pub(super) const OP_TXN: u8 = 9;
const OP_LEASE_GRANT: u8 = 10;
const OP_LEASE_REVOKE: u8 = 11;
const OP_LEASE_EXPIRE: u8 = 12;
const OP_LEASE_CHECKPOINT: u8 = 13;
const OP_AUTH: u8 = 14;
pub(super) const OP_AS: u8 = 15;

/// The last call of a session. Nobody makes as many, and what follows it can be counted as well.
const SEQUENCE_MAX: u64 = 1 << 62;

/// The first bytes of a command in a session: its op, and an array of five.
const IN_SESSION: [u8; 2] = [OP_IN_SESSION, 0x95];

/// What leads an entry's payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryHeader {
    /// The leader's time when it made the entry: each counts on from the one before it, and no wall
    /// clock has a part in it. Milliseconds. Design §12.10.
    pub stamp_ms: u64,
}

/// Which call of a client session a command is. Thesis §6.3.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SessionCall {
    /// The session.
    pub session: SessionId,
    /// The number of the call, from 1. Calls may be applied in any order.
    pub sequence: u64,
    /// The client has the replies of all calls up to this one, or has given them up: below
    /// `sequence`, by `SESSION_WINDOW` at most.
    pub acknowledged: u64,
}

/// A change to the store, borrowed from the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// Sets a key's value. Always makes a revision, even if the value is the same.
    Put {
        /// Not empty.
        key: &'a [u8],
        /// May be empty.
        value: &'a [u8],
    },
    /// Deletes every live key of a range in one revision; none if there is no such key.
    DeleteRange {
        /// Not empty.
        key: &'a [u8],
        /// Where the range ends.
        end: RangeEnd<'a>,
    },
    /// Gives up the history below a revision. Makes no revision itself.
    Compact {
        /// The oldest revision that stays readable.
        revision: Revision,
    },
    /// Makes a client session. Changes no key.
    OpenSession,
    /// A `Put`, if the key's last change is the one named. A transaction of one comparison.
    PutIf {
        /// Not empty.
        key: &'a [u8],
        /// May be empty.
        value: &'a [u8],
        /// The key's mod revision must be this one; 0: there must be no such key.
        mod_revision: Revision,
    },
    /// A `Put` with everything that etcd's has.
    PutWith(PutWith<'a>),
    /// A `DeleteRange` that answers what it deleted, if asked to.
    DeleteRangeWith(DeleteWith<'a>),
    /// Requests that are done together, one branch of two.
    Txn(Txn<'a>),
    /// Makes a lease.
    LeaseGrant {
        /// Its number; 0: the store chooses one.
        lease: u64,
        /// How long it lives without being kept alive: a leader raises what is too short before
        /// the log has it. Seconds, `LEASE_TTL_S_MAX` at most.
        ttl_s: u64,
    },
    /// Ends a lease, and deletes the keys that hang on it in one revision.
    LeaseRevoke {
        /// The lease.
        lease: u64,
    },
    /// The same, because the lease's time is over. Void in an entry of another term.
    LeaseExpire {
        /// The term of the leader that found it over.
        term: Term,
        /// The lease.
        lease: u64,
        /// Which grant of it. It may have ended meanwhile, and been made anew.
        grant: u64,
    },
    /// Changes users or roles, or whether rights count.
    Auth(AuthChange<'a>),
    /// Says when a lease is due. Void in an entry of another term.
    LeaseCheckpoint {
        /// The term of the leader that says it.
        term: Term,
        /// The lease.
        lease: u64,
        /// Which grant of it.
        grant: u64,
        /// The stamp, if nobody keeps it alive meanwhile; 0: somebody does. Milliseconds.
        due_ms: u64,
    },
}

impl Command<'_> {
    /// Whether only a leader makes it.
    pub const fn is_leaders(&self) -> bool {
        match self {
            Command::LeaseExpire { .. } | Command::LeaseCheckpoint { .. } => true,
            Command::Put { .. }
            | Command::DeleteRange { .. }
            | Command::Compact { .. }
            | Command::OpenSession
            | Command::PutIf { .. }
            | Command::PutWith(_)
            | Command::DeleteRangeWith(_)
            | Command::Txn(_)
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::Auth(_) => false,
        }
    }
}

/// A put with everything that etcd's has.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PutWith<'a> {
    /// Not empty.
    pub key: &'a [u8],
    /// May be empty; must be if `ignore_value`.
    pub value: &'a [u8],
    /// The lease that the key hangs on from now on; 0 is none, and must be if `ignore_lease`.
    pub lease: u64,
    /// Answer what was there before.
    pub prev_kv: bool,
    /// Keep the value. The key must exist.
    pub ignore_value: bool,
    /// Keep the lease. The key must exist.
    pub ignore_lease: bool,
}

/// A delete with everything that etcd's has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeleteWith<'a> {
    /// Not empty.
    pub key: &'a [u8],
    /// Where the range ends.
    pub end: RangeEnd<'a>,
    /// Answer what was there before.
    pub prev_kv: bool,
}

/// Where a range of keys ends that starts at its `key`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeEnd<'a> {
    /// After `key` itself: the one key.
    Key,
    /// Nowhere: every key from `key` on.
    Unbounded,
    /// Before this key. At or before `key`, the range is empty. Neither empty nor a single zero
    /// byte.
    Before(&'a [u8]),
}

impl<'a> RangeEnd<'a> {
    /// Reads the wire's form. etcd's `range_end`.
    pub const fn from_bytes(end: &'a [u8]) -> RangeEnd<'a> {
        match end {
            [] => RangeEnd::Key,
            [0] => RangeEnd::Unbounded,
            end => RangeEnd::Before(end),
        }
    }

    /// Whether a range from `start` to here has `key`.
    pub fn holds(self, start: &[u8], key: &[u8]) -> bool {
        match self {
            RangeEnd::Key => key == start,
            RangeEnd::Unbounded => key >= start,
            RangeEnd::Before(end) => key >= start && key < end,
        }
    }

    /// The wire's form.
    pub const fn as_bytes(self) -> &'a [u8] {
        match self {
            RangeEnd::Key => &[],
            RangeEnd::Unbounded => &[0],
            RangeEnd::Before(end) => end,
        }
    }
}

/// Whether a client's request may enter the log. `op_and_args` is the request after its id.
pub fn validate_command(op_and_args: &[u8], bytes_max: usize) -> Result<(), CommandError> {
    read_command(op_and_args, bytes_max).map(|_| ())
}

/// Reads a client's request, if it may enter the log, as `decode_next` does.
pub fn read_command(
    op_and_args: &[u8],
    bytes_max: usize,
) -> Result<(Option<SessionCall>, Command<'_>), CommandError> {
    if op_and_args.len() > bytes_max {
        return Err(CommandError::TooLarge { bytes: op_and_args.len(), bytes_max });
    }
    let mut reader = Reader::new(op_and_args);
    let (call, command) = decode_next(&mut reader)?;
    if command.is_leaders() {
        return Err(CommandError::Operation { op: op_and_args[0] });
    }
    match reader.rest().len() {
        0 => Ok((call, command)),
        bytes => Err(CommandError::Trailing { bytes }),
    }
}

/// Reads what leads an entry's payload.
pub fn decode_header(reader: &mut Reader<'_>) -> Result<EntryHeader, CommandError> {
    // The version first: what follows it is the version's to say.
    let fields = reader.array()?;
    if fields == 0 {
        return Err(CommandError::Arity { of: "the entry header", expected: 2, found: 0 });
    }
    let version = reader.uint()?;
    if version != FORMAT_VERSION {
        return Err(CommandError::Version { found: version });
    }
    check_arity("the entry header", 2, fields)?;
    Ok(EntryHeader { stamp_ms: reader.uint()? })
}

/// Reads the next command of a client, and which call of a session it is, if it is in one.
#[inline]
pub fn decode_next<'a>(
    reader: &mut Reader<'a>,
) -> Result<(Option<SessionCall>, Command<'a>), CommandError> {
    if reader.rest().first() != Some(&OP_IN_SESSION) {
        return Ok((None, decode_command(reader)?));
    }
    let call = decode_call(reader)?;
    match decode_command(reader)? {
        Command::OpenSession => Err(CommandError::Operation { op: OP_OPEN_SESSION }),
        Command::LeaseExpire { .. } => Err(CommandError::Operation { op: OP_LEASE_EXPIRE }),
        Command::LeaseCheckpoint { .. } => Err(CommandError::Operation { op: OP_LEASE_CHECKPOINT }),
        command @ (Command::Put { .. }
        | Command::DeleteRange { .. }
        | Command::Compact { .. }
        | Command::PutIf { .. }
        | Command::PutWith(_)
        | Command::DeleteRangeWith(_)
        | Command::Txn(_)
        | Command::LeaseGrant { .. }
        | Command::LeaseRevoke { .. }
        | Command::Auth(_)) => Ok((Some(call), command)),
    }
}

fn decode_call(reader: &mut Reader<'_>) -> Result<SessionCall, CommandError> {
    reader.fixint()?;
    check_arity("a command in a session", 5, reader.array()?)?;
    let session = SessionId(reader.uint()?);
    let (sequence, acknowledged) = (reader.uint()?, reader.uint()?);
    let call = SessionCall { session, sequence, acknowledged };
    let ahead = sequence.saturating_sub(acknowledged);
    let within = (1..=SESSION_WINDOW).contains(&ahead) && sequence <= SEQUENCE_MAX;
    let sound = session != SessionId(0) && within;
    if sound { Ok(call) } else { Err(CommandError::Call { call }) }
}

/// Reads a command that is in no session.
#[inline]
pub fn decode_command<'a>(reader: &mut Reader<'a>) -> Result<Command<'a>, CommandError> {
    let op = reader.fixint()?;
    match op {
        OP_PUT => {
            check_arity("a put", 2, reader.array()?)?;
            Ok(Command::Put { key: decode_key(reader)?, value: reader.bin()? })
        }
        OP_DELETE_RANGE => {
            check_arity("a delete", 2, reader.array()?)?;
            let key = decode_key(reader)?;
            Ok(Command::DeleteRange { key, end: RangeEnd::from_bytes(reader.bin()?) })
        }
        OP_COMPACT => {
            check_arity("a compaction", 1, reader.array()?)?;
            Ok(Command::Compact { revision: Revision(reader.uint()?) })
        }
        OP_OPEN_SESSION => {
            check_arity("an opening of a session", 0, reader.array()?)?;
            Ok(Command::OpenSession)
        }
        OP_PUT_IF => {
            check_arity("a conditional put", 3, reader.array()?)?;
            let (key, value) = (decode_key(reader)?, reader.bin()?);
            Ok(Command::PutIf { key, value, mod_revision: Revision(reader.uint()?) })
        }
        OP_PUT_WITH => Ok(Command::PutWith(decode_put_with(reader)?)),
        OP_DELETE_RANGE_WITH => Ok(Command::DeleteRangeWith(decode_delete_with(reader)?)),
        OP_TXN => Ok(Command::Txn(Txn::decode(reader)?)),
        OP_LEASE_GRANT | OP_LEASE_REVOKE | OP_LEASE_EXPIRE | OP_LEASE_CHECKPOINT => {
            decode_lease_command(op, reader)
        }
        OP_AUTH => Ok(Command::Auth(AuthChange::decode(reader)?)),
        op => Err(CommandError::Operation { op }),
    }
}

fn decode_lease_command<'a>(op: u8, reader: &mut Reader<'a>) -> Result<Command<'a>, CommandError> {
    let (of, expected) = match op {
        OP_LEASE_GRANT => ("a grant of a lease", 2),
        OP_LEASE_REVOKE => ("a revocation of a lease", 1),
        OP_LEASE_EXPIRE => ("an expiry of a lease", 3),
        OP_LEASE_CHECKPOINT => ("a checkpoint of a lease", 4),
        op => return Err(CommandError::Operation { op }),
    };
    check_arity(of, expected, reader.array()?)?;
    Ok(match op {
        OP_LEASE_GRANT => {
            let (lease, ttl_s) = (reader.uint()?, reader.uint()?);
            if ttl_s > LEASE_TTL_S_MAX {
                return Err(CommandError::LeaseTooLong { ttl_s });
            }
            Command::LeaseGrant { lease, ttl_s }
        }
        OP_LEASE_REVOKE => Command::LeaseRevoke { lease: reader.uint()? },
        OP_LEASE_EXPIRE => {
            let (term, lease) = (Term::new(reader.uint()?), reader.uint()?);
            Command::LeaseExpire { term, lease, grant: reader.uint()? }
        }
        _ => {
            let (term, lease) = (Term::new(reader.uint()?), reader.uint()?);
            let (grant, due_ms) = (reader.uint()?, reader.uint()?);
            Command::LeaseCheckpoint { term, lease, grant, due_ms }
        }
    })
}

pub(super) fn decode_put_with<'a>(reader: &mut Reader<'a>) -> Result<PutWith<'a>, CommandError> {
    check_arity("a put with options", 6, reader.array()?)?;
    let (key, value, lease) = (decode_key(reader)?, reader.bin()?, reader.uint()?);
    let (prev_kv, ignore_value) = (reader.flag()?, reader.flag()?);
    let ignore_lease = reader.flag()?;
    if ignore_value && !value.is_empty() {
        return Err(CommandError::ValueGiven);
    }
    if ignore_lease && lease != 0 {
        return Err(CommandError::LeaseGiven);
    }
    Ok(PutWith { key, value, lease, prev_kv, ignore_value, ignore_lease })
}

pub(super) fn decode_delete_with<'a>(
    reader: &mut Reader<'a>,
) -> Result<DeleteWith<'a>, CommandError> {
    check_arity("a delete with options", 3, reader.array()?)?;
    let (key, end) = (decode_key(reader)?, RangeEnd::from_bytes(reader.bin()?));
    Ok(DeleteWith { key, end, prev_kv: reader.flag()? })
}

#[inline]
pub(super) fn decode_key<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], CommandError> {
    let key = reader.bin()?;
    if key.is_empty() { Err(CommandError::EmptyKey) } else { Ok(key) }
}

#[inline]
pub(super) fn check_arity(
    of: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), CommandError> {
    if found == expected { Ok(()) } else { Err(CommandError::Arity { of, expected, found }) }
}

/// Appends what leads an entry's payload.
pub fn encode_header(out: &mut Vec<u8>, header: EntryHeader) {
    msgpack::write_array(out, 2);
    msgpack::write_uint(out, FORMAT_VERSION);
    msgpack::write_uint(out, header.stamp_ms);
}

/// Appends a command, in the form a client sends and the log keeps.
pub fn encode_command(out: &mut Vec<u8>, command: Command<'_>) {
    match command {
        Command::Put { key, value } => {
            assert!(!key.is_empty(), "a put names a key");
            out.push(OP_PUT);
            msgpack::write_array(out, 2);
            msgpack::write_bin(out, key);
            msgpack::write_bin(out, value);
        }
        Command::DeleteRange { key, end } => {
            assert!(!key.is_empty(), "a delete names a key");
            out.push(OP_DELETE_RANGE);
            msgpack::write_array(out, 2);
            msgpack::write_bin(out, key);
            msgpack::write_bin(out, end.as_bytes());
        }
        Command::Compact { revision } => {
            out.push(OP_COMPACT);
            msgpack::write_array(out, 1);
            msgpack::write_uint(out, revision.0);
        }
        Command::OpenSession => {
            out.push(OP_OPEN_SESSION);
            msgpack::write_array(out, 0);
        }
        Command::PutIf { key, value, mod_revision } => {
            assert!(!key.is_empty(), "a put names a key");
            out.push(OP_PUT_IF);
            msgpack::write_array(out, 3);
            msgpack::write_bin(out, key);
            msgpack::write_bin(out, value);
            msgpack::write_uint(out, mod_revision.0);
        }
        Command::PutWith(put) => {
            out.push(OP_PUT_WITH);
            encode_put_with(out, &put);
        }
        Command::DeleteRangeWith(delete) => {
            out.push(OP_DELETE_RANGE_WITH);
            encode_delete_with(out, &delete);
        }
        Command::Txn(txn) => {
            out.push(OP_TXN);
            out.extend_from_slice(txn.args());
        }
        Command::LeaseGrant { lease, ttl_s } => {
            write_numbers(out, OP_LEASE_GRANT, &[lease, ttl_s]);
        }
        Command::LeaseRevoke { lease } => write_numbers(out, OP_LEASE_REVOKE, &[lease]),
        Command::LeaseExpire { term, lease, grant } => {
            write_numbers(out, OP_LEASE_EXPIRE, &[term.get(), lease, grant]);
        }
        Command::LeaseCheckpoint { term, lease, grant, due_ms } => {
            write_numbers(out, OP_LEASE_CHECKPOINT, &[term.get(), lease, grant, due_ms]);
        }
        Command::Auth(change) => {
            out.push(OP_AUTH);
            out.extend_from_slice(change.args());
        }
    }
}

fn write_numbers(out: &mut Vec<u8>, op: u8, numbers: &[u64]) {
    out.push(op);
    msgpack::write_array(out, u32::try_from(numbers.len()).expect("a handful"));
    numbers.iter().for_each(|number| msgpack::write_uint(out, *number));
}

pub(super) fn encode_put_with(out: &mut Vec<u8>, put: &PutWith<'_>) {
    let PutWith { key, value, lease, prev_kv, ignore_value, ignore_lease } = *put;
    assert!(!key.is_empty(), "a put names a key");
    msgpack::write_array(out, 6);
    msgpack::write_bin(out, key);
    msgpack::write_bin(out, value);
    msgpack::write_uint(out, lease);
    for flag in [prev_kv, ignore_value, ignore_lease] {
        msgpack::write_flag(out, flag);
    }
}

pub(super) fn encode_delete_with(out: &mut Vec<u8>, delete: &DeleteWith<'_>) {
    let DeleteWith { key, end, prev_kv } = *delete;
    assert!(!key.is_empty(), "a delete names a key");
    msgpack::write_array(out, 3);
    msgpack::write_bin(out, key);
    msgpack::write_bin(out, end.as_bytes());
    msgpack::write_flag(out, prev_kv);
}

/// Appends what leads a command in a session; the command follows.
pub fn encode_call(out: &mut Vec<u8>, call: SessionCall) {
    out.extend_from_slice(&IN_SESSION);
    msgpack::write_uint(out, call.session.0);
    msgpack::write_uint(out, call.sequence);
    msgpack::write_uint(out, call.acknowledged);
}
