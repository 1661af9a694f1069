//! raftd's own services: the same house by another door.

use super::harness::{Cluster, PATIENCE};
use super::patience::eventually;
use super::program::{Gateway, block_on, prefix_end, refused, with_gateway};
use raftd::gateway::proto::raftd::admin_client::AdminClient;
use raftd::gateway::proto::raftd::compare::{Operand, Relation};
use raftd::gateway::proto::raftd::event::Kind;
use raftd::gateway::proto::raftd::get_request::Consistency;
use raftd::gateway::proto::raftd::operation::Operation as Op;
use raftd::gateway::proto::raftd::result::Result as Of;
use raftd::gateway::proto::raftd::{
    AddServerRequest, BatchRequest, Compare, DeleteRequest, GetLeaseRequest, GetRequest,
    GrantLeaseRequest, KeepLeaseAliveRequest, ListLeasesRequest, Operation, PutRequest,
    RemoveServerRequest, RevokeLeaseRequest, StatusRequest, TransferLeadershipRequest, TxnRequest,
    WatchRequest, WatchResponse,
};
use std::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

fn put(key: &str, value: &str) -> PutRequest {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    PutRequest { key, value, ..PutRequest::default() }
}

fn get(key: &str) -> GetRequest {
    GetRequest { key: key.to_owned().into(), ..GetRequest::default() }
}

fn delete(key: &str) -> DeleteRequest {
    DeleteRequest { key: key.to_owned().into(), ..DeleteRequest::default() }
}

fn op(operation: Op) -> Operation {
    Operation { operation: Some(operation) }
}

#[test]
fn keys_are_put_read_and_deleted() {
    with_gateway(3, |clients, _gateway| async move {
        let mut kv = clients.own();
        assert_eq!(kv.put(put("k/a", "1")).await.unwrap().into_inner().revision, 2);
        kv.put(put("k/b", "2")).await.unwrap();
        let again = kv.put(PutRequest { prev_kv: true, ..put("k/a", "3") }).await.unwrap();
        assert_eq!(&again.into_inner().prev_kv.unwrap().value[..], b"1");
        let all = GetRequest { range_end: prefix_end("k/"), ..get("k/") };
        for consistency in
            [Consistency::Linearizable, Consistency::Lease, Consistency::Serializable]
        {
            let all = GetRequest { consistency: i32::from(consistency), ..all.clone() };
            // The node beside us may be behind.
            let found = loop {
                let found = kv.get(all.clone()).await.unwrap().into_inner();
                if found.revision == 4 || consistency != Consistency::Serializable {
                    break found;
                }
            };
            let shown = found.kvs.iter().map(|kv| (&kv.key[..], &kv.value[..], kv.version));
            let shown: Vec<_> = shown.collect();
            assert_eq!(shown, [(&b"k/a"[..], &b"3"[..], 2), (b"k/b", b"2", 1)]);
            assert_eq!((found.count, found.more, found.revision), (2, false, 4));
        }
        let last = GetRequest { limit: 1, descending: true, keys_only: true, ..all.clone() };
        let last = kv.get(last).await.unwrap().into_inner();
        assert_eq!((&last.kvs[0].key[..], last.more, last.count), (&b"k/b"[..], true, 2));
        assert!(last.kvs[0].value.is_empty());
        let then = kv.get(GetRequest { revision: 2, ..get("k/a") }).await.unwrap().into_inner();
        assert_eq!(&then.kvs[0].value[..], b"1");
        let all = DeleteRequest { range_end: prefix_end("k/"), prev_kv: true, ..delete("k/") };
        let gone = kv.delete(all).await.unwrap().into_inner();
        assert_eq!((gone.revision, gone.deleted, gone.prev_kvs.len()), (5, 2, 2));
        let none = kv.put(put("", "1")).await;
        refused(none, Code::InvalidArgument, "etcdserver: key is not provided");
        let odd = kv.get(GetRequest { consistency: 7, ..get("a") }).await;
        refused(odd, Code::InvalidArgument, "raftd: there is no such consistency");
    });
}

#[test]
fn a_batch_is_done_whole_and_a_transaction_by_its_compares() {
    with_gateway(3, |clients, _gateway| async move {
        let mut kv = clients.own();
        let operations =
            vec![op(Op::Put(put("a", "1"))), op(Op::Put(put("b", "2"))), op(Op::Get(get("a")))];
        let done = kv.batch(BatchRequest { operations }).await.unwrap().into_inner();
        assert_eq!((done.revision, done.results.len()), (2, 3));
        let Some(Of::Get(found)) = &done.results[2].result else { panic!("{done:?}") };
        assert_eq!((&found.kvs[0].value[..], found.kvs[0].create_revision), (&b"1"[..], 2));
        let twice = vec![op(Op::Put(put("c", "1"))), op(Op::Put(put("c", "2")))];
        let twice = kv.batch(BatchRequest { operations: twice }).await;
        let text = "etcdserver: duplicate key given in txn request";
        refused(twice, Code::InvalidArgument, text);
        assert!(kv.get(get("c")).await.unwrap().into_inner().kvs.is_empty(), "nothing of it");
        let compare = |relation, operand| Compare {
            key: "a".to_owned().into(),
            relation: i32::from(relation),
            operand: Some(operand),
            ..Compare::default()
        };
        let swap = TxnRequest {
            compares: vec![
                compare(Relation::Equal, Operand::ModRevision(2)),
                compare(Relation::Less, Operand::Version(u64::MAX)),
                compare(Relation::Greater, Operand::Value("0".to_owned().into())),
                compare(Relation::NotEqual, Operand::Lease(7)),
            ],
            success: vec![op(Op::Put(put("a", "9"))), op(Op::Delete(delete("b")))],
            failure: vec![op(Op::Txn(TxnRequest {
                success: vec![op(Op::Get(get("a")))],
                ..TxnRequest::default()
            }))],
        };
        let done = kv.txn(swap.clone()).await.unwrap().into_inner();
        assert_eq!((done.succeeded, done.revision), (true, 3));
        let Some(Of::Delete(gone)) = &done.results[1].result else { panic!("{done:?}") };
        assert_eq!((gone.deleted, gone.revision), (1, 3));
        let done = kv.txn(swap).await.unwrap().into_inner();
        assert!(!done.succeeded);
        let Some(Of::Txn(inside)) = &done.results[0].result else { panic!("{done:?}") };
        let Some(Of::Get(found)) = &inside.results[0].result else { panic!("{done:?}") };
        assert_eq!(&found.kvs[0].value[..], b"9");
        let empty = BatchRequest { operations: vec![Operation { operation: None }] };
        refused(kv.batch(empty).await, Code::InvalidArgument, "raftd: an operation is empty");
        let nothing = TxnRequest { compares: vec![Compare::default()], ..TxnRequest::default() };
        let text = "raftd: a compare does not say with what";
        refused(kv.txn(nothing).await, Code::InvalidArgument, text);
    });
}

async fn next(heard: &mut Streaming<WatchResponse>) -> WatchResponse {
    let next = tokio::time::timeout(PATIENCE, heard.message()).await;
    next.expect("something is heard").unwrap().expect("the stream goes on")
}

#[test]
fn a_watch_hears_from_its_revision_on() {
    with_gateway(1, |clients, _gateway| async move {
        let mut kv = clients.own();
        kv.put(put("w/a", "1")).await.unwrap();
        kv.put(put("w/b", "2")).await.unwrap();
        let from = |start_revision| WatchRequest {
            key: "w/".to_owned().into(),
            range_end: prefix_end("w/"),
            start_revision,
            prev_kv: true,
            ..WatchRequest::default()
        };
        let mut heard = kv.watch(from(3)).await.unwrap().into_inner();
        assert!(next(&mut heard).await.events.is_empty(), "it is open");
        let first = next(&mut heard).await;
        assert_eq!((first.events.len(), first.events[0].kv.as_ref().unwrap().mod_revision), (1, 3));
        kv.delete(delete("w/a")).await.unwrap();
        let second = next(&mut heard).await;
        let event = &second.events[0];
        assert_eq!((event.kind(), second.revision), (Kind::Delete, 4));
        assert_eq!(&event.prev_kv.as_ref().unwrap().value[..], b"1");
        let compact = raftd::gateway::proto::etcdserverpb::CompactionRequest {
            revision: 3,
            ..Default::default()
        };
        clients.kv().compact(compact).await.unwrap();
        let mut late = kv.watch(from(2)).await.unwrap().into_inner();
        let why = loop {
            match tokio::time::timeout(PATIENCE, late.message()).await.expect("it ends") {
                Ok(Some(open)) => assert!(open.events.is_empty()),
                Ok(None) => panic!("it says why"),
                Err(why) => break why,
            }
        };
        let text = "etcdserver: mvcc: required revision has been compacted: watch from 3 on";
        assert_eq!((why.code(), why.message()), (Code::OutOfRange, text));
        let empty = WatchRequest { key: "b".into(), range_end: "a".into(), ..from(0) };
        let why = kv.watch(empty).await.unwrap().into_inner().message().await.unwrap_err();
        assert_eq!(why.code(), Code::InvalidArgument);
    });
}

#[test]
fn leases_hold_keys() {
    with_gateway(1, |clients, _gateway| async move {
        let mut kv = clients.own();
        let granted = kv.grant_lease(GrantLeaseRequest { ttl: 60, lease: 0 }).await.unwrap();
        let lease = granted.into_inner().lease;
        kv.put(PutRequest { lease, ..put("a", "1") }).await.unwrap();
        let kept = kv.keep_lease_alive(KeepLeaseAliveRequest { lease }).await.unwrap();
        assert_eq!(kept.into_inner().ttl, 60);
        let found = kv.get_lease(GetLeaseRequest { lease }).await.unwrap().into_inner();
        assert_eq!((found.granted_ttl, &found.keys[0][..]), (60, &b"a"[..]));
        let all = kv.list_leases(ListLeasesRequest {}).await.unwrap().into_inner();
        assert_eq!(all.leases, [lease]);
        kv.revoke_lease(RevokeLeaseRequest { lease }).await.unwrap();
        assert!(kv.get(get("a")).await.unwrap().into_inner().kvs.is_empty());
        let text = "etcdserver: requested lease not found";
        refused(kv.get_lease(GetLeaseRequest { lease }).await, Code::NotFound, text);
        refused(kv.keep_lease_alive(KeepLeaseAliveRequest { lease }).await, Code::NotFound, text);
    });
}

#[test]
fn servers_come_and_go_and_the_leadership_changes_hands() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let gateway = Gateway::start(&cluster);
    let joiner = cluster.start_joiner();
    let address = cluster.server(joiner).listen().to_owned();
    eventually("the joiner listens", PATIENCE, || TcpStream::connect(&address).ok());
    block_on(async {
        let mut admin = gateway.clients().await.admin();
        let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
        assert_eq!((status.leader, status.servers.len()), (leader, 3));
        assert!(status.term > 0 && status.applied_index <= status.commit_index);
        assert!(status.servers.iter().all(|server| server.role == "voter"));
        let add = AddServerRequest { address: address.clone(), learner: true };
        let added = admin.add_server(add).await.unwrap().into_inner();
        assert_eq!((added.id, added.servers.len()), (joiner, 4));
        let odd = AddServerRequest { address: "nonsense".to_owned(), learner: true };
        let text = "etcdserver: given member URLs are invalid";
        refused(admin.add_server(odd).await, Code::InvalidArgument, text);
        let gone = admin.remove_server(RemoveServerRequest { id: joiner }).await.unwrap();
        assert_eq!(gone.into_inner().servers.len(), 3);
        let other = cluster.others(leader).into_iter().find(|id| *id != joiner).unwrap();
        assert_eq!(transfer(&mut admin, other).await, other);
        let anyone = 0;
        assert_ne!(transfer(&mut admin, anyone).await, other);
    });
}

/// Who leads once it is done: on a busy machine a target may not take over in time.
async fn transfer(admin: &mut AdminClient<Channel>, id: u64) -> u64 {
    let deadline = raftd::client::Deadline::after(PATIENCE);
    loop {
        match admin.transfer_leadership(TransferLeadershipRequest { id }).await {
            Ok(done) => return done.into_inner().leader,
            Err(why) => assert!(!deadline.has_passed(), "{why}"),
        }
    }
}
