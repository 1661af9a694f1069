//! Connections without sockets: who is at the other end, what waits to be sent, who has asked for
//! too much.
//!
//! Bounds: an out-buffer above `CONNECTION_OUT_HIGH_WATER` or too many unanswered requests pause a
//! connection: its bytes stay unread. All out-buffers of clients together stay below
//! `CLIENT_OUT_BYTES_MAX`: large replies wait for room. Who keeps others waiting because it does
//! not read is closed, and its bytes are dropped at once.

use super::identity::Proving;
use super::outbox::{Outbox, SPARE_BYTES_MAX};
use crate::kv::Asker;
use crate::limits;
use crate::types::{Credential, Instant, NodeId};
use crate::wire::client::Op;
use std::collections::VecDeque;

/// While replies wait for room, who reads is told from who does not in steps of this. Nanoseconds.
const PACE_NS: u64 = 500_000_000;

/// Who takes less in a step does not read. Bytes.
const PACE_BYTES: u64 = 64 * 1024;

/// Above this, reads that are held back leave others too little of `WAITING_READ_BYTES_MAX`. Bytes.
const DEFERRED_BYTES_BELOW: usize = limits::WAITING_READ_BYTES_MAX / 2;

/// Between two lines about clients that do not read. Nanoseconds.
const LINES_APART_NS: u64 = 1_000_000_000;

/// A connection's name between the shell and the node: a slot, and which use of the slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

impl ConnectionId {
    /// Nobody's connection: answers to it vanish.
    pub const NOBODY: ConnectionId = ConnectionId { slot: u32::MAX, generation: 0 };

    /// The `generation`th use of `slot`. Slots are small and reused; generations are not.
    pub fn new(slot: u32, generation: u32) -> ConnectionId {
        ConnectionId { slot, generation }
    }

    /// The slot, for the shell's table of sockets.
    pub fn slot(self) -> usize {
        usize::try_from(self.slot).expect("u32 fits usize wherever raftd runs")
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Party {
    /// Accepted; its hello has not come yet.
    Stranger,
    /// A client.
    Client,
    /// A peer that dialed us: its requests come here, our answers leave here.
    PeerIn(NodeId),
    /// A peer we dialed; its welcome has not come yet.
    Dialed(NodeId),
    /// A peer we dialed: our requests leave here, its answers come here.
    PeerOut(NodeId),
    /// A peer that dialed us to bring a snapshot.
    SnapshotIn(NodeId),
    /// A peer we dialed to bring it a snapshot.
    SnapshotOut(NodeId),
}

/// How much of a reply is in the out-buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Written {
    /// All of it: the request is answered.
    Whole,
    /// The rest follows in others, as the client reads.
    Part,
    /// It must wait.
    Nothing,
}

/// A read that is due for a client that does not read fast enough.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) request: u64,
    pub(super) op: Op,
    pub(super) asker: Asker,
    pub(super) args: Vec<u8>,
}

impl Deferred {
    /// What it counts for. Bytes.
    fn bytes(&self) -> usize {
        self.args.capacity() + size_of::<Deferred>()
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) party: Party,
    /// Where it comes from, if it was accepted and anybody knows.
    pub(super) origin: String,
    pub(super) out: Outbox,
    /// Who has logged in.
    pub(super) login: Credential,
    proving: Option<Box<Proving>>,
    /// Requests admitted and not answered yet.
    pub(super) waiting: usize,
    pub(super) deferred: VecDeque<Deferred>,
    /// Bytes the kernel has taken.
    taken: u64,
    /// What it had taken when the step under way began, if it was behind.
    taken_before: Option<u64>,
    dirty: bool,
    closing: bool,
}

impl Connection {
    /// Whether more requests of it may be looked at.
    fn has_room(&self) -> bool {
        match self.party {
            Party::Stranger | Party::Client => {
                self.out.unsent_bytes() < limits::CONNECTION_OUT_HIGH_WATER
                    && self.waiting < limits::CONNECTION_REQUESTS_MAX
                    && self.deferred.is_empty()
            }
            Party::PeerIn(_)
            | Party::Dialed(_)
            | Party::PeerOut(_)
            | Party::SnapshotIn(_)
            | Party::SnapshotOut(_) => true,
        }
    }

    /// Whether the system's buffers are full of what it has not read, and we hold the rest.
    fn is_behind(&self) -> bool {
        counts_as_client(self.party) && self.out.unsent_bytes() > 0
    }

    /// Whether bytes of it are welcome.
    pub(super) fn flow(&self) -> Flow {
        match (self.closing, self.has_room()) {
            (true, _) => Flow::Ended,
            (false, true) => Flow::Open,
            (false, false) => Flow::Paused,
        }
    }

    fn answered(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Whether it has read enough for another reply.
    pub(super) fn reads_fast_enough(&self) -> bool {
        self.out.unsent_bytes() < limits::CONNECTION_OUT_HIGH_WATER
    }
}

/// All connections of the node.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Vec<Option<Connection>>,
    dirty: Vec<ConnectionId>,
    closing: Vec<ConnectionId>,
    deferring: Vec<ConnectionId>,
    client_out_bytes: usize,
    deferred_bytes: usize,
    clients: usize,
    /// Those who have logged in.
    logins: usize,
    /// Somebody watches whose events find no room.
    pub(super) events_wait: bool,
    /// A range under way finds no room.
    pub(super) ranges_wait: bool,
    /// When the step ends in which those who do not read are found out, if others wait for room.
    pace_until: Option<Instant>,
    /// Clients closed and not mentioned yet.
    cut_off: u64,
    next_line: Instant,
}

impl Connections {
    /// Enters a connection under the id that the shell chose.
    pub(super) fn open(&mut self, id: ConnectionId, party: Party) {
        if self.slots.len() <= id.slot() {
            self.slots.resize_with(id.slot() + 1, || None);
        }
        let slot = &mut self.slots[id.slot()];
        assert!(
            slot.is_none(),
            "the shell reuses a slot only after the connection in it has ended"
        );
        *slot = Some(Connection {
            id,
            party,
            origin: String::new(),
            out: Outbox::default(),
            login: Credential::NONE,
            proving: None,
            waiting: 0,
            deferred: VecDeque::new(),
            taken: 0,
            taken_before: None,
            dirty: false,
            closing: false,
        });
    }

    /// Forgets a connection whose socket is gone; returns who it was.
    pub(super) fn close(&mut self, id: ConnectionId) -> Option<Party> {
        self.get(id)?;
        let connection = self.slots[id.slot()].take()?;
        if counts_as_client(connection.party) {
            self.client_out_bytes -= connection.out.bytes.capacity();
        }
        self.deferred_bytes -= connection.deferred.iter().map(Deferred::bytes).sum::<usize>();
        self.clients -= usize::from(connection.party == Party::Client);
        self.logins -= usize::from(connection.login.is_some());
        Some(connection.party)
    }

    /// Whether anybody has logged in.
    #[inline]
    pub(super) fn has_logins(&self) -> bool {
        self.logins > 0
    }

    /// Notes that a proof is awaited from a connection; one that was awaited before is not any
    /// more.
    pub(super) fn set_proving(&mut self, id: ConnectionId, proving: Proving) {
        if let Some(connection) = self.get_mut(id) {
            connection.proving = Some(Box::new(proving));
        }
    }

    /// What a connection is to prove, for once.
    pub(super) fn take_proving(&mut self, id: ConnectionId) -> Option<Box<Proving>> {
        self.get_mut(id)?.proving.take()
    }

    /// Notes who has logged in.
    pub(super) fn set_login(&mut self, id: ConnectionId, login: Credential) {
        let Some(connection) = self.get_mut(id) else { return };
        let before = std::mem::replace(&mut connection.login, login);
        self.logins += usize::from(login.is_some());
        self.logins -= usize::from(before.is_some());
    }

    /// The connection, unless it has ended.
    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.slots.get(id.slot())?.as_ref().filter(|connection| connection.id == id)
    }

    fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        find(&mut self.slots, id)
    }

    /// Notes where a connection comes from.
    pub(super) fn set_origin(&mut self, id: ConnectionId, origin: String) {
        if let Some(connection) = self.get_mut(id) {
            connection.origin = origin;
        }
    }

    /// Names the party of a connection that has shaken hands.
    pub(super) fn set_party(&mut self, id: ConnectionId, party: Party) {
        let connection = self.get_mut(id).expect("a frame of this connection is being handled");
        let held = connection.out.bytes.capacity();
        let before = std::mem::replace(&mut connection.party, party);
        if counts_as_client(before) && !counts_as_client(party) {
            self.client_out_bytes -= held;
        }
        self.clients += usize::from(party == Party::Client);
        self.clients -= usize::from(before == Party::Client);
    }

    /// Writes to a connection's out-buffer, unless it has ended.
    pub(super) fn write(&mut self, id: ConnectionId, encode: impl FnOnce(&mut Vec<u8>)) {
        self.write_to(id, |connection| encode(&mut connection.out.bytes));
    }

    /// Answers one request: as `write`, and the request no longer waits.
    pub(super) fn answer(&mut self, id: ConnectionId, encode: impl FnOnce(&mut Vec<u8>)) {
        self.write_to(id, |connection| {
            connection.answered();
            encode(&mut connection.out.bytes);
        });
    }

    /// As `answer`, if the client reads fast enough, and if `encode` then says that it has written
    /// all of the reply. Else the request goes on waiting. Nothing is sent within a turn: where the
    /// replies of one are many, each connection gets some, and the rest when those are sent.
    pub(super) fn answer_if_read(
        &mut self,
        id: ConnectionId,
        encode: impl FnOnce(&mut Vec<u8>) -> Written,
    ) -> Written {
        let mut written = Written::Nothing;
        let plenty = self.has_room_for_large();
        self.write_to(id, |connection| {
            let few = connection.out.unsent_bytes() <= limits::CLIENT_OUT_FLOOR;
            if connection.reads_fast_enough() && (plenty || few) {
                written = encode(&mut connection.out.bytes);
            }
            if written == Written::Whole {
                connection.answered();
            }
        });
        written
    }

    /// Lets `write` fill a connection's out-buffer, unless it has ended, and sees to its bounds.
    fn write_to(&mut self, id: ConnectionId, write: impl FnOnce(&mut Connection)) {
        let Some(connection) = find(&mut self.slots, id).filter(|it| !it.closing) else { return };
        let before = connection.out.bytes.capacity();
        write(connection);
        let bytes = &mut connection.out.bytes;
        if bytes.capacity() - bytes.len() > 4 * limits::CONNECTION_OUT_HIGH_WATER {
            bytes.shrink_to(bytes.len() + SPARE_BYTES_MAX);
        }
        let after = bytes.capacity();
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(id);
        }
        if counts_as_client(connection.party) {
            self.client_out_bytes = self.client_out_bytes - before + after;
            let unsent = connection.out.unsent_bytes();
            let alone = unsent > limits::CONNECTION_OUT_MAX;
            let together = self.client_out_bytes > limits::CLIENT_OUT_BYTES_MAX
                && unsent > limits::CLIENT_OUT_FLOOR;
            if alone || together {
                self.cut_off(id);
            }
        }
    }

    /// A request of this connection no longer waits.
    pub(super) fn answered(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get_mut(id) {
            connection.answered();
        }
    }

    /// Notes that a request of this connection waits for an answer.
    pub(super) fn wait(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get_mut(id) {
            connection.waiting += 1;
        }
    }

    /// Ends a client that does not read; what it was to read is gone at once.
    fn cut_off(&mut self, id: ConnectionId) {
        let Some(connection) = self.get_mut(id) else { return };
        let dropped = std::mem::take(&mut connection.out);
        self.client_out_bytes -= dropped.bytes.capacity();
        self.cut_off += 1;
        self.end(id);
    }

    /// Whether a reply of any size may be made now.
    pub(super) fn has_room_for_large(&self) -> bool {
        self.client_out_bytes <= limits::CLIENT_OUT_LARGE_BELOW
    }

    /// Whether a range under way may write to a connection.
    pub(super) fn takes_part(&self, id: ConnectionId) -> bool {
        let unsent = |it: &Connection| it.out.unsent_bytes();
        self.get(id).is_none_or(|it| unsent(it) < limits::RANGE_OUT_HIGH_WATER)
    }

    /// Whether a connection has read enough for more events.
    pub(super) fn takes_events(&self, id: ConnectionId) -> bool {
        let plenty = self.client_out_bytes <= limits::WATCH_OUT_BELOW;
        let high_water = if plenty { limits::WATCH_OUT_HIGH_WATER } else { 1 };
        self.get(id).is_none_or(|connection| connection.out.unsent_bytes() < high_water)
    }

    /// Closes those who do not read, if others wait for the room they take: that of what waits for
    /// them, or that of what they have asked for besides.
    pub(super) fn cut_off_slow(&mut self, now: Instant) {
        let others_wait = self.events_wait || self.ranges_wait || !self.deferring.is_empty();
        let has_room = self.has_room_for_large() && self.deferred_bytes <= DEFERRED_BYTES_BELOW;
        if has_room || !others_wait {
            self.pace_until = None;
        } else if self.pace_until.is_none_or(|until| until <= now) {
            let goes_on = self.pace_until.replace(now.after_ns(PACE_NS)).is_some();
            let mut slow = Vec::new();
            for connection in self.slots.iter_mut().flatten() {
                let taken = connection.is_behind().then_some(connection.taken);
                let before = std::mem::replace(&mut connection.taken_before, taken);
                if let (true, Some(before), Some(taken)) = (goes_on, before, taken)
                    && taken - before < PACE_BYTES
                {
                    slow.push(connection.id);
                }
            }
            slow.into_iter().for_each(|id| self.cut_off(id));
        }
        if self.cut_off > 0 && self.next_line <= now {
            let (count, bytes) = (std::mem::take(&mut self.cut_off), self.client_out_bytes);
            log::warn!("closed clients that do not read count={count} bytes_left={bytes}");
            self.next_line = now.after_ns(LINES_APART_NS);
        }
    }

    /// When `cut_off_slow` must be called.
    pub(super) fn wake_at(&self) -> Instant {
        self.pace_until.unwrap_or(Instant::FAR)
    }

    /// Holds a read back until the client has read what it asked for before.
    pub(super) fn defer(&mut self, id: ConnectionId, deferred: Deferred) {
        let bytes = deferred.bytes();
        let Some(connection) = self.get_mut(id) else { return };
        connection.deferred.push_back(deferred);
        if connection.deferred.len() == 1 {
            self.deferring.push(id);
        }
        self.deferred_bytes += bytes;
    }

    /// What all held-back reads count for. Bytes.
    pub(super) fn deferred_bytes(&self) -> usize {
        self.deferred_bytes
    }

    /// The next held-back read whose client has caught up.
    pub(super) fn take_deferred(&mut self) -> Option<(ConnectionId, Deferred)> {
        if !self.has_room_for_large() {
            return None;
        }
        let mut place = 0;
        while let Some(id) = self.deferring.get(place).copied() {
            match self.get_mut(id) {
                None => {
                    self.deferring.remove(place);
                }
                Some(connection) if connection.deferred.is_empty() => {
                    self.deferring.remove(place);
                }
                Some(connection) if connection.reads_fast_enough() => {
                    let deferred = connection.deferred.pop_front().expect("it is not empty");
                    let more = !connection.deferred.is_empty();
                    self.deferred_bytes -= deferred.bytes();
                    // The others come first now.
                    self.deferring.remove(place);
                    if more {
                        self.deferring.push(id);
                    }
                    return Some((id, deferred));
                }
                Some(_) => place += 1,
            }
        }
        None
    }

    /// Whether held-back reads can go on, so that the next turn must not wait.
    pub(super) fn has_ready_deferred(&self) -> bool {
        let mut waiting = self.deferring.iter().filter_map(|id| self.get(*id));
        self.has_room_for_large()
            && waiting.any(|it| it.reads_fast_enough() && !it.deferred.is_empty())
    }

    /// Ends a connection once its out-buffer has been offered to the socket.
    pub(super) fn end(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get_mut(id)
            && !connection.closing
        {
            connection.closing = true;
            self.closing.push(id);
        }
    }

    /// Moves the connections with something to send to `into`.
    pub(super) fn take_dirty(&mut self, into: &mut Vec<ConnectionId>) {
        into.append(&mut self.dirty);
        for id in into.iter() {
            if let Some(connection) = self.slots.get_mut(id.slot()).and_then(Option::as_mut) {
                connection.dirty = false;
            }
        }
    }

    /// Moves the connections to be closed to `into`.
    pub(super) fn take_closing(&mut self, into: &mut Vec<ConnectionId>) {
        into.append(&mut self.closing);
    }

    /// What waits for the socket of `id`.
    pub(super) fn unsent(&self, id: ConnectionId) -> &[u8] {
        self.get(id).map_or(&[], |connection| connection.out.unsent())
    }

    /// Notes that the kernel took `count` bytes for `id`.
    pub(super) fn sent(&mut self, id: ConnectionId, count: usize) {
        let plenty = self.client_out_bytes <= limits::CLIENT_OUT_BYTES_MAX / 4;
        let Some(connection) = self.get_mut(id) else { return };
        let out = &mut connection.out;
        let before = out.bytes.capacity();
        out.advance(count);
        connection.taken += u64::try_from(count).expect("usize fits u64 wherever raftd runs");
        if counts_as_client(connection.party) {
            if out.bytes.is_empty() && !(plenty && out.bytes.capacity() <= SPARE_BYTES_MAX) {
                out.bytes = Vec::new();
            }
            let after = out.bytes.capacity();
            self.client_out_bytes = self.client_out_bytes - before + after;
        }
    }

    /// Whether no client waits for an answer, or for the rest of one.
    pub(super) fn is_quiet(&self) -> bool {
        self.slots
            .iter()
            .flatten()
            .filter(|it| counts_as_client(it.party))
            .all(|connection| connection.waiting == 0 && connection.out.unsent_bytes() == 0)
    }

    /// Clients that have said hello.
    pub(super) fn clients(&self) -> usize {
        self.clients
    }
}

fn find(slots: &mut [Option<Connection>], id: ConnectionId) -> Option<&mut Connection> {
    slots.get_mut(id.slot())?.as_mut().filter(|connection| connection.id == id)
}

/// Whether no member is at the other end, as far as we know.
pub(super) fn counts_as_client(party: Party) -> bool {
    match party {
        Party::Stranger | Party::Client => true,
        Party::PeerIn(_)
        | Party::Dialed(_)
        | Party::PeerOut(_)
        | Party::SnapshotIn(_)
        | Party::SnapshotOut(_) => false,
    }
}

/// Whether bytes of a connection are welcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// Hand over what comes.
    Open,
    /// It has asked for enough: keep its bytes and do not read more.
    Paused,
    /// It has ended or is about to.
    Ended,
}

#[cfg(test)]
mod tests;
