//! What 16 writers were told, and when: the evidence of the chaos test.

use super::patience::now;
use raftd::client::KeyValue;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What came of a put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// It is done.
    Done,
    /// It is certainly not done.
    Refused,
    /// Nobody knows.
    Nothing,
}

/// Every put of one writer, in its order. A key belongs to one writer, who leaves it alone after a
/// put of which it was told nothing: so it is always clear which values the key may have.
#[derive(Default)]
pub(super) struct Ledger(BTreeMap<String, Vec<(u64, Told)>>);

/// How often each answer came.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    pub(super) done: usize,
    pub(super) refused: usize,
    pub(super) unknown: usize,
}

impl Ledger {
    /// Notes what a writer was told about a put.
    pub(super) fn note(&mut self, key: &str, value: u64, told: Told) {
        self.0.entry(key.to_owned()).or_default().push((value, told));
    }

    /// Counts the answers into `tally`.
    pub(super) fn count(&self, tally: &mut Tally) {
        for (_, told) in self.0.values().flatten() {
            match told {
                Told::Done => tally.done += 1,
                Told::Refused => tally.refused += 1,
                Told::Nothing => tally.unknown += 1,
            }
        }
    }

    /// Compares with what the cluster holds; removes what was compared. Every broken promise is a
    /// line.
    pub(super) fn compare(&self, found: &mut BTreeMap<String, u64>, broken: &mut Vec<String>) {
        for (key, puts) in &self.0 {
            let value = found.remove(key);
            let last_done = puts.iter().rposition(|(_, told)| *told == Told::Done);
            let since = last_done.map_or(0, |at| at);
            let mut may_be = puts[since..].iter().filter(|(_, told)| *told != Told::Refused);
            let good = match value {
                Some(value) => may_be.any(|(put, _)| *put == value),
                None => last_done.is_none(),
            };
            if !good {
                broken.push(format!("{key} is {value:?} after {puts:?}"));
            }
        }
    }
}

/// Keys and values as the chaos test writes them.
pub(super) fn parse(kv: &KeyValue) -> (String, u64) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the test writes text");
    (text(&kv.key), text(&kv.value).parse().expect("the test writes numbers"))
}

/// When puts were acknowledged: times without service, seen from all writers together.
pub(super) struct Service {
    start: Instant,
    last_us: AtomicU64,
    gaps: Mutex<Vec<(u64, u64)>>,
}

/// Shorter times without an acknowledged put are not told from none: writers rest for longer.
/// Microseconds.
const GAP_US: u64 = 1_000;

impl Service {
    /// Begins now.
    pub(super) fn start() -> Service {
        Service { start: now(), last_us: AtomicU64::new(0), gaps: Mutex::new(Vec::new()) }
    }

    /// Microseconds since the beginning.
    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(now().duration_since(self.start).as_micros()).expect("a test ends")
    }

    /// A put was acknowledged.
    pub(super) fn acknowledged(&self) {
        let at = self.now_us();
        let before = self.last_us.fetch_max(at, Ordering::Relaxed);
        if at.saturating_sub(before) > GAP_US {
            self.gaps.lock().unwrap().push((before, at));
        }
    }

    /// Whether a put was acknowledged after `moment_us`.
    pub(super) fn since(&self, moment_us: u64) -> bool {
        self.last_us.load(Ordering::Relaxed) > moment_us
    }

    /// The longest time without service within this stretch.
    pub(super) fn longest_gap(&self, from_us: u64, to_us: u64) -> Duration {
        let gaps = self.gaps.lock().unwrap();
        let within = gaps
            .iter()
            .map(|(began, ended)| (*ended).min(to_us).saturating_sub((*began).max(from_us)));
        Duration::from_micros(within.max().unwrap_or(0))
    }
}

#[test]
fn a_ledger_knows_which_values_a_key_may_have() {
    let mut ledger = Ledger::default();
    for (key, value, told) in [
        ("lost", 1, Told::Done),
        ("old", 1, Told::Done),
        ("old", 2, Told::Done),
        ("refused", 1, Told::Refused),
        ("open", 1, Told::Done),
        ("open", 2, Told::Nothing),
        ("never", 1, Told::Nothing),
    ] {
        ledger.note(key, value, told);
    }
    let found = [("old", 1), ("refused", 1), ("open", 2), ("stray", 1)];
    let mut found = found.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
    let mut broken = Vec::new();
    ledger.compare(&mut found, &mut broken);
    let keys: Vec<&str> = broken.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(keys, ["lost", "old", "refused"]);
    assert_eq!(found.into_keys().collect::<Vec<_>>(), ["stray"]);
}
