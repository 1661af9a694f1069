//! Whether what clients were told is what a single, correct store could have told them.
//!
//! Every answer carries a revision, so the answers name the order in which they claim to have
//! happened: by revision, a write before the reads that saw it. `witness` checks that claim in
//! O(n log n): it agrees with real time, each answer is what the `model` says at its place, and
//! everything that changed was asked for. That convicts wrong revisions as well, which
//! linearizability alone would let pass. Its blind spot is a store that forges consistent
//! revisions; so `wgl` looks for an order itself, key by key, and does not look at revisions.
//!
//! The history may come from the simulator or from real processes: nothing here knows either.

pub(crate) mod model;
mod parts;
pub(crate) mod product;
mod reads;
mod say;
pub(crate) mod txns;
pub(crate) mod watches;
mod wgl;
mod witness;

use std::collections::BTreeMap;
use std::ops::Bound;
use wgl::Search;

/// The revision of a store in which nothing was ever changed.
pub(crate) const REVISION_EMPTY: u64 = 1;

/// All that clients did, and what there was in the end.
#[derive(Clone, Default, Debug)]
pub(crate) struct History {
    pub(crate) ops: Vec<Op>,
    pub(crate) finals: FinalState,
    pub(crate) watched: watches::Watched,
}

/// One request and what came of it. A retry is an op of its own.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) client: u32,
    /// The node that was asked.
    pub(crate) node: u32,
    /// Counts that node's starts: a node that starts again may know less than it did.
    pub(crate) boot: u32,
    /// When the request left the client. True time, in any unit.
    pub(crate) call: u64,
    /// When the answer arrived, if one did. Later than `call`.
    pub(crate) ret: Option<u64>,
    pub(crate) kind: OpKind,
    pub(crate) outcome: Outcome,
    /// What the answer to a change said of its keys, if it was asked to: as they were before it, or
    /// as they are if it did nothing.
    pub(crate) saw: Option<Vec<Row>>,
}

/// What was asked. A range ends as on the wire: see `within`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OpKind {
    Change(Command),
    Range(RangeArgs),
}

/// A change as the log holds it. Values had better be unique: then who wrote one is never in doubt.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Command {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        key: Vec<u8>,
        end: Vec<u8>,
    },
    /// A put, if the key's last change is a certain one; 0: if there is no such key.
    PutIf {
        key: Vec<u8>,
        value: Vec<u8>,
        mod_revision: u64,
    },
    Txn(txns::Txn),
    /// Not for clients: a leader's own.
    Compact {
        revision: u64,
    },
    /// What is asked about leases is no row here: only what it does to keys.
    Lease(LeaseChange),
}

/// What becomes of a lease, and of the keys that hang on it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum LeaseChange {
    /// 0: the next number that is free.
    Grant {
        lease: u64,
    },
    /// A put, if there is such a lease.
    Hang {
        lease: u64,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Revoke {
        lease: u64,
    },
    /// The grants are counted.
    Expire {
        lease: u64,
        grant: u64,
    },
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct RangeArgs {
    pub(crate) key: Vec<u8>,
    pub(crate) end: Vec<u8>,
    /// 0 is no limit.
    pub(crate) limit: u64,
    /// 0 is now.
    pub(crate) revision: u64,
    pub(crate) consistency: Consistency,
    pub(crate) keys_only: bool,
    pub(crate) count_only: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Consistency {
    #[default]
    Linearizable,
    /// By a lease whose holder's clock, or its followers', breaks the bound that leases rest on:
    /// then it promises no more than `Serializable`.
    UnboundLease,
    Serializable,
}

/// What the client knows of its request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Answered(Answer),
    /// Certainly not done, now or later: the node said so.
    Refused,
    /// No answer, or one that says that nobody knows.
    Unknown,
}

/// What a reply said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Put {
        revision: u64,
    },
    Delete {
        revision: u64,
        deleted: u64,
    },
    /// The store's revision after it; and if nothing was put, the key's last change.
    PutIf {
        revision: u64,
        refused: Option<u64>,
    },
    Txn {
        revision: u64,
        done: txns::Done,
    },
    Range {
        revision: u64,
        rows: Vec<Row>,
        more: bool,
        count: u64,
    },
    /// The revision asked for is below this one.
    Compacted {
        compact_revision: u64,
    },
    /// The revision asked for is above the store's, which is this.
    Future {
        revision: u64,
    },
}

/// A key and all about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) create_revision: u64,
    pub(crate) mod_revision: u64,
    pub(crate) version: u64,
}

/// What the healed cluster holds.
#[derive(Clone, Default, Debug)]
pub(crate) struct FinalState {
    /// The commands of all committed entries, in the order of the log.
    pub(crate) commands: Vec<Command>,
    /// What each node says of itself, once it has applied them all.
    pub(crate) nodes: Vec<NodeState>,
}

#[derive(Clone, Debug)]
pub(crate) struct NodeState {
    pub(crate) node: u32,
    pub(crate) revision: u64,
    pub(crate) compact_revision: u64,
    /// Every live key, in order.
    pub(crate) rows: Vec<Row>,
}

/// What was checked: a check of little is little worth, so callers look at it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Summary {
    /// Changes and linearizable reads with an answer.
    pub(crate) answered: u64,
    pub(crate) serializable: u64,
    pub(crate) refused: u64,
    /// Changes without an answer that are in the log, and that are not.
    pub(crate) unknown_done: u64,
    pub(crate) unknown_dropped: u64,
    /// Changes and reads of single keys for which an order was found without looking at revisions.
    pub(crate) ordered: u64,
    /// Those behind the moment when a key had too many ops at once to look for one.
    pub(crate) unordered: u64,
}

/// The rule that was broken. Their names are what a report and `caught by` say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    /// The history itself makes no sense: the harness is wrong.
    WellFormed,
    /// Whatever was over before a request began is seen by its answer.
    RealTime,
    /// No answer from the same start of a node is older than an earlier one.
    NodeMonotonic,
    /// A change that was answered is in the log at the revision of its answer.
    NoAckedWriteLost,
    /// One revision, one change.
    RevisionUnique,
    /// Whatever is in the log was asked for, as often as it is there.
    NoPhantom,
    /// What was refused is not in the log.
    RefusedIsAbsent,
    /// The answer is what the model says.
    Answer,
    /// A revision is refused as compacted if and only if it was.
    Compaction,
    /// The nodes hold what the log says.
    FinalState,
    /// A watch hears of every change that it is to hear of, once.
    Watch,
    /// There is an order of the ops of a key, in real time, that explains all answers.
    Linearizable,
}

/// What is wrong, and the ops that prove it.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) why: String,
    /// The culprits in full, for the reader.
    pub(crate) ops: Vec<Op>,
}

/// Checks all of it: the claim, then the search.
pub(crate) fn check(history: &History) -> Result<Summary, Violation> {
    let (mut summary, done) = witness::check(history)?;
    (summary.ordered, summary.unordered) = search_done(&history.ops, &done)?;
    Ok(summary)
}

/// Searches an order for each key, given which changes without an answer took place; of
/// transactions no such change. How many ops were ordered, and how many belong to keys with too
/// many at once.
pub(crate) fn search(ops: &[Op], done: &[bool]) -> Result<(u64, u64), Violation> {
    let took_place = done.to_vec();
    search_done(ops, &witness::Done { took_place, txns: BTreeMap::new() })
}

fn search_done(ops: &[Op], done: &witness::Done) -> Result<(u64, u64), Violation> {
    let (mut ordered, mut unordered) = (0, 0);
    for (key, parts) in parts::by_key(ops, done) {
        let searched = wgl::searchable(&parts);
        match wgl::search(&searched) {
            Search::Ordered => {
                ordered += as_u64(searched.len());
                unordered += as_u64(parts.len() - searched.len());
            }
            Search::TooMany => unordered += as_u64(parts.len()),
            Search::Impossible { around } => {
                let name = key.escape_ascii();
                let why = format!("no order explains what was answered about the key {name}");
                let ops = around.iter().map(|op| ops[*op].clone()).collect();
                return Err(Violation { rule: Rule::Linearizable, why, ops });
            }
        }
    }
    Ok((ordered, unordered))
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).expect("usize is 64 bits at most")
}

/// Whether a key lies in a range. `end`: empty is the one key, a single zero byte is no end, else
/// the first key beyond.
pub(crate) fn within(name: &[u8], key: &[u8], end: &[u8]) -> bool {
    match end {
        [] => name == key,
        [0] => name >= key,
        end => name >= key && name < end,
    }
}

/// Every name from `key` on, as the ordered maps want it said.
fn from(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Included(key), Bound::Unbounded)
}
