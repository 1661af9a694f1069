//! THE SHELL: the only owner of sockets, the clock and the threads. Nothing here knows what a vote
//! is.
//!
//! | file | what |
//! |---|---|
//! | `turn` | one turn of the loop, on one screen |
//! | `sockets` | accept, connect, read, write, close: sockets on one side, the node on the other |
//! | `unfinished` | room for requests that have begun: who is read, who waits, who is closed |
//! | `rarely` | lines of the log that strangers can cause, one a second at most |
//! | `share` | how the descriptors are shared out |
//! | `threads` | `sync` and `bg`: they run jobs and own no state |
//! | `logger` | log lines through a bounded queue, so that a full terminal cannot stop the loop |
//! | `wheel`, `clock` | deadlines of connections; the only clock |

mod clock;
mod logger;
mod rarely;
mod share;
mod sockets;
mod threads;
mod turn;
mod unfinished;
mod wheel;

pub use clock::unix_ms;
pub use logger::{LogQueue, start_logger};
pub use share::SocketShare;

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
    /// All sockets at once, those of peers included.
    pub sockets_max: usize,
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
            StartError::Listen { address, source } => {
                let advice = if source.kind() == io::ErrorKind::AddrInUse {
                    "stop what uses it, or choose another --listen"
                } else if source.kind() == io::ErrorKind::PermissionDenied {
                    "choose a --listen port from 1024 on"
                } else {
                    "choose an address of this machine with --listen"
                };
                write!(f, "cannot listen on {address} ({advice})")
            }
            StartError::System(_) => f.write_str("cannot start the event loop"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // What stands in our own text is not said again.
        match self {
            StartError::Open(error) => error.source(),
            StartError::Listen { .. } | StartError::System(_) => None,
        }
    }
}

/// Why a running server ended.
#[derive(Debug)]
pub enum Ended {
    /// A signal asked for it.
    Stopped(Farewell),
    /// The node cannot go on.
    Fatal(Fatal),
    /// The poll failed.
    Poll(io::Error),
}

/// How a server ended that was asked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Farewell {
    /// Everything is on the disk, and the hard state says so.
    Noted,
    /// The disk took too long, or a second signal came: as after a crash.
    CutShort,
}

/// How long the disk may take for the last sync. Nanoseconds.
const FAREWELL_NS: u64 = 5_000_000_000;

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
    /// The CPU time of this thread at the end of the last turn. Nanoseconds.
    cpu_ns: u64,
    scratch: Scratch,
    /// A signal has asked for the end: the node hands over what it leads.
    leaving: bool,
    /// Once that is done: when the end comes at the latest.
    stop_by: Option<Instant>,
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
        let sockets = Sockets::new(&wait, listener, options.sockets_max, clock)?;
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
            cpu_ns: clock::thread_cpu_ns(),
            scratch: Scratch::default(),
            leaving: false,
            stop_by: None,
        })
    }

    /// The address it accepts on.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.sockets.address()
    }

    /// Serves until a signal or a fatal error ends it.
    pub fn run(&mut self) -> Ended {
        // What it found in its data directory may forbid it to serve. Nothing would wake it.
        if let Some(fatal) = self.node.fatal() {
            return Ended::Fatal(fatal);
        }
        loop {
            if let Err(ended) = self.turn() {
                return ended;
            }
        }
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.arrived() {
            match signal {
                Signal::Stop if self.leaving => {
                    // The second one is from somebody who cannot wait.
                    self.node.stop();
                    self.stop_by = Some(self.now);
                }
                Signal::Stop => {
                    log::info!("stopping reason=signal");
                    self.leaving = true;
                    self.sockets.stop_accepting();
                    self.node.leave(self.now);
                }
            }
        }
    }
}
