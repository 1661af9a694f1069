//! What a lock or an election asks, in the name of whoever asked for it.
//!
//! Each step is a request to the service that any client would ask, with what came with the
//! client's own: whatever those look for in it, they find.

use std::sync::Arc;

use bytes::Bytes;
use tonic::codegen::tokio_stream::StreamExt;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status};

use crate::gateway::failure::denial_in;
use crate::gateway::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::gateway::proto::etcdserverpb::kv_server::Kv;
use crate::gateway::proto::etcdserverpb::lease_server::Lease;
use crate::gateway::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::gateway::proto::etcdserverpb::request_op;
use crate::gateway::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
};
use crate::gateway::watch::Watching;

use super::Stores;

/// How long a lease lives that is granted to whoever brings none: etcd's. Seconds.
const LEASE_TTL_S: i64 = 60;

/// Whoever asked.
#[derive(Clone)]
pub(super) struct Caller {
    stores: Arc<Stores>,
    metadata: MetadataMap,
    extensions: Extensions,
}

/// What there is under one name.
pub(super) struct Prefix {
    pub(super) start: Bytes,
    pub(super) end: Bytes,
}

impl Prefix {
    /// Of all keys that wait for `name`.
    pub(super) fn of(name: &[u8]) -> Prefix {
        // The end is the next byte behind the slash.
        let (start, end) = ([name, b"/"].concat(), [name, b"0"].concat());
        Prefix { start: start.into(), end: end.into() }
    }

    /// The key of whoever waits by this lease.
    pub(super) fn key(&self, lease: i64) -> Bytes {
        let sign = if lease < 0 { "-" } else { "" };
        let lease = format!("{sign}{:x}", lease.unsigned_abs());
        [&self.start[..], lease.as_bytes()].concat().into()
    }

    /// Whoever came first.
    pub(super) fn first(&self) -> RangeRequest {
        self.by_age(SortOrder::Ascend, 1)
    }

    /// So many of them, by their age.
    pub(super) fn by_age(&self, order: SortOrder, limit: i64) -> RangeRequest {
        RangeRequest {
            key: self.start.clone(),
            range_end: self.end.clone(),
            limit,
            sort_order: i32::from(order),
            sort_target: i32::from(SortTarget::Create),
            ..RangeRequest::default()
        }
    }
}

impl Caller {
    /// Whoever sent `request`, and what was asked. Refuses it if it is to be refused while nobody
    /// is known to lead.
    pub(super) fn of<T>(stores: &Arc<Stores>, request: Request<T>) -> Result<(Caller, T), Status> {
        stores.kv.0.check_leader(&request)?;
        let (mut metadata, extensions, message) = request.into_parts();
        // That is for the beginning. Whoever waits does so through elections of the cluster.
        metadata.remove("hasleader");
        Ok((Caller { stores: Arc::clone(stores), metadata, extensions }, message))
    }

    fn say<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }

    /// The lease that was brought; if there is none, one that is granted.
    pub(super) async fn lease(&self, brought: i64) -> Result<i64, Status> {
        if brought != 0 {
            return Ok(brought);
        }
        let grant = self.say(LeaseGrantRequest { ttl: LEASE_TTL_S, id: 0 });
        let granted = self.stores.leases.lease_grant(grant).await;
        granted.map(|it| it.into_inner().id).map_err(unknown)
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let found = self.stores.kv.range(self.say(request)).await;
        found.map(Response::into_inner).map_err(unknown)
    }

    pub(super) async fn delete(&self, key: Bytes) -> Result<Option<ResponseHeader>, Status> {
        let request = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        let deleted = self.stores.kv.delete_range(self.say(request)).await;
        deleted.map(|it| it.into_inner().header).map_err(unknown)
    }

    pub(super) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let done = self.stores.kv.txn(self.say(request)).await;
        done.map(Response::into_inner).map_err(unknown)
    }

    /// A watch of its own.
    pub(super) fn watch(&self, request: WatchCreateRequest) -> Watch {
        Watch(self.stores.watches.open_one(self.say(request)))
    }
}

/// A watch of one key, or of some.
pub(super) struct Watch(Watching);

impl Watch {
    /// What it hears next. `None`: what it has missed is compacted, and the store is to be looked
    /// at again.
    pub(super) async fn next(&mut self) -> Result<Option<WatchResponse>, Status> {
        let Some(response) = self.0.next().await else { return Ok(None) };
        let response = response.map_err(unknown)?;
        if !response.canceled {
            return Ok(Some(response));
        }
        if response.compact_revision > 0 {
            return Ok(None);
        }
        let reason = response.cancel_reason;
        Err(Status::unknown(denial_in(&reason).map_or(reason, |it| it.message().to_owned())))
    }
}

/// Whatever is refused to a lock or to an election reaches etcd's clients by this code: its server
/// asks itself as a client of its own, and hands on the text.
fn unknown(why: Status) -> Status {
    Status::unknown(why.message())
}

/// That a key was created at `revision`, and is still there; at 0: that there is none.
pub(super) fn created_at(key: &Bytes, revision: i64) -> Compare {
    compare(key, CompareTarget::Create, TargetUnion::CreateRevision(revision))
}

/// That a key was put at `revision`, and not since.
pub(super) fn put_at(key: &Bytes, revision: i64) -> Compare {
    compare(key, CompareTarget::Mod, TargetUnion::ModRevision(revision))
}

fn compare(key: &Bytes, target: CompareTarget, union: TargetUnion) -> Compare {
    Compare {
        result: i32::from(CompareResult::Equal),
        target: i32::from(target),
        key: key.clone(),
        target_union: Some(union),
        range_end: Bytes::new(),
    }
}

pub(super) fn put(request: PutRequest) -> RequestOp {
    RequestOp { request: Some(request_op::Request::RequestPut(request)) }
}

pub(super) fn get(request: RangeRequest) -> RequestOp {
    RequestOp { request: Some(request_op::Request::RequestRange(request)) }
}

pub(super) fn delete(key: &Bytes) -> RequestOp {
    let request = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
    RequestOp { request: Some(request_op::Request::RequestDeleteRange(request)) }
}

/// The revision that a response shows.
pub(super) fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}
