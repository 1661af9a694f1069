//! What servers say to each other after the hello.
//!
//! ```text
//! frame     array(2) [type: uint, args: array]      all uint unless said otherwise
//!    1      [campaign_term, last.term, last.index]                        PreVote
//!    2      [term, campaign_term, granted: bool]                          PreVoteReply
//!    3      [term, last.term, last.index, asked_by]                       Vote
//!    4      [term, granted: bool]                                         VoteReply
//!    5      [term, session, round, prev.term, prev.index, commit, entries]     Append
//!    6      [term, session, round, commit]                                Heartbeat
//!    7      [term, session, round, outcome: array, first_faulty]          AppendReply
//!    8      [term, last.term, last.index]                                 TimeoutNow
//!    9      [term, sequence]                                              ReadIndex
//!   10      [term, sequence, index]                                       ReadIndexReply
//!   11      [term, snapshot: 4 fields, offset, piece: bin]                InstallSnapshot
//!   12      [term, snapshot: 4 fields, outcome: array]                    InstallSnapshotReply
//! entries   array of array(4) [term, kind, crc: uint, payload: bin]
//! outcome   [0, index] Matched · [1, probe, hint.term, hint.index] Conflict · [2, index] NoRoom
//! snapshot  last.term, last.index, bytes, crc
//! outcome   of a 12: [0, offset] Wanted · [1] Installed · [2] Refused
//! ```
//!
//! 13 and 14 are no messages of the rules: `state.rs`.
//!
//! What arrives here has passed every check that one message alone allows: the core can count on
//! positions that do not overflow and entries whose terms do not go back.

use crate::codec::msgpack::{self, Reader};
use crate::limits::{APPEND_ENTRIES_MAX, ENTRY_BYTES_MAX, SNAPSHOT_PIECE_BYTES_MAX};
use crate::raft::message::{AppendOutcome, EntryMeta, Message, SnapshotOutcome};
use crate::types::{EntryKind, LogIndex, LogPosition, NodeId, SnapshotId, Term};

use super::fields::{self, DecodeError, Fields};
use super::frame::{self, FrameStart};

/// Entries taken in one Append: twice what we send, for a sender with a larger bound.
pub const ENTRIES_MAX: usize = 2 * APPEND_ENTRIES_MAX;

const PRE_VOTE: u64 = 1;
const PRE_VOTE_REPLY: u64 = 2;
const VOTE: u64 = 3;
const VOTE_REPLY: u64 = 4;
const APPEND: u64 = 5;
const HEARTBEAT: u64 = 6;
const APPEND_REPLY: u64 = 7;
const TIMEOUT_NOW: u64 = 8;
const READ_INDEX: u64 = 9;
const READ_INDEX_REPLY: u64 = 10;
const INSTALL_SNAPSHOT: u64 = 11;
const INSTALL_SNAPSHOT_REPLY: u64 = 12;

const MATCHED: u64 = 0;
const CONFLICT: u64 = 1;
const NO_ROOM: u64 = 2;

const WANTED: u64 = 0;
const INSTALLED: u64 = 1;
const REFUSED: u64 = 2;

/// Appends a message without payloads, as a whole frame.
///
/// Panics on an Append that has entries and on a piece of a snapshot that has bytes: they travel
/// with their payloads, see `AppendWriter` and `encode_piece`.
pub fn encode_message(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::Append { term, session, round, prev, entries, commit } => {
            assert!(entries.is_empty(), "an Append's entries travel with their payloads");
            let (term, session, round) = (*term, *session, *round);
            let head = AppendHead { term, session, round, prev: *prev, commit: *commit, count: 0 };
            AppendWriter::begin(out, &head).finish(out);
        }
        Message::PreVote { campaign_term, last } => {
            write_frame(out, PRE_VOTE, 3, |out| {
                msgpack::write_uint(out, campaign_term.get());
                fields::write_position(out, *last);
            });
        }
        Message::PreVoteReply { term, campaign_term, granted } => {
            write_frame(out, PRE_VOTE_REPLY, 3, |out| {
                write_uints(out, &[term.get(), campaign_term.get()]);
                fields::write_flag(out, *granted);
            });
        }
        Message::Vote { term, last, asked_by } => {
            write_frame(out, VOTE, 4, |out| {
                msgpack::write_uint(out, term.get());
                fields::write_position(out, *last);
                msgpack::write_uint(out, asked_by.map_or(0, NodeId::get));
            });
        }
        Message::TimeoutNow { term, last } => {
            write_frame(out, TIMEOUT_NOW, 3, |out| {
                msgpack::write_uint(out, term.get());
                fields::write_position(out, *last);
            });
        }
        Message::VoteReply { term, granted } => {
            write_frame(out, VOTE_REPLY, 2, |out| {
                msgpack::write_uint(out, term.get());
                fields::write_flag(out, *granted);
            });
        }
        Message::Heartbeat { term, session, round, commit } => {
            let numbers = [term.get(), *session, *round, commit.get()];
            write_frame(out, HEARTBEAT, 4, |out| write_uints(out, &numbers));
        }
        Message::AppendReply { term, session, round, outcome, first_faulty } => {
            write_frame(out, APPEND_REPLY, 5, |out| {
                write_uints(out, &[term.get(), *session, *round]);
                write_outcome(out, *outcome);
                msgpack::write_uint(out, first_faulty.unwrap_or(LogIndex::ZERO).get());
            });
        }
        Message::ReadIndex { term, sequence } => {
            write_frame(out, READ_INDEX, 2, |out| write_uints(out, &[term.get(), *sequence]));
        }
        Message::ReadIndexReply { term, sequence, index } => {
            let numbers = [term.get(), *sequence, index.get()];
            write_frame(out, READ_INDEX_REPLY, 3, |out| write_uints(out, &numbers));
        }
        Message::InstallSnapshot { term, snapshot, offset, bytes } => {
            assert!(*bytes == 0, "a piece travels with its bytes");
            encode_piece(out, *term, *snapshot, *offset, &[]);
        }
        Message::InstallSnapshotReply { term, snapshot, outcome } => {
            write_frame(out, INSTALL_SNAPSHOT_REPLY, 6, |out| {
                msgpack::write_uint(out, term.get());
                write_snapshot(out, *snapshot);
                write_snapshot_outcome(out, *outcome);
            });
        }
    }
}

/// Appends an InstallSnapshot with its piece of the file, as a whole frame.
pub fn encode_piece(
    out: &mut Vec<u8>,
    term: Term,
    snapshot: SnapshotId,
    offset: u64,
    piece: &[u8],
) {
    assert!(piece.len() <= SNAPSHOT_PIECE_BYTES_MAX, "a piece of {} bytes", piece.len());
    write_frame(out, INSTALL_SNAPSHOT, 7, |out| {
        msgpack::write_uint(out, term.get());
        write_snapshot(out, snapshot);
        msgpack::write_uint(out, offset);
        msgpack::write_bin(out, piece);
    });
}

fn write_snapshot(out: &mut Vec<u8>, snapshot: SnapshotId) {
    fields::write_position(out, snapshot.position);
    msgpack::write_uint(out, snapshot.bytes);
    msgpack::write_uint(out, u64::from(snapshot.crc));
}

fn write_snapshot_outcome(out: &mut Vec<u8>, outcome: SnapshotOutcome) {
    match outcome {
        SnapshotOutcome::Wanted { offset } => {
            msgpack::write_array(out, 2);
            msgpack::write_uint(out, WANTED);
            msgpack::write_uint(out, offset);
        }
        SnapshotOutcome::Installed => {
            msgpack::write_array(out, 1);
            msgpack::write_uint(out, INSTALLED);
        }
        SnapshotOutcome::Refused => {
            msgpack::write_array(out, 1);
            msgpack::write_uint(out, REFUSED);
        }
    }
}

fn write_uints(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        msgpack::write_uint(out, *number);
    }
}

pub(super) fn write_frame(
    out: &mut Vec<u8>,
    code: u64,
    fields: u32,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let start = frame::begin(out);
    msgpack::write_array(out, 2);
    msgpack::write_uint(out, code);
    msgpack::write_array(out, fields);
    write(out);
    frame::finish(out, start);
}

fn write_outcome(out: &mut Vec<u8>, outcome: AppendOutcome) {
    let (code, index) = match outcome {
        AppendOutcome::Matched { index } => (MATCHED, index),
        AppendOutcome::NoRoom { index } => (NO_ROOM, index),
        AppendOutcome::Conflict { probe, hint } => {
            msgpack::write_array(out, 4);
            msgpack::write_uint(out, CONFLICT);
            msgpack::write_uint(out, probe.get());
            fields::write_position(out, hint);
            return;
        }
    };
    msgpack::write_array(out, 2);
    msgpack::write_uint(out, code);
    msgpack::write_uint(out, index.get());
}

/// An Append without its entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendHead {
    /// The leader's term.
    pub term: Term,
    /// The replication session.
    pub session: u64,
    /// The newest ReadIndex round this confirms.
    pub round: u64,
    /// The entry just before the first one.
    pub prev: LogPosition,
    /// The leader's commit index, not above the last entry of the message.
    pub commit: LogIndex,
    /// How many entries follow.
    pub count: usize,
}

/// Appends an Append entry by entry, so that payloads may come from one scratch buffer.
#[derive(Debug)]
#[must_use = "an Append that is not finished has no length"]
pub struct AppendWriter {
    start: FrameStart,
    left: usize,
}

impl AppendWriter {
    /// Begins the frame. `head.count` entries must follow.
    #[inline]
    pub fn begin(out: &mut Vec<u8>, head: &AppendHead) -> AppendWriter {
        assert!(head.count <= ENTRIES_MAX, "an Append of {} entries", head.count);
        let start = frame::begin(out);
        msgpack::write_array(out, 2);
        msgpack::write_uint(out, APPEND);
        msgpack::write_array(out, 7);
        for number in [head.term.get(), head.session, head.round] {
            msgpack::write_uint(out, number);
        }
        fields::write_position(out, head.prev);
        msgpack::write_uint(out, head.commit.get());
        let count = u32::try_from(head.count).expect("ENTRIES_MAX is far below 2^32");
        msgpack::write_array(out, count);
        AppendWriter { start, left: head.count }
    }

    /// Appends one entry. `crc` is the one of its record, over the payload.
    #[inline]
    pub fn push(&mut self, out: &mut Vec<u8>, meta: EntryMeta, crc: u32, payload: &[u8]) {
        assert!(u32::try_from(payload.len()) == Ok(meta.bytes), "a payload is as long as it says");
        self.left = self.left.checked_sub(1).expect("the head announced this entry");
        msgpack::write_array(out, 4);
        msgpack::write_uint(out, meta.term.get());
        msgpack::write_uint(out, u64::from(meta.kind.code()));
        msgpack::write_uint(out, u64::from(crc));
        msgpack::write_bin(out, payload);
    }

    /// Ends the frame. Panics if entries are missing.
    #[inline]
    pub fn finish(self, out: &mut [u8]) {
        assert!(self.left == 0, "{} entries of an Append are missing", self.left);
        frame::finish(out, self.start);
    }

    /// Takes the frame back, when a payload cannot be read.
    pub fn abandon(self, out: &mut Vec<u8>) {
        self.start.abandon(out);
    }
}

/// Appends an Append with all its entries, as a whole frame.
pub fn encode_append<'e>(
    out: &mut Vec<u8>,
    head: &AppendHead,
    entries: impl Iterator<Item = (EntryMeta, u32, &'e [u8])>,
) {
    let mut writer = AppendWriter::begin(out, head);
    for (meta, crc, payload) in entries {
        writer.push(out, meta, crc, payload);
    }
    writer.finish(out);
}

/// An entry's payload, borrowed from the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payload<'a> {
    /// The sender's CRC of it; whoever stores it checks it.
    pub crc: u32,
    /// The payload.
    pub bytes: &'a [u8],
}

/// A peer's message and, for an Append, the payloads in the order of its entries; for a piece of a
/// snapshot, its bytes.
#[derive(Debug)]
pub struct PeerFrame<'a> {
    /// The message.
    pub message: Message,
    /// As many as the message has entries; one for a piece of a snapshot, without a CRC of its own.
    pub payloads: Vec<Payload<'a>>,
    /// Memory for entries that the message has none of.
    unused: Vec<EntryMeta>,
}

/// Memory that the entries of an Append are read into, for one frame after the other.
#[derive(Default, Debug)]
pub struct Room<'a> {
    entries: Vec<EntryMeta>,
    payloads: Vec<Payload<'a>>,
}

/// The memory that a frame took, for the next `decode_peer`.
pub fn recycle(frame: PeerFrame<'_>) -> Room<'static> {
    let PeerFrame { message, mut payloads, unused } = frame;
    let mut entries = if let Message::Append { entries, .. } = message { entries } else { unused };
    entries.clear();
    payloads.clear();
    // Collecting in place: the standard library reuses the allocation of an equal layout.
    let empty = |payload: Payload<'_>| Payload { crc: payload.crc, bytes: &[] };
    Room { entries, payloads: payloads.into_iter().map(empty).collect() }
}

/// Reads the body of a peer's frame. `room` is memory to reuse; what it holds is dropped.
pub fn decode_peer<'a>(body: &'a [u8], room: Room<'a>) -> Result<PeerFrame<'a>, DecodeError> {
    let Room { mut entries, mut payloads } = room;
    entries.clear();
    payloads.clear();
    let mut reader = Reader::new(body);
    if reader.array()? != 2 {
        return Err(DecodeError::Inconsistent { what: "a peer's message has two parts" });
    }
    let code = reader.uint()?;
    let mut fields = Fields::open(&mut reader)?;
    let message = match code {
        PRE_VOTE => decode_pre_vote(&mut fields)?,
        PRE_VOTE_REPLY => Message::PreVoteReply {
            term: fields.term()?,
            campaign_term: fields.term()?,
            granted: fields.flag()?,
        },
        VOTE => decode_vote(&mut fields)?,
        VOTE_REPLY => Message::VoteReply { term: fields.term()?, granted: fields.flag()? },
        APPEND => decode_append(&mut fields, std::mem::take(&mut entries), &mut payloads)?,
        HEARTBEAT => Message::Heartbeat {
            term: fields.term()?,
            session: fields.uint()?,
            round: fields.uint()?,
            commit: fields.index()?,
        },
        APPEND_REPLY => decode_append_reply(&mut fields)?,
        TIMEOUT_NOW => decode_timeout_now(&mut fields)?,
        READ_INDEX => Message::ReadIndex { term: fields.term()?, sequence: fields.uint()? },
        READ_INDEX_REPLY => Message::ReadIndexReply {
            term: fields.term()?,
            sequence: fields.uint()?,
            index: fields.index()?,
        },
        INSTALL_SNAPSHOT => decode_install_snapshot(&mut fields, &mut payloads)?,
        INSTALL_SNAPSHOT_REPLY => decode_install_snapshot_reply(&mut fields)?,
        found => return Err(DecodeError::Range { what: "the type of a peer's message", found }),
    };
    fields.close()?;
    fields::expect_end(&reader)?;
    Ok(PeerFrame { message, payloads, unused: entries })
}

fn decode_pre_vote(fields: &mut Fields<'_, '_>) -> Result<Message, DecodeError> {
    let (campaign_term, last) = (fields.term()?, fields.position()?);
    check(last.term < campaign_term, "a pre-candidate's log is of an earlier term")?;
    Ok(Message::PreVote { campaign_term, last })
}

fn decode_vote(fields: &mut Fields<'_, '_>) -> Result<Message, DecodeError> {
    let (term, last) = (fields.term()?, fields.position()?);
    check(last.term < term, "a candidate's log is of an earlier term")?;
    // A candidate of a version without handovers was asked by nobody.
    let asked_by = if fields.left() > 0 { fields.node()? } else { None };
    Ok(Message::Vote { term, last, asked_by })
}

fn decode_timeout_now(fields: &mut Fields<'_, '_>) -> Result<Message, DecodeError> {
    let (term, last) = (fields.term()?, fields.position()?);
    check(last.term == term, "a leader's last entry is of its term")?;
    Ok(Message::TimeoutNow { term, last })
}

fn decode_append<'a>(
    fields: &mut Fields<'_, 'a>,
    mut entries: Vec<EntryMeta>,
    payloads: &mut Vec<Payload<'a>>,
) -> Result<Message, DecodeError> {
    let (term, session, round) = (fields.term()?, fields.uint()?, fields.uint()?);
    let (prev, commit) = (fields.position()?, fields.index()?);
    check(prev.term <= term, "prev is of the leader's term or earlier")?;
    let (count, mut reader) = fields.items()?;
    if count > ENTRIES_MAX {
        let found = u64::try_from(count).unwrap_or(u64::MAX);
        return Err(DecodeError::Range { what: "the entries of an Append", found });
    }
    // Nothing is reserved for `count`: what is announced may not be there.
    let (mut last, mut last_term) = (prev.index, prev.term);
    for _ in 0..count {
        let (meta, payload) = decode_entry(&mut reader)?;
        check(last_term <= meta.term, "terms in a log do not go back")?;
        check(meta.term <= term, "an entry is of the leader's term or earlier")?;
        (last, last_term) = (last.next(), meta.term);
        entries.push(meta);
        payloads.push(payload);
    }
    check(commit <= last, "an Append commits what it verifies")?;
    fields.resume(reader);
    Ok(Message::Append { term, session, round, prev, entries, commit })
}

fn decode_entry<'a>(reader: &mut Reader<'a>) -> Result<(EntryMeta, Payload<'a>), DecodeError> {
    let mut fields = Fields::open(reader)?;
    let term = fields.term()?;
    check(term > Term::ZERO, "an entry has a term")?;
    let found = fields.uint()?;
    let kind = u8::try_from(found)
        .ok()
        .and_then(EntryKind::from_code)
        .ok_or(DecodeError::Range { what: "the kind of an entry", found })?;
    let found = fields.uint()?;
    let crc = u32::try_from(found).map_err(|_| DecodeError::Range { what: "a CRC", found })?;
    let payload = fields.bin()?;
    fields.close()?;
    let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    if payload.len() > ENTRY_BYTES_MAX {
        let found = u64::from(bytes);
        return Err(DecodeError::Range { what: "the length of an entry", found });
    }
    Ok((EntryMeta { term, kind, bytes }, Payload { crc, bytes: payload }))
}

fn decode_append_reply(fields: &mut Fields<'_, '_>) -> Result<Message, DecodeError> {
    let (term, session, round) = (fields.term()?, fields.uint()?, fields.uint()?);
    let mut outcome_fields = fields.nested()?;
    let outcome = match outcome_fields.uint()? {
        MATCHED => AppendOutcome::Matched { index: outcome_fields.index()? },
        CONFLICT => {
            let (probe, hint) = (outcome_fields.index()?, outcome_fields.position()?);
            check(hint.index <= probe, "a hint is at or below its probe")?;
            AppendOutcome::Conflict { probe, hint }
        }
        NO_ROOM => AppendOutcome::NoRoom { index: outcome_fields.index()? },
        found => return Err(DecodeError::Range { what: "the outcome of an Append", found }),
    };
    outcome_fields.close()?;
    let first_faulty = Some(fields.index()?).filter(|index| *index != LogIndex::ZERO);
    Ok(Message::AppendReply { term, session, round, outcome, first_faulty })
}

fn decode_install_snapshot<'a>(
    fields: &mut Fields<'_, 'a>,
    payloads: &mut Vec<Payload<'a>>,
) -> Result<Message, DecodeError> {
    let (term, snapshot, offset) = (fields.term()?, decode_snapshot(fields)?, fields.uint()?);
    check(snapshot.position.term <= term, "a snapshot is of the leader's term or earlier")?;
    let piece = fields.bin()?;
    let bytes = u32::try_from(piece.len()).unwrap_or(u32::MAX);
    if piece.len() > SNAPSHOT_PIECE_BYTES_MAX {
        let found = u64::from(bytes);
        return Err(DecodeError::Range { what: "the length of a piece", found });
    }
    let end = offset.checked_add(u64::from(bytes));
    check(end.is_some_and(|end| end <= snapshot.bytes), "a piece lies within its file")?;
    payloads.push(Payload { crc: 0, bytes: piece });
    Ok(Message::InstallSnapshot { term, snapshot, offset, bytes })
}

fn decode_snapshot(fields: &mut Fields<'_, '_>) -> Result<SnapshotId, DecodeError> {
    let position = fields.position()?;
    check(position != LogPosition::ZERO, "a snapshot stands for an entry")?;
    let bytes = fields.uint_within("the length of a snapshot", fields::NUMBER_MAX)?;
    let found = fields.uint()?;
    let crc = u32::try_from(found).map_err(|_| DecodeError::Range { what: "a CRC", found })?;
    Ok(SnapshotId { position, bytes, crc })
}

fn decode_install_snapshot_reply(fields: &mut Fields<'_, '_>) -> Result<Message, DecodeError> {
    let (term, snapshot) = (fields.term()?, decode_snapshot(fields)?);
    let mut outcome_fields = fields.nested()?;
    let outcome = match outcome_fields.uint()? {
        WANTED => SnapshotOutcome::Wanted { offset: outcome_fields.uint()? },
        INSTALLED => SnapshotOutcome::Installed,
        REFUSED => SnapshotOutcome::Refused,
        found => return Err(DecodeError::Range { what: "the outcome of a piece", found }),
    };
    outcome_fields.close()?;
    if let SnapshotOutcome::Wanted { offset } = outcome {
        check(offset <= snapshot.bytes, "what is wanted lies within the file")?;
    }
    Ok(Message::InstallSnapshotReply { term, snapshot, outcome })
}

fn check(holds: bool, what: &'static str) -> Result<(), DecodeError> {
    if holds { Ok(()) } else { Err(DecodeError::Inconsistent { what }) }
}
