//! Directories that go away, and addresses that nobody has.

use crate::Result;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// As many ports from 10000 on are tried.
const PORTS: u16 = 10_000;

/// A directory that goes away with its owner.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Where it is.
    pub(crate) path: PathBuf,
}

impl Scratch {
    /// Makes a fresh directory below `parent`.
    pub(crate) fn make(parent: &Path, name: &str) -> Result<Scratch> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("raftd-bench-{}-{number}-{name}", std::process::id()));
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

/// Addresses that nobody listens on. Below the ports that the system gives to outgoing connections,
/// so that nobody takes one while its server is down.
pub(crate) fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 97)? * 100;
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..PORTS {
        if addresses.len() == count {
            return Ok(addresses);
        }
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS) % PORTS;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            addresses.push(address);
        }
    }
    Err("no port from 10000 to 20000 is free".into())
}
