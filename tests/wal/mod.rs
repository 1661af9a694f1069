//! The record under attack: power losses at any operation, damage at any byte.
#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not reach helpers")]

mod attack;
mod fail;
mod power_loss;
mod sim_disk;
mod support;
