//! Watches, from then and from now on.

use super::harness::{Cluster, PATIENCE, Shape};
use super::program::{Clients, Gateway, block_on, prefix_end, put, with_gateway};
use super::said::said;
use super::users::by;
use raftd::gateway::proto::etcdserverpb::request_op::Request;
use raftd::gateway::proto::etcdserverpb::watch_create_request::FilterType;
use raftd::gateway::proto::etcdserverpb::watch_request::RequestUnion;
use raftd::gateway::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, RequestOp, TxnRequest, WatchCancelRequest,
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use raftd::gateway::proto::mvccpb::Event;
use raftd::limits::{WATCH_KEYS_BYTES_MAX, WATCHES_BYTES_MAX};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tonic::Streaming;

/// A stream of watches.
pub(crate) struct Watches {
    say: UnboundedSender<WatchRequest>,
    heard: Streaming<WatchResponse>,
}

impl Watches {
    async fn open(clients: &Clients) -> Watches {
        let (say, said) = said();
        let heard = clients.watch().watch(said).await.unwrap().into_inner();
        Watches { say, heard }
    }

    /// The same with one watch, which is asked for at once: etcd's servers say nothing before.
    pub(crate) async fn open_with(clients: &Clients, request: WatchCreateRequest) -> Watches {
        let (watches, created) = Watches::begin(clients, None, request).await;
        assert!(created.created && created.events.is_empty(), "{created:?}");
        watches
    }

    /// The same in the name of whoever has this token; and what was said first.
    pub(crate) async fn begin(
        clients: &Clients,
        token: Option<&str>,
        request: WatchCreateRequest,
    ) -> (Watches, WatchResponse) {
        let (say, said) = said();
        let request_union = Some(RequestUnion::CreateRequest(request));
        say.send(WatchRequest { request_union }).unwrap();
        let heard = clients.watch().watch(by(token, said)).await.unwrap().into_inner();
        let mut watches = Watches { say, heard };
        let first = watches.next().await;
        (watches, first)
    }

    fn say(&self, request: RequestUnion) {
        self.say.send(WatchRequest { request_union: Some(request) }).unwrap();
    }

    /// Asks for a watch, and waits until it is open.
    pub(crate) async fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.say(RequestUnion::CreateRequest(request));
        let created = self.next().await;
        assert!(created.created && created.events.is_empty(), "{created:?}");
        created
    }

    pub(crate) async fn next(&mut self) -> WatchResponse {
        let next = tokio::time::timeout(PATIENCE, self.heard.message()).await;
        next.expect("something is heard").unwrap().expect("the stream goes on")
    }

    /// Asks how far all watches are, until that is there.
    async fn progress(&mut self, newest: i64) {
        let mut revision = 0;
        while revision < newest {
            self.say(RequestUnion::ProgressRequest(WatchProgressRequest {}));
            let said = self.next().await;
            assert_eq!((said.watch_id, said.events.len()), (-1, 0), "{said:?}");
            revision = said.header.unwrap().revision;
        }
        assert_eq!(revision, newest);
    }

    /// Whether nothing is heard for a while. What comes later is not noticed.
    async fn is_silent(&mut self) -> bool {
        let while_ = Duration::from_millis(300);
        tokio::time::timeout(while_, self.heard.message()).await.is_err()
    }

    /// So many events, in as many responses as they come in.
    async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.next().await.events);
        }
        assert_eq!(events.len(), count);
        events
    }
}

fn of_prefix(prefix: &str) -> WatchCreateRequest {
    let key = prefix.to_owned().into();
    WatchCreateRequest { key, range_end: prefix_end(prefix), ..WatchCreateRequest::default() }
}

/// An event on one line: put or delete, key, value, revision.
fn line(event: &Event) -> String {
    let kv = event.kv.as_ref().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let what = if event.r#type == 0 { "put" } else { "delete" };
    let before = event.prev_kv.as_ref().map(|kv| format!(" before={}", text(&kv.value)));
    let (key, value, revision) = (text(&kv.key), text(&kv.value), kv.mod_revision);
    format!("{what} {key}={value} @{revision}{}", before.unwrap_or_default())
}

fn lines(events: &[Event]) -> Vec<String> {
    events.iter().map(line).collect()
}

async fn delete(clients: &Clients, key: &str) {
    let key = key.to_owned().into();
    clients.delete(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }).await.unwrap();
}

#[test]
fn a_watch_hears_what_comes_and_what_was() {
    with_gateway(3, |clients, _gateway| async move {
        clients.put_key("w/a", "1").await;
        let mut now = Watches::open(&clients).await;
        let created = now.create(of_prefix("w/")).await;
        assert_eq!((created.watch_id, created.header.unwrap().revision), (0, 2));
        clients.put_key("w/a", "2").await;
        clients.put_key("other", "x").await;
        delete(&clients, "w/a").await;
        assert_eq!(lines(&now.events(2).await), ["put w/a=2 @3", "delete w/a= @5"]);
        let mut then = Watches::open(&clients).await;
        let prev_kv = true;
        then.create(WatchCreateRequest { start_revision: 1, prev_kv, ..of_prefix("w/") }).await;
        let heard = then.events(3).await;
        assert_eq!(
            lines(&heard),
            ["put w/a=1 @2", "put w/a=2 @3 before=1", "delete w/a= @5 before=2"]
        );
        // What one transaction did comes in one response.
        let of = |request| RequestOp { request: Some(request) };
        let both = ["w/x", "w/y"].map(|key| of(Request::RequestPut(put(key, "t"))));
        let request = TxnRequest { success: both.to_vec(), ..TxnRequest::default() };
        clients.kv().txn(request).await.unwrap();
        let heard = now.next().await;
        assert_eq!(lines(&heard.events), ["put w/x=t @6", "put w/y=t @6"]);
        assert_eq!(heard.header.unwrap().revision, 6);
    });
}

#[test]
fn many_watches_share_a_stream() {
    with_gateway(3, |clients, _gateway| async move {
        let mut watches = Watches::open(&clients).await;
        let ids = [0, 7, 0, 0];
        let mut given = Vec::new();
        for watch_id in ids {
            let request = WatchCreateRequest { watch_id, ..of_prefix("w/") };
            given.push(watches.create(request).await.watch_id);
        }
        assert_eq!(given, [0, 7, 1, 2]);
        let twice = watches.create(WatchCreateRequest { watch_id: 7, ..of_prefix("w/") }).await;
        let reason = "mvcc: duplicate watch ID provided on the WatchStream";
        assert_eq!((twice.watch_id, twice.canceled, &*twice.cancel_reason), (-1, true, reason));
        let empty = WatchCreateRequest { range_end: "a".into(), ..of_prefix("w/") };
        let empty = watches.create(empty).await;
        let reason = "mvcc: watcher range is empty";
        assert_eq!((empty.watch_id, empty.canceled, &*empty.cancel_reason), (-1, true, reason));
        // Of one that does not exist nothing is said.
        for watch_id in [99, 1] {
            watches.say(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
        }
        let ended = watches.next().await;
        assert_eq!((ended.watch_id, ended.canceled, ended.created), (1, true, false));
        clients.put_key("w/a", "1").await;
        let mut heard = Vec::new();
        for _ in 0..3 {
            let response = watches.next().await;
            assert_eq!(lines(&response.events), ["put w/a=1 @2"]);
            heard.push(response.watch_id);
        }
        heard.sort_unstable();
        assert_eq!(heard, [0, 2, 7]);
        assert!(watches.is_silent().await);
    });
}

#[test]
fn a_watch_that_ends_before_it_is_open_is_said_to_be_open_first() {
    with_gateway(1, |clients, _gateway| async move {
        let mut watches = Watches::open(&clients).await;
        let watch_id = 7;
        let request = WatchCreateRequest { watch_id, ..of_prefix("w/") };
        watches.say(RequestUnion::CreateRequest(request));
        watches.say(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
        let opened = watches.next().await;
        assert_eq!((opened.watch_id, opened.created, opened.canceled), (7, true, false));
        let ended = watches.next().await;
        assert_eq!((ended.watch_id, ended.created, ended.canceled), (7, false, true));
    });
}

#[test]
fn filters_leave_out_and_all_keys_can_be_watched() {
    with_gateway(1, |clients, _gateway| async move {
        let mut watches = Watches::open(&clients).await;
        let filters = vec![i32::from(FilterType::Noput)];
        watches.create(WatchCreateRequest { filters, ..of_prefix("w/") }).await;
        let mut all = Watches::open(&clients).await;
        all.create(WatchCreateRequest { range_end: vec![0].into(), ..Default::default() }).await;
        clients.put_key("w/a", "1").await;
        delete(&clients, "w/a").await;
        assert_eq!(lines(&watches.events(1).await), ["delete w/a= @3"]);
        assert_eq!(lines(&all.events(2).await), ["put w/a=1 @2", "delete w/a= @3"]);
    });
}

#[test]
fn a_watch_of_what_is_compacted_is_told_so() {
    with_gateway(1, |clients, _gateway| async move {
        for value in ["1", "2", "3"] {
            clients.put_key("w/a", value).await;
        }
        // From below 0 on is from the beginning on.
        let oldest = WatchCreateRequest { start_revision: -1, ..of_prefix("w/") };
        let mut all = Watches::open(&clients).await;
        assert_eq!(all.create(oldest.clone()).await.watch_id, 0);
        assert_eq!(lines(&all.events(3).await), ["put w/a=1 @2", "put w/a=2 @3", "put w/a=3 @4"]);
        clients.kv().compact(CompactionRequest { revision: 4, physical: false }).await.unwrap();
        let mut watches = Watches::open(&clients).await;
        for compacted in [WatchCreateRequest { start_revision: 2, ..of_prefix("w/") }, oldest] {
            let created = watches.create(compacted).await;
            let ended = watches.next().await;
            assert_eq!((created.canceled, ended.watch_id), (false, created.watch_id));
            assert!(ended.canceled && ended.cancel_reason.is_empty(), "{ended:?}");
            assert_eq!((ended.compact_revision, ended.header.unwrap().revision), (4, 0));
        }
        watches.create(WatchCreateRequest { start_revision: 4, ..of_prefix("w/") }).await;
        assert_eq!(lines(&watches.events(1).await), ["put w/a=3 @4"]);
    });
}

/// The node hung up on it, and did so again whenever it was asked anew: whoever shared the
/// connection was cut off with it.
#[test]
fn a_watch_that_no_node_takes_is_refused_and_harms_nobody() {
    with_gateway(1, |clients, gateway| async move {
        let mut watches = Watches::open(&clients).await;
        let key = vec![b'k'; 1800 * 1024].into();
        let large = watches.create(WatchCreateRequest { key, ..Default::default() }).await;
        let reason = "etcdserver: request is too large";
        assert_eq!((large.watch_id, large.canceled, &*large.cancel_reason), (-1, true, reason));
        let key = vec![b'k'; WATCH_KEYS_BYTES_MAX + 1].into();
        let large = watches.create(WatchCreateRequest { key, ..Default::default() }).await;
        let reason = "raftd: the keys of a watch have more than 16384 bytes";
        assert_eq!((large.watch_id, large.canceled, &*large.cancel_reason), (-1, true, reason));
        assert_eq!(clients.put_key("a", "1").await, 2);
        assert!(!gateway.log_text().contains("connection lost"));
    });
}

/// All were kept, and those for which the nodes had no room were asked for again and again: their
/// client heard nothing of them, and the gateway grew with whatever it asked for.
#[test]
fn watches_that_are_too_many_are_said_not_to_be() {
    /// What a watch costs at a server beside its key, which counts twice. Bytes.
    const WATCH_BYTES: usize = 304;
    const COUNT: usize = 600;
    let open = WATCHES_BYTES_MAX / (WATCH_BYTES + 2 * WATCH_KEYS_BYTES_MAX);
    with_gateway(1, |clients, _gateway| async move {
        let mut watches = Watches::open(&clients).await;
        let width = WATCH_KEYS_BYTES_MAX;
        for nth in 0..COUNT {
            let key = format!("{nth:0width$}").into();
            watches
                .say(RequestUnion::CreateRequest(WatchCreateRequest { key, ..Default::default() }));
        }
        let (mut created, mut refused, mut without_room) = (0, 0, 0);
        while open + refused + without_room < COUNT {
            let said = watches.next().await;
            if !said.canceled {
                assert!(said.created, "{said:?}");
                created += 1;
            } else if said.watch_id == -1 {
                assert!(said.cancel_reason.contains("too many watches"), "{said:?}");
                refused += 1;
            } else {
                assert!(said.cancel_reason.contains("no node has room"), "{said:?}");
                without_room += 1;
            }
        }
        assert!(refused > 0 && without_room > 0, "{refused} refused, {without_room} without room");
        assert_eq!(created, open + without_room);
    });
}

#[test]
fn progress_is_said_when_asked_for_and_never_before_the_events() {
    with_gateway(3, |clients, _gateway| async move {
        let mut watches = Watches::open(&clients).await;
        // On a stream without watches nothing is said.
        watches.say(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        watches.create(of_prefix("w/")).await;
        watches.create(of_prefix("v/")).await;
        let mut newest = 0;
        for number in 0..50 {
            newest = clients.put_key(&format!("w/{number}"), "x").await;
        }
        let mut heard = 0;
        let mut progress = 0;
        while progress < newest {
            watches.say(RequestUnion::ProgressRequest(WatchProgressRequest {}));
            let response = watches.next().await;
            heard += i64::try_from(response.events.len()).unwrap();
            if response.events.is_empty() {
                assert_eq!(response.watch_id, -1);
                progress = response.header.unwrap().revision;
                // Puts begin at revision 2.
                assert!(heard > progress - 2, "{heard} events, progress {progress}");
            }
        }
        assert_eq!((heard, progress), (50, newest));
    });
}

/// Nobody on its stream heard of progress until its revision had come, which may be never.
#[test]
fn a_watch_of_what_has_yet_to_come_holds_up_no_progress() {
    with_gateway(1, |clients, _gateway| async move {
        let mut watches = Watches::open(&clients).await;
        watches.create(of_prefix("w/")).await;
        let start_revision = 5;
        watches.create(WatchCreateRequest { start_revision, ..of_prefix("v/") }).await;
        for expected in 2..=3 {
            assert_eq!(clients.put_key("w/a", "x").await, expected);
            assert_eq!(watches.events(1).await.len(), 1);
            watches.progress(expected).await;
        }
        // Once it has heard something it is like any other.
        assert_eq!(clients.put_key("v/a", "early").await, 4);
        watches.progress(4).await;
        assert_eq!(clients.put_key("v/a", "then").await, 5);
        assert_eq!(lines(&watches.events(1).await), ["put v/a=then @5"]);
        watches.progress(5).await;
    });
}

#[test]
fn a_watch_says_by_itself_that_nothing_happens() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let gateway = Gateway::start_with(&cluster, &["--watch-progress-interval", "1"]);
    block_on(async {
        let clients = gateway.clients().await;
        let mut watches = Watches::open(&clients).await;
        let progress_notify = true;
        watches.create(WatchCreateRequest { progress_notify, ..of_prefix("w/") }).await;
        let newest = clients.put_key("other", "x").await;
        // It may have been said before the put as well.
        let mut revision = 0;
        while revision < newest {
            let said = watches.next().await;
            assert_eq!((said.watch_id, said.events.len()), (0, 0));
            revision = said.header.unwrap().revision;
        }
        assert_eq!(revision, newest);
        // One of what has yet to come is silent until it has.
        let start_revision = newest + 2;
        let future = WatchCreateRequest { progress_notify, start_revision, ..of_prefix("w/") };
        let mut later = Watches::open(&clients).await;
        later.create(future.clone()).await;
        assert!(later.is_silent().await);
        // Beside it another one goes on.
        watches.create(future).await;
        for _ in 0..2 {
            let said = watches.next().await;
            assert_eq!((said.watch_id, said.events.len()), (0, 0), "{said:?}");
        }
        clients.put_key("w/a", "early").await;
        clients.put_key("w/a", "then").await;
        let expected = format!("put w/a=then @{start_revision}");
        assert_eq!(lines(&later.events(1).await), [expected]);
    });
}

/// Watches stayed at the first node, which was cut off from the others, and heard nothing any more.
#[test]
fn watches_leave_a_node_that_is_cut_off_from_the_others() {
    let mut cluster = Cluster::start_shaped(3, &Shape { cuttable: true, ..Shape::default() });
    cluster.leader();
    let gateway = Gateway::start(&cluster);
    block_on(async {
        let clients = gateway.clients().await;
        let deadline = raftd::client::Deadline::after(PATIENCE);
        let mut watches = loop {
            let mut watches = Watches::open(&clients).await;
            if watches.create(of_prefix("w/")).await.header.unwrap().member_id == 1 {
                break watches;
            }
            assert!(!deadline.has_passed(), "the first node is the home node");
        };
        let links = cluster.links.as_ref().unwrap();
        links.cut(1, &[2, 3]);
        clients.put_key("w/a", "1").await;
        assert_eq!(lines(&watches.events(1).await), ["put w/a=1 @2"]);
        // The node is not left again and again.
        let left = gateway.log_text().matches("hears no leader, and others do").count();
        assert_eq!(left, 1);
        links.heal();
    });
}

#[test]
fn a_client_that_does_not_read_gets_all_of_it_in_the_end() {
    with_gateway(1, |clients, gateway| async move {
        let mut slow = Watches::open(&clients).await;
        slow.create(of_prefix("w/")).await;
        let before = gateway.resident();
        let value = "v".repeat(100_000);
        let count = 300;
        for number in 0..count {
            clients.put_key(&format!("w/{number:03}"), &value).await;
        }
        let grown = gateway.resident().saturating_sub(before);
        assert!(grown < 20 * 1024 * 1024, "what nobody reads is not kept: {grown} bytes more");
        let events = slow.events(count).await;
        let keys: Vec<String> = events
            .iter()
            .map(|event| String::from_utf8(event.kv.as_ref().unwrap().key.to_vec()).unwrap())
            .collect();
        let expected: Vec<String> = (0..count).map(|number| format!("w/{number:03}")).collect();
        assert_eq!(keys, expected);
    });
}
