//! What has been read of requests that have not ended, of all clients together: who holds it, and
//! who is closed when it is too much.
//!
//! The victim is who has held most for longest, the largest product of bytes and time. Whoever
//! hoards is that sooner or later; a request that comes at once is not, however large it is. Peers
//! are few and bounded, and count for nothing here.

use super::rarely::Rarely;
use crate::limits;
use crate::replica::ConnectionId;
use crate::types::Instant;

/// Room that is made at once, so that the holders are not looked through at every read: two of the
/// largest requests. Bytes.
const SLACK_BYTES: usize = 2 * limits::CLIENT_FRAME_BYTES_MAX;

/// What one connection holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    bytes: usize,
    /// Since when nothing of it was taken.
    since: Instant,
}

impl Held {
    /// Nothing.
    pub(super) const NOTHING: Held = Held { bytes: 0, since: Instant::ZERO };

    fn cost(&self, now: Instant) -> u128 {
        let bytes = u64::try_from(self.bytes).expect("usize fits u64 wherever raftd runs");
        // Of those that came in this turn the largest costs most.
        u128::from(bytes) * u128::from(now.ns_since(self.since) + 1)
    }
}

/// What all clients hold.
#[derive(Debug)]
pub(super) struct Unfinished {
    bytes: usize,
    closed: Rarely,
}

impl Unfinished {
    /// Nothing yet.
    pub(super) fn new() -> Unfinished {
        Unfinished { bytes: 0, closed: Rarely::new() }
    }

    /// A connection holds `bytes` now, of which some may be younger than before.
    pub(super) fn hold(&mut self, held: &mut Held, bytes: usize, since: Option<Instant>) {
        assert!(held.bytes <= self.bytes, "what one holds is part of what all hold");
        self.bytes = self.bytes - held.bytes + bytes;
        *held = Held { bytes, since: since.unwrap_or(held.since) };
    }

    /// Whether somebody must be closed.
    pub(super) fn is_too_much(&self) -> bool {
        self.bytes > limits::CLIENT_INPUT_BYTES_MAX
    }

    /// Whom to close so that there is room again.
    pub(super) fn victims(
        &mut self,
        holders: impl Iterator<Item = (ConnectionId, Held)>,
        now: Instant,
    ) -> Vec<ConnectionId> {
        let mut holders: Vec<_> = holders.filter(|(_, held)| held.bytes > 0).collect();
        holders.sort_by_key(|(_, held)| std::cmp::Reverse(held.cost(now)));
        let excess = self.bytes.saturating_sub(limits::CLIENT_INPUT_BYTES_MAX - SLACK_BYTES);
        let mut freed = 0;
        let victims = holders.iter().take_while(|(_, held)| {
            let wanted = freed < excess;
            freed += held.bytes;
            wanted
        });
        let victims: Vec<_> = victims.map(|(id, _)| *id).collect();
        let count = u64::try_from(victims.len()).expect("usize fits u64 wherever raftd runs");
        if let Some(count) = self.closed.count(count, now) {
            let (bytes, max) = (self.bytes, limits::CLIENT_INPUT_BYTES_MAX);
            log::warn!(
                "closed clients that hold too much of unfinished requests count={count} \
                 bytes={bytes} max={max}"
            );
        }
        victims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn who_has_held_most_for_longest_is_closed_first() {
        let mut all = Unfinished::new();
        let id = |slot| ConnectionId::new(slot, 1);
        let mib = 1024 * 1024;
        // Many hoarders of halves, one tiny frame that is stuck, one large request under way.
        let hoarders = limits::CLIENT_INPUT_BYTES_MAX / (mib / 2) - 1;
        let sizes: Vec<_> = std::iter::repeat_n((mib / 2, SECOND), hoarders)
            .chain([(100, 0), (mib, 10 * SECOND - 1)])
            .collect();
        let mut holders = Vec::new();
        for (slot, (bytes, since)) in (0..).zip(sizes) {
            let mut held = Held::NOTHING;
            all.hold(&mut held, bytes, Some(Instant::from_ns(since)));
            holders.push((id(slot), held));
        }
        assert!(all.is_too_much());
        let victims = all.victims(holders.iter().copied(), Instant::from_ns(10 * SECOND));
        assert!((1..=8).contains(&victims.len()), "{victims:?}");
        assert!(victims.iter().all(|victim| victim.slot() < hoarders), "{victims:?}");
        for (_, held) in holders.iter_mut().filter(|(id, _)| victims.contains(id)) {
            all.hold(held, 0, None);
        }
        assert!(!all.is_too_much());
    }
}
