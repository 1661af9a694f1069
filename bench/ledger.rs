//! What was written, by whom it was acknowledged, and so what a read must find.
//!
//! A value says which key and which put it belongs to: `[key u64, put u64, filler …]`, little
//! endian.

use std::fmt;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 16;

/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 256;

/// One of the benchmark's keys, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct KeyNumber(pub(crate) u32);

impl KeyNumber {
    /// The key as the store has it: `key-` and twelve digits.
    pub(crate) fn bytes(self) -> [u8; KEY_BYTES] {
        let mut bytes = *b"key-000000000000";
        let mut rest = self.0;
        for digit in bytes.iter_mut().rev() {
            if rest == 0 {
                break;
            }
            *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
        }
        bytes
    }

    fn slot(self) -> usize {
        usize::try_from(self.0).expect("u32 fits usize")
    }
}

impl fmt::Display for KeyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key-{:012}", self.0)
    }
}

/// Numbers the puts of a cluster's life from 1.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct PutNumber(u64);

#[derive(Clone, Copy, Default)]
struct Written {
    revision: u64,
    put: PutNumber,
}

/// The newest acknowledged put of every key.
pub(crate) struct Ledger {
    written: Vec<Written>,
    last: PutNumber,
    value: [u8; VALUE_BYTES],
    /// Puts whose outcome nobody knows: from then on a key may be newer than its last acknowledged
    /// put.
    unknown: u64,
}

impl Ledger {
    /// Nothing written yet of `keys` keys.
    pub(crate) fn new(keys: u32) -> Ledger {
        let mut value = [0; VALUE_BYTES];
        let mut random = Random::new(7);
        for chunk in value.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
        }
        let slots = KeyNumber(keys).slot();
        Ledger { written: vec![Written::default(); slots], last: PutNumber(0), value, unknown: 0 }
    }

    /// How many keys there are.
    pub(crate) fn keys(&self) -> u32 {
        u32::try_from(self.written.len()).expect("new was given a u32")
    }

    /// The value of the next put to `key`, and that put's number.
    pub(crate) fn next_value(&mut self, key: KeyNumber) -> (PutNumber, &[u8; VALUE_BYTES]) {
        self.last = PutNumber(self.last.0 + 1);
        self.value[..8].copy_from_slice(&u64::from(key.0).to_le_bytes());
        self.value[8..16].copy_from_slice(&self.last.0.to_le_bytes());
        (self.last, &self.value)
    }

    /// The put was acknowledged with this revision.
    pub(crate) fn acknowledge(&mut self, key: KeyNumber, put: PutNumber, revision: u64) {
        let written = &mut self.written[key.slot()];
        if revision > written.revision {
            *written = Written { revision, put };
        }
    }

    /// A put was refused in a way that leaves open whether it was done.
    pub(crate) fn lose(&mut self) {
        self.unknown += 1;
    }

    /// The revision a read that begins now must reach to be linearizable.
    pub(crate) fn acknowledged_revision(&self, key: KeyNumber) -> u64 {
        self.written[key.slot()].revision
    }

    /// Whether `found` can be what a read of `key` returns that began when `at_least` was
    /// acknowledged.
    pub(crate) fn is_right(&self, key: KeyNumber, at_least: u64, found: &Found<'_>) -> bool {
        let own = found.key == key.bytes()
            && found.value.len() == VALUE_BYTES
            && found.value[..8] == u64::from(key.0).to_le_bytes();
        own && found.revision >= at_least
    }

    /// Whether `found` is exactly the newest acknowledged put. Only while nothing is in flight.
    pub(crate) fn is_newest(&self, key: KeyNumber, found: &Found<'_>) -> bool {
        let written = self.written[key.slot()];
        if !self.is_right(key, written.revision, found) {
            return false;
        }
        if found.revision == written.revision {
            found.value[8..16] == written.put.0.to_le_bytes()
        } else {
            self.unknown > 0
        }
    }
}

/// What a read brought.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// The key.
    pub(crate) key: &'a [u8],
    /// Its value.
    pub(crate) value: &'a [u8],
    /// The revision of the put that wrote it.
    pub(crate) revision: u64,
}

/// Pseudo-random numbers, the same in every run. xorshift64*, Vigna 2016.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`: the upper half of a product, whose bias is below 2^-32 here.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let product = (self.next() >> 32) * u64::from(bound);
        u32::try_from(product >> 32).expect("the upper half of a product")
    }
}
