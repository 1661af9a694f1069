//! Which watches of a stream wait to be open at a node, and when the next of them is asked for.
//!
//! ```text
//! queue    those that no node is asked for, who has waited for longest first
//! opening  those that one is asked for, and has not answered: at most `at_once`
//! ```
//!
//! However many there are, a node that cannot serve hears of few: each that is refused halves how
//! many are asked for at once, each that is opened adds one. A watch for which there has been no
//! room for long ends, for a client that hears nothing takes it for open and waits for events.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

use super::stream::Pause;

/// So many are asked for at once before any was refused: what comes of it is a small reply each.
const AT_ONCE_MAX: usize = 1024;

/// Waits before a node is asked again that could not serve: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long there may be no room for a watch. Nodes that come back are there again by then.
const NO_ROOM_MAX: Duration = Duration::from_secs(10);

/// The watches that wait.
pub(super) struct Waiters {
    /// Since when, those of the queue and those that are opening.
    since: BTreeMap<i64, Instant>,
    queue: BTreeSet<(Instant, i64)>,
    at_once: usize,
    /// Pauses since a watch was opened.
    attempts: u32,
    pause: Option<Pause>,
    /// When a node first said that there is no room. Forgotten once nobody waits.
    crowded_since: Option<Instant>,
}

impl Waiters {
    pub(super) fn new() -> Waiters {
        Waiters {
            since: BTreeMap::new(),
            queue: BTreeSet::new(),
            at_once: AT_ONCE_MAX,
            attempts: 0,
            pause: None,
            crowded_since: None,
        }
    }

    /// How many pauses there were in vain.
    pub(super) fn attempts(&self) -> usize {
        usize::try_from(self.attempts).unwrap_or(0)
    }

    /// A watch waits, if it does not yet: nobody is asked for it, or not any more.
    pub(super) fn add(&mut self, watch: i64, now: Instant) {
        let since = *self.since.entry(watch).or_insert(now);
        self.queue.insert((since, watch));
    }

    fn has_next(&self) -> bool {
        let opening = self.since.len() - self.queue.len();
        !self.queue.is_empty() && opening < self.at_once
    }

    /// The next to ask for; from then on it is opening.
    pub(super) fn take(&mut self) -> Option<i64> {
        if !self.has_next() {
            return None;
        }
        self.queue.pop_first().map(|(_, watch)| watch)
    }

    /// A watch is open, if it was waiting: nodes serve again.
    pub(super) fn opened(&mut self, watch: i64) {
        if self.since.contains_key(&watch) {
            self.remove(watch);
            self.attempts = 0;
            self.at_once = (self.at_once + 1).min(AT_ONCE_MAX);
        }
    }

    /// A watch waits no more.
    pub(super) fn remove(&mut self, watch: i64) {
        if let Some(since) = self.since.remove(&watch) {
            self.queue.remove(&(since, watch));
        }
        if self.since.is_empty() {
            self.crowded_since = None;
        }
    }

    /// A node has refused one.
    pub(super) fn refused(&mut self) {
        self.at_once = (self.at_once / 2).max(1);
    }

    /// It has because there is no room. Answers which watches have waited for too long for some.
    pub(super) fn crowded(&mut self, now: Instant) -> Vec<i64> {
        let crowded_since = *self.crowded_since.get_or_insert(now);
        let is_late = |since: Instant| now.duration_since(since) >= NO_ROOM_MAX;
        if !is_late(crowded_since) {
            return Vec::new();
        }
        let late = self.queue.iter().take_while(|(since, _)| is_late(*since));
        late.map(|(_, watch)| *watch).collect()
    }

    /// Nobody is asked until `pause` has made time pass; it is twice as long from one to the next.
    pub(super) fn wait(&mut self, pause: impl FnOnce(Duration) -> Pause) {
        // What was refused at once counts once.
        if self.pause.is_none() {
            let time = PAUSE_MIN.saturating_mul(1 << self.attempts.min(10)).min(PAUSE_MAX);
            self.attempts = self.attempts.saturating_add(1);
            self.pause = Some(pause(time));
        }
    }

    /// Nobody is asked until `pause` is over, which sees to what they were refused for: a pause
    /// that only makes time pass gives way to it.
    pub(super) fn wait_for(&mut self, pause: Pause) {
        self.pause = Some(pause);
    }

    /// Whether there is one to ask for now. If not, the task is woken when there may be; of what
    /// nodes say it hears otherwise.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> bool {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(context).is_pending() {
                return false;
            }
            self.pause = None;
        }
        self.has_next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(waiters: &mut Waiters) -> Vec<i64> {
        std::iter::from_fn(|| waiters.take()).collect()
    }

    /// All that waited were asked for again after each pause, thousands at once, and one that was
    /// opened made the next pause the shortest.
    #[test]
    fn a_node_that_has_no_room_hears_of_fewer_and_fewer() {
        let (mut waiters, now) = (Waiters::new(), Instant::now());
        (0..5000).for_each(|watch| waiters.add(watch, now));
        let mut counts = Vec::new();
        for _ in 0..3 {
            let asked = all(&mut waiters);
            counts.push(asked.len());
            for watch in asked {
                waiters.add(watch, now);
                waiters.refused();
            }
        }
        assert_eq!(counts, [AT_ONCE_MAX, 1, 1]);
        let asked = all(&mut waiters);
        assert_eq!(asked, [0], "who came first is the first again");
        waiters.opened(0);
        assert_eq!(all(&mut waiters), [1, 2], "one that is open makes room for two");
        waiters.remove(1);
        assert_eq!(all(&mut waiters), [3]);
        // A word of one that does not wait says nothing of room.
        waiters.opened(0);
        assert!(all(&mut waiters).is_empty());
    }

    #[test]
    fn pauses_grow_until_a_watch_is_open_and_refusals_at_once_are_one() {
        let mut waiters = Waiters::new();
        let mut times = Vec::new();
        let mut wait = |waiters: &mut Waiters| {
            waiters.pause = None;
            for _ in 0..9 {
                waiters.wait(|time| {
                    times.push(time.as_millis());
                    Box::pin(std::future::pending())
                });
            }
        };
        (0..7).for_each(|_| wait(&mut waiters));
        waiters.add(1, Instant::now());
        waiters.opened(1);
        wait(&mut waiters);
        assert_eq!(times, [50, 100, 200, 400, 800, 1000, 1000, 50]);
    }

    /// Its client heard nothing, for as long as others held all the room.
    #[test]
    fn who_finds_no_room_for_long_is_told() {
        let (mut waiters, start) = (Waiters::new(), Instant::now());
        let second = Duration::from_secs(1);
        waiters.add(1, start);
        let at = |seconds: u32| start + 100 * second + seconds * second;
        // That nobody could be asked for long is something else.
        assert!(waiters.crowded(at(0)).is_empty());
        waiters.add(2, at(1));
        assert!(waiters.crowded(at(9)).is_empty());
        assert_eq!(waiters.crowded(at(10)), [1]);
        waiters.remove(1);
        assert_eq!(waiters.crowded(at(11)), [2]);
        waiters.remove(2);
        waiters.add(3, at(12));
        assert!(waiters.crowded(at(13)).is_empty(), "it is another crowd");
    }

    #[test]
    fn a_watch_that_ends_before_it_is_asked_for_leaves_nothing() {
        let (mut waiters, now) = (Waiters::new(), Instant::now());
        for watch in [7, 7, 8] {
            waiters.add(watch, now);
        }
        waiters.remove(7);
        assert_eq!(all(&mut waiters), [8]);
        assert_eq!((waiters.since.len(), waiters.queue.len()), (1, 0));
    }
}
