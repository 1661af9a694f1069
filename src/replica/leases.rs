//! When leases end: what a leader puts into the log of time, and what it answers about it.
//!
//! All times are stamps, the leaders' common time (design §12.10): it stands still while nobody
//! leads for longer than a follower notices, and no wall clock has a part in it.
//!
//! ```text
//! office      a leader that has applied all that others stamped takes over the leases, a slice a
//!             turn: each is due when the table says, or else after its whole time, and not before
//!             a client had time to find the new leader
//! keep alive  after a round that confirms the leader: due after the whole time again, here; no
//!             entry of the log, unless the table says when the lease is due, or an entry under way
//!             will, or will end it: then an entry of the next turn takes that back, and answers
//! checkpoint  a lease that was kept alive and then left alone for `LEASE_CHECKPOINT_MS`: the table
//!             learns when it is due
//! expiry      a lease that is due is ended by an entry of this term
//! ```
//!
//! **Never early**: no lease ends before its time has passed since the last keep-alive that was
//! answered was asked for. A leader that was cut off cannot commit an expiry; a new one gives a
//! lease its whole time from when it took over, which is after every keep-alive that the old one
//! answered, for that waited for a round; and what the table says was said after the last of them.
//! Ten milliseconds more are for the rounding of times, and for requests that are read in a turn
//! that began before they were sent.
//!
//! **Late by how much**: as long as leaders change, by the smaller of the lease's time and
//! `LEASE_CHECKPOINT_MS` for each change, and by what commits take.

use super::admission::as_u64;
use super::connections::{Connection, ConnectionId, Deferred, Written};
use super::identity::denied;
use super::lease_clock::{Due, Office};
use super::pending::Waiter;
use super::{Node, Stage};
use crate::kv::{self, Asker, Command, LeaseRow, SliceLimits};
use crate::limits;
use crate::types::{Instant, Revision};
use crate::wire::client::Op;
use crate::wire::error::Error;
use crate::wire::leases::{
    KeysFrom, LeaseList, LeaseRequest, LeaseTerm, LeaseTimes, lease_list_reply, lease_term_reply,
    lease_times_reply,
};
use crate::wire::reply::error_reply;

/// Leases taken over in a turn: some 100 µs.
const ARMED_PER_TURN: usize = 512;

/// Expiries and checkpoints proposed in a turn.
const PROPOSED_PER_TURN: usize = 256;

/// Leases that were kept alive, about which a turn makes entries: some 500 ns each.
const TAKEN_BACK_PER_TURN: usize = 1024;

/// What an expiry, a checkpoint or what takes one back adds to the turn's entry, at most. Bytes.
const SAID_BYTES_MAX: usize = 48;

/// What an office that ends knew of more leases than that is freed where it stops nobody: of a
/// hundred thousand, that takes 7 ms, and of as many as there may be, a tenth of a second.
const FREED_HERE_MAX: usize = 512;

/// What a lease takes of a reply, at most. Bytes.
const LISTED_BYTES: usize = 9;

/// What a reply has beside keys or leases, at most. Bytes.
const REPLY_HEAD_BYTES: usize = 128;

/// Bytes of a name that cost no more than to find it.
const NAME_STEP_BYTES: usize = 256;

impl Node {
    /// The shortest time to live of a lease, in whole seconds: etcd's is one and a half elections,
    /// and ours take two timeouts at most. In that time a holder finds a new leader.
    fn lease_ttl_s_min(&self) -> u64 {
        self.lease_grace_ms().div_ceil(1000)
    }

    fn lease_grace_ms(&self) -> u64 {
        3 * self.options.election_timeout_ns / 1_000_000
    }

    /// If this is a grant: a lease is due so long after the stamp of its entry, and a leader that
    /// does not set the time yet stamps with the last one that it knows, which may be of long ago.
    /// And one for too short a time is one for the shortest: what the log has instead of it.
    pub(super) fn admit_grant(
        &self,
        call: Option<kv::SessionCall>,
        command: Command<'_>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Command::LeaseGrant { lease, ttl_s } = command else { return Ok(None) };
        if !self.sets_the_time() {
            return Err(Error::NotReady { why: "this leader has just begun".into() });
        }
        let min = self.lease_ttl_s_min();
        if ttl_s >= min {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        if let Some(call) = call {
            kv::command::encode_call(&mut bytes, call);
        }
        kv::command::encode_command(&mut bytes, Command::LeaseGrant { lease, ttl_s: min });
        Ok(Some(bytes))
    }

    /// Takes office, goes on taking over, and proposes what is due. Once a turn.
    pub(super) fn mind_leases(&mut self, now: Instant) {
        let in_office = self.takes_lease_office(now);
        self.take_back_dues(now);
        if in_office {
            self.take_over_leases();
            self.end_due_leases(now);
        }
    }

    /// Begins the leader's office if it has none in its term; whether it is in office.
    fn takes_lease_office(&mut self, now: Instant) -> bool {
        let Stage::Member(raft) = &self.stage else { return false };
        // Nor does it know of leases whose state is lost.
        if !self.sets_the_time() || self.lost_states.is_own() {
            self.end_lease_office();
            return false;
        }
        let (term, now_ms) = (raft.term(), self.stamp_ms(now));
        if self.leases.office.as_ref().is_none_or(|office| office.term != term) {
            self.end_lease_office();
            let checkpoint_ms = self.options.working.lease_checkpoint_ms;
            self.leases.office = Some(Office::new(term, now_ms, checkpoint_ms));
        }
        true
    }

    fn end_lease_office(&mut self) {
        if let Some(office) = self.leases.office.take()
            && office.len() > FREED_HERE_MAX
        {
            self.wal.drop_in_background(Box::new(office));
        }
    }

    fn take_over_leases(&mut self) {
        let grace_ms = self.lease_grace_ms();
        let Some(office) = &mut self.leases.office else { return };
        let Some(first) = office.arming else { return };
        let mut rows = self.store.leases(first);
        for row in rows.by_ref().take(ARMED_PER_TURN) {
            office.arming = row.id.checked_add(1);
            office.take_over(&row, grace_ms);
        }
        if rows.next().is_none() {
            office.arming = None;
        }
    }

    fn end_due_leases(&mut self, now: Instant) {
        let now_ms = self.stamp_ms(now);
        for _ in 0..PROPOSED_PER_TURN {
            if !self.leases.office.as_ref().is_some_and(|office| office.is_up(now_ms)) {
                return;
            }
            if !self.entry_takes(SAID_BYTES_MAX) {
                self.close_entry(now);
            }
            let has_room = self.entry_takes(SAID_BYTES_MAX);
            let Some(office) = &mut self.leases.office else { return };
            if !has_room {
                return office.retry_later(now_ms);
            }
            let Some(lease) = office.pop(now_ms) else { return };
            let Some(row) = self.store.lease(lease) else {
                office.forget(lease); // revoked
                continue;
            };
            let (term, grant) = (office.term, row.grant);
            let said = match office.judge(&row, now_ms) {
                Due::Nothing => continue,
                Due::Expiry => Command::LeaseExpire { term, lease, grant },
                Due::Checkpoint { due_ms } => {
                    Command::LeaseCheckpoint { term, lease, grant, due_ms }
                }
            };
            self.say_of_lease(said, lease, Waiter { connection: ConnectionId::NOBODY, request: 0 });
        }
    }

    /// Whether the turn's entry takes so many bytes more.
    fn entry_takes(&self, bytes: usize) -> bool {
        self.open.payload.len() + bytes <= self.limits.entry_bytes_soft_max.max(bytes)
            && self.has_room_for(bytes)
    }

    /// Puts what the leader says of a lease into the turn's entry.
    fn say_of_lease(&mut self, said: Command<'_>, lease: u64, waiter: Waiter) {
        let mut command = Vec::with_capacity(SAID_BYTES_MAX);
        kv::command::encode_command(&mut command, said);
        assert!(command.len() <= SAID_BYTES_MAX, "four numbers and two bytes");
        self.gather(Asker::NOBODY, &command, waiter, self.now);
        self.leases.office.as_mut().expect("who says it is in office").propose(lease);
    }

    /// Takes note of the leases granted and revoked by the entries just applied.
    pub(super) fn note_changed_leases(&mut self) {
        let grace_ms = self.lease_grace_ms();
        let changes = std::mem::take(&mut self.leases.changes);
        let Some(office) = &mut self.leases.office else { return self.leases.granted.clear() };
        for id in self.leases.granted.drain(..) {
            // It may have been revoked since.
            if let Some(row) = self.store.lease(id) {
                office.take_over(&row, grace_ms);
            }
        }
        office.look_for_gone(changes, |id| self.store.lease(id).is_some());
    }

    /// When leases must be looked at.
    pub(super) fn leases_wake_at(&self) -> Instant {
        self.leases.wake_ms().map_or(Instant::FAR, |at_ms| self.stamp.instant_of(at_ms))
    }

    /// A keep-alive waits for its round: the lease does not end meanwhile.
    pub(super) fn hold_lease(&mut self, lease: u64, now: Instant) {
        let until_ms = self.stamp_ms(now) + self.lease_grace_ms();
        if let Some(office) = &mut self.leases.office {
            office.hold(lease, until_ms);
        }
    }

    /// Answers what is asked about leases, now that a round has confirmed the leader. A reply lists
    /// as much as the turn may still look at; later, if that is nothing, or if the client does not
    /// read fast enough.
    pub(super) fn answer_lease(&mut self, waiter: Waiter, asker: Asker, asked: LeaseRequest) {
        let Waiter { connection: id, request } = waiter;
        let large = self.connections.has_room_for_large();
        let mut reply = Vec::new();
        let answered = match asked {
            LeaseRequest::KeepAlive { lease } => return self.keep_alive(id, request, lease),
            LeaseRequest::TimeToLive { lease, keys, from } if self.may_look(id, keys) => {
                self.write_times(&mut reply, (request, asker), (lease, keys, from), large)
            }
            LeaseRequest::List { after, .. } if self.may_look(id, true) => {
                self.write_list(&mut reply, request, after, large);
                Ok(())
            }
            LeaseRequest::TimeToLive { .. } | LeaseRequest::List { .. } => {
                return self.defer_lease(waiter, asker, asked);
            }
        };
        if let Err(error) = answered {
            error_reply(&mut reply, request, &error);
        }
        // As of any read: large ones, here those of a single name, wait for room.
        let sent = (large || reply.len() <= limits::RANGE_REPLY_BYTES_SMALL)
            && self.connections.answer_if_read(id, |out| {
                out.extend_from_slice(&reply);
                Written::Whole
            }) == Written::Whole;
        if !sent {
            self.defer_lease(waiter, asker, asked);
        }
    }

    /// Whether anything is looked at for a client now. Asked first: thousands may wait, and what is
    /// looked at for one that goes on waiting is looked at in vain.
    fn may_look(&self, id: ConnectionId, lists: bool) -> bool {
        let reads = self.connections.get(id).is_some_and(Connection::reads_fast_enough);
        reads && (!lists || self.ranges.may_begin())
    }

    fn defer_lease(&mut self, waiter: Waiter, asker: Asker, asked: LeaseRequest) {
        let mut args = Vec::new();
        asked.encode(&mut args);
        let Waiter { connection, request } = waiter;
        self.connections.defer(connection, Deferred { request, op: asked.op(), asker, args });
    }

    /// A lease as the leader in office sees it, and when it is due; `None`: there is none.
    fn lease_in_office(&mut self, lease: u64) -> Result<Option<(LeaseRow, u64)>, Error> {
        if !self.takes_lease_office(self.now) {
            return Err(self.not_leader(self.leader_or_successor()));
        }
        let grace_ms = self.lease_grace_ms();
        let Some(row) = self.store.lease(lease) else { return Ok(None) };
        let office = self.leases.office.as_mut().expect("it has just taken it");
        office.take_over(&row, grace_ms);
        Ok(Some((row, office.due_ms(lease))))
    }

    /// Lets a lease live for its whole time again. If that needs an entry, the next turn makes it:
    /// this one's is on its way already.
    fn keep_alive(&mut self, id: ConnectionId, request: u64, lease: u64) {
        let (revision, now_ms) = (self.store.revision(), self.stamp_ms(self.now));
        let waiter = Waiter { connection: id, request };
        match self.lease_in_office(lease) {
            Ok(None) => self.answer_keep_alive(waiter, Ok((revision, lease, 0))),
            Ok(Some((row, _))) => {
                let office = self.leases.office.as_mut().expect("the lease was found in office");
                office.keep_alive(&row, now_ms);
                if office.needs_entry(&row) {
                    self.leases.to_take_back.push((lease, waiter));
                } else {
                    self.answer_keep_alive(waiter, Ok((revision, lease, row.ttl_s)));
                }
            }
            Err(error) => self.answer_keep_alive(waiter, Err(error)),
        }
    }

    fn answer_keep_alive(&mut self, to: Waiter, answer: Result<(Revision, u64, u64), Error>) {
        self.connections.answer(to.connection, |out| match answer {
            Ok((revision, lease, ttl_s)) => {
                let term = LeaseTerm { revision, lease, ttl_s };
                lease_term_reply(out, to.request, Op::LeaseKeepAlive, &term);
            }
            Err(error) => error_reply(out, to.request, &error),
        });
    }

    /// Puts into the turn's entry that leases which were kept alive are not due when the log says:
    /// so many at most, for all leases that nobody has kept alive before may be kept in one turn.
    fn take_back_dues(&mut self, now: Instant) {
        let mut kept = std::mem::take(&mut self.leases.to_take_back);
        for (lease, waiter) in kept.drain(..kept.len().min(TAKEN_BACK_PER_TURN)) {
            let row = match self.lease_in_office(lease) {
                Ok(Some((row, _))) => row,
                Ok(None) => {
                    let gone = Ok((self.store.revision(), lease, 0));
                    self.answer_keep_alive(waiter, gone);
                    continue;
                }
                Err(error) => {
                    self.answer_keep_alive(waiter, Err(error));
                    continue;
                }
            };
            if !self.entry_takes(SAID_BYTES_MAX) {
                self.close_entry(now);
            }
            if !self.entry_takes(SAID_BYTES_MAX) {
                let busy = Error::Busy { what: "the log has no room now".into() };
                self.answer_keep_alive(waiter, Err(busy));
                continue;
            }
            let office = self.leases.office.as_ref().expect("the lease was found in office");
            let (term, grant) = (office.term, row.grant);
            let said = Command::LeaseCheckpoint { term, lease, grant, due_ms: 0 };
            self.say_of_lease(said, lease, waiter);
        }
        self.leases.to_take_back = kept;
    }

    fn write_times(
        &mut self,
        reply: &mut Vec<u8>,
        (request, asker): (u64, Asker),
        (lease, keys, from): (u64, bool, KeysFrom),
        large: bool,
    ) -> Result<(), Error> {
        let now_ms = self.stamp_ms(self.now);
        let found = self.lease_in_office(lease)?;
        let (ttl_s, left_ms) = match found {
            Some((row, due_ms)) => (row.ttl_s, due_ms.saturating_sub(now_ms)),
            None => (0, 0),
        };
        // A leader's store is the same one as long as its term: the places of keys hold so long.
        let list =
            self.leases.office.as_ref().expect("the lease was looked for in office").term.get();
        let (mut key_count, mut names, mut after) = (0, Vec::new(), 0);
        let mut left = self.left_to_list(large);
        if keys {
            key_count = as_u64(self.store.lease_key_count(lease));
            let behind = if from.list == list { from.after } else { 0 };
            after = list_names(self.store.lease_keys(lease, behind), &mut left, &mut names);
        }
        let judged = self.store.judge_lease_keys(asker, &names);
        let (revision, next) = (self.store.revision(), KeysFrom { list, after });
        let times = LeaseTimes { revision, lease, ttl_s, left_ms, key_count, next };
        if judged.is_ok() {
            lease_times_reply(reply, request, &times, &names);
        }
        if keys {
            self.ranges.spend_to(left.steps);
        }
        // Who may not hear of a key hears of none of this reply.
        judged.map_err(denied)
    }

    fn write_list(&mut self, reply: &mut Vec<u8>, request: u64, after: u64, large: bool) {
        let left = self.left_to_list(large);
        let most = left.steps.min(left.bytes / LISTED_BYTES);
        let revision = self.store.revision();
        let mut list = LeaseList { revision, more: false, leases: Vec::new() };
        if let Some(first) = after.checked_add(1) {
            let mut rows = self.store.leases(first).map(|row| row.id);
            list.leases.extend(rows.by_ref().take(most));
            list.more = rows.next().is_some();
        }
        lease_list_reply(reply, request, &list);
        self.ranges.spend_to(left.steps.saturating_sub(list.leases.len().max(1)));
    }

    /// What a list may cost the turn, and what it may have if only small ones can be sent.
    fn left_to_list(&self, large: bool) -> SliceLimits {
        let most =
            if large { limits::RANGE_REPLY_BYTES_MAX } else { limits::RANGE_REPLY_BYTES_SMALL };
        SliceLimits { steps: self.ranges.fresh_steps(), bytes: most - REPLY_HEAD_BYTES }
    }
}

/// Takes as many names as are allowed, but one at least. The place of the last one, if there are
/// more.
fn list_names<'s>(
    placed: impl Iterator<Item = (u64, &'s [u8])>,
    left: &mut SliceLimits,
    names: &mut Vec<&'s [u8]>,
) -> u64 {
    let mut last = 0;
    for (place, name) in placed {
        let bytes = name.len() + 5;
        if last != 0 && (left.steps == 0 || left.bytes < bytes) {
            return last;
        }
        left.steps = left.steps.saturating_sub(1 + name.len() / NAME_STEP_BYTES);
        left.bytes = left.bytes.saturating_sub(bytes);
        names.push(name);
        last = place;
    }
    // To look at none is to look as well.
    left.steps = left.steps.saturating_sub(usize::from(last == 0));
    0
}
