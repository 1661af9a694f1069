//! RangeStream: a range in pieces, as a node finds it, so that however large it is hardly any of it
//! is here. All pieces put together are the answer to the same Range.
//!
//! ```text
//! pieces      what a node has in one reply: some 64 KiB of keys, or a single larger one
//! last piece  may have keys as well, and alone has the header, `more` and `count`
//! revision    that of the first piece, whatever is changed or compacted meanwhile
//! ```
//!
//! A client that does not read holds up its node, and nothing else. One that stands still for
//! longer gives its connection back, and has a new one when it reads on; so has one whose node is
//! lost. What such a new one is asked for is the rest, of the same revision, which there is unless
//! it has been compacted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::gateway::calls::{Answer, Cluster, Whom, number};
use crate::gateway::channel::Channel;
use crate::gateway::failure::{COMPACTED, CONNECTION_LOST, Known, is_known, unexpected};
use crate::gateway::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::gateway::proto::etcdserverpb::{RangeRequest, RangeResponse, RangeStreamResponse};
use crate::gateway::proto::mvccpb::KeyValue;
use crate::gateway::source::Source;
use crate::types::Revision;
use crate::wire::client::{Consistency, RangeArgs, Selection};
use crate::wire::reply::{RangeReply, ReplyBody};

use super::translate;

/// How long a client may take nothing before its connection is given back. A node itself hangs up
/// after 30 s.
const STANDSTILL_MAX: Duration = Duration::from_secs(5);

/// So many connections in a row that bring no key, and it is given up.
const ATTEMPTS: u32 = 3;

/// In etcd's words, which have nothing before them.
const CUSTOM_ORDER: Known =
    (Code::Unimplemented, "RangeStream does not support custom sort orders");
const FILTERS: Known = (Code::Unimplemented, "RangeStream does not support revision filters");

type Out = mpsc::Sender<Result<RangeStreamResponse, Status>>;

/// Begins to answer a request, if it can be.
pub(super) fn open(
    cluster: &Arc<Cluster>,
    request: RangeRequest,
) -> Result<Channel<RangeStreamResponse>, Status> {
    let walk = Walk::of(request)?;
    let cluster = Arc::clone(cluster);
    Ok(Channel::fed(|out| async move {
        if let Err(why) = walk.run(&cluster, &out).await {
            // Whoever asked may have gone.
            let _gone = out.send(Err(why)).await;
        }
    }))
}

/// How far a range has been walked.
struct Walk {
    request: RangeRequest,
    /// The first key of the rest.
    key: Bytes,
    end: Bytes,
    /// 0 is no limit.
    limit: u64,
    /// As the store was then; 0 is when it is first asked.
    revision: Revision,
    /// The store's revision when it was first asked.
    newest: Option<Revision>,
    /// How many keys the client has got.
    sent: u64,
}

/// How a connection has ended.
enum Ended {
    /// All is said.
    Done,
    /// Its client stood still, and has now read on.
    Slept,
}

impl Walk {
    fn of(request: RangeRequest) -> Result<Walk, Status> {
        let asked = translate::range(&request)?;
        let (limit, revision) = (asked.limit, asked.revision);
        // etcd takes the target for nothing if there is no order.
        let (order, target) = (request.sort_order(), request.sort_target());
        let is_by_key = match order {
            SortOrder::None => true,
            SortOrder::Ascend => target == SortTarget::Key,
            SortOrder::Descend => false,
        };
        if !is_by_key {
            return Err(Status::new(CUSTOM_ORDER.0, CUSTOM_ORDER.1));
        }
        let RangeRequest { min_mod_revision, max_mod_revision, .. } = request;
        let RangeRequest { min_create_revision, max_create_revision, .. } = request;
        let bounds = [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision];
        if bounds != [0; 4] {
            return Err(Status::new(FILTERS.0, FILTERS.1));
        }
        let key = request.key.clone();
        // A key by itself as a range, so that there is a rest behind it.
        let end = match &request.range_end {
            end if end.is_empty() => behind(&key),
            end => end.clone(),
        };
        Ok(Walk { request, key, end, limit, revision, newest: None, sent: 0 })
    }

    async fn run(mut self, cluster: &Cluster, out: &Out) -> Result<(), Status> {
        let mut in_vain = 0;
        loop {
            let before = self.sent;
            let why = match self.go_on(cluster, out).await {
                Ok(Ended::Done) => return Ok(()),
                Ok(Ended::Slept) => continue,
                Err(why) => why,
            };
            in_vain = if self.sent > before { 0 } else { in_vain + 1 };
            if in_vain >= ATTEMPTS || !self.is_worth_another(&why) {
                return Err(why);
            }
            cluster.nodes.pause().await;
        }
    }

    /// Whether it may go on, or begin anew, after such an error.
    fn is_worth_another(&mut self, why: &Status) -> bool {
        let (begins, now) = (self.sent == 0, translate::revision(self.request.revision));
        if begins && now == Revision(0) && is_known(why, COMPACTED) {
            // Of what is there now, there always is a newer one.
            (self.revision, self.newest) = (now, None);
            return true;
        }
        is_known(why, CONNECTION_LOST)
    }

    /// Asks for the rest, by one connection.
    async fn go_on(&mut self, cluster: &Cluster, out: &Out) -> Result<Ended, Status> {
        let (first, is_full) = (self.sent, self.limit > 0 && self.sent >= self.limit);
        let (mut answer, source) = cluster.source(self.whom(), &self.args(is_full)).await?;
        let mut source = Some(source);
        loop {
            let ReplyBody::Range(reply) = answer.reply()? else { return Err(unexpected()) };
            let mut piece = RangeResponse { kvs: self.take(&answer, &reply), ..Default::default() };
            let is_last = !reply.goes_on;
            if is_last {
                piece.header = Some(cluster.header(answer.node, self.newest.unwrap_or_default()));
                piece.count = number(first + reply.count);
                piece.more = if is_full { reply.count > 0 } else { reply.more };
            }
            if is_last || !piece.kvs.is_empty() {
                give(out, piece, &mut source).await?;
            }
            if is_last {
                return Ok(Ended::Done);
            }
            let Some(source) = &mut source else { return Ok(Ended::Slept) };
            answer = source.next().await?;
        }
    }

    /// Whom to ask. What one node had in its own state another one may not have yet.
    fn whom(&self) -> Whom {
        match self.consistency() {
            Consistency::Serializable => Whom::Home,
            Consistency::Linearizable | Consistency::Lease => Whom::Leader,
        }
    }

    fn consistency(&self) -> Consistency {
        let begins = self.newest.is_none();
        let is_content = self.request.serializable && begins;
        if is_content { Consistency::Serializable } else { Consistency::Linearizable }
    }

    /// The rest. If the limit leaves nothing of it, how many keys there are.
    fn args(&self, is_full: bool) -> RangeArgs<'_> {
        RangeArgs {
            key: &self.key,
            end: &self.end,
            limit: if is_full { 0 } else { self.limit.saturating_sub(self.sent) },
            revision: self.revision,
            consistency: self.consistency(),
            keys_only: self.request.keys_only,
            count_only: self.request.count_only || is_full,
            selection: Selection::ALL,
        }
    }

    /// The keys of a reply. From there on it is behind them, and of their revision.
    fn take(&mut self, answer: &Answer, reply: &RangeReply<'_>) -> Vec<KeyValue> {
        let newest = *self.newest.get_or_insert(reply.revision);
        if self.revision == Revision(0) {
            self.revision = newest;
        }
        let kvs = reply.kvs().map(|kv| translate::key_value(&answer.body, &kv));
        let kvs: Vec<KeyValue> = kvs.collect();
        if let Some(last) = kvs.last() {
            self.key = behind(&last.key);
        }
        self.sent += u64::try_from(kvs.len()).unwrap_or(u64::MAX);
        kvs
    }
}

/// The first key behind this one.
fn behind(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

/// Gives a piece to the client, when it takes one. If that is long, `source` is given back.
async fn give(out: &Out, piece: RangeResponse, source: &mut Option<Source>) -> Result<(), Status> {
    let place = match timeout(STANDSTILL_MAX, out.reserve()).await {
        Ok(place) => place,
        Err(_) => {
            *source = None;
            log::debug!("a range stream stands still for={STANDSTILL_MAX:?}");
            out.reserve().await
        }
    };
    let place = place.map_err(|_| Status::cancelled("nobody listens"))?;
    place.send(Ok(RangeStreamResponse { range_response: Some(piece) }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: &str, end: &str) -> RangeRequest {
        let (key, range_end) = (key.to_owned().into(), end.to_owned().into());
        RangeRequest { key, range_end, ..RangeRequest::default() }
    }

    #[test]
    fn the_rest_of_a_range_is_behind_what_was_sent() {
        let mut walk = Walk::of(RangeRequest { limit: 3, ..request("a", "b") }).unwrap();
        assert_eq!((walk.args(false).key, walk.args(false).limit), (&b"a"[..], 3));
        (walk.key, walk.sent, walk.newest) = (behind(b"aa"), 2, Some(Revision(7)));
        let rest = walk.args(false);
        assert_eq!((rest.key, rest.end, rest.limit), (&b"aa\0"[..], &b"b"[..], 1));
        // What the limit leaves out is counted.
        let rest = walk.args(true);
        assert_eq!((rest.limit, rest.count_only), (0, true));
        let one = Walk::of(request("a", "")).unwrap();
        assert_eq!((one.args(false).key, one.args(false).end), (&b"a"[..], &b"a\0"[..]));
        let endless = Walk::of(request("a", "\0")).unwrap();
        assert_eq!(endless.args(false).end, b"\0");
    }

    #[test]
    fn what_one_nodes_state_began_the_leader_ends() {
        let mut walk = Walk::of(RangeRequest { serializable: true, ..request("a", "b") }).unwrap();
        assert_eq!((walk.whom(), walk.consistency()), (Whom::Home, Consistency::Serializable));
        walk.newest = Some(Revision(7));
        assert_eq!((walk.whom(), walk.consistency()), (Whom::Leader, Consistency::Linearizable));
    }
}
