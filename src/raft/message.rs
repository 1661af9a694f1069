//! What servers say to each other: Figure 2's RPCs, pre-vote and heartbeats, one variant each.
//!
//! Positions only. The payloads of `Append` travel beside the message, in the order of `entries`;
//! the core never sees one. A reply goes back over the connection that brought its request.

use crate::types::{EntryKind, LogIndex, LogPosition, NodeId, SnapshotId, Term};

/// One message of the protocol. `term` is the sender's current term unless said otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// "Would you vote for me?" Changes nobody's state. Thesis §9.6.
    PreVote {
        /// The term the sender would campaign in: its own plus one.
        campaign_term: Term,
        /// The sender's last entry, FAULTY ones included.
        last: LogPosition,
    },
    /// Answer to `PreVote`. A refusal carries the voter's term, so that a stale candidate learns
    /// it.
    PreVoteReply {
        /// The voter's current term.
        term: Term,
        /// The `campaign_term` this answers.
        campaign_term: Term,
        /// Whether the voter would vote for the sender.
        granted: bool,
    },
    /// Figure 2, RequestVote. Leaves only when the candidate's term and own vote are durable.
    Vote {
        /// The candidate's term.
        term: Term,
        /// The candidate's last entry, FAULTY ones included.
        last: LogPosition,
        /// The leader of the term before, if it asked the candidate to take over: its followers
        /// need not be loyal to it. Thesis §3.10.
        asked_by: Option<NodeId>,
    },
    /// Figure 2, RequestVote's result. A grant leaves only when term and vote are durable.
    VoteReply {
        /// The voter's current term.
        term: Term,
        /// Whether the vote of `term` is the sender's.
        granted: bool,
    },
    /// Figure 2, AppendEntries with entries or as a probe. Payloads travel beside it.
    Append {
        /// The leader's term.
        term: Term,
        /// The replication session: echoed, so that an answer of an older connection is known as
        /// such.
        session: u64,
        /// The newest ReadIndex round this confirms.
        round: u64,
        /// The entry just before the first one sent.
        prev: LogPosition,
        /// The entries, in order from `prev.index.next()`.
        entries: Vec<EntryMeta>,
        /// The leader's commit index, not above the last entry of this message.
        commit: LogIndex,
    },
    /// "I am here and lead." Verifies no entry, so its commit index is at most the follower's
    /// match index.
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// The replication session.
        session: u64,
        /// The newest ReadIndex round this confirms.
        round: u64,
        /// min(the leader's commit index, the match index of the receiver).
        commit: LogIndex,
    },
    /// "Take over: campaign at once." From a leader whose log, all of it committed, the receiver
    /// has. Thesis §3.10.
    TimeoutNow {
        /// The leader's term.
        term: Term,
        /// The leader's last entry: a receiver whose last entry is another ignores the message.
        last: LogPosition,
    },
    /// Answer to `Append` and `Heartbeat`, one for all that came in a turn.
    AppendReply {
        /// The follower's current term.
        term: Term,
        /// The session of the newest message answered.
        session: u64,
        /// The newest round heard.
        round: u64,
        /// What happened to the log.
        outcome: AppendOutcome,
        /// The lowest damaged entry, if any: the match index never reaches it. Spec §6 rule 18.
        first_faulty: Option<LogIndex>,
    },
    /// "Up to where must I have applied, to read?" From a follower. Promises nothing.
    ReadIndex {
        /// The follower's term: the leader's, or the question is in vain.
        term: Term,
        /// The follower's number for the question.
        sequence: u64,
    },
    /// Answer to `ReadIndex`, once a quorum has confirmed the leader after it was asked.
    ReadIndexReply {
        /// The leader's term.
        term: Term,
        /// Which question.
        sequence: u64,
        /// Committed; and everything committed before the question is at or below it.
        index: LogIndex,
    },
    /// Paper Figure 13: a piece of a snapshot's file, which travels beside it. Without a piece it
    /// asks from where on the receiver wants the file. It has a connection of its own, so that it
    /// never delays an `Append`.
    InstallSnapshot {
        /// The leader's term.
        term: Term,
        /// Which file.
        snapshot: SnapshotId,
        /// Where in the file the piece begins.
        offset: u64,
        /// How long the piece is. Bytes.
        bytes: u32,
    },
    /// Answer to `InstallSnapshot`.
    InstallSnapshotReply {
        /// The follower's current term.
        term: Term,
        /// Which file this is about.
        snapshot: SnapshotId,
        /// What became of it.
        outcome: SnapshotOutcome,
    },
}

/// How far a follower is with a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotOutcome {
    /// Everything before `offset` is durable here; what follows is wanted.
    Wanted {
        /// From where to send on.
        offset: u64,
    },
    /// Everything it stands for is in this server's state: send entries.
    Installed,
    /// Not now: there is no room for it, its bytes were damaged, or another one is being installed.
    Refused,
}

/// The part of an `AppendReply` about the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendOutcome {
    /// Everything up to `index` equals the leader's log **and is durable here**.
    Matched {
        /// min(last entry verified against this leader in this term, durable). May be behind what
        /// was sent.
        index: LogIndex,
    },
    /// The entry `probe` named as `prev` is not in the follower's log.
    Conflict {
        /// `prev.index` of the refused message: a leader ignores refusals of probes it did not
        /// make last.
        probe: LogIndex,
        /// The follower's last entry at or below `probe` that could match: the end of the run of
        /// terms that is at most the probe's term. Never above the follower's last entry.
        hint: LogPosition,
    },
    /// Entries arrived in order but there was no room to store them, and there is none yet. The
    /// leader waits until it hears `Matched`, or a heartbeat, and tries one entry.
    NoRoom {
        /// As in `Matched`: durable and verified.
        index: LogIndex,
    },
}

/// What the core knows of an entry: who made it, what kind, how large.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryMeta {
    /// The term of the leader that made it.
    pub term: Term,
    /// What it holds.
    pub kind: EntryKind,
    /// Payload length. Bytes.
    pub bytes: u32,
}

impl Message {
    /// The sender's current term, if the message states it. A pre-vote states only a wish.
    pub fn term(&self) -> Option<Term> {
        match self {
            Message::PreVote { .. } => None,
            Message::PreVoteReply { term, .. }
            | Message::Vote { term, .. }
            | Message::VoteReply { term, .. }
            | Message::Append { term, .. }
            | Message::Heartbeat { term, .. }
            | Message::TimeoutNow { term, .. }
            | Message::AppendReply { term, .. }
            | Message::ReadIndex { term, .. }
            | Message::ReadIndexReply { term, .. }
            | Message::InstallSnapshot { term, .. }
            | Message::InstallSnapshotReply { term, .. } => Some(*term),
        }
    }
}
