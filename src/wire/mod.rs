//! What is said on a connection, to clients and between servers: frames, handshake, messages.
//!
//! `protocol.md` is this module for people who write clients. Every frame is
//!
//! ```text
//! length u32, little-endian | body: one MessagePack value of `length` bytes
//! body of a request   array(3) [id: uint, op: uint, args: array]
//! body of a reply     array(3) [id: uint, kind: uint, args: array]    kind: the op, or 0 = error
//! body between peers  array(2) [type: uint, args: array]
//! ```
//!
//! The first request on a connection is the hello and its reply the welcome, in both roles. Unknown
//! fields at the end of an args array, and of an array inside it where protocol.md says so, are
//! ignored; missing ones are errors. Commands are the exception: what enters the log is exact.
//!
//! Hot messages (requests, replies to commands and reads, peer messages) are read by `fields.rs`
//! and borrow from the frame; rare ones with many fields (hello, welcome, status) are serde
//! structures of `structs.rs`. Nothing here panics on bytes from outside, allocates by a length
//! from outside, or recurses deeper than its own types.
pub mod auth;
pub mod client;
pub mod error;
pub mod fields;
pub mod frame;
pub mod hello;
pub mod leases;
pub mod members;
pub mod peer;
mod read_txn;
pub mod reply;
pub mod results;
pub mod scram;
pub mod sorting;
pub mod state;
pub mod status;
mod structs;
pub mod watch;
