//! Our snapshot on its way to a client that keeps it: `raftctl snapshot save`.
//!
//! ```text
//! asked      → a read round: what is committed by now has this index
//! confirmed  → applied up to there; a snapshot in force at or above it: the one there is, or a
//!              fresh one, made as every snapshot is (`snapshots`); meanwhile a word now and then,
//!              and a refusal if nothing moves: another server may have it
//! sending    → pieces of its file, one at a time, each when the client has read the one before
//! ```
//!
//! Why a file first, and not the store straight to the client: one checkpoint is pinned at a time,
//! and what it pins is not freed. A client that reads slowly would hold the memory of a busy
//! server, and keep it from making its own snapshots.

use super::connections::ConnectionId;
use super::identity::denied;
use super::pending::Waiter;
use super::{Node, Stage};
use crate::kv::{Asker, Denial};
use crate::limits;
use crate::raft::ReadTicket;
use crate::types::{Instant, LogIndex};
use crate::wal::{PieceFor, SnapshotSource};
use crate::wire::client::{Request, decode_status_args};
use crate::wire::error::Error;
use crate::wire::reply::{SnapshotPiece, error_reply, snapshot_reply};

/// From one word to the next while the snapshot is made, so that the client knows that we are at
/// it. Nanoseconds.
const WORD_NS: u64 = 1_000_000_000;

/// A client that takes no byte for so long is left. Nanoseconds.
const PATIENCE_NS: u64 = 30_000_000_000;

/// A client is not kept waiting for a snapshot that gets no nearer for so long: as long as the disk
/// is full, say, on which a follower is sent one. Nanoseconds.
const STUCK_NS: u64 = 30_000_000_000;

/// How far a save is.
#[derive(Debug)]
enum Step {
    Asked,
    Confirming(ReadTicket),
    /// Nobody leads: ask another server.
    Lost,
    /// A snapshot must stand for this entry, at least.
    Confirmed(LogIndex),
    Sending {
        source: SnapshotSource,
        /// The end of the last piece sent.
        sent: u64,
        /// A piece is being read.
        reading: bool,
    },
}

/// A client that saves.
#[derive(Debug)]
struct Save {
    /// Its name to the record.
    number: u64,
    waiter: Waiter,
    asker: Asker,
    asked_at: Instant,
    step: Step,
    /// When a word is due, or the patience ends.
    due_at: Instant,
}

/// What a server gets on with while clients wait for its snapshot: the furthest of each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Reach {
    applied: LogIndex,
    in_force: LogIndex,
    /// Of the snapshot that it is sent. Another one, or the same anew, is no progress until there
    /// is more of it than there was. Bytes.
    received: u64,
}

impl Reach {
    fn or_further(self, other: Reach) -> Reach {
        Reach {
            applied: self.applied.max(other.applied),
            in_force: self.in_force.max(other.in_force),
            received: self.received.max(other.received),
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Saves {
    list: Vec<Save>,
    /// How many there ever were.
    begun: u64,
    /// How far the server was since somebody waits, and when it last got on.
    reach: Reach,
    moved_at: Instant,
}

impl Saves {
    /// The entry that the next snapshot must stand for, if somebody waits for one.
    pub(super) fn wanted(&self) -> Option<LogIndex> {
        let wanted = self.list.iter().filter_map(|save| match save.step {
            Step::Confirmed(index) => Some(index),
            Step::Asked | Step::Confirming(_) | Step::Lost | Step::Sending { .. } => None,
        });
        wanted.max()
    }

    /// A read round was answered: whether it was asked for a save. `None`: nobody leads.
    pub(super) fn on_round(&mut self, ticket: ReadTicket, index: Option<LogIndex>) -> bool {
        let asked = |save: &&mut Save| matches!(save.step, Step::Confirming(it) if it == ticket);
        let mut found = false;
        for save in self.list.iter_mut().filter(asked) {
            save.step = index.map_or(Step::Lost, Step::Confirmed);
            // The next turn goes on with it, and does not wait until a word is due.
            save.due_at = Instant::ZERO;
            found = true;
        }
        found
    }

    pub(super) fn wake_at(&self) -> Instant {
        self.list.iter().map(|save| save.due_at).min().unwrap_or(Instant::FAR)
    }
}

impl Node {
    pub(super) fn admit_save(
        &mut self,
        id: ConnectionId,
        asker: Asker,
        request: &Request<'_>,
        now: Instant,
    ) -> Result<(), Error> {
        decode_status_args(request.args)
            .map_err(|error| Error::BadRequest { why: error.to_string().into() })?;
        self.check_leader_known(now)?;
        if self.knows_rights(now) {
            self.may_save(asker).map_err(denied)?;
        }
        if self.saves.list.len() >= limits::SNAPSHOT_SAVES_MAX {
            return Err(Error::Busy { what: "other clients save snapshots".into() });
        }
        let waiter = Waiter { connection: id, request: request.id };
        self.connections.wait(id);
        if self.saves.list.is_empty() {
            self.saves.reach = Reach::default();
        }
        self.saves.begun += 1;
        let (number, due_at) = (self.saves.begun, now.after_ns(WORD_NS));
        let step = Step::Asked;
        self.saves.list.push(Save { number, waiter, asker, asked_at: now, step, due_at });
        Ok(())
    }

    /// Asks what is committed by now, for those who asked in this turn.
    pub(super) fn ask_for_saves(&mut self) {
        let asked = |save: &Save| matches!(save.step, Step::Asked);
        if !self.saves.list.iter().any(asked) {
            return;
        }
        let Stage::Member(raft) = &mut self.stage else { return };
        let ticket = raft.read().ok();
        for save in self.saves.list.iter_mut().filter(|save| asked(save)) {
            save.step = ticket.map_or(Step::Lost, Step::Confirming);
        }
    }

    /// Forgets those who hung up, says a word to those who wait, and sends what can be sent.
    pub(super) fn continue_saves(&mut self, now: Instant) {
        if self.saves.list.is_empty() {
            return;
        }
        let lost = |save: &Save| matches!(save.step, Step::Lost);
        while let Some(place) = self.saves.list.iter().position(lost) {
            self.end_save(place, &self.unconfirmed());
        }
        self.refuse_stuck_saves(now);
        let connections = &mut self.connections;
        // Whoever hung up is forgotten once the core has answered what it was asked for them.
        self.saves.list.retain(|save| {
            let asked = matches!(save.step, Step::Confirming(_));
            asked || connections.get(save.waiter.connection).is_some()
        });
        let (in_force, applied) = (self.wal.snapshot(), self.store.applied());
        let room = connections.has_room_for_large();
        let mut pieces = Vec::new();
        for save in &mut self.saves.list {
            let id = save.waiter.connection;
            if let (Step::Confirmed(index), Some(source)) = (&save.step, in_force)
                && source.id.position.index >= *index
                && applied >= *index
            {
                log::info!("sends a snapshot to a client id={}", source.id);
                save.step = Step::Sending { source: source.clone(), sent: 0, reading: false };
                save.due_at = now.after_ns(PATIENCE_NS);
            }
            let reads = connections.get(id).is_some_and(|it| it.reads_fast_enough());
            match &mut save.step {
                Step::Sending { source, sent, reading } if !*reading && reads && room => {
                    let left = source.id.bytes.saturating_sub(*sent);
                    let piece = self.options.snapshots.piece_bytes;
                    let length = usize::try_from(left).unwrap_or(piece).min(piece);
                    *reading = true;
                    pieces.push((save.number, source.clone(), *sent, length));
                }
                Step::Sending { .. } if save.due_at <= now => connections.end(id),
                Step::Sending { .. } => {}
                Step::Asked | Step::Confirming(_) | Step::Lost | Step::Confirmed(_)
                    if save.due_at <= now =>
                {
                    save.due_at = now.after_ns(WORD_NS);
                    let word = SnapshotPiece::default();
                    connections.write(id, |out| snapshot_reply(out, save.waiter.request, &word));
                }
                Step::Asked | Step::Confirming(_) | Step::Lost | Step::Confirmed(_) => {}
            }
        }
        for (number, source, offset, length) in pieces {
            self.wal.read_piece(PieceFor::Client(number), &source, (offset, length), None);
        }
    }

    /// Who waits for a snapshot that gets no nearer hears why.
    fn refuse_stuck_saves(&mut self, now: Instant) {
        self.note_reach(now);
        let moved_at = self.saves.moved_at;
        let stuck = |save: &Save| match save.step {
            Step::Confirmed(_) => save.asked_at.max(moved_at).after_ns(STUCK_NS) <= now,
            Step::Asked | Step::Confirming(_) | Step::Lost | Step::Sending { .. } => false,
        };
        while let Some(place) = self.saves.list.iter().position(stuck) {
            let why = self.why_stuck();
            log::warn!("refused a save node={} why={why}", self.identity.node);
            self.end_save(place, &Error::NotReady { why: why.into() });
        }
    }

    fn note_reach(&mut self, now: Instant) {
        let (received, size) = self.received();
        let in_force = self.wal.snapshot().map_or(LogIndex::ZERO, |it| it.id.position.index);
        let here = Reach { applied: self.store.applied(), in_force, received };
        // What was received is loaded in slices.
        let loads = size > 0 && received == size && self.receiving_wake_at() != Instant::FAR;
        let saves = &mut self.saves;
        let further = saves.reach.or_further(here);
        if further != saves.reach || loads || self.wal.snapshot_under_way() {
            (saves.reach, saves.moved_at) = (further, now);
        }
    }

    fn why_stuck(&self) -> String {
        let what = if self.is_receiving() {
            let (received, size) = self.received();
            format!("the snapshot that it is sent, of which it has {received} of {size} bytes")
        } else {
            format!("its log, of which it has applied {}", self.store.applied())
        };
        let full = if self.wal.out_of_space() { "; its disk is full" } else { "" };
        format!("this server gets no further with {what}{full}")
    }

    /// Whoever may not have the store hears so once this server has applied all that was committed
    /// when it asked. Before a snapshot is made for it.
    pub(super) fn deny_saves(&mut self) {
        while let Some((place, why)) = self.denied_save() {
            self.end_save(place, &denied(why));
        }
    }

    fn denied_save(&self) -> Option<(usize, Denial)> {
        let applied = self.store.applied();
        let mut all = self.saves.list.iter().enumerate();
        all.find_map(|(place, save)| match save.step {
            Step::Confirmed(index) if index <= applied => {
                Some((place, self.may_save(save.asker).err()?))
            }
            Step::Asked
            | Step::Confirming(_)
            | Step::Lost
            | Step::Confirmed(_)
            | Step::Sending { .. } => None,
        })
    }

    /// A piece was read.
    pub(super) fn on_save_read(&mut self, number: u64, bytes: &[u8], now: Instant) {
        let place = self.saves.list.iter().position(|save| save.number == number);
        let Some(place) = place else { return };
        let save = &mut self.saves.list[place];
        let Waiter { connection, request } = save.waiter;
        let Step::Sending { source, sent, reading } = &mut save.step else { return };
        *reading = false;
        if bytes.is_empty() {
            log::error!("cannot read a snapshot for a client id={} at={sent}", source.id);
            let why = "the snapshot cannot be read here".into();
            return self.end_save(place, &Error::NotReady { why });
        }
        let piece = SnapshotPiece { snapshot: source.id, offset: *sent, bytes };
        *sent += u64::try_from(bytes.len()).expect("usize is at most 64 bits");
        save.due_at = now.after_ns(PATIENCE_NS);
        let whole = *sent == source.id.bytes;
        self.connections.write(connection, |out| snapshot_reply(out, request, &piece));
        if whole {
            self.connections.answered(connection);
            self.saves.list.remove(place);
        }
    }

    /// No snapshot can be made: those who wait for one hear why.
    pub(super) fn refuse_saves(&mut self, why: &str) {
        let waits = |save: &Save| matches!(save.step, Step::Confirmed(_));
        // Another server may be able to.
        let error = if self.wal.out_of_space() {
            Error::NoSpace
        } else {
            Error::NotReady { why: format!("cannot make a snapshot: {why}").into() }
        };
        while let Some(place) = self.saves.list.iter().position(waits) {
            self.end_save(place, &error);
        }
    }

    /// Nothing of the state is given away any more. What the core was asked, it still answers.
    pub(super) fn end_saves(&mut self, error: &Error) {
        let free = |save: &Save| !matches!(save.step, Step::Confirming(_));
        while let Some(place) = self.saves.list.iter().position(free) {
            self.end_save(place, error);
        }
    }

    fn end_save(&mut self, place: usize, error: &Error) {
        let Waiter { connection, request } = self.saves.list.remove(place).waiter;
        self.connections.answer(connection, |out| error_reply(out, request, error));
    }

    /// Whether a client has read enough for its next piece, so that the next turn must not wait.
    pub(super) fn has_ready_save(&self) -> bool {
        let ready = |save: &Save| {
            let reads = |id| self.connections.get(id).is_some_and(|it| it.reads_fast_enough());
            let idle = matches!(save.step, Step::Sending { reading: false, .. });
            idle && reads(save.waiter.connection)
        };
        self.connections.has_room_for_large() && self.saves.list.iter().any(ready)
    }
}
