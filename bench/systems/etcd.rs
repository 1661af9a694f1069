//! etcd as it comes, and our own gateway in front of raftd: what speaks etcd's API.
//!
//! Flags of etcd beside names, addresses and directories: errors alone are logged, and
//! `--quota-backend-bytes` is 8 GiB, since history is not compacted unless somebody asks for it and
//! 2 GiB are soon full.

use super::cluster::Cluster;
use super::process::Process;
use crate::Result;
use crate::scratch::{Scratch, free_addresses};
use crate::wait;
use raftd::gateway::proto::etcdserverpb::StatusRequest;
use raftd::gateway::proto::etcdserverpb::kv_client::KvClient;
use raftd::gateway::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use raftd::gateway::proto::etcdserverpb::{RangeRequest, StatusResponse};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;
use tonic::transport::Endpoint;

const PATIENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(5);

/// What etcd counts of its syncs: one for each batch of its log, one for each of its database.
const SYNC_COUNTERS: [&str; 2] = [
    "etcd_disk_wal_fsync_duration_seconds_count",
    "etcd_disk_backend_commit_duration_seconds_count",
];

/// A running cluster of etcd.
#[derive(Debug)]
pub(crate) struct Etcd {
    /// The members.
    pub(crate) members: Vec<Process>,
    clients: Vec<SocketAddr>,
    /// After `members`, so that it goes when they are gone.
    #[expect(dead_code, reason = "held for its drop")]
    directory: Scratch,
}

impl Etcd {
    /// Starts `nodes` members in `directory`.
    pub(crate) fn start(directory: Scratch, nodes: usize) -> Result<Etcd> {
        let mut clients = free_addresses(nodes * 2)?;
        let peers = clients.split_off(nodes);
        let list: Vec<String> =
            peers.iter().enumerate().map(|(at, peer)| format!("n{at}=http://{peer}")).collect();
        let list = list.join(",");
        let mut members = Vec::new();
        for (at, (client, peer)) in clients.iter().zip(&peers).enumerate() {
            let name = format!("n{at}");
            let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
            let mut command = Command::new("etcd");
            command
                .args(["--name", &name, "--initial-cluster", &list, "--data-dir"])
                .arg(directory.path.join(&name))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--logger", "zap", "--log-level", "error"])
                .args(["--quota-backend-bytes", "8589934592"]);
            let name = format!("etcd-{name}");
            members.push(Process::start(&mut command, &name, &directory.path)?);
        }
        Ok(Etcd { members, clients, directory })
    }

    /// The leader's place in `members`, once all agree on it.
    pub(crate) fn leader(&mut self) -> Result<usize> {
        let found = wait::until(PATIENCE, || {
            for member in &mut self.members {
                member.check_alive()?;
            }
            let statuses: Result<Vec<StatusResponse>> =
                self.clients.iter().map(|client| status(*client)).collect();
            let Ok(statuses) = statuses else { return Ok(None) };
            let leader = statuses[0].leader;
            let agreed = leader != 0 && statuses.iter().all(|status| status.leader == leader);
            let is_leader = |status: &StatusResponse| {
                status.header.as_ref().is_some_and(|header| header.member_id == leader)
            };
            Ok(statuses.iter().position(is_leader).filter(|_| agreed))
        })?;
        found.ok_or_else(|| "etcd's members agreed on no leader in 30 s".into())
    }

    /// Where the member at this place takes clients.
    pub(crate) fn address(&self, at: usize) -> SocketAddr {
        self.clients[at]
    }

    /// Syncs of all members, by their own counters, and the highest term.
    pub(crate) fn counters(&self) -> Result<(u64, u64)> {
        let (mut syncs, mut term) = (0, 0);
        for client in &self.clients {
            let metrics = metrics(*client)?;
            for line in metrics.lines() {
                let (name, value) = line.split_once(' ').unwrap_or((line, ""));
                if SYNC_COUNTERS.contains(&name) {
                    syncs += value.parse::<u64>()?;
                }
            }
            term = term.max(status(*client)?.raft_term);
        }
        Ok((syncs, term))
    }
}

/// raftd behind the gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// The gateway.
    pub(crate) process: Process,
    /// Where it takes clients.
    pub(crate) address: SocketAddr,
    /// Those behind it.
    pub(crate) cluster: Cluster,
}

impl Gateway {
    /// Starts a cluster, and a gateway that knows all of it.
    pub(crate) fn start(directory: Scratch, nodes: usize) -> Result<Gateway> {
        let logs = directory.path.clone();
        let mut cluster = Cluster::start(directory, nodes, &[])?;
        cluster.leader()?;
        let address = free_addresses(1)?[0];
        let list: Vec<String> =
            cluster.servers.iter().map(|server| server.address.to_string()).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_raftd-gateway"));
        command.args(["--listen", &address.to_string(), "--cluster", &list.join(",")]);
        let process = Process::start(&mut command, "gateway", &logs)?;
        let mut gateway = Gateway { process, address, cluster };
        let serves = wait::until(PATIENCE, || {
            gateway.process.check_alive()?;
            Ok(read_anything(address).ok())
        })?;
        serves.ok_or("the gateway does not serve")?;
        Ok(gateway)
    }
}

fn endpoint(address: SocketAddr) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.connect_timeout(ANSWER).timeout(ANSWER))
}

fn status(address: SocketAddr) -> Result<StatusResponse> {
    block_on(async {
        let mut client = MaintenanceClient::new(endpoint(address)?.connect().await?);
        Ok(client.status(StatusRequest::default()).await?.into_inner())
    })
}

/// A linearizable read, which needs a leader.
fn read_anything(address: SocketAddr) -> Result<()> {
    block_on(async {
        let mut client = KvClient::new(endpoint(address)?.connect().await?);
        let request = RangeRequest { key: "anything".into(), ..RangeRequest::default() };
        client.range(request).await?;
        Ok(())
    })
}

fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// What a member says of itself by HTTP.
fn metrics(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
