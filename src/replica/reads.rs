//! Linearizable reads: those that came since the last ReadIndex round began share the next one, the
//! reads of a turn share one look at the lease, and wait together. Thesis §6.4.

use super::connections::ConnectionId;
use super::pending::Waiter;
use crate::codec::msgpack::Reader;
use crate::kv::Asker;
use crate::raft::ReadTicket;
use crate::types::{Instant, LogIndex, Revision};
use crate::wire::auth::AuthRequest;
use crate::wire::client::{Consistency, Op, RangeArgs, Selection, Txn};
use crate::wire::leases::LeaseRequest;
use std::collections::VecDeque;

/// A served batch whose buffers are larger is not kept. Bytes, and reads.
const SPARE_BYTES_MAX: usize = 64 * 1024;
const SPARE_READS_MAX: usize = 1024;

/// A round with so many reads tells that many clients ask.
const CROWD_READS: usize = 16;
/// So many are enough for a round.
const ROUND_READS: usize = 128;
/// Turns from the end of a round to the next one, while there are fewer. They do not sleep.
const REST_TURNS: u32 = 3;

/// What a read asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked<'a> {
    /// The keys of a range.
    Range(RangeArgs<'a>),
    /// A transaction that changes nothing.
    Txn(Txn<'a>),
    /// Something about leases.
    Lease(LeaseRequest),
    /// Something about users and roles, or how to log in.
    Auth(AuthRequest<'a>),
}

/// A read that is to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathered<'a> {
    pub(super) waiter: Waiter,
    pub(super) asker: Asker,
    pub(super) asked: &'a Asked<'a>,
}

impl<'a> Asked<'a> {
    /// The key that its answer is likely to begin with, if it is one.
    pub(super) fn key(&self) -> Option<&'a [u8]> {
        match self {
            Asked::Range(args) => Some(args.key),
            Asked::Txn(_) | Asked::Lease(_) | Asked::Auth(_) => None,
        }
    }

    pub(super) fn op(&self) -> Op {
        match self {
            Asked::Range(_) => Op::Range,
            Asked::Txn(_) => Op::ReadTxn,
            Asked::Lease(asked) => asked.op(),
            Asked::Auth(asked) => asked.op(),
        }
    }

    /// Appends what `decode` reads.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Asked::Range(args) => args.encode(out),
            Asked::Txn(txn) => out.extend_from_slice(txn.args()),
            Asked::Lease(asked) => asked.encode(out),
            Asked::Auth(asked) => asked.encode(out),
        }
    }

    pub(super) fn decode(op: Op, bytes: &'a [u8]) -> Asked<'a> {
        const OURS: &str = "it was encoded when the read began to wait";
        if op == Op::ReadTxn {
            Asked::Txn(Txn::decode(&mut Reader::new(bytes)).expect(OURS))
        } else if let Some(asked) = LeaseRequest::decode(op, bytes).expect(OURS) {
            Asked::Lease(asked)
        } else if let Some(asked) = AuthRequest::decode(op, bytes).expect(OURS) {
            Asked::Auth(asked)
        } else {
            Asked::Range(RangeArgs::decode(bytes).expect(OURS))
        }
    }
}

/// One read that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) connection: ConnectionId,
    pub(super) request: u64,
    kept: Kept,
    start: usize,
    end: usize,
}

/// How a read is kept.
#[derive(Clone, Copy, Debug)]
enum Kept {
    /// A range of no special order, but its key and its end: they are in the batch's arena, one
    /// behind the other.
    Plain { args: PlainArgs, end_start: usize },
    /// Anything else, as it was asked, in the batch's arena.
    Encoded { op: Op },
}

/// What most reads ask, beside the key: small, for there are many of them.
#[derive(Clone, Copy, Debug)]
struct PlainArgs {
    limit: u64,
    revision: Revision,
    consistency: Consistency,
    keys_only: bool,
    count_only: bool,
}

/// The reads of one turn.
#[derive(Debug, Default)]
pub(super) struct ReadBatch {
    arena: Vec<u8>,
    reads: Vec<Read>,
    /// Who asks, of as many as there are; behind them nobody has said who it is. So they cost
    /// nothing where nobody does.
    askers: Vec<Asker>,
}

impl ReadBatch {
    /// Adds a read.
    fn push(&mut self, read: &Gathered<'_>) {
        let Gathered { waiter: Waiter { connection, request }, asker, asked } = read;
        let (connection, request) = (*connection, *request);
        if *asker != Asker::NOBODY {
            self.askers.resize(self.reads.len(), Asker::NOBODY);
            self.askers.push(*asker);
        }
        let start = self.arena.len();
        let kept = match asked {
            Asked::Range(args) if args.selection == Selection::ALL => {
                self.arena.extend_from_slice(args.key);
                let end_start = self.arena.len();
                self.arena.extend_from_slice(args.end);
                let RangeArgs { limit, revision, consistency, keys_only, count_only, .. } = *args;
                let args = PlainArgs { limit, revision, consistency, keys_only, count_only };
                Kept::Plain { args, end_start }
            }
            Asked::Range(_) | Asked::Txn(_) | Asked::Lease(_) | Asked::Auth(_) => {
                asked.encode(&mut self.arena);
                Kept::Encoded { op: asked.op() }
            }
        };
        self.reads.push(Read { connection, request, kept, start, end: self.arena.len() });
    }

    /// Whether nobody waits in it.
    pub(super) fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    /// The reads, in order of arrival.
    pub(super) fn reads(&self) -> &[Read] {
        &self.reads
    }

    /// Who asks the `nth` read.
    pub(super) fn asker(&self, nth: usize) -> Asker {
        self.askers.get(nth).copied().unwrap_or(Asker::NOBODY)
    }

    /// What a read of this batch asks.
    pub(super) fn asked(&self, read: &Read) -> Asked<'_> {
        match read.kept {
            Kept::Plain { args, end_start } => {
                let PlainArgs { limit, revision, consistency, keys_only, count_only } = args;
                Asked::Range(RangeArgs {
                    key: &self.arena[read.start..end_start],
                    end: &self.arena[end_start..read.end],
                    limit,
                    revision,
                    consistency,
                    keys_only,
                    count_only,
                    selection: Selection::ALL,
                })
            }
            Kept::Encoded { op } => Asked::decode(op, &self.arena[read.start..read.end]),
        }
    }

    /// What its reads count for. Bytes.
    fn bytes(&self) -> usize {
        let askers = self.askers.len() * size_of::<Asker>();
        self.arena.len() + self.reads.len() * size_of::<Read>() + askers
    }

    fn clear(&mut self) {
        self.arena.clear();
        self.reads.clear();
        self.askers.clear();
    }

    fn is_small(&self) -> bool {
        self.arena.capacity() <= SPARE_BYTES_MAX && self.reads.capacity() <= SPARE_READS_MAX
    }
}

/// What makes a read linearizable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    /// A quorum confirms the leader once more.
    Round,
    /// The leader's lease, if it holds one; else a round.
    Lease,
}

/// Reads that wait until an index is applied.
#[derive(Debug)]
struct Confirmed {
    index: LogIndex,
    since: Instant,
    batch: ReadBatch,
}

/// All reads that wait.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// The reads that wait for the next round.
    by_round: ReadBatch,
    /// The reads of the turn under way.
    by_lease: ReadBatch,
    /// The core answers a lease's reads before a round's that came earlier.
    confirming: VecDeque<(ReadTicket, ReadBatch)>,
    confirmed: VecDeque<Confirmed>,
    spare: Vec<ReadBatch>,
    /// How many shared the last round.
    last_crowd: usize,
    /// Turns with reads that wait, since the last round ended.
    turns_rested: u32,
    /// What all of them count for. Bytes.
    bytes: usize,
}

impl Reads {
    /// What the reads count for that wait, arguments and all. Bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Batches that the core was asked for and has not answered.
    pub(super) fn unconfirmed(&self) -> usize {
        self.confirming.len()
    }

    /// Adds a read to those of the turn.
    pub(super) fn gather(&mut self, by: By, read: &Gathered<'_>) {
        let batch = self.gathering(by);
        let before = batch.bytes();
        batch.push(read);
        let added = batch.bytes() - before;
        self.bytes += added;
    }

    /// The reads that were not asked for yet.
    pub(super) fn gathering(&mut self, by: By) -> &mut ReadBatch {
        match by {
            By::Round => &mut self.by_round,
            By::Lease => &mut self.by_lease,
        }
    }

    /// Whether the reads that wait may begin a round. To be asked once a turn, if there are any.
    /// None begins while one is out. And where many share one, some turns more may take in what
    /// clients ask when they have their answers: the fewer rounds, the less all servers do for a
    /// read. Whoever is alone waits for nobody.
    pub(super) fn may_begin_round(&mut self) -> bool {
        if !self.confirming.is_empty() {
            self.turns_rested = 0;
            return false;
        }
        self.turns_rested += 1;
        let waiting = self.by_round.reads.len();
        let alone = self.last_crowd < CROWD_READS;
        let begins = alone || waiting >= ROUND_READS || self.turns_rested > REST_TURNS;
        if begins {
            (self.last_crowd, self.turns_rested) = (waiting, 0);
        }
        begins
    }

    /// Whether reads wait for no more than the next turn.
    pub(super) fn wait_for_a_turn(&self) -> bool {
        !self.by_round.reads.is_empty() && self.confirming.is_empty()
    }

    /// Takes the turn's reads.
    pub(super) fn take_gathering(&mut self, by: By) -> ReadBatch {
        let fresh = self.spare.pop().unwrap_or_default();
        std::mem::replace(self.gathering(by), fresh)
    }

    /// Binds reads to the ticket the core gave for them.
    pub(super) fn confirm(&mut self, ticket: ReadTicket, batch: ReadBatch) {
        self.confirming.push_back((ticket, batch));
    }

    /// The reads of `ticket`, which the core has answered.
    pub(super) fn answered(&mut self, ticket: ReadTicket) -> ReadBatch {
        let place = self.confirming.iter().position(|(waiting, _)| *waiting == ticket);
        let found = place.and_then(|place| self.confirming.remove(place));
        found.expect("the core answers what it was asked, once").1
    }

    /// Queues a confirmed batch until `index` is applied.
    pub(super) fn ready_at(&mut self, index: LogIndex, batch: ReadBatch, since: Instant) {
        self.confirmed.push_back(Confirmed { index, since, batch });
    }

    /// The oldest confirmed batch.
    pub(super) fn take_oldest(&mut self) -> Option<ReadBatch> {
        self.confirmed.pop_front().map(|confirmed| confirmed.batch)
    }

    /// Since when the oldest confirmed batch waits.
    pub(super) fn confirmed_since(&self) -> Option<Instant> {
        self.confirmed.front().map(|confirmed| confirmed.since)
    }

    /// The next batch whose index is applied.
    pub(super) fn take_ready(&mut self, applied: LogIndex) -> Option<ReadBatch> {
        if self.confirmed.front()?.index > applied {
            return None;
        }
        self.confirmed.pop_front().map(|confirmed| confirmed.batch)
    }

    /// Hands back a served batch, so that its buffers are reused.
    pub(super) fn recycle(&mut self, mut batch: ReadBatch) {
        self.bytes -= batch.bytes();
        batch.clear();
        if self.spare.len() < 16 && batch.is_small() {
            self.spare.push(batch);
        }
    }
}
