//! The versions of all keys, each with its value behind it, in records of 50 sizes.
//!
//! ```text
//! record   mod_revision, create_revision, version, lease: u64 · older, length: u32 · value
//! chunk    records of one size, 16 to 256 KiB, and a bit for each that says whether it is free
//! ```
//!
//! In the steady state each put makes a version and one falls out of the history. That one is not
//! touched: its bit is set, and all bits of a store fit the cache. And what is made goes to the
//! next free record of a chunk of which a quarter or more is free, in the order of addresses: it
//! finds its memory where the processor already looks, page after page. When buffers went round one
//! by one, last come first served, each put waited for seven lines of memory anywhere, and what a
//! snapshot had kept from being freed went through the allocator: a third of a replicated put.
//!
//! A record is at most a quarter larger than what it holds, and of a chunk in use up to a quarter
//! may be free and not looked for. Chunks that are free as a whole go round among all sizes, and
//! beyond a bound they are given back. Values above 64 KiB have a chunk each.

use std::collections::VecDeque;

/// What stands before the value. Bytes.
const HEADER_BYTES: usize = 40;
/// Where in it two of its fields stand.
const OLDER_AT: usize = 32;
const LENGTH_AT: usize = 36;
/// Room for the smallest value. Bytes.
const VALUE_BYTES_MIN: usize = 16;
/// Room for the largest value that shares its chunk. Bytes.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Four sizes to each doubling between them.
const SIZES: usize = 49;
/// The size of what has a chunk of its own.
const LARGE: usize = SIZES;

/// Records to a chunk at most, as a power of two.
const SLOT_BITS: u32 = 12;
const SLOTS_MAX: usize = 1 << SLOT_BITS;
/// And at least, however large they are.
const SLOTS_MIN: usize = 4;
/// The first chunk of a size; each is twice the one before, up to the largest. Bytes.
const CHUNK_BYTES_MIN: usize = 16 * 1024;
const CHUNK_BYTES_MAX: usize = 256 * 1024;
const CHUNKS_MAX: usize = (1 << (u32::BITS - SLOT_BITS)) - 1;
/// A chunk is filled again once this part of it is free.
const WORTH_PART: usize = 4;
/// Bits to a word.
const WORD: usize = 64;

/// A version's place; used again after it is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct VersionId(u32);

impl VersionId {
    /// No version.
    pub(super) const NONE: VersionId = VersionId(u32::MAX);

    fn new(chunk: usize, slot: usize) -> VersionId {
        let id = chunk << SLOT_BITS | slot;
        VersionId(u32::try_from(id).expect("chunks and slots are bounded"))
    }

    #[inline]
    fn place(self) -> (usize, usize) {
        let at = usize::try_from(self.0).expect("raftd runs on 64 bits");
        (at >> SLOT_BITS, at & (SLOTS_MAX - 1))
    }
}

/// What a key was from one revision on.
#[derive(Clone, Copy)]
pub(super) struct Version<'s> {
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
    value: &'s [u8],
}

impl<'s> Version<'s> {
    pub(super) fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    pub(super) fn value(&self) -> &'s [u8] {
        self.value
    }
}

/// A version to be made.
pub(super) struct NewVersion {
    pub(super) mod_revision: u64,
    pub(super) create_revision: u64,
    pub(super) version: u64,
    pub(super) lease: u64,
    pub(super) older: VersionId,
}

/// Records of one size. Empty: its place waits for another.
#[derive(Default)]
struct Chunk {
    /// As far as they were ever used.
    records: Vec<u8>,
    /// From one record to the next. Bytes.
    stride: usize,
    slots: usize,
    size: usize,
    /// A bit for each that is free, but for those of the word that is being filled.
    free: Vec<u64>,
    free_count: usize,
    /// It waits to be filled, or is being filled.
    listed: bool,
}

/// Where the next record of a size comes from.
#[derive(Clone, Copy, Default)]
struct Filling {
    chunk: Option<usize>,
    /// The word of its bits that is used up first, and what is left of that.
    word: usize,
    bits: u64,
}

/// Every version of every key.
pub(super) struct Versions {
    chunks: Vec<Chunk>,
    /// By size.
    filling: [Filling; SIZES],
    /// Chunks of which enough is free, by size; the first of them has waited longest.
    waiting: [VecDeque<usize>; SIZES],
    /// How many chunks of each size there are.
    counts: [usize; SIZES],
    /// Places of chunks that are gone.
    vacant: Vec<usize>,
    slots: usize,
    free_bytes: usize,
    free_bytes_max: usize,
}

impl Versions {
    /// While more than `free_bytes_max` bytes of records are free, chunks that are wholly free are
    /// given back.
    pub(super) fn new(free_bytes_max: usize) -> Versions {
        Versions {
            chunks: Vec::new(),
            filling: [Filling::default(); SIZES],
            waiting: [const { VecDeque::new() }; SIZES],
            counts: [0; SIZES],
            vacant: Vec::new(),
            slots: 0,
            free_bytes: 0,
            free_bytes_max,
        }
    }

    #[inline]
    pub(super) fn at(&self, id: VersionId) -> Version<'_> {
        let (at, slot) = id.place();
        let Chunk { records, stride, .. } = &self.chunks[at];
        let record = &records[slot * stride..(slot + 1) * stride];
        let (header, rest) = record.split_first_chunk().expect("a record begins with its header");
        let [mod_revision, create_revision, version, lease] =
            [0, 8, 16, 24].map(|at| u64_at(header, at));
        let length = usize::try_from(u32_at(header, LENGTH_AT)).expect("raftd runs on 64 bits");
        let (older, value) = (VersionId(u32_at(header, OLDER_AT)), &rest[..length]);
        Version { mod_revision, create_revision, version, lease, older, value }
    }

    /// Adds a version with a copy of `value`.
    #[inline]
    pub(super) fn insert(&mut self, new: NewVersion, value: &[u8]) -> VersionId {
        let id = match size_for(value.len()) {
            Some(size) => self.take(size),
            None => self.add_chunk(LARGE, value.len(), 1),
        };
        let (at, slot) = id.place();
        let Chunk { records, stride, .. } = &mut self.chunks[at];
        let (from, end) = (slot * *stride, (slot + 1) * *stride);
        if records.len() < end {
            records.resize(end, 0);
        }
        let record = &mut records[from..end];
        let (header, rest) = record.split_at_mut(HEADER_BYTES);
        let NewVersion { mod_revision, create_revision, version, lease, older } = new;
        let length = u32::try_from(value.len()).expect("limits.rs bounds every value");
        header[..8].copy_from_slice(&mod_revision.to_le_bytes());
        header[8..16].copy_from_slice(&create_revision.to_le_bytes());
        header[16..24].copy_from_slice(&version.to_le_bytes());
        header[24..32].copy_from_slice(&lease.to_le_bytes());
        header[OLDER_AT..LENGTH_AT].copy_from_slice(&older.0.to_le_bytes());
        header[LENGTH_AT..].copy_from_slice(&length.to_le_bytes());
        rest[..value.len()].copy_from_slice(value);
        id
    }

    /// Links a version to the one it superseded.
    pub(super) fn set_older(&mut self, id: VersionId, older: VersionId) {
        let (at, slot) = id.place();
        let Chunk { records, stride, .. } = &mut self.chunks[at];
        let field = slot * *stride + OLDER_AT;
        records[field..field + 4].copy_from_slice(&older.0.to_le_bytes());
    }

    /// Gives up a version.
    #[inline]
    pub(super) fn remove(&mut self, id: VersionId) {
        let (at, slot) = id.place();
        let chunk = &mut self.chunks[at];
        let (word, bit) = (slot / WORD, 1 << (slot % WORD));
        assert!(chunk.free[word] & bit == 0, "a version is given up once");
        chunk.free[word] |= bit;
        chunk.free_count += 1;
        self.free_bytes += chunk.stride;
        if chunk.free_count * WORTH_PART >= chunk.slots {
            self.freed_much(at);
        }
    }

    /// Enough of a chunk is free that it is filled again, or given back.
    fn freed_much(&mut self, at: usize) {
        let chunk = &mut self.chunks[at];
        let wholly = chunk.free_count == chunk.slots;
        if chunk.size == LARGE {
            self.give_back(at);
            self.vacant.push(at);
        } else if wholly
            && self.free_bytes > self.free_bytes_max
            && self.filling[chunk.size].chunk != Some(at)
        {
            // Its place becomes vacant when its turn to be filled would come.
            let (size, was_listed) = (chunk.size, std::mem::replace(&mut chunk.listed, true));
            if !was_listed {
                self.waiting[size].push_back(at);
            }
            self.give_back(at);
        } else if !chunk.listed {
            chunk.listed = true;
            self.waiting[chunk.size].push_back(at);
        }
    }

    fn give_back(&mut self, at: usize) {
        let chunk = std::mem::take(&mut self.chunks[at]);
        self.free_bytes -= chunk.slots * chunk.stride;
        self.slots -= chunk.slots;
        if let Some(count) = self.counts.get_mut(chunk.size) {
            *count -= 1;
        }
    }

    /// The next free record of a size.
    #[inline]
    fn take(&mut self, size: usize) -> VersionId {
        while self.filling[size].bits == 0 {
            self.refill(size);
        }
        let filling = &mut self.filling[size];
        let bit = usize::try_from(filling.bits.trailing_zeros()).expect("at most 64");
        filling.bits &= filling.bits - 1;
        let at = filling.chunk.expect("bits are those of a chunk");
        let slot = filling.word * WORD + bit;
        let chunk = &mut self.chunks[at];
        chunk.free_count -= 1;
        self.free_bytes -= chunk.stride;
        VersionId::new(at, slot)
    }

    /// Goes on to the next word of bits; behind the last one, to the next chunk.
    fn refill(&mut self, size: usize) {
        let Filling { chunk, word, .. } = self.filling[size];
        if let Some(at) = chunk {
            let chunk = &mut self.chunks[at];
            let next = chunk.free.iter().skip(word + 1).position(|bits| *bits != 0);
            if let Some(passed) = next {
                let word = word + 1 + passed;
                let bits = std::mem::take(&mut chunk.free[word]);
                self.filling[size] = Filling { chunk: Some(at), word, bits };
                return;
            }
            self.filling[size].chunk = None;
            // What was given up behind where it was filled.
            chunk.listed = chunk.free_count * WORTH_PART >= chunk.slots;
            if chunk.listed {
                self.waiting[size].push_back(at);
            }
        }
        let at = self.next_chunk(size);
        let bits = std::mem::take(&mut self.chunks[at].free[0]);
        self.filling[size] = Filling { chunk: Some(at), word: 0, bits };
    }

    fn next_chunk(&mut self, size: usize) -> usize {
        while let Some(at) = self.waiting[size].pop_front() {
            if self.chunks[at].slots > 0 {
                return at;
            }
            self.vacant.push(at);
        }
        let stride = HEADER_BYTES + bytes_of(size);
        let chunk_bytes = (CHUNK_BYTES_MIN << self.counts[size].min(8)).min(CHUNK_BYTES_MAX);
        let slots = (chunk_bytes / stride).clamp(SLOTS_MIN, SLOTS_MAX);
        self.counts[size] += 1;
        let (at, _) = self.add_chunk(size, bytes_of(size), slots).place();
        let free = &mut self.chunks[at].free;
        free.resize(slots.div_ceil(WORD), u64::MAX);
        let behind = free.len() * WORD - slots;
        *free.last_mut().expect("it has a slot") >>= behind;
        self.chunks[at].free_count = slots;
        self.free_bytes += slots * stride;
        at
    }

    /// Adds a chunk of records for values of so many bytes, none of them free, and names the first.
    fn add_chunk(&mut self, size: usize, value_bytes: usize, slots: usize) -> VersionId {
        let stride = HEADER_BYTES + value_bytes.next_multiple_of(8);
        let records = Vec::with_capacity(slots * stride);
        let free = vec![0; usize::from(size == LARGE)];
        let chunk = Chunk { records, stride, slots, size, free, free_count: 0, listed: true };
        self.slots += slots;
        let at = match self.vacant.pop() {
            Some(at) => {
                self.chunks[at] = chunk;
                at
            }
            None => {
                assert!(self.chunks.len() < CHUNKS_MAX, "so many do not fit memory");
                self.chunks.push(chunk);
                self.chunks.len() - 1
            }
        };
        VersionId::new(at, 0)
    }

    /// Bytes of records that wait for a version, and how many records there are, used or not.
    pub(super) fn footprint(&self) -> (usize, usize) {
        (self.free_bytes, self.slots)
    }
}

fn u64_at(header: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"))
}

/// The smallest size that holds `length` bytes.
fn size_for(length: usize) -> Option<usize> {
    if length > VALUE_BYTES_MAX {
        return None;
    }
    if length <= VALUE_BYTES_MIN {
        return Some(0);
    }
    Some(quarter_steps(length - 1) + 1)
}

/// How many quarter steps of a doubling lie between `VALUE_BYTES_MIN` and `bytes`, rounded down.
fn quarter_steps(bytes: usize) -> usize {
    let doubling = bytes.ilog2();
    let doublings = doubling - VALUE_BYTES_MIN.ilog2();
    let quarter = (bytes >> (doubling - 2)) & 3;
    usize::try_from(doublings * 4).expect("at most 48") + quarter
}

/// The bytes that a record of this size has for its value.
fn bytes_of(size: usize) -> usize {
    let bytes = (VALUE_BYTES_MIN / 4 * (4 + size % 4)) << (size / 4);
    bytes.next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn numbered(number: u64) -> NewVersion {
        NewVersion {
            mod_revision: number,
            create_revision: number / 2,
            version: number / 3,
            lease: number % 5,
            older: VersionId::NONE,
        }
    }

    fn next(state: &mut u64) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(*state >> 33).unwrap()
    }

    #[test]
    fn every_length_gets_a_record_at_most_a_quarter_larger() {
        for length in 1..=VALUE_BYTES_MAX {
            let size = size_for(length).unwrap();
            let bytes = bytes_of(size);
            assert!(bytes >= length);
            assert!(bytes <= (length + length / 4).max(VALUE_BYTES_MIN) + 8, "{length}: {bytes}");
            assert!(size < SIZES);
        }
        assert_eq!(size_for(0), Some(0));
        assert_eq!(size_for(VALUE_BYTES_MAX + 1), None);
    }

    /// Values of all sizes come and go; each is what it was made with for as long as it is there.
    #[test]
    fn versions_that_come_and_go_are_what_an_ordered_map_holds() {
        let mut versions = Versions::new(1 << 20);
        let mut oracle: BTreeMap<u64, (VersionId, VersionId, Vec<u8>)> = BTreeMap::new();
        let mut state = 7;
        let (mut older, mut most) = (VersionId::NONE, 0);
        for number in 1..=60_000_u64 {
            let length = match next(&mut state) % 100 {
                0 => VALUE_BYTES_MAX + next(&mut state) % 1000,
                1..10 => next(&mut state) % 5000,
                10..20 => 0,
                _ => 90 + next(&mut state) % 20,
            };
            let value = vec![u8::try_from(number % 251).unwrap(); length];
            let id = versions.insert(numbered(number), &value);
            if number % 3 == 0 {
                versions.set_older(id, older);
            }
            let linked = if number % 3 == 0 { older } else { VersionId::NONE };
            assert!(oracle.values().all(|(other, ..)| *other != id), "{number}: it is taken");
            oracle.insert(number, (id, linked, value));
            older = id;
            // Waves: few, then many.
            let count = if number / 10_000 % 2 == 0 { 100 } else { 600 };
            while oracle.len() > count {
                let nth = next(&mut state) % oracle.len();
                let (&number, _) = oracle.iter().nth(nth).unwrap();
                let (id, linked, value) = oracle.remove(&number).unwrap();
                let found = versions.at(id);
                assert_eq!(found.value(), value);
                assert_eq!((found.mod_revision, found.create_revision), (number, number / 2));
                assert_eq!((found.version, found.lease), (number / 3, number % 5));
                assert_eq!(found.older, linked);
                versions.remove(id);
            }
            most = most.max(versions.footprint().1);
        }
        assert!(most > 600 && most < 60_000 / 4, "places are used again: {most}");
    }

    #[test]
    fn what_is_free_is_filled_in_the_order_of_addresses() {
        let mut versions = Versions::new(1 << 20);
        let ids: Vec<VersionId> =
            (0..5000).map(|number| versions.insert(numbered(number), &[7; 250])).collect();
        let (_, places) = versions.footprint();
        for id in ids.iter().step_by(2) {
            versions.remove(*id);
        }
        let again: Vec<u32> =
            (0..2000).map(|number| versions.insert(numbered(number), &[8; 256]).0).collect();
        assert_eq!(versions.footprint().1, places, "no chunk was added");
        let turns = again.windows(2).filter(|two| two[0] > two[1]).count();
        assert!(turns < 4, "from one chunk to another, and not within one: {turns}");
    }

    /// Less than a quarter of a chunk does not make it worth while; a quarter does.
    #[test]
    fn a_chunk_is_filled_again_once_a_quarter_of_it_is_free() {
        let mut versions = Versions::new(1 << 20);
        let first = versions.insert(numbered(1), &[1; 256]);
        let slots = versions.footprint().1;
        let ids: Vec<VersionId> =
            (1..slots).map(|_| versions.insert(numbered(1), &[1; 256])).collect();
        versions.remove(first);
        for id in &ids[..slots / 4 - 2] {
            versions.remove(*id);
        }
        versions.insert(numbered(2), &[2; 256]);
        let more = versions.footprint().1;
        assert!(more > slots, "a new chunk");
        for id in &ids[slots / 4 - 2..slots / 2] {
            versions.remove(*id);
        }
        // The rest of the new one, and then what is free of the first.
        for _ in 0..more - slots - 1 + slots / 2 {
            versions.insert(numbered(3), &[3; 256]);
        }
        assert_eq!(versions.footprint().1, more);
    }

    #[test]
    fn what_waits_beyond_the_bound_is_given_back_and_its_place_used_again() {
        let mut versions = Versions::new(CHUNK_BYTES_MAX);
        for round in 0..3 {
            let large = versions.insert(numbered(1), &[9; VALUE_BYTES_MAX + 1]);
            let ids: Vec<VersionId> =
                (0..10_000).map(|number| versions.insert(numbered(number), &[7; 250])).collect();
            let (_, places) = versions.footprint();
            assert!(places > 10_000 && places < 12_000, "round {round}: {places}");
            for id in ids.into_iter().chain([large]) {
                versions.remove(id);
            }
            let (free_bytes, places) = versions.footprint();
            assert!(free_bytes <= 2 * CHUNK_BYTES_MAX, "round {round}: {free_bytes}");
            assert!(places < 2000, "round {round}: {places}");
        }
        assert!(versions.chunks.len() < 30, "{} chunks", versions.chunks.len());
    }

    #[test]
    #[should_panic(expected = "a version is given up once")]
    fn nobody_gives_a_version_up_twice() {
        let mut versions = Versions::new(1024);
        let id = versions.insert(numbered(1), &[1; 100]);
        versions.remove(id);
        versions.remove(id);
    }
}
