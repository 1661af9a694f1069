//! Locks and elections.

use super::harness::{Cluster, PATIENCE};
use super::program::{Clients, Gateway, block_on, get, get_prefix, put, refused, with_gateway};
use bytes::Bytes;
use raftd::gateway::proto::etcdserverpb::request_op::Request;
use raftd::gateway::proto::etcdserverpb::{
    DeleteRangeRequest, LeaseRevokeRequest, PutRequest, RequestOp, TxnRequest,
};
use raftd::gateway::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ResignRequest,
};
use raftd::gateway::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use std::time::Duration;
use tokio::task::JoinHandle;
use tonic::{Code, Status, Streaming};

const EXPIRED: &str = "mutex: session is expired";
const NO_LEASE: &str = "etcdserver: requested lease not found";

impl Clients {
    pub(crate) async fn lock(&self, name: &str, lease: i64) -> Result<LockResponse, Status> {
        let request = LockRequest { name: name.to_owned().into(), lease };
        self.locks().lock(request).await.map(tonic::Response::into_inner)
    }

    fn begin_lock(
        &self,
        name: &'static str,
        lease: i64,
    ) -> JoinHandle<Result<LockResponse, Status>> {
        let clients = self.clone();
        tokio::spawn(async move { clients.lock(name, lease).await })
    }

    async fn unlock(&self, key: Bytes) {
        self.locks().unlock(UnlockRequest { key }).await.unwrap();
    }

    async fn campaign(&self, lease: i64, value: &str) -> Result<CampaignResponse, Status> {
        let value = value.to_owned().into();
        let request = CampaignRequest { name: "e".into(), lease, value };
        self.elections().campaign(request).await.map(tonic::Response::into_inner)
    }

    async fn proclaim(&self, leader: &LeaderKey, value: &str) -> Result<i64, Status> {
        let leader = Some(leader.clone());
        let request = ProclaimRequest { leader, value: value.to_owned().into() };
        let done = self.elections().proclaim(request).await?;
        Ok(done.into_inner().header.unwrap().revision)
    }

    async fn leader(&self) -> Result<LeaderResponse, Status> {
        let asked = self.elections().leader(LeaderRequest { name: "e".into() }).await;
        asked.map(tonic::Response::into_inner)
    }

    /// Waits until a key is there, or not there any more.
    async fn wait_until(&self, key: &str, there: bool) {
        let deadline = raftd::client::Deadline::after(PATIENCE);
        while (self.range(get(key)).await.unwrap().count > 0) != there {
            assert!(!deadline.has_passed(), "{key} is there: {there}");
        }
    }
}

/// What a waiting call answers.
async fn answer<T>(call: JoinHandle<T>) -> T {
    tokio::time::timeout(PATIENCE, call).await.expect("it is answered").unwrap()
}

/// Whether a call has no answer for a while. A later one is not noticed.
async fn waits<T>(call: &mut JoinHandle<T>) -> bool {
    tokio::time::timeout(Duration::from_millis(200), call).await.is_err()
}

#[test]
fn a_lock_is_held_by_one_at_a_time_in_the_order_of_asking() {
    with_gateway(3, |clients, _gateway| async move {
        for lease in [1, 0x2f, 3] {
            clients.grant(lease, 60).await.unwrap();
        }
        let first = clients.lock("l", 1).await.unwrap();
        assert_eq!((&first.key[..], first.header.unwrap().revision), (&b"l/1"[..], 2));
        let second = clients.begin_lock("l", 0x2f);
        clients.wait_until("l/2f", true).await;
        let mut third = clients.begin_lock("l", 3);
        clients.wait_until("l/3", true).await;
        // Another name is another lock.
        assert_eq!(&clients.lock("m", 3).await.unwrap().key[..], b"m/3");
        clients.unlock(first.key).await;
        let second = answer(second).await.unwrap();
        assert_eq!(&second.key[..], b"l/2f");
        assert!(second.header.unwrap().revision > 4);
        assert!(waits(&mut third).await, "the second has it");
        // Whose lease ends holds nothing.
        clients.lease().lease_revoke(LeaseRevokeRequest { id: 0x2f }).await.unwrap();
        assert_eq!(&answer(third).await.unwrap().key[..], b"l/3");
    });
}

#[test]
fn a_lock_by_no_lease_has_one_of_a_minute_and_a_wrong_one_has_none() {
    with_gateway(1, |clients, _gateway| async move {
        let key = clients.lock("l", 0).await.unwrap().key;
        let kv = clients.range(get_prefix("l/")).await.unwrap().kvs.remove(0);
        assert_eq!((&kv.key, kv.value.len()), (&key, 0));
        assert_eq!(String::from_utf8(key.to_vec()).unwrap(), format!("l/{:x}", kv.lease));
        assert_eq!(clients.time_to_live(kv.lease).await.granted_ttl, 60);
        refused(clients.lock("l", 99).await, Code::Unknown, NO_LEASE);
        let none = clients.locks().unlock(UnlockRequest::default()).await;
        refused(none, Code::Unknown, "etcdserver: key is not provided");
        // What is not there is unlocked.
        clients.unlock("l/99".into()).await;
    });
}

#[test]
fn who_leaves_the_queue_stands_in_nobodys_way() {
    with_gateway(3, |clients, _gateway| async move {
        for lease in 1..=3 {
            clients.grant(lease, 60).await.unwrap();
        }
        let first = clients.lock("l", 1).await.unwrap();
        let second = clients.begin_lock("l", 2);
        clients.wait_until("l/2", true).await;
        let third = clients.begin_lock("l", 3);
        clients.wait_until("l/3", true).await;
        second.abort();
        clients.wait_until("l/2", false).await;
        clients.unlock(first.key).await;
        assert_eq!(&answer(third).await.unwrap().key[..], b"l/3");
    });
}

/// The call that was left deleted the key, and the later one believed that it had the lock: so it
/// is in etcd.
#[test]
fn a_call_that_is_left_takes_nothing_from_a_later_one_by_the_same_lease() {
    with_gateway(3, |clients, _gateway| async move {
        for lease in [1, 2] {
            clients.grant(lease, 60).await.unwrap();
        }
        for round in 0..20 {
            let held = clients.lock("l", 1).await.unwrap();
            let left = clients.begin_lock("l", 2);
            clients.wait_until("l/2", true).await;
            left.abort();
            let later = clients.begin_lock("l", 2);
            clients.unlock(held.key).await;
            let key = answer(later).await.unwrap().key;
            // Whatever the call that was left still does is done by now, or soon.
            let again = clients.begin_lock("l", 1);
            clients.wait_until("l/1", true).await;
            assert_eq!(clients.range(get("l/2")).await.unwrap().count, 1, "round {round}");
            clients.unlock(key).await;
            let key = answer(again).await.unwrap().key;
            clients.unlock(key).await;
        }
    });
}

#[test]
fn who_has_lost_its_key_hears_so_when_its_turn_comes() {
    with_gateway(1, |clients, _gateway| async move {
        for lease in [1, 2] {
            clients.grant(lease, 60).await.unwrap();
        }
        let first = clients.lock("l", 1).await.unwrap();
        let second = clients.begin_lock("l", 2);
        clients.wait_until("l/2", true).await;
        let key = "l/2".into();
        clients.delete(DeleteRangeRequest { key, ..Default::default() }).await.unwrap();
        clients.unlock(first.key).await;
        refused(answer(second).await, Code::Unknown, EXPIRED);
        assert_eq!(clients.range(get_prefix("l/")).await.unwrap().count, 0);
    });
}

/// etcd's own client keeps the queue by itself, with the same keys.
#[test]
fn clients_that_keep_the_queue_themselves_stand_in_the_same_one() {
    with_gateway(1, |clients, _gateway| async move {
        clients.grant(1, 60).await.unwrap();
        clients.put(PutRequest { lease: 1, ..put("l/abc", "") }).await.unwrap();
        clients.grant(2, 60).await.unwrap();
        let mut ours = clients.begin_lock("l", 2);
        clients.wait_until("l/2", true).await;
        assert!(waits(&mut ours).await);
        let key = "l/abc".into();
        clients.delete(DeleteRangeRequest { key, ..Default::default() }).await.unwrap();
        assert_eq!(&answer(ours).await.unwrap().key[..], b"l/2");
    });
}

/// A client that created several keys by one transaction, and then waited by one of them, heard
/// that its session was over, and its key was deleted: another one was taken for its own.
#[test]
fn keys_that_were_created_at_once_are_not_before_each_other() {
    with_gateway(1, |clients, _gateway| async move {
        clients.grant(1, 60).await.unwrap();
        let puts = ["l/0", "l/1", "l/2"].map(|key| {
            let request = Some(Request::RequestPut(PutRequest { lease: 1, ..put(key, "") }));
            RequestOp { request }
        });
        let txn = TxnRequest { success: puts.into(), ..TxnRequest::default() };
        clients.kv().txn(txn).await.unwrap();
        let locked = clients.begin_lock("l", 1);
        assert_eq!(&answer(locked).await.unwrap().key[..], b"l/1");
        assert_eq!(clients.range(get_prefix("l/")).await.unwrap().count, 3);
        // Whoever comes later waits for all of them.
        clients.grant(3, 60).await.unwrap();
        let mut later = clients.begin_lock("l", 3);
        clients.wait_until("l/3", true).await;
        for key in ["l/1", "l/2"] {
            clients.unlock(key.into()).await;
            assert!(waits(&mut later).await);
        }
        clients.unlock("l/0".into()).await;
        assert_eq!(&answer(later).await.unwrap().key[..], b"l/3");
    });
}

#[test]
fn the_queue_outlives_the_leader_of_the_cluster() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let gateway = Gateway::start(&cluster);
    block_on(async {
        let clients = gateway.clients().await;
        for lease in [1, 2] {
            clients.grant(lease, 600).await.unwrap();
        }
        let first = clients.lock("l", 1).await.unwrap();
        let mut second = clients.begin_lock("l", 2);
        clients.wait_until("l/2", true).await;
        cluster.server(leader).kill();
        clients.put_key("a", "1").await;
        assert!(waits(&mut second).await);
        clients.unlock(first.key).await;
        assert_eq!(&answer(second).await.unwrap().key[..], b"l/2");
    });
}

fn shown(seen: &LeaderResponse) -> String {
    let kv = seen.kv.as_ref().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}={} @{}", text(&kv.key), text(&kv.value), kv.mod_revision)
}

async fn next(seen: &mut Streaming<LeaderResponse>) -> String {
    let next = tokio::time::timeout(PATIENCE, seen.message()).await;
    shown(&next.expect("something is seen").unwrap().expect("the stream goes on"))
}

#[test]
fn one_leads_until_it_resigns_and_all_that_it_says_is_observed() {
    with_gateway(3, |clients, _gateway| async move {
        for lease in [1, 2] {
            clients.grant(lease, 60).await.unwrap();
        }
        refused(clients.leader().await, Code::Unknown, "election: no leader");
        let observe = LeaderRequest { name: "e".into() };
        let mut seen = clients.elections().observe(observe.clone()).await.unwrap().into_inner();
        let won = clients.campaign(1, "one").await.unwrap();
        let leader = won.leader.unwrap();
        assert_eq!((&leader.name[..], &leader.key[..]), (&b"e"[..], &b"e/1"[..]));
        assert_eq!((leader.rev, leader.lease, won.header.unwrap().revision), (2, 1, 2));
        assert_eq!(next(&mut seen).await, "e/1=one @2");
        assert_eq!(clients.proclaim(&leader, "ONE").await.unwrap(), 3);
        assert_eq!(next(&mut seen).await, "e/1=ONE @3");
        assert_eq!(shown(&clients.leader().await.unwrap()), "e/1=ONE @3");
        let waiting = clients.clone();
        let mut second = tokio::spawn(async move { waiting.campaign(2, "two").await });
        clients.wait_until("e/2", true).await;
        assert!(waits(&mut second).await, "the first leads");
        // Who comes later sees who leads, and not who waits.
        let mut late = clients.elections().observe(observe).await.unwrap().into_inner();
        assert_eq!(next(&mut late).await, "e/1=ONE @3");
        let resign = |leader: &LeaderKey| ResignRequest { leader: Some(leader.clone()) };
        clients.elections().resign(resign(&leader)).await.unwrap();
        let second = answer(second).await.unwrap();
        // It shows when the place was taken.
        assert_eq!((second.leader.unwrap().rev, second.header.unwrap().revision), (4, 4));
        for seen in [&mut seen, &mut late] {
            assert_eq!(next(seen).await, "e/2=two @4");
        }
        let text = "election: not leader";
        refused(clients.proclaim(&leader, "gone").await, Code::Unknown, text);
        // Whoever does not lead any more resigns in vain.
        clients.elections().resign(resign(&leader)).await.unwrap();
        assert_eq!(shown(&clients.leader().await.unwrap()), "e/2=two @4");
    });
}

#[test]
fn what_is_wrong_with_an_election_is_said_in_etcds_words() {
    with_gateway(1, |clients, _gateway| async move {
        refused(clients.campaign(99, "v").await, Code::Unknown, NO_LEASE);
        let text = "\"leader\" field must be provided";
        let nobody = clients.elections().proclaim(ProclaimRequest::default()).await;
        refused(nobody, Code::Unknown, text);
        let nobody = clients.elections().resign(ResignRequest::default()).await;
        refused(nobody, Code::Unknown, text);
        let nameless = clients.proclaim(&LeaderKey::default(), "v").await;
        refused(nameless, Code::Unknown, "etcdserver: key is not provided");
        clients.grant(1, 60).await.unwrap();
        let leader = clients.campaign(1, "v").await.unwrap().leader.unwrap();
        // Who campaigns again leads already, and says something else.
        let again = clients.campaign(1, "w").await.unwrap().leader.unwrap();
        assert_eq!(again, leader);
        assert_eq!(shown(&clients.leader().await.unwrap()), "e/1=w @3");
    });
}
