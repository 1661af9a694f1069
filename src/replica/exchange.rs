//! Messages between members: in from their connections, out from the log's bytes; and what the core
//! decides for the log, repeated in the record.

use super::connections::ConnectionId;
use super::drive::room_after_overhead;
use super::entry::Membership;
use super::{Fatal, Node, Stage};
use crate::codec::crc::payload_crc;
use crate::limits;
use crate::raft::message::{EntryMeta, Message};
use crate::raft::{Body, LogOp, room_taken};
use crate::types::{EntryKind, Instant, LogIndex, LogPosition, LogRange, NodeId};
use crate::wire::peer::{
    AppendHead, AppendWriter, Payload, PeerFrame, Room, decode_peer, encode_message, recycle,
};
use crate::wire::state::decode_state_word;

impl Node {
    /// A request of the member that dialed us.
    pub(super) fn on_peer_request(
        &mut self,
        id: ConnectionId,
        from: NodeId,
        body: &[u8],
        now: Instant,
    ) {
        if self.peers.inbound(from) != Some(id) {
            return;
        }
        if let Ok(Some(word)) = decode_state_word(body) {
            return self.on_state_word(from, word, now);
        }
        let Ok(frame) = decode_peer(body, std::mem::take(&mut self.scratch.frame)) else {
            log::warn!("closed a peer that sent bytes of no message peer={from}");
            return self.connections.end(id);
        };
        let expected = match &frame.message {
            Message::PreVote { .. }
            | Message::Vote { .. }
            | Message::Append { .. }
            | Message::Heartbeat { .. }
            | Message::TimeoutNow { .. }
            | Message::ReadIndex { .. } => true,
            Message::PreVoteReply { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply { .. }
            | Message::InstallSnapshot { .. }
            | Message::InstallSnapshotReply { .. }
            | Message::ReadIndexReply { .. } => false,
        };
        if !expected || !self.payloads_are_whole(&frame) {
            log::warn!("closed a peer that sent a message out of place or damaged peer={from}");
            return self.connections.end(id);
        }
        let (prev, entries): (LogPosition, &[EntryMeta]) =
            if let Message::Append { prev, entries, .. } = &frame.message {
                (*prev, entries)
            } else {
                (LogPosition::ZERO, &[])
            };
        let room = room_after_overhead(self.wal.room_bytes());
        self.complain_of_size(from, entries, now);
        // Who takes over opens a term with an entry, and then finds no space for others either:
        // where all are cramped, the leader that there is stays and answers reads. And whose state
        // is lost does not serve.
        let unable = self.is_cramped() || self.lost_states.is_own();
        let unable = unable && matches!(frame.message, Message::TimeoutNow { .. });
        if let Stage::Member(raft) = &mut self.stage
            && !unable
        {
            raft.step(now, from, &frame.message, room);
            self.carry_out_accepted(prev, entries, &frame.payloads);
        }
        self.scratch.frame = recycle(frame);
    }

    /// An entry that no segment of ours holds keeps us behind for ever: say so.
    fn complain_of_size(&mut self, from: NodeId, entries: &[EntryMeta], now: Instant) {
        let largest = entries.iter().map(|meta| room_taken(meta.bytes)).max();
        let most = room_after_overhead(self.wal.entry_bytes_max());
        let text = "an entry is larger than a segment of the log here: \
                    start this server with the --segment-bytes of the others";
        if largest.is_some_and(|bytes| bytes > most) && self.complaints.is_news(from, text, now) {
            log::error!("{text} node={} leader={from} bytes_max={most}", self.identity.node);
        }
    }

    /// Whether every payload is what the leader's checksum says: checked before any of it can be
    /// decided on.
    fn payloads_are_whole(&self, frame: &PeerFrame<'_>) -> bool {
        let Message::Append { prev, entries, .. } = &frame.message else { return true };
        let mut before = *prev;
        entries.iter().zip(&frame.payloads).all(|(meta, payload)| {
            let position = LogPosition::new(meta.term, before.index.next());
            let crc = payload_crc(position, before.term, payload.bytes);
            before = position;
            crc == payload.crc
        })
    }

    /// An answer of the member that we dialed.
    pub(super) fn on_peer_reply(
        &mut self,
        id: ConnectionId,
        from: NodeId,
        body: &[u8],
        now: Instant,
    ) {
        if self.peers.outbound(from) != Some(id) {
            return;
        }
        let frame = decode_peer(body, Room::default());
        let Ok(PeerFrame { message, .. }) = frame else { return self.connections.end(id) };
        match message {
            Message::PreVoteReply { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply { .. }
            | Message::ReadIndexReply { .. } => {
                if let Stage::Member(raft) = &mut self.stage {
                    raft.step(now, from, &message, 0);
                    self.carry_out_log();
                }
            }
            Message::PreVote { .. }
            | Message::Vote { .. }
            | Message::Append { .. }
            | Message::Heartbeat { .. }
            | Message::TimeoutNow { .. }
            | Message::ReadIndex { .. }
            | Message::InstallSnapshot { .. }
            | Message::InstallSnapshotReply { .. } => self.connections.end(id),
        }
    }

    /// Repeats in the record what the core has decided for the log, no message at hand.
    pub(super) fn carry_out_log(&mut self) {
        self.carry_out_accepted(LogPosition::ZERO, &[], &[]);
    }

    /// Repeats in the record what the core has decided for the log. `metas` and `payloads` are
    /// those of the message it decided on, whose checksums hold; `prev` is the entry before them.
    fn carry_out_accepted(
        &mut self,
        prev: LogPosition,
        metas: &[EntryMeta],
        payloads: &[Payload<'_>],
    ) {
        assert_eq!(metas.len(), payloads.len(), "each entry has its payload");
        let Stage::Member(raft) = &mut self.stage else { return };
        let output = raft.output();
        if output.log_ops.is_empty() {
            return;
        }
        std::mem::swap(&mut output.log_ops, &mut self.scratch.log_ops);
        let mut damaged = None;
        let mut reconfigured = false;
        for operation in self.scratch.log_ops.drain(..) {
            match operation {
                LogOp::Truncate { to } => {
                    self.wal.truncate(to);
                    self.memberships.truncate(to.index);
                    reconfigured = true;
                }
                LogOp::NoOp { position } => {
                    self.wal.append(position, EntryKind::NoOp, &[]);
                }
                LogOp::Accept { skip, first, count } => {
                    let taken = metas.iter().zip(payloads).skip(skip).take(count);
                    let before = skip.checked_sub(1).and_then(|at| metas.get(at));
                    let mut prev_term = before.map_or(prev.term, |meta| meta.term);
                    let mut index = first.index;
                    for (meta, payload) in taken {
                        let position = LogPosition::new(meta.term, index);
                        let Payload { bytes, crc } = *payload;
                        self.wal.append_checked(position, prev_term, meta.kind, bytes, crc);
                        prev_term = meta.term;
                        if meta.kind == EntryKind::Configuration {
                            match Membership::decode(payload.bytes) {
                                Ok(membership) => {
                                    raft.adopt_configuration(index, membership.configuration());
                                    self.memberships.push(index, membership);
                                    reconfigured = true;
                                }
                                Err(error) => damaged = Some((index, error.to_string())),
                            }
                        }
                        index = index.next();
                    }
                }
            }
        }
        self.reconfigured |= reconfigured;
        self.fail_entry(damaged);
    }

    fn fail_entry(&mut self, damaged: Option<(LogIndex, String)>) {
        if let Some((index, why)) = damaged {
            self.fail(Fatal::Entry { index, why });
        }
    }

    pub(super) fn send_messages(&mut self) {
        let Stage::Member(raft) = &mut self.stage else { return };
        std::mem::swap(&mut raft.output().sends, &mut self.scratch.sends);
        let mut sends = std::mem::take(&mut self.scratch.sends);
        for send in sends.drain(..) {
            match send.body {
                Body::Message(message) => self.send_message(send.to, &message),
                Body::Append { term, session, round, prev, range, commit } => {
                    let count =
                        usize::try_from(range.count()).expect("a message holds few entries");
                    let head = AppendHead { term, session, round, prev, commit, count };
                    self.send_append(send.to, &head, range);
                }
            }
        }
        self.scratch.sends = sends;
    }

    fn send_message(&mut self, to: NodeId, message: &Message) {
        let connection = match message {
            Message::PreVote { .. }
            | Message::Vote { .. }
            | Message::Append { .. }
            | Message::Heartbeat { .. }
            | Message::TimeoutNow { .. }
            | Message::ReadIndex { .. } => self.peers.outbound(to),
            Message::PreVoteReply { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply { .. }
            | Message::ReadIndexReply { .. } => self.peers.inbound(to),
            Message::InstallSnapshotReply { .. } => self.peers.snapshot_inbound(to),
            Message::InstallSnapshot { .. } => None,
        };
        // A peer that does not read gets no more: the core takes a lost message for a lost message.
        if let Some(connection) = connection
            && self.connections.unsent(connection).len() < limits::PEER_OUT_MAX
        {
            self.connections.write(connection, |out| encode_message(out, message));
        }
    }

    /// Encodes an AppendEntries straight from the log's bytes into the peer's out-buffer.
    fn send_append(&mut self, to: NodeId, head: &AppendHead, range: LogRange) {
        let Some(connection) = self.peers.outbound(to) else { return };
        // As above. A window does not bound what a peer gets that does not read: the core takes the
        // window's messages for lost after a while, and probes with an entry at every heartbeat.
        if self.connections.unsent(connection).len() >= limits::PEER_OUT_MAX {
            return;
        }
        let (wal, scratch) = (&self.wal, &mut self.scratch.payload);
        let mut damaged = None;
        self.connections.write(connection, |out| {
            let start = out.len();
            let mut writer = AppendWriter::begin(out, head);
            for index in range.indexes() {
                let meta = wal.meta(index).expect("the core sends only what it appended");
                match wal.payload(index, scratch) {
                    Ok(payload) => {
                        let entry =
                            EntryMeta { term: meta.term, kind: meta.kind, bytes: meta.bytes };
                        writer.push(out, entry, meta.crc, payload);
                    }
                    Err(error) => {
                        damaged = Some((index, error.to_string()));
                        out.truncate(start);
                        return;
                    }
                }
            }
            writer.finish(out);
        });
        self.fail_entry(damaged);
    }
}
