//! Servers that run out of descriptors.

use super::harness::{Cluster, PATIENCE, Shape, descriptors};
use super::patience::eventually;
use raftd::client::{Connection, ConnectionError, Deadline};
use raftd::wire::error::Error as WireError;
use raftd::wire::reply::ReplyBody;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::fs;
use std::net::TcpStream;

/// Small segments, so that a new one is wanted all the time.
fn small_segments() -> Shape {
    let flags = ["--segment-bytes", "65536"].map(str::to_owned).to_vec();
    Shape { flags, ..Shape::default() }
}

fn limit_descriptors(cluster: &mut Cluster, id: u64, current: u64) {
    let pid = cluster.server(id).pid().unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let limit = Rlimit { current: Some(current), maximum: Some(4096) };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

fn put(connection: &mut Connection, value: &[u8]) -> Result<(), WireError> {
    let deadline = Deadline::after(PATIENCE);
    connection.put(b"k", value);
    connection.flush(deadline).unwrap();
    match connection.receive(deadline).unwrap().body {
        ReplyBody::Put { .. } => Ok(()),
        ReplyBody::Error(error) => Err(error),
        other => panic!("a put was answered with {other:?}"),
    }
}

/// The same until it is done: the next segment may be about to come.
fn put_in_time(connection: &mut Connection, value: &[u8]) {
    eventually("a put is done", PATIENCE, || match put(connection, value) {
        Ok(()) => Some(()),
        Err(WireError::Busy { .. }) => None,
        Err(error) => panic!("a put was refused: {error}"),
    });
}

/// The server ended with code 74, as if its disk had failed.
#[test]
fn a_segment_that_cannot_be_prepared_for_want_of_a_descriptor_is_waited_for() {
    let mut cluster = Cluster::start_shaped(1, &small_segments());
    cluster.leader();
    let mut connection = cluster.server(1).connection();
    let value = vec![b'x'; 2000];
    put_in_time(&mut connection, &value);
    // What is open stays open; nothing more can be opened.
    limit_descriptors(&mut cluster, 1, 3);
    eventually("a client hears of the descriptors", PATIENCE, || {
        match put(&mut connection, &value) {
            Err(WireError::Busy { what }) => what.contains("descriptors").then_some(()),
            Ok(()) => None,
            Err(error) => panic!("it was answered {error:?}"),
        }
    });
    assert!(cluster.server(1).is_running());
    limit_descriptors(&mut cluster, 1, 1024);
    eventually("writes resume", PATIENCE, || put(&mut connection, &value).ok());
    let log = cluster.server(1).log_text();
    assert_eq!(log.matches("cannot prepare a segment").count(), 1, "{log}");
}

/// Whoever connected took the descriptors that the log needed.
#[test]
fn connections_leave_the_log_its_descriptors() {
    let mut cluster = Cluster::plan(1, &small_segments());
    let words = ["sh", "-c", "ulimit -n 128; exec \"$@\"", "sh"];
    cluster.server(1).wrapper = words.map(str::to_owned).to_vec();
    cluster.start_all();
    cluster.leader();
    let mut served = cluster.server(1).connection();
    let address = cluster.server(1).listen().to_owned();
    let strangers: Vec<TcpStream> =
        (0..300).filter_map(|_| TcpStream::connect(&address).ok()).collect();
    assert_eq!(strangers.len(), 300);
    eventually("one is turned away", PATIENCE, || match cluster.server(1).connect() {
        Err(ConnectionError::Refused { source: WireError::Busy { .. }, .. }) => Some(()),
        Ok(_) | Err(ConnectionError::TimedOut { .. }) => None,
        Err(other) => panic!("one client too many heard {other:?}"),
    });
    let value = vec![b'x'; 2000];
    for _ in 0..200 {
        put_in_time(&mut served, &value);
    }
    let open = descriptors(&mut cluster, 1);
    assert!(open <= 128, "{open} descriptors");
    let log = cluster.server(1).log_text();
    assert!(log.contains("descriptors=128"), "{log}");
    assert!(!log.contains("cannot accept"), "{log}");
    assert!(!log.contains("cannot prepare"), "{log}");
    drop(strangers);
    eventually("there is room again", PATIENCE, || cluster.server(1).connect().ok());
}

/// Segments that a snapshot had replaced were held open by what memory kept of the log: a full disk
/// got no space back.
#[test]
fn a_segment_that_is_removed_is_closed() {
    let mut shape = small_segments();
    let often = ["--snapshot-entries", "50", "--snapshot-interval", "0"];
    shape.flags.extend(often.map(str::to_owned));
    let mut cluster = Cluster::start_shaped(1, &shape);
    cluster.leader();
    let mut connection = cluster.server(1).connection();
    for _ in 0..300 {
        put_in_time(&mut connection, &[b'x'; 1000]);
    }
    let pid = cluster.server(1).pid().unwrap();
    eventually("nothing that was removed is open or mapped", PATIENCE, || {
        let removed = cluster.server(1).status().ok()?.log_base.get() > 0;
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        let held = open.filter(|path| path.to_string_lossy().contains("(deleted)")).count();
        (removed && held == 0 && !maps.contains(".seg (deleted)")).then_some(())
    });
}
