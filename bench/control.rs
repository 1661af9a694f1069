//! One connection, one request at a time: the greeting, and how a server is.

use crate::Result;
use raftd::limits;
use raftd::types::ClusterId;
use raftd::wire::client::status_request;
use raftd::wire::frame::next_frame;
use raftd::wire::hello::{self, Hello, HelloReply, Sender};
use raftd::wire::reply::{Reply, ReplyBody, decode_reply};
use raftd::wire::status::Status;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A server that says nothing for this long is broken.
const PATIENCE: Duration = Duration::from_secs(5);

/// A blocking connection for questions about a server.
#[derive(Debug)]
pub(crate) struct Control {
    stream: TcpStream,
    input: Vec<u8>,
    requests: u64,
}

impl Control {
    /// Connects and greets.
    pub(crate) fn connect(address: SocketAddr) -> Result<Control> {
        Ok(Control { stream: greet(address)?, input: Vec::new(), requests: 0 })
    }

    /// How the server is.
    pub(crate) fn status(&mut self) -> Result<Status> {
        self.requests += 1;
        let mut out = Vec::new();
        status_request(&mut out, self.requests);
        self.stream.write_all(&out)?;
        let body = read_frame(&mut self.stream, &mut self.input)?;
        match decode_reply(&body)? {
            Reply { id, body: ReplyBody::Status(status) } if id == self.requests => Ok(*status),
            other => Err(format!("asked for a status, got {other:?}").into()),
        }
    }
}

/// Opens a connection as a client of whatever cluster is there.
pub(crate) fn greet(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let own = Hello {
        version_min: hello::VERSION,
        version_max: hello::VERSION,
        cluster_id: ClusterId(0),
        sender: Sender::Client,
        auth: Vec::new(),
    };
    let mut out = Vec::new();
    hello::encode_hello(&mut out, &own);
    stream.write_all(&out)?;
    let body = read_frame(&mut stream, &mut Vec::new())?;
    match hello::decode_hello_reply(&body)? {
        HelloReply::Welcome(_) => Ok(stream),
        HelloReply::Refused(error) => Err(format!("{address} refused a client: {error}").into()),
    }
}

/// The next frame's body. `input` keeps what came behind it.
fn read_frame(stream: &mut TcpStream, input: &mut Vec<u8>) -> Result<Vec<u8>> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(frame) = next_frame(input, limits::FRAME_BYTES_MAX)? {
            let (body, consumed) = (frame.body.to_vec(), frame.consumed);
            input.drain(..consumed);
            return Ok(body);
        }
        match stream.read(&mut buffer)? {
            0 => return Err("the server closed the connection".into()),
            count => input.extend_from_slice(&buffer[..count]),
        }
    }
}
