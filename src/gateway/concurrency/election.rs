//! The Election service.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use crate::gateway::channel::Channel;
use crate::gateway::proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest, TxnResponse};
use crate::gateway::proto::v3electionpb::election_server::Election;
use crate::gateway::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};

use super::Stores;
use super::caller::{Caller, Prefix, created_at, delete, put};
use super::observe::observe;
use super::place::{Place, Turn};

/// etcd's words.
const NO_LEADER: &str = "election: no leader";
const NOT_LEADER: &str = "election: not leader";
const NO_KEY: &str = "\"leader\" field must be provided";

/// Elections.
pub(in crate::gateway) struct ElectionService(pub(in crate::gateway) Arc<Stores>);

#[async_trait]
impl Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let (caller, CampaignRequest { name, lease, value }) = Caller::of(&self.0, request)?;
        let lease = caller.lease(lease).await?;
        let mut place = Place::take(caller, &name, lease, value).await?;
        match place.wait().await? {
            Turn::Ours(_) => place.keep(),
            // etcd answers that it leads. Whoever proclaimed something then would hear this.
            Turn::Gone => return Err(Status::unknown(NOT_LEADER)),
        }
        let leader = LeaderKey { name, key: place.key().clone(), rev: place.since(), lease };
        Ok(Response::new(CampaignResponse { header: place.entered(), leader: Some(leader) }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let (caller, ProclaimRequest { leader, value }) = Caller::of(&self.0, request)?;
        let leader = leader.ok_or_else(|| Status::unknown(NO_KEY))?;
        let (key, lease) = (leader.key.clone(), leader.lease);
        let request = PutRequest { key, value, lease, ..PutRequest::default() };
        let done = if_it_leads(&caller, &leader, put(request)).await?;
        if !done.succeeded {
            return Err(Status::unknown(NOT_LEADER));
        }
        Ok(Response::new(ProclaimResponse { header: done.header }))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let (caller, LeaderRequest { name }) = Caller::of(&self.0, request)?;
        let mut found = caller.range(Prefix::of(&name).first()).await?;
        let kv = found.kvs.pop().ok_or_else(|| Status::unknown(NO_LEADER))?;
        Ok(Response::new(LeaderResponse { header: found.header, kv: Some(kv) }))
    }

    type ObserveStream = Channel<LeaderResponse>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Channel<LeaderResponse>>, Status> {
        let (caller, LeaderRequest { name }) = Caller::of(&self.0, request)?;
        Ok(Response::new(Channel::fed(|out| observe(caller, Prefix::of(&name), out))))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let (caller, ResignRequest { leader }) = Caller::of(&self.0, request)?;
        let leader = leader.ok_or_else(|| Status::unknown(NO_KEY))?;
        // Whoever does not lead has nothing to give up.
        let done = if_it_leads(&caller, &leader, delete(&leader.key)).await?;
        Ok(Response::new(ResignResponse { header: done.header }))
    }
}

async fn if_it_leads(
    caller: &Caller,
    leader: &LeaderKey,
    then: RequestOp,
) -> Result<TxnResponse, Status> {
    let compare = vec![created_at(&leader.key, leader.rev)];
    caller.txn(TxnRequest { compare, success: vec![then], failure: Vec::new() }).await
}
