//! The door: frames to requests, and everything that is refused before it can have an effect.
//!
//! A refusal from here is certain: the command has not reached the log. Design §4, style rule 31.

use super::connections::{ConnectionId, Flow, Party, counts_as_client};
use super::drive::{minds_deadlines, room_after_overhead};
use super::pending::Waiter;
use super::reads::{Asked, By, Gathered};
use super::{Node, Stage, Taken};
use crate::kv::command::ASKER_BYTES_MAX;
use crate::kv::{self, Asker};
use crate::limits;
use crate::raft::{DISK_PATIENCE_ELECTION_TIMEOUTS, ProposeError};
use crate::types::{EntryKind, Instant, LogIndex, NodeId};
use crate::wal::Shortage;
use crate::wire::auth::AuthRequest;
use crate::wire::client::{
    Consistency, Op, RangeArgs, Request, decode_read_txn, decode_request, decode_status_args,
};
use crate::wire::error::Error;
use crate::wire::fields::DecodeError;
use crate::wire::frame::{FrameError, next_frame};
use crate::wire::leases::LeaseRequest;
use crate::wire::reply::error_reply;

/// The entry that gathers the commands of the turn under way.
#[derive(Debug, Default)]
pub(super) struct OpenEntry {
    pub(super) payload: Vec<u8>,
    pub(super) waiters: Vec<Waiter>,
    /// What leads the payload.
    header: Vec<u8>,
}

impl OpenEntry {
    /// Begins an empty one.
    fn begin(&mut self, stamp_ms: u64) {
        self.encode_header(stamp_ms);
        self.payload.extend_from_slice(&self.header);
    }

    /// Gives it the stamp of the moment when it is closed.
    fn stamp(&mut self, stamp_ms: u64) {
        let before = self.header.len();
        self.encode_header(stamp_ms);
        self.payload.splice(..before, self.header.iter().copied());
    }

    fn encode_header(&mut self, stamp_ms: u64) {
        self.header.clear();
        kv::command::encode_header(&mut self.header, kv::EntryHeader { stamp_ms });
    }
}

/// Clients wait, unread, because what they wrote last finds no room: the next segment is not ready,
/// or too much is not committed yet. Nobody waits for what does not come, of a disk that is full or
/// hangs, or of a quorum that does not answer: they are refused then.
#[derive(Debug)]
pub(super) struct Stall {
    /// The room waited for; 0 if nobody waits. Bytes.
    bytes: u64,
    /// How far the log was, and when it was last seen to move.
    moved: (LogIndex, u64),
    moved_at: Instant,
    /// Too much is not committed, and has not moved for long.
    stuck: bool,
    /// What is committed of what this leader has, if that is not all, and since when.
    awaited: Option<LogIndex>,
    awaited_since: Instant,
}

/// A large entry by a slow line, a follower that must hear much before it has the entry, a disk
/// that stalls once: all that takes less.
const COMMIT_PATIENCE_ELECTION_TIMEOUTS: u64 = 10;

/// Why writes are refused though the log here takes them.
const NOT_COMMITTED: &str =
    "entries not committed yet; if this lasts, a majority is slow or its disks are full or hang";

impl Stall {
    pub(super) fn new() -> Stall {
        let moved = (LogIndex::ZERO, 0);
        let (moved_at, awaited_since) = (Instant::ZERO, Instant::ZERO);
        Stall { bytes: 0, moved, moved_at, stuck: false, awaited: None, awaited_since }
    }

    pub(super) fn holds_clients(&self) -> bool {
        self.bytes > 0
    }
}

impl Node {
    /// Takes the whole frames at the front of `bytes`. Keep what is not taken and offer it again
    /// with more.
    pub fn on_bytes(&mut self, id: ConnectionId, bytes: &[u8], now: Instant) -> Taken {
        let mut taken = 0;
        loop {
            let party = match self.party_if_open(id) {
                Ok(party) => party,
                Err(flow) => return Taken { bytes: taken, flow },
            };
            match next_frame(&bytes[taken..], frame_bytes_max(party)) {
                Ok(Some(frame)) => {
                    self.on_frame(id, party, frame.body, now);
                    if party == Party::Client && self.holds_clients() {
                        // Not taken: offered again once the next segment is ready, or somebody
                        // leads.
                        return Taken { bytes: taken, flow: Flow::Paused };
                    }
                    taken += frame.consumed;
                }
                Ok(None) => return Taken { bytes: taken, flow: Flow::Open },
                Err(error) => {
                    self.on_bad_frame(id, party, &error);
                    return Taken { bytes: taken, flow: Flow::Ended };
                }
            }
        }
    }

    /// Who is at the other end, if more bytes of it are welcome; else why they are not.
    pub(super) fn party_if_open(&self, id: ConnectionId) -> Result<Party, Flow> {
        let connection = self.connections.get(id).ok_or(Flow::Ended)?;
        let party = connection.party;
        match connection.flow() {
            Flow::Open if counts_as_client(party) && self.holds_clients() => Err(Flow::Paused),
            Flow::Open => Ok(party),
            flow @ (Flow::Paused | Flow::Ended) => Err(flow),
        }
    }

    fn on_frame(&mut self, id: ConnectionId, party: Party, body: &[u8], now: Instant) {
        match party {
            Party::Client => self.on_request(id, body, now),
            Party::PeerIn(peer) => self.on_peer_request(id, peer, body, now),
            Party::PeerOut(peer) => self.on_peer_reply(id, peer, body, now),
            Party::SnapshotIn(peer) => self.on_piece(id, peer, body, now),
            Party::SnapshotOut(peer) => self.on_piece_reply(id, peer, body, now),
            Party::Stranger => self.on_hello(id, body, now),
            Party::Dialed(peer) => self.on_hello_reply(id, peer, body, now),
        }
    }

    fn on_bad_frame(&mut self, id: ConnectionId, party: Party, error: &FrameError) {
        log::debug!("closed a connection with a bad frame party={party:?} error={error}");
        if party == Party::Client {
            let why = error.to_string();
            self.connections
                .write(id, |out| error_reply(out, 0, &Error::BadRequest { why: why.into() }));
        }
        self.connections.end(id);
    }

    fn on_request(&mut self, id: ConnectionId, body: &[u8], now: Instant) {
        let request = match decode_request(body) {
            Ok(request) => request,
            Err(error) => {
                let (request, error) = (error.id.unwrap_or(0), error.to_error());
                return self.connections.write(id, |out| error_reply(out, request, &error));
            }
        };
        let number = request.id;
        let admitted = self.identify(id, request).and_then(|(asker, request)| {
            self.refuse_of_state(request.op)?;
            self.admit(id, asker, &request, now)
        });
        if let Err(error) = admitted
            && !self.holds_clients()
        {
            self.connections.write(id, |out| error_reply(out, number, &error));
        }
    }

    fn admit(
        &mut self,
        id: ConnectionId,
        asker: Asker,
        request: &Request<'_>,
        now: Instant,
    ) -> Result<(), Error> {
        match request.op {
            Op::Put
            | Op::DeleteRange
            | Op::Compact
            | Op::InSession
            | Op::OpenSession
            | Op::PutIf
            | Op::PutWith
            | Op::DeleteRangeWith
            | Op::Txn
            | Op::LeaseGrant
            | Op::LeaseRevoke
            | Op::Auth => self.admit_write(id, asker, request, now),
            Op::Range
            | Op::ReadTxn
            | Op::LeaseKeepAlive
            | Op::LeaseTimeToLive
            | Op::LeaseList
            | Op::Login
            | Op::AuthRead => self.admit_read(id, asker, request, now),
            Op::LoginProof => self.prove_login(id, request),
            Op::Watch => self.admit_watch(id, asker, request, now),
            Op::WatchCancel => self.cancel_watch(id, request),
            Op::WatchProgress => self.answer_watch_progress(id, request),
            // Whoever looks for the leader, or asks whether all is well, need not be known.
            Op::Status => {
                let bad = |error: DecodeError| Error::BadRequest { why: error.to_string().into() };
                decode_status_args(request.args).map_err(bad)?;
                self.answer_status(id, request.id)
            }
            Op::Snapshot => self.admit_save(id, asker, request, now),
            Op::MemberList => self.answer_member_list(id, asker, request.id, now),
            Op::MemberAdd
            | Op::MemberRemove
            | Op::MemberPromote
            | Op::MemberReplace
            | Op::TransferLeader => self.admit_member_request(id, asker, request, now),
            Op::As => unreachable!("whom it is for was found before"),
        }
    }

    fn admit_write(
        &mut self,
        id: ConnectionId,
        asker: Asker,
        request: &Request<'_>,
        now: Instant,
    ) -> Result<(), Error> {
        self.check_leader(now)?;
        let bytes = request.command.len();
        let max = self.limits.request_bytes_max;
        if bytes > max {
            return Err(Error::TooLarge { bytes: as_u64(bytes), max: as_u64(max) });
        }
        let (call, command) = kv::command::read_command(request.command, max)
            .map_err(|error| Error::BadRequest { why: error.to_string().into() })?;
        self.check_command(asker, &command, now)?;
        self.check_quota(request.command)?;
        let raised = self.admit_grant(call, command)?;
        let bytes = raised.as_ref().map_or(bytes, Vec::len);
        let bytes = if asker.login.is_some() { bytes + ASKER_BYTES_MAX } else { bytes };
        if self.open.payload.len() + bytes > self.limits.entry_bytes_soft_max {
            self.close_entry(now);
        }
        if !self.has_room_for(bytes) {
            return Err(self.stall(bytes, now));
        }
        if self.commits_hang(now) {
            return Err(Error::Busy { what: NOT_COMMITTED.into() });
        }
        let command = raised.as_deref().unwrap_or(request.command);
        self.gather(asker, command, Waiter { connection: id, request: request.id }, now);
        self.connections.wait(id);
        Ok(())
    }

    /// Whether there is room for the turn's entry with a command of so many bytes more.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        let bytes = as_u64(self.open.payload.len() + bytes);
        self.log_takes(bytes) && self.memory_takes(bytes)
    }

    fn log_takes(&self, bytes: u64) -> bool {
        bytes <= room_after_overhead(self.wal.room_bytes())
    }

    /// Entries that are not committed, or not durable here, are in memory. One always fits.
    fn memory_takes(&self, bytes: u64) -> bool {
        let Stage::Member(raft) = &self.stage else { return true };
        let kept = raft.commit_index().min(raft.durable()).max(raft.base().index);
        let held = raft.bytes_since(kept);
        let max = as_u64(self.options.working.uncommitted_bytes_max);
        held == 0 || held.saturating_add(bytes) <= max
    }

    /// A command of so many bytes finds no room. Holds the clients if that will pass; says why.
    fn stall(&mut self, bytes: usize, now: Instant) -> Error {
        let bytes = as_u64(self.open.payload.len() + bytes);
        let log_takes = self.log_takes(bytes);
        if log_takes && self.stall.stuck {
            return Error::Busy { what: NOT_COMMITTED.into() };
        }
        if log_takes || !self.is_short() {
            if self.stall.bytes == 0 {
                self.stall.moved_at = now;
            }
            self.stall.bytes = bytes;
        }
        self.no_room()
    }

    /// Why the log takes nothing.
    pub(super) fn no_room(&self) -> Error {
        match self.wal.shortage() {
            Some(Shortage::Descriptors) => Error::Busy {
                what: "this server has no descriptors left for its log, see ulimit -n".into(),
            },
            Some(Shortage::Space) => Error::NoSpace,
            None => Error::NotReady {
                why: "the next file of this server's log is not ready: its disk is slow or hangs"
                    .into(),
            },
        }
    }

    /// Whether the log's next file, if it needs one, will not be ready in moments: there is none of
    /// what it is made of, or the thread that makes it waits for a disk that hangs.
    pub(super) fn is_short(&self) -> bool {
        self.wal.shortage().is_some() || self.background_deadline() <= self.now
    }

    /// When the background job under way has taken so long that the disk hangs. Each is small: a
    /// disk that is merely slow ends one after the other.
    fn background_deadline(&self) -> Instant {
        let timeout_ns = self.options.election_timeout_ns;
        let patience_ns = timeout_ns.saturating_mul(DISK_PATIENCE_ELECTION_TIMEOUTS);
        self.jobs.background.map_or(Instant::FAR, |since| since.after_ns(patience_ns))
    }

    /// Whether nothing of what awaits it has been committed for so long that the disks of a
    /// majority are full, or hang, and yet it answers heartbeats. Whoever asks now would wait as
    /// long as they do, and not know in the end what became of it.
    fn commits_hang(&self, now: Instant) -> bool {
        let timeout_ns = self.options.election_timeout_ns;
        let patience_ns = timeout_ns.saturating_mul(COMMIT_PATIENCE_ELECTION_TIMEOUTS);
        self.stall.awaited.is_some() && self.stall.awaited_since.after_ns(patience_ns) <= now
    }

    fn note_commits(&mut self, now: Instant) {
        let awaited = match &self.stage {
            Stage::Member(raft) if raft.is_leader() => Some(raft.commit_index()),
            Stage::Member(_) | Stage::Alone(_) | Stage::Founding => None,
        };
        let last = self.wal.last().index;
        let awaited = awaited.filter(|committed| *committed < last);
        if std::mem::replace(&mut self.stall.awaited, awaited) != awaited {
            self.stall.awaited_since = now;
        }
    }

    /// Ends a stall when there is room, or when waiting for it has become pointless.
    pub(super) fn end_stall(&mut self, now: Instant) {
        self.note_commits(now);
        self.handover.holding &= self.is_between_leaders(now);
        if self.stall.bytes == 0 && !self.stall.stuck {
            return;
        }
        let Stage::Member(raft) = &self.stage else { return };
        let (leads, moved) = (raft.is_leader(), (raft.commit_index(), self.jobs.finished));
        if std::mem::replace(&mut self.stall.moved, moved) != moved {
            (self.stall.moved_at, self.stall.stuck) = (now, false);
        }
        let (log_takes, memory_takes) =
            (self.log_takes(self.stall.bytes), self.memory_takes(self.stall.bytes));
        self.stall.stuck |= !memory_takes && self.commits_awaited_until() <= now;
        let goes_on = if log_takes { !self.stall.stuck } else { !self.is_short() };
        self.stall.stuck &= leads;
        if !leads || !goes_on || (log_takes && memory_takes) {
            self.stall.bytes = 0;
        }
    }

    /// When those who wait for room are told that there is none.
    pub(super) fn stall_ends_at(&self) -> Instant {
        let Stall { bytes, .. } = self.stall;
        let file = if bytes == 0 || self.log_takes(bytes) {
            Instant::FAR
        } else {
            self.background_deadline()
        };
        file.min(self.commits_awaited_until())
    }

    /// When those who wait for commits are told that there are none. Before a leader that no quorum
    /// answers loses its office: its clients should hear of it.
    fn commits_awaited_until(&self) -> Instant {
        let Stall { bytes, stuck, .. } = self.stall;
        if bytes == 0 || stuck || self.memory_takes(bytes) {
            return Instant::FAR;
        }
        self.stall.moved_at.after_ns(self.options.election_timeout_ns / 2)
    }

    /// Adds a command to the turn's entry, behind who asks for it.
    pub(super) fn gather(&mut self, asker: Asker, command: &[u8], waiter: Waiter, now: Instant) {
        if self.open.payload.is_empty() {
            let stamp_ms = self.stamp_ms(now);
            self.open.begin(stamp_ms);
        }
        kv::command::encode_asker(&mut self.open.payload, asker);
        self.open.payload.extend_from_slice(command);
        self.open.waiters.push(waiter);
    }

    /// Only a leader does it. Between two leaders the request is held, unread, until there is one.
    pub(super) fn check_leader(&mut self, now: Instant) -> Result<(), Error> {
        if self.is_between_leaders(now) {
            self.handover.holding = true;
            return Err(Error::Busy { what: "the leadership is handed over".into() });
        }
        match &self.stage {
            Stage::Member(raft) if raft.is_leader() && self.leaving.is_some() => {
                Err(Error::NotReady { why: "this server is stopping".into() })
            }
            Stage::Member(raft) if raft.is_leader() => Ok(()),
            // To open its term a leader needs room for an entry: this server does not ask to lead,
            // and if the others are no better off, nobody does. That is what their clients hear.
            Stage::Member(raft)
                if raft.leader().is_none()
                    && self.is_short()
                    && !minds_deadlines(raft, &self.wal) =>
            {
                Err(self.no_room())
            }
            Stage::Member(_) => Err(self.not_leader(self.leader_or_successor())),
            Stage::Alone(_) | Stage::Founding => {
                let why = "this server waits for the other first members".into();
                Err(Error::NotReady { why })
            }
        }
    }

    /// A server that hears a leader learns from it up to where it must have applied. One that is to
    /// stop sends its clients away, and one that hands over holds them, as for a write.
    pub(super) fn check_leader_known(&mut self, now: Instant) -> Result<(), Error> {
        match &self.stage {
            Stage::Member(raft)
                if !raft.is_leader() && raft.leader().is_some() && self.leaving.is_none() =>
            {
                Ok(())
            }
            Stage::Member(_) | Stage::Alone(_) | Stage::Founding => self.check_leader(now),
        }
    }

    /// "Ask that one", with its address if we know one.
    pub(super) fn not_leader(&self, leader: Option<NodeId>) -> Error {
        let address = |id| self.peers.get(id).map(|peer| (id, peer.address.clone()));
        Error::NotLeader { leader: leader.and_then(address) }
    }

    /// Why a read was not confirmed.
    pub(super) fn unconfirmed(&self) -> Error {
        match &self.stage {
            Stage::Member(raft) if raft.is_leader() => {
                let why = "nothing of this leader's term is committed yet".into();
                Error::NotReady { why }
            }
            Stage::Member(_) | Stage::Alone(_) | Stage::Founding => {
                self.not_leader(self.leader_or_successor())
            }
        }
    }

    fn admit_read(
        &mut self,
        id: ConnectionId,
        asker: Asker,
        request: &Request<'_>,
        now: Instant,
    ) -> Result<(), Error> {
        let (consistency, asked) = decode_read(request)?;
        self.check_read(asker, &asked, now)?;
        // Two keys of any size that a put may have.
        let (bytes, max) = (request.args.len(), 2 * self.limits.request_bytes_max + 64);
        if bytes > max {
            return Err(Error::TooLarge { bytes: as_u64(bytes), max: as_u64(max) });
        }
        let waiting = self.reads.bytes() + self.connections.deferred_bytes();
        let waiting = waiting + self.ranges.args_bytes() + bytes;
        if waiting > limits::WAITING_READ_BYTES_MAX {
            return Err(Error::Busy { what: "too many reads wait".into() });
        }
        let by = match consistency {
            Consistency::Serializable => {
                self.connections.wait(id);
                self.answer_read(id, request.id, asker, asked);
                return Ok(());
            }
            Consistency::Linearizable => By::Round,
            Consistency::Lease => By::Lease,
        };
        self.check_who_answers(&asked, now)?;
        self.connections.wait(id);
        let waiter = Waiter { connection: id, request: request.id };
        self.reads.gather(by, &Gathered { waiter, asker, asked: &asked });
        Ok(())
    }

    /// Only the leader knows when a lease is due.
    fn check_who_answers(&mut self, asked: &Asked<'_>, now: Instant) -> Result<(), Error> {
        match asked {
            Asked::Lease(LeaseRequest::KeepAlive { lease }) => {
                self.check_leader(now)?;
                self.hold_lease(*lease, now);
                Ok(())
            }
            Asked::Lease(LeaseRequest::TimeToLive { .. }) => self.check_leader(now),
            Asked::Lease(LeaseRequest::List { .. })
            | Asked::Range(_)
            | Asked::Txn(_)
            | Asked::Auth(_) => self.check_leader_known(now),
        }
    }

    /// Proposes the turn's commands as one entry. Refusals are certain: the entry is in no log yet.
    pub(super) fn close_entry(&mut self, now: Instant) {
        if self.open.waiters.is_empty() {
            return;
        }
        self.carry_out_log();
        // Not the moment when its first command came: what it grants later ones would be due early.
        let stamp_ms = self.stamp_ms(now);
        self.open.stamp(stamp_ms);
        let bytes = u32::try_from(self.open.payload.len()).expect("the soft bound is below 4 GiB");
        let proposed = match &mut self.stage {
            Stage::Member(raft) => raft.propose(now, EntryKind::Commands, bytes),
            Stage::Alone(_) | Stage::Founding => Err(ProposeError::NotLeader { leader: None }),
        };
        match proposed {
            Ok(position) => {
                self.wal.append(position, EntryKind::Commands, &self.open.payload);
                self.pending.push(position, &mut self.open.waiters);
                self.leases.on_entry_proposed();
            }
            Err(ProposeError::NotLeader { leader }) => {
                self.refuse_entry(&self.not_leader(leader), now);
            }
            Err(ProposeError::Busy) => {
                self.refuse_entry(&Error::Busy { what: NOT_COMMITTED.into() }, now);
            }
            Err(ProposeError::Transferring) => {
                let what = "the leadership is handed over".into();
                self.refuse_entry(&Error::Busy { what }, now);
            }
        }
        self.open.payload.clear();
    }

    fn refuse_entry(&mut self, error: &Error, now: Instant) {
        // If the entry held a compaction, or ended a lease, nobody else would miss it.
        self.compaction.refused(now);
        self.leases.on_entry_refused(self.stamp_ms(now));
        for waiter in self.open.waiters.drain(..) {
            self.connections.answer(waiter.connection, |out| {
                error_reply(out, waiter.request, error);
            });
        }
    }
}

/// What a read asks, and how fresh.
fn decode_read<'a>(request: &Request<'a>) -> Result<(Consistency, Asked<'a>), Error> {
    let bad = |why: String| Error::BadRequest { why: why.into() };
    if request.op == Op::ReadTxn {
        let read = decode_read_txn(request.args).map_err(|why| bad(why.to_string()))?;
        return Ok((read.0, Asked::Txn(read.1)));
    }
    let lease = LeaseRequest::decode(request.op, request.args);
    if let Some(asked) = lease.map_err(|why| bad(why.to_string()))? {
        let consistency = match asked {
            LeaseRequest::KeepAlive { .. } | LeaseRequest::TimeToLive { .. } => {
                Consistency::Linearizable
            }
            LeaseRequest::List { consistency, .. } => consistency,
        };
        return Ok((consistency, Asked::Lease(asked)));
    }
    if matches!(request.op, Op::Login | Op::AuthRead) {
        let asked = AuthRequest::decode(request.op, request.args);
        let asked = asked.map_err(|why| bad(why.to_string()))?.expect("it is one of these");
        return Ok((Consistency::Linearizable, Asked::Auth(asked)));
    }
    let args = RangeArgs::decode(request.args).map_err(|why| bad(why.to_string()))?;
    Ok((args.consistency, Asked::Range(args)))
}

fn frame_bytes_max(party: Party) -> usize {
    match party {
        Party::Stranger | Party::Dialed(_) => limits::HELLO_BYTES_MAX,
        Party::Client => limits::CLIENT_FRAME_BYTES_MAX,
        Party::PeerIn(_) | Party::PeerOut(_) | Party::SnapshotIn(_) | Party::SnapshotOut(_) => {
            limits::FRAME_BYTES_MAX
        }
    }
}

pub(super) fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("usize fits u64 wherever raftd runs")
}
