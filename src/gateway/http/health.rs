//! `/health`, as etcd has it: whether a read would be answered.

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Response, StatusCode};

use crate::gateway::auth::Who;
use crate::gateway::calls::Cluster;
use crate::gateway::failure::{is_known, known_denial};
use crate::gateway::kv::range;
use crate::gateway::proto::etcdserverpb::RangeRequest;
use crate::wire::auth::Denial;
use crate::wire::client::Consistency;

use super::answer::json_text;

/// What whoever asks wants to know.
struct Asked {
    consistency: Consistency,
    /// A disk that is full is of no interest.
    whatever_the_space: bool,
}

impl Asked {
    /// Out of `serializable=true&exclude=NOSPACE`, and either of them.
    fn of(query: &str) -> Asked {
        let has = |wanted: &str| query.split('&').any(|it| it == wanted);
        let serializable = has("serializable=true");
        Asked {
            consistency: if serializable {
                Consistency::Serializable
            } else {
                Consistency::Linearizable
            },
            whatever_the_space: has("exclude=NOSPACE"),
        }
    }
}

/// Says whether all is well; if not, also by the status, and why.
pub(super) async fn health(cluster: &Cluster, query: &str) -> Response<Body> {
    match trouble(cluster, &Asked::of(query)).await {
        None => json_text(StatusCode::OK, r#"{"health":"true","reason":""}"#),
        Some(reason) => {
            let reason = serde_json::Value::from(reason);
            let text = format!(r#"{{"health":"false","reason":{reason}}}"#);
            json_text(StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

async fn trouble(cluster: &Cluster, asked: &Asked) -> Option<String> {
    let is_full = cluster.nodes.statuses().iter().any(|status| status.out_of_space);
    if is_full && !asked.whatever_the_space {
        return Some("ALARM NOSPACE".to_owned());
    }
    if asked.consistency == Consistency::Linearizable && cluster.nodes.leader_now().is_none() {
        return Some("RAFT NO LEADER".to_owned());
    }
    let any = RangeRequest { key: "health".into(), keys_only: true, ..RangeRequest::default() };
    let read = range::range(cluster, &Who::Gateway, &any, asked.consistency).await;
    // Whoever is refused is answered.
    let denials = [Denial::NotPermitted, Denial::NoUser];
    let is_denial = |why: &Status| denials.iter().any(|it| is_known(why, known_denial(*it)));
    let failed = read.err().filter(|why| !is_denial(why));
    failed.map(|why| format!("RANGE ERROR:{}", why.message()))
}
