//! Names to addresses to sockets, without blocking the loop: a thread resolves, the loop connects.

use super::poll::WakeHandle;
use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Connections the kernel may hold before we accept them.
const BACKLOG: i32 = 1024;

/// A thread that turns `host:port` into addresses; a name is resolved anew on every attempt.
#[derive(Debug)]
pub struct Resolver<K> {
    ask: Sender<(K, String)>,
    answers: Receiver<(K, io::Result<Vec<SocketAddr>>)>,
    /// What was no name, and is its own answer: it need not wait behind names that take long.
    known: VecDeque<(K, SocketAddr)>,
}

impl<K: Send + 'static> Resolver<K> {
    /// Starts the thread; it ends when the resolver is dropped.
    pub fn start(wake: WakeHandle) -> io::Result<Resolver<K>> {
        let (ask, questions) = channel::<(K, String)>();
        let (answer, answers) = channel();
        std::thread::Builder::new().name("resolve".to_owned()).spawn(move || {
            for (key, name) in questions {
                let found = name.to_socket_addrs().map(Iterator::collect);
                if answer.send((key, found)).is_err() {
                    return;
                }
                wake.wake();
            }
        })?;
        Ok(Resolver { ask, answers, known: VecDeque::new() })
    }

    /// Asks for the addresses of `name`; the answer carries `key`.
    pub fn ask(&mut self, key: K, name: String) {
        if let Ok(address) = name.parse() {
            return self.known.push_back((key, address));
        }
        self.ask.send((key, name)).expect("the thread lives as long as the resolver");
    }

    /// The next answer that has arrived.
    pub fn answer(&mut self) -> Option<(K, io::Result<Vec<SocketAddr>>)> {
        let known = self.known.pop_front().map(|(key, address)| (key, Ok(vec![address])));
        known.or_else(|| self.answers.try_recv().ok())
    }
}

/// After so long without an answer of the other end's system, a connection that we made is over.
/// Of what a network loses TCP sends the next copy after twice the time of the one before: when all
/// is well again after a minute, a connection that was kept stands still for up to another one. A
/// new one does not.
const UNANSWERED: Duration = Duration::from_secs(1);

/// Starts a connection attempt; the socket becomes writable when it has ended.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    tune(&stream)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(UNANSWERED))?;
    Ok(stream)
}

/// Small frames leave at once, and a peer that vanished without a word is noticed.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5));
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// The listening socket.
#[derive(Debug)]
pub struct Listener(TcpListener);

/// Listens on the first address of `name` that can be bound. Blocks while the name is resolved:
/// start-up only.
pub fn listen(name: &str) -> io::Result<Listener> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in name.to_socket_addrs()? {
        match bind(address) {
            Ok(listener) => return Ok(Listener(listener)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

impl Listener {
    /// The socket, to register it.
    pub fn source(&mut self) -> &mut TcpListener {
        &mut self.0
    }

    /// The address it is bound to.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The next connection that waits, if any.
    pub fn accept(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        match self.0.accept() {
            Ok((stream, from)) => {
                tune(&stream)?;
                Ok(Some((stream, from)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member whose name no server answers for kept the others from being dialed.
    #[test]
    fn an_address_waits_for_no_name() {
        let wait = super::super::Wait::new().expect("a poll");
        let mut resolver = Resolver::start(wait.handle()).expect("a thread");
        for (key, address) in [(1, "127.0.0.1:7101"), (2, "[::1]:7102")] {
            resolver.ask(key, address.to_owned());
            let (answered, found) = resolver.answer().expect("at once");
            assert_eq!(answered, key);
            assert_eq!(found.expect("an address"), [address.parse().expect("an address")]);
        }
    }

    #[test]
    fn a_connection_that_we_made_does_not_outlive_what_it_cannot_deliver() {
        let listener = listen("127.0.0.1:0").expect("loopback");
        let stream = connect(listener.address().expect("bound")).expect("begun");
        assert_eq!(SockRef::from(&stream).tcp_user_timeout().expect("known"), Some(UNANSWERED));
    }
}
