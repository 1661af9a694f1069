//! Snapshots and the log behind them: what comes into force and when, what goes and what stays.

mod cuts;
mod received;

use super::sim_disk::SimDisk;
use super::support::{
    Driver, LogEntry, SEGMENT_BYTES, at, hard_state, index, options, payload, snapshot_blocks,
};
use raftd::limits;
use raftd::types::{EntryKind, LogPosition, SnapshotId, Term};
use raftd::wal::{Block, OpenError, PieceFor, SnapshotEvent, Wal, open};

/// Entries of term 1 that fill several segments, durable and committed.
fn filled(disk: &SimDisk, entries: u64) -> Driver {
    let mut driver = Driver::open(disk).unwrap();
    driver.wal.set_hard_state(hard_state(1), 7);
    driver.sync(0).unwrap();
    fill(&mut driver, entries);
    driver
}

fn fill(driver: &mut Driver, entries: u64) {
    for _ in 0..entries {
        let next = LogPosition::new(Term::new(1), driver.wal.last().index.next());
        driver.wal.append(next, EntryKind::Commands, &payload(next, 6000));
        driver.sync(next.index.get()).unwrap();
        driver.background();
    }
}

/// A file that another server made: a snapshot of everything up to entry `last`.
fn others(last: u64) -> (SnapshotId, Vec<u8>) {
    let disk = SimDisk::new(99);
    let mut driver = filled(&disk, last);
    let id = driver.draft(last).unwrap();
    let image = disk.image();
    let (_, bytes) = image.iter().find(|(name, _)| name.ends_with(".snap")).unwrap();
    (id, bytes.clone())
}

/// Stores a received file and puts it in place; `None` if the power goes.
fn receive(wal: &mut Wal, id: SnapshotId, file: &[u8], piece: usize) -> Option<Vec<Vec<u8>>> {
    wal.begin_part(id);
    let mut blocks = Vec::new();
    let mut offset = None;
    loop {
        let Some(job) = wal.background_job() else {
            while let Some(block) = wal.take_block() {
                match block {
                    Block::Data(bytes) => blocks.push(bytes),
                    Block::Head(head) => assert_eq!(head.position, id.position),
                    Block::End { .. } => wal.accept_part(),
                }
            }
            continue;
        };
        match wal.background_done(job.run()) {
            Ok(Some(SnapshotEvent::PartStored { offset: stored, .. })) => offset = Some(stored),
            Ok(Some(SnapshotEvent::PartReady { .. })) => return Some(blocks),
            Err(_) | Ok(Some(SnapshotEvent::PartFailed { .. })) => return None,
            _ => {}
        }
        if let Some(from) = offset.take()
            && from < id.bytes
        {
            let from_usize = usize::try_from(from).unwrap();
            let end = file.len().min(from_usize + piece);
            assert!(wal.push_part(from, &file[from_usize..end]));
        }
    }
}

fn entries(first: u64, last: u64) -> Vec<LogEntry> {
    let entry = |number| LogEntry {
        term: Term::new(1),
        kind: EntryKind::Commands,
        payload: payload(at(number, 1), 6000),
    };
    (first..=last).map(entry).collect()
}

#[test]
fn the_log_behind_a_snapshot_goes_by_whole_segments_and_the_next_one_replaces_it() {
    let disk = SimDisk::new(1);
    let mut driver = filled(&disk, 60);
    let segments =
        |disk: &SimDisk| disk.image().keys().filter(|name| name.starts_with("log/")).count();
    let before = (driver.wal.log_bytes(), segments(&disk));
    driver.draft(55).unwrap();
    driver.wal.adopt_draft(index(55));
    assert_eq!(driver.wal.base(), at(0, 0), "not before the switch is durable");
    assert!(driver.wal.switch_due());
    driver.sync(60).unwrap();
    assert!(!driver.wal.switch_due());
    let base = driver.wal.take_compacted().unwrap();
    assert_eq!(driver.wal.base(), base);
    assert!(base.index < index(55) && base.index > index(30), "{base}");
    assert!(driver.wal.log_bytes() < before.0);
    driver.background();
    assert!(segments(&disk) < before.1);
    assert_eq!(driver.log(), entries(base.index.get() + 1, 60));
    assert_eq!(driver.wal.meta(base.index), None);

    // A second one takes the first one's place.
    fill(&mut driver, 30);
    driver.draft(80).unwrap();
    driver.wal.adopt_draft(index(80));
    driver.sync(90).unwrap();
    driver.background();
    let again = Driver::open(&disk).unwrap();
    let kept = again.recovered.base;
    assert!(kept > base);
    assert_eq!(again.log(), entries(kept.index.get() + 1, 90));
    assert_eq!(again.recovered.commit_index, index(90));
    assert_eq!(again.snapshot_blocks(), Ok(snapshot_blocks(at(80, 1))));
    assert_eq!(disk.image().keys().filter(|name| name.starts_with("snap/")).count(), 1);
    assert!(segments(&disk) <= 6, "{} segments", segments(&disk));
}

/// Small batches: each takes a page and holds a few bytes. What a log holds says little of how many
/// segments it takes, and so how many of them may go is not a matter of bytes. One stays beside a
/// snapshot of eight.
#[test]
fn of_the_segments_before_a_snapshot_all_go_or_all_but_one_however_little_they_hold() {
    let disk = SimDisk::new(1);
    let mut driver = Driver::open(&disk).unwrap();
    driver.wal.set_hard_state(hard_state(1), 7);
    for number in 1..=600 {
        driver.append(1, 10);
        driver.sync(number).unwrap();
        driver.background();
    }
    let segments = || {
        let files = disk.image().keys().filter(|name| name.starts_with("log/")).count();
        u64::try_from(files).unwrap()
    };
    let a_segment_holds = SEGMENT_BYTES / 4096;
    assert!(driver.wal.log_bytes() > 30 * SEGMENT_BYTES, "{}", driver.wal.log_bytes());
    let block = usize::try_from(SEGMENT_BYTES).unwrap();
    let drafts = [(90, 7, 0), (400, 8, 1), (420, 7, 0), (520, 3, 0), (600, 9, 1)];
    for (last, blocks, spared) in drafts {
        driver.draft_of(last, vec![vec![7; block]; blocks]).unwrap();
        driver.wal.adopt_draft(index(last));
        driver.sync(600).unwrap();
        driver.background();
        let before = last - driver.wal.base().index.get();
        let most = (1 + spared) * a_segment_holds;
        assert!(before <= most, "{before} entries stay of those up to {last}");
        // A quarter of a segment at most is for what is beside the entries.
        let least = spared * (a_segment_holds - 4);
        assert!(before >= least, "{before} entries stay of those up to {last}");
        // The one in which the snapshot ends, one before it, two spares and one in the making.
        let after = (600 - last).div_ceil(a_segment_holds - 4);
        let most = after + spared + 4;
        assert!(segments() <= most, "{} segments, {after} behind {last}", segments());
        let again = Driver::open(&disk).unwrap();
        assert_eq!(again.recovered.base, driver.wal.base());
    }
}

#[test]
fn what_a_snapshot_replaced_is_removed_while_the_next_one_is_written() {
    let disk = SimDisk::new(1);
    let mut driver = filled(&disk, 60);
    let files = |disk: &SimDisk| disk.image().len();
    let before = files(&disk);
    driver.draft(55).unwrap();
    driver.wal.adopt_draft(index(55));
    driver.sync(60).unwrap();
    // Where snapshots follow one another, the next one always has something to write.
    driver.wal.begin_draft(at(60, 1), (index(1), b"configuration".to_vec()));
    driver.wal.push_draft(&mut snapshot_blocks(at(60, 1))[0]);
    let job = driver.wal.background_job().unwrap();
    driver.wal.background_done(job.run()).unwrap();
    assert!(files(&disk) < before, "{} files of {before}", files(&disk));
}

#[test]
fn entries_that_are_still_needed_stay() {
    let mut driver = filled(&SimDisk::new(1), 60);
    driver.draft(55).unwrap();
    driver.wal.adopt_draft(index(12));
    driver.sync(60).unwrap();
    assert!(driver.wal.base().index <= index(12));
}

#[test]
fn a_segment_that_cuts_into_the_one_before_is_no_beginning() {
    let disk = SimDisk::new(1);
    let mut driver = filled(&disk, 9);
    // Up to the end of a segment, not committed, then cut across its border.
    for number in 10..=24 {
        driver.wal.append(at(number, 1), EntryKind::Commands, &payload(at(number, 1), 6000));
        driver.sync(9).unwrap();
        driver.background();
    }
    driver.wal.truncate(at(15, 1));
    driver.wal.set_hard_state(hard_state(2), 7);
    for number in 16..=60 {
        driver.wal.append(at(number, 2), EntryKind::Commands, &payload(at(number, 2), 6000));
        driver.sync(number).unwrap();
        driver.background();
    }
    for last in [17, 23, 30, 45, 60] {
        driver.draft(last).unwrap();
        driver.wal.adopt_draft(index(last));
        driver.sync(60).unwrap();
        driver.background();
        let again = Driver::open(&disk).unwrap_or_else(|error| panic!("after {last}: {error}"));
        assert_eq!(again.log(), driver.log(), "after {last}");
        assert_eq!(again.recovered.base, driver.wal.base());
    }
    assert!(driver.wal.base().index > index(24));
}

#[test]
fn a_snapshot_whose_last_entry_is_in_the_log_keeps_what_follows() {
    let (id, file) = others(35);
    let disk = SimDisk::new(1);
    let mut driver = filled(&disk, 40);
    receive(&mut driver.wal, id, &file, 1000).unwrap();
    assert!(driver.wal.can_install(false));
    driver.wal.install_part(false);
    driver.sync(40).unwrap();
    driver.background();
    assert_eq!(driver.wal.last(), at(40, 1));
    let again = Driver::open(&disk).unwrap();
    assert_eq!(again.log(), driver.log());
    assert_eq!(again.snapshot_blocks(), Ok(snapshot_blocks(id.position)));
}

#[test]
fn a_job_of_a_log_that_was_replaced_meanwhile_proves_nothing_of_the_new_one() {
    let (id, file) = others(70);
    let disk = SimDisk::new(1);
    let mut driver = filled(&disk, 5);
    driver.wal.set_hard_state(hard_state(3), 7);
    receive(&mut driver.wal, id, &file, 4096).unwrap();
    driver.append(3, 100);
    let seq = driver.next_seq();
    let job = driver.wal.begin_job(seq, index(5)).unwrap();
    while !driver.wal.can_install(true) {
        driver.background();
    }
    driver.wal.install_part(true);
    job.run().unwrap();
    driver.wal.job_done(seq);
    driver.sync(70).unwrap();
    // Else the next start would look for entry 6 of term 3, which is gone, and find a lost tail.
    let again = Driver::open(&disk).unwrap();
    assert_eq!(again.recovered.last, id.position);
}

#[test]
fn what_was_received_before_a_restart_is_not_received_again() {
    let (id, file) = others(35);
    let disk = SimDisk::new(1);
    let mut driver = filled(&disk, 3);
    driver.wal.begin_part(id);
    let stored = |events: Vec<SnapshotEvent>| match events.as_slice() {
        [.., SnapshotEvent::PartStored { offset, .. }] => usize::try_from(*offset).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(stored(driver.background()), 0);
    let half = file.len() / 2;
    assert!(driver.wal.push_part(0, &file[..half]));
    assert_eq!(stored(driver.background()), half);
    assert!(!driver.wal.push_part(1, &file[1..half]), "it does not follow");
    // Another process goes on behind the last whole block.
    let mut driver = Driver::open(&disk).unwrap();
    driver.wal.begin_part(id);
    let from = stored(driver.background());
    assert!(from > half / 4 && from <= half, "{from} of {half}");
    assert!(driver.wal.push_part(u64::try_from(from).unwrap(), &file[from..]));
    driver.background();
    let blocks = std::iter::from_fn(|| driver.wal.take_block());
    let blocks: Vec<_> = blocks
        .filter_map(|it| if let Block::Data(bytes) = it { Some(bytes) } else { None })
        .collect();
    assert_eq!(blocks, snapshot_blocks(id.position));
}

#[test]
fn a_piece_that_was_written_and_not_synced_is_synced_before_it_counts() {
    let (id, file) = others(35);
    let disk = SimDisk::new(1);
    let mut driver = filled(&disk, 3);
    driver.wal.begin_part(id);
    driver.background();
    assert!(driver.wal.push_part(0, &file));
    // Killed between the write and the sync.
    disk.light_fuse(1);
    driver.background();
    assert!(disk.is_dead());
    disk.process_ends();
    let mut driver = Driver::open(&disk).unwrap();
    driver.wal.begin_part(id);
    let events = driver.background();
    let stored = events.iter().find_map(|event| match event {
        SnapshotEvent::PartStored { offset, .. } => Some(*offset),
        _ => None,
    });
    assert_eq!(stored, Some(id.bytes), "{events:?}");
    disk.power_loss();
    let image = disk.image();
    let (_, found) = image.iter().find(|(name, _)| name.ends_with(".part")).unwrap();
    assert_eq!(found, &file);
}

/// The first half of a snapshot's file has come and is durable.
fn half_received(disk: &SimDisk, id: SnapshotId, file: &[u8]) -> Driver {
    let mut driver = filled(disk, 3);
    driver.wal.begin_part(id);
    driver.background();
    assert!(driver.wal.push_part(0, &file[..file.len() / 2]));
    driver.background();
    driver
}

/// Whoever was killed during one transfer after the other kept what it had of each snapshot, until
/// the first start after one of them was in force.
#[test]
fn what_was_received_of_a_snapshot_goes_when_another_one_comes() {
    let (id, file) = others(35);
    let (another, _) = others(20);
    let disk = SimDisk::new(1);
    drop(half_received(&disk, id, &file));
    let parts = || disk.image().keys().filter(|name| name.ends_with(".part")).count();
    let mut driver = Driver::open(&disk).unwrap();
    assert_eq!(parts(), 1, "it may go on");
    driver.wal.begin_part(another);
    driver.background();
    assert_eq!(parts(), 1, "it does not");
}

/// Where the log had brought all of it meanwhile, nobody sent any snapshot, and it stayed until the
/// next start.
#[test]
fn what_was_received_of_a_snapshot_goes_when_one_of_ours_has_overtaken_it() {
    let (id, file) = others(35);
    for last in [35, 50] {
        let disk = SimDisk::new(1);
        drop(half_received(&disk, id, &file));
        let parts = || disk.image().keys().filter(|name| name.ends_with(".part")).count();
        let mut driver = Driver::open(&disk).unwrap();
        fill(&mut driver, 60);
        let mut comes_into_force = |last| {
            driver.draft(last).unwrap();
            driver.background();
            assert_eq!(parts(), 1, "up to {last} is not in force");
            driver.wal.adopt_draft(index(last));
            driver.sync(63).unwrap();
            driver.background();
            parts()
        };
        assert_eq!(comes_into_force(34), 1, "it may go on");
        assert_eq!(comes_into_force(last), 0, "{last}");
        let again = Driver::open(&disk).unwrap();
        assert_eq!(again.snapshot_blocks(), Ok(snapshot_blocks(at(last, 1))));
    }
}

/// A leader came back before the file of its snapshot, given up for that of the leader after it,
/// was removed; then it was, with all that had been received of it meanwhile.
#[test]
fn a_snapshot_that_is_received_again_is_not_removed_for_having_been_given_up() {
    let (id, file) = others(35);
    let (another, _) = others(20);
    let disk = SimDisk::new(1);
    let mut driver = half_received(&disk, id, &file);
    driver.wal.begin_part(another);
    driver.wal.begin_part(id);
    driver.background();
    let (_, Some(stored)) = driver.wal.part().unwrap() else { panic!("it was opened") };
    assert!(stored > 0, "it goes on");
    assert!(driver.wal.push_part(stored, &file[usize::try_from(stored).unwrap()..]));
    let events = driver.background();
    assert!(matches!(events.last(), Some(SnapshotEvent::PartRead { .. })), "{events:?}");
    assert!(receive(&mut driver.wal, id, &file, 900).is_some(), "put in place");
}

/// To write a large snapshot and to read it back takes as long as it takes. Whoever saved the one
/// before it heard nothing meanwhile, and gave up.
#[test]
fn clients_read_on_while_the_next_snapshot_is_written_and_read_back() {
    let disk = SimDisk::new(1);
    let mut driver = filled(&disk, 60);
    driver.draft(55).unwrap();
    driver.wal.adopt_draft(index(55));
    driver.sync(60).unwrap();
    driver.background();
    let source = driver.wal.snapshot().unwrap().clone();
    driver.wal.begin_draft(at(60, 1), (index(1), b"configuration".to_vec()));
    for _ in 0..20 {
        driver.wal.push_draft(&mut snapshot_blocks(at(60, 1))[0]);
    }
    driver.wal.read_piece(PieceFor::Client(1), &source, (0, 100), None);
    for _ in 0..3 {
        let job = driver.wal.background_job().expect("there is much to do");
        let event = driver.wal.background_done(job.run()).unwrap();
        if let Some(SnapshotEvent::Piece { piece, .. }) = event {
            assert_eq!(piece.bytes.len(), 100);
            return;
        }
    }
    panic!("it waits for all of the next one");
}

#[test]
fn a_part_that_is_damaged_is_dropped_and_begins_anew() {
    let (id, file) = others(20);
    for at in [0, 20, 70, file.len() / 2, file.len() - 1] {
        let disk = SimDisk::new(1);
        let mut driver = filled(&disk, 3);
        let mut damaged = file.clone();
        damaged[at] ^= 4;
        assert_eq!(receive(&mut driver.wal, id, &damaged, 900), None, "byte {at}");
        driver.background();
        assert!(driver.wal.part().is_none());
        assert!(!disk.image().keys().any(|name| name.contains(".part")), "byte {at}");
        assert!(receive(&mut driver.wal, id, &file, 900).is_some());
    }
}

/// A draft that is whole, and a part of the same snapshot that is not.
fn drafted_and_begun(disk: &SimDisk) -> (Driver, SnapshotId) {
    let (id, file) = others(35);
    let mut driver = filled(disk, 40);
    driver.wal.begin_part(id);
    driver.background();
    assert!(driver.wal.push_part(0, &file[..100]));
    driver.background();
    assert_eq!(driver.draft(35), Some(id));
    (driver, id)
}

/// Equal states make equal files: what is being received may have come into force as our own.
#[test]
fn giving_up_what_is_in_force_already_does_not_remove_it() {
    let disk = SimDisk::new(1);
    let (mut driver, id) = drafted_and_begun(&disk);
    driver.wal.adopt_draft(id.position.index);
    driver.sync(40).unwrap();
    driver.wal.abandon_part();
    driver.background();
    assert!(!disk.image().keys().any(|name| name.contains(".part")));
    let again = Driver::open(&disk).unwrap();
    assert_eq!(again.snapshot_blocks(), Ok(snapshot_blocks(id.position)));
}

/// The same of what is about to come into force as our own.
#[test]
fn giving_up_what_is_about_to_come_into_force_does_not_remove_it() {
    let disk = SimDisk::new(1);
    let (mut driver, id) = drafted_and_begun(&disk);
    driver.wal.abandon_part();
    driver.wal.adopt_draft(id.position.index);
    driver.sync(40).unwrap();
    driver.background();
    let again = Driver::open(&disk).unwrap();
    assert_eq!(again.snapshot_blocks(), Ok(snapshot_blocks(id.position)));
}

/// It was given up while it got its name, and its file stayed until the next start.
#[test]
fn a_snapshot_that_is_given_up_at_any_moment_leaves_no_file() {
    for done in 0.. {
        let disk = SimDisk::new(1);
        let mut driver = filled(&disk, 20);
        driver.wal.begin_draft(at(20, 1), (index(1), b"configuration".to_vec()));
        for mut block in snapshot_blocks(at(20, 1)) {
            driver.wal.push_draft(&mut block);
        }
        driver.wal.end_draft();
        for _ in 0..done {
            let job = driver.wal.background_job().expect("it is not in place yet");
            driver.wal.background_done(job.run()).unwrap();
        }
        let Some(job) = driver.wal.background_job() else {
            assert!(done > 4, "{done} jobs");
            return;
        };
        driver.wal.abandon_draft();
        driver.wal.background_done(job.run()).unwrap();
        driver.background();
        assert!(!driver.wal.snapshot_under_way());
        let image = disk.image();
        let left: Vec<_> = image.keys().filter(|name| name.starts_with("snap/")).collect();
        assert!(left.is_empty(), "given up during job {done}: {left:?}");
    }
}

#[test]
fn more_pieces_than_may_wait_are_not_taken() {
    let (id, file) = others(20);
    let mut driver = filled(&SimDisk::new(1), 3);
    driver.wal.begin_part(id);
    driver.background();
    let mut taken = 0;
    while driver.wal.push_part(taken, &file[..1]) {
        taken += 1;
    }
    assert_eq!(taken, limits::SNAPSHOT_PIECES_IN_FLIGHT_MAX);
}

#[test]
fn a_snapshot_that_is_lost_or_damaged_on_disk_is_not_served() {
    let disk = SimDisk::new(1);
    let mut driver = filled(&disk, 40);
    driver.draft(35).unwrap();
    driver.wal.adopt_draft(index(35));
    driver.sync(40).unwrap();
    driver.background();
    let image = disk.image();
    let name = image.keys().find(|name| name.starts_with("snap/")).unwrap().clone();

    let mut lost = image.clone();
    lost.remove(&name);
    let refused = open(SimDisk::from_image(&lost, 1).disk(), &options()).err().unwrap();
    assert!(matches!(refused, OpenError::SnapshotDamaged { .. }), "{refused}");
    assert!(refused.to_string().contains("missing"), "{refused}");

    for at in (0..image[&name].len()).step_by(61) {
        let mut damaged = image.clone();
        damaged.get_mut(&name).unwrap()[at] ^= 1;
        let driver = Driver::open_image(&damaged).unwrap();
        assert!(driver.snapshot_blocks().is_err(), "byte {at}");
    }
}

#[test]
fn a_snapshot_that_cannot_be_written_is_given_up_and_the_old_state_stays() {
    let disk = SimDisk::new(1);
    let mut driver = filled(&disk, 40);
    disk.fail_sync_after(2);
    assert_eq!(driver.draft(35), None);
    assert!(!driver.wal.snapshot_under_way());
    driver.background();
    assert!(!disk.image().keys().any(|name| name.starts_with("snap/")));
    driver.draft(36).unwrap();
}

#[test]
fn a_snapshot_that_cannot_be_read_back_as_it_was_written_is_none() {
    let disk = SimDisk::new(6);
    let mut driver = filled(&disk, 20);
    driver.wal.begin_draft(at(20, 1), (index(1), b"configuration".to_vec()));
    for mut block in snapshot_blocks(at(20, 1)) {
        driver.wal.push_draft(&mut block);
    }
    driver.background();
    let image = disk.image();
    disk.rot(image.keys().find(|name| name.ends_with(".tmp")).expect("blocks are written"));
    driver.wal.end_draft();
    let events = driver.background();
    let failed = |event: &SnapshotEvent| matches!(event, SnapshotEvent::DraftFailed { .. });
    assert!(events.iter().any(failed), "{events:?}");
    assert!(!disk.image().keys().any(|name| name.starts_with("snap/")));
}

/// A job in flight does not know of a snapshot that was ready after it was formed: until the next
/// one is done, a power loss leaves the old snapshot, which needs its log.
#[test]
fn a_job_that_was_formed_before_a_snapshot_was_ready_does_not_put_it_in_force() {
    let disk = SimDisk::new(7);
    let mut driver = filled(&disk, 40);
    let old = driver.draft(20).unwrap();
    driver.wal.adopt_draft(index(20));
    driver.sync(40).unwrap();
    driver.background();
    driver.append(1, 100);
    let seq = driver.next_seq();
    let job = driver.wal.begin_job(seq, index(40)).unwrap();
    driver.draft(35).unwrap();
    driver.wal.adopt_draft(index(35));
    job.run().unwrap();
    driver.wal.job_done(seq);
    driver.background();
    assert_eq!(driver.wal.snapshot().unwrap().id, old);
    disk.power_loss();
    let found = Driver::open(&disk).unwrap();
    assert_eq!(found.wal.snapshot().unwrap().id, old);
    assert_eq!(found.log(), driver.log());
}
