//! What disks do to those who use them: they are slow, full, or fail.

use super::Fault;
use crate::coverage::Point;
use crate::disk::{Failure, Refusals};
use crate::machine::Ending;
use crate::options::SECOND;
use crate::trace::{Who, say};
use crate::world::World;

impl World {
    pub(super) fn slow_disk(&mut self) {
        let machine = self.victim();
        self.machines[machine].disk_slowness = self.faults.chance.scaled(5, 500);
        self.lasts(Fault::SlowDisk { machine }, 3 * SECOND);
    }

    /// The next operation of a kind fails: of what runs, or of the next start.
    pub(super) fn fail_disk(&mut self) {
        let machine = self.victim();
        let failure = self.faults.chance.pick(&[
            Failure::Sync,
            Failure::Sync,
            Failure::Sync,
            Failure::Directory,
            Failure::Directory,
            Failure::Write,
            Failure::Read,
        ]);
        say!(self, Who::Node(machine), "EIO", "{failure:?} is to fail");
        let it = &mut self.machines[machine];
        if it.node.is_some() {
            it.disk.fail_next(failure);
        } else {
            it.fails_at_start = Some(failure);
        }
    }

    pub(super) fn fill_disk(&mut self) {
        let machine = self.victim();
        say!(self, Who::Node(machine), "disk full", "");
        self.machines[machine].disk.set_full(true);
        if self.faults.chance.one_in(4) {
            self.end_somehow(machine, Ending::Killed);
        }
        self.lasts(Fault::FullDisk { machine }, 6 * SECOND);
    }

    /// Takes note of what found no space since it was last asked. Says whether anything did.
    pub(crate) fn note_refusals(&mut self, machine: usize) -> bool {
        let it = &mut self.machines[machine];
        let (before, now) = (it.refusals, it.disk.refusals());
        it.refusals = now;
        let more = |of: fn(&Refusals) -> u64| of(&now) > of(&before);
        self.coverage.hit_if(more(|it| it.segments), Point::DiskFull);
        self.coverage.hit_if(more(|it| it.drafts), Point::DiskFullDraft);
        self.coverage.hit_if(more(|it| it.parts), Point::DiskFullPart);
        now != before
    }

    /// A node has stopped because of its disk; which must have failed.
    pub(crate) fn note_failure(&mut self, machine: usize) {
        match self.machines[machine].disk.failed() {
            Some(Failure::Directory) => self.coverage.hit(Point::DirectoryFailed),
            Some(Failure::Write) => self.coverage.hit(Point::WriteFailed),
            Some(Failure::Sync | Failure::Read) | None => self.coverage.hit(Point::SyncFailed),
        }
    }
}
