//! What the process takes, by the names that Prometheus' own libraries have for it. Whoever knows
//! them expects them: `etcdctl check datascale` gives up without the memory.

use std::fs;

/// Its resident memory. Bytes; `None`: the system does not say.
pub(super) fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// How many descriptors it has open, less that by which they are counted.
pub(super) fn descriptors() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(count).ok()?.checked_sub(1)
}
