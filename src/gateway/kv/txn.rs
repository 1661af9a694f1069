//! Transactions: into the form that the log has, and their results back.

use bytes::Bytes;
use tonic::Status;

use crate::gateway::auth::Who;
use crate::gateway::calls::{Answer, Cluster, Repeat, Whom, number};
use crate::gateway::failure::{DUPLICATE_KEY, KEY_NOT_FOUND, TOO_MANY_OPS, known, unexpected};
use crate::gateway::proto::etcdserverpb as pb;
use crate::gateway::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::gateway::proto::etcdserverpb::request_op::Request;
use crate::gateway::proto::etcdserverpb::response_op::Response;
use crate::kv::command::CommandError;
use crate::types::Revision;
use crate::wire::client::{
    Command, Compare, Consistency, Operand, RangeEnd, Relation, Txn, TxnParts, TxnRequest as Part,
    read_txn_request,
};
use crate::wire::reply::ReplyBody;
use crate::wire::results::{Results, TxnResult};

use super::{check, translate};

/// Does a transaction for `who`: as a read if it changes nothing, whichever branch is taken.
pub(super) async fn txn(
    cluster: &Cluster,
    who: &Who,
    request: &pb::TxnRequest,
) -> Result<tonic::Response<pb::TxnResponse>, Status> {
    check::check(request)?;
    let mut args = Vec::new();
    encode(request, &mut args)?;
    let txn = Txn::from_args(&args).map_err(|why| refusal(&why))?;
    let only_reads = txn.is_read_only();
    let answer = if !only_reads {
        cluster.write(who, args.len(), Command::Txn(txn)).await?
    } else if check::is_serializable(request) {
        read(cluster, who, txn, Whom::Home, Consistency::Serializable).await?
    } else {
        read(cluster, who, txn, Whom::Leader, Consistency::Linearizable).await?
    };
    let ReplyBody::Txn { revision, succeeded, results, .. } = answer.reply()? else {
        return Err(unexpected());
    };
    let mut steps = Steps::new(revision, &results);
    let done = pb::TxnResponse {
        header: Some(cluster.header(answer.node, revision)),
        succeeded,
        responses: steps.responses(&answer.body, &results),
    };
    let bytes = answer.body.len();
    if only_reads { cluster.try_hold(bytes, done) } else { Ok(cluster.hold(bytes, done)) }
}

async fn read(
    cluster: &Cluster,
    who: &Who,
    txn: Txn<'_>,
    whom: Whom,
    consistency: Consistency,
) -> Result<Answer, Status> {
    let encode = |out: &mut Vec<u8>, id| read_txn_request(out, id, consistency, txn);
    cluster.ask(who, whom, Repeat::Freely, txn.args().len(), encode).await
}

/// What is left to be wrong with a transaction that was checked.
fn refusal(why: &CommandError) -> Status {
    // etcd bounds neither depth nor the sum of all.
    if matches!(why, CommandError::TooManyOperations | CommandError::TooDeep) {
        return known(TOO_MANY_OPS);
    }
    if *why == CommandError::DuplicateKey {
        return known(DUPLICATE_KEY);
    }
    Status::internal(format!("raftd: {why}"))
}

/// Appends a transaction in our form.
fn encode(txn: &pb::TxnRequest, out: &mut Vec<u8>) -> Result<(), Status> {
    // What is inside goes in as bytes.
    let mut inside = Vec::new();
    for request in txn.success.iter().chain(&txn.failure) {
        if let Some(Request::RequestTxn(txn)) = &request.request {
            let mut args = Vec::new();
            encode(txn, &mut args)?;
            inside.push(args);
        }
    }
    let mut inside = inside.iter().map(Vec::as_slice);
    let compares: Vec<Compare<'_>> = txn.compare.iter().map(compare).collect();
    let then = branch(&txn.success, &mut inside)?;
    let otherwise = branch(&txn.failure, &mut inside)?;
    TxnParts { compares: &compares, then: &then, otherwise: &otherwise }.encode(out);
    Ok(())
}

fn branch<'a>(
    requests: &'a [pb::RequestOp],
    inside: &mut impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Part<'a>>, Status> {
    let part = |request: &'a pb::RequestOp| match &request.request {
        Some(Request::RequestRange(range)) => translate::range(range).map(Part::Range),
        Some(Request::RequestPut(put)) => translate::put(put).map(Part::Put),
        Some(Request::RequestDeleteRange(delete)) => translate::delete(delete).map(Part::Delete),
        Some(Request::RequestTxn(_)) => {
            let args = inside.next().expect("all that are inside were encoded, in this order");
            Txn::from_args(args).map(Part::Txn).map_err(|why| refusal(&why))
        }
        None => Err(known(KEY_NOT_FOUND)),
    };
    requests.iter().map(part).collect()
}

fn compare(compare: &pb::Compare) -> Compare<'_> {
    let (key, end) = (&compare.key[..], RangeEnd::from_bytes(&compare.range_end));
    let always = |holds| {
        let relation = if holds { Relation::NotEqual } else { Relation::Equal };
        // No key has as many.
        Compare { key, end, relation, operand: Operand::Version(u64::MAX) }
    };
    let relation = match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => Relation::Equal,
        Ok(CompareResult::Greater) => Relation::Greater,
        Ok(CompareResult::Less) => Relation::Less,
        Ok(CompareResult::NotEqual) => Relation::NotEqual,
        // What etcd does not know it does not find wrong.
        Err(_) => return always(true),
    };
    let operand = match operand(compare) {
        Ok(Some(operand)) => operand,
        // Below 0: everything is greater.
        Ok(None) => return always(matches!(relation, Relation::Greater | Relation::NotEqual)),
        Err(_) => return always(relation == Relation::Equal),
    };
    Compare { key, end, relation, operand }
}

/// With what is compared; `None`: with a number below 0. One that is left out is 0, or empty.
fn operand(compare: &pb::Compare) -> Result<Option<Operand<'_>>, prost::UnknownEnumValue> {
    let union = compare.target_union.as_ref();
    let unsigned = |number: Option<i64>| u64::try_from(number.unwrap_or(0)).ok();
    Ok(match CompareTarget::try_from(compare.target)? {
        CompareTarget::Version => {
            let version = union.and_then(|union| union.version());
            unsigned(version).map(Operand::Version)
        }
        CompareTarget::Create => {
            let revision = union.and_then(|union| union.create_revision());
            unsigned(revision).map(Revision).map(Operand::Create)
        }
        CompareTarget::Mod => {
            let revision = union.and_then(|union| union.mod_revision());
            unsigned(revision).map(Revision).map(Operand::Mod)
        }
        CompareTarget::Value => {
            Some(Operand::Value(union.and_then(|union| union.value()).unwrap_or_default()))
        }
        CompareTarget::Lease => {
            let lease = union.and_then(|union| union.lease()).unwrap_or(0);
            Some(Operand::Lease(lease.cast_unsigned()))
        }
    })
}

/// One of the things that a compare compares with.
macro_rules! of_union {
    ($($name:ident: $variant:ident -> $type:ty;)*) => {
        impl TargetUnion {
            $(fn $name(&self) -> Option<$type> {
                if let TargetUnion::$variant(it) = self { Some(*it) } else { None }
            })*
        }
    };
}
of_union! {
    version: Version -> i64;
    create_revision: CreateRevision -> i64;
    mod_revision: ModRevision -> i64;
    lease: Lease -> i64;
}

impl TargetUnion {
    fn value(&self) -> Option<&[u8]> {
        if let TargetUnion::Value(value) = self { Some(value) } else { None }
    }
}

/// Where in a transaction its results stand. A request in it sees the revision before it, until
/// something is changed: from then on its own.
struct Steps {
    now: Revision,
    after: Revision,
}

impl Steps {
    fn new(after: Revision, results: &Results<'_>) -> Steps {
        let before = if changes(results) { after.0.saturating_sub(1) } else { after.0 };
        Steps { now: Revision(before), after }
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { revision: number(self.now.0), ..pb::ResponseHeader::default() })
    }

    fn responses(&mut self, reply: &Bytes, results: &Results<'_>) -> Vec<pb::ResponseOp> {
        let response = |result| pb::ResponseOp { response: Some(self.response(reply, result)) };
        results.iter().map(response).collect()
    }

    fn response(&mut self, reply: &Bytes, result: TxnResult<'_>) -> Response {
        match result {
            TxnResult::Put { before } => {
                self.now = self.after;
                let prev_kv = before.map(|kv| translate::key_value(reply, &kv));
                Response::ResponsePut(pb::PutResponse { header: self.header(), prev_kv })
            }
            TxnResult::Delete { deleted, before } => {
                if deleted > 0 {
                    self.now = self.after;
                }
                Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                    header: self.header(),
                    deleted: number(deleted),
                    prev_kvs: before.iter().map(|kv| translate::key_value(reply, &kv)).collect(),
                })
            }
            TxnResult::Range { kvs, more, count } => Response::ResponseRange(pb::RangeResponse {
                header: self.header(),
                kvs: kvs.iter().map(|kv| translate::key_value(reply, &kv)).collect(),
                more,
                count: number(count),
            }),
            TxnResult::Txn { succeeded, results } => Response::ResponseTxn(pb::TxnResponse {
                header: Some(pb::ResponseHeader::default()),
                succeeded,
                responses: self.responses(reply, &results),
            }),
        }
    }
}

/// Whether anything was changed.
fn changes(results: &Results<'_>) -> bool {
    results.iter().any(|result| match result {
        TxnResult::Put { .. } => true,
        TxnResult::Delete { deleted, .. } => deleted > 0,
        TxnResult::Range { .. } => false,
        TxnResult::Txn { results, .. } => changes(&results),
    })
}
