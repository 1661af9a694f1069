//! What a server answers when it does not do what was asked, and what the asker can do then.
//!
//! ```text
//! args    array(4) [code: uint, advice: uint, text: str, details: array]
//! advice  1 not done, ask again · 2 not done, and never will be · 3 perhaps done
//! details by code, below
//! ```
//!
//! A client that does not know a code follows its advice and shows its text.

use std::borrow::Cow;
use std::fmt;

use crate::codec::msgpack::{self, Reader};
use crate::kv::answer::{AuthRefusal, Denial};
use crate::types::{ClusterId, NodeId, Revision};

use super::fields::{self, DecodeError, Fields};
use super::frame;

/// The kind of a reply that is an error.
pub const KIND_ERROR: u64 = 0;

/// Why a request was not answered as asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Code 1. Only the leader does this, and it is another node. Details: leader (0: unknown),
    /// address.
    NotLeader {
        /// The leader and where it takes clients, if the node knows one.
        leader: Option<(NodeId, String)>,
    },
    /// Code 2. A limit is reached for now. Details: which.
    Busy {
        /// What there is too much of.
        what: Cow<'static, str>,
    },
    /// Code 3. The node's disk is full: it takes no writes until there is space. No details.
    NoSpace,
    /// Code 4. The node is starting, stopping or has no quorum. Details: why.
    NotReady {
        /// What it waits for.
        why: Cow<'static, str>,
    },
    /// Code 5. Not a request of the protocol. Details: why.
    BadRequest {
        /// What is wrong with it.
        why: Cow<'static, str>,
    },
    /// Code 6. The request is larger than the node takes. Details: bytes, max.
    TooLarge {
        /// The request's size. Bytes.
        bytes: u64,
        /// The largest the node takes. Bytes.
        max: u64,
    },
    /// Code 7. The revision asked for has been compacted. Details: compact_revision.
    Compacted {
        /// The oldest revision that can be read.
        compact_revision: Revision,
    },
    /// Code 8. The revision asked for does not exist yet. Details: revision.
    FutureRevision {
        /// The store's revision.
        revision: Revision,
    },
    /// Code 9. The write entered the log, and the node lost its leadership before it knew the end.
    OutcomeUnknown,
    /// Code 10. The node belongs to another cluster. Details: ours, bin 16.
    WrongCluster {
        /// The node's cluster.
        ours: ClusterId,
    },
    /// Code 11. The node is not the one that the hello names. Details: ours.
    WrongNode {
        /// The node.
        ours: NodeId,
    },
    /// Code 12. No version is spoken by both. Details: version_min, version_max.
    Unsupported {
        /// The oldest version the node speaks.
        version_min: u16,
        /// The newest version the node speaks.
        version_max: u16,
    },
    /// Code 13. The node will not do this for this asker. Details: why.
    Refused {
        /// The reason.
        why: Cow<'static, str>,
    },
    /// Code 14. The session has ended, and with it the knowledge of what its calls did. Nothing was
    /// done now. No details.
    SessionExpired,
    /// Code 15. The client has acknowledged the reply to this call: a late copy of it. Nothing was
    /// done now. No details.
    CallAcknowledged,
    /// Code 16. The asker was a member and is none any more. Details: node.
    Removed {
        /// The asker.
        node: NodeId,
    },
    /// Code 17. The value or the lease of a key is to be kept, and there is no such key. No
    /// details.
    KeyNotFound,
    /// Code 18. There is no such lease. No details.
    LeaseNotFound,
    /// Code 19. The call was done, by an earlier copy of it, and its answer was too large to be
    /// kept for this one. Nothing was done now. Details: revision.
    AnswerNotKept {
        /// The store's revision after the call.
        revision: Revision,
    },
    /// Code 20. What was there before, which is asked for, is larger than a reply may be. Details:
    /// max.
    AnswerTooLarge {
        /// The largest reply. Bytes.
        max: u64,
    },
    /// Code 21. There is such a lease already. No details.
    LeaseExists,
    /// Code 22. There are as many leases as there may be. Details: max.
    TooManyLeases {
        /// How many.
        max: u64,
    },
    /// Code 23. The live keys take as much as they may, and the request would add to them. Not done
    /// until something is deleted. Details: bytes, max.
    OverQuota {
        /// What they take. Bytes.
        bytes: u64,
        /// What they may take. Bytes.
        max: u64,
    },
    /// Code 24. Whoever asks may not. Details: 1 it has no such right, 2 it has not logged in, 3
    /// its login has ended.
    Denied {
        /// Why not.
        why: Denial,
    },
    /// Code 25. Users and roles are not so, or a login failed. Details: which, see
    /// `AuthRefusal::code`.
    Auth {
        /// What is wrong.
        why: AuthRefusal,
    },
    /// A code that this version does not know.
    Other {
        /// The code.
        code: u64,
        /// What to do about it.
        advice: Advice,
        /// What it says.
        text: String,
    },
}

/// What an error means for the request that it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// Not done. The same request may succeed later, or at another node.
    AskAgain,
    /// Not done. The same request will be refused again.
    GiveUp,
    /// Perhaps done, or done later. Ask again only if doing it twice is harmless.
    Unknown,
}

impl Advice {
    /// The number on the wire.
    pub const fn code(self) -> u64 {
        match self {
            Advice::AskAgain => 1,
            Advice::GiveUp => 2,
            Advice::Unknown => 3,
        }
    }

    /// The advice of a number from the wire. One of a later version promises nothing: `Unknown`.
    pub const fn from_code(code: u64) -> Advice {
        match code {
            1 => Advice::AskAgain,
            2 => Advice::GiveUp,
            _ => Advice::Unknown,
        }
    }
}

impl Error {
    /// What a client hears that is one too many.
    pub const TOO_MANY_CLIENTS: Error =
        Error::Busy { what: Cow::Borrowed("clients, see raftd --max-connections") };

    /// The number on the wire.
    pub const fn code(&self) -> u64 {
        match self {
            Error::NotLeader { .. } => 1,
            Error::Busy { .. } => 2,
            Error::NoSpace => 3,
            Error::NotReady { .. } => 4,
            Error::BadRequest { .. } => 5,
            Error::TooLarge { .. } => 6,
            Error::Compacted { .. } => 7,
            Error::FutureRevision { .. } => 8,
            Error::OutcomeUnknown => 9,
            Error::WrongCluster { .. } => 10,
            Error::WrongNode { .. } => 11,
            Error::Unsupported { .. } => 12,
            Error::Refused { .. } => 13,
            Error::SessionExpired => 14,
            Error::CallAcknowledged => 15,
            Error::Removed { .. } => 16,
            Error::KeyNotFound => 17,
            Error::LeaseNotFound => 18,
            Error::AnswerNotKept { .. } => 19,
            Error::AnswerTooLarge { .. } => 20,
            Error::LeaseExists => 21,
            Error::TooManyLeases { .. } => 22,
            Error::OverQuota { .. } => 23,
            Error::Denied { .. } => 24,
            Error::Auth { .. } => 25,
            Error::Other { code, .. } => *code,
        }
    }

    /// Where the leader takes clients, if the error names it.
    pub fn leader_address(&self) -> Option<&str> {
        if let Error::NotLeader { leader: Some((_, address)) } = self {
            Some(address)
        } else {
            None
        }
    }

    /// Whether it is what became of the request where that was applied, and so of every copy of it.
    pub const fn is_of_the_store(&self) -> bool {
        match self {
            Error::KeyNotFound
            | Error::LeaseNotFound
            | Error::LeaseExists
            | Error::TooManyLeases { .. }
            | Error::AnswerTooLarge { .. }
            | Error::Compacted { .. }
            | Error::FutureRevision { .. }
            | Error::Auth { .. } => true,
            Error::NotLeader { .. }
            | Error::Busy { .. }
            | Error::NoSpace
            | Error::OverQuota { .. }
            // It is found before the call is looked for.
            | Error::Denied { .. }
            | Error::NotReady { .. }
            | Error::BadRequest { .. }
            | Error::TooLarge { .. }
            | Error::OutcomeUnknown
            | Error::WrongCluster { .. }
            | Error::WrongNode { .. }
            | Error::Unsupported { .. }
            | Error::Refused { .. }
            | Error::SessionExpired
            | Error::CallAcknowledged
            | Error::Removed { .. }
            | Error::AnswerNotKept { .. }
            | Error::Other { .. } => false,
        }
    }

    /// What the asker can do.
    pub const fn advice(&self) -> Advice {
        match self {
            Error::NotLeader { .. }
            | Error::Busy { .. }
            | Error::NoSpace
            | Error::NotReady { .. } => Advice::AskAgain,
            Error::BadRequest { .. }
            | Error::TooLarge { .. }
            | Error::Compacted { .. }
            | Error::FutureRevision { .. }
            | Error::WrongCluster { .. }
            | Error::WrongNode { .. }
            | Error::Unsupported { .. }
            | Error::Refused { .. }
            | Error::Removed { .. }
            | Error::KeyNotFound
            | Error::LeaseNotFound
            | Error::LeaseExists
            | Error::TooManyLeases { .. }
            | Error::AnswerTooLarge { .. }
            | Error::OverQuota { .. }
            | Error::Denied { .. }
            | Error::Auth { .. } => Advice::GiveUp,
            Error::OutcomeUnknown
            | Error::SessionExpired
            | Error::CallAcknowledged
            | Error::AnswerNotKept { .. } => Advice::Unknown,
            Error::Other { advice, .. } => *advice,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotLeader { leader: Some((leader, address)) } => {
                write!(f, "not the leader; {leader} at {address} is")
            }
            Error::NotLeader { leader: None } => f.write_str("not the leader, and none is known"),
            Error::Busy { what } => write!(f, "busy: {what}"),
            Error::NoSpace => f.write_str("the disk is full; free space and writes resume"),
            Error::NotReady { why } => write!(f, "not ready: {why}"),
            Error::BadRequest { why } => write!(f, "bad request: {why}"),
            Error::TooLarge { bytes, max } => {
                write!(f, "the request has {bytes} bytes, more than {max}")
            }
            Error::Compacted { compact_revision } => {
                write!(f, "the revision is compacted; the oldest readable is {compact_revision}")
            }
            Error::FutureRevision { revision } => {
                write!(f, "the revision is in the future; the store is at {revision}")
            }
            Error::OutcomeUnknown => f.write_str("leadership was lost; the write may yet happen"),
            Error::WrongCluster { ours } => write!(f, "this node belongs to cluster {ours}"),
            Error::WrongNode { ours } => write!(f, "this node is {ours}"),
            Error::Unsupported { version_min, version_max } => {
                write!(f, "this node speaks protocol versions {version_min} to {version_max}")
            }
            Error::Refused { why } => write!(f, "refused: {why}"),
            Error::SessionExpired => {
                f.write_str("the session has ended; whether the call was done before is forgotten")
            }
            Error::CallAcknowledged => {
                f.write_str("the reply to this call was acknowledged and is forgotten")
            }
            Error::Removed { node } => write!(f, "{node} was removed from the cluster"),
            Error::KeyNotFound => f.write_str("there is no such key"),
            Error::LeaseNotFound => f.write_str("there is no such lease"),
            Error::LeaseExists => f.write_str("there is such a lease already"),
            Error::TooManyLeases { max } => write!(f, "there are {max} leases, and no more may be"),
            Error::AnswerNotKept { revision } => {
                write!(f, "done, at revision {revision} at the latest; its answer is not kept")
            }
            Error::AnswerTooLarge { max } => {
                write!(f, "what was there before has more than {max} bytes; ask without it")
            }
            Error::OverQuota { bytes, max } => write!(
                f,
                "the keys take {bytes} of {max} bytes; delete some, or raise --quota-bytes"
            ),
            Error::Denied { why } => write!(f, "{why}"),
            Error::Auth { why } => write!(f, "{why}"),
            Error::Other { code, text, .. } => write!(f, "error {code}: {text}"),
        }
    }
}

impl std::error::Error for Error {}

/// Appends an error as the reply to request `id`, as a whole frame.
pub fn error_reply(out: &mut Vec<u8>, id: u64, error: &Error) {
    let start = frame::begin(out);
    msgpack::write_array(out, 3);
    msgpack::write_uint(out, id);
    msgpack::write_uint(out, KIND_ERROR);
    msgpack::write_array(out, 4);
    msgpack::write_uint(out, error.code());
    msgpack::write_uint(out, error.advice().code());
    // The text of an unknown error is passed on as it came; our Display adds its code.
    if let Error::Other { text, .. } = error {
        fields::write_text(out, text);
    } else {
        fields::write_text(out, &error.to_string());
    }
    write_details(out, error);
    frame::finish(out, start);
}

fn write_details(out: &mut Vec<u8>, error: &Error) {
    match error {
        Error::NotLeader { leader } => {
            let (id, address) = leader.as_ref().map_or((0, ""), |(id, at)| (id.get(), at.as_str()));
            msgpack::write_array(out, 2);
            msgpack::write_uint(out, id);
            fields::write_text(out, address);
        }
        Error::Busy { what: text }
        | Error::NotReady { why: text }
        | Error::BadRequest { why: text }
        | Error::Refused { why: text } => {
            msgpack::write_array(out, 1);
            fields::write_text(out, text);
        }
        Error::TooLarge { bytes, max } | Error::OverQuota { bytes, max } => {
            write_numbers(out, &[*bytes, *max])
        }
        Error::Compacted { compact_revision: revision }
        | Error::FutureRevision { revision }
        | Error::AnswerNotKept { revision } => write_numbers(out, &[revision.0]),
        Error::AnswerTooLarge { max } | Error::TooManyLeases { max } => {
            write_numbers(out, &[*max]);
        }
        Error::Denied { why } => write_numbers(out, &[code_of_denial(*why)]),
        Error::Auth { why } => write_numbers(out, &[why.code()]),
        Error::WrongCluster { ours } => {
            msgpack::write_array(out, 1);
            msgpack::write_bin(out, &ours.0.to_be_bytes());
        }
        Error::WrongNode { ours: node } | Error::Removed { node } => {
            write_numbers(out, &[node.get()]);
        }
        Error::Unsupported { version_min, version_max } => {
            write_numbers(out, &[u64::from(*version_min), u64::from(*version_max)]);
        }
        Error::NoSpace
        | Error::OutcomeUnknown
        | Error::SessionExpired
        | Error::CallAcknowledged
        | Error::KeyNotFound
        | Error::LeaseNotFound
        | Error::LeaseExists
        | Error::Other { .. } => msgpack::write_array(out, 0),
    }
}

fn write_numbers(out: &mut Vec<u8>, numbers: &[u64]) {
    let count = u32::try_from(numbers.len()).expect("errors have two details at most");
    msgpack::write_array(out, count);
    for number in numbers {
        msgpack::write_uint(out, *number);
    }
}

/// Reads the args of an error reply.
pub fn decode_error(args: &[u8]) -> Result<Error, DecodeError> {
    let mut reader = Reader::new(args);
    let mut fields = Fields::open(&mut reader)?;
    let code = fields.uint()?;
    let advice = Advice::from_code(fields.uint()?);
    let text = fields.text()?;
    let mut details = fields.nested()?;
    let error = decode_details(code, &mut details)?;
    details.close()?;
    fields.close()?;
    fields::expect_end(&reader)?;
    Ok(error.unwrap_or_else(|| Error::Other { code, advice, text: text.to_owned() }))
}

fn decode_details(code: u64, details: &mut Fields<'_, '_>) -> Result<Option<Error>, DecodeError> {
    Ok(Some(match code {
        1 => {
            let leader = details.node()?;
            let address = details.text()?;
            Error::NotLeader { leader: leader.map(|leader| (leader, address.to_owned())) }
        }
        2 => Error::Busy { what: details.text()?.to_owned().into() },
        3 => Error::NoSpace,
        4 => Error::NotReady { why: details.text()?.to_owned().into() },
        5 => Error::BadRequest { why: details.text()?.to_owned().into() },
        6 => Error::TooLarge { bytes: details.uint()?, max: details.uint()? },
        7 => Error::Compacted { compact_revision: details.revision()? },
        8 => Error::FutureRevision { revision: details.revision()? },
        9 => Error::OutcomeUnknown,
        10 => Error::WrongCluster { ours: cluster_id(details.bin()?)? },
        11 => Error::WrongNode { ours: node(details)? },
        12 => Error::Unsupported { version_min: version(details)?, version_max: version(details)? },
        13 => Error::Refused { why: details.text()?.to_owned().into() },
        14 => Error::SessionExpired,
        15 => Error::CallAcknowledged,
        16 => Error::Removed { node: node(details)? },
        17 => Error::KeyNotFound,
        18 => Error::LeaseNotFound,
        19 => Error::AnswerNotKept { revision: details.revision()? },
        20 => Error::AnswerTooLarge { max: details.uint()? },
        21 => Error::LeaseExists,
        22 => Error::TooManyLeases { max: details.uint()? },
        23 => Error::OverQuota { bytes: details.uint()?, max: details.uint()? },
        // A reason of a version to come, or what is left of one when it is said again.
        24 | 25 if details.is_empty() => return Ok(None),
        24 => return Ok(denial_of_code(details.uint()?).map(|why| Error::Denied { why })),
        25 => return Ok(AuthRefusal::from_code(details.uint()?).map(|why| Error::Auth { why })),
        _ => return Ok(None),
    }))
}

const fn code_of_denial(why: Denial) -> u64 {
    match why {
        Denial::NotPermitted => 1,
        Denial::NoUser => 2,
        Denial::LoginEnded => 3,
    }
}

const fn denial_of_code(code: u64) -> Option<Denial> {
    match code {
        1 => Some(Denial::NotPermitted),
        2 => Some(Denial::NoUser),
        3 => Some(Denial::LoginEnded),
        _ => None,
    }
}

fn node(details: &mut Fields<'_, '_>) -> Result<NodeId, DecodeError> {
    details.node()?.ok_or(DecodeError::Range { what: "a node's id", found: 0 })
}

fn cluster_id(bytes: &[u8]) -> Result<ClusterId, DecodeError> {
    let id = bytes.try_into().map_err(|_| DecodeError::Range {
        what: "the length of a cluster id",
        found: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
    })?;
    Ok(ClusterId(u128::from_be_bytes(id)))
}

fn version(details: &mut Fields<'_, '_>) -> Result<u16, DecodeError> {
    let found = details.uint()?;
    u16::try_from(found).map_err(|_| DecodeError::Range { what: "a version", found })
}
