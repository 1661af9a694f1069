//! One pipelined connection: non-blocking, one read and one write for all that is ready.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::speaker::{Greeting, Speaker};
use super::task::Task;

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Connecting, or greeted and not answered.
    Opening,
    /// Requests may be sent.
    Ready,
    /// Closed, to be opened again from this moment on.
    Closed {
        /// Nanoseconds.
        until_ns: u64,
    },
}

/// A connection with its requests in flight. A request's place is its number on the wire.
#[derive(Debug)]
pub(super) struct Link<S> {
    pub(super) speaker: S,
    pub(super) state: State,
    /// Which endpoint it is opened to.
    pub(super) endpoint: usize,
    stream: Option<TcpStream>,
    /// The beginning of a message whose end has not come yet.
    tail: Vec<u8>,
    /// What is to be sent.
    pub(super) out: Vec<u8>,
    /// What is in flight, and the places that are free.
    pub(super) tasks: Vec<Option<Task>>,
    pub(super) free: Vec<usize>,
    /// It is in the list of those that have something to send.
    pub(super) is_dirty: bool,
}

impl<S: Speaker> Link<S> {
    pub(super) fn new(speaker: S, endpoint: usize, depth: usize) -> Link<S> {
        Link {
            speaker,
            state: State::Closed { until_ns: 0 },
            endpoint,
            stream: None,
            tail: Vec::new(),
            out: Vec::new(),
            tasks: vec![None; depth],
            free: (0..depth).rev().collect(),
            is_dirty: false,
        }
    }

    /// Begins to connect; the greeting goes out as soon as that is done.
    pub(super) fn open(
        &mut self,
        address: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        // Not connected yet, and set all the same.
        stream.set_nodelay(true)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.stream = Some(stream);
        self.tail.clear();
        self.out.clear();
        self.state = match self.speaker.greet(&mut self.out) {
            Greeting::Awaited => State::Opening,
            Greeting::Over => State::Ready,
        };
        Ok(())
    }

    /// Hangs up, and hands over what was in flight.
    pub(super) fn close(&mut self, until_ns: u64) -> Vec<Task> {
        self.stream = None;
        self.state = State::Closed { until_ns };
        self.out.clear();
        let lost = self.tasks.iter_mut().filter_map(Option::take).collect();
        self.free = (0..self.tasks.len()).rev().collect();
        lost
    }

    /// Reads once behind what was left of the last read. Returns the filled part, and whether more
    /// may wait.
    pub(super) fn receive<'b>(&mut self, buffer: &'b mut Vec<u8>) -> io::Result<(&'b [u8], bool)> {
        let kept = self.tail.len();
        if buffer.len() < kept * 2 {
            // A message larger than the buffer.
            buffer.resize(kept * 2, 0);
        }
        buffer[..kept].copy_from_slice(&self.tail);
        let Some(stream) = &mut self.stream else { return Ok((&[], false)) };
        self.tail.clear();
        loop {
            match stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    let full = kept + count == buffer.len();
                    return Ok((&buffer[..kept + count], full));
                }
                Err(error) if is_not_yet(&error) => return Ok((&buffer[..kept], false)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps the beginning of a message for the next read.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        assert!(self.tail.is_empty(), "receive has taken it");
        self.tail.extend_from_slice(rest);
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let mut sent = 0;
        while sent < self.out.len() {
            match stream.write(&self.out[sent..]) {
                Ok(count) => sent += count,
                Err(error) if is_not_yet(&error) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.drain(..sent);
        Ok(())
    }
}

/// Nothing to read, no room to write, or not connected yet.
fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}
