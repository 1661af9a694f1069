//! Clients that mean ill, or are broken: nobody else may feel them.

use super::harness::{Cluster, PATIENCE};
use super::patience::now;
use raftd::client::{Client, Connection, Deadline};
use raftd::types::ClusterId;
use raftd::wire::client::RangeArgs;
use raftd::wire::hello::{Hello, Sender, VERSION, encode_hello};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How much memory attackers may cost a node. Bytes.
const MEMORY_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Resident memory of a node, in bytes.
fn resident(cluster: &mut Cluster, id: u64) -> u64 {
    let pid = cluster.server(id).pid().expect("the node runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The 99th percentile of 200 puts, one after the other; the median of five such, because one stall of a
/// shared machine decides a single one.
fn put_p99(client: &mut Client) -> Duration {
    let mut rounds: Vec<Duration> = (0..5).map(|_| round_p99(client)).collect();
    rounds.sort();
    rounds[2]
}

fn round_p99(client: &mut Client) -> Duration {
    let mut times: Vec<Duration> = (0..200)
        .map(|number| {
            let started = now();
            client.put(format!("good/{number}").as_bytes(), b"v").unwrap();
            started.elapsed()
        })
        .collect();
    times.sort();
    times[197]
}

/// Bytes that look like nothing, from a seed.
fn garbage(seed: u64, length: usize) -> Vec<u8> {
    let mut random = seed | 1;
    let bytes = (0..length).map(|_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()[3]
    });
    bytes.collect()
}

fn dial(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `bytes` and expects to be hung up on, with a word or without.
fn hung_up_on(address: &str, bytes: &[u8]) {
    let mut stream = dial(address);
    // It may hang up before it has taken everything.
    let _cut_short = stream.write_all(bytes);
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        Err(error) => {
            let reset = error.kind() == std::io::ErrorKind::ConnectionReset;
            assert!(reset, "not hung up on, but: {error}");
        }
    }
}

/// A greeted connection that asks for a lot and never reads.
fn never_reads(cluster: &mut Cluster, id: u64) -> Connection {
    let mut connection = cluster.server(id).connect().unwrap();
    for _ in 0..2000 {
        connection.range(&RangeArgs { end: &[0], ..RangeArgs::of_key(b"big/") });
    }
    // Until the node takes no more.
    let _stuck = connection.flush(Deadline::after(Duration::from_millis(1)));
    connection
}

/// Connections that say nothing. This process holds their other ends.
const IDLE_CONNECTIONS: usize = 2000;

/// Lets this process open as many descriptors as it may.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).unwrap();
}

#[test]
fn attackers_are_hung_up_on_and_nobody_else_feels_them() {
    raise_descriptor_limit();
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let address = cluster.server(leader).listen().to_owned();
    let mut client = cluster.client_of(&[leader]);
    for number in 0..30 {
        client.put(format!("big/{number}").as_bytes(), &vec![b'x'; 64 * 1024]).unwrap();
    }
    let calm = put_p99(&mut client);
    let idle_bytes = resident(&mut cluster, leader);

    for seed in 1..100 {
        // A small length first, so that the garbage is a whole frame half of the time.
        let mut bytes = garbage(seed, 700);
        if seed.is_multiple_of(2) {
            bytes[..4].copy_from_slice(&600_u32.to_le_bytes());
        }
        hung_up_on(&address, &bytes);
    }
    hung_up_on(&address, &[0xff; 4]);
    hung_up_on(&address, &[0; 4]);
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..50 {
        let mut stream = dial(&address);
        stream.write_all(&[40, 0, 0, 0, 0x93]).unwrap();
        silent.push(stream);
    }
    let idle: Vec<TcpStream> = (0..IDLE_CONNECTIONS).map(|_| dial(&address)).collect();
    let stuck: Vec<Connection> = (0..8).map(|_| never_reads(&mut cluster, leader)).collect();

    let disturbed = put_p99(&mut client);
    let used = resident(&mut cluster, leader).saturating_sub(idle_bytes);
    println!("p99 of a put: {calm:?} before, {disturbed:?} under attack; {used} bytes more");
    assert!(disturbed <= calm * 2, "a put takes {disturbed:?} under attack, {calm:?} before");
    assert!(used <= MEMORY_BYTES_MAX, "attackers cost {used} bytes");
    assert!((1..=3).all(|id| cluster.server(id).is_running()));
    drop((silent, idle, stuck));
    cluster.wait_until_equal();
}

#[test]
fn garbage_after_a_good_hello_ends_that_connection_only() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let mut client = cluster.client();
    client.put(b"k", b"v").unwrap();
    for seed in 1..50 {
        let mut stream = dial(cluster.server(1).listen());
        let mut hello = Vec::new();
        encode_hello(
            &mut hello,
            &Hello {
                version_min: VERSION,
                version_max: VERSION,
                cluster_id: ClusterId(0),
                sender: Sender::Client,
                auth: Vec::new(),
            },
        );
        stream.write_all(&hello).unwrap();
        let _cut_short = stream.write_all(&garbage(seed, 300));
    }
    client.put(b"k", b"w").unwrap();
    assert!(cluster.server(1).is_running());
    assert_eq!(client.get(b"k").unwrap().unwrap().value, b"w");
}
