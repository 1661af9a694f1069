//! How a password is proved without being sent, as both sides compute it. RFC 5802 with SHA-256
//! (RFC 7677), in frames of our own.
//!
//! ```text
//! salted      = PBKDF2(password, salt, rounds)            the client alone spends the rounds
//! client_key  = HMAC(salted, "Client Key")                server_key = HMAC(salted, "Server Key")
//! stored_key  = SHA256(client_key)                        stored_key and server_key: in the log
//! said        = "raftd login 1", then user, client nonce, server nonce, salt, each behind its
//!               length, and rounds; numbers of 8 bytes, big-endian
//! proof       = client_key xor HMAC(stored_key, said)     to the server
//! signature   = HMAC(server_key, said)                    to the client
//! ```
//!
//! Who reads along learns nothing that would let it log in, but may try passwords against what it
//! read: each trial costs it the rounds. Passwords are bytes: nothing normalises them.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::kv::command::PasswordProof;

/// What HMAC and SHA-256 make. Bytes.
pub const KEY_BYTES: usize = 32;

/// Such a key.
pub type Key = [u8; KEY_BYTES];

/// What a client makes of a password.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PasswordKeys {
    client_key: Key,
    stored_key: Key,
    server_key: Key,
}

impl fmt::Debug for PasswordKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordKeys { .. }")
    }
}

impl PasswordKeys {
    /// Hashes a password. Takes as long as the rounds.
    pub fn derive(password: &[u8], salt: &[u8], rounds: u64) -> PasswordKeys {
        let salted = salted_password(password, salt, rounds);
        let client_key = hmac(&salted, &[b"Client Key"]);
        let server_key = hmac(&salted, &[b"Server Key"]);
        PasswordKeys { client_key, stored_key: Sha256::digest(client_key).into(), server_key }
    }

    /// What a server keeps of it.
    pub fn to_keep<'a>(&'a self, salt: &'a [u8], rounds: u64) -> PasswordProof<'a> {
        let PasswordKeys { stored_key, server_key, .. } = self;
        PasswordProof { salt, rounds, stored_key, server_key }
    }

    /// What proves to a server that the client knows the password.
    pub fn proof(&self, exchange: &Exchange<'_>) -> Key {
        let mut proof = exchange.signed_by(&self.stored_key);
        proof.iter_mut().zip(&self.client_key).for_each(|(byte, key)| *byte ^= key);
        proof
    }

    /// A key for something else, which whoever knows the password can make, and no server.
    pub fn secret(&self, purpose: &[u8]) -> Key {
        hmac(&self.client_key, &[purpose])
    }

    /// What proves to the client that the server keeps what belongs to the password.
    pub fn signature(&self, exchange: &Exchange<'_>) -> Key {
        exchange.signed_by(&self.server_key)
    }
}

/// What was said before the proof.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exchange<'a> {
    /// Who wants to log in.
    pub user: &'a str,
    /// Chance of the client's.
    pub client_nonce: &'a [u8],
    /// Chance of the server's.
    pub server_nonce: &'a [u8],
    /// What the password is hashed with.
    pub salt: &'a [u8],
    /// How often.
    pub rounds: u64,
}

impl Exchange<'_> {
    /// Whether a proof is that of the password that belongs to `stored_key`.
    pub fn proves(&self, stored_key: &Key, proof: &Key) -> bool {
        let mut client_key = self.signed_by(stored_key);
        client_key.iter_mut().zip(proof).for_each(|(byte, other)| *byte ^= other);
        let found: Key = Sha256::digest(client_key).into();
        are_equal(&found, stored_key)
    }

    /// What a server with this `server_key` answers a proof.
    pub fn signed_by(&self, key: &Key) -> Key {
        let Exchange { user, client_nonce, server_nonce, salt, rounds } = *self;
        let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes();
        let mut mac = keyed(key).chain_update(b"raftd login 1");
        for part in [user.as_bytes(), client_nonce, server_nonce, salt] {
            mac.update(&length(part));
            mac.update(part);
        }
        mac.chain_update(rounds.to_be_bytes()).finalize().into_bytes().into()
    }
}

/// Whether two keys are the same, in a time that does not say where they differ.
pub fn are_equal(one: &Key, other: &Key) -> bool {
    one.iter().zip(other).fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
}

/// The first of what nobody can tell who does not know `secret`: nonces, and salts of users that
/// there are not.
pub fn hmac(secret: &[u8], parts: &[&[u8]]) -> Key {
    let mac = parts.iter().fold(keyed(secret), |mac, part| mac.chain_update(part));
    mac.finalize().into_bytes().into()
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key may have any length")
}

/// PBKDF2 (RFC 8018 §5.2), whose first block is all we need.
fn salted_password(password: &[u8], salt: &[u8], rounds: u64) -> Key {
    let mac = keyed(password);
    let first = mac.clone().chain_update(salt).chain_update(1_u32.to_be_bytes());
    let mut block: Key = first.finalize().into_bytes().into();
    let mut sum = block;
    for _ in 1..rounds {
        block = mac.clone().chain_update(block).finalize().into_bytes().into();
        sum.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 7914 §11.
    #[test]
    fn a_password_is_hashed_as_the_standard_has_it() {
        let salted = salted_password(b"passwd", b"salt", 1);
        let expected = "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc";
        assert_eq!(hex(&salted), expected);
        let salted = salted_password(b"Password", b"NaCl", 80_000);
        let expected = "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56";
        assert_eq!(hex(&salted), expected);
    }

    #[test]
    fn only_the_password_proves_itself_and_only_in_the_exchange_it_is_for() {
        let (salt, rounds) = (&[7; 16][..], 2);
        let keys = PasswordKeys::derive(b"secret", salt, rounds);
        let exchange =
            Exchange { user: "root", client_nonce: &[1; 16], server_nonce: &[2; 16], salt, rounds };
        let kept = keys.to_keep(salt, rounds);
        assert!(exchange.proves(kept.stored_key, &keys.proof(&exchange)));
        assert_eq!(keys.signature(&exchange), exchange.signed_by(kept.server_key));
        let other = PasswordKeys::derive(b"Secret", salt, rounds);
        assert!(!exchange.proves(kept.stored_key, &other.proof(&exchange)));
        for later in [
            Exchange { user: "roo", ..exchange },
            Exchange { client_nonce: &[1; 17], ..exchange },
            Exchange { server_nonce: &[3; 16], ..exchange },
            Exchange { rounds: 3, ..exchange },
        ] {
            assert!(!later.proves(kept.stored_key, &keys.proof(&exchange)), "{later:?}");
        }
    }
}
