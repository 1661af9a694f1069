//! Store ⇄ bytes: the state at one revision, written and read in slices while the store serves.
//!
//! ```text
//! checkpoint  header (key version+)* end         MessagePack values in a row, to the last byte
//! header      01 array(4) [format: uint = 1, revision, compact_revision, stamp_ms]
//! key         02 bin                             ascending
//! version     03 array(4) [mod_revision, create_revision, version, value: bin]
//!                                                of the key before, newest first; a tombstone has
//!                                                create_revision 0, version 0 and no value
//! end         04 array(3) [keys, versions, state_hash: uint]
//! ```
//!
//! It holds every version and tombstone above the compaction revision, and of each key the newest
//! version at or below it; of tombstones only from the compaction revision on, for older ones say
//! nothing that absence does not. So it depends on the log alone, not on how far a node has freed
//! what it compacted. What a later version of the store keeps beside keys gets values of its own
//! before the end, and another format number; reading is strict.
//!
//! **Consistent without a stop.** Versions at or below the pinned revision never change, so the
//! cursor may come to a key long after the pin: it passes over what is newer. Only compaction takes
//! versions away, so while a checkpoint is pinned nothing is freed that was not due at its
//! compaction revision. Readers see a later compaction at once; its memory comes back afterwards.
//!
//! Why not fork, or a persistent tree: `fork` stops the loop for as long as it takes to copy page
//! tables, and doubles the memory under writes; a persistent tree makes every put pay.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::ops::Bound;

use crate::codec::msgpack::{self, DecodeError, Reader};
use crate::types::{LogIndex, Revision};

use super::hash::{self, LiveVersion};
use super::keys::KeyId;
use super::versions::{NewVersion, Version, VersionId};
use super::{Store, StoreOptions};

/// The version of the format above.
pub const CHECKPOINT_FORMAT: u64 = 1;

const HEADER: u8 = 1;
const KEY: u8 = 2;
const VERSION: u8 = 3;
const END: u8 = 4;

/// What a slice may cost: whichever of the two is used up first ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SliceLimits {
    /// Versions and keys looked at.
    pub steps: usize,
    /// Bytes written or read, unless a single version is larger.
    pub bytes: usize,
}

/// Whether a checkpoint or a load is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sliced {
    /// Another slice is needed.
    More,
    /// That was the last one.
    Done,
}

/// A store's state at one revision, on its way into bytes. While it lives, the store keeps what it
/// needs; `Store::end_checkpoint` lets go.
#[derive(Debug)]
pub struct Checkpoint {
    revision: Revision,
    compact_revision: Revision,
    stamp_ms: u64,
    state_hash: u64,
    applied: LogIndex,
    cursor: Cursor,
    keys: u64,
    versions: u64,
}

/// Where a checkpoint goes on.
#[derive(Debug)]
enum Cursor {
    Header,
    /// With the first key behind this one; `None`: with the first of all.
    Behind(Option<Box<[u8]>>),
    /// In the chain of this key, at this version. The key is named once a version of it is written.
    Within {
        key: Box<[u8]>,
        at: VersionId,
        named: bool,
    },
    End,
    Done,
}

impl Checkpoint {
    /// The last entry in it.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }
}

impl Store {
    /// Pins the state as it is now. Panics if another checkpoint is pinned.
    pub fn begin_checkpoint(&mut self) -> Checkpoint {
        assert!(self.pinned.is_none(), "one checkpoint at a time");
        self.pinned = Some(self.compact_revision);
        Checkpoint {
            revision: self.revision,
            compact_revision: self.compact_revision,
            stamp_ms: self.stamp_ms,
            state_hash: self.state_hash(),
            applied: self.applied,
            cursor: Cursor::Header,
            keys: 0,
            versions: 0,
        }
    }

    /// Lets go of what a checkpoint needed, whether it was completed or not.
    pub fn end_checkpoint(&mut self, checkpoint: Checkpoint) {
        assert_eq!(self.pinned, Some(checkpoint.compact_revision), "it is of this store");
        self.pinned = None;
    }

    /// Appends the next slice of a checkpoint of this store to `out`. It always ends between two
    /// values.
    pub fn write_checkpoint(
        &self,
        checkpoint: &mut Checkpoint,
        out: &mut Vec<u8>,
        limits: SliceLimits,
    ) -> Sliced {
        let end = out.len().saturating_add(limits.bytes);
        let mut steps = limits.steps;
        while steps > 0 && out.len() < end {
            steps -= 1;
            let cursor = std::mem::replace(&mut checkpoint.cursor, Cursor::Done);
            checkpoint.cursor = match cursor {
                Cursor::Header => {
                    checkpoint.write_header(out);
                    Cursor::Behind(None)
                }
                Cursor::Behind(key) => self.next_key(key.as_deref()),
                Cursor::Within { key, at, named } => {
                    self.write_step(checkpoint, out, key, (at, named))
                }
                Cursor::End => {
                    checkpoint.write_end(out);
                    Cursor::Done
                }
                Cursor::Done => return Sliced::Done,
            };
        }
        match checkpoint.cursor {
            Cursor::Done => Sliced::Done,
            Cursor::Header | Cursor::Behind(_) | Cursor::Within { .. } | Cursor::End => {
                Sliced::More
            }
        }
    }

    fn next_key(&self, behind: Option<&[u8]>) -> Cursor {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        match self.ordered.range::<[u8], _>((from, Bound::Unbounded)).next() {
            Some((key, id)) => {
                let at = self.keys.at(*id).newest;
                Cursor::Within { key: key.clone(), at, named: false }
            }
            None => Cursor::End,
        }
    }

    /// Looks at one version of a key: passes over it or writes it, and says where to go on.
    fn write_step(
        &self,
        checkpoint: &mut Checkpoint,
        out: &mut Vec<u8>,
        key: Box<[u8]>,
        (at, mut named): (VersionId, bool),
    ) -> Cursor {
        let version = self.versions.at(at);
        let compacted = checkpoint.compact_revision.0;
        let newer = version.mod_revision > checkpoint.revision.0;
        let says_nothing = version.is_tombstone() && version.mod_revision < compacted;
        if !newer && !says_nothing {
            if !named {
                checkpoint.keys += 1;
                named = true;
                out.push(KEY);
                msgpack::write_bin(out, &key);
            }
            checkpoint.versions += 1;
            write_version(out, version);
        }
        // A link is followed only from a version above the compaction revision that is pinned:
        // what such a version superseded is still there.
        if version.mod_revision > compacted && version.older != VersionId::NONE {
            Cursor::Within { key, at: version.older, named }
        } else {
            Cursor::Behind(Some(key))
        }
    }
}

impl Checkpoint {
    fn write_header(&self, out: &mut Vec<u8>) {
        out.push(HEADER);
        msgpack::write_array(out, 4);
        let numbers = [CHECKPOINT_FORMAT, self.revision.0, self.compact_revision.0, self.stamp_ms];
        numbers.into_iter().for_each(|number| msgpack::write_uint(out, number));
    }

    fn write_end(&self, out: &mut Vec<u8>) {
        out.push(END);
        msgpack::write_array(out, 3);
        let numbers = [self.keys, self.versions, self.state_hash];
        numbers.into_iter().for_each(|number| msgpack::write_uint(out, number));
    }
}

fn write_version(out: &mut Vec<u8>, version: &Version) {
    out.push(VERSION);
    msgpack::write_array(out, 4);
    for number in [version.mod_revision, version.create_revision, version.version] {
        msgpack::write_uint(out, number);
    }
    msgpack::write_bin(out, version.value());
}

/// Why bytes are not a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckpointError {
    /// Not the value that should stand here.
    Value(DecodeError),
    /// Written by a later version.
    Format {
        /// The format it names.
        found: u64,
    },
    /// Values that no store writes.
    Inconsistent {
        /// What does not hold.
        what: &'static str,
    },
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointError::Value(_) => f.write_str("a checkpoint has a value out of place"),
            CheckpointError::Format { found } => write!(
                f,
                "a checkpoint has format {found} and this raftd reads {CHECKPOINT_FORMAT}"
            ),
            CheckpointError::Inconsistent { what } => {
                write!(f, "a checkpoint contradicts itself: {what}")
            }
        }
    }
}

impl Error for CheckpointError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CheckpointError::Value(why) => Some(why),
            CheckpointError::Format { .. } | CheckpointError::Inconsistent { .. } => None,
        }
    }
}

impl From<DecodeError> for CheckpointError {
    fn from(why: DecodeError) -> CheckpointError {
        CheckpointError::Value(why)
    }
}

/// A store on its way out of bytes, beside the one that serves.
pub struct Loader {
    store: Store,
    stage: Stage,
    key: Option<LoadedKey>,
    keys: u64,
    versions: u64,
    /// What the history holds, found in the order of keys and wanted in that of revisions. The
    /// second number keeps tombstones before what their revision superseded, as the store queues
    /// them.
    history: BTreeMap<(u64, u8, u64), Spent>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Header,
    Keys,
    History,
    Done,
}

/// The key whose versions come.
struct LoadedKey {
    id: KeyId,
    /// The last version read, and its revision.
    newer: Option<(VersionId, u64)>,
}

enum Spent {
    Value { version: VersionId, bytes: u32 },
    Tombstone { version: VersionId },
    Buried { key: KeyId, name_bytes: usize },
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loader {{ keys: {}, stage: {:?} }}", self.keys, self.stage)
    }
}

fn check(holds: bool, what: &'static str) -> Result<(), CheckpointError> {
    if holds { Ok(()) } else { Err(CheckpointError::Inconsistent { what }) }
}

impl Loader {
    /// An empty store, to be filled with a checkpoint of the state after `applied`.
    pub fn new(options: StoreOptions, applied: LogIndex) -> Loader {
        let mut store = Store::new(options);
        store.applied = applied;
        Loader {
            store,
            stage: Stage::Header,
            key: None,
            keys: 0,
            versions: 0,
            history: BTreeMap::new(),
        }
    }

    /// Takes whole values from the front of `bytes` until the limits are reached; returns how many
    /// bytes they were. `bytes` must end between two values.
    pub fn read(&mut self, bytes: &[u8], limits: SliceLimits) -> Result<usize, CheckpointError> {
        let mut reader = Reader::new(bytes);
        let mut steps = limits.steps;
        while steps > 0 && !reader.is_empty() && bytes.len() - reader.rest().len() < limits.bytes {
            steps -= 1;
            self.value(&mut reader)?;
        }
        Ok(bytes.len() - reader.rest().len())
    }

    /// Completes the store once all bytes are read: brings its history into order.
    pub fn settle(&mut self, limits: SliceLimits) -> Result<Sliced, CheckpointError> {
        check(self.stage == Stage::History || self.stage == Stage::Done, "it ends too early")?;
        for _ in 0..limits.steps {
            let Some(((revision, _, _), spent)) = self.history.pop_first() else {
                self.stage = Stage::Done;
                return Ok(Sliced::Done);
            };
            let history = &mut self.store.history;
            match spent {
                Spent::Value { version, bytes } => {
                    history.supersede_value(Revision(revision), version, bytes);
                }
                Spent::Tombstone { version } => {
                    history.supersede_tombstone(Revision(revision), version);
                }
                Spent::Buried { key, name_bytes } => {
                    history.bury(Revision(revision - 1), key, name_bytes);
                }
            }
        }
        Ok(Sliced::More)
    }

    /// The store. Panics unless `settle` said `Done`.
    pub fn into_store(self) -> Store {
        assert_eq!(self.stage, Stage::Done, "a store is handed out complete");
        self.store
    }

    fn value(&mut self, reader: &mut Reader<'_>) -> Result<(), CheckpointError> {
        let kind = reader.fixint()?;
        match (self.stage, kind) {
            (Stage::Header, HEADER) => self.header(reader),
            (Stage::Keys, KEY) => self.key(reader.bin()?),
            (Stage::Keys, VERSION) => self.version(reader),
            (Stage::Keys, END) => self.end(reader),
            (Stage::Header | Stage::Keys | Stage::History | Stage::Done, _) => {
                check(false, "a value of an unknown kind or out of order")
            }
        }
    }

    fn header(&mut self, reader: &mut Reader<'_>) -> Result<(), CheckpointError> {
        check(reader.array()? == 4, "its header has four fields")?;
        let found = reader.uint()?;
        if found != CHECKPOINT_FORMAT {
            return Err(CheckpointError::Format { found });
        }
        let (revision, compacted) = (reader.uint()?, reader.uint()?);
        check(compacted <= revision, "it is compacted beyond its revision")?;
        check(0 < revision && revision < u64::MAX, "no store has its revision")?;
        self.store.revision = Revision(revision);
        self.store.compact_revision = Revision(compacted);
        self.store.stamp_ms = reader.uint()?;
        self.stage = Stage::Keys;
        Ok(())
    }

    fn key(&mut self, name: &[u8]) -> Result<(), CheckpointError> {
        self.close_key()?;
        let ascending = self.store.ordered.last_key_value().is_none_or(|(last, _)| **last < *name);
        check(!name.is_empty() && ascending, "its keys do not ascend")?;
        let id = self.store.add_key(self.store.index.hash(name), name);
        self.key = Some(LoadedKey { id, newer: None });
        self.keys += 1;
        Ok(())
    }

    fn close_key(&mut self) -> Result<(), CheckpointError> {
        let named = self.key.take();
        check(named.is_none_or(|key| key.newer.is_some()), "a key has no version")
    }

    fn version(&mut self, reader: &mut Reader<'_>) -> Result<(), CheckpointError> {
        check(reader.array()? == 4, "a version has four fields")?;
        let (mod_revision, create_revision) = (reader.uint()?, reader.uint()?);
        let (version, value) = (reader.uint()?, reader.bin()?);
        let Some(key) = &mut self.key else { return check(false, "a version without a key") };
        let (id, newer) = (key.id, key.newer);
        let compacted = self.store.compact_revision.0;
        let below = newer.map_or(self.store.revision.0, |(_, newer)| newer.saturating_sub(1));
        check(0 < mod_revision && mod_revision <= below, "its versions do not descend")?;
        let needed = newer.is_none_or(|(_, newer)| newer > compacted);
        check(needed, "a version that was compacted")?;
        if version == 0 {
            let plain = create_revision == 0 && value.is_empty();
            check(plain && mod_revision >= compacted, "a tombstone says too much")?;
        } else {
            check(0 < create_revision && create_revision <= mod_revision, "created after changed")?;
        }
        let older = VersionId::NONE;
        let new = NewVersion { mod_revision, create_revision, version, older };
        let at = self.store.versions.insert(new, value);
        let bytes = u32::try_from(value.len());
        let bytes =
            bytes.map_err(|_| CheckpointError::Inconsistent { what: "a value's length" })?;
        key.newer = Some((at, mod_revision));
        self.versions += 1;
        match newer {
            None => self.store.load_newest(id, at),
            Some((newer, by)) => {
                self.store.versions.set_older(newer, at);
                let spent = if version == 0 {
                    Spent::Tombstone { version: at }
                } else {
                    Spent::Value { version: at, bytes }
                };
                self.history.insert((by, 1, self.versions), spent);
            }
        }
        if version == 0 && mod_revision >= compacted {
            let name_bytes = self.store.keys.at(id).name().len();
            let spent = Spent::Buried { key: id, name_bytes };
            self.history.insert((mod_revision + 1, 0, self.versions), spent);
        }
        Ok(())
    }

    fn end(&mut self, reader: &mut Reader<'_>) -> Result<(), CheckpointError> {
        self.close_key()?;
        check(reader.array()? == 3, "its end has three fields")?;
        let counts = (reader.uint()?, reader.uint()?);
        check(counts == (self.keys, self.versions), "it does not hold what it says")?;
        check(reader.uint()? == self.store.state_hash(), "its state has another hash")?;
        self.stage = Stage::History;
        Ok(())
    }
}

impl Store {
    /// Makes a loaded version the newest of a key that had none.
    fn load_newest(&mut self, id: KeyId, at: VersionId) {
        let version = self.versions.at(at);
        let entry = self.keys.at_mut(id);
        entry.newest = at;
        if version.is_tombstone() {
            return;
        }
        entry.create_revision = version.create_revision;
        entry.version = version.version;
        entry.value_bytes = u32::try_from(version.value().len()).expect("checked when it was read");
        let value_bytes = u64::from(entry.value_bytes);
        let (create_revision, mod_revision) = (version.create_revision, version.mod_revision);
        let (key, value, version) = (entry.name(), version.value(), version.version);
        let live = LiveVersion { key, value, create_revision, mod_revision, version };
        let contribution = hash::of_live(&live);
        let key_bytes = u64::try_from(key.len()).expect("usize is 64 bits at most");
        entry.contribution = contribution;
        self.live.keys += 1;
        self.live.bytes += key_bytes + value_bytes;
        self.live.hash = self.live.hash.wrapping_add(contribution);
    }
}
