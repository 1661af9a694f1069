//! MessagePack strings: `a0..bf`, `d9 u8`, `da u16`, `db u32`, then UTF-8.

use super::msgpack::{DecodeError, Reader};

/// A string, borrowed.
pub fn read_text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let marker = *reader.rest().first().ok_or(DecodeError::Truncated)?;
    let wrong = DecodeError::Unexpected { wanted: "a string", marker };
    let prefix = match marker {
        0xa0..=0xbf => 1,
        0xd9 => 2,
        0xda => 3,
        0xdb => 5,
        _ => return Err(wrong),
    };
    let start = reader.rest();
    reader.skip(1)?;
    let bytes = &start[prefix..start.len() - reader.rest().len()];
    std::str::from_utf8(bytes).map_err(|_| wrong)
}

/// Appends a string.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    rmp::encode::write_str(out, text).expect("writing to memory cannot fail");
}
