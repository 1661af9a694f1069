//! The hard state and the identity, and every way to damage them: what a server has promised is
//! known, or it does not start.

use super::sim_disk::{Image, SimDisk};
use super::support::{Driver, LogEntry, hard_state};
use raftd::types::HardState;
use raftd::wal::OpenError;

const PAGE: usize = 4096;
const COPIES: [&str; 2] = ["hs.0", "hs.1"];

/// The part of a slot that means something: its checksum ends it.
const SLOT_BYTES: usize = 256;

/// What opening the directory comes to.
#[derive(PartialEq, Eq, Debug)]
enum Outcome {
    /// It opens, with this term and vote.
    Opens(HardState),
    /// Nobody knows what was voted: refused.
    VoteLost,
    /// Nobody knows whose directory it is: refused.
    OwnerLost,
}
use Outcome::{Opens, OwnerLost, VoteLost};

/// A log with four hard states behind it, so that both slots of both files matter.
fn build() -> (Image, Vec<LogEntry>) {
    let mut driver = Driver::open(&SimDisk::new(1)).unwrap();
    for term in 1..=4 {
        driver.wal.set_hard_state(hard_state(term), 5);
        driver.append(term, 10);
        driver.sync(0).unwrap();
    }
    (driver.disk.image(), driver.log())
}

fn outcome(image: &Image, log: &[LogEntry]) -> Outcome {
    let disk = SimDisk::from_image(image, 1);
    let outcome = match Driver::open(&disk) {
        Ok(driver) => {
            assert_eq!(driver.log(), log, "the log is whole");
            return Opens(driver.recovered.hard_state);
        }
        Err(OpenError::HardStateLost { .. }) => VoteLost,
        Err(OpenError::IdentityDamaged { .. }) => OwnerLost,
        Err(error) => panic!("neither opened nor judged: {error}"),
    };
    assert_eq!(disk.writes(), 0, "a refused directory was written to");
    outcome
}

/// The image with `change` made to the named files.
fn damaged(image: &Image, names: &[&str], change: impl Fn(&mut Vec<u8>)) -> Image {
    let mut image = image.clone();
    for name in names {
        change(image.get_mut(*name).unwrap());
    }
    image
}

/// Zeroes, then flips a bit of, each byte of these files, the same one in all of them.
fn attack_each_byte(names: &[&str], expected: impl Fn(usize) -> Outcome) {
    let (image, log) = build();
    let bytes = &image[names[0]];
    for offset in 0..bytes.len() {
        for other in [0, bytes[offset] ^ 1 << (offset % 8)] {
            // Copies are equal, so what changes one changes all.
            if other != bytes[offset] {
                let attacked = damaged(&image, names, |bytes| bytes[offset] = other);
                assert_eq!(outcome(&attacked, &log), expected(offset), "{names:?} byte {offset}");
            }
        }
    }
}

#[test]
fn a_damaged_byte_of_one_copy_of_the_hard_state_changes_nothing() {
    for name in COPIES {
        attack_each_byte(&[name], |_| Opens(hard_state(4)));
    }
}

#[test]
fn the_same_damaged_byte_of_both_copies_is_refused() {
    attack_each_byte(&COPIES, |offset| {
        if offset % PAGE < SLOT_BYTES { VoteLost } else { Opens(hard_state(4)) }
    });
}

#[test]
fn a_damaged_byte_of_the_identity_is_refused() {
    attack_each_byte(&["IDENTITY"], |_| OwnerLost);
}

#[test]
fn a_lost_or_misplaced_page_of_the_hard_state_is_judged_by_its_copy() {
    let (image, log) = build();
    let zero = |page: usize| move |bytes: &mut Vec<u8>| bytes[page * PAGE..][..PAGE].fill(0);
    let copy = |from: usize, to: usize| {
        move |bytes: &mut Vec<u8>| bytes.copy_within(from * PAGE..(from + 1) * PAGE, to * PAGE)
    };
    for page in [0, 1] {
        for name in COPIES {
            let lost = damaged(&image, &[name], zero(page));
            assert_eq!(outcome(&lost, &log), Opens(hard_state(4)));
            let misplaced = damaged(&image, &[name], copy(1 - page, page));
            assert_eq!(outcome(&misplaced, &log), Opens(hard_state(4)));
        }
        assert_eq!(outcome(&damaged(&image, &COPIES, zero(page)), &log), VoteLost);
        assert_eq!(outcome(&damaged(&image, &COPIES, copy(1 - page, page)), &log), VoteLost);
        // One slot of each: between them the two files still hold both.
        let mut crossed = damaged(&image, &COPIES[..1], zero(page));
        crossed = damaged(&crossed, &COPIES[1..], zero(1 - page));
        assert_eq!(outcome(&crossed, &log), Opens(hard_state(4)));
    }
}

#[test]
fn files_of_another_length_are_judged_by_what_is_left() {
    let (image, log) = build();
    for length in [0, 1, 127, PAGE - 1, PAGE, PAGE + 127, 2 * PAGE - 1] {
        for name in COPIES {
            let short = damaged(&image, &[name], |bytes| bytes.truncate(length));
            assert_eq!(outcome(&short, &log), Opens(hard_state(4)), "{name} has {length} bytes");
        }
        let both = damaged(&image, &COPIES, |bytes| bytes.truncate(length));
        assert_eq!(outcome(&both, &log), VoteLost, "both have {length} bytes");
    }
    for length in [0, 1, 100, PAGE - 1] {
        let short = damaged(&image, &["IDENTITY"], |bytes| bytes.truncate(length));
        assert_eq!(outcome(&short, &log), OwnerLost, "IDENTITY has {length} bytes");
    }
}

#[test]
fn an_older_copy_of_one_file_loses_to_the_newer() {
    let (image, log) = build();
    let mut older = Driver::open(&SimDisk::new(1)).unwrap();
    older.wal.set_hard_state(hard_state(2), 5);
    older.sync(0).unwrap();
    let older = older.disk.image();
    // One file put back from a copy: the other one is newer, and wins.
    for name in COPIES {
        let mut mixed = image.clone();
        mixed.insert(name.to_owned(), older[name].clone());
        assert_eq!(outcome(&mixed, &log), Opens(hard_state(4)));
    }
}
