//! The log as the protocol sees it: which term made which entry.
//!
//! A log of millions of entries has as many runs of one term as it had leaders. The runs answer
//! everything that Figure 2 asks of a log: the previous-entry check, the up-to-date check, the
//! conflict point, the term of the entry to commit. So the rules need no storage.
//!
//! A log whose beginning was compacted starts behind its **base**, the last entry that a snapshot
//! stands for and the log no longer holds. Of what lies before the base nothing is known here, and
//! no default term is made up for it.

use crate::types::{LogIndex, LogPosition, Term};

/// Runs of entries of one term, ascending: `(last index of the run, its term)`. Terms ascend
/// strictly.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct TermRuns {
    /// The entry before the first one that the log holds; `ZERO` in a log that was never compacted.
    base: LogPosition,
    /// All of them end behind the base; the first may be of its term.
    runs: Vec<(LogIndex, Term)>,
}

impl TermRuns {
    /// The runs that recovery found behind `base`.
    pub(super) fn new(base: LogPosition, runs: Vec<(LogIndex, Term)>) -> TermRuns {
        let mut before = base.index;
        let mut term_min = base.term.max(Term::ZERO.next());
        for run in &runs {
            assert!(run.0 > before, "run {run:?} ends before {before}");
            assert!(run.1 >= term_min, "run {run:?} is of an earlier term than {term_min}");
            (before, term_min) = (run.0, run.1.next());
        }
        TermRuns { base, runs }
    }

    /// The entry before the first one.
    pub(super) fn base(&self) -> LogPosition {
        self.base
    }

    /// The last entry, or the base if there is none.
    pub(super) fn last(&self) -> LogPosition {
        match self.runs.last() {
            Some((index, term)) => LogPosition::new(*term, *index),
            None => self.base,
        }
    }

    /// The term of the entry at `index`, the base included; `None` beyond the last one, and before
    /// the base. The place before the first entry of all has term zero, which no entry has.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index <= self.base.index {
            return (index == self.base.index).then_some(self.base.term);
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
        assert!(to >= self.base.index, "what is before {} was compacted", self.base);
        let run = self.run_of(to);
        if to == self.base.index {
            self.runs.clear();
        } else {
            self.runs.truncate(run.saturating_add(1));
            self.runs[run].0 = to;
        }
    }

    /// Forgets every entry up to `index`, which the log holds: it is the base from now on.
    pub(super) fn compact(&mut self, index: LogIndex) {
        self.base = self.position(index);
        let gone = self.runs.partition_point(|run| run.0 <= index);
        self.runs.drain(..gone);
    }

    /// The last entry at or below `index` whose term is at most `term`; `None` if that lies before
    /// the base, where nobody can look.
    ///
    /// Both sides of a conflict use it. An entry of a later term than the other side's at the same
    /// place or further on cannot be in the other side's log, because terms never descend along a
    /// log. So each answer skips a whole run, and a probe is refused at most once per term in which
    /// the logs differ. Paper §5.3, end.
    pub(super) fn last_at_most(&self, index: LogIndex, term: Term) -> Option<LogPosition> {
        if index < self.base.index || term < self.base.term {
            return None;
        }
        let among = self.runs.partition_point(|run| run.1 <= term);
        let Some((end, run_term)) = among.checked_sub(1).map(|run| self.runs[run]) else {
            return Some(self.base);
        };
        Some(if end <= index { LogPosition::new(run_term, end) } else { self.position(index) })
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

    /// The stupid twin: one term per entry, and the index before which nobody may look.
    #[derive(Default)]
    struct Terms(Vec<u64>, u64);

    impl Terms {
        fn term_at(&self, index: u64) -> Option<u64> {
            match usize::try_from(index).expect("small") {
                _ if index < self.1 => None,
                0 => Some(0),
                at => self.0.get(at - 1).copied(),
            }
        }

        fn last_at_most(&self, index: u64, term: u64) -> Option<(u64, u64)> {
            let fits = |at: &u64| self.term_at(*at).is_some_and(|found| found <= term);
            let at = (self.1..=index).rev().find(fits)?;
            Some((self.term_at(at).expect("found"), at))
        }
    }

    fn assert_same(runs: &TermRuns, twin: &Terms) {
        let length = u64::try_from(twin.0.len()).expect("small");
        assert_eq!(runs.last().index.get(), length);
        assert_eq!(runs.last().term.get(), twin.0.last().copied().unwrap_or(0));
        assert_eq!(runs.base().index.get(), twin.1);
        for index in 0..length + 3 {
            let term = runs.term_at(LogIndex::new(index)).map(Term::get);
            assert_eq!(term, twin.term_at(index), "term at {index} of {:?}", twin.0);
            for bound in 0..10 {
                let found = runs.last_at_most(LogIndex::new(index), Term::new(bound));
                let found = found.map(|found| (found.term.get(), found.index.get()));
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
                let held = runs.last().index.count_since(runs.base().index);
                match roll(8) {
                    0 | 1 => {
                        let to = twin.1 + roll(held + 1);
                        runs.truncate(LogIndex::new(to));
                        twin.0.truncate(usize::try_from(to).expect("small"));
                    }
                    2 => {
                        twin.1 += roll(held + 1).min(4);
                        runs.compact(LogIndex::new(twin.1));
                    }
                    _ => {
                        term += u64::from(roll(3) == 0 && term < 9);
                        runs.append(Term::new(term));
                        twin.0.push(term);
                    }
                }
                assert_same(&runs, &twin);
                assert_eq!(TermRuns::new(runs.base(), runs.runs.clone()), runs);
            }
        }
    }

    #[test]
    #[should_panic(expected = "cannot follow")]
    fn a_term_never_descends_along_a_log() {
        let runs = vec![(LogIndex::new(4), Term::new(5))];
        let mut runs = TermRuns::new(LogPosition::ZERO, runs);
        runs.append(Term::new(4));
    }

    #[test]
    #[should_panic(expected = "cannot follow")]
    fn nor_behind_a_base() {
        let base = LogPosition::new(Term::new(5), LogIndex::new(4));
        TermRuns::new(base, Vec::new()).append(Term::new(4));
    }
}
