//! What was written, by whom it was acknowledged, and so what a read must find.
//!
//! ```text
//! key    prefix, then the key's number in decimal, with zeros in front, up to `key_bytes`
//! value  0         8         16            value_bytes
//!        | key u64 | put u64 | filler …    |     little endian
//! ```

use crate::client::prefix_end;

use super::popularity::Random;

/// Bytes of a value that say which key and which put it belongs to.
const IDENTITY_BYTES: usize = 16;

/// What keys and values look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    prefix: Vec<u8>,
    end: Vec<u8>,
    key_bytes: usize,
    value_bytes: usize,
}

impl Layout {
    /// Digits of the largest key number.
    pub const DIGITS: usize = 10;

    /// Keys of `key_bytes` that begin with `prefix`, values of `value_bytes`. `None`: a key has no
    /// room for ten digits behind its prefix, or a value none for the 16 bytes that identify it.
    pub fn new(prefix: &[u8], key_bytes: usize, value_bytes: usize) -> Option<Layout> {
        let room = key_bytes >= prefix.len() + Layout::DIGITS && value_bytes >= IDENTITY_BYTES;
        let end = prefix_end(prefix);
        room.then(|| Layout { prefix: prefix.to_vec(), end, key_bytes, value_bytes })
    }

    /// The first key behind all of them, as ranges end.
    pub fn end(&self) -> &[u8] {
        &self.end
    }

    /// Writes a key over what `out` holds.
    pub fn write_key(&self, key: KeyNumber, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.prefix);
        out.resize(self.key_bytes, b'0');
        let mut rest = key.0;
        for digit in out.iter_mut().rev() {
            if rest == 0 {
                break;
            }
            *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
        }
    }

    /// Bytes of a value.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }
}

/// One of the keys, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KeyNumber(pub u32);

impl KeyNumber {
    fn slot(self) -> usize {
        usize::try_from(self.0).expect("u32 fits usize")
    }
}

/// Numbers the puts of a ledger's life from 1.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PutNumber(u64);

impl PutNumber {
    /// Of a key of which nobody knows whether it was ever put.
    const UNSURE: PutNumber = PutNumber(u64::MAX);
}

#[derive(Clone, Copy, Default, Debug)]
struct Written {
    revision: u64,
    put: PutNumber,
}

/// The newest acknowledged put of every key.
#[derive(Debug)]
pub struct Ledger {
    layout: Layout,
    written: Vec<Written>,
    /// Keys before this one were all put, or given up.
    known: usize,
    last: PutNumber,
    value: Vec<u8>,
    /// Puts whose outcome nobody knows: from then on a key may be newer than its last acknowledged
    /// put.
    unknown: u64,
}

impl Ledger {
    /// Nothing written yet of `keys` keys.
    pub fn new(layout: Layout, keys: u32) -> Ledger {
        let mut value = vec![0; layout.value_bytes];
        let mut random = Random::new(7);
        for chunk in value.chunks_mut(8) {
            chunk.copy_from_slice(&random.draw().to_le_bytes()[..chunk.len()]);
        }
        let written = vec![Written::default(); KeyNumber(keys).slot()];
        Ledger { layout, written, known: 0, last: PutNumber(0), value, unknown: 0 }
    }

    /// What keys and values look like.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How many keys there are, new ones under way included.
    pub fn keys(&self) -> u32 {
        u32::try_from(self.written.len()).unwrap_or(u32::MAX)
    }

    /// The keys before this one can be read: they were put.
    pub fn known_keys(&self) -> u32 {
        u32::try_from(self.known).unwrap_or(u32::MAX)
    }

    /// One more key; `None` when there are as many as can be numbered.
    pub fn add_key(&mut self) -> Option<KeyNumber> {
        let key = u32::try_from(self.written.len()).ok().filter(|key| *key < u32::MAX)?;
        self.written.push(Written::default());
        Some(KeyNumber(key))
    }

    /// Numbers the next put.
    pub fn next_put(&mut self) -> PutNumber {
        self.last = PutNumber(self.last.0 + 1);
        self.last
    }

    /// What a put writes.
    pub fn value(&mut self, key: KeyNumber, put: PutNumber) -> &[u8] {
        self.value[..8].copy_from_slice(&u64::from(key.0).to_le_bytes());
        self.value[8..IDENTITY_BYTES].copy_from_slice(&put.0.to_le_bytes());
        &self.value
    }

    /// The put was acknowledged with this revision; 0 if the store has none.
    pub fn acknowledge(&mut self, key: KeyNumber, put: PutNumber, revision: u64) {
        let written = &mut self.written[key.slot()];
        if revision >= written.revision {
            *written = Written { revision, put };
        }
        self.advance();
    }

    /// A put was not acknowledged and is not tried again. Nobody may know whether it was done.
    pub fn give_up(&mut self, key: KeyNumber) {
        self.unknown += 1;
        let written = &mut self.written[key.slot()];
        if written.put == PutNumber::default() {
            written.put = PutNumber::UNSURE;
        }
        self.advance();
    }

    /// A put may have been done that was not acknowledged, or may be done twice.
    pub fn doubt(&mut self) {
        self.unknown += 1;
    }

    /// How many puts were numbered.
    pub fn puts(&self) -> u64 {
        self.last.0
    }

    fn advance(&mut self) {
        let put = |written: &Written| written.put != PutNumber::default();
        while self.written.get(self.known).is_some_and(put) {
            self.known += 1;
        }
    }

    /// The revision a read that begins now must reach to be linearizable.
    pub fn acknowledged_revision(&self, key: KeyNumber) -> u64 {
        self.written[key.slot()].revision
    }

    /// Whether a read of `key` may find nothing.
    pub fn may_be_missing(&self, key: KeyNumber) -> bool {
        self.written[key.slot()].put == PutNumber::UNSURE
    }

    /// Whether `found` can be what a read of `key` returns that began when `at_least` was
    /// acknowledged.
    pub fn is_right(&self, key: KeyNumber, at_least: u64, found: &Found<'_>) -> bool {
        let own = found.value.len() == self.layout.value_bytes
            && found.value[..8] == u64::from(key.0).to_le_bytes();
        own && found.revision >= at_least
    }

    /// Whether `found` is exactly the newest acknowledged put. Only while nothing is in flight.
    pub fn is_newest(&self, key: KeyNumber, found: &Found<'_>) -> bool {
        let written = self.written[key.slot()];
        if !self.is_right(key, written.revision, found) {
            return false;
        }
        if found.revision == written.revision {
            found.value[8..IDENTITY_BYTES] == written.put.0.to_le_bytes()
        } else {
            self.unknown > 0
        }
    }
}

/// What a read brought.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The value.
    pub value: &'a [u8],
    /// The revision of the put that wrote it; 0 if the store has none.
    pub revision: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(keys: u32) -> Ledger {
        Ledger::new(Layout::new(b"key-", 16, 32).unwrap(), keys)
    }

    #[test]
    fn keys_are_their_prefix_and_number() {
        let layout = Layout::new(b"key-", 16, 16).unwrap();
        let mut key = Vec::new();
        layout.write_key(KeyNumber(0), &mut key);
        assert_eq!(key, b"key-000000000000");
        layout.write_key(KeyNumber(u32::MAX), &mut key);
        assert_eq!(key, b"key-004294967295");
        assert_eq!(Layout::new(b"key-", 13, 16), None, "ten digits have no room");
        assert_eq!(Layout::new(b"key-", 16, 15), None, "a value says whose it is");
    }

    #[test]
    fn only_the_newest_acknowledged_put_is_newest() {
        let (mut ledger, key) = (ledger(1), KeyNumber(0));
        let (one, two) = (ledger.next_put(), ledger.next_put());
        let first = ledger.value(key, one).to_vec();
        let second = ledger.value(key, two).to_vec();
        ledger.acknowledge(key, two, 6);
        ledger.acknowledge(key, one, 5);
        let found = Found { value: &second, revision: 6 };
        assert!(ledger.is_newest(key, &found) && ledger.is_right(key, 6, &found));
        assert!(!ledger.is_newest(key, &Found { value: &first, revision: 6 }), "another put's");
        assert!(!ledger.is_right(key, 7, &found), "older than what was acknowledged before");
        let newer = Found { value: &first, revision: 7 };
        assert!(!ledger.is_newest(key, &newer), "by nobody");
        ledger.doubt();
        assert!(ledger.is_newest(key, &newer), "perhaps by the copy of a put");
    }

    #[test]
    fn keys_can_be_read_once_all_before_them_were_put() {
        let mut ledger = ledger(1);
        let added: Vec<_> = (0..3).map(|_| ledger.add_key().unwrap()).collect();
        assert_eq!((ledger.keys(), ledger.known_keys()), (4, 0));
        for key in [added[0], KeyNumber(0)] {
            let put = ledger.next_put();
            ledger.acknowledge(key, put, 0);
        }
        assert_eq!(ledger.known_keys(), 2);
        ledger.give_up(added[1]);
        assert_eq!(ledger.known_keys(), 3);
        assert!(ledger.may_be_missing(added[1]) && !ledger.may_be_missing(added[0]));
    }
}
