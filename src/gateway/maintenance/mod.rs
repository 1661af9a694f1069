//! The Maintenance service.
mod hash;
mod snapshot;

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::auth::Who;
use super::calls::{Answer, Cluster, Repeat, Whom, number};
use super::channel::Channel;
use super::failure::{BAD_TRANSFEREE, NO_LEADER, known, unexpected};
use super::members;
use super::proto::etcdserverpb::alarm_request::AlarmAction;
use super::proto::etcdserverpb::maintenance_server::Maintenance;
use super::proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
    MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use crate::types::NodeId;
use crate::wire::client::status_request;
use crate::wire::members::MemberRequest;
use crate::wire::reply::ReplyBody;
use crate::wire::status::Status as NodeStatus;

/// The etcd whose behaviour this is. Kubernetes asks for it: from this one on watches say how far
/// they are without a mistake.
pub(super) const ETCD_VERSION: &str = "3.5.13";

/// What operators ask, by etcd's names.
pub(super) struct MaintenanceService(pub(super) Arc<Cluster>);

#[async_trait]
impl Maintenance for MaintenanceService {
    /// An alarm is a state here, and nobody has to end it: a node whose disk is full, or whose
    /// quota is used up, has it until there is space.
    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let AlarmRequest { action, member_id, alarm } = *request.get_ref();
        let alarms = match AlarmAction::try_from(action) {
            Ok(AlarmAction::Get) => {
                let wanted = [AlarmType::None, AlarmType::Nospace].map(i32::from);
                let statuses = self.0.nodes.statuses();
                let full = statuses.iter().filter(|status| status.out_of_space);
                full.map(|status| AlarmMember {
                    member_id: status.node.get(),
                    alarm: i32::from(AlarmType::Nospace),
                })
                .filter(|it| wanted.contains(&alarm) && [0, it.member_id].contains(&member_id))
                .collect()
            }
            Ok(AlarmAction::Deactivate) => Vec::new(),
            Ok(AlarmAction::Activate) | Err(_) => {
                return Err(Status::unimplemented("raftd: alarms come by themselves"));
            }
        };
        let header = Some(self.0.header_of_home(self.0.nodes.revision()));
        Ok(Response::new(AlarmResponse { header, alarms }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        // Of the leader, so that whoever looks for it finds it here.
        let leads = self.0.nodes.leader_now().is_some();
        let whom = if leads { Whom::Leader } else { Whom::Home };
        let (_, status) = status(&self.0, whom).await?;
        let mut errors = Vec::new();
        if status.leader.is_none() {
            errors.push(known(NO_LEADER).message().to_owned());
        }
        if status.out_of_space {
            errors.push(format!("memberID:{} alarm:NOSPACE ", status.node.get()));
        }
        let bytes = number(status.log_bytes.saturating_add(status.snapshot_bytes));
        Ok(Response::new(StatusResponse {
            header: Some(self.0.header(status.node, status.revision)),
            version: ETCD_VERSION.to_owned(),
            db_size: bytes,
            leader: status.leader.map_or(0, NodeId::get),
            raft_index: status.commit_index.get(),
            raft_term: status.term.get(),
            raft_applied_index: status.applied_index.get(),
            errors,
            db_size_in_use: bytes,
            ..StatusResponse::default()
        }))
    }

    /// Done at once: nothing here needs it.
    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.0.administer(&Who::of(&request)).await?;
        Ok(Response::new(DefragmentResponse { header: None }))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        self.0.administer(&Who::of(&request)).await?;
        let (answer, status) = status(&self.0, Whom::Home).await?;
        let [_, _, _, _, short @ ..] = status.state_hash.to_be_bytes();
        Ok(Response::new(HashResponse {
            header: Some(self.0.header(answer.node, status.revision)),
            hash: u32::from_be_bytes(short),
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let who = Who::of(&request);
        self.0.administer(&who).await?;
        hash::hash_kv(&self.0, &who, request.get_ref().revision).await.map(Response::new)
    }

    type SnapshotStream = Channel<SnapshotResponse>;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let (cluster, who) = (Arc::clone(&self.0), Who::of(&request));
        Ok(Response::new(Channel::fed(|out| snapshot::snapshot(cluster, who, out))))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        let (who, id) = (Who::of(&request), request.get_ref().target_id);
        let (_, members) = members::list(&self.0, &who).await?;
        let target = members.iter().find(|member| member.node.get() == id);
        let target = target.ok_or_else(|| known(BAD_TRANSFEREE))?;
        let transfer = MemberRequest::Transfer { node: Some(target.node) };
        let encode = |out: &mut Vec<u8>, id| transfer.encode(out, id);
        // Repeating it is harmless: who leads has nothing to take over.
        let answer = self.0.ask(&who, Whom::Leader, Repeat::Freely, 0, encode).await?;
        let ReplyBody::Transfer { .. } = answer.reply()? else { return Err(unexpected()) };
        Ok(Response::new(MoveLeaderResponse { header: None }))
    }
}

/// What a node says of itself, whoever wants to know.
async fn status(cluster: &Cluster, whom: Whom) -> Result<(Answer, NodeStatus), Status> {
    let answer = cluster.ask(&Who::Gateway, whom, Repeat::Freely, 0, status_request).await?;
    let ReplyBody::Status(status) = answer.reply()? else { return Err(unexpected()) };
    Ok((answer, *status))
}
