//! The table for people and the JSON for machines: the same figures.

use crate::Result;
use crate::floor::FloorTimes;
use crate::measure::{Measured, Use};
use crate::plan::Medium;
use crate::proc::{Machine, Threads};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What stands above the table, once.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The machine.
    pub(crate) machine: Machine,
    /// The file system below the disk rows' logs, and where.
    pub(crate) disk: String,
    /// The file system below the shm rows' logs, and where.
    pub(crate) memory: String,
    /// Measured seconds and slices of a row.
    pub(crate) time: String,
}

impl Facts {
    /// As lines of text.
    pub(crate) fn text(&self) -> String {
        let Machine { kernel, cpu, cores, congestion_control } = &self.machine;
        format!(
            "raftd {} · three servers and the load generator on one machine, loopback TCP\n\
             machine  Linux {kernel} · {cores} cores · {cpu} · congestion control \
             {congestion_control}\n\
             disk     {}\nshm      {}\n\
             load     closed loop, one thread; N x M: N connections with M requests in flight \
             each;\n\
             \x20        keys of 16 bytes drawn evenly, values of 256; gets are linearizable; {}\n\
             CPU      /proc/PID/task/*/schedstat, user + system, of all threads of the three \
             servers;\n\
             \x20        the median of the slices and their spread; the columns behind are means;\n\
             \x20        leader and follow. hold all their threads, sync and bg are those of all \
             three;\n\
             \x20        others: all else that ran, the kernel's own threads too; stolen: taken \
             by the host;\n\
             \x20        both, and the client's share, in % of one core\n\
             syncs    finished sync jobs of the three servers; B/op: bytes the disk took \
             meanwhile\n",
            env!("CARGO_PKG_VERSION"),
            self.disk,
            self.memory,
            self.time,
        )
    }

    fn json(&self) -> Value {
        json!({
            "raftd": env!("CARGO_PKG_VERSION"),
            "kernel": self.machine.kernel,
            "cpu": self.machine.cpu,
            "cores": self.machine.cores,
            "congestion_control": self.machine.congestion_control,
            "disk": self.disk,
            "shm": self.memory,
            "time": self.time,
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
    ("follow.", 8),
    ("sync", 8),
    ("bg", 7),
    ("|client", 8),
    ("core%", 6),
    ("others", 7),
    ("stolen", 7),
    ("|syncs/op", 10),
    ("B/op", 7),
    ("errors", 7),
];

fn table_line(name: &str, cells: impl Iterator<Item = String>) -> String {
    let mut line = format!("{name:<21}");
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

/// One line of the table, and one more for everything that must be said of the row.
pub(crate) fn line(measured: &Measured) -> String {
    let Measured { used, tally, slices_ns, .. } = measured;
    let us = |ns: u64| float(ns) / 1000.0;
    let latency = |q: f64| format!("{:.0}", us(tally.latency.value_at_quantile(q)));
    let cpu = |ns: u64| format!("{:.2}", us(ns) / float(used.ops.max(1)));
    let share = |ns: u64| format!("{:.0}", percent(ns, used.elapsed_ns));
    let (least, most) = spread(slices_ns);
    let written = match measured.row.medium {
        Medium::Disk => format!("{:.0}", float(used.written) / float(used.ops.max(1))),
        Medium::Memory => "-".to_owned(),
    };
    let cells = [
        format!("{:.0}", ops_per_second(used)),
        latency(0.5),
        latency(0.99),
        latency(0.999),
        latency(1.0),
        format!("{:.2}", us(median(slices_ns))),
        format!("[{:.2}..{:.2}]", us(least), us(most)),
        cpu(used.leader.total().run_ns),
        cpu(used.followers.total().run_ns),
        cpu(thread_ns(used, "sync")),
        cpu(thread_ns(used, "bg")),
        cpu(used.client.total().run_ns),
        share(used.client.total().run_ns),
        share(others_ns(used)),
        share(used.machine.stolen_ns),
        format!("{:.4}", float(used.syncs) / float(used.ops.max(1))),
        written,
        (tally.errors() + tally.wrong).to_string(),
    ];
    let mut line = table_line(&measured.row.to_string(), cells.into_iter());
    for note in notes(measured) {
        let _infallible = write!(line, "\n    {note}");
    }
    line
}

fn notes(measured: &Measured) -> Vec<String> {
    let Measured { used, tally, .. } = measured;
    let mut notes = Vec::new();
    if let Some(floor) = &measured.floor {
        let us = |times: &Histogram<u64>| float(times.value_at_quantile(0.5)) / 1000.0;
        notes.push(format!(
            "put p50 / floor = {:.2}; floor {:.0} µs = client echo {:.0} + peer echo {:.0} + \
            second \
             fastest of three syncs {:.0}, all p50, sampled in turns with the puts",
            floor_ratio(measured, floor),
            float(floor.p50_ns()) / 1000.0,
            us(&floor.client_echo),
            us(&floor.peer_echo),
            us(&floor.sync),
        ));
    }
    if used.terms > 0 || measured.restarts > 0 {
        let (terms, restarts) = (used.terms, measured.restarts);
        notes.push(format!("elections during the row: {terms}; began anew: {restarts}"));
    }
    if tally.wrong > 0 {
        notes.push(format!("WRONG ANSWERS: {}", tally.wrong));
    }
    notes.extend(tally.errors.iter().map(|(error, count)| format!("{count} times: {error}")));
    notes
}

/// The row as JSON.
pub(crate) fn json(measured: &Measured) -> Value {
    let Measured { row, used, tally, slices_ns, floor, restarts } = measured;
    let per_op = |n: u64| float(n) / float(used.ops.max(1));
    let us = |ns: u64| float(ns) / 1000.0;
    let per_op_us = |ns: u64| us(ns) / float(used.ops.max(1));
    let quantile = |q: f64| us(tally.latency.value_at_quantile(q));
    let threads = |threads: &Threads| -> Value {
        let each = threads.0.iter();
        each.map(|(name, cpu)| (name.clone(), json!(per_op_us(cpu.run_ns)))).collect()
    };
    let slices: Vec<f64> = slices_ns.iter().map(|ns| us(*ns)).collect();
    let floor = floor.as_ref().map(|floor| {
        json!({
            "p50_us": us(floor.p50_ns()),
            "client_echo_p50_us": us(floor.client_echo.value_at_quantile(0.5)),
            "peer_echo_p50_us": us(floor.peer_echo.value_at_quantile(0.5)),
            "sync_p50_us": us(floor.sync.value_at_quantile(0.5)),
            "put_p50_over_floor": floor_ratio(measured, floor),
        })
    });
    json!({
        "name": row.to_string(),
        "connections": row.shape.connections,
        "in_flight": row.shape.connections * row.shape.depth,
        "keys": row.keys,
        "seconds": float(used.elapsed_ns) / 1e9,
        "ops": used.ops,
        "ops_per_s": ops_per_second(used),
        "latency_us": {
            "p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99),
            "p99_9": quantile(0.999), "max": us(tally.latency.max()),
        },
        "server_cpu_us_per_op": us(median(slices_ns)),
        "server_cpu_us_per_op_slices": slices,
        "leader_threads_us_per_op": threads(&used.leader),
        "followers_threads_us_per_op": threads(&used.followers),
        "server_ready_but_waiting_us_per_op":
            per_op_us(used.leader.total().wait_ns + used.followers.total().wait_ns),
        "client_cpu_us_per_op": per_op_us(used.client.total().run_ns),
        "client_core_percent": percent(used.client.total().run_ns, used.elapsed_ns),
        "others_core_percent": percent(others_ns(used), used.elapsed_ns),
        "stolen_percent": percent(used.machine.stolen_ns, used.elapsed_ns),
        "syncs_per_op": per_op(used.syncs),
        "written_bytes_per_op": (row.medium == Medium::Disk).then(|| per_op(used.written)),
        "written_mb_per_s": float(used.written) * 1e3 / float(used.elapsed_ns.max(1)),
        "elections": used.terms,
        "restarts": restarts,
        "errors": tally.errors,
        "wrong_answers": tally.wrong,
        "floor": floor,
    })
}

/// The whole result as JSON.
pub(crate) fn document(facts: &Facts, rows: &[Value]) -> Result<String> {
    Ok(serde_json::to_string_pretty(&json!({ "facts": facts.json(), "rows": rows }))?)
}

fn ops_per_second(used: &Use) -> f64 {
    float(used.ops) * 1e9 / float(used.elapsed_ns.max(1))
}

fn floor_ratio(measured: &Measured, floor: &FloorTimes) -> f64 {
    float(measured.tally.latency.value_at_quantile(0.5)) / float(floor.p50_ns().max(1))
}

/// CPU of the threads with this name on all servers. Nanoseconds.
fn thread_ns(used: &Use, name: &str) -> u64 {
    let own = |threads: &Threads| threads.0.get(name).map_or(0, |cpu| cpu.run_ns);
    own(&used.leader) + own(&used.followers)
}

/// What ran beside the servers and the client. Ticks of 10 ms are coarse: never below 0.
fn others_ns(used: &Use) -> u64 {
    let ours = used.servers_ns() + used.client.total().run_ns;
    used.machine.busy_ns.saturating_sub(ours)
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * float(part) / float(whole.max(1))
}

fn median(slices_ns: &[u64]) -> u64 {
    let mut sorted = slices_ns.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn spread(slices_ns: &[u64]) -> (u64, u64) {
    let least = slices_ns.iter().min().copied().unwrap_or_default();
    (least, slices_ns.iter().max().copied().unwrap_or_default())
}

/// A count as a number to divide: exact below 2^53.
fn float(count: u64) -> f64 {
    let half = |part: u64| f64::from(u32::try_from(part).expect("32 bits"));
    half(count >> 32) * 4_294_967_296.0 + half(count & 0xffff_ffff)
}
