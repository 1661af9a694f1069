//! A snapshot as a stream: raftd's own file, in the shape in which etcd's clients want one.
//!
//! ```text
//! file     as a node sends it, see wal/snapshot_file.rs
//! zeros    to a multiple of 512 bytes, the pages of etcd's database
//! SHA-256  of all before it, 32 bytes: `etcdctl snapshot save` looks whether the size has that
//! form
//! ```
//!
//! A node sends as fast as it is read from, so a snapshot has a connection of its own: what its
//! client does not take holds up nobody else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;

use crate::gateway::calls::Cluster;
use crate::gateway::failure::{Failure, TIMED_OUT, known, unexpected, unreadable};
use crate::gateway::kv::translate;
use crate::gateway::link::{Alone, LinkError};
use crate::gateway::proto::etcdserverpb::SnapshotResponse;
use crate::wire::client::snapshot_request;
use crate::wire::reply::{ReplyBody, decode_reply};

/// What the size of the file is a multiple of. Bytes.
const PAGE_BYTES: u64 = 512;

/// A node says so often at least that it is making a snapshot.
const PATIENCE: Duration = Duration::from_secs(10);

type Out = mpsc::Sender<Result<SnapshotResponse, Status>>;

/// Sends a snapshot of the home node, piece by piece.
pub(super) async fn snapshot(cluster: Arc<Cluster>, out: Out) {
    if let Err(why) = send(&cluster, &out).await {
        // Whoever asked may have gone.
        let _gone = out.send(Err(why)).await;
    }
}

async fn send(cluster: &Cluster, out: &Out) -> Result<(), Status> {
    let home = timeout(PATIENCE, cluster.nodes.home(0)).await.map_err(|_| known(TIMED_OUT))?;
    let asked = timeout(PATIENCE, Alone::ask(&home, snapshot_request)).await;
    let mut alone = asked
        .map_err(|_| known(TIMED_OUT))?
        .map_err(|why| Status::unavailable(format!("raftd: {why}")))?;
    let mut hasher = Sha256::new();
    let mut sent = 0;
    let size = loop {
        let body = timeout(PATIENCE, alone.next()).await.map_err(|_| known(TIMED_OUT))?;
        let body = body.map_err(lost)?;
        let reply = decode_reply(&body).map_err(|why| unreadable(&why))?;
        if let ReplyBody::Error(why) = reply.body {
            return Err(Failure::Refused(why).into());
        }
        let ReplyBody::Snapshot(piece) = reply.body else { return Err(unexpected()) };
        if piece.offset != sent {
            return Err(unexpected());
        }
        let size = piece.snapshot.bytes;
        sent += u64::try_from(piece.bytes.len()).unwrap_or(u64::MAX);
        if size == 0 {
            // It is being made.
            continue;
        }
        hasher.update(piece.bytes);
        let blob = translate::slice(&body, piece.bytes);
        give(out, padded(size).saturating_sub(sent), blob).await?;
        if sent >= size {
            break size;
        }
    };
    let zeros = usize::try_from(padded(size) - size).unwrap_or(0);
    let zeros = Bytes::from(vec![0; zeros]);
    hasher.update(&zeros);
    give(out, 0, zeros).await?;
    give(out, 0, Bytes::copy_from_slice(&hasher.finalize())).await
}

fn padded(size: u64) -> u64 {
    size.next_multiple_of(PAGE_BYTES)
}

async fn give(out: &Out, remaining_bytes: u64, blob: Bytes) -> Result<(), Status> {
    let (header, version) = (None, String::new());
    let response = SnapshotResponse { header, remaining_bytes, blob, version };
    out.send(Ok(response)).await.map_err(|_| Status::cancelled("nobody listens"))
}

/// Why nothing more comes.
fn lost(why: LinkError) -> Status {
    match why {
        LinkError::Frame(_) | LinkError::Reply(_) => Status::internal(format!("raftd: {why}")),
        LinkError::Io(_)
        | LinkError::Closed
        | LinkError::Silent
        | LinkError::CutOff
        | LinkError::Refused(_) => known(TIMED_OUT),
    }
}
