//! How operations are asked for.

use raftd::types::Revision;
use raftd::wire::client::{
    Command, Compare, Operand, PutWith, RangeArgs, RangeEnd, RangeRequest, Relation, Selection,
    Txn, TxnParts, TxnRequest, command_request, put_request, range_request,
};
use raftd::wire::leases::{LeaseRequest, lease_request};
use raftd::wire::watch::{WatchArgs, watch_request};
use std::ops::Range;

/// All keys that there are.
pub(crate) const KEYS: u64 = 1000;
/// Leases that are kept alive.
pub(crate) const LEASES: u64 = 100;
/// Long enough that none is due in any run. Seconds.
const TTL_S: u64 = 100_000;
const VALUE_BYTES: usize = 256;

/// Clients that ask, and ask again when they are answered.
pub(crate) struct Load {
    pub(crate) clients: Range<usize>,
    /// What each of them has asked and not been answered.
    pub(crate) in_flight: usize,
    /// Writes the request of this number.
    pub(crate) request: fn(&mut Vec<u8>, u64),
}

type Key = [u8; 16];

/// Every key in its turn.
fn key(number: u64) -> Key {
    let mut key = *b"key/000000000000";
    let mut left = number % KEYS;
    for digit in key[4..].iter_mut().rev() {
        *digit = b"0123456789"[usize::try_from(left % 10).expect("a digit")];
        left /= 10;
    }
    key
}

fn value(number: u64) -> [u8; VALUE_BYTES] {
    let mut value = [b'v'; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// Sets a key that is there.
pub(crate) fn put(out: &mut Vec<u8>, number: u64) {
    put_request(out, number, &key(number), &value(number));
}

/// Reads a key, linearizably.
pub(crate) fn get(out: &mut Vec<u8>, number: u64) {
    range_request(out, number, &RangeArgs::of_key(&key(number)));
}

/// Sets a key if it is there, and reads it else.
pub(crate) fn txn(out: &mut Vec<u8>, number: u64) {
    let (key, value) = (&key(number)[..], &value(number)[..]);
    let (end, relation, operand) = (RangeEnd::Key, Relation::Greater, Operand::Version(0));
    let put =
        PutWith { key, value, lease: 0, prev_kv: false, ignore_value: false, ignore_lease: false };
    let range = RangeRequest {
        key,
        end,
        limit: 0,
        revision: Revision(0),
        keys_only: false,
        count_only: false,
        selection: Selection::ALL,
    };
    let parts = TxnParts {
        compares: &[Compare { key, end, relation, operand }],
        then: &[TxnRequest::Put(put)],
        otherwise: &[TxnRequest::Range(range)],
    };
    let mut args = Vec::new();
    parts.encode(&mut args);
    let txn = Txn::from_args(&args).expect("it is sound");
    command_request(out, number, None, Command::Txn(txn));
}

/// Makes a lease.
pub(crate) fn grant(out: &mut Vec<u8>, number: u64) {
    let lease = 1 + number % LEASES;
    command_request(out, number, None, Command::LeaseGrant { lease, ttl_s: TTL_S });
}

/// Keeps a lease alive.
pub(crate) fn keep_alive(out: &mut Vec<u8>, number: u64) {
    lease_request(out, number, &LeaseRequest::KeepAlive { lease: 1 + number % LEASES });
}

/// Watches every key.
pub(crate) fn watch(out: &mut Vec<u8>, number: u64) {
    let args = WatchArgs {
        key: b"key/",
        end: b"key0",
        start: Revision(0),
        prev_kv: false,
        no_put: false,
        no_delete: false,
        progress_ms: 0,
    };
    watch_request(out, number, &args);
}
