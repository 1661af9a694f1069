//! Memory that the machine really has, before anything is timed.
//!
//! A virtual machine gets a page from its host at the first touch, and may give it back some
//! seconds after it was freed; measured here, that costs 9 to 15 µs a page of 4 KiB against 2 µs
//! otherwise. Logs in /dev/shm and the page cache take new pages all the time, so that without this
//! the rows would measure the host: 2 to 4 µs of a put's 6. So pages are touched, held, and freed
//! just before the slice that needs them.

use crate::Result;
use crate::options::Plan;
use crate::rows::Group;
use crate::scratch::Scratch;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// What three servers at 350,000 puts a second take in a millisecond. Bytes.
const BYTES_PER_MS: u64 = 400 * 1024;

const PIECE_BYTES: usize = 1024 * 1024;

/// Pages held in a file in /dev/shm.
#[derive(Debug)]
pub(crate) struct Reserve {
    file: File,
    held: u64,
    #[expect(dead_code, reason = "held for its drop")]
    directory: Scratch,
}

impl Reserve {
    /// Touches and holds what the puts of `group` will take, at most a quarter of what is free.
    pub(crate) fn hold(plan: &Plan, group: &Group) -> Result<Reserve> {
        let puts = group.rows.iter().filter(|row| row.workload.writes());
        // Two slices of raftd's to a round of A B B A.
        let slices = puts.map(|row| match u64::try_from(row.against.len()) {
            Ok(peers @ 1..) => 2 * peers * u64::from(plan.rounds),
            Ok(0) | Err(_) => u64::from(plan.slices),
        });
        let slice_ms = plan.row_ms / u64::from(plan.slices);
        let wanted = slices.sum::<u64>() * slice_ms * 5 / 4 * BYTES_PER_MS;
        let bytes = wanted.min(available_bytes()? / 4);
        let directory = Scratch::make(Path::new("/dev/shm"), "touch")?;
        let mut file = File::create_new(directory.path.join("pages"))?;
        let piece = vec![1; PIECE_BYTES];
        let pieces = bytes / u64::try_from(PIECE_BYTES)?;
        for _ in 0..pieces {
            file.write_all(&piece)?;
        }
        Ok(Reserve { file, held: pieces * u64::try_from(PIECE_BYTES)?, directory })
    }

    /// Frees what a slice of `time` will take.
    pub(crate) fn free_for(&mut self, time: Duration) -> Result<()> {
        let wanted = u64::try_from(time.as_millis())? * BYTES_PER_MS;
        self.held = self.held.saturating_sub(wanted);
        Ok(self.file.set_len(self.held)?)
    }
}

fn available_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let words = line.ok_or("/proc/meminfo has no MemAvailable")?;
    let kib = words.split_ascii_whitespace().next().unwrap_or_default();
    Ok(kib.parse::<u64>()? * 1024)
}
