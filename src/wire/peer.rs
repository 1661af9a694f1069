//! What servers say to each other. Body: `[type, args]`.
//!
//! ```text
//! 1 pre-vote        [campaign_term, last_term, last_index]
//! 2 pre-vote reply  [term, campaign_term, granted 0/1]
//! 3 vote            [term, last_term, last_index]
//! 4 vote reply      [term, granted 0/1]
//! 5 append          [term, session, round, prev_term, prev_index, commit, [[term, kind, crc, payload bin], …]]
//! 6 heartbeat       [term, session, round, commit]
//! 7 append reply    [term, session, round, outcome, index, hint_term, hint_index, first_faulty or 0]
//!                   outcome 0: matched up to index; 1: conflict at probe index; 2: no room, matched up to index
//! ```

use super::frame::{self, FrameStart};
use crate::codec::msgpack::{DecodeError, Reader, patch_u32, write_array, write_bin, write_uint};
use crate::limits::APPEND_ENTRIES_MAX;
use crate::raft::message::{AppendOutcome, EntryMeta, Message};
use crate::types::{EntryKind, LogIndex, LogPosition, Term};
use std::fmt;

const PRE_VOTE: u8 = 1;
const PRE_VOTE_REPLY: u8 = 2;
const VOTE: u8 = 3;
const VOTE_REPLY: u8 = 4;
const APPEND: u8 = 5;
const HEARTBEAT: u8 = 6;
const APPEND_REPLY: u8 = 7;

/// Why a body is no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageError {
    /// Not the values that should be there.
    Malformed(DecodeError),
    /// A type, kind or outcome that this version does not know.
    Number(u8),
    /// More entries than a message may hold.
    Entries(usize),
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageError::Malformed(error) => write!(f, "not a message: {error}"),
            MessageError::Number(number) => write!(f, "a message with the unknown number {number}"),
            MessageError::Entries(count) => write!(f, "a message with {count} entries"),
        }
    }
}

impl std::error::Error for MessageError {}

impl From<DecodeError> for MessageError {
    fn from(error: DecodeError) -> MessageError {
        MessageError::Malformed(error)
    }
}

/// An entry's payload as it came, with the checksum its leader gave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PayloadRef<'a> {
    /// As in the log's record.
    pub crc: u32,
    /// The payload.
    pub bytes: &'a [u8],
}

/// A message and the payloads beside it, in the order of its entries.
#[derive(Debug)]
pub struct PeerFrame<'a> {
    /// The message.
    pub message: Message,
    /// One for each entry of an `Append`.
    pub payloads: Vec<PayloadRef<'a>>,
}

fn begin(out: &mut Vec<u8>, kind: u8, fields: u32) -> FrameStart {
    let start = frame::begin(out);
    write_array(out, 2);
    out.push(kind);
    write_array(out, fields);
    start
}

fn write_position(out: &mut Vec<u8>, position: LogPosition) {
    write_uint(out, position.term.get());
    write_uint(out, position.index.get());
}

/// Appends a message without entries as a whole frame. Panics for `Append`: use `AppendWriter`.
pub fn encode_message(out: &mut Vec<u8>, message: &Message) {
    let start = match message {
        Message::PreVote { campaign_term, last } => {
            let start = begin(out, PRE_VOTE, 3);
            write_uint(out, campaign_term.get());
            write_position(out, *last);
            start
        }
        Message::PreVoteReply { term, campaign_term, granted } => {
            let start = begin(out, PRE_VOTE_REPLY, 3);
            write_uint(out, term.get());
            write_uint(out, campaign_term.get());
            write_uint(out, u64::from(*granted));
            start
        }
        Message::Vote { term, last } => {
            let start = begin(out, VOTE, 3);
            write_uint(out, term.get());
            write_position(out, *last);
            start
        }
        Message::VoteReply { term, granted } => {
            let start = begin(out, VOTE_REPLY, 2);
            write_uint(out, term.get());
            write_uint(out, u64::from(*granted));
            start
        }
        Message::Append { .. } => unreachable!("payloads travel with AppendWriter"),
        Message::Heartbeat { term, session, round, commit } => {
            let start = begin(out, HEARTBEAT, 4);
            for number in [term.get(), *session, *round, commit.get()] {
                write_uint(out, number);
            }
            start
        }
        Message::AppendReply { term, session, round, outcome, first_faulty } => {
            let start = begin(out, APPEND_REPLY, 8);
            let (code, index, hint) = match outcome {
                AppendOutcome::Matched { index } => (0, *index, LogPosition::ZERO),
                AppendOutcome::Conflict { probe, hint } => (1, *probe, *hint),
                AppendOutcome::NoRoom { index } => (2, *index, LogPosition::ZERO),
            };
            for number in [term.get(), *session, *round, code, index.get()] {
                write_uint(out, number);
            }
            write_position(out, hint);
            write_uint(out, first_faulty.map_or(0, LogIndex::get));
            start
        }
    };
    frame::finish(out, start);
}

/// The head of an `Append`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendHead {
    /// As in `Message::Append`.
    pub term: Term,
    /// As in `Message::Append`.
    pub session: u64,
    /// As in `Message::Append`.
    pub round: u64,
    /// As in `Message::Append`.
    pub prev: LogPosition,
    /// As in `Message::Append`.
    pub commit: LogIndex,
    /// How many entries will be pushed.
    pub count: usize,
}

/// Writes an `Append` entry by entry, each payload copied once, from the log to the out-buffer.
#[derive(Debug)]
pub struct AppendWriter {
    start: FrameStart,
    count_at: usize,
    pushed: u32,
    count: usize,
}

impl AppendWriter {
    /// Begins the frame.
    pub fn begin(out: &mut Vec<u8>, head: &AppendHead) -> AppendWriter {
        let start = begin(out, APPEND, 7);
        for number in [head.term.get(), head.session, head.round] {
            write_uint(out, number);
        }
        write_position(out, head.prev);
        write_uint(out, head.commit.get());
        out.push(0xdd);
        let count_at = out.len();
        out.extend_from_slice(&[0; 4]);
        AppendWriter { start, count_at, pushed: 0, count: head.count }
    }

    /// Appends one entry.
    pub fn push(&mut self, out: &mut Vec<u8>, meta: EntryMeta, crc: u32, payload: &[u8]) {
        write_array(out, 4);
        write_uint(out, meta.term.get());
        out.push(meta.kind.code());
        write_uint(out, u64::from(crc));
        write_bin(out, payload);
        self.pushed += 1;
    }

    /// Ends the frame.
    pub fn finish(self, out: &mut [u8]) {
        assert_eq!(usize::try_from(self.pushed), Ok(self.count), "the head said how many");
        patch_u32(out, self.count_at, self.pushed);
        frame::finish(out, self.start);
    }
}

/// Reads a message's body. Unknown trailing values are left aside.
pub fn decode_peer(body: &[u8]) -> Result<PeerFrame<'_>, MessageError> {
    let mut reader = Reader::new(body);
    if reader.array()? < 2 {
        return Err(DecodeError::Truncated.into());
    }
    let kind = reader.fixint()?;
    if kind == APPEND {
        return decode_append(&mut reader);
    }
    let message = match kind {
        PRE_VOTE => {
            at_least(&mut reader, 3)?;
            Message::PreVote { campaign_term: term(&mut reader)?, last: position(&mut reader)? }
        }
        PRE_VOTE_REPLY => {
            at_least(&mut reader, 3)?;
            let (term, campaign_term) = (term(&mut reader)?, term(&mut reader)?);
            Message::PreVoteReply { term, campaign_term, granted: reader.uint()? != 0 }
        }
        VOTE => {
            at_least(&mut reader, 3)?;
            Message::Vote { term: term(&mut reader)?, last: position(&mut reader)? }
        }
        VOTE_REPLY => {
            at_least(&mut reader, 2)?;
            Message::VoteReply { term: term(&mut reader)?, granted: reader.uint()? != 0 }
        }
        HEARTBEAT => {
            at_least(&mut reader, 4)?;
            let (term, session, round) = (term(&mut reader)?, reader.uint()?, reader.uint()?);
            Message::Heartbeat { term, session, round, commit: index(&mut reader)? }
        }
        APPEND_REPLY => decode_append_reply(&mut reader)?,
        other => return Err(MessageError::Number(other)),
    };
    Ok(PeerFrame { message, payloads: Vec::new() })
}

fn decode_append_reply(reader: &mut Reader<'_>) -> Result<Message, MessageError> {
    at_least(reader, 8)?;
    let (term, session, round) = (term(reader)?, reader.uint()?, reader.uint()?);
    let code = reader.fixint()?;
    let (index, hint) = (index(reader)?, position(reader)?);
    let outcome = match code {
        0 => AppendOutcome::Matched { index },
        1 => AppendOutcome::Conflict { probe: index, hint },
        2 => AppendOutcome::NoRoom { index },
        other => return Err(MessageError::Number(other)),
    };
    let first_faulty = Some(self::index(reader)?).filter(|index| *index != LogIndex::ZERO);
    Ok(Message::AppendReply { term, session, round, outcome, first_faulty })
}

fn decode_append<'a>(reader: &mut Reader<'a>) -> Result<PeerFrame<'a>, MessageError> {
    at_least(reader, 7)?;
    let (leader_term, session, round) = (term(reader)?, reader.uint()?, reader.uint()?);
    let (prev, commit) = (position(reader)?, index(reader)?);
    let count = reader.array()?;
    if count > APPEND_ENTRIES_MAX {
        return Err(MessageError::Entries(count));
    }
    let mut entries = Vec::with_capacity(count);
    let mut payloads = Vec::with_capacity(count);
    for _ in 0..count {
        let newer = at_least(reader, 4)?;
        let term = term(reader)?;
        let code = reader.fixint()?;
        let kind = EntryKind::from_code(code).ok_or(MessageError::Number(code))?;
        let crc = u32::try_from(reader.uint()?).map_err(|_| DecodeError::Truncated)?;
        let bytes = reader.bin()?;
        reader.skip(newer)?;
        let length = u32::try_from(bytes.len()).map_err(|_| DecodeError::Truncated)?;
        entries.push(EntryMeta { term, kind, bytes: length });
        payloads.push(PayloadRef { crc, bytes });
    }
    let message = Message::Append { term: leader_term, session, round, prev, entries, commit };
    Ok(PeerFrame { message, payloads })
}

fn at_least(reader: &mut Reader<'_>, values: usize) -> Result<usize, DecodeError> {
    let length = reader.array()?;
    if length < values { Err(DecodeError::Truncated) } else { Ok(length - values) }
}

/// Terms and indexes stay far from overflow, whoever sent them.
fn bounded(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let number = reader.uint()?;
    if number < 1 << 62 { Ok(number) } else { Err(DecodeError::Truncated) }
}

fn term(reader: &mut Reader<'_>) -> Result<Term, DecodeError> {
    Ok(Term::new(bounded(reader)?))
}

fn index(reader: &mut Reader<'_>) -> Result<LogIndex, DecodeError> {
    Ok(LogIndex::new(bounded(reader)?))
}

fn position(reader: &mut Reader<'_>) -> Result<LogPosition, DecodeError> {
    Ok(LogPosition::new(term(reader)?, index(reader)?))
}
