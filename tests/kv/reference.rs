//! etcd's data model by itself: a map of histories that anyone can check by reading it. It knows
//! nothing of how the store is built, and takes every question the long way.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use raftd::kv::{Order, RangeError, Refusal, Relation, SortBy};
use raftd::types::Revision;

/// A key as it was from one revision on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) create: u64,
    pub(super) modified: u64,
    pub(super) version: u64,
    pub(super) lease: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Put {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) lease: u64,
    pub(super) prev_kv: bool,
    pub(super) ignore_value: bool,
    pub(super) ignore_lease: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Delete {
    pub(super) key: Vec<u8>,
    pub(super) end: Vec<u8>,
    pub(super) prev_kv: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Range {
    pub(super) key: Vec<u8>,
    pub(super) end: Vec<u8>,
    pub(super) limit: u64,
    pub(super) revision: u64,
    pub(super) keys_only: bool,
    pub(super) count_only: bool,
    pub(super) by: SortBy,
    pub(super) order: Order,
    pub(super) mods: (u64, u64),
    pub(super) creates: (u64, u64),
}

#[derive(Clone, Debug)]
pub(super) enum Target {
    Version(u64),
    Create(u64),
    Mod(u64),
    Value(Vec<u8>),
    Lease(u64),
}

#[derive(Clone, Debug)]
pub(super) struct Compare {
    pub(super) key: Vec<u8>,
    pub(super) end: Vec<u8>,
    pub(super) relation: Relation,
    pub(super) target: Target,
}

#[derive(Clone, Default, Debug)]
pub(super) struct Txn {
    pub(super) compares: Vec<Compare>,
    pub(super) then: Vec<Request>,
    pub(super) otherwise: Vec<Request>,
}

#[derive(Clone, Debug)]
pub(super) enum Request {
    Put(Put),
    Delete(Delete),
    Range(Range),
    Txn(Txn),
    Grant {
        lease: u64,
        ttl_s: u64,
    },
    Revoke {
        lease: u64,
    },
    /// What the leader says: that a lease is over, or when it is due. `void`: in another term.
    Say {
        lease: u64,
        grant: u64,
        due_ms: Option<u64>,
        void: bool,
    },
}

/// A lease; the keys that hang on it say so themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lease {
    pub(super) grant: u64,
    pub(super) ttl_s: u64,
    pub(super) due_ms: u64,
}

/// What a request comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Result {
    Put { before: Option<Row> },
    Delete { deleted: u64, before: Vec<Row> },
    Range { rows: Vec<Row>, more: bool, count: u64 },
    Txn { succeeded: bool, results: Vec<Result> },
    Granted { lease: u64, ttl_s: u64 },
    Revoked,
    Ended,
    Noted { ttl_s: u64 },
    Void,
}

#[derive(Default)]
pub(super) struct Reference {
    /// The changes of each key, oldest first; a deletion has version 0.
    histories: BTreeMap<Vec<u8>, Vec<Row>>,
    pub(super) leases: BTreeMap<u64, Lease>,
    pub(super) grants: u64,
    pub(super) revision: u64,
    pub(super) compacted: u64,
}

/// The stamp of all entries.
pub(super) const STAMP_MS: u64 = 7;

fn of_row(row: &Row) -> u64 {
    row.lease
}

pub(super) fn holds(key: &[u8], end: &[u8], name: &[u8]) -> bool {
    match end {
        [] => name == key,
        [0] => name >= key,
        end => name >= key && name < end,
    }
}

impl Reference {
    pub(super) fn new() -> Reference {
        Reference { revision: 1, ..Reference::default() }
    }

    pub(super) fn rows(&self, key: &[u8], end: &[u8], revision: u64) -> Vec<Row> {
        let mut rows = Vec::new();
        for (name, history) in &self.histories {
            let then = history.iter().rev().find(|row| row.modified <= revision);
            if let Some(row) = then.filter(|row| row.version > 0 && holds(key, end, name)) {
                rows.push(row.clone());
            }
        }
        rows
    }

    pub(super) fn row(&self, key: &[u8]) -> Option<Row> {
        self.rows(key, &[], self.revision).pop()
    }

    pub(super) fn compact(&mut self, revision: u64) -> Option<RangeError> {
        if revision > self.revision {
            return Some(RangeError::Future { revision: Revision(self.revision) });
        }
        if revision <= self.compacted {
            return Some(RangeError::Compacted { compact_revision: Revision(self.compacted) });
        }
        self.compacted = revision;
        for history in self.histories.values_mut() {
            let keep = history.iter().rposition(|row| row.modified <= revision).unwrap_or(0);
            history.drain(..keep);
        }
        self.histories.retain(|_, history| {
            history.len() > 1 || history[0].version > 0 || history[0].modified >= revision
        });
        None
    }

    /// Does a request by itself.
    pub(super) fn apply(&mut self, request: &Request) -> std::result::Result<Result, Refusal> {
        let mut path = Vec::new();
        self.choose(request, &mut path);
        if let Request::Put(put) = request
            && put.lease != 0
            && !self.leases.contains_key(&put.lease)
        {
            return Err(Refusal::LeaseNotFound);
        }
        self.check(request, &mut path.iter())?;
        self.check_ranges(request, &mut path.iter())?;
        let next = self.revision + 1;
        Ok(self.run(request, next, &mut path.iter()))
    }

    fn choose(&self, request: &Request, path: &mut Vec<bool>) {
        let Request::Txn(txn) = request else { return };
        let hold = txn.compares.iter().all(|compare| self.compare(compare));
        path.push(hold);
        for request in if hold { &txn.then } else { &txn.otherwise } {
            self.choose(request, path);
        }
    }

    fn compare(&self, compare: &Compare) -> bool {
        let rows = self.rows(&compare.key, &compare.end, self.revision);
        let found = |order: Ordering| match compare.relation {
            Relation::Equal => order == Ordering::Equal,
            Relation::NotEqual => order != Ordering::Equal,
            Relation::Greater => order == Ordering::Greater,
            Relation::Less => order == Ordering::Less,
        };
        let judge = |create: u64, modified: u64, version: u64, lease: u64| match &compare.target {
            Target::Version(operand) => Some(version.cmp(operand)),
            Target::Create(operand) => Some(create.cmp(operand)),
            Target::Mod(operand) => Some(modified.cmp(operand)),
            Target::Lease(operand) => Some(lease.cmp(operand)),
            Target::Value(_) => None,
        };
        if rows.is_empty() {
            return judge(0, 0, 0, 0).is_some_and(found);
        }
        rows.iter().all(|row| match &compare.target {
            Target::Value(operand) => found(row.value.cmp(operand)),
            Target::Version(_) | Target::Create(_) | Target::Mod(_) | Target::Lease(_) => {
                found(judge(row.create, row.modified, row.version, row.lease).unwrap())
            }
        })
    }

    fn check(
        &self,
        request: &Request,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> std::result::Result<(), Refusal> {
        match request {
            Request::Put(put) => {
                let keeps = put.ignore_value || put.ignore_lease;
                if keeps && self.row(&put.key).is_none() {
                    return Err(Refusal::KeyNotFound);
                }
                if put.lease != 0 && !self.leases.contains_key(&put.lease) {
                    return Err(Refusal::LeaseNotFound);
                }
            }
            Request::Grant { lease, .. } => {
                if self.leases.contains_key(lease) {
                    return Err(Refusal::LeaseExists);
                }
            }
            Request::Revoke { lease } => {
                if !self.leases.contains_key(lease) {
                    return Err(Refusal::LeaseNotFound);
                }
            }
            Request::Range(_) | Request::Delete(_) | Request::Say { .. } => {}
            Request::Txn(txn) => {
                for request in if *path.next().unwrap() { &txn.then } else { &txn.otherwise } {
                    self.check(request, path)?;
                }
            }
        }
        Ok(())
    }

    fn check_ranges(
        &self,
        request: &Request,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> std::result::Result<(), Refusal> {
        if let Request::Range(range) = request {
            self.readable(range.revision).map_err(Refusal::Range)?;
        }
        if let Request::Txn(txn) = request {
            for request in if *path.next().unwrap() { &txn.then } else { &txn.otherwise } {
                self.check_ranges(request, path)?;
            }
        }
        Ok(())
    }

    fn readable(&self, revision: u64) -> std::result::Result<u64, RangeError> {
        if revision > self.revision {
            Err(RangeError::Future { revision: Revision(self.revision) })
        } else if revision != 0 && revision < self.compacted {
            Err(RangeError::Compacted { compact_revision: Revision(self.compacted) })
        } else {
            Ok(if revision == 0 { self.revision } else { revision })
        }
    }

    fn run(
        &mut self,
        request: &Request,
        making: u64,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> Result {
        match request {
            Request::Put(put) => {
                let before = self.row(&put.key);
                let value = before.as_ref().filter(|_| put.ignore_value).map(|row| &row.value);
                let (create, version) =
                    before.as_ref().map_or((making, 0), |row| (row.create, row.version));
                let row = Row {
                    key: put.key.clone(),
                    value: value.unwrap_or(&put.value).clone(),
                    create,
                    modified: making,
                    version: version + 1,
                    lease: before.as_ref().filter(|_| put.ignore_lease).map_or(put.lease, of_row),
                };
                self.revision = making;
                self.histories.entry(put.key.clone()).or_default().push(row);
                Result::Put { before: before.filter(|_| put.prev_kv) }
            }
            Request::Delete(delete) => {
                let before = self.rows(&delete.key, &delete.end, self.revision);
                for row in &before {
                    self.revision = making;
                    let (key, modified) = (row.key.clone(), making);
                    let gone =
                        Row { key, value: vec![], create: 0, modified, version: 0, lease: 0 };
                    self.histories.get_mut(&row.key).unwrap().push(gone);
                }
                let deleted = before.len().try_into().unwrap();
                Result::Delete { deleted, before: if delete.prev_kv { before } else { vec![] } }
            }
            Request::Range(range) => self.range(range).unwrap(),
            Request::Txn(txn) => {
                let succeeded = *path.next().unwrap();
                let requests = if succeeded { &txn.then } else { &txn.otherwise };
                let results = requests.iter().map(|one| self.run(one, making, path)).collect();
                Result::Txn { succeeded, results }
            }
            Request::Grant { lease, ttl_s } => self.grant(*lease, *ttl_s),
            Request::Revoke { lease } => {
                self.end(*lease, making);
                Result::Revoked
            }
            Request::Say { void: true, .. } => Result::Void,
            Request::Say { lease, grant, due_ms, .. } => {
                let meant = self.leases.get(lease).is_some_and(|found| found.grant == *grant);
                match due_ms {
                    None if meant => self.end(*lease, making),
                    None => {}
                    Some(_) if !meant => return Result::Noted { ttl_s: 0 },
                    Some(due_ms) => {
                        let found = self.leases.get_mut(lease).unwrap();
                        found.due_ms = *due_ms;
                        return Result::Noted { ttl_s: found.ttl_s };
                    }
                }
                Result::Ended
            }
        }
    }

    /// At the stamp of all entries.
    fn grant(&mut self, lease: u64, ttl_s: u64) -> Result {
        self.grants += 1;
        while lease == 0 && self.leases.contains_key(&self.grants) {
            self.grants += 1;
        }
        let lease = if lease == 0 { self.grants } else { lease };
        let due_ms = STAMP_MS + ttl_s * 1000;
        self.leases.insert(lease, Lease { grant: self.grants, ttl_s, due_ms });
        Result::Granted { lease, ttl_s }
    }

    pub(super) fn keys_of(&self, lease: u64) -> Vec<Vec<u8>> {
        let all = self.rows(&[0], &[0], self.revision).into_iter();
        all.filter(|row| row.lease == lease).map(|row| row.key).collect()
    }

    fn end(&mut self, lease: u64, making: u64) {
        for key in self.keys_of(lease) {
            let gone = Delete { key, end: vec![], prev_kv: false };
            self.run(&Request::Delete(gone), making, &mut [].iter());
        }
        self.leases.remove(&lease);
    }

    pub(super) fn range(&self, range: &Range) -> std::result::Result<Result, RangeError> {
        let at = self.readable(range.revision)?;
        let mut rows = self.rows(&range.key, &range.end, at);
        let count = rows.len().try_into().unwrap();
        if range.count_only {
            return Ok(Result::Range { rows: vec![], more: false, count });
        }
        let within = |(min, max): (u64, u64), revision: u64| {
            revision >= min && (max == 0 || revision <= max)
        };
        rows.retain(|row| within(range.mods, row.modified) && within(range.creates, row.create));
        // A stable sort: equals stay in the order of their keys, whichever way it goes.
        let order = |one: &Row, two: &Row| match range.by {
            SortBy::Key => one.key.cmp(&two.key),
            SortBy::Version => one.version.cmp(&two.version),
            SortBy::Create => one.create.cmp(&two.create),
            SortBy::Mod => one.modified.cmp(&two.modified),
            SortBy::Value => one.value.cmp(&two.value),
        };
        match range.order {
            Order::Descend => rows.sort_by(|one, two| order(two, one)),
            Order::Unsorted | Order::Ascend => rows.sort_by(order),
        }
        let all = rows.len();
        if range.limit > 0 {
            rows.truncate(range.limit.try_into().unwrap());
        }
        if range.keys_only {
            rows.iter_mut().for_each(|row| row.value.clear());
        }
        Ok(Result::Range { more: rows.len() < all, rows, count })
    }
}

/// Whether a transaction changes a key twice: every request of a branch against every other.
pub(super) fn changes_twice(txn: &Txn) -> bool {
    [&txn.then, &txn.otherwise].into_iter().any(|branch| {
        let inside = branch.iter().any(|request| match request {
            Request::Txn(inner) => changes_twice(inner),
            Request::Put(_)
            | Request::Delete(_)
            | Request::Range(_)
            | Request::Grant { .. }
            | Request::Revoke { .. }
            | Request::Say { .. } => false,
        });
        let pairs = branch.iter().enumerate();
        inside
            || pairs
                .flat_map(|(at, one)| branch[..at].iter().map(move |two| (one, two)))
                .any(|(one, two)| clash(one, two))
    })
}

fn clash(one: &Request, two: &Request) -> bool {
    match (one, two) {
        (Request::Txn(txn), other) | (other, Request::Txn(txn)) => {
            txn.then.iter().chain(&txn.otherwise).any(|request| clash(request, other))
        }
        (Request::Put(one), Request::Put(two)) => one.key == two.key,
        (Request::Put(put), Request::Delete(delete))
        | (Request::Delete(delete), Request::Put(put)) => holds(&delete.key, &delete.end, &put.key),
        (Request::Delete(_), Request::Delete(_)) => false,
        (Request::Range(_), _) | (_, Request::Range(_)) => false,
        (Request::Grant { .. } | Request::Revoke { .. } | Request::Say { .. }, _)
        | (_, Request::Grant { .. } | Request::Revoke { .. } | Request::Say { .. }) => {
            unreachable!("no transaction has these")
        }
    }
}
