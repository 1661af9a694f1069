//! Leases, kept alive and left alone.

use super::harness::PATIENCE;
use super::patience::now;
use super::program::{Clients, get_prefix, put, refused, with_gateway};
use super::said::said;
use raftd::gateway::proto::etcdserverpb::request_op::Request;
use raftd::gateway::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest, RequestOp,
    TxnRequest,
};
use raftd::gateway::proto::raftd::GetLeaseRequest;
use std::time::Duration;
use tonic::{Code, Status};

impl Clients {
    pub(crate) async fn grant(&self, id: i64, ttl: i64) -> Result<LeaseGrantResponse, Status> {
        let granted = self.lease().lease_grant(LeaseGrantRequest { ttl, id }).await;
        granted.map(tonic::Response::into_inner)
    }

    pub(crate) async fn time_to_live(&self, id: i64) -> LeaseTimeToLiveResponse {
        let request = LeaseTimeToLiveRequest { id, keys: true };
        self.lease().lease_time_to_live(request).await.unwrap().into_inner()
    }

    async fn put_under(&self, key: &str, lease: i64) {
        self.put(PutRequest { lease, ..put(key, "v") }).await.unwrap();
    }
}

#[test]
fn leases_are_granted_looked_at_listed_and_revoked() {
    with_gateway(3, |clients, _gateway| async move {
        let asked = now();
        let granted = clients.grant(7, 100).await.unwrap();
        assert_eq!((granted.id, granted.ttl, granted.header.unwrap().revision), (7, 100, 1));
        let text = "etcdserver: lease already exists";
        refused(clients.grant(7, 100).await, Code::FailedPrecondition, text);
        let text = "etcdserver: too large lease TTL";
        refused(clients.grant(8, 9_000_000_001).await, Code::OutOfRange, text);
        let chosen = clients.grant(0, 100).await.unwrap();
        assert!(chosen.id > 0);
        // What is too short is raised.
        assert!((1..=5).contains(&clients.grant(9, -5).await.unwrap().ttl));
        clients.put_under("l/a", 7).await;
        clients.put_under("l/b", 7).await;
        let times = clients.time_to_live(7).await;
        let since = i64::try_from(asked.elapsed().as_secs()).unwrap();
        // What is left of a second is none.
        let left = 100 - since - 2..=100;
        assert!(left.contains(&times.ttl) && times.granted_ttl == 100, "{times:?}");
        let mut keys = times.keys.clone();
        keys.sort();
        assert_eq!(keys, ["l/a", "l/b"]);
        let none = clients.time_to_live(12).await;
        assert_eq!((none.id, none.ttl, none.granted_ttl), (12, -1, 0));
        let all = clients.lease().lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner();
        let ids: Vec<i64> = all.leases.iter().map(|it| it.id).collect();
        assert!([7, 9, chosen.id].iter().all(|id| ids.contains(id)), "{ids:?}");
        let revoked = clients.lease().lease_revoke(LeaseRevokeRequest { id: 7 }).await.unwrap();
        assert_eq!(revoked.into_inner().header.unwrap().revision, 4);
        assert_eq!(clients.range(get_prefix("l/")).await.unwrap().count, 0);
        let again = clients.lease().lease_revoke(LeaseRevokeRequest { id: 7 }).await;
        refused(again, Code::NotFound, "etcdserver: requested lease not found");
    });
}

#[test]
fn what_is_kept_alive_stays_and_what_is_not_goes() {
    with_gateway(3, |clients, _gateway| async move {
        for (id, key) in [(1, "kept"), (2, "left")] {
            // So long may a busy machine keep a keep-alive waiting.
            clients.grant(id, 5).await.unwrap();
            clients.put_under(key, id).await;
        }
        let (say, requests) = said();
        let answers = clients.lease().lease_keep_alive(requests).await.unwrap();
        let mut answers = answers.into_inner();
        let deadline = raftd::client::Deadline::after(PATIENCE);
        while clients.value("left").await.is_some() {
            assert!(!deadline.has_passed(), "it expires");
            say.send(LeaseKeepAliveRequest { id: 1 }).unwrap();
            let answer = answers.message().await.unwrap().unwrap();
            assert_eq!((answer.id, answer.ttl), (1, 5));
            let pause = Duration::from_millis(50);
            let _over = tokio::time::timeout(pause, std::future::pending::<()>()).await;
        }
        assert!(clients.value("kept").await.is_some());
        assert_eq!(clients.time_to_live(2).await.ttl, -1);
    });
}

#[test]
fn keep_alives_are_answered_in_their_order_and_of_no_lease_with_zero() {
    with_gateway(1, |clients, _gateway| async move {
        clients.grant(1, 60).await.unwrap();
        let ids: Vec<i64> = (0..300).map(|number| number % 3).collect();
        let (say, requests) = said();
        ids.iter().for_each(|id| say.send(LeaseKeepAliveRequest { id: *id }).unwrap());
        let answers = clients.lease().lease_keep_alive(requests).await.unwrap();
        let mut answers = answers.into_inner();
        for id in ids {
            let answer = answers.message().await.unwrap().unwrap();
            assert_eq!((answer.id, answer.ttl), (id, if id == 1 { 60 } else { 0 }));
        }
    });
}

/// A reply of a server has some thousands of them, and the others were left out.
#[test]
fn all_of_fifty_thousand_keys_that_hang_on_a_lease_are_named() {
    with_gateway(3, |clients, _gateway| async move {
        clients.grant(7, 3600).await.unwrap();
        let names: Vec<String> = (0..50_000).map(|number| format!("{number:0100}")).collect();
        for some in names.chunks(100) {
            let puts = some.iter().map(|key| {
                let put = PutRequest { lease: 7, ..put(key, "v") };
                RequestOp { request: Some(Request::RequestPut(put)) }
            });
            let txn = TxnRequest { success: puts.collect(), ..TxnRequest::default() };
            clients.kv().txn(txn).await.unwrap();
        }
        let found = clients.time_to_live(7).await.keys;
        assert!(found.len() == names.len(), "{} keys are named", found.len());
        assert!(found.iter().zip(&names).all(|(found, name)| found == name));
        let found = clients.own().get_lease(GetLeaseRequest { lease: 7 }).await.unwrap();
        assert!(found.into_inner().keys.iter().eq(names.iter()));
    });
}
