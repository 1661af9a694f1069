//! Sockets and bytes. This folder has never heard of Raft: it knows frames neither by length nor
//! by meaning.
//!
//! - `poll`: mio behind a few lines; the only place where the loop sleeps.
//! - `connection`: one socket, the bytes that wait to be understood, what the kernel last said.
//! - `dial`: names to addresses to sockets under way, without blocking the loop.

mod connection;
mod dial;
mod poll;

pub use connection::{Received, Socket};
pub use dial::{Listener, Resolver, connect, listen};
pub use poll::{Readiness, Signal, Signals, Wait, WakeHandle};
