//! A few cores in one place, and nothing by chance: messages arrive at once unless a link is cut,
//! disks sync at once, and time passes when a test says so.

use super::server::{HEARTBEAT_NS, Packet, Server, TIMEOUT_NS, at, disk, empty_disk, id, settings};
use raftd::raft::{Change, ChangeError, Learner, Wish};
use raftd::types::{Instant, LogIndex};
use std::collections::{BTreeMap, VecDeque};

pub(super) struct Town {
    pub(super) servers: BTreeMap<u64, Server>,
    pub(super) now: Instant,
    voters: u64,
    /// Nobody hears these, and they hear nobody.
    away: Vec<u64>,
    sessions: u64,
}

impl Town {
    /// Servers 1 to `voters`, of whom 1 leads and has committed the first entry of its term.
    pub(super) fn new(voters: u64) -> Town {
        let mut town = Town {
            servers: BTreeMap::new(),
            now: Instant::from_ns(1),
            voters,
            away: Vec::new(),
            sessions: 0,
        };
        for number in 1..=voters {
            let server = Server::start(settings(number), voters, disk(&[1]), town.now);
            town.servers.insert(number, server);
        }
        town.connect();
        town.elect(1);
        assert!(town.leads(1));
        town
    }

    pub(super) fn server(&mut self, number: u64) -> &mut Server {
        self.servers.get_mut(&number).expect("it was started")
    }

    pub(super) fn leads(&mut self, number: u64) -> bool {
        self.server(number).raft.is_leader()
    }

    /// The voters of the configuration in force at `number`.
    pub(super) fn voters_at(&mut self, number: u64) -> Vec<u64> {
        let configuration = self.server(number).raft.configuration();
        configuration.voters().iter().map(|voter| voter.get()).collect()
    }

    /// One more server, with an empty disk.
    pub(super) fn arrive(&mut self, number: u64) {
        let server = Server::start(settings(number), self.voters, empty_disk(), self.now);
        self.servers.insert(number, server);
        self.connect();
    }

    /// Every link that is not cut is a new connection.
    fn connect(&mut self) {
        let numbers: Vec<u64> = self.servers.keys().copied().collect();
        for from in &numbers {
            for to in &numbers {
                self.sessions += 1;
                let apart = self.away.contains(from) || self.away.contains(to);
                let sessions = self.sessions;
                if from != to && !apart {
                    self.server(*from).raft.connected(id(*to), sessions);
                }
            }
        }
    }

    /// Cuts these off. Their connections stay, as those of a frozen machine do.
    pub(super) fn send_away(&mut self, numbers: &[u64]) {
        self.away.extend_from_slice(numbers);
    }

    pub(super) fn bring_back(&mut self) {
        self.return_all_but(&[]);
        self.run();
    }

    pub(super) fn return_all_but(&mut self, numbers: &[u64]) {
        self.away = numbers.to_vec();
        self.connect();
    }

    /// Everybody does what there is to do, until nobody says anything more.
    pub(super) fn run(&mut self) {
        self.run_until(|_| false);
    }

    /// As `run`, but everything that is on its way is lost when `stop` says so.
    pub(super) fn run_until(&mut self, stop: impl Fn(&mut Town) -> bool) {
        let mut packets: VecDeque<Packet> = VecDeque::new();
        loop {
            let now = self.now;
            if stop(self) {
                self.servers.values_mut().for_each(|server| server.sent.clear());
                return;
            }
            for server in self.servers.values_mut() {
                loop {
                    server.raft.settle(now);
                    server.step_output();
                    let proposed = server.continue_reconfiguration(now);
                    let writes = server.begin_job();
                    if writes {
                        server.finish_job(now);
                    }
                    if !proposed && !writes {
                        break;
                    }
                }
                packets.extend(server.sent.drain(..));
            }
            let Some(packet) = packets.pop_front() else { return };
            let (from, to) = (packet.from.get(), packet.to.get());
            if !self.away.contains(&from) && !self.away.contains(&to) {
                self.server(to).step(now, &packet);
            }
        }
    }

    /// So much later that nobody is loyal to a leader any more, `number` campaigns.
    pub(super) fn elect(&mut self, number: u64) {
        self.now = self.now.after_ns(3 * TIMEOUT_NS);
        let now = self.now;
        self.server(number).tick(now);
        self.run();
    }

    /// The leader `number` says that it is there.
    pub(super) fn heartbeat(&mut self, number: u64) {
        self.now = self.now.after_ns(HEARTBEAT_NS);
        let now = self.now;
        self.server(number).tick(now);
        self.run();
    }

    pub(super) fn change(&mut self, leader: u64, change: Change) -> Result<(), ChangeError> {
        let now = self.now;
        let changed = self.server(leader).change(now, change);
        self.run();
        changed.map(|_| ())
    }

    pub(super) fn add(&mut self, leader: u64, number: u64, wish: Wish) {
        self.arrive(number);
        let learner = Learner { id: id(number), wish };
        self.change(leader, Change::Add(learner)).expect("a quorum answers");
    }

    pub(super) fn propose(&mut self, leader: u64) -> LogIndex {
        let now = self.now;
        let position = self.server(leader).propose(now, 99).expect("it leads");
        self.run();
        position.index
    }

    pub(super) fn commit_at(&mut self, number: u64) -> LogIndex {
        self.server(number).raft.commit_index()
    }

    /// Power loss and restart; everything was synced.
    pub(super) fn restart(&mut self, number: u64) {
        let old = self.servers.remove(&number).expect("it was started");
        let disk = old.power_loss(0);
        let server = Server::start(settings(number), self.voters, disk, self.now);
        self.servers.insert(number, server);
        self.connect();
        self.run();
    }
}

#[test]
fn a_town_replicates() {
    let mut town = Town::new(3);
    let index = town.propose(1);
    town.heartbeat(1);
    for number in 1..=3 {
        assert_eq!(town.commit_at(number), index);
    }
    assert!(index > at(2));
}
