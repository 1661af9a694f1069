//! The product's words in the history's: the only place here that knows the product.

use super::{Answer, Command, LeaseChange, RangeArgs, Row};
use raftd::kv::{self, Operand, PutWith, RangeEnd};
use raftd::types::{Revision, Term};
use raftd::wire::client::Op;
use raftd::wire::reply::ReplyBody;
use raftd::wire::results::{KeyValue, TxnResult};

/// The command of an entry of this term as the history knows it; `None`: it changes nothing there.
pub(crate) fn owned(command: kv::Command<'_>, term: Term) -> Option<Command> {
    Some(match command {
        kv::Command::Put { key, value } => {
            Command::Put { key: key.to_vec(), value: value.to_vec() }
        }
        kv::Command::PutIf { key, value, mod_revision } => Command::PutIf {
            key: key.to_vec(),
            value: value.to_vec(),
            mod_revision: mod_revision.0,
        },
        kv::Command::DeleteRange { key, end } => {
            let end = match end {
                RangeEnd::Key => Vec::new(),
                RangeEnd::Unbounded => vec![0],
                RangeEnd::Before(end) => end.to_vec(),
            };
            Command::Delete { key: key.to_vec(), end }
        }
        kv::Command::Compact { revision } => Command::Compact { revision: revision.0 },
        kv::Command::OpenSession | kv::Command::Auth(_) => return None,
        kv::Command::LeaseGrant { lease, .. } => Command::Lease(LeaseChange::Grant { lease }),
        kv::Command::LeaseRevoke { lease } => Command::Lease(LeaseChange::Revoke { lease }),
        kv::Command::LeaseExpire { term: said_in, lease, grant } if said_in == term => {
            Command::Lease(LeaseChange::Expire { lease, grant })
        }
        kv::Command::LeaseExpire { .. } | kv::Command::LeaseCheckpoint { .. } => return None,
        kv::Command::PutWith(PutWith { key, value, lease, .. }) if lease != 0 => {
            Command::Lease(LeaseChange::Hang { lease, key: key.to_vec(), value: value.to_vec() })
        }
        kv::Command::PutWith(put) => {
            Command::Put { key: put.key.to_vec(), value: put.value.to_vec() }
        }
        kv::Command::DeleteRangeWith(delete) => {
            let kv::DeleteWith { key, end, .. } = delete;
            return owned(kv::Command::DeleteRange { key, end }, term);
        }
        kv::Command::Txn(txn) => {
            let (compare, put) = (txn.compares().next(), txn.branch(true).next());
            let (Some(compare), Some(kv::Request::Put(put))) = (compare, put) else {
                unreachable!("no client here asks for another transaction")
            };
            let Operand::Mod(mod_revision) = compare.operand else {
                unreachable!("no client here compares anything else")
            };
            let put = kv::Command::PutIf { key: put.key, value: put.value, mod_revision };
            return owned(put, term);
        }
    })
}

/// The command as a client sends it.
pub(crate) fn of_the_store(command: &Command) -> kv::Command<'_> {
    match command {
        Command::Put { key, value } => kv::Command::Put { key, value },
        Command::Delete { key, end } => {
            kv::Command::DeleteRange { key, end: RangeEnd::from_bytes(end) }
        }
        Command::PutIf { key, value, mod_revision } => {
            kv::Command::PutIf { key, value, mod_revision: Revision(*mod_revision) }
        }
        Command::Compact { .. } | Command::Lease(_) => unreachable!("not for clients"),
    }
}

/// The command as a client sends it that wants to know what was there: with the options of a put
/// and a delete, and a condition as a transaction. `room` is for its bytes.
pub(crate) fn with_options<'a>(command: &'a Command, room: &'a mut Vec<u8>) -> kv::Command<'a> {
    match command {
        Command::Put { key, value } => {
            kv::Command::PutWith(PutWith { key, value, prev_kv: true, ..PutWith::default() })
        }
        Command::Delete { key, end } => {
            let end = RangeEnd::from_bytes(end);
            kv::Command::DeleteRangeWith(kv::DeleteWith { key, end, prev_kv: true })
        }
        Command::PutIf { key, value, mod_revision } => {
            let operand = Operand::Mod(Revision(*mod_revision));
            let relation = kv::Relation::Equal;
            let compare = kv::Compare { key, end: RangeEnd::Key, relation, operand };
            let put = PutWith { key, value, prev_kv: true, ..PutWith::default() };
            let get = kv::RangeRequest {
                key,
                end: RangeEnd::Key,
                limit: 0,
                revision: Revision(0),
                keys_only: false,
                count_only: false,
                selection: kv::Selection::ALL,
            };
            let (then, otherwise) = ([kv::Request::Put(put)], [kv::Request::Range(get)]);
            kv::TxnParts { compares: &[compare], then: &then, otherwise: &otherwise }.encode(room);
            kv::Command::Txn(kv::Txn::from_args(room).expect("it changes a key once"))
        }
        Command::Compact { .. } | Command::Lease(_) => unreachable!("not for clients"),
    }
}

/// What a reply to such a command says: the answer, and the keys that it shows.
pub(crate) fn answer_of(body: &ReplyBody<'_>) -> Option<(Answer, Vec<Row>)> {
    if let ReplyBody::PutWith { revision, before } = body {
        let before = before.iter().map(row_of).collect();
        return Some((Answer::Put { revision: revision.0 }, before));
    }
    if let ReplyBody::DeleteRangeWith { revision, deleted, before } = body {
        let answer = Answer::Delete { revision: revision.0, deleted: *deleted };
        return Some((answer, before.iter().map(|kv| row_of(&kv)).collect()));
    }
    let ReplyBody::Txn { revision, succeeded, results, .. } = body else { return None };
    let rows: Vec<Row> = match results.iter().next()? {
        TxnResult::Put { before } if *succeeded => before.iter().map(row_of).collect(),
        TxnResult::Range { kvs, .. } if !succeeded => kvs.iter().map(|kv| row_of(&kv)).collect(),
        TxnResult::Put { .. }
        | TxnResult::Range { .. }
        | TxnResult::Delete { .. }
        | TxnResult::Txn { .. } => return None,
    };
    let found = rows.first().map_or(0, |row| row.mod_revision);
    let refused = Some(found).filter(|_| !succeeded);
    Some((Answer::PutIf { revision: revision.0, refused }, rows))
}

/// A read in the store's words.
pub(crate) fn request_of(args: &RangeArgs) -> kv::RangeRequest<'_> {
    kv::RangeRequest {
        key: &args.key,
        end: RangeEnd::from_bytes(&args.end),
        limit: args.limit,
        revision: Revision(args.revision),
        keys_only: args.keys_only,
        count_only: args.count_only,
        selection: kv::Selection::ALL,
    }
}

/// A read as a transaction of one request; `room` is for its bytes.
pub(crate) fn as_txn<'a>(args: &RangeArgs, room: &'a mut Vec<u8>) -> kv::Txn<'a> {
    let range = kv::Request::Range(request_of(args));
    kv::TxnParts { then: &[range], ..kv::TxnParts::default() }.encode(room);
    kv::Txn::from_args(room).expect("it changes nothing")
}

/// What a reply to such a read says.
pub(crate) fn read_of(body: &ReplyBody<'_>) -> Option<Answer> {
    let ReplyBody::Txn { op: Op::ReadTxn, revision, succeeded: true, results } = body else {
        return None;
    };
    let TxnResult::Range { kvs, more, count } = results.iter().next()? else { return None };
    let rows = kvs.iter().map(|kv| row_of(&kv)).collect();
    Some(Answer::Range { revision: revision.0, rows, more, count })
}

/// A key as the store and its replies have it.
pub(crate) fn row_of(kv: &KeyValue<'_>) -> Row {
    Row {
        key: kv.key.to_vec(),
        value: kv.value.to_vec(),
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
    }
}
