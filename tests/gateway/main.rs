//! The gateway: real clusters, the real program before them, and clients made from the same .proto
//! files.
//!
//! | file | what |
//! |---|---|
//! | `program` | the gateway's process, and clients of it |
//! | `kv` | puts, reads, deletes, compaction |
//! | `txn` | transactions |
//! | `lease` | leases, kept alive and left alone |
//! | `watch` | watches, from then and from now on |
//! | `concurrency` | locks and elections |
//! | `range_stream` | ranges in pieces |
//! | `tls` | TLS: who is served, and files that change |
//! | `certificates` | what that takes |
//! | `web` | a client of HTTP |
//! | `http` | JSON, health, version, numbers |
//! | `operators` | members, status, hashes, snapshots, health |
//! | `reflection` | what is served |
//! | `own` | raftd's own services |
//! | `users` | requests of the Auth service, and in somebody's name |
//! | `auth` | users, roles and rights |
//! | `differential` | the same requests before a real etcd |
//! | `asking`, `hearing` | clients whose answers, and watches whose events, are judged |
//! | `logged` | the log that judges them |
//! | `chaos` | both, while nodes and gateways die |
//! | `kubernetes` | Kubernetes' way of using it, while leaders die |
//! | `crowds` | thousands of streams that come and go |
//! | `failures` | nodes that die, requests that are no requests |
#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not reach helpers")]

#[path = "../addresses.rs"]
mod addresses;
// The judge of histories.
#[path = "../sim/history/mod.rs"]
#[allow(dead_code, reason = "made for more tests than these")]
mod checker;
#[path = "../dice.rs"]
mod dice;
#[path = "../cluster/finals.rs"]
mod finals;
// Whole clusters, as the tests of the server start them; not all of what those need is needed here.
#[path = "../cluster/harness.rs"]
#[allow(clippy::wildcard_enum_match_arm, reason = "any other answer fails the test")]
#[allow(dead_code, reason = "made for more tests than these")]
mod harness;
#[path = "../cluster/links.rs"]
#[allow(dead_code, reason = "made for more tests than these")]
mod links;
#[path = "../cluster/patience.rs"]
#[allow(dead_code, reason = "made for more tests than these")]
mod patience;
#[path = "../cluster/turns.rs"]
#[allow(dead_code, reason = "made for more tests than these")]
mod turns;
#[path = "../untested.rs"]
#[allow(dead_code, reason = "made for more tests than these")]
mod untested;

mod asking;
mod auth;
mod certificates;
mod chaos;
mod concurrency;
mod crowds;
mod differential;
mod failures;
mod hearing;
mod http;
mod kubernetes;
mod kv;
mod lease;
mod logged;
mod operators;
mod own;
mod program;
mod range_stream;
mod reflection;
mod said;
mod tls;
mod txn;
mod users;
mod watch;
mod web;

/// Where those who share them with other tests look for them.
mod history {
    pub(crate) use crate::checker;
}

/// What an environment variable says, which makes a test longer or repeats its choices.
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}
