//! A hash of all keys at a revision, equal on all nodes. Only that is promised: etcd's own is of
//! its files.

use crc32fast::Hasher;
use tonic::Status;

use crate::gateway::calls::{Cluster, Repeat, Whom, number};
use crate::gateway::failure::unexpected;
use crate::gateway::kv::translate;
use crate::gateway::proto::etcdserverpb::HashKvResponse;
use crate::types::Revision;
use crate::wire::client::{Consistency, RangeArgs, range_request};
use crate::wire::reply::{RangeReply, ReplyBody};

/// Reads everything, reply by reply: nothing is gathered.
pub(super) async fn hash_kv(cluster: &Cluster, revision: i64) -> Result<HashKvResponse, Status> {
    let (_, status) = super::status(cluster, Whom::Home).await?;
    let mut revision = translate::revision(revision);
    let mut hasher = Hasher::new();
    let mut key = vec![0];
    let header = loop {
        let args = RangeArgs {
            end: &[0],
            revision,
            // A node that is behind has no such revision yet.
            consistency: Consistency::Linearizable,
            ..RangeArgs::of_key(&key)
        };
        let encode = |out: &mut Vec<u8>, id| range_request(out, id, &args);
        let answer = cluster.ask(Whom::Home, Repeat::Freely, key.len(), encode).await?;
        let ReplyBody::Range(reply) = answer.reply()? else { return Err(unexpected()) };
        if revision == Revision(0) {
            revision = reply.revision;
        }
        let last = add(&mut hasher, &reply);
        match last.filter(|_| reply.more) {
            // The next key after it in the order of bytes.
            Some(last) => key = [last, &[0]].concat(),
            None => break cluster.header(answer.node, reply.revision),
        }
    };
    Ok(HashKvResponse {
        header: Some(header),
        hash: hasher.finalize(),
        compact_revision: number(status.compact_revision.0),
        hash_revision: number(revision.0),
    })
}

/// Adds what a reply has. Returns its last key.
fn add<'a>(hasher: &mut Hasher, reply: &RangeReply<'a>) -> Option<&'a [u8]> {
    let mut last = None;
    for kv in reply.kvs() {
        let numbers = [kv.create_revision.0, kv.mod_revision.0, kv.version, kv.lease];
        let lengths = [kv.key.len(), kv.value.len()].map(|it| u64::try_from(it).unwrap_or(0));
        for number in numbers.iter().chain(&lengths) {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(kv.key);
        hasher.update(kv.value);
        last = Some(kv.key);
    }
    last
}
