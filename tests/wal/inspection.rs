//! A directory is looked at and stays as it is.

use super::support::{at, hard_state, index, options, payload};
use raftd::types::{EntryKind, JobSeq, LogPosition};
use raftd::wal::{DamageExtent, OpenError, OsDisk, ReadOnlyDisk, inspect, open};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

const ENTRIES: u64 = 40;

/// A log of some segments; half of it is committed.
fn write(path: &Path) {
    let (mut wal, _) = open(Arc::new(OsDisk::open(path).unwrap()), &options()).unwrap();
    wal.set_hard_state(hard_state(1), 3);
    for number in 1..=ENTRIES {
        let position = LogPosition::new(at(0, 1).term, index(number));
        wal.append(position, EntryKind::Commands, &payload(position, 4000));
        let job = wal.begin_job(JobSeq(number), index(number / 2)).unwrap();
        job.run().unwrap();
        wal.job_done(JobSeq(number));
        while let Some(step) = wal.background_job() {
            wal.background_done(step.run()).unwrap();
        }
    }
}

/// Every file with what tells a change.
fn files(path: &Path, found: &mut BTreeMap<PathBuf, (Vec<u8>, SystemTime)>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            found.insert(path.clone(), (fs::read(&path).unwrap(), changed));
        }
    }
}

#[test]
fn what_a_directory_holds_is_said_and_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path());
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    files(directory.path(), &mut before);
    let disk = ReadOnlyDisk::new(directory.path());
    disk.refuse_if_in_use().unwrap();
    let contents = inspect(&disk).unwrap();
    files(directory.path(), &mut after);
    assert!(before == after, "a file was changed");
    assert!(contents.damages.is_empty() && contents.bad_copies.is_empty());
    assert_eq!(contents.hard_state.hard_state, hard_state(1));
    assert_eq!(contents.hard_state.genesis, 3);
    assert_eq!((contents.log.base, contents.log.last), (at(0, 0), at(ENTRIES, 1)));
    assert_eq!(contents.log.entries.len(), 40);
    assert_eq!(contents.log.entries[6].position, at(7, 1));
    assert_eq!(contents.log.entries[6].bytes, 4000);
    // Ranges without gaps, then spares.
    let ranges: Vec<_> = contents.log.segments.iter().filter_map(|it| it.entries).collect();
    assert!(ranges.len() > 2 && ranges.len() < contents.log.segments.len());
    assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (index(1), index(ENTRIES)));
    assert!(ranges.windows(2).all(|pair| pair[0].1.next() == pair[1].0), "{ranges:?}");
}

#[test]
fn damage_in_several_places_is_named_with_file_offset_and_entries() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path());
    let contents = inspect(&ReadOnlyDisk::new(directory.path())).unwrap();
    let segments: Vec<PathBuf> = contents.log.segments.iter().map(|it| it.file.clone()).collect();
    // Entry 1 is the first record of its file; a header of 64 bytes, then its payload.
    for segment in [&segments[0], &segments[1]] {
        let file = fs::OpenOptions::new().read(true).write(true).open(segment).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 8192 + 64 + 100).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 8192 + 64 + 100).unwrap();
    }
    let copy = directory.path().join("hs.1");
    fs::OpenOptions::new().write(true).open(&copy).unwrap().write_all_at(b"x", 30).unwrap();
    let header = fs::OpenOptions::new().write(true).open(&segments[2]).unwrap();
    header.write_all_at(b"x", 4096 + 30).unwrap();
    let contents = inspect(&ReadOnlyDisk::new(directory.path())).unwrap();
    let found = contents.damages.iter().map(|it| (it.file.clone(), it.offset, it.extent));
    let (_, second) = (contents.log.segments[0].entries, contents.log.segments[1].entries);
    let second = second.unwrap().0;
    let lost = |index| DamageExtent::Entries { first: index, last: index };
    let expected =
        [(segments[0].clone(), 8192, lost(index(1))), (segments[1].clone(), 8192, lost(second))];
    assert_eq!(found.collect::<Vec<_>>(), expected);
    assert_eq!(contents.bad_copies, [(copy, 0), (segments[2].clone(), 4096)]);
    let said = contents.damages[1].to_string();
    assert!(said.contains("at byte 8192") && said.contains(&format!("entry {second} is lost")));
}

#[test]
fn a_directory_in_use_or_of_others_is_refused_and_looking_keeps_nobody_out() {
    let directory = tempfile::tempdir().unwrap();
    let disk = ReadOnlyDisk::new(directory.path());
    let refused = inspect(&disk).unwrap_err();
    assert!(matches!(refused, OpenError::NotADataDirectory { .. }), "{refused}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "not even a lock file");
    write(directory.path());
    let server = OsDisk::open(directory.path()).unwrap();
    assert!(matches!(disk.refuse_if_in_use(), Err(OpenError::InUse { .. })));
    drop(server);
    disk.refuse_if_in_use().unwrap();
    OsDisk::open(directory.path()).unwrap();
}
