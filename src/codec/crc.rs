//! CRC-32 (IEEE) in the two forms the record and the wires share.
//!
//! The checksum of a payload is seeded with the identity of its entry, so that the right bytes in
//! the wrong place do not pass, and it depends on nothing else: leader, followers, log and wire all
//! hold the same one.

use crate::types::{LogPosition, Term};

/// The CRC-32 of `parts` as if they were one string.
pub fn crc32(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// The CRC-32 of bytes that come piece by piece.
#[derive(Clone, Default, Debug)]
pub struct Crc32 {
    hasher: crc32fast::Hasher,
}

impl Crc32 {
    /// Of no bytes yet.
    pub fn new() -> Crc32 {
        Crc32::default()
    }

    /// Goes on with `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Of all bytes so far.
    pub fn value(&self) -> u32 {
        self.hasher.clone().finalize()
    }
}

/// The CRC-32 of an entry's payload, seeded with index, term and the term before: bytes 8..32 of
/// its record.
pub fn payload_crc(position: LogPosition, prev_term: Term, payload: &[u8]) -> u32 {
    let mut seed = [0; 24];
    seed[..8].copy_from_slice(&position.index.get().to_le_bytes());
    seed[8..16].copy_from_slice(&position.term.get().to_le_bytes());
    seed[16..].copy_from_slice(&prev_term.get().to_le_bytes());
    crc32(&[&seed, payload])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogIndex;

    #[test]
    fn crc32_is_the_ieee_polynomial() {
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
    }

    #[test]
    fn a_payload_in_another_place_has_another_crc() {
        let at = |index, term, prev| {
            let position = LogPosition::new(Term::new(term), LogIndex::new(index));
            payload_crc(position, Term::new(prev), b"payload")
        };
        let here = at(7, 3, 2);
        assert_ne!(here, at(8, 3, 2));
        assert_ne!(here, at(7, 4, 2));
        assert_ne!(here, at(7, 3, 3));
        assert_eq!(here, at(7, 3, 2));
    }
}
