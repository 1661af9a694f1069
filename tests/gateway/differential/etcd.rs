//! A real etcd beside the gateway: one process, in a directory that goes away with it.

use crate::harness::{PATIENCE, free_address};
use crate::patience::eventually;
use crate::program::Clients;
use crate::untested::not_tested;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tonic::transport::Endpoint;

/// The process.
pub(super) struct Etcd {
    child: Child,
    address: String,
    _directory: TempDir,
}

impl Etcd {
    /// Starts it; `None`, with a word about it, where there is no `etcd`.
    pub(super) fn start() -> Option<Etcd> {
        // What it syncs is of no interest here.
        let directory = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let (address, peers) = (free_address(), free_address());
        let (clients, peers) = (format!("http://{address}"), format!("http://{peers}"));
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.path())
            .args(["--name", "one", "--initial-cluster", &format!("one={peers}")])
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--logger", "zap", "--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(why) => {
                not_tested(&format!("etcd (Debian: etcd-server) cannot be started: {why}"));
                return None;
            }
        };
        let etcd = Etcd { child, address, _directory: directory };
        eventually("etcd listens", PATIENCE, || TcpStream::connect(&etcd.address).ok());
        Some(etcd)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Clients that share one connection.
    pub(super) fn clients(&self) -> Clients {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        Clients::over(endpoint.connect_lazy())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
