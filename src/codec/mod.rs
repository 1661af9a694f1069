//! Bytes to values and back: what the log's payloads and the wire have in common.
pub mod msgpack;
