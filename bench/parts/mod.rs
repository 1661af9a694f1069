//! The floor of the parts: what each piece of an operation costs by itself on this machine. What
//! the tables say of a whole is divided by them.
//!
//! ```text
//! put   echo (frames of a put, nothing stored) + decode + on every server: CRC, apply
//! get   echo + a look into the store
//! ```
//! Messages between servers and syncs are shared by all operations of a turn, hundreds of them at
//! 1000 in flight, and are not in it.

mod bytes;
mod echo;
mod store;

use crate::Result;
use crate::floor::{Floor, FloorTimes};
use crate::rows::{Group, Row};
use crate::stats::{Spread, significant};
use crate::systems::Who;
use raftd::client::Clock;
use raftd::client::load::{Mix, Shape, Workload, float};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// How often each part is measured.
const REPEATS: usize = 5;

/// A piece of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// Frames of puts over loopback, answered by a loop that stores nothing.
    Echo(Shape),
    /// Syncs of a page, alone and three at the same time.
    Syncs,
    /// Reading a put's frame and command.
    Decode,
    /// A CRC over so many bytes.
    Crc(usize),
    /// A store of so many keys: new keys, puts, gets.
    Store(u32),
}

impl Part {
    /// What people call it.
    pub(crate) fn name(self) -> String {
        match self {
            Part::Echo(Shape { connections, depth }) => format!("part echo {connections}x{depth}"),
            Part::Syncs => "part syncs".to_owned(),
            Part::Decode => "part decode".to_owned(),
            Part::Crc(bytes) => format!("part crc {bytes} B"),
            Part::Store(keys) => format!("part store {}k", keys / 1000),
        }
    }
}

/// All parts, or the quick ones.
pub(crate) fn all(full: bool) -> Vec<Part> {
    let echo = |connections, depth| Part::Echo(Shape { connections, depth });
    let mut parts = vec![echo(1, 1), echo(100, 10), echo(100, 16), Part::Syncs, Part::Decode];
    parts.extend([150, 4096, 65_536].map(Part::Crc));
    parts.extend([10_000, 100_000, 1_000_000].map(Part::Store));
    if full {
        parts.extend([echo(100, 1), echo(16, 64), Part::Store(10_000_000)]);
    }
    parts
}

/// A figure of a part.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// What is measured.
    pub(crate) name: String,
    /// Of one operation. Nanoseconds.
    pub(crate) ns: Spread,
    /// What else is to be said.
    pub(crate) note: String,
}

impl Figure {
    fn of(name: impl Into<String>, ns: &[f64]) -> Result<Figure> {
        let ns = Spread::of(ns.iter().copied()).ok_or("a part was not measured")?;
        Ok(Figure { name: name.into(), ns, note: String::new() })
    }

    fn with(self, note: String) -> Figure {
        Figure { note, ..self }
    }
}

/// What was measured so far.
#[derive(Clone, Default, Debug)]
pub(crate) struct Figures(Vec<Figure>);

/// Measures a part.
pub(crate) fn measure(clock: Clock, part: Part, disk: &Path) -> Result<Vec<Figure>> {
    match part {
        Part::Echo(shape) => echo::figures(clock, shape, &part.name()),
        Part::Syncs => syncs(clock, disk),
        Part::Decode => bytes::decode(),
        Part::Crc(bytes) => bytes::crc(bytes, &part.name()),
        Part::Store(keys) => store::measure(keys, &part.name()),
    }
}

fn syncs(clock: Clock, disk: &Path) -> Result<Vec<Figure>> {
    let mut floor = Floor::prepare(clock, disk)?;
    let (mut alone, mut second) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        alone.push(float(floor.alone_p50_ns()?));
        let mut times = FloorTimes::new();
        floor.sync(&mut times.sync)?;
        second.push(float(times.sync.value_at_quantile(0.5)));
    }
    Ok(vec![
        Figure::of("part syncs alone", &alone)?,
        Figure::of("part syncs second of three", &second)?,
    ])
}

/// CPU that this thread has used. Nanoseconds.
fn thread_cpu_ns() -> f64 {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    let used = Duration::try_from(used).expect("time that was used is not negative");
    float(u64::try_from(used.as_nanos()).expect("no thread runs for 500 years"))
}

/// The CPU time of one of `count` operations that `work` does, some times.
fn timed(count: u32, mut work: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let mut ns = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let start_ns = thread_cpu_ns();
        work()?;
        ns.push((thread_cpu_ns() - start_ns) / f64::from(count));
    }
    Ok(ns)
}

impl Figures {
    /// Adds what was measured.
    pub(crate) fn extend(&mut self, figures: Vec<Figure>) {
        self.0.extend(figures);
    }

    /// As lines of text.
    pub(crate) fn lines(figures: &[Figure]) -> String {
        let line = |figure: &Figure| {
            let Spread { median, least, most, .. } = figure.ns;
            let [median, least, most] = [median, least, most].map(significant);
            let Figure { name, note, .. } = figure;
            format!("{name:<32} {median:>9} ns  [{least}..{most}]  {note}").trim_end().to_owned()
        };
        figures.iter().map(line).collect::<Vec<String>>().join("\n")
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        let each = self.0.iter().map(
            |figure| json!({ "name": figure.name, "ns": figure.ns.json(), "note": figure.note }),
        );
        each.collect::<Vec<Value>>().into()
    }

    /// The figure of this name. Nanoseconds.
    pub(crate) fn ns(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|figure| figure.name == name).map(|figure| figure.ns.median)
    }

    /// What one operation of the row costs in parts, and which. Nanoseconds. `None` if one of them
    /// was not measured, or the row is no row of puts or gets alone.
    pub(crate) fn of_row(&self, group: &Group, row: &Row) -> Option<(f64, String)> {
        if row.who != Who::Raftd {
            return None;
        }
        let echo = self.ns(&Part::Echo(row.shape).name())?;
        let store = Part::Store(group.keys).name();
        if row.workload == Workload::even(Mix::GETS) {
            let get = self.ns(&format!("{store}: get"))?;
            return Some((echo + get, format!("echo {echo:.0} + get {get:.0}")));
        }
        if row.workload != Workload::even(Mix::PUTS) {
            return None;
        }
        let apply = self.ns(&format!("{store}: put"))?;
        let bytes = 32 + u32::try_from(group.value_bytes).ok()?;
        let crc = self.ns(&Part::Crc(65_536).name())? / 65_536.0 * f64::from(bytes);
        let nodes = f64::from(u32::try_from(group.nodes).ok()?);
        let said = format!(
            "echo with its decoding {echo:.0} + {nodes} x (CRC {crc:.0} + apply {apply:.0})"
        );
        Some((echo + nodes * (crc + apply), said))
    }
}
