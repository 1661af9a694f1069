//! A disk that is full, and a disk that fails.

use super::sim_disk::SimDisk;
use super::support::Driver;

/// Entries until the log says that it has no room for another.
fn fill(driver: &mut Driver) -> u64 {
    let mut appended = 0;
    while driver.wal.room_bytes() > 8 * 1024 {
        driver.append(2, 1000);
        driver.sync(0).unwrap();
        driver.background();
        appended += 1;
    }
    appended
}

#[test]
fn a_full_disk_is_said_and_ends_when_there_is_space() {
    let disk = SimDisk::new(5);
    let mut driver = Driver::open(&disk).unwrap();
    disk.set_space(Some(0));
    let before = fill(&mut driver);
    assert!(driver.wal.out_of_space(), "the next segment cannot be allocated");
    let log = driver.log();

    driver.wal.retry_background();
    driver.background();
    assert!(driver.wal.out_of_space(), "trying again makes no space");

    disk.set_space(None);
    driver.wal.retry_background();
    driver.background();
    assert!(!driver.wal.out_of_space());
    driver.append(2, 1000);
    driver.sync(0).unwrap();
    assert_eq!(u64::try_from(driver.log().len()).unwrap(), before + 1);
    drop(driver);
    let again = Driver::open(&disk).unwrap();
    assert_eq!(again.log()[..log.len()], log[..]);
}

#[test]
fn a_sync_that_fails_is_reported_and_what_was_synced_before_stays() {
    for nth in 0..4 {
        let disk = SimDisk::new(nth);
        let mut driver = Driver::open(&disk).unwrap();
        driver.append(2, 300);
        driver.sync(0).unwrap();
        let durable = driver.log();
        disk.fail_sync_after(0);
        driver.append(2, 300);
        assert!(driver.sync(0).is_err(), "the failure reaches the caller, who stops the node");
        drop(driver);
        disk.power_loss();
        let again = Driver::open(&disk).unwrap();
        assert_eq!(again.log()[..durable.len()], durable[..]);
    }
}
