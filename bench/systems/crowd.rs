//! Who is there and asks nothing: connections, watches and leases beside those that are measured.

use super::cluster::Cluster;
use crate::Result;
use raftd::client::{Connection, Deadline};
use raftd::types::{ClusterId, Revision};
use raftd::wire::client::Command;
use raftd::wire::reply::ReplyBody;
use raftd::wire::watch::WatchArgs;
use std::time::Duration;

/// Connections that are never used again.
const CONNECTIONS: usize = 1_000;
/// Leases of an hour.
const LEASES: usize = 100_000;
/// Watches on each server, of a key each that nobody puts: nearly as many as a server takes
/// (`raftd::limits::WATCHES_BYTES_MAX`).
const WATCHES: usize = 16_000;

/// So many requests are on their way at once.
const AT_ONCE: usize = 500;
const ANSWER: Duration = Duration::from_secs(30);

/// Keeps what it holds open.
#[derive(Debug)]
pub(crate) struct Crowd {
    #[expect(dead_code, reason = "held for its drop")]
    connections: Vec<Connection>,
}

impl Crowd {
    /// Comes to a cluster that has a leader, and stays.
    pub(crate) fn gather(cluster: &mut Cluster) -> Result<Crowd> {
        let leader = cluster.leader()?;
        let addresses: Vec<String> =
            cluster.servers.iter().map(|server| server.address.to_string()).collect();
        let open = |address: &str| -> Result<Connection> {
            Ok(Connection::open(address, ClusterId(0), Deadline::after(ANSWER))?)
        };
        let mut connections = Vec::new();
        for nth in 0..CONNECTIONS {
            connections.push(open(&addresses[nth % addresses.len()])?);
        }
        lease(&mut open(&addresses[leader])?)?;
        for address in &addresses {
            let mut connection = open(address)?;
            watch(&mut connection)?;
            connections.push(connection);
        }
        Ok(Crowd { connections })
    }
}

fn lease(connection: &mut Connection) -> Result<()> {
    in_batches(LEASES, connection, |connection, _| {
        connection.command(None, Command::LeaseGrant { lease: 0, ttl_s: 3600 });
    })
}

fn watch(connection: &mut Connection) -> Result<()> {
    in_batches(WATCHES, connection, |connection, nth| {
        let key = format!("idle/{nth:06}");
        connection.watch(&WatchArgs {
            key: key.as_bytes(),
            end: b"",
            start: Revision(0),
            prev_kv: false,
            no_put: false,
            no_delete: false,
            progress_ms: 0,
        });
    })
}

/// Asks `count` times, and hears that each was done.
fn in_batches(
    count: usize,
    connection: &mut Connection,
    mut ask: impl FnMut(&mut Connection, usize),
) -> Result<()> {
    for first in (0..count).step_by(AT_ONCE) {
        let deadline = Deadline::after(ANSWER);
        let batch = first..count.min(first + AT_ONCE);
        for nth in batch.clone() {
            ask(connection, nth);
        }
        connection.flush(deadline)?;
        for _ in batch {
            let body = connection.receive(deadline)?.body;
            if !matches!(body, ReplyBody::LeaseTerm { .. } | ReplyBody::Watch(_)) {
                return Err(format!("a crowd was answered with {body:?}").into());
            }
        }
    }
    Ok(())
}
