//! Whether a transaction changes a key twice. etcd refuses it before it does anything, so one
//! revision says one thing of a key.
//!
//! Requests of one branch are done together, so what each of them may change must be apart: no two
//! puts of a key, and no put of a key that is deleted too. Two deletes may meet. Of a transaction
//! inside, either branch may be done, and never both: they may change the same keys, and what they
//! change together must be apart from the rest.
//!
//! etcd overlooks a key that one inner transaction puts and a later one beside it deletes; the
//! other way round it refuses that too. Here both are refused: otherwise a key would have two
//! versions of one revision.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::limits::TXN_OPS_MAX;

use super::command::{CommandError, RangeEnd};
use super::txn::{Request, Txn};

/// Requests of a branch that are held against each other one by one: that takes no memory, and most
/// transactions are no longer.
const SHORT: usize = 4;

/// Judges a transaction.
pub(super) fn check(txn: Txn<'_>) -> Result<(), CommandError> {
    if !is_short(txn) {
        return changes_of_txn(txn, TXN_OPS_MAX).map(|_| ());
    }
    let apart = pairs_are_apart(txn, true) && pairs_are_apart(txn, false);
    if apart { Ok(()) } else { Err(CommandError::DuplicateKey) }
}

fn is_short(txn: Txn<'_>) -> bool {
    let is_inner = |request| matches!(request, Request::Txn(_));
    let short = |hold| txn.branch(hold).len() <= SHORT && !txn.branch(hold).any(is_inner);
    txn.compares().len() <= TXN_OPS_MAX && short(true) && short(false)
}

fn pairs_are_apart(txn: Txn<'_>, hold: bool) -> bool {
    (0..).zip(txn.branch(hold)).all(|(before, one)| {
        txn.branch(hold).take(before).all(|other| match (one, other) {
            (Request::Put(one), Request::Put(other)) => one.key != other.key,
            (Request::Put(put), Request::Delete(delete))
            | (Request::Delete(delete), Request::Put(put)) => {
                !delete.end.holds(delete.key, put.key)
            }
            (Request::Delete(_), Request::Delete(_))
            | (Request::Range(_), _)
            | (_, Request::Range(_)) => true,
            (Request::Txn(_), _) | (_, Request::Txn(_)) => unreachable!("it has none inside"),
        })
    })
}

/// The keys that requests may change.
#[derive(Default)]
struct Changes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<(&'a [u8], RangeEnd<'a>)>,
}

impl<'a> Changes<'a> {
    fn are_apart_from(&self, other: &Changes<'a>) -> bool {
        let put_twice = self.puts.iter().any(|key| other.puts.contains(key));
        !put_twice && !self.delete_what_puts(other) && !other.delete_what_puts(self)
    }

    fn delete_what_puts(&self, other: &Changes<'a>) -> bool {
        self.deletes.iter().any(|(key, end)| {
            let from = (Bound::Included(*key), Bound::Unbounded);
            let first = other.puts.range::<[u8], _>(from).next();
            first.is_some_and(|first| end.holds(key, first))
        })
    }

    fn add(&mut self, other: Changes<'a>) {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
    }
}

/// What a transaction may change, if it is sound. `ops_left`: how many compares, and requests of a
/// branch, it may have.
fn changes_of_txn(txn: Txn<'_>, ops_left: usize) -> Result<Changes<'_>, CommandError> {
    let branches = [true, false].map(|hold| txn.branch(hold).len());
    let most = branches.into_iter().fold(txn.compares().len(), usize::max);
    let ops_left = ops_left.checked_sub(most).ok_or(CommandError::TooManyOperations)?;
    let mut changes = changes_of_branch(txn, true, ops_left)?;
    changes.add(changes_of_branch(txn, false, ops_left)?);
    Ok(changes)
}

fn changes_of_branch(
    txn: Txn<'_>,
    hold: bool,
    ops_left: usize,
) -> Result<Changes<'_>, CommandError> {
    let mut all = Changes::default();
    for request in txn.branch(hold) {
        let one = match request {
            Request::Put(put) => Changes { puts: BTreeSet::from([put.key]), deletes: Vec::new() },
            Request::Delete(delete) => {
                let deletes = vec![(delete.key, delete.end)];
                Changes { puts: BTreeSet::new(), deletes }
            }
            Request::Range(_) => Changes::default(),
            Request::Txn(inner) => changes_of_txn(inner, ops_left)?,
        };
        if !one.are_apart_from(&all) {
            return Err(CommandError::DuplicateKey);
        }
        all.add(one);
    }
    Ok(all)
}
