//! When leases end, with whole nodes: over changes of leaders, pauses, slow disks, and never early.
//! I1 of the catalogue (etcd 12528, 15247): a leader that is none any more ends what another keeps
//! alive.

use super::nodes::{Answer, Nodes, Tuning};
use raftd::kv::{LeaseRow, PutWith, SessionCall};
use raftd::limits::WorkingLimits;
use raftd::types::SessionId;
use raftd::wire::client::Command;
use raftd::wire::error::Error;
use raftd::wire::leases::{KeysFrom, LeaseRequest, LeaseTerm, LeaseTimes};

const MS: u64 = 1_000_000;
const LEASE: u64 = 7;

/// Three nodes, who of them leads, and who not.
fn cluster(lease_checkpoint_ms: u64) -> (Nodes, usize, [usize; 2]) {
    let working = WorkingLimits { lease_checkpoint_ms, ..WorkingLimits::default() };
    let mut nodes = Nodes::tuned(3, Tuning { working, ..Tuning::default() });
    nodes.pass(200 * MS);
    let leader = nodes.leader().expect("elected");
    let others: Vec<usize> = (1..=3).filter(|nth| *nth != leader).collect();
    (nodes, leader, [others[0], others[1]])
}

const NEVER: u64 = u64::MAX;

/// What a request was answered, a tenth of a second later.
fn answer(nodes: &mut Nodes, request: u64) -> Answer {
    nodes.pass(100 * MS);
    nodes.answers.get(&request).expect("it is answered").clone()
}

fn term(nodes: &mut Nodes, request: u64) -> LeaseTerm {
    let Answer::Term(term) = answer(nodes, request) else { panic!("{:?}", nodes.answers) };
    assert_eq!(term.lease, LEASE);
    term
}

/// Grants the lease and hangs a key on it: two tenths of a second.
fn grant(nodes: &mut Nodes, nth: usize, ttl_s: u64) {
    let granted = nodes.command(nth, None, Command::LeaseGrant { lease: LEASE, ttl_s });
    assert_eq!(term(nodes, granted).ttl_s, ttl_s);
    let put = PutWith { key: b"hung", value: b"v", lease: LEASE, ..PutWith::default() };
    let hung = nodes.command(nth, None, Command::PutWith(put));
    assert_eq!(answer(nodes, hung), Answer::Done);
}

/// Keeps the lease alive: a tenth of a second. How long it lives; 0: it is gone.
fn keep_alive(nodes: &mut Nodes, nth: usize) -> u64 {
    let kept = nodes.lease(nth, LeaseRequest::KeepAlive { lease: LEASE });
    term(nodes, kept).ttl_s
}

fn times(nodes: &mut Nodes, nth: usize) -> LeaseTimes {
    let from = KeysFrom::START;
    let asked = nodes.lease(nth, LeaseRequest::TimeToLive { lease: LEASE, keys: true, from });
    let Answer::Times(times) = answer(nodes, asked) else { panic!("{:?}", nodes.answers) };
    times
}

fn row(nodes: &Nodes, nth: usize) -> Option<LeaseRow> {
    nodes.lease_of(nth, LEASE)
}

/// It is there and so is its key, or neither is.
fn lives(nodes: &Nodes, nth: usize) -> bool {
    let (lease, keys) = (row(nodes, nth).is_some(), nodes.status_of(nth).keys);
    assert_eq!(keys, u64::from(lease), "a key goes with its lease");
    lease
}

fn next_leader(nodes: &mut Nodes) -> usize {
    nodes.pass_until(|nodes| nodes.leader().is_some());
    nodes.leader().expect("just seen")
}

#[test]
fn a_lease_ends_when_its_time_has_passed_and_not_before() {
    let (mut nodes, leader, _) = cluster(NEVER);
    grant(&mut nodes, leader, 3);
    nodes.pass(2_700 * MS);
    assert!(lives(&nodes, leader), "a tenth of a second is left");
    nodes.pass(150 * MS);
    assert!(!lives(&nodes, leader));
    nodes.pass(200 * MS);
    assert!((1..=3).all(|nth| !lives(&nodes, nth)));
    let agreed = nodes.status_of(leader).state_hash;
    assert!((1..=3).all(|nth| nodes.status_of(nth).state_hash == agreed));
    assert_eq!(keep_alive(&mut nodes, leader), 0, "it is gone");
    assert_eq!(times(&mut nodes, leader).ttl_s, 0);
}

/// A server that was stopped within a turn, between the look at the clock and the end of the entry,
/// stamped that with the look: the leases in it ended early by as long as it had been stopped.
#[test]
fn a_lease_lives_from_the_end_of_its_entry_and_not_from_the_beginning_of_the_turn() {
    let mut nodes = Nodes::new(1);
    nodes.pass(200 * MS);
    let granted = nodes.command(1, None, Command::LeaseGrant { lease: LEASE, ttl_s: 3 });
    nodes.take_frozen(1);
    nodes.pass(900 * MS);
    nodes.wake(1);
    assert_eq!(term(&mut nodes, granted).ttl_s, 3);
    nodes.pass(2_850 * MS);
    assert!(row(&nodes, 1).is_some(), "it was granted less than three seconds ago");
    nodes.pass(100 * MS);
    assert_eq!(row(&nodes, 1), None);
}

#[test]
fn a_keep_alive_gives_a_lease_its_whole_time_and_the_log_an_entry_at_most_once() {
    let (mut nodes, leader, _) = cluster(NEVER);
    grant(&mut nodes, leader, 3);
    nodes.pass(1_000 * MS);
    let last = nodes.status_of(leader).last_index;
    assert_eq!(keep_alive(&mut nodes, leader), 3);
    assert_eq!(row(&nodes, leader).unwrap().due_ms, 0, "nobody but the leader knows");
    nodes.pass(2_500 * MS);
    assert_eq!(keep_alive(&mut nodes, leader), 3);
    assert_eq!(nodes.status_of(leader).last_index, last.next());
    nodes.pass(2_800 * MS);
    assert!(lives(&nodes, leader), "a tenth of a second is left");
    let times = times(&mut nodes, leader);
    assert!(times.left_ms <= 100 && times.key_count == 1, "{times:?}");
    nodes.pass(50 * MS);
    assert!(!lives(&nodes, leader));
}

/// A look at a lease once held it up as a keep-alive does: whoever looked often enough kept it.
#[test]
fn a_lease_that_is_looked_at_lives_no_longer_for_it() {
    let (mut nodes, leader, _) = cluster(NEVER);
    grant(&mut nodes, leader, 3);
    for _ in 0..30 {
        times(&mut nodes, leader);
    }
    assert!(!lives(&nodes, leader));
}

#[test]
fn a_new_leader_gives_a_lease_that_was_kept_alive_its_whole_time() {
    let (mut nodes, old, _) = cluster(NEVER);
    grant(&mut nodes, old, 3);
    assert_eq!(keep_alive(&mut nodes, old), 3);
    nodes.pass(300 * MS);
    nodes.crash(old);
    let new = next_leader(&mut nodes);
    nodes.pass(2_900 * MS);
    assert!(lives(&nodes, new), "its whole time has not passed since it leads");
    nodes.pass(300 * MS);
    assert!(!lives(&nodes, new));
}

#[test]
fn a_lease_that_nobody_kept_alive_is_due_when_it_was_whoever_leads() {
    let (mut nodes, old, _) = cluster(NEVER);
    grant(&mut nodes, old, 5);
    nodes.pass(300 * MS);
    nodes.crash(old);
    let new = next_leader(&mut nodes);
    let left_ms = times(&mut nodes, new).left_ms;
    assert!((3_000..4_500).contains(&left_ms), "{left_ms}");
    nodes.pass((left_ms - 200) * MS);
    assert!(lives(&nodes, new));
    nodes.pass(200 * MS);
    assert!(!lives(&nodes, new));
}

/// A new leader stamped its first entry with its predecessor's last stamp, which it had applied
/// only then. A follower that had counted on from there took no notice of the same stamp again, led
/// next, and found due at once what the other had granted.
#[test]
fn a_lease_of_a_leaders_first_millisecond_is_not_due_earlier_for_the_next_one() {
    let (mut nodes, first, [second, third]) = cluster(NEVER);
    let put = nodes.put(first, "stamped");
    nodes.pass(5 * MS);
    assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
    nodes.crash(second);
    nodes.pass(20_000 * MS);
    let stamp_ms = nodes.stamp_ms_of(third);
    nodes.freeze(third);
    nodes.crash(first);
    nodes.boot(second).expect("its disk is well");
    assert!(nodes.stamp_ms_of(second) < stamp_ms, "it knows of no commit");
    nodes.pass(700 * MS);
    nodes.thaw(third);
    nodes.pass_until(|nodes| nodes.leader() == Some(second));
    nodes.command(second, None, Command::LeaseGrant { lease: LEASE, ttl_s: 10 });
    nodes.pass(100 * MS);
    assert_eq!(nodes.stamp_ms_of(third), stamp_ms, "in the same millisecond");
    assert!(row(&nodes, third).is_some());
    nodes.crash(second);
    nodes.boot(first).expect("its disk is well");
    assert_eq!(next_leader(&mut nodes), third, "nobody else has the grant");
    nodes.pass(8_000 * MS);
    assert!(row(&nodes, third).is_some(), "some two seconds are left");
}

/// Until its first entry is applied, a new leader stamps with the last stamp that it knows: a lease
/// was due its time after that, after whatever had been written last.
#[test]
fn a_leader_grants_nothing_before_it_sets_the_time() {
    let (mut nodes, old, others) = cluster(NEVER);
    let put = nodes.put(old, "long ago");
    assert_eq!(answer(&mut nodes, put), Answer::Done);
    nodes.pass(10_000 * MS);
    others.iter().for_each(|nth| nodes.hold_sync(*nth));
    nodes.crash(old);
    while nodes.leader().is_none() {
        nodes.pass(5 * MS);
        others.iter().for_each(|nth| nodes.let_one_sync_through(*nth));
    }
    let new = nodes.leader().expect("just seen");
    let early = nodes.command(new, None, Command::LeaseGrant { lease: LEASE, ttl_s: 5 });
    nodes.pass(5 * MS);
    let heard = nodes.answers.get(&early);
    assert!(matches!(heard, Some(Answer::Failed(Error::NotReady { .. }))), "{heard:?}");
    release_commits(&mut nodes, others);
    nodes.pass(100 * MS);
    let granted = nodes.command(new, None, Command::LeaseGrant { lease: LEASE, ttl_s: 5 });
    assert_eq!(term(&mut nodes, granted).ttl_s, 5);
    let due_ms = row(&nodes, new).unwrap().due_ms;
    assert!(due_ms >= 15_000, "{due_ms}: ten seconds have passed before");
}

/// Else a client that was slow to find the new leader finds its lease gone.
#[test]
fn no_lease_ends_before_clients_had_time_to_find_a_new_leader() {
    let (mut nodes, old, _) = cluster(NEVER);
    grant(&mut nodes, old, 1);
    nodes.pass(300 * MS);
    nodes.crash(old);
    let new = next_leader(&mut nodes);
    nodes.pass(800 * MS);
    assert!(lives(&nodes, new), "three election timeouts have not passed since it leads");
    nodes.pass(300 * MS);
    assert!(!lives(&nodes, new));
}

#[test]
fn a_lease_that_was_left_alone_is_noted_in_the_log_and_a_keep_alive_takes_that_back() {
    let (mut nodes, old, _) = cluster(1_000);
    grant(&mut nodes, old, 5);
    assert_eq!(keep_alive(&mut nodes, old), 5);
    let kept_ms = nodes.stamp_ms_of(old);
    assert_eq!(row(&nodes, old).unwrap().due_ms, 0);
    nodes.pass(1_000 * MS);
    let due_ms = row(&nodes, old).unwrap().due_ms;
    assert!((kept_ms + 4_900..=kept_ms + 5_100).contains(&due_ms), "{due_ms} {kept_ms}");
    nodes.crash(old);
    let new = next_leader(&mut nodes);
    let left_ms = times(&mut nodes, new).left_ms;
    assert!(left_ms < 4_000, "{left_ms}: it knows what the log says");
    assert_eq!(keep_alive(&mut nodes, new), 5);
    assert_eq!(row(&nodes, new).unwrap().due_ms, 0, "or the next leader would end it early");
    nodes.boot(old).expect("its disk is well");
    nodes.pass(300 * MS);
    nodes.crash(new);
    let last = next_leader(&mut nodes);
    nodes.pass(4_000 * MS);
    assert!(lives(&nodes, last));
}

/// Entries reach no quorum, and heartbeats do.
fn hold_commits(nodes: &mut Nodes, others: [usize; 2]) {
    others.iter().for_each(|nth| nodes.hold_sync(*nth));
}

fn release_commits(nodes: &mut Nodes, others: [usize; 2]) {
    others.iter().for_each(|nth| nodes.release_sync(*nth));
}

/// The lease is due while a keep-alive waits for its round: who asked in time is not told "gone".
#[test]
fn a_lease_does_not_end_while_a_keep_alive_waits_for_its_round() {
    let (mut nodes, leader, others) = cluster(NEVER);
    grant(&mut nodes, leader, 3);
    assert_eq!(keep_alive(&mut nodes, leader), 3);
    nodes.pass(2_850 * MS);
    others.iter().for_each(|nth| nodes.freeze(*nth));
    let asked = nodes.lease(leader, LeaseRequest::KeepAlive { lease: LEASE });
    nodes.pass(100 * MS);
    assert_eq!(nodes.answers.get(&asked), None, "nobody has confirmed the leader");
    others.iter().for_each(|nth| nodes.thaw(*nth));
    assert_eq!(term(&mut nodes, asked).ttl_s, 3);
    nodes.pass(2_500 * MS);
    assert!(lives(&nodes, leader));
}

/// Its expiry is decided and cannot be taken back: "alive" would be a promise that is broken.
#[test]
fn a_keep_alive_that_comes_after_the_expiry_hears_that_the_lease_is_gone() {
    let (mut nodes, leader, others) = cluster(NEVER);
    grant(&mut nodes, leader, 3);
    assert_eq!(keep_alive(&mut nodes, leader), 3);
    nodes.pass(2_850 * MS);
    let last = nodes.status_of(leader).last_index;
    hold_commits(&mut nodes, others);
    nodes.pass(100 * MS);
    assert_eq!(nodes.status_of(leader).last_index, last.next(), "its expiry");
    assert!(lives(&nodes, leader), "and it is not committed");
    let late = nodes.lease(leader, LeaseRequest::KeepAlive { lease: LEASE });
    nodes.pass(50 * MS);
    assert_eq!(nodes.answers.get(&late), None);
    release_commits(&mut nodes, others);
    assert_eq!(term(&mut nodes, late).ttl_s, 0);
    assert!(!lives(&nodes, leader));
}

#[test]
fn an_expiry_does_not_end_a_lease_of_the_same_number_that_was_granted_meanwhile() {
    let (mut nodes, leader, others) = cluster(NEVER);
    grant(&mut nodes, leader, 3);
    nodes.pass(2_700 * MS);
    hold_commits(&mut nodes, others);
    let revoked = nodes.command(leader, None, Command::LeaseRevoke { lease: LEASE });
    nodes.pass(5 * MS);
    let anew = Command::LeaseGrant { lease: LEASE, ttl_s: 4 };
    let anew = nodes.command(leader, None, anew);
    nodes.pass(5 * MS);
    let last = nodes.status_of(leader).last_index;
    nodes.pass(150 * MS);
    assert_eq!(nodes.status_of(leader).last_index, last.next(), "the expiry of the first one");
    release_commits(&mut nodes, others);
    assert_eq!(answer(&mut nodes, revoked), Answer::Done);
    assert_eq!(term(&mut nodes, anew).ttl_s, 4);
    assert_eq!(row(&nodes, leader).map(|row| row.grant), Some(2));
    assert_eq!(keep_alive(&mut nodes, leader), 4);
    nodes.pass(3_800 * MS);
    assert!(row(&nodes, leader).is_some());
    nodes.pass(200 * MS);
    assert_eq!(row(&nodes, leader), None);
}

/// A leader that hands over takes no entry. What it would have said of a lease then is said once
/// the other has not taken over.
#[test]
fn a_lease_that_is_due_during_a_handover_that_fails_ends_after_it() {
    let (mut nodes, leader, [target, _]) = cluster(NEVER);
    grant(&mut nodes, leader, 3);
    nodes.pass(2_700 * MS);
    let last = nodes.status_of(leader).last_index;
    nodes.freeze(target);
    let asked = nodes.transfer_leadership(leader, target);
    nodes.pass(200 * MS);
    let status = nodes.status_of(leader);
    assert_eq!((status.role.as_str(), status.last_index), ("leader", last), "it takes no entry");
    assert!(lives(&nodes, leader), "though its time has passed");
    nodes.pass(1_000 * MS);
    assert!(matches!(nodes.answers.get(&asked), Some(Answer::Failed(_))), "{:?}", nodes.answers);
    assert_eq!(nodes.leader(), Some(leader));
    assert!(!lives(&nodes, leader));
}

/// I1: the process of a leader is stopped for longer than its lease lives; another leads, and keeps
/// it alive.
#[test]
fn a_leader_that_slept_ends_nothing_that_another_keeps_alive() {
    let (mut nodes, old, _) = cluster(NEVER);
    grant(&mut nodes, old, 3);
    assert_eq!(keep_alive(&mut nodes, old), 3);
    nodes.freeze(old);
    let new = next_leader(&mut nodes);
    nodes.pass(2_000 * MS);
    assert_eq!(keep_alive(&mut nodes, new), 3);
    nodes.pass(1_500 * MS);
    nodes.thaw(old);
    nodes.pass(300 * MS);
    assert!((1..=3).all(|nth| lives(&nodes, nth)));
    let asked = nodes.lease(old, LeaseRequest::KeepAlive { lease: LEASE });
    assert!(matches!(answer(&mut nodes, asked), Answer::Failed(Error::NotLeader { .. })));
}

#[test]
fn a_leader_that_was_cut_off_keeps_nothing_alive() {
    let (mut nodes, old, [one, other]) = cluster(NEVER);
    grant(&mut nodes, old, 3);
    assert_eq!(keep_alive(&mut nodes, old), 3);
    nodes.cut(old, one);
    nodes.cut(old, other);
    let asked = nodes.lease(old, LeaseRequest::KeepAlive { lease: LEASE });
    nodes.pass(2_000 * MS);
    let heard = nodes.answers.get(&asked);
    assert!(matches!(heard, Some(Answer::Failed(Error::NotLeader { .. }))), "{heard:?}");
}

#[test]
fn a_grant_for_too_short_a_time_is_one_for_the_shortest_alone_or_in_a_session() {
    let (mut nodes, leader, _) = cluster(NEVER);
    let short = Command::LeaseGrant { lease: LEASE, ttl_s: 0 };
    let granted = nodes.command(leader, None, short);
    assert_eq!(term(&mut nodes, granted).ttl_s, 1, "three election timeouts, in whole seconds");
    let revoked = nodes.command(leader, None, Command::LeaseRevoke { lease: LEASE });
    assert_eq!(answer(&mut nodes, revoked), Answer::Done);
    let opened = nodes.command(leader, None, Command::OpenSession);
    assert_eq!(answer(&mut nodes, opened), Answer::Done);
    let call = SessionCall { session: SessionId(1), sequence: 1, acknowledged: 0 };
    for _ in 0..2 {
        let granted = nodes.command(leader, Some(call), short);
        assert_eq!(term(&mut nodes, granted).ttl_s, 1, "and its copy is answered, not done");
    }
}

/// A copy of the grant comes late: it is answered as the first one was, and makes nothing due.
#[test]
fn a_late_copy_of_a_grant_does_not_shorten_a_lease_that_was_kept_alive() {
    let (mut nodes, leader, _) = cluster(NEVER);
    let opened = nodes.command(leader, None, Command::OpenSession);
    assert_eq!(answer(&mut nodes, opened), Answer::Done);
    let call = SessionCall { session: SessionId(1), sequence: 1, acknowledged: 0 };
    let wanted = Command::LeaseGrant { lease: LEASE, ttl_s: 3 };
    let granted = nodes.command(leader, Some(call), wanted);
    assert_eq!(term(&mut nodes, granted).ttl_s, 3);
    nodes.pass(2_000 * MS);
    assert_eq!(keep_alive(&mut nodes, leader), 3);
    let copy = nodes.command(leader, Some(call), wanted);
    assert_eq!(term(&mut nodes, copy).ttl_s, 3);
    nodes.pass(2_500 * MS);
    assert!(row(&nodes, leader).is_some());
}

/// More leases than are taken over in one turn: the rest of them too, and then it rests.
#[test]
fn a_leader_with_many_leases_takes_over_all_of_them_and_sleeps() {
    let (mut nodes, old, _) = cluster(NEVER);
    let (first, last) = (LEASE, LEASE + 700);
    for lease in first..=last {
        nodes.command(old, None, Command::LeaseGrant { lease, ttl_s: 4 });
    }
    nodes.pass(300 * MS);
    nodes.crash(old);
    let new = next_leader(&mut nodes);
    nodes.pass(300 * MS);
    assert!(nodes.lease_of(new, first).is_some() && nodes.lease_of(new, last).is_some());
    assert!(nodes.sleeps(new), "it wants to be woken in the past");
    nodes.pass(4_000 * MS);
    assert_eq!((nodes.lease_of(new, first), nodes.lease_of(new, last)), (None, None));
    assert!(nodes.sleeps(new));
}

/// It was freed in the turn in which the leader saw that it was none any more: of a million leases
/// that took a tenth of a second, and nobody was served meanwhile.
#[test]
fn what_a_leader_knew_of_many_leases_is_freed_in_the_background() {
    let (mut nodes, leader, others) = cluster(NEVER);
    for lease in 1..=600 {
        nodes.command(leader, None, Command::LeaseGrant { lease, ttl_s: 1_000 });
    }
    nodes.pass(500 * MS);
    assert!(nodes.lease_of(leader, 600).is_some());
    nodes.hold_background(leader);
    others.iter().for_each(|other| nodes.cut(leader, *other));
    nodes.pass(1_000 * MS);
    assert_ne!(nodes.status_of(leader).role, "leader");
    nodes.end_one_background(leader);
}
