//! Clients who do more than put, beside those who do: transactions, linearizable reads, leases
//! that are kept alive. Each judges what it is told, so a wrong answer fails the test at once; what
//! is not answered is counted.

use super::load::{PACE, Reader};
use super::patience::breathe;
use raftd::client::{
    Client, Compare, Error, Operand, PutWith, RangeEnd, Relation, Txn, TxnParts, TxnRequest,
};
use std::sync::atomic::{AtomicBool, Ordering};

/// Far longer than anything here takes, so that it ends by nothing but a mistake. Seconds.
const TTL_S: u64 = 600;

/// Requests of one kind.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Count {
    pub(super) done: usize,
    pub(super) failed: usize,
}

/// How many requests of each kind were answered.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Mixed {
    pub(super) transactions: Count,
    pub(super) gets: Count,
    pub(super) grants: Count,
    pub(super) keep_alives: Count,
}

impl Count {
    /// What was answered, if it was. What was not is printed.
    fn note<T>(&mut self, what: &str, answer: Result<T, Error>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.done += 1;
                Some(answer)
            }
            Err(error) => {
                println!("load: {what} failed: {error}");
                self.failed += 1;
                None
            }
        }
    }

    fn add(&mut self, other: Count) {
        self.done += other.done;
        self.failed += other.failed;
    }
}

impl Mixed {
    /// Adds what another client counted.
    pub(super) fn add(&mut self, other: Mixed) {
        self.transactions.add(other.transactions);
        self.gets.add(other.gets);
        self.grants.add(other.grants);
        self.keep_alives.add(other.keep_alives);
    }

    /// Asserts that there were requests of every kind, and that each was answered.
    pub(super) fn all_succeeded(&self) {
        for count in [self.transactions, self.gets, self.grants, self.keep_alives] {
            assert!(count.done > 0, "nobody asked: {self:?}");
            assert_eq!(count.failed, 0, "{self:?}");
        }
    }
}

/// A transaction that counts: sets the key to `number` if it is `number - 1`, which is the version
/// as well.
fn count_up(client: &mut Client, key: &str, number: u64) -> Result<bool, Error> {
    let (key, value) = (key.as_bytes(), number.to_string());
    let compare = Compare {
        key,
        end: RangeEnd::Key,
        relation: Relation::Equal,
        operand: Operand::Version(number - 1),
    };
    let put = PutWith { key, value: value.as_bytes(), ..PutWith::default() };
    let mut room = Vec::new();
    let then = [TxnRequest::Put(put)];
    TxnParts { compares: &[compare], then: &then, otherwise: &[] }.encode(&mut room);
    let txn = Txn::from_args(&room).expect("it changes a key once");
    client.txn(txn).map(|done| done.succeeded)
}

/// Counts up in a key of its own, reads it, and keeps a lease alive, until told to stop.
pub(super) fn ask(mut reader: Reader<'_>, stop: &AtomicBool) -> Mixed {
    let mut mixed = Mixed::default();
    let key = format!("counted/{}", reader.place());
    let mut number = 0;
    let mut lease = None;
    while !stop.load(Ordering::Relaxed) {
        let client = reader.client();
        let counted = count_up(client, &key, number + 1);
        if let Some(succeeded) = mixed.transactions.note("a transaction", counted) {
            assert!(succeeded, "{key} is not {number}, though nobody else writes it");
            number += 1;
        }
        if let Some(found) = mixed.gets.note("a get", client.get(key.as_bytes())) {
            let found = found.map_or(0, |kv| kv.version);
            // After a transaction without an answer nobody knows.
            let may_be = number..=number + u64::from(mixed.transactions.failed > 0);
            assert!(may_be.contains(&found), "{key} is {found}, not {number}");
            number = found;
        }
        match lease {
            None => {
                let granted = client.lease_grant(0, TTL_S);
                lease = mixed.grants.note("a grant", granted).map(|term| term.lease);
            }
            Some(lease) => {
                let kept = client.lease_keep_alive(lease);
                if let Some(term) = mixed.keep_alives.note("a keep-alive", kept) {
                    assert_eq!(term.ttl_s, TTL_S, "lease {lease} is gone");
                }
            }
        }
        breathe(PACE);
    }
    mixed
}
