//! Histories of a store that does not lie, under any concurrency: all of them are acquitted. The
//! same with one answer bent: all of those are convicted.

use super::checker::{Answer, Command, Consistency, History, Op, OpKind, Outcome, check};
use super::store::{Plan, play};
use crate::dice::Dice;
use std::time::Instant;

#[test]
fn honest_histories_are_acquitted() {
    let mut ordered = 0;
    for seed in 0..300 {
        let plan = Plan {
            seed,
            ops: 300,
            clients: [1, 3, 8, 40][usize::try_from(seed % 4).unwrap()],
            keys: [2, 5, 30][usize::try_from(seed % 3).unwrap()],
            oddities: [2, 50][usize::try_from(seed % 2).unwrap()],
        };
        let history = play(plan);
        let summary = check(&history).unwrap_or_else(|lie| panic!("seed {seed}: {lie}"));
        assert!(summary.answered > 100, "seed {seed}: {summary:?}");
        ordered += summary.ordered;
    }
    assert!(ordered > 50_000, "{ordered} ops were ordered without revisions");
}

#[test]
fn one_bent_answer_is_found_in_any_history() {
    let mut bent = [0; BENDS];
    for seed in 0..400 {
        let mut random = Dice(seed);
        let plan = Plan { seed, ops: 120, clients: 6, keys: 4, oddities: 3 };
        let mut history = play(plan);
        let how = random.index(BENDS);
        if bend(&mut history, how, &mut random) {
            bent[how] += 1;
            let verdict = check(&history);
            assert!(verdict.is_err(), "seed {seed}: bend {how} was not found");
        }
    }
    assert!(bent.iter().all(|count| *count > 10), "{bent:?}");
}

const BENDS: usize = 9;

/// Bends one thing, if there is one to bend.
fn bend(history: &mut History, how: usize, random: &mut Dice) -> bool {
    let start = random.index(history.ops.len());
    if how == 0 {
        return drop_acknowledged(history, start);
    }
    if how == 1 {
        return read_too_late(history, start);
    }
    let ops = history.ops.len();
    for nth in (start..ops).chain(0..start) {
        let op = &mut history.ops[nth];
        let Outcome::Answered(answer) = &mut op.outcome else { continue };
        match (how, answer) {
            (2, Answer::Put { revision }) => *revision += 1,
            (3, Answer::Delete { deleted, .. }) => *deleted += 1,
            (4, Answer::Range { count, .. }) => *count += 1,
            (5, Answer::Range { more, .. }) => *more = !*more,
            (6, Answer::Range { rows, .. }) if !rows.is_empty() => drop(rows.pop()),
            (7, Answer::Range { rows, .. }) if !rows.is_empty() => match random.index(4) {
                0 => rows[0].version += 1,
                1 => rows[0].mod_revision -= 1,
                2 => rows[0].create_revision -= 1,
                _ => rows[0].value.push(b'!'),
            },
            (8, _) if matches!(op.kind, OpKind::Change(Command::Put { .. })) => {
                op.outcome = Outcome::Refused;
            }
            _ => continue,
        }
        return true;
    }
    false
}

/// Takes an acknowledged put out of the log.
fn drop_acknowledged(history: &mut History, start: usize) -> bool {
    let acknowledged =
        |(_, op): &(usize, &Op)| matches!(op.outcome, Outcome::Answered(Answer::Put { .. }));
    let mut ops = history.ops.iter().enumerate().skip(start);
    let Some((_, op)) = ops.find(acknowledged) else { return false };
    let commands = &mut history.finals.commands;
    let is_it = |command: &Command| matches!(&op.kind, OpKind::Change(put) if put == command);
    let at = commands.iter().position(is_it).unwrap();
    commands.remove(at);
    history.finals.nodes.clear();
    true
}

/// Makes a read begin when a change was over that it does not see.
fn read_too_late(history: &mut History, start: usize) -> bool {
    let put = |op: &Op| {
        let Outcome::Answered(Answer::Put { revision }) = op.outcome else { return None };
        Some((revision, op.ret.unwrap()))
    };
    let Some((newest, over)) = history.ops.iter().filter_map(put).max() else { return false };
    for op in history.ops.iter_mut().skip(start) {
        let OpKind::Range(args) = &mut op.kind else { continue };
        if let Outcome::Answered(Answer::Range { revision, .. }) = op.outcome
            && revision < newest
            && args.consistency == Consistency::Linearizable
        {
            (op.call, op.ret) = (over + 1, Some(over + 2));
            return true;
        }
    }
    false
}

/// Prints what checking costs: `HISTORY_OPS=1000000 cargo test --release history:: -- --nocapture`.
#[test]
#[expect(clippy::disallowed_methods, reason = "a figure to be read, nothing depends on it")]
fn checking_costs_little_more_than_sorting() {
    let asked = std::env::var("HISTORY_OPS").ok();
    let ops = asked.map_or(50_000, |text| text.parse().expect("HISTORY_OPS is a number"));
    for (clients, keys) in [(16, 1000), (64, 1000), (64, 10)] {
        let history = play(Plan { seed: 1, ops, clients, keys, oddities: usize::MAX });
        let start = Instant::now();
        let summary = check(&history).unwrap_or_else(|lie| panic!("{lie}"));
        let took = start.elapsed();
        println!("{ops} ops, {clients} clients, {keys} keys: {took:.2?}, {summary:?}");
        assert!(summary.answered > u64::try_from(ops).unwrap() / 2);
    }
}
