//! The Admin service: servers come and go, the leadership changes hands, how the cluster is.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use crate::gateway::auth::Who;
use crate::gateway::calls::{Cluster, Repeat, Whom};
use crate::gateway::failure::unexpected;
use crate::gateway::members::{self, MemberService};
use crate::gateway::proto::etcdserverpb as etcd;
use crate::gateway::proto::etcdserverpb::cluster_server::Cluster as _;
use crate::gateway::proto::raftd::admin_server::Admin;
use crate::gateway::proto::raftd::{
    AddServerRequest, AddServerResponse, RemoveServerRequest, RemoveServerResponse, Server,
    StatusRequest, StatusResponse, TransferLeadershipRequest, TransferLeadershipResponse,
};
use crate::types::NodeId;
use crate::wire::client::status_request;
use crate::wire::members::{MemberRequest, MemberStatus};
use crate::wire::reply::ReplyBody;

/// What operators ask, by our own names.
pub(in crate::gateway) struct AdminService {
    pub(in crate::gateway) cluster: Arc<Cluster>,
    pub(in crate::gateway) members: MemberService,
}

impl AdminService {
    async fn servers(&self, who: &Who) -> Result<Vec<Server>, Status> {
        let (_, members) = members::list(&self.cluster, who).await?;
        Ok(members.iter().map(server).collect())
    }
}

fn server(member: &MemberStatus) -> Server {
    Server {
        id: member.node.get(),
        address: member.address.clone(),
        role: member.role.clone(),
        alive: member.alive,
        match_index: member.match_index.get(),
    }
}

#[async_trait]
impl Admin for AdminService {
    async fn add_server(
        &self,
        request: Request<AddServerRequest>,
    ) -> Result<Response<AddServerResponse>, Status> {
        let add = |it: AddServerRequest| etcd::MemberAddRequest {
            peer_urls: vec![format!("http://{}", it.address)],
            is_learner: it.learner,
        };
        let who = Who::of(&request);
        let added = self.members.member_add(request.map(add)).await?.into_inner();
        let id = added.member.map_or(0, |member| member.id);
        Ok(Response::new(AddServerResponse { id, servers: self.servers(&who).await? }))
    }

    async fn remove_server(
        &self,
        request: Request<RemoveServerRequest>,
    ) -> Result<Response<RemoveServerResponse>, Status> {
        let remove = |it: RemoveServerRequest| etcd::MemberRemoveRequest { id: it.id };
        let who = Who::of(&request);
        self.members.member_remove(request.map(remove)).await?;
        Ok(Response::new(RemoveServerResponse { servers: self.servers(&who).await? }))
    }

    async fn transfer_leadership(
        &self,
        request: Request<TransferLeadershipRequest>,
    ) -> Result<Response<TransferLeadershipResponse>, Status> {
        let transfer = MemberRequest::Transfer { node: NodeId::new(request.get_ref().id) };
        let encode = |out: &mut Vec<u8>, id| transfer.encode(out, id);
        // With a name, repeating it is harmless; without one it would go on to the next.
        let repeat = if request.get_ref().id == 0 { Repeat::IfNotDone } else { Repeat::Freely };
        let who = Who::of(&request);
        let answer = self.cluster.ask(&who, Whom::Leader, repeat, 0, encode).await?;
        let ReplyBody::Transfer { leader } = answer.reply()? else { return Err(unexpected()) };
        Ok(Response::new(TransferLeadershipResponse { leader: leader.get() }))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        self.cluster.check_leader(&request)?;
        // Whoever asks how all is need not be known; for the list of members it must.
        let (who, whom, repeat) = (Who::of(&request), Whom::Leader, Repeat::Freely);
        let answer = self.cluster.ask(&who, whom, repeat, 0, status_request).await?;
        let ReplyBody::Status(status) = answer.reply()? else { return Err(unexpected()) };
        Ok(Response::new(StatusResponse {
            cluster_id: status.cluster_id.to_string(),
            leader: status.leader.map_or(0, NodeId::get),
            term: status.term.get(),
            commit_index: status.commit_index.get(),
            applied_index: status.applied_index.get(),
            revision: status.revision.0,
            compact_revision: status.compact_revision.0,
            keys: status.keys,
            version: status.version.clone(),
            servers: self.servers(&who).await?,
        }))
    }
}
