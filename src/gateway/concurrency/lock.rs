//! The Lock service.

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Response, Status, async_trait};

use crate::gateway::proto::v3lockpb::lock_server::Lock;
use crate::gateway::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

use super::Stores;
use super::caller::Caller;
use super::place::{Place, Turn};

/// etcd's words for a key that is gone when its turn comes.
const EXPIRED: &str = "mutex: session is expired";

/// Locks.
pub(in crate::gateway) struct LockService(pub(in crate::gateway) Arc<Stores>);

#[async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (caller, LockRequest { name, lease }) = Caller::of(&self.0, request)?;
        let lease = caller.lease(lease).await?;
        let mut place = Place::take(caller, &name, lease, Bytes::new()).await?;
        let Turn::Ours(header) = place.wait().await? else { return Err(Status::unknown(EXPIRED)) };
        place.keep();
        Ok(Response::new(LockResponse { header, key: place.key().clone() }))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let (caller, UnlockRequest { key }) = Caller::of(&self.0, request)?;
        let header = caller.delete(key).await?;
        Ok(Response::new(UnlockResponse { header }))
    }
}
