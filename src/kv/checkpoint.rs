//! Store ⇄ bytes: the state at one revision, written and read in slices while the store serves.
//!
//! ```text
//! checkpoint  header (role permission*)* user* lease* (key version+)* (session reply*)* end
//!                                                MessagePack values in a row, to the last byte
//! header      01 array(11) [format: uint = 4, revision, compact_revision, stamp_ms,
//!                           newest session ever opened, how often sessions were used,
//!                           how many leases were granted, whether rights count: 0 or 1,
//!                           auth_revision, newest credential ever given,
//!                           secret: bin 0 or 32, see auth/change.rs]
//! role, permission, user                         09, 0a, 08, see auth/rows.rs
//! lease       07 array(4) [id, grant, ttl_s, due_ms]    ascending; the keys that hang on it say so
//! key         02 bin                             ascending
//! version     03 array(5) [mod_revision, create_revision, version, lease, value: bin]
//!                                                of the key before, newest first; a tombstone has
//!                                                create_revision 0, version 0, lease 0, no value
//! session     05 array(5) [id, acknowledged, used, used_ms, owner]   in the order of their places
//! reply       06 array(6) [sequence, op, revision, a, b, body: bin]     kept for the session
//!                                                before, ascending; op, a and b as the state hash
//!                                                has them
//! end         04 array(9) [roles, permissions, users, leases, keys, versions, sessions, replies,
//!                          state_hash: uint]
//! ```
//!
//! It holds every version and tombstone above the compaction revision, and of each key the newest
//! version at or below it; of tombstones only from the compaction revision on, for older ones say
//! nothing that absence does not. So it depends on the log alone, not on how far a node has freed
//! what it compacted. What a later version of the store keeps beside these gets values of its own
//! before the end, and another format number; reading, in `loader`, is strict.
//!
//! **Consistent without a stop.** Versions at or below the pinned revision never change, so the
//! cursor may come to a key long after the pin: it passes over what is newer. Only compaction takes
//! versions away, so while a checkpoint is pinned nothing is freed that was not due at its
//! compaction revision. Readers see a later compaction at once; its memory comes back afterwards.
//! A session or a lease is copied aside when it changes for the first time after the pin; users and
//! roles are, all of them, when one does.
//!
//! Why not fork, or a persistent tree: `fork` stops the loop for as long as it takes to copy page
//! tables, and doubles the memory under writes; a persistent tree makes every put pay.

use std::error::Error;
use std::fmt;
use std::hint::black_box;
use std::ops::Bound;

use crate::codec::msgpack::{self, DecodeError};
use crate::types::{LogIndex, Revision};

use super::Store;
use super::answer::words_of_reply;
use super::auth::{self, AuthNumbers, RoleRow, write_permission};
use super::keys::KeyId;
use super::lease::{self, LeaseRow};
use super::session::{self, KeptReply, SessionCounters, SessionRow};
use super::versions::{Version, VersionId};

/// The version of the format above.
pub const CHECKPOINT_FORMAT: u64 = 4;

pub(super) const HEADER: u8 = 1;
pub(super) const KEY: u8 = 2;
pub(super) const VERSION: u8 = 3;
pub(super) const END: u8 = 4;
pub(super) const SESSION: u8 = 5;
pub(super) const REPLY: u8 = 6;
pub(super) const LEASE: u8 = 7;
pub(super) const USER: u8 = 8;
pub(super) const ROLE: u8 = 9;
pub(super) const PERMISSION: u8 = 10;

/// Keys whose versions are loaded at the same time.
const WARM_KEYS: usize = 16;
/// So many versions of each, and so many lines of a value: what is beyond is for the processor,
/// which sees that it is read in a row.
const WARM_VERSIONS: usize = 4;
const WARM_LINES: usize = 8;
/// What memory is fetched in. Bytes.
const LINE_BYTES: usize = 64;

/// What a slice may cost: whichever of the two is used up first ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SliceLimits {
    /// Users, roles, leases, keys, versions and sessions looked at; when reading, permissions and
    /// replies too.
    pub steps: usize,
    /// Bytes written or read, unless a single version, what is kept for a session, or a role is
    /// larger.
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
    counters: SessionCounters,
    grants: u64,
    numbers: AuthNumbers,
    state_hash: u64,
    applied: LogIndex,
    cursor: Cursor,
    roles: u64,
    permissions: u64,
    users: u64,
    leases: u64,
    keys: u64,
    versions: u64,
    sessions: u64,
    replies: u64,
}

/// Where a checkpoint goes on.
#[derive(Debug)]
enum Cursor {
    Header,
    /// With the first role behind this name; the empty one: with the first of all.
    RoleBehind(Box<str>),
    /// The same of users.
    UserBehind(Box<str>),
    /// With the first lease at or behind this number.
    LeaseFrom(u64),
    /// With the first key behind this one; `None`: with the first of all.
    Behind(Option<Box<[u8]>>),
    /// In the chain of this key.
    Within {
        key: Box<[u8]>,
        place: Place,
    },
    /// With the first session at or behind this place.
    SessionFrom(u32),
    End,
    Done,
}

/// A version in the chain of a key. The key is named once a version of it is written.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: VersionId,
    named: bool,
}

/// What is left of a slice.
struct Slice<'o> {
    out: &'o mut Vec<u8>,
    bytes_end: usize,
    steps: usize,
}

impl Slice<'_> {
    fn has_room(&self) -> bool {
        self.steps > 0 && self.out.len() < self.bytes_end
    }

    fn count_step(&mut self) {
        self.steps -= 1;
    }
}

impl Checkpoint {
    /// The last entry in it.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }
}

/// What changed while a checkpoint was written, as it was before: dropped, it is gone.
pub struct SetAside {
    _sessions: session::SetAside,
    _leases: lease::SetAside,
    _auth: auth::SetAside,
}

impl Store {
    /// Pins the state as it is now. Panics if another checkpoint is pinned, or halfway in an entry.
    pub fn begin_checkpoint(&mut self) -> Checkpoint {
        assert!(!self.is_halfway(), "a checkpoint is of whole entries");
        assert!(self.pinned.is_none(), "one checkpoint at a time");
        self.pinned = Some(self.compact_revision);
        self.pin_sessions();
        self.leases.pin();
        self.auth.pin();
        Checkpoint {
            revision: self.revision,
            compact_revision: self.compact_revision,
            stamp_ms: self.stamp_ms,
            counters: self.session_counters(),
            grants: self.lease_grants(),
            numbers: self.auth.numbers(),
            state_hash: self.state_hash(),
            applied: self.applied,
            cursor: Cursor::Header,
            roles: 0,
            permissions: 0,
            users: 0,
            leases: 0,
            keys: 0,
            versions: 0,
            sessions: 0,
            replies: 0,
        }
    }

    /// Lets go of what a checkpoint needed, whether it was completed or not. What was set aside for
    /// it may be much: who serves drops it elsewhere.
    pub fn end_checkpoint(&mut self, checkpoint: Checkpoint) -> SetAside {
        assert_eq!(self.pinned, Some(checkpoint.compact_revision), "it is of this store");
        self.pinned = None;
        SetAside {
            _sessions: self.sessions.unpin(),
            _leases: self.leases.unpin(),
            _auth: self.auth.unpin(),
        }
    }

    /// Appends the next slice of a checkpoint of this store to `out`. It always ends between two
    /// values.
    pub fn write_checkpoint(
        &self,
        checkpoint: &mut Checkpoint,
        out: &mut Vec<u8>,
        limits: SliceLimits,
    ) -> Sliced {
        let bytes_end = out.len().saturating_add(limits.bytes);
        let mut slice = Slice { out, bytes_end, steps: limits.steps };
        while slice.has_room() {
            let cursor = std::mem::replace(&mut checkpoint.cursor, Cursor::Done);
            checkpoint.cursor = match cursor {
                Cursor::Header => {
                    slice.count_step();
                    checkpoint.write_header(slice.out);
                    Cursor::RoleBehind(Box::default())
                }
                Cursor::RoleBehind(name) => self.write_role(checkpoint, &mut slice, &name),
                Cursor::UserBehind(name) => self.write_user(checkpoint, &mut slice, &name),
                Cursor::LeaseFrom(first) => self.write_leases(checkpoint, &mut slice, first),
                Cursor::Behind(key) => self.write_keys(checkpoint, &mut slice, key),
                Cursor::Within { key, place } => {
                    match self.write_versions(checkpoint, &mut slice, &key, place) {
                        Some(place) => Cursor::Within { key, place },
                        None => Cursor::Behind(Some(key)),
                    }
                }
                Cursor::SessionFrom(place) => {
                    slice.count_step();
                    match self.pinned_session(place) {
                        Some((at, row, replies)) => {
                            checkpoint.write_session(slice.out, row, replies);
                            Cursor::SessionFrom(at + 1)
                        }
                        None => Cursor::End,
                    }
                }
                Cursor::End => {
                    slice.count_step();
                    checkpoint.write_end(slice.out);
                    Cursor::Done
                }
                Cursor::Done => return Sliced::Done,
            };
        }
        match checkpoint.cursor {
            Cursor::Done => Sliced::Done,
            Cursor::Header
            | Cursor::RoleBehind(_)
            | Cursor::UserBehind(_)
            | Cursor::LeaseFrom(_)
            | Cursor::Behind(_)
            | Cursor::Within { .. }
            | Cursor::SessionFrom(_)
            | Cursor::End => Sliced::More,
        }
    }

    fn write_role(&self, to: &mut Checkpoint, slice: &mut Slice<'_>, behind: &str) -> Cursor {
        slice.count_step();
        let Some(RoleRow { name, role }) = self.auth.pinned_role(behind) else {
            return Cursor::UserBehind(Box::default());
        };
        to.roles += 1;
        slice.out.push(ROLE);
        msgpack::write_bin(slice.out, name.as_bytes());
        for permission in role.permissions() {
            to.permissions += 1;
            slice.out.push(PERMISSION);
            write_permission(slice.out, &permission);
        }
        Cursor::RoleBehind(name.into())
    }

    fn write_user(&self, to: &mut Checkpoint, slice: &mut Slice<'_>, behind: &str) -> Cursor {
        slice.count_step();
        let Some(row) = self.auth.pinned_user(behind) else { return Cursor::LeaseFrom(0) };
        to.users += 1;
        slice.out.push(USER);
        row.write(slice.out);
        Cursor::UserBehind(row.name.into())
    }

    /// Writes the leases from `first` on to the end of the slice. The maps are searched once a
    /// slice, not once a lease.
    fn write_leases(&self, to: &mut Checkpoint, slice: &mut Slice<'_>, first: u64) -> Cursor {
        let mut rows = self.leases.pinned_from(first);
        let mut next = first;
        while slice.has_room() {
            slice.count_step();
            let Some((at, row)) = rows.next() else { return Cursor::Behind(None) };
            to.write_lease(slice.out, row);
            match at.checked_add(1) {
                Some(behind) => next = behind,
                None => return Cursor::Behind(None),
            }
        }
        Cursor::LeaseFrom(next)
    }

    /// Walks the keys behind `behind` to the end of the slice. The map is searched and a key copied
    /// once a slice, not once a key.
    fn write_keys(
        &self,
        checkpoint: &mut Checkpoint,
        slice: &mut Slice<'_>,
        behind: Option<Box<[u8]>>,
    ) -> Cursor {
        let from = behind.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut last: Option<&Box<[u8]>> = None;
        let mut keys = self.ordered.range::<[u8], _>((from, Bound::Unbounded));
        let mut next = [None; WARM_KEYS];
        loop {
            next.fill_with(|| keys.next());
            let ids = next.map(|found| found.map(|(_, id)| *id));
            self.warm_versions(checkpoint.compact_revision, ids);
            for found in &next {
                let Some((key, id)) = *found else { return Cursor::SessionFrom(0) };
                if !slice.has_room() {
                    return Cursor::Behind(last.cloned().or(behind));
                }
                slice.count_step();
                last = Some(key);
                let entry = self.keys.at(*id);
                // A key that was buried before the pin may be freed between two slices: the cursor
                // must not stay on it.
                if !checkpoint.says_nothing(&self.versions.at(entry.newest)) {
                    let place = Place { at: entry.newest, named: false };
                    // The entry's name is at hand, the map's own would have to be fetched.
                    let rest = self.write_versions(checkpoint, slice, entry.name(), place);
                    if let Some(place) = rest {
                        return Cursor::Within { key: key.clone(), place };
                    }
                }
            }
        }
    }

    /// Loads what the next `keys` have to be written, all of it at the same time: one after the
    /// other would wait for every line of memory in turn. Changes nothing.
    fn warm_versions(&self, compacted: Revision, ids: [Option<KeyId>; WARM_KEYS]) {
        let mut places = ids.map(|id| id.map(|id| self.keys.at(id).newest));
        for _ in 0..WARM_VERSIONS {
            let versions = || places.iter().flatten().map(|id| self.versions.at(*id));
            black_box(versions().fold(0, |seen, version| seen ^ version.mod_revision));
            let lines = |version: Version<'_>| {
                let lines = version.value().iter().step_by(LINE_BYTES).take(WARM_LINES);
                lines.fold(0, |seen, byte| seen ^ byte)
            };
            black_box(versions().fold(0, |seen, version| seen ^ lines(version)));
            for place in &mut places {
                let version = place.map(|id| self.versions.at(id));
                let linked = version.filter(|version| version.mod_revision > compacted.0);
                let older = linked.map(|version| version.older);
                *place = older.filter(|older| *older != VersionId::NONE);
            }
        }
    }

    /// Walks the versions of a key from `place` on, passes over or writes each. Says where to go on
    /// if the slice ends before.
    fn write_versions(
        &self,
        checkpoint: &mut Checkpoint,
        slice: &mut Slice<'_>,
        key: &[u8],
        mut place: Place,
    ) -> Option<Place> {
        let compacted = checkpoint.compact_revision.0;
        while slice.has_room() {
            slice.count_step();
            let version = self.versions.at(place.at);
            let newer = version.mod_revision > checkpoint.revision.0;
            if !newer && !checkpoint.says_nothing(&version) {
                if !place.named {
                    checkpoint.keys += 1;
                    place.named = true;
                    slice.out.push(KEY);
                    msgpack::write_bin(slice.out, key);
                }
                checkpoint.versions += 1;
                write_version(slice.out, &version);
            }
            // A link is followed only from a version above the compaction revision that is pinned:
            // what such a version superseded is still there.
            if version.mod_revision <= compacted || version.older == VersionId::NONE {
                return None;
            }
            place.at = version.older;
        }
        Some(place)
    }
}

impl Checkpoint {
    /// Whether a version is a tombstone that says no more than its absence.
    fn says_nothing(&self, version: &Version<'_>) -> bool {
        version.is_tombstone() && version.mod_revision < self.compact_revision.0
    }

    fn write_header(&self, out: &mut Vec<u8>) {
        let SessionCounters { last, uses } = self.counters;
        let (revision, compacted) = (self.revision.0, self.compact_revision.0);
        let Checkpoint { stamp_ms, grants, .. } = *self;
        let AuthNumbers { enabled, revision: changes, credentials, secret } = self.numbers;
        let format = CHECKPOINT_FORMAT;
        let store = [format, revision, compacted, stamp_ms, last.0, uses, grants];
        let auth = [u64::from(enabled), changes, credentials];
        out.push(HEADER);
        msgpack::write_array(out, 11);
        store.iter().chain(&auth).for_each(|number| msgpack::write_uint(out, *number));
        msgpack::write_bin(out, secret.as_ref().map_or(&[], |secret| &secret[..]));
    }

    fn write_lease(&mut self, out: &mut Vec<u8>, row: Option<LeaseRow>) {
        let Some(LeaseRow { id, grant, ttl_s, due_ms }) = row else { return };
        self.leases += 1;
        write_numbers(out, LEASE, &[id, grant, ttl_s, due_ms]);
    }

    fn write_session<'a>(
        &mut self,
        out: &mut Vec<u8>,
        row: SessionRow,
        replies: impl Iterator<Item = KeptReply<'a>>,
    ) {
        self.sessions += 1;
        let SessionRow { id, acknowledged, used, used_ms, owner } = row;
        write_numbers(out, SESSION, &[id.0, acknowledged, used, used_ms, owner.0]);
        for KeptReply { sequence, outline, body } in replies {
            self.replies += 1;
            let [op, revision, a, b] = words_of_reply(&outline);
            out.push(REPLY);
            msgpack::write_array(out, 6);
            [sequence, op, revision, a, b].iter().for_each(|it| msgpack::write_uint(out, *it));
            msgpack::write_bin(out, body);
        }
    }

    fn write_end(&self, out: &mut Vec<u8>) {
        let &Checkpoint { roles, permissions, users, leases, keys, .. } = self;
        let &Checkpoint { versions, sessions, replies, state_hash, .. } = self;
        let auth = [roles, permissions, users];
        let store = [leases, keys, versions, sessions, replies, state_hash];
        write_numbers(out, END, &[&auth[..], &store].concat());
    }
}

fn write_numbers(out: &mut Vec<u8>, kind: u8, numbers: &[u64]) {
    out.push(kind);
    msgpack::write_array(out, u32::try_from(numbers.len()).expect("a handful"));
    numbers.iter().for_each(|number| msgpack::write_uint(out, *number));
}

fn write_version(out: &mut Vec<u8>, version: &Version<'_>) {
    out.push(VERSION);
    msgpack::write_array(out, 5);
    let Version { mod_revision, create_revision, version: puts, lease, .. } = *version;
    for number in [mod_revision, create_revision, puts, lease] {
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
