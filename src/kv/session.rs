//! Client sessions: a command that is sent twice is done once, and answered the same both times.
//! Thesis §6.3.
//!
//! A client opens a session through the log, numbers its calls, and says with each up to which one
//! it needs no reply any more. The replies above that are kept, so that a copy of a call, whenever
//! and through whichever leader it enters the log, finds the first one's reply and changes nothing.
//! Calls of one session may be applied in any order: a client may have many in flight.
//!
//! ```text
//! acknowledged           sequence may be up to acknowledged + SESSION_WINDOW
//!       │ kept[0] kept[1] …            a reply, or none if that call has not been applied
//! ──────┴──────────────────────► sequence
//! ```
//!
//! Of a reply with a body the outline is always kept, and the body if it is small and the session
//! keeps few bytes of others. A copy of a call whose body is gone hears that it was done.
//!
//! A session ends by rules that are functions of the log: unused for `SESSION_IDLE_MS` of the
//! leaders' stamps, or unused for longest when there are `SESSIONS_MAX` and another is opened. What
//! its calls did is forgotten then, so a later call hears that, and is not done.
//!
//! A session's number modulo the places is its place, which makes finding it one step. So numbers
//! have gaps; they are never used twice.

use std::collections::{BTreeMap, VecDeque};

use crate::limits::{
    KEPT_ANSWER_BYTES_MAX, KEPT_ANSWER_OVERHEAD_BYTES, KEPT_ANSWERS_BYTES_MAX, SESSION_IDLE_MS,
    SESSION_WINDOW, SESSIONS_MAX,
};
use crate::types::{Credential, SessionId};

use super::answer::CommandReply;
use super::command::SessionCall;
use super::hash;

/// Twice as many as there can be sessions: the next number whose place is free is near.
const PLACES: u32 = 16_384;

/// Sessions that end at the start of one entry, at most: those of a crowd that left at once end in
/// several.
const EXPIRED_PER_ENTRY: usize = 16;

/// A place of no session.
const NOWHERE: u32 = u32::MAX;

/// A session without its replies, as a checkpoint holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionRow {
    /// Its number.
    pub id: SessionId,
    /// Up to here the client has its replies.
    pub acknowledged: u64,
    /// When it was used last, counted in uses of all sessions: their order.
    pub used: u64,
    /// The leader's stamp then. Milliseconds.
    pub used_ms: u64,
    /// Who had logged in when it was opened. While rights count, nobody else makes a call in it.
    pub owner: Credential,
}

/// What sessions count on from.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SessionCounters {
    /// The newest session ever opened; 0 before the first.
    pub last: SessionId,
    /// How often a session was opened or used.
    pub uses: u64,
}

/// A reply that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeptReply<'a> {
    /// The number of its call.
    pub sequence: u64,
    /// What became of it.
    pub outline: CommandReply,
    /// Its body; empty if it has none, or none that is kept.
    pub body: &'a [u8],
}

/// Whether a call is to be executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It is: execute it and `keep` its reply, at once.
    New,
    /// It was, and answered this.
    Answered(CommandReply),
    /// It was, or was given up, and the client said so.
    Acknowledged,
    /// There is no such session (any more).
    Expired,
}

#[derive(Clone)]
struct Session {
    row: SessionRow,
    /// The replies to the calls after `row.acknowledged`, in order.
    kept: VecDeque<Option<CommandReply>>,
    bodies: Bodies,
    /// What they add up to in the state hash.
    replies_hash: u64,
    /// What the session adds to the state hash.
    contribution: u64,
    /// Its neighbours in the order of use.
    older: u32,
    newer: u32,
}

const _: () = assert!(size_of::<Option<CommandReply>>() <= 32, "limits.rs counts on it");

/// The bodies kept for a session, by their calls.
#[derive(Clone, Default)]
struct Bodies {
    of: BTreeMap<u64, Box<[u8]>>,
    bytes: usize,
}

impl Bodies {
    fn get(&self, sequence: u64) -> &[u8] {
        self.of.get(&sequence).map_or(&[], |body| body)
    }

    /// Keeps a body if it is small and there is room; says what is kept.
    fn keep<'b>(&mut self, sequence: u64, body: &'b [u8]) -> &'b [u8] {
        let bytes = self.bytes + cost_of_body(body);
        if body.is_empty() || body.len() > KEPT_ANSWER_BYTES_MAX || bytes > KEPT_ANSWERS_BYTES_MAX {
            return &[];
        }
        self.bytes = bytes;
        self.of.insert(sequence, body.into());
        body
    }

    fn take(&mut self, sequence: u64) -> Box<[u8]> {
        let body = self.of.remove(&sequence).unwrap_or_default();
        self.bytes -= cost_of_body(&body);
        body
    }
}

/// What a body that is kept counts for; none is kept of no bytes.
pub(super) fn cost_of_body(body: &[u8]) -> usize {
    if body.is_empty() { 0 } else { KEPT_ANSWER_OVERHEAD_BYTES + body.len() }
}

/// The replies kept for a session that is made.
#[derive(Default)]
struct Kept {
    outlines: VecDeque<Option<CommandReply>>,
    bodies: Bodies,
    hash: u64,
}

/// A moment that a checkpoint looks at while the table goes on.
struct Pinned {
    counters: SessionCounters,
    /// By their places, the sessions of then that were used or ended since, as they were.
    before: BTreeMap<u32, Session>,
}

/// What a pinned moment kept.
pub(super) struct SetAside {
    _pinned: Option<Pinned>,
}

/// All client sessions.
pub(super) struct Sessions {
    pinned: Option<Pinned>,
    places: Vec<Option<Box<Session>>>,
    count: usize,
    oldest: u32,
    newest: u32,
    counters: SessionCounters,
    hash: u64,
}

impl Sessions {
    pub(super) fn new() -> Sessions {
        let counters = SessionCounters::default();
        let (oldest, newest) = (NOWHERE, NOWHERE);
        Sessions { pinned: None, places: Vec::new(), count: 0, oldest, newest, counters, hash: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn counters(&self) -> SessionCounters {
        self.counters
    }

    /// The sum of what the sessions add to the state hash.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// Loads a session that will be used. The value means nothing.
    #[inline]
    pub(super) fn touch(&self, id: SessionId) -> u64 {
        let session = self.at(place_of(id));
        session.map_or(0, |it| it.row.used ^ u64::from(it.kept.front().is_some()))
    }

    /// Ends sessions that have been unused for too long at `stamp_ms`.
    #[inline]
    pub(super) fn expire(&mut self, stamp_ms: u64) {
        for _ in 0..EXPIRED_PER_ENTRY {
            let Some(oldest) = self.at(self.oldest) else { return };
            if stamp_ms.saturating_sub(oldest.row.used_ms) < SESSION_IDLE_MS {
                return;
            }
            self.end(self.oldest);
        }
    }

    /// Ends all of them. Their numbers are not given again.
    pub(super) fn end_all(&mut self) {
        while self.oldest != NOWHERE {
            self.end(self.oldest);
        }
    }

    /// Makes a session, for which another one may have to end.
    pub(super) fn open(&mut self, stamp_ms: u64, owner: Credential) -> SessionId {
        if self.count == SESSIONS_MAX {
            self.end(self.oldest);
        }
        let mut id = self.counters.last.0 + 1;
        while self.at(place_of(SessionId(id))).is_some() {
            id += 1;
        }
        let id = SessionId(id);
        self.counters.last = id;
        self.counters.uses += 1;
        let (used, used_ms) = (self.counters.uses, stamp_ms);
        let row = SessionRow { id, acknowledged: 0, used, used_ms, owner };
        self.insert(row, Kept::default());
        id
    }

    /// Notes that a session is used and what it has acknowledged; says whether the call is new.
    /// After `New` its reply must be kept before anything else happens here. For all but its
    /// `owner`, if that counts, there is no such session: else they could read its replies, and use
    /// up the numbers of its calls.
    pub(super) fn begin(
        &mut self,
        call: SessionCall,
        stamp_ms: u64,
        owner: Option<Credential>,
    ) -> Standing {
        let place = place_of(call.session);
        let is_it = |session: &Session| {
            let theirs = owner.is_some_and(|owner| owner != session.row.owner);
            session.row.id == call.session && !theirs
        };
        if !self.at(place).is_some_and(is_it) {
            return Standing::Expired;
        }
        self.set_aside(place);
        self.counters.uses += 1;
        let used = self.counters.uses;
        self.unlink(place);
        self.link_newest(place);
        let session = self.at_mut(place);
        (session.row.used, session.row.used_ms) = (used, stamp_ms);
        session.acknowledge(call.acknowledged);
        let standing = session.standing_of(call.sequence);
        self.hash_anew(place);
        standing
    }

    /// Whether a call was answered, or given up, before. Changes nothing.
    pub(super) fn knows(&self, call: SessionCall) -> bool {
        let session = self.at(place_of(call.session));
        let Some(session) = session.filter(|session| session.row.id == call.session) else {
            return false;
        };
        // What the call acknowledges is not noted yet: it may be beyond the window.
        match call.sequence.checked_sub(session.row.acknowledged) {
            Some(ahead @ 1..) => {
                let slot = usize::try_from(ahead - 1).unwrap_or(usize::MAX);
                matches!(session.kept.get(slot), Some(Some(_)))
            }
            Some(0) | None => true,
        }
    }

    /// The body kept for a call that `begin` found to be answered; empty if none is.
    pub(super) fn body_of(&self, call: SessionCall) -> &[u8] {
        let session = self.at(place_of(call.session)).expect("begin found it");
        session.bodies.get(call.sequence)
    }

    /// Keeps the reply to a call that `begin` found to be new.
    pub(super) fn keep(&mut self, call: SessionCall, reply: CommandReply, body: &[u8]) {
        let place = place_of(call.session);
        let session = self.at_mut(place);
        let slot = session.slot_of(call.sequence).expect("begin found it above the acknowledged");
        if session.kept.len() <= slot {
            session.kept.resize(slot + 1, None);
        }
        let before = session.kept[slot].replace(reply);
        assert!(before.is_none(), "call {call:?} was answered before");
        let body = session.bodies.keep(call.sequence, body);
        let added = hash::of_reply(call.sequence, &reply, body);
        session.replies_hash = session.replies_hash.wrapping_add(added);
        self.hash_anew(place);
    }

    /// The sessions in the order of use, oldest first, and their replies.
    pub(super) fn iter(
        &self,
    ) -> impl Iterator<Item = (SessionRow, impl Iterator<Item = KeptReply<'_>>)> {
        let newer = |session: &&Session| self.at(session.newer);
        std::iter::successors(self.at(self.oldest), newer).map(|it| (it.row, it.replies()))
    }

    /// From now on `pinned_from` sees the table as it is now. A session costs a copy at its first
    /// use afterwards. Panics if a moment is pinned already.
    pub(super) fn pin(&mut self) {
        assert!(self.pinned.is_none(), "one moment at a time");
        self.pinned = Some(Pinned { counters: self.counters, before: BTreeMap::new() });
    }

    /// Lets go of the pinned moment.
    pub(super) fn unpin(&mut self) -> SetAside {
        SetAside { _pinned: self.pinned.take() }
    }

    /// The first session at or behind `place` as the pinned moment saw it, its place, and the
    /// replies kept for it then.
    pub(super) fn pinned_from(
        &self,
        place: u32,
    ) -> Option<(u32, SessionRow, impl Iterator<Item = KeptReply<'_>>)> {
        let pinned = self.pinned.as_ref().expect("a moment is pinned");
        let end = u32::try_from(self.places.len()).expect("few places");
        (place..end).find_map(|place| {
            let of_then = |it: &&Session| it.row.used <= pinned.counters.uses;
            let untouched = || self.at(place).filter(of_then);
            let session = pinned.before.get(&place).or_else(untouched)?;
            Some((place, session.row, session.replies()))
        })
    }

    /// Takes over a session of a checkpoint; `restore_counters` follows the last one.
    pub(super) fn restore<'a>(
        &mut self,
        row: SessionRow,
        replies: impl Iterator<Item = KeptReply<'a>>,
    ) {
        assert!(self.count < SESSIONS_MAX, "a checkpoint holds {SESSIONS_MAX} sessions at most");
        let mut kept = Kept::default();
        for KeptReply { sequence, outline, body } in replies {
            let slot =
                slot_after(row.acknowledged, sequence).expect("a kept call is in the window");
            kept.outlines.resize(kept.outlines.len().max(slot + 1), None);
            kept.outlines[slot] = Some(outline);
            let body = kept.bodies.keep(sequence, body);
            kept.hash = kept.hash.wrapping_add(hash::of_reply(sequence, &outline, body));
        }
        self.insert(row, kept);
    }

    /// Takes over the counters of a checkpoint, after its sessions, and puts these in their order.
    pub(super) fn restore_counters(&mut self, counters: SessionCounters) {
        let mut rows: Vec<SessionRow> = self.places.iter().flatten().map(|it| it.row).collect();
        rows.sort_unstable_by_key(|row| row.used);
        (self.oldest, self.newest) = (NOWHERE, NOWHERE);
        for row in rows {
            assert!(row.id <= counters.last, "{} is newer than the newest", row.id);
            assert!(row.used <= counters.uses, "{} was used after the last use", row.id);
            let place = place_of(row.id);
            let session = self.at_mut(place);
            (session.older, session.newer) = (NOWHERE, NOWHERE);
            self.link_newest(place);
        }
        self.counters = counters;
    }

    fn insert(&mut self, row: SessionRow, kept: Kept) {
        let place = place_of(row.id);
        let (older, newer) = (NOWHERE, NOWHERE);
        let Kept { outlines: kept, bodies, hash: replies_hash } = kept;
        let session = Session { row, kept, bodies, replies_hash, contribution: 0, older, newer };
        let index = index(place);
        if self.places.len() <= index {
            self.places.resize_with(index + 1, || None);
        }
        assert!(self.places[index].is_none(), "the place of {} is taken", row.id);
        self.places[index] = Some(Box::new(session));
        self.count += 1;
        self.link_newest(place);
        self.hash_anew(place);
    }

    fn end(&mut self, place: u32) {
        self.set_aside(place);
        self.unlink(place);
        let ended = self.places[index(place)].take().expect("a linked place holds a session");
        self.hash = self.hash.wrapping_sub(ended.contribution);
        self.count -= 1;
    }

    /// Keeps a session as a pinned moment saw it, before it changes for the first time since.
    fn set_aside(&mut self, place: u32) {
        let Some(pinned) = &mut self.pinned else { return };
        let session = self.places[index(place)].as_deref();
        let session = session.expect("a linked place holds a session");
        if session.row.used <= pinned.counters.uses {
            pinned.before.insert(place, session.clone());
        }
    }

    fn unlink(&mut self, place: u32) {
        let session = self.at_mut(place);
        let (older, newer) = (session.older, session.newer);
        (session.older, session.newer) = (NOWHERE, NOWHERE);
        if older == NOWHERE {
            self.oldest = newer
        } else {
            self.at_mut(older).newer = newer
        }
        if newer == NOWHERE { self.newest = older } else { self.at_mut(newer).older = older }
    }

    fn link_newest(&mut self, place: u32) {
        let before = self.newest;
        self.at_mut(place).older = before;
        if before == NOWHERE {
            self.oldest = place
        } else {
            self.at_mut(before).newer = place
        }
        self.newest = place;
    }

    fn hash_anew(&mut self, place: u32) {
        let session = self.at_mut(place);
        let before = session.contribution;
        session.contribution = hash::of_session(&session.row, session.replies_hash);
        let after = session.contribution;
        self.hash = self.hash.wrapping_sub(before).wrapping_add(after);
    }

    #[inline]
    fn at(&self, place: u32) -> Option<&Session> {
        self.places.get(index(place))?.as_deref()
    }

    fn at_mut(&mut self, place: u32) -> &mut Session {
        let session = self.places[index(place)].as_deref_mut();
        session.expect("a linked place holds a session")
    }
}

impl Session {
    /// Forgets the replies up to `sequence`: the client has them.
    fn acknowledge(&mut self, sequence: u64) {
        while self.row.acknowledged < sequence {
            let Some(first) = self.kept.pop_front() else {
                self.row.acknowledged = sequence;
                return;
            };
            self.row.acknowledged += 1;
            if let Some(reply) = first {
                let sequence = self.row.acknowledged;
                let body =
                    if reply.has_body() { self.bodies.take(sequence) } else { Box::default() };
                let gone = hash::of_reply(sequence, &reply, &body);
                self.replies_hash = self.replies_hash.wrapping_sub(gone);
            }
        }
    }

    fn standing_of(&self, sequence: u64) -> Standing {
        let Some(slot) = self.slot_of(sequence) else { return Standing::Acknowledged };
        match self.kept.get(slot) {
            Some(Some(reply)) => Standing::Answered(*reply),
            Some(None) | None => Standing::New,
        }
    }

    fn slot_of(&self, sequence: u64) -> Option<usize> {
        slot_after(self.row.acknowledged, sequence)
    }

    fn replies(&self) -> impl Iterator<Item = KeptReply<'_>> {
        let sequences = self.row.acknowledged + 1..;
        sequences.zip(&self.kept).filter_map(|(sequence, reply)| {
            Some(KeptReply { sequence, outline: (*reply)?, body: self.bodies.get(sequence) })
        })
    }
}

/// Where the reply to call `sequence` is kept; `None` if it is acknowledged. Within the window,
/// because a call names what it acknowledges, which is within the window below it.
fn slot_after(acknowledged: u64, sequence: u64) -> Option<usize> {
    let ahead = sequence.checked_sub(acknowledged).filter(|ahead| *ahead > 0)?;
    assert!(ahead <= SESSION_WINDOW, "call {sequence} is beyond the window after {acknowledged}");
    Some(usize::try_from(ahead - 1).expect("below the window"))
}

/// Where this session is, if it is: sessions of a checkpoint are in this order.
pub(super) fn place_of(id: SessionId) -> u32 {
    u32::try_from(id.0 % u64::from(PLACES)).expect("a remainder below 2^32")
}

fn index(place: u32) -> usize {
    usize::try_from(place).expect("raftd runs on 64 bits")
}
