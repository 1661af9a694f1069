//! The rules of leases, one by one.

use std::ops::ControlFlow;

use raftd::kv::command::{CommandError, EntryHeader, decode_next, encode_call, encode_command};
use raftd::kv::command::{encode_header, validate_command};
use raftd::kv::{
    Answer, ChangeCursor, Command, CommandReply, DeleteWith, PutWith, RangeEnd, Refusal,
    SessionCall, Store,
};
use raftd::limits::{LEASE_TTL_S_MAX, LEASES_MAX};
use raftd::types::{Revision, SessionId, Term};

use super::checkpoint::reloaded;
use super::support::{at, store_with};

fn do_at(store: &mut Store, stamp_ms: u64, command: Command<'_>) -> CommandReply {
    let mut payload = Vec::new();
    encode_header(&mut payload, EntryHeader { stamp_ms });
    encode_command(&mut payload, command);
    let mut outline = None;
    let index = store.applied().next();
    store.apply(at(index), &payload, &mut |answer| outline = Some(answer.outline)).unwrap();
    outline.unwrap()
}

fn done(store: &mut Store, command: Command<'_>) -> CommandReply {
    do_at(store, 1_000, command)
}

fn grant(store: &mut Store, lease: u64, ttl_s: u64) -> CommandReply {
    done(store, Command::LeaseGrant { lease, ttl_s })
}

fn hang(store: &mut Store, key: &str, lease: u64) -> CommandReply {
    let key = key.as_bytes();
    done(store, Command::PutWith(PutWith { key, value: b"v", lease, ..PutWith::default() }))
}

fn keys(store: &Store, lease: u64) -> Vec<String> {
    let name = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
    let mut keys: Vec<String> = store.lease_keys(lease, 0).map(|(_, key)| name(key)).collect();
    keys.sort();
    keys
}

/// The commands that came with leases.
const GOLDEN: &str = include_str!("golden/entry-1-leases.hex");

#[test]
fn every_form_of_leases_is_read_and_written_as_the_golden_file_has_it() {
    let (term, lease, grant) = (Term::new(7), 300, 2);
    let forms = [
        ("lease grant", Command::LeaseGrant { lease, ttl_s: 60 }),
        ("lease grant any", Command::LeaseGrant { lease: 0, ttl_s: 60 }),
        ("lease revoke", Command::LeaseRevoke { lease }),
        ("lease expire", Command::LeaseExpire { term, lease, grant }),
        ("lease checkpoint", Command::LeaseCheckpoint { term, lease, grant, due_ms: 61_000 }),
    ];
    let mut written = String::new();
    for (name, command) in forms {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, command);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        written += &format!("{name}: {hex}\n");
        let mut reader = raftd::codec::msgpack::Reader::new(&bytes);
        assert_eq!(decode_next(&mut reader), Ok((None, command)), "{name}");
        for cut in 0..bytes.len() {
            let mut reader = raftd::codec::msgpack::Reader::new(&bytes[..cut]);
            assert!(decode_next(&mut reader).is_err(), "{name} cut at {cut}");
        }
    }
    assert_eq!(written, GOLDEN);
}

const NOT_FOUND: CommandReply = CommandReply::Refused { why: Refusal::LeaseNotFound };

#[test]
fn a_grant_makes_no_revision_and_no_lease_twice() {
    let mut store = store_with(1, 1 << 20);
    let revision = Revision(1);
    let granted = |lease, ttl_s| CommandReply::LeaseGrant { revision, lease, ttl_s };
    assert_eq!(grant(&mut store, 3, 60), granted(3, 60));
    assert_eq!(grant(&mut store, 3, 60), CommandReply::Refused { why: Refusal::LeaseExists });
    assert_eq!(grant(&mut store, 0, 5), granted(2, 5), "the number of the grant");
    assert_eq!(grant(&mut store, 0, 5), granted(4, 5), "3 is taken");
    let row = store.lease(3).unwrap();
    assert_eq!((row.grant, row.ttl_s, row.due_ms), (1, 60, 61_000));
}

/// Else the lease that has the number would lose its keys, which then would never go.
#[test]
fn a_number_that_clients_have_chosen_is_given_to_nobody_however_many_they_chose() {
    let mut store = store_with(1, 1 << 20);
    for lease in [6, 4, 5] {
        grant(&mut store, lease, 60);
    }
    hang(&mut store, "a", 5);
    hang(&mut store, "b", 6);
    let (revision, lease, ttl_s) = (store.revision(), 7, 5);
    let granted = CommandReply::LeaseGrant { revision, lease, ttl_s };
    assert_eq!(grant(&mut store, 0, ttl_s), granted, "4, 5 and 6 are taken");
    assert_eq!((keys(&store, 5), keys(&store, 6)), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!(store.lease(7).unwrap().grant, store.lease_grants());
    assert_eq!(reloaded(&mut store).state_hash(), store.state_hash());
    let next = CommandReply::LeaseGrant { revision, lease: 8, ttl_s };
    assert_eq!(grant(&mut reloaded(&mut store), 0, ttl_s), next, "a loaded store counts on");
}

/// A watch hears of them in that order, on every server.
#[test]
fn the_keys_of_a_lease_go_in_the_order_of_their_names() {
    let mut store = store_with(1, 1 << 20);
    grant(&mut store, 1, 60);
    for key in ["c", "a", "d", "b"] {
        hang(&mut store, key, 1);
    }
    done(&mut store, Command::LeaseRevoke { lease: 1 });
    let mut gone = Vec::new();
    let mut cursor = ChangeCursor::at(store.revision());
    let read = store.read_changes(&mut cursor, 10, &mut |event| {
        assert!(event.is_delete());
        gone.push(event.key()[0]);
        ControlFlow::Continue(())
    });
    assert!(read.is_ok());
    assert_eq!(gone, b"abcd");
}

/// Whoever may write could fill all memory with leases else.
#[test]
fn there_are_as_many_leases_as_there_may_be_and_not_one_more() {
    let mut store = store_with(1, 1 << 20);
    let mut granted = 0;
    while granted < LEASES_MAX {
        let mut payload = Vec::new();
        encode_header(&mut payload, EntryHeader { stamp_ms: 1 });
        for _ in 0..LEASES_MAX / 256 {
            encode_command(&mut payload, Command::LeaseGrant { lease: 0, ttl_s: 60 });
        }
        let mut count = |answer: Answer<'_>| granted += usize::from(is_grant(&answer.outline));
        store.apply(at(store.applied().next()), &payload, &mut count).unwrap();
    }
    let before = store.state_hash();
    let full = CommandReply::Refused { why: Refusal::TooManyLeases };
    assert_eq!(grant(&mut store, 0, 60), full);
    assert_eq!(grant(&mut store, u64::MAX, 60), full);
    assert_eq!((store.lease_count(), store.state_hash()), (LEASES_MAX, before));
    done(&mut store, Command::LeaseRevoke { lease: 5 });
    assert!(is_grant(&grant(&mut store, 0, 60)));
}

fn is_grant(reply: &CommandReply) -> bool {
    matches!(reply, CommandReply::LeaseGrant { .. })
}

#[test]
fn keys_hang_on_the_lease_of_their_last_put_and_on_no_other() {
    let mut store = store_with(1, 1 << 20);
    grant(&mut store, 1, 60);
    grant(&mut store, 2, 60);
    assert_eq!(hang(&mut store, "a", 9), NOT_FOUND);
    for key in ["a", "b", "c", "d"] {
        hang(&mut store, key, 1);
    }
    hang(&mut store, "a", 2);
    done(&mut store, Command::Put { key: b"b", value: b"w" });
    let keep = PutWith { key: b"c", value: b"w", ignore_lease: true, ..PutWith::default() };
    done(&mut store, Command::PutWith(keep));
    let delete = DeleteWith { key: b"d", end: RangeEnd::Key, prev_kv: false };
    done(&mut store, Command::DeleteRangeWith(delete));
    assert_eq!((keys(&store, 1), keys(&store, 2)), (vec!["c".to_owned()], vec!["a".to_owned()]));
    assert_eq!(store.get(b"b").unwrap().lease, 0);
    // A key that comes back hangs on nothing.
    done(&mut store, Command::Put { key: b"d", value: b"w" });
    assert_eq!(store.get(b"d").unwrap().lease, 0);
    let mut loaded = reloaded(&mut store);
    assert_eq!((keys(&loaded, 1), keys(&loaded, 2)), (keys(&store, 1), keys(&store, 2)));
    done(&mut loaded, Command::LeaseRevoke { lease: 1 });
    done(&mut store, Command::LeaseRevoke { lease: 1 });
    assert_eq!(loaded.state_hash(), store.state_hash());
}

#[test]
fn a_revoked_lease_takes_its_keys_along_in_one_revision() {
    let mut store = store_with(1, 1 << 20);
    grant(&mut store, 1, 60);
    hang(&mut store, "b", 1);
    hang(&mut store, "a", 1);
    done(&mut store, Command::Put { key: b"other", value: b"" });
    let revision = Revision(store.revision().0 + 1);
    let revoke = Command::LeaseRevoke { lease: 1 };
    assert_eq!(done(&mut store, revoke), CommandReply::LeaseRevoke { revision });
    assert_eq!((store.keys(), store.revision()), (1, revision));
    assert_eq!(done(&mut store, revoke), NOT_FOUND);
    grant(&mut store, 1, 60);
    assert_eq!(done(&mut store, revoke), CommandReply::LeaseRevoke { revision }, "no keys");
}

#[test]
fn what_a_leader_says_is_void_in_another_term_and_of_another_grant() {
    let mut store = store_with(1, 1 << 20);
    grant(&mut store, 7, 60);
    hang(&mut store, "a", 7);
    let (term, other) = (Term::new(1), Term::new(2));
    let (lease, revision) = (7, store.revision());
    let void = CommandReply::Void { lease };
    assert_eq!(done(&mut store, Command::LeaseExpire { term: other, lease, grant: 1 }), void);
    let said = Command::LeaseCheckpoint { term: other, lease, grant: 1, due_ms: 5 };
    assert_eq!(done(&mut store, said), void);
    let gone = CommandReply::LeaseExpire { revision, lease };
    assert_eq!(done(&mut store, Command::LeaseExpire { term, lease, grant: 2 }), gone);
    let said = Command::LeaseCheckpoint { term, lease, grant: 2, due_ms: 5 };
    let noted = |ttl_s| CommandReply::LeaseCheckpoint { revision, lease, ttl_s };
    assert_eq!(done(&mut store, said), noted(0));
    assert_eq!(store.lease(7).unwrap().due_ms, 61_000, "nothing was done so far");
    assert_eq!((store.keys(), store.revision()), (1, revision));
    let said = Command::LeaseCheckpoint { term, lease, grant: 1, due_ms: 0 };
    assert_eq!(done(&mut store, said), noted(60));
    assert_eq!(store.lease(7).unwrap().due_ms, 0);
    done(&mut store, Command::LeaseExpire { term, lease, grant: 1 });
    assert_eq!((store.lease(7), store.keys()), (None, 0));
    assert_eq!(store.revision(), revision.next());
}

#[test]
fn no_clients_request_is_a_leaders_command() {
    let call = SessionCall { session: SessionId(1), sequence: 1, acknowledged: 0 };
    let (term, lease, grant) = (Term::new(1), 1, 1);
    let leaders = [
        (12, Command::LeaseExpire { term, lease, grant }),
        (13, Command::LeaseCheckpoint { term, lease, grant, due_ms: 1 }),
    ];
    for (op, command) in leaders {
        for in_session in [false, true] {
            let mut bytes = Vec::new();
            if in_session {
                encode_call(&mut bytes, call);
            }
            encode_command(&mut bytes, command);
            assert_eq!(validate_command(&bytes, 100), Err(CommandError::Operation { op }));
            let mut reader = raftd::codec::msgpack::Reader::new(&bytes);
            assert_eq!(decode_next(&mut reader).is_ok(), !in_session);
        }
    }
    let mut bytes = Vec::new();
    encode_command(&mut bytes, Command::LeaseGrant { lease: 0, ttl_s: LEASE_TTL_S_MAX });
    assert_eq!(validate_command(&bytes, 100), Ok(()));
    bytes.clear();
    let ttl_s = LEASE_TTL_S_MAX + 1;
    encode_command(&mut bytes, Command::LeaseGrant { lease: 0, ttl_s });
    assert_eq!(validate_command(&bytes, 100), Err(CommandError::LeaseTooLong { ttl_s }));
}

#[test]
fn a_new_cluster_begins_the_time_of_its_leases_anew() {
    let mut store = store_with(1, 1 << 20);
    grant(&mut store, 1, 60);
    store.begin_anew(1000);
    assert_eq!(store.lease(1).unwrap().due_ms, 0);
    assert_eq!(reloaded(&mut store).state_hash(), store.state_hash());
}

/// The old cluster has granted more since the snapshot. Its clients, who still keep those leases
/// alive, or revoke them, would do so to somebody else's.
#[test]
fn a_new_cluster_gives_no_lease_a_number_that_the_old_one_can_have_given() {
    let mut store = store_with(1, 1 << 20);
    let lease_of = |reply| {
        let CommandReply::LeaseGrant { lease, .. } = reply else { panic!("{reply:?}") };
        lease
    };
    let before = lease_of(grant(&mut store, 0, 60));
    store.begin_anew(1000);
    assert!(lease_of(grant(&mut store, 0, 60)) > before + 1000);
    assert_eq!(reloaded(&mut store).state_hash(), store.state_hash());
}

#[test]
fn a_checkpoint_has_the_leases_as_they_were_though_they_change_while_it_is_written() {
    let mut store = store_with(1, 1 << 20);
    for lease in [10, 20, 30, 40] {
        grant(&mut store, lease, 60);
    }
    let hash = store.state_hash();
    let applied = store.applied();
    let mut checkpoint = store.begin_checkpoint();
    let (term, grant_of_20) = (Term::new(1), 2);
    done(&mut store, Command::LeaseRevoke { lease: 10 });
    let said = Command::LeaseCheckpoint { term, lease: 20, grant: grant_of_20, due_ms: 0 };
    done(&mut store, said);
    for lease in [5, 15, 35, u64::MAX] {
        grant(&mut store, lease, 60);
    }
    let mut bytes = Vec::new();
    let step = raftd::kv::SliceLimits { steps: 1, bytes: usize::MAX };
    while store.write_checkpoint(&mut checkpoint, &mut bytes, step) == raftd::kv::Sliced::More {}
    store.end_checkpoint(checkpoint);
    let loaded = super::checkpoint::load_at_once(&bytes, applied);
    assert_eq!(loaded.state_hash(), hash);
    assert_eq!(loaded.leases(0).map(|row| row.id).collect::<Vec<_>>(), [10, 20, 30, 40]);
    assert_eq!(store.lease_count(), 7);
}
