//! What a node says of itself when asked: the args of a status reply.

use crate::types::{ClusterId, LogIndex, NodeId, Revision, Term};

use super::fields::DecodeError;
use super::structs::{self, wire_struct};

wire_struct! {
    /// A node's own view. Served by every node for itself, leader or not, quorum or not.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Status {
        /// raftd's version.
        pub version: String,
        /// The cluster.
        pub cluster_id: ClusterId,
        /// The node.
        pub node: NodeId,
        /// `follower`, `pre-candidate`, `candidate` or `leader`.
        pub role: String,
        /// Its current term.
        pub term: Term,
        /// Whom it takes for the leader of that term.
        pub leader: Option<NodeId>,
        /// Where that leader takes clients.
        pub leader_address: Option<String>,
        /// The last entry it knows to be committed.
        pub commit_index: LogIndex,
        /// The last entry it has applied to the store.
        pub applied_index: LogIndex,
        /// The last entry of its log.
        pub last_index: LogIndex,
        /// The last entry of its log that is on its disk for certain.
        pub durable_index: LogIndex,
        /// The store's revision.
        pub revision: Revision,
        /// The oldest revision that can still be read.
        pub compact_revision: Revision,
        /// Hash of the live state at `applied_index`: equal on all nodes at the same index.
        pub state_hash: u64,
        /// Live keys.
        pub keys: u64,
        /// Superseded versions still held. Bytes.
        pub history_bytes: u64,
        /// The log on disk. Bytes.
        pub log_bytes: u64,
        /// Open client connections.
        pub connections: u64,
        /// The other members.
        pub peers: Vec<PeerStatus> => Members,
        /// Whether its disk is full, and takes no writes, or its `--quota-bytes` are used up, and
        /// it takes none that grow the store; until there is space.
        pub out_of_space: bool,
        /// Sync jobs finished since it started.
        pub syncs: u64,
        /// By how much the servers' clocks may differ in rate, in millionths, if leases answer
        /// reads; 0: they do not.
        pub lease_drift_ppm: u64,
        /// Client sessions.
        pub sessions: u64,
        /// The entry before the first one that its log holds.
        pub log_base: LogIndex,
        /// The last entry in its snapshot; 0 if it has none.
        pub snapshot_index: LogIndex,
        /// Its snapshot on disk. Bytes.
        pub snapshot_bytes: u64,
        /// Of a snapshot that it receives: how much is on its disk. Bytes.
        pub snapshot_received: u64,
        /// The size of that snapshot; 0 if it receives none. Bytes.
        pub snapshot_expected: u64,
        /// How long the turns of its loop took since it started.
        pub turn_times: TurnTimes,
        /// `sound`; `diverged`: its state differs from a majority's, and it serves nobody until it
        /// has loaded that anew; `disputed`: states differ, no majority agrees, and only a leader
        /// serves.
        pub state: String,
        /// The last entry at which a majority was found to have its state; 0: none since it
        /// started.
        pub state_agreed_index: LogIndex,
        /// How often it loaded its state anew because it differed, since it started.
        pub state_reloads: u64,
        /// Reads that it answered by its lease, as the leader, since it started.
        pub lease_reads: u64,
    }
}

wire_struct! {
    /// A histogram of turns: while one lasts, everybody else waits.
    #[derive(Clone, PartialEq, Eq, Default, Debug)]
    pub struct TurnTimes {
        /// The most CPU time that the loop's thread spent in one. Microseconds.
        pub longest_cpu_us: u64,
        /// The longest by the clock, what others took from us included. Microseconds.
        pub longest_wall_us: u64,
        /// By length, ascending.
        pub buckets: Vec<TurnBucket> => Members,
    }
}

wire_struct! {
    /// Turns that took longer than the bucket before says, and no longer than this one.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct TurnBucket {
        /// The bound; none in the last one. Microseconds.
        pub at_most_us: Option<u64>,
        /// So many by CPU time.
        pub cpu: u64,
        /// So many by the clock.
        pub wall: u64,
    }
}

wire_struct! {
    /// Another member, as the node sees it.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct PeerStatus {
        /// The member.
        pub node: NodeId,
        /// Its address.
        pub address: String,
        /// Whether the node's connection to it is up.
        pub connected: bool,
        /// On a leader: how far the member's log is known to equal its own. Else 0.
        pub match_index: LogIndex,
        /// On a leader that sends it a snapshot: how much is on the member's disk. Bytes.
        pub snapshot_sent: u64,
        /// The size of that snapshot; 0 if it is sent none. Bytes.
        pub snapshot_bytes: u64,
    }
}

pub(super) fn encode_status(out: &mut Vec<u8>, status: &Status) {
    structs::encode(out, status);
}

/// Reads the args of a status reply.
pub fn decode_status(args: &[u8]) -> Result<Status, DecodeError> {
    structs::decode("status", args)
}
