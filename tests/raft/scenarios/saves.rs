//! Clients that save a snapshot, from servers that have other things to do.

use super::nodes::{Answer, Nodes, Tuning};
use raftd::types::LogIndex;
use raftd::wire::error::Error;

const MS: u64 = 1_000_000;

/// The server forgot who had hung up, and then did not know whom the round that it had begun for
/// the save was for: it stopped.
#[test]
fn a_client_that_hangs_up_before_its_save_is_confirmed_stops_nobody() {
    for asked in 0..3 {
        let (mut nodes, leader, others) = Nodes::cluster();
        let nth = [leader, others[0], others[1]][asked];
        let rest = (1..=3).filter(|other| *other != nth);
        rest.clone().for_each(|other| nodes.freeze(other));
        let (_, connection) = nodes.save(nth);
        nodes.pass(5 * MS);
        nodes.hang_up(nth, connection);
        nodes.pass(5 * MS);
        rest.for_each(|other| nodes.thaw(other));
        nodes.pass(100 * MS);
        let (save, _) = nodes.save(nth);
        nodes.pass(2_000 * MS);
        assert_eq!(nodes.answers.get(&save), Some(&Answer::Done), "server {nth}");
    }
}

/// A leader goes with what it began for others too.
#[test]
fn a_client_that_hangs_up_while_its_server_loses_its_leader_stops_nobody() {
    let (mut nodes, leader, others) = Nodes::cluster();
    others.iter().for_each(|other| nodes.freeze(*other));
    let (_, connection) = nodes.save(leader);
    nodes.pass(5 * MS);
    nodes.hang_up(leader, connection);
    nodes.pass(2_000 * MS);
    assert_eq!(nodes.status_of(leader).role, "pre-candidate", "no quorum hears it");
}

/// The highest entry that anybody wanted was asked for, and nobody got a snapshot until that was
/// applied: so a member that asked for one of far off kept every client waiting.
#[test]
fn a_member_that_wants_what_cannot_be_made_keeps_no_client_waiting() {
    let (mut nodes, leader, others) = Nodes::cluster();
    nodes.forge_wanted((others[0], leader), LogIndex::new(1_000_000));
    nodes.pass(5 * MS);
    let (save, _) = nodes.save(leader);
    nodes.pass(500 * MS);
    assert_eq!(nodes.answers.get(&save), Some(&Answer::Done));
}

/// Where a follower cannot reach its leader, and the leader reaches it, all goes on but its
/// questions: whoever read there waited for ever, and whoever saved was told each second to wait.
#[test]
fn a_follower_that_cannot_ask_its_leader_sends_its_clients_there() {
    let (mut nodes, leader, [follower, _]) = Nodes::cluster();
    nodes.wall_off(follower, leader);
    let read = nodes.read(follower, "key");
    let (save, _) = nodes.save(follower);
    nodes.pass(2_000 * MS);
    assert_eq!(nodes.status_of(follower).role, "follower");
    for asked in [read, save] {
        match nodes.answers.get(&asked) {
            Some(Answer::Failed(Error::NotLeader { leader: Some((id, _)) })) => {
                assert_eq!(id.get(), u64::try_from(leader).unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
    nodes.mend();
    nodes.pass(500 * MS);
    let read = nodes.read(follower, "key");
    nodes.pass(100 * MS);
    assert_eq!(nodes.answers.get(&read), Some(&Answer::Done));
}

/// Followers whose disks are full answer heartbeats and take no entry: a leader that begins its
/// term then never commits one, and whoever read there waited for ever.
#[test]
fn readers_of_a_leader_that_cannot_commit_are_told() {
    let (mut nodes, leader, others) = Nodes::cluster();
    others.iter().for_each(|other| nodes.fill_disk(*other));
    let full = |nodes: &mut Nodes| {
        let put = nodes.put(leader, &"k".repeat(300));
        nodes.pass(50 * MS);
        nodes.answers.get(&put) != Some(&Answer::Done)
    };
    assert!((0..1_000).any(|_| full(&mut nodes)), "the others take everything");
    nodes.crash(leader);
    nodes.boot(leader).expect("its disk is well");
    nodes.pass_until(|nodes| nodes.leader() == Some(leader));
    let read = nodes.read(leader, "k");
    let (save, _) = nodes.save(leader);
    nodes.pass(2_000 * MS);
    assert_eq!(nodes.leader(), Some(leader), "they hear it");
    for asked in [read, save] {
        let answer = nodes.answers.get(&asked);
        assert!(matches!(answer, Some(Answer::Failed(Error::NotReady { .. }))), "{answer:?}");
    }
}

/// A block of a snapshot is closed once it is full, and a slice that began in a block that was
/// nearly full went on to its own end: with one of the largest values there, the block was larger
/// than a block may be, and the server stopped; so did all others, and again after each restart.
#[test]
fn a_block_that_is_nearly_full_takes_the_largest_value_there_can_be() {
    let mut nodes = Nodes::tuned(1, Tuning { segment_bytes: 16 << 20, ..Tuning::default() });
    nodes.pass(200 * MS);
    for number in 0..950 {
        nodes.put(1, &format!("{number:0300}"));
    }
    let largest = nodes.put(1, &"z".repeat(1_572_800));
    nodes.pass(100 * MS);
    assert_eq!(nodes.answers.get(&largest), Some(&Answer::Done));
    let (save, _) = nodes.save(1);
    nodes.pass(3_000 * MS);
    assert_eq!(nodes.answers.get(&save), Some(&Answer::Done));
}

/// What is applied is mostly not durable yet where the disk is slower than the others'. While
/// somebody wrote, such a server never made a snapshot, and its log grew until its disk was full.
#[test]
fn a_server_whose_disk_is_always_behind_makes_snapshots() {
    let mut nodes = Nodes::tuned(3, Tuning { snapshot_entries: 10, ..Tuning::default() });
    nodes.pass(200 * MS);
    let leader = nodes.leader().expect("elected");
    nodes.hold_sync(leader);
    for _ in 0..100 {
        let put = nodes.put(leader, "key");
        nodes.pass(10 * MS);
        assert_eq!(nodes.answers.get(&put), Some(&Answer::Done), "the others have it");
        nodes.let_one_sync_through(leader);
        let status = nodes.status_of(leader);
        assert!(status.snapshot_index <= status.durable_index, "{status:?}");
    }
    assert!(nodes.status_of(leader).snapshot_index.get() > 50);
}
