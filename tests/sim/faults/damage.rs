//! The fault atlas: what may be damaged where, so that a good copy of everything remains.
//!
//! What damage may do depends on its kind, and is held against what the platters hold then
//! (`SimDisk::log_is_rotten`, `SimDisk::snapshot_is_rotten`):
//!
//! | damage | and then |
//! |---|---|
//! | in the log | the node may refuse to start, or stop at it; a minority, each once |
//! | in the snapshot in force | the node may refuse to start; a minority, each once |
//! | in what is received of one | nothing: it is received again; if it was whole, as above |
//! | in one copy of the hard state | nothing: the other one mends it at the next start |
//! | in one header of a segment | nothing: the other one mends it at the next start |

use super::Fault;
use crate::disk::Damage;
use crate::machine::Ending;
use crate::options::{Class, MS, SECOND};
use crate::queue::Event;
use crate::trace::{Who, say};
use crate::world::World;

impl World {
    pub(super) fn damage(&mut self) {
        let machine = self.victim();
        if self.proof.leader() == Some(machine) && self.may_damage(machine) {
            if self.faults.chance.one_in(2) {
                self.machines[machine].sent_rots = true;
                return;
            }
            return self.damage_what_is_wanted(machine);
        }
        let kind = self.faults.chance.pick(&[
            Damage::LogBit,
            Damage::LogBit,
            Damage::Misdirected,
            Damage::SegmentHeader,
            Damage::SegmentHeader,
            Damage::HardStateCopy,
            Damage::HardStateCopy,
            Damage::SnapshotBit,
            Damage::SnapshotSector,
            Damage::PartBit,
        ]);
        if self.machines[machine].dead.is_some() {
            return;
        }
        if matches!(kind, Damage::HardStateCopy | Damage::SegmentHeader) {
            self.damage_twin(machine, kind);
        } else if self.may_damage(machine) {
            self.damage_for_good(machine, kind);
        } else {
            return;
        }
        if self.faults.chance.one_in(2) {
            self.end_somehow(machine, Ending::Killed);
        }
    }

    /// Of what there are two the other one must do, until the next start mends it. So no start may
    /// leave one of a segment that was torn as it was prepared (seed 42342).
    fn damage_twin(&mut self, machine: usize, kind: Damage) {
        let it = &mut self.machines[machine];
        let damaged = if kind == Damage::HardStateCopy {
            &mut it.copy_damaged
        } else {
            &mut it.header_damaged
        };
        if *damaged {
            return;
        }
        *damaged = it.disk.damage(kind).is_some();
        say!(self, Who::Node(machine), "damage", "{kind:?}");
    }

    fn damage_for_good(&mut self, machine: usize, kind: Damage) {
        let it = &mut self.machines[machine];
        it.damaged = it.disk.damage(kind).is_some();
        say!(self, Who::Node(machine), "damage", "{kind:?}");
    }

    fn may_damage(&self, machine: usize) -> bool {
        let damaged = self.machines.iter().filter(|it| it.damaged || it.dead.is_some()).count();
        let it = &self.machines[machine];
        let sound = !it.damaged && it.dead.is_none();
        sound && damaged < (self.disks.len() - 1) / 2 && self.now > SECOND
    }

    /// A follower is cut off; what it will ask of the leader then rots.
    fn damage_what_is_wanted(&mut self, machine: usize) {
        let other = (machine + 1) % self.machines.len();
        self.queue.at(self.now + 500 * MS, Event::Rot { machine });
        if !self.options.forbids(Class::Partitions) {
            let fault = self.begin(Fault::Cuts(vec![(machine, other), (other, machine)]));
            self.queue.at(self.now + 600 * MS, Event::Mend { fault });
        }
    }

    pub(crate) fn on_rot(&mut self, machine: usize) {
        if !self.faults.calm && self.may_damage(machine) {
            self.damage_for_good(machine, Damage::LogTail);
        }
    }

    /// A server begins to send its snapshot.
    pub(crate) fn rot_what_is_sent(&mut self, machine: usize) {
        let rots = std::mem::take(&mut self.machines[machine].sent_rots);
        if rots && !self.faults.calm && self.may_damage(machine) {
            self.damage_for_good(machine, Damage::SnapshotBit);
        }
    }
}
