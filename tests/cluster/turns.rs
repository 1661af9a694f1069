//! Who may run a cluster now. What most tests wait for is elections and time limits, so a few run
//! side by side; those that hold the product to a time run alone, so that a slow machine does not
//! look like a slow cluster.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Clusters side by side: on two cores three are idle for most of their time.
const AT_ONCE: usize = 3;

/// Beside whom a test may run its clusters.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Company {
    #[default]
    Others,
    /// It measures, or holds the product to a time.
    Nobody,
}

struct Turns {
    running: usize,
    /// Whoever wants to be alone: the others let it pass, or it would wait for the end of all.
    waiting_alone: usize,
}

static TURNS: Mutex<Turns> = Mutex::new(Turns { running: 0, waiting_alone: 0 });
static ENDED: Condvar = Condvar::new();

fn turns() -> MutexGuard<'static, Turns> {
    TURNS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to run clusters, until it is dropped.
pub(super) struct Turn {
    places: usize,
}

impl Turn {
    /// Waits for room.
    pub(super) fn take(company: Company) -> Turn {
        let mut turns = turns();
        let places = match company {
            Company::Others => {
                let full = |turns: &mut Turns| turns.waiting_alone > 0 || turns.running == AT_ONCE;
                turns = ENDED.wait_while(turns, full).unwrap_or_else(PoisonError::into_inner);
                1
            }
            Company::Nobody => {
                turns.waiting_alone += 1;
                let busy = |turns: &mut Turns| turns.running > 0;
                turns = ENDED.wait_while(turns, busy).unwrap_or_else(PoisonError::into_inner);
                turns.waiting_alone -= 1;
                AT_ONCE
            }
        };
        turns.running += places;
        assert!(turns.running <= AT_ONCE, "{} clusters run", turns.running);
        Turn { places }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        turns().running -= self.places;
        ENDED.notify_all();
    }
}
