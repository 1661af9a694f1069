//! A machine: a node, its disk, its sockets; and its turn as the server's loop does it. Only what
//! the node does is counted, not what is done around it.

use crate::counting::{Allocated, counted};
use crate::sim_disk::SimDisk;
use raftd::config::MemberAddress;
use raftd::limits::{TURN_READ_BYTES, WorkingLimits};
use raftd::replica::{ConnectionId, Dial, Flow, Node, NodeOptions, SnapshotOptions, Start};
use raftd::types::{ClusterId, DiskId, Instant, NodeId};
use raftd::wal::{BackgroundDone, BackgroundJob, Job, Operation};
use raftd::wire::frame::next_frame;
use std::collections::VecDeque;
use std::io;
use std::ops::Sub;

/// Small, so that a short run reaches the steady state: then the cache is full and gives its
/// buffers back, and the history is compacted as fast as it grows. Bytes.
const ENTRY_CACHE_BYTES: usize = 512 * 1024;
const HISTORY_BYTES_MAX: u64 = 1024 * 1024;
/// Large enough for a few hundred entries of the largest batches here, and rotated in some runs.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Node { machine: usize, id: ConnectionId },
    Client { client: usize },
}

/// What waits for the node's next turn.
pub(crate) enum Input {
    Accepted(ConnectionId),
    Dialed(ConnectionId, NodeId),
    Readable(ConnectionId),
    Closed(ConnectionId),
    Synced(Job, io::Result<()>),
    Background(BackgroundDone),
}

/// What a turn wants of the world.
pub(crate) enum Effect {
    Send { to: End, bytes: Vec<u8> },
    Close { to: End },
    Dial { peer: NodeId },
    Sync(Job),
    Background(BackgroundJob),
}

struct Socket {
    id: ConnectionId,
    other: End,
    /// What has arrived and was not read.
    arrived: Vec<u8>,
    /// What was read and not taken.
    input: Vec<u8>,
    /// It is among the inputs.
    readable: bool,
    /// The node did not want more of it.
    paused: bool,
}

/// What a node's turns cost so far.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Spent {
    pub(crate) allocated: Allocated,
    /// Frames to other nodes, and their bytes.
    pub(crate) messages: u64,
    pub(crate) message_bytes: u64,
    /// Calls of the system for sockets.
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    /// Operations of sync jobs.
    pub(crate) appends: u64,
    pub(crate) syncs: u64,
}

impl Sub for Spent {
    type Output = Spent;

    fn sub(self, before: Spent) -> Spent {
        Spent {
            allocated: self.allocated - before.allocated,
            messages: self.messages - before.messages,
            message_bytes: self.message_bytes - before.message_bytes,
            reads: self.reads - before.reads,
            writes: self.writes - before.writes,
            appends: self.appends - before.appends,
            syncs: self.syncs - before.syncs,
        }
    }
}

pub(crate) struct Machine {
    pub(crate) node: Node,
    pub(crate) spent: Spent,
    pub(crate) inbox: VecDeque<Input>,
    sockets: Vec<Option<Socket>>,
    generation: u32,
    background: bool,
    scratch: Scratch,
}

/// Lists that live across turns, as the server's do.
#[derive(Default)]
struct Scratch {
    dirty: Vec<ConnectionId>,
    closing: Vec<ConnectionId>,
    dials: Vec<Dial>,
}

pub(crate) fn id_of(machine: usize) -> NodeId {
    NodeId::new(u64_of(machine) + 1).expect("not zero")
}

fn options(machine: usize, machines: usize) -> NodeOptions {
    let member = |nth| MemberAddress { id: id_of(nth), address: format!("cluster:{nth}") };
    let number = u64_of(machine);
    NodeOptions {
        id: id_of(machine),
        members: (0..machines).map(member).collect(),
        cluster_id: ClusterId(7),
        token_hash: 0,
        disk_id_if_new: DiskId(100 + u128::from(number)),
        boot_nonce: 200 + number,
        seed: 300 + number,
        unix_ms: 1_700_000_000_000,
        election_timeout_ns: 300_000_000,
        heartbeat_ns: 60_000_000,
        segment_bytes: SEGMENT_BYTES,
        history_bytes_max: HISTORY_BYTES_MAX,
        history_age_ns: None,
        quota_bytes: None,
        clients_max: 1000,
        working: WorkingLimits { entry_cache_bytes: ENTRY_CACHE_BYTES, ..WorkingLimits::default() },
        lease_drift_ppm: None,
        // What snapshots cost is theirs, and not an operation's.
        snapshots: SnapshotOptions {
            entries: u64::MAX,
            log_bytes: u64::MAX,
            ..SnapshotOptions::default()
        },
        login_secret: [7; 32],
        start: Start::AsItIs,
    }
}

impl Machine {
    pub(crate) fn new(machine: usize, machines: usize, now: Instant) -> Machine {
        let disk = SimDisk::new(u64_of(machine));
        let node = Node::open(disk.disk(), options(machine, machines), now).expect("it is empty");
        Machine {
            node,
            spent: Spent::default(),
            inbox: VecDeque::new(),
            sockets: Vec::new(),
            generation: 0,
            background: false,
            scratch: Scratch::default(),
        }
    }

    /// Makes room for a connection; `enter` says with whom.
    pub(crate) fn open_socket(&mut self) -> ConnectionId {
        self.generation += 1;
        self.sockets.push(None);
        let slot = u32::try_from(self.sockets.len() - 1).expect("few sockets");
        ConnectionId::new(slot, self.generation)
    }

    pub(crate) fn enter(&mut self, id: ConnectionId, other: End) {
        let (arrived, input) = (Vec::new(), Vec::new());
        let socket = Socket { id, other, arrived, input, readable: false, paused: false };
        self.sockets[id.slot()] = Some(socket);
    }

    /// Bytes arrive at a connection. What is closed hears nothing.
    pub(crate) fn arrive(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(socket) = &mut self.sockets[id.slot()] else { return };
        socket.arrived.extend_from_slice(bytes);
        if !socket.readable && !socket.paused {
            socket.readable = true;
            self.inbox.push_back(Input::Readable(id));
        }
    }

    /// A turn. Says when it wants the next one, if nothing comes before.
    pub(crate) fn turn(&mut self, now: Instant, effects: &mut Vec<Effect>) -> Instant {
        for _ in 0..self.inbox.len() {
            let input = self.inbox.pop_front().expect("as many as there were");
            self.take(input, now);
        }
        self.call(|node| node.advance(now));
        let Scratch { mut dirty, mut closing, mut dials } = std::mem::take(&mut self.scratch);
        self.call(|node| node.take_dirty(&mut dirty));
        dirty.drain(..).for_each(|id| self.send(id, effects));
        self.call(|node| node.take_closing(&mut closing));
        closing.drain(..).for_each(|id| self.close(id, now, effects));
        self.hand_over(effects);
        self.call(|node| node.take_dials(&mut dials));
        effects.extend(dials.drain(..).map(|dial| Effect::Dial { peer: dial.peer }));
        self.scratch = Scratch { dirty, closing, dials };
        self.resume();
        assert!(self.node.fatal().is_none(), "a node stops");
        if self.inbox.is_empty() { self.node.wake_at() } else { now }
    }

    /// Has the node do something, which counts.
    fn call<T>(&mut self, work: impl FnOnce(&mut Node) -> T) -> T {
        let (result, allocated) = counted(|| work(&mut self.node));
        self.spent.allocated += allocated;
        result
    }

    fn take(&mut self, input: Input, now: Instant) {
        match input {
            Input::Accepted(id) => self.call(|node| node.on_accepted(id)),
            Input::Dialed(id, peer) => self.call(|node| node.on_dialed(id, peer, now)),
            Input::Readable(id) => self.read(id, now),
            Input::Closed(id) => {
                self.sockets[id.slot()] = None;
                self.call(|node| node.on_closed(id, now));
            }
            Input::Synced(job, result) => self.call(|node| node.on_job_done(job, result, now)),
            Input::Background(done) => {
                self.background = false;
                self.call(|node| node.on_background_done(done, now));
            }
        }
    }

    /// Reads once, as much as a turn reads of one socket.
    fn read(&mut self, id: ConnectionId, now: Instant) {
        let Some(socket) = &mut self.sockets[id.slot()] else { return };
        socket.readable = false;
        let count = socket.arrived.len().min(TURN_READ_BYTES);
        if count > 0 {
            socket.input.extend(socket.arrived.drain(..count));
            self.spent.reads += 1;
        }
        let (taken, allocated) = counted(|| self.node.on_bytes(id, &socket.input, now));
        self.spent.allocated += allocated;
        socket.input.drain(..taken.bytes);
        socket.paused = taken.flow == Flow::Paused;
        if taken.flow == Flow::Open && !socket.arrived.is_empty() {
            socket.readable = true;
            self.inbox.push_back(Input::Readable(id));
        }
    }

    fn send(&mut self, id: ConnectionId, effects: &mut Vec<Effect>) {
        let bytes = self.node.unsent(id).to_vec();
        let Some(socket) = &self.sockets[id.slot()] else { return };
        let to = socket.other;
        if bytes.is_empty() {
            return;
        }
        self.spent.writes += 1;
        if matches!(to, End::Node { .. }) {
            self.spent.messages += frames(&bytes);
            self.spent.message_bytes += u64_of(bytes.len());
        }
        self.call(|node| node.sent(id, bytes.len()));
        effects.push(Effect::Send { to, bytes });
    }

    fn close(&mut self, id: ConnectionId, now: Instant, effects: &mut Vec<Effect>) {
        if let Some(socket) = self.sockets[id.slot()].take() {
            effects.push(Effect::Close { to: socket.other });
            self.call(|node| node.on_closed(id, now));
        }
    }

    fn hand_over(&mut self, effects: &mut Vec<Effect>) {
        if let Some(job) = self.call(Node::take_job) {
            for operation in &job.operations {
                match operation {
                    Operation::Write { .. } => self.spent.appends += 1,
                    Operation::Sync { .. } => self.spent.syncs += 1,
                }
            }
            effects.push(Effect::Sync(job));
        }
        if !self.background
            && let Some(job) = self.call(Node::take_background_job)
        {
            self.background = true;
            effects.push(Effect::Background(job));
        }
    }

    /// Whoever was not read is read again, once there is room.
    fn resume(&mut self) {
        for socket in self.sockets.iter_mut().flatten() {
            if socket.paused && self.node.flow(socket.id) == Flow::Open {
                (socket.paused, socket.readable) = (false, true);
                self.inbox.push_back(Input::Readable(socket.id));
            }
        }
    }
}

/// How many frames these are.
fn frames(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while !bytes.is_empty() {
        let frame = next_frame(bytes, usize::MAX >> 1).ok().flatten();
        bytes = &bytes[frame.expect("a node writes whole frames").consumed..];
        count += 1;
    }
    count
}

pub(crate) fn u64_of(count: usize) -> u64 {
    u64::try_from(count).expect("usize fits u64 wherever raftd runs")
}
