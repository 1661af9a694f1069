//! What is listed about leases, with whole nodes: a turn looks at so much, however many ask, and
//! who goes on gets all of it.

use super::nodes::{Answer, Nodes, Tuning};
use raftd::kv::{PutWith, RangeEnd};
use raftd::limits::WorkingLimits;
use raftd::types::Term;
use raftd::wire::client::{Command, Consistency};
use raftd::wire::leases::{KeysFrom, LeaseRequest, LeaseTimes};
use std::collections::BTreeSet;

const MS: u64 = 1_000_000;
const LEASE: u64 = 7;
const STEPS: usize = 16;

fn started(count: usize, range_steps: usize) -> (Nodes, usize) {
    let working = WorkingLimits { range_steps, ..WorkingLimits::default() };
    let segment_bytes = 16 << 20;
    let mut nodes = Nodes::tuned(count, Tuning { segment_bytes, working, ..Tuning::default() });
    nodes.pass(500 * MS);
    let leader = nodes.leader().expect("elected");
    (nodes, leader)
}

/// Grants the lease, and hangs so many keys on it whose names are that long.
fn hang(nodes: &mut Nodes, leader: usize, count: usize, length: usize) -> BTreeSet<Vec<u8>> {
    nodes.command(leader, None, Command::LeaseGrant { lease: LEASE, ttl_s: 1_000 });
    nodes.pass(100 * MS);
    let names: BTreeSet<Vec<u8>> =
        (0..count).map(|number| format!("{number:0length$}").into_bytes()).collect();
    for name in &names {
        let put = PutWith { key: name, value: b"v", lease: LEASE, ..PutWith::default() };
        nodes.command(leader, None, Command::PutWith(put));
    }
    nodes.pass(200 * MS);
    names
}

fn keys_from(from: KeysFrom) -> LeaseRequest {
    LeaseRequest::TimeToLive { lease: LEASE, keys: true, from }
}

/// What a reply says of the lease, and the keys in it.
fn ask(nodes: &mut Nodes, nth: usize, from: KeysFrom) -> (LeaseTimes, Vec<Vec<u8>>) {
    let asked = nodes.lease(nth, keys_from(from));
    nodes.pass(50 * MS);
    let Some(Answer::Times(times)) = nodes.answers.get(&asked) else {
        panic!("{:?}", nodes.answers.get(&asked));
    };
    (*times, nodes.names[&asked].clone())
}

/// Lets a server take turns until all are answered. In each it lists `STEPS` at most, counted by
/// `listed`.
fn count_turns(nodes: &mut Nodes, answers: usize, listed: impl Fn(&Nodes) -> usize) -> usize {
    let (mut before, mut turns) = (listed(nodes), 0);
    while nodes.answers.len() < answers {
        assert!(turns < 10_000, "{} of {answers} are answered", nodes.answers.len());
        nodes.one_turn(1);
        nodes.hear_answers();
        let now = listed(nodes);
        assert!(now - before <= STEPS, "{} in turn {turns}", now - before);
        (before, turns) = (now, turns + 1);
    }
    turns
}

/// Every reply was made as a whole before anybody asked what the turn had left: two hundred clients
/// that asked for the hundred thousand keys of a lease kept a leader busy for longer than an
/// election takes.
#[test]
fn a_turn_names_so_many_keys_of_leases_however_many_ask() {
    let (mut nodes, _) = started(1, STEPS);
    hang(&mut nodes, 1, 200, 3);
    let before = nodes.answers.len();
    let (asked, _) = nodes.lease_often(1, keys_from(KeysFrom::START), 300);
    let names = |nodes: &Nodes| nodes.names.values().map(Vec::len).sum();
    let turns = count_turns(&mut nodes, before + 300, names);
    assert!(turns >= 300, "{turns} turns");
    for request in asked {
        let Some(Answer::Times(times)) = nodes.answers.get(&request) else { panic!("{request}") };
        assert_eq!((times.key_count, nodes.names[&request].len()), (200, STEPS));
        assert!(times.next.after > 0, "there are more");
    }
}

#[test]
fn a_turn_lists_so_many_leases_however_many_ask() {
    let (mut nodes, _) = started(1, STEPS);
    for lease in 1..=40 {
        nodes.command(1, None, Command::LeaseGrant { lease, ttl_s: 1_000 });
    }
    nodes.pass(200 * MS);
    let before = nodes.answers.len();
    let consistency = Consistency::Linearizable;
    let list = |after| LeaseRequest::List { after, consistency };
    nodes.lease_often(1, list(0), 100);
    let count = |answer: &Answer| match answer {
        Answer::Leases(list) => list.leases.len(),
        Answer::Done
        | Answer::Term(_)
        | Answer::Times(_)
        | Answer::Challenge(..)
        | Answer::LoggedIn(_)
        | Answer::Failed(_) => 0,
    };
    let listed = |nodes: &Nodes| nodes.answers.values().map(count).sum();
    assert!(count_turns(&mut nodes, before + 100, listed) >= 100);
    let (mut all, mut more) = (Vec::new(), true);
    while more {
        let asked = nodes.lease(1, list(all.last().copied().unwrap_or(0)));
        nodes.pass(50 * MS);
        let Some(Answer::Leases(list)) = nodes.answers.get(&asked) else { panic!("{asked}") };
        all.extend(&list.leases);
        more = list.more;
    }
    assert_eq!(all, (1..=40).collect::<Vec<u64>>());
}

#[test]
fn who_goes_on_gets_every_key_of_a_lease_once_though_some_come_and_go() {
    let (mut nodes, _) = started(1, STEPS);
    let all = hang(&mut nodes, 1, 200, 3);
    let (mut found, mut from, mut replies) = (Vec::new(), KeysFrom::START, 0);
    loop {
        let (times, names) = ask(&mut nodes, 1, from);
        // The one at which the next reply goes on is there no more.
        let last = names.last().expect("some are left").clone();
        let end = [last.as_slice(), &[0]].concat();
        nodes.command(1, None, Command::DeleteRange { key: &last, end: RangeEnd::Before(&end) });
        nodes.command(1, None, Command::Put { key: b"other", value: b"v" });
        nodes.pass(10 * MS);
        found.extend(names);
        replies += 1;
        if times.next.after == 0 {
            break;
        }
        from = times.next;
    }
    assert_eq!(found.len(), all.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), all);
    assert!(replies > all.len() / STEPS, "{replies} replies");
}

/// The order of a lease's keys differs from server to server.
#[test]
fn a_place_of_another_leaders_order_is_before_the_first_key() {
    let (mut nodes, old) = started(3, STEPS);
    let all = hang(&mut nodes, old, 40, 3);
    let (before, first) = ask(&mut nodes, old, KeysFrom::START);
    assert_eq!((first.len(), before.key_count), (STEPS, 40));
    nodes.crash(old);
    nodes.pass_until(|nodes| nodes.leader().is_some());
    let new = nodes.leader().expect("just seen");
    nodes.pass(300 * MS);
    let term = Term::new(before.next.list);
    let (mut times, mut names) = ask(&mut nodes, new, before.next);
    assert!(Term::new(times.next.list) > term, "it is another list");
    let mut found: BTreeSet<Vec<u8>> = BTreeSet::new();
    loop {
        found.extend(names);
        if times.next.after == 0 {
            break;
        }
        (times, names) = ask(&mut nodes, new, times.next);
    }
    assert_eq!(found, all, "none is left out");
}

/// What a client did not read fast enough for was made, thrown away, and made again.
#[test]
fn nothing_is_looked_at_for_a_client_that_does_not_read() {
    // Twenty steps a name, 256 of whose bytes cost one, and more than a client may leave unread.
    let (mut nodes, _) = started(1, 2_000);
    hang(&mut nodes, 1, 60, 5_000);
    let (_, silent) = nodes.lease_often(1, keys_from(KeysFrom::START), 2);
    nodes.stop_reading(silent);
    let reads = nodes.lease(1, keys_from(KeysFrom::START));
    nodes.one_turn(1);
    nodes.hear_answers();
    assert_eq!(nodes.names.get(&reads).map(Vec::len), Some(40), "of the steps that are left");
    nodes.read_on(1, silent);
    nodes.pass(50 * MS);
    assert_eq!(nodes.names.len(), 3, "and then it is answered");
}
