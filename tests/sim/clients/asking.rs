//! What clients ask, and whom.

use super::txns::{Known, some_txn};
use super::{Attempt, Client, Line};
use crate::chance::{Chance, u64_of};
use crate::coverage::Point;
use crate::history::product::{as_txn, of_the_store, with_options};
use crate::history::{self, Command, Consistency, Op, OpKind, Outcome};
use crate::network::{End, PipeKey};
use crate::options::MS;
use crate::queue::Event;
use crate::rights::Needs;
use crate::trace::{Who, say};
use crate::world::World;
use raftd::types::{ClusterId, Credential, Revision};
use raftd::wire::client::{self as wire, RangeArgs, SessionCall};
use raftd::wire::hello::{Hello, Sender, encode_hello};
use std::collections::BTreeSet;

/// A request, and where it stands in the history.
pub(super) struct Asked {
    pub(super) kind: OpKind,
    pub(super) row: usize,
    /// The largest revision that anybody had been told before.
    pub(super) floor: u64,
    pub(super) call: Option<SessionCall>,
}

pub(super) fn key(chance: &mut Chance, keys: u64) -> Vec<u8> {
    // The smaller of two draws: low keys are hot.
    let hot = chance.below(keys).min(chance.below(keys));
    format!("k{hot:03}").into_bytes()
}

impl World {
    pub(super) fn choose_op(&mut self, client: usize) -> OpKind {
        let options = self.options.clients.clone();
        let told = self.crowd.told;
        let chance = &mut self.crowd.clients[client].chance;
        let drawn = chance.below(100);
        let name = key(chance, options.keys);
        if drawn < options.puts && chance.below(100) < options.conditions {
            let told = self.crowd.known.get(&name).copied().unwrap_or(0);
            // Sometimes it is about to become true.
            let mod_revision = if chance.one_in(8) { told + 1 } else { told };
            return OpKind::Change(Command::PutIf { key: name, value: Vec::new(), mod_revision });
        }
        if drawn < options.puts && chance.below(100) < options.txns {
            let (changes, values) = (&self.crowd.known, self.crowd.values);
            let known = Known { keys: options.keys, changes, values };
            if let Some(txn) = some_txn(chance, &known) {
                return OpKind::Change(Command::Txn(txn));
            }
        }
        if drawn < options.puts {
            return OpKind::Change(Command::Put { key: name, value: Vec::new() });
        }
        let mut args = history::RangeArgs { key: name, ..history::RangeArgs::default() };
        if chance.below(100) < options.serializable {
            args.consistency = Consistency::Serializable;
        }
        let drawn = drawn - options.puts;
        if drawn < options.gets {
            if chance.one_in(8) {
                args.revision = (told + 4).saturating_sub(chance.below(80)).max(1);
            }
            return OpKind::Range(args);
        }
        args.end = if chance.one_in(3) { vec![0] } else { key(chance, options.keys) };
        if drawn - options.gets < options.ranges {
            args.limit = if chance.one_in(3) { chance.between(1, 4) } else { 0 };
            args.keys_only = chance.one_in(4);
            args.count_only = chance.one_in(8);
            if chance.one_in(8) {
                args.revision = (told + 4).saturating_sub(chance.below(80)).max(1);
            }
            return OpKind::Range(args);
        }
        let end = if chance.one_in(6) { args.end } else { Vec::new() };
        OpKind::Change(Command::Delete { key: args.key, end })
    }

    /// Asks for an op, on a connection that is there or made.
    pub(crate) fn attempt(&mut self, client: usize, op: u64) {
        let Some(wanted) = self.crowd.clients[client].wanted.get_mut(&op) else { return };
        if wanted.deadline <= self.now {
            return self.no_longer_wanted(client, op);
        }
        wanted.tries += 1;
        wanted.retried = false;
        let (call, of) = (wanted.call, wanted.of);
        let mut kind = wanted.kind.clone();
        let node = of.unwrap_or_else(|| self.choose_node(client, &kind));
        if !self.has_line(client, node) {
            let it = &mut self.crowd.clients[client];
            it.prefers = it.chance.pick(&self.crowd.reach);
            return self.retry(client, op);
        }
        if let Some(call) = call {
            return self.ask_call(client, op, node, (call, kind));
        }
        self.give_value(client, &mut kind);
        let row = self.new_row(client, node, kind.clone());
        self.ask(client, op, node, Asked { kind, row, floor: self.crowd.told, call: None });
    }

    pub(super) fn give_value(&mut self, client: usize, kind: &mut OpKind) {
        if let OpKind::Change(Command::Put { value, .. } | Command::PutIf { value, .. }) = kind {
            *value = self.new_value(client);
        }
        if let OpKind::Change(Command::Txn(txn)) = kind {
            txn.values_mut(&mut |value| *value = self.new_value(client));
        }
    }

    /// Begins a row of the history.
    pub(super) fn new_row(&mut self, client: usize, node: usize, kind: OpKind) -> usize {
        self.crowd.history.ops.push(Op {
            client: u32::try_from(client).expect("few clients"),
            node: u32::try_from(node + 1).expect("few nodes"),
            boot: self.machines[node].boot,
            call: self.now,
            ret: None,
            kind,
            outcome: Outcome::Unknown,
            saw: None,
        });
        self.crowd.history.ops.len() - 1
    }

    fn choose_node(&mut self, client: usize, kind: &OpKind) -> usize {
        let it = &mut self.crowd.clients[client];
        match kind {
            OpKind::Range(args) if args.consistency == Consistency::Serializable => {
                it.chance.pick(&self.crowd.reach)
            }
            // Followers read as well; and sometimes it does not ask whom it takes for the leader.
            OpKind::Range(_) if it.chance.one_in(4) => it.chance.pick(&self.crowd.reach),
            OpKind::Change(_) if it.chance.one_in(40) => it.chance.pick(&self.crowd.reach),
            OpKind::Range(_) | OpKind::Change(_) => it.prefers,
        }
    }

    pub(super) fn new_value(&mut self, client: usize) -> Vec<u8> {
        self.crowd.values += 1;
        let mut value = format!("v{}", self.crowd.values).into_bytes();
        let most = self.options.clients.value_bytes;
        let more = self.crowd.clients[client].chance.below(most);
        value.resize(value.len() + usize::try_from(more).expect("small"), b'.');
        value
    }

    pub(super) fn ask(&mut self, client: usize, op: u64, node: usize, asked: Asked) {
        let Asked { mut kind, row, floor, call } = asked;
        let led = self.proof.seen[node].leads.is_some();
        let seen = &self.proof.seen[node];
        if let (Some(term), OpKind::Range(args)) = (seen.leads, &kind)
            && args.consistency == Consistency::Linearizable
        {
            let committed = seen.chain.at(seen.commit).map(|link| link.term);
            self.coverage.hit_if(committed != Some(term), Point::ReadBeforeNoOp);
        }
        let boot = self.machines[node].boot;
        let it = &mut self.crowd.clients[client];
        let request = it.requests + 1;
        let pipe = it.lines[node].as_ref().expect("it was just made sure of").pipe;
        self.weaken(&mut kind, row, request);
        let mut bytes = Vec::new();
        encode(&mut bytes, request, call, &kind);
        say!(self, Who::Client(client), "ask", "n{} #{request} {}", node + 1, Shown(&kind));
        let reads_now = matches!(&kind, OpKind::Range(args) if args.revision == 0);
        let (of_call, rows) = (call.is_some(), Vec::new());
        let stale = matches!(&kind, OpKind::Range(args)
            if args.consistency != Consistency::Linearizable);
        let asker = self.usual_asker(client, node);
        let (needs, moment) = (Needs::default(), self.rights_floor(node, !stale));
        let attempt = Attempt {
            op,
            node,
            pipe,
            row,
            floor,
            led,
            boot,
            of_call,
            reads_now,
            rows,
            asker,
            needs,
            moment,
        };
        self.crowd.clients[client].attempts.insert(request, attempt);
        self.send_request(client, pipe, bytes);
    }

    /// What a read by a lease promises, where clocks break the bound that leases rest on.
    pub(super) fn weaken(&mut self, kind: &mut OpKind, row: usize, request: u64) {
        if let OpKind::Range(args) = kind
            && args.consistency == Consistency::Linearizable
            && is_by_lease(request)
            && !self.options.clocks_keep_bound()
        {
            args.consistency = Consistency::UnboundLease;
            self.crowd.history.ops[row].kind = kind.clone();
            self.coverage.hit(Point::LeaseReadUnbound);
        }
    }

    /// Sends the client's next request and begins to wait for its answer.
    pub(super) fn send_request(&mut self, client: usize, pipe: PipeKey, bytes: Vec<u8>) -> u64 {
        self.crowd.clients[client].requests += 1;
        let request = self.crowd.clients[client].requests;
        let line = self.crowd.clients[client].line_mut(pipe).expect("it asks on one of its own");
        line.unanswered.insert(request);
        let patience = self.options.clients.timeout_ns;
        self.queue.at(self.now + patience, Event::Timeout { client, request });
        self.send(pipe, 0, bytes);
        request
    }

    /// Whether the client has, or now gets, a connection to a node.
    pub(super) fn has_line(&mut self, client: usize, node: usize) -> bool {
        if self.crowd.clients[client].lines[node].is_some() {
            return true;
        }
        let Some(line) = self.connect(client, node) else { return false };
        let pipe = line.pipe;
        self.crowd.clients[client].lines[node] = Some(line);
        self.log_in_as_root(client, pipe);
        true
    }

    pub(super) fn connect(&mut self, client: usize, node: usize) -> Option<Line> {
        let place = self.machines.len();
        let cut = self.network.links.is_cut(place, node) || self.network.links.is_cut(node, place);
        if cut || self.machines[node].node.is_none() {
            return None;
        }
        let id = self.machines[node].open_socket();
        let ends = [End::Client { client }, End::Node { machine: node, connection: id }];
        let pipe = self.network.pipes.add(ends);
        self.machines[node].enter(id, pipe, 1);
        self.machines[node].inbox.push_back(crate::machine::Input::Accepted(id));
        self.wake(node, self.now);
        let mut bytes = Vec::new();
        encode_hello(
            &mut bytes,
            &Hello {
                version_min: 1,
                version_max: 1,
                cluster_id: ClusterId(0),
                sender: Sender::Client,
                auth: Vec::new(),
            },
        );
        self.send(pipe, 0, bytes);
        let (input, unanswered) = (Vec::new(), BTreeSet::new());
        let (login, proving) = (Credential::NONE, None);
        Some(Line { pipe, input, greeted: false, unanswered, login, proving })
    }

    /// An attempt came to nothing that anybody knows of: a client that insists would drown the
    /// cluster in its own repetitions.
    pub(super) fn retry_unknown(&mut self, client: usize, op: u64) {
        let Some(wanted) = self.crowd.clients[client].wanted.get_mut(&op) else { return };
        wanted.unknown += 1;
        wanted.tries += 2;
        if wanted.unknown > self.crowd.patience {
            self.no_longer_wanted(client, op);
        } else {
            self.retry(client, op);
        }
    }

    /// Tries an op again in a while.
    pub(super) fn retry(&mut self, client: usize, op: u64) {
        let calm = self.faults.calm;
        let election = self.options.election_timeout_ns;
        let it = &mut self.crowd.clients[client];
        let Some(wanted) = it.wanted.get_mut(&op) else { return };
        if std::mem::replace(&mut wanted.retried, true) {
            return;
        }
        let tries = wanted.tries.min(8);
        let most = if calm { (election / 2).max(4 * MS) } else { (8 * MS) << tries };
        let wait = it.chance.scaled(2 * MS, most);
        self.queue.at(self.now + wait, Event::Retry { client, op });
    }

    /// Says what is no request, on a connection of its own.
    pub(super) fn talk_nonsense(&mut self, client: usize) {
        let node = self.crowd.clients[client].chance.index(self.machines.len());
        if let Some(old) = self.crowd.clients[client].nonsense.take() {
            self.hang_up(old.pipe, 0);
        }
        let Some(line) = self.connect(client, node) else { return };
        let pipe = line.pipe;
        let it: &mut Client = &mut self.crowd.clients[client];
        it.nonsense = Some(line);
        let mut bytes = Vec::new();
        for _ in 0..it.chance.between(1, 40) {
            bytes.push(it.chance.draw().to_le_bytes()[0]);
        }
        if !it.chance.one_in(3) {
            // A frame at least.
            let length = u32::try_from(bytes.len()).expect("short").to_le_bytes();
            bytes.splice(0..0, length);
        }
        self.send(pipe, 0, bytes);
    }

    /// Rows of the history so far.
    pub(crate) fn attempts(&self) -> u64 {
        u64_of(self.crowd.history.ops.len())
    }
}

/// Every other linearizable read.
fn is_by_lease(request: u64) -> bool {
    request.is_multiple_of(2)
}

pub(super) fn encode(bytes: &mut Vec<u8>, request: u64, call: Option<SessionCall>, kind: &OpKind) {
    match kind {
        OpKind::Change(command) => {
            // A copy of a call must be the same command.
            let mut room = Vec::new();
            let command = if wants_to_know(command) {
                with_options(command, &mut room)
            } else {
                of_the_store(command)
            };
            wire::command_request(bytes, request, call, command);
        }
        OpKind::Range(args) => {
            let consistency = match args.consistency {
                // A lease promises no less, while the clocks keep their bound.
                Consistency::Linearizable if is_by_lease(request) => wire::Consistency::Lease,
                Consistency::UnboundLease => wire::Consistency::Lease,
                Consistency::Linearizable => wire::Consistency::Linearizable,
                Consistency::Serializable => wire::Consistency::Serializable,
            };
            if request.is_multiple_of(3) {
                let mut room = Vec::new();
                let txn = as_txn(args, &mut room);
                return wire::read_txn_request(bytes, request, consistency, txn);
            }
            let args = RangeArgs {
                key: &args.key,
                end: &args.end,
                limit: args.limit,
                revision: Revision(args.revision),
                consistency,
                keys_only: args.keys_only,
                count_only: args.count_only,
                selection: wire::Selection::ALL,
            };
            wire::range_request(bytes, request, &args);
        }
    }
}

/// Whether a change is sent in the form that answers what was there: about every other one.
pub(super) fn wants_to_know(command: &Command) -> bool {
    let bytes = match command {
        Command::Put { value, .. } | Command::PutIf { value, .. } => value,
        Command::Delete { key, .. } => key,
        // It has no other form.
        Command::Txn(_) => return true,
        Command::Compact { .. } | Command::Lease(_) => return false,
    };
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) % 2 == 0
}

/// An op for the trace.
struct Shown<'a>(&'a OpKind);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy;
        match self.0 {
            OpKind::Change(Command::Put { key, value }) => {
                let head = &value[..value.len().min(8)];
                write!(f, "put {} {}", text(key), text(head))
            }
            OpKind::Change(Command::PutIf { key, value, mod_revision }) => {
                let head = &value[..value.len().min(8)];
                write!(f, "put {} {} if of {mod_revision}", text(key), text(head))
            }
            OpKind::Change(Command::Delete { key, end }) => {
                write!(
                    f,
                    "delete {} {}",
                    text(key),
                    if end == &[0] { "…".into() } else { text(end) }
                )
            }
            OpKind::Change(Command::Txn(txn)) => {
                let text = txn.to_string();
                write!(f, "{}", text.get(..100).unwrap_or(&text))
            }
            OpKind::Change(command @ (Command::Compact { .. } | Command::Lease(_))) => {
                write!(f, "{command}")
            }
            OpKind::Range(args) => {
                let (key, end) =
                    (text(&args.key), if args.end == [0] { "…".into() } else { text(&args.end) });
                write!(f, "range {key} {end} rev={} {:?}", args.revision, args.consistency)
            }
        }
    }
}
