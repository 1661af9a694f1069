//! Schedules about the record on disk and about clients, with whole nodes.

use super::nodes::{Answer, Nodes, Tuning};
use crate::wal::sim_disk::{Image, SimDisk};
use crate::wal::support::{Driver, index, node};
use raftd::replica::Fatal;
use raftd::types::{HardState, Term, Vote};
use raftd::wal::{DamageExtent, OpenError};
use raftd::wire::error::Error;

const MS: u64 = 1_000_000;
const SEGMENT: &str = "log/00000000000000000001.seg";

fn put(nodes: &mut Nodes, nth: usize, key: &str) {
    let put = nodes.put(nth, key);
    nodes.pass(100 * MS);
    assert_eq!(nodes.answers.get(&put), Some(&Answer::Done), "{key}");
}

/// I4 (`KurrentDB` 3472 acknowledged an entry that another had replaced): the process of a leader
/// is stopped with a put in its log and nowhere else. When it goes on, the first it hears is that
/// another leads and that the empty entry which opens its term, at the same index, is committed:
/// all in one turn. The client is not told "done", but it is told.
#[test]
fn a_client_whose_entry_was_replaced_hears_that_its_outcome_is_unknown() {
    let (mut nodes, old, [one, other]) = Nodes::cluster();
    put(&mut nodes, old, "before");
    let last = nodes.status_of(old).last_index;
    let lost = nodes.put(old, "lost");
    nodes.turn_and_freeze(old);
    assert_eq!(nodes.status_of(old).last_index, last.next());
    nodes.pass_until(|nodes| nodes.leader().is_some());
    nodes.pass(500 * MS);
    let new = nodes.leader().expect("one of the others");
    assert!(new == one || new == other);
    assert_eq!(nodes.status_of(new).commit_index, last.next(), "only its empty entry is new");
    nodes.thaw(old);
    assert_eq!(nodes.status_of(old).commit_index, last.next());
    assert_eq!(nodes.answers.get(&lost), Some(&Answer::Failed(Error::OutcomeUnknown)));
}

/// The same of a change of the members, with another leader's change at the same index.
#[test]
fn who_asked_for_a_change_that_another_one_replaced_hears_that_its_outcome_is_unknown() {
    let (mut nodes, old, [one, _]) = Nodes::cluster();
    put(&mut nodes, old, "before");
    let prev = nodes.last_of(old);
    let lost = nodes.put(old, "lost");
    let changed = nodes.remove_member(old, one);
    nodes.turn_and_freeze(old);
    let last = prev.index.next().next();
    assert_eq!(nodes.status_of(old).last_index, last);
    nodes.forge_change((one, old), prev, &[old, one]);
    nodes.thaw(old);
    assert_eq!(nodes.status_of(old).commit_index, last, "in one turn");
    for asked in [lost, changed] {
        assert_eq!(nodes.answers.get(&asked), Some(&Answer::Failed(Error::OutcomeUnknown)));
    }
}

/// The same where no other change comes: the entry that replaces it is of another kind.
#[test]
fn who_asked_for_a_change_that_was_replaced_hears_so_though_nobody_changes_anything() {
    let (mut nodes, old, [one, _]) = Nodes::cluster();
    put(&mut nodes, old, "before");
    let last = nodes.status_of(old).last_index;
    let changed = nodes.remove_member(old, one);
    nodes.turn_and_freeze(old);
    assert_eq!(nodes.status_of(old).last_index, last.next());
    nodes.pass_until(|nodes| nodes.leader().is_some());
    nodes.pass(500 * MS);
    nodes.thaw(old);
    nodes.pass(500 * MS);
    assert_eq!(nodes.answers.get(&changed), Some(&Answer::Failed(Error::OutcomeUnknown)));
    // The next one is done, by the leader of now.
    let new = nodes.leader().expect("all are well");
    let again = nodes.remove_member(new, old);
    nodes.pass(1_000 * MS);
    assert_eq!(nodes.answers.get(&again), Some(&Answer::Done));
}

/// C4 (openraft's `io_ordering.md`), in the record: an entry of term 5 never stands on the disk of
/// a server that would still follow a leader of term 1, wherever the power goes.
#[test]
fn no_power_loss_leaves_an_entry_without_its_term() {
    let (mut both, mut neither) = (0, 0);
    for seed in 0..40 {
        for operations in 0..12 {
            let mut driver = Driver::open(&SimDisk::new(seed)).unwrap();
            let before = HardState { term: Term::new(1), vote: Vote::For(node(1)) };
            driver.wal.set_hard_state(before, 9);
            driver.append(1, 100);
            driver.sync(0).unwrap();
            let hard_state = HardState { term: Term::new(5), vote: Vote::None };
            driver.wal.set_hard_state(hard_state, 9);
            driver.append(5, 100);
            driver.disk.light_fuse(operations);
            let synced = driver.sync(0).is_ok();
            driver.disk.power_loss();
            let recovered = Driver::open(&driver.disk).unwrap().recovered;
            let (term, last) = (recovered.hard_state.term, recovered.last);
            assert!(last.term <= term, "{last} under term {term}: seed {seed}, {operations}");
            assert!(!synced || last.index == index(2), "synced and lost");
            both += u64::from(last.index == index(2));
            neither += u64::from(last.index == index(1));
        }
    }
    assert!(both > 50, "the power went too early");
    assert!(neither > 50, "or too late");
}

/// C7 (rostam 94, camunda 14866, dragonboat PR 409): a sync fails, the kernel calls the pages
/// clean, and the next sync of the same file succeeds. What the failed one was for is not
/// acknowledged: the node stops, and believes only the disk when it starts again.
#[test]
fn a_node_whose_sync_failed_stops_and_has_acknowledged_nothing_of_it() {
    let (mut nodes, leader, [failing, away]) = Nodes::cluster();
    nodes.cut(leader, away);
    nodes.cut(failing, away);
    nodes.hold_sync(failing);
    let before = nodes.status_of(failing).durable_index;
    let wanted = nodes.put(leader, "wanted");
    nodes.pass(50 * MS);
    assert_eq!(nodes.status_of(failing).last_index, before.next());
    assert_eq!(nodes.answers.get(&wanted), None, "one disk of three");
    nodes.fail_sync(failing);
    assert!(matches!(nodes.fatal(failing), Some(Fatal::Disk(_))));
    assert_eq!(nodes.answers.get(&wanted), None, "it was never durable there");
    nodes.boot(failing).expect("the record is whole up to there");
    assert_eq!(nodes.status_of(failing).durable_index, before, "the page cache is no disk");
    nodes.release_sync(failing);
    nodes.mend();
    nodes.pass(2_000 * MS);
    let leader = nodes.leader().expect("all are well");
    put(&mut nodes, leader, "later");
    let agreed = nodes.status_of(leader).state_hash;
    nodes.pass(200 * MS);
    for nth in 1..=3 {
        assert_eq!(nodes.status_of(nth).state_hash, agreed, "node {nth}");
    }
}

/// Flips a bit in the value of `key`, as it lies on the disk.
fn rot(image: &mut Image, key: &str) {
    let bytes = image.get_mut(SEGMENT).expect("the first segment");
    let at = bytes.windows(key.len()).position(|window| window == key.as_bytes());
    bytes[at.expect("it was put")] ^= 0x10;
}

/// C8 ("Protocol-aware recovery" on LogCabin and ZooKeeper, ra 299, nats PR 7587): a bit of a
/// committed entry rots on one of the two disks that are left. Taken for the torn end of the log,
/// it would be cut off, and the two would elect a leader without it. The node refuses to start, and
/// the other waits for the third.
#[test]
fn a_committed_entry_that_rotted_is_not_taken_for_the_end_of_the_log() {
    let (mut nodes, leader, [rotten, sound]) = Nodes::cluster();
    nodes.cut(leader, sound);
    nodes.cut(rotten, sound);
    put(&mut nodes, leader, "precious");
    nodes.crash(rotten);
    nodes.crash(leader);
    nodes.mend();
    let mut image = nodes.image(rotten);
    rot(&mut image, "precious");
    nodes.replace_disk(rotten, &image);
    let Err(OpenError::Damaged(damage)) = nodes.boot(rotten) else { panic!("it started") };
    let entry = nodes.status_of(sound).last_index.next();
    assert_eq!(damage.extent, DamageExtent::Entries { first: entry, last: entry });
    assert_eq!(nodes.image(rotten), image, "and nothing was changed");
    nodes.pass(3_000 * MS);
    assert_eq!(nodes.leader(), None, "one of three");
    nodes.boot(leader).expect("its disk is well");
    nodes.pass_until(|nodes| nodes.leader().is_some());
    nodes.pass(300 * MS);
    assert_eq!(nodes.leader(), Some(leader), "the other lacks the entry");
    assert_eq!(nodes.status_of(leader).keys, 1);
    assert_eq!(nodes.status_of(sound).keys, 1);
}

/// While a leader's disk hung, the others have made committed what it writes next. If the power
/// goes in the middle of that, its log ends earlier: it had acknowledged nothing of it, so nothing
/// is damaged.
#[test]
fn what_only_others_have_on_disk_may_be_torn_off_a_disk() {
    let mut torn = 0;
    for seed in 0..20 {
        let (mut nodes, leader, _) = Nodes::cluster();
        nodes.hold_sync(leader);
        put(&mut nodes, leader, "first");
        for nth in 0..3 {
            put(&mut nodes, leader, &nth.to_string().repeat(2_000));
        }
        let committed = nodes.status_of(leader).commit_index;
        nodes.let_one_sync_through(leader);
        nodes.crash_in_sync(leader, 1, seed);
        nodes.boot(leader).expect("nothing that it had promised is gone");
        torn += u64::from(nodes.status_of(leader).last_index < committed);
        nodes.release_sync(leader);
        nodes.pass_until(|nodes| nodes.leader().is_some());
        nodes.pass(1_000 * MS);
        assert_eq!(nodes.status_of(leader).keys, 4);
    }
    assert!(torn > 5, "the power went too late");
}

/// What others have made committed is applied here before it is durable here. A snapshot of that
/// would be in force, if the power goes in time, with a log that ends before it.
#[test]
fn a_snapshot_waits_until_all_of_it_is_in_the_log_on_this_disk() {
    for operations in 0..7 {
        let mut nodes = Nodes::tuned(3, Tuning { snapshot_entries: 1, ..Tuning::default() });
        nodes.pass(200 * MS);
        let leader = nodes.leader().expect("elected");
        nodes.hold_sync(leader);
        (0..4).for_each(|_| put(&mut nodes, leader, "applied and not durable"));
        nodes.let_one_sync_through(leader);
        nodes.crash_in_sync(leader, operations, operations);
        nodes.boot(leader).expect("its log has all that its snapshot stands for");
    }
}

/// Or a disk that is slow for a moment costs its server a snapshot, and the log goes on meanwhile.
#[test]
fn what_a_follower_has_not_acknowledged_yet_stays_in_the_log() {
    let mut nodes = Nodes::tuned(3, Tuning { snapshot_entries: 4, ..Tuning::default() });
    nodes.pass(200 * MS);
    let leader = nodes.leader().expect("elected");
    let slow = leader % 3 + 1;
    put(&mut nodes, leader, "both have it");
    nodes.hold_sync(slow);
    let acknowledged = nodes.status_of(slow).durable_index;
    // Each fills a page, and sixteen of them a segment; all of them before the silence counts.
    let write = |nodes: &mut Nodes| {
        for _ in 0..60 {
            nodes.put(leader, "one has it");
            nodes.pass(10 * MS);
        }
    };
    write(&mut nodes);
    let status = nodes.status_of(leader);
    assert!(status.snapshot_index > acknowledged, "it stands for more");
    assert!(status.log_base <= acknowledged, "{} {acknowledged}", status.log_base);
    nodes.release_sync(slow);
    write(&mut nodes);
    assert!(nodes.status_of(leader).log_base > acknowledged, "now it may go");
}

/// C9 (openraft's FAQ, dragonboat 256, tigerbeetle PR 2996), and what became of it when members
/// were changed, E12 (`RethinkDB` 5289): a server loses its disk, comes back under its old name,
/// and would vote for one that lacks what it had helped to commit.
#[test]
fn a_server_that_lost_its_disk_votes_for_nobody() {
    let (mut nodes, leader, [wiped, behind]) = Nodes::cluster();
    nodes.cut(leader, behind);
    nodes.cut(wiped, behind);
    put(&mut nodes, leader, "precious");
    nodes.crash(wiped);
    nodes.crash(leader);
    nodes.mend();
    nodes.replace_disk(wiped, &Image::new());
    nodes.boot(wiped).expect("an empty disk can be opened");
    nodes.pass(3_000 * MS);
    let Some(Fatal::Refused(why)) = nodes.fatal(wiped) else { panic!("it takes part") };
    assert!(why.contains("it is new or was emptied"), "{why}");
    assert_eq!(nodes.leader(), None, "one of three");
    nodes.boot(leader).expect("its disk is well");
    nodes.pass_until(|nodes| nodes.leader().is_some());
    assert_eq!(nodes.leader(), Some(leader), "the other lacks the entry");
    nodes.pass(300 * MS);
    assert_eq!(nodes.status_of(behind).keys, 1);
}

/// B10 (cockroach PR 63302): entries that were overwritten lived on in a cache beside the log, and
/// were applied and sent in the place of those that had overwritten them.
#[test]
fn what_was_overwritten_is_neither_applied_nor_sent_afterwards() {
    let (mut nodes, old, [one, other]) = Nodes::cluster();
    nodes.cut(old, one);
    nodes.cut(old, other);
    let lost: Vec<u64> = (0..6).map(|nth| nodes.put(old, &format!("lost-{nth}"))).collect();
    nodes.pass(20 * MS);
    nodes.crash(other);
    nodes.boot(other).expect("its disk is well");
    nodes.pass(1_500 * MS);
    let new = nodes.leader().expect("one of the others");
    assert_ne!(new, old);
    for nth in 0..4 {
        put(&mut nodes, new, &format!("kept-{nth}"));
    }
    nodes.mend();
    nodes.pass(1_000 * MS);
    for put in lost {
        assert_eq!(nodes.answers.get(&put), Some(&Answer::Failed(Error::OutcomeUnknown)));
    }
    // Whoever leads next, all hold the same: the old leader serves from its log what it was sent.
    nodes.crash(new);
    nodes.pass_until(|nodes| nodes.leader().is_some());
    let next = nodes.leader().expect("just seen");
    put(&mut nodes, next, "more");
    nodes.boot(new).expect("its disk is well");
    nodes.pass(1_000 * MS);
    for nth in 1..=3 {
        assert_eq!(nodes.status_of(nth).keys, 5, "node {nth}");
        assert_eq!(nodes.status_of(nth).state_hash, nodes.status_of(next).state_hash);
    }
}

/// B9 (aeron PR 1898): a server that restarts replays its whole log, entries included that were
/// never committed.
#[test]
fn a_restart_applies_what_is_known_to_be_committed_and_no_more() {
    let (mut nodes, old, [one, other]) = Nodes::cluster();
    put(&mut nodes, old, "kept");
    nodes.pass(100 * MS);
    let committed = nodes.status_of(old).commit_index;
    nodes.cut(old, one);
    nodes.cut(old, other);
    nodes.put(old, "lost");
    nodes.pass(20 * MS);
    assert_eq!(nodes.status_of(old).durable_index, committed.next());
    nodes.crash(old);
    nodes.boot(old).expect("its disk is well");
    nodes.pass(20 * MS);
    let status = nodes.status_of(old);
    assert_eq!(status.last_index, committed.next());
    assert!(status.applied_index <= committed, "{status:?}");
    assert!(status.keys <= 1, "{status:?}");
}

/// A follower without a prepared segment cannot lead, and so does not look at its election
/// deadline; it must not look at the clock all the time for it either.
#[test]
fn a_follower_without_room_and_without_a_leader_sleeps() {
    let (mut nodes, leader, [full, other]) = Nodes::cluster();
    nodes.fill_disk(full);
    let mut key = 0;
    while nodes.status_of(leader).last_index <= nodes.status_of(full).last_index.advanced_by(2) {
        nodes.put(leader, &format!("key-{key}"));
        nodes.pass(20 * MS);
        key += 1;
        assert!(key < 1_000, "{:?}", nodes.status_of(full));
    }
    assert!(nodes.status_of(full).out_of_space);
    nodes.crash(leader);
    nodes.crash(other);
    nodes.pass(2_000 * MS);
    assert!(nodes.sleeps(full), "it wants to be woken in the past");
}

/// A vote is written without an entry, so there is nothing to mark as durable afterwards. The
/// deadline for the mark is not to stand in the past until the next entry comes.
#[test]
fn a_server_that_has_voted_and_hears_nothing_more_sleeps() {
    let (mut nodes, leader, [voter, other]) = Nodes::cluster();
    nodes.hold_sync(voter);
    let term = nodes.status_of(voter).term;
    nodes.crash(leader);
    nodes.pass_until(|nodes| nodes.status_of(voter).term > term);
    nodes.crash(other);
    nodes.release_sync(voter);
    nodes.pass(50 * MS);
    assert!(nodes.sleeps(voter), "it wants to be woken in the past");
}

/// A server loses its power between our hello and its welcome, and cannot say so. We said all that
/// we had to say, so nothing tells us either: only our own clock can.
#[test]
fn a_handshake_that_nobody_answers_is_begun_anew() {
    let (mut nodes, leader, [mute, _]) = Nodes::cluster();
    nodes.crash(mute);
    nodes.boot(mute).expect("its disk is well");
    nodes.freeze(mute);
    nodes.pass(200 * MS);
    nodes.vanish(mute);
    nodes.boot(mute).expect("its disk is well");
    nodes.pass(2_000 * MS);
    put(&mut nodes, leader, "later");
    assert_eq!(nodes.status_of(mute).last_index, nodes.status_of(leader).last_index);
}

/// A new leader that applied the last entry of its predecessor and its own first one in the same
/// turn counted on from an older stamp: time stood still until it had made up for that, and no
/// session ended meanwhile.
#[test]
fn a_leader_counts_on_from_the_last_stamp_whichever_turn_applies_it() {
    let mut nodes = Nodes::new(1);
    put(&mut nodes, 1, "early");
    nodes.pass(60_000 * MS);
    let late = nodes.put(1, "late");
    nodes.pass(5 * MS); // not long enough for a mark that it is committed
    assert_eq!(nodes.answers.get(&late), Some(&Answer::Done));
    let last = nodes.stamp_ms_of(1);
    assert!(last >= 60_000);
    nodes.crash(1);
    nodes.boot(1).expect("its disk is well");
    assert!(nodes.stamp_ms_of(1) < last, "nobody knows yet that the last entry is committed");
    nodes.pass(10_000 * MS);
    put(&mut nodes, 1, "later");
    assert!(nodes.stamp_ms_of(1) >= last + 5_000, "{} after {last}", nodes.stamp_ms_of(1));
}
