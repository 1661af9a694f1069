//! Clients: each request comes over a connection of its own, behind a hello.

use super::{End, Nodes, Pipe};
use raftd::kv::LeaseRow;
use raftd::replica::ConnectionId;
use raftd::types::{ClusterId, Credential, Revision};
use raftd::wire::client::{
    Command, Consistency, RangeArgs, SessionCall, command_request, put_request, range_request,
    snapshot_request,
};
use raftd::wire::error::Error;
use raftd::wire::frame::next_frame;
use raftd::wire::hello::{Hello, Sender, encode_hello};
use raftd::wire::leases::{LeaseList, LeaseRequest, LeaseTerm, LeaseTimes, lease_request};
use raftd::wire::reply::{ReplyBody, decode_reply};
use std::ops::Range;

/// What a client heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::raft) enum Answer {
    Done,
    Term(LeaseTerm),
    Times(LeaseTimes),
    Leases(LeaseList),
    /// How a password is to be proved: the nonce, the salt and the rounds.
    Challenge(Vec<u8>, Vec<u8>, u64),
    LoggedIn(Credential),
    Failed(Error),
}

impl Nodes {
    /// Sends a put through a new connection; its number.
    pub(in crate::raft) fn put(&mut self, nth: usize, key: &str) -> u64 {
        self.ask(nth, |bytes, number| put_request(bytes, number, key.as_bytes(), b"v")).0
    }

    /// Sends a command, or a call of a session, through a new connection; the number of the
    /// request.
    pub(in crate::raft) fn command(
        &mut self,
        nth: usize,
        call: Option<SessionCall>,
        command: Command<'_>,
    ) -> u64 {
        self.ask(nth, |bytes, number| command_request(bytes, number, call, command)).0
    }

    /// Asks for a key, linearizable, through a new connection; the number of the request.
    pub(in crate::raft) fn read(&mut self, nth: usize, key: &str) -> u64 {
        let args = RangeArgs::of_key(key.as_bytes());
        self.ask(nth, |bytes, number| range_request(bytes, number, &args)).0
    }

    /// Asks for all keys as a server has them through a new connection.
    pub(in crate::raft) fn read_all(&mut self, nth: usize) -> (u64, ConnectionId) {
        let consistency = Consistency::Serializable;
        self.range(nth, &RangeArgs { end: &[0], consistency, ..RangeArgs::of_key(&[0]) })
    }

    /// Asks for a range through a new connection.
    pub(in crate::raft) fn range(
        &mut self,
        nth: usize,
        args: &RangeArgs<'_>,
    ) -> (u64, ConnectionId) {
        self.ask(nth, |bytes, number| range_request(bytes, number, args))
    }

    /// The lowest revision that a server keeps for ranges under way.
    pub(in crate::raft) fn kept_for_ranges(&self, nth: usize) -> Option<Revision> {
        let node = self.machines[nth - 1].node.as_ref().expect("it is up");
        node.inspect().store.kept_for_walks().map(|(lowest, _)| lowest)
    }

    /// Whether a server's state is between two slices of an entry.
    pub(in crate::raft) fn is_halfway(&self, nth: usize) -> bool {
        let node = self.machines[nth - 1].node.as_ref().expect("it is up");
        node.inspect().store.is_halfway()
    }

    /// Asks something about a lease through a new connection; the number of the request.
    pub(in crate::raft) fn lease(&mut self, nth: usize, request: LeaseRequest) -> u64 {
        self.ask(nth, |bytes, number| lease_request(bytes, number, &request)).0
    }

    /// Asks it so many times through one new connection; the numbers of the requests.
    pub(in crate::raft) fn lease_often(
        &mut self,
        nth: usize,
        request: LeaseRequest,
        times: u64,
    ) -> (Range<u64>, ConnectionId) {
        let (first, connection) = self.ask(nth, |bytes, first| {
            (first..first + times).for_each(|number| lease_request(bytes, number, &request));
        });
        self.requests = first + times - 1;
        (first..first + times, connection)
    }

    /// The clients hear what was sent to them, and nothing else happens.
    pub(in crate::raft) fn hear_answers(&mut self) {
        for pipe in 0..self.pipes.len() {
            self.deliver_to(pipe, 0);
        }
    }

    /// A lease as a server has it.
    pub(in crate::raft) fn lease_of(&self, nth: usize, lease: u64) -> Option<LeaseRow> {
        let node = self.machines[nth - 1].node.as_ref().expect("it is up");
        node.inspect().store.lease(lease)
    }

    /// Asks for the store as a file through a new connection; the number of the request.
    pub(in crate::raft) fn save(&mut self, nth: usize) -> (u64, ConnectionId) {
        self.ask(nth, snapshot_request)
    }

    /// Whether a server wants a turn within so long, if nothing happens.
    pub(in crate::raft) fn wakes_within(&self, nth: usize, ns: u64) -> bool {
        let node = self.machines[nth - 1].node.as_ref().expect("it is up");
        node.wake_at() <= self.now.after_ns(ns)
    }

    /// The client at the other end of a connection to `nth` ends it.
    pub(in crate::raft) fn hang_up(&mut self, nth: usize, connection: ConnectionId) {
        self.end_pipes(|end| end == End::Node(nth, connection));
    }

    pub(super) fn ask(
        &mut self,
        nth: usize,
        request: impl FnOnce(&mut Vec<u8>, u64),
    ) -> (u64, ConnectionId) {
        self.requests += 1;
        let number = self.requests;
        let connection = self.next_id();
        self.machine(nth).node.as_mut().expect("it is up").on_accepted(connection);
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            cluster_id: ClusterId(0),
            sender: Sender::Client,
            auth: Vec::new(),
        };
        let mut bytes = Vec::new();
        encode_hello(&mut bytes, &hello);
        request(&mut bytes, number);
        let ends = [End::Client, End::Node(nth, connection)];
        self.pipes.push(Pipe { ends, bytes: [Vec::new(), bytes] });
        (number, connection)
    }

    pub(super) fn hear(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while let Some(frame) = next_frame(&bytes[at..], usize::MAX >> 1).unwrap() {
            at += frame.consumed;
            let Ok(reply) = decode_reply(frame.body) else { continue };
            let answer = match reply.body {
                ReplyBody::Put { .. }
                | ReplyBody::DeleteRange { .. }
                | ReplyBody::PutWith { .. }
                | ReplyBody::Compact { .. }
                | ReplyBody::OpenSession { .. }
                | ReplyBody::LeaseRevoke { .. }
                | ReplyBody::Auth { .. }
                | ReplyBody::MemberChange { .. } => Answer::Done,
                ReplyBody::Login(it) => {
                    Answer::Challenge(it.nonce.to_vec(), it.salt.to_vec(), it.rounds)
                }
                ReplyBody::LoginProof(done) => Answer::LoggedIn(done.credential),
                ReplyBody::Range(range) if range.goes_on => continue,
                ReplyBody::Range(_) => Answer::Done,
                ReplyBody::LeaseTerm { term, .. } => Answer::Term(term),
                ReplyBody::LeaseTimes(times, names) => {
                    let names = names.iter().map(<[u8]>::to_vec).collect();
                    self.names.insert(reply.id, names);
                    Answer::Times(times)
                }
                ReplyBody::LeaseList(list) => Answer::Leases(list),
                ReplyBody::Snapshot(piece) => {
                    let end = piece.offset + u64::try_from(piece.bytes.len()).unwrap();
                    if end < piece.snapshot.bytes || end == 0 {
                        continue;
                    }
                    Answer::Done
                }
                ReplyBody::Error(error) => Answer::Failed(error),
                ReplyBody::Watch(batch) => {
                    let heard = self.heard.entry(reply.id).or_default();
                    heard.extend(batch.events().map(|event| event.kv.mod_revision.0));
                    continue;
                }
                ReplyBody::Status(_)
                | ReplyBody::WatchCancel { .. }
                | ReplyBody::WatchProgress { .. }
                | ReplyBody::AuthRead(_)
                | ReplyBody::PutIf { .. }
                | ReplyBody::DeleteRangeWith { .. }
                | ReplyBody::Txn { .. }
                | ReplyBody::MemberList(_)
                | ReplyBody::Transfer { .. } => panic!("nobody asked for that"),
            };
            let before = self.answers.insert(reply.id, answer);
            assert_eq!(before, None, "a request is answered once");
        }
        assert_eq!(at, bytes.len(), "replies come in whole frames");
    }
}
