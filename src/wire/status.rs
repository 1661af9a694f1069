//! How a server is: `[version, cluster_id bin16, node, role, term, leader, leader_address, commit_index,
//! applied_index, last_index, durable_index, revision, compact_revision, state_hash, keys, history_bytes,
//! log_bytes, connections, out_of_space, syncs, [[node, address, connected, match_index or nil], …]]`.

use crate::codec::lenient::{read_array, write_struct};
use crate::codec::msgpack::{DecodeError, Reader};
use crate::types::{ClusterId, LogIndex, NodeId, Revision, Term};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// A server's standing at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Its raftd's version.
    pub version: String,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its number.
    pub node: NodeId,
    /// `leader`, `follower`, `candidate`, `pre-candidate`, or `waiting` before it is a member.
    pub role: String,
    /// Its term.
    pub term: Term,
    /// Whom it takes for the leader.
    pub leader: Option<NodeId>,
    /// Where the leader accepts connections.
    pub leader_address: Option<String>,
    /// What it knows to be committed.
    pub commit_index: LogIndex,
    /// What its state reflects.
    pub applied_index: LogIndex,
    /// Its last entry.
    pub last_index: LogIndex,
    /// The last entry that its disk holds for sure.
    pub durable_index: LogIndex,
    /// The store's revision.
    pub revision: Revision,
    /// The oldest revision that can be read.
    pub compact_revision: Revision,
    /// Equal on all servers with the same applied index.
    pub state_hash: u64,
    /// Live keys.
    pub keys: u64,
    /// Superseded versions kept. Bytes.
    pub history_bytes: u64,
    /// The log's segments on disk. Bytes.
    pub log_bytes: u64,
    /// Client connections.
    pub connections: u64,
    /// Whether its disk is full.
    pub out_of_space: bool,
    /// Sync jobs finished since it started.
    pub syncs: u64,
    /// The other members as it sees them.
    pub peers: Vec<PeerStatus>,
}

/// Another member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// Its number.
    pub node: NodeId,
    /// Where it accepts connections.
    pub address: String,
    /// Whether the connection to it stands.
    pub connected: bool,
    /// Up to where its log is known to match; only a leader knows.
    pub match_index: Option<LogIndex>,
}

const FIELDS: u32 = 21;

#[derive(Serialize, Deserialize)]
struct StatusArray(
    String,
    ByteBuf,
    u64,
    String,
    u64,
    u64,
    String,
    u64,
    u64,
    u64,
    u64,
    u64,
    u64,
    u64,
    u64,
    u64,
    u64,
    u64,
    bool,
    u64,
    Vec<(u64, String, bool, Option<u64>)>,
);

impl Status {
    /// Appends it as an array.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let peer = |peer: &PeerStatus| {
            let matched = peer.match_index.map(LogIndex::get);
            (peer.node.get(), peer.address.clone(), peer.connected, matched)
        };
        let array = StatusArray(
            self.version.clone(),
            ByteBuf::from(self.cluster_id.0.to_le_bytes()),
            self.node.get(),
            self.role.clone(),
            self.term.get(),
            self.leader.map_or(0, NodeId::get),
            self.leader_address.clone().unwrap_or_default(),
            self.commit_index.get(),
            self.applied_index.get(),
            self.last_index.get(),
            self.durable_index.get(),
            self.revision.0,
            self.compact_revision.0,
            self.state_hash,
            self.keys,
            self.history_bytes,
            self.log_bytes,
            self.connections,
            self.out_of_space,
            self.syncs,
            self.peers.iter().map(peer).collect(),
        );
        write_struct(out, &array);
    }

    /// Reads what `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Status, DecodeError> {
        let array: StatusArray = read_array(reader, FIELDS)?;
        let wrong = |wanted| DecodeError::Unexpected { wanted, marker: 0 };
        let cluster = array.1.as_slice().try_into().map_err(|_| wanted_id())?;
        let peer = |(node, address, connected, matched): (u64, String, bool, Option<u64>)| {
            let node = NodeId::new(node).ok_or(wrong("a server number"))?;
            Ok(PeerStatus { node, address, connected, match_index: matched.map(LogIndex::new) })
        };
        Ok(Status {
            version: array.0,
            cluster_id: ClusterId(u128::from_le_bytes(cluster)),
            node: NodeId::new(array.2).ok_or(wrong("a server number"))?,
            role: array.3,
            term: Term::new(array.4),
            leader: NodeId::new(array.5),
            leader_address: Some(array.6).filter(|address| !address.is_empty()),
            commit_index: LogIndex::new(array.7),
            applied_index: LogIndex::new(array.8),
            last_index: LogIndex::new(array.9),
            durable_index: LogIndex::new(array.10),
            revision: Revision(array.11),
            compact_revision: Revision(array.12),
            state_hash: array.13,
            keys: array.14,
            history_bytes: array.15,
            log_bytes: array.16,
            connections: array.17,
            out_of_space: array.18,
            syncs: array.19,
            peers: array.20.into_iter().map(peer).collect::<Result<_, DecodeError>>()?,
        })
    }
}

fn wanted_id() -> DecodeError {
    DecodeError::Unexpected { wanted: "an id of 16 bytes", marker: 0 }
}
