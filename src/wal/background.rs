//! Preparing the next segment, a slice at a time: a bulk write makes the next syncs slow, so the
//! log hands out
//! the slices at the pace at which it is written itself. Storage §6.7.
//!
//! `create` (reserves the room: a full disk shows here) → `zero` slices → `finish` (header pages,
//! sync, sync of
//! the folder, map). A crash in between leaves a file without a header, which recovery removes.

use super::disk::{Disk, DiskFile};
use super::segment::{DATA_START, Segment, SegmentHeader, name};
use crate::limits::PAGE_BYTES;
use std::io;
use std::sync::Arc;

/// Bytes zeroed in one job.
pub(super) const SLICE_BYTES: u64 = 256 * 1024;

/// A piece of work for the background thread.
#[derive(Debug)]
pub struct BackgroundJob {
    disk: Arc<dyn Disk>,
    header: SegmentHeader,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Create,
    Zero { file: Arc<dyn DiskFile>, offset: u64 },
    Finish { file: Arc<dyn DiskFile> },
}

/// What came of a background job.
#[derive(Debug)]
pub struct BackgroundDone(pub(super) io::Result<Progress>);

/// How far a segment is.
#[derive(Debug)]
pub(super) enum Progress {
    /// Zeroed up to here.
    Zeroed { file: Arc<dyn DiskFile>, bytes: u64 },
    /// Ready for use.
    Ready(Segment),
}

impl BackgroundJob {
    /// The first step for a segment.
    pub(super) fn create(disk: Arc<dyn Disk>, header: SegmentHeader) -> BackgroundJob {
        BackgroundJob { disk, header, step: Step::Create }
    }

    /// The next step for a segment that is zeroed up to `offset`.
    pub(super) fn go_on(
        disk: Arc<dyn Disk>,
        header: SegmentHeader,
        file: Arc<dyn DiskFile>,
        offset: u64,
    ) -> BackgroundJob {
        let step = if offset < header.file_bytes {
            Step::Zero { file, offset }
        } else {
            Step::Finish { file }
        };
        BackgroundJob { disk, header, step }
    }

    /// Carries it out. After a failure the unfinished file is removed.
    pub fn run(self) -> BackgroundDone {
        let result = self.attempt();
        if result.is_err() {
            // It may not exist, and recovery removes it as well.
            let _gone = self.disk.remove(&name(self.header.sequence));
        }
        BackgroundDone(result)
    }

    fn attempt(&self) -> io::Result<Progress> {
        match &self.step {
            Step::Create => {
                let file = self.disk.create(&name(self.header.sequence))?;
                file.allocate(self.header.file_bytes)?;
                Ok(Progress::Zeroed { file, bytes: 0 })
            }
            Step::Zero { file, offset } => {
                let left = self.header.file_bytes - offset;
                let bytes = left.min(SLICE_BYTES);
                let zeros = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
                file.write_at(*offset, &zeros)?;
                Ok(Progress::Zeroed { file: file.clone(), bytes: offset + bytes })
            }
            Step::Finish { file } => {
                // The zeros first: a valid header says that they are there.
                file.sync()?;
                let page = self.header.encode();
                let second = u64::try_from(PAGE_BYTES).map_err(io::Error::other)?;
                file.write_at(0, &page)?;
                file.write_at(second, &page)?;
                file.sync()?;
                self.disk.sync_folder("log")?;
                let region = Arc::from(file.map(self.header.file_bytes)?);
                let (sequence, salt) = (self.header.sequence, self.header.salt);
                Ok(Progress::Ready(Segment { sequence, salt, file: file.clone(), region }))
            }
        }
    }
}

/// All steps at once. Start-up only.
pub(super) fn create_now(disk: &Arc<dyn Disk>, header: SegmentHeader) -> io::Result<Segment> {
    let mut job = BackgroundJob::create(disk.clone(), header);
    loop {
        match job.run().0? {
            Progress::Ready(segment) => return Ok(segment),
            Progress::Zeroed { file, bytes } => {
                job = BackgroundJob::go_on(disk.clone(), header, file, bytes);
            }
        }
    }
}

const _: () = assert!(DATA_START == 2 * PAGE_BYTES);
