//! gRPC's health service. The one thing that can be asked for is everything, by an empty name.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::calls::Cluster;
use super::channel::Channel;
use super::proto::health::health_check_response::ServingStatus;
use super::proto::health::health_server::Health;
use super::proto::health::{HealthCheckRequest, HealthCheckResponse};

/// Whether requests would be answered.
pub(super) struct HealthService(pub(super) Arc<Cluster>);

#[async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !is_known(request.get_ref()) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(response(status(self.0.nodes.leader_now().is_some()))))
    }

    type WatchStream = Channel<HealthCheckResponse>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let is_known = is_known(request.get_ref());
        let mut standing = self.0.nodes.standing();
        Ok(Response::new(Channel::fed(|out| async move {
            if !is_known {
                // Some day there might be one: the stream goes on.
                let _gone = out.send(Ok(response(ServingStatus::ServiceUnknown))).await;
                return out.closed().await;
            }
            loop {
                let served = standing.borrow_and_update().leader.is_some();
                if out.send(Ok(response(status(served)))).await.is_err() {
                    return;
                }
                let other = standing.wait_for(|it| it.leader.is_some() != served);
                tokio::select! {
                    other = other => if other.is_err() { return },
                    () = out.closed() => return,
                }
            }
        })))
    }
}

fn is_known(request: &HealthCheckRequest) -> bool {
    request.service.is_empty()
}

fn status(served: bool) -> ServingStatus {
    if served { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: i32::from(status) }
}
