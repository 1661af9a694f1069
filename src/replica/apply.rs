//! Committed entries to the store, in order, once; then the replies of those who wait. Paper Figure
//! 2, "if commitIndex > lastApplied".

use super::admission::as_u64;
use super::connections::{ConnectionId, Deferred, Written};
use super::pending::Waiter;
use super::reads::{Asked, ReadBatch};
use super::{Fatal, Node, Stage};
use crate::kv::{self, Answer, Asker, CommandReply, GROUP_STEPS, RangeError, Refusal, Sliced};
use crate::limits;
use crate::types::{EntryKind, Instant, LogPosition};
use crate::wal::EntryInfo;
use crate::wire::auth::auth_reply;
use crate::wire::client::{Op, Txn};
use crate::wire::error::Error;
use crate::wire::leases::{LeaseTerm, lease_revoke_reply, lease_term_reply};
use crate::wire::reply::{
    TxnOutcome, compact_reply, delete_reply, delete_with_reply, error_reply, put_if_reply,
    put_reply, put_with_reply, session_reply, txn_reply,
};

/// Entry bytes applied in one turn, one entry at least, so that a node that catches up still hears
/// its leader, and its clients; and no more commands than `WorkingLimits::apply_steps` go. Bytes.
const APPLY_BYTES_PER_TURN: u64 = 128 * 1024;

/// What an entry counts beside its bytes, so that empty ones cost something too. Bytes.
const ENTRY_APPLY_BYTES: u64 = 64;

/// A read waits for its index to be applied at most so many election timeouts: a server that keeps
/// up needs a small part of one.
const READ_PATIENCE_ELECTIONS: u64 = 10;

/// Reads whose memory is loaded together.
const READ_GROUP: usize = 16;

/// Versions freed after compaction in a turn that applies nothing. A turn that applies frees what
/// it needs, when it needs it.
const TIDY_PER_TURN: usize = 512;

/// The same in a turn that applies: enough that reads and deletes alone cannot hold memory back.
const TIDY_BESIDE_APPLY: usize = 16;

/// The leader's time for entries: the last stamp of the leaders before it, plus monotonic time
/// since. The wall clock has no part in it: a leader whose clock is an hour ahead would end every
/// session with its first entry. Milliseconds. Design §12.10.
#[derive(Debug)]
pub(super) struct Stamp {
    followed_ms: u64,
    since: Instant,
    /// An entry with a stamp was applied in this turn.
    heard: bool,
}

impl Stamp {
    pub(super) fn new(now: Instant) -> Stamp {
        Stamp { followed_ms: 0, since: now, heard: false }
    }

    /// Counts on from the newest stamp, if its entry was applied just now or is not known yet. From
    /// the same one again as well: a new leader's first may be its predecessor's last, and what it
    /// says is due in its time must not be due earlier in ours, which has gone on meanwhile.
    fn follow(&mut self, applied_ms: u64, now: Instant) {
        let heard = std::mem::take(&mut self.heard);
        if self.followed_ms < applied_ms || (heard && self.followed_ms == applied_ms) {
            (self.followed_ms, self.since) = (applied_ms, now);
        }
    }

    fn at(&self, now: Instant) -> u64 {
        self.followed_ms + now.ns_since(self.since) / 1_000_000
    }

    /// When it is that time, or was.
    pub(super) fn instant_of(&self, stamp_ms: u64) -> Instant {
        let after_ms = stamp_ms.saturating_sub(self.followed_ms);
        self.since.after_ns(after_ms.saturating_mul(1_000_000))
    }
}

impl Node {
    /// Applies what is committed, a bounded piece a turn.
    pub(super) fn apply_committed(&mut self, now: Instant) {
        let Stage::Member(raft) = &self.stage else { return };
        let commit = raft.commit_index();
        let (mut applied, mut steps) = (0, self.options.working.apply_steps);
        let idle = self.store.applied() == commit;
        // A turn that ends an entry begins none, or entries that are longer than a turn would leave
        // none that ends whole, and whoever reads would wait for ever.
        let ends_one = self.store.is_halfway();
        // Asked first: a new leader may apply the last that others stamped and its own first entry
        // in one turn, and counts on from the former.
        let sets_the_time = self.sets_the_time();
        while self.store.applied() < commit && self.fatal.is_none() {
            let meta = self.wal.meta(self.store.applied().next());
            let meta = meta.expect("a committed entry is in the log");
            let bytes = u64::from(meta.bytes) + ENTRY_APPLY_BYTES;
            // Nor is one begun that few steps are left for: it would be half applied at the end.
            let spent = applied + bytes > APPLY_BYTES_PER_TURN || steps < GROUP_STEPS;
            if applied > 0 && spent {
                break;
            }
            // Nothing is applied behind an entry that is half applied.
            if self.apply_next(meta, &mut steps) == Sliced::More {
                break;
            }
            if self.fatal.is_some() {
                break;
            }
            applied += bytes;
            self.note_state_hash();
            if ends_one {
                break;
            }
        }
        self.more_to_apply = self.store.applied() < commit && self.fatal.is_none();
        self.wal.trim_cache(self.store.applied());
        self.store.tidy(if idle { TIDY_PER_TURN } else { TIDY_BESIDE_APPLY });
        if let Some(retired) = self.store.take_retired() {
            self.wal.drop_in_background(retired);
        }
        if sets_the_time {
            self.stamp.heard = false;
        } else {
            self.stamp.follow(self.store.stamp_ms(), now);
        }
    }

    /// The stamp of an entry made now.
    pub(super) fn stamp_ms(&self, now: Instant) -> u64 {
        if self.sets_the_time() { self.stamp.at(now) } else { self.store.stamp_ms() }
    }

    /// Whether this is a leader that has applied all that others stamped. Its own stamps it does
    /// not count on from: they are older by what a commit takes, and its time would run slow.
    pub(super) fn sets_the_time(&self) -> bool {
        let Stage::Member(raft) = &self.stage else { return false };
        // The last entry applied may be in a snapshot only: the core knows its term all the same.
        raft.is_leader() && raft.term_at(self.store.applied()) == Some(raft.term())
    }

    /// Applies one entry, or goes on with it, as far as `steps` go.
    fn apply_next(&mut self, meta: EntryInfo, steps: &mut usize) -> Sliced {
        let index = self.store.applied().next();
        match meta.kind {
            EntryKind::Commands => {
                return self.apply_commands(LogPosition::new(meta.term, index), steps);
            }
            EntryKind::NoOp => {
                self.lose_waiters(LogPosition::new(meta.term, index));
                self.store.apply_other(index);
            }
            EntryKind::Configuration => {
                self.lose_waiters(LogPosition::new(meta.term, index));
                self.store.apply_other(index);
                self.configuration_committed(LogPosition::new(meta.term, index));
            }
        }
        Sliced::Done
    }

    /// Nobody waits for an entry without commands, but somebody may for the one whose place it
    /// took.
    fn lose_waiters(&mut self, position: LogPosition) {
        let none = self.pending.take(position, &mut self.scratch.lost);
        assert!(none.is_empty(), "only commands are waited for, and {position} holds none");
        self.pending.recycle(none);
    }

    /// Applies what an entry commands, as far as `steps` go. Who waits for a command is answered
    /// once that is applied; reads see none of them before all are.
    fn apply_commands(&mut self, position: LogPosition, steps: &mut usize) -> Sliced {
        let payload = match self.wal.payload(position.index, &mut self.scratch.payload) {
            Ok(payload) => payload,
            Err(damaged) => {
                let why = damaged.to_string();
                self.fail(Fatal::Entry { index: position.index, why });
                return Sliced::Done;
            }
        };
        let waiters = self.pending.take(position, &mut self.scratch.lost);
        let mut asking = waiters.iter();
        let (connections, leases) = (&mut self.connections, &mut self.leases);
        let compaction = &mut self.compaction;
        let applied = self.store.apply_slice(position, payload, steps, &mut |answer| {
            leases.on_answer(&answer.outline);
            if let Some(waiter) = asking.next() {
                if waiter.connection == ConnectionId::NOBODY {
                    compaction.on_own_answer(&answer.outline);
                }
                connections.answer(waiter.connection, |out| write_reply(out, waiter, &answer));
            }
        });
        let answered = waiters.len() - asking.len();
        if applied == Ok(Sliced::More) {
            self.pending.put_back(position, waiters, answered);
            return Sliced::More;
        }
        self.pending.recycle(waiters);
        self.stamp.heard = true;
        if let Err(error) = applied {
            self.fail(Fatal::Entry { index: position.index, why: error.to_string() });
        }
        Sliced::Done
    }

    /// Tells those whose entry was replaced, or whose leader stepped down, that nobody here knows.
    pub(super) fn answer_lost(&mut self) {
        for waiter in self.scratch.lost.drain(..) {
            self.connections.answer(waiter.connection, |out| {
                error_reply(out, waiter.request, &Error::OutcomeUnknown);
            });
        }
    }

    /// Serves the reads whose index is applied.
    pub(super) fn serve_reads(&mut self) {
        if self.store.is_halfway() {
            return;
        }
        while let Some(batch) = self.reads.take_ready(self.store.applied()) {
            for (nth, group) in batch.reads().chunks(READ_GROUP).enumerate() {
                self.store.warm(group.iter().filter_map(|read| batch.asked(read).key()));
                for (at, read) in group.iter().enumerate() {
                    let asker = batch.asker(nth * READ_GROUP + at);
                    self.answer_read(read.connection, read.request, asker, batch.asked(read));
                }
            }
            self.reads.recycle(batch);
        }
        // A client that was too slow gets a later state than it asked for, which is no less
        // linearizable.
        let mut budget = 64;
        while budget > 0
            && self.ranges.may_begin()
            && let Some((id, deferred)) = self.connections.take_deferred()
        {
            let asked = Asked::decode(deferred.op, &deferred.args);
            self.answer_read(id, deferred.request, deferred.asker, asked);
            budget -= 1;
        }
    }

    /// A server that lags, its disk full say, sends those who have waited for long elsewhere.
    pub(super) fn refuse_overdue_reads(&mut self, now: Instant) {
        while self.reads_wake_at() <= now
            && let Some(batch) = self.reads.take_oldest()
        {
            let error = match &self.stage {
                Stage::Member(raft) if !raft.is_leader() => self.not_leader(raft.leader()),
                Stage::Member(_) | Stage::Alone(_) | Stage::Founding => {
                    Error::Busy { what: "this server lags behind its log".into() }
                }
            };
            self.refuse_reads(batch, &error);
        }
    }

    /// When reads that wait for this server to apply are sent elsewhere.
    pub(super) fn reads_wake_at(&self) -> Instant {
        let patience_ns = self.options.election_timeout_ns * READ_PATIENCE_ELECTIONS;
        self.reads.confirmed_since().map_or(Instant::FAR, |since| since.after_ns(patience_ns))
    }

    /// Answers a batch of reads with an error.
    pub(super) fn refuse_reads(&mut self, batch: ReadBatch, error: &Error) {
        for read in batch.reads() {
            self.connections.answer(read.connection, |out| {
                error_reply(out, read.request, error);
            });
        }
        self.reads.recycle(batch);
    }

    /// Answers one read from the applied state, or later if the client does not read fast enough,
    /// or if an entry is half applied.
    pub(super) fn answer_read(
        &mut self,
        id: ConnectionId,
        request: u64,
        asker: Asker,
        asked: Asked<'_>,
    ) {
        if self.store.is_halfway() {
            let (op, mut args) = (asked.op(), Vec::new());
            asked.encode(&mut args);
            return self.connections.defer(id, Deferred { request, op, asker, args });
        }
        if let Err(error) = self.may_read(asker, &asked) {
            return self.connections.answer(id, |out| error_reply(out, request, &error));
        }
        let waiter = Waiter { connection: id, request };
        let txn = match asked {
            Asked::Lease(asked) => return self.answer_lease(waiter, asker, asked),
            Asked::Range(args) => return self.answer_range(waiter, asker, &args),
            Asked::Auth(asked) => return self.answer_auth(id, request, asked),
            Asked::Txn(txn) => txn,
        };
        // Large replies wait for room; small ones need not wait for those who do not read.
        let most = match self.connections.has_room_for_large() {
            true => usize::MAX,
            false => limits::RANGE_REPLY_BYTES_SMALL,
        };
        let (store, mut walked) = (&self.store, 0);
        let written = match self.ranges.may_begin() {
            false => Written::Nothing,
            true => self.connections.answer_if_read(id, |out| {
                let fits = write_txn(out, store, (request, txn), most, &mut walked);
                if fits { Written::Whole } else { Written::Nothing }
            }),
        };
        // As that of a range: many of them may come in one turn.
        self.ranges.spend_to(self.ranges.fresh_steps().saturating_sub(walked));
        if written == Written::Nothing {
            let args = txn.args().to_vec();
            self.connections.defer(id, Deferred { request, op: Op::ReadTxn, asker, args });
        }
    }
}

fn write_reply(out: &mut Vec<u8>, waiter: &Waiter, answer: &Answer<'_>) {
    let (id, body) = (waiter.request, answer.body);
    match answer.outline {
        CommandReply::Put { revision } => put_reply(out, id, revision),
        CommandReply::DeleteRange { revision, deleted } => delete_reply(out, id, revision, deleted),
        CommandReply::Compact { revision, refused: None } => compact_reply(out, id, revision),
        CommandReply::Compact { refused: Some(why), .. } => {
            error_reply(out, id, &error_of_range(why));
        }
        CommandReply::OpenSession { session } => session_reply(out, id, session),
        CommandReply::PutIf { revision, refused } => put_if_reply(out, id, revision, refused),
        CommandReply::PutWith { revision } => put_with_reply(out, id, revision, body),
        CommandReply::DeleteRangeWith { revision, deleted } => {
            delete_with_reply(out, id, revision, deleted, body);
        }
        CommandReply::Txn { revision, succeeded } => {
            txn_reply(out, id, Op::Txn, &TxnOutcome { revision, succeeded, results: body });
        }
        CommandReply::LeaseGrant { revision, lease, ttl_s } => {
            lease_term_reply(out, id, Op::LeaseGrant, &LeaseTerm { revision, lease, ttl_s });
        }
        CommandReply::LeaseRevoke { revision } => lease_revoke_reply(out, id, revision),
        CommandReply::Auth { revision, auth_revision } => {
            auth_reply(out, id, revision, auth_revision);
        }
        // Who waits for one has asked for a keep-alive.
        CommandReply::LeaseCheckpoint { revision, lease, ttl_s } => {
            lease_term_reply(out, id, Op::LeaseKeepAlive, &LeaseTerm { revision, lease, ttl_s });
        }
        // Nobody waits for an expiry; who waits for what came to be void hears that.
        CommandReply::LeaseExpire { .. } | CommandReply::Void { .. } => {
            error_reply(out, id, &Error::OutcomeUnknown);
        }
        CommandReply::Refused { why } => error_reply(out, id, &error_of_refusal(why)),
        CommandReply::SessionExpired => error_reply(out, id, &Error::SessionExpired),
        CommandReply::CallAcknowledged => error_reply(out, id, &Error::CallAcknowledged),
        CommandReply::AnswerNotKept { revision } => {
            error_reply(out, id, &Error::AnswerNotKept { revision });
        }
    }
}

pub(super) fn error_of_range(why: RangeError) -> Error {
    match why {
        RangeError::Compacted { compact_revision } => Error::Compacted { compact_revision },
        RangeError::Future { revision } => Error::FutureRevision { revision },
    }
}

fn error_of_refusal(why: Refusal) -> Error {
    match why {
        Refusal::KeyNotFound => Error::KeyNotFound,
        Refusal::LeaseNotFound => Error::LeaseNotFound,
        Refusal::LeaseExists => Error::LeaseExists,
        Refusal::TooManyLeases => Error::TooManyLeases { max: as_u64(limits::LEASES_MAX) },
        Refusal::Range(why) => error_of_range(why),
        Refusal::AnswerTooLarge => {
            Error::AnswerTooLarge { max: as_u64(limits::RANGE_REPLY_BYTES_MAX) }
        }
        Refusal::Auth(why) => Error::Auth { why },
        Refusal::Denied(why) => Error::Denied { why },
    }
}

/// Answers a transaction that only reads; adds the steps that it takes. `false`: that would be more
/// than `most` bytes, and nothing is written.
fn write_txn(
    out: &mut Vec<u8>,
    store: &kv::Store,
    (id, txn): (u64, Txn<'_>),
    most: usize,
    walked: &mut usize,
) -> bool {
    let mut results = Vec::new();
    match store.read_txn(txn, walked, &mut results) {
        Ok(_) if results.len() > most => return false,
        Ok(succeeded) => {
            let outcome = TxnOutcome { revision: store.revision(), succeeded, results: &results };
            txn_reply(out, id, Op::ReadTxn, &outcome);
        }
        Err(why) => error_reply(out, id, &error_of_refusal(why)),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stamps once began at the wall clock of whoever led, and one that was an hour ahead ended
    /// every session there was.
    #[test]
    fn a_leaders_time_counts_on_from_the_last_stamp_and_from_no_clock() {
        let at = |ms: u64| Instant::from_ns(ms * 1_000_000);
        let mut stamp = Stamp::new(at(7_000_000));
        assert_eq!(stamp.at(at(7_000_005)), 5);
        stamp.follow(900, at(7_000_010));
        assert_eq!(stamp.at(at(7_000_010)), 900);
        assert_eq!(stamp.at(at(7_000_030)), 920);
        stamp.follow(900, at(7_000_040));
        stamp.follow(800, at(7_000_040));
        assert_eq!(stamp.at(at(7_000_040)), 930, "an old stamp sets nothing back");
        stamp.heard = true;
        stamp.follow(900, at(7_000_050));
        assert_eq!(stamp.at(at(7_000_060)), 910, "but that of a new entry does");
    }
}
