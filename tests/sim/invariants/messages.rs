//! What leaves a node: every message between members is read from the wire and held against the
//! sender's platters and what others hold.

use super::{Proof, must};
use crate::chain::Chain;
use crate::chance::u64_of;
use crate::coverage::{Coverage, Point};
use crate::disk::SimDisk;
use raftd::raft::message::{AppendOutcome, Message, SnapshotOutcome};
use raftd::types::{LogIndex, LogPosition, Term};

impl Proof {
    /// `from` says `message` to `to`.
    pub(crate) fn on_message(
        &mut self,
        from: usize,
        to: usize,
        message: &Message,
        disks: &[SimDisk],
        coverage: &mut Coverage,
    ) {
        let disk = &disks[from];
        let kept = disk.platter(|platter| platter.twice_kept());
        self.note_term_said(from, message, kept.term);
        self.count_said(from, to, message);
        match message {
            Message::Vote { term, last, asked_by } => {
                coverage.hit_if(asked_by.is_some(), Point::HandoverVote);
                self.on_vote_asked(from, *term, *last, kept.vote, kept.term);
            }
            Message::VoteReply { term, granted } => {
                coverage.hit_if(!granted, Point::VoteRefused);
                if *granted {
                    self.on_vote_granted(from, to, *term, (kept.term, kept.vote), coverage);
                } else {
                    self.look_for_longer_log(from, to, coverage);
                }
            }
            Message::Append { term, session, prev, entries, .. } => {
                self.check_leads(from, *term, message);
                self.count_in_flight((from, to), (*term, *session), *prev, entries);
                self.on_append(from, to, *term, *prev, entries.len(), coverage);
            }
            Message::Heartbeat { term, .. } | Message::TimeoutNow { term, .. } => {
                self.check_leads(from, *term, message);
            }
            Message::AppendReply { term, outcome, .. } => match outcome {
                AppendOutcome::Matched { index } | AppendOutcome::NoRoom { index } => {
                    self.on_acknowledged(from, *term, *index, disk);
                    self.look_for_old_terms(*term, *index, disks, coverage);
                }
                AppendOutcome::Conflict { .. } => {}
            },
            Message::PreVoteReply { granted, .. } => {
                coverage.hit_if(!granted, Point::PreVoteRefused);
                if !granted {
                    self.look_for_longer_log(from, to, coverage);
                }
            }
            Message::ReadIndexReply { term, .. } => self.check_leads(from, *term, message),
            Message::InstallSnapshot { term, bytes, .. } => {
                self.check_leads(from, *term, message);
                coverage.hit_if(*bytes > 0, Point::SnapshotSent);
                let damaged = *bytes > 0 && disk.snapshot_is_rotten();
                coverage.hit_if(damaged, Point::SnapshotDamageSent);
                if *bytes == 0 {
                    self.asked.insert((from, to));
                }
            }
            Message::InstallSnapshotReply { outcome, .. } => {
                self.on_piece_answered(from, to, *outcome, coverage);
            }
            Message::PreVote { .. } | Message::ReadIndex { .. } => {}
        }
    }

    fn note_term_said(&mut self, from: usize, message: &Message, kept: u64) {
        let Some(term) = message.term() else { return };
        must!(
            term.get() <= kept,
            "TermDurability",
            "n{} speaks of term {term}, its platters know {kept}: {message:?}",
            from + 1
        );
        let said = &mut self.promises[from].term_said;
        *said = (*said).max(term.get());
    }

    fn on_piece_answered(
        &mut self,
        from: usize,
        to: usize,
        outcome: SnapshotOutcome,
        coverage: &mut Coverage,
    ) {
        let asked = self.asked.remove(&(to, from));
        let resumed = matches!(outcome, SnapshotOutcome::Wanted { offset } if offset > 0);
        coverage.hit_if(asked && resumed, Point::SnapshotResumed);
    }

    /// `to` was refused; perhaps because its log is longer, but older.
    fn look_for_longer_log(&self, from: usize, to: usize, coverage: &mut Coverage) {
        let (ours, theirs) = (&self.seen[from].chain, &self.seen[to].chain);
        let last_term = |chain: &Chain| chain.at(chain.last()).map(|link| link.term);
        let older = last_term(ours) > last_term(theirs);
        coverage.hit_if(older && theirs.last() > ours.last(), Point::VoteRefusedForLog);
    }

    fn on_vote_asked(
        &mut self,
        from: usize,
        term: Term,
        last: LogPosition,
        vote_kept: u64,
        term_kept: u64,
    ) {
        let own = u64::try_from(from + 1).expect("few machines");
        must!(
            term_kept != term.get() || vote_kept == own,
            "VoteDurability",
            "n{} campaigns in term {term} with a durable vote for {vote_kept}",
            from + 1
        );
        self.note_vote(from, term, own);
        must!(last.term <= term, "MessageSanity", "n{} campaigns with {last}", from + 1);
    }

    fn on_vote_granted(
        &mut self,
        from: usize,
        to: usize,
        term: Term,
        kept: (u64, u64),
        coverage: &mut Coverage,
    ) {
        let candidate = u64::try_from(to + 1).expect("few machines");
        must!(
            kept.0 != term.get() || kept.1 == candidate,
            "VoteDurability",
            "n{} grants n{candidate} term {term}, its platters say {}",
            from + 1,
            kept.1
        );
        coverage.hit_if(self.votes.contains_key(&(from, term)), Point::VoteRepeated);
        self.note_vote(from, term, candidate);
    }

    fn note_vote(&mut self, from: usize, term: Term, candidate: u64) {
        let voted = *self.votes.entry((from, term)).or_insert(candidate);
        must!(
            voted == candidate,
            "VoteDurability",
            "n{} votes for n{voted} and n{candidate} in term {term}",
            from + 1
        );
    }

    fn check_leads(&self, from: usize, term: Term, message: &Message) {
        must!(
            self.leaders.get(&term) == Some(&from),
            "MessageSanity",
            "n{} does not lead term {term}: {message:?}",
            from + 1
        );
    }

    fn on_append(
        &mut self,
        from: usize,
        to: usize,
        term: Term,
        prev: LogPosition,
        entries: usize,
        coverage: &mut Coverage,
    ) {
        // A leader that has stepped down in this very turn may have cut what it says here.
        let leads = self.seen[from].leads == Some(term);
        let held = self.seen[from].chain.at(prev.index).map(|link| link.term);
        must!(
            !leads || held == Some(prev.term),
            "MessageSanity",
            "n{} probes with {prev}, which it does not hold",
            from + 1
        );
        let base = self.seen[from].base;
        must!(
            prev.index >= base,
            "MessageSanity",
            "n{} probes with {prev}, and its log begins after {base}",
            from + 1
        );
        let ahead = prev.index > self.promises[to].acknowledged && prev.term == term;
        coverage.hit_if(ahead && entries > 0, Point::PipelineFull);
        let newer = self.leaders.range(term.next()..).next().is_some();
        coverage.hit_if(newer && entries > 0, Point::OldLeaderWrote);
        let behind = self.seen[to].chain.last().get() + 100 < self.seen[from].chain.last().get();
        coverage.hit_if(behind, Point::FollowerFarBehind);
    }

    /// Figure 8's danger: a majority holds an entry of an earlier term, and that proves nothing.
    fn look_for_old_terms(
        &mut self,
        term: Term,
        index: LogIndex,
        disks: &[SimDisk],
        coverage: &mut Coverage,
    ) {
        let known = u64_of(self.committed.len());
        let Some(leader) = self.leaders.get(&term) else { return };
        let Some(link) = self.seen[*leader].chain.at(index) else { return };
        if index.get() > known && link.term < term {
            let holds = |disk: &&SimDisk| disk.platter(|it| it.log.at(index)) == Some(link);
            let holders = disks.iter().filter(holds).count();
            coverage.hit_if(holders >= self.majority(), Point::OldTermWaits);
        }
    }

    fn on_acknowledged(&mut self, from: usize, term: Term, index: LogIndex, disk: &SimDisk) {
        if index == LogIndex::ZERO {
            return;
        }
        let held = self.seen[from].chain.at(index).map(|link| link.chain);
        let durable = disk.platter(|platter| platter.log.at(index)).map(|link| link.chain);
        must!(
            durable.is_some() && held == durable,
            "AckDurability",
            "n{} acknowledges {index} in term {term}; its platters end at {}",
            from + 1,
            disk.platter(|platter| platter.log.last())
        );
        if let Some(leader) = self.leaders.get(&term)
            && self.seen[*leader].leads == Some(term)
        {
            let theirs = self.seen[*leader].chain.at(index).map(|link| link.chain);
            must!(
                theirs == durable,
                "AckDurability",
                "n{} acknowledges {index} in term {term}, but not what n{} has there",
                from + 1,
                leader + 1
            );
        }
        let acknowledged = &mut self.promises[from].acknowledged;
        *acknowledged = (*acknowledged).max(index);
    }
}
