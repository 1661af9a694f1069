//! Majorities, counted here a second time. The product asks one function for every quorum: one
//! that counts wrongly must not acquit itself.

use super::{Proof, Seen, must};
use raftd::raft::{Configuration, Raft};
use raftd::types::{NodeId, Term};

/// Whether more than half of these voters hold something.
fn is_majority(voters: &[NodeId], holds: &impl Fn(NodeId) -> bool) -> bool {
    let holders = voters.iter().filter(|id| holds(**id)).count();
    2 * holders > voters.len()
}

/// Whether a majority holds something; in a joint configuration of the old voters and of the new.
/// Paper §6. Learners never count.
pub(crate) fn is_quorum(configuration: &Configuration, holds: impl Fn(NodeId) -> bool) -> bool {
    match configuration {
        Configuration::Stable { voters, .. } => is_majority(voters.ids(), &holds),
        Configuration::Joint { old, new, .. } => {
            is_majority(old.ids(), &holds) && is_majority(new.ids(), &holds)
        }
    }
}

impl Proof {
    /// Who leads has the votes of a quorum, as they were said on the wire; its own it need not ask
    /// for.
    pub(super) fn check_votes(&self, machine: usize, seen: &Seen, raft: &Raft, term: Term) {
        let own = crate::world::id_of(machine);
        let granted = |id: NodeId| {
            let vote = self.votes.get(&(crate::world::machine_of(id), term));
            id == own || vote == Some(&own.get())
        };
        // Elected by one configuration, it may append the next in the same turn.
        let before = seen.configuration.as_ref().map(|(_, configuration)| configuration);
        let mut in_force = [Some(raft.configuration()), before].into_iter().flatten();
        must!(
            in_force.any(|it| is_quorum(it, granted)),
            "ElectionQuorum",
            "n{} leads term {term} without the votes of {:?}",
            machine + 1,
            raft.configuration()
        );
    }
}
