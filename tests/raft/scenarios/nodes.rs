//! Whole nodes for the scenarios that a core alone cannot show: bytes on the wire, the real record
//! on a simulated disk, clients. Everything that can happen does at once, in a fixed order, until a
//! test holds it up; time passes when a test says so.
#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not reach helpers")]

use crate::wal::sim_disk::SimDisk;
use raftd::config::MemberAddress;
use raftd::limits::WorkingLimits;
use raftd::replica::{ConnectionId, Dial, Fatal, Node, NodeOptions, SnapshotOptions, Start};
use raftd::types::{ClusterId, DiskId, Instant, NodeId};
use raftd::wal::{BackgroundJob, Job, OpenError};
use raftd::wire::status::Status;
use std::collections::BTreeMap;

mod clients;
mod disks;
mod errands;
mod greetings;
mod listeners;
mod logins;
mod transfers;

pub(in crate::raft) use greetings::{hello_of, peer_hello};

pub(in crate::raft) use clients::Answer;

/// Which cluster the flags of all servers describe.
pub(in crate::raft) const CLUSTER: ClusterId = ClusterId(7);

const STEP_NS: u64 = 5_000_000;
/// More rounds than any cluster here needs to come to rest.
const ROUNDS_MAX: usize = 10_000;

/// What the servers are told beside who they are.
#[derive(Clone, Copy, Debug)]
pub(in crate::raft) struct Tuning {
    pub(in crate::raft) segment_bytes: u64,
    pub(in crate::raft) history_bytes_max: u64,
    pub(in crate::raft) history_age_ns: Option<u64>,
    pub(in crate::raft) quota_bytes: Option<u64>,
    pub(in crate::raft) working: WorkingLimits,
    /// More entries than that make a snapshot.
    pub(in crate::raft) snapshot_entries: u64,
    pub(in crate::raft) snapshot_log_bytes: u64,
    pub(in crate::raft) snapshot_interval_ns: u64,
    pub(in crate::raft) snapshot_block_bytes: usize,
    pub(in crate::raft) snapshot_piece_bytes: usize,
    /// A snapshot leaves no faster than that. Bytes a second.
    pub(in crate::raft) snapshot_rate: Option<u64>,
    pub(in crate::raft) election_timeout_ns: u64,
    pub(in crate::raft) clients_max: usize,
    pub(in crate::raft) start: Start,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            segment_bytes: 64 * 1024,
            history_bytes_max: 64 * 1024,
            history_age_ns: None,
            quota_bytes: None,
            working: WorkingLimits::default(),
            snapshot_entries: u64::MAX,
            snapshot_log_bytes: u64::MAX,
            snapshot_interval_ns: 0,
            snapshot_block_bytes: SnapshotOptions::default().block_bytes,
            snapshot_piece_bytes: SnapshotOptions::default().piece_bytes,
            snapshot_rate: SnapshotOptions::default().rate,
            election_timeout_ns: 300_000_000,
            clients_max: 1000,
            start: Start::AsItIs,
        }
    }
}

struct Machine {
    disk: SimDisk,
    node: Option<Node>,
    /// Its process is stopped: bytes come in, nothing else happens.
    frozen: bool,
    sync_held: bool,
    job: Option<Job>,
    background_held: bool,
    background: Option<BackgroundJob>,
    fatal: Option<Fatal>,
}

impl Machine {
    fn new(seed: u64) -> Machine {
        Machine {
            disk: SimDisk::new(seed),
            node: None,
            frozen: false,
            sync_held: false,
            job: None,
            background_held: false,
            background: None,
            fatal: None,
        }
    }

    fn lose_power(&mut self) {
        (self.node, self.job, self.background, self.frozen) = (None, None, None, false);
        self.disk.power_loss();
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Node(usize, ConnectionId),
    Client,
}

struct Pipe {
    ends: [End; 2],
    /// Bytes that wait for each end.
    bytes: [Vec<u8>; 2],
}

pub(in crate::raft) struct Nodes {
    now: Instant,
    machines: Vec<Machine>,
    pipes: Vec<Pipe>,
    cuts: Vec<(usize, usize)>,
    /// Who cannot reach whom, and is reached.
    walls: Vec<(usize, usize)>,
    boots: u64,
    slots: u32,
    requests: u64,
    pub(in crate::raft) answers: BTreeMap<u64, Answer>,
    /// The names of keys in each answer about a lease.
    pub(in crate::raft) names: BTreeMap<u64, Vec<Vec<u8>>>,
    /// The revisions of the changes that each watch has heard of.
    pub(in crate::raft) heard: BTreeMap<u64, Vec<u64>>,
    /// Connections whose other end does not read.
    unread: Vec<ConnectionId>,
    /// What a server has closed.
    pub(in crate::raft) closed: Vec<ConnectionId>,
    /// So many of the next questions from where on a snapshot is wanted are lost.
    pub(in crate::raft) questions_to_lose: usize,
    /// For the next start of each.
    pub(in crate::raft) tuning: Tuning,
}

pub(in crate::raft) fn id(nth: usize) -> NodeId {
    NodeId::new(u64::try_from(nth).unwrap()).unwrap()
}

impl Nodes {
    /// Servers 1 to `count` with empty disks, started, a leader elected.
    pub(in crate::raft) fn new(count: usize) -> Nodes {
        Nodes::tuned(count, Tuning::default())
    }

    /// Three servers, who of them leads, and who does not.
    pub(in crate::raft) fn cluster() -> (Nodes, usize, [usize; 2]) {
        let mut nodes = Nodes::new(3);
        nodes.pass(200_000_000);
        let leader = nodes.leader().expect("elected");
        let others: Vec<usize> = (1..=3).filter(|nth| *nth != leader).collect();
        (nodes, leader, [others[0], others[1]])
    }

    /// One server that leads, with the keys `k00` to `k19`.
    pub(in crate::raft) fn with_twenty_keys(working: WorkingLimits) -> Nodes {
        let segment_bytes = 16 << 20;
        let mut nodes = Nodes::tuned(1, Tuning { segment_bytes, working, ..Tuning::default() });
        nodes.pass(500_000_000);
        for number in 0..20 {
            nodes.put(1, &format!("k{number:02}"));
            nodes.pass(10_000_000);
        }
        nodes
    }

    pub(in crate::raft) fn tuned(count: usize, tuning: Tuning) -> Nodes {
        let mut nodes = Nodes {
            now: Instant::ZERO,
            machines: (0..u64::try_from(count).unwrap()).map(Machine::new).collect(),
            pipes: Vec::new(),
            cuts: Vec::new(),
            walls: Vec::new(),
            boots: 0,
            slots: 0,
            requests: 0,
            answers: BTreeMap::new(),
            names: BTreeMap::new(),
            heard: BTreeMap::new(),
            unread: Vec::new(),
            closed: Vec::new(),
            questions_to_lose: 0,
            tuning,
        };
        for nth in 1..=count {
            nodes.boot(nth).expect("an empty disk can be opened");
        }
        nodes.pass_until(Nodes::has_leader);
        nodes
    }

    /// One more server, which joins a cluster that serves; its number.
    pub(in crate::raft) fn arrive(&mut self) -> usize {
        let founders = self.machines.len();
        self.machines.push(Machine::new(u64::try_from(founders).unwrap()));
        let nth = self.machines.len();
        self.boot_with(nth, founders).expect("an empty disk can be opened");
        nth
    }

    fn has_leader(&self) -> bool {
        self.leader().is_some()
    }

    fn machine(&mut self, nth: usize) -> &mut Machine {
        &mut self.machines[nth - 1]
    }

    pub(in crate::raft) fn boot(&mut self, nth: usize) -> Result<(), OpenError> {
        self.boot_with(nth, self.machines.len())
    }

    /// Starts a server that was told of servers 1 to `count`.
    pub(in crate::raft) fn boot_with(&mut self, nth: usize, count: usize) -> Result<(), OpenError> {
        self.boots += 1;
        let member = |nth| MemberAddress { id: id(nth), address: format!("sim:{nth}") };
        let options = NodeOptions {
            id: id(nth),
            members: (1..=count).map(member).collect(),
            cluster_id: CLUSTER,
            token_hash: 0,
            disk_id_if_new: DiskId(u128::from(self.boots)),
            boot_nonce: self.boots,
            seed: self.boots,
            login_secret: [7; 32],
            unix_ms: 1_000,
            election_timeout_ns: self.tuning.election_timeout_ns,
            heartbeat_ns: self.tuning.election_timeout_ns / 5,
            segment_bytes: self.tuning.segment_bytes,
            history_bytes_max: self.tuning.history_bytes_max,
            history_age_ns: self.tuning.history_age_ns,
            quota_bytes: self.tuning.quota_bytes,
            lease_drift_ppm: None,
            start: self.tuning.start,
            clients_max: self.tuning.clients_max,
            working: self.tuning.working,
            snapshots: SnapshotOptions {
                entries: self.tuning.snapshot_entries,
                log_bytes: self.tuning.snapshot_log_bytes,
                interval_ns: self.tuning.snapshot_interval_ns,
                block_bytes: self.tuning.snapshot_block_bytes,
                piece_bytes: self.tuning.snapshot_piece_bytes,
                rate: self.tuning.snapshot_rate,
                ..SnapshotOptions::default()
            },
        };
        let now = self.now;
        let machine = self.machine(nth);
        machine.node = Some(Node::open(machine.disk.disk(), options, now)?);
        Ok(())
    }

    /// The power of a machine goes.
    pub(in crate::raft) fn crash(&mut self, nth: usize) {
        self.machine(nth).lose_power();
        self.end_pipes(|end| matches!(end, End::Node(at, _) if at == nth));
    }

    /// The power of a machine goes, and nobody hears of it: who sends there hears nothing.
    pub(in crate::raft) fn vanish(&mut self, nth: usize) {
        self.machine(nth).lose_power();
        self.pipes.retain(|pipe| !pipe.ends.iter().any(|end| is_at(*end, nth)));
    }

    /// Whether a server needs no turn now.
    pub(in crate::raft) fn sleeps(&self, nth: usize) -> bool {
        self.machines[nth - 1].node.as_ref().expect("it is up").wake_at() > self.now
    }

    pub(in crate::raft) fn freeze(&mut self, nth: usize) {
        self.machine(nth).frozen = true;
    }

    /// The process goes on with the next turn that it is given.
    pub(in crate::raft) fn wake(&mut self, nth: usize) {
        self.machine(nth).frozen = false;
    }

    /// The process goes on: a turn takes first what has come meanwhile.
    pub(in crate::raft) fn thaw(&mut self, nth: usize) {
        self.wake(nth);
        for pipe in 0..self.pipes.len() {
            self.deliver_to(pipe, nth);
        }
        self.settle();
    }

    pub(in crate::raft) fn cut(&mut self, one: usize, other: usize) {
        self.cuts.push((one, other));
        let is = |pipe: &Pipe, nth| pipe.ends.iter().any(|end| is_at(*end, nth));
        let hit = |pipe: &Pipe| is(pipe, one) && is(pipe, other);
        let (ended, kept) = std::mem::take(&mut self.pipes).into_iter().partition(hit);
        self.pipes = kept;
        self.say_ended(ended);
    }

    /// `from` cannot reach `to` any more, and `to` reaches it as before.
    pub(in crate::raft) fn wall_off(&mut self, from: usize, to: usize) {
        self.walls.push((from, to));
        let hit = |pipe: &Pipe| is_at(pipe.ends[0], from) && is_at(pipe.ends[1], to);
        let (ended, kept) = std::mem::take(&mut self.pipes).into_iter().partition(hit);
        self.pipes = kept;
        self.say_ended(ended);
    }

    pub(in crate::raft) fn mend(&mut self) {
        self.cuts.clear();
        self.walls.clear();
    }

    pub(in crate::raft) fn fatal(&mut self, nth: usize) -> Option<Fatal> {
        self.machine(nth).fatal.take()
    }

    pub(in crate::raft) fn status_of(&self, nth: usize) -> Status {
        self.machines[nth - 1].node.as_ref().expect("it is up").status()
    }

    /// The time of the last entry that a server has applied. Milliseconds.
    pub(in crate::raft) fn stamp_ms_of(&self, nth: usize) -> u64 {
        self.machines[nth - 1].node.as_ref().expect("it is up").inspect().store.stamp_ms()
    }

    /// Who leads, if one server says so and is not frozen.
    pub(in crate::raft) fn leader(&self) -> Option<usize> {
        let leads = |nth: &usize| {
            let machine = &self.machines[nth - 1];
            let node = machine.node.as_ref().filter(|_| !machine.frozen);
            node.is_some_and(|node| node.status().role == "leader")
        };
        (1..=self.machines.len()).find(leads)
    }

    /// Lets `nth` take what is there and one turn, and stops it before anything leaves.
    pub(in crate::raft) fn turn_and_freeze(&mut self, nth: usize) {
        for pipe in 0..self.pipes.len() {
            self.deliver_to(pipe, nth);
        }
        let now = self.now;
        self.machine(nth).node.as_mut().expect("it is up").advance(now);
        self.freeze(nth);
    }

    /// Hands a node what was sent to it, and gives it one turn.
    pub(in crate::raft) fn one_turn(&mut self, nth: usize) {
        for pipe in 0..self.pipes.len() {
            self.deliver_to(pipe, nth);
        }
        self.turn(nth);
    }

    pub(in crate::raft) fn pass(&mut self, ns: u64) {
        let until = self.now.after_ns(ns);
        self.settle();
        while self.now < until {
            self.now = self.now.after_ns(STEP_NS);
            self.settle();
        }
    }

    /// Lets time pass until `done`, ten seconds at most.
    pub(in crate::raft) fn pass_until(&mut self, done: impl Fn(&Nodes) -> bool) {
        for _ in 0..2_000 {
            if done(self) {
                return;
            }
            self.pass(STEP_NS);
        }
        panic!("it does not come to that");
    }

    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut busy = false;
            for nth in 1..=self.machines.len() {
                busy |= self.turn(nth);
            }
            for pipe in 0..self.pipes.len() {
                for nth in 0..=self.machines.len() {
                    busy |= self.deliver_to(pipe, nth);
                }
            }
            if !busy {
                return;
            }
        }
        panic!("the nodes do not come to rest");
    }

    /// One turn of one node and what it asks for. Says whether anything came of it.
    fn turn(&mut self, nth: usize) -> bool {
        let now = self.now;
        let machine = &mut self.machines[nth - 1];
        let Some(node) = machine.node.as_mut().filter(|_| !machine.frozen) else { return false };
        node.advance(now);
        if let Some(fatal) = node.fatal() {
            machine.fatal = Some(fatal);
            machine.node = None;
            self.end_pipes(|end| is_at(end, nth));
            return true;
        }
        if let Some(job) = node.take_job() {
            machine.job = Some(job);
        }
        let mut busy = false;
        if !machine.sync_held
            && let Some(job) = machine.job.take()
        {
            let result = job.run();
            node.on_job_done(job, result, now);
            busy = true;
        }
        if let Some(job) = node.take_background_job() {
            machine.background = Some(job);
        }
        busy |= !machine.background_held && machine.run_background(now);
        let mut dials = Vec::new();
        let node = machine.node.as_mut().expect("it has just had a turn");
        node.take_dials(&mut dials);
        busy |= !dials.is_empty();
        busy |= self.collect(nth);
        for dial in dials {
            self.dial(nth, &dial);
        }
        busy
    }

    fn collect(&mut self, nth: usize) -> bool {
        let now = self.now;
        let node = self.machines[nth - 1].node.as_mut().expect("it has just had a turn");
        let (mut dirty, mut closing) = (Vec::new(), Vec::new());
        node.take_dirty(&mut dirty);
        node.take_closing(&mut closing);
        let busy = !dirty.is_empty() || !closing.is_empty();
        for id in dirty {
            self.send(nth, id);
        }
        self.closed.extend(&closing);
        for id in closing {
            self.end_pipes(|end| end == End::Node(nth, id));
            // Even if the other end has vanished.
            self.machine(nth).node.as_mut().expect("as above").on_closed(id, now);
        }
        busy
    }

    fn send(&mut self, nth: usize, id: ConnectionId) {
        if self.unread.contains(&id) {
            return;
        }
        let node = self.machine(nth).node.as_mut().expect("it has something to send");
        let bytes = node.unsent(id).to_vec();
        node.sent(id, bytes.len());
        if self.loses(&bytes) {
            return;
        }
        for pipe in &mut self.pipes {
            if let Some(side) = pipe.ends.iter().position(|end| *end == End::Node(nth, id)) {
                pipe.bytes[1 - side].extend_from_slice(&bytes);
            }
        }
    }

    fn dial(&mut self, from: usize, dial: &Dial) {
        let to = usize::try_from(dial.peer.get()).unwrap();
        let now = self.now;
        let cut = self.cuts.iter().any(|pair| *pair == (from, to) || *pair == (to, from));
        let cut = cut || self.walls.contains(&(from, to));
        if cut || self.machine(to).node.is_none() {
            let node = self.machine(from).node.as_mut().expect("it has just dialed");
            return node.on_dial_failed(dial.peer, now, "down");
        }
        let ids = [self.next_id(), self.next_id()];
        self.machine(to).node.as_mut().expect("just looked").on_accepted(ids[1]);
        self.machine(from).node.as_mut().expect("it dials").on_dialed(ids[0], dial.peer, now);
        let ends = [End::Node(from, ids[0]), End::Node(to, ids[1])];
        self.pipes.push(Pipe { ends, bytes: Default::default() });
    }

    fn next_id(&mut self) -> ConnectionId {
        self.slots += 1;
        ConnectionId::new(self.slots % 4096, self.slots)
    }

    /// Delivers what a pipe holds for node `nth`, or for a client if `nth` is 0.
    fn deliver_to(&mut self, pipe: usize, nth: usize) -> bool {
        let Some(it) = self.pipes.get_mut(pipe) else { return false };
        let wanted = |end: &End| if nth == 0 { *end == End::Client } else { is_at(*end, nth) };
        let Some(side) = it.ends.iter().position(wanted) else { return false };
        if it.bytes[side].is_empty() {
            return false;
        }
        match it.ends[side] {
            End::Client => {
                let bytes = std::mem::take(&mut it.bytes[side]);
                self.hear(&bytes);
                true
            }
            End::Node(nth, id) => {
                let machine = &mut self.machines[nth - 1];
                let Some(node) = machine.node.as_mut().filter(|_| !machine.frozen) else {
                    return false;
                };
                let taken = node.on_bytes(id, &it.bytes[side], self.now);
                it.bytes[side].drain(..taken.bytes);
                taken.bytes > 0
            }
        }
    }

    fn end_pipes(&mut self, hit: impl Fn(End) -> bool) {
        let is = |pipe: &Pipe| pipe.ends.iter().any(|end| hit(*end));
        let (ended, kept) = std::mem::take(&mut self.pipes).into_iter().partition(is);
        self.pipes = kept;
        self.say_ended(ended);
    }

    fn say_ended(&mut self, ended: Vec<Pipe>) {
        let now = self.now;
        for end in ended.into_iter().flat_map(|pipe| pipe.ends) {
            if let End::Node(nth, id) = end
                && let Some(node) = &mut self.machines[nth - 1].node
            {
                node.on_closed(id, now);
            }
        }
    }
}

fn is_at(end: End, nth: usize) -> bool {
    matches!(end, End::Node(at, _) if at == nth)
}

/// What identifies a server's first data directory: they start in the order of their numbers.
pub(in crate::raft) fn disk_of(nth: usize) -> DiskId {
    DiskId(u128::try_from(nth).expect("few"))
}
