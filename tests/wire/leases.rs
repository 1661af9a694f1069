//! The examples of leases in protocol.md.

use raftd::types::Revision;
use raftd::wire::client::{Command, Consistency, Op, command_request};
use raftd::wire::leases::{
    KeysFrom, LeaseList, LeaseRequest, LeaseTerm, LeaseTimes, lease_list_reply, lease_request,
    lease_revoke_reply, lease_term_reply, lease_times_reply,
};
use raftd::wire::reply::{ReplyBody, decode_reply};

use super::client::{Act, PATIENT, Server, client};
use super::samples::{Kind, Written};

const TERM: LeaseTerm = LeaseTerm { revision: Revision(2), lease: 1, ttl_s: 60 };

pub(super) fn samples() -> Vec<Written> {
    vec![
        (Kind::Request, "lease-grant", |out| {
            command_request(out, 14, None, Command::LeaseGrant { lease: 0, ttl_s: 60 });
        }),
        (Kind::Reply, "lease-grant", |out| lease_term_reply(out, 14, Op::LeaseGrant, &TERM)),
        (Kind::Request, "lease-revoke", |out| {
            command_request(out, 15, None, Command::LeaseRevoke { lease: 1 });
        }),
        (Kind::Reply, "lease-revoke", |out| lease_revoke_reply(out, 15, Revision(3))),
        (Kind::Request, "lease-keep-alive", |out| {
            lease_request(out, 16, &LeaseRequest::KeepAlive { lease: 1 });
        }),
        (Kind::Reply, "lease-keep-alive", |out| {
            lease_term_reply(out, 16, Op::LeaseKeepAlive, &TERM);
        }),
        (Kind::Request, "lease-time-to-live", |out| {
            let from = KeysFrom { list: 4, after: 4096 };
            lease_request(out, 17, &LeaseRequest::TimeToLive { lease: 1, keys: true, from });
        }),
        (Kind::Reply, "lease-time-to-live", |out| {
            let LeaseTerm { revision, lease, ttl_s } = TERM;
            let (left_ms, key_count, next) = (42_500, 4097, KeysFrom { list: 4, after: 0 });
            let times = LeaseTimes { revision, lease, ttl_s, left_ms, key_count, next };
            lease_times_reply(out, 17, &times, &[b"a"]);
        }),
        (Kind::Request, "lease-list", |out| {
            let consistency = Consistency::Linearizable;
            lease_request(out, 18, &LeaseRequest::List { after: 0, consistency });
        }),
        (Kind::Reply, "lease-list", |out| {
            let list = LeaseList { revision: Revision(2), more: false, leases: vec![1] };
            lease_list_reply(out, 18, &list);
        }),
    ]
}

/// Both were shorter by the place of the next keys once, and arrays may grow: what an older client
/// asks begins at the first key, and what an older server answers is all that there is.
#[test]
fn what_is_asked_and_answered_without_a_place_is_of_the_first_keys() {
    let old = [0x92, 1, 0xc3];
    let asked = LeaseRequest::decode(Op::LeaseTimeToLive, &old).unwrap();
    let from = KeysFrom::START;
    assert_eq!(asked, Some(LeaseRequest::TimeToLive { lease: 1, keys: true, from }));
    let old = [0x93, 17, 21, 0x96, 2, 1, 60, 5, 1, 0x91, 0xc4, 1, b'a'];
    let ReplyBody::LeaseTimes(times, names) = decode_reply(&old).unwrap().body else {
        panic!("it is about a lease");
    };
    assert_eq!((times.key_count, times.next), (1, KeysFrom::START));
    assert_eq!(names.iter().collect::<Vec<_>>(), [b"a"]);
}

pub(super) fn keys_of_lease(out: &mut Vec<u8>, id: u64, keys: &[&str], next: KeysFrom) {
    let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    let LeaseTerm { revision, lease, ttl_s } = TERM;
    let times = LeaseTimes { revision, lease, ttl_s, left_ms: 5, key_count: 9, next };
    lease_times_reply(out, id, &times, &keys);
}

/// Whose reply did not hold all keys of a lease never heard of the others.
#[test]
fn the_keys_of_a_lease_are_asked_for_until_there_are_no_more() {
    let place = |list, after| KeysFrom { list, after };
    let server = Server::start(vec![
        vec![Act::Keys(&["c", "a"], place(3, 8)), Act::HangUp],
        // Another leader, in whose order there is no such place.
        vec![
            Act::Keys(&["b"], place(4, 2)),
            Act::Keys(&["a", "b"], place(4, 5)),
            Act::Keys(&["d"], place(4, 0)),
        ],
    ]);
    let found = client(PATIENT, &[&server.address]).lease_time_to_live(1, true).unwrap();
    assert_eq!(found.keys, [b"a", b"b", b"d"]);
    let asked = server.seen().into_iter().map(|(_, args)| args[args.len() - 2..].to_vec());
    let places = [[0, 0], [3, 8], [3, 8], [4, 2], [4, 5]];
    assert_eq!(asked.collect::<Vec<_>>(), places);
}
