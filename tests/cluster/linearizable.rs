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

/// From so many seconds on a run proves something of each kind of harm. In shorter ones the dice
/// may leave one out.
const LONG_SECONDS: u64 = 60;

/// How often something was done to the cluster.
#[derive(Default, Debug)]
pub(super) struct Faults {
    kills: u64,
    stops: u64,
    cuts: u64,
}

impl Faults {
    /// Asserts that a long run was done every kind of harm: with what follows it, one takes some
    /// 1.6 s, so that each kind comes six times in 30 s.
    pub(super) fn are_of_each_kind_after(&self, seconds: u64) {
        if seconds >= LONG_SECONDS {
            let least = self.kills.min(self.stops).min(self.cuts);
            assert!(least >= seconds / 30, "{self:?} in {seconds} s");
        }
    }
}

/// Counts reads that leases answered, as far as the nodes live long enough to say so.
struct LeaseReads {
    /// By node, what it said last.
    last: Vec<u64>,
    seen: u64,
}

impl LeaseReads {
    fn look(&mut self, cluster: &Cluster) {
        for (server, last) in cluster.servers.iter().zip(&mut self.last) {
            let Ok(status) = server.status() else { continue };
            // Less than before: it has started anew.
            self.seen += status.lease_reads.checked_sub(*last).unwrap_or(status.lease_reads);
            *last = status.lease_reads;
        }
    }
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
    let mut leases = LeaseReads { last: vec![0; cluster.servers.len()], seen: 0 };
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
                leases.look(&cluster);
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
    println!("linearizable: {} reads by leases, {summary:?}", leases.seen);
    assert!(summary.answered >= ANSWERS, "too little was answered to prove anything");
    assert!(summary.ordered > summary.unordered, "too much was left unordered");
    // Some thousand questions a second, of which a fifth may be answered by a lease.
    let wanted = if seconds >= LONG_SECONDS { 10 * seconds } else { 1 };
    assert!(leases.seen >= wanted, "{} reads by leases in {seconds} s", leases.seen);
    assert!(faults.kills + faults.stops + faults.cuts > 2, "{faults:?}");
    faults.are_of_each_kind_after(seconds);
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
