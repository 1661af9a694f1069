//! Users, roles and rights by etcd's API: who is refused what, in which words, and what a gateway
//! needs to act for others.

use super::harness::{Cluster, PATIENCE};
use super::program::{
    Clients, Gateway, block_on, get, get_prefix, line, prefix_end, put, refused, with_gateway,
};
use super::users::{Verb, by};
use super::watch::Watches;
use super::web::{get as get_page, page};
use raftd::client::Deadline;
use raftd::gateway::proto::authpb::permission::Type;
use raftd::gateway::proto::etcdserverpb as pb;
use raftd::gateway::proto::etcdserverpb::request_op::Request as Of;
use raftd::gateway::proto::raftd as own;
use raftd::gateway::proto::v3lockpb::LockRequest;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use tonic::{Code, Status};

const NO_USER: (Code, &str) = (Code::InvalidArgument, "etcdserver: user name is empty");
const NO_LOGIN: (Code, &str) = (Code::Unauthenticated, "etcdserver: invalid auth token");
const DENIED: (Code, &str) = (Code::PermissionDenied, "etcdserver: permission denied");
const FAILED: (Code, &str) =
    (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password");

/// That something was refused so.
#[track_caller]
fn refused_so<T: std::fmt::Debug>(result: Result<T, Status>, (code, text): (Code, &str)) {
    refused(result, code, text);
}

/// A precondition that etcd finds missing.
const fn missing(text: &'static str) -> (Code, &'static str) {
    (Code::FailedPrecondition, text)
}

#[test]
fn what_cannot_be_done_to_users_and_roles_is_refused_in_etcds_words() {
    with_gateway(1, |clients, _gateway| async move {
        let ask = |verb| clients.auth_by(None, verb);
        let status = ask(Verb::Status).await.unwrap();
        assert!(status.contains("enabled: false, auth_revision: 1"), "{status}");
        let log_in = clients.log_in("root", "top").await;
        refused_so(log_in, missing("etcdserver: authentication is not enabled"));
        let no_root = missing("etcdserver: root user does not exist");
        refused_so(ask(Verb::Enable).await, no_root);
        ask(Verb::UserAdd("root", Some("top"))).await.unwrap();
        let no_role = missing("etcdserver: root user does not have root role");
        refused_so(ask(Verb::Enable).await, no_role);
        let empty = (Code::InvalidArgument, "etcdserver: role name is empty");
        let managed = (Code::InvalidArgument, "etcdserver: invalid auth management");
        let no_user = missing("etcdserver: user name not found");
        let unknown = missing("etcdserver: role name not found");
        for (verb, why) in [
            (Verb::UserAdd("", Some("x")), NO_USER),
            (Verb::UserAdd("root", None), missing("etcdserver: user name already exists")),
            (Verb::UserGet("nobody"), no_user),
            (Verb::UserDelete("nobody"), no_user),
            (Verb::UserChange("nobody", "x"), no_user),
            (Verb::UserGrant("nobody", "root"), no_user),
            (Verb::UserGrant("root", "nothing"), unknown),
            (
                Verb::UserRevoke("root", "root"),
                missing("etcdserver: role is not granted to the user"),
            ),
            (Verb::RoleAdd(""), empty),
            (Verb::RoleGet("nothing"), unknown),
            (Verb::RoleDelete("nothing"), unknown),
            (Verb::RoleGrant("nothing", Type::Read, "a", ""), unknown),
        ] {
            let heard = ask(verb).await.expect_err("it was done");
            assert_eq!((heard.code(), heard.message()), why, "{verb:?}");
        }
        ask(Verb::RoleAdd("app")).await.unwrap();
        refused_so(
            ask(Verb::RoleAdd("app")).await,
            missing("etcdserver: role name already exists"),
        );
        refused_so(ask(Verb::RoleGrant("app", Type::Read, "b", "a")).await, managed);
        let none = missing("etcdserver: permission is not granted to the role");
        refused_so(ask(Verb::RoleRevoke("app", "a", "")).await, none);
        let no_perm = pb::AuthRoleGrantPermissionRequest { name: "app".into(), perm: None };
        let no_perm = clients.auth().role_grant_permission(no_perm).await;
        refused(no_perm, Code::InvalidArgument, "etcdserver: permission not given");
        ask(Verb::UserGrant("root", "root")).await.unwrap();
        ask(Verb::Enable).await.unwrap();
        let root = clients.log_in("root", "top").await.unwrap();
        for verb in
            [Verb::UserDelete("root"), Verb::UserRevoke("root", "root"), Verb::RoleDelete("root")]
        {
            refused_so(clients.auth_by(Some(&root), verb).await, managed);
        }
    });
}

#[test]
fn a_user_may_do_what_its_roles_allow_and_nothing_else() {
    with_gateway(3, |clients, _gateway| async move {
        clients.guard().await;
        refused_so(clients.put_by(None, "a/1").await, NO_USER);
        refused_so(clients.range(get("a/1")).await, NO_USER);
        refused_so(clients.auth_by(None, Verb::Status).await, NO_USER);
        refused_so(clients.put_by(Some("17.00"), "a/1").await, NO_LOGIN);
        refused_so(clients.log_in("root", "wrong").await, FAILED);
        refused_so(clients.log_in("nobody", "top").await, FAILED);
        refused_so(clients.log_in("", "").await, FAILED);
        let root = clients.log_in("root", "top").await.unwrap();
        let alice = clients.log_in("alice", "secret").await.unwrap();
        let (root, alice) = (Some(&*root), Some(&*alice));
        clients.put_by(alice, "a/1").await.unwrap();
        refused_so(clients.put_by(alice, "b").await, DENIED);
        clients.put_by(root, "b").await.unwrap();
        let found = clients.kv().range(by(alice, get_prefix("a/"))).await.unwrap();
        assert_eq!(line(found.get_ref()), "a/1=v");
        let all = pb::RangeRequest { range_end: prefix_end("b"), ..get("a/") };
        refused_so(clients.kv().range(by(alice, all)).await, DENIED);
        let local = pb::RangeRequest { serializable: true, ..get("b") };
        refused_so(clients.kv().range(by(alice, local)).await, DENIED);
        refused_so(clients.txn_by(alice, &["a/2", "b"]).await, DENIED);
        clients.txn_by(alice, &["a/2", "a/3"]).await.unwrap();
        let compact = pb::CompactionRequest { revision: 2, physical: false };
        refused_so(clients.kv().compact(by(alice, compact)).await, DENIED);
        refused_so(clients.auth_by(alice, Verb::UserList).await, DENIED);
        refused_so(clients.auth_by(alice, Verb::UserAdd("eve", Some("x"))).await, DENIED);
        refused_so(clients.auth_by(alice, Verb::UserGet("root")).await, DENIED);
        let own = clients.auth_by(alice, Verb::UserGet("alice")).await.unwrap();
        assert!(own.contains(r#"roles: ["app"]"#), "{own}");
        let role = clients.auth_by(alice, Verb::RoleGet("app")).await.unwrap();
        assert!(role.contains(r#"key: b"a/", range_end: b"a0""#), "{role}");
        let users = clients.auth_by(root, Verb::UserList).await.unwrap();
        assert!(users.contains(r#"users: ["alice", "root"]"#), "{users}");
        // The other name under which a token may come.
        let mut asked = tonic::Request::new(put("a/4", "v"));
        asked.metadata_mut().insert("authorization", alice.unwrap().parse().unwrap());
        clients.kv().put(asked).await.unwrap();
        // Another password ends what was logged in by the one before.
        clients.auth_by(root, Verb::UserChange("alice", "other")).await.unwrap();
        refused_so(clients.put_by(alice, "a/1").await, NO_LOGIN);
        let again = clients.log_in("alice", "other").await.unwrap();
        clients.put_by(Some(&again), "a/1").await.unwrap();
        clients.auth_by(root, Verb::UserRevoke("alice", "app")).await.unwrap();
        refused_so(clients.put_by(Some(&again), "a/1").await, DENIED);
        // Where rights do not count, nobody asks whose a token is.
        clients.auth_by(root, Verb::Disable).await.unwrap();
        clients.put_by(None, "c").await.unwrap();
        clients.put_by(Some("nonsense"), "c").await.unwrap();
        clients.put_by(alice, "c").await.unwrap();
    });
}

impl Clients {
    async fn txn_by(&self, token: Option<&str>, keys: &[&str]) -> Result<(), Status> {
        let puts = keys.iter().map(|key| Of::RequestPut(put(key, "t")));
        let success = puts.map(|it| pb::RequestOp { request: Some(it) }).collect();
        let request = pb::TxnRequest { success, ..pb::TxnRequest::default() };
        self.kv().txn(by(token, request)).await.map(|_| ())
    }
}

fn of_prefix(prefix: &str) -> pb::WatchCreateRequest {
    let key = prefix.to_owned().into();
    pb::WatchCreateRequest { key, range_end: prefix_end(prefix), ..Default::default() }
}

const DENIED_IN_GO: &str =
    "rpc error: code = PermissionDenied desc = etcdserver: permission denied";

#[test]
fn a_watch_is_open_for_as_long_as_its_right_is_there() {
    with_gateway(3, |clients, _gateway| async move {
        clients.guard().await;
        let root = clients.log_in("root", "top").await.unwrap();
        let alice = clients.log_in("alice", "secret").await.unwrap();
        for (token, prefix, reason) in [
            (Some(&*alice), "b", DENIED_IN_GO),
            (None, "a/", "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"),
            (
                Some("17.00"),
                "a/",
                "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
            ),
        ] {
            let (_watches, said) = Watches::begin(&clients, token, of_prefix(prefix)).await;
            assert_eq!((said.watch_id, said.created, said.canceled), (-1, true, true), "{said:?}");
            assert_eq!(said.cancel_reason, reason);
        }
        // The largest number of all ended the gateway.
        let largest = pb::WatchCreateRequest { watch_id: i64::MAX, ..of_prefix("b") };
        let (_watches, said) = Watches::begin(&clients, Some(&alice), largest).await;
        assert_eq!((said.watch_id, said.canceled), (-1, true), "{said:?}");
        // One that is refused leaves its number to the next.
        let (mut watches, _) = Watches::begin(&clients, Some(&alice), of_prefix("b")).await;
        let said = watches.create(of_prefix("a/")).await;
        assert_eq!((said.watch_id, said.canceled), (0, false), "{said:?}");
        clients.put_by(Some(&root), "a/1").await.unwrap();
        assert_eq!(watches.next().await.events.len(), 1);
        clients.auth_by(Some(&root), Verb::UserRevoke("alice", "app")).await.unwrap();
        clients.put_by(Some(&root), "a/2").await.unwrap();
        let ended = watches.next().await;
        assert!(ended.canceled && !ended.created && ended.events.is_empty(), "{ended:?}");
        assert_eq!((ended.watch_id, &*ended.cancel_reason), (said.watch_id, DENIED_IN_GO));
    });
}

/// A gateway that is told its user.
fn start_as(cluster: &Cluster, user: &str, password: &str) -> Gateway {
    let file = cluster.folder().join(format!("{user}.password"));
    fs::write(&file, format!("{password}\n")).unwrap();
    let file = file.to_str().unwrap();
    Gateway::start_with(cluster, &["--user", user, "--password-file", file])
}

/// Enabling them is no reason to lose a watch that somebody may go on with: the node refuses it to
/// a gateway that it does not know, and that logs in and asks again.
#[test]
fn a_watch_outlives_that_rights_begin_to_count() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let gateway = start_as(&cluster, "root", "top");
    block_on(async {
        let clients = gateway.clients().await;
        clients.guard().await;
        let root = clients.log_in("root", "top").await.unwrap();
        let alice = clients.log_in("alice", "secret").await.unwrap();
        clients.auth_by(Some(&root), Verb::Disable).await.unwrap();
        let stranger = start_as(&cluster, "root", "top");
        let others = stranger.clients().await;
        let (mut watches, said) = Watches::begin(&others, Some(&alice), of_prefix("a/")).await;
        assert!(said.created && !said.canceled, "{said:?}");
        clients.auth_by(Some(&root), Verb::Enable).await.unwrap();
        clients.put_by(Some(&root), "a/1").await.unwrap();
        assert_eq!(watches.next().await.events.len(), 1);
    });
}

#[test]
fn gateways_of_one_user_take_each_others_tokens_also_after_a_restart() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let one = start_as(&cluster, "gateway", "long and random");
    let other = start_as(&cluster, "gateway", "long and random");
    block_on(async {
        let (first, second) = (one.clients().await, other.clients().await);
        first.auth_by(None, Verb::UserAdd("gateway", Some("long and random"))).await.unwrap();
        first.auth_by(None, Verb::UserGrant("gateway", "root")).await.unwrap();
        first.guard().await;
        let alice = first.log_in("alice", "secret").await.unwrap();
        second.put_by(Some(&alice), "a/1").await.unwrap();
        drop(one);
        let again = start_as(&cluster, "gateway", "long and random");
        let first = again.clients().await;
        first.put_by(Some(&alice), "a/2").await.unwrap();
        refused_so(first.put_by(Some(&alice), "b").await, DENIED);
        // Whoever leads next knows neither the gateway's connection nor its sessions.
        let leader = cluster.leader();
        cluster.server(leader).kill();
        let deadline = Deadline::after(PATIENCE);
        while let Err(why) = second.put_by(Some(&alice), "a/3").await {
            assert_eq!(why.code(), Code::Unavailable, "{why}");
            assert!(!deadline.has_passed(), "{why}");
        }
        refused_so(second.put_by(Some(&alice), "b").await, DENIED);
        let found = second.kv().range(by(Some(&alice), get_prefix("a/"))).await.unwrap();
        assert_eq!(line(found.get_ref()), "a/1=v a/2=v a/3=v");
    });
}

#[test]
fn a_gateway_without_a_user_waits_for_one_that_may_act_for_others() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    block_on(async {
        let before = {
            let gateway = Gateway::start(&cluster);
            let clients = gateway.clients().await;
            clients.guard().await;
            let alice = clients.log_in("alice", "secret").await;
            let text = "raftd: the gateway has no user to act for others by: start it with \
                        --user, or log in as a user with the role root once";
            refused(alice, Code::FailedPrecondition, text);
            clients.log_in("root", "top").await.unwrap();
            let alice = clients.log_in("alice", "secret").await.unwrap();
            clients.put_by(Some(&alice), "a/1").await.unwrap();
            alice
        };
        let gateway = Gateway::start(&cluster);
        let clients = gateway.clients().await;
        refused_so(clients.put_by(Some(&before), "a/1").await, NO_LOGIN);
        refused_so(clients.put_by(None, "a/1").await, NO_USER);
        let root = clients.log_in("root", "top").await.unwrap();
        // What another gateway signed is no token here.
        refused_so(clients.put_by(Some(&before), "a/1").await, NO_LOGIN);
        // That user's own password may change: whoever knows the new one is taken then.
        clients.auth_by(Some(&root), Verb::UserChange("root", "new")).await.unwrap();
        refused_so(clients.put_by(Some(&root), "a/1").await, NO_LOGIN);
        let root = clients.log_in("root", "new").await.unwrap();
        clients.put_by(Some(&root), "a/1").await.unwrap();
    });
}

/// A gateway was of no use any more until somebody started it again: it went on asking by a user
/// that might not act for others, and its clients were told that they were not permitted anything.
#[test]
fn a_gateway_whose_user_is_root_no_more_takes_the_next_one() {
    with_gateway(1, |clients, gateway| async move {
        clients.auth_by(None, Verb::UserAdd("ops", Some("fleeting"))).await.unwrap();
        clients.auth_by(None, Verb::UserGrant("ops", "root")).await.unwrap();
        clients.guard().await;
        let ops = clients.log_in("ops", "fleeting").await.unwrap();
        let alice = clients.log_in("alice", "secret").await.unwrap();
        clients.put_by(Some(&alice), "a/1").await.unwrap();
        clients.auth_by(Some(&ops), Verb::UserGrant("ops", "app")).await.unwrap();
        clients.auth_by(Some(&ops), Verb::UserRevoke("ops", "root")).await.unwrap();
        refused_so(clients.put_by(Some(&alice), "a/1").await, NO_LOGIN);
        // The connection is still that user's, and its rights are nobody's.
        refused_so(clients.put_by(None, "a/1").await, NO_USER);
        let said = gateway.log_text();
        let why = r#"cannot act for others user="ops" why=the user has not the role root"#;
        assert!(said.contains(why), "{said}");
        clients.log_in("root", "top").await.unwrap();
        clients.put_by(Some(&alice), "a/1").await.unwrap();
        refused_so(clients.put_by(Some(&alice), "b").await, DENIED);
    });
}

/// A name is whatever its user likes: it ended a line of the log and began another.
#[test]
fn a_name_stands_escaped_in_the_log() {
    with_gateway(1, |clients, gateway| async move {
        let name = "ops\ngateway \u{1b}[2J";
        clients.auth_by(None, Verb::UserAdd(name, Some("top"))).await.unwrap();
        clients.auth_by(None, Verb::UserGrant(name, "root")).await.unwrap();
        clients.guard().await;
        let token = clients.log_in(name, "top").await.unwrap();
        clients.put_by(Some(&token), "b").await.unwrap();
        let said = gateway.log_text();
        let adopted = format!("acts for others by the login of user={name:?}");
        assert!(said.contains(&adopted), "{said:?}");
        let logged_in = format!(" user={name:?} credential=");
        assert!(said.contains(&logged_in), "{said:?}");
        assert!(!said.contains(name), "{said:?}");
    });
}

/// Whoever likes can have passwords hashed. They waited in one queue without an end, and the
/// gateway's own login, which everybody needs, among them.
#[test]
fn who_shows_a_password_when_too_many_do_is_refused_and_the_gateway_serves_on() {
    const CROWD: usize = 256;
    const TOO_MANY: (Code, &str) = (Code::ResourceExhausted, "etcdserver: too many requests");
    with_gateway(1, |clients, _gateway| async move {
        clients.guard().await;
        let root = clients.log_in("root", "top").await.unwrap();
        let show = || {
            let clients = clients.clone();
            tokio::spawn(async move { clients.log_in("root", "wrong").await })
        };
        let crowd: Vec<_> = (0..CROWD).map(|_| show()).collect();
        clients.put_by(Some(&root), "b").await.unwrap();
        let mut refused = 0;
        for shown in crowd {
            let why = shown.await.unwrap().expect_err("it is another password");
            let why = (why.code(), why.message());
            assert!([FAILED, TOO_MANY].contains(&why), "{why:?}");
            refused += usize::from(why == TOO_MANY);
        }
        assert!((1..CROWD).contains(&refused), "{refused} of {CROWD} were refused");
        clients.log_in("alice", "secret").await.expect("there is room again");
    });
}

#[test]
fn a_gateway_that_cannot_log_in_says_so() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let gateway = start_as(&cluster, "root", "wrong");
    let weak = start_as(&cluster, "alice", "secret");
    block_on(async {
        let clients = gateway.clients().await;
        clients.guard().await;
        let text = "raftd: the gateway cannot log in to the cluster: its log says why";
        let put = clients.put_by(Some("17.00"), "a/1").await;
        refused(put, Code::FailedPrecondition, text);
        let said = gateway.log_text();
        assert!(said.contains(r#"cannot act for others user="root""#), "{said}");
        // One that may act for itself only, until it may for others.
        let clients = weak.clients().await;
        let text = "raftd: the gateway cannot act for others: grant its --user the role root";
        let put = clients.put_by(Some("17.00"), "a/1").await;
        refused(put, Code::FailedPrecondition, text);
        let said = weak.log_text();
        let why = r#"cannot act for others user="alice" why=the user has not the role root"#;
        assert!(said.contains(why), "{said}");
        let strong = start_as(&cluster, "root", "top");
        let others = strong.clients().await;
        let root = others.log_in("root", "top").await.unwrap();
        others.auth_by(Some(&root), Verb::UserGrant("alice", "root")).await.unwrap();
        refused_so(clients.put_by(Some("17.00"), "a/1").await, NO_LOGIN);
        let alice = clients.log_in("alice", "secret").await.unwrap();
        clients.put_by(Some(&alice), "b").await.unwrap();
    });
    for (flags, why) in [
        (&["--user", "root"][..], "--user needs --password-file"),
        (&["--password-file", "/dev/null"], "--password-file needs --user"),
        (&["--user", "root", "--password-file", "/nowhere"], "cannot be read"),
    ] {
        let mut gateway = Gateway::start_with(&cluster, flags);
        assert_eq!(gateway.wait_for_end(), Some(2));
        assert!(gateway.log_text().contains(why), "{}", gateway.log_text());
    }
}

#[test]
fn all_other_services_know_who_asks() {
    with_gateway(1, |clients, gateway| async move {
        clients.guard().await;
        // Whether all is well anybody may ask.
        assert_eq!(get_page(&gateway.address, "/health").status, 200);
        let root = clients.log_in("root", "top").await.unwrap();
        let alice = clients.log_in("alice", "secret").await.unwrap();
        let (root, alice) = (Some(&*root), Some(&*alice));
        assert_eq!(get_page(&gateway.address, "/health").status, 200);
        clients.maintenance().status(pb::StatusRequest {}).await.unwrap();
        let hash = |token| by(token, pb::HashKvRequest { revision: 0 });
        refused_so(clients.maintenance().hash_kv(hash(alice)).await, DENIED);
        clients.maintenance().hash_kv(hash(root)).await.unwrap();
        for (token, expected) in [(None, NO_USER), (alice, DENIED)] {
            let asked = by(token, pb::SnapshotRequest {});
            let mut saved = clients.maintenance().snapshot(asked).await.unwrap().into_inner();
            refused_so(saved.message().await, expected);
        }
        let asked = by(root, pb::SnapshotRequest {});
        let mut saved = clients.maintenance().snapshot(asked).await.unwrap().into_inner();
        let mut bytes = 0;
        while let Some(piece) = saved.message().await.unwrap() {
            bytes += piece.blob.len();
        }
        assert_eq!(bytes % 512, 32, "a file, and what it adds up to");
        // A lock is keys and a lease, and needs what those need.
        let lock =
            |token, name: &str| by(token, LockRequest { name: name.to_owned().into(), lease: 0 });
        clients.locks().lock(lock(alice, "a/lock")).await.unwrap();
        let text = "etcdserver: permission denied";
        refused(clients.locks().lock(lock(alice, "b")).await, Code::Unknown, text);
        let own_put =
            |key: &str| own::PutRequest { key: key.to_owned().into(), ..Default::default() };
        clients.own().put(by(alice, own_put("a/own"))).await.unwrap();
        refused_so(clients.own().put(by(alice, own_put("b"))).await, DENIED);
        let watch = own::WatchRequest { key: "b".into(), ..Default::default() };
        let mut watch = clients.own().watch(by(alice, watch)).await.unwrap().into_inner();
        refused_so(watch.message().await, DENIED);
        refused_so(clients.cluster().member_list(pb::MemberListRequest::default()).await, NO_USER);
        let grant = by(alice, pb::LeaseGrantRequest { ttl: 60, id: 7 });
        clients.lease().lease_grant(grant).await.unwrap();
        let hung = pb::PutRequest { lease: 7, ..put("b", "v") };
        clients.kv().put(by(root, hung)).await.unwrap();
        let revoke = |token| by(token, pb::LeaseRevokeRequest { id: 7 });
        refused_so(clients.lease().lease_revoke(revoke(alice)).await, DENIED);
        clients.lease().lease_revoke(revoke(root)).await.unwrap();
    });
}

#[test]
fn tokens_come_and_go_by_json() {
    with_gateway(1, |clients, gateway| async move {
        let ask = |path: &str, token: &str, body: &str| {
            let headers = if token.is_empty() {
                String::new()
            } else {
                format!("Authorization: {token}\r\n")
            };
            page(&gateway.address, &format!("POST /v3/{path}"), &headers, body.as_bytes())
        };
        for (path, body) in [
            ("auth/user/add", r#"{"name":"root","password":"top"}"#),
            ("auth/user/grant", r#"{"user":"root","role":"root"}"#),
            ("auth/role/add", r#"{"name":"app"}"#),
            (
                "auth/role/grant",
                r#"{"name":"app","perm":{"permType":"READWRITE","key":"YS8=","range_end":"YTA="}}"#,
            ),
            ("auth/enable", "{}"),
        ] {
            let page = ask(path, "", body);
            assert_eq!(page.status, 200, "{path}: {page:?}");
        }
        let put = r#"{"key":"YS8x","value":"dg=="}"#;
        let refused = ask("kv/put", "", put);
        assert_eq!((refused.status, &refused.json()["code"]), (400, &3.into()), "{refused:?}");
        let refused = ask("kv/put", "17.00", put);
        assert_eq!((refused.status, &refused.json()["code"]), (401, &16.into()), "{refused:?}");
        let token = ask("auth/authenticate", "", r#"{"name":"root","password":"top"}"#).json();
        let token = token["token"].as_str().unwrap();
        assert_eq!(ask("kv/put", token, put).status, 200);
        let role = ask("auth/role/get", token, r#"{"role":"app"}"#).json();
        let perm = &role["perm"][0];
        assert_eq!((&perm["permType"], &perm["key"]), (&"READWRITE".into(), &"YS8=".into()));
        let status = ask("auth/status", token, "{}").json();
        assert_eq!(status["enabled"], true, "{status}");
        assert_eq!(ask("auth/disable", token, "{}").status, 200);
        assert_eq!(clients.put_key("free", "1").await, 3);
    });
}

/// Else whoever has a login could look through the gateway's network with it.
#[test]
fn nobody_is_dialed_for_who_may_not_add_members() {
    with_gateway(1, |clients, _gateway| async move {
        clients.guard().await;
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", stranger.local_addr().unwrap());
        let _root = clients.log_in("root", "top").await.unwrap();
        let alice = clients.log_in("alice", "secret").await.unwrap();
        let add = pb::MemberAddRequest { peer_urls: vec![url], is_learner: true };
        let added = clients.cluster().member_add(by(Some(&alice), add)).await;
        refused_so(added, DENIED);
        stranger.set_nonblocking(true).unwrap();
        let dialed = stranger.accept();
        assert_eq!(dialed.err().map(|why| why.kind()), Some(ErrorKind::WouldBlock));
    });
}
