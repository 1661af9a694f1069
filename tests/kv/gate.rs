//! What each request needs the right to, and what becomes of one without.

use raftd::kv::command::{EntryHeader, encode_asker, encode_command, encode_header};
use raftd::kv::{
    Access, Asker, AuthChange, AuthRefusal, AuthVerb, Command, CommandReply, Compare, DeleteWith,
    Denial, Operand, PutWith, RangeEnd, RangeRequest, Refusal, Relation, Request, Selection,
    SessionCall, Store, Txn, TxnParts,
};
use raftd::types::Revision;

use super::auth::{ask, change, denied, done, grant, guarded, put};
use super::checkpoint::reloaded;
use super::support::at;

fn txn_of(parts: TxnParts<'_>) -> Vec<u8> {
    let mut args = Vec::new();
    parts.encode(&mut args);
    args
}

/// Alice reads [a, c) and writes [b, d).
#[test]
fn every_command_needs_the_rights_to_all_that_it_touches() {
    let (mut store, root, alice) = guarded();
    done(&mut store, root, Command::LeaseGrant { lease: 7, ttl_s: 60 });
    let on = |key: &'static str, lease| PutWith {
        key: key.as_bytes(),
        value: b"v",
        lease,
        ..PutWith::default()
    };
    done(&mut store, root, Command::PutWith(on("x", 7)));
    done(&mut store, root, Command::LeaseGrant { lease: 8, ttl_s: 60 });
    done(&mut store, root, Command::PutWith(on("c", 8)));
    let put_if = |key: &'static str| Command::PutIf {
        key: key.as_bytes(),
        value: b"v",
        mod_revision: Revision(0),
    };
    let prev = |key| Command::PutWith(PutWith { prev_kv: true, ..on(key, 0) });
    let delete = |key: &'static str, end: &'static str| Command::DeleteRange {
        key: key.as_bytes(),
        end: RangeEnd::from_bytes(end.as_bytes()),
    };
    let delete_with = |key: &'static str, end: &'static str, prev_kv| {
        let end = RangeEnd::from_bytes(end.as_bytes());
        Command::DeleteRangeWith(DeleteWith { key: key.as_bytes(), end, prev_kv })
    };
    for (allowed, command) in [
        (false, put("a")),
        (true, put("b")),
        (true, put("c")),
        (false, put("d")),
        (true, put_if("b")),
        (false, put_if("c")),
        (true, prev("b")),
        (false, prev("c")),
        (true, delete("b", "d")),
        (false, delete("b", "d\0")),
        (false, delete("a", "b")),
        (true, delete_with("b", "c", true)),
        (false, delete_with("b", "d", true)),
        (true, delete_with("b", "d", false)),
        (false, Command::PutWith(on("b", 7))),
        (true, Command::PutWith(on("b", 8))),
        (false, Command::LeaseRevoke { lease: 7 }),
        (true, Command::LeaseRevoke { lease: 8 }),
        (true, Command::LeaseGrant { lease: 0, ttl_s: 60 }),
        (true, Command::OpenSession),
    ] {
        let (judged, before) = (store.judge(alice, &command), store.state_hash());
        let answered = done(&mut store, alice, command);
        let refused = answered == denied(Denial::NotPermitted);
        assert_eq!((judged.is_ok(), !refused), (allowed, allowed), "{command:?}");
        assert!(!refused || store.state_hash() == before, "{command:?}");
        assert_eq!(store.judge(Asker::NOBODY, &command), Err(Denial::NoUser), "{command:?}");
        assert_eq!(store.judge(root, &command), Ok(()), "{command:?}");
    }
}

#[test]
fn a_transaction_needs_the_rights_of_both_branches_and_of_those_inside() {
    let (mut store, _, alice) = guarded();
    let range = |key: &'static str, end: &'static str| {
        Request::Range(RangeRequest {
            key: key.as_bytes(),
            end: RangeEnd::from_bytes(end.as_bytes()),
            limit: 0,
            revision: Revision(0),
            keys_only: false,
            count_only: false,
            selection: Selection::ALL,
        })
    };
    let compare = |key: &'static str| Compare {
        key: key.as_bytes(),
        end: RangeEnd::Key,
        relation: Relation::Equal,
        operand: Operand::Version(0),
    };
    let put = |key: &'static str| {
        Request::Put(PutWith { key: key.as_bytes(), value: b"v", ..PutWith::default() })
    };
    let delete = |key: &'static str, prev_kv| {
        Request::Delete(DeleteWith { key: key.as_bytes(), end: RangeEnd::Key, prev_kv })
    };
    let plain = |then: &[Request<'_>], otherwise: &[Request<'_>]| {
        txn_of(TxnParts { then, otherwise, ..TxnParts::default() })
    };
    let inside = |args: &[u8]| plain(&[Request::Txn(Txn::from_args(args).unwrap())], &[]);
    let only = |compare: Compare<'_>| {
        let compares = &[compare];
        txn_of(TxnParts { compares, then: &[put("b")], otherwise: &[] })
    };
    for (allowed, args) in [
        (true, plain(&[put("b"), range("a", "c")], &[put("c")])),
        (false, plain(&[put("a")], &[])),
        (false, plain(&[], &[put("a")])),
        (false, plain(&[], &[range("a", "d")])),
        (true, plain(&[delete("c", false)], &[])),
        (false, plain(&[delete("c", true)], &[])),
        (true, only(compare("a"))),
        (false, only(compare("c"))),
        (true, inside(&plain(&[put("b")], &[range("a", "")]))),
        (false, inside(&plain(&[put("b")], &[range("c", "")]))),
        (false, inside(&only(compare("d")))),
    ] {
        let txn = Txn::from_args(&args).unwrap();
        let answered = done(&mut store, alice, Command::Txn(txn));
        let refused = answered == denied(Denial::NotPermitted);
        assert_eq!(!refused, allowed, "{args:02x?}");
        if txn.is_read_only() {
            assert_eq!(store.judge_read_txn(alice, txn).is_ok(), allowed);
        }
    }
    assert_eq!(store.get(b"a"), None);
}

/// A right that goes between a request and its turn takes the request along, and one that comes is
/// enough: in one entry too.
#[test]
fn a_command_is_judged_by_the_rights_that_the_one_before_it_left() {
    let (mut store, root, alice) = guarded();
    let mut changes = Vec::new();
    for verb in [
        AuthVerb::UserRevokeRole { user: "alice", role: "r" },
        AuthVerb::UserGrantRole { user: "alice", role: "r" },
        AuthVerb::Disable,
    ] {
        let mut args = Vec::new();
        verb.encode(&mut args);
        changes.push(args);
    }
    let change = |at: usize| Command::Auth(AuthChange::from_args(&changes[at]).unwrap());
    let mut payload = Vec::new();
    encode_header(&mut payload, EntryHeader { stamp_ms: 1 });
    for (asker, command) in [
        (alice, put("b")),
        (root, change(0)),
        (alice, put("b")),
        (root, change(1)),
        (alice, put("b")),
        (Asker::NOBODY, put("a")),
        (root, change(2)),
        (Asker::NOBODY, put("a")),
    ] {
        encode_asker(&mut payload, asker);
        encode_command(&mut payload, command);
    }
    let mut allowed = Vec::new();
    let mut note = |answer: raftd::kv::Answer<'_>| {
        let refused = matches!(answer.outline, CommandReply::Refused { .. });
        allowed.push(!refused);
    };
    store.apply(at(store.applied().next()), &payload, &mut note).unwrap();
    assert_eq!(allowed, [true, true, false, true, true, false, true, true]);
}

/// Sessions have small numbers: whoever guesses one could hear what its owner was answered, and use
/// up the numbers of its calls, so that these are thought to be done.
#[test]
fn a_session_is_its_owners_alone() {
    let (mut store, root, alice) = guarded();
    let open = |store: &mut Store, asker| {
        let reply = done(store, asker, Command::OpenSession);
        let CommandReply::OpenSession { session } = reply else { panic!("{reply:?}") };
        session
    };
    let session = open(&mut store, root);
    let call = Some(SessionCall { session, sequence: 1, acknowledged: 0 });
    let put_b = PutWith { key: b"b", value: b"secret", ..PutWith::default() };
    ask(&mut store, root, call, Command::PutWith(put_b));
    let read = PutWith { prev_kv: true, ..put_b };
    let second = call.map(|call| SessionCall { sequence: 2, ..call });
    ask(&mut store, root, second, Command::PutWith(read));
    let before = store.state_hash();
    for call in [call, second, call.map(|call| SessionCall { sequence: 3, ..call })] {
        let (reply, body) = ask(&mut store, alice, call, Command::PutWith(read));
        assert_eq!((reply, body), (CommandReply::SessionExpired, Vec::new()));
    }
    assert_eq!(store.state_hash(), before, "its owner's calls are as they were");
    // A gateway makes calls for all of its users in sessions of its own.
    let own = open(&mut store, Asker { login: root.login, acting: alice.login });
    let call = Some(SessionCall { session: own, sequence: 1, acknowledged: 0 });
    let gateway = Asker { login: root.login, acting: alice.login };
    assert!(matches!(ask(&mut store, gateway, call, put("b")).0, CommandReply::Put { .. }));
    assert_eq!(ask(&mut store, alice, call, put("b")).0, CommandReply::SessionExpired);
    // Nobody's session is nobody's while rights count.
    change(&mut store, root, &AuthVerb::Disable).unwrap();
    let free = open(&mut store, Asker::NOBODY);
    let call = Some(SessionCall { session: free, sequence: 1, acknowledged: 0 });
    assert!(matches!(ask(&mut store, alice, call, put("b")).0, CommandReply::Put { .. }));
    change(&mut store, Asker::NOBODY, &AuthVerb::Enable { secret: &[5; 32] }).unwrap();
    let call = call.map(|call| SessionCall { sequence: 2, ..call });
    assert_eq!(ask(&mut store, alice, call, put("b")).0, CommandReply::SessionExpired);
    let mut loaded = reloaded(&mut store);
    assert_eq!(ask(&mut loaded, alice, second, put("b")).0, CommandReply::SessionExpired);
}

#[test]
fn a_call_without_the_right_is_not_noted_and_may_be_done_later() {
    let (mut store, root, alice) = guarded();
    let CommandReply::OpenSession { session } = done(&mut store, alice, Command::OpenSession)
    else {
        panic!("any user opens a session")
    };
    let call = Some(SessionCall { session, sequence: 1, acknowledged: 0 });
    let before = store.state_hash();
    assert_eq!(ask(&mut store, alice, call, put("a")).0, denied(Denial::NotPermitted));
    assert_eq!(store.state_hash(), before);
    change(&mut store, root, &grant("r", "a", "", Access::Write)).unwrap();
    assert!(matches!(ask(&mut store, alice, call, put("a")).0, CommandReply::Put { .. }));
    let revoke = AuthVerb::RoleRevokePermission { role: "r", key: b"a", end: b"" };
    change(&mut store, root, &revoke).unwrap();
    // Its copy has not the right either, and hears nothing of what the first one was answered.
    assert_eq!(ask(&mut store, alice, call, put("a")).0, denied(Denial::NotPermitted));
}

#[test]
fn a_change_in_a_session_is_done_once_and_answered_the_same() {
    let (mut store, root, _) = guarded();
    let CommandReply::OpenSession { session } = done(&mut store, root, Command::OpenSession) else {
        panic!("root opens a session")
    };
    let mut args = Vec::new();
    AuthVerb::UserAdd { name: "bob", password: None }.encode(&mut args);
    let add = Command::Auth(AuthChange::from_args(&args).unwrap());
    let call = |sequence| Some(SessionCall { session, sequence, acknowledged: 0 });
    let first = ask(&mut store, root, call(1), add).0;
    let exists = CommandReply::Refused { why: Refusal::Auth(AuthRefusal::UserAlreadyExist) };
    assert_eq!(ask(&mut store, root, call(2), add).0, exists);
    change(&mut store, root, &AuthVerb::UserDelete { name: "bob" }).unwrap();
    let mut loaded = reloaded(&mut store);
    for store in [&mut store, &mut loaded] {
        assert_eq!(ask(store, root, call(1), add).0, first);
        assert_eq!(ask(store, root, call(2), add).0, exists);
        assert!(store.auth().user("bob").is_none());
    }
}
