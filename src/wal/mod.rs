//! THE RECORD: the durable log and the hard state.
//!
//! ```text
//! DATA/ LOCK         flock for the life of the process
//!       IDENTITY     whose directory this is                       identity.rs
//!       hs.0 hs.1    term, vote: two copies, two slots each        hard_state.rs
//!       log/<sequence>.seg   fixed-size segments, made ahead       segment.rs
//!          records with salted checksums, in page-aligned batches  record.rs, batch.rs
//! ```
//!
//! # The life of an entry
//! `append` stages it in memory (one copy). `begin_job` lays the headers of everything staged and
//! makes a
//! [`Job`]; the shell's thread writes and syncs; `job_done` moves the watermark. From then on the
//! bytes are
//! immutable: recent ones are served from the staged buffer, older ones through the read-only map.
//!
//! # Truncation
//! is append-only: a TRUNC record, then the entries that override. Nothing that was synced is
//! written again.
//!
//! # What a crash leaves
//! | crash during | on disk | recovery |
//! |---|---|---|
//! | write of a batch | any subset of its sectors, zero elsewhere | cut at the first torn record (rule L2) |
//! | hard state | old or new version in either file | the newest; both files are written anew |
//! | preparing a segment | no header pages | removed |
//! | cutting a torn tail | the same torn tail | the same again |
//!
//! # Invariants
//! I1 a page covered by a successful sync is never written again. I2 one job in flight. I4 no
//! truncation at or
//! below the commit index. I7 nothing here touches a file but `open`, jobs and background jobs.
//!
//! Why not store through the map: a store into a page under writeback stalls the loop (92 µs p99
//! against 2.6)
//! and doubles the sync. Why not io_uring: container runtimes block it.

mod background;
mod batch;
mod disk;
mod hard_state;
mod identity;
mod job;
mod locations;
mod open;
mod os_disk;
mod record;
mod recovery;
mod segment;
mod staging;
mod verdict;

pub use background::{BackgroundDone, BackgroundJob};
pub use disk::{Disk, DiskFile, Region};
pub use identity::Identity;
pub use job::{Job, Operation};
pub use locations::Meta;
pub use open::{OpenError, Options, Recovered, RecoveryReport, open};
pub use os_disk::{OsDisk, TakeError};
pub use record::payload_crc;
pub use staging::{Damaged, Wal};

/// A place in the log's files. Ordered as it is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}
