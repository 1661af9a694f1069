//! A new cluster out of an old one: of the last server that is left, or of a snapshot that was
//! saved. The others may come back at any time, with all that they know.

use super::nodes::{Answer, CLUSTER, Nodes, Tuning, id};
use crate::wal::sim_disk::{Image, SimDisk};
use crate::wal::support::options;
use raftd::config::MemberAddress;
use raftd::replica::{Begun, NewMember, RestoreId, Start, restore_member};
use raftd::types::DiskId;
use raftd::wal::{self, Options};
use raftd::wire::status::Status;

const MS: u64 = 1_000_000;

fn put(nodes: &mut Nodes, nth: usize, key: &str) {
    let put = nodes.put(nth, key);
    nodes.pass(100 * MS);
    assert_eq!(nodes.answers.get(&put), Some(&Answer::Done), "{key}");
}

/// Three servers that hold `old`, all of them down; the one that led, and the others.
fn lost(snapshot_entries: u64) -> (Nodes, usize, [usize; 2]) {
    let mut nodes = Nodes::tuned(3, Tuning { snapshot_entries, ..Tuning::default() });
    nodes.pass(200 * MS);
    let leader = nodes.leader().expect("elected");
    (0..3).for_each(|_| put(&mut nodes, leader, "old"));
    nodes.pass(100 * MS);
    (1..=3).for_each(|nth| nodes.crash(nth));
    let others: Vec<usize> = (1..=3).filter(|nth| *nth != leader).collect();
    (nodes, leader, [others[0], others[1]])
}

fn force(nodes: &mut Nodes, nth: usize) -> Status {
    nodes.tuning.start = Start::NewCluster;
    nodes.boot(nth).expect("its disk is well");
    nodes.tuning.start = Start::AsItIs;
    nodes.pass(1_000 * MS);
    nodes.status_of(nth)
}

#[test]
fn a_survivor_that_is_forced_leads_alone_with_all_that_it_has() {
    let (mut nodes, survivor, _) = lost(u64::MAX);
    let status = force(&mut nodes, survivor);
    assert_eq!((status.role.as_str(), status.keys), ("leader", 1));
    assert_ne!(status.cluster_id, CLUSTER);
    put(&mut nodes, survivor, "new"); // without a quorum of three
}

/// Its removal has reached its log, and whoever knows whether it was decided is lost.
#[test]
fn a_survivor_that_was_about_to_be_removed_can_be_forced() {
    let (mut nodes, leader, [survivor, other]) = Nodes::cluster();
    put(&mut nodes, leader, "old");
    nodes.pass(100 * MS);
    nodes.hold_sync(other);
    let before = nodes.last_of(survivor);
    nodes.remove_member(leader, survivor);
    nodes.pass_until(|nodes| nodes.last_of(survivor).index > before.index);
    (1..=3).for_each(|nth| nodes.crash(nth));
    let status = force(&mut nodes, survivor);
    assert_eq!((status.role.as_str(), status.keys), ("leader", 1));
    put(&mut nodes, survivor, "new");
    nodes.crash(survivor);
    nodes.boot(survivor).expect("its disk is well");
    nodes.pass(1_000 * MS);
    put(&mut nodes, survivor, "newer");
}

#[test]
fn the_others_are_of_another_cluster_after_a_restart_too() {
    let (mut nodes, survivor, [one, other]) = lost(u64::MAX);
    let forced = force(&mut nodes, survivor);
    nodes.crash(survivor);
    nodes.boot(survivor).expect("its disk is well");
    nodes.boot(one).expect("its disk is well");
    nodes.boot(other).expect("its disk is well");
    nodes.pass(2_000 * MS);
    put(&mut nodes, survivor, "new");
    let status = nodes.status_of(survivor);
    assert_eq!((status.role.as_str(), status.keys), ("leader", 2));
    assert_eq!(status.cluster_id, forced.cluster_id);
    for nth in [one, other] {
        let status = nodes.status_of(nth);
        assert_eq!((status.cluster_id, status.keys), (CLUSTER, 1), "server {nth}");
    }
}

/// The names of the snapshots on a disk, which say what is in them.
fn snapshots(image: &Image) -> Vec<String> {
    image.keys().filter(|name| name.ends_with(".snap")).cloned().collect()
}

/// Nobody of the new cluster could take what names the old one.
#[test]
fn a_snapshot_of_the_old_cluster_is_followed_by_one_of_the_new() {
    let (mut nodes, survivor, _) = lost(1);
    let old = snapshots(&nodes.image(survivor));
    assert_eq!(old.len(), 1);
    nodes.tuning.snapshot_entries = u64::MAX;
    force(&mut nodes, survivor);
    let new = snapshots(&nodes.image(survivor));
    assert_eq!(new.len(), 1);
    assert_ne!(new, old, "though none is due");
}

/// Puts a directory that is restored from the snapshot on the disk of `from` into `nth`; with what
/// bump, and of which restore.
fn restore(nodes: &mut Nodes, from: &SimDisk, nth: usize, (bump, of): (u64, u128)) -> Begun {
    let options =
        |nth: usize| Options { cluster_id: None, token_hash: 0, node: id(nth), ..options() };
    let (_, recovered) = wal::open(from.disk(), &options(1)).expect("it can be opened");
    let source = recovered.snapshot.expect("it has one");
    let member = |nth| MemberAddress { id: id(nth), address: format!("sim:{nth}") };
    let disk_id_if_new = DiskId(0xd15c + u128::try_from(nth).expect("small"));
    let wal = Options { disk_id_if_new, ..options(nth) };
    let (members, restore_id) = ((1..=3).map(member).collect(), RestoreId(of));
    let new = NewMember { members, bump, restore_id, wal };
    let disk = SimDisk::new(70);
    let begun = restore_member(&source, &new, &disk, &mut |_| {}).expect("the snapshot is whole");
    nodes.replace_disk(nth, &disk.image());
    begun
}

/// The old cluster went on after the save. Whoever followed it has seen revisions that the file
/// does not know, and must not see them again with something else in them.
#[test]
fn a_restored_cluster_begins_beyond_the_revisions_of_the_old_one() {
    let (mut nodes, saved, _) = lost(1);
    let from = SimDisk::from_image(&nodes.image(1), 5);
    let begun: Vec<Begun> =
        (1..=3).map(|nth| restore(&mut nodes, &from, nth, (1_000, 4))).collect();
    assert_eq!(begun[0], begun[1]);
    assert_eq!(begun[0], begun[2]);
    assert_eq!(begun[0].keys, 1);
    assert!(begun[0].revision.0 > 1_000);
    (1..=3).for_each(|nth| nodes.boot(nth).expect("it was just made"));
    nodes.pass(2_000 * MS);
    let leader = nodes.leader().expect("all three are new");
    put(&mut nodes, leader, "new");
    let status = nodes.status_of(saved);
    assert_eq!(status.cluster_id, begun[0].cluster_id);
    assert_eq!(status.revision, begun[0].revision.next());
    assert_eq!(status.compact_revision, begun[0].revision);
}

/// What the first cluster has given, credentials say, it gives to somebody else.
#[test]
fn a_file_that_is_restored_twice_makes_two_clusters() {
    let (mut nodes, ..) = lost(1);
    let from = SimDisk::from_image(&nodes.image(1), 5);
    let [one, again, other] = [4, 4, 5].map(|of| restore(&mut nodes, &from, 1, (1_000, of)));
    assert_eq!(one, again, "all members of one restore agree");
    assert_ne!(one.cluster_id, other.cluster_id);
    assert_eq!(one.state_hash, other.state_hash);
    // Members of both do not talk.
    restore(&mut nodes, &from, 2, (1_000, 4));
    restore(&mut nodes, &from, 3, (1_000, 4));
    (1..=3).for_each(|nth| nodes.boot(nth).expect("it was just made"));
    nodes.pass(2_000 * MS);
    assert_eq!(nodes.leader(), None);
    let heard = |nth| -> Vec<(u64, bool)> {
        let peers = nodes.status_of(nth).peers;
        peers.iter().map(|peer| (peer.node.get(), peer.connected)).collect()
    };
    assert_eq!(heard(1), [(2, false), (3, false)]);
    assert_eq!(heard(2), [(1, false), (3, true)], "those of one restore do");
}
