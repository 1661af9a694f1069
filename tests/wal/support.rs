//! What the tests of the record share: options, short names, a loop that runs jobs.

use super::sim_disk::{Image, SimDisk};
use raftd::types::{
    ClusterId, DiskId, EntryKind, HardState, JobSeq, LogIndex, LogPosition, NodeId, SnapshotId,
    Term, Vote,
};
use raftd::wal::{Block, OpenError, Options, Recovered, SnapshotEvent, Wal, open};
use std::io;

pub(crate) const SEGMENT_BYTES: u64 = 64 * 1024;

pub(crate) fn options() -> Options {
    Options {
        cluster_id: Some(ClusterId(0x1122_3344)),
        token_hash: 77,
        node: node(1),
        disk_id_if_new: DiskId(0xd15c),
        boot_nonce: 0xb007,
        segment_bytes: SEGMENT_BYTES,
        salt_seed: 0x5a17,
        created_unix_ms: 1_700_000_000_000,
        entry_cache_bytes: raftd::limits::ENTRY_CACHE_BYTES,
    }
}

pub(crate) fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

pub(crate) fn index(index: u64) -> LogIndex {
    LogIndex::new(index)
}

pub(crate) fn at(index: u64, term: u64) -> LogPosition {
    LogPosition::new(Term::new(term), LogIndex::new(index))
}

pub(crate) fn hard_state(term: u64) -> HardState {
    HardState { term: Term::new(term), vote: Vote::For(node(1)) }
}

/// An open log and the number of its next job.
pub(crate) struct Driver {
    pub(crate) wal: Wal,
    pub(crate) recovered: Recovered,
    pub(crate) disk: SimDisk,
    seq: u64,
}

impl Driver {
    pub(crate) fn open(disk: &SimDisk) -> Result<Driver, OpenError> {
        let (wal, recovered) = open(disk.disk(), &options())?;
        Ok(Driver { wal, recovered, disk: disk.clone(), seq: 0 })
    }

    pub(crate) fn open_image(image: &Image) -> Result<Driver, OpenError> {
        Driver::open(&SimDisk::from_image(image, 1))
    }

    pub(crate) fn next_seq(&mut self) -> JobSeq {
        self.seq += 1;
        JobSeq(self.seq)
    }

    /// Makes everything staged durable.
    pub(crate) fn sync(&mut self, commit: u64) -> io::Result<()> {
        let seq = self.next_seq();
        if let Some(job) = self.wal.begin_job(seq, index(commit)) {
            job.run()?;
            self.wal.job_done(seq);
            self.wal.recycle(job);
        }
        Ok(())
    }

    /// Appends commands of `len` bytes in `term`.
    pub(crate) fn append(&mut self, term: u64, len: usize) {
        let next = LogPosition::new(Term::new(term), self.wal.last().index.next());
        self.wal.append(next, EntryKind::Commands, &payload(next, len));
    }

    /// Runs background steps until none is due; returns what they meant for snapshots.
    pub(crate) fn background(&mut self) -> Vec<SnapshotEvent> {
        let mut events = Vec::new();
        while let Some(job) = self.wal.background_job() {
            match self.wal.background_done(job.run()) {
                Ok(event) => events.extend(event),
                Err(_) if self.disk.is_dead() => break,
                Err(error) => panic!("{error}"),
            }
        }
        events
    }

    /// Writes a snapshot of everything up to `number`, which is not yet in force.
    pub(crate) fn draft(&mut self, number: u64) -> Option<SnapshotId> {
        let term = self.wal.meta(index(number)).unwrap().term;
        self.draft_of(number, snapshot_blocks(LogPosition::new(term, index(number))))
    }

    /// The same, of so many blocks.
    pub(crate) fn draft_of(&mut self, number: u64, blocks: Vec<Vec<u8>>) -> Option<SnapshotId> {
        let term = self.wal.meta(index(number)).unwrap().term;
        let position = LogPosition::new(term, index(number));
        self.wal.begin_draft(position, (index(1), b"configuration".to_vec()));
        for mut block in blocks {
            self.wal.push_draft(&mut block);
        }
        self.wal.end_draft();
        let ready = |event: &SnapshotEvent| match event {
            SnapshotEvent::DraftReady { id } => Some(*id),
            _ => None,
        };
        self.background().iter().find_map(ready)
    }

    /// The blocks of the snapshot in force.
    pub(crate) fn snapshot_blocks(&self) -> Result<Vec<Vec<u8>>, String> {
        let mut blocks = Vec::new();
        let source = self.wal.snapshot().ok_or("there is none")?;
        let read = source.read(&mut |block| {
            if let Block::Data(bytes) = block {
                blocks.push(bytes);
            }
            Ok(())
        });
        read.map_err(|error| error.to_string())?.map_err(|damage| damage.to_string())?;
        Ok(blocks)
    }

    /// The log as it can be read, behind its base.
    pub(crate) fn log(&self) -> Vec<LogEntry> {
        let mut scratch = Vec::new();
        let mut entries = Vec::new();
        for number in self.wal.base().index.get() + 1..=self.wal.last().index.get() {
            let info = self.wal.meta(index(number)).unwrap();
            let payload = self.wal.payload(index(number), &mut scratch).unwrap().to_vec();
            entries.push(LogEntry { term: info.term, kind: info.kind, payload });
        }
        entries
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LogEntry {
    pub(crate) term: Term,
    pub(crate) kind: EntryKind,
    pub(crate) payload: Vec<u8>,
}

/// What a snapshot of everything up to `position` holds in these tests.
pub(crate) fn snapshot_blocks(position: LogPosition) -> Vec<Vec<u8>> {
    (1..4).map(|block| payload(position, 1500 * block)).collect()
}

/// Bytes that differ from entry to entry and are never zero.
pub(crate) fn payload(position: LogPosition, len: usize) -> Vec<u8> {
    let seed = position.index.get() * 31 + position.term.get() * 7;
    let byte = |at: usize| u8::try_from((seed + u64::try_from(at).unwrap()) % 251 + 1).unwrap();
    (0..len).map(byte).collect()
}
