//! The log as the protocol sees it: which term made which entry.
//!
//! A log of millions of entries has as many runs of one term as it had leaders. The runs answer
//! everything that Figure 2 asks of a log: the previous-entry check, the up-to-date check, the
//! conflict point, the term of the entry to commit. So the rules need no storage.

use crate::types::{LogIndex, LogPosition, Term};

/// Runs of entries of one term, ascending: `(last index of the run, its term)`. Terms ascend
/// strictly.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct TermRuns {
    runs: Vec<(LogIndex, Term)>,
}

impl TermRuns {
    /// The runs that recovery found.
    pub(super) fn new(runs: Vec<(LogIndex, Term)>) -> TermRuns {
        let mut before = (LogIndex::ZERO, Term::ZERO);
        for run in &runs {
            assert!(run.0 > before.0, "run {run:?} ends before {before:?}");
            assert!(run.1 > before.1, "run {run:?} is of no later term than {before:?}");
            before = *run;
        }
        TermRuns { runs }
    }

    /// The last entry, or `ZERO` if there is none.
    pub(super) fn last(&self) -> LogPosition {
        match self.runs.last() {
            Some((index, term)) => LogPosition::new(*term, *index),
            None => LogPosition::ZERO,
        }
    }

    /// The term of the entry at `index`; `None` beyond the last one. The place before the first
    /// entry has term zero, which no entry has.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == LogIndex::ZERO {
            return Some(Term::ZERO);
        }
        self.runs.get(self.run_of(index)).map(|run| run.1)
    }

    /// The position of the entry at `index`, which the log holds.
    pub(super) fn position(&self, index: LogIndex) -> LogPosition {
        let term = self.term_at(index).expect("callers ask for entries of the log");
        LogPosition::new(term, index)
    }

    /// Appends one entry of `term` and says where. Terms never descend along a log.
    pub(super) fn append(&mut self, term: Term) -> LogPosition {
        let last = self.last();
        let index = last.index.next();
        assert!(term > Term::ZERO, "no entry is of term zero");
        assert!(term >= last.term, "an entry of term {term} cannot follow {last}");
        match self.runs.last_mut() {
            Some(run) if run.1 == term => run.0 = index,
            Some(_) | None => self.runs.push((index, term)),
        }
        LogPosition::new(term, index)
    }

    /// Removes every entry after `to`.
    pub(super) fn truncate(&mut self, to: LogIndex) {
        assert!(to <= self.last().index, "cannot keep up to {to}, the log ends earlier");
        let run = self.run_of(to);
        if to == LogIndex::ZERO {
            self.runs.clear();
        } else {
            self.runs.truncate(run.saturating_add(1));
            self.runs[run].0 = to;
        }
    }

    /// The last entry at or below `index` whose term is at most `term`, or `ZERO`.
    ///
    /// Both sides of a conflict use it. An entry of a later term than the other side's at the same
    /// place or further on cannot be in the other side's log, because terms never descend along a
    /// log. So each answer skips a whole run, and a probe is refused at most once per term in which
    /// the logs differ. Paper §5.3, end.
    pub(super) fn last_at_most(&self, index: LogIndex, term: Term) -> LogPosition {
        let among = self.runs.partition_point(|run| run.1 <= term);
        let Some((end, run_term)) = among.checked_sub(1).map(|run| self.runs[run]) else {
            return LogPosition::ZERO;
        };
        if end <= index { LogPosition::new(run_term, end) } else { self.position(index) }
    }

    /// Which run holds `index`. The last run is asked first: almost every question is about the
    /// tail.
    fn run_of(&self, index: LogIndex) -> usize {
        let tail = self.runs.len().saturating_sub(1);
        let in_tail = tail > 0 && index > self.runs[tail - 1].0 && index <= self.runs[tail].0;
        if in_tail { tail } else { self.runs.partition_point(|run| run.0 < index) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stupid twin: one term per entry.
    #[derive(Default)]
    struct Terms(Vec<u64>);

    impl Terms {
        fn term_at(&self, index: u64) -> Option<u64> {
            match usize::try_from(index).expect("small") {
                0 => Some(0),
                at => self.0.get(at - 1).copied(),
            }
        }

        fn last_at_most(&self, index: u64, term: u64) -> (u64, u64) {
            let fits = |at: &u64| self.term_at(*at).is_some_and(|found| found <= term);
            let at = (0..=index).rev().find(fits).expect("index zero has term zero");
            (self.term_at(at).expect("found"), at)
        }
    }

    fn assert_same(runs: &TermRuns, twin: &Terms) {
        let length = u64::try_from(twin.0.len()).expect("small");
        assert_eq!(runs.last().index.get(), length);
        assert_eq!(runs.last().term.get(), twin.0.last().copied().unwrap_or(0));
        for index in 0..length + 3 {
            let term = runs.term_at(LogIndex::new(index)).map(Term::get);
            assert_eq!(term, twin.term_at(index), "term at {index} of {:?}", twin.0);
            for bound in 0..10 {
                let found = runs.last_at_most(LogIndex::new(index), Term::new(bound));
                let found = (found.term.get(), found.index.get());
                assert_eq!(found, twin.last_at_most(index, bound), "{index} {bound} {:?}", twin.0);
            }
        }
    }

    #[test]
    fn runs_answer_like_one_term_per_entry() {
        let mut state = 7_u64;
        let mut roll = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..60 {
            let mut runs = TermRuns::default();
            let mut twin = Terms::default();
            let mut term = 1;
            for _ in 0..40 {
                if roll(4) == 0 {
                    let to = roll(runs.last().index.get() + 1);
                    runs.truncate(LogIndex::new(to));
                    twin.0.truncate(usize::try_from(to).expect("small"));
                } else {
                    term += u64::from(roll(3) == 0 && term < 9);
                    runs.append(Term::new(term));
                    twin.0.push(term);
                }
                assert_same(&runs, &twin);
                assert_eq!(TermRuns::new(runs.runs.clone()), runs);
            }
        }
    }

    #[test]
    #[should_panic(expected = "cannot follow")]
    fn a_term_never_descends_along_a_log() {
        let mut runs = TermRuns::new(vec![(LogIndex::new(4), Term::new(5))]);
        runs.append(Term::new(4));
    }
}
