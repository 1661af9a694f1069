//! What breaks, when, and when it is mended: the weather of a run.
//!
//! The cluster must stay worth watching: when too few ops are answered nothing new breaks, and
//! when fewer still everything is mended. So a cluster that cannot recover fails the run by having
//! committed too little, and one that can is tortured as much as it bears.

mod partitions;
mod states;

use crate::chance::{Chance, usize_of};
use crate::coverage::Point;
use crate::disk::Damage;
use crate::machine::{Ending, Input};
use crate::options::{Class, MS, SECOND};
use crate::queue::Event;
use crate::trace::{Who, say};
use crate::world::World;

/// Answered ops, in a hundred, below which nothing breaks, and below which all is mended.
const ENOUGH_PERCENT: u64 = 66;
const TOO_LITTLE_PERCENT: u64 = 59;

/// A fault that lasts.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Cuts(Vec<(usize, usize)>),
    Flapping { cuts: Vec<(usize, usize)>, cut: bool, period_ns: u64 },
    Slow { machine: usize },
    SlowDisk { machine: usize },
    FullDisk { machine: usize },
}

/// What is broken now.
#[derive(Debug)]
pub(crate) struct Faults {
    pub(super) chance: Chance,
    active: Vec<Option<Fault>>,
    /// Nothing breaks by chance any more.
    pub(crate) calm: bool,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Faults {
        Faults { chance: Chance::of(seed, "breaking"), active: Vec::new(), calm: false }
    }
}

impl World {
    pub(crate) fn start_faults(&mut self) {
        let at = self.faults.chance.exponential(self.options.fault_every_ns);
        self.queue.at(at, Event::Break);
    }

    /// Whether the cluster can bear more.
    pub(crate) fn is_hostile(&self) -> bool {
        !self.faults.calm && self.crowd.is_served(ENOUGH_PERCENT)
    }

    pub(crate) fn on_break(&mut self) {
        if self.faults.calm {
            return;
        }
        if let Some(wanted) = self.options.power_losses {
            return self.break_power(wanted);
        }
        let wait = self.faults.chance.exponential(self.options.fault_every_ns);
        self.queue.at(self.now + wait.max(MS), Event::Break);
        if !self.crowd.is_served(TOO_LITTLE_PERCENT) {
            return self.mend_all();
        }
        if !self.is_hostile() || self.options.classes.is_empty() {
            return;
        }
        let mut class = self.faults.chance.pick(&self.options.classes);
        if self.options.has(Class::Damage) && self.faults.chance.one_in(6) {
            class = Class::Damage;
        }
        // Few of them are made as asked, and only what is under way can be disturbed.
        if self.options.has(Class::Members) && self.faults.chance.one_in(2) {
            self.ask_for_change();
            if self.faults.chance.one_in(3) {
                return self.partition();
            }
        }
        match class {
            Class::Partitions => self.partition(),
            Class::Crashes => self.crash(),
            Class::Pauses => self.pause(),
            Class::SlowNodes => self.slow_down(),
            Class::SlowDisks => self.slow_disk(),
            Class::DiskErrors => self.fail_sync(),
            Class::FullDisks => self.fill_disk(),
            Class::Damage => self.damage(),
            Class::Frames | Class::Streams => self.clog(),
            Class::Transfers => self.ask_for_transfer(),
            Class::Members => self.ask_for_change(),
            Class::Saves => self.ask_for_save(),
            Class::States => self.spoil(),
            Class::Rights => {
                let client = self.faults.chance.index(self.crowd.clients.len());
                self.change_rights(client);
            }
            Class::Clocks | Class::Garbage | Class::SmallWindows => {}
        }
    }

    /// Nothing but power losses, of one machine or of all, until there were enough.
    fn break_power(&mut self, wanted: u64) {
        if self.losses >= wanted {
            return;
        }
        let wait = self.faults.chance.scaled(3 * MS, 120 * MS);
        self.queue.at(self.now + wait, Event::Break);
        let machines = self.machines.len();
        if self.faults.chance.one_in(4) {
            self.lose_all_power();
        } else {
            let machine = self.faults.chance.index(machines);
            self.end_somehow(machine, Ending::PowerLost);
        }
    }

    fn crash(&mut self) {
        let machine = self.victim();
        let power = self.faults.chance.one_in(2);
        let ending = if power { Ending::PowerLost } else { Ending::Killed };
        match self.faults.chance.below(10) {
            0 => self.lose_all_power(),
            // A loop: it goes down again in each of its next starts.
            1 => {
                let changes = self.faults.chance.scaled(1, 40);
                self.machines[machine].fuse_at_start = Some(changes);
                self.end_somehow(machine, Ending::PowerLost);
            }
            2 => self.leave(machine),
            _ => self.end_somehow(machine, ending),
        }
    }

    /// Tells a process to stop: it hands over what it leads, and ends when its clients have gone or
    /// its time is up.
    pub(super) fn leave(&mut self, machine: usize) {
        if self.machines[machine].node.is_none() {
            return;
        }
        self.coverage.hit_if(self.proof.leader() == Some(machine), Point::Left);
        say!(self, Who::Node(machine), "told to stop", "");
        self.machines[machine].inbox.push_back(Input::Leave);
        self.wake(machine, self.now);
    }

    /// Ends a process now, within its next turn, or within what its disk does next.
    fn end_somehow(&mut self, machine: usize, ending: Ending) {
        if self.machines[machine].node.is_none() {
            return;
        }
        let chance = &mut self.faults.chance;
        match chance.below(4) {
            0 => {
                self.machines[machine].ends_after =
                    Some((u32::try_from(chance.below(7)).expect("small"), ending))
            }
            1 => self.disks[machine].light_fuse(chance.below(7)),
            _ => self.end_process(machine, ending),
        }
    }

    fn lose_all_power(&mut self) {
        self.coverage.hit(Point::AllPowerLost);
        for machine in 0..self.machines.len() {
            if self.machines[machine].node.is_some() {
                self.end_process(machine, Ending::PowerLost);
            }
        }
    }

    /// The leader as often as not.
    fn victim(&mut self) -> usize {
        let any = self.faults.chance.index(self.machines.len());
        let leader = self.proof.leader().filter(|_| self.faults.chance.one_in(2));
        leader.unwrap_or(any)
    }

    fn pause(&mut self) {
        let machine = self.victim();
        let most = if self.faults.chance.one_in(10) { 60 * SECOND } else { 3 * SECOND };
        let lasts = self.faults.chance.scaled(MS, most);
        let long = lasts > 2 * self.options.election_timeout_ns;
        let leads = self.proof.leader() == Some(machine);
        self.coverage.hit_if(long, Point::Paused);
        self.coverage.hit_if(long && leads, Point::PausedLeader);
        say!(self, Who::Node(machine), "pause", "{}ms", lasts / MS);
        let until = self.now + lasts;
        self.machines[machine].paused_until = self.machines[machine].paused_until.max(until);
        self.queue.at(until, Event::Resume { machine });
    }

    pub(crate) fn on_resume(&mut self, machine: usize) {
        let it = &mut self.machines[machine];
        if it.is_paused(self.now) {
            return;
        }
        let boot = it.boot;
        if std::mem::take(&mut it.operation_waits) {
            self.queue.at(self.now, Event::Operation { machine, boot });
        }
        if std::mem::take(&mut it.background_waits) {
            self.queue.at(self.now, Event::Background { machine, boot });
        }
        self.wake(machine, self.now);
    }

    fn slow_down(&mut self) {
        let machine = self.victim();
        self.coverage.hit(Point::SlowNode);
        self.machines[machine].slowness = self.faults.chance.scaled(10, 1000);
        self.lasts(Fault::Slow { machine }, 3 * SECOND);
    }

    fn slow_disk(&mut self) {
        let machine = self.victim();
        self.machines[machine].disk_slowness = self.faults.chance.scaled(5, 500);
        self.lasts(Fault::SlowDisk { machine }, 3 * SECOND);
    }

    fn fail_sync(&mut self) {
        let machine = self.victim();
        if self.machines[machine].node.is_some() {
            say!(self, Who::Node(machine), "EIO", "the next sync fails");
            self.machines[machine].disk.fail_next_sync();
        }
    }

    fn fill_disk(&mut self) {
        let machine = self.victim();
        say!(self, Who::Node(machine), "disk full", "");
        self.machines[machine].disk.set_full(true);
        self.lasts(Fault::FullDisk { machine }, 6 * SECOND);
    }

    /// The fault atlas: a minority of the machines may be damaged, each once.
    fn damage(&mut self) {
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
            Damage::HardStateCopy,
            Damage::HardStateCopy,
            Damage::SnapshotBit,
            Damage::SnapshotSector,
            Damage::PartBit,
        ]);
        let it = &mut self.machines[machine];
        if it.copy_damaged || it.dead.is_some() {
            return;
        }
        if kind == Damage::HardStateCopy {
            it.copy_damaged = it.disk.damage(kind).is_some();
            say!(self, Who::Node(machine), "damage", "{kind:?}");
            return;
        }
        if !self.may_damage(machine) {
            return;
        }
        let it = &mut self.machines[machine];
        it.damaged = it.disk.damage(kind).is_some();
        let found = it.damaged;
        say!(self, Who::Node(machine), "damage", "{kind:?}");
        if found && self.faults.chance.one_in(2) {
            self.end_somehow(machine, Ending::Killed);
        }
    }

    fn may_damage(&self, machine: usize) -> bool {
        let damaged = self.machines.iter().filter(|it| it.damaged || it.dead.is_some()).count();
        let it = &self.machines[machine];
        let sound = !it.damaged && !it.copy_damaged && it.dead.is_none();
        sound && damaged < (self.disks.len() - 1) / 2 && self.now > SECOND
    }

    /// A follower is cut off; what it will ask of the leader then rots.
    fn damage_what_is_wanted(&mut self, machine: usize) {
        let other = (machine + 1) % self.machines.len();
        let fault = self.begin(Fault::Cuts(vec![(machine, other), (other, machine)]));
        self.queue.at(self.now + 500 * MS, Event::Rot { machine });
        self.queue.at(self.now + 600 * MS, Event::Mend { fault });
    }

    pub(crate) fn on_rot(&mut self, machine: usize) {
        if !self.faults.calm && self.may_damage(machine) {
            let done = self.machines[machine].disk.damage(Damage::LogTail);
            self.machines[machine].damaged = done.is_some();
            say!(self, Who::Node(machine), "damage", "{done:?}");
        }
    }

    /// A server begins to send its snapshot.
    pub(crate) fn rot_what_is_sent(&mut self, machine: usize) {
        let rots = std::mem::take(&mut self.machines[machine].sent_rots);
        if rots && !self.faults.calm && self.may_damage(machine) {
            let done = self.machines[machine].disk.damage(Damage::SnapshotBit);
            self.machines[machine].damaged = done.is_some();
            say!(self, Who::Node(machine), "damage", "{done:?}");
        }
    }

    /// Holds a link up for a while.
    fn clog(&mut self) {
        let places = self.machines.len();
        let (from, to) = (self.faults.chance.index(places), self.faults.chance.index(places));
        let until = self.now + self.faults.chance.scaled(MS, 2 * SECOND);
        self.network.links.clog(from, to, until);
        say!(self, Who::World, "clog", "n{} to n{}", from + 1, to + 1);
    }

    /// Notes a fault and when it ends.
    fn lasts(&mut self, fault: Fault, most_ns: u64) {
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
            Fault::Slow { .. } | Fault::SlowDisk { .. } | Fault::FullDisk { .. } => {}
        }
        self.faults.active.push(Some(fault));
        self.faults.active.len() - 1
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
            Fault::Slow { machine } => self.machines[machine].slowness = 1,
            Fault::SlowDisk { machine } => self.machines[machine].disk_slowness = 1,
            Fault::FullDisk { machine } => {
                self.machines[machine].disk.set_full(false);
                let refused = self.machines[machine].spaces_refused > 0;
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
        for fault in 0..self.faults.active.len() {
            self.mend(fault);
        }
        for machine in 0..self.machines.len() {
            self.machines[machine].fuse_at_start = None;
            self.machines[machine].paused_until = self.now;
            self.on_resume(machine);
        }
    }

    /// A random subset of the machines of this size.
    pub(crate) fn some_machines(&mut self, mut from: Vec<usize>, count: usize) -> Vec<usize> {
        let mut chosen = Vec::new();
        while chosen.len() < count && !from.is_empty() {
            let at = usize_of(self.faults.chance.below(crate::chance::u64_of(from.len())));
            chosen.push(from.swap_remove(at));
        }
        chosen.sort_unstable();
        chosen
    }
}
