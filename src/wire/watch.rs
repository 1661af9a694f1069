//! Watches: what clients ask for, and the events that come.
//!
//! ```text
//! request
//!   23      [key: bin, end: bin, start: uint, prev_kv: bool, no_put: bool, no_delete: bool,
//!            progress_ms: uint]                            Watch
//!   24      [watch: uint]                                  WatchCancel
//!   25      []                                             WatchProgress
//! reply
//!   23      [revision: uint, more: bool, events: array event*]     Watch, again and again
//!   24      [was_open: bool]                               WatchCancel
//!   25      [revision: uint]                               WatchProgress
//! event     array(2) [kv, before: array kv*]               a kv of version 0 was deleted
//! ```
//!
//! The id of the request is the name of the watch. An error with that id is its end.

use crate::codec::msgpack::{self, Reader};
use crate::kv::answer::write_kv;
use crate::types::Revision;

use super::client::{Op, begin_request};
use super::fields::{self, DecodeError, Fields};
use super::frame;
use super::reply::begin_reply;
use super::results::{KeyValue, Kvs, kv_of};

/// The args of a Watch, borrowed from the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchArgs<'a> {
    /// The first key. Not empty.
    pub key: &'a [u8],
    /// Where the range ends, as in a DeleteRange.
    pub end: &'a [u8],
    /// From this revision on; 0: from now on.
    pub start: Revision,
    /// With what was there before.
    pub prev_kv: bool,
    /// Not of puts.
    pub no_put: bool,
    /// Not of deletes.
    pub no_delete: bool,
    /// After so long without an event, say how far the watch is; 0: never. Milliseconds.
    pub progress_ms: u64,
}

impl<'a> WatchArgs<'a> {
    /// Reads the args of a request with `Op::Watch`.
    pub fn decode(args: &'a [u8]) -> Result<WatchArgs<'a>, DecodeError> {
        let mut reader = Reader::new(args);
        let mut fields = Fields::open(&mut reader)?;
        let key = fields.bin()?;
        if key.is_empty() {
            return Err(DecodeError::Inconsistent { what: "the key is empty" });
        }
        let args = WatchArgs {
            key,
            end: fields.bin()?,
            start: fields.revision()?,
            prev_kv: fields.flag()?,
            no_put: fields.flag()?,
            no_delete: fields.flag()?,
            progress_ms: fields.uint()?,
        };
        fields.close()?;
        fields::expect_end(&reader)?;
        Ok(args)
    }

    /// Appends the args.
    pub fn encode(&self, out: &mut Vec<u8>) {
        msgpack::write_array(out, 7);
        msgpack::write_bin(out, self.key);
        msgpack::write_bin(out, self.end);
        msgpack::write_uint(out, self.start.0);
        for flag in [self.prev_kv, self.no_put, self.no_delete] {
            fields::write_flag(out, flag);
        }
        msgpack::write_uint(out, self.progress_ms);
    }
}

/// Appends a Watch, as a whole frame.
pub fn watch_request(out: &mut Vec<u8>, id: u64, args: &WatchArgs<'_>) {
    let start = begin_request(out, id, Op::Watch);
    args.encode(out);
    frame::finish(out, start);
}

/// Appends a WatchCancel, as a whole frame.
pub fn watch_cancel_request(out: &mut Vec<u8>, id: u64, watch: u64) {
    let start = begin_request(out, id, Op::WatchCancel);
    msgpack::write_array(out, 1);
    msgpack::write_uint(out, watch);
    frame::finish(out, start);
}

/// Appends a WatchProgress, as a whole frame.
pub fn watch_progress_request(out: &mut Vec<u8>, id: u64) {
    let start = begin_request(out, id, Op::WatchProgress);
    msgpack::write_array(out, 0);
    frame::finish(out, start);
}

/// Reads the args of a WatchCancel: which watch.
pub fn decode_watch_cancel(args: &[u8]) -> Result<u64, DecodeError> {
    let mut reader = Reader::new(args);
    let mut fields = Fields::open(&mut reader)?;
    let watch = fields.uint()?;
    fields.close()?;
    fields::expect_end(&reader)?;
    Ok(watch)
}

/// What leads the events of a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchHead {
    /// Nothing up to this revision is missing, with this reply.
    pub revision: Revision,
    /// The revision behind has begun, and goes on in the next reply.
    pub more: bool,
}

/// Appends events to watch `id`, each with what was there before, as a whole frame.
pub fn watch_reply<'a>(
    out: &mut Vec<u8>,
    id: u64,
    head: WatchHead,
    events: impl ExactSizeIterator<Item = (KeyValue<'a>, Option<KeyValue<'a>>)>,
) {
    let start = begin_reply(out, id, Op::Watch);
    msgpack::write_array(out, 3);
    msgpack::write_uint(out, head.revision.0);
    fields::write_flag(out, head.more);
    msgpack::write_array(out, u32::try_from(events.len()).expect("a batch is bounded"));
    for (kv, before) in events {
        msgpack::write_array(out, 2);
        write_kv(out, &kv);
        msgpack::write_array(out, u32::from(before.is_some()));
        if let Some(before) = before {
            write_kv(out, &before);
        }
    }
    frame::finish(out, start);
}

/// Appends the reply to a WatchCancel, as a whole frame.
pub fn watch_cancel_reply(out: &mut Vec<u8>, id: u64, was_open: bool) {
    let start = begin_reply(out, id, Op::WatchCancel);
    msgpack::write_array(out, 1);
    fields::write_flag(out, was_open);
    frame::finish(out, start);
}

/// Appends the reply to a WatchProgress, as a whole frame.
pub fn watch_progress_reply(out: &mut Vec<u8>, id: u64, revision: Revision) {
    let start = begin_reply(out, id, Op::WatchProgress);
    msgpack::write_array(out, 1);
    msgpack::write_uint(out, revision.0);
    frame::finish(out, start);
}

/// Events, borrowed from a reply.
#[derive(Clone, Copy, Debug)]
pub struct WatchReply<'a> {
    /// Nothing up to this revision is missing, with this reply.
    pub revision: Revision,
    /// The revision behind has begun, and goes on in the next reply.
    pub more: bool,
    count: usize,
    reader: Reader<'a>,
}

/// A change of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchEvent<'a> {
    /// The key as it was from then on; of a deleted one, its name and the revision.
    pub kv: KeyValue<'a>,
    /// The key before, if that was asked for, there was one, and it is not compacted.
    pub before: Option<KeyValue<'a>>,
}

impl WatchEvent<'_> {
    /// Whether the key was deleted.
    pub const fn is_delete(&self) -> bool {
        self.kv.version == 0
    }
}

impl<'a> WatchReply<'a> {
    /// How many events.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether it only says how far the watch is.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The events, in order.
    pub fn events(&self) -> impl Iterator<Item = WatchEvent<'a>> + use<'a> {
        let mut reader = self.reader;
        (0..self.count).map(move |_| decode_event(&mut reader).expect("every event was read once"))
    }

    /// Reads every event once, so that iterating over them later cannot fail.
    pub(super) fn decode(fields: &mut Fields<'_, 'a>) -> Result<WatchReply<'a>, DecodeError> {
        let (revision, more) = (fields.revision()?, fields.flag()?);
        let (count, mut reader) = fields.items()?;
        let reply = WatchReply { revision, more, count, reader };
        for _ in 0..count {
            decode_event(&mut reader)?;
        }
        fields.resume(reader);
        Ok(reply)
    }
}

fn decode_event<'a>(reader: &mut Reader<'a>) -> Result<WatchEvent<'a>, DecodeError> {
    let mut fields = Fields::open(reader)?;
    let kv = kv_of(fields.nested()?)?;
    let before = Kvs::decode(&mut fields)?.iter().next();
    fields.close()?;
    Ok(WatchEvent { kv, before })
}
