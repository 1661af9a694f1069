//! What three nodes survive: a dead leader, all three dead, a node paused, a lost disk.

use super::harness::{Cluster, PATIENCE};
use super::patience::{at_best, eventually, now};
use raftd::client::Deadline;
use raftd::wire::error::Error as WireError;
use raftd::wire::reply::ReplyBody;
use std::fs;
use std::time::Duration;

fn key(number: usize) -> Vec<u8> {
    format!("key/{number:04}").into_bytes()
}

fn value(number: usize) -> Vec<u8> {
    format!("value of {number}").into_bytes()
}

/// Puts keys 0 to `count`, each acknowledged.
fn put_all(cluster: &Cluster, count: usize) {
    let mut client = cluster.client();
    for number in 0..count {
        client.put(&key(number), &value(number)).unwrap();
    }
}

/// Reads keys 0 to `count` through the leader.
fn check_all(cluster: &Cluster, count: usize) {
    let mut client = cluster.client();
    for number in 0..count {
        let found = client.get(&key(number)).unwrap();
        let found = found.unwrap_or_else(|| panic!("key {number} was acknowledged and is lost"));
        assert_eq!(found.value, value(number));
    }
}

#[test]
fn three_nodes_elect_and_replicate() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    put_all(&cluster, 200);
    cluster.wait_until_equal();
    for id in 1..=3 {
        assert_eq!(cluster.server(id).says().keys, 200);
    }
    eventually("all follow one leader", PATIENCE, || {
        let leader = cluster.leader_now();
        let follows = |id| cluster.server(id).status().ok()?.leader.map(|it| it.get());
        leader.filter(|_| [1, 2, 3].map(follows) == [leader; 3])
    });
}

#[test]
fn a_put_succeeds_within_two_seconds_of_the_leaders_death() {
    let mut cluster = Cluster::start_alone(3);
    cluster.leader();
    put_all(&cluster, 20);
    at_best("somebody can write", Duration::from_secs(2), || {
        let leader = cluster.leader();
        // A client that does nothing about it: it knows all nodes, and the leader was its last one.
        let mut client = cluster.client();
        client.put(b"before", b"").unwrap();
        cluster.server(leader).kill();
        let killed = now();
        client.put(b"after", b"").unwrap();
        let without = killed.elapsed();
        check_all(&cluster, 20);
        cluster.server(leader).start();
        cluster.wait_until_equal();
        without
    });
}

#[test]
fn a_follower_names_the_leader() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let address = cluster.server(leader).address.clone();
    for follower in cluster.others(leader) {
        eventually("it follows", PATIENCE, || cluster.server(follower).status().ok()?.leader);
        let mut connection = cluster.server(follower).connection();
        let deadline = Deadline::after(PATIENCE);
        connection.put(b"k", b"v");
        connection.flush(deadline).unwrap();
        let reply = connection.receive(deadline).unwrap();
        let ReplyBody::Error(WireError::NotLeader { leader: Some((named, at)) }) = reply.body
        else {
            panic!("a follower answered a put with {:?}", reply.body)
        };
        assert_eq!((named.get(), at), (leader, address.clone()));
    }
}

#[test]
fn a_write_through_any_node_reaches_the_leader() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    for id in 1..=3 {
        let mut client = cluster.client_of(&[id]);
        client.put(&key(0), &value(0)).unwrap();
        assert_eq!(client.get(&key(0)).unwrap().unwrap().value, value(0));
    }
}

#[test]
fn a_client_whose_only_endpoint_is_gone_finds_the_leader_that_it_once_led_to() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let others = cluster.others(leader);
    let mut client = cluster.client_of(&others[..1]);
    client.put(b"key", b"before").unwrap();
    for id in others.iter().chain([&leader]) {
        cluster.server(*id).kill();
    }
    // All but the endpoint come back.
    for id in [leader, others[1]] {
        cluster.server(id).start();
    }
    cluster.let_lead(leader);
    client.put(b"key", b"after").unwrap();
}

#[test]
fn three_nodes_killed_at_once_keep_every_acknowledged_put() {
    let mut cluster = Cluster::start(3);
    for round in 1..=3 {
        cluster.leader();
        put_all(&cluster, round * 100);
        for server in &mut cluster.servers {
            server.kill();
        }
        cluster.start_all();
        check_all(&cluster, round * 100);
    }
    cluster.wait_until_equal();
}

#[test]
fn a_paused_leader_is_replaced_and_steps_down() {
    let mut cluster = Cluster::start(3);
    let paused = cluster.leader();
    put_all(&cluster, 10);
    cluster.server(paused).pause();
    let others = cluster.others(paused);
    let mut client = cluster.client_of(&others);
    eventually("the others serve", PATIENCE, || client.put(b"meanwhile", b"").ok());
    cluster.server(paused).resume();
    eventually("the paused node follows", PATIENCE, || {
        let status = cluster.server(paused).status().ok()?;
        (status.role == "follower" && status.leader.is_some()).then_some(())
    });
    cluster.wait_until_equal();
    check_all(&cluster, 10);
}

#[test]
fn a_node_whose_disk_was_wiped_refuses_and_names_the_way_out() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    put_all(&cluster, 10);
    let wiped = cluster.others(leader)[0];
    cluster.server(wiped).kill();
    fs::remove_dir_all(&cluster.server(wiped).directory).unwrap();
    cluster.server(wiped).start();
    let status = cluster.server(wiped).wait_for_end(PATIENCE);
    assert_eq!(status.code(), Some(3));
    let log = cluster.server(wiped).log_text();
    let last = log.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains(&format!("raftctl member replace {wiped}")), "{log}");
    check_all(&cluster, 10);
}

/// It stayed behind for ever, and nobody said why.
#[test]
fn a_server_with_smaller_segments_than_the_others_says_that_it_cannot_follow() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let small = cluster.others(leader)[0];
    cluster.server(small).kill();
    cluster.server(small).change_flag("--segment-bytes", "65536");
    cluster.server(small).start();
    let mut client = cluster.client();
    for number in 0..12 {
        client.put(&key(number), &[7; 150_000]).unwrap();
    }
    eventually("it says what is wrong", PATIENCE, || {
        let text = cluster.server(small).log_text();
        text.contains("with the --segment-bytes of the others").then_some(())
    });
}
