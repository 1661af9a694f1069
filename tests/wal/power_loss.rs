//! Ten thousand power losses: after each, what was durable is there, and the rest is a history that
//! could have been.

use super::sim_disk::{Rng, SimDisk};
use super::support::{
    Driver, LogEntry, SEGMENT_BYTES, hard_state, index, options, payload, snapshot_blocks,
};
use raftd::limits::ENTRY_OVERHEAD_BYTES;
use raftd::limits::EntryLimits;
use raftd::types::{EntryKind, HardState, LogIndex, LogPosition, Term};
use raftd::wal::{Job, OpenError, Recovered, SnapshotEvent};

/// One change to the log, in the order in which it was staged.
#[derive(Clone, Debug)]
enum Change {
    Append(LogEntry),
    Truncate(usize),
}

fn apply(log: &mut Vec<LogEntry>, change: &Change) {
    match change {
        Change::Append(entry) => log.push(entry.clone()),
        Change::Truncate(kept) => log.truncate(*kept),
    }
}

/// What the disk must hold.
#[derive(Clone, Default)]
struct Promise {
    /// After the last job that was done.
    log: Vec<LogEntry>,
    hard_state: HardState,
    genesis: u64,
    /// The last entry in the snapshot in force.
    snapshot: LogIndex,
}

/// A log, what it promised, and what is under way.
struct World {
    rng: Rng,
    driver: Driver,
    promise: Promise,
    /// With everything staged.
    log: Vec<LogEntry>,
    hard_state: HardState,
    genesis: u64,
    staged: Vec<Change>,
    commit: u64,
    /// What the cluster has committed. If this server loses some of it, it gets the same again.
    committed: Vec<LogEntry>,
    counts: Counts,
}

/// A run that exercised too little is a failed run.
#[derive(Default, Debug)]
struct Counts {
    losses: u64,
    losses_in_open: u64,
    jobs: u64,
    torn: u64,
    truncations: u64,
    truncations_lost: u64,
    rotations: usize,
    partial: u64,
    snapshots: u64,
    compactions: u64,
}

#[test]
fn what_was_durable_survives_ten_thousand_power_losses() {
    let mut total = Counts::default();
    let mut seed = 0;
    while total.losses < 10_000 {
        seed += 1;
        let counts = live(seed);
        total.losses += counts.losses;
        total.losses_in_open += counts.losses_in_open;
        total.jobs += counts.jobs;
        total.torn += counts.torn;
        total.truncations += counts.truncations;
        total.truncations_lost += counts.truncations_lost;
        total.rotations += counts.rotations;
        total.partial += counts.partial;
        total.snapshots += counts.snapshots;
        total.compactions += counts.compactions;
    }
    println!("{seed} lives: {total:?}");
    assert!(total.losses_in_open > 500);
    assert!(total.torn > 1000);
    assert!(total.truncations > 5000);
    assert!(total.truncations_lost > 500);
    assert!(total.rotations > 500);
    assert!(total.partial > 500);
    assert!(total.snapshots > 500);
    assert!(total.compactions > 200);
}

/// One directory and the power losses it lives through.
fn live(seed: u64) -> Counts {
    let disk = SimDisk::new(seed);
    let mut counts = Counts::default();
    let mut rng = Rng(seed ^ 0xabcd);
    let driver = reopen(&disk, &mut rng, &mut counts, seed);
    let mut world = World {
        rng,
        driver,
        promise: Promise::default(),
        log: Vec::new(),
        hard_state: HardState::default(),
        genesis: 0,
        staged: Vec::new(),
        commit: 0,
        committed: Vec::new(),
        counts,
    };
    for _ in 0..16 {
        let long = if world.rng.percent(25) { 300 } else { 60 };
        let fuse = world.rng.below(long);
        disk.light_fuse(fuse);
        let job = world.until_the_power_goes();
        drop(job);
        world.recover(&disk, seed);
    }
    world.counts.rotations += world.driver.recovered.report.segments - 1;
    world.counts
}

/// Opens the directory, with the power failing now and then meanwhile. Nothing but that may make it
/// fail.
fn reopen(disk: &SimDisk, rng: &mut Rng, counts: &mut Counts, seed: u64) -> Driver {
    loop {
        disk.power_loss();
        counts.losses += 1;
        if rng.percent(20) {
            let fuse = rng.below(25);
            disk.light_fuse(fuse);
        }
        match Driver::open(disk) {
            Ok(driver) if !disk.is_dead() => {
                disk.put_out_fuse();
                return driver;
            }
            Ok(_) => {}
            Err(OpenError::Io { .. }) if disk.is_dead() => {}
            Err(error) => {
                panic!("seed {seed}: refused to start: {error}")
            }
        }
        counts.losses_in_open += 1;
    }
}

impl World {
    fn until_the_power_goes(&mut self) -> Option<Job> {
        loop {
            self.stage_something();
            while self.rng.percent(60) {
                if let Some(job) = self.driver.wal.background_job() {
                    let event = self.driver.wal.background_done(job.run());
                    if let Ok(Some(SnapshotEvent::DraftReady { id })) = event {
                        self.driver.wal.adopt_draft(id.position.index);
                        self.counts.snapshots += 1;
                    }
                }
                self.driver.wal.retry_background();
            }
            if self.rng.percent(40) {
                let seq = self.driver.next_seq();
                let commit = index(self.commit);
                let Some(job) = self.driver.wal.begin_job(seq, commit) else { continue };
                self.counts.jobs += 1;
                for operation in &job.operations {
                    if operation.run().is_err() {
                        return Some(job);
                    }
                    // The loop goes on meanwhile; what it stages now is not part of the job.
                }
                self.driver.wal.job_done(seq);
                let snapshot = self.driver.wal.snapshot();
                self.promise = Promise {
                    log: self.log.clone(),
                    hard_state: self.hard_state,
                    genesis: self.genesis,
                    snapshot: snapshot.map_or(LogIndex::ZERO, |it| it.id.position.index),
                };
                self.counts.compactions += u64::from(self.driver.wal.take_compacted().is_some());
                self.staged.clear();
                self.driver.wal.recycle(job);
            }
            if self.driver.disk.is_dead() {
                return None;
            }
        }
    }

    fn stage_something(&mut self) {
        match self.rng.below(11) {
            0 => {
                let term = self.hard_state.term.get() + self.rng.below(3);
                self.hard_state = hard_state(term.max(1));
                self.genesis = self.genesis.max(self.rng.below(3));
                self.driver.wal.set_hard_state(self.hard_state, self.genesis);
            }
            1 | 2 => self.truncate(),
            3 => {
                let last = u64::try_from(self.agreeing()).unwrap();
                self.commit += self.rng.below(last - self.commit + 1).min(3);
                let commit = usize::try_from(self.commit).unwrap();
                let known = self.committed.len().min(commit);
                self.committed.extend_from_slice(&self.log[known..commit]);
            }
            6 => self.draft(),
            4 if self.driver.wal.sync_mark_due() => self.driver.wal.stage_sync_mark(),
            5 => self.driver.wal.lift_durable_end(),
            _ => {
                for _ in 0..=self.rng.below(4) {
                    self.append();
                }
            }
        }
    }

    /// Begins a snapshot of something that is committed and durable.
    fn draft(&mut self) {
        let known = usize::try_from(self.commit).unwrap();
        let last = self.promise.log.len().min(known).min(self.log.len());
        let durable = self.promise.log[..last] == self.log[..last];
        let base = usize::try_from(self.driver.wal.base().index.get()).unwrap();
        if !durable || last <= base || self.driver.wal.snapshot_under_way() {
            return;
        }
        let last = base + 1 + self.rng.index(last - base);
        let position = position(&self.log[..last]);
        let newer = self.promise.snapshot < position.index;
        if newer && self.committed.get(..last) == Some(&self.log[..last]) {
            self.driver.wal.begin_draft(position, (index(1), Vec::new()));
            for mut block in snapshot_blocks(position) {
                self.driver.wal.push_draft(&mut block);
            }
            self.driver.wal.end_draft();
        }
    }

    fn truncate(&mut self) {
        let commit = self.agreeing().min(self.committed.len());
        if self.log.len() == commit || self.driver.wal.room_bytes() == 0 {
            return;
        }
        let kept = commit + self.rng.index(self.log.len() - commit);
        self.driver.wal.truncate(position(&self.log[..kept]));
        self.log.truncate(kept);
        self.staged.push(Change::Truncate(kept));
        self.counts.truncations += 1;
    }

    fn append(&mut self) {
        let entry = match self.committed.get(self.log.len()) {
            // Only a leader of the past would go on with a log that lost against what is committed.
            _ if self.agreeing() < self.log.len() => return,
            Some(committed) => committed.clone(),
            None if self.hard_state.term == Term::ZERO => return,
            None => self.new_entry(),
        };
        let cost = u64::try_from(entry.payload.len()).unwrap() + ENTRY_OVERHEAD_BYTES;
        if cost > self.driver.wal.room_bytes() {
            return;
        }
        if entry.term > self.hard_state.term {
            self.hard_state = hard_state(entry.term.get());
            self.driver.wal.set_hard_state(self.hard_state, self.genesis);
        }
        let next = LogPosition::new(entry.term, position(&self.log).index.next());
        self.driver.wal.append(next, entry.kind, &entry.payload);
        self.log.push(entry.clone());
        self.staged.push(Change::Append(entry));
    }

    /// How much of the log is, or may become, committed. A lost TRUNC brings back what is not.
    fn agreeing(&self) -> usize {
        let pairs = self.log.iter().zip(&self.committed);
        let same = pairs.take_while(|(ours, theirs)| ours == theirs).count();
        if same == self.committed.len() { self.log.len() } else { same }
    }

    fn new_entry(&mut self) -> LogEntry {
        let len = match self.rng.below(10) {
            0 => 0,
            1 => EntryLimits::for_segment(SEGMENT_BYTES).entry_bytes_soft_max,
            2 | 3 => self.rng.index(6000),
            _ => self.rng.index(300),
        };
        let last = position(&self.log);
        // Any term between the last entry's and ours: a new leader replicates older terms first.
        let spread = self.hard_state.term.get() - last.term.get();
        let term = Term::new(last.term.get() + self.rng.below(spread + 1));
        let zeros = self.rng.percent(10);
        let next = LogPosition::new(term, last.index.next());
        let payload = if zeros { vec![0; len] } else { payload(next, len) };
        let kind = match self.rng.below(12) {
            0 => EntryKind::NoOp,
            1 => EntryKind::Configuration,
            _ => EntryKind::Commands,
        };
        LogEntry { term, kind, payload }
    }

    /// The power is back: what is there must be a promise kept, and a prefix of what was under way.
    fn recover(&mut self, disk: &SimDisk, seed: u64) {
        self.driver = reopen(disk, &mut self.rng, &mut self.counts, seed);
        let first = self.driver.recovered.clone();
        self.counts.torn += u64::from(first.report.torn_at.is_some());
        // A snapshot stands for what is before the base, and that is committed.
        let base = usize::try_from(first.base.index.get()).unwrap();
        let log = [&self.committed[..base], &self.driver.log()].concat();
        self.check(&log, &first, seed);
        let in_force = first.snapshot.as_ref().map_or(LogPosition::ZERO, |it| it.id.position);
        assert!(in_force.index >= self.promise.snapshot, "seed {seed}: an older snapshot is back");
        assert!(in_force.index >= first.base.index, "seed {seed}: entries are missing");
        if in_force != LogPosition::ZERO {
            assert_eq!(self.driver.snapshot_blocks(), Ok(snapshot_blocks(in_force)), "seed {seed}");
        }
        let files = disk.image();
        let strays = files.keys().filter(|name| name.starts_with("snap/")).count();
        assert!(strays <= 1, "seed {seed}: {strays} snapshots");
        let again = Driver::open(disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(again.log(), log[base..], "seed {seed}: a second recovery finds another log");
        assert_eq!(again.recovered.hard_state, first.hard_state);
        assert_eq!(again.recovered.configurations, first.configurations);
        assert!(again.recovered.report.torn_at.is_none(), "seed {seed}: the tail was mended");
        self.driver = again;
        self.commit = self.driver.recovered.commit_index.get();
        self.hard_state = first.hard_state;
        self.genesis = first.genesis;
        self.promise = Promise {
            log: log.clone(),
            hard_state: self.hard_state,
            genesis: self.genesis,
            snapshot: in_force.index,
        };
        self.log = log;
        self.staged.clear();
    }

    fn check(&mut self, log: &[LogEntry], recovered: &Recovered, seed: u64) {
        let steps = self.steps_taken(log);
        let Some(steps) = steps else {
            panic!(
                "seed {seed}: {} entries recovered, {} were durable, {} changes were under way",
                log.len(),
                self.promise.log.len(),
                self.staged.len()
            );
        };
        self.counts.partial += u64::from(0 < steps && steps < self.staged.len());
        let lost = self.staged[steps..].iter();
        let cut = |change: &&Change| matches!(change, Change::Truncate(_));
        self.counts.truncations_lost += u64::try_from(lost.filter(cut).count()).unwrap();
        let now = (recovered.hard_state, recovered.genesis);
        let old = (self.promise.hard_state, self.promise.genesis);
        let new = (self.hard_state, self.genesis);
        assert!(now == old || now == new, "seed {seed}: the hard state is another one");
        assert!(steps == 0 || now == new, "seed {seed}: entries before their hard state");
        assert!(!recovered.report.hard_state_stale, "seed {seed}");
        self.check_commit(log, recovered.commit_index, seed);
        let configurations: Vec<(LogIndex, Vec<u8>)> = (1..)
            .zip(log)
            .filter(|(number, _)| *number > recovered.base.index.get())
            .filter(|(_, entry)| entry.kind == EntryKind::Configuration)
            .map(|(number, entry)| (index(number), entry.payload.clone()))
            .collect();
        assert_eq!(recovered.configurations, configurations, "seed {seed}");
        assert_eq!(recovered.last, position(log));
        assert_eq!(options().disk_id_if_new, recovered.identity.disk_id);
    }

    /// How many of the staged changes, at least, lead from the promise to `log`.
    fn steps_taken(&self, log: &[LogEntry]) -> Option<usize> {
        let mut state = self.promise.log.clone();
        if state == log {
            return Some(0);
        }
        for (number, change) in self.staged.iter().enumerate() {
            apply(&mut state, change);
            if state == log {
                return Some(number + 1);
            }
        }
        None
    }

    /// What the headers call committed is what was committed, never an entry that a lost TRUNC had
    /// cut.
    fn check_commit(&self, log: &[LogEntry], commit_index: LogIndex, seed: u64) {
        let claimed = usize::try_from(commit_index.get()).unwrap();
        assert!(claimed <= self.committed.len(), "seed {seed}: nobody committed that");
        let same = log[..claimed] == self.committed[..claimed];
        assert!(same, "seed {seed}: not what was committed");
    }
}

fn position(log: &[LogEntry]) -> LogPosition {
    let last = u64::try_from(log.len()).unwrap();
    LogPosition::new(log.last().map_or(Term::ZERO, |entry| entry.term), index(last))
}
