//! raftd: a small, provable, distributed key-value store.
pub mod client;
pub mod codec;
pub mod config;
pub mod kv;
pub mod limits;
pub mod net;
pub mod raft;
pub mod replica;
pub mod server;
pub mod types;
pub mod wal;
pub mod wire;
