//! What clients see while a leader dies: an open loop that goes on at whoever leads, so that every
//! operation's waiting counts from the moment it was due.

use crate::Result;
use crate::measure::{self, Contestant, Ending, Load};
use crate::rows::Medium;
use crate::stats::{Ratio, Spread, significant};
use crate::systems::{Cluster, System};
use raftd::client::Clock;
use raftd::client::load::{Mix, OnFailure, Pace, Shape, Signals, Tally, Workload, float};
use serde_json::{Value, json};
use std::time::Duration;

/// What to do to a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kill {
    /// The leader is killed and comes back: latencies over time.
    Once,
    /// Leaders are killed one after the other: how long nobody serves.
    Often {
        /// How many.
        times: u32,
    },
}

/// Where, and with how many keys.
pub(crate) const MEDIUM: Medium = Medium::Disk;
pub(crate) const KEYS: u32 = 10_000;
pub(crate) const VALUE_BYTES: usize = 256;

/// The longest a server waits without a leader before it campaigns: twice the default.
/// Milliseconds.
const ELECTION_MS_MAX: f64 = 600.0;

const RATE: u64 = 2000;
const SHAPE: Shape = Shape { connections: 16, depth: 256 };
const BUCKET: Duration = Duration::from_millis(50);

/// When what happens, from the start of the load.
const KILLED_AT: Duration = Duration::from_secs(4);
const STARTED_AT: Duration = Duration::from_secs(8);
const ENDS_AT: Duration = Duration::from_secs(12);

impl Kill {
    /// What people call it.
    pub(crate) fn name(self) -> String {
        match self {
            Kill::Once => "kill leader once".to_owned(),
            Kill::Often { times } => format!("kill leader {times} times"),
        }
    }
}

/// A bucket of the timeline.
pub(crate) struct Moment {
    /// Seconds from the start.
    pub(crate) at_s: f64,
    /// Operations due then that were done, in a second.
    pub(crate) rate: f64,
    /// Latencies. Milliseconds; none if nothing was due.
    pub(crate) ms: Option<(f64, f64, f64)>,
}

/// What came of it.
pub(crate) enum Seen {
    /// Latencies over time.
    Timeline {
        /// One after the other.
        moments: Vec<Moment>,
        /// The longest that an operation waited. Milliseconds.
        longest_ms: f64,
    },
    /// How long the operation that waited longest did, for each kill. Milliseconds, ascending.
    Outages(Vec<f64>),
}

/// Seconds at which the leader is killed and started again.
pub(crate) fn events() -> [(f64, &'static str); 2] {
    [
        (KILLED_AT.as_secs_f64(), "kill -9 of the leader"),
        (STARTED_AT.as_secs_f64(), "it is started again"),
    ]
}

/// Does it to the cluster of `side`. Returns what was seen, and a line about it.
pub(crate) fn measure(clock: Clock, side: &mut Contestant, kill: Kill) -> Result<(Seen, String)> {
    let name = kill.name();
    match kill {
        Kill::Once => {
            let tally = once(clock, side)?;
            let moments = moments(&tally);
            let longest_ms = ms(tally.latency().max());
            let said = format!(
                "{name}: {RATE} puts due a second; the longest waited {} ms, {} x the longest \
                 election timeout; {} asked again, {} never asked, {} wrong",
                significant(longest_ms),
                significant(longest_ms / ELECTION_MS_MAX),
                tally.repeated,
                tally.unasked,
                tally.wrong,
            );
            Ok((Seen::Timeline { moments, longest_ms }, said))
        }
        Kill::Often { times } => {
            let mut outages = Vec::new();
            for _ in 0..times {
                outages.push(ms(outage(clock, side)?.latency().max()));
            }
            outages.sort_by(f64::total_cmp);
            let spread = Spread::of(outages.iter().copied()).ok_or("no kill was seen")?;
            let said = format!(
                "{name}: the longest wait of each, p50 {} ms, max {} ms: {} and {} of the longest \
                 election timeout",
                significant(spread.median),
                significant(spread.most),
                Ratio(spread.median / ELECTION_MS_MAX),
                Ratio(spread.most / ELECTION_MS_MAX),
            );
            Ok((Seen::Outages(outages), said))
        }
    }
}

/// For machines.
pub(crate) fn json(kill: Kill, seen: &Seen, tally_line: &str) -> Value {
    match seen {
        Seen::Timeline { moments, longest_ms } => {
            let each = moments.iter().map(|moment| {
                let latency = moment
                    .ms
                    .map(|(p50, p99, max)| json!({ "p50_ms": p50, "p99_ms": p99, "max_ms": max }));
                json!({ "at_s": moment.at_s, "per_s": moment.rate, "latency": latency })
            });
            let events = events().map(|(at, what)| json!({ "at_s": at, "what": what }));
            json!({
                "name": kill.name(), "due_per_s": RATE, "longest_ms": longest_ms,
                "events": events, "said": tally_line, "moments": each.collect::<Vec<Value>>(),
            })
        }
        Seen::Outages(outages) => json!({
            "name": kill.name(), "outages_ms": outages, "said": tally_line,
            "spread_ms": Spread::of(outages.iter().copied()).map(|spread| spread.json()),
        }),
    }
}

/// The cluster below a contestant.
fn cluster(system: &mut System) -> Result<&mut Cluster> {
    match system {
        System::Raftd(cluster) => Ok(cluster),
        System::Gateway(_) | System::Etcd(_) | System::Redis(_) => {
            Err("only raftd's leaders are killed".into())
        }
    }
}

fn load(per_second: u64, timeline: Option<(Duration, usize)>) -> Load {
    let (workload, pace) = (Workload::even(Mix::PUTS), Pace::Open { per_second });
    Load { on_failure: OnFailure::GoOn, timeline, ..Load::of(workload, SHAPE, pace) }
}

fn once(clock: Clock, side: &mut Contestant) -> Result<Tally> {
    let buckets = usize::try_from(ENDS_AT.as_millis() / BUCKET.as_millis())?;
    let leader = side.system.leader()?;
    let door = side.system.door(leader);
    let load = load(RATE, Some((BUCKET, buckets)));
    let Contestant { system, ledger, .. } = side;
    let cluster = cluster(system)?;
    let watch = |signals: &Signals, ending: &Ending| {
        signals.measure();
        let mut last = Duration::ZERO;
        let mut wait_until = |at: Duration| -> Result<()> {
            let waited = ending.is_later_than(at - last);
            last = at;
            if waited { Ok(()) } else { Err("the load ended before its time".into()) }
        };
        wait_until(KILLED_AT)?;
        cluster.kill(leader)?;
        wait_until(STARTED_AT)?;
        cluster.start_server(leader)?;
        wait_until(ENDS_AT)
    };
    let ((), tally) = measure::beside(clock, &door, load, ledger, watch)?;
    Ok(tally)
}

/// A kill under a light load. Returns once all servers are back.
fn outage(clock: Clock, side: &mut Contestant) -> Result<Tally> {
    let leader = side.system.leader()?;
    let door = side.system.door(leader);
    let Contestant { system, ledger, .. } = &mut *side;
    let cluster = cluster(system)?;
    let watch = |signals: &Signals, ending: &Ending| {
        signals.measure();
        let _running = ending.is_later_than(Duration::from_millis(500));
        cluster.kill(leader)?;
        let done = signals.done();
        // Until it serves again, and a little more.
        let served = crate::wait::until(Duration::from_secs(9), || {
            Ok((signals.done() > done + 100).then_some(()))
        })?;
        served.ok_or("nobody served for 9 s")?;
        let _running = ending.is_later_than(Duration::from_millis(300));
        Ok(())
    };
    let ((), tally) = measure::beside(clock, &door, load(500, None), ledger, watch)?;
    self::cluster(&mut side.system)?.start_server(leader)?;
    side.system.leader()?;
    Ok(tally)
}

fn moments(tally: &Tally) -> Vec<Moment> {
    let Some(timeline) = &tally.timeline else { return Vec::new() };
    let moments = timeline.buckets().map(|(at_s, bucket)| Moment {
        at_s,
        rate: float(bucket.len()) / BUCKET.as_secs_f64(),
        ms: (!bucket.is_empty()).then(|| {
            let at = |quantile| ms(bucket.value_at_quantile(quantile));
            (at(0.5), at(0.99), ms(bucket.max()))
        }),
    });
    moments.collect()
}

fn ms(ns: u64) -> f64 {
    float(ns) / 1e6
}
