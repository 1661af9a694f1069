//! Linearizable reads without the log: ReadIndex and leases. Thesis §6.4, §6.4.1.
//!
//! A leader that has committed an entry of its own term notes its commit index, has a quorum
//! confirm that it still leads, and may then answer from any state that has applied that index. A
//! confirmation is of a *round*, a number of the leader's own: a request's id would let an old
//! confirmation pass for a new one. One round is out at a time and all reads that come meanwhile
//! share the next, so reads cost messages per round trip, not per read; and the round rides on the
//! `Append`s of the same settle.
//!
//! A follower asks its leader for the index (`ReadIndex`), one question at a time for all its
//! reads, and answers from its own state. Its questions are numbered from a random start, so that
//! an answer to what it asked before a restart is known as such. They end with the leader.
//!
//! **Leases**, if the settings state a bound of the clocks' drift. Whoever confirms a round
//! promises to vote for nobody for an election timeout from then on (`promise_until`), whatever it
//! hears in between, and whoever restarts promises the same, not knowing what it promised (where
//! there are leases; so the settings must be the same on every server). The
//! leader counts from the moment at which it *began* the newest round that a quorum confirmed, so
//! it gives the lease up before the first of them is free, by any clock within the bound:
//!
//! ```text
//! leader    begins a round ├───── timeout × (1 − drift) − margin ─────┤ lease over
//! voter          confirms it  ├───────── timeout, by its own clock ──────────┤ may vote
//! ```
//!
//! While the lease lasts nobody else is elected, so our commit index is the cluster's, and a read
//! is answered at once. The moment of the test is read from the clock after the read has arrived:
//! else a process stopped in between would answer for a time before the question.

use super::Raft;
use super::message::Message;
use super::output::{Body, Dropped, Mark, NotLeader, Output, ReadReady, ReadTicket, Send};
use super::role::{Following, Role};
use crate::types::{Instant, LogIndex, NodeId, Term};
use std::collections::VecDeque;
use std::mem;

/// Rounds whose beginning is remembered for the lease: so many heartbeats and reads are out when a
/// follower answers late. Beyond, the oldest are forgotten, which only shortens the lease.
const ROUNDS_TIMED: usize = 64;

/// After this many election timeouts readers are told that there is no answer. A follower may hear
/// its leader and not reach it: then its questions go nowhere. And a leader whose followers have no
/// room for an entry never commits the first of its term, while they answer its heartbeats.
const PATIENCE_ELECTION_TIMEOUTS: u64 = 4;

/// What a lease is shorter than the promises behind it, beside the drift: the clocks' grain.
/// Nanoseconds.
const LEASE_MARGIN_NS: u64 = 1_000_000;

/// Who asks up to where to have applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    /// Our own node.
    Here(ReadTicket),
    /// A follower, with its number for the question.
    Peer(NodeId, u64),
}

/// The reads of one leadership.
#[derive(Default, Debug)]
pub(super) struct Reads {
    /// The newest round begun in this term; 0 before the first.
    round: u64,
    /// The round that `confirming` waits for, and the commit index when it began.
    waits_for: u64,
    index: LogIndex,
    confirming: Vec<Asker>,
    /// The reads that wait for the next round.
    asked: Vec<Asker>,
    /// The reads that a lease may answer at the next settle.
    leased: Vec<ReadTicket>,
    /// When those that wait for the first commit of the term are told that there is none.
    until: Option<Instant>,
    lease: Lease,
}

/// When the newest rounds began, and the newest of them that a quorum has confirmed.
#[derive(Default, Debug)]
struct Lease {
    begun: VecDeque<(u64, Instant)>,
    confirmed_since: Option<Instant>,
    /// The configuration whose quorum that is.
    configuration: LogIndex,
    /// There are none any more in this term.
    over: bool,
}

impl Reads {
    /// The newest round: every message to a follower names it.
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// No lease for the rest of the term: a leader that has told another to campaign may be
    /// deposed although a quorum hears it, whenever that message arrives.
    pub(super) fn end_leases(&mut self) {
        self.lease.over = true;
    }

    /// Whether leases have ended for the rest of the term.
    pub(super) fn leases_are_over(&self) -> bool {
        self.lease.over
    }

    /// Begins a round that confirms a lease and no read.
    pub(super) fn begin_lease_round(&mut self, now: Instant) {
        if !self.lease.over {
            self.begin_round(now);
        }
    }

    fn begin_round(&mut self, now: Instant) {
        self.round += 1;
        let begun = &mut self.lease.begun;
        if begun.len() == ROUNDS_TIMED {
            begun.pop_front();
        }
        begun.push_back((self.round, now));
    }

    /// Begins a round for all that wait, unless one is out. Says whether it did.
    fn begin(&mut self, now: Instant, commit_index: LogIndex) -> bool {
        let begins = self.confirming.is_empty() && !self.asked.is_empty();
        if begins {
            mem::swap(&mut self.confirming, &mut self.asked);
            self.begin_round(now);
            (self.waits_for, self.index) = (self.round, commit_index);
        }
        begins
    }

    /// Nothing of the term is committed: nobody is answered, and nobody waits for ever.
    fn wait_for_commit(&mut self, now: Instant, patience_ns: u64, output: &mut Output) {
        if self.asked.is_empty() && self.leased.is_empty() {
            self.until = None;
        } else if *self.until.get_or_insert(now.after_ns(patience_ns)) <= now {
            let ours = self.asked.drain(..).filter_map(Asker::here);
            output.reads.extend(ours.chain(self.leased.drain(..)).map(dropped));
            self.until = None;
        }
    }

    fn release(&mut self, term: Term, output: &mut Output) {
        for asker in self.confirming.drain(..) {
            asker.answer(term, self.index, output);
        }
    }

    /// A follower asks. It asks one question at a time, so a new one replaces what it asked before.
    fn ask_for(&mut self, from: NodeId, sequence: u64) {
        self.asked.retain(|asker| !matches!(asker, Asker::Peer(id, _) if *id == from));
        self.asked.push(Asker::Peer(from, sequence));
    }

    /// The leadership is over, and with it what a quorum could have confirmed.
    pub(super) fn drop_all(self, output: &mut Output) {
        let askers = self.confirming.into_iter().chain(self.asked);
        let ours = askers.filter_map(Asker::here);
        output.reads.extend(ours.chain(self.leased).map(dropped));
    }
}

impl Asker {
    /// Our own read. A follower learns by itself that it gets no answer.
    fn here(self) -> Option<ReadTicket> {
        match self {
            Asker::Here(ticket) => Some(ticket),
            Asker::Peer(..) => None,
        }
    }

    fn answer(self, term: Term, index: LogIndex, output: &mut Output) {
        match self {
            Asker::Here(ticket) => output.reads.push(ReadReady { ticket, result: Ok(index) }),
            Asker::Peer(to, sequence) => {
                let message = Message::ReadIndexReply { term, sequence, index };
                output.sends.push(Send { to, body: Body::Message(message) });
            }
        }
    }
}

impl Lease {
    /// A quorum of the configuration at `configuration` has confirmed round `confirmed`.
    fn confirm(&mut self, confirmed: u64, configuration: LogIndex) {
        if self.configuration != configuration {
            // What another quorum promised binds other voters.
            *self = Lease { configuration, over: self.over, ..Lease::default() };
        }
        while let Some((round, begun)) = self.begun.front().copied()
            && round <= confirmed
        {
            self.begun.pop_front();
            self.confirmed_since = Some(begun);
        }
    }

    fn lasts(&self, now: Instant, length_ns: u64) -> bool {
        let since = self.confirmed_since.filter(|_| !self.over);
        since.is_some_and(|since| now < since.after_ns(length_ns))
    }
}

fn dropped(ticket: ReadTicket) -> ReadReady {
    ReadReady { ticket, result: Err(Dropped) }
}

/// A follower's reads: the question that is out, and the reads that wait for the next.
#[derive(Default, Debug)]
pub(super) struct ForwardedReads {
    question: Option<Question>,
    asked: Vec<ReadTicket>,
    /// The list of the last question, empty, for the next one's.
    spare: Vec<ReadTicket>,
}

#[derive(Debug)]
struct Question {
    sequence: u64,
    tickets: Vec<ReadTicket>,
    /// When to ask again: the question or its answer may be lost.
    again_at: Instant,
    /// When it is given up.
    until: Instant,
}

impl ForwardedReads {
    /// When the question that is out is asked again.
    pub(super) fn wake_at(&self) -> Instant {
        self.question.as_ref().map_or(Instant::FAR, |question| question.again_at)
    }

    /// The leader is another, or none: what it would have said is of no use.
    pub(super) fn drop_all(self, output: &mut Output) {
        let tickets = self.question.into_iter().flat_map(|question| question.tickets);
        output.reads.extend(tickets.chain(self.asked).map(dropped));
    }
}

impl Raft {
    /// Asks up to where a read that begins now must have applied, on a leader or on a server that
    /// hears one. Answered through `Output::reads`.
    pub fn read(&mut self) -> Result<ReadTicket, NotLeader> {
        let ticket = ReadTicket(self.next_read);
        match &mut self.role {
            Role::Leader(leader) => leader.reads.asked.push(Asker::Here(ticket)),
            Role::Follower(follower) => match &mut follower.following {
                Some(following) => following.reads.asked.push(ticket),
                None => return Err(NotLeader { leader: None }),
            },
            Role::PreCandidate(_) | Role::Candidate(_) => return Err(NotLeader { leader: None }),
        }
        self.next_read += 1;
        Ok(ticket)
    }

    /// As `read`, and answered at the next settle if we hold a lease.
    pub fn read_by_lease(&mut self) -> Result<ReadTicket, NotLeader> {
        let Role::Leader(leader) = &mut self.role else { return self.read() };
        let ticket = ReadTicket(self.next_read);
        self.next_read += 1;
        leader.reads.leased.push(ticket);
        Ok(ticket)
    }

    /// Whether a read would be answered at once: we lead, and a quorum has promised to elect nobody
    /// else for as long as `now` is not too late.
    pub fn holds_lease(&self, now: Instant) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let Some(length_ns) = self.lease_ns() else { return false };
        self.commit_index >= leader.noop.index && leader.reads.lease.lasts(now, length_ns)
    }

    /// How long after a round began its confirmation keeps others from being elected, by our clock.
    fn lease_ns(&self) -> Option<u64> {
        let drift_ppm = u64::from(self.settings.lease_drift_ppm?);
        let timeout = self.settings.election_timeout_ns;
        // Rounded up, so that the lease is rounded down.
        let drift = timeout.div_ceil(1_000_000).saturating_mul(drift_ppm);
        Some(timeout.saturating_sub(drift).saturating_sub(LEASE_MARGIN_NS))
    }

    fn read_patience_ns(&self) -> u64 {
        self.settings.election_timeout_ns.saturating_mul(PATIENCE_ELECTION_TIMEOUTS)
    }

    /// Answers the reads that a lease or a confirmed round covers, and begins the next round.
    pub(super) fn release_reads(&mut self, now: Instant) {
        let configuration = self.log.configuration_index();
        let patience_ns = self.read_patience_ns();
        let Role::Leader(leader) = &mut self.role else { return };
        let heard = leader.voters_have(leader.reads.round, |peer| peer.round_heard);
        let confirmed = self.log.configuration().reached(heard);
        leader.reads.lease.confirm(confirmed, configuration);
        // Until then we may not know of everything that earlier terms committed. Paper §8.
        if self.commit_index < leader.noop.index {
            return leader.reads.wait_for_commit(now, patience_ns, &mut self.output);
        }
        leader.reads.until = None;
        // The index is taken before the lease is tested: `now` is past every read's arrival.
        let index = self.commit_index;
        let lease = self.holds_lease(now);
        let term = self.hard_state.term;
        let Role::Leader(leader) = &mut self.role else { return };
        let reads = &mut leader.reads;
        for ticket in reads.leased.drain(..) {
            if lease {
                self.output.reads.push(ReadReady { ticket, result: Ok(index) });
                self.output.marks.add(Mark::LeaseRead);
            } else {
                reads.asked.push(Asker::Here(ticket));
            }
        }
        let mut begun = reads.begin(now, index);
        let heard = leader.voters_have(leader.reads.round, |peer| peer.round_heard);
        let confirmed = self.log.configuration().reached(heard);
        if confirmed >= leader.reads.waits_for {
            leader.reads.release(term, &mut self.output);
            begun |= leader.reads.begin(now, index);
        }
        if begun {
            self.output.marks.add(Mark::ReadRound);
        }
    }

    /// A follower asks up to where it must have applied. Answered with a round, as our own reads.
    pub(super) fn on_read_index(&mut self, from: NodeId, sequence: u64) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.peers.iter().any(|peer| peer.id == from) {
            leader.reads.ask_for(from, sequence);
        }
    }

    /// Asks the leader for the reads that wait, or again; gives up what it does not answer.
    pub(super) fn forward_reads(&mut self, now: Instant) {
        let (term, again_at) = (self.hard_state.term, now.after_ns(self.settings.heartbeat_ns));
        let until = now.after_ns(self.read_patience_ns());
        let durable = self.durability.of(self.hard_state);
        let Role::Follower(follower) = &mut self.role else { return };
        let Some(Following { leader, reads, .. }) = &mut follower.following else { return };
        if let Some(question) = reads.question.take_if(|it| it.until <= now) {
            self.output.reads.extend(question.tickets.into_iter().map(dropped));
        }
        if reads.question.is_none() && !reads.asked.is_empty() {
            let tickets = mem::replace(&mut reads.asked, mem::take(&mut reads.spare));
            let sequence = self.next_question;
            self.next_question = self.next_question.wrapping_add(1);
            reads.question = Some(Question { sequence, tickets, again_at: now, until });
        }
        if let Some(question) = &mut reads.question
            && question.again_at <= now
        {
            question.again_at = again_at;
            let message = Message::ReadIndex { term, sequence: question.sequence };
            self.output.send_after(durable, term, *leader, message);
        }
    }

    /// The leader says up to where. That is committed; so far as our log is known to equal its own,
    /// we need not wait to hear it again.
    pub(super) fn on_read_index_reply(&mut self, from: NodeId, sequence: u64, index: LogIndex) {
        let Role::Follower(follower) = &mut self.role else { return };
        let Some(following) = follower.following.as_mut().filter(|it| it.leader == from) else {
            return;
        };
        let ours = |question: &mut Question| question.sequence == sequence;
        let Some(mut question) = following.reads.question.take_if(ours) else { return };
        self.commit_index = self.commit_index.max(index.min(following.verified));
        let ready = |ticket| ReadReady { ticket, result: Ok(index) };
        self.output.reads.extend(question.tickets.drain(..).map(ready));
        following.reads.spare = question.tickets;
        self.output.marks.add(Mark::ForwardedRead);
    }
}
