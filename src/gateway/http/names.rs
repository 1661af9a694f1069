//! Names in JSON that stand for numbers, looked at before a message is read: whoever reads it
//! overlooks one that is not known as it overlooks a field, and `NOTEQUAL` would be `EQUAL`, the
//! number of what is left out.

use std::borrow::Cow;
use std::fmt;

use prost_reflect::{EnumDescriptor, FieldDescriptor, MessageDescriptor};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tonic::Status;

/// Refuses a name that has no number, in etcd's words. What else is wrong is found by whoever reads
/// the message.
pub(super) fn check(message: &MessageDescriptor, json: &[u8]) -> Result<(), Status> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let looked = Expected::Message(message.clone()).deserialize(&mut deserializer);
    let Some(why) = looked.err().filter(serde_json::Error::is_data) else { return Ok(()) };
    // etcd does not say where.
    let place = format!(" at line {} column {}", why.line(), why.column());
    let text = why.to_string();
    Err(Status::invalid_argument(text.strip_suffix(&place).unwrap_or(&text)))
}

/// What may stand somewhere: one, or a list of them.
#[derive(Clone)]
enum Expected {
    Message(MessageDescriptor),
    /// Values by keys, of which this message would be one.
    Map(MessageDescriptor),
    Enum(EnumDescriptor),
    /// Nothing that has names.
    Other,
}

impl Expected {
    fn of(field: &FieldDescriptor) -> Expected {
        let kind = field.kind();
        match (kind.as_message(), kind.as_enum()) {
            (Some(entry), _) if field.is_map() => Expected::Map(entry.clone()),
            (Some(message), _) => Expected::Message(message.clone()),
            (None, Some(names)) => Expected::Enum(names.clone()),
            (None, None) => Expected::Other,
        }
    }

    /// What may stand behind a key.
    fn behind(&self, key: &str) -> Expected {
        match self {
            Expected::Message(message) => {
                let field = message.get_field_by_json_name(key);
                let field = field.or_else(|| message.get_field_by_name(key));
                field.map_or(Expected::Other, |field| Expected::of(&field))
            }
            Expected::Map(entry) => Expected::of(&entry.map_entry_value_field()),
            Expected::Enum(_) | Expected::Other => Expected::Other,
        }
    }
}

/// As the compiler of Go names it: `etcdserverpb.Compare_CompareResult`.
fn name(names: &EnumDescriptor) -> String {
    let (package, full) = (names.package_name(), names.full_name());
    let inner = full.strip_prefix(package).unwrap_or(full).trim_start_matches('.');
    format!("{package}.{}", inner.replace('.', "_"))
}

impl<'de> DeserializeSeed<'de> for Expected {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self {
            Expected::Message(_) | Expected::Map(_) | Expected::Enum(_) => {
                deserializer.deserialize_any(self)
            }
            Expected::Other => deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ()),
        }
    }
}

impl<'de> Visitor<'de> for Expected {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("anything")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self {
            Expected::Enum(names) if names.get_value_by_name(text).is_none() => {
                Err(E::custom(format!("unknown value {text:?} for enum {}", name(&names))))
            }
            Expected::Message(_) | Expected::Map(_) | Expected::Enum(_) | Expected::Other => Ok(()),
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self.clone())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            map.next_value_seed(self.behind(&key))?;
        }
        Ok(())
    }
}
