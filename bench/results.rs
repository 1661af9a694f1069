//! The same figures as the tables', and more, for machines.

use crate::Result;
use crate::contest::{Against, Measured, Outcome, Slice};
use crate::floor::FloorTimes;
use crate::parts::Figures;
use crate::proc::Threads;
use crate::report::{Facts, others_ns, over_floor, percent};
use crate::rows::{Group, Medium};
use crate::stats::Spread;
use raftd::client::load::{Histogram, Kind, float};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Writes a document of `rows` beside the facts. Returns where.
pub(crate) fn write(directory: &Path, name: &str, facts: &Facts, rows: &Value) -> Result<PathBuf> {
    let path = directory.join(format!("{name}.json"));
    let document = json!({ "facts": facts.json(), "rows": rows });
    fs::write(&path, serde_json::to_string_pretty(&document)?)?;
    Ok(path)
}

/// A measured row.
pub(crate) fn row(group: &Group, outcome: &Outcome, figures: &Figures) -> Value {
    let systems: Vec<Value> = outcome.of.iter().map(|measured| system(group, measured)).collect();
    let against: Vec<Value> = outcome.against.iter().map(ratios).collect();
    json!({
        "name": outcome.row.name,
        "connections": outcome.row.shape.connections,
        "in_flight": outcome.row.shape.connections * outcome.row.shape.depth,
        "medium": group.medium.to_string(),
        "value_bytes": group.value_bytes,
        "systems": systems,
        "ratios": against,
        "floor": outcome.floor.as_ref().map(|floor| floor_of(&outcome.of[0], floor)),
        "parts_ns": figures.of_row(group, &outcome.row).map(|(ns, _)| ns),
        "not_compared_with": outcome.missing.iter().map(|who| who.program()).collect::<Vec<_>>(),
        "slices_measured_again": outcome.again,
    })
}

fn system(group: &Group, measured: &Measured) -> Value {
    let Measured { used, tally, slices, .. } = measured;
    let per_op = |n: u64| float(n) / float(used.ops.max(1));
    let per_op_us = |ns: u64| per_op(ns) / 1000.0;
    let threads = |threads: &Threads| -> Value {
        let each = threads.0.iter();
        each.map(|(name, cpu)| (name.clone(), json!(per_op_us(cpu.run_ns)))).collect()
    };
    let spread = |figure: fn(&Slice) -> f64| Spread::of(slices.iter().map(figure));
    let kinds: Map<String, Value> = Kind::ALL
        .iter()
        .filter_map(|kind| tally.latency_of(*kind).map(|found| (kind.to_string(), latency(found))))
        .collect();
    json!({
        "name": measured.name,
        "nodes": measured.who.nodes(group.nodes),
        "keys": group.keys_of(measured.who),
        "seconds": float(used.elapsed_ns) / 1e9,
        "ops": used.ops,
        "ops_per_s": used.rate(),
        "ops_per_s_slices": spread(|slice| slice.rate).map(|spread| spread.json()),
        "asked_per_s": measured.asked_per_s,
        "latency_us": latency(&tally.latency()),
        "latency_us_by_kind": kinds,
        "never_asked": tally.unasked,
        "asked_late_us": measured.asked_per_s.map(|_| latency(&tally.late)),
        "server_cpu_us_per_op": spread(|slice| slice.cpu_us).map(|spread| spread.json()),
        "server_cpu_us_per_op_slices":
            slices.iter().map(|slice| slice.cpu_us).collect::<Vec<f64>>(),
        "leader_threads_us_per_op": threads(&used.leader),
        "other_servers_threads_us_per_op": threads(&used.followers),
        "server_ready_but_waiting_us_per_op":
            per_op_us(used.leader.total().wait_ns + used.followers.total().wait_ns),
        "client_cpu_us_per_op": per_op_us(used.client.total().run_ns),
        "client_core_percent": percent(used.client.total().run_ns, used.elapsed_ns),
        "server_cpu_outside_us_per_op": per_op_us(used.outside_ns),
        "others_core_percent": percent(others_ns(used), used.elapsed_ns),
        "stolen_percent": percent(used.machine.stolen_ns, used.elapsed_ns),
        "syncs_per_op": used.syncs_per_op(),
        "syncs_per_put_strace": measured.traced.map(|(traced, _)| traced),
        "syncs_per_put_own_counter_under_strace": measured.traced.and_then(|(_, own)| own),
        "written_bytes_per_op": (group.medium == Medium::Disk).then(|| per_op(used.written)),
        "written_mb_per_s": float(used.written) * 1e3 / float(used.elapsed_ns.max(1)),
        "elections": used.terms,
        "slices_with_a_snapshot": used.snapshots,
        "errors": tally.errors,
        "wrong_answers": tally.wrong,
    })
}

/// Quantiles of a histogram. Microseconds.
pub(crate) fn latency(found: &Histogram) -> Value {
    let us = |quantile: f64| float(found.value_at_quantile(quantile)) / 1000.0;
    json!({
        "count": found.len(),
        "p50": us(0.5), "p90": us(0.9), "p99": us(0.99), "p99_9": us(0.999),
        "max": float(found.max()) / 1000.0,
    })
}

fn ratios(against: &Against) -> Value {
    let spread = |spread: &Option<Spread>| spread.map(|spread| spread.json());
    json!({
        "against": against.name,
        "server_cpu_per_op": spread(&against.cpu),
        "ops_per_s": spread(&against.rate),
        "p50": spread(&against.p50),
        "p99_9_over_p50": against.tail.is_finite().then_some(against.tail),
        "syncs_per_op": spread(&against.syncs),
        "syncs_per_put_strace": against.traced,
    })
}

fn floor_of(measured: &Measured, floor: &FloorTimes) -> Value {
    let us = |times: &Histogram| float(times.value_at_quantile(0.5)) / 1000.0;
    json!({
        "p50_us": float(floor.p50_ns()) / 1000.0,
        "client_echo_p50_us": us(&floor.client_echo),
        "peer_echo_p50_us": us(&floor.peer_echo),
        "sync_p50_us": us(&floor.sync),
        "put_p50_over_floor": over_floor(measured, floor),
    })
}
