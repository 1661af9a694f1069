//! What is on the disk, as far as receipts prove it.
//!
//! One job is in flight at most. A job covers everything that changed before it was formed; its
//! receipt proves that much and no more. A truncation cuts at once what is durable and what a
//! receipt of an older job may still prove: the entry that takes a truncated one's place is not the
//! one the older job wrote.

use super::Raft;
use super::role::Role;
use crate::types::{HardState, Instant, JobSeq, LogIndex, LogPosition, SyncReceipt};

/// A write that takes as many election timeouts is a disk that hangs. A leader hears of a lost
/// quorum within one; a disk gets the time of the longest election timeout, because what it stalls
/// for (a full queue, a journal's commit) is mostly shorter, and an election is not free.
pub const DISK_PATIENCE_ELECTION_TIMEOUTS: u64 = 2;

/// What one sync job has to make durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobScope {
    /// The hard state, if it changed. It must be durable before any part of the log batch.
    pub hard_state: Option<HardState>,
    /// The last entry when the job was formed: everything up to it, truncations included.
    pub last: LogPosition,
}

/// Which write makes the present hard state durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Durable {
    /// It is durable.
    Now,
    /// The job in flight holds it.
    InFlight(JobSeq),
    /// The next job to be formed will hold it.
    Next,
}

#[derive(Debug)]
struct Job {
    seq: JobSeq,
    begun_at: Instant,
    hard_state: HardState,
    /// What its receipt proves of the log; lowered by truncations since.
    last: LogIndex,
}

/// Proven and pending writes.
#[derive(Debug)]
pub(super) struct Durability {
    hard_state: HardState,
    last: LogIndex,
    log_changed: bool,
    job: Option<Job>,
    newest_seq: JobSeq,
}

impl Durability {
    /// All that recovery found is durable.
    pub(super) fn new(hard_state: HardState, last: LogIndex) -> Durability {
        Durability { hard_state, last, log_changed: false, job: None, newest_seq: JobSeq(0) }
    }

    /// The last index up to which our log is durable.
    pub(super) fn last(&self) -> LogIndex {
        self.last
    }

    /// Which write makes `current` durable.
    pub(super) fn of(&self, current: HardState) -> Durable {
        if self.hard_state == current {
            return Durable::Now;
        }
        match &self.job {
            Some(job) if job.hard_state == current => Durable::InFlight(job.seq),
            Some(_) | None => Durable::Next,
        }
    }

    /// An entry was appended.
    pub(super) fn appended(&mut self) {
        self.log_changed = true;
    }

    /// The entries after `to` are gone.
    pub(super) fn truncated(&mut self, to: LogIndex) {
        self.log_changed = true;
        self.last = self.last.min(to);
        if let Some(job) = &mut self.job {
            job.last = job.last.min(to);
        }
    }

    /// A snapshot took the place of the log. Up to `covered`, what the old log has on disk the
    /// snapshot has too, whichever of the two a crash leaves; of the rest nothing is proven until a
    /// job formed from now on is done.
    pub(super) fn replaced(&mut self, covered: LogIndex) {
        self.truncated(covered);
    }

    fn begin(
        &mut self,
        begun_at: Instant,
        seq: JobSeq,
        current: HardState,
        last: LogPosition,
    ) -> JobScope {
        assert!(self.job.is_none(), "job {seq} begins while {:?} is in flight", self.job);
        assert!(seq > self.newest_seq, "job {seq} follows {}", self.newest_seq);
        self.newest_seq = seq;
        self.log_changed = false;
        self.job = Some(Job { seq, begun_at, hard_state: current, last: last.index });
        JobScope { hard_state: (self.hard_state != current).then_some(current), last }
    }

    fn complete(&mut self, receipt: &SyncReceipt) {
        let job = self.job.take().expect("a receipt answers the job in flight");
        assert_eq!(job.seq, receipt.seq, "receipts come in the order of the jobs");
        self.hard_state = job.hard_state;
        // Not lower: what an older job proved and no truncation cut is still there.
        self.last = self.last.max(job.last);
    }
}

impl Raft {
    /// Whether anything changed since the last job was formed: the caller should form one.
    pub fn has_job(&self) -> bool {
        self.durability.log_changed || self.durability.of(self.hard_state) == Durable::Next
    }

    /// Everything changed so far belongs to job `seq`. Panics if a job is in flight, or numbers do
    /// not rise.
    pub fn begin_job(&mut self, now: Instant, seq: JobSeq) -> JobScope {
        let scope = self.durability.begin(now, seq, self.hard_state, self.log.last());
        self.output.assign_job(seq);
        scope
    }

    /// When the job in flight has taken so long that the disk hangs.
    pub(super) fn disk_deadline(&self) -> Instant {
        let patience_ns =
            self.settings.election_timeout_ns.saturating_mul(DISK_PATIENCE_ELECTION_TIMEOUTS);
        let job = self.durability.job.as_ref();
        job.map_or(Instant::FAR, |job| job.begun_at.after_ns(patience_ns))
    }

    /// Whether three quarters of that time have passed: what is left is enough to hand over, which
    /// takes a message to who has everything, and no disk of ours.
    pub fn disk_lags(&self, now: Instant) -> bool {
        let patience = 3 * DISK_PATIENCE_ELECTION_TIMEOUTS;
        let lasts_ns = self.settings.election_timeout_ns.saturating_mul(patience) / 4;
        let job = self.durability.job.as_ref();
        job.is_some_and(|job| job.begun_at.after_ns(lasts_ns) <= now)
    }

    /// Job `receipt.seq` is durable: what waited for it leaves. Panics if it is not the job in
    /// flight.
    pub fn on_synced(&mut self, now: Instant, receipt: SyncReceipt) {
        self.durability.complete(&receipt);
        self.output.release(&receipt, self.hard_state.term);
        let term_durable = self.durability.of(self.hard_state) == Durable::Now;
        match &self.role {
            Role::Follower(_) => self.on_log_durable(),
            // A candidate's own vote is an ordinary vote: it counts when it is durable.
            Role::Candidate(_) if term_durable => self.on_own_vote_durable(now),
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => {}
        }
    }
}
