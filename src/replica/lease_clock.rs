//! What a leader knows of when leases are due, and which of them is next. No log here, no clients:
//! `leases` carries out what this says.
//!
//! The next one that is due is found in a set ordered by time. A keep-alive does not move it there:
//! it comes up at the time it was due before, and goes back. So a leader with idle leases does
//! nothing, and one whose leases are kept alive as often as not does it once a lease and time.
//!
//! A lease about which an entry is under way stands in no queue: what is due of it is seen when the
//! entry is applied.

use std::collections::{BTreeMap, BTreeSet};

use super::pending::Waiter;
use crate::kv::{CommandReply, LeaseRow};
use crate::types::Term;

/// Leases looked at for each that was granted or revoked: enough that those that are known and gone
/// are not many more than those that are there.
const LOOKS: usize = 2;

/// How long a lease waits whose entry found no room, or whose leader was busy. Milliseconds.
const RETRY_MS: u64 = 100;

/// How long after it is due a lease is ended, since times are rounded down to milliseconds.
/// Milliseconds.
const LATE_MS: u64 = 10;

/// What a leader knows of a lease. Milliseconds of stamps.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Which grant it knows.
    grant: u64,
    due_ms: u64,
    /// When it was kept alive last; before that, when the office began.
    kept_ms: u64,
    /// Where it stands in the queue.
    queued_ms: Option<u64>,
    /// Entries about it that are not applied.
    under_way: u32,
}

impl Known {
    /// When the lease may be ended.
    fn ends_ms(&self) -> u64 {
        self.due_ms.saturating_add(LATE_MS)
    }
}

/// The leases in the eyes of one leader.
#[derive(Debug)]
pub(super) struct Office {
    pub(super) term: Term,
    began_ms: u64,
    /// Leases from this one on are not taken over yet.
    pub(super) arming: Option<u64>,
    known: BTreeMap<u64, Known>,
    queue: BTreeSet<(u64, u64)>,
    /// Where the next look for those that are gone begins.
    looked_at: u64,
    /// Those about which the turn's entry says something.
    proposed: Vec<u64>,
    /// Nothing is proposed before.
    retry_ms: u64,
    /// A lease that was left alone for so long is noted in the log.
    checkpoint_ms: u64,
}

/// What is due of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// Its time is over.
    Expiry,
    /// The log is to know when it is due.
    Checkpoint {
        due_ms: u64,
    },
    Nothing,
}

impl Office {
    pub(super) fn new(term: Term, began_ms: u64, checkpoint_ms: u64) -> Office {
        Office {
            term,
            began_ms,
            arming: Some(0),
            known: BTreeMap::new(),
            queue: BTreeSet::new(),
            looked_at: 0,
            proposed: Vec::new(),
            retry_ms: 0,
            checkpoint_ms,
        }
    }

    /// Of how many leases it knows.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Takes over a lease, unless it is known: it may have been kept alive in this term.
    /// `grace_ms`: what clients need to find the new leader; a grant of this term is for longer. A
    /// grant that was asked for twice is answered twice, and the second time the lease may
    /// be one that others granted, which somebody keeps alive.
    pub(super) fn take_over(&mut self, row: &LeaseRow, grace_ms: u64) {
        if self.known.get(&row.id).is_some_and(|known| known.grant == row.grant) {
            return;
        }
        let due_ms = if row.due_ms == 0 { self.began_ms + row.ttl_s * 1000 } else { row.due_ms };
        let due_ms = due_ms.max(self.began_ms + grace_ms);
        let (grant, kept_ms) = (row.grant, self.began_ms);
        self.enter(row.id, Known { grant, due_ms, kept_ms, queued_ms: None, under_way: 0 });
    }

    /// What is under way is of the number, whichever grant it means.
    fn enter(&mut self, id: u64, mut known: Known) {
        if let Some(before) = self.known.get(&id) {
            known.under_way = before.under_way;
            if let Some(queued_ms) = before.queued_ms {
                self.queue.remove(&(queued_ms, id));
            }
        }
        self.known.insert(id, known);
        if known.under_way == 0 {
            self.queue(id, known.ends_ms());
        }
    }

    /// Queues a lease that is known and in no queue.
    pub(super) fn queue(&mut self, id: u64, at_ms: u64) {
        let known = self.known.get_mut(&id).expect("what is queued is known");
        assert!(known.queued_ms.is_none(), "it is in the queue once");
        assert_eq!(known.under_way, 0, "an entry about it queues it when it is applied");
        known.queued_ms = Some(at_ms);
        self.queue.insert((at_ms, id));
    }

    fn unqueue(&mut self, id: u64) {
        let known = self.known.get_mut(&id).expect("what is queued is known");
        if let Some(queued_ms) = known.queued_ms.take() {
            self.queue.remove(&(queued_ms, id));
        }
    }

    /// Whether something may be due.
    pub(super) fn is_up(&self, now_ms: u64) -> bool {
        self.retry_ms <= now_ms && self.queue.first().is_some_and(|(at_ms, _)| *at_ms <= now_ms)
    }

    /// Nothing more is proposed for a while.
    pub(super) fn retry_later(&mut self, now_ms: u64) {
        self.retry_ms = now_ms + RETRY_MS;
    }

    /// Takes the next lease out of the queue that is up at `now_ms`.
    pub(super) fn pop(&mut self, now_ms: u64) -> Option<u64> {
        if !self.is_up(now_ms) {
            return None;
        }
        let (_, id) = self.queue.first().copied()?;
        self.unqueue(id);
        Some(id)
    }

    /// What is due of a lease that has just come up; if nothing, it is queued again.
    pub(super) fn judge(&mut self, row: &LeaseRow, now_ms: u64) -> Due {
        let known = self.known[&row.id];
        let Known { due_ms, kept_ms, .. } = known;
        if known.ends_ms() <= now_ms {
            return Due::Expiry;
        }
        let noted_ms = kept_ms.saturating_add(self.checkpoint_ms);
        if row.due_ms != 0 || due_ms <= noted_ms {
            self.queue(row.id, known.ends_ms());
            return Due::Nothing;
        }
        if noted_ms <= now_ms {
            return Due::Checkpoint { due_ms };
        }
        self.queue(row.id, noted_ms);
        Due::Nothing
    }

    /// The turn's entry says something of a lease.
    pub(super) fn propose(&mut self, id: u64) {
        self.unqueue(id);
        self.known.get_mut(&id).expect("what is proposed is known").under_way += 1;
        self.proposed.push(id);
    }

    /// An entry about a lease is applied, or in no log: what is due of it now is seen at once.
    fn settle(&mut self, id: u64) {
        let known = self.known.get_mut(&id).expect("something of it is under way");
        assert!(known.under_way > 0, "it was counted when it was proposed");
        known.under_way -= 1;
        if known.under_way == 0 {
            self.queue(id, 0);
        }
    }

    /// A lease that stands in no queue is gone.
    pub(super) fn forget(&mut self, id: u64) {
        let known = self.known.remove(&id).expect("what is forgotten is known");
        assert_eq!((known.queued_ms, known.under_way), (None, 0), "nothing leads to it");
    }

    /// Looks at some of the leases that are known, round and round, and forgets those that are
    /// gone: whoever revokes what is due in centuries would fill the memory. `changes`: how many
    /// were granted or revoked since the last call.
    pub(super) fn look_for_gone(&mut self, changes: usize, is_there: impl Fn(u64) -> bool) {
        for _ in 0..changes * LOOKS {
            let mut next = self.known.range(self.looked_at..).map(|(id, it)| (*id, it.under_way));
            let Some((id, under_way)) = next.next() else {
                self.looked_at = 0;
                continue;
            };
            self.looked_at = id.wrapping_add(1);
            if under_way == 0 && !is_there(id) {
                self.unqueue(id);
                self.forget(id);
            }
        }
    }

    /// When a lease that was taken over is due.
    pub(super) fn due_ms(&self, id: u64) -> u64 {
        self.known[&id].due_ms
    }

    /// A keep-alive waits for its round: the lease does not end meanwhile.
    pub(super) fn hold(&mut self, id: u64, until_ms: u64) {
        if let Some(known) = self.known.get_mut(&id) {
            known.due_ms = known.due_ms.max(until_ms);
        }
    }

    /// Whether a keep-alive needs an entry: the log says when the lease is due, or is about to say
    /// something of it.
    pub(super) fn needs_entry(&self, row: &LeaseRow) -> bool {
        row.due_ms != 0 || self.known[&row.id].under_way > 0
    }

    /// Lets a lease live for its whole time from `now_ms` on.
    pub(super) fn keep_alive(&mut self, row: &LeaseRow, now_ms: u64) {
        let known = self.known.get_mut(&row.id).expect("it was taken over");
        known.due_ms = known.due_ms.max(now_ms + row.ttl_s * 1000);
        known.kept_ms = now_ms;
    }

    fn wake_ms(&self) -> Option<u64> {
        if self.arming.is_some() {
            return Some(0);
        }
        self.queue.first().map(|(at_ms, _)| (*at_ms).max(self.retry_ms))
    }
}

/// What a server knows of when leases are due: something only while it leads.
#[derive(Debug, Default)]
pub(super) struct LeaseClock {
    pub(super) office: Option<Office>,
    /// Granted by the entries just applied.
    pub(super) granted: Vec<u64>,
    /// Grants and revocations among the entries just applied.
    pub(super) changes: usize,
    /// Kept alive, and the log says when they are due, or is about to: an entry of the next turn is
    /// to take that back, and its stamp must be of that turn, too.
    pub(super) to_take_back: Vec<(u64, Waiter)>,
}

impl LeaseClock {
    /// When leases must be looked at. Stamp.
    pub(super) fn wake_ms(&self) -> Option<u64> {
        self.office.as_ref().and_then(Office::wake_ms)
    }

    /// Looks at what a command answered.
    #[inline]
    pub(super) fn on_answer(&mut self, outline: &CommandReply) {
        let Some(office) = &mut self.office else { return };
        match *outline {
            CommandReply::LeaseGrant { lease, .. } => {
                self.granted.push(lease);
                self.changes += 1;
            }
            CommandReply::LeaseRevoke { .. } => self.changes += 1,
            // Of this term, so of this office.
            CommandReply::LeaseExpire { lease, .. }
            | CommandReply::LeaseCheckpoint { lease, .. } => office.settle(lease),
            // Of a leader before, which this server was: that office is over.
            CommandReply::Void { .. }
            | CommandReply::Put { .. }
            | CommandReply::DeleteRange { .. }
            | CommandReply::Compact { .. }
            | CommandReply::OpenSession { .. }
            | CommandReply::PutIf { .. }
            | CommandReply::PutWith { .. }
            | CommandReply::DeleteRangeWith { .. }
            | CommandReply::Txn { .. }
            | CommandReply::Auth { .. }
            | CommandReply::Refused { .. }
            | CommandReply::SessionExpired
            | CommandReply::CallAcknowledged
            | CommandReply::AnswerNotKept { .. } => {}
        }
    }

    /// The turn's entry is in the log.
    pub(super) fn on_entry_proposed(&mut self) {
        if let Some(office) = &mut self.office {
            office.proposed.clear();
        }
    }

    /// The turn's entry is in no log, and never will be.
    pub(super) fn on_entry_refused(&mut self, now_ms: u64) {
        let Some(office) = &mut self.office else { return };
        for id in std::mem::take(&mut office.proposed) {
            office.settle(id);
        }
        office.retry_later(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN_MS: u64 = 10_000;
    const GRACE_MS: u64 = 900;

    fn office() -> Office {
        Office::new(Term::new(2), BEGAN_MS, u64::MAX)
    }

    fn row(id: u64, due_ms: u64) -> LeaseRow {
        LeaseRow { id, grant: id, ttl_s: 3, due_ms }
    }

    /// A copy of a grant is answered while a new leader still takes over its many leases. It was
    /// believed to be a grant of this term, due when the table says: at once, if the table does not
    /// say.
    #[test]
    fn the_copy_of_a_grant_makes_no_lease_due_that_is_not_taken_over_yet() {
        let mut office = office();
        office.take_over(&row(7, 0), GRACE_MS);
        assert_eq!(office.due_ms(7), BEGAN_MS + 3_000, "who kept it alive was told so");
        office.take_over(&row(8, BEGAN_MS - 1_000), GRACE_MS);
        assert_eq!(office.due_ms(8), BEGAN_MS + GRACE_MS, "its holder has yet to find us");
        assert!(!office.is_up(BEGAN_MS));
    }

    /// A lease that was granted late in a millisecond was ended early in the one that is later by
    /// its time: before its time had passed, and a client saw that.
    #[test]
    fn what_the_rounding_of_times_takes_from_a_lease_is_given_to_it() {
        let mut office = office();
        office.take_over(&row(7, BEGAN_MS + 3_000), GRACE_MS);
        for early_ms in [BEGAN_MS + 3_000, BEGAN_MS + 3_001] {
            assert!(!office.is_up(early_ms), "it may be as early as this");
        }
        office.propose(7);
        office.settle(7);
        assert_eq!(office.pop(BEGAN_MS + 3_001), Some(7));
        assert!(office.judge(&row(7, BEGAN_MS + 3_000), BEGAN_MS + 3_001) == Due::Nothing);
        assert_eq!(office.pop(BEGAN_MS + 3_000 + LATE_MS), Some(7));
        assert!(office.judge(&row(7, BEGAN_MS + 3_000), BEGAN_MS + 3_000 + LATE_MS) == Due::Expiry);
    }

    /// A lease that was revoked was known until it would have been due: whoever granted one for a
    /// thousand years and revoked it, again and again, filled the leader's memory.
    #[test]
    fn leases_that_were_revoked_are_forgotten_and_those_that_are_there_are_not() {
        let (mut office, there) = (office(), 100);
        for id in 1..=10_000 {
            office.take_over(&row(id, u64::MAX), GRACE_MS);
            let changes = if id <= there { 1 } else { 2 };
            office.look_for_gone(changes, |id| id <= there);
        }
        assert!((1..=there).all(|id| office.known.contains_key(&id)));
        assert!(office.known.len() <= 200, "{} are known", office.known.len());
        assert_eq!(office.queue.len(), office.known.len());
        office.propose(1);
        office.look_for_gone(1_000, |_| false);
        assert_eq!(office.known.len(), 1, "an entry about it is under way");
    }
}
