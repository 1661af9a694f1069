//! Who does not hear whom, and for how long.

use super::Fault;
use crate::chance::u64_of;
use crate::coverage::Point;
use crate::options::{MS, SECOND};
use crate::world::World;

/// Directed links: from whom, to whom.
pub(super) type Cuts = Vec<(usize, usize)>;

/// The links between two groups, in both directions.
fn between(one: &[usize], other: &[usize]) -> Cuts {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
    pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

impl World {
    /// Cuts the network somehow.
    pub(super) fn partition(&mut self) {
        let count = self.machines.len();
        let all: Vec<usize> = (0..count).collect();
        let clients = count;
        if count == 1 {
            // Nothing but the way to the clients.
            let cuts = between(&all, &[clients]);
            return self.lasts(Fault::Cuts(cuts), SECOND);
        }
        self.coverage.hit(Point::Partitioned);
        if self.faults.chance.one_in(8) {
            return self.swizzle(all);
        }
        let cuts = match self.faults.chance.below(10) {
            0 | 1 => self.isolate_leader(&all),
            2 => self.split(&all),
            3 | 4 => self.one_way(&all),
            5 => self.ring(&all),
            6 => self.bridge(&all),
            7 => {
                let node = self.faults.chance.index(count);
                between(&[node], &[clients])
            }
            _ => self.one_pair(&all),
        };
        if self.faults.chance.one_in(4) {
            let timeout = self.options.election_timeout_ns;
            let period_ns = self.faults.chance.between(timeout / 5, 3 * timeout).max(MS);
            return self.lasts(Fault::Flapping { cuts, cut: true, period_ns }, 4 * SECOND);
        }
        self.lasts(Fault::Cuts(cuts), 4 * SECOND);
    }

    /// A machine hears no other one, and is heard by none but clients.
    pub(super) fn isolate(&mut self, machine: usize, lasts_ns: u64) {
        let rest: Vec<usize> = (0..self.machines.len()).filter(|it| *it != machine).collect();
        self.prepare(Fault::Cuts(between(&[machine], &rest)), self.now, lasts_ns);
    }

    fn isolate_leader(&mut self, all: &[usize]) -> Cuts {
        let any = self.faults.chance.index(all.len());
        let alone = self.proof.leader().unwrap_or(any);
        self.coverage.hit_if(self.proof.leader().is_some(), Point::LeaderIsolated);
        let rest: Vec<usize> = all.iter().copied().filter(|node| *node != alone).collect();
        between(&[alone], &rest)
    }

    fn split(&mut self, all: &[usize]) -> Cuts {
        let size = 1 + self.faults.chance.index(all.len() - 1);
        let side = self.some_machines(all.to_vec(), size);
        let rest: Vec<usize> = all.iter().copied().filter(|node| !side.contains(node)).collect();
        between(&side, &rest)
    }

    /// One node is heard and does not hear, or the other way round.
    fn one_way(&mut self, all: &[usize]) -> Cuts {
        self.coverage.hit(Point::OneWay);
        let any = self.faults.chance.index(all.len());
        let node = match self.proof.leader() {
            Some(leader) if self.faults.chance.one_in(2) => leader,
            Some(_) | None => any,
        };
        let deaf = self.faults.chance.one_in(2);
        let others = all.iter().copied().filter(|other| *other != node);
        others.map(|other| if deaf { (other, node) } else { (node, other) }).collect()
    }

    /// Each hears its neighbours only: every majority overlaps with another.
    fn ring(&mut self, all: &[usize]) -> Cuts {
        let count = all.len();
        if count < 4 {
            return self.one_pair(all);
        }
        self.coverage.hit(Point::Ring);
        let far = |a: usize, b: usize| (a + 1) % count != b && (b + 1) % count != a && a != b;
        let pairs = all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b)));
        pairs.filter(|(a, b)| far(*a, *b)).collect()
    }

    /// Two groups that meet in one node only.
    fn bridge(&mut self, all: &[usize]) -> Cuts {
        if all.len() < 3 {
            return self.one_pair(all);
        }
        self.coverage.hit(Point::Bridge);
        let bridge = self.faults.chance.index(all.len());
        let rest: Vec<usize> = all.iter().copied().filter(|node| *node != bridge).collect();
        let side = self.some_machines(rest.clone(), rest.len() / 2);
        let other: Vec<usize> = rest.iter().copied().filter(|node| !side.contains(node)).collect();
        between(&side, &other)
    }

    /// Some machines are cut off one after the other, and come back in another order.
    fn swizzle(&mut self, all: Vec<usize>) {
        let count = 1 + self.faults.chance.index(all.len());
        let some = self.some_machines(all.clone(), count);
        let mut back: Vec<usize> = (0..count).collect();
        for nth in (1..count).rev() {
            back.swap(nth, self.faults.chance.index(nth + 1));
        }
        let step = self.faults.chance.scaled(MS, self.options.election_timeout_ns);
        for (nth, (machine, later)) in some.into_iter().zip(back).enumerate() {
            let rest: Vec<usize> = all.iter().copied().filter(|other| *other != machine).collect();
            let at = self.now + u64_of(nth) * step;
            let lasts_ns = u64_of(count + later - nth) * step;
            self.prepare(Fault::Cuts(between(&[machine], &rest)), at, lasts_ns);
        }
        self.coverage.hit_if(count > 1, Point::Swizzled);
    }

    fn one_pair(&mut self, all: &[usize]) -> Cuts {
        let pair = self.some_machines(all.to_vec(), 2);
        between(&pair[..1], &pair[1..])
    }
}
