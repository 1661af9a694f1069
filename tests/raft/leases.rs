//! Leases, and the promises behind them: who must not vote, and for how long. Thesis §6.4.1.

use super::election::{elect, heartbeat, vote, voted};
use super::server::{HEARTBEAT_NS, Server, TIMEOUT_NS, at, disk, id, pos, settings};
use raftd::raft::message::{AppendOutcome, Message};
use raftd::raft::{Change, Dropped, Mark};
use raftd::types::{HardState, Instant, Term, Vote};

const NOW: Instant = Instant::from_ns(1_000_000_000_000);
/// 300 ms less 1 % less a millisecond.
const LEASE_NS: u64 = 296_000_000;

fn leader_with(lease_drift_ppm: Option<u32>) -> Server {
    let mut settings = settings(1);
    settings.lease_drift_ppm = lease_drift_ppm;
    let mut server = Server::start(settings, 3, disk(&[1]), Instant::ZERO);
    server.raft.connected(id(2), 2);
    server.raft.connected(id(3), 3);
    elect(&mut server, NOW);
    server.sync(NOW);
    server
}

fn confirm(server: &mut Server, now: Instant, from: u64, round: u64) {
    let outcome = AppendOutcome::Matched { index: at(2) };
    let term = server.raft.term();
    let reply = Message::AppendReply { term, session: from, round, outcome, first_faulty: None };
    server.receive(now, from, reply);
}

/// A leader whose first heartbeat began round 1 at the moment returned, confirmed a bit later.
fn leaseholder() -> (Server, Instant) {
    let mut server = leader_with(Some(10_000));
    confirm(&mut server, NOW, 2, 0);
    let begun = NOW.after_ns(HEARTBEAT_NS);
    server.tick(begun);
    server.settle(begun);
    confirm(&mut server, begun.after_ns(40_000_000), 2, 1);
    (server, begun)
}

/// Asks by lease at `now`; says whether the answer came at once.
fn answers_at_once(server: &mut Server, now: Instant) -> bool {
    server.raft.read_by_lease().expect("leads");
    server.settle(now);
    let answered = server.reads.drain(..).count();
    answered == 1
}

#[test]
fn a_lease_counts_from_the_beginning_of_the_round_and_not_from_its_confirmation() {
    let (mut server, begun) = leaseholder();
    assert!(answers_at_once(&mut server, begun.after_ns(LEASE_NS - 1)));
    assert_eq!(server.raft.output().marks.count(Mark::LeaseRead), 1);
    assert!(!answers_at_once(&mut server, begun.after_ns(LEASE_NS)), "over: it asks a quorum");
    confirm(&mut server, begun.after_ns(LEASE_NS), 3, 2);
    assert_eq!(server.reads.len(), 1, "and is answered by that");
}

/// Nobody has promised anything for a round that is on its way.
#[test]
fn a_round_that_nobody_has_confirmed_prolongs_no_lease() {
    let (mut server, begun) = leaseholder();
    let beat = begun.after_ns(HEARTBEAT_NS);
    server.tick(beat);
    server.settle(beat);
    assert!(server.raft.holds_lease(begun.after_ns(LEASE_NS - 1)));
    let over = begun.after_ns(LEASE_NS);
    assert!(!server.raft.holds_lease(over));
    confirm(&mut server, over, 3, 2);
    assert!(server.raft.holds_lease(over));
}

#[test]
fn without_a_stated_drift_there_is_no_lease() {
    let mut server = leader_with(None);
    confirm(&mut server, NOW, 2, 0);
    server.raft.read().expect("leads");
    server.settle(NOW);
    confirm(&mut server, NOW, 2, 1);
    assert_eq!(server.reads.drain(..).count(), 1);
    assert!(!answers_at_once(&mut server, NOW));
    confirm(&mut server, NOW, 2, 2);
    assert_eq!(server.reads.len(), 1, "answered as a linearizable read is");
}

#[test]
fn a_lease_waits_for_the_first_commit_of_the_term() {
    let mut server = leader_with(Some(10_000));
    let begun = NOW.after_ns(HEARTBEAT_NS);
    server.tick(begun);
    server.settle(begun);
    let outcome = AppendOutcome::Matched { index: at(1) };
    let term = server.raft.term();
    let reply = Message::AppendReply { term, session: 2, round: 1, outcome, first_faulty: None };
    server.receive(begun, 2, reply);
    assert!(!answers_at_once(&mut server, begun), "a quorum heard us, and nothing of ours yet");
    assert!(!server.raft.holds_lease(begun));
    confirm(&mut server, begun, 2, 1);
    assert!(server.raft.holds_lease(begun));
}

#[test]
fn a_lease_ends_with_the_leadership() {
    let (mut server, begun) = leaseholder();
    server.raft.read_by_lease().expect("leads");
    server.receive(begun, 3, heartbeat(9));
    assert!(server.reads.iter().all(|ready| ready.result.is_err()));
    assert!(!server.raft.holds_lease(begun));
}

/// Nothing of its term is committed, so its readers wait; and are told when it leads no more.
#[test]
fn who_waits_for_a_lease_that_never_came_is_told_when_the_leadership_ends() {
    let mut server = leader_with(Some(10_000));
    server.raft.read_by_lease().expect("leads");
    server.settle(NOW);
    assert!(server.reads.is_empty(), "no read before the term's first commit");
    server.receive(NOW, 3, heartbeat(9));
    let told: Vec<_> = server.reads.drain(..).map(|ready| ready.result).collect();
    assert_eq!(told, [Err(Dropped)]);
}

/// What a quorum of one configuration promised keeps no quorum of the next from electing another.
#[test]
fn a_lease_ends_with_the_configuration_whose_quorum_confirmed_it() {
    let (mut server, begun) = leaseholder();
    let now = begun.after_ns(40_000_000);
    assert!(server.raft.holds_lease(now));
    server.change(now, Change::Remove(id(2))).expect("a quorum answers");
    server.settle(now);
    assert!(!server.raft.holds_lease(now), "3 has promised nothing");
    let begun = begun.after_ns(HEARTBEAT_NS);
    server.tick(begun);
    server.settle(begun);
    confirm(&mut server, begun, 3, 2);
    assert!(server.raft.holds_lease(begun), "now it has");
}

/// Whom it tells to campaign, now or when the message arrives, waits for nobody's promise.
#[test]
fn a_lease_ends_for_the_term_when_a_handover_begins() {
    let (mut server, begun) = leaseholder();
    assert!(server.raft.holds_lease(begun));
    server.raft.transfer(begun, id(2)).expect("its connection stands");
    assert!(!server.raft.holds_lease(begun));
    assert!(!answers_at_once(&mut server, begun));
    confirm(&mut server, begun, 2, 2);
    assert!(!server.raft.holds_lease(begun), "nor by a later round");
    assert_eq!(server.reads.len(), 1, "which answers what was asked");
}

/// Who was told to campaign may hear of it only then.
#[test]
fn nor_does_a_lease_come_back_when_the_handover_is_given_up() {
    let (mut server, begun) = leaseholder();
    server.raft.transfer(begun, id(2)).expect("its connection stands");
    server.settle(begun);
    let given_up = begun.after_ns(TIMEOUT_NS);
    confirm(&mut server, given_up, 3, 1);
    server.tick(given_up);
    server.settle(given_up);
    assert_eq!(server.raft.transferring_to(), None);
    assert!(server.raft.is_leader(), "it goes on as before");
    server.raft.read().expect("leads");
    server.settle(given_up);
    confirm(&mut server, given_up, 3, 2);
    assert_eq!(server.reads.len(), 1, "a round of after it is confirmed");
    assert!(!server.raft.holds_lease(given_up));
}

/// Its quorum promises anew, and what was told to the first target is still on its way.
#[test]
fn nor_with_another_configuration() {
    let (mut server, begun) = leaseholder();
    server.raft.transfer(begun, id(2)).expect("its connection stands");
    server.settle(begun);
    let given_up = begun.after_ns(TIMEOUT_NS);
    confirm(&mut server, given_up, 3, 1);
    server.tick(given_up);
    server.settle(given_up);
    server.change(given_up, Change::Remove(id(2))).expect("a quorum answers");
    server.settle(given_up);
    let beat = given_up.after_ns(HEARTBEAT_NS);
    server.tick(beat);
    server.settle(beat);
    confirm(&mut server, beat, 3, 2);
    assert!(server.raft.is_leader());
    assert!(!server.raft.holds_lease(beat));
}

/// A heartbeat's round for the lease begins while a read waits for its own.
#[test]
fn a_round_that_begins_later_confirms_no_read() {
    let (mut server, begun) = leaseholder();
    server.raft.read().expect("leads");
    server.settle(begun);
    let later = begun.after_ns(HEARTBEAT_NS);
    server.tick(later);
    server.settle(later);
    server.settle(later);
    assert!(server.reads.is_empty(), "nobody has answered");
    confirm(&mut server, later, 3, 2);
    assert_eq!(server.reads.len(), 1);
}

#[test]
fn a_promise_ends_with_the_leases_of_the_leader_that_hands_over() {
    let mut server = Server::new(2, 3, &[1, 1]);
    let term = Term::new(5);
    let message = Message::Heartbeat { term, session: 1, round: 7, commit: at(0) };
    server.receive(NOW, 1, message);
    server.sync(NOW);
    let early = NOW.after_ns(TIMEOUT_NS - 1);
    let (term, last) = (Term::new(6), pos(9, 5));
    let vote_for = |asked_by| Message::Vote { term, last, asked_by };
    assert!(server.receive(early, 3, vote_for(Some(id(3)))).is_empty(), "3 does not lead");
    server.receive(early, 3, vote_for(Some(id(1))));
    assert_eq!(server.sync(early), [voted(6, true)]);
}

#[test]
fn whoever_confirmed_a_round_votes_for_nobody_for_a_timeout_even_in_a_later_term() {
    let mut server = Server::new(2, 3, &[1, 1]);
    let term = Term::new(5);
    // Stopped between its look at the clock and its look at the network: it takes the message for
    // older than it is, and its promise must not.
    let message = Message::Heartbeat { term, session: 1, round: 7, commit: at(0) };
    let heard = Instant::from_ns(NOW.as_ns() - 2 * TIMEOUT_NS);
    let packet = super::server::Packet { from: id(1), to: id(2), message, entries: Vec::new() };
    server.step(heard, &packet);
    server.sync(NOW);
    assert!(server.raft.wake_at() >= NOW.after_ns(TIMEOUT_NS), "nor does it campaign before");
    // A later term is heard of, and with it the leader is gone.
    let early = NOW.after_ns(TIMEOUT_NS - 1);
    server.receive(early, 3, voted(8, false));
    assert_eq!(server.raft.term(), Term::new(8));
    assert!(server.receive(early, 3, vote(9, pos(9, 8))).is_empty());
    assert_eq!(server.raft.output().marks.count(Mark::Sticky), 1);
    let late = NOW.after_ns(TIMEOUT_NS);
    server.receive(late, 3, vote(9, pos(9, 8)));
    assert_eq!(server.sync(late), [voted(9, true)]);
}

#[test]
fn where_there_are_leases_a_restarted_server_votes_for_nobody_for_a_timeout() {
    let mut disk = disk(&[1, 2]);
    disk.hard_state = HardState { term: Term::new(2), vote: Vote::None };
    let mut settings = settings(2);
    settings.lease_drift_ppm = Some(10);
    let mut server = Server::start(settings, 3, disk, NOW);
    let early = NOW.after_ns(TIMEOUT_NS - 1);
    server.receive(early, 3, vote(3, pos(9, 2)));
    assert!(server.sync(early).is_empty(), "nor is there an answer that waits for the disk");
    assert_eq!(server.raft.term(), Term::new(2));
    server.receive(NOW.after_ns(TIMEOUT_NS), 3, vote(3, pos(9, 2)));
    assert_eq!(server.sync(NOW.after_ns(TIMEOUT_NS)), [voted(3, true)]);
}

/// The leader removed itself. It leads until the only voter that is left knows that this is
/// committed, and has a lease of that one's promises. Which restarted, and elected itself at once.
#[test]
fn nor_does_the_only_voter_elect_itself_before() {
    let mut disk = disk(&[1, 2]);
    disk.hard_state = HardState { term: Term::new(2), vote: Vote::None };
    let mut settings = settings(1);
    let without_leases = Server::start(settings.clone(), 1, disk.clone(), NOW);
    assert_eq!(without_leases.raft.wake_at(), NOW);
    settings.lease_drift_ppm = Some(10);
    let mut server = Server::start(settings, 1, disk, NOW);
    let free = NOW.after_ns(TIMEOUT_NS);
    assert_eq!(server.raft.wake_at(), free);
    server.tick(NOW.after_ns(TIMEOUT_NS - 1));
    assert_eq!(server.raft.term(), Term::new(2));
    server.tick(free);
    server.sync(free);
    assert!(server.raft.is_leader());
}

#[test]
fn a_new_cluster_need_not_wait_for_leases_that_nobody_can_hold() {
    let mut settings = settings(2);
    settings.lease_drift_ppm = Some(10);
    let mut server = Server::start(settings, 3, disk(&[1]), NOW);
    server.receive(NOW, 3, vote(2, pos(1, 1)));
    assert_eq!(server.sync(NOW), [voted(2, true)]);
}
