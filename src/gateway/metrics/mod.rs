//! What was asked of the gateway, and what became of it: numbers for `/metrics`.
//!
//! Calls are counted by the names under which the servers of gRPC in Go have them, and etcd's with
//! them, so that dashboards find them. All that etcd has beside those is of its own machinery.
mod counted;
mod process;

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prost_reflect::{DescriptorPool, MethodDescriptor};
use tonic::Code;

use super::calls::Cluster;
use super::watch::inbox::Waiting;

pub(super) use counted::Counted;

/// The codes by their numbers, as they are written.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// What has become of a handshake of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Handshake {
    /// A connection.
    Done,
    /// Nothing: one did not want the other, or the client has gone.
    Failed,
    /// Nothing within its time.
    Late,
    /// Nothing: the client speaks something else.
    Bare,
    /// Nothing: the client has hung up without a word.
    Silent,
    /// Nothing: another one has taken its place.
    Displaced,
}

/// All of them, as they are written.
const HANDSHAKES: [(Handshake, &str); 6] = [
    (Handshake::Done, "done"),
    (Handshake::Failed, "failed"),
    (Handshake::Late, "late"),
    (Handshake::Bare, "bare"),
    (Handshake::Silent, "silent"),
    (Handshake::Displaced, "displaced"),
];

/// All numbers.
pub(super) struct Metrics {
    /// In the order of their paths.
    rpcs: Vec<Rpc>,
    /// In the order of `HANDSHAKES`.
    handshakes: [AtomicU64; HANDSHAKES.len()],
}

struct Rpc {
    path: String,
    /// What names it in a line.
    labels: String,
    /// Whether its end is only known when its body ends.
    answers_many: bool,
    started: AtomicU64,
    handled: [AtomicU64; CODES.len()],
}

/// A call that is under way. If it is dropped its client has left.
struct Tally {
    metrics: Arc<Metrics>,
    rpc: usize,
    ended: bool,
}

impl Rpc {
    fn of(method: &MethodDescriptor) -> Rpc {
        let (service, name) = (method.parent_service(), method.name());
        let service = service.full_name();
        let kind = match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => "unary",
            (true, false) => "client_stream",
            (false, true) => "server_stream",
            (true, true) => "bidi_stream",
        };
        Rpc {
            path: format!("/{service}/{name}"),
            labels: format!(r#"grpc_method="{name}",grpc_service="{service}",grpc_type="{kind}""#),
            answers_many: method.is_server_streaming(),
            started: AtomicU64::new(0),
            handled: Default::default(),
        }
    }
}

impl Metrics {
    /// For the methods of these services.
    pub(super) fn new(pools: &[&DescriptorPool]) -> Arc<Metrics> {
        let services: Vec<_> = pools.iter().flat_map(|pool| pool.services()).collect();
        let methods = services.iter().flat_map(|service| service.methods());
        let mut rpcs: Vec<Rpc> = methods.map(|method| Rpc::of(&method)).collect();
        rpcs.sort_by(|one, other| one.path.cmp(&other.path));
        Arc::new(Metrics { rpcs, handshakes: Default::default() })
    }

    /// Counts a handshake.
    pub(super) fn count(&self, what: Handshake) {
        for ((outcome, _), count) in HANDSHAKES.iter().zip(&self.handshakes) {
            if *outcome == what {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts a call. Of a path that nobody serves nothing is counted.
    fn begin(self: &Arc<Metrics>, path: &str) -> Option<Tally> {
        let rpc = self.rpcs.binary_search_by(|rpc| rpc.path.as_str().cmp(path)).ok()?;
        self.rpcs[rpc].started.fetch_add(1, Ordering::Relaxed);
        Some(Tally { metrics: Arc::clone(self), rpc, ended: false })
    }

    /// All of it, in Prometheus' text.
    pub(super) fn text(&self, cluster: &Cluster, waiting: &Waiting) -> String {
        let mut out = String::new();
        // A text takes whatever is written.
        let _never = self.write(cluster, waiting, &mut out);
        out
    }

    fn write(&self, cluster: &Cluster, waiting: &Waiting, out: &mut String) -> fmt::Result {
        head(out, "grpc_server_started_total", "counter", "RPCs that were begun.")?;
        for Rpc { labels, started, .. } in &self.rpcs {
            let count = started.load(Ordering::Relaxed);
            writeln!(out, "grpc_server_started_total{{{labels}}} {count}")?;
        }
        head(out, "grpc_server_handled_total", "counter", "RPCs that have ended, by their code.")?;
        for Rpc { labels, handled, .. } in &self.rpcs {
            for (code, count) in CODES.iter().zip(handled) {
                let count = count.load(Ordering::Relaxed);
                // Most codes never come. The first is there from the beginning.
                if count > 0 || *code == CODES[0] {
                    let code = format_args!(r#"grpc_code="{code}""#);
                    writeln!(out, "grpc_server_handled_total{{{code},{labels}}} {count}")?;
                }
            }
        }
        let handshakes = "raftd_gateway_tls_handshakes_total";
        head(out, handshakes, "counter", "Handshakes of TLS, by what has become of them.")?;
        for ((_, outcome), count) in HANDSHAKES.iter().zip(&self.handshakes) {
            let count = count.load(Ordering::Relaxed);
            writeln!(out, r#"{handshakes}{{outcome="{outcome}"}} {count}"#)?;
        }
        let standing = *cluster.nodes.standing().borrow();
        let gauges = [
            ("etcd_server_has_leader", "Whether a leader is known.", {
                u64::from(standing.leader.is_some())
            }),
            ("raftd_gateway_nodes_connected", "Nodes of the cluster with a connection.", {
                u64::try_from(standing.connected).unwrap_or(u64::MAX)
            }),
            ("raftd_gateway_term", "The highest term that was heard of.", cluster.nodes.term()),
            ("raftd_gateway_revision", "The highest revision that was heard of.", {
                cluster.nodes.revision().0
            }),
            ("raftd_gateway_watch_waiting_bytes", "Events that wait for clients to take them.", {
                u64::try_from(waiting.bytes()).unwrap_or(u64::MAX)
            }),
            ("raftd_gateway_answers_waiting_bytes", "Large answers that clients have not read.", {
                u64::try_from(cluster.answers.taken()).unwrap_or(u64::MAX)
            }),
        ];
        for (name, help, value) in gauges {
            head(out, name, "gauge", help)?;
            writeln!(out, "{name} {value}")?;
        }
        let of_process = [
            ("process_resident_memory_bytes", "Memory in use.", process::resident()),
            ("process_open_fds", "Open descriptors.", process::descriptors()),
        ];
        for (name, help, value) in of_process {
            let Some(value) = value else { continue };
            head(out, name, "gauge", help)?;
            writeln!(out, "{name} {value}")?;
        }
        head(out, "raftd_gateway_info", "gauge", "Always 1; what runs is in the label.")?;
        writeln!(out, r#"raftd_gateway_info{{version="{}"}} 1"#, env!("CARGO_PKG_VERSION"))
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

impl Tally {
    fn answers_many(&self) -> bool {
        self.metrics.rpcs[self.rpc].answers_many
    }

    /// The call has ended so.
    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            let code = usize::try_from(i32::from(code)).unwrap_or(0);
            self.metrics.rpcs[self.rpc].handled[code].fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}
