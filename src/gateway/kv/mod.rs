//! The KV service.
mod check;
pub(super) mod range;
mod stream;
pub(super) mod translate;
mod txn;

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::auth::Who;
use super::calls::{Cluster, number};
use super::channel::Channel;
use super::failure::unexpected;
use super::proto::etcdserverpb::kv_server::Kv;
use super::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use crate::wire::client::{Command, Consistency};
use crate::wire::reply::ReplyBody;

/// Keys, by etcd's names.
pub(super) struct KvService(pub(super) Arc<Cluster>);

#[async_trait]
impl Kv for KvService {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        self.0.check_leader(&request)?;
        let (who, request) = (Who::of(&request), request.get_ref());
        let consistency = if request.serializable {
            Consistency::Serializable
        } else {
            Consistency::Linearizable
        };
        range::range(&self.0, &who, request, consistency).await
    }

    type RangeStreamStream = Channel<RangeStreamResponse>;

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Channel<RangeStreamResponse>>, Status> {
        self.0.check_leader(&request)?;
        let who = Who::of(&request);
        stream::open(&self.0, who, request.into_inner()).map(Response::new)
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.0.check_leader(&request)?;
        let put = translate::put(request.get_ref())?;
        let bytes = put.key.len() + put.value.len();
        let answer = self.0.write(&Who::of(&request), bytes, Command::PutWith(put)).await?;
        let ReplyBody::PutWith { revision, before } = answer.reply()? else {
            return Err(unexpected());
        };
        let put = PutResponse {
            header: Some(self.0.header(answer.node, revision)),
            prev_kv: before.map(|kv| translate::key_value(&answer.body, &kv)),
        };
        Ok(self.0.hold(answer.body.len(), put))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        self.0.check_leader(&request)?;
        let delete = translate::delete(request.get_ref())?;
        let bytes = delete.key.len() + delete.end.as_bytes().len();
        let who = Who::of(&request);
        let answer = self.0.write(&who, bytes, Command::DeleteRangeWith(delete)).await?;
        let ReplyBody::DeleteRangeWith { revision, deleted, before } = answer.reply()? else {
            return Err(unexpected());
        };
        let prev_kvs = before.iter().map(|kv| translate::key_value(&answer.body, &kv)).collect();
        let header = Some(self.0.header(answer.node, revision));
        let deleted = DeleteRangeResponse { header, deleted: number(deleted), prev_kvs };
        Ok(self.0.hold(answer.body.len(), deleted))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.0.check_leader(&request)?;
        txn::txn(&self.0, &Who::of(&request), request.get_ref()).await
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        self.0.check_leader(&request)?;
        // That memory is given back at once is no promise of ours: `physical` waits for nothing.
        let revision = translate::revision(request.get_ref().revision);
        let who = Who::of(&request);
        let answer = self.0.write(&who, 0, Command::Compact { revision }).await?;
        let ReplyBody::Compact { revision } = answer.reply()? else { return Err(unexpected()) };
        Ok(Response::new(CompactionResponse { header: Some(self.0.header(answer.node, revision)) }))
    }
}
