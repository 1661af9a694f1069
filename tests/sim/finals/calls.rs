//! The sessions as the log alone shows them: a twin of the product's that anyone can check by
//! reading it. Runs are too short and too small for a session to end.

use crate::chance::usize_of;
use raftd::types::Credential;
use raftd::wire::client::SessionCall;
use std::collections::BTreeSet;

/// Sessions 1, 2, …
#[derive(Default)]
pub(super) struct Calls(Vec<Known>);

/// What is known of a session.
#[derive(Default)]
struct Known {
    owner: Credential,
    acknowledged: u64,
    done: BTreeSet<u64>,
}

impl Calls {
    pub(super) fn open(&mut self, owner: Credential) {
        self.0.push(Known { owner, ..Known::default() });
    }

    /// Whether a call is to be done: it is not if it was, or if its client wants no answer to it;
    /// or if `asker`, should that count, has not opened its session.
    pub(super) fn is_new(&mut self, call: SessionCall, asker: Option<Credential>) -> bool {
        let nth = usize_of(call.session.0).checked_sub(1);
        let Some(known) = nth.and_then(|nth| self.0.get_mut(nth)) else { return false };
        if asker.is_some_and(|asker| asker != known.owner) {
            return false;
        }
        known.acknowledged = known.acknowledged.max(call.acknowledged);
        call.sequence > known.acknowledged && known.done.insert(call.sequence)
    }
}
