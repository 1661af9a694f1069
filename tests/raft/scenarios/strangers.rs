//! Who may speak as a member: a process of this cluster, on the data directory that the
//! configuration names.

use super::nodes::{CLUSTER, Nodes, disk_of, id};
use raftd::types::{ClusterId, DiskId};
use raftd::wire::error::Error;
use raftd::wire::hello::{HelloReply, PeerHello, Purpose};

const MS: u64 = 1_000_000;

#[test]
fn a_member_is_let_in_from_its_own_cluster_and_directory_only() {
    let mut nodes = Nodes::new(3);
    nodes.pass(200 * MS);
    let nth = nodes.leader().expect("elected");
    let other = nth % 3 + 1;
    nodes.crash(other);
    let hello = |genesis, disk_id| PeerHello {
        node: id(other),
        to: id(nth),
        disk_id,
        boot_nonce: 9 << 32,
        genesis,
        members: Vec::new(),
        purpose: Purpose::Replication,
    };
    let disk = disk_of(other);
    let HelloReply::Welcome(welcome) = nodes.say_hello(nth, CLUSTER, hello(0, disk)) else {
        panic!("it may have lost its log, and is told who the members are")
    };
    let genesis = welcome.genesis;
    let foreign = nodes.say_hello(nth, ClusterId(8), hello(genesis, disk));
    assert_eq!(foreign, HelloReply::Refused(Error::WrongCluster { ours: CLUSTER }));
    let moved = nodes.say_hello(nth, CLUSTER, hello(genesis, DiskId(99)));
    assert!(matches!(moved, HelloReply::Refused(Error::Refused { .. })), "{moved:?}");
    let sound = nodes.say_hello(nth, CLUSTER, hello(genesis, disk));
    assert!(matches!(sound, HelloReply::Welcome(_)), "{sound:?}");
}
