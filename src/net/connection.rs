//! One socket, the bytes read from it that wait to be understood, and what the kernel last said of
//! it.

use mio::net::TcpStream;
use std::io::{self, Read, Write};

/// A connection of the loop. Edge-triggered: `readable` stays true until a read comes back short.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    /// The beginning of a frame whose end has not come yet, or frames that wait for room.
    pub input: Vec<u8>,
    /// The kernel may have bytes for us.
    pub readable: bool,
    /// The kernel may have room for us.
    pub writable: bool,
    /// The other side has ended its stream: read until the end, a short read proves nothing.
    pub hung_up: bool,
    /// The attempt to connect is still under way.
    pub connecting: bool,
}

/// What one read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// So many bytes; more may be waiting.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The stream has ended.
    End,
}

impl Socket {
    /// Wraps a stream; `connecting` while its connection attempt is under way.
    pub fn new(stream: TcpStream, connecting: bool) -> Socket {
        Socket {
            stream,
            input: Vec::new(),
            readable: false,
            writable: !connecting,
            hung_up: false,
            connecting,
        }
    }

    /// The stream, to register it.
    pub fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Ends the connection attempt: `Ok(true)` connected, `Ok(false)` still under way.
    pub fn finish_connecting(&mut self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.connecting = false;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads once into `buffer`. A short read proves the socket empty, so that no second call is
    /// needed.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(Received::End),
                Ok(count) => {
                    self.readable = count == buffer.len() || self.hung_up;
                    return Ok(Received::Bytes(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(Received::Nothing);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes once as much of `bytes` as the kernel takes; returns how many.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(bytes) {
                Ok(count) => {
                    self.writable = count == bytes.len();
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Ok(0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
