//! THE SHELL: the only owner of sockets, the clock and the threads. Nothing here knows what a vote
//! is.
//!
//! | file | what |
//! |---|---|
//! | `turn` | one turn of the loop, on one screen |
//! | `sockets` | accept, connect, read, write, close: sockets on one side, the node on the other |
//! | `threads` | `sync` and `bg`: they run jobs and own no state |
//! | `logger` | log lines through a bounded queue, so that a full terminal cannot stop the loop |
//! | `wheel`, `clock` | deadlines of connections; the only clock |

mod clock;
mod logger;
mod sockets;
mod threads;
mod turn;
mod wheel;

pub use clock::unix_ms;
pub use logger::{LogQueue, start_logger};

use crate::net::{Listener, Signal, Signals, Wait, listen};
use crate::replica::{ConnectionId, Dial, Fatal, Node, NodeOptions};
use crate::types::Instant;
use crate::wal::{Disk, OpenError};
use clock::Clock;
use sockets::Sockets;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use threads::Threads;
use wheel::Wheel;

/// What the shell is told at its start.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// `host:port` to accept on.
    pub listen: String,
    /// Connections at once.
    pub connections_max: usize,
}

/// Why the server could not start.
#[derive(Debug)]
pub enum StartError {
    /// The data directory cannot be used.
    Open(OpenError),
    /// The address cannot be listened on.
    Listen {
        /// What was asked for.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave us no poll, thread or signal.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Open(error) => fmt::Display::fmt(error, f),
            StartError::Listen { address, source } => write!(
                f,
                "cannot listen on {address}: {source}; choose another --listen or stop what uses it"
            ),
            StartError::System(error) => write!(f, "cannot start the event loop: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Open(error) => Some(error),
            StartError::Listen { source, .. } => Some(source),
            StartError::System(error) => Some(error),
        }
    }
}

/// Why a running server ended.
#[derive(Debug)]
pub enum Ended {
    /// A signal asked for it.
    Stopped,
    /// The node cannot go on.
    Fatal(Fatal),
    /// The poll failed.
    Poll(io::Error),
}

/// One node on real sockets, a real clock and a real disk.
pub struct Server {
    wait: Wait,
    clock: Clock,
    node: Node,
    sockets: Sockets,
    threads: Threads,
    signals: Signals,
    wheel: Wheel<ConnectionId>,
    now: Instant,
    scratch: Scratch,
    stopping: bool,
}

/// Lists that live across turns.
#[derive(Debug, Default)]
struct Scratch {
    dirty: Vec<ConnectionId>,
    closing: Vec<ConnectionId>,
    dials: Vec<Dial>,
    due: Vec<ConnectionId>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server {{ sockets: {:?} }}", self.sockets)
    }
}

impl Server {
    /// Opens the data directory, listens and starts the threads.
    pub fn start(
        disk: Arc<dyn Disk>,
        node: NodeOptions,
        options: &ServerOptions,
    ) -> Result<Server, StartError> {
        let clock = Clock::start();
        let now = clock.now();
        let listener = listen(&options.listen)
            .map_err(|source| StartError::Listen { address: options.listen.clone(), source })?;
        let node = Node::open(disk, node, now).map_err(StartError::Open)?;
        Server::assemble(clock, now, listener, node, options).map_err(StartError::System)
    }

    fn assemble(
        clock: Clock,
        now: Instant,
        listener: Listener,
        node: Node,
        options: &ServerOptions,
    ) -> io::Result<Server> {
        let wait = Wait::new()?;
        let sockets = Sockets::new(&wait, listener, options.connections_max)?;
        let signals = Signals::register(&wait, sockets::SIGNALS_KEY)?;
        let threads = Threads::start(&wait.handle())?;
        Ok(Server {
            wait,
            clock,
            node,
            sockets,
            threads,
            signals,
            wheel: Wheel::new(now),
            now,
            scratch: Scratch::default(),
            stopping: false,
        })
    }

    /// The address it accepts on.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.sockets.address()
    }

    /// Serves until a signal or a fatal error ends it.
    pub fn run(&mut self) -> Ended {
        loop {
            if let Err(ended) = self.turn() {
                return ended;
            }
        }
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.arrived() {
            match signal {
                Signal::Stop => self.stopping = true,
            }
        }
    }
}
