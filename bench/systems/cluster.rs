//! Real servers on loopback, each a process with a fresh directory.

use super::process::Process;
use crate::Result;
use crate::scratch::{Scratch, free_addresses};
use crate::wait;
use raftd::client::load::Target;
use raftd::client::{Connection, Deadline};
use raftd::types::ClusterId;
use raftd::wire::reply::ReplyBody;
use raftd::wire::status::Status;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Time to elect a leader, or to catch up after a run.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that says nothing for this long is broken.
const ANSWER: Duration = Duration::from_secs(5);

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    id: usize,
    /// Its process, unless it was killed.
    pub(crate) process: Option<Process>,
    /// Where it accepts connections.
    pub(crate) address: SocketAddr,
    control: Option<Connection>,
}

impl Server {
    /// How it is. Keeps the connection for the next time.
    pub(crate) fn status(&mut self) -> Result<Status> {
        let deadline = Deadline::after(ANSWER);
        let mut control = match self.control.take() {
            Some(control) => control,
            None => Connection::open(&self.address.to_string(), ClusterId(0), deadline)?,
        };
        control.status();
        control.flush(deadline)?;
        let body = control.receive(deadline)?.body;
        let ReplyBody::Status(status) = body else {
            return Err(format!("asked for a status, got {body:?}").into());
        };
        self.control = Some(control);
        Ok(*status)
    }
}

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The servers, by id from 1.
    pub(crate) servers: Vec<Server>,
    peers: String,
    flags: Vec<String>,
    /// Their directories; after `servers`, so that it goes when they are gone.
    directory: Scratch,
}

impl Cluster {
    /// Starts `nodes` servers in `directory`, with more flags.
    pub(crate) fn start(directory: Scratch, nodes: usize, flags: &[&str]) -> Result<Cluster> {
        let addresses = free_addresses(nodes)?;
        let peers: Vec<String> = addresses
            .iter()
            .enumerate()
            .map(|(at, address)| format!("{}={address}", at + 1))
            .collect();
        let server = |(at, address): (usize, SocketAddr)| Server {
            id: at + 1,
            process: None,
            address,
            control: None,
        };
        let servers = addresses.into_iter().enumerate().map(server).collect();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut cluster = Cluster { servers, peers: peers.join(","), flags, directory };
        for at in 0..nodes {
            cluster.start_server(at)?;
        }
        Ok(cluster)
    }

    /// Starts the server at this place, which does not run.
    pub(crate) fn start_server(&mut self, at: usize) -> Result<()> {
        let server = &mut self.servers[at];
        let name = format!("raftd-{}", server.id);
        let mut command = Command::new(env!("CARGO_BIN_EXE_raftd"));
        command
            .args(["--id", &server.id.to_string(), "--peers", &self.peers, "--data-dir"])
            .arg(self.directory.path.join(server.id.to_string()))
            .args(&self.flags);
        server.process = Some(Process::start(&mut command, &name, &self.directory.path)?);
        Ok(())
    }

    /// Kills the server at this place with SIGKILL.
    pub(crate) fn kill(&mut self, at: usize) -> Result<()> {
        let server = &mut self.servers[at];
        server.control = None;
        server.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Where the server at this place keeps its data.
    pub(crate) fn data_of(&self, at: usize) -> PathBuf {
        self.directory.path.join(self.servers[at].id.to_string())
    }

    /// The processes that run.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.servers.iter().filter_map(|server| server.process.as_ref().map(Process::pid)).collect()
    }

    /// The leader's place in `servers`, once all servers agree on it and hear each other.
    pub(crate) fn leader(&mut self) -> Result<usize> {
        let found = wait::until(PATIENCE, || {
            let Some(statuses) = self.statuses_if_up()? else { return Ok(None) };
            let leader = statuses[0].leader;
            let agreed = statuses.iter().all(|status| {
                let connected = status.peers.iter().all(|peer| peer.connected);
                status.leader == leader && status.term == statuses[0].term && connected
            });
            let at = statuses.iter().position(|status| Some(status.node) == leader);
            Ok(at.filter(|at| agreed && statuses[*at].role == "leader"))
        })?;
        found.ok_or_else(|| "the servers agreed on no leader in 30 s".into())
    }

    /// Whom a load asks.
    pub(crate) fn target(&self, leader: usize) -> Target {
        let endpoints = self.servers.iter().map(|server| server.address).collect();
        Target { endpoints, first: leader }
    }

    /// How all servers are.
    pub(crate) fn statuses(&mut self) -> Result<Vec<Status>> {
        self.servers.iter_mut().map(Server::status).collect()
    }

    /// Waits until all servers have applied the same entries, and compares their states.
    pub(crate) fn agree(&mut self) -> Result<()> {
        let equal = wait::until(PATIENCE, || {
            let statuses = self.statuses()?;
            let first = &statuses[0];
            let caught_up = statuses.iter().all(|status| {
                status.applied_index == first.applied_index
                    && status.applied_index == status.last_index
            });
            let same = statuses.iter().all(|status| status.state_hash == first.state_hash);
            Ok(caught_up.then_some(same))
        })?;
        match equal {
            Some(true) => Ok(()),
            Some(false) => Err("the servers' states differ at the same index".into()),
            None => Err("the followers did not catch up in 30 s".into()),
        }
    }

    fn statuses_if_up(&mut self) -> Result<Option<Vec<Status>>> {
        for process in self.servers.iter_mut().filter_map(|server| server.process.as_mut()) {
            process.check_alive()?;
        }
        // Until it listens, a server refuses connections: ask again.
        Ok(self.statuses().ok())
    }
}
