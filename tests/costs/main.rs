//! What an operation costs: allocations, messages, calls of the system and writes of the log, in a
//! run that always is the same, compared with what it cost before (`baseline.txt`). No time is
//! taken.
//!
//! | file | what |
//! |---|---|
//! | `costs` | the operations |
//! | `loads` | how each is asked for |
//! | `figures` | from what was counted to figures |
//! | `baseline` | what they were, and how to take new ones |
//! | `cluster` | three whole nodes, and clients, on a network and a clock that are never late |
//! | `machine` | a node's turn, as the server's loop does it |
//! | `counting` | an allocator that counts |
//! | `sampling` | where allocations come from |
//!
//! | variable | meaning |
//! |---|---|
//! | `COSTS_ACCEPT` | what is counted becomes the baseline |
//! | `COSTS_TRACE` | says of one allocation in so many where it came from; with `-- --nocapture` |
#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not reach helpers")]

mod baseline;
mod cluster;
mod costs;
mod counting;
mod figures;
mod loads;
mod machine;
mod sampling;

// The disk of the log's own tests: here nothing on it is lost.
#[path = "../wal/sim_disk.rs"]
#[allow(dead_code, reason = "made for tests that cut the power")]
#[allow(clippy::wildcard_enum_match_arm, reason = "as where it is made")]
mod sim_disk;
