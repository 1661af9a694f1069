//! The Cluster service: members come and go.
//!
//! A member's peer URL is where its raftd accepts connections; its client URL is this gateway's,
//! because that is where it can be reached with this API. A server is started before it is added,
//! with `--join`: its number is its own to say, so it is asked for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tonic::{Request, Response, Status, async_trait};

use super::auth::Who;
use super::calls::{Answer, Cluster, Repeat, Whom};
use super::failure::{
    BAD_URLS, Failure, LEARNER_NOT_READY, MEMBER_NOT_FOUND, NOT_A_LEARNER, PEER_URL_EXISTS, known,
    unexpected,
};
use super::link::Link;
use super::proto::etcdserverpb::cluster_server::Cluster as ClusterApi;
use super::proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
};
use crate::types::{ClusterId, NodeId, is_address};
use crate::wire::error::Error as WireError;
use crate::wire::members::{MemberRequest, MemberStatus, member_list_request};
use crate::wire::reply::ReplyBody;

/// How long a new server may take to say who it is.
const APPLICANT_TIMEOUT: Duration = Duration::from_secs(2);

/// Members, by etcd's names.
pub(super) struct MemberService {
    pub(super) cluster: Arc<Cluster>,
    /// Where clients reach this gateway.
    pub(super) client_url: String,
}

impl MemberService {
    async fn statuses(&self, who: &Who) -> Result<(Answer, Vec<MemberStatus>), Status> {
        list(&self.cluster, who).await
    }

    fn member(&self, status: &MemberStatus) -> Member {
        Member {
            id: status.node.get(),
            name: status.node.to_string(),
            peer_urls: vec![format!("http://{}", status.address)],
            client_urls: vec![self.client_url.clone()],
            is_learner: is_learner(status),
        }
    }

    /// All members, once a change is done.
    async fn members(&self, who: &Who) -> Result<(Answer, Vec<Member>), Status> {
        let (answer, statuses) = self.statuses(who).await?;
        Ok((answer, statuses.iter().map(|status| self.member(status)).collect()))
    }

    /// One of the members.
    async fn find(&self, who: &Who, id: u64) -> Result<MemberStatus, Status> {
        let (_, statuses) = self.statuses(who).await?;
        let found = statuses.into_iter().find(|status| status.node.get() == id);
        found.ok_or_else(|| known(MEMBER_NOT_FOUND))
    }

    async fn change(&self, who: &Who, request: &MemberRequest<'_>) -> Result<(), Failure> {
        let encode = |out: &mut Vec<u8>, id| request.encode(out, id);
        let (whom, repeat) = (Whom::Leader, Repeat::IfNotDone);
        let done = self.cluster.try_ask(who, whom, repeat, 0, encode).await;
        done.map(|_| ())
    }
}

/// The members, as their leader sees them.
pub(super) async fn list(
    cluster: &Cluster,
    who: &Who,
) -> Result<(Answer, Vec<MemberStatus>), Status> {
    let (whom, repeat) = (Whom::Leader, Repeat::Freely);
    let answer = cluster.ask(who, whom, repeat, 0, member_list_request).await?;
    let ReplyBody::MemberList(list) = answer.reply()? else { return Err(unexpected()) };
    Ok((answer, list.members))
}

fn is_learner(status: &MemberStatus) -> bool {
    matches!(status.role.as_str(), "learner" | "joining")
}

#[async_trait]
impl ClusterApi for MemberService {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        let who = Who::of(&request);
        let MemberAddRequest { peer_urls, is_learner } = request.get_ref();
        let address = address_of(peer_urls)?;
        // Before anybody is dialed.
        self.cluster.administer(&who).await?;
        let (_, statuses) = self.statuses(&who).await?;
        if statuses.iter().any(|status| status.address == address) {
            return Err(known(PEER_URL_EXISTS));
        }
        let node = who_is(address).await?;
        self.change(&who, &MemberRequest::Add { node, address, stay: *is_learner }).await?;
        let (answer, members) = self.members(&who).await?;
        Ok(Response::new(MemberAddResponse {
            header: Some(self.cluster.bare_header(answer.node.get())),
            member: members.iter().find(|member| member.id == node.get()).cloned(),
            members,
        }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        let who = Who::of(&request);
        let node = self.find(&who, request.get_ref().id).await?.node;
        self.change(&who, &MemberRequest::Remove { node }).await?;
        let (answer, members) = self.members(&who).await?;
        let header = Some(self.cluster.bare_header(answer.node.get()));
        Ok(Response::new(MemberRemoveResponse { header, members }))
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        self.cluster.check_leader(&request)?;
        let (answer, members) = self.members(&Who::of(&request)).await?;
        let header = Some(self.cluster.bare_header(answer.node.get()));
        Ok(Response::new(MemberListResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        let who = Who::of(&request);
        let status = self.find(&who, request.get_ref().id).await?;
        if !is_learner(&status) {
            return Err(known(NOT_A_LEARNER));
        }
        match self.change(&who, &MemberRequest::Promote { node: status.node }).await {
            Err(Failure::Refused(WireError::Refused { .. })) => {
                return Err(known(LEARNER_NOT_READY));
            }
            done @ (Ok(()) | Err(_)) => done?,
        }
        let (answer, members) = self.members(&who).await?;
        let header = Some(self.cluster.bare_header(answer.node.get()));
        Ok(Response::new(MemberPromoteResponse { header, members }))
    }
}

/// The address in a list of peer URLs. Ours have one.
fn address_of(urls: &[String]) -> Result<&str, Status> {
    let [url] = urls else { return Err(known(BAD_URLS)) };
    let address = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    address.filter(|address| is_address(address)).ok_or_else(|| known(BAD_URLS))
}

/// Asks a server that is to be a member for its number.
async fn who_is(address: &str) -> Result<NodeId, Status> {
    let refuse = |why: &dyn std::fmt::Display| {
        Status::failed_precondition(format!(
            "raftd: the server at {address} cannot be asked who it is ({why}): start it first, \
             with --join"
        ))
    };
    match timeout(APPLICANT_TIMEOUT, Link::open(address, ClusterId(0))).await {
        Ok(Ok(link)) => {
            link.close();
            Ok(link.node())
        }
        Ok(Err(why)) => Err(refuse(&why)),
        Err(why) => Err(refuse(&why)),
    }
}
