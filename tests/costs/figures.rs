//! From what was counted to figures: so much for each thousand operations, or for each second.

use crate::cluster::Cluster;
use crate::machine::Spent;
use std::fmt;

/// Thousandths of one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Milli(pub(crate) u64);

impl Milli {
    /// Reads what `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Milli> {
        let (whole, part) = text.split_once('.')?;
        let part: u64 = if part.len() == 3 { part.parse().ok()? } else { return None };
        Some(Milli(whole.parse::<u64>().ok()? * 1000 + part))
    }
}

impl fmt::Display for Milli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{:03}", self.0 / 1000, self.0 % 1000))
    }
}

/// How far a figure may be from what it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Allowed {
    Exact,
    Percent(u64),
}

impl Allowed {
    /// Reads what `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Allowed> {
        match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().map(Allowed::Percent),
            None => (text == "exact").then_some(Allowed::Exact),
        }
    }

    pub(crate) fn holds(self, then: Milli, now: Milli) -> bool {
        match self {
            Allowed::Exact => then == now,
            Allowed::Percent(percent) => then.0.abs_diff(now.0) * 100 <= then.0 * percent,
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allowed::Exact => f.pad("exact"),
            Allowed::Percent(percent) => f.pad(&format!("{percent}%")),
        }
    }
}

/// A figure of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: Milli,
    pub(crate) allowed: Allowed,
}

/// What was spent while something happened.
#[derive(Clone, Debug)]
pub(crate) struct Bill {
    pub(crate) leader: Spent,
    pub(crate) others: Vec<Spent>,
}

/// Lets something happen, and says what the nodes spent. The leader must stay.
pub(crate) fn bill(cluster: &mut Cluster, happen: impl FnOnce(&mut Cluster)) -> Bill {
    let leader = cluster.leader();
    let (leader_before, others_before) = cluster.spent();
    happen(cluster);
    assert_eq!(cluster.leader(), leader, "another one leads");
    let (leader, others) = cluster.spent();
    let others = others.into_iter().zip(others_before);
    Bill {
        leader: leader - leader_before,
        others: others.map(|(after, before)| after - before).collect(),
    }
}

impl Bill {
    fn all(&self, of: impl Fn(&Spent) -> u64) -> u64 {
        of(&self.leader) + self.others(of)
    }

    fn others(&self, of: impl Fn(&Spent) -> u64) -> u64 {
        self.others.iter().map(of).sum()
    }

    /// The figures, each for `per` of `count` that were counted.
    pub(crate) fn figures(&self, operation: &str, count: u64, per: u64) -> Vec<Figure> {
        let rough = Allowed::Percent(2);
        let table = [
            ("leader.allocations", self.leader.allocated.calls(), rough),
            ("leader.allocated-bytes", self.leader.allocated.bytes, rough),
            ("followers.allocations", self.others(|it| it.allocated.calls()), rough),
            ("followers.allocated-bytes", self.others(|it| it.allocated.bytes), rough),
            ("messages", self.all(|it| it.messages), Allowed::Exact),
            ("message-bytes", self.all(|it| it.message_bytes), rough),
            ("socket-reads", self.all(|it| it.reads), Allowed::Exact),
            ("socket-writes", self.all(|it| it.writes), Allowed::Exact),
            ("log-appends", self.all(|it| it.appends), Allowed::Exact),
            ("log-syncs", self.all(|it| it.syncs), Allowed::Exact),
        ];
        let figure = |(name, sum, allowed)| Figure {
            name: format!("{operation}.{name}"),
            value: Milli((sum * per * 1000 + count / 2) / count),
            allowed,
        };
        table.into_iter().map(figure).collect()
    }
}
