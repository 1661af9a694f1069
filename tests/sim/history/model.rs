//! A store of many versions that anyone can check by reading it. Shares no line with the product:
//! a key is the list of what it was from which revision on, and nothing is ever forgotten, so that
//! every answer can be looked up at its revision.

use super::txns::{Done, transact};
use super::watches::Event;
use super::{Command, LeaseChange, NodeState, REVISION_EMPTY, Row, from, within};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(crate) struct Model {
    /// Each key's past, oldest first.
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
    revision: u64,
    compactions: Vec<Compaction>,
    /// Which grant made each lease.
    leases: BTreeMap<u64, u64>,
    grants: u64,
}

/// What a key was from revision `from` on.
#[derive(Debug)]
struct Version {
    from: u64,
    /// `None`: deleted.
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    value: Vec<u8>,
    create_revision: u64,
    /// Puts since the creation, that one included.
    version: u64,
    /// 0: none.
    lease: u64,
}

#[derive(Clone, Copy, Debug)]
struct Compaction {
    /// The store's revision when it happened.
    at: u64,
    /// The oldest readable revision from then on.
    to: u64,
}

/// A live key at some revision, borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RowRef<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) create_revision: u64,
    pub(crate) mod_revision: u64,
    pub(crate) version: u64,
}

/// What a command did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Effect {
    /// The store's revision after it.
    pub(crate) revision: u64,
    /// How many keys it changed. 0: the revision is of a change before it.
    pub(crate) keys: u64,
    /// What it answers, if it is a transaction.
    pub(crate) done: Option<Done>,
}

impl Model {
    pub(crate) fn new() -> Model {
        Model {
            keys: BTreeMap::new(),
            revision: REVISION_EMPTY,
            compactions: Vec::new(),
            leases: BTreeMap::new(),
            grants: 0,
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The next command of the log.
    pub(crate) fn apply(&mut self, command: &Command) -> Effect {
        let mut done = None;
        let keys = match command {
            Command::Txn(txn) => done.insert(transact(txn, self)).keys(),
            Command::Put { key, value } => self.put(key, value, 0),
            Command::Delete { key, end } => self.delete(key, end),
            Command::PutIf { key, value, mod_revision } => {
                let expected = self.mod_revision(key, self.revision) == *mod_revision;
                if expected { self.put(key, value, 0) } else { 0 }
            }
            Command::Compact { revision } => {
                self.compact(*revision);
                0
            }
            Command::Lease(change) => self.change_lease(change),
        };
        Effect { revision: self.revision, keys, done }
    }

    fn change_lease(&mut self, change: &LeaseChange) -> u64 {
        match change {
            LeaseChange::Grant { lease } if self.leases.contains_key(lease) => 0,
            LeaseChange::Grant { lease } => {
                self.grants += 1;
                while *lease == 0 && self.leases.contains_key(&self.grants) {
                    self.grants += 1;
                }
                let lease = if *lease == 0 { self.grants } else { *lease };
                self.leases.insert(lease, self.grants);
                0
            }
            LeaseChange::Hang { lease, key, value } if self.leases.contains_key(lease) => {
                self.put(key, value, *lease)
            }
            LeaseChange::Expire { lease, grant } if self.leases.get(lease) != Some(grant) => 0,
            LeaseChange::Hang { .. } => 0,
            LeaseChange::Revoke { lease } | LeaseChange::Expire { lease, .. } => {
                self.leases.remove(lease);
                self.delete_where(self.revision + 1, (&[0], &[0]), |live| live.lease == *lease)
            }
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8], lease: u64) -> u64 {
        self.put_leased(self.revision + 1, key, value, lease)
    }

    /// One of several changes that make `revision`.
    pub(super) fn put_at(&mut self, revision: u64, key: &[u8], value: &[u8]) {
        self.put_leased(revision, key, value, 0);
    }

    fn put_leased(&mut self, revision: u64, key: &[u8], value: &[u8], lease: u64) -> u64 {
        self.revision = revision;
        if !self.keys.contains_key(key) {
            self.keys.insert(key.to_owned(), Vec::new());
        }
        let versions = self.keys.get_mut(key).expect("just made if it was not there");
        let before = versions.last().and_then(|version| version.live.as_ref());
        let (create_revision, version) =
            before.map_or((self.revision, 1), |live| (live.create_revision, live.version + 1));
        let live = Some(Live { value: value.to_owned(), create_revision, version, lease });
        versions.push(Version { from: self.revision, live });
        1
    }

    fn delete(&mut self, key: &[u8], end: &[u8]) -> u64 {
        self.delete_at(self.revision + 1, key, end)
    }

    /// One of several changes that make `revision`.
    pub(super) fn delete_at(&mut self, revision: u64, key: &[u8], end: &[u8]) -> u64 {
        self.delete_where(revision, (key, end), |_| true)
    }

    fn delete_where(
        &mut self,
        revision: u64,
        (key, end): (&[u8], &[u8]),
        hit: impl Fn(&Live) -> bool,
    ) -> u64 {
        let mut deleted = 0;
        for (name, versions) in self.keys.range_mut::<[u8], _>(from(key)) {
            if !within(name, key, end) {
                break;
            }
            if versions.last().and_then(|version| version.live.as_ref()).is_some_and(&hit) {
                versions.push(Version { from: revision, live: None });
                deleted += 1;
            }
        }
        if deleted > 0 {
            self.revision = revision;
        }
        deleted
    }

    fn compact(&mut self, to: u64) {
        let last = self.compactions.last().map_or(0, |compaction| compaction.to);
        if last < to && to <= self.revision {
            self.compactions.push(Compaction { at: self.revision, to });
        }
    }

    /// The live keys of a range at a revision, in order.
    pub(crate) fn rows<'m>(
        &'m self,
        key: &'m [u8],
        end: &'m [u8],
        revision: u64,
    ) -> impl Iterator<Item = RowRef<'m>> {
        let names = self.keys.range::<[u8], _>(from(key));
        let names = names.take_while(move |(name, _)| within(name, key, end));
        names.filter_map(move |(name, versions)| {
            let newer = versions.partition_point(|version| version.from <= revision);
            let version = &versions[newer.checked_sub(1)?];
            let Live { value, create_revision, version: puts, .. } = version.live.as_ref()?;
            Some(RowRef {
                key: name,
                value,
                create_revision: *create_revision,
                mod_revision: version.from,
                version: *puts,
            })
        })
    }

    /// Every change of the keys of a range that there ever was, with what was there before.
    pub(super) fn changes<'m>(
        &'m self,
        key: &'m [u8],
        end: &'m [u8],
    ) -> impl Iterator<Item = Event> {
        let names = self.keys.range::<[u8], _>(from(key));
        let names = names.take_while(move |(name, _)| within(name, key, end));
        names.flat_map(|(name, versions)| {
            let befores = std::iter::once(None).chain(versions.iter().map(Some));
            versions.iter().zip(befores).map(|(version, before)| Event {
                row: version.row(name),
                before: before.filter(|it| it.live.is_some()).map(|it| it.row(name)),
            })
        })
    }

    /// The last change of a key at a revision; 0: there is no such key.
    pub(super) fn mod_revision(&self, key: &[u8], revision: u64) -> u64 {
        self.rows(key, &[], revision).next().map_or(0, |row| row.mod_revision)
    }

    /// The oldest revision that a store at `revision` may still answer for, if it applied every
    /// compaction that was before the change that made `revision`.
    pub(super) fn compacted_before(&self, revision: u64) -> u64 {
        let before = self.compactions.partition_point(|compaction| compaction.at < revision);
        before.checked_sub(1).map_or(0, |last| self.compactions[last].to)
    }

    /// The store's revision when it was compacted to `to`, if it ever was.
    pub(super) fn compacted_at(&self, to: u64) -> Option<u64> {
        let found = self.compactions.binary_search_by_key(&to, |compaction| compaction.to).ok()?;
        Some(self.compactions[found].at)
    }

    /// The first way in which a node's own state is another one.
    pub(super) fn differs(&self, node: &NodeState) -> Option<String> {
        if node.revision != self.revision {
            return Some(format!("its revision is {}, not {}", node.revision, self.revision));
        }
        let compacted = self.compacted_before(u64::MAX);
        if node.compact_revision != compacted {
            let theirs = node.compact_revision;
            return Some(format!("it is compacted to {theirs}, not {compacted}"));
        }
        let ours: Vec<RowRef<'_>> = self.rows(&[], &[0], self.revision).collect();
        if ours.len() != node.rows.len() {
            return Some(format!("it has {} keys, not {}", node.rows.len(), ours.len()));
        }
        let (ours, theirs) = ours.iter().zip(&node.rows).find(|(ours, row)| !ours.is(row))?;
        Some(format!("it has {theirs}, not {}", ours.to_row()))
    }
}

impl Version {
    /// As a watch has it: a deleted key has its name and the revision.
    fn row(&self, name: &[u8]) -> Row {
        let live = self.live.as_ref();
        Row {
            key: name.to_owned(),
            value: live.map_or_else(Vec::new, |live| live.value.clone()),
            create_revision: live.map_or(0, |live| live.create_revision),
            mod_revision: self.from,
            version: live.map_or(0, |live| live.version),
        }
    }
}

impl RowRef<'_> {
    pub(super) fn to_row(self) -> Row {
        let RowRef { key, value, create_revision, mod_revision, version } = self;
        let (key, value) = (key.to_owned(), value.to_owned());
        Row { key, value, create_revision, mod_revision, version }
    }

    pub(super) fn is(&self, row: &Row) -> bool {
        self.key == row.key
            && self.value == row.value
            && self.create_revision == row.create_revision
            && self.mod_revision == row.mod_revision
            && self.version == row.version
    }
}
