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
//! | `differential` | the same requests before a real etcd |
//! | `failures` | nodes that die, requests that are no requests |
#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not reach helpers")]

#[path = "../dice.rs"]
mod dice;
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

mod certificates;
mod concurrency;
mod differential;
mod failures;
mod http;
mod kv;
mod lease;
mod operators;
mod own;
mod program;
mod range_stream;
mod reflection;
mod tls;
mod txn;
mod watch;
mod web;
