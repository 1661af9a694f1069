//! The follower's side of replication. Figure 2, AppendEntries, receiver implementation.

use super::Raft;
use super::durability::Durable;
use super::message::{AppendOutcome, EntryMeta, Message};
use super::output::{Body, LogOp, Mark, Notice, Send};
use super::role::{Follower, Following, Refusal, Role};
use crate::limits::ENTRY_OVERHEAD_BYTES;
use crate::types::{Instant, LogIndex, LogPosition, NodeId, Term};

/// What of a message is to be appended: pass over `skip`, take `count`.
#[derive(Clone, Copy)]
struct Taken {
    skip: usize,
    count: usize,
}

impl Raft {
    /// Entries, or a probe, from the leader of our term. `follow` has heard it.
    pub(super) fn on_append(
        &mut self,
        prev: LogPosition,
        entries: &[EntryMeta],
        commit: LogIndex,
        room_bytes: u64,
    ) {
        if !is_sound(self.hard_state.term, prev, entries) {
            self.output.marks.add(Mark::Malformed);
            return;
        }
        let Some(below) = self.pass_over_base(prev, entries) else { return };
        let prev = if below > 0 { self.log.base() } else { prev };
        // Receiver 2: the entry before must be ours too. Three answers, no default term: ours,
        // another, none.
        if self.log.term_at(prev.index) != Some(prev.term) {
            self.refuse_conflict(prev);
            return;
        }
        // Receiver 3: the first entry that is not ours. Those before it stay: truncating what a
        // message merely repeats would remove what was acknowledged.
        let known = entries[below..].iter().zip(indexes_after(prev.index));
        let ours = known.take_while(|(e, at)| self.log.term_at(*at) == Some(e.term)).count();
        let skip = below + ours;
        let keep = prev.index.advanced_by(count(ours));
        if keep < self.log.last().index && skip < entries.len() && !self.may_cut(keep) {
            self.report_violation(keep.next(), entries[skip].term);
            return;
        }
        let taken = Taken { skip, count: fitting(&entries[skip..], room_bytes) };
        self.take(keep, entries, taken);
        let end = keep.advanced_by(count(taken.count));
        self.verify(end, commit);
        self.answer_later_or_now(end, entries, taken);
    }

    /// How many of the entries lie at or before our base: a snapshot stands for them. They are
    /// committed, so the leader's are the same (Leader Completeness), and the last of them is our
    /// base. `None` if the message ends there, and all is said.
    fn pass_over_base(&mut self, prev: LogPosition, entries: &[EntryMeta]) -> Option<usize> {
        let base = self.log.base();
        if prev.index >= base.index {
            return Some(0);
        }
        self.output.marks.add(Mark::BelowBase);
        let below = usize::try_from(base.index.count_since(prev.index)).unwrap_or(usize::MAX);
        match entries.get(below - 1) {
            Some(entry) if entry.term == base.term => Some(below),
            Some(entry) => {
                self.report_violation(base.index, entry.term);
                None
            }
            None => {
                self.answer_later_or_now(base.index, &[], Taken { skip: 0, count: 0 });
                None
            }
        }
    }

    /// The leader is there. It says nothing about entries that it has not seen us verify.
    pub(super) fn on_heartbeat(&mut self, commit: LogIndex) {
        let Some(following) = following(&mut self.role) else { return };
        following.reply_due = true;
        let verified = following.verified;
        self.commit_index = self.commit_index.max(commit.min(verified));
    }

    /// There is so much room as there will ever be at once, in bytes as `step` takes them. A leader
    /// that was told that there was none need not wait for its next heartbeat to try; if it is
    /// still to be told, it hears of this later. An entry that no segment here holds would be tried
    /// again and again.
    pub fn on_room(&mut self, room_bytes: u64) {
        if let Some(following) = following(&mut self.role)
            && following.cramped.is_some_and(|bytes| room_taken(bytes) <= room_bytes)
            && following.refusal.is_none()
        {
            following.cramped = None;
            following.reply_due = true;
            self.output.marks.add(Mark::RoomAgain);
        }
    }

    /// Whether we follow, and take nothing, because there is no room for it.
    pub fn lacks_room(&self) -> bool {
        match &self.role {
            Role::Follower(follower) => {
                follower.following.as_ref().is_some_and(|it| it.cramped.is_some())
            }
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => false,
        }
    }

    /// Our log is durable further than before: what we owe the leader may have grown.
    pub(super) fn on_log_durable(&mut self) {
        let durable = self.durability.last();
        let Some(following) = following(&mut self.role) else { return };
        if following.verified.min(durable) > following.acked {
            following.reply_due = true;
        }
    }

    /// One answer for all that the turn brought, in a term that is durable.
    ///
    /// If it confirms a round, a lease may rest on it. So what counts from hearing the leader
    /// counts from now on: the clock was read after the message came, while the moment at which
    /// `follow` heard it may lie before it was sent, if we were stopped in between.
    pub(super) fn answer_leader(&mut self, now: Instant) {
        let term = self.hard_state.term;
        let term_durable = self.durability.of(self.hard_state) == Durable::Now;
        let durable = self.durability.last();
        let Role::Follower(follower) = &mut self.role else { return };
        let Some(following) = &mut follower.following else { return };
        if !following.reply_due || !term_durable {
            return;
        }
        if following.round > following.round_answered {
            let late_ns = now.ns_since(following.heard_at);
            following.heard_at = following.heard_at.max(now);
            follower.election_deadline = follower.election_deadline.after_ns(late_ns);
            self.promise_until = now.after_ns(self.settings.election_timeout_ns);
        }
        // What this leader sent us **and** is on our disk: more would be a promise we might break.
        let index = following.verified.min(durable);
        let outcome = match following.refusal.take() {
            None if following.cramped.is_none() => AppendOutcome::Matched { index },
            None | Some(Refusal::NoRoom) => AppendOutcome::NoRoom { index },
            Some(Refusal::Conflict { probe, hint }) => AppendOutcome::Conflict { probe, hint },
        };
        let matched = !matches!(outcome, AppendOutcome::Conflict { .. });
        following.acked = if matched { index.max(following.acked) } else { following.acked };
        following.reply_due = false;
        following.round_answered = following.round;
        let (session, round) = (following.session, following.round);
        let message = Message::AppendReply { term, session, round, outcome, first_faulty: None };
        self.output.sends.push(Send { to: following.leader, body: Body::Message(message) });
    }

    /// Whether the entries after `keep` may go: none that is committed or that this leader itself
    /// sent.
    fn may_cut(&mut self, keep: LogIndex) -> bool {
        let kept = self.commit_index <= keep && self.log.can_end_at(keep);
        kept && following(&mut self.role).is_some_and(|it| it.verified <= keep)
    }

    /// Receiver 3 and 4: truncation and appending are one step.
    fn take(&mut self, keep: LogIndex, entries: &[EntryMeta], taken: Taken) {
        if taken.count == 0 {
            return;
        }
        if keep < self.log.last().index {
            assert!(keep >= self.commit_index, "committed entries are never truncated");
            self.log.truncate(keep);
            self.durability.truncated(keep);
            self.output.log_ops.push(LogOp::Truncate { to: self.log.last() });
            self.output.marks.add(Mark::Truncated);
        }
        let Taken { skip, count } = taken;
        let first = LogPosition::new(entries[skip].term, keep.next());
        for entry in &entries[skip..skip + count] {
            self.log.append(entry.term, entry.bytes);
        }
        self.durability.appended();
        self.output.log_ops.push(LogOp::Accept { skip, first, count });
    }

    /// Everything up to `end` equals the leader's log. Receiver 5, with the bound that the proof
    /// needs: what lies in our log behind `end` may be another leader's, whatever `commit` says.
    fn verify(&mut self, end: LogIndex, commit: LogIndex) {
        let Some(following) = following(&mut self.role) else { return };
        following.verified = following.verified.max(end);
        self.commit_index = self.commit_index.max(commit.min(end));
    }

    /// An answer that can say nothing new waits for the disk; the receipt will bring one. But a
    /// leader that repeats itself has not heard us, and must not take us for dead while we write.
    fn answer_later_or_now(&mut self, end: LogIndex, entries: &[EntryMeta], taken: Taken) {
        let durable = self.durability.last();
        let Some(following) = following(&mut self.role) else { return };
        let complete = taken.skip + taken.count == entries.len();
        if complete {
            following.refusal = None;
            following.cramped = following.cramped.filter(|_| entries.is_empty());
        } else {
            following.refusal = Some(Refusal::NoRoom);
            following.cramped = Some(entries[taken.skip + taken.count].bytes);
            self.output.marks.add(Mark::OutOfRoom);
        }
        let nothing_to_wait_for = end <= durable || !complete;
        let repeated = taken.count == 0;
        let confirms_round = following.round > following.round_answered;
        following.reply_due |= nothing_to_wait_for || repeated || confirms_round;
    }

    /// The leader's `prev` is not in our log: say where the logs may agree.
    fn refuse_conflict(&mut self, prev: LogPosition) {
        if prev.index <= self.commit_index {
            self.report_violation(prev.index, prev.term);
            return;
        }
        // Below `prev` by construction, and within our log: the leader must never be sent past our
        // end.
        let before = prev.index.prev().min(self.log.last().index);
        // An earlier term than that of our base is below what we know to be committed: say that.
        let hint = self.log.last_at_most(before, prev.term).unwrap_or(self.log.base());
        let Some(following) = following(&mut self.role) else { return };
        // Entries that follow others without room conflict too, but that is not news.
        if following.refusal != Some(Refusal::NoRoom) {
            following.refusal = Some(Refusal::Conflict { probe: prev.index, hint });
        }
        following.reply_due = true;
        self.output.marks.add(Mark::Conflicted);
    }

    fn report_violation(&mut self, index: LogIndex, theirs: Term) {
        let ours = self.log.position(index);
        let Some(following) = following(&mut self.role) else { return };
        let from: NodeId = following.leader;
        self.output.notices.push(Notice::SafetyViolated { from, ours, theirs });
    }
}

/// The follower's state towards its leader.
fn following(role: &mut Role) -> Option<&mut Following> {
    match role {
        Role::Follower(Follower { following, .. }) => following.as_mut(),
        Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => None,
    }
}

/// Whether a leader of `term` could have sent this: terms begin at one, never descend along a log
/// and never exceed the sender's; indexes are countable.
fn is_sound(term: Term, prev: LogPosition, entries: &[EntryMeta]) -> bool {
    let origin = prev == LogPosition::ZERO;
    let somewhere = prev.index > LogIndex::ZERO && prev.term > Term::ZERO;
    let countable = prev.index.get().checked_add(count(entries.len())).is_some();
    let mut before = prev.term;
    let ascending = entries.iter().all(|entry| {
        let follows = entry.term >= before && entry.term > Term::ZERO;
        before = entry.term;
        follows
    });
    (origin || somewhere) && countable && ascending && before <= term
}

/// What an entry of `bytes` takes: its payload and what a record adds to it. Bytes.
pub fn room_taken(bytes: u32) -> u64 {
    u64::from(bytes) + ENTRY_OVERHEAD_BYTES
}

/// How many entries fit.
fn fitting(entries: &[EntryMeta], room_bytes: u64) -> usize {
    let mut used = 0_u64;
    let fits = |entry: &&EntryMeta| {
        used = used.saturating_add(room_taken(entry.bytes));
        used <= room_bytes
    };
    entries.iter().take_while(fits).count()
}

fn indexes_after(index: LogIndex) -> impl Iterator<Item = LogIndex> {
    std::iter::successors(Some(index.next()), |at| Some(at.next()))
}

fn count(length: usize) -> u64 {
    u64::try_from(length).expect("lengths in memory fit")
}
