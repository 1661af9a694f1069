//! The same log on real files.

use super::support::{at, hard_state, index, options, payload};
use raftd::types::{EntryKind, JobSeq, LogPosition};
use raftd::wal::{OpenError, OsDisk, Wal, open};
use std::path::Path;
use std::sync::Arc;

fn open_at(path: &Path) -> (Wal, raftd::wal::Recovered) {
    open(Arc::new(OsDisk::open(path).unwrap()), &options()).unwrap()
}

fn write_and_reopen(path: &Path) {
    let (mut wal, _) = open_at(path);
    wal.set_hard_state(hard_state(1), 3);
    for number in 1..=60 {
        let position = LogPosition::new(at(0, 1).term, index(number));
        wal.append(position, EntryKind::Commands, &payload(position, 4000));
        let job = wal.begin_job(JobSeq(number), index(0)).unwrap();
        job.run().unwrap();
        wal.job_done(JobSeq(number));
        wal.recycle(job);
        while let Some(step) = wal.background_job() {
            wal.background_done(step.run()).unwrap();
        }
    }
    drop(wal);
    let (wal, recovered) = open_at(path);
    assert_eq!(recovered.last, at(60, 1));
    assert_eq!(recovered.genesis, 3);
    assert!(recovered.report.segments > 3);
    let mut scratch = Vec::new();
    for number in 1..=60 {
        let position = LogPosition::new(at(0, 1).term, index(number));
        let read = wal.payload(index(number), &mut scratch).unwrap();
        assert_eq!(read, payload(position, 4000), "read through the map");
    }
}

#[test]
fn a_log_on_a_disk_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    write_and_reopen(&directory.path().join("deep/data"));
}

/// tmpfs has no O_DIRECT.
#[test]
fn a_log_in_shared_memory_is_read_back() {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    write_and_reopen(directory.path());
}

#[test]
fn a_directory_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let disk = OsDisk::open(directory.path()).unwrap();
    let error = OsDisk::open(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().ends_with("is locked by a running raftd: stop it first"));
    drop(disk);
    assert!(OsDisk::open(directory.path()).is_ok());
}

/// Memory for all of the file was asked for, by a length that the file system had damaged: the
/// process was aborted, and said nothing of what to do.
#[test]
fn a_segment_of_absurd_length_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    write_and_reopen(directory.path());
    let first = directory.path().join("log/00000000000000000001.seg");
    std::fs::OpenOptions::new().write(true).open(&first).unwrap().set_len(1 << 40).unwrap();
    let disk = Arc::new(OsDisk::open(directory.path()).unwrap());
    let Err(OpenError::Damaged(damage)) = open(disk, &options()) else { panic!("it is whole") };
    assert_eq!(damage.file, first);
}
