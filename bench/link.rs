//! One pipelined connection of the load generator: non-blocking, one read and one write for all
//! that is ready.

use crate::control::greet;
use crate::ledger::{Found, KeyNumber, PutNumber};
use crate::{Result, load};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use raftd::wire::error::Error;
use raftd::wire::reply::{ReplyBody, decode_reply};
use std::io::{self, Read, Write};
use std::net::SocketAddr;

/// A request in flight. Its place in `Link::slots` is its id on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// When it was sent.
    pub(crate) started_ns: u64,
    /// What it is about.
    pub(crate) key: KeyNumber,
    /// What it asks.
    pub(crate) asked: Asked,
}

/// What a request asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked {
    /// Nothing: the slot is free.
    Nothing,
    /// A put.
    Put(PutNumber),
    /// A read that must see this revision of its key, or a later one.
    Get {
        /// The newest acknowledged one when the read began.
        at_least: u64,
    },
}

impl Slot {
    const FREE: Slot = Slot { started_ns: 0, key: KeyNumber(0), asked: Asked::Nothing };
}

/// A connection with its requests in flight.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    /// The beginning of a reply whose end has not come yet.
    tail: Vec<u8>,
    unsent: Vec<u8>,
    /// The requests in flight.
    pub(crate) slots: Vec<Slot>,
}

impl Link {
    /// Connects, greets, and joins the poll.
    pub(crate) fn connect(address: SocketAddr, shape: load::Shape) -> Result<Link> {
        let stream = greet(address)?;
        stream.set_nonblocking(true)?;
        let slots = vec![Slot::FREE; shape.depth];
        let stream = TcpStream::from_std(stream);
        Ok(Link { stream, tail: Vec::new(), unsent: Vec::new(), slots })
    }

    /// Has `registry` report the connection as `token`.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Reads once behind what was left of the last read. Returns the filled part, and whether more
    /// may wait.
    pub(crate) fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<(&'b [u8], bool)> {
        let kept = self.tail.len();
        buffer[..kept].copy_from_slice(&self.tail);
        self.tail.clear();
        loop {
            match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => return Ok((&buffer[..kept + count], kept + count == buffer.len())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok((&buffer[..kept], false));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps the beginning of a frame for the next read.
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        assert!(self.tail.is_empty(), "receive has taken it");
        self.tail.extend_from_slice(rest);
    }

    /// Sends `out`, behind what the socket did not take before.
    pub(crate) fn send(&mut self, out: &[u8]) -> io::Result<()> {
        if self.unsent.is_empty() {
            let sent = write(&mut self.stream, out)?;
            self.unsent.extend_from_slice(&out[sent..]);
        } else {
            self.unsent.extend_from_slice(out);
            let sent = write(&mut self.stream, &self.unsent)?;
            self.unsent.drain(..sent);
        }
        Ok(())
    }
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    loop {
        match stream.write(bytes) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A reply, borrowed, as far as the benchmark asks.
#[derive(Debug)]
pub(crate) enum Answer<'a> {
    /// A put was done.
    Put {
        /// The revision it made.
        revision: u64,
    },
    /// A key was read.
    Found(Found<'a>),
    /// The key is not there.
    Missing,
    /// It was not done, or nobody knows.
    Refused(Error),
}

/// Reads a reply's body: the slot, and what came of it.
pub(crate) fn read_answer(body: &[u8]) -> Result<(usize, Answer<'_>)> {
    let reply = decode_reply(body)?;
    let answer = match reply.body {
        ReplyBody::Put { revision } => Answer::Put { revision: revision.0 },
        ReplyBody::Range(range) => range.kvs().next().map_or(Answer::Missing, |found| {
            let revision = found.mod_revision.0;
            Answer::Found(Found { key: found.key, value: found.value, revision })
        }),
        ReplyBody::Error(error) => Answer::Refused(error),
        other @ (ReplyBody::DeleteRange { .. }
        | ReplyBody::OpenSession { .. }
        | ReplyBody::PutIf { .. }
        | ReplyBody::Compact { .. }
        | ReplyBody::PutWith { .. }
        | ReplyBody::DeleteRangeWith { .. }
        | ReplyBody::Txn { .. }
        | ReplyBody::LeaseTerm { .. }
        | ReplyBody::LeaseRevoke { .. }
        | ReplyBody::LeaseTimes(..)
        | ReplyBody::LeaseList(_)
        | ReplyBody::Status(_)
        | ReplyBody::Watch(_)
        | ReplyBody::WatchCancel { .. }
        | ReplyBody::WatchProgress { .. }
        | ReplyBody::Auth { .. }
        | ReplyBody::Login(_)
        | ReplyBody::LoginProof(_)
        | ReplyBody::AuthRead(_)
        | ReplyBody::Snapshot(_)
        | ReplyBody::MemberList(_)
        | ReplyBody::MemberChange { .. }
        | ReplyBody::Transfer { .. }) => {
            return Err(format!("an answer nobody asked for: {other:?}").into());
        }
    };
    Ok((usize::try_from(reply.id)?, answer))
}
