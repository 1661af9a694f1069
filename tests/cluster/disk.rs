//! Disks that are full, and disks that fail.

use super::harness::{Cluster, PATIENCE, Shape};
use super::patience::{at_best, eventually, now};
use super::traced::Trace;
use crate::untested::strace_works;
use raftd::client::{Connection, Deadline};
use raftd::wire::client::RangeArgs;
use raftd::wire::error::Error as WireError;
use raftd::wire::reply::ReplyBody;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Mounts a small file system of the node's own, which nobody else sees and which goes with it.
const MOUNT: &str = "mkdir -p \"$0\" && mount -t tmpfs -o size=2m tmpfs \"$0\" && exec \"$@\"";

/// The words that give a node a private mount table, or `None` where that is forbidden.
fn unshare() -> Option<Vec<String>> {
    for flags in [&["-m"][..], &["-U", "-r", "-m"]] {
        let mut probe = Command::new("unshare");
        probe.args(flags).args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
        let allowed = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if allowed.is_ok_and(|status| status.success()) {
            let words = ["unshare"].iter().chain(flags).chain(&["sh", "-c", MOUNT]);
            return Some(words.map(|word| (*word).to_owned()).collect());
        }
    }
    None
}

/// What a node says to a put, without any repetition.
fn put(connection: &mut Connection, key: &str, value: &[u8]) -> Result<(), WireError> {
    let deadline = Deadline::after(PATIENCE);
    connection.put(key.as_bytes(), value);
    connection.flush(deadline).unwrap();
    match connection.receive(deadline).unwrap().body {
        ReplyBody::Put { .. } => Ok(()),
        ReplyBody::Error(error) => Err(error),
        other => panic!("a put was answered with {other:?}"),
    }
}

/// Fills what is left of the node's file system. Its view of it is reached through /proc.
fn fill(cluster: &mut Cluster, id: u64) -> PathBuf {
    let server = cluster.server(id);
    let pid = server.pid().expect("the node runs");
    let inside = server.directory.strip_prefix("/").expect("the directory is absolute").to_owned();
    let path = PathBuf::from(format!("/proc/{pid}/root")).join(inside).join("filler");
    let mut file = File::create(&path).unwrap();
    for size in [65_536, 4096] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

/// A cluster in which node `small` has a disk of 2 MiB.
fn with_a_small_disk(count: u64, small: u64) -> Option<Cluster> {
    let Some(mut wrapper) = unshare() else {
        crate::untested::not_tested("this user may not mount a file system of its own");
        return None;
    };
    let flags = ["--segment-bytes", "65536"].map(str::to_owned).to_vec();
    let mut cluster = Cluster::plan(count, &Shape { flags, ..Shape::default() });
    wrapper.push(cluster.server(small).directory.to_string_lossy().into_owned());
    cluster.server(small).wrapper = wrapper;
    cluster.start_all();
    Some(cluster)
}

#[test]
fn a_full_disk_is_told_to_clients_and_service_resumes_with_space() {
    let Some(mut cluster) = with_a_small_disk(1, 1) else { return };
    cluster.leader();
    let mut connection = cluster.server(1).connection();
    put(&mut connection, "before", b"1").unwrap();
    let filler = fill(&mut cluster, 1);

    let value = vec![b'x'; 2000];
    let mut acknowledged = Vec::new();
    let refused = eventually("the log finds no space", PATIENCE, || {
        let key = format!("k{:04}", acknowledged.len());
        match put(&mut connection, &key, &value) {
            Ok(()) => acknowledged.push(key),
            // The next segment may be about to come or not: that is no verdict yet.
            Err(WireError::Busy { .. }) => {}
            Err(error) => return Some(error),
        }
        None
    });
    assert_eq!(refused, WireError::NoSpace);
    assert!(cluster.server(1).says().out_of_space);
    let refused: Vec<String> = (0..20).map(|number| format!("refused/{number}")).collect();
    for key in &refused {
        assert_eq!(put(&mut connection, key, &value), Err(WireError::NoSpace));
    }

    // It still answers reads, and what it acknowledged is there.
    let mut client = cluster.client();
    for key in &acknowledged {
        assert!(client.get(key.as_bytes()).unwrap().is_some(), "{key} was acknowledged");
    }
    fs::remove_file(filler).unwrap();
    eventually("writes resume", PATIENCE, || put(&mut connection, "after", b"1").ok());
    assert!(cluster.server(1).is_running());
    assert!(!cluster.server(1).says().out_of_space);
    for key in &refused {
        assert!(client.get(key.as_bytes()).unwrap().is_none(), "{key} was refused");
    }
}

#[test]
fn a_follower_with_a_full_disk_holds_nobody_up() {
    let Some(mut cluster) = with_a_small_disk(3, 3) else { return };
    // The full disk shall be a follower's.
    cluster.let_lead(1);
    eventually("node 3 follows", PATIENCE, || cluster.server(3).status().ok()?.leader);
    let filler = fill(&mut cluster, 3);
    let mut client = cluster.client_of(&[1, 2]);
    let value = vec![b'x'; 2000];
    for number in 0..200 {
        client.put(format!("k{number:04}").as_bytes(), &value).unwrap();
    }
    assert!(cluster.server(3).is_running());
    // It hears of what it cannot apply: such a read was never answered.
    let mut reader = cluster.server(3).connection();
    reader.range(&RangeArgs::of_key(b"k0199"));
    let deadline = Deadline::after(PATIENCE);
    reader.flush(deadline).unwrap();
    let body = reader.receive(deadline).expect("it is sent elsewhere").body;
    let sent_on = matches!(&body, ReplyBody::Error(WireError::NotLeader { leader: Some(_) }));
    assert!(sent_on, "{body:?}");
    fs::remove_file(filler).unwrap();
    cluster.wait_until_equal();
}

#[test]
fn a_leader_whose_disk_is_full_hands_over_and_no_client_hears_of_it() {
    let Some(mut cluster) = with_a_small_disk(3, 3) else { return };
    cluster.let_lead(3);
    let mut client = cluster.client();
    client.put(b"before", b"1").unwrap();
    let filler = fill(&mut cluster, 3);
    let value = vec![b'x'; 2000];
    for number in 0..200 {
        client.put(format!("k{number:04}").as_bytes(), &value).unwrap();
    }
    assert_ne!(cluster.leader(), 3);
    let log = cluster.server(3).log_text();
    assert!(log.contains("handing over, for the log has no space here"), "{log}");
    fs::remove_file(filler).unwrap();
    cluster.wait_until_equal();
}

#[test]
fn a_node_whose_sync_fails_ends_at_once_and_nothing_acknowledged_is_lost() {
    if !strace_works() {
        return;
    }
    let mut cluster = Cluster::plan(3, &Shape::default());
    let trace = cluster.folder().join("trace").to_string_lossy().into_owned();
    let inject = "inject=fdatasync:error=EIO:when=40";
    let words = ["strace", "-f", "-o", &trace, "-e", "trace=fdatasync", "-e", inject];
    cluster.server(2).wrapper = words.map(str::to_owned).to_vec();
    cluster.start_all();
    cluster.leader();

    let mut client = cluster.client();
    let mut acknowledged = Vec::new();
    for number in 0..10_000 {
        let key = format!("k{number:05}").into_bytes();
        match client.put(&key, b"v") {
            Ok(_) => acknowledged.push(key),
            // The failing node may have been the leader.
            Err(raftd::client::Error::OutcomeUnknown { .. }) => {}
            Err(error) => panic!("a majority lives, and yet: {error}"),
        }
        if !cluster.server(2).is_running() {
            break;
        }
    }
    let status = cluster.server(2).wait_for_end(PATIENCE);
    let log = cluster.server(2).log_text();
    assert_eq!(status.code(), Some(74), "{log}");
    let last = log.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("sync") || last.contains("disk"), "{log}");
    // Each thread's syncs are counted on their own: it was the first failure that ended it.
    let trace = fs::read_to_string(&trace).unwrap();
    assert_eq!(trace.matches("(INJECTED)").count(), 1, "it went on after a failed sync");
    client.put(b"the cluster", b"goes on").unwrap();

    cluster.server(2).wrapper.clear();
    cluster.server(2).start();
    cluster.wait_until_equal();
    for key in &acknowledged {
        assert!(client.get(key).unwrap().is_some(), "an acknowledged put is lost");
    }
}

/// A disk that hangs does not keep a server whose operator has asked twice. Who has asked once
/// waits for five seconds.
#[test]
fn a_second_signal_ends_a_server_whose_disk_hangs() {
    if !strace_works() {
        return;
    }
    let mut cluster = Cluster::start(1);
    at_best("it ends at once", Duration::from_secs(4), || {
        cluster.start_all();
        second_signal(&mut cluster)
    });
}

/// How long the server lives after the second signal while its disk hangs.
fn second_signal(cluster: &mut Cluster) -> Duration {
    cluster.leader();
    let pid = cluster.server(1).pid().unwrap();
    let file = cluster.folder().join("hang");
    let hangs = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=1200000000"];
    let Some(trace) = Trace::attach_with(pid, file, &hangs) else { return Duration::ZERO };
    let mut connection = cluster.server(1).connection();
    connection.put(b"k", b"v");
    connection.flush(Deadline::after(PATIENCE)).unwrap();
    let said =
        |cluster: &mut Cluster, words: &str| cluster.server(1).log_text().matches(words).count();
    let (stopping, stopped) =
        ("stopping reason=signal", "stopped node=n1 reason=signal clean=false");
    let before = [stopping, stopped].map(|words| said(cluster, words));
    cluster.server(1).signal("TERM");
    eventually("it is stopping", PATIENCE, || (said(cluster, stopping) > before[0]).then_some(()));
    assert!(cluster.server(1).is_running(), "it waits for the disk");
    let told = now();
    cluster.server(1).signal("TERM");
    eventually("it ends, and claims nothing", PATIENCE, || {
        (said(cluster, stopped) > before[1]).then_some(())
    });
    let lived = told.elapsed();
    // A thread that strace holds is not gone before strace lets go.
    drop(trace);
    assert_eq!(cluster.server(1).wait_for_end(PATIENCE).code(), Some(0));
    lived
}
