//! What is asked next and when, and what an answer is worth.

use super::error::LoadError;
use super::ledger::{Found, KeyNumber, Ledger};
use super::popularity::Chooser;
use super::speaker::{Answer, Asked, Refusal};
use super::tally::{Tally, Timeline};
use super::task::{ENDING, OnFailure, Pace, Signals, Step, Taken, Task, WARMING};
use super::workload::{Kind, Mix, Work, Workload};

/// More refusals than this and the load has failed, unless it goes on after failures.
const REFUSALS_MAX: u64 = 10_000;

/// The most keys of a scan; YCSB's.
const SCAN_KEYS_MAX: u32 = 100;

/// How long operations that were due before the end are waited for. Nanoseconds.
const DRAIN_NS: u64 = 5_000_000_000;

/// The operations of a load, one after the other.
#[derive(Debug)]
pub struct Script<'l> {
    work: Work,
    pace: Pace,
    on_failure: OnFailure,
    chooser: Chooser,
    ledger: &'l mut Ledger,
    signals: &'l Signals,
    /// The next key of a work that ends by itself.
    next_key: u32,
    /// When the first operation of an open loop was due.
    start_ns: Option<u64>,
    /// Operations handed out so far.
    issued: u64,
    measured_from_ns: Option<u64>,
    ended_ns: Option<u64>,
    done: u64,
    key: Vec<u8>,
    tally: Tally,
}

impl<'l> Script<'l> {
    /// A load on the keys of `ledger`, as `signals` say. `seed` draws the keys.
    pub fn new(
        workload: Workload,
        pace: Pace,
        on_failure: OnFailure,
        seed: u64,
        ledger: &'l mut Ledger,
        signals: &'l Signals,
    ) -> Script<'l> {
        Script {
            work: workload.work,
            pace,
            on_failure,
            chooser: Chooser::new(workload.popularity, seed),
            ledger,
            signals,
            next_key: 0,
            start_ns: None,
            issued: 0,
            measured_from_ns: None,
            ended_ns: None,
            done: 0,
            key: Vec::new(),
            tally: Tally::new(),
        }
    }

    /// Notes, too, how latencies go over time.
    #[must_use]
    pub fn with_timeline(mut self, timeline: Timeline) -> Script<'l> {
        self.tally.timeline = Some(timeline);
        self
    }

    /// Whether the load goes on after failures.
    pub fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    /// When operations are asked.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Operations done so far.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// What is due and not handed out, if anything.
    pub fn next(&mut self, now_ns: u64) -> Option<Task> {
        let phase = self.look(now_ns);
        let due_ns = self.due(now_ns, phase)?;
        let task = match self.work {
            Work::Fill | Work::Check => self.next_of_all(due_ns)?,
            Work::Mixed(mix) => self.draw(mix, due_ns)?,
        };
        self.issued += 1;
        if self.is_measured(&task) && self.pace != Pace::Closed {
            self.tally.late.saturating_record(now_ns.saturating_sub(due_ns));
        }
        Some(task)
    }

    /// Whether `next` will have nothing any more.
    pub fn is_over(&mut self, now_ns: u64) -> bool {
        let ending = self.look(now_ns) == ENDING;
        match (self.work, self.pace, self.ended_ns) {
            (Work::Fill | Work::Check, ..) => ending || self.next_key == self.ledger.keys(),
            (Work::Mixed(_), Pace::Open { .. }, Some(ended_ns)) => {
                self.due_ns() >= ended_ns || now_ns >= ended_ns + DRAIN_NS
            }
            (Work::Mixed(_), Pace::Open { .. } | Pace::Closed, _) => ending,
        }
    }

    /// What came of it, at the end.
    pub fn finish(mut self) -> Tally {
        self.tally.unasked = self.unasked();
        self.tally
    }

    fn unasked(&self) -> u64 {
        let (Pace::Open { per_second }, Some(start_ns)) = (self.pace, self.start_ns) else {
            return 0;
        };
        let end_ns = self.ended_ns.unwrap_or(start_ns);
        let passed = u128::from(end_ns.saturating_sub(start_ns)) * u128::from(per_second);
        let due = u64::try_from(passed / 1_000_000_000).unwrap_or(u64::MAX);
        due.saturating_sub(self.issued)
    }

    /// What a task asks, in bytes.
    pub fn asked(&mut self, task: &Task) -> Asked<'_> {
        self.ledger.layout().write_key(task.key, &mut self.key);
        match task.step {
            Step::Put(put) => {
                Asked::Put { key: &self.key, value: self.ledger.value(task.key, put) }
            }
            Step::Get { .. } => Asked::Get { key: &self.key },
            Step::Scan { limit } => {
                Asked::Scan { key: &self.key, end: self.ledger.layout().end(), limit }
            }
        }
    }

    /// Judges and counts an answer.
    pub fn take(
        &mut self,
        task: &Task,
        answer: &Answer<'_>,
        now_ns: u64,
    ) -> Result<Taken, LoadError> {
        self.look(now_ns);
        match (task.step, answer) {
            (Step::Put(put), Answer::Put { revision }) => {
                self.ledger.acknowledge(task.key, put, *revision);
            }
            (Step::Get { at_least }, Answer::Found(found)) => {
                let right = self.is_right(task.key, at_least, found);
                self.tally.wrong += u64::from(!right);
                if task.kind == Kind::Modify {
                    let step = Step::Put(self.ledger.next_put());
                    return Ok(Taken::Then(Task { step, ..*task }));
                }
            }
            (Step::Get { .. }, Answer::Missing) => {
                self.tally.wrong += u64::from(!self.ledger.may_be_missing(task.key));
            }
            (Step::Scan { limit }, Answer::Scanned { keys }) => {
                let right = (1..=u64::from(limit)).contains(keys);
                self.tally.wrong += u64::from(!right);
            }
            // A scan that found one key, or none though its first one is there.
            (Step::Scan { .. }, Answer::Found(_)) => {}
            (Step::Scan { .. }, Answer::Missing) => self.tally.wrong += 1,
            (_, Answer::Refused(refusal)) => return self.refused(task, refusal),
            (asked, answer) => {
                return Err(LoadError::answer(format!("asked {asked:?}, got {answer:?}")));
            }
        }
        self.count(task, now_ns);
        Ok(Taken::Done)
    }

    /// The connection of a task is gone, and with it the answer. The task is asked again.
    pub fn lost(&mut self, task: &Task, why: &str) {
        *self.tally.errors.entry(why.to_owned()).or_default() += 1;
        self.repeat(task);
    }

    fn repeat(&mut self, task: &Task) {
        self.tally.repeated += 1;
        if let Step::Put(_) = task.step {
            self.ledger.doubt();
        }
    }

    /// Looks at the signals. Returns the phase.
    fn look(&mut self, now_ns: u64) -> u8 {
        let phase = self.signals.phase();
        if phase != WARMING && self.measured_from_ns.is_none() {
            self.measured_from_ns = Some(now_ns);
        }
        if phase == ENDING && self.ended_ns.is_none() {
            self.ended_ns = Some(now_ns);
        }
        phase
    }

    /// When the next operation is due, if it is now.
    fn due(&mut self, now_ns: u64, phase: u8) -> Option<u64> {
        if let Pace::Closed = self.pace {
            return (phase != ENDING).then_some(now_ns);
        }
        if phase == ENDING && self.start_ns.is_none() {
            return None;
        }
        self.start_ns.get_or_insert(now_ns);
        // What was due before the end is asked even after it: a server that stood still then must
        // not be spared its waiting.
        let until_ns = match self.ended_ns {
            Some(ended_ns) if now_ns < ended_ns + DRAIN_NS => ended_ns,
            Some(_) => return None,
            None => now_ns + 1,
        };
        Some(self.due_ns()).filter(|due_ns| *due_ns < until_ns)
    }

    /// When the next operation of an open loop is due.
    fn due_ns(&self) -> u64 {
        let (Pace::Open { per_second }, Some(start_ns)) = (self.pace, self.start_ns) else {
            return u64::MAX;
        };
        let after_ns = u128::from(self.issued) * 1_000_000_000 / u128::from(per_second.max(1));
        start_ns.saturating_add(u64::try_from(after_ns).unwrap_or(u64::MAX))
    }

    fn next_of_all(&mut self, due_ns: u64) -> Option<Task> {
        if self.next_key >= self.ledger.keys() {
            return None;
        }
        let key = KeyNumber(self.next_key);
        self.next_key += 1;
        let kind = if self.work == Work::Check { Kind::Read } else { Kind::Insert };
        Some(self.task(kind, key, due_ns))
    }

    fn draw(&mut self, mix: Mix, due_ns: u64) -> Option<Task> {
        let kind = mix.pick(self.chooser.below(mix.total()));
        let key = match kind {
            Kind::Insert => self.ledger.add_key()?,
            Kind::Read | Kind::Update | Kind::Scan | Kind::Modify => {
                KeyNumber(self.chooser.choose(self.ledger.known_keys().max(1)))
            }
        };
        Some(self.task(kind, key, due_ns))
    }

    fn task(&mut self, kind: Kind, key: KeyNumber, due_ns: u64) -> Task {
        let step = match kind {
            Kind::Update | Kind::Insert => Step::Put(self.ledger.next_put()),
            Kind::Read | Kind::Modify => {
                Step::Get { at_least: self.ledger.acknowledged_revision(key) }
            }
            Kind::Scan => Step::Scan { limit: 1 + self.chooser.below(SCAN_KEYS_MAX) },
        };
        Task { due_ns, key, kind, step }
    }

    fn is_right(&self, key: KeyNumber, at_least: u64, found: &Found<'_>) -> bool {
        match self.work {
            Work::Check => self.ledger.is_newest(key, found),
            Work::Fill | Work::Mixed(_) => self.ledger.is_right(key, at_least, found),
        }
    }

    fn is_measured(&self, task: &Task) -> bool {
        match (self.work, self.pace) {
            (Work::Fill | Work::Check, _) => true,
            (Work::Mixed(_), Pace::Closed) => {
                self.measured_from_ns.is_some() && self.ended_ns.is_none()
            }
            (Work::Mixed(_), Pace::Open { .. }) => {
                self.measured_from_ns.is_some_and(|from_ns| task.due_ns >= from_ns)
            }
        }
    }

    fn count(&mut self, task: &Task, now_ns: u64) {
        self.done += 1;
        self.signals.set_done(self.done);
        let latency_ns = now_ns.saturating_sub(task.due_ns);
        if self.is_measured(task) {
            self.tally.record(task.kind, latency_ns);
        }
        if let Some(timeline) = &mut self.tally.timeline {
            timeline.record(task.due_ns, latency_ns);
        }
    }

    fn refused(&mut self, task: &Task, refusal: &Refusal) -> Result<Taken, LoadError> {
        *self.tally.errors.entry(refusal.to_string()).or_default() += 1;
        match (self.on_failure, refusal) {
            (OnFailure::Stop, Refusal::NotLeader { .. }) => return Err(LoadError::LeaderLost),
            (OnFailure::Stop, Refusal::NotDone { .. } | Refusal::Unknown { .. })
            | (OnFailure::GoOn, Refusal::NotDone { again: false, .. }) => {}
            (OnFailure::GoOn, Refusal::NotLeader { .. } | Refusal::NotDone { .. }) => {
                self.tally.repeated += 1;
                return Ok(Taken::Again(*task));
            }
            (OnFailure::GoOn, Refusal::Unknown { .. }) => {
                self.repeat(task);
                return Ok(Taken::Again(*task));
            }
        }
        if let Step::Put(_) = task.step {
            self.ledger.give_up(task.key);
        }
        let count = self.tally.refusals();
        if self.on_failure == OnFailure::Stop && count > REFUSALS_MAX {
            return Err(LoadError::Refused { count, last: refusal.to_string() });
        }
        Ok(Taken::Done)
    }
}
