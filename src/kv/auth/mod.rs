//! Who may do what: users, roles and their permissions, as part of the replicated state. etcd's.
//!
//! ```text
//! user        name → credential, what proves its password, its roles
//! role        name → READ, WRITE or READWRITE of keys and ranges
//! credential  a number that stands for a user with a certain password; never given twice
//! ```
//!
//! Whoever connects proves a password (`wire/login.rs`) and has its credential from then on. What
//! it asks enters the log with that number in front (`Asker`), and is judged where it is applied,
//! by the rights of then: on every node the same. So there is no request that was allowed once and
//! is done after its right has gone; and a password that is changed ends all that was logged in
//! with the one before.
//!
//! The user `root` must have the role `root` before rights count; while they do, neither can be
//! taken away. Whoever has the role `root` may do everything, and nobody else changes this state.
//!
//! Changes are rare and small: each walks over all users and roles once, for the hash and the size.
//! A checkpoint sees the tables of its moment: the first change after that copies them.

mod change;
mod gate;
mod rights;
mod rows;
mod verbs;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

pub use change::{AuthChange, AuthVerb, PasswordProof, Permission};
pub use rights::{Access, Denial, Rights};
pub(super) use rows::{Restored, RoleRow, write_permission};
pub use verbs::AuthRefusal;

use crate::limits::{NONCE_BYTES_MIN, PASSWORD_ROUNDS_DEFAULT};
use crate::types::Credential;

/// The user that must be there, and the role that it must have.
pub(super) const ROOT: &str = "root";

/// The revision of users and roles that were never changed. etcd's.
const AUTH_REVISION_FIRST: u64 = 1;

/// Who asks for something, as the log says it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Asker {
    /// Who has logged in; `NONE`: nobody.
    pub login: Credential,
    /// For whom it acts, which only `root` may; `NONE`: for itself.
    pub acting: Credential,
}

impl Asker {
    /// Who has not said who it is.
    pub const NOBODY: Asker = Asker { login: Credential::NONE, acting: Credential::NONE };
    /// The cluster itself.
    pub const CLUSTER: Asker = Asker { login: Credential::CLUSTER, acting: Credential::NONE };
}

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    credential: Credential,
    password: Option<Password>,
    roles: BTreeSet<Box<str>>,
}

/// What proves a password, owned.
#[derive(Clone, Debug)]
struct Password {
    salt: Box<[u8]>,
    rounds: u64,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl Password {
    fn of(proof: &PasswordProof<'_>) -> Password {
        Password {
            salt: proof.salt.into(),
            rounds: proof.rounds,
            stored_key: *proof.stored_key,
            server_key: *proof.server_key,
        }
    }

    fn shape(&self) -> PasswordShape {
        PasswordShape { rounds: self.rounds, salt_bytes: self.salt.len() }
    }

    fn proof(&self) -> PasswordProof<'_> {
        PasswordProof {
            salt: &self.salt,
            rounds: self.rounds,
            stored_key: &self.stored_key,
            server_key: &self.server_key,
        }
    }
}

impl User {
    /// What it is named by in the log.
    pub fn credential(&self) -> Credential {
        self.credential
    }

    /// What proves its password, if it has one.
    pub fn password(&self) -> Option<PasswordProof<'_>> {
        self.password.as_ref().map(Password::proof)
    }

    /// Its roles, ascending.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(|role| &**role)
    }
}

/// What a permission is of: the first key, and the end of the range in the wire's form.
type Place = (Box<[u8]>, Box<[u8]>);

/// A role.
#[derive(Clone, Default, Debug)]
pub struct Role {
    permissions: BTreeMap<Place, Access>,
    read: rights::Spans,
    write: rights::Spans,
}

impl Role {
    /// Its permissions, ascending by their keys.
    pub fn permissions(&self) -> impl ExactSizeIterator<Item = Permission<'_>> {
        self.permissions.iter().map(|((key, end), access)| Permission { key, end, access: *access })
    }
}

/// Users and roles.
#[derive(Clone, Default, Debug)]
struct Tables {
    users: BTreeMap<Box<str>, User>,
    roles: BTreeMap<Box<str>, Role>,
    /// Whose each credential is.
    names: BTreeMap<Credential, Box<str>>,
}

/// What a checkpoint looks at.
#[derive(Debug)]
enum Pinned {
    /// There is none.
    Nothing,
    /// The tables as they are: nothing has changed since.
    Unchanged,
    /// As they were.
    Aside(Box<Tables>),
}

/// What a pinned moment kept.
pub(in crate::kv) struct SetAside {
    _pinned: Pinned,
}

/// What anybody may hear of a password: whoever says a user's name is told what to hash with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PasswordShape {
    /// How often it is hashed.
    pub rounds: u64,
    /// How long its salt is. Bytes.
    pub salt_bytes: usize,
}

impl PasswordShape {
    /// That of a password that is set by our own clients.
    const USUAL: PasswordShape =
        PasswordShape { rounds: PASSWORD_ROUNDS_DEFAULT, salt_bytes: NONCE_BYTES_MIN };
}

/// Who may do what.
#[derive(Debug)]
pub struct Auth {
    numbers: AuthNumbers,
    tables: Tables,
    pinned: Pinned,
    /// What it adds to the state hash beside its numbers.
    hash: u64,
    /// What the tables take.
    bytes: usize,
    /// Those of all passwords, ascending.
    shapes: Vec<PasswordShape>,
    changes: u64,
}

/// The numbers beside users and roles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuthNumbers {
    /// Whether rights count.
    pub enabled: bool,
    /// Counts the changes of users and roles.
    pub revision: u64,
    /// The last credential given.
    pub credentials: u64,
    /// Random, and known to nobody: what is said of users that there are not is made of it. `None`
    /// until rights count for the first time.
    pub secret: Option<[u8; 32]>,
}

impl AuthNumbers {
    const FIRST: AuthNumbers = AuthNumbers {
        enabled: false,
        revision: AUTH_REVISION_FIRST,
        credentials: Credential::CLUSTER.0,
        secret: None,
    };

    /// Whether anything was ever changed.
    pub(super) fn are_first(&self) -> bool {
        *self == AuthNumbers::FIRST
    }
}

impl Auth {
    pub(super) fn new() -> Auth {
        Auth {
            numbers: AuthNumbers::FIRST,
            tables: Tables::default(),
            pinned: Pinned::Nothing,
            hash: 0,
            bytes: 0,
            shapes: Vec::new(),
            changes: 0,
        }
    }

    /// Whether rights count.
    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.numbers.enabled
    }

    /// Counts the changes of users and roles, as etcd's: from 1.
    pub fn revision(&self) -> u64 {
        self.numbers.revision
    }

    /// The numbers beside users and roles.
    pub fn numbers(&self) -> AuthNumbers {
        self.numbers
    }

    /// Grows with every change here, also of whether rights count: for whoever has to look again.
    /// Differs between nodes.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// A user.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.tables.users.get(name)
    }

    /// What the password of a user that there is not looks like: as one of those that there are,
    /// each as often as users have it. Where in between `place` says, of 2⁶⁴. It changes only if
    /// users do, and for few places at a time: of none while all users have the same.
    pub fn shape_at(&self, place: u64) -> PasswordShape {
        let count = u128::try_from(self.shapes.len()).expect("usize is at most 64 bits");
        let nth = usize::try_from((u128::from(place) * count) >> u64::BITS);
        let nth = nth.expect("place is below 2⁶⁴, so it is below the length");
        self.shapes.get(nth).copied().unwrap_or(PasswordShape::USUAL)
    }

    /// All users, ascending.
    pub fn users(&self) -> impl Iterator<Item = (&str, &User)> {
        self.tables.users.iter().map(|(name, user)| (&**name, user))
    }

    /// A role.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.tables.roles.get(name)
    }

    /// All roles, ascending.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &Role)> {
        self.tables.roles.iter().map(|(name, role)| (&**name, role))
    }

    /// Whose a credential is; `None`: nobody's any more.
    pub fn name_of(&self, credential: Credential) -> Option<&str> {
        self.tables.names.get(&credential).map(|name| &**name)
    }

    /// What somebody may do. Whether rights count at all is asked before.
    pub fn rights(&self, asker: Asker) -> Result<Rights<'_>, Denial> {
        let Asker { login, acting } = asker;
        if login == Credential::CLUSTER {
            return Ok(Rights::All);
        }
        if login == Credential::NONE {
            return Err(Denial::NoUser);
        }
        let rights = self.rights_of(login)?;
        if acting == Credential::NONE {
            return Ok(rights);
        }
        rights.administer()?;
        self.rights_of(acting)
    }

    fn rights_of(&self, credential: Credential) -> Result<Rights<'_>, Denial> {
        let user = self.name_of(credential).and_then(|name| self.user(name));
        user.map(|user| Rights::of(&self.tables, user)).ok_or(Denial::LoginEnded)
    }

    #[cfg(test)]
    fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The tables, to be changed.
    fn tables_mut(&mut self) -> &mut Tables {
        if matches!(self.pinned, Pinned::Unchanged) {
            self.pinned = Pinned::Aside(Box::new(self.tables.clone()));
        }
        &mut self.tables
    }

    pub(super) fn pin(&mut self) {
        assert!(matches!(self.pinned, Pinned::Nothing), "one moment at a time");
        self.pinned = Pinned::Unchanged;
    }

    pub(super) fn unpin(&mut self) -> SetAside {
        SetAside { _pinned: mem::replace(&mut self.pinned, Pinned::Nothing) }
    }

    /// What the tables add to the state hash.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// Counts credentials that may have been given elsewhere: they are not given here.
    pub(super) fn skip_credentials(&mut self, count: u64) {
        self.numbers.credentials = self.numbers.credentials.saturating_add(count);
    }
}
