//! What strace sees of a leader: its loop touches no disk, and no answer outruns the disks.

use super::harness::{Cluster, PATIENCE, Shape};
use super::patience::eventually;
use crate::untested::strace_works;
use raftd::client::Deadline;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// System calls that wait for a disk, or may.
const DISK_CALLS: [&str; 12] = [
    "pwrite64",
    "pwritev",
    "pwritev2",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "open",
    "openat",
    "fallocate",
    "ftruncate",
    "msync",
    "unlink",
];

/// An strace of a running process, into a file. Ends, and leaves the process alone, when told.
pub(super) struct Trace {
    strace: Child,
    file: PathBuf,
}

impl Trace {
    /// `None` where this user may not trace.
    fn attach(pid: u32, file: PathBuf, calls: &str) -> Option<Trace> {
        Trace::attach_with(pid, file, &["-e", &format!("trace={calls}")])
    }

    /// The same with what strace is to do with the calls.
    pub(super) fn attach_with(pid: u32, file: PathBuf, what: &[&str]) -> Option<Trace> {
        let strace = Command::new("strace")
            .args(["-f", "-s", "65536"])
            .args(what)
            .arg("-o")
            .arg(&file)
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut trace = Trace { strace, file };
        let attached = eventually("strace holds every thread", PATIENCE, || {
            if trace.strace.try_wait().unwrap().is_some() {
                return Some(false);
            }
            all_threads_traced(pid).then_some(true)
        });
        if !attached {
            crate::untested::not_tested("this user may not trace processes");
        }
        attached.then_some(trace)
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// Lets go of the process and returns what it saw.
    fn end(mut self) -> String {
        let pid = self.strace.id().to_string();
        let _sent = Command::new("kill").args(["-INT", &pid]).status().unwrap();
        self.strace.wait().unwrap();
        self.text()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // It has ended if the test got so far.
        let _ended = self.strace.kill();
        let _reaped = self.strace.wait();
    }
}

fn all_threads_traced(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let traced = |task: &Path| {
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    };
    tasks.flatten().all(|task| traced(&task.path()))
}

/// The calls of each thread by name, from lines such as `123 pwrite64(5, …) = 64`.
fn calls_by_thread(trace: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut threads: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start().trim_start_matches("<... ");
        let call = rest.split(['(', ' ']).next().unwrap_or_default();
        threads.entry(thread).or_default().insert(call);
    }
    threads
}

/// Whether this trace shows the value written, and after that a completed fdatasync of the same
/// file by the same thread, whatever other threads did meanwhile. Panics if strace left something
/// out: a batch of several entries may name the value late.
fn wrote_and_synced(trace: &str, value: &str) -> bool {
    let (mut written, mut syncing) = (BTreeMap::new(), BTreeMap::new());
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim();
        if let Some(arguments) = call.strip_prefix("pwrite64(") {
            assert!(!hides_records(arguments), "strace cut what was written: {line}");
            if arguments.contains(value) {
                written.insert(thread, descriptor_of(arguments));
            }
        } else if let Some(arguments) = call.strip_prefix("fdatasync(") {
            syncing.insert(thread, descriptor_of(arguments));
        }
        // One line, or the second of two: `fdatasync(5 <unfinished ...>`, `<... fdatasync resumed>`
        let synced = call.contains("fdatasync") && call.ends_with("= 0");
        if synced && written.contains_key(thread) && written.get(thread) == syncing.get(thread) {
            return true;
        }
    }
    false
}

/// Whether strace left out a part of what was written. The zeros of a segment that is prepared are
/// no loss.
fn hides_records(arguments: &str) -> bool {
    let shown = arguments.split_once('"').and_then(|(_, text)| text.split_once("\"..."));
    shown.is_some_and(|(shown, _)| !shown.replace(r"\0", "").is_empty())
}

fn descriptor_of(arguments: &str) -> &str {
    arguments.split([',', ')', ' ']).next().unwrap_or_default()
}

#[test]
fn a_trace_shows_a_sync_however_its_lines_are_split() {
    let write = r#"7 pwrite64(5, "\1\0value-1-end\0", 4096, 8192"#;
    let synced = [
        format!("{write}) = 4096\n7 fdatasync(5) = 0\n"),
        format!("{write}) = 4096\n7 fdatasync(5)     = 0\n"),
        format!(
            "{write} <unfinished ...>\n8 fdatasync(6) = 0\n7 <... pwrite64 resumed>) = 4096\n\
                 7 fdatasync(5 <unfinished ...>\n8 fdatasync(6) = 0\n\
                 7 <... fdatasync resumed>)   = 0\n"
        ),
    ];
    for trace in synced {
        assert!(wrote_and_synced(&trace, "value-1-end"), "{trace}");
        assert!(!wrote_and_synced(&trace, "value-2-end"), "{trace}");
    }
    assert!(hides_records(r#"5, "\1\0\0"..., 4096, 8192"#));
    assert!(!hides_records(r#"5, "\1\0\0", 4096, 8192"#));
    assert!(!hides_records(r#"9, "\0\0\0\0"..., 262144, 0"#));
    let unsynced = [
        format!("7 fdatasync(5) = 0\n{write}) = 4096\n"),
        format!("{write}) = 4096\n7 fdatasync(5 <unfinished ...>\n"),
        format!("{write}) = 4096\n7 fdatasync(5) = -1 EIO (Input/output error)\n"),
        format!("{write}) = 4096\n8 fdatasync(5) = 0\n"),
        format!("{write}) = 4096\n7 fdatasync(6) = 0\n"),
        format!(
            "8 fdatasync(5 <unfinished ...>\n{write}) = 4096\n8 <... fdatasync resumed>) = 0\n"
        ),
    ];
    for trace in unsynced {
        assert!(!wrote_and_synced(&trace, "value-1-end"), "{trace}");
    }
}

/// The end of what a trace saw, for whoever reads a failure.
fn last_lines(trace: &str) -> String {
    let lines: Vec<&str> = trace.lines().collect();
    lines[lines.len().saturating_sub(16)..].join("\n")
}

#[test]
fn the_loop_of_a_serving_leader_touches_no_disk() {
    if !strace_works() {
        return;
    }
    // Small segments: what happens at a rotation is part of serving.
    let flags = ["--segment-bytes", "65536"].map(str::to_owned).to_vec();
    let mut cluster = Cluster::start_shaped(3, &Shape { flags, ..Shape::default() });
    let leader = cluster.leader();
    let mut client = cluster.client_of(&[leader]);
    client.put(b"warm", b"up").unwrap();
    let pid = cluster.server(leader).pid().unwrap();
    // `?`: an architecture may lack a call, such as `open`.
    let calls = format!("?epoll_wait,?epoll_pwait,?{}", DISK_CALLS.join(",?"));
    let file = cluster.folder().join("trace");
    let Some(trace) = Trace::attach(pid, file, &calls) else { return };
    for number in 0..300 {
        client.put(format!("k{number}").as_bytes(), &[b'x'; 1000]).unwrap();
        client.get(format!("k{number}").as_bytes()).unwrap();
    }
    let text = trace.end();
    let threads = calls_by_thread(&text);
    let waits = |calls: &BTreeSet<&str>| calls.iter().any(|call| call.starts_with("epoll_"));
    let loops: Vec<_> = threads.iter().filter(|(_, calls)| waits(calls)).collect();
    let [(thread, calls)] = loops[..] else { panic!("one thread waits, not {}", loops.len()) };
    for call in DISK_CALLS {
        let lines: Vec<&str> =
            text.lines().filter(|line| line.starts_with(*thread) && line.contains(call)).collect();
        assert!(!calls.contains(call), "the loop calls {call}: {:?}", lines.first());
    }
    assert!(threads.values().any(|calls| calls.contains("fdatasync")), "somebody syncs");
}

#[test]
fn every_acknowledged_put_follows_completed_syncs_on_a_majority() {
    if !strace_works() {
        return;
    }
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let mut client = cluster.client_of(&[leader]);
    client.put(b"warm", b"up").unwrap();
    let mut traces = Vec::new();
    for id in 1..=3 {
        let pid = cluster.server(id).pid().unwrap();
        let file = cluster.folder().join(format!("trace{id}"));
        let Some(trace) = Trace::attach(pid, file, "pwrite64,fdatasync") else { return };
        traces.push(trace);
    }
    let (mut acknowledged, deadline) = (0, Deadline::after(PATIENCE));
    for number in 0.. {
        if acknowledged == 50 {
            break;
        }
        assert!(!deadline.has_passed(), "only {acknowledged} puts prove something");
        let value = format!("value-{number:06}-end");
        if client.put(b"k", value.as_bytes()).is_err() {
            // Tracing is slow enough for an election, once in a while.
            continue;
        }
        // strace writes its line before the thread it traces goes on, so what the files do not show
        // by now had not happened when the answer was sent.
        let synced = traces.iter().filter(|trace| wrote_and_synced(&trace.text(), &value));
        let synced = synced.count();
        let said =
            || -> Vec<String> { traces.iter().map(|trace| last_lines(&trace.text())).collect() };
        assert!(
            synced >= 2,
            "put {number} was acknowledged with {synced} of 3 disks synced:\n{}",
            said().join("\n---\n")
        );
        acknowledged += 1;
    }
}
