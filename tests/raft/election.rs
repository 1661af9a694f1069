//! Who may campaign, who votes for whom, and who must not be disturbed.

use super::server::{HEARTBEAT_NS, Server, TIMEOUT_NS, at, disk, id, pos, settings};
use raftd::limits::TERM_JUMP_MAX;
use raftd::raft::message::{AppendOutcome, Message};
use raftd::raft::{Mark, Notice};
use raftd::types::{HardState, Instant, LogPosition, Term, Vote};

const NOW: Instant = Instant::from_ns(1_000_000_000_000);

pub(super) fn vote(term: u64, last: LogPosition) -> Message {
    Message::Vote { term: Term::new(term), last, asked_by: None }
}

pub(super) fn voted(term: u64, granted: bool) -> Message {
    Message::VoteReply { term: Term::new(term), granted }
}

pub(super) fn pre_vote(campaign_term: u64, last: LogPosition) -> Message {
    Message::PreVote { campaign_term: Term::new(campaign_term), last }
}

pub(super) fn pre_voted(term: u64, campaign_term: u64, granted: bool) -> Message {
    let campaign_term = Term::new(campaign_term);
    Message::PreVoteReply { term: Term::new(term), campaign_term, granted }
}

pub(super) fn heartbeat(term: u64) -> Message {
    Message::Heartbeat { term: Term::new(term), session: 1, round: 0, commit: at(0) }
}

/// Lets `server` campaign and win with the votes of server 2 (and 3 of five); returns what left
/// last.
pub(super) fn elect(server: &mut Server, now: Instant) -> Vec<Message> {
    let term = server.raft.term().get() + 1;
    server.tick(now);
    server.sync(now);
    let voters = u64::try_from(server.raft.configuration().voters().len()).expect("small");
    for voter in 2..=voters / 2 + 1 {
        server.receive(now, voter, pre_voted(term - 1, term, true));
    }
    server.sync(now);
    let mut left = Vec::new();
    for voter in 2..=voters / 2 + 1 {
        left = server.receive(now, voter, voted(term, true));
    }
    assert!(server.raft.is_leader(), "{}", server.raft.role_name());
    left
}

/// Server 1 of three leads term 2 at `now`, its first entry synced; 2 and 3 are connected, each
/// with its number as session.
pub(super) fn leader_of_three(now: Instant) -> Server {
    let mut server = Server::new(1, 3, &[1]);
    server.raft.connected(id(2), 2);
    server.raft.connected(id(3), 3);
    elect(&mut server, now);
    server.sync(now);
    server
}

#[test]
fn a_server_starts_as_a_follower_and_waits_between_one_and_two_timeouts() {
    let mut waits = Vec::new();
    for seed in 0..50 {
        let mut settings = settings(1);
        settings.seed = seed;
        let server = Server::start(settings, 3, disk(&[1, 2]), NOW);
        assert_eq!(server.raft.role_name(), "follower");
        let wait = server.raft.wake_at().ns_since(NOW);
        assert!((TIMEOUT_NS..2 * TIMEOUT_NS).contains(&wait), "{wait}");
        waits.push(wait);
    }
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 45, "timeouts are not spread");
}

#[test]
fn a_sole_voter_leads_at_once_but_not_before_its_own_vote_is_durable() {
    let mut server = Server::start(settings(1), 1, disk(&[1]), NOW);
    assert_eq!(server.raft.wake_at(), NOW);
    server.tick(NOW);
    server.settle(NOW);
    assert_eq!(server.raft.role_name(), "candidate");
    assert!(server.begin_job());
    assert!(!server.raft.is_leader());
    server.finish_job(NOW);
    assert!(server.raft.is_leader());
    assert!(!server.raft.leader_ready(), "its first entry is not durable");
    server.sync(NOW);
    assert!(server.raft.leader_ready());
    assert_eq!(server.raft.commit_index(), at(2));
    assert_eq!(server.raft.wake_at(), Instant::FAR, "nobody to talk to");
}

#[test]
fn a_pre_vote_changes_neither_term_nor_vote_and_promises_nothing() {
    let mut server = Server::new(1, 3, &[1, 2]);
    let before = server.raft.hard_state();
    let deadline = server.raft.wake_at();
    let left = server.receive(NOW, 2, pre_vote(3, pos(2, 2)));
    assert_eq!(left, [pre_voted(2, 3, true)]);
    let left = server.receive(NOW, 3, pre_vote(3, pos(2, 2)));
    assert_eq!(left, [pre_voted(2, 3, true)], "to everyone who asks");
    assert_eq!(server.raft.hard_state(), before);
    assert_eq!(server.raft.wake_at(), deadline, "a pre-vote is no reason to wait");
    assert!(!server.raft.has_job());
}

#[test]
fn a_vote_goes_to_logs_at_least_as_up_to_date_as_ours() {
    for (last, granted) in [
        (pos(3, 2), true),
        (pos(4, 2), true),
        (pos(1, 3), true), // a later last term beats a longer log
        (pos(2, 2), false),
        (pos(9, 1), false),
        (pos(0, 0), false),
    ] {
        let mut server = Server::new(1, 3, &[1, 2, 2]);
        assert_eq!(server.receive(NOW, 2, pre_vote(9, last)), [pre_voted(2, 9, granted)]);
        server.receive(NOW, 2, vote(9, last));
        assert_eq!(server.sync(NOW), [voted(9, granted)], "{last}");
        assert_eq!(server.raft.term(), Term::new(9), "the term counts, whoever gets the vote");
    }
}

#[test]
fn a_vote_is_given_once_per_term_and_repeated_only_to_its_candidate() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, vote(5, pos(1, 1)));
    assert_eq!(server.sync(NOW), [voted(5, true)]);
    assert_eq!(server.receive(NOW, 3, vote(5, pos(1, 1))), [voted(5, false)]);
    assert_eq!(server.receive(NOW, 2, vote(5, pos(1, 1))), [voted(5, true)]);
    assert_eq!(server.receive(NOW, 2, vote(5, pos(0, 0))), [voted(5, false)], "compared each time");
    assert_eq!(server.receive(NOW, 2, vote(4, pos(1, 1))), [voted(5, false)], "an old term");
}

#[test]
fn a_vote_that_recovery_abstains_from_is_given_to_nobody() {
    let mut disk = disk(&[1]);
    disk.hard_state = HardState { term: Term::new(4), vote: Vote::Abstain };
    let mut server = Server::start(settings(1), 3, disk, NOW);
    assert_eq!(server.receive(NOW, 2, vote(4, pos(1, 1))), [voted(4, false)]);
    server.receive(NOW, 2, vote(5, pos(1, 1)));
    assert_eq!(server.sync(NOW), [voted(5, true)]);
}

#[test]
fn a_vote_waits_for_the_disk_and_dies_with_its_term() {
    let mut server = Server::new(1, 3, &[1]);
    assert!(server.receive(NOW, 2, vote(5, pos(1, 1))).is_empty(), "not durable yet");
    assert!(server.begin_job());
    assert!(server.receive(NOW, 3, vote(6, pos(1, 1))).is_empty());
    server.finish_job(NOW);
    assert!(server.settle(NOW).is_empty(), "term 5 has passed, term 6 is not durable");
    assert_eq!(server.sync(NOW), [voted(6, true)]);
}

#[test]
fn a_candidacy_waits_for_the_disk_and_a_pre_vote_does_not() {
    let mut server = Server::new(1, 3, &[1]);
    server.tick(NOW);
    let asks = server.settle(NOW);
    assert_eq!(asks, [pre_vote(2, pos(1, 1)), pre_vote(2, pos(1, 1))]);
    assert_eq!(server.raft.term(), Term::new(1), "not raised by asking");
    assert!(server.receive(NOW, 2, pre_voted(1, 2, true)).is_empty());
    assert_eq!(server.raft.role_name(), "candidate");
    assert_eq!(server.sync(NOW), [vote(2, pos(1, 1)), vote(2, pos(1, 1))]);
}

/// Nobody was asked yet, so nobody should answer. But a leader whose vote for itself may be lost
/// could find itself voting for another in its own term after a restart.
#[test]
fn a_candidate_does_not_lead_before_its_own_vote_is_durable_whoever_votes_for_it() {
    let mut server = Server::new(1, 3, &[1]);
    server.tick(NOW);
    server.receive(NOW, 2, pre_voted(1, 2, true));
    assert!(server.begin_job(), "term 2 and its vote");
    for voter in [2, 3] {
        server.receive(NOW, voter, voted(2, true));
        assert_eq!(server.raft.role_name(), "candidate");
    }
    server.finish_job(NOW);
    assert!(server.raft.is_leader());
}

/// A cluster of one would lead a term that a crash lets it lead once more, with other entries.
#[test]
fn a_job_that_was_formed_before_the_campaign_says_nothing_of_the_own_vote() {
    let mut server = Server::new(1, 1, &[1]);
    server.tick(NOW);
    server.sync(NOW);
    server.propose(NOW, 7).expect("it leads");
    assert!(server.begin_job());
    server.receive(NOW, 2, voted(5, false));
    let later = server.raft.wake_at();
    server.tick(later);
    server.settle(later);
    assert_eq!((server.raft.role_name(), server.raft.term()), ("candidate", Term::new(6)));
    server.finish_job(later);
    assert_eq!(server.raft.role_name(), "candidate");
    server.sync(later);
    assert!(server.raft.is_leader());
}

#[test]
fn votes_are_a_set_of_voters_of_this_term() {
    let mut server = Server::new(1, 5, &[1]);
    server.tick(NOW);
    server.sync(NOW);
    for (from, reply) in [
        (2, pre_voted(1, 3, true)),  // another question
        (2, pre_voted(1, 2, false)), // a no
        (2, pre_voted(1, 2, true)),
        (2, pre_voted(1, 2, true)), // the same again
        (9, pre_voted(1, 2, true)), // not a voter
        (3, voted(1, true)),        // not a pre-vote
    ] {
        server.receive(NOW, from, reply);
        assert_eq!(server.raft.role_name(), "pre-candidate");
    }
    server.receive(NOW, 3, pre_voted(1, 2, true));
    server.sync(NOW);
    for (from, reply) in [
        (2, voted(1, true)), // an old term
        (2, pre_voted(1, 2, true)),
        (3, pre_voted(1, 2, true)),
        (2, voted(2, false)),
        (2, voted(2, true)),
        (2, voted(2, true)),
        (9, voted(2, true)),
    ] {
        server.receive(NOW, from, reply);
        assert_eq!(server.raft.role_name(), "candidate");
    }
    server.receive(NOW, 3, voted(2, true));
    assert!(server.raft.is_leader());
}

#[test]
fn a_grant_from_a_voter_behind_our_term_counts() {
    // A voter that missed terms answers with its own older one; dropping that answer leaves no
    // leader.
    let mut server = Server::new(1, 3, &[1, 5]);
    server.tick(NOW);
    server.settle(NOW);
    server.receive(NOW, 2, pre_voted(1, 6, true));
    assert_eq!(server.raft.role_name(), "candidate");
}

#[test]
fn a_refused_pre_vote_teaches_the_term() {
    let mut behind = Server::new(1, 3, &[1, 2, 2]);
    behind.tick(NOW);
    behind.settle(NOW);
    let mut ahead = Server::new(2, 3, &[1]);
    ahead.receive(NOW, 3, vote(7, pos(1, 1)));
    ahead.sync(NOW);
    let refusal = ahead.receive(NOW, 1, pre_vote(3, pos(3, 2)));
    assert_eq!(refusal, [pre_voted(7, 3, false)]);
    behind.receive(NOW, 2, refusal[0].clone());
    assert_eq!(behind.raft.term(), Term::new(7));
    assert_eq!(behind.raft.role_name(), "follower");
}

#[test]
fn whoever_hears_a_leader_gives_no_vote_and_keeps_its_term() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, heartbeat(1));
    let soon = NOW.after_ns(TIMEOUT_NS - 1);
    assert!(server.receive(soon, 3, vote(50, pos(9, 9))).is_empty());
    assert_eq!(server.raft.term(), Term::new(1), "ignored without adopting its term");
    assert_eq!(server.receive(soon, 3, pre_vote(2, pos(9, 9))), [pre_voted(1, 2, false)]);
    assert_eq!(server.raft.output().marks.count(Mark::Sticky), 2);
    let later = NOW.after_ns(TIMEOUT_NS);
    assert_eq!(server.receive(later, 3, pre_vote(2, pos(9, 9))), [pre_voted(1, 2, true)]);
    server.receive(later, 3, vote(50, pos(9, 9)));
    assert_eq!(server.sync(later), [voted(50, true)]);
}

#[test]
fn a_leader_is_not_deposed_by_a_vote_but_by_any_reply_of_a_later_term() {
    let mut server = Server::new(1, 3, &[1]);
    elect(&mut server, NOW);
    assert!(server.receive(NOW, 3, vote(50, pos(9, 9))).is_empty());
    assert!(server.raft.is_leader());
    let outcome = AppendOutcome::Matched { index: at(0) };
    let term = Term::new(9);
    let reply = Message::AppendReply { term, session: 0, round: 0, outcome, first_faulty: None };
    server.receive(NOW, 3, reply);
    assert_eq!(server.raft.role_name(), "follower");
    assert_eq!(server.raft.term(), term);
}

#[test]
fn a_leader_that_hears_no_quorum_falls_silent_within_an_election_timeout() {
    let mut server = Server::new(1, 3, &[1]);
    server.raft.connected(id(2), 7);
    server.raft.connected(id(3), 8);
    elect(&mut server, NOW);
    let mut now = NOW;
    while server.raft.is_leader() {
        now = server.raft.wake_at();
        assert!(now <= NOW.after_ns(TIMEOUT_NS), "still leading at {now:?}");
        server.tick(now);
        let left = server.settle(now);
        assert_eq!(server.raft.is_leader(), !left.is_empty());
    }
    assert_eq!(now, NOW.after_ns(TIMEOUT_NS));
    assert!(server.notices.contains(&Notice::LostQuorum { term: Term::new(2) }));
    assert_eq!(server.raft.hard_state().vote, Vote::For(id(1)), "its vote stays given");
    assert_eq!(server.receive(now, 2, vote(2, pos(9, 2))), [voted(2, false)]);
}

#[test]
fn one_follower_of_two_is_quorum_enough_to_go_on_leading() {
    let mut server = Server::new(1, 3, &[1]);
    server.raft.connected(id(2), 7);
    elect(&mut server, NOW);
    server.sync(NOW);
    let mut now = NOW;
    for _ in 0..50 {
        now = now.after_ns(HEARTBEAT_NS);
        server.tick(now);
        server.settle(now);
        let outcome = AppendOutcome::Matched { index: at(2) };
        let term = Term::new(2);
        let reply =
            Message::AppendReply { term, session: 7, round: 0, outcome, first_faulty: None };
        server.receive(now, 2, reply);
    }
    assert!(server.raft.is_leader());
}

#[test]
fn a_candidate_follows_the_leader_of_its_own_term() {
    let mut server = Server::new(1, 3, &[1]);
    server.tick(NOW);
    server.receive(NOW, 2, pre_voted(1, 2, true));
    server.receive(NOW, 3, heartbeat(2));
    assert_eq!(server.raft.role_name(), "follower");
    assert_eq!(server.raft.leader(), Some(id(3)));
    assert_eq!(server.raft.hard_state().vote, Vote::For(id(1)), "and its vote stays given");
}

#[test]
fn a_refused_vote_does_not_put_off_our_own_campaign() {
    let mut server = Server::new(1, 3, &[1, 2]);
    let deadline = server.raft.wake_at();
    server.receive(Instant::from_ns(5), 2, vote(3, pos(1, 1)));
    assert_eq!(server.raft.wake_at(), deadline);
    server.receive(Instant::from_ns(5), 2, vote(4, pos(2, 2)));
    assert!(server.raft.wake_at() != deadline, "a vote given is a reason to wait");
}

#[test]
fn a_term_far_ahead_is_no_term_of_this_cluster() {
    let mut server = Server::new(1, 3, &[1]);
    for message in [vote(1 << 40, pos(9, 9)), heartbeat(u64::MAX), voted(u64::MAX, true)] {
        assert!(server.receive(NOW, 2, message).is_empty());
    }
    assert_eq!(server.raft.term(), Term::new(1));
    let left = server.receive(NOW, 2, pre_vote(u64::MAX, pos(9, 9)));
    assert_eq!(left, [pre_voted(1, u64::MAX, false)]);
}

#[test]
fn the_farthest_term_that_is_believed_is_the_same_for_votes_and_pre_votes() {
    for (ahead, believed) in [(TERM_JUMP_MAX, true), (TERM_JUMP_MAX + 1, false)] {
        let mut server = Server::new(1, 3, &[1]);
        let left = server.receive(NOW, 2, pre_vote(1 + ahead, pos(9, 9)));
        assert_eq!(left, [pre_voted(1, 1 + ahead, believed)]);
        server.receive(NOW, 2, vote(1 + ahead, pos(9, 9)));
        assert_eq!(server.raft.term() == Term::new(1 + ahead), believed, "{}", server.raft.term());
    }
}

#[test]
fn a_campaign_is_repeated_to_a_server_whose_connection_comes_up() {
    let mut server = Server::new(1, 3, &[1]);
    server.tick(NOW);
    server.settle(NOW);
    server.raft.connected(id(3), 4);
    assert_eq!(server.settle(NOW), [pre_vote(2, pos(1, 1))]);
    server.receive(NOW, 2, pre_voted(1, 2, true));
    server.raft.connected(id(3), 5);
    let left = server.sync(NOW);
    assert_eq!(left.len(), 2, "the request that waits is replaced, not doubled: {left:?}");
}
