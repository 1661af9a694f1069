//! Messages with many fields and no hurry, as serde structures: arrays in the order of the fields.
//!
//! Why a macro beside `derive(Deserialize)`: the derived reader refuses an array that is longer
//! than the structure, and a newer peer sends longer ones.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::codec::msgpack::Reader;
use crate::limits::MEMBERS_MAX;
use crate::types::{ClusterId, DiskId, LogIndex, NodeId, Revision, Term};

use super::fields::{DecodeError, NUMBER_MAX, expect_end, skip};

/// Our own structures nest three deep; fields to come may nest a little more.
const DEPTH_MAX: usize = 16;

/// Appends a structure as an array of its fields.
pub(super) fn encode<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    rmp_serde::encode::write(out, value).expect("a Vec takes every byte, and the types are ours");
}

/// Reads a structure that fills `bytes`. `what` names it in errors.
pub(super) fn decode<'a, T: Deserialize<'a>>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<T, DecodeError> {
    // Every announced length is there, and nothing follows: serde sees only whole values.
    let mut reader = Reader::new(bytes);
    skip(&mut reader)?;
    expect_end(&reader)?;
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut deserializer).map_err(|source| DecodeError::Structure { what, source })
}

/// Defines a structure that is an array on the wire, and ignores what follows its last field.
macro_rules! wire_struct {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty $(=> $via:ident)?,)*
    }) => {
        $(#[$meta])*
        #[derive(serde::Serialize)]
        $vis struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<$name, D::Error> {
                struct Fields;
                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("the fields of a ", stringify!($name)))
                    }
                    fn visit_seq<A: serde::de::SeqAccess<'de>>(
                        self,
                        mut from: A,
                    ) -> Result<$name, A::Error> {
                        $(let $field = crate::wire::structs::wire_field!(from, $type $(, $via)?)
                            .ok_or_else(|| serde::de::Error::missing_field(stringify!($field)))?;)*
                        while from.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                        Ok($name { $($field),* })
                    }
                }
                from.deserialize_seq(Fields)
            }
        }
    };
}

/// Reads one field: as its own type, or through a wrapper that bounds it.
macro_rules! wire_field {
    ($from:ident, $type:ty) => {
        $from.next_element::<$type>()?
    };
    ($from:ident, $type:ty, $via:ident) => {
        $from.next_element::<crate::wire::structs::$via<_>>()?.map(|wrapped| wrapped.0)
    };
}
pub(super) use {wire_field, wire_struct};

/// At most `MEMBERS_MAX` values; room is made as they come, not as they are announced.
pub(super) struct Members<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Members<T>, D::Error> {
        from.deserialize_seq(MembersVisitor(PhantomData))
    }
}

struct MembersVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for MembersVisitor<T> {
    type Value = Members<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {MEMBERS_MAX} members")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Members<T>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = from.next_element()? {
            if members.len() == MEMBERS_MAX {
                return Err(A::Error::invalid_length(MEMBERS_MAX + 1, &self));
            }
            members.push(member);
        }
        Ok(Members(members))
    }
}

macro_rules! number_on_the_wire {
    ($($name:ident: $get:expr, $new:expr;)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let get: fn($name) -> u64 = $get;
                to.serialize_u64(get(*self))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<$name, D::Error> {
                let new: fn(u64) -> Option<$name> = $new;
                let number = u64::deserialize(from)?;
                new(number).ok_or_else(|| {
                    let what = format_args!("{number} is out of range for a {}", stringify!($name));
                    D::Error::custom(what)
                })
            }
        }
    )*};
}
number_on_the_wire! {
    Term: Term::get, |number| bounded(number).map(Term::new);
    LogIndex: LogIndex::get, |number| bounded(number).map(LogIndex::new);
    Revision: |revision| revision.0, |number| bounded(number).map(Revision);
    NodeId: NodeId::get, NodeId::new;
}

fn bounded(number: u64) -> Option<u64> {
    (number <= NUMBER_MAX).then_some(number)
}

macro_rules! id_on_the_wire {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_bytes(&self.0.to_be_bytes())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<$name, D::Error> {
                from.deserialize_bytes(IdVisitor).map($name)
            }
        }
    )*};
}
id_on_the_wire!(ClusterId, DiskId);

/// 16 bytes, big-endian: the order in which people see the digits.
struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = u128;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string of 16 bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<u128, E> {
        let id = bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))?;
        Ok(u128::from_be_bytes(id))
    }
}
