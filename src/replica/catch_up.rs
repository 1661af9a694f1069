//! A snapshot of ours on its way out, to followers that need what the log no longer holds.
//!
//! Each transfer has a connection of its own, so that it never delays an `Append`. It begins with
//! a question (a piece without bytes); the answer says from where on. One piece is out at a time,
//! and its answer names what is durable over there, so a broken connection costs one piece at most:
//! after it the same snapshot goes on from there. A transfer keeps its snapshot though a newer one
//! comes into force, or one that is slower than the snapshots follow each other would never end;
//! but not for a follower that stays away, for whom a file without a name would fill the disk.

use super::connections::{ConnectionId, Connections, Party};
use super::peers::HANDSHAKE_NS;
use super::reload::LostStates;
use super::snapshots::Worth;
use super::{Node, Stage};
use crate::limits;
use crate::raft::Raft;
use crate::raft::message::{Message, SnapshotOutcome};
use crate::types::{Instant, LogIndex, NodeId, Term};
use crate::wal::{Piece, PieceFor, SnapshotCheck, SnapshotSource};
use crate::wire::peer::{PeerFrame, Room, decode_peer, encode_message, encode_piece};

/// Before the next attempt after a failed one, and after a refusal. Nanoseconds.
const RETRY_NS: u64 = 50_000_000;
const REFUSED_NS: u64 = 500_000_000;
/// A piece that cannot be read so many times in a row is damaged: what reads a disk again may find
/// what it missed, but not for ever.
const READS_MAX: u32 = 3;
/// Without a connection, or an answer to a piece, so many election timeouts: 5 s by default, what
/// it takes a slow disk to sync a piece, many times over. The same snapshot goes on from where it
/// was, and a quorum may wait for it.
const PATIENCE_ELECTION_TIMEOUTS: u64 = 16;
/// In that time a question is asked so often, as it may have come at a bad moment: to a follower
/// in another term, or one that had not yet opened what it has.
const QUESTIONS: u64 = 8;
/// How long a snapshot that another has replaced is kept for a follower that is away: 19 s by
/// default, in which a server starts again.
const AWAY_ELECTION_TIMEOUTS: u64 = 64;

/// The connection of a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    Waiting { until: Instant },
    Dialing { until: Instant },
    Shaking { connection: ConnectionId, until: Instant },
    Up { connection: ConnectionId, heard_at: Instant, asked_at: Instant },
}

/// A snapshot on its way to a follower.
#[derive(Debug)]
pub(super) struct Transfer {
    to: NodeId,
    source: SnapshotSource,
    patience_ns: u64,
    link: Link,
    /// Since when it has had no connection.
    away_since: Option<Instant>,
    /// Which start of the follower is at the other end of `link`.
    answers_as: u64,
    /// What the follower said is durable there, on this connection.
    acknowledged: Option<u64>,
    /// The end of the last piece read or sent.
    sent: u64,
    /// What was sent, if that was all from the beginning.
    check: SnapshotCheck,
    /// A piece is being read.
    reading: bool,
    /// How often in a row one could not be.
    failed_reads: u32,
    /// Not before, by the rate.
    next_at: Instant,
    /// Bytes sent over all connections.
    total: u64,
    /// The follower has it.
    installed: bool,
}

impl Transfer {
    fn new(to: NodeId, source: SnapshotSource, patience_ns: u64, now: Instant) -> Transfer {
        Transfer {
            to,
            check: SnapshotCheck::begin(source.id),
            source,
            patience_ns,
            link: Link::Waiting { until: now },
            away_since: Some(now),
            answers_as: 0,
            acknowledged: None,
            sent: 0,
            reading: false,
            failed_reads: 0,
            next_at: now,
            total: 0,
            installed: false,
        }
    }

    fn connection(&self) -> Option<ConnectionId> {
        match self.link {
            Link::Shaking { connection, .. } | Link::Up { connection, .. } => Some(connection),
            Link::Waiting { .. } | Link::Dialing { .. } => None,
        }
    }

    fn lost(&mut self, now: Instant, wait_ns: u64) {
        self.link = Link::Waiting { until: now.after_ns(wait_ns) };
        self.away_since.get_or_insert(now);
        self.acknowledged = None;
    }

    /// Whether it has had no connection for so long.
    fn is_away(&self, now: Instant, for_ns: u64) -> bool {
        self.away_since.is_some_and(|since| since.after_ns(for_ns) <= now)
    }

    /// Begins anew with another snapshot. A piece of the one before that is still being read is of
    /// no use then.
    fn go_over_to(&mut self, source: &SnapshotSource) {
        if *source != self.source {
            self.source = source.clone();
            self.check = SnapshotCheck::begin(source.id);
            (self.reading, self.failed_reads) = (false, 0);
        }
    }

    /// What looks at the next piece, and has looked at all before it. A transfer that goes on from
    /// the middle tells nothing; one that was refused begins anew.
    fn check_of_next(&self) -> Option<SnapshotCheck> {
        if self.sent == 0 {
            Some(SnapshotCheck::begin(self.source.id))
        } else {
            (self.check.read() == self.sent).then(|| self.check.clone())
        }
    }

    /// Whether with this piece all of the file was read, and it is not what its name says.
    fn finds_damage(&mut self, check: Option<SnapshotCheck>) -> bool {
        let Some(check) = check else { return false };
        self.check = check;
        self.check.found_damage()
    }

    /// How long the next piece is, if one may be read now. Bytes.
    fn next_piece(&self, now: Instant, piece_bytes: usize) -> Option<usize> {
        let acknowledged = self.acknowledged?;
        let piece = u64::try_from(piece_bytes).unwrap_or(u64::MAX);
        let window = piece.saturating_mul(limits::SNAPSHOT_PIECES_IN_FLIGHT_MAX);
        let room = self.sent.saturating_sub(acknowledged) < window;
        let left = self.source.id.bytes.saturating_sub(self.sent);
        let may = matches!(self.link, Link::Up { .. }) && !self.reading && self.next_at <= now;
        let length = usize::try_from(left.min(piece)).unwrap_or(piece_bytes);
        (may && room && length > 0).then_some(length)
    }

    /// When to give up on this connection. A follower that loads the whole file says so meanwhile;
    /// one of before that did says nothing, and does not mind being asked again.
    fn deadline(&self) -> Instant {
        match self.link {
            Link::Waiting { .. } => Instant::FAR,
            Link::Dialing { until } | Link::Shaking { until, .. } => until,
            Link::Up { heard_at, .. } => heard_at.max(self.next_at).after_ns(self.patience_ns),
        }
    }

    /// When to ask again from where on it wants the file.
    fn asks_at(&self) -> Instant {
        match self.link {
            Link::Up { asked_at, .. } if self.acknowledged.is_none() => {
                asked_at.after_ns(self.patience_ns / QUESTIONS)
            }
            Link::Waiting { .. }
            | Link::Dialing { .. }
            | Link::Shaking { .. }
            | Link::Up { .. } => Instant::FAR,
        }
    }

    /// Asks from where on the follower wants the file, as who leads in `term`.
    fn ask(&mut self, connections: &mut Connections, term: Term, now: Instant) {
        let Link::Up { connection, asked_at, .. } = &mut self.link else { return };
        *asked_at = now;
        let snapshot = self.source.id;
        let question = Message::InstallSnapshot { term, snapshot, offset: 0, bytes: 0 };
        connections.write(*connection, |out| encode_message(out, &question));
    }

    /// When something is to be done; what is over is not, and waits for something else.
    fn due(&self) -> [Instant; 3] {
        let next = match self.link {
            // Without a session to the follower, its return wakes us.
            Link::Waiting { until } => until,
            Link::Up { .. } if !self.reading && self.sent < self.source.id.bytes => self.next_at,
            Link::Dialing { .. } | Link::Shaking { .. } | Link::Up { .. } => Instant::FAR,
        };
        [next, self.deadline(), self.asks_at()]
    }
}

/// All transfers.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    list: Vec<Transfer>,
}

impl Transfers {
    fn get_mut(&mut self, to: NodeId) -> Option<&mut Transfer> {
        self.list.iter_mut().find(|transfer| transfer.to == to)
    }

    fn by_connection(&mut self, id: ConnectionId) -> Option<&mut Transfer> {
        self.list.iter_mut().find(|transfer| transfer.connection() == Some(id))
    }

    /// Whoever has been away for so long gets the newest one when it is back.
    fn leave_replaced(&mut self, newest: Option<&SnapshotSource>, away_ns: u64, now: Instant) {
        let Some(newest) = newest else { return };
        for transfer in self.list.iter_mut().filter(|it| it.is_away(now, away_ns)) {
            transfer.go_over_to(newest);
        }
    }

    /// When something is to be done though nothing happens; `now` is the last turn.
    pub(super) fn wake_at(&self, now: Instant) -> Instant {
        let due = self.list.iter().flat_map(Transfer::due).filter(|at| *at > now);
        due.min().unwrap_or(Instant::FAR)
    }

    /// Whether `id` is the connection of a transfer that shakes hands.
    pub(super) fn is_shaking(&self, id: ConnectionId) -> bool {
        let shakes = |link| matches!(link, Link::Shaking { connection, .. } if connection == id);
        self.list.iter().any(|transfer| shakes(transfer.link))
    }

    /// Bytes of its snapshot that `to` has, and its size.
    pub(super) fn progress(&self, to: NodeId) -> (u64, u64) {
        let found = self.list.iter().find(|transfer| transfer.to == to);
        found.map_or((0, 0), |it| (it.acknowledged.unwrap_or(0), it.source.id.bytes))
    }
}

/// Whether a leader's snapshot is to go to this follower: it needs entries that the log no longer
/// holds, or it has lost its state.
fn needs_snapshot(raft: &Raft, lost: &LostStates, to: NodeId) -> bool {
    raft.needs_snapshot(to) || (raft.is_leader() && lost.is_wanted_by(to))
}

impl Node {
    /// The snapshots that are being sent: the log that goes on from them is still needed.
    pub(super) fn all_sent(&self) -> impl Iterator<Item = LogIndex> {
        self.transfers.list.iter().map(|transfer| transfer.source.id.position.index)
    }

    /// Begins and ends transfers as the core asks, and sends what may be sent.
    pub(super) fn catch_up(&mut self, now: Instant) {
        // On a full disk nothing is kept for who is not there.
        let kept = if self.wal.out_of_space() { 0 } else { AWAY_ELECTION_TIMEOUTS };
        let away_ns = self.options.election_timeout_ns * kept;
        self.transfers.leave_replaced(self.wal.snapshot(), away_ns, now);
        let Stage::Member(raft) = &self.stage else { return };
        let transfers = &mut self.transfers.list;
        let lost = &mut self.lost_states;
        let wanted = lost.wanting().next().is_some() && raft.is_leader();
        if transfers.is_empty() && !wanted && raft.awaiting_snapshot().next().is_none() {
            return;
        }
        let node = self.identity.node;
        let patience_ns = self.options.election_timeout_ns * PATIENCE_ELECTION_TIMEOUTS;
        let useless = self.snapshots.worth != Worth::Sound;
        let needs = |lost: &LostStates, to| needs_snapshot(raft, lost, to);
        let ended = |it: &Transfer| it.installed || useless || !needs(lost, it.to);
        for transfer in transfers.extract_if(.., |it| ended(it)).collect::<Vec<_>>() {
            let Transfer { to, source, total, installed, .. } = &transfer;
            if *installed {
                lost.has_one(*to);
            }
            log::info!("ended a transfer node={node} to={to} id={} sent={total}", source.id);
            transfer.connection().into_iter().for_each(|id| self.connections.end(id));
        }
        let wanting = lost.wanting().filter(|_| raft.is_leader());
        let awaiting = raft.awaiting_snapshot().map(|to| (to, LogIndex::ZERO));
        for (to, at_least) in awaiting.chain(wanting) {
            if !transfers.iter().any(|transfer| transfer.to == to)
                && let Some(source) = self.wal.snapshot()
                && source.id.position.index >= at_least
                && !useless
            {
                log::info!("sends a snapshot node={node} to={to} id={}", source.id);
                transfers.push(Transfer::new(to, source.clone(), patience_ns, now));
            }
        }
        for transfer in transfers {
            if transfer.deadline() <= now {
                log::info!("gave up a connection for a snapshot node={node} to={}", transfer.to);
                transfer.connection().into_iter().for_each(|id| self.connections.end(id));
                transfer.lost(now, RETRY_NS);
            }
            if let Link::Waiting { until } = transfer.link
                && until <= now
                && needs(lost, transfer.to)
                && self.peers.outbound(transfer.to).is_some()
                && let Some(peer) = self.peers.get(transfer.to)
            {
                // If the log behind it is gone, it would be followed by another one at once.
                if transfer.source.id.position.index < raft.base().index
                    && let Some(newest) = self.wal.snapshot()
                {
                    transfer.go_over_to(newest);
                }
                transfer.link = Link::Dialing { until: now.after_ns(patience_ns) };
                self.dials.push(peer.dial());
            }
            if transfer.asks_at() <= now {
                transfer.ask(&mut self.connections, raft.term(), now);
            }
            if let Some(length) = transfer.next_piece(now, self.options.snapshots.piece_bytes) {
                transfer.reading = true;
                let to = PieceFor::Member(transfer.to);
                let (piece, check) = ((transfer.sent, length), transfer.check_of_next());
                self.wal.read_piece(to, &transfer.source, piece, check);
            }
        }
    }

    /// A dial has succeeded that was not for replication.
    pub(super) fn on_transfer_dialed(&mut self, id: ConnectionId, peer: NodeId, now: Instant) {
        self.connections.open(id, Party::Dialed(peer));
        match self.transfers.get_mut(peer) {
            Some(transfer) if matches!(transfer.link, Link::Dialing { .. }) => {
                let until = now.after_ns(HANDSHAKE_NS);
                transfer.link = Link::Shaking { connection: id, until };
                self.send_hello(id, peer);
            }
            Some(_) | None => self.connections.end(id),
        }
    }

    /// A dial has failed that was not for replication.
    pub(super) fn on_transfer_dial_failed(&mut self, peer: NodeId, now: Instant) {
        if let Some(transfer) = self.transfers.get_mut(peer)
            && matches!(transfer.link, Link::Dialing { .. })
        {
            transfer.lost(now, RETRY_NS);
        }
    }

    /// The connection of a transfer is gone.
    pub(super) fn on_transfer_closed(&mut self, id: ConnectionId, now: Instant) {
        if let Some(transfer) = self.transfers.by_connection(id) {
            transfer.lost(now, RETRY_NS);
        }
    }

    /// A newer start of `peer` has spoken: whoever we wait for at the other end of a transfer has
    /// ended, and perhaps nothing will ever tell the connection so.
    pub(super) fn leave_older_receiver(&mut self, peer: NodeId, nonce: u64, now: Instant) {
        if let Some(transfer) = self.transfers.get_mut(peer)
            && let Link::Up { connection, .. } = transfer.link
            && transfer.answers_as < nonce
        {
            self.connections.end(connection);
            transfer.lost(now, 0);
        }
    }

    /// The follower has welcomed us: ask from where on it wants the file.
    pub(super) fn on_transfer_up(
        &mut self,
        id: ConnectionId,
        peer: NodeId,
        nonce: u64,
        now: Instant,
    ) {
        self.connections.set_party(id, Party::SnapshotOut(peer));
        let (Stage::Member(raft), Some(transfer)) = (&self.stage, self.transfers.by_connection(id))
        else {
            return self.connections.end(id);
        };
        // Who does not lead any more may be in a term that is not durable yet, and has nothing to
        // say in it.
        if !needs_snapshot(raft, &self.lost_states, peer) {
            return self.connections.end(id);
        }
        transfer.link = Link::Up { connection: id, heard_at: now, asked_at: now };
        transfer.away_since = None;
        transfer.answers_as = nonce;
        transfer.ask(&mut self.connections, raft.term(), now);
    }

    /// An answer of the follower.
    pub(super) fn on_piece_reply(
        &mut self,
        id: ConnectionId,
        from: NodeId,
        body: &[u8],
        now: Instant,
    ) {
        let Ok(PeerFrame { message, .. }) = decode_peer(body, Room::default()) else {
            return self.connections.end(id);
        };
        let Message::InstallSnapshotReply { snapshot, outcome, .. } = message else {
            return self.connections.end(id);
        };
        let Stage::Member(raft) = &mut self.stage else { return };
        raft.step(now, from, &message, 0);
        self.carry_out_log();
        let Some(transfer) = self.transfers.by_connection(id) else { return };
        if transfer.source.id != snapshot {
            return;
        }
        if let Link::Up { heard_at, .. } = &mut transfer.link {
            *heard_at = now;
        }
        match outcome {
            SnapshotOutcome::Wanted { offset } => {
                // The first answer of a connection, or a piece that was damaged on its disk.
                if transfer.acknowledged.is_none_or(|before| offset < before) {
                    transfer.sent = offset;
                }
                transfer.acknowledged = Some(offset);
                transfer.next_at = transfer.next_at.max(now);
            }
            // The core heard it too. If the log has moved on beyond it meanwhile, another transfer
            // begins.
            SnapshotOutcome::Installed => transfer.installed = true,
            SnapshotOutcome::Refused => {
                // What it does not want now may be another one after a while.
                if let Some(newest) = self.wal.snapshot() {
                    transfer.go_over_to(newest);
                }
                transfer.lost(now, REFUSED_NS);
                self.connections.end(id);
            }
        }
    }

    /// A piece was read.
    pub(super) fn on_piece_read(&mut self, to: NodeId, piece: Piece, now: Instant) {
        let Piece { id, offset, bytes, check } = piece;
        let Stage::Member(raft) = &self.stage else { return };
        let rate = self.options.snapshots.rate;
        let leads = needs_snapshot(raft, &self.lost_states, to);
        // Of the snapshot that was sent before this one, it has the same offsets.
        let transfer = self.transfers.get_mut(to).filter(|transfer| transfer.source.id == id);
        let Some(transfer) = transfer else { return };
        transfer.reading = false;
        let Link::Up { connection, .. } = transfer.link else { return };
        // Of a connection before this one, or of the time before we lost the leadership.
        if !leads || transfer.sent != offset || transfer.acknowledged.is_none() {
            return;
        }
        if bytes.is_empty() {
            log::error!("cannot read a snapshot to={to} id={} at={offset}", transfer.source.id);
            transfer.lost(now, REFUSED_NS);
            transfer.failed_reads += 1;
            if transfer.failed_reads == READS_MAX {
                self.leave_damaged_source(to);
            }
            return self.connections.end(connection);
        }
        transfer.failed_reads = 0;
        if transfer.finds_damage(check) {
            self.leave_damaged_source(to);
            return self.connections.end(connection);
        }
        let length = u64::try_from(bytes.len()).expect("usize is at most 64 bits");
        transfer.sent += length;
        transfer.total += length;
        if let Some(rate) = rate {
            let ns = length.saturating_mul(1_000_000_000) / rate.max(1);
            transfer.next_at = transfer.next_at.max(now).after_ns(ns);
        }
        let (term, snapshot) = (raft.term(), transfer.source.id);
        self.connections.write(connection, |out| encode_piece(out, term, snapshot, offset, &bytes));
    }

    /// What is sent to `to` is no good: it gets a newer one, or the same made again.
    fn leave_damaged_source(&mut self, to: NodeId) {
        let Some(transfer) = self.transfers.get_mut(to) else { return };
        log::error!("a snapshot is damaged: check the disk id={}", transfer.source.id);
        transfer.failed_reads = 0;
        match self.wal.snapshot() {
            Some(newest) if *newest != transfer.source => transfer.go_over_to(newest),
            // Ends all transfers, until it is made again.
            Some(_) | None => self.snapshots.worth = Worth::Rotted,
        }
    }
}
