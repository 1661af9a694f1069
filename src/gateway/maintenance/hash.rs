//! A hash of all keys at a revision, equal on all nodes. Only that is promised: etcd's own is of
//! its files.

use crc32fast::Hasher;
use tonic::Status;

use crate::gateway::calls::{Cluster, Whom, number};
use crate::gateway::failure::unexpected;
use crate::gateway::kv::translate;
use crate::gateway::proto::etcdserverpb::HashKvResponse;
use crate::types::Revision;
use crate::wire::client::{Consistency, RangeArgs};
use crate::wire::reply::{RangeReply, ReplyBody};

/// Reads everything, reply by reply: nothing is gathered.
pub(super) async fn hash_kv(cluster: &Cluster, revision: i64) -> Result<HashKvResponse, Status> {
    let (_, status) = super::status(cluster, Whom::Home).await?;
    let asked = translate::revision(revision);
    let args = RangeArgs {
        end: &[0],
        revision: asked,
        // A node that is behind has no such revision yet.
        consistency: Consistency::Linearizable,
        ..RangeArgs::of_key(&[0])
    };
    let mut parts = cluster.range(Whom::Home, &args).await?;
    let mut hasher = Hasher::new();
    let (node, newest) = loop {
        let answer = parts.next().await?;
        let ReplyBody::Range(reply) = answer.reply()? else { return Err(unexpected()) };
        add(&mut hasher, &reply);
        if !reply.goes_on {
            break (answer.node, reply.revision);
        }
    };
    let revision = if asked == Revision(0) { newest } else { asked };
    // As etcd says that nothing was compacted yet.
    let compacted = Some(status.compact_revision).filter(|it| *it != Revision(0));
    Ok(HashKvResponse {
        header: Some(cluster.header(node, newest)),
        hash: hasher.finalize(),
        compact_revision: compacted.map_or(-1, |it| number(it.0)),
        hash_revision: number(revision.0),
    })
}

/// Adds what a reply has.
fn add(hasher: &mut Hasher, reply: &RangeReply<'_>) {
    for kv in reply.kvs() {
        let numbers = [kv.create_revision.0, kv.mod_revision.0, kv.version, kv.lease];
        let lengths = [kv.key.len(), kv.value.len()].map(|it| u64::try_from(it).unwrap_or(0));
        for number in numbers.iter().chain(&lengths) {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(kv.key);
        hasher.update(kv.value);
    }
}
