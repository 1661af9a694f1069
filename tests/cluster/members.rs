//! Members come, go and are replaced, under load and under kills; and what is said when they
//! cannot.

use super::chaos_ledger::Service;
use super::harness::{Cluster, PATIENCE, Server, free_address};
use super::load::{Book, TIMEOUT_DEFAULT, kill_and_restart, under_load, under_load_within};
use super::patience::{ELECTION_TIMEOUT_UPPER, eventually, now};
use super::variable;
use raftd::client::Deadline;
use raftd::wire::members::MemberList;
use std::process::{Command, Output};
use std::time::Duration;

/// The goal of a handover: half of them leave nobody waiting for longer.
const HANDOVER: Duration = Duration::from_millis(50);

/// Runs `raftctl` against every node that runs.
fn raftctl(cluster: &Cluster, words: &[&str]) -> Output {
    let endpoints: Vec<&str> =
        cluster.servers.iter().filter(|server| !server.retired).map(Server::listen).collect();
    Command::new(env!("CARGO_BIN_EXE_raftctl"))
        .args(["--endpoints", &endpoints.join(","), "--timeout", "60s"])
        .args(words)
        .output()
        .unwrap()
}

/// What it printed, if it succeeded.
fn done(cluster: &Cluster, words: &[&str]) -> String {
    let output = raftctl(cluster, words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "raftctl {words:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Asserts that it was refused, with these words.
fn refused(cluster: &Cluster, words: &[&str], why: &[&str]) {
    let output = raftctl(cluster, words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "raftctl {words:?}: {said}");
    for word in why {
        assert!(said.contains(word), "raftctl {words:?}: {word:?} is not in: {said}");
    }
}

fn list(cluster: &Cluster) -> MemberList {
    cluster.client().member_list().unwrap()
}

/// The numbers of those who vote.
fn voters(cluster: &Cluster) -> Vec<u64> {
    let members = list(cluster).members;
    members.iter().filter(|it| it.role == "voter").map(|it| it.node.get()).collect()
}

/// Starts a new node and makes it a voter. Returns its number.
fn grow(cluster: &mut Cluster) -> u64 {
    let id = cluster.start_joiner();
    let member = format!("{id}={}", cluster.server(id).listen());
    done(cluster, &["member", "add", &member]);
    id
}

/// Removes a member, which says so and ends.
fn shrink(cluster: &mut Cluster, id: u64) {
    done(cluster, &["member", "remove", &id.to_string()]);
    cluster.server(id).retired = true;
    let status = cluster.server(id).wait_for_end(PATIENCE);
    assert_eq!(status.code(), Some(3));
    let log = cluster.server(id).log_text();
    assert!(log.contains(&format!("server {id} was removed from the cluster")), "{log}");
}

/// From three voters to five and back, whoever leads among those that leave; with kills between.
fn grow_and_shrink(cluster: &mut Cluster, service: &Service, book: &Book) {
    let three = voters(cluster);
    let four = grow(cluster);
    book.update(cluster);
    let leader = cluster.leader();
    kill_and_restart(cluster, leader, service);
    let five = grow(cluster);
    book.update(cluster);
    assert_eq!(voters(cluster), [&three[..], &[four, five]].concat());
    kill_and_restart(cluster, four, service);
    // The leader itself, then whoever follows it.
    let leader = cluster.leader();
    shrink(cluster, leader);
    let leader = cluster.leader();
    kill_and_restart(cluster, leader, service);
    let other = voters(cluster).into_iter().find(|id| *id != leader).unwrap();
    shrink(cluster, other);
    book.update(cluster);
    assert_eq!(voters(cluster).len(), 3);
}

/// From three voters to the leader alone.
fn shrink_to_one(cluster: &mut Cluster, book: &Book) -> u64 {
    let leader = cluster.leader();
    for id in voters(cluster).into_iter().filter(|id| *id != leader) {
        shrink(cluster, id);
    }
    book.update(cluster);
    assert_eq!(voters(cluster), [leader]);
    leader
}

/// `MEMBERS_ROUNDS=10` measures; one is enough to see that it works. Nobody writes while the only
/// member is dead; otherwise never for longer than two election timeouts.
#[test]
fn a_cluster_grows_and_shrinks_under_load_and_kills_and_loses_nothing() {
    let rounds = variable("MEMBERS_ROUNDS");
    let mut cluster = if rounds.is_some() { Cluster::start_alone(3) } else { Cluster::start(3) };
    let mut gaps = Vec::new();
    let load = under_load(&mut cluster, |cluster, service, book| {
        for _ in 0..rounds.unwrap_or(1) {
            let began = service.now_us();
            grow_and_shrink(cluster, service, book);
            let leader = shrink_to_one(cluster, book);
            gaps.push(service.longest_gap(began, service.now_us()));
            cluster.server(leader).kill();
            cluster.server(leader).start();
            cluster.leader();
            let alone = service.now_us();
            eventually("a put is acknowledged", PATIENCE, || service.since(alone).then_some(()));
            let began = service.now_us();
            let (one, two) = (grow(cluster), grow(cluster));
            book.update(cluster);
            assert_eq!(voters(cluster), [leader, one, two]);
            kill_and_restart(cluster, leader, service);
            gaps.push(service.longest_gap(began, service.now_us()));
        }
    });
    gaps.sort();
    let (p50, max) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    println!("members: longest without service in a round's halves: p50 {p50:?}, max {max:?}");
    println!("members: {load:?}");
    assert!(load.puts.done > 100, "too little was done to prove anything: {load:?}");
    if rounds.is_some() {
        assert!(max <= 2 * ELECTION_TIMEOUT_UPPER, "{max:?} without service");
    }
}

/// One of so many handovers may need another attempt, and one of fewer.
const HANDOVERS_TO_A_REPEATED_ONE: usize = 10;

/// What handovers under load were like.
#[derive(Default, Debug)]
struct Handovers {
    /// The longest time without an acknowledged put around each, ascending.
    gaps: Vec<Duration>,
    /// Those that one attempt did not bring about.
    repeated: usize,
    /// All attempts that brought none about: refused, timed out, or undone at once.
    failed_attempts: usize,
}

impl Handovers {
    /// Asserts that nearly all came about when they were asked for the first time.
    fn assert_few_repeated(&self) {
        let most = (self.gaps.len() / HANDOVERS_TO_A_REPEATED_ONE).max(1);
        assert!(self.repeated <= most, "more than {most} needed another attempt: {self:?}");
    }
}

fn handovers(cluster: &mut Cluster, count: usize, service: &Service) -> Handovers {
    let mut all = Handovers::default();
    for _ in 0..count {
        let leader = cluster.leader();
        let target = cluster.others(leader)[all.gaps.len() % 2];
        let began = service.now_us();
        let failed = hand_over(cluster, target);
        all.failed_attempts += failed;
        all.repeated += usize::from(failed > 0);
        let ended = service.now_us();
        eventually("a put is acknowledged", PATIENCE, || service.since(ended).then_some(()));
        all.gaps.push(service.longest_gap(began, service.now_us()));
    }
    all.gaps.sort();
    all
}

/// Until it is done: a target that is too busy to take over in time does so another time. Returns
/// how many attempts failed, also one whose target leads in spite of what was said.
fn hand_over(cluster: &mut Cluster, target: u64) -> usize {
    let mut failed = 0;
    eventually("the target leads", PATIENCE, || {
        let output = raftctl(cluster, &["transfer-leader", &target.to_string()]);
        let succeeded = match output.status.code() {
            Some(0) => {
                let said = String::from_utf8(output.stdout).unwrap();
                assert_eq!(said, format!("n{target} leads\n"));
                true
            }
            Some(1) => {
                println!("members: {}", String::from_utf8_lossy(&output.stderr));
                false
            }
            code => panic!("{code:?}: {}", String::from_utf8_lossy(&output.stderr)),
        };
        let leads = cluster.leader() == target;
        failed += usize::from(!succeeded || !leads);
        leads.then_some(())
    });
    failed
}

/// `MEMBERS_HANDOVERS=50` measures; a few are enough to see that it works.
#[test]
fn the_leadership_changes_hands_under_load_and_no_request_fails() {
    let asked = variable("MEMBERS_HANDOVERS");
    let count = usize::try_from(asked.unwrap_or(6)).unwrap();
    let mut cluster = Cluster::start_alone(3);
    let mut all = Handovers::default();
    let patience = if asked.is_some() { TIMEOUT_DEFAULT } else { PATIENCE };
    let load = under_load_within(patience, &mut cluster, |cluster, service, _| {
        all = handovers(cluster, count, service);
    });
    let (p50, max) = (all.gaps[count / 2], all.gaps[count - 1]);
    println!("members: {count} handovers; without service p50 {p50:?}, max {max:?}; {load:?}");
    let Handovers { repeated, failed_attempts, .. } = all;
    println!(
        "members: {repeated} needed another attempt; {failed_attempts} attempts failed in all"
    );
    load.all_succeeded();
    all.assert_few_repeated();
    if asked.is_some() {
        assert!(p50 <= HANDOVER, "half of the handovers took longer than {p50:?}");
        assert!(max <= 2 * ELECTION_TIMEOUT_UPPER, "{max:?} without service");
    }
}

/// `MEMBERS_STOPS=20` measures: then each of so many stops is judged, and not the median of the
/// last five, and how long nobody could write meanwhile, and a request fails after five seconds.
#[test]
fn a_leader_that_is_told_to_stop_hands_over_and_no_request_fails() {
    let limit = 2 * ELECTION_TIMEOUT_UPPER;
    let mut cluster = Cluster::start_alone(3);
    let (mut stops, mut gaps) = (Vec::new(), Vec::new());
    let wanted = variable("MEMBERS_STOPS").map(|wanted| usize::try_from(wanted).unwrap());
    let patience = if wanted.is_some() { TIMEOUT_DEFAULT } else { PATIENCE };
    let load = under_load_within(patience, &mut cluster, |cluster, service, _| {
        let deadline = Deadline::after(PATIENCE);
        let is_enough = |stops: &[Duration]| match wanted {
            Some(wanted) => stops.len() >= wanted,
            None => {
                let is_soon = || median_of_last(stops) < limit || deadline.has_passed();
                stops.len() >= STOPS && is_soon()
            }
        };
        while !is_enough(&stops) {
            let leader = cluster.leader();
            let (told, began) = (now(), service.now_us());
            cluster.server(leader).signal("TERM");
            let status = cluster.server(leader).wait_for_end(PATIENCE);
            stops.push(told.elapsed());
            assert_eq!(status.code(), Some(0), "{}", cluster.server(leader).log_text());
            let ended = service.now_us();
            eventually("a put is acknowledged", PATIENCE, || service.since(ended).then_some(()));
            gaps.push(service.longest_gap(began, service.now_us()));
            cluster.server(leader).start();
            eventually("it follows", PATIENCE, || cluster.server(leader).status().ok()?.leader);
        }
    });
    println!("members: leaders stopped in {stops:?}, nobody wrote for {gaps:?}; {load:?}");
    load.all_succeeded();
    match wanted {
        Some(_) => {
            assert!(stops.iter().all(|stop| *stop < limit), "{stops:?}");
            assert!(gaps.iter().all(|gap| *gap <= limit), "{gaps:?} without service");
        }
        None => assert!(median_of_last(&stops) < limit, "{stops:?}"),
    }
}

/// So many leaders are stopped at least; of so many the median counts, and more are stopped while
/// a busy machine makes that too long.
const STOPS: usize = 5;

fn median_of_last(stops: &[Duration]) -> Duration {
    let mut last = stops[stops.len() - STOPS..].to_vec();
    last.sort();
    last[STOPS / 2]
}

/// After the first signal alone this leader would wait for half a minute, its election timeout,
/// for somebody to take over, and then write down that it ended in good order.
#[test]
fn a_second_signal_stops_at_once() {
    let mut cluster = Cluster::start_with_a_lasting_leader(&[]);
    let leader = cluster.leader();
    // Nobody can take over, and a client stays.
    for other in cluster.others(leader) {
        cluster.server(other).pause();
    }
    let connection = cluster.server(leader).connection();
    cluster.server(leader).signal("TERM");
    eventually("it is stopping", PATIENCE, || {
        cluster.server(leader).log_text().contains("stopping").then_some(())
    });
    cluster.server(leader).signal("TERM");
    let status = cluster.server(leader).wait_for_end(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0));
    let log = cluster.server(leader).log_text();
    let last = log.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("reason=signal clean=false"), "nothing more was written: {log}");
    drop(connection);
    for other in cluster.others(leader) {
        cluster.server(other).resume();
    }
}

#[test]
fn what_cannot_be_done_to_the_members_is_refused_with_what_is_missing() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let [one, other] = cluster.others(leader)[..] else { panic!("three nodes") };
    let nowhere = free_address();
    let own = cluster.server(one).listen().to_owned();
    for (words, why) in [
        (["member", "add", &format!("4={nowhere}")], &["not reachable", &nowhere, "--join"][..]),
        (["member", "add", &format!("3={nowhere}")], &["3 is a member already"]),
        (["member", "add", &format!("4={own}")], &["is the address of server"]),
        (["member", "promote", "2"], &["n2 is not a learner"]),
        (["member", "remove", "9"], &["n9 is not a member"]),
    ] {
        refused(&cluster, &words, why);
    }
    refused(&cluster, &["transfer-leader", "9"], &["n9 is not a voter"]);
    // It is reachable, and another server: to start it again as it is would change nothing.
    let four = cluster.start_joiner();
    let wrong = format!("5={}", cluster.server(four).listen());
    let why = ["cannot become server 5", "server n4", "--id 5 --join", "an empty --data-dir"];
    refused(&cluster, &["member", "add", &wrong], &why);
    cluster.server(one).kill();
    eventually("the leader misses it", PATIENCE, || {
        let members = list(&cluster).members;
        members.iter().any(|it| it.node.get() == one && !it.alive).then_some(())
    });
    let alive = other.to_string();
    refused(&cluster, &["member", "remove", &alive], &["leave 1 of 2 voters alive"]);
    refused(&cluster, &["transfer-leader", &one.to_string()], &["not connected"]);
    let table = done(&cluster, &["member", "list", "--output", "table"]);
    assert!(table.starts_with("NODE"), "{table}");
    let json = done(&cluster, &["member", "list", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["members"].as_array().map(Vec::len), Some(3), "{json}");
    assert_eq!(json["leader"], leader);
}

#[test]
fn a_learner_stays_one_until_it_is_promoted() {
    let mut cluster = Cluster::start(3);
    cluster.client().put(b"k", b"v").unwrap();
    let four = cluster.start_joiner();
    let member = format!("{four}={}", cluster.server(four).listen());
    let said = done(&cluster, &["member", "add", &member, "--learner"]);
    assert!(said.contains(&format!("n{four} ")) && said.contains(" learner"), "{said}");
    cluster.wait_until_equal();
    assert_eq!(voters(&cluster), [1, 2, 3]);
    assert_eq!(cluster.server(four).says().role, "follower");
    done(&cluster, &["member", "promote", &four.to_string()]);
    assert_eq!(voters(&cluster), [1, 2, 3, four]);
}

#[test]
fn a_removed_member_that_comes_back_is_told_and_its_number_is_never_used_again() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let gone = cluster.others(leader)[0];
    cluster.server(gone).kill();
    done(&cluster, &["member", "remove", &gone.to_string()]);
    cluster.server(gone).retired = true;
    cluster.server(gone).start();
    let status = cluster.server(gone).wait_for_end(PATIENCE);
    let log = cluster.server(gone).log_text();
    assert_eq!(status.code(), Some(3), "{log}");
    let last = log.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("was removed from the cluster"), "{log}");
    let again = format!("{gone}={}", free_address());
    refused(&cluster, &["member", "add", &again], &["never reused", "--id 4"]);
    cluster.client().put(b"k", b"v").unwrap();
}

/// It was told that it had been removed.
#[test]
fn a_joiner_that_was_overtaken_is_told_that_it_is_no_member() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let two = cluster.start_joiner();
    cluster.server(two).retired = true;
    grow(&mut cluster);
    let status = cluster.server(two).wait_for_end(PATIENCE);
    let log = cluster.server(two).log_text();
    assert_eq!(status.code(), Some(3), "{log}");
    let last = log.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("server 2 is not a member of the cluster"), "{log}");
    assert!(last.contains("raftctl member add"), "{log}");
    assert!(!log.contains("removed"), "{log}");
}

#[test]
fn a_member_that_lost_its_directory_is_replaced_by_one_with_a_new_number() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    cluster.client().put(b"k", b"v").unwrap();
    let lost = cluster.others(leader)[0];
    cluster.server(lost).kill();
    std::fs::remove_dir_all(&cluster.server(lost).directory).unwrap();
    cluster.server(lost).retired = true;
    let four = cluster.start_joiner();
    let member = format!("{four}={}", cluster.server(four).listen());
    done(&cluster, &["member", "replace", &lost.to_string(), &member]);
    let others: Vec<u64> = (1..=4).filter(|id| *id != lost).collect();
    assert_eq!(voters(&cluster), others);
    cluster.wait_until_equal();
    assert_eq!(cluster.client().get(b"k").unwrap().unwrap().value, b"v");
}
