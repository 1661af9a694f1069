//! wal.
pub mod sim_disk;
