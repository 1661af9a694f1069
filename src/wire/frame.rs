//! Where one message ends and the next begins.
//!
//! ```text
//! 0      4                      4 + length
//! | u32  | body                 |
//!   length of the body, little-endian, 1 ..= the bound of the receiver
//! ```

use std::error::Error;
use std::fmt;

/// Bytes of the length in front of every body.
pub const LENGTH_BYTES: usize = 4;

/// A whole message at the front of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// The message without its length.
    pub body: &'a [u8],
    /// Bytes to drop from the buffer once the body is handled: length and body.
    pub consumed: usize,
}

/// A length no frame has. The connection cannot go on: where the next frame begins is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// A body of no bytes.
    Empty,
    /// A body beyond the receiver's bound. Nothing of it needs to be read.
    TooLarge {
        /// The length it announces.
        length: usize,
        /// The bound.
        max: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Empty => f.write_str("a frame announces an empty body"),
            FrameError::TooLarge { length, max } => {
                write!(f, "a frame announces {length} bytes, more than {max}")
            }
        }
    }
}

impl Error for FrameError {}

/// The frame at the front of `bytes`, or `None` until all of it is there.
///
/// The length is judged as soon as its four bytes are there, before anything of the body.
pub fn next_frame(bytes: &[u8], body_bytes_max: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length == 0 {
        return Err(FrameError::Empty);
    }
    if length > body_bytes_max {
        return Err(FrameError::TooLarge { length, max: body_bytes_max });
    }
    Ok(rest.get(..length).map(|body| Frame { body, consumed: LENGTH_BYTES + length }))
}

/// Where the last frame that begins in `bytes` ends, as the lengths say, which are not judged.
pub fn last_end(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Some((length, _)) =
        bytes.get(end..).and_then(<[u8]>::split_first_chunk::<LENGTH_BYTES>)
    {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        end = end.saturating_add(LENGTH_BYTES).saturating_add(length);
    }
    end.max(bytes.len())
}

/// Where a frame under construction begins in its buffer.
#[derive(Debug)]
#[must_use = "a frame that is not finished has no length"]
pub struct FrameStart {
    at: usize,
}

impl FrameStart {
    /// Takes back what the frame has written.
    pub fn abandon(self, out: &mut Vec<u8>) {
        out.truncate(self.at);
    }
}

/// Leaves room for a length; the body is appended after it.
pub fn begin(out: &mut Vec<u8>) -> FrameStart {
    let at = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    FrameStart { at }
}

/// Writes the length of everything appended since `begin`.
///
/// Panics if that is nothing, or 4 GiB: every message has a bound far below.
pub fn finish(out: &mut [u8], start: FrameStart) {
    let (length, body) = out
        .get_mut(start.at..)
        .and_then(<[u8]>::split_first_chunk_mut::<LENGTH_BYTES>)
        .expect("begin left room for a length");
    assert!(!body.is_empty(), "a frame has a body");
    let bytes = u32::try_from(body.len()).expect("limits.rs bounds every message");
    *length = bytes.to_le_bytes();
}
