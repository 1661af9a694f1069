//! Configurations in force. Paper §6, thesis chapter 4.
//!
//! A configuration counts from the moment its entry is in the log (`Log::adopt`), until it is
//! truncated away (`Log::truncate`). The core never sees a payload, so whoever decodes one says
//! what it holds.

use super::Raft;
use super::configuration::Configuration;
use super::progress::Peer;
use super::role::Role;
use crate::types::{Instant, LogIndex};

impl Raft {
    /// The entry at `index`, just appended, holds `configuration`: it is in force from now on. To
    /// be called before the next input. Panics if a newer one is in force already, or the log ends
    /// before `index`.
    pub fn adopt_configuration(&mut self, index: LogIndex, configuration: Configuration) {
        self.log.adopt(index, configuration);
    }

    /// A leader replicates to the members of the configuration in force, and to nobody else; and it
    /// leaves once a configuration without it is committed, not earlier: until then nobody else may
    /// be able to commit it. Thesis §4.2.2.
    pub(super) fn continue_reconfiguration(&mut self, now: Instant) {
        let Role::Leader(leader) = &mut self.role else { return };
        let configuration = self.log.configuration();
        let own = self.settings.id;
        let others = || configuration.voters().iter().copied().filter(|id| *id != own);
        if !leader.peers.iter().map(|peer| peer.id).eq(others()) {
            let prev = self.log.last().index;
            leader.peers.retain(|peer| configuration.is_voter(peer.id));
            for id in others() {
                if let Err(at) = leader.peers.binary_search_by_key(&id, |peer| peer.id) {
                    let session = self.sessions.get(&id).copied();
                    leader.peers.insert(at, Peer::new(id, session, prev, now));
                }
            }
        }
        let left = !configuration.is_voter(own);
        if left && self.log.configuration_index() <= self.commit_index {
            self.become_follower(now, self.hard_state.term);
        }
    }
}
