//! Nothing is said to have noticed a bug that would have failed without it.

use super::judge::{Asked, CLUSTERED, Judge, Programs, SEEDS_FOR_POINTS};
use super::score::Verdict;
use super::suite::{End, Suite};
use std::cell::{Cell, RefCell};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// Programs that end as it is written.
struct Staged<W: Fn(&Run) -> End, O: Fn(&Run) -> End> {
    with_bug: W,
    without: O,
    notes: RefCell<Vec<String>>,
}

/// What is run.
struct Run {
    /// The seeds, behind the first and up to the second, if it is the simulator.
    seeds: Option<(u64, u64)>,
    program: &'static str,
    words: String,
}

impl Run {
    fn of(suite: &Suite) -> Run {
        let words = suite.arguments.join(" ");
        let number = |flag: &str| {
            let mut rest = suite.arguments.iter().skip_while(|word| *word != flag).skip(1);
            rest.next().and_then(|text| text.parse::<u64>().ok())
        };
        let range = number("--first").zip(number("--seeds"));
        let seeds = range.map(|(first, seeds)| (first - 1, first - 1 + seeds));
        Run { seeds, program: suite.name, words }
    }

    fn has(&self, seed: u64) -> bool {
        self.seeds.is_some_and(|(after, last)| after < seed && seed <= last)
    }
}

impl<W: Fn(&Run) -> End, O: Fn(&Run) -> End> Programs for Staged<W, O> {
    fn with_bug(&self, suite: &Suite, _: Duration) -> Result<End, String> {
        Ok((self.with_bug)(&Run::of(suite)))
    }

    fn without(&self, suite: &Suite, _: Duration) -> Result<End, String> {
        Ok((self.without)(&Run::of(suite)))
    }

    fn note(&self, words: String) {
        self.notes.borrow_mut().push(words);
    }
}

fn failed(said: &str) -> End {
    End::Failed { said: said.to_owned(), how: ExitStatus::from_raw(1 << 8) }
}

/// By signal 6.
fn aborted(said: &str) -> End {
    End::Failed { said: said.to_owned(), how: ExitStatus::from_raw(6) }
}

fn verdict(
    with_bug: impl Fn(&Run) -> End,
    without: impl Fn(&Run) -> End,
    sim_only: bool,
) -> Verdict {
    verdict_of(100, with_bug, without, sim_only)
}

fn verdict_of(
    seeds: u64,
    with_bug: impl Fn(&Run) -> End,
    without: impl Fn(&Run) -> End,
    sim_only: bool,
) -> Verdict {
    let programs = Staged { with_bug, without, notes: RefCell::default() };
    let asked = Asked { seeds, jobs: 2, sim_only };
    let judge = Judge { programs: &programs, asked: &asked, seed_limit: Duration::from_secs(1) };
    judge.notice("sim", None).unwrap()
}

const SURVIVED: Verdict = Verdict::Survived { seeds: 100 };

#[test]
fn a_seed_counts_if_it_passes_without_the_bug() {
    let report = |run: &Run| {
        let seed = [40, 60].into_iter().find(|seed| run.has(*seed));
        seed.map_or(End::Passed, |it| failed(&format!("FAILED seed={it} invariant=A\nwhy\n")))
    };
    let flawed = |run: &Run| if run.has(40) { failed("") } else { End::Passed };
    let by = |seed| Verdict::Seed { seed, what: "A (why)".to_owned() };
    assert_eq!(verdict(report, |_| End::Passed, true), by(40));
    assert_eq!(verdict(report, flawed, true), by(60));
    assert_eq!(verdict(report, report, true), SURVIVED);
}

#[test]
fn a_simulator_that_ends_early_is_traced_to_its_seed_and_counts_if_it_does_not_without_the_bug() {
    let dies = |run: &Run| {
        if run.has(77) { aborted("\nthread has overflowed its stack\n") } else { End::Passed }
    };
    let Verdict::Seed { seed: 77, what } = verdict(dies, |_| End::Passed, true) else {
        panic!("it is not traced");
    };
    assert!(what.contains("signal: 6") && what.contains("overflowed its stack"), "{what}");
    assert_eq!(verdict(dies, dies, true), SURVIVED);
    // Several seeds at once take too much memory, one by one they do not.
    let together = |run: &Run| match run.seeds {
        Some((after, last)) if last - after > 1 => aborted("memory allocation failed"),
        Some(_) | None => End::Passed,
    };
    assert!(matches!(verdict(together, |_| End::Passed, true), Verdict::Died { .. }));
    assert_eq!(verdict(together, together, true), SURVIVED);
}

#[test]
fn a_point_that_enough_seeds_miss_counts_if_they_reach_it_without_the_bug() {
    let misses = |run: &Run| match run.seeds {
        Some((0, 100)) => failed("FAILED 1 sometimes-points were not reached:\n  A: b\n"),
        Some(_) | None => End::Passed,
    };
    assert!(matches!(verdict(misses, |_| End::Passed, true), Verdict::Died { .. }));
    assert_eq!(verdict(misses, misses, true), SURVIVED);
}

/// Seeds were simulated in stages of fewer than enough, and only `--sim-only` could see it.
#[test]
fn a_point_that_enough_seeds_miss_is_missed_with_directed_tests_and_without_them() {
    let misses = |run: &Run| match run.seeds {
        Some((after, last)) if last - after >= SEEDS_FOR_POINTS => failed("FAILED 1 points\n"),
        Some(_) | None => End::Passed,
    };
    for sim_only in [true, false] {
        for seeds in [SEEDS_FOR_POINTS, SEEDS_FOR_POINTS + 1] {
            let noticed = verdict_of(seeds, misses, |_| End::Passed, sim_only);
            assert!(matches!(noticed, Verdict::Died { .. }), "{noticed:?}");
        }
        let few = SEEDS_FOR_POINTS - 1;
        let survived = Verdict::Survived { seeds: few };
        assert_eq!(verdict_of(few, misses, |_| End::Passed, sim_only), survived);
    }
    let enough = format!("ENOUGH_SEEDS: u64 = {SEEDS_FOR_POINTS};");
    assert!(include_str!("../sim/runner.rs").contains(&enough), "as the simulator says");
}

#[test]
fn what_hangs_counts_if_it_does_not_without_the_bug() {
    let hangs = |_: &Run| End::Hung;
    assert!(matches!(verdict(hangs, |_| End::Passed, true), Verdict::Hung { .. }));
    assert_eq!(verdict(hangs, hangs, true), SURVIVED);
    let tests_hang = |run: &Run| if run.seeds.is_none() { End::Hung } else { End::Passed };
    assert!(matches!(verdict(tests_hang, |_| End::Passed, false), Verdict::Hung { .. }));
    assert_eq!(verdict(tests_hang, tests_hang, false), SURVIVED);
}

/// The machine stood still for a while, and what came next was not slow.
#[test]
fn what_hangs_only_once_counts_for_nothing() {
    for sim_only in [true, false] {
        let hung = Cell::new(false);
        let hangs_once = |run: &Run| {
            let is_meant = sim_only == run.seeds.is_some();
            if is_meant && !hung.replace(true) { End::Hung } else { End::Passed }
        };
        assert_eq!(verdict(hangs_once, |_| End::Passed, sim_only), SURVIVED);
        assert!(hung.get(), "it was run");
    }
}

#[test]
fn a_test_counts_if_it_fails_again_and_passes_without_the_bug() {
    let both = "test a::b ... FAILED\ntest c::d ... FAILED\n";
    let fails = |run: &Run| if run.seeds.is_none() { failed(both) } else { End::Passed };
    let without_too = |run: &Run| if run.words.contains("a::b") { failed("") } else { End::Passed };
    let by = |what: &str| Verdict::Test { what: what.to_owned() };
    assert_eq!(verdict(fails, |_| End::Passed, false), by("a::b"));
    assert_eq!(verdict(fails, without_too, false), by("c::d"));
    assert_eq!(verdict(fails, fails, false), SURVIVED);
    // Alone, neither fails.
    let once = |run: &Run| {
        let alone = run.seeds.is_some() || run.words.contains("--exact");
        if alone { End::Passed } else { failed(both) }
    };
    assert_eq!(verdict(once, |_| End::Passed, false), SURVIVED);
}

#[test]
fn a_test_program_that_ends_early_counts_if_it_does_not_without_the_bug() {
    let dies = |run: &Run| if run.seeds.is_none() { aborted("") } else { End::Passed };
    assert!(matches!(verdict(dies, |_| End::Passed, false), Verdict::Died { .. }));
    assert_eq!(verdict(dies, dies, false), SURVIVED);
}

#[test]
fn a_test_of_clusters_is_run_if_it_is_named_and_no_other_is() {
    let noticed = |caught_by: &str, sim_only| {
        let with_bug = |run: &Run| match run.program {
            CLUSTERED => failed("test cluster::a::b ... FAILED\n"),
            _other => End::Passed,
        };
        let notes = RefCell::default();
        let programs = Staged { with_bug, without: |_: &Run| End::Passed, notes };
        let asked = Asked { seeds: 0, jobs: 2, sim_only };
        let judge =
            Judge { programs: &programs, asked: &asked, seed_limit: Duration::from_secs(1) };
        judge.notice(caught_by, None).unwrap()
    };
    let by = Verdict::Test { what: "cluster::a::b".to_owned() };
    assert_eq!(noticed("cluster::a::b", false), by);
    let survived = Verdict::Survived { seeds: 0 };
    assert_eq!(noticed("cluster::a::b", true), survived);
    assert_eq!(noticed("wal::a::b", false), survived);
}
