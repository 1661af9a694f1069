//! Memory that the machine really has, before anything is timed.
//!
//! A virtual machine gets a page from its host at the first touch, and may give it back some
//! seconds after it was freed; measured here, that costs 9 to 15 µs a page of 4 KiB against 2 µs
//! otherwise. Logs in /dev/shm and the page cache take new pages all the time, so that without this
//! the rows would measure the host: 2 to 4 µs of a put's 6. So pages are touched and freed just
//! before every slice that writes, whoever is measured.

use crate::Result;
use crate::scratch::Scratch;
use rustix::fs::fstatvfs;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::Path;
use std::time::Duration;

/// What three servers at 350,000 puts a second take in a millisecond. Bytes.
const BYTES_PER_MS: u64 = 400 * 1024;

const PIECE_BYTES: usize = 1024 * 1024;

/// Where pages are touched: a file in /dev/shm.
#[derive(Debug)]
pub(crate) struct Reserve {
    file: File,
    piece: Vec<u8>,
    #[expect(dead_code, reason = "held for its drop")]
    directory: Scratch,
}

impl Reserve {
    /// None touched yet.
    pub(crate) fn make() -> Result<Reserve> {
        let directory = Scratch::make(Path::new("/dev/shm"), "touch")?;
        let file = File::create_new(directory.path.join("pages"))?;
        Ok(Reserve { file, piece: vec![1; PIECE_BYTES], directory })
    }

    /// Touches and frees what the puts of so much time will take, at most a quarter of what is
    /// free, and half of what /dev/shm takes.
    pub(crate) fn free_for(&mut self, time: Duration) -> Result<()> {
        let wanted = u64::try_from(time.as_millis())? * BYTES_PER_MS;
        let room = fstatvfs(&self.file)?;
        let bytes = wanted.min(available_bytes()? / 4).min(room.f_bavail * room.f_frsize / 2);
        self.file.rewind()?;
        for _ in 0..bytes / u64::try_from(PIECE_BYTES)? {
            self.file.write_all(&self.piece)?;
        }
        Ok(self.file.set_len(0)?)
    }
}

fn available_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let words = line.ok_or("/proc/meminfo has no MemAvailable")?;
    let kib = words.split_ascii_whitespace().next().unwrap_or_default();
    Ok(kib.parse::<u64>()? * 1024)
}
