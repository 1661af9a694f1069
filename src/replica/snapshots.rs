//! Our own snapshots: when one is due, and its way from the store to the record in slices.
//!
//! One is due when more than `--snapshot-entries` entries were applied since the last one, or fewer
//! that are `--snapshot-log-bytes` of log, **and** the log has grown by at least half of that one's
//! size, so that snapshots cost at most twice what the log costs; and not sooner than the interval
//! allows, unless disk space presses, or the log is about to take more segments than the snapshots
//! leave it. Or a client asks for one (`saves`). A turn writes one slice at most, and slices keep a
//! distance while the log grows slowly: serving goes on between them.
//!
//! Why half: while the next one is written, the last one and the log behind it are still there. So
//! the disk holds two snapshots, half of one as log, and what is written meanwhile, for which the
//! hurry leaves the other half: three in all. Where the disk is slow and the load is not, the log
//! grew by more than that while the last one was made: then the next one begins so much earlier,
//! though not before a quarter. Three do not suffice if even that is too late.

use std::any::Any;

use super::{Node, Stage};
use crate::kv::{self, Checkpoint, CheckpointError, Loader, SliceLimits, Sliced, Store};
use crate::limits;
use crate::types::{Instant, LogIndex, LogPosition, SnapshotId};
use crate::wal::{Block, OpenError, Recovered, SnapshotDamage, SnapshotHead, SnapshotSource};

/// A slice of writing: with a million keys of 256 B and cold memory 55 µs, and 99 of 100 below 180,
/// of the 300 µs that it may take. It is bounded by what it does, for no clock is read within a
/// turn. One value of any size always fits, and is copied once: 1.4 MB take longer than that.
const WRITTEN_SLICE: SliceLimits = SliceLimits { steps: 256, bytes: 64 * 1024 };
/// A slice of loading: the sooner that ends, the less log is to follow it. A key that comes is
/// dearer than one that is looked at: 96 cost what 256 do there, and these eight times as much. So
/// a third of the loop's time goes to it, half a millisecond at a time, and three times that with
/// cold memory: heartbeats do not mind. Whoever wants an answer that is up to date waits for the
/// end of it anyway.
const LOADED_SLICE: SliceLimits = SliceLimits { steps: 768, bytes: 256 * 1024 };
/// From one slice to the next: a tenth of the loop's time at most goes to those that are written.
/// Nanoseconds.
const SLICE_PERIOD_NS: u64 = 1_000_000;
/// After an attempt that failed: on a full disk the segment that is wanted is tried twice
/// meanwhile, in the space that the attempt gave back. Nanoseconds.
const PAUSE_NS: u64 = 1_000_000_000;
/// A snapshot under way hurries once the log has grown by this part of the last one since it began.
const UNHURRIED_PART: u64 = 16;
/// From one slice to the next then: there is one in each turn that writes much of the log anyway,
/// and the loop still rests in between. Nanoseconds.
const HURRIED_PERIOD_NS: u64 = 100_000;
/// What the log may grow while a snapshot is made is a guess: this part of the last one is spare.
const SPARE_PART: u64 = 8;
/// Blocks that wait for the disk before the cursor waits too.
const BACKLOG_MAX: usize = 2;

/// How snapshots are made and sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotOptions {
    /// More than so many entries since the last one.
    pub entries: u64,
    /// Or so much log since then: under load an entry holds hundreds of writes. Bytes.
    pub log_bytes: u64,
    /// From one to the next, unless disk space or the log presses. Nanoseconds.
    pub interval_ns: u64,
    /// What a turn writes at most.
    pub slice: SliceLimits,
    /// What a turn loads at most of a leader's.
    pub loaded_slice: SliceLimits,
    /// Checkpoint bytes to a block of the file. Bytes.
    pub block_bytes: usize,
    /// Bytes of the file to a message.
    pub piece_bytes: usize,
    /// Bytes a second to one follower; `None` is no bound.
    pub rate: Option<u64>,
}

impl Default for SnapshotOptions {
    fn default() -> SnapshotOptions {
        SnapshotOptions {
            entries: limits::SNAPSHOT_ENTRIES_DEFAULT,
            log_bytes: limits::SNAPSHOT_LOG_BYTES_DEFAULT,
            interval_ns: limits::SNAPSHOT_INTERVAL_MS_DEFAULT * 1_000_000,
            slice: WRITTEN_SLICE,
            loaded_slice: LOADED_SLICE,
            block_bytes: limits::SNAPSHOT_BLOCK_BYTES,
            piece_bytes: limits::SNAPSHOT_PIECE_BYTES,
            rate: None,
        }
    }
}

/// A snapshot of ours under way.
struct Drafting {
    checkpoint: Checkpoint,
    block: Vec<u8>,
    slice_at: Instant,
    /// Once the log has grown so far, slices follow each other closely. Bytes.
    hurry_at: u64,
}

/// What the node keeps about its snapshots.
#[derive(Default)]
pub(super) struct Snapshots {
    drafting: Option<Drafting>,
    /// Written and in place, and not in force.
    ready: Option<SnapshotId>,
    /// When the next one may begin.
    next_at: Instant,
    /// What the log had grown by when the one under way was begun, and what it grew by while the
    /// last one was made. Bytes.
    grown_before: u64,
    grown_meanwhile: u64,
    /// The last attempt failed: until when no other is made, whatever asks for one.
    paused_until: Option<Instant>,
    /// The configuration of the snapshot in force: its entry may be gone from the log.
    pub(super) configuration: Option<(LogIndex, Vec<u8>)>,
    /// What the snapshot in force is good for.
    pub(super) worth: Worth,
    /// It came by a restore, and the first entry of its new cluster is not written.
    pub(super) unfounded: bool,
    /// That of the snapshot under way.
    configuration_next: Option<(LogIndex, Vec<u8>)>,
}

/// Whether a snapshot can be given to others, and what follows if not.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Worth {
    #[default]
    Sound,
    /// Made under another cluster id or first entry, by a restore or a forced new cluster: nobody
    /// else can take it, so another one follows with the next entry.
    Foreign,
    /// Made, perhaps, of a state that differed from the other members'. None is made of that state,
    /// and nobody takes this one.
    Distrusted,
    /// Its file is damaged. It is made again from what it stands for, without another entry: a
    /// quorum may wait for whoever waits for it.
    Rotted,
}

impl Worth {
    pub(super) fn foreign_if(foreign: bool) -> Worth {
        if foreign { Worth::Foreign } else { Worth::Sound }
    }
}

impl Snapshots {
    pub(super) fn wake_at(&self) -> Instant {
        let slice_at = self.drafting.as_ref().map_or(Instant::FAR, |drafting| drafting.slice_at);
        slice_at.min(self.paused_until.unwrap_or(Instant::FAR))
    }

    /// The state differs from the other members'.
    pub(super) fn distrust(&mut self) {
        (self.ready, self.worth) = (None, Worth::Distrusted);
    }
}

impl Node {
    /// Begins a snapshot if one is due, and goes on with the one under way.
    pub(super) fn continue_snapshot(&mut self, now: Instant) {
        self.snapshots.paused_until.take_if(|until| *until <= now);
        self.adopt_ready();
        if self.snapshot_due(now) {
            self.begin_snapshot(now);
        }
        // One slice a turn: who loads needs it before others need our next snapshot.
        let loads = self.receiving_wake_at() <= now;
        let Some(drafting) = &mut self.snapshots.drafting else { return };
        let Some(backlog) = self.wal.draft_backlog() else {
            return self.end_drafting(); // it was given up
        };
        if drafting.slice_at > now || loads {
            return;
        }
        if backlog >= BACKLOG_MAX {
            // The disk wakes us.
            drafting.slice_at = Instant::FAR;
            return;
        }
        let hurried = self.wal.growth() >= drafting.hurry_at;
        drafting.slice_at = now.after_ns(if hurried { HURRIED_PERIOD_NS } else { SLICE_PERIOD_NS });
        let SliceLimits { steps, bytes } = self.options.snapshots.slice;
        let Drafting { checkpoint, block, .. } = drafting;
        // To the end of a full block and not beyond: one value of any size fits behind that.
        let left = limits::SNAPSHOT_BLOCK_BYTES.saturating_sub(block.len());
        let limits = SliceLimits { steps, bytes: left.min(bytes) };
        let sliced = self.store.write_checkpoint(checkpoint, block, limits);
        if block.len() >= self.options.snapshots.block_bytes || sliced == Sliced::Done {
            self.wal.push_draft(block);
        }
        if sliced == Sliced::Done {
            self.wal.end_draft();
            self.end_drafting();
        }
    }

    fn snapshot_due(&self, now: Instant) -> bool {
        // One stands for whole entries.
        if !matches!(self.stage, Stage::Member(_)) || self.store.is_halfway() {
            return false;
        }
        let applied = self.store.applied();
        let last = self.wal.snapshot().map(|source| source.id).unwrap_or_default();
        let entries = applied.get().saturating_sub(last.position.index.get());
        let growth = self.wal.growth();
        let hasty = || growth >= least_growth(last.bytes) && self.log_presses(last);
        let long = entries > 0 && growth >= self.options.snapshots.log_bytes;
        let many = entries > self.options.snapshots.entries;
        let grown = growth >= growth_wanted(last.bytes, self.snapshots.grown_meanwhile);
        let rested = self.snapshots.next_at <= now || self.wal.out_of_space();
        // While states differ and nobody knows which is right, a start is to make ours anew of the
        // log, and not to find it in a snapshot.
        let doubtful = self.state_hashes.disputed().is_some() && !self.wal.out_of_space();
        let due = (many || long) && (grown && rested || hasty()) && !doubtful;
        // A client saves what it knows to be written; a member that lost its state wants one that
        // leads past where that was.
        let lost = self.lost_states.wanting().map(|(_, at_least)| at_least);
        let mut wanted = self.saves.wanted().into_iter().chain(lost);
        let asked = wanted.any(|it| last.position.index < it && it <= applied);
        let idle = self.snapshots.drafting.is_none() && !self.wal.snapshot_under_way();
        let idle = idle && self.snapshots.paused_until.is_none();
        let behind = last.position.index < applied;
        let replaced = match self.snapshots.worth {
            Worth::Sound => false,
            Worth::Foreign => behind,
            Worth::Rotted => true,
            Worth::Distrusted => return false,
        };
        (due || asked || replaced) && idle && !self.is_receiving()
    }

    /// Whether the log behind the last snapshot may come to more segments than that one is large,
    /// and the one that is written to, before another would be in force. It holds two at least: a
    /// snapshot ends somewhere in a segment.
    fn log_presses(&self, last: SnapshotId) -> bool {
        let segment_bytes = self.options.segment_bytes;
        let may = (last.bytes / segment_bytes + 1).max(2);
        let meanwhile = self.snapshots.grown_meanwhile + last.bytes / SPARE_PART;
        let (held, room) = self.wal.segments_behind(last.position.index);
        held + meanwhile.saturating_sub(room).div_ceil(segment_bytes) > may
    }

    fn begin_snapshot(&mut self, now: Instant) {
        let Stage::Member(raft) = &self.stage else { return };
        let index = self.store.applied();
        let term = raft.term_at(index).expect("what was just applied is in the log");
        let at = raft.configuration_at(index).0;
        let configuration = if at > self.wal.base().index {
            match self.wal.payload(at, &mut self.scratch.payload) {
                Ok(payload) => (at, payload.to_vec()),
                Err(damage) => {
                    return log::error!("cannot read a configuration index={at} why={damage}");
                }
            }
        } else {
            let known = self.snapshots.configuration.clone();
            known.expect("a log that begins behind its configuration has a snapshot")
        };
        self.snapshots.configuration_next = Some(configuration.clone());
        self.wal.begin_draft(LogPosition::new(term, index), configuration);
        let checkpoint = self.store.begin_checkpoint();
        let last_bytes = self.wal.snapshot().map(|source| source.id.bytes).unwrap_or_default();
        let grown = self.wal.growth();
        let hurry_at = grown + last_bytes / UNHURRIED_PART;
        let block = Vec::new();
        self.snapshots.drafting = Some(Drafting { checkpoint, block, slice_at: now, hurry_at });
        self.snapshots.grown_before = grown;
        self.snapshots.next_at = now.after_ns(self.options.snapshots.interval_ns);
    }

    pub(super) fn end_drafting(&mut self) {
        if let Some(drafting) = self.snapshots.drafting.take() {
            let aside = self.store.end_checkpoint(drafting.checkpoint);
            self.wal.drop_in_background(Box::new(aside));
        }
    }

    /// A block of ours is written: the cursor may go on.
    pub(super) fn on_draft_stored(&mut self, now: Instant) {
        if let Some(drafting) = &mut self.snapshots.drafting {
            drafting.slice_at = drafting.slice_at.min(now);
        }
    }

    /// Ours is whole and in place.
    pub(super) fn on_draft_ready(&mut self, id: SnapshotId) {
        self.snapshots.ready = Some(id);
    }

    /// Ours comes into force, and the log before it can go. What is committed by others may be
    /// applied before it is durable here, and a disk that is always behind theirs is so with all
    /// that is applied: a snapshot is made meanwhile, and then waits for what it stands for.
    fn adopt_ready(&mut self) {
        let Stage::Member(raft) = &self.stage else { return };
        let durable = raft.durable();
        let ready = &mut self.snapshots.ready;
        let Some(id) = ready.take_if(|id| id.position.index <= durable) else { return };
        let (node, floor) = (self.identity.node, self.compaction_floor(id));
        log::info!("made a snapshot node={node} id={id} floor={floor}");
        let grown = self.wal.growth().saturating_sub(self.snapshots.grown_before);
        self.snapshots.grown_meanwhile = grown;
        self.wal.adopt_draft(floor);
        let next = self.snapshots.configuration_next.take();
        self.snapshots.configuration = Some(next.expect("it was noted when this one was begun"));
        self.snapshots.worth = Worth::Sound;
    }

    /// Ours could not be written. The old one stays, and after a while another attempt is made.
    pub(super) fn on_draft_failed(&mut self, why: &str, now: Instant) {
        log::warn!("cannot make a snapshot node={} why={why}", self.identity.node);
        self.end_drafting();
        self.refuse_saves(why);
        self.snapshots.next_at = now.after_ns(self.options.snapshots.interval_ns);
        self.snapshots.paused_until = Some(now.after_ns(PAUSE_NS));
    }

    /// Up to where the log may be compacted now that `id` is in force. What a follower is just
    /// being sent stays, within bounds: else a slow transfer would never end, since the log that
    /// goes on from it would be gone; and if the disk is full, nothing stays.
    fn compaction_floor(&self, id: SnapshotId) -> LogIndex {
        let index = id.position.index;
        let Stage::Member(raft) = &self.stage else { return index };
        if self.wal.out_of_space() {
            return index;
        }
        let bound = id.bytes.max(2 * self.options.segment_bytes);
        let near =
            |index: &LogIndex| *index >= raft.base().index && raft.bytes_since(*index) <= bound;
        let behind = self.all_sent().chain(raft.entries_wanted_behind());
        behind.filter(near).fold(index, LogIndex::min)
    }
}

/// How much the log grows by before the next snapshot is due, after one of `bytes` and if it is to
/// grow by `meanwhile` until that one is in force. Bytes.
fn growth_wanted(bytes: u64, meanwhile: u64) -> u64 {
    let room = (bytes - bytes / SPARE_PART).saturating_sub(meanwhile);
    room.clamp(least_growth(bytes), bytes / 2)
}

/// How much it must grow by in any case, after a snapshot of `bytes`. Bytes.
fn least_growth(bytes: u64) -> u64 {
    bytes / 4
}

/// The store that the data directory stands for before its log: loaded, or empty. Blocks.
pub(super) fn restore(
    recovered: &mut Recovered,
    options: kv::StoreOptions,
) -> Result<(Store, Snapshots), OpenError> {
    let Some(source) = &recovered.snapshot else {
        let worth = if recovered.diverged { Worth::Distrusted } else { Worth::Sound };
        return Ok((Store::new(options), Snapshots { worth, ..Snapshots::default() }));
    };
    let (store, head) = load_snapshot(source, options)?;
    let ours =
        (head.cluster_id, head.genesis) == (recovered.identity.cluster_id, recovered.genesis);
    let unfounded = head.genesis == 0 && recovered.last == head.position;
    let known = (head.configuration_index, head.configuration);
    // The core wants them from the snapshot's on, though the log may begin earlier.
    recovered.configurations.retain(|(index, _)| *index > known.0);
    recovered.configurations.insert(0, known.clone());
    let configuration = Some(known);
    let worth = if recovered.diverged { Worth::Distrusted } else { Worth::foreign_if(!ours) };
    Ok((store, Snapshots { configuration, worth, unfounded, ..Snapshots::default() }))
}

/// Loads a snapshot and checks all that is in it. Blocks: for the start, and for whoever looks at a
/// file offline.
pub fn load_snapshot(
    source: &SnapshotSource,
    options: kv::StoreOptions,
) -> Result<(Store, SnapshotHead), OpenError> {
    let mut loading = Loading::new(options);
    let io = |error| source.unreadable(error);
    let read = source.read(&mut |block| {
        drop(loading.push(block));
        while loading.step(ALL)? == Sliced::More {}
        drop(loading.take_retired());
        Ok(())
    });
    read.map_err(io)?.map_err(|damage| source.damaged(damage))?;
    let (head, store) = loading.into_parts();
    match (head, store) {
        (Some(head), Some(store)) => Ok((*store, head)),
        _ => Err(source.damaged(SnapshotDamage::of("it ends too early"))),
    }
}

const ALL: SliceLimits = SliceLimits { steps: usize::MAX, bytes: usize::MAX };

/// A store on its way out of blocks, a slice at a time.
pub(super) struct Loading {
    options: kv::StoreOptions,
    head: Option<SnapshotHead>,
    loader: Option<Loader>,
    block: Vec<u8>,
    at: usize,
    ended: bool,
    store: Option<Box<Store>>,
}

impl Loading {
    pub(super) fn new(options: kv::StoreOptions) -> Loading {
        Loading {
            options,
            head: None,
            loader: None,
            block: Vec::new(),
            at: 0,
            ended: false,
            store: None,
        }
    }

    pub(super) fn head(&self) -> Option<&SnapshotHead> {
        self.head.as_ref()
    }

    /// Whether all blocks are in the store.
    pub(super) fn is_complete(&self) -> bool {
        self.store.is_some()
    }

    /// The next block; `step` said `Done` to the one before, whose buffer is returned.
    pub(super) fn push(&mut self, block: Block) -> Vec<u8> {
        assert!(self.at == self.block.len(), "the block before is loaded");
        self.at = 0;
        let spent = std::mem::take(&mut self.block);
        match block {
            Block::Head(head) => {
                self.loader = Some(Loader::new(self.options, head.position.index));
                self.head = Some(head);
            }
            Block::Data(bytes) => self.block = bytes,
            Block::End { .. } => self.ended = true,
        }
        spent
    }

    /// Loads a slice of what was pushed; `Done` when another block is wanted, or none is.
    pub(super) fn step(&mut self, limits: SliceLimits) -> Result<Sliced, SnapshotDamage> {
        let bad = |_: CheckpointError| SnapshotDamage::of("its checkpoint cannot be loaded");
        let Some(loader) = &mut self.loader else { return Ok(Sliced::Done) };
        if self.at < self.block.len() {
            self.at += loader.read(&self.block[self.at..], limits).map_err(bad)?;
            let rest = self.at < self.block.len();
            return Ok(if rest { Sliced::More } else { Sliced::Done });
        }
        if self.ended && loader.settle(limits).map_err(bad)? == Sliced::More {
            return Ok(Sliced::More);
        }
        if self.ended
            && let Some(loader) = self.loader.take()
        {
            self.store = Some(Box::new(loader.into_store()));
        }
        Ok(Sliced::Done)
    }

    /// What the store has outgrown so far, and takes long to give back.
    pub(super) fn take_retired(&mut self) -> Option<Box<dyn Any + Send>> {
        self.loader.as_mut().and_then(Loader::take_retired)
    }

    pub(super) fn into_parts(self) -> (Option<SnapshotHead>, Option<Box<Store>>) {
        (self.head, self.store)
    }
}

/// When the slice after one at `now` is due.
pub(super) fn next_slice(now: Instant) -> Instant {
    now.after_ns(SLICE_PERIOD_NS)
}

#[cfg(test)]
mod tests {
    use super::growth_wanted;

    #[test]
    fn a_snapshot_begins_so_early_that_the_log_stays_below_one() {
        assert_eq!(growth_wanted(0, 0), 0);
        assert_eq!(growth_wanted(800, 0), 400, "half, on a disk that follows");
        assert_eq!(growth_wanted(800, 300), 400);
        assert_eq!(growth_wanted(800, 400), 300, "and with an eighth to spare below the whole");
        assert_eq!(growth_wanted(800, 500), 200);
        assert_eq!(growth_wanted(800, u64::MAX), 200, "but never for less than a quarter");
    }
}
