//! A frame is a length and a body.
//!
//! ```text
//! 0  4  length of the body, little endian, 1 to the limit of the connection's state
//! 4  n  body: one MessagePack array
//! ```

use std::fmt;

const PREFIX_BYTES: usize = 4;

/// A whole frame at the front of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// The bytes after the length.
    pub body: &'a [u8],
    /// How many bytes of the buffer the frame takes, its length included.
    pub consumed: usize,
}

/// Why bytes cannot be a frame: hang up, what follows has no known place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// A body of no bytes.
    Empty,
    /// A body beyond the limit.
    TooLarge {
        /// What the prefix says. Bytes.
        length: u32,
        /// What may be. Bytes.
        max: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Empty => f.write_str("a frame with an empty body"),
            FrameError::TooLarge { length, max } => {
                write!(f, "a frame of {length} bytes where at most {max} are allowed")
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// The frame at the front of `bytes`; `None` until all of it is there. The length is checked before
/// anything waits for it.
#[inline]
pub fn next_frame(bytes: &[u8], body_bytes_max: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix);
    let body_bytes = usize::try_from(length).unwrap_or(usize::MAX);
    if length == 0 {
        return Err(FrameError::Empty);
    }
    if body_bytes > body_bytes_max {
        return Err(FrameError::TooLarge { length, max: body_bytes_max });
    }
    let frame = |body| Frame { body, consumed: PREFIX_BYTES + body_bytes };
    Ok(rest.get(..body_bytes).map(frame))
}

/// Where a frame under construction began.
#[derive(Debug)]
pub struct FrameStart(usize);

/// Begins a frame; write the body behind it, then `finish`.
#[inline]
pub fn begin(out: &mut Vec<u8>) -> FrameStart {
    let start = FrameStart(out.len());
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    start
}

/// Ends the frame: its length is known now.
#[inline]
pub fn finish(out: &mut [u8], start: FrameStart) {
    let (prefix, body) = out[start.0..].split_at_mut(PREFIX_BYTES);
    assert!(!body.is_empty(), "a frame has a body");
    let length = u32::try_from(body.len()).expect("limits.rs keeps bodies below 4 GiB");
    prefix.copy_from_slice(&length.to_le_bytes());
}
