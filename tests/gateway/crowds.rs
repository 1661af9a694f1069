//! Crowds of watch streams that come and go: what they leave, and what others notice of them.
//!
//! | variable | meaning |
//! |---|---|
//! | `WATCH_STREAMS` | how many at once; 2,000 if it is not set |

use super::asking::pause;
use super::harness::{Cluster, PATIENCE};
use super::hearing::{Ear, Line};
use super::patience::{StopAtEnd, now};
use super::program::{Clients, Gateway, block_on, put};
use super::variable;
use super::web;
use crate::history::checker::watches::Wish;
use raftd::client::Deadline;
use raftd::limits::WATCHES_BYTES_MAX;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Connections that the streams share.
const CONNECTIONS: usize = 4;
/// A crowd comes so often. What the first ones leave is memory that is kept for use: each leaves
/// less than half of the one before, 20 MB the third of ten thousand, 1 MB the sixth.
const ROUNDS: usize = 12;
const ROUNDS_TO_WARM: usize = 6;
/// Puts of a bystander while nobody watches, and while all do.
const PUTS: usize = 200;
/// What the rounds behind the first may leave all the same, as allocators do. A stream that was not
/// forgotten costs kilobytes. Bytes.
const LEFT_MAX: u64 = 4 * 1024 * 1024;

/// What a crowd does just now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Away,
    Comes,
    Watches,
    Leaves,
}

/// A client that has nothing to do with the crowd, and how long its puts take.
struct Bystander {
    phase: Mutex<Phase>,
    is_over: AtomicBool,
    puts: AtomicUsize,
    times: Mutex<Vec<(Phase, Duration)>>,
}

impl Bystander {
    fn new() -> Bystander {
        Bystander {
            phase: Mutex::new(Phase::Away),
            is_over: AtomicBool::new(false),
            puts: AtomicUsize::new(0),
            times: Mutex::default(),
        }
    }

    fn see(&self, phase: Phase) {
        *self.phase.lock().unwrap() = phase;
    }

    /// Puts, one after the other, until all is over.
    fn put(&self, address: &str) {
        block_on(async {
            let clients = Clients::at(address);
            while !self.is_over.load(Ordering::Relaxed) {
                let (phase, begun) = (*self.phase.lock().unwrap(), now());
                clients.put(put("bystander", "x")).await.unwrap();
                self.times.lock().unwrap().push((phase, begun.elapsed()));
                self.puts.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// Waits for so many of its puts.
    async fn has_put(&self, count: usize) {
        let (deadline, end) =
            (Deadline::after(PATIENCE), self.puts.load(Ordering::Relaxed) + count);
        while self.puts.load(Ordering::Relaxed) < end {
            assert!(!deadline.has_passed(), "a bystander is served");
            pause(Duration::from_millis(5)).await;
        }
    }

    /// The median, and the longest; zero if there was no put.
    fn times_of(&self, phase: Phase) -> (Duration, Duration) {
        let times = self.times.lock().unwrap();
        let of_phase = times.iter().filter(|(when, _)| *when == phase);
        let mut times: Vec<Duration> = of_phase.map(|(_, time)| *time).collect();
        times.sort();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        (median, times.last().copied().unwrap_or_default())
    }
}

/// What a crowd could leave.
#[derive(Clone, Copy, Debug)]
struct Left {
    gateway_descriptors: usize,
    /// Its files are not counted: the log keeps what it has written to open.
    node_sockets: usize,
    gateway_resident: u64,
}

fn left(cluster: &mut Cluster, gateway: &Gateway) -> Left {
    Left {
        gateway_descriptors: gateway.descriptors(),
        node_sockets: sockets(cluster, 1),
        gateway_resident: gateway.resident(),
    }
}

/// How many sockets a node has open.
fn sockets(cluster: &mut Cluster, id: u64) -> usize {
    let pid = cluster.server(id).pid().expect("the node runs");
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    // One that is closed meanwhile leads nowhere.
    let leads_to = |fd: fs::DirEntry| fs::read_link(fd.path()).ok();
    let open = open.filter_map(|fd| leads_to(fd.unwrap()));
    open.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// What a watch costs at a server beside its key, which counts twice. Bytes.
const WATCH_BYTES: usize = 304;

/// Streams with a watch each, over a few connections. Their keys are so long that two thirds of the
/// server's room for watches is taken: a crowd that it did not forget leaves none for the next.
async fn come(address: &str, count: usize, round: usize) -> Vec<Line> {
    let width = (WATCHES_BYTES_MAX / 3 * 2 / count).saturating_sub(WATCH_BYTES) / 2;
    let width = width.saturating_sub("crowd/0/".len());
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            let clients = Clients::at(address);
            tokio::spawn(async move {
                let mut lines = Vec::new();
                for nth in (connection..count).step_by(CONNECTIONS) {
                    let key = format!("crowd/{round}/{nth:0width$}").into_bytes();
                    let mut ear = Ear::new(Wish { key, ..Wish::default() }, 0);
                    let mut line = Line::open(&clients, [ear.request(0)]).await.unwrap();
                    let opened = tokio::time::timeout(PATIENCE, line.next()).await;
                    let opened = opened.unwrap_or_else(|_| panic!("round {round}: no room"));
                    assert!(ear.hear(&opened.unwrap().unwrap()).is_none() && ear.is_open);
                    lines.push(line);
                }
                lines
            })
        })
        .collect();
    let mut lines = Vec::new();
    for task in tasks {
        lines.extend(task.await.unwrap());
    }
    lines
}

/// Watch streams that the gateway has not ended.
fn streams(address: &str) -> u64 {
    let text = web::get(address, "/metrics").text;
    let watch = r#"grpc_method="Watch",grpc_service="etcdserverpb.Watch""#;
    let sum = |name: &str| {
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(watch));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    sum("grpc_server_started_total{") - sum("grpc_server_handled_total{")
}

/// Waits until it has ended all of them, and its descriptors are what they were.
async fn gone(gateway: &Gateway, descriptors: usize) {
    let deadline = Deadline::after(PATIENCE);
    while streams(&gateway.address) > 0 || gateway.descriptors() > descriptors {
        let (streams, now) = (streams(&gateway.address), gateway.descriptors());
        assert!(!deadline.has_passed(), "{streams} streams, {now} descriptors, not {descriptors}");
        pause(Duration::from_millis(20)).await;
    }
}

#[test]
fn crowds_of_watch_streams_leave_nothing_and_slow_nobody() {
    let count = usize::try_from(variable("WATCH_STREAMS").unwrap_or(2_000)).unwrap();
    let mut cluster = Cluster::start_alone(1);
    cluster.leader();
    let gateway = Gateway::start(&cluster);
    block_on(async { gateway.clients().await.put_key("begun", "yes").await });
    let bystander = Bystander::new();
    let mut seen: Vec<Left> = Vec::new();
    thread::scope(|scope| {
        let _over = StopAtEnd(&bystander.is_over);
        scope.spawn(|| bystander.put(&gateway.address));
        block_on(async {
            bystander.has_put(PUTS).await;
            let before = gateway.descriptors();
            for round in 0..ROUNDS {
                bystander.see(Phase::Comes);
                let lines = come(&gateway.address, count, round).await;
                bystander.see(Phase::Watches);
                bystander.has_put(PUTS).await;
                assert_eq!(streams(&gateway.address), u64::try_from(count).unwrap());
                bystander.see(Phase::Leaves);
                drop(lines);
                gone(&gateway, before).await;
                bystander.see(Phase::Away);
                bystander.has_put(PUTS).await;
                seen.push(left(&mut cluster, &gateway));
            }
        });
    });
    for (round, left) in seen.iter().enumerate() {
        println!("crowds: {count} streams, round {round}: {left:?}");
    }
    let phases = [Phase::Away, Phase::Comes, Phase::Watches, Phase::Leaves];
    let times = phases.map(|phase| bystander.times_of(phase));
    println!("crowds: puts while they are {phases:?}: median and longest {times:?}");
    judge(&seen, times);
}

fn judge(seen: &[Left], times: [(Duration, Duration); 4]) {
    let (warm, last) = (seen[ROUNDS_TO_WARM - 1], seen[ROUNDS - 1]);
    assert_eq!(last.gateway_descriptors, warm.gateway_descriptors);
    assert_eq!(last.node_sockets, warm.node_sockets);
    // What the server keeps of them would leave no room for the next. Its memory says nothing: it
    // grows with what the bystander puts.
    let (then, now) = (warm.gateway_resident, last.gateway_resident);
    assert!(now < then + LEFT_MAX, "the gateway has grown from {then} to {now} bytes");
    let [(alone, _), (_, comes), (among, _), (_, leaves)] = times;
    assert!(among < 3 * alone + Duration::from_millis(1), "{among:?} among them, {alone:?} alone");
    let longest = Duration::from_secs(2);
    assert!(comes < longest && leaves < longest, "a put waits while they come and go");
}
