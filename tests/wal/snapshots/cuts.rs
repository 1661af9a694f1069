//! The power goes, or the process ends, at every single operation of a snapshot's way into force.

use super::{entries, filled, others, receive};
use crate::wal::sim_disk::SimDisk;
use crate::wal::support::{Driver, at, hard_state, index, payload, snapshot_blocks};
use raftd::types::EntryKind;

/// Runs `script` with the power going at each of its operations, several ways each, and looks at
/// what is left.
fn cut_everywhere(
    prepare: &dyn Fn(&SimDisk) -> Driver,
    script: &dyn Fn(&mut Driver) -> Option<()>,
    look: &dyn Fn(&Driver, bool),
) {
    let mut completed = false;
    let mut operations = 0;
    while !completed {
        for way in 0..6 {
            let disk = SimDisk::new(1000 * operations + way);
            let mut driver = prepare(&disk);
            disk.light_fuse(operations);
            let done = script(&mut driver).is_some() && !disk.is_dead();
            completed |= done;
            drop(driver);
            disk.power_loss();
            let again = Driver::open(&disk);
            let again = again.unwrap_or_else(|error| panic!("operation {operations}: {error}"));
            look(&again, done);
            let kinds = [".tmp", ".snap"];
            let image = disk.image();
            let left = image.keys().filter(|name| kinds.iter().any(|kind| name.ends_with(kind)));
            assert!(left.count() <= 1, "operation {operations}: garbage stays");
            let twice = Driver::open(&disk).unwrap();
            assert_eq!(twice.log(), again.log());
        }
        operations += 1;
    }
    assert!(operations > 10, "{operations} operations");
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_snapshot_or_the_new_one() {
    let prepare = |disk: &SimDisk| {
        let mut driver = filled(disk, 40);
        driver.draft(20).unwrap();
        driver.wal.adopt_draft(index(20));
        driver.sync(40).unwrap();
        driver.background();
        driver
    };
    let script = |driver: &mut Driver| {
        driver.draft(38)?;
        driver.wal.adopt_draft(index(38));
        driver.sync(40).ok()?;
        driver.background();
        Some(())
    };
    let look = |driver: &Driver, done: bool| {
        let source = driver.recovered.snapshot.clone().unwrap();
        let new = source.id.position == at(38, 1);
        assert!(new || (source.id.position == at(20, 1) && !done));
        assert_eq!(driver.snapshot_blocks(), Ok(snapshot_blocks(source.id.position)));
        let base = driver.recovered.base.index;
        assert!(base <= source.id.position.index);
        assert_eq!(driver.log(), entries(base.get() + 1, 40), "no entry is lost");
        assert!(driver.recovered.commit_index >= source.id.position.index);
    };
    cut_everywhere(&prepare, &script, &look);
}

/// What a process wrote and did not sync, because it was killed or because the sync failed, is read
/// by the next one, and gone after the power was. Nothing may be removed because of it before it is
/// durable; and after a sync that failed the next one finds nothing to do.
#[test]
fn a_kill_or_failed_sync_and_a_crash_of_the_next_start_leave_the_old_snapshot_or_the_new_one() {
    for fails in [false, true] {
        end_twice(fails);
    }
}

/// Lets the process end at each of its operations or syncs, and the power go at each operation of
/// the next start.
fn end_twice(fails: bool) {
    let run = |kill: u64, cut: u64, way: u64| {
        let disk = SimDisk::new(10_000 * kill + 100 * cut + way);
        let mut driver = filled(&disk, 40);
        driver.draft(38).unwrap();
        driver.wal.adopt_draft(index(38));
        if fails {
            disk.fail_sync_after(kill);
        } else {
            disk.light_fuse(kill);
        }
        let synced = driver.sync(40).is_ok();
        if synced {
            driver.background();
        }
        let killed = disk.is_dead() || !synced;
        drop(driver);
        disk.process_ends();
        disk.fail_sync_after(u64::MAX);
        disk.light_fuse(cut);
        let next = Driver::open(&disk).map(drop);
        let (dead, opened) = (disk.is_dead(), next.is_ok());
        disk.power_loss();
        let why = format!("killed at {kill}, cut at {cut}, way {way}");
        let again = Driver::open(&disk).unwrap_or_else(|error| panic!("{why}: {error}"));
        let base = again.recovered.base.index;
        assert_eq!(again.log(), entries(base.get() + 1, 40), "{why}");
        assert!(again.recovered.snapshot.is_some() || !synced, "{why}");
        assert!(dead || opened, "{why}");
        (killed, dead)
    };
    for kill in 0.. {
        let mut killed = false;
        for cut in 0.. {
            let ends = [0, 1, 2, 3].map(|way| run(kill, cut, way));
            killed |= ends[0].0;
            if ends.iter().all(|(_, dead)| !dead) {
                break;
            }
        }
        if !killed {
            assert!(kill > 1, "{kill} operations or syncs");
            return;
        }
    }
}

#[test]
fn a_crash_at_any_operation_of_an_installation_leaves_the_old_log_or_the_snapshot() {
    let (id, file) = others(70);
    // Its log is of another leader, and ends in a later term than the snapshot's.
    let prepare = |disk: &SimDisk| {
        let mut driver = filled(disk, 5);
        driver.wal.set_hard_state(hard_state(3), 7);
        for number in 6..=30 {
            driver.wal.append(at(number, 3), EntryKind::Commands, &payload(at(number, 3), 6000));
            driver.sync(5).unwrap();
            driver.background();
        }
        driver
    };
    let script = |driver: &mut Driver| {
        let blocks = receive(&mut driver.wal, id, &file, 4096)?;
        assert_eq!(blocks, snapshot_blocks(id.position));
        while !driver.wal.can_install(true) {
            driver.background();
            driver.disk.is_dead().then_some(()).map_or(Some(()), |()| None)?;
        }
        driver.wal.install_part(true);
        assert_eq!(driver.wal.last(), id.position);
        driver.wal.set_hard_state(hard_state(4), 7);
        let next = at(71, 4);
        driver.wal.append(next, EntryKind::Commands, b"behind it");
        driver.sync(5).ok()?;
        driver.background();
        Some(())
    };
    let look = |driver: &Driver, done: bool| match &driver.recovered.snapshot {
        None => {
            assert!(!done);
            assert_eq!(driver.recovered.last, at(30, 3));
            assert_eq!(driver.log().len(), 30);
        }
        Some(source) => {
            assert_eq!(source.id, id);
            assert_eq!(driver.snapshot_blocks(), Ok(snapshot_blocks(id.position)));
            assert_eq!(driver.recovered.base, id.position);
            let last = driver.recovered.last;
            assert!(last == at(71, 4) || (last == id.position && !done), "{last}");
        }
    };
    cut_everywhere(&prepare, &script, &look);
}
