//! The rules of changes, one by one. etcd's, in the order in which it finds what is wrong.

use std::error::Error;
use std::fmt;

use crate::limits::{AUTH_BYTES_MAX, ROLE_PERMISSIONS_MAX, USER_ROLES_MAX};
use crate::types::Credential;

use super::super::command::RangeEnd;
use super::{Auth, AuthVerb, Password, PasswordProof, Permission, Place, ROOT, Role, User};

/// The last credential. Nobody sets as many passwords.
const CREDENTIAL_MAX: u64 = 1 << 62;

/// What a user, a role, one of a user's roles, or a permission takes beside names and keys, which a
/// permission holds three times. Bytes.
const USER_BYTES: usize = 256;
const ROLE_BYTES: usize = 128;
const GRANTED_BYTES: usize = 48;
const PERMISSION_BYTES: usize = 160;

/// Why a change of users or roles cannot be done as they are, or a login cannot. It changed
/// nothing. The names are etcd's errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthRefusal {
    /// `ErrRootUserNotExist`.
    RootUserNotExist,
    /// `ErrRootRoleNotExist`: the user `root` has no role `root`.
    RootRoleNotExist,
    /// `ErrUserAlreadyExist`.
    UserAlreadyExist,
    /// `ErrUserEmpty`: the name is empty.
    UserEmpty,
    /// `ErrUserNotFound`.
    UserNotFound,
    /// `ErrRoleAlreadyExist`.
    RoleAlreadyExist,
    /// `ErrRoleNotFound`.
    RoleNotFound,
    /// `ErrRoleEmpty`: the name is empty.
    RoleEmpty,
    /// `ErrAuthFailed`: there is no such user, or it has another password.
    AuthFailed,
    /// `ErrRoleNotGranted`.
    RoleNotGranted,
    /// `ErrPermissionNotGranted`.
    PermissionNotGranted,
    /// `ErrAuthNotEnabled`: rights do not count, so nobody can log in.
    AuthNotEnabled,
    /// `ErrInvalidAuthMgmt`: it takes from `root` what makes it root, or names no range.
    InvalidAuthMgmt,
    /// Users and roles take as much as they may. Not etcd's.
    TooMuch,
}

impl AuthRefusal {
    /// Its number, on the wire and in the state hash.
    pub const fn code(self) -> u64 {
        match self {
            AuthRefusal::RootUserNotExist => 1,
            AuthRefusal::RootRoleNotExist => 2,
            AuthRefusal::UserAlreadyExist => 3,
            AuthRefusal::UserEmpty => 4,
            AuthRefusal::UserNotFound => 5,
            AuthRefusal::RoleAlreadyExist => 6,
            AuthRefusal::RoleNotFound => 7,
            AuthRefusal::RoleEmpty => 8,
            AuthRefusal::AuthFailed => 9,
            AuthRefusal::RoleNotGranted => 10,
            AuthRefusal::PermissionNotGranted => 11,
            AuthRefusal::AuthNotEnabled => 12,
            AuthRefusal::InvalidAuthMgmt => 13,
            AuthRefusal::TooMuch => 14,
        }
    }

    /// The refusal of a number.
    pub const fn from_code(code: u64) -> Option<AuthRefusal> {
        Some(match code {
            1 => AuthRefusal::RootUserNotExist,
            2 => AuthRefusal::RootRoleNotExist,
            3 => AuthRefusal::UserAlreadyExist,
            4 => AuthRefusal::UserEmpty,
            5 => AuthRefusal::UserNotFound,
            6 => AuthRefusal::RoleAlreadyExist,
            7 => AuthRefusal::RoleNotFound,
            8 => AuthRefusal::RoleEmpty,
            9 => AuthRefusal::AuthFailed,
            10 => AuthRefusal::RoleNotGranted,
            11 => AuthRefusal::PermissionNotGranted,
            12 => AuthRefusal::AuthNotEnabled,
            13 => AuthRefusal::InvalidAuthMgmt,
            14 => AuthRefusal::TooMuch,
            _ => return None,
        })
    }
}

impl fmt::Display for AuthRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AuthRefusal::RootUserNotExist => "there is no user root",
            AuthRefusal::RootRoleNotExist => "the user root does not have the role root",
            AuthRefusal::UserAlreadyExist => "there is such a user already",
            AuthRefusal::UserEmpty => "the name of the user is empty",
            AuthRefusal::UserNotFound => "there is no such user",
            AuthRefusal::RoleAlreadyExist => "there is such a role already",
            AuthRefusal::RoleNotFound => "there is no such role",
            AuthRefusal::RoleEmpty => "the name of the role is empty",
            AuthRefusal::AuthFailed => "there is no such user, or it has another password",
            AuthRefusal::RoleNotGranted => "the user does not have the role",
            AuthRefusal::PermissionNotGranted => "the role does not have this permission",
            AuthRefusal::AuthNotEnabled => "authentication is not enabled",
            AuthRefusal::InvalidAuthMgmt => {
                "while authentication is enabled root stays root, and a permission is of a key or \
                 a range that may hold some"
            }
            AuthRefusal::TooMuch => "users and roles take as much as they may",
        })
    }
}

impl Error for AuthRefusal {}

impl Auth {
    /// Does a change.
    pub(in crate::kv) fn change(&mut self, verb: &AuthVerb<'_>) -> Result<(), AuthRefusal> {
        match *verb {
            AuthVerb::Enable { secret } => self.enable(secret),
            AuthVerb::Disable => {
                self.disable();
                Ok(())
            }
            AuthVerb::UserAdd { name, password } => self.add_user(name, password.as_ref()),
            AuthVerb::UserDelete { name } => self.delete_user(name),
            AuthVerb::UserChangePassword { name, password } => {
                self.change_password(name, &password)
            }
            AuthVerb::UserGrantRole { user, role } => self.grant_role(user, role),
            AuthVerb::UserRevokeRole { user, role } => self.revoke_role(user, role),
            AuthVerb::RoleAdd { name } => self.add_role(name),
            AuthVerb::RoleDelete { name } => self.delete_role(name),
            AuthVerb::RoleGrantPermission { role, permission } => {
                self.grant_permission(role, &permission)
            }
            AuthVerb::RoleRevokePermission { role, key, end } => {
                self.revoke_permission(role, (key, end))
            }
        }
    }

    /// Users and roles were changed.
    fn commit(&mut self) {
        self.numbers.revision += 1;
        self.changes += 1;
        self.measure();
    }

    /// Whether so many bytes more may be kept.
    fn check_room(&self, bytes: usize) -> Result<(), AuthRefusal> {
        if self.bytes.saturating_add(bytes) <= AUTH_BYTES_MAX {
            Ok(())
        } else {
            Err(AuthRefusal::TooMuch)
        }
    }

    fn enable(&mut self, secret: &[u8; 32]) -> Result<(), AuthRefusal> {
        if self.numbers.enabled {
            return Ok(());
        }
        let root = self.user(ROOT).ok_or(AuthRefusal::RootUserNotExist)?;
        if !root.roles.contains(ROOT) {
            return Err(AuthRefusal::RootRoleNotExist);
        }
        self.numbers.enabled = true;
        // What is said of users that there are not stays: those that there are keep their salts.
        self.numbers.secret.get_or_insert(*secret);
        // It counts no change of users and roles: etcd's.
        self.changes += 1;
        Ok(())
    }

    fn disable(&mut self) {
        if self.numbers.enabled {
            self.numbers.enabled = false;
            self.commit();
        }
    }

    fn next_credential(&mut self) -> Result<Credential, AuthRefusal> {
        if self.numbers.credentials >= CREDENTIAL_MAX {
            return Err(AuthRefusal::TooMuch);
        }
        self.numbers.credentials += 1;
        Ok(Credential(self.numbers.credentials))
    }

    fn add_user(
        &mut self,
        name: &str,
        password: Option<&PasswordProof<'_>>,
    ) -> Result<(), AuthRefusal> {
        if name.is_empty() {
            return Err(AuthRefusal::UserEmpty);
        }
        if self.user(name).is_some() {
            return Err(AuthRefusal::UserAlreadyExist);
        }
        let password = password.map(Password::of);
        let user = User { credential: Credential::NONE, password, roles: Default::default() };
        self.check_room(bytes_of_user(name, &user))?;
        let credential = self.next_credential()?;
        let tables = self.tables_mut();
        tables.names.insert(credential, name.into());
        tables.users.insert(name.into(), User { credential, ..user });
        self.commit();
        Ok(())
    }

    fn delete_user(&mut self, name: &str) -> Result<(), AuthRefusal> {
        if self.numbers.enabled && name == ROOT {
            return Err(AuthRefusal::InvalidAuthMgmt);
        }
        let credential = self.user(name).ok_or(AuthRefusal::UserNotFound)?.credential;
        let tables = self.tables_mut();
        tables.users.remove(name);
        tables.names.remove(&credential);
        self.commit();
        Ok(())
    }

    fn change_password(
        &mut self,
        name: &str,
        password: &PasswordProof<'_>,
    ) -> Result<(), AuthRefusal> {
        self.user(name).ok_or(AuthRefusal::UserNotFound)?;
        // Its salt may be longer than the one before.
        self.check_room(password.salt.len())?;
        let credential = self.next_credential()?;
        let tables = self.tables_mut();
        let user = tables.users.get_mut(name).expect("it was found above");
        let before = std::mem::replace(&mut user.credential, credential);
        // Who was made without a password never gets one: etcd's.
        if user.password.is_some() {
            user.password = Some(Password::of(password));
        }
        tables.names.remove(&before);
        tables.names.insert(credential, name.into());
        self.commit();
        Ok(())
    }

    fn grant_role(&mut self, name: &str, role: &str) -> Result<(), AuthRefusal> {
        let user = self.user(name).ok_or(AuthRefusal::UserNotFound)?;
        // The role `root` need not have been made.
        if role != ROOT && self.role(role).is_none() {
            return Err(AuthRefusal::RoleNotFound);
        }
        if user.roles.contains(role) {
            return Ok(());
        }
        if user.roles.len() >= USER_ROLES_MAX {
            return Err(AuthRefusal::TooMuch);
        }
        self.check_room(GRANTED_BYTES + role.len())?;
        if let Some(user) = self.tables_mut().users.get_mut(name) {
            user.roles.insert(role.into());
        }
        self.commit();
        Ok(())
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Result<(), AuthRefusal> {
        if self.numbers.enabled && name == ROOT && role == ROOT {
            return Err(AuthRefusal::InvalidAuthMgmt);
        }
        let user = self.user(name).ok_or(AuthRefusal::UserNotFound)?;
        if !user.roles.contains(role) {
            return Err(AuthRefusal::RoleNotGranted);
        }
        if let Some(user) = self.tables_mut().users.get_mut(name) {
            user.roles.remove(role);
        }
        self.commit();
        Ok(())
    }

    fn add_role(&mut self, name: &str) -> Result<(), AuthRefusal> {
        if name.is_empty() {
            return Err(AuthRefusal::RoleEmpty);
        }
        if self.role(name).is_some() {
            return Err(AuthRefusal::RoleAlreadyExist);
        }
        self.check_room(ROLE_BYTES + name.len())?;
        self.tables_mut().roles.insert(name.into(), Role::default());
        self.commit();
        Ok(())
    }

    fn delete_role(&mut self, name: &str) -> Result<(), AuthRefusal> {
        if self.numbers.enabled && name == ROOT {
            return Err(AuthRefusal::InvalidAuthMgmt);
        }
        self.role(name).ok_or(AuthRefusal::RoleNotFound)?;
        let tables = self.tables_mut();
        tables.roles.remove(name);
        for user in tables.users.values_mut() {
            user.roles.remove(name);
        }
        self.commit();
        Ok(())
    }

    fn grant_permission(
        &mut self,
        role: &str,
        permission: &Permission<'_>,
    ) -> Result<(), AuthRefusal> {
        let Permission { key, end, access } = *permission;
        let holds_some = match RangeEnd::from_bytes(end) {
            RangeEnd::Key | RangeEnd::Unbounded => true,
            RangeEnd::Before(end) => key < end,
        };
        if key.is_empty() || !holds_some {
            return Err(AuthRefusal::InvalidAuthMgmt);
        }
        let granted = &self.role(role).ok_or(AuthRefusal::RoleNotFound)?.permissions;
        let place: Place = (key.into(), end.into());
        if !granted.contains_key(&place) {
            if granted.len() >= ROLE_PERMISSIONS_MAX {
                return Err(AuthRefusal::TooMuch);
            }
            self.check_room(bytes_of_permission(permission))?;
        }
        if let Some(role) = self.tables_mut().roles.get_mut(role) {
            role.permissions.insert(place, access);
            role.merge();
        }
        self.commit();
        Ok(())
    }

    fn revoke_permission(
        &mut self,
        role: &str,
        (key, end): (&[u8], &[u8]),
    ) -> Result<(), AuthRefusal> {
        let granted = &self.role(role).ok_or(AuthRefusal::RoleNotFound)?.permissions;
        let place: Place = (key.into(), end.into());
        if !granted.contains_key(&place) {
            return Err(AuthRefusal::PermissionNotGranted);
        }
        if let Some(role) = self.tables_mut().roles.get_mut(role) {
            role.permissions.remove(&place);
            role.merge();
        }
        self.commit();
        Ok(())
    }

    /// What the tables take. Bytes.
    pub(super) fn bytes_of_tables(&self) -> usize {
        let users = self.tables.users.iter().map(|(name, user)| bytes_of_user(name, user));
        let roles = self.tables.roles.iter().map(|(name, role)| {
            let permissions = role.permissions().map(|it| bytes_of_permission(&it));
            ROLE_BYTES + name.len() + permissions.sum::<usize>()
        });
        users.chain(roles).sum()
    }
}

fn bytes_of_user(name: &str, user: &User) -> usize {
    let salt = user.password.as_ref().map_or(0, |password| password.salt.len());
    let roles = user.roles.iter().map(|role| GRANTED_BYTES + role.len());
    // The name stands in two tables.
    USER_BYTES + 2 * name.len() + salt + roles.sum::<usize>()
}

fn bytes_of_permission(permission: &Permission<'_>) -> usize {
    PERMISSION_BYTES + 3 * (permission.key.len() + permission.end.len())
}
