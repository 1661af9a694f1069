//! What a start knows of what was there before it: how far the log was committed, what a segment
//! held and cut, what a torn batch left behind.

use super::attack::entries_of;
use super::sim_disk::{Image, SimDisk};
use super::support::{Driver, SEGMENT_BYTES, at, hard_state, index, payload};
use raftd::types::EntryKind;
use raftd::wal::{DamageExtent, OpenError};

const SEGMENT: &str = "log/00000000000000000001.seg";
const PAGE: usize = 4096;

fn fresh(seed: u64) -> Driver {
    let mut driver = Driver::open(&SimDisk::new(seed)).unwrap();
    driver.wal.set_hard_state(hard_state(1), 1);
    driver
}

/// The page in which the last batch begins that is in the first segment.
fn last_batch(image: &Image, pages: usize) -> usize {
    let last = image[SEGMENT].iter().rposition(|&byte| byte != 0).unwrap() / PAGE;
    (last + 1 - pages) * PAGE
}

/// What is padded after a tear was not committed by that. Another leader may replace it.
#[test]
fn what_is_left_of_a_torn_batch_is_as_committed_after_two_starts_as_before() {
    let mut driver = fresh(1);
    (0..3).for_each(|_| driver.append(1, 100));
    driver.sync(1).unwrap();
    driver.append(1, 100);
    driver.append(1, 6000);
    driver.sync(1).unwrap();
    let mut image = driver.disk.image();
    let second = last_batch(&image, 2) + PAGE;
    image.get_mut(SEGMENT).unwrap()[second..].fill(0);
    let disk = SimDisk::from_image(&image, 1);
    for start in 1..=3 {
        let found = Driver::open(&disk).unwrap().recovered;
        assert_eq!((found.last, found.commit_index), (at(4, 1), index(1)), "start {start}");
        assert_eq!(found.report.torn_at.is_some(), start == 1, "start {start}");
    }
    let mut driver = Driver::open(&disk).unwrap();
    driver.wal.truncate(at(2, 1));
    driver.sync(2).unwrap();
    assert_eq!(Driver::open(&disk).unwrap().recovered.last, at(2, 1));
}

/// The rest of a torn batch lies behind the next one, until it is durable that it does not.
#[test]
fn what_a_torn_batch_left_does_not_come_back_behind_the_next_one() {
    let mut driver = fresh(1);
    driver.append(1, 100);
    driver.sync(0).unwrap();
    driver.append(1, 10_000);
    driver.sync(0).unwrap();
    let mut image = driver.disk.image();
    let batch = last_batch(&image, 3);
    image.get_mut(SEGMENT).unwrap()[batch..batch + PAGE].fill(0);
    let mut whole = 0;
    for seed in 0..60 {
        for operations in 0..4 {
            let disk = SimDisk::from_image(&image, seed);
            let mut driver = Driver::open(&disk).unwrap();
            assert_eq!(driver.recovered.last, at(1, 1));
            driver.append(1, 300);
            disk.light_fuse(operations);
            let done = driver.sync(0).is_ok();
            disk.power_loss();
            let again = Driver::open(&disk);
            let again = again.unwrap_or_else(|error| panic!("{seed}, {operations}: {error}"));
            let last = again.recovered.last;
            assert!(last == at(2, 1) || (last == at(1, 1) && !done), "{seed}, {operations}");
            whole += u64::from(last == at(2, 1) && !done);
        }
    }
    assert!(whole > 5, "the next batch was hardly ever there without its sync: {whole}");
}

/// The log would begin with a segment that cuts into what is gone, and no start would take it.
#[test]
fn a_start_knows_which_segments_cut_into_the_one_before() {
    let disk = SimDisk::new(1);
    let mut driver = Driver::open(&disk).unwrap();
    driver.wal.set_hard_state(hard_state(2), 7);
    let write = |driver: &mut Driver, numbers: std::ops::RangeInclusive<u64>, term, commit: u64| {
        for number in numbers {
            let next = at(number, term);
            driver.wal.append(next, EntryKind::Commands, &payload(next, 6000));
            driver.sync(commit.min(number)).unwrap();
            driver.background();
        }
    };
    write(&mut driver, 1..=24, 1, 9);
    driver.wal.truncate(at(15, 1));
    write(&mut driver, 16..=60, 2, 60);
    let log = driver.log();
    for last in [17, 23, 30, 45, 60] {
        let again = Driver::open(&disk);
        driver = again.unwrap_or_else(|error| panic!("before {last}: {error}"));
        driver.draft(last).unwrap();
        driver.wal.adopt_draft(index(last));
        driver.sync(60).unwrap();
        driver.background();
        let base = usize::try_from(driver.wal.base().index.get()).unwrap();
        assert_eq!(driver.log(), log[base..], "after {last}");
    }
    let again = Driver::open(&disk).unwrap();
    assert!(again.recovered.base.index > index(24));
    assert_eq!(again.recovered.last, at(60, 2));
}

/// Fills the first segment, and some of the second.
fn fill_first(driver: &mut Driver) {
    while driver.wal.log_bytes() < 2 * SEGMENT_BYTES {
        driver.append(3, 3000);
        driver.sync(0).unwrap();
        driver.background();
    }
}

/// The end of a closed segment names all that is in it, else its loss leaves everything uncertain.
#[test]
fn a_segment_that_several_starts_have_filled_knows_all_of_what_it_lost() {
    let disk = SimDisk::new(1);
    let mut driver = Driver::open(&disk).unwrap();
    driver.wal.set_hard_state(hard_state(3), 7);
    (0..2).for_each(|_| driver.append(1, 100));
    driver.sync(0).unwrap();
    driver.append(2, 100);
    driver.sync(0).unwrap();
    let mut driver = Driver::open(&disk).unwrap();
    (0..3).for_each(|_| driver.append(3, 500));
    driver.sync(0).unwrap();
    let mut driver = Driver::open(&disk).unwrap();
    fill_first(&mut driver);
    let image = disk.image();
    assert_eq!(Driver::open_image(&image).unwrap().recovered.last, driver.wal.last());
    let mut seen = 0;
    for (offset, kind, number, _) in entries_of(&image[SEGMENT]) {
        if kind != 1 {
            continue;
        }
        let mut damaged = image.clone();
        damaged.get_mut(SEGMENT).unwrap()[offset + 20] ^= 4;
        let error = Driver::open_image(&damaged).err().expect("an entry is lost");
        let OpenError::Damaged(damage) = error else { panic!("{error}") };
        let entry = index(u64::try_from(number).unwrap());
        assert_eq!(damage.extent, DamageExtent::Entries { first: entry, last: entry });
        seen += 1;
    }
    assert!(seen > 10, "{seen} entries");
}

/// A leader of the past had sent it, and it was cut off: nobody misses it.
#[test]
fn the_damage_of_what_was_cut_off_is_no_loss_and_that_of_what_replaced_it_is_one() {
    let mut driver = fresh(1);
    (0..3).for_each(|_| driver.append(1, 300));
    driver.sync(1).unwrap();
    driver.wal.truncate(at(2, 1));
    driver.wal.set_hard_state(hard_state(2), 1);
    (0..2).for_each(|_| driver.append(2, 300));
    driver.sync(1).unwrap();
    driver.append(2, 300);
    driver.sync(1).unwrap();
    let (image, log) = (driver.disk.image(), driver.log());
    let thirds: Vec<usize> = entries_of(&image[SEGMENT])
        .into_iter()
        .filter(|(_, kind, number, _)| (*kind, *number) == (1, 3))
        .map(|(offset, ..)| offset)
        .collect();
    let [cut_off, kept] = thirds[..] else { panic!("{thirds:?}") };
    let damaged = |offset: usize| {
        let mut image = image.clone();
        image.get_mut(SEGMENT).unwrap()[offset + 64 + 10] ^= 4;
        Driver::open_image(&image)
    };
    assert_eq!(damaged(cut_off).unwrap().log(), log);
    let error = damaged(kept).err().expect("it is damaged");
    let OpenError::Damaged(damage) = error else { panic!("{error}") };
    assert_eq!(damage.extent, DamageExtent::Entries { first: index(3), last: index(3) });
}

fn segments(disk: &SimDisk) -> usize {
    disk.image().keys().filter(|name| name.starts_with("log/")).count()
}

/// A segment is closed before anything is written to the next one. If that is not there then, the
/// log seems to have lost its end.
#[test]
fn a_spare_segment_is_durable_before_the_one_in_use_is_closed() {
    let mut rotated = 0;
    for seed in 0..30 {
        for operations in 0.. {
            let mut driver = fresh(seed);
            while segments(&driver.disk) < 2 {
                driver.append(1, 6000);
                driver.sync(0).unwrap();
                driver.background();
            }
            let first = driver.wal.last().index.get();
            driver.disk.light_fuse(operations);
            let mut promised = first;
            for next in first + 1..first + 7 {
                driver.append(1, 6000);
                if driver.sync(0).is_err() {
                    break;
                }
                promised = next;
            }
            let dead = driver.disk.is_dead();
            driver.disk.power_loss();
            let again = Driver::open(&driver.disk);
            let again = again.unwrap_or_else(|error| panic!("{seed}, {operations}: {error}"));
            assert!(again.recovered.last.index >= index(promised), "{seed}, {operations}");
            rotated += u64::from(driver.wal.log_bytes() > 64 * 1024);
            if !dead {
                break;
            }
        }
    }
    assert!(rotated >= 60, "{rotated} rotations");
}
