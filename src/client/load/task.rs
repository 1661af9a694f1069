//! What a load and whoever measures it say to each other.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::ledger::{KeyNumber, PutNumber};
use super::workload::Kind;

/// What to do when a connection breaks or another server leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnFailure {
    /// The load fails: its figures would say nothing.
    Stop,
    /// Go on at the next server, and ask again what was not answered.
    GoOn,
}

/// When operations are asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// As soon as there is a place: a closed loop.
    Closed,
    /// At fixed moments: an open loop.
    Open {
        /// So many in a second; 1 or more.
        per_second: u64,
    },
}

pub(super) const WARMING: u8 = 0;
pub(super) const MEASURING: u8 = 1;
pub(super) const ENDING: u8 = 2;

/// How whoever measures and the load talk to each other.
#[derive(Debug, Default)]
pub struct Signals {
    phase: AtomicU8,
    done: AtomicU64,
}

impl Signals {
    /// From now on latencies count.
    pub fn measure(&self) {
        self.phase.store(MEASURING, Ordering::Release);
    }

    /// Nothing new is due from now on; what is under way is awaited.
    pub fn end(&self) {
        self.phase.store(ENDING, Ordering::Release);
    }

    /// Operations done so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// Which phase it is.
    pub(super) fn phase(&self) -> u8 {
        self.phase.load(Ordering::Acquire)
    }

    /// So many operations are done.
    pub(super) fn set_done(&self, done: u64) {
        self.done.store(done, Ordering::Release);
    }
}

/// An operation, or the part of it that is under way.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// When it was due. Nanoseconds.
    pub due_ns: u64,
    /// What it is about.
    pub key: KeyNumber,
    /// What kind of operation it is.
    pub kind: Kind,
    /// What it asks.
    pub step: Step,
}

/// What a task asks.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// To put its key.
    Put(PutNumber),
    /// To read its key; the answer must have this revision or a later one.
    Get {
        /// The newest acknowledged one when the read began.
        at_least: u64,
    },
    /// To read keys from its own on.
    Scan {
        /// At most so many.
        limit: u32,
    },
}

/// What follows an answer.
#[derive(Clone, Copy, Debug)]
pub enum Taken {
    /// Nothing: the operation is over.
    Done,
    /// The next step of the operation.
    Then(Task),
    /// The same once more, at whoever leads now.
    Again(Task),
}
