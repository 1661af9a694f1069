//! Users and rights on real servers: what raftctl says of them, who is refused where, and what
//! outlives restarts, snapshots and restores.

use super::harness::{Cluster, PATIENCE, Shape};
use super::patience::eventually;
use super::raftctl::{Run, done, endpoints, raftctl, raftctl_with};
use raftd::client::{
    Access, AuthRefusal, AuthRequest, AuthVerb, Client, ClientOptions, Connection, Deadline,
    Denial, Error, Login, NewPassword, Permission, PutWith, RangeArgs, Watch, WatchOptions,
    prefix_end,
};
use raftd::types::{ClusterId, Credential};
use raftd::wire::client::Consistency;
use raftd::wire::error::Error as WireError;
use raftd::wire::reply::ReplyBody;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

const ROOT: &str = "correct horse";
const ALICE: &str = "battery staple";

fn client_as(cluster: &Cluster, ids: &[u64], user: &str, password: &str) -> Client {
    let options = cluster.client_of(ids).options().clone();
    Client::new(ClientOptions { login: Some(Login::new(user, password)), ..options })
}

fn add_user(client: &mut Client, name: &str, password: &str) {
    let password = NewPassword::of(password).unwrap();
    client.change_auth(&AuthVerb::UserAdd { name, password: Some(password.proof()) }).unwrap();
}

fn change(client: &mut Client, verb: AuthVerb<'_>) {
    client.change_auth(&verb).unwrap();
}

/// Makes `root`, and `alice`, who may read and write what begins with `a/`; from then on rights
/// count. A client of root's.
fn guard(cluster: &mut Cluster) -> Client {
    cluster.leader();
    let mut client = cluster.client();
    add_user(&mut client, "root", ROOT);
    add_user(&mut client, "alice", ALICE);
    change(&mut client, AuthVerb::UserGrantRole { user: "root", role: "root" });
    change(&mut client, AuthVerb::RoleAdd { name: "app" });
    let (key, end, access) = (b"a/", prefix_end(b"a/"), Access::ReadWrite);
    let permission = Permission { key, end: &end, access };
    change(&mut client, AuthVerb::RoleGrantPermission { role: "app", permission });
    change(&mut client, AuthVerb::UserGrantRole { user: "alice", role: "app" });
    change(&mut client, AuthVerb::Enable { secret: &[5; 32] });
    let all: Vec<u64> = cluster.servers.iter().map(|server| server.id).collect();
    client_as(cluster, &all, "root", ROOT)
}

fn why<T: std::fmt::Debug>(answer: Result<T, Error>) -> WireError {
    match answer {
        Err(Error::Refused { source, .. }) => source,
        other => panic!("it was not refused: {other:?}"),
    }
}

const NOT_PERMITTED: WireError = WireError::Denied { why: Denial::NotPermitted };
const NO_USER: WireError = WireError::Denied { why: Denial::NoUser };
const FAILED: WireError = WireError::Auth { why: AuthRefusal::AuthFailed };

fn as_alice(at: &str, line: &str) -> Run {
    raftctl(at, &format!("--user alice:secret {line}"))
}

#[test]
fn raftctl_makes_users_and_roles_in_etcdctls_words() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let at = endpoints(&cluster);
    raftctl(&at, "auth enable").fails(1, &["there is no user root"]);
    let words = ["user", "add", "root"].map(OsStr::new);
    assert_eq!(done(&raftctl_with(&at, &words, b"top\n")), "User root created\n");
    assert_eq!(done(&raftctl(&at, "user add alice:secret")), "User alice created\n");
    raftctl(&at, "user add alice:x").fails(1, &["there is such a user already"]);
    assert_eq!(done(&raftctl(&at, "role add app")), "Role app created\n");
    let granted = raftctl(&at, "role grant-permission app readwrite a/ --prefix");
    assert_eq!(done(&granted), "Role app updated\n");
    assert_eq!(done(&raftctl(&at, "role grant-permission app read b")), "Role app updated\n");
    let granted = raftctl(&at, "user grant-role alice app");
    assert_eq!(done(&granted), "Role app is granted to user alice\n");
    let status = raftctl(&at, "auth status");
    assert!(done(&status).starts_with("Authentication Status: false\nAuthRevision: "));
    assert_eq!(done(&raftctl(&at, "auth enable")), "Authentication Enabled\n");
    raftctl(&at, "put a/1 v").fails(1, &["log in first"]);
    raftctl(&at, "--user alice:wrong put a/1 v").fails(1, &["another password"]);
    raftctl(&at, "--user nobody:secret get a/1").fails(1, &["another password"]);
    assert_eq!(done(&as_alice(&at, "put a/1 v")), "OK\n");
    assert_eq!(done(&as_alice(&at, "get a/ --prefix")), "a/1\nv\n");
    as_alice(&at, "get a").fails(1, &["permission denied"]);
    as_alice(&at, "put b v").fails(1, &["permission denied"]);
    assert_eq!(done(&as_alice(&at, "get b")), "");
    as_alice(&at, "compact 2").fails(1, &["permission denied"]);
    as_alice(&at, "user list").fails(1, &["permission denied"]);
    assert_eq!(done(&as_alice(&at, "user get alice")), "User: alice\nRoles: app\n");
    as_alice(&at, "user get root").fails(1, &["permission denied"]);
    let found = as_alice(&at, "role get app");
    let expected = "Role app\nKV Read:\n\t[a/, a0) (prefix a/)\n\tb\nKV Write:\n\t[a/, a0) (prefix \
                    a/)\n";
    assert_eq!(done(&found), expected);
    let found = as_alice(&at, "role get app -o json").json();
    assert_eq!(found["permissions"][1]["access"], "read");
    assert_eq!(done(&raftctl(&at, "--user root --password top user list")), "alice\nroot\n");
    let revoked = raftctl(&at, "--user root:top role revoke-permission app a/ --prefix");
    assert_eq!(done(&revoked), "Permission of range [a/, a0) is revoked from role app\n");
    as_alice(&at, "get a/1").fails(1, &["permission denied"]);
    raftctl(&at, "--user root:top user delete root").fails(1, &["root stays root"]);
    let words = ["--user", "root:top", "user", "passwd", "alice"].map(OsStr::new);
    assert_eq!(done(&raftctl_with(&at, &words, b"other\n")), "Password updated\n");
    as_alice(&at, "get b").fails(1, &["another password"]);
    assert_eq!(done(&raftctl(&at, "--user root:top auth disable")), "Authentication Disabled\n");
    assert_eq!(done(&raftctl(&at, "get a/1")), "a/1\nv\n");
    // Whoever brings a password where nobody needs one is let in.
    assert_eq!(done(&as_alice(&at, "get a/1")), "a/1\nv\n");
}

#[test]
fn without_a_terminal_nobody_is_asked_for_a_password() {
    raftctl("127.0.0.1:1", "--user alice get a").fails(2, &["there is no terminal"]);
}

#[test]
fn every_server_judges_every_read_by_what_was_acknowledged_before() {
    let mut cluster = Cluster::start(3);
    let mut root = guard(&mut cluster);
    root.put(b"a/1", b"v").unwrap();
    root.put(b"b", b"v").unwrap();
    let ranges = |key, consistency| RangeArgs { consistency, ..RangeArgs::of_key(key) };
    for id in 1..=3 {
        let mut alice = client_as(&cluster, &[id], "alice", ALICE);
        for consistency in [Consistency::Linearizable, Consistency::Lease] {
            assert_eq!(alice.range(&ranges(b"a/1", consistency)).unwrap().kvs.len(), 1);
            assert_eq!(why(alice.range(&ranges(b"b", consistency))), NOT_PERMITTED);
            let mut nobody = cluster.client_of(&[id]);
            assert_eq!(why(nobody.range(&ranges(b"a/1", consistency))), NO_USER);
        }
    }
    // A right that goes is gone on every server for whoever asks afterwards, and one that comes is
    // there.
    let mut readers: Vec<Client> =
        (1..=3).map(|id| client_as(&cluster, &[id], "alice", ALICE)).collect();
    for round in 0..20 {
        let (user, role) = ("alice", "app");
        let revoke = round % 2 == 0;
        let verb = match revoke {
            true => AuthVerb::UserRevokeRole { user, role },
            false => AuthVerb::UserGrantRole { user, role },
        };
        change(&mut root, verb);
        for alice in &mut readers {
            let found = alice.get(b"a/1");
            match revoke {
                true => assert_eq!(why(found), NOT_PERMITTED),
                false => assert!(found.unwrap().is_some()),
            }
        }
    }
    // What a server reads by itself it judges by what it has applied.
    change(&mut root, AuthVerb::UserRevokeRole { user: "alice", role: "app" });
    for alice in &mut readers {
        eventually("the server has heard that the right is gone", PATIENCE, || {
            let found = alice.range(&ranges(b"a/1", Consistency::Serializable));
            matches!(found, Err(Error::Refused { source: NOT_PERMITTED, .. })).then_some(())
        });
    }
}

#[test]
fn what_only_root_may_is_done_for_nobody_else() {
    let mut cluster = Cluster::start(3);
    let mut root = guard(&mut cluster);
    let mut alice = client_as(&cluster, &[1, 2, 3], "alice", ALICE);
    assert_eq!(why(alice.compact(raftd::types::Revision(1))), NOT_PERMITTED);
    assert_eq!(why(alice.transfer_leader(None)), NOT_PERMITTED);
    assert_eq!(why(alice.read_auth(&AuthRequest::Status)), NOT_PERMITTED);
    assert_eq!(why(alice.change_auth(&AuthVerb::Disable)), NOT_PERMITTED);
    for id in 1..=3 {
        let mut alice = client_as(&cluster, &[id], "alice", ALICE);
        let mut nobody = |_: raftd::client::Piece<'_>| panic!("a piece of the store for alice");
        assert_eq!(why(alice.snapshot(&mut nobody)), NOT_PERMITTED, "from server {id}");
    }
    assert_eq!(why(cluster.client().member_list()), NO_USER);
    assert_eq!(alice.member_list().unwrap().members.len(), 3);
    assert!(root.read_auth(&AuthRequest::Status).unwrap().enabled);
    root.transfer_leader(None).unwrap();
    // A lease on which others' keys hang is not hers to revoke, nor to hang more on.
    root.lease_grant(7, 60).unwrap();
    root.put_with(PutWith { key: b"b", lease: 7, ..PutWith::default() }).unwrap();
    assert_eq!(why(alice.lease_revoke(7)), NOT_PERMITTED);
    let hang = PutWith { key: b"a/1", lease: 7, ..PutWith::default() };
    assert_eq!(why(alice.put_with(hang)), NOT_PERMITTED);
    assert_eq!(why(alice.lease_time_to_live(7, true)), NOT_PERMITTED);
    assert_eq!(alice.lease_time_to_live(7, false).unwrap().times.ttl_s, 60);
    assert_eq!(alice.lease_keep_alive(7).unwrap().ttl_s, 60);
}

#[test]
fn a_watch_ends_when_its_right_goes_and_hears_nothing_that_came_after() {
    let mut cluster = Cluster::start(3);
    let mut root = guard(&mut cluster);
    for id in 1..=3 {
        let options = client_as(&cluster, &[id], "alice", ALICE).options().clone();
        let wanted =
            WatchOptions { key: b"a/".to_vec(), end: prefix_end(b"a/"), ..Default::default() };
        let mut watch = Watch::new(options.clone(), wanted);
        let opened = watch.next(Deadline::after(PATIENCE)).unwrap();
        assert!(opened.is_some(), "it is open");
        let put = root.put(b"a/1", b"may be heard").unwrap();
        change(&mut root, AuthVerb::UserRevokeRole { user: "alice", role: "app" });
        root.put(b"a/1", b"secret").unwrap();
        let ended =
            loop {
                match watch.next(Deadline::after(PATIENCE)) {
                    Ok(Some(batch)) => assert!(batch.events.iter().all(|event| {
                        event.kv.mod_revision <= put && event.kv.value != b"secret"
                    })),
                    Ok(None) => panic!("node {id} does not say that the watch has ended"),
                    Err(error) => break error,
                }
            };
        assert_eq!(why::<()>(Err(ended)), NOT_PERMITTED);
        let wanted = WatchOptions { key: b"b".to_vec(), ..Default::default() };
        let refused = Watch::new(options, wanted).next(Deadline::after(PATIENCE));
        assert_eq!(why(refused), NOT_PERMITTED);
        change(&mut root, AuthVerb::UserGrantRole { user: "alice", role: "app" });
    }
}

/// A connection of its own, so that nothing logs in again.
fn line(cluster: &Cluster, user: &str, password: &str) -> (Connection, Credential) {
    let endpoint = cluster.servers[0].listen();
    let deadline = Deadline::after(PATIENCE);
    let mut connection = Connection::open(endpoint, ClusterId(0), deadline).unwrap();
    let logged_in = connection.log_in(&Login::new(user, password), deadline).unwrap();
    (connection, logged_in.expect("rights count"))
}

fn answer_to_put(connection: &mut Connection, key: &[u8]) -> Result<(), WireError> {
    let deadline = Deadline::after(PATIENCE);
    let id = connection.put(key, b"v");
    connection.flush(deadline).unwrap();
    let reply = connection.receive(deadline).unwrap();
    assert_eq!(reply.id, id);
    match reply.body {
        ReplyBody::Put { .. } => Ok(()),
        ReplyBody::Error(error) => Err(error),
        other => panic!("a put was answered {other:?}"),
    }
}

#[test]
fn a_login_ends_with_its_password_and_its_user() {
    let mut cluster = Cluster::start(1);
    let mut root = guard(&mut cluster);
    let ended = Err(WireError::Denied { why: Denial::LoginEnded });
    let (mut before, first) = line(&cluster, "alice", ALICE);
    assert_eq!(answer_to_put(&mut before, b"a/1"), Ok(()));
    let password = NewPassword::of("another").unwrap();
    let (name, password) = ("alice", password.proof());
    change(&mut root, AuthVerb::UserChangePassword { name, password });
    assert_eq!(answer_to_put(&mut before, b"a/1"), ended);
    let (mut after, second) = line(&cluster, "alice", "another");
    assert!(first < second);
    assert_eq!(answer_to_put(&mut after, b"a/1"), Ok(()));
    // A client that knows the new password need not notice.
    let mut alice = client_as(&cluster, &[1], "alice", "another");
    alice.put(b"a/1", b"v").unwrap();
    change(&mut root, AuthVerb::UserDelete { name });
    assert_eq!(answer_to_put(&mut after, b"a/1"), ended);
    assert_eq!(why(alice.put(b"a/1", b"v")), FAILED);
    // Without a password nobody logs in, and whether there is such a user is not said.
    change(&mut root, AuthVerb::UserAdd { name, password: None });
    assert_eq!(why(client_as(&cluster, &[1], "alice", "").put(b"a/1", b"v")), FAILED);
    assert_eq!(why(client_as(&cluster, &[1], "mallory", "x").put(b"a/1", b"v")), FAILED);
}

#[test]
fn who_logged_in_before_rights_counted_logs_in_again_by_itself() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let mut early = client_as(&cluster, &[1], "alice", ALICE);
    early.put(b"a/1", b"v").unwrap();
    let mut root = guard(&mut cluster);
    early.put(b"a/1", b"w").unwrap();
    assert_eq!(why(early.put(b"b", b"w")), NOT_PERMITTED);
    change(&mut root, AuthVerb::Disable);
    early.put(b"b", b"w").unwrap();
    change(&mut cluster.client(), AuthVerb::Enable { secret: &[5; 32] });
    assert_eq!(why(early.put(b"b", b"w")), NOT_PERMITTED);
}

#[test]
fn a_gateway_asks_for_each_user_with_the_rights_of_that_user() {
    let mut cluster = Cluster::start(1);
    guard(&mut cluster);
    let (_, alice) = line(&cluster, "alice", ALICE);
    let (mut gateway, root) = line(&cluster, "root", ROOT);
    for (acting, key, expected) in [
        (Some(alice), &b"a/1"[..], Ok(())),
        (Some(alice), b"b", Err(NOT_PERMITTED)),
        (Some(Credential::NONE), b"a/1", Err(NO_USER)),
        (Some(Credential(99)), b"a/1", Err(WireError::Denied { why: Denial::LoginEnded })),
        (None, b"b", Ok(())),
    ] {
        gateway.act_for(acting);
        assert_eq!(answer_to_put(&mut gateway, key), expected, "{acting:?} {key:?}");
    }
    let (mut climber, _) = line(&cluster, "alice", ALICE);
    climber.act_for(Some(root));
    assert_eq!(answer_to_put(&mut climber, b"a/1"), Err(NOT_PERMITTED));
}

/// Whether any file below a directory holds these bytes.
fn holds(directory: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        fs::read(path).unwrap().windows(bytes.len()).any(|found| found == bytes)
    })
}

#[test]
fn users_outlive_restarts_and_snapshots_and_no_disk_has_a_password() {
    let flags = ["--snapshot-entries", "20", "--snapshot-interval", "0"];
    let flags = flags.map(str::to_owned).to_vec();
    let mut cluster = Cluster::start_shaped(3, &Shape { flags, ..Shape::default() });
    let mut root = guard(&mut cluster);
    let mut alice = client_as(&cluster, &[1, 2, 3], "alice", ALICE);
    for number in 0..100_u32 {
        alice.put(b"a/1", &number.to_be_bytes()).unwrap();
    }
    eventually("a snapshot holds the users", PATIENCE, || {
        let mut servers = cluster.servers.iter();
        servers.all(|it| it.status().is_ok_and(|it| it.snapshot_index.get() > 20)).then_some(())
    });
    let revision = root.read_auth(&AuthRequest::Status).unwrap().auth_revision;
    for id in 1..=3 {
        cluster.server(id).kill();
    }
    for id in 1..=3 {
        let directory = cluster.server(id).directory.clone();
        assert!(holds(&directory, b"alice"), "what is looked for in files is found there");
        assert!(!holds(&directory, ROOT.as_bytes()) && !holds(&directory, ALICE.as_bytes()));
    }
    cluster.start_all();
    cluster.leader();
    assert_eq!(root.read_auth(&AuthRequest::Status).unwrap().auth_revision, revision);
    assert_eq!(why(alice.put(b"b", b"v")), NOT_PERMITTED);
    alice.put(b"a/1", b"v").unwrap();
    assert_eq!(why(cluster.client().get(b"a/1")), NO_USER);
    cluster.wait_until_equal();
}

#[test]
fn a_restored_cluster_knows_its_users() {
    let mut cluster = Cluster::start(1);
    guard(&mut cluster);
    let at = endpoints(&cluster);
    let file = cluster.folder().join("saved.snap");
    let saved = format!("snapshot save {}", file.display());
    raftctl(&at, &saved).fails(1, &["log in first"]);
    assert!(!file.exists());
    let as_root = [OsStr::new("--user"), OsStr::new("root:correct horse"), OsStr::new("snapshot")];
    let words = [&as_root[..], &[OsStr::new("save"), file.as_os_str()]].concat();
    done(&raftctl_with(&at, &words, b""));
    cluster.server(1).kill();
    let other = cluster.plan_beside(1);
    let directory = other.servers[0].directory.display();
    let peers = format!("1={}", other.servers[0].listen());
    let (file, segment) = (file.display(), "--segment-bytes 1048576");
    let line =
        format!("snapshot restore {file} --data-dir {directory} --id 1 --peers {peers} {segment}");
    done(&raftctl("127.0.0.1:1", &line));
    let mut other = other;
    other.start_all();
    other.leader();
    let mut alice = client_as(&other, &[1], "alice", ALICE);
    alice.put(b"a/1", b"v").unwrap();
    assert_eq!(why(alice.put(b"b", b"v")), NOT_PERMITTED);
    assert_eq!(why(other.client().get(b"a/1")), NO_USER);
}

/// The leader compacts in nobody's name, or in the cluster's: then it may.
#[test]
fn the_history_goes_also_while_rights_count() {
    let flags = ["--history-bytes", "4096"].map(str::to_owned).to_vec();
    let mut cluster = Cluster::start_shaped(1, &Shape { flags, ..Shape::default() });
    guard(&mut cluster);
    let mut alice = client_as(&cluster, &[1], "alice", ALICE);
    let compacted = |cluster: &Cluster| cluster.servers[0].status().unwrap().compact_revision;
    let before = compacted(&cluster);
    eventually("the history is given up", PATIENCE, || {
        alice.put(b"a/1", &[0; 1024]).unwrap();
        (compacted(&cluster) > before).then_some(())
    });
}

#[test]
fn rights_hold_while_leaders_die() {
    let mut cluster = Cluster::start(3);
    let mut root = guard(&mut cluster);
    let mut alice = client_as(&cluster, &[1, 2, 3], "alice", ALICE);
    for round in 0..4_u32 {
        let leader = cluster.leader();
        change(&mut root, AuthVerb::UserRevokeRole { user: "alice", role: "app" });
        cluster.server(leader).kill();
        // Whoever leads next judges by all that was acknowledged.
        assert_eq!(why(alice.put(b"a/1", b"v")), NOT_PERMITTED, "round {round}");
        assert_eq!(why(alice.get(b"a/1")), NOT_PERMITTED, "round {round}");
        change(&mut root, AuthVerb::UserGrantRole { user: "alice", role: "app" });
        alice.put(b"a/1", &round.to_be_bytes()).unwrap();
        cluster.server(leader).start();
    }
    let found = alice.get(b"a/1").unwrap().expect("it was put");
    assert_eq!(found.value, 3_u32.to_be_bytes());
    eventually("all servers run again", Duration::from_secs(20), || {
        let running = cluster.servers.iter().filter(|server| server.status().is_ok());
        (running.count() == 3).then_some(())
    });
    cluster.wait_until_equal();
}
