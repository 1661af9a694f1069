//! The first frame in each direction: who is there, which cluster, which version.
//!
//! ```text
//! hello     array(3) [id: uint = 0, op: uint = 32, args]
//!   args    ["raftd", version_min, version_max, cluster_id: bin 16, sender, auth: bin]
//!   sender  nil from a client, or
//!           [node, to, disk_id: bin 16, boot_nonce, genesis, members, purpose]
//! purpose   0 replication, 1 to bring a snapshot
//! members   array of array(2) [node, disk_id: bin 16]
//! welcome   array(3) [id: uint = 0, kind: uint = 32, args]
//!   args    [version, cluster_id: bin 16, node, disk_id: bin 16, boot_nonce, genesis, members,
//!            request_bytes_max, feature_level]
//! refusal   array(3) [id: uint = 0, kind: uint = 0, args of an error]; then the node hangs up
//! ```

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::msgpack::{self, Reader};
use crate::types::{ClusterId, DiskId, NodeId};

use super::error::{self, Error};
use super::fields::DecodeError;
use super::frame;
use super::structs::{self, wire_struct};

/// The version of the protocol that this module speaks.
pub const VERSION: u16 = 1;

/// The op of a hello and the kind of a welcome.
pub const OP_HELLO: u64 = 32;

const MAGIC: &str = "raftd";

/// Longest authentication field. Bytes: a keyed challenge is 32, a token may be longer.
const AUTH_BYTES_MAX: usize = 1024;

/// What whoever connects says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The oldest version the sender speaks.
    pub version_min: u16,
    /// The newest version the sender speaks.
    pub version_max: u16,
    /// The cluster it wants to speak to. 0 is any; only clients may say so.
    pub cluster_id: ClusterId,
    /// Who it is.
    pub sender: Sender,
    /// Reserved for proofs of identity; empty in version 1.
    pub auth: Vec<u8>,
}

/// Who connects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sender {
    /// A client: requests and replies follow.
    Client,
    /// A server of the cluster: peer messages follow.
    Peer(PeerHello),
}

impl Serialize for Sender {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Sender::Client => to.serialize_none(),
            Sender::Peer(peer) => peer.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Sender {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Sender, D::Error> {
        Ok(Option::deserialize(from)?.map_or(Sender::Client, Sender::Peer))
    }
}

wire_struct! {
    /// What a server says of itself when it connects to another.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct PeerHello {
        /// The sender.
        pub node: NodeId,
        /// Whom it believes to reach.
        pub to: NodeId,
        /// The sender's data directory.
        pub disk_id: DiskId,
        /// Larger at every start on the sender's data directory.
        pub boot_nonce: u64,
        /// Hash of the bootstrap configuration; 0 if never bootstrapped.
        pub genesis: u64,
        /// Members of its newest configuration; none if it is in none.
        pub members: Vec<(NodeId, DiskId)> => Members,
        /// What the connection is for.
        pub purpose: Purpose,
    }
}

/// What a connection between servers is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The messages of Raft.
    Replication,
    /// A snapshot, so that its bytes never delay those messages.
    Snapshot,
}

impl Serialize for Purpose {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(match self {
            Purpose::Replication => 0,
            Purpose::Snapshot => 1,
        })
    }
}

impl<'de> Deserialize<'de> for Purpose {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Purpose, D::Error> {
        match u8::deserialize(from)? {
            0 => Ok(Purpose::Replication),
            1 => Ok(Purpose::Snapshot),
            _ => Err(D::Error::custom("a connection is for replication or for a snapshot")),
        }
    }
}

wire_struct! {
    /// What a server answers when it accepts a connection.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Welcome {
        /// The version both will speak.
        pub version: u16,
        /// The server's cluster.
        pub cluster_id: ClusterId,
        /// The server.
        pub node: NodeId,
        /// The server's data directory.
        pub disk_id: DiskId,
        /// Larger at every start on the server's data directory.
        pub boot_nonce: u64,
        /// Hash of the bootstrap configuration; 0 if never bootstrapped.
        pub genesis: u64,
        /// Members of its newest configuration; none if it is in none.
        pub members: Vec<(NodeId, DiskId)> => Members,
        /// Largest request the server takes: op and args. Bytes.
        pub request_bytes_max: u64,
        /// The newest feature that every member understands.
        pub feature_level: u64,
    }
}

wire_struct! {
    struct HelloFields {
        pub magic: String,
        pub version_min: u16,
        pub version_max: u16,
        pub cluster_id: ClusterId,
        pub sender: Sender,
        pub auth: serde_bytes::ByteBuf,
    }
}

/// The answer to a hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HelloReply {
    /// Requests or peer messages may follow.
    Welcome(Welcome),
    /// The server hangs up after this.
    Refused(Error),
}

/// Appends a hello, as a whole frame.
pub fn encode_hello(out: &mut Vec<u8>, hello: &Hello) {
    let start = begin_envelope(out, OP_HELLO);
    let fields = HelloFields {
        magic: MAGIC.to_owned(),
        version_min: hello.version_min,
        version_max: hello.version_max,
        cluster_id: hello.cluster_id,
        sender: hello.sender.clone(),
        auth: serde_bytes::ByteBuf::from(hello.auth.clone()),
    };
    structs::encode(out, &fields);
    frame::finish(out, start);
}

/// Reads the body of a hello.
pub fn decode_hello(body: &[u8]) -> Result<Hello, DecodeError> {
    let (op, args) = open_envelope(body)?;
    if op != OP_HELLO {
        return Err(DecodeError::Range { what: "the op of a first frame", found: op });
    }
    let fields: HelloFields = structs::decode("hello", args)?;
    if fields.magic != MAGIC {
        return Err(DecodeError::Inconsistent { what: "a hello does not say \"raftd\"" });
    }
    if fields.version_min > fields.version_max {
        return Err(DecodeError::Inconsistent {
            what: "a hello's versions are the wrong way round",
        });
    }
    if fields.auth.len() > AUTH_BYTES_MAX {
        let found = u64::try_from(fields.auth.len()).unwrap_or(u64::MAX);
        return Err(DecodeError::Range { what: "an authentication field", found });
    }
    Ok(Hello {
        version_min: fields.version_min,
        version_max: fields.version_max,
        cluster_id: fields.cluster_id,
        sender: fields.sender,
        auth: fields.auth.into_vec(),
    })
}

/// Appends the answer to a hello, as a whole frame.
pub fn encode_hello_reply(out: &mut Vec<u8>, reply: &HelloReply) {
    match reply {
        HelloReply::Welcome(welcome) => {
            let start = begin_envelope(out, OP_HELLO);
            structs::encode(out, welcome);
            frame::finish(out, start);
        }
        HelloReply::Refused(error) => error::error_reply(out, 0, error),
    }
}

/// Reads the body of the answer to a hello.
pub fn decode_hello_reply(body: &[u8]) -> Result<HelloReply, DecodeError> {
    let (kind, args) = open_envelope(body)?;
    match kind {
        error::KIND_ERROR => Ok(HelloReply::Refused(error::decode_error(args)?)),
        OP_HELLO => Ok(HelloReply::Welcome(structs::decode("welcome", args)?)),
        found => Err(DecodeError::Range { what: "the kind of a hello's reply", found }),
    }
}

fn begin_envelope(out: &mut Vec<u8>, op: u64) -> frame::FrameStart {
    let start = frame::begin(out);
    msgpack::write_array(out, 3);
    msgpack::write_uint(out, 0);
    msgpack::write_uint(out, op);
    start
}

fn open_envelope(body: &[u8]) -> Result<(u64, &[u8]), DecodeError> {
    let mut reader = Reader::new(body);
    if reader.array()? != 3 {
        return Err(DecodeError::Inconsistent { what: "a hello has three parts" });
    }
    match reader.uint()? {
        0 => Ok((reader.uint()?, reader.rest())),
        found => Err(DecodeError::Range { what: "the id of a first frame", found }),
    }
}
