//! raft.
pub mod message;
