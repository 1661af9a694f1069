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
//! A pair is measured again if the host took much from the machine meanwhile, or a leader changed.

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
    /// Memory for the logs.
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
    /// The 99.9th percentile over the median.
    pub(crate) tail: f64,
    /// Syncs of all servers for an operation.
    pub(crate) syncs: Option<f64>,
}

impl Slice {
    fn of(used: &Use, tally: &Tally) -> Slice {
        let latency = tally.latency();
        let us = |quantile: f64| float(latency.value_at_quantile(quantile)) / 1000.0;
        Slice {
            cpu_us: used.cpu_us(),
            rate: used.rate(),
            p50_us: us(0.5),
            tail: us(0.999) / us(0.5),
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
    /// The 99.9th percentile over the median.
    pub(crate) tail: Option<Spread>,
    /// Syncs for an operation.
    pub(crate) syncs: Option<Spread>,
}

/// A measured row.
pub(crate) struct Outcome {
    /// Which.
    pub(crate) row: Row,
    /// The row's system first, then its peers.
    pub(crate) of: Vec<Measured>,
    /// The ratios.
    pub(crate) against: Vec<Against>,
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
    };
    stage.again = 0;
    let peers: Vec<usize> = row.against.iter().filter_map(|who| place_of(stage, *who)).collect();
    let own = place_of(stage, row.who).ok_or("its system does not run")?;
    let mut entered = Vec::new();
    for at in std::iter::once(&own).chain(&peers) {
        entered.push(enter(stage, row, *at)?);
    }
    let mut against = Vec::new();
    for (peer, at) in peers.iter().enumerate() {
        let mut pairs = Vec::new();
        for _ in 0..stage.plan.rounds {
            for order in [[0, peer + 1], [peer + 1, 0]] {
                let mut pair = [None; 2];
                for side in order {
                    let place = if side == 0 { own } else { *at };
                    let slice = race.slice(stage, row, place, &mut entered[side])?;
                    pair[usize::from(side != 0)] = Some(slice);
                }
                pairs.extend(pair[0].zip(pair[1]));
            }
        }
        against.push(Against::of(entered[peer + 1].name.clone(), &pairs));
    }
    if peers.is_empty() {
        for _ in 0..stage.plan.slices {
            race.slice(stage, row, own, &mut entered[0])?;
        }
    }
    if let Some(times) = &mut race.floor {
        stage.floor.sample(times)?;
    }
    let is_traced = row.workload == Workload::even(Mix::PUTS) && row.pace == RowPace::Closed;
    if stage.may_trace && is_traced && !peers.is_empty() {
        for (entry, at) in entered.iter_mut().zip(std::iter::once(&own).chain(&peers)) {
            entry.traced = traced(stage, row, *at, race.time)?;
        }
    }
    Ok(Outcome { row: row.clone(), of: entered, against, floor: race.floor, again: stage.again })
}

fn place_of(stage: &Stage<'_>, who: Who) -> Option<usize> {
    stage.contestants.iter().position(|side| side.who == who)
}

/// A system's line of the row, still empty. Not measured: until histories are full and buffers have
/// grown, a put costs more.
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
        stage.reserve.free_for(time * 5 / 4)?;
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
        match measure::slice(stage.clock, &mut stage.contestants[at], load, time) {
            Err(error) if is_leader_lost(&error) && attempts < ATTEMPTS => {
                attempts += 1;
                stage.again += 1;
            }
            measured => return measured,
        }
    }
}

/// What the slices of a row share.
struct Race {
    time: Duration,
    floor: Option<FloorTimes>,
}

impl Race {
    /// Measures a slice, again if the host disturbed it, and adds it to its line.
    fn slice(
        &mut self,
        stage: &mut Stage<'_>,
        row: &Row,
        at: usize,
        entry: &mut Measured,
    ) -> Result<Slice> {
        loop {
            if let Some(times) = &mut self.floor {
                stage.floor.sample(times)?;
            }
            if row.workload.writes() && entry.who == Who::Raftd {
                stage.reserve.free_for(self.time * 5 / 4)?;
            }
            let load = load_of(row, entry.asked_per_s);
            let (used, tally) = slice(stage, at, load, self.time)?;
            let stolen = float(used.machine.stolen_ns) / float(used.elapsed_ns.max(1));
            if stolen > STOLEN_MAX && stage.again < stage.plan.slices {
                stage.again += 1;
                continue;
            }
            let slice = Slice::of(&used, &tally);
            entry.slices.push(slice);
            entry.used.add(&used);
            entry.tally.merge(&tally);
            return Ok(slice);
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
    fn of(name: String, pairs: &[(Slice, Slice)]) -> Against {
        let ratios = |figure: fn(&Slice) -> f64| {
            Spread::of(pairs.iter().map(|(own, peer)| figure(own) / figure(peer)))
        };
        let syncs = pairs.iter().filter_map(|(own, peer)| Some(own.syncs? / peer.syncs?));
        Against {
            name,
            cpu: ratios(|slice| slice.cpu_us),
            rate: ratios(|slice| slice.rate),
            p50: ratios(|slice| slice.p50_us),
            tail: ratios(|slice| slice.tail),
            syncs: Spread::of(syncs),
        }
    }
}
