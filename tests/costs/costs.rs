//! The operations. Each has a cluster of its own, so that no one's figures move another's; and is
//! counted once everything that it grows has grown.

use crate::baseline::judge;
use crate::cluster::Cluster;
use crate::figures::{Bill, bill};
use crate::loads::{self, LEASES, Load};
use crate::sampling;

/// Connections that share what is in flight, and what each has.
const CONNECTIONS: usize = 100;
const EACH: usize = 10;

/// Long enough for what follows a load: marks in the log, the hard state. Nanoseconds.
const REST_NS: u64 = 3_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// A cluster that holds all keys.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    let clients = cluster.connect(cluster.leader(), CONNECTIONS);
    cluster.begin(&Load { clients, in_flight: EACH, request: loads::put });
    cluster.end();
    cluster
}

/// Lets something happen and counts; says where allocations come from, if that is asked for.
fn sampled(operation: &str, cluster: &mut Cluster, happen: impl FnOnce(&mut Cluster)) -> Bill {
    sampling::begin();
    let bill = bill(cluster, happen);
    sampling::end(operation);
    bill
}

/// Compares what `count` answers to a load cost, after as many as make it steady.
fn judge_load(operation: &str, cluster: &mut Cluster, load: &Load, warm: u64, count: u64) {
    cluster.begin(load);
    cluster.go_on(load, warm);
    let before = cluster.heard().answers;
    let bill = sampled(operation, cluster, |cluster| cluster.go_on(load, count));
    // They come in crowds: it may be a few more than were waited for.
    let answers = cluster.heard().answers - before;
    judge(operation, "a thousand", &bill.figures(operation, answers, 1000));
}

/// A thousand of a request in flight at a machine.
fn judge_thousand(
    operation: &str,
    cluster: &mut Cluster,
    machine: usize,
    request: fn(&mut Vec<u8>, u64),
) {
    let clients = cluster.connect(machine, CONNECTIONS);
    judge_load(operation, cluster, &Load { clients, in_flight: EACH, request }, 20_000, 20_000);
}

#[test]
fn puts_one_at_a_time_cost_what_they_did() {
    let mut cluster = cluster();
    let clients = cluster.connect(cluster.leader(), 1);
    let load = Load { clients, in_flight: 1, request: loads::put };
    judge_load("put-alone", &mut cluster, &load, 5000, 2000);
}

#[test]
fn a_thousand_puts_in_flight_cost_what_they_did() {
    let mut cluster = cluster();
    let leader = cluster.leader();
    judge_thousand("put", &mut cluster, leader, loads::put);
}

#[test]
fn a_thousand_linearizable_gets_in_flight_cost_what_they_did() {
    let mut cluster = cluster();
    let leader = cluster.leader();
    judge_thousand("get", &mut cluster, leader, loads::get);
}

#[test]
fn linearizable_gets_of_a_follower_cost_what_they_did() {
    let mut cluster = cluster();
    let follower = cluster.follower();
    judge_thousand("follower-get", &mut cluster, follower, loads::get);
}

#[test]
fn transactions_cost_what_they_did() {
    let mut cluster = cluster();
    let leader = cluster.leader();
    judge_thousand("txn", &mut cluster, leader, loads::txn);
}

#[test]
fn keep_alives_cost_what_they_did() {
    let mut cluster = cluster();
    let leader = cluster.leader();
    let clients = cluster.connect(leader, usize::try_from(LEASES).expect("few"));
    cluster.begin(&Load { clients, in_flight: 1, request: loads::grant });
    cluster.end();
    judge_thousand("keep-alive", &mut cluster, leader, loads::keep_alive);
}

#[test]
fn events_of_watches_cost_what_they_did() {
    let mut cluster = cluster();
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let watching = cluster.connect(follower, CONNECTIONS);
    cluster.say(watching, loads::watch);
    cluster.pass(SECOND_NS);
    let clients = cluster.connect(leader, 1);
    let load = Load { clients, in_flight: 1, request: loads::put };
    cluster.begin(&load);
    cluster.go_on(&load, 5000);
    let before = cluster.heard().events;
    let bill = sampled("watch-event", &mut cluster, |cluster| cluster.go_on(&load, 500));
    let events = cluster.heard().events - before;
    judge("watch-event", "a thousand", &bill.figures("watch-event", events, 1000));
}

#[test]
fn an_idle_second_costs_what_it_did() {
    let mut cluster = cluster();
    cluster.pass(REST_NS);
    let seconds = 10;
    let bill = sampled("idle-second", &mut cluster, |cluster| cluster.pass(seconds * SECOND_NS));
    judge("idle-second", "one", &bill.figures("idle-second", seconds, 1));
}
