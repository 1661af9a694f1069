//! Memory that the host has filled. A virtual machine gets its memory from the host when it is
//! touched for the first time, and the thread that touches it waits: now and then for longer than a
//! turn of the loop may take, in its own CPU time, and nothing is counted as stolen. And the kernel
//! gives free memory back to the host in whole blocks of 2 MiB, seconds after it became free: then
//! the next touch is a first one again.
//!
//! Some hosts are slow now and then with memory that is touched often, for a second and for all
//! threads at once: a read of a few pages takes a hundred times as long as before. A witness that
//! only reads memory says whether this was such a time. It excuses nothing.

use super::patience::breathe;
use super::turn_lengths::TURN_US;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::time::{ClockId, clock_gettime};
use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const PAGE_BYTES: u64 = 4096;
/// What a turn touches at most, about: as much is looked at at once.
const LOOK_BYTES: u64 = 128 * 1024;
/// A page of each so many bytes is kept: no block that goes back to the host is free as a whole.
const KEPT_BYTES: u64 = 512 * 1024;

/// What the witness reads, a byte of each page, as a turn might.
const WITNESS_PAGES: usize = 1024;
/// From one read of the witness to the next.
const WITNESS_REST: Duration = Duration::from_millis(1);

/// While it lives, free memory is the host's no more: everybody else may have it all the same.
/// Says at its end what the witness saw.
pub(super) struct Filled {
    _kept: File,
    is_over: Arc<AtomicBool>,
    witness: Option<JoinHandle<Witness>>,
}

/// What the same few reads of memory took, again and again. CPU time.
#[derive(Clone, Copy, Default)]
struct Witness {
    reads: u64,
    longest: Duration,
    /// How many took as long as a whole turn may.
    long: u64,
}

impl Witness {
    fn look(is_over: &AtomicBool) -> Witness {
        let page_bytes = usize::try_from(PAGE_BYTES).unwrap();
        let memory = vec![1_u8; WITNESS_PAGES * page_bytes];
        let mut seen = Witness::default();
        while !is_over.load(Ordering::Relaxed) {
            let began = thread_cpu();
            black_box(memory.iter().step_by(page_bytes).map(|&byte| u64::from(byte)).sum::<u64>());
            let took = thread_cpu() - began;
            seen.reads += 1;
            seen.longest = seen.longest.max(took);
            seen.long += u64::from(took > Duration::from_micros(TURN_US));
            breathe(WITNESS_REST);
        }
        seen
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let Some(Ok(seen)) = self.witness.take().map(JoinHandle::join) else { return };
        let Witness { reads, longest, long } = seen;
        let longest_us = longest.as_micros();
        println!(
            "memory: {WITNESS_PAGES} pages read {reads} times, in at most {longest_us} us of CPU, \
             {long} times above {TURN_US}"
        );
    }
}

impl Filled {
    /// Touches three quarters of the memory that is free, lets go of all but a page in a hundred,
    /// and says what the longest touch of 128 KiB took.
    pub(super) fn touch() -> Filled {
        let bytes = available_bytes() / 4 * 3 / KEPT_BYTES * KEPT_BYTES;
        let file = File::from(memfd_create("filled", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, bytes).unwrap();
        let part = vec![1; LOOK_BYTES.try_into().unwrap()];
        let mut longest = Duration::ZERO;
        for at in (0..bytes).step_by(LOOK_BYTES.try_into().unwrap()) {
            let began = thread_cpu();
            file.write_all_at(&part, at).unwrap();
            longest = longest.max(thread_cpu() - began);
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for at in (0..bytes).step_by(KEPT_BYTES.try_into().unwrap()) {
            fallocate(&file, hole, at + PAGE_BYTES, KEPT_BYTES - PAGE_BYTES).unwrap();
        }
        let (mib, longest_us) = (bytes >> 20, longest.as_micros());
        println!("memory: {mib} MiB touched, 128 KiB in at most {longest_us} us of CPU");
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let witness = Some(thread::spawn(move || Witness::look(&told)));
        Filled { _kept: file, is_over, witness }
    }
}

/// What can be had without swapping; nothing where the kernel does not say. Bytes.
fn available_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|it| it.split_whitespace().next()?.parse().ok());
    kib.unwrap_or_default() * 1024
}

/// The CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.try_into().unwrap())
}
