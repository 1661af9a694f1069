//! Snapshots: who needs one, what is done with the pieces of one, how one takes the place of a log.
//! Paper §7, thesis chapter 5.
//!
//! The core sees a snapshot as a position: everything up to there is committed, and is in the
//! state of the store and the configuration that come with it. Its bytes travel past the rules.
//! While they do nothing changes here: a server that receives a snapshot votes, campaigns and
//! appends as before. Only when the whole file is checked and loaded does the node ask
//! `may_install`, and then everything changes in one step.
//!
//! What a snapshot may never do: go back behind what is committed here (a delayed one would take
//! acknowledged entries with it), leave entries in the log that contradict it (the leader's next
//! `Append` would be refused for ever), or change who votes otherwise than the log it stands for
//! did. Sources of these: `on_install_snapshot`, `may_install`, `install_snapshot`.

use super::Raft;
use super::configuration::Configuration;
use super::message::{Message, SnapshotOutcome};
use super::output::{Mark, Notice, PieceVerdict};
use super::progress::Progress;
use super::role::Role;
use crate::types::{Instant, LogIndex, LogPosition, NodeId, SnapshotId};

/// Whether a snapshot that is ready may take the place of our state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Install {
    /// Yes, with this fate of the log.
    Now(LogFate),
    /// Ask again after the next receipt: the entry it ends at is in our log, but not durable.
    Later,
    /// No: everything in it is committed here, or we lead and have the entries.
    Never,
}

/// What a snapshot does to the log. Paper Figure 13, receiver 6 and 7.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFate {
    /// The log has the snapshot's last entry: it and what follows stay.
    Kept,
    /// It has another entry there or none: all of it goes.
    Replaced,
}

impl Raft {
    /// The log forgets its entries up to `index`: a snapshot that is durable here stands for them.
    /// Panics if they are not all committed.
    pub fn compact(&mut self, index: LogIndex) {
        assert!(index <= self.commit_index, "only what is committed is compacted");
        self.log.compact(index);
    }

    /// The followers that wait for a snapshot and can be reached.
    pub fn awaiting_snapshot(&self) -> impl Iterator<Item = NodeId> {
        let peers = match &self.role {
            Role::Leader(leader) => leader.peers.as_slice(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => &[],
        };
        let waits = |progress: &Progress| matches!(progress, Progress::Snapshot);
        let waiting = peers.iter().filter(move |it| it.session.is_some() && waits(&it.progress));
        waiting.map(|peer| peer.id)
    }

    /// Whether this follower waits for a snapshot, reachable or not.
    pub fn needs_snapshot(&self, peer: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let waits = |progress: &Progress| matches!(progress, Progress::Snapshot);
        leader.peers.iter().any(|it| it.id == peer && waits(&it.progress))
    }

    /// From where on followers that can be reached are sent entries, or are about to be: behind
    /// what they are known to have, or may have. A leader that compacts beyond it turns a short
    /// delay into a snapshot.
    pub fn entries_wanted_behind(&self) -> impl Iterator<Item = LogIndex> {
        let peers = match &self.role {
            Role::Leader(leader) => leader.peers.as_slice(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => &[],
        };
        let reached = peers.iter().filter(|it| it.session.is_some());
        reached.filter_map(|it| match &it.progress {
            Progress::Replicate(_) => Some(it.match_index),
            Progress::Probe(probe) => Some(probe.prev),
            Progress::Snapshot => None,
        })
    }

    /// A piece of a snapshot of the leader of our term.
    pub(super) fn on_install_snapshot(&mut self, snapshot: SnapshotId) {
        let verdict = if snapshot.position.index <= self.commit_index {
            self.output.marks.add(Mark::SnapshotStale);
            PieceVerdict::Superfluous
        } else {
            PieceVerdict::Keep
        };
        self.output.snapshot = Some(verdict);
    }

    /// Answers a piece, once our term is durable.
    pub fn answer_piece(&mut self, to: NodeId, snapshot: SnapshotId, outcome: SnapshotOutcome) {
        let term = self.hard_state.term;
        self.reply(to, Message::InstallSnapshotReply { term, snapshot, outcome });
    }

    /// A follower says how far it is. It is alive, which counts; what it has is proven by its
    /// answers to `Append`s alone.
    pub(super) fn on_install_snapshot_reply(
        &mut self,
        now: Instant,
        from: NodeId,
        snapshot: SnapshotId,
        outcome: SnapshotOutcome,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.iter_mut().find(|peer| peer.id == from) else { return };
        peer.heard_at = peer.heard_at.max(now);
        let index = snapshot.position.index;
        let installed = outcome == SnapshotOutcome::Installed;
        if installed && index <= self.log.last().index {
            peer.snapshot_installed(index);
        }
    }

    /// Whether the snapshot of everything up to `position`, checked and loaded, may take the place
    /// of our state.
    pub fn may_install(&mut self, position: LogPosition) -> Install {
        let ahead = position.index > self.commit_index;
        // Terms never descend along a log, and its leader's term is ours by now.
        let possible = position.term <= self.hard_state.term;
        if !ahead || !possible || self.is_leader() {
            self.output.marks.add(Mark::SnapshotStale);
            return Install::Never;
        }
        let same = self.log.term_at(position.index) == Some(position.term);
        if !same && self.verified() >= position.index {
            let (ours, theirs) = (self.log.position(position.index), position.term);
            let from = self.leader().unwrap_or(self.settings.id);
            self.output.notices.push(Notice::SafetyViolated { from, ours, theirs });
            return Install::Never;
        }
        match same {
            true if self.durability.last() < position.index => Install::Later,
            true => Install::Now(LogFate::Kept),
            false => Install::Now(LogFate::Replaced),
        }
    }

    /// Takes the snapshot of everything up to `position` for our state, with the configuration
    /// whose entry was at `configuration.0`. What it says is durable when a job formed from now on
    /// is; until then no answer counts on it. Panics unless `may_install` said so.
    pub fn install_snapshot(
        &mut self,
        now: Instant,
        position: LogPosition,
        configuration: (LogIndex, Configuration),
    ) -> LogFate {
        let Install::Now(fate) = self.may_install(position) else {
            unreachable!("the caller asked may_install for {position}")
        };
        match self.role {
            // Votes were asked for with another log.
            Role::PreCandidate(_) | Role::Candidate(_) => {
                self.become_follower(now, self.hard_state.term);
            }
            Role::Follower(_) | Role::Leader(_) => {}
        }
        match fate {
            LogFate::Kept => self.output.marks.add(Mark::SnapshotKeptLog),
            LogFate::Replaced => {
                self.output.marks.add(Mark::SnapshotReplacedLog);
                // What was acknowledged is equal to the leader's log, so it is in the snapshot.
                let verified = self.verified().max(self.commit_index);
                assert!(verified < position.index, "the snapshot's last entry would be ours");
                self.log.replace(position, configuration);
                self.durability.replaced(verified);
            }
        }
        // There is something to make durable in any case: which snapshot counts.
        self.durability.appended();
        self.commit_index = position.index;
        self.rebase_following(position.index);
        let kept = fate == LogFate::Kept;
        self.output.notices.push(Notice::SnapshotInstalled { position, kept });
        fate
    }

    /// How far our log is known to equal our leader's.
    fn verified(&self) -> LogIndex {
        match &self.role {
            Role::Follower(follower) => {
                follower.following.as_ref().map_or(LogIndex::ZERO, |it| it.verified)
            }
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => LogIndex::ZERO,
        }
    }

    /// What is committed is in the leader's log; an older refusal is about a log that is gone.
    fn rebase_following(&mut self, committed: LogIndex) {
        let Role::Follower(follower) = &mut self.role else { return };
        if let Some(following) = &mut follower.following {
            following.verified = following.verified.max(committed);
            following.refusal = None;
            following.reply_due = true;
        }
    }
}
