//! Linearizable reads: the reads of a turn share one ReadIndex round and wait together. Thesis
//! §6.4.

use super::connections::ConnectionId;
use crate::raft::ReadTicket;
use crate::types::LogIndex;
use std::collections::VecDeque;

/// One read that waits, its arguments kept in the batch's arena.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) connection: ConnectionId,
    pub(super) request: u64,
    start: usize,
    end: usize,
}

/// The reads of one turn.
#[derive(Debug, Default)]
pub(super) struct ReadBatch {
    arena: Vec<u8>,
    reads: Vec<Read>,
}

impl ReadBatch {
    /// Adds a read with its undecoded arguments.
    pub(super) fn push(&mut self, connection: ConnectionId, request: u64, args: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(args);
        self.reads.push(Read { connection, request, start, end: self.arena.len() });
    }

    /// Whether nobody waits in it.
    pub(super) fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    /// The reads with their arguments, in order of arrival.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Read, &[u8])> {
        self.reads.iter().map(|read| (*read, &self.arena[read.start..read.end]))
    }

    /// The reads in groups of at most `N`, decoded by `decode`.
    pub(super) fn groups<'a, const N: usize, T: Copy>(
        &'a self,
        decode: impl Fn(&'a [u8]) -> T + Copy,
    ) -> impl Iterator<Item = [Option<(Read, T)>; N]> {
        self.reads.chunks(N).map(move |chunk| {
            let mut group = [None; N];
            for (place, read) in group.iter_mut().zip(chunk) {
                *place = Some((*read, decode(&self.arena[read.start..read.end])));
            }
            group
        })
    }

    fn clear(&mut self) {
        self.arena.clear();
        self.reads.clear();
    }
}

/// All reads that wait, in the order in which the core will release them.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// The reads of the turn under way.
    pub(super) gathering: ReadBatch,
    confirming: VecDeque<(ReadTicket, ReadBatch)>,
    confirmed: VecDeque<(LogIndex, ReadBatch)>,
    spare: Vec<ReadBatch>,
}

impl Reads {
    /// Binds the turn's reads to the ticket the core gave for them.
    pub(super) fn confirm(&mut self, ticket: ReadTicket) {
        let fresh = self.spare.pop().unwrap_or_default();
        self.confirming.push_back((ticket, std::mem::replace(&mut self.gathering, fresh)));
    }

    /// Takes the turn's reads back, when no leader is here to confirm them.
    pub(super) fn take_gathering(&mut self) -> ReadBatch {
        let fresh = self.spare.pop().unwrap_or_default();
        std::mem::replace(&mut self.gathering, fresh)
    }

    /// The reads of `ticket`, which the core has answered. Tickets are answered in order.
    pub(super) fn answered(&mut self, ticket: ReadTicket) -> ReadBatch {
        let (first, batch) =
            self.confirming.pop_front().expect("the core answers only what it was asked");
        assert_eq!(first, ticket, "the core answers tickets in order");
        batch
    }

    /// Queues a confirmed batch until `index` is applied.
    pub(super) fn ready_at(&mut self, index: LogIndex, batch: ReadBatch) {
        self.confirmed.push_back((index, batch));
    }

    /// The next batch whose index is applied.
    pub(super) fn take_ready(&mut self, applied: LogIndex) -> Option<ReadBatch> {
        if self.confirmed.front()?.0 > applied {
            return None;
        }
        self.confirmed.pop_front().map(|(_, batch)| batch)
    }

    /// Hands back a served batch, so that its buffers are reused.
    pub(super) fn recycle(&mut self, mut batch: ReadBatch) {
        batch.clear();
        if self.spare.len() < 16 {
            self.spare.push(batch);
        }
    }
}
