//! What is measured: the rows, and the systems they share.

use crate::systems::Who;
use raftd::client::load::{Mix, Shape, Workload};
use std::fmt;

/// Where servers keep their data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Medium {
    /// `target/bench`, on whatever disk that is.
    Disk,
    /// `/dev/shm`: syncs cost nothing, what remains is CPU.
    Memory,
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Medium::Disk => "disk",
            Medium::Memory => "shm",
        })
    }
}

/// When operations are asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RowPace {
    /// A closed loop.
    Closed,
    /// An open loop at this share of the system's own peak, which is measured first. Per cent.
    Share(u32),
}

/// One line of the table, and those it is compared with.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What people call it.
    pub(crate) name: String,
    /// What is asked.
    pub(crate) workload: Workload,
    /// How much at once.
    pub(crate) shape: Shape,
    /// When.
    pub(crate) pace: RowPace,
    /// Who is measured.
    pub(crate) who: Who,
    /// Whom it is compared with, in turns.
    pub(crate) against: Vec<Who>,
    /// Whether its latency is compared with the machine's floor, slice by slice.
    pub(crate) has_floor: bool,
}

/// Rows that share their systems.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Where the data is.
    pub(crate) medium: Medium,
    /// How many keys are put before the first row.
    pub(crate) keys: u32,
    /// How large their values are. Bytes.
    pub(crate) value_bytes: usize,
    /// Servers of each system that has more than one.
    pub(crate) nodes: usize,
    /// In this order: the light ones first, so that the disk is rested for them.
    pub(crate) rows: Vec<Row>,
}

impl Group {
    /// Everybody who is measured in it.
    pub(crate) fn whos(&self) -> Vec<Who> {
        let mut whos: Vec<Who> = Vec::new();
        for row in &self.rows {
            whos.push(row.who);
            whos.extend(&row.against);
        }
        whos.sort_unstable();
        whos.dedup();
        whos
    }
}

const KEYS: u32 = 100_000;
const MORE_KEYS: u32 = 1_000_000;
const VALUE_BYTES: usize = 256;

/// Where an open loop waits: enough places that a server, not a lack of them, holds requests up.
const OPEN: Shape = Shape { connections: 16, depth: 256 };

/// All rows, or the quick ones.
pub(crate) fn groups(full: bool) -> Vec<Group> {
    let mut groups = vec![disk(full), memory(full)];
    if full {
        groups.push(more_keys());
    }
    groups
}

fn group(medium: Medium, keys: u32, value_bytes: usize) -> Group {
    Group { medium, keys, value_bytes, nodes: 3, rows: Vec::new() }
}

/// A closed loop against `against`.
fn closed(group: &Group, mix: Mix, shape: (usize, usize), against: &[Who]) -> Row {
    let (connections, depth) = shape;
    let verb = if mix.writes() { "put" } else { "get" };
    let name = format!("{} {verb} {connections}x{depth} {}k", group.medium, group.keys / 1000);
    Row {
        name,
        workload: Workload::even(mix),
        shape: Shape { connections, depth },
        pace: RowPace::Closed,
        who: Who::Raftd,
        against: against.to_vec(),
        has_floor: false,
    }
}

/// Puts in an open loop, at a share of the peak.
fn open(group: &Group, percent: u32, against: &[Who]) -> Row {
    let name = format!("open {} put {percent}% of peak {}k", group.medium, group.keys / 1000);
    let pace = RowPace::Share(percent);
    Row { name, shape: OPEN, pace, ..closed(group, Mix::PUTS, (1, 1), against) }
}

fn disk(full: bool) -> Group {
    let mut group = group(Medium::Disk, KEYS, VALUE_BYTES);
    let mut rows = Vec::new();
    rows.push(Row { has_floor: true, ..closed(&group, Mix::PUTS, (1, 1), &[Who::Etcd]) });
    if full {
        rows.push(closed(&group, Mix::GETS, (1, 1), &[Who::Etcd]));
        rows.push(closed(&group, Mix::PUTS, (8, 8), &[Who::Etcd]));
        rows.push(closed(&group, Mix::PUTS, (100, 1), &[Who::Etcd, Who::RedisAlways]));
        rows.push(open(&group, 50, &[Who::Etcd]));
    }
    rows.push(closed(&group, Mix::GETS, (100, 10), &[Who::Etcd]));
    rows.push(closed(&group, Mix::PUTS, (100, 10), &[Who::Etcd]));
    rows.push(closed(&group, Mix::PUTS, (100, 16), &[Who::RedisAlways]));
    group.rows = rows;
    group
}

fn memory(full: bool) -> Group {
    let mut group = group(Medium::Memory, KEYS, VALUE_BYTES);
    let mut rows = Vec::new();
    let redis = [Who::RedisAlways, Who::RedisNo];
    if full {
        rows.push(closed(&group, Mix::PUTS, (1, 1), &[Who::Etcd]));
        rows.push(closed(&group, Mix::GETS, (1, 1), &[Who::Etcd]));
        rows.push(closed(&group, Mix::PUTS, (8, 8), &[Who::Etcd]));
        rows.push(closed(&group, Mix::PUTS, (100, 1), &[Who::Etcd, Who::RedisAlways]));
        rows.push(closed(&group, Mix::GETS, (100, 16), &redis));
        rows.extend([10, 25, 75, 90].map(|percent| open(&group, percent, &[Who::Etcd])));
        rows.push(through_the_gateway(&group));
    }
    rows.push(closed(&group, Mix::PUTS, (100, 10), &[Who::Etcd]));
    rows.push(closed(&group, Mix::GETS, (100, 10), &[Who::Etcd]));
    rows.push(closed(&group, Mix::PUTS, (100, 16), &redis));
    rows.push(open(&group, 50, &[Who::Etcd]));
    group.rows = rows;
    group
}

/// etcd's client, etcd's API: raftd behind its gateway.
fn through_the_gateway(group: &Group) -> Row {
    let row = closed(group, Mix::PUTS, (100, 10), &[Who::Etcd]);
    Row { name: format!("gateway {}", row.name), who: Who::Gateway, ..row }
}

fn more_keys() -> Group {
    let mut group = group(Medium::Memory, MORE_KEYS, VALUE_BYTES);
    group.rows = vec![
        closed(&group, Mix::PUTS, (100, 10), &[Who::Etcd]),
        closed(&group, Mix::GETS, (100, 10), &[Who::Etcd]),
        closed(&group, Mix::PUTS, (100, 16), &[Who::RedisAlways]),
        open(&group, 50, &[Who::Etcd]),
    ];
    group
}
