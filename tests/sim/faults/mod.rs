//! What breaks, when, and when it is mended: the weather of a run.
//!
//! The cluster must stay worth watching: when too few ops are answered, or too few of the changes
//! among them done, nothing new breaks, and when fewer still everything is mended. Reads alone do
//! not count: a follower goes on to read while each frame with entries that is lost, as TCP loses
//! none, costs a pipeline of one message a second (seed 101: nine of ten reads, a fifth of the
//! changes). So a cluster that cannot recover fails the run by having committed too little, and one
//! that can is tortured as much as it bears.

mod damage;
mod disks;
mod lasting;
mod links;
mod partitions;
mod processes;
mod schedule;
mod states;

use crate::chance::Chance;
use crate::options::{Class, Options};
use crate::world::World;
pub(crate) use lasting::Fault;
pub(crate) use schedule::first_plans;

/// Answered ops, and changes that were done, in a hundred: below which nothing breaks, and below
/// which all is mended.
const ENOUGH_PERCENT: u64 = 66;
const TOO_LITTLE_PERCENT: u64 = 59;

/// What is broken now, and what will be.
#[derive(Debug)]
pub(crate) struct Faults {
    /// Of the fault that breaks out just now; else of what the end of a run leaves broken.
    pub(crate) chance: Chance,
    plans: Vec<schedule::Plan>,
    relief: Chance,
    active: Vec<Option<Fault>>,
    /// What breaks later, for a fault that has several steps.
    prepared: Vec<Option<Fault>>,
    /// Nothing breaks by chance any more.
    pub(crate) calm: bool,
}

impl Faults {
    pub(crate) fn new(options: &Options) -> Faults {
        Faults {
            chance: Chance::of(options.seed, "breaking"),
            plans: schedule::plans(options),
            relief: Chance::of(options.seed, "relief"),
            active: Vec::new(),
            prepared: Vec::new(),
            calm: false,
        }
    }
}

impl World {
    /// Whether the cluster can bear more.
    pub(crate) fn is_hostile(&self) -> bool {
        !self.faults.calm && self.crowd.is_served(ENOUGH_PERCENT)
    }

    fn break_out(&mut self, class: Class) {
        match class {
            Class::Partitions => self.partition(),
            Class::Crashes => self.crash(),
            Class::Pauses => self.pause(),
            Class::SlowNodes => self.slow_down(),
            Class::SlowDisks => self.slow_disk(),
            Class::DiskErrors => self.fail_disk(),
            Class::FullDisks => self.fill_disk(),
            Class::Damage => self.damage(),
            Class::Frames => self.filter(),
            Class::Streams => self.clog(),
            Class::Transfers => self.ask_for_transfer(),
            Class::Members => {
                self.ask_for_change();
                // Few of them are made as asked, and only what is under way can be disturbed.
                if self.faults.chance.one_in(3) && !self.options.forbids(Class::Partitions) {
                    self.partition();
                }
            }
            Class::Saves => self.ask_for_save(),
            Class::States => self.spoil(),
            Class::Rights => {
                let client = self.faults.chance.index(self.crowd.clients.len());
                self.change_rights(client);
            }
            Class::Clocks => self.change_clock(),
            Class::Garbage | Class::SmallWindows => unreachable!("they never break out"),
        }
    }

    /// The leader as often as not.
    fn victim(&mut self) -> usize {
        let any = self.faults.chance.index(self.machines.len());
        let leader = self.proof.leader().filter(|_| self.faults.chance.one_in(2));
        leader.unwrap_or(any)
    }

    /// A random subset of the machines of this size.
    pub(crate) fn some_machines(&mut self, mut from: Vec<usize>, count: usize) -> Vec<usize> {
        let mut chosen = Vec::new();
        while chosen.len() < count && !from.is_empty() {
            let at = self.faults.chance.index(from.len());
            chosen.push(from.swap_remove(at));
        }
        chosen.sort_unstable();
        chosen
    }
}
