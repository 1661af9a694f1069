//! The flags of bench.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use clap::{Args, ValueEnum};
use raftd::client::load::{Layout, Mix, Pace, Shape, Workload};
use raftd::limits::CONNECTION_REQUESTS_MAX;

use super::super::args::{Freshness, duration};
use super::super::exit::Failure;

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// How many of a hundred operations read a key; the others put one.
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=100)
    )]
    reads: u32,
    /// One of YCSB's workloads in place of --reads.
    #[arg(long, value_enum, ignore_case = true, conflicts_with = "reads")]
    ycsb: Option<Ycsb>,
    /// So many operations a second, due at fixed moments whatever the cluster does; a latency
    /// counts from that moment. Without it, every free place asks at once: that finds the peak,
    /// and its latencies are those of a cluster that can do no more.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,
    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(super) duration: Duration,
    /// How long to load before it is measured.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(super) warm_up: Duration,
    /// Connections, all of this one thread.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=8192)
    )]
    connections: u32,
    /// Operations in flight on each connection at most.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=4096)
    )]
    in_flight: u32,
    /// How many keys. They are put before the load, and deleted after it.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=10_000_000)
    )]
    pub(super) keys: u32,
    /// Bytes of a value.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(16..=1_000_000)
    )]
    value_size: u32,
    /// What the keys begin with. There must be no such keys.
    #[arg(long, value_name = "TEXT", default_value = "bench/")]
    pub(super) prefix: OsString,
    /// Put over the keys that begin with the prefix, and delete them.
    #[arg(long)]
    pub(super) overwrite: bool,
    /// Leave the keys there.
    #[arg(long)]
    pub(super) keep: bool,
    /// How fresh reads must be. Answers are judged, so none may be as old as it likes.
    #[arg(long, value_enum, default_value_t = Freshness::Linearizable)]
    pub(super) consistency: Freshness,
}

/// YCSB's core workloads (Cooper et al. 2010).
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Ycsb {
    /// Half reads, half puts; some keys much more often than others.
    A,
    /// 95 % reads.
    B,
    /// Reads alone.
    C,
    /// 95 % reads, of the newest keys most; the others put new ones.
    D,
    /// 95 % scans of up to 100 keys; the others put new ones.
    E,
    /// Half reads, half reads that are followed by a put of the same key.
    F,
}

impl Ycsb {
    fn letter(self) -> char {
        match self {
            Ycsb::A => 'A',
            Ycsb::B => 'B',
            Ycsb::C => 'C',
            Ycsb::D => 'D',
            Ycsb::E => 'E',
            Ycsb::F => 'F',
        }
    }
}

impl BenchArgs {
    /// What is asked.
    pub(super) fn workload(&self) -> Workload {
        let ycsb = self.ycsb.and_then(|ycsb| Workload::ycsb(ycsb.letter()));
        ycsb.unwrap_or(Workload::even(Mix::reads(self.reads)))
    }

    /// What that is called.
    pub(super) fn said(&self) -> String {
        match self.ycsb {
            Some(ycsb) => format!("YCSB {}", ycsb.letter()),
            None => format!("{} % reads", self.reads),
        }
    }

    /// How much at once.
    pub(super) fn shape(&self) -> Shape {
        let most = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let depth = most(self.in_flight).min(CONNECTION_REQUESTS_MAX);
        Shape { connections: most(self.connections), depth }
    }

    /// When.
    pub(super) fn pace(&self) -> Pace {
        self.rate.map_or(Pace::Closed, |per_second| Pace::Open { per_second })
    }

    /// What keys and values look like: keys of sixteen bytes, or as many as the prefix needs.
    pub(super) fn layout(&self) -> Result<Layout, Failure> {
        let prefix = self.prefix.as_bytes();
        let value_bytes = usize::try_from(self.value_size).unwrap_or(usize::MAX);
        let key_bytes = (prefix.len() + Layout::DIGITS).max(16);
        let layout = Layout::new(prefix, key_bytes, value_bytes).filter(|_| !prefix.is_empty());
        layout.ok_or_else(|| Failure::usage("the prefix is empty: all keys would be deleted"))
    }
}
