//! A seeded simulator of up to five cores: messages are lost, doubled, delayed and reordered, links
//! are cut, servers freeze or lose power with what they had not synced, leaders more often than
//! others. `oracles` watches every turn; afterwards the weather clears and the cluster must agree
//! and go on. A run that committed too little is a failed run.
//!
//! `RAFT_CHAOS_SEED=17 cargo test chaos` repeats one seed; `RAFT_CHAOS_SEEDS=5000` runs more of
//! them.

use super::oracles::Oracle;
use super::server::{
    Disk, Entry, HEARTBEAT_NS, Packet, Server, TIMEOUT_NS, at, disk, id, length, settings, upto,
};
use super::weather::{Dice, MS, Weather};
use raftd::raft::message::{Message, SnapshotOutcome};
use raftd::raft::{Install, PieceVerdict, ReadTicket};
use raftd::types::{Instant, LogIndex, LogPosition, SnapshotId, Term};
use std::collections::BTreeMap;

struct World {
    dice: Dice,
    weather: Weather,
    now: Instant,
    servers: Vec<Server>,
    flying: Vec<(Instant, Packet)>,
    /// Snapshots on their way, late and double as anything else.
    shipped: Vec<Shipment>,
    syncs: Vec<Option<Instant>>,
    /// Until when each server is stopped, as by a debugger: its clock goes on.
    frozen: Vec<Instant>,
    /// Cut links, one way each.
    cut: Vec<(usize, usize)>,
    sessions: u64,
    values: u64,
    starts: u64,
    asked: BTreeMap<(usize, ReadTicket), LogIndex>,
    reads_served: u64,
    installed: u64,
    oracle: Oracle,
}

/// A snapshot of the committed `entries`, from the leader of `term`.
#[derive(Clone)]
struct Shipment {
    arrival: Instant,
    from: usize,
    to: usize,
    term: Term,
    entries: Vec<Entry>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice(seed);
        let weather = Weather::draw(&mut dice);
        let servers = weather.servers;
        let mut world = World {
            dice,
            weather,
            now: Instant::from_ns(1),
            servers: Vec::new(),
            flying: Vec::new(),
            shipped: Vec::new(),
            syncs: vec![None; servers],
            frozen: vec![Instant::ZERO; servers],
            cut: Vec::new(),
            sessions: 0,
            values: 1_000,
            starts: 0,
            asked: BTreeMap::new(),
            reads_served: 0,
            installed: 0,
            oracle: Oracle::default(),
        };
        for nth in 0..servers {
            let server = world.start(nth, disk(&[1]));
            world.servers.push(server);
        }
        for from in 0..servers {
            world.connect_all(from);
        }
        world
    }

    fn start(&mut self, nth: usize, disk: Disk) -> Server {
        let number = u64::try_from(nth).expect("small") + 1;
        self.starts += 1;
        let mut settings = settings(number);
        settings.seed = self.dice.roll(u64::MAX);
        settings.append_entries_max = self.weather.entries_max;
        settings.in_flight_messages_max = self.weather.in_flight_max;
        let voters = u64::try_from(self.weather.servers).expect("small");
        Server::start(settings, voters, disk, self.now)
    }

    fn connect_all(&mut self, from: usize) {
        for to in 0..self.servers.len() {
            self.connect(from, to);
            self.connect(to, from);
        }
    }

    fn connect(&mut self, from: usize, to: usize) {
        if from != to {
            self.sessions += 1;
            self.servers[from].raft.connected(peer(to), self.sessions);
        }
    }

    /// One turn of the world: time passes, what is due happens.
    fn turn(&mut self) {
        self.now = self.now.after_ns(1 + self.dice.roll(4 * MS));
        self.thaw();
        self.deliver();
        self.ship();
        self.unload();
        for nth in 0..self.servers.len() {
            if self.frozen[nth] > self.now {
                continue;
            }
            if self.syncs[nth].is_some_and(|done| done <= self.now) {
                self.syncs[nth] = None;
                self.servers[nth].finish_job(self.now);
                self.end_turn(nth);
            }
            if self.servers[nth].raft.wake_at() <= self.now {
                self.servers[nth].tick(self.now);
                self.end_turn(nth);
            }
        }
    }

    /// A server that wakes up may serve a client before it looks at its deadlines or its peers.
    fn thaw(&mut self) {
        for at in 0..self.servers.len() {
            if self.frozen[at] > Instant::ZERO && self.frozen[at] <= self.now {
                self.frozen[at] = Instant::ZERO;
                self.serve(at);
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let frozen = self.frozen.clone();
        let awake = |packet: &Packet| frozen[nth(packet.to)] <= now;
        let mut due: Vec<Packet> = Vec::new();
        for (_, packet) in
            self.flying.extract_if(.., |(arrival, packet)| *arrival <= now && awake(packet))
        {
            due.push(packet);
        }
        let mut unsettled = vec![false; self.servers.len()];
        while !due.is_empty() {
            let packet = due.swap_remove(self.dice.index(due.len()));
            let (from, to) = (nth(packet.from), nth(packet.to));
            if self.cut.contains(&(from, to)) {
                continue;
            }
            let tight = self.dice.once_in(self.weather.tight);
            self.servers[to].room = if tight { self.dice.roll(200) } else { 1 << 40 };
            self.servers[to].step(self.now, &packet);
            unsettled[to] = true;
            if self.dice.roll(3) > 0 {
                self.end_turn(to);
                unsettled[to] = false;
            }
        }
        for at in (0..unsettled.len()).filter(|at| unsettled[*at]) {
            self.end_turn(at);
        }
    }

    /// A leader sends a snapshot to whom it has no entries for: anything from its base to what it
    /// has durably committed.
    fn ship(&mut self) {
        for from in 0..self.servers.len() {
            let raft = &self.servers[from].raft;
            let (base, term) = (raft.base().index.get(), raft.term());
            let newest = raft.commit_index().min(raft.durable()).get();
            let waiting: Vec<usize> = raft.awaiting_snapshot().map(nth).collect();
            for to in waiting {
                let under_way = self.shipped.iter().any(|it| (it.from, it.to) == (from, to));
                if self.frozen[from] > self.now || under_way || newest < base {
                    continue;
                }
                let index = at(base + self.dice.roll(newest - base + 1));
                let entries = upto(&self.servers[from].log, index).to_vec();
                let latency = self.dice.roll(10 * self.weather.latency_ns);
                let arrival = self.now.after_ns(latency);
                let shipment = Shipment { arrival, from, to, term, entries };
                if self.dice.once_in(self.weather.double) {
                    let arrival = arrival.after_ns(self.dice.roll(5 * TIMEOUT_NS));
                    self.shipped.push(Shipment { arrival, ..shipment.clone() });
                }
                self.shipped.push(shipment);
            }
        }
    }

    /// The snapshots that have arrived are installed, or come again when the log is durable.
    fn unload(&mut self) {
        let (now, frozen) = (self.now, self.frozen.clone());
        let awake = |it: &mut Shipment| it.arrival <= now && frozen[it.to] <= now;
        let arrived: Vec<Shipment> = self.shipped.extract_if(.., awake).collect();
        for shipment in arrived {
            let Shipment { from, to, term, .. } = shipment;
            if self.cut.contains(&(from, to)) || self.dice.once_in(self.weather.loss) {
                continue;
            }
            let last = shipment.entries.last().expect("a base is behind an entry");
            let position = LogPosition::new(last.meta.term, length(&shipment.entries));
            let snapshot = SnapshotId { position, bytes: 1, crc: 0 };
            let message = Message::InstallSnapshot { term, snapshot, offset: 0, bytes: 1 };
            let (source, own) = (peer(from), peer(to));
            let packet = Packet { from: source, to: own, message, entries: Vec::new() };
            let server = &mut self.servers[to];
            server.step(now, &packet);
            match server.raft.output().snapshot.take() {
                Some(PieceVerdict::Keep) => match server.install(now, &shipment.entries) {
                    Install::Now(_) => self.installed += 1,
                    Install::Later => self.shipped.push(shipment),
                    Install::Never => {}
                },
                Some(PieceVerdict::Superfluous) => {
                    let outcome = SnapshotOutcome::Installed;
                    server.raft.answer_piece(source, snapshot, outcome);
                }
                None => {}
            }
            self.end_turn(to);
        }
    }

    /// A server forgets a part of what it has durably committed.
    fn compact(&mut self) {
        let nth = self.dice.index(self.servers.len());
        let server = &mut self.servers[nth];
        let base = server.raft.base().index.get();
        let newest = server.raft.commit_index().min(server.raft.durable()).get();
        if newest > base {
            server.compact(at(base + 1 + self.dice.roll(newest - base)));
        }
    }

    /// Settles a server, starts its sync, sends its messages, looks at it.
    fn end_turn(&mut self, at: usize) {
        let now = self.now;
        let server = &mut self.servers[at];
        server.raft.settle(now);
        server.step_output();
        if server.begin_job() {
            self.syncs[at] = Some(now.after_ns(self.dice.roll(self.weather.sync_ns)));
        }
        for packet in std::mem::take(&mut server.sent) {
            let copies = 1 + u64::from(self.dice.once_in(self.weather.double));
            for _ in 0..copies {
                if !self.dice.once_in(self.weather.loss) {
                    let latency = self.dice.roll(self.weather.latency_ns);
                    self.flying.push((now.after_ns(latency), packet.clone()));
                }
            }
        }
        for ready in std::mem::take(&mut self.servers[at].reads) {
            let asked = self.asked.remove(&(at, ready.ticket)).expect("asked once, answered once");
            if let Ok(index) = ready.result {
                assert!(index >= asked, "a read misses {asked}, which was committed before it");
                self.reads_served += 1;
            }
        }
        self.look(at);
    }

    fn look(&mut self, at: usize) {
        let (before, rest) = self.servers.split_at_mut(at);
        let (server, after) = rest.split_first_mut().expect("in range");
        let own = server.disk.entries.clone();
        let others = before.iter().chain(after.iter()).map(|it| it.disk.entries.as_slice());
        let disks: Vec<_> = others.chain([own.as_slice()]).collect();
        self.oracle.observe(server, &disks);
    }

    fn use_cluster(&mut self) {
        for at in 0..self.servers.len() {
            if self.frozen[at] <= self.now && self.dice.once_in(self.weather.propose) {
                self.serve(at);
            }
        }
    }

    /// A client writes and reads at one server, if it takes itself for the leader.
    fn serve(&mut self, at: usize) {
        if !self.servers[at].raft.is_leader() {
            return;
        }
        self.values += 1;
        let proposed = self.servers[at].propose(self.now, self.values);
        assert!(proposed.is_ok() || self.servers[at].raft.uncommitted_bytes() > 1000);
        let ticket = self.servers[at].raft.read().expect("leads");
        self.asked.insert((at, ticket), self.oracle.commit_index());
        self.end_turn(at);
    }

    /// Whom misfortune strikes: half of the time a leader.
    fn victim(&mut self) -> usize {
        let leader = self.servers.iter().position(|server| server.raft.is_leader());
        let anybody = self.dice.index(self.servers.len());
        if self.dice.once_in(2) { leader.unwrap_or(anybody) } else { anybody }
    }

    fn worsen(&mut self) {
        let servers = self.servers.len();
        if self.dice.once_in(self.weather.crash) {
            let everyone = self.dice.once_in(6);
            let victim = self.victim();
            for nth in (0..servers).filter(|nth| everyone || *nth == victim) {
                self.crash(nth);
            }
        }
        if self.dice.once_in(self.weather.cut) {
            let lonely = self.victim();
            let direction = self.dice.roll(3);
            for other in (0..servers).filter(|other| *other != lonely) {
                if direction != 1 {
                    self.cut.push((lonely, other));
                }
                if direction != 2 {
                    self.cut.push((other, lonely));
                }
            }
        }
        if self.dice.once_in(self.weather.freeze) {
            let victim = self.victim();
            self.frozen[victim] = self.now.after_ns(self.dice.roll(5 * TIMEOUT_NS));
        }
        if self.dice.once_in(self.weather.compact) {
            self.compact();
        }
        if self.dice.once_in(self.weather.mend) {
            self.mend();
        }
        if self.dice.once_in(self.weather.reconnect) {
            let (from, to) = (self.dice.index(servers), self.dice.index(servers));
            self.connect(from, to);
        }
    }

    fn mend(&mut self) {
        for (from, to) in std::mem::take(&mut self.cut) {
            self.connect(from, to);
            self.connect(to, from);
        }
    }

    fn crash(&mut self, nth: usize) {
        self.asked.retain(|(server, _), _| *server != nth);
        self.syncs[nth] = None;
        self.frozen[nth] = Instant::ZERO;
        let survive = self.dice.index(6);
        let fresh = self.start(nth, disk(&[1]));
        let old = std::mem::replace(&mut self.servers[nth], fresh);
        let disk = old.power_loss(survive);
        self.servers[nth] = self.start(nth, disk);
        self.connect_all(nth);
    }

    /// The weather clears: the cluster must elect, commit something new everywhere, and agree.
    fn clear_up(&mut self) {
        let Weather { crash, cut, loss, freeze, .. } = self.weather;
        let calm = [crash, cut, loss, freeze].iter().all(|turns| *turns == 0);
        let servers = self.weather.servers;
        self.weather = Weather {
            servers,
            loss: 0,
            double: 0,
            latency_ns: MS,
            sync_ns: MS,
            crash: 0,
            cut: 0,
            mend: 0,
            freeze: 0,
            reconnect: 0,
            tight: 0,
            compact: 0,
            propose: 20,
            ..Weather::draw(&mut Dice(0))
        };
        self.mend();
        self.frozen.fill(self.now);
        let goal = self.oracle.commit_index().advanced_by(20);
        // Some pipelines carry one entry per round trip: the longest log takes that many.
        let longest = self.servers.iter().map(|it| it.raft.last().index.get()).max().unwrap_or(0);
        let patience =
            if calm { 4 } else { 8 } * TIMEOUT_NS + 10 * HEARTBEAT_NS + longest * 15 * MS;
        let deadline = self.now.after_ns(patience);
        let behind = |server: &Server| server.raft.commit_index() < goal;
        while self.servers.iter().any(behind) {
            assert!(self.now < deadline, "no progress in calm weather: {}", self.describe());
            self.turn();
            self.use_cluster();
        }
        self.observe_all();
    }

    fn observe_all(&self) {
        self.oracle.observe_all(&self.servers.iter().collect::<Vec<_>>());
    }

    fn describe(&self) -> String {
        let line = |server: &Server| {
            let raft = &server.raft;
            let (role, term) = (raft.role_name(), raft.term());
            let (commit, last) = (raft.commit_index(), raft.last());
            format!("{} {role} term={term} commit={commit} last={last}; ", server.id)
        };
        self.servers.iter().map(line).collect()
    }
}

fn peer(nth: usize) -> raftd::types::NodeId {
    id(u64::try_from(nth).expect("small") + 1)
}

fn nth(id: raftd::types::NodeId) -> usize {
    usize::try_from(id.get() - 1).expect("small")
}

struct Harvest {
    committed: u64,
    elections: u64,
    reads: u64,
    installed: u64,
}

fn run(seed: u64) -> Harvest {
    let mut world = World::new(seed);
    for turn in 0..4000 {
        world.turn();
        world.use_cluster();
        world.worsen();
        if turn % 100 == 0 {
            world.observe_all();
        }
    }
    world.clear_up();
    Harvest {
        committed: world.oracle.commit_index().get(),
        elections: world.oracle.elections,
        reads: world.reads_served,
        installed: world.installed,
    }
}

/// Names the seed if its run panics.
struct Naming(u64);

impl Drop for Naming {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat with: RAFT_CHAOS_SEED={} cargo test chaos", self.0);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn chaos_breaks_no_property_of_figure_3_and_the_cluster_recovers() {
    let (first, seeds) = match number("RAFT_CHAOS_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("RAFT_CHAOS_SEEDS").unwrap_or(300)),
    };
    let mut total = Harvest { committed: 0, elections: 0, reads: 0, installed: 0 };
    for seed in first..first + seeds {
        let naming = Naming(seed);
        let harvest = run(seed);
        drop(naming);
        total.committed += harvest.committed;
        total.elections += harvest.elections;
        total.reads += harvest.reads;
        total.installed += harvest.installed;
    }
    let Harvest { committed, elections, reads, installed } = total;
    println!(
        "{seeds} seeds: {committed} committed, {elections} elections, {reads} reads, \
         {installed} snapshots installed"
    );
    assert!(seeds == 1 || installed > seeds, "too few snapshots: {installed}");
    assert!(seeds == 1 || committed > 100 * seeds, "too little happened: {committed}");
    assert!(seeds == 1 || elections > 3 * seeds, "too few elections: {elections}");
    assert!(seeds == 1 || reads > 30 * seeds, "too few reads: {reads}");
}
