//! Who leads, one after the other: as a stream.

use std::convert::Infallible;

use tokio::sync::mpsc;
use tonic::Status;

use crate::gateway::proto::etcdserverpb::{ResponseHeader, WatchCreateRequest};
use crate::gateway::proto::mvccpb::event::EventType;
use crate::gateway::proto::mvccpb::{Event, KeyValue};
use crate::gateway::proto::v3electionpb::LeaderResponse;

use super::caller::{Caller, Prefix, revision};

type Out = mpsc::Sender<Result<LeaderResponse, Status>>;

/// Whoever leads, and the response that shows it.
struct Seen {
    header: Option<ResponseHeader>,
    kv: KeyValue,
}

/// Tells who leads, until nobody listens or something is wrong.
pub(super) async fn observe(caller: Caller, prefix: Prefix, out: Out) {
    let Err(why) = tokio::select! {
        why = tell_all(&caller, &prefix, &out) => why,
        () = out.closed() => return,
    };
    // Whoever asked may have gone.
    let _gone = out.send(Err(why)).await;
}

async fn tell_all(caller: &Caller, prefix: &Prefix, out: &Out) -> Result<Infallible, Status> {
    loop {
        let Some(seen) = find(caller, prefix).await? else { continue };
        let key = seen.kv.key.clone();
        let start_revision = revision(seen.header.as_ref()) + 1;
        tell(out, seen).await?;
        let create = WatchCreateRequest { key, start_revision, ..Default::default() };
        let mut watch = caller.watch(create);
        'leads: while let Some(response) = watch.next().await? {
            for event in response.events {
                let Some(kv) = put(event) else { break 'leads };
                tell(out, Seen { header: response.header, kv }).await?;
            }
        }
    }
}

async fn tell(out: &Out, seen: Seen) -> Result<(), Status> {
    let Seen { header, kv } = seen;
    let response = LeaderResponse { header, kv: Some(kv) };
    out.send(Ok(response)).await.map_err(|_| Status::cancelled("nobody listens"))
}

/// Whoever leads; if nobody does, whoever comes first from then on. `None`: look again.
async fn find(caller: &Caller, prefix: &Prefix) -> Result<Option<Seen>, Status> {
    let mut found = caller.range(prefix.first()).await?;
    if let Some(kv) = found.kvs.pop() {
        return Ok(Some(Seen { header: found.header, kv }));
    }
    let mut watch = caller.watch(WatchCreateRequest {
        key: prefix.start.clone(),
        range_end: prefix.end.clone(),
        start_revision: revision(found.header.as_ref()) + 1,
        ..Default::default()
    });
    while let Some(response) = watch.next().await? {
        if let Some(kv) = response.events.into_iter().find_map(put) {
            // There may be more behind it.
            let at = |header| ResponseHeader { revision: kv.mod_revision, ..header };
            return Ok(Some(Seen { header: response.header.map(at), kv }));
        }
    }
    Ok(None)
}

/// What was put; `None`: the key was deleted.
fn put(event: Event) -> Option<KeyValue> {
    let is_put = event.r#type == i32::from(EventType::Put);
    event.kv.filter(|_| is_put)
}
