//! Puts, deletes and reads with all their options, and transactions.

use crate::types::Revision;
use crate::wire::client::{Command, Consistency, DeleteWith, PutWith, Txn};
use crate::wire::reply::ReplyBody;
use crate::wire::results::{self, Kvs, Results};

use super::cluster::{Client, Intent, KeyValue};
use super::connection::Connection;
use super::error::Error;

/// What a put with options did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// The revision it made.
    pub revision: Revision,
    /// The key before it, if that was asked for and there was one.
    pub before: Option<KeyValue>,
}

/// What a delete with options did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeletedKeys {
    /// The store's revision after it.
    pub revision: Revision,
    /// How many keys there were.
    pub deleted: u64,
    /// They, if that was asked for.
    pub before: Vec<KeyValue>,
}

/// What a transaction did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnDone {
    /// The store's revision after it.
    pub revision: Revision,
    /// Whether its compares held.
    pub succeeded: bool,
    /// What the requests of the branch came to, in their order.
    pub results: Vec<TxnResult>,
}

/// What one request of a transaction came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TxnResult {
    /// A key was put.
    Put {
        /// What it was before, if that was asked for and there was one.
        before: Option<KeyValue>,
    },
    /// Keys were deleted.
    Delete {
        /// How many.
        deleted: u64,
        /// They, if that was asked for.
        before: Vec<KeyValue>,
    },
    /// Keys were read.
    Range {
        /// They.
        kvs: Vec<KeyValue>,
        /// Whether keys were left out, by the limit or because the reply was full.
        more: bool,
        /// How many keys the range has in all.
        count: u64,
    },
    /// A transaction inside was done.
    Txn {
        /// Whether its compares held.
        succeeded: bool,
        /// What its requests came to.
        results: Vec<TxnResult>,
    },
}

impl Client {
    /// Sets a key's value, with options.
    pub fn put_with(&mut self, put: PutWith<'_>) -> Result<Put, Error> {
        self.check_size(put.key.len().saturating_add(put.value.len()))?;
        self.write(Command::PutWith(put), |body| {
            let ReplyBody::PutWith { revision, before } = body else { return None };
            Some(Put { revision, before: before.map(own) })
        })
    }

    /// Deletes the keys of a range, with options.
    pub fn delete_with(&mut self, delete: DeleteWith<'_>) -> Result<DeletedKeys, Error> {
        self.check_size(delete.key.len().saturating_add(delete.end.as_bytes().len()))?;
        self.write(Command::DeleteRangeWith(delete), |body| {
            let ReplyBody::DeleteRangeWith { revision, deleted, before } = body else {
                return None;
            };
            Some(DeletedKeys { revision, deleted, before: own_all(&before) })
        })
    }

    /// Does a transaction: as a linearizable read if it changes nothing, whichever branch is taken.
    pub fn txn(&mut self, txn: Txn<'_>) -> Result<TxnDone, Error> {
        if txn.is_read_only() {
            return self.read_txn(txn, Consistency::Linearizable);
        }
        self.check_size(txn.args().len())?;
        self.write(Command::Txn(txn), own_txn)
    }

    /// Does a transaction that changes nothing. A node refuses another one.
    pub fn read_txn(&mut self, txn: Txn<'_>, consistency: Consistency) -> Result<TxnDone, Error> {
        self.check_size(txn.args().len())?;
        let intent = match consistency {
            Consistency::Linearizable | Consistency::Lease => Intent::Read,
            Consistency::Serializable => Intent::ReadHere,
        };
        let send = |connection: &mut Connection| connection.read_txn(consistency, txn);
        let deadline = self.deadline();
        self.call(intent, deadline, send, own_txn)
    }

    /// Gives up the history below `revision`. Answers the store's revision.
    pub fn compact(&mut self, revision: Revision) -> Result<Revision, Error> {
        self.write(Command::Compact { revision }, |body| {
            if let ReplyBody::Compact { revision } = body { Some(revision) } else { None }
        })
    }
}

/// A key that outlives its reply.
pub(super) fn own(kv: results::KeyValue<'_>) -> KeyValue {
    KeyValue {
        key: kv.key.to_vec(),
        value: kv.value.to_vec(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

fn own_all(kvs: &Kvs<'_>) -> Vec<KeyValue> {
    kvs.iter().map(own).collect()
}

fn own_txn(body: ReplyBody<'_>) -> Option<TxnDone> {
    let ReplyBody::Txn { revision, succeeded, results, .. } = body else { return None };
    Some(TxnDone { revision, succeeded, results: own_results(&results) })
}

fn own_results(results: &Results<'_>) -> Vec<TxnResult> {
    let own = |result| match result {
        results::TxnResult::Put { before } => TxnResult::Put { before: before.map(own) },
        results::TxnResult::Delete { deleted, before } => {
            TxnResult::Delete { deleted, before: own_all(&before) }
        }
        results::TxnResult::Range { kvs, more, count } => {
            TxnResult::Range { kvs: own_all(&kvs), more, count }
        }
        results::TxnResult::Txn { succeeded, results } => {
            TxnResult::Txn { succeeded, results: own_results(&results) }
        }
    };
    results.iter().map(own).collect()
}
