//! What streams make of what nodes say, without nodes.

use std::task::Waker;

use tonic::body::Body;
use tonic::codec::Codec;
use tonic_prost::ProstCodec;

use super::*;
use crate::wire::error::error_reply;
use crate::wire::results::KeyValue;
use crate::wire::watch::{WatchHead, watch_progress_reply, watch_reply};

fn watching() -> Watching {
    let cluster = Arc::new(Cluster::start(&[], None, 0));
    let decoder = ProstCodec::<WatchResponse, WatchRequest>::default().decoder();
    let requests = Streaming::new_request(decoder, Body::empty(), None, None);
    Watching::new(cluster, Who::Nobody, &Arc::default(), 0, Some(requests))
}

/// Asks a node for a watch, which opens it at `revision`. Answers its number there.
fn open(watching: &mut Watching, link: &Link, start_revision: i64, revision: u64) -> u64 {
    let key = "a".into();
    watching.create(WatchCreateRequest { key, start_revision, ..Default::default() });
    let number = ask(watching, link);
    let head = WatchHead { revision: Revision(revision), more: false };
    link.hear(|out| watch_reply(out, number, head, [].into_iter()));
    hear(watching);
    number
}

/// Asks a node for the next watch. Answers its number there.
fn ask(watching: &mut Watching, link: &Link) -> u64 {
    let watch = watching.waiters.take().unwrap();
    watching.times += 1;
    let time = watching.times;
    let sink = watching.inbox.sink(Asking { watch, time });
    let watcher = watching.watchers.get_mut(&watch).unwrap();
    let args = watcher.args(0);
    let number = link.watch(sink, |out, id| watch_request(out, id, &args)).unwrap();
    watcher.asked(link.clone(), 0, number, time);
    number
}

/// Takes what has come.
fn hear(watching: &mut Watching) {
    let context = Context::from_waker(Waker::noop());
    while let Some(item) = watching.inbox.take(&context) {
        watching.on_item(item);
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

/// While there is no node to ask, a watch can be ended and asked for again by the same name: it
/// was asked for twice then, and the first was never ended at its node.
#[test]
fn a_watch_is_open_at_one_node_once() {
    run(async {
        let mut watching = watching();
        let link = Link::to_nobody();
        let request = WatchCreateRequest { watch_id: 7, ..Default::default() };
        watching.create(request.clone());
        watching.cancel(7);
        watching.create(request);
        ask(&mut watching, &link);
        assert_eq!(watching.waiters.take(), None);
        assert_eq!(link.waiting(), 1);
        watching.cancel(7);
        assert_eq!(link.waiting(), 0);
    });
}

/// A stream whose watches move from one node to another has some at each for a while. What the
/// one said was taken for a watch that was opened at the other since: it never got what it had
/// not got by then.
#[test]
fn progress_is_not_said_of_a_watch_that_is_newer_than_the_question() {
    run(async {
        let mut watching = watching();
        let (one, other) = (Link::to_nobody(), Link::to_nobody());
        let number = open(&mut watching, &one, 0, 5);
        watching.ask_progress();
        open(&mut watching, &other, 3, 2);
        one.hear(|out| watch_progress_reply(out, number + 1, Revision(9)));
        hear(&mut watching);
        let said: Vec<i64> = watching.ready.iter().map(|it| it.watch_id).collect();
        assert_eq!(said, [0, 1], "both are open, and that is all");
        assert_eq!(watching.watchers[&1].args(0).start, Revision(3));
    });
}

/// A watch that is denied before it is open was never created: it took its room along, and its
/// number.
#[test]
fn a_watch_that_is_denied_leaves_its_room() {
    run(async {
        let (mut watching, link) = (watching(), Link::to_nobody());
        watching.create(WatchCreateRequest { key: "a".into(), ..Default::default() });
        assert!(watching.bytes > 0 && watching.waiting.watches.taken() > 0);
        let number = ask(&mut watching, &link);
        let denied = WireError::Denied { why: Denial::NotPermitted };
        link.hear(|out| error_reply(out, number, &denied));
        hear(&mut watching);
        let said: Vec<_> = watching.ready.iter().map(|it| (it.created, it.canceled)).collect();
        assert_eq!(said, [(true, true)]);
        assert_eq!((watching.bytes, watching.waiting.watches.taken()), (0, 0));
        watching.create(WatchCreateRequest { key: "a".into(), ..Default::default() });
        assert_eq!((watching.waiters.take(), watching.waiters.take()), (Some(0), None));
    });
}

/// The events of a revision that comes in parts had a bound for each watch, and none for all.
#[test]
fn a_revision_for_which_there_is_no_room_is_asked_for_again() {
    run(async {
        let (mut watching, link) = (watching(), Link::to_nobody());
        let part = |number, revision, more| {
            let head = WatchHead { revision: Revision(revision), more };
            let (key, value, version, lease) = (&b"a"[..], &b"v"[..], 1, 0);
            let (create_revision, mod_revision) = (Revision(6), Revision(6));
            let kv = KeyValue { key, value, create_revision, mod_revision, version, lease };
            link.hear(|out| watch_reply(out, number, head, [(kv, None)].into_iter()));
        };
        let number = open(&mut watching, &link, 0, 5);
        watching.ready.clear();
        let parts = Arc::clone(&watching.waiting.parts);
        let (mut others, mut favoured) = (parts.share(), parts.share());
        others.force(parts.bytes_max());
        favoured.set_in_turn(1).unwrap();
        part(number, 5, true);
        hear(&mut watching);
        assert_eq!((link.waiting(), watching.ready.len()), (0, 0));
        drop((others, favoured));
        let number = ask(&mut watching, &link);
        let head = WatchHead { revision: Revision(5), more: false };
        link.hear(|out| watch_reply(out, number, head, [].into_iter()));
        part(number, 5, true);
        hear(&mut watching);
        assert!(parts.taken() > 0 && watching.ready.is_empty());
        part(number, 6, false);
        hear(&mut watching);
        let events: Vec<usize> = watching.ready.iter().map(|it| it.events.len()).collect();
        assert_eq!((events, parts.taken()), (vec![2], 0));
    });
}
