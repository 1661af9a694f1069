//! The paper's Figure 2, sentence by sentence: each test is named for the claim and quotes the
//! words it is about. Where raftd promises more than the paper, the stronger form is tested:
//!
//! - a server asks for pre-votes before it becomes a candidate (thesis §9.6), and gives no vote
//!   while it hears a leader (thesis §4.2.3);
//! - whatever an answer promises is durable before it leaves, and a leader counts its own disk like
//!   any other (thesis §10.2.1);
//! - a refusal hints at where the logs may agree (paper §5.3, end), so `nextIndex` goes back by
//!   whole terms;
//! - a leader opens its term with an entry of its own instead of an empty request (paper §8);
//! - terms begin at 1, in which every server stores the bootstrap's entry, and `commitIndex` is
//!   remembered over a restart.

mod leaders;
mod messages;

use super::election::{elect, heartbeat, pre_vote, pre_voted, vote, voted};
use super::followers::{append, conflict, matched, terms};
use super::leaders::{appends, conflicts, leader, matches};
use super::scenarios::nodes::{Answer, Nodes};
use super::server::{Server, TIMEOUT_NS, at, id, pos, settings};
use raftd::raft::message::{AppendOutcome, Message};
use raftd::types::{HardState, Instant, LogIndex, Term, Vote};

const NOW: Instant = Instant::from_ns(1_000_000_000_000);

fn restart(server: Server) -> Server {
    Server::start(settings(1), 3, server.power_loss(0), NOW)
}

/// State, persistent: "Updated on stable storage before responding".
#[test]
fn nothing_is_answered_before_the_state_it_speaks_of_is_on_stable_storage() {
    for (request, answer) in [
        (vote(5, pos(1, 1)), voted(5, true)),
        (vote(5, pos(0, 0)), voted(5, false)), // a refusal speaks for the new term
        (append(5, pos(1, 1), &[5], 0), matched(5, 2)),
        (append(5, pos(4, 4), &[5], 0), conflict(5, 4, pos(1, 1))),
    ] {
        let mut server = Server::new(1, 3, &[1]);
        assert!(server.receive(NOW, 2, request).is_empty());
        assert!(server.begin_job());
        assert!(server.settle(NOW).is_empty(), "{answer:?} left early");
        server.finish_job(NOW);
        assert_eq!(server.settle(NOW), [answer]);
        assert_eq!(server.disk.hard_state, server.raft.hard_state());
    }
}

/// State, `currentTerm`: "latest term server has seen", "increases monotonically".
#[test]
fn the_current_term_is_the_latest_seen_and_never_goes_back() {
    let mut server = Server::new(1, 3, &[1]);
    let mut seen = server.raft.term();
    for term in [3, 2, 7, 1, 7, 6, 9] {
        server.receive(NOW, 2, voted(term, false));
        server.sync(NOW);
        seen = seen.max(Term::new(term));
        assert_eq!(server.raft.term(), seen);
        server = restart(server);
        assert_eq!(server.raft.term(), seen, "nor over a restart");
    }
}

/// State, `votedFor`: "candidateId that received vote in current term (or null if none)".
#[test]
fn the_vote_is_of_the_current_term_and_gone_with_it() {
    let mut server = Server::new(1, 3, &[1]);
    assert_eq!(server.raft.hard_state().vote, Vote::None);
    server.receive(NOW, 2, vote(5, pos(1, 1)));
    assert_eq!(server.raft.hard_state(), HardState { term: Term::new(5), vote: Vote::For(id(2)) });
    server.receive(NOW, 3, voted(6, false));
    assert_eq!(server.raft.hard_state(), HardState { term: Term::new(6), vote: Vote::None });
}

/// State, `log[]`: "each entry contains command […] and term when entry was received by leader
/// (first index is 1)".
#[test]
fn an_entry_has_the_term_in_which_its_leader_took_it_and_the_first_index_is_one() {
    let (mut server, _) = leader(3, &[1, 1]);
    let position = server.propose(NOW, 42).expect("leads");
    assert_eq!(position, pos(4, 2), "behind the entry that opened term 2");
    assert_eq!(server.log[3].value, 42);
    assert_eq!(server.raft.term_at(at(4)), Some(Term::new(2)));
    assert_eq!(server.raft.term_at(at(1)), Some(Term::new(1)));
    assert_eq!(server.raft.term_at(at(5)), None);
    let mut follower = Server::new(2, 3, &[1]);
    follower.receive(NOW, 1, append(9, pos(1, 1), &[3], 0));
    assert_eq!(follower.raft.term_at(at(2)), Some(Term::new(3)), "not of the term that sends it");
}

/// State, `commitIndex`: "index of highest log entry known to be committed (initialized to 0,
/// increases monotonically)".
#[test]
fn the_commit_index_begins_at_zero_and_never_goes_back() {
    let mut server = Server::new(1, 3, &[1, 1, 1]);
    assert_eq!(server.raft.commit_index(), at(0));
    let mut highest = at(0);
    for commit in [2, 1, 3, 0, 2] {
        server.receive(NOW, 2, append(1, pos(3, 1), &[], commit));
        highest = highest.max(at(commit));
        assert_eq!(server.raft.commit_index(), highest);
    }
    server.receive(NOW, 2, append(1, pos(3, 1), &[1], 3));
    server.sync(NOW);
    assert_eq!(restart(server).raft.commit_index(), at(3), "remembered: stronger than the paper");
}

/// State, `lastApplied`: "index of highest log entry applied to state machine (initialized to 0,
/// increases monotonically)".
#[test]
fn what_is_applied_begins_at_zero_and_grows_up_to_what_is_committed() {
    let mut nodes = Nodes::new(3);
    let fresh = nodes.arrive();
    assert_eq!(nodes.status_of(fresh).applied_index, LogIndex::ZERO);
    nodes.crash(fresh);
    let mut highest = [LogIndex::ZERO; 3];
    let mut look = |nodes: &mut Nodes| {
        nodes.pass(5_000_000);
        for (nth, highest) in (1..).zip(&mut highest) {
            let status = nodes.status_of(nth);
            assert!(status.applied_index >= *highest, "{nth} goes back");
            assert!(status.applied_index <= status.commit_index, "{nth} applies what may go");
            *highest = status.applied_index;
        }
    };
    for _ in 0..40 {
        look(&mut nodes);
    }
    let leader = nodes.leader().expect("elected");
    let begun = nodes.status_of(leader).applied_index;
    for key in ["a", "b", "c"] {
        nodes.put(leader, key);
        look(&mut nodes);
    }
    for _ in 0..40 {
        look(&mut nodes);
    }
    let committed = begun.advanced_by(3);
    assert!((1..=3).all(|nth| nodes.status_of(nth).applied_index == committed));
}

/// State on leaders: "(Reinitialized after election)"; `nextIndex[]`: "initialized to leader last
/// log index + 1".
#[test]
fn a_new_leader_first_offers_everybody_what_follows_its_log() {
    let mut server = Server::new(1, 3, &[1, 2, 2]);
    server.raft.connected(id(2), 7);
    server.raft.connected(id(3), 8);
    let first = elect(&mut server, NOW);
    assert_eq!(appends(&first), [(pos(3, 2), 4, 0), (pos(3, 2), 4, 0)]);
    server.sync(NOW);
    server.receive(NOW, 2, conflicts(&server, 3, pos(1, 1)));
    server.receive(NOW, 2, heartbeat(5));
    let later = server.raft.wake_at();
    server.sync(later);
    let again = elect(&mut server, later);
    assert_eq!(appends(&again)[0], (pos(4, 3), 5, 0), "what it knew of term 3 is over");
}

/// State on leaders, `matchIndex[]`: "initialized to 0, increases monotonically".
#[test]
fn a_match_index_begins_at_zero_and_grows_with_what_is_durable_there() {
    let (mut server, _) = leader(3, &[1, 1]);
    assert_eq!(server.raft.match_index(id(2)), Some(LogIndex::ZERO));
    server.propose(NOW, 1).expect("leads");
    for (said, known) in [(2, 2), (1, 2), (4, 4), (3, 4), (0, 4)] {
        server.receive(NOW, 2, matches(&server, said));
        assert_eq!(server.raft.match_index(id(2)), Some(at(known)));
    }
    server.raft.connected(id(2), 9);
    assert_eq!(server.raft.match_index(id(2)), Some(at(0)), "a new connection proves anew");
}

/// `AppendEntries`, results, `success`: "true if follower contained entry matching prevLogIndex and
/// prevLogTerm".
#[test]
fn success_names_the_last_entry_that_matches_and_is_durable() {
    let mut server = Server::new(1, 3, &[1, 2, 2]);
    let left = server.receive(NOW, 2, append(2, pos(2, 2), &[], 0));
    assert_eq!(left, [matched(2, 2)], "entry 3 may not be the leader's");
    assert!(server.receive(NOW, 2, append(2, pos(3, 2), &[2], 0)).is_empty());
    assert_eq!(server.receive(NOW, 2, heartbeat(2)), [matched(2, 3)], "4 is not durable");
    assert_eq!(server.sync(NOW), [matched(2, 4)]);
}

/// `AppendEntries`, arguments, `leaderId`: "so follower can redirect clients".
#[test]
fn a_follower_knows_its_leader_by_its_messages() {
    let mut server = Server::new(1, 3, &[1]);
    assert_eq!(server.raft.leader(), None);
    server.receive(NOW, 3, heartbeat(2));
    assert_eq!(server.raft.leader(), Some(id(3)));
    server.receive(NOW, 2, append(4, pos(1, 1), &[], 0));
    assert_eq!(server.raft.leader(), Some(id(2)), "of its term");
    server.receive(NOW, 3, voted(5, false));
    assert_eq!(server.raft.leader(), None, "a term begins without one");
}

/// `AppendEntries`, receiver 1: "Reply false if term < currentTerm".
#[test]
fn a_leader_of_an_older_term_is_told_the_term_and_changes_nothing() {
    for request in [append(2, pos(1, 1), &[2], 1), heartbeat(2)] {
        let mut server = Server::new(1, 3, &[1, 3]);
        assert_eq!(server.receive(NOW, 2, request), [matched(3, 0)]);
        assert_eq!(terms(&server), [1, 3]);
        assert_eq!(server.raft.commit_index(), at(0));
        assert_eq!(server.raft.leader(), None);
    }
}

/// `AppendEntries`, receiver 2: "Reply false if log doesn't contain an entry at prevLogIndex whose
/// term matches prevLogTerm".
#[test]
fn entries_that_do_not_join_the_log_are_refused_with_a_hint() {
    for (prev, hint) in [
        (pos(4, 3), pos(3, 3)), // beyond the end
        (pos(3, 2), pos(2, 2)), // another term
        (pos(2, 3), pos(1, 1)),
    ] {
        let mut server = Server::new(1, 3, &[1, 2, 3]);
        let left = server.receive(NOW, 2, append(3, prev, &[3], 3));
        assert_eq!(left, [conflict(3, prev.index.get(), hint)]);
        assert_eq!(terms(&server), [1, 2, 3]);
        assert_eq!(server.raft.commit_index(), at(0), "whatever the leader has committed");
    }
}

/// `AppendEntries`, receiver 3: "If an existing entry conflicts with a new one […], delete the
/// existing entry and all that follow it".
#[test]
fn the_first_conflicting_entry_and_all_behind_it_are_deleted() {
    let mut server = Server::new(1, 3, &[1, 2, 2, 2, 2]);
    server.receive(NOW, 2, append(3, pos(2, 2), &[2, 3], 0));
    assert_eq!(terms(&server), [1, 2, 2, 3]);
    server.sync(NOW);
    assert_eq!(server.disk.entries, server.log);
}

/// `AppendEntries`, receiver 3, what it does not say: no conflict, no deletion.
#[test]
fn entries_behind_those_of_a_message_stay_if_none_conflicts() {
    let mut server = Server::new(1, 3, &[1, 2, 2, 2, 2]);
    for request in [append(3, pos(1, 1), &[2, 2], 0), append(3, pos(2, 2), &[], 0)] {
        server.receive(NOW, 2, request);
        assert_eq!(terms(&server), [1, 2, 2, 2, 2]);
    }
}

/// `AppendEntries`, receiver 4: "Append any new entries not already in the log".
#[test]
fn only_entries_that_are_new_are_appended() {
    let mut server = Server::new(1, 3, &[1, 2, 2]);
    let before = server.log.clone();
    server.receive(NOW, 2, append(3, pos(1, 1), &[2, 2, 3, 3], 0));
    assert_eq!(terms(&server), [1, 2, 2, 3, 3]);
    assert_eq!(server.log[..3], before, "those that were there are those that were there");
    server.receive(NOW, 2, append(3, pos(1, 1), &[2, 2, 3, 3], 0));
    assert_eq!(terms(&server), [1, 2, 2, 3, 3]);
}

/// `AppendEntries`, receiver 5: "commitIndex = min(leaderCommit, index of last new entry)". Read as
/// the proof needs it: the last entry that this message verified.
#[test]
fn the_commit_index_follows_the_leaders_as_far_as_the_message_verified() {
    for (entries, commit, expected) in [
        (&[][..], 0, 0),
        (&[][..], 9, 2), // what is behind prev may be another leader's
        (&[2][..], 2, 2),
        (&[2][..], 9, 3),
        (&[2, 3][..], 9, 4),
    ] {
        let mut server = Server::new(1, 3, &[1, 2, 2, 2]);
        server.receive(NOW, 2, append(3, pos(2, 2), entries, commit));
        assert_eq!(server.raft.commit_index(), at(expected), "{entries:?} {commit}");
    }
}

/// `RequestVote`, results, `term`: "currentTerm, for candidate to update itself".
#[test]
fn an_answer_to_a_request_for_votes_names_the_voters_term() {
    let mut voter = Server::new(2, 3, &[1, 7]);
    assert_eq!(voter.receive(NOW, 1, vote(3, pos(9, 3))), [voted(7, false)]);
    let mut candidate = Server::new(1, 3, &[1]);
    candidate.tick(NOW);
    candidate.receive(NOW, 3, pre_voted(1, 2, true));
    candidate.sync(NOW);
    candidate.receive(NOW, 2, voted(7, false));
    assert_eq!(candidate.raft.term(), Term::new(7));
    assert_eq!(candidate.raft.role_name(), "follower");
}

/// `RequestVote`, receiver 1: "Reply false if term < currentTerm".
#[test]
fn a_candidate_of_an_older_term_gets_no_vote() {
    let mut server = Server::new(1, 3, &[1, 3]);
    assert_eq!(server.receive(NOW, 2, vote(2, pos(9, 2))), [voted(3, false)]);
    assert_eq!(server.raft.hard_state().vote, Vote::None);
    assert_eq!(server.receive(NOW, 2, pre_vote(3, pos(9, 3))), [pre_voted(3, 3, false)]);
}

/// `RequestVote`, receiver 2: "If votedFor is null or candidateId, […] grant vote".
#[test]
fn a_vote_goes_to_one_candidate_of_a_term_however_often_it_asks() {
    let mut server = Server::new(1, 3, &[1]);
    server.receive(NOW, 2, vote(2, pos(1, 1)));
    assert_eq!(server.sync(NOW), [voted(2, true)]);
    assert_eq!(server.receive(NOW, 3, vote(2, pos(1, 1))), [voted(2, false)]);
    assert_eq!(server.receive(NOW, 2, vote(2, pos(1, 1))), [voted(2, true)]);
}

/// `RequestVote`, receiver 2: "candidate's log is at least as up-to-date as receiver's log".
#[test]
fn a_vote_goes_to_a_log_that_is_as_up_to_date() {
    for (last, granted) in
        [(pos(2, 2), true), (pos(3, 2), true), (pos(1, 3), true), (pos(1, 2), false)]
    {
        let mut server = Server::new(1, 3, &[1, 2]);
        server.receive(NOW, 2, vote(4, last));
        assert_eq!(server.sync(NOW), [voted(4, granted)], "{last}");
    }
}

/// All servers: "If commitIndex > lastApplied: increment lastApplied, apply log[lastApplied]".
/// Leaders: "respond after entry applied to state machine".
#[test]
fn a_client_is_answered_when_its_entry_is_committed_and_applied() {
    let mut nodes = Nodes::new(3);
    nodes.pass(200_000_000);
    let leader = nodes.leader().expect("elected");
    let others = [1, 2, 3].into_iter().filter(|nth| *nth != leader);
    others.clone().for_each(|nth| nodes.hold_sync(nth));
    let before = nodes.status_of(leader);
    assert_eq!(before.applied_index, before.commit_index);
    let put = nodes.put(leader, "key");
    nodes.pass(50_000_000);
    assert_eq!(nodes.answers.get(&put), None, "on one disk of three");
    assert_eq!(nodes.status_of(leader).applied_index, before.applied_index);
    others.clone().for_each(|nth| nodes.release_sync(nth));
    assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
    nodes.pass(100_000_000);
    for nth in 1..=3 {
        let status = nodes.status_of(nth);
        assert_eq!(status.applied_index, before.applied_index.next());
        assert_eq!(status.commit_index, status.applied_index);
        assert_eq!(status.state_hash, nodes.status_of(leader).state_hash);
    }
}

/// All servers: "If RPC request or response contains term T > currentTerm: set currentTerm = T,
/// convert to follower".
#[test]
fn a_later_term_in_any_message_makes_a_follower_of_anybody() {
    let outcome = AppendOutcome::Matched { index: at(0) };
    let term = Term::new(9);
    let messages = [
        append(9, pos(1, 1), &[9], 0),
        heartbeat(9),
        voted(9, false),
        pre_voted(9, 10, false),
        Message::AppendReply { term, session: 0, round: 0, outcome, first_faulty: None },
    ];
    for message in messages {
        for role in ["follower", "pre-candidate", "candidate", "leader"] {
            let mut server = in_role(role);
            server.receive(NOW, 3, message.clone());
            assert_eq!(server.raft.role_name(), "follower", "{role} {message:?}");
            assert_eq!(server.raft.term(), term, "{role} {message:?}");
        }
    }
    // A request for votes too, but from who hears a leader: stronger than the paper.
    let mut server = in_role("candidate");
    server.receive(NOW, 3, vote(9, pos(0, 0)));
    assert_eq!(server.raft.term(), term);
    let mut server = in_role("leader");
    server.receive(NOW, 3, vote(9, pos(9, 9)));
    assert!(server.raft.is_leader(), "who is heard by a quorum is not disturbed");
}

fn in_role(role: &str) -> Server {
    let mut server = Server::new(1, 3, &[1]);
    match role {
        "pre-candidate" => server.tick(NOW),
        "candidate" => {
            server.tick(NOW);
            server.receive(NOW, 2, pre_voted(1, 2, true));
            server.sync(NOW);
        }
        "leader" => {
            elect(&mut server, NOW);
        }
        _follower => {}
    }
    assert_eq!(server.raft.role_name(), role);
    server
}

/// Followers: "Respond to RPCs from candidates and leaders".
#[test]
fn a_follower_answers_candidates_and_leaders() {
    for request in [
        pre_vote(2, pos(1, 1)),
        vote(2, pos(1, 1)),
        vote(1, pos(0, 0)),
        append(1, pos(1, 1), &[1], 0),
        append(1, pos(5, 1), &[1], 0),
        heartbeat(1),
        heartbeat(0),
    ] {
        let mut server = Server::new(1, 3, &[1]);
        let at_once = server.receive(NOW, 2, request.clone());
        let later = server.sync(NOW);
        assert_eq!(at_once.len() + later.len(), 1, "{request:?}");
    }
}

/// Followers: "If election timeout elapses without receiving AppendEntries RPC from current leader
/// or granting vote to candidate: convert to candidate".
#[test]
fn a_follower_campaigns_when_it_heard_no_leader_and_gave_no_vote_for_its_timeout() {
    let early = Instant::from_ns(TIMEOUT_NS / 2);
    for (message, waits) in [
        (heartbeat(1), true),
        (append(1, pos(1, 1), &[1], 0), true),
        (append(1, pos(9, 1), &[1], 0), true), // refused, but the leader's
        (vote(2, pos(1, 1)), true),            // granted
        (vote(2, pos(0, 0)), false),           // refused
        (pre_vote(2, pos(1, 1)), false),       // no vote
        (heartbeat(0), false),                 // not the current leader
        (voted(1, true), false),
    ] {
        let mut server = Server::new(1, 3, &[1]);
        let deadline = server.raft.wake_at();
        assert!(deadline >= Instant::from_ns(TIMEOUT_NS));
        server.receive(early, 2, message.clone());
        server.tick(Instant::from_ns(deadline.as_ns() - 1));
        assert_eq!(server.raft.role_name(), "follower");
        assert_eq!(server.raft.wake_at() != deadline, waits, "{message:?}");
        assert!(!waits || server.raft.wake_at() >= early.after_ns(TIMEOUT_NS));
        let deadline = server.raft.wake_at();
        server.tick(deadline);
        assert_eq!(server.raft.role_name(), "pre-candidate", "candidate if others would vote");
    }
}

/// Candidates: "Increment currentTerm", "Vote for self", "Reset election timer", "Send
/// `RequestVote` RPCs to all other servers".
#[test]
fn a_candidate_begins_a_term_votes_for_itself_and_asks_everybody_else() {
    let mut server = Server::new(1, 5, &[1]);
    server.tick(NOW);
    assert_eq!(server.settle(NOW).len(), 4, "pre-votes");
    assert_eq!(server.raft.term(), Term::new(1), "asking raises no term");
    let later = NOW.after_ns(5);
    server.receive(later, 2, pre_voted(1, 2, true));
    assert_eq!(server.raft.role_name(), "pre-candidate", "two of five");
    server.receive(later, 3, pre_voted(1, 2, true));
    assert_eq!(server.raft.role_name(), "candidate");
    let own = HardState { term: Term::new(2), vote: Vote::For(id(1)) };
    assert_eq!(server.raft.hard_state(), own);
    assert!(server.raft.wake_at() >= later.after_ns(TIMEOUT_NS));
    let asked = server.sync(later);
    assert_eq!(
        asked,
        [vote(2, pos(1, 1)), vote(2, pos(1, 1)), vote(2, pos(1, 1)), vote(2, pos(1, 1))]
    );
    assert_eq!(server.disk.hard_state, own, "before anyone is asked");
}

/// Candidates: "If votes received from majority of servers: become leader".
#[test]
fn a_candidate_leads_with_the_votes_of_a_majority_and_no_fewer() {
    for voters in [2, 3, 4, 5] {
        let mut server = Server::new(1, voters, &[1]);
        server.tick(NOW);
        for voter in 2..=voters {
            server.receive(NOW, voter, pre_voted(1, 2, true));
        }
        assert!(
            server.settle(NOW).iter().all(|message| matches!(message, Message::PreVote { .. }))
        );
        server.sync(NOW);
        for voter in 2..=voters / 2 + 1 {
            assert!(!server.raft.is_leader(), "{} of {voters}", voter - 1);
            server.receive(NOW, voter, voted(2, true));
        }
        assert!(server.raft.is_leader(), "{} of {voters}", voters / 2 + 1);
    }
}

/// Candidates: "If `AppendEntries` RPC received from new leader: convert to follower".
#[test]
fn a_candidate_follows_a_leader_of_its_term() {
    for role in ["pre-candidate", "candidate"] {
        for kind in [false, true] {
            let mut server = in_role(role);
            let term = server.raft.term().get();
            let word = if kind { heartbeat(term) } else { append(term, pos(1, 1), &[], 0) };
            server.receive(NOW, 3, word);
            assert_eq!(server.raft.role_name(), "follower");
            assert_eq!(server.raft.leader(), Some(id(3)));
            assert_eq!(server.raft.term().get(), term);
        }
    }
}

/// Candidates: "If election timeout elapses: start new election".
#[test]
fn a_candidate_without_a_majority_campaigns_again_in_a_later_term() {
    let mut server = in_role("candidate");
    let deadline = server.raft.wake_at();
    server.tick(deadline);
    assert_eq!(server.raft.role_name(), "pre-candidate");
    assert_eq!(server.sync(deadline), [pre_vote(3, pos(1, 1)), pre_vote(3, pos(1, 1))]);
    server.receive(deadline, 2, pre_voted(2, 3, true));
    assert_eq!(server.raft.role_name(), "candidate");
    assert_eq!(server.raft.term(), Term::new(3));
}
