//! Two processes of one server, each on a copy of the same data directory: each has made promises
//! that the other does not know. The other servers hear both.

use super::nodes::Nodes;
use raftd::wire::error::Error;
use raftd::wire::hello::HelloReply;

const MS: u64 = 1_000_000;

/// A server, another that is down, and nothing else going on.
fn server_and_other() -> (Nodes, usize, usize) {
    let mut nodes = Nodes::new(3);
    nodes.pass(200 * MS);
    let leader = nodes.leader().expect("elected");
    let other = leader % 3 + 1;
    nodes.crash(other);
    (nodes, leader, other)
}

fn is_welcome(reply: &HelloReply) -> bool {
    match reply {
        HelloReply::Welcome(_) => true,
        HelloReply::Refused(_) => false,
    }
}

fn refusal(reply: HelloReply) -> String {
    match reply {
        HelloReply::Refused(Error::Refused { why }) => why.into_owned(),
        HelloReply::Refused(other) => panic!("{other}"),
        HelloReply::Welcome(_) => panic!("it is let in"),
    }
}

/// `boot_nonce` was sent and never looked at: whoever came last had the floor, in turns, for ever.
#[test]
fn a_start_that_speaks_after_a_later_one_is_refused() {
    let (mut nodes, nth, other) = server_and_other();
    let [first, second] = [5 << 32 | 9, 6 << 32 | 1];
    assert!(is_welcome(&nodes.greet(nth, other, first)));
    assert!(is_welcome(&nodes.greet(nth, other, second)), "a restart");
    for _ in 0..10 {
        let why = refusal(nodes.greet(nth, other, first));
        assert!(why.contains(&format!("server n{other}")), "{why}");
        assert!(why.contains(&format!("raftctl member replace {other}")), "{why}");
        nodes.pass(300 * MS);
        assert!(is_welcome(&nodes.greet(nth, other, second)), "the later one stays");
    }
    assert!(is_welcome(&nodes.greet(nth, other, 7 << 32)), "another restart");
    refusal(nodes.greet(nth, other, second));
}

/// Copies of a directory that nobody used since begin with the same number, and chance tells them
/// apart: every server lets the same one in.
#[test]
fn of_two_copies_of_the_same_age_one_is_refused() {
    let (mut nodes, nth, other) = server_and_other();
    let [small, large] = [5 << 32 | 1, 5 << 32 | 2];
    assert!(is_welcome(&nodes.greet(nth, other, small)));
    assert!(is_welcome(&nodes.greet(nth, other, large)));
    refusal(nodes.greet(nth, other, small));
}

/// The same start dials as often as it likes, and what a server was before it restarted is
/// forgotten: no restart is ever taken for a copy.
#[test]
fn a_restart_is_no_clone() {
    let (mut nodes, nth, other) = server_and_other();
    for _ in 0..5 {
        nodes.boot(other).expect("its disk is well");
        nodes.pass(300 * MS);
        let peers = nodes.status_of(nth).peers;
        let peer = peers.iter().find(|peer| peer.node.get() == u64::try_from(other).unwrap());
        assert!(peer.expect("a member").connected);
        assert_eq!(nodes.status_of(other).last_index, nodes.status_of(nth).last_index);
        nodes.crash(other);
    }
}
