//! The cluster that a script drives: real cores, a network that does as it is told, one clock.
//!
//! In calm weather everything that can happen does, in the order in which it was caused: messages
//! arrive, syncs end. Time stands still until a line of the script moves it, and only the server
//! that the line names looks at its deadlines. So a script says what goes wrong and nothing else.
//! After every event the oracles of `oracles.rs` look at all servers and all disks.

use super::print::{describe, kind, leaving};
use crate::raft::oracles::Oracle;
use crate::raft::server::{Disk, Entry, Packet, Server, at, disk, id, length, settings, upto};
use raftd::raft::message::{Message, SnapshotOutcome};
use raftd::raft::{Dropped, Install, NotLeader, PieceVerdict, Raft, ReadTicket};
use raftd::types::{Instant, LogIndex, LogPosition, NodeId, SnapshotId};
use std::collections::{BTreeMap, VecDeque};

/// More events than a calm cluster of five can have without time passing.
const EVENTS_MAX: usize = 20_000;

/// One machine: its disk outlives its server.
pub(super) struct Machine {
    pub(super) server: Option<Server>,
    /// What the disk holds while the server is down.
    pub(super) disk: Option<Disk>,
    sync_held: bool,
}

enum Event {
    Arrives(Packet),
    SyncEnds(NodeId),
}

/// A link one way and, if not all, the kind of message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lane {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) kind: Option<String>,
}

impl Lane {
    pub(super) fn carries(&self, packet: &Packet) -> bool {
        let of_kind = self.kind.as_deref().is_none_or(|kind_| kind_ == kind(&packet.message));
        self.from == packet.from && self.to == packet.to && of_kind
    }
}

/// A way to ask for a read.
pub(super) type Ask = fn(&mut Raft) -> Result<ReadTicket, NotLeader>;

/// What became of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Read {
    Waits,
    Answered(Result<LogIndex, Dropped>),
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) machines: Vec<Machine>,
    pub(super) held: Vec<Packet>,
    pub(super) holds: Vec<Lane>,
    pub(super) cuts: Vec<Lane>,
    pub(super) oracle: Oracle,
    /// The words put, by the value that stands for each.
    pub(super) words: BTreeMap<u64, String>,
    /// By the name that the script gave.
    pub(super) reads: BTreeMap<String, (NodeId, Read)>,
    asked: BTreeMap<(NodeId, ReadTicket), (String, LogIndex)>,
    pub(super) refused: bool,
    pub(super) transcript: Vec<String>,
    /// Say only what changed, not who told whom.
    pub(super) quiet: bool,
    pub(super) entries_max: usize,
    /// Servers state how far their clocks may drift, and so have leases.
    pub(super) leases: bool,
    founders: u64,
    events: VecDeque<Event>,
    sessions: BTreeMap<(NodeId, NodeId), u64>,
    session: u64,
    starts: u64,
}

impl World {
    pub(super) fn new() -> World {
        World {
            now: Instant::from_ns(1_000_000_000_000),
            machines: Vec::new(),
            held: Vec::new(),
            holds: Vec::new(),
            cuts: Vec::new(),
            oracle: Oracle::default(),
            words: BTreeMap::new(),
            reads: BTreeMap::new(),
            asked: BTreeMap::new(),
            refused: false,
            transcript: Vec::new(),
            quiet: false,
            entries_max: 20,
            leases: false,
            founders: 0,
            events: VecDeque::new(),
            sessions: BTreeMap::new(),
            session: 0,
            starts: 0,
        }
    }

    pub(super) fn say(&mut self, line: String) {
        self.transcript.push(line);
    }

    /// As many machines, each with a disk that holds the bootstrap's entry and nothing running.
    pub(super) fn build(&mut self, voters: u64) {
        self.founders = voters;
        for _ in 0..voters {
            self.add_machine(disk(&[1]));
        }
    }

    /// One more, with this disk and nothing running.
    pub(super) fn add_machine(&mut self, disk: Disk) {
        self.machines.push(Machine { server: None, disk: Some(disk), sync_held: false });
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        let voters = u64::try_from(self.machines.len()).expect("small");
        (1..=voters).map(id).collect()
    }

    pub(super) fn machine(&mut self, node: NodeId) -> &mut Machine {
        let slot = usize::try_from(node.get() - 1).expect("small");
        self.machines.get_mut(slot).unwrap_or_else(|| panic!("there is no {node}"))
    }

    pub(super) fn server(&mut self, node: NodeId) -> &mut Server {
        self.machine(node).server.as_mut().unwrap_or_else(|| panic!("{node} is down"))
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.machines[usize::try_from(node.get() - 1).expect("small")].server.is_some()
    }

    pub(super) fn start(&mut self, node: NodeId) {
        let voters = self.founders;
        self.starts += 1;
        let mut settings = settings(node.get());
        settings.seed = 100 * self.starts + node.get();
        settings.append_entries_max = self.entries_max;
        settings.lease_drift_ppm = self.leases.then_some(10_000);
        let now = self.now;
        let machine = self.machine(node);
        let disk = machine.disk.take().unwrap_or_else(|| panic!("{node} is up already"));
        machine.server = Some(Server::start(settings, voters, disk, now));
        for other in self.ids() {
            self.connect(node, other);
            self.connect(other, node);
        }
        self.end_all_turns();
    }

    /// The power goes: what was not synced is lost, but of the job in flight the first `survive`
    /// writes.
    pub(super) fn crash(&mut self, node: NodeId, survive: usize) {
        let machine = self.machine(node);
        let server = machine.server.take().unwrap_or_else(|| panic!("{node} is down already"));
        machine.disk = Some(server.power_loss(survive));
        self.events.retain(|event| !matches!(event, Event::SyncEnds(at) if *at == node));
        let asked: Vec<_> = self.asked.keys().filter(|key| key.0 == node).copied().collect();
        for key in asked {
            self.asked.remove(&key);
        }
    }

    /// A new connection: messages under way may still arrive, but are known to be older.
    pub(super) fn connect(&mut self, from: NodeId, to: NodeId) {
        if from != to && self.is_up(from) && self.is_up(to) {
            self.session += 1;
            let session = self.session;
            self.sessions.insert((from, to), session);
            self.server(from).raft.connected(to, session);
        }
    }

    /// Lets everybody act on new connections.
    pub(super) fn end_all_turns(&mut self) {
        for node in self.ids() {
            if self.is_up(node) {
                let (log, commit) = self.before(node);
                self.end_turn(node, &log, commit);
            }
        }
    }

    pub(super) fn session(&self, from: NodeId, to: NodeId) -> u64 {
        self.sessions.get(&(from, to)).copied().unwrap_or(0)
    }

    /// Everything that can happen without a line of the script happens.
    pub(super) fn run(&mut self) {
        for _ in 0..EVENTS_MAX {
            match self.events.pop_front() {
                Some(Event::Arrives(packet)) => self.arrive(&packet),
                Some(Event::SyncEnds(node)) => self.end_sync(node),
                None => return,
            }
        }
        panic!("the cluster does not come to rest");
    }

    fn arrive(&mut self, packet: &Packet) {
        if self.is_up(packet.to) {
            let (log, commit) = self.before(packet.to);
            let now = self.now;
            self.server(packet.to).step(now, packet);
            if let Message::InstallSnapshot { snapshot, .. } = &packet.message {
                self.take_snapshot(packet, *snapshot);
            }
            self.end_turn(packet.to, &log, commit);
        }
    }

    /// What a node does with the last piece of a snapshot that its core wants.
    fn take_snapshot(&mut self, packet: &Packet, snapshot: SnapshotId) {
        let now = self.now;
        let server = self.server(packet.to);
        let outcome = match server.raft.output().snapshot.take() {
            None => return,
            Some(PieceVerdict::Superfluous) => SnapshotOutcome::Installed,
            Some(PieceVerdict::Keep) => match server.install(now, &packet.entries) {
                Install::Now(_) => SnapshotOutcome::Installed,
                Install::Never => SnapshotOutcome::Refused,
                Install::Later => panic!("what it ends at is in the log, and not durable"),
            },
        };
        server.raft.answer_piece(packet.from, snapshot, outcome);
    }

    /// What was held arrives, now that the script says so.
    pub(super) fn deliver(&mut self, packet: &Packet) {
        let line = format!("{} hears {}", packet.to, describe(packet, None));
        self.say(line);
        self.arrive(packet);
        self.run();
    }

    pub(super) fn before(&mut self, node: NodeId) -> (Vec<Entry>, LogIndex) {
        let server = self.server(node);
        (server.log.clone(), server.raft.commit_index())
    }

    pub(super) fn tick(&mut self, node: NodeId) {
        let (log, commit) = self.before(node);
        let now = self.now;
        self.server(node).tick(now);
        self.end_turn(node, &log, commit);
    }

    pub(super) fn hold_sync(&mut self, node: NodeId) {
        self.machine(node).sync_held = true;
    }

    pub(super) fn release_sync(&mut self, node: NodeId) {
        self.machine(node).sync_held = false;
        if self.is_up(node) && self.server(node).has_job_in_flight() {
            self.end_sync(node);
        }
        self.run();
    }

    /// The job in flight becomes durable.
    pub(super) fn end_sync(&mut self, node: NodeId) {
        let (log, commit) = self.before(node);
        let now = self.now;
        let server = self.server(node);
        let before = server.disk.hard_state;
        server.finish_job(now);
        let (after, last) = (server.disk.hard_state, last_of(&server.disk.entries));
        let changed = if before == after {
            String::new()
        } else {
            format!(" term={} vote={}", after.term, super::print::vote(after.vote))
        };
        if !self.quiet {
            let name = self.name(node);
            self.say(format!("{name} synced {last}{changed}"));
        }
        self.end_turn(node, &log, commit);
    }

    fn name(&mut self, node: NodeId) -> String {
        let term = self.server(node).raft.term();
        format!("{node}@{term}")
    }

    /// Settles a server, prints what it did since `log` and `commit`, starts its sync, sends its
    /// messages, and has the oracles look at everybody.
    pub(super) fn end_turn(&mut self, node: NodeId, log: &[Entry], commit: LogIndex) {
        let now = self.now;
        let server = self.server(node);
        server.raft.settle(now);
        server.step_output();
        while server.continue_reconfiguration(now) {
            server.raft.settle(now);
            server.step_output();
        }
        server.now = now;
        let started = server.begin_job();
        let packets = std::mem::take(&mut server.sent);
        let name = self.name(node);
        for notice in self.server(node).notices.clone() {
            self.say(format!("{name} {}", super::print::notice(&notice)));
        }
        self.print_log(node, &name, log);
        let committed = self.server(node).raft.commit_index();
        if committed > commit {
            self.say(format!("{name} commit {committed}"));
        }
        self.take_reads(node, &name);
        for packet in packets {
            self.send(packet);
        }
        if started && !self.machine(node).sync_held {
            self.events.push_back(Event::SyncEnds(node));
        }
        self.look(node);
    }

    fn print_log(&mut self, node: NodeId, name: &str, before: &[Entry]) {
        let server = self.server(node);
        let after = server.log.clone();
        let same = before.iter().zip(&after).take_while(|(old, new)| old == new).count();
        if same < before.len() {
            self.say(format!("{name} truncate to {}", last_of(&after[..same])));
        }
        if same < after.len() {
            let place = |nth: usize| last_of(&after[..=nth]);
            let words = (same..after.len()).map(|nth| {
                let word = self.words.get(&after[nth].value);
                match (word, after[nth].configuration) {
                    (Some(word), _) => format!(" {} {word}", place(nth)),
                    (None, None) => format!(" {}", place(nth)),
                    (None, Some(configuration)) => {
                        format!(" {} members {}", place(nth), super::members::print(configuration))
                    }
                }
            });
            let line = format!("{name} append{}", words.collect::<String>());
            self.say(line);
        }
    }

    fn take_reads(&mut self, node: NodeId, name: &str) {
        for ready in std::mem::take(&mut self.server(node).reads) {
            let asked = self.asked.remove(&(node, ready.ticket));
            let (read, known) = asked.expect("asked once, answered once");
            let line = match ready.result {
                Ok(index) => {
                    assert!(index >= known, "{read} misses {known}, committed before it began");
                    format!("{name} answers {read} at {index}")
                }
                Err(Dropped) => format!("{name} drops {read}"),
            };
            self.say(line);
            self.reads.insert(read, (node, Read::Answered(ready.result)));
        }
    }

    /// Asks for a read. It must see everything that anybody knows to be committed now.
    pub(super) fn read(&mut self, node: NodeId, read: &str, ask: Ask) -> bool {
        let (log, commit) = self.before(node);
        let known = self.oracle.commit_index();
        match ask(&mut self.server(node).raft) {
            Ok(ticket) => {
                self.asked.insert((node, ticket), (read.to_owned(), known));
                self.reads.insert(read.to_owned(), (node, Read::Waits));
                self.end_turn(node, &log, commit);
                self.run();
                true
            }
            Err(why) => {
                self.say(format!("{node} refuses: {why}"));
                false
            }
        }
    }

    pub(super) fn send(&mut self, packet: Packet) {
        let cut = self.cuts.iter().any(|lane| lane.carries(&packet));
        let hold = self.holds.iter().any(|lane| lane.carries(&packet));
        let fate = match (cut, hold, self.is_up(packet.to)) {
            (true, _, _) | (false, false, false) => Some("lost"),
            (false, true, _) => Some("held"),
            (false, false, true) => None,
        };
        if !self.quiet || hold {
            let line = leaving(&packet, fate);
            self.say(line);
        }
        match fate {
            Some("lost") => {}
            Some(_held) => self.held.push(packet),
            None => self.events.push_back(Event::Arrives(packet)),
        }
    }

    pub(super) fn enqueue(&mut self, packet: Packet) {
        self.events.push_back(Event::Arrives(packet));
    }

    /// The properties of Figure 3, over all servers and all disks.
    fn look(&mut self, node: NodeId) {
        let disks: Vec<Vec<Entry>> = self.machines.iter().map(|it| it.disk().to_vec()).collect();
        let disks: Vec<&[Entry]> = disks.iter().map(Vec::as_slice).collect();
        let slot = usize::try_from(node.get() - 1).expect("small");
        let server = self.machines[slot].server.as_mut().expect("it has just had a turn");
        self.oracle.observe(server, &disks);
        let servers: Vec<&Server> =
            self.machines.iter().filter_map(|machine| machine.server.as_ref()).collect();
        self.oracle.observe_all(&servers);
    }

    /// All servers look at their clocks for as long, everything else taking no time.
    pub(super) fn pass(&mut self, ns: u64) {
        let until = self.now.after_ns(ns);
        for _ in 0..EVENTS_MAX {
            let due = |node: &NodeId| {
                let slot = usize::try_from(node.get() - 1).expect("small");
                let server = self.machines[slot].server.as_ref()?;
                Some((server.raft.wake_at(), *node))
            };
            let next = self.ids().iter().filter_map(due).min();
            let Some((wake_at, node)) = next.filter(|(wake_at, _)| *wake_at <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(wake_at);
            self.tick(node);
            self.run();
        }
        panic!("deadlines do not move on");
    }
}

impl Machine {
    /// What a power loss now would leave.
    pub(super) fn disk(&self) -> &[Entry] {
        match (&self.server, &self.disk) {
            (Some(server), _) => &server.disk.entries,
            (None, Some(disk)) => &disk.entries,
            (None, None) => &[],
        }
    }
}

/// The position of the last of `entries`, which start at index 1.
pub(super) fn last_of(entries: &[Entry]) -> LogPosition {
    match entries.last() {
        Some(entry) => LogPosition::new(entry.meta.term, length(entries)),
        None => LogPosition::ZERO,
    }
}

/// The entries in `(after, last]`.
pub(super) fn stretch(entries: &[Entry], after: u64, last: u64) -> Vec<Entry> {
    let skip = upto(entries, at(after)).len();
    upto(entries, at(last))[skip..].to_vec()
}
