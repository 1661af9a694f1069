//! Where allocations come from: of one in so many the way to it is kept, and printed at the end.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Functions of ours on the way to an allocation that are printed, the innermost first.
const SHOWN: usize = 6;

thread_local! {
    /// One in so many; 0 is none.
    static PERIOD: Cell<u64> = const { Cell::new(0) };
    static SAMPLES: RefCell<Vec<(Backtrace, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Begins to take samples, if that is asked for.
pub(crate) fn begin() {
    let asked = std::env::var("COSTS_TRACE").ok();
    let period = asked.map_or(0, |text| text.parse().expect("COSTS_TRACE is a number"));
    PERIOD.set(period);
}

/// This thread's `nth` allocation, of so many bytes. To be called where it is not counted what is
/// allocated.
pub(crate) fn note(nth: u64, bytes: u64) {
    let period = PERIOD.get();
    if period > 0 && nth.is_multiple_of(period) {
        let sample = (Backtrace::force_capture(), bytes);
        SAMPLES.with_borrow_mut(|samples| samples.push(sample));
    }
}

/// Takes no more samples; prints those taken, if any were asked for.
#[allow(clippy::print_stderr, reason = "it was asked for")]
pub(crate) fn end(operation: &str) {
    if PERIOD.replace(0) == 0 {
        return;
    }
    let mut ways: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (backtrace, bytes) in SAMPLES.take() {
        let (count, sum) = ways.entry(way(&backtrace.to_string())).or_default();
        *count += 1;
        *sum += bytes;
    }
    let mut ways: Vec<_> = ways.into_iter().collect();
    ways.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    eprintln!("{operation}: where allocations come from");
    for (way, (count, bytes)) in ways {
        eprintln!("{count:>8} samples, {bytes:>10} bytes\n{way}");
    }
}

/// The functions of raftd in a printed backtrace, each with its line. They are known by their
/// files: of what is inlined the name has no path.
fn way(backtrace: &str) -> String {
    let mut lines = backtrace.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let place = lines.next_if(|next| next.trim_start().starts_with("at "));
        let function = line.split_once(": ").map_or(line, |(_, function)| function);
        let is_ours = |place: &&str| place.trim_start().starts_with("at ./src/");
        if let Some(place) = place.filter(is_ours)
            && found.len() < SHOWN
        {
            found.push(format!("         {} {}\n", function.trim(), place.trim()));
        }
    }
    found.concat()
}
