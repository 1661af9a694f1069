//! Linearizable reads without the log: ReadIndex. Thesis §6.4.
//!
//! A leader that has committed an entry of its own term notes its commit index, has a quorum
//! confirm that it still leads, and may then answer from any state that has applied that index. A
//! confirmation is of a *round*, a number of the leader's own: a request's id would let an old
//! confirmation pass for a new one. One round is out at a time and all reads that come meanwhile
//! share the next, so reads cost messages per round trip, not per read; and the round rides on the
//! `Append`s of the same settle.

use super::Raft;
use super::output::{Dropped, Mark, NotLeader, Output, ReadReady, ReadTicket};
use super::role::Role;
use crate::types::LogIndex;
use std::mem;

/// The reads of one leadership.
#[derive(Default, Debug)]
pub(super) struct Reads {
    /// The newest round begun in this term; 0 before the first.
    round: u64,
    /// The commit index when that round began.
    index: LogIndex,
    /// The reads that the round confirms; none when no round is out.
    confirming: Vec<ReadTicket>,
    /// The reads that wait for the next round.
    asked: Vec<ReadTicket>,
}

impl Reads {
    /// The newest round: every message to a follower names it.
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// Begins a round for all that wait, unless one is out. Says whether it did.
    fn begin(&mut self, commit_index: LogIndex) -> bool {
        let begins = self.confirming.is_empty() && !self.asked.is_empty();
        if begins {
            mem::swap(&mut self.confirming, &mut self.asked);
            self.round += 1;
            self.index = commit_index;
        }
        begins
    }

    fn release(&mut self, output: &mut Output) {
        let index = self.index;
        let ready = |ticket| ReadReady { ticket, result: Ok(index) };
        output.reads.extend(self.confirming.drain(..).map(ready));
    }

    /// The leadership is over, and with it what a quorum could have confirmed.
    pub(super) fn drop_all(self, output: &mut Output) {
        let dropped = |ticket| ReadReady { ticket, result: Err(Dropped) };
        output.reads.extend(self.confirming.into_iter().chain(self.asked).map(dropped));
    }
}

impl Raft {
    /// Asks up to where a read that begins now must have applied. Answered through `Output::reads`.
    pub fn read(&mut self) -> Result<ReadTicket, NotLeader> {
        let leader = self.leader();
        match &mut self.role {
            Role::Leader(leader) => {
                let ticket = ReadTicket(self.next_read);
                self.next_read += 1;
                leader.reads.asked.push(ticket);
                Ok(ticket)
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                Err(NotLeader { leader })
            }
        }
    }

    /// Answers the reads whose round a quorum confirmed, and begins the next round.
    pub(super) fn release_reads(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        // Until then we may not know of everything that earlier terms committed. Paper §8.
        if self.commit_index < leader.noop.index {
            return;
        }
        let mut begun = leader.reads.begin(self.commit_index);
        let heard = leader.voters_have(leader.reads.round, |peer| peer.round_heard);
        let confirmed = self.log.configuration().reached(heard);
        if confirmed == leader.reads.round {
            leader.reads.release(&mut self.output);
            begun |= leader.reads.begin(self.commit_index);
        }
        if begun {
            self.output.marks.add(Mark::ReadRound);
        }
    }
}
