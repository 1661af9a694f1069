//! Kubernetes' way of using etcd, under deaths of leaders: API servers that write by optimistic
//! transactions, list in pages, watch by shared streams, compact in turns, and put events under
//! leases. Then the log, every answer and every event are given to the checker of histories.
//!
//! | variable | meaning |
//! |---|---|
//! | `KUBERNETES_OBJECTS` | pods; 300 if it is not set |
//! | `KUBERNETES_WATCHERS` | watches; 15 |
//! | `KUBERNETES_SECONDS` | for how long leaders are killed; 8 |
//! | `KUBERNETES_SEED` | repeats the choices of an earlier run, not its timing |
//!
//! | file | what |
//! |---|---|
//! | `store` | an API server's requests: their shapes, and their answers written down |
//! | `controllers` | who creates, updates, deletes, lists, and compacts |
//! | `reflectors` | who watches |

mod controllers;
mod reflectors;
mod store;

use super::asking::Scene;
use super::harness::{Cluster, NO_SNAPSHOTS, Shape};
use super::logged::finals;
use super::patience::{StopAtEnd, breathe};
use super::program::{Gateway, block_on};
use super::turns::Company;
use super::variable;
use crate::dice::Dice;
use crate::history::checker::watches::Watched;
use crate::history::checker::{self, Answer, Command, History, Op, OpKind, Outcome};
use controllers::{Controller, Lister, compact_in_turns, put_events};
use raftd::client::Deadline;
use reflectors::{Bookmarks, reflect};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

/// API servers, each by a gateway of its own.
const API_SERVERS: usize = 2;
/// Controllers of each.
const CONTROLLERS: usize = 5;
/// Watches that share a stream.
const WATCHES_PER_STREAM: u64 = 5;

/// What there is to do.
#[derive(Clone, Copy)]
struct Size {
    pods: u64,
    watchers: u64,
    seed: u64,
}

/// What came of all of it.
#[derive(Default)]
struct Told {
    ops: Vec<Op>,
    /// Events that were said to be created, and at which revisions.
    events: Vec<(Vec<u8>, u64)>,
}

/// What watches came to.
#[derive(Default)]
struct Ears {
    watched: Watched,
    bookmarks: Bookmarks,
}

#[test]
fn api_servers_miss_nothing_and_overwrite_nothing_though_leaders_die() {
    let (pods, watchers) =
        (variable("KUBERNETES_OBJECTS").unwrap_or(300), variable("KUBERNETES_WATCHERS"));
    let seconds = variable("KUBERNETES_SECONDS").unwrap_or(8);
    let seed = variable("KUBERNETES_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let size = Size { pods, watchers: watchers.unwrap_or(15), seed };
    println!("kubernetes: KUBERNETES_SEED={seed} repeats the choices");
    // The log keeps all of it for the judge.
    let flags = NO_SNAPSHOTS.map(str::to_owned).to_vec();
    let shape = Shape { flags, company: Company::Others, ..Shape::default() };
    let mut cluster = Cluster::start_shaped(3, &shape);
    cluster.leader();
    let interval = ["--watch-progress-interval", "1"];
    let gateways: Vec<Gateway> =
        (0..API_SERVERS).map(|_| Gateway::start_with(&cluster, &interval)).collect();
    block_on(async {
        for gateway in &gateways {
            gateway.clients().await;
        }
    });
    let addresses = gateways.iter().map(|gateway| gateway.address.clone()).collect();
    let scene = Arc::new(Scene::new(addresses, Duration::from_secs(10)));
    let _over = StopAtEnd(&scene.is_over);
    let last = Arc::new(AtomicU64::new(0));
    let (tell, told) = channel();
    let crowd = {
        let (scene, last) = (Arc::clone(&scene), Arc::clone(&last));
        thread::spawn(move || block_on(run(scene, last, size, tell)))
    };
    let kills = kill_leaders(&mut cluster, &scene, seconds, seed);
    scene.stop.store(true, Ordering::SeqCst);
    let Told { ops, events } = told.recv().expect("the API servers end");
    cluster.leader();
    cluster.wait_until_equal();
    last.store(cluster.server(1).status().unwrap().revision.0, Ordering::SeqCst);
    let Ears { watched, bookmarks } = crowd.join().expect("the watches end");
    drop(gateways);
    let history = History { ops, finals: finals(&mut cluster), watched };
    let summary = checker::check(&history).unwrap_or_else(|violation| panic!("{violation:#?}"));
    let heard: usize = history.watched.heard.iter().map(|heard| heard.events.len()).sum();
    let (changes, asked) = (history.finals.commands.len(), history.ops.len());
    println!("kubernetes: {pods} pods, {seconds} s, {kills} leaders killed, {asked} asked");
    println!("kubernetes: {changes} changes, {heard} events heard, {bookmarks:?}; {summary:?}");
    let (won, lost) = assert_one_winner(&history.ops);
    println!("kubernetes: {won} updates, {lost} conflicts");
    assert_events_are_there(&history, &events);
    assert!(kills > 0 && heard > changes && bookmarks.asked_for > 0, "it proves too little");
}

/// Kills whoever leads, again and again.
fn kill_leaders(cluster: &mut Cluster, scene: &Scene, seconds: u64, seed: u64) -> u32 {
    let (mut dice, mut kills) = (Dice(seed), 0);
    let end = Deadline::after(Duration::from_secs(seconds));
    while !end.has_passed() {
        breathe(Duration::from_millis(500 + dice.below(1500)));
        let leader = cluster.leader();
        cluster.server(leader).kill();
        scene.boots[usize::try_from(leader - 1).unwrap()].fetch_add(1, Ordering::SeqCst);
        breathe(Duration::from_millis(100 + dice.below(1500)));
        cluster.server(leader).start();
        kills += 1;
    }
    kills
}

/// Everybody. What was asked is told as soon as nobody asks any more.
async fn run(scene: Arc<Scene>, last: Arc<AtomicU64>, size: Size, tell: Sender<Told>) -> Ears {
    let streams = size.watchers.div_ceil(WATCHES_PER_STREAM);
    let reflectors: Vec<_> = (0..streams)
        .map(|stream| tokio::spawn(reflect(Arc::clone(&scene), Arc::clone(&last), size, stream)))
        .collect();
    let mut tasks = Vec::new();
    for server in 0..API_SERVERS {
        for nth in 0..CONTROLLERS {
            let controller = Controller::new(Arc::clone(&scene), server, nth, size);
            tasks.push(tokio::spawn(controller.work()));
        }
        tasks.push(tokio::spawn(Lister::new(Arc::clone(&scene), server, size).work()));
        tasks.push(tokio::spawn(compact_in_turns(Arc::clone(&scene), server)));
        tasks.push(tokio::spawn(put_events(Arc::clone(&scene), server)));
    }
    let mut told = Told::default();
    for task in tasks {
        let Told { ops, events } = task.await.expect("an API server ends");
        told.ops.extend(ops);
        told.events.extend(events);
    }
    // The test may have failed.
    let _sent = tell.send(told);
    let mut ears = Ears::default();
    for reflector in reflectors {
        let (watched, bookmarks) = reflector.await.expect("a watch ends");
        ears.watched.heard.extend(watched.heard);
        ears.watched.compacted.extend(watched.compacted);
        ears.bookmarks.add(&bookmarks);
    }
    ears
}

/// Of all who wanted to replace the same version of an object one has, and the checker has found
/// that it was there; and some have wanted to in vain, or it proves nothing.
/// Answers how many updates and conflicts there were.
fn assert_one_winner(ops: &[Op]) -> (usize, usize) {
    let (mut won, mut lost) = (BTreeSet::new(), 0);
    for op in ops {
        let OpKind::Change(Command::PutIf { key, mod_revision, .. }) = &op.kind else { continue };
        match &op.outcome {
            Outcome::Answered(Answer::PutIf { refused: None, .. }) if *mod_revision > 0 => {
                let first = won.insert((key, mod_revision));
                assert!(first, "two have replaced {} of {mod_revision}", key.escape_ascii());
            }
            Outcome::Answered(Answer::PutIf { refused: Some(_), .. }) => lost += 1,
            Outcome::Answered(_) | Outcome::Refused | Outcome::Unknown => {}
        }
    }
    assert!(won.len() > 100 && lost > 10, "{} updates, {lost} conflicts", won.len());
    (won.len(), lost)
}

/// An event under a lease is no op of the checker's; what was said of it is looked up.
fn assert_events_are_there(history: &History, events: &[(Vec<u8>, u64)]) {
    let mut model = checker::model::Model::new();
    history.finals.commands.iter().for_each(|command| {
        model.apply(command);
    });
    for (key, revision) in events {
        let row = model.rows(key, &[], *revision).next();
        let name = key.escape_ascii();
        assert_eq!(row.map(|row| row.mod_revision), Some(*revision), "of {name}");
    }
    assert!(!events.is_empty(), "no event was created");
}
