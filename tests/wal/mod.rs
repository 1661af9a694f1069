//! The record under attack: power losses, damage, full disks, failing syncs.
#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not reach helpers")]
#![allow(clippy::wildcard_enum_match_arm, reason = "whatever else it is, the test has failed")]

mod attack;
mod attack_state;
mod fail;
mod golden;
mod inspection;
mod operating_system;
mod power_loss;
mod reopened;
mod restore;
mod room;
pub(crate) mod sim_disk;
mod snapshots;
pub(crate) mod support;
mod traced;
