//! Figure 2, Rules for Leaders: the first entry, pipelines, commits.

use super::election::{elect, voted};
use super::server::{HEARTBEAT_NS, Server, TIMEOUT_NS, at, disk, id, pos, settings};
use raftd::raft::message::{AppendOutcome, Message};
use raftd::raft::{Change, ProposeError};
use raftd::types::{EntryKind, Instant, LogIndex, LogPosition, Term};

const NOW: Instant = Instant::from_ns(1_000_000_000_000);

/// Server 1 of `voters` leads term `term of its log + 1`; 2 is connected (session 7) and nobody
/// else.
pub(super) fn leader(voters: u64, terms: &[u64]) -> (Server, Vec<Message>) {
    let mut server = Server::new(1, voters, terms);
    server.raft.connected(id(2), 7);
    let first = elect(&mut server, NOW);
    (server, first)
}

pub(super) fn reply(server: &Server, outcome: AppendOutcome) -> Message {
    let term = server.raft.term();
    Message::AppendReply { term, session: 7, round: 0, outcome, first_faulty: None }
}

pub(super) fn matches(server: &Server, index: u64) -> Message {
    reply(server, AppendOutcome::Matched { index: at(index) })
}

pub(super) fn conflicts(server: &Server, probe: u64, hint: LogPosition) -> Message {
    reply(server, AppendOutcome::Conflict { probe: at(probe), hint })
}

/// (prev, last entry, commit) of each `Append` among `messages`.
pub(super) fn appends(messages: &[Message]) -> Vec<(LogPosition, u64, u64)> {
    let mut found = Vec::new();
    for message in messages {
        if let Message::Append { prev, entries, commit, .. } = message {
            let count = u64::try_from(entries.len()).expect("small");
            found.push((*prev, prev.index.advanced_by(count).get(), commit.get()));
        }
    }
    found
}

/// The commit index of each heartbeat among `messages`.
pub(super) fn commits(messages: &[Message]) -> Vec<LogIndex> {
    let mut found = Vec::new();
    for message in messages {
        if let Message::Heartbeat { commit, .. } = message {
            found.push(*commit);
        }
    }
    found
}

#[test]
fn a_leader_opens_its_term_with_an_empty_entry_sent_before_it_is_synced() {
    let (server, first) = leader(3, &[1, 2]);
    assert_eq!(server.raft.last(), pos(3, 3));
    assert_eq!(server.log[2].meta.kind, EntryKind::NoOp);
    assert_eq!(appends(&first), [(pos(2, 2), 3, 0)], "to the one that is connected");
    assert_eq!(server.raft.durable(), at(2));
}

#[test]
fn an_entry_commits_when_a_quorum_has_it_durably_and_the_leader_counts_like_any_other() {
    let (mut server, _) = leader(5, &[1]);
    server.raft.connected(id(3), 7);
    server.raft.connected(id(4), 7);
    server.receive(NOW, 2, matches(&server, 2));
    server.receive(NOW, 3, matches(&server, 2));
    assert_eq!(server.raft.commit_index(), at(0), "two disks and a promise of our own");
    server.sync(NOW);
    assert_eq!(server.raft.commit_index(), at(2));

    let (mut server, _) = leader(5, &[1]);
    server.raft.connected(id(3), 7);
    server.raft.connected(id(4), 7);
    for from in 2..=4 {
        assert_eq!(server.raft.commit_index(), at(0));
        server.receive(NOW, from, matches(&server, 2));
    }
    assert_eq!(server.raft.commit_index(), at(2), "a quorum does not need the leader's disk");
    assert_eq!(server.raft.durable(), at(1));
}

#[test]
fn figure_8_an_entry_of_an_earlier_term_is_not_committed_by_counting() {
    // (c): S1, leader of term 4, has replicated entry 2 of term 2 on a majority. S5 could still win
    // with its entry of term 3, so entry 2 must not be committed before one of term 4 is.
    let mut s1 = settings(1);
    s1.append_entries_max = 1;
    let mut server = Server::start(s1, 5, disk(&[1, 2]), Instant::ZERO);
    server.receive(NOW, 2, super::election::heartbeat(3));
    server.sync(NOW);
    server.raft.connected(id(2), 7);
    server.raft.connected(id(3), 7);
    let now = server.raft.wake_at();
    elect(&mut server, now);
    server.sync(now);
    assert_eq!(server.raft.term(), Term::new(4));
    for from in [2, 3] {
        server.receive(now, from, matches(&server, 2));
    }
    assert_eq!(server.raft.commit_index(), at(0), "on three of five, and still not committed");
    assert!(!server.raft.leader_ready());
    for from in [2, 3] {
        server.receive(now, from, matches(&server, 3));
    }
    // (e): with an entry of term 4 on a majority, S5 cannot win, and everything before commits with
    // it.
    assert_eq!(server.raft.commit_index(), at(3));
    assert!(server.raft.leader_ready());
}

#[test]
fn a_refused_probe_goes_back_by_whole_terms_on_both_sides() {
    let (mut server, first) = leader(3, &[1, 2, 2, 2, 5, 5, 5]);
    assert_eq!(appends(&first), [(pos(7, 5), 8, 0)]);
    // The follower's log: 1 2 2 4 4 4 4. It can have no entry of term 5, and we none of term 4.
    let left = server.receive(NOW, 2, conflicts(&server, 7, pos(6, 4)));
    assert_eq!(appends(&left), [(pos(4, 2), 8, 0)]);
    let left = server.receive(NOW, 2, conflicts(&server, 4, pos(3, 2)));
    assert_eq!(appends(&left), [(pos(3, 2), 8, 0)]);
    let left = server.receive(NOW, 2, conflicts(&server, 3, pos(0, 0)));
    assert_eq!(appends(&left), [(pos(0, 0), 8, 0)], "an empty log is reached as well");
}

#[test]
fn refusals_that_are_stale_or_impossible_do_not_move_us() {
    let (mut server, _) = leader(3, &[1, 2, 2, 2]);
    for refusal in [
        conflicts(&server, 3, pos(1, 1)),   // not the probe that is out
        conflicts(&server, 4, pos(4, 2)),   // a hint at the probe itself
        conflicts(&server, 4, pos(900, 2)), // or beyond it
        conflicts(&server, 900, pos(1, 1)), // of something we never sent
    ] {
        assert!(server.receive(NOW, 2, refusal).is_empty());
    }
    server.receive(NOW, 2, matches(&server, 4));
    assert!(server.receive(NOW, 2, conflicts(&server, 4, pos(1, 1))).is_empty(), "4 is proven");
    assert_eq!(server.raft.match_index(id(2)), Some(at(4)));
}

#[test]
fn answers_of_an_older_session_or_beyond_our_log_are_not_counted() {
    let (mut server, _) = leader(3, &[1]);
    server.sync(NOW);
    server.receive(NOW, 2, matches(&server, 3));
    assert_eq!(server.raft.match_index(id(2)), Some(at(0)), "we have no entry 3");
    server.raft.connected(id(2), 8);
    server.receive(NOW, 2, matches(&server, 2));
    assert_eq!(server.raft.match_index(id(2)), Some(at(0)), "session 7 is over");
    assert_eq!(server.raft.commit_index(), at(0));
}

/// A connection, and so its session, may outlive a leadership. Then only the term tells that what
/// the follower had may have been overwritten since.
#[test]
fn answers_to_an_earlier_leadership_are_not_counted() {
    let (mut server, _) = leader(3, &[1]);
    server.sync(NOW);
    let late = matches(&server, 2);
    server.receive(NOW, 3, voted(7, false));
    assert!(!server.raft.is_leader(), "somebody is in a later term");
    elect(&mut server, NOW.after_ns(10 * TIMEOUT_NS));
    server.receive(NOW.after_ns(10 * TIMEOUT_NS), 2, late);
    assert_eq!(server.raft.match_index(id(2)), Some(at(0)), "of the term before");
    assert_eq!(server.raft.commit_index(), at(0));
}

#[test]
fn a_match_index_follows_damage_down_and_the_commit_index_does_not() {
    let (mut server, _) = leader(3, &[1]);
    server.sync(NOW);
    server.receive(NOW, 2, matches(&server, 2));
    assert_eq!(server.raft.commit_index(), at(2));
    let damaged = Message::AppendReply {
        term: server.raft.term(),
        session: 7,
        round: 0,
        outcome: AppendOutcome::Matched { index: at(1) },
        first_faulty: Some(at(2)),
    };
    let left = server.receive(NOW, 2, damaged);
    assert_eq!(server.raft.match_index(id(2)), Some(at(1)));
    assert_eq!(appends(&left), [(pos(1, 1), 2, 2)], "it gets the entry again");
    assert_eq!(server.raft.commit_index(), at(2));
}

#[test]
fn pipelines_are_bounded_in_messages_and_chunks_in_entries_and_bytes() {
    let mut settings = settings(1);
    settings.append_entries_max = 3;
    settings.append_bytes_max = 20;
    settings.in_flight_messages_max = 2;
    settings.uncommitted_bytes_max = 1 << 30;
    let mut server = Server::start(settings, 3, disk(&[1]), Instant::ZERO);
    server.raft.connected(id(2), 7);
    elect(&mut server, NOW);
    for value in 0..10 {
        server.propose(NOW, value).expect("leads");
    }
    assert!(server.settle(NOW).is_empty(), "one probe is out");
    let left = server.receive(NOW, 2, matches(&server, 2));
    assert_eq!(appends(&left), [(pos(2, 2), 4, 0), (pos(4, 2), 6, 0)], "two of twenty bytes");
    assert!(server.receive(NOW, 2, matches(&server, 3)).is_empty());
    let left = server.receive(NOW, 2, matches(&server, 4));
    assert_eq!(appends(&left), [(pos(6, 2), 8, 0)]);
}

#[test]
fn an_append_commits_no_more_than_it_carries_and_a_heartbeat_no_more_than_is_matched() {
    let (mut server, _) = leader(3, &[1, 1, 1]);
    server.raft.connected(id(3), 7);
    server.settle(NOW);
    server.sync(NOW);
    server.receive(NOW, 2, matches(&server, 4));
    assert_eq!(server.raft.commit_index(), at(4));
    // Server 3 refuses the probe at 3 and is probed at 1; what it is sent then commits nothing
    // beyond it.
    let left = server.receive(NOW, 3, conflicts(&server, 3, pos(1, 1)));
    assert_eq!(appends(&left), [(pos(1, 1), 4, 4)]);
    let now = NOW.after_ns(HEARTBEAT_NS);
    server.tick(now);
    let left = server.settle(now);
    assert_eq!(appends(&left), [(pos(1, 1), 2, 2)], "the probe is repeated with one entry");
    assert_eq!(commits(&left), [at(4)], "to server 2, which has them");
}

#[test]
fn a_heartbeat_to_a_follower_behind_stays_behind() {
    let (mut server, _) = leader(3, &[1]);
    server.raft.connected(id(3), 7);
    server.sync(NOW);
    server.receive(NOW, 3, conflicts(&server, 1, pos(0, 0)));
    server.receive(NOW, 3, matches(&server, 0));
    server.receive(NOW, 2, matches(&server, 2));
    assert_eq!(server.raft.commit_index(), at(2));
    server.raft.read().expect("leads");
    let left = server.settle(NOW);
    assert_eq!(commits(&left), [at(2), at(0)], "to server 3, of which nothing is proven");
}

#[test]
fn a_follower_without_room_is_left_alone_until_the_next_heartbeat() {
    let (mut server, _) = leader(3, &[1]);
    server.sync(NOW);
    server.receive(NOW, 2, matches(&server, 2));
    for value in 0..3 {
        server.propose(NOW, value).expect("leads");
    }
    server.settle(NOW);
    let full = reply(&server, AppendOutcome::NoRoom { index: at(3) });
    assert!(server.receive(NOW, 2, full).is_empty());
    assert!(server.receive(NOW, 2, conflicts(&server, 4, pos(3, 2))).is_empty());
    let now = NOW.after_ns(HEARTBEAT_NS);
    server.tick(now);
    assert_eq!(appends(&server.settle(now)), [(pos(3, 2), 4, 2)], "one entry, to see");
    let left = server.receive(now, 2, matches(&server, 4));
    assert_eq!(appends(&left), [(pos(4, 2), 5, 2)]);
}

#[test]
fn nothing_is_sent_without_a_connection_and_a_new_one_is_probed() {
    let (mut server, _) = leader(3, &[1]);
    server.raft.disconnected(id(2), 7);
    server.propose(NOW, 1).expect("leads");
    let now = NOW.after_ns(HEARTBEAT_NS);
    server.tick(now);
    assert!(server.settle(now).is_empty());
    server.raft.connected(id(2), 8);
    assert_eq!(appends(&server.settle(now)), [(pos(1, 1), 3, 0)]);
}

#[test]
fn proposals_are_refused_by_others_and_by_a_leader_that_holds_too_much() {
    let mut follower = Server::new(1, 3, &[1]);
    assert_eq!(follower.propose(NOW, 1), Err(ProposeError::NotLeader { leader: None }));
    follower.receive(NOW, 2, super::election::heartbeat(1));
    let leader_known = Err(ProposeError::NotLeader { leader: Some(id(2)) });
    assert_eq!(follower.propose(NOW, 1), leader_known);

    let (mut server, _) = leader(3, &[1]);
    let taken = (0..1000).take_while(|value| server.propose(NOW, *value).is_ok()).count();
    assert_eq!(taken, 199, "2000 bytes are uncommitted, ten of them from before our term");
    assert_eq!(server.propose(NOW, 1), Err(ProposeError::Busy));
    server.sync(NOW);
    let last = server.raft.last().index.get();
    server.receive(NOW, 2, matches(&server, last));
    assert_eq!(server.raft.uncommitted_bytes(), 0);
    assert!(server.propose(NOW, 1).is_ok());
}

#[test]
fn an_unanswered_pipeline_is_sent_again_in_the_end() {
    let (mut server, _) = leader(3, &[1]);
    server.sync(NOW);
    server.receive(NOW, 2, matches(&server, 2));
    server.propose(NOW, 1).expect("leads");
    assert_eq!(appends(&server.settle(NOW)), [(pos(2, 2), 3, 2)]);
    let mut now = NOW;
    let mut again = Vec::new();
    while again.is_empty() {
        now = now.after_ns(HEARTBEAT_NS);
        assert!(now < NOW.after_ns(6 * TIMEOUT_NS));
        server.tick(now);
        again = appends(&server.settle(now));
        server.receive(now, 2, matches(&server, 2));
    }
    assert_eq!(again, [(pos(2, 2), 3, 2)]);
}

#[test]
fn a_leader_leaves_when_a_configuration_without_it_is_committed() {
    let (mut server, _) = leader(3, &[1]);
    server.sync(NOW);
    server.receive(NOW, 2, matches(&server, 2));
    server.raft.connected(id(3), 8);
    let position = server.change(NOW, Change::Remove(id(1))).expect("2 and 3 answer");
    assert_eq!(position.index, at(3));
    server.sync(NOW);
    server.receive(NOW, 2, matches(&server, 3));
    assert!(server.raft.is_leader(), "our own disk does not count any more");
    let term = server.raft.term();
    server.receive(NOW, 3, matches(&server, 3));
    assert_eq!(server.raft.commit_index(), at(2), "that was another session's answer");
    let outcome = AppendOutcome::Matched { index: at(3) };
    let answer = Message::AppendReply { term, session: 8, round: 0, outcome, first_faulty: None };
    let sent = server.receive(NOW, 3, answer);
    assert_eq!(server.raft.commit_index(), at(3));
    assert!(server.raft.is_leader(), "until a successor has it");
    let handover = Message::TimeoutNow { term, last: pos(3, term.get()) };
    assert!(sent.contains(&handover), "{sent:?}");
    assert_eq!(server.propose(NOW, 1), Err(ProposeError::Transferring));
    let later = NOW.after_ns(TIMEOUT_NS);
    server.settle(later);
    server.settle(later);
    assert_eq!(server.raft.role_name(), "follower", "nobody took over: others will elect");
    assert_eq!(server.raft.wake_at(), Instant::FAR, "and never campaigns again");
}
