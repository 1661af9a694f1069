//! The meaning: every answer against a slow model, every node against every other, every format as
//! stored.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod auth;
mod checkpoint;
mod determinism;
mod formats;
mod gate;
mod leases;
mod listeners;
mod memory;
mod model;
mod quota;
mod reference;
mod rights;
mod semantics;
mod sessions;
mod support;
mod transactions;
mod walks;
mod watches;
mod whole_model;
