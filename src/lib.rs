//! raftd: a strongly consistent key-value store. An own Raft, an own memory-mapped log, one thread
//! that does the work.
//!
//! # The tree is the architecture
//!
//! ```text
//! types limits config      words, bounds, flags
//! program                  what a program that serves begins and ends with
//! huge_pages               what memory raftd asks for
//! raft/      THE RULES     positions only: (index, term), never a payload byte; no IO, no clock
//! wal/       THE RECORD    the durable log: format, jobs for the disk, recovery
//! kv/        THE MEANING   a multi-version store; deterministic
//! replica/   THE NODE      rules + record + meaning: bytes in, bytes out; no sockets, no clock
//! codec/ wire/             MessagePack; frames, requests, replies, messages
//! net/                     mio, sockets, names; has never heard of Raft
//! server/    THE SHELL     the loop, the clock, the threads
//! client/                  a blocking client; a load generator
//! gateway/                 etcd's API by gRPC, on an asynchronous runtime; a feature of its own
//! bin/                     raftd, raftctl, raftd-gateway
//! ```
//!
//! # One PUT
//!
//! ```text
//!  1 ↓ net/poll          Wait::wait            the only place we sleep
//!  2 ↓ server/clock      Clock::now            where we look: before the inputs, and after
//!  3 ↓ server/sockets    Sockets::read         bytes, within the turn's budget
//!  4 ↓ replica/admission Node::on_bytes        whole frames; the length is checked first
//!  5 ↓ wire/client       decode_request        borrowed from the read buffer
//!  6 ↓ replica/admission admit_write           leader? room? valid? or answer: not done
//!  7 ↓ replica/admission gather                the only copy: into the turn's entry
//!  8 ↓ raft/replication  Raft::propose         assigns (index, term): the decision
//!  9 ↓ wal               Wal::append           checksum and header; staged for the next sync job
//! 10 ↓ raft/step         Raft::settle          commit, reads, pipelines, in one fixed order
//! 11 ↓ replica/drive     send_append           to the followers, before our own sync (§10.2.1)
//! 12 = server/threads    pwrite, fdatasync; one job in flight, the next one gathers
//! 13 ↑ replica/drive     on_job_done           a receipt: our own match index moves
//! 14 ↑ replica/drive     on_peer_reply         a follower's durable match index moves; settle
//! 15 ↑ replica/apply     apply_committed       the entry's commands, in groups, to the store
//! 16 ↑ replica/apply     write_reply           to whoever waits for that index
//! 17 ↑ replica/watches   feed_watches          events to those who watch the key
//! 18 ↑ server/turn       one write per socket
//! ```
//!
//! # Architecture invariants, stated as absences
//!
//! - `raft` imports `std` collections, [`types`] and [`limits`], nothing else: it has no clock.
//! - Nothing that depends on durability leaves before a [`types::SyncReceipt`] releases it.
//! - The loop thread makes no file system call while serving: `wal` describes jobs as data, and two
//!   threads run them in order.
//! - Nobody imports `server` but `bin/raftd`; `replica` has no socket, so a simulator runs it all.
//! - `unsafe` stands in `wal/os_disk.rs` and nowhere else.
//! - Every buffer has a limit in [`limits`], and reaching it has an answer.
//!
//! `tests/tidy.rs` reads the sources and fails when one of them stops being true.
//!
//! # Words
//!
//! A **turn** is one pass of the loop. An **entry** is one position of the log and holds the
//! commands of one turn. A **batch** is what one sync job writes. **Appended → synced → committed →
//! applied** are four moments, in this order. A **replication session** is a connection to a peer,
//! numbered and echoed in its answers. `disk_id` names a data directory and never changes;
//! `boot_nonce` grows with every start of it.

pub mod client;
pub mod codec;
pub mod config;
#[cfg(feature = "gateway")]
pub mod gateway;
pub mod huge_pages;
pub mod kv;
pub mod limits;
pub mod net;
pub mod program;
pub mod raft;
pub mod replica;
pub mod server;
pub mod types;
pub mod wal;
pub mod wire;
