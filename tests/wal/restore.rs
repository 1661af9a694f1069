//! A directory made out of a snapshot, cut short at every operation.

use super::sim_disk::SimDisk;
use super::support::{Driver, at, index, options, snapshot_blocks};
use raftd::types::{ClusterId, SnapshotId};
use raftd::wal::{Disk, OpenError, SnapshotHead, restore};
use std::sync::Arc;

fn make(disk: &Arc<dyn Disk>) -> Result<SnapshotId, OpenError> {
    let head = SnapshotHead {
        cluster_id: ClusterId(77),
        genesis: 0,
        position: at(900, 6),
        configuration_index: index(900),
        configuration: b"members".to_vec(),
    };
    let mut blocks = snapshot_blocks(head.position).into_iter();
    restore(&**disk, &options(), &head, &mut || blocks.next())
}

fn assert_whole(disk: &SimDisk) {
    let driver = Driver::open(disk).unwrap();
    let found = &driver.recovered;
    assert_eq!((found.last, found.base, found.commit_index), (at(900, 6), at(900, 6), index(900)));
    assert_eq!((found.hard_state.term, found.genesis), (at(900, 6).term, 0));
    assert_eq!(found.identity.cluster_id, ClusterId(77));
    assert_eq!(driver.snapshot_blocks().unwrap(), snapshot_blocks(at(900, 6)));
}

#[test]
fn a_restored_directory_opens_with_its_snapshot_and_an_empty_log() {
    let disk = SimDisk::new(1);
    make(&disk.disk()).unwrap();
    assert_whole(&disk);
    let mut driver = Driver::open(&disk).unwrap();
    driver.append(6, 100);
    driver.sync(900).unwrap();
    drop(driver);
    assert_eq!(Driver::open(&disk).unwrap().recovered.last, at(901, 6));
    let refused = make(&disk.disk()).unwrap_err();
    assert!(matches!(refused, OpenError::NotEmpty { .. }), "{refused}");
}

/// Both slots of the hard state name the snapshot: the loss of one must not bring back a server
/// that has nothing, votes, and knows of no entry.
#[test]
fn a_restored_directory_never_opens_without_its_snapshot() {
    let disk = SimDisk::new(1);
    make(&disk.disk()).unwrap();
    let without = |names: &[&str], slot: usize| {
        let mut image = disk.image();
        names.iter().for_each(|name| image.get_mut(*name).unwrap()[slot..slot + 4096].fill(0));
        SimDisk::from_image(&image, 1)
    };
    for slot in [0, 4096] {
        assert_whole(&without(&["hs.0"], slot));
        assert_whole(&without(&["hs.1"], slot));
        let both = without(&["hs.0", "hs.1"], slot);
        match Driver::open(&both) {
            Ok(_) => assert_whole(&both),
            Err(error) => assert!(matches!(error, OpenError::HardStateLost { .. }), "{error}"),
        }
    }
}

/// A directory without IDENTITY once looked new to a server, which founded a cluster in it.
#[test]
fn a_restore_cut_short_anywhere_is_refused_by_name_or_whole_and_a_rerun_completes_it() {
    let (mut refused, mut whole) = (0, 0);
    for operations in 0.. {
        let disk = SimDisk::new(operations);
        disk.light_fuse(operations);
        let made = make(&disk.disk()).is_ok();
        if made && !disk.is_dead() {
            break;
        }
        disk.power_loss();
        disk.put_out_fuse();
        // As a server finds it; on a copy, since a server makes what is blank.
        match Driver::open(&SimDisk::from_image(&disk.image(), 1)) {
            Err(OpenError::HalfRestored { .. }) => refused += 1,
            Err(error) => panic!("after {operations}: {error}"),
            Ok(driver) if driver.recovered.snapshot.is_some() => {
                whole += 1;
                assert_whole(&disk);
                continue;
            }
            Ok(_) => assert!(disk.image().is_empty(), "taken for a new one: {operations}"),
        }
        make(&disk.disk()).unwrap_or_else(|error| panic!("again after {operations}: {error}"));
        assert_whole(&disk);
    }
    assert!(refused > 20 && whole > 0, "{refused} refused, {whole} whole");
}
