//! States that become others than the log says, as by a fault of the memory or of the rules. A
//! minority at once, and each differs in a way that no answer shows: what nobody may see after the
//! server has found out is every answer. Snapshots of such a state do not arrive, or what is wrong
//! would spread and be a majority's in the end.

use crate::coverage::Point;
use crate::machine::Ending;
use crate::options::{MS, SECOND};
use crate::queue::Event;
use crate::trace::{Who, say};
use crate::world::World;

/// Writes after which every server must have found out, at most: twice from one comparison to the
/// next, and what is lost on the way.
const WRITES_MAX: u32 = 64;
/// And so many until a leader whose state is wrong is asked to leave: where one of three waits for
/// a snapshot, which does not arrive, nobody can say which of the other two is right.
const WRITES_ALONE: u32 = 24;
/// How often somebody looks whether a server has found out. Nanoseconds.
const WATCH_NS: u64 = 10 * MS;

impl World {
    pub(crate) fn spoil(&mut self) {
        let machine = self.victim();
        let minority = (self.machines.len() - 1) / 2;
        let may = self.proof.spoiled().count() < minority && self.now > SECOND;
        let it = &mut self.machines[machine];
        let Some(node) = it.node.as_mut().filter(|_| may) else { return };
        let member = node.inspect().raft.is_some();
        if !member || self.proof.is_spoiled(machine) {
            return;
        }
        node.spoil_state();
        self.proof.on_spoiled(machine);
        self.coverage.hit(Point::StateSpoiled);
        say!(self, Who::Node(machine), "spoil", "");
        match self.faults.chance.below(8) {
            0 => self.end_somehow(machine, Ending::Killed),
            1..=3 => self.queue.at(self.now + WATCH_NS, Event::EndSilent { machine }),
            _ => {}
        }
    }

    /// Kills a server between its finding out and its having another state.
    pub(crate) fn on_end_silent(&mut self, machine: usize) {
        if self.faults.calm || !self.proof.is_spoiled(machine) {
            return;
        }
        let runs = self.machines[machine].node.is_some();
        if runs && self.proof.seen[machine].silent {
            return self.end_process(machine, Ending::Killed);
        }
        self.queue.at(self.now + WATCH_NS, Event::EndSilent { machine });
    }

    /// Heals everything, if a state is not what it should be, until it is that again: before a
    /// quorum is chosen of which one might be wrong for ever, and nobody could say which.
    pub(crate) fn await_states(&mut self) {
        let all: Vec<usize> = (0..self.machines.len()).collect();
        for nth in 0..WRITES_MAX {
            if self.proof.spoiled().next().is_none() && !self.is_any_silent() {
                return;
            }
            self.heal_everybody();
            self.await_service(&all);
            self.stop_asking();
            let wrong = self.proof.leader().filter(|leader| self.proof.is_spoiled(*leader));
            if let Some(leader) = wrong.filter(|_| nth >= WRITES_ALONE) {
                self.leave(leader);
            }
            self.run_until(self.now + 4 * self.options.election_timeout_ns);
        }
        let spoiled: Vec<usize> = self.proof.spoiled().map(|machine| machine + 1).collect();
        crate::invariants::broken(
            "StatesAgree",
            format!("servers {spoiled:?} have not found out in {WRITES_MAX} writes"),
        );
    }

    fn is_any_silent(&self) -> bool {
        let nodes = self.machines.iter().filter_map(|it| it.node.as_deref());
        nodes.map(|node| node.inspect()).any(|it| it.diverged || it.disputed)
    }
}
