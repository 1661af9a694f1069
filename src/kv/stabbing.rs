//! Ranges of keys, and which of them hold a key: what a put costs does not depend on how many
//! ranges there are, but on how many hold it.
//!
//! A treap in the order of where the ranges start, in which every node knows the farthest end below
//! it. A search leaves out whatever ends too early or starts too late: it looks at the ranges that
//! hold the key, and at some O(log n) beside each.

const NONE: u32 = u32::MAX;

/// Who a range belongs to.
type Owner = u32;

struct Node {
    start: Box<[u8]>,
    /// `None`: it does not end.
    end: Option<Box<[u8]>>,
    owner: Owner,
    priority: u64,
    left: u32,
    right: u32,
    /// The node, of those below and this one, whose range ends last.
    farthest: u32,
}

/// The ranges.
pub(super) struct Ranges {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
    made: u64,
}

impl Ranges {
    pub(super) fn new() -> Ranges {
        Ranges { nodes: Vec::new(), free: Vec::new(), root: NONE, made: 0 }
    }

    /// Adds the keys from `start` on, before `end`.
    pub(super) fn insert(&mut self, start: &[u8], end: Option<&[u8]>, owner: Owner) {
        self.made += 1;
        let node = Node {
            start: start.into(),
            end: end.map(Into::into),
            owner,
            priority: mixed(self.made),
            left: NONE,
            right: NONE,
            farthest: NONE,
        };
        let at = match self.free.pop() {
            Some(at) => {
                *self.at_mut(at) = node;
                at
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("limits.rs bounds the watches")
            }
        };
        self.pull(at);
        let (before, behind) = self.split(self.root, (start, owner));
        let before = self.merge(before, at);
        self.root = self.merge(before, behind);
    }

    /// Takes out the range of an owner that starts there.
    pub(super) fn remove(&mut self, start: &[u8], owner: Owner) {
        self.root = self.without(self.root, (start, owner));
    }

    /// Visits the owners of all ranges that hold a key.
    pub(super) fn each_holding(&self, key: &[u8], visit: &mut dyn FnMut(Owner)) {
        self.stab(self.root, key, visit);
    }

    fn stab(&self, at: u32, key: &[u8], visit: &mut dyn FnMut(Owner)) {
        if at == NONE || !self.ends_behind(self.at(at).farthest, key) {
            return;
        }
        let node = self.at(at);
        self.stab(node.left, key, visit);
        if *node.start <= *key {
            if self.ends_behind(at, key) {
                visit(node.owner);
            }
            self.stab(node.right, key, visit);
        }
    }

    fn ends_behind(&self, at: u32, key: &[u8]) -> bool {
        self.at(at).end.as_ref().is_none_or(|end| **end > *key)
    }

    fn without(&mut self, at: u32, which: (&[u8], Owner)) -> u32 {
        if at == NONE {
            return NONE;
        }
        let (left, right) = (self.at(at).left, self.at(at).right);
        match self.key_of(at).cmp(&which) {
            std::cmp::Ordering::Equal => {
                let node = self.at_mut(at);
                (node.start, node.end) = (Box::default(), None);
                self.free.push(at);
                return self.merge(left, right);
            }
            std::cmp::Ordering::Greater => self.at_mut(at).left = self.without(left, which),
            std::cmp::Ordering::Less => self.at_mut(at).right = self.without(right, which),
        }
        self.pull(at);
        at
    }

    /// What is below `which`, and the rest.
    fn split(&mut self, at: u32, which: (&[u8], Owner)) -> (u32, u32) {
        if at == NONE {
            return (NONE, NONE);
        }
        if self.key_of(at) < which {
            let (before, behind) = self.split(self.at(at).right, which);
            self.at_mut(at).right = before;
            self.pull(at);
            (at, behind)
        } else {
            let (before, behind) = self.split(self.at(at).left, which);
            self.at_mut(at).left = behind;
            self.pull(at);
            (before, at)
        }
    }

    fn merge(&mut self, before: u32, behind: u32) -> u32 {
        if before == NONE {
            return behind;
        }
        if behind == NONE {
            return before;
        }
        if self.at(before).priority < self.at(behind).priority {
            let right = self.merge(self.at(before).right, behind);
            self.at_mut(before).right = right;
            self.pull(before);
            before
        } else {
            let left = self.merge(before, self.at(behind).left);
            self.at_mut(behind).left = left;
            self.pull(behind);
            behind
        }
    }

    /// Finds the farthest end below a node again.
    fn pull(&mut self, at: u32) {
        let mut farthest = at;
        for child in [self.at(at).left, self.at(at).right] {
            if child == NONE {
                continue;
            }
            let other = self.at(child).farthest;
            let farther = match (&self.at(farthest).end, &self.at(other).end) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(end), Some(other)) => end < other,
            };
            if farther {
                farthest = other;
            }
        }
        self.at_mut(at).farthest = farthest;
    }

    fn key_of(&self, at: u32) -> (&[u8], Owner) {
        (&self.at(at).start, self.at(at).owner)
    }

    fn at(&self, at: u32) -> &Node {
        &self.nodes[usize::try_from(at).expect("raftd runs on 64 bits")]
    }

    fn at_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[usize::try_from(at).expect("raftd runs on 64 bits")]
    }
}

/// Priorities that nobody outside chooses: splitmix64 of a count.
fn mixed(count: u64) -> u64 {
    let mut mixed = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(state: &mut u64, below: u64) -> u64 {
        *state += 1;
        mixed(*state) % below
    }

    fn key(state: &mut u64) -> Vec<u8> {
        let length = 1 + number(state, 3);
        (0..length).map(|_| u8::try_from(number(state, 5)).unwrap()).collect()
    }

    #[test]
    fn the_ranges_that_hold_a_key_are_those_that_a_look_at_each_finds() {
        let mut state = 1;
        let mut ranges = Ranges::new();
        let mut twin: Vec<(Vec<u8>, Option<Vec<u8>>, u32)> = Vec::new();
        for step in 0..20_000_u32 {
            let many = if step / 4000 % 2 == 0 { 60 } else { 40 };
            if number(&mut state, 100) < many {
                let (start, end) = (key(&mut state), key(&mut state));
                let end = Some(end).filter(|_| number(&mut state, 8) > 0);
                ranges.insert(&start, end.as_deref(), step);
                twin.push((start, end, step));
            } else if !twin.is_empty() {
                let place = number(&mut state, twin.len().try_into().unwrap());
                let (start, _, owner) = twin.swap_remove(place.try_into().unwrap());
                ranges.remove(&start, owner);
            }
            let wanted = key(&mut state);
            let mut found = Vec::new();
            ranges.each_holding(&wanted, &mut |owner| found.push(owner));
            found.sort_unstable();
            let holds = |(start, end, _): &&(Vec<u8>, Option<Vec<u8>>, u32)| {
                *start <= wanted && end.as_ref().is_none_or(|end| wanted < *end)
            };
            let mut expected: Vec<u32> = twin.iter().filter(holds).map(|it| it.2).collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "step {step}");
        }
        assert!(twin.len() > 300, "{} ranges prove little", twin.len());
    }
}
