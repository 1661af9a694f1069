//! Messages between members that do not get through for a while because of their kind.

use super::Network;
use raftd::raft::message::Message;

/// What a filter tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Append,
    Heartbeat,
    /// Also to a heartbeat.
    AppendReply,
    /// Asked for or given, also before the campaign.
    Vote,
    /// Followers' questions how far it is safe to read, and the answers.
    Read,
    Snapshot,
    Transfer,
}

fn kind_of(message: &Message) -> Kind {
    match message {
        Message::Append { .. } => Kind::Append,
        Message::Heartbeat { .. } => Kind::Heartbeat,
        Message::AppendReply { .. } => Kind::AppendReply,
        Message::PreVote { .. }
        | Message::PreVoteReply { .. }
        | Message::Vote { .. }
        | Message::VoteReply { .. } => Kind::Vote,
        Message::ReadIndex { .. } | Message::ReadIndexReply { .. } => Kind::Read,
        Message::InstallSnapshot { .. } | Message::InstallSnapshotReply { .. } => Kind::Snapshot,
        Message::TimeoutNow { .. } => Kind::Transfer,
    }
}

/// Which messages are lost: of these kinds, from this machine and to that one; `None` is any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Filter {
    pub(crate) kinds: &'static [Kind],
    pub(crate) from: Option<usize>,
    pub(crate) to: Option<usize>,
}

impl Filter {
    fn takes(&self, from: usize, to: usize, kind: Kind) -> bool {
        let fits = |wanted: Option<usize>, it| wanted.is_none_or(|wanted| wanted == it);
        self.kinds.contains(&kind) && fits(self.from, from) && fits(self.to, to)
    }
}

impl Network {
    /// Whether a message is lost because of its kind.
    pub(crate) fn filters(&self, from: usize, to: usize, message: &Message) -> bool {
        self.filters.iter().any(|filter| filter.takes(from, to, kind_of(message)))
    }

    /// One filter less.
    pub(crate) fn no_longer(&mut self, filter: Filter) {
        let found = self.filters.iter().position(|it| *it == filter);
        self.filters.swap_remove(found.expect("it was put into force"));
    }
}
