//! Three nodes and their clients, in a time of their own in which everything takes as long as it
//! always takes: so the same happens in every run, and what changes is what the nodes do.

use crate::loads::Load;
use crate::machine::{Effect, End, Input, Machine, Spent, id_of, u64_of};
use raftd::replica::ConnectionId;
use raftd::types::{ClusterId, Instant, NodeId};
use raftd::wal::{BackgroundJob, Job};
use raftd::wire::frame::next_frame;
use raftd::wire::hello::{Hello, HelloReply, Sender, VERSION, decode_hello_reply, encode_hello};
use raftd::wire::reply::{ReplyBody, decode_reply};
use std::collections::BTreeMap;
use std::ops::Range;

const MACHINES: usize = 3;

/// What a turn, a way through the network, a job's writes and syncs, and a step in the background
/// take. Nanoseconds.
const TURN_NS: u64 = 20_000;
const WAY_NS: u64 = 50_000;
const SYNC_NS: u64 = 500_000;
const BACKGROUND_NS: u64 = 200_000;

/// Clients are not all as far away: of two neighbours one is so much farther, up to so many. Else
/// all that ask would arrive in the same turn for ever. Nanoseconds.
const FARTHER_NS: u64 = 2_000;
const DISTANCES: usize = 50;

/// Whatever is waited for has come by then. Nanoseconds.
const PATIENCE_NS: u64 = 60_000_000_000;

/// What a client's request takes through the network. Nanoseconds.
fn way_of(client: usize) -> u64 {
    WAY_NS + FARTHER_NS * u64_of(client % DISTANCES)
}

/// Something that happens.
enum Event {
    Turn { machine: usize },
    Bytes { to: End, bytes: Vec<u8> },
    Closed { to: End },
    Connected { machine: usize, peer: usize },
    Synced { machine: usize, job: Job },
    Background { machine: usize, job: BackgroundJob },
}

struct Client {
    to: End,
    welcomed: bool,
    input: Vec<u8>,
}

/// What clients have heard so far.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Heard {
    /// Answers.
    pub(crate) answers: u64,
    /// Changes that watches told of.
    pub(crate) events: u64,
}

pub(crate) struct Cluster {
    now: u64,
    /// By time, and among those of the same time in the order in which they were asked for.
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    machines: Vec<Machine>,
    /// When the next turn of each is, and until when it is busy with the last one.
    turn_at: [u64; MACHINES],
    busy_until: [u64; MACHINES],
    clients: Vec<Client>,
    asked: u64,
    heard: Heard,
    /// Who has got an answer and may ask again.
    free: Vec<usize>,
    effects: Vec<Effect>,
}

impl Cluster {
    /// A cluster with a leader that has committed something.
    pub(crate) fn new() -> Cluster {
        let now = 1_000_000_000;
        let at = Instant::from_ns(now);
        let mut cluster = Cluster {
            now,
            queue: BTreeMap::new(),
            queued: 0,
            machines: (0..MACHINES).map(|nth| Machine::new(nth, MACHINES, at)).collect(),
            turn_at: [u64::MAX; MACHINES],
            busy_until: [0; MACHINES],
            clients: Vec::new(),
            asked: 0,
            heard: Heard::default(),
            free: Vec::new(),
            effects: Vec::new(),
        };
        (0..MACHINES).for_each(|machine| cluster.wake(machine, now));
        cluster.run_until(|cluster| {
            let ready = |it: &Machine| it.node.inspect().raft.is_some_and(|it| it.leader_ready());
            cluster.machines.iter().any(ready)
        });
        cluster
    }

    /// Who leads.
    pub(crate) fn leader(&self) -> usize {
        let leads = |it: &Machine| it.node.inspect().raft.is_some_and(|it| it.is_leader());
        self.machines.iter().position(leads).expect("there is a leader")
    }

    /// One who does not.
    pub(crate) fn follower(&self) -> usize {
        (self.leader() + 1) % MACHINES
    }

    /// What the nodes have spent so far: the leader, and the others.
    pub(crate) fn spent(&self) -> (Spent, Vec<Spent>) {
        let leader = self.leader();
        let others = self.machines.iter().enumerate().filter(|(nth, _)| *nth != leader);
        (self.machines[leader].spent, others.map(|(_, it)| it.spent).collect())
    }

    pub(crate) fn heard(&self) -> Heard {
        self.heard
    }

    /// Connects so many clients with a machine; says which they are.
    pub(crate) fn connect(&mut self, machine: usize, count: usize) -> Range<usize> {
        let first = self.clients.len();
        let mut hello = Vec::new();
        let sender = Sender::Client;
        let (version_min, version_max, cluster_id) = (VERSION, VERSION, ClusterId(0));
        let auth = Vec::new();
        encode_hello(&mut hello, &Hello { version_min, version_max, cluster_id, sender, auth });
        for client in first..first + count {
            let id = self.machines[machine].open_socket();
            self.machines[machine].enter(id, End::Client { client });
            self.machines[machine].inbox.push_back(Input::Accepted(id));
            let to = End::Node { machine, id };
            self.clients.push(Client { to, welcomed: false, input: Vec::new() });
            self.after(WAY_NS, Event::Bytes { to, bytes: hello.clone() });
        }
        self.run_until(|cluster| cluster.clients.iter().all(|client| client.welcomed));
        first..first + count
    }

    /// The clients of a load begin to ask.
    pub(crate) fn begin(&mut self, load: &Load) {
        self.free.clear();
        for _ in 0..load.in_flight {
            self.free.extend(load.clients.clone());
        }
        self.ask(load);
    }

    /// Goes on until so many more answers have come; who has one asks again.
    pub(crate) fn go_on(&mut self, load: &Load, answers: u64) {
        let wanted = self.heard.answers + answers;
        let patience = self.now + PATIENCE_NS;
        while self.heard.answers < wanted {
            self.step(patience);
            self.ask(load);
        }
    }

    /// Waits for all answers that are out.
    pub(crate) fn end(&mut self) {
        self.run_until(|cluster| cluster.heard.answers == cluster.asked);
    }

    /// Each of these clients says something that is not answered once: the number is the client's.
    pub(crate) fn say(&mut self, clients: Range<usize>, request: fn(&mut Vec<u8>, u64)) {
        for client in clients {
            let mut bytes = Vec::new();
            request(&mut bytes, u64_of(client));
            let to = self.clients[client].to;
            self.after(WAY_NS, Event::Bytes { to, bytes });
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, ns: u64) {
        let until = self.now + ns;
        while self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= until) {
            self.step(until);
        }
        self.now = until;
    }

    fn run_until(&mut self, done: impl Fn(&Cluster) -> bool) {
        let patience = self.now + PATIENCE_NS;
        while !done(self) {
            self.step(patience);
        }
    }

    /// What is next happens.
    fn step(&mut self, until: u64) {
        let ((at, _), event) = self.queue.pop_first().expect("something happens always");
        assert!(at <= until, "what is waited for does not happen");
        assert!(at >= self.now, "time goes on");
        self.now = at;
        match event {
            Event::Turn { machine } => self.on_turn(machine),
            Event::Bytes { to: End::Node { machine, id }, bytes } => {
                self.machines[machine].arrive(id, &bytes);
                self.wake(machine, self.now);
            }
            Event::Bytes { to: End::Client { client }, bytes } => self.hear(client, &bytes),
            Event::Closed { to: End::Node { machine, id } } => {
                self.give(machine, Input::Closed(id));
            }
            Event::Closed { to: End::Client { client } } => panic!("client {client} is sent away"),
            Event::Connected { machine, peer } => self.on_connected(machine, peer),
            Event::Synced { machine, job } => {
                let result = job.run();
                self.give(machine, Input::Synced(job, result));
            }
            Event::Background { machine, job } => {
                let done = job.run();
                self.give(machine, Input::Background(done));
            }
        }
    }

    fn after(&mut self, ns: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now + ns, self.queued), event);
    }

    fn give(&mut self, machine: usize, input: Input) {
        self.machines[machine].inbox.push_back(input);
        self.wake(machine, self.now);
    }

    /// Sees to it that a node takes a turn at `at`, or before.
    fn wake(&mut self, machine: usize, at: u64) {
        let at = at.max(self.busy_until[machine]).max(self.now);
        if at < self.turn_at[machine] {
            self.turn_at[machine] = at;
            self.after(at - self.now, Event::Turn { machine });
        }
    }

    fn on_turn(&mut self, machine: usize) {
        if self.turn_at[machine] != self.now {
            return; // an earlier one has done its work
        }
        self.turn_at[machine] = u64::MAX;
        let mut effects = std::mem::take(&mut self.effects);
        let due = self.machines[machine].turn(Instant::from_ns(self.now), &mut effects);
        self.busy_until[machine] = self.now + TURN_NS;
        for effect in effects.drain(..) {
            self.carry_out(machine, effect);
        }
        self.effects = effects;
        if due != Instant::FAR {
            self.wake(machine, due.as_ns());
        }
    }

    fn carry_out(&mut self, machine: usize, effect: Effect) {
        match effect {
            Effect::Send { to, bytes } => {
                self.after(TURN_NS + WAY_NS, Event::Bytes { to, bytes });
            }
            Effect::Close { to } => self.after(TURN_NS + WAY_NS, Event::Closed { to }),
            Effect::Dial { peer } => {
                let peer = usize::try_from(peer.get()).expect("few machines") - 1;
                self.after(TURN_NS + 2 * WAY_NS, Event::Connected { machine, peer });
            }
            Effect::Sync(job) => self.after(TURN_NS + SYNC_NS, Event::Synced { machine, job }),
            Effect::Background(job) => {
                self.after(TURN_NS + BACKGROUND_NS, Event::Background { machine, job });
            }
        }
    }

    fn on_connected(&mut self, machine: usize, peer: usize) {
        let ours: ConnectionId = self.machines[machine].open_socket();
        let theirs = self.machines[peer].open_socket();
        self.machines[machine].enter(ours, End::Node { machine: peer, id: theirs });
        self.machines[peer].enter(theirs, End::Node { machine, id: ours });
        let dialed: NodeId = id_of(peer);
        self.give(machine, Input::Dialed(ours, dialed));
        self.give(peer, Input::Accepted(theirs));
    }

    /// Whoever is free asks: what a client asks at once it says at once.
    fn ask(&mut self, load: &Load) {
        let mut free = std::mem::take(&mut self.free);
        free.sort_unstable();
        for asking in free.chunk_by(|one, next| one == next) {
            let mut bytes = Vec::new();
            for _ in asking {
                self.asked += 1;
                (load.request)(&mut bytes, self.asked);
            }
            let client = asking[0];
            let to = self.clients[client].to;
            self.after(way_of(client), Event::Bytes { to, bytes });
        }
        free.clear();
        self.free = free;
    }

    fn hear(&mut self, client: usize, bytes: &[u8]) {
        let it = &mut self.clients[client];
        it.input.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some(frame) = next_frame(&it.input[taken..], usize::MAX >> 1).unwrap() {
            taken += frame.consumed;
            if !it.welcomed {
                let reply = decode_hello_reply(frame.body).unwrap();
                assert!(matches!(reply, HelloReply::Welcome(_)), "{reply:?}");
                it.welcomed = true;
                continue;
            }
            let reply = decode_reply(frame.body).unwrap().body;
            if let ReplyBody::Watch(reply) = reply {
                self.heard.events += u64_of(reply.len());
            } else {
                assert!(!matches!(reply, ReplyBody::Error(_)), "{reply:?}");
                self.heard.answers += 1;
                self.free.push(client);
            }
        }
        it.input.drain(..taken);
    }
}
