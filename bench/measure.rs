//! One row: slices of load, each between two looks at the servers' clocks and counters.

use crate::Result;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::floor::{Floor, FloorTimes};
use crate::ledger::Ledger;
use crate::load::{self, LeaderLost, Shape, Signals, Tally, Work};
use crate::memory::Reserve;
use crate::plan::{Plan, Row};
use crate::proc::{self, Device, MachineCpu, Threads};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How often a row begins anew because the leader changed in it.
const ATTEMPTS: u32 = 3;

/// What the counters said at one moment.
struct Look {
    at_ns: u64,
    done: u64,
    servers: Vec<Threads>,
    written: u64,
    client: Threads,
    machine: MachineCpu,
    syncs: u64,
    term: u64,
}

impl Look {
    fn take(clock: Clock, cluster: &mut Cluster, signals: &Signals) -> Result<Look> {
        let (at_ns, done) = (clock.now_ns(), signals.done());
        let pids: Vec<u32> = cluster.servers.iter().map(|server| server.pid()).collect();
        let servers = pids.iter().map(|pid| proc::threads_of(*pid)).collect::<Result<_>>()?;
        let client = proc::threads_of(std::process::id())?;
        let machine = proc::machine_cpu()?;
        let device = cluster.device.as_ref();
        let written = device.map_or(Ok(0), Device::written_bytes)?;
        // Last, since these ask the loops under load and so take their time.
        let statuses = cluster.statuses()?;
        let syncs = statuses.iter().map(|status| status.syncs).sum();
        let term = statuses.iter().map(|status| status.term.get()).max().unwrap_or_default();
        Ok(Look { at_ns, done, servers, written, client, machine, syncs, term })
    }
}

/// What happened in the measured time of one slice or of a row.
pub(crate) struct Use {
    /// Measured time. Nanoseconds.
    pub(crate) elapsed_ns: u64,
    /// Operations done.
    pub(crate) ops: u64,
    /// The leader's threads.
    pub(crate) leader: Threads,
    /// The followers' threads together.
    pub(crate) followers: Threads,
    /// The load generator's threads.
    pub(crate) client: Threads,
    /// Everything on the machine.
    pub(crate) machine: MachineCpu,
    /// Sync jobs of all servers.
    pub(crate) syncs: u64,
    /// Bytes the device took meanwhile.
    pub(crate) written: u64,
    /// Elections.
    pub(crate) terms: u64,
}

impl Use {
    fn none() -> Use {
        Use {
            elapsed_ns: 0,
            ops: 0,
            leader: Threads::default(),
            followers: Threads::default(),
            client: Threads::default(),
            machine: MachineCpu::default(),
            syncs: 0,
            written: 0,
            terms: 0,
        }
    }

    fn between(before: &Look, after: &Look, leader: usize) -> Use {
        let mut used = Use::none();
        used.elapsed_ns = after.at_ns - before.at_ns;
        used.ops = after.done - before.done;
        for (at, (now, then)) in after.servers.iter().zip(&before.servers).enumerate() {
            let threads = now.since(then);
            let side = if at == leader { &mut used.leader } else { &mut used.followers };
            side.add(&threads);
        }
        used.client = after.client.since(&before.client);
        used.machine.busy_ns = after.machine.busy_ns.saturating_sub(before.machine.busy_ns);
        used.machine.stolen_ns = after.machine.stolen_ns.saturating_sub(before.machine.stolen_ns);
        used.syncs = after.syncs.saturating_sub(before.syncs);
        used.written = after.written.saturating_sub(before.written);
        used.terms = after.term.saturating_sub(before.term);
        used
    }

    fn add(&mut self, other: &Use) {
        self.elapsed_ns += other.elapsed_ns;
        self.ops += other.ops;
        self.leader.add(&other.leader);
        self.followers.add(&other.followers);
        self.client.add(&other.client);
        self.machine.busy_ns += other.machine.busy_ns;
        self.machine.stolen_ns += other.machine.stolen_ns;
        self.syncs += other.syncs;
        self.written += other.written;
        self.terms += other.terms;
    }

    /// CPU of the three servers. Nanoseconds.
    pub(crate) fn servers_ns(&self) -> u64 {
        self.leader.total().run_ns + self.followers.total().run_ns
    }
}

/// A measured row.
pub(crate) struct Measured {
    /// Which.
    pub(crate) row: Row,
    /// All slices together.
    pub(crate) used: Use,
    /// Server CPU per operation of each slice. Nanoseconds.
    pub(crate) slices_ns: Vec<u64>,
    /// Latencies, refusals, wrong answers.
    pub(crate) tally: Tally,
    /// What the machine allows, if the row is compared with it.
    pub(crate) floor: Option<FloorTimes>,
    /// How often it began anew because the leader changed.
    pub(crate) restarts: u32,
}

/// What the rows of a group share.
pub(crate) struct Bench<'p> {
    /// The time.
    pub(crate) clock: Clock,
    /// How long to measure.
    pub(crate) plan: &'p Plan,
    /// Whom.
    pub(crate) cluster: Cluster,
    /// What was acknowledged.
    pub(crate) ledger: Ledger,
    /// What the machine allows.
    pub(crate) floor: Floor,
    /// Memory for the logs.
    pub(crate) reserve: Reserve,
}

/// Measures `row`, anew if the leader changes in it.
pub(crate) fn row(bench: &mut Bench<'_>, row: Row) -> Result<Measured> {
    let mut restarts = 0;
    loop {
        let mut measured = Measured {
            row,
            used: Use::none(),
            slices_ns: Vec::new(),
            tally: Tally::new(),
            floor: row.has_floor().then(FloorTimes::new),
            restarts,
        };
        match slices(bench, &mut measured) {
            Ok(()) => return Ok(measured),
            Err(error) if error.is::<LeaderLost>() && restarts + 1 < ATTEMPTS => restarts += 1,
            Err(error) => return Err(format!("{row}: {error}").into()),
        }
    }
}

fn slices(bench: &mut Bench<'_>, measured: &mut Measured) -> Result<()> {
    let Bench { clock, plan, cluster, ledger, floor, reserve } = bench;
    let time = Duration::from_millis(plan.row_ms / u64::from(plan.slices));
    // Not measured: until histories are full and buffers have grown, a put costs more.
    slice(*clock, measured.row, cluster, ledger, time)?;
    for _ in 0..plan.slices {
        if let Some(times) = &mut measured.floor {
            floor.sample(times)?;
        }
        if measured.row.work == Work::Put {
            reserve.free_for(time * 5 / 4)?;
        }
        let (used, tally) = slice(*clock, measured.row, cluster, ledger, time)?;
        measured.slices_ns.push(used.servers_ns() / used.ops.max(1));
        measured.used.add(&used);
        measured.tally.merge(&tally);
    }
    match &mut measured.floor {
        Some(times) => floor.sample(times),
        None => Ok(()),
    }
}

fn slice(
    clock: Clock,
    row: Row,
    cluster: &mut Cluster,
    ledger: &mut Ledger,
    time: Duration,
) -> Result<(Use, Tally)> {
    let leader = cluster.leader()?;
    let address = cluster.servers[leader].address;
    let signals = Signals::default();
    thread::scope(|scope| {
        let (ended, ending) = channel();
        let signals = &signals;
        let load = scope.spawn(move || {
            let tally = load::run(clock, address, row.shape, row.work, ledger, signals);
            // Nobody listens once the measured time is over.
            let _over = ended.send(());
            tally
        });
        let used = (|| -> Result<Option<Use>> {
            if !goes_on(&ending, time / 4) {
                return Ok(None);
            }
            let before = Look::take(clock, cluster, signals)?;
            signals.measure();
            if !goes_on(&ending, time) {
                return Ok(None);
            }
            let after = Look::take(clock, cluster, signals)?;
            Ok(Some(Use::between(&before, &after, leader)))
        })();
        signals.end();
        let tally = load.join().expect("a load reports its failures")?;
        let used = used?.ok_or("the load ended before its time")?;
        Ok((used, tally))
    })
}

/// Lets `time` pass; false if the load ends before.
fn goes_on(ending: &Receiver<()>, time: Duration) -> bool {
    match ending.recv_timeout(time) {
        Err(RecvTimeoutError::Timeout) => true,
        Ok(()) | Err(RecvTimeoutError::Disconnected) => false,
    }
}

/// Puts every key once, or reads every key once and compares; returns what came of it.
pub(crate) fn every_key(
    clock: Clock,
    work: Work,
    cluster: &mut Cluster,
    ledger: &mut Ledger,
) -> Result<Tally> {
    let shape = Shape { connections: 16, depth: 16 };
    let leader = cluster.leader()?;
    let address = cluster.servers[leader].address;
    load::run(clock, address, shape, work, ledger, &Signals::default())
}
