//! Ranges in pieces, which put together are the same range whole.

use super::harness::{Cluster, PATIENCE};
use super::patience::eventually;
use super::program::{
    Clients, Gateway, block_on, get, get_prefix, line, prefix_end, put, refused, with_gateway,
};
use raftd::gateway::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use raftd::gateway::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, RangeRequest, RangeResponse, RangeStreamResponse,
};
use std::rc::Rc;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

/// The keys of the large range, and the bytes of each value: together far more than there is room
/// for between a node and a client that does not read.
const KEYS: usize = 100;
const VALUE_BYTES: usize = 150_000;

/// Longest that a node puts together, unless a single key is longer. Bytes.
const PIECE_BYTES: usize = 64 * 1024;

impl Clients {
    async fn stream(&self, request: RangeRequest) -> Streaming<RangeStreamResponse> {
        self.kv().range_stream(request).await.unwrap().into_inner()
    }

    /// All pieces of a range.
    async fn pieces(&self, request: RangeRequest) -> Result<Vec<RangeResponse>, Status> {
        let mut stream = self.kv().range_stream(request).await?.into_inner();
        rest(&mut stream).await
    }

    async fn fill(&self) {
        for number in 0..KEYS {
            self.put_key(&key(number), &"v".repeat(VALUE_BYTES)).await;
        }
    }
}

fn key(number: usize) -> String {
    format!("large/{number:03}")
}

async fn next(
    stream: &mut Streaming<RangeStreamResponse>,
) -> Result<Option<RangeResponse>, Status> {
    let next = tokio::time::timeout(PATIENCE, stream.message()).await.expect("it goes on");
    Ok(next?.map(|piece| piece.range_response.expect("a piece is an answer")))
}

async fn rest(stream: &mut Streaming<RangeStreamResponse>) -> Result<Vec<RangeResponse>, Status> {
    let mut pieces = Vec::new();
    while let Some(piece) = next(stream).await? {
        pieces.push(piece);
    }
    Ok(pieces)
}

/// What a client makes of the pieces. The last one alone has more than keys.
fn whole(pieces: Vec<RangeResponse>) -> RangeResponse {
    let (last, others) = pieces.split_last().expect("there is a last piece");
    for piece in others {
        let kvs = piece.kvs.clone();
        assert!(!kvs.is_empty());
        assert_eq!(*piece, RangeResponse { kvs, ..RangeResponse::default() });
    }
    let kvs = pieces.iter().flat_map(|piece| piece.kvs.clone()).collect();
    RangeResponse { kvs, ..last.clone() }
}

#[test]
fn all_pieces_together_are_the_range() {
    with_gateway(3, |clients, _gateway| async move {
        for (key, value) in [("k/a", "1"), ("k/b", "2"), ("k/c", "3"), ("l", "4")] {
            clients.put_key(key, value).await;
        }
        clients.put_key("k/b", "5").await;
        let all = get_prefix("k/");
        let requests = [
            all.clone(),
            RangeRequest { limit: 2, ..all.clone() },
            RangeRequest { limit: 3, ..all.clone() },
            RangeRequest { limit: -1, ..all.clone() },
            RangeRequest { revision: 3, ..all.clone() },
            RangeRequest { keys_only: true, ..all.clone() },
            RangeRequest { count_only: true, ..all.clone() },
            RangeRequest { count_only: true, limit: 1, ..all.clone() },
            RangeRequest { sort_order: i32::from(SortOrder::Ascend), ..all.clone() },
            get("k/b"),
            get("k/bb"),
            RangeRequest { range_end: "a".into(), ..get("k") },
            RangeRequest { range_end: vec![0].into(), ..get("k/b") },
            RangeRequest { range_end: vec![0].into(), ..get("\0") },
        ];
        for request in requests {
            let expected = clients.range(request.clone()).await.unwrap();
            let pieces = clients.pieces(request.clone()).await.unwrap();
            assert_eq!(whole(pieces), expected, "{request:?}");
        }
        // One node's own state, which may be behind.
        let here = RangeRequest { serializable: true, ..all };
        let found = loop {
            let found = whole(clients.pieces(here.clone()).await.unwrap());
            if found.header.unwrap().revision == 6 {
                break found;
            }
        };
        assert_eq!(line(&found), "k/a=1 k/b=5 k/c=3");
    });
}

#[test]
fn a_large_range_comes_in_pieces_of_bounded_size() {
    with_gateway(1, |clients, _gateway| async move {
        clients.fill().await;
        for number in 0..2000 {
            clients.put_key(&format!("small/{number:04}"), &"v".repeat(100)).await;
        }
        for (prefix, keys) in [("large/", KEYS), ("small/", 2000)] {
            let pieces = clients.pieces(get_prefix(prefix)).await.unwrap();
            assert!(pieces.len() > 3, "{} pieces", pieces.len());
            for piece in &pieces {
                let bytes: usize = piece.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
                assert!(piece.kvs.len() <= 1 || bytes <= PIECE_BYTES, "{bytes} bytes");
            }
            assert_eq!(whole(pieces), clients.range(get_prefix(prefix)).await.unwrap());
            assert_eq!(clients.range(get_prefix(prefix)).await.unwrap().kvs.len(), keys);
        }
    });
}

#[test]
fn what_cannot_come_in_pieces_is_refused_in_etcds_words() {
    with_gateway(1, |clients, _gateway| async move {
        for value in ["1", "2", "3"] {
            clients.put_key("a", value).await;
        }
        let compaction = CompactionRequest { revision: 3, ..CompactionRequest::default() };
        clients.kv().compact(compaction).await.unwrap();
        let descend = RangeRequest { sort_order: i32::from(SortOrder::Descend), ..get("a") };
        let by_value = RangeRequest {
            sort_order: i32::from(SortOrder::Ascend),
            sort_target: i32::from(SortTarget::Value),
            ..get("a")
        };
        let order = "RangeStream does not support custom sort orders";
        let filters = "RangeStream does not support revision filters";
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        let future = "etcdserver: mvcc: required revision is a future revision";
        let odd = RangeRequest { sort_order: 9, ..get("a") };
        let cases = [
            (get(""), Code::InvalidArgument, "etcdserver: key is not provided"),
            (odd, Code::InvalidArgument, "etcdserver: invalid sort option"),
            (descend, Code::Unimplemented, order),
            (by_value, Code::Unimplemented, order),
            (RangeRequest { min_mod_revision: 1, ..get("a") }, Code::Unimplemented, filters),
            (RangeRequest { max_create_revision: -1, ..get("a") }, Code::Unimplemented, filters),
            (RangeRequest { revision: 2, ..get("a") }, Code::OutOfRange, compacted),
            (RangeRequest { revision: 100, ..get("a") }, Code::OutOfRange, future),
        ];
        for (request, code, text) in cases {
            refused(clients.pieces(request).await, code, text);
        }
    });
}

/// Clients of this gateway that are sent no more than they read.
async fn slow_clients(gateway: &Gateway) -> Clients {
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.address)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(65_535);
    Gateway::clients_by(&endpoint.initial_connection_window_size(1_000_000)).await
}

/// Such clients, and a gateway that says what it does, before what they filled.
fn with_slow_clients<F: Future<Output = ()>>(test: impl FnOnce(Clients, Rc<Gateway>) -> F) {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let node = cluster.servers[0].listen().to_owned();
    let before = "export RUST_LOG=raftd=debug";
    let gateway = Rc::new(Gateway::start_after(before, &cluster, &[&node], &[]));
    block_on(async {
        let clients = slow_clients(&gateway).await;
        clients.fill().await;
        test(clients, Rc::clone(&gateway)).await;
    });
}

fn stands_still(gateway: &Gateway, times: usize) {
    eventually("it stands still", PATIENCE, || {
        let said = gateway.log_text().matches("a range stream stands still").count();
        (said >= times).then_some(())
    });
}

#[test]
fn a_client_that_stands_still_holds_up_nobody_and_reads_on_where_it_was() {
    with_slow_clients(|clients, gateway| async move {
        let all = get_prefix("large/");
        let expected = clients.range(all.clone()).await.unwrap();
        let limited = RangeRequest { limit: 90, ..all.clone() };
        let mut streams = [clients.stream(all).await, clients.stream(limited).await];
        let mut begun = Vec::new();
        for stream in &mut streams {
            begun.push(next(stream).await.unwrap().unwrap());
        }
        // Two of them, which do not read: everything else goes on, and changes nothing of theirs.
        stands_still(&gateway, 2);
        clients.put_key(&key(KEYS - 1), "changed").await;
        let (first, range_end) = (key(50), prefix_end("large/07"));
        let delete = DeleteRangeRequest { key: first.into(), range_end, prev_kv: false };
        assert_eq!(clients.delete(delete).await.unwrap().deleted, 30);
        let changed = clients.range(get_prefix("large/")).await.unwrap();
        assert_eq!(changed.count, 70);
        for (stream, first) in streams.iter_mut().zip(begun) {
            let pieces = rest(stream).await.unwrap();
            let found = whole([vec![first], pieces].concat());
            let kvs = expected.kvs[..found.kvs.len()].to_vec();
            let more = found.kvs.len() == 90;
            assert_eq!(found, RangeResponse { kvs, more, ..expected.clone() });
            assert!(more || found.kvs.len() == KEYS);
        }
    });
}

#[test]
fn what_is_compacted_while_a_client_stands_still_ends_its_stream() {
    with_slow_clients(|clients, gateway| async move {
        let mut stream = clients.stream(get_prefix("large/")).await;
        next(&mut stream).await.unwrap().unwrap();
        stands_still(&gateway, 1);
        let revision = clients.put_key(&key(KEYS - 1), "changed").await;
        let compaction = CompactionRequest { revision, ..CompactionRequest::default() };
        clients.kv().compact(compaction).await.unwrap();
        let text = "etcdserver: mvcc: required revision has been compacted";
        refused(rest(&mut stream).await, Code::OutOfRange, text);
    });
}

#[test]
fn a_range_whose_node_dies_is_ended_by_another_one() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let gateway = Gateway::start(&cluster);
    block_on(async {
        let clients = slow_clients(&gateway).await;
        clients.fill().await;
        let all = get_prefix("large/");
        let expected = clients.range(all.clone()).await.unwrap();
        let mut stream = clients.stream(all).await;
        let first = next(&mut stream).await.unwrap().unwrap();
        // Whoever leads by now: a slow disk hands over.
        let leader = cluster.leader();
        cluster.server(leader).kill();
        // By the new leader, whose store goes on.
        clients.put(put(&key(KEYS - 1), "changed")).await.unwrap();
        let pieces = rest(&mut stream).await.unwrap();
        let mut found = whole([vec![first], pieces].concat());
        // Another one has the last word, in another term.
        let header = found.header.take().unwrap();
        let before = expected.header.unwrap();
        assert_eq!(header.revision, before.revision);
        assert!(header.member_id != leader && header.raft_term > before.raft_term);
        assert_eq!(found, RangeResponse { header: None, ..expected });
    });
}
