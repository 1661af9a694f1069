//! Who may do what, with whole nodes: what a server does at once, and what it says by itself.

use super::nodes::{Answer, Nodes, Tuning, id};
use raftd::kv::{Access, AuthChange, AuthRefusal, AuthVerb, Denial, Permission, PutWith};
use raftd::limits::PASSWORD_ROUNDS_MIN;
use raftd::replica::ConnectionId;
use raftd::types::Revision;
use raftd::wire::auth::in_name_of;
use raftd::wire::client::{
    Command, Consistency, RangeArgs, command_request, put_request, range_request, snapshot_request,
};
use raftd::wire::error::Error;
use raftd::wire::leases::{KeysFrom, LeaseRequest, lease_request};
use raftd::wire::members::MemberRequest;
use raftd::wire::scram::PasswordKeys;
use raftd::wire::watch::{WatchArgs, watch_request};
use std::collections::BTreeSet;

const MS: u64 = 1_000_000;
const SALT: &[u8] = &[0x11; 16];

fn keys(user: &str) -> PasswordKeys {
    PasswordKeys::derive(user.as_bytes(), SALT, PASSWORD_ROUNDS_MIN)
}

fn answer(nodes: &mut Nodes, request: u64) -> Answer {
    nodes.pass(100 * MS);
    nodes.answers.remove(&request).expect("it is answered")
}

fn denied(why: Denial) -> Answer {
    Answer::Failed(Error::Denied { why })
}

fn encode_change(bytes: &mut Vec<u8>, number: u64, verb: &AuthVerb<'_>) {
    let mut args = Vec::new();
    verb.encode(&mut args);
    let change = AuthChange::from_args(&args).expect("they were encoded here");
    command_request(bytes, number, None, Command::Auth(change));
}

/// A change by whoever has logged in.
fn change(nodes: &mut Nodes, connection: ConnectionId, verb: &AuthVerb<'_>) {
    let asked = nodes.ask_on(connection, |bytes, number| encode_change(bytes, number, verb));
    assert_eq!(answer(nodes, asked), Answer::Done, "{verb:?}");
}

fn put(nodes: &mut Nodes, connection: ConnectionId, key: &[u8]) -> Answer {
    let put = nodes.ask_on(connection, |bytes, number| put_request(bytes, number, key, b"v"));
    answer(nodes, put)
}

/// Asks for b, which alice may not read.
fn read_b(nodes: &mut Nodes, connection: ConnectionId, consistency: Consistency) -> u64 {
    let args = RangeArgs { consistency, ..RangeArgs::of_key(b"b") };
    nodes.ask_on(connection, |bytes, number| range_request(bytes, number, &args))
}

const GRANT: AuthVerb<'static> = AuthVerb::RoleGrantPermission {
    role: "r",
    permission: Permission { key: b"b", end: b"", access: Access::ReadWrite },
};

/// Three servers whose rights count, with root, and alice, who may read and write a; which leads.
/// Users have their names for passwords.
fn guarded(tuning: Tuning) -> (Nodes, usize) {
    let mut nodes = Nodes::tuned(3, tuning);
    nodes.pass(200 * MS);
    let leader = nodes.leader().expect("elected");
    let (root, alice) = (keys("root"), keys("alice"));
    let add = |name, keys| {
        let password = Some(PasswordKeys::to_keep(keys, SALT, PASSWORD_ROUNDS_MIN));
        AuthVerb::UserAdd { name, password }
    };
    let permission = Permission { key: b"a", end: b"", access: Access::ReadWrite };
    for verb in [
        add("root", &root),
        add("alice", &alice),
        AuthVerb::UserGrantRole { user: "root", role: "root" },
        AuthVerb::RoleAdd { name: "r" },
        AuthVerb::RoleGrantPermission { role: "r", permission },
        AuthVerb::UserGrantRole { user: "alice", role: "r" },
        AuthVerb::Enable { secret: &[5; 32] },
    ] {
        let mut args = Vec::new();
        verb.encode(&mut args);
        let change = AuthChange::from_args(&args).expect("they were encoded here");
        let asked = nodes.command(leader, None, Command::Auth(change));
        assert_eq!(answer(&mut nodes, asked), Answer::Done, "{verb:?}");
    }
    (nodes, leader)
}

#[test]
fn only_root_saves_the_store_and_moves_the_leadership() {
    let (mut nodes, leader) = guarded(Tuning::default());
    for nth in 1..=3 {
        let (alice, _) = nodes.log_in(nth, "alice", &keys("alice"));
        let save = nodes.ask_on(alice, snapshot_request);
        assert_eq!(answer(&mut nodes, save), denied(Denial::NotPermitted), "server {nth}");
        let (save, _) = nodes.save(nth);
        assert_eq!(answer(&mut nodes, save), denied(Denial::NoUser), "server {nth}");
        let (root, _) = nodes.log_in(nth, "root", &keys("root"));
        let save = nodes.ask_on(root, snapshot_request);
        nodes.pass(2_000 * MS);
        assert_eq!(nodes.answers.remove(&save), Some(Answer::Done), "server {nth}");
    }
    let (alice, _) = nodes.log_in(leader, "alice", &keys("alice"));
    let transfer = MemberRequest::Transfer { node: None };
    let asked = nodes.ask_on(alice, |bytes, number| transfer.encode(bytes, number));
    assert_eq!(answer(&mut nodes, asked), denied(Denial::NotPermitted));
}

/// The right was asked for when the request came, and not when it was done: whoever lost it while
/// the new server was dialed added a member all the same.
#[test]
fn who_loses_its_right_while_a_new_server_is_asked_adds_nobody() {
    let (mut nodes, leader) = guarded(Tuning::default());
    let (root, _) = nodes.log_in(leader, "root", &keys("root"));
    let (alice, _) = nodes.log_in(leader, "alice", &keys("alice"));
    let (user, role) = ("alice", "root");
    change(&mut nodes, root, &AuthVerb::UserGrantRole { user, role });
    let newcomer = nodes.arrive();
    let address = format!("sim:{newcomer}");
    let (node, address) = (id(newcomer), address.as_str());
    for (round, verb) in [
        MemberRequest::Add { node, address, stay: true },
        MemberRequest::Replace { old: id(1 + leader % 3), node, address },
    ]
    .into_iter()
    .enumerate()
    {
        nodes.freeze(newcomer);
        let asked = nodes.ask_on(alice, |bytes, number| verb.encode(bytes, number));
        nodes.pass(50 * MS);
        assert_eq!(nodes.answers.get(&asked), None, "the new server has not answered: {round}");
        change(&mut nodes, root, &AuthVerb::UserRevokeRole { user, role });
        let before = nodes.last_of(leader);
        nodes.thaw(newcomer);
        assert_eq!(answer(&mut nodes, asked), denied(Denial::NotPermitted), "{round}");
        assert_eq!(nodes.last_of(leader), before, "nothing was proposed: {round}");
        change(&mut nodes, root, &AuthVerb::UserGrantRole { user, role });
    }
    let add = MemberRequest::Add { node, address, stay: true };
    let asked = nodes.ask_on(alice, |bytes, number| add.encode(bytes, number));
    assert_eq!(answer(&mut nodes, asked), Answer::Done, "who has the right again adds it");
}

#[test]
fn every_server_judges_reads_where_it_answers_them() {
    let (mut nodes, _) = guarded(Tuning::default());
    for nth in 1..=3 {
        let (alice, credential) = nodes.log_in(nth, "alice", &keys("alice"));
        let (root, _) = nodes.log_in(nth, "root", &keys("root"));
        for consistency in
            [Consistency::Linearizable, Consistency::Lease, Consistency::Serializable]
        {
            let read = read_b(&mut nodes, alice, consistency);
            assert_eq!(answer(&mut nodes, read), denied(Denial::NotPermitted), "server {nth}");
            // Both at once, so that they are answered together.
            let (theirs, own) =
                (read_b(&mut nodes, root, consistency), read_b(&mut nodes, alice, consistency));
            assert_eq!(answer(&mut nodes, theirs), Answer::Done, "server {nth}");
            assert_eq!(answer(&mut nodes, own), denied(Denial::NotPermitted), "server {nth}");
        }
        let args = RangeArgs::of_key(b"b");
        let read = nodes.ask_on(root, |bytes, number| {
            let from = bytes.len();
            range_request(bytes, number, &args);
            in_name_of(bytes, from, credential);
        });
        assert_eq!(answer(&mut nodes, read), denied(Denial::NotPermitted), "server {nth}");
    }
}

/// Of the reads that wait together, those of nobody once took the names of those behind them.
#[test]
fn a_read_of_nobody_stays_one_among_those_of_others() {
    let (mut nodes, _) = guarded(Tuning::default());
    for nth in 1..=3 {
        // Its requests come first, for it was here first.
        let nobody = nodes.read_unread(nth, "b", 0);
        nodes.read_on(nth, nobody);
        let (root, _) = nodes.log_in(nth, "root", &keys("root"));
        let last = nodes.read_unread(nth, "b", 0);
        nodes.read_on(nth, last);
        for consistency in [Consistency::Linearizable, Consistency::Lease] {
            let reads = [nobody, nobody, root, last]
                .map(|connection| read_b(&mut nodes, connection, consistency));
            nodes.pass(100 * MS);
            let heard = reads.map(|read| nodes.answers.remove(&read).expect("it is answered"));
            let no_user = || denied(Denial::NoUser);
            assert_eq!(heard, [no_user(), no_user(), Answer::Done, no_user()], "server {nth}");
            // Nor do those who come next take the names of those before them.
            let reads = [nobody; 3].map(|connection| read_b(&mut nodes, connection, consistency));
            nodes.pass(100 * MS);
            let heard = reads.map(|read| nodes.answers.remove(&read).expect("it is answered"));
            assert_eq!(heard, [no_user(), no_user(), no_user()], "server {nth}");
        }
    }
}

/// Else whoever has overheard a proof can send it again.
#[test]
fn no_two_logins_are_asked_the_same() {
    let (mut nodes, _) = guarded(Tuning::default());
    let (mut nonces, mut asked) = (BTreeSet::new(), 0);
    for start in 0..2 {
        for (nth, user) in (1..=3).flat_map(|nth| [(nth, "alice"), (nth, "alice"), (nth, "eve")]) {
            let (_, challenge) = nodes.challenge(nth, user);
            let Answer::Challenge(nonce, ..) = challenge else { panic!("{challenge:?}") };
            asked += 1;
            assert!(nonces.insert(nonce), "the same again, by server {nth} in start {start}");
        }
        (1..=3).for_each(|nth| nodes.crash(nth));
        (1..=3).for_each(|nth| nodes.boot(nth).expect("its disk is well"));
        nodes.pass(2_000 * MS);
    }
    assert_eq!((nonces.len(), asked), (18, 18));
}

#[test]
fn who_may_not_read_its_keys_hears_only_of_the_lease() {
    let (mut nodes, leader) = guarded(Tuning::default());
    let (root, _) = nodes.log_in(leader, "root", &keys("root"));
    let (alice, _) = nodes.log_in(leader, "alice", &keys("alice"));
    let grant = Command::LeaseGrant { lease: 7, ttl_s: 60 };
    let hang = PutWith { key: b"b", lease: 7, ..PutWith::default() };
    for command in [grant, Command::PutWith(hang)] {
        let asked =
            nodes.ask_on(root, |bytes, number| command_request(bytes, number, None, command));
        assert!(!matches!(answer(&mut nodes, asked), Answer::Failed(_)), "{command:?}");
    }
    for (keys, expected) in [(true, Some(denied(Denial::NotPermitted))), (false, None)] {
        let look = LeaseRequest::TimeToLive { lease: 7, keys, from: KeysFrom::START };
        let asked = nodes.ask_on(alice, |bytes, number| lease_request(bytes, number, &look));
        let found = answer(&mut nodes, asked);
        let times = matches!(found, Answer::Times(_));
        assert!(expected.map_or(times, |expected| expected == found), "keys={keys}: {found:?}");
    }
}

/// The leader compacts in nobody's name, or in the cluster's: then it may.
#[test]
fn the_history_goes_also_while_rights_count() {
    let (mut nodes, leader) = guarded(Tuning { history_bytes_max: 4096, ..Tuning::default() });
    let (alice, _) = nodes.log_in(leader, "alice", &keys("alice"));
    for _ in 0..100 {
        assert_eq!(put(&mut nodes, alice, b"a"), Answer::Done);
    }
    for nth in 1..=3 {
        assert!(nodes.status_of(nth).compact_revision > Revision(1), "server {nth}");
    }
}

#[test]
fn a_proof_is_of_the_password_of_then_and_now() {
    let (mut nodes, leader) = guarded(Tuning::default());
    let (root, _) = nodes.log_in(leader, "root", &keys("root"));
    let failed = Answer::Failed(Error::Auth { why: AuthRefusal::AuthFailed });
    let (connection, challenge) = nodes.challenge(leader, "alice");
    let another = keys("another");
    assert_eq!(nodes.prove("alice", &another, (connection, &challenge)), failed);
    let (connection, challenge) = nodes.challenge(leader, "alice");
    let password = another.to_keep(SALT, PASSWORD_ROUNDS_MIN);
    change(&mut nodes, root, &AuthVerb::UserChangePassword { name: "alice", password });
    assert_eq!(nodes.prove("alice", &keys("alice"), (connection, &challenge)), failed);
    nodes.log_in(leader, "alice", &another);
}

/// Whether there is such a user nobody hears who cannot prove its password.
#[test]
fn a_user_that_there_is_not_is_asked_as_any_other() {
    let (mut nodes, leader) = guarded(Tuning::default());
    let mut salts = Vec::new();
    let mut ask_all = |nodes: &mut Nodes| {
        for (nth, user) in (1..=3).flat_map(|nth| [(nth, "mallory"), (nth, "trudy")]) {
            let (connection, challenge) = nodes.challenge(nth, user);
            let Answer::Challenge(_, salt, _) = &challenge else { panic!("{challenge:?}") };
            salts.push((user, salt.clone()));
            let proved = nodes.prove(user, &keys(user), (connection, &challenge));
            assert_eq!(proved, Answer::Failed(Error::Auth { why: AuthRefusal::AuthFailed }));
        }
    };
    ask_all(&mut nodes);
    ask_all(&mut nodes);
    // It has nothing to do with anybody's password, and stays for ever as those of others do.
    let (root, _) = nodes.log_in(leader, "root", &keys("root"));
    let another = keys("another");
    let password = another.to_keep(SALT, PASSWORD_ROUNDS_MIN);
    change(&mut nodes, root, &AuthVerb::UserChangePassword { name: "root", password });
    ask_all(&mut nodes);
    let (root, _) = nodes.log_in(leader, "root", &another);
    change(&mut nodes, root, &AuthVerb::Disable);
    change(&mut nodes, root, &AuthVerb::Enable { secret: &[6; 32] });
    ask_all(&mut nodes);
    for (one, other) in salts.iter().flat_map(|one| salts.iter().map(move |other| (one, other))) {
        assert_eq!(one.0 == other.0, one.1 == other.1, "{one:?} {other:?}");
        assert_eq!(one.1.len(), SALT.len());
    }
}

/// Rounds and the length of the salt are whoever's that set the password: what no user is asked
/// with was always the same, and so whoever was asked with anything else was one.
#[test]
fn a_user_that_there_is_not_is_asked_with_what_users_have() {
    let (mut nodes, leader) = guarded(Tuning::default());
    let names: Vec<String> = (0..24).map(|nth| format!("nobody{nth}")).collect();
    let ask = |nodes: &mut Nodes, nth: usize, user: &str| {
        let (_, challenge) = nodes.challenge(nth, user);
        let Answer::Challenge(_, salt, rounds) = challenge else { panic!("{challenge:?}") };
        (salt, rounds)
    };
    let looks = |(salt, rounds): &(Vec<u8>, u64)| (salt.len(), *rounds);
    let alices = ask(&mut nodes, leader, "alice");
    let before: Vec<_> = names.iter().map(|name| ask(&mut nodes, leader, name)).collect();
    for (name, found) in names.iter().zip(&before) {
        assert_eq!(looks(found), looks(&alices), "{name}");
    }
    let (root, _) = nodes.log_in(leader, "root", &keys("root"));
    let (salt, rounds) = (&[0x22; 64][..], PASSWORD_ROUNDS_MIN + 1);
    let another = PasswordKeys::derive(b"another", salt, rounds);
    let password = another.to_keep(salt, rounds);
    change(&mut nodes, root, &AuthVerb::UserChangePassword { name: "alice", password });
    let roots = ask(&mut nodes, leader, "root");
    let alices = ask(&mut nodes, leader, "alice");
    assert_eq!(alices, (salt.to_vec(), rounds));
    let mut as_alice = 0;
    for (name, before) in names.iter().zip(&before) {
        let found = ask(&mut nodes, leader, name);
        for nth in 1..=3 {
            assert_eq!(ask(&mut nodes, nth, name), found, "{name} at server {nth}");
        }
        // As root, who is as before, or as alice, who has another password since.
        if looks(&found) == looks(&roots) {
            assert_eq!(found, *before, "{name}");
        } else {
            assert_eq!(looks(&found), looks(&alices), "{name}");
            assert_ne!(found.0[..16], before.0[..16], "{name}");
            as_alice += 1;
        }
    }
    assert!((1..names.len()).contains(&as_alice), "{as_alice} of {}", names.len());
}

#[test]
fn a_watch_ends_before_it_hears_of_what_came_behind_its_right() {
    let (mut nodes, leader) = guarded(Tuning::default());
    let (root, _) = nodes.log_in(leader, "root", &keys("root"));
    let mut watches = Vec::new();
    for nth in 1..=3 {
        let (alice, _) = nodes.log_in(nth, "alice", &keys("alice"));
        let args = WatchArgs {
            key: b"a",
            end: b"",
            start: Revision(0),
            prev_kv: false,
            no_put: false,
            no_delete: false,
            progress_ms: 0,
        };
        watches.push(nodes.ask_on(alice, |bytes, number| watch_request(bytes, number, &args)));
    }
    assert_eq!(put(&mut nodes, root, b"a"), Answer::Done);
    let (user, role) = ("alice", "r");
    // Both in one turn of everybody.
    let revoke = AuthVerb::UserRevokeRole { user, role };
    let revoked = nodes.ask_on(root, |bytes, number| {
        encode_change(bytes, number, &revoke);
        put_request(bytes, number + 1000, b"a", b"secret");
    });
    assert_eq!(answer(&mut nodes, revoked), Answer::Done);
    for watch in watches {
        assert_eq!(nodes.heard.get(&watch), Some(&vec![2]), "watch {watch}");
        assert_eq!(nodes.answers.get(&watch), Some(&denied(Denial::NotPermitted)));
    }
}

/// Somebody else leads by now, and has granted it.
#[test]
fn a_leader_that_was_replaced_denies_nobody() {
    let (mut nodes, leader) = guarded(Tuning::default());
    let (alice, _) = nodes.log_in(leader, "alice", &keys("alice"));
    let others = (1..=3).filter(|nth| *nth != leader);
    others.for_each(|other| nodes.cut(leader, other));
    nodes.freeze(leader);
    nodes.pass_until(|nodes| nodes.leader().is_some());
    let next = nodes.leader().expect("elected");
    let (root, _) = nodes.log_in(next, "root", &keys("root"));
    change(&mut nodes, root, &GRANT);
    let read = read_b(&mut nodes, alice, Consistency::Linearizable);
    nodes.thaw(leader);
    nodes.pass(2_000 * MS);
    let found = nodes.answers.get(&read);
    let passes = matches!(found, None | Some(Answer::Failed(Error::NotLeader { .. })));
    assert!(passes, "{found:?}");
    nodes.mend();
    nodes.pass(3_000 * MS);
    let read = read_b(&mut nodes, alice, Consistency::Linearizable);
    assert_eq!(answer(&mut nodes, read), Answer::Done);
}
