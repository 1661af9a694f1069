//! One row: slices of load, in turns with those it is compared with.
//!
//! ```text
//! raftd  etcd  etcd  raftd    raftd  etcd  etcd  raftd    …
//!   └─ pair ─┘   └─ pair ─┘
//! ```
//! On a machine that others use too, one system's figure of now and another's of a minute ago say
//! nothing about each other. Two slices that follow each other do; which of them is first changes
//! with every pair. What is reported is the median of the pairs' ratios, and their spread.
//!
//! A pair is measured again if the host took much from the machine meanwhile; a slice, if the
//! leader changed in it.

use crate::Result;
use crate::floor::{Floor, FloorTimes};
use crate::measure::{self, Contestant, Load, Use};
use crate::memory::Reserve;
use crate::options::Plan;
use crate::rows::{Row, RowPace};
use crate::stats::Spread;
use crate::strace::Trace;
use crate::systems::Who;
use raftd::client::Clock;
use raftd::client::load::{LoadError, Mix, Pace, Shape, Tally, Workload, float, whole};
use std::path::PathBuf;
use std::time::Duration;

/// How often a slice begins anew because the leader changed in it.
const ATTEMPTS: u32 = 3;

/// A slice of whose time the host took more than this share of one core is measured again.
const STOLEN_MAX: f64 = 0.10;

/// How often that is done in a row.
const DISTURBED_MAX: u32 = 5;

/// Everybody of a group, and what they share.
pub(crate) struct Stage<'p> {
    /// The time.
    pub(crate) clock: Clock,
    /// How long to measure.
    pub(crate) plan: &'p Plan,
    /// Who runs.
    pub(crate) contestants: Vec<Contestant>,
    /// What the machine allows.
    pub(crate) floor: Floor,
    /// Memory for whoever writes.
    pub(crate) reserve: Reserve,
    /// Where directories may be made.
    pub(crate) parent: PathBuf,
    /// Whether strace may trace.
    pub(crate) may_trace: bool,
    /// Slices of the row that were measured again.
    pub(crate) again: u32,
}

/// What one slice came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    /// CPU of all servers for an operation. Microseconds.
    pub(crate) cpu_us: f64,
    /// Operations a second.
    pub(crate) rate: f64,
    /// Latencies. Microseconds.
    pub(crate) p50_us: f64,
    /// Syncs of all servers for an operation.
    pub(crate) syncs: Option<f64>,
}

impl Slice {
    fn of(used: &Use, tally: &Tally) -> Slice {
        let latency = tally.latency();
        Slice {
            cpu_us: used.cpu_us(),
            rate: used.rate(),
            p50_us: float(latency.value_at_quantile(0.5)) / 1000.0,
            syncs: used.syncs_per_op(),
        }
    }
}

/// One system in one row.
pub(crate) struct Measured {
    /// What tables call it.
    pub(crate) name: String,
    /// Who it is.
    pub(crate) who: Who,
    /// All slices together.
    pub(crate) used: Use,
    /// Each slice.
    pub(crate) slices: Vec<Slice>,
    /// Latencies, refusals, wrong answers.
    pub(crate) tally: Tally,
    /// The rate of an open loop, if it is one.
    pub(crate) asked_per_s: Option<u64>,
    /// Syncs for an operation as strace counted them, and as the system itself did meanwhile.
    pub(crate) traced: Option<(f64, Option<f64>)>,
}

impl Measured {
    /// The 99.9th percentile over the median, of all slices together: what is rare, as a snapshot
    /// is, falls into a few of them.
    fn tail(&self) -> f64 {
        let latency = self.tally.latency();
        let at = |quantile: f64| float(latency.value_at_quantile(quantile));
        at(0.999) / at(0.5)
    }
}

/// The row's system against one peer: its figure over the peer's, pair by pair.
pub(crate) struct Against {
    /// The peer.
    pub(crate) name: String,
    /// CPU for an operation.
    pub(crate) cpu: Option<Spread>,
    /// Operations a second.
    pub(crate) rate: Option<Spread>,
    /// The median latency.
    pub(crate) p50: Option<Spread>,
    /// The 99.9th percentile over the median, of all slices together.
    pub(crate) tail: f64,
    /// Syncs for an operation, by their own counters.
    pub(crate) syncs: Option<Spread>,
    /// Syncs for an operation, as strace counted them.
    pub(crate) traced: Option<f64>,
}

/// A measured row.
pub(crate) struct Outcome {
    /// Which.
    pub(crate) row: Row,
    /// The row's system first, then its peers.
    pub(crate) of: Vec<Measured>,
    /// The ratios.
    pub(crate) against: Vec<Against>,
    /// Whom it should have been compared with too: they are not on PATH.
    pub(crate) missing: Vec<Who>,
    /// What the machine allows, if the row is compared with it.
    pub(crate) floor: Option<FloorTimes>,
    /// Slices that were measured again.
    pub(crate) again: u32,
}

/// Measures `row`.
pub(crate) fn row(stage: &mut Stage<'_>, row: &Row) -> Result<Outcome> {
    let named =
        |error: crate::Failure| -> crate::Failure { format!("{}: {error}", row.name).into() };
    measure(stage, row).map_err(named)
}

fn measure(stage: &mut Stage<'_>, row: &Row) -> Result<Outcome> {
    let mut race = Race {
        time: Duration::from_millis(stage.plan.row_ms / u64::from(stage.plan.slices)),
        floor: row.has_floor.then(FloorTimes::new),
        disturbed: 0,
    };
    stage.again = 0;
    let peers: Vec<usize> = row.against.iter().filter_map(|who| place_of(stage, *who)).collect();
    let own = place_of(stage, row.who).ok_or("its system does not run")?;
    let mut entered = Vec::new();
    for at in std::iter::once(&own).chain(&peers) {
        entered.push(enter(stage, row, *at)?);
    }
    let mut pairs = Vec::new();
    for (peer, at) in (1..).zip(&peers) {
        let (own, peer) = (Side { at: own, entry: 0 }, Side { at: *at, entry: peer });
        let mut of_peer = Vec::new();
        for _ in 0..stage.plan.rounds {
            let [first, second] = race.undisturbed(stage, row, [own, peer], &mut entered)?;
            of_peer.push((first, second));
            let [first, second] = race.undisturbed(stage, row, [peer, own], &mut entered)?;
            of_peer.push((second, first));
        }
        pairs.push(of_peer);
    }
    if peers.is_empty() {
        for _ in 0..stage.plan.slices {
            race.undisturbed(stage, row, [Side { at: own, entry: 0 }], &mut entered)?;
        }
    }
    if let Some(times) = &mut race.floor {
        stage.floor.sample(times)?;
    }
    let is_traced = row.workload == Workload::even(Mix::PUTS) && row.pace == RowPace::Closed;
    if stage.may_trace && is_traced && !peers.is_empty() {
        for (entry, at) in entered.iter_mut().zip(std::iter::once(&own).chain(&peers)) {
            entry.traced = match traced(stage, row, *at, race.time) {
                // strace makes a system slow: its leader may be lost again and again.
                Err(error) if is_leader_lost(&error) => None,
                traced => traced?,
            };
            must_sync(entry)?;
        }
    }
    let peers = entered[1..].iter().zip(&pairs);
    let against = peers.map(|(peer, pairs)| Against::of(&entered[0], peer, pairs)).collect();
    let missing = row.against.iter().filter(|who| place_of(stage, **who).is_none());
    let (missing, again) = (missing.copied().collect(), stage.again);
    Ok(Outcome { row: row.clone(), of: entered, against, missing, floor: race.floor, again })
}

/// Whoever promises a sync before the answer must have been seen at it: else nothing is compared.
fn must_sync(entry: &Measured) -> Result<()> {
    match entry.traced {
        Some((traced, _)) if entry.who.syncs() && traced == 0.0 => {
            Err(format!("{} did not sync once under strace", entry.name).into())
        }
        Some(_) | None => Ok(()),
    }
}

fn place_of(stage: &Stage<'_>, who: Who) -> Option<usize> {
    stage.contestants.iter().position(|side| side.who == who)
}

/// A system's line of the row, still empty, behind a slice that is not in it: until histories are
/// full and buffers have grown, a put costs more.
fn enter(stage: &mut Stage<'_>, row: &Row, at: usize) -> Result<Measured> {
    let asked_per_s = match row.pace {
        RowPace::Closed => None,
        RowPace::Share(percent) => {
            let peak = peak(stage, row.workload, at)?;
            Some((peak * u64::from(percent) / 100).max(1))
        }
    };
    let time = Duration::from_millis(stage.plan.row_ms / u64::from(stage.plan.slices));
    slice(stage, at, load_of(row, asked_per_s), time)?;
    let side = &stage.contestants[at];
    Ok(Measured {
        name: side.name.clone(),
        who: side.who,
        used: Use::default(),
        slices: Vec::new(),
        tally: Tally::new(),
        asked_per_s,
        traced: None,
    })
}

fn load_of(row: &Row, asked_per_s: Option<u64>) -> Load {
    let pace = asked_per_s.map_or(Pace::Closed, |per_second| Pace::Open { per_second });
    Load::of(row.workload, row.shape, pace)
}

/// The peak of a system: a closed loop with 1000 in flight, the median of three slices.
fn peak(stage: &mut Stage<'_>, workload: Workload, at: usize) -> Result<u64> {
    let known = stage.contestants[at].peaks.iter().find(|(of, _)| *of == workload);
    if let Some((_, peak)) = known {
        return Ok(*peak);
    }
    let shape = Shape { connections: 100, depth: 10 };
    let load = Load::of(workload, shape, Pace::Closed);
    let time = Duration::from_millis(stage.plan.row_ms / u64::from(stage.plan.slices));
    let mut rates = Vec::new();
    for _ in 0..3 {
        let (used, _) = slice(stage, at, load, time)?;
        rates.push(used.rate());
    }
    let peak = whole(Spread::of(rates).map_or(0.0, |spread| spread.median));
    stage.contestants[at].peaks.push((workload, peak));
    Ok(peak)
}

/// A slice, anew if the leader changes in it.
fn slice(stage: &mut Stage<'_>, at: usize, load: Load, time: Duration) -> Result<(Use, Tally)> {
    let mut attempts = 1;
    loop {
        if load.workload.writes() {
            stage.reserve.free_for(time * 5 / 4)?;
        }
        match measure::slice(stage.clock, &mut stage.contestants[at], load, time) {
            Err(error) if is_leader_lost(&error) && attempts < ATTEMPTS => {
                attempts += 1;
                stage.again += 1;
            }
            Ok((_, tally)) if tally.wrong > 0 => {
                let name = &stage.contestants[at].name;
                return Err(format!("{name}: {} wrong answers", tally.wrong).into());
            }
            measured => return measured,
        }
    }
}

/// One of a pair: its place among the contestants, and its line of the row.
#[derive(Clone, Copy)]
struct Side {
    at: usize,
    entry: usize,
}

/// A slice that may be in a row.
struct Taken {
    used: Use,
    tally: Tally,
}

impl Taken {
    fn is_disturbed(&self) -> bool {
        let Use { machine, elapsed_ns, .. } = &self.used;
        float(machine.stolen_ns) / float((*elapsed_ns).max(1)) > STOLEN_MAX
    }

    /// It is in the row.
    fn enter(self, entry: &mut Measured) -> Slice {
        let slice = Slice::of(&self.used, &self.tally);
        entry.slices.push(slice);
        entry.used.add(&self.used);
        entry.tally.merge(&self.tally);
        slice
    }
}

/// What the slices of a row share.
struct Race {
    time: Duration,
    floor: Option<FloorTimes>,
    /// How often the host made us measure again.
    disturbed: u32,
}

impl Race {
    /// Measures slices that belong together, all of them again if the host disturbed one, and adds
    /// them to their lines.
    fn undisturbed<const N: usize>(
        &mut self,
        stage: &mut Stage<'_>,
        row: &Row,
        sides: [Side; N],
        entered: &mut [Measured],
    ) -> Result<[Slice; N]> {
        loop {
            let mut taken = Vec::with_capacity(N);
            for side in sides {
                if let Some(times) = &mut self.floor {
                    stage.floor.sample(times)?;
                }
                let load = load_of(row, entered[side.entry].asked_per_s);
                let (used, tally) = slice(stage, side.at, load, self.time)?;
                taken.push(Taken { used, tally });
            }
            if taken.iter().any(Taken::is_disturbed) && self.disturbed < DISTURBED_MAX {
                self.disturbed += 1;
                stage.again += u32::try_from(N)?;
                continue;
            }
            let mut taken = taken.into_iter();
            return Ok(sides.map(|side| {
                let taken = taken.next().expect("one for each side");
                taken.enter(&mut entered[side.entry])
            }));
        }
    }
}

fn is_leader_lost(error: &crate::Failure) -> bool {
    matches!(error.downcast_ref(), Some(LoadError::LeaderLost))
}

/// A slice under strace.
fn traced(
    stage: &mut Stage<'_>,
    row: &Row,
    at: usize,
    time: Duration,
) -> Result<Option<(f64, Option<f64>)>> {
    let side = &mut stage.contestants[at];
    let before = (side.system.counters()?.syncs, side.ledger.puts());
    let trace = Trace::begin(&side.system.pids(), &stage.parent)?;
    let measured = slice(stage, at, load_of(row, None), time);
    let syncs = trace.end()?;
    measured?;
    let side = &mut stage.contestants[at];
    let after = (side.system.counters()?.syncs, side.ledger.puts());
    let puts = float((after.1 - before.1).max(1));
    let own = after.0.zip(before.0).map(|(after, before)| float(after - before) / puts);
    Ok(Some((float(syncs) / puts, own)))
}

impl Against {
    fn of(own: &Measured, peer: &Measured, pairs: &[(Slice, Slice)]) -> Against {
        let ratios = |figure: fn(&Slice) -> f64| {
            Spread::of(pairs.iter().map(|(own, peer)| figure(own) / figure(peer)))
        };
        let syncs = pairs.iter().filter_map(|(own, peer)| Some(own.syncs? / peer.syncs?));
        Against {
            name: peer.name.clone(),
            cpu: ratios(|slice| slice.cpu_us),
            rate: ratios(|slice| slice.rate),
            p50: ratios(|slice| slice.p50_us),
            tail: own.tail() / peer.tail(),
            syncs: Spread::of(syncs),
            traced: own
                .traced
                .zip(peer.traced)
                .map(|((own, _), (peer, _))| own / peer)
                .filter(|ratio| ratio.is_finite()),
        }
    }
}
