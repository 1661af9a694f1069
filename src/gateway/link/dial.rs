//! The way to a node. Nothing else here connects to one: whoever wants TLS, or anything else,
//! between the gateway and its nodes changes this file, and `Pump`, which asks a socket itself
//! whether it can be written to.

use std::io;

use tokio::net::TcpStream;

/// What a node and we say to each other.
pub(super) type NodeStream = TcpStream;

/// Connects to a node at `address` (host:port).
pub(super) async fn dial(address: &str) -> io::Result<NodeStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
