//! The gateway against a real etcd: the same requests to both, and every answer compared.
//!
//! Compared is all of an answer except what names the cluster (its id, its member, its term) and
//! what the clock decides. Debian's etcd is 3.4: what that lacks or does otherwise than 3.5 is not
//! asked here (`is_of_another_version`), and stands in the other tests.

mod etcd;
mod etcdctl;
mod json;
mod queues;
mod requests;

use crate::harness::{Cluster, PATIENCE};
use crate::program::{Clients, Gateway, block_on};
use crate::watch::Watches;
use bytes::Bytes;
use etcd::Etcd;
use raftd::gateway::proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use raftd::gateway::proto::etcdserverpb::request_op::Request;
use raftd::gateway::proto::etcdserverpb::response_op::Response;
use raftd::gateway::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest,
    TxnResponse, WatchCreateRequest,
};
use raftd::gateway::proto::mvccpb::Event;
use requests::Requests;
use std::collections::VecDeque;
use std::fmt::Debug;
use tokio::time::timeout;
use tonic::Status;

/// Pairs of stores, and requests to each. `DIFFERENTIAL_SEEDS=30` takes its time.
const SEEDS: u64 = 3;
const REQUESTS: u32 = 500;

/// Requests before a difference that are shown with it.
const SHOWN: usize = 8;

/// A request of any kind.
#[derive(Clone, Debug)]
enum Asked {
    Put(PutRequest),
    Range(RangeRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    TimeToLive(LeaseTimeToLiveRequest),
}

fn target_of(union: &TargetUnion) -> CompareTarget {
    match union {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    }
}

/// A header without what names the cluster.
fn strip(header: &mut Option<ResponseHeader>) {
    if let Some(header) = header {
        *header = ResponseHeader { revision: header.revision, ..ResponseHeader::default() };
    }
}

fn strip_txn(txn: &mut TxnResponse) {
    strip(&mut txn.header);
    for response in &mut txn.responses {
        match &mut response.response {
            Some(Response::ResponseRange(it)) => strip(&mut it.header),
            Some(Response::ResponsePut(it)) => strip(&mut it.header),
            Some(Response::ResponseDeleteRange(it)) => strip(&mut it.header),
            Some(Response::ResponseTxn(it)) => strip_txn(it),
            None => {}
        }
    }
}

/// The answer, as it is compared, and the revision that it shows.
struct Answer {
    text: String,
    revision: Option<i64>,
}

fn answer<T: Debug>(
    result: Result<tonic::Response<T>, Status>,
    header: impl FnOnce(&mut T) -> &mut Option<ResponseHeader>,
) -> Answer {
    match result {
        Ok(response) => {
            let mut response = response.into_inner();
            let header = header(&mut response);
            strip(header);
            let revision = header.as_ref().map(|it| it.revision);
            Answer { text: format!("{response:?}"), revision }
        }
        Err(why) => Answer { text: format!("{:?}: {}", why.code(), why.message()), revision: None },
    }
}

impl Clients {
    async fn hear(&self, asked: Asked) -> Answer {
        match asked {
            Asked::Put(it) => answer(self.kv().put(it).await, |it| &mut it.header),
            Asked::Range(it) => answer(self.kv().range(it).await, |it| &mut it.header),
            Asked::Delete(it) => answer(self.kv().delete_range(it).await, |it| &mut it.header),
            Asked::Compact(it) => answer(self.kv().compact(it).await, |it| &mut it.header),
            Asked::Txn(it) => answer(self.kv().txn(it).await, |it| {
                strip_txn(it);
                &mut it.header
            }),
            Asked::Grant(it) => answer(self.lease().lease_grant(it).await, |it| &mut it.header),
            Asked::Revoke(it) => answer(self.lease().lease_revoke(it).await, |it| &mut it.header),
            Asked::TimeToLive(it) => {
                answer(self.lease().lease_time_to_live(it).await, |it| {
                    // What the clock decides, and an order that etcd has none of.
                    it.ttl = it.ttl.min(0);
                    it.keys.sort();
                    &mut it.header
                })
            }
        }
    }

    /// All events of all keys up to `revision`, from the first that there still are.
    async fn events(&self, from: i64, revision: i64) -> Vec<Event> {
        let RangeRequest { key, range_end, .. } = get_all();
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: from,
            prev_kv: true,
            ..Default::default()
        };
        let mut watches = Watches::open_with(self, create).await;
        let mut events: Vec<Event> = Vec::new();
        let at =
            |events: &[Event]| events.last().map_or(0, |it| it.kv.as_ref().unwrap().mod_revision);
        while at(&events) < revision {
            let next = watches.next().await;
            assert!(!next.canceled, "{next:?}");
            events.extend(next.events);
        }
        events
    }
}

/// etcd overlooks a key that is put and deleted if one is in an inner transaction, or if the delete
/// has no end; we do not. Then etcd is not asked, so that the stores stay equal.
fn is_refused_by_us_alone(asked: &Asked, ours: &str) -> bool {
    let Asked::Txn(txn) = asked else { return false };
    let overlooked = |op: &RequestOp| match &op.request {
        Some(Request::RequestTxn(_)) => true,
        Some(Request::RequestDeleteRange(delete)) => delete.range_end[..] == [0],
        Some(Request::RequestRange(_) | Request::RequestPut(_)) | None => false,
    };
    let overlooked = txn.success.iter().chain(&txn.failure).any(overlooked);
    overlooked && ours.contains("duplicate key given in txn request")
}

/// Ours and etcd's, asked alike.
struct Pair {
    ours: Clients,
    etcds: Clients,
    last: VecDeque<String>,
    /// The newest revision, and the last that is gone.
    revision: i64,
    compacted: i64,
}

impl Pair {
    async fn ask(&mut self, asked: Asked) {
        let ours = self.ours.hear(asked.clone()).await;
        if is_refused_by_us_alone(&asked, &ours.text) {
            return;
        }
        let expected = timeout(PATIENCE, self.etcds.hear(asked.clone())).await;
        let expected = expected.unwrap_or_else(|_| panic!("etcd does not answer {asked:?}"));
        if self.last.len() == SHOWN {
            self.last.pop_front();
        }
        self.last.push_back(format!("{asked:?}\n    {}", expected.text));
        assert_eq!(ours.text, expected.text, "ours, and etcd's, to the last of\n{:#?}", self.last);
        self.revision = self.revision.max(expected.revision.unwrap_or(0));
        if let (Asked::Compact(compaction), Some(_)) = (asked, expected.revision) {
            self.compacted = compaction.revision;
        }
    }

    /// Compares all that is there, and all that has happened.
    async fn compare(mut self) {
        self.ask(Asked::Range(get_all())).await;
        let (from, to) = (self.compacted + 1, self.revision);
        if from <= to {
            let expected = self.etcds.events(from, to).await;
            assert_eq!(self.ours.events(from, to).await, expected);
        }
    }
}

fn get_all() -> RangeRequest {
    let every = Bytes::from_static(&[0]);
    RangeRequest { key: every.clone(), range_end: every, ..RangeRequest::default() }
}

/// Runs a test before both, where there is an etcd.
fn with_both<F: Future<Output = ()>>(test: impl FnOnce(Pair) -> F) {
    before_both(|gateway, etcd| {
        block_on(async {
            let (ours, etcds) = (gateway.clients().await, etcd.clients());
            let last = VecDeque::with_capacity(SHOWN);
            test(Pair { ours, etcds, last, revision: 1, compacted: 0 }).await;
        });
    });
}

fn before_both(test: impl FnOnce(&Gateway, &Etcd)) {
    let Some(etcd) = Etcd::start() else { return };
    let mut cluster = Cluster::start(1);
    cluster.leader();
    test(&Gateway::start(&cluster), &etcd);
}

#[test]
fn random_requests_have_the_answers_of_a_real_etcd() {
    let seeds = std::env::var("DIFFERENTIAL_SEEDS").ok();
    let seeds = seeds.map_or(SEEDS, |it| it.parse().expect("a number of seeds"));
    for seed in 0..seeds {
        with_both(|mut pair| async move {
            let mut requests = Requests::from(seed);
            for _ in 0..REQUESTS {
                pair.ask(requests.draw()).await;
                requests.revision = pair.revision;
            }
            pair.compare().await;
        });
    }
}
