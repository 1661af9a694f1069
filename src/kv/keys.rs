//! The store's keys, one cache line each: the name, and what is current about it.
//!
//! A put needs three lines: the index bucket, this, and the value it writes. So everything a put
//! must know of the version it supersedes stands here too, and the superseded version is not
//! touched.

use crate::limits::REQUEST_BYTES_MAX;

use super::slab::Slab;
use super::versions::VersionId;

/// Longest key kept inside its entry. Bytes. What fits the line.
const INLINE_BYTES: usize = 24;

/// A key's place in the slab; used again after the key is gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct KeyId(pub(super) u32);

/// A key that has versions: live, or deleted and not yet compacted away.
#[repr(align(64))]
pub(super) struct KeyEntry {
    name: KeyName,
    /// The revision of the put that created it; 0 while it is deleted.
    pub(super) create_revision: u64,
    /// How many puts since then; 0 while it is deleted.
    pub(super) version: u64,
    /// What it adds to the state hash; 0 while it is deleted.
    pub(super) contribution: u64,
    /// Its newest version.
    pub(super) newest: VersionId,
    /// The size of its value in bytes, and in the top bit whether it hangs on a lease.
    value: u32,
}

/// Says in `KeyEntry::value` that the key hangs on a lease.
const LEASED: u32 = 1 << 31;

const _: () = assert!(REQUEST_BYTES_MAX < 1 << 31, "a value leaves the top bit of its size free");

impl KeyEntry {
    /// The size of its value; 0 while it is deleted. Bytes.
    #[inline]
    pub(super) fn value_bytes(&self) -> u32 {
        self.value & !LEASED
    }

    /// Whether it hangs on a lease: which one, its newest version says.
    #[inline]
    pub(super) fn is_leased(&self) -> bool {
        self.value & LEASED != 0
    }

    /// Notes the size of its value and its lease; 0 is none.
    #[inline]
    pub(super) fn set_value(&mut self, value: &[u8], lease: u64) {
        let bytes = u32::try_from(value.len()).expect("limits.rs bounds every value");
        self.value = bytes | if lease == 0 { 0 } else { LEASED };
    }

    pub(super) fn is_live(&self) -> bool {
        self.version > 0
    }

    pub(super) fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }
}

enum KeyName {
    Inline { length: u8, bytes: [u8; INLINE_BYTES] },
    Boxed(Box<[u8]>),
}

impl KeyName {
    fn new(name: &[u8]) -> KeyName {
        if name.len() <= INLINE_BYTES {
            let mut bytes = [0; INLINE_BYTES];
            bytes[..name.len()].copy_from_slice(name);
            let length = u8::try_from(name.len()).expect("at most INLINE_BYTES");
            KeyName::Inline { length, bytes }
        } else {
            KeyName::Boxed(name.into())
        }
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match self {
            KeyName::Inline { length, bytes } => &bytes[..usize::from(*length)],
            KeyName::Boxed(name) => name,
        }
    }
}

const _: () = assert!(size_of::<KeyEntry>() == 64);

/// Every key that has versions.
pub(super) struct Keys {
    slab: Slab<KeyEntry>,
    free: Vec<KeyId>,
}

impl Keys {
    pub(super) fn new() -> Keys {
        Keys { slab: Slab::new(), free: Vec::new() }
    }

    /// Makes room for a key without versions; the caller gives it one.
    pub(super) fn insert(&mut self, name: &[u8]) -> KeyId {
        let entry = KeyEntry {
            name: KeyName::new(name),
            create_revision: 0,
            version: 0,
            contribution: 0,
            newest: VersionId::NONE,
            value: 0,
        };
        if let Some(id) = self.free.pop() {
            *self.slab.at_mut(id.0) = entry;
            return id;
        }
        KeyId(self.slab.push(entry))
    }

    /// Gives up a key that is neither in the index nor in the ordered map any more.
    pub(super) fn remove(&mut self, id: KeyId) {
        let entry = self.slab.at_mut(id.0);
        assert!(!entry.is_live(), "only a deleted key goes");
        entry.name = KeyName::Inline { length: 0, bytes: [0; INLINE_BYTES] };
        entry.newest = VersionId::NONE;
        self.free.push(id);
    }

    #[inline]
    pub(super) fn at(&self, id: KeyId) -> &KeyEntry {
        self.slab.at(id.0)
    }

    #[inline]
    pub(super) fn at_mut(&mut self, id: KeyId) -> &mut KeyEntry {
        self.slab.at_mut(id.0)
    }

    #[inline]
    pub(super) fn is_named(&self, id: KeyId, name: &[u8]) -> bool {
        self.at(id).name() == name
    }
}
