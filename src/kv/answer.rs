//! What commands answer: an outline, small and copied, and for those that ask for keys a body.
//!
//! ```text
//! body      the last field of the reply, as the wire has it
//!           of a PutWith, a DeleteRangeWith: array kv*      what was there before, if asked for
//!           of a Txn: array result*                         of each request of the branch taken
//! kv        array(6) [key: bin, value: bin, create_revision: uint, mod_revision: uint,
//!                     version: uint, lease: uint]
//! result    array(2) [op, args]
//!    7      array(1) [before: array kv*]                    PutWith
//!    8      array(2) [deleted: uint, before: array kv*]     DeleteRangeWith
//!    9      array(2) [succeeded: bool, results: array result*]       Txn
//!   16      array(3) [kvs: array kv*, more: bool, count: uint]       Range
//! ```
//!
//! Why bytes and not values: an answer of many keys would be allocated key by key while the entry
//! is applied, only to be encoded for the one client that waits for it, on one node of three.

use crate::codec::msgpack;
use crate::types::{Revision, SessionId};

pub use super::auth::{Access, AuthRefusal, Denial, Permission};
use super::range::{KeyValueRef, RangeError};

/// What a kv takes beside its key and value, at most. Bytes.
const KV_OVERHEAD_BYTES: usize = 1 + 2 * 5 + 4 * 9;

/// What a command answers; the same on every node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer<'a> {
    /// What became of it.
    pub outline: CommandReply,
    /// What it found, encoded; empty if the outline says all.
    pub body: &'a [u8],
}

/// What became of a command, without the keys that it found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandReply {
    /// Answer to `Put`.
    Put {
        /// The revision the put made.
        revision: Revision,
    },
    /// Answer to `DeleteRange`.
    DeleteRange {
        /// The store's revision after it: its own if it deleted anything.
        revision: Revision,
        /// How many keys it deleted.
        deleted: u64,
    },
    /// Answer to `Compact`.
    Compact {
        /// The store's revision.
        revision: Revision,
        /// Why nothing was compacted, if so: the revision is in the future or compacted already.
        refused: Option<RangeError>,
    },
    /// Answer to `OpenSession`.
    OpenSession {
        /// The new session.
        session: SessionId,
    },
    /// Answer to `PutIf`.
    PutIf {
        /// The store's revision after it: its own if it put.
        revision: Revision,
        /// Why nothing was put, if so: the key's mod revision is this one; 0: there is no such key.
        refused: Option<Revision>,
    },
    /// Answer to `PutWith`; the body holds what was there before.
    PutWith {
        /// The revision the put made.
        revision: Revision,
    },
    /// Answer to `DeleteRangeWith`; the body holds what was there before.
    DeleteRangeWith {
        /// The store's revision after it: its own if it deleted anything.
        revision: Revision,
        /// How many keys it deleted.
        deleted: u64,
    },
    /// Answer to `Txn`; the body holds the results.
    Txn {
        /// The store's revision after it: its own if it changed anything.
        revision: Revision,
        /// Whether all its compares held.
        succeeded: bool,
    },
    /// Answer to `LeaseGrant`.
    LeaseGrant {
        /// The store's revision: a grant makes none.
        revision: Revision,
        /// The lease.
        lease: u64,
        /// How long it lives without being kept alive. Seconds.
        ttl_s: u64,
    },
    /// Answer to `LeaseRevoke`.
    LeaseRevoke {
        /// The store's revision after it: its own if keys hung on the lease.
        revision: Revision,
    },
    /// Answer to `LeaseExpire`: there is no such lease any more.
    LeaseExpire {
        /// The store's revision after it.
        revision: Revision,
        /// The lease.
        lease: u64,
    },
    /// Answer to `LeaseCheckpoint`.
    LeaseCheckpoint {
        /// The store's revision.
        revision: Revision,
        /// The lease.
        lease: u64,
        /// How long it lives without being kept alive; 0: there is no such lease. Seconds.
        ttl_s: u64,
    },
    /// Answer to `Auth`.
    Auth {
        /// The store's revision: such a change makes none.
        revision: Revision,
        /// How often users and roles were changed.
        auth_revision: u64,
    },
    /// Answer to a leader's command in an entry of another term. Nothing was done.
    Void {
        /// The lease it names.
        lease: u64,
    },
    /// Answer to a command that cannot be done as the store is. It changed nothing.
    Refused {
        /// Why.
        why: Refusal,
    },
    /// Answer to any call of a session that has ended, or never began. Nothing was done now; what a
    /// call of the same number did before is forgotten.
    SessionExpired,
    /// Answer to a call whose reply the client had acknowledged: a late copy. Nothing was done now.
    CallAcknowledged,
    /// Answer to a copy of a call that was done and whose answer was too large to be kept. Nothing
    /// was done now.
    AnswerNotKept {
        /// The store's revision after the call.
        revision: Revision,
    },
}

/// Why a command that may enter the log cannot be done as the store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It keeps the value or the lease of a key that does not exist.
    KeyNotFound,
    /// It names a lease that does not exist.
    LeaseNotFound,
    /// It is to make a lease that exists.
    LeaseExists,
    /// It is to make a lease, and there are as many as there may be.
    TooManyLeases,
    /// It reads a revision that cannot be read.
    Range(RangeError),
    /// What was there before, which it asks for, is larger than an answer may be.
    AnswerTooLarge,
    /// It changes users or roles, and they are not so.
    Auth(AuthRefusal),
    /// Whoever asks may not. Of a call in a session no note is made: the same one may be done
    /// later.
    Denied(Denial),
}

impl CommandReply {
    /// Whether a body belongs to it.
    pub const fn has_body(&self) -> bool {
        match self {
            CommandReply::PutWith { .. }
            | CommandReply::DeleteRangeWith { .. }
            | CommandReply::Txn { .. } => true,
            CommandReply::Put { .. }
            | CommandReply::DeleteRange { .. }
            | CommandReply::Compact { .. }
            | CommandReply::OpenSession { .. }
            | CommandReply::PutIf { .. }
            | CommandReply::LeaseGrant { .. }
            | CommandReply::LeaseRevoke { .. }
            | CommandReply::LeaseExpire { .. }
            | CommandReply::LeaseCheckpoint { .. }
            | CommandReply::Auth { .. }
            | CommandReply::Void { .. }
            | CommandReply::Refused { .. }
            | CommandReply::SessionExpired
            | CommandReply::CallAcknowledged
            | CommandReply::AnswerNotKept { .. } => false,
        }
    }
}

/// How `words_of_reply` names what was called: as commands do.
const REFUSED: u64 = 0;
const PUT: u64 = 1;
const DELETE_RANGE: u64 = 2;
const COMPACT: u64 = 3;
const PUT_IF: u64 = 6;
const PUT_WITH: u64 = 7;
const DELETE_RANGE_WITH: u64 = 8;
const TXN: u64 = 9;
const LEASE_GRANT: u64 = 10;
const LEASE_REVOKE: u64 = 11;
const AUTH: u64 = 14;

/// How it says that users and roles are the reason.
const REFUSED_BY_AUTH: u64 = 8;

/// How it names what a `RangeError` is.
const COMPACTED: u64 = 1;
const FUTURE: u64 = 2;

/// A reply that is kept, as four numbers: what the state hash and a checkpoint say of it.
pub(super) fn words_of_reply(reply: &CommandReply) -> [u64; 4] {
    match *reply {
        CommandReply::Put { revision } => [PUT, revision.0, 0, 0],
        CommandReply::DeleteRange { revision, deleted } => [DELETE_RANGE, revision.0, deleted, 0],
        CommandReply::Compact { revision, refused: None } => [COMPACT, revision.0, 0, 0],
        CommandReply::Compact { revision, refused: Some(why) } => {
            let [code, number] = words_of_error(why);
            [COMPACT, revision.0, code, number]
        }
        CommandReply::PutIf { revision, refused: None } => [PUT_IF, revision.0, 0, 0],
        CommandReply::PutIf { revision, refused: Some(found) } => [PUT_IF, revision.0, 1, found.0],
        CommandReply::PutWith { revision } => [PUT_WITH, revision.0, 0, 0],
        CommandReply::DeleteRangeWith { revision, deleted } => {
            [DELETE_RANGE_WITH, revision.0, deleted, 0]
        }
        CommandReply::Txn { revision, succeeded } => [TXN, revision.0, u64::from(succeeded), 0],
        CommandReply::Refused { why: Refusal::Range(why) } => {
            let [code, number] = words_of_error(why);
            [REFUSED, number, code, 0]
        }
        CommandReply::Refused { why: Refusal::KeyNotFound } => [REFUSED, 0, 3, 0],
        CommandReply::Refused { why: Refusal::LeaseNotFound } => [REFUSED, 0, 4, 0],
        CommandReply::Refused { why: Refusal::AnswerTooLarge } => [REFUSED, 0, 5, 0],
        CommandReply::Refused { why: Refusal::LeaseExists } => [REFUSED, 0, 6, 0],
        CommandReply::Refused { why: Refusal::TooManyLeases } => [REFUSED, 0, 7, 0],
        CommandReply::Refused { why: Refusal::Auth(why) } => {
            [REFUSED, 0, REFUSED_BY_AUTH, why.code()]
        }
        CommandReply::Auth { revision, auth_revision } => [AUTH, revision.0, auth_revision, 0],
        CommandReply::LeaseGrant { revision, lease, ttl_s } => {
            [LEASE_GRANT, revision.0, lease, ttl_s]
        }
        CommandReply::LeaseRevoke { revision } => [LEASE_REVOKE, revision.0, 0, 0],
        CommandReply::OpenSession { .. }
        | CommandReply::LeaseExpire { .. }
        | CommandReply::LeaseCheckpoint { .. }
        | CommandReply::Void { .. }
        | CommandReply::Refused { why: Refusal::Denied(_) }
        | CommandReply::SessionExpired
        | CommandReply::CallAcknowledged
        | CommandReply::AnswerNotKept { .. } => {
            unreachable!("no call in a session is first answered so")
        }
    }
}

/// The reply that these numbers say; `None` if none is said so.
pub(super) fn reply_of_words(words: [u64; 4]) -> Option<CommandReply> {
    let revision = Revision(words[1]);
    Some(match words {
        [PUT, _, 0, 0] => CommandReply::Put { revision },
        [DELETE_RANGE, _, deleted, 0] => CommandReply::DeleteRange { revision, deleted },
        [COMPACT, _, 0, 0] => CommandReply::Compact { revision, refused: None },
        [COMPACT, _, code, number] => {
            CommandReply::Compact { revision, refused: Some(error_of_words(code, number)?) }
        }
        [PUT_IF, _, 0, 0] => CommandReply::PutIf { revision, refused: None },
        [PUT_IF, _, 1, found] => CommandReply::PutIf { revision, refused: Some(Revision(found)) },
        [PUT_WITH, _, 0, 0] => CommandReply::PutWith { revision },
        [DELETE_RANGE_WITH, _, deleted, 0] => CommandReply::DeleteRangeWith { revision, deleted },
        [TXN, _, succeeded @ (0 | 1), 0] => {
            CommandReply::Txn { revision, succeeded: succeeded == 1 }
        }
        [REFUSED, 0, 3, 0] => CommandReply::Refused { why: Refusal::KeyNotFound },
        [REFUSED, 0, 4, 0] => CommandReply::Refused { why: Refusal::LeaseNotFound },
        [REFUSED, 0, 5, 0] => CommandReply::Refused { why: Refusal::AnswerTooLarge },
        [REFUSED, 0, 6, 0] => CommandReply::Refused { why: Refusal::LeaseExists },
        [REFUSED, 0, 7, 0] => CommandReply::Refused { why: Refusal::TooManyLeases },
        [LEASE_GRANT, _, lease, ttl_s] => CommandReply::LeaseGrant { revision, lease, ttl_s },
        [LEASE_REVOKE, _, 0, 0] => CommandReply::LeaseRevoke { revision },
        [AUTH, _, auth_revision, 0] => CommandReply::Auth { revision, auth_revision },
        [REFUSED, 0, REFUSED_BY_AUTH, code] => {
            CommandReply::Refused { why: Refusal::Auth(AuthRefusal::from_code(code)?) }
        }
        [REFUSED, number, code, 0] => {
            CommandReply::Refused { why: Refusal::Range(error_of_words(code, number)?) }
        }
        _ => return None,
    })
}

fn words_of_error(error: RangeError) -> [u64; 2] {
    match error {
        RangeError::Compacted { compact_revision } => [COMPACTED, compact_revision.0],
        RangeError::Future { revision } => [FUTURE, revision.0],
    }
}

fn error_of_words(code: u64, number: u64) -> Option<RangeError> {
    let revision = Revision(number);
    match code {
        COMPACTED => Some(RangeError::Compacted { compact_revision: revision }),
        FUTURE => Some(RangeError::Future { revision }),
        _ => None,
    }
}

/// The revision of the store after the call that was answered so.
pub(super) fn revision_of_reply(reply: &CommandReply) -> Revision {
    Revision(words_of_reply(reply)[1])
}

/// Appends a key and all about it.
#[inline]
pub fn write_kv(out: &mut Vec<u8>, kv: &KeyValueRef<'_>) {
    let KeyValueRef { key, value, create_revision, mod_revision, version, lease } = *kv;
    msgpack::write_array(out, 6);
    msgpack::write_bin(out, key);
    msgpack::write_bin(out, value);
    msgpack::write_uint(out, create_revision.0);
    msgpack::write_uint(out, mod_revision.0);
    msgpack::write_uint(out, version);
    msgpack::write_uint(out, lease);
}

/// What a key and all about it take, at most. Bytes.
pub(super) fn bytes_of(kv: &KeyValueRef<'_>) -> usize {
    KV_OVERHEAD_BYTES + kv.key.len() + kv.value.len()
}

/// An array of kvs whose number is known only at its end.
#[derive(Debug)]
#[must_use = "an array that is not finished holds nothing"]
pub struct KvArray {
    count_at: usize,
    count: u32,
}

impl KvArray {
    /// Begins the array, in the longest form of its header, whose count can be written later.
    #[inline]
    pub fn begin(out: &mut Vec<u8>) -> KvArray {
        out.push(0xdd);
        let count_at = out.len();
        out.extend_from_slice(&[0; 4]);
        KvArray { count_at, count: 0 }
    }

    /// Appends one key.
    #[inline]
    pub fn push(&mut self, out: &mut Vec<u8>, kv: &KeyValueRef<'_>) {
        write_kv(out, kv);
        self.count += 1;
    }

    /// Whether it has none yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Ends the array.
    #[inline]
    pub fn finish(self, out: &mut [u8]) {
        let count_bytes = out
            .get_mut(self.count_at..)
            .and_then(<[u8]>::first_chunk_mut)
            .expect("begin left room for the count");
        *count_bytes = self.count.to_be_bytes();
    }
}
