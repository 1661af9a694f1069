//! status: every endpoint's own view, side by side.

use raftd::client::{Client, ConnectionError};
use raftd::wire::status::{PeerStatus, Status, TurnBucket, TurnTimes};
use serde_json::{Value, json};

use super::args::Format;
use super::exit::End;
use super::output::{json_line, table, text_of};
use super::save::share;
use super::turns;

pub(crate) type Answer = (String, Result<Status, ConnectionError>);

/// What a person wants to see of every endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum View {
    /// Who it is and how far.
    State,
    /// How long the turns of its loop were.
    Turns,
}

/// What there is to print, and whether all is well: every endpoint answers, one leads, and none has
/// another state than the rest. A program gets all of it, whatever the view.
pub(crate) fn status(client: &Client, format: Format, view: View) -> (Vec<u8>, End) {
    let answers = client.status_all();
    let lines = |line: fn(&Answer) -> String| answers.iter().map(line).collect::<String>();
    let rows = |row: fn(&Answer) -> Vec<String>| answers.iter().map(row).collect::<Vec<_>>();
    let text = match (format, view) {
        (Format::Simple, View::State) => lines(line).into_bytes(),
        (Format::Simple, View::Turns) => lines(turns::line).into_bytes(),
        (Format::Json, View::State | View::Turns) => {
            json_line(&Value::Array(answers.iter().map(object).collect()))
        }
        (Format::Table, View::State) => table(HEADINGS, &rows(row)),
        (Format::Table, View::Turns) => table(turns::HEADINGS, &rows(turns::row)),
    };
    (text, health(&answers))
}

fn health(answers: &[Answer]) -> End {
    let reached: Vec<_> = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).collect();
    if reached.is_empty() {
        End::Unavailable
    } else if reached.len() == answers.len()
        && reached.iter().any(|node| node.leader.is_some())
        && reached.iter().all(|node| trouble(node).is_none())
    {
        End::Done
    } else {
        End::Unhealthy
    }
}

/// What a person should know of its state.
fn trouble(node: &Status) -> Option<String> {
    let differs = (node.state != "sound").then(|| {
        let agreed = node.state_agreed_index;
        format!("state={} agreed={agreed}", node.state)
    });
    let full = node.out_of_space.then(|| "out_of_space".to_owned());
    let all: Vec<String> = differs.into_iter().chain(full).collect();
    (!all.is_empty()).then(|| all.join(" "))
}

/// What is not as always: trouble, and the snapshots that are on their way.
fn notes(node: &Status) -> Vec<String> {
    let comes = (node.snapshot_expected > 0).then(|| {
        format!("snapshot_received={}%", share(node.snapshot_received, node.snapshot_expected))
    });
    let goes = node.peers.iter().filter(|peer| peer.snapshot_bytes > 0).map(|peer| {
        let part = share(peer.snapshot_sent, peer.snapshot_bytes);
        format!("snapshot_sent={}:{part}%", peer.node)
    });
    trouble(node).into_iter().chain(comes).chain(goes).collect()
}

fn line((endpoint, answer): &Answer) -> String {
    match answer {
        Ok(node) => format!(
            "{endpoint} {} {} term={} leader={} commit={} applied={} last={} revision={} \
             hash={:016x} version={}{}\n",
            node.node,
            node.role,
            node.term,
            leader(node),
            node.commit_index,
            node.applied_index,
            node.last_index,
            node.revision,
            node.state_hash,
            node.version,
            notes(node).iter().map(|note| format!(" {note}")).collect::<String>(),
        ),
        Err(why) => format!("{endpoint} error={}\n", text_of(why)),
    }
}

const HEADINGS: &[&str] = &[
    "ENDPOINT",
    "NODE",
    "ROLE",
    "TERM",
    "LEADER",
    "COMMIT",
    "APPLIED",
    "LAST",
    "REVISION",
    "STATE HASH",
    "VERSION",
    "NOTE",
];

fn row((endpoint, answer): &Answer) -> Vec<String> {
    let mut row = vec![endpoint.clone()];
    match answer {
        Ok(node) => row.extend([
            node.node.to_string(),
            node.role.clone(),
            node.term.to_string(),
            leader(node),
            node.commit_index.to_string(),
            node.applied_index.to_string(),
            node.last_index.to_string(),
            node.revision.to_string(),
            format!("{:016x}", node.state_hash),
            node.version.clone(),
            notes(node).join(" "),
        ]),
        Err(why) => {
            row.resize(HEADINGS.len() - 1, "-".to_owned());
            row.push(text_of(why));
        }
    }
    row
}

fn object((endpoint, answer): &Answer) -> Value {
    match answer {
        Ok(node) => json!({
            "endpoint": endpoint,
            "id": node.node.get(),
            "role": node.role,
            "term": node.term.get(),
            "leader": node.leader.map(|leader| leader.get()),
            "leader_address": node.leader_address,
            "commit_index": node.commit_index.get(),
            "applied_index": node.applied_index.get(),
            "last_index": node.last_index.get(),
            "durable_index": node.durable_index.get(),
            "revision": node.revision.0,
            "compact_revision": node.compact_revision.0,
            "state_hash": format!("{:016x}", node.state_hash),
            "version": node.version,
            "cluster_id": node.cluster_id.to_string(),
            "keys": node.keys,
            "history_bytes": node.history_bytes,
            "log_bytes": node.log_bytes,
            "connections": node.connections,
            "out_of_space": node.out_of_space,
            "syncs": node.syncs,
            "lease_drift_ppm": node.lease_drift_ppm,
            "sessions": node.sessions,
            "log_base": node.log_base.get(),
            "snapshot_index": node.snapshot_index.get(),
            "snapshot_bytes": node.snapshot_bytes,
            "snapshot_received": node.snapshot_received,
            "snapshot_expected": node.snapshot_expected,
            "turn_times": turn_times(&node.turn_times),
            "state": node.state,
            "state_agreed_index": node.state_agreed_index.get(),
            "state_reloads": node.state_reloads,
            "lease_reads": node.lease_reads,
            "peers": node.peers.iter().map(peer).collect::<Vec<_>>(),
        }),
        Err(why) => json!({ "endpoint": endpoint, "error": text_of(why) }),
    }
}

fn peer(peer: &PeerStatus) -> Value {
    json!({
        "id": peer.node.get(),
        "address": peer.address,
        "connected": peer.connected,
        "match_index": peer.match_index.get(),
        "snapshot_sent": peer.snapshot_sent,
        "snapshot_bytes": peer.snapshot_bytes,
    })
}

fn turn_times(times: &TurnTimes) -> Value {
    json!({
        "longest_cpu_us": times.longest_cpu_us,
        "longest_wall_us": times.longest_wall_us,
        "buckets": times.buckets.iter().map(bucket).collect::<Vec<_>>(),
    })
}

fn bucket(bucket: &TurnBucket) -> Value {
    json!({ "at_most_us": bucket.at_most_us, "cpu": bucket.cpu, "wall": bucket.wall })
}

fn leader(node: &Status) -> String {
    node.leader.map_or_else(|| "-".to_owned(), |leader| leader.to_string())
}
