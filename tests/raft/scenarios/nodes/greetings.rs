//! Who speaks to whom: what servers dial, and what somebody hears who says hello as one of them.

use super::{CLUSTER, Nodes, disk_of, id};
use raftd::replica::ConnectionId;
use raftd::types::{ClusterId, NodeId};
use raftd::wire::frame::next_frame;
use raftd::wire::hello::{
    Hello, HelloReply, PeerHello, Purpose, Sender, VERSION, decode_hello_reply, encode_hello,
};

/// What server `from` says to `to`, of a configuration that it does not know.
pub(in crate::raft) fn peer_hello(from: usize, to: usize) -> PeerHello {
    PeerHello {
        node: id(from),
        to: id(to),
        disk_id: disk_of(from),
        boot_nonce: 9 << 32,
        genesis: 0,
        members: Vec::new(),
        purpose: Purpose::Replication,
    }
}

/// What anybody says first.
pub(in crate::raft) fn hello_of(sender: Sender) -> Hello {
    let (version_min, version_max) = (VERSION, VERSION);
    Hello { version_min, version_max, cluster_id: CLUSTER, sender, auth: Vec::new() }
}

impl Nodes {
    /// Whom a server dials, or has dialed.
    pub(in crate::raft) fn dials_of(&self, nth: usize) -> Vec<NodeId> {
        self.machines[nth - 1].node.as_ref().expect("it is up").dials().collect()
    }

    /// A dial of `nth` fails that was under way.
    pub(in crate::raft) fn fail_dial(&mut self, nth: usize, to: usize) {
        let now = self.now;
        let node = self.machine(nth).node.as_mut().expect("it is up");
        node.on_dial_failed(id(to), now, "no answer in time");
        self.settle();
    }

    /// Opens a connection to `nth` as a process of server `from` would, and says hello as the start
    /// that `boot_nonce` names. Its answer.
    pub(in crate::raft) fn greet(
        &mut self,
        nth: usize,
        from: usize,
        boot_nonce: u64,
    ) -> HelloReply {
        self.say_hello(nth, CLUSTER, PeerHello { boot_nonce, ..peer_hello(from, nth) })
    }

    /// Opens a connection to `nth` and says this. Its answer.
    pub(in crate::raft) fn say_hello(
        &mut self,
        nth: usize,
        cluster_id: ClusterId,
        hello: PeerHello,
    ) -> HelloReply {
        self.open(nth, &Hello { cluster_id, ..hello_of(Sender::Peer(hello)) }).1
    }

    /// Opens a connection to `nth` with this. The connection, and what it answers.
    pub(in crate::raft) fn open(
        &mut self,
        nth: usize,
        hello: &Hello,
    ) -> (ConnectionId, HelloReply) {
        let (connection, now) = (self.next_id(), self.now);
        let mut bytes = Vec::new();
        encode_hello(&mut bytes, hello);
        let node = self.machine(nth).node.as_mut().expect("it is up");
        node.on_accepted(connection);
        let taken = node.on_bytes(connection, &bytes, now);
        assert_eq!(taken.bytes, bytes.len());
        let frame = next_frame(node.unsent(connection), usize::MAX >> 1).unwrap();
        let reply = decode_hello_reply(frame.expect("it answers").body).unwrap();
        self.settle();
        (connection, reply)
    }
}
