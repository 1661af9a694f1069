//! What the core knows of the log: terms, sizes, configurations. Never a payload byte.

use super::configuration::{Configuration, Configurations};
use super::term_runs::TermRuns;
use crate::types::{LogIndex, LogPosition, LogRange, Term};
use std::collections::VecDeque;

/// The log in memory, appended part and all. What of it is durable is `durability.rs`'s business.
#[derive(Debug)]
pub(super) struct Log {
    runs: TermRuns,
    /// Payload bytes of all entries up to and including each one held: differences answer sizes of
    /// stretches.
    byte_ends: VecDeque<u64>,
    /// The same of the base.
    base_end: u64,
    configurations: Configurations,
}

impl Log {
    /// The log that recovery found.
    pub(super) fn new(runs: TermRuns, sizes: &[u32], configurations: Configurations) -> Log {
        let mut end = 0_u64;
        let byte_ends: VecDeque<u64> = sizes
            .iter()
            .map(|bytes| {
                end += u64::from(*bytes);
                end
            })
            .collect();
        let log = Log { runs, byte_ends, base_end: 0, configurations };
        assert_eq!(log.byte_ends.len(), log.slots_up_to(log.last().index), "a size for each entry");
        assert!(log.configurations.newest().0 <= log.last().index, "configurations are entries");
        log
    }

    /// The last entry, or the base if there is none.
    pub(super) fn last(&self) -> LogPosition {
        self.runs.last()
    }

    /// The entry before the first one held: a snapshot stands for it and all before.
    pub(super) fn base(&self) -> LogPosition {
        self.runs.base()
    }

    /// The term of the entry at `index`; `None` beyond the last one and before the base.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.runs.term_at(index)
    }

    /// The position of the entry at `index`, which the log holds.
    pub(super) fn position(&self, index: LogIndex) -> LogPosition {
        self.runs.position(index)
    }

    /// See `TermRuns::last_at_most`.
    pub(super) fn last_at_most(&self, index: LogIndex, term: Term) -> Option<LogPosition> {
        self.runs.last_at_most(index, term)
    }

    /// The configuration in force.
    pub(super) fn configuration(&self) -> &Configuration {
        self.configurations.newest().1
    }

    /// The index of the entry that holds the configuration in force.
    pub(super) fn configuration_index(&self) -> LogIndex {
        self.configurations.newest().0
    }

    /// The newest configuration at or below `index`, or the oldest; and the index of its entry.
    pub(super) fn configuration_at_or_below(&self, index: LogIndex) -> (LogIndex, &Configuration) {
        self.configurations.at_or_below(index)
    }

    /// Whether the log may end at `to`: a cluster's first configuration never goes.
    pub(super) fn can_end_at(&self, to: LogIndex) -> bool {
        self.configurations.oldest_index() <= to
    }

    /// Adopts the configuration that the entry at `index` holds.
    pub(super) fn adopt(&mut self, index: LogIndex, configuration: Configuration) {
        assert!(index <= self.last().index, "a configuration is adopted once it is appended");
        self.configurations.push(index, configuration);
    }

    /// Appends one entry of `term` with a payload of `bytes`.
    pub(super) fn append(&mut self, term: Term, bytes: u32) -> LogPosition {
        let end = self.bytes_up_to(self.last().index) + u64::from(bytes);
        self.byte_ends.push_back(end);
        self.runs.append(term)
    }

    /// Removes every entry after `to`, from everything derived from the log at once.
    pub(super) fn truncate(&mut self, to: LogIndex) {
        self.byte_ends.truncate(self.slots_up_to(to));
        self.runs.truncate(to);
        self.configurations.truncate(to);
    }

    /// Forgets the entries up to `index`, for which a snapshot stands.
    pub(super) fn compact(&mut self, index: LogIndex) {
        self.base_end = self.bytes_up_to(index);
        self.byte_ends.drain(..self.slots_up_to(index));
        self.runs.compact(index);
        self.configurations.compact(index);
    }

    /// Forgets all entries: a snapshot of everything up to `base`, with this configuration, takes
    /// their place.
    pub(super) fn replace(&mut self, base: LogPosition, configuration: (LogIndex, Configuration)) {
        assert!(configuration.0 <= base.index, "a snapshot's configuration is part of it");
        self.runs = TermRuns::new(base, Vec::new());
        self.byte_ends.clear();
        self.configurations = Configurations::new(vec![configuration]);
    }

    /// Payload bytes of a stretch of the log.
    pub(super) fn bytes_in(&self, range: LogRange) -> u64 {
        self.bytes_up_to(range.last()) - self.bytes_up_to(range.after())
    }

    /// The next stretch after `after` to send: at least one entry, then as many as both bounds
    /// allow.
    pub(super) fn chunk(&self, after: LogIndex, entries_max: usize, bytes_max: u64) -> LogRange {
        assert!(after < self.last().index, "nothing follows {after}");
        let count = self.last().index.count_since(after);
        let count = count.min(u64::try_from(entries_max).unwrap_or(u64::MAX)).max(1);
        let limit = self.bytes_up_to(after).saturating_add(bytes_max);
        let fitting = self.byte_ends.partition_point(|end| *end <= limit);
        let fitting = u64::try_from(fitting).expect("a log in memory is countable");
        let fitting = fitting.saturating_sub(after.count_since(self.base().index)).clamp(1, count);
        LogRange::new(after, after.advanced_by(fitting))
    }

    fn bytes_up_to(&self, index: LogIndex) -> u64 {
        match self.slots_up_to(index).checked_sub(1) {
            Some(slot) => self.byte_ends[slot],
            None => self.base_end,
        }
    }

    /// How many slots of the ring, which starts behind the base, lie at or before `index`.
    fn slots_up_to(&self, index: LogIndex) -> usize {
        let count = index.count_since(self.base().index);
        usize::try_from(count).expect("entries in memory are fewer than addresses")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::configuration::Voters;
    use crate::types::NodeId;

    fn log(sizes: &[u32]) -> Log {
        let voters = Voters::new(NodeId::new(1).into_iter().collect()).expect("one voter");
        let configurations = vec![(LogIndex::new(1), Configuration::of_voters(voters))];
        let last = LogIndex::new(u64::try_from(sizes.len()).expect("small"));
        let runs = TermRuns::new(LogPosition::ZERO, vec![(last, Term::new(1))]);
        Log::new(runs, sizes, Configurations::new(configurations))
    }

    #[test]
    fn a_chunk_is_one_entry_or_as_many_as_both_bounds_allow() {
        let log = log(&[10, 20, 0, 30, 40]);
        for (after, entries_max, bytes_max, last) in [
            (0, 9, 9, 1),    // one entry, though it is larger than the bound
            (0, 9, 30, 3),   // an empty entry costs nothing
            (0, 2, 1000, 2), // bounded in entries
            (1, 9, 20, 3),
            (3, 9, 69, 4),
            (3, 9, 70, 5),
            (4, 0, 0, 5), // never nothing
        ] {
            let chunk = log.chunk(LogIndex::new(after), entries_max, bytes_max);
            assert_eq!(chunk, LogRange::new(LogIndex::new(after), LogIndex::new(last)));
        }
    }

    #[test]
    fn a_compacted_log_answers_as_before_from_its_base_on() {
        let mut log = log(&[10, 20, 0, 30, 40]);
        log.compact(LogIndex::new(2));
        assert_eq!(log.base(), LogPosition::new(Term::new(1), LogIndex::new(2)));
        assert_eq!(log.bytes_in(LogRange::new(LogIndex::new(2), LogIndex::new(4))), 30);
        for (after, entries_max, bytes_max, last) in [(2, 9, 0, 3), (2, 9, 30, 4), (3, 1, 99, 4)] {
            let chunk = log.chunk(LogIndex::new(after), entries_max, bytes_max);
            assert_eq!(chunk, LogRange::new(LogIndex::new(after), LogIndex::new(last)));
        }
        log.truncate(LogIndex::new(2));
        log.append(Term::new(2), 7);
        assert_eq!(log.bytes_in(LogRange::new(LogIndex::new(2), LogIndex::new(3))), 7);
        log.compact(LogIndex::new(3));
        assert_eq!(log.last(), log.base());
    }

    #[test]
    fn truncation_forgets_sizes_with_the_entries() {
        let mut log = log(&[10, 20, 30]);
        log.truncate(LogIndex::new(1));
        log.append(Term::new(2), 5);
        assert_eq!(log.bytes_in(LogRange::new(LogIndex::ZERO, LogIndex::new(2))), 15);
        assert_eq!(log.last(), LogPosition::new(Term::new(2), LogIndex::new(2)));
    }
}
