//! Who votes: configurations, and the stack of those in the log.
//!
//! A server uses the newest configuration in its log, committed or not (paper §6). So the one in
//! force is a pure function of the log: pushed when its entry is appended, popped when it is
//! truncated.

use super::quorum;
use crate::limits::MEMBERS_MAX;
use crate::types::{LogIndex, NodeId};

/// The voters of a configuration: at least one, at most `MEMBERS_MAX`, ascending, each once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Voters {
    ids: Vec<NodeId>,
}

impl Voters {
    /// The voters `ids` in any order; `None` if there are none, too many, or one twice.
    pub fn new(mut ids: Vec<NodeId>) -> Option<Voters> {
        ids.sort_unstable();
        let sound = !ids.is_empty()
            && ids.len() <= MEMBERS_MAX
            && ids.windows(2).all(|pair| pair[0] != pair[1]);
        sound.then_some(Voters { ids })
    }

    /// The voters, ascending.
    pub fn ids(&self) -> &[NodeId] {
        &self.ids
    }

    /// The greatest value that a majority of these voters has reached.
    fn reached<T: Ord + Copy>(&self, mut of: impl FnMut(NodeId) -> T) -> T {
        let mut values = [of(self.ids[0]); MEMBERS_MAX];
        for (value, id) in values.iter_mut().zip(&self.ids).skip(1) {
            *value = of(*id);
        }
        quorum::reached_by_majority(&mut values[..self.ids.len()])
    }
}

/// A cluster configuration: whose majorities decide. Paper §6.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Configuration {
    /// One set of voters.
    Stable(Voters),
}

impl Configuration {
    /// The servers whose votes count, ascending.
    pub fn voters(&self) -> &[NodeId] {
        match self {
            Configuration::Stable(voters) => voters.ids(),
        }
    }

    /// Whether `id` is a voter.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters().binary_search(&id).is_ok()
    }

    /// Whether `id` is the only voter: a quorum of itself.
    pub fn is_sole_voter(&self, id: NodeId) -> bool {
        self.voters() == [id]
    }

    /// The greatest value that a quorum has reached, where `of` says what each voter has. The only
    /// place where a quorum is counted: votes, commits, reads and contacts all ask here.
    pub fn reached<T: Ord + Copy>(&self, of: impl FnMut(NodeId) -> T) -> T {
        match self {
            Configuration::Stable(voters) => voters.reached(of),
        }
    }
}

/// The configurations in the log, oldest first. Never empty: the first is the bootstrap's.
#[derive(Debug)]
pub(super) struct Configurations {
    stack: Vec<(LogIndex, Configuration)>,
}

impl Configurations {
    /// The configurations that recovery found, ascending by index.
    pub(super) fn new(stack: Vec<(LogIndex, Configuration)>) -> Configurations {
        assert!(!stack.is_empty(), "a log begins with its cluster's first configuration");
        assert!(stack.windows(2).all(|pair| pair[0].0 < pair[1].0), "configurations ascend");
        Configurations { stack }
    }

    /// The configuration in force and the index of its entry.
    pub(super) fn newest(&self) -> (LogIndex, &Configuration) {
        let (index, configuration) = self.stack.last().expect("the bootstrap's is never popped");
        (*index, configuration)
    }

    /// The newest at or below `index`, which is not before the oldest.
    pub(super) fn newest_at(&self, index: LogIndex) -> (LogIndex, &Configuration) {
        let after = self.stack.partition_point(|(at, _)| *at <= index);
        let (at, configuration) = &self.stack[after.checked_sub(1).expect("never compacted away")];
        (*at, configuration)
    }

    /// The index of the oldest: nothing at or below it is ever truncated.
    pub(super) fn oldest_index(&self) -> LogIndex {
        self.stack.first().expect("the bootstrap's is never popped").0
    }

    /// Adopts the configuration of the entry just appended at `index`.
    pub(super) fn push(&mut self, index: LogIndex, configuration: Configuration) {
        assert!(index > self.newest().0, "configuration at {index} is not newer");
        self.stack.push((index, configuration));
    }

    /// Forgets those that were replaced at or before `index`: the log before it is gone.
    pub(super) fn compact(&mut self, index: LogIndex) {
        let upto = self.stack.partition_point(|(at, _)| *at <= index);
        self.stack.drain(..upto.saturating_sub(1));
    }

    /// Returns to the configuration in force at `to`, because the entries after it were truncated.
    pub(super) fn truncate(&mut self, to: LogIndex) {
        while self.newest().0 > to {
            assert!(
                self.stack.len() > 1,
                "the first configuration, after {to}, is never truncated"
            );
            self.stack.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> Vec<NodeId> {
        numbers.iter().filter_map(|number| NodeId::new(*number)).collect()
    }

    fn stable(numbers: &[u64]) -> Configuration {
        Configuration::Stable(Voters::new(ids(numbers)).expect("distinct"))
    }

    #[test]
    fn voters_are_sorted_and_neither_none_nor_double() {
        assert_eq!(Voters::new(ids(&[3, 1, 2])).expect("sound").ids(), ids(&[1, 2, 3]));
        assert_eq!(Voters::new(Vec::new()), None);
        assert_eq!(Voters::new(ids(&[1, 2, 1])), None);
        let crowd: Vec<u64> = (1..=32).collect();
        assert_eq!(Voters::new(ids(&crowd)), None);
    }

    #[test]
    fn a_quorum_of_the_voters_counts_and_nobody_else() {
        let configuration = stable(&[1, 2, 3]);
        let granted = ids(&[1, 4, 5]);
        assert!(!configuration.reached(|id| granted.contains(&id)), "4 and 5 are not voters");
        let granted = ids(&[1, 3]);
        assert!(configuration.reached(|id| granted.contains(&id)));
        assert_eq!(configuration.reached(|id| 10 * id.get()), 20);
    }

    #[test]
    fn truncation_returns_to_the_configuration_before() {
        let mut stack = Configurations::new(vec![(LogIndex::new(1), stable(&[1]))]);
        stack.push(LogIndex::new(5), stable(&[1, 2]));
        stack.push(LogIndex::new(9), stable(&[1, 2, 3]));
        stack.truncate(LogIndex::new(9));
        assert_eq!(stack.newest(), (LogIndex::new(9), &stable(&[1, 2, 3])));
        stack.truncate(LogIndex::new(8));
        assert_eq!(stack.newest(), (LogIndex::new(5), &stable(&[1, 2])));
        stack.truncate(LogIndex::new(1));
        assert_eq!(stack.newest(), (LogIndex::new(1), &stable(&[1])));
    }
}
