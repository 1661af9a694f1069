//! What bench prints.

use raftd::client::load::{Histogram, Kind, Pace, Tally, float};
use serde_json::{Map, Value, json};

use super::super::args::Format;
use super::super::output::{json_line, table};
use super::args::BenchArgs;

/// What was measured.
#[derive(Debug)]
pub(super) struct Measured {
    /// How long. Nanoseconds.
    pub(super) elapsed_ns: u64,
    /// Operations done in that time.
    pub(super) ops: u64,
    /// CPU that this process used meanwhile. Nanoseconds.
    pub(super) cpu_ns: u64,
    /// Syncs of the servers that were asked, and how many servers; `None`: not all answered.
    pub(super) syncs: Option<(u64, usize)>,
    /// Latencies, refusals, wrong answers.
    pub(super) tally: Tally,
}

impl Measured {
    fn rate(&self) -> f64 {
        float(self.ops) * 1e9 / float(self.elapsed_ns.max(1))
    }

    fn seconds(&self) -> f64 {
        float(self.elapsed_ns) / 1e9
    }

    fn per_op(&self, count: u64) -> f64 {
        float(count) / float(self.ops.max(1))
    }

    /// The share of one core that this process used. Per cent.
    fn core(&self) -> f64 {
        100.0 * float(self.cpu_ns) / float(self.elapsed_ns.max(1))
    }

    fn kinds(&self) -> impl Iterator<Item = (Kind, &Histogram)> {
        Kind::ALL.iter().filter_map(|kind| Some((*kind, self.tally.latency_of(*kind)?)))
    }
}

pub(super) fn report(format: Format, args: &BenchArgs, measured: &Measured) -> Vec<u8> {
    match format {
        Format::Simple => simple(args, measured).into_bytes(),
        Format::Json => json_line(&json(args, measured)),
        Format::Table => rows(measured),
    }
}

fn simple(args: &BenchArgs, measured: &Measured) -> String {
    let Measured { ops, tally, .. } = measured;
    let shape = args.shape();
    let pace = match args.pace() {
        Pace::Closed => "closed loop".to_owned(),
        Pace::Open { per_second } => format!("{per_second} due a second"),
    };
    let mut lines = vec![
        format!(
            "load      {}, {pace}, {} x {} in flight, {} keys",
            args.said(),
            shape.connections,
            shape.depth,
            args.keys
        ),
        format!("done      {ops} in {:.1} s, {:.0} a second", measured.seconds(), measured.rate()),
        format!("latency   {}", quantiles(&tally.latency())),
    ];
    if measured.kinds().count() > 1 {
        let kinds = measured.kinds();
        lines.extend(kinds.map(|(kind, latency)| format!("  {kind}: {}", quantiles(latency))));
    }
    if let Pace::Open { .. } = args.pace() {
        let late = milliseconds(tally.late.value_at_quantile(0.99));
        let (unasked, why) = (tally.unasked, "the cluster did not keep up");
        lines.push(format!("asked     p99 {late} late, which is in the latencies"));
        if unasked > 0 {
            lines.push(format!("unasked   {unasked}: {why}"));
        }
    }
    if let Some((syncs, servers)) = measured.syncs {
        let per_op = measured.per_op(syncs);
        lines.push(format!("syncs     {per_op:.4} for an operation, of {servers} servers"));
    }
    let us = measured.per_op(measured.cpu_ns) / 1000.0;
    let busy = if measured.core() > 80.0 { ": it may be what holds the cluster up" } else { "" };
    lines.push(format!("raftctl   {us:.2} µs CPU, {:.0} % of a core{busy}", measured.core()));
    if tally.repeated > 0 {
        lines.push(format!("repeated  {}", tally.repeated));
    }
    lines.extend(tally.errors.iter().map(|(why, count)| format!("refused   {count}: {why}")));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn quantiles(latency: &Histogram) -> String {
    let at = |quantile: f64| milliseconds(latency.value_at_quantile(quantile));
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        milliseconds(latency.max())
    )
}

fn milliseconds(ns: u64) -> String {
    let ms = float(ns) / 1e6;
    if ms >= 100.0 {
        format!("{ms:.0} ms")
    } else if ms >= 10.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{ms:.2} ms")
    }
}

fn json(args: &BenchArgs, measured: &Measured) -> Value {
    let Measured { ops, tally, .. } = measured;
    let shape = args.shape();
    let kinds: Map<String, Value> =
        measured.kinds().map(|(kind, latency)| (kind.to_string(), microseconds(latency))).collect();
    let rate = match args.pace() {
        Pace::Closed => None,
        Pace::Open { per_second } => Some(per_second),
    };
    json!({
        "workload": args.said(),
        "keys": args.keys,
        "connections": shape.connections,
        "in_flight": shape.connections * shape.depth,
        "rate": rate,
        "seconds": measured.seconds(),
        "ops": ops,
        "ops_per_s": measured.rate(),
        "latency_us": microseconds(&tally.latency()),
        "latency_us_by_kind": kinds,
        "asked_late_us": rate.map(|_| microseconds(&tally.late)),
        "never_asked": tally.unasked,
        "repeated": tally.repeated,
        "errors": tally.errors,
        "wrong_answers": tally.wrong,
        "syncs_per_op": measured.syncs.map(|(syncs, _)| measured.per_op(syncs)),
        "raftctl_cpu_us_per_op": measured.per_op(measured.cpu_ns) / 1000.0,
        "raftctl_core_percent": measured.core(),
    })
}

fn microseconds(latency: &Histogram) -> Value {
    let at = |quantile: f64| float(latency.value_at_quantile(quantile)) / 1000.0;
    json!({
        "count": latency.len(),
        "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99_9": at(0.999),
        "max": float(latency.max()) / 1000.0,
    })
}

fn rows(measured: &Measured) -> Vec<u8> {
    let headings = ["OPERATION", "DONE", "A SECOND", "P50", "P90", "P99", "P99.9", "MAX"];
    let row = |name: String, latency: &Histogram| {
        let at = |quantile: f64| milliseconds(latency.value_at_quantile(quantile));
        let rate = float(latency.len()) / measured.seconds();
        vec![
            name,
            latency.len().to_string(),
            format!("{rate:.0}"),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            milliseconds(latency.max()),
        ]
    };
    let rows: Vec<_> =
        measured.kinds().map(|(kind, latency)| row(kind.to_string(), latency)).collect();
    table(&headings, &rows)
}
