//! Ranges of many keys, and clients that do not read what they ask for.
//!
//! `RANGE_KEYS=1000000` measures, in a release build; a few keys show that it works.

use super::filled::Filled;
use super::grown::{self, RATE, VALUE_BYTES};
use super::harness::{Cluster, PATIENCE, STEADFAST, Shape, resident};
use super::patience::{StopAtEnd, now};
use super::turn_lengths::{TURN_US, assert_short, between, is_excused, stolen_ms};
use super::turns::Company;
use super::variable;
use raftd::client::{
    Client, Connection, Deadline, Error as ClientError, Order, RangeArgs, RangeDone, RevisionSpan,
    Selection, SortBy,
};
use raftd::limits::SORTED_KEYS_MAX;
use raftd::types::Revision;
use raftd::wire::client::Consistency;
use raftd::wire::error::Error as WireError;
use raftd::wire::reply::ReplyBody;
use raftd::wire::status::TurnTimes;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::thread;

/// What a range may add to a server's memory, however long it is. Bytes.
const RANGE_BYTES: u64 = 16 * 1024 * 1024;

/// What a put over a key adds, in the history and in the log: it counts for itself. Bytes.
const PUT_BYTES: u64 = 1024;

fn all() -> RangeArgs<'static> {
    RangeArgs { end: &[0], ..RangeArgs::of_key(&[0]) }
}

fn sorted(by: SortBy, order: Order) -> Selection {
    Selection { by, order, ..Selection::ALL }
}

/// What is measured: its name, what is asked, and how many keys are to come of so many.
type Case = (&'static str, RangeArgs<'static>, fn(u64) -> u64);

/// A filter that leaves nothing leaves nothing for later either.
const NOTHING_LEFT: &str = "none that a filter leaves";

/// Every kind of range over all keys.
fn cases() -> Vec<Case> {
    let every = |keys| keys;
    let sorted_keys = |keys: u64| keys.min(u64::try_from(SORTED_KEYS_MAX).unwrap());
    let recent = RevisionSpan { min: Revision(2), max: Revision(0) };
    let filtered = Selection { create_revision: recent, ..Selection::ALL };
    let never = RevisionSpan { min: Revision(1 << 40), max: Revision(0) };
    let nothing = Selection { mod_revision: never, ..Selection::ALL };
    vec![
        ("all keys and values", all(), every),
        ("all keys", RangeArgs { keys_only: true, ..all() }, every),
        ("their count", RangeArgs { count_only: true, ..all() }, |_| 0),
        ("the first 10", RangeArgs { limit: 10, ..all() }, |_| 10),
        (
            "all, the last first",
            {
                let selection = sorted(SortBy::Key, Order::Descend);
                RangeArgs { selection, consistency: Consistency::Serializable, ..all() }
            },
            every,
        ),
        ("all that a filter leaves", RangeArgs { selection: filtered, ..all() }, every),
        (NOTHING_LEFT, RangeArgs { selection: nothing, ..all() }, |_| 0),
        (
            "the newest",
            { RangeArgs { limit: 1, selection: sorted(SortBy::Mod, Order::Descend), ..all() } },
            |_| 1,
        ),
        (
            "by revision, the newest first",
            { RangeArgs { selection: sorted(SortBy::Mod, Order::Descend), ..all() } },
            sorted_keys,
        ),
        (
            "by value",
            { RangeArgs { selection: sorted(SortBy::Value, Order::Ascend), ..all() } },
            sorted_keys,
        ),
    ]
}

/// Asks on a connection of its own, so that what is measured is one request. Returns how many keys
/// came, and what was said at the end.
fn ask(connection: &mut Connection, args: &RangeArgs<'_>) -> (u64, RangeDone) {
    let id = connection.range(args);
    connection.flush(Deadline::after(PATIENCE)).unwrap();
    let (mut keys, mut last): (u64, Vec<u8>) = (0, Vec::new());
    let backwards = args.selection.is_backwards();
    loop {
        let reply = connection.receive(Deadline::after(PATIENCE)).unwrap();
        assert_eq!(reply.id, id);
        let ReplyBody::Range(range) = reply.body else { panic!("{:?}", reply.body) };
        for kv in range.kvs() {
            assert!(kv.mod_revision <= range.revision, "all of it is of one moment");
            let in_order = if backwards { kv.key < &last[..] } else { kv.key > &last[..] };
            assert!(keys == 0 || in_order || args.selection.sorts(), "every key once, in order");
            last.clear();
            last.extend_from_slice(kv.key);
            keys += 1;
        }
        if !range.goes_on {
            let (revision, more, count) = (range.revision, range.more, range.count);
            return (keys, RangeDone { revision, more, count });
        }
    }
}

/// Says what the turns were between two looks, and how many were too long.
fn say(what: &str, before: &TurnTimes, after: &TurnTimes) -> u64 {
    let (turns, above, _) = between(before, after);
    let pairs = before.buckets.iter().zip(&after.buckets);
    let times: Vec<String> = pairs
        .filter(|(before, after)| after.cpu > before.cpu)
        .map(|(before, after)| {
            let bound = after.at_most_us.map_or("more".to_owned(), |bound| bound.to_string());
            format!("{bound}:{}", after.cpu - before.cpu)
        })
        .collect();
    println!("ranges:   {turns} turns by µs of CPU, at most: {}", times.join(" "));
    if above > 0 {
        println!("ranges:   {above} of {what} above {TURN_US} µs");
    }
    above
}

/// 1,000,000 keys of 256 B under load, read in every way: no turn is long, whatever is asked, and
/// the server keeps no answer.
#[test]
fn a_range_of_any_size_takes_short_turns_and_no_memory() {
    let asked = variable("RANGE_KEYS");
    let keys = asked.unwrap_or(20_000);
    let company = if asked.is_some() { Company::Nobody } else { Company::Others };
    let _filled = asked.map(|_| Filled::touch());
    let flags = ["--segment-bytes", "8388608"].into_iter();
    // A machine that does other things as well must not depose the leader.
    let patient = STEADFAST.into_iter().filter(|_| asked.is_none());
    let flags = flags.chain(patient).map(str::to_owned).collect();
    let mut cluster = Cluster::start_shaped(3, &Shape { flags, company, ..Shape::default() });
    let leader = cluster.leader();
    let stop = AtomicBool::new(false);
    let mut writer = cluster.server(leader).connection();
    grown::put(&mut writer, 0..keys, None, &stop);
    println!("ranges: {keys} keys of {VALUE_BYTES} B, 20,000 puts a second meanwhile");
    let (mut turns, mut excused, mut long) = (0, 0, 0);
    thread::scope(|scope| {
        let stop = &stop;
        let numbers = (1..).map(|step: u64| step * 7_368_787 % keys);
        scope.spawn(move || grown::put(&mut writer, numbers, Some(RATE), stop));
        let _stop = StopAtEnd(stop);
        let mut connection = cluster.server(leader).connection();
        for (what, args, expected) in cases() {
            let memory = resident(&mut cluster, leader);
            let (before, stolen) = (cluster.server(leader).says(), stolen_ms());
            let began = now();
            let (found, done) = ask(&mut connection, &args);
            let took = began.elapsed();
            let after = cluster.server(leader).says();
            let puts = after.revision.0 - before.revision.0;
            let (before, after) = (before.turn_times, after.turn_times);
            println!("ranges: {what}: {found} keys of {} in {took:?}", done.count);
            let above = say(what, &before, &after);
            let stolen = stolen_ms() - stolen;
            println!("ranges:   {stolen} ms stolen by the host");
            // What the host takes away counts as the thread's own time.
            let by_host = is_excused(above, after.longest_cpu_us, stolen);
            if by_host {
                excused += above;
            } else {
                long += above;
            }
            turns += between(&before, &after).0;
            assert_eq!((found, done.count), (expected(keys), keys), "{what}");
            assert_eq!(done.more, found < keys && !args.count_only && what != NOTHING_LEFT);
            let grown = resident(&mut cluster, leader).saturating_sub(memory);
            println!("ranges:   {} KiB more resident, {puts} puts meanwhile", grown / 1024);
            let most = RANGE_BYTES + puts * PUT_BYTES;
            assert!(grown <= most, "{what}: {grown} bytes, and {puts} puts");
        }
    });
    println!("ranges: of {turns} turns {excused} long ones are the host's, {long} our own");
    if asked.is_some() {
        assert_short(turns, excused, long);
    }
    forget_all(&mut cluster, leader, keys);
    cluster.wait_until_equal();
}

/// What one delete of all keys, and the compaction behind it, cost in turns. Figures without a
/// bound: a delete is one command, and all nodes apply it at one moment.
fn forget_all(cluster: &mut Cluster, leader: u64, keys: u64) {
    let mut client = cluster.client();
    let before = cluster.server(leader).says().turn_times;
    let began = now();
    let deleted = client.delete_range(&[0], &[0]).unwrap();
    let after = cluster.server(leader).says().turn_times;
    println!("ranges: one delete of {} keys in {:?}", deleted.deleted, began.elapsed());
    assert_eq!(deleted.deleted, keys);
    say("the delete", &before, &after);
    // The history exceeds its bound by now, and may be compacted up to here already.
    let last = client.put(b"last", b"").unwrap();
    let began = now();
    if let Err(why) = client.compact(last) {
        let source = WireError::Compacted { compact_revision: last };
        assert!(
            matches!(&why, ClientError::Refused { source: it, .. } if *it == source),
            "{why:?}"
        );
    }
    let compacted = cluster.server(leader).says().turn_times;
    println!("ranges: the compaction behind it in {:?}", began.elapsed());
    say("the compaction", &after, &compacted);
    assert_eq!(client.range(&all()).unwrap().count, 1);
}

/// A client that does not read: its range stands still, others are served, the memory does not
/// grow; and when the history has gone on by as much as it may hold, it hears so.
#[test]
fn who_does_not_read_a_range_holds_back_a_bounded_history() {
    let history = 4 << 20;
    let flags = ["--segment-bytes", "16777216", "--history-bytes", "4194304"];
    let flags = flags.map(str::to_owned).to_vec();
    let mut cluster = Cluster::start_shaped(1, &Shape { flags, ..Shape::default() });
    let leader = cluster.leader();
    let mut client = cluster.client();
    // More than the system's buffers take.
    for number in 0..500 {
        client.put(format!("big/{number:03}").as_bytes(), &vec![b'x'; 64 * 1024]).unwrap();
    }
    let mut slow = cluster.server(leader).connection();
    let id = slow.range(&RangeArgs { end: b"big0", ..RangeArgs::of_key(b"big/") });
    slow.flush(Deadline::after(PATIENCE)).unwrap();
    // Another client gets all of it meanwhile.
    assert_eq!(client.range(&all()).unwrap().kvs.len(), 500);
    let memory = resident(&mut cluster, leader);
    let value = vec![b'y'; 16 * 1024];
    let mut peak = 0;
    for number in 0..2_000 {
        client.put(format!("small/{}", number % 10).as_bytes(), &value).unwrap();
        if number % 100 == 0 {
            peak = peak.max(resident(&mut cluster, leader));
        }
    }
    let grown = peak.saturating_sub(memory);
    println!("ranges: 32 MiB of puts beside who does not read: {grown} bytes more");
    assert!(grown < 4 * history + RANGE_BYTES, "{grown} bytes");
    let mut keys = 0;
    let why = loop {
        let reply = slow.receive(Deadline::after(PATIENCE)).unwrap();
        assert_eq!(reply.id, id);
        match reply.body {
            ReplyBody::Range(range) => {
                assert!(range.goes_on, "the rest cannot have come");
                keys += range.len();
            }
            ReplyBody::Error(why) => break why,
            other => panic!("{other:?}"),
        }
    };
    println!("ranges: it had {keys} of 500 keys, and heard: {why}");
    let WireError::Compacted { compact_revision } = why else { panic!("{why:?}") };
    assert!(compact_revision > Revision(501));
}

/// Much is put, superseded and compacted while a client reads slowly, but not too much: what it
/// gets is of the moment when it began.
#[test]
fn a_slow_reader_gets_the_moment_that_it_asked_for() {
    let flags = ["--segment-bytes", "16777216"].map(str::to_owned).to_vec();
    let cluster = Cluster::start_shaped(1, &Shape { flags, ..Shape::default() });
    let mut client = cluster.client();
    for number in 0..300 {
        client.put(format!("k{number:03}").as_bytes(), &vec![b'x'; 64 * 1024]).unwrap();
    }
    let mut other: Client = cluster.client();
    let mut seen: u64 = 0;
    let done = client.range_each(&all(), &mut |kv| {
        if seen == 0 {
            let put = other.put(b"k299", b"later").unwrap();
            other.delete_range(b"k298", b"").unwrap();
            other.put(b"k2975", b"later").unwrap();
            other.compact(put.next().next()).unwrap();
        }
        assert_eq!(kv.value.len(), 64 * 1024, "{seen}");
        assert_eq!(kv.key, format!("k{seen:03}").into_bytes());
        seen += 1;
        ControlFlow::Continue(())
    });
    let done = done.unwrap();
    assert_eq!((seen, done.count, done.more), (300, 300, false));
    assert_eq!(client.range(&all()).unwrap().count, 300);
}
