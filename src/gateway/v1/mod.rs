//! raftd's own services, `raftd.v1`: what most programs want, in few words.
//!
//! They are a thinner way into the same house: each request is put into etcd's words (`words`) and
//! goes to the service that speaks those, so that there is one meaning of everything.
mod admin;
mod events;
mod words;

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::auth::Who;
use super::calls::{Cluster, number};
use super::kv::{KvService, range};
use super::lease::LeaseService;
use super::proto::etcdserverpb as etcd;
use super::proto::etcdserverpb::kv_server::Kv as _;
use super::proto::etcdserverpb::lease_server::Lease as _;
use super::proto::raftd::kv_server::Kv;
use super::proto::raftd::{
    BatchRequest, BatchResponse, DeleteRequest, DeleteResponse, GetLeaseRequest, GetLeaseResponse,
    GetRequest, GetResponse, GrantLeaseRequest, GrantLeaseResponse, KeepLeaseAliveRequest,
    KeepLeaseAliveResponse, ListLeasesRequest, ListLeasesResponse, PutRequest, PutResponse,
    RevokeLeaseRequest, RevokeLeaseResponse, TxnRequest, TxnResponse, WatchRequest,
};
use super::watch::WatchService;

pub(super) use admin::AdminService;
use events::Events;

/// Keys and leases, by our own names.
pub(super) struct Service {
    kv: KvService,
    leases: LeaseService,
    watches: WatchService,
}

impl Service {
    /// In front of this cluster. `watches` is what etcd's clients watch by, too.
    pub(super) fn new(cluster: &Arc<Cluster>, watches: WatchService) -> Service {
        let shared = || Arc::clone(cluster);
        Service { kv: KvService(shared()), leases: LeaseService(shared()), watches }
    }
}

#[async_trait]
impl Kv for Service {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        self.kv.0.check_leader(&request)?;
        let consistency = words::consistency(request.get_ref())?;
        let (who, asked) = (Who::of(&request), words::get(request.into_inner()));
        let found = range::range(&self.kv.0, &who, &asked, consistency).await?;
        Ok(found.map(words::got))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        Ok(self.kv.put(request.map(words::put)).await?.map(words::has_put))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        Ok(self.kv.delete_range(request.map(words::delete)).await?.map(words::deleted))
    }

    async fn batch(
        &self,
        request: Request<BatchRequest>,
    ) -> Result<Response<BatchResponse>, Status> {
        let all =
            |batch: BatchRequest| TxnRequest { success: batch.operations, ..TxnRequest::default() };
        let done = self.txn(request.map(all)).await?;
        Ok(done.map(|TxnResponse { revision, results, .. }| BatchResponse { revision, results }))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let (metadata, extensions, txn) = request.into_parts();
        let request = Request::from_parts(metadata, extensions, words::txn(txn)?);
        Ok(self.kv.txn(request).await?.map(words::done))
    }

    type WatchStream = Events;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Events>, Status> {
        let watching = self.watches.open_one(request.map(words::watch));
        Ok(Response::new(Events::new(watching)))
    }

    async fn grant_lease(
        &self,
        request: Request<GrantLeaseRequest>,
    ) -> Result<Response<GrantLeaseResponse>, Status> {
        let grant = |it: GrantLeaseRequest| etcd::LeaseGrantRequest {
            ttl: number(it.ttl),
            id: it.lease.cast_signed(),
        };
        let granted = self.leases.lease_grant(request.map(grant)).await?;
        Ok(granted.map(|it| GrantLeaseResponse {
            lease: it.id.cast_unsigned(),
            ttl: it.ttl.cast_unsigned(),
        }))
    }

    async fn revoke_lease(
        &self,
        request: Request<RevokeLeaseRequest>,
    ) -> Result<Response<RevokeLeaseResponse>, Status> {
        let revoke =
            |it: RevokeLeaseRequest| etcd::LeaseRevokeRequest { id: it.lease.cast_signed() };
        let revoked = self.leases.lease_revoke(request.map(revoke)).await?;
        Ok(revoked.map(|it| RevokeLeaseResponse { revision: words::revision(it.header) }))
    }

    async fn keep_lease_alive(
        &self,
        request: Request<KeepLeaseAliveRequest>,
    ) -> Result<Response<KeepLeaseAliveResponse>, Status> {
        self.kv.0.check_leader(&request)?;
        let (who, lease) = (Who::of(&request), request.get_ref().lease.cast_signed());
        match self.leases.keep_alive(who, lease).await?.ttl {
            0 => Err(words::no_lease()),
            ttl => Ok(Response::new(KeepLeaseAliveResponse { ttl: ttl.cast_unsigned() })),
        }
    }

    async fn get_lease(
        &self,
        request: Request<GetLeaseRequest>,
    ) -> Result<Response<GetLeaseResponse>, Status> {
        let asked = |it: GetLeaseRequest| etcd::LeaseTimeToLiveRequest {
            id: it.lease.cast_signed(),
            keys: true,
        };
        let found = self.leases.lease_time_to_live(request.map(asked)).await?;
        if found.get_ref().ttl < 0 {
            return Err(words::no_lease());
        }
        Ok(found.map(|it| GetLeaseResponse {
            granted_ttl: it.granted_ttl.cast_unsigned(),
            ttl: it.ttl.cast_unsigned(),
            keys: it.keys,
        }))
    }

    async fn list_leases(
        &self,
        request: Request<ListLeasesRequest>,
    ) -> Result<Response<ListLeasesResponse>, Status> {
        let asked = |_: ListLeasesRequest| etcd::LeaseLeasesRequest {};
        let found = self.leases.lease_leases(request.map(asked)).await?;
        Ok(found.map(|it| ListLeasesResponse {
            leases: it.leases.iter().map(|lease| lease.id.cast_unsigned()).collect(),
        }))
    }
}
