//! The first frame in each direction.
//!
//! ```text
//! hello    ["raftd", version_min, version_max, cluster_id bin16, role, auth bin, peer]
//!          role 0: a client, peer is []; 1: a member, peer is
//!          [node, to, disk_id bin16, boot_nonce, genesis, [[node, disk_id bin16], …]]
//! welcome  [0, [version, cluster_id bin16, node, disk_id bin16, boot_nonce, genesis, [[node, disk_id], …],
//!          request_bytes_max, feature_level]]
//! refused  [1, [code, text, details …]]     as in an error reply
//! ```

use super::error::Error;
use super::frame;
use crate::codec::lenient::{read_array, write_struct};
use crate::codec::msgpack::{DecodeError, Reader, write_array, write_uint};
use crate::limits::MEMBERS_MAX;
use crate::types::{ClusterId, DiskId, NodeId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The version of the protocol that this raftd speaks.
pub const VERSION: u16 = 1;

const MAGIC: &str = "raftd";

/// Who opens a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The oldest version the sender speaks.
    pub version_min: u16,
    /// The newest version the sender speaks.
    pub version_max: u16,
    /// The cluster it wants; 0 from a client that takes any.
    pub cluster_id: ClusterId,
    /// What it is.
    pub sender: Sender,
    /// Reserved for proof of who it is; empty in version 1.
    pub auth: Vec<u8>,
}

/// What opens a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sender {
    /// A client.
    Client,
    /// A member of the cluster, or one that is about to become one.
    Peer(PeerHello),
}

/// What a member says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerHello {
    /// Its number.
    pub node: NodeId,
    /// Whom it believes to reach.
    pub to: NodeId,
    /// Its data directory.
    pub disk_id: DiskId,
    /// New at every start.
    pub boot_nonce: u64,
    /// The hash of its first entry; 0 if it has none.
    pub genesis: u64,
    /// Whom its configuration names, with their data directories.
    pub members: Vec<(NodeId, DiskId)>,
}

/// Who answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The version both speak from here on.
    pub version: u16,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its number.
    pub node: NodeId,
    /// Its data directory.
    pub disk_id: DiskId,
    /// New at every start.
    pub boot_nonce: u64,
    /// The hash of its first entry; 0 if it has none.
    pub genesis: u64,
    /// Whom its configuration names, with their data directories.
    pub members: Vec<(NodeId, DiskId)>,
    /// The largest request it takes. Bytes.
    pub request_bytes_max: u64,
    /// Which optional formats the cluster may use.
    pub feature_level: u64,
}

/// The answer to a hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HelloReply {
    /// Speak.
    Welcome(Welcome),
    /// Go away, because of this; the connection is closed behind it.
    Refused(Error),
}

#[derive(Serialize, Deserialize)]
struct HelloArray(String, u16, u16, ByteBuf, u8, ByteBuf, PeerArray);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PeerArray {
    Member(u64, u64, ByteBuf, u64, u64, Vec<(u64, ByteBuf)>),
    Client([u8; 0]),
}

#[derive(Serialize, Deserialize)]
struct WelcomeArray(u16, ByteBuf, u64, ByteBuf, u64, u64, Vec<(u64, ByteBuf)>, u64, u64);

/// Appends a hello as a whole frame.
pub fn encode_hello(out: &mut Vec<u8>, hello: &Hello) {
    let (role, peer) = match &hello.sender {
        Sender::Client => (0, PeerArray::Client([])),
        Sender::Peer(peer) => (
            1,
            PeerArray::Member(
                peer.node.get(),
                peer.to.get(),
                id_bytes(peer.disk_id.0),
                peer.boot_nonce,
                peer.genesis,
                disks_to_wire(&peer.members),
            ),
        ),
    };
    let start = frame::begin(out);
    let cluster = id_bytes(hello.cluster_id.0);
    let auth = ByteBuf::from(hello.auth.clone());
    let array = HelloArray(
        MAGIC.to_owned(),
        hello.version_min,
        hello.version_max,
        cluster,
        role,
        auth,
        peer,
    );
    write_struct(out, &array);
    frame::finish(out, start);
}

/// Reads a hello's body.
pub fn decode_hello(body: &[u8]) -> Result<Hello, DecodeError> {
    let HelloArray(magic, version_min, version_max, cluster, role, auth, peer) =
        read_array(&mut Reader::new(body), 7)?;
    if magic != MAGIC {
        return Err(wanted("the magic word raftd"));
    }
    let sender = match (role, peer) {
        (0, _) => Sender::Client,
        (1, PeerArray::Member(node, to, disk, boot_nonce, genesis, members)) => {
            Sender::Peer(PeerHello {
                node: node_id(node)?,
                to: node_id(to)?,
                disk_id: DiskId(id_from(&disk)?),
                boot_nonce,
                genesis,
                members: disks_from_wire(&members)?,
            })
        }
        (_, PeerArray::Member(..) | PeerArray::Client(_)) => return Err(wanted("role 0 or 1")),
    };
    let cluster_id = ClusterId(id_from(&cluster)?);
    Ok(Hello { version_min, version_max, cluster_id, sender, auth: auth.into_vec() })
}

/// Appends the answer to a hello as a whole frame.
pub fn encode_hello_reply(out: &mut Vec<u8>, reply: &HelloReply) {
    let start = frame::begin(out);
    write_array(out, 2);
    match reply {
        HelloReply::Welcome(welcome) => {
            write_uint(out, 0);
            let array = WelcomeArray(
                welcome.version,
                id_bytes(welcome.cluster_id.0),
                welcome.node.get(),
                id_bytes(welcome.disk_id.0),
                welcome.boot_nonce,
                welcome.genesis,
                disks_to_wire(&welcome.members),
                welcome.request_bytes_max,
                welcome.feature_level,
            );
            write_struct(out, &array);
        }
        HelloReply::Refused(error) => {
            write_uint(out, 1);
            error.encode(out);
        }
    }
    frame::finish(out, start);
}

/// Reads the body of the answer to a hello.
pub fn decode_hello_reply(body: &[u8]) -> Result<HelloReply, DecodeError> {
    let mut reader = Reader::new(body);
    if reader.array()? < 2 {
        return Err(DecodeError::Truncated);
    }
    match reader.uint()? {
        0 => {
            let WelcomeArray(version, cluster, node, disk, boot, genesis, members, request, level) =
                read_array(&mut reader, 9)?;
            Ok(HelloReply::Welcome(Welcome {
                version,
                cluster_id: ClusterId(id_from(&cluster)?),
                node: node_id(node)?,
                disk_id: DiskId(id_from(&disk)?),
                boot_nonce: boot,
                genesis,
                members: disks_from_wire(&members)?,
                request_bytes_max: request,
                feature_level: level,
            }))
        }
        1 => Ok(HelloReply::Refused(Error::decode(&mut reader)?)),
        _ => Err(wanted("a welcome or a refusal")),
    }
}

fn wanted(wanted: &'static str) -> DecodeError {
    DecodeError::Unexpected { wanted, marker: 0 }
}

fn node_id(id: u64) -> Result<NodeId, DecodeError> {
    NodeId::new(id).ok_or(wanted("a server number from 1 on"))
}

fn id_bytes(id: u128) -> ByteBuf {
    ByteBuf::from(id.to_le_bytes())
}

fn id_from(bytes: &[u8]) -> Result<u128, DecodeError> {
    let bytes = bytes.try_into().map_err(|_| wanted("an id of 16 bytes"))?;
    Ok(u128::from_le_bytes(bytes))
}

fn disks_to_wire(members: &[(NodeId, DiskId)]) -> Vec<(u64, ByteBuf)> {
    members.iter().map(|(node, disk)| (node.get(), id_bytes(disk.0))).collect()
}

fn disks_from_wire(members: &[(u64, ByteBuf)]) -> Result<Vec<(NodeId, DiskId)>, DecodeError> {
    if members.len() > MEMBERS_MAX {
        return Err(wanted("fewer members"));
    }
    members.iter().map(|(node, disk)| Ok((node_id(*node)?, DiskId(id_from(disk)?)))).collect()
}
