//! Users and roles as the state hash and a checkpoint have them.
//!
//! ```text
//! role        09 bin                                               ascending by name
//! permission  0a array(3) [access: uint, key: bin, end: bin]       of the role before, ascending
//! user        08 array(4) [name: bin, credential: uint, password, roles: array bin]    ascending
//! password    as in a change
//! ```

use crate::codec::msgpack::{self, Reader};
use crate::limits::{AUTH_BYTES_MAX, ROLE_PERMISSIONS_MAX, USER_ROLES_MAX};
use crate::types::Credential;

use super::super::command::{CommandError, RangeEnd};
use super::super::hash;
use super::change::{read_access, read_name, read_password, write_password};
use super::{Auth, AuthNumbers, Password, Permission, Pinned, ROOT, Role, Tables, User};

/// A role of a checkpoint.
#[derive(Clone, Copy)]
pub(in crate::kv) struct RoleRow<'s> {
    pub(in crate::kv) name: &'s str,
    pub(in crate::kv) role: &'s Role,
}

/// A user of a checkpoint.
#[derive(Clone, Copy)]
pub(in crate::kv) struct UserRow<'s> {
    pub(in crate::kv) name: &'s str,
    user: &'s User,
}

impl UserRow<'_> {
    /// Appends all about the user.
    pub(in crate::kv) fn write(&self, out: &mut Vec<u8>) {
        let User { credential, password, roles } = self.user;
        msgpack::write_array(out, 4);
        msgpack::write_bin(out, self.name.as_bytes());
        msgpack::write_uint(out, credential.0);
        write_password(out, password.as_ref().map(Password::proof).as_ref());
        msgpack::write_array(out, u32::try_from(roles.len()).expect("limits.rs bounds them"));
        roles.iter().for_each(|role| msgpack::write_bin(out, role.as_bytes()));
    }
}

/// Appends a permission.
pub(in crate::kv) fn write_permission(out: &mut Vec<u8>, permission: &Permission<'_>) {
    msgpack::write_array(out, 3);
    msgpack::write_uint(out, permission.access.code());
    msgpack::write_bin(out, permission.key);
    msgpack::write_bin(out, permission.end);
}

impl Auth {
    /// The tables of the pinned moment.
    fn pinned_tables(&self) -> &Tables {
        match &self.pinned {
            Pinned::Nothing => unreachable!("a moment is pinned"),
            Pinned::Unchanged => &self.tables,
            Pinned::Aside(tables) => tables,
        }
    }

    /// The first role behind a name, as the pinned moment saw it; the empty name: the first.
    pub(in crate::kv) fn pinned_role(&self, behind: &str) -> Option<RoleRow<'_>> {
        let mut roles = self.pinned_tables().roles.range::<str, _>(after(behind));
        roles.next().map(|(name, role)| RoleRow { name, role })
    }

    /// The first user behind a name, likewise.
    pub(in crate::kv) fn pinned_user(&self, behind: &str) -> Option<UserRow<'_>> {
        let mut users = self.pinned_tables().users.range::<str, _>(after(behind));
        users.next().map(|(name, user)| UserRow { name, user })
    }

    /// How many users and roles there are.
    pub(in crate::kv) fn rows(&self) -> usize {
        self.tables.users.len() + self.tables.roles.len()
    }

    /// Finds anew what the tables take, what they add to the state hash, and what passwords look
    /// like.
    pub(super) fn measure(&mut self) {
        self.bytes = self.bytes_of_tables();
        self.shapes.clear();
        let passwords = self.tables.users.values().filter_map(|user| user.password.as_ref());
        self.shapes.extend(passwords.map(Password::shape));
        self.shapes.sort_unstable();
        let mut bytes = Vec::new();
        let mut sum = 0_u64;
        for (name, user) in &self.tables.users {
            bytes.clear();
            UserRow { name, user }.write(&mut bytes);
            sum = sum.wrapping_add(hash::of_user(&bytes));
        }
        for (name, role) in &self.tables.roles {
            bytes.clear();
            role.permissions().for_each(|it| write_permission(&mut bytes, &it));
            sum = sum.wrapping_add(hash::of_role(name, &bytes));
        }
        self.hash = sum;
    }

    /// Takes over the numbers of a checkpoint, before its roles and users.
    pub(in crate::kv) fn restore_numbers(&mut self, numbers: AuthNumbers) {
        self.numbers = numbers;
        self.changes += 1;
    }

    /// Reads a role of a checkpoint. What does not hold is said.
    pub(in crate::kv) fn restore_role(&mut self, reader: &mut Reader<'_>) -> Restored {
        let name = read_name(reader)?;
        let last = self.tables.roles.last_key_value();
        let ascends = last.is_none_or(|(last, _)| **last < *name);
        if name.is_empty() || !ascends {
            return Ok(Err("its roles do not ascend"));
        }
        self.tables.roles.insert(name.into(), Role::default());
        Ok(Ok(()))
    }

    /// Reads a permission of the last role.
    pub(in crate::kv) fn restore_permission(&mut self, reader: &mut Reader<'_>) -> Restored {
        if reader.array()? != 3 {
            return Ok(Err("a permission has three fields"));
        }
        let access = read_access(reader)?;
        let (key, end) = (reader.bin()?, reader.bin()?);
        let Some(mut role) = self.tables.roles.last_entry() else {
            return Ok(Err("a permission of no role"));
        };
        let permissions = &mut role.get_mut().permissions;
        let last = permissions.last_key_value();
        let ascends = last.is_none_or(|((last, last_end), _)| (&**last, &**last_end) < (key, end));
        let holds_some = match RangeEnd::from_bytes(end) {
            RangeEnd::Key | RangeEnd::Unbounded => true,
            RangeEnd::Before(end) => key < end,
        };
        if !ascends || key.is_empty() || !holds_some || permissions.len() >= ROLE_PERMISSIONS_MAX {
            return Ok(Err("a permission that nobody grants"));
        }
        permissions.insert((key.into(), end.into()), access);
        Ok(Ok(()))
    }

    /// Reads a user of a checkpoint, behind all roles.
    pub(in crate::kv) fn restore_user(&mut self, reader: &mut Reader<'_>) -> Restored {
        if reader.array()? != 4 {
            return Ok(Err("a user has four fields"));
        }
        let name = read_name(reader)?;
        let credential = Credential(reader.uint()?);
        let password = read_password(reader)?.map(|proof| Password::of(&proof));
        let mut user = User { credential, password, roles: Default::default() };
        for _ in 0..reader.array()? {
            let role = read_name(reader)?;
            let known = role == ROOT || self.tables.roles.contains_key(role);
            let last = user.roles.last();
            let ascends = last.is_none_or(|last| **last < *role);
            if !known || !ascends || user.roles.len() >= USER_ROLES_MAX {
                return Ok(Err("a user has a role that nobody granted"));
            }
            user.roles.insert(role.into());
        }
        let last = self.tables.users.last_key_value();
        if name.is_empty() || last.is_some_and(|(last, _)| **last >= *name) {
            return Ok(Err("its users do not ascend"));
        }
        let given = Credential::CLUSTER < credential && credential.0 <= self.numbers.credentials;
        if !given || self.tables.names.insert(credential, name.into()).is_some() {
            return Ok(Err("a credential that nobody gave"));
        }
        self.tables.users.insert(name.into(), user);
        Ok(Ok(()))
    }

    /// Completes what was read.
    pub(in crate::kv) fn settle_restored(&mut self) -> Result<(), &'static str> {
        self.tables.roles.values_mut().for_each(Role::merge);
        self.measure();
        let root = self.user(ROOT).is_some_and(|root| root.roles.contains(ROOT));
        if self.numbers.enabled && !root {
            return Err("rights count, and there is no root");
        }
        if self.bytes > AUTH_BYTES_MAX { Err("its users and roles are too many") } else { Ok(()) }
    }
}

/// What came of reading a row: bytes that are none, or one that no store has.
pub(in crate::kv) type Restored = Result<Result<(), &'static str>, CommandError>;

fn after(name: &str) -> (std::ops::Bound<&str>, std::ops::Bound<&str>) {
    (std::ops::Bound::Excluded(name), std::ops::Bound::Unbounded)
}
