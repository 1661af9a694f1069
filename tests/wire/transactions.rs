//! Messages with all options, and transactions: one of every kind, and the way back to their bytes.

use raftd::codec::msgpack;
use raftd::kv::answer::{KvArray, write_kv};
use raftd::kv::{Command, RangeEnd, RangeRequest, Request};
use raftd::types::Revision;
use raftd::wire::client::{
    self, Compare, Consistency, DeleteWith, Op, Operand, Order, PutWith, RangeArgs, Relation,
    RevisionSpan, Selection, SortBy, Txn, TxnParts,
};
use raftd::wire::reply::{self, TxnOutcome};
use raftd::wire::results::{KeyValue, Results, TxnResult};

use super::samples::{Kind, Written, kv, range_args};

/// Requests with all their options, and what they are answered.
pub(super) fn samples() -> [Written; 11] {
    [
        (Kind::Request, "range-sorted", |out| {
            let spans = RevisionSpan { min: Revision(3), max: Revision(0) };
            let selection = Selection {
                by: SortBy::Mod,
                order: Order::Descend,
                mod_revision: spans,
                ..Selection::ALL
            };
            client::range_request(out, 9, &RangeArgs { selection, ..range_args() });
        }),
        (Kind::Request, "compact", |out| {
            client::command_request(out, 14, None, Command::Compact { revision: Revision(250) });
        }),
        (Kind::Reply, "compact", |out| reply::compact_reply(out, 14, Revision(300))),
        (Kind::Request, "put-with", |out| {
            let put =
                PutWith { key: b"a", prev_kv: true, ignore_value: true, ..PutWith::default() };
            client::command_request(out, 15, None, Command::PutWith(put));
        }),
        (Kind::Reply, "put-with", |out| {
            reply::put_with_reply(out, 15, Revision(5), &before());
        }),
        (Kind::Request, "delete-with", |out| {
            let delete = DeleteWith { key: b"a", end: RangeEnd::Before(b"b"), prev_kv: true };
            client::command_request(out, 16, None, Command::DeleteRangeWith(delete));
        }),
        (Kind::Reply, "delete-with", |out| {
            reply::delete_with_reply(out, 16, Revision(5), 1, &before());
        }),
        (Kind::Request, "txn", |out| {
            let args = txn_args();
            let txn = Txn::from_args(&args).unwrap();
            client::command_request(out, 17, None, Command::Txn(txn));
        }),
        (Kind::Reply, "txn", |out| {
            let results = [0x91, 0x92, 7, 0x91, 0x90];
            let outcome = TxnOutcome { revision: Revision(6), succeeded: true, results: &results };
            reply::txn_reply(out, 17, Op::Txn, &outcome);
        }),
        (Kind::Request, "read-txn", |out| {
            let mut args = Vec::new();
            TxnParts { then: &[txn_range()], ..TxnParts::default() }.encode(&mut args);
            let txn = Txn::from_args(&args).unwrap();
            client::read_txn_request(out, 18, Consistency::Linearizable, txn);
        }),
        (Kind::Reply, "read-txn", |out| {
            let mut results = vec![0x91, 0x92, 16, 0x93];
            let mut kvs = KvArray::begin(&mut results);
            kvs.push(&mut results, &kv(b"a", b"2", [2, 6, 3]));
            kvs.finish(&mut results);
            results.extend_from_slice(&[0xc2, 1]);
            let outcome = TxnOutcome { revision: Revision(6), succeeded: true, results: &results };
            reply::txn_reply(out, 18, Op::ReadTxn, &outcome);
        }),
    ]
}

/// One key as it was.
fn before() -> Vec<u8> {
    let mut body = vec![0x91];
    write_kv(&mut body, &kv(b"a", b"1", [2, 4, 2]));
    body
}

/// If a's last change is 4, put it; else read it.
fn txn_args() -> Vec<u8> {
    let operand = Operand::Mod(Revision(4));
    let compare = Compare { key: b"a", end: RangeEnd::Key, relation: Relation::Equal, operand };
    let put = PutWith { key: b"a", value: b"2", ..PutWith::default() };
    let mut args = Vec::new();
    let (then, otherwise) = (&[Request::Put(put)], &[txn_range()]);
    TxnParts { compares: &[compare], then, otherwise }.encode(&mut args);
    args
}

fn txn_range() -> Request<'static> {
    Request::Range(RangeRequest {
        key: b"a",
        end: RangeEnd::Key,
        limit: 0,
        revision: Revision(0),
        keys_only: false,
        count_only: false,
        selection: Selection::ALL,
    })
}

pub(super) fn kvs_again<'a>(out: &mut Vec<u8>, kvs: impl Iterator<Item = KeyValue<'a>>) {
    let kvs: Vec<_> = kvs.collect();
    msgpack::write_array(out, kvs.len().try_into().unwrap());
    kvs.iter().for_each(|kv| write_kv(out, kv));
}

pub(super) fn results_again(out: &mut Vec<u8>, results: &Results<'_>) {
    msgpack::write_array(out, results.len().try_into().unwrap());
    for result in results.iter() {
        msgpack::write_array(out, 2);
        match result {
            TxnResult::Put { before } => {
                out.extend_from_slice(&[7, 0x91]);
                kvs_again(out, before.into_iter());
            }
            TxnResult::Delete { deleted, before } => {
                out.extend_from_slice(&[8, 0x92]);
                msgpack::write_uint(out, deleted);
                kvs_again(out, before.iter());
            }
            TxnResult::Range { kvs, more, count } => {
                out.extend_from_slice(&[16, 0x93]);
                let mut writer = KvArray::begin(out);
                kvs.iter().for_each(|kv| writer.push(out, &kv));
                writer.finish(out);
                msgpack::write_flag(out, more);
                msgpack::write_uint(out, count);
            }
            TxnResult::Txn { succeeded, results } => {
                out.extend_from_slice(&[9, 0x92]);
                msgpack::write_flag(out, succeeded);
                results_again(out, &results);
            }
        }
    }
}
