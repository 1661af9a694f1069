//! A node that was away for long is served by a snapshot and the log behind it, whoever is killed
//! meanwhile.
//!
//! | variable | meaning |
//! |---|---|
//! | `CATCHING_UP_KILLS` | so many kills of the receiver, and of either side at random |
//! | `CATCHING_UP_SEED` | repeats who is killed, and how far into a transfer, not the timing |
//! | `CATCHING_UP_ENTRIES` | so many entries behind |

use super::harness::{Cluster, PATIENCE, STEADFAST, Shape};
use super::patience::{eventually, now};
use super::variable;
use crate::dice::Dice;
use raftd::limits;
use raftd::types::{LogIndex, NodeId};
use raftd::wire::members::MemberRequest;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

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

/// What a follower says when it has a snapshot in force that came from another one.
const INSTALLED: &str = "installed a snapshot";

/// How many snapshots of others it has installed since the cluster began.
fn installed(cluster: &mut Cluster, id: u64) -> usize {
    cluster.server(id).log_text().matches(INSTALLED).count()
}

/// Waits until so many percent of a snapshot have arrived. `false`: it was missed, because more
/// than `before` snapshots are installed. What the follower makes itself does not count.
fn is_in_transfer(cluster: &mut Cluster, id: u64, percent: u64, before: usize) -> bool {
    eventually("a part of the snapshot has arrived", PATIENCE, || {
        if let Ok(status) = cluster.server(id).status() {
            let (got, all) = (status.snapshot_received, status.snapshot_expected);
            if all > 0 && got * 100 >= all * percent {
                return Some(true);
            }
        }
        (installed(cluster, id) > before).then_some(false)
    })
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
    assert!(said.contains(INSTALLED), "{said}");
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
    let before = installed(&mut cluster, away);
    cluster.server(away).start();
    let mut kills = 0;
    while kills < 3 && is_in_transfer(&mut cluster, away, 1, before) {
        let leader = cluster.leader();
        cluster.server(leader).kill();
        kills += u32::from(installed(&mut cluster, away) == before);
        cluster.server(leader).start();
        cluster.leader();
    }
    println!("{kills} kills of a sender before all of its snapshot was there");
    assert!(kills > 0, "no sender was killed while it sent");
    put(&cluster, 0..10, 100);
    cluster.wait_until_equal();
    assert!(installed(&mut cluster, away) > before, "the log alone did it");
}

/// Leaves a follower behind and kills it or who sends to it. Says who it was, unless the transfer
/// had not begun or was over by then; what is asserted in the end holds all the same.
fn kill_during_a_transfer(cluster: &mut Cluster, dice: &mut Dice) -> Option<Victim> {
    let away = leave_behind(cluster, 1000, 2000);
    let before = installed(cluster, away);
    cluster.server(away).start();
    let began = is_in_transfer(cluster, away, dice.below(95), before);
    let sender = cluster.leader();
    let (who, id) = match dice.below(2) {
        0 => (Victim::Receiver, away),
        _ => (Victim::Sender, sender),
    };
    cluster.server(id).kill();
    let within = began && installed(cluster, away) == before;
    cluster.server(id).start();
    cluster.leader();
    put(cluster, 0..5, 100);
    cluster.wait_until_equal();
    within.then_some(who)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Receiver,
    Sender,
}

#[test]
fn whoever_is_killed_during_a_transfer_all_become_equal() {
    let wanted = variable("CATCHING_UP_KILLS");
    let kills = usize::try_from(wanted.unwrap_or(3)).unwrap();
    let seed = variable("CATCHING_UP_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("catching up: CATCHING_UP_SEED={seed} repeats the choices");
    let mut dice = Dice(seed);
    // Little history, or snapshots would grow each time, and be due ever later.
    let flags = ["--snapshot-rate", "3000000", "--history-bytes", "200000"];
    let mut cluster = Cluster::start_shaped(3, &shape(&flags));
    let (mut victims, mut missed) = (Vec::new(), 0);
    while victims.len() < kills {
        match kill_during_a_transfer(&mut cluster, &mut dice) {
            Some(victim) => victims.push(victim),
            None => missed += 1,
        }
        assert!(missed <= 10 + kills, "{missed} transfers were missed, {} not", victims.len());
    }
    let senders = victims.iter().filter(|it| **it == Victim::Sender).count();
    let receivers = victims.len() - senders;
    println!("{senders} kills of a sender and {receivers} of a receiver within a transfer");
    println!("{missed} more before or after one; equal hashes after each");
    // Of few, the dice may choose the same each time.
    if wanted.is_some_and(|wanted| wanted >= 20) {
        let least = senders.min(receivers);
        assert!(least * 5 >= kills, "{senders} of a sender, {receivers} of a receiver");
    }
}

/// Where the last snapshot that a follower installed ends.
fn installed_at(said: &str) -> u64 {
    let line = said.lines().rfind(|line| line.contains(INSTALLED)).expect("it says so");
    let position = line.split(" at=").nth(1).expect("with the position");
    position.split('@').next().unwrap().parse().unwrap()
}

#[test]
fn a_node_returns_from_far_behind() {
    let asked = variable("CATCHING_UP_ENTRIES");
    let entries = asked.unwrap_or(1000);
    // What few entries need is still in the log by default.
    let shape = if asked.is_some() { Shape::default() } else { shape(&[]) };
    let mut cluster = Cluster::start_shaped(3, &shape);
    let leader = cluster.leader();
    let away = cluster.others(leader)[0];
    let behind = cluster.server(away).says().last_index;
    cluster.server(away).kill();
    let before = cluster.server(leader).says().last_index.get();
    put(&cluster, 0..usize::try_from(entries).unwrap(), 100);
    let leader = cluster.leader();
    let last = cluster.server(leader).says().last_index.get();
    assert!(last >= before + entries, "each put was an entry");
    for id in cluster.others(away) {
        eventually("what it lacks is no longer in the log", PATIENCE, || {
            (cluster.server(id).status().ok()?.log_base > behind).then_some(())
        });
    }
    let already = installed(&mut cluster, away);
    let began = now();
    cluster.server(away).start();
    // The others go on meanwhile, so that there is a log behind whatever snapshot it is sent.
    eventually("it has a snapshot of another's", PATIENCE, || {
        put(&cluster, 0..1, 100);
        (installed(&mut cluster, away) > already).then_some(())
    });
    put(&cluster, 0..10, 100);
    cluster.wait_until_equal();
    let took = began.elapsed();
    let applied = cluster.server(away).says().applied_index.get();
    let snapshot = installed_at(&cluster.server(away).log_text());
    println!("catching up: {entries} entries behind, equal after {took:?}");
    println!("catching up: a snapshot up to {snapshot}, the log from there to {applied}");
    assert!(snapshot > behind.get(), "{snapshot} is not ahead of {behind}");
    assert!(snapshot < applied, "a snapshot alone did it");
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

/// A follower that is sent a snapshot says each second that a save there has to wait. When it died
/// after more of that than the timeout, the client gave up, for it counted from the beginning, and
/// asked none of the others.
#[test]
fn a_save_goes_on_elsewhere_when_a_server_dies_that_said_for_long_to_wait() {
    let flags = [&["--snapshot-rate", "1000"][..], &STEADFAST].concat();
    let mut cluster = Cluster::start_shaped(3, &shape(&flags));
    let away = leave_behind(&mut cluster, 800, 6000);
    let leader = cluster.leader();
    cluster.server(away).start();
    eventually("it is sent a snapshot", PATIENCE, || {
        (cluster.server(away).status().ok()?.snapshot_expected > 0).then_some(())
    });
    let file = cluster.folder().join("saved");
    let slow = cluster.server(away).listen().to_owned();
    let endpoints = [slow.as_str(), cluster.server(leader).listen()].join(",");
    let mut child = Command::new(env!("CARGO_BIN_EXE_raftctl"))
        .args(["--endpoints", &endpoints, "--timeout", "4s", "snapshot", "save"])
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It says so after five seconds, which are more than its timeout.
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = said.next().expect("it says why it waits").unwrap();
    assert_eq!(first, format!("{slow} makes a snapshot"));
    cluster.server(away).kill();
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{rest:?}");
    assert!(file.exists());
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
    assert!(cluster.server(away).log_text().contains(INSTALLED));
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
