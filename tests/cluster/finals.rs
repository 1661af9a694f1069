//! What a cluster holds in the end: what its nodes say, and what stands in their log.

use super::harness::{Cluster, PATIENCE};
use super::patience::eventually;
use crate::history::checker::NodeState;
use crate::history::checker::product::row_of;
use raftd::client::Deadline;
use raftd::codec::msgpack::Reader;
use raftd::kv::Command;
use raftd::kv::command::{SessionCall, decode_header, decode_next};
use raftd::limits;
use raftd::types::{DiskId, LogIndex, NodeId, Term};
use raftd::wal::{self, OsDisk};
use raftd::wire::client::{Consistency, RangeArgs};
use raftd::wire::reply::ReplyBody;
use std::sync::Arc;

/// Ends a cluster of three whose log holds everything. Says what each node holds, and gives `take`
/// every command of the log, the call of a session that it is, and its term.
pub(super) fn ended(
    cluster: &mut Cluster,
    take: impl FnMut(Option<SessionCall>, Command<'_>, Term),
) -> Vec<NodeState> {
    cluster.leader();
    cluster.wait_until_equal();
    let nodes = (1..=3).map(|id| state_of(cluster, id)).collect();
    let status = cluster.server(1).says();
    assert_eq!(status.log_base, LogIndex::ZERO, "the log holds everything");
    for id in 1..=3 {
        cluster.server(id).kill();
    }
    read_log(cluster, status.applied_index, take);
    nodes
}

fn state_of(cluster: &mut Cluster, id: u64) -> NodeState {
    let server = cluster.server(id);
    let status = server.says();
    let mut connection = server.connection();
    let mut rows = Vec::new();
    let deadline = Deadline::after(PATIENCE);
    let consistency = Consistency::Serializable;
    connection.range(&RangeArgs { end: &[0], consistency, ..RangeArgs::of_key(&[0]) });
    connection.flush(deadline).unwrap();
    loop {
        let reply = connection.receive(deadline).unwrap();
        let ReplyBody::Range(range) = reply.body else { panic!("{:?}", reply.body) };
        rows.extend(range.kvs().map(|kv| row_of(&kv)));
        if !range.goes_on {
            break;
        }
    }
    NodeState {
        node: u32::try_from(id).unwrap(),
        revision: status.revision.0,
        compact_revision: status.compact_revision.0,
        rows,
    }
}

/// Reads the log of a dead server.
fn read_log(
    cluster: &mut Cluster,
    applied: LogIndex,
    mut take: impl FnMut(Option<SessionCall>, Command<'_>, Term),
) {
    let directory = cluster.server(1).directory.clone();
    let disk =
        eventually("the dead server's lock is gone", PATIENCE, || OsDisk::open(&directory).ok());
    let options = wal::Options {
        cluster_id: None,
        token_hash: 0,
        node: NodeId::new(1).unwrap(),
        disk_id_if_new: DiskId(0),
        boot_nonce: 1,
        segment_bytes: cluster.server(1).flag("--segment-bytes").parse().unwrap(),
        salt_seed: 1,
        created_unix_ms: 0,
        entry_cache_bytes: limits::ENTRY_CACHE_BYTES,
    };
    let (log, _) = wal::open(Arc::new(disk), &options).unwrap();
    let mut scratch = Vec::new();
    for index in 1..=applied.get() {
        let index = LogIndex::new(index);
        let meta = log.meta(index).expect("it was applied");
        if meta.kind != raftd::types::EntryKind::Commands {
            continue;
        }
        let payload = log.payload(index, &mut scratch).unwrap();
        let mut reader = Reader::new(payload);
        decode_header(&mut reader).unwrap();
        while !reader.rest().is_empty() {
            let (call, command) = decode_next(&mut reader).unwrap();
            take(call, command, meta.term);
        }
    }
}
