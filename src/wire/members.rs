//! The cluster's members: who they are, and requests to change them or their leader.
//!
//! ```text
//!   40      []                                             MemberList
//!   41      [node: uint, address: text, stay: bool]        MemberAdd
//!   42      [node: uint]                                   MemberRemove
//!   43      [node: uint]                                   MemberPromote
//!   44      [old: uint, node: uint, address: text]         MemberReplace
//!   45      [node: uint]                                   TransferLeader, 0: whoever is furthest
//! replies
//!   40      the list, see below
//!   41..44  [index: uint]                                  of the configuration's entry
//!   45      [node: uint]                                   who leads
//! ```

use crate::codec::msgpack::{self, Reader};
use crate::types::{DiskId, LogIndex, NodeId, is_address};

use super::client::{Op, begin_request};
use super::fields::{self, DecodeError, Fields};
use super::frame;
use super::reply::begin_reply;
use super::structs::{self, wire_struct};

wire_struct! {
    /// The members as their leader sees them.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct MemberList {
        /// The entry of the configuration in force.
        pub index: LogIndex,
        /// Whether that entry is committed.
        pub committed: bool,
        /// The highest number that a member ever had: numbers are never reused.
        pub highest: NodeId,
        /// Who answers.
        pub leader: NodeId,
        /// Where its log ends.
        pub last_index: LogIndex,
        /// The members, ascending.
        pub members: Vec<MemberStatus> => Members,
    }
}

wire_struct! {
    /// One member.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct MemberStatus {
        /// Its number.
        pub node: NodeId,
        /// Where it accepts connections.
        pub address: String,
        /// Its data directory.
        pub disk_id: DiskId,
        /// `voter`; `learner`; `joining`, a learner that becomes a voter once it has caught up;
        /// `incoming` and `outgoing`, a voter of only the new and only the old half of a joint
        /// configuration.
        pub role: String,
        /// Whom it replaces once it has caught up.
        pub replaces: Option<NodeId>,
        /// Whether the leader has a connection to it and gets answers.
        pub alive: bool,
        /// How far its log is known to equal the leader's.
        pub match_index: LogIndex,
    }
}

/// What a request asks of the members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberRequest<'a> {
    /// A new member.
    Add {
        /// Its number.
        node: NodeId,
        /// Where it accepts connections.
        address: &'a str,
        /// Whether it stays a learner until it is promoted by hand.
        stay: bool,
    },
    /// A member leaves.
    Remove {
        /// Its number.
        node: NodeId,
    },
    /// A learner becomes a voter.
    Promote {
        /// Its number.
        node: NodeId,
    },
    /// A new member takes the place of another.
    Replace {
        /// Who leaves.
        old: NodeId,
        /// Who comes.
        node: NodeId,
        /// Where it accepts connections.
        address: &'a str,
    },
    /// Another member is to lead.
    Transfer {
        /// Who; `None`: whose log is furthest.
        node: Option<NodeId>,
    },
}

impl<'a> MemberRequest<'a> {
    /// The op of such a request.
    pub const fn op(&self) -> Op {
        match self {
            MemberRequest::Add { .. } => Op::MemberAdd,
            MemberRequest::Remove { .. } => Op::MemberRemove,
            MemberRequest::Promote { .. } => Op::MemberPromote,
            MemberRequest::Replace { .. } => Op::MemberReplace,
            MemberRequest::Transfer { .. } => Op::TransferLeader,
        }
    }

    /// Reads the args of a request with one of these ops; `None` for another op.
    pub fn decode(op: Op, args: &'a [u8]) -> Result<Option<MemberRequest<'a>>, DecodeError> {
        let mut reader = Reader::new(args);
        let mut fields = Fields::open(&mut reader)?;
        let request = match op {
            Op::MemberAdd => MemberRequest::Add {
                node: node(&mut fields)?,
                address: address(&mut fields)?,
                stay: fields.flag()?,
            },
            Op::MemberRemove => MemberRequest::Remove { node: node(&mut fields)? },
            Op::MemberPromote => MemberRequest::Promote { node: node(&mut fields)? },
            Op::MemberReplace => MemberRequest::Replace {
                old: node(&mut fields)?,
                node: node(&mut fields)?,
                address: address(&mut fields)?,
            },
            Op::TransferLeader => MemberRequest::Transfer { node: fields.node()? },
            Op::Put
            | Op::DeleteRange
            | Op::Range
            | Op::Status
            | Op::Snapshot
            | Op::InSession
            | Op::OpenSession
            | Op::PutIf
            | Op::Compact
            | Op::PutWith
            | Op::DeleteRangeWith
            | Op::Txn
            | Op::ReadTxn
            | Op::LeaseGrant
            | Op::LeaseRevoke
            | Op::LeaseKeepAlive
            | Op::LeaseTimeToLive
            | Op::LeaseList
            | Op::Watch
            | Op::WatchCancel
            | Op::WatchProgress
            | Op::Auth
            | Op::Login
            | Op::LoginProof
            | Op::AuthRead
            | Op::As
            | Op::MemberList => return Ok(None),
        };
        fields.close()?;
        fields::expect_end(&reader)?;
        Ok(Some(request))
    }

    /// Appends the request, as a whole frame.
    pub fn encode(&self, out: &mut Vec<u8>, id: u64) {
        let start = begin_request(out, id, self.op());
        match self {
            MemberRequest::Add { node, address, stay } => {
                msgpack::write_array(out, 3);
                msgpack::write_uint(out, node.get());
                fields::write_text(out, address);
                fields::write_flag(out, *stay);
            }
            MemberRequest::Remove { node } | MemberRequest::Promote { node } => {
                msgpack::write_array(out, 1);
                msgpack::write_uint(out, node.get());
            }
            MemberRequest::Replace { old, node, address } => {
                msgpack::write_array(out, 3);
                msgpack::write_uint(out, old.get());
                msgpack::write_uint(out, node.get());
                fields::write_text(out, address);
            }
            MemberRequest::Transfer { node } => {
                msgpack::write_array(out, 1);
                msgpack::write_uint(out, node.map_or(0, NodeId::get));
            }
        }
        frame::finish(out, start);
    }
}

fn node(fields: &mut Fields<'_, '_>) -> Result<NodeId, DecodeError> {
    fields.node()?.ok_or(DecodeError::Range { what: "a node's id", found: 0 })
}

fn address<'a>(fields: &mut Fields<'_, 'a>) -> Result<&'a str, DecodeError> {
    let address = fields.text()?;
    if is_address(address) {
        Ok(address)
    } else {
        Err(DecodeError::Inconsistent { what: "an address is host:port" })
    }
}

/// Appends a MemberList, as a whole frame.
pub fn member_list_request(out: &mut Vec<u8>, id: u64) {
    let start = begin_request(out, id, Op::MemberList);
    msgpack::write_array(out, 0);
    frame::finish(out, start);
}

/// Appends the reply to a MemberList, as a whole frame.
pub fn member_list_reply(out: &mut Vec<u8>, id: u64, list: &MemberList) {
    let start = begin_reply(out, id, Op::MemberList);
    structs::encode(out, list);
    frame::finish(out, start);
}

/// Appends the reply to a change of the members that is committed at `index`, as a whole frame.
pub fn member_change_reply(out: &mut Vec<u8>, id: u64, op: Op, index: LogIndex) {
    let start = begin_reply(out, id, op);
    msgpack::write_array(out, 1);
    msgpack::write_uint(out, index.get());
    frame::finish(out, start);
}

/// Appends the reply to a TransferLeader, as a whole frame.
pub fn transfer_reply(out: &mut Vec<u8>, id: u64, leader: NodeId) {
    let start = begin_reply(out, id, Op::TransferLeader);
    msgpack::write_array(out, 1);
    msgpack::write_uint(out, leader.get());
    frame::finish(out, start);
}

/// Reads the args of the reply to a MemberList.
pub(super) fn decode_member_list(args: &[u8]) -> Result<MemberList, DecodeError> {
    structs::decode("list of members", args)
}
