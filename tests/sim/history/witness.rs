//! The order that the answers claim, verified: by revision, a write before the reads that saw it.
//!
//! 1. The log is replayed on the model. Every acknowledged change claims its place in the log;
//!    what stays unclaimed must be a change whose client never heard of its end.
//! 2. In real time no answer is older than what was over before it was asked for.
//! 3. Every read says what the model says at its revision.
//!
//! Sorting costs the most: O(n log n).

use super::model::{Effect, Model};
use super::{Answer, Command, Consistency, FinalState, History, Op, OpKind, Outcome, Rule};
use super::{Summary, Violation, as_u64};
use super::{reads, txns, watches};
use std::collections::BTreeMap;

/// The log, as the model understands it.
struct Log<'h> {
    model: Model,
    places: Vec<Place<'h>>,
}

/// A command of a client in the log, or one about leases: those nobody claims.
struct Place<'h> {
    command: &'h Command,
    effect: Effect,
    claimed_by: Option<usize>,
}

/// Which changes without an answer took place.
#[derive(Default)]
pub(super) struct Done {
    /// By op; none are missing in the end.
    pub(super) took_place: Vec<bool>,
    /// What became of the transactions among them.
    pub(super) txns: BTreeMap<usize, txns::Done>,
}

/// Checks everything, and says which changes without an answer took place.
pub(super) fn check(history: &History) -> Result<(Summary, Done), Violation> {
    let ops = &history.ops;
    well_formed(ops)?;
    let mut log = replay(&history.finals)?;
    let mut summary = count(ops);
    claim(ops, &mut log)?;
    let done = resolve(ops, &mut log)?;
    let is_done = done.took_place.iter().filter(|done| **done).count();
    summary.unknown_done = as_u64(is_done);
    summary.unknown_dropped -= summary.unknown_done;
    in_real_time(ops)?;
    in_order_at_each_node(ops)?;
    reads::check(ops, &log.model)?;
    watches::check(&history.watched, &log.model)?;
    Ok((summary, done))
}

pub(super) fn violation(rule: Rule, why: String, ops: &[&Op]) -> Violation {
    Violation { rule, why, ops: ops.iter().map(|op| (*op).clone()).collect() }
}

fn well_formed(ops: &[Op]) -> Result<(), Violation> {
    for op in ops {
        let fits = match (&op.kind, &op.outcome) {
            (_, Outcome::Refused | Outcome::Unknown) => true,
            (OpKind::Change(Command::Put { .. }), Outcome::Answered(answer)) => {
                matches!(answer, Answer::Put { .. })
            }
            (OpKind::Change(Command::Delete { .. }), Outcome::Answered(answer)) => {
                matches!(answer, Answer::Delete { .. })
            }
            (OpKind::Change(Command::PutIf { .. }), Outcome::Answered(answer)) => {
                matches!(answer, Answer::PutIf { .. })
            }
            (OpKind::Change(Command::Txn(txn)), Outcome::Answered(answer)) => {
                matches!(answer, Answer::Txn { done, .. } if done.each(txn, &mut |_, _| {}))
            }
            (OpKind::Change(Command::Compact { .. } | Command::Lease(_)), Outcome::Answered(_)) => {
                false
            }
            (OpKind::Range(_), Outcome::Answered(answer)) => matches!(
                answer,
                Answer::Range { .. } | Answer::Compacted { .. } | Answer::Future { .. }
            ),
        };
        let in_time = match op.outcome {
            Outcome::Answered(_) => op.ret.is_some_and(|ret| op.call < ret),
            Outcome::Refused | Outcome::Unknown => op.ret.is_none_or(|ret| op.call < ret),
        };
        if !fits || !in_time {
            let why = "this is no answer to that, or came before it was asked for".to_owned();
            return Err(violation(Rule::WellFormed, why, &[op]));
        }
    }
    Ok(())
}

fn count(ops: &[Op]) -> Summary {
    let mut summary = Summary::default();
    for op in ops {
        let is_change = matches!(op.kind, OpKind::Change(_));
        match op.outcome {
            Outcome::Answered(_) if is_serializable(op) => summary.serializable += 1,
            Outcome::Answered(_) => summary.answered += 1,
            Outcome::Refused => summary.refused += 1,
            // Those found done are taken off again.
            Outcome::Unknown => summary.unknown_dropped += u64::from(is_change),
        }
    }
    summary
}

fn is_serializable(op: &Op) -> bool {
    match &op.kind {
        OpKind::Change(_) => false,
        OpKind::Range(args) => args.consistency != Consistency::Linearizable,
    }
}

fn replay(finals: &FinalState) -> Result<Log<'_>, Violation> {
    let mut log = Log { model: Model::new(), places: Vec::new() };
    for command in &finals.commands {
        let effect = log.model.apply(command);
        match command {
            Command::Put { .. }
            | Command::Delete { .. }
            | Command::PutIf { .. }
            | Command::Txn(_)
            | Command::Lease(_) => {
                log.places.push(Place { command, effect, claimed_by: None });
            }
            Command::Compact { .. } => {}
        }
    }
    for node in &finals.nodes {
        if let Some(how) = log.model.differs(node) {
            let why = format!("node {} is not what the log says: {how}", node.node);
            return Err(violation(Rule::FinalState, why, &[]));
        }
    }
    Ok(log)
}

/// Every acknowledged change takes its place in the log.
fn claim(ops: &[Op], log: &mut Log<'_>) -> Result<(), Violation> {
    // Deletes of nothing make no revision; any equal one at the same revision is as good.
    let mut idle: BTreeMap<(u64, &Command), Vec<usize>> = BTreeMap::new();
    let mut made: Vec<usize> = Vec::new();
    for (at, place) in log.places.iter().enumerate() {
        match place.effect.keys {
            0 => idle.entry((place.effect.revision, place.command)).or_default().push(at),
            _ => made.push(at),
        }
    }
    for (nth, op) in ops.iter().enumerate() {
        let (OpKind::Change(command), Outcome::Answered(answer)) = (&op.kind, &op.outcome) else {
            continue;
        };
        let (revision, keys) = match answer {
            Answer::Put { revision } => (*revision, 1),
            Answer::Delete { revision, deleted } => (*revision, *deleted),
            Answer::PutIf { revision, refused } => (*revision, u64::from(refused.is_none())),
            Answer::Txn { revision, done } => (*revision, done.keys()),
            Answer::Range { .. } | Answer::Compacted { .. } | Answer::Future { .. } => continue,
        };
        let found = if keys == 0 {
            idle.get_mut(&(revision, command)).and_then(Vec::pop)
        } else {
            // The first change makes the revision after the empty store's.
            let place = revision.checked_sub(super::REVISION_EMPTY + 1);
            place.and_then(|nth| made.get(usize::try_from(nth).ok()?).copied())
        };
        let found = found.filter(|at| log.places[*at].command == command);
        let Some(at) = found else {
            let why = format!("the log has no such change at revision {revision}");
            return Err(violation(Rule::NoAckedWriteLost, why, &[op]));
        };
        let place = &mut log.places[at];
        if let Some(other) = place.claimed_by {
            let why = format!("revision {revision} was given to both");
            return Err(violation(Rule::RevisionUnique, why, &[&ops[other], op]));
        }
        if place.effect.keys != keys {
            let why = format!("it changed {} keys", place.effect.keys);
            return Err(violation(Rule::Answer, why, &[op]));
        }
        if let (Answer::Txn { done, .. }, Some(due)) = (answer, &place.effect.done)
            && done != due
        {
            let why = format!("as a whole it came to {due}");
            return Err(violation(Rule::Answer, why, &[op]));
        }
        place.claimed_by = Some(nth);
    }
    Ok(())
}

/// Gives each unclaimed place of the log to a change whose client does not know its end.
///
/// Only equal changes compete, and a place can go to any of them that was asked for before someone
/// was told of it. The later the place, the later that moment: so taking the places in order and
/// the changes in the order in which they were asked for finds an assignment if there is one.
fn resolve(ops: &[Op], log: &mut Log<'_>) -> Result<Done, Violation> {
    let mut unknown: BTreeMap<&Command, Vec<usize>> = BTreeMap::new();
    for (nth, op) in ops.iter().enumerate() {
        if let (OpKind::Change(command), Outcome::Unknown) = (&op.kind, &op.outcome) {
            unknown.entry(command).or_default().push(nth);
        }
    }
    for waiting in unknown.values_mut() {
        // Popped from the back: the earliest first.
        waiting.sort_by_key(|nth| std::cmp::Reverse(ops[*nth].call));
    }
    let told = Told::of(ops, log.model.revision());
    let mut done = Done { took_place: vec![false; ops.len()], txns: BTreeMap::new() };
    let of_ops = |place: &&mut Place<'_>| !matches!(place.command, Command::Lease(_));
    let unclaimed = log.places.iter_mut().filter(|place| place.claimed_by.is_none());
    for place in unclaimed.filter(of_ops) {
        // A delete of nothing lies behind the change that made its revision, and before the next.
        let evidence = place.effect.revision + u64::from(place.effect.keys == 0);
        let Some(nth) = unknown.get_mut(place.command).and_then(Vec::pop) else {
            return Err(unexplained(ops, place));
        };
        if let Some((ret, by)) = told.first(evidence)
            && ret < ops[nth].call
        {
            let why = format!("revision {evidence} was known before it was asked for");
            return Err(violation(Rule::RealTime, why, &[&ops[by], &ops[nth]]));
        }
        // A put whose condition did not hold took place, and did nothing.
        let refused = matches!(place.command, Command::PutIf { .. }) && place.effect.keys == 0;
        done.took_place[nth] = !refused;
        if let Some(txn) = &place.effect.done {
            done.txns.insert(nth, txn.clone());
        }
        place.claimed_by = Some(nth);
    }
    Ok(done)
}

/// Says why nobody can have asked for what is in the log.
fn unexplained(ops: &[Op], place: &Place<'_>) -> Violation {
    let same = |op: &&Op| matches!(&op.kind, OpKind::Change(command) if command == place.command);
    let askers: Vec<&Op> = ops.iter().filter(same).collect();
    let refused = askers.iter().any(|op| op.outcome == Outcome::Refused);
    let (revision, command) = (place.effect.revision, place.command);
    let (rule, what) = match (refused, askers.is_empty()) {
        (true, _) => (Rule::RefusedIsAbsent, "was refused"),
        (false, true) => (Rule::NoPhantom, "nobody asked for"),
        (false, false) => (Rule::NoPhantom, "was asked for less often than it is there"),
    };
    violation(rule, format!("the log has at revision {revision} what {what}: {command}"), &askers)
}

/// For each revision, when a client first heard of it or of a later one, and by which op.
struct Told(Vec<Option<(u64, usize)>>);

impl Told {
    fn of(ops: &[Op], revision_max: u64) -> Told {
        let slots = usize::try_from(revision_max).expect("revisions are counted in memory") + 1;
        let mut first: Vec<Option<(u64, usize)>> = vec![None; slots];
        for (nth, op) in ops.iter().enumerate() {
            let (Some(revision), Some(ret)) = (revision_of(op), op.ret) else { continue };
            let slot = usize::try_from(revision).ok().and_then(|at| first.get_mut(at));
            // A revision that is not there is convicted where reads are checked.
            if let Some(slot) = slot
                && slot.is_none_or(|(before, _)| ret < before)
            {
                *slot = Some((ret, nth));
            }
        }
        let mut earliest: Option<(u64, usize)> = None;
        for slot in first.iter_mut().rev() {
            let both = [*slot, earliest].into_iter().flatten();
            earliest = both.min();
            *slot = earliest;
        }
        Told(first)
    }

    fn first(&self, revision: u64) -> Option<(u64, usize)> {
        *self.0.get(usize::try_from(revision).ok()?)?
    }
}

/// The revision that an op's answer proves, whatever it asked for.
fn revision_of(op: &Op) -> Option<u64> {
    match &op.outcome {
        Outcome::Answered(
            Answer::Put { revision }
            | Answer::Delete { revision, .. }
            | Answer::PutIf { revision, .. }
            | Answer::Txn { revision, .. }
            | Answer::Range { revision, .. }
            | Answer::Future { revision },
        ) => Some(*revision),
        Outcome::Answered(Answer::Compacted { .. }) | Outcome::Refused | Outcome::Unknown => None,
    }
}

/// Whether the op made the revision of its answer.
fn made_revision(op: &Op) -> bool {
    match &op.outcome {
        Outcome::Answered(Answer::Put { .. }) => true,
        Outcome::Answered(Answer::Delete { deleted, .. }) => *deleted > 0,
        Outcome::Answered(Answer::PutIf { refused, .. }) => refused.is_none(),
        Outcome::Answered(Answer::Txn { done, .. }) => done.keys() > 0,
        Outcome::Answered(
            Answer::Range { .. } | Answer::Compacted { .. } | Answer::Future { .. },
        )
        | Outcome::Refused
        | Outcome::Unknown => false,
    }
}

/// The largest revision among the answers that had arrived before a moment. Moments only advance.
struct Floor<'o> {
    ops: &'o [Op],
    by_ret: Vec<usize>,
    passed: usize,
    highest: Option<(u64, usize)>,
}

impl<'o> Floor<'o> {
    /// Of the ops in `by_ret`, all of which have an answer.
    fn new(ops: &'o [Op], mut by_ret: Vec<usize>) -> Floor<'o> {
        by_ret.sort_by_key(|nth| ops[*nth].ret);
        Floor { ops, by_ret, passed: 0, highest: None }
    }

    /// Answers that arrive at `moment` itself are not before it.
    fn before(&mut self, moment: u64) -> Option<(u64, usize)> {
        while let Some(nth) = self.by_ret.get(self.passed).copied()
            && self.ops[nth].ret.is_some_and(|ret| ret < moment)
        {
            self.highest = self.highest.max(revision_of(&self.ops[nth]).map(|at| (at, nth)));
            self.passed += 1;
        }
        self.highest
    }
}

/// The ops with a revision, in the order in which they were asked for.
fn answered(ops: &[Op]) -> Vec<usize> {
    let mut by_call: Vec<usize> =
        (0..ops.len()).filter(|nth| revision_of(&ops[*nth]).is_some()).collect();
    by_call.sort_by_key(|nth| ops[*nth].call);
    by_call
}

/// Whatever was over before an op began is seen by it. A serializable read may be old itself, but
/// what it saw was committed, so that whoever asks for the truth later sees it too.
fn in_real_time(ops: &[Op]) -> Result<(), Violation> {
    let by_call = answered(ops);
    let mut floor = Floor::new(ops, by_call.clone());
    for nth in by_call {
        let op = &ops[nth];
        let (Some((floor, by)), Some(revision)) = (floor.before(op.call), revision_of(op)) else {
            continue;
        };
        let late = if made_revision(op) { revision <= floor } else { revision < floor };
        if late && !is_serializable(op) {
            let why = format!("revision {floor} was known, and then {revision} was answered");
            return Err(violation(Rule::RealTime, why, &[&ops[by], op]));
        }
    }
    Ok(())
}

/// As long as a node runs, its state only advances, whoever asks and however.
fn in_order_at_each_node(ops: &[Op]) -> Result<(), Violation> {
    let mut starts: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
    for nth in answered(ops) {
        starts.entry((ops[nth].node, ops[nth].boot)).or_default().push(nth);
    }
    for by_call in starts.into_values() {
        let mut floor = Floor::new(ops, by_call.clone());
        for nth in by_call {
            let op = &ops[nth];
            if let Some((floor, by)) = floor.before(op.call)
                && revision_of(op).is_some_and(|revision| revision < floor)
            {
                let why = format!("the node had been at revision {floor} before");
                return Err(violation(Rule::NodeMonotonic, why, &[&ops[by], op]));
            }
        }
    }
    Ok(())
}
