//! The record under attack: power losses, damage, full disks, failing syncs.
mod attack;
mod fail;
mod golden;
mod operating_system;
mod power_loss;
mod sim_disk;
mod support;
