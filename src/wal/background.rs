//! Preparing segments ahead, in steps, on the `bg` thread.
//!
//! ```text
//! create   the file, its length, its space: shows a full disk   crash: removed at the next start
//! zero     256 KiB and a sync, again and again                 crash: the same
//! finish   sync file, directory; both header pages; sync; map  crash: the same, or a spare
//! ```
//!
//! The headers come after the sync of everything else: a file with a valid header has its full
//! length, and is zero behind it. Steps are paced to the bytes of log written, because a bulk write
//! makes the next syncs slow: at two bytes zeroed for each byte logged a spare is ready when its
//! predecessor is half full.

use super::directory::{LOG, salt, segment_name};
use super::disk::{Disk, DiskFile};
use super::identity::Identity;
use super::record::{u32_of, usize_of};
use super::segment::{DATA_START, Segment, SegmentHeader};
use std::io;
use std::sync::Arc;

/// Zeroed by one step. Bytes. Design §12.6.
const SLICE_BYTES: u32 = 256 * 1024;
/// Bytes that may be zeroed for each byte logged.
const CREDIT_PER_BYTE: u64 = 2;

/// What all segments of a log share.
#[derive(Clone)]
pub(super) struct Template {
    /// Whose they are.
    pub(super) identity: Identity,
    /// How large new ones are. Bytes.
    pub(super) segment_bytes: u32,
    /// Where salts come from.
    pub(super) salt_seed: u64,
    /// Unix milliseconds.
    pub(super) created_unix_ms: u64,
}

impl Template {
    fn header(&self, seq: u32) -> SegmentHeader {
        SegmentHeader {
            seq,
            salt: salt(self.salt_seed, seq),
            file_len: self.segment_bytes,
            created_unix_ms: self.created_unix_ms,
        }
    }

    /// Prepares segment `seq` at once. For `open`; afterwards there is `Preparation`.
    pub(super) fn prepare_now(&self, disk: &dyn Disk, seq: u32) -> io::Result<Segment> {
        let name = segment_name(seq);
        let file = create(disk, &name, self.segment_bytes)?;
        let mut at = 0;
        while at < self.segment_bytes {
            at = zero(&*file, at, self.segment_bytes)?;
        }
        finish(disk, file, &self.header(seq), &self.identity)
    }
}

/// One step of preparing a segment, to be run on the `bg` thread.
pub(super) struct PrepareJob {
    disk: Arc<dyn Disk>,
    name: Arc<str>,
    header: SegmentHeader,
    identity: Identity,
    step: Step,
}

enum Step {
    Create,
    Zero { file: Arc<dyn DiskFile>, from: u32 },
    Finish { file: Arc<dyn DiskFile> },
}

/// What came of a `PrepareJob`.
pub(super) struct PrepareDone {
    outcome: io::Result<Outcome>,
}

impl PrepareDone {
    /// Why it failed, if it did.
    pub(super) fn error(&self) -> Option<&io::Error> {
        self.outcome.as_ref().err()
    }
}

enum Outcome {
    Zeroed { file: Arc<dyn DiskFile>, up_to: u32 },
    Ready(Segment),
}

impl PrepareJob {
    /// Does the step. If it fails, the unfinished file is removed.
    pub(super) fn run(self) -> PrepareDone {
        let outcome = self.step();
        if outcome.is_err() {
            // What cannot be removed now is removed by the next attempt or the next start.
            let _ = self.disk.remove(&self.name);
        }
        PrepareDone { outcome }
    }

    fn step(&self) -> io::Result<Outcome> {
        match &self.step {
            Step::Create => {
                let file = create(&*self.disk, &self.name, self.header.file_len)?;
                Ok(Outcome::Zeroed { file, up_to: 0 })
            }
            Step::Zero { file, from } => {
                let up_to = zero(&**file, *from, self.header.file_len)?;
                file.sync()?;
                Ok(Outcome::Zeroed { file: Arc::clone(file), up_to })
            }
            Step::Finish { file } => {
                finish(&*self.disk, Arc::clone(file), &self.header, &self.identity)
                    .map(Outcome::Ready)
            }
        }
    }
}

/// How far the next spare is.
pub(super) struct Preparation {
    template: Template,
    /// The step to take next for the spare under way.
    next: Option<Step>,
    in_flight: bool,
    /// Bytes that may be zeroed.
    credit: u64,
    /// After a failure nothing is tried until `retry`.
    failed: bool,
    shortage: Option<Shortage>,
    /// The last file that a step was for, by number: the next one is for the same as a rule.
    name: (u32, Arc<str>),
}

/// What a segment could not be prepared for want of. It may be there again later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shortage {
    /// Room on the disk, or in our share of it.
    Space,
    /// Descriptors, ours or the system's.
    Descriptors,
}

/// How much a spare is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// Not at all.
    None,
    /// At the pace of the log.
    Paced,
    /// Now: the segment in use is half full and nothing stands behind it.
    Urgent,
}

impl Preparation {
    /// Nothing under way.
    pub(super) fn new(template: Template) -> Preparation {
        Preparation {
            template,
            next: None,
            in_flight: false,
            credit: 0,
            failed: false,
            shortage: None,
            name: (0, segment_name(0).into()),
        }
    }

    /// The log has grown by so many bytes.
    pub(super) fn earn(&mut self, bytes: u64) {
        let most = CREDIT_PER_BYTE * u64::from(self.template.segment_bytes);
        self.credit = most.min(self.credit + CREDIT_PER_BYTE * bytes);
    }

    /// What the last attempt ended for want of.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        self.shortage
    }

    /// Tries again after a failure.
    pub(super) fn retry(&mut self) {
        self.failed = false;
    }

    /// The next step of preparing segment `seq`, if one is due.
    pub(super) fn job(&mut self, disk: &Arc<dyn Disk>, seq: u32, need: Need) -> Option<PrepareJob> {
        let cost = u64::from(SLICE_BYTES.min(self.template.segment_bytes));
        let due = match need {
            Need::None => {
                // What nobody wants is not lacking.
                self.shortage = None;
                false
            }
            // What failed is tried again however little the log grows: until then we say that
            // something is lacking.
            Need::Paced => self.credit >= cost || self.shortage.is_some(),
            Need::Urgent => true,
        };
        if !due || self.in_flight || self.failed {
            return None;
        }
        let step = self.next.take().unwrap_or(Step::Create);
        if matches!(step, Step::Zero { .. }) {
            self.credit = self.credit.saturating_sub(cost);
        }
        self.in_flight = true;
        if self.name.0 != seq {
            self.name = (seq, segment_name(seq).into());
        }
        Some(PrepareJob {
            disk: Arc::clone(disk),
            name: Arc::clone(&self.name.1),
            header: self.template.header(seq),
            identity: self.template.identity,
            step,
        })
    }

    /// Takes note of a step. Returns the spare if it was the last one. A shortage is waited for;
    /// any other error is returned, and the process must end.
    pub(super) fn done(&mut self, done: PrepareDone) -> io::Result<Option<Segment>> {
        assert!(self.in_flight, "a result comes from a job that was given out");
        self.in_flight = false;
        match done.outcome {
            Ok(Outcome::Zeroed { file, up_to }) => {
                self.next = Some(if up_to < self.template.segment_bytes {
                    Step::Zero { file, from: up_to }
                } else {
                    Step::Finish { file }
                });
                Ok(None)
            }
            Ok(Outcome::Ready(segment)) => {
                self.shortage = None;
                Ok(Some(segment))
            }
            Err(error) => {
                self.failed = true;
                self.shortage = shortage(&error);
                if self.shortage.is_some() { Ok(None) } else { Err(error) }
            }
        }
    }
}

/// Whether an error means that something is lacking which may be there again later. It never comes
/// from a sync: files and directories are opened before anything is asked of them.
fn shortage(error: &io::Error) -> Option<Shortage> {
    // The system's words for too many open files, of all processes and of this one. The same on
    // every Linux.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        Some(Shortage::Space)
    } else if matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) {
        Some(Shortage::Descriptors)
    } else {
        None
    }
}

fn create(disk: &dyn Disk, name: &str, len: u32) -> io::Result<Arc<dyn DiskFile>> {
    let file = match disk.create_new(name) {
        Ok(file) => file,
        // Left by an attempt that failed and could not be cleaned up.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(name)?;
            disk.create_new(name)?
        }
        Err(error) => return Err(error),
    };
    file.allocate(u64::from(len))?;
    Ok(file)
}

fn zero(file: &dyn DiskFile, from: u32, len: u32) -> io::Result<u32> {
    static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];
    assert_eq!(u32_of(ZEROS.len()), SLICE_BYTES);
    let count = SLICE_BYTES.min(len - from);
    file.write_at(u64::from(from), &ZEROS[..usize_of(count)])?;
    Ok(from + count)
}

fn finish(
    disk: &dyn Disk,
    file: Arc<dyn DiskFile>,
    header: &SegmentHeader,
    identity: &Identity,
) -> io::Result<Segment> {
    file.sync()?;
    disk.sync_directory(LOG)?;
    let pages = header.encode(identity);
    assert_eq!(u32_of(pages.len()), DATA_START);
    file.write_at(0, &pages)?;
    file.sync()?;
    let map = file.map()?;
    Ok(Segment { seq: header.seq, salt: header.salt, file_len: header.file_len, file, map })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A quota is a full disk to whoever has used it up: a server that took it for anything else
    /// ended.
    #[test]
    fn what_may_be_there_again_is_waited_for_and_nothing_else_is() {
        let of = |number| shortage(&io::Error::from_raw_os_error(number));
        let [full, quota] = [28, 122].map(of); // ENOSPC, EDQUOT
        assert_eq!((full, quota), (Some(Shortage::Space), Some(Shortage::Space)));
        let [system, process] = [23, 24].map(of); // ENFILE, EMFILE
        let descriptors = Some(Shortage::Descriptors);
        assert_eq!((system, process), (descriptors, descriptors));
        let [broken, read_only] = [5, 30].map(of); // EIO, EROFS
        assert_eq!((broken, read_only), (None, None));
    }
}
