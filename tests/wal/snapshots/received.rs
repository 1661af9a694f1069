//! Files that come from others, and what is said of ours to others.

use super::{filled, others};
use crate::wal::sim_disk::SimDisk;
use crate::wal::support::{Driver, index};
use raftd::types::{ClusterId, SnapshotId};
use raftd::wal::{Block, SnapshotEvent};

/// Where the receiver wants to go on, or whether it has given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Wants(usize),
    GivesUp,
    Whole,
}

/// Hands on all blocks that come, and says what is to come next.
fn next(driver: &mut Driver) -> Next {
    let mut next = None;
    loop {
        for event in driver.background() {
            match event {
                SnapshotEvent::PartStored { offset, .. } => {
                    next = Some(Next::Wants(usize::try_from(offset).unwrap()));
                }
                SnapshotEvent::PartFailed { .. } => return Next::GivesUp,
                _ => {}
            }
        }
        let block = driver.wal.take_block();
        if let Some(Block::End { .. }) = block {
            return Next::Whole;
        }
        if block.is_none() {
            return next.expect("something has come of it");
        }
    }
}

/// A block that is damaged once may have been torn by a power loss, and is wanted again. A disk
/// that damages it each time is not asked for ever; nor is one that damages another block then.
#[test]
fn a_file_is_wanted_again_from_its_damage_on_but_not_for_ever() {
    let (id, file) = others(35);
    for damaged_at in [file.len() / 4, file.len() / 2, file.len() * 3 / 4] {
        let mut damaged = file.clone();
        damaged[damaged_at] ^= 4;
        for (again, expected) in [(&file, Next::Whole), (&damaged, Next::GivesUp)] {
            let disk = SimDisk::new(1);
            let mut driver = filled(&disk, 3);
            driver.wal.begin_part(id);
            assert_eq!(next(&mut driver), Next::Wants(0));
            assert!(driver.wal.push_part(0, &damaged));
            let Next::Wants(good) = next(&mut driver) else { panic!("it may have been torn") };
            assert!(0 < good && good <= damaged_at, "{good} of {damaged_at} bytes are good");
            assert!(driver.wal.push_part(u64::try_from(good).unwrap(), &again[good..]));
            assert_eq!(next(&mut driver), expected, "byte {damaged_at}");
        }
    }
}

/// Whatever stands behind its end: another process may have received more.
#[test]
fn what_is_there_of_a_file_ends_where_the_file_ends() {
    let (id, file) = others(35);
    let disk = SimDisk::new(1);
    let mut driver = filled(&disk, 3);
    driver.wal.begin_part(id);
    assert_eq!(next(&mut driver), Next::Wants(0));
    assert!(driver.wal.push_part(0, &file[..file.len() / 2]));
    driver.background();
    let mut image = disk.image();
    let (_, part) = image.iter_mut().find(|(name, _)| name.ends_with(".part")).unwrap();
    part.clone_from(&file);
    part.extend_from_slice(&file[..100]);
    let mut driver = Driver::open_image(&image).unwrap();
    driver.wal.begin_part(id);
    assert_eq!(next(&mut driver), Next::Whole);
}

/// Equal lengths do not make equal files.
#[test]
fn a_file_that_is_not_the_one_announced_is_not_taken() {
    let (id, file) = others(35);
    let mut driver = filled(&SimDisk::new(1), 3);
    driver.wal.begin_part(SnapshotId { crc: id.crc ^ 1, ..id });
    assert_eq!(next(&mut driver), Next::Wants(0));
    assert!(driver.wal.push_part(0, &file));
    assert_eq!(next(&mut driver), Next::GivesUp);
}

/// A server that was forced to be a new cluster makes its snapshots for that: nobody of it would
/// take another one's.
#[test]
fn a_snapshot_names_the_cluster_that_its_server_speaks_for_now() {
    let disk = SimDisk::new(1);
    let mut driver = filled(&disk, 20);
    let cluster_of = |driver: &Driver| {
        let mut named = None;
        let source = driver.wal.snapshot().expect("one is in force");
        let read = source.read(&mut |block| {
            if let Block::Head(head) = block {
                named = Some(head.cluster_id);
            }
            Ok(())
        });
        read.unwrap().unwrap();
        named
    };
    let make = |driver: &mut Driver, last: u64| {
        driver.draft(last).unwrap();
        driver.wal.adopt_draft(index(last));
        driver.sync(20).unwrap();
        driver.background();
    };
    make(&mut driver, 10);
    let old = driver.recovered.identity.cluster_id;
    assert_eq!(cluster_of(&driver), Some(old));
    let new = ClusterId(99);
    driver.wal.set_cluster_id(new);
    make(&mut driver, 12);
    assert_eq!(cluster_of(&driver), Some(new));
    let mut driver = Driver::open(&disk).unwrap();
    assert_eq!(driver.recovered.identity.cluster_id, new);
    make(&mut driver, 14);
    assert_eq!(cluster_of(&driver), Some(new), "after a restart too");
}
