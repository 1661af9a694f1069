//! The table for people.

use crate::contest::{Against, Measured, Outcome};
use crate::floor::FloorTimes;
use crate::measure::Use;
use crate::parts::Figures;
use crate::proc::{Machine, Threads};
use crate::rows::{Group, Medium};
use crate::stats::{Ratio, Spread, significant};
use crate::systems::Found;
use raftd::client::load::{Histogram, Kind, float};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What stands above the table, once.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The machine.
    pub(crate) machine: Machine,
    /// The file system below the disk rows' data, and where.
    pub(crate) disk: String,
    /// The file system below the shm rows' data, and where.
    pub(crate) memory: String,
    /// Whom raftd is compared with.
    pub(crate) peers: Found,
    /// Measured seconds and slices of a row.
    pub(crate) time: String,
    /// Whether strace may trace.
    pub(crate) may_trace: bool,
}

impl Facts {
    /// As lines of text.
    pub(crate) fn text(&self) -> String {
        let Machine { kernel, cpu, cores, congestion_control } = &self.machine;
        let traced = if self.may_trace {
            "checked with strace in a slice of its own"
        } else {
            "not checked: strace is not here, or may not trace"
        };
        format!(
            "raftd {} · servers and load generator on one machine, loopback TCP\n\
             peers    {}; found on PATH, with default flags but for bench/systems\n\
             machine  Linux {kernel} · {cores} cores · {cpu} · congestion control \
             {congestion_control}\n\
             disk     {}\nshm      {}\n\
             load     one thread; N x M: N connections with M requests in flight each, a closed \
             loop;\n\
             \x20        open: operations due at fixed moments, latencies from the moment due;\n\
             \x20        keys of 16 bytes; gets are linearizable; {}\n\
             CPU      /proc/PID/task/*/schedstat, user + system, of all threads of all servers;\n\
             \x20        the median of the slices and their spread; the columns behind are means;\n\
             \x20        leader and others hold all threads, sync and bg are raftd's threads;\n\
             \x20        else: all else that ran, the kernel's own threads too; stolen: taken by \
             the host;\n\
             \x20        both, and the client's share, in % of one core\n\
             syncs    of all servers, by their own counters (raftd's status, etcd's metrics), \
             {traced};\n\
             \x20        B/op: bytes the disk took meanwhile\n\
             ratios   raftd's figure over the peer's, of slices in turns (A B B A): the median of \
             all pairs [least..most]\n",
            env!("CARGO_PKG_VERSION"),
            self.peers,
            self.disk,
            self.memory,
            self.time,
        )
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        json!({
            "raftd": env!("CARGO_PKG_VERSION"),
            "peers": self.peers.to_string(),
            "kernel": self.machine.kernel,
            "cpu": self.machine.cpu,
            "cores": self.machine.cores,
            "congestion_control": self.machine.congestion_control,
            "disk": self.disk,
            "shm": self.memory,
            "time": self.time,
            "syncs_checked_with_strace": self.may_trace,
        })
    }
}

/// The columns' heads and widths; `|` begins a group.
const COLUMNS: [(&str, usize); 18] = [
    ("ops/s", 9),
    ("p50 µs", 8),
    ("p99", 8),
    ("p99.9", 8),
    ("max", 8),
    ("|CPU µs/op", 11),
    ("[of slices]", 17),
    ("leader", 8),
    ("others", 8),
    ("sync", 8),
    ("bg", 7),
    ("|client", 8),
    ("core%", 6),
    ("else", 7),
    ("stolen", 7),
    ("|syncs/op", 10),
    ("B/op", 7),
    ("errors", 7),
];

const NAME_WIDTH: usize = 25;

fn table_line(name: &str, cells: impl Iterator<Item = String>) -> String {
    let mut line = format!("{name:<NAME_WIDTH$}");
    for (cell, (head, width)) in cells.zip(COLUMNS) {
        let bar = if head.starts_with('|') { "|" } else { "" };
        let rest = width - bar.len();
        let _infallible = write!(line, "{bar}{:>rest$}", cell.trim_start_matches('|'));
    }
    line
}

/// The table's head.
pub(crate) fn head() -> String {
    table_line("", COLUMNS.iter().map(|(head, _)| (*head).to_owned()))
}

/// A row: its name, a line for each system, the ratios, and what must be said of it.
pub(crate) fn lines(group: &Group, outcome: &Outcome, figures: &Figures) -> String {
    let mut text = outcome.row.name.clone();
    for measured in &outcome.of {
        let _infallible = write!(text, "\n{}", line(group, measured));
    }
    for against in &outcome.against {
        let _infallible = write!(text, "\n    {}", ratios(against));
    }
    if let Some(floor) = &outcome.floor {
        let _infallible = write!(text, "\n    {}", floor_note(&outcome.of[0], floor));
    }
    if let Some((parts_ns, parts)) = figures.of_row(group, &outcome.row) {
        let own = &outcome.of[0];
        let times = own.used.cpu_us() * 1000.0 / parts_ns;
        let _infallible = write!(
            text,
            "\n    {}: CPU of all servers = {times:.2} x its parts, {parts_ns:.0} ns = {parts}",
            own.name
        );
    }
    let mut missing: Vec<&str> = outcome.missing.iter().map(|who| who.program()).collect();
    missing.dedup();
    for program in missing {
        let _infallible = write!(text, "\n    not on PATH, so not compared: {program}");
    }
    if outcome.again > 0 {
        let _infallible = write!(text, "\n    slices measured again: {}", outcome.again);
    }
    for note in outcome.of.iter().flat_map(notes) {
        let _infallible = write!(text, "\n    {note}");
    }
    text
}

fn line(group: &Group, measured: &Measured) -> String {
    let Measured { used, tally, slices, .. } = measured;
    let us = |ns: u64| float(ns) / 1000.0;
    let latency = tally.latency();
    let at = |q: f64| format!("{:.0}", us(latency.value_at_quantile(q)));
    let per_op = |ns: u64| significant(us(ns) / float(used.ops.max(1)));
    let share = |ns: u64| format!("{:.0}", percent(ns, used.elapsed_ns));
    let cpu = Spread::of(slices.iter().map(|slice| slice.cpu_us));
    let none = || "-".to_owned();
    let written = match group.medium {
        Medium::Disk => format!("{:.0}", float(used.written) / float(used.ops.max(1))),
        Medium::Memory => none(),
    };
    let cells = [
        format!("{:.0}", used.rate()),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        cpu.map_or_else(none, |cpu| significant(cpu.median)),
        cpu.map_or_else(none, |cpu| {
            format!("[{}..{}]", significant(cpu.least), significant(cpu.most))
        }),
        per_op(used.leader.total().run_ns),
        per_op(used.followers.total().run_ns),
        per_op(thread_ns(used, "sync")),
        per_op(thread_ns(used, "bg")),
        per_op(used.client.total().run_ns),
        share(used.client.total().run_ns),
        share(others_ns(used)),
        share(used.machine.stolen_ns),
        used.syncs_per_op().map_or_else(none, |syncs| format!("{syncs:.4}")),
        written,
        (tally.refusals() + tally.wrong).to_string(),
    ];
    table_line(&format!("  {}", measured.name), cells.into_iter())
}

fn ratios(against: &Against) -> String {
    let figures = [
        ("CPU", &against.cpu),
        ("ops/s", &against.rate),
        ("p50", &against.p50),
        ("syncs/op", &against.syncs),
    ];
    let parts = figures.iter().filter_map(|(name, spread)| {
        spread.as_ref().map(|spread| format!("{name} {}", spread.ratio()))
    });
    let pairs = against.cpu.map_or(0, |spread| spread.count);
    let mut parts: Vec<String> = parts.collect();
    if against.tail.is_finite() {
        parts.push(format!("p99.9/p50 of all slices {}", Ratio(against.tail)));
    }
    if let Some(traced) = against.traced {
        parts.push(format!("syncs/op by strace {}", Ratio(traced)));
    }
    format!("against {}, {pairs} pairs: {}", against.name, parts.join(" · "))
}

fn floor_note(measured: &Measured, floor: &FloorTimes) -> String {
    let us = |times: &Histogram| float(times.value_at_quantile(0.5)) / 1000.0;
    format!(
        "put p50 / floor = {:.2}; floor {:.0} µs = client echo {:.0} + peer echo {:.0} + second \
         fastest of three syncs {:.0}, all p50, sampled in turns with the puts",
        over_floor(measured, floor),
        float(floor.p50_ns()) / 1000.0,
        us(&floor.client_echo),
        us(&floor.peer_echo),
        us(&floor.sync),
    )
}

/// The median latency over the machine's floor.
pub(crate) fn over_floor(measured: &Measured, floor: &FloorTimes) -> f64 {
    float(measured.tally.latency().value_at_quantile(0.5)) / float(floor.p50_ns().max(1))
}

/// What servers do between their slices, as a part of what they do in them, is said from here on.
const OUTSIDE_SAID: f64 = 0.03;

fn notes(measured: &Measured) -> Vec<String> {
    let Measured { name, used, tally, .. } = measured;
    let mut notes = Vec::new();
    let us = |ns: u64| significant(float(ns) / 1000.0);
    if let Some(asked) = measured.asked_per_s {
        notes.push(format!(
            "{name}: {asked} due a second, {:.0} done; asked late by p99 {} µs, max {} µs, which \
             is in the latencies; {} never asked",
            used.rate(),
            us(tally.late.value_at_quantile(0.99)),
            us(tally.late.max()),
            tally.unasked,
        ));
    }
    let kinds: Vec<String> = Kind::ALL
        .iter()
        .filter_map(|kind| tally.latency_of(*kind).map(|latency| (kind, latency)))
        .map(|(kind, latency)| {
            let at = |q: f64| us(latency.value_at_quantile(q));
            format!("{kind} {} / {}", at(0.5), at(0.99))
        })
        .collect();
    if kinds.len() > 1 {
        notes.push(format!("{name}: p50 / p99 µs: {}", kinds.join(" · ")));
    }
    if let Some((traced, own)) = measured.traced {
        let own = own.map_or_else(String::new, |own| format!(" (own counter {own:.4})"));
        notes.push(format!("{name}: syncs per put under strace {traced:.4}{own}"));
    }
    if percent(used.client.total().run_ns, used.elapsed_ns) > 80.0 {
        notes
            .push(format!("{name}: the load generator has used up its core: more may be possible"));
    }
    if used.terms > 0 {
        notes.push(format!("{name}: elections during the row: {}", used.terms));
    }
    if float(used.outside_ns) > OUTSIDE_SAID * float(used.servers_ns()) {
        let outside = us(used.outside_ns / used.ops.max(1));
        notes.push(format!(
            "{name}: between its slices its servers used another {outside} µs for each operation \
             measured"
        ));
    }
    if used.snapshots > 0 {
        let (with, slices) = (used.snapshots, measured.slices.len());
        notes.push(format!("{name}: a snapshot came into force in {with} of {slices} slices"));
    }
    if tally.wrong > 0 {
        notes.push(format!("{name}: WRONG ANSWERS: {}", tally.wrong));
    }
    notes.extend(tally.errors.iter().map(|(error, count)| format!("{name}: {count} x {error}")));
    notes
}

/// CPU of the threads with this name on all servers. Nanoseconds.
fn thread_ns(used: &Use, name: &str) -> u64 {
    let own = |threads: &Threads| threads.0.get(name).map_or(0, |cpu| cpu.run_ns);
    own(&used.leader) + own(&used.followers)
}

/// What ran beside the servers and the client. Ticks of 10 ms are coarse: never below 0.
pub(crate) fn others_ns(used: &Use) -> u64 {
    let ours = used.servers_ns() + used.client.total().run_ns;
    used.machine.busy_ns.saturating_sub(ours)
}

/// A part of a whole, in per cent.
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    100.0 * float(part) / float(whole.max(1))
}
