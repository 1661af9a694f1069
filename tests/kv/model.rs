//! The store against a map of histories that anyone can check by reading it.

use std::collections::BTreeMap;

use raftd::kv::{CommandReply, RangeEnd, RangeError, RangeRequest, Selection, Store};
use raftd::types::Revision;
use xxhash_rust::xxh3::xxh3_64;

use super::support::{self, Owned, Random, Row};

/// A version of a key from its revision on: its value, create revision and version, or deleted.
type Change = (u64, Option<(Vec<u8>, u64, u64)>);

#[derive(Default)]
pub(super) struct Model {
    keys: BTreeMap<Vec<u8>, Vec<Change>>,
    pub(super) revision: u64,
    compact_revision: u64,
}

impl Model {
    /// Of the empty store.
    pub(super) fn new() -> Model {
        Model { revision: 1, ..Model::default() }
    }

    pub(super) fn row_at(&self, key: &[u8], revision: u64) -> Option<Row> {
        let changes = self.keys.get(key)?;
        let (modified, state) = changes.iter().rev().find(|(at, _)| *at <= revision)?;
        let (value, create, version) = state.as_ref()?;
        Some((key.to_vec(), value.clone(), *create, *modified, *version))
    }

    fn rows(&self, key: &[u8], end: &[u8], revision: u64) -> Vec<Row> {
        let within = |name: &[u8]| match end {
            [] => name == key,
            [0] => name >= key,
            end => name >= key && name < end,
        };
        let names = self.keys.keys().filter(|name| within(name));
        names.filter_map(|name| self.row_at(name, revision)).collect()
    }

    pub(super) fn apply(&mut self, command: &Owned) -> CommandReply {
        match command {
            Owned::PutIf { key, value, mod_revision } => {
                let found = self.row_at(key, self.revision).map_or(0, |row| row.3);
                let refused = Some(Revision(found)).filter(|found| found != mod_revision);
                if refused.is_none() {
                    self.apply(&Owned::Put { key: key.clone(), value: value.clone() });
                }
                CommandReply::PutIf { revision: Revision(self.revision), refused }
            }
            Owned::Put { key, value } => {
                let before = self.row_at(key, self.revision);
                self.revision += 1;
                let (create, version) = before
                    .map_or((self.revision, 0), |(_, _, create, _, version)| (create, version));
                let state = Some((value.clone(), create, version + 1));
                self.keys.entry(key.clone()).or_default().push((self.revision, state));
                CommandReply::Put { revision: Revision(self.revision) }
            }
            Owned::Delete { key, end } => {
                let rows = self.rows(key, end, self.revision);
                self.revision += u64::from(!rows.is_empty());
                for (name, ..) in &rows {
                    self.keys.get_mut(name).unwrap().push((self.revision, None));
                }
                let deleted = rows.len().try_into().unwrap();
                CommandReply::DeleteRange { revision: Revision(self.revision), deleted }
            }
            Owned::Compact { revision } => {
                let refused = if revision.0 > self.revision {
                    Some(RangeError::Future { revision: Revision(self.revision) })
                } else if revision.0 <= self.compact_revision {
                    Some(RangeError::Compacted {
                        compact_revision: Revision(self.compact_revision),
                    })
                } else {
                    self.compact_revision = revision.0;
                    None
                };
                CommandReply::Compact { revision: Revision(self.revision), refused }
            }
        }
    }

    /// The formula of kv/hash.rs, from nothing, for a store without sessions.
    fn state_hash(&self) -> u64 {
        self.live_hash().wrapping_add(self.store_hash(0, 0))
    }

    pub(super) fn store_hash(&self, last_session: u64, uses: u64) -> u64 {
        hash([2, self.revision, self.compact_revision, last_session, uses, 0, 0])
    }

    pub(super) fn live_hash(&self) -> u64 {
        let rows = self.rows(b"\0", &[0], self.revision);
        let live = rows.iter().map(|(key, value, create, modified, version)| {
            hash([1, xxh3_64(key), *create, *modified, *version, 0, xxh3_64(value)])
        });
        live.fold(0, u64::wrapping_add)
    }
}

pub(super) fn hash(words: [u64; 7]) -> u64 {
    xxh3_64(&words.map(u64::to_le_bytes).concat())
}

pub(super) fn some_command(random: &mut Random, model: &Model, keys: u64) -> Owned {
    let key = support::some_key(random, keys);
    match random.below(45) {
        40..=44 => {
            let found = model.row_at(&key, model.revision).map_or(0, |row| row.3);
            let mod_revision = Revision(found + u64::from(random.one_in(4)));
            Owned::PutIf { key, value: vec![b'w'; random.size_below(300)], mod_revision }
        }
        0..=30 => Owned::Put { key, value: vec![b'v'; random.size_below(300)] },
        31..=36 => Owned::Delete { key, end: vec![] },
        37 => Owned::Delete { end: support::some_key(random, keys), key },
        _ => {
            let span = model.revision - model.compact_revision + 20;
            let revision = (model.compact_revision + random.below(span)).saturating_sub(5);
            Owned::Compact { revision: Revision(revision) }
        }
    }
}

fn check_read(random: &mut Random, model: &Model, store: &Store, keys: u64) {
    let key = support::some_key(random, keys);
    let end = support::some_end(random, &key, keys);
    let span = model.revision - model.compact_revision + 4;
    let at = if random.one_in(2) { 0 } else { model.compact_revision + random.below(span) };
    let at = if random.one_in(20) { model.compact_revision.saturating_sub(1) } else { at };
    let request = RangeRequest {
        key: &key,
        end: RangeEnd::from_bytes(&end),
        limit: random.below(6),
        revision: Revision(at),
        keys_only: random.one_in(4),
        count_only: random.one_in(8),
        selection: Selection::ALL,
    };
    let answer = support::read(store, &request);
    if at > model.revision {
        let revision = Revision(model.revision);
        assert_eq!(answer, Err(RangeError::Future { revision }), "{request:?}");
        return;
    }
    if at != 0 && at < model.compact_revision {
        let compact_revision = Revision(model.compact_revision);
        assert_eq!(answer, Err(RangeError::Compacted { compact_revision }), "{request:?}");
        return;
    }
    let mut rows = model.rows(&key, &end, if at == 0 { model.revision } else { at });
    let count = rows.len();
    if request.limit > 0 {
        rows.truncate(request.limit.try_into().unwrap());
    }
    let more = !request.count_only && rows.len() < count;
    if request.count_only {
        rows.clear();
    }
    if request.keys_only {
        rows.iter_mut().for_each(|row| row.1.clear());
    }
    let (found, summary) = answer.unwrap();
    assert_eq!(found, rows, "{request:?}");
    assert_eq!(summary.count, u64::try_from(count).unwrap(), "{request:?}");
    assert_eq!((summary.revision, summary.more), (Revision(model.revision), more), "{request:?}");
}

fn check_figures(model: &Model, store: &Store) {
    let rows = model.rows(b"\0", &[0], model.revision);
    let bytes: usize = rows.iter().map(|row| row.0.len() + row.1.len()).sum();
    assert_eq!(store.keys(), u64::try_from(rows.len()).unwrap());
    assert_eq!(store.live_bytes(), u64::try_from(bytes).unwrap());
    assert_eq!(store.revision(), Revision(model.revision));
    assert_eq!(store.compact_revision(), Revision(model.compact_revision));
    assert_eq!(store.state_hash(), model.state_hash());
    for (key, value, create, modified, version) in &rows {
        let found = store.get(key).unwrap();
        assert_eq!((found.key, found.value), (&key[..], &value[..]));
        assert_eq!((found.create_revision, found.mod_revision.0), (Revision(*create), *modified));
        assert_eq!(found.version, *version);
    }
}

#[test]
fn every_answer_is_the_models_over_a_hundred_thousand_requests() {
    for (seed, keys) in [(1, 20), (2, 150), (3, 1500)] {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut store = support::store_with(seed, u64::MAX);
        let mut model = Model::new();
        let mut requests = 0;
        while requests < 40_000 {
            let count = random.size_below(40);
            let mut commands = Vec::new();
            let mut expected = Vec::new();
            for _ in 0..count {
                let command = some_command(&mut random, &model, keys);
                expected.push(model.apply(&command));
                commands.push(command);
            }
            assert_eq!(support::apply(&mut store, &commands), expected);
            for _ in 0..6 {
                check_read(&mut random, &model, &store, keys);
            }
            requests += count + 6;
            if random.one_in(40) {
                store.tidy(random.size_below(200));
                check_figures(&model, &store);
            }
        }
        check_figures(&model, &store);
    }
}
