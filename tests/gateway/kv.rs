//! Puts, reads, deletes, compaction.

use super::harness::{Cluster, PATIENCE};
use super::http::number;
use super::program::{
    Clients, Gateway, block_on, get, get_prefix, line, prefix_end, put, refused, with_gateway,
};
use super::txn::put_op;
use super::web::{Lines, base64, get as get_page};
use raftd::gateway::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use raftd::gateway::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, TxnRequest,
};
use raftd::limits::SORTED_KEYS_MAX;
use serde_json::json;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

impl Clients {
    /// Begins to get an answer, of which nothing is read.
    async fn read_nothing(
        &self,
        request: RangeRequest,
    ) -> Result<Streaming<RangeResponse>, Status> {
        let mut grpc = Grpc::new(self.channel()).max_decoding_message_size(64 * 1024 * 1024);
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
        let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
        let begun = grpc.server_streaming(Request::new(request), path, codec).await;
        begun.map(Response::into_inner)
    }
}

#[test]
fn keys_are_put_read_and_deleted() {
    with_gateway(3, |clients, _gateway| async move {
        let first = clients.put(put("a", "1")).await.unwrap();
        let header = first.header.unwrap();
        assert_eq!((header.revision, first.prev_kv), (2, None));
        assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term > 0);
        let second = clients.put(PutRequest { prev_kv: true, ..put("a", "2") }).await.unwrap();
        let before = second.prev_kv.unwrap();
        assert_eq!((&before.value[..], before.mod_revision, before.version), (&b"1"[..], 2, 1));
        let found = clients.range(get("a")).await.unwrap();
        let kv = &found.kvs[0];
        assert_eq!((kv.create_revision, kv.mod_revision, kv.version, kv.lease), (2, 3, 2, 0));
        assert_eq!((found.count, found.more, found.header.unwrap().revision), (1, false, 3));
        // What there is not is no error.
        let none = clients.range(get("b")).await.unwrap();
        assert_eq!((none.kvs.len(), none.count), (0, 0));
        // An old revision is read as it was; the header has the newest.
        let old = clients.range(RangeRequest { revision: 2, ..get("a") }).await.unwrap();
        assert_eq!((line(&old), old.header.unwrap().revision), ("a=1".to_owned(), 3));
        let key = "a".to_owned().into();
        let delete = DeleteRangeRequest { key, prev_kv: true, ..DeleteRangeRequest::default() };
        let deleted = clients.delete(delete.clone()).await.unwrap();
        assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (1, 1));
        assert_eq!(deleted.header.unwrap().revision, 4);
        // Nothing deleted makes no revision.
        let deleted = clients.delete(delete).await.unwrap();
        assert_eq!((deleted.deleted, deleted.header.unwrap().revision), (0, 4));
        // After a delete a key begins anew.
        clients.put(put("a", "3")).await.unwrap();
        let kv = clients.range(get("a")).await.unwrap().kvs.remove(0);
        assert_eq!((kv.create_revision, kv.version), (5, 1));
    });
}

#[test]
fn ranges_are_limited_sorted_filtered_and_counted() {
    with_gateway(1, |clients, _gateway| async move {
        for (key, value) in [("k/a", "3"), ("k/b", "1"), ("k/c", "2"), ("l", "0")] {
            clients.put_key(key, value).await;
        }
        clients.put_key("k/a", "3").await;
        let all = get_prefix("k/");
        let found = clients.range(all.clone()).await.unwrap();
        assert_eq!((line(&found), found.count), ("k/a=3 k/b=1 k/c=2".to_owned(), 3));
        let two = clients.range(RangeRequest { limit: 2, ..all.clone() }).await.unwrap();
        assert_eq!((line(&two), two.more, two.count), ("k/a=3 k/b=1".to_owned(), true, 3));
        let sorted = |by, order| RangeRequest {
            sort_target: i32::from(by),
            sort_order: i32::from(order),
            ..all.clone()
        };
        let by_value = clients.range(sorted(SortTarget::Value, SortOrder::None)).await.unwrap();
        assert_eq!(line(&by_value), "k/b=1 k/c=2 k/a=3");
        let newest = sorted(SortTarget::Mod, SortOrder::Descend);
        let newest = clients.range(RangeRequest { limit: 1, ..newest }).await.unwrap();
        assert_eq!((line(&newest), newest.more, newest.count), ("k/a=3".to_owned(), true, 3));
        let filtered = RangeRequest { min_mod_revision: 3, max_mod_revision: 4, ..all.clone() };
        let filtered = clients.range(filtered).await.unwrap();
        assert_eq!((line(&filtered), filtered.count), ("k/b=1 k/c=2".to_owned(), 3));
        let none = RangeRequest { max_create_revision: -1, ..all.clone() };
        assert_eq!(line(&clients.range(none).await.unwrap()), "");
        let keys = clients.range(RangeRequest { keys_only: true, ..all.clone() }).await.unwrap();
        assert_eq!(line(&keys), "k/a= k/b= k/c=");
        let count = clients.range(RangeRequest { count_only: true, ..all.clone() }).await.unwrap();
        assert_eq!((count.kvs.len(), count.count, count.more), (0, 3, false));
        // Below 0 is as if nothing was said.
        let odd = RangeRequest { limit: -1, revision: -3, ..all.clone() };
        assert_eq!(clients.range(odd).await.unwrap().kvs.len(), 3);
        let everything = RangeRequest { range_end: vec![0].into(), ..get("\0") };
        assert_eq!(clients.range(everything).await.unwrap().count, 4);
        let nothing = RangeRequest { range_end: "a".into(), ..get("k") };
        assert_eq!(clients.range(nothing).await.unwrap().count, 0);
        let here = RangeRequest { serializable: true, ..all };
        assert_eq!(clients.range(here).await.unwrap().kvs.len(), 3);
    });
}

#[test]
fn a_range_larger_than_a_nodes_reply_is_whole() {
    with_gateway(1, |clients, _gateway| async move {
        let value = "v".repeat(150_000);
        for number in 0..40 {
            let value = format!("{:02}{value}", 39 - number);
            clients.put_key(&format!("large/{number:02}"), &value).await;
        }
        let all = get_prefix("large/");
        let found = clients.range(all.clone()).await.unwrap();
        assert_eq!((found.kvs.len(), found.more, found.count), (40, false, 40));
        assert!(found.kvs.is_sorted_by(|one, next| one.key < next.key));
        let some = clients.range(RangeRequest { limit: 37, ..all.clone() }).await.unwrap();
        assert_eq!((some.kvs.len(), some.more, some.count), (37, true, 40));
        let sort_target = i32::from(SortTarget::Value);
        let sorted = clients.range(RangeRequest { limit: 39, sort_target, ..all }).await.unwrap();
        assert_eq!((sorted.kvs.len(), sorted.more, sorted.count), (39, true, 40));
        assert!(sorted.kvs.is_sorted_by(|one, next| one.value < next.value));
    });
}

/// Each answer had a bound, and all of them together had none: some clients that asked for much and
/// read nothing took all memory.
#[test]
fn answers_that_nobody_reads_have_a_bound_and_small_ones_are_given() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let gateway = Gateway::start_with(&cluster, &["--answers-bytes", "16777216"]);
    block_on(async {
        let clients = gateway.clients().await;
        let value = "v".repeat(100_000);
        for number in 0..60 {
            clients.put_key(&format!("large/{number}"), &value).await;
        }
        // Of each answer a window's worth is read, and no more.
        let mut unread = Vec::new();
        let why = loop {
            assert!(unread.len() < 3, "three take more than there is room for");
            let other = gateway.clients().await;
            match other.read_nothing(get_prefix("large/")).await {
                Ok(answer) => unread.push((other, answer)),
                Err(why) => break why,
            }
        };
        assert_eq!(why.code(), Code::ResourceExhausted, "{why:?}");
        assert!(why.message().contains("ask for fewer keys at a time"), "{why:?}");
        assert_eq!(unread.len(), 2);
        assert_eq!(clients.value("large/0").await.map(|it| it.len()), Some(100_000));
        clients.put_key("small", "s").await;
        assert_eq!(clients.value("small").await.as_deref(), Some("s"));
        // What they have is given back when they are gone.
        drop(unread);
        let deadline = raftd::client::Deadline::after(PATIENCE);
        while let Err(why) = clients.range(get_prefix("large/")).await {
            assert_eq!(why.code(), Code::ResourceExhausted, "{why:?}");
            assert!(!deadline.has_passed(), "{why:?}");
        }
    });
}

/// Who read nothing kept what it had as long as its connection was there: some such clients, and
/// nobody else had an answer that is large.
#[test]
fn answers_that_stand_still_are_taken_away() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let gateway = Gateway::start_with(&cluster, &["--answers-bytes", "33554432"]);
    block_on(async {
        let clients = gateway.clients().await;
        let value = "v".repeat(100_000);
        for number in 0..120 {
            clients.put_key(&format!("large/{number}"), &value).await;
        }
        let other = gateway.clients().await;
        let mut unread = other.read_nothing(get_prefix("large/")).await.unwrap();
        let body = json!({"key": base64(b"large/"), "range_end": base64(b"large0")}).to_string();
        let mut unread_json = Lines::post(&gateway.address, "/v3/kv/range", &body);
        let why = clients.range(get_prefix("large/")).await.unwrap_err();
        assert_eq!(why.code(), Code::ResourceExhausted, "{why:?}");
        let deadline = raftd::client::Deadline::after(PATIENCE);
        let waiting = || {
            let text = get_page(&gateway.address, "/metrics").text;
            number(&text, "raftd_gateway_answers_waiting_bytes").unwrap()
        };
        // Then there is room, and the other one is in nobody's way.
        while waiting() > 16 * 1024 * 1024 {
            assert!(!deadline.has_passed(), "one is taken away");
            let pause = std::time::Duration::from_millis(10);
            let _over = tokio::time::timeout(pause, std::future::pending::<()>()).await;
        }
        assert_eq!(clients.range(get_prefix("large/")).await.unwrap().kvs.len(), 120);
        // Nobody has the half of an answer for all of it.
        assert!(unread.message().await.is_err() || unread_json.is_cut());
    });
}

#[test]
fn any_number_of_keys_is_sorted() {
    with_gateway(1, |clients, _gateway| async move {
        // More than a node sorts.
        let keys = SORTED_KEYS_MAX + 1;
        let puts: Vec<_> = (0..keys)
            .map(|key| put_op(&format!("many/{key:05}"), &format!("{:05}", keys - key)))
            .collect();
        for some in puts.chunks(128) {
            let txn = TxnRequest { success: some.to_vec(), ..TxnRequest::default() };
            clients.kv().txn(txn).await.unwrap();
        }
        let sort_target = i32::from(SortTarget::Value);
        let by_value = RangeRequest { sort_target, ..get_prefix("many/") };
        let found = clients.range(by_value.clone()).await.unwrap();
        assert_eq!((found.kvs.len(), found.more), (keys, false));
        assert!(found.kvs.is_sorted_by(|one, next| one.value < next.value));
        let limit = i64::try_from(keys).unwrap() - 1;
        let most = clients.range(RangeRequest { limit, ..by_value }).await.unwrap();
        assert_eq!((most.kvs.len(), most.more), (keys - 1, true));
        assert_eq!(most.kvs, found.kvs[..keys - 1]);
    });
}

#[test]
fn what_is_wrong_with_a_request_is_said_in_etcds_words() {
    with_gateway(1, |clients, _gateway| async move {
        let invalid = Code::InvalidArgument;
        refused(clients.put(put("", "1")).await, invalid, "etcdserver: key is not provided");
        refused(clients.range(get("")).await, invalid, "etcdserver: key is not provided");
        let none = DeleteRangeRequest::default();
        refused(clients.delete(none).await, invalid, "etcdserver: key is not provided");
        let given = PutRequest { ignore_value: true, ..put("a", "1") };
        refused(clients.put(given).await, invalid, "etcdserver: value is provided");
        let given = PutRequest { ignore_lease: true, lease: 7, ..put("a", "1") };
        refused(clients.put(given).await, invalid, "etcdserver: lease is provided");
        let kept = PutRequest { ignore_value: true, ..put("a", "") };
        refused(clients.put(kept).await, invalid, "etcdserver: key not found");
        let lease = PutRequest { lease: 7, ..put("a", "1") };
        let text = "etcdserver: requested lease not found";
        refused(clients.put(lease).await, Code::NotFound, text);
        let odd = RangeRequest { sort_order: 9, ..get("a") };
        refused(clients.range(odd).await, invalid, "etcdserver: invalid sort option");
        let large = put("a", &"v".repeat(1600 * 1024));
        refused(clients.put(large).await, invalid, "etcdserver: request is too large");
        let future = RangeRequest { revision: 100, ..get("a") };
        let text = "etcdserver: mvcc: required revision is a future revision";
        refused(clients.range(future).await, Code::OutOfRange, text);
        let future = RangeRequest { revision: i64::MAX, ..get("a") };
        refused(clients.range(future).await, Code::OutOfRange, text);
        // None of it was done.
        assert_eq!(clients.put_key("a", "1").await, 2);
    });
}

#[test]
fn what_is_compacted_is_gone_and_the_rest_is_there() {
    with_gateway(1, |clients, _gateway| async move {
        for value in ["1", "2", "3"] {
            clients.put_key("a", value).await;
        }
        let compact = |revision| {
            let mut kv = clients.kv();
            async move { kv.compact(CompactionRequest { revision, physical: true }).await }
        };
        let text = "etcdserver: mvcc: required revision is a future revision";
        refused(compact(5).await, Code::OutOfRange, text);
        assert_eq!(compact(3).await.unwrap().into_inner().header.unwrap().revision, 4);
        let text = "etcdserver: mvcc: required revision has been compacted";
        for revision in [3, 2, 0] {
            refused(compact(revision).await, Code::OutOfRange, text);
        }
        let at = |revision| clients.range(RangeRequest { revision, ..get("a") });
        refused(at(2).await, Code::OutOfRange, text);
        assert_eq!(line(&at(3).await.unwrap()), "a=2");
        assert_eq!(line(&at(4).await.unwrap()), "a=3");
        let range_end = prefix_end("a");
        let all = DeleteRangeRequest { key: "a".into(), range_end, prev_kv: false };
        assert_eq!(clients.delete(all).await.unwrap().deleted, 1);
    });
}
