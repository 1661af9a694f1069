//! One slice of load, between two looks at the servers' clocks and counters.

use crate::Result;
use crate::proc::{self, Device, MachineCpu, Threads};
use crate::systems::{Crowd, Door, System, Who};
use raftd::client::load::{
    Ledger, OnFailure, Pace, Script, Shape, Signals, Tally, Timeline, Work, Workload, float,
};
use raftd::client::{Clock, Deadline};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// A system that runs, and what is known of it.
pub(crate) struct Contestant {
    /// What tables call it.
    pub(crate) name: String,
    /// Who it is.
    pub(crate) who: Who,
    /// Who else is there.
    pub(crate) crowd: Option<Crowd>,
    /// Its servers.
    pub(crate) system: System,
    /// What it acknowledged.
    pub(crate) ledger: Ledger,
    /// The block device below its directories, if there is one.
    pub(crate) device: Option<Device>,
    /// What its servers had used when its last slice was over. Nanoseconds.
    pub(crate) used_ns: Option<u64>,
    /// Its peaks that were measured: operations a second.
    pub(crate) peaks: Vec<(Workload, u64)>,
}

/// What the kernel's counters said at one moment.
struct Look {
    at_ns: u64,
    done: u64,
    servers: Vec<Threads>,
    written: u64,
    client: Threads,
    machine: MachineCpu,
}

impl Look {
    fn take(clock: Clock, side: &Contestant, signals: &Signals) -> Result<Look> {
        let (at_ns, done) = (clock.now_ns(), signals.done());
        let pids = side.system.pids();
        let servers = pids.iter().map(|pid| proc::threads_of(*pid)).collect::<Result<_>>()?;
        let client = proc::threads_of(std::process::id())?;
        let machine = proc::machine_cpu()?;
        let written = side.device.as_ref().map_or(Ok(0), Device::written_bytes)?;
        Ok(Look { at_ns, done, servers, written, client, machine })
    }
}

/// What happened in the measured time of one slice or of a row.
#[derive(Clone, Default, Debug)]
pub(crate) struct Use {
    /// Measured time. Nanoseconds.
    pub(crate) elapsed_ns: u64,
    /// Operations done.
    pub(crate) ops: u64,
    /// The leader's threads.
    pub(crate) leader: Threads,
    /// The threads of all other servers together.
    pub(crate) followers: Threads,
    /// The load generator's threads.
    pub(crate) client: Threads,
    /// Everything on the machine.
    pub(crate) machine: MachineCpu,
    /// Syncs of all servers by their own counters; `None`: they do not say.
    pub(crate) syncs: Option<u64>,
    /// Operations done between the looks at those counters.
    pub(crate) sync_ops: u64,
    /// Bytes the device took meanwhile.
    pub(crate) written: u64,
    /// Elections.
    pub(crate) terms: u64,
    /// CPU of all servers from the end of their slice before to the beginning of this one: work
    /// that slices left behind. Nanoseconds.
    pub(crate) outside_ns: u64,
    /// Slices in which a server's snapshot came into force.
    pub(crate) snapshots: u64,
}

impl Use {
    fn between(before: &Look, after: &Look, leader: usize) -> Use {
        let mut used = Use {
            elapsed_ns: after.at_ns - before.at_ns,
            ops: after.done - before.done,
            client: after.client.since(&before.client),
            written: after.written.saturating_sub(before.written),
            ..Use::default()
        };
        for (at, (now, then)) in after.servers.iter().zip(&before.servers).enumerate() {
            let threads = now.since(then);
            let side = if at == leader { &mut used.leader } else { &mut used.followers };
            side.add(&threads);
        }
        used.machine.busy_ns = after.machine.busy_ns.saturating_sub(before.machine.busy_ns);
        used.machine.stolen_ns = after.machine.stolen_ns.saturating_sub(before.machine.stolen_ns);
        used
    }

    /// Adds another slice's.
    pub(crate) fn add(&mut self, other: &Use) {
        self.elapsed_ns += other.elapsed_ns;
        self.ops += other.ops;
        self.leader.add(&other.leader);
        self.followers.add(&other.followers);
        self.client.add(&other.client);
        self.machine.busy_ns += other.machine.busy_ns;
        self.machine.stolen_ns += other.machine.stolen_ns;
        if let Some(syncs) = other.syncs {
            *self.syncs.get_or_insert(0) += syncs;
        }
        self.sync_ops += other.sync_ops;
        self.written += other.written;
        self.terms += other.terms;
        self.outside_ns += other.outside_ns;
        self.snapshots += other.snapshots;
    }

    /// CPU of all servers. Nanoseconds.
    pub(crate) fn servers_ns(&self) -> u64 {
        self.leader.total().run_ns + self.followers.total().run_ns
    }

    /// CPU of all servers for one operation. Microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        float(self.servers_ns()) / float(self.ops.max(1)) / 1000.0
    }

    /// Operations a second.
    pub(crate) fn rate(&self) -> f64 {
        float(self.ops) * 1e9 / float(self.elapsed_ns.max(1))
    }

    /// Syncs of all servers for one operation, by their own counters.
    pub(crate) fn syncs_per_op(&self) -> Option<f64> {
        self.syncs.map(|syncs| float(syncs) / float(self.sync_ops.max(1)))
    }
}

/// How a load asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// What is asked.
    pub(crate) workload: Workload,
    /// How much at once.
    pub(crate) shape: Shape,
    /// When.
    pub(crate) pace: Pace,
    /// What to do when the leader is lost.
    pub(crate) on_failure: OnFailure,
    /// Buckets of a timeline: how long each, and how many.
    pub(crate) timeline: Option<(Duration, usize)>,
}

impl Load {
    /// One that fails when the leader is lost.
    pub(crate) fn of(workload: Workload, shape: Shape, pace: Pace) -> Load {
        Load { workload, shape, pace, on_failure: OnFailure::Stop, timeline: None }
    }
}

/// How whoever watches a load hears that it has ended by itself, which it does when it fails.
pub(crate) struct Ending(Receiver<()>);

impl Ending {
    /// Lets `time` pass; false if the load ends before.
    pub(crate) fn is_later_than(&self, time: Duration) -> bool {
        match self.0.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => true,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => false,
        }
    }
}

/// Loads whoever is behind `door` from a thread of its own as long as `watch` takes. What that
/// returns is lost if the load has failed meanwhile.
pub(crate) fn beside<T>(
    clock: Clock,
    door: &Door,
    load: Load,
    ledger: &mut Ledger,
    watch: impl FnOnce(&Signals, &Ending) -> Result<T>,
) -> Result<(T, Tally)> {
    let signals = Signals::default();
    let (ended, ending) = channel();
    let ending = Ending(ending);
    thread::scope(|scope| {
        let signals = &signals;
        let loading = scope.spawn(move || -> Result<Tally> {
            let seed = clock.now_ns();
            let Load { workload, shape, pace, on_failure, timeline } = load;
            let mut script = Script::new(workload, pace, on_failure, seed, ledger, signals);
            if let Some((bucket, count)) = timeline {
                script = script.with_timeline(Timeline::new(seed, bucket, count));
            }
            let ran = door.run(clock, shape, &mut script);
            // Nobody listens once the watching is over.
            let _over = ended.send(());
            ran.map(|()| script.finish())
        });
        let watched = watch(signals, &ending);
        signals.end();
        let tally = loading.join().expect("a load reports its failures")?;
        Ok((watched?, tally))
    })
}

/// One slice: warms up for a quarter of `time` from the moment when as much was answered as may be
/// in flight, then measures for `time`. The servers' own counters are asked outside the time whose
/// CPU is counted.
pub(crate) fn slice(
    clock: Clock,
    side: &mut Contestant,
    load: Load,
    time: Duration,
) -> Result<(Use, Tally)> {
    let leader = side.system.leader()?;
    let door = side.system.door(leader);
    let used_ns = servers_ns(&side.system)?;
    let outside_ns = side.used_ns.map_or(0, |before| used_ns.saturating_sub(before));
    let nothing = empty_ledger(&side.ledger);
    let mut ledger = std::mem::replace(&mut side.ledger, nothing);
    let in_flight = u64::try_from(load.shape.connections * load.shape.depth)?;
    let at_first = match load.pace {
        Pace::Closed => in_flight,
        Pace::Open { .. } => 1,
    };
    let done = beside(clock, &door, load, &mut ledger, |signals, ending| {
        let times = Times { at_first, measured: time };
        watch(clock, side, leader, signals, ending, times)
    });
    if done.is_err() {
        // What was in flight may have been done.
        ledger.doubt();
    }
    side.ledger = ledger;
    let (used, tally) = done?;
    let used = used.ok_or("the load ended before its time")?;
    side.used_ns = Some(servers_ns(&side.system)?);
    Ok((Use { outside_ns, ..used }, tally))
}

/// What all servers have used so far. Nanoseconds.
fn servers_ns(system: &System) -> Result<u64> {
    let pids = system.pids().into_iter();
    pids.map(|pid| Ok(proc::threads_of(pid)?.total().run_ns)).sum()
}

/// In the ledger's place while a load has it.
fn empty_ledger(ledger: &Ledger) -> Ledger {
    Ledger::new(ledger.layout().clone(), 0)
}

/// When to measure.
struct Times {
    /// How many answers must have come before the warming up begins.
    at_first: u64,
    /// How long is measured.
    measured: Duration,
}

/// Between two looks at whether the first answers have come.
const STEP: Duration = Duration::from_millis(2);
const FIRST_ANSWERS: Duration = Duration::from_secs(30);

fn watch(
    clock: Clock,
    side: &mut Contestant,
    leader: usize,
    signals: &Signals,
    ending: &Ending,
    times: Times,
) -> Result<Option<Use>> {
    let time = times.measured;
    let deadline = Deadline::after(FIRST_ANSWERS);
    while signals.done() < times.at_first {
        if deadline.has_passed() {
            return Err("the first requests were not answered in 30 s".into());
        }
        if !ending.is_later_than(STEP) {
            return Ok(None);
        }
    }
    if !ending.is_later_than(time / 4) {
        return Ok(None);
    }
    let first = (side.system.counters()?, signals.done());
    let before = Look::take(clock, side, signals)?;
    signals.measure();
    if !ending.is_later_than(time) {
        return Ok(None);
    }
    let after = Look::take(clock, side, signals)?;
    let last = (side.system.counters()?, signals.done());
    let mut used = Use::between(&before, &after, leader);
    let (then, done_then) = first;
    let (now, done_now) = last;
    used.syncs = now.syncs.zip(then.syncs).map(|(now, then)| now.saturating_sub(then));
    used.sync_ops = done_now - done_then;
    used.terms = now.term.saturating_sub(then.term);
    used.snapshots = u64::from(now.snapshots > then.snapshots);
    Ok(Some(used))
}

/// Puts every key once, or reads every key once and compares; returns what came of it.
pub(crate) fn every_key(clock: Clock, side: &mut Contestant, work: Work) -> Result<Tally> {
    let shape = Shape { connections: 16, depth: 32 };
    let leader = side.system.leader()?;
    let door = side.system.back_door(leader);
    let signals = Signals::default();
    let workload = Workload::of_all(work);
    let ledger = &mut side.ledger;
    let mut script = Script::new(workload, Pace::Closed, OnFailure::Stop, 0, ledger, &signals);
    door.run(clock, shape, &mut script)?;
    Ok(script.finish())
}
