//! What the scenarios about errands need: somebody who asks for a change of the members, a message
//! of a leader that has made another.

use super::{End, Nodes, id};
use raftd::codec::crc::payload_crc;
use raftd::raft::message::EntryMeta;
use raftd::raft::{Configuration, Voters};
use raftd::replica::Membership;
use raftd::types::{EntryKind, LogIndex, LogPosition};
use raftd::wire::members::MemberRequest;
use raftd::wire::peer::{AppendHead, encode_append};
use raftd::wire::state::{StateWord, encode_state_word};

impl Nodes {
    /// The last entry of a server's log.
    pub(in crate::raft) fn last_of(&self, nth: usize) -> LogPosition {
        self.machines[nth - 1].node.as_ref().expect("it is up").inspect().wal.last()
    }

    /// The state of a server is another one from now on, without an entry.
    pub(in crate::raft) fn spoil(&mut self, nth: usize) {
        self.machine(nth).node.as_mut().expect("it is up").spoil_state();
    }

    /// The same, and its revision is higher by so much.
    pub(in crate::raft) fn spoil_revision(&mut self, nth: usize, by: u64) {
        self.machine(nth).node.as_mut().expect("it is up").spoil_revision(by);
    }

    /// Asks `nth` to remove a member; the request's number.
    pub(in crate::raft) fn remove_member(&mut self, nth: usize, member: usize) -> u64 {
        self.ask(nth, |out, asked| MemberRequest::Remove { node: id(member) }.encode(out, asked)).0
    }

    /// Asks `nth` to hand over to another; the request's number.
    pub(in crate::raft) fn transfer_leadership(&mut self, nth: usize, to: usize) -> u64 {
        let transfer = MemberRequest::Transfer { node: Some(id(to)) };
        self.ask(nth, |out, asked| transfer.encode(out, asked)).0
    }

    /// Asks `nth` to add a server that stays a learner; the request's number.
    pub(in crate::raft) fn add_learner(&mut self, nth: usize, learner: usize) -> u64 {
        let address = format!("sim:{learner}");
        let add = MemberRequest::Add { node: id(learner), address: &address, stay: true };
        self.ask(nth, |out, asked| add.encode(out, asked)).0
    }

    /// Server `from` says to `to` what it would as the leader of the next term: behind `prev` it
    /// has opened that, and has then made the first members these. All of it is committed.
    pub(in crate::raft) fn forge_change(
        &mut self,
        (from, to): (usize, usize),
        prev: LogPosition,
        members: &[usize],
    ) {
        let node = self.machines[to - 1].node.as_ref().expect("it is up").inspect();
        let term = node.raft.expect("it is a member").term().next();
        let mut scratch = Vec::new();
        let first = node.wal.payload(LogIndex::new(1), &mut scratch).unwrap();
        let voters = Voters::new(members.iter().copied().map(id).collect()).unwrap();
        let next = Configuration::of_voters(voters);
        let payload = Membership::decode(first).unwrap().successor(&next, None).encode();
        let opened = LogPosition::new(term, prev.index.next());
        let changed = LogPosition::new(term, opened.index.next());
        let entry = |kind, payload: &[u8]| {
            let bytes = u32::try_from(payload.len()).unwrap();
            EntryMeta { term, kind, bytes }
        };
        let entries: [(EntryMeta, u32, &[u8]); 2] = [
            (entry(EntryKind::NoOp, &[]), payload_crc(opened, prev.term, &[]), &[]),
            (
                entry(EntryKind::Configuration, &payload),
                payload_crc(changed, term, &payload),
                &payload,
            ),
        ];
        let (session, round, commit) = (1, 0, changed.index);
        let head = AppendHead { term, session, round, prev, commit, count: entries.len() };
        let mut bytes = Vec::new();
        encode_append(&mut bytes, &head, entries.into_iter());
        self.forge((from, to), &bytes);
    }

    /// Server `from` says to `to` that it has lost its state, and wants a snapshot of this entry at
    /// least.
    pub(in crate::raft) fn forge_wanted(&mut self, ends: (usize, usize), at_least: LogIndex) {
        let mut bytes = Vec::new();
        encode_state_word(&mut bytes, StateWord::Wanted { at_least });
        self.forge(ends, &bytes);
    }

    /// Server `from` sends this to `to` as a request.
    fn forge(&mut self, (from, to): (usize, usize), bytes: &[u8]) {
        // Who dialed is the first end, and requests go to the other.
        let is = |ends: [End; 2]| {
            let [End::Node(one, _), End::Node(other, _)] = ends else { return false };
            (one, other) == (from, to)
        };
        let pipe = self.pipes.iter_mut().rfind(|pipe| is(pipe.ends));
        pipe.expect("they are connected").bytes[1].extend_from_slice(bytes);
    }
}
