//! Ranges that take many turns, of clients that go away, and of a server whose state comes anew.

use super::nodes::{Answer, Nodes, Tuning};
use raftd::limits::{WAITING_READ_BYTES_MAX, WorkingLimits};
use raftd::replica::ConnectionId;
use raftd::types::Revision;
use raftd::wire::client::{Command, Consistency, RangeArgs};
use raftd::wire::error::Error;

const MS: u64 = 1_000_000;

/// A node with twenty keys that looks at one key in several turns.
fn with_keys() -> Nodes {
    let working = WorkingLimits { range_steps: 1, range_part_bytes: 1, ..WorkingLimits::default() };
    Nodes::with_twenty_keys(working)
}

/// Asks for all keys, and waits until that is under way.
fn begin(nodes: &mut Nodes) -> (u64, ConnectionId) {
    let asked = nodes.read_all(1);
    for _ in 0..20 {
        nodes.one_turn(1);
        if nodes.kept_for_ranges(1).is_some() {
            return asked;
        }
    }
    panic!("it is answered at once");
}

#[test]
fn a_range_takes_many_turns_and_then_lets_go() {
    let mut nodes = with_keys();
    let (number, _) = begin(&mut nodes);
    assert_eq!(nodes.kept_for_ranges(1), Some(Revision(21)));
    let put = nodes.put(1, "k00");
    nodes.pass(500 * MS);
    assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
    assert_eq!(nodes.answers.get(&number), Some(&Answer::Done));
    assert_eq!(nodes.kept_for_ranges(1), None);
}

#[test]
fn a_client_that_goes_away_ends_its_range() {
    let mut nodes = with_keys();
    let (_, connection) = begin(&mut nodes);
    let (other, _) = nodes.read_all(1);
    nodes.one_turn(1);
    nodes.hang_up(1, connection);
    nodes.pass(500 * MS);
    assert_eq!(nodes.kept_for_ranges(1), None);
    assert_eq!(nodes.answers.get(&other), Some(&Answer::Done), "it is not in its way");
}

/// Others read large values, slowly enough that there is never room for more. Whose range waited
/// for that was looked at in turn after turn once its client's patience seemed to be at an end,
/// though that had read everything.
#[test]
fn a_range_that_waits_for_room_lets_the_server_sleep() {
    let mut nodes = with_keys();
    nodes.command(1, None, Command::Put { key: b"large", value: &vec![7; 1_500_000] });
    nodes.pass(500 * MS);
    let (number, _) = begin(&mut nodes);
    let others: Vec<ConnectionId> = (0..25).map(|_| nodes.read_unread(1, "large", 10)).collect();
    for _ in 0..31 * 4 {
        nodes.pass(250 * MS);
        others.iter().for_each(|other| nodes.take_some(1, *other, 70_000));
        assert_eq!(nodes.answers.get(&number), None, "there was room");
    }
    nodes.pass(5 * MS);
    assert!(nodes.sleeps(1), "it wants to be woken in the past");
    others.iter().for_each(|other| nodes.hang_up(1, *other));
    nodes.pass(500 * MS);
    assert_eq!(nodes.answers.get(&number), Some(&Answer::Done));
}

/// Five values of a megabyte, one in each part of an answer, and somebody who has asked for all of
/// them and reads nothing by itself.
fn long_answer() -> (Nodes, ConnectionId) {
    let working = WorkingLimits { range_part_bytes: 1, ..WorkingLimits::default() };
    let segment_bytes = 16 << 20;
    let mut nodes = Nodes::tuned(1, Tuning { segment_bytes, working, ..Tuning::default() });
    nodes.pass(500 * MS);
    for key in [b"a", b"b", b"c", b"d", b"e"] {
        nodes.command(1, None, Command::Put { key, value: &[7; VALUE_BYTES] });
        nodes.pass(50 * MS);
    }
    let (_, connection) = nodes.read_all(1);
    nodes.stop_reading(connection);
    nodes.pass(10 * MS);
    assert!(nodes.kept_for_ranges(1).is_some(), "it is answered at once");
    (nodes, connection)
}

const VALUE_BYTES: usize = 1_000_000;

/// A client had half a minute for all of a long answer, and not for each part.
#[test]
fn who_reads_a_long_answer_slowly_and_steadily_gets_all_of_it() {
    let (mut nodes, connection) = long_answer();
    let (mut taken, mut quarters) = (0, 0);
    while nodes.kept_for_ranges(1).is_some() || nodes.unread_bytes(1, connection) > 0 {
        let before = nodes.unread_bytes(1, connection);
        nodes.take_some(1, connection, 25_000);
        taken += before - nodes.unread_bytes(1, connection);
        nodes.pass(250 * MS);
        quarters += 1;
    }
    assert!(quarters > 4 * 40, "{quarters} quarters of a second are too few");
    assert!(taken > 5 * VALUE_BYTES, "{taken} bytes came");
}

#[test]
fn who_does_not_read_a_long_answer_is_left_after_half_a_minute() {
    let (mut nodes, connection) = long_answer();
    nodes.pass(29_000 * MS);
    assert!(nodes.kept_for_ranges(1).is_some(), "it may still come to it");
    nodes.pass(2_000 * MS);
    assert_eq!(nodes.kept_for_ranges(1), None);
    assert_eq!(nodes.unread_bytes(1, connection), 0);
}

/// Each of them keeps what it asks, of whatever size, until it has ended.
#[test]
fn what_ranges_under_way_ask_counts_as_reads_that_wait() {
    const ENDS: usize = 3;
    let (mut nodes, small) = long_answer();
    let end = vec![0xff; WAITING_READ_BYTES_MAX / ENDS - 4_096];
    let args = |end| {
        let consistency = Consistency::Serializable;
        RangeArgs { end, consistency, ..RangeArgs::of_key(b"a") }
    };
    let mut under_way = vec![small];
    for _ in 0..ENDS {
        under_way.push(nodes.range_unread(1, &args(&end)));
        nodes.pass(10 * MS);
    }
    let ask = |nodes: &mut Nodes| {
        let (number, _) = nodes.range(1, &args(&end[..20_000]));
        nodes.pass(200 * MS);
        nodes.answers.remove(&number)
    };
    let busy = Error::Busy { what: "too many reads wait".into() };
    assert_eq!(ask(&mut nodes), Some(Answer::Failed(busy)));
    under_way.into_iter().for_each(|connection| nodes.hang_up(1, connection));
    assert_eq!(ask(&mut nodes), Some(Answer::Done));
}
