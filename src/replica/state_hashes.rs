//! What the members' states are said to be, and who of them has another one than the rest.
//!
//! Each member notes its state hash at every entry whose index is divisible by `STATE_HASH_EVERY`,
//! and tells all others. Whoever has noted its own compares:
//!
//! | a quorum has | so |
//! |---|---|
//! | our hash | we agree; whoever has another one is complained of, and finds out itself |
//! | another one, the same | we have diverged: `reload` |
//! | neither, and somebody has another one | disputed: nobody can say who is right |
//!
//! A quorum, as for a commit: what one member says, broken as it may be, takes nobody's state.
//!
//! **When it is disputed** (one against one of two, or of three while the third is away) no state
//! is given up, for it may be the right one. But two of them must not answer: clients would hear
//! two stories. The leader goes on, since what clients heard so far was its story mostly, and
//! writes need somebody; the others are silent, say why, and serve again when a quorum agrees with
//! them. A server that starts again makes its state anew of its log, so meanwhile no snapshots are
//! made, and none are saved. But a leader sends one, and makes it, to a follower that needs it or
//! has lost its state: that may be needed to commit, or to settle who is right, and what clients
//! heard was the leader's story.
//!
//! **What a hash does not see**: a value that rots in memory keeps what it once added to the sum,
//! and is found when it is written out, for whoever loads a snapshot computes the hash anew. What
//! it sees is what entries did: a fault in the rules of the store, or in what steers them.
//!
//! Why not in `Append` and its answers: those are the core's, which has never heard of a state, and
//! go between a leader and its followers only. A leader must be able to learn that it is the odd
//! one, and followers who is, while nobody leads.

use crate::limits::STATE_HASHES_KEPT;
use crate::raft::Configuration;
use crate::types::{LogIndex, NodeId};
use std::collections::{BTreeMap, VecDeque};

/// What one member said last.
#[derive(Clone, Default, Debug)]
struct Said(VecDeque<(LogIndex, u64)>);

impl Said {
    /// The newest word on an entry counts: a server that has loaded its state anew comes by again.
    fn push(&mut self, index: LogIndex, hash: u64) {
        self.0.retain(|(known, _)| *known != index);
        if self.0.len() == STATE_HASHES_KEPT {
            self.0.pop_front();
        }
        self.0.push_back((index, hash));
    }

    fn at(&self, index: LogIndex) -> Option<u64> {
        self.0.iter().find(|(known, _)| *known == index).map(|(_, hash)| *hash)
    }
}

/// What the hashes at one entry say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Nothing yet.
    Open,
    /// A quorum has our state; these have another one.
    Agreed {
        /// Mostly nobody.
        odd: Vec<NodeId>,
    },
    /// There are several, and a quorum has none of them.
    Disputed {
        /// Who has another one than we.
        others: Vec<NodeId>,
    },
    /// A quorum has this state, and we have another one.
    Diverged {
        /// Our state hash.
        ours: u64,
        /// Theirs.
        theirs: u64,
    },
}

/// The hashes of all members at the last entries that are compared.
#[derive(Debug)]
pub(super) struct StateHashes {
    every: u64,
    own: Said,
    others: BTreeMap<NodeId, Said>,
    /// The last entry at which a quorum had our state.
    agreed: LogIndex,
    /// Since then the states differ, and nobody can say who is right.
    disputed: Option<LogIndex>,
}

impl StateHashes {
    /// Nothing is known. All members compare every so many entries.
    pub(super) fn new(every: u64) -> StateHashes {
        assert!(every > 0, "an entry in none is none");
        let (own, others) = (Said::default(), BTreeMap::new());
        StateHashes { every, own, others, agreed: LogIndex::ZERO, disputed: None }
    }

    /// Whether the members compare their states at this entry.
    pub(super) fn compares_at(&self, index: LogIndex) -> bool {
        index > LogIndex::ZERO && index.get().is_multiple_of(self.every)
    }

    /// Notes our own.
    pub(super) fn note(&mut self, index: LogIndex, hash: u64) {
        assert!(self.compares_at(index), "nobody else notes {index}");
        self.own.push(index, hash);
    }

    /// What we noted, oldest first: for a member that was not connected then.
    pub(super) fn noted(&self) -> impl Iterator<Item = (LogIndex, u64)> {
        self.own.0.iter().copied()
    }

    /// A member says what it noted. Those that are none any more are forgotten.
    pub(super) fn hear(
        &mut self,
        from: NodeId,
        (index, hash): (LogIndex, u64),
        configuration: &Configuration,
    ) {
        self.others.retain(|id, _| configuration.is_member(*id));
        if configuration.is_member(from) && self.compares_at(index) {
            self.others.entry(from).or_default().push(index, hash);
        }
    }

    /// What a member said counts no more: it will say anew what it stands by. Two that were wrong
    /// in the same way one after the other, each alone, made a quorum against the one right state.
    pub(super) fn forget(&mut self, of: NodeId) {
        self.others.remove(&of);
    }

    /// What all that is known says at this entry.
    pub(super) fn judge(
        &self,
        index: LogIndex,
        own_id: NodeId,
        configuration: &Configuration,
    ) -> Verdict {
        let Some(ours) = self.own.at(index) else { return Verdict::Open };
        let others = self.others.iter();
        let differing: Vec<(NodeId, u64)> = others
            .filter_map(|(id, said)| said.at(index).map(|hash| (*id, hash)))
            .filter(|(id, hash)| *id != own_id && *hash != ours)
            .collect();
        let of = |id: NodeId| match self.others.get(&id) {
            _ if id == own_id => Some(ours),
            Some(said) => said.at(index),
            None => None,
        };
        let quorum_has = |hash: u64| configuration.reached(|id| of(id) == Some(hash));
        let names = || differing.iter().map(|(id, _)| *id).collect();
        // What a quorum once had is right, whatever is said of it later.
        if quorum_has(ours) || index <= self.agreed {
            return Verdict::Agreed { odd: names() };
        }
        if let Some((_, theirs)) = differing.iter().find(|(_, hash)| quorum_has(*hash)) {
            return Verdict::Diverged { ours, theirs: *theirs };
        }
        if differing.is_empty() { Verdict::Open } else { Verdict::Disputed { others: names() } }
    }

    /// A quorum had our state at this entry: an older dispute is settled.
    pub(super) fn agree(&mut self, index: LogIndex) {
        self.agreed = self.agreed.max(index);
        self.disputed.take_if(|since| *since <= index);
    }

    /// The states differ at this entry, and nobody can say who is right.
    pub(super) fn dispute(&mut self, index: LogIndex) {
        if index > self.agreed {
            self.disputed.get_or_insert(index);
        }
    }

    /// Our state is another one from now on: what we noted counts no more.
    pub(super) fn forget_own(&mut self) {
        (self.own, self.disputed) = (Said::default(), None);
    }

    /// The last entry at which a quorum had our state; `ZERO`: none since the start.
    pub(super) fn agreed(&self) -> LogIndex {
        self.agreed
    }

    /// Since which entry it is disputed who has the right state.
    pub(super) fn disputed(&self) -> Option<LogIndex> {
        self.disputed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Voters;

    const HERE: LogIndex = LogIndex::new(8);

    fn id(number: u64) -> NodeId {
        NodeId::new(number).expect("not zero")
    }

    fn voters(count: u64) -> Configuration {
        let ids = (1..=count).map(id).collect();
        Configuration::of_voters(Voters::new(ids).expect("some"))
    }

    /// Server 1 has state 7, the others what is said; 0 is nothing.
    fn judged(count: u64, said: &[u64]) -> Verdict {
        let (mut hashes, configuration) = (StateHashes::new(4), voters(count));
        hashes.note(HERE, 7);
        for (number, hash) in (2..).zip(said).filter(|(_, hash)| **hash != 0) {
            hashes.hear(id(number), (HERE, *hash), &configuration);
        }
        hashes.judge(HERE, id(1), &configuration)
    }

    fn agreed(odd: &[u64]) -> Verdict {
        Verdict::Agreed { odd: odd.iter().copied().map(id).collect() }
    }

    fn disputed(others: &[u64]) -> Verdict {
        Verdict::Disputed { others: others.iter().copied().map(id).collect() }
    }

    #[test]
    fn a_quorum_decides_and_nothing_less() {
        let diverged = Verdict::Diverged { ours: 7, theirs: 9 };
        let table: &[(u64, &[u64], Verdict)] = &[
            (1, &[], agreed(&[])),
            (2, &[0], Verdict::Open),
            (2, &[7], agreed(&[])),
            (2, &[9], disputed(&[2])),
            (3, &[7, 0], agreed(&[])),
            (3, &[9, 0], disputed(&[2])),
            (3, &[9, 7], agreed(&[2])),
            (3, &[9, 9], diverged.clone()),
            (3, &[8, 9], disputed(&[2, 3])),
            (4, &[9, 9, 0], disputed(&[2, 3])),
            (4, &[9, 9, 7], disputed(&[2, 3])),
            (4, &[9, 9, 9], diverged.clone()),
            (5, &[9, 9, 0, 0], disputed(&[2, 3])),
            (5, &[9, 9, 7, 7], agreed(&[2, 3])),
            (5, &[9, 9, 8, 9], diverged),
        ];
        for (count, said, verdict) in table {
            assert_eq!(judged(*count, said), *verdict, "{said:?} of {count}");
        }
    }

    #[test]
    fn who_is_no_voter_is_judged_and_does_not_judge() {
        let configuration = voters(1);
        let mut hashes = StateHashes::new(4);
        hashes.note(HERE, 7);
        hashes.hear(id(1), (HERE, 9), &configuration);
        let verdict = hashes.judge(HERE, id(2), &configuration);
        assert_eq!(verdict, Verdict::Diverged { ours: 7, theirs: 9 }, "a learner");
        let mut hashes = StateHashes::new(4);
        hashes.note(HERE, 7);
        hashes.hear(id(2), (HERE, 9), &configuration);
        assert_eq!(hashes.judge(HERE, id(1), &configuration), agreed(&[]), "no member at all");
    }

    #[test]
    fn only_the_same_entry_is_compared_and_the_newest_word_on_it_counts() {
        let (mut hashes, configuration) = (StateHashes::new(4), voters(3));
        hashes.hear(id(2), (HERE, 9), &configuration);
        hashes.hear(id(3), (LogIndex::new(12), 9), &configuration);
        assert_eq!(hashes.judge(HERE, id(1), &configuration), Verdict::Open, "not here yet");
        hashes.note(HERE, 7);
        assert_eq!(hashes.judge(HERE, id(1), &configuration), disputed(&[2]));
        hashes.hear(id(2), (HERE, 7), &configuration);
        assert_eq!(hashes.judge(HERE, id(1), &configuration), agreed(&[]), "loaded anew");
        hashes.hear(id(2), (LogIndex::new(9), 1), &configuration);
        assert!(!hashes.compares_at(LogIndex::new(9)));
        assert!(!hashes.compares_at(LogIndex::ZERO));
    }

    #[test]
    fn what_was_said_before_counts_no_more() {
        let (mut hashes, configuration) = (StateHashes::new(4), voters(3));
        hashes.note(HERE, 7);
        hashes.hear(id(2), (HERE, 9), &configuration);
        hashes.forget(id(2));
        hashes.hear(id(3), (HERE, 9), &configuration);
        assert_eq!(hashes.judge(HERE, id(1), &configuration), disputed(&[3]));
        hashes.hear(id(2), (HERE, 7), &configuration);
        assert_eq!(hashes.judge(HERE, id(1), &configuration), agreed(&[3]));
    }

    #[test]
    fn what_a_quorum_once_had_is_right() {
        let (mut hashes, configuration) = (StateHashes::new(4), voters(3));
        hashes.note(HERE, 7);
        hashes.hear(id(2), (HERE, 7), &configuration);
        hashes.agree(HERE);
        hashes.hear(id(2), (HERE, 9), &configuration);
        assert_eq!(hashes.judge(HERE, id(1), &configuration), agreed(&[2]));
        hashes.hear(id(3), (HERE, 9), &configuration);
        assert_eq!(hashes.judge(HERE, id(1), &configuration), agreed(&[2, 3]));

        let later = LogIndex::new(12);
        hashes.note(later, 7);
        (2..4).for_each(|other| hashes.hear(id(other), (later, 9), &configuration));
        let diverged = Verdict::Diverged { ours: 7, theirs: 9 };
        assert_eq!(hashes.judge(later, id(1), &configuration), diverged);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let mut said = Said::default();
        let kept = u64::try_from(STATE_HASHES_KEPT).expect("a few");
        (1..=kept + 2).for_each(|index| said.push(LogIndex::new(index), index));
        assert_eq!(said.0.len(), STATE_HASHES_KEPT);
        assert_eq!(said.at(LogIndex::new(2)), None);
        assert_eq!(said.at(LogIndex::new(3)), Some(3));
    }

    #[test]
    fn a_dispute_lasts_until_a_quorum_agrees_at_that_entry_or_later() {
        let mut hashes = StateHashes::new(4);
        hashes.dispute(LogIndex::new(8));
        hashes.dispute(LogIndex::new(12));
        hashes.agree(LogIndex::new(4));
        assert_eq!(hashes.disputed(), Some(LogIndex::new(8)));
        hashes.agree(LogIndex::new(8));
        assert_eq!((hashes.disputed(), hashes.agreed()), (None, LogIndex::new(8)));
        hashes.dispute(LogIndex::new(8));
        assert_eq!(hashes.disputed(), None, "it is settled");
    }
}
