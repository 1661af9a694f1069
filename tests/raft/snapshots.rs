//! Snapshots in the rules: who needs one, what is taken of one, what one does to a log. The names
//! are of the ways in which other implementations went wrong.

use super::election::{elect, heartbeat};
use super::followers::{append, matched};
use super::server::{Disk, Entry, Server, TIMEOUT_NS, at, disk, id, pos, settings};
use raftd::raft::message::{AppendOutcome, Message, SnapshotOutcome};
use raftd::raft::{Change, ChangeError, Install, LogFate, Mark, Notice, PieceVerdict};
use raftd::types::{Instant, LogIndex, LogPosition, SnapshotId, Term};

const NOW: Instant = Instant::from_ns(1_000_000_000_000);

/// The entries of a log with these terms.
fn entries(terms: &[u64]) -> Vec<Entry> {
    disk(terms).entries
}

fn compacted(terms: &[u64], base: LogPosition) -> Disk {
    Disk { base, commit_index: base.index, ..disk(terms) }
}

fn terms(server: &Server) -> Vec<u64> {
    server.log.iter().map(|entry| entry.meta.term.get()).collect()
}

fn snapshot(position: LogPosition) -> SnapshotId {
    SnapshotId { position, bytes: 100, crc: 7 }
}

fn piece(term: u64, position: LogPosition) -> Message {
    let snapshot = snapshot(position);
    Message::InstallSnapshot { term: Term::new(term), snapshot, offset: 0, bytes: 10 }
}

fn piece_reply(term: u64, position: LogPosition, outcome: SnapshotOutcome) -> Message {
    let snapshot = snapshot(position);
    Message::InstallSnapshotReply { term: Term::new(term), snapshot, outcome }
}

/// Server 1 leads, compacted up to `base`; 2 is connected, session 7, and its log ends at `hint`.
fn leader_behind(base: u64, hint: LogPosition) -> (Server, Vec<Message>) {
    let mut server = Server::new(1, 3, &[1, 1, 2, 2, 2, 2]);
    server.raft.connected(id(2), 7);
    server.raft.connected(id(3), 8);
    elect(&mut server, NOW);
    server.sync(NOW);
    let everything = AppendOutcome::Matched { index: at(7) };
    server.receive(NOW, 3, answer(3, 8, everything));
    assert_eq!(server.raft.commit_index(), at(7));
    server.compact(at(base));
    let outcome = AppendOutcome::Conflict { probe: at(6), hint };
    let left = server.receive(NOW, 2, answer(3, 7, outcome));
    (server, left)
}

fn answer(term: u64, session: u64, outcome: AppendOutcome) -> Message {
    let term = Term::new(term);
    Message::AppendReply { term, session, round: 0, outcome, first_faulty: None }
}

fn waiting(server: &Server) -> Vec<u64> {
    server.raft.awaiting_snapshot().map(raftd::types::NodeId::get).collect()
}

#[test]
fn entries_are_wanted_by_followers_that_are_reached_and_need_no_snapshot() {
    for (hint, expected) in [(pos(3, 2), &[7][..]), (pos(4, 2), &[4, 7])] {
        let (mut server, _) = leader_behind(4, hint);
        let wanted = |server: &Server| {
            server.raft.entries_wanted_behind().map(LogIndex::get).collect::<Vec<u64>>()
        };
        assert_eq!(wanted(&server), expected, "one is probed at {hint}");
        server.raft.disconnected(id(3), 8);
        assert_eq!(wanted(&server), expected[..expected.len() - 1]);
    }
}

#[test]
fn a_follower_gets_a_snapshot_exactly_if_it_needs_entries_the_leader_no_longer_has() {
    for (base, hint, needs) in [
        (4, pos(3, 2), true),  // entry 4 is gone
        (4, pos(4, 2), false), // 5 is the first one held
        (4, pos(5, 2), false),
        (3, pos(2, 1), true), // the base is of a later term than anything common
        (1, pos(1, 1), false),
    ] {
        let (server, left) = leader_behind(base, hint);
        assert_eq!(waiting(&server) == [2], needs, "base {base} hint {hint}");
        assert_eq!(left.is_empty(), needs, "entries for whom they can serve: {left:?}");
    }
}

#[test]
fn it_hears_heartbeats_meanwhile_and_goes_on_with_entries_once_it_has_the_snapshot() {
    let (mut server, _) = leader_behind(4, pos(2, 1));
    let later = NOW.after_ns(TIMEOUT_NS / 2);
    server.tick(later);
    let left = server.settle(later);
    assert!(left.iter().any(|it| matches!(it, Message::Heartbeat { session: 7, .. })), "{left:?}");
    assert!(!left.iter().any(|it| matches!(it, Message::Append { session: 7, .. })), "{left:?}");
    // Its answer proves it, whatever became of the answer to the last piece.
    let left = server.receive(later, 2, answer(3, 7, AppendOutcome::Matched { index: at(5) }));
    assert!(waiting(&server).is_empty());
    let prevs: Vec<_> = left
        .iter()
        .map(|it| matches!(it, Message::Append { prev, .. } if *prev == pos(5, 2)))
        .collect();
    assert_eq!(prevs, [true], "{left:?}");
}

/// With 3 gone, every commit needs 2: nothing would be written until its snapshot has come, which
/// may take minutes. (Seed 3938: a leader removed itself while the third was being sent one.)
#[test]
fn no_voter_leaves_while_the_others_need_one_that_waits_for_a_snapshot() {
    let (mut server, _) = leader_behind(4, pos(2, 1));
    server.receive(NOW, 3, answer(3, 8, AppendOutcome::Matched { index: at(7) }));
    for leaves in [1, 3] {
        let refused = server.raft.plan(NOW, Change::Remove(id(leaves))).unwrap_err();
        assert_eq!(refused, ChangeError::Behind { id: id(2), entries: 7 }, "{leaves} leaves");
    }
    server.raft.plan(NOW, Change::Remove(id(2))).expect("1 and 3 have everything");
    server.receive(NOW, 2, answer(3, 7, AppendOutcome::Matched { index: at(5) }));
    server.raft.plan(NOW, Change::Remove(id(3))).expect("2 gets entries again");
}

#[test]
fn an_answer_that_a_snapshot_is_installed_is_probed_and_proves_nothing() {
    let (mut server, _) = leader_behind(4, pos(2, 1));
    server.receive(NOW, 2, piece_reply(3, pos(6, 2), SnapshotOutcome::Installed));
    assert!(waiting(&server).is_empty());
    assert_eq!(server.raft.match_index(id(2)), Some(at(0)));
    // The snapshot was older than where our log begins by now: another one is needed.
    let (mut server, _) = leader_behind(4, pos(2, 1));
    server.receive(NOW, 2, piece_reply(3, pos(3, 2), SnapshotOutcome::Installed));
    assert_eq!(waiting(&server), [2]);
}

#[test]
fn a_reconnected_follower_still_waits_for_its_snapshot() {
    let (mut server, _) = leader_behind(4, pos(2, 1));
    server.raft.disconnected(id(2), 7);
    assert!(waiting(&server).is_empty(), "nobody can be reached");
    server.raft.connected(id(2), 9);
    server.settle(NOW);
    assert_eq!(waiting(&server), [2]);
}

/// D1: a snapshot that was delayed would take back what was acknowledged since.
#[test]
fn a_stale_snapshot_changes_nothing() {
    let mut server = Server::new(1, 3, &[1, 1, 1]);
    server.receive(NOW, 2, append(1, pos(3, 1), &[1, 1], 4));
    server.sync(NOW);
    for last in [3, 4] {
        server.receive(NOW, 2, piece(1, pos(last, 1)));
        assert_eq!(server.raft.output().snapshot.take(), Some(PieceVerdict::Superfluous));
        let ones = vec![1; usize::try_from(last).unwrap()];
        assert_eq!(server.install(NOW, &entries(&ones)), Install::Never);
    }
    assert_eq!(terms(&server), [1, 1, 1, 1, 1]);
    assert_eq!(server.raft.commit_index(), at(4));
    assert_eq!(server.raft.output().marks.count(Mark::SnapshotStale), 4);
}

/// D1, second half: what follows the snapshot's last entry may have been acknowledged.
#[test]
fn a_log_that_has_the_snapshots_last_entry_keeps_what_follows() {
    let mut server = Server::new(1, 3, &[1, 1, 1]);
    server.receive(NOW, 2, append(1, pos(3, 1), &[1, 1], 1));
    server.sync(NOW);
    assert_eq!(server.install(NOW, &entries(&[1, 1, 1, 1])), Install::Now(LogFate::Kept));
    assert_eq!(terms(&server), [1, 1, 1, 1, 1]);
    assert_eq!(server.raft.commit_index(), at(4));
    assert_eq!(server.sync(NOW), [matched(1, 5)], "nothing acknowledged is taken back");
}

#[test]
fn an_entry_that_is_not_durable_is_waited_for() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, append(1, pos(1, 1), &[1, 1], 1));
    assert_eq!(server.install(NOW, &entries(&[1, 1, 1])), Install::Later);
    server.sync(NOW);
    assert_eq!(server.install(NOW, &entries(&[1, 1, 1])), Install::Now(LogFate::Kept));
}

/// D2: entries that contradict the snapshot would be refused by the next leader for ever.
#[test]
fn a_log_that_differs_goes_as_a_whole() {
    let mut server = Server::new(1, 3, &[1, 2, 2, 2, 2]);
    server.receive(NOW, 2, heartbeat(5));
    server.sync(NOW);
    assert_eq!(server.install(NOW, &entries(&[1, 3, 3])), Install::Now(LogFate::Replaced));
    assert_eq!(server.raft.last(), pos(3, 3));
    assert_eq!(server.raft.base(), pos(3, 3));
    assert!(server.raft.durable() < at(3), "the switch is not on the disk");
    let left = server.settle(NOW);
    assert!(left.iter().all(|it| *it == matched(5, 0)), "nothing is promised yet: {left:?}");
    assert_eq!(server.sync(NOW), [matched(5, 3)]);
    // The leader's log goes on from there.
    server.receive(NOW, 2, append(5, pos(3, 3), &[5], 3));
    assert_eq!(server.sync(NOW), [matched(5, 4)]);
    assert_eq!(terms(&server), [1, 3, 3, 5]);
}

#[test]
fn a_receipt_of_the_old_log_proves_nothing_of_the_new_one() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, append(2, pos(1, 1), &[2, 2], 1));
    assert!(server.begin_job());
    server.receive(NOW, 3, heartbeat(5));
    assert_eq!(server.install(NOW, &entries(&[1, 3])), Install::Now(LogFate::Replaced));
    server.finish_job(NOW);
    let left = server.settle(NOW);
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(server.sync(NOW), [matched(5, 2)]);
}

#[test]
fn a_snapshot_that_contradicts_what_its_leader_sent_is_reported_and_not_installed() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, append(5, pos(1, 1), &[2, 2], 1));
    server.sync(NOW);
    assert_eq!(server.install(NOW, &entries(&[1, 3])), Install::Never);
    server.step_output();
    let (ours, theirs) = (pos(2, 2), Term::new(3));
    let notice = Notice::SafetyViolated { from: id(2), ours, theirs };
    assert!(server.notices.contains(&notice), "{:?}", server.notices);
}

/// D3: two snapshots one after the other, and the entries between, never go back.
#[test]
fn what_is_committed_never_goes_back_whatever_the_order() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, heartbeat(2));
    assert_eq!(server.install(NOW, &entries(&[1, 1, 1, 1])), Install::Now(LogFate::Replaced));
    assert_eq!(server.install(NOW, &entries(&[1, 1, 1])), Install::Never, "older");
    assert_eq!(server.install(NOW, &entries(&[1, 1, 1, 1])), Install::Never, "twice");
    server.sync(NOW);
    server.receive(NOW, 2, append(2, pos(4, 1), &[2], 5));
    server.sync(NOW);
    assert_eq!(server.install(NOW, &entries(&[1, 1, 1, 1, 2])), Install::Never, "by entries");
    assert_eq!(server.raft.commit_index(), at(5));
}

/// D4: who votes is what the snapshot says, and after a truncation still.
#[test]
fn the_configuration_comes_with_the_snapshot() {
    let three = Server::new(1, 3, &[1]).raft.configuration().clone();
    let mut server = Server::new(1, 5, &[1]);
    server.receive(NOW, 2, heartbeat(5));
    let fate = server.raft.install_snapshot(NOW, pos(9, 4), (at(6), three.clone()));
    assert_eq!(fate, LogFate::Replaced);
    assert_eq!(*server.raft.configuration(), three);
    assert_eq!(server.raft.configuration_at(at(9)), (at(6), &three));
}

/// D5: before the base nothing is accepted unseen.
#[test]
fn entries_before_the_base_are_passed_over_and_the_base_must_agree() {
    let case = || Server::start(settings(1), 3, compacted(&[1, 1, 2, 2], pos(3, 2)), NOW);
    // From the very beginning, as a repeated first message.
    let mut server = case();
    server.receive(NOW, 2, append(5, pos(0, 0), &[1, 1, 2, 2, 5], 3));
    assert_eq!(server.sync(NOW), [matched(5, 5)]);
    assert_eq!(terms(&server), [1, 1, 2, 2, 5]);
    // It ends before our log begins.
    let mut server = case();
    assert_eq!(server.receive(NOW, 2, append(2, pos(0, 0), &[1, 1], 2)), [matched(2, 3)]);
    // Exactly at the base, and a conflict behind it.
    let mut server = case();
    server.receive(NOW, 2, append(5, pos(1, 1), &[1, 2, 5], 3));
    assert_eq!(server.sync(NOW), [matched(5, 4)]);
    assert_eq!(terms(&server), [1, 1, 2, 5]);
    // A leader with another history is not obeyed.
    let mut server = case();
    server.receive(NOW, 2, append(5, pos(0, 0), &[1, 1, 1, 5], 3));
    let violated =
        |it: &Notice| matches!(it, Notice::SafetyViolated { ours, .. } if *ours == pos(3, 2));
    assert!(server.notices.iter().any(violated), "{:?}", server.notices);
    assert_eq!(terms(&server), [1, 1, 2, 2]);
    assert!(server.raft.output().marks.count(Mark::BelowBase) > 0);
}

/// D7: a server that is being sent a snapshot may campaign, and stops as for any word of a leader.
#[test]
fn a_campaign_ends_with_the_first_piece_of_the_terms_leader() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, heartbeat(5));
    server.sync(NOW);
    let later = NOW.after_ns(2 * TIMEOUT_NS);
    server.tick(later);
    assert_eq!(server.raft.role_name(), "pre-candidate");
    server.receive(later, 2, piece(5, pos(9, 4)));
    assert_eq!(server.raft.role_name(), "follower");
    assert_eq!(server.raft.output().snapshot.take(), Some(PieceVerdict::Keep));
    assert!(server.raft.wake_at() >= later.after_ns(TIMEOUT_NS), "it counts as a heartbeat");
}

/// The connection for entries may be down while the one for pieces is up.
#[test]
fn a_follower_that_hears_pieces_alone_does_not_campaign() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, heartbeat(5));
    server.sync(NOW);
    for _ in 0..3 {
        // As late as it can come.
        let late = Instant::from_ns(server.raft.wake_at().as_ns() - 1);
        server.receive(late, 2, piece(5, pos(9, 4)));
        assert!(server.raft.wake_at() >= late.after_ns(TIMEOUT_NS), "it counts as a heartbeat");
    }
}

#[test]
fn votes_asked_for_with_the_old_log_end_with_it() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, heartbeat(5));
    server.sync(NOW);
    let later = NOW.after_ns(2 * TIMEOUT_NS);
    server.tick(later);
    assert_eq!(server.install(later, &entries(&[1, 3])), Install::Now(LogFate::Replaced));
    assert_eq!(server.raft.role_name(), "follower");
}

#[test]
fn pieces_of_a_former_leader_are_answered_with_our_term_and_dropped() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, heartbeat(5));
    server.sync(NOW);
    let left = server.receive(NOW, 3, piece(4, pos(9, 4)));
    assert_eq!(left, [piece_reply(5, pos(9, 4), SnapshotOutcome::Refused)]);
    assert_eq!(server.raft.output().snapshot.take(), None);
    // Nor does another server of this term, which cannot be.
    server.receive(NOW, 3, piece(5, pos(9, 4)));
    assert_eq!(server.raft.output().snapshot.take(), None);
}

#[test]
fn a_piece_is_answered_in_a_term_that_is_durable() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, piece(5, pos(9, 4)));
    let wanted = SnapshotOutcome::Wanted { offset: 10 };
    server.raft.answer_piece(id(2), snapshot(pos(9, 4)), wanted);
    assert!(server.settle(NOW).is_empty());
    assert_eq!(server.sync(NOW), [piece_reply(5, pos(9, 4), wanted)]);
}

#[test]
fn a_leader_has_the_entries_and_takes_no_snapshot() {
    let (mut server, _) = leader_behind(4, pos(2, 1));
    assert_eq!(server.install(NOW, &entries(&[1; 20])), Install::Never);
    server.receive(NOW, 2, piece(3, pos(20, 3)));
    assert_eq!(server.raft.output().snapshot.take(), None);
}

#[test]
fn a_restart_begins_at_the_base() {
    let mut server = Server::start(settings(1), 3, compacted(&[1, 1, 2, 2], pos(3, 2)), NOW);
    assert_eq!(server.raft.commit_index(), at(3), "a snapshot is of what is committed");
    assert_eq!(server.raft.term_at(at(2)), None);
    assert_eq!(server.raft.term_at(at(3)), Some(Term::new(2)));
    let now = server.raft.wake_at();
    elect(&mut server, now);
    assert_eq!(server.raft.last(), pos(5, 3));
}
