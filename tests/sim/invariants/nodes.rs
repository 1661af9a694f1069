//! After a turn: what the node holds now against what it held, what others hold, and the platters.

use super::quorums::is_quorum;
use super::{Committed, Proof, Seen, broken, must, since};
use crate::chain::{Link, own_hash};
use crate::chance::{u64_of, usize_of};
use crate::coverage::{Coverage, Point};
use crate::disk::SimDisk;
use crate::world::machine_of;
use raftd::raft::{Mark, Raft};
use raftd::replica::Inspection;
use raftd::types::{EntryKind, LogIndex, LogPosition, Term, Vote};
use raftd::wal::Wal;

/// What identifies the entry at `index` of a node's log.
pub(super) fn link_of(wal: &Wal, index: LogIndex) -> (Term, u64) {
    let meta = wal.meta(index).expect("the log holds its own entries");
    (meta.term, own_hash(meta.kind.code(), meta.bytes, meta.crc))
}

/// The payload of an entry with commands, nothing of others; `None` if it is damaged or compacted.
fn commands_in(wal: &Wal, index: LogIndex) -> Option<Vec<u8>> {
    let kind = wal.meta(index)?.kind;
    let mut scratch = Vec::new();
    match kind {
        EntryKind::Commands => wal.payload(index, &mut scratch).ok().map(<[u8]>::to_vec),
        EntryKind::NoOp | EntryKind::Configuration => Some(Vec::new()),
    }
}

/// What a leader was asked to confirm ends with it: a reader that is forgotten stands in the way
/// of all that come later, for one round is out at a time.
fn check_readers(machine: usize, raft: &Raft, unconfirmed: usize) {
    must!(
        unconfirmed == 0 || raft.leader().is_some(),
        "ReadersAnswered",
        "n{} waits for {unconfirmed} rounds, and knows of no leader",
        machine + 1
    );
}

impl Proof {
    /// Machine `machine` has taken a turn. Nothing of it has left yet.
    pub(crate) fn after_turn(
        &mut self,
        machine: usize,
        node: &Inspection<'_>,
        disks: &[SimDisk],
        coverage: &mut Coverage,
    ) {
        let mut seen = std::mem::take(&mut self.seen[machine]);
        let drafts = node.wal.draft_backlog().is_some();
        if drafts && !seen.drafts {
            seen.draft_end = node.wal.last().index;
        }
        seen.drafts = drafts;
        if let Some(raft) = node.raft {
            self.check_term(machine, &seen, raft);
        }
        let before = seen.chain.last();
        self.forget_said(machine);
        self.follow_log(machine, &mut seen, node, &disks[machine], coverage);
        if let Some(raft) = node.raft {
            self.check_leadership(machine, &mut seen, raft, coverage);
            self.check_configuration(machine, &mut seen, raft, coverage);
            // Who stops in the very turn in which it learns of another leader answers nobody.
            if !node.fails {
                check_readers(machine, raft, node.reads_unconfirmed);
            }
            self.check_commit(machine, &mut seen, (node, raft), disks, coverage);
            self.check_match(machine, &mut seen, raft, disks);
            self.check_uncommitted(machine, before, node, raft);
            self.check_log_size(machine, &seen, node, raft);
            mark_points(&seen, raft, coverage);
            seen.marks = *raft.marks();
            (seen.term, seen.vote) = (raft.term(), raft.hard_state().vote);
        }
        self.check_applied(machine, &mut seen, node, &disks[machine], coverage);
        self.seen[machine] = seen;
    }

    fn check_term(&self, machine: usize, seen: &Seen, raft: &Raft) {
        let state = raft.hard_state();
        must!(
            state.term >= seen.term,
            "TermMonotonic",
            "n{} goes from term {} to {}",
            machine + 1,
            seen.term,
            state.term
        );
        let voted = state.term == seen.term && seen.vote != Vote::None;
        must!(
            !voted || state.vote == seen.vote,
            "VoteDurability",
            "n{} changes its vote in term {} from {:?} to {:?}",
            machine + 1,
            state.term,
            seen.vote,
            state.vote
        );
    }

    /// Repeats the log's changes in the chain: O(changes), for a log changes only behind a place
    /// from which on terms differ.
    fn follow_log(
        &mut self,
        machine: usize,
        seen: &mut Seen,
        node: &Inspection<'_>,
        disk: &SimDisk,
        coverage: &mut Coverage,
    ) {
        let (base, last) = (node.wal.base(), node.wal.last().index);
        if seen.chain.at(base.index).is_none_or(|link| link.term != base.term) {
            self.follow_snapshot(machine, seen, base);
        }
        coverage.hit_if(base.index > seen.base, Point::LogDeleted);
        seen.base = base.index;
        self.check_snapshot(machine, seen, node, disk);
        let snapshot = node.wal.snapshot().map_or(LogIndex::ZERO, |it| it.id.position.index);
        coverage.hit_if(snapshot > seen.snapshot, Point::SnapshotMade);
        seen.snapshot = snapshot;
        let same = |seen: &Seen, at: LogIndex| {
            let Some(link) = seen.chain.at(at) else { return false };
            at <= base.index || (link.term, link.own) == link_of(node.wal, at)
        };
        if last == seen.chain.last() && same(seen, last) {
            return;
        }
        let mut keep = last.min(seen.chain.last());
        while !same(seen, keep) {
            keep = keep.prev();
        }
        if keep < seen.chain.last() {
            self.check_truncation(machine, seen, keep, node, disk, coverage);
            seen.chain.truncate(keep);
        }
        while seen.chain.last() < last {
            let index = seen.chain.last().next();
            let (term, own) = link_of(node.wal, index);
            let link = seen.chain.push(term, own);
            self.check_matching(machine, index, link);
        }
    }

    /// A snapshot has taken the place of a log that did not hold its last entry.
    fn follow_snapshot(&mut self, machine: usize, seen: &mut Seen, base: LogPosition) {
        let name = machine + 1;
        must!(
            base.index > seen.commit,
            "CommitMonotonic",
            "n{name} installs a snapshot up to {base}, but had committed {}",
            seen.commit
        );
        let Some(chain) = self.ground.up_to(base) else {
            broken("SnapshotCommitted", format!("n{name} installs a snapshot up to {base}"))
        };
        (seen.chain, seen.loaded, seen.loaded_end) = (chain, true, base.index);
        let acknowledged = &mut self.promises[machine].acknowledged;
        *acknowledged = (*acknowledged).min(base.index);
    }

    fn check_truncation(
        &mut self,
        machine: usize,
        seen: &Seen,
        keep: LogIndex,
        node: &Inspection<'_>,
        disk: &SimDisk,
        coverage: &mut Coverage,
    ) {
        let leads =
            node.raft.is_some_and(|raft| raft.is_leader() && Some(raft.term()) == seen.leads);
        must!(!leads, "LeaderAppendOnly", "n{} truncates to {keep} as leader", machine + 1);
        must!(
            keep >= seen.commit,
            "CommittedImmutable",
            "n{} truncates to {keep}, but had committed {}",
            machine + 1,
            seen.commit
        );
        let terms = |index: LogIndex| seen.chain.at(index).map(|link| link.term);
        coverage.hit(Point::Truncated);
        coverage.hit_if(terms(keep.next()) != terms(seen.chain.last()), Point::TruncatedTwoTerms);
        let acknowledged = &mut self.promises[machine].acknowledged;
        coverage.hit_if(*acknowledged > keep, Point::TruncatedAcknowledged);
        *acknowledged = (*acknowledged).min(keep);
        let durable = disk.platter(|platter| platter.log.last());
        coverage.hit_if(durable > keep, Point::TruncatedDurable);
    }

    pub(super) fn check_matching(&mut self, machine: usize, index: LogIndex, link: Link) {
        let slot = usize_of(index.get());
        if self.entries.len() <= slot {
            self.entries.resize(slot + 1, Vec::new());
        }
        match self.entries[slot].iter().find(|other| other.term == link.term) {
            None => self.entries[slot].push(link),
            Some(other) => must!(
                *other == link,
                "LogMatching",
                "n{} holds another entry or another past at {index}@{}",
                machine + 1,
                link.term
            ),
        }
    }

    fn check_leadership(
        &mut self,
        machine: usize,
        seen: &mut Seen,
        raft: &Raft,
        coverage: &mut Coverage,
    ) {
        let leads = raft.is_leader().then(|| raft.term());
        if leads == seen.leads {
            return;
        }
        let later = seen.leads.is_some() && raft.term() > seen.term;
        coverage.hit_if(later, Point::SteppedDown);
        coverage.hit_if(seen.leads.is_some() && !later, Point::LostQuorum);
        seen.leads = leads;
        let Some(term) = leads else { return };
        coverage.hit(Point::LeaderElected);
        coverage.hit_if(self.leaders.values().any(|led| *led == machine), Point::LeaderReelected);
        if let Some(other) = self.leaders.insert(term, machine) {
            must!(
                other == machine,
                "ElectionSafety",
                "n{} and n{} lead term {term}",
                other + 1,
                machine + 1
            );
        }
        self.check_votes(machine, seen, raft, term);
        if let Some((before, _)) = self.leaders.range(..term).next_back() {
            coverage.hit_if(term.get() > before.get() + 1, Point::VoteSplit);
        }
        let others = self.seen.iter().any(|other| other.leads.is_some());
        coverage.hit_if(others, Point::TwoLeaders);
        let earlier = self.committed.partition_point(|entry| entry.by < term);
        if let Some(slot) = earlier.checked_sub(1) {
            let index = LogIndex::new(u64_of(earlier));
            let committed = self.committed[slot];
            must!(
                seen.chain.at(index) == Some(committed.link),
                "LeaderCompleteness",
                "n{} leads term {term} without {index}@{}, committed in term {}",
                machine + 1,
                committed.link.term,
                committed.by
            );
        }
    }

    fn check_commit(
        &mut self,
        machine: usize,
        seen: &mut Seen,
        (node, raft): (&Inspection<'_>, &Raft),
        disks: &[SimDisk],
        coverage: &mut Coverage,
    ) {
        let commit = raft.commit_index();
        if commit == seen.commit {
            return;
        }
        let name = machine + 1;
        must!(commit > seen.commit, "CommitMonotonic", "n{name}: {} to {commit}", seen.commit);
        must!(commit <= seen.chain.last(), "CommitMonotonic", "n{name}: {commit} beyond its log");
        let link = seen.chain.at(commit).expect("the log reaches that far");
        let known = LogIndex::new(u64_of(self.committed.len()));
        if commit > known {
            let own = check_quorum(machine, seen, raft, (commit, link), disks);
            coverage.hit_if(raft.is_leader() && !own, Point::CommitWithoutLeaderDisk);
        }
        if raft.is_leader() {
            must!(
                link.term == raft.term(),
                "CommitTermRule",
                "n{name} commits {commit}@{} by counting as leader of term {}",
                link.term,
                raft.term()
            );
            let first = seen.chain.at(seen.commit.next()).expect("it is committed");
            coverage.hit_if(first.term < raft.term(), Point::OldTermCommitted);
        }
        let at = seen.commit.min(known).max(LogIndex::ZERO);
        let checked = if commit <= known { commit } else { known.max(at) };
        if let Some(slot) = checked.get().checked_sub(1) {
            let committed = self.committed[usize_of(slot)];
            must!(
                seen.chain.at(checked) == Some(committed.link),
                "CommittedImmutable",
                "n{name} commits another entry at {checked} than was committed"
            );
        }
        while u64_of(self.committed.len()) < commit.get() {
            let index = LogIndex::new(u64_of(self.committed.len())).next();
            let link = seen.chain.at(index).expect("the log reaches that far");
            self.committed.push(Committed { link, by: raft.term() });
            self.ground.push(link);
            self.payloads.push(None);
        }
        for slot in usize_of(seen.commit.get())..usize_of(commit.get()) {
            if self.payloads[slot].is_none() {
                let index = LogIndex::new(u64_of(slot)).next();
                self.payloads[slot] = commands_in(node.wal, index);
            }
        }
        self.follow_committed();
        seen.commit = commit;
    }
}

/// An entry is the first to be committed as far as anybody knew: is it on the platters of a quorum?
/// Returns whether it is on those of the machine that commits it.
fn check_quorum(
    machine: usize,
    seen: &Seen,
    raft: &Raft,
    (commit, link): (LogIndex, Link),
    disks: &[SimDisk],
) -> bool {
    let durable = |disk: &&SimDisk| {
        let found = disk.platter(|platter| platter.log.at(commit));
        found.map(|one| one.chain) == Some(link.chain)
    };
    // A turn that commits by one configuration may go on to append the next.
    let replaced = seen.replaced.as_ref().map(|(_, configuration)| configuration);
    let mut in_force = [Some(raft.configuration()), replaced].into_iter().flatten();
    must!(
        in_force.any(|it| is_quorum(it, |id| durable(&&disks[machine_of(id)]))),
        "CommitQuorum",
        "n{} commits {commit}@{}, which is on {} of {} platters",
        machine + 1,
        link.term,
        disks.iter().filter(durable).count(),
        disks.len()
    );
    durable(&&disks[machine])
}

fn mark_points(seen: &Seen, raft: &Raft, coverage: &mut Coverage) {
    let (before, now) = (&seen.marks, raft.marks());
    coverage.hit_if(since(before, now, Mark::Sticky), Point::PreVoteRefusedByFollower);
    coverage.hit_if(since(before, now, Mark::ReadRound), Point::ReadRound);
    coverage.hit_if(since(before, now, Mark::Reprobed), Point::Reprobed);
    coverage.hit_if(since(before, now, Mark::OutOfRoom), Point::NoRoom);
    coverage.hit_if(since(before, now, Mark::RoomAgain), Point::RoomAgain);
    coverage.hit_if(since(before, now, Mark::Conflicted), Point::Conflict);
    coverage.hit_if(since(before, now, Mark::SnapshotReplacedLog), Point::SnapshotReplacedLog);
    coverage.hit_if(since(before, now, Mark::SnapshotStale), Point::SnapshotStale);
}
