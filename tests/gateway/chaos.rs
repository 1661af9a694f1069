//! Clients by gRPC, and listeners, while nodes and gateways are killed and stopped and links are
//! cut; then the log, every answer and every event are given to the checker of histories.
//!
//! | variable | meaning |
//! |---|---|
//! | `GATEWAY_CHAOS_SECONDS` | for how long at least; 6 if it is not set |
//! | `GATEWAY_CHAOS_SEED` | repeats the choices of an earlier run, not its timing |

use super::asking::{Scene, Witness};
use super::harness::{Cluster, NO_SNAPSHOTS, PATIENCE, Shape};
use super::hearing::{Ear, Line};
use super::logged::finals;
use super::patience::{StopAtEnd, breathe, go_on};
use super::program::{Gateway, block_on};
use super::turns::Company;
use super::variable;
use crate::dice::Dice;
use crate::history::checker::watches::{Watched, Wish};
use crate::history::checker::{self, History, Op, Summary};
use raftd::client::Deadline;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;
use tokio::time::timeout;

const CLIENTS: u32 = 12;
const LISTENERS: u64 = 24;

/// Harm is to be done so often, or little is proven.
const HARMS: u64 = 3;

/// How often something was done.
#[derive(Default, Debug)]
struct Faults {
    kills: u32,
    stops: u32,
    cuts: u32,
    gateway_kills: u32,
    gateway_stops: u32,
}

/// The revision that all are to hear of in the end, once it is known; 0 before.
type Last = Arc<AtomicU64>;

#[test]
fn what_clients_are_told_is_linearizable_though_nodes_and_gateways_die() {
    let seconds = variable("GATEWAY_CHAOS_SECONDS").unwrap_or(6);
    let seed = variable("GATEWAY_CHAOS_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("gateway-chaos: GATEWAY_CHAOS_SEED={seed} repeats the choices");
    // The log keeps all of it for the judge; the history does not: some listeners are too late.
    let flags = [&NO_SNAPSHOTS[..], &["--history-bytes", "200000"]].concat();
    let flags = flags.into_iter().map(str::to_owned).collect();
    let shape = Shape { flags, cuttable: true, company: Company::Others };
    let mut cluster = Cluster::start_shaped(3, &shape);
    cluster.leader();
    let mut gateways = [Gateway::start(&cluster), Gateway::start(&cluster)];
    block_on(async {
        for gateway in &gateways {
            gateway.clients().await;
        }
    });
    let addresses = gateways.iter().map(|gateway| gateway.address.clone()).collect();
    let scene = Arc::new(Scene::new(addresses, Duration::from_millis(1500)));
    let _over = StopAtEnd(&scene.is_over);
    let last = Last::default();
    let keys = 60 + 5 * seconds;
    let (tell_ops, ops) = channel();
    let crowd = {
        let (scene, last) = (Arc::clone(&scene), Arc::clone(&last));
        thread::spawn(move || block_on(run(scene, last, keys, seed, tell_ops)))
    };
    let (mut dice, mut faults) = (Dice(seed), Faults::default());
    go_on(seconds, "harm is done", || {
        harm(&mut cluster, &mut gateways, &scene, &mut dice, &mut faults);
        (faults.count(), HARMS)
    });
    scene.stop.store(true, Ordering::SeqCst);
    let ops: Vec<Op> = ops.recv().expect("the clients end");
    cluster.leader();
    cluster.wait_until_equal();
    last.store(cluster.server(1).status().unwrap().revision.0, Ordering::SeqCst);
    let watched = crowd.join().expect("the listeners end");
    drop(gateways);
    let events: usize = watched.heard.iter().map(|heard| heard.events.len()).sum();
    let late = watched.compacted.len();
    let history = History { ops, finals: finals(&mut cluster), watched };
    let (asked, changes) = (history.ops.len(), history.finals.commands.len());
    let summary = checker::check(&history).unwrap_or_else(|violation| panic!("{violation:#?}"));
    println!("gateway-chaos: {seconds} s, {faults:?}, {asked} asked, {changes} in the log");
    println!("gateway-chaos: {events} events heard, {late} times too late; {summary:?}");
    assert_it_proves_something(&faults, &summary, asked, events, changes);
}

fn assert_it_proves_something(
    faults: &Faults,
    summary: &Summary,
    asked: usize,
    events: usize,
    changes: usize,
) {
    let asked = u64::try_from(asked).unwrap();
    assert!(summary.answered * 2 > asked, "too little was answered: {summary:?} of {asked}");
    assert!(summary.ordered > summary.unordered, "too much was left unordered: {summary:?}");
    assert!(events > 3 * changes, "too little was heard: {events} events of {changes} changes");
    assert!(faults.count() >= HARMS, "{faults:?}");
}

impl Faults {
    fn count(&self) -> u64 {
        let Faults { kills, stops, cuts, gateway_kills, gateway_stops } = self;
        (kills + stops + cuts + gateway_kills + gateway_stops).into()
    }
}

/// Does one harm, waits, takes it back, and lets all work for a while.
fn harm(
    cluster: &mut Cluster,
    gateways: &mut [Gateway; 2],
    scene: &Scene,
    dice: &mut Dice,
    faults: &mut Faults,
) {
    let victim =
        if dice.once_in(2) { cluster.leader_now().unwrap_or(1) } else { dice.below(3) + 1 };
    let gateway = &mut gateways[dice.index(2)];
    let while_ms = Duration::from_millis(50 + dice.below(1500));
    match dice.below(6) {
        0 => {
            cluster.server(victim).kill();
            let nth = usize::try_from(victim - 1).unwrap();
            // Nobody is connected to it now: whoever asks from here on meets the next start.
            scene.boots[nth].fetch_add(1, Ordering::SeqCst);
            breathe(while_ms);
            cluster.server(victim).start();
            faults.kills += 1;
        }
        1 => {
            cluster.server(victim).pause();
            breathe(while_ms);
            cluster.server(victim).resume();
            faults.stops += 1;
        }
        2 => {
            let others = cluster.others(victim);
            let count = 1 + dice.index(2);
            let links = cluster.links.as_ref().unwrap();
            links.cut(victim, &others[..count]);
            breathe(while_ms);
            links.heal();
            faults.cuts += 1;
        }
        3 | 4 => {
            gateway.kill();
            breathe(while_ms / 4);
            gateway.start_again();
            faults.gateway_kills += 1;
        }
        _ => {
            gateway.signal("STOP");
            breathe(while_ms);
            gateway.signal("CONT");
            faults.gateway_stops += 1;
        }
    }
    breathe(Duration::from_millis(dice.below(1000)));
}

/// All clients and listeners. What was asked is told as soon as nobody asks any more.
async fn run(
    scene: Arc<Scene>,
    last: Last,
    keys: u64,
    seed: u64,
    tell_ops: Sender<Vec<Op>>,
) -> Watched {
    let listeners: Vec<_> = (0..LISTENERS)
        .map(|nth| {
            let dice = Dice(seed ^ (nth << 40));
            tokio::spawn(listen(dice, keys, Arc::clone(&scene), Arc::clone(&last)))
        })
        .collect();
    let witnesses: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move { Witness::new(&scene, client, keys, seed).testify().await })
        })
        .collect();
    let mut ops = Vec::new();
    for witness in witnesses {
        ops.extend(witness.await.expect("a witness ends"));
    }
    // The test may have failed.
    let _told = tell_ops.send(ops);
    let mut watched = Watched::default();
    for listener in listeners {
        let Watched { heard, compacted } = listener.await.expect("a listener ends");
        watched.heard.extend(heard);
        watched.compacted.extend(compacted);
    }
    watched
}

fn wish(dice: &mut Dice, keys: u64) -> Wish {
    let key = |dice: &mut Dice| format!("k{:05}", dice.below(keys)).into_bytes();
    let (key, end) = match dice.below(3) {
        0 => (key(dice), Vec::new()),
        1 => (b"k".to_vec(), key(dice)),
        _ => (vec![0], vec![0]),
    };
    let prev_kv = dice.once_in(2);
    Wish { key, end, prev_kv, no_put: dice.once_in(8), no_delete: dice.once_in(8) }
}

/// Listens until everything is heard; at times stops, and goes on by another gateway.
async fn listen(mut dice: Dice, keys: u64, scene: Arc<Scene>, last: Last) -> Watched {
    let start = [0, 2, 2 + dice.below(400)][dice.index(3)];
    let mut ear = Ear::new(wish(&mut dice, keys), start);
    let mut watched = Watched::default();
    let clients = scene.clients();
    let mut give_up = None;
    'lines: while !scene.is_over.load(Ordering::Relaxed) {
        let clients = &clients[dice.index(clients.len())];
        let opened = timeout(scene.patience, Line::open(clients, [ear.request(1)])).await;
        let Ok(Ok(mut line)) = opened else { continue };
        while dice.below(60) > 0 {
            let done = last.load(Ordering::SeqCst);
            if done > 0 && ear.listener.heard.up_to >= done {
                break 'lines;
            }
            let limit = (done > 0).then(|| *give_up.get_or_insert(Deadline::after(PATIENCE)));
            let overdue = limit.is_some_and(Deadline::has_passed);
            assert!(!overdue, "heard up to {}, not {done}", ear.listener.heard.up_to);
            // Whoever hears nothing for a while asks, and after some questions goes elsewhere.
            let Ok(next) = timeout(Duration::from_millis(200), line.next()).await else {
                line.ask_progress();
                continue;
            };
            // A gateway that dies ends it somehow.
            let Ok(Some(response)) = next else { continue 'lines };
            if response.watch_id == -1 && !ear.is_open {
                continue;
            }
            if let Some(late) = ear.hear(&response) {
                watched.heard.push(ear.listener.skip_to(late.compact_revision));
                watched.compacted.push((late.needed, late.compact_revision));
                continue 'lines;
            }
        }
    }
    watched.heard.push(ear.listener.heard);
    watched
}
