//! Transactions as they stand in the log: requests of which one branch is done, all at once.
//!
//! ```text
//! txn       array(3) [compares: array compare*, then: array request*, else: array request*]
//! compare   array(5) [target: uint, relation: uint, key: bin, end: bin, operand]
//! target    0 version · 1 create revision · 2 mod revision · 3 value · 4 lease
//! relation  0 equal · 1 greater · 2 less · 3 not equal
//! operand   bin for a value, else uint
//! request   array(2) [op: uint, args]
//!    7      as the command                                        PutWith
//!    8      as the command                                        DeleteRangeWith
//!    9      txn                                                   Txn
//!   16      array(12) [key: bin, end: bin, limit: uint, revision: uint, keys_only: bool,
//!                      count_only: bool, sort_by: uint, order: uint, min_mod: uint, max_mod: uint,
//!                      min_create: uint, max_create: uint]        Range
//! ```
//!
//! The numbers of targets, relations, orders are etcd's. Reading is strict, and judges the whole:
//! how many there are, how deep, and that neither branch changes a key twice (`overlap`). So what
//! is a `Txn` can be done, whatever the store holds, but for what `Refusal` says.
//!
//! A transaction stays bytes, and is read again where it is done: that is cheaper than to allocate
//! what most of them hold one of.

use crate::codec::msgpack::{self, Reader};
use crate::limits::{TXN_DEPTH_MAX, TXN_OPS_TOTAL_MAX};
use crate::types::Revision;

use super::command::{
    CommandError, DeleteWith, OP_DELETE_RANGE_WITH, OP_PUT_WITH, OP_TXN, PutWith, RangeEnd,
    check_arity, decode_delete_with, decode_key, decode_put_with, encode_delete_with,
    encode_put_with,
};
use super::overlap;
use super::range::RangeRequest;
use super::select::{Order, RevisionSpan, Selection, SortBy};

/// A range in a transaction: as the op of a request by itself.
pub(super) const OP_RANGE: u8 = 16;

/// A transaction, read and found sound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Txn<'a> {
    args: &'a [u8],
    /// Where the branches begin in `args`.
    then_at: u32,
    else_at: u32,
    /// The puts and deletes in all its branches.
    changes: u32,
}

/// A transaction to be encoded.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TxnParts<'a> {
    /// What must hold, all of it, of the store before the transaction.
    pub compares: &'a [Compare<'a>],
    /// What is done if it does.
    pub then: &'a [Request<'a>],
    /// What is done if it does not.
    pub otherwise: &'a [Request<'a>],
}

/// What must hold of a key, or of every key of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compare<'a> {
    /// The first key. Not empty.
    pub key: &'a [u8],
    /// Where the range ends.
    pub end: RangeEnd<'a>,
    /// What the key's has to be to the operand.
    pub relation: Relation,
    /// With what the key's is compared.
    pub operand: Operand<'a>,
}

/// With what something of a key is compared. A key that does not exist has 0 of everything, and no
/// value: what compares a value of it does not hold, whatever the relation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand<'a> {
    /// Its version.
    Version(u64),
    /// The revision that created it.
    Create(Revision),
    /// The revision of its last put.
    Mod(Revision),
    /// Its value.
    Value(&'a [u8]),
    /// Its lease.
    Lease(u64),
}

/// What the key's has to be to the operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// The same.
    Equal,
    /// Greater than it.
    Greater,
    /// Less than it.
    Less,
    /// Another.
    NotEqual,
}

/// A request of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// Sets a key's value.
    Put(PutWith<'a>),
    /// Deletes the keys of a range.
    Delete(DeleteWith<'a>),
    /// Reads the keys of a range.
    Range(RangeRequest<'a>),
    /// A transaction of its own, whose compares are judged with all others, before anything is
    /// done.
    Txn(Txn<'a>),
}

impl Relation {
    const fn code(self) -> u64 {
        match self {
            Relation::Equal => 0,
            Relation::Greater => 1,
            Relation::Less => 2,
            Relation::NotEqual => 3,
        }
    }

    const fn from_code(code: u64) -> Option<Relation> {
        match code {
            0 => Some(Relation::Equal),
            1 => Some(Relation::Greater),
            2 => Some(Relation::Less),
            3 => Some(Relation::NotEqual),
            _ => None,
        }
    }
}

impl Request<'_> {
    /// Its number, and that of its result.
    pub(super) const fn op(&self) -> u8 {
        match self {
            Request::Put(_) => OP_PUT_WITH,
            Request::Delete(_) => OP_DELETE_RANGE_WITH,
            Request::Range(_) => OP_RANGE,
            Request::Txn(_) => OP_TXN,
        }
    }
}

const SOUND: &str = "a Txn was read once and found sound";

impl<'a> Txn<'a> {
    /// Reads the args of a transaction to their end.
    pub fn from_args(args: &'a [u8]) -> Result<Txn<'a>, CommandError> {
        let mut reader = Reader::new(args);
        let txn = Txn::decode(&mut reader)?;
        match reader.rest().len() {
            0 => Ok(txn),
            bytes => Err(CommandError::Trailing { bytes }),
        }
    }

    /// Reads and judges a transaction at the front of what is read.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Txn<'a>, CommandError> {
        let mut ops_left = TXN_OPS_TOTAL_MAX;
        let txn = read_txn(reader, &mut ops_left, TXN_DEPTH_MAX)?;
        overlap::check(txn)?;
        Ok(txn)
    }

    /// Its bytes.
    pub const fn args(&self) -> &'a [u8] {
        self.args
    }

    /// Whether it changes nothing, whichever branches are taken.
    pub const fn is_read_only(&self) -> bool {
        self.changes == 0
    }

    /// The puts and deletes in all its branches.
    pub(super) fn changes(&self) -> usize {
        usize::try_from(self.changes).expect("few")
    }

    /// What must hold.
    pub fn compares(&self) -> impl ExactSizeIterator<Item = Compare<'a>> + use<'a> {
        let mut reader = Reader::new(self.args);
        reader.array().expect(SOUND);
        let count = reader.array().expect(SOUND);
        (0..count).map(move |_| read_compare(&mut reader).expect(SOUND))
    }

    /// The requests of the branch that is done if all compares hold, or of the other one.
    pub fn branch(&self, hold: bool) -> impl ExactSizeIterator<Item = Request<'a>> + use<'a> {
        let at = if hold { self.then_at } else { self.else_at };
        let at = usize::try_from(at).expect("raftd runs on 64 bits");
        let mut reader = Reader::new(&self.args[at..]);
        let count = reader.array().expect(SOUND);
        (0..count).map(move |_| {
            let mut ops_left = usize::MAX;
            read_request(&mut reader, &mut ops_left, TXN_DEPTH_MAX).expect(SOUND).0
        })
    }
}

/// Reads a transaction's shape. `ops_left` counts down, `depth` is how many may be inside each
/// other.
fn read_txn<'a>(
    reader: &mut Reader<'a>,
    ops_left: &mut usize,
    depth: usize,
) -> Result<Txn<'a>, CommandError> {
    let depth = depth.checked_sub(1).ok_or(CommandError::TooDeep)?;
    let args = reader.rest();
    let offset = |reader: &Reader<'_>| u32::try_from(args.len() - reader.rest().len());
    check_arity("a transaction", 3, reader.array()?)?;
    for _ in 0..count_ops(reader, ops_left)? {
        read_compare(reader)?;
    }
    let too_large = |_| CommandError::TooManyOperations;
    let then_at = offset(reader).map_err(too_large)?;
    let mut changes = read_branch(reader, ops_left, depth)?;
    let else_at = offset(reader).map_err(too_large)?;
    changes += read_branch(reader, ops_left, depth)?;
    let args = &args[..args.len() - reader.rest().len()];
    Ok(Txn { args, then_at, else_at, changes })
}

fn count_ops(reader: &mut Reader<'_>, ops_left: &mut usize) -> Result<usize, CommandError> {
    let count = reader.array()?;
    *ops_left = ops_left.checked_sub(count).ok_or(CommandError::TooManyOperations)?;
    Ok(count)
}

/// Reads a branch; says how many changes are in it.
fn read_branch(
    reader: &mut Reader<'_>,
    ops_left: &mut usize,
    depth: usize,
) -> Result<u32, CommandError> {
    let mut changes = 0;
    for _ in 0..count_ops(reader, ops_left)? {
        changes += read_request(reader, ops_left, depth)?.1;
    }
    Ok(changes)
}

fn read_request<'a>(
    reader: &mut Reader<'a>,
    ops_left: &mut usize,
    depth: usize,
) -> Result<(Request<'a>, u32), CommandError> {
    check_arity("a request of a transaction", 2, reader.array()?)?;
    Ok(match reader.fixint()? {
        OP_PUT_WITH => (Request::Put(decode_put_with(reader)?), 1),
        OP_DELETE_RANGE_WITH => (Request::Delete(decode_delete_with(reader)?), 1),
        OP_RANGE => (Request::Range(read_range(reader)?), 0),
        OP_TXN => {
            let txn = read_txn(reader, ops_left, depth)?;
            (Request::Txn(txn), txn.changes)
        }
        op => return Err(CommandError::Operation { op }),
    })
}

fn read_compare<'a>(reader: &mut Reader<'a>) -> Result<Compare<'a>, CommandError> {
    check_arity("a compare", 5, reader.array()?)?;
    let (target, relation) = (reader.uint()?, reader.uint()?);
    let relation = number("relation", relation, Relation::from_code)?;
    let (key, end) = (decode_key(reader)?, RangeEnd::from_bytes(reader.bin()?));
    let operand = match target {
        0 => Operand::Version(reader.uint()?),
        1 => Operand::Create(Revision(reader.uint()?)),
        2 => Operand::Mod(Revision(reader.uint()?)),
        3 => Operand::Value(reader.bin()?),
        4 => Operand::Lease(reader.uint()?),
        found => return Err(CommandError::Number { of: "target of a compare", found }),
    };
    Ok(Compare { key, end, relation, operand })
}

fn read_range<'a>(reader: &mut Reader<'a>) -> Result<RangeRequest<'a>, CommandError> {
    check_arity("a range", 12, reader.array()?)?;
    let (key, end) = (decode_key(reader)?, RangeEnd::from_bytes(reader.bin()?));
    let (limit, revision) = (reader.uint()?, Revision(reader.uint()?));
    let (keys_only, count_only) = (reader.flag()?, reader.flag()?);
    let by = number("sort target", reader.uint()?, SortBy::from_code)?;
    let order = number("sort order", reader.uint()?, Order::from_code)?;
    let mod_revision = read_span(reader)?;
    let create_revision = read_span(reader)?;
    let selection = Selection { by, order, mod_revision, create_revision };
    Ok(RangeRequest { key, end, limit, revision, keys_only, count_only, selection })
}

fn read_span(reader: &mut Reader<'_>) -> Result<RevisionSpan, CommandError> {
    Ok(RevisionSpan { min: Revision(reader.uint()?), max: Revision(reader.uint()?) })
}

fn number<T>(
    of: &'static str,
    found: u64,
    from_code: impl Fn(u64) -> Option<T>,
) -> Result<T, CommandError> {
    from_code(found).ok_or(CommandError::Number { of, found })
}

impl TxnParts<'_> {
    /// Appends the args of the transaction. Whether it is sound, `Txn::from_args` says.
    pub fn encode(&self, out: &mut Vec<u8>) {
        msgpack::write_array(out, 3);
        write_length(out, self.compares.len());
        for compare in self.compares {
            write_compare(out, compare);
        }
        for branch in [self.then, self.otherwise] {
            write_length(out, branch.len());
            for request in branch {
                write_request(out, request);
            }
        }
    }
}

fn write_length(out: &mut Vec<u8>, length: usize) {
    msgpack::write_array(out, u32::try_from(length).expect("limits.rs bounds every transaction"));
}

fn write_compare(out: &mut Vec<u8>, compare: &Compare<'_>) {
    let Compare { key, end, relation, operand } = *compare;
    let (target, number) = match operand {
        Operand::Version(version) => (0, version),
        Operand::Create(revision) => (1, revision.0),
        Operand::Mod(revision) => (2, revision.0),
        Operand::Value(_) => (3, 0),
        Operand::Lease(lease) => (4, lease),
    };
    msgpack::write_array(out, 5);
    msgpack::write_uint(out, target);
    msgpack::write_uint(out, relation.code());
    msgpack::write_bin(out, key);
    msgpack::write_bin(out, end.as_bytes());
    if let Operand::Value(value) = operand {
        msgpack::write_bin(out, value);
    } else {
        msgpack::write_uint(out, number);
    }
}

fn write_request(out: &mut Vec<u8>, request: &Request<'_>) {
    msgpack::write_array(out, 2);
    out.push(request.op());
    match request {
        Request::Put(put) => encode_put_with(out, put),
        Request::Delete(delete) => encode_delete_with(out, delete),
        Request::Range(range) => write_range(out, range),
        Request::Txn(txn) => out.extend_from_slice(txn.args),
    }
}

fn write_range(out: &mut Vec<u8>, range: &RangeRequest<'_>) {
    let RangeRequest { key, end, limit, revision, keys_only, count_only, selection } = *range;
    let Selection { by, order, mod_revision, create_revision } = selection;
    msgpack::write_array(out, 12);
    msgpack::write_bin(out, key);
    msgpack::write_bin(out, end.as_bytes());
    msgpack::write_uint(out, limit);
    msgpack::write_uint(out, revision.0);
    msgpack::write_flag(out, keys_only);
    msgpack::write_flag(out, count_only);
    msgpack::write_uint(out, by.code());
    msgpack::write_uint(out, order.code());
    for span in [mod_revision, create_revision] {
        msgpack::write_uint(out, span.min.0);
        msgpack::write_uint(out, span.max.0);
    }
}
