//! The state hash: equal on two nodes that have applied the same log to the same index.
//!
//! ```text
//! state_hash   = live + leases + sessions + auth + store                 wrapping u64 sums
//! live         = sum over live keys of H(1, X(key), create, mod, version, lease, X(value))
//! leases       = sum over leases of H(5, id, grant, ttl_s, due_ms, 0, 0)
//! sessions     = sum over sessions of H(3, id, acknowledged, used, used_ms, replies, owner)
//! replies      = sum over kept replies of H(4, sequence, op, revision, a, b, X(body))
//!                a and b: Put, PutWith 0, 0 · DeleteRange, DeleteRangeWith deleted, 0
//!                PutIf done 0, 0, else 1, mod_revision · Txn succeeded, 0
//!                Compact done 0, 0, else 1 compacted, 2 future, and that revision
//!                refused, op 0: 1 or 2, 0 with that revision before them · with revision 0:
//!                3, 0 no such key · 4, 0 no such lease · 5, 0 the answer is too large
//!                6, 0 there is such a lease · 7, 0 too many leases
//!                8 and the number of what users and roles refuse
//!                LeaseGrant lease, ttl_s · LeaseRevoke 0, 0 · Auth auth_revision, 0
//!                X(body): of a reply without one, or whose body is not kept, 0
//! auth         = sum over users of H(6, X(user), 0, 0, 0, 0, 0)          as checkpoints have it
//!              + sum over roles of H(7, X(name), X(permissions), 0, 0, 0, 0)    one by one
//! store        = H(2, revision, compact_revision, last_session, session_uses, grants, numbers)
//! numbers      = H(8, enabled, auth_revision, credentials, X(secret), 0, 0); 0 before any change
//!                of these; X(secret): 0 without one
//! H(a, …, g)   = X(the seven as u64, little-endian, 56 bytes)
//! X(bytes)     = XXH3, 64 bits, seed 0
//! ```
//!
//! `lease` is 0 for a key without one. A sum does not care about the order, so a change costs one
//! subtraction and one addition, and a store loaded from a snapshot arrives at the same value. Only
//! the newest versions of live keys count: history may be freed at different times (design §12.12).
//!
//! This is part of the protocol between members: another formula has another `FORMULA`, and needs
//! another feature level, for checkpoints hold the hash too.

use xxhash_rust::xxh3::xxh3_64;

use crate::types::{Revision, SessionId};

use super::answer::{CommandReply, words_of_reply};
use super::auth::AuthNumbers;
use super::lease::LeaseRow;
use super::session::{SessionCounters, SessionRow};

/// The number of this formula. Members compare only hashes of the same one.
pub const FORMULA: u64 = 1;

/// Domain of a live key.
const LIVE: u64 = 1;
/// Domain of the store's own numbers.
const STORE: u64 = 2;
/// Domain of a client session.
const SESSION: u64 = 3;
/// Domain of a reply kept in a session.
const REPLY: u64 = 4;
/// Domain of a lease.
const LEASE: u64 = 5;
/// Domain of a user.
const USER: u64 = 6;
/// Domain of a role.
const ROLE: u64 = 7;
/// Domain of the numbers beside them.
const AUTH: u64 = 8;

/// The newest version of a live key, as far as it is hashed.
pub(super) struct LiveVersion<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) create_revision: u64,
    pub(super) mod_revision: u64,
    pub(super) version: u64,
    pub(super) lease: u64,
}

/// What a live key adds to the state hash.
pub(super) fn of_live(live: &LiveVersion<'_>) -> u64 {
    let LiveVersion { key, value, create_revision, mod_revision, version, lease } = *live;
    of_words([LIVE, xxh3_64(key), create_revision, mod_revision, version, lease, xxh3_64(value)])
}

/// What the store's own numbers add to the state hash.
pub(super) fn of_store(
    revision: Revision,
    compact_revision: Revision,
    sessions: SessionCounters,
    grants: u64,
    auth: AuthNumbers,
) -> u64 {
    let SessionCounters { last: SessionId(last), uses } = sessions;
    let AuthNumbers { enabled, revision: changes, credentials, secret } = auth;
    let secret = secret.map_or(0, |secret| xxh3_64(&secret));
    let numbers = match auth.are_first() {
        true => 0,
        false => of_words([AUTH, u64::from(enabled), changes, credentials, secret, 0, 0]),
    };
    of_words([STORE, revision.0, compact_revision.0, last, uses, grants, numbers])
}

/// What a user adds to the state hash, as a checkpoint has it.
pub(super) fn of_user(row: &[u8]) -> u64 {
    of_words([USER, xxh3_64(row), 0, 0, 0, 0, 0])
}

/// What a role and its permissions add to the state hash.
pub(super) fn of_role(name: &str, permissions: &[u8]) -> u64 {
    of_words([ROLE, xxh3_64(name.as_bytes()), xxh3_64(permissions), 0, 0, 0, 0])
}

/// What a lease adds to the state hash. The keys that hang on it say so themselves.
pub(super) fn of_lease(row: &LeaseRow) -> u64 {
    let LeaseRow { id, grant, ttl_s, due_ms } = *row;
    of_words([LEASE, id, grant, ttl_s, due_ms, 0, 0])
}

/// What a session adds to the state hash, `replies` being the sum over those kept for it.
pub(super) fn of_session(row: &SessionRow, replies: u64) -> u64 {
    let SessionRow { id: SessionId(id), acknowledged, used, used_ms, owner } = *row;
    of_words([SESSION, id, acknowledged, used, used_ms, replies, owner.0])
}

/// What the reply to call `sequence` adds to its session's sum, `body` being what is kept of it.
pub(super) fn of_reply(sequence: u64, reply: &CommandReply, body: &[u8]) -> u64 {
    let [op, revision, a, b] = words_of_reply(reply);
    let body = if body.is_empty() { 0 } else { xxh3_64(body) };
    of_words([REPLY, sequence, op, revision, a, b, body])
}

fn of_words(words: [u64; 7]) -> u64 {
    let mut bytes = [0; 56];
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    xxh3_64(&bytes)
}
