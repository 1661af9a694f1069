//! What members say to each other of their states. The rules of Raft have never heard of it.
//!
//! ```text
//! frame     array(2) [type: uint, args: array]      all uint; over the connection of requests
//!   13      [formula, index, hash]                    StateHash
//!   14      [at_least]                                StateWanted
//! ```

use crate::codec::msgpack::{self, Reader};
use crate::types::LogIndex;

use super::fields::{self, DecodeError, Fields};
use super::peer::write_frame;

const STATE_HASH: u64 = 13;
const STATE_WANTED: u64 = 14;

/// A word of one member to another about its state. Nobody answers it over the same connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StateWord {
    /// "So is my state at this entry." Whoever has another one there has a fault, or we do.
    Hash {
        /// Which hash it is: those of different formulas say nothing of each other.
        formula: u64,
        /// The entry that was applied last.
        index: LogIndex,
        /// The state hash then.
        hash: u64,
    },
    /// "Mine is lost." To all, again and again, until the leader sends a snapshot.
    Wanted {
        /// A snapshot must stand for this entry at least.
        at_least: LogIndex,
    },
}

/// Appends it as a whole frame.
pub fn encode_state_word(out: &mut Vec<u8>, word: StateWord) {
    match word {
        StateWord::Hash { formula, index, hash } => {
            write_frame(out, STATE_HASH, 3, |out| {
                [formula, index.get(), hash].iter().for_each(|it| msgpack::write_uint(out, *it));
            });
        }
        StateWord::Wanted { at_least } => {
            write_frame(out, STATE_WANTED, 1, |out| msgpack::write_uint(out, at_least.get()));
        }
    }
}

/// Reads the body of a peer's frame, if it is such a word: `None` if it is something else.
pub fn decode_state_word(body: &[u8]) -> Result<Option<StateWord>, DecodeError> {
    let mut reader = Reader::new(body);
    if reader.array()? != 2 {
        return Ok(None);
    }
    let code = reader.uint()?;
    if !matches!(code, STATE_HASH | STATE_WANTED) {
        return Ok(None);
    }
    let mut fields = Fields::open(&mut reader)?;
    let word = if code == STATE_HASH {
        let (formula, index, hash) = (fields.uint()?, fields.index()?, fields.uint()?);
        StateWord::Hash { formula, index, hash }
    } else {
        StateWord::Wanted { at_least: fields.index()? }
    };
    fields.close()?;
    fields::expect_end(&reader)?;
    Ok(Some(word))
}
