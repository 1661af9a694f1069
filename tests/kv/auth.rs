//! Users, roles and what they allow, rule by rule: etcd's.

use raftd::codec::msgpack::Reader;
use raftd::kv::command::{
    EntryHeader, Issued, decode_issued, encode_asker, encode_call, encode_command, encode_header,
    validate_command,
};
use raftd::kv::{
    Access, Asker, AuthChange, AuthRefusal, AuthVerb, Command, CommandReply, Denial, PasswordProof,
    Permission, Refusal, SessionCall, Store,
};
use raftd::limits::{AUTH_BYTES_MAX, ROLE_PERMISSIONS_MAX, USER_ROLES_MAX};
use raftd::types::{Credential, Revision, SessionId};

use super::checkpoint::{load_at_once, reloaded};
use super::support::{at, store_with};

pub(super) const PASSWORD: PasswordProof<'static> =
    PasswordProof { salt: &[1; 16], rounds: 4096, stored_key: &[2; 32], server_key: &[3; 32] };

/// Does a command in somebody's name; what it answers, and the body.
pub(super) fn ask(
    store: &mut Store,
    asker: Asker,
    call: Option<SessionCall>,
    command: Command<'_>,
) -> (CommandReply, Vec<u8>) {
    let mut payload = Vec::new();
    encode_header(&mut payload, EntryHeader { stamp_ms: 1 });
    encode_asker(&mut payload, asker);
    call.iter().for_each(|call| encode_call(&mut payload, *call));
    encode_command(&mut payload, command);
    let mut answered = None;
    let index = store.applied().next();
    let mut keep = |answer: raftd::kv::Answer<'_>| {
        answered = Some((answer.outline, answer.body.to_vec()));
    };
    store.apply(at(index), &payload, &mut keep).unwrap();
    answered.unwrap()
}

/// Changes users or roles; `Ok`: the auth revision then.
pub(super) fn change(store: &mut Store, asker: Asker, verb: &AuthVerb<'_>) -> Result<u64, Refusal> {
    let mut args = Vec::new();
    verb.encode(&mut args);
    let command = Command::Auth(AuthChange::from_args(&args).unwrap());
    let (reply, body) = ask(store, asker, None, command);
    assert!(body.is_empty());
    if let CommandReply::Refused { why } = reply {
        return Err(why);
    }
    let CommandReply::Auth { revision, auth_revision } = reply else {
        panic!("{verb:?} was answered {reply:?}")
    };
    assert_eq!((revision, auth_revision), (store.revision(), store.auth().revision()));
    Ok(auth_revision)
}

fn add_user(store: &mut Store, name: &str) -> Credential {
    change(store, Asker::CLUSTER, &AuthVerb::UserAdd { name, password: Some(PASSWORD) }).unwrap();
    store.auth().user(name).unwrap().credential()
}

pub(super) fn asker(login: Credential) -> Asker {
    Asker { login, acting: Credential::NONE }
}

/// A store whose rights count, with `root`, and `alice`, who may read [a, c) and write [b, d).
pub(super) fn guarded() -> (Store, Asker, Asker) {
    let mut store = store_with(1, 1 << 20);
    let root = asker(add_user(&mut store, "root"));
    let alice = asker(add_user(&mut store, "alice"));
    for verb in [
        AuthVerb::UserGrantRole { user: "root", role: "root" },
        AuthVerb::RoleAdd { name: "r" },
        grant("r", "a", "c", Access::Read),
        grant("r", "b", "d", Access::Write),
        AuthVerb::UserGrantRole { user: "alice", role: "r" },
        AuthVerb::Enable { secret: &[5; 32] },
    ] {
        change(&mut store, Asker::NOBODY, &verb).unwrap();
    }
    (store, root, alice)
}

pub(super) fn grant<'a>(role: &'a str, key: &'a str, end: &'a str, access: Access) -> AuthVerb<'a> {
    let permission = Permission { key: key.as_bytes(), end: end.as_bytes(), access };
    AuthVerb::RoleGrantPermission { role, permission }
}

pub(super) fn put(key: &str) -> Command<'_> {
    Command::Put { key: key.as_bytes(), value: b"v" }
}

pub(super) fn denied(why: Denial) -> CommandReply {
    CommandReply::Refused { why: Refusal::Denied(why) }
}

pub(super) fn done(store: &mut Store, asker: Asker, command: Command<'_>) -> CommandReply {
    ask(store, asker, None, command).0
}

/// The commands that came with users.
const GOLDEN: &str = include_str!("golden/entry-1-auth.hex");

fn golden_changes() -> Vec<(&'static str, AuthVerb<'static>)> {
    let (name, user, role, password) = ("alice", "alice", "r", Some(PASSWORD));
    vec![
        ("auth enable", AuthVerb::Enable { secret: &[5; 32] }),
        ("auth disable", AuthVerb::Disable),
        ("user add", AuthVerb::UserAdd { name: "root", password }),
        ("user add without a password", AuthVerb::UserAdd { name, password: None }),
        ("user delete", AuthVerb::UserDelete { name }),
        ("user change password", AuthVerb::UserChangePassword { name: "root", password: PASSWORD }),
        ("user grant role", AuthVerb::UserGrantRole { user, role }),
        ("user revoke role", AuthVerb::UserRevokeRole { user, role }),
        ("role add", AuthVerb::RoleAdd { name: role }),
        ("role delete", AuthVerb::RoleDelete { name: role }),
        ("role grant permission", grant(role, "a", "b", Access::Read)),
        ("role grant of all", grant(role, "\0", "\0", Access::ReadWrite)),
        ("role revoke permission", AuthVerb::RoleRevokePermission { role, key: b"a", end: b"" }),
    ]
}

#[test]
fn every_form_is_read_and_written_as_the_golden_file_has_it() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut written = String::new();
    for (name, verb) in golden_changes() {
        let (mut args, mut bytes) = (Vec::new(), Vec::new());
        verb.encode(&mut args);
        let change = AuthChange::from_args(&args).unwrap();
        assert_eq!(change.verb(), verb, "{name}");
        encode_command(&mut bytes, Command::Auth(change));
        assert_eq!(validate_command(&bytes, 1000), Ok(()), "{name}");
        for cut in 0..bytes.len() {
            assert!(validate_command(&bytes[..cut], 1000).is_err(), "{name} cut at {cut}");
        }
        written += &format!("{name}: {}\n", hex(&bytes));
    }
    let put = Command::Put { key: b"key", value: b"value" };
    let call = SessionCall { session: SessionId(5), sequence: 9, acknowledged: 8 };
    let mut args = Vec::new();
    AuthVerb::Disable.encode(&mut args);
    let disable = Command::Auth(AuthChange::from_args(&args).unwrap());
    let (two, other) = (Credential(2), Credential(300));
    for (name, asker, call, command) in [
        ("put of a user", asker(two), None, put),
        ("put for a user", Asker { login: two, acting: other }, None, put),
        ("call of a user", asker(Credential(1 << 40)), Some(call), put),
        ("change by a user", asker(two), None, disable),
    ] {
        let mut bytes = Vec::new();
        encode_asker(&mut bytes, asker);
        call.iter().for_each(|call| encode_call(&mut bytes, *call));
        encode_command(&mut bytes, command);
        let issued = decode_issued(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(issued, Issued { asker, call, command }, "{name}");
        // No client says in whose name it asks.
        assert!(validate_command(&bytes, 1000).is_err(), "{name}");
        for cut in 0..bytes.len() {
            assert!(decode_issued(&mut Reader::new(&bytes[..cut])).is_err(), "{name} cut at {cut}");
        }
        written += &format!("{name}: {}\n", hex(&bytes));
    }
    assert_eq!(written, GOLDEN);
}

#[test]
fn what_cannot_be_done_is_refused_with_etcds_errors() {
    use AuthRefusal::*;
    let mut store = store_with(1, 1 << 20);
    let add = |name| AuthVerb::UserAdd { name, password: Some(PASSWORD) };
    let grant_role = |user, role| AuthVerb::UserGrantRole { user, role };
    let revoke_role = |user, role| AuthVerb::UserRevokeRole { user, role };
    let revoke = AuthVerb::RoleRevokePermission { role: "r", key: b"a", end: b"c" };
    let passwd = |name| AuthVerb::UserChangePassword { name, password: PASSWORD };
    let steps: &[(AuthVerb<'_>, Result<u64, AuthRefusal>)] = &[
        (AuthVerb::Enable { secret: &[5; 32] }, Err(RootUserNotExist)),
        (add("root"), Ok(2)),
        (AuthVerb::Enable { secret: &[5; 32] }, Err(RootRoleNotExist)),
        (add("root"), Err(UserAlreadyExist)),
        (add(""), Err(UserEmpty)),
        (passwd("alice"), Err(UserNotFound)),
        (AuthVerb::UserDelete { name: "alice" }, Err(UserNotFound)),
        (grant_role("alice", "r"), Err(UserNotFound)),
        (revoke_role("alice", "r"), Err(UserNotFound)),
        (add("alice"), Ok(3)),
        (grant_role("alice", "r"), Err(RoleNotFound)),
        (revoke_role("alice", "r"), Err(RoleNotGranted)),
        (AuthVerb::RoleAdd { name: "" }, Err(RoleEmpty)),
        (AuthVerb::RoleDelete { name: "r" }, Err(RoleNotFound)),
        (grant("r", "a", "c", Access::Read), Err(RoleNotFound)),
        (revoke, Err(RoleNotFound)),
        (AuthVerb::RoleAdd { name: "r" }, Ok(4)),
        (AuthVerb::RoleAdd { name: "r" }, Err(RoleAlreadyExist)),
        (revoke, Err(PermissionNotGranted)),
        (grant("r", "", "", Access::Read), Err(InvalidAuthMgmt)),
        (grant("r", "b", "b", Access::Read), Err(InvalidAuthMgmt)),
        (grant("r", "b", "a", Access::Read), Err(InvalidAuthMgmt)),
        (grant("r", "a", "c", Access::Read), Ok(5)),
        (grant("r", "a", "c", Access::Write), Ok(6)),
        (revoke, Ok(7)),
        (revoke, Err(PermissionNotGranted)),
        (grant_role("alice", "r"), Ok(8)),
        // What it has already makes no difference.
        (grant_role("alice", "r"), Ok(8)),
        // The role root need not have been made.
        (grant_role("root", "root"), Ok(9)),
        (AuthVerb::Disable, Ok(9)),
        (AuthVerb::Enable { secret: &[5; 32] }, Ok(9)),
        (AuthVerb::Enable { secret: &[5; 32] }, Ok(9)),
        (AuthVerb::UserDelete { name: "root" }, Err(InvalidAuthMgmt)),
        (revoke_role("root", "root"), Err(InvalidAuthMgmt)),
        (AuthVerb::RoleDelete { name: "root" }, Err(InvalidAuthMgmt)),
        (AuthVerb::RoleDelete { name: "r" }, Ok(10)),
        (revoke_role("alice", "r"), Err(RoleNotGranted)),
        (AuthVerb::Disable, Ok(11)),
        (revoke_role("root", "root"), Ok(12)),
        (AuthVerb::UserDelete { name: "root" }, Ok(13)),
    ];
    for (nth, (verb, expected)) in steps.iter().enumerate() {
        let before = store.state_hash();
        let found = change(&mut store, Asker::CLUSTER, verb);
        assert_eq!(found, expected.map_err(Refusal::Auth), "step {nth}, {verb:?}");
        if found.is_err() {
            assert_eq!(store.state_hash(), before, "step {nth} is refused and changes nothing");
        }
        assert_eq!(store.revision(), Revision(1));
        assert_eq!(reloaded(&mut store).state_hash(), store.state_hash(), "step {nth}");
    }
}

#[test]
fn what_is_said_of_nobody_is_made_of_the_first_secret() {
    let mut stores = [[5; 32], [6; 32]].map(|first| {
        let mut store = store_with(1, 1 << 20);
        let root = AuthVerb::UserAdd { name: "root", password: Some(PASSWORD) };
        let role = AuthVerb::UserGrantRole { user: "root", role: "root" };
        for (verb, known) in [
            (root, None),
            (role, None),
            (AuthVerb::Enable { secret: &first }, Some(first)),
            (AuthVerb::Enable { secret: &[7; 32] }, Some(first)),
            (AuthVerb::Disable, Some(first)),
            (AuthVerb::Enable { secret: &[7; 32] }, Some(first)),
        ] {
            change(&mut store, Asker::CLUSTER, &verb).unwrap();
            assert_eq!(store.auth().numbers().secret, known, "{verb:?}");
        }
        store
    });
    let [one, other] = &mut stores;
    assert_ne!(one.state_hash(), other.state_hash(), "nodes that differ in it are found out");
    assert_eq!(reloaded(one).auth().numbers(), one.auth().numbers());
}

#[test]
fn users_and_roles_take_no_more_than_they_may() {
    let mut store = store_with(1, 1 << 20);
    let full = Err(Refusal::Auth(AuthRefusal::TooMuch));
    add_user(&mut store, "u");
    for nth in 0..=USER_ROLES_MAX {
        let name = format!("r{nth}");
        change(&mut store, Asker::NOBODY, &AuthVerb::RoleAdd { name: &name }).unwrap();
        let granted = AuthVerb::UserGrantRole { user: "u", role: &name };
        let granted = change(&mut store, Asker::NOBODY, &granted);
        assert_eq!(granted.is_ok(), nth < USER_ROLES_MAX, "{nth}");
    }
    for nth in 0..=ROLE_PERMISSIONS_MAX {
        let key = format!("{nth:04}");
        let granted = change(&mut store, Asker::NOBODY, &grant("r0", &key, "", Access::Read));
        assert_eq!(granted.is_ok(), nth < ROLE_PERMISSIONS_MAX, "{nth}");
    }
    let again = grant("r0", "0000", "", Access::Write);
    assert!(change(&mut store, Asker::NOBODY, &again).is_ok(), "it takes the place of another");
    // A permission holds its key three times.
    let long = "k".repeat(AUTH_BYTES_MAX / 3);
    assert_eq!(change(&mut store, Asker::NOBODY, &grant("r1", &long, "", Access::Read)), full);
    let shorter = "k".repeat(AUTH_BYTES_MAX / 8);
    change(&mut store, Asker::NOBODY, &grant("r1", &shorter, "", Access::Read)).unwrap();
    assert_eq!(reloaded(&mut store).state_hash(), store.state_hash());
}

#[test]
fn a_credential_ends_with_its_password_and_comes_never_again() {
    let (mut store, root, alice) = guarded();
    assert!(matches!(done(&mut store, alice, put("b")), CommandReply::Put { .. }));
    let passwd = AuthVerb::UserChangePassword { name: "alice", password: PASSWORD };
    change(&mut store, root, &passwd).unwrap();
    assert_eq!(done(&mut store, alice, put("b")), denied(Denial::LoginEnded));
    let second = asker(store.auth().user("alice").unwrap().credential());
    assert!(matches!(done(&mut store, second, put("b")), CommandReply::Put { .. }));
    change(&mut store, root, &AuthVerb::UserDelete { name: "alice" }).unwrap();
    assert_eq!(done(&mut store, second, put("b")), denied(Denial::LoginEnded));
    let third = add_user(&mut store, "alice");
    assert!(second.login < third && alice.login < second.login);
    assert_eq!(done(&mut store, second, put("b")), denied(Denial::LoginEnded));
    // Who came back has no role.
    assert_eq!(done(&mut store, asker(third), put("b")), denied(Denial::NotPermitted));
    let mut loaded = reloaded(&mut store);
    assert_eq!(add_user(&mut loaded, "next"), add_user(&mut store, "next"));
    store.begin_anew(1000);
    assert!(add_user(&mut store, "later").0 > third.0 + 1000, "the old cluster may have gone on");
}

#[test]
fn who_was_made_without_a_password_gets_none() {
    let (mut store, root, _) = guarded();
    change(&mut store, root, &AuthVerb::UserAdd { name: "cn", password: None }).unwrap();
    let passwd = AuthVerb::UserChangePassword { name: "cn", password: PASSWORD };
    change(&mut store, root, &passwd).unwrap();
    assert_eq!(store.auth().user("cn").unwrap().password(), None);
    assert_eq!(store.auth().user("root").unwrap().password(), Some(PASSWORD));
}

#[test]
fn only_root_acts_for_others_and_with_their_rights() {
    let (mut store, root, alice) = guarded();
    let gateway = Asker { login: root.login, acting: alice.login };
    assert!(matches!(done(&mut store, gateway, put("b")), CommandReply::Put { .. }));
    assert_eq!(done(&mut store, gateway, put("a")), denied(Denial::NotPermitted));
    let disable = change(&mut store, gateway, &AuthVerb::Disable);
    assert_eq!(disable, Err(Refusal::Denied(Denial::NotPermitted)));
    let climber = Asker { login: alice.login, acting: root.login };
    assert_eq!(done(&mut store, climber, put("b")), denied(Denial::NotPermitted));
    let gone = Asker { login: root.login, acting: Credential(99) };
    assert_eq!(done(&mut store, gone, put("b")), denied(Denial::LoginEnded));
    assert_eq!(done(&mut store, asker(Credential(99)), put("b")), denied(Denial::LoginEnded));
    assert_eq!(done(&mut store, Asker::NOBODY, put("b")), denied(Denial::NoUser));
    // The cluster is nobody whom others act as.
    let cluster = Asker { login: root.login, acting: Credential::CLUSTER };
    assert_eq!(done(&mut store, cluster, put("b")), denied(Denial::LoginEnded));
}

#[test]
fn what_the_cluster_says_itself_needs_no_user() {
    let (mut store, root, alice) = guarded();
    done(&mut store, root, Command::LeaseGrant { lease: 7, ttl_s: 60 });
    done(&mut store, root, put("x"));
    let compact = Command::Compact { revision: store.revision() };
    assert_eq!(done(&mut store, Asker::NOBODY, compact), denied(Denial::NoUser));
    assert_eq!(done(&mut store, alice, compact), denied(Denial::NotPermitted));
    let answered = done(&mut store, Asker::CLUSTER, compact);
    assert!(matches!(answered, CommandReply::Compact { refused: None, .. }), "{answered:?}");
    let (term, lease, grant) = (raftd::types::Term::new(1), 7, 1);
    let expire = Command::LeaseExpire { term, lease, grant };
    assert!(matches!(done(&mut store, Asker::NOBODY, expire), CommandReply::LeaseExpire { .. }));
    assert_eq!(store.lease_count(), 0);
}

#[test]
fn a_checkpoint_has_users_and_roles_as_they_were_though_they_change_while_it_is_written() {
    let (mut store, root, alice) = guarded();
    let (hash, applied) = (store.state_hash(), store.applied());
    let mut checkpoint = store.begin_checkpoint();
    let mut bytes = Vec::new();
    let step = raftd::kv::SliceLimits { steps: 1, bytes: usize::MAX };
    let mut slices = 0;
    while store.write_checkpoint(&mut checkpoint, &mut bytes, step) == raftd::kv::Sliced::More {
        let (user, role) = (format!("u{slices}"), format!("a{slices}"));
        slices += 1;
        add_user(&mut store, &user);
        change(&mut store, root, &AuthVerb::RoleAdd { name: &role }).unwrap();
        if slices == 2 {
            change(&mut store, root, &AuthVerb::RoleDelete { name: "r" }).unwrap();
            change(&mut store, root, &AuthVerb::UserDelete { name: "alice" }).unwrap();
        }
    }
    store.end_checkpoint(checkpoint);
    assert!(slices > 5, "{slices} slices");
    let mut loaded = load_at_once(&bytes, applied);
    assert_eq!(loaded.state_hash(), hash);
    assert_eq!(loaded.auth().users().map(|(name, _)| name).collect::<Vec<_>>(), ["alice", "root"]);
    assert!(matches!(done(&mut loaded, alice, put("b")), CommandReply::Put { .. }));
    assert_eq!(done(&mut loaded, alice, put("a")), denied(Denial::NotPermitted));
}
