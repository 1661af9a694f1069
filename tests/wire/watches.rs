//! Watches: one message of every kind, and the way back to their bytes.

use raftd::types::Revision;
use raftd::wire::client::{Op, Request, decode_status_args};
use raftd::wire::fields::DecodeError;
use raftd::wire::watch::{self, WatchArgs, WatchHead, WatchReply, decode_watch_cancel};

use super::samples::{Kind, Written, kv};

/// What is asked, and what comes.
pub(super) fn samples() -> [Written; 6] {
    [
        (Kind::Request, "watch", |out| {
            let args = WatchArgs {
                key: b"a",
                end: b"b",
                start: Revision(5),
                prev_kv: true,
                no_put: false,
                no_delete: false,
                progress_ms: 10_000,
            };
            watch::watch_request(out, 23, &args);
        }),
        (Kind::Reply, "watch", |out| {
            let (now, before) = (kv(b"a", b"2", [2, 5, 2]), kv(b"a", b"1", [2, 2, 1]));
            let head = WatchHead { revision: Revision(5), more: false };
            watch::watch_reply(out, 23, head, [(now, Some(before))].into_iter());
        }),
        (Kind::Request, "watch-cancel", |out| watch::watch_cancel_request(out, 24, 23)),
        (Kind::Reply, "watch-cancel", |out| watch::watch_cancel_reply(out, 24, true)),
        (Kind::Request, "watch-progress", |out| watch::watch_progress_request(out, 25)),
        (Kind::Reply, "watch-progress", |out| {
            watch::watch_progress_reply(out, 25, Revision(5));
        }),
    ]
}

pub(super) fn request_again(out: &mut Vec<u8>, request: &Request<'_>) -> Result<(), DecodeError> {
    if request.op == Op::Watch {
        watch::watch_request(out, request.id, &WatchArgs::decode(request.args)?);
    } else if request.op == Op::WatchCancel {
        watch::watch_cancel_request(out, request.id, decode_watch_cancel(request.args)?);
    } else {
        decode_status_args(request.args)?;
        watch::watch_progress_request(out, request.id);
    }
    Ok(())
}

pub(super) fn reply_again(out: &mut Vec<u8>, id: u64, reply: &WatchReply<'_>) {
    let head = WatchHead { revision: reply.revision, more: reply.more };
    let events: Vec<_> = reply.events().map(|event| (event.kv, event.before)).collect();
    watch::watch_reply(out, id, head, events.into_iter());
}
