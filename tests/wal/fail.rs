//! Full disks, failing syncs, the watermark, and directories that are not to be opened.

use super::sim_disk::{Image, SimDisk};
use super::support::{Driver, at, hard_state, index, node, options, payload};
use raftd::limits::ENTRY_OVERHEAD_BYTES;
use raftd::types::{DiskId, EntryKind, HardState, Term, Vote};
use raftd::wal::{Damage, DamageExtent, OpenError, Options, open};

fn fresh() -> Driver {
    Driver::open(&SimDisk::new(1)).unwrap()
}

fn error_of(disk: &SimDisk, options: &Options) -> OpenError {
    match open(disk.disk(), options) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

#[test]
fn a_full_disk_shows_when_a_spare_is_prepared_and_is_tried_again_on_request() {
    let mut driver = fresh();
    driver.wal.set_hard_state(hard_state(1), 1);
    let space = 64 * 1024 - 1;
    driver.disk.set_space(Some(space));
    while driver.wal.room_bytes() >= 10_000 + ENTRY_OVERHEAD_BYTES {
        driver.append(1, 10_000);
        driver.sync(0).unwrap();
        driver.background();
    }
    assert!(driver.wal.out_of_space());
    assert!(driver.wal.background_job().is_none(), "not before it is asked to");
    assert_eq!(segments(&driver.disk.image()), 1, "the unfinished file is removed");
    // A vote needs no space.
    driver.wal.set_hard_state(hard_state(2), 1);
    driver.sync(0).unwrap();
    driver.wal.retry_background();
    driver.background();
    assert!(driver.wal.out_of_space());
    driver.disk.set_space(None);
    driver.wal.retry_background();
    driver.background();
    assert!(!driver.wal.out_of_space());
    for _ in 0..8 {
        driver.append(2, 10_000);
        driver.sync(0).unwrap();
        driver.background();
    }
    let again = Driver::open(&driver.disk).unwrap();
    assert_eq!(again.log(), driver.log());
    assert_eq!(again.recovered.hard_state, hard_state(2));
}

/// A step that failed for another reason than a full disk was never tried again, and nobody was
/// told: once the segment in use was full, clients waited for ever on a node that went on leading.
#[test]
fn a_failing_sync_of_a_spare_is_the_end_and_not_passed_over() {
    let mut driver = fresh();
    driver.wal.set_hard_state(hard_state(1), 1);
    while driver.wal.room_bytes() > 8000 {
        driver.append(1, 3000);
        driver.sync(0).unwrap();
    }
    driver.disk.fail_sync_after(0);
    let mut failed = None;
    while failed.is_none()
        && let Some(step) = driver.wal.background_job()
    {
        failed = driver.wal.background_done(step.run()).err();
    }
    assert_eq!(failed.and_then(|error| error.raw_os_error()), Some(5), "the caller stops on this");
    assert!(!driver.wal.out_of_space());
}

fn segments(image: &Image) -> usize {
    image.keys().filter(|name| name.starts_with("log/")).count()
}

/// What is missing of a closed segment is damage only if the hard state says that it was there.
#[test]
fn the_job_that_closes_a_segment_has_the_hard_state_vouch_for_more() {
    let mut driver = fresh();
    driver.wal.set_hard_state(hard_state(1), 1);
    driver.append(1, 3000);
    driver.sync(0).unwrap();
    let version = driver.wal.hard_state_version();
    while driver.wal.log_bytes() == 64 * 1024 {
        assert_eq!(driver.wal.hard_state_version(), version, "nothing new is to be said");
        driver.append(1, 3000);
        driver.sync(0).unwrap();
        driver.background();
    }
    assert!(driver.wal.hard_state_version() > version);
}

#[test]
fn the_second_spare_waits_for_the_first_rotation() {
    let mut driver = fresh();
    driver.wal.set_hard_state(hard_state(1), 1);
    driver.background();
    assert_eq!(segments(&driver.disk.image()), 1, "an idle log needs no spare");
    let mut most_before_rotation = 0;
    while driver.wal.log_bytes() == 64 * 1024 {
        most_before_rotation = most_before_rotation.max(segments(&driver.disk.image()));
        driver.append(1, 3000);
        driver.sync(0).unwrap();
        driver.background();
    }
    assert_eq!(most_before_rotation, 2);
    for _ in 0..12 {
        driver.append(1, 3000);
        driver.sync(0).unwrap();
        driver.background();
    }
    assert!(segments(&driver.disk.image()) >= 4);
}

#[test]
fn a_failing_sync_is_reported_and_what_it_was_for_is_not_believed_later() {
    for operation in 0..3 {
        let mut driver = fresh();
        driver.wal.set_hard_state(hard_state(1), 1);
        driver.append(1, 5000);
        driver.sync(0).unwrap();
        let before = driver.log();
        driver.wal.set_hard_state(hard_state(2), 1);
        driver.append(2, 5000);
        driver.disk.fail_sync_after(operation);
        let failed = driver.sync(0).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(5), "the caller stops on this");
        // The page cache still shows the new bytes, and the next sync succeeds: only the medium
        // counts.
        let again = Driver::open(&driver.disk).unwrap();
        assert_eq!(again.log(), before);
        let expected = if operation == 0 { hard_state(1) } else { hard_state(2) };
        assert_eq!(again.recovered.hard_state, expected, "sync {operation} failed");
    }
}

fn damage_of(image: &Image) -> Damage {
    let error = Driver::open_image(image).err().unwrap();
    let OpenError::Damaged(damage) = error else { panic!("{error}") };
    damage
}

/// The largest offset at which the segment is not zero, page by page: where the last batch begins.
fn last_page(image: &Image) -> usize {
    let bytes = &image["log/00000000000000000001.seg"];
    bytes.iter().rposition(|&byte| byte != 0).unwrap() / 4096 * 4096
}

/// Old Pebble kept a watermark that in some settings never moved; real damage was then read as the
/// end of the log.
#[test]
fn the_mark_of_an_idle_log_covers_its_last_batch() {
    let mut driver = fresh();
    driver.wal.set_hard_state(hard_state(1), 1);
    assert!(!driver.wal.sync_mark_due());
    driver.append(1, 3000);
    assert!(!driver.wal.sync_mark_due(), "nothing is synced yet");
    driver.sync(0).unwrap();
    assert!(driver.wal.sync_mark_due());
    let unmarked = driver.disk.image();
    let batch = last_page(&unmarked);
    driver.wal.stage_sync_mark();
    assert!(!driver.wal.sync_mark_due());
    driver.sync(0).unwrap();
    assert!(!driver.wal.sync_mark_due(), "a mark needs no mark");
    let marked = driver.disk.image();

    // A sector of the acknowledged entry reads as zeros. Unmarked, that is how a tear looks.
    let lose = |image: &Image| {
        let mut image = image.clone();
        let bytes = image.get_mut("log/00000000000000000001.seg").unwrap();
        bytes[batch + 1024..batch + 1536].fill(0);
        image
    };
    let torn = Driver::open_image(&lose(&unmarked)).unwrap();
    assert_eq!(torn.recovered.last.index, index(0));
    let damage = damage_of(&lose(&marked));
    assert_eq!(damage.extent, DamageExtent::Entries { first: index(1), last: index(1) });
    assert_eq!(damage.offset, u64::try_from(batch).unwrap());
    // A start after an unmarked end asks for a mark, a start after a marked one does not.
    assert!(Driver::open_image(&unmarked).unwrap().wal.sync_mark_due());
    assert!(!Driver::open_image(&marked).unwrap().wal.sync_mark_due());
}

#[test]
fn every_batch_carries_the_watermark_of_the_one_before() {
    let mut driver = fresh();
    driver.wal.set_hard_state(hard_state(1), 1);
    let mut ends = vec![2 * 4096];
    for _ in 0..5 {
        driver.append(1, 1000);
        driver.sync(0).unwrap();
        ends.push(last_page(&driver.disk.image()) + 4096);
    }
    let image = driver.disk.image();
    for &start in &ends[..5] {
        let header = &image["log/00000000000000000001.seg"][start..start + 64];
        let field = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!((field(40), usize::try_from(field(44)).unwrap()), (1, start));
    }
}

#[test]
fn payloads_come_from_memory_and_from_the_map_alike() {
    let mut driver = fresh();
    driver.wal.set_hard_state(hard_state(1), 1);
    for _ in 0..20 {
        driver.append(1, 3000);
        let staged = driver.log();
        driver.background();
        let seq = driver.next_seq();
        let job = driver.wal.begin_job(seq, index(0)).unwrap();
        assert_eq!(driver.log(), staged, "in flight");
        job.run().unwrap();
        driver.wal.job_done(seq);
        driver.wal.trim_cache(driver.wal.last().index);
        assert_eq!(driver.log(), staged, "synced");
        assert_eq!(Driver::open(&driver.disk).unwrap().log(), staged, "mapped");
    }
}

#[test]
fn a_payload_damaged_under_way_is_refused() {
    let mut driver = fresh();
    let crc = driver.wal.append(at(1, 1), EntryKind::Commands, b"sent");
    assert_eq!(driver.wal.meta(index(1)).unwrap().crc, crc);
    let mut follower = fresh();
    let wrong = follower.wal.append_verified(at(1, 1), EntryKind::Commands, b"sunk", crc);
    assert_eq!(wrong.unwrap_err().index, index(1));
    follower.wal.append_verified(at(1, 1), EntryKind::Commands, b"sent", crc).unwrap();
    assert_eq!(follower.wal.meta(index(1)).unwrap().crc, crc);
}

#[test]
#[should_panic(expected = "what is committed is never cut")]
fn cutting_below_the_commit_index_stops_the_process() {
    let mut driver = fresh();
    driver.wal.set_hard_state(hard_state(1), 1);
    for _ in 0..3 {
        driver.append(1, 10);
    }
    driver.sync(2).unwrap();
    driver.wal.truncate(at(1, 1));
}

#[test]
fn damage_found_while_reading_names_the_entry() {
    let mut driver = fresh();
    driver.wal.set_hard_state(hard_state(1), 1);
    driver.append(1, 100);
    driver.append(1, 100);
    driver.sync(0).unwrap();
    let reopened = Driver::open(&driver.disk).unwrap();
    let file = raftd::wal::Disk::open(&driver.disk, "log/00000000000000000001.seg").unwrap();
    file.write_at(8192 + 192 + 70, b"rot").unwrap();
    let mut scratch = Vec::new();
    assert!(reopened.wal.payload(index(1), &mut scratch).is_ok());
    let damage = reopened.wal.payload(index(2), &mut scratch).unwrap_err();
    assert_eq!(damage.extent.first(), index(2));
}

#[test]
fn the_wrong_directory_is_named_and_left_alone() {
    let disk = fresh().disk;
    let writes = disk.writes();
    let other_node = Options { node: node(2), ..options() };
    let error = error_of(&disk, &other_node);
    assert!(matches!(error, OpenError::WrongNode { found, asked }
        if found == node(1) && asked == node(2)));
    assert!(error.to_string().contains("belongs to n1, not to n2"));
    let other_token = Options { token_hash: 78, ..options() };
    assert!(matches!(error_of(&disk, &other_token), OpenError::WrongCluster { .. }));
    assert_eq!(disk.writes(), writes);

    let foreign = Image::from([("notes.txt".to_owned(), b"mine".to_vec())]);
    let disk = SimDisk::from_image(&foreign, 1);
    assert!(matches!(error_of(&disk, &options()), OpenError::NotADataDirectory { .. }));
    let nothing = Options { cluster_id: None, ..options() };
    let error = error_of(&SimDisk::new(1), &nothing);
    assert!(matches!(error, OpenError::NotADataDirectory { .. }));
}

#[test]
fn a_log_without_identity_is_refused_and_a_half_made_directory_is_made_anew() {
    for operations in 0.. {
        let disk = SimDisk::new(1);
        disk.light_fuse(operations);
        let made = Driver::open(&disk).is_ok();
        let image = disk.image();
        assert!(Driver::open_image(&image).is_ok(), "cut short after {operations} operations");
        if made {
            assert!(operations > 20);
            break;
        }
    }
    let mut driver = fresh();
    driver.wal.set_hard_state(hard_state(1), 1);
    driver.append(1, 10);
    driver.sync(0).unwrap();
    let mut lost = driver.disk.image();
    lost.remove("IDENTITY");
    let disk = SimDisk::from_image(&lost, 1);
    assert!(matches!(error_of(&disk, &options()), OpenError::Incomplete { .. }));
    assert_eq!(disk.writes(), 0);

    let mut damaged = driver.disk.image();
    damaged.get_mut("IDENTITY").unwrap()[20] ^= 1;
    let error = Driver::open_image(&damaged).err().unwrap();
    assert!(matches!(error, OpenError::IdentityDamaged { .. }));
}

#[test]
fn one_copy_of_the_hard_state_is_enough_and_none_is_too_few() {
    let mut driver = fresh();
    for term in 1..=4 {
        driver.wal.set_hard_state(hard_state(term), 5);
        driver.sync(0).unwrap();
    }
    let image = driver.disk.image();
    for slot in [0, 4096] {
        for copy in ["hs.0", "hs.1"] {
            let mut one = image.clone();
            one.get_mut(copy).unwrap()[slot + 30] ^= 8;
            let disk = SimDisk::from_image(&one, 1);
            let repaired = Driver::open(&disk).unwrap();
            assert_eq!(repaired.recovered.hard_state, hard_state(4));
            assert_eq!(repaired.recovered.genesis, 5);
            // Now the other copy may go as well.
            let mut other = disk.image();
            let name = if copy == "hs.0" { "hs.1" } else { "hs.0" };
            other.get_mut(name).unwrap()[slot + 30] ^= 8;
            assert_eq!(Driver::open_image(&other).unwrap().recovered.hard_state, hard_state(4));
        }
        let mut both = image.clone();
        for copy in ["hs.0", "hs.1"] {
            both.get_mut(copy).unwrap()[slot..slot + 4096].fill(0);
        }
        let error = Driver::open_image(&both).err().unwrap();
        assert!(matches!(error, OpenError::HardStateLost { .. }), "{error}");
    }
    let mut missing = image.clone();
    missing.remove("hs.0");
    assert_eq!(Driver::open_image(&missing).unwrap().recovered.hard_state, hard_state(4));
}

/// Another server's promises are no older copy of ours: they are refused by the name of their file.
#[test]
fn a_hard_state_of_another_data_directory_is_refused() {
    let image = fresh().disk.image();
    let other = Options { disk_id_if_new: DiskId(99), ..options() };
    let strange = SimDisk::new(1);
    open(strange.disk(), &other).unwrap();
    for name in ["hs.0", "hs.1"] {
        let mut mixed = image.clone();
        mixed.insert(name.to_owned(), strange.image()[name].clone());
        let error = Driver::open_image(&mixed).err().unwrap();
        assert!(matches!(error, OpenError::OtherDisk { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_hard_state_older_than_the_log_abstains() {
    let mut driver = fresh();
    driver.wal.set_hard_state(hard_state(1), 1);
    driver.append(1, 10);
    driver.sync(0).unwrap();
    let old: Image =
        driver.disk.image().into_iter().filter(|(name, _)| name.starts_with("hs.")).collect();
    driver.wal.set_hard_state(hard_state(4), 1);
    driver.append(4, 10);
    driver.sync(0).unwrap();
    let mut image = driver.disk.image();
    image.extend(old);
    let stale = Driver::open_image(&image).unwrap();
    assert!(stale.recovered.report.hard_state_stale);
    let abstains = HardState { term: Term::new(4), vote: Vote::Abstain };
    assert_eq!(stale.recovered.hard_state, abstains);
}

/// A tail file that is put back from an old copy ends before what the hard state vouches for.
#[test]
fn a_log_that_went_back_is_refused() {
    let mut driver = fresh();
    driver.wal.set_hard_state(hard_state(1), 1);
    driver.append(1, 10);
    driver.sync(0).unwrap();
    let old = driver.disk.image();
    driver.append(1, 10);
    driver.sync(0).unwrap();
    driver.wal.stage_shutdown();
    driver.sync(0).unwrap();
    let now = driver.disk.image();
    assert!(Driver::open_image(&now).unwrap().recovered.report.clean);
    let name = "log/00000000000000000001.seg";
    let mut image = now;
    image.insert(name.to_owned(), old[name].clone());
    assert_eq!(damage_of(&image).extent, DamageExtent::From(index(2)));
}

/// One commit index in every header of a batch is not safe: if the batch tears between an old entry
/// and the TRUNC behind it, the suffix that the TRUNC cut is back, and the header before would call
/// it committed.
/// Else it would be in force after the next start, although its entry is gone.
#[test]
fn a_configuration_that_was_cut_off_is_not_found_again() {
    let mut driver = fresh();
    driver.wal.set_hard_state(hard_state(2), 5);
    let members = b"members";
    driver.wal.append(at(1, 1), EntryKind::Configuration, members);
    driver.append(1, 10);
    driver.wal.append(at(3, 1), EntryKind::Configuration, members);
    driver.sync(1).unwrap();
    driver.wal.truncate(at(2, 1));
    driver.append(2, 10);
    driver.append(2, 10);
    driver.sync(1).unwrap();
    let again = Driver::open(&driver.disk).unwrap().recovered;
    assert_eq!(again.last, at(4, 2));
    assert_eq!(again.configurations, [(index(1), members.to_vec())]);
}

#[test]
fn a_torn_truncation_leaves_nothing_committed_that_it_cut() {
    let mut driver = fresh();
    driver.wal.set_hard_state(hard_state(9), 1);
    for _ in 0..4 {
        driver.append(1, 10);
    }
    driver.sync(1).unwrap();
    driver.append(1, 4000);
    driver.wal.truncate(at(2, 1));
    for _ in 0..3 {
        driver.append(9, 10);
    }
    driver.sync(5).unwrap();
    let mut image = driver.disk.image();
    // The batch's first page is there, with the header of entry 5; the page with the TRUNC is not.
    let bytes = image.get_mut("log/00000000000000000001.seg").unwrap();
    bytes[4 * 4096..].fill(0);
    let torn = Driver::open_image(&image).unwrap();
    assert_eq!(torn.recovered.last, at(5, 1).min(torn.recovered.last));
    assert!(torn.recovered.commit_index <= index(2), "{}", torn.recovered.commit_index);
}

#[test]
fn every_error_is_one_line() {
    let path = std::path::PathBuf::from("data/1");
    let errors = [
        OpenError::InUse { path: path.clone() },
        OpenError::WrongCluster { path: path.clone() },
        OpenError::NotADataDirectory { path: path.clone() },
        OpenError::Incomplete { path: path.clone() },
        OpenError::IdentityDamaged { path: path.clone() },
        OpenError::Version { path: path.clone(), found: 2, known: 1 },
        OpenError::HardStateLost { path },
    ];
    for error in errors {
        let text = error.to_string();
        assert!(!text.contains('\n') && text.contains("data/1") && text.contains(':'), "{text}");
    }
}

#[test]
fn an_empty_directory_holds_nothing_and_knows_who_it_is() {
    let driver = fresh();
    let Driver { recovered, .. } = &driver;
    assert_eq!(recovered.last.index, index(0));
    assert_eq!(recovered.hard_state, HardState::default());
    assert_eq!(recovered.genesis, 0);
    assert_eq!(recovered.identity.node, node(1));
    let again = Options { cluster_id: None, ..options() };
    let (_, second) = open(driver.disk.disk(), &again).unwrap();
    assert_eq!(second.identity, recovered.identity);
    assert_eq!(payload(at(1, 1), 3).len(), 3);
}
