//! One seed: the safety phase, the liveness phase, the history, and what came of it.

use crate::clients::Changes;
use crate::coverage::{Coverage, Point};
use crate::history::{self, Summary};
use crate::invariants::{Broken, broken_rule, must};
use crate::options::{Options, Overrides, SECOND};
use crate::output::complain;
use crate::trace::Tracing;
use crate::watchdog::watch;
use crate::world::World;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Ops that clients begin in a simulated second, at least.
const OPS_PER_SECOND: u64 = 100;

/// A shorter run is over before a bad start is made up for; none is drawn that is.
const JUDGED_FROM_NS: u64 = 10 * SECOND;

/// What a run did.
#[derive(Clone, Default, Debug)]
pub(crate) struct Report {
    pub(crate) events: u64,
    /// Of everything that happened: equal for equal seeds.
    pub(crate) hash: u64,
    pub(crate) simulated_ns: u64,
    pub(crate) issued: u64,
    pub(crate) committed: u64,
    pub(crate) changes: Changes,
    pub(crate) attempts: u64,
    pub(crate) losses: u64,
    /// In tenths of an election timeout.
    pub(crate) served_after: u64,
    /// Ops that have an order in which revisions have no part, and those left out of that.
    pub(crate) ordered: u64,
    pub(crate) unordered: u64,
    pub(crate) coverage: Coverage,
}

thread_local! {
    static PANIC: RefCell<Option<Words>> = const { RefCell::new(None) };
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Where a panic was, and what it said.
struct Words {
    place: String,
    text: Option<String>,
}

/// Keeps the words of panics within a run for its report; others are the simulator's own.
pub(crate) fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        if !RUNNING.get() {
            let said = text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
            complain(format_args!("the simulator itself panicked at {place}{said}"));
        }
        PANIC.set(Some(Words { place, text }));
    }));
}

/// Runs a seed.
pub(crate) fn run(seed: u64, overrides: &Overrides, tracing: Tracing) -> Result<Report, Broken> {
    // Whoever prints all that happens may stand still for as long as its reader likes.
    let _watched = (tracing != Tracing::Print).then(|| watch(seed, overrides));
    RUNNING.set(true);
    let result =
        catch_unwind(AssertUnwindSafe(|| run_all(Options::draw(seed, overrides), tracing)));
    RUNNING.set(false);
    result.map_err(|payload| match payload.downcast::<Broken>() {
        Ok(broken) => *broken,
        Err(_) => {
            let Words { place, text } = PANIC.take().expect("a panic goes through the hook");
            let text = text.unwrap_or_else(|| "a panic without words".to_owned());
            Broken { invariant: "Assertion", why: format!("{place}: {text}"), rule: place }
        }
    })
}

fn run_all(options: Options, tracing: Tracing) -> Report {
    let horizon = options.horizon_ns;
    let losses_wanted = options.power_losses;
    let mut world = World::new(options, tracing);
    match losses_wanted {
        None => world.run_until(horizon),
        Some(wanted) => {
            while world.losses < wanted {
                world.run_until(world.now + SECOND / 10);
            }
        }
    }
    check_progress(&world, losses_wanted.is_none());
    let (issued, committed) = (world.crowd.issued, world.crowd.committed);
    let changes = world.crowd.changes;
    let live = world.check_liveness();
    let summary = check_history(&mut world);
    Report {
        events: world.trace.events,
        hash: world.trace.hash,
        simulated_ns: world.now,
        issued,
        committed,
        changes,
        attempts: world.attempts(),
        losses: world.losses,
        served_after: live.served_after,
        ordered: summary.ordered,
        unordered: summary.unordered,
        coverage: world.coverage,
    }
}

/// A run that committed too little has shown too little.
fn check_progress(world: &World, strictly: bool) {
    let (issued, committed) = (world.crowd.issued, world.crowd.committed);
    if strictly && world.now >= JUDGED_FROM_NS {
        must!(
            issued * SECOND >= OPS_PER_SECOND * (world.now - SECOND),
            "Progress",
            "only {issued} ops were asked for"
        );
        must!(
            committed * 2 >= issued,
            "Progress",
            "only {committed} of {issued} ops were answered"
        );
        let (Changes { done, over_quota, .. }, due) =
            (world.crowd.changes, world.crowd.changes.due());
        must!(
            done * 2 >= due,
            "Progress",
            "only {done} of {due} changes were done, beside {over_quota} that found no room"
        );
    }
}

/// What the history shows, of which each way to look must have seen enough.
fn check_history(world: &mut World) -> Summary {
    world.crowd.history.finals = world.finals();
    world.end_watches();
    match history::check(&world.crowd.history) {
        Ok(summary) => {
            world.coverage.hit_if(summary.unknown_done > 0, Point::UnknownDone);
            world.coverage.hit_if(summary.unknown_dropped > 0, Point::UnknownLost);
            let Summary { answered, ordered, unordered, .. } = summary;
            world.coverage.hit_if(ordered > unordered, Point::OrderFound);
            world.coverage.hit_if(unordered > 0, Point::OrderSkipped);
            must!(
                ordered > 0 || answered < 100,
                "Progress",
                "an order was looked for of {ordered} ops, and not of {unordered}"
            );
            summary
        }
        Err(violation) => {
            broken_rule("History", format!("{:?}", violation.rule), violation.to_string())
        }
    }
}
