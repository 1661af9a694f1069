//! The core's output carried out in the one legal order; the turn; sync jobs and their receipts.
//!
//! ```text
//! advance:  close the turn's entry → tick → settle → log operations → messages out
//!           → apply → replies, reads → start one sync job if none is in flight
//! ```
//! Messages that may leave before our own sync leave in the same turn (thesis §10.2.1); those that
//! may not are kept inside the core until a receipt releases them.

use super::pending::Waiter;
use super::reads::By;
use super::{Farewell, Fatal, Node, Stage};
use crate::limits;
use crate::raft::{LogOp, Notice, Raft, ReadReady, Send};
use crate::types::{Instant, JobSeq, SyncReceipt};
use crate::wal::{Job, Wal};
use crate::wire::peer::Room;
use std::io;

/// After this long without new entries a mark says that the last batch is durable, so that recovery
/// can tell its damage from a torn tail. Storage §6.3, SYNCMARK. Nanoseconds.
const IDLE_MARK_NS: u64 = 20_000_000;

/// So long after entries became durable, at the latest, the hard state vouches for them: no mark in
/// the log can speak for its own loss. A second: two syncs more are lost in the hundreds of a busy
/// log, and nothing in an idle one. Nanoseconds.
const DURABLE_END_NS: u64 = 1_000_000_000;

/// How often a full disk is tried again. Nanoseconds.
pub(super) const SPACE_RETRY_NS: u64 = 500_000_000;

/// Sync jobs: numbered, one in flight.
pub(super) struct Jobs {
    last: JobSeq,
    pub(super) in_flight: bool,
    /// Jobs finished since the start.
    pub(super) finished: u64,
    /// The next job, for the shell to take.
    pub(super) ready: Option<Job>,
    /// A background job is with the shell, since then.
    pub(super) background: Option<Instant>,
    /// When a full disk is tried again.
    pub(super) retry_at: Instant,
    mark_at: Instant,
    /// When the hard state is to vouch for what was synced meanwhile.
    lift_at: Instant,
}

impl Default for Jobs {
    fn default() -> Jobs {
        Jobs {
            last: JobSeq(0),
            in_flight: false,
            finished: 0,
            ready: None,
            background: None,
            retry_at: Instant::FAR,
            mark_at: Instant::FAR,
            lift_at: Instant::FAR,
        }
    }
}

impl Jobs {
    pub(super) fn wake_at(&self) -> Instant {
        let idle = self.mark_at.min(self.lift_at);
        self.retry_at.min(if self.in_flight { Instant::FAR } else { idle })
    }
}

/// Buffers that live across turns so that a turn allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) payload: Vec<u8>,
    pub(super) lost: Vec<Waiter>,
    pub(super) frame: Room<'static>,
    pub(super) log_ops: Vec<LogOp>,
    pub(super) sends: Vec<Send>,
    reads: Vec<ReadReady>,
    notices: Vec<Notice>,
}

/// What of the log's free room an entry's payload may use: the rest is for its header and padding.
pub(super) fn room_after_overhead(room_bytes: u64) -> u64 {
    room_bytes.saturating_sub(u64::try_from(2 * limits::PAGE_BYTES).expect("two pages fit"))
}

/// Whether the core's deadlines count. A new leader opens its term with an entry: without room for
/// one, do not ask to lead, nor wake up for it. Room, when there is some, brings a turn.
pub(super) fn minds_deadlines(raft: &Raft, wal: &Wal) -> bool {
    raft.is_leader() || room_after_overhead(wal.room_bytes()) > 0
}

impl Node {
    pub(super) fn next_job(&mut self) -> JobSeq {
        assert!(!self.jobs.in_flight, "one sync job in flight");
        self.jobs.last = JobSeq(self.jobs.last.0 + 1);
        self.jobs.last
    }

    /// The sync thread has finished with `job`.
    pub fn on_job_done(&mut self, job: Job, result: io::Result<()>, now: Instant) {
        let seq = job.seq;
        assert_eq!(seq, self.jobs.last, "jobs finish in order, one at a time");
        self.jobs.in_flight = false;
        self.jobs.finished += 1;
        if let Err(error) = result {
            return self.fail(Fatal::Disk(error));
        }
        self.wal.job_done(seq);
        self.wal.recycle(job);
        if self.farewell == Farewell::Staged {
            self.farewell = Farewell::Done;
        }
        let compacted = self.wal.take_compacted();
        match &mut self.stage {
            Stage::Member(raft) => {
                if let Some(base) = compacted {
                    raft.compact(base.index);
                    self.memberships.compact(base.index);
                }
                raft.on_synced(now, SyncReceipt { seq });
            }
            Stage::Founding => self.founded(now),
            Stage::Alone(_) => {}
        }
        let member = matches!(self.stage, Stage::Member(_));
        if member && self.jobs.lift_at == Instant::FAR && self.wal.durable_end_lags() {
            self.jobs.lift_at = now.after_ns(DURABLE_END_NS);
        }
    }

    /// One turn: see the top of this file. Call it after the turn's inputs, and when `wake_at` has
    /// come.
    pub fn advance(&mut self, now: Instant) {
        if self.fatal.is_some() {
            return;
        }
        self.end_overdue_handshakes(now);
        self.now = now;
        self.peers.dial_due(now, &mut self.dials);
        self.propose_compaction(now);
        self.mind_leases(now);
        self.close_entry(now);
        self.ask_for_reads();
        self.ask_for_saves();
        self.hand_over_to_leave(now);
        self.hand_over_for_space(now);
        self.hand_over_for_disk(now);
        self.continue_reload(now);
        if let Stage::Member(raft) = &mut self.stage {
            if minds_deadlines(raft, &self.wal) {
                raft.tick(now);
            }
            let most = self.wal.entry_bytes_max();
            if self.wal.room_bytes() >= most {
                raft.on_room(room_after_overhead(most));
            }
            raft.settle(now);
        }
        self.carry_out_log();
        self.continue_reconfiguration(now);
        self.send_messages();
        self.apply_committed(now);
        self.note_changed_leases();
        self.deny_saves();
        self.continue_snapshot(now);
        self.continue_receiving(now);
        self.catch_up(now);
        self.continue_saves(now);
        self.take_notices();
        self.follow_committed(now);
        self.continue_handover(now);
        self.release_reads();
        self.keep_silence();
        self.answer_lost();
        self.serve_reads();
        self.continue_ranges(now);
        self.feed_watches(now);
        self.refuse_overdue_reads(now);
        self.connections.cut_off_slow(now);
        self.start_job(now);
        self.end_stall(now);
        assert!(self.open.payload.is_empty(), "an entry has the stamp of the turn that closes it");
        if self.jobs.retry_at <= now {
            self.jobs.retry_at = Instant::FAR;
            self.wal.retry_background();
        }
    }

    fn ask_for_reads(&mut self) {
        for by in [By::Lease, By::Round] {
            if self.reads.gathering(by).is_empty()
                || (by == By::Round && !self.reads.may_begin_round())
            {
                continue;
            }
            let Stage::Member(raft) = &mut self.stage else { return };
            let asked = match by {
                By::Lease => raft.read_by_lease(),
                By::Round => raft.read(),
            };
            let leader = raft.leader();
            let batch = self.reads.take_gathering(by);
            match asked {
                Ok(ticket) => self.reads.confirm(ticket, batch),
                Err(_) => self.refuse_reads(batch, &self.not_leader(leader)),
            }
        }
    }

    fn release_reads(&mut self) {
        let Stage::Member(raft) = &mut self.stage else { return };
        std::mem::swap(&mut raft.output().reads, &mut self.scratch.reads);
        let mut answered = std::mem::take(&mut self.scratch.reads);
        for ready in answered.drain(..) {
            if self.saves.on_round(ready.ticket, ready.result.ok()) {
                continue;
            }
            let batch = self.reads.answered(ready.ticket);
            match ready.result {
                Ok(index) => self.reads.ready_at(index, batch, self.now),
                Err(_) => self.refuse_reads(batch, &self.unconfirmed()),
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
            if let Notice::SafetyViolated { ours, .. } = notice {
                let why =
                    "a leader contradicts it, although it is committed or verified here".to_owned();
                self.fail(Fatal::Entry { index: ours.index, why });
            }
            if matches!(notice, Notice::BecameFollower { .. }) {
                // What is applied has been answered, and what is half applied will be; the rest may
                // or may not be committed by others.
                let begun = self.store.begun();
                self.pending.drop_after(begun, &mut self.scratch.lost);
                self.administration.drop_all(&mut self.scratch.lost);
            }
            self.compaction.forget();
        }
        self.scratch.notices = notices;
    }

    /// What an idle log notes of itself, once its time has come: in the log that the last batch is
    /// durable, in the hard state how far the log goes.
    fn has_marks_to_write(&mut self, now: Instant) -> bool {
        let mark = self.jobs.mark_at <= now;
        if mark {
            self.jobs.mark_at = Instant::FAR;
        }
        // The last job wrote a vote and no entry, say: there is nothing to vouch for.
        let mark = mark && self.wal.sync_mark_due();
        if mark {
            self.wal.stage_sync_mark();
        }
        let lift = self.jobs.lift_at <= now;
        if lift && !self.wal.durable_end_lags() {
            self.jobs.lift_at = Instant::FAR;
        }
        mark || (lift && self.wal.durable_end_lags())
    }

    /// Starts a sync job if there is something to write and none is in flight.
    fn start_job(&mut self, now: Instant) {
        if self.jobs.in_flight || self.fatal.is_some() {
            return;
        }
        let Stage::Member(raft) = &self.stage else { return };
        let dirty = raft.has_job() || self.wal.switch_due();
        match (dirty, self.farewell) {
            (true, Farewell::None | Farewell::Asked) => {
                self.jobs.mark_at = now.after_ns(IDLE_MARK_NS);
            }
            (false, Farewell::None) if !self.has_marks_to_write(now) => return,
            (false, Farewell::None) => {}
            (false, Farewell::Asked) => {
                self.wal.stage_shutdown();
                self.farewell = Farewell::Staged;
                (self.jobs.mark_at, self.jobs.lift_at) = (Instant::FAR, Instant::FAR);
            }
            // Whatever the rules want after the farewell would make it untrue.
            (_, Farewell::Staged | Farewell::Done) => return,
        }
        if self.jobs.lift_at <= now {
            self.jobs.lift_at = Instant::FAR;
            self.wal.lift_durable_end();
        }
        let seq = self.next_job();
        let Stage::Member(raft) = &mut self.stage else { return };
        let scope = raft.begin_job(now, seq);
        if let Some(hard_state) = scope.hard_state {
            self.wal.set_hard_state(hard_state, self.genesis);
        }
        assert_eq!(scope.last, self.wal.last(), "core and record agree on the log");
        // Records vouch only for what is committed **and** durable here: an entry that others have
        // made committed may still be torn off this disk, and that is no damage.
        let commit = raft.commit_index().min(raft.durable());
        let job = self.wal.begin_job(seq, commit);
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
        Notice::TransferFailed { term, target } => {
            log::warn!("could not hand over node={node} term={term} last={last} target={target}");
        }
        Notice::DiskStalled { term } => {
            log::warn!("waited for the disk for too long node={node} term={term} last={last}");
        }
        Notice::SnapshotInstalled { position, kept } => {
            log::info!("installed a snapshot node={node} at={position} kept_log={kept}");
        }
        Notice::SafetyViolated { from, ours, theirs } => {
            log::error!("safety violated node={node} from={from} ours={ours} theirs={theirs}");
        }
    }
}
