//! A node that was away for long is served by a snapshot and the log behind it, whoever is killed
//! meanwhile.
//!
//! | variable | meaning |
//! |---|---|
//! | `CATCHING_UP_KILLS` | so many kills of the receiver, and of either side at random |
//! | `CATCHING_UP_ENTRIES` | so many entries behind |

use super::harness::{Cluster, PATIENCE, STEADFAST, Shape};
use super::patience::{eventually, now};
use super::variable;
use crate::dice::Dice;
use raftd::limits;
use raftd::types::{LogIndex, NodeId};
use raftd::wire::members::MemberRequest;
use std::process::Command;

fn shape(flags: &[&str]) -> Shape {
    let small = ["--segment-bytes", "65536", "--snapshot-entries", "50"];
    let often = ["--snapshot-interval", "0"];
    let flags = small.iter().chain(&often).chain(flags);
    Shape { flags: flags.map(|flag| (*flag).to_owned()).collect(), ..Shape::default() }
}

fn put(cluster: &Cluster, numbers: std::ops::Range<usize>, value_bytes: usize) {
    let mut client = cluster.client();
    for number in numbers {
        let key = format!("key/{:04}", number % 700);
        client.put(key.as_bytes(), &vec![b'v'; value_bytes]).unwrap();
    }
}

/// Stops a follower and writes until the others can no longer serve it from their logs.
fn leave_behind(cluster: &mut Cluster, writes: usize, value_bytes: usize) -> u64 {
    let leader = cluster.leader();
    let away = cluster.others(leader)[0];
    put(cluster, 0..20, value_bytes);
    let last = cluster.server(away).says().last_index;
    cluster.server(away).kill();
    put(cluster, 20..writes, value_bytes);
    for id in cluster.others(away) {
        eventually("the log behind the snapshot is gone", PATIENCE, || {
            let status = cluster.server(id).status().ok()?;
            (status.log_base > last).then_some(())
        });
    }
    away
}

#[test]
fn a_node_that_was_away_returns_by_snapshot_and_log() {
    let mut cluster = Cluster::start_shaped(3, &shape(&[]));
    let away = leave_behind(&mut cluster, 2000, 100);
    cluster.server(away).start();
    put(&cluster, 0..100, 100);
    cluster.wait_until_equal();
    let said = cluster.server(away).log_text();
    assert!(said.contains("installed a snapshot"), "{said}");
    // And after all of them lost their memory.
    let before = cluster.wait_until_equal();
    for id in 1..=3 {
        cluster.server(id).kill();
    }
    cluster.start_all();
    cluster.leader();
    put(&cluster, 0..1, 100);
    assert_ne!(cluster.wait_until_equal(), before, "it goes on");
    for id in 1..=3 {
        // What a snapshot is being made of goes when it is done.
        let status = eventually("the log stays bounded", PATIENCE, || {
            let status = cluster.server(id).status().ok()?;
            (status.log_bytes < 40 * 65_536).then_some(status)
        });
        assert!(status.snapshot_index >= status.log_base, "{status:?}");
    }
}

/// The bytes that transfers of this node's snapshots cost, and the size of the largest.
fn sent(text: &str) -> Vec<(u64, u64)> {
    let ended = text.lines().filter(|line| line.contains("ended a transfer"));
    let number = |line: &str, name: &str, part: usize| {
        let rest = line.split(name).nth(1).unwrap();
        let word = rest.split_whitespace().next().unwrap();
        word.split('/').nth(part).unwrap().parse().unwrap()
    };
    ended.map(|line| (number(line, "sent=", 0), number(line, "id=", 1))).collect()
}

#[test]
fn a_receiver_that_is_killed_goes_on_where_it_was() {
    let kills = variable("CATCHING_UP_KILLS").unwrap_or(4);
    // So slow that none of the parts is missed, and by one leader, who can say what all of it cost.
    let flags = [&["--snapshot-rate", "600000"][..], &STEADFAST].concat();
    let mut cluster = Cluster::start_shaped(3, &shape(&flags));
    let leader = cluster.leader();
    let away = leave_behind(&mut cluster, 800, 6000);
    cluster.server(away).start();
    for kill in 1..=kills {
        eventually("a part of the snapshot has arrived", PATIENCE, || {
            let status = cluster.server(away).status().ok()?;
            let (got, all) = (status.snapshot_received, status.snapshot_expected);
            (all > 0 && got * (kills + 2) >= all * kill).then_some(())
        });
        cluster.server(away).kill();
        cluster.server(away).start();
    }
    cluster.wait_until_equal();
    let text = cluster.server(leader).log_text();
    let transfers = sent(&text);
    let [(sent, size)] = transfers.as_slice() else { panic!("one transfer: {transfers:?}") };
    let piece = u64::try_from(limits::SNAPSHOT_PIECE_BYTES).unwrap();
    println!("sent {sent} bytes of {size}, {kills} kills of the receiver");
    assert!(*sent >= *size && *sent <= size + kills * piece, "sent {sent} of {size}");
}

#[test]
fn a_sender_that_is_killed_is_replaced_and_the_follower_arrives() {
    let mut cluster = Cluster::start_shaped(3, &shape(&["--snapshot-rate", "3000000"]));
    let away = leave_behind(&mut cluster, 800, 6000);
    cluster.server(away).start();
    for _ in 0..3 {
        eventually("a part of the snapshot has arrived", PATIENCE, || {
            let status = cluster.server(away).status().ok()?;
            (status.snapshot_received > 0 || status.log_base.get() > 700).then_some(())
        });
        let leader = cluster.leader();
        cluster.server(leader).kill();
        cluster.server(leader).start();
        cluster.leader();
    }
    put(&cluster, 0..10, 100);
    cluster.wait_until_equal();
}

#[test]
fn whoever_is_killed_during_a_transfer_all_become_equal() {
    let kills = variable("CATCHING_UP_KILLS").unwrap_or(3);
    let mut dice = Dice(kills);
    // Little history, or snapshots would grow each time, and be due ever later.
    let flags = ["--snapshot-rate", "3000000", "--history-bytes", "200000"];
    let mut cluster = Cluster::start_shaped(3, &shape(&flags));
    for _ in 0..kills {
        let away = leave_behind(&mut cluster, 1000, 2000);
        cluster.server(away).start();
        let share = dice.below(100);
        eventually("a part of the snapshot has arrived", PATIENCE, || {
            let status = cluster.server(away).status().ok()?;
            let (got, all) = (status.snapshot_received, status.snapshot_expected);
            (all > 0 && got * 100 >= all * share || status.snapshot_index.get() > 0).then_some(())
        });
        let sender = cluster.leader();
        let victim = if dice.below(2) == 0 { away } else { sender };
        cluster.server(victim).kill();
        cluster.server(victim).start();
        cluster.leader();
        put(&cluster, 0..5, 100);
        cluster.wait_until_equal();
    }
    println!("{kills} kills of a sender or a receiver, equal hashes after each");
}

#[test]
fn a_node_returns_from_far_behind() {
    let entries = variable("CATCHING_UP_ENTRIES").unwrap_or(1000);
    let mut cluster = Cluster::start_shaped(3, &Shape::default());
    let leader = cluster.leader();
    let away = cluster.others(leader)[0];
    cluster.server(away).kill();
    let before = cluster.server(leader).says().last_index.get();
    put(&cluster, 0..usize::try_from(entries).unwrap(), 100);
    let last = cluster.server(leader).says().last_index.get();
    assert!(last >= before + entries, "each put was an entry");
    let began = now();
    cluster.server(away).start();
    cluster.wait_until_equal();
    let status = cluster.server(away).says();
    let (took, snapshot) = (began.elapsed(), status.snapshot_index);
    println!("catching up: {entries} entries behind, equal after {took:?}; snapshot at {snapshot}");
}

/// The numbers of those who vote, by whoever leads.
fn voters(cluster: &Cluster) -> Vec<u64> {
    let members = cluster.client().member_list().unwrap().members;
    members.iter().filter(|it| it.role == "voter").map(|it| it.node.get()).collect()
}

/// A new member was given up after ten seconds in which no index moved, while it was sent a
/// snapshot, and while it loaded one of many keys.
#[test]
fn a_new_member_is_waited_for_while_it_is_sent_a_snapshot() {
    let mut cluster = Cluster::start_shaped(1, &shape(&["--snapshot-rate", "40000"]));
    cluster.leader();
    put(&cluster, 0..700, 900);
    eventually("the first entry is gone", PATIENCE, || {
        (cluster.server(1).status().ok()?.log_base.get() > 1).then_some(())
    });
    let new = cluster.start_joiner();
    let member = format!("{new}={}", cluster.server(new).listen());
    let at = cluster.server(1).listen().to_owned();
    let output = Command::new(env!("CARGO_BIN_EXE_raftctl"))
        .args(["member", "add", &member, "--endpoints", &at, "--timeout", "60s"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(" % of "), "{said}");
    assert_eq!(voters(&cluster), [1, new]);
}

/// A snapshot brings members that its receiver has never heard of: it talks to them, and its own
/// snapshots and starts know them.
#[test]
fn members_that_came_by_a_snapshot_are_talked_to_and_kept() {
    let mut cluster = Cluster::start_shaped(3, &shape(&[]));
    cluster.leader();
    put(&cluster, 0..700, 100);
    let makes_its_own = |cluster: &mut Cluster, id, after: LogIndex| {
        eventually("it makes a snapshot of its own", PATIENCE, || {
            (cluster.server(id).status().ok()?.snapshot_index > after).then_some(())
        });
    };
    let leader = cluster.leader();
    let (away, other) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    makes_its_own(&mut cluster, away, LogIndex::ZERO);
    cluster.server(away).kill();
    let new = cluster.start_joiner();
    let node = NodeId::new(new).unwrap();
    let address = cluster.server(new).listen().to_owned();
    let add = MemberRequest::Add { node, address: &address, stay: false };
    eventually("it votes", PATIENCE, || {
        // Who was asked may lose its office before it knows the end. Twice is refused.
        let _refused = cluster.client().change_members(&add);
        voters(&cluster).contains(&new).then_some(())
    });
    put(&cluster, 0..2000, 100);
    cluster.server(away).start();
    put(&cluster, 0..10, 100);
    cluster.wait_until_equal();
    assert!(cluster.server(away).log_text().contains("installed a snapshot"));
    // Of four, three are a quorum only with the new one.
    cluster.let_lead(away);
    assert_eq!(voters(&cluster), [1, 2, 3, new]);
    cluster.server(other).kill();
    cluster.client().put(b"key", b"value").unwrap();
    cluster.server(other).start();
    let before = cluster.server(away).says().snapshot_index;
    put(&cluster, 0..1500, 100);
    makes_its_own(&mut cluster, away, before);
    cluster.server(away).kill();
    cluster.server(away).start();
    cluster.wait_until_equal();
    cluster.let_lead(away);
    assert_eq!(voters(&cluster), [1, 2, 3, new]);
}
