//! What a server holds of the other members, and what it says of them: one that does not read, one
//! that is gone, one that runs twice.

use super::nodes::{Nodes, Tuning, id};
use raftd::limits::{FRAME_BYTES_MAX, PEER_OUT_MAX};
use raftd::wire::client::Command;
use raftd::wire::hello::HelloReply;

const MS: u64 = 1_000_000;

/// Whether `nth` says that it has dialed `other` and was let in.
fn is_connected(nodes: &Nodes, nth: usize, other: usize) -> bool {
    let peers = nodes.status_of(nth).peers;
    peers.iter().find(|peer| peer.node == id(other)).expect("it is a member").connected
}

#[test]
fn a_server_says_which_of_the_others_it_is_connected_with() {
    let (mut nodes, leader, [here, gone]) = Nodes::cluster();
    let said = |nodes: &Nodes| [here, gone].map(|other| is_connected(nodes, leader, other));
    assert_eq!(said(&nodes), [true, true]);
    nodes.crash(gone);
    nodes.pass(50 * MS);
    assert_eq!(said(&nodes), [true, false]);
    nodes.boot(gone).expect("its disk is well");
    nodes.pass(300 * MS);
    assert_eq!(said(&nodes), [true, true]);
}

/// The core gives up a window that nobody answers and probes anew, with an entry at each heartbeat:
/// no window bounds what waits for a member that does not read.
#[test]
fn what_waits_for_a_member_that_does_not_read_has_a_bound() {
    let tuning = Tuning { segment_bytes: 16 << 20, ..Tuning::default() };
    let mut nodes = Nodes::tuned(3, tuning);
    nodes.pass(500 * MS);
    let leader = nodes.leader().expect("elected");
    let stuck = leader % 3 + 1;
    let connection = nodes.stop_reading_from(leader, stuck);
    nodes.command(leader, None, Command::Put { key: b"k", value: &vec![7; 1_400_000] });
    nodes.pass_until(|nodes| nodes.unread_bytes(leader, connection) >= PEER_OUT_MAX);
    nodes.pass(3_000 * MS);
    assert_eq!(nodes.leader(), Some(leader), "the third one hears it");
    let held = nodes.unread_bytes(leader, connection);
    assert!(held < PEER_OUT_MAX + FRAME_BYTES_MAX, "{held} bytes wait");
}

/// The later one of two processes of a server has dialed us; the earlier one is where we dial. What
/// it would acknowledge, the other does not have.
#[test]
fn a_start_that_we_dial_after_a_later_one_spoke_is_sent_nothing() {
    let (mut nodes, leader, [_, twice]) = Nodes::cluster();
    nodes.crash(twice);
    let later = nodes.greet(leader, twice, 1_000 << 32);
    assert!(matches!(later, HelloReply::Welcome(_)), "{later:?}");
    nodes.boot(twice).expect("its disk is well");
    let before = nodes.status_of(twice).last_index;
    nodes.put(leader, "k");
    for _ in 0..20 {
        nodes.pass(50 * MS);
        assert!(!is_connected(&nodes, leader, twice), "it is let in");
    }
    assert_eq!(nodes.status_of(twice).last_index, before);
    assert!(nodes.status_of(leader).commit_index > before, "the third one has it");
}
