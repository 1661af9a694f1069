//! Reads, however much they find: the replies of a node are put together here.

use bytes::Bytes;
use std::cmp::Ordering;
use tonic::{Code, Response, Status};

use crate::gateway::auth::Who;
use crate::gateway::calls::{Cluster, Whom, number};
use crate::gateway::failure::{COMPACTED, CONNECTION_LOST, Known, is_known, unexpected};
use crate::gateway::proto::etcdserverpb::{RangeRequest, RangeResponse};
use crate::gateway::proto::mvccpb::KeyValue;
use crate::gateway::room::{Share, cost};
use crate::types::{NodeId, Revision};
use crate::wire::client::{Consistency, RangeArgs, RangeRequest as Range, SortBy};
use crate::wire::reply::{RangeReply, ReplyBody};
use crate::wire::sorting::Sortable;

use super::translate;

/// All keys of one answer together. etcd's own bound is what a message may have, 2 GiB. Bytes. What
/// all answers together may have is the cluster's room for them; and while one is written down it
/// is there twice.
pub(in crate::gateway) const GATHERED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A read begins anew so often: if its node is lost in the middle of the answer, or if it is of
/// what is there now, and that is compacted meanwhile.
const ATTEMPTS: u32 = 3;

pub(in crate::gateway) const TOO_MUCH: Known =
    (Code::ResourceExhausted, "raftd: the answer has more than 256 MiB");

/// What was found.
struct Found {
    node: NodeId,
    revision: Revision,
    kvs: Vec<KeyValue>,
    more: bool,
    count: u64,
    share: Share,
}

/// Does a read for `who`. `consistency`, whatever the request says of it.
pub(in crate::gateway) async fn range(
    cluster: &Cluster,
    who: &Who,
    request: &RangeRequest,
    consistency: Consistency,
) -> Result<Response<RangeResponse>, Status> {
    let asked = translate::range(request)?;
    let args = args_of(&asked, consistency);
    let mut attempts = 1;
    let found = loop {
        match find(cluster, who, &args).await {
            Err(why) if attempts < ATTEMPTS && is_worth_another(&args, &why) => attempts += 1,
            found => break found?,
        }
    };
    Ok(found.share.hold(RangeResponse {
        header: Some(cluster.header(found.node, found.revision)),
        kvs: found.kvs,
        more: found.more,
        count: number(found.count),
    }))
}

fn args_of<'a>(asked: &Range<'a>, consistency: Consistency) -> RangeArgs<'a> {
    let Range { key, end, limit, revision, keys_only, count_only, selection } = *asked;
    let end = end.as_bytes();
    RangeArgs { key, end, limit, revision, consistency, keys_only, count_only, selection }
}

fn is_worth_another(args: &RangeArgs<'_>, why: &Status) -> bool {
    is_known(why, CONNECTION_LOST) || args.revision == Revision(0) && is_known(why, COMPACTED)
}

/// A node sorts `SORTED_KEYS_MAX` keys; etcd any number. If there are more, all of them are read by
/// key, and put into order here.
async fn find(cluster: &Cluster, who: &Who, args: &RangeArgs<'_>) -> Result<Found, Status> {
    let found = read(cluster, who, args).await?;
    if !args.selection.sorts() || !args.is_cut(found.kvs.len(), found.more) {
        return Ok(found);
    }
    let mut all = read(cluster, who, &args.by_key(found.revision)).await?;
    // Who watches from there on misses nothing; it may be older than what was newest just now.
    all.revision = found.revision;
    all.more = args.sort(&mut all.kvs);
    Ok(all)
}

impl Sortable for KeyValue {
    fn compare(&self, other: &KeyValue, by: SortBy) -> Ordering {
        match by {
            SortBy::Key => self.key.cmp(&other.key),
            SortBy::Version => self.version.cmp(&other.version),
            SortBy::Create => self.create_revision.cmp(&other.create_revision),
            SortBy::Mod => self.mod_revision.cmp(&other.mod_revision),
            SortBy::Value => self.value.cmp(&other.value),
        }
    }

    fn clear_value(&mut self) {
        self.value = Bytes::new();
    }
}

async fn read(cluster: &Cluster, who: &Who, args: &RangeArgs<'_>) -> Result<Found, Status> {
    let whom = match args.consistency {
        Consistency::Serializable => Whom::Home,
        Consistency::Linearizable | Consistency::Lease => Whom::Leader,
    };
    let mut parts = cluster.range(who, whom, args).await?;
    let mut kvs = Vec::new();
    let mut bytes = 0;
    let mut share = cluster.answers.share();
    loop {
        let answer = parts.next().await?;
        let ReplyBody::Range(reply) = answer.reply()? else { return Err(unexpected()) };
        bytes += answer.body.len();
        if bytes > GATHERED_BYTES_MAX {
            return Err(Status::new(TOO_MUCH.0, TOO_MUCH.1));
        }
        share.set(cost(bytes, kvs.len() + reply.len())).map_err(|_| cluster.no_room())?;
        kvs.extend(reply.kvs().map(|kv| translate::key_value(&answer.body, &kv)));
        if !reply.goes_on {
            let (node, revision) = (answer.node, reply.revision);
            let RangeReply { more, count, .. } = reply;
            return Ok(Found { node, revision, kvs, more, count, share });
        }
    }
}
