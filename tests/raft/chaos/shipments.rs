//! Snapshots in the chaos: leaders ship them, late and double as anything else, and servers forget
//! what they have committed.

use super::{World, nth, peer};
use crate::raft::server::{Entry, Packet, TIMEOUT_NS, at, length, upto};
use raftd::raft::message::{Message, SnapshotOutcome};
use raftd::raft::{Install, PieceVerdict};
use raftd::types::{Instant, LogPosition, SnapshotId, Term};

/// A snapshot of the committed `entries`, from the leader of `term`.
#[derive(Clone)]
pub(super) struct Shipment {
    arrival: Instant,
    from: usize,
    to: usize,
    term: Term,
    entries: Vec<Entry>,
}

impl World {
    /// A leader sends a snapshot to whom it has no entries for: anything from its base to what it
    /// has durably committed.
    pub(super) fn ship(&mut self) {
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
                let index = at(base + self.dice.below(newest - base + 1));
                let entries = upto(&self.servers[from].log, index).to_vec();
                let latency = self.dice.below(10 * self.weather.latency_ns);
                let arrival = self.now.after_ns(latency);
                let shipment = Shipment { arrival, from, to, term, entries };
                if self.dice.once_in(self.weather.double) {
                    let arrival = arrival.after_ns(self.dice.below(5 * TIMEOUT_NS));
                    self.shipped.push(Shipment { arrival, ..shipment.clone() });
                }
                self.shipped.push(shipment);
            }
        }
    }

    /// The snapshots that have arrived are installed, or come again when the log is durable.
    pub(super) fn unload(&mut self) {
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
            let clock = self.clock(to);
            let server = &mut self.servers[to];
            server.step(clock, &packet);
            match server.raft.output().snapshot.take() {
                Some(PieceVerdict::Keep) => match server.install(clock, &shipment.entries) {
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
    pub(super) fn compact(&mut self) {
        let nth = self.dice.index(self.servers.len());
        let server = &mut self.servers[nth];
        let base = server.raft.base().index.get();
        let newest = server.raft.commit_index().min(server.raft.durable()).get();
        if newest > base {
            server.compact(at(base + 1 + self.dice.below(newest - base)));
        }
    }
}
