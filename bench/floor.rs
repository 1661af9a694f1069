//! What one put with nothing else in flight costs at least on this machine: two messages there and
//! back, and the second fastest of three syncs.
//!
//! ```text
//! floor = client echo + peer echo + second fastest of three concurrent (4 KiB pwrite + fdatasync)
//! ```
//! The echoes run between two threads pinned to different cores: a put passes through five threads,
//! of which no two neighbours share a core for long. The syncs go to three files written with zeros
//! before, as three servers' logs are; a majority of three is complete when the second one is. Each
//! sync is timed from its own start, so that the wake-up of the three threads is not in it: the
//! floor is the lower for that.

use crate::Result;
use crate::scratch::Scratch;
use raftd::client::Clock;
use raftd::client::load::{Histogram, histogram};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

/// Bytes of a request and its answer: a put of 16 and 256 bytes.
const CLIENT_BYTES: (usize, usize) = (291, 16);

/// Bytes of an AppendEntries with that put, and of its answer.
const PEER_BYTES: (usize, usize) = (340, 40);

/// Servers whose logs are synced at the same time.
const SERVERS: usize = 3;

const PAGE_BYTES: usize = 4096;
const FILE_PAGES: u64 = 1024;
const ECHOES: usize = 200;
const SYNCS: usize = 60;

/// Three files to sync, and the cores to echo between.
pub(crate) struct Floor {
    clock: Clock,
    files: Vec<File>,
    next_page: u64,
    /// Two cores, if there are two.
    cores: Option<(usize, usize)>,
    #[expect(dead_code, reason = "held for its drop")]
    directory: Scratch,
}

/// Nanoseconds of each part.
pub(crate) struct FloorTimes {
    /// A request and its answer.
    pub(crate) client_echo: Histogram,
    /// An AppendEntries and its answer.
    pub(crate) peer_echo: Histogram,
    /// The second fastest of three syncs.
    pub(crate) sync: Histogram,
}

impl FloorTimes {
    /// None yet.
    pub(crate) fn new() -> FloorTimes {
        FloorTimes { client_echo: histogram(), peer_echo: histogram(), sync: histogram() }
    }

    /// The median put that does nothing else. Nanoseconds.
    pub(crate) fn p50_ns(&self) -> u64 {
        let parts = [&self.client_echo, &self.peer_echo, &self.sync];
        parts.iter().map(|part| part.value_at_quantile(0.5)).sum()
    }
}

impl Floor {
    /// Writes the files below `parent`.
    pub(crate) fn prepare(clock: Clock, parent: &Path) -> Result<Floor> {
        let directory = Scratch::make(parent, "floor")?;
        let mut files = Vec::new();
        let zeros = vec![0; PAGE_BYTES * usize::try_from(FILE_PAGES)?];
        for number in 0..SERVERS {
            let file = File::create_new(directory.path.join(format!("log.{number}")))?;
            file.write_all_at(&zeros, 0)?;
            file.sync_all()?;
            files.push(file);
        }
        let allowed = sched_getaffinity(None)?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let cores = allowed.next().zip(allowed.next());
        Ok(Floor { clock, files, next_page: 0, cores, directory })
    }

    /// Whether the echoes have a core for each side.
    pub(crate) fn is_pinned(&self) -> bool {
        self.cores.is_some()
    }

    /// Measures each part once more.
    pub(crate) fn sample(&mut self, times: &mut FloorTimes) -> Result<()> {
        self.echo(CLIENT_BYTES, &mut times.client_echo)?;
        self.echo(PEER_BYTES, &mut times.peer_echo)?;
        self.sync(&mut times.sync)
    }

    fn echo(&self, (there, back): (usize, usize), times: &mut Histogram) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut near = TcpStream::connect(listener.local_addr()?)?;
        let (mut far, _) = listener.accept()?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (clock, cores) = (self.clock, self.cores);
        thread::scope(|scope| -> Result<()> {
            let answering = scope.spawn(move || -> Result<()> {
                pin(cores.map(|cores| cores.1))?;
                let (mut request, answer) = (vec![0; there], vec![1; back]);
                for _ in 0..ECHOES {
                    far.read_exact(&mut request)?;
                    far.write_all(&answer)?;
                }
                Ok(())
            });
            let asking = scope.spawn(move || -> Result<()> {
                pin(cores.map(|cores| cores.0))?;
                let (request, mut answer) = (vec![1; there], vec![0; back]);
                for _ in 0..ECHOES {
                    let start_ns = clock.now_ns();
                    near.write_all(&request)?;
                    near.read_exact(&mut answer)?;
                    times.saturating_record(clock.now_ns() - start_ns);
                }
                Ok(())
            });
            asking.join().expect("it does not panic")?;
            answering.join().expect("it does not panic")
        })
    }

    /// Rounds of three concurrent syncs; of each round the second fastest.
    pub(crate) fn sync(&mut self, times: &mut Histogram) -> Result<()> {
        let together = Barrier::new(self.files.len());
        let (clock, first_page) = (self.clock, self.next_page);
        let rounds = thread::scope(|scope| -> Result<Vec<Vec<u64>>> {
            let together = &together;
            let writers: Vec<_> = self
                .files
                .iter()
                .map(|file| scope.spawn(move || sync_often(clock, file, first_page, together)))
                .collect();
            let joined =
                writers.into_iter().map(|writer| writer.join().expect("it does not panic"));
            joined.collect()
        })?;
        for round in 0..SYNCS {
            let mut spent: Vec<u64> = rounds.iter().map(|own| own[round]).collect();
            spent.sort_unstable();
            times.saturating_record(spent[1]);
        }
        self.next_page = (first_page + u64::try_from(SYNCS)?) % FILE_PAGES;
        Ok(())
    }

    /// The median of syncs of one file, with nobody else. Nanoseconds.
    pub(crate) fn alone_p50_ns(&mut self) -> Result<u64> {
        let alone = Barrier::new(1);
        let mut spent = sync_often(self.clock, &self.files[0], self.next_page, &alone)?;
        self.next_page = (self.next_page + u64::try_from(SYNCS)?) % FILE_PAGES;
        spent.sort_unstable();
        Ok(spent[SYNCS / 2])
    }

    /// The median of some rounds of syncs now. Nanoseconds.
    pub(crate) fn sync_p50_ns(&mut self) -> Result<u64> {
        let mut times = histogram();
        self.sync(&mut times)?;
        Ok(times.value_at_quantile(0.5))
    }
}

fn sync_often(clock: Clock, file: &File, first_page: u64, together: &Barrier) -> Result<Vec<u64>> {
    let page = [0x5a; PAGE_BYTES];
    let mut spent = Vec::with_capacity(SYNCS);
    let mut failed = None;
    for round in 0..u64::try_from(SYNCS)? {
        // Whoever fails goes on meeting the others, who would wait for it forever.
        together.wait();
        let offset = (first_page + round) % FILE_PAGES * u64::try_from(PAGE_BYTES)?;
        let start_ns = clock.now_ns();
        let written = file.write_all_at(&page, offset).and_then(|()| file.sync_data());
        spent.push(clock.now_ns() - start_ns);
        failed = failed.or(written.err());
    }
    failed.map_or(Ok(spent), |error| Err(error.into()))
}

fn pin(core: Option<usize>) -> Result<()> {
    let Some(core) = core else { return Ok(()) };
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}
