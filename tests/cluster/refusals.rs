//! What a node refuses is not done, also later.

use super::harness::{Cluster, PATIENCE};
use super::patience::eventually;
use raftd::client::Deadline;
use raftd::wire::error::{Advice, Error as WireError};
use raftd::wire::reply::ReplyBody;

/// Puts in flight at once: more bytes than a leader holds uncommitted.
const PUTS: usize = 60;
const VALUE_BYTES: usize = 1_000_000;

fn key(number: usize) -> Vec<u8> {
    format!("flood/{number}").into_bytes()
}

/// A leader whose followers stand still may take only so much; beyond, it says Busy and means it.
#[test]
fn an_overloaded_leader_says_busy_and_what_it_refused_is_not_there() {
    let mut cluster = Cluster::start_with_a_lasting_leader(&["--segment-bytes", "67108864"]);
    let leader = cluster.leader();
    let others = cluster.others(leader);
    let mut connection = cluster.server(leader).connection();
    let deadline = Deadline::after(PATIENCE);
    let mut keys = vec![Vec::new(); PUTS + 1];
    for number in 0..PUTS {
        let id = connection.put(&key(number), &vec![b'x'; VALUE_BYTES]);
        keys[usize::try_from(id).unwrap()] = key(number);
    }
    // Its clients hear that it is busy long before it has heard no quorum for too long.
    for other in &others {
        cluster.server(*other).pause();
    }
    connection.flush(deadline).unwrap();
    let (mut done, mut refused, mut resumed) = (Vec::new(), Vec::new(), false);
    for _ in 0..PUTS {
        let reply = connection.receive(deadline).unwrap();
        let key = keys[usize::try_from(reply.id).unwrap()].clone();
        match reply.body {
            ReplyBody::Put { .. } => done.push(key),
            ReplyBody::Error(error @ WireError::Busy { .. }) => {
                assert_eq!(error.advice(), Advice::AskAgain);
                refused.push(key);
            }
            // It stood still for so long that it lost its office.
            ReplyBody::Error(WireError::OutcomeUnknown | WireError::NotLeader { .. }) => {}
            other => panic!("a put was answered with {other:?}"),
        }
        if !resumed {
            others.iter().for_each(|other| cluster.server(*other).resume());
            resumed = true;
        }
    }
    assert!(!refused.is_empty(), "nothing was refused");
    let mut client = cluster.client();
    for key in &done {
        assert!(client.get(key).unwrap().is_some(), "an acknowledged put is lost");
    }
    for key in &refused {
        assert!(client.get(key).unwrap().is_none(), "a refused put was done");
    }
    cluster.wait_until_equal();
}

#[test]
fn a_put_that_a_follower_refused_is_not_there() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let deadline = Deadline::after(PATIENCE);
    for follower in cluster.others(leader) {
        eventually("it follows", PATIENCE, || cluster.server(follower).status().ok()?.leader);
        let mut connection = cluster.server(follower).connection();
        for number in 0..100 {
            connection.put(&key(number), b"v");
        }
        connection.flush(deadline).unwrap();
        for _ in 0..100 {
            let reply = connection.receive(deadline).unwrap();
            assert!(matches!(reply.body, ReplyBody::Error(WireError::NotLeader { .. })));
        }
    }
    let mut client = cluster.client();
    client.put(b"something", b"else").unwrap();
    assert!((0..100).all(|number| client.get(&key(number)).unwrap().is_none()));
}
