//! What has been read of requests that have not ended, of all clients together: who is read, and
//! who waits, when that is much.
//!
//! A request that has begun is read only once room for all of it is set aside: so whatever is begun
//! can end. Until then its connection is read up to a floor, which holds the length of a request,
//! or a small one. Who waits for room is left unread: the bytes stay in the kernel, and its sender
//! is slowed down. Room goes to those who wait in the order in which they asked. Requests that are
//! not large have a share of their own, and do not wait behind large ones.
//!
//! Room that is set aside and not filled keeps others waiting. While somebody waits, a connection
//! that we do read and that sends next to nothing is closed. One that we do not read never is:
//! whoever waits, or is held up by the node, is not to blame. Peers are few and bounded, and count
//! for nothing here.

use super::rarely::Rarely;
use crate::limits;
use crate::replica::ConnectionId;
use crate::types::Instant;
use crate::wire::frame::LENGTH_BYTES;
use std::collections::VecDeque;

/// What a connection may hold without asking. Bytes.
const FLOOR: usize = limits::CLIENT_INPUT_FLOOR;

/// Largest request, its length included. Bytes.
const FRAME_BYTES_MAX: usize = limits::CLIENT_FRAME_BYTES_MAX + LENGTH_BYTES;

/// With so much room a connection is read for a turn without looking what comes: the end of a
/// request, and others, the last of which has only begun. Bytes.
const PLENTY: usize = 2 * FRAME_BYTES_MAX + limits::TURN_READ_BYTES;

/// While others wait, holders are looked at in steps of this. Nanoseconds.
const PACE_NS: u64 = 500_000_000;

/// Who sends less in a step does not mean to end its request. Bytes.
const PACE_BYTES: u64 = 16 * 1024;

/// The part of one connection.
#[derive(Debug)]
struct Share {
    id: ConnectionId,
    pool: PoolName,
    /// Set aside for it, beyond the floor. Bytes.
    granted: usize,
    /// What it waits for, unread, if it does. Bytes.
    wanted: Option<usize>,
    /// Bytes that it has sent.
    received: u64,
    /// What it had sent when the step under way began, if it held room then and was read.
    received_before: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PoolName {
    Small,
    Large,
}

/// Room for requests of about one size.
#[derive(Debug)]
struct Pool {
    granted: usize,
    bytes_max: usize,
    /// Who waits, in the order of asking, and some who no longer do.
    queue: VecDeque<ConnectionId>,
}

impl Pool {
    fn new(bytes_max: usize) -> Pool {
        Pool { granted: 0, bytes_max, queue: VecDeque::new() }
    }

    fn has(&self, bytes: usize) -> bool {
        self.granted + bytes <= self.bytes_max
    }
}

/// All room there is.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// By slot.
    shares: Vec<Option<Share>>,
    small: Pool,
    large: Pool,
    /// When the step ends in which those who do not send are found out, if somebody waits.
    pace_until: Option<Instant>,
    closed: Rarely,
}

impl Unfinished {
    /// Nobody holds anything.
    pub(super) fn new() -> Unfinished {
        Unfinished {
            shares: Vec::new(),
            small: Pool::new(limits::CLIENT_INPUT_SMALL_BYTES_MAX),
            large: Pool::new(limits::CLIENT_INPUT_LARGE_BYTES_MAX),
            pace_until: None,
            closed: Rarely::new(),
        }
    }

    /// Whether a connection waits for room, and is not to be read.
    pub(super) fn waits(&self, id: ConnectionId) -> bool {
        self.share(id).is_some_and(|share| share.wanted.is_some())
    }

    /// What a connection may hold. Bytes.
    pub(super) fn bytes_max(&self, id: ConnectionId) -> usize {
        self.share(id).map_or(0, |share| share.granted) + FLOOR
    }

    /// How much may be read now from a connection that holds `held` bytes.
    pub(super) fn readable(&self, id: ConnectionId, held: usize) -> usize {
        if self.waits(id) {
            0
        } else if self.large.queue.is_empty() && self.large.has(PLENTY) {
            limits::TURN_READ_BYTES
        } else {
            self.bytes_max(id).saturating_sub(held).min(limits::TURN_READ_BYTES)
        }
    }

    /// A connection has sent so many bytes.
    pub(super) fn note_received(&mut self, id: ConnectionId, bytes: usize) {
        if let Some(share) = self.share_mut(id) {
            share.received += u64_of(bytes);
        }
    }

    /// A connection is not read for a while: the step under way says nothing of it.
    pub(super) fn note_unread(&mut self, id: ConnectionId) {
        if let Some(share) = self.share_mut(id) {
            share.received_before = None;
        }
    }

    /// Sets room aside for a connection that holds `held` bytes, and `total` once all that it has
    /// begun has come; or lets it wait.
    pub(super) fn settle(&mut self, id: ConnectionId, held: usize, total: usize) {
        assert!(held <= total, "what is there is part of what comes");
        if self.shares.len() <= id.slot() {
            self.shares.resize_with(id.slot() + 1, || None);
        }
        // A length that nobody has judged yet may be anything.
        let total = total.min(held + FRAME_BYTES_MAX);
        let wanted = total.saturating_sub(FLOOR);
        match self.share(id).map_or(0, |share| share.granted) {
            0 if wanted == 0 && !self.waits(id) => return,
            granted if wanted <= granted => return self.grant(id, None, wanted),
            _less => {}
        }
        let small = total <= limits::SMALL_REQUEST_BYTES_MAX;
        let first = if small { PoolName::Small } else { PoolName::Large };
        // What is not large may also use room that nobody else waits for.
        for name in [first, PoolName::Large] {
            if self.pool(name).queue.is_empty() && self.has_room(name, id, wanted) {
                return self.grant(id, Some(name), wanted);
            }
        }
        // It keeps no room that it does not fill, or many would wait for each other.
        let waited = self.waits(id);
        self.grant(id, None, held.saturating_sub(FLOOR));
        let share = self.share_mut(id).expect("it was granted what it holds");
        share.wanted = Some(wanted);
        if !waited {
            self.pool(first).queue.push_back(id);
        }
    }

    /// The connection has ended, or is a peer's.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        if self.share(id).is_some() {
            self.grant(id, None, 0);
            self.shares[id.slot()] = None;
        }
    }

    /// The next connection for which there is room now.
    pub(super) fn next(&mut self) -> Option<ConnectionId> {
        for name in [PoolName::Small, PoolName::Large] {
            while let Some(&id) = self.pool(name).queue.front() {
                let wanted = self.share(id).and_then(|share| share.wanted);
                if wanted.is_some_and(|wanted| !self.has_room(name, id, wanted)) {
                    break;
                }
                self.pool(name).queue.pop_front();
                if let Some(wanted) = wanted {
                    self.grant(id, Some(name), wanted);
                    return Some(id);
                }
            }
        }
        None
    }

    /// Whom to close because others wait for the room that they hold and do not fill. `is_silent`
    /// says of a connection that we do read it, and that nothing more has come.
    pub(super) fn slow(
        &mut self,
        is_silent: impl Fn(ConnectionId) -> bool,
        now: Instant,
    ) -> Vec<ConnectionId> {
        let mut slow = Vec::new();
        if self.small.queue.is_empty() && self.large.queue.is_empty() {
            self.pace_until = None;
        } else if self.pace_until.is_none_or(|until| until <= now) {
            let goes_on = self.pace_until.replace(now.after_ns(PACE_NS)).is_some();
            for share in self.shares.iter_mut().flatten() {
                let counts = share.granted > 0 && share.wanted.is_none() && is_silent(share.id);
                let received = counts.then_some(share.received);
                let before = std::mem::replace(&mut share.received_before, received);
                if let (true, Some(before), Some(received)) = (goes_on, before, received)
                    && received - before < PACE_BYTES
                {
                    slow.push(share.id);
                }
            }
        }
        if !slow.is_empty()
            && let Some(count) = self.closed.count(u64_of(slow.len()), now)
        {
            let (bytes, max) = (self.large.granted, self.large.bytes_max);
            log::warn!(
                "closed clients whose unfinished requests keep others waiting count={count} \
                 bytes={bytes} max={max}"
            );
        }
        slow
    }

    /// When `slow` must be called.
    pub(super) fn wake_at(&self) -> Instant {
        self.pace_until.unwrap_or(Instant::FAR)
    }

    fn share(&self, id: ConnectionId) -> Option<&Share> {
        self.shares.get(id.slot())?.as_ref().filter(|share| share.id == id)
    }

    fn share_mut(&mut self, id: ConnectionId) -> Option<&mut Share> {
        self.shares.get_mut(id.slot())?.as_mut().filter(|share| share.id == id)
    }

    fn pool(&mut self, name: PoolName) -> &mut Pool {
        match name {
            PoolName::Small => &mut self.small,
            PoolName::Large => &mut self.large,
        }
    }

    /// Whether a connection can have `wanted` bytes of a pool, in place of what it has.
    fn has_room(&mut self, name: PoolName, id: ConnectionId, wanted: usize) -> bool {
        let own = self.share(id).filter(|share| share.pool == name);
        let own = own.map_or(0, |share| share.granted);
        self.pool(name).has(wanted.saturating_sub(own))
    }

    /// Gives a connection `bytes` in place of what it had, of the same pool if none is named.
    fn grant(&mut self, id: ConnectionId, name: Option<PoolName>, bytes: usize) {
        let slot = &mut self.shares[id.slot()];
        let share = slot.get_or_insert(Share {
            id,
            pool: PoolName::Small,
            granted: 0,
            wanted: None,
            received: 0,
            received_before: None,
        });
        assert!(share.id == id, "the shell reuses a slot only after its connection was forgotten");
        let (before, had) = (share.pool, share.granted);
        let name = name.unwrap_or(before);
        (share.pool, share.granted, share.wanted) = (name, bytes, None);
        self.pool(before).granted -= had;
        self.pool(name).granted += bytes;
    }
}

fn u64_of(count: usize) -> u64 {
    u64::try_from(count).expect("usize fits u64 wherever raftd runs")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn id(slot: u32) -> ConnectionId {
        ConnectionId::new(slot, 1)
    }

    /// As many as there is room for, each with the beginning of a request of the largest size.
    fn full() -> (Unfinished, u32) {
        let mut all = Unfinished::new();
        let mut holders = 0;
        while {
            all.settle(id(holders), FLOOR, FRAME_BYTES_MAX);
            !all.waits(id(holders))
        } {
            holders += 1;
        }
        (all, holders)
    }

    #[test]
    fn who_has_room_is_read_to_the_end_and_who_has_none_waits_in_turn() {
        let (mut all, waiting) = full();
        assert!(waiting > 10, "{waiting}");
        assert_eq!(all.readable(id(0), FLOOR), limits::TURN_READ_BYTES);
        assert_eq!(all.readable(id(0), FRAME_BYTES_MAX - 9), 9);
        assert_eq!(all.readable(id(waiting), FLOOR), 0);
        // What is not large does not wait; what has not begun is read to see what it is.
        all.settle(id(500), 4000, 5000);
        assert_eq!(all.readable(id(500), 4000), 1000);
        assert_eq!(all.readable(id(501), 0), FLOOR);
        // A smaller one does not overtake.
        all.settle(id(502), FLOOR, 1_000_000);
        assert_eq!(all.next(), None);
        all.settle(id(0), 0, 0);
        assert_eq!(all.next(), Some(id(waiting)));
        assert_eq!(all.next(), None);
        all.forget(id(1));
        assert_eq!(all.next(), Some(id(502)));
        assert_eq!(all.readable(id(502), FLOOR), limits::TURN_READ_BYTES);
    }

    #[test]
    fn what_is_held_keeps_its_room_and_what_is_not_is_given_back() {
        let (mut all, waiting) = full();
        // Whole requests that the node did not take, and the beginning of the next.
        all.settle(id(0), FRAME_BYTES_MAX + 9, 2 * FRAME_BYTES_MAX);
        assert!(all.waits(id(0)));
        assert_eq!(all.next(), None, "all of it is held");
        all.settle(id(0), 9, FRAME_BYTES_MAX);
        assert!(!all.waits(id(0)), "what it had is enough for the next");
        assert_eq!(all.next(), None);
        (0..=waiting).for_each(|slot| all.forget(id(slot)));
        assert_eq!((all.small.granted, all.large.granted), (0, 0));
        assert_eq!(all.next(), None, "who waited is gone");
        assert_eq!(all.readable(id(0), 0), limits::TURN_READ_BYTES);
    }

    #[test]
    fn who_keeps_others_waiting_and_sends_nothing_is_closed_and_nobody_else() {
        let (mut all, waiting) = full();
        let at = |ms: u64| Instant::from_ns(ms * MS);
        let unread = |silent: ConnectionId| silent != id(2);
        assert_eq!(all.slow(unread, at(0)), []);
        all.note_received(id(0), 20_000);
        all.note_unread(id(1));
        assert_eq!(all.slow(unread, at(499)), []);
        let slow = all.slow(unread, at(500));
        let expected: Vec<_> = (3..waiting).map(id).collect();
        assert_eq!(slow, expected);
        slow.iter().for_each(|slow| all.forget(*slow));
        assert_eq!(all.next(), Some(id(waiting)));
        assert_eq!(all.slow(unread, at(2000)), [], "nobody waits");
        assert_eq!(all.wake_at(), Instant::FAR);
    }
}
