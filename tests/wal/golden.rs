//! One file of every format, as it was when the format was made. `UPDATE=1` writes them anew: then
//! read the diff.
//!
//! The files are hexadecimal, 64 bytes a line, zero lines left out.

use super::sim_disk::{Image, SimDisk};
use super::support::{Driver, at, hard_state, index, options};
use raftd::types::EntryKind;
use std::fmt::Write;
use std::path::PathBuf;

const FILES: [&str; 4] = ["IDENTITY", "hs.0", "hs.1", "log/00000000000000000001.seg"];

/// A closed segment with a record of each kind, and the hard state behind it.
fn build() -> Driver {
    let mut driver = Driver::open(&SimDisk::new(1)).unwrap();
    driver.wal.set_hard_state(hard_state(3), 0x6e51);
    driver.wal.append(at(1, 1), EntryKind::Configuration, b"configuration");
    driver.wal.append(at(2, 2), EntryKind::NoOp, b"");
    driver.wal.append(at(3, 2), EntryKind::Commands, b"superseded");
    driver.sync(0).unwrap();
    driver.wal.truncate(at(2, 2));
    driver.wal.append(at(3, 3), EntryKind::Commands, b"commands");
    driver.sync(3).unwrap();
    driver.wal.stage_sync_mark();
    driver.sync(3).unwrap();
    for number in 4..=8 {
        driver.wal.append(at(number, 3), EntryKind::Commands, &[0; 9000]);
        driver.background();
        driver.sync(number - 1).unwrap();
    }
    assert!(driver.wal.log_bytes() > 64 * 1024, "the first segment is closed");
    driver
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = format!("{} bytes\n", bytes.len());
    for (row, line) in bytes.chunks(64).enumerate() {
        if line.iter().any(|&byte| byte != 0) {
            write!(text, "{:08x} ", row * 64).unwrap();
            for byte in line {
                write!(text, "{byte:02x}").unwrap();
            }
            text.push('\n');
        }
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    let mut lines = text.lines();
    let length = lines.next().unwrap().strip_suffix(" bytes").unwrap();
    let mut bytes = vec![0; length.parse().unwrap()];
    for line in lines {
        let (offset, digits) = line.split_once(' ').unwrap();
        let offset = usize::from_str_radix(offset, 16).unwrap();
        for (at, pair) in digits.as_bytes().chunks(2).enumerate() {
            let pair = std::str::from_utf8(pair).unwrap();
            bytes[offset + at] = u8::from_str_radix(pair, 16).unwrap();
        }
    }
    bytes
}

fn path_of(name: &str) -> PathBuf {
    let file = format!("{}.hex", name.replace('/', "-"));
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wal/golden").join(file)
}

#[test]
fn the_formats_are_what_they_were() {
    let image = build().disk.image();
    for name in FILES {
        let now = to_hex(&image[name]);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path_of(name), &now).unwrap();
        }
        let then = std::fs::read_to_string(path_of(name)).unwrap();
        assert!(now == then, "{name} changed: a new format needs a version");
    }
}

#[test]
fn the_golden_files_are_recovered() {
    recover(&FILES);
    // As they were before there were snapshots.
    recover(&[FILES[0], "hs.0-version-1", "hs.1-version-1", FILES[3]]);
}

fn recover(files: &[&str; 4]) {
    let mut image: Image = build().disk.image();
    for (golden, name) in files.iter().zip(FILES) {
        let text = std::fs::read_to_string(path_of(golden)).unwrap();
        image.insert(name.to_owned(), from_hex(&text));
    }
    let driver = Driver::open_image(&image).unwrap();
    assert_eq!(driver.recovered.hard_state, hard_state(3));
    assert_eq!(driver.recovered.genesis, 0x6e51);
    assert_eq!(driver.recovered.identity.cluster_id, options().cluster_id.unwrap());
    assert_eq!(driver.recovered.identity.disk_id, options().disk_id_if_new);
    assert_eq!(driver.recovered.configurations, [(index(1), b"configuration".to_vec())]);
    let log = driver.log();
    assert_eq!(log[2].payload, b"commands");
    assert_eq!(log[5].payload, [0; 9000]);
    assert_eq!(log.len(), 8);
}
