//! The part of MessagePack that raftd's formats are made of: unsigned integers, booleans, byte
//! strings, arrays.
//!
//! ```text
//! uint   00..7f | cc u8 | cd u16 | ce u32 | cf u64        big-endian
//! bool   c2 false | c3 true
//! bin    c4 u8 | c5 u16 | c6 u32, then that many bytes
//! array  90..9f | dc u16 | dd u32, then that many values
//! ```
//!
//! Reading borrows, never allocates and never panics, whatever the bytes. A longer form than needed
//! is read as well: the specification allows it. Writing always takes the shortest form.
//!
//! Why not rmp: an entry holds hundreds of commands and every node decodes each of them, so a
//! command must cost nanoseconds. rmp reads through `io::Read` and copies byte strings.

use std::error::Error;
use std::fmt;

/// Bytes that are not the value asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// The bytes end inside the value.
    Truncated,
    /// Another type stands where `wanted` should.
    Unexpected {
        /// The type that was asked for.
        wanted: &'static str,
        /// The first byte of what is there.
        marker: u8,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Truncated => f.write_str("the bytes end inside a value"),
            DecodeError::Unexpected { wanted, marker } => {
                write!(f, "expected {wanted}, found a value that starts with {marker:#04x}")
            }
        }
    }
}

impl Error for DecodeError {}

/// Reads values from the front of a slice. After an error its position is unspecified.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the first byte of `bytes` on.
    pub const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// What has not been read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The header of an array: how many values follow.
    #[inline]
    pub fn array(&mut self) -> Result<usize, DecodeError> {
        match self.marker()? {
            marker @ 0x90..=0x9f => Ok(usize::from(marker & 0x0f)),
            0xdc => self.length_u16(),
            0xdd => self.length_u32(),
            marker => Err(DecodeError::Unexpected { wanted: "an array", marker }),
        }
    }

    /// An unsigned integer of any width.
    #[inline]
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        match self.marker()? {
            marker @ 0x00..=0x7f => Ok(u64::from(marker)),
            0xcc => Ok(u64::from(self.marker()?)),
            0xcd => Ok(u64::from(u16::from_be_bytes(self.take()?))),
            0xce => Ok(u64::from(u32::from_be_bytes(self.take()?))),
            0xcf => Ok(u64::from_be_bytes(self.take()?)),
            marker => Err(DecodeError::Unexpected { wanted: "an unsigned integer", marker }),
        }
    }

    /// An unsigned integer below 128 in its one-byte form.
    #[inline]
    pub fn fixint(&mut self) -> Result<u8, DecodeError> {
        match self.marker()? {
            marker @ 0x00..=0x7f => Ok(marker),
            marker => Err(DecodeError::Unexpected { wanted: "an integer below 128", marker }),
        }
    }

    /// A boolean.
    #[inline]
    pub fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.marker()? {
            0xc2 => Ok(false),
            0xc3 => Ok(true),
            marker => Err(DecodeError::Unexpected { wanted: "a boolean", marker }),
        }
    }

    /// A byte string, borrowed.
    #[inline]
    pub fn bin(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = match self.marker()? {
            0xc4 => usize::from(self.marker()?),
            0xc5 => self.length_u16()?,
            0xc6 => self.length_u32()?,
            marker => return Err(DecodeError::Unexpected { wanted: "a byte string", marker }),
        };
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    fn marker(&mut self) -> Result<u8, DecodeError> {
        let (marker, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*marker)
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline]
    fn length_u16(&mut self) -> Result<usize, DecodeError> {
        Ok(usize::from(u16::from_be_bytes(self.take()?)))
    }

    #[inline]
    fn length_u32(&mut self) -> Result<usize, DecodeError> {
        // A length beyond the address space is beyond the slice as well.
        usize::try_from(u32::from_be_bytes(self.take()?)).map_err(|_| DecodeError::Truncated)
    }
}

/// Appends the header of an array of `length` values.
pub fn write_array(out: &mut Vec<u8>, length: u32) {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ 0..=15), _) => out.push(0x90 | length),
        (_, Ok(length)) => {
            out.push(0xdc);
            out.extend_from_slice(&length.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(0xdd);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
}

/// Appends an unsigned integer in its shortest form.
pub fn write_uint(out: &mut Vec<u8>, value: u64) {
    match (u8::try_from(value), u16::try_from(value), u32::try_from(value)) {
        (Ok(value @ 0..=0x7f), _, _) => out.push(value),
        (Ok(value), _, _) => out.extend_from_slice(&[0xcc, value]),
        (_, Ok(value), _) => {
            out.push(0xcd);
            out.extend_from_slice(&value.to_be_bytes());
        }
        (_, _, Ok(value)) => {
            out.push(0xce);
            out.extend_from_slice(&value.to_be_bytes());
        }
        (_, _, Err(_)) => {
            out.push(0xcf);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// Appends `true` or `false`.
pub fn write_flag(out: &mut Vec<u8>, flag: bool) {
    out.push(if flag { 0xc3 } else { 0xc2 });
}

/// Appends a byte string. Panics above 4 GiB, which every frame and request bound excludes.
pub fn write_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    match (u8::try_from(bytes.len()), u16::try_from(bytes.len())) {
        (Ok(length), _) => out.extend_from_slice(&[0xc4, length]),
        (_, Ok(length)) => {
            out.push(0xc5);
            out.extend_from_slice(&length.to_be_bytes());
        }
        (_, Err(_)) => {
            let length = u32::try_from(bytes.len()).expect("limits.rs bounds every byte string");
            out.push(0xc6);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(bytes);
}
