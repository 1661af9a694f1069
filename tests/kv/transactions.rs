//! The rules of etcd's puts, deletes, ranges and transactions that are easy to get wrong, one by
//! one; and what answers are kept for copies.

use raftd::kv::command::{CommandError, EntryHeader, encode_call, encode_command, encode_header};
use raftd::kv::{
    self, Command, CommandReply, Compare, DeleteWith, Operand, Order, PutWith, RangeEnd,
    RangeError, RangeRequest, Refusal, Relation, Request, RevisionSpan, Selection, SessionCall,
    SortBy, Store, Txn, TxnParts, validate_command,
};
use raftd::limits::{
    KEPT_ANSWER_BYTES_MAX, KEPT_ANSWER_OVERHEAD_BYTES, KEPT_ANSWERS_BYTES_MAX,
    RANGE_REPLY_BYTES_MAX, TXN_DEPTH_MAX, TXN_OPS_MAX, TXN_OPS_TOTAL_MAX,
};
use raftd::types::{Revision, SessionId};

use super::support::{apply, at, compact, delete, everything, put, read, store_with};

fn do_command(store: &mut Store, command: Command<'_>) -> (CommandReply, Vec<u8>) {
    do_call(store, None, command)
}

pub(super) fn do_call(
    store: &mut Store,
    call: Option<SessionCall>,
    command: Command<'_>,
) -> (CommandReply, Vec<u8>) {
    let mut payload = Vec::new();
    encode_header(&mut payload, EntryHeader { stamp_ms: 1 });
    call.iter().for_each(|call| encode_call(&mut payload, *call));
    encode_command(&mut payload, command);
    let mut answered = None;
    let index = store.applied().next();
    let mut keep = |answer: kv::Answer<'_>| answered = Some((answer.outline, answer.body.to_vec()));
    store.apply(at(index), &payload, &mut keep).unwrap();
    answered.unwrap()
}

fn args(parts: TxnParts<'_>) -> Vec<u8> {
    let mut args = Vec::new();
    parts.encode(&mut args);
    args
}

fn do_txn(store: &mut Store, parts: TxnParts<'_>) -> (CommandReply, Vec<u8>) {
    do_command(store, Command::Txn(Txn::from_args(&args(parts)).unwrap()))
}

fn judge(parts: TxnParts<'_>) -> Result<(), CommandError> {
    Txn::from_args(&args(parts)).map(|_| ())
}

fn put_of<'a>(key: &'a [u8], value: &'a [u8]) -> PutWith<'a> {
    PutWith { key, value, ..PutWith::default() }
}

fn put_request(key: &str) -> Request<'_> {
    Request::Put(put_of(key.as_bytes(), b"v"))
}

fn delete_request<'a>(key: &'a str, end: &'a str) -> Request<'a> {
    let end = RangeEnd::from_bytes(end.as_bytes());
    Request::Delete(DeleteWith { key: key.as_bytes(), end, prev_kv: false })
}

fn get(key: &str) -> Request<'_> {
    Request::Range(RangeRequest { key: key.as_bytes(), end: RangeEnd::Key, ..everything(0) })
}

fn compare(key: &'static str, relation: Relation, operand: Operand<'static>) -> Compare<'static> {
    Compare { key: key.as_bytes(), end: RangeEnd::Key, relation, operand }
}

fn holds(store: &mut Store, compare: Compare<'_>) -> bool {
    let (reply, _) = do_txn(store, TxnParts { compares: &[compare], ..TxnParts::default() });
    matches!(reply, CommandReply::Txn { succeeded: true, .. })
}

/// The bytes of an answer that names keys: their values, in order.
fn values_in(body: &[u8]) -> Vec<u8> {
    body.iter().copied().filter(u8::is_ascii_lowercase).collect()
}

#[test]
fn all_changes_of_a_transaction_carry_one_revision_and_none_without_a_change() {
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "1"), put("b", "2")]);
    let then = [put_request("c"), delete_request("a", ""), put_request("d")];
    let (reply, _) = do_txn(&mut store, TxnParts { then: &then, ..TxnParts::default() });
    let revision = Revision(4);
    assert_eq!(reply, CommandReply::Txn { revision, succeeded: true });
    assert_eq!(store.get(b"c").unwrap().mod_revision, revision);
    assert_eq!(store.get(b"d").unwrap().create_revision, revision);
    assert_eq!(store.get(b"a"), None);
    let then = [delete_request("a", ""), get("b")];
    let (reply, _) = do_txn(&mut store, TxnParts { then: &then, ..TxnParts::default() });
    assert_eq!(reply, CommandReply::Txn { revision, succeeded: true });
    // The deletion is history like any other: it goes with the next compaction.
    apply(&mut store, &[put("x", ""), compact(5)]);
    // The change at the compaction revision itself can still be watched.
    assert_eq!(store.history_bytes(), 24);
}

#[test]
fn a_request_reads_what_those_before_it_changed_and_a_compare_does_not() {
    let mut store = store_with(1, 1 << 20);
    let compares = [compare("a", Relation::Equal, Operand::Create(Revision(0)))];
    let inner = args(TxnParts { compares: &compares, then: &[get("a")], otherwise: &[] });
    let inner = Request::Txn(Txn::from_args(&inner).unwrap());
    let then = [get("a"), put_request("a"), get("a"), inner];
    let (_, body) =
        do_txn(&mut store, TxnParts { compares: &compares, then: &then, otherwise: &[] });
    let kv = [0x96, 0xc4, 1, b'a', 0xc4, 1, b'v', 2, 2, 1, 0];
    let none = [0x92, 16, 0x93, 0xdd, 0, 0, 0, 0, 0xc2, 0];
    let one = [&[0x92, 16, 0x93, 0xdd, 0, 0, 0, 1], &kv[..], &[0xc2, 1]].concat();
    let done = [0x92, 7, 0x91, 0x90];
    let inner = [&[0x92, 9, 0x92, 0xc3, 0x91], &one[..]].concat();
    assert_eq!(body, [&[0x94], &none[..], &done, &one, &inner].concat());
}

#[test]
fn a_compare_of_a_missing_key_sees_zeros_and_no_value_at_all() {
    let mut store = store_with(1, 1 << 20);
    use Relation::{Equal, Greater, Less, NotEqual};
    let mut check = |relation, operand| holds(&mut store, compare("x", relation, operand));
    assert!(check(Equal, Operand::Version(0)) && check(Less, Operand::Version(1)));
    assert!(check(Equal, Operand::Create(Revision(0))));
    assert!(check(Equal, Operand::Mod(Revision(0))) && check(Equal, Operand::Lease(0)));
    assert!(check(NotEqual, Operand::Lease(1)) && !check(Greater, Operand::Lease(0)));
    for relation in [Equal, NotEqual, Greater, Less] {
        assert!(!check(relation, Operand::Value(b"")), "{relation:?}");
        assert!(!check(relation, Operand::Value(b"v")), "{relation:?}");
    }
}

#[test]
fn a_compare_of_a_range_holds_of_every_live_key_in_it() {
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "1"), put("b", "1"), put("c", "2"), delete("c", "")]);
    let mut all = |end, operand| {
        let end = RangeEnd::from_bytes(end);
        holds(&mut store, Compare { key: b"a", end, relation: Relation::Equal, operand })
    };
    assert!(all(b"d", Operand::Value(b"1")), "the dead do not count");
    assert!(!all(b"d", Operand::Create(Revision(2))), "b is of another revision");
    assert!(all(b"b", Operand::Create(Revision(2))));
    assert!(all(b"a", Operand::Mod(Revision(0))), "an empty range is a missing key");
}

#[test]
fn a_put_that_keeps_something_wants_the_key() {
    let mut store = store_with(1, 1 << 20);
    let keep = PutWith { key: b"a", ignore_value: true, ..PutWith::default() };
    let refused = |why| (CommandReply::Refused { why }, Vec::new());
    let missing = refused(Refusal::KeyNotFound);
    assert_eq!(do_command(&mut store, Command::PutWith(keep)), missing);
    let lease = PutWith { key: b"a", value: b"v", ignore_lease: true, ..PutWith::default() };
    assert_eq!(do_command(&mut store, Command::PutWith(lease)), missing);
    // Of two faults, a put by itself hears of the lease; in a transaction, of the key.
    let both = PutWith { lease: 7, ..keep };
    let no_lease = refused(Refusal::LeaseNotFound);
    assert_eq!(do_command(&mut store, Command::PutWith(both)), no_lease);
    let inside = args(TxnParts { then: &[Request::Put(both)], ..TxnParts::default() });
    let inside = Command::Txn(Txn::from_args(&inside).unwrap());
    assert_eq!(do_command(&mut store, inside), missing);
    // And it goes before a range that cannot be read, also if that comes first.
    let later = Request::Range(RangeRequest { revision: Revision(9), ..everything(0) });
    let behind = args(TxnParts { then: &[later, Request::Put(keep)], ..TxnParts::default() });
    let behind = Command::Txn(Txn::from_args(&behind).unwrap());
    assert_eq!(do_command(&mut store, behind), missing);
    apply(&mut store, &[put("a", "v")]);
    let (reply, body) = do_command(&mut store, Command::PutWith(PutWith { prev_kv: true, ..keep }));
    assert_eq!(reply, CommandReply::PutWith { revision: Revision(3) });
    assert_eq!(body, [0x91, 0x96, 0xc4, 1, b'a', 0xc4, 1, b'v', 2, 2, 1, 0]);
    let found = store.get(b"a").unwrap();
    assert_eq!((found.value, found.version, found.mod_revision), (&b"v"[..], 2, Revision(3)));
    let hangs = PutWith { lease: 7, ..put_of(b"a", b"w") };
    assert_eq!(do_command(&mut store, Command::PutWith(hangs)), refused(Refusal::LeaseNotFound));
    assert_eq!(store.revision(), Revision(3));
}

#[test]
fn a_put_that_keeps_something_brings_none_of_it() {
    let judge = |put| {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, Command::PutWith(put));
        validate_command(&bytes, 1000)
    };
    let put = put_of(b"a", b"v");
    assert_eq!(judge(PutWith { ignore_value: true, ..put }), Err(CommandError::ValueGiven));
    let leased = PutWith { lease: 1, ignore_lease: true, ..put };
    assert_eq!(judge(leased), Err(CommandError::LeaseGiven));
    assert_eq!(judge(PutWith { value: b"", ignore_value: true, ..put }), Ok(()));
}

#[test]
fn a_refused_transaction_leaves_no_trace() {
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "1"), put("a", "2"), put("a", "3"), compact(3)]);
    let before = store.state_hash();
    let at =
        |revision| Request::Range(RangeRequest { revision: Revision(revision), ..everything(0) });
    let keep = Request::Put(PutWith { key: b"x", ignore_lease: true, ..PutWith::default() });
    let compacted = RangeError::Compacted { compact_revision: Revision(3) };
    let future = RangeError::Future { revision: Revision(4) };
    for (bad, why) in [
        (at(2), Refusal::Range(compacted)),
        (at(5), Refusal::Range(future)),
        (keep, Refusal::KeyNotFound),
        (Request::Put(PutWith { lease: 1, ..put_of(b"x", b"") }), Refusal::LeaseNotFound),
    ] {
        let inner = args(TxnParts { then: &[bad], ..TxnParts::default() });
        let inner = Request::Txn(Txn::from_args(&inner).unwrap());
        let then = [put_request("b"), delete_request("a", ""), inner];
        let answer = do_txn(&mut store, TxnParts { then: &then, ..TxnParts::default() });
        assert_eq!(answer, (CommandReply::Refused { why }, Vec::new()));
        // What is in the branch that is not taken is not looked at.
        let (reply, _) = do_txn(&mut store, TxnParts { otherwise: &then, ..TxnParts::default() });
        let revision = Revision(4);
        assert_eq!(reply, CommandReply::Txn { revision, succeeded: true });
        assert_eq!(store.state_hash(), before);
    }
    let (reply, _) = do_txn(&mut store, TxnParts { then: &[at(3)], ..TxnParts::default() });
    assert!(matches!(reply, CommandReply::Txn { .. }), "the compaction revision can be read");
}

#[test]
fn a_branch_changes_no_key_twice() {
    let twice = Err(CommandError::DuplicateKey);
    let judge = |then: &[Request<'_>]| {
        let forth = judge(TxnParts { then, ..TxnParts::default() });
        let back: Vec<Request<'_>> = then.iter().rev().copied().collect();
        let other = judge(TxnParts { otherwise: &back, ..TxnParts::default() });
        assert_eq!(forth, other, "in either branch, and in either order");
        // Many requests are judged together, few one by one.
        let many: Vec<Request<'_>> = back.into_iter().chain(vec![get("a"); 8]).collect();
        let among_many = judge(TxnParts { then: &many, ..TxnParts::default() });
        assert_eq!(forth, among_many, "a read changes nothing");
        forth
    };
    let (a, b) = (put_request("a"), put_request("b"));
    assert_eq!(judge(&[a, b]), Ok(()));
    assert_eq!(judge(&[a, b, a]), twice);
    assert_eq!(judge(&[a, delete_request("a", "")]), twice);
    assert_eq!(judge(&[b, delete_request("a", "c")]), twice);
    assert_eq!(judge(&[b, delete_request("a", "\0")]), twice);
    assert_eq!(judge(&[b, delete_request("a", "b")]), Ok(()), "the end is outside");
    assert_eq!(judge(&[delete_request("a", "c"), delete_request("b", "d"), a]), twice);
    assert_eq!(judge(&[delete_request("a", "c"), delete_request("b", "d")]), Ok(()));
    let inner = |then: &[Request<'_>], otherwise: &[Request<'_>]| {
        args(TxnParts { then, otherwise, ..TxnParts::default() })
    };
    let either = inner(&[a], &[a]);
    let either = Request::Txn(Txn::from_args(&either).unwrap());
    assert_eq!(judge(&[either, b]), Ok(()), "only one of its branches is done");
    assert_eq!(judge(&[either, a]), twice);
    assert_eq!(judge(&[either, delete_request("a", "")]), twice);
    assert_eq!(judge(&[either, either]), twice);
    let gone = inner(&[], &[delete_request("a", "c")]);
    let gone = Request::Txn(Txn::from_args(&gone).unwrap());
    assert_eq!(judge(&[gone, gone]), Ok(()));
    assert_eq!(judge(&[gone, either]), twice);
    let then = [a];
    let both = TxnParts { then: &then, otherwise: &then, ..TxnParts::default() };
    assert_eq!(Txn::from_args(&args(both)).map(|_| ()), Ok(()));
}

#[test]
fn a_transaction_has_so_many_requests_and_one_inside_what_is_left() {
    let gets = vec![get("a"); TXN_OPS_MAX + 1];
    let many = Err(CommandError::TooManyOperations);
    let most = &gets[..TXN_OPS_MAX];
    assert_eq!(judge(TxnParts { then: most, otherwise: most, ..TxnParts::default() }), Ok(()));
    assert_eq!(judge(TxnParts { otherwise: &gets, ..TxnParts::default() }), many);
    let compares = vec![compare("a", Relation::Equal, Operand::Lease(0)); TXN_OPS_MAX + 1];
    assert_eq!(judge(TxnParts { compares: &compares, ..TxnParts::default() }), many);
    let inner = |count: usize| args(TxnParts { then: &gets[..count], ..TxnParts::default() });
    let with = |outer: usize, inner: &[u8]| {
        let mut then = vec![Request::Txn(Txn::from_args(inner).unwrap())];
        then.extend_from_slice(&gets[..outer - 1]);
        judge(TxnParts { then: &then, ..TxnParts::default() })
    };
    assert_eq!(with(100, &inner(TXN_OPS_MAX - 100)), Ok(()));
    assert_eq!(with(100, &inner(TXN_OPS_MAX - 99)), many);
    // So much for each; and so much for all of them.
    let inner = inner(TXN_OPS_TOTAL_MAX / 64 - 1);
    let inner = Request::Txn(Txn::from_args(&inner).unwrap());
    assert_eq!(judge(TxnParts { then: &[inner; 64], ..TxnParts::default() }), Ok(()));
    assert_eq!(judge(TxnParts { then: &[inner; 65], ..TxnParts::default() }), many);
}

#[test]
fn transactions_inside_each_other_have_an_end() {
    let mut bytes = args(TxnParts::default());
    for _ in 1..TXN_DEPTH_MAX {
        let inner = Request::Txn(Txn::from_args(&bytes).unwrap());
        bytes = args(TxnParts { then: &[inner], ..TxnParts::default() });
    }
    let inner = Request::Txn(Txn::from_args(&bytes).unwrap());
    let parts = TxnParts { then: &[inner], ..TxnParts::default() };
    assert_eq!(judge(parts), Err(CommandError::TooDeep));
}

#[test]
fn what_is_not_exactly_a_transaction_is_refused() {
    let judge = |bytes: &[u8]| Txn::from_args(bytes).map(|_| ());
    assert_eq!(judge(&[0x93, 0x90, 0x90, 0x90]), Ok(()));
    assert_eq!(judge(&[0xdc, 0, 3, 0x90, 0xdc, 0, 0, 0x90]), Ok(()), "a longer form");
    let trailing = Err(CommandError::Trailing { bytes: 1 });
    assert_eq!(judge(&[0x93, 0x90, 0x90, 0x90, 0x90]), trailing);
    let of = |of, expected, found| Err(CommandError::Arity { of, expected, found });
    assert_eq!(judge(&[0x92, 0x90, 0x90]), of("a transaction", 3, 2));
    assert_eq!(judge(&[0x93, 0x91, 0x94]), of("a compare", 5, 4));
    let key = [0xc4, 1, b'k', 0xc4, 0];
    let compare = |target, relation, rest: &[u8]| {
        judge(&[&[0x93, 0x91, 0x95, target, relation], &key[..], rest, &[0x90, 0x90]].concat())
    };
    assert_eq!(compare(0, 3, &[5]), Ok(()));
    let number = |of, found| Err(CommandError::Number { of, found });
    assert_eq!(compare(5, 0, &[5]), number("target of a compare", 5));
    assert_eq!(compare(0, 4, &[5]), number("relation", 4));
    assert!(compare(0, 0, &[0xc4, 0]).is_err() && compare(3, 0, &[5]).is_err());
    assert_eq!(judge(&[0x93, 0x91, 0x95, 0, 0, 0xc4, 0]), Err(CommandError::EmptyKey));
    let request = |op, rest: &[u8]| judge(&[&[0x93, 0x90, 0x91, 0x92, op], rest, &[0x90]].concat());
    assert_eq!(request(1, &[0x92]), Err(CommandError::Operation { op: 1 }));
    assert_eq!(request(7, &[0x96, 0xc4, 0]), Err(CommandError::EmptyKey));
    assert_eq!(request(16, &[0x9b]), of("a range", 12, 11));
    let range = |by, order| {
        let rest = [&[0x9c], &key[..], &[0, 0, 0xc2, 0xc2, by, order, 0, 0, 0, 0]].concat();
        request(16, &rest)
    };
    assert_eq!(range(4, 2), Ok(()));
    assert_eq!(range(5, 0), number("sort target", 5));
    assert_eq!(range(0, 3), number("sort order", 3));
}

#[test]
fn filters_leave_keys_out_before_the_limit_and_count_with_all_the_others() {
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "1"), put("b", "1"), put("c", "1"), put("a", "2"), put("d", "")]);
    let span = |min, max| RevisionSpan { min: Revision(min), max: Revision(max) };
    let keys = |limit, selection| {
        let request = RangeRequest { limit, selection, ..everything(0) };
        let (rows, summary) = read(&store, &request).unwrap();
        let keys: Vec<u8> = rows.iter().map(|row| row.0[0]).collect();
        (String::from_utf8(keys).unwrap(), summary.more, summary.count)
    };
    let mods = |min, max| Selection { mod_revision: span(min, max), ..Selection::ALL };
    assert_eq!(keys(0, mods(3, 0)), ("abcd".into(), false, 4));
    assert_eq!(keys(0, mods(4, 5)), ("ac".into(), false, 4));
    assert_eq!(keys(1, mods(4, 5)), ("a".into(), true, 4));
    assert_eq!(keys(2, mods(4, 5)), ("ac".into(), false, 4));
    let created = Selection { create_revision: span(0, 2), ..Selection::ALL };
    assert_eq!(keys(0, created), ("a".into(), false, 4));
    let sorted = |by, order| Selection { by, order, ..Selection::ALL };
    assert_eq!(keys(0, sorted(SortBy::Mod, Order::Unsorted)), ("bcad".into(), false, 4));
    assert_eq!(keys(2, sorted(SortBy::Mod, Order::Unsorted)), ("bc".into(), true, 4));
    assert_eq!(keys(3, sorted(SortBy::Mod, Order::Descend)), ("dac".into(), true, 4));
    assert_eq!(keys(0, sorted(SortBy::Key, Order::Descend)), ("dcba".into(), false, 4));
    assert_eq!(keys(0, sorted(SortBy::Version, Order::Descend)), ("abcd".into(), false, 4));
    let by_value = sorted(SortBy::Value, Order::Ascend);
    assert_eq!(keys(0, by_value), ("dbca".into(), false, 4));
    let request = RangeRequest { keys_only: true, selection: by_value, ..everything(0) };
    let (rows, _) = read(&store, &request).unwrap();
    assert_eq!((&rows[3].0[..], &rows[3].1[..]), (&b"a"[..], &b""[..]), "by the real values");
}

#[test]
fn what_was_there_before_is_not_cut_and_a_range_is() {
    let mut store = store_with(1, 1 << 30);
    let value = vec![b'v'; RANGE_REPLY_BYTES_MAX / 4];
    for key in ["a", "b", "c", "d"] {
        do_command(&mut store, Command::Put { key: key.as_bytes(), value: &value });
    }
    let all = DeleteWith { key: b"\0", end: RangeEnd::Unbounded, prev_kv: true };
    let too_large = (CommandReply::Refused { why: Refusal::AnswerTooLarge }, Vec::new());
    assert_eq!(do_command(&mut store, Command::DeleteRangeWith(all)), too_large);
    let then = [Request::Delete(all)];
    let parts = TxnParts { then: &then, ..TxnParts::default() };
    assert_eq!(do_txn(&mut store, parts), too_large);
    assert_eq!(store.keys(), 4);
    // Two of before leave room for one of the range.
    let first = Request::Delete(DeleteWith { end: RangeEnd::Before(b"c"), ..all });
    let (_, body) = do_txn(
        &mut store,
        TxnParts { then: &[Request::Range(everything(2)), first], ..TxnParts::default() },
    );
    assert!(body.len() < RANGE_REPLY_BYTES_MAX, "{}", body.len());
    let then = [Request::Range(everything(5)), get("d")];
    let (_, body) = do_txn(&mut store, TxnParts { then: &then, ..TxnParts::default() });
    assert!(body.len() < RANGE_REPLY_BYTES_MAX && body.len() > 3 * value.len());
    assert_eq!(body[body.len() - 2..], [0xc3, 1], "d is there and had no room");
}

/// The second of two deletes of the same keys had them counted as well, though it finds none: what
/// would have fitted was refused.
#[test]
fn a_key_that_is_deleted_twice_is_answered_and_counted_once() {
    let mut store = store_with(1, 1 << 30);
    let value = vec![b'v'; RANGE_REPLY_BYTES_MAX / 4];
    for key in ["a", "b", "c"] {
        do_command(&mut store, Command::Put { key: key.as_bytes(), value: &value });
    }
    let all = DeleteWith { key: b"\0", end: RangeEnd::Unbounded, prev_kv: true };
    let some = DeleteWith { key: b"a", end: RangeEnd::Before(b"c"), prev_kv: true };
    let then = [Request::Delete(some), Request::Delete(all)];
    let (reply, body) = do_txn(&mut store, TxnParts { then: &then, ..TxnParts::default() });
    let revision = store.revision();
    assert_eq!(reply, CommandReply::Txn { revision, succeeded: true });
    assert!(body.len() > 3 * value.len() && body.len() < RANGE_REPLY_BYTES_MAX);
    assert_eq!(store.keys(), 0);
}

/// Whichever requests they are of, and however deep they stand.
#[test]
fn what_was_there_before_counts_of_all_requests_together() {
    let mut store = store_with(1, 1 << 30);
    let value = vec![b'v'; RANGE_REPLY_BYTES_MAX / 2];
    for key in [b"a", b"b"] {
        do_command(&mut store, Command::Put { key, value: &value });
    }
    let hash = store.state_hash();
    let put_of = |key: &'static str, prev_kv| {
        Request::Put(PutWith { prev_kv, ..put_of(key.as_bytes(), b"w") })
    };
    let delete = |key: &'static str| {
        let key = key.as_bytes();
        Request::Delete(DeleteWith { key, end: RangeEnd::Key, prev_kv: true })
    };
    let inner = args(TxnParts { then: &[put_of("b", true)], ..TxnParts::default() });
    let inner = Request::Txn(Txn::from_args(&inner).unwrap());
    let too_large = CommandReply::Refused { why: Refusal::AnswerTooLarge };
    for then in [
        [put_of("a", true), put_of("b", true)],
        [put_of("a", true), delete("b")],
        [delete("a"), put_of("b", true)],
        [delete("a"), delete("b")],
        [put_of("a", true), inner],
    ] {
        let (reply, body) = do_txn(&mut store, TxnParts { then: &then, ..TxnParts::default() });
        assert_eq!((reply, body.len()), (too_large, 0), "{then:?}");
        assert_eq!(store.state_hash(), hash, "nothing was done");
    }
    let then = [put_of("a", true), put_of("b", false)];
    let (reply, body) = do_txn(&mut store, TxnParts { then: &then, ..TxnParts::default() });
    assert_eq!(reply, CommandReply::Txn { revision: Revision(4), succeeded: true });
    assert!(body.len() > value.len());
}

/// etcd's: of two ranges that cannot be read the first one says why.
#[test]
fn the_first_range_that_cannot_be_read_refuses_a_transaction() {
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "1"), put("a", "2"), put("a", "3"), compact(4)]);
    let of = |revision| Request::Range(RangeRequest { end: RangeEnd::Key, ..everything(revision) });
    let compacted = RangeError::Compacted { compact_revision: Revision(4) };
    let future = RangeError::Future { revision: Revision(4) };
    for (then, why) in [([of(2), of(9)], compacted), ([of(9), of(2)], future)] {
        let (reply, _) = do_txn(&mut store, TxnParts { then: &then, ..TxnParts::default() });
        assert_eq!(reply, CommandReply::Refused { why: Refusal::Range(why) });
    }
}

fn open(store: &mut Store) -> SessionId {
    match do_command(store, Command::OpenSession) {
        (CommandReply::OpenSession { session }, _) => session,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_copy_of_a_call_gets_its_answer_or_hears_that_it_is_not_kept() {
    let mut store = store_with(1, 1 << 20);
    let session = open(&mut store);
    let call = |sequence| Some(SessionCall { session, sequence, acknowledged: 0 });
    let value = |bytes: usize| vec![b'v'; bytes];
    fn before(value: &[u8]) -> Command<'_> {
        Command::PutWith(PutWith { prev_kv: true, ..put_of(b"k", value) })
    }
    let small = value(KEPT_ANSWER_BYTES_MAX - 12);
    let first = do_call(&mut store, call(1), before(&small));
    assert_eq!(first, (CommandReply::PutWith { revision: Revision(2) }, vec![0x90]));
    let second = do_call(&mut store, call(2), before(&value(KEPT_ANSWER_BYTES_MAX - 11)));
    assert_eq!(second.1.len(), KEPT_ANSWER_BYTES_MAX, "the largest that is kept");
    let third = do_call(&mut store, call(3), before(b""));
    assert_eq!(third.1.len(), KEPT_ANSWER_BYTES_MAX + 1);
    let loaded = super::checkpoint::reloaded(&mut store);
    assert_eq!(loaded.state_hash(), store.state_hash());
    let hash = store.state_hash();
    assert_eq!(do_call(&mut store, call(1), before(&small)), first);
    assert_eq!(do_call(&mut store, call(2), before(b"")), second);
    let gone = CommandReply::AnswerNotKept { revision: Revision(4) };
    assert_eq!(do_call(&mut store, call(3), before(b"")), (gone, Vec::new()));
    assert_eq!(store.revision(), Revision(4));
    assert_ne!(store.state_hash(), hash, "the session was used");
    let refused = Command::PutWith(PutWith { lease: 1, ..put_of(b"k", b"") });
    let fourth = do_call(&mut store, call(4), refused);
    assert_eq!(do_call(&mut store, call(4), before(b"")), fourth, "a refusal is kept too");
}

#[test]
fn a_session_keeps_so_many_bytes_of_answers_and_gets_them_back() {
    let mut store = store_with(1, 1 << 20);
    let session = open(&mut store);
    let value = vec![b'v'; 1000];
    let change = || Command::PutWith(PutWith { prev_kv: true, ..put_of(b"k", &value) });
    do_command(&mut store, change());
    let kept = |store: &mut Store, sequence, acknowledged| {
        let call = SessionCall { session, sequence, acknowledged };
        let (_, body) = do_call(store, Some(call), change());
        do_call(store, Some(call), change())
            == (CommandReply::PutWith { revision: store.revision() }, body)
    };
    let each = KEPT_ANSWER_OVERHEAD_BYTES + 1016;
    let room = u64::try_from(KEPT_ANSWERS_BYTES_MAX / each).unwrap();
    for sequence in 1..=room {
        assert!(kept(&mut store, sequence, 0), "{sequence}");
    }
    assert!(!kept(&mut store, room + 1, 0));
    assert!(kept(&mut store, room + 2, 1), "the first is acknowledged, and its answer gone");
    assert!(!kept(&mut store, room + 3, 1));
    let loaded = super::checkpoint::reloaded(&mut store);
    assert_eq!(loaded.state_hash(), store.state_hash());
}

#[test]
fn a_read_only_transaction_is_told_from_the_others() {
    let read_only = |then: &[Request<'_>]| {
        let inner = args(TxnParts { otherwise: then, ..TxnParts::default() });
        let inner = Request::Txn(Txn::from_args(&inner).unwrap());
        Txn::from_args(&args(TxnParts { then: &[inner], ..TxnParts::default() }))
            .unwrap()
            .is_read_only()
    };
    assert!(read_only(&[get("a")]) && read_only(&[]));
    assert!(!read_only(&[put_request("a")]) && !read_only(&[delete_request("a", "")]));
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "v")]);
    let bytes = args(TxnParts { then: &[get("a")], ..TxnParts::default() });
    let mut body = Vec::new();
    assert_eq!(store.read_txn(Txn::from_args(&bytes).unwrap(), &mut 0, &mut body), Ok(true));
    assert_eq!(values_in(&body), b"av");
}
