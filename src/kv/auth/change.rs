//! Changes of users, roles and of whether they count, as they stand in the log.
//!
//! ```text
//! change    array [verb: uint, …]
//!    0      [secret: bin 32]                                  Enable
//!    1      []                                                Disable
//!    2      [name: bin, password]                             UserAdd
//!    3      [name: bin]                                       UserDelete
//!    4      [name: bin, password]                             UserChangePassword; not array(0)
//!    5      [user: bin, role: bin]                            UserGrantRole
//!    6      [user: bin, role: bin]                            UserRevokeRole
//!    7      [name: bin]                                       RoleAdd
//!    8      [name: bin]                                       RoleDelete
//!    9      [role: bin, access: uint, key: bin, end: bin]     RoleGrantPermission
//!   10      [role: bin, key: bin, end: bin]                   RoleRevokePermission
//! name      UTF-8
//! password  array(0): none; or what proves it, not itself:
//!           array(4) [salt: bin, rounds: uint, stored_key: bin 32, server_key: bin 32]
//! access    etcd's: 0 read · 1 write · 2 both
//! ```
//!
//! What proves a password is made by whoever sets it, with a salt of its own (RFC 5802): no server
//! and no log ever has the password. The secret is random, made by whoever turns rights on: nodes
//! make of it what they say of users that there are not, so that it tells nothing of others.
//! Whether a name is empty is judged where it is done, as with etcd; so is whether a range holds
//! anything.

use std::str;

use crate::codec::msgpack::{self, Reader};
use crate::limits::{
    AUTH_NAME_BYTES_MAX, NONCE_BYTES_MIN, PASSWORD_ROUNDS_MAX, PASSWORD_ROUNDS_MIN, SALT_BYTES_MAX,
};

use super::super::command::{CommandError, check_arity};
use super::rights::Access;

/// A change, read and found sound. It stays bytes, and is read again where it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuthChange<'a> {
    args: &'a [u8],
}

/// What a change does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthVerb<'a> {
    /// From now on rights count.
    Enable {
        /// Random bytes that nobody knows; those of the first time are kept for ever.
        secret: &'a [u8; 32],
    },
    /// They count no more; users and roles stay.
    Disable,
    /// A new user.
    UserAdd {
        /// Its name.
        name: &'a str,
        /// What proves its password; `None`: it has none, and cannot log in.
        password: Option<PasswordProof<'a>>,
    },
    /// A user goes.
    UserDelete {
        /// Its name.
        name: &'a str,
    },
    /// A user gets another password. One without any stays without.
    UserChangePassword {
        /// Its name.
        name: &'a str,
        /// What proves it.
        password: PasswordProof<'a>,
    },
    /// A user gets a role.
    UserGrantRole {
        /// The user.
        user: &'a str,
        /// The role.
        role: &'a str,
    },
    /// A user loses a role.
    UserRevokeRole {
        /// The user.
        user: &'a str,
        /// The role.
        role: &'a str,
    },
    /// A new role, without permissions.
    RoleAdd {
        /// Its name.
        name: &'a str,
    },
    /// A role goes, and all who have it lose it.
    RoleDelete {
        /// Its name.
        name: &'a str,
    },
    /// A role may do something to a key or a range, and no more what it may have done to that one.
    RoleGrantPermission {
        /// The role.
        role: &'a str,
        /// What it may do.
        permission: Permission<'a>,
    },
    /// A role loses the permission of exactly this key or range.
    RoleRevokePermission {
        /// The role.
        role: &'a str,
        /// The first key.
        key: &'a [u8],
        /// Where the range ends, in the wire's form.
        end: &'a [u8],
    },
}

/// What a role may do to a key or a range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Permission<'a> {
    /// The first key.
    pub key: &'a [u8],
    /// Where the range ends, in the wire's form.
    pub end: &'a [u8],
    /// What it may do.
    pub access: Access,
}

/// What proves a password without being of use to whoever wants to log in. RFC 5802 §3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PasswordProof<'a> {
    /// What the password is hashed with.
    pub salt: &'a [u8],
    /// How often.
    pub rounds: u64,
    /// The hash of the key that a client shows.
    pub stored_key: &'a [u8; 32],
    /// The key by which a server shows that it knows the hash above.
    pub server_key: &'a [u8; 32],
}

const SOUND: &str = "a change was read once and found sound";

impl<'a> AuthChange<'a> {
    /// Reads and judges a change at the front of what is read.
    pub fn decode(reader: &mut Reader<'a>) -> Result<AuthChange<'a>, CommandError> {
        let args = reader.rest();
        read_verb(reader)?;
        let length = args.len() - reader.rest().len();
        Ok(AuthChange { args: &args[..length] })
    }

    /// Reads the args of a change to their end.
    pub fn from_args(args: &'a [u8]) -> Result<AuthChange<'a>, CommandError> {
        let mut reader = Reader::new(args);
        let change = AuthChange::decode(&mut reader)?;
        match reader.rest().len() {
            0 => Ok(change),
            bytes => Err(CommandError::Trailing { bytes }),
        }
    }

    /// Its bytes.
    pub const fn args(&self) -> &'a [u8] {
        self.args
    }

    /// What it does.
    pub fn verb(&self) -> AuthVerb<'a> {
        read_verb(&mut Reader::new(self.args)).expect(SOUND)
    }
}

fn read_verb<'a>(reader: &mut Reader<'a>) -> Result<AuthVerb<'a>, CommandError> {
    let of = "a change of users or roles";
    let fields = reader.array()?.checked_sub(1);
    let fields = fields.ok_or(CommandError::Arity { of, expected: 1, found: 0 })?;
    let found = reader.uint()?;
    let expected = match found {
        1 => 0,
        0 | 3 | 7 | 8 => 1,
        2 | 4..=6 => 2,
        10 => 3,
        9 => 4,
        found => return Err(CommandError::Number { of, found }),
    };
    check_arity(of, expected, fields)?;
    Ok(match found {
        0 => AuthVerb::Enable { secret: read_key(reader, "length of a secret")? },
        1 => AuthVerb::Disable,
        2 => AuthVerb::UserAdd { name: read_name(reader)?, password: read_password(reader)? },
        3 => AuthVerb::UserDelete { name: read_name(reader)? },
        4 => {
            let (name, password) = (read_name(reader)?, read_password(reader)?);
            let missing = CommandError::Arity { of: "a password", expected: 4, found: 0 };
            AuthVerb::UserChangePassword { name, password: password.ok_or(missing)? }
        }
        5 => AuthVerb::UserGrantRole { user: read_name(reader)?, role: read_name(reader)? },
        6 => AuthVerb::UserRevokeRole { user: read_name(reader)?, role: read_name(reader)? },
        7 => AuthVerb::RoleAdd { name: read_name(reader)? },
        8 => AuthVerb::RoleDelete { name: read_name(reader)? },
        9 => {
            let (role, access) = (read_name(reader)?, read_access(reader)?);
            let permission = Permission { key: reader.bin()?, end: reader.bin()?, access };
            AuthVerb::RoleGrantPermission { role, permission }
        }
        _ => {
            let role = read_name(reader)?;
            AuthVerb::RoleRevokePermission { role, key: reader.bin()?, end: reader.bin()? }
        }
    })
}

/// A user's or a role's name; it may be empty.
pub(in crate::kv) fn read_name<'a>(reader: &mut Reader<'a>) -> Result<&'a str, CommandError> {
    let name = reader.bin()?;
    if name.len() > AUTH_NAME_BYTES_MAX {
        return Err(CommandError::Name { bytes: name.len() });
    }
    str::from_utf8(name).map_err(|_| CommandError::Name { bytes: name.len() })
}

pub(in crate::kv) fn read_access(reader: &mut Reader<'_>) -> Result<Access, CommandError> {
    let found = reader.uint()?;
    let of = "kind of permission";
    Access::from_code(found).ok_or(CommandError::Number { of, found })
}

/// What proves a password, if there is one.
pub(in crate::kv) fn read_password<'a>(
    reader: &mut Reader<'a>,
) -> Result<Option<PasswordProof<'a>>, CommandError> {
    let fields = reader.array()?;
    if fields == 0 {
        return Ok(None);
    }
    check_arity("a password", 4, fields)?;
    let (salt, rounds) = (reader.bin()?, reader.uint()?);
    let number = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    if !(NONCE_BYTES_MIN..=SALT_BYTES_MAX).contains(&salt.len()) {
        let of = "length of a salt";
        return Err(CommandError::Number { of, found: number(salt.len()) });
    }
    if !(PASSWORD_ROUNDS_MIN..=PASSWORD_ROUNDS_MAX).contains(&rounds) {
        return Err(CommandError::Number { of: "number of rounds", found: rounds });
    }
    let of = "length of a key of a password";
    let (stored_key, server_key) = (read_key(reader, of)?, read_key(reader, of)?);
    Ok(Some(PasswordProof { salt, rounds, stored_key, server_key }))
}

/// 32 bytes.
pub(in crate::kv) fn read_key<'a>(
    reader: &mut Reader<'a>,
    of: &'static str,
) -> Result<&'a [u8; 32], CommandError> {
    let key = reader.bin()?;
    let found = u64::try_from(key.len()).unwrap_or(u64::MAX);
    key.try_into().map_err(|_| CommandError::Number { of, found })
}

/// Appends what proves a password, or that there is none.
pub(in crate::kv) fn write_password(out: &mut Vec<u8>, password: Option<&PasswordProof<'_>>) {
    let Some(PasswordProof { salt, rounds, stored_key, server_key }) = password else {
        return msgpack::write_array(out, 0);
    };
    msgpack::write_array(out, 4);
    msgpack::write_bin(out, salt);
    msgpack::write_uint(out, *rounds);
    msgpack::write_bin(out, *stored_key);
    msgpack::write_bin(out, *server_key);
}

impl AuthVerb<'_> {
    const fn code(&self) -> u64 {
        match self {
            AuthVerb::Enable { .. } => 0,
            AuthVerb::Disable => 1,
            AuthVerb::UserAdd { .. } => 2,
            AuthVerb::UserDelete { .. } => 3,
            AuthVerb::UserChangePassword { .. } => 4,
            AuthVerb::UserGrantRole { .. } => 5,
            AuthVerb::UserRevokeRole { .. } => 6,
            AuthVerb::RoleAdd { .. } => 7,
            AuthVerb::RoleDelete { .. } => 8,
            AuthVerb::RoleGrantPermission { .. } => 9,
            AuthVerb::RoleRevokePermission { .. } => 10,
        }
    }

    /// Appends the args of the change.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let code = self.code();
        match *self {
            AuthVerb::Enable { secret } => {
                begin(out, 1, code);
                msgpack::write_bin(out, secret);
            }
            AuthVerb::Disable => begin(out, 0, code),
            AuthVerb::UserDelete { name }
            | AuthVerb::RoleAdd { name }
            | AuthVerb::RoleDelete { name } => {
                begin(out, 1, code);
                msgpack::write_bin(out, name.as_bytes());
            }
            AuthVerb::UserAdd { name, password } => {
                begin(out, 2, code);
                msgpack::write_bin(out, name.as_bytes());
                write_password(out, password.as_ref());
            }
            AuthVerb::UserChangePassword { name, password } => {
                begin(out, 2, code);
                msgpack::write_bin(out, name.as_bytes());
                write_password(out, Some(&password));
            }
            AuthVerb::UserGrantRole { user, role } | AuthVerb::UserRevokeRole { user, role } => {
                begin(out, 2, code);
                msgpack::write_bin(out, user.as_bytes());
                msgpack::write_bin(out, role.as_bytes());
            }
            AuthVerb::RoleGrantPermission { role, permission } => {
                begin(out, 4, code);
                msgpack::write_bin(out, role.as_bytes());
                msgpack::write_uint(out, permission.access.code());
                msgpack::write_bin(out, permission.key);
                msgpack::write_bin(out, permission.end);
            }
            AuthVerb::RoleRevokePermission { role, key, end } => {
                begin(out, 3, code);
                msgpack::write_bin(out, role.as_bytes());
                msgpack::write_bin(out, key);
                msgpack::write_bin(out, end);
            }
        }
    }
}

fn begin(out: &mut Vec<u8>, fields: u32, code: u64) {
    msgpack::write_array(out, 1 + fields);
    msgpack::write_uint(out, code);
}
