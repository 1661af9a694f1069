//! What clients ask about leases beside the commands, and what they are answered.
//!
//! ```text
//! request  20  [lease: uint]                                LeaseKeepAlive
//!          21  [lease: uint, keys: bool]                    LeaseTimeToLive
//!          22  [after: uint, consistency: uint]             LeaseList
//! reply    10  [revision: uint, lease: uint, ttl_s: uint]   LeaseGrant, a command
//!          11  [revision: uint]                             LeaseRevoke, a command
//!          20  [revision: uint, lease: uint, ttl_s: uint]   LeaseKeepAlive
//!          21  [revision: uint, lease: uint, ttl_s: uint, left_ms: uint, key_count: uint,
//!               keys: array bin]                            LeaseTimeToLive
//!          22  [revision: uint, more: bool, leases: array uint]     LeaseList, ascending
//! ttl_s     0: there is no such lease
//! ```

use crate::codec::msgpack::{self, Reader};
use crate::types::Revision;

use super::client::{Consistency, Op, begin_request};
use super::fields::{self, DecodeError, Fields};
use super::frame;
use super::reply::begin_reply;

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
            LeaseRequest::TimeToLive { lease: fields.uint()?, keys: fields.flag()? }
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
            LeaseRequest::TimeToLive { lease, keys } => {
                msgpack::write_array(out, 2);
                msgpack::write_uint(out, lease);
                fields::write_flag(out, keys);
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
}

/// Appends the reply to a LeaseTimeToLive, as a whole frame.
pub fn lease_times_reply(out: &mut Vec<u8>, id: u64, times: &LeaseTimes, keys: &[&[u8]]) {
    let LeaseTimes { revision, lease, ttl_s, left_ms, key_count } = *times;
    let start = begin_reply(out, id, Op::LeaseTimeToLive);
    msgpack::write_array(out, 6);
    for number in [revision.0, lease, ttl_s, left_ms, key_count] {
        msgpack::write_uint(out, number);
    }
    write_length(out, keys.len());
    keys.iter().for_each(|key| msgpack::write_bin(out, key));
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
    Ok((LeaseTimes { revision, lease, ttl_s, left_ms, key_count }, names))
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
