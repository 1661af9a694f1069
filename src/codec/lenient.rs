//! Structured values through rmp-serde, with room to grow: an array may hold more values than we know.
//!
//! Hot messages are read by hand (`msgpack`); greetings, status and errors go through here.

use super::msgpack::{DecodeError, Reader, write_array};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads an array of at least `fields` values as a `T`, whose fields stand in that order; what follows them
/// was added by a newer version and is left aside. Copies, so it is for messages that are rare.
pub fn read_array<T: DeserializeOwned>(
    reader: &mut Reader<'_>,
    fields: u32,
) -> Result<T, DecodeError> {
    let known = usize::try_from(fields).expect("u32 fits usize wherever raftd runs");
    let length = reader.array()?;
    if length < known {
        return Err(DecodeError::Truncated);
    }
    let start = reader.rest();
    reader.skip(known)?;
    let kept = start.len() - reader.rest().len();
    let mut bytes = Vec::with_capacity(kept + 5);
    write_array(&mut bytes, fields);
    bytes.extend_from_slice(&start[..kept]);
    reader.skip(length - known)?;
    rmp_serde::from_slice(&bytes)
        .map_err(|_| DecodeError::Unexpected { wanted: "the fields of the message", marker: bytes[0] })
}

/// Appends a struct as an array of its fields.
pub fn write_struct<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    rmp_serde::encode::write(out, value).expect("writing to memory cannot fail");
}
