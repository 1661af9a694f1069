//! What the kernel says: CPU time, bytes written to the device, the machine.
//!
//! CPU time is the first number of `/proc/PID/task/*/schedstat`: nanoseconds on a CPU, user and
//! system, as the scheduler counts them. `/proc/PID/stat` has the same sum, rounded to ticks of
//! 10 ms. The second number, nanoseconds ready but not running, says how crowded the machine was.

use crate::Result;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Nanoseconds of CPU.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Cpu {
    /// Running.
    pub(crate) run_ns: u64,
    /// Ready to run, waiting for a CPU.
    pub(crate) wait_ns: u64,
}

/// The CPU time of a process's threads, by their names.
#[derive(Clone, Default, Debug)]
pub(crate) struct Threads(pub(crate) BTreeMap<String, Cpu>);

impl Threads {
    /// All threads together.
    pub(crate) fn total(&self) -> Cpu {
        self.0.values().fold(Cpu::default(), |sum, cpu| Cpu {
            run_ns: sum.run_ns + cpu.run_ns,
            wait_ns: sum.wait_ns + cpu.wait_ns,
        })
    }

    /// What was used since `earlier`.
    pub(crate) fn since(&self, earlier: &Threads) -> Threads {
        let used = self.0.iter().map(|(name, cpu)| {
            let before = earlier.0.get(name).copied().unwrap_or_default();
            let used = Cpu {
                run_ns: cpu.run_ns.saturating_sub(before.run_ns),
                wait_ns: cpu.wait_ns.saturating_sub(before.wait_ns),
            };
            (name.clone(), used)
        });
        Threads(used.collect())
    }

    /// Adds another's, name by name.
    pub(crate) fn add(&mut self, other: &Threads) {
        for (name, cpu) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            sum.run_ns += cpu.run_ns;
            sum.wait_ns += cpu.wait_ns;
        }
    }
}

/// The CPU time of process `pid` so far. Threads that ended are not in it.
pub(crate) fn threads_of(pid: u32) -> Result<Threads> {
    let mut threads = BTreeMap::<String, Cpu>::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let (Ok(name), Ok(times)) =
            (fs::read_to_string(task.join("comm")), fs::read_to_string(task.join("schedstat")))
        else {
            continue; // It ended meanwhile.
        };
        let mut numbers = times.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(run_ns)), Some(Ok(wait_ns))) = (numbers.next(), numbers.next()) else {
            return Err(format!("/proc/{pid}/task/*/schedstat says {times:?}").into());
        };
        let sum = threads.entry(name.trim().to_owned()).or_default();
        sum.run_ns += run_ns;
        sum.wait_ns += wait_ns;
    }
    Ok(Threads(threads))
}

/// The block device below a directory.
///
/// Not `write_bytes` of `/proc/PID/io`: that counts a whole folio of the page cache for every write
/// into it, 256 KiB for a put of one page where the device takes 7 KB.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    counters: PathBuf,
}

impl Device {
    /// The device that holds `directory`; `None` for memory and for file systems that span devices.
    pub(crate) fn below(directory: &Path) -> Result<Option<Device>> {
        let number = fs::metadata(directory)?.dev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let counters = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
        Ok(counters.exists().then_some(Device { counters }))
    }

    /// Bytes it has taken since boot, whoever wrote them.
    pub(crate) fn written_bytes(&self) -> Result<u64> {
        let text = fs::read_to_string(&self.counters)?;
        let sectors = text.split_ascii_whitespace().nth(6);
        let sectors: u64 = sectors.ok_or("a block device without counters")?.parse()?;
        Ok(sectors * 512)
    }
}

/// Ticks of 10 ms of all CPUs since boot.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct MachineCpu {
    /// Not idle, the hypervisor's theft left out. Nanoseconds.
    pub(crate) busy_ns: u64,
    /// Taken by the hypervisor. Nanoseconds.
    pub(crate) stolen_ns: u64,
}

/// What all processes and the kernel used so far.
pub(crate) fn machine_cpu() -> Result<MachineCpu> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .skip(1)
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    let [user, nice, system, _idle, _io_wait, irq, soft_irq, stolen, ..] = ticks[..] else {
        return Err("the first line of /proc/stat has too few numbers".into());
    };
    let tick_ns = 10_000_000;
    let busy_ns = (user + nice + system + irq + soft_irq) * tick_ns;
    Ok(MachineCpu { busy_ns, stolen_ns: stolen * tick_ns })
}

/// The facts that figures depend on.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The CPU's name.
    pub(crate) cpu: String,
    /// CPUs this process may use.
    pub(crate) cores: usize,
    /// How TCP paces itself here, unless a program asks for another way.
    pub(crate) congestion_control: String,
}

impl Machine {
    /// Looks around.
    pub(crate) fn look() -> Machine {
        let line = |path: &str| match fs::read_to_string(path) {
            Ok(text) => text.trim().to_owned(),
            Err(_) => "unknown".to_owned(),
        };
        let cpu = line("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        Machine {
            kernel: line("/proc/sys/kernel/osrelease"),
            cpu: cpu.trim_start_matches([' ', '\t', ':']).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            congestion_control: line("/proc/sys/net/ipv4/tcp_congestion_control"),
        }
    }
}

/// What a process keeps in memory. Bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next());
    Ok(kib.ok_or("a process without VmRSS")?.parse::<u64>()? * 1024)
}

/// The kind of file system that holds `directory`: of all mounts above it, the longest.
pub(crate) fn file_system_of(directory: &Path) -> io::Result<String> {
    let directory = fs::canonicalize(directory)?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut found = (PathBuf::new(), "unknown".to_owned());
    for mount in mounts.lines() {
        let mut words = mount.split(' ').skip(1);
        let (Some(at), Some(kind)) = (words.next(), words.next()) else { continue };
        let at = PathBuf::from(at);
        let longer = at.as_os_str().len() >= found.0.as_os_str().len();
        if directory.starts_with(&at) && longer {
            found = (at, kind.to_owned());
        }
    }
    Ok(found.1)
}
