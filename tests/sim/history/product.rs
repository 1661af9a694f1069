//! The product's words in the history's: the only place here that knows the product.

use super::txns::{Compare, Done, Got, Operand, Relation, Request, Txn};
use super::{Answer, Command, LeaseChange, RangeArgs, Row};
use raftd::kv::{self, PutWith, RangeEnd};
use raftd::types::{Revision, Term};
use raftd::wire::client::Op;
use raftd::wire::reply::ReplyBody;
use raftd::wire::results::{KeyValue, Results, TxnResult};

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
            Command::Delete { key: key.to_vec(), end: end_of(end) }
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
            let txn = txn_of(txn);
            as_put_if(&txn).unwrap_or(Command::Txn(txn))
        }
    })
}

fn end_of(end: RangeEnd<'_>) -> Vec<u8> {
    match end {
        RangeEnd::Key => Vec::new(),
        RangeEnd::Unbounded => vec![0],
        RangeEnd::Before(end) => end.to_vec(),
    }
}

/// A transaction of the product in the history's words.
fn txn_of(txn: kv::Txn<'_>) -> Txn {
    let compare = |it: kv::Compare<'_>| Compare {
        key: it.key.to_vec(),
        end: end_of(it.end),
        relation: match it.relation {
            kv::Relation::Equal => Relation::Equal,
            kv::Relation::Greater => Relation::Greater,
            kv::Relation::Less => Relation::Less,
            kv::Relation::NotEqual => Relation::NotEqual,
        },
        operand: match it.operand {
            kv::Operand::Version(version) => Operand::Version(version),
            kv::Operand::Create(revision) => Operand::Create(revision.0),
            kv::Operand::Mod(revision) => Operand::Mod(revision.0),
            kv::Operand::Value(value) => Operand::Value(value.to_vec()),
            kv::Operand::Lease(_) => unreachable!("no client here compares leases"),
        },
    };
    let request = |it: kv::Request<'_>| match it {
        kv::Request::Put(put) => Request::Put { key: put.key.to_vec(), value: put.value.to_vec() },
        kv::Request::Delete(it) => Request::Delete { key: it.key.to_vec(), end: end_of(it.end) },
        kv::Request::Range(it) => {
            Request::Range { key: it.key.to_vec(), end: end_of(it.end), limit: it.limit }
        }
        kv::Request::Txn(inner) => Request::Txn(txn_of(inner)),
    };
    Txn {
        compares: txn.compares().map(compare).collect(),
        then: txn.branch(true).map(request).collect(),
        otherwise: txn.branch(false).map(request).collect(),
    }
}

/// What `with_options` makes of a put with a condition, and gateways of one of their clients'.
fn as_put_if(txn: &Txn) -> Option<Command> {
    let [Compare { key: compared, end, relation: Relation::Equal, operand: Operand::Mod(of) }] =
        &txn.compares[..]
    else {
        return None;
    };
    let [Request::Put { key, value }] = &txn.then[..] else { return None };
    // Clients of gateways may want nothing read, or as many keys as there are anyway.
    let read_alike = match &txn.otherwise[..] {
        [] => true,
        [Request::Range { key: read, end: to, .. }] => key == read && to.is_empty(),
        [..] => false,
    };
    let one_key = read_alike && key == compared && end.is_empty();
    let (key, value) = (key.clone(), value.clone());
    one_key.then_some(Command::PutIf { key, value, mod_revision: *of })
}

/// A transaction in the product's words; what changes a key says what was there.
pub(crate) fn encode_txn(txn: &Txn, out: &mut Vec<u8>) {
    let compares: Vec<_> = txn.compares.iter().map(compare_of).collect();
    let inner = |request: &Request| {
        let mut bytes = Vec::new();
        if let Request::Txn(inner) = request {
            encode_txn(inner, &mut bytes);
        }
        bytes
    };
    let rooms: [Vec<Vec<u8>>; 2] =
        [&txn.then, &txn.otherwise].map(|branch| branch.iter().map(inner).collect());
    let (then, otherwise) = (in_txn(&txn.then, &rooms[0]), in_txn(&txn.otherwise, &rooms[1]));
    if let (Some(then), Some(otherwise)) = (then, otherwise) {
        let parts = kv::TxnParts { compares: &compares, then: &then, otherwise: &otherwise };
        parts.encode(out);
    }
}

fn compare_of(compare: &Compare) -> kv::Compare<'_> {
    kv::Compare {
        key: &compare.key,
        end: RangeEnd::from_bytes(&compare.end),
        relation: match compare.relation {
            Relation::Equal => kv::Relation::Equal,
            Relation::Greater => kv::Relation::Greater,
            Relation::Less => kv::Relation::Less,
            Relation::NotEqual => kv::Relation::NotEqual,
        },
        operand: match &compare.operand {
            Operand::Version(version) => kv::Operand::Version(*version),
            Operand::Create(revision) => kv::Operand::Create(Revision(*revision)),
            Operand::Mod(revision) => kv::Operand::Mod(Revision(*revision)),
            Operand::Value(value) => kv::Operand::Value(value),
        },
    }
}

fn in_txn<'a>(branch: &'a [Request], rooms: &'a [Vec<u8>]) -> Option<Vec<kv::Request<'a>>> {
    branch.iter().zip(rooms).map(|(request, room)| request_in_txn(request, room)).collect()
}

/// `None`: no store does what is asked inside.
fn request_in_txn<'a>(request: &'a Request, inner: &'a [u8]) -> Option<kv::Request<'a>> {
    Some(match request {
        Request::Put { key, value } => {
            kv::Request::Put(PutWith { key, value, prev_kv: true, ..PutWith::default() })
        }
        Request::Delete { key, end } => {
            let end = RangeEnd::from_bytes(end);
            kv::Request::Delete(kv::DeleteWith { key, end, prev_kv: true })
        }
        Request::Range { key, end, limit } => kv::Request::Range(kv::RangeRequest {
            key,
            end: RangeEnd::from_bytes(end),
            limit: *limit,
            revision: Revision(0),
            keys_only: false,
            count_only: false,
            selection: kv::Selection::ALL,
        }),
        Request::Txn(_) => kv::Request::Txn(kv::Txn::from_args(inner).ok()?),
    })
}

/// Whether it is a transaction that may be asked for as a change: it has changes, changes no key
/// twice, and is not what a put with a condition is sent as.
pub(crate) fn is_sound(txn: &Txn) -> bool {
    let mut room = Vec::new();
    encode_txn(txn, &mut room);
    let changes = kv::Txn::from_args(&room).is_ok_and(|txn| !txn.is_read_only());
    changes && as_put_if(txn).is_none()
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
        Command::Txn(_) => unreachable!("it has one form, which needs room"),
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
            let operand = kv::Operand::Mod(Revision(*mod_revision));
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
        Command::Txn(txn) => {
            encode_txn(txn, room);
            kv::Command::Txn(kv::Txn::from_args(room).expect("whoever made it has looked"))
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

/// What a reply to a transaction says, whatever it asked for.
pub(crate) fn txn_answer_of(body: &ReplyBody<'_>) -> Option<Answer> {
    let ReplyBody::Txn { op: Op::Txn, revision, succeeded, results } = body else { return None };
    Some(Answer::Txn { revision: revision.0, done: done_of(*succeeded, *results) })
}

fn done_of(succeeded: bool, results: Results<'_>) -> Done {
    let got = |result| match result {
        TxnResult::Put { before } => Got::Put { before: before.as_ref().map(row_of) },
        TxnResult::Delete { deleted, before } => {
            Got::Delete { deleted, before: before.iter().map(|kv| row_of(&kv)).collect() }
        }
        TxnResult::Range { kvs, more, count } => {
            Got::Range { rows: kvs.iter().map(|kv| row_of(&kv)).collect(), more, count }
        }
        TxnResult::Txn { succeeded, results } => Got::Txn(done_of(succeeded, results)),
    };
    Done { succeeded, results: results.iter().map(got).collect() }
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
