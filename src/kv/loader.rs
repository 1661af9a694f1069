//! Bytes → store: reads what `checkpoint` wrote, in slices, beside the store that serves. Reading
//! is strict: every value is one that a store writes, in the order in which it writes them, and
//! the state hash at the end is that of what was loaded.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;

use crate::codec::msgpack::Reader;
use crate::limits::{
    KEPT_ANSWER_BYTES_MAX, KEPT_ANSWERS_BYTES_MAX, LEASE_TTL_S_MAX, LEASES_MAX, SESSION_WINDOW,
    SESSIONS_MAX,
};
use crate::types::{Credential, LogIndex, Revision, SessionId};

use super::answer::{CommandReply, reply_of_words};
use super::auth::{AuthNumbers, Restored};
use super::checkpoint::{
    CHECKPOINT_FORMAT, CheckpointError, END, HEADER, KEY, LEASE, PERMISSION, REPLY, ROLE, SESSION,
    SliceLimits, Sliced, USER, VERSION,
};
use super::command::CommandError;
use super::hash::{self, LiveVersion};
use super::keys::KeyId;
use super::lease::LeaseRow;
use super::session::{KeptReply, SessionCounters, SessionRow, cost_of_body, place_of};
use super::versions::{NewVersion, VersionId};
use super::{Store, StoreOptions};

/// A store on its way out of bytes, beside the one that serves.
pub struct Loader {
    store: Store,
    stage: Stage,
    key: Option<LoadedKey>,
    session: Option<LoadedSession>,
    counters: SessionCounters,
    /// The last lease read; 0 before the first.
    lease: u64,
    roles: u64,
    permissions: u64,
    users: u64,
    leases: u64,
    keys: u64,
    versions: u64,
    sessions: u64,
    replies: u64,
    /// What the history holds, found in the order of keys and wanted in that of revisions. The
    /// second number keeps tombstones before what their revision superseded, as the store queues
    /// them.
    history: BTreeMap<(u64, u8, u64), Spent>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Header,
    Roles,
    Users,
    Leases,
    Keys,
    Sessions,
    History,
    Done,
}

/// The key whose versions come.
struct LoadedKey {
    id: KeyId,
    /// The last version read, and its revision.
    newer: Option<(VersionId, u64)>,
}

/// The session whose replies come.
struct LoadedSession {
    row: SessionRow,
    replies: Vec<LoadedReply>,
    body_bytes: usize,
}

struct LoadedReply {
    sequence: u64,
    outline: CommandReply,
    body: Box<[u8]>,
}

enum Spent {
    Value {
        version: VersionId,
        bytes: u32,
    },
    Tombstone {
        version: VersionId,
    },
    Buried {
        key: KeyId,
        name_bytes: usize,
    },
    /// Not spent: a change, for the ring.
    Changed {
        key: KeyId,
        version: VersionId,
    },
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loader {{ keys: {}, stage: {:?} }}", self.keys, self.stage)
    }
}

fn check(holds: bool, what: &'static str) -> Result<(), CheckpointError> {
    if holds { Ok(()) } else { Err(CheckpointError::Inconsistent { what }) }
}

/// What came of reading a user or a role.
fn restored(read: Restored) -> Result<(), CheckpointError> {
    match read {
        Ok(Ok(())) => Ok(()),
        Ok(Err(what)) => Err(CheckpointError::Inconsistent { what }),
        Err(CommandError::Malformed(why)) => Err(CheckpointError::Value(why)),
        Err(_) => Err(CheckpointError::Inconsistent { what: "a user or a role that nobody made" }),
    }
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
            session: None,
            counters: SessionCounters::default(),
            lease: 0,
            roles: 0,
            permissions: 0,
            users: 0,
            leases: 0,
            keys: 0,
            versions: 0,
            sessions: 0,
            replies: 0,
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
                Spent::Changed { key, version } => {
                    self.store.changes.push(Revision(revision), key, version);
                }
            }
        }
        Ok(Sliced::More)
    }

    /// As `Store::take_retired`: what it has outgrown so far.
    pub fn take_retired(&mut self) -> Option<Box<dyn Any + Send>> {
        self.store.take_retired()
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
            (Stage::Roles, ROLE | PERMISSION) => self.role(kind, reader),
            (Stage::Roles | Stage::Users, USER) => self.user(reader),
            (Stage::Roles | Stage::Users | Stage::Leases, LEASE) => self.lease(reader),
            (Stage::Roles | Stage::Users | Stage::Leases | Stage::Keys, KEY) => {
                self.key(reader.bin()?)
            }
            (Stage::Keys, VERSION) => self.version(reader),
            (Stage::Sessions, REPLY) => self.reply(reader),
            (
                Stage::Roles | Stage::Users | Stage::Leases | Stage::Keys | Stage::Sessions,
                SESSION,
            ) => self.session(reader),
            (Stage::Roles | Stage::Users | Stage::Leases | Stage::Keys | Stage::Sessions, END) => {
                self.end(reader)
            }
            (
                Stage::Header
                | Stage::Roles
                | Stage::Users
                | Stage::Leases
                | Stage::Keys
                | Stage::Sessions
                | Stage::History
                | Stage::Done,
                _kind,
            ) => check(false, "a value of an unknown kind or out of order"),
        }
    }

    fn header(&mut self, reader: &mut Reader<'_>) -> Result<(), CheckpointError> {
        let fields = reader.array()?;
        // The format first: what follows it is the format's to say.
        check(fields > 0, "its header has no fields")?;
        let found = reader.uint()?;
        if found != CHECKPOINT_FORMAT {
            return Err(CheckpointError::Format { found });
        }
        check(fields == 11, "its header has eleven fields")?;
        let (revision, compacted) = (reader.uint()?, reader.uint()?);
        check(compacted <= revision, "it is compacted beyond its revision")?;
        check(0 < revision && revision < u64::MAX, "no store has its revision")?;
        self.store.revision = Revision(revision);
        self.store.compact_revision = Revision(compacted);
        self.store.stamp_ms = reader.uint()?;
        self.counters = SessionCounters { last: SessionId(reader.uint()?), uses: reader.uint()? };
        self.store.leases.restore_grants(reader.uint()?);
        let (enabled, changes, credentials) = (reader.uint()?, reader.uint()?, reader.uint()?);
        check(enabled <= 1, "rights count or they do not")?;
        check(changes > 0, "users and roles have no such revision")?;
        check(credentials >= Credential::CLUSTER.0, "the cluster has a credential")?;
        let secret =
            match reader.bin()? {
                [] => None,
                bytes => Some(bytes.try_into().map_err(|_| CheckpointError::Inconsistent {
                    what: "a secret has 32 bytes",
                })?),
            };
        let enabled = enabled == 1;
        check(secret.is_some() || !enabled, "rights count, and there is no secret")?;
        let numbers = AuthNumbers { enabled, revision: changes, credentials, secret };
        self.store.auth.restore_numbers(numbers);
        self.stage = Stage::Roles;
        Ok(())
    }

    fn role(&mut self, kind: u8, reader: &mut Reader<'_>) -> Result<(), CheckpointError> {
        if kind == ROLE {
            self.roles += 1;
            restored(self.store.auth.restore_role(reader))
        } else {
            self.permissions += 1;
            restored(self.store.auth.restore_permission(reader))
        }
    }

    fn user(&mut self, reader: &mut Reader<'_>) -> Result<(), CheckpointError> {
        self.stage = Stage::Users;
        self.users += 1;
        restored(self.store.auth.restore_user(reader))
    }

    fn lease(&mut self, reader: &mut Reader<'_>) -> Result<(), CheckpointError> {
        self.stage = Stage::Leases;
        check(reader.array()? == 4, "a lease has four fields")?;
        let (id, grant) = (reader.uint()?, reader.uint()?);
        let (ttl_s, due_ms) = (reader.uint()?, reader.uint()?);
        check(self.lease < id, "its leases do not ascend")?;
        check(0 < grant && grant <= self.store.leases.grants(), "a lease nobody granted")?;
        check(ttl_s <= LEASE_TTL_S_MAX, "a lease lives for too long")?;
        check(self.store.lease_count() < LEASES_MAX, "it has too many leases")?;
        self.store.leases.restore(LeaseRow { id, grant, ttl_s, due_ms });
        self.lease = id;
        self.leases += 1;
        Ok(())
    }

    fn key(&mut self, name: &[u8]) -> Result<(), CheckpointError> {
        self.close_key()?;
        self.stage = Stage::Keys;
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
        check(reader.array()? == 5, "a version has five fields")?;
        let (mod_revision, create_revision) = (reader.uint()?, reader.uint()?);
        let (version, lease, value) = (reader.uint()?, reader.uint()?, reader.bin()?);
        let Some(key) = &mut self.key else { return check(false, "a version without a key") };
        let (id, newer) = (key.id, key.newer);
        // A version that was superseded may name a lease that has ended since.
        let there = lease == 0 || newer.is_some() || self.store.leases.has(lease);
        check(there, "a key hangs on a lease that does not exist")?;
        let compacted = self.store.compact_revision.0;
        let below = newer.map_or(self.store.revision.0, |(_, newer)| newer.saturating_sub(1));
        check(0 < mod_revision && mod_revision <= below, "its versions do not descend")?;
        let needed = newer.is_none_or(|(_, newer)| newer > compacted);
        check(needed, "a version that was compacted")?;
        if version == 0 {
            let plain = create_revision == 0 && value.is_empty() && lease == 0;
            check(plain && mod_revision >= compacted, "a tombstone says too much")?;
        } else {
            check(0 < create_revision && create_revision <= mod_revision, "created after changed")?;
        }
        let older = VersionId::NONE;
        let new = NewVersion { mod_revision, create_revision, version, lease, older };
        let at = self.store.versions.insert(new, value);
        let bytes = u32::try_from(value.len());
        let bytes =
            bytes.map_err(|_| CheckpointError::Inconsistent { what: "a value's length" })?;
        key.newer = Some((at, mod_revision));
        self.versions += 1;
        if mod_revision >= compacted {
            let changed = Spent::Changed { key: id, version: at };
            self.history.insert((mod_revision, 2, self.versions), changed);
        }
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

    fn session(&mut self, reader: &mut Reader<'_>) -> Result<(), CheckpointError> {
        self.close_key()?;
        self.stage = Stage::Sessions;
        check(reader.array()? == 5, "a session has five fields")?;
        let (id, acknowledged) = (SessionId(reader.uint()?), reader.uint()?);
        let (used, used_ms) = (reader.uint()?, reader.uint()?);
        let owner = Credential(reader.uint()?);
        let given = owner.0 <= self.store.auth.numbers().credentials;
        check(given, "a session of a credential that nobody gave")?;
        let opened = SessionId(0) < id && id <= self.counters.last;
        check(opened && 0 < used && used <= self.counters.uses, "a session beyond its counters")?;
        let before = self.session.as_ref().map(|session| place_of(session.row.id));
        check(before.is_none_or(|before| before < place_of(id)), "its sessions do not ascend")?;
        self.close_session()?;
        let row = SessionRow { id, acknowledged, used, used_ms, owner };
        self.session = Some(LoadedSession { row, replies: Vec::new(), body_bytes: 0 });
        self.sessions += 1;
        Ok(())
    }

    fn reply(&mut self, reader: &mut Reader<'_>) -> Result<(), CheckpointError> {
        check(reader.array()? == 6, "a reply has six fields")?;
        let sequence = reader.uint()?;
        let words = [reader.uint()?, reader.uint()?, reader.uint()?, reader.uint()?];
        let body = reader.bin()?;
        let Some(session) = &mut self.session else { return check(false, "a reply to nobody") };
        let Some(outline) = reply_of_words(words) else { return check(false, "an unknown reply") };
        session.body_bytes += cost_of_body(body);
        let few =
            body.len() <= KEPT_ANSWER_BYTES_MAX && session.body_bytes <= KEPT_ANSWERS_BYTES_MAX;
        check(few && (outline.has_body() || body.is_empty()), "a reply says too much")?;
        let acknowledged = session.row.acknowledged;
        let before = session.replies.last().map_or(acknowledged, |before| before.sequence);
        let within = sequence.saturating_sub(acknowledged) <= SESSION_WINDOW;
        check(before < sequence && within, "a reply outside of the window")?;
        session.replies.push(LoadedReply { sequence, outline, body: body.into() });
        self.replies += 1;
        Ok(())
    }

    fn close_session(&mut self) -> Result<(), CheckpointError> {
        let Some(LoadedSession { row, replies, .. }) = self.session.take() else { return Ok(()) };
        check(self.store.session_count() < SESSIONS_MAX, "too many sessions")?;
        let replies = replies.iter().map(|LoadedReply { sequence, outline, body }| KeptReply {
            sequence: *sequence,
            outline: *outline,
            body,
        });
        self.store.restore_session(row, replies);
        Ok(())
    }

    fn end(&mut self, reader: &mut Reader<'_>) -> Result<(), CheckpointError> {
        self.close_key()?;
        self.close_session()?;
        self.store.restore_session_counters(self.counters);
        let uses = self.store.sessions().map(|(row, _)| row.used);
        check(uses.is_sorted_by(|one, next| one < next), "two sessions were used at once")?;
        check(reader.array()? == 9, "its end has nine fields")?;
        let mut counts = [0; 8];
        for count in &mut counts {
            *count = reader.uint()?;
        }
        let Loader { roles, permissions, users, leases, keys, .. } = *self;
        let Loader { versions, sessions, replies, .. } = *self;
        let found = [roles, permissions, users, leases, keys, versions, sessions, replies];
        check(counts == found, "it does not hold what it says")?;
        let settled = self.store.auth.settle_restored();
        settled.map_err(|what| CheckpointError::Inconsistent { what })?;
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
        entry.set_value(version.value(), version.lease);
        let value_bytes = u64::from(entry.value_bytes());
        let (create_revision, mod_revision) = (version.create_revision, version.mod_revision);
        let (key, value, lease) = (entry.name(), version.value(), version.lease);
        let version = version.version;
        let live = LiveVersion { key, value, create_revision, mod_revision, version, lease };
        let contribution = hash::of_live(&live);
        let key_bytes = u64::try_from(key.len()).expect("usize is 64 bits at most");
        entry.contribution = contribution;
        if lease != 0 {
            self.leases.hang(id, lease);
        }
        self.live.keys += 1;
        self.live.bytes += key_bytes + value_bytes;
        self.live.hash = self.live.hash.wrapping_add(contribution);
    }
}
