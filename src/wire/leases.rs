//! What clients ask about leases beside the commands, and what they are answered.
//!
//! ```text
//! request  20  [lease: uint]                                LeaseKeepAlive
//!          21  [lease: uint, keys: bool, list: uint, after: uint]       LeaseTimeToLive
//!          22  [after: uint, consistency: uint]             LeaseList
//! reply    10  [revision: uint, lease: uint, ttl_s: uint]   LeaseGrant, a command
//!          11  [revision: uint]                             LeaseRevoke, a command
//!          20  [revision: uint, lease: uint, ttl_s: uint]   LeaseKeepAlive
//!          21  [revision: uint, lease: uint, ttl_s: uint, left_ms: uint, key_count: uint,
//!               keys: array bin, list: uint, after: uint]   LeaseTimeToLive
//!          22  [revision: uint, more: bool, leases: array uint]     LeaseList, ascending
//! ttl_s     0: there is no such lease
//! list,     where the next keys are: 0, 0 in the first request, and then as the last reply says.
//! after     Before they were added, both ended with the field in front of them: both are 0 then
//! ```
//!
//! Why not the last name, as with leases: the keys of a lease are in no order of names, and what
//! order they are in differs from server to server. So a reply says whose order it was.

use crate::codec::msgpack::{self, Reader};
use crate::types::Revision;

use super::client::{Consistency, Op, begin_request};
use super::fields::{self, DecodeError, Fields};
use super::frame;
use super::reply::begin_reply;

/// A place among the keys of a lease: what a reply leaves out is asked for from there on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct KeysFrom {
    /// Whose order it is a place in; 0 in a first request. If a reply's is another than was asked
    /// for, another leader has begun anew: what came before does not count.
    pub list: u64,
    /// Behind which key; 0: before the first one, and in a reply: there is no more.
    pub after: u64,
}

impl KeysFrom {
    /// Before the first key.
    pub const START: KeysFrom = KeysFrom { list: 0, after: 0 };

    fn read(fields: &mut Fields<'_, '_>) -> Result<KeysFrom, DecodeError> {
        match fields.left() {
            // Of a version that did not know of it.
            0 => Ok(KeysFrom::START),
            _ => Ok(KeysFrom { list: fields.uint()?, after: fields.uint()? }),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        msgpack::write_uint(out, self.list);
        msgpack::write_uint(out, self.after);
    }
}

/// What is asked about leases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseRequest {
    /// Let a lease live for all of its time again.
    KeepAlive {
        /// The lease.
        lease: u64,
    },
    /// How long a lease has left.
    TimeToLive {
        /// The lease.
        lease: u64,
        /// And which keys hang on it.
        keys: bool,
        /// Where the keys are gone on with.
        from: KeysFrom,
    },
    /// Which leases there are.
    List {
        /// Those behind this one; 0: all.
        after: u64,
        /// How fresh.
        consistency: Consistency,
    },
}

impl LeaseRequest {
    /// Its op.
    pub const fn op(&self) -> Op {
        match self {
            LeaseRequest::KeepAlive { .. } => Op::LeaseKeepAlive,
            LeaseRequest::TimeToLive { .. } => Op::LeaseTimeToLive,
            LeaseRequest::List { .. } => Op::LeaseList,
        }
    }

    /// Reads the args of one of these ops; `None` of another one.
    pub fn decode(op: Op, args: &[u8]) -> Result<Option<LeaseRequest>, DecodeError> {
        let mut reader = Reader::new(args);
        let mut fields = Fields::open(&mut reader)?;
        let request = if op == Op::LeaseKeepAlive {
            LeaseRequest::KeepAlive { lease: fields.uint()? }
        } else if op == Op::LeaseTimeToLive {
            let (lease, keys) = (fields.uint()?, fields.flag()?);
            LeaseRequest::TimeToLive { lease, keys, from: KeysFrom::read(&mut fields)? }
        } else if op == Op::LeaseList {
            let (after, found) = (fields.uint()?, fields.uint()?);
            let consistency = Consistency::from_code(found)
                .ok_or(DecodeError::Range { what: "a consistency", found })?;
            LeaseRequest::List { after, consistency }
        } else {
            return Ok(None);
        };
        fields.close()?;
        fields::expect_end(&reader)?;
        Ok(Some(request))
    }

    /// Appends the args.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            LeaseRequest::KeepAlive { lease } => {
                msgpack::write_array(out, 1);
                msgpack::write_uint(out, lease);
            }
            LeaseRequest::TimeToLive { lease, keys, from } => {
                msgpack::write_array(out, 4);
                msgpack::write_uint(out, lease);
                fields::write_flag(out, keys);
                from.write(out);
            }
            LeaseRequest::List { after, consistency } => {
                msgpack::write_array(out, 2);
                msgpack::write_uint(out, after);
                msgpack::write_uint(out, consistency.code());
            }
        }
    }
}

/// Appends a request about leases, as a whole frame.
pub fn lease_request(out: &mut Vec<u8>, id: u64, request: &LeaseRequest) {
    let start = begin_request(out, id, request.op());
    request.encode(out);
    frame::finish(out, start);
}

/// A lease as a grant or a keep-alive leaves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseTerm {
    /// The store's revision.
    pub revision: Revision,
    /// The lease.
    pub lease: u64,
    /// How long it lives without being kept alive; 0: there is no such lease. Seconds.
    pub ttl_s: u64,
}

/// Appends the reply to a LeaseGrant or a LeaseKeepAlive, as a whole frame.
pub fn lease_term_reply(out: &mut Vec<u8>, id: u64, op: Op, term: &LeaseTerm) {
    assert!(matches!(op, Op::LeaseGrant | Op::LeaseKeepAlive), "these are answered so");
    let LeaseTerm { revision, lease, ttl_s } = *term;
    let start = begin_reply(out, id, op);
    msgpack::write_array(out, 3);
    [revision.0, lease, ttl_s].iter().for_each(|number| msgpack::write_uint(out, *number));
    frame::finish(out, start);
}

/// Appends the reply to a LeaseRevoke, as a whole frame.
pub fn lease_revoke_reply(out: &mut Vec<u8>, id: u64, revision: Revision) {
    let start = begin_reply(out, id, Op::LeaseRevoke);
    msgpack::write_array(out, 1);
    msgpack::write_uint(out, revision.0);
    frame::finish(out, start);
}

/// What there is to say about a lease, beside its keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseTimes {
    /// The store's revision.
    pub revision: Revision,
    /// The lease.
    pub lease: u64,
    /// How long it lives without being kept alive; 0: there is no such lease. Seconds.
    pub ttl_s: u64,
    /// How long it lives from now on, if nobody keeps it alive. Milliseconds.
    pub left_ms: u64,
    /// How many keys hang on it, if they are asked for.
    pub key_count: u64,
    /// Where those are that this reply leaves out.
    pub next: KeysFrom,
}

/// Appends the reply to a LeaseTimeToLive, as a whole frame.
pub fn lease_times_reply(out: &mut Vec<u8>, id: u64, times: &LeaseTimes, keys: &[&[u8]]) {
    let LeaseTimes { revision, lease, ttl_s, left_ms, key_count, next } = *times;
    let start = begin_reply(out, id, Op::LeaseTimeToLive);
    msgpack::write_array(out, 8);
    for number in [revision.0, lease, ttl_s, left_ms, key_count] {
        msgpack::write_uint(out, number);
    }
    write_length(out, keys.len());
    keys.iter().for_each(|key| msgpack::write_bin(out, key));
    next.write(out);
    frame::finish(out, start);
}

/// Which leases there are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseList {
    /// The store's revision.
    pub revision: Revision,
    /// Whether there are more behind the last of these.
    pub more: bool,
    /// They, ascending.
    pub leases: Vec<u64>,
}

/// Appends the reply to a LeaseList, as a whole frame.
pub fn lease_list_reply(out: &mut Vec<u8>, id: u64, list: &LeaseList) {
    let start = begin_reply(out, id, Op::LeaseList);
    msgpack::write_array(out, 3);
    msgpack::write_uint(out, list.revision.0);
    fields::write_flag(out, list.more);
    write_length(out, list.leases.len());
    list.leases.iter().for_each(|lease| msgpack::write_uint(out, *lease));
    frame::finish(out, start);
}

fn write_length(out: &mut Vec<u8>, length: usize) {
    msgpack::write_array(out, u32::try_from(length).expect("a reply is bounded"));
}

/// Keys by name, borrowed from a reply.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    count: usize,
    reader: Reader<'a>,
}

impl<'a> Names<'a> {
    /// How many keys.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = self.reader;
        (0..self.count).map(move |_| reader.bin().expect("every name was read once"))
    }
}

pub(super) fn decode_term(fields: &mut Fields<'_, '_>) -> Result<LeaseTerm, DecodeError> {
    let (revision, lease) = (fields.revision()?, fields.uint()?);
    Ok(LeaseTerm { revision, lease, ttl_s: fields.uint()? })
}

pub(super) fn decode_times<'a>(
    fields: &mut Fields<'_, 'a>,
) -> Result<(LeaseTimes, Names<'a>), DecodeError> {
    let (revision, lease) = (fields.revision()?, fields.uint()?);
    let (ttl_s, left_ms, key_count) = (fields.uint()?, fields.uint()?, fields.uint()?);
    let (count, mut reader) = fields.items()?;
    let names = Names { count, reader };
    for _ in 0..count {
        reader.bin()?;
    }
    fields.resume(reader);
    let next = KeysFrom::read(fields)?;
    Ok((LeaseTimes { revision, lease, ttl_s, left_ms, key_count, next }, names))
}

pub(super) fn decode_list(fields: &mut Fields<'_, '_>) -> Result<LeaseList, DecodeError> {
    let (revision, more) = (fields.revision()?, fields.flag()?);
    let (count, mut reader) = fields.items()?;
    let mut leases = Vec::new();
    for _ in 0..count {
        leases.push(reader.uint()?);
    }
    fields.resume(reader);
    Ok(LeaseList { revision, more, leases })
}
