//! A small log and every way to damage it: the verdict is that of the table, and nothing panics.
//!
//! The log is five batches of a page each, then one that no watermark covers:
//!
//! ```text
//! page 2   E1 configuration 1@1 · E2 no-op 2@2 · E3 3@2        commit 0
//! page 3   E4 4@2 · X5 5@2 · X6 6@2 (both superseded)          commit 2
//! page 4   T4 TRUNC to 4@2 · E5 5@3 · E6 6@3                   commit 3
//! page 5   M6 SYNCMARK                                         commit 3
//! page 6   E7 7@3                                              commit 3
//! page 7   E8 8@3 · E9 9@3                                     commit 3, unproven
//! page 8   zeros
//! ```

use super::sim_disk::{Image, SimDisk};
use super::support::{Driver, LogEntry, at, hard_state, payload};
use raftd::types::EntryKind;
use raftd::wal::{Contents, DamageExtent, OpenError, inspect};

const SEGMENT: &str = "log/00000000000000000001.seg";
const PAGE: usize = 4096;

/// What recovery says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// The whole log is there.
    Whole,
    /// The log ends with this entry: the rest was never acknowledged.
    EndsAt(u64),
    /// FAULTY: this entry, and all that is lost up to the other.
    Lost(u64, u64),
    /// UNCERTAIN from this entry on.
    Doubt(u64),
}
use Verdict::{Doubt, EndsAt, Lost, Whole};

/// A record of the log: where its header and its payload are, and what damage to either means.
struct Row {
    name: &'static str,
    offset: usize,
    payload: usize,
    header_damaged: Verdict,
    payload_damaged: Verdict,
}

const ROWS: [(&str, usize, Verdict, Verdict); 19] = [
    // Nothing before E1 has a term that could vouch for it; C is 0 until page 3.
    ("E1", 200, Doubt(1), Lost(1, 1)),
    // E3 says that 2 has term 2, and 1 has term 1: a truncation may hide between.
    ("E2", 0, Doubt(1), Whole),
    ("E3", 100, Lost(3, 3), Lost(3, 3)),
    ("PAD", 0, Whole, Whole),
    ("E4", 100, Lost(4, 4), Lost(4, 4)),
    // Superseded: a later TRUNC cuts them away.
    ("X5", 300, Whole, Whole),
    ("X6", 300, Whole, Whole),
    ("PAD", 0, Whole, Whole),
    // E5 says where it cuts as well.
    ("T4", 0, Whole, Whole),
    // Of another term than E4; C before is 2.
    ("E5", 700, Doubt(4), Lost(5, 5)),
    ("E6", 100, Lost(6, 6), Lost(6, 6)),
    ("PAD", 0, Whole, Whole),
    ("M6", 0, Whole, Whole),
    ("PAD", 0, Whole, Whole),
    ("E7", 500, Lost(7, 7), Lost(7, 7)),
    ("PAD", 0, Whole, Whole),
    // Beyond the watermark, but neither looks torn (L3, L4): they may have been acknowledged.
    ("E8", 600, Lost(8, 8), Lost(8, 8)),
    ("E9", 600, Lost(9, 9), Lost(9, 9)),
    // With nothing behind it, nobody can say that it was only padding (L4).
    ("PAD", 0, Doubt(10), Whole),
];

/// What the loss of a whole page means. Page 7 is the last batch: zero, as if it had never been
/// written.
const PAGES: [(usize, Verdict); 9] = [
    (0, Whole),
    (1, Whole),
    (2, Doubt(1)),
    // 4, 5 and 6 are lost, and then a TRUNC to 4 of the term of 3 says that 4 had it too.
    (3, Lost(4, 4)),
    (4, Doubt(3)),
    (5, Whole),
    (6, Lost(7, 7)),
    (7, EndsAt(7)),
    (8, Whole),
];

fn build() -> (Image, Vec<LogEntry>) {
    let mut driver = Driver::open(&SimDisk::new(1)).unwrap();
    driver.wal.set_hard_state(hard_state(3), 9);
    driver.wal.append(at(1, 1), EntryKind::Configuration, &payload(at(1, 1), 200));
    driver.wal.append(at(2, 2), EntryKind::NoOp, &[]);
    driver.append(2, 100);
    driver.sync(0).unwrap();
    driver.append(2, 100);
    driver.append(2, 300);
    driver.append(2, 300);
    driver.sync(2).unwrap();
    driver.wal.truncate(at(4, 2));
    driver.append(3, 700);
    driver.append(3, 100);
    driver.sync(3).unwrap();
    driver.wal.stage_sync_mark();
    driver.sync(3).unwrap();
    driver.append(3, 500);
    driver.sync(3).unwrap();
    driver.append(3, 600);
    driver.append(3, 600);
    driver.sync(3).unwrap();
    (driver.disk.image(), driver.log())
}

/// Walks the batches by the lengths in the headers, and by nothing else.
fn rows(image: &Image) -> Vec<Row> {
    let bytes = &image[SEGMENT];
    let mut rows = Vec::new();
    let mut offset = 2 * PAGE;
    while bytes[offset..offset + 4] == *b"RFR1" {
        let len = u32::from_le_bytes(bytes[offset + 32..offset + 36].try_into().unwrap());
        let payload = usize::try_from(len).unwrap();
        let (name, expected, header_damaged, payload_damaged) =
            *ROWS.get(rows.len()).expect("no more records than the table has");
        assert!(name == "PAD" || payload == expected, "{name} is not where the table says");
        rows.push(Row { name, offset, payload, header_damaged, payload_damaged });
        offset += 64 + payload.next_multiple_of(64);
    }
    assert_eq!(rows.len(), ROWS.len());
    assert_eq!(offset, 8 * PAGE);
    rows
}

fn verdict(image: &Image, log: &[LogEntry]) -> Verdict {
    let disk = SimDisk::from_image(image, 1);
    let seen = inspect(&*disk.disk()).unwrap();
    assert_eq!(disk.writes(), 0, "looking at a directory wrote to it");
    let first = read(&disk, log);
    assert_eq!(seen_verdict(&seen, log), first, "whoever only looks sees the same");
    if matches!(first, Whole | EndsAt(_)) {
        assert_eq!(read(&disk, log), first, "a second recovery says another thing");
    } else {
        assert_eq!(disk.writes(), 0, "a refused directory was written to");
    }
    first
}

/// What `inspect` says, in the words of `open`.
fn seen_verdict(seen: &Contents, log: &[LogEntry]) -> Verdict {
    let extents = seen.damages.iter().map(|damage| damage.extent);
    let first = extents.clone().map(|extent| extent.first().get()).min();
    let last = |extent| match extent {
        DamageExtent::Entries { last, .. } => Some(last.get()),
        DamageExtent::From(_) => None,
    };
    let last = extents.map(last).try_fold(0, |most, last| Some(last?.max(most)));
    match (first, last) {
        (None, _) if seen.log.entries.len() == log.len() => Whole,
        (None, _) => EndsAt(seen.log.last.index.get()),
        (Some(first), Some(last)) => Lost(first, last),
        (Some(first), None) => Doubt(first),
    }
}

fn read(disk: &SimDisk, log: &[LogEntry]) -> Verdict {
    match Driver::open(disk) {
        Ok(driver) => {
            let found = driver.log();
            assert!(log.starts_with(&found), "recovery made up an entry");
            let last = driver.recovered.last.index.get();
            if found.len() == log.len() { Whole } else { EndsAt(last) }
        }
        Err(OpenError::Damaged(damage)) => match damage.extent {
            DamageExtent::Entries { first, last } => Lost(first.get(), last.get()),
            DamageExtent::From(first) => Doubt(first.get()),
        },
        Err(error) => panic!("neither opened nor judged: {error}"),
    }
}

fn damaged(image: &Image, change: impl FnOnce(&mut Vec<u8>)) -> Image {
    let mut image = image.clone();
    change(image.get_mut(SEGMENT).unwrap());
    image
}

/// Damages each byte of the segment, the zeros behind the log too, and compares with the table.
fn attack_each_byte(damage: impl Fn(usize, u8) -> u8) {
    let (image, log) = build();
    assert_eq!(verdict(&image, &log), Whole);
    let rows = rows(&image);
    let mut refused = 0;
    for offset in 0..image[SEGMENT].len() {
        let byte = image[SEGMENT][offset];
        let other = damage(offset, byte);
        if other == byte {
            continue;
        }
        let row = rows.iter().rfind(|row| row.offset <= offset);
        let (name, expected) = match row {
            // One header page vouches for the other.
            None => ("header", Whole),
            // Behind the log: in the sector where the next record would begin it is garbage that no
            // tear leaves.
            Some(_) if (8 * PAGE..8 * PAGE + 512).contains(&offset) => ("end", Doubt(10)),
            Some(_) if 8 * PAGE <= offset => ("zeros", Whole),
            Some(row) if offset < row.offset + 64 => (row.name, row.header_damaged),
            Some(row) if offset < row.offset + 64 + row.payload => (row.name, row.payload_damaged),
            Some(row) => (row.name, Whole),
        };
        let got = verdict(&damaged(&image, |bytes| bytes[offset] = other), &log);
        assert_eq!(got, expected, "byte {offset} in {name}");
        refused += u32::from(got != Whole);
    }
    assert!(refused > 2000);
}

#[test]
fn a_zeroed_byte_is_judged_as_the_table_says() {
    attack_each_byte(|_, _| 0);
}

#[test]
fn a_flipped_bit_is_judged_as_the_table_says() {
    attack_each_byte(|offset, byte| byte ^ 1 << (offset % 8));
}

#[test]
fn a_lost_page_is_judged_as_the_table_says() {
    let (image, log) = build();
    for (page, expected) in PAGES {
        let zeroed = damaged(&image, |bytes| bytes[page * PAGE..(page + 1) * PAGE].fill(0));
        assert_eq!(verdict(&zeroed, &log), expected, "page {page}");
    }
    let both = damaged(&image, |bytes| bytes[..2 * PAGE].fill(0));
    assert_eq!(verdict(&both, &log), Doubt(1), "both header pages");
}

/// A spare whose preparation a power loss cut short had one good header page for as long as there
/// was the segment: whatever hit that one took everything in it (the simulator's seed 42342).
#[test]
fn a_bad_header_page_is_mended_by_the_other_one() {
    let (image, log) = build();
    for (first, then, seed) in (1..9).flat_map(|seed| [(0, 1, seed), (1, 0, seed)]) {
        let torn = damaged(&image, |bytes| bytes[first * PAGE + PAGE - 4..][..4].fill(0));
        let disk = SimDisk::from_image(&torn, seed);
        assert_eq!(read(&disk, &log), Whole);
        disk.power_loss();
        let rotten = damaged(&disk.image(), |bytes| bytes[then * PAGE + 70] ^= 4);
        assert_eq!(verdict(&rotten, &log), Whole, "page {first}, then page {then}");
    }
}

#[test]
fn a_lost_sector_of_the_last_batch_is_a_tear_and_elsewhere_damage() {
    let (image, log) = build();
    let rows = rows(&image);
    for sector in (2 * PAGE..8 * PAGE).step_by(512) {
        let zeroed = damaged(&image, |bytes| bytes[sector..sector + 512].fill(0));
        let touched: Vec<&Row> = rows
            .iter()
            .filter(|row| row.offset < sector + 512 && sector < row.offset + 64 + row.payload)
            .collect();
        let entries = touched.iter().any(|row| row.name.starts_with('E'));
        match verdict(&zeroed, &log) {
            Whole => assert!(!entries || sector < 2 * PAGE, "sector {sector} held an entry"),
            EndsAt(last) => {
                assert!(sector >= 7 * PAGE, "sector {sector} was synced");
                let expected = touched[0]
                    .name
                    .strip_prefix('E')
                    .map_or(9, |number| number.parse::<u64>().unwrap() - 1);
                assert_eq!(last, expected, "sector {sector}");
            }
            Lost(..) | Doubt(_) => assert!(sector < 7 * PAGE, "sector {sector} looks torn"),
        }
    }
}

/// Copies each record over the place of each other and behind the log: a header knows where it
/// belongs.
#[test]
fn a_record_in_another_place_never_counts() {
    let (image, log) = build();
    let rows = rows(&image);
    let mut targets: Vec<usize> = rows.iter().map(|row| row.offset).collect();
    targets.extend([8 * PAGE, 8 * PAGE + 64, 9 * PAGE]);
    for source in &rows {
        let length = 64 + source.payload.next_multiple_of(64);
        for &target in targets.iter().filter(|&&target| target != source.offset) {
            let copied = damaged(&image, |bytes| {
                bytes.copy_within(source.offset..source.offset + length, target);
            });
            let hit = rows.iter().filter(|row| {
                row.offset < target + length && target < row.offset + 64 + row.payload
            });
            let entries = hit.filter_map(|row| row.name.strip_prefix('E')?.parse::<u64>().ok());
            let lowest = entries.min();
            match (verdict(&copied, &log), lowest) {
                (Whole, None) => {}
                (Whole, Some(entry)) => panic!("{} over entry {entry} went unseen", source.name),
                (EndsAt(last), _) => panic!("cut at {last}: a copy is no tear"),
                (Lost(first, _) | Doubt(first), lowest) => {
                    assert!(first <= lowest.unwrap_or(10), "{} at {target}", source.name);
                }
            }
        }
    }
}

#[test]
fn a_file_of_another_length_is_refused() {
    let (image, log) = build();
    let pages = (0..16).chain([17]).map(|page| page * PAGE);
    for length in pages.chain([1, 100, 4095, 8191, 16 * PAGE - 1]) {
        let cut = damaged(&image, |bytes| bytes.resize(length, 0));
        let got = verdict(&cut, &log);
        assert!(matches!(got, Doubt(1..=10) | Lost(1..=10, _)), "{length} bytes: {got:?}");
    }
    let mut gone = image.clone();
    gone.remove(SEGMENT);
    assert_eq!(verdict(&gone, &log), Doubt(1), "no segment at all");
}

/// Fills three segments, so that two are closed.
fn build_long() -> (Image, Vec<LogEntry>) {
    let mut driver = Driver::open(&SimDisk::new(1)).unwrap();
    driver.wal.set_hard_state(hard_state(9), 9);
    for term in 1..=9 {
        for len in [4000, 100, 10_000] {
            driver.append(term, len);
            driver.background();
            driver.sync(driver.wal.last().index.get() - 1).unwrap();
        }
        if term % 3 == 0 {
            driver.append(term, 50);
            let kept = driver.wal.last().index.prev();
            driver.wal.truncate(at(kept.get(), term));
            driver.sync(0).unwrap();
        }
    }
    assert!(driver.wal.log_bytes() >= 3 * 64 * 1024);
    (driver.disk.image(), driver.log())
}

/// In a closed segment the FOOTER names every entry: each single damage is FAULTY with the right
/// index.
#[test]
fn a_closed_segment_knows_what_it_lost() {
    let (image, log) = build_long();
    assert_eq!(verdict(&image, &log), Whole);
    let rows = entries_of(&image[SEGMENT]);
    let mut index = 0;
    for (offset, kind, number, len) in rows {
        if kind != 1 {
            continue;
        }
        for at in [offset + 4, offset + 64 + len - 1] {
            let flipped = damaged(&image, |bytes| bytes[at] ^= 4);
            // What a TRUNC cut away is no loss.
            let superseded = log[number - 1].payload.len() != len;
            let number = u64::try_from(number).unwrap();
            let expected = if superseded { Whole } else { Lost(number, number) };
            assert_eq!(verdict(&flipped, &log), expected, "byte {at} of entry {number}");
        }
        index += 1;
    }
    assert!(index >= 6);
    for page in 2..16 {
        let zeroed = damaged(&image, |bytes| bytes[page * PAGE..(page + 1) * PAGE].fill(0));
        let got = verdict(&zeroed, &log);
        assert!(!matches!(got, EndsAt(_)), "page {page}: {got:?}");
    }
}

/// Offset, kind, index and payload length of each record.
pub(super) fn entries_of(bytes: &[u8]) -> Vec<(usize, u8, usize, usize)> {
    let number = |at: usize| {
        usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
    };
    let mut records = Vec::new();
    let mut offset = 2 * PAGE;
    while bytes[offset..offset + 4] == *b"RFR1" {
        let len = number(offset + 32) & 0xffff_ffff;
        records.push((offset, bytes[offset + 60], number(offset + 8), len));
        offset += 64 + len.next_multiple_of(64);
    }
    records
}

#[test]
fn a_lost_segment_is_refused() {
    let (image, log) = build_long();
    let names: Vec<String> =
        image.keys().filter(|name| name.starts_with("log/")).cloned().collect();
    for name in &names[..3] {
        let mut gone = image.clone();
        gone.remove(name);
        let got = verdict(&gone, &log);
        assert!(matches!(got, Lost(..) | Doubt(_)), "{name} gone: {got:?}");
        let mut empty = image.clone();
        empty.get_mut(name).unwrap().clear();
        let got = verdict(&empty, &log);
        assert!(matches!(got, Lost(..) | Doubt(_)), "{name} empty: {got:?}");
    }
    let mut swapped = image.clone();
    swapped.insert(names[1].clone(), image[&names[0]].clone());
    assert!(matches!(verdict(&swapped, &log), Lost(..) | Doubt(_)), "a segment under another name");
}

#[test]
fn garbage_in_place_of_the_log_never_panics() {
    let (image, log) = build();
    let mut rng = super::sim_disk::Rng(7);
    for _ in 0..300 {
        let garbled = damaged(&image, |bytes| {
            let from = rng.index(9 * PAGE);
            let until = (from + 1 + rng.index(2000)).min(9 * PAGE);
            for byte in &mut bytes[from..until] {
                *byte = rng.next().to_le_bytes()[0];
            }
        });
        match verdict(&garbled, &log) {
            Whole | Lost(..) | Doubt(_) => {}
            EndsAt(last) => assert!(last >= 7, "a synced entry was dropped"),
        }
    }
}

/// The device lost the write of a page and shows an older one, valid in itself: the next record
/// knows another predecessor.
#[test]
fn a_page_of_another_past_is_refused() {
    let past = |text: &[u8]| {
        let mut driver = Driver::open(&SimDisk::new(1)).unwrap();
        driver.wal.set_hard_state(hard_state(1), 9);
        for payload in [b"one", text, b"end"] {
            let next = at(driver.wal.last().index.next().get(), 1);
            driver.wal.append(next, EntryKind::Commands, payload);
            driver.sync(0).unwrap();
        }
        (driver.disk.image(), driver.log())
    };
    let (older, _) = past(b"two");
    let (image, log) = past(b"new");
    let page = 3 * PAGE..4 * PAGE;
    let spliced = damaged(&image, |bytes| {
        bytes[page.clone()].copy_from_slice(&older[SEGMENT][page.clone()]);
    });
    assert!(matches!(verdict(&spliced, &log), Lost(..) | Doubt(_)));
}

/// The hard state vouches only for what was durable at the last rotation. That the segment in use
/// is gone shows because a segment is closed only when the next one stands ready.
#[test]
fn a_lost_tail_file_is_refused() {
    let mut driver = Driver::open(&SimDisk::new(1)).unwrap();
    driver.wal.set_hard_state(hard_state(1), 9);
    while driver.wal.log_bytes() == 64 * 1024 {
        driver.append(1, 5000);
        driver.background();
        driver.sync(0).unwrap();
    }
    driver.append(1, 5000);
    driver.sync(0).unwrap();
    let (mut image, log) = (driver.disk.image(), driver.log());
    image.retain(|name, _| !name.starts_with("log/") || name == SEGMENT);
    assert_eq!(verdict(&image, &log), Doubt(driver.wal.last().index.prev().get()));
}

/// A segment of which nothing is left in the log, because a truncation at its end cut it all away:
/// nothing is lost with it that counts, yet the files are not what they were. Its loss was once
/// judged harmless, and then a panic.
#[test]
fn a_lost_segment_that_held_nothing_is_refused_too() {
    let mut driver = Driver::open(&SimDisk::new(1)).unwrap();
    driver.wal.set_hard_state(hard_state(1), 9);
    let fill = |driver: &mut Driver, segments: u64| {
        while driver.wal.log_bytes() < segments * 64 * 1024 {
            driver.background();
            driver.append(1, 5000);
            driver.sync(0).unwrap();
        }
    };
    fill(&mut driver, 2);
    let kept = driver.wal.last().index.prev();
    for _ in 0..4 {
        driver.background();
        driver.append(1, 5000);
        driver.sync(0).unwrap();
    }
    assert_eq!(driver.wal.log_bytes(), 2 * 64 * 1024);
    driver.wal.truncate(at(kept.get(), 1));
    driver.sync(0).unwrap();
    fill(&mut driver, 3);
    let (mut image, log) = (driver.disk.image(), driver.log());
    assert_eq!(verdict(&image, &log), Whole);
    image.get_mut("log/00000000000000000002.seg").unwrap().fill(0);
    let got = verdict(&image, &log);
    assert!(matches!(got, Lost(..) | Doubt(_)), "{got:?}");
}

/// Two faults: the end of a segment looks like a torn batch, and no record of the next segment can
/// be read any more. The next one was begun after a sync of that end: nothing is taken for a tear.
#[test]
fn what_looks_torn_before_a_segment_in_use_is_damage() {
    let (image, log) = build_long();
    let used = |(name, bytes): &(&String, &Vec<u8>)| {
        name.starts_with("log/") && bytes[2 * PAGE..].iter().any(|byte| *byte != 0)
    };
    let [.., (before, content), (last, _)] = &image.iter().filter(used).collect::<Vec<_>>()[..]
    else {
        panic!("the log has more segments");
    };
    let mut unread = image.clone();
    for (offset, ..) in entries_of(&image[*last]) {
        unread.get_mut(*last).unwrap()[offset + 4] ^= 4;
    }
    let end = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for sector in (2 * PAGE..end).step_by(512) {
        let mut torn = unread.clone();
        torn.get_mut(*before).unwrap()[sector..sector + 512].fill(0);
        let got = verdict(&torn, &log);
        assert!(matches!(got, Lost(..) | Doubt(_)), "sector at {sector}: {got:?}");
    }
}

fn newest_segment(image: &Image) -> u32 {
    let newest = image.keys().rfind(|name| name.starts_with("log/")).unwrap();
    newest[4..24].parse().unwrap()
}

/// A file that does not follow the others: empty, with garbage, or a copy of a segment under
/// another number. Every number between was once kept in memory as a lost segment, and an empty
/// file was then removed as a spare that was never finished.
#[test]
fn a_stray_file_in_the_log_directory_is_refused_and_named() {
    let (mut image, _) = build_long();
    image.retain(|_, bytes| bytes.iter().any(|&byte| byte != 0));
    let following = newest_segment(&image) + 1;
    for number in [following + 1, following + 100, u32::MAX - 1, u32::MAX] {
        let name = format!("log/{number:020}.seg");
        for content in [Vec::new(), vec![0; 3 * PAGE], vec![7; 100], image[SEGMENT].clone()] {
            let mut with = image.clone();
            with.insert(name.clone(), content);
            let disk = SimDisk::from_image(&with, 1);
            let Err(error) = Driver::open(&disk) else { panic!("{name} went unseen") };
            assert!(matches!(error, OpenError::Stray { .. }), "{error}");
            let said = error.to_string();
            assert!(said.contains(&name), "{said}");
            assert!(said.contains(&format!("log/{following:020}.seg")), "{said}");
            assert_eq!(disk.writes(), 0, "a refused directory was written to");
        }
    }
}

/// What lies under the next number was ours to prepare, or takes the place of what was.
#[test]
fn an_unfinished_spare_is_no_stray() {
    let (mut image, log) = build_long();
    image.retain(|_, bytes| bytes.iter().any(|&byte| byte != 0));
    let next = format!("log/{:020}.seg", newest_segment(&image) + 1);
    let mut with = image.clone();
    with.insert(next, Vec::new());
    assert_eq!(verdict(&with, &log), Whole);
}
