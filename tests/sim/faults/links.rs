//! What happens to single links: one is clogged, or lets all but some kinds of messages through.

use super::Fault;
use crate::coverage::Point;
use crate::network::{Filter, Kind};
use crate::options::{MS, SECOND};
use crate::trace::{Who, say};
use crate::world::World;

/// What is filtered out together. Without appends and heartbeats leaders come and go, and each
/// leaves an entry of its own term behind.
const FILTERS: [&[Kind]; 8] = [
    &[Kind::Append],
    &[Kind::Append, Kind::Heartbeat],
    &[Kind::Append, Kind::Heartbeat],
    &[Kind::Heartbeat],
    &[Kind::AppendReply],
    &[Kind::Vote],
    &[Kind::Read],
    &[Kind::Snapshot],
];

impl World {
    /// Holds a link up for a while; place `machines` is where the clients are.
    pub(super) fn clog(&mut self) {
        let places = self.machines.len() + 1;
        let from = self.faults.chance.index(places);
        let to = (from + 1 + self.faults.chance.index(places - 1)) % places;
        let until = self.now + self.faults.chance.scaled(MS, 2 * SECOND);
        self.network.links.clog(from, to, until);
        self.coverage.hit(Point::Clogged);
        say!(self, Who::World, "clog", "n{} to n{}", from + 1, to + 1);
    }

    /// Some kinds of messages do not get through: from all members to all, or of one only.
    pub(super) fn filter(&mut self) {
        let kinds = self.faults.chance.pick(&FILTERS);
        let machine = self.victim();
        let (from, to) = match self.faults.chance.below(4) {
            0 | 1 => (None, None),
            2 => (Some(machine), None),
            _ => (None, Some(machine)),
        };
        // Long enough for some elections, and not for more.
        let most_ns = (12 * self.options.election_timeout_ns).min(3 * SECOND);
        self.lasts(Fault::Filtered(Filter { kinds, from, to }), most_ns);
    }
}
