//! When the history is given up: it exceeds its bytes, or it is older than it need be. Only a
//! leader decides, and puts the revision into the log; all apply.

use super::connections::ConnectionId;
use super::pending::Waiter;
use super::{Node, Stage};
use crate::kv::command::ASKER_BYTES_MAX;
use crate::kv::{self, CommandReply, Refusal};
use crate::types::{Instant, Revision};
use std::collections::VecDeque;

/// Moments noted within the age of the history: it is kept for so much of that longer at most.
const MARKS_PER_AGE: u64 = 16;

/// A turn with other work tries at once; without any, this long after an attempt in vain. A tenth
/// of a second.
const RETRY_NS: u64 = 100_000_000;

/// What was newest at a moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    revision: Revision,
}

/// What a node remembers of compactions.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// What this leadership proposed last.
    proposed: Revision,
    /// Moments that are younger than the age, oldest first, and at most one that is not. Everybody
    /// notes them, so that a new leader knows; a server that starts knows none.
    marks: VecDeque<Mark>,
    /// What was proposed found no room or was refused: nobody wakes up for it before.
    retry_at: Instant,
}

impl Compaction {
    /// A new leadership proposes anew what the last one may have lost.
    pub(super) fn forget(&mut self) {
        self.proposed = Revision(0);
    }

    /// The state is lost, and with it what its revisions meant.
    pub(super) fn forget_all(&mut self) {
        *self = Compaction::default();
    }

    /// What a leader's own command came to. A compaction that was proposed while rights did not
    /// count, and applied after they did, was nobody's.
    pub(super) fn on_own_answer(&mut self, outline: &CommandReply) {
        if let CommandReply::Refused { why: Refusal::Denied(_) } = outline {
            self.forget();
        }
    }

    /// What was proposed did not enter the log.
    pub(super) fn refused(&mut self, now: Instant) {
        self.forget();
        self.retry_at = now.after_ns(RETRY_NS);
    }

    /// Notes the newest revision now and then. Only what changes is noted: an idle store has
    /// nothing to give up but once.
    fn note(&mut self, now: Instant, revision: Revision, age_ns: u64) {
        let due = |last: &Mark| {
            last.revision < revision && last.at.after_ns(age_ns / MARKS_PER_AGE) <= now
        };
        if self.marks.back().is_none_or(due) {
            self.marks.push_back(Mark { at: now, revision });
        }
        let is_old = |mark: &Mark| mark.at.after_ns(age_ns) <= now;
        while self.marks.get(1).is_some_and(is_old) {
            self.marks.pop_front();
        }
    }

    /// What was superseded up to this revision is as old as `age_ns`.
    fn outlived(&self, now: Instant, age_ns: u64) -> Option<Revision> {
        let oldest = self.marks.front()?;
        (oldest.at.after_ns(age_ns) <= now).then_some(oldest.revision)
    }

    /// When something is to be noted or given up next, if the store stays as it is.
    fn wake_at(&self, newest: Revision, compacted: Revision, age_ns: u64) -> Instant {
        let unnoted = self.marks.back().filter(|last| last.revision < newest);
        let note_at = unnoted.map(|last| last.at.after_ns(age_ns / MARKS_PER_AGE));
        let kept = self.marks.iter().find(|mark| mark.revision > compacted);
        let give_up_at = kept.map(|mark| mark.at.after_ns(age_ns));
        let give_up_at = give_up_at.map(|at| at.max(self.retry_at));
        note_at.into_iter().chain(give_up_at).fold(Instant::FAR, Instant::min)
    }
}

impl Node {
    /// Proposes a compaction when one is due.
    pub(super) fn propose_compaction(&mut self, now: Instant) {
        // A state that is lost may have other revisions, and within an entry the next one is not
        // made whose history counts already.
        if self.lost_states.is_own() || self.store.is_halfway() {
            return;
        }
        let age_ns = self.options.history_age_ns;
        if let Some(age_ns) = age_ns {
            self.compaction.note(now, self.store.revision(), age_ns);
        }
        let Stage::Member(raft) = &self.stage else { return };
        if !raft.leader_ready() || self.store.compact_revision() < self.compaction.proposed {
            return;
        }
        let outlived = age_ns.and_then(|age_ns| self.compaction.outlived(now, age_ns));
        let outlived = outlived.filter(|revision| *revision > self.store.compact_revision());
        let Some(revision) = self.store.compaction_due().max(outlived) else { return };
        let mut command = Vec::new();
        kv::command::encode_command(&mut command, kv::Command::Compact { revision });
        let asker = self.cluster_asker();
        let bytes = command.len() + if asker.login.is_some() { ASKER_BYTES_MAX } else { 0 };
        if !self.has_room_for(bytes) {
            return self.compaction.refused(now);
        }
        let nobody = Waiter { connection: ConnectionId::NOBODY, request: 0 };
        self.gather(asker, &command, nobody, now);
        self.compaction.proposed = revision;
    }

    /// When a turn is wanted for the history's age.
    pub(super) fn compaction_wake_at(&self) -> Instant {
        let Some(age_ns) = self.options.history_age_ns else { return Instant::FAR };
        let Stage::Member(raft) = &self.stage else { return Instant::FAR };
        if !raft.leader_ready() || self.lost_states.is_own() {
            return Instant::FAR;
        }
        let compacted = self.store.compact_revision();
        // One at a time: the turn that applies the last one looks for the next.
        let under_way = compacted < self.compaction.proposed;
        let compacted = if under_way { self.store.revision() } else { compacted };
        self.compaction.wake_at(self.store.revision(), compacted, age_ns)
    }
}
