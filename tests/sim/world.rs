//! Three nodes, their disks, the bytes between them, a clock, and clients that put.

use super::disk::SimDisk;
use raftd::config::MemberAddress;
use raftd::replica::{ConnectionId, Dial, Flow, Node, NodeOptions};
use raftd::types::{ClusterId, DiskId, Instant, NodeId, Revision};
use raftd::wal::{BackgroundJob, Disk, Job};
use raftd::wire::client::{Consistency, RangeArgs, put_request, range_request, status_request};
use raftd::wire::frame::next_frame;
use raftd::wire::hello::{Hello, Sender, encode_hello};
use raftd::wire::reply::{ReplyBody, decode_reply};
use raftd::wire::status::Status;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

const NODES: usize = 3;
const PATIENCE: u64 = 300_000;

/// splitmix64: the same on every machine for ever.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % u64::try_from(end).unwrap()).unwrap()
    }
}

/// One machine: its disk outlives its node.
struct Machine {
    disk: Arc<SimDisk>,
    node: Option<Node>,
    /// The job in flight and how many of its operations have run.
    job: Option<(Job, usize)>,
    background: Option<BackgroundJob>,
    slots: u32,
}

/// An end of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Node(usize, ConnectionId),
    Client,
}

/// A connection: two ends, and bytes on their way to each.
struct Pipe {
    ends: [End; 2],
    bytes: [VecDeque<u8>; 2],
    /// What the receiving node has not taken yet.
    kept: [Vec<u8>; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Unknown,
    Acknowledged(Revision),
    Refused,
}

pub(super) struct World {
    chance: Chance,
    now: Instant,
    machines: Vec<Machine>,
    pipes: Vec<Pipe>,
    dials: Vec<(usize, Dial)>,
    puts: Vec<Outcome>,
    boots: u64,
    pub(super) losses: u64,
    /// No power is lost any more.
    calm: bool,
    last_status: BTreeMap<usize, Status>,
    last_keys: BTreeMap<usize, BTreeMap<Vec<u8>, Revision>>,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut world = World {
            chance: Chance(seed),
            now: Instant::ZERO,
            machines: Vec::new(),
            pipes: Vec::new(),
            dials: Vec::new(),
            puts: Vec::new(),
            boots: 0,
            losses: 0,
            calm: false,
            last_status: BTreeMap::new(),
            last_keys: BTreeMap::new(),
        };
        for nth in 0..NODES {
            let disk = Arc::new(SimDisk::new(world.chance.draw()));
            world.machines.push(Machine {
                disk,
                node: None,
                job: None,
                background: None,
                slots: 0,
            });
            world.boot(nth);
        }
        world
    }

    pub(super) fn acknowledged(&self) -> u64 {
        let is = |outcome: &&Outcome| matches!(outcome, Outcome::Acknowledged(_));
        u64::try_from(self.puts.iter().filter(is).count()).unwrap()
    }

    fn boot(&mut self, nth: usize) {
        let id = |nth: usize| NodeId::new(u64::try_from(nth + 1).unwrap()).unwrap();
        self.boots += 1;
        let members = (0..NODES)
            .map(|nth| MemberAddress { id: id(nth), address: format!("sim:{}", nth + 1) })
            .collect();
        let options = NodeOptions {
            id: id(nth),
            members,
            cluster_id: ClusterId(7),
            token_hash: 0,
            disk_id_if_new: DiskId(u128::from(self.chance.draw())),
            boot_nonce: self.boots,
            seed: self.chance.draw(),
            unix_ms: 1_000 + self.now.as_ns() / 1_000_000,
            election_timeout_ns: 300_000_000,
            heartbeat_ns: 60_000_000,
            segment_bytes: 64 * 1024,
            history_bytes_max: 64 * 1024,
            clients_max: 1000,
        };
        let disk: Arc<dyn Disk> = self.machines[nth].disk.clone();
        let opened = Node::open(disk, options, self.now);
        self.machines[nth].node = Some(opened.expect("no power loss keeps a node from starting"));
    }

    /// Cuts the power of one machine, or of all, and boots what was cut.
    fn lose_power(&mut self) {
        self.losses += 1;
        let victims: Vec<usize> = if self.chance.below(4) == 0 {
            (0..NODES).collect()
        } else {
            vec![self.chance.below(NODES)]
        };
        for nth in &victims {
            let machine = &mut self.machines[*nth];
            machine.node = None;
            machine.background = None;
            // A write under way when the power goes may reach the disk in part.
            if let Some((job, done)) = machine.job.take()
                && self.chance.below(2) == 0
            {
                let _torn = job.operations.get(done).map(|operation| operation.run());
            }
            self.machines[*nth].disk.lose_power();
            self.dials.retain(|(from, _)| from != nth);
            self.cut(*nth);
        }
        for nth in victims {
            self.boot(nth);
        }
    }

    /// Ends every connection of a machine.
    fn cut(&mut self, nth: usize) {
        let now = self.now;
        let pipes = std::mem::take(&mut self.pipes);
        for pipe in pipes {
            let hit = |end: &End| matches!(end, End::Node(at, _) if *at == nth);
            if pipe.ends.iter().any(hit) {
                for end in pipe.ends {
                    if let End::Node(at, id) = end
                        && let Some(node) = &mut self.machines[at].node
                    {
                        node.on_closed(id, now);
                    }
                }
            } else {
                self.pipes.push(pipe);
            }
        }
    }

    /// One event, drawn from all that can happen.
    pub(super) fn step(&mut self) {
        match self.chance.below(16) {
            0..=7 => self.deliver(),
            8..=10 => self.run_operation(),
            11 => self.run_background(),
            12 | 13 if !self.calm => self.client_acts(),
            12 | 13 => self.pass_time(),
            14 => self.pass_time(),
            _ => {
                if !self.calm && self.chance.below(40) == 0 {
                    self.lose_power();
                }
            }
        }
        self.settle();
    }

    /// Lets every node take its turn and carries out what it asks for.
    fn settle(&mut self) {
        for nth in 0..NODES {
            let Some(node) = &mut self.machines[nth].node else { continue };
            node.advance(self.now);
            if let Some(fatal) = node.fatal() {
                panic!("node {} gave up: {fatal}", nth + 1);
            }
            if let Some(job) = node.take_job() {
                assert!(self.machines[nth].job.is_none(), "one job in flight");
                self.machines[nth].job = Some((job, 0));
            }
            let machine = &mut self.machines[nth];
            let node = machine.node.as_mut().unwrap();
            if machine.background.is_none() {
                machine.background = node.take_background_job();
            }
            let mut dials = Vec::new();
            node.take_dials(&mut dials);
            self.dials.extend(dials.into_iter().map(|dial| (nth, dial)));
            self.collect(nth);
        }
        self.connect();
    }

    /// Moves what a node wants to send into its pipes, and ends what it wants ended.
    fn collect(&mut self, nth: usize) {
        let (mut dirty, mut closing) = (Vec::new(), Vec::new());
        let node = self.machines[nth].node.as_mut().unwrap();
        node.take_dirty(&mut dirty);
        node.take_closing(&mut closing);
        for id in dirty {
            let bytes = node.unsent(id).to_vec();
            node.sent(id, bytes.len());
            for pipe in &mut self.pipes {
                for (side, end) in pipe.ends.iter().enumerate() {
                    if *end == End::Node(nth, id) {
                        pipe.bytes[1 - side].extend(&bytes);
                    }
                }
            }
        }
        for id in closing {
            let found = self.pipes.iter().position(|pipe| pipe.ends.contains(&End::Node(nth, id)));
            if let Some(found) = found {
                self.end_pipe(found);
            }
        }
    }

    fn end_pipe(&mut self, found: usize) {
        let pipe = self.pipes.swap_remove(found);
        for end in pipe.ends {
            if let End::Node(at, id) = end
                && let Some(node) = &mut self.machines[at].node
            {
                node.on_closed(id, self.now);
            }
        }
    }

    fn next_id(&mut self, nth: usize) -> ConnectionId {
        let machine = &mut self.machines[nth];
        machine.slots += 1;
        ConnectionId::new(machine.slots % 4096, machine.slots)
    }

    fn connect(&mut self) {
        for (from, dial) in std::mem::take(&mut self.dials) {
            let to = usize::try_from(dial.peer.get()).unwrap() - 1;
            let ids = [self.next_id(from), self.next_id(to)];
            let now = self.now;
            if self.machines[to].node.is_none() {
                let node = self.machines[from].node.as_mut().unwrap();
                node.on_dial_failed(dial.peer, now, "down");
                continue;
            }
            self.machines[to].node.as_mut().unwrap().on_accepted(ids[1]);
            self.machines[from].node.as_mut().unwrap().on_dialed(ids[0], dial.peer);
            self.add_pipe(End::Node(from, ids[0]), End::Node(to, ids[1]));
        }
    }

    fn add_pipe(&mut self, one: End, other: End) {
        self.pipes.push(Pipe {
            ends: [one, other],
            bytes: Default::default(),
            kept: Default::default(),
        });
    }

    /// Delivers some bytes of some pipe, cut anywhere.
    fn deliver(&mut self) {
        let waits = |(nth, pipe): (usize, &Pipe)| {
            [0, 1].map(|side| (!pipe.bytes[side].is_empty()).then_some((nth, side)))
        };
        let waiting: Vec<(usize, usize)> =
            self.pipes.iter().enumerate().flat_map(waits).flatten().collect();
        if waiting.is_empty() {
            return;
        }
        let (nth, side) = waiting[self.chance.below(waiting.len())];
        let waiting = self.pipes[nth].bytes[side].len();
        let count =
            if self.chance.below(4) == 0 { 1 + self.chance.below(waiting) } else { waiting };
        let pipe = &mut self.pipes[nth];
        pipe.kept[side].extend(pipe.bytes[side].drain(..count));
        match pipe.ends[side] {
            End::Node(at, id) => {
                let node = self.machines[at].node.as_mut().unwrap();
                let taken = node.on_bytes(id, &pipe.kept[side], self.now);
                pipe.kept[side].drain(..taken.bytes);
                if taken.flow == Flow::Paused {
                    // The node waits for a segment: what it did not take is offered again.
                    let kept = std::mem::take(&mut pipe.kept[side]);
                    for byte in kept.into_iter().rev() {
                        pipe.bytes[side].push_front(byte);
                    }
                }
            }
            End::Client => {
                let mut kept = std::mem::take(&mut pipe.kept[side]);
                let from = pipe.ends[1 - side];
                self.client_hears(from, &mut kept);
                if let Some(pipe) = self.pipes.get_mut(nth) {
                    pipe.kept[side] = kept;
                }
            }
        }
    }

    fn run_operation(&mut self) {
        let nth = self.chance.below(NODES);
        let machine = &mut self.machines[nth];
        let Some((job, done)) = &mut machine.job else { return };
        if let Some(operation) = job.operations.get(*done) {
            operation.run().expect("this disk does not fail");
            *done += 1;
        }
        if *done == job.operations.len() {
            let (job, _) = machine.job.take().unwrap();
            machine.node.as_mut().unwrap().on_job_done(job, Ok(()), self.now);
        }
    }

    fn run_background(&mut self) {
        let nth = self.chance.below(NODES);
        let machine = &mut self.machines[nth];
        if let Some(job) = machine.background.take() {
            machine.node.as_mut().unwrap().on_background_done(job.run(), self.now);
        }
    }

    fn pass_time(&mut self) {
        let ns = 1 + self.chance.draw() % 10_000_000;
        self.now = self.now.after_ns(ns);
    }

    /// Opens a client connection, or puts through one.
    fn client_acts(&mut self) {
        let clients: Vec<usize> =
            (0..self.pipes.len()).filter(|nth| self.pipes[*nth].ends[0] == End::Client).collect();
        if clients.len() < NODES {
            let to = self.chance.below(NODES);
            self.open_client(to);
            return;
        }
        let nth = clients[self.chance.below(clients.len())];
        let id = u64::try_from(self.puts.len()).unwrap();
        let mut bytes = Vec::new();
        let value = vec![7; self.chance.below(600)];
        put_request(&mut bytes, id, format!("key-{id}").as_bytes(), &value);
        self.puts.push(Outcome::Unknown);
        self.pipes[nth].bytes[1].extend(&bytes);
    }

    fn open_client(&mut self, to: usize) {
        let id = self.next_id(to);
        let Some(node) = &mut self.machines[to].node else { return };
        node.on_accepted(id);
        self.add_pipe(End::Client, End::Node(to, id));
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            cluster_id: ClusterId(0),
            sender: Sender::Client,
            auth: Vec::new(),
        };
        let mut bytes = Vec::new();
        encode_hello(&mut bytes, &hello);
        self.pipes.last_mut().unwrap().bytes[1].extend(&bytes);
    }

    fn client_hears(&mut self, from: End, kept: &mut Vec<u8>) {
        let End::Node(at, _) = from else { panic!("clients do not talk to each other") };
        let mut taken = 0;
        while let Some(frame) = next_frame(&kept[taken..], usize::MAX >> 1).unwrap() {
            taken += frame.consumed;
            let Ok(reply) = decode_reply(frame.body) else { continue };
            self.note(at, reply.id, reply.body);
        }
        kept.drain(..taken);
    }

    fn note(&mut self, at: usize, id: u64, body: ReplyBody<'_>) {
        match body {
            ReplyBody::Status(status) => {
                self.last_status.insert(at, *status);
            }
            ReplyBody::Range(range) => {
                let keys = range.kvs().map(|kv| (kv.key.to_vec(), kv.mod_revision)).collect();
                assert!(!range.more, "the check asks for few keys");
                self.last_keys.insert(at, keys);
            }
            ReplyBody::Put { revision } => {
                let put = &mut self.puts[usize::try_from(id).unwrap()];
                assert_eq!(*put, Outcome::Unknown, "a put is answered once");
                *put = Outcome::Acknowledged(revision);
            }
            ReplyBody::Error(error) => {
                let Some(put) = self.puts.get_mut(usize::try_from(id).unwrap_or(usize::MAX)) else {
                    return;
                };
                assert_eq!(*put, Outcome::Unknown, "a put is answered once");
                if error != raftd::wire::error::Error::OutcomeUnknown {
                    *put = Outcome::Refused;
                }
            }
            ReplyBody::DeleteRange { .. } => {}
        }
    }

    /// Leaves the power on until all nodes agree.
    pub(super) fn heal(&mut self) {
        self.calm = true;
        for _ in 0..PATIENCE {
            self.step();
            if self.chance.below(500) == 0 && self.agreed() {
                return;
            }
        }
        panic!("the cluster did not agree after the power came back");
    }

    fn agreed(&mut self) -> bool {
        let statuses: Vec<Status> =
            self.machines.iter().map(|machine| machine.node.as_ref().unwrap().status()).collect();
        let leads = statuses.iter().any(|status| status.role == "leader");
        let same = statuses.windows(2).all(|pair| {
            pair[0].applied_index == pair[1].applied_index
                && pair[0].commit_index == pair[1].commit_index
                && pair[0].term == pair[1].term
        });
        let settled = statuses[0].applied_index == statuses[0].last_index;
        if leads && same && settled {
            let hashes: Vec<u64> = statuses.iter().map(|status| status.state_hash).collect();
            assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "equal index, equal state");
        }
        leads && same && settled
    }

    /// Reads every node's own state: what was acknowledged is there, what was refused is not.
    pub(super) fn check(&mut self) {
        for at in 0..NODES {
            self.last_keys.remove(&at);
            self.open_client(at);
            let mut bytes = Vec::new();
            let args = RangeArgs {
                consistency: Consistency::Serializable,
                end: b"\0",
                keys_only: true,
                ..RangeArgs::of_key(b"key-")
            };
            range_request(&mut bytes, u64::MAX >> 4, &args);
            status_request(&mut bytes, (u64::MAX >> 4) + 1);
            self.pipes.last_mut().unwrap().bytes[1].extend(&bytes);
            for _ in 0..PATIENCE {
                self.deliver();
                self.settle();
                if self.last_keys.contains_key(&at) {
                    break;
                }
            }
            let keys = self.last_keys.get(&at).expect("the node answers");
            for (id, outcome) in self.puts.iter().enumerate() {
                let found = keys.get(format!("key-{id}").as_bytes());
                match outcome {
                    Outcome::Acknowledged(revision) => {
                        assert_eq!(found, Some(revision), "put {id} was acknowledged");
                    }
                    Outcome::Refused => assert_eq!(found, None, "put {id} was refused"),
                    Outcome::Unknown => {}
                }
            }
        }
    }
}
