//! One TCP connection: handshake, requests into a buffer, replies out of another.
//!
//! Replies carry the id of their request and may overtake each other: a read of one connection can
//! be answered before a write that it follows.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::limits::{HELLO_BYTES_MAX, REPLY_BYTES_MAX};
use crate::types::{ClusterId, Credential};
use crate::wire::auth::{self, AuthRequest, in_name_of};
use crate::wire::client::{self, Command, Consistency, RangeArgs, SessionCall, Txn};
use crate::wire::frame::next_frame;
use crate::wire::hello::{self, Hello, HelloReply, Sender, VERSION, Welcome};
use crate::wire::leases::{self, LeaseRequest};
use crate::wire::members::{self, MemberRequest};
use crate::wire::reply::{Reply, decode_reply};
use crate::wire::scram::Key;
use crate::wire::watch::{self, WatchArgs};

use super::clock::Deadline;
use super::error::ConnectionError;
use super::login::Login;

/// Bytes read at a time. Bytes: hundreds of small replies.
const READ_BYTES: usize = 64 * 1024;

/// Longest single wait in a system call, after which the deadline is looked at. Set once, so that a
/// request costs no extra system call for its deadline.
const SLICE: Duration = Duration::from_millis(25);

/// A connection to one node.
#[derive(Debug)]
pub struct Connection {
    endpoint: String,
    stream: TcpStream,
    welcome: Welcome,
    next_id: u64,
    out: Vec<u8>,
    input: Input,
    acting: Option<Credential>,
}

impl Connection {
    /// Connects to `endpoint` (host:port) and introduces itself. `cluster_id` 0 takes any cluster.
    ///
    /// The deadline does not bound the resolver, which is the operating system's.
    pub fn open(
        endpoint: &str,
        cluster_id: ClusterId,
        deadline: Deadline,
    ) -> Result<Connection, ConnectionError> {
        let stream = connect(endpoint, deadline)?;
        let mut socket = Socket { endpoint, stream: &stream };
        let mut input = Input::default();
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            cluster_id,
            sender: Sender::Client,
            auth: Vec::new(),
        };
        let mut out = Vec::new();
        hello::encode_hello(&mut out, &hello);
        socket.send(&mut out, &mut input, deadline)?;
        let body = socket.receive(&mut input, HELLO_BYTES_MAX, deadline)?;
        let reply = hello::decode_hello_reply(body).map_err(|source| ConnectionError::Reply {
            endpoint: endpoint.to_owned(),
            source: Some(source),
        })?;
        let endpoint = endpoint.to_owned();
        match reply {
            HelloReply::Welcome(welcome) => {
                Ok(Connection { endpoint, stream, welcome, next_id: 1, out, input, acting: None })
            }
            HelloReply::Refused(source) => Err(ConnectionError::Refused { endpoint, source }),
        }
    }

    /// The same, and logs in, if there is somebody to log in as and rights count.
    pub fn open_as(
        endpoint: &str,
        cluster_id: ClusterId,
        login: Option<&Login>,
        deadline: Deadline,
    ) -> Result<Connection, ConnectionError> {
        let mut connection = Connection::open(endpoint, cluster_id, deadline)?;
        if let Some(login) = login {
            connection.log_in(login, deadline)?;
        }
        Ok(connection)
    }

    /// Whom the requests made from now on are for: what only a user with the role `root` may say.
    /// `Some(NONE)`: for nobody, who has no rights; `None`: for whoever has logged in.
    pub fn act_for(&mut self, acting: Option<Credential>) {
        self.acting = acting;
    }

    /// Where it was opened to.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Who answered there.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Puts a Put into the send buffer; the reply will carry the number returned.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> u64 {
        self.request(|out, id| client::put_request(out, id, key, value))
    }

    /// Puts a command into the send buffer, as a call of a session or by itself.
    pub fn command(&mut self, call: Option<SessionCall>, command: Command<'_>) -> u64 {
        self.request(|out, id| client::command_request(out, id, call, command))
    }

    /// Puts a DeleteRange into the send buffer.
    pub fn delete_range(&mut self, key: &[u8], end: &[u8]) -> u64 {
        self.request(|out, id| client::delete_request(out, id, key, end))
    }

    /// Puts a Range into the send buffer. It is answered by replies of this number until one that
    /// does not go on.
    pub fn range(&mut self, args: &RangeArgs<'_>) -> u64 {
        self.request(|out, id| client::range_request(out, id, args))
    }

    /// Puts a ReadTxn into the send buffer.
    pub fn read_txn(&mut self, consistency: Consistency, txn: Txn<'_>) -> u64 {
        self.request(|out, id| client::read_txn_request(out, id, consistency, txn))
    }

    /// Puts a request about leases into the send buffer.
    pub fn lease(&mut self, request: &LeaseRequest) -> u64 {
        self.request(|out, id| leases::lease_request(out, id, request))
    }

    /// Puts a question about users and roles into the send buffer, or the beginning of a login.
    pub fn auth(&mut self, request: &AuthRequest<'_>) -> u64 {
        self.request(|out, id| auth::auth_request(out, id, request))
    }

    /// Puts what proves a password into the send buffer.
    pub(super) fn login_proof(&mut self, proof: &Key) -> u64 {
        self.request(|out, id| auth::login_proof_request(out, id, proof))
    }

    /// Puts a Status into the send buffer.
    pub fn status(&mut self) -> u64 {
        self.request(client::status_request)
    }

    /// Puts a Snapshot into the send buffer. It is answered by many replies of this number.
    pub fn snapshot(&mut self) -> u64 {
        self.request(client::snapshot_request)
    }

    /// Puts a Watch into the send buffer. It is answered by many replies of this number.
    pub fn watch(&mut self, args: &WatchArgs<'_>) -> u64 {
        self.request(|out, id| watch::watch_request(out, id, args))
    }

    /// Puts a WatchCancel into the send buffer.
    pub fn cancel_watch(&mut self, watch: u64) -> u64 {
        self.request(|out, id| watch::watch_cancel_request(out, id, watch))
    }

    /// Puts a WatchProgress into the send buffer.
    pub fn watch_progress(&mut self) -> u64 {
        self.request(watch::watch_progress_request)
    }

    /// Puts a request to change the members or the leader into the send buffer.
    pub fn member_request(&mut self, request: &MemberRequest<'_>) -> u64 {
        self.request(|out, id| request.encode(out, id))
    }

    /// Puts a MemberList into the send buffer.
    pub fn member_list(&mut self) -> u64 {
        self.request(members::member_list_request)
    }

    /// Sends the buffer. After an error the last request in it was not wholly sent.
    ///
    /// While the node takes nothing, replies are read into memory: a node stops reading from a
    /// client that does not read.
    pub fn flush(&mut self, deadline: Deadline) -> Result<(), ConnectionError> {
        let mut socket = Socket { endpoint: &self.endpoint, stream: &self.stream };
        socket.send(&mut self.out, &mut self.input, deadline)
    }

    /// The next reply, to whichever request it is.
    pub fn receive(&mut self, deadline: Deadline) -> Result<Reply<'_>, ConnectionError> {
        let mut socket = Socket { endpoint: &self.endpoint, stream: &self.stream };
        let body = socket.receive(&mut self.input, REPLY_BYTES_MAX, deadline)?;
        decode_reply(body).map_err(|source| ConnectionError::Reply {
            endpoint: self.endpoint.clone(),
            source: Some(source),
        })
    }

    /// Whether `receive` would answer from memory.
    pub fn has_reply(&self) -> bool {
        !matches!(next_frame(self.input.unread(), REPLY_BYTES_MAX), Ok(None))
    }

    /// Whether a connection with nothing in flight is still of use. A node that stopped has hung up
    /// since: better noticed before a write is sent into the void.
    pub fn is_alive(&self) -> bool {
        if !self.input.unread().is_empty() || self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        let idle = match self.stream.peek(&mut [0]) {
            // The end, or words nobody asked for.
            Ok(_) => false,
            Err(why) => why.kind() == ErrorKind::WouldBlock,
        };
        self.stream.set_nonblocking(false).is_ok() && idle
    }

    /// The number of the request made last.
    pub(super) fn last_id(&self) -> u64 {
        self.next_id - 1
    }

    fn request(&mut self, encode: impl FnOnce(&mut Vec<u8>, u64)) -> u64 {
        let (id, from) = (self.next_id, self.out.len());
        self.next_id += 1;
        encode(&mut self.out, id);
        if let Some(acting) = self.acting {
            in_name_of(&mut self.out, from, acting);
        }
        id
    }
}

fn connect(endpoint: &str, deadline: Deadline) -> Result<TcpStream, ConnectionError> {
    let resolve = |source| ConnectionError::Resolve { endpoint: endpoint.to_owned(), source };
    let addresses = endpoint.to_socket_addrs().map_err(|source| resolve(Some(source)))?;
    let mut last = None;
    for address in addresses {
        let Some(left) = deadline.remaining() else {
            let endpoint = endpoint.to_owned();
            return Err(ConnectionError::TimedOut { endpoint, doing: "connecting" });
        };
        match TcpStream::connect_timeout(&address, left).and_then(prepare) {
            Ok(stream) => return Ok(stream),
            Err(source) => last = Some(source),
        }
    }
    Err(match last {
        Some(source) => ConnectionError::Connect { endpoint: endpoint.to_owned(), source },
        None => resolve(None),
    })
}

fn prepare(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SLICE))?;
    stream.set_write_timeout(Some(SLICE))?;
    Ok(stream)
}

/// Bytes received and not yet handed out: `bytes[start..end]`, after the frame handed out last.
#[derive(Default, Debug)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the frame handed out last; dropped at the next call.
    handed_out: usize,
}

impl Input {
    fn unread(&self) -> &[u8] {
        &self.bytes[self.start + self.handed_out..self.end]
    }

    fn drop_handed_out(&mut self) {
        self.start += self.handed_out;
        self.handed_out = 0;
    }

    /// One read's worth of bytes; 0 at the end of the stream.
    fn fill(&mut self, mut stream: &TcpStream) -> io::Result<usize> {
        if self.bytes.len() - self.end < READ_BYTES {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            self.bytes.resize(self.bytes.len().max(self.end + READ_BYTES), 0);
        }
        let count = stream.read(&mut self.bytes[self.end..])?;
        self.end += count;
        Ok(count)
    }
}

/// The socket and its name in errors.
struct Socket<'a> {
    endpoint: &'a str,
    stream: &'a TcpStream,
}

impl Socket<'_> {
    fn send(
        &mut self,
        out: &mut Vec<u8>,
        input: &mut Input,
        deadline: Deadline,
    ) -> Result<(), ConnectionError> {
        let mut sent = 0;
        while sent < out.len() {
            match self.stream.write(&out[sent..]) {
                Ok(0) => return Err(self.closed()),
                Ok(count) => sent += count,
                Err(why) if is_wait(&why) => {
                    if deadline.has_passed() {
                        let endpoint = self.endpoint.to_owned();
                        return Err(ConnectionError::TimedOut { endpoint, doing: "sending to it" });
                    }
                    self.read_more(input)?;
                }
                Err(source) => return Err(self.io("send to", source)),
            }
        }
        out.clear();
        Ok(())
    }

    fn receive<'i>(
        &mut self,
        input: &'i mut Input,
        body_bytes_max: usize,
        deadline: Deadline,
    ) -> Result<&'i [u8], ConnectionError> {
        input.drop_handed_out();
        let mut late = false;
        let consumed = loop {
            let frame = next_frame(input.unread(), body_bytes_max).map_err(|source| {
                ConnectionError::Frame { endpoint: self.endpoint.to_owned(), source }
            })?;
            if let Some(frame) = frame {
                break frame.consumed;
            }
            // What has already arrived is worth one look, even after the deadline.
            if late {
                let endpoint = self.endpoint.to_owned();
                return Err(ConnectionError::TimedOut { endpoint, doing: "waiting for an answer" });
            }
            self.read_more(input)?;
            late = deadline.has_passed();
        };
        input.handed_out = consumed;
        let frame = &input.bytes[input.start..input.start + consumed];
        Ok(&frame[crate::wire::frame::LENGTH_BYTES..])
    }

    /// Waits at most a slice for bytes.
    fn read_more(&mut self, input: &mut Input) -> Result<(), ConnectionError> {
        match input.fill(self.stream) {
            Ok(0) => Err(self.closed()),
            Ok(_) => Ok(()),
            Err(why) if is_wait(&why) => Ok(()),
            Err(source) => Err(self.io("receive from", source)),
        }
    }

    fn closed(&self) -> ConnectionError {
        ConnectionError::Closed { endpoint: self.endpoint.to_owned() }
    }

    fn io(&self, doing: &'static str, source: io::Error) -> ConnectionError {
        ConnectionError::Io { endpoint: self.endpoint.to_owned(), doing, source }
    }
}

/// A time slice ended, or a signal came: nothing is wrong with the connection.
fn is_wait(why: &io::Error) -> bool {
    matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
