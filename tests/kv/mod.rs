//! The meaning: every answer against a slow model, every node against every other, every format as
//! stored.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod checkpoint;
mod determinism;
mod formats;
mod leases;
mod memory;
mod model;
mod quota;
mod reference;
mod semantics;
mod sessions;
mod support;
mod transactions;
mod walks;
mod watches;
mod whole_model;
