//! The state hash: equal on two nodes that have applied the same log to the same index.
//!
//! ```text
//! state_hash   = live + store                                            wrapping u64 sums
//! live         = sum over live keys of H(1, X(key), create, mod, version, lease, X(value))
//! store        = H(2, revision, compact_revision, 0, 0, 0, 0)
//! H(a, …, g)   = X(the seven as u64, little-endian, 56 bytes)
//! X(bytes)     = XXH3, 64 bits, seed 0
//! ```
//!
//! `lease` is 0 for a key without one. A sum does not care about the order, so a change costs one
//! subtraction and one addition, and a store loaded from a snapshot arrives at the same value. Only
//! the newest versions of live keys count: history may be freed at different times (design §12.12).
//!
//! This is part of the protocol between members: another formula needs another feature level.

use xxhash_rust::xxh3::xxh3_64;

use crate::types::Revision;

/// Domain of a live key.
const LIVE: u64 = 1;
/// Domain of the store's own numbers.
const STORE: u64 = 2;

/// The newest version of a live key, as far as it is hashed.
pub(super) struct LiveVersion<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) create_revision: u64,
    pub(super) mod_revision: u64,
    pub(super) version: u64,
}

/// What a live key adds to the state hash.
pub(super) fn of_live(live: &LiveVersion<'_>) -> u64 {
    let lease = 0;
    let LiveVersion { key, value, create_revision, mod_revision, version } = *live;
    of_words([LIVE, xxh3_64(key), create_revision, mod_revision, version, lease, xxh3_64(value)])
}

/// What the store's own numbers add to the state hash.
pub(super) fn of_store(revision: Revision, compact_revision: Revision) -> u64 {
    of_words([STORE, revision.0, compact_revision.0, 0, 0, 0, 0])
}

fn of_words(words: [u64; 7]) -> u64 {
    let mut bytes = [0; 56];
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    xxh3_64(&bytes)
}
