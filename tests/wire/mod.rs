//! The wire: every message there and back, and whatever bytes may come instead; the client against
//! servers that behave as scripted.
#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not reach helpers")]
mod auth;
mod client;
mod client_session;
mod hostile;
mod leases;
mod messages;
mod ranges;
pub(crate) mod samples;
mod states;
mod transactions;
mod watches;
