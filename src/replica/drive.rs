//! The core's output carried out in the one legal order; the turn; sync jobs and their receipts.
//!
//! ```text
//! advance:  close the turn's entry → tick → settle → log operations → messages out
//!           → apply → replies, reads → start one sync job if none is in flight
//! ```
//! Messages that may leave before our own sync leave in the same turn (thesis §10.2.1); those that may not are
//! kept inside the core until a receipt releases them.

use super::bootstrap::Verdict;
use super::connections::ConnectionId;
use super::entry::{Member, decode_members, encode_members, genesis_of};
use super::pending::Waiter;
use super::{Fatal, Node, Stage};
use crate::limits;
use crate::raft::{
    Body, Configuration, LogOp, Notice, Raft, ReadReady, Restored, Send, Voters,
    Settings,
};
use crate::raft::message::{EntryMeta, Message};
use crate::types::{
    EntryKind, HardState, Instant, JobSeq, LogIndex, LogPosition, LogRange, NodeId, SyncReceipt,
    Term, Vote,
};
use crate::wal::{self, Job};
use crate::wire::{self, AppendHead, AppendWriter, PayloadRef};
use std::io;

/// After this long without new entries a mark says that the last batch is durable, so that recovery can
/// tell its damage from a torn tail. Storage §6.3, SYNCMARK. Nanoseconds.
const IDLE_MARK_NS: u64 = 20_000_000;

/// How often a full disk is tried again. Nanoseconds.
pub(super) const SPACE_RETRY_NS: u64 = 500_000_000;

/// Sync jobs: numbered, one in flight.
#[derive(Debug)]
pub(super) struct Jobs {
    last: JobSeq,
    in_flight: bool,
    /// Jobs finished since the start.
    pub(super) finished: u64,
    /// The next job, for the shell to take.
    pub(super) ready: Option<Job>,
    /// A background job is with the shell.
    pub(super) background: bool,
    /// When a full disk is tried again.
    pub(super) retry_at: Instant,
    mark_at: Instant,
}

impl Default for Jobs {
    fn default() -> Jobs {
        Jobs {
            last: JobSeq(0),
            in_flight: false,
            finished: 0,
            ready: None,
            background: false,
            retry_at: Instant::FAR,
            mark_at: Instant::FAR,
        }
    }
}

impl Jobs {
    pub(super) fn wake_at(&self) -> Instant {
        self.retry_at.min(if self.in_flight { Instant::FAR } else { self.mark_at })
    }
}

/// Buffers that live across turns so that a turn allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) payload: Vec<u8>,
    pub(super) lost: Vec<Waiter>,
    metas: Vec<EntryMeta>,
    log_ops: Vec<LogOp>,
    sends: Vec<Send>,
    reads: Vec<ReadReady>,
    notices: Vec<Notice>,
}

/// What of the log's free room an entry's payload may use: the rest is for its header and padding.
pub(super) fn room_after_overhead(room_bytes: u64) -> u64 {
    room_bytes.saturating_sub(u64::try_from(2 * limits::PAGE_BYTES).expect("two pages fit"))
}

impl Node {
    /// Takes up where the data directory left off.
    pub(super) fn begin(&mut self, now: Instant) {
        let recovered = self.recovered.take().expect("begin is called once, by open");
        if recovered.genesis != 0 && recovered.last != LogPosition::ZERO {
            let found = recovered.configurations.last();
            let (index, payload) =
                found.expect("the first entry of a bootstrapped log is a configuration");
            match decode_members(payload) {
                Ok(members) => self.join(members, recovered, now),
                Err(error) => self.fail(Fatal::Entry { index: *index, why: error.to_string() }),
            }
            return;
        }
        let Stage::Alone(bootstrap) = &self.stage else { return };
        if let Verdict::Found(members) = bootstrap.start() {
            self.found(members);
        }
    }

    /// Writes the first entry. All first members write the same bytes, so no election is needed for it.
    pub(super) fn found(&mut self, members: Vec<Member>) {
        let payload = encode_members(&members);
        self.genesis = genesis_of(&payload);
        self.members = members;
        let position = LogPosition::new(Term::BOOTSTRAP, LogIndex::ZERO.next());
        let hard_state = HardState { term: Term::BOOTSTRAP, vote: Vote::None };
        self.wal.set_hard_state(hard_state, self.genesis);
        self.wal.append(position, EntryKind::Configuration, &payload);
        let seq = self.next_job();
        self.stage = Stage::Founding(seq);
        self.jobs.ready = self.wal.begin_job(seq, LogIndex::ZERO);
        assert!(self.jobs.ready.is_some(), "there is an entry to write");
        self.jobs.in_flight = true;
    }

    /// The first entry is durable: take part. Everyone shakes hands anew, now that we have a configuration.
    fn founded(&mut self, now: Instant) {
        let payload = encode_members(&self.members);
        let position = LogPosition::new(Term::BOOTSTRAP, LogIndex::ZERO.next());
        let size = u32::try_from(payload.len()).expect("a configuration is small");
        let restored = Restored {
            hard_state: HardState { term: Term::BOOTSTRAP, vote: Vote::None },
            log: vec![(position.index, position.term)],
            sizes: vec![size],
            commit_index: LogIndex::ZERO,
            configurations: vec![(position.index, self.configuration())],
        };
        log::info!(
            "bootstrapped node={} cluster={} members={}",
            self.identity.node,
            self.identity.cluster_id,
            self.members.len()
        );
        self.start_raft(restored, now);
        let stale: Vec<ConnectionId> =
            self.peers.iter().flat_map(|peer| peer.connections()).collect();
        for id in stale {
            self.connections.end(id);
        }
    }

    fn join(&mut self, members: Vec<Member>, recovered: wal::Recovered, now: Instant) {
        self.members = members;
        let restored = Restored {
            hard_state: recovered.hard_state,
            log: recovered.runs,
            sizes: recovered.sizes,
            commit_index: recovered.commit_index,
            configurations: recovered
                .configurations
                .iter()
                .map(|(index, _)| (*index, self.configuration()))
                .collect(),
        };
        self.start_raft(restored, now);
    }

    fn configuration(&self) -> Configuration {
        let ids = self.members.iter().map(|member| member.id).collect();
        Configuration::Stable(Voters::new(ids).expect("decode_members refuses an empty list"))
    }

    fn start_raft(&mut self, restored: Restored, now: Instant) {
        let addresses: Vec<_> = self.members.iter().map(Member::address).collect();
        if !matches!(self.stage, Stage::Founding(_)) {
            self.peers = super::Peers::new(&addresses, self.identity.node, self.options.seed);
        }
        self.peers.learn(&self.members);
        let bytes = |bytes: usize| u64::try_from(bytes).expect("a bound fits");
        let settings = Settings {
            id: self.identity.node,
            election_timeout_ns: self.options.election_timeout_ns,
            heartbeat_ns: self.options.heartbeat_ns,
            seed: self.options.seed,
            in_flight_messages_max: limits::IN_FLIGHT_MESSAGES_MAX,
            in_flight_bytes_max: bytes(limits::IN_FLIGHT_BYTES_MAX),
            append_bytes_max: bytes(limits::APPEND_BYTES_MAX),
            append_entries_max: limits::APPEND_ENTRIES_MAX,
            uncommitted_bytes_max: bytes(limits::UNCOMMITTED_BYTES_MAX),
        };
        self.stage = Stage::Member(Box::new(Raft::new(settings, restored, now)));
    }

    fn next_job(&mut self) -> JobSeq {
        assert!(!self.jobs.in_flight, "one sync job in flight");
        self.jobs.last = JobSeq(self.jobs.last.0 + 1);
        self.jobs.last
    }

    /// The sync thread has finished job `seq`.
    pub fn on_job_done(&mut self, seq: JobSeq, result: io::Result<()>, now: Instant) {
        assert_eq!(seq, self.jobs.last, "jobs finish in order, one at a time");
        self.jobs.in_flight = false;
        self.jobs.finished += 1;
        if let Err(error) = result {
            return self.fail(Fatal::Disk(error));
        }
        self.wal.job_done(seq);
        match &mut self.stage {
            Stage::Member(raft) => raft.on_synced(now, SyncReceipt { seq }),
            Stage::Founding(_) => self.founded(now),
            Stage::Alone(_) => {}
        }
    }

    /// A request of the member that dialed us.
    pub(super) fn on_peer_request(
        &mut self,
        id: ConnectionId,
        from: NodeId,
        body: &[u8],
        now: Instant,
    ) {
        if self.peers.inbound(from) != Some(id) {
            return;
        }
        let Ok(frame) = wire::decode_peer(body) else {
            log::warn!("closed a peer that sent bytes of no message peer={from}");
            return self.connections.end(id);
        };
        let expected = match &frame.message {
            Message::PreVote { .. }
            | Message::Vote { .. }
            | Message::Append { .. }
            | Message::Heartbeat { .. } => true,
            Message::PreVoteReply { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply { .. } => false,
        };
        if !expected || !self.payloads_are_whole(&frame) {
            log::warn!("closed a peer that sent a message out of place or damaged peer={from}");
            return self.connections.end(id);
        }
        self.scratch.metas.clear();
        let mut prev = LogPosition::ZERO;
        if let Message::Append { entries, prev: before, .. } = &frame.message {
            self.scratch.metas.extend_from_slice(entries);
            prev = *before;
        }
        let room = room_after_overhead(self.wal.room_bytes());
        if let Stage::Member(raft) = &mut self.stage {
            raft.step(now, from, frame.message, room);
            self.carry_out_log_of(prev, &frame.payloads);
        }
    }

    /// Whether every payload is what the leader's checksum says: checked before any of it can be decided on.
    fn payloads_are_whole(&self, frame: &wire::PeerFrame<'_>) -> bool {
        let Message::Append { prev, entries, .. } = &frame.message else { return true };
        let mut before = *prev;
        entries.iter().zip(&frame.payloads).all(|(meta, payload)| {
            let position = LogPosition::new(meta.term, before.index.next());
            let crc = wal::payload_crc(position, before.term, payload.bytes);
            before = position;
            crc == payload.crc
        })
    }

    /// An answer of the member that we dialed.
    pub(super) fn on_peer_reply(
        &mut self,
        id: ConnectionId,
        from: NodeId,
        body: &[u8],
        now: Instant,
    ) {
        if self.peers.outbound(from) != Some(id) {
            return;
        }
        let frame = wire::decode_peer(body);
        let Ok(wire::PeerFrame { message, .. }) = frame else { return self.connections.end(id) };
        match message {
            Message::PreVoteReply { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply { .. } => {
                if let Stage::Member(raft) = &mut self.stage {
                    raft.step(now, from, message, 0);
                    self.carry_out_log(&[], &[]);
                }
            }
            Message::PreVote { .. }
            | Message::Vote { .. }
            | Message::Append { .. }
            | Message::Heartbeat { .. } => self.connections.end(id),
        }
    }

    fn carry_out_log_of(&mut self, prev: LogPosition, payloads: &[PayloadRef<'_>]) {
        let metas = std::mem::take(&mut self.scratch.metas);
        debug_assert!(metas.len() == payloads.len() || metas.is_empty(), "prev={prev}");
        self.carry_out_log(&metas, payloads);
        self.scratch.metas = metas;
    }

    /// Repeats in the record what the core has decided for the log.
    pub(super) fn carry_out_log(&mut self, metas: &[EntryMeta], payloads: &[PayloadRef<'_>]) {
        let Stage::Member(raft) = &mut self.stage else { return };
        let output = raft.output();
        if output.log_ops.is_empty() {
            return;
        }
        std::mem::swap(&mut output.log_ops, &mut self.scratch.log_ops);
        for operation in self.scratch.log_ops.drain(..) {
            match operation {
                LogOp::Truncate { to } => self.wal.truncate(to),
                LogOp::NoOp { position } => self.wal.append(position, EntryKind::NoOp, &[]),
                LogOp::Accept { skip, first, count } => {
                    let taken = metas.iter().zip(payloads).skip(skip).take(count);
                    let mut index = first.index;
                    for (meta, payload) in taken {
                        let position = LogPosition::new(meta.term, index);
                        self.wal.append_checked(position, meta.kind, payload.bytes, payload.crc);
                        index = index.next();
                    }
                }
            }
        }
    }

    /// One turn: see the top of this file. Call it after the turn's inputs, and when `wake_at` has come.
    pub fn advance(&mut self, now: Instant) {
        if self.fatal.is_some() {
            return;
        }
        self.peers.dial_due(now, &mut self.dials);
        self.propose_compaction(now);
        self.close_entry(now);
        self.ask_for_reads();
        if let Stage::Member(raft) = &mut self.stage {
            raft.tick(now);
            raft.settle(now);
        }
        self.carry_out_log(&[], &[]);
        self.send_messages();
        self.apply_committed();
        self.take_notices();
        self.release_reads();
        self.answer_lost();
        self.serve_reads();
        self.start_job(now);
        if self.jobs.retry_at <= now {
            self.jobs.retry_at = Instant::FAR;
            self.wal.retry_background();
        }
    }

    fn ask_for_reads(&mut self) {
        if self.reads.gathering.is_empty() {
            return;
        }
        let leader = match &mut self.stage {
            Stage::Member(raft) => match raft.read() {
                Ok(ticket) => return self.reads.confirm(ticket),
                Err(_) => raft.leader(),
            },
            Stage::Alone(_) | Stage::Founding(_) => None,
        };
        let batch = self.reads.take_gathering();
        self.refuse_reads(batch, &self.not_leader(leader));
    }

    fn release_reads(&mut self) {
        let Stage::Member(raft) = &mut self.stage else { return };
        let leader = raft.leader();
        std::mem::swap(&mut raft.output().reads, &mut self.scratch.reads);
        let mut answered = std::mem::take(&mut self.scratch.reads);
        for ready in answered.drain(..) {
            let batch = self.reads.answered(ready.ticket);
            match ready.result {
                Ok(index) => self.reads.ready_at(index, batch),
                Err(_) => self.refuse_reads(batch, &self.not_leader(leader)),
            }
        }
        self.scratch.reads = answered;
    }

    fn take_notices(&mut self) {
        let Stage::Member(raft) = &mut self.stage else { return };
        std::mem::swap(&mut raft.output().notices, &mut self.scratch.notices);
        let mut notices = std::mem::take(&mut self.scratch.notices);
        for notice in notices.drain(..) {
            let Stage::Member(raft) = &self.stage else { return };
            say(&notice, raft);
            if matches!(notice, Notice::BecameFollower { .. }) {
                // What is applied has been answered; the rest may or may not be committed by others.
                let applied = self.store.applied();
                self.pending.drop_after(applied, &mut self.scratch.lost);
            }
            self.forget_compaction();
        }
        self.scratch.notices = notices;
    }

    fn send_messages(&mut self) {
        let Stage::Member(raft) = &mut self.stage else { return };
        std::mem::swap(&mut raft.output().sends, &mut self.scratch.sends);
        let mut sends = std::mem::take(&mut self.scratch.sends);
        for send in sends.drain(..) {
            match send.body {
                Body::Message(message) => self.send_message(send.to, &message),
                Body::Append { term, session, round, prev, range, commit } => {
                    let count =
                        usize::try_from(range.count()).expect("a message holds few entries");
                    let head = AppendHead { term, session, round, prev, commit, count };
                    self.send_append(send.to, &head, range);
                }
            }
        }
        self.scratch.sends = sends;
    }

    fn send_message(&mut self, to: NodeId, message: &Message) {
        let connection = match message {
            Message::PreVote { .. }
            | Message::Vote { .. }
            | Message::Append { .. }
            | Message::Heartbeat { .. } => self.peers.outbound(to),
            Message::PreVoteReply { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply { .. } => self.peers.inbound(to),
        };
        if let Some(connection) = connection {
            self.connections.write(connection, |out| wire::encode_message(out, message));
        }
    }

    /// Encodes an AppendEntries straight from the log's bytes into the peer's out-buffer.
    fn send_append(&mut self, to: NodeId, head: &AppendHead, range: LogRange) {
        let Some(connection) = self.peers.outbound(to) else { return };
        let (wal, scratch) = (&self.wal, &mut self.scratch.payload);
        let mut damaged = None;
        self.connections.write(connection, |out| {
            let start = out.len();
            let mut writer = AppendWriter::begin(out, head);
            for index in range.indexes() {
                let meta = wal.meta(index).expect("the core sends only what it appended");
                match wal.payload(index, scratch) {
                    Ok(payload) => {
                        let entry = EntryMeta { term: meta.term, kind: meta.kind, bytes: meta.bytes };
                        writer.push(out, entry, meta.payload_crc, payload);
                    }
                    Err(error) => {
                        damaged = Some((index, error.to_string()));
                        out.truncate(start);
                        return;
                    }
                }
            }
            writer.finish(out);
        });
        if let Some((index, why)) = damaged {
            self.fail(Fatal::Entry { index, why });
        }
    }

    /// Starts a sync job if there is something to write and none is in flight.
    fn start_job(&mut self, now: Instant) {
        if self.jobs.in_flight || self.fatal.is_some() {
            return;
        }
        let Stage::Member(raft) = &self.stage else { return };
        let dirty = raft.has_job();
        if !dirty {
            if self.jobs.mark_at > now {
                return;
            }
            self.wal.stage_sync_mark();
        }
        self.jobs.mark_at = if dirty { now.after_ns(IDLE_MARK_NS) } else { Instant::FAR };
        let seq = self.next_job();
        let Stage::Member(raft) = &mut self.stage else { return };
        let scope = raft.begin_job(seq);
        if let Some(hard_state) = scope.hard_state {
            self.wal.set_hard_state(hard_state, self.genesis);
        }
        assert_eq!(scope.last, self.wal.last(), "core and record agree on the log");
        let job = self.wal.begin_job(seq, raft.commit_index());
        assert!(job.is_some() || !dirty, "what the core changed is staged in the record");
        match job {
            Some(job) => {
                self.jobs.ready = Some(job);
                self.jobs.in_flight = true;
            }
            // Nothing to mark: the receipt of an empty job is due at once.
            None => raft.on_synced(now, SyncReceipt { seq }),
        }
    }
}

/// One line for people. Nothing here grows with traffic.
fn say(notice: &Notice, raft: &Raft) {
    let (node, last) = (raft.id(), raft.last());
    match notice {
        Notice::AskingForPreVotes { term } => {
            log::debug!("asking for pre-votes node={node} term={term} last={last}");
        }
        Notice::Campaigning { term } => {
            log::info!("campaigning node={node} term={term} last={last}");
        }
        Notice::BecameLeader { term, noop } => {
            log::info!("became leader node={node} term={term} noop={noop}");
        }
        Notice::BecameFollower { term, leader } => {
            let leader = leader.map_or("none".to_owned(), |leader| leader.to_string());
            log::info!("became follower node={node} term={term} last={last} leader={leader}");
        }
        Notice::LeaderChanged { term, leader } => {
            log::info!("found leader node={node} term={term} last={last} leader={leader}");
        }
        Notice::LostQuorum { term } => {
            log::warn!("lost the quorum node={node} term={term} last={last}");
        }
        Notice::SafetyViolated { from, ours, theirs } => {
            log::error!("safety violated node={node} from={from} ours={ours} theirs={theirs}");
        }
    }
}
