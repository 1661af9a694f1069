//! What somebody may do to which keys.
//!
//! A role's permissions, read or written, are merged into spans: what one permission ends and
//! another begins is one span, so whoever may read `[a, b)` and `[b, c)` may read `[a, c)`. A range
//! may be read if the spans of all roles together cover it: from its first key on we go as far as
//! the role that reaches furthest, until its end, or a gap. etcd's.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;

use super::super::command::RangeEnd;
use super::{ROOT, Role, Tables, User};

/// What a permission allows. The numbers are etcd's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Access {
    /// To read.
    Read,
    /// To put and to delete.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    /// The number on the wire and in the log.
    pub const fn code(self) -> u64 {
        match self {
            Access::Read => 0,
            Access::Write => 1,
            Access::ReadWrite => 2,
        }
    }

    /// The access of such a number.
    pub const fn from_code(code: u64) -> Option<Access> {
        match code {
            0 => Some(Access::Read),
            1 => Some(Access::Write),
            2 => Some(Access::ReadWrite),
            _ => None,
        }
    }

    const fn reads(self) -> bool {
        match self {
            Access::Read | Access::ReadWrite => true,
            Access::Write => false,
        }
    }

    const fn writes(self) -> bool {
        match self {
            Access::Write | Access::ReadWrite => true,
            Access::Read => false,
        }
    }
}

/// Why somebody may not do what it asks. Nothing was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denial {
    /// It has no such right. etcd's `ErrPermissionDenied`.
    NotPermitted,
    /// It has not said who it is. etcd's `ErrUserEmpty`.
    NoUser,
    /// The user that it was is gone, or has another password: it has to log in again. etcd's
    /// `ErrInvalidAuthToken`.
    LoginEnded,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denial::NotPermitted => "permission denied",
            Denial::NoUser => "log in first: name a user and its password",
            Denial::LoginEnded => "the login has ended: the user is gone or has another password",
        })
    }
}

impl Error for Denial {}

/// The keys from one on, before another; `None`: all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Span {
    start: Box<[u8]>,
    end: Option<Box<[u8]>>,
}

/// Spans that do not touch each other, ascending.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Spans(Vec<Span>);

/// How far a span goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Reach<'s> {
    /// To the keys before this one.
    Before(&'s [u8]),
    Unbounded,
}

impl Spans {
    /// What the permissions of a role add up to, for readers or for writers. They come ascending.
    fn of<'p>(permissions: impl Iterator<Item = (&'p [u8], RangeEnd<'p>)>) -> Spans {
        let mut spans: Vec<Span> = Vec::new();
        for (key, end) in permissions {
            let end: Option<Box<[u8]>> = match end {
                // No key is between a key and the same with a zero byte behind it.
                RangeEnd::Key => Some([key, &[0]].concat().into()),
                RangeEnd::Before(end) => Some(end.into()),
                RangeEnd::Unbounded => None,
            };
            match spans.last_mut() {
                Some(last) if last.end.as_deref().is_none_or(|before| key <= before) => {
                    let further = match (&last.end, &end) {
                        (None, _) | (_, None) => None,
                        (Some(one), Some(other)) => Some(one.max(other).clone()),
                    };
                    last.end = further;
                }
                Some(_) | None => spans.push(Span { start: key.into(), end }),
            }
        }
        Spans(spans)
    }

    /// How far the span goes that holds a key.
    fn reach(&self, key: &[u8]) -> Option<Reach<'_>> {
        let behind = self.0.partition_point(|span| *span.start <= *key);
        let span = self.0.get(behind.checked_sub(1)?)?;
        match span.end.as_deref() {
            None => Some(Reach::Unbounded),
            Some(end) if key < end => Some(Reach::Before(end)),
            Some(_) => None,
        }
    }
}

impl Role {
    /// Merges its permissions anew.
    pub(super) fn merge(&mut self) {
        let of = |wanted: fn(Access) -> bool| {
            let permissions = self.permissions.iter().filter(move |(_, access)| wanted(**access));
            Spans::of(permissions.map(|((key, end), _)| (&**key, RangeEnd::from_bytes(end))))
        };
        let (read, write) = (of(Access::reads), of(Access::writes));
        (self.read, self.write) = (read, write);
    }
}

/// What somebody may do, as things are now.
#[derive(Clone, Copy)]
pub enum Rights<'s> {
    /// Everything: it is the cluster itself, or has the role `root`.
    All,
    /// What the roles of a user allow.
    Of(UserRoles<'s>),
}

/// The roles of a user.
#[derive(Clone, Copy)]
pub struct UserRoles<'s> {
    tables: &'s Tables,
    roles: &'s BTreeSet<Box<str>>,
}

impl<'s> Rights<'s> {
    pub(super) fn of(tables: &'s Tables, user: &'s User) -> Rights<'s> {
        if user.roles.contains(ROOT) {
            return Rights::All;
        }
        Rights::Of(UserRoles { tables, roles: &user.roles })
    }

    /// Whether it may do what only `root` may: change members, users and roles, compact, save.
    pub fn administer(&self) -> Result<(), Denial> {
        match self {
            Rights::All => Ok(()),
            Rights::Of(_) => Err(Denial::NotPermitted),
        }
    }

    /// Whether it may read all keys of a range. Of an empty one: its first key.
    pub fn read(&self, key: &[u8], end: RangeEnd<'_>) -> Result<(), Denial> {
        self.cover(key, end, |role| &role.read)
    }

    /// Whether it may put and delete all keys of a range. Of an empty one: its first key.
    pub fn write(&self, key: &[u8], end: RangeEnd<'_>) -> Result<(), Denial> {
        self.cover(key, end, |role| &role.write)
    }

    fn cover(
        &self,
        key: &[u8],
        end: RangeEnd<'_>,
        spans: fn(&Role) -> &Spans,
    ) -> Result<(), Denial> {
        let Rights::Of(UserRoles { tables, roles }) = self else { return Ok(()) };
        let furthest = |from: &[u8]| {
            // A role may be gone from the tables only together with whoever had it.
            let granted = roles.iter().filter_map(|role| tables.roles.get(role));
            granted.filter_map(|role| spans(role).reach(from)).max()
        };
        let mut from = key;
        loop {
            let reached = furthest(from).ok_or(Denial::NotPermitted)?;
            match (reached, end) {
                (Reach::Unbounded, _) | (_, RangeEnd::Key) => return Ok(()),
                (Reach::Before(reached), RangeEnd::Before(end)) if end <= reached => return Ok(()),
                (Reach::Before(reached), RangeEnd::Before(_) | RangeEnd::Unbounded) => {
                    assert!(from < reached, "a span that holds a key goes beyond it");
                    from = reached;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Auth;
    use super::super::change::{AuthVerb, Permission};
    use super::*;

    /// A role and its permissions.
    type Given<'a> = (&'a str, &'a [(&'a str, &'a str, Access)]);

    fn auth_of(roles: &[Given<'_>]) -> Auth {
        let mut auth = Auth::new();
        auth.change(&AuthVerb::UserAdd { name: "u", password: None }).unwrap();
        for (role, permissions) in roles {
            auth.change(&AuthVerb::RoleAdd { name: role }).unwrap();
            auth.change(&AuthVerb::UserGrantRole { user: "u", role }).unwrap();
            for (key, end, access) in *permissions {
                let (key, end) = (key.as_bytes(), end.as_bytes());
                let permission = Permission { key, end, access: *access };
                auth.change(&AuthVerb::RoleGrantPermission { role, permission }).unwrap();
            }
        }
        auth
    }

    fn reads(auth: &Auth, key: &str, end: &str) -> bool {
        let user = auth.user("u").unwrap();
        let end = RangeEnd::from_bytes(end.as_bytes());
        Rights::of(auth.tables(), user).read(key.as_bytes(), end).is_ok()
    }

    #[test]
    fn a_range_is_covered_by_all_roles_together_or_not_at_all() {
        use Access::{Read, ReadWrite, Write};
        let auth = auth_of(&[
            ("one", &[("a", "c", Read), ("c", "d", ReadWrite), ("x", "\0", Read)]),
            ("two", &[("d", "f", Read), ("f", "g", Write), ("g", "", Read)]),
        ]);
        for (key, end, expected) in [
            ("a", "", true),
            ("a", "f", true),
            ("b", "e", true),
            ("a", "f\0", false),
            ("f", "", false),
            ("g", "", true),
            ("g", "g\0", true),
            ("g", "g\0\0", false),
            ("g\0", "", false),
            ("x", "\0", true),
            ("w", "\0", false),
            ("yy", "z", true),
            ("\0", "\0", false),
            ("A", "b", false),
            ("b", "a", true),
            ("f", "a", false),
        ] {
            assert_eq!(reads(&auth, key, end), expected, "{key:?} {end:?}");
        }
    }

    #[test]
    fn a_permission_of_the_same_range_takes_the_place_of_the_one_before() {
        let auth = auth_of(&[("one", &[("a", "c", Access::Read), ("a", "c", Access::Write)])]);
        assert!(!reads(&auth, "a", ""));
        let auth = auth_of(&[("one", &[("a", "c", Access::Write), ("a", "", Access::Read)])]);
        assert!(reads(&auth, "a", "") && !reads(&auth, "b", ""));
    }
}
