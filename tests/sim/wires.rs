//! Bytes from one end of a pipe to the other, and the ends of pipes.

use crate::coverage::Point;
use crate::machine::Input;
use crate::network::{End, Held, Item, PipeKey};
use crate::options::{MS, SECOND};
use crate::queue::Event;
use crate::trace::{Who, say};
use crate::world::{World, id_of};
use raftd::raft::message::Message;
use raftd::wire::frame::next_frame;
use raftd::wire::peer::{Room, decode_peer};
use raftd::wire::state::decode_state_word;

impl World {
    /// `side` writes bytes into a pipe.
    pub(crate) fn send(&mut self, pipe: PipeKey, side: usize, mut bytes: Vec<u8>) {
        let other = 1 - side;
        let Some(it) = self.network.pipes.get_mut(pipe) else { return };
        if bytes.is_empty() || !it.open[side] {
            return;
        }
        if !it.open[other] {
            // The other machine knows nothing of this connection and says so.
            if !std::mem::replace(&mut it.resetting[side], true) {
                let at = self.now + self.network.delay();
                self.queue.at(at, Event::Reset { pipe, side });
                self.coverage.hit(Point::HalfOpen);
            }
            return;
        }
        let weather = &self.network.weather;
        let (split, reset) = (weather.split, weather.reset);
        let resets = self.network.streams.hit(reset) && self.is_hostile();
        if resets {
            bytes.truncate(self.network.streams.index(bytes.len()));
            self.coverage.hit(Point::ConnectionReset);
        }
        if bytes.len() > 1 && self.network.streams.hit(split) {
            let mut rest = bytes;
            for _ in 0..=self.network.streams.below(3) {
                if rest.len() > 1 {
                    let end = 1 + self.network.streams.index(rest.len() - 1);
                    let later = rest.split_off(end);
                    self.put(pipe, other, Item::Bytes(std::mem::replace(&mut rest, later)));
                }
            }
            bytes = rest;
            self.coverage.hit(Point::FrameSplit);
        }
        if !bytes.is_empty() {
            self.put(pipe, other, Item::Bytes(bytes));
        }
        if resets {
            self.break_off(pipe, side);
        }
    }

    /// What was sent still arrives, then both ends hear that the connection is no more.
    fn break_off(&mut self, pipe: PipeKey, side: usize) {
        self.put(pipe, 1 - side, Item::End);
        let at = self.now + self.network.delay();
        self.queue.at(at, Event::Reset { pipe, side });
    }

    /// Queues something for a side, behind what is under way.
    fn put(&mut self, pipe: PipeKey, side: usize, item: Item) {
        let delay = self.network.delay();
        let weather = &self.network.weather;
        let (resend, resend_ns) = (weather.resend, weather.resend_ns);
        let lost = self.network.streams.hit(resend) && self.is_hostile();
        self.coverage.hit_if(lost, Point::Resent);
        let again = if lost { resend_ns } else { 0 };
        let machines = self.machines.len();
        let Some(it) = self.network.pipes.get_mut(pipe) else { return };
        let (from, to) = (it.place(1 - side, machines), it.place(side, machines));
        let clogged = self.network.links.clogged_until(from, to);
        let lane = &mut it.lanes[side];
        let at = (self.now.max(clogged) + delay + again).max(lane.last_at);
        lane.last_at = at;
        let first = lane.queue.is_empty();
        lane.queue.push_back((at, item));
        if first && lane.stalled_since.is_none() {
            self.queue.at(at, Event::Deliver { pipe, side });
        }
    }

    pub(crate) fn on_deliver(&mut self, pipe: PipeKey, side: usize) {
        let machines = self.machines.len();
        loop {
            let Some(it) = self.network.pipes.get_mut(pipe) else { return };
            let (from, to) = (it.place(1 - side, machines), it.place(side, machines));
            let lane = &mut it.lanes[side];
            let Some((at, _)) = lane.queue.front() else { return };
            if *at > self.now {
                let at = *at;
                return self.queue.at(at, Event::Deliver { pipe, side });
            }
            if self.network.links.is_cut(from, to) {
                lane.stalled_since = Some(self.now);
                let patience = self.network.chance.scaled(300 * MS, 12 * SECOND);
                let event = Event::Expire { pipe, side, since: self.now };
                return self.queue.at(self.now + patience, event);
            }
            let (_, item) = lane.queue.pop_front().expect("it was just looked at");
            self.arrive(pipe, side, item);
        }
    }

    /// A link is whole again: what it held up is sent anew.
    pub(crate) fn unstall(&mut self) {
        let machines = self.machines.len();
        for pipe in self.network.pipes.keys() {
            for side in 0..2 {
                let delay = self.network.delay();
                let Some(it) = self.network.pipes.get_mut(pipe) else { continue };
                let (from, to) = (it.place(1 - side, machines), it.place(side, machines));
                let free = !self.network.links.is_cut(from, to);
                if free && it.lanes[side].stalled_since.take().is_some() {
                    self.queue.at(self.now + delay, Event::Deliver { pipe, side });
                }
            }
        }
    }

    /// Nothing has come through to `side` for long: the sender gives the connection up. The other
    /// end does not hear of it.
    pub(crate) fn on_expire(&mut self, pipe: PipeKey, side: usize, since: u64) {
        let Some(it) = self.network.pipes.get_mut(pipe) else { return };
        if it.lanes[side].stalled_since == Some(since) {
            it.lanes[side].queue.clear();
            it.lanes[side].stalled_since = None;
            self.coverage.hit(Point::ConnectionExpired);
            self.end_side(pipe, 1 - side);
        }
    }

    /// A side closes its end in order: what it has said still arrives.
    pub(crate) fn hang_up(&mut self, pipe: PipeKey, side: usize) {
        let Some(it) = self.network.pipes.get_mut(pipe) else { return };
        if !std::mem::replace(&mut it.open[side], false) {
            return;
        }
        it.lanes[side].queue.clear();
        if it.open[1 - side] {
            self.put(pipe, 1 - side, Item::End);
        }
        self.network.pipes.forget_if_closed(pipe);
    }

    /// A side is gone without a word.
    pub(crate) fn vanish(&mut self, pipe: PipeKey, side: usize) {
        let Some(it) = self.network.pipes.get_mut(pipe) else { return };
        it.open[side] = false;
        it.lanes[side].queue.clear();
        self.network.pipes.forget_if_closed(pipe);
    }

    /// A node dials a member.
    pub(crate) fn dial(&mut self, machine: usize, peer: usize) {
        let boot = self.machines[machine].boot;
        let at = self.now + 2 * self.network.delay();
        self.queue.at(at, Event::Dial { machine, boot, peer });
    }

    pub(crate) fn on_dial(&mut self, machine: usize, boot: u32, peer: usize) {
        if self.machines[machine].boot != boot || self.machines[machine].node.is_none() {
            return;
        }
        let links = &self.network.links;
        if links.is_cut(machine, peer) || links.is_cut(peer, machine) {
            let patience = self.network.chance.scaled(20 * MS, SECOND);
            return self.queue.at(self.now + patience, Event::DialFailed { machine, boot, peer });
        }
        if self.machines[peer].node.is_none() {
            return self.on_dial_failed(machine, boot, peer);
        }
        let ours = self.machines[machine].open_socket();
        let theirs = self.machines[peer].open_socket();
        let pipe = self.network.pipes.add([
            End::Node { machine, connection: ours },
            End::Node { machine: peer, connection: theirs },
        ]);
        self.machines[machine].enter(ours, pipe, 0);
        self.machines[peer].enter(theirs, pipe, 1);
        self.machines[machine].inbox.push_back(Input::Dialed(ours, id_of(peer)));
        self.machines[peer].inbox.push_back(Input::Accepted(theirs));
        self.wake(machine, self.now);
        self.wake(peer, self.now);
    }

    pub(crate) fn on_dial_failed(&mut self, machine: usize, boot: u32, peer: usize) {
        if self.machines[machine].boot == boot && self.machines[machine].node.is_some() {
            self.machines[machine].inbox.push_back(Input::DialFailed(id_of(peer)));
            self.wake(machine, self.now);
        }
    }

    /// A member speaks to another: whole frames, each looked at, some of them lost or late.
    pub(crate) fn send_between_members(&mut self, pipe: PipeKey, side: usize, bytes: &[u8]) {
        let Some(it) = self.network.pipes.get(pipe) else { return };
        let ends = (it.machine(side), it.machine(1 - side));
        let (Some(from), Some(to)) = ends else { return };
        let mut passing = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let frame = next_frame(&bytes[at..], usize::MAX >> 1);
            let frame = frame.ok().flatten().expect("a node writes whole frames");
            let whole = &bytes[at..at + frame.consumed];
            at += frame.consumed;
            let Some(it) = self.network.pipes.get_mut(pipe) else { return };
            it.said[side] += 1;
            let greeting = it.said[side] == 1;
            let fate = if greeting {
                Fate::Passes
            } else {
                self.fate_of(pipe, side, (from, to), whole, frame.body)
            };
            match fate {
                Fate::Passes => passing.extend_from_slice(whole),
                Fate::Lost => {}
                Fate::EndsStream => {
                    self.send(pipe, side, passing);
                    return self.break_off(pipe, side);
                }
            }
        }
        self.send(pipe, side, passing);
    }

    /// Looks at a message and decides its fate.
    fn fate_of(
        &mut self,
        pipe: PipeKey,
        side: usize,
        (from, to): (usize, usize),
        whole: &[u8],
        body: &[u8],
    ) -> Fate {
        let mut lost = Fate::Lost;
        let mut keeps_order = false;
        if let Ok(Some(word)) = decode_state_word(body) {
            // No term and no session says how old one is: that is the connection's.
            keeps_order = true;
            say!(self, Who::Node(from), "say", "to n{} {word:?}", to + 1);
        } else {
            let message =
                decode_peer(body, Room::default()).expect("a node says what others can read");
            let message = message.message;
            say!(self, Who::Node(from), "say", "to n{} {}", to + 1, Brief(&message));
            self.proof.on_message(from, to, &message, &self.disks, &mut self.coverage);
            if let Message::InstallSnapshot { bytes, .. } = &message {
                lost = Fate::EndsStream;
                if *bytes == 0 {
                    self.rot_what_is_sent(from);
                } else if self.proof.is_spoiled(from) {
                    return Fate::Lost;
                }
            } else if let Message::InstallSnapshotReply { .. } = &message {
                lost = Fate::EndsStream;
            }
            if self.network.filters(from, to, &message) {
                self.coverage.hit(Point::Filtered);
                say!(self, Who::World, "filter", "n{} to n{}", from + 1, to + 1);
                return lost;
            }
        }
        let weather = &self.network.weather;
        let (drop, duplicate, late) = (weather.drop, weather.duplicate, weather.late);
        if drop + duplicate + late == 0 || !self.is_hostile() {
            return Fate::Passes;
        }
        let frames = &mut self.network.frames;
        if frames.hit(drop) {
            self.coverage.hit(Point::FrameLost);
            say!(self, Who::World, "lose", "n{} to n{}", from + 1, to + 1);
            return lost;
        }
        if keeps_order {
            return Fate::Passes;
        }
        let (twice, held) = (frames.hit(duplicate), frames.hit(late));
        if twice || held {
            // Mostly a little late, sometimes by many terms.
            let wait = frames.scaled(100_000, 8 * SECOND);
            let (dialer, accepter) = if side == 0 { (from, to) } else { (to, from) };
            let term = self.proof.seen[from].term.get();
            let bytes = whole.to_vec();
            let frame = Held { dialer, accepter, side, bytes, pipe, term };
            let held = self.network.hold(frame);
            self.queue.at(self.now + wait, Event::Frame { held });
            self.coverage.hit_if(twice, Point::FrameTwice);
        }
        if twice || !held { Fate::Passes } else { lost }
    }

    /// A frame that was held is said, on whatever connection there is now.
    pub(crate) fn on_frame_due(&mut self, held: usize) {
        let Some(frame) = self.network.held[held].take() else { return };
        let Some(pipe) = self.network.pipes.between(frame.dialer, frame.accepter) else { return };
        let greeted = self.network.pipes.get(pipe).is_some_and(|it| it.said.iter().all(|n| *n > 0));
        if !greeted || self.faults.calm {
            return;
        }
        self.coverage.hit_if(pipe != frame.pipe, Point::FrameOldConnection);
        let from = if frame.side == 0 { frame.dialer } else { frame.accepter };
        let now = self.proof.seen[from].term.get();
        self.coverage.hit_if(now > frame.term + 1, Point::FrameOldTerm);
        say!(self, Who::World, "repeat", "a frame of n{} of term {}", from + 1, frame.term);
        self.send(pipe, frame.side, frame.bytes);
    }
}

/// What becomes of a frame between members.
enum Fate {
    Passes,
    Lost,
    /// It is lost, and its connection with it: a transfer of a snapshot asks TCP for no less, and
    /// waits for an answer as long as a slow disk may take (seed 33118).
    EndsStream,
}

/// A message without its entries.
struct Brief<'a>(&'a Message);

impl std::fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Message::Append { term, session, round, prev, entries, commit } => {
                let count = entries.len();
                write!(f, "Append term={term} session={session} round={round} prev={prev} ")?;
                write!(f, "entries={count} commit={commit}")
            }
            Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::Vote { .. }
            | Message::VoteReply { .. }
            | Message::Heartbeat { .. }
            | Message::TimeoutNow { .. }
            | Message::AppendReply { .. }
            | Message::ReadIndex { .. }
            | Message::ReadIndexReply { .. }
            | Message::InstallSnapshot { .. }
            | Message::InstallSnapshotReply { .. } => write!(f, "{:?}", self.0),
        }
    }
}
