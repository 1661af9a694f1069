//! What clients that are gone leave behind: no room that others would need, and nothing that is
//! kept for them.

use super::nodes::{Answer, Nodes, Tuning};
use raftd::limits::{SNAPSHOT_SAVES_MAX, WAITING_READ_BYTES_MAX};
use raftd::replica::ConnectionId;
use raftd::wire::client::{Command, RangeArgs, put_request, range_request};
use raftd::wire::error::Error;

const MS: u64 = 1_000_000;

/// A connection over which nothing was asked yet.
fn connect(nodes: &mut Nodes) -> ConnectionId {
    let connection = nodes.read_unread(1, "k", 0);
    nodes.read_on(1, connection);
    connection
}

/// Two thousand puts of one key, far more than the history may hold.
fn overwrite(nodes: &mut Nodes, through: ConnectionId) {
    for _ in 0..40 {
        for _ in 0..50 {
            nodes.ask_on(through, |bytes, number| put_request(bytes, number, b"k", b"v"));
        }
        nodes.pass(5 * MS);
    }
    nodes.pass(100 * MS);
}

/// A server with two values of a megabyte.
fn with_large_values() -> Nodes {
    let snapshot_piece_bytes = 64 * 1024;
    let tuning = Tuning { segment_bytes: 16 << 20, snapshot_piece_bytes, ..Tuning::default() };
    let mut nodes = Nodes::tuned(1, tuning);
    nodes.pass(200 * MS);
    for key in [b"large", b"other"] {
        let put = nodes.command(1, None, Command::Put { key, value: &[7; LARGE_BYTES] });
        nodes.pass(100 * MS);
        assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
    }
    nodes
}

const LARGE_BYTES: usize = 1_000_000;

/// What the last watch had yet to hear of was held until another one came: the memory of every
/// version that was made meanwhile.
#[test]
fn nothing_is_kept_for_a_watch_that_does_not_read_or_is_gone() {
    let mut nodes = Nodes::tuned(1, Tuning { segment_bytes: 1 << 20, ..Tuning::default() });
    nodes.pass(200 * MS);
    let writer = connect(&mut nodes);
    let (_, connection) = nodes.watch_unread(1, "k");
    nodes.read_on(1, connection);
    for state in ["reads", "does not read", "is gone"] {
        match state {
            "reads" => {}
            "does not read" => nodes.stop_reading(connection),
            _gone => nodes.hang_up(1, connection),
        }
        let before = nodes.status_of(1).compact_revision;
        overwrite(&mut nodes, writer);
        let (status, versions) = (nodes.status_of(1), nodes.versions_to_free(1));
        assert!(status.compact_revision > before, "the history goes while the watch {state}");
        assert!(versions < 1_000, "{versions} versions are there while the watch {state}");
    }
}

/// Whoever hung up while it was sent a snapshot kept its place for ever: after four of them nobody
/// could save any more.
#[test]
fn clients_that_hang_up_in_the_middle_of_a_save_make_room_for_others() {
    let mut nodes = with_large_values();
    let (first, _) = nodes.save(1);
    nodes.pass(1_000 * MS);
    assert_eq!(nodes.answers.get(&first), Some(&Answer::Done));
    // They are sent the snapshot that there is, and then wait for one that is to be made.
    for made in [true, false] {
        nodes.hold_background(1);
        if !made {
            nodes.put(1, "new");
            nodes.pass(20 * MS);
        }
        let saves: Vec<_> = (0..SNAPSHOT_SAVES_MAX).map(|_| nodes.save(1)).collect();
        nodes.pass(20 * MS);
        let (one_more, _) = nodes.save(1);
        nodes.pass(20 * MS);
        let busy = Error::Busy { what: "other clients save snapshots".into() };
        assert_eq!(nodes.answers.get(&one_more), Some(&Answer::Failed(busy)));
        for (save, connection) in saves {
            assert_eq!(nodes.answers.get(&save), None, "its piece is not read yet");
            nodes.hang_up(1, connection);
        }
        nodes.pass(20 * MS);
        nodes.release_background(1);
        let (next, _) = nodes.save(1);
        nodes.pass(2_000 * MS);
        assert_eq!(nodes.answers.get(&next), Some(&Answer::Done), "made={made}");
    }
}

/// They hold a place, and a file, as long as they take something now and then.
#[test]
fn a_client_that_takes_nothing_of_its_save_is_left_and_one_that_is_slow_is_not() {
    let mut nodes = with_large_values();
    let (first, _) = nodes.save(1);
    nodes.pass(2_000 * MS);
    assert_eq!(nodes.answers.get(&first), Some(&Answer::Done));
    let stuck: Vec<_> = (0..SNAPSHOT_SAVES_MAX - 1).map(|_| nodes.save(1).1).collect();
    let (_, slow) = nodes.save(1);
    stuck.iter().chain([&slow]).for_each(|connection| nodes.stop_reading(*connection));
    let (mut taken, mut seconds) = (0, 0);
    while taken < 2 * LARGE_BYTES && seconds < 200 {
        let before = nodes.unread_bytes(1, slow);
        nodes.take_some(1, slow, 30_000);
        taken += before - nodes.unread_bytes(1, slow);
        nodes.pass(1_000 * MS);
        seconds += 1;
    }
    assert!(taken >= 2 * LARGE_BYTES, "it had {taken} bytes when it was left");
    assert!(seconds > 60, "{seconds} seconds are too few");
    assert!(stuck.iter().all(|connection| nodes.unread_bytes(1, *connection) == 0), "left");
    let (next, _) = nodes.save(1);
    nodes.pass(2_000 * MS);
    assert_eq!(nodes.answers.get(&next), Some(&Answer::Done), "they have made room");
}

/// What waits for them in memory, and their own number.
#[test]
fn clients_that_hung_up_leave_room_for_as_many_others() {
    let mut nodes = with_large_values();
    for _ in 0..4 {
        let full: Vec<_> = (0..25).map(|_| nodes.read_unread(1, "large", 2)).collect();
        nodes.pass(20 * MS);
        assert!(full.iter().any(|connection| nodes.unread_bytes(1, *connection) > LARGE_BYTES));
        full.into_iter().for_each(|connection| nodes.hang_up(1, connection));
    }
    for _ in 0..1_100 {
        let connection = connect(&mut nodes);
        nodes.hang_up(1, connection);
    }
    let read = nodes.read(1, "large");
    nodes.pass(100 * MS);
    assert_eq!(nodes.answers.get(&read), Some(&Answer::Done));
}

/// Reads that wait until their client has read what it asked for before count against all others,
/// as long as it is there.
#[test]
fn reads_of_clients_that_hung_up_count_against_nobody() {
    const KEY_BYTES: usize = 1_000_000;
    let mut nodes = with_large_values();
    let long = vec![b'k'; KEY_BYTES];
    let ask = |nodes: &mut Nodes| -> ConnectionId {
        let connection = nodes.read_unread(1, "large", 2);
        let args = RangeArgs::of_key(&long);
        nodes.ask_on(connection, |bytes, number| range_request(bytes, number, &args));
        nodes.pass(10 * MS);
        connection
    };
    let stuck: Vec<_> =
        (0..WAITING_READ_BYTES_MAX / KEY_BYTES + 2).map(|_| ask(&mut nodes)).collect();
    let key = "k".repeat(KEY_BYTES);
    let read = |nodes: &mut Nodes| {
        let read = nodes.read(1, &key);
        nodes.pass(50 * MS);
        nodes.answers.remove(&read)
    };
    let busy = Error::Busy { what: "too many reads wait".into() };
    assert_eq!(read(&mut nodes), Some(Answer::Failed(busy)), "nothing is held back");
    stuck.into_iter().for_each(|connection| nodes.hang_up(1, connection));
    assert_eq!(read(&mut nodes), Some(Answer::Done));
}
