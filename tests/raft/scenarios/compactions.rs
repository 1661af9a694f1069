//! A leader gives up old history by itself, through the log: when there is no room for that, it
//! waits, and does not forget.

use super::nodes::{Answer, Nodes, Tuning};
use raftd::limits::WorkingLimits;
use raftd::types::LogIndex;
use raftd::wire::client::Command;
use raftd::wire::error::Error;

const MS: u64 = 1_000_000;

/// Servers that are held back by the disks of two, and the third, which leads. Its disk works.
fn hold_the_others(nodes: &mut Nodes, leader: usize) -> [usize; 2] {
    let others: Vec<usize> = (1..=3).filter(|nth| *nth != leader).collect();
    for nth in &others {
        nodes.hold_sync(*nth);
    }
    [others[0], others[1]]
}

/// Puts until one is refused.
fn put_until_refused(nodes: &mut Nodes, nth: usize, key: &str) -> Error {
    for _ in 0..1_000 {
        let put = nodes.put(nth, key);
        nodes.pass(10 * MS);
        match nodes.answers.get(&put) {
            Some(Answer::Failed(error)) => return error.clone(),
            Some(
                Answer::Done
                | Answer::Term(_)
                | Answer::Times(_)
                | Answer::Leases(_)
                | Answer::Challenge(..)
                | Answer::LoggedIn(_),
            )
            | None => {}
        }
    }
    panic!("everything fits")
}

/// The entry with a compaction in it met a leader with as much as it may hold that is not
/// committed. It was refused, and thought to be on its way for as long as that leader led.
#[test]
fn a_compaction_that_was_refused_is_proposed_again() {
    // Ten puts of 13 bytes fit. Then there is no room for the command of a compaction, of 3 bytes;
    // or there is for that, and the core refuses the entry, which has a header of 5 bytes more.
    [130, 135].into_iter().for_each(propose_again);
}

fn propose_again(uncommitted_bytes_max: usize) {
    let working = WorkingLimits { uncommitted_bytes_max, ..WorkingLimits::default() };
    let mut nodes = Nodes::tuned(3, Tuning { working, ..Tuning::default() });
    let leader = nodes.leader().expect("elected");
    for _ in 0..20 {
        nodes.put(leader, "k");
        nodes.pass(20 * MS);
    }
    // The mark of the idle log tells this one that all of that is committed.
    nodes.pass(200 * MS);
    // From now on they keep less, and each finds at its start that it holds too much.
    nodes.tuning.history_bytes_max = 300;
    (1..=3).for_each(|nth| nodes.crash(nth));
    let other = leader % 3 + 1;
    nodes.hold_sync(other);
    nodes.boot(leader).expect("its disk is well");
    nodes.pass(500 * MS);
    nodes.boot(other).expect("its disk is well");
    // Its disk works for votes, one at a time, and stops in front of the entry that opens the term.
    for _ in 0..2_000 {
        if nodes.leader().is_some() {
            break;
        }
        nodes.pass(5 * MS);
        nodes.let_one_sync_through(other);
    }
    assert_eq!(nodes.leader(), Some(leader), "it had waited for long");
    let refused = put_until_refused(&mut nodes, leader, "k");
    assert!(matches!(&refused, Error::Busy { what } if what.contains("not committed yet")));
    let full = nodes.status_of(leader);
    assert_eq!(full.compact_revision.0, 0, "it may not say so before the term is open");
    nodes.let_one_sync_through(other);
    nodes.pass(20 * MS);
    let opened = nodes.status_of(leader);
    assert!(opened.commit_index > full.commit_index, "the term is open");
    assert_eq!(opened.last_index, full.last_index, "no room for a compaction");
    nodes.release_sync(other);
    nodes.pass(200 * MS);
    assert!(nodes.status_of(leader).compact_revision.0 > 0, "it was forgotten");
}

/// One compaction is on its way at a time; when it is done, the next one may be.
#[test]
fn a_leader_gives_up_its_history_again_and_again() {
    const MOST: u64 = 8 * 1024;
    for count in [1, 3] {
        let tuning = Tuning { history_bytes_max: MOST, ..Tuning::default() };
        let mut nodes = Nodes::tuned(count, tuning);
        nodes.pass(200 * MS);
        let leader = nodes.leader().expect("elected");
        let (mut times, mut compacted) = (0, nodes.status_of(leader).compact_revision);
        for _ in 0..600 {
            nodes.put(leader, "k");
            nodes.pass(5 * MS);
            let status = nodes.status_of(leader);
            assert!(status.history_bytes < MOST + 1024, "{} bytes", status.history_bytes);
            times += u64::from(status.compact_revision > compacted);
            compacted = status.compact_revision;
        }
        assert_eq!(nodes.leader(), Some(leader));
        // Each leaves half of it, some thirty puts.
        assert!((8..40).contains(&times), "{times} compactions of {count} servers");
    }
}

/// A put takes a page here and holds a few bytes. Counted in these, thirty segments are a log of no
/// size; on the disk they stand all the same.
#[test]
fn the_log_behind_small_snapshots_takes_few_segments_on_every_disk() {
    const A_SEGMENT_HOLDS: u64 = 16;
    for count in [1, 3] {
        let mut nodes = Nodes::tuned(count, Tuning { snapshot_entries: 20, ..Tuning::default() });
        nodes.pass(200 * MS);
        let leader = nodes.leader().expect("elected");
        for _ in 0..500 {
            nodes.put(leader, "k");
            nodes.pass(5 * MS);
        }
        nodes.pass(1_000 * MS);
        for nth in 1..=count {
            let status = nodes.status_of(nth);
            let (log_base, last) = (status.log_base.get(), status.last_index.get());
            assert!(last >= 500, "{last}");
            let since = last - status.snapshot_index.get();
            assert!(since <= 50, "node {nth} of {count} makes no snapshots: {since} entries");
            // What others lacked when the snapshot came into force is within the page or two that
            // a round takes.
            let before = status.snapshot_index.get() - log_base;
            assert!(before <= 2 * A_SEGMENT_HOLDS + 4, "{before} entries stay at {nth} of {count}");
            let files = nodes.image(nth).into_keys();
            let segments = files.filter(|name| name.starts_with("log/")).count();
            // Those of a hundred entries, two spares and one in the making.
            assert!(segments <= 7 + 3, "{segments} segments at {nth} of {count}");
        }
    }
}

/// Snapshots rest between one and the next. A log that grew fast took twice as many segments
/// meanwhile as the snapshots that it waited for.
#[test]
fn a_log_that_grows_fast_does_not_wait_for_the_next_snapshot() {
    let hour_ns = 3_600_000 * MS;
    for entries in [20, u64::MAX] {
        let tuning = Tuning {
            snapshot_entries: entries,
            snapshot_log_bytes: 20 * 4096,
            snapshot_interval_ns: hour_ns,
            ..Tuning::default()
        };
        let mut nodes = Nodes::tuned(1, tuning);
        nodes.pass(200 * MS);
        let (mut made, mut rested) = (0, 0);
        let mut last = nodes.status_of(1);
        for _ in 0..500 {
            nodes.put(1, "k");
            nodes.pass(5 * MS);
            let status = nodes.status_of(1);
            assert!(status.log_bytes <= 3 * tuning.segment_bytes, "{}", status.log_bytes);
            let since = status.last_index.get() - status.snapshot_index.get();
            rested = rested.max(since);
            made += u64::from(status.snapshot_index > last.snapshot_index);
            last = status;
        }
        assert!(made >= 500 / 32, "{made} snapshots");
        // Two segments are left to it, of some sixteen entries.
        assert!(made <= 500 / 16 && rested > 20, "{made} snapshots, up to {rested} entries apart");
    }
}

/// A log that took several segments while a snapshot was written was looked at one segment ahead
/// only: with a snapshot of many segments it grew by all the others beyond what that leaves it.
#[test]
fn a_log_that_grows_while_a_snapshot_is_written_leaves_room_for_that() {
    const SEGMENT: u64 = 64 * 1024;
    let tuning = Tuning {
        snapshot_entries: 20,
        snapshot_interval_ns: 3_600_000 * MS,
        history_bytes_max: 16 * 1024,
        ..Tuning::default()
    };
    let mut nodes = Nodes::tuned(1, tuning);
    nodes.pass(200 * MS);
    // Ten segments of values that stay.
    let value = vec![7; 8 * 1024];
    for nth in 0..80 {
        let key = format!("large{nth:02}");
        let put = nodes.command(1, None, Command::Put { key: key.as_bytes(), value: &value });
        nodes.pass(20 * MS);
        assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
    }
    nodes.pass(1_000 * MS);
    let (mut made, mut most) = (0, 0);
    let mut last = nodes.status_of(1);
    for nth in 0..1_200 {
        // Whatever is written in the background comes to an end every four segments.
        match nth % 64 {
            0 => nodes.hold_background(1),
            63 => nodes.release_background(1),
            _ => {}
        }
        nodes.put(1, "k");
        nodes.pass(5 * MS);
        let status = nodes.status_of(1);
        made += u64::from(status.snapshot_index > last.snapshot_index);
        if made >= 2 {
            most = status.log_bytes.max(most);
        }
        last = status;
    }
    assert!(last.snapshot_bytes > 10 * SEGMENT, "{}", last.snapshot_bytes);
    let may = last.snapshot_bytes + 2 * SEGMENT;
    assert!(most <= may, "{most} bytes of log, {} of snapshot", last.snapshot_bytes);
    assert!((4..20).contains(&made), "{made} snapshots");
}

/// It waited for room to open its term, and sent its clients to a leader that could not be.
#[test]
fn a_server_alone_whose_disk_is_full_says_so_after_a_restart() {
    let mut nodes = Nodes::tuned(1, Tuning::default());
    nodes.pass(200 * MS);
    nodes.fill_disk(1);
    assert_eq!(put_until_refused(&mut nodes, 1, &"k".repeat(300)), Error::NoSpace);
    nodes.crash(1);
    nodes.boot(1).expect("it needs no more than it has");
    nodes.pass(5_000 * MS);
    assert_eq!(nodes.leader(), None);
    assert_eq!(put_until_refused(&mut nodes, 1, "k"), Error::NoSpace);
}

/// Restarted with full disks, none of them can lead. Each said that it knew no leader, and none
/// what was to be done.
#[test]
fn servers_whose_disks_are_full_say_so_after_a_restart() {
    let mut nodes = Nodes::new(3);
    nodes.pass(200 * MS);
    (1..=3).for_each(|nth| nodes.fill_disk(nth));
    for _ in 0..200 {
        let leader = nodes.leader().unwrap_or(1);
        nodes.put(leader, &"k".repeat(3_000));
        nodes.pass(20 * MS);
    }
    (1..=3).for_each(|nth| nodes.crash(nth));
    (1..=3).for_each(|nth| nodes.boot(nth).expect("it needs no more than it has"));
    nodes.pass(5_000 * MS);
    assert_eq!(nodes.leader(), None);
    for nth in 1..=3 {
        assert_eq!(put_until_refused(&mut nodes, nth, "k"), Error::NoSpace, "node {nth}");
    }
}

/// As long as a quorum has space, nobody need hear that the leader has none.
#[test]
fn a_leader_without_space_hands_over_before_it_refuses_a_put() {
    let mut nodes = Nodes::tuned(3, Tuning::default());
    nodes.pass(200 * MS);
    let cramped = nodes.leader().expect("elected");
    nodes.fill_disk(cramped);
    for _ in 0..1_000 {
        if nodes.leader() != Some(cramped) {
            break;
        }
        let put = nodes.put(cramped, &"k".repeat(300));
        nodes.pass(20 * MS);
        let answer = nodes.answers.get(&put);
        assert_ne!(answer, Some(&Answer::Failed(Error::NoSpace)), "and it leads on");
    }
    let other = nodes.leader().expect("it had everything");
    assert_ne!(other, cramped);
    let put = nodes.put(other, "k");
    nodes.pass(100 * MS);
    assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
}

/// The history grew beyond its bound by entries that filled the disk: a leader without room for one
/// more record proposed the compaction all the same, and the log panicked.
#[test]
fn a_compaction_without_room_waits() {
    for key_bytes in (1..400).step_by(20) {
        let tuning = Tuning { history_bytes_max: 300, ..Tuning::default() };
        let mut nodes = Nodes::tuned(3, tuning);
        nodes.pass(200 * MS);
        let leader = nodes.leader().expect("elected");
        nodes.fill_disk(leader);
        let [one, other] = hold_the_others(&mut nodes, leader);
        let refused = put_until_refused(&mut nodes, leader, &"k".repeat(key_bytes));
        assert_eq!(refused, Error::NoSpace);
        assert!(nodes.status_of(leader).out_of_space);
        nodes.release_sync(one);
        nodes.release_sync(other);
        nodes.pass(200 * MS);
        let status = nodes.status_of(leader);
        assert_eq!(status.commit_index, status.last_index);
        assert!(status.history_bytes > 300, "a compaction is due");
        assert_eq!(status.compact_revision.0, 0, "and has no room");
    }
}

/// The end of each job for another file put off the next look for space.
#[test]
fn a_server_sees_that_there_is_space_again_whatever_else_its_disk_does() {
    let tuning = Tuning { snapshot_entries: 1, segment_bytes: 256 * 1024, ..Tuning::default() };
    let mut nodes = Nodes::tuned(1, tuning);
    nodes.pass(200 * MS);
    // Enough for a snapshot, and not for a segment.
    nodes.leave_space(1, 200_000);
    while !nodes.status_of(1).out_of_space {
        nodes.put(1, "k");
        nodes.pass(5 * MS);
    }
    nodes.empty_disk(1);
    let made = nodes.status_of(1).snapshot_index;
    for _ in 0..7 {
        nodes.put(1, "k");
        nodes.pass(100 * MS);
    }
    let status = nodes.status_of(1);
    assert!(status.snapshot_index >= made.advanced_by(4), "a snapshot for every other put");
    assert!(!status.out_of_space, "it has not looked");
}

/// Under load an entry holds hundreds of writes, and a thousand of those are as much log as a
/// snapshot of the whole state: the disk then held more than three of them.
#[test]
fn few_entries_that_are_much_log_make_a_snapshot_due() {
    let tuning = Tuning { snapshot_log_bytes: 100_000, ..Tuning::default() };
    let mut nodes = Nodes::tuned(1, tuning);
    nodes.pass(200 * MS);
    for _ in 0..9 {
        nodes.put(1, &"k".repeat(3000));
        nodes.pass(5 * MS);
    }
    assert_eq!(
        nodes.status_of(1).snapshot_index,
        LogIndex::ZERO,
        "27 kB are not, with all that is beside them on the disk"
    );
    for _ in 0..25 {
        nodes.put(1, &"k".repeat(3000));
        nodes.pass(5 * MS);
    }
    nodes.pass(100 * MS);
    let made = nodes.status_of(1).snapshot_index;
    assert!(made > LogIndex::ZERO, "102 kB are enough");
    nodes.pass(5_000 * MS);
    assert_eq!(nodes.status_of(1).snapshot_index, made, "none of the same again");
}

/// On a full disk a snapshot does not wait for its interval, since it may free space. One that
/// found none was begun anew at once, hundreds of times a second, with a line in the log each time;
/// what it wrote took the last of the space, so that none was left for the segment that was wanted.
#[test]
fn a_snapshot_that_finds_no_space_is_tried_again_after_a_while() {
    let tuning = Tuning { snapshot_entries: 5, ..Tuning::default() };
    let mut nodes = Nodes::tuned(1, tuning);
    nodes.pass(200 * MS);
    nodes.fill_disk(1);
    assert_eq!(put_until_refused(&mut nodes, 1, &"k".repeat(300)), Error::NoSpace);
    nodes.pass(500 * MS);
    let before = nodes.writes_refused(1);
    nodes.pass(10_000 * MS);
    let tried = nodes.writes_refused(1) - before;
    assert!((5..=25).contains(&tried), "{tried} times in ten seconds");
}

/// Where all were cramped, they handed over to each other, and each opened its term with the last
/// of its space; then no leader could commit anything, and nobody could read.
#[test]
fn where_no_server_has_space_the_leader_stays_and_is_read() {
    let mut nodes = Nodes::tuned(3, Tuning::default());
    nodes.pass(200 * MS);
    (1..=3).for_each(|nth| nodes.fill_disk(nth));
    let leader = nodes.leader().expect("elected");
    let refused = put_until_refused(&mut nodes, leader, &"k".repeat(300));
    assert_eq!(refused, Error::NoSpace);
    let before = nodes.status_of(leader);
    nodes.pass(20_000 * MS);
    let after = nodes.status_of(leader);
    assert_eq!((after.role.as_str(), after.term), ("leader", before.term));
}
