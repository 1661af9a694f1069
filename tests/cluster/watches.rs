//! Watches of real clusters: listeners through kills, stops and cuts, each held against the log;
//! raftctl; a listener that does not read; what many of them cost.
//!
//! | variable | meaning |
//! |---|---|
//! | `WATCH_SECONDS` | for how long nodes are harmed at least; 6 if it is not set |
//! | `WATCH_LISTENERS` | how many listen then; 60 |
//! | `WATCH_SEED` | repeats the choices of an earlier run, not its timing |
//! | `WATCH_FANS` | how many hear of each put where that is measured; 100 |

use super::harness::{Cluster, NO_SNAPSHOTS, PATIENCE, Shape, resident};
use super::linearizable::{Faults, finals, harm};
use super::patience::{StopAtEnd, eventually, go_on, now};
use super::raftctl::{endpoints, raftctl};
use super::turns::Company;
use super::variable;
use super::witnesses::{Scene, Witness};
use crate::dice::Dice;
use crate::history::checker::watches::{Event, Listener, Watched, Wish};
use crate::history::checker::{self, History, Op, Row};
use raftd::client::{
    ClientOptions, Connection, Deadline, Error, KeyEvent, KeyValue, Watch, WatchOptions,
};
use raftd::types::{ClusterId, Revision};
use raftd::wire::error::Error as WireError;
use raftd::wire::reply::ReplyBody;
use raftd::wire::watch::WatchArgs;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const WITNESSES: u32 = 8;

/// So many events each listener is to hear, taken together, or little is proven: 10,200 with 60.
const EVENTS_EACH: u64 = 170;

/// What all listeners share.
#[derive(Default)]
struct Audience {
    /// The revision that all are to hear of in the end; 0: it is not known yet.
    last: AtomicU64,
    /// Events that were heard so far.
    events: AtomicU64,
    watched: Mutex<Watched>,
}

/// Endpoints, beginning with one of them.
fn options_of(nodes: &[(String, AtomicU32)], first: usize) -> ClientOptions {
    let mut endpoints: Vec<String> = nodes.iter().map(|(address, _)| address.clone()).collect();
    endpoints.rotate_left(first % nodes.len());
    ClientOptions {
        endpoints,
        timeout: Duration::from_secs(5),
        cluster_id: ClusterId(0),
        login: None,
    }
}

#[test]
fn watches_under_kills_stops_and_cuts_miss_nothing_and_hear_nothing_twice() {
    let seconds = variable("WATCH_SECONDS").unwrap_or(6);
    let listeners = variable("WATCH_LISTENERS").unwrap_or(60);
    let seed = variable("WATCH_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("watches: WATCH_SEED={seed} repeats the choices");
    // The log keeps all of it for the judge; the history does not: some listeners are too late.
    let flags = [&NO_SNAPSHOTS[..], &["--history-bytes", "60000"]].concat();
    let flags = flags.into_iter().map(str::to_owned).collect();
    let shape = Shape { flags, cuttable: true, company: Company::Others };
    let mut cluster = Cluster::start_shaped(3, &shape);
    cluster.leader();
    let nodes = cluster.servers.iter().map(|it| (it.listen().to_owned(), AtomicU32::new(1)));
    let scene = Scene::of(nodes.collect(), 80);
    let (audience, wanted) = (Audience::default(), listeners * EVENTS_EACH);
    let mut faults = Faults::default();
    let ops = thread::scope(|scope| {
        let (scene, audience) = (&scene, &audience);
        let witnesses: Vec<_> = (0..WITNESSES)
            .map(|client| scope.spawn(move || Witness::new(scene, client, seed).testify()))
            .collect();
        for nth in 0..listeners {
            let dice = Dice(seed ^ (nth << 40));
            scope.spawn(move || listen(dice, scene, audience));
        }
        {
            let _stop = StopAtEnd(&scene.stop);
            let mut dice = Dice(seed);
            go_on(seconds, "events are heard", || {
                harm(&mut cluster, &mut dice, scene, &mut faults);
                (audience.events.load(Ordering::Relaxed), wanted)
            });
        }
        let ended = witnesses.into_iter().map(|it| it.join().expect("a witness ends"));
        let ops: Vec<Op> = ended.flatten().collect();
        cluster.leader();
        cluster.wait_until_equal();
        audience.last.store(cluster.server(1).says().revision.0, Ordering::SeqCst);
        ops
    });
    let watched = audience.watched.into_inner().unwrap();
    let events: usize = watched.heard.iter().map(|heard| heard.events.len()).sum();
    let late = watched.compacted.len();
    let history = History { ops, finals: finals(&mut cluster), watched };
    let changes = history.finals.commands.len();
    let summary = checker::check(&history).unwrap_or_else(|violation| panic!("{violation:#?}"));
    println!("watches: {seconds} s, {faults:?}, {changes} commands, {listeners} listeners");
    println!("watches: {events} events, {late} times too late; {summary:?}");
    let events = u64::try_from(events).unwrap();
    assert!(events >= wanted, "{events} events, not {wanted}: that proves little");
    faults.are_of_each_kind_after(seconds);
}

/// Listens until everything is heard; at times stops, and goes on at another node.
fn listen(mut dice: Dice, scene: &Scene, audience: &Audience) {
    let key = |dice: &mut Dice| format!("k{:05}", dice.below(scene.keys)).into_bytes();
    let (from, end) = match dice.below(3) {
        0 => (key(&mut dice), Vec::new()),
        1 => (key(&mut dice), key(&mut dice)),
        _ => (vec![0], vec![0]),
    };
    let wish = Wish {
        key: from,
        end,
        prev_kv: dice.below(2) == 0,
        no_put: dice.below(8) == 0,
        no_delete: dice.below(8) == 0,
    };
    let start = [0, 2, 2 + dice.below(400)][dice.index(3)];
    let mut listener = Listener::new(wish, start);
    let mut give_up = None;
    loop {
        let mut watch = open(&mut listener, options_of(&scene.nodes, dice.index(3)));
        loop {
            let done = audience.last.load(Ordering::SeqCst);
            if done > 0 && listener.heard.up_to >= done {
                return audience.watched.lock().unwrap().heard.push(listener.heard);
            }
            // Once nobody writes any more the others wait for each other first, with their own
            // patience, and then for us; or the test has failed.
            let over = scene.stop.load(Ordering::Relaxed);
            let limit = over.then(|| *give_up.get_or_insert(Deadline::after(3 * PATIENCE)));
            let overdue = limit.is_some_and(Deadline::has_passed);
            assert!(!overdue, "heard up to {}, not {done}", listener.heard.up_to);
            match watch.next(Deadline::after(Duration::from_millis(200))) {
                Ok(None) => {}
                Ok(Some(batch)) => {
                    let count = u64::try_from(batch.events.len()).unwrap();
                    audience.events.fetch_add(count, Ordering::Relaxed);
                    let events = batch.events.into_iter().map(event).collect();
                    let heard = listener.hear(batch.revision.0, false, events);
                    heard.unwrap_or_else(|why| panic!("{why}"));
                }
                Err(Error::Refused {
                    source: WireError::Compacted { compact_revision }, ..
                }) => {
                    let needed = listener.heard.up_to + 1;
                    let mut watched = audience.watched.lock().unwrap();
                    watched.heard.push(listener.skip_to(compact_revision.0));
                    watched.compacted.push((needed, compact_revision.0));
                    break;
                }
                Err(error) => panic!("{error}"),
            }
            if dice.below(40) == 0 {
                break;
            }
        }
    }
}

fn open(listener: &mut Listener, options: ClientOptions) -> Watch {
    let start = Revision(listener.resume());
    let Wish { key, end, prev_kv, no_put, no_delete } = listener.heard.wish.clone();
    Watch::new(options, WatchOptions { key, end, start, prev_kv, no_put, no_delete })
}

fn event(event: KeyEvent) -> Event {
    Event { row: row(event.kv), before: event.before.map(row) }
}

fn row(kv: KeyValue) -> Row {
    let KeyValue { key, value, create_revision, mod_revision, version, .. } = kv;
    let (create_revision, mod_revision) = (create_revision.0, mod_revision.0);
    Row { key, value, create_revision, mod_revision, version }
}

/// A process that does not end by itself.
struct Endless(Child);

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn raftctl_watch_prints_what_etcdctl_prints_and_goes_on_when_its_server_dies() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let at = endpoints(&cluster);
    let mut client = cluster.client();
    client.put(b"a", b"1").unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_raftctl"))
        .args(["--endpoints", &at, "watch", "a", "--prefix", "--rev", "2", "--prev-kv"])
        .stdout(Stdio::piped())
        .spawn();
    let mut child = Endless(child.unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let mut comes = |expected: &[&str]| {
        for line in expected {
            assert_eq!(lines.next().unwrap().unwrap(), *line, "{expected:?}");
        }
    };
    comes(&["PUT", "a", "1"]);
    // The first of the endpoints serves it.
    cluster.server(1).kill();
    client.put(b"b", b"not this").unwrap();
    client.put(b"a", b"2").unwrap();
    comes(&["PUT", "a", "1", "a", "2"]);
    client.delete_range(b"a", b"").unwrap();
    comes(&["DELETE", "a", "2", "a", ""]);
    drop(child);
    cluster.server(1).start();
    let newest = client.put(b"a", b"3").unwrap();
    client.compact(newest).unwrap();
    cluster.wait_until_equal();
    let late = raftctl(&at, "watch a --rev 2");
    late.fails(1, &["compacted", &newest.to_string()]);
    raftctl("127.0.0.1:1", "--timeout 500ms watch a").fails(3, &["127.0.0.1:1"]);
}

/// Larger than what the system takes for a connection that is not read.
const FLOOD_PUTS: u64 = 500;
static FLOOD_VALUE: [u8; 64 * 1024] = [7; 64 * 1024];

#[test]
fn a_listener_that_does_not_read_costs_little_and_is_told_where_to_go_on() {
    let flags = ["--history-bytes", "2000000"].map(str::to_owned).to_vec();
    let mut cluster = Cluster::start_shaped(1, &Shape { flags, ..Shape::default() });
    cluster.leader();
    let mut client = cluster.client();
    client.put(b"f", &FLOOD_VALUE).unwrap();
    let before = resident(&mut cluster, 1);
    let mut slow = cluster.server(1).connection();
    slow.watch(&watch_of(b"f"));
    slow.flush(Deadline::after(PATIENCE)).unwrap();
    let endpoints = vec![cluster.server(1).listen().to_owned()];
    let options =
        ClientOptions { endpoints, timeout: PATIENCE, cluster_id: ClusterId(0), login: None };
    let wanted = WatchOptions { key: b"f".to_vec(), ..WatchOptions::default() };
    let mut quick = Watch::new(options, wanted);
    let heard = |watch: &mut Watch| watch.next(Deadline::after(PATIENCE)).unwrap().expect("soon");
    let begun = heard(&mut quick).revision.0;
    let mut came = 0;
    for put in 1..=FLOOD_PUTS {
        let revision = client.put(b"f", &FLOOD_VALUE).unwrap();
        assert_eq!(revision.0, begun + put);
        while came < put {
            came += u64::try_from(heard(&mut quick).events.len()).unwrap();
        }
    }
    let cost = resident(&mut cluster, 1).saturating_sub(before);
    println!("watches: a listener that does not read, {FLOOD_PUTS} puts: {cost} bytes");
    assert!(cost < 32 * 1024 * 1024, "{cost} bytes");
    let (mut up_to, mut told) = (begun, None);
    while told.is_none() {
        let reply = slow.receive(Deadline::after(PATIENCE)).unwrap();
        match reply.body {
            ReplyBody::Watch(reply) => {
                for event in reply.events() {
                    up_to += 1;
                    assert_eq!(event.kv.mod_revision.0, up_to, "what comes comes in order");
                }
            }
            ReplyBody::Error(WireError::Compacted { compact_revision }) => {
                told = Some(compact_revision.0);
            }
            body => panic!("{body:?}"),
        }
    }
    assert!(told.unwrap() > up_to + 1, "{told:?} after {up_to}");
    assert!(up_to < begun + FLOOD_PUTS, "all of it fitted: it proves nothing");
}

/// Connections of those who listen where that is measured.
const FAN_CONNECTIONS: usize = 4;
const FAN_PUTS: usize = 500;

/// A put is answered, and heard of, within these times of its beginning.
struct Fans {
    answered: Vec<Duration>,
    heard: Vec<Duration>,
    /// What the server's process used. Ticks of 10 ms.
    cpu_ticks: u64,
}

#[test]
fn many_watches_cost_little_and_all_hear_of_a_put() {
    let fans = usize::try_from(variable("WATCH_FANS").unwrap_or(100)).unwrap();
    let strict = variable("WATCH_FANS").is_some();
    let mut cluster = Cluster::start_alone(3);
    let leader = cluster.leader();
    let before = resident(&mut cluster, leader);
    let crowd: usize = if strict { 10_000 } else { 1_000 };
    let lines = crowd_of(&mut cluster, leader, crowd);
    let cost = resident(&mut cluster, leader).saturating_sub(before);
    println!("watches: {crowd} watches of a key each: {cost} bytes");
    assert!(cost < 32 * 1024 * 1024, "{cost} bytes");
    drop(lines);
    let at = |sorted: &[Duration], percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    for (what, count) in [("nobody", 0), ("fans", fans)] {
        let Fans { answered, heard, cpu_ticks } = fan_out(&mut cluster, leader, count);
        println!("watches: {what} {count}: {FAN_PUTS} puts, {} events", heard.len());
        println!(
            "watches:   put to answer p50 {:?} p99 {:?}, server {cpu_ticks} ticks of 10 ms",
            at(&answered, 50),
            at(&answered, 99)
        );
        if count > 0 {
            let (p50, p99) = (at(&heard, 50), at(&heard, 99));
            println!("watches:   put to event p50 {p50:?} p99 {p99:?}");
            assert_eq!(heard.len(), FAN_PUTS * count, "everybody hears of everything");
        }
    }
}

fn fan_out(cluster: &mut Cluster, leader: u64, fans: usize) -> Fans {
    let begun: Vec<AtomicU64> = (0..FAN_PUTS).map(|_| AtomicU64::new(0)).collect();
    let started = now();
    let lines: Vec<Connection> =
        (0..FAN_CONNECTIONS).map(|_| cluster.server(leader).connection()).collect();
    let each = fans / FAN_CONNECTIONS;
    let mut client = cluster.client_of(&[leader]);
    client.put(b"fan", b"").unwrap();
    let ticks = cpu_ticks(cluster, leader);
    let (mut answered, mut heard, ready) = (Vec::new(), Vec::new(), AtomicU32::new(0));
    thread::scope(|scope| {
        let (begun, started, ready) = (&begun, &started, &ready);
        let listeners: Vec<_> = lines
            .into_iter()
            .map(|line| scope.spawn(move || hear_fans(line, each, begun, started, ready)))
            .collect();
        let all = u32::try_from(FAN_CONNECTIONS).unwrap();
        eventually("all listen", PATIENCE, || (ready.load(Ordering::SeqCst) == all).then_some(()));
        for (nth, moment) in begun.iter().enumerate() {
            moment.store(micros(started), Ordering::SeqCst);
            let put = now();
            client.put(b"fan", &nth.to_le_bytes()).unwrap();
            answered.push(put.elapsed());
        }
        for listener in listeners {
            heard.extend(listener.join().unwrap());
        }
    });
    let cpu_ticks = cpu_ticks(cluster, leader) - ticks;
    answered.sort();
    heard.sort();
    Fans { answered, heard, cpu_ticks }
}

fn micros(since: &Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap()
}

fn watch_of(key: &[u8]) -> WatchArgs<'_> {
    WatchArgs {
        key,
        end: b"",
        start: Revision(0),
        prev_kv: false,
        no_put: false,
        no_delete: false,
        progress_ms: 0,
    }
}

/// Opens watches, and says how long after the beginning of its put each event came.
fn hear_fans(
    mut line: Connection,
    each: usize,
    begun: &[AtomicU64],
    started: &Instant,
    ready: &AtomicU32,
) -> Vec<Duration> {
    let deadline = Deadline::after(3 * PATIENCE);
    for _ in 0..each {
        line.watch(&watch_of(b"fan"));
    }
    line.flush(deadline).unwrap();
    let (mut open, mut heard) = (0, Vec::new());
    if each == 0 {
        ready.fetch_add(1, Ordering::SeqCst);
    }
    while heard.len() < each * begun.len() {
        let reply = line.receive(deadline).unwrap();
        let ReplyBody::Watch(reply) = reply.body else { panic!("{:?}", reply.body) };
        for event in reply.events() {
            let nth = usize::from_le_bytes(event.kv.value.try_into().unwrap());
            let since = micros(started) - begun[nth].load(Ordering::SeqCst);
            heard.push(Duration::from_micros(since));
        }
        if reply.is_empty() {
            open += 1;
            if open == each {
                ready.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    heard
}

/// Many watches of a key each.
fn crowd_of(cluster: &mut Cluster, id: u64, count: usize) -> Vec<Connection> {
    let each = count / 10;
    let mut lines = Vec::new();
    for line in 0..10 {
        let mut connection = cluster.server(id).connection();
        for nth in 0..each {
            let key = format!("crowd/{line:04}/{nth:06}");
            connection.watch(&watch_of(key.as_bytes()));
        }
        connection.flush(Deadline::after(PATIENCE)).unwrap();
        for _ in 0..each {
            let reply = connection.receive(Deadline::after(PATIENCE)).unwrap();
            assert!(matches!(reply.body, ReplyBody::Watch(_)), "{:?}", reply.body);
        }
        lines.push(connection);
    }
    lines
}

/// What a node's process has used so far. Ticks of 10 ms.
fn cpu_ticks(cluster: &mut Cluster, id: u64) -> u64 {
    let pid = cluster.server(id).pid().expect("the node runs");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
