//! A turn of a node as its shell does it: inputs, `advance`, then the effects one by one. The
//! process may end between any two effects.

use crate::coverage::Point;
use crate::invariants::bounds::OUT_BYTES_MAX;
use crate::invariants::must;
use crate::machine::{Ending, Input};
use crate::queue::Event;
use crate::trace::{Who, say};
use crate::world::{World, id_of, machine_of};
use raftd::replica::{ConnectionId, Dial, Fatal, Flow, Node};
use raftd::types::Instant;
use raftd::wal::Operation;

/// Turns in a row that a node may ask for at once, with nothing new to look at: what it applies and
/// answers in pieces is done by then. More, and its loop would never sleep.
const RESTLESS_TURNS_MAX: u32 = 16;
/// The longest that a sync takes for a slow disk alone: one that is slow for a while must not hold
/// a sync back until long after it is mended. To hang is a fault of its own.
const SLOW_SYNC_NS_MAX: u64 = 1_000_000_000;

/// Lists that live across turns.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    dirty: Vec<ConnectionId>,
    closing: Vec<ConnectionId>,
    dials: Vec<Dial>,
    frames: Vec<u8>,
    /// Its node knew before the turn that its state is another one than the rest's.
    was_silent: bool,
}

/// What is left of a turn when its process is to end within it.
struct Countdown(Option<(u32, Ending)>);

impl Countdown {
    /// Before an effect: how the process ends here, if it does.
    fn tick(&mut self) -> Option<Ending> {
        match &mut self.0 {
            Some((0, ending)) => Some(*ending),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }
}

impl World {
    pub(crate) fn on_turn(&mut self, machine: usize) {
        let it = &mut self.machines[machine];
        if it.turn_at != self.now {
            return;
        }
        it.turn_at = u64::MAX;
        if it.is_paused(self.now) {
            return;
        }
        let Some(mut node) = it.node.take() else { return };
        let local = it.clock.read(self.now);
        let woken = it.inbox.is_empty();
        let was_silent = self.proof.seen[machine].silent;
        self.take_inputs(machine, &mut node, local);
        node.advance(local);
        let inspection = node.inspect();
        self.proof.after_turn(machine, &inspection, &self.disks, &mut self.coverage);
        self.check_leases(machine, &node);
        self.judge_committed();
        self.digest(machine);
        let mut countdown = Countdown(self.machines[machine].ends_after.take());
        self.turn.was_silent = was_silent;
        match self.carry_out(machine, &mut node, local, &mut countdown) {
            None => {}
            Some(ending) => {
                self.coverage.hit(Point::CrashInTurn);
                return self.end_process(machine, ending);
            }
        }
        self.machines[machine].ends_after = countdown.0;
        if let Some(fatal) = node.fatal() {
            return self.on_fatal(machine, &fatal);
        }
        if node.has_left(local) {
            return self.end_process(machine, Ending::Killed);
        }
        self.check_rest(machine, &node, local, woken);
        let cost = self.options.turn_ns;
        let it = &mut self.machines[machine];
        it.busy_until = self.now + it.turn_cost(cost);
        let due = it.clock.when(node.wake_at());
        let more = !it.inbox.is_empty();
        it.node = Some(node);
        if more {
            self.wake(machine, self.now);
        }
        if let Some(due) = due {
            self.wake(machine, due);
        }
    }

    /// A node that has done what there was to do sleeps until something comes or is due.
    fn check_rest(&mut self, machine: usize, node: &Node, local: Instant, woken: bool) {
        let it = &mut self.machines[machine];
        // A large range is looked at turn by turn, so is one that is deleted, and a turn applies
        // only so much; whether it ends is for whoever waits for it.
        let seen = node.inspect();
        let applied = std::mem::replace(&mut it.applied, seen.store.applied());
        let works = seen.ranges_walked || seen.store.is_halfway() || applied != it.applied;
        if node.wake_at() > local || works {
            it.restless_turns = 0;
        } else if woken {
            it.restless_turns += 1;
        }
        must!(
            it.restless_turns <= RESTLESS_TURNS_MAX,
            "Rest",
            "{} was given {} turns with nothing new, and wants another at once",
            id_of(machine),
            it.restless_turns
        );
    }

    /// While a leader holds a lease nobody else leads: it would answer reads from the past.
    fn check_leases(&self, machine: usize, node: &Node) {
        let leads = |nth: usize| self.proof.seen[nth].leads;
        let bound = self.options.clocks_keep_bound();
        let Some(newest) = leads(machine).filter(|_| bound) else { return };
        for (nth, it) in self.machines.iter().enumerate() {
            let Some(term) = leads(nth).filter(|term| *term != newest) else { continue };
            let (old, later) = if term < newest { (nth, newest) } else { (machine, term) };
            let node = if old == machine { Some(node) } else { it.node.as_deref() };
            let local = self.machines[old].clock.read(self.now);
            let raft = node.and_then(|node| node.inspect().raft);
            must!(
                !raft.is_some_and(|raft| raft.holds_lease(local)),
                "LeaseExclusive",
                "{} holds a lease, and somebody leads term {later}",
                id_of(old)
            );
        }
    }

    fn take_inputs(&mut self, machine: usize, node: &mut Node, local: Instant) {
        for _ in 0..self.options.turn_inputs {
            let it = &mut self.machines[machine];
            let Some(input) = it.inbox.pop_front() else { return };
            match input {
                Input::Accepted(id) => node.on_accepted(id),
                Input::Dialed(id, peer) => node.on_dialed(id, peer, local),
                Input::DialFailed(peer) => node.on_dial_failed(peer, local, "refused"),
                Input::Closed(id) => {
                    node.on_closed(id, local);
                    if it.socket(id).is_some() {
                        it.sockets[id.slot()] = None;
                    }
                }
                Input::Synced(job, result) => node.on_job_done(job, result, local),
                Input::Background(done) => node.on_background_done(done, local),
                Input::Readable(id) => self.read(machine, node, id, local),
                Input::Leave => node.leave(local),
            }
        }
    }

    fn read(&mut self, machine: usize, node: &mut Node, id: ConnectionId, local: Instant) {
        let Some(socket) = self.machines[machine].socket(id) else { return };
        socket.readable = false;
        let taken = node.on_bytes(id, &socket.input, local);
        socket.input.drain(..taken.bytes);
        if taken.flow == Flow::Paused {
            socket.paused = true;
            self.coverage.hit(Point::ClientPaused);
        }
    }

    /// The effects of a turn, in the order of the server's loop. Says how the process ended, if it
    /// did.
    fn carry_out(
        &mut self,
        machine: usize,
        node: &mut Node,
        local: Instant,
        countdown: &mut Countdown,
    ) -> Option<Ending> {
        let mut scratch = std::mem::take(&mut self.turn);
        let ended = self.carry_out_with(&mut scratch, machine, node, local, countdown);
        scratch.dirty.clear();
        scratch.closing.clear();
        scratch.dials.clear();
        self.turn = scratch;
        ended
    }

    fn carry_out_with(
        &mut self,
        scratch: &mut Scratch,
        machine: usize,
        node: &mut Node,
        local: Instant,
        countdown: &mut Countdown,
    ) -> Option<Ending> {
        node.take_dirty(&mut scratch.dirty);
        for at in 0..scratch.dirty.len() {
            if let Some(ending) = countdown.tick() {
                return Some(ending);
            }
            self.flush(machine, node, scratch.dirty[at], scratch);
        }
        node.take_closing(&mut scratch.closing);
        for id in scratch.closing.drain(..) {
            if let Some(socket) = self.machines[machine].sockets[id.slot()].take() {
                self.hang_up(socket.pipe, socket.side);
                node.on_closed(id, local);
            }
        }
        if let Some(ending) = countdown.tick() {
            return Some(ending);
        }
        self.hand_over(machine, node);
        node.take_dials(&mut scratch.dials);
        for dial in scratch.dials.drain(..) {
            self.dial(machine, machine_of(dial.peer));
        }
        self.resume(machine, node);
        countdown.tick()
    }

    /// Writes what a connection has to say.
    fn flush(&mut self, machine: usize, node: &mut Node, id: ConnectionId, scratch: &mut Scratch) {
        let (bytes, was_silent) = (&mut scratch.frames, scratch.was_silent);
        bytes.clear();
        bytes.extend_from_slice(node.unsent(id));
        node.sent(id, bytes.len());
        let waits = bytes.len();
        must!(waits <= OUT_BYTES_MAX, "ResourceBounds", "{waits} bytes wait for a connection");
        let Some(socket) = self.machines[machine].socket(id) else { return };
        let (pipe, side) = (socket.pipe, socket.side);
        self.trace.add_bytes(bytes);
        if self.network.pipes.get(pipe).is_some_and(|it| it.members) {
            self.send_between_members(pipe, side, bytes);
        } else {
            self.proof.check_silence(machine, was_silent, bytes);
            self.send(pipe, side, bytes.clone());
        }
    }

    fn hand_over(&mut self, machine: usize, node: &mut Node) {
        let it = &mut self.machines[machine];
        let boot = it.boot;
        if let Some(job) = node.take_job() {
            must!(it.job.is_none(), "ResourceBounds", "two sync jobs in flight");
            it.job_since = self.now;
            let at = self.now + self.operation_ns(machine, job.operations.first());
            self.machines[machine].job = Some((job, 0));
            self.queue.at(at, Event::Operation { machine, boot });
        }
        let it = &mut self.machines[machine];
        if it.background.is_none()
            && let Some(job) = node.take_background_job()
        {
            it.background = Some(job);
            let wait = self.operation_ns(machine, None) + 3 * self.options.disk.sync_ns;
            self.queue.at(self.now + wait, Event::Background { machine, boot });
        }
    }

    /// Whoever was not read is read again, now that there is room.
    fn resume(&mut self, machine: usize, node: &Node) {
        let it = &mut self.machines[machine];
        for socket in it.sockets.iter_mut().flatten() {
            if socket.paused && node.flow(socket.id) == Flow::Open {
                socket.paused = false;
                if !socket.readable {
                    socket.readable = true;
                    it.inbox.push_back(Input::Readable(socket.id));
                }
            }
        }
    }

    /// How long an operation of the disk takes; `None` is some operation.
    pub(crate) fn operation_ns(&mut self, machine: usize, operation: Option<&Operation>) -> u64 {
        let disk = &self.options.disk;
        let hostile = self.is_hostile();
        let it = &mut self.machines[machine];
        match operation {
            Some(Operation::Write { .. }) => disk.write_ns / 2 + it.chance.below(disk.write_ns + 1),
            Some(Operation::Sync { .. }) | None => {
                let usual = disk.sync_ns / 4 + it.chance.exponential(disk.sync_ns);
                let hangs = it.hangs.hit(disk.hang) && hostile;
                let hang = if hangs { it.hangs.below(disk.hang_ns) } else { 0 };
                (usual * it.disk_slowness).min(SLOW_SYNC_NS_MAX) + hang
            }
        }
    }

    pub(crate) fn on_operation(&mut self, machine: usize, boot: u32) {
        let it = &mut self.machines[machine];
        if it.boot != boot || it.node.is_none() {
            return;
        }
        if it.is_paused(self.now) {
            it.operation_waits = true;
            return;
        }
        let Some((job, done)) = &mut it.job else { return };
        let result = job.operations[*done].run();
        *done += 1;
        let finished = *done == job.operations.len() || result.is_err();
        if it.disk.is_blown() {
            self.coverage.hit(Point::CrashInJob);
            return self.end_process(machine, Ending::PowerLost);
        }
        let (job, done) = it.job.take().expect("it was just run");
        if finished {
            let took = self.now - it.job_since;
            let election = self.options.election_timeout_ns;
            self.coverage.hit_if(took > election, Point::SyncHung);
            it.inbox.push_back(Input::Synced(job, result));
            return self.wake(machine, self.now);
        }
        let wait = self.operation_ns(machine, job.operations.get(done));
        self.machines[machine].job = Some((job, done));
        self.queue.at(self.now + wait, Event::Operation { machine, boot });
    }

    pub(crate) fn on_background(&mut self, machine: usize, boot: u32) {
        let it = &mut self.machines[machine];
        if it.boot != boot || it.node.is_none() {
            return;
        }
        if it.is_paused(self.now) {
            it.background_waits = true;
            return;
        }
        let Some(job) = it.background.take() else { return };
        let done = job.run();
        if it.disk.is_blown() {
            self.coverage.hit(Point::CrashInBackground);
            return self.end_process(machine, Ending::PowerLost);
        }
        it.inbox.push_back(Input::Background(done));
        self.note_refusals(machine);
        self.wake(machine, self.now);
    }

    /// The node gives up. It may: after a failed sync, and when it meets damage.
    fn on_fatal(&mut self, machine: usize, fatal: &Fatal) {
        say!(self, Who::Node(machine), "stopped", "{fatal}");
        let it = &self.machines[machine];
        let allowed = match fatal {
            Fatal::Disk(error) => it.disk.explains(error),
            Fatal::Entry { why, .. } => it.disk.log_is_rotten() && why.contains("damaged"),
            Fatal::Refused(_) => !self.proof.is_member(machine),
        };
        must!(allowed, "NodeGoesOn", "{} stops: {fatal}", id_of(machine));
        match fatal {
            Fatal::Disk(_) => self.note_failure(machine),
            Fatal::Entry { .. } => self.coverage.hit(Point::DamageServedNever),
            Fatal::Refused(_) => {
                self.coverage.hit(Point::RemovedStops);
                self.machines[machine].dead = Some("removed");
            }
        }
        self.end_process(machine, Ending::Killed);
    }

    /// Makes the run's hash depend on what the node is now.
    fn digest(&mut self, machine: usize) {
        let seen = &self.proof.seen[machine];
        let (term, commit, last) = (seen.term.get(), seen.commit.get(), seen.chain.last().get());
        let (applied, hash) = (seen.applied.get(), seen.hash);
        let chain = seen.chain.at(seen.chain.last()).map_or(0, |link| link.chain);
        for value in [self.now, term, commit, last, chain, applied, hash] {
            self.trace.add(value);
        }
        let leads = if seen.leads.is_some() { "leader" } else { "follows" };
        let vote = seen.vote;
        say!(
            self,
            Who::Node(machine),
            "turn",
            "term={term} {leads} vote={vote:?} commit={commit} applied={applied} last={last}"
        );
    }
}
