//! What counts against a quota, and which commands would add to it.

use super::support::{Owned, apply, compact, delete, put, put_if, store_with};
use super::transactions::do_call;
use raftd::kv::command::{encode_call, encode_command};
use raftd::kv::{
    Command, Compare, DeleteWith, Operand, PutWith, RangeEnd, Relation, Request, SessionCall,
    Store, Txn, TxnParts,
};

fn grows_by(store: &Store, command: Command<'_>) -> bool {
    let mut bytes = Vec::new();
    encode_command(&mut bytes, command);
    store.grows_by(&bytes)
}

fn args(parts: &TxnParts<'_>) -> Vec<u8> {
    let mut args = Vec::new();
    parts.encode(&mut args);
    args
}

fn txn_grows(store: &Store, parts: &TxnParts<'_>) -> bool {
    grows_by(store, Command::Txn(Txn::from_args(&args(parts)).unwrap()))
}

fn filled() -> Store {
    let mut store = store_with(1, u64::MAX);
    apply(&mut store, &[put("key", "four"), put("other", "")]);
    store
}

#[test]
fn what_counts_is_what_lives() {
    let mut store = store_with(1, u64::MAX);
    assert_eq!(store.logical_bytes(), 0);
    apply(&mut store, &[put("key", "four")]);
    assert_eq!(store.logical_bytes(), 256 + 3 + 4);
    apply(&mut store, &[put("key", "longer"), put("other", "")]);
    assert_eq!(store.logical_bytes(), 2 * 256 + 3 + 6 + 5);
    apply(&mut store, &[delete("key", "")]);
    assert_eq!(store.logical_bytes(), 256 + 5, "its history has a bound of its own");
}

/// Too small a figure, and history outgrows the memory that it was given.
#[test]
fn history_counts_what_a_change_lets_go_with_values_and_names() {
    let mut store = store_with(1, u64::MAX);
    let changes = |count: u64| 24 * count;
    apply(&mut store, &[put("key", "four")]);
    assert_eq!(store.history_bytes(), changes(1), "it lives");
    apply(&mut store, &[put("key", "longer")]);
    assert_eq!(store.history_bytes(), changes(2) + 112 + 4);
    apply(&mut store, &[delete("key", "")]);
    let tombstone = 256 + 2 * 3; // its name lies in two places
    assert_eq!(store.history_bytes(), changes(3) + 2 * 112 + 4 + 6 + tombstone);
}

#[test]
fn a_put_grows_what_has_no_such_value() {
    let store = filled();
    let grows = |owned: Owned| grows_by(&store, owned.as_command());
    assert!(grows(put("new", "")), "another key");
    assert!(grows(put("key", "fives")));
    assert!(!grows(put("key", "4444")));
    assert!(!grows(put("other", "")));
    assert!(grows(put_if("key", "fives", 2)), "though its condition may not hold");
    assert!(!grows(put_if("key", "4444", 2)));
    assert!(!grows(delete("key", "")));
    assert!(!grows(compact(2)));
    let with = PutWith { key: b"key", value: b"fives", ..PutWith::default() };
    assert!(grows_by(&store, Command::PutWith(with)));
    let keep = PutWith { value: b"", ignore_value: true, ..with };
    assert!(!grows_by(&store, Command::PutWith(keep)));
    assert!(!grows_by(&store, Command::OpenSession));
    let delete = DeleteWith { key: b"key", end: RangeEnd::Key, prev_kv: true };
    assert!(!grows_by(&store, Command::DeleteRangeWith(delete)));
    assert!(!grows_by(&store, Command::LeaseGrant { lease: 0, ttl_s: 60 }));
    assert!(!grows_by(&store, Command::LeaseRevoke { lease: 1 }));
}

#[test]
fn a_transaction_grows_if_one_of_its_branches_does() {
    let store = filled();
    let long = Request::Put(PutWith { key: b"key", value: b"fives", ..PutWith::default() });
    let short = Request::Put(PutWith { key: b"key", value: b"4444", ..PutWith::default() });
    let compares = [Compare {
        key: b"key",
        end: RangeEnd::Key,
        relation: Relation::Equal,
        operand: Operand::Version(1),
    }];
    let grows = |then: &[Request<'_>], otherwise: &[Request<'_>]| {
        txn_grows(&store, &TxnParts { compares: &compares, then, otherwise })
    };
    assert!(!grows(&[short], &[]));
    assert!(grows(&[long], &[short]));
    assert!(grows(&[short], &[long]), "which one is taken is not known yet");
    let nested = args(&TxnParts { compares: &[], then: &[long], otherwise: &[] });
    let nested = Txn::from_args(&nested).unwrap();
    assert!(grows(&[Request::Txn(nested)], &[]));
}

/// Who does not hear that its put was done asks again; a store that became full by it says so, and
/// not that it is full.
#[test]
fn the_copy_of_a_call_that_was_done_adds_nothing() {
    let mut store = store_with(1, u64::MAX);
    do_call(&mut store, None, Command::OpenSession);
    let session = store.sessions().next().expect("it was opened").0.id;
    let call = |sequence| SessionCall { session, sequence, acknowledged: 0 };
    let four = put("key", "four");
    let grows = |store: &Store, sequence| {
        let mut bytes = Vec::new();
        encode_call(&mut bytes, call(sequence));
        encode_command(&mut bytes, four.as_command());
        store.grows_by(&bytes)
    };
    assert!(grows(&store, 1));
    do_call(&mut store, Some(call(1)), four.as_command());
    do_call(&mut store, None, delete("key", "").as_command());
    assert!(!grows(&store, 1), "it was done");
    assert!(grows(&store, 2));
    let acknowledges = SessionCall { session, sequence: 3, acknowledged: 2 };
    do_call(&mut store, Some(acknowledges), put("other", "").as_command());
    assert!(!grows(&store, 1) && !grows(&store, 2), "they were acknowledged");
    assert!(grows(&store, 4));
}

/// A call names what it acknowledges, and the session has not heard of it yet.
#[test]
fn a_call_beyond_the_window_of_what_is_acknowledged_so_far_is_judged() {
    let mut store = store_with(1, u64::MAX);
    do_call(&mut store, None, Command::OpenSession);
    let session = store.sessions().next().expect("it was opened").0.id;
    let mut bytes = Vec::new();
    encode_call(&mut bytes, SessionCall { session, sequence: 1000, acknowledged: 999 });
    encode_command(&mut bytes, put("key", "four").as_command());
    assert!(store.grows_by(&bytes));
}
