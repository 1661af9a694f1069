//! One turn of the loop: bytes down, one sync, results up. No business word in it but `node`.

use super::clock::thread_cpu_ns;
use super::{Ended, FAREWELL_NS, Farewell, Server, Wheel};
use crate::replica::ConnectionId;
use crate::types::Instant;
use std::mem;

impl Server {
    /// Waits for the world, hands it to the node, and carries out what the node wants.
    pub(super) fn turn(&mut self) -> Result<(), Ended> {
        let wake_at = match self.stop_by {
            // Nothing is read any more, so nothing about connections is due.
            Some(stop_by) => self.node.wake_at().min(stop_by),
            None if self.sockets.has_ready() => Instant::ZERO,
            None => self.node.wake_at().min(self.wheel.wake_at()).min(self.sockets.wake_at()),
        };
        self.wait.wait(self.now, wake_at).map_err(Ended::Poll)?; // the only place we sleep
        self.now = self.clock.now(); // what comes in now came in at this moment
        let now = self.now;
        let ended = self.take_turn(now);
        self.note_turn_time(now);
        ended
    }

    fn take_turn(&mut self, now: Instant) -> Result<(), Ended> {
        self.threads.collect(&mut self.node, now);
        if self.stop_by.is_none() {
            self.sockets.receive(&self.wait, &mut self.node, &mut self.wheel, now);
            self.expire_connections();
        }
        // Later than all that came: what we confirm and what we answer by lease rests on it. If we
        // were stopped since the look above, a message may be younger than that moment.
        self.now = self.clock.now();
        self.node.advance(self.now);

        self.send_and_close();
        self.threads.hand_over(&mut self.node);
        self.dial();
        // There is room again: whoever waited for it is served without another wait.
        self.sockets.resume(&mut self.node, self.now);
        if let Some(fatal) = self.node.fatal() {
            return Err(Ended::Fatal(fatal));
        }
        if self.stop_by.is_some() || self.sockets.take_signalled() {
            self.take_signals();
        }
        self.stop_if_done()
    }

    /// The CPU time counts from the end of the turn before: waiting takes none.
    fn note_turn_time(&mut self, began: Instant) {
        let cpu_ns = thread_cpu_ns();
        let cpu_before_ns = mem::replace(&mut self.cpu_ns, cpu_ns);
        let wall_ns = self.clock.now().ns_since(began);
        self.node.note_turn_time(cpu_ns - cpu_before_ns, wall_ns);
    }

    /// A stopped server reads nothing more, writes down what it has, and ends. A disk that does
    /// not answer, or a second signal, does not keep it: what is missing then is as after a crash.
    fn stop_if_done(&mut self) -> Result<(), Ended> {
        let Some(stop_by) = self.stop_by else {
            if self.leaving && self.node.has_left(self.now) {
                self.node.stop();
                self.stop_by = Some(self.now.after_ns(FAREWELL_NS));
            }
            return Ok(());
        };
        if self.node.has_stopped() {
            return Err(Ended::Stopped(Farewell::Noted));
        }
        if self.now < stop_by { Ok(()) } else { Err(Ended::Stopped(Farewell::CutShort)) }
    }

    fn send_and_close(&mut self) {
        let now = self.now;
        self.node.take_dirty(&mut self.scratch.dirty);
        for id in self.scratch.dirty.drain(..) {
            self.sockets.send(id, &mut self.node, now);
        }
        self.node.take_closing(&mut self.scratch.closing);
        for id in self.scratch.closing.drain(..) {
            self.sockets.close(id, &mut self.node, now);
        }
    }

    fn dial(&mut self) {
        self.node.take_dials(&mut self.scratch.dials);
        for dial in self.scratch.dials.drain(..) {
            self.sockets.resolve(dial);
        }
        let now = self.now;
        self.sockets.connect_resolved(&self.wait, &mut self.node, &mut self.wheel, now);
    }

    fn expire_connections(&mut self) {
        let wheel: &mut Wheel<ConnectionId> = &mut self.wheel;
        wheel.expire(self.now, &mut self.scratch.due);
        for id in self.scratch.due.drain(..) {
            self.sockets.look_at(id, &mut self.node, wheel, self.now);
        }
    }
}
