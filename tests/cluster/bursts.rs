//! Many clients whose requests have all come at once: they are taken in many turns, not in one.

use super::harness::{Cluster, STEADFAST, Shape};
use super::leases::ticks;
use super::turn_lengths::TURN_US;
use super::unfinished::Raw;
use raftd::wire::client::put_request;
use raftd::wire::reply::{ReplyBody, decode_reply};
use std::time::Duration;

const CLIENTS: u64 = 256;
/// Together as many bytes as the kernel keeps of a client while nobody reads, whatever its limits.
const PUTS_EACH: u64 = 1500;

/// One turn took all of it: 40 % of the CPU time that the whole burst cost.
#[test]
fn a_burst_of_many_clients_is_taken_in_short_turns() {
    let flags = STEADFAST.into_iter().map(str::to_owned).collect();
    let mut cluster = Cluster::start_shaped(1, &Shape { flags, ..Shape::default() });
    cluster.leader();
    let before = ticks(&mut cluster, 1);
    let server = cluster.server(1);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Raw::greet(server.listen())).collect();
    server.pause();
    for (nth, client) in (0..).zip(&mut clients) {
        let mut requests = Vec::new();
        for id in 1..=PUTS_EACH {
            put_request(&mut requests, id, format!("key/{nth}/{id}").as_bytes(), b"value");
        }
        client.send(&requests);
    }
    server.resume();
    for client in &mut clients {
        for id in 1..=PUTS_EACH {
            let body = client.frame();
            let reply = decode_reply(&body).unwrap();
            assert!(matches!(reply.body, ReplyBody::Put { .. }) && reply.id == id, "{reply:?}");
        }
    }
    let longest = Duration::from_micros(server.says().turn_times.longest_cpu_us);
    let spent = 10 * Duration::from_millis(ticks(&mut cluster, 1) - before);
    println!("a burst of {} puts: {spent:?}, the longest turn {longest:?}", CLIENTS * PUTS_EACH);
    let bound = (spent / 10).max(Duration::from_micros(TURN_US));
    assert!(longest <= bound, "a turn of {longest:?}, of {spent:?} in all");
}
