//! Servers that are met where somebody else was expected.

use super::harness::{Cluster, PATIENCE, Server, Shape, free_address};
use super::patience::{breathe, eventually};
use raftd::limits::HELLO_BYTES_MAX;
use raftd::types::{DiskId, NodeId};
use raftd::wire::error::Error as WireError;
use raftd::wire::frame::next_frame;
use raftd::wire::hello::{
    Hello, HelloReply, PeerHello, Purpose, Sender, VERSION, decode_hello_reply, encode_hello,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

/// What a server says to a peer's hello.
fn answer_to(address: &str, hello: &Hello) -> HelloReply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    encode_hello(&mut bytes, hello);
    stream.write_all(&bytes).unwrap();
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(frame) = next_frame(&said, HELLO_BYTES_MAX).unwrap() {
            return decode_hello_reply(frame.body).unwrap();
        }
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "hung up without a word");
        said.extend_from_slice(&buffer[..count]);
    }
}

fn peer_hello(cluster: &mut Cluster, from: u64, to: u64) -> Hello {
    let cluster_id = cluster.server(1).connection().welcome().cluster_id;
    let sender = Sender::Peer(PeerHello {
        node: node(from),
        to: node(to),
        disk_id: DiskId(7),
        boot_nonce: 7,
        genesis: 0,
        members: Vec::new(),
        purpose: Purpose::Replication,
    });
    Hello { version_min: VERSION, version_max: VERSION, cluster_id, sender, auth: Vec::new() }
}

/// protocol.md promised `wrong-node`, the server answered `refused`.
#[test]
fn who_asks_for_another_server_hears_which_one_this_is() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let address = cluster.server(1).listen().to_owned();
    let hello = peer_hello(&mut cluster, 2, 3);
    let reply = answer_to(&address, &hello);
    assert_eq!(reply, HelloReply::Refused(WireError::WrongNode { ours: node(1) }));
}

/// Nobody else has our number.
#[test]
fn a_peer_that_says_it_is_the_server_it_speaks_to_is_refused() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let address = cluster.server(1).listen().to_owned();
    let hello = peer_hello(&mut cluster, 1, 1);
    match answer_to(&address, &hello) {
        HelloReply::Refused(WireError::Refused { why }) => {
            assert!(why.contains("number"), "{why}");
        }
        other => panic!("it was answered {other:?}"),
    }
    cluster.leader();
    assert!(cluster.server(1).is_running());
}

/// `raftctl member add` with the address of a member.
#[test]
fn an_applicant_that_is_somebody_else_is_refused_with_who_it_is() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let joiner = cluster.start_joiner();
    let address = cluster.server(joiner).listen().to_owned();
    let leader = cluster.server(1).listen().to_owned();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_raftctl"))
        .args(["--endpoints", &leader, "--timeout", "60s"])
        .args(["member", "add", &format!("7={address}")])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("this is server n2, not n7"), "{said}");
}

/// The node dialed itself for ever, six times a second, with a line in the log each time.
#[test]
fn the_own_address_under_a_second_name_is_one_line_in_the_log() {
    let mut cluster = Cluster::plan(1, &Shape::default());
    let port = free_address().rsplit_once(':').unwrap().1.to_owned();
    let own = format!("127.0.0.1:{port}");
    let flags = vec!["--peers".to_owned(), format!("1={own},2=localhost:{port}")];
    let folder = cluster.folder().to_owned();
    let mut server = Server::new(1, own, &folder, flags);
    server.start();
    let line = "leads to this server itself";
    eventually("it says so", PATIENCE, || server.log_text().contains(line).then_some(()));
    // Twenty attempts; a stopped machine makes them fewer, and the test only weaker.
    breathe(Duration::from_secs(3));
    let log = server.log_text();
    assert_eq!(log.matches(line).count(), 1, "{log}");
    assert!(log.contains("--peers"), "{log}");
    assert!(log.lines().count() <= 6, "{log}");
    cluster.servers.clear();
}
