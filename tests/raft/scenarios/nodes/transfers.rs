//! What the scenarios about snapshots on their way need: a background thread that takes its time, a
//! connection that goes nowhere, a disk that rots, and a look at what is about to leave.

use super::{End, Machine, Nodes, Pipe, id, is_at};
use raftd::raft::message::Message;
use raftd::types::{Instant, Term};
use raftd::wire::frame::next_frame;
use raftd::wire::peer::{Room, decode_peer};

impl Machine {
    /// Runs the background job that is there. Says whether one was.
    pub(super) fn run_background(&mut self, now: Instant) -> bool {
        let Some(job) = self.background.take() else { return false };
        let done = job.run();
        self.node.as_mut().expect("its job is there").on_background_done(done, now);
        true
    }
}

impl Nodes {
    /// Files are written and read in the background: from now on, when a test says so.
    pub(in crate::raft) fn hold_background(&mut self, nth: usize) {
        self.machine(nth).background_held = true;
    }

    pub(in crate::raft) fn release_background(&mut self, nth: usize) {
        self.machine(nth).background_held = false;
        self.settle();
    }

    /// The job that is held ends; the next one is held.
    pub(in crate::raft) fn let_one_background_through(&mut self, nth: usize) {
        self.end_one_background(nth);
        self.settle();
    }

    /// The job that is held ends, and its node hears of it before its next turn.
    pub(in crate::raft) fn end_one_background(&mut self, nth: usize) {
        let now = self.now;
        assert!(self.machine(nth).run_background(now), "a job is held");
    }

    /// How much of the snapshot that a server receives is on its disk. Bytes.
    pub(in crate::raft) fn part_stored(&self, nth: usize) -> Option<u64> {
        let node = self.machines[nth - 1].node.as_ref().expect("it is up");
        node.inspect().wal.part().and_then(|(_, stored)| stored)
    }

    /// What the newest connection between two servers carries is lost from now on, and neither of
    /// them hears of it.
    pub(in crate::raft) fn lose_newest_connection(&mut self, one: usize, other: usize) {
        let at = self.newest_connection(one, other);
        self.pipes.remove(at);
    }

    /// The newest connection between two servers ends.
    pub(in crate::raft) fn end_newest_connection(&mut self, one: usize, other: usize) {
        let at = self.newest_connection(one, other);
        let pipe = self.pipes.remove(at);
        self.say_ended(vec![pipe]);
    }

    fn newest_connection(&self, one: usize, other: usize) -> usize {
        let is = |pipe: &Pipe, nth| pipe.ends.iter().any(|end| is_at(*end, nth));
        let newest = self.pipes.iter().rposition(|pipe| is(pipe, one) && is(pipe, other));
        newest.expect("they are connected")
    }

    /// Whether these are a question that is to be lost, on a connection that stands.
    pub(super) fn loses(&mut self, bytes: &[u8]) -> bool {
        let Ok(Some(frame)) = next_frame(bytes, usize::MAX >> 1) else { return false };
        let asks = decode_peer(frame.body, Room::default())
            .is_ok_and(|peer| matches!(peer.message, Message::InstallSnapshot { bytes: 0, .. }));
        let lost = asks && self.questions_to_lose > 0;
        self.questions_to_lose -= usize::from(lost);
        lost
    }

    /// A server that is frozen takes what is there, and has no turn.
    pub(in crate::raft) fn take_frozen(&mut self, nth: usize) {
        self.machine(nth).frozen = false;
        for pipe in 0..self.pipes.len() {
            self.deliver_to(pipe, nth);
        }
        self.freeze(nth);
    }

    /// A bit in the middle of the snapshot that a server receives flips on the medium.
    pub(in crate::raft) fn rot_part(&mut self, nth: usize) {
        self.rot(nth, ".part");
    }

    /// The same of the snapshot that it has.
    pub(in crate::raft) fn rot_snapshot(&mut self, nth: usize) {
        self.rot(nth, ".snap");
    }

    fn rot(&mut self, nth: usize, suffix: &str) {
        let name = self.name_of(nth, suffix);
        self.machine(nth).disk.rot(&name);
    }

    /// The snapshot that a server has cannot be read any more.
    pub(in crate::raft) fn make_snapshot_unreadable(&mut self, nth: usize) {
        let name = self.name_of(nth, ".snap");
        self.machine(nth).disk.make_unreadable(&name);
    }

    fn name_of(&mut self, nth: usize, suffix: &str) -> String {
        let image = self.machine(nth).disk.image();
        let name = image.into_keys().find(|name| name.ends_with(suffix));
        name.expect("it has one")
    }

    /// How much of its snapshot a leader thinks is at `to`, and the size of that snapshot. Bytes.
    pub(in crate::raft) fn sent_to(&self, leader: usize, to: usize) -> (u64, u64) {
        let status = self.status_of(leader);
        let peer = status.peers.iter().find(|peer| peer.node == id(to));
        let peer = peer.expect("it is a member");
        (peer.snapshot_sent, peer.snapshot_bytes)
    }

    /// The terms of what a server that is frozen is about to send of a snapshot.
    pub(in crate::raft) fn terms_of_snapshots_unsent(&self, nth: usize) -> Vec<Term> {
        let node = self.machines[nth - 1].node.as_ref().expect("it is up");
        let mut terms = Vec::new();
        for end in self.pipes.iter().flat_map(|pipe| pipe.ends) {
            let End::Node(at, id) = end else { continue };
            if at != nth {
                continue;
            }
            let mut bytes = node.unsent(id);
            while let Some(frame) = next_frame(bytes, usize::MAX >> 1).unwrap() {
                if let Ok(peer) = decode_peer(frame.body, Room::default())
                    && let Message::InstallSnapshot { term, .. } = peer.message
                {
                    terms.push(term);
                }
                bytes = &bytes[frame.consumed..];
            }
        }
        terms
    }
}
