//! Transactions that clients think of: several compares, several requests in either branch, one
//! inside another.

use crate::chance::Chance;
use crate::history::product::is_sound;
use crate::history::txns::{Compare, Operand, Relation, Request, Txn};
use std::collections::BTreeMap;

/// Transactions inside each other at most.
const DEPTH_MAX: u64 = 2;
/// So often it thinks of another one, if a key would be changed twice.
const TRIES: u32 = 8;

/// What a client knows.
pub(super) struct Known<'a> {
    /// How many keys there are.
    pub(super) keys: u64,
    /// The last change of each key, as far as anybody was told.
    pub(super) changes: &'a BTreeMap<Vec<u8>, u64>,
    /// Values that were made so far.
    pub(super) values: u64,
}

/// A transaction, without its values; `None`: it could not think of one.
pub(super) fn some_txn(chance: &mut Chance, known: &Known<'_>) -> Option<Txn> {
    (0..TRIES).map(|_| txn(chance, known, 1)).find(is_sound)
}

fn txn(chance: &mut Chance, known: &Known<'_>, depth: u64) -> Txn {
    let (compares, then, otherwise) = (chance.below(4), chance.between(1, 3), chance.below(3));
    let mut branch = |count| (0..count).map(|_| request(chance, known, depth)).collect();
    let (then, otherwise) = (branch(then), branch(otherwise));
    Txn { compares: (0..compares).map(|_| compare(chance, known)).collect(), then, otherwise }
}

fn compare(chance: &mut Chance, known: &Known<'_>) -> Compare {
    let key = super::asking::key(chance, known.keys);
    let told = known.changes.get(&key).copied().unwrap_or(0);
    let (relation, operand) = match chance.below(8) {
        0..=2 => (Relation::Equal, Operand::Mod(told)),
        3 => (Relation::Less, Operand::Mod(told + 20)),
        4 => (Relation::Greater, Operand::Version(chance.below(3))),
        5 => (Relation::NotEqual, Operand::Create(told)),
        6 => (Relation::Less, Operand::Create(told + 1)),
        _ => {
            let value = format!("v{}", chance.below(known.values + 1)).into_bytes();
            (chance.pick(&[Relation::Greater, Relation::NotEqual]), Operand::Value(value))
        }
    };
    let end = if chance.one_in(8) { end(chance, known) } else { Vec::new() };
    Compare { key, end, relation, operand }
}

fn request(chance: &mut Chance, known: &Known<'_>, depth: u64) -> Request {
    let key = super::asking::key(chance, known.keys);
    match chance.below(10) {
        0..=4 => Request::Put { key, value: Vec::new() },
        5 => Request::Delete { key, end: Vec::new() },
        6 => Request::Delete { key, end: end(chance, known) },
        7 => Request::Range { key, end: Vec::new(), limit: 0 },
        8 if depth < DEPTH_MAX => Request::Txn(txn(chance, known, depth + 1)),
        _ => {
            let limit = if chance.one_in(3) { chance.between(1, 3) } else { 0 };
            Request::Range { key, end: end(chance, known), limit }
        }
    }
}

fn end(chance: &mut Chance, known: &Known<'_>) -> Vec<u8> {
    if chance.one_in(3) { vec![0] } else { super::asking::key(chance, known.keys) }
}
