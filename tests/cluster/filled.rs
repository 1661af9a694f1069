//! Memory that the host has filled. A virtual machine gets its memory from the host when it is
//! touched for the first time, and the thread that touches it waits: now and then for longer than a
//! turn of the loop may take, in its own CPU time, and nothing is counted as stolen.

use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::hint::black_box;
use std::time::Duration;

const PAGE_BYTES: usize = 4096;
/// What a turn touches at most, about: as much is looked at at once.
const LOOK_BYTES: usize = 128 * 1024;
const AREA_BYTES: usize = 1 << 30;

/// Touches three quarters of the memory that is free, lets go of it, and says what the longest
/// touch of 128 KiB took.
pub(super) fn touch_free_memory() {
    let areas = available_bytes() / 4 * 3 / AREA_BYTES;
    let mut longest = Duration::ZERO;
    let touched: Vec<Vec<u8>> = (0..areas)
        .map(|_| {
            let mut area = vec![0; AREA_BYTES]; // untouched: the kernel has zeros without it
            for part in area.chunks_mut(LOOK_BYTES) {
                let began = thread_cpu();
                part.iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = 1);
                longest = longest.max(thread_cpu() - began);
            }
            black_box(area)
        })
        .collect();
    let longest_us = longest.as_micros();
    println!("memory: {} GiB touched, 128 KiB in at most {longest_us} us of CPU", touched.len());
}

/// What can be had without swapping; nothing where the kernel does not say. Bytes.
fn available_bytes() -> usize {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<usize> = line.and_then(|it| it.split_whitespace().next()?.parse().ok());
    kib.unwrap_or_default() * 1024
}

/// The CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.try_into().unwrap())
}
