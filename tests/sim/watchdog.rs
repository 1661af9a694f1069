//! Names a seed that does not end: nobody else would. Its thread cannot be stopped, so the process
//! ends with it.
//!
//! Age is counted in the watchdog's own ticks, not by a clock: a process that stands still, as a
//! machine that sleeps makes it, ages nobody.

use crate::options::Overrides;
use crate::output::tell;
use crate::report::flags;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread::{self, ThreadId};
use std::time::Duration;

/// Seconds that a seed may take if nobody says. Most take less than one.
pub(crate) const SEED_SECONDS: u64 = 120;
const TICK: Duration = Duration::from_secs(1);

/// The seed that a thread runs.
struct Running {
    thread: ThreadId,
    seed: u64,
    /// Those that repeat it.
    flags: String,
    ticks: u64,
}

/// All seeds that run.
#[derive(Default)]
struct Table(Vec<Running>);

static TABLE: Mutex<Table> = Mutex::new(Table(Vec::new()));

impl Table {
    fn begin(&mut self, thread: ThreadId, seed: u64, flags: String) {
        self.0.push(Running { thread, seed, flags, ticks: 0 });
    }

    fn end(&mut self, thread: ThreadId) {
        self.0.retain(|running| running.thread != thread);
    }

    /// A tick is over. The seed that has run for more than `limit` of them, if one has.
    fn tick(&mut self, limit: u64) -> Option<&Running> {
        self.0.iter_mut().for_each(|running| running.ticks += 1);
        self.0.iter().find(|running| running.ticks > limit)
    }
}

/// A seed is watched until this is dropped.
pub(crate) struct Watched(ThreadId);

impl Drop for Watched {
    fn drop(&mut self) {
        TABLE.lock().expect("nobody panics here").end(self.0);
    }
}

/// This thread runs a seed now, and no other.
pub(crate) fn watch(seed: u64, overrides: &Overrides) -> Watched {
    let thread = thread::current().id();
    TABLE.lock().expect("nobody panics here").begin(thread, seed, flags(overrides));
    Watched(thread)
}

/// From now on a seed that takes longer is named, and the process fails. `seconds` are meant for
/// a thread that has a core; with `jobs` threads for fewer cores each has a part of one.
pub(crate) fn start(seconds: u64, jobs: usize, cores: usize) {
    let share = u64::try_from(jobs.div_ceil(cores.max(1))).unwrap_or(u64::MAX).max(1);
    let limit = seconds.saturating_mul(share);
    thread::spawn(move || {
        // Nobody ever sends: that is a second without a reason to wake before it is over.
        let (_kept, never) = mpsc::channel::<()>();
        loop {
            let _ = never.recv_timeout(TICK);
            let mut table = TABLE.lock().expect("nobody panics here");
            if let Some(late) = table.tick(limit) {
                give_up(late);
            }
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "a thread that runs for ever cannot be joined")]
fn give_up(late: &Running) {
    let Running { seed, flags, ticks, .. } = late;
    tell!("FAILED seed={seed} invariant=Ends\nit still runs after {ticks} s");
    tell!("\nrepeat it:  scripts/sim --seed {seed}{flags} --trace");
    std::process::exit(1);
}

/// Who runs too long is found, and nobody else.
pub(crate) fn names_who_does_not_end() -> bool {
    let ids: Vec<ThreadId> = (0..2).map(|_| thread::spawn(|| {}).thread().id()).collect();
    let mut table = Table::default();
    table.begin(ids[0], 7, String::new());
    assert!(table.tick(2).is_none());
    table.begin(ids[1], 8, String::new());
    assert!(table.tick(2).is_none());
    // A thread that goes on to another seed begins anew.
    table.end(ids[0]);
    table.begin(ids[0], 9, String::new());
    assert!(table.tick(2).is_none());
    assert_eq!(table.tick(2).map(|late| late.seed), Some(8));
    table.end(ids[1]);
    assert_eq!(table.tick(2).map(|late| late.seed), Some(9));
    true
}
