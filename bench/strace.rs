//! Syncs as the kernel sees them: `strace -c` on all processes of a system, in a slice of its own,
//! since traced processes are slow.

use crate::Result;
use crate::scratch::Scratch;
use crate::wait;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What makes data durable.
const SYNCS: [&str; 5] = ["fdatasync", "fsync", "sync_file_range", "msync", "sync"];

const PATIENCE: Duration = Duration::from_secs(10);

/// A trace that runs.
pub(crate) struct Trace {
    strace: Child,
    said: PathBuf,
    #[expect(dead_code, reason = "held for its drop")]
    directory: Scratch,
}

/// Whether strace is here and may trace.
pub(crate) fn is_possible() -> bool {
    let mut probe = Command::new("strace");
    probe.args(["-f", "-e", "trace=none", "true"]);
    probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

impl Trace {
    /// Begins to count, once every process is attached to.
    pub(crate) fn begin(pids: &[u32], parent: &Path) -> Result<Trace> {
        let directory = Scratch::make(parent, "strace")?;
        let said = directory.path.join("syncs");
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-e", &format!("trace={}", SYNCS.join(",")), "-o"]).arg(&said);
        for pid in pids {
            command.args(["-p", &pid.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut trace = Trace { strace: command.spawn()?, said, directory };
        let attached = wait::until(PATIENCE, || {
            if let Some(code) = trace.strace.try_wait()? {
                return Err(format!("strace ended with {code}").into());
            }
            Ok(pids.iter().all(|pid| is_traced(*pid)).then_some(()))
        })?;
        attached.ok_or("strace did not attach")?;
        Ok(trace)
    }

    /// Ends it. Returns how many syncs there were.
    pub(crate) fn end(mut self) -> Result<u64> {
        if let Some(pid) = i32::try_from(self.strace.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::INT)?;
        }
        self.strace.wait()?;
        let mut count = 0;
        for line in fs::read_to_string(&self.said)?.lines() {
            // % time, seconds, usecs/call, calls, errors if there were any, the call's name.
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [_, _, _, calls, .., name] = words[..]
                && SYNCS.contains(&name)
            {
                count += calls.parse::<u64>()?;
            }
        }
        Ok(count)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ended = self.strace.kill();
        let _reaped = self.strace.wait();
    }
}

/// Whether every thread of the process has a tracer.
fn is_traced(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let mut statuses = tasks.flatten().map(|task| fs::read_to_string(task.path().join("status")));
    statuses.all(|status| {
        let status = status.unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    })
}
