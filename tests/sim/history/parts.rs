//! Cuts a history into what it says about each key, without a word about revisions.
//!
//! A store is linearizable only if each of its keys is. A range counts as one part for every key in
//! it: that forgets that they happened together, so it can only acquit wrongly, never convict.

use super::txns::{self, Got, Request};
use super::witness::Done;
use super::{Answer, Command, Consistency, Op, OpKind, Outcome, RangeArgs, Row, from, within};
use std::collections::BTreeMap;

/// A range read over more keys than this is left out: it would cost more than it tells.
const KEYS_PER_RANGE_MAX: usize = 64;

/// What one op says about one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    /// The op, to name it.
    pub(super) op: usize,
    pub(super) call: u64,
    /// `u64::MAX`: nobody knows.
    pub(super) ret: u64,
    pub(super) act: Act,
}

/// Values are numbered from 1; 0 is no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    Write {
        value: u32,
    },
    /// With what it says about the key before, if anything.
    Delete {
        existed: Option<bool>,
    },
    Read {
        value: u32,
    },
    /// Only whether it was there.
    Look {
        existed: bool,
    },
}

/// The parts of each key. `done` tells which changes without an answer took place.
pub(super) fn by_key<'h>(ops: &'h [Op], done: &'h Done) -> BTreeMap<&'h [u8], Vec<Part>> {
    let mut keys: BTreeMap<&[u8], Vec<Part>> = BTreeMap::new();
    for op in ops {
        match &op.kind {
            OpKind::Change(
                Command::Put { key, .. } | Command::Delete { key, .. } | Command::PutIf { key, .. },
            ) => {
                keys.entry(key).or_default();
            }
            OpKind::Change(Command::Txn(txn)) => name_keys(&mut keys, txn),
            OpKind::Change(Command::Compact { .. } | Command::Lease(_)) => {}
            OpKind::Range(args) => {
                keys.entry(&args.key).or_default();
            }
        }
    }
    let mut values = BTreeMap::new();
    for (nth, op) in ops.iter().enumerate() {
        match (&op.kind, &op.outcome) {
            (OpKind::Change(Command::Txn(txn)), Outcome::Answered(Answer::Txn { done, .. })) => {
                transaction(&mut keys, &mut values, (nth, op), txn, done);
            }
            (OpKind::Change(Command::Txn(txn)), Outcome::Unknown) => {
                if let Some(done) = done.txns.get(&nth) {
                    transaction(&mut keys, &mut values, (nth, op), txn, done);
                }
            }
            (OpKind::Change(command), Outcome::Answered(answer)) => {
                change(&mut keys, &mut values, nth, op, command, Some(answer));
            }
            (OpKind::Change(command), Outcome::Unknown) if done.took_place[nth] => {
                change(&mut keys, &mut values, nth, op, command, None);
            }
            (OpKind::Range(args), Outcome::Answered(Answer::Range { rows, more, count, .. })) => {
                let whole = args.revision == 0 && !more;
                let fresh = args.consistency == Consistency::Linearizable;
                if whole && fresh {
                    read(&mut keys, &mut values, (nth, op), args, rows, *count);
                }
            }
            (OpKind::Change(_) | OpKind::Range(_), _) => {}
        }
    }
    for parts in keys.values_mut() {
        bound_by_sight(parts);
    }
    keys
}

type Keys<'h> = BTreeMap<&'h [u8], Vec<Part>>;
type Values<'h> = BTreeMap<&'h [u8], u32>;

fn number<'h>(values: &mut Values<'h>, value: &'h [u8]) -> u32 {
    let next = u32::try_from(values.len() + 1).expect("a history fits memory");
    *values.entry(value).or_insert(next)
}

fn change<'h>(
    keys: &mut Keys<'h>,
    values: &mut Values<'h>,
    nth: usize,
    op: &'h Op,
    command: &'h Command,
    answer: Option<&Answer>,
) {
    let ret = answer.and(op.ret).unwrap_or(u64::MAX);
    let part = |act| Part { op: nth, call: op.call, ret, act };
    match command {
        Command::PutIf { .. } if matches!(answer, Some(Answer::PutIf { refused: Some(_), .. })) => {
            // It did nothing, and says only which revision it found: that is for the witness.
        }
        Command::Put { key, value } | Command::PutIf { key, value, .. } => {
            let value = number(values, value);
            keys.entry(key).or_default().push(part(Act::Write { value }));
        }
        Command::Delete { key, end } => {
            let deleted = match answer {
                Some(Answer::Delete { deleted, .. }) => Some(*deleted),
                _ => None,
            };
            let existed = match deleted {
                Some(0) => Some(false),
                Some(_) if end.is_empty() => Some(true),
                Some(_) | None => None,
            };
            for parts in inside(keys, key, end) {
                parts.push(part(Act::Delete { existed }));
            }
        }
        Command::Txn(_) | Command::Compact { .. } | Command::Lease(_) => {}
    }
}

/// What a transaction may change, or may look at.
fn name_keys<'h>(keys: &mut Keys<'h>, txn: &'h txns::Txn) {
    for request in txn.then.iter().chain(&txn.otherwise) {
        match request {
            Request::Put { key, .. } | Request::Delete { key, .. } | Request::Range { key, .. } => {
                keys.entry(key).or_default();
            }
            Request::Txn(inner) => name_keys(keys, inner),
        }
    }
}

/// Every request of a transaction is a part of its own: that forgets as much as with a range. Of
/// one without an answer nobody saw anything.
fn transaction<'h>(
    keys: &mut Keys<'h>,
    values: &mut Values<'h>,
    (nth, op): (usize, &'h Op),
    txn: &'h txns::Txn,
    done: &'h txns::Done,
) {
    let is_known = matches!(op.outcome, Outcome::Answered(_));
    let ret = op.ret.filter(|_| is_known).unwrap_or(u64::MAX);
    let part = |act| Part { op: nth, call: op.call, ret, act };
    done.each(txn, &mut |request, got| match (request, got) {
        (Request::Put { key, value }, _) => {
            let value = number(values, value);
            keys.entry(key).or_default().push(part(Act::Write { value }));
        }
        (Request::Delete { key, end }, Got::Delete { deleted, .. }) => {
            let existed = match deleted {
                _ if !is_known => None,
                0 => Some(false),
                _ if end.is_empty() => Some(true),
                _ => None,
            };
            for parts in inside(keys, key, end) {
                parts.push(part(Act::Delete { existed }));
            }
        }
        (Request::Range { key, end, limit }, Got::Range { rows, more: false, count })
            if is_known =>
        {
            let args = txns::as_range(key, end, *limit);
            read(keys, values, (nth, op), &args, rows, *count);
        }
        (_, _) => {}
    });
}

fn read<'h>(
    keys: &mut Keys<'h>,
    values: &mut Values<'h>,
    (nth, op): (usize, &Op),
    args: &RangeArgs,
    rows: &'h [Row],
    count: u64,
) {
    let part = |act| Part { op: nth, call: op.call, ret: op.ret.unwrap_or(u64::MAX), act };
    let single = args.end.is_empty();
    if args.count_only && !single && count > 0 {
        return;
    }
    if !single && inside(keys, &args.key, &args.end).count() > KEYS_PER_RANGE_MAX {
        return;
    }
    let mut rows = rows.iter().peekable();
    let names = keys.range_mut::<[u8], _>(from(&args.key));
    for (name, parts) in names.take_while(|(name, _)| within(name, &args.key, &args.end)) {
        let row = rows.next_if(|row| row.key == *name);
        let act = match row {
            Some(_) if args.keys_only => Act::Look { existed: true },
            Some(row) => Act::Read { value: number(values, &row.value) },
            None => Act::Look { existed: args.count_only && count > 0 },
        };
        parts.push(part(act));
    }
}

fn inside<'k, 'h>(
    keys: &'k mut Keys<'h>,
    key: &'k [u8],
    end: &'k [u8],
) -> impl Iterator<Item = &'k mut Vec<Part>> + use<'k, 'h> {
    let names = keys.range_mut::<[u8], _>(from(key));
    names.take_while(move |(name, _)| within(name, key, end)).map(|(_, parts)| parts)
}

/// Who has seen a value knows that its write is over, even if the writer never heard.
fn bound_by_sight(parts: &mut [Part]) {
    let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
    let mut writers: BTreeMap<u32, u32> = BTreeMap::new();
    for part in parts.iter() {
        match part.act {
            Act::Read { value } => {
                let first = seen.entry(value).or_insert(part.ret);
                *first = part.ret.min(*first);
            }
            Act::Write { value } => *writers.entry(value).or_insert(0) += 1,
            Act::Delete { .. } | Act::Look { .. } => {}
        }
    }
    for part in parts {
        if let Act::Write { value } = part.act
            && writers.get(&value) == Some(&1)
            && let Some(first) = seen.get(&value)
        {
            part.ret = part.ret.min(*first);
        }
    }
}
