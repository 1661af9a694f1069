//! The rules: Raft as data. No IO, no clock, no randomness, no payload byte; `types` and `limits`
//! only.
//!
//! Three tiers, each of which looks only down:
//!
//! - **values** `message` `output` `configuration` `quorum` `term_runs` `log` `progress`
//!   `durability`: each owns its invariant and has never heard of the others' rules;
//! - **state** this file (Figure 2's box) and `role` (the moves between roles, and what each role
//!   owns);
//! - **rules** `election` `following` `replication` `reads` `membership` `transfer` `snapshot`:
//!   what a message, a deadline or a receipt changes. Rules do not call rules: `step`, the door,
//!   calls them, and a consequence is a line of `settle`.
//!
//! A turn of the node: any number of `step`, `tick`, `propose`, `read`, `on_synced`, then one
//! `settle`, then draining `output`. When `has_job`, and no job is in flight, the node forms one
//! and says `begin_job`.
//!
//! Sources: "paper" is Ongaro and Ousterhout, *In Search of an Understandable Consensus Algorithm*
//! (extended version); "thesis" is Ongaro, *Consensus: Bridging Theory and Practice*.
//!
//! Why not a trait for storage: the log's terms fit in memory as runs (`term_runs`), and sizes in a
//! ring (`log`), so every rule is a function of this struct and its argument.

mod configuration;
mod durability;
mod election;
mod following;
mod invariants;
mod log;
mod membership;
pub mod message;
mod output;
mod progress;
mod quorum;
mod reads;
mod replication;
mod role;
mod snapshot;
mod step;
mod term_runs;
mod transfer;

pub use configuration::{Configuration, Learner, Learners, Voters, Wish};
pub use durability::{DISK_PATIENCE_ELECTION_TIMEOUTS, JobScope};
pub use following::room_taken;
pub use membership::Change;
pub use output::{
    Body, ChangeError, Dropped, LogOp, Mark, Marks, NotLeader, Notice, Output, PieceVerdict,
    ProposeError, ReadReady, ReadTicket, Send, TransferError,
};
pub use snapshot::{Install, LogFate};

use crate::types::{HardState, Instant, LogIndex, LogPosition, LogRange, NodeId, Term, Vote};
use configuration::Configurations;
use durability::Durability;
use invariants::Moment;
use log::Log;
use role::{Follower, Role};
use std::collections::BTreeMap;
use term_runs::TermRuns;

/// What a core is told once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Who we are.
    pub id: NodeId,
    /// Time without word from a leader before we campaign, drawn from [t, 2t); as leader, time
    /// without a quorum before we fall silent. Nanoseconds. Thesis §3.4, §6.2.
    pub election_timeout_ns: u64,
    /// How often a leader says that it is there. Nanoseconds.
    pub heartbeat_ns: u64,
    /// Where the election timeouts come from. Different on every server and at every start.
    pub seed: u64,
    /// `Append`s out to one follower before it must answer.
    pub in_flight_messages_max: usize,
    /// Payload bytes out to one follower before it must answer; one message may exceed it.
    pub in_flight_bytes_max: u64,
    /// Payload bytes in one `Append`; one entry may exceed it.
    pub append_bytes_max: u64,
    /// Entries in one `Append`.
    pub append_entries_max: usize,
    /// Payload bytes a leader holds beyond its commit index; one proposal may exceed it.
    pub uncommitted_bytes_max: u64,
    /// By how much any two servers' clocks may differ in rate, in millionths; `None`: it is not
    /// known, so there are no leases. The same on every server, as is the election timeout. Thesis
    /// §6.4.1.
    pub lease_drift_ppm: Option<u32>,
}

/// What recovery found on the disk, all of it durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// Term and vote.
    pub hard_state: HardState,
    /// The entry before the first one of the log: a snapshot stands for it. `ZERO` without one.
    pub base: LogPosition,
    /// The runs of the log: (last index of the run, its term), ascending.
    pub log: Vec<(LogIndex, Term)>,
    /// Payload bytes of each entry, from the first.
    pub sizes: Vec<u32>,
    /// The highest index known to be committed; not below what the snapshot stands for.
    pub commit_index: LogIndex,
    /// The snapshot's configuration and those in the log, ascending; at least the bootstrap's.
    pub configurations: Vec<(LogIndex, Configuration)>,
}

/// One server's Raft. Laid out like Figure 2.
#[derive(Debug)]
pub struct Raft {
    settings: Settings,

    // Persistent state: what it is now. What of it is durable: `durability`.
    hard_state: HardState,
    log: Log,
    durability: Durability,

    // Volatile state on all servers.
    commit_index: LogIndex,
    /// Follower, candidate or leader, with the volatile state of each.
    role: Role,
    /// Our live connections to other servers: the replication session of each.
    sessions: BTreeMap<NodeId, u64>,
    /// The ticket of the next read.
    next_read: u64,
    /// Our number for the next question to a leader; no server asks twice under one, restarts
    /// included.
    next_question: u64,
    /// Until then a leader may hold a lease that rests on us: we vote for nobody. A restarted
    /// server does not know what it confirmed, so where there are leases it starts with one.
    promise_until: Instant,

    random_state: u64,
    wake_at: Instant,
    output: Output,
    /// What must never go back, as of the last check.
    moment: Moment,
}

impl Raft {
    /// A server that starts, always as a follower: to lead it needs a new term, since it may have
    /// sent entries in its old one that it no longer has. A sole voter campaigns at its first tick,
    /// or, where there are leases, once it may vote: a leader that removes itself leads, and holds
    /// a lease, until the voter that it leaves behind knows.
    pub fn new(settings: Settings, restored: Restored, now: Instant) -> Raft {
        assert!(settings.election_timeout_ns > settings.heartbeat_ns, "followers need a heartbeat");
        assert!(settings.heartbeat_ns > 0, "a heartbeat takes time");
        let runs = TermRuns::new(restored.base, restored.log);
        let last = runs.last();
        assert!(restored.commit_index <= last.index, "committed beyond the log's end {last}");
        assert!(restored.commit_index >= restored.base.index, "a snapshot is of the committed");
        let log = Log::new(runs, &restored.sizes, Configurations::new(restored.configurations));
        // An entry of a term proves that the term began: of its vote nothing is known, so none is
        // given.
        let hard_state = if restored.hard_state.term < last.term {
            HardState { term: last.term, vote: Vote::Abstain }
        } else {
            restored.hard_state
        };
        let moment = Moment::start(hard_state, restored.commit_index);
        // In the bootstrap's term nobody led, so nobody holds a lease.
        let led = hard_state.term > Term::BOOTSTRAP;
        let next_question = mixed(settings.seed ^ QUESTIONS);
        let leases = settings.lease_drift_ppm.is_some();
        let promise_until =
            if led && leases { now.after_ns(settings.election_timeout_ns) } else { now };
        let mut raft = Raft {
            random_state: settings.seed,
            durability: Durability::new(restored.hard_state, last.index),
            settings,
            hard_state,
            log,
            commit_index: restored.commit_index,
            role: Role::Follower(Follower { election_deadline: promise_until, following: None }),
            sessions: BTreeMap::new(),
            next_read: 0,
            next_question,
            promise_until,
            wake_at: now,
            output: Output::default(),
            moment,
        };
        if !raft.log.configuration().is_sole_voter(raft.settings.id) {
            let election_deadline = raft.draw_election_deadline(now);
            raft.role = Role::Follower(Follower { election_deadline, following: None });
        }
        raft.choose_wake_at();
        raft
    }

    /// What the core wants done. Drain it after every input.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// How often each corner was reached since the start.
    pub fn marks(&self) -> &Marks {
        &self.output.marks
    }

    /// Who we are.
    pub fn id(&self) -> NodeId {
        self.settings.id
    }

    /// The latest term we have seen.
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Term and vote, durable or not.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Our role, for people: `follower`, `pre-candidate`, `candidate` or `leader`.
    pub fn role_name(&self) -> &'static str {
        self.role.name()
    }

    /// The leader of our term, if we know it; ourselves included.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(follower) => follower.following.as_ref().map(|it| it.leader),
            Role::PreCandidate(_) | Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.settings.id),
        }
    }

    /// Whether we lead our term.
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Whether we lead and have committed an entry of our term: from then on our commit index is
    /// that of the cluster. Paper §8.
    pub fn leader_ready(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => self.commit_index >= leader.noop.index,
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// The highest index known to be committed.
    pub fn commit_index(&self) -> LogIndex {
        self.commit_index
    }

    /// The last entry of the log, durable or not.
    pub fn last(&self) -> LogPosition {
        self.log.last()
    }

    /// The last index up to which our log is durable.
    pub fn durable(&self) -> LogIndex {
        self.durability.last()
    }

    /// When `tick` has something to do.
    pub fn wake_at(&self) -> Instant {
        self.wake_at
    }

    /// The configuration in force: the newest in the log, committed or not.
    pub fn configuration(&self) -> &Configuration {
        self.log.configuration()
    }

    /// The index of the entry that holds the configuration in force.
    pub fn configuration_index(&self) -> LogIndex {
        self.log.configuration_index()
    }

    /// The configuration that was the newest at `index`, and the index of its entry. Panics before
    /// the log's base.
    pub fn configuration_at(&self, index: LogIndex) -> (LogIndex, &Configuration) {
        assert!(index >= self.log.base().index, "what is before the base is forgotten");
        self.log.configuration_at_or_below(index)
    }

    /// The entry before the first one that the log holds.
    pub fn base(&self) -> LogPosition {
        self.log.base()
    }

    /// The term of the entry at `index`; `None` beyond the last one and before the base.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.log.term_at(index)
    }

    /// As leader, the highest index known to be durable on `peer`.
    pub fn match_index(&self, peer: NodeId) -> Option<LogIndex> {
        match &self.role {
            Role::Leader(_) if peer == self.settings.id => Some(self.durability.last()),
            Role::Leader(leader) => {
                leader.peers.iter().find(|it| it.id == peer).map(|it| it.match_index)
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// Payload bytes of the entries beyond the commit index.
    pub fn uncommitted_bytes(&self) -> u64 {
        self.log.bytes_in(LogRange::new(self.commit_index, self.log.last().index))
    }

    /// Payload bytes of the entries after `index`, which is not before the base.
    pub fn bytes_since(&self, index: LogIndex) -> u64 {
        self.log.bytes_in(LogRange::new(index, self.log.last().index))
    }

    /// Appends an entry of our own term to the log in memory.
    fn append(&mut self, bytes: u32) -> LogPosition {
        self.durability.appended();
        self.log.append(self.hard_state.term, bytes)
    }

    /// A moment in [t, 2t) from now, so that servers rarely campaign at once. Thesis §3.4.
    fn draw_election_deadline(&mut self, now: Instant) -> Instant {
        let timeout = self.settings.election_timeout_ns;
        self.random_state = self.random_state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        now.after_ns(timeout.saturating_add(mixed(self.random_state) % timeout))
    }
}

/// Sets the numbers of questions apart from the election timeouts of the same seed.
const QUESTIONS: u64 = 0x51_7e57_1095;

/// SplitMix64's output function (Steele, Lea, Flood 2014): every state is a good one.
fn mixed(state: u64) -> u64 {
    let mut bits = state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
