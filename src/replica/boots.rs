//! Which start of another server is the newest. Who speaks as an older one when a newer one has
//! spoken runs on a copy of the data directory, or the newer one does: neither knows what the
//! other has promised.
//!
//! `boot_nonce` tells them apart. Its upper half is the version of the hard state at the start,
//! which grows with every start of a directory; its lower half is chance, so that of two copies of
//! one age all servers prefer the same.
//!
//! A restart is never mistaken for that: its nonce is larger than any before it. The bytes of a
//! process that has ended may come late, through a network that is slow or to a server that was
//! paused; to refuse them does no harm, but people are told only if the same start speaks again
//! after a while.
//!
//! Nobody proves who they are, so a start that spoke once and is gone must not lock out those
//! before it for good: it counts while it is connected, and for a while after it spoke.

use crate::types::{DiskId, Instant};

/// Longer than anything that was on its way when its sender ended. Nanoseconds.
const LATE_NS: u64 = 1_000_000_000;

/// How long a start counts after it spoke, if it is not connected. Nanoseconds.
const GONE_NS: u64 = 30_000_000_000;

/// The nonce of a start at which the hard state has this version.
pub(super) fn boot_nonce(version: u64, chance: u64) -> u64 {
    let half = u64::from(u32::MAX);
    (version.min(half) << 32) | (chance & half)
}

/// A start of a server, as it was heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Boot {
    /// Of this data directory.
    pub(super) disk_id: DiskId,
    /// `boot_nonce`.
    pub(super) nonce: u64,
    /// Where it spoke from; for people.
    pub(super) origin: String,
}

/// What was heard of the starts of one server.
#[derive(Debug, Default)]
pub(super) struct Boots {
    newest: Option<Boot>,
    /// When `newest` spoke last.
    spoke_at: Instant,
    stale: Option<Stale>,
}

/// A start that was refused.
#[derive(Debug)]
struct Stale {
    nonce: u64,
    since: Instant,
    told: bool,
}

impl Boots {
    /// Takes note of a start that speaks; `connected`: the one heard last still is. `Err` with the
    /// newer one, if that has spoken before.
    pub(super) fn hear(&mut self, boot: &Boot, connected: bool, now: Instant) -> Result<(), Boot> {
        let counts = connected || now < self.spoke_at.after_ns(GONE_NS);
        match &self.newest {
            // Another directory is the configuration's to judge.
            Some(newest)
                if newest.disk_id == boot.disk_id && newest.nonce > boot.nonce && counts =>
            {
                Err(newest.clone())
            }
            Some(_) | None => {
                (self.newest, self.spoke_at) = (Some(boot.clone()), now);
                Ok(())
            }
        }
    }

    /// Whether this start has not spoken before, or not last.
    pub(super) fn is_news(&self, boot: &Boot) -> bool {
        self.newest.as_ref().is_none_or(|newest| newest.nonce != boot.nonce)
    }

    /// Whether people are to be told that this start was refused: once, if it is no late word.
    pub(super) fn must_tell(&mut self, nonce: u64, now: Instant) -> bool {
        match &mut self.stale {
            Some(stale) if stale.nonce == nonce => {
                let tell = !stale.told && stale.since.after_ns(LATE_NS) <= now;
                stale.told |= tell;
                tell
            }
            Some(_) | None => {
                self.stale = Some(Stale { nonce, since: now, told: false });
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(disk: u128, version: u64, chance: u64) -> Boot {
        let nonce = boot_nonce(version, chance);
        Boot { disk_id: DiskId(disk), nonce, origin: format!("{version}/{chance}") }
    }

    #[test]
    fn a_later_start_is_larger_whatever_chance_says() {
        assert!(boot_nonce(1, u64::MAX) < boot_nonce(2, 0));
        assert!(boot_nonce(u64::MAX, 1) < boot_nonce(u64::MAX, 2));
    }

    #[test]
    fn an_older_start_of_the_same_directory_is_refused_and_another_directory_is_not() {
        let mut boots = Boots::default();
        let now = Instant::from_ns(1);
        let (old, new) = (boot(1, 5, 9), boot(1, 6, 2));
        for heard in [&old, &old, &new, &new] {
            assert_eq!(boots.hear(heard, false, now), Ok(()));
        }
        assert_eq!(boots.hear(&old, true, now), Err(new.clone()));
        assert_eq!(boots.hear(&new, true, now), Ok(()), "the newer one is not disturbed");
        assert_eq!(boots.hear(&boot(2, 1, 0), true, now), Ok(()), "the disk was replaced");
    }

    /// A stranger once said hello with the largest nonce there is, hung up, and the real member was
    /// refused for ever.
    #[test]
    fn a_start_that_spoke_and_is_gone_stops_counting() {
        let mut boots = Boots::default();
        let (start, gone) = (Instant::from_ns(1), Instant::from_ns(1).after_ns(GONE_NS));
        let (old, new) = (boot(1, 5, 9), boot(1, u64::MAX, u64::MAX));
        assert_eq!(boots.hear(&new, false, start), Ok(()));
        assert_eq!(boots.hear(&old, false, start.after_ns(GONE_NS - 1)), Err(new.clone()));
        assert_eq!(boots.hear(&old, true, gone), Err(new), "it is still there");
        assert_eq!(boots.hear(&old, false, gone), Ok(()));
    }

    #[test]
    fn people_are_told_once_and_not_of_a_late_word() {
        let mut boots = Boots::default();
        let at = |ms: u64| Instant::from_ns(ms * 1_000_000);
        let told: Vec<bool> =
            [0, 10, 999, 1_000, 1_010, 9_000].map(|ms| boots.must_tell(7, at(ms))).to_vec();
        assert_eq!(told, [false, false, false, true, false, false]);
        assert!(!boots.must_tell(8, at(9_000)), "another one, for the first time");
    }
}
