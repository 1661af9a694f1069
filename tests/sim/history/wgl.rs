//! Searches an order of the ops of one key that agrees with real time and explains every answer.
//!
//! Wing and Gong's search as Lowe made it: walk the calls and returns in time; an op whose call was
//! passed may take effect now, which takes it off the list; at the return of an op that has not,
//! step back. A pair of (ops that took effect, value) that was met before leads nowhere new. The
//! sets are remembered by a sum of one random number per op (Zobrist), not as bits.
//!
//! The cost is exponential in the ops that run at once, so what is searched ends where there are
//! too many, as changes without an end pile up; the rest is left out, and said to be. What has an
//! order has one up to any moment.

use super::parts::{Act, Part};
use std::collections::BTreeSet;

/// Ops of a key at once beyond which nothing is searched.
const CONCURRENCY_MAX: usize = 16;
/// States of a key beyond which the search gives up.
const STATES_MAX: usize = 1 << 21;

pub(super) enum Search {
    /// There is an order.
    Ordered,
    /// Given up.
    TooMany,
    /// There is none: these ops, that ran at once, cannot follow what must have been before them.
    Impossible { around: Vec<usize> },
}

/// A call or a return, in a list from which what took effect is taken out.
struct Event {
    part: usize,
    is_call: bool,
    prev: usize,
    next: usize,
}

/// The events in the order of time. Event 0 is the head, which is no event.
struct List {
    events: Vec<Event>,
    /// By part.
    calls: Vec<usize>,
    returns: Vec<usize>,
}

const HEAD: usize = 0;

pub(super) fn search(parts: &[Part]) -> Search {
    assert!(too_many_at(parts).is_none(), "the caller left out what is too much");
    let mut list = List::new(parts);
    let mut met = Met::new();
    let mut taken: Vec<(usize, u32)> = Vec::new();
    let (mut set, mut value) = (0_u128, 0_u32);
    let (mut deepest, mut stuck_at) = (0, 0);
    let mut at = list.events[HEAD].next;
    while list.events[HEAD].next != HEAD {
        let Event { part, is_call, next, .. } = list.events[at];
        if is_call {
            let after = step(parts[part].act, value);
            if let Some(after) = after
                && met.insert(set ^ random(part), after)
            {
                taken.push((part, value));
                (set, value) = (set ^ random(part), after);
                list.lift(part);
                at = list.events[HEAD].next;
            } else {
                at = next;
            }
            if met.count > STATES_MAX {
                return Search::TooMany;
            }
            continue;
        }
        // This op is over and has not taken effect: one of those before it did wrongly.
        if taken.len() >= deepest {
            (deepest, stuck_at) = (taken.len(), part);
        }
        let Some((undone, before)) = taken.pop() else {
            return Search::Impossible { around: around(parts, stuck_at) };
        };
        (set, value) = (set ^ random(undone), before);
        list.put_back(undone);
        at = list.events[list.calls[undone]].next;
    }
    Search::Ordered
}

/// The value after an act, if the act is possible at this value.
fn step(act: Act, value: u32) -> Option<u32> {
    match act {
        Act::Write { value } => Some(value),
        Act::Delete { existed } => existed.is_none_or(|it| it == (value != 0)).then_some(0),
        Act::Read { value: read } => (read == value).then_some(value),
        Act::Look { existed } => (existed == (value != 0)).then_some(value),
    }
}

/// The parts up to the moment when too many run at once. What is under way then is changed to what
/// it might be: a change may come last, and whoever reads has seen nothing.
pub(super) fn searchable(parts: &[Part]) -> Vec<Part> {
    let Some(end) = too_many_at(parts) else { return parts.to_vec() };
    let cut = |part: &Part| {
        let act = match part.act {
            _ if part.ret < end => part.act,
            Act::Write { .. } => part.act,
            Act::Delete { .. } => Act::Delete { existed: None },
            Act::Read { .. } | Act::Look { .. } => return None,
        };
        let ret = if part.ret < end { part.ret } else { u64::MAX };
        Some(Part { ret, act, ..*part })
    };
    parts.iter().filter(|part| part.call < end).filter_map(cut).collect()
}

/// When there is first one op more than can be searched.
fn too_many_at(parts: &[Part]) -> Option<u64> {
    let mut open = BTreeSet::new();
    let mut by_call: Vec<usize> = (0..parts.len()).collect();
    by_call.sort_by_key(|part| parts[*part].call);
    for part in by_call {
        let Part { call, ret, .. } = parts[part];
        while open.first().is_some_and(|(ret, _)| *ret < call) {
            open.pop_first();
        }
        open.insert((ret, part));
        if open.len() > CONCURRENCY_MAX {
            return Some(call);
        }
    }
    None
}

/// The op nobody found a place for, and those that ran at its end.
fn around(parts: &[Part], stuck: usize) -> Vec<usize> {
    let end = parts[stuck].ret;
    let runs = |part: &&Part| part.call <= end && end <= part.ret && part.op != parts[stuck].op;
    let others = parts.iter().filter(runs).map(|part| part.op);
    std::iter::once(parts[stuck].op).chain(others).collect()
}

impl List {
    fn new(parts: &[Part]) -> List {
        // Of a call and a return at the same time the call is first: they overlap.
        let ends = |part: usize| [(parts[part].call, 0, part), (parts[part].ret, 1, part)];
        let mut times: Vec<(u64, u8, usize)> = (0..parts.len()).flat_map(ends).collect();
        times.sort_unstable();
        let mut list = List {
            events: vec![Event { part: 0, is_call: false, prev: HEAD, next: HEAD }],
            calls: vec![HEAD; parts.len()],
            returns: vec![HEAD; parts.len()],
        };
        for (_, kind, part) in times {
            let (here, prev) = (list.events.len(), list.events.len() - 1);
            let is_call = kind == 0;
            list.events.push(Event { part, is_call, prev, next: HEAD });
            list.events[prev].next = here;
            list.events[HEAD].prev = here;
            let place = if is_call { &mut list.calls } else { &mut list.returns };
            place[part] = here;
        }
        list
    }

    /// Takes a part's call and return out.
    fn lift(&mut self, part: usize) {
        for at in [self.calls[part], self.returns[part]] {
            let Event { prev, next, .. } = self.events[at];
            self.events[prev].next = next;
            self.events[next].prev = prev;
        }
    }

    /// Undoes the last `lift` that is not undone: its neighbours are the same again.
    fn put_back(&mut self, part: usize) {
        for at in [self.returns[part], self.calls[part]] {
            let Event { prev, next, .. } = self.events[at];
            self.events[prev].next = at;
            self.events[next].prev = at;
        }
    }
}

/// The states that were met, each a set of parts and a value: a table of twice as many places or
/// more, each state at the first free place from the one that its number names. A tree was a sixth
/// of the simulator's time.
struct Met {
    places: Vec<Option<(u128, u32)>>,
    count: usize,
}

impl Met {
    fn new() -> Met {
        Met { places: vec![None; 64], count: 0 }
    }

    /// Whether the state is new.
    fn insert(&mut self, set: u128, value: u32) -> bool {
        let at = self.place(set, value);
        if self.places[at].is_some() {
            return false;
        }
        self.places[at] = Some((set, value));
        self.count += 1;
        if self.count * 2 > self.places.len() {
            let wider = vec![None; self.places.len() * 2];
            for (set, value) in std::mem::replace(&mut self.places, wider).into_iter().flatten() {
                let at = self.place(set, value);
                self.places[at] = Some((set, value));
            }
        }
        true
    }

    /// Where the state is, or where it would be.
    fn place(&self, set: u128, value: u32) -> usize {
        // Sets are sums of random numbers, so any of their bits will do; values are few.
        let low = u64::try_from(set & u128::from(u64::MAX)).expect("64 bits");
        let mixed = low.wrapping_add(u64::from(value).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut at = usize::try_from(mixed).expect("64 bits") & (self.places.len() - 1);
        while self.places[at].is_some_and(|it| it != (set, value)) {
            at = (at + 1) & (self.places.len() - 1);
        }
        at
    }
}

/// One number per part, the same on every run.
fn random(part: usize) -> u128 {
    let half = |salt: u64| {
        let seed = u64::try_from(part).expect("usize is 64 bits at most");
        let mut mixed = seed.wrapping_add(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u128::from(mixed ^ (mixed >> 31))
    };
    half(1) << 64 | half(0x5851_f42d_4c95_7f2d)
}
