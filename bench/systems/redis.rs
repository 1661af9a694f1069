//! One Redis: no replicas and no WAIT, so nothing is replicated, and what is not synced is lost
//! with the process.

use super::process::Process;
use crate::Result;
use crate::scratch::{Scratch, free_addresses};
use crate::wait;
use raftd::client::load::Target;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// A running server.
#[derive(Debug)]
pub(crate) struct Redis {
    /// Its process.
    pub(crate) process: Process,
    address: SocketAddr,
    /// After `process`, so that it goes when that is gone.
    #[expect(dead_code, reason = "held for its drop")]
    directory: Scratch,
}

impl Redis {
    /// Starts it with this `appendfsync`. Its file is not rewritten meanwhile: that is work of a
    /// process of its own, which would be missed in its CPU time.
    pub(crate) fn start(directory: Scratch, appendfsync: &str) -> Result<Redis> {
        let address = free_addresses(1)?[0];
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--dir"])
            .arg(&directory.path)
            .args(["--save", "", "--appendonly", "yes", "--appendfsync", appendfsync])
            .args(["--auto-aof-rewrite-percentage", "0"]);
        let process = Process::start(&mut command, "redis", &directory.path)?;
        let mut redis = Redis { process, address, directory };
        let up = wait::until(PATIENCE, || {
            redis.process.check_alive()?;
            Ok(TcpStream::connect(address).ok())
        })?;
        up.ok_or("redis-server does not listen")?;
        Ok(redis)
    }

    /// Whom a load asks.
    pub(crate) fn target(&self) -> Target {
        Target { endpoints: vec![self.address], first: 0 }
    }
}
