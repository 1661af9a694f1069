//! Clients that watch, and do not read what comes.

use super::{End, Nodes, is_at};
use raftd::replica::ConnectionId;
use raftd::types::Revision;
use raftd::wire::client::{RangeArgs, range_request};
use raftd::wire::watch::{WatchArgs, watch_request};

impl Nodes {
    /// Watches a key from now on, through a new connection whose other end does not read; the
    /// number of the request.
    pub(in crate::raft) fn watch_unread(&mut self, nth: usize, key: &str) -> (u64, ConnectionId) {
        let args = WatchArgs {
            key: key.as_bytes(),
            end: b"",
            start: Revision(0),
            prev_kv: false,
            no_put: false,
            no_delete: false,
            progress_ms: 0,
        };
        let asked = self.ask(nth, |bytes, number| watch_request(bytes, number, &args));
        self.unread.push(asked.1);
        self.settle();
        asked
    }

    /// Asks for a key so many times through a new connection whose other end reads only what a test
    /// says.
    pub(in crate::raft) fn read_unread(
        &mut self,
        nth: usize,
        key: &str,
        times: usize,
    ) -> ConnectionId {
        let args = RangeArgs::of_key(key.as_bytes());
        let (_, connection) = self.ask(nth, |bytes, number| {
            (0..times).for_each(|_| range_request(bytes, number, &args));
        });
        self.unread.push(connection);
        connection
    }

    /// Asks for a range through such a connection.
    pub(in crate::raft) fn range_unread(
        &mut self,
        nth: usize,
        args: &RangeArgs<'_>,
    ) -> ConnectionId {
        let (_, connection) = self.range(nth, args);
        self.unread.push(connection);
        connection
    }

    /// Server `to` reads nothing more of what `from` asks of it; that connection of `from`.
    pub(in crate::raft) fn stop_reading_from(&mut self, from: usize, to: usize) -> ConnectionId {
        // Who dialed is the first end.
        let dialed = |[one, other]: [End; 2]| match one {
            End::Node(nth, id) if nth == from && is_at(other, to) => Some(id),
            End::Node(..) | End::Client => None,
        };
        let mut newest = self.pipes.iter().rev();
        let connection = newest.find_map(|pipe| dialed(pipe.ends)).expect("they are connected");
        self.unread.push(connection);
        connection
    }

    /// The other end takes so many bytes, and they are lost.
    pub(in crate::raft) fn take_some(
        &mut self,
        nth: usize,
        connection: ConnectionId,
        bytes: usize,
    ) {
        let node = self.machine(nth).node.as_mut().expect("it is up");
        node.sent(connection, bytes.min(node.unsent(connection).len()));
    }

    /// What a server holds for the other end of a connection. Bytes.
    pub(in crate::raft) fn unread_bytes(&self, nth: usize, connection: ConnectionId) -> usize {
        let node = self.machines[nth - 1].node.as_ref().expect("it is up");
        node.unsent(connection).len()
    }

    /// Versions that a server holds beside the newest ones.
    pub(in crate::raft) fn versions_to_free(&self, nth: usize) -> usize {
        let node = self.machines[nth - 1].node.as_ref().expect("it is up");
        node.inspect().store.footprint().uncompacted
    }

    /// The other end reads nothing from now on.
    pub(in crate::raft) fn stop_reading(&mut self, connection: ConnectionId) {
        self.unread.push(connection);
    }

    /// The other end reads from now on.
    pub(in crate::raft) fn read_on(&mut self, nth: usize, connection: ConnectionId) {
        self.unread.retain(|id| *id != connection);
        self.send(nth, connection);
        self.settle();
    }
}
