//! Puts with options, and transactions: checked as a whole, then done.
//!
//! ```text
//! choose     every compare, those of inner transactions too, against the store as it is: which
//!            branches are taken
//! check      what those branches ask for, against the store as it is: a key that must exist, a
//!            revision that must be readable, an answer that must fit
//! run        the requests of those branches, in order; nothing fails here
//! ```
//!
//! A branch changes no key twice (`overlap`), so what is checked of a key before the first request
//! still holds when its own turn comes, and a refusal finds nothing to undo. All changes carry one
//! revision. A request reads what those before it changed, because the first change makes the
//! store's revision.

use std::ops::ControlFlow;

use crate::codec::msgpack;
use crate::limits::RANGE_REPLY_BYTES_MAX;
use crate::types::Revision;

use super::Store;
use super::answer::{KvArray, Refusal, bytes_of, write_kv};
use super::apply::DELETE_STEPS;
use super::command::{DeleteWith, PutWith};
use super::index::KeyHash;
use super::mvcc::NewValue;
use super::range::{KeyValueRef, RangeError, RangeRequest, key_value};
use super::txn::{Compare, Operand, Relation, Request, Txn};

/// Which branches are taken, in the order in which they are met.
pub(super) type Path = Vec<bool>;

/// Where the branches are read off again.
type Way<'p> = std::slice::Iter<'p, bool>;

/// What a transaction has while it is done.
struct Room {
    /// Bytes of the answer that are left for ranges.
    bytes: usize,
    /// Keys and versions that were looked at, beside those that are set. Steps.
    walked: usize,
}

/// What was found of a transaction before it is done.
struct Found<'t> {
    /// What its requests answer of the time before them.
    bytes: usize,
    /// What is deleted by those looked at so far: of that the next ones have nothing to answer.
    deletes: Vec<DeleteWith<'t>>,
    /// The first range that cannot be read. Puts that cannot be done go before it, wherever they
    /// stand, as with etcd.
    unreadable: Option<RangeError>,
    /// As of `Room`.
    walked: usize,
}

impl Store {
    /// Sets a key as asked for; answers what was there before into `body`.
    pub(super) fn put_with(
        &mut self,
        hash: KeyHash,
        put: &PutWith<'_>,
        body: &mut Vec<u8>,
    ) -> Result<Revision, Refusal> {
        // Of two faults etcd names the lease here, and the key in a transaction.
        self.check_lease(put)?;
        self.check_put(hash, put)?;
        let revision = self.revision.next();
        self.set_with(revision, hash, put, body);
        Ok(revision)
    }

    /// Does a transaction; answers the results into `body`. Says whether its compares held.
    pub(super) fn transact(&mut self, txn: Txn<'_>, body: &mut Vec<u8>) -> Result<bool, Refusal> {
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        let mut walked = 0;
        self.choose(txn, &mut path, &mut walked);
        let done = self.check(txn, &path, &mut walked).map(|bytes| {
            let revision = self.revision.next();
            let mut room = Room { bytes, walked: 0 };
            let succeeded = self.run(revision, txn, &mut path.iter(), &mut room, body);
            self.bury_deleted(revision);
            assert!(self.revision <= revision, "a transaction makes one revision at most");
            walked += room.walked;
            succeeded
        });
        self.path = path;
        self.walked += walked;
        done
    }

    /// Does a transaction that changes nothing; adds the steps that it takes. Panics on another
    /// one.
    pub fn read_txn(
        &self,
        txn: Txn<'_>,
        walked: &mut usize,
        body: &mut Vec<u8>,
    ) -> Result<bool, Refusal> {
        assert!(txn.is_read_only(), "what changes something goes through the log");
        let mut path = Path::new();
        self.choose(txn, &mut path, walked);
        let bytes = self.check(txn, &path, walked)?;
        let mut room = Room { bytes, walked: 0 };
        let held = self.run_reads(txn, &mut path.iter(), &mut room, body);
        *walked += room.walked;
        Ok(held)
    }

    /// Notes which branches are taken: first the transaction's own, then those of the transactions
    /// in it, in their order.
    fn choose(&self, txn: Txn<'_>, path: &mut Path, walked: &mut usize) {
        let hold = txn.compares().all(|compare| self.holds(&compare, walked));
        path.push(hold);
        for request in txn.branch(hold) {
            if let Request::Txn(inner) = request {
                self.choose(inner, path, walked);
            }
        }
    }

    /// Whether a compare holds of every key of its range; of none, as of a key that has nothing.
    fn holds(&self, compare: &Compare<'_>, walked: &mut usize) -> bool {
        let (mut some, mut all) = (false, true);
        self.each_entry(compare.key, compare.end, |entry| {
            *walked += 1;
            if all && entry.is_live() {
                some = true;
                all = holds_of(compare, &key_value(entry, self.versions.at(entry.newest)));
            }
        });
        if some {
            return all;
        }
        // No value is no value, not the empty one: what compares it does not hold.
        let nothing = KeyValueRef {
            key: &[],
            value: &[],
            create_revision: Revision(0),
            mod_revision: Revision(0),
            version: 0,
            lease: 0,
        };
        !matches!(compare.operand, Operand::Value(_)) && holds_of(compare, &nothing)
    }

    /// Whether everything on the path can be done. Says what is left for ranges of the answer, in
    /// bytes.
    fn check(&self, txn: Txn<'_>, path: &Path, walked: &mut usize) -> Result<usize, Refusal> {
        let mut found = Found { bytes: 0, deletes: Vec::new(), unreadable: None, walked: 0 };
        let checked = self.check_branch(txn, &mut path.iter(), &mut found);
        *walked += found.walked;
        checked?;
        found.unreadable.map_or(Ok(()), |why| Err(Refusal::Range(why)))?;
        check_size(found.bytes)?;
        Ok(RANGE_REPLY_BYTES_MAX - found.bytes)
    }

    fn check_branch<'t>(
        &self,
        txn: Txn<'t>,
        way: &mut Way<'_>,
        found: &mut Found<'t>,
    ) -> Result<(), Refusal> {
        for request in txn.branch(next_on(way)) {
            match request {
                Request::Put(put) => {
                    let hash = self.index.hash(put.key);
                    self.check_put(hash, &put)?;
                    if put.prev_kv {
                        let before = self.get_hashed(hash, put.key);
                        found.bytes += before.map_or(0, |kv| bytes_of(&kv));
                    }
                }
                Request::Delete(delete) => {
                    self.count_delete(&delete, found);
                    found.deletes.push(delete);
                }
                Request::Range(range) => {
                    let unreadable = self.readable(range.revision).err();
                    found.unreadable = found.unreadable.or(unreadable);
                }
                Request::Txn(inner) => self.check_branch(inner, way, found)?,
            }
        }
        Ok(())
    }

    fn check_put(&self, hash: KeyHash, put: &PutWith<'_>) -> Result<(), Refusal> {
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && self.get_hashed(hash, put.key).is_none() {
            return Err(Refusal::KeyNotFound);
        }
        self.check_lease(put)
    }

    fn check_lease(&self, put: &PutWith<'_>) -> Result<(), Refusal> {
        let there = put.lease == 0 || self.leases.has(put.lease);
        if there { Ok(()) } else { Err(Refusal::LeaseNotFound) }
    }

    /// Counts what a delete answers of the keys it deletes.
    fn count_delete(&self, delete: &DeleteWith<'_>, found: &mut Found<'_>) {
        if delete.prev_kv {
            let Found { bytes, deletes, walked, .. } = found;
            self.each_entry(delete.key, delete.end, |entry| {
                *walked += 1 + deletes.len();
                let gone = deletes.iter().any(|it| it.end.holds(it.key, entry.name()));
                if entry.is_live() && !gone {
                    *bytes += bytes_of(&key_value(entry, self.versions.at(entry.newest)));
                }
            });
        }
    }

    /// Does what was checked, in order. The results of the branch go into `body`.
    fn run(
        &mut self,
        revision: Revision,
        txn: Txn<'_>,
        way: &mut Way<'_>,
        room: &mut Room,
        body: &mut Vec<u8>,
    ) -> bool {
        let (hold, requests) = begin_branch(txn, way, body);
        for request in requests {
            begin_result(body, &request);
            match request {
                Request::Put(put) => {
                    self.set_with(revision, self.index.hash(put.key), &put, body);
                }
                Request::Delete(delete) => {
                    self.find_live(self.index.hash(delete.key), delete.key, delete.end);
                    let found = u64::try_from(self.found.len()).expect("usize is 64 bits at most");
                    msgpack::write_uint(body, found);
                    self.write_found(&delete, body);
                    room.walked += DELETE_STEPS * self.found.len();
                    self.delete_found(revision);
                }
                Request::Range(range) => self.write_range(&range, room, body),
                Request::Txn(inner) => {
                    msgpack::write_flag(body, is_next_taken(way));
                    self.run(revision, inner, way, room, body);
                }
            }
        }
        hold
    }

    /// The same where nothing is changed.
    fn run_reads(
        &self,
        txn: Txn<'_>,
        way: &mut Way<'_>,
        room: &mut Room,
        body: &mut Vec<u8>,
    ) -> bool {
        let (hold, requests) = begin_branch(txn, way, body);
        for request in requests {
            begin_result(body, &request);
            match request {
                Request::Range(range) => self.write_range(&range, room, body),
                Request::Txn(inner) => {
                    msgpack::write_flag(body, is_next_taken(way));
                    self.run_reads(inner, way, room, body);
                }
                Request::Put(_) | Request::Delete(_) => unreachable!("the transaction only reads"),
            }
        }
        hold
    }

    /// Sets a key that was checked; answers what was there before.
    fn set_with(
        &mut self,
        revision: Revision,
        hash: KeyHash,
        put: &PutWith<'_>,
        body: &mut Vec<u8>,
    ) {
        let before = self.get_hashed(hash, put.key);
        write_length(body, usize::from(put.prev_kv && before.is_some()));
        if let Some(before) = before.filter(|_| put.prev_kv) {
            write_kv(body, &before);
        }
        let lease = match before {
            Some(before) if put.ignore_lease => before.lease,
            Some(_) | None => put.lease,
        };
        match before {
            Some(before) if put.ignore_value => {
                let value = before.value.to_vec();
                self.set(revision, hash, put.key, NewValue { value: &value, lease });
            }
            Some(_) | None => {
                self.set(revision, hash, put.key, NewValue { value: put.value, lease });
            }
        }
    }

    /// Answers the keys in `found`, if they are asked for.
    fn write_found(&self, delete: &DeleteWith<'_>, body: &mut Vec<u8>) {
        let found = if delete.prev_kv { &self.found[..] } else { &[] };
        write_length(body, found.len());
        for id in found {
            let entry = self.keys.at(*id);
            write_kv(body, &key_value(entry, self.versions.at(entry.newest)));
        }
    }

    /// Answers a range, as much of it as there is room for.
    fn write_range(&self, range: &RangeRequest<'_>, room: &mut Room, body: &mut Vec<u8>) {
        let mut kvs = KvArray::begin(body);
        let Room { bytes, walked } = room;
        let visit = &mut |kv: KeyValueRef<'_>| match bytes.checked_sub(bytes_of(&kv)) {
            Some(left) => {
                *bytes = left;
                kvs.push(body, &kv);
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        };
        let summary = self.range_counted(range, walked, visit);
        let summary = summary.expect("its revision was found to be readable");
        kvs.finish(body);
        msgpack::write_flag(body, summary.more);
        msgpack::write_uint(body, summary.count);
    }
}

fn holds_of(compare: &Compare<'_>, kv: &KeyValueRef<'_>) -> bool {
    let order = match compare.operand {
        Operand::Version(version) => kv.version.cmp(&version),
        Operand::Create(revision) => kv.create_revision.cmp(&revision),
        Operand::Mod(revision) => kv.mod_revision.cmp(&revision),
        Operand::Value(value) => kv.value.cmp(value),
        Operand::Lease(lease) => kv.lease.cmp(&lease),
    };
    match compare.relation {
        Relation::Equal => order.is_eq(),
        Relation::Greater => order.is_gt(),
        Relation::Less => order.is_lt(),
        Relation::NotEqual => order.is_ne(),
    }
}

pub(super) fn check_size(bytes: usize) -> Result<(), Refusal> {
    if bytes <= RANGE_REPLY_BYTES_MAX { Ok(()) } else { Err(Refusal::AnswerTooLarge) }
}

fn next_on(way: &mut Way<'_>) -> bool {
    *way.next().expect("every transaction on the path was chosen")
}

/// Begins what a transaction answers. Returns whether its compares held, and what is done for it.
fn begin_branch<'a>(
    txn: Txn<'a>,
    way: &mut Way<'_>,
    body: &mut Vec<u8>,
) -> (bool, impl Iterator<Item = Request<'a>> + use<'a>) {
    let hold = next_on(way);
    let requests = txn.branch(hold);
    write_length(body, requests.len());
    (hold, requests)
}

/// Whether the compares of the transaction that is met next held.
fn is_next_taken(way: &Way<'_>) -> bool {
    way.as_slice().first() == Some(&true)
}

pub(super) fn write_length(body: &mut Vec<u8>, length: usize) {
    msgpack::write_array(body, u32::try_from(length).expect("an answer is bounded"));
}

/// Begins the result of a request: its op, and the array of what it answers.
fn begin_result(body: &mut Vec<u8>, request: &Request<'_>) {
    msgpack::write_array(body, 2);
    body.push(request.op());
    msgpack::write_array(
        body,
        match request {
            Request::Put(_) => 1,
            Request::Delete(_) | Request::Txn(_) => 2,
            Request::Range(_) => 3,
        },
    );
}
