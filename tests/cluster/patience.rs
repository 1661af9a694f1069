//! Waiting for the world: always for a condition, always with a deadline. The tests' only clock.

use raftd::client::Deadline;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What is waited for comes within this also on a machine ten times slower than those where it
/// takes some seconds. Only who fails waits for so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// The longest election timeout that a node with the default flags draws: from [300, 600) ms. Where
/// a bound is so many election timeouts, it is so many of these.
pub(super) const ELECTION_TIMEOUT_UPPER: Duration = Duration::from_millis(600);

/// Between two looks at a condition.
const STEP: Duration = Duration::from_millis(5);

/// Asks until there is an answer. Panics, naming `what`, when `limit` has passed.
pub(super) fn eventually<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(limit);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(!deadline.has_passed(), "not within {limit:?}: {what}");
        breathe(STEP);
    }
}

/// Measures until it takes no longer than `limit` once: whatever else a machine does makes a time
/// longer and never shorter, and what the product waits for it waits for each time. Panics when
/// patience ends, with the shortest. Returns that.
pub(super) fn at_best(
    what: &str,
    limit: Duration,
    mut measure: impl FnMut() -> Duration,
) -> Duration {
    let deadline = Deadline::after(PATIENCE);
    let mut best = Duration::MAX;
    loop {
        best = best.min(measure());
        if best <= limit {
            return best;
        }
        assert!(!deadline.has_passed(), "not once within {limit:?}, at best {best:?}: {what}");
    }
}

/// Does harm for so long, and on until as much has come of it as is wanted: `step` says how much
/// that is, and what is wanted. A slow machine takes longer for the same proof.
pub(super) fn go_on(seconds: u64, what: &str, mut step: impl FnMut() -> (u64, u64)) {
    let least = Duration::from_secs(seconds);
    let (end, give_up) = (Deadline::after(least), Deadline::after(least + PATIENCE));
    loop {
        let (so_far, wanted) = step();
        if so_far >= wanted && end.has_passed() {
            return;
        }
        let overdue = give_up.has_passed();
        assert!(!overdue, "{what}: {so_far} of {wanted} in {seconds} s and {PATIENCE:?}");
    }
}

/// Lets others work for about `pause`; nothing may depend on how long it is.
pub(super) fn breathe(pause: Duration) {
    thread::park_timeout(pause);
}

/// The moment now, to measure how long something took.
#[expect(clippy::disallowed_methods, reason = "the only clock of the cluster tests")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Tells threads to end when the test ends or fails, which would otherwise wait for them for ever.
pub(super) struct StopAtEnd<'a>(pub(super) &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
