//! What counts against a quota, and which commands would add to it.

use super::Store;
use super::command::{Command, PutWith, decode_next};
use super::txn::{Request, Txn};
use crate::codec::msgpack::Reader;

/// What a live key costs beside its name and its value: entry, version, index, ordered map. Bytes.
const KEY_BYTES: u64 = 256;

impl Store {
    /// Names and newest values of the live keys, with what each costs to keep: what a quota bounds.
    /// The history has a bound of its own. Bytes.
    pub fn logical_bytes(&self) -> u64 {
        self.live.bytes.saturating_add(self.live.keys.saturating_mul(KEY_BYTES))
    }

    /// Whether a command may add to `logical_bytes`, whatever branch it takes. Judged against the
    /// store as it is: the copy of a call that was done before adds nothing. Panics if it was not
    /// validated.
    pub fn grows_by(&self, op_and_args: &[u8]) -> bool {
        let next = decode_next(&mut Reader::new(op_and_args));
        let (call, command) = next.expect("it was validated");
        if call.is_some_and(|call| self.sessions.knows(call)) {
            return false;
        }
        match command {
            Command::Put { key, value } | Command::PutIf { key, value, .. } => {
                self.grows_to(key, value.len())
            }
            Command::PutWith(put) => self.put_grows(&put),
            Command::Txn(txn) => self.txn_grows(txn),
            Command::DeleteRange { .. }
            | Command::DeleteRangeWith(_)
            | Command::Compact { .. }
            | Command::OpenSession
            // Their number has a bound of its own.
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseExpire { .. }
            | Command::LeaseCheckpoint { .. }
            // So have users and roles.
            | Command::Auth(_) => false,
        }
    }

    fn put_grows(&self, put: &PutWith<'_>) -> bool {
        !put.ignore_value && self.grows_to(put.key, put.value.len())
    }

    fn txn_grows(&self, txn: Txn<'_>) -> bool {
        let grows = |request: Request<'_>| match request {
            Request::Put(put) => self.put_grows(&put),
            Request::Txn(inner) => self.txn_grows(inner),
            Request::Delete(_) | Request::Range(_) => false,
        };
        txn.branch(true).chain(txn.branch(false)).any(grows)
    }

    fn grows_to(&self, key: &[u8], value_bytes: usize) -> bool {
        self.get_hashed(self.index.hash(key), key).is_none_or(|it| it.value.len() < value_bytes)
    }
}
