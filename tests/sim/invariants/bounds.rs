//! ResourceBounds: what `raftd::limits` promises, counted from what is on the wire and in the log.
//! The runs are given small bounds, so that they are reached.

use super::{Proof, Seen, must};
use crate::options::Options;
use raftd::limits::{self, EntryLimits, WorkingLimits};
use raftd::raft::Raft;
use raftd::raft::message::{EntryMeta, Message};
use raftd::replica::Inspection;
use raftd::types::{EntryKind, LogIndex, LogPosition, Term};
use raftd::wal::Wal;
use std::collections::{BTreeMap, VecDeque};

/// What an entry's payload holds beside its requests, which nobody counts. Bytes.
const HEADER_BYTES: u64 = 64;

/// The bounds, and what counts against them.
#[derive(Debug)]
pub(super) struct Bounds {
    working: WorkingLimits,
    segment_bytes: u64,
    makes_snapshots: bool,
    /// By leader and follower.
    windows: BTreeMap<(usize, usize), Window>,
    /// By who speaks and to whom, in the turn that is not over.
    said: BTreeMap<(usize, usize), Said>,
}

/// Entries on their way to a follower over one connection.
#[derive(Debug)]
struct Window {
    term: Term,
    session: u64,
    /// The last entry sent.
    sent: LogIndex,
    /// The last entry and the bytes of each message that is not answered.
    waiting: VecDeque<(LogIndex, u64)>,
}

/// Messages of a turn to one other server that are no answers.
#[derive(Default, Debug)]
struct Said {
    appends: usize,
    heartbeats: usize,
    campaigns: usize,
    rounds: usize,
    pieces: usize,
}

impl Bounds {
    pub(super) fn new(options: &Options) -> Bounds {
        Bounds {
            working: options.working,
            segment_bytes: options.segment_bytes,
            makes_snapshots: options.snapshots.entries < u64::MAX,
            windows: BTreeMap::new(),
            said: BTreeMap::new(),
        }
    }

    fn messages_max(&self) -> usize {
        self.working.in_flight_messages_max.max(1)
    }
}

impl Proof {
    /// A turn of `machine` begins to speak.
    pub(super) fn forget_said(&mut self, machine: usize) {
        self.bounds.said.retain(|(from, _), _| *from != machine);
    }

    /// No turn says more than what changed asks for: a storm feeds itself.
    pub(super) fn count_said(&mut self, from: usize, to: usize, message: &Message) {
        let appends_max = self.bounds.messages_max();
        if let Message::InstallSnapshot { .. } = message {
            // What was refused before it is under way no more.
            self.bounds.windows.remove(&(from, to));
        }
        let said = self.bounds.said.entry((from, to)).or_default();
        let (count, most) = match message {
            Message::Append { .. } => (&mut said.appends, appends_max),
            // A change of members that goes on within a turn settles it anew, and with other
            // voters the round that is out may be confirmed and the next one begin (seed 7906).
            Message::Heartbeat { .. } => (&mut said.heartbeats, 2),
            Message::Vote { .. } | Message::PreVote { .. } | Message::TimeoutNow { .. } => {
                (&mut said.campaigns, 2)
            }
            Message::ReadIndex { .. } => (&mut said.rounds, 2),
            Message::InstallSnapshot { .. } => (&mut said.pieces, 2),
            Message::PreVoteReply { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply { .. }
            | Message::ReadIndexReply { .. }
            | Message::InstallSnapshotReply { .. } => return,
        };
        *count += 1;
        must!(
            *count <= most,
            "ResourceBounds",
            "n{} says {count} such in a turn to n{}: {message:?}",
            from + 1,
            to + 1
        );
    }

    /// A message with entries leaves: it is no larger than may be, and not one too many.
    pub(super) fn count_in_flight(
        &mut self,
        (from, to): (usize, usize),
        (term, session): (Term, u64),
        prev: LogPosition,
        entries: &[EntryMeta],
    ) {
        let bytes = entries.iter().map(|entry| u64::from(entry.bytes)).sum::<u64>();
        let working = &self.bounds.working;
        let fits =
            entries.len() <= working.append_entries_max && bytes <= wide(working.append_bytes_max);
        must!(
            fits || entries.len() <= 1,
            "ResourceBounds",
            "n{} sends {} entries of {bytes} bytes at once",
            from + 1,
            entries.len()
        );
        let (messages_max, bytes_max) =
            (self.bounds.messages_max(), wide(working.in_flight_bytes_max));
        let matched = self.seen[from].matches.iter().find(|(other, _)| *other == to);
        let matched = matched.map_or(LogIndex::ZERO, |(_, index)| *index);
        let window = self.bounds.windows.entry((from, to)).or_insert_with(|| Window {
            term,
            session,
            sent: prev.index,
            waiting: VecDeque::new(),
        });
        // Another connection, or a probe: what was under way before is given up.
        if (window.term, window.session, window.sent) != (term, session, prev.index) {
            (window.term, window.session) = (term, session);
            window.waiting.clear();
        }
        window.waiting.retain(|(last, _)| *last > matched);
        let (under_way, others) =
            (window.waiting.len(), window.waiting.iter().map(|(_, bytes)| bytes).sum::<u64>());
        must!(
            under_way == 0 || (under_way < messages_max && others < bytes_max),
            "ResourceBounds",
            "n{} sends n{} one more than {under_way} messages of {others} bytes, of at most \
             {messages_max} and {bytes_max}",
            from + 1,
            to + 1
        );
        let count = u64::try_from(entries.len()).expect("few");
        window.sent = prev.index.advanced_by(count);
        if count > 0 {
            window.waiting.push_back((window.sent, bytes));
        }
    }

    /// A leader's log has grown up to `last` from `before`: what is not committed, or not durable
    /// here, is in memory. One entry of any size always goes.
    pub(super) fn check_uncommitted(
        &self,
        machine: usize,
        before: LogIndex,
        node: &Inspection<'_>,
        raft: &Raft,
    ) {
        let last = node.wal.last().index;
        let payload = |index: LogIndex| match node.wal.meta(index) {
            Some(meta) if meta.kind == EntryKind::Commands => Some(u64::from(meta.bytes)),
            Some(_) | None => None,
        };
        let newest = newest_commands(node.wal, before, last);
        if !raft.is_leader() || newest.is_none() {
            return;
        }
        let entry_max = self.entry_bytes_max();
        let largest = newest.and_then(payload).unwrap_or(0);
        let name = machine + 1;
        must!(
            largest <= entry_max,
            "ResourceBounds",
            "n{name} makes an entry of {largest} bytes, of at most {entry_max}"
        );
        let kept = raft.commit_index().min(raft.durable()).max(node.wal.base().index);
        let (mut held, mut entries, mut index) = (0, 0, kept);
        while index < last {
            index = index.next();
            if let Some(bytes) = payload(index) {
                held += bytes;
                entries += 1;
            }
        }
        let most = wide(self.bounds.working.uncommitted_bytes_max);
        must!(
            held <= most + HEADER_BYTES || entries == 1,
            "ResourceBounds",
            "n{name} holds {held} bytes in {entries} entries behind {kept}, of at most {most}"
        );
    }

    /// An entry closes when it is full, and a request larger than that has one of its own.
    fn entry_bytes_max(&self) -> u64 {
        let EntryLimits { request_bytes_max, entry_bytes_soft_max } =
            EntryLimits::for_segment(self.bounds.segment_bytes);
        let soft = entry_bytes_soft_max.min(self.bounds.working.entry_bytes_soft_max);
        wide(soft).max(wide(request_bytes_max)) + HEADER_BYTES
    }

    /// Behind a snapshot in force the log goes back no further than who is a little behind needs,
    /// and two segments more.
    pub(super) fn check_log_size(
        &self,
        machine: usize,
        seen: &Seen,
        node: &Inspection<'_>,
        raft: &Raft,
    ) {
        let Some(snapshot) = node.wal.snapshot() else { return };
        // One that takes the place of another lets the log go when it has.
        let settled = node.wal.noted_snapshot() == snapshot.id && !node.wal.snapshot_under_way();
        // How much of the log was there before, the record does not count: once all of that is in a
        // snapshot, the bound holds again.
        let counted = snapshot.id.position.index > seen.loaded_end;
        if !self.bounds.makes_snapshots || !settled || !counted {
            return;
        }
        let segment = self.bounds.segment_bytes;
        let behind = snapshot.id.bytes.max(2 * segment) + 2 * segment;
        // What is not durable, or not committed, is bounded elsewhere, and no snapshot makes it
        // less: a leader on a full disk, with followers on full disks (seed 7747).
        let ended = raft.commit_index().min(raft.durable()).max(node.wal.base().index);
        let since_ended = raft.bytes_since(ended);
        let bytes = raft.bytes_since(node.wal.base().index) - since_ended;
        // What was there when it was begun, and was committed later, it does not hold either, and
        // the record does not count it (seed 14673).
        let since = snapshot.id.position.index.max(node.wal.base().index).min(ended);
        let begun = seen.draft_end.clamp(since, ended);
        let grown = node.wal.growth() + raft.bytes_since(since) - raft.bytes_since(begun);
        must!(
            bytes <= behind + grown,
            "ResourceBounds",
            "n{} keeps a log of {bytes} bytes, {behind} and {grown} are enough",
            machine + 1
        );
    }
}

/// Whether a log has grown past what a snapshot is due at: so many entries, and as many bytes as
/// the last one has. A node whose state is in doubt makes none.
pub(crate) fn owes_snapshot(options: &Options, node: &Inspection<'_>) -> bool {
    let last = node.wal.snapshot().map(|source| source.id).unwrap_or_default();
    let entries = node.store.applied().get().saturating_sub(last.position.index.get());
    let doubtful = node.diverged || node.disputed || node.raft.is_none();
    let grown = node.wal.growth() >= last.bytes;
    entries > options.snapshots.entries && grown && !doubtful
}

/// The newest entry with commands in `(after, last]`.
fn newest_commands(wal: &Wal, after: LogIndex, last: LogIndex) -> Option<LogIndex> {
    let mut index = last;
    while index > after {
        if wal.meta(index).is_some_and(|meta| meta.kind == EntryKind::Commands) {
            return Some(index);
        }
        index = index.prev();
    }
    None
}

/// What a connection may have to say at once: beyond, it is closed. Bytes.
pub(crate) const OUT_BYTES_MAX: usize = limits::CONNECTION_OUT_MAX + limits::REPLY_BYTES_MAX;

fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("usize is at most 64 bits")
}
