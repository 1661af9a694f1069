//! Sockets on one side, the node on the other: accept, connect, read, write, close.

use super::clock::Clock;
use super::rarely::Rarely;
use super::unfinished::Unfinished;
use super::wheel::Wheel;
use crate::limits;
use crate::net::{Listener, Received, Resolver, Socket, Wait, WakeHandle, connect};
use crate::replica::{ConnectionId, Dial, Flow, Node};
use crate::types::{Instant, NodeId};
use crate::wire::error::Error;
use crate::wire::frame::last_end;
use crate::wire::hello::{HelloReply, encode_hello_reply};
use slab::Slab;
use std::io;
use std::net::SocketAddr;

const LISTENER_KEY: usize = usize::MAX - 2;
/// The poll key of the signals.
pub(super) const SIGNALS_KEY: usize = usize::MAX - 3;

/// A stranger must say hello, and the rest of a frame must come, within this. Nanoseconds.
const PATIENCE_NS: u64 = 10_000_000_000;

/// A connection that we make must stand within this: where nobody answers, the system asks again
/// after a second, then after two and four, and another attempt asks at once. Nanoseconds.
const DIAL_NS: u64 = 1_000_000_000;

/// Connections accepted in one turn, so that a flood does not starve those who are served.
const ACCEPTS_PER_TURN: usize = 64;

#[derive(Debug)]
struct Entry {
    id: ConnectionId,
    socket: Socket,
    /// The member that is being dialed, until the connection stands.
    dialing: Option<NodeId>,
    /// In the list of sockets that can be read without waiting.
    ready: bool,
    /// In the wheel.
    watched: bool,
    /// In the list of those that the node does not take bytes of.
    paused: bool,
    /// Since when an incomplete frame waits for its rest.
    partial_since: Option<Instant>,
}

/// All sockets of the server.
#[derive(Debug)]
pub(super) struct Sockets {
    /// `None` once the server stops.
    listener: Option<Listener>,
    accepting: bool,
    signalled: bool,
    entries: Slab<Entry>,
    generation: u32,
    sockets_max: usize,
    /// Keys of sockets that can be read without waiting, those before `ready_next` served last.
    ready: Vec<ConnectionId>,
    serving: Vec<ConnectionId>,
    paused: Vec<ConnectionId>,
    unfinished: Unfinished,
    not_accepted: Rarely,
    buffer: Vec<u8>,
    resolver: Resolver<(NodeId, usize)>,
    clock: Clock,
    /// The last look at the clock in this turn.
    looked_at: Instant,
}

impl Sockets {
    pub(super) fn new(
        wait: &Wait,
        mut listener: Listener,
        sockets_max: usize,
        clock: Clock,
    ) -> io::Result<Sockets> {
        wait.register_readable(listener.source(), LISTENER_KEY)?;
        let wake: WakeHandle = wait.handle();
        Ok(Sockets {
            listener: Some(listener),
            accepting: false,
            signalled: false,
            entries: Slab::new(),
            generation: 0,
            sockets_max,
            ready: Vec::new(),
            serving: Vec::new(),
            paused: Vec::new(),
            unfinished: Unfinished::new(),
            not_accepted: Rarely::new(),
            buffer: vec![0; limits::TURN_READ_BYTES],
            resolver: Resolver::start(wake)?,
            clock,
            looked_at: clock.now(),
        })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.as_ref().map_or(Err(io::ErrorKind::NotConnected.into()), Listener::address)
    }

    /// Whether a socket can be read without waiting for the kernel.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes no more connections.
    pub(super) fn stop_accepting(&mut self) {
        // Whoever tries is refused by the system at once, and asks another server.
        self.listener = None;
    }

    /// Whether a signal has arrived since the last call.
    pub(super) fn take_signalled(&mut self) -> bool {
        std::mem::take(&mut self.signalled)
    }

    /// Reads what the last wait found, and what earlier turns left.
    pub(super) fn receive(
        &mut self,
        wait: &Wait,
        node: &mut Node,
        wheel: &mut Wheel<ConnectionId>,
        now: Instant,
    ) {
        for readiness in wait.ready() {
            match readiness.key {
                LISTENER_KEY => self.accepting = true,
                SIGNALS_KEY => self.signalled = true,
                key => {
                    let Some(entry) = self.entries.get_mut(key) else { continue };
                    entry.socket.writable |= readiness.writable;
                    entry.socket.readable |= readiness.readable || readiness.hung_up;
                    entry.socket.hung_up |= readiness.hung_up;
                    if !entry.ready {
                        entry.ready = true;
                        self.ready.push(entry.id);
                    }
                }
            }
        }
        self.accept(wait, node, wheel, now);
        self.looked_at = now;
        std::mem::swap(&mut self.ready, &mut self.serving);
        let mut serving = std::mem::take(&mut self.serving);
        for id in serving.drain(..) {
            self.serve(id, node, wheel);
        }
        self.serving = serving;
    }

    fn accept(
        &mut self,
        wait: &Wait,
        node: &mut Node,
        wheel: &mut Wheel<ConnectionId>,
        now: Instant,
    ) {
        let mut accepted = 0;
        while self.accepting && accepted < ACCEPTS_PER_TURN {
            let Some(listener) = &mut self.listener else { return };
            match listener.accept() {
                Ok(Some((stream, from))) => {
                    accepted += 1;
                    let mut socket = Socket::new(stream, false);
                    if self.entries.len() >= self.sockets_max {
                        log::debug!("refused a connection from={from} max={}", self.sockets_max);
                        turn_away(&mut socket);
                    } else if let Some(id) = self.enter(wait, socket, None) {
                        node.on_accepted(id);
                        node.set_origin(id, from.to_string());
                        self.watch(id, wheel, now.after_ns(PATIENCE_NS));
                    }
                }
                Ok(None) => self.accepting = false,
                Err(error) => {
                    // Out of descriptors, most likely: those who are served go on, the next event
                    // tries again.
                    if let Some(count) = self.not_accepted.count(1, now) {
                        log::warn!("cannot accept error={error} count={count}");
                    }
                    self.accepting = false;
                }
            }
        }
    }

    fn enter(
        &mut self,
        wait: &Wait,
        socket: Socket,
        dialing: Option<NodeId>,
    ) -> Option<ConnectionId> {
        let vacant = self.entries.vacant_entry();
        let key = vacant.key();
        self.generation = self.generation.wrapping_add(1).max(1);
        let id = ConnectionId::new(u32::try_from(key).expect("slots are few"), self.generation);
        let mut entry = Entry {
            id,
            socket,
            dialing,
            ready: false,
            watched: false,
            paused: false,
            partial_since: None,
        };
        match wait.register(entry.socket.source(), key) {
            Ok(()) => {
                vacant.insert(entry);
                Some(id)
            }
            Err(error) => {
                log::warn!("cannot watch a connection error={error}");
                None
            }
        }
    }

    fn entry(&mut self, id: ConnectionId) -> Option<&mut Entry> {
        self.entries.get_mut(id.slot()).filter(|entry| entry.id == id)
    }

    /// Readies the connections that can go on: the node takes their bytes again, or there is room
    /// for what they have begun. They have waited, so they come before those that are ready.
    pub(super) fn resume(&mut self, node: &mut Node, now: Instant) {
        self.close_slow(node, now);
        let mut resumed = std::mem::take(&mut self.serving);
        let entries = &mut self.entries;
        self.paused.retain(|id| {
            let Some(entry) = entries.get_mut(id.slot()).filter(|entry| entry.id == *id) else {
                return false;
            };
            entry.paused = node.flow(*id) == Flow::Paused;
            if !entry.paused {
                resumed.push(*id);
            }
            entry.paused
        });
        while let Some(id) = self.unfinished.next() {
            resumed.push(id);
        }
        resumed.retain(|id| !std::mem::replace(&mut self.entries[id.slot()].ready, true));
        resumed.append(&mut self.ready);
        self.serving = std::mem::replace(&mut self.ready, resumed);
    }

    fn serve(&mut self, id: ConnectionId, node: &mut Node, wheel: &mut Wheel<ConnectionId>) {
        let now = self.looked_at;
        let Some(entry) = self.entry(id) else { return };
        entry.ready = false;
        if entry.socket.connecting && !self.finish_connecting(id, node, now) {
            return;
        }
        if !node.unsent(id).is_empty() {
            self.send(id, node, now);
        }
        let alive = self.read(id, node, now);
        if alive {
            self.note_partial(id, node, wheel, now);
        } else {
            // What it said last may still be answered to a half-closed socket; nobody asks for
            // that.
            self.close(id, node, now);
        }
    }

    /// Reads within the turn's budget and hands whole frames to the node. `false`: the other side
    /// has ended the connection. If the node ends it, it is closed after what it has to say was
    /// offered.
    fn read(&mut self, id: ConnectionId, node: &mut Node, now: Instant) -> bool {
        let Some(entry) = self.entry(id) else { return true };
        let flow = if entry.socket.input.is_empty() {
            node.flow(id)
        } else {
            let taken = node.on_bytes(id, &entry.socket.input, now);
            entry.socket.input.drain(..taken.bytes);
            self.note_taken(id, taken.bytes, node);
            taken.flow
        };
        !self.go_on(id, flow) || self.read_socket(id, node)
    }

    fn read_socket(&mut self, id: ConnectionId, node: &mut Node) -> bool {
        let entry = &mut self.entries[id.slot()];
        let (input, most) = (&entry.socket.input, limits::TURN_READ_BYTES);
        let most = if node.is_peer(id) { most } else { self.unfinished.readable(id, input.len()) };
        if !entry.socket.readable || most == 0 {
            return true;
        }
        let count = match entry.socket.receive(&mut self.buffer[..most]) {
            Ok(Received::Bytes(count)) => count,
            Ok(Received::Nothing) => return true,
            Ok(Received::End) | Err(_) => return false,
        };
        // Not before it was sent, however long we were stopped within the turn: a lease is for a
        // time that begins when it is asked for.
        self.looked_at = self.clock.now();
        let now = self.looked_at;
        self.unfinished.note_received(id, count);
        let input = &mut entry.socket.input;
        let taken = if input.is_empty() {
            let taken = node.on_bytes(id, &self.buffer[..count], now);
            input.extend_from_slice(&self.buffer[taken.bytes..count]);
            taken
        } else {
            if input.capacity() - input.len() < count {
                // At once as much as is set aside for it, so that it does not double.
                let rest = self.unfinished.bytes_max(id).saturating_sub(input.len());
                input.reserve_exact(count.max(rest).max(input.len() / 4));
            }
            input.extend_from_slice(&self.buffer[..count]);
            let taken = node.on_bytes(id, input, now);
            input.drain(..taken.bytes);
            taken
        };
        self.note_taken(id, taken.bytes, node);
        if self.go_on(id, taken.flow) && !self.unfinished.waits(id) {
            let entry = &mut self.entries[id.slot()];
            if entry.socket.readable && !std::mem::replace(&mut entry.ready, true) {
                self.ready.push(id);
            }
        }
        true
    }

    /// Frames of `id` were taken, or none: sets room aside for what is left.
    fn note_taken(&mut self, id: ConnectionId, bytes: usize, node: &Node) {
        let entry = &mut self.entries[id.slot()];
        if bytes > 0 {
            entry.partial_since = None;
        }
        // A peer's next batch is as large as its last; clients are too many to keep it for them.
        if node.is_peer(id) {
            return self.unfinished.forget(id);
        }
        let input = &mut entry.socket.input;
        self.unfinished.settle(id, input.len(), last_end(input));
        if input.capacity() > self.unfinished.bytes_max(id) {
            input.shrink_to_fit();
        }
    }

    fn close_slow(&mut self, node: &mut Node, now: Instant) {
        let entries = &self.entries;
        let is_silent = |id: ConnectionId| {
            let entry = entries.get(id.slot()).filter(|entry| entry.id == id);
            let silent = entry.is_some_and(|entry| !entry.socket.readable && !entry.paused);
            silent && node.flow(id) == Flow::Open
        };
        for id in self.unfinished.slow(is_silent, now) {
            self.close(id, node, now);
        }
    }

    /// When `resume` must be called.
    pub(super) fn wake_at(&self) -> Instant {
        self.unfinished.wake_at()
    }

    fn go_on(&mut self, id: ConnectionId, flow: Flow) -> bool {
        match flow {
            Flow::Open => true,
            Flow::Paused => {
                if !std::mem::replace(&mut self.entries[id.slot()].paused, true) {
                    self.paused.push(id);
                    self.unfinished.note_unread(id);
                }
                false
            }
            Flow::Ended => false,
        }
    }

    /// A frame that has begun must end in time, as long as we read it.
    fn note_partial(
        &mut self,
        id: ConnectionId,
        node: &Node,
        wheel: &mut Wheel<ConnectionId>,
        now: Instant,
    ) {
        let unread = self.unfinished.waits(id) || node.flow(id) != Flow::Open;
        let Some(entry) = self.entry(id) else { return };
        let waits = !entry.socket.input.is_empty() && !unread;
        if waits && entry.partial_since.is_none() {
            entry.partial_since = Some(now);
            self.watch(id, wheel, now.after_ns(PATIENCE_NS));
        } else if !waits {
            entry.partial_since = None;
        }
    }

    fn watch(&mut self, id: ConnectionId, wheel: &mut Wheel<ConnectionId>, until: Instant) {
        let Some(entry) = self.entry(id) else { return };
        if !std::mem::replace(&mut entry.watched, true) {
            wheel.insert(until, id);
        }
    }

    /// The wheel's call: closes a connection that has kept us waiting.
    pub(super) fn look_at(
        &mut self,
        id: ConnectionId,
        node: &mut Node,
        wheel: &mut Wheel<ConnectionId>,
        now: Instant,
    ) {
        let Some(entry) = self.entry(id) else { return };
        entry.watched = false;
        let partial = entry.partial_since.filter(|_| !entry.paused);
        if !node.is_established(id)
            || partial.is_some_and(|since| now.ns_since(since) >= PATIENCE_NS)
        {
            log::debug!("closed a connection that kept us waiting slot={}", id.slot());
            self.close(id, node, now);
        } else if let Some(since) = partial {
            self.watch(id, wheel, since.after_ns(PATIENCE_NS));
        }
    }

    /// Writes once what waits for `id`.
    pub(super) fn send(&mut self, id: ConnectionId, node: &mut Node, now: Instant) {
        let Some(entry) = self.entry(id) else { return };
        if !entry.socket.writable || entry.socket.connecting {
            return;
        }
        match entry.socket.send(node.unsent(id)) {
            Ok(count) => node.sent(id, count),
            Err(_) => self.close(id, node, now),
        }
    }

    /// Closes the socket and tells the node.
    pub(super) fn close(&mut self, id: ConnectionId, node: &mut Node, now: Instant) {
        if let Some(entry) = self.entry(id) {
            let dialing = entry.dialing;
            self.entries.remove(id.slot());
            self.unfinished.forget(id);
            // A descriptor is free: those who wait in the backlog may come.
            self.accepting = true;
            match dialing {
                Some(peer) => node.on_dial_failed(peer, now, "no answer in time"),
                None => node.on_closed(id, now),
            }
        }
    }

    /// Asks for the addresses of a member; `connect_resolved` goes on.
    pub(super) fn resolve(&mut self, dial: Dial) {
        self.resolver.ask((dial.peer, dial.attempt), dial.address);
    }

    /// Starts the connection attempts whose names have been resolved.
    pub(super) fn connect_resolved(
        &mut self,
        wait: &Wait,
        node: &mut Node,
        wheel: &mut Wheel<ConnectionId>,
        now: Instant,
    ) {
        while let Some(((peer, attempt), found)) = self.resolver.answer() {
            let stream = found.and_then(|addresses| {
                let turn = attempt.checked_rem(addresses.len());
                connect(addresses[turn.ok_or(io::ErrorKind::AddrNotAvailable)?])
            });
            match stream {
                Ok(stream) => match self.enter(wait, Socket::new(stream, true), Some(peer)) {
                    Some(id) => self.watch(id, wheel, now.after_ns(DIAL_NS)),
                    None => node.on_dial_failed(peer, now, "out of descriptors"),
                },
                Err(error) => node.on_dial_failed(peer, now, &error.to_string()),
            }
        }
    }

    /// `true` once the connection stands.
    fn finish_connecting(&mut self, id: ConnectionId, node: &mut Node, now: Instant) -> bool {
        let Some(entry) = self.entry(id) else { return false };
        let peer = entry.dialing.expect("only dialed sockets connect");
        match entry.socket.finish_connecting() {
            Ok(true) => {
                entry.dialing = None;
                entry.socket.writable = true;
                node.on_dialed(id, peer, now);
                true
            }
            Ok(false) => false,
            Err(error) => {
                self.entries.remove(id.slot());
                node.on_dial_failed(peer, now, &error.to_string());
                false
            }
        }
    }
}

/// Says why before hanging up. A fresh socket has room for it; whoever is gone hears nothing.
fn turn_away(socket: &mut Socket) {
    let mut frame = Vec::new();
    encode_hello_reply(&mut frame, &HelloReply::Refused(Error::TOO_MANY_CLIENTS));
    let _said = socket.send(&frame);
}
