//! Bytes to values and back: what the log's payloads, its records and the wire have in common.
pub mod crc;
pub mod msgpack;
