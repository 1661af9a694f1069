//! Random users, roles and permissions, and everything that somebody may ask for: against a model
//! that looks at every place where anything begins or ends.

use std::collections::{BTreeMap, BTreeSet};

use raftd::kv::{
    Access, Asker, AuthVerb, Command, CommandReply, Denial, Permission, RangeEnd, Refusal, Store,
};
use raftd::types::Credential;

use super::auth::{PASSWORD, ask, change};
use super::checkpoint::reloaded;
use super::support::{Random, store_with};

const USERS: [&str; 4] = ["root", "alice", "bob", "carol"];
const ROLES: [&str; 4] = ["root", "r", "s", "t"];

/// A key, and where a range of it ends.
type Place = (Vec<u8>, Vec<u8>);

#[derive(Default)]
struct User {
    credential: u64,
    roles: BTreeSet<&'static str>,
}

/// What there is, as plainly as can be.
struct Model {
    enabled: bool,
    revision: u64,
    credentials: u64,
    users: BTreeMap<&'static str, User>,
    roles: BTreeMap<&'static str, BTreeMap<Place, Access>>,
}

/// Whether a range holds a key.
fn holds(key: &[u8], end: &[u8], at: &[u8]) -> bool {
    match end {
        [] => key == at,
        [0] => key <= at,
        end => key <= at && at < end,
    }
}

impl Model {
    /// Whether a user may do something to every key of a range: to the first one, and to those
    /// where any permission begins or ends, for between them nothing changes.
    fn may(&self, user: &User, wanted: Access, key: &[u8], end: &[u8]) -> bool {
        if user.roles.contains("root") {
            return true;
        }
        let granted = user.roles.iter().flat_map(|role| &self.roles[role]);
        let granted: Vec<_> = granted
            .filter(|(_, access)| **access == wanted || **access == Access::ReadWrite)
            .map(|(place, _)| place)
            .collect();
        let allowed = |at: &[u8]| granted.iter().any(|(key, end)| holds(key, end, at));
        let mut places = vec![key.to_vec()];
        for (key, end) in &granted {
            places.extend([key.clone(), end.clone(), [&key[..], &[0]].concat()]);
        }
        places.retain(|at| at == key || holds(key, end, at));
        places.iter().all(|at| allowed(at))
    }

    fn judge(&self, credential: u64, wanted: Access, key: &[u8], end: &[u8]) -> Result<(), Denial> {
        if !self.enabled {
            return Ok(());
        }
        if credential == 0 {
            return Err(Denial::NoUser);
        }
        let user = self.users.values().find(|user| user.credential == credential);
        let user = user.ok_or(Denial::LoginEnded)?;
        if self.may(user, wanted, key, end) { Ok(()) } else { Err(Denial::NotPermitted) }
    }

    fn enable(&mut self) -> bool {
        let root = self.users.get("root");
        self.enabled |= root.is_some_and(|root| root.roles.contains("root"));
        self.enabled
    }

    /// Does a change, if it can be done.
    fn change(&mut self, verb: &AuthVerb<'static>) -> bool {
        match *verb {
            AuthVerb::Enable { .. } => return self.enable(),
            AuthVerb::Disable => {
                self.revision += u64::from(std::mem::replace(&mut self.enabled, false));
                return true;
            }
            AuthVerb::UserAdd { name, .. } => {
                if self.users.contains_key(name) {
                    return false;
                }
                self.credentials += 1;
                let credential = self.credentials;
                self.users.insert(name, User { credential, roles: BTreeSet::new() });
            }
            AuthVerb::UserDelete { name } => {
                if (self.enabled && name == "root") || self.users.remove(name).is_none() {
                    return false;
                }
            }
            AuthVerb::UserChangePassword { name, .. } => {
                let Some(user) = self.users.get_mut(name) else { return false };
                self.credentials += 1;
                user.credential = self.credentials;
            }
            AuthVerb::UserGrantRole { user, role } => {
                let there = role == "root" || self.roles.contains_key(role);
                let Some(user) = self.users.get_mut(user).filter(|_| there) else { return false };
                if !user.roles.insert(role) {
                    return true;
                }
            }
            AuthVerb::UserRevokeRole { user, role } => {
                if self.enabled && (user, role) == ("root", "root") {
                    return false;
                }
                if !self.users.get_mut(user).is_some_and(|user| user.roles.remove(role)) {
                    return false;
                }
            }
            AuthVerb::RoleAdd { name } => {
                if self.roles.contains_key(name) {
                    return false;
                }
                self.roles.insert(name, BTreeMap::new());
            }
            AuthVerb::RoleDelete { name } => {
                if (self.enabled && name == "root") || self.roles.remove(name).is_none() {
                    return false;
                }
                for user in self.users.values_mut() {
                    user.roles.remove(name);
                }
            }
            AuthVerb::RoleGrantPermission { role, permission } => {
                let Permission { key, end, access } = permission;
                let Some(permissions) = self.roles.get_mut(role) else { return false };
                permissions.insert((key.to_vec(), end.to_vec()), access);
            }
            AuthVerb::RoleRevokePermission { role, key, end } => {
                let place = (key.to_vec(), end.to_vec());
                let permissions = self.roles.get_mut(role);
                if permissions.is_none_or(|it| it.remove(&place).is_none()) {
                    return false;
                }
            }
        }
        self.revision += 1;
        true
    }
}

/// A few places close together, some of them within others.
const PLACES: [&[u8]; 8] = [b"a", b"a\0", b"ab", b"b", b"b\0\0", b"c", b"d", b"\xff"];

fn some<T: Copy>(random: &mut Random, among: &[T]) -> T {
    among[random.size_below(among.len())]
}

/// A range that may hold a key.
fn some_range(random: &mut Random) -> (&'static [u8], &'static [u8]) {
    let key = some(random, &PLACES);
    let end = some(random, &PLACES);
    match random.below(4) {
        0 => (key, b""),
        1 if random.one_in(3) => (key, b"\0"),
        _ if key < end => (key, end),
        _ => (key, b""),
    }
}

fn some_verb(random: &mut Random) -> AuthVerb<'static> {
    let (name, role) = (some(random, &USERS), some(random, &ROLES));
    let (key, end) = some_range(random);
    let access = some(random, &[Access::Read, Access::Write, Access::ReadWrite]);
    match random.below(24) {
        0 => AuthVerb::Enable { secret: &[5; 32] },
        1 if random.one_in(3) => AuthVerb::Disable,
        1..=3 => AuthVerb::UserAdd { name, password: Some(PASSWORD) },
        4 => AuthVerb::UserDelete { name },
        5 => AuthVerb::UserChangePassword { name, password: PASSWORD },
        6..=9 => AuthVerb::UserGrantRole { user: name, role },
        10 => AuthVerb::UserRevokeRole { user: name, role },
        11..=13 => AuthVerb::RoleAdd { name: role },
        14 => AuthVerb::RoleDelete { name: role },
        15..=17 => AuthVerb::RoleRevokePermission { role, key, end },
        _ => {
            let permission = Permission { key, end, access };
            AuthVerb::RoleGrantPermission { role, permission }
        }
    }
}

fn check(store: &mut Store, model: &Model, random: &mut Random) -> usize {
    let credential = random.below(model.credentials + 2);
    // The cluster's own is no user's.
    let credential = if credential == Credential::CLUSTER.0 { 0 } else { credential };
    let asker = Asker { login: Credential(credential), acting: Credential::NONE };
    let (key, end) = some_range(random);
    let rights = store.auth().rights(asker);
    let reads = rights.and_then(|rights| rights.read(key, RangeEnd::from_bytes(end)));
    if model.enabled {
        assert_eq!(reads, model.judge(credential, Access::Read, key, end), "{key:?} {end:?}");
    }
    let expected = model.judge(credential, Access::Write, key, end);
    let end = RangeEnd::from_bytes(end);
    let (answered, _) = ask(store, asker, None, Command::DeleteRange { key, end });
    let found = if let CommandReply::Refused { why: Refusal::Denied(why) } = answered {
        Err(why)
    } else {
        assert!(matches!(answered, CommandReply::DeleteRange { .. }), "{answered:?}");
        Ok(())
    };
    assert_eq!(found, expected, "{credential} deletes {key:?} {end:?}");
    let seen = [Ok(()), Err(Denial::NoUser), Err(Denial::LoginEnded), Err(Denial::NotPermitted)];
    if model.enabled { seen.iter().position(|it| *it == found).unwrap() } else { seen.len() }
}

#[test]
fn every_right_is_the_models_whatever_was_changed() {
    let mut seen = [0_u64; 5];
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut store = store_with(seed, 1 << 20);
        let mut model = Model {
            enabled: false,
            revision: 1,
            credentials: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
        };
        for _ in 0..400 {
            let verb = some_verb(&mut random);
            let expected = model.change(&verb);
            let done = change(&mut store, Asker::CLUSTER, &verb);
            assert_eq!(done.is_ok(), expected, "seed {seed}, {verb:?}: {done:?}");
            assert_eq!(store.auth().revision(), model.revision, "seed {seed}, {verb:?}");
            assert_eq!(store.auth().is_enabled(), model.enabled);
            for _ in 0..4 {
                seen[check(&mut store, &model, &mut random)] += 1;
            }
            if random.one_in(40) {
                let hash = store.state_hash();
                store = reloaded(&mut store);
                assert_eq!(store.state_hash(), hash, "seed {seed}");
            }
        }
    }
    assert!(seen.iter().all(|times| *times > 500), "hardly seen: {seen:?}");
}
