//! When something breaks. Every kind of fault has a timer and a stream of chance of its own, and
//! every fault a stream split off from that, whether it comes to anything or not: so a kind that
//! is left out changes neither the times nor the draws of the others. What comes of a draw still
//! depends on how the cluster stands (who leads, whether it bears more).

use crate::chance::Chance;
use crate::options::{CLASSES, Class, MS, Options};
use crate::queue::Event;
use crate::trace::{Who, say};
use crate::world::World;

/// The future of one kind of fault.
#[derive(Debug)]
pub(super) struct Plan {
    class: Class,
    /// Between two of them, on average. Nanoseconds.
    every_ns: u64,
    times: Chance,
    draws: Chance,
}

impl Plan {
    fn of(options: &Options, class: Class, name: &str) -> Plan {
        Plan {
            class,
            every_ns: options.fault_every_ns(class),
            times: Chance::of(options.seed, &format!("when {name}")),
            draws: Chance::of(options.seed, &format!("what {name}")),
        }
    }

    fn wait_ns(&mut self) -> u64 {
        self.times.exponential(self.every_ns).max(MS)
    }
}

/// Of all kinds that break out: others lie in the sizes, the network or the clients.
pub(super) fn plans(options: &Options) -> Vec<Plan> {
    let breaks_out = |class: Class| !matches!(class, Class::Garbage | Class::SmallWindows);
    let drawn = CLASSES.iter().filter(|(class, _)| options.has(*class) && breaks_out(*class));
    drawn.map(|(class, name)| Plan::of(options, *class, name)).collect()
}

/// What is planned first of each kind: times and draws.
pub(crate) fn first_plans(options: &Options) -> Vec<(Class, [u64; 16])> {
    let first = |mut plan: Plan| {
        let numbers = std::array::from_fn(|nth| match nth % 2 {
            0 => plan.wait_ns(),
            _ => plan.draws.split().draw(),
        });
        (plan.class, numbers)
    };
    plans(options).into_iter().map(first).collect()
}

impl World {
    pub(crate) fn start_faults(&mut self) {
        if self.options.power_losses.is_some() {
            let wait = self.faults.chance.exponential(self.options.fault_every_ns);
            return self.queue.at(wait, Event::LosePower);
        }
        for plan in &mut self.faults.plans {
            let class = plan.class;
            self.queue.at(plan.wait_ns(), Event::Break { class });
        }
        self.queue.at(self.options.fault_every_ns, Event::Relieve);
    }

    pub(crate) fn on_break(&mut self, class: Class) {
        if self.faults.calm {
            return;
        }
        let plan = self.faults.plans.iter_mut().find(|plan| plan.class == class);
        let plan = plan.expect("what breaks is planned");
        self.queue.at(self.now + plan.wait_ns(), Event::Break { class });
        let chance = plan.draws.split();
        say!(self, Who::World, "due", "{class:?}");
        if self.is_hostile() {
            let rest = std::mem::replace(&mut self.faults.chance, chance);
            self.break_out(class);
            self.faults.chance = rest;
        }
    }

    /// Mends everything once the cluster has borne too much.
    pub(crate) fn on_relieve(&mut self) {
        if self.faults.calm {
            return;
        }
        // Never late: a quorum may be gone until then (seed 2994).
        let every_ns = self.options.fault_every_ns;
        let wait = self.faults.relief.exponential(every_ns).clamp(MS, 2 * every_ns);
        self.queue.at(self.now + wait, Event::Relieve);
        if !self.crowd.is_served(super::TOO_LITTLE_PERCENT) {
            self.mend_all();
        }
    }
}
