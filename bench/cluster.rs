//! Three real servers on loopback, each a process with a fresh directory. Dropping the cluster
//! kills exactly
//! these processes and removes exactly these directories.

use crate::Result;
use crate::clock::Clock;
use crate::control::Control;
use crate::proc::Device;
use raftd::wire::status::Status;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Servers of a cluster.
pub(crate) const SERVERS: usize = 3;

/// Time to elect a leader, or to catch up after a run.
const PATIENCE: Duration = Duration::from_secs(30);

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where it accepts connections.
    pub(crate) address: SocketAddr,
    log: PathBuf,
    control: Option<Control>,
}

impl Server {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it is. Keeps the connection for the next time.
    pub(crate) fn status(&mut self) -> Result<Status> {
        let mut control = match self.control.take() {
            Some(control) => control,
            None => Control::connect(self.address)?,
        };
        let status = control.status()?;
        self.control = Some(control);
        Ok(status)
    }

    /// Fails with what it said last if the process has ended.
    fn check_alive(&mut self) -> Result<()> {
        let Some(code) = self.child.try_wait()? else { return Ok(()) };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        Err(format!("raftd at {} ended with {code}; its last lines: {last:?}", self.address).into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    clock: Clock,
    /// The servers, by id from 1.
    pub(crate) servers: Vec<Server>,
    /// The device below their directories, if there is one.
    pub(crate) device: Option<Device>,
    /// Their directories; after `servers`, so that it goes when they are gone.
    #[expect(dead_code, reason = "held for its drop")]
    directory: Scratch,
}

impl Cluster {
    /// Starts the servers in `directory`.
    pub(crate) fn start(clock: Clock, directory: Scratch) -> Result<Cluster> {
        let addresses = free_addresses()?;
        let peers: Vec<String> = addresses
            .iter()
            .enumerate()
            .map(|(at, address)| format!("{}={address}", at + 1))
            .collect();
        let peers = peers.join(",");
        let mut servers = Vec::new();
        for (at, address) in addresses.into_iter().enumerate() {
            let id = (at + 1).to_string();
            let log = directory.path.join(format!("{id}.log"));
            let child = Command::new(env!("CARGO_BIN_EXE_raftd"))
                .args(["--id", &id, "--peers", &peers, "--data-dir"])
                .arg(directory.path.join(&id))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(&log)?)
                .spawn()?;
            servers.push(Server { child, address, log, control: None });
        }
        let device = Device::below(&directory.path)?;
        Ok(Cluster { clock, servers, device, directory })
    }

    /// The leader's place in `servers`, once all servers agree on it and hear each other.
    pub(crate) fn leader(&mut self) -> Result<usize> {
        let clock = self.clock;
        let found = clock.poll_until(PATIENCE, || {
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

    /// How all servers are.
    pub(crate) fn statuses(&mut self) -> Result<Vec<Status>> {
        self.servers.iter_mut().map(Server::status).collect()
    }

    /// Waits until all servers have applied the same entries, and compares their states.
    pub(crate) fn agree(&mut self) -> Result<()> {
        let clock = self.clock;
        let equal = clock.poll_until(PATIENCE, || {
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
        for server in &mut self.servers {
            server.check_alive()?;
        }
        // Until it listens, a server refuses connections: ask again.
        Ok(self.statuses().ok())
    }
}

/// A directory that goes away with its owner.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Where it is.
    pub(crate) path: PathBuf,
}

impl Scratch {
    /// Makes a fresh directory below `parent`.
    pub(crate) fn make(parent: &Path, name: &str) -> Result<Scratch> {
        let path = parent.join(format!("raftd-bench-{}-{name}", std::process::id()));
        fs::create_dir_all(parent)?;
        fs::create_dir(&path)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Scratch { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing to do about a directory that cannot be removed, and nothing depends on it.
        let _left = fs::remove_dir_all(&self.path);
    }
}

/// Ports that are free now. They are all held at once, so they differ.
fn free_addresses() -> Result<Vec<SocketAddr>> {
    let listeners: std::io::Result<Vec<TcpListener>> =
        (0..SERVERS).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    Ok(listeners?.iter().map(TcpListener::local_addr).collect::<std::io::Result<_>>()?)
}
