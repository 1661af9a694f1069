//! mio behind a few lines. `wait` is the only place where the loop sleeps.

use crate::types::Instant;
use mio::event::Source;
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook_mio::v1_0::Signals as SignalSource;
use std::io;
use std::sync::Arc;
use std::time::Duration;

const WAKER: Token = Token(usize::MAX - 1);

/// Readiness of one descriptor, by the key it was registered under.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    /// The key given to `register`.
    pub key: usize,
    /// Bytes, a connection to accept or the end of the stream can be read.
    pub readable: bool,
    /// There is room to write, or a connection attempt has ended.
    pub writable: bool,
    /// The other side will send no more, or the socket failed: read until the end.
    pub hung_up: bool,
}

/// The poll and its buffer of events.
#[derive(Debug)]
pub struct Wait {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
}

/// Wakes the loop from another thread.
#[derive(Clone, Debug)]
pub struct WakeHandle(Arc<Waker>);

impl WakeHandle {
    /// Makes the current or next `wait` return. A failure means that the loop is gone.
    pub fn wake(&self) {
        if let Err(error) = self.0.wake() {
            log::error!("cannot wake the loop error={error}");
        }
    }
}

impl Wait {
    /// A poll with a waker. Fails only when the process is out of descriptors.
    pub fn new() -> io::Result<Wait> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Wait { poll, events: Events::with_capacity(1024), waker })
    }

    /// A handle with which other threads end a wait.
    pub fn handle(&self) -> WakeHandle {
        WakeHandle(self.waker.clone())
    }

    /// Watches `source`, edge-triggered, under `key`.
    pub fn register(&self, source: &mut impl Source, key: usize) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(source, Token(key), interest)
    }

    /// Watches `source` for reading only.
    pub fn register_readable(&self, source: &mut impl Source, key: usize) -> io::Result<()> {
        self.poll.registry().register(source, Token(key), Interest::READABLE)
    }

    /// Sleeps until something is ready, the waker fires or `deadline` has come, seen from `now`.
    pub fn wait(&mut self, now: Instant, deadline: Instant) -> io::Result<()> {
        let timeout = if deadline == Instant::FAR {
            None
        } else {
            // epoll counts milliseconds: round up, or the loop spins until the deadline.
            Some(Duration::from_millis(deadline.ns_since(now).div_ceil(1_000_000)))
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => other,
        }
    }

    /// What the last wait found, the waker left out.
    pub fn ready(&self) -> impl Iterator<Item = Readiness> {
        self.events.iter().filter(|event| event.token() != WAKER).map(|event| Readiness {
            key: event.token().0,
            readable: event.is_readable(),
            writable: event.is_writable(),
            hung_up: event.is_read_closed() || event.is_error(),
        })
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM or SIGINT: end in good order.
    Stop,
}

/// SIGTERM and SIGINT as one more descriptor of the loop.
pub struct Signals(SignalSource);

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signals")
    }
}

impl Signals {
    /// Takes over the signals and watches them under `key`.
    pub fn register(wait: &Wait, key: usize) -> io::Result<Signals> {
        // The two numbers are POSIX's and the same on every Linux.
        const SIGINT: i32 = 2;
        const SIGTERM: i32 = 15;
        let mut source = SignalSource::new([SIGINT, SIGTERM])?;
        wait.register_readable(&mut source, key)?;
        Ok(Signals(source))
    }

    /// The next signal that has arrived.
    pub fn arrived(&mut self) -> Option<Signal> {
        self.0.pending().next().map(|_| Signal::Stop)
    }
}
