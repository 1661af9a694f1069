//! Figure 3 as code: what must hold of all servers together, whatever the weather.

use super::server::{Entry, Server, at, length, upto};
use raftd::raft::{Configuration, Notice};
use raftd::types::{LogIndex, NodeId, Term};
use std::collections::BTreeMap;

/// What is known of the whole cluster; no server knows as much.
#[derive(Default)]
pub(super) struct Oracle {
    leaders: BTreeMap<Term, NodeId>,
    /// The entry committed at each index, as the first server to commit it had it.
    pub(super) committed: Vec<Entry>,
    /// The term in which that was.
    committed_in: Vec<Term>,
    pub(super) elections: u64,
}

impl Oracle {
    pub(super) fn commit_index(&self) -> LogIndex {
        length(&self.committed)
    }

    /// Looks at one server after its turn.
    pub(super) fn observe(&mut self, server: &mut Server, disks: &[&[Entry]]) {
        assert_configuration(server);
        for notice in std::mem::take(&mut server.notices) {
            match notice {
                Notice::BecameLeader { term, .. } => {
                    // Election Safety: at most one leader per term.
                    let leader = *self.leaders.entry(term).or_insert(server.id);
                    assert_eq!(leader, server.id, "two leaders of term {term}");
                    self.elections += 1;
                    // Leader Completeness: what was committed in a term is in the logs of all
                    // leaders of later terms. (A server that slept may still become leader of an
                    // earlier one.)
                    let earlier = self.committed_in.partition_point(|it| *it < term);
                    assert!(server.log.len() >= earlier, "leader of {term} lacks the committed");
                    let same = server.log[..earlier] == self.committed[..earlier];
                    assert!(same, "leader of {term} has another history");
                }
                Notice::SafetyViolated { .. } => panic!("{} saw {notice:?}", server.id),
                Notice::AskingForPreVotes { .. }
                | Notice::Campaigning { .. }
                | Notice::BecameFollower { .. }
                | Notice::LeaderChanged { .. }
                | Notice::LostQuorum { .. }
                | Notice::DiskStalled { .. }
                | Notice::TransferFailed { .. }
                | Notice::SnapshotInstalled { .. } => {}
            }
        }
        let commit_index = server.raft.commit_index();
        if commit_index > self.commit_index() {
            // Durability: a commit is on the disks of a quorum of the configuration in force where
            // it was decided, which is where it is seen first.
            let entries = upto(&server.log, commit_index);
            let holds = |id: NodeId| {
                let nth = usize::try_from(id.get() - 1).expect("small");
                disks.get(nth).is_some_and(|disk| disk.starts_with(entries))
            };
            let configuration = server.raft.configuration();
            assert!(configuration.reached(holds), "{commit_index} is not on {configuration:?}");
            let new = &entries[self.committed.len()..];
            self.committed.extend_from_slice(new);
            // Terms ascend: a later commit was made in a later term, or its observer learnt of it
            // late.
            let newest = self.committed_in.last().copied().unwrap_or(Term::ZERO);
            let term = newest.max(server.raft.term());
            self.committed_in.resize(self.committed.len(), term);
        }
        // State Machine Safety: no two servers commit different entries at one index.
        let common = commit_index.min(self.commit_index());
        let from = common.get().saturating_sub(40);
        let from = upto(&self.committed, at(from)).len();
        let (ours, theirs) = (upto(&server.log, common), upto(&self.committed, common));
        assert!(ours[from..] == theirs[from..], "{} committed something else", server.id);
    }

    /// The newest configuration that is committed; `None` if it is the bootstrap's.
    pub(super) fn configuration(&self) -> Option<&'static Configuration> {
        self.committed.iter().rev().find_map(|entry| entry.configuration)
    }

    /// Looks at all servers.
    pub(super) fn observe_all(&self, servers: &[&Server]) {
        for server in servers {
            let common = server.raft.commit_index();
            let same = upto(&server.log, common) == upto(&self.committed, common);
            assert!(same, "{} committed something else", server.id);
        }
        for (nth, left) in servers.iter().enumerate() {
            for right in &servers[nth + 1..] {
                assert_logs_match(&left.log, &right.log);
            }
        }
    }
}

/// The configuration in force is the newest in the log, whatever was truncated since.
fn assert_configuration(server: &Server) {
    if let Some(newest) = server.log.iter().rev().find_map(|entry| entry.configuration) {
        assert_eq!(server.raft.configuration(), newest, "{} follows another one", server.id);
    }
}

/// Log Matching: entries with the same index and term are equal, and so is everything before them.
fn assert_logs_match(left: &[Entry], right: &[Entry]) {
    let same = |(left, right): (&Entry, &Entry)| left.meta.term == right.meta.term;
    let last = left.iter().zip(right).rposition(same);
    let common = last.map_or(0, |last| last + 1);
    assert!(left[..common] == right[..common], "logs that agree at {common} differ before");
}
