//! Requests of all kinds, drawn: few keys, so that they meet, and numbers about those that count.

use super::Asked;
use crate::dice::Dice;
use bytes::Bytes;
use raftd::gateway::proto::etcdserverpb::compare::TargetUnion;
use raftd::gateway::proto::etcdserverpb::request_op::Request;
use raftd::gateway::proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// Draws requests.
pub(super) struct Requests {
    dice: Dice,
    /// The newest revision that was seen.
    pub(super) revision: i64,
}

impl Requests {
    pub(super) fn from(seed: u64) -> Requests {
        Requests { dice: Dice(seed), revision: 1 }
    }

    pub(super) fn draw(&mut self) -> Asked {
        match self.dice.below(100) {
            0..30 => Asked::Put(self.put()),
            30..55 => Asked::Range(self.range()),
            55..63 => Asked::Delete(self.delete()),
            63..88 => Asked::Txn(self.txn(2)),
            88..90 => Asked::Compact(CompactionRequest {
                revision: self.revision(),
                physical: self.flip(),
            }),
            90..94 => Asked::Grant(LeaseGrantRequest { ttl: 600, id: self.lease() }),
            94..96 => Asked::Revoke(LeaseRevokeRequest { id: self.lease() }),
            _ => Asked::TimeToLive(LeaseTimeToLiveRequest { id: self.lease(), keys: true }),
        }
    }

    fn number(&mut self, bound: u64) -> i64 {
        i64::try_from(self.dice.below(bound)).unwrap()
    }

    fn flip(&mut self) -> bool {
        self.dice.once_in(2)
    }

    /// Seldom, or never at 0.
    fn seldom<T: Default>(&mut self, draw: impl FnOnce(&mut Requests) -> T) -> T {
        if self.dice.once_in(4) { draw(self) } else { T::default() }
    }

    fn key(&mut self) -> Bytes {
        if self.dice.once_in(60) {
            return Bytes::new();
        }
        let letters = ["a", "a/b", "b", "b/", "b/c", "c", "d", "e"];
        letters[self.dice.index(letters.len())].into()
    }

    /// Of all forms, an empty range among them.
    fn end(&mut self) -> Bytes {
        match self.dice.below(6) {
            0..3 => Bytes::new(),
            3 => Bytes::from_static(&[0]),
            _ => self.key(),
        }
    }

    fn value(&mut self) -> Bytes {
        format!("{}", self.dice.below(5)).into()
    }

    /// One that was, mostly; or will be, or cannot be.
    fn revision(&mut self) -> i64 {
        match self.dice.below(12) {
            0 => self.revision + self.number(3),
            1 => -1,
            _ => (self.revision - self.number(12)).max(0),
        }
    }

    fn lease(&mut self) -> i64 {
        1 + self.number(4)
    }

    fn put(&mut self) -> PutRequest {
        let ignore_value = self.dice.once_in(8);
        let ignore_lease = self.dice.once_in(8);
        PutRequest {
            key: self.key(),
            value: if ignore_value && !self.dice.once_in(6) { Bytes::new() } else { self.value() },
            lease: if ignore_lease { 0 } else { self.seldom(Requests::lease) },
            prev_kv: self.flip(),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let range_end = if self.dice.once_in(3) { self.end() } else { Bytes::new() };
        DeleteRangeRequest { key: self.key(), range_end, prev_kv: self.flip() }
    }

    fn range(&mut self) -> RangeRequest {
        let sort_order = self.seldom(|it| i32::try_from(it.number(3)).unwrap());
        let sort_target = self.seldom(|it| i32::try_from(it.number(5)).unwrap());
        // A limit on what is sorted without an order is another one with etcd: README says which.
        let limited = sort_order != 0 || sort_target == 0;
        RangeRequest {
            key: self.key(),
            range_end: self.end(),
            limit: if limited { self.seldom(|it| it.number(5) - 1) } else { 0 },
            // Below 0 etcd takes it for 0, but in transactions only until the first compaction.
            revision: self.seldom(Requests::revision).max(0),
            sort_order,
            sort_target,
            serializable: self.dice.once_in(5),
            keys_only: self.dice.once_in(5),
            count_only: self.dice.once_in(8),
            min_mod_revision: self.seldom(Requests::revision),
            max_mod_revision: self.seldom(Requests::revision),
            min_create_revision: self.seldom(Requests::revision),
            max_create_revision: self.seldom(Requests::revision),
        }
    }

    fn txn(&mut self, depth: u64) -> TxnRequest {
        let compare = (0..self.dice.below(3)).map(|_| self.compare()).collect();
        let success = self.branch(depth);
        TxnRequest { compare, success, failure: self.branch(depth) }
    }

    fn branch(&mut self, depth: u64) -> Vec<RequestOp> {
        (0..self.dice.below(4)).map(|_| self.op(depth)).collect()
    }

    fn op(&mut self, depth: u64) -> RequestOp {
        let request = match self.dice.below(10) {
            0..4 => Request::RequestPut(self.put()),
            4..7 => Request::RequestRange(self.range()),
            7 => Request::RequestDeleteRange(self.delete()),
            _ if depth > 0 => Request::RequestTxn(self.txn(depth - 1)),
            _ => Request::RequestRange(self.range()),
        };
        RequestOp { request: Some(request) }
    }

    fn compare(&mut self) -> Compare {
        let union = match self.dice.below(5) {
            0 => TargetUnion::Version(self.number(4) - 1),
            1 => TargetUnion::CreateRevision(self.revision()),
            2 => TargetUnion::ModRevision(self.revision()),
            3 => TargetUnion::Value(self.value()),
            _ => TargetUnion::Lease(self.number(3)),
        };
        let relation = i32::try_from(self.number(4)).unwrap();
        let range_end = self.seldom(Requests::end);
        let target = i32::from(super::target_of(&union));
        Compare { result: relation, target, key: self.key(), range_end, target_union: Some(union) }
    }
}
