//! auth, user, role: who may do what. In etcdctl's words.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::{Args, Subcommand, ValueEnum};
use raftd::client::{
    Access, AuthChanged, AuthRefusal, AuthRequest, AuthVerb, Client, Error, GrantedPermission,
    NewPassword, Permission, new_secret, prefix_end,
};
use raftd::wire::error::Error as WireError;
use serde_json::{Map, Value, json};

use super::args::Format;
use super::exit::{End, Failure};
use super::output::{insert_bytes, json_line, table};
use super::password::new_password;
use super::verbs::{reach, single_key, span};

/// The user that must be there, and the role that it must have.
const ROOT: &str = "root";

#[derive(Subcommand, Debug)]
pub(crate) enum OfAuth {
    /// From now on whoever asks needs a right. There must be a user root; it gets the role root.
    Enable,
    /// From now on anybody may do anything. Users and roles stay.
    Disable,
    /// Whether whoever asks needs a right.
    Status,
}

#[derive(Subcommand, Debug)]
pub(crate) enum OfUser {
    /// Make a user. Its password is asked for, or is the first line of standard input.
    Add {
        /// Its name, and perhaps its password behind a colon.
        #[arg(value_name = "NAME[:PASSWORD]")]
        user: String,
        /// Its password.
        #[arg(long, value_name = "PASSWORD", conflicts_with = "no_password")]
        new_user_password: Option<String>,
        /// It has no password, and cannot log in: only a gateway acts for it.
        #[arg(long)]
        no_password: bool,
    },
    /// Take a user away.
    Delete {
        /// Its name.
        user: String,
    },
    /// Which roles a user has.
    Get {
        /// Its name.
        user: String,
        /// And what these allow.
        #[arg(long)]
        detail: bool,
    },
    /// All users.
    List,
    /// Give a user another password: whoever has logged in with the one before is out.
    Passwd {
        /// Its name.
        user: String,
    },
    /// Give a user a role.
    GrantRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// Take a role from a user.
    RevokeRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum OfRole {
    /// Make a role, without permissions.
    Add {
        /// Its name.
        role: String,
    },
    /// Take a role away, also from all who have it.
    Delete {
        /// Its name.
        role: String,
    },
    /// What a role allows.
    Get {
        /// Its name.
        role: String,
    },
    /// All roles.
    List,
    /// Let a role read or write a key, or the keys from one on, before another.
    GrantPermission {
        /// The role.
        role: String,
        /// What is allowed.
        #[arg(value_enum, ignore_case = true)]
        access: Kind,
        #[command(flatten)]
        keys: Keys,
    },
    /// Take the permission for exactly this key or range from a role.
    RevokePermission {
        /// The role.
        role: String,
        #[command(flatten)]
        keys: Keys,
    },
}

impl OfUser {
    /// Whether somebody is asked for a password, if there is a terminal.
    pub(crate) fn asks_for_a_password(&self) -> bool {
        match self {
            OfUser::Add { user, new_user_password, no_password } => {
                new_user_password.is_none() && !no_password && !user.contains(':')
            }
            OfUser::Passwd { .. } => true,
            OfUser::Delete { .. }
            | OfUser::Get { .. }
            | OfUser::List
            | OfUser::GrantRole { .. }
            | OfUser::RevokeRole { .. } => false,
        }
    }
}

/// What a permission allows.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Kind {
    /// To read.
    Read,
    /// To put and to delete.
    Write,
    /// Both.
    Readwrite,
}

#[derive(Args, Debug)]
pub(crate) struct Keys {
    /// The key, or the first one.
    key: OsString,
    /// Where the range ends.
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    range_end: Option<OsString>,
    /// Every key that begins with KEY; an empty KEY is all keys.
    #[arg(long, conflicts_with = "from_key")]
    prefix: bool,
    /// Every key from KEY on; an empty KEY is all keys.
    #[arg(long)]
    from_key: bool,
}

impl Keys {
    fn span(&self) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        match &self.range_end {
            Some(end) => Ok((single_key(&self.key)?, end.as_bytes().to_vec())),
            None => span(&self.key, reach(None, self.prefix, self.from_key)),
        }
    }

    /// How etcdctl names what it has revoked.
    fn shown(&self, key: &[u8], end: &[u8]) -> String {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        match end {
            [] => format!("key {}", text(key)),
            [0] => format!("range [{}, <open ended>", text(key)),
            end => format!("range [{}, {})", text(key), text(end)),
        }
    }
}

pub(crate) fn auth(client: &mut Client, format: Format, verb: OfAuth) -> Result<Vec<u8>, Failure> {
    match verb {
        OfAuth::Enable => {
            let done = enable(client)?;
            Ok(changed(format, "Authentication Enabled", done))
        }
        OfAuth::Disable => {
            let done = client.change_auth(&AuthVerb::Disable)?;
            Ok(changed(format, "Authentication Disabled", done))
        }
        OfAuth::Status => {
            let found = client.read_auth(&AuthRequest::Status)?;
            let (enabled, revision) = (found.enabled, found.auth_revision);
            Ok(match format {
                Format::Simple => {
                    format!("Authentication Status: {enabled}\nAuthRevision: {revision}\n")
                        .into_bytes()
                }
                Format::Json => {
                    json_line(&json!({ "enabled": enabled, "auth_revision": revision }))
                }
                Format::Table => table(
                    &["ENABLED", "AUTH REVISION"],
                    &[vec![enabled.to_string(), revision.to_string()]],
                ),
            })
        }
    }
}

/// As etcdctl: what `root` lacks to be root, it gets.
fn enable(client: &mut Client) -> Result<AuthChanged, Failure> {
    let secret = new_secret().map_err(|why| Failure { end: End::Refused, why: why.into() })?;
    let verb = AuthVerb::Enable { secret: &secret };
    match client.change_auth(&verb) {
        Err(why) if refused_by(&why, AuthRefusal::RootRoleNotExist) => {}
        done => return Ok(done?),
    }
    match client.change_auth(&AuthVerb::RoleAdd { name: ROOT }) {
        Err(why) if refused_by(&why, AuthRefusal::RoleAlreadyExist) => {}
        done => drop(done?),
    }
    client.change_auth(&AuthVerb::UserGrantRole { user: ROOT, role: ROOT })?;
    Ok(client.change_auth(&verb)?)
}

fn refused_by(error: &Error, why: AuthRefusal) -> bool {
    matches!(error, Error::Refused { source: WireError::Auth { why: found }, .. } if *found == why)
}

pub(crate) fn user(client: &mut Client, format: Format, verb: OfUser) -> Result<Vec<u8>, Failure> {
    let (done, said) = match verb {
        OfUser::List => return list(client, format, AuthRequest::Users, "users"),
        OfUser::Get { user, detail } => return get_user(client, format, &user, detail),
        OfUser::Add { user, new_user_password, no_password } => {
            let (name, given) = match (user.split_once(':'), new_user_password) {
                (Some((name, password)), None) if !no_password => {
                    (name.to_owned(), Some(password.to_owned()))
                }
                (_, given) => (user, given),
            };
            (add_user(client, &name, given, no_password)?, format!("User {name} created"))
        }
        OfUser::Delete { user } => {
            let done = client.change_auth(&AuthVerb::UserDelete { name: &user })?;
            (done, format!("User {user} deleted"))
        }
        OfUser::Passwd { user } => {
            let password = hashed(&new_password(&user)?)?;
            let password = password.proof();
            let verb = AuthVerb::UserChangePassword { name: &user, password };
            (client.change_auth(&verb)?, "Password updated".to_owned())
        }
        OfUser::GrantRole { user, role } => {
            let verb = AuthVerb::UserGrantRole { user: &user, role: &role };
            (client.change_auth(&verb)?, format!("Role {role} is granted to user {user}"))
        }
        OfUser::RevokeRole { user, role } => {
            let verb = AuthVerb::UserRevokeRole { user: &user, role: &role };
            (client.change_auth(&verb)?, format!("Role {role} is revoked from user {user}"))
        }
    };
    Ok(changed(format, &said, done))
}

fn add_user(
    client: &mut Client,
    name: &str,
    given: Option<String>,
    no_password: bool,
) -> Result<AuthChanged, Failure> {
    if no_password {
        return Ok(client.change_auth(&AuthVerb::UserAdd { name, password: None })?);
    }
    let password = match given {
        Some(password) => password,
        None => new_password(name)?,
    };
    let password = hashed(&password)?;
    let password = Some(password.proof());
    Ok(client.change_auth(&AuthVerb::UserAdd { name, password })?)
}

fn hashed(password: &str) -> Result<NewPassword, Failure> {
    if password.is_empty() {
        return Err(Failure::usage("the password is empty"));
    }
    NewPassword::of(password).map_err(|why| Failure { end: End::Refused, why: why.into() })
}

fn get_user(
    client: &mut Client,
    format: Format,
    name: &str,
    detail: bool,
) -> Result<Vec<u8>, Failure> {
    let found = client.read_auth(&AuthRequest::User { name })?;
    Ok(match format {
        Format::Simple if detail => {
            let mut text = format!("User: {name}\n");
            for role in &found.names {
                let role_found = client.read_auth(&AuthRequest::Role { name: role })?;
                text += &role_lines(role, &role_found.permissions);
            }
            text.into_bytes()
        }
        Format::Simple => format!("User: {name}\nRoles: {}\n", found.names.join(" ")).into_bytes(),
        Format::Json => json_line(&json!({
            "user": name,
            "roles": found.names,
            "has_password": found.has_password,
            "auth_revision": found.auth_revision,
        })),
        Format::Table => table(&["USER", "ROLES"], &[vec![name.to_owned(), found.names.join(" ")]]),
    })
}

fn list(
    client: &mut Client,
    format: Format,
    request: AuthRequest<'_>,
    what: &str,
) -> Result<Vec<u8>, Failure> {
    let found = client.read_auth(&request)?;
    Ok(match format {
        Format::Simple => {
            found.names.iter().flat_map(|name| format!("{name}\n").into_bytes()).collect()
        }
        Format::Json => {
            json_line(&json!({ what: found.names, "auth_revision": found.auth_revision }))
        }
        Format::Table => {
            let rows: Vec<_> = found.names.iter().map(|name| vec![name.clone()]).collect();
            table(&[&what.to_uppercase()], &rows)
        }
    })
}

pub(crate) fn role(client: &mut Client, format: Format, verb: OfRole) -> Result<Vec<u8>, Failure> {
    let (done, said) = match verb {
        OfRole::List => return list(client, format, AuthRequest::Roles, "roles"),
        OfRole::Get { role } => return get_role(client, format, &role),
        OfRole::Add { role } => {
            let done = client.change_auth(&AuthVerb::RoleAdd { name: &role })?;
            (done, format!("Role {role} created"))
        }
        OfRole::Delete { role } => {
            let done = client.change_auth(&AuthVerb::RoleDelete { name: &role })?;
            (done, format!("Role {role} deleted"))
        }
        OfRole::GrantPermission { role, access, keys } => {
            let (key, end) = keys.span()?;
            let access = match access {
                Kind::Read => Access::Read,
                Kind::Write => Access::Write,
                Kind::Readwrite => Access::ReadWrite,
            };
            let permission = Permission { key: &key, end: &end, access };
            let verb = AuthVerb::RoleGrantPermission { role: &role, permission };
            (client.change_auth(&verb)?, format!("Role {role} updated"))
        }
        OfRole::RevokePermission { role, keys } => {
            let (key, end) = keys.span()?;
            let verb = AuthVerb::RoleRevokePermission { role: &role, key: &key, end: &end };
            let done = client.change_auth(&verb)?;
            let shown = keys.shown(&key, &end);
            (done, format!("Permission of {shown} is revoked from role {role}"))
        }
    };
    Ok(changed(format, &said, done))
}

fn get_role(client: &mut Client, format: Format, name: &str) -> Result<Vec<u8>, Failure> {
    let found = client.read_auth(&AuthRequest::Role { name })?;
    Ok(match format {
        Format::Simple => role_lines(name, &found.permissions).into_bytes(),
        Format::Json => {
            let permissions: Vec<Value> = found.permissions.iter().map(permission_json).collect();
            json_line(&json!({
                "role": name,
                "permissions": permissions,
                "auth_revision": found.auth_revision,
            }))
        }
        Format::Table => {
            let row = |it: &GrantedPermission| {
                let end = it.end.escape_ascii().to_string();
                vec![access_name(it.access).to_owned(), it.key.escape_ascii().to_string(), end]
            };
            let rows: Vec<_> = found.permissions.iter().map(row).collect();
            table(&["ACCESS", "KEY", "RANGE END"], &rows)
        }
    })
}

const fn access_name(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
        Access::ReadWrite => "readwrite",
    }
}

fn permission_json(permission: &GrantedPermission) -> Value {
    let mut object = Map::new();
    object.insert("access".to_owned(), access_name(permission.access).into());
    insert_bytes(&mut object, "key", &permission.key);
    insert_bytes(&mut object, "range_end", &permission.end);
    Value::Object(object)
}

/// What a role allows, in etcdctl's way.
fn role_lines(name: &str, permissions: &[GrantedPermission]) -> String {
    let mut text = format!("Role {name}\n");
    let everything = name == ROOT && permissions.is_empty();
    for (heading, access) in [("KV Read:", Access::Read), ("KV Write:", Access::Write)] {
        text += &format!("{heading}\n");
        if everything {
            text += "\t[, <open ended>\n";
        }
        let allowed =
            |it: &&GrantedPermission| it.access == access || it.access == Access::ReadWrite;
        for permission in permissions.iter().filter(allowed) {
            text += &format!("\t{}\n", shown(permission));
        }
    }
    text
}

fn shown(permission: &GrantedPermission) -> String {
    let GrantedPermission { key, end, .. } = permission;
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let range = match &end[..] {
        [] => return text(key),
        [0] => format!("[{}, <open ended>", text(key)),
        end => format!("[{}, {})", text(key), text(end)),
    };
    if prefix_end(key) == *end { format!("{range} (prefix {})", text(key)) } else { range }
}

fn changed(format: Format, said: &str, done: AuthChanged) -> Vec<u8> {
    let AuthChanged { revision, auth_revision } = done;
    match format {
        Format::Simple => format!("{said}\n").into_bytes(),
        Format::Json => {
            json_line(&json!({ "revision": revision.0, "auth_revision": auth_revision }))
        }
        Format::Table => table(&["AUTH REVISION"], &[vec![auth_revision.to_string()]]),
    }
}
