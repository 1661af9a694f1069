//! Our own words into etcd's, and back. Numbers beyond etcd's are as large as it has.

use tonic::{Code, Status};

use crate::gateway::calls::number;
use crate::gateway::failure::{LEASE_NOT_FOUND, known};
use crate::gateway::proto::etcdserverpb as etcd;
use crate::gateway::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::gateway::proto::etcdserverpb::range_request::SortOrder;
use crate::gateway::proto::etcdserverpb::request_op::Request;
use crate::gateway::proto::etcdserverpb::response_op::Response;
use crate::gateway::proto::etcdserverpb::watch_create_request::FilterType;
use crate::gateway::proto::mvccpb;
use crate::gateway::proto::raftd as v1;
use crate::gateway::proto::raftd::compare::{Operand, Relation};
use crate::gateway::proto::raftd::event::Kind;
use crate::gateway::proto::raftd::get_request;
use crate::wire::client::Consistency;

/// How old an answer may be.
pub(super) fn consistency(request: &v1::GetRequest) -> Result<Consistency, Status> {
    match get_request::Consistency::try_from(request.consistency) {
        Ok(get_request::Consistency::Linearizable) => Ok(Consistency::Linearizable),
        Ok(get_request::Consistency::Lease) => Ok(Consistency::Lease),
        Ok(get_request::Consistency::Serializable) => Ok(Consistency::Serializable),
        Err(_) => Err(Status::new(Code::InvalidArgument, "raftd: there is no such consistency")),
    }
}

pub(super) fn get(request: v1::GetRequest) -> etcd::RangeRequest {
    let order = if request.descending { SortOrder::Descend } else { SortOrder::None };
    etcd::RangeRequest {
        key: request.key,
        range_end: request.range_end,
        limit: number(request.limit),
        revision: number(request.revision),
        sort_order: i32::from(order),
        keys_only: request.keys_only,
        count_only: request.count_only,
        ..etcd::RangeRequest::default()
    }
}

pub(super) fn got(found: etcd::RangeResponse) -> v1::GetResponse {
    v1::GetResponse {
        revision: revision(found.header),
        kvs: found.kvs.into_iter().map(key_value).collect(),
        more: found.more,
        count: found.count.cast_unsigned(),
    }
}

pub(super) fn put(request: v1::PutRequest) -> etcd::PutRequest {
    let v1::PutRequest { key, value, lease, prev_kv } = request;
    let lease = lease.cast_signed();
    etcd::PutRequest { key, value, lease, prev_kv, ..etcd::PutRequest::default() }
}

pub(super) fn has_put(done: etcd::PutResponse) -> v1::PutResponse {
    v1::PutResponse { revision: revision(done.header), prev_kv: done.prev_kv.map(key_value) }
}

pub(super) fn delete(request: v1::DeleteRequest) -> etcd::DeleteRangeRequest {
    let v1::DeleteRequest { key, range_end, prev_kv } = request;
    etcd::DeleteRangeRequest { key, range_end, prev_kv }
}

pub(super) fn deleted(done: etcd::DeleteRangeResponse) -> v1::DeleteResponse {
    v1::DeleteResponse {
        revision: revision(done.header),
        deleted: done.deleted.cast_unsigned(),
        prev_kvs: done.prev_kvs.into_iter().map(key_value).collect(),
    }
}

pub(super) fn txn(request: v1::TxnRequest) -> Result<etcd::TxnRequest, Status> {
    let operations = |all: Vec<v1::Operation>| -> Result<Vec<_>, Status> {
        all.into_iter().map(operation).collect()
    };
    let compares: Result<_, Status> = request.compares.into_iter().map(compare).collect();
    Ok(etcd::TxnRequest {
        compare: compares?,
        success: operations(request.success)?,
        failure: operations(request.failure)?,
    })
}

fn operation(operation: v1::Operation) -> Result<etcd::RequestOp, Status> {
    use crate::gateway::proto::raftd::operation::Operation;
    let request = match operation.operation {
        Some(Operation::Get(it)) => {
            // The whole of a transaction is one or the other.
            let serializable = consistency(&it)? == Consistency::Serializable;
            Request::RequestRange(etcd::RangeRequest { serializable, ..get(it) })
        }
        Some(Operation::Put(it)) => Request::RequestPut(put(it)),
        Some(Operation::Delete(it)) => Request::RequestDeleteRange(delete(it)),
        Some(Operation::Txn(it)) => Request::RequestTxn(txn(it)?),
        None => return Err(Status::new(Code::InvalidArgument, "raftd: an operation is empty")),
    };
    Ok(etcd::RequestOp { request: Some(request) })
}

fn compare(compare: v1::Compare) -> Result<etcd::Compare, Status> {
    let relation = match Relation::try_from(compare.relation) {
        Ok(Relation::Equal) => CompareResult::Equal,
        Ok(Relation::Greater) => CompareResult::Greater,
        Ok(Relation::Less) => CompareResult::Less,
        Ok(Relation::NotEqual) => CompareResult::NotEqual,
        Err(_) => return Err(Status::new(Code::InvalidArgument, "raftd: no such relation")),
    };
    let (target, operand) = match compare.operand {
        Some(Operand::Version(it)) => (CompareTarget::Version, TargetUnion::Version(number(it))),
        Some(Operand::CreateRevision(it)) => {
            (CompareTarget::Create, TargetUnion::CreateRevision(number(it)))
        }
        Some(Operand::ModRevision(it)) => {
            (CompareTarget::Mod, TargetUnion::ModRevision(number(it)))
        }
        Some(Operand::Value(it)) => (CompareTarget::Value, TargetUnion::Value(it)),
        Some(Operand::Lease(it)) => (CompareTarget::Lease, TargetUnion::Lease(it.cast_signed())),
        None => {
            let text = "raftd: a compare does not say with what";
            return Err(Status::new(Code::InvalidArgument, text));
        }
    };
    Ok(etcd::Compare {
        result: i32::from(relation),
        target: i32::from(target),
        key: compare.key,
        range_end: compare.range_end,
        target_union: Some(operand),
    })
}

pub(super) fn done(done: etcd::TxnResponse) -> v1::TxnResponse {
    let revision = revision(done.header);
    let results = done.responses.into_iter().map(|it| result(it, revision)).collect();
    v1::TxnResponse { revision, succeeded: done.succeeded, results }
}

/// What became of one operation of a transaction, all of which is at one revision.
fn result(response: etcd::ResponseOp, revision: u64) -> v1::Result {
    use crate::gateway::proto::raftd::result::Result as Of;
    let result = response.response.map(|response| match response {
        Response::ResponseRange(it) => Of::Get(v1::GetResponse { revision, ..got(it) }),
        Response::ResponsePut(it) => Of::Put(v1::PutResponse { revision, ..has_put(it) }),
        Response::ResponseDeleteRange(it) => {
            Of::Delete(v1::DeleteResponse { revision, ..deleted(it) })
        }
        Response::ResponseTxn(it) => {
            let results = it.responses.into_iter().map(|it| result(it, revision)).collect();
            Of::Txn(v1::TxnResponse { revision, succeeded: it.succeeded, results })
        }
    });
    v1::Result { result }
}

pub(super) fn watch(request: v1::WatchRequest) -> etcd::WatchCreateRequest {
    let filters =
        [(request.no_puts, FilterType::Noput), (request.no_deletes, FilterType::Nodelete)];
    let filters = filters.into_iter().filter(|it| it.0).map(|it| i32::from(it.1));
    etcd::WatchCreateRequest {
        key: request.key,
        range_end: request.range_end,
        start_revision: number(request.start_revision),
        progress_notify: request.progress,
        filters: filters.collect(),
        prev_kv: request.prev_kv,
        ..etcd::WatchCreateRequest::default()
    }
}

pub(super) fn event(event: mvccpb::Event) -> v1::Event {
    let deleted = event.r#type == i32::from(mvccpb::event::EventType::Delete);
    v1::Event {
        kind: i32::from(if deleted { Kind::Delete } else { Kind::Put }),
        kv: event.kv.map(key_value),
        prev_kv: event.prev_kv.map(key_value),
    }
}

fn key_value(kv: mvccpb::KeyValue) -> v1::KeyValue {
    v1::KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: kv.create_revision.cast_unsigned(),
        mod_revision: kv.mod_revision.cast_unsigned(),
        version: kv.version.cast_unsigned(),
        lease: kv.lease.cast_unsigned(),
    }
}

/// The revision that an answer of etcd's names.
pub(super) fn revision(header: Option<etcd::ResponseHeader>) -> u64 {
    header.map_or(0, |header| header.revision.cast_unsigned())
}

/// etcd says it by a time to live of 0, or below.
pub(super) fn no_lease() -> Status {
    known(LEASE_NOT_FOUND)
}
