//! The memory of a server: after many overwrites it is what it was, and what a key costs.
//!
//! `RESIDENT_PUTS=100000000` and `RESIDENT_KEYS=1000000` measure, in a release build; a few show
//! that it works.

use super::harness::{Cluster, PATIENCE, STEADFAST, Shape, free_address, resident, resident_of};
use super::patience::{StopAtEnd, breathe, eventually, now};
use super::pipelined::put_all;
use super::turns::Company;
use super::variable;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Keys that are overwritten.
const HOT_KEYS: u64 = 10_000;
/// When the memory is looked at first.
const FIRST: Duration = Duration::from_secs(60);
/// What it may be in the end, of what it was then.
const GROWTH_PERCENT: u64 = 130;

const VALUE: [u8; 100] = [b'v'; 100];

/// A key of 16 bytes.
fn key(number: u64) -> Vec<u8> {
    format!("key/{number:012}").into_bytes()
}

/// An hour's overwrites: 10,000 keys, at least 20 million puts, compaction at its defaults. The
/// memory of each server at the end is within 1.3 times of what it was after the first minute.
#[test]
fn overwrites_do_not_make_the_memory_grow() {
    let asked = variable("RESIDENT_PUTS");
    let puts = asked.unwrap_or(100_000);
    let company = if asked.is_some() { Company::Nobody } else { Company::Others };
    // A machine that does other things as well must not depose the leader.
    let flags = if asked.is_some() { &["--segment-bytes", "67108864"][..] } else { &STEADFAST[..] };
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let mut cluster = Cluster::start_shaped(3, &Shape { flags, company, ..Shape::default() });
    let leader = cluster.leader();
    let mut connection = cluster.server(leader).connection();
    let (done, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    // Without a minute, a third of the puts.
    let third = puts / 3;
    let (mut first, mut said) = (None, 0);
    let began = now();
    thread::scope(|scope| {
        let (done, ended) = (&done, &ended);
        scope.spawn(move || {
            let _ended = StopAtEnd(ended);
            let keys = (1..=puts).map(|step| key(step * 7_919 % HOT_KEYS));
            let heard = |count| _ = done.fetch_add(count, Ordering::Relaxed);
            put_all(&mut connection, keys, &VALUE, heard);
        });
        while !ended.load(Ordering::Relaxed) {
            breathe(Duration::from_millis(20));
            let so_far = done.load(Ordering::Relaxed);
            let minute = began.elapsed() >= FIRST || (asked.is_none() && so_far >= third);
            if minute && first.is_none() {
                first = Some(of_all(&mut cluster));
                println!("resident: {so_far} puts, after {:?}: {first:?} bytes", began.elapsed());
            }
            if so_far >= said + puts / 10 {
                said = so_far;
                println!("resident: {so_far} puts: {:?} bytes", of_all(&mut cluster));
            }
        }
    });
    assert_eq!(done.load(Ordering::Relaxed), puts);
    let last = of_all(&mut cluster);
    let took = began.elapsed();
    println!("resident: {puts} puts over {HOT_KEYS} keys in {took:?}: {last:?} bytes");
    if asked.is_some() {
        let first = first.expect("it takes longer than a minute");
        for (first, last) in first.iter().zip(&last) {
            println!("resident: {last} is {} % of {first}", last * 100 / first);
            assert!(last * 100 <= first * GROWTH_PERCENT, "{last} bytes after {first}");
        }
    }
    cluster.wait_until_equal();
}

fn of_all(cluster: &mut Cluster) -> Vec<u64> {
    (1..=3).map(|id| resident(cluster, id)).collect()
}

/// What a live key of 16 B with a value of 100 B costs, beside Redis.
#[test]
fn a_key_costs_so_many_bytes() {
    let asked = variable("RESIDENT_KEYS");
    let keys = asked.unwrap_or(20_000);
    let company = if asked.is_some() { Company::Nobody } else { Company::Others };
    let mut cluster = Cluster::start_shaped(1, &Shape { company, ..Shape::default() });
    let leader = cluster.leader();
    let empty = resident(&mut cluster, leader);
    let mut connection = cluster.server(leader).connection();
    put_all(&mut connection, (0..keys).map(key), &VALUE, |_| {});
    let full = resident(&mut cluster, leader);
    println!(
        "resident: raftd: {keys} keys of 16 B with 100 B: {full} bytes, {} more than without: {} \
         a key",
        full - empty,
        (full - empty) / keys
    );
    assert_eq!(cluster.server(leader).says().keys, keys);
    if asked.is_some() {
        drop(cluster);
        match redis_bytes(keys) {
            Some((empty, full)) => println!(
                "resident: Redis: {full} bytes, {} more than without: {} a key",
                full - empty,
                (full - empty) / keys
            ),
            None => println!("resident: Redis: not installed here, so there is nothing beside it"),
        }
    }
}

/// A Redis without persistence, which ends with the test.
struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// What Redis takes without a key and with all of them. `None`: there is none; `REDIS_SERVER` says
/// where it is, if it is not on the path.
fn redis_bytes(keys: u64) -> Option<(u64, u64)> {
    let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
    let address = free_address();
    let (_, port) = address.rsplit_once(':').unwrap();
    let child = Command::new(program)
        .args(["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let redis = Redis(child);
    let mut stream = eventually("Redis answers", PATIENCE, || TcpStream::connect(&address).ok());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let pid = redis.0.id();
    let empty = resident_of(pid);
    let mut sent = 0;
    while sent < keys {
        let batch = (keys - sent).min(1000);
        let mut out = Vec::new();
        for number in sent..sent + batch {
            write!(out, "*3\r\n$3\r\nSET\r\n$16\r\n").unwrap();
            out.extend_from_slice(&key(number));
            write!(out, "\r\n$100\r\n").unwrap();
            out.extend_from_slice(&VALUE);
            out.extend_from_slice(b"\r\n");
        }
        stream.write_all(&out).unwrap();
        let mut answers = vec![0; 5 * usize::try_from(batch).unwrap()];
        stream.read_exact(&mut answers).unwrap();
        assert!(answers.chunks(5).all(|answer| answer == b"+OK\r\n"));
        sent += batch;
    }
    Some((empty, resident_of(pid)))
}
