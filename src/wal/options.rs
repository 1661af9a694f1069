//! What `open` is asked, and what it answers.

use super::identity::Identity;
use super::snapshot_source::SnapshotSource;
use crate::types::{ClusterId, DiskId, HardState, LogIndex, LogPosition, NodeId, Term};

/// How to open a directory.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster a new directory is made for; an existing one keeps its own. `None`: open only
    /// what exists.
    pub cluster_id: Option<ClusterId>,
    /// Hash of the cluster's token: must be that of an existing directory.
    pub token_hash: u64,
    /// The server: must be that of an existing directory.
    pub node: NodeId,
    /// The identity of a new directory; random.
    pub disk_id_if_new: DiskId,
    /// This start of the process; random.
    pub boot_nonce: u64,
    /// How large new segments are: a multiple of 4096 within the limits. Bytes.
    pub segment_bytes: u64,
    /// Where the salts of new segments come from; random.
    pub salt_seed: u64,
    /// Noted in what is made; for people. Unix milliseconds.
    pub created_unix_ms: u64,
    /// Synced entries kept in memory beyond this are read from the map. Bytes.
    pub entry_cache_bytes: usize,
}

/// What a directory held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Whose it is.
    pub identity: Identity,
    /// Term and vote.
    pub hard_state: HardState,
    /// Hash of the bootstrap configuration; 0 if there never was a bootstrap.
    pub genesis: u64,
    /// The snapshot in force, to be loaded before the log goes on.
    pub snapshot: Option<SnapshotSource>,
    /// The entry before the first one of the log: at or below what the snapshot stands for.
    pub base: LogPosition,
    /// The terms of the log: the last index of each run of one term.
    pub runs: Vec<(LogIndex, Term)>,
    /// The payload lengths of the entries behind the base. Bytes.
    pub sizes: Vec<u32>,
    /// The configuration entries and their payloads, ascending.
    pub configurations: Vec<(LogIndex, Vec<u8>)>,
    /// Whether the server was last started to be a new cluster of its own, and was one then.
    pub forced: bool,
    /// Whether its state differed from the other members' and has not come anew since: neither the
    /// snapshot in force nor what the log makes of it is to be served.
    pub diverged: bool,
    /// An index known to be committed, at or below the last; not below the snapshot.
    pub commit_index: LogIndex,
    /// The last entry.
    pub last: LogPosition,
    /// What recovery saw and did; for a log line.
    pub report: RecoveryReport,
}

/// What recovery saw and did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RecoveryReport {
    /// Records read.
    pub records: u64,
    /// Segments that hold the log.
    pub segments: usize,
    /// Spares that stood ready.
    pub spares: usize,
    /// Where a batch that a crash tore was cut away: segment and offset.
    pub torn_at: Option<(u32, u32)>,
    /// Damaged places that held nothing: padding, or what a later record repeats.
    pub harmless: u64,
    /// The hard state was older than the log: its disk lost a write. A human should look at it.
    pub hard_state_stale: bool,
    /// The process before this one ended in order.
    pub clean: bool,
}
