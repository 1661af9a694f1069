//! The snapshot in force, those on their way, and the switch from one to another.
//!
//! ```text
//! 1  the new file is written or received, read back, found whole, named .snap, its directory
//!    synced
//! 2  the hard state names it, and where the log begins that goes on from it      one sync job
//! 3  only now: the segments before that, and the old snapshot, are removed
//! ```
//!
//! A crash before 2 leaves the old snapshot with its log, and a file that nobody names; a crash
//! behind 2 the new one, and files that the next start removes. There is no third state: 2 is one
//! sector of the hard state.
//!
//! A snapshot that is installed in place of a log that differs goes the same way, but the log
//! begins anew in the next spare. What is appended meanwhile is in later operations of the same
//! job, or in later jobs, so nothing stands in that spare that the hard state does not vouch for.

use super::directory::{LOG, segment_name};
use super::disk::Disk;
use super::files::{FileDone, FileJob, FileOutcome, FileStep, Garbage, Purpose};
use super::identity::Identity;
use super::segment::Segment;
use super::snapshot_draft::Draft;
use super::snapshot_event::{Piece, PieceFor, SnapshotEvent};
use super::snapshot_file::{
    Block, SNAP, SnapshotCheck, SnapshotHead, part_name, snapshot_name, stands_for_at_most,
};
use super::snapshot_part::Part;
use super::snapshot_source::SnapshotSource;
use super::{Mark, Wal};
use crate::limits;
use crate::types::{ClusterId, JobSeq, LogIndex, LogPosition, SnapshotId};
use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

/// A switch to another snapshot on its way to the disk.
struct Switch {
    /// The job that carries it, once formed.
    seq: Option<JobSeq>,
    source: SnapshotSource,
    /// Where the log begins then, if it is not replaced.
    begin: Option<(u32, LogPosition)>,
    /// What is removed afterwards.
    dead: Vec<Arc<Segment>>,
}

/// Work asked for by another server or a client.
struct PieceRequest {
    to: PieceFor,
    source: SnapshotSource,
    offset: u64,
    len: usize,
    /// None while it is being done.
    check: Option<Box<SnapshotCheck>>,
}

impl PieceRequest {
    fn steps(&mut self) -> Vec<FileStep> {
        let check = self.check.take().map(FileStep::Check);
        [FileStep::Read(self.offset, self.len)].into_iter().chain(check).collect()
    }
}

/// Files that nobody needs any more, and what is freed with them.
struct Removal {
    steps: Vec<FileStep>,
    garbage: Garbage,
}

/// All of it that is bookkeeping.
pub(super) struct Snapshots {
    disk: Arc<dyn Disk>,
    cluster_id: ClusterId,
    current: Option<SnapshotSource>,
    draft: Option<Draft>,
    part: Option<Part>,
    pieces: VecDeque<PieceRequest>,
    /// For clients: they and the next draft take turns, and wait for the rest.
    readings: VecDeque<PieceRequest>,
    /// The turn was the draft's.
    drafted: bool,
    removals: VecDeque<Removal>,
    /// What an earlier process received of snapshots: names of files.
    left_over: Vec<String>,
    /// The job in flight; its owner may have been given up meanwhile.
    in_flight: Option<(Purpose, bool)>,
    switch: Option<Switch>,
    /// The log was compacted up to here since it was last asked.
    compacted: Option<LogPosition>,
    spare_wanted: bool,
    /// Bytes of log written since the snapshot in force was begun, and since the one under way was.
    growth: u64,
    growth_of_next: u64,
}

impl Snapshots {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        identity: Identity,
        current: Option<SnapshotSource>,
        left_over: Vec<String>,
    ) -> Snapshots {
        Snapshots {
            disk,
            cluster_id: identity.cluster_id,
            current,
            draft: None,
            part: None,
            pieces: VecDeque::new(),
            readings: VecDeque::new(),
            drafted: false,
            removals: VecDeque::new(),
            left_over,
            in_flight: None,
            switch: None,
            compacted: None,
            spare_wanted: false,
            growth: 0,
            growth_of_next: 0,
        }
    }

    /// Snapshots are made for this cluster from now on.
    pub(super) fn set_cluster_id(&mut self, cluster_id: ClusterId) {
        self.cluster_id = cluster_id;
    }

    /// So many bytes of log were written.
    pub(super) fn log_grew(&mut self, bytes: u64) {
        self.growth += bytes;
        self.growth_of_next += bytes;
    }

    /// A snapshot that is to replace the log waits for a segment.
    pub(super) fn wants_spare(&self) -> bool {
        self.spare_wanted
    }

    fn remove(&mut self, directory: &'static str, names: Vec<String>, garbage: Garbage) {
        let removals = names.into_iter().map(FileStep::Remove);
        let steps = removals.chain([FileStep::SyncDirectory(directory)]).collect();
        self.removals.push_back(Removal { steps, garbage });
    }

    /// The next job, if one is due. Whoever waits for another server comes first.
    pub(super) fn job(&mut self) -> Option<FileJob> {
        if self.in_flight.is_some() {
            return None;
        }
        let job = self.next_job()?;
        self.in_flight = Some((job.purpose, true));
        Some(job)
    }

    fn next_job(&mut self) -> Option<FileJob> {
        let disk = Arc::clone(&self.disk);
        let job = |purpose, file, steps, garbage| {
            Some(FileJob { disk: Arc::clone(&disk), purpose, file, steps, garbage })
        };
        if let Some(request) = self.pieces.front_mut() {
            let file = Some(Arc::clone(&request.source.file));
            return job(Purpose::Piece, file, request.steps(), Vec::new());
        }
        if let Some(part) = &mut self.part
            && let Some(steps) = part.steps()
        {
            return job(Purpose::Part, part.file(), steps, part.garbage());
        }
        // Before the next draft: where there is always one, nothing would ever be removed.
        if let Some(Removal { steps, garbage }) = self.removals.pop_front() {
            return Some(FileJob { disk, purpose: Purpose::Removal, file: None, steps, garbage });
        }
        let drafts = self.readings.is_empty() || !std::mem::take(&mut self.drafted);
        if let Some(draft) = self.draft.as_mut().filter(|_| drafts)
            && let Some(steps) = draft.steps()
        {
            self.drafted = true;
            return job(Purpose::Draft, draft.file(), steps, draft.garbage());
        }
        let request = self.readings.front_mut()?;
        let file = Some(Arc::clone(&request.source.file));
        job(Purpose::Reading, file, request.steps(), Vec::new())
    }

    /// Takes note of a job that was run.
    pub(super) fn done(&mut self, done: FileDone) -> Option<SnapshotEvent> {
        let (purpose, wanted) = self.in_flight.take().expect("a result comes from a job");
        assert_eq!(purpose, done.purpose);
        match purpose {
            // What was not removed is removed at the next start.
            Purpose::Removal => None,
            Purpose::Piece => piece_done(self.pieces.pop_front()?, done),
            Purpose::Reading => piece_done(self.readings.pop_front()?, done),
            Purpose::Draft if wanted => Some(self.draft_done(done)),
            Purpose::Part if wanted => self.part_done(done),
            Purpose::Draft | Purpose::Part => {
                self.drop_in_background(Box::new(done.outcome));
                None
            }
        }
    }

    fn drop_in_background(&mut self, garbage: Box<dyn Any + Send>) {
        self.removals.push_back(Removal { steps: Vec::new(), garbage: vec![garbage] });
    }

    fn draft_done(&mut self, done: FileDone) -> SnapshotEvent {
        let draft = self.draft.as_mut().expect("its job is wanted");
        let outcome = done.outcome.map_err(|error| error.to_string());
        match outcome.and_then(|it| draft.done(it).map_err(|damage| damage.to_string())) {
            Ok(None) => SnapshotEvent::DraftStored,
            Ok(Some(id)) => {
                let file = self.draft.take().and_then(|draft| draft.file());
                let file = file.expect("it was opened in its place");
                // In place of nothing yet: `adopt_draft` takes it from here.
                self.switch = Some(Switch {
                    seq: None,
                    source: SnapshotSource::new(&*self.disk, id, file),
                    begin: None,
                    dead: Vec::new(),
                });
                SnapshotEvent::DraftReady { id }
            }
            Err(why) => {
                self.abandon_draft();
                SnapshotEvent::DraftFailed { why }
            }
        }
    }

    fn part_done(&mut self, done: FileDone) -> Option<SnapshotEvent> {
        let part = self.part.as_mut().expect("its job is wanted");
        let id = part.id;
        let outcome = done.outcome.map_err(|error| error.to_string());
        match outcome.and_then(|it| part.done(it).map_err(|damage| damage.to_string())) {
            Ok(event) => event,
            Err(why) => {
                self.abandon_part();
                Some(SnapshotEvent::PartFailed { id, why })
            }
        }
    }

    fn abandon_draft(&mut self) {
        if let Some(draft) = self.draft.take() {
            self.disown(Purpose::Draft);
            let mut names = vec![draft.unfinished()];
            // It may just get its name, or have got it before something failed.
            names.extend(draft.id().and_then(|id| self.unneeded(id)));
            self.remove(SNAP, names, vec![Box::new(draft)]);
        }
    }

    /// What is there of this snapshot is wanted, though it was given up before; of others not.
    fn keep_part(&mut self, id: SnapshotId) {
        let wanted = [part_name(id), snapshot_name(id)];
        for removal in &mut self.removals {
            removal
                .steps
                .retain(|step| !matches!(step, FileStep::Remove(name) if wanted.contains(name)));
        }
        let mut others = std::mem::take(&mut self.left_over);
        others.retain(|name| !wanted.contains(name));
        if !others.is_empty() {
            self.remove(SNAP, others, Vec::new());
        }
    }

    /// Nobody sends the snapshots up to `in_force` any more of which an earlier process received a
    /// part: the log has brought what they stand for. The next start would remove it too.
    fn drop_overtaken(&mut self, in_force: LogIndex) {
        let overtaken = |name: &mut String| stands_for_at_most(name, in_force);
        let names: Vec<_> = self.left_over.extract_if(.., overtaken).collect();
        if !names.is_empty() {
            self.remove(SNAP, names, Vec::new());
        }
    }

    fn abandon_part(&mut self) {
        if let Some(part) = self.part.take() {
            self.disown(Purpose::Part);
            let mut names = vec![part.unfinished()];
            names.extend(self.unneeded(part.id));
            self.remove(SNAP, names, vec![Box::new(part)]);
        }
    }

    /// The file of a snapshot that is given up, unless another one has or is about to get that
    /// name: equal states make equal files.
    fn unneeded(&self, id: SnapshotId) -> Option<String> {
        let switch = self.switch.as_ref().map(|switch| switch.source.id);
        let in_place = self.current.as_ref().map(|source| source.id).into_iter().chain(switch);
        let drafted = self.draft.as_ref().and_then(Draft::id);
        let received = self.part.as_ref().map(|part| part.id);
        let mut needed = in_place.chain(drafted).chain(received);
        needed.all(|it| it != id).then(|| snapshot_name(id))
    }

    fn disown(&mut self, purpose: Purpose) {
        if let Some((running, wanted)) = &mut self.in_flight
            && *running == purpose
        {
            *wanted = false;
        }
    }
}

fn piece_done(request: PieceRequest, done: FileDone) -> Option<SnapshotEvent> {
    let PieceRequest { to, source, offset, .. } = request;
    let FileOutcome { bytes, check, .. } = done.outcome.unwrap_or_default();
    let check = check.map(|check| *check);
    Some(SnapshotEvent::Piece { to, piece: Piece { id: source.id, offset, bytes, check } })
}

/// Our own snapshots.
impl Wal {
    /// The snapshot in force.
    pub fn snapshot(&self) -> Option<&SnapshotSource> {
        self.snapshots.current.as_ref()
    }

    /// The snapshot that the hard state names, as it is to be written next; the zero one if none.
    pub fn noted_snapshot(&self) -> SnapshotId {
        self.wanted.snapshot
    }

    /// Bytes of log on the disk since the snapshot in force was begun; since the log began, after a
    /// restart.
    pub fn growth(&self) -> u64 {
        self.snapshots.growth
    }

    /// Whether a snapshot is being written, received or switched to.
    pub fn snapshot_under_way(&self) -> bool {
        let it = &self.snapshots;
        it.draft.is_some() || it.switch.is_some()
    }

    /// Begins a snapshot of everything up to `position`, which must be committed, and durable
    /// before `adopt_draft`; with the payload of the configuration that is in force there.
    pub fn begin_draft(&mut self, position: LogPosition, configuration: (LogIndex, Vec<u8>)) {
        assert!(!self.snapshot_under_way(), "one snapshot at a time");
        assert_eq!(self.term_at(position.index), position.term);
        let (configuration_index, configuration) = configuration;
        assert!(configuration_index <= position.index);
        let head = SnapshotHead {
            cluster_id: self.snapshots.cluster_id,
            genesis: self.wanted.genesis,
            position,
            configuration_index,
            configuration,
        };
        self.snapshots.growth_of_next = 0;
        self.snapshots.draft = Some(Draft::begin(head));
    }

    /// How many of its blocks wait for the disk; `None` if no snapshot is being written.
    pub fn draft_backlog(&self) -> Option<usize> {
        self.snapshots.draft.as_ref().map(Draft::backlog)
    }

    /// The next block of its checkpoint; an empty buffer takes its place. Panics if none is being
    /// written.
    pub fn push_draft(&mut self, payload: &mut Vec<u8>) {
        self.snapshots.draft.as_mut().expect("a snapshot is being written").push(payload);
    }

    /// That was the last block.
    pub fn end_draft(&mut self) {
        self.snapshots.draft.as_mut().expect("a snapshot is being written").end();
    }

    /// Gives up the snapshot that is being written, or was and is not in force, if there is one.
    pub fn abandon_draft(&mut self) {
        self.snapshots.abandon_draft();
        let (wanted, current) = (self.wanted.snapshot, self.snapshots.current.as_ref());
        let again = current.is_some_and(|source| source.id == wanted);
        let idle =
            |switch: &mut Switch| switch.seq.is_none() && (again || switch.source.id != wanted);
        if let Some(switch) = self.snapshots.switch.take_if(idle) {
            if switch.source.id == wanted {
                self.snapshots.current = Some(switch.source);
            } else if let Some(name) = self.snapshots.unneeded(switch.source.id) {
                self.snapshots.remove(SNAP, vec![name], Vec::new());
            }
        }
    }

    /// The snapshot that was just written comes into force with the next job, and the log will
    /// begin where it can, but not behind `floor`: entries after that are still needed. One of the
    /// same name has taken the place of a file that had rotted, and is in force at once.
    pub fn adopt_draft(&mut self, floor: LogIndex) {
        let same = |switch: &mut Switch| switch.source.id == self.wanted.snapshot;
        if let Some(switch) = self.snapshots.switch.take_if(same) {
            self.snapshots.current = Some(switch.source);
            return;
        }
        let switch = self.snapshots.switch.as_mut().expect("DraftReady came before");
        assert!(switch.seq.is_none(), "adopted once");
        let id = switch.source.id;
        self.snapshots.growth = self.snapshots.growth_of_next;
        switch.begin = self.directory.beginning_at(floor.min(id.position.index), id.bytes);
        self.wanted.snapshot = id;
        if let Some((first, base)) = switch.begin {
            (self.wanted.first_segment, self.wanted.base) = (first, base);
        }
    }

    /// Whether a job is due for the sake of a switch, or of what the state is worth.
    pub fn switch_due(&self) -> bool {
        let (wanted, written) = (&self.wanted, self.hard_state.written());
        wanted.snapshot != written.snapshot || wanted.diverged != written.diverged
    }

    /// A job was formed: it carries the switch that is wanted.
    pub(super) fn switch_dispatched(&mut self, seq: JobSeq) {
        if let Some(switch) = &mut self.snapshots.switch
            && self.wanted.snapshot == switch.source.id
        {
            switch.seq.get_or_insert(seq);
        }
    }

    /// Job `seq` is durable: if it carried a switch, what the old snapshot needed can go.
    pub(super) fn switched(&mut self, seq: JobSeq) {
        let done = |switch: &mut Switch| switch.seq.is_some_and(|carrier| carrier <= seq);
        let Some(switch) = self.snapshots.switch.take_if(done) else { return };
        let mut dead = switch.dead;
        if let Some((first, base)) = switch.begin {
            let gone = usize::try_from(base.index.count_since(self.base.index));
            self.entries.drain(..gone.expect("entries in memory are fewer than addresses"));
            self.base = base;
            dead.extend(self.directory.begin_at(first));
            self.staging.begin_at(first);
            self.snapshots.compacted = Some(base);
        }
        let names = dead.iter().map(|segment| segment_name(segment.seq)).collect();
        let free = |segment| -> Box<dyn Any + Send> { Box::new(segment) };
        let garbage = dead.into_iter().map(free).collect();
        self.snapshots.remove(LOG, names, garbage);
        let in_force = switch.source.id.position.index;
        let old = self.snapshots.current.replace(switch.source);
        self.snapshots.drop_overtaken(in_force);
        if let Some(old) = old
            && old.id != self.wanted.snapshot
            && let Some(name) = self.snapshots.unneeded(old.id)
        {
            self.snapshots.remove(SNAP, vec![name], Vec::new());
        }
    }

    /// Up to where the log was compacted, if it was since the last call: the core must forget it
    /// too.
    pub fn take_compacted(&mut self) -> Option<LogPosition> {
        self.snapshots.compacted.take()
    }

    /// Frees something large where it stops nobody.
    pub fn drop_in_background(&mut self, garbage: Box<dyn Any + Send>) {
        self.snapshots.drop_in_background(garbage);
    }

    /// Asks for a piece of a snapshot; it comes as an event, and `check` with it, which has looked
    /// at the piece.
    pub fn read_piece(
        &mut self,
        to: PieceFor,
        source: &SnapshotSource,
        (offset, len): (u64, usize),
        check: Option<SnapshotCheck>,
    ) {
        let queue = match to {
            PieceFor::Member(_) => &mut self.snapshots.pieces,
            PieceFor::Client(_) => &mut self.snapshots.readings,
        };
        let (source, check) = (source.clone(), check.map(Box::new));
        queue.push_back(PieceRequest { to, source, offset, len, check });
    }
}

/// Snapshots of others.
impl Wal {
    /// Begins to receive this snapshot, or goes on: how much of it is durable comes as an event.
    /// What was received of another one is given up.
    pub fn begin_part(&mut self, id: SnapshotId) {
        if self.snapshots.part.as_ref().is_some_and(|part| part.id == id) {
            return;
        }
        self.snapshots.abandon_part();
        self.snapshots.keep_part(id);
        self.snapshots.part = Some(Part::begin(id));
    }

    /// The snapshot that is being received, and how much of it is durable, once that is known.
    pub fn part(&self) -> Option<(SnapshotId, Option<u64>)> {
        self.snapshots.part.as_ref().map(|part| (part.id, part.stored()))
    }

    /// A piece of it. Says no to one that does not follow, and to more than may wait.
    pub fn push_part(&mut self, offset: u64, piece: &[u8]) -> bool {
        let max = usize::try_from(limits::SNAPSHOT_PIECES_IN_FLIGHT_MAX).expect("a few");
        let part = self.snapshots.part.as_mut();
        part.is_some_and(|part| part.push(offset, piece, max))
    }

    /// A block of it, found whole.
    pub fn take_block(&mut self) -> Option<Block> {
        self.snapshots.part.as_mut().and_then(Part::take_block)
    }

    /// A block that was taken and is not needed any more is freed in the background.
    pub fn free_block(&mut self, block: Vec<u8>) {
        if let Some(part) = &mut self.snapshots.part {
            part.free(block);
        }
    }

    /// All blocks are good: it is put in place, which comes as an event.
    pub fn accept_part(&mut self) {
        self.snapshots.part.as_mut().expect("its blocks were taken").accept();
    }

    /// Gives up the snapshot that is being received, if there is one.
    pub fn abandon_part(&mut self) {
        self.snapshots.abandon_part();
    }

    /// Whether a received snapshot can be installed now: no other switch is under way, and if the
    /// log is to be replaced, a spare is ready. It asks for one.
    pub fn can_install(&mut self, replaces_log: bool) -> bool {
        self.snapshots.spare_wanted = replaces_log && self.directory.spare_count() == 0;
        !self.snapshots.spare_wanted && self.snapshots.switch.is_none()
    }

    /// The snapshot received comes into force with the next job. `replaces_log`: all entries go,
    /// and the log begins behind it. Panics unless `PartReady` came and `can_install` said yes.
    pub fn install_part(&mut self, replaces_log: bool) {
        // Before it is taken: a draft of the same name leaves the file.
        self.snapshots.abandon_draft();
        let part = self.snapshots.part.take().expect("PartReady came before");
        assert!(part.is_ready() && self.snapshots.switch.is_none());
        let id = part.id;
        let file = part.file().expect("it was written to");
        let mut switch = Switch {
            seq: None,
            source: SnapshotSource::new(&*self.disk, id, file),
            begin: None,
            dead: Vec::new(),
        };
        self.wanted.diverged = false;
        if id == self.wanted.snapshot {
            // The same bytes came anew: what they were made of was sound.
            self.snapshots.current = Some(switch.source);
            return;
        }
        self.wanted.snapshot = id;
        if replaces_log {
            switch.dead = self.directory.replace(id.position);
            let first = self.directory.first_seq();
            self.entries.clear();
            self.base = id.position;
            self.staging.restart((first, 0));
            self.synced = self.directory.end();
            self.durable_last = id.position;
            self.mark = Mark::Covered;
            self.rotated = false;
            (self.wanted.first_segment, self.wanted.base) = (first, id.position);
        } else {
            assert_eq!(self.term_at(id.position.index), id.position.term);
            switch.begin = self.directory.beginning_at(id.position.index, id.bytes);
            if let Some((first, base)) = switch.begin {
                (self.wanted.first_segment, self.wanted.base) = (first, base);
            }
        }
        self.commit = self.commit.max(id.position.index);
        self.snapshots.growth = 0;
        self.snapshots.switch = Some(switch);
    }
}
