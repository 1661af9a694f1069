//! Over a crash: what a sync had covered is there again.

use super::nodes::link_of;
use super::{Keeps, Proof, Seen, broken, must};
use crate::coverage::{Coverage, Point};
use crate::disk::SimDisk;
use raftd::replica::Inspection;
use raftd::types::{LogIndex, Term, Vote};

impl Proof {
    /// The process of `machine` ends, in whatever way. Platters keep what a sync covered, but for
    /// what a truncation under way has taken back.
    pub(crate) fn before_end(&mut self, machine: usize, disk: &SimDisk) {
        let seen = std::mem::take(&mut self.seen[machine]);
        let keeps = disk.platter(|platter| {
            let log = platter.log.common(&seen.chain);
            let link = platter.log.at(log).expect("it is in both");
            let kept = platter.twice_kept();
            Keeps { log, link, term: kept.term, vote: kept.vote }
        });
        self.promises[machine].keeps = Some(keeps);
    }

    /// A start has failed half-way: the promises are those of before.
    pub(crate) fn after_failed_start(&mut self, machine: usize) {
        self.seen[machine] = Seen::default();
    }

    /// `machine` has started and stands at what its disk held.
    pub(crate) fn on_start(
        &mut self,
        machine: usize,
        node: &Inspection<'_>,
        disk: &SimDisk,
        coverage: &mut Coverage,
    ) {
        let name = machine + 1;
        let (base, last) = (node.wal.base(), node.wal.last().index);
        let Some(chain) = self.ground.up_to(base) else {
            broken("SnapshotCommitted", format!("n{name} starts behind {base}"))
        };
        let mut seen = Seen { chain, base: base.index, ..Seen::default() };
        if let Some(snapshot) = node.wal.snapshot() {
            let index = snapshot.id.position.index;
            (seen.snapshot, seen.loaded, seen.loaded_end) = (index, true, last);
            coverage.hit(Point::StartedFromSnapshot);
        }
        while seen.chain.last() < last {
            let index = seen.chain.last().next();
            let (term, own) = link_of(node.wal, index);
            let link = seen.chain.push(term, own);
            self.check_matching(machine, index, link);
        }
        if let Some(keeps) = self.promises[machine].keeps.take() {
            let found = seen.chain.at(keeps.log);
            must!(
                found == Some(keeps.link),
                "RecoveryKeeps",
                "n{name} had {}@{} on its platters and starts with a log up to {last}",
                keeps.log,
                keeps.link.term
            );
            coverage.hit_if(last > keeps.log, Point::SuffixSurvived);
            if let Some(raft) = node.raft {
                check_hard_state(name, raft.hard_state(), &keeps);
            }
        }
        if let Some(raft) = node.raft {
            let said = self.promises[machine].term_said;
            must!(
                raft.term().get() >= said,
                "TermMonotonic",
                "n{name} starts in term {}, but has spoken of {said}",
                raft.term()
            );
            (seen.term, seen.vote) = (raft.term(), raft.hard_state().vote);
            seen.commit = raft.commit_index();
            if let Some(slot) = seen.commit.get().checked_sub(1) {
                let slot = usize::try_from(slot).expect("a log fits");
                let known = self.committed.get(slot).map(|committed| committed.link);
                must!(
                    known.is_some() && known == seen.chain.at(seen.commit),
                    "CommittedImmutable",
                    "n{name} starts with {} for committed, which is not",
                    seen.commit
                );
            }
        }
        let durable = disk.platter(|platter| platter.log.common(&seen.chain));
        must!(
            // A cluster of one stages its first entry at once.
            durable == last || node.raft.is_none(),
            "RecoveryKeeps",
            "n{name} starts with a log up to {last}, its platters agree up to {durable}"
        );
        self.check_snapshot(machine, &mut seen, node, disk);
        self.seen[machine] = seen;
        self.note_start_of_state(machine, node, coverage);
    }

    /// The last entry that `machine` acknowledged and did not take back.
    pub(crate) fn acknowledged(&self, machine: usize) -> LogIndex {
        self.promises[machine].acknowledged
    }
}

fn check_hard_state(name: usize, found: raftd::types::HardState, keeps: &Keeps) {
    must!(
        found.term >= Term::new(keeps.term),
        "TermMonotonic",
        "n{name} starts in term {}, its platters had {}",
        found.term,
        keeps.term
    );
    let vote = match found.vote {
        Vote::None => 0,
        Vote::For(node) => node.get(),
        Vote::Abstain => u64::MAX,
    };
    let same = found.term == Term::new(keeps.term) && keeps.vote != 0;
    must!(
        !same || vote == keeps.vote,
        "VoteDurability",
        "n{name} starts in term {} with vote {vote}, its platters had {}",
        found.term,
        keeps.vote
    );
}
