//! Users and roles that anyone can check by reading them. Shares no line with the product: a right
//! is looked up permission by permission, nothing is merged, and nothing is kept.

use crate::history::within;
use raftd::kv::{
    Access, Asker, AuthRefusal, AuthVerb, Command, Denial, PutWith, RangeEnd, Request, Store, Txn,
};
use raftd::types::Credential;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const ROOT: &str = "root";

/// A user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct User {
    pub(crate) credential: Credential,
    /// The key that its password is held against, if it has one.
    pub(crate) password: Option<[u8; 32]>,
    pub(crate) roles: BTreeSet<String>,
}

/// A key and an end, as on the wire.
type Place = (Vec<u8>, Vec<u8>);

/// Users and roles at some moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rights {
    pub(crate) enabled: bool,
    pub(crate) revision: u64,
    credentials: u64,
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) roles: BTreeMap<String, BTreeMap<Place, Access>>,
}

/// Keys that somebody wants to read, to write, or both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Need {
    pub(crate) key: Vec<u8>,
    pub(crate) end: Vec<u8>,
    pub(crate) access: Access,
}

/// What a request takes. Nothing of it: to be somebody.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Needs {
    /// The role root.
    pub(crate) root: bool,
    pub(crate) keys: Vec<Need>,
}

impl Needs {
    pub(crate) fn of(key: &[u8], end: &[u8], access: Access) -> Needs {
        let need = Need { key: key.to_vec(), end: end.to_vec(), access };
        Needs { root: false, keys: vec![need] }
    }

    fn add(&mut self, key: &[u8], end: RangeEnd<'_>, access: Access) {
        let end = match end {
            RangeEnd::Key => Vec::new(),
            RangeEnd::Unbounded => vec![0],
            RangeEnd::Before(end) => end.to_vec(),
        };
        self.keys.push(Need { key: key.to_vec(), end, access });
    }

    fn add_put(&mut self, put: PutWith<'_>) {
        self.add(put.key, RangeEnd::Key, Needs::to_change(put.prev_kv));
    }

    /// Whoever is told what was there reads it.
    fn to_change(told: bool) -> Access {
        if told { Access::ReadWrite } else { Access::Write }
    }

    fn add_txn(&mut self, txn: Txn<'_>) {
        for compare in txn.compares() {
            self.add(compare.key, compare.end, Access::Read);
        }
        for request in txn.branch(true).chain(txn.branch(false)) {
            match request {
                Request::Put(put) => self.add_put(put),
                Request::Delete(it) => self.add(it.key, it.end, Needs::to_change(it.prev_kv)),
                Request::Range(it) => self.add(it.key, it.end, Access::Read),
                Request::Txn(inner) => self.add_txn(inner),
            }
        }
    }

    /// What a command takes. Who asks about leases here is root, or nobody: their keys do not
    /// matter.
    pub(super) fn of_command(command: Command<'_>) -> Needs {
        let mut needs = Needs::default();
        match command {
            Command::Put { key, .. } => needs.add(key, RangeEnd::Key, Access::Write),
            Command::PutIf { key, .. } => needs.add(key, RangeEnd::Key, Access::ReadWrite),
            Command::PutWith(put) => needs.add_put(put),
            Command::DeleteRange { key, end } => needs.add(key, end, Access::Write),
            Command::DeleteRangeWith(it) => {
                needs.add(it.key, it.end, Needs::to_change(it.prev_kv));
            }
            Command::Txn(txn) => needs.add_txn(txn),
            Command::Compact { .. } | Command::Auth(_) => needs.root = true,
            Command::OpenSession
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseExpire { .. }
            | Command::LeaseCheckpoint { .. } => {}
        }
        needs
    }
}

impl Default for Rights {
    fn default() -> Rights {
        let (users, roles) = (BTreeMap::new(), BTreeMap::new());
        Rights { enabled: false, revision: 1, credentials: 1, users, roles }
    }
}

impl Rights {
    /// Whose a credential is.
    pub(crate) fn name_of(&self, credential: Credential) -> Option<&str> {
        let found = self.users.iter().find(|(_, user)| user.credential == credential);
        found.map(|(name, _)| name.as_str())
    }

    fn roles_of(&self, credential: Credential) -> Result<&BTreeSet<String>, Denial> {
        let name = self.name_of(credential).ok_or(Denial::LoginEnded)?;
        Ok(&self.users[name].roles)
    }

    /// Whether somebody may do what takes that.
    pub(crate) fn judge(&self, asker: Asker, needs: &Needs) -> Result<(), Denial> {
        if !self.enabled || asker.login == Credential::CLUSTER {
            return Ok(());
        }
        if asker.login == Credential::NONE {
            return Err(Denial::NoUser);
        }
        let mut roles = self.roles_of(asker.login)?;
        if asker.acting != Credential::NONE {
            if !roles.contains(ROOT) {
                return Err(Denial::NotPermitted);
            }
            roles = self.roles_of(asker.acting)?;
        }
        if roles.contains(ROOT) {
            return Ok(());
        }
        let covered = |need: &Need| self.covers(roles, need);
        if needs.root || !needs.keys.iter().all(covered) {
            return Err(Denial::NotPermitted);
        }
        Ok(())
    }

    /// Whether the permissions of some roles leave no gap in a range. A gap begins at its first
    /// key, or where a permission ends.
    fn covers(&self, roles: &BTreeSet<String>, need: &Need) -> bool {
        let whole = |wanted: Access| {
            let granted = roles.iter().filter_map(|role| self.roles.get(role)).flatten();
            let granted: Vec<&Place> = granted
                .filter(|(_, access)| **access == wanted || **access == Access::ReadWrite)
                .map(|(place, _)| place)
                .collect();
            let ends = granted.iter().filter_map(|(key, end)| match end.as_slice() {
                [] => Some([key.as_slice(), &[0]].concat()),
                [0] => None,
                end => Some(end.to_vec()),
            });
            let inside = ends.filter(|end| within(end, &need.key, &need.end));
            let mut gaps = inside.chain([need.key.clone()]);
            gaps.all(|gap| granted.iter().any(|(key, end)| within(&gap, key, end)))
        };
        match need.access {
            Access::Read | Access::Write => whole(need.access),
            Access::ReadWrite => whole(Access::Read) && whole(Access::Write),
        }
    }

    /// Does a change. `Ok`: the revision of users and roles after it.
    pub(super) fn change(&mut self, verb: &AuthVerb<'_>) -> Result<u64, AuthRefusal> {
        let moved = match *verb {
            AuthVerb::Enable { .. } => self.enable()?,
            AuthVerb::Disable => std::mem::replace(&mut self.enabled, false),
            AuthVerb::UserAdd { name, password } => {
                let kept = password.map(|proof| *proof.stored_key);
                self.add_user(name, kept)?
            }
            AuthVerb::UserDelete { name } => self.delete_user(name)?,
            AuthVerb::UserChangePassword { name, password } => {
                self.change_password(name, *password.stored_key)?
            }
            AuthVerb::UserGrantRole { user, role } => self.grant_role(user, role)?,
            AuthVerb::UserRevokeRole { user, role } => self.revoke_role(user, role)?,
            AuthVerb::RoleAdd { name } => self.add_role(name)?,
            AuthVerb::RoleDelete { name } => self.delete_role(name)?,
            AuthVerb::RoleGrantPermission { role, permission } => {
                let place = (permission.key.to_vec(), permission.end.to_vec());
                self.grant(role, place, permission.access)?
            }
            AuthVerb::RoleRevokePermission { role, key, end } => {
                let place = (key.to_vec(), end.to_vec());
                let permissions = self.roles.get_mut(role).ok_or(AuthRefusal::RoleNotFound)?;
                permissions.remove(&place).ok_or(AuthRefusal::PermissionNotGranted)?;
                true
            }
        };
        self.revision += u64::from(moved);
        Ok(self.revision)
    }

    /// That rights count is no change of users and roles.
    fn enable(&mut self) -> Result<bool, AuthRefusal> {
        if !self.enabled {
            let root = self.users.get(ROOT).ok_or(AuthRefusal::RootUserNotExist)?;
            if !root.roles.contains(ROOT) {
                return Err(AuthRefusal::RootRoleNotExist);
            }
            self.enabled = true;
        }
        Ok(false)
    }

    fn next_credential(&mut self) -> Credential {
        self.credentials += 1;
        Credential(self.credentials)
    }

    fn add_user(&mut self, name: &str, password: Option<[u8; 32]>) -> Result<bool, AuthRefusal> {
        if name.is_empty() {
            return Err(AuthRefusal::UserEmpty);
        }
        if self.users.contains_key(name) {
            return Err(AuthRefusal::UserAlreadyExist);
        }
        let credential = self.next_credential();
        self.users.insert(name.to_owned(), User { credential, password, roles: BTreeSet::new() });
        Ok(true)
    }

    fn delete_user(&mut self, name: &str) -> Result<bool, AuthRefusal> {
        if self.enabled && name == ROOT {
            return Err(AuthRefusal::InvalidAuthMgmt);
        }
        self.users.remove(name).map(|_| true).ok_or(AuthRefusal::UserNotFound)
    }

    fn change_password(&mut self, name: &str, password: [u8; 32]) -> Result<bool, AuthRefusal> {
        if !self.users.contains_key(name) {
            return Err(AuthRefusal::UserNotFound);
        }
        let credential = self.next_credential();
        if let Some(user) = self.users.get_mut(name) {
            user.credential = credential;
            user.password = user.password.map(|_| password);
        }
        Ok(true)
    }

    fn grant_role(&mut self, name: &str, role: &str) -> Result<bool, AuthRefusal> {
        let there = role == ROOT || self.roles.contains_key(role);
        let user = self.users.get_mut(name).ok_or(AuthRefusal::UserNotFound)?;
        if !there {
            return Err(AuthRefusal::RoleNotFound);
        }
        Ok(user.roles.insert(role.to_owned()))
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Result<bool, AuthRefusal> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(AuthRefusal::InvalidAuthMgmt);
        }
        let user = self.users.get_mut(name).ok_or(AuthRefusal::UserNotFound)?;
        if user.roles.remove(role) { Ok(true) } else { Err(AuthRefusal::RoleNotGranted) }
    }

    fn add_role(&mut self, name: &str) -> Result<bool, AuthRefusal> {
        if name.is_empty() {
            return Err(AuthRefusal::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(AuthRefusal::RoleAlreadyExist);
        }
        self.roles.insert(name.to_owned(), BTreeMap::new());
        Ok(true)
    }

    fn delete_role(&mut self, name: &str) -> Result<bool, AuthRefusal> {
        if self.enabled && name == ROOT {
            return Err(AuthRefusal::InvalidAuthMgmt);
        }
        self.roles.remove(name).ok_or(AuthRefusal::RoleNotFound)?;
        for user in self.users.values_mut() {
            user.roles.remove(name);
        }
        Ok(true)
    }

    fn grant(&mut self, role: &str, place: Place, access: Access) -> Result<bool, AuthRefusal> {
        let (key, end) = &place;
        let empty = !end.is_empty() && end.as_slice() != [0] && end <= key;
        if key.is_empty() || empty {
            return Err(AuthRefusal::InvalidAuthMgmt);
        }
        let permissions = self.roles.get_mut(role).ok_or(AuthRefusal::RoleNotFound)?;
        permissions.insert(place, access);
        Ok(true)
    }

    /// Whether a store has other users and roles.
    pub(crate) fn differ(&self, store: &Store) -> bool {
        let auth = store.auth();
        let users = auth.users().map(|(name, user)| {
            let roles = user.roles().map(str::to_owned).collect();
            let password = user.password().map(|proof| *proof.stored_key);
            (name.to_owned(), User { credential: user.credential(), password, roles })
        });
        let roles = auth.roles().map(|(name, role)| {
            let permissions = role.permissions();
            let places = permissions.map(|it| ((it.key.to_vec(), it.end.to_vec()), it.access));
            (name.to_owned(), places.collect())
        });
        let theirs = Rights {
            enabled: auth.is_enabled(),
            revision: auth.revision(),
            credentials: auth.numbers().credentials,
            users: users.collect(),
            roles: roles.collect(),
        };
        theirs != *self
    }
}
