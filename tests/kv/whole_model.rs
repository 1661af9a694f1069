//! The store against the reference, over requests of all kinds with all options; and against a
//! second store that was seeded, grouped and tidied otherwise.
//!
//! `RAFTD_MODEL_REQUESTS=1000000 cargo test --profile sim --test raftd kv::whole_model` asks a
//! million; `RAFTD_MODEL_SEED` chooses which.

use raftd::kv::command::{EntryHeader, encode_command, encode_header};
use raftd::kv::{
    self, Command, CommandReply, DeleteWith, LeaseRow, Operand, Order, PutWith, RangeEnd,
    RangeRequest, Refusal, Relation, RevisionSpan, Selection, SortBy, Store, TxnParts,
};
use raftd::types::{Revision, Term};
use raftd::wire::client::Op;
use raftd::wire::reply::{self, ReplyBody, TxnOutcome};
use raftd::wire::results::{KeyValue, Results, TxnResult};
use std::ops::ControlFlow;

use super::reference::{
    Compare, Delete, Put, Range, Reference, Request, Result, Row, STAMP_MS, Target, Txn,
    changes_twice,
};
use super::support::{self, Random};

/// Few keys, so that requests meet.
const KEYS: u64 = 40;

fn command_of(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    match request {
        Request::Put(put) => encode_command(&mut bytes, Command::PutWith(put_of(put))),
        Request::Delete(delete) => {
            encode_command(&mut bytes, Command::DeleteRangeWith(delete_of(delete)));
        }
        Request::Txn(txn) => {
            let args = args_of(txn);
            let txn = kv::Txn::from_args(&args).unwrap();
            encode_command(&mut bytes, Command::Txn(txn));
        }
        Request::Grant { lease, ttl_s } => {
            let (lease, ttl_s) = (*lease, *ttl_s);
            encode_command(&mut bytes, Command::LeaseGrant { lease, ttl_s });
        }
        Request::Revoke { lease } => {
            encode_command(&mut bytes, Command::LeaseRevoke { lease: *lease });
        }
        Request::Say { lease, grant, due_ms, void } => {
            let (term, lease, grant) = (Term::new(1 + u64::from(*void)), *lease, *grant);
            let said = match *due_ms {
                None => Command::LeaseExpire { term, lease, grant },
                Some(due_ms) => Command::LeaseCheckpoint { term, lease, grant, due_ms },
            };
            encode_command(&mut bytes, said);
        }
        Request::Range(_) => unreachable!("a range is no command"),
    }
    bytes
}

fn put_of(put: &Put) -> PutWith<'_> {
    let Put { key, value, lease, prev_kv, ignore_value, ignore_lease } = put;
    let (lease, prev_kv) = (*lease, *prev_kv);
    let (ignore_value, ignore_lease) = (*ignore_value, *ignore_lease);
    PutWith { key, value, lease, prev_kv, ignore_value, ignore_lease }
}

fn delete_of(delete: &Delete) -> DeleteWith<'_> {
    let end = RangeEnd::from_bytes(&delete.end);
    DeleteWith { key: &delete.key, end, prev_kv: delete.prev_kv }
}

fn range_of(range: &Range) -> RangeRequest<'_> {
    let span = |(min, max)| RevisionSpan { min: Revision(min), max: Revision(max) };
    RangeRequest {
        key: &range.key,
        end: RangeEnd::from_bytes(&range.end),
        limit: range.limit,
        revision: Revision(range.revision),
        keys_only: range.keys_only,
        count_only: range.count_only,
        selection: Selection {
            by: range.by,
            order: range.order,
            mod_revision: span(range.mods),
            create_revision: span(range.creates),
        },
    }
}

fn args_of(txn: &Txn) -> Vec<u8> {
    let compares: Vec<kv::Compare<'_>> = txn.compares.iter().map(compare_of).collect();
    let inner = |branch: &[Request]| -> Vec<Vec<u8>> {
        let args = |request: &Request| match request {
            Request::Txn(txn) => args_of(txn),
            Request::Put(_)
            | Request::Delete(_)
            | Request::Range(_)
            | Request::Grant { .. }
            | Request::Revoke { .. }
            | Request::Say { .. } => Vec::new(),
        };
        branch.iter().map(args).collect()
    };
    let (inner_then, inner_else) = (inner(&txn.then), inner(&txn.otherwise));
    let branch = |requests: &'_ [Request], inner: &[Vec<u8>]| -> Option<Vec<u8>> {
        let mut owned = Vec::new();
        for (request, args) in requests.iter().zip(inner) {
            owned.push(match request {
                Request::Put(put) => kv::Request::Put(put_of(put)),
                Request::Delete(delete) => kv::Request::Delete(delete_of(delete)),
                Request::Range(range) => kv::Request::Range(range_of(range)),
                Request::Txn(_) => kv::Request::Txn(kv::Txn::from_args(args).ok()?),
                Request::Grant { .. } | Request::Revoke { .. } | Request::Say { .. } => {
                    unreachable!("no transaction has these")
                }
            });
        }
        // The branch alone, behind a header and no compares.
        let mut bytes = Vec::new();
        TxnParts { compares: &[], then: &owned, otherwise: &[] }.encode(&mut bytes);
        Some(bytes[2..bytes.len() - 1].to_vec())
    };
    let mut bytes = Vec::new();
    TxnParts { compares: &compares, then: &[], otherwise: &[] }.encode(&mut bytes);
    bytes.truncate(bytes.len() - 2);
    for part in [branch(&txn.then, &inner_then), branch(&txn.otherwise, &inner_else)] {
        // What is unsound inside is unsound as a whole.
        bytes.extend(part.unwrap_or_default());
    }
    bytes
}

fn compare_of(compare: &Compare) -> kv::Compare<'_> {
    let operand = match &compare.target {
        Target::Version(version) => Operand::Version(*version),
        Target::Create(revision) => Operand::Create(Revision(*revision)),
        Target::Mod(revision) => Operand::Mod(Revision(*revision)),
        Target::Value(value) => Operand::Value(value),
        Target::Lease(lease) => Operand::Lease(*lease),
    };
    let (end, relation) = (RangeEnd::from_bytes(&compare.end), compare.relation);
    kv::Compare { key: &compare.key, end, relation, operand }
}

fn row_of(kv: KeyValue<'_>) -> Row {
    Row {
        key: kv.key.to_vec(),
        value: kv.value.to_vec(),
        create: kv.create_revision.0,
        modified: kv.mod_revision.0,
        version: kv.version,
        lease: kv.lease,
    }
}

fn results_of(results: &Results<'_>) -> Vec<Result> {
    let result = |one| match one {
        TxnResult::Put { before } => Result::Put { before: before.map(row_of) },
        TxnResult::Delete { deleted, before } => {
            Result::Delete { deleted, before: before.iter().map(row_of).collect() }
        }
        TxnResult::Range { kvs, more, count } => {
            Result::Range { rows: kvs.iter().map(row_of).collect(), more, count }
        }
        TxnResult::Txn { succeeded, results } => {
            Result::Txn { succeeded, results: results_of(&results) }
        }
    };
    results.iter().map(result).collect()
}

/// What a command answered, through the bytes that a client gets: the revision, and the rest.
type Told = std::result::Result<(u64, Result), Refusal>;

fn told(outline: CommandReply, body: &[u8]) -> Told {
    let mut frame = Vec::new();
    if let CommandReply::Refused { why } = outline {
        return Err(why);
    } else if let CommandReply::LeaseGrant { revision, lease, ttl_s } = outline {
        return Ok((revision.0, Result::Granted { lease, ttl_s }));
    } else if let CommandReply::Void { .. } = outline {
        return Ok((0, Result::Void));
    } else if let CommandReply::LeaseRevoke { revision } = outline {
        return Ok((revision.0, Result::Revoked));
    } else if let CommandReply::LeaseExpire { revision, .. } = outline {
        return Ok((revision.0, Result::Ended));
    } else if let CommandReply::LeaseCheckpoint { revision, ttl_s, .. } = outline {
        return Ok((revision.0, Result::Noted { ttl_s }));
    } else if let CommandReply::PutWith { revision } = outline {
        reply::put_with_reply(&mut frame, 1, revision, body);
    } else if let CommandReply::DeleteRangeWith { revision, deleted } = outline {
        reply::delete_with_reply(&mut frame, 1, revision, deleted, body);
    } else if let CommandReply::Txn { revision, succeeded } = outline {
        let outcome = TxnOutcome { revision, succeeded, results: body };
        reply::txn_reply(&mut frame, 1, Op::Txn, &outcome);
    } else {
        panic!("{outline:?} answers none of these");
    }
    let body = reply::decode_reply(&frame[4..]).unwrap().body;
    Ok(if let ReplyBody::PutWith { revision, before } = body {
        (revision.0, Result::Put { before: before.map(row_of) })
    } else if let ReplyBody::DeleteRangeWith { revision, deleted, before } = body {
        (revision.0, Result::Delete { deleted, before: before.iter().map(row_of).collect() })
    } else if let ReplyBody::Txn { revision, succeeded, results, .. } = body {
        (revision.0, Result::Txn { succeeded, results: results_of(&results) })
    } else {
        panic!("{body:?} is another reply")
    })
}

/// Applies an entry; what its commands answered.
fn apply(store: &mut Store, commands: &[Vec<u8>]) -> Vec<(CommandReply, Vec<u8>)> {
    let mut payload = Vec::new();
    encode_header(&mut payload, EntryHeader { stamp_ms: STAMP_MS });
    commands.iter().for_each(|command| payload.extend_from_slice(command));
    let mut answers = Vec::new();
    let index = store.applied().next();
    let mut keep = |answer: kv::Answer<'_>| answers.push((answer.outline, answer.body.to_vec()));
    store.apply(support::at(index), &payload, &mut keep).unwrap();
    answers
}

struct Play {
    random: Random,
    reference: Reference,
    /// How often each thing happened that a run must have seen.
    seen: [u64; 11],
}

const REFUSED: usize = 0;
const TWICE: usize = 1;
const HELD: usize = 2;
const NESTED: usize = 3;
const CUT: usize = 4;
const FILTERED: usize = 5;
const KEPT: usize = 6;
const COMPACTED: usize = 7;
const ENDED: usize = 8;
const DETACHED: usize = 9;
const VOID: usize = 10;

/// Few leases, so that keys meet on them.
const LEASES: u64 = 8;

impl Play {
    fn some_key(&mut self) -> Vec<u8> {
        support::some_key(&mut self.random, KEYS)
    }

    fn some_end(&mut self, key: &[u8]) -> Vec<u8> {
        if self.random.one_in(2) { vec![] } else { support::some_end(&mut self.random, key, KEYS) }
    }

    fn some_value(&mut self) -> Vec<u8> {
        match self.random.below(12) {
            0 => vec![b'v'; self.random.size_below(300)],
            length => vec![
                b'a' + u8::try_from(self.random.below(3)).unwrap();
                usize::try_from(length % 4).unwrap()
            ],
        }
    }

    fn some_put(&mut self) -> Put {
        let ignore_value = self.random.one_in(5);
        let ignore_lease = self.random.one_in(5);
        let value = self.some_value();
        Put {
            key: self.some_key(),
            value: if ignore_value { vec![] } else { value },
            lease: if ignore_lease || self.random.one_in(2) { 0 } else { self.some_lease() },
            prev_kv: self.random.one_in(2),
            ignore_value,
            ignore_lease,
        }
    }

    /// One that exists, as a rule.
    fn some_lease(&mut self) -> u64 {
        let count = self.reference.leases.len();
        if count == 0 || self.random.one_in(30) {
            return 1 + self.random.below(2 * LEASES);
        }
        let place = self.random.size_below(count);
        *self.reference.leases.keys().nth(place).unwrap()
    }

    fn some_lease_request(&mut self) -> Request {
        let few = self.reference.leases.len() < usize::try_from(LEASES).unwrap();
        if few || self.random.one_in(4) {
            let lease = if self.random.one_in(2) { 0 } else { 1 + self.random.below(1 << 20) };
            let lease = if self.random.one_in(8) { self.some_lease() } else { lease };
            return Request::Grant { lease, ttl_s: self.random.below(100) };
        }
        let lease = self.some_lease();
        if self.random.one_in(3) {
            return Request::Revoke { lease };
        }
        let grant = self.reference.leases.get(&lease).map_or(1, |found| found.grant);
        let grant = grant + u64::from(self.random.one_in(6));
        let due_ms = if self.random.one_in(2) { None } else { Some(self.random.below(9)) };
        Request::Say { lease, grant, due_ms, void: self.random.one_in(5) }
    }

    fn some_delete(&mut self) -> Delete {
        let key = self.some_key();
        let end = if self.random.one_in(3) { self.some_end(&key) } else { vec![] };
        // Everything at once is rare, or there would never be anything.
        let end = if end == [0] && !self.random.one_in(10) { vec![] } else { end };
        Delete { key, end, prev_kv: self.random.one_in(2) }
    }

    fn some_revision(&mut self) -> u64 {
        let Reference { revision, compacted, .. } = self.reference;
        match self.random.below(12) {
            0 => compacted.saturating_sub(1 + self.random.below(3)),
            1 => revision + self.random.below(3),
            2..=5 => compacted + self.random.below(revision - compacted + 1),
            _ => 0,
        }
    }

    fn some_span(&mut self) -> (u64, u64) {
        if !self.random.one_in(3) {
            return (0, 0);
        }
        let newest = self.reference.revision + 2;
        let near = newest.saturating_sub(self.random.below(60));
        match self.random.below(3) {
            0 => (near, 0),
            1 => (0, near),
            _ => (near, near + self.random.below(40)),
        }
    }

    fn some_range(&mut self) -> Range {
        let key = self.some_key();
        let wide = self.random.one_in(3);
        let (key, end) = if wide { (vec![0], vec![0]) } else { (key.clone(), self.some_end(&key)) };
        Range {
            key,
            end,
            limit: if self.random.one_in(2) { self.random.below(8) } else { 0 },
            revision: self.some_revision(),
            keys_only: self.random.one_in(4),
            count_only: self.random.one_in(8),
            by: SortBy::from_code(self.random.below(5)).unwrap(),
            order: Order::from_code(self.random.below(3)).unwrap(),
            mods: self.some_span(),
            creates: self.some_span(),
        }
    }

    fn some_compare(&mut self) -> Compare {
        let key = self.some_key();
        let end = if self.random.one_in(3) { self.some_end(&key) } else { vec![] };
        let row = self.reference.row(&key);
        let near = |random: &mut Random, number: u64| (number + random.below(3)).saturating_sub(1);
        let target = match (self.random.below(6), &row) {
            (0, row) => {
                let version = row.as_ref().map_or(0, |row| row.version);
                Target::Version(near(&mut self.random, version))
            }
            (1, row) => {
                let create = row.as_ref().map_or(0, |row| row.create);
                Target::Create(near(&mut self.random, create))
            }
            (2, row) => {
                let modified = row.as_ref().map_or(0, |row| row.modified);
                Target::Mod(near(&mut self.random, modified))
            }
            (3, row) => {
                let lease = row.as_ref().map_or(0, |row| row.lease);
                Target::Lease(near(&mut self.random, lease))
            }
            (4, Some(row)) => Target::Value(row.value.clone()),
            _ => Target::Value(self.some_value()),
        };
        let relations = [Relation::Equal, Relation::Greater, Relation::Less, Relation::NotEqual];
        let relation = if self.random.one_in(3) { 0 } else { self.random.size_below(4) };
        Compare { key, end, relation: relations[relation], target }
    }

    fn some_txn(&mut self, depth: u64) -> Txn {
        let compares = (0..self.random.below(4)).map(|_| self.some_compare()).collect();
        let mut branch = || {
            let count = self.random.below(5);
            (0..count).map(|_| self.some_request(depth)).collect()
        };
        let (then, otherwise) = (branch(), branch());
        Txn { compares, then, otherwise }
    }

    fn some_request(&mut self, depth: u64) -> Request {
        match self.random.below(10) {
            0..=3 => Request::Put(self.some_put()),
            4 => Request::Delete(self.some_delete()),
            5 if depth < 3 => Request::Txn(self.some_txn(depth + 1)),
            _ => Request::Range(self.some_range()),
        }
    }

    /// A command, if it may enter the log, and what it is to answer.
    fn some_command(&mut self) -> Option<(Vec<u8>, Told)> {
        let request = match self.random.below(11) {
            0..=4 => Request::Put(self.some_put()),
            5 => Request::Delete(self.some_delete()),
            6 => self.some_lease_request(),
            _ => {
                let txn = self.some_txn(0);
                let judged = kv::Txn::from_args(&args_of(&txn)).map(|_| ());
                if changes_twice(&txn) {
                    assert!(judged.is_err(), "{txn:?}");
                    self.seen[TWICE] += 1;
                    return None;
                }
                assert_eq!(judged, Ok(()), "{txn:?}");
                Request::Txn(txn)
            }
        };
        let before = self.reference.revision;
        let hung = if let Request::Put(put) = &request {
            self.reference.row(&put.key).map_or(0, |row| row.lease)
        } else {
            0
        };
        let expected = self.reference.apply(&request);
        self.seen[REFUSED] += u64::from(expected.is_err());
        if let Ok(Result::Txn { succeeded, results }) = &expected {
            self.seen[HELD] += u64::from(*succeeded);
            let inner = results.iter().filter(|one| matches!(one, Result::Txn { .. }));
            self.seen[NESTED] += u64::try_from(inner.count()).unwrap();
        }
        if let Request::Put(put) = &request {
            self.seen[KEPT] += u64::from(put.ignore_value && expected.is_ok());
            let other = hung != put.lease && !put.ignore_lease;
            self.seen[DETACHED] += u64::from(hung != 0 && other && expected.is_ok());
        }
        let ended = matches!(expected, Ok(Result::Revoked | Result::Ended));
        self.seen[ENDED] += u64::from(ended && self.reference.revision > before);
        self.seen[VOID] += u64::from(expected == Ok(Result::Void));
        let revision = self.reference.revision;
        // What is void says no revision.
        let revision = if expected == Ok(Result::Void) { 0 } else { revision };
        Some((command_of(&request), expected.map(|result| (revision, result))))
    }

    fn check_range(&mut self, store: &Store) {
        let range = self.some_range();
        let mut rows = Vec::new();
        let found = store.range(&range_of(&range), &mut |kv| {
            let kv::KeyValueRef { key, value, create_revision, mod_revision, version, lease } = kv;
            rows.push(row_of(KeyValue {
                key,
                value,
                create_revision,
                mod_revision,
                version,
                lease,
            }));
            ControlFlow::Continue(())
        });
        let found = found.map(|summary| {
            assert_eq!(summary.revision.0, self.reference.revision);
            Result::Range { rows, more: summary.more, count: summary.count }
        });
        if let Ok(Result::Range { rows, more, count }) = &found {
            self.seen[CUT] += u64::from(*more);
            let filtered = !more && u64::try_from(rows.len()).unwrap() < *count;
            self.seen[FILTERED] += u64::from(filtered && !range.count_only);
        }
        assert_eq!(found, self.reference.range(&range), "{range:?}");
    }

    fn check_read_txn(&mut self, store: &Store) {
        let txn = self.some_txn(2);
        let args = args_of(&txn);
        let Ok(judged) = kv::Txn::from_args(&args) else { return };
        if !judged.is_read_only() {
            return;
        }
        let mut body = Vec::new();
        let revision = store.revision();
        let found = store.read_txn(judged, &mut 0, &mut body);
        let outline = match found {
            Ok(succeeded) => CommandReply::Txn { revision, succeeded },
            Err(why) => CommandReply::Refused { why },
        };
        let expected = self.reference.apply(&Request::Txn(txn));
        assert_eq!(told(outline, &body), expected.map(|result| (revision.0, result)));
    }

    fn check_leases(&self, store: &Store) {
        let expected = self.reference.leases.iter();
        let expected: Vec<LeaseRow> = expected
            .map(|(id, lease)| LeaseRow {
                id: *id,
                grant: lease.grant,
                ttl_s: lease.ttl_s,
                due_ms: lease.due_ms,
            })
            .collect();
        assert_eq!(store.leases(0).collect::<Vec<_>>(), expected);
        assert_eq!(store.lease_grants(), self.reference.grants);
        for row in expected {
            let keys = store.lease_keys(row.id, 0);
            let mut keys: Vec<Vec<u8>> = keys.map(|(_, name)| name.to_vec()).collect();
            keys.sort();
            assert_eq!(keys, self.reference.keys_of(row.id), "on {row:?}");
        }
    }

    fn compact(&mut self, store: &mut Store, twin: &mut Store) {
        let Reference { revision, compacted, .. } = self.reference;
        let to = (compacted + self.random.below(revision - compacted + 4)).saturating_sub(1);
        let to =
            if self.random.one_in(4) { to } else { revision.saturating_sub(self.random.below(60)) };
        let refused = self.reference.compact(to);
        self.seen[COMPACTED] += u64::from(refused.is_none());
        let mut bytes = Vec::new();
        encode_command(&mut bytes, Command::Compact { revision: Revision(to) });
        let revision = Revision(revision);
        let expected = vec![(CommandReply::Compact { revision, refused }, Vec::new())];
        assert_eq!(apply(store, std::slice::from_ref(&bytes)), expected, "to {to}");
        assert_eq!(apply(twin, &[bytes]), expected);
    }
}

fn number_from(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

#[test]
fn every_answer_is_the_references_whatever_is_asked() {
    let requests_max = number_from("RAFTD_MODEL_REQUESTS", 50_000);
    let seed = number_from("RAFTD_MODEL_SEED", 1);
    println!("seed {seed}");
    let mut play =
        Play { random: Random(seed), reference: Reference::new(), seen: Default::default() };
    let mut store = support::store_with(seed, u64::MAX);
    let mut twin = support::store_with(seed + 1, u64::MAX);
    let mut requests = 0;
    while requests < requests_max {
        let asked: Vec<_> =
            (0..play.random.below(30)).filter_map(|_| play.some_command()).collect();
        let commands: Vec<Vec<u8>> = asked.iter().map(|(bytes, _)| bytes.clone()).collect();
        let answers = apply(&mut store, &commands);
        for (at, ((outline, body), (_, expected))) in answers.iter().zip(&asked).enumerate() {
            assert_eq!(&told(*outline, body), expected, "command {at} after {requests} requests");
        }
        // The twin is at the same entries, for the index is in its checkpoint's name only.
        assert_eq!(apply(&mut twin, &commands), answers);
        for _ in 0..4 {
            play.check_range(&store);
            play.check_read_txn(&store);
        }
        play.check_leases(&store);
        requests += u64::try_from(commands.len()).unwrap() + 8;
        if play.random.one_in(6) {
            play.compact(&mut store, &mut twin);
        }
        if play.random.one_in(3) {
            store.tidy(play.random.size_below(60));
        }
        assert_eq!(store.state_hash(), twin.state_hash());
        if play.random.one_in(20) {
            let left = super::checkpoint::checkpoint_at_once(&mut store);
            assert!(
                left == super::checkpoint::checkpoint_at_once(&mut twin),
                "two checkpoints differ"
            );
        }
    }
    let few = requests_max / 1000;
    assert!(play.seen.iter().all(|times| *times > few), "hardly seen: {:?}", play.seen);
}
