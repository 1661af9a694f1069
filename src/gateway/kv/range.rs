//! Reads that may be larger than one reply of a node.
//!
//! A node cuts a reply at `RANGE_REPLY_BYTES_MAX`; etcd does not. So what was cut is read on, at
//! the revision of the first reply, and put together here.

use bytes::Bytes;
use std::cmp::Ordering;
use tonic::{Code, Status};

use crate::gateway::calls::{Answer, Cluster, Repeat, Whom, number};
use crate::gateway::failure::{COMPACTED, Known, known, unexpected};
use crate::gateway::proto::etcdserverpb::{RangeRequest, RangeResponse};
use crate::gateway::proto::mvccpb::KeyValue;
use crate::types::{NodeId, Revision};
use crate::wire::client::{
    Consistency, Order, RangeArgs, RangeRequest as Range, Selection, SortBy, range_request,
};
use crate::wire::reply::ReplyBody;

use super::translate;

/// All keys of one answer together. etcd's own bound is what a message may have, 2 GiB. Bytes.
const GATHERED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A read of what is there now begins anew so often, if what it has begun with is compacted
/// meanwhile.
const ATTEMPTS: u32 = 3;

const TOO_MUCH: Known = (Code::ResourceExhausted, "raftd: the answer has more than 256 MiB");

/// What was found so far.
struct Found {
    node: NodeId,
    revision: Revision,
    kvs: Vec<KeyValue>,
    more: bool,
    count: u64,
    bytes: usize,
}

impl Found {
    fn number_of_kvs(&self) -> u64 {
        u64::try_from(self.kvs.len()).unwrap_or(u64::MAX)
    }

    /// Whether a reply was full before the limit was reached.
    fn is_cut(&self, limit: u64) -> bool {
        self.more && !self.kvs.is_empty() && (limit == 0 || self.number_of_kvs() < limit)
    }
}

/// Does a read.
pub(super) async fn range(
    cluster: &Cluster,
    request: &RangeRequest,
) -> Result<RangeResponse, Status> {
    let asked = translate::range(request)?;
    let consistency =
        if request.serializable { Consistency::Serializable } else { Consistency::Linearizable };
    let mut attempts = 1;
    let found = loop {
        match gather(cluster, &asked, consistency).await {
            Err(why) if asked.revision == Revision(0) && is_compacted(&why) => {
                if attempts == ATTEMPTS {
                    return Err(why);
                }
                attempts += 1;
            }
            found @ (Ok(_) | Err(_)) => break found?,
        }
    };
    Ok(RangeResponse {
        header: Some(cluster.header(found.node, found.revision)),
        kvs: found.kvs,
        more: found.more,
        count: number(found.count),
    })
}

fn is_compacted(why: &Status) -> bool {
    let compacted = known(COMPACTED);
    why.code() == compacted.code() && why.message() == compacted.message()
}

async fn gather(
    cluster: &Cluster,
    asked: &Range<'_>,
    consistency: Consistency,
) -> Result<Found, Status> {
    let first = read(cluster, asked, consistency).await?;
    if !first.is_cut(asked.limit) {
        return Ok(first);
    }
    if asked.selection.sorts() {
        return sort(cluster, asked, consistency, first.revision).await;
    }
    read_on(cluster, asked, consistency, first).await
}

/// Reads what is behind a reply that was full.
async fn read_on(
    cluster: &Cluster,
    asked: &Range<'_>,
    consistency: Consistency,
    mut found: Found,
) -> Result<Found, Status> {
    let revision = if asked.revision == Revision(0) { found.revision } else { asked.revision };
    while found.is_cut(asked.limit) {
        let Some(last) = found.kvs.last() else { break };
        // The next key after it in the order of bytes.
        let key = [&last.key[..], &[0]].concat();
        let limit = asked.limit.saturating_sub(found.number_of_kvs());
        let next =
            read(cluster, &Range { key: &key, revision, limit, ..*asked }, consistency).await?;
        found.more = next.more && !next.kvs.is_empty();
        found.bytes += next.bytes;
        found.kvs.extend(next.kvs);
        if found.bytes > GATHERED_BYTES_MAX {
            return Err(Status::new(TOO_MUCH.0, TOO_MUCH.1));
        }
    }
    Ok(found)
}

/// A sorted range that is cut has no key to go on from: all of it is read by key, and put into
/// order here.
async fn sort(
    cluster: &Cluster,
    asked: &Range<'_>,
    consistency: Consistency,
    newest: Revision,
) -> Result<Found, Status> {
    let Selection { by, order, .. } = asked.selection;
    let revision = if asked.revision == Revision(0) { newest } else { asked.revision };
    let by_key = Range {
        limit: 0,
        revision,
        keys_only: asked.keys_only && by != SortBy::Value,
        selection: Selection { by: SortBy::Key, order: Order::Unsorted, ..asked.selection },
        ..*asked
    };
    let first = read(cluster, &by_key, consistency).await?;
    let mut all = read_on(cluster, &by_key, consistency, first).await?;
    all.kvs.sort_by(|one, two| match order {
        Order::Unsorted | Order::Ascend => compare(by, one, two),
        Order::Descend => compare(by, two, one),
    });
    let limit = usize::try_from(asked.limit).unwrap_or(usize::MAX);
    all.more = asked.limit > 0 && limit < all.kvs.len();
    if asked.limit > 0 {
        all.kvs.truncate(limit);
    }
    if asked.keys_only {
        all.kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    Ok(all)
}

fn compare(by: SortBy, one: &KeyValue, two: &KeyValue) -> Ordering {
    match by {
        SortBy::Key => one.key.cmp(&two.key),
        SortBy::Version => one.version.cmp(&two.version),
        SortBy::Create => one.create_revision.cmp(&two.create_revision),
        SortBy::Mod => one.mod_revision.cmp(&two.mod_revision),
        SortBy::Value => one.value.cmp(&two.value),
    }
}

async fn read(
    cluster: &Cluster,
    asked: &Range<'_>,
    consistency: Consistency,
) -> Result<Found, Status> {
    let Range { key, end, limit, revision, keys_only, count_only, selection } = *asked;
    let end = end.as_bytes();
    let args =
        RangeArgs { key, end, limit, revision, consistency, keys_only, count_only, selection };
    let whom = match consistency {
        Consistency::Serializable => Whom::Home,
        Consistency::Linearizable | Consistency::Lease => Whom::Leader,
    };
    let encode = |out: &mut Vec<u8>, id| range_request(out, id, &args);
    let answer = cluster.ask(whom, Repeat::Freely, key.len() + end.len(), encode).await?;
    found(&answer)
}

fn found(answer: &Answer) -> Result<Found, Status> {
    let ReplyBody::Range(reply) = answer.reply()? else { return Err(unexpected()) };
    let mut kvs = Vec::with_capacity(reply.len());
    kvs.extend(reply.kvs().map(|kv| translate::key_value(&answer.body, &kv)));
    let (node, bytes) = (answer.node, answer.body.len());
    Ok(Found { node, revision: reply.revision, kvs, more: reply.more, count: reply.count, bytes })
}
