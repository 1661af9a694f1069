//! The Lease service.
mod keep_alive;

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::auth::Who;
use super::calls::{Answer, Cluster, Repeat, Whom, number, wants_leader};
use super::failure::{LEASE_TTL_TOO_LARGE, known, unexpected};
use super::kv::range::{GATHERED_BYTES_MAX, TOO_MUCH};
use super::kv::translate;
use super::proto::etcdserverpb::lease_server::Lease;
use super::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use super::room::{Share, cost};
use crate::limits::LEASE_TTL_S_MAX;
use crate::types::NodeId;
use crate::wire::client::{Command, Consistency};
use crate::wire::leases::{KeysFrom, LeaseRequest, LeaseTimes, lease_request};
use crate::wire::reply::ReplyBody;

use keep_alive::KeepAlives;

/// Leases, by etcd's names.
pub(super) struct LeaseService(pub(super) Arc<Cluster>);

impl LeaseService {
    /// Begins a lease's time anew. Of one that is not there the answer has a time to live of 0.
    pub(super) async fn keep_alive(
        &self,
        who: Who,
        id: i64,
    ) -> Result<LeaseKeepAliveResponse, Status> {
        keep_alive::keep_alive(Arc::clone(&self.0), who, id).await
    }
}

#[async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        self.0.check_leader(&request)?;
        let LeaseGrantRequest { ttl, id } = *request.get_ref();
        // What is too short is raised by the cluster, which knows what is.
        let ttl_s = u64::try_from(ttl).unwrap_or(0);
        if ttl_s > LEASE_TTL_S_MAX {
            return Err(known(LEASE_TTL_TOO_LARGE));
        }
        let command = Command::LeaseGrant { lease: id.cast_unsigned(), ttl_s };
        let answer = self.0.write(&Who::of(&request), 0, command).await?;
        let ReplyBody::LeaseTerm { term, .. } = answer.reply()? else { return Err(unexpected()) };
        Ok(Response::new(LeaseGrantResponse {
            header: Some(self.0.header(answer.node, term.revision)),
            id: term.lease.cast_signed(),
            ttl: number(term.ttl_s),
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        self.0.check_leader(&request)?;
        let lease = request.get_ref().id.cast_unsigned();
        let who = Who::of(&request);
        let answer = self.0.write(&who, 0, Command::LeaseRevoke { lease }).await?;
        let ReplyBody::LeaseRevoke { revision } = answer.reply()? else {
            return Err(unexpected());
        };
        let header = Some(self.0.header(answer.node, revision));
        Ok(Response::new(LeaseRevokeResponse { header }))
    }

    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAlives>, Status> {
        self.0.check_leader(&request)?;
        let (wants_leader, who) = (wants_leader(&request), Who::of(&request));
        let stream = KeepAlives::new(Arc::clone(&self.0), who, request.into_inner());
        Ok(Response::new(if wants_leader { stream.ends_without_leader() } else { stream }))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        self.0.check_leader(&request)?;
        let LeaseTimeToLiveRequest { id, keys } = *request.get_ref();
        let found = times(&self.0, &Who::of(&request), id.cast_unsigned(), keys).await?;
        let header = Some(self.0.header(found.node, found.times.revision));
        if found.times.ttl_s == 0 {
            // There is no such lease.
            let answer = LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() };
            return Ok(Response::new(answer));
        }
        Ok(found.share.hold(LeaseTimeToLiveResponse {
            header,
            id,
            ttl: number(found.times.left_ms / 1000),
            granted_ttl: number(found.times.ttl_s),
            keys: found.keys,
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        self.0.check_leader(&request)?;
        let mut leases: Vec<LeaseStatus> = Vec::new();
        let mut share = self.0.answers.share();
        let who = Who::of(&request);
        let mut after = 0;
        loop {
            let asked = LeaseRequest::List { after, consistency: Consistency::Linearizable };
            let answer = ask(&self.0, &who, Whom::Leader, &asked).await?;
            let ReplyBody::LeaseList(list) = answer.reply()? else { return Err(unexpected()) };
            leases.extend(list.leases.iter().map(|id| LeaseStatus { id: id.cast_signed() }));
            let bytes = leases.len() * size_of::<LeaseStatus>();
            share.set(cost(bytes, 0)).map_err(|_| self.0.no_room())?;
            match list.leases.last() {
                Some(last) if list.more => after = *last,
                Some(_) | None => {
                    let header = Some(self.0.header(answer.node, list.revision));
                    return Ok(share.hold(LeaseLeasesResponse { header, leases }));
                }
            }
        }
    }
}

/// What was found of a lease, in as many replies as its keys take.
struct Found {
    node: NodeId,
    times: LeaseTimes,
    keys: Vec<Bytes>,
    share: Share,
}

async fn times(cluster: &Cluster, who: &Who, lease: u64, with_keys: bool) -> Result<Found, Status> {
    let (mut keys, mut from) = (Vec::new(), KeysFrom::START);
    let (mut bytes, mut replies) = (0, 0);
    let mut share = cluster.answers.share();
    loop {
        let asked = LeaseRequest::TimeToLive { lease, keys: with_keys, from };
        let answer = ask(cluster, who, Whom::Leader, &asked).await?;
        let ReplyBody::LeaseTimes(times, names) = answer.reply()? else {
            return Err(unexpected());
        };
        if times.next.list != from.list {
            keys.clear();
            bytes = 0;
        }
        replies += 1;
        bytes += answer.body.len();
        if bytes > GATHERED_BYTES_MAX {
            return Err(Status::new(TOO_MUCH.0, TOO_MUCH.1));
        }
        share.set(cost(bytes, keys.len() + names.len())).map_err(|_| cluster.no_room())?;
        keys.extend(names.iter().map(|name| translate::slice(&answer.body, name)));
        if times.next.after == 0 || names.is_empty() {
            // One that was deleted meanwhile, and put again, may have got another place.
            if replies > 1 {
                keys.sort_unstable();
                keys.dedup();
            }
            return Ok(Found { node: answer.node, times, keys, share });
        }
        from = times.next;
    }
}

async fn ask(
    cluster: &Cluster,
    who: &Who,
    whom: Whom,
    request: &LeaseRequest,
) -> Result<Answer, Status> {
    let encode = |out: &mut Vec<u8>, id| lease_request(out, id, request);
    cluster.ask(who, whom, Repeat::Freely, 0, encode).await
}
