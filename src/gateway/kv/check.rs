//! What is wrong with a transaction, in the words and in the order in which etcd finds it.

use tonic::Status;

use crate::gateway::failure::{KEY_MISSING, KEY_NOT_FOUND, TOO_MANY_OPS, known};
use crate::gateway::proto::etcdserverpb::request_op::Request;
use crate::gateway::proto::etcdserverpb::{RequestOp, TxnRequest};
use crate::limits::TXN_OPS_MAX;

use super::translate;

/// Whether all of it can be done, but for a key that is changed twice, which is found behind this.
pub(super) fn check(txn: &TxnRequest) -> Result<(), Status> {
    check_within(txn, TXN_OPS_MAX)
}

/// `ops_max`: what the transactions around this one leave.
fn check_within(txn: &TxnRequest, ops_max: usize) -> Result<(), Status> {
    let ops = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    if ops > ops_max {
        return Err(known(TOO_MANY_OPS));
    }
    if txn.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(known(KEY_MISSING));
    }
    let mut requests = txn.success.iter().chain(&txn.failure);
    requests.try_for_each(|request| check_request(request, ops_max - ops))
}

fn check_request(request: &RequestOp, ops_max: usize) -> Result<(), Status> {
    match &request.request {
        Some(Request::RequestRange(range)) => translate::range(range).map(|_| ()),
        Some(Request::RequestPut(put)) => translate::put(put).map(|_| ()),
        Some(Request::RequestDeleteRange(delete)) => translate::delete(delete).map(|_| ()),
        Some(Request::RequestTxn(txn)) => check_within(txn, ops_max),
        // These are etcd's words for it.
        None => Err(known(KEY_NOT_FOUND)),
    }
}

/// Whether it may be answered from one node's own state: every read in it says so, and nothing in
/// it writes. A transaction inside counts as a write.
pub(super) fn is_serializable(txn: &TxnRequest) -> bool {
    let requests = txn.success.iter().chain(&txn.failure);
    requests.map(|request| &request.request).all(|request| match request {
        Some(Request::RequestRange(range)) => range.serializable,
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_) | Request::RequestTxn(_))
        | None => false,
    })
}
