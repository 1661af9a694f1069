//! The servers' disks: what lies on them, and how full, slow and sound they are.

use super::Nodes;
use crate::wal::sim_disk::{Image, SimDisk};

impl Nodes {
    /// What lies on the disk of a machine that is down.
    pub(in crate::raft) fn image(&mut self, nth: usize) -> Image {
        self.machine(nth).disk.image()
    }

    /// Puts another disk into a machine that is down.
    pub(in crate::raft) fn replace_disk(&mut self, nth: usize, image: &Image) {
        self.machine(nth).disk = SimDisk::from_image(image, 9);
    }

    /// No more room is to be had on the disk of a server.
    pub(in crate::raft) fn fill_disk(&mut self, nth: usize) {
        self.machine(nth).disk.set_space(Some(0));
    }

    /// So many bytes are left on the disk of a server.
    pub(in crate::raft) fn leave_space(&mut self, nth: usize, bytes: u64) {
        self.machine(nth).disk.set_space(Some(bytes));
    }

    /// There is room again.
    pub(in crate::raft) fn empty_disk(&mut self, nth: usize) {
        self.machine(nth).disk.set_space(None);
    }

    /// How many writes found no room on the disk of a server.
    pub(in crate::raft) fn writes_refused(&mut self, nth: usize) -> u64 {
        self.machine(nth).disk.writes_refused()
    }

    pub(in crate::raft) fn hold_sync(&mut self, nth: usize) {
        self.machine(nth).sync_held = true;
    }

    pub(in crate::raft) fn release_sync(&mut self, nth: usize) {
        self.machine(nth).sync_held = false;
        self.settle();
    }

    /// The job that is held ends; the next one is held.
    pub(in crate::raft) fn let_one_sync_through(&mut self, nth: usize) {
        let now = self.now;
        let machine = self.machine(nth);
        let Some(job) = machine.job.take() else { return };
        let result = job.run();
        machine.node.as_mut().expect("it is up").on_job_done(job, result, now);
        self.settle();
    }

    /// The job in flight is lost to a disk whose sync says so.
    pub(in crate::raft) fn fail_sync(&mut self, nth: usize) {
        let now = self.now;
        let machine = self.machine(nth);
        let job = machine.job.take().expect("a job is in flight");
        machine.disk.fail_sync_after(0);
        let result = job.run();
        assert!(result.is_err());
        machine.node.as_mut().unwrap().on_job_done(job, result, now);
        self.settle();
    }

    /// The power of a machine goes after so many operations of the job that is held; `seed` decides
    /// what of those that are not synced is there afterwards.
    pub(in crate::raft) fn crash_in_sync(&mut self, nth: usize, operations: u64, seed: u64) {
        let machine = self.machine(nth);
        let job = machine.job.take().expect("a job is in flight");
        machine.disk.set_seed(seed);
        machine.disk.light_fuse(operations);
        // Done or not, nobody is there to hear of it.
        drop(job.run());
        self.crash(nth);
    }
}
