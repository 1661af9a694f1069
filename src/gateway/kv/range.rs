//! Reads, however much they find: the replies of a node are put together here.

use bytes::Bytes;
use std::cmp::Ordering;
use tonic::{Code, Status};

use crate::gateway::calls::{Cluster, Whom, number};
use crate::gateway::failure::{COMPACTED, CONNECTION_LOST, Known, is_known, unexpected};
use crate::gateway::proto::etcdserverpb::{RangeRequest, RangeResponse};
use crate::gateway::proto::mvccpb::KeyValue;
use crate::types::{NodeId, Revision};
use crate::wire::client::{
    Consistency, Order, RangeArgs, RangeRequest as Range, Selection, SortBy,
};
use crate::wire::reply::ReplyBody;

use super::translate;

/// All keys of one answer together. etcd's own bound is what a message may have, 2 GiB. Bytes.
const GATHERED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A read begins anew so often: if its node is lost in the middle of the answer, or if it is of
/// what is there now, and that is compacted meanwhile.
const ATTEMPTS: u32 = 3;

const TOO_MUCH: Known = (Code::ResourceExhausted, "raftd: the answer has more than 256 MiB");

/// What was found.
struct Found {
    node: NodeId,
    revision: Revision,
    kvs: Vec<KeyValue>,
    more: bool,
    count: u64,
}

impl Found {
    /// Whether keys are missing that no limit leaves out.
    fn is_cut(&self, limit: u64) -> bool {
        let found = u64::try_from(self.kvs.len()).unwrap_or(u64::MAX);
        self.more && !self.kvs.is_empty() && (limit == 0 || found < limit)
    }
}

/// Does a read. `consistency`, whatever the request says of it.
pub(in crate::gateway) async fn range(
    cluster: &Cluster,
    request: &RangeRequest,
    consistency: Consistency,
) -> Result<RangeResponse, Status> {
    let asked = translate::range(request)?;
    let mut attempts = 1;
    let found = loop {
        match find(cluster, &asked, consistency).await {
            Err(why) if attempts < ATTEMPTS && is_worth_another(&asked, &why) => attempts += 1,
            found => break found?,
        }
    };
    Ok(RangeResponse {
        header: Some(cluster.header(found.node, found.revision)),
        kvs: found.kvs,
        more: found.more,
        count: number(found.count),
    })
}

fn is_worth_another(asked: &Range<'_>, why: &Status) -> bool {
    is_known(why, CONNECTION_LOST) || asked.revision == Revision(0) && is_known(why, COMPACTED)
}

async fn find(
    cluster: &Cluster,
    asked: &Range<'_>,
    consistency: Consistency,
) -> Result<Found, Status> {
    let found = read(cluster, asked, consistency).await?;
    if asked.selection.sorts() && found.is_cut(asked.limit) {
        return sort(cluster, asked, consistency, found.revision).await;
    }
    Ok(found)
}

/// A node sorts `SORTED_KEYS_MAX` keys; etcd any number. If there are more, all of them are read by
/// key, and put into order here.
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
    let mut all = read(cluster, &by_key, consistency).await?;
    // Who watches from there on misses nothing; it may be older than what was newest just now.
    all.revision = newest;
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
    let mut parts = cluster.range(whom, &args).await?;
    let mut kvs = Vec::new();
    let mut bytes = 0;
    loop {
        let answer = parts.next().await?;
        let ReplyBody::Range(reply) = answer.reply()? else { return Err(unexpected()) };
        bytes += answer.body.len();
        if bytes > GATHERED_BYTES_MAX {
            return Err(Status::new(TOO_MUCH.0, TOO_MUCH.1));
        }
        kvs.extend(reply.kvs().map(|kv| translate::key_value(&answer.body, &kv)));
        if !reply.goes_on {
            let (node, revision) = (answer.node, reply.revision);
            return Ok(Found { node, revision, kvs, more: reply.more, count: reply.count });
        }
    }
}
