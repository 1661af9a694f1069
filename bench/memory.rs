//! Memory that the machine really has, before anything is timed.
//!
//! A virtual machine gets a page from its host at the first touch; measured here, that costs 15 µs
//! a page of
//! 4 KiB against 2 µs later on. Logs in /dev/shm and the page cache take new pages all the time, so
//! that without
//! this the rows would measure the host: 4 µs of a put's 8.

use crate::Result;
use crate::cluster::Scratch;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// More than the rows of a group write in a few seconds. Bytes.
const TOUCHED_BYTES: u64 = 3 * 1024 * 1024 * 1024;

const PIECE_BYTES: usize = 1024 * 1024;

/// Touches memory by way of a file in /dev/shm, then gives it back to the kernel.
pub(crate) fn touch() -> Result<()> {
    let bytes = TOUCHED_BYTES.min(available_bytes()? / 4);
    let directory = Scratch::make(Path::new("/dev/shm"), "touch")?;
    let mut file = File::create_new(directory.path.join("pages"))?;
    let piece = vec![1; PIECE_BYTES];
    for _ in 0..bytes / u64::try_from(PIECE_BYTES)? {
        file.write_all(&piece)?;
    }
    Ok(())
}

fn available_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let words = line.ok_or("/proc/meminfo has no MemAvailable")?;
    let kib = words.split_ascii_whitespace().next().unwrap_or_default();
    Ok(kib.parse::<u64>()? * 1024)
}
