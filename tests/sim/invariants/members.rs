//! Who the members are: every change against the one before it.

use super::{Proof, Seen, must};
use crate::chance::u64_of;
use crate::coverage::{Coverage, Point};
use crate::world::{id_of, machine_of};
use raftd::raft::{Configuration, Raft, Wish};
use raftd::types::LogIndex;

impl Proof {
    /// The node may have another configuration than it had.
    pub(super) fn check_configuration(
        &mut self,
        machine: usize,
        seen: &mut Seen,
        raft: &Raft,
        coverage: &mut Coverage,
    ) {
        let (index, next) = (raft.configuration_index(), raft.configuration());
        self.check_in_force(machine, seen, (index, next));
        seen.replaced = seen.configuration.take_if(|(at, it)| *at != index || it != next);
        if seen.configuration.is_some() {
            return;
        }
        if let Some((at, before)) = &seen.replaced {
            let at = *at;
            coverage.hit_if(index < at, Point::ConfigurationTruncated);
            coverage.hit_if(next.is_joint(), Point::JointConfiguration);
            if raft.is_leader() && seen.leads == Some(raft.term()) && index > at {
                check_change(machine, seen, raft, (at, before));
                let own = id_of(machine);
                let leaves = before.is_voter(own) && !next.is_voter(own);
                coverage.hit_if(leaves, Point::LeaderLeaves);
            }
        }
        seen.configuration = Some((index, next.clone()));
    }

    /// Whoever holds the entry of a configuration holds that one, and uses the newest that it
    /// holds: appended or cut, found by a start or in a snapshot, read back from bytes or not.
    fn check_in_force(
        &mut self,
        machine: usize,
        seen: &Seen,
        (index, next): (LogIndex, &Configuration),
    ) {
        // Who joins knows its introducer only.
        if index == LogIndex::ZERO {
            return;
        }
        if let Some(link) = seen.chain.at(index) {
            let known = self.configurations.entry((index, link.term));
            let known = known.or_insert_with(|| next.clone());
            must!(
                *known == *next,
                "ConfigurationInForce",
                "n{} has {next:?} of {index}@{}, which holds {known:?}",
                machine + 1,
                link.term
            );
        }
        let holds = |at: LogIndex, term| seen.chain.at(at).is_some_and(|link| link.term == term);
        let mut held = self.configurations.keys().rev().filter(|(at, term)| holds(*at, *term));
        let newest = held.next().map(|(at, _)| *at);
        must!(
            newest == Some(index),
            "ConfigurationInForce",
            "n{} uses the configuration of {index}, and its log has {newest:?}",
            machine + 1
        );
    }

    /// The configurations that may be in force now: the newest that is committed, and those that
    /// some log holds behind it.
    pub(crate) fn possible_configurations(&self) -> Vec<&Configuration> {
        let end = LogIndex::new(u64_of(self.committed.len()));
        let committed = |(index, term): &(LogIndex, _)| {
            let slot = index.get().checked_sub(1).and_then(|slot| usize::try_from(slot).ok());
            slot.and_then(|slot| self.committed.get(slot)).is_some_and(|it| it.link.term == *term)
        };
        let newest = self.configurations.iter().rev().find(|(at, _)| committed(at));
        let behind = self.configurations.iter().filter(|((index, _), _)| *index > end);
        newest.into_iter().chain(behind).map(|(_, configuration)| configuration).collect()
    }

    /// Whether a machine is in the newest configuration that is committed. Who was in one that came
    /// to nothing, and was overtaken by a higher number, is none any more either.
    pub(crate) fn is_member(&self, machine: usize) -> bool {
        let newest = self.possible_configurations();
        newest.first().is_some_and(|newest| newest.is_member(id_of(machine)))
    }

    /// The machine with the highest number that was in any configuration.
    pub(crate) fn highest_member(&self) -> usize {
        let ids = self.configurations.values().flat_map(Configuration::members);
        ids.map(machine_of).max().unwrap_or(0)
    }

    /// The configuration of the leader, if there is one and nothing is left to be done about it.
    pub(crate) fn settled_configuration(&self) -> Option<&Configuration> {
        let leader = self.leader()?;
        let seen = &self.seen[leader];
        let (index, configuration) = seen.configuration.as_ref()?;
        let leads = configuration.is_voter(id_of(leader));
        let wishes = configuration.learners().iter().any(|learner| learner.wish != Wish::Stay);
        let settled = *index <= seen.commit && leads && !configuration.is_joint() && !wishes;
        settled.then_some(configuration)
    }
}

/// A leader has appended a configuration. Thesis §4.1, and Ongaro 2015.
fn check_change(
    machine: usize,
    seen: &Seen,
    raft: &Raft,
    (at, before): (LogIndex, &Configuration),
) {
    let (name, next) = (machine + 1, raft.configuration());
    let commit = raft.commit_index();
    must!(at <= commit, "OneChange", "n{name}: {next:?}, while {at} is committed up to {commit}");
    let own = seen.chain.at(commit).is_some_and(|link| link.term == raft.term());
    must!(own, "OneChange", "n{name}: {next:?} before an entry of term {}", raft.term());
    let (old, new) = (before.voters(), next.voters());
    let gone = old.iter().filter(|id| !new.contains(id)).count();
    let come = new.iter().filter(|id| !old.contains(id)).count();
    must!(
        gone + come <= 1 || before.is_joint() || next.is_joint(),
        "OneStep",
        "n{name}: {before:?} and then {next:?}"
    );
    if let Configuration::Joint { old: halves, .. } = next {
        must!(
            !before.is_joint() && halves.ids() == old,
            "JointEntered",
            "n{name}: {before:?} and then {next:?}"
        );
    }
    if let Configuration::Joint { new, learners, .. } = before {
        let arrives = !next.is_joint() && next.voters() == new.ids();
        let others = next.learners() == learners.list();
        must!(arrives && others, "JointLeft", "n{name}: {before:?} and then {next:?}");
    }
}
