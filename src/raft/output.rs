//! What the rules want done, as data. The node drains it; nothing here acts.
//!
//! What must be durable before it leaves (a server that restarts must not contradict it):
//!
//! | Output | Durable first |
//! |---|---|
//! | `PreVote` | nothing: it promises nothing |
//! | `Vote` | the campaign's term and the own vote |
//! | `VoteReply` that grants | term and vote, one record |
//! | any reply in a term just adopted | that term |
//! | `AppendReply` up to i | term, and every entry up to i |
//! | `Append`, `Heartbeat` | no entry; the leader's term was durable at its election |
//! | `TimeoutNow` | nothing new: what it names is committed |
//! | `ReadIndex` | its term, as whatever speaks of one |
//! | `ReadIndexReply` | nothing: it says what is committed, in a leader's term |
//! | `InstallSnapshot` | as they; and the snapshot it is a piece of |
//! | `InstallSnapshotReply` that wants byte i | every byte before i; that term |
//! | `AppendReply` up to an installed snapshot | the switch to that snapshot |
//! | own entry counted in a commit | that entry |

use super::configuration::Configuration;
use super::durability::Durable;
use super::message::Message;
use crate::limits::MEMBERS_MAX;
use crate::types::{JobSeq, LogIndex, LogPosition, LogRange, NodeId, SyncReceipt, Term};
use std::mem::discriminant;
use std::{error, fmt};

/// Everything the core asks for. The node drains the public lists after each input and each
/// `settle`.
#[derive(Default, Debug)]
pub struct Output {
    /// Changes of the log, in order. Drain after every input: they refer to it.
    pub log_ops: Vec<LogOp>,
    /// Messages that may leave now.
    pub sends: Vec<Send>,
    /// Reads answered, in the order in which they were asked.
    pub reads: Vec<ReadReady>,
    /// What is to be done with the piece of a snapshot just stepped.
    pub snapshot: Option<PieceVerdict>,
    /// What people and pending proposals should hear.
    pub notices: Vec<Notice>,
    /// The next configuration on the way, as of the last `settle`: a leader's node encodes and
    /// proposes it.
    pub configuration_due: Option<Configuration>,
    /// How often each corner was reached.
    pub marks: Marks,
    /// Messages that a job in flight or the next one must make true first.
    after_sync: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    /// The job to wait for; `None` until it is formed.
    job: Option<JobSeq>,
    term: Term,
    to: NodeId,
    message: Message,
}

impl Output {
    /// Sends `message` of `term` once the write that `durable` names has completed.
    pub(super) fn send_after(
        &mut self,
        durable: Durable,
        term: Term,
        to: NodeId,
        message: Message,
    ) {
        let job = match durable {
            Durable::Now => {
                self.sends.push(Send { to, body: Body::Message(message) });
                return;
            }
            Durable::InFlight(seq) => Some(seq),
            Durable::Next => None,
        };
        let kind = discriminant(&message);
        let same = |held: &Held| held.to == to && discriminant(&held.message) == kind;
        // A refusal takes back no grant: it answers a request that another one overtook.
        let granted = |held: &Held| same(held) && held.term == term && grants(&held.message);
        if !grants(&message) && self.after_sync.iter().any(granted) {
            return;
        }
        // Else a newer message of the same kind to the same server says all that the older would
        // have: so a hanging disk and an insistent peer cannot make this list grow.
        self.after_sync.retain(|held| !same(held));
        self.after_sync.push(Held { job, term, to, message });
    }

    /// The messages that waited for the next job wait for `seq`.
    pub(super) fn assign_job(&mut self, seq: JobSeq) {
        for held in &mut self.after_sync {
            held.job.get_or_insert(seq);
        }
    }

    /// Lets leave what waited for the job of `proof`, unless its term has passed.
    pub(super) fn release(&mut self, proof: &SyncReceipt, term: Term) {
        let ready = |held: &Held| held.job.is_some_and(|job| job <= proof.seq);
        for held in self.after_sync.extract_if(.., |held| ready(held)) {
            if held.term == term {
                self.sends.push(Send { to: held.to, body: Body::Message(held.message) });
            }
        }
    }

    /// Whether nothing is left to drain.
    pub fn is_drained(&self) -> bool {
        self.log_ops.is_empty()
            && self.sends.is_empty()
            && self.reads.is_empty()
            && self.notices.is_empty()
    }
}

/// Whether it gives somebody a vote or pre-vote.
fn grants(message: &Message) -> bool {
    match message {
        Message::PreVoteReply { granted, .. } | Message::VoteReply { granted, .. } => *granted,
        Message::PreVote { .. }
        | Message::Vote { .. }
        | Message::Append { .. }
        | Message::Heartbeat { .. }
        | Message::TimeoutNow { .. }
        | Message::AppendReply { .. }
        | Message::ReadIndex { .. }
        | Message::ReadIndexReply { .. } => false,
        Message::InstallSnapshot { .. } | Message::InstallSnapshotReply { .. } => false,
    }
}

/// What the rules say about a piece of a snapshot that has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceVerdict {
    /// It is of the leader of our term, and ahead of what we have: keep it.
    Keep,
    /// Everything it stands for is committed here: say so.
    Superfluous,
}

/// A change of the log for the node to stage. `propose` stages nothing: the proposer has the
/// payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogOp {
    /// Remove every entry after `to`.
    Truncate {
        /// The last entry to keep.
        to: LogPosition,
    },
    /// Append entries of the message just stepped.
    Accept {
        /// How many entries of the message to pass over: they are in the log already.
        skip: usize,
        /// The position of the first entry taken.
        first: LogPosition,
        /// How many entries to take.
        count: usize,
    },
    /// Append the empty entry with which a leader begins its term. Paper §8.
    NoOp {
        /// Where.
        position: LogPosition,
    },
}

/// A message to one server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Send {
    /// For whom.
    pub to: NodeId,
    /// What.
    pub body: Body,
}

/// What to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// A whole message; never an `Append`.
    Message(Message),
    /// An `Append` to which the node adds the entries of `range`.
    Append {
        /// The leader's term.
        term: Term,
        /// The replication session.
        session: u64,
        /// The newest ReadIndex round.
        round: u64,
        /// The entry just before `range`.
        prev: LogPosition,
        /// The entries to send; may be empty.
        range: LogRange,
        /// The leader's commit index, not above `range.last()`.
        commit: LogIndex,
    },
}

/// Names one question "up to where must I have applied to read?". Tickets ascend within a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadTicket(pub(super) u64);

/// The answer to a `ReadTicket`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadReady {
    /// Which question.
    pub ticket: ReadTicket,
    /// Serve when this index is applied; or the leadership ended before the answer was certain.
    pub result: Result<LogIndex, Dropped>,
}

/// The leadership ended before a quorum confirmed it: ask the new leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dropped;

/// Only a leader answers; `leader` is who that may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotLeader {
    /// The leader of our term, if we know it.
    pub leader: Option<NodeId>,
}

impl fmt::Display for NotLeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.leader {
            Some(leader) => write!(f, "not the leader, {leader} is"),
            None => write!(f, "not the leader, and none is known"),
        }
    }
}

impl error::Error for NotLeader {}

/// Why a proposal was not taken. It is certainly not in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProposeError {
    /// Only a leader proposes.
    NotLeader {
        /// Who may be one.
        leader: Option<NodeId>,
    },
    /// Too many bytes wait for their commit. Try again soon.
    Busy,
    /// The leadership is being handed over. Try again soon, perhaps elsewhere.
    Transferring,
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProposeError::NotLeader { leader } => NotLeader { leader: *leader }.fmt(f),
            ProposeError::Busy => write!(f, "busy: too many bytes wait for their commit"),
            ProposeError::Transferring => write!(f, "the leadership is being handed over"),
        }
    }
}

impl error::Error for ProposeError {}

/// Why a configuration was not changed. Nothing of it is in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeError {
    /// Only a leader changes it.
    NotLeader {
        /// Who may be one.
        leader: Option<NodeId>,
    },
    /// The leader is new: no entry of its term is committed yet. Try again soon.
    NotReady,
    /// An earlier change is not finished. Try again soon.
    Underway,
    /// The leadership is being handed over. Try again soon, perhaps elsewhere.
    Transferring,
    /// It is a member already.
    Member {
        /// Who.
        id: NodeId,
    },
    /// It is no member.
    NoMember {
        /// Who.
        id: NodeId,
    },
    /// It is no learner.
    NoLearner {
        /// Who.
        id: NodeId,
    },
    /// There is no room for another member.
    TooMany,
    /// A cluster needs a voter.
    LastVoter,
    /// The leader has no connection to it, or no answer.
    Unreachable {
        /// Who.
        id: NodeId,
    },
    /// Its log is too far behind the leader's.
    Behind {
        /// Who.
        id: NodeId,
        /// By how many entries.
        entries: u64,
    },
    /// Too few voters would answer afterwards.
    NoQuorum {
        /// How many would.
        alive: usize,
        /// Of how many.
        voters: usize,
    },
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeError::NotLeader { leader } => NotLeader { leader: *leader }.fmt(f),
            ChangeError::NotReady => write!(f, "the leader has not committed an entry yet"),
            ChangeError::Underway => write!(f, "an earlier change of the members is not finished"),
            ChangeError::Transferring => write!(f, "the leadership is being handed over"),
            ChangeError::Member { id } => write!(f, "{id} is a member already"),
            ChangeError::NoMember { id } => write!(f, "{id} is not a member"),
            ChangeError::NoLearner { id } => write!(f, "{id} is not a learner"),
            ChangeError::TooMany => write!(f, "there are {MEMBERS_MAX} members already"),
            ChangeError::LastVoter => {
                write!(f, "it is the last voter, and a cluster needs one")
            }
            ChangeError::Unreachable { id } => write!(f, "{id} is not connected"),
            ChangeError::Behind { id, entries } => write!(f, "{id} is behind by {entries} entries"),
            ChangeError::NoQuorum { alive, voters } => {
                write!(f, "it would leave {alive} of {voters} voters alive")
            }
        }
    }
}

impl error::Error for ChangeError {}

/// Why the leadership is not handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransferError {
    /// Only a leader hands over.
    NotLeader {
        /// Who may be one.
        leader: Option<NodeId>,
    },
    /// The target leads already.
    Leads,
    /// A handover is under way.
    Underway,
    /// The target is no voter, or will not be one for long.
    NoVoter {
        /// Who.
        target: NodeId,
    },
    /// The leader has no connection to the target.
    Unreachable {
        /// Who.
        target: NodeId,
    },
    /// The target's log is too far behind: proposals would wait for too long.
    Behind {
        /// Who.
        target: NodeId,
        /// By how many entries.
        entries: u64,
    },
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransferError::NotLeader { leader } => NotLeader { leader: *leader }.fmt(f),
            TransferError::Leads => write!(f, "it leads already"),
            TransferError::Underway => write!(f, "the leadership is being handed over already"),
            TransferError::NoVoter { target } => write!(f, "{target} is not a voter"),
            TransferError::Unreachable { target } => write!(f, "{target} is not connected"),
            TransferError::Behind { target, entries } => {
                write!(f, "{target} is behind by {entries} entries")
            }
        }
    }
}

impl error::Error for TransferError {}

/// Something to log, or to fail pending proposals on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// We ask who would vote for us in the term after `term`.
    AskingForPreVotes {
        /// Our term, unchanged.
        term: Term,
    },
    /// We stand for election.
    Campaigning {
        /// The term we want to lead.
        term: Term,
    },
    /// We lead; `noop` opens the term.
    BecameLeader {
        /// The term we lead.
        term: Term,
        /// The first entry of the term.
        noop: LogPosition,
    },
    /// We stopped leading or campaigning. What we proposed and did not see committed has an unknown
    /// outcome.
    BecameFollower {
        /// Our term now.
        term: Term,
        /// Its leader, if we know it.
        leader: Option<NodeId>,
    },
    /// A follower heard from a leader it did not know.
    LeaderChanged {
        /// Our term.
        term: Term,
        /// Its leader.
        leader: NodeId,
    },
    /// As leader we heard no quorum for an election timeout; `BecameFollower` follows.
    LostQuorum {
        /// The term we led.
        term: Term,
    },
    /// We lead on: the target of a handover did not take over in time, left, or is no voter any
    /// more.
    TransferFailed {
        /// The term we lead.
        term: Term,
        /// Who should have taken over.
        target: NodeId,
    },
    /// As leader we wait for our own disk for too long; `BecameFollower` follows.
    DiskStalled {
        /// The term we led.
        term: Term,
    },
    /// A snapshot took the place of our state, and of our log where that differed.
    SnapshotInstalled {
        /// The last entry it stands for.
        position: LogPosition,
        /// Whether the log went on behind that entry and was kept.
        kept: bool,
    },
    /// A leader contradicts an entry that we know to be committed or verified. We refuse its
    /// message; one of us is broken, and people must look.
    SafetyViolated {
        /// The leader that sent it.
        from: NodeId,
        /// Our entry.
        ours: LogPosition,
        /// The term it claims for this place.
        theirs: Term,
    },
}

/// A corner of the protocol that tests want to see reached and metrics may show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// A message that no sound peer sends was ignored.
    Malformed,
    /// A vote or pre-vote was refused because a leader was heard lately.
    Sticky,
    /// Entries of a former leader were truncated.
    Truncated,
    /// A previous-entry check failed.
    Conflicted,
    /// Entries did not fit into the prepared space.
    OutOfRoom,
    /// There is room again, and the leader that waits for it is told.
    RoomAgain,
    /// A message waited for the disk and its term had passed, or a receipt was cut by a truncation.
    Stale,
    /// A ReadIndex round began.
    ReadRound,
    /// A pipeline to a follower was given up and the follower probed.
    Reprobed,
    /// A lease answered a read.
    LeaseRead,
    /// A leader answered a follower's reads.
    ForwardedRead,
    /// Our own disk took so long that we left office, or did not stand for it.
    DiskStalled,
    /// A follower needs entries that the leader no longer holds: it is sent a snapshot.
    SnapshotNeeded,
    /// An `Append` began before the receiver's log does.
    BelowBase,
    /// A snapshot was installed and the log behind it kept.
    SnapshotKeptLog,
    /// A snapshot was installed in place of the log.
    SnapshotReplacedLog,
    /// A snapshot that was not ahead of what is committed was passed over.
    SnapshotStale,
}

/// Counts of `Mark`s since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Marks {
    counts: [u64; 17],
}

impl Marks {
    /// How often `mark` was reached.
    pub fn count(&self, mark: Mark) -> u64 {
        self.counts[slot(mark)]
    }

    pub(super) fn add(&mut self, mark: Mark) {
        self.counts[slot(mark)] += 1;
    }
}

const fn slot(mark: Mark) -> usize {
    match mark {
        Mark::Malformed => 0,
        Mark::Sticky => 1,
        Mark::Truncated => 2,
        Mark::Conflicted => 3,
        Mark::OutOfRoom => 4,
        Mark::Stale => 5,
        Mark::ReadRound => 6,
        Mark::Reprobed => 7,
        Mark::LeaseRead => 8,
        Mark::ForwardedRead => 9,
        Mark::DiskStalled => 10,
        Mark::SnapshotNeeded => 11,
        Mark::BelowBase => 12,
        Mark::SnapshotKeptLog => 13,
        Mark::SnapshotReplacedLog => 14,
        Mark::SnapshotStale => 15,
        Mark::RoomAgain => 16,
    }
}
