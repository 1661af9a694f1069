//! Replies to a range: those that protocol.md shows, and those of a scripted server.

use raftd::types::Revision;
use raftd::wire::error::Error as WireError;
use raftd::wire::reply::{self, RangeReplyWriter};

use super::samples::kv;

/// What follows some parts.
pub(super) enum Then {
    End,
    HangUp,
    Error(WireError),
}

pub(super) fn range_reply(out: &mut Vec<u8>) {
    let mut writer = RangeReplyWriter::begin(out, 9, Revision(5));
    writer.push(out, &kv(b"a", b"1", [2, 4, 2]));
    writer.push(out, &kv(b"ab", b"", [3, 3, 1]));
    writer.finish(out, true, 3);
}

pub(super) fn range_part(out: &mut Vec<u8>) {
    let mut writer = RangeReplyWriter::begin(out, 9, Revision(5));
    writer.push(out, &kv(b"a", b"1", [2, 4, 2]));
    writer.finish_part(out);
}

/// Begins a reply with some keys, of versions that ascend as they do.
pub(super) fn range_of(out: &mut Vec<u8>, id: u64, keys: &[&str]) -> RangeReplyWriter {
    let mut writer = RangeReplyWriter::begin(out, id, Revision(9));
    for key in keys {
        let version = u64::from(key.as_bytes()[0]);
        writer.push(out, &kv(key.as_bytes(), b"v", [1, 1, version]));
    }
    writer
}

/// Answers in parts. Says whether the connection ends behind them.
pub(super) fn range_in_parts(out: &mut Vec<u8>, id: u64, parts: &[&[&str]], then: &Then) -> bool {
    for keys in parts {
        range_of(out, id, keys).finish_part(out);
    }
    match then {
        Then::End => range_of(out, id, &[]).finish(out, false, 4),
        Then::Error(error) => reply::error_reply(out, id, error),
        Then::HangUp => return true,
    }
    false
}
