//! What a disk does to data that it had promised to keep: a bit rots, a write lands elsewhere.
//!
//! The atlas (`faults/damage.rs`) sees to it that a minority of the machines is ever damaged for
//! good, so that a good copy of everything remains. What was there before is kept, to tell whether
//! it is still wrong. Damage never leaves a sector of zeros at the log's end:
//! there it could not be told from a write that never happened, and no single disk can.

use super::content::{PAGE, SECTOR};
use super::{Role, SimDisk, State};
use crate::chance::usize_of;
use std::ops::RangeBounds;

/// What was damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Damage {
    /// A bit of a record in the log.
    LogBit,
    /// A bit of an entry in one of its last batches.
    LogTail,
    /// A sector of the log holds what belongs elsewhere.
    Misdirected,
    /// One of the two copies of the hard state.
    HardStateCopy,
    /// One of the two headers of a segment.
    SegmentHeader,
    /// A bit of the snapshot in force.
    SnapshotBit,
    /// A sector of it holds what belongs elsewhere.
    SnapshotSector,
    /// A bit of a snapshot that is being received.
    PartBit,
}

impl SimDisk {
    /// Damages something that a sync covered. `None` if there is nothing of that kind.
    pub(crate) fn damage(&self, damage: Damage) -> Option<Damage> {
        let mut state = self.state();
        match damage {
            Damage::LogBit => state.rot_log(),
            Damage::LogTail => state.rot_tail(),
            Damage::Misdirected => state.misdirect(),
            Damage::HardStateCopy => state.rot_hard_state(),
            Damage::SegmentHeader => state.rot_header(),
            Damage::SnapshotBit => state.rot_snapshot(),
            Damage::SnapshotSector => state.misdirect_snapshot(),
            Damage::PartBit => state.rot_part(),
        }
        .then_some(damage)
    }
}

impl State {
    /// A segment with records, its file, and where they end.
    fn segment(&mut self) -> Option<(usize, usize)> {
        let with_records: Vec<(usize, usize)> = self
            .names
            .iter()
            .filter_map(|(name, file)| match Role::of(name) {
                Role::Segment(segment) => Some((*file, self.platter.filled(segment))),
                Role::HardState(_) | Role::Draft | Role::Part | Role::Other => None,
            })
            .filter(|(_, end)| *end > 2 * PAGE)
            .collect();
        (!with_records.is_empty()).then(|| self.faults.pick(&with_records))
    }

    fn flip(&mut self, file: usize, offset: usize) -> bool {
        let bit = self.faults.below(8);
        let content = &mut self.files[file];
        if !content.has_platter_page(offset / PAGE) {
            return false;
        }
        let mut right = Vec::new();
        content.read_platter(offset, 1, &mut right);
        content.corrupt(offset, |byte| *byte ^= 1 << bit);
        self.rotten.entry(file).or_default().push((offset, right));
        true
    }

    /// Whether a file is still as damage left it, somewhere there.
    fn is_rotten_in(&self, file: usize, there: impl RangeBounds<usize>) -> bool {
        self.rotten.get(&file).into_iter().flatten().any(|(at, right)| {
            let mut now = Vec::new();
            self.files[file].read_platter(*at, right.len(), &mut now);
            there.contains(at) && now != *right
        })
    }

    pub(super) fn is_rotten(&self, file: usize) -> bool {
        self.is_rotten_in(file, ..)
    }

    /// Whether the headers of any segment are.
    pub(super) fn is_header_rotten(&self) -> bool {
        self.segments().any(|file| self.is_rotten_in(file, ..2 * PAGE))
    }

    /// Whether any segment is, beside its headers.
    pub(super) fn is_log_rotten(&self) -> bool {
        self.segments().any(|file| self.is_rotten_in(file, 2 * PAGE..))
    }

    fn segments(&self) -> impl Iterator<Item = usize> {
        let is = |name: &str| matches!(Role::of(name), Role::Segment(_));
        self.names.iter().filter(move |(name, _)| is(name)).map(|(_, file)| *file)
    }

    fn rot_log(&mut self) -> bool {
        let Some((file, end)) = self.segment() else { return false };
        let offset = 2 * PAGE + self.faults.index(end - 2 * PAGE);
        self.flip(file, offset)
    }

    /// A batch begins on a page, and its first record is an entry as a rule.
    fn rot_tail(&mut self) -> bool {
        let newest = self.names.iter().filter_map(|(name, file)| match Role::of(name) {
            Role::Segment(segment) => Some((segment, *file, self.platter.filled(segment))),
            Role::HardState(_) | Role::Draft | Role::Part | Role::Other => None,
        });
        let newest = newest.filter(|(_, _, end)| *end > 2 * PAGE).max();
        let Some((_, file, end)) = newest else { return false };
        let pages = (end / PAGE - 2).min(8);
        if pages == 0 {
            return false;
        }
        let page = end / PAGE - 1 - self.faults.index(pages);
        let offset = page * PAGE + 64 + self.faults.index(24);
        self.flip(file, offset)
    }

    fn rot_hard_state(&mut self) -> bool {
        let copy = if self.faults.one_in(2) { "hs.0" } else { "hs.1" };
        let Some(file) = self.names.get(copy).copied() else { return false };
        let slot = usize_of(self.faults.below(2)) * PAGE;
        let offset = slot + self.faults.index(128);
        self.flip(file, offset)
    }

    fn rot_header(&mut self) -> bool {
        let Some((file, _)) = self.segment() else { return false };
        let offset = self.faults.index(2) * PAGE + self.faults.index(96);
        self.flip(file, offset)
    }

    /// Puts a sector of one place into another.
    fn misdirect(&mut self) -> bool {
        let (Some((from, from_end)), Some((to, to_end))) = (self.segment(), self.segment()) else {
            return false;
        };
        let sector = |chance: &mut crate::chance::Chance, end: usize| {
            (2 * PAGE + chance.index(end - 2 * PAGE)) / SECTOR * SECTOR
        };
        let (source, target) =
            (sector(&mut self.faults, from_end), sector(&mut self.faults, to_end));
        let (mut wrong, mut right) = (Vec::new(), Vec::new());
        self.files[from].read_platter(source, SECTOR, &mut wrong);
        self.files[to].read_platter(target, SECTOR, &mut right);
        if wrong == right || wrong.iter().all(|byte| *byte == 0) {
            return false;
        }
        self.overwrite(to, target, &wrong);
        true
    }

    fn overwrite(&mut self, file: usize, at: usize, bytes: &[u8]) {
        let mut right = Vec::new();
        self.files[file].read_platter(at, bytes.len(), &mut right);
        self.rotten.entry(file).or_default().push((at, right));
        for (nth, byte) in bytes.iter().enumerate() {
            self.files[file].corrupt(at + nth, |old| *old = *byte);
        }
    }

    fn rot_snapshot(&mut self) -> bool {
        self.snapshot_in_force().is_some_and(|file| self.rot_file(file))
    }

    fn rot_part(&mut self) -> bool {
        let part = self.names.iter().find(|(name, _)| name.ends_with(".part"));
        part.map(|(_, file)| *file).is_some_and(|file| self.rot_file(file))
    }

    fn rot_file(&mut self, file: usize) -> bool {
        let bytes = self.files[file].len();
        if bytes == 0 {
            return false;
        }
        let offset = self.faults.index(bytes);
        let hit = self.flip(file, offset);
        self.snapshot_rotted |= hit;
        hit
    }

    /// Puts a sector of a snapshot, or of the log, into another place of the snapshot.
    fn misdirect_snapshot(&mut self) -> bool {
        let Some(to) = self.snapshot_in_force() else { return false };
        let sectors = self.files[to].len() / SECTOR;
        if sectors < 2 {
            return false;
        }
        let log = if self.faults.one_in(2) { self.segment() } else { None };
        let target = self.faults.index(sectors) * SECTOR;
        let (from, source) = match log {
            Some((from, _)) => (from, 2 * PAGE),
            None => (to, self.faults.index(sectors) * SECTOR),
        };
        let (mut wrong, mut right) = (Vec::new(), Vec::new());
        self.files[from].read_platter(source, SECTOR, &mut wrong);
        self.files[to].read_platter(target, SECTOR, &mut right);
        if wrong == right {
            return false;
        }
        self.overwrite(to, target, &wrong);
        self.snapshot_rotted = true;
        true
    }
}
