//! Clients: they ask at a steady rate whatever happens, several requests at a time, follow
//! redirects, give up sooner than the cluster, and write down what they were told.
//!
//! An **op** is what a client wants; an **attempt** is a request for it, and one row of the
//! history. A refused attempt is repeated; after an unknown outcome a put is tried again with
//! another value, so that no value is ever written twice. But a call of a session is the same in
//! all its attempts, and one row: see `calls`.

mod asking;
mod calls;
mod errands;
mod guests;
mod hearing;
mod leases;
mod logins;
mod looks;
mod saves;
mod stewards;
mod txns;
mod watching;

use crate::chance::Chance;
use crate::history::{History, OpKind, RangeArgs, Row};
use crate::network::PipeKey;
use crate::options::{Options, SECOND};
use crate::queue::Event;
use crate::rights::{Ledger, Needs};
use crate::world::World;
use calls::{Call, Session};
use guests::Guest;
use leases::{Holder, Promises};
use logins::Proving;
use raftd::kv::Asker;
use raftd::types::{Credential, NodeId};
use raftd::wire::client::Op;
use saves::Save;
use std::collections::{BTreeMap, BTreeSet};
use watching::Watchers;

/// How long an op is worth anything to anybody.
const OP_NS: u64 = 4 * SECOND;

/// What a guest asks is asked once: it is no op that is wanted until it is done.
const GUEST_OP: u64 = 0;

/// A connection of a client.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) pipe: PipeKey,
    input: Vec<u8>,
    greeted: bool,
    /// What was asked on it and not answered.
    unanswered: BTreeSet<u64>,
    /// Who the server has said it is.
    login: Credential,
    /// A login that is under way.
    proving: Option<Proving>,
}

/// What a client wants.
#[derive(Debug)]
struct Wanted {
    kind: OpKind,
    deadline: u64,
    tries: u32,
    /// Attempts with an unknown outcome.
    unknown: u32,
    /// It is tried again later. No more than once for all answers: a request that went to two
    /// nodes, each of which is busy, would double with every try.
    retried: bool,
    /// If it is a call of a session.
    call: Option<Call>,
    /// The only node that is asked, if there is one.
    of: Option<usize>,
    /// The store was too full for it at least once.
    over_quota: bool,
}

impl Wanted {
    fn new(kind: OpKind, deadline: u64) -> Wanted {
        Wanted {
            kind,
            deadline,
            tries: 0,
            unknown: 0,
            retried: false,
            call: None,
            of: None,
            over_quota: false,
        }
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Attempt {
    op: u64,
    node: usize,
    pipe: PipeKey,
    /// Its row in the history.
    row: usize,
    /// The largest revision that anybody had been told when it was sent.
    floor: u64,
    /// Whether the node asked led then.
    led: bool,
    /// Which of its starts was asked.
    boot: u32,
    /// Whether it is one of a call.
    of_call: bool,
    /// Whether it is a range of the newest revision.
    reads_now: bool,
    /// What the parts of its answer brought so far.
    rows: Vec<Row>,
    /// Who asks, if the client knows what the server knows of that, and what it takes.
    asker: Option<Asker>,
    needs: Needs,
    /// The earliest moment that it can be judged by.
    moment: usize,
}

#[derive(Debug)]
pub(crate) struct Client {
    chance: Chance,
    lines: Vec<Option<Line>>,
    /// A connection on which nonsense was said.
    nonsense: Option<Line>,
    /// Whom it takes for the leader.
    prefers: usize,
    wanted: BTreeMap<u64, Wanted>,
    attempts: BTreeMap<u64, Attempt>,
    requests: u64,
    /// The newest is used for new calls.
    sessions: Vec<Session>,
    /// The request for one.
    opening: Option<u64>,
    /// Requests about the cluster itself.
    errands: BTreeMap<u64, Op>,
    /// Handovers that were asked for and not answered, however long ago, and over which pipe.
    handovers: BTreeMap<u64, PipeKey>,
    /// Who is to be removed by requests that were not answered; they may arrive yet.
    leaving: BTreeMap<u64, NodeId>,
    /// And who is to become a voter.
    rising: BTreeMap<u64, NodeId>,
    /// Snapshots on their way.
    saves: BTreeMap<u64, Save>,
    holder: Holder,
    watchers: Watchers,
    guest: Guest,
}

impl Client {
    /// Takes `node` for the leader.
    pub(crate) fn prefer(&mut self, node: usize) {
        self.prefers = node;
    }
}

/// Those of the ops that go into the log: reads alone would make a cluster look well in which
/// nobody can write. A condition that did not hold was answered all the same, from the log.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Changes {
    pub(crate) begun: u64,
    pub(crate) done: u64,
    /// Not done, for the store was full when somebody answered. That is as it should be.
    pub(crate) over_quota: u64,
}

impl Changes {
    /// How many should have been done.
    pub(crate) fn due(&self) -> u64 {
        self.begun - self.over_quota
    }

    /// How many of them were, in a hundred.
    pub(crate) fn percent(&self) -> u64 {
        self.done * 100 / self.due().max(1)
    }

    pub(crate) fn add(&mut self, other: Changes) {
        self.begun += other.begun;
        self.done += other.done;
        self.over_quota += other.over_quota;
    }
}

/// All clients, and what they know together.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) clients: Vec<Client>,
    pub(crate) history: History,
    /// Ops begun, and ops answered as asked.
    pub(crate) issued: u64,
    pub(crate) committed: u64,
    pub(crate) changes: Changes,
    ops: u64,
    values: u64,
    /// The largest revision that anybody was told.
    pub(crate) told: u64,
    /// The last change of each key, as far as anybody was told; 0: it is gone.
    known: BTreeMap<Vec<u8>, u64>,
    pub(crate) promises: Promises,
    pub(crate) ledger: Ledger,
    pub(crate) asking: bool,
    /// Attempts with an unknown outcome before a client gives an op up.
    pub(crate) patience: u32,
    /// The nodes that clients speak to.
    pub(crate) reach: Vec<usize>,
    every_ns: u64,
}

impl Crowd {
    pub(crate) fn new(seed: u64, options: &Options) -> Crowd {
        let count = u64::from(options.clients.count);
        let mut chance = Chance::of(seed, "workload");
        let mut watching = Chance::of(seed, "watching");
        let mut guests = Chance::of(seed, "guests");
        let mut client = |_| Client {
            chance: chance.split(),
            lines: (0..options.machines()).map(|_| None).collect(),
            nonsense: None,
            prefers: chance.index(options.machines()),
            wanted: BTreeMap::new(),
            attempts: BTreeMap::new(),
            requests: 0,
            sessions: Vec::new(),
            opening: None,
            errands: BTreeMap::new(),
            handovers: BTreeMap::new(),
            leaving: BTreeMap::new(),
            rising: BTreeMap::new(),
            saves: BTreeMap::new(),
            holder: Holder::default(),
            watchers: Watchers::new(watching.split()),
            guest: Guest::new(guests.split()),
        };
        Crowd {
            clients: (0..count).map(&mut client).collect(),
            history: History::default(),
            issued: 0,
            committed: 0,
            changes: Changes::default(),
            ops: 0,
            values: 0,
            told: 1,
            known: BTreeMap::new(),
            promises: Promises::default(),
            ledger: Ledger::new(),
            asking: true,
            patience: 2,
            reach: (0..options.machines()).collect(),
            every_ns: count * SECOND / options.clients.per_second,
        }
    }

    /// Whether more than `percent` of the ops begun were answered, and of the changes among them as
    /// many done. Young runs count as well.
    pub(crate) fn is_served(&self, percent: u64) -> bool {
        let answered = self.committed * 100 >= self.issued * percent;
        let done = self.changes.done * 100 >= self.changes.due() * percent;
        self.issued < 60 || (answered && done)
    }
}

impl World {
    pub(crate) fn start_clients(&mut self) {
        for client in 0..self.crowd.clients.len() {
            let at = self.crowd.clients[client].chance.below(self.crowd.every_ns);
            self.queue.at(at, Event::Ask { client });
        }
        self.start_watching();
    }

    /// A client wants something, and will want something again.
    pub(crate) fn on_ask(&mut self, client: usize) {
        if !self.crowd.asking {
            return;
        }
        self.network.gentle = !self.is_hostile();
        let every = self.crowd.every_ns;
        let wait = every / 2 + self.crowd.clients[client].chance.below(every);
        self.queue.at(self.now + wait, Event::Ask { client });
        let kind = self.choose_op(client);
        self.want(client, kind, self.now + OP_NS);
        let share = self.options.clients.leases;
        if share > 0 && self.crowd.clients[client].chance.below(100) < share {
            self.ask_about_leases(client);
        }
        let share = self.options.clients.rights;
        if share > 0 && self.crowd.clients[client].guest.chance.below(100) < share {
            if self.crowd.clients[client].guest.chance.one_in(5) {
                self.change_rights(client);
            } else {
                self.act_as_guest(client);
            }
        }
        let garbage = self.options.clients.garbage;
        if self.crowd.clients[client].chance.hit(garbage) {
            self.talk_nonsense(client);
        }
    }

    pub(crate) fn want(&mut self, client: usize, kind: OpKind, deadline: u64) -> u64 {
        self.crowd.issued += 1;
        self.crowd.ops += 1;
        let op = self.crowd.ops;
        self.crowd.changes.begun += u64::from(matches!(kind, OpKind::Change(_)));
        let mut wanted = Wanted::new(kind, deadline);
        self.make_call(client, &mut wanted);
        self.crowd.clients[client].wanted.insert(op, wanted);
        self.attempt(client, op);
        op
    }

    /// A client wants to read from this node and from no other.
    pub(crate) fn want_of(&mut self, client: usize, node: usize, deadline: u64) {
        self.crowd.issued += 1;
        self.crowd.ops += 1;
        let op = self.crowd.ops;
        let args = RangeArgs { key: b"alive".to_vec(), ..RangeArgs::default() };
        let kind = OpKind::Range(args);
        let wanted = Wanted { of: Some(node), ..Wanted::new(kind, deadline) };
        self.crowd.clients[client].wanted.insert(op, wanted);
        self.attempt(client, op);
    }

    /// A request over a connection that its node has too, and has not answered: the client, the
    /// node and the request.
    pub(crate) fn unanswered(&self) -> Option<(usize, usize, u64)> {
        let has = |machine: usize, pipe: PipeKey| {
            let it = &self.machines[machine];
            let there = it.sockets.iter().flatten().any(|socket| socket.pipe == pipe);
            there && it.node.is_some() && it.dead.is_none()
        };
        let clients = self.crowd.clients.iter().enumerate();
        let mut lines = clients.flat_map(|(client, it)| {
            let lines = it.lines.iter().enumerate();
            let lines = lines.chain([(it.guest.node, &it.guest.line)]);
            lines.filter_map(move |(node, line)| Some((client, node, line.as_ref()?)))
        });
        lines.find_map(|(client, node, line)| {
            let request = line.unanswered.first().filter(|_| has(node, line.pipe))?;
            Some((client, node, *request))
        })
    }

    /// Nobody waits for answers any more.
    pub(crate) fn stop_asking(&mut self) {
        self.crowd.asking = false;
        for client in &mut self.crowd.clients {
            client.wanted.clear();
            client.attempts.clear();
            client.holder.stop();
            client.guest.stop();
            client.sessions.iter_mut().for_each(Session::give_up);
        }
    }
}
