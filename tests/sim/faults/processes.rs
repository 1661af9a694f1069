//! What happens to processes and their machines: they end, in order or not, stand still, are slow,
//! and their clocks go another rate.

use super::Fault;
use crate::clock::Clock;
use crate::coverage::Point;
use crate::machine::{Ending, Input};
use crate::options::{Class, MS, SECOND};
use crate::queue::Event;
use crate::trace::{Who, say};
use crate::world::World;

impl World {
    /// Instead of what breaks by chance: power losses, of one machine or of all, until there were
    /// enough.
    pub(crate) fn on_lose_power(&mut self) {
        let wanted = self.options.power_losses.unwrap_or(0);
        if self.faults.calm || self.losses >= wanted {
            return;
        }
        let wait = self.faults.chance.scaled(3 * MS, 120 * MS);
        self.queue.at(self.now + wait, Event::LosePower);
        let machines = self.machines.len();
        if self.faults.chance.one_in(4) {
            self.lose_all_power();
        } else {
            let machine = self.faults.chance.index(machines);
            self.end_somehow(machine, Ending::PowerLost);
        }
    }

    pub(super) fn crash(&mut self) {
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
    pub(crate) fn leave(&mut self, machine: usize) {
        if self.machines[machine].node.is_none() {
            return;
        }
        self.coverage.hit_if(self.proof.leader() == Some(machine), Point::Left);
        say!(self, Who::Node(machine), "told to stop", "");
        self.machines[machine].inbox.push_back(Input::Leave);
        self.wake(machine, self.now);
    }

    /// Ends a process now, within its next turn, or within what its disk does next.
    pub(super) fn end_somehow(&mut self, machine: usize, ending: Ending) {
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

    pub(super) fn pause(&mut self) {
        let machine = self.victim();
        if self.machines[machine].node.is_none() {
            return;
        }
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

    pub(super) fn slow_down(&mut self) {
        let machine = self.victim();
        if self.machines[machine].node.is_none() {
            return;
        }
        self.coverage.hit(Point::SlowNode);
        self.machines[machine].slowness = self.faults.chance.scaled(10, 1000);
        self.lasts(Fault::Slow { machine }, 3 * SECOND);
    }

    /// A clock goes faster or slower from now on, by as much as any of them may: the quartz warms
    /// up, or somebody sets the rate.
    pub(super) fn change_clock(&mut self) {
        let machine = self.victim();
        self.coverage.hit_if(!self.options.clocks_keep_bound(), Point::ClocksBreakBound);
        if !self.options.clocks_keep_bound() && self.faults.chance.one_in(2) {
            return self.deceive_leader();
        }
        let (now, ppm) = (self.now, self.options.clock_ppm);
        let clock = self.machines[machine].clock;
        let clock = clock.at_another_rate(now, ppm, &mut self.faults.chance);
        self.set_clock(machine, clock);
    }

    /// What leases do not bear: the leader's clock is the slowest, all others are the fastest, and
    /// nobody hears the leader but clients.
    fn deceive_leader(&mut self) {
        let Some(leader) = self.proof.leader() else { return };
        let (now, ppm) = (self.now, self.options.clock_ppm);
        for machine in 0..self.machines.len() {
            let clock = self.machines[machine].clock;
            let slow = machine == leader;
            self.set_clock(
                machine,
                if slow { clock.slowest(now, ppm) } else { clock.fastest(now, ppm) },
            );
        }
        if !self.options.forbids(Class::Partitions) {
            self.isolate(leader, 4 * self.options.election_timeout_ns);
        }
    }

    fn set_clock(&mut self, machine: usize, clock: Clock) {
        let it = &mut self.machines[machine];
        let Some(node) = &it.node else { return };
        it.clock = clock;
        let due = clock.when(node.wake_at());
        say!(self, Who::Node(machine), "clock", "{clock:?}");
        self.coverage.hit(Point::ClockChanged);
        due.into_iter().for_each(|due| self.wake(machine, due));
    }
}
