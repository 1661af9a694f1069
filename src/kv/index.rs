//! From a key's hash to its place: the point access of every put and get.
//!
//! Open addressing with linear probing over 8-byte buckets `(32 bits of hash, key id + 1)`; 0 is
//! empty. The bucket a key belongs to is given by the **upper** bits of those 32, so that growing
//! and removing never look at a key: eight buckets to a cache line, and one miss finds the key's
//! id.
//!
//! Growing is spread out: the larger table takes what is new, and every later insertion carries a
//! few buckets over from the smaller one. No single put pays for all (design §12.13). The larger
//! table's memory is written to beforehand, a little with each of the last insertions before: the
//! system hands out pages as they are first written to, and what is new is spread over all of
//! them, so that the puts of one turn met thousands.
//!
//! Tables that are not needed any more wait for whoever can give large memory back without anybody
//! waiting for it: with ten million keys that takes milliseconds.
//!
//! Why not `std`'s map: it rehashes in one step, and its order is random by design. This one is
//! seeded too, against chosen keys, but it is never iterated, so its order cannot reach an answer.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::keys::KeyId;

/// Buckets of the first table.
const BUCKETS_MIN: usize = 1024;

/// Buckets carried over by one insertion while the table grows. 8 is one cache line of the old
/// table. It is done after `buckets / 8` insertions, and the new table fills only after `buckets *
/// 5 / 8` more.
const BUCKETS_PER_STEP: usize = 8;

/// The next table is made ready by the last `buckets / 16` insertions before it is needed, which
/// is twice as large.
const READIED_BY_PART: usize = 16;
const BUCKETS_READIED_PER_STEP: usize = 2 * READIED_BY_PART;

/// A table of so many is given back in the background: a megabyte.
const BUCKETS_LARGE: usize = 128 * 1024;

const EMPTY: u64 = 0;
/// A bucket of the old table whose key has moved or gone. Probing goes on behind it.
const GONE: u64 = 1 << 32;

/// The part of a key's hash that the index uses.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct KeyHash(u32);

/// The hash table of all keys in the store, tombstones included.
pub(super) struct Index {
    seed: u64,
    table: Table,
    old: Option<Growth>,
    /// The buckets of the next table, as far as they are ready.
    next: Vec<u64>,
    /// Large tables that are not needed any more.
    retired: Vec<Vec<u64>>,
    count: usize,
}

/// A table on its way out.
struct Growth {
    table: Table,
    /// Buckets before this one have been carried over.
    next: usize,
}

impl Index {
    pub(super) fn new(seed: u64) -> Index {
        let (table, next, retired) = (Table::new(BUCKETS_MIN), Vec::new(), Vec::new());
        Index { seed, table, old: None, next, retired, count: 0 }
    }

    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> KeyHash {
        let upper = xxh3_64_with_seed(key, self.seed) >> 32;
        KeyHash(u32::try_from(upper).expect("the upper half of 64 bits"))
    }

    /// Loads the bucket where the search for `hash` starts. The value means nothing; asking for
    /// many of them in a row lets the processor fetch them at the same time.
    #[inline]
    pub(super) fn touch(&self, hash: KeyHash) -> u64 {
        self.table.buckets[self.table.home(hash)]
    }

    /// A key that may be the one, judged by its hash alone.
    #[inline]
    pub(super) fn candidate(&self, hash: KeyHash) -> Option<KeyId> {
        self.find(hash, |_| true)
    }

    /// The key with this hash for which `is_it` holds.
    #[inline]
    pub(super) fn find(
        &self,
        hash: KeyHash,
        is_it: impl Fn(KeyId) -> bool + Copy,
    ) -> Option<KeyId> {
        let place = self.table.find(hash, is_it);
        match (place, &self.old) {
            (Some(at), _) => Some(self.table.id_at(at)),
            (None, None) => None,
            (None, Some(old)) => old.table.find(hash, is_it).map(|at| old.table.id_at(at)),
        }
    }

    /// Adds a key that is not in it.
    pub(super) fn insert(&mut self, hash: KeyHash, id: KeyId) {
        self.step(BUCKETS_PER_STEP);
        self.ready_next();
        if self.count >= self.table.keys_max() {
            assert!(self.old.is_none(), "growing again before the last growth is done");
            let larger = std::mem::take(&mut self.next);
            assert_eq!(larger.len(), self.table.buckets.len() * 2, "made ready in time");
            let table = std::mem::replace(&mut self.table, Table::of(larger));
            self.old = Some(Growth { table, next: 0 });
        }
        self.table.insert(hash, id);
        self.count += 1;
    }

    /// Takes out a key that is in it.
    pub(super) fn remove(&mut self, hash: KeyHash, id: KeyId) {
        self.count -= 1;
        if self.count + self.table.buckets.len() / READIED_BY_PART * 2 < self.table.keys_max() {
            // It is not needed so soon.
            let next = std::mem::take(&mut self.next);
            self.retire(next);
        }
        if let Some(at) = self.table.find(hash, |found| found == id) {
            self.table.remove(at);
            return;
        }
        let old = self.old.as_mut().expect("the key is in one of the tables");
        let at = old.table.find(hash, |found| found == id).expect("the key is in one of them");
        old.table.buckets[at] = GONE;
    }

    /// Writes to some memory of the next table if that is needed soon.
    fn ready_next(&mut self) {
        let buckets = self.table.buckets.len();
        if self.count + buckets / READIED_BY_PART < self.table.keys_max() {
            return;
        }
        self.next.reserve_exact(2 * buckets - self.next.len());
        let ready = self.next.len() + BUCKETS_READIED_PER_STEP;
        self.next.resize(ready.min(2 * buckets), EMPTY);
    }

    /// Carries over up to `buckets` buckets of a table on its way out.
    pub(super) fn step(&mut self, buckets: usize) {
        let Some(mut old) = self.old.take() else { return };
        let end = old.table.buckets.len().min(old.next.saturating_add(buckets));
        for at in old.next..end {
            let bucket = old.table.buckets[at];
            if is_key(bucket) {
                self.table.insert_bucket(bucket);
                // Not EMPTY: a search for a key further on must get past it. And what is EMPTY
                // stays so, or searches would walk over everything carried over.
                old.table.buckets[at] = GONE;
            }
        }
        old.next = end;
        if end < old.table.buckets.len() {
            self.old = Some(old);
        } else {
            self.retire(old.table.buckets);
        }
    }

    /// A table is not needed any more.
    fn retire(&mut self, buckets: Vec<u64>) {
        if buckets.capacity() >= BUCKETS_LARGE {
            self.retired.push(buckets);
        }
    }

    /// Large tables that nobody needs: dropping them takes a while.
    pub(super) fn take_retired(&mut self) -> Vec<Vec<u64>> {
        std::mem::take(&mut self.retired)
    }

    /// How many keys it holds.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Whether a table is on its way out.
    #[cfg(test)]
    pub(super) fn is_growing(&self) -> bool {
        self.old.is_some()
    }
}

struct Table {
    /// A power of two of them.
    buckets: Vec<u64>,
    /// 32 less the logarithm of their number.
    shift: u32,
}

impl Table {
    fn new(buckets: usize) -> Table {
        Table::of(vec![EMPTY; buckets])
    }

    fn of(buckets: Vec<u64>) -> Table {
        let count = buckets.len();
        assert!(count.is_power_of_two());
        let bits = count.ilog2();
        assert!((1..=31).contains(&bits), "{count} buckets need more than 32 bits of hash");
        Table { buckets, shift: 32 - bits }
    }

    /// 5/8 full: a search that finds nothing then looks at 4 buckets on average, half a cache line.
    fn keys_max(&self) -> usize {
        self.buckets.len() / 8 * 5
    }

    #[inline]
    fn home(&self, hash: KeyHash) -> usize {
        usize::try_from(hash.0 >> self.shift).expect("at most 31 bits")
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.buckets.len() - 1)
    }

    #[inline]
    fn find(&self, hash: KeyHash, is_it: impl Fn(KeyId) -> bool + Copy) -> Option<usize> {
        let mut at = self.home(hash);
        loop {
            let bucket = self.buckets[at];
            if bucket == EMPTY {
                return None;
            }
            if hash_of(bucket) == hash && is_key(bucket) && is_it(id_of(bucket)) {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    #[inline]
    fn id_at(&self, at: usize) -> KeyId {
        id_of(self.buckets[at])
    }

    fn insert(&mut self, hash: KeyHash, id: KeyId) {
        self.insert_bucket(u64::from(hash.0) << 32 | (u64::from(id.0) + 1));
    }

    fn insert_bucket(&mut self, bucket: u64) {
        let mut at = self.home(hash_of(bucket));
        while self.buckets[at] != EMPTY {
            at = self.after(at);
        }
        self.buckets[at] = bucket;
    }

    /// Closes the hole: whoever stands behind it only because it was taken moves up. Knuth 6.4, R.
    fn remove(&mut self, at: usize) {
        let mask = self.buckets.len() - 1;
        let mut hole = at;
        let mut next = self.after(at);
        while self.buckets[next] != EMPTY {
            let home = self.home(hash_of(self.buckets[next]));
            // How far it is from home, and how far from the hole: it may move if home is not
            // between.
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.buckets[hole] = self.buckets[next];
                hole = next;
            }
            next = self.after(next);
        }
        self.buckets[hole] = EMPTY;
    }
}

#[inline]
fn is_key(bucket: u64) -> bool {
    bucket & u64::from(u32::MAX) != 0
}

#[inline]
fn hash_of(bucket: u64) -> KeyHash {
    KeyHash(u32::try_from(bucket >> 32).expect("the upper half of 64 bits"))
}

#[inline]
fn id_of(bucket: u64) -> KeyId {
    let id = (bucket & u64::from(u32::MAX)).wrapping_sub(1);
    KeyId(u32::try_from(id).expect("the bucket holds a key"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::kv::{Store, StoreOptions};

    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *state >> 33
    }

    #[test]
    fn growing_and_shrinking_it_finds_what_an_ordered_map_finds() {
        let mut index = Index::new(99);
        let mut oracle: BTreeMap<u64, KeyId> = BTreeMap::new();
        let mut names: Vec<u64> = Vec::new();
        let mut state = 1;
        let mut grown = 0;
        for step in 0..300_000_u64 {
            // Waves: more come than go, then more go than come.
            let coming = if step / 50_000 % 2 == 0 { 7 } else { 4 };
            let name = next(&mut state) % 60_000;
            let hash = index.hash(&name.to_le_bytes());
            let id = KeyId(u32::try_from(names.len()).unwrap());
            let found = index.find(hash, |id| names[usize::try_from(id.0).unwrap()] == name);
            assert_eq!(found, oracle.get(&name).copied(), "step {step}");
            match found {
                Some(id) if next(&mut state) % 10 >= coming => {
                    index.remove(hash, id);
                    oracle.remove(&name);
                }
                None if next(&mut state) % 10 < coming => {
                    grown += u64::from(!index.is_growing());
                    names.push(name);
                    index.insert(hash, id);
                    oracle.insert(name, id);
                }
                Some(_) | None => {}
            }
            assert_eq!(index.count(), oracle.len());
            if step % 1000 == 0 {
                index.step(3);
            }
        }
        assert!(grown > 3 && oracle.len() > 1000);
        for (name, id) in oracle {
            let hash = index.hash(&name.to_le_bytes());
            let found = index.find(hash, |id| names[usize::try_from(id.0).unwrap()] == name);
            assert_eq!(found, Some(id));
        }
    }

    /// What has moved leaves a mark that searches go past. Only one group at a time needs it, so
    /// that every key is looked up after every step.
    #[test]
    fn every_key_is_found_after_every_step_of_growing() {
        let mut index = Index::new(7);
        let mut keys: Vec<(KeyHash, KeyId)> = Vec::new();
        let mut steps = 0;
        for name in 0..3000_u32 {
            let (hash, id) = (index.hash(&name.to_le_bytes()), KeyId(name));
            index.insert(hash, id);
            keys.push((hash, id));
            if !index.is_growing() {
                continue;
            }
            steps += 1;
            // Some go meanwhile, out of either table.
            if steps % 3 == 0 {
                let (hash, id) = keys.swap_remove(steps * 7919 % keys.len());
                index.remove(hash, id);
                assert_eq!(index.find(hash, |found| found == id), None, "step {steps}");
            }
            for (hash, id) in &keys {
                let found = index.find(*hash, |found| found == *id);
                assert_eq!(found, Some(*id), "step {steps}");
            }
        }
        assert!(steps > 3 * BUCKETS_MIN / BUCKETS_PER_STEP, "it grew twice");
    }

    #[test]
    fn searches_stay_short_while_it_grows() {
        let mut index = Index::new(5);
        let mut probes_max = 0;
        for name in 0..200_000_u32 {
            index.insert(index.hash(&name.to_le_bytes()), KeyId(name));
            if let Some(old) = &index.old {
                let absent = index.hash(&(name | 1 << 31).to_le_bytes());
                let mut at = old.table.home(absent);
                let mut probes = 1;
                while old.table.buckets[at] != EMPTY {
                    at = old.table.after(at);
                    probes += 1;
                }
                probes_max = probes_max.max(probes);
            }
        }
        assert!(probes_max < 200, "a search walked over {probes_max} buckets");
    }

    #[test]
    fn large_tables_wait_for_whoever_drops_them() {
        let mut index = Index::new(3);
        for name in 0..200_000_u32 {
            index.insert(index.hash(&name.to_le_bytes()), KeyId(name));
        }
        index.step(usize::MAX);
        let retired = index.take_retired();
        let buckets: Vec<usize> = retired.iter().map(Vec::len).collect();
        assert_eq!(buckets, [BUCKETS_LARGE, 2 * BUCKETS_LARGE]);
        assert!(index.take_retired().is_empty());
    }

    #[test]
    fn the_next_table_is_made_ready_piece_by_piece_and_let_go_where_it_is_not_needed() {
        let mut index = Index::new(3);
        let insert = |index: &mut Index, name: u32| {
            let before = (index.table.buckets.len(), index.next.len());
            index.insert(index.hash(&name.to_le_bytes()), KeyId(name));
            let pieces = index.next.len().saturating_sub(before.1);
            assert!(pieces <= BUCKETS_READIED_PER_STEP, "{name}: {pieces} at once");
            index.table.buckets.len() > before.0
        };
        let grown = (0..100_000).filter(|&name| insert(&mut index, name)).count();
        assert!(grown > 5 && index.next.is_empty(), "half full, it needs none");
        let mut name = 100_000;
        while index.next.len() < 1000 {
            insert(&mut index, name);
            name += 1;
        }
        for name in (0..name).rev().take(20_000) {
            index.remove(index.hash(&name.to_le_bytes()), KeyId(name));
        }
        assert_eq!(index.next.capacity(), 0, "there are fewer keys again");
    }

    /// Who knows the seed of one server finds as many keys as they like for one bucket of it.
    #[test]
    fn keys_chosen_against_one_store_are_spread_in_another() {
        let store = |index_seed| Store::new(StoreOptions { index_seed, history_bytes_max: 1 });
        let (known, other) = (store(1), store(2));
        let in_first =
            |index: &Index, name: u32| index.table.home(index.hash(&name.to_le_bytes())) == 0;
        let chosen: Vec<u32> =
            (0..).filter(|name| in_first(&known.index, *name)).take(50).collect();
        let still = chosen.iter().filter(|name| in_first(&other.index, **name)).count();
        assert!(still < 5, "{still} of them share a bucket there as well");
    }
}
