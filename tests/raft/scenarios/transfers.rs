//! Snapshots on their way to a follower, and what holds them up.

use super::nodes::{Answer, Nodes, Tuning};
use raftd::replica::ConnectionId;
use raftd::types::LogIndex;
use raftd::wire::client::put_request;
use raftd::wire::error::Error;

const MS: u64 = 1_000_000;
/// Of the servers here, unless a test says otherwise.
const ELECTION_TIMEOUT_NS: u64 = 300 * MS;

const PIECE_BYTES: usize = 16 * 1024;

/// A snapshot of some blocks, in some pieces.
fn tuning() -> Tuning {
    Tuning {
        snapshot_entries: 5,
        snapshot_block_bytes: 8 * 1024,
        snapshot_piece_bytes: PIECE_BYTES,
        ..Tuning::default()
    }
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).expect("it is in memory")
}

/// Puts until the leader's log begins behind `index`, and its snapshot takes two pieces.
fn put_until_compacted(nodes: &mut Nodes, leader: usize, index: LogIndex) {
    for nth in 0..1_000 {
        let status = nodes.status_of(leader);
        if status.log_base > index && usize_of(status.snapshot_bytes) > PIECE_BYTES {
            return;
        }
        let put = nodes.put(leader, &format!("{nth:01000}"));
        nodes.pass(10 * MS);
        assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
    }
    panic!("the log is not compacted");
}

/// A leader, and a server that is down and needs what only the leader's snapshot holds.
fn leader_and_one_behind(tuning: Tuning) -> (Nodes, usize, usize) {
    let mut nodes = Nodes::tuned(3, tuning);
    nodes.pass(200 * MS);
    let leader = nodes.leader().expect("elected");
    let behind = leader % 3 + 1;
    let last = nodes.status_of(behind).last_index;
    nodes.crash(behind);
    put_until_compacted(&mut nodes, leader, last);
    (nodes, leader, behind)
}

fn has_all(nodes: &Nodes, behind: usize, leader: usize) -> bool {
    nodes.status_of(behind).applied_index == nodes.status_of(leader).last_index
}

/// D8, a receiver that is gone. The connection of a transfer does not notice that the other end has
/// lost its power: nothing is sent until an answer comes. The follower that was back waited sixteen
/// election timeouts.
#[test]
fn a_follower_that_is_back_gets_its_snapshot_at_once() {
    let (mut nodes, leader, behind) = leader_and_one_behind(tuning());
    boot_held(&mut nodes, behind);
    assert!(nodes.status_of(behind).snapshot_expected > 0, "it was asked");
    nodes.vanish(behind);
    nodes.release_background(behind);
    nodes.boot(behind).expect("its disk is well");
    nodes.pass(2 * ELECTION_TIMEOUT_NS);
    assert!(has_all(&nodes, behind, leader));
}

/// D8 (braft 423), a receiver that says nothing. Five seconds were too long where the operator
/// chose short timeouts: a quorum may wait for the snapshot.
#[test]
fn a_transfer_that_nobody_answers_is_begun_anew_after_sixteen_election_timeouts() {
    for timeout_ns in [100 * MS, 300 * MS] {
        let tuning = Tuning { election_timeout_ns: timeout_ns, ..tuning() };
        let (mut nodes, leader, behind) = leader_and_one_behind(tuning);
        boot_held(&mut nodes, behind);
        assert!(nodes.status_of(behind).snapshot_expected > 0, "it was asked");
        nodes.lose_newest_connection(leader, behind);
        nodes.release_background(behind);
        nodes.pass(14 * timeout_ns);
        assert!(!has_all(&nodes, behind, leader), "a slow disk would be given up");
        nodes.pass(4 * timeout_ns);
        assert!(has_all(&nodes, behind, leader), "{timeout_ns}");
    }
}

/// The question from where on to send was lost on a connection that stood, and for sixteen election
/// timeouts a quorum waited for the answer (the simulator's seed 46418).
#[test]
fn a_question_without_an_answer_is_asked_again() {
    let (mut nodes, leader, behind) = leader_and_one_behind(tuning());
    nodes.questions_to_lose = 2;
    nodes.boot(behind).expect("its disk is well");
    nodes.pass(3 * ELECTION_TIMEOUT_NS);
    assert_eq!(nodes.questions_to_lose, 0, "asked twice");
    assert!(!has_all(&nodes, behind, leader));
    nodes.pass(2 * ELECTION_TIMEOUT_NS);
    assert!(has_all(&nodes, behind, leader));
}

/// A received file turned out to be damaged behind a good block. What was from there on came again,
/// and nobody loaded the good block, and so nothing more was read, for ever.
#[test]
fn a_received_file_that_rots_behind_a_good_block_is_loaded_in_the_end() {
    let (mut nodes, leader, behind) = leader_and_one_behind(tuning());
    nodes.hold_background(behind);
    nodes.boot(behind).expect("its disk is well");
    nodes.pass(20 * MS);
    let left = |nodes: &Nodes| {
        let status = nodes.status_of(behind);
        status.snapshot_expected - status.snapshot_received
    };
    while left(&nodes) == 0 || left(&nodes) > 16 * 1024 {
        nodes.let_one_background_through(behind);
        nodes.pass(20 * MS);
    }
    nodes.rot_part(behind);
    nodes.release_background(behind);
    nodes.pass(2 * ELECTION_TIMEOUT_NS);
    assert!(has_all(&nodes, behind, leader));
}

/// When the snapshot was installed, the log had moved on beyond it: the follower needed another
/// one, and the transfer that had ended stood in the way and waited for an answer that had come.
#[test]
fn a_snapshot_that_the_log_has_left_behind_is_followed_by_another_at_once() {
    let (mut nodes, leader, behind) = leader_and_one_behind(tuning());
    boot_held(&mut nodes, behind);
    assert!(nodes.status_of(behind).snapshot_expected > 0, "it was asked");
    let sent = nodes.status_of(leader).snapshot_index;
    put_until_compacted(&mut nodes, leader, sent);
    nodes.release_background(behind);
    nodes.pass(2 * ELECTION_TIMEOUT_NS);
    assert!(nodes.status_of(behind).log_base > sent, "it needed another");
    assert!(has_all(&nodes, behind, leader));
}

/// A leader that heard of a later term just before its follower welcomed a snapshot asked its
/// question in that term, which was another's, and not durable here.
#[test]
fn who_is_welcomed_with_a_snapshot_after_stepping_down_says_nothing() {
    let (mut nodes, old, behind) = leader_and_one_behind(tuning());
    boot_held(&mut nodes, behind);
    assert!(nodes.status_of(behind).snapshot_expected > 0, "it was asked");
    nodes.end_newest_connection(old, behind);
    nodes.freeze(behind);
    nodes.pass(100 * MS); // it dials again
    nodes.freeze(old);
    nodes.thaw(behind);
    nodes.pass_until(|nodes| nodes.leader().is_some());
    nodes.take_frozen(old);
    assert_eq!(nodes.status_of(old).role, "follower");
    assert_eq!(nodes.terms_of_snapshots_unsent(old), []);
}

/// The same for a piece that was read from the disk meanwhile.
#[test]
fn a_piece_that_is_read_after_stepping_down_is_not_sent() {
    let (mut nodes, old, behind) = leader_and_one_behind(tuning());
    nodes.hold_background(old);
    nodes.boot(behind).expect("its disk is well");
    nodes.pass(200 * MS);
    assert!(nodes.status_of(behind).snapshot_expected > 0, "it was asked");
    nodes.freeze(old);
    nodes.pass_until(|nodes| nodes.leader().is_some());
    nodes.take_frozen(old);
    assert_eq!(nodes.status_of(old).role, "follower");
    nodes.end_one_background(old);
    assert_eq!(nodes.terms_of_snapshots_unsent(old), []);
}

/// Whoever is sent a snapshot gets that one though another follows, unless it stays away: its file,
/// which no directory named any more, was kept for it, and the log behind it, for ever.
#[test]
fn a_snapshot_is_kept_for_whoever_comes_back_and_not_for_whoever_stays_away() {
    let away_ns = 64 * ELECTION_TIMEOUT_NS;
    for (waits_ns, kept) in [(away_ns / 2, true), (2 * away_ns, false)] {
        let (mut nodes, leader, behind) = leader_and_one_behind(tuning());
        boot_held(&mut nodes, behind);
        let (_, bytes) = nodes.sent_to(leader, behind);
        assert!(bytes > 0, "it is sent one");
        nodes.crash(behind);
        put_entries(&mut nodes, leader, 30);
        let newest = nodes.status_of(leader).snapshot_bytes;
        assert!(newest > bytes, "another one is in force");
        nodes.pass(waits_ns);
        let (_, expected) = nodes.sent_to(leader, behind);
        assert_eq!(expected, if kept { bytes } else { newest });
        nodes.release_background(behind);
        nodes.boot(behind).expect("its disk is well");
        nodes.pass(2 * ELECTION_TIMEOUT_NS);
        assert!(has_all(&nodes, behind, leader));
    }
}

/// However long it takes.
#[test]
fn a_slow_transfer_keeps_its_snapshot_as_long_as_it_goes_on() {
    let tuning = Tuning { snapshot_piece_bytes: 512, ..tuning() };
    let (mut nodes, leader, behind) = leader_and_one_behind(tuning);
    boot_held(&mut nodes, behind);
    let (_, bytes) = nodes.sent_to(leader, behind);
    put_entries(&mut nodes, leader, 30);
    assert!(nodes.status_of(leader).snapshot_bytes > bytes, "another one is in force");
    let mut took_ns = 0;
    while nodes.part_stored(behind) != Some(bytes) {
        assert_eq!(nodes.sent_to(leader, behind).1, bytes);
        nodes.let_one_background_through(behind);
        nodes.pass(3 * ELECTION_TIMEOUT_NS);
        took_ns += 3 * ELECTION_TIMEOUT_NS;
    }
    assert!(took_ns > 64 * ELECTION_TIMEOUT_NS, "{took_ns}");
}

/// Nor is it kept where that is what fills the disk.
#[test]
fn a_full_disk_keeps_no_snapshot_for_whoever_is_away() {
    let (mut nodes, leader, behind) = leader_and_one_behind(tuning());
    boot_held(&mut nodes, behind);
    let (_, bytes) = nodes.sent_to(leader, behind);
    nodes.crash(behind);
    put_entries(&mut nodes, leader, 30);
    nodes.pass(100 * MS);
    assert_eq!(nodes.sent_to(leader, behind).1, bytes, "it may come back");
    nodes.fill_disk(leader);
    for _ in 0..200 {
        if nodes.status_of(leader).out_of_space {
            break;
        }
        nodes.put(leader, &"k".repeat(3_000));
        nodes.pass(20 * MS);
    }
    let status = nodes.status_of(leader);
    assert!(status.out_of_space);
    assert_eq!(nodes.sent_to(leader, behind).1, status.snapshot_bytes);
}

fn put_entries(nodes: &mut Nodes, leader: usize, count: u64) {
    for nth in 0..count {
        let put = nodes.put(leader, &format!("{nth:01000}"));
        nodes.pass(5 * MS);
        assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
    }
}

/// A leader that went over to a newer snapshot took the first piece of the old one, which its disk
/// was slow to read, for one of the new. It sent that, found the whole damaged in the end, and gave
/// up a snapshot that was sound.
#[test]
fn a_piece_that_is_read_late_is_not_sent_as_one_of_another_snapshot() {
    // Snapshots are made when a client saves one, each of some segments more than the last.
    let mut nodes = Nodes::tuned(3, Tuning { snapshot_entries: u64::MAX, ..tuning() });
    nodes.pass(200 * MS);
    let leader = nodes.leader().expect("elected");
    let behind = leader % 3 + 1;
    nodes.crash(behind);
    put_entries(&mut nodes, leader, 150);
    nodes.save(leader);
    nodes.pass(200 * MS);
    let old = nodes.status_of(leader).snapshot_index;
    put_entries(&mut nodes, leader, 150);
    // The newer one is made, and comes into force only when the disk has synced that.
    nodes.hold_sync(leader);
    nodes.save(leader);
    nodes.pass(100 * MS);
    nodes.hold_background(leader);
    nodes.boot(behind).expect("its disk is well");
    nodes.pass(100 * MS);
    let expected = nodes.status_of(behind).snapshot_expected;
    assert!(expected > 0, "it was asked");
    assert_eq!(nodes.status_of(leader).snapshot_index, old);
    nodes.end_newest_connection(leader, behind);
    nodes.release_sync(leader);
    assert!(nodes.status_of(leader).log_base > old, "the old one is no good any more");
    nodes.pass(100 * MS);
    assert_ne!(nodes.status_of(behind).snapshot_expected, expected, "it was asked anew");
    nodes.end_one_background(leader);
    assert_eq!(nodes.terms_of_snapshots_unsent(leader), []);
    nodes.release_background(leader);
    nodes.pass(2 * ELECTION_TIMEOUT_NS);
    assert!(has_all(&nodes, behind, leader));
}

/// A leader whose snapshot has rotted sent it again and again: its follower, which would not have
/// it, waited for the next one, a thousand entries later by default.
#[test]
fn a_leader_whose_snapshot_is_damaged_makes_another() {
    let (mut nodes, leader, behind) = leader_and_one_behind(tuning());
    nodes.rot_snapshot(leader);
    let put = nodes.put(leader, "one entry, and not enough for a snapshot");
    nodes.boot(behind).expect("its disk is well");
    nodes.pass(3_000 * MS);
    assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
    assert!(has_all(&nodes, behind, leader));
}

/// What is sent is held against the name of the snapshot: all of it, from the beginning on. What an
/// attempt before this one has read may have rotted since.
#[test]
fn a_leader_finds_its_snapshot_damaged_though_its_first_attempt_was_cut_short() {
    let (mut nodes, leader, behind) = leader_and_one_behind(tuning());
    boot_held(&mut nodes, behind);
    while nodes.part_stored(behind).is_none() {
        nodes.let_one_background_through(behind);
        nodes.pass(20 * MS);
    }
    assert_eq!(nodes.part_stored(behind), Some(0), "a piece is there, and not on the disk");
    let bytes = nodes.status_of(behind).snapshot_expected;
    assert!(
        (PIECE_BYTES..2 * PIECE_BYTES).contains(&usize_of(bytes)),
        "its middle is in the first of two pieces"
    );
    nodes.rot_snapshot(leader);
    nodes.crash(behind);
    nodes.boot(behind).expect("its disk is well");
    nodes.release_background(behind);
    nodes.pass(5_000 * MS);
    assert!(has_all(&nodes, behind, leader), "{:?}", nodes.status_of(behind));
}

/// Seed 4634: nothing was applied since the snapshot that had rotted, and nothing could be, for the
/// quorum needed the follower that waited for it. It is made again, under the same name.
#[test]
fn a_leader_whose_damaged_snapshot_a_quorum_waits_for_makes_it_again() {
    let (mut nodes, leader, behind) = leader_and_one_behind(tuning());
    for nth in 0..1_000 {
        let status = nodes.status_of(leader);
        if status.snapshot_index == status.applied_index {
            break;
        }
        nodes.put(leader, &format!("{nth:01000}"));
        nodes.pass(10 * MS);
    }
    let status = nodes.status_of(leader);
    assert_eq!(status.snapshot_index, status.applied_index, "nothing was applied since");
    nodes.crash(behind % 3 + 1);
    nodes.rot_snapshot(leader);
    let put = nodes.put(leader, "waits for a quorum");
    nodes.boot(behind).expect("its disk is well");
    nodes.pass(3_000 * MS);
    assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
    assert!(has_all(&nodes, behind, leader));
    // What was made again is whole.
    nodes.vanish(leader);
    nodes.boot(leader).expect("its disk is well");
}

/// Its sender died when the first pieces had come, and the next leader sent the log instead. What
/// had come was kept for more of it: the server made no snapshot of its own any more, its log grew,
/// and clients that saved from it were told to wait, for ever.
#[test]
fn a_snapshot_that_the_log_has_overtaken_stands_in_nobodys_way() {
    let mut nodes = Nodes::tuned(3, tuning());
    nodes.pass(200 * MS);
    let leader = nodes.leader().expect("elected");
    let (behind, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let last = nodes.status_of(behind).last_index;
    nodes.crash(other);
    nodes.tuning.snapshot_entries = u64::MAX;
    nodes.boot(other).expect("its disk is well");
    nodes.tuning = tuning();
    nodes.pass(200 * MS);
    nodes.crash(behind);
    // The other one makes no snapshot, and so its log begins where it began.
    put_until_compacted(&mut nodes, leader, last);
    boot_held(&mut nodes, behind);
    assert!(nodes.status_of(behind).snapshot_expected > 0, "it was asked");
    nodes.crash(leader);
    nodes.release_background(behind);
    nodes.pass_until(|nodes| nodes.leader() == Some(other) && has_all(nodes, behind, other));
    assert_eq!(nodes.status_of(behind).snapshot_expected, 0, "it needs it no more");
    nodes.pass(12_000 * MS);
    assert!(nodes.status_of(behind).snapshot_index > last, "it makes its own");
}

/// A follower that was sent a snapshot and could not store it told its clients each second that
/// their save was being worked at, for ever, though others had what they wanted. That it is sent
/// the same again and again is no progress.
#[test]
fn who_saves_where_a_snapshot_gets_no_further_is_told_why() {
    for full in [false, true] {
        let (mut nodes, _, behind) = leader_and_one_behind(tuning());
        boot_held(&mut nodes, behind);
        assert!(nodes.status_of(behind).snapshot_expected > 0, "it was asked");
        if full {
            nodes.fill_disk(behind);
            nodes.release_background(behind);
        }
        let (save, _) = nodes.save(behind);
        nodes.pass(29_000 * MS);
        assert_eq!(nodes.answers.get(&save), None, "it may be slow");
        nodes.pass(2_000 * MS);
        match nodes.answers.get(&save) {
            Some(Answer::Failed(Error::NotReady { why })) => {
                assert!(why.contains("gets no further with"), "{why}");
            }
            other => panic!("{other:?}"),
        }
        nodes.empty_disk(behind);
        nodes.release_background(behind);
        let (save, _) = nodes.save(behind);
        nodes.pass(10_000 * MS);
        assert_eq!(nodes.answers.get(&save), Some(&Answer::Done));
    }
}

/// A piece that is sent at once is paid for by the wait before the next one.
#[test]
fn a_snapshot_leaves_no_faster_than_at_its_rate() {
    let rate = u64::try_from(PIECE_BYTES).expect("small");
    let tuning = Tuning { snapshot_rate: Some(rate), ..tuning() };
    let (mut nodes, leader, behind) = leader_and_one_behind(tuning);
    let bytes = nodes.status_of(leader).snapshot_bytes;
    let waits_ms = (bytes - rate).div_ceil(rate) * 1_000;
    assert!(waits_ms >= 1_000, "it takes two pieces");
    nodes.boot(behind).expect("its disk is well");
    nodes.pass((waits_ms - 50) * MS);
    assert!(!has_all(&nodes, behind, leader), "{bytes} bytes within {waits_ms} ms");
    nodes.pass(1_000 * MS);
    assert!(has_all(&nodes, behind, leader));
}

/// One that takes for ever, but gets on, is waited for.
#[test]
fn who_saves_where_a_snapshot_comes_slowly_waits_for_it() {
    let (mut nodes, _, behind) = leader_and_one_behind(tuning());
    boot_held(&mut nodes, behind);
    let (save, _) = nodes.save(behind);
    let mut waited_ms = 0;
    while nodes.status_of(behind).snapshot_received == 0 || waited_ms < 40_000 {
        assert_eq!(nodes.answers.get(&save), None, "after {waited_ms} ms");
        let stored = nodes.status_of(behind).snapshot_received;
        while nodes.status_of(behind).snapshot_received == stored {
            nodes.let_one_background_through(behind);
            nodes.pass(20 * MS);
            waited_ms += 20;
        }
        nodes.pass(20_000 * MS);
        waited_ms += 20_000;
    }
    nodes.release_background(behind);
    nodes.pass(2_000 * MS);
    assert_eq!(nodes.answers.get(&save), Some(&Answer::Done));
}

/// The follower came back without what it had got, and asked for the beginning, while the leader's
/// disk still read what was next before: that is not sent in its place.
#[test]
fn a_piece_that_is_read_late_is_not_sent_where_another_is_asked_for() {
    let (mut nodes, leader, behind) = leader_and_one_behind(tuning());
    nodes.hold_background(leader);
    nodes.boot(behind).expect("its disk is well");
    nodes.pass(200 * MS);
    assert!(nodes.status_of(behind).snapshot_expected > 0, "it was asked");
    while nodes.sent_to(leader, behind).0 == 0 {
        nodes.let_one_background_through(leader);
        nodes.pass(20 * MS);
    }
    nodes.crash(behind);
    let mut image = nodes.image(behind);
    image.retain(|name, _| !name.ends_with(".part"));
    nodes.replace_disk(behind, &image);
    nodes.boot(behind).expect("its disk is well");
    nodes.pass(200 * MS);
    assert!(nodes.status_of(behind).snapshot_expected > 0, "it was asked anew");
    assert_eq!(nodes.sent_to(leader, behind).0, 0);
    nodes.end_one_background(leader);
    assert_eq!(nodes.terms_of_snapshots_unsent(leader), []);
    nodes.release_background(leader);
    nodes.pass(2 * ELECTION_TIMEOUT_NS);
    assert!(has_all(&nodes, behind, leader));
}

/// A leader's disk could not read its snapshot: it asked for the same piece twice a second, for
/// ever, and as long as nobody wrote anything its follower stayed away.
#[test]
fn a_leader_whose_snapshot_cannot_be_read_makes_another() {
    let (mut nodes, leader, behind) = leader_and_one_behind(tuning());
    nodes.make_snapshot_unreadable(leader);
    nodes.boot(behind).expect("its disk is well");
    nodes.pass(5_000 * MS);
    assert!(has_all(&nodes, behind, leader), "{:?}", nodes.status_of(behind));
}

/// Starts a server whose background work is held, and lets it be asked for what it is to be sent.
fn boot_held(nodes: &mut Nodes, behind: usize) {
    nodes.hold_background(behind);
    nodes.boot(behind).expect("its disk is well");
    nodes.pass(200 * MS);
}

/// Starts a server whose background work is held, and lets that through until all of the leader's
/// snapshot is on its disk. The size of that. Bytes.
fn receive_and_hold(nodes: &mut Nodes, behind: usize) -> u64 {
    boot_held(nodes, behind);
    let bytes = nodes.status_of(behind).snapshot_expected;
    assert!(bytes > 0, "it was asked");
    while nodes.part_stored(behind) != Some(bytes) {
        nodes.let_one_background_through(behind);
        nodes.pass(20 * MS);
    }
    bytes
}

/// Puts a large value through a client's connection, of one of forty keys.
fn put_large(nodes: &mut Nodes, client: ConnectionId, nth: u64) {
    let (key, value) = (format!("key-{}", nth % 40), vec![b'v'; 100_000]);
    let put =
        nodes.ask_on(client, |bytes, asked| put_request(bytes, asked, key.as_bytes(), &value));
    nodes.pass(50 * MS);
    assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
}

/// A million keys take a follower many seconds to load, and it said nothing meanwhile. Where much
/// was written its leader gave it up, and went over to the newest snapshot, since the log behind
/// the one being loaded was gone; and the follower, which was asked, began anew with that. None was
/// ever installed.
#[test]
fn a_snapshot_that_takes_long_to_load_is_waited_for_and_installed() {
    let segment_bytes = 1024 * 1024;
    let tuning = Tuning { segment_bytes, snapshot_entries: 10, ..Tuning::default() };
    let mut nodes = Nodes::tuned(3, tuning);
    nodes.pass(200 * MS);
    let leader = nodes.leader().expect("elected");
    let behind = leader % 3 + 1;
    let last = nodes.status_of(behind).last_index;
    nodes.crash(behind);
    let (_, client) = nodes.read_all(leader);
    let mut puts = 0..1_000;
    let mut put = |nodes: &mut Nodes| put_large(nodes, client, puts.next().expect("a few"));
    (0..80).for_each(|_| put(&mut nodes));
    assert!(nodes.status_of(leader).log_base > last, "it needs one");
    let sent = nodes.status_of(leader).snapshot_index;
    let bytes = receive_and_hold(&mut nodes, behind);
    // Each read of its file takes ten election timeouts, and puts go on.
    for _ in 0..3 {
        (0..60).for_each(|_| put(&mut nodes));
        assert_eq!(nodes.sent_to(leader, behind), (bytes, bytes), "it is not given up");
        nodes.let_one_background_through(behind);
        nodes.pass(20 * MS);
    }
    assert!(nodes.status_of(leader).log_base > sent, "it needs another");
    nodes.release_background(behind);
    nodes.pass_until(|nodes| nodes.status_of(behind).applied_index >= sent);
    nodes.pass_until(|nodes| has_all(nodes, behind, leader));
}

/// The same, by a new leader with another snapshot.
#[test]
fn another_snapshot_waits_until_the_one_that_is_being_loaded_is_installed() {
    let (mut nodes, old, behind) = leader_and_one_behind(tuning());
    let bytes = receive_and_hold(&mut nodes, behind);
    let other = (1..=3).find(|nth| ![old, behind].contains(nth)).expect("the third");
    put_entries(&mut nodes, old, 60);
    nodes.crash(old);
    nodes.pass_until(|nodes| nodes.leader() == Some(other));
    nodes.pass(4 * ELECTION_TIMEOUT_NS);
    let offered = nodes.sent_to(other, behind).1;
    assert!(offered > 0, "it offers one");
    assert_ne!(offered, bytes, "another one");
    assert_eq!(nodes.status_of(behind).snapshot_expected, bytes);
    nodes.release_background(behind);
    nodes.pass_until(|nodes| has_all(nodes, behind, other));
}
