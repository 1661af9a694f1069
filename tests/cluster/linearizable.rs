//! Sixteen clients ask any node while nodes are killed and stopped and links are cut; then the log
//! and every answer are given to the checker of histories, the same that judges the simulator.
//!
//! | variable | meaning |
//! |---|---|
//! | `LINEARIZABLE_SECONDS` | for how long at least; 8 if it is not set |
//! | `LINEARIZABLE_SEED` | repeats the choices of an earlier run, not its timing |

use super::finals::ended;
use super::harness::{Cluster, NO_SNAPSHOTS, Shape};
use super::patience::{StopAtEnd, breathe, go_on};
use super::turns::Company;
use super::variable;
use super::witnesses::{Scene, Witness};
use crate::dice::Dice;
use crate::history::checker::product::owned;
use crate::history::checker::{self, FinalState, History, Op};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

const CLIENTS: u32 = 16;

/// So many changes and linearizable reads are to be answered, or little is proven.
const ANSWERS: u64 = 3_000;

/// How often something was done to the cluster.
#[derive(Default, Debug)]
pub(super) struct Faults {
    kills: u32,
    stops: u32,
    cuts: u32,
}

#[test]
fn what_clients_are_told_under_kills_stops_and_cuts_is_linearizable() {
    let seconds = variable("LINEARIZABLE_SECONDS").unwrap_or(8);
    let seed = variable("LINEARIZABLE_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("linearizable: LINEARIZABLE_SEED={seed} repeats the choices");
    // The log must keep all of it for the judge.
    let flags = [&NO_SNAPSHOTS[..], &["--lease-reads", "500ppm"]].concat();
    let flags = flags.into_iter().map(str::to_owned).collect();
    let shape = Shape { flags, cuttable: true, company: Company::Others };
    let mut cluster = Cluster::start_shaped(3, &shape);
    cluster.leader();
    let nodes = cluster.servers.iter().map(|it| (it.listen().to_owned(), AtomicU32::new(1)));
    let scene = Scene::of(nodes.collect(), 60 + 5 * seconds);
    let mut faults = Faults::default();
    let ops = thread::scope(|scope| {
        let scene = &scene;
        let witnesses: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || Witness::new(scene, client, seed).testify()))
            .collect();
        {
            let _stop = StopAtEnd(&scene.stop);
            let mut dice = Dice(seed);
            go_on(seconds, "questions are answered", || {
                harm(&mut cluster, &mut dice, scene, &mut faults);
                (scene.answered.load(Ordering::Relaxed), ANSWERS)
            });
        }
        let ended = witnesses.into_iter().map(|it| it.join().expect("a witness ends"));
        ended.flatten().collect::<Vec<Op>>()
    });
    let history = History { ops, finals: finals(&mut cluster), ..History::default() };
    let (asked, committed) = (history.ops.len(), history.finals.commands.len());
    let summary = checker::check(&history).unwrap_or_else(|violation| panic!("{violation:#?}"));
    println!("linearizable: {seconds} s, {faults:?}, {asked} asked, {committed} in the log");
    println!("linearizable: {summary:?}");
    assert!(summary.answered >= ANSWERS, "too little was answered to prove anything");
    assert!(summary.ordered > summary.unordered, "too much was left unordered");
    assert!(faults.kills + faults.stops + faults.cuts > 2, "{faults:?}");
}

/// Does one harm, waits, takes it back, and lets the cluster work for a while.
pub(super) fn harm(cluster: &mut Cluster, dice: &mut Dice, scene: &Scene, faults: &mut Faults) {
    let victim = match dice.below(2) {
        0 => cluster.leader_now().unwrap_or(1),
        _ => dice.below(3) + 1,
    };
    let while_ms = Duration::from_millis(50 + dice.below(1500));
    match dice.below(3) {
        0 => {
            cluster.server(victim).kill();
            let nth = usize::try_from(victim - 1).unwrap();
            // Nobody is connected to it now, so whoever connects from here on meets the next start.
            scene.nodes[nth].1.fetch_add(1, Ordering::SeqCst);
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
        _ => {
            let others = cluster.others(victim);
            let count = usize::try_from(dice.below(2)).unwrap() + 1;
            let links = cluster.links.as_ref().unwrap();
            links.cut(victim, &others[..count]);
            breathe(while_ms);
            links.heal();
            faults.cuts += 1;
        }
    }
    breathe(Duration::from_millis(dice.below(1500)));
}

/// What the cluster holds in the end: what each node says, and what stands in the log.
pub(super) fn finals(cluster: &mut Cluster) -> FinalState {
    let mut commands = Vec::new();
    let nodes = ended(cluster, |call, command, term| {
        assert!(call.is_none(), "nobody opened a session");
        commands.push(owned(command, term).expect("nobody opened a session"));
    });
    FinalState { commands, nodes }
}
