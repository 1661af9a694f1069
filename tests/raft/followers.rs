//! Figure 2, AppendEntries, receiver implementation, and what bad leaders and bad bytes must not
//! do.

use super::election::{heartbeat, vote};
use super::server::{Packet, Server, TIMEOUT_NS, at, id, meta, pos};
use raftd::limits::ENTRY_OVERHEAD_BYTES;
use raftd::raft::message::{AppendOutcome, Message};
use raftd::raft::{Mark, Notice};
use raftd::types::{Instant, LogPosition, Term};

const NOW: Instant = Instant::from_ns(1_000_000_000_000);

/// An `Append` of `term` from session 1, round 0.
pub(super) fn append(term: u64, prev: LogPosition, terms: &[u64], commit: u64) -> Message {
    Message::Append {
        term: Term::new(term),
        session: 1,
        round: 0,
        prev,
        entries: terms.iter().map(|term| meta(*term)).collect(),
        commit: at(commit),
    }
}

pub(super) fn answer(term: u64, outcome: AppendOutcome) -> Message {
    let term = Term::new(term);
    Message::AppendReply { term, session: 1, round: 0, outcome, first_faulty: None }
}

pub(super) fn matched(term: u64, index: u64) -> Message {
    answer(term, AppendOutcome::Matched { index: at(index) })
}

pub(super) fn conflict(term: u64, probe: u64, hint: LogPosition) -> Message {
    answer(term, AppendOutcome::Conflict { probe: at(probe), hint })
}

pub(super) fn terms(server: &Server) -> Vec<u64> {
    server.log.iter().map(|entry| entry.meta.term.get()).collect()
}

type Case = (&'static [u64], LogPosition, &'static [u64], &'static [u64]);

#[test]
fn the_log_after_an_append_is_what_the_paper_says() {
    // (our log, prev, entries of the message, our log afterwards), in term 9
    let cases: &[Case] = &[
        (&[1], pos(1, 1), &[9], &[1, 9]),
        (&[1, 2], pos(1, 1), &[2], &[1, 2]), // repeated: nothing new
        (&[1, 2, 2, 2], pos(1, 1), &[2], &[1, 2, 2, 2]), // what follows a match stays
        (&[1, 2, 2, 2], pos(1, 1), &[2, 3], &[1, 2, 3]), // the first conflict and all after it go
        (&[1, 2, 2], pos(2, 2), &[3, 4, 9], &[1, 2, 3, 4, 9]),
        (&[1, 2, 2], pos(3, 2), &[], &[1, 2, 2]),
        (&[1, 2, 2], pos(0, 0), &[1, 2, 2, 9], &[1, 2, 2, 9]),
        (&[1, 2, 2], pos(3, 3), &[9], &[1, 2, 2]), // prev is not ours
        (&[1, 2, 2], pos(4, 2), &[9], &[1, 2, 2]), // prev is beyond our log
    ];
    for (log, prev, entries, after) in cases {
        let mut server = Server::new(1, 3, log);
        server.receive(NOW, 2, append(9, *prev, entries, 0));
        assert_eq!(terms(&server), *after, "{log:?} {prev} {entries:?}");
        server.sync(NOW);
        assert_eq!(server.disk.entries, server.log);
    }
}

#[test]
fn entries_are_acknowledged_when_they_are_durable_and_no_earlier() {
    let mut server = Server::new(1, 3, &[1]);
    assert!(server.receive(NOW, 2, append(1, pos(1, 1), &[1, 1], 0)).is_empty());
    assert!(server.begin_job());
    assert!(server.receive(NOW, 2, append(1, pos(3, 1), &[1], 0)).is_empty());
    assert_eq!(server.receive(NOW, 2, heartbeat(1)), [matched(1, 1)], "but we are there");
    server.finish_job(NOW);
    assert_eq!(server.settle(NOW), [matched(1, 3)], "the job in flight did not hold entry 4");
    assert_eq!(server.sync(NOW), [matched(1, 4)]);
}

#[test]
fn the_term_is_durable_before_it_is_spoken_for() {
    let mut server = Server::new(1, 3, &[1]);
    assert!(server.receive(NOW, 2, heartbeat(5)).is_empty());
    assert!(server.begin_job());
    server.finish_job(NOW);
    assert_eq!(server.settle(NOW), [matched(5, 0)], "nothing verified yet: no commit, no match");
}

#[test]
fn only_what_this_leader_verified_is_acknowledged() {
    // Entries 2 and 3 are durable, but another leader's; the probe at 1 proves entry 1 alone.
    let mut server = Server::new(1, 3, &[1, 2, 2]);
    server.receive(NOW, 2, append(9, pos(1, 1), &[], 3));
    assert_eq!(server.sync(NOW), [matched(9, 1)]);
    assert_eq!(server.raft.commit_index(), at(1), "nor committed, whatever the leader committed");
}

#[test]
fn a_heartbeat_commits_nothing_that_is_not_verified() {
    let mut server = Server::new(1, 3, &[1, 2, 2]);
    let commit =
        |index| Message::Heartbeat { term: Term::new(2), session: 1, round: 0, commit: at(index) };
    server.receive(NOW, 2, commit(3));
    assert_eq!(server.raft.commit_index(), at(0));
    server.receive(NOW, 2, append(2, pos(2, 2), &[], 0));
    server.receive(NOW, 2, commit(3));
    assert_eq!(server.raft.commit_index(), at(2));
    server.receive(NOW, 2, commit(1));
    assert_eq!(server.raft.commit_index(), at(2), "and it never goes back");
}

#[test]
fn a_conflict_hints_at_the_last_entry_that_could_match() {
    let cases = [
        (pos(9, 4), pos(5, 4)), // beyond our log: its end
        (pos(9, 3), pos(3, 2)), // our entries of term 4 cannot be in its log
        (pos(5, 5), pos(4, 4)),
        (pos(5, 3), pos(3, 2)), // a whole run is skipped
        (pos(4, 1), pos(1, 1)),
    ];
    for (prev, hint) in cases {
        let mut server = Server::new(1, 3, &[1, 2, 2, 4, 4]);
        let left = server.receive(NOW, 2, append(4, prev, &[4], 9));
        let ours = server.raft.term_at(prev.index) == Some(prev.term);
        assert!(!ours);
        if prev.term <= Term::new(4) {
            assert_eq!(left, [conflict(4, prev.index.get(), hint)]);
        } else {
            assert!(left.is_empty(), "no entry is of a later term than its leader");
        }
    }
}

#[test]
fn one_answer_speaks_for_all_messages_of_a_turn() {
    let mut server = Server::new(1, 3, &[1]);
    let packets = [append(1, pos(1, 1), &[1], 0), append(1, pos(2, 1), &[1], 0), heartbeat(1)];
    for message in packets {
        let entries = Vec::new();
        let Message::Append { entries: metas, .. } = &message else {
            server.receive(NOW, 2, message);
            continue;
        };
        let value = |meta: &_| super::server::Entry::of(*meta, 1);
        let entries: Vec<_> = entries.into_iter().chain(metas.iter().map(value)).collect();
        let packet = Packet { from: id(2), to: id(1), message, entries };
        server.step(NOW, &packet);
    }
    assert_eq!(server.sync(NOW), [matched(1, 3)]);
}

#[test]
fn a_receipt_older_than_a_truncation_proves_nothing_above_the_cut() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, append(1, pos(1, 1), &[1, 1, 1], 0));
    assert!(server.begin_job(), "entries 2 to 4 of term 1");
    server.receive(NOW, 3, append(2, pos(2, 1), &[2, 2], 0));
    assert_eq!(terms(&server), [1, 1, 2, 2]);
    server.finish_job(NOW);
    assert_eq!(server.raft.durable(), at(2), "4 entries are on disk, 2 of them are still ours");
    assert!(server.settle(NOW).is_empty(), "the new term is not durable");
    assert_eq!(server.sync(NOW), [matched(2, 4)]);
}

#[test]
fn truncation_lowers_what_is_durable_at_once() {
    let mut server = Server::new(1, 3, &[1, 2, 2, 2]);
    assert_eq!(server.raft.durable(), at(4));
    server.receive(NOW, 2, append(3, pos(2, 2), &[3], 0));
    assert_eq!(server.raft.durable(), at(2));
    assert_eq!(server.raft.output().marks.count(Mark::Truncated), 1);
}

#[test]
fn what_does_not_fit_is_refused_and_what_fits_is_kept() {
    let mut server = Server::new(1, 3, &[1, 1]);
    server.room = 2 * (10 + ENTRY_OVERHEAD_BYTES);
    let left = server.receive(NOW, 2, append(1, pos(2, 1), &[1, 1, 1], 0));
    assert_eq!(left, [answer(1, AppendOutcome::NoRoom { index: at(2) })]);
    assert_eq!(terms(&server), [1, 1, 1, 1]);
    let cramped = |index| answer(1, AppendOutcome::NoRoom { index: at(index) });
    assert_eq!(server.sync(NOW), [cramped(4)], "still");
    let mut full = Server::new(1, 3, &[1, 2, 2]);
    full.room = 10 + ENTRY_OVERHEAD_BYTES - 1;
    full.receive(NOW, 2, append(3, pos(1, 1), &[3], 0));
    assert_eq!(terms(&full), [1, 2, 2], "nor is anything truncated for it");
}

/// Its leader waited for the next heartbeat, however soon there was room: a follower that was
/// behind got as much as fits in one segment with each of them, and no more.
#[test]
fn a_follower_that_had_no_room_says_once_that_it_has() {
    let cramped = |index| answer(1, AppendOutcome::NoRoom { index: at(index) });
    const MOST: u64 = 1 << 20;
    let mut server = Server::new(1, 3, &[1, 1]);
    server.raft.on_room(MOST);
    assert_eq!(server.settle(NOW), [], "nobody waits");
    server.room = 0;
    let entries = append(1, pos(2, 1), &[1], 0);
    assert_eq!(server.receive(NOW, 2, entries.clone()), [cramped(2)]);
    assert_eq!(server.receive(NOW, 2, heartbeat(1)), [cramped(2)], "as long as that is so");
    // What says that there was none leaves first, though there is room by now.
    let packet = Packet { from: id(2), to: id(1), message: entries.clone(), entries: Vec::new() };
    server.step(NOW, &packet);
    server.raft.on_room(MOST);
    assert_eq!(server.settle(NOW), [cramped(2)]);
    server.raft.on_room(MOST);
    assert_eq!(server.settle(NOW), [matched(1, 2)]);
    server.raft.on_room(MOST);
    assert_eq!(server.settle(NOW), [], "it was said");
    // Who takes what is sent has room.
    assert_eq!(server.receive(NOW, 2, entries.clone()), [cramped(2)]);
    server.room = u64::MAX;
    server.receive(NOW, 2, entries);
    assert_eq!(server.sync(NOW), [matched(1, 3)]);
    server.raft.on_room(MOST);
    assert_eq!(server.settle(NOW), []);
}

/// It said that it had, was sent the same entry, and refused it, as fast as the messages went.
#[test]
fn a_follower_whose_segments_do_not_hold_an_entry_does_not_ask_for_it() {
    /// What an entry of these tests takes.
    const BYTES: u64 = 10 + ENTRY_OVERHEAD_BYTES;
    let mut server = Server::new(1, 3, &[1, 1]);
    server.room = 0;
    let entries = append(1, pos(2, 1), &[1], 0);
    server.receive(NOW, 2, entries.clone());
    server.raft.on_room(BYTES - 1);
    assert_eq!(server.settle(NOW), []);
    server.raft.on_room(BYTES);
    assert_eq!(server.settle(NOW), [matched(1, 2)]);
    server.room = BYTES;
    server.receive(NOW, 2, entries);
    assert_eq!(server.sync(NOW), [matched(1, 3)], "what it asks for it takes");
}

#[test]
fn any_word_of_the_leader_puts_off_a_campaign_even_one_that_is_refused() {
    let mut server = Server::new(1, 3, &[1]);
    for message in [heartbeat(1), append(1, pos(7, 1), &[1], 0), append(1, pos(1, 1), &[1], 0)] {
        let now = server.raft.wake_at().after_ns(0);
        server.receive(now, 2, message);
        assert!(server.raft.wake_at() >= now.after_ns(TIMEOUT_NS));
    }
}

#[test]
fn a_leader_of_an_old_term_hears_the_new_one_and_nothing_else_happens() {
    let mut server = Server::new(1, 3, &[1, 2]);
    let deadline = server.raft.wake_at();
    let left = server.receive(NOW, 2, append(1, pos(1, 1), &[1, 1], 3));
    assert_eq!(left, [matched(2, 0)]);
    assert_eq!(terms(&server), [1, 2]);
    assert_eq!(server.raft.wake_at(), deadline);
    assert_eq!(server.raft.leader(), None);
}

#[test]
fn no_message_of_a_peer_can_make_us_panic_or_lose_what_is_committed() {
    let far = at(u64::MAX);
    let beyond = LogPosition::new(Term::new(3), far);
    let messages = [
        append(3, pos(3, 3), &[2], 0),        // a term after a later one
        append(3, pos(3, 3), &[4], 0),        // an entry of a term to come
        append(3, pos(3, 3), &[0], 0),        // an entry of no term
        append(3, pos(0, 2), &[3], 0),        // nowhere, with a term
        append(3, pos(3, 0), &[3], 0),        // somewhere, without one
        append(3, beyond, &[3], 0),           // not countable
        append(3, pos(3, 3), &[3], u64::MAX), // commits beyond everything
        append(3, pos(0, 0), &[3, 3], 2),     // overwrites the bootstrap
        append(3, pos(1, 1), &[3, 3, 3], 4),  // overwrites what is committed
        append(3, pos(2, 3), &[3], 2),        // contradicts what is committed
        matched(3, u64::MAX),
        conflict(3, u64::MAX, beyond),
        conflict(3, 0, beyond),
        vote(3, beyond),
        Message::Heartbeat { term: Term::new(3), session: 9, round: u64::MAX, commit: far },
    ];
    for leads in [false, true] {
        for message in &messages {
            let mut server = Server::new(1, 3, &[1, 2, 3]);
            server.receive(NOW, 2, append(3, pos(2, 2), &[3], 2));
            server.sync(NOW);
            assert_eq!(server.raft.commit_index(), at(2));
            if leads {
                let later = server.raft.wake_at();
                super::election::elect(&mut server, later);
            }
            let term = server.raft.term().get();
            for from in [1, 2, 3, 77] {
                server.receive(NOW, from, with_term(message.clone(), term));
                server.sync(NOW);
            }
            assert_eq!(terms(&server)[..2], [1, 2], "{message:?}");
            assert!(server.raft.commit_index() >= at(2));
        }
    }
}

/// The same message from a sender in `term`; entries keep theirs.
fn with_term(message: Message, new: u64) -> Message {
    let new = Term::new(new);
    match message {
        Message::Append { term: _, session, round, prev, entries, commit } => {
            Message::Append { term: new, session, round, prev, entries, commit }
        }
        Message::AppendReply { term: _, session, round, outcome, first_faulty } => {
            Message::AppendReply { term: new, session, round, outcome, first_faulty }
        }
        Message::Heartbeat { term: _, session, round, commit } => {
            Message::Heartbeat { term: new, session, round, commit }
        }
        Message::ReadIndex { term: _, sequence } => Message::ReadIndex { term: new, sequence },
        Message::ReadIndexReply { term: _, sequence, index } => {
            Message::ReadIndexReply { term: new, sequence, index }
        }
        Message::InstallSnapshot { term: _, snapshot, offset, bytes } => {
            Message::InstallSnapshot { term: new, snapshot, offset, bytes }
        }
        Message::InstallSnapshotReply { term: _, snapshot, outcome } => {
            Message::InstallSnapshotReply { term: new, snapshot, outcome }
        }
        other @ (Message::PreVote { .. }
        | Message::PreVoteReply { .. }
        | Message::Vote { .. }
        | Message::VoteReply { .. }
        | Message::TimeoutNow { .. }) => other,
    }
}

#[test]
fn a_leader_that_contradicts_what_is_committed_is_reported_and_not_obeyed() {
    let mut server = Server::new(1, 3, &[1, 2, 2]);
    server.receive(NOW, 2, append(2, pos(3, 2), &[], 3));
    server.receive(NOW, 3, append(5, pos(2, 2), &[5], 3));
    assert_eq!(terms(&server), [1, 2, 2]);
    let (ours, theirs) = (pos(3, 2), Term::new(5));
    let notice = Notice::SafetyViolated { from: id(3), ours, theirs };
    assert!(server.notices.contains(&notice), "{:?}", server.notices);
}

/// One leader a term, and it never changes an entry: a message that says otherwise is not what it
/// seems, and what we may have acknowledged to the true leader stays.
#[test]
fn what_the_leader_of_this_term_sent_is_not_cut_for_another_message_of_it() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, append(5, pos(1, 1), &[4, 4], 0));
    assert_eq!(server.sync(NOW), [matched(5, 3)]);
    server.receive(NOW, 2, append(5, pos(1, 1), &[5], 0));
    assert_eq!(terms(&server), [1, 4, 4]);
    let notice = Notice::SafetyViolated { from: id(2), ours: pos(2, 4), theirs: Term::new(5) };
    assert!(server.notices.contains(&notice), "{:?}", server.notices);
}
