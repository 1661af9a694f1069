//! The versions of all keys: one cache line each, and a value in a buffer that outlives it.
//!
//! A put makes a version and, in the steady state, one falls out of the history. So the buffers go
//! round: they are of 49 sizes, at most a quarter larger than the value, and a version that is
//! given up keeps its buffer for the next value of that size. What waits unused is bounded. Values
//! above 64 KiB are not kept: there the allocator is a small part of the cost.

use super::slab::Slab;

/// Smallest buffer. Bytes: what the allocator gives for less anyway.
const BUFFER_BYTES_MIN: usize = 16;
/// Largest buffer that is kept. Bytes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Four sizes to each doubling between them.
const SIZES: usize = 49;

/// A version's place in the slab; used again after it is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct VersionId(u32);

impl VersionId {
    /// No version.
    pub(super) const NONE: VersionId = VersionId(u32::MAX);
}

/// What a key was from one revision on.
pub(super) struct Version {
    buffer: Vec<u8>,
    /// The revision that made it.
    pub(super) mod_revision: u64,
    /// The revision that created the key; 0 says it was deleted: a tombstone.
    pub(super) create_revision: u64,
    /// How many puts since the creation; 0 in a tombstone.
    pub(super) version: u64,
    /// The lease the key hangs on; 0 is none.
    pub(super) lease: u64,
    /// The version it superseded. Points nowhere once the history behind `mod_revision` is given
    /// up; nobody follows it then, because every readable revision finds this version first.
    pub(super) older: VersionId,
}

impl Version {
    pub(super) fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.buffer
    }
}

const _: () = assert!(size_of::<Version>() <= 64);

/// A version to be made.
pub(super) struct NewVersion {
    pub(super) mod_revision: u64,
    pub(super) create_revision: u64,
    pub(super) version: u64,
    pub(super) lease: u64,
    pub(super) older: VersionId,
}

/// Every version of every key.
pub(super) struct Versions {
    slab: Slab<Version>,
    /// Places whose buffer has the size, by size.
    free: [Vec<VersionId>; SIZES],
    /// Places without a buffer.
    bare: Vec<VersionId>,
    free_bytes: usize,
    free_bytes_max: usize,
}

impl Versions {
    /// Keeps up to `free_bytes_max` bytes of buffers that wait for a value.
    pub(super) fn new(free_bytes_max: usize) -> Versions {
        Versions {
            slab: Slab::new(),
            free: [const { Vec::new() }; SIZES],
            bare: Vec::new(),
            free_bytes: 0,
            free_bytes_max,
        }
    }

    #[inline]
    pub(super) fn at(&self, id: VersionId) -> &Version {
        self.slab.at(id.0)
    }

    /// The place that the `ahead`th next value of `length` bytes will take, if it is known.
    #[inline]
    pub(super) fn next_place(&self, length: usize, ahead: usize) -> Option<VersionId> {
        let free = &self.free[size_for(length)?];
        free.len().checked_sub(ahead + 1).map(|at| free[at])
    }

    /// Adds a version with a copy of `value`.
    pub(super) fn insert(&mut self, new: NewVersion, value: &[u8]) -> VersionId {
        let (id, mut buffer) = self.place_for(value.len());
        buffer.clear();
        buffer.extend_from_slice(value);
        let NewVersion { mod_revision, create_revision, version, lease, older } = new;
        let version = Version { buffer, mod_revision, create_revision, version, lease, older };
        match id {
            Some(id) => {
                *self.slab.at_mut(id.0) = version;
                id
            }
            None => VersionId(self.slab.push(version)),
        }
    }

    /// Links a version to the one it superseded.
    pub(super) fn set_older(&mut self, id: VersionId, older: VersionId) {
        self.slab.at_mut(id.0).older = older;
    }

    /// Gives up a version.
    pub(super) fn remove(&mut self, id: VersionId) {
        let version = self.slab.at_mut(id.0);
        let bytes = version.buffer.capacity();
        match size_held_by(bytes) {
            Some(size) if self.free_bytes + bytes <= self.free_bytes_max => {
                self.free_bytes += bytes;
                self.free[size].push(id);
            }
            Some(_) | None => {
                version.buffer = Vec::new();
                self.bare.push(id);
            }
        }
    }

    /// A free place if there is one, and a buffer for `length` bytes.
    fn place_for(&mut self, length: usize) -> (Option<VersionId>, Vec<u8>) {
        if length == 0 {
            return (self.bare.pop(), Vec::new());
        }
        let Some(size) = size_for(length) else {
            return (self.bare.pop(), Vec::with_capacity(length));
        };
        if let Some(id) = self.free[size].pop() {
            let buffer = std::mem::take(&mut self.slab.at_mut(id.0).buffer);
            self.free_bytes -= buffer.capacity();
            return (Some(id), buffer);
        }
        (self.bare.pop(), Vec::with_capacity(bytes_of(size)))
    }

    /// Bytes of buffers that wait for a value, and places for versions, used or not.
    pub(super) fn footprint(&self) -> (usize, usize) {
        (self.free_bytes, self.slab.len())
    }
}

/// The smallest size that holds `length` bytes.
fn size_for(length: usize) -> Option<usize> {
    if length > BUFFER_BYTES_MAX {
        return None;
    }
    if length <= BUFFER_BYTES_MIN {
        return Some(0);
    }
    Some(quarter_steps(length - 1) + 1)
}

/// The largest size that a buffer of `capacity` bytes serves.
fn size_held_by(capacity: usize) -> Option<usize> {
    if (BUFFER_BYTES_MIN..=BUFFER_BYTES_MAX).contains(&capacity) {
        Some(quarter_steps(capacity))
    } else {
        None
    }
}

/// How many quarter steps of a doubling lie between `BUFFER_BYTES_MIN` and `bytes`, rounded down.
fn quarter_steps(bytes: usize) -> usize {
    let doubling = bytes.ilog2();
    let doublings = doubling - BUFFER_BYTES_MIN.ilog2();
    let quarter = (bytes >> (doubling - 2)) & 3;
    usize::try_from(doublings * 4).expect("at most 48") + quarter
}

/// The bytes of a buffer of this size.
fn bytes_of(size: usize) -> usize {
    (BUFFER_BYTES_MIN / 4 * (4 + size % 4)) << (size / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_gets_a_buffer_at_most_a_quarter_larger() {
        for length in 1..=BUFFER_BYTES_MAX {
            let size = size_for(length).unwrap();
            let bytes = bytes_of(size);
            assert!(bytes >= length);
            assert!(bytes <= (length + length / 4).max(BUFFER_BYTES_MIN) + 1, "{length}: {bytes}");
            assert_eq!(size_held_by(bytes), Some(size));
            assert!(size < SIZES);
        }
        assert_eq!(size_for(BUFFER_BYTES_MAX + 1), None);
        assert_eq!(size_held_by(BUFFER_BYTES_MIN - 1), None);
    }

    #[test]
    fn a_buffer_goes_round_and_what_waits_is_bounded() {
        let new = || NewVersion {
            mod_revision: 2,
            create_revision: 2,
            version: 1,
            lease: 0,
            older: VersionId::NONE,
        };
        let mut versions = Versions::new(1024);
        let ids: Vec<VersionId> = (0..10).map(|_| versions.insert(new(), &[7; 250])).collect();
        for id in ids {
            versions.remove(id);
        }
        assert_eq!(versions.footprint(), (1024, 10));
        let id = versions.insert(new(), &[8; 256]);
        assert_eq!(versions.footprint(), (768, 10));
        assert_eq!(versions.at(id).value(), &[8; 256]);
    }
}
