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

/// What a series of rows varies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Axis {
    /// Bytes of a value.
    ValueBytes,
    /// Keys in the store.
    Keys,
    /// Connections, one request in flight on each.
    Connections,
    /// Requests in flight on 16 connections together.
    InFlight,
    /// Servers.
    Nodes,
}

impl Axis {
    /// All of them.
    pub(crate) const ALL: [Axis; 5] =
        [Axis::ValueBytes, Axis::Keys, Axis::Connections, Axis::InFlight, Axis::Nodes];
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Axis::ValueBytes => "value bytes",
            Axis::Keys => "keys",
            Axis::Connections => "connections",
            Axis::InFlight => "in flight",
            Axis::Nodes => "servers",
        })
    }
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
    /// Which series it belongs to, and where in it.
    pub(crate) series: Option<(Axis, u32)>,
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

    /// How many keys are put to this one.
    pub(crate) fn keys_of(&self, who: Who) -> u32 {
        if who == Who::Few { KEYS.min(self.keys) } else { self.keys }
    }
}

const KEYS: u32 = 100_000;
const MORE_KEYS: u32 = 1_000_000;
const MOST_KEYS: u32 = 10_000_000;
const MOST_KEYS_VALUE_BYTES: usize = 64;
const VALUE_BYTES: usize = 256;

/// Where an open loop waits: enough places that a server, not a lack of them, holds requests up.
const OPEN: Shape = Shape { connections: 16, depth: 256 };

/// All rows, or the quick ones.
pub(crate) fn groups(full: bool) -> Vec<Group> {
    let mut groups = vec![disk(full), memory(full)];
    if full {
        groups.push(more_keys());
        groups.push(most_keys());
        groups.extend(beside());
        groups.extend([100, 1000].map(ycsb));
        groups.extend(scaling());
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
        series: None,
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
        rows.extend([Mix::PUTS, Mix::GETS].map(|mix| through_the_gateway(&group, mix)));
    }
    rows.push(closed(&group, Mix::PUTS, (100, 10), &[Who::Etcd]));
    rows.push(closed(&group, Mix::GETS, (100, 10), &[Who::Etcd]));
    rows.push(closed(&group, Mix::PUTS, (100, 16), &redis));
    rows.push(open(&group, 50, &[Who::Etcd]));
    group.rows = rows;
    group
}

/// etcd's client, etcd's API: raftd behind its gateway.
fn through_the_gateway(group: &Group, mix: Mix) -> Row {
    let row = closed(group, mix, (100, 10), &[Who::Etcd]);
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

/// What a put costs on ten million keys, over what it costs on few.
fn most_keys() -> Group {
    let mut group = group(Medium::Disk, MOST_KEYS, MOST_KEYS_VALUE_BYTES);
    let row = closed(&group, Mix::PUTS, (100, 10), &[Who::Few]);
    let name = format!("{} of {MOST_KEYS_VALUE_BYTES} B", row.name);
    group.rows = vec![Row { name, ..row }];
    group
}

/// More servers, and servers that have more to look after, over three that do not.
fn beside() -> Vec<Group> {
    let said = [
        (Who::Wide(5), "on 5 servers"),
        (Who::Wide(7), "on 7 servers"),
        (Who::Crowded, "in a crowd"),
    ];
    let group = |(who, how): (Who, &str)| {
        let mut group = group(Medium::Memory, KEYS, VALUE_BYTES);
        let row = closed(&group, Mix::PUTS, (100, 10), &[Who::Raftd]);
        group.rows = vec![Row { name: format!("{} {how}", row.name), who, ..row }];
        group
    };
    said.map(group).into()
}

/// YCSB's six core workloads, with records of one field.
fn ycsb(value_bytes: usize) -> Group {
    let mut group = group(Medium::Memory, KEYS, value_bytes);
    let rows = ('A'..='F').filter_map(|letter| {
        let workload = Workload::ycsb(letter)?;
        // A server bounds the ranges that are under way, and refuses more.
        let shape = if letter == 'E' { (16, 4) } else { (100, 10) };
        let (connections, depth) = shape;
        let name = format!("ycsb {letter} {value_bytes} B {} {connections}x{depth}", group.medium);
        Some(Row { name, workload, ..closed(&group, Mix::PUTS, shape, &[Who::Etcd]) })
    });
    group.rows = rows.collect();
    group
}

/// Puts, with one thing varied at a time.
fn scaling() -> Vec<Group> {
    let mut groups = Vec::new();
    for bytes in [16, 64, 256, 1024, 4096, 16_384_u32] {
        // Few keys, so that the largest values fit a small machine's memory too.
        let value_bytes = usize::try_from(bytes).expect("16 KiB fit a usize");
        let group = group(Medium::Memory, 10_000, value_bytes);
        // A leader bounds the bytes that are not committed yet: 256 of the largest are well below.
        groups.push(series(group, Axis::ValueBytes, &[bytes], |_| (16, 16)));
    }
    for keys in [10_000, 100_000, 1_000_000] {
        let group = group(Medium::Memory, keys, VALUE_BYTES);
        groups.push(series(group, Axis::Keys, &[keys], |_| (100, 10)));
    }
    for nodes in [1, 3, 5, 7_u32] {
        let mut group = group(Medium::Memory, KEYS, VALUE_BYTES);
        group.nodes = usize::try_from(nodes).expect("a handful");
        groups.push(series(group, Axis::Nodes, &[nodes], |_| (100, 10)));
    }
    let of_one = || group(Medium::Memory, KEYS, VALUE_BYTES);
    let connections = [1, 4, 16, 64, 256, 1000];
    groups.push(series(of_one(), Axis::Connections, &connections, |count| (count, 1)));
    let in_flight = [16, 64, 256, 1024, 4096];
    groups.push(series(of_one(), Axis::InFlight, &in_flight, |count| (16, count / 16)));
    groups
}

/// Gives a group a row for each place of a series.
fn series(
    mut group: Group,
    axis: Axis,
    places: &[u32],
    shape: impl Fn(usize) -> (usize, usize),
) -> Group {
    let row = |place: &u32| {
        let shape = shape(usize::try_from(*place).expect("a u32 fits a usize"));
        let name = format!("scale {axis} {place}");
        Row { name, series: Some((axis, *place)), ..closed(&group, Mix::PUTS, shape, &[]) }
    };
    let rows = places.iter().map(row).collect();
    group.rows = rows;
    group
}
