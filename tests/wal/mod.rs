//! wal.
#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not reach helpers")]
pub(crate) mod sim_disk;
