//! Members, status, hashes, snapshots, health.

use super::harness::{Cluster, PATIENCE};
use super::patience::eventually;
use super::program::{Gateway, block_on, refused, with_gateway};
use raftd::gateway::proto::etcdserverpb::{
    AlarmRequest, DefragmentRequest, HashKvRequest, HashRequest, MemberAddRequest,
    MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, MoveLeaderRequest,
    SnapshotRequest, StatusRequest,
};
use raftd::gateway::proto::health::HealthCheckRequest;
use raftd::gateway::proto::health::health_check_response::ServingStatus;
use sha2::{Digest, Sha256};
use std::net::TcpStream;
use std::process::Command;
use tonic::Code;

/// `member list` showed an address of all machines, and nobody said that it leads nowhere.
#[test]
fn a_gateway_whose_clients_cannot_know_where_it_is_says_so() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let mut gateway = Gateway::start_with(&cluster, &["--advertise", "http://0.0.0.0:2379"]);
    let said = "members are shown at an address of no machine, name one with --advertise \
                url=http://0.0.0.0:2379";
    let is_said = || gateway.log_text().contains(said).then_some(());
    eventually("it says so", PATIENCE, is_said);
    gateway.signal("TERM");
    assert_eq!(gateway.wait_for_end(), Some(0));
    assert_eq!(Gateway::start_with(&cluster, &["--advertise=http://"]).wait_for_end(), Some(2));
}

#[test]
fn members_come_and_go() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let gateway = Gateway::start_with(&cluster, &["--advertise", "http://gateway:2379"]);
    let joiner = cluster.start_joiner();
    let address = cluster.server(joiner).listen().to_owned();
    // It is asked who it is once, without patience.
    eventually("the joiner listens", PATIENCE, || TcpStream::connect(&address).ok());
    block_on(async {
        let clients = gateway.clients().await;
        let list = MemberListRequest { linearizable: true };
        let listed = clients.cluster().member_list(list).await.unwrap().into_inner();
        assert_eq!(listed.header.unwrap().revision, 0);
        let ids: Vec<u64> = listed.members.iter().map(|it| it.id).collect();
        assert_eq!(ids, [1, 2, 3]);
        let first = &listed.members[0];
        assert_eq!(first.client_urls, ["http://gateway:2379"]);
        assert_eq!(first.peer_urls, [format!("http://{}", cluster.servers[0].listen())]);
        let add =
            |url: &str| MemberAddRequest { peer_urls: vec![url.to_owned()], is_learner: true };
        let known = clients.cluster().member_add(add(&first.peer_urls[0])).await;
        let text = "etcdserver: Peer URLs already exists";
        refused(known, Code::FailedPrecondition, text);
        let odd = clients.cluster().member_add(add("nonsense")).await;
        refused(odd, Code::InvalidArgument, "etcdserver: given member URLs are invalid");
        let added = clients.cluster().member_add(add(&format!("http://{address}"))).await;
        let added = added.unwrap().into_inner();
        let member = added.member.unwrap();
        assert_eq!((member.id, member.is_learner, added.members.len()), (joiner, true, 4));
        let text = "etcdserver: can only promote a learner member";
        let voter = clients.cluster().member_promote(MemberPromoteRequest { id: 1 }).await;
        refused(voter, Code::FailedPrecondition, text);
        let deadline = raftd::client::Deadline::after(PATIENCE);
        loop {
            let promote = MemberPromoteRequest { id: joiner };
            match clients.cluster().member_promote(promote).await {
                Ok(promoted) => {
                    let members = promoted.into_inner().members;
                    assert!(members.iter().all(|member| !member.is_learner), "{members:?}");
                    break;
                }
                Err(why) => {
                    let text = "etcdserver: can only promote a learner member which is in sync \
                                with leader";
                    assert_eq!((why.code(), why.message()), (Code::FailedPrecondition, text));
                    assert!(!deadline.has_passed(), "it catches up");
                }
            }
        }
        let gone = clients.cluster().member_remove(MemberRemoveRequest { id: joiner }).await;
        assert_eq!(gone.unwrap().into_inner().members.len(), 3);
        let gone = clients.cluster().member_remove(MemberRemoveRequest { id: joiner }).await;
        refused(gone, Code::NotFound, "etcdserver: member not found");
    });
}

#[test]
fn the_state_of_the_cluster_is_told() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let gateway = Gateway::start(&cluster);
    block_on(async {
        let clients = gateway.clients().await;
        let revision = clients.put_key("a", "1").await;
        let maintenance = || clients.maintenance();
        let status = maintenance().status(StatusRequest {}).await.unwrap().into_inner();
        assert_eq!((status.version.as_str(), status.leader), ("3.5.13", leader));
        let shown = status.header.unwrap().member_id;
        assert_eq!(shown, leader, "etcdctl looks for the leader among its endpoints");
        assert!(status.errors.is_empty() && status.db_size > 0 && status.raft_term > 0);
        assert!(status.raft_applied_index <= status.raft_index);
        let alarms = maintenance().alarm(AlarmRequest::default()).await.unwrap();
        assert!(alarms.into_inner().alarms.is_empty());
        let done = maintenance().defragment(DefragmentRequest {}).await.unwrap();
        assert_eq!(done.into_inner().header, None);
        maintenance().hash(HashRequest {}).await.unwrap();
        let hash = |revision| {
            let mut maintenance = maintenance();
            async move {
                let hashed = maintenance.hash_kv(HashKvRequest { revision }).await;
                hashed.map(tonic::Response::into_inner)
            }
        };
        let before = hash(0).await.unwrap();
        assert!(before.hash_revision <= revision);
        clients.put_key("a", "2").await;
        assert_eq!(hash(revision).await.unwrap().hash, hash(revision).await.unwrap().hash);
        assert_ne!(hash(revision + 1).await.unwrap().hash, hash(revision).await.unwrap().hash);
        // What takes several replies counts to the last of them.
        for key in ["b", "c", "d"] {
            clients.put_key(key, &"v".repeat(60_000)).await;
        }
        let last = clients.put_key("d", &"w".repeat(60_000)).await;
        assert_ne!(hash(last).await.unwrap().hash, hash(last - 1).await.unwrap().hash);
        let text = "etcdserver: mvcc: required revision is a future revision";
        refused(hash(100).await, Code::OutOfRange, text);
        let other = cluster.others(leader)[0];
        let to = |target_id| {
            let mut maintenance = maintenance();
            async move { maintenance.move_leader(MoveLeaderRequest { target_id }).await }
        };
        refused(to(99).await, Code::FailedPrecondition, "etcdserver: bad leader transferee");
        let deadline = raftd::client::Deadline::after(PATIENCE);
        let moved = loop {
            match to(other).await {
                Ok(moved) => break moved.into_inner(),
                // On a busy machine it may not take over in time.
                Err(why) => assert!(!deadline.has_passed(), "{why}"),
            }
        };
        assert_eq!(moved.header, None);
        let named = HealthCheckRequest { service: "etcdserverpb.KV".to_owned() };
        refused(clients.health().check(named).await, Code::NotFound, "unknown service");
    });
    assert_ne!(cluster.leader(), leader);
}

#[test]
fn health_is_watched_and_of_a_service_that_is_not_there_that_is_said() {
    with_gateway(1, |clients, _gateway| async move {
        let watch = |service: &str| {
            let request = HealthCheckRequest { service: service.to_owned() };
            let mut health = clients.health();
            async move { health.watch(request).await.unwrap().into_inner() }
        };
        let mut all = watch("").await;
        assert_eq!(all.message().await.unwrap().unwrap().status, i32::from(ServingStatus::Serving));
        let mut named = watch("etcdserverpb.KV").await;
        let unknown = i32::from(ServingStatus::ServiceUnknown);
        assert_eq!(named.message().await.unwrap().unwrap().status, unknown);
    });
}

#[test]
fn a_snapshot_has_the_form_that_etcds_clients_want() {
    with_gateway(3, |clients, _gateway| async move {
        for number in 0..50 {
            clients.put_key(&format!("k/{number}"), &"v".repeat(10_000)).await;
        }
        let mut pieces =
            clients.maintenance().snapshot(SnapshotRequest {}).await.unwrap().into_inner();
        let mut file = Vec::new();
        let mut left = u64::MAX;
        while let Some(piece) = pieces.message().await.unwrap() {
            assert!(piece.remaining_bytes <= left && piece.header.is_none());
            left = piece.remaining_bytes;
            file.extend_from_slice(&piece.blob);
        }
        assert_eq!(left, 0);
        assert_eq!(file.len() % 512, 32);
        assert!(file.len() > 500_000, "it has all values");
        let (content, hash) = file.split_at(file.len() - 32);
        assert_eq!(Sha256::digest(content)[..], *hash);
        // What follows raftd's own end is in the way of nobody.
        let folder = tempfile::tempdir().unwrap();
        let saved = folder.path().join("saved");
        std::fs::write(&saved, &file).unwrap();
        let verify = Command::new(env!("CARGO_BIN_EXE_raftctl"))
            .args(["snapshot", "verify"])
            .arg(&saved)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&verify.stdout).into_owned();
        assert!(verify.status.success() && said.contains(" keys=50 "), "{verify:?}");
    });
}
