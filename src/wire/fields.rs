//! Fixed-order arrays, read field by field: the shape of every message.

use std::error::Error;
use std::fmt;

use crate::codec::msgpack::{self, Reader};
use crate::types::{LogIndex, LogPosition, NodeId, Revision, Term};

/// Terms, indexes and revisions from outside are below this, so that counting on from them cannot
/// overflow. No cluster reaches it: 2^62 entries at ten million a second take 14,000 years.
pub const NUMBER_MAX: u64 = 1 << 62;

/// Why bytes are not the message they should be. The sender is faulty or not raftd.
#[derive(Debug)]
pub enum DecodeError {
    /// Not the MessagePack value that should stand here.
    Value(msgpack::DecodeError),
    /// An array ends before the fields that every version has.
    Missing,
    /// Bytes follow the message.
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A number, string or code outside its range.
    Range {
        /// Which field.
        what: &'static str,
        /// Its value, or its length for strings.
        found: u64,
    },
    /// Two fields that contradict each other.
    Inconsistent {
        /// What does not hold.
        what: &'static str,
    },
    /// A structure that serde could not read.
    Structure {
        /// Which message.
        what: &'static str,
        /// Why not.
        source: rmp_serde::decode::Error,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Value(_) => f.write_str("cannot decode a message"),
            DecodeError::Missing => f.write_str("a message ends before its last field"),
            DecodeError::Trailing { bytes } => write!(f, "{bytes} bytes follow a message"),
            DecodeError::Range { what, found } => {
                write!(f, "{found} is out of range for {what}")
            }
            DecodeError::Inconsistent { what } => {
                write!(f, "a message contradicts itself: {what}")
            }
            DecodeError::Structure { what, .. } => write!(f, "cannot decode a {what}"),
        }
    }
}

impl Error for DecodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            DecodeError::Value(why) => Some(why),
            DecodeError::Structure { source, .. } => Some(source),
            DecodeError::Missing
            | DecodeError::Trailing { .. }
            | DecodeError::Range { .. }
            | DecodeError::Inconsistent { .. } => None,
        }
    }
}

impl From<msgpack::DecodeError> for DecodeError {
    fn from(why: msgpack::DecodeError) -> DecodeError {
        DecodeError::Value(why)
    }
}

/// The fields of one array, in order. Reading one too many is `Missing`; `close` skips the rest.
#[derive(Debug)]
pub struct Fields<'r, 'a> {
    reader: &'r mut Reader<'a>,
    left: usize,
}

impl<'r, 'a> Fields<'r, 'a> {
    /// Reads the header of the array at the reader's front.
    #[inline]
    pub fn open(reader: &'r mut Reader<'a>) -> Result<Fields<'r, 'a>, DecodeError> {
        let left = reader.array()?;
        Ok(Fields { reader, left })
    }

    /// How many fields have not been read.
    pub const fn left(&self) -> usize {
        self.left
    }

    /// The next field, an unsigned integer.
    #[inline]
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        self.count_down()?;
        Ok(self.reader.uint()?)
    }

    /// The next field, an unsigned integer that is at most `max`.
    #[inline]
    pub fn uint_within(&mut self, what: &'static str, max: u64) -> Result<u64, DecodeError> {
        let found = self.uint()?;
        if found <= max { Ok(found) } else { Err(DecodeError::Range { what, found }) }
    }

    /// The next field, a byte string.
    #[inline]
    pub fn bin(&mut self) -> Result<&'a [u8], DecodeError> {
        self.count_down()?;
        Ok(self.reader.bin()?)
    }

    /// The next field, `true` or `false`.
    #[inline]
    pub fn flag(&mut self) -> Result<bool, DecodeError> {
        self.count_down()?;
        let (marker, rest) = split_marker(self.reader)?;
        let flag = match marker {
            0xc2 => false,
            0xc3 => true,
            marker => return Err(unexpected("a boolean", marker)),
        };
        *self.reader = Reader::new(rest);
        Ok(flag)
    }

    /// The next field, a string in UTF-8.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        self.count_down()?;
        let (marker, rest) = split_marker(self.reader)?;
        let (length, rest) = match marker {
            0xa0..=0xbf => (usize::from(marker & 0x1f), rest),
            0xd9 => split_length::<1>(rest)?,
            0xda => split_length::<2>(rest)?,
            0xdb => split_length::<4>(rest)?,
            marker => return Err(unexpected("a string", marker)),
        };
        let (bytes, rest) = rest.split_at_checked(length).ok_or(TRUNCATED)?;
        *self.reader = Reader::new(rest);
        std::str::from_utf8(bytes)
            .map_err(|_| DecodeError::Inconsistent { what: "a string is not UTF-8" })
    }

    /// The next field, an array: its own fields. Close them before reading on here.
    #[inline]
    pub fn nested(&mut self) -> Result<Fields<'_, 'a>, DecodeError> {
        self.count_down()?;
        Fields::open(self.reader)
    }

    /// The next field, an array whose items the caller reads: how many, and where they begin.
    #[inline]
    pub fn items(&mut self) -> Result<(usize, Reader<'a>), DecodeError> {
        self.count_down()?;
        let count = self.reader.array()?;
        Ok((count, *self.reader))
    }

    /// Goes on where the reader of `items` has arrived.
    #[inline]
    pub fn resume(&mut self, after: Reader<'a>) {
        *self.reader = after;
    }

    /// The next field, a term.
    #[inline]
    pub fn term(&mut self) -> Result<Term, DecodeError> {
        Ok(Term::new(self.uint_within("a term", NUMBER_MAX)?))
    }

    /// The next field, an index of the log.
    #[inline]
    pub fn index(&mut self) -> Result<LogIndex, DecodeError> {
        Ok(LogIndex::new(self.uint_within("a log index", NUMBER_MAX)?))
    }

    /// The next two fields, a term and an index. Both are 0 before the first entry, else neither.
    #[inline]
    pub fn position(&mut self) -> Result<LogPosition, DecodeError> {
        let position = LogPosition::new(self.term()?, self.index()?);
        if (position.term == Term::ZERO) == (position.index == LogIndex::ZERO) {
            Ok(position)
        } else {
            Err(DecodeError::Inconsistent { what: "a position has a term or an index, not both" })
        }
    }

    /// The next field, a revision.
    #[inline]
    pub fn revision(&mut self) -> Result<Revision, DecodeError> {
        Ok(Revision(self.uint_within("a revision", NUMBER_MAX)?))
    }

    /// The next field, a node; 0 is none.
    pub fn node(&mut self) -> Result<Option<NodeId>, DecodeError> {
        match self.uint()? {
            0 => Ok(None),
            id => match NodeId::new(id) {
                Some(node) => Ok(Some(node)),
                None => Err(DecodeError::Range { what: "a node's id", found: id }),
            },
        }
    }

    /// Whether there is no further field.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Skips fields of versions to come.
    #[inline]
    pub fn close(mut self) -> Result<(), DecodeError> {
        while self.left > 0 {
            self.left -= 1;
            skip(self.reader)?;
        }
        Ok(())
    }

    #[inline]
    fn count_down(&mut self) -> Result<(), DecodeError> {
        self.left = self.left.checked_sub(1).ok_or(DecodeError::Missing)?;
        Ok(())
    }
}

/// Succeeds if the message has been read to its end.
#[inline]
pub fn expect_end(reader: &Reader<'_>) -> Result<(), DecodeError> {
    match reader.rest().len() {
        0 => Ok(()),
        bytes => Err(DecodeError::Trailing { bytes }),
    }
}

/// Passes over one value of any type, however deep, in a loop: depth costs the sender bytes and us
/// nothing.
pub fn skip(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let mut values = 1_u64;
    while values > 0 {
        values -= 1;
        let (marker, rest) = split_marker(reader)?;
        // What follows the marker: bytes to pass over, then values.
        let (bytes, inner, rest) = match marker {
            0x80..=0x8f => (0, 2 * u64::from(marker & 0x0f), rest),
            0x90..=0x9f => (0, u64::from(marker & 0x0f), rest),
            0xa0..=0xbf => (usize::from(marker & 0x1f), 0, rest),
            0xc4 | 0xd9 => data(split_length::<1>(rest)?, 0),
            0xc5 | 0xda => data(split_length::<2>(rest)?, 0),
            0xc6 | 0xdb => data(split_length::<4>(rest)?, 0),
            // Extensions: their type is one more byte.
            0xc7 => data(split_length::<1>(rest)?, 1),
            0xc8 => data(split_length::<2>(rest)?, 1),
            0xc9 => data(split_length::<4>(rest)?, 1),
            0xd4..=0xd8 => ((1 << (marker - 0xd4)) + 1, 0, rest),
            0xcc | 0xd0 => (1, 0, rest),
            0xcd | 0xd1 => (2, 0, rest),
            0xca | 0xce | 0xd2 => (4, 0, rest),
            0xcb | 0xcf | 0xd3 => (8, 0, rest),
            0xdc => items(split_length::<2>(rest)?, 1),
            0xdd => items(split_length::<4>(rest)?, 1),
            0xde => items(split_length::<2>(rest)?, 2),
            0xdf => items(split_length::<4>(rest)?, 2),
            // The one byte that MessagePack never uses.
            0xc1 => return Err(unexpected("a value", marker)),
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0, rest),
        };
        values = values.saturating_add(inner);
        *reader = Reader::new(rest.get(bytes..).ok_or(TRUNCATED)?);
    }
    Ok(())
}

fn data((length, rest): (usize, &[u8]), extra: usize) -> (usize, u64, &[u8]) {
    (length.saturating_add(extra), 0, rest)
}

fn items((length, rest): (usize, &[u8]), each: u64) -> (usize, u64, &[u8]) {
    (0, u64::try_from(length).unwrap_or(u64::MAX).saturating_mul(each), rest)
}

const TRUNCATED: DecodeError = DecodeError::Value(msgpack::DecodeError::Truncated);

fn unexpected(wanted: &'static str, marker: u8) -> DecodeError {
    DecodeError::Value(msgpack::DecodeError::Unexpected { wanted, marker })
}

fn split_marker<'a>(reader: &Reader<'a>) -> Result<(u8, &'a [u8]), DecodeError> {
    let (marker, rest) = reader.rest().split_first().ok_or(TRUNCATED)?;
    Ok((*marker, rest))
}

fn split_length<const N: usize>(bytes: &[u8]) -> Result<(usize, &[u8]), DecodeError> {
    let (length, rest) = bytes.split_first_chunk::<N>().ok_or(TRUNCATED)?;
    let length = length.iter().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
    Ok((length, rest))
}

/// Appends `true` or `false`.
pub fn write_flag(out: &mut Vec<u8>, flag: bool) {
    out.push(if flag { 0xc3 } else { 0xc2 });
}

/// Appends a string. Panics above 4 GiB.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    match (u8::try_from(text.len()), u16::try_from(text.len())) {
        (Ok(length @ 0..=31), _) => out.push(0xa0 | length),
        (Ok(length), _) => out.extend_from_slice(&[0xd9, length]),
        (_, Ok(length)) => {
            out.push(0xda);
            out.extend_from_slice(&length.to_be_bytes());
        }
        (_, Err(_)) => {
            let length = u32::try_from(text.len()).expect("limits.rs bounds every string");
            out.push(0xdb);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// Appends a term and an index.
pub fn write_position(out: &mut Vec<u8>, position: LogPosition) {
    msgpack::write_uint(out, position.term.get());
    msgpack::write_uint(out, position.index.get());
}
