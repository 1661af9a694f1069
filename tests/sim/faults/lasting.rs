//! Faults that last: what is broken now, and how it is mended.

use super::partitions::Cuts;
use crate::coverage::Point;
use crate::network::Filter;
use crate::options::MS;
use crate::queue::Event;
use crate::trace::{Who, say};
use crate::world::World;

/// A fault that lasts.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Cuts(Cuts),
    Flapping { cuts: Cuts, cut: bool, period_ns: u64 },
    Filtered(Filter),
    Slow { machine: usize },
    SlowDisk { machine: usize },
    FullDisk { machine: usize },
}

impl World {
    /// Notes a fault and when it ends.
    pub(super) fn lasts(&mut self, fault: Fault, most_ns: u64) {
        let lasts = self.faults.chance.scaled(20 * MS, most_ns);
        say!(self, Who::World, "break", "{fault:?} for {}ms", lasts / MS);
        let number = self.begin(fault);
        self.queue.at(self.now + lasts, Event::Mend { fault: number });
    }

    /// Puts a fault into force.
    pub(crate) fn begin(&mut self, fault: Fault) -> usize {
        match &fault {
            Fault::Cuts(cuts) => self.cut(cuts),
            Fault::Flapping { cuts, period_ns, .. } => {
                self.cut(cuts);
                let event = Event::Flap { fault: self.faults.active.len() };
                self.queue.at(self.now + period_ns, event);
            }
            Fault::Filtered(filter) => self.network.filters.push(*filter),
            Fault::Slow { .. } | Fault::SlowDisk { .. } | Fault::FullDisk { .. } => {}
        }
        self.faults.active.push(Some(fault));
        self.faults.active.len() - 1
    }

    /// Lets a fault break out later, and last for a while.
    pub(super) fn prepare(&mut self, fault: Fault, at: u64, lasts_ns: u64) {
        let prepared = self.faults.prepared.len();
        self.faults.prepared.push(Some(fault));
        self.queue.at(at, Event::Begin { prepared, lasts_ns });
    }

    pub(crate) fn on_begin(&mut self, prepared: usize, lasts_ns: u64) {
        let Some(fault) = self.faults.prepared[prepared].take() else { return };
        say!(self, Who::World, "break", "{fault:?} for {}ms", lasts_ns / MS);
        let fault = self.begin(fault);
        self.queue.at(self.now + lasts_ns, Event::Mend { fault });
    }

    fn cut(&mut self, cuts: &[(usize, usize)]) {
        for (from, to) in cuts {
            self.network.links.cut(*from, *to);
        }
    }

    fn join(&mut self, cuts: &[(usize, usize)]) {
        for (from, to) in cuts {
            self.network.links.mend(*from, *to);
        }
        self.unstall();
    }

    pub(crate) fn mend(&mut self, fault: usize) {
        let Some(fault) = self.faults.active[fault].take() else { return };
        say!(self, Who::World, "mend", "{fault:?}");
        match fault {
            Fault::Cuts(cuts) | Fault::Flapping { cuts, cut: true, .. } => self.join(&cuts),
            Fault::Flapping { cut: false, .. } => {}
            Fault::Filtered(filter) => self.network.no_longer(filter),
            Fault::Slow { machine } => self.machines[machine].slowness = 1,
            Fault::SlowDisk { machine } => self.machines[machine].disk_slowness = 1,
            Fault::FullDisk { machine } => {
                self.machines[machine].disk.set_full(false);
                let refused = self.machines[machine].disk.refused_for_space() > 0;
                self.coverage.hit_if(refused, Point::DiskFullEnded);
            }
        }
    }

    pub(crate) fn on_flap(&mut self, fault: usize) {
        let Some(Some(Fault::Flapping { cuts, cut, period_ns })) =
            self.faults.active.get_mut(fault)
        else {
            return;
        };
        let (was_cut, cuts, period) = (*cut, cuts.clone(), *period_ns);
        *cut = !was_cut;
        if was_cut {
            self.join(&cuts);
        } else {
            self.cut(&cuts);
        }
        self.coverage.hit(Point::Flapped);
        self.queue.at(self.now + period, Event::Flap { fault });
    }

    /// Mends everything that lasts, and wakes who sleeps.
    pub(crate) fn mend_all(&mut self) {
        self.faults.prepared.fill(None);
        for fault in 0..self.faults.active.len() {
            self.mend(fault);
        }
        for machine in 0..self.machines.len() {
            self.machines[machine].fuse_at_start = None;
            self.machines[machine].fails_at_start = None;
            self.machines[machine].paused_until = self.now;
            self.on_resume(machine);
        }
    }
}
