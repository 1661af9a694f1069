//! The operations. Each has a town of its own, so that no one's figures move another's; and is
//! counted once everything that it grows has grown.

use crate::baseline::judge;
use crate::figures::{Bill, bill};
use crate::loads::{self, LEASES, Load};
use crate::sampling;
use crate::town::Town;

/// Connections that share what is in flight, and what each has.
const CONNECTIONS: usize = 100;
const EACH: usize = 10;

/// Long enough for what follows a load: marks in the log, the hard state. Nanoseconds.
const REST_NS: u64 = 3_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// A town that holds all keys.
fn town() -> Town {
    let mut town = Town::new();
    let clients = town.connect(town.leader(), CONNECTIONS);
    town.begin(&Load { clients, in_flight: EACH, request: loads::put });
    town.end();
    town
}

/// Lets something happen and counts; says where allocations come from, if that is asked for.
fn sampled(operation: &str, town: &mut Town, happen: impl FnOnce(&mut Town)) -> Bill {
    sampling::begin();
    let bill = bill(town, happen);
    sampling::end(operation);
    bill
}

/// Compares what `count` answers to a load cost, after as many as make it steady.
fn judge_load(operation: &str, town: &mut Town, load: &Load, warm: u64, count: u64) -> Bill {
    town.begin(load);
    town.go_on(load, warm);
    let before = town.heard().answers;
    let bill = sampled(operation, town, |town| town.go_on(load, count));
    // They come in crowds: it may be a few more than were waited for.
    let answers = town.heard().answers - before;
    judge(operation, "a thousand", &bill.figures(operation, answers, 1000));
    bill
}

/// A thousand of a request in flight at a machine.
fn judge_thousand(
    operation: &str,
    town: &mut Town,
    machine: usize,
    request: fn(&mut Vec<u8>, u64),
) -> Bill {
    let clients = town.connect(machine, CONNECTIONS);
    judge_load(operation, town, &Load { clients, in_flight: EACH, request }, 20_000, 20_000)
}

#[test]
fn puts_one_at_a_time_cost_what_they_did() {
    let mut town = town();
    let clients = town.connect(town.leader(), 1);
    let load = Load { clients, in_flight: 1, request: loads::put };
    judge_load("put-alone", &mut town, &load, 5000, 2000);
}

#[test]
fn a_thousand_puts_in_flight_cost_what_they_did() {
    let mut town = town();
    let leader = town.leader();
    judge_thousand("put", &mut town, leader, loads::put);
}

#[test]
fn a_thousand_linearizable_gets_in_flight_cost_what_they_did() {
    let mut town = town();
    let leader = town.leader();
    judge_thousand("get", &mut town, leader, loads::get);
}

#[test]
fn linearizable_gets_of_a_follower_cost_what_they_did() {
    let mut town = town();
    let follower = town.follower();
    judge_thousand("follower-get", &mut town, follower, loads::get);
}

#[test]
fn transactions_cost_what_they_did() {
    let mut town = town();
    let leader = town.leader();
    judge_thousand("txn", &mut town, leader, loads::txn);
}

#[test]
fn keep_alives_cost_what_they_did() {
    let mut town = town();
    let leader = town.leader();
    let clients = town.connect(leader, usize::try_from(LEASES).expect("few"));
    town.begin(&Load { clients, in_flight: 1, request: loads::grant });
    town.end();
    judge_thousand("keep-alive", &mut town, leader, loads::keep_alive);
}

#[test]
fn events_of_watches_cost_what_they_did() {
    let mut town = town();
    let (leader, follower) = (town.leader(), town.follower());
    let watching = town.connect(follower, CONNECTIONS);
    town.say(watching, loads::watch);
    town.pass(SECOND_NS);
    let clients = town.connect(leader, 1);
    let load = Load { clients, in_flight: 1, request: loads::put };
    town.begin(&load);
    town.go_on(&load, 5000);
    let before = town.heard().events;
    let bill = sampled("watch-event", &mut town, |town| town.go_on(&load, 500));
    let events = town.heard().events - before;
    judge("watch-event", "a thousand", &bill.figures("watch-event", events, 1000));
}

#[test]
fn an_idle_second_costs_what_it_did() {
    let mut town = town();
    town.pass(REST_NS);
    let seconds = 10;
    let bill = sampled("idle-second", &mut town, |town| town.pass(seconds * SECOND_NS));
    judge("idle-second", "one", &bill.figures("idle-second", seconds, 1));
}
