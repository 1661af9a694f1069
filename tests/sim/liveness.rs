//! After the safety phase: a quorum is healed and everything else stays broken for ever. Random
//! faults always heal, and so hide what only a lasting one shows (a livelock, an endless election).
//! Then all is healed, and everybody must agree.

use crate::coverage::Point;
use crate::faults::Fault;
use crate::history::{Command, OpKind};
use crate::invariants::bounds::owes_snapshot;
use crate::invariants::quorums::is_quorum;
use crate::invariants::{Seen, must};
use crate::machine::Ending;
use crate::options::{Class, MS, SECOND};
use crate::queue::Event;
use crate::trace::{Who, say};
use crate::world::{World, id_of, machine_of};
use raftd::raft::{Configuration, Wish};
use raftd::replica::Node;
use raftd::types::{NodeId, Term};

/// Within so many election timeouts a healed quorum must serve.
const SERVES_WITHIN: u64 = 50;
/// And so long beside, for dials under way to fail and connections to come back.
const CONNECTS_WITHIN_NS: u64 = 2 * SECOND;
/// Everybody agrees within, after everything is healed.
const AGREES_WITHIN_NS: u64 = 60 * SECOND;
/// For so many election timeouts after that no term rises.
const QUIET_FOR: u64 = 20;

/// How fast a healed quorum was.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Liveness {
    /// Until a fresh write was answered, in tenths of an election timeout.
    pub(crate) served_after: u64,
}

impl World {
    pub(crate) fn check_liveness(&mut self) -> Liveness {
        self.faults.calm = true;
        self.stop_asking();
        self.mend_all();
        self.await_states();
        let core = self.choose_core();
        let leader = self.proof.leader();
        self.break_the_rest(&core);
        let full = |leader: usize| self.machines[leader].disk.is_full();
        let full_leader = leader.is_some_and(|leader| !core.contains(&leader) && full(leader));
        self.heal(&core);
        let served_after = self.await_service(&core);
        self.coverage.hit(Point::CoreServed);
        self.coverage.hit_if(full_leader, Point::FullLeaderLeft);
        self.stop_asking();
        self.heal_everybody();
        self.await_expiries(AGREES_WITHIN_NS);
        self.await_agreement();
        self.await_answers();
        self.await_peers();
        self.await_readers();
        self.await_watches();
        self.await_rest();
        if self.options.history_age_ns.is_some() {
            // They are compared as they are now, and one may just have given up what became old.
            self.await_agreement();
        }
        Liveness { served_after }
    }

    /// A quorum of whatever configuration may be in force, and perhaps some more.
    fn choose_core(&mut self) -> Vec<usize> {
        let possible: Vec<Configuration> =
            self.proof.possible_configurations().into_iter().cloned().collect();
        // A learner that was heard just now may become a voter after it fell silent, if it wants to
        // or if somebody asks for it.
        let rising = self.rising();
        let wishes = |it: &Configuration, id| {
            let asked = rising.contains(&id);
            let mut learners = it.learners().iter().filter(|learner| learner.id == id);
            learners.any(|learner| asked || learner.wish != Wish::Stay)
        };
        let may_vote = |machine| possible.iter().any(|it| wishes(it, id_of(machine)));
        let up = |machine: usize| {
            let it = &self.machines[machine];
            !it.damaged && it.dead.is_none()
        };
        let decides = |core: &[usize]| {
            let reached = |it: &Configuration| is_quorum(it, |id| core.contains(&machine_of(id)));
            let missed = |nth: usize| up(nth) && may_vote(nth) && !core.contains(&nth);
            possible.iter().all(reached) && !(0..self.machines.len()).any(missed)
        };
        // A member that was heard just now may be removed with the others' consent, and fall silent
        // whoever that leaves.
        let leaving = self.leaving();
        let decides_without = |core: &[usize], gone: NodeId| {
            possible.iter().filter(|it| it.is_voter(gone)).all(|it| {
                let stay: Vec<_> = it.voters().into_iter().filter(|id| *id != gone).collect();
                let sound = stay.iter().filter(|id| core.contains(&machine_of(**id))).count();
                2 * sound > stay.len()
            })
        };
        let may_decide = |machine: usize| {
            may_vote(machine) || possible.iter().any(|it| it.is_voter(id_of(machine)))
        };
        let mut core: Vec<usize> =
            (0..self.machines.len()).filter(|nth| up(*nth) && may_decide(*nth)).collect();
        assert!(decides(&core), "a quorum stays sound");
        // A change that leaves no sound quorum is refused.
        let threats: Vec<NodeId> =
            leaving.into_iter().filter(|gone| decides_without(&core, *gone)).collect();
        for _ in 0..self.faults.chance.index(core.len()) {
            let left_out = self.faults.chance.index(core.len());
            let rest: Vec<usize> =
                core.iter().copied().filter(|it| *it != core[left_out]).collect();
            if decides(&rest) && threats.iter().all(|gone| decides_without(&rest, *gone)) {
                core = rest;
            }
        }
        core
    }

    fn break_the_rest(&mut self, core: &[usize]) {
        for machine in 0..self.machines.len() {
            if core.contains(&machine) {
                continue;
            }
            let fate = self.faults.chance.below(7);
            let class = match fate {
                0 => Class::Crashes,
                1 => Class::Pauses,
                2..=4 => Class::Partitions,
                5 => Class::FullDisks,
                _ => Class::SlowNodes,
            };
            if self.options.forbids(class) {
                continue;
            }
            say!(self, Who::Node(machine), "for ever", "fate {fate}");
            let toward = core.iter().map(|other| (*other, machine)).collect();
            let away = core.iter().map(|other| (machine, *other)).collect();
            match fate {
                0 => {
                    if self.machines[machine].node.is_some() {
                        self.end_process(machine, Ending::Killed);
                    }
                    self.machines[machine].dead.get_or_insert("for ever");
                }
                1 => self.machines[machine].paused_until = u64::MAX,
                2 => {
                    self.begin(Fault::Cuts(toward));
                }
                3 => {
                    self.begin(Fault::Cuts(away));
                }
                4 => {
                    let period_ns = self.options.election_timeout_ns * 2 / 3;
                    self.begin(Fault::Flapping { cuts: toward, cut: true, period_ns });
                }
                5 => {
                    self.machines[machine].disk.set_full(true);
                }
                _ => self.machines[machine].slowness = 100,
            }
        }
    }

    fn heal(&mut self, machines: &[usize]) {
        let weather = &mut self.network.weather;
        (weather.reset, weather.resend) = (0, 0);
        self.network.gentle = true;
        for machine in machines.iter().copied() {
            let it = &mut self.machines[machine];
            it.slowness = 1;
            it.disk_slowness = 1;
            it.disk.set_full(false);
            it.ends_after = None;
            if !it.disk.is_blown() && it.node.is_some() {
                it.disk.forgive_future();
            }
            it.paused_until = self.now;
            if it.job.is_some() {
                // A sync that hung goes on.
                let boot = it.boot;
                self.queue.at(self.now, Event::Operation { machine, boot });
            }
            let it = &self.machines[machine];
            if it.background.is_some() {
                // And what hung beside it: a leader that waits for a file of the log for long hands
                // over, and that is no peace (seed 29411).
                let boot = it.boot;
                self.queue.at(self.now, Event::Background { machine, boot });
            }
            self.on_resume(machine);
            if self.machines[machine].node.is_none() {
                self.queue.at(self.now, Event::Boot { machine });
            }
        }
    }

    /// A fresh write, asked of the core until it is answered.
    pub(crate) fn await_service(&mut self, core: &[usize]) -> u64 {
        let election = self.options.election_timeout_ns;
        let (begun, answered) = (self.now, self.crowd.committed);
        let limit = begun + SERVES_WITHIN * election + CONNECTS_WITHIN_NS + self.transfers_ns();
        self.options.clients.timeout_ns = 2 * election;
        self.crowd.reach = core.to_vec();
        self.crowd.patience = u32::MAX;
        self.crowd.clients[0].prefer(core[0]);
        let key = b"alive".to_vec();
        // A store that is full takes no more keys.
        let change = match self.options.quota_bytes {
            Some(_) => Command::Delete { key, end: Vec::new() },
            None => Command::Put { key, value: Vec::new() },
        };
        self.want(0, OpKind::Change(change), limit + SECOND);
        while self.crowd.committed == answered {
            must!(
                self.now < limit,
                "Liveness",
                "a healed quorum {core:?} did not serve within {SERVES_WITHIN} election timeouts"
            );
            self.run_until(self.now + (election / 10).max(MS));
        }
        (self.now - begun) * 10 / election
    }

    /// Time to send the largest snapshot twice, piece by piece, each of them read there and synced
    /// here: the quorum may need who is far behind, and the log behind the first one may be gone
    /// by then. Seed 30319: 150 pieces of 40 ms.
    fn transfers_ns(&self) -> u64 {
        let bytes = self.machines.iter().map(|it| it.disk.snapshot_bytes()).max().unwrap_or(0);
        let piece_bytes = self.options.snapshots.piece_bytes;
        let pieces = bytes / u64::try_from(piece_bytes).expect("64 bits are enough");
        2 * pieces * (10 * self.options.disk.sync_ns + 2 * MS)
    }

    pub(crate) fn heal_everybody(&mut self) {
        self.mend_all();
        for machine in 0..self.machines.len() {
            let it = &mut self.machines[machine];
            if it.dead == Some("for ever") {
                it.dead = None;
            }
        }
        let all: Vec<usize> = (0..self.machines.len()).collect();
        self.heal(&all);
        // Of the core somebody may leave yet. (Seed 19042: a core of one was removed.)
        self.crowd.reach = all;
    }

    fn await_agreement(&mut self) {
        let limit = self.now + AGREES_WITHIN_NS;
        loop {
            let in_time = self.now < limit;
            must!(in_time, "Convergence", "healed nodes do not agree: {:?}", self.standing());
            if !self.agree() {
                self.run_until(self.now + 20 * MS);
                continue;
            }
            let (members, terms) = self.members_and_terms();
            let handover_is_asked = self.handover_is_asked();
            self.run_until(self.now + QUIET_FOR * self.options.election_timeout_ns);
            let (members_later, later) = self.members_and_terms();
            // A change or a handover that was asked for before may come late, and begins another
            // peace. (Seed 16421: TCP took 180 ms to carry it.)
            if members == members_later && (terms == later || !handover_is_asked) {
                must!(terms == later, "Convergence", "terms rise in peace: {terms:?} {later:?}");
                // So may a compaction, once the history is old enough.
                if self.agree() {
                    return;
                }
            }
        }
    }

    /// Nobody waits in vain, whatever became of what was asked: what a node holds back for a while
    /// and then forgets would be missed by nobody else, for clients give up and ask elsewhere.
    fn await_answers(&mut self) {
        let limit = self.now + AGREES_WITHIN_NS;
        while let Some((client, node, request)) = self.unanswered() {
            must!(self.now < limit, "Answered", "n{} owes c{client} #{request}", node + 1);
            self.run_until(self.now + 20 * MS);
        }
    }

    /// Every member dials all others and nobody else, whichever way it heard of them: who was
    /// removed is told for a while, then forgotten.
    fn await_peers(&mut self) {
        let limit = self.now + AGREES_WITHIN_NS;
        while let Some((machine, dials)) = self.dials_strangers() {
            let name = machine + 1;
            must!(self.now < limit, "Peers", "n{name} dials {dials:?} in peace");
            self.run_until(self.now + 20 * MS);
        }
    }

    /// A member that dials others than the members, and whom it dials; if there is any.
    fn dials_strangers(&self) -> Option<(usize, Vec<NodeId>)> {
        let members = self.proof.settled_configuration()?.members();
        members.iter().map(|id| machine_of(*id)).find_map(|machine| {
            let it = &self.machines[machine];
            let node = it.node.as_ref().filter(|_| it.dead.is_none())?;
            let dials: Vec<NodeId> = node.dials().collect();
            let others = members.iter().filter(|id| machine_of(**id) != machine);
            (!dials.iter().eq(others)).then_some((machine, dials))
        })
    }

    /// Every member answers readers. What one of them lost of an earlier term's reads would stand
    /// in the way of all later ones, and a write does not notice.
    fn await_readers(&mut self) {
        let election = self.options.election_timeout_ns;
        // Not who may have become one: of that change only the new member may have heard.
        let members = self.proof.settled_configuration().expect("they agree on one").members();
        let up = |node: &usize| self.machines[*node].dead.is_none();
        let nodes: Vec<usize> = members.into_iter().map(machine_of).filter(up).collect();
        for node in nodes {
            // Of two in a row one is not by a lease.
            for _ in 0..2 {
                let (limit, answered) = (self.now + SERVES_WITHIN * election, self.crowd.committed);
                self.want_of(0, node, limit + SECOND);
                while self.crowd.committed == answered {
                    must!(self.now < limit, "Liveness", "n{} answers no reader", node + 1);
                    self.run_until(self.now + (election / 10).max(MS));
                }
            }
        }
    }

    /// Every watch hears of everything, wherever it is.
    fn await_watches(&mut self) {
        let limit = self.now + AGREES_WITHIN_NS;
        let nodes = self.machines.iter().filter_map(|it| it.node.as_ref());
        let newest = nodes.map(|node| node.inspect().store.revision().0).max().unwrap_or(0);
        while let Some(deaf) = self.deaf_watch(newest) {
            must!(self.now < limit, "Liveness", "{deaf}");
            self.run_until(self.now + 20 * MS);
        }
    }

    /// What goes on beside the log comes to an end too: a file that hangs holds up those behind it.
    fn await_rest(&mut self) {
        let limit = self.now + AGREES_WITHIN_NS;
        while self.machines.iter().any(|it| it.dead.is_none() && it.background.is_some()) {
            must!(self.now < limit, "Convergence", "background work goes on in peace");
            self.run_until(self.now + 20 * MS);
        }
        while let Some(long) = self.has_long_log() {
            must!(self.now < limit, "ResourceBounds", "n{} owes a snapshot in peace", long + 1);
            self.run_until(self.now + 20 * MS);
        }
    }

    /// A member whose log has grown for long enough to give way to a snapshot. One that is alone
    /// hears no heartbeat: it takes no turn before somebody asks something, and makes it then.
    fn has_long_log(&self) -> Option<usize> {
        let settled = self.proof.settled_configuration()?;
        if settled.members().len() == 1 {
            return None;
        }
        self.machines.iter().enumerate().position(|(nth, it)| {
            let sound = it.dead.is_none() && !it.damaged && settled.is_member(id_of(nth));
            let node = it.node.as_ref().filter(|_| sound && !it.disk.snapshot_is_rotten());
            node.is_some_and(|node| owes_snapshot(&self.options, &node.inspect()))
        })
    }

    fn standing(&self) -> Vec<String> {
        let of = |seen: &Seen| {
            format!("term={} applied={} last={}", seen.term, seen.applied, seen.chain.last())
        };
        self.proof.seen.iter().map(of).collect()
    }

    /// The members by the newest configuration of all logs, and their terms.
    fn members_and_terms(&self) -> (Vec<NodeId>, Vec<Term>) {
        let newest = self.proof.possible_configurations().pop();
        let members = newest.expect("they agree on one").members();
        let terms = members.iter().map(|id| self.proof.seen[machine_of(*id)].term).collect();
        (members, terms)
    }

    /// Whether all members that are not dead stand at the same place, under one leader.
    fn agree(&self) -> bool {
        let Some(leader) = self.proof.leader() else { return false };
        let Some(configuration) = self.proof.settled_configuration() else { return false };
        let standard = &self.proof.seen[leader];
        // Who has not noticed yet that its disk has space again may still hand over.
        let has_space = |node: &Node| node.inspect().wal.shortage().is_none();
        self.machines.iter().zip(&self.proof.seen).enumerate().all(|(nth, (machine, seen))| {
            machine.dead.is_some()
                || !configuration.is_member(id_of(nth))
                || (machine.node.as_deref().is_some_and(has_space)
                    && seen.term == standard.term
                    && seen.applied == standard.chain.last()
                    && seen.commit == seen.applied
                    && seen.chain.last() == seen.applied
                    && seen.hash == standard.hash)
        })
    }
}
