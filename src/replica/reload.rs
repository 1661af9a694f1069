//! A server whose state is another one than that of a majority: it says so, serves nobody, and
//! loads the state anew from a snapshot of the leader.
//!
//! ```text
//! diverged   a quorum has another hash (`state_hashes`): the hard state notes it with the next
//!            job; reads, writes, watches and saves are refused; a leader hands over
//! asking     "a snapshot of that entry at least", to the leader, until it comes; all others hear
//!            it too, and count no more what was said of the state that is lost
//! loading    as every snapshot is received (`install`), though its last entry is committed here
//! loaded     store, snapshot and note change in one sector of the hard state; the log goes on from
//!            there, and nobody is served before it has come to where the old state was
//! ```
//!
//! **What stays valid**: the log, the term and the vote. Entries are not made of the state, so the
//! server acknowledges, votes and, if it must, leads as before; else a majority could be lost to a
//! fault that harmed no entry. It applies on as before too, for the configurations' sake.
//!
//! **Why not replay the own log**: from the last snapshot known to agree it would be the same state
//! only if the fault was an accident. If the rules here make something else of an entry than those
//! of the others do, they will again. A snapshot of a later entry leads past it, whichever it was.
//!
//! **Why a note on the disk**: the snapshot in force may have been made of the state after it had
//! diverged. No start may serve what comes of that, nor give it to others; with the note, it asks
//! again. A crash before the note is written forgets the verdict, not the evidence: the others
//! still say what they noted, and the comparison is made again.

use super::connections::{ConnectionId, Connections};
use super::snapshots::Worth;
use super::state_hashes::Verdict;
use super::{Node, Stage};
use crate::kv::STATE_HASH_FORMULA;
use crate::limits;
use crate::raft::Raft;
use crate::types::{Instant, LogIndex, LogPosition, NodeId};
use crate::wire::client::Op;
use crate::wire::error::{Error, error_reply};
use crate::wire::state::{StateWord, encode_state_word};

/// A leader forgets who wanted a snapshot and did not say so again for so many election timeouts.
const WANTED_ELECTIONS: u64 = 4;

/// The state is to come anew.
#[derive(Debug)]
pub(super) struct Reload {
    /// Where it was found to be another one; `ZERO`: by an earlier process.
    found_at: LogIndex,
    /// When the leader is asked again or, if we lead, somebody else is asked to.
    try_at: Instant,
}

/// A member that has lost its state.
#[derive(Debug)]
struct Wanted {
    by: NodeId,
    at_least: LogIndex,
    until: Instant,
}

/// What is lost, here and elsewhere.
#[derive(Debug, Default)]
pub(super) struct LostStates {
    own: Option<Reload>,
    /// To whom a leader is to send a snapshot though it needs no entries.
    wanted: Vec<Wanted>,
    /// How often ours came anew.
    reloads: u64,
    /// The furthest that a state was which came anew: clients have seen so much of it, and nobody
    /// is served of less.
    seen_to: LogIndex,
}

impl LostStates {
    /// With what the disk says.
    pub(super) fn new(diverged: bool) -> LostStates {
        let reload = Reload { found_at: LogIndex::ZERO, try_at: Instant::ZERO };
        LostStates { own: Some(reload).filter(|_| diverged), ..LostStates::default() }
    }

    /// Whether ours is.
    pub(super) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// How often ours came anew.
    pub(super) fn reloads(&self) -> u64 {
        self.reloads
    }

    /// Who wants a snapshot that stands for at least some entry.
    pub(super) fn wanting(&self) -> impl Iterator<Item = (NodeId, LogIndex)> {
        self.wanted.iter().map(|it| (it.by, it.at_least))
    }

    /// Whether this member wants one.
    pub(super) fn is_wanted_by(&self, id: NodeId) -> bool {
        self.wanted.iter().any(|it| it.by == id)
    }

    /// It has one.
    pub(super) fn has_one(&mut self, id: NodeId) {
        self.wanted.retain(|it| it.by != id);
    }

    fn note_wanted(&mut self, by: NodeId, at_least: LogIndex, until: Instant) {
        self.has_one(by);
        if self.wanted.len() < limits::MEMBERS_MAX {
            self.wanted.push(Wanted { by, at_least, until });
        }
    }
}

impl Node {
    /// An entry was applied: if the members compare their states there, says and judges.
    pub(super) fn note_state_hash(&mut self) {
        let index = self.store.applied();
        if self.lost_states.is_own() || !self.state_hashes.compares_at(index) {
            return;
        }
        let hash = self.store.state_hash();
        self.state_hashes.note(index, hash);
        for peer in self.peers.iter() {
            if let Some(id) = self.peers.outbound(peer.id) {
                say_state_hash(&mut self.connections, id, (index, hash));
            }
        }
        self.judge_states(index);
    }

    /// A member can be reached: it may have missed what we said.
    pub(super) fn say_state_hashes(&mut self, to: ConnectionId) {
        for said in self.state_hashes.noted() {
            say_state_hash(&mut self.connections, to, said);
        }
    }

    /// A member says something of its state.
    pub(super) fn on_state_word(&mut self, from: NodeId, word: StateWord, now: Instant) {
        let Stage::Member(raft) = &self.stage else { return };
        match word {
            StateWord::Hash { formula: STATE_HASH_FORMULA, index, hash } => {
                self.state_hashes.hear(from, (index, hash), raft.configuration());
                self.judge_states(index);
            }
            // Of another version, with another formula.
            StateWord::Hash { .. } => {}
            StateWord::Wanted { at_least } => {
                self.state_hashes.forget(from);
                if raft.is_leader() {
                    let election_ns = self.options.election_timeout_ns;
                    let until = now.after_ns(election_ns.saturating_mul(WANTED_ELECTIONS));
                    self.lost_states.note_wanted(from, at_least, until);
                }
            }
        }
    }

    fn judge_states(&mut self, index: LogIndex) {
        let Stage::Member(raft) = &self.stage else { return };
        let own = self.identity.node;
        match self.state_hashes.judge(index, own, raft.configuration()) {
            Verdict::Open => {}
            Verdict::Agreed { odd } => {
                self.state_hashes.agree(index);
                let text = "a member has another state than a majority: it serves nobody until it \
                            has loaded that anew";
                self.complain_of_states(&odd, text, index);
            }
            Verdict::Disputed { others } => {
                self.state_hashes.dispute(index);
                let text = "a member has another state, and no majority has either: only the \
                            leader serves; start the others again, one by one";
                self.complain_of_states(&others, text, index);
            }
            Verdict::Diverged { ours, theirs } => {
                log::error!(
                    "the state differs from that of a majority: serves nobody until it is loaded \
                     anew node={own} at={index} ours={ours:016x} theirs={theirs:016x}"
                );
                self.lose_state(index);
            }
        }
    }

    fn complain_of_states(&mut self, members: &[NodeId], text: &str, index: LogIndex) {
        for member in members {
            if self.complaints.is_news(*member, text, self.now) {
                log::error!("{text} node={} member={member} at={index}", self.identity.node);
            }
        }
    }

    /// Nothing that was made of the state counts any more, what is on the disk included; nor is
    /// anybody answered who waits for an entry that this turn applies.
    fn lose_state(&mut self, found_at: LogIndex) {
        self.lost_states.own = Some(Reload { found_at, try_at: self.now });
        self.leave_waiting();
        self.state_hashes.forget_own();
        self.wal.set_diverged(true);
        self.compaction.forget_all();
        self.end_drafting();
        self.wal.abandon_draft();
        self.snapshots.distrust();
    }

    /// Why this server serves nobody, if so.
    pub(super) fn silence(&self) -> Option<Error> {
        let seen_to = self.lost_states.seen_to;
        if self.store.applied() < seen_to {
            let why = format!("the state was loaded anew, and is not at entry {seen_to} again yet");
            return Some(Error::NotReady { why: why.into() });
        }
        let leads = matches!(&self.stage, Stage::Member(raft) if raft.is_leader());
        // In a dispute the leader goes on.
        if leads && !self.lost_states.is_own() {
            return None;
        }
        self.doubt()
    }

    /// Why the state may be another one than it should be, if so.
    fn doubt(&self) -> Option<Error> {
        if let Some(reload) = &self.lost_states.own {
            let found = match reload.found_at {
                LogIndex::ZERO => "before this start".to_owned(),
                index => format!("at entry {index}"),
            };
            let why = format!(
                "the state of this server differed from that of a majority {found}; it is loaded \
                 anew"
            );
            return Some(Error::NotReady { why: why.into() });
        }
        let since = self.state_hashes.disputed()?;
        let why = format!(
            "the members' states differ at entry {since}; only the leader serves meanwhile, and no \
             snapshot is saved"
        );
        Some(Error::NotReady { why: why.into() })
    }

    /// What is known of the state, for people.
    pub(super) fn state_name(&self) -> &'static str {
        match (self.lost_states.is_own(), self.state_hashes.disputed()) {
            (true, _) => "diverged",
            (false, Some(_)) => "disputed",
            (false, None) => "sound",
        }
    }

    /// Refuses a request that is about the state, and not about the server or the members, if that
    /// is not to be served.
    pub(super) fn refuse_of_state(&self, op: Op) -> Result<(), Error> {
        let why = match op {
            Op::Put
            | Op::DeleteRange
            | Op::Compact
            | Op::InSession
            | Op::OpenSession
            | Op::PutIf
            | Op::PutWith
            | Op::DeleteRangeWith
            | Op::Txn
            | Op::LeaseGrant
            | Op::LeaseRevoke
            | Op::Range
            | Op::ReadTxn
            | Op::LeaseKeepAlive
            | Op::LeaseTimeToLive
            | Op::LeaseList
            | Op::Watch
            | Op::WatchProgress
            | Op::Auth
            | Op::Login
            | Op::LoginProof
            | Op::AuthRead
            | Op::As => self.silence(),
            // A file stays, and it would be this server's snapshot too: a restart makes its state
            // of that, and not of the log.
            Op::Snapshot => self.doubt(),
            Op::WatchCancel
            | Op::Status
            | Op::MemberList
            | Op::MemberAdd
            | Op::MemberRemove
            | Op::MemberPromote
            | Op::MemberReplace
            | Op::TransferLeader => None,
        };
        why.map_or(Ok(()), Err)
    }

    /// Whoever waits for something of the state hears that there is none. Before anything of this
    /// turn is answered.
    pub(super) fn keep_silence(&mut self) {
        if let Some(error) = self.doubt() {
            self.end_saves(&error);
        }
        let Some(error) = self.silence() else { return };
        self.end_watches(&error);
        self.end_all_ranges(&error);
        while let Some(batch) = self.reads.take_oldest() {
            self.refuse_reads(batch, &error);
        }
        while let Some((id, deferred)) = self.connections.take_deferred() {
            self.connections.answer(id, |out| error_reply(out, deferred.request, &error));
        }
        for (_, waiter) in std::mem::take(&mut self.leases.to_take_back) {
            let (id, request) = (waiter.connection, waiter.request);
            self.connections.answer(id, |out| error_reply(out, request, &error));
        }
        self.leave_waiting();
    }

    /// Whoever waits for an entry is not answered from this state. Their commands may be done yet,
    /// by others.
    fn leave_waiting(&mut self) {
        self.pending.drop_after(LogIndex::ZERO, &mut self.scratch.lost);
    }

    /// What a snapshot must stand for to take the place of our state, though it is not ahead of us:
    /// it leads past where we diverged, and past what we made a snapshot of, and our log goes on
    /// from it. If nothing of that is known, one entry at least: for entry 0 no leader makes one.
    fn reload_floor(&self, raft: &Raft) -> Option<LogIndex> {
        let reload = self.lost_states.own.as_ref()?;
        let made = self.wal.snapshot().map_or(LogIndex::ZERO, |source| source.id.position.index);
        let first = LogIndex::ZERO.next();
        Some(reload.found_at.max(raft.base().index).max(made).max(first))
    }

    /// Whether this snapshot takes the place of our state, though it is not ahead of us.
    pub(super) fn reloads_from(&self, position: LogPosition) -> bool {
        let Stage::Member(raft) = &self.stage else { return false };
        let Some(floor) = self.reload_floor(raft) else { return false };
        let behind = position.index <= raft.commit_index();
        behind && position.index >= floor && raft.term_at(position.index) == Some(position.term)
    }

    /// Asks the leader for a snapshot, or lets somebody else lead; forgets who asks no more.
    /// Before `settle`.
    pub(super) fn continue_reload(&mut self, now: Instant) {
        self.lost_states.wanted.retain(|it| it.until > now);
        let Stage::Member(raft) = &self.stage else { return };
        let leads = raft.is_leader();
        let Some(at_least) = self.reload_floor(raft) else { return };
        let Some(reload) = self.lost_states.own.as_mut().filter(|it| it.try_at <= now) else {
            return;
        };
        reload.try_at = now.after_ns(self.options.election_timeout_ns);
        let node = self.identity.node;
        if leads && let Some(target) = self.hand_over(now) {
            log::warn!("handing over, for the state here is lost node={node} to={target}");
        }
        // While it comes as well: whoever asks no more is sent no more. And not to the leader
        // alone: nobody shall count what we said of the state that is lost.
        for peer in self.peers.iter() {
            if let Some(id) = self.peers.outbound(peer.id) {
                say(&mut self.connections, id, StateWord::Wanted { at_least });
            }
        }
    }

    /// When the leader is asked again, or somebody stops to want a snapshot.
    pub(super) fn reload_wake_at(&self) -> Instant {
        let knows = matches!(&self.stage, Stage::Member(raft) if raft.leader().is_some());
        let own = self.lost_states.own.as_ref().filter(|_| knows);
        let ends = self.lost_states.wanted.iter().map(|it| it.until).min();
        own.map_or(Instant::FAR, |it| it.try_at).min(ends.unwrap_or(Instant::FAR))
    }

    /// The store has just been replaced by that of a snapshot; the old one was at `seen_to`.
    pub(super) fn note_reloaded(&mut self, seen_to: LogIndex) {
        if self.lost_states.own.take().is_some() {
            self.lost_states.reloads += 1;
            self.lost_states.seen_to = self.lost_states.seen_to.max(seen_to);
            let (node, applied) = (self.identity.node, self.store.applied());
            log::info!("loaded the state anew node={node} at={applied}");
        }
    }

    /// There is nobody else any more: what is here is all there is.
    pub(super) fn trust_what_is_left(&mut self) {
        if self.lost_states.own.take().is_some() {
            let node = self.identity.node;
            log::warn!("goes on with a state that differed from the others' node={node}");
            self.wal.set_diverged(false);
            self.snapshots.worth = Worth::Foreign;
        }
    }
}

fn say_state_hash(connections: &mut Connections, to: ConnectionId, (index, hash): (LogIndex, u64)) {
    say(connections, to, StateWord::Hash { formula: STATE_HASH_FORMULA, index, hash });
}

fn say(connections: &mut Connections, to: ConnectionId, word: StateWord) {
    // As for messages of the rules: whoever does not read gets no more.
    if connections.unsent(to).len() < limits::PEER_OUT_MAX {
        connections.write(to, |out| encode_state_word(out, word));
    }
}
