//! Who listens and does not read.

use super::nodes::{Answer, Nodes, Tuning};
use raftd::limits::{WATCH_BATCH_BYTES, WATCH_KEYS_BYTES_MAX, WATCH_OUT_HIGH_WATER, WorkingLimits};
use raftd::types::Revision;
use raftd::wire::client::Command;
use raftd::wire::error::Error;
use raftd::wire::watch::{WatchArgs, watch_request};

const MS: u64 = 1_000_000;
const VALUE_BYTES: usize = 10 * 1024;
/// Four times what is held for a listener.
const PUTS: usize = 4 * (WATCH_OUT_HIGH_WATER + WATCH_BATCH_BYTES) / VALUE_BYTES;

#[test]
fn a_listener_that_does_not_read_costs_a_frame_and_hears_the_rest_when_it_does() {
    let tuning = Tuning { history_bytes_max: 16 * 1024 * 1024, ..Tuning::default() };
    let mut nodes = Nodes::tuned(1, tuning);
    let (watch, connection) = nodes.watch_unread(1, "k");
    let before = nodes.status_of(1).revision.0;
    for _ in 0..PUTS {
        let put = Command::Put { key: b"k", value: &[7; VALUE_BYTES] };
        let put = nodes.command(1, None, put);
        nodes.pass(0);
        assert_eq!(nodes.answers.remove(&put), Some(Answer::Done));
    }
    let held = nodes.unread_bytes(1, connection);
    assert!(held >= WATCH_OUT_HIGH_WATER, "{held} bytes: it is not full, and proves nothing");
    assert!(held < WATCH_OUT_HIGH_WATER + WATCH_BATCH_BYTES + VALUE_BYTES, "{held} bytes");
    nodes.read_on(1, connection);
    let newest = nodes.status_of(1).revision.0;
    let all: Vec<u64> = (before + 1..=newest).collect();
    assert_eq!((nodes.heard.get(&watch), all.len()), (Some(&all), PUTS));
}

/// A watch of a key that nobody changes.
const QUIET: WatchArgs<'_> = WatchArgs {
    key: b"quiet",
    end: b"",
    start: Revision(0),
    prev_kv: false,
    no_put: false,
    no_delete: false,
    progress_ms: 0,
};

/// A watch that is to hear ten times a second that nothing happened: by how many bytes what it has
/// not read grows in two seconds.
fn told_often(nodes: &mut Nodes, nth: usize) -> impl Fn(&mut Nodes) -> usize + use<> {
    let (_, connection) = nodes.watch_unread(nth, "k");
    let args = WatchArgs { progress_ms: 100, ..QUIET };
    nodes.ask_on(connection, |bytes, number| watch_request(bytes, number, &args));
    move |nodes| {
        let before = nodes.unread_bytes(nth, connection);
        nodes.pass(2_000 * MS);
        nodes.unread_bytes(nth, connection) - before
    }
}

/// Who waits for changes and hears that there were none goes nowhere else: a server that is cut off
/// does not know.
#[test]
fn a_server_without_a_leader_does_not_say_that_nothing_happened() {
    let (mut nodes, leader, [nth, other]) = Nodes::cluster();
    let grown = told_often(&mut nodes, nth);
    assert!(grown(&mut nodes) > 100, "twenty times that all is quiet");
    nodes.cut(nth, leader);
    nodes.cut(nth, other);
    nodes.pass(1_000 * MS);
    assert_eq!(grown(&mut nodes), 0, "it has lost its leader");
    nodes.mend();
    nodes.pass(2_000 * MS);
    assert!(grown(&mut nodes) > 100);
}

/// A follower whose disk is full takes no entries, and hears its leader all the same: it said that
/// nothing happened for as long as that lasted.
#[test]
fn a_server_that_takes_no_entries_does_not_say_that_nothing_happened() {
    let (mut nodes, leader, [nth, _]) = Nodes::cluster();
    let grown = told_often(&mut nodes, nth);
    assert!(grown(&mut nodes) > 100, "twenty times that all is quiet");
    nodes.fill_disk(nth);
    let stays =
        |nodes: &Nodes| nodes.status_of(nth).last_index < nodes.status_of(leader).last_index;
    for _ in 0..100 {
        let put = Command::Put { key: b"other", value: &[7; VALUE_BYTES] };
        nodes.command(leader, None, put);
        nodes.pass(20 * MS);
    }
    assert!(stays(&nodes), "{:?}", nodes.status_of(nth));
    assert_eq!(grown(&mut nodes), 0, "it has no room");
    nodes.empty_disk(nth);
    nodes.pass(2_000 * MS);
    assert!(!stays(&nodes), "{:?}", nodes.status_of(nth));
    assert!(grown(&mut nodes) > 100);
}

/// The time to say that nothing happened came within an entry that takes many turns. It was passed
/// over, and the client heard nothing for another interval.
#[test]
fn that_nothing_happened_is_said_behind_an_entry_of_many_turns() {
    let working = WorkingLimits { apply_steps: 8 * 16, ..WorkingLimits::default() };
    let mut nodes = Nodes::with_twenty_keys(working);
    let (_, connection) = nodes.watch_unread(1, "another");
    let args = WatchArgs { progress_ms: 1_000, ..QUIET };
    nodes.ask_on(connection, |bytes, number| watch_request(bytes, number, &args));
    nodes.pass(100 * MS);
    let before = nodes.unread_bytes(1, connection);
    for nth in 0..48 {
        nodes.put(1, &format!("k{nth:02}"));
    }
    while !nodes.is_halfway(1) {
        nodes.one_turn(1);
    }
    nodes.freeze(1);
    nodes.pass(1_000 * MS);
    nodes.wake(1);
    nodes.one_turn(1);
    assert!(nodes.is_halfway(1), "there is more of it");
    assert_eq!(nodes.unread_bytes(1, connection), before);
    nodes.pass(100 * MS);
    assert!(!nodes.is_halfway(1));
    assert!(nodes.unread_bytes(1, connection) > before, "it was due");
}

/// Nine watches whose keys were as long as a request may be took all the room that a cluster of
/// three has for watches.
#[test]
fn the_keys_of_a_watch_are_short() {
    let mut nodes = Nodes::new(1);
    let long = "k".repeat(WATCH_KEYS_BYTES_MAX + 1);
    let (refused, connection) = nodes.watch_unread(1, &long);
    nodes.read_on(1, connection);
    let why = "the key and the end of a watch have more than 16 KiB".into();
    let failed = Answer::Failed(Error::BadRequest { why });
    assert_eq!(nodes.answers.remove(&refused), Some(failed));
    let (watch, connection) = nodes.watch_unread(1, &long[1..]);
    nodes.read_on(1, connection);
    assert_eq!(nodes.heard.get(&watch), Some(&Vec::new()), "it is open");
}
