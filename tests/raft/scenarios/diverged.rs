//! Servers whose state is another one than the log says: they find out, serve nobody, and load it
//! anew.

use super::nodes::{Answer, Nodes, Tuning};
use raftd::limits::WorkingLimits;
use raftd::wire::error::Error;

const MS: u64 = 1_000_000;
/// The members compare their states every so many entries.
const EVERY: u64 = 4;

/// So many nodes that compare often, who of them leads, and who not.
fn cluster(count: usize, snapshot_entries: u64) -> (Nodes, usize, Vec<usize>) {
    let working = WorkingLimits { state_hash_every: EVERY, ..WorkingLimits::default() };
    let mut nodes = Nodes::tuned(count, Tuning { snapshot_entries, working, ..Tuning::default() });
    nodes.pass(200 * MS);
    let leader = nodes.leader().expect("elected");
    (nodes, leader, (1..=count).filter(|nth| *nth != leader).collect())
}

fn put(nodes: &mut Nodes, nth: usize, key: &str) {
    let put = nodes.put(nth, key);
    nodes.pass(20 * MS);
    assert_eq!(nodes.answers.get(&put), Some(&Answer::Done), "{key}");
}

/// Entries up to the next one at which states are compared, and that too; all hear of it.
fn put_until_compared(nodes: &mut Nodes, leader: usize) {
    while {
        put(nodes, leader, "key");
        !nodes.status_of(leader).applied_index.get().is_multiple_of(EVERY)
    } {}
    nodes.pass(100 * MS);
}

fn reads(nodes: &mut Nodes, nth: usize) -> Option<Answer> {
    let read = nodes.read(nth, "key");
    nodes.pass(20 * MS);
    nodes.answers.get(&read).cloned()
}

fn is_refused(answer: Option<&Answer>, why_wanted: &str) -> bool {
    let Some(Answer::Failed(Error::NotReady { why })) = answer else { return false };
    why.contains(why_wanted)
}

fn all_agree(nodes: &Nodes, count: usize) {
    let first = nodes.status_of(1);
    for nth in 1..=count {
        let status = nodes.status_of(nth);
        assert_eq!(status.applied_index, first.applied_index, "node {nth}");
        assert_eq!(status.state_hash, first.state_hash, "node {nth}");
        assert_eq!(status.state, "sound", "node {nth}");
    }
}

/// The leader's log holds everything, and it has no snapshot: it makes one for whoever asks.
#[test]
fn a_follower_that_diverged_serves_nobody_until_it_has_loaded_its_state_anew() {
    let (mut nodes, leader, others) = cluster(3, u64::MAX);
    let odd = others[0];
    put_until_compared(&mut nodes, leader);
    let agreed = nodes.status_of(leader).applied_index;
    assert_eq!(nodes.status_of(odd).state_agreed_index, agreed);
    nodes.spoil(odd);
    assert_eq!(nodes.status_of(odd).state, "sound", "nobody knows yet");
    nodes.hold_background(odd);
    put_until_compared(&mut nodes, leader);
    let status = nodes.status_of(odd);
    assert_eq!((status.state.as_str(), status.state_agreed_index), ("diverged", agreed));
    let why = format!("differed from that of a majority at entry {}", agreed.advanced_by(EVERY));
    for _ in 0..3 {
        let read = reads(&mut nodes, odd);
        assert!(is_refused(read.as_ref(), &why), "{read:?}");
        put(&mut nodes, leader, "the others go on");
    }
    let (save, _) = nodes.save(odd);
    nodes.pass(20 * MS);
    assert!(is_refused(nodes.answers.get(&save), &why), "nor is it given away");
    let made = nodes.status_of(leader).snapshot_index;
    assert!(made >= agreed.advanced_by(EVERY), "{made}: it is made because somebody wants it");
    let before = nodes.status_of(odd).last_index;
    assert_eq!(before, nodes.status_of(leader).last_index, "it takes entries all the while");
    nodes.release_background(odd);
    nodes.pass(1_000 * MS);
    assert_eq!(nodes.status_of(odd).state_reloads, 1);
    all_agree(&nodes, 3);
    assert_eq!(reads(&mut nodes, odd), Some(Answer::Done));
    put_until_compared(&mut nodes, leader);
    assert_eq!(nodes.status_of(odd).state_agreed_index, nodes.status_of(leader).applied_index);
    assert_eq!(nodes.status_of(odd).state_reloads, 1);
}

/// The snapshot stands for less than clients had seen of this server before.
#[test]
fn a_state_that_came_anew_is_not_served_before_it_is_where_the_old_one_was() {
    let (mut nodes, leader, others) = cluster(3, u64::MAX);
    let odd = others[0];
    put_until_compared(&mut nodes, leader);
    nodes.spoil(odd);
    nodes.hold_background(odd);
    put_until_compared(&mut nodes, leader);
    (0..10).for_each(|_| put(&mut nodes, leader, "the others go on"));
    let seen = nodes.status_of(odd).applied_index;
    let made = nodes.status_of(leader).snapshot_index;
    assert!(made < seen, "what comes is older: {made} {seen}");
    nodes.release_background(odd);
    // Between two turns, and not as far as it comes by itself.
    let mut asked = Vec::new();
    while nodes.status_of(odd).state_reloads == 0 {
        nodes.freeze(odd);
        nodes.pass(5 * MS);
        nodes.wake(odd);
        for _ in 0..3 {
            let had = nodes.status_of(odd).applied_index;
            asked.push((nodes.read_all(odd).0, had));
            nodes.one_turn(odd);
        }
    }
    nodes.pass(100 * MS);
    assert!(asked.iter().any(|(_, had)| *had < seen), "it was behind for a turn");
    for (read, had) in asked {
        match nodes.answers.get(&read) {
            Some(Answer::Done) => assert!(had >= seen, "served at {had}, seen to {seen}"),
            answer => assert!(is_refused(answer, "loaded anew"), "{answer:?}"),
        }
    }
    assert_eq!(reads(&mut nodes, odd), Some(Answer::Done));
}

/// A quorum need not be without it: what it has in its log counts, and its vote does.
#[test]
fn a_leader_that_diverged_hands_over_and_answers_nobody_from_its_state() {
    let (mut nodes, old, _) = cluster(3, u64::MAX);
    put_until_compared(&mut nodes, old);
    nodes.spoil(old);
    let term = nodes.status_of(old).term;
    while nodes.status_of(old).state == "sound" {
        nodes.put(old, "key");
        nodes.pass(5 * MS);
    }
    let write = nodes.put(old, "key");
    nodes.pass(20 * MS);
    let answer = nodes.answers.get(&write);
    assert!(is_refused(answer, "is loaded anew"), "{answer:?}");
    nodes.pass(1_000 * MS);
    let new = nodes.leader().expect("somebody leads");
    assert_ne!(new, old);
    assert_eq!(nodes.status_of(new).term, term.next(), "it was asked to");
    assert_eq!(nodes.status_of(old).state_reloads, 1);
    all_agree(&nodes, 3);
    put(&mut nodes, new, "later");
    assert_eq!(reads(&mut nodes, old), Some(Answer::Done));
}

/// It heard that its state was wrong, and that an entry was committed, in one turn: the client that
/// waited for the entry was still answered from that state.
#[test]
fn who_waits_when_a_state_is_found_out_is_not_answered_from_it() {
    let (mut nodes, leader, others) = cluster(3, u64::MAX);
    put_until_compared(&mut nodes, leader);
    nodes.spoil(leader);
    (1..EVERY).for_each(|_| put(&mut nodes, leader, "key"));
    nodes.put(leader, "what the others have after this is another state");
    while !nodes.status_of(leader).applied_index.get().is_multiple_of(EVERY) {
        others.iter().for_each(|other| nodes.one_turn(*other));
        nodes.one_turn(leader);
    }
    let waits = nodes.put(leader, "key");
    nodes.one_turn(leader);
    nodes.freeze(leader);
    nodes.pass(50 * MS);
    assert_eq!(nodes.status_of(leader).state, "sound", "it has heard nothing");
    nodes.thaw(leader);
    assert_eq!(nodes.status_of(leader).state, "diverged");
    assert_eq!(nodes.answers.get(&waits), Some(&Answer::Failed(Error::OutcomeUnknown)));
    nodes.pass(1_000 * MS);
    all_agree(&nodes, 3);
}

/// Which revision was newest when, in the state that was lost, was believed of the new one. Once it
/// led, the server gave up history up to a revision that nobody had made, which was refused; it
/// waited for that in all its turns, and gave up nothing any more.
#[test]
fn how_old_the_history_of_a_lost_state_was_is_forgotten() {
    let working = WorkingLimits { state_hash_every: EVERY, ..WorkingLimits::default() };
    let history_age_ns = Some(4_000 * MS);
    let mut nodes = Nodes::tuned(3, Tuning { history_age_ns, working, ..Tuning::default() });
    nodes.pass(200 * MS);
    let leader = nodes.leader().expect("elected");
    let odd = leader % 3 + 1;
    put_until_compared(&mut nodes, leader);
    nodes.spoil_revision(odd, 1_000);
    nodes.pass(300 * MS);
    put_until_compared(&mut nodes, leader);
    nodes.pass(1_000 * MS);
    assert_eq!(nodes.status_of(odd).state_reloads, 1);
    while nodes.leader() != Some(odd) {
        let other = nodes.leader().expect("elected");
        nodes.crash(other);
        nodes.boot(other).expect("its disk is well");
        nodes.pass(1_500 * MS);
    }
    nodes.pass(4_000 * MS);
    put(&mut nodes, odd, "key");
    nodes.pass(5_000 * MS);
    let status = nodes.status_of(odd);
    assert_eq!((status.role.as_str(), status.state.as_str()), ("leader", "sound"));
    assert_eq!(status.compact_revision, status.revision);
    assert!(nodes.sleeps(odd), "it wants to be woken in the past");
}

/// What was made of a diverged state is on the disk, and would be served after a restart. The note
/// stays until another snapshot has taken its place.
#[test]
fn a_restart_does_not_serve_what_was_made_of_a_diverged_state() {
    let (mut nodes, leader, others) = cluster(3, 2);
    let odd = others[0];
    put_until_compared(&mut nodes, leader);
    nodes.spoil(odd);
    nodes.hold_background(leader);
    let reloads = |nodes: &Nodes| nodes.status_of(odd).state_reloads;
    (1..EVERY).for_each(|_| put(&mut nodes, leader, "key"));
    nodes.pass(100 * MS);
    let status = nodes.status_of(odd);
    assert!(status.snapshot_index > status.state_agreed_index, "{status:?}");
    nodes.hold_background(odd);
    put_until_compared(&mut nodes, leader);
    assert_eq!(nodes.status_of(odd).state, "diverged");
    let spoiled = nodes.status_of(odd).snapshot_index;
    for _ in 0..2 {
        nodes.crash(odd);
        nodes.hold_background(odd);
        nodes.boot(odd).expect("its disk is well");
        nodes.pass(100 * MS);
        let status = nodes.status_of(odd);
        assert_eq!((status.state.as_str(), status.snapshot_index), ("diverged", spoiled));
        let read = reads(&mut nodes, odd);
        assert!(is_refused(read.as_ref(), "before this start"), "{read:?}");
    }
    nodes.release_background(odd);
    nodes.release_background(leader);
    nodes.pass(1_000 * MS);
    assert_eq!(reloads(&nodes), 1);
    all_agree(&nodes, 3);
    nodes.crash(odd);
    nodes.boot(odd).expect("its disk is well");
    nodes.pass(1_000 * MS);
    all_agree(&nodes, 3);
    assert_eq!(reads(&mut nodes, odd), Some(Answer::Done));
}

/// Where nobody ever made a snapshot there is none to lead past: any will do, but one there must
/// be. Seed 30575.
#[test]
fn a_restart_without_any_snapshot_brings_one() {
    let (mut nodes, leader, others) = cluster(3, u64::MAX);
    let odd = others[0];
    put_until_compared(&mut nodes, leader);
    nodes.spoil(odd);
    nodes.hold_background(leader);
    put_until_compared(&mut nodes, leader);
    assert_eq!(nodes.status_of(odd).state, "diverged");
    // Nobody knows any more at which entry.
    (1..=3).for_each(|nth| nodes.crash(nth));
    (1..=3).for_each(|nth| nodes.boot(nth).expect("its disk is well"));
    nodes.release_background(leader);
    nodes.pass(2_000 * MS);
    assert_eq!(nodes.status_of(odd).state_reloads, 1);
    all_agree(&nodes, 3);
    assert_eq!(reads(&mut nodes, odd), Some(Answer::Done));
}

/// Nobody can say which of two is right. Only the leader answers, nothing is given up, and a server
/// that starts again makes its state of the log once more.
#[test]
fn of_two_that_differ_the_leader_serves_and_the_other_says_why_not() {
    let (mut nodes, leader, others) = cluster(2, u64::MAX);
    let other = others[0];
    put_until_compared(&mut nodes, leader);
    nodes.spoil(other);
    put_until_compared(&mut nodes, leader);
    for nth in [leader, other] {
        assert_eq!(nodes.status_of(nth).state, "disputed", "node {nth}");
    }
    put(&mut nodes, leader, "served");
    let read = reads(&mut nodes, other);
    assert!(is_refused(read.as_ref(), "the members' states differ"), "{read:?}");
    assert_eq!(reads(&mut nodes, leader), Some(Answer::Done));
    nodes.crash(other);
    nodes.boot(other).expect("its disk is well");
    nodes.pass(500 * MS);
    let leader = nodes.leader().expect("elected");
    put_until_compared(&mut nodes, leader);
    assert_eq!(nodes.status_of(other).state_reloads, 0);
    all_agree(&nodes, 2);
    assert_eq!(reads(&mut nodes, other), Some(Answer::Done));
}

/// Two that differ start again, one after the other, and make their states anew of the log. Who
/// leads then.
fn agree_after_restarts(nodes: &mut Nodes, both: [usize; 2]) -> usize {
    for nth in both {
        nodes.crash(nth);
        nodes.boot(nth).expect("its disk is well");
        nodes.pass(1_000 * MS);
    }
    let leader = nodes.leader().expect("elected");
    put_until_compared(nodes, leader);
    all_agree(nodes, 2);
    leader
}

/// Whoever saved it made a snapshot of it, which was the server's own from then on: so a restart
/// found the state in there again, and did not make it anew of the log.
#[test]
fn nobody_saves_a_state_that_may_be_wrong() {
    let (mut nodes, leader, others) = cluster(2, u64::MAX);
    put_until_compared(&mut nodes, leader);
    nodes.hold_background(leader);
    let (waits, _) = nodes.save(leader);
    nodes.pass(50 * MS);
    nodes.spoil(leader);
    put_until_compared(&mut nodes, leader);
    let (late, _) = nodes.save(leader);
    nodes.release_background(leader);
    nodes.pass(1_500 * MS);
    for save in [waits, late] {
        let answer = nodes.answers.get(&save);
        assert!(is_refused(answer, "the members' states differ"), "{answer:?}");
    }
    put(&mut nodes, leader, "served");
    agree_after_restarts(&mut nodes, [leader, others[0]]);
}

/// Nor does it become a snapshot by itself, however many entries there are.
#[test]
fn no_snapshot_is_made_of_a_state_that_may_be_wrong() {
    let (mut nodes, leader, others) = cluster(2, 20);
    put_until_compared(&mut nodes, leader);
    nodes.spoil(others[0]);
    put_until_compared(&mut nodes, leader);
    for _ in 0..40 {
        put(&mut nodes, leader, "served");
    }
    for nth in [leader, others[0]] {
        let status = nodes.status_of(nth);
        assert_eq!((status.state.as_str(), status.snapshot_index.get()), ("disputed", 0), "{nth}");
    }
    let leader = agree_after_restarts(&mut nodes, [leader, others[0]]);
    assert!(nodes.status_of(leader).snapshot_index.get() > 0, "now it is sound");
}

/// One of three is away, and two differ: whoever was right is known when it is back.
#[test]
fn a_third_server_that_comes_back_settles_who_of_two_was_right() {
    let (mut nodes, leader, others) = cluster(3, u64::MAX);
    let (odd, away) = (others[0], others[1]);
    nodes.crash(away);
    nodes.spoil(odd);
    put_until_compared(&mut nodes, leader);
    assert_eq!(nodes.status_of(odd).state, "disputed");
    let read = reads(&mut nodes, odd);
    assert!(is_refused(read.as_ref(), "only the leader"), "{read:?}");
    nodes.boot(away).expect("its disk is well");
    nodes.pass(1_000 * MS);
    assert_eq!(nodes.status_of(odd).state_reloads, 1, "{:?}", nodes.status_of(odd));
    all_agree(&nodes, 3);
    assert_eq!(nodes.status_of(leader).state_reloads, 0);
}

/// The only server that has all that is committed has lost its state: it leads, so that others get
/// the entries, answers nobody, and makes way.
#[test]
fn who_alone_has_the_log_leads_without_a_state_until_another_can() {
    let (mut nodes, odd, others) = cluster(3, u64::MAX);
    let (one, behind) = (others[0], others[1]);
    nodes.crash(behind);
    put(&mut nodes, odd, "only two have it");
    nodes.boot(behind).expect("its disk is well");
    nodes.cut(behind, odd);
    nodes.cut(behind, one);
    nodes.spoil(odd);
    put_until_compared(&mut nodes, odd);
    nodes.crash(one);
    nodes.mend();
    nodes.pass(3_000 * MS);
    let leader = nodes.leader().expect("two of three are up");
    assert_eq!(leader, behind, "it has all entries by now");
    put(&mut nodes, leader, "later");
    assert_eq!(nodes.status_of(behind).keys, nodes.status_of(odd).keys);
    nodes.boot(one).expect("its disk is well");
    nodes.pass(1_000 * MS);
    let leader = nodes.leader().expect("elected");
    put_until_compared(&mut nodes, leader);
    nodes.pass(1_000 * MS);
    all_agree(&nodes, 3);
}

/// What was said while two could not reach each other is said again when they can, and not only
/// once there is another entry to compare at.
#[test]
fn whoever_was_cut_off_hears_what_it_missed_without_another_entry() {
    let (mut nodes, leader, others) = cluster(3, u64::MAX);
    let (odd, other) = (others[0], others[1]);
    nodes.cut(odd, other);
    nodes.spoil(odd);
    put_until_compared(&mut nodes, leader);
    assert_eq!(nodes.status_of(odd).state, "disputed", "it hears one of two");
    assert_eq!(nodes.status_of(leader).state, "sound", "it hears both");
    let last = nodes.status_of(leader).last_index;
    nodes.mend();
    nodes.pass(1_000 * MS);
    assert_eq!(nodes.status_of(odd).state_reloads, 1, "{:?}", nodes.status_of(odd));
    all_agree(&nodes, 3);
    assert_eq!(nodes.status_of(leader).last_index, last);
}

/// A snapshot had taken the place of a state that was wrong, and what had been noted of that one
/// still counted: as soon as another member said again what it had noted there, the server took its
/// new state for wrong, and served nobody.
#[test]
fn what_was_noted_of_a_state_is_forgotten_when_a_snapshot_takes_its_place() {
    let (mut nodes, leader, others) = cluster(3, 2);
    let (odd, other) = (others[0], others[1]);
    nodes.cut(odd, other);
    nodes.spoil(odd);
    put_until_compared(&mut nodes, leader);
    assert_eq!(nodes.status_of(odd).state, "disputed", "it hears one of two");
    nodes.cut(odd, leader);
    let last = nodes.status_of(odd).last_index;
    // Few enough that what was noted of the entry in dispute is still said, and so many that none
    // is compared at behind the snapshot: what was agreed there would say that all before is well.
    for _ in 0..14 {
        put(&mut nodes, leader, &"k".repeat(10_000));
    }
    nodes.mend();
    nodes.cut(odd, other);
    nodes.pass(2_000 * MS);
    let status = nodes.status_of(odd);
    assert!(status.snapshot_index > last, "the log from there on is gone: {status:?}");
    assert!(status.state_agreed_index < last, "nothing else says that all is well: {status:?}");
    nodes.mend();
    nodes.pass(1_000 * MS);
    assert_eq!(nodes.status_of(odd).state_reloads, 0);
    all_agree(&nodes, 3);
}

/// What a server noted of a state that it knows to be lost is not said any more: a member that had
/// been started again, and had only this one to compare with, would be in a dispute with it, and
/// save nothing.
#[test]
fn who_has_lost_its_state_says_nothing_of_it() {
    let (mut nodes, leader, others) = cluster(3, u64::MAX);
    let (odd, other) = (others[0], others[1]);
    put_until_compared(&mut nodes, leader);
    nodes.spoil(odd);
    nodes.hold_background(leader);
    put_until_compared(&mut nodes, leader);
    let compared_at = nodes.status_of(leader).applied_index;
    assert_eq!(nodes.status_of(odd).state, "diverged");
    nodes.crash(leader);
    nodes.crash(other);
    nodes.hold_background(other);
    nodes.boot(other).expect("its disk is well");
    while nodes.status_of(other).applied_index < compared_at {
        nodes.pass(10 * MS);
        let status = nodes.status_of(other);
        assert_ne!(status.state, "disputed", "{status:?}");
    }
    nodes.pass(100 * MS);
    assert_eq!(nodes.status_of(other).state, "sound");
    assert_eq!(nodes.status_of(odd).state, "diverged", "nobody has sent it a snapshot yet");
    let read = reads(&mut nodes, other);
    assert_eq!(read, Some(Answer::Done), "it leads, for the other has no state");
    // Whatever stands between them breaks, and they meet again: before it asks once more.
    for _ in 0..8 {
        nodes.cut(odd, other);
        nodes.pass(10 * MS);
        nodes.mend();
        nodes.pass(50 * MS);
        let status = nodes.status_of(other);
        assert_eq!(status.state, "sound", "{status:?}");
    }
    assert_eq!(nodes.status_of(odd).state, "diverged", "nobody has sent it a snapshot yet");
    nodes.release_background(other);
    nodes.boot(leader).expect("its disk is well");
    nodes.release_background(leader);
    nodes.pass(2_000 * MS);
    all_agree(&nodes, 3);
}

/// A member was wrong, said so, and was killed; before its new start had made the state anew,
/// another one was wrong in the same way. With what the first had said, the two were a majority
/// against the one right state (the simulator's seed 49544).
#[test]
fn what_was_said_before_a_start_counts_no_more() {
    // It is heard of the new start by its hello, or by its answer to ours.
    [false, true].into_iter().for_each(count_no_more);
}

fn count_no_more(by_its_answer: bool) {
    let (mut nodes, leader, others) = cluster(3, u64::MAX);
    let (first, second) = (others[0], others[1]);
    nodes.crash(second);
    nodes.spoil(first);
    put_until_compared(&mut nodes, leader);
    assert_eq!(nodes.status_of(leader).state, "disputed", "there are two");
    nodes.crash(first);
    let (from, to) = if by_its_answer { (first, leader) } else { (leader, first) };
    nodes.wall_off(from, to);
    nodes.cut(first, second);
    nodes.boot(first).expect("its disk is well");
    if by_its_answer {
        let applied = nodes.status_of(leader).applied_index;
        nodes.pass_until(|nodes| nodes.status_of(first).applied_index == applied);
    }
    nodes.boot(second).expect("its disk is well");
    nodes.spoil(second);
    nodes.pass(200 * MS);
    assert_eq!(nodes.leader(), Some(leader));
    assert_eq!(nodes.status_of(second).state, "disputed", "it has said what it has");
    assert_eq!(nodes.status_of(leader).state, "disputed");
    nodes.mend();
    nodes.pass(2_000 * MS);
    assert_eq!(nodes.status_of(leader).state_reloads, 0, "it was right all the time");
    all_agree(&nodes, 3);
}

/// As above, but that the first has loaded its state anew since, and was not started again.
#[test]
fn what_was_said_of_a_lost_state_counts_no_more() {
    let (mut nodes, first, others) = cluster(3, u64::MAX);
    // What one of the others says of its state before it is started again, only the first hears.
    nodes.cut(others[0], others[1]);
    nodes.spoil(first);
    put_until_compared(&mut nodes, first);
    nodes.pass_until(|nodes| nodes.status_of(first).state_reloads == 1);
    let leader = nodes.leader().expect("it was handed over to");
    let [second] = others.iter().copied().filter(|nth| *nth != leader).collect::<Vec<_>>()[..]
    else {
        panic!("{leader} leads");
    };
    assert_eq!(nodes.status_of(leader).state, "disputed", "it heard only the first");
    nodes.crash(second);
    nodes.mend();
    nodes.boot(second).expect("its disk is well");
    nodes.spoil(second);
    nodes.pass(200 * MS);
    assert_eq!(nodes.leader(), Some(leader));
    assert_eq!(nodes.status_of(second).state, "disputed", "it has said what it has");
    assert_eq!(nodes.status_of(leader).state, "disputed");
    put_until_compared(&mut nodes, leader);
    nodes.pass(2_000 * MS);
    assert_eq!(nodes.status_of(leader).state_reloads, 0, "it was right all the time");
    all_agree(&nodes, 3);
}
