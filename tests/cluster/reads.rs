//! Reads that are as fresh as the moment of asking, on leaders and on followers.

use super::harness::{Cluster, PATIENCE, Shape};
use super::patience::eventually;
use raftd::client::{Connection, Deadline};
use raftd::wire::client::{Consistency, RangeArgs};
use raftd::wire::error::Advice;
use raftd::wire::reply::ReplyBody;
use std::process::Command;

/// What this node, and no other, says that the key's value is, once it hears a leader.
fn read(connection: &mut Connection, consistency: Consistency) -> Vec<u8> {
    let deadline = Deadline::after(PATIENCE);
    eventually("the node reads", PATIENCE, || {
        connection.range(&RangeArgs { consistency, ..RangeArgs::of_key(b"k") });
        connection.flush(deadline).unwrap();
        match connection.receive(deadline).unwrap().body {
            ReplyBody::Range(range) => Some(range.kvs().next().expect("it was put").value.to_vec()),
            ReplyBody::Error(error) if error.advice() == Advice::AskAgain => None,
            other => panic!("a read was answered with {other:?}"),
        }
    })
}

#[test]
fn every_node_reads_what_was_just_written() {
    for flags in [vec![], vec!["--lease-reads".to_owned(), "1%".to_owned()]] {
        let mut cluster = Cluster::start_shaped(3, &Shape { flags, ..Shape::default() });
        let leader = cluster.leader();
        let mut client = cluster.client_of(&[leader]);
        let mut nodes: Vec<Connection> =
            (1..=3).map(|id| cluster.server(id).connection()).collect();
        for number in 0..100 {
            let value = number.to_string().into_bytes();
            client.put(b"k", &value).unwrap();
            for node in &mut nodes {
                for consistency in [Consistency::Linearizable, Consistency::Lease] {
                    assert_eq!(read(node, consistency), value);
                }
            }
        }
    }
}

#[test]
fn a_follower_reads_again_after_its_leaders_death() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    cluster.client().put(b"k", b"v").unwrap();
    let follower = cluster.others(leader)[0];
    cluster.server(leader).kill();
    let mut client = cluster.client_of(&[follower]);
    let found = client.get(b"k").unwrap().expect("it was put");
    assert_eq!(found.value, b"v");
}

#[test]
fn raftctl_reads_by_lease_and_status_says_whether_there_is_one() {
    let flags = ["--lease-reads", "500ppm"].map(str::to_owned).to_vec();
    let mut cluster = Cluster::start_shaped(3, &Shape { flags, ..Shape::default() });
    let leader = cluster.leader();
    cluster.client().put(b"k", b"v").unwrap();
    let endpoint = cluster.server(leader).listen().to_owned();
    let output = Command::new(env!("CARGO_BIN_EXE_raftctl"))
        .args(["--endpoints", &endpoint, "get", "k", "--consistency", "lease"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "k\nv\n");
    let drift = eventually("the node answers", PATIENCE, || {
        cluster.server(leader).status().ok().map(|status| status.lease_drift_ppm)
    });
    assert_eq!(drift, 500);
}
