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

    /// Whether `id` is one of them.
    pub fn contains(&self, id: NodeId) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// These and one more; `None` if it is one already, or there are too many.
    pub(super) fn with(&self, id: NodeId) -> Option<Voters> {
        Voters::new([self.ids(), &[id]].concat())
    }

    /// These less one; `None` if nobody is left.
    pub(super) fn without(&self, id: NodeId) -> Option<Voters> {
        Voters::new(self.ids.iter().copied().filter(|voter| *voter != id).collect())
    }

    /// How many are in one set and not in the other.
    pub(super) fn differences(&self, other: &Voters) -> usize {
        let gone = self.ids.iter().filter(|id| !other.contains(**id)).count();
        gone + other.ids.iter().filter(|id| !self.contains(**id)).count()
    }

    /// The greatest value that a majority of these voters has reached.
    fn reached<T: Ord + Copy>(&self, of: impl Fn(NodeId) -> T) -> T {
        let mut values = [of(self.ids[0]); MEMBERS_MAX];
        for (value, id) in values.iter_mut().zip(&self.ids).skip(1) {
            *value = of(*id);
        }
        quorum::reached_by_majority(&mut values[..self.ids.len()])
    }
}

/// What shall become of a learner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// It stays a learner until somebody asks for its promotion.
    Stay,
    /// It becomes a voter once it has caught up.
    Vote,
    /// It becomes a voter in place of this one once it has caught up.
    Replace(NodeId),
}

/// A member that gets all entries and never counts. Thesis §4.2.1, "non-voting server".
///
/// The wish is part of the configuration, so that a new leader goes on where the last one stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Learner {
    /// Who.
    pub id: NodeId,
    /// What shall become of it.
    pub wish: Wish,
}

/// The learners of a configuration: ascending, each once.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Learners {
    list: Vec<Learner>,
}

impl Learners {
    /// The learners `list` in any order; `None` if one is named twice.
    pub fn new(mut list: Vec<Learner>) -> Option<Learners> {
        list.sort_unstable_by_key(|learner| learner.id);
        let sound = list.windows(2).all(|pair| pair[0].id != pair[1].id);
        sound.then_some(Learners { list })
    }

    /// The learners, ascending.
    pub fn list(&self) -> &[Learner] {
        &self.list
    }

    /// These and one more, or the one with its new wish.
    pub(super) fn with(&self, learner: Learner) -> Learners {
        let mut list = self.without(learner.id).list;
        list.push(learner);
        Learners::new(list).expect("its old place was taken away")
    }

    /// These less one.
    pub(super) fn without(&self, id: NodeId) -> Learners {
        let list = self.list.iter().copied().filter(|learner| learner.id != id).collect();
        Learners { list }
    }
}

/// A cluster configuration: whose majorities decide, and who listens. Paper §6, thesis chapter 4.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Configuration {
    /// One set of voters.
    Stable {
        /// A majority of these decides.
        voters: Voters,
        /// Who gets entries beside them.
        learners: Learners,
    },
    /// On the way from one set of voters to another: a majority of each decides. Thesis §4.3.
    Joint {
        /// The voters before.
        old: Voters,
        /// The voters after.
        new: Voters,
        /// Who gets entries beside them.
        learners: Learners,
    },
}

impl Configuration {
    /// These voters and nobody else.
    pub fn of_voters(voters: Voters) -> Configuration {
        Configuration::Stable { voters, learners: Learners::default() }
    }

    /// The servers whose votes count, ascending; in a joint configuration those of either half.
    pub fn voters(&self) -> Vec<NodeId> {
        match self {
            Configuration::Stable { voters, .. } => voters.ids().to_vec(),
            Configuration::Joint { old, new, .. } => {
                let mut ids = [old.ids(), new.ids()].concat();
                ids.sort_unstable();
                ids.dedup();
                ids
            }
        }
    }

    /// The learners, ascending.
    pub fn learners(&self) -> &[Learner] {
        match self {
            Configuration::Stable { learners, .. } | Configuration::Joint { learners, .. } => {
                learners.list()
            }
        }
    }

    /// Everybody who gets entries, ascending.
    pub fn members(&self) -> Vec<NodeId> {
        let mut ids = self.voters();
        ids.extend(self.learners().iter().map(|learner| learner.id));
        ids.sort_unstable();
        ids
    }

    /// Whether `id` is a voter, in either half.
    pub fn is_voter(&self, id: NodeId) -> bool {
        match self {
            Configuration::Stable { voters, .. } => voters.contains(id),
            Configuration::Joint { old, new, .. } => old.contains(id) || new.contains(id),
        }
    }

    /// Whether `id` is a voter and is to stay one.
    pub fn keeps_vote(&self, id: NodeId) -> bool {
        match self {
            Configuration::Stable { voters, .. } => voters.contains(id),
            Configuration::Joint { new, .. } => new.contains(id),
        }
    }

    /// Whether `id` gets entries.
    pub fn is_member(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners().iter().any(|learner| learner.id == id)
    }

    /// Whether `id` is the only voter: a quorum of itself.
    pub fn is_sole_voter(&self, id: NodeId) -> bool {
        match self {
            Configuration::Stable { voters, .. } => voters.ids() == [id],
            Configuration::Joint { old, new, .. } => old.ids() == [id] && new.ids() == [id],
        }
    }

    /// Whether it is a step on the way to another one.
    pub fn is_joint(&self) -> bool {
        matches!(self, Configuration::Joint { .. })
    }

    /// The greatest value that a quorum has reached, where `of` says what each voter has. The only
    /// place where a quorum is counted: votes, commits, reads and contacts all ask here. In a joint
    /// configuration both majorities must have reached it.
    pub fn reached<T: Ord + Copy>(&self, of: impl Fn(NodeId) -> T) -> T {
        match self {
            Configuration::Stable { voters, .. } => voters.reached(of),
            Configuration::Joint { old, new, .. } => old.reached(&of).min(new.reached(&of)),
        }
    }

    /// Whether nobody is a voter and a learner, and not too many are members.
    pub(super) fn is_sound(&self) -> bool {
        let members = self.members();
        members.len() <= MEMBERS_MAX && members.windows(2).all(|pair| pair[0] != pair[1])
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

    /// The newest at or below `index`, or the oldest; and the index of its entry.
    pub(super) fn at_or_below(&self, index: LogIndex) -> (LogIndex, &Configuration) {
        let below = self.stack.iter().rev().find(|(at, _)| *at <= index);
        let (at, configuration) =
            below.or(self.stack.first()).expect("the bootstrap's is never popped");
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
        Configuration::of_voters(Voters::new(ids(numbers)).expect("distinct"))
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

    fn joint(old: &[u64], new: &[u64]) -> Configuration {
        Configuration::Joint {
            old: Voters::new(ids(old)).expect("distinct"),
            new: Voters::new(ids(new)).expect("distinct"),
            learners: Learners::default(),
        }
    }

    #[test]
    fn a_joint_configuration_asks_both_majorities() {
        let configuration = joint(&[1, 2, 3], &[3, 4, 5]);
        for (granted, reached) in [
            (&[1, 2, 3][..], false), // all of the old, one of the new
            (&[3, 4, 5], false),
            (&[1, 3, 4], true), // 3 counts in both
            (&[1, 2, 4, 5], true),
            (&[2, 4], false),
        ] {
            let granted = ids(granted);
            assert_eq!(configuration.reached(|id| granted.contains(&id)), reached, "{granted:?}");
        }
        assert_eq!(configuration.voters(), ids(&[1, 2, 3, 4, 5]));
        assert!(!joint(&[1], &[2]).is_sole_voter(NodeId::new(1).expect("not zero")));
    }

    #[test]
    fn learners_listen_and_never_count() {
        let [three, four] = [3, 4].map(|id| NodeId::new(id).expect("not zero"));
        let voters = Voters::new(ids(&[1, 2, 3])).expect("distinct");
        let learners = Learners::default().with(Learner { id: four, wish: Wish::Vote });
        let configuration = Configuration::Stable { voters, learners: learners.clone() };
        assert!(configuration.is_member(four));
        assert!(!configuration.is_voter(four));
        assert!(!configuration.reached(|id| id >= three), "3 and 4 are one voter and a learner");
        assert!(configuration.is_sound());
        let both = learners.with(Learner { id: three, wish: Wish::Stay });
        let voters = Voters::new(ids(&[1, 2, 3])).expect("distinct");
        assert!(!Configuration::Stable { voters, learners: both }.is_sound());
        assert_eq!(learners.with(Learner { id: four, wish: Wish::Stay }).list().len(), 1);
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
