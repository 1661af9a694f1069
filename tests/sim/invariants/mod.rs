//! What must be true after every turn of every node, by the names of the papers.
//!
//! | name | what |
//! |---|---|
//! | ElectionSafety | one leader a term, over all starts |
//! | ElectionQuorum | who leads has the votes of a quorum, counted here |
//! | TermMonotonic | no term goes back, not even over a crash, once it was said |
//! | VoteDurability | one vote a term, durable before anyone hears of it |
//! | TermDurability | no message of a term that is not on the sender's platters |
//! | LeaderAppendOnly | a leader never truncates |
//! | LogMatching | equal index and term: equal entries up to there |
//! | AckDurability | what is acknowledged is on the platters, and is what the leader has |
//! | CommitQuorum | what is committed is on the platters of a quorum, counted here |
//! | OneChange | a leader changes members once the last change and one own entry are committed |
//! | OneStep | voters change one at a time, or through a joint configuration |
//! | JointEntered | a joint configuration begins with the voters before it |
//! | JointLeft | a joint configuration is followed by its new half, and the same learners |
//! | ConfigurationInForce | it is that of the newest entry in the log that holds one |
//! | CommitTermRule | a leader commits by counting only entries of its own term |
//! | LeaderCompleteness | who is elected holds everything committed in earlier terms |
//! | CommittedImmutable | an index is committed once, with one entry |
//! | CommitMonotonic | commit and applied index never go back, applied ≤ commit ≤ last |
//! | StateMachineSafety | the state at an index is what the committed entries make one by one |
//! | ReplicaHashEquality | equal applied index: equal state hash, on whichever node or start |
//! | SnapshotEquivalence | a snapshot loads as the state of its index, and goes on as that one |
//! | SnapshotOrder | log begins ≤ snapshot + 1, snapshot ≤ applied |
//! | StatesAgree | who has another state than the log says finds out, and nobody else does |
//! | DivergedSilent | who has found out answers nobody from it |
//! | SnapshotCommitted | what a snapshot stands for is committed |
//! | SnapshotDurable | a snapshot in force is on the platters, every byte and its name |
//! | NeededStays | the snapshot in force and the segments of the log are never removed |
//! | RecoveryKeeps | a start finds everything that a sync had covered |
//! | RecoveryIdempotent | a second recovery finds what the first one left |
//! | MessageSanity | only the leader of a term sends its appends and heartbeats, from its log |
//! | MatchDurability | what a leader counts for a follower is on its platters, said lately or not |
//! | ReadFreshness | an answer is not older than what anybody was told before it was asked for |
//! | LeaseExclusive | while a leader holds a lease, nobody leads a later term |
//! | ReadersAnswered | nobody waits for a round of a leader that is none any more |
//! | Answered | a request is answered once over the connection on which it came, or that ends |
//! | SavedWhole | a snapshot that a client saves loads, and holds what it knew to be written |
//! | ExactlyOnce | a call of a session is done once, and all its copies get the same answer |
//! | Answer | an answer fits what was asked, and a sound request gets no other error |
//! | Parts | a part of an answer, behind which others follow, holds a key |
//! | Quota | who is turned down for the size of the store is told a size beyond what it may have |
//! | NoPhantom | who answers was asked; a leader or a change of members that is told of was there |
//! | Watch | a watch hears of each change once, in order, and of nothing behind its end |
//! | LeaseNeverEarly, LeaseNotResurrected, LeaseEnds | see `clients/leases.rs` |
//! | NoRightNoService | see `rights/mod.rs` |
//! | Detection | what was damaged in a log is noticed by who reads it, and no entry is lost by it |
//! | NodeGoesOn | a node stops only after a failed sync, or where its disk was damaged |
//! | ResourceBounds | one sync job at a time; two spares and one in the making; windows, entries,
//! | | the uncommitted, the log, and what is said in a turn: see `bounds.rs` |
//! | Rest | a node with nothing new to look at does not ask for turn after turn |
//! | Progress | enough of what clients asked for was answered, and enough of the changes done |
//! | Peers | a member dials all others, and nobody else |
//! | Liveness, Convergence | a healed quorum serves; in the end all agree |
//! | FinalState | in the end users and roles are what the log says |
//! | MVCC | in the end every node can read its newest revision |
//! | History | all answers together can be true: which rule is broken is said, see `history/` |
//! | Mended | a start leaves no header page of a segment damaged on the platters |
//! | Assertion | no assertion fails, of the nodes or of the simulator |
//! | Ends | a seed comes to an end: see `watchdog.rs` |
//!
//! Each check looks at what changed. The node is asked what it holds (`replica::Inspection`); what
//! is durable is read from the platters, what was said from the wire.

mod applied;
pub(crate) mod bounds;
mod members;
mod messages;
mod nodes;
pub(crate) mod quorums;
mod recovery;
mod states;

use crate::chain::{Chain, Ground, Link};
use crate::options::Options;
use raftd::raft::{Configuration, Mark, Marks};
use raftd::types::{LogIndex, Term, Vote};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{Location, panic_any};

/// A broken invariant. It unwinds to whoever runs the seed.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) invariant: &'static str,
    /// Which of its rules: where that is looked at, of an assertion where it stands, and of a
    /// history its name.
    pub(crate) rule: String,
    pub(crate) why: String,
}

impl Broken {
    /// Whether another run has failed in the same way. The words differ: they name terms and times.
    pub(crate) fn is_like(&self, other: &Broken) -> bool {
        (self.invariant, &self.rule) == (other.invariant, &other.rule)
    }
}

/// Ends the run.
#[track_caller]
pub(crate) fn broken(invariant: &'static str, why: String) -> ! {
    broken_rule(invariant, Location::caller().to_string(), why)
}

/// The same, by one of many rules that are looked at in one place.
pub(crate) fn broken_rule(invariant: &'static str, rule: String, why: String) -> ! {
    panic_any(Broken { invariant, rule, why })
}

/// Ends the run if `holds` is not so.
macro_rules! must {
    ($holds:expr, $invariant:literal, $($why:tt)*) => {
        if !$holds {
            $crate::invariants::broken($invariant, format!($($why)*));
        }
    };
}
pub(crate) use must;

/// What was last seen of a node.
#[derive(Clone, Default, Debug)]
pub(crate) struct Seen {
    pub(crate) chain: Chain,
    pub(crate) term: Term,
    pub(crate) vote: Vote,
    /// The term it leads.
    pub(crate) leads: Option<Term>,
    pub(crate) commit: LogIndex,
    /// What it counts for the others as a leader: by machine.
    matches: Vec<(usize, LogIndex)>,
    pub(crate) applied: LogIndex,
    pub(crate) hash: u64,
    pub(crate) compacted: u64,
    pub(crate) marks: Marks,
    /// The configuration in force and its entry.
    pub(crate) configuration: Option<(LogIndex, Configuration)>,
    /// The one that was in force when this turn began, if it is another.
    replaced: Option<(LogIndex, Configuration)>,
    /// The last entry of its snapshot, and the one before its log.
    snapshot: LogIndex,
    base: LogIndex,
    /// Its state was a snapshot once, since the start of its process.
    loaded: bool,
    /// The end of its log when that was so last: of what is up to there nobody counts the bytes.
    loaded_end: LogIndex,
    /// It writes a snapshot; and the end of its log when it began the last one.
    drafts: bool,
    draft_end: LogIndex,
    /// How often its state came anew, and whether it knows that it must.
    reloads: u64,
    pub(crate) silent: bool,
    /// It knows that states differ, and not which is right.
    disputed: bool,
}

/// What is known of a machine over all its starts.
#[derive(Clone, Default, Debug)]
struct Promises {
    /// The latest term in any message of it.
    term_said: u64,
    /// The highest entry it acknowledged.
    acknowledged: LogIndex,
    /// What the next start must find: this much of the platters' log, and this hard state.
    keeps: Option<Keeps>,
}

#[derive(Clone, Debug)]
struct Keeps {
    log: LogIndex,
    link: Link,
    term: u64,
    vote: u64,
}

/// An entry that was committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) link: Link,
    /// The term whose leader committed it.
    pub(crate) by: Term,
}

/// The proof so far.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) seen: Vec<Seen>,
    promises: Vec<Promises>,
    states: Vec<states::State>,
    /// Who led each term.
    pub(crate) leaders: BTreeMap<Term, usize>,
    /// Every entry that any log ever held, by index.
    entries: Vec<Vec<Link>>,
    pub(crate) committed: Vec<Committed>,
    /// The same, for logs that begin behind a snapshot.
    ground: Ground,
    /// What was committed, as whoever committed it held it; `None` if it was damaged there.
    pub(crate) payloads: Vec<Option<Vec<u8>>>,
    /// Who has asked whom from where on to send a snapshot.
    asked: BTreeSet<(usize, usize)>,
    /// The state hash at each applied index, once known.
    hashes: Vec<Option<u64>>,
    twin: applied::Twin,
    bounds: bounds::Bounds,
    votes: BTreeMap<(usize, Term), u64>,
    /// Every configuration that any log ever held.
    configurations: BTreeMap<(LogIndex, Term), Configuration>,
}

impl Proof {
    pub(crate) fn new(options: &Options, ground: Ground) -> Proof {
        let machines = options.machines();
        Proof {
            seen: vec![Seen::default(); machines],
            promises: vec![Promises::default(); machines],
            states: vec![states::State::default(); machines],
            leaders: BTreeMap::new(),
            entries: Vec::new(),
            committed: Vec::new(),
            ground,
            payloads: Vec::new(),
            asked: BTreeSet::new(),
            hashes: Vec::new(),
            twin: applied::Twin::new(),
            bounds: bounds::Bounds::new(options),
            votes: BTreeMap::new(),
            configurations: BTreeMap::new(),
        }
    }

    /// The newest leader that is still held for one by itself.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.leaders
            .iter()
            .rev()
            .find(|(term, machine)| self.seen[**machine].leads == Some(**term))
            .map(|(_, machine)| *machine)
    }

    /// What is committed.
    pub(crate) fn ground(&self) -> Ground {
        self.ground.clone()
    }

    fn majority(&self) -> usize {
        self.seen.len() / 2 + 1
    }
}

/// How often a mark was reached since it was last looked at.
fn since(before: &Marks, now: &Marks, mark: Mark) -> bool {
    now.count(mark) > before.count(mark)
}
