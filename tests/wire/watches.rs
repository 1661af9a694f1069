//! Watches: one message of every kind, and the way back to their bytes.

use std::time::Duration;

use raftd::client::{ClientOptions, Deadline, Watch, WatchOptions};
use raftd::types::{ClusterId, Revision};
use raftd::wire::client::{Op, Request, decode_status_args};
use raftd::wire::error::Error;
use raftd::wire::fields::DecodeError;
use raftd::wire::watch::{self, WatchArgs, WatchHead, WatchReply, decode_watch_cancel};

use super::client::{Act, Server};
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

/// Servers that have enough to do refuse a watch, and it came back at once, a thousand times a
/// second.
#[test]
fn a_watch_that_everybody_refuses_asks_again_after_a_rest() {
    let refused = || vec![Act::Error(Error::Busy { what: "too many watches".into() })];
    let server = Server::start((0..40).map(|_| refused()).collect());
    let options = ClientOptions {
        endpoints: vec![server.address.clone()],
        timeout: Duration::from_secs(1),
        cluster_id: ClusterId(0),
        login: None,
    };
    let wanted = WatchOptions { key: b"k".into(), ..WatchOptions::default() };
    let mut watch = Watch::new(options, wanted);
    let mut hear = |ms| watch.next(Deadline::after(Duration::from_millis(ms))).unwrap();
    assert_eq!(hear(500), None);
    assert!(!server.is_gone(), "forty times twenty milliseconds have not passed");
    let until = Deadline::after(Duration::from_secs(60));
    while !server.is_gone() {
        assert!(!until.has_passed(), "it does not come back");
        assert_eq!(hear(100), None);
    }
    assert_eq!(server.seen().len(), 40);
}
