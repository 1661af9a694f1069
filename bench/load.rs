//! The load: one thread, many connections, a fixed number of requests in flight on each (a closed
//! loop).
//!
//! A closed loop measures the peak and the cost of an operation. Its latencies are those at that
//! load: while
//! the server stands still nobody asks, so they say less about stalls than an open loop would.

use crate::Result;
use crate::clock::Clock;
use crate::ledger::{KeyNumber, Ledger, Random};
use crate::link::{Answer, Asked, Link, Slot, read_answer};
use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};
use raftd::limits;
use raftd::wire::client::{RangeArgs, put_request, range_request};
use raftd::wire::error::{Advice, Error};
use raftd::wire::frame::next_frame;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// Without an answer for this long the run has failed. Nanoseconds.
const STALLED_NS: u64 = 10_000_000_000;

/// More refusals than this and the run has failed.
const ERRORS_MAX: u64 = 10_000;

/// Bytes read from one connection at once: all its answers, unless it has hundreds of reads in
/// flight.
const READ_BYTES: usize = 256 * 1024;

/// Connections, and requests in flight on each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// Connections.
    pub(crate) connections: usize,
    /// Requests in flight on each.
    pub(crate) depth: usize,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// Put every key once, ascending.
    Fill,
    /// Put random keys until told to stop.
    Put,
    /// Read random keys, linearizable, until told to stop.
    Get,
    /// Read every key once; each must be exactly what was acknowledged last.
    Check,
}

impl Work {
    const fn ends_by_itself(self) -> bool {
        match self {
            Work::Fill | Work::Check => true,
            Work::Put | Work::Get => false,
        }
    }
}

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const ENDING: u8 = 2;

/// How the measuring thread and the load talk to each other.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    phase: AtomicU8,
    done: AtomicU64,
}

impl Signals {
    /// From now on latencies count.
    pub(crate) fn measure(&self) {
        self.phase.store(MEASURING, Ordering::Release);
    }

    /// Nothing new is asked from now on; what is in flight is awaited.
    pub(crate) fn end(&self) {
        self.phase.store(ENDING, Ordering::Release);
    }

    /// Operations done so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }
}

/// What came of a run.
pub(crate) struct Tally {
    /// Nanoseconds from sending to answer, of the answers within the measured time.
    pub(crate) latency: Histogram<u64>,
    /// Refusals by what they said.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Answers that cannot be right.
    pub(crate) wrong: u64,
}

impl Tally {
    /// Of no run yet.
    pub(crate) fn new() -> Tally {
        let latency = Histogram::new_with_bounds(100, 60_000_000_000, 3);
        let latency = latency.expect("constant bounds are valid");
        Tally { latency, errors: BTreeMap::new(), wrong: 0 }
    }

    /// Adds another run's.
    pub(crate) fn merge(&mut self, other: &Tally) {
        self.latency.add(&other.latency).expect("both have the same bounds");
        self.wrong += other.wrong;
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
    }

    /// Refusals of all kinds.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// The leader of the run's start no longer leads: the run says nothing.
#[derive(Debug)]
pub(crate) struct LeaderLost;

impl std::fmt::Display for LeaderLost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the leader lost its leadership during the run")
    }
}

impl std::error::Error for LeaderLost {}

/// Asks `leader` until the work is done or `signals` ends it.
pub(crate) fn run(
    clock: Clock,
    leader: SocketAddr,
    shape: Shape,
    work: Work,
    ledger: &mut Ledger,
    signals: &Signals,
) -> Result<Tally> {
    let mut poll = Poll::new()?;
    let mut links = Vec::with_capacity(shape.connections);
    for number in 0..shape.connections {
        let mut link = Link::connect(leader, shape)?;
        link.register(poll.registry(), Token(number))?;
        links.push(link);
    }
    let mut load = Load::new(clock, work, ledger);
    let mut events = Events::with_capacity(1024);
    for link in &mut links {
        load.begin(link)?;
    }
    let mut progress = (load.done, clock.now_ns());
    while load.in_flight > 0 {
        match poll.poll(&mut events, Some(Duration::from_millis(50))) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        load.phase = signals.phase.load(Ordering::Acquire);
        for event in &events {
            load.serve(&mut links[event.token().0])?;
        }
        signals.done.store(load.done, Ordering::Release);
        let now_ns = clock.now_ns();
        if load.done != progress.0 {
            progress = (load.done, now_ns);
        } else if now_ns - progress.1 > STALLED_NS {
            return Err(format!("no answer for 10 s, {} in flight", load.in_flight).into());
        }
    }
    Ok(load.tally)
}

struct Load<'l> {
    clock: Clock,
    work: Work,
    ledger: &'l mut Ledger,
    random: Random,
    /// The next key of a work that ends by itself.
    next_key: u32,
    phase: u8,
    in_flight: usize,
    done: u64,
    tally: Tally,
    input: Vec<u8>,
    out: Vec<u8>,
}

impl<'l> Load<'l> {
    fn new(clock: Clock, work: Work, ledger: &'l mut Ledger) -> Load<'l> {
        Load {
            clock,
            work,
            random: Random::new(clock.now_ns()),
            ledger,
            next_key: 0,
            phase: WARMING,
            in_flight: 0,
            done: 0,
            tally: Tally::new(),
            input: vec![0; READ_BYTES],
            out: Vec::new(),
        }
    }

    /// The first requests of a connection.
    fn begin(&mut self, link: &mut Link) -> Result<()> {
        let now_ns = self.clock.now_ns();
        self.out.clear();
        for id in 0..link.slots.len() {
            self.ask(&mut link.slots[id], id, now_ns);
        }
        Ok(link.send(&self.out)?)
    }

    /// Takes the answers of a connection and asks anew, with one read and one write unless there is
    /// too much.
    fn serve(&mut self, link: &mut Link) -> Result<()> {
        let mut input = std::mem::take(&mut self.input);
        self.out.clear();
        let mut more = true;
        while more {
            let bytes;
            (bytes, more) = link.receive(&mut input)?;
            let now_ns = self.clock.now_ns();
            let mut rest = bytes;
            while let Some(frame) = next_frame(rest, limits::FRAME_BYTES_MAX)? {
                self.take(&mut link.slots, frame.body, now_ns)?;
                rest = &rest[frame.consumed..];
            }
            link.keep(rest);
        }
        self.input = input;
        Ok(link.send(&self.out)?)
    }

    fn take(&mut self, slots: &mut [Slot], body: &[u8], now_ns: u64) -> Result<()> {
        let (id, answer) = read_answer(body)?;
        let slot = slots.get_mut(id).ok_or("an answer to a request that was never made")?;
        match (slot.asked, answer) {
            (Asked::Put(put), Answer::Put { revision }) => {
                self.ledger.acknowledge(slot.key, put, revision);
                self.count(slot, now_ns);
            }
            (Asked::Get { at_least }, Answer::Found(found)) => {
                let right = match self.work {
                    Work::Check => self.ledger.is_newest(slot.key, &found),
                    Work::Fill | Work::Put | Work::Get => {
                        self.ledger.is_right(slot.key, at_least, &found)
                    }
                };
                self.tally.wrong += u64::from(!right);
                self.count(slot, now_ns);
            }
            (Asked::Get { .. }, Answer::Missing) => {
                self.tally.wrong += 1;
                self.count(slot, now_ns);
            }
            (Asked::Put(_) | Asked::Get { .. }, Answer::Refused(error)) => self.refused(&error)?,
            (asked, answer) => return Err(format!("asked {asked:?}, got {answer:?}").into()),
        }
        slot.asked = Asked::Nothing;
        self.in_flight -= 1;
        self.ask(slot, id, now_ns);
        Ok(())
    }

    fn count(&mut self, slot: &Slot, now_ns: u64) {
        self.done += 1;
        if self.phase == MEASURING || self.work.ends_by_itself() {
            self.tally.latency.saturating_record(now_ns - slot.started_ns);
        }
    }

    fn refused(&mut self, error: &Error) -> Result<()> {
        if let Error::NotLeader { .. } = error {
            return Err(Box::new(LeaderLost));
        }
        if error.advice() == Advice::Unknown {
            self.ledger.lose();
        }
        *self.tally.errors.entry(error.to_string()).or_default() += 1;
        if self.tally.errors() > ERRORS_MAX {
            return Err(format!("too many refusals, the last one: {error}").into());
        }
        Ok(())
    }

    /// Fills a free slot, if there is anything left to ask.
    fn ask(&mut self, slot: &mut Slot, id: usize, now_ns: u64) {
        let Some(key) = self.next_key() else { return };
        let wire_id = u64::try_from(id).expect("usize fits u64");
        let asked = match self.work {
            Work::Fill | Work::Put => {
                let (put, value) = self.ledger.next_value(key);
                put_request(&mut self.out, wire_id, &key.bytes(), value);
                Asked::Put(put)
            }
            Work::Get | Work::Check => {
                range_request(&mut self.out, wire_id, &RangeArgs::of_key(&key.bytes()));
                Asked::Get { at_least: self.ledger.acknowledged_revision(key) }
            }
        };
        *slot = Slot { started_ns: now_ns, key, asked };
        self.in_flight += 1;
    }

    fn next_key(&mut self) -> Option<KeyNumber> {
        if self.phase == ENDING {
            return None;
        }
        if !self.work.ends_by_itself() {
            return Some(KeyNumber(self.random.below(self.ledger.keys())));
        }
        let key = self.next_key;
        self.next_key = (key + 1).min(self.ledger.keys());
        (key < self.ledger.keys()).then_some(KeyNumber(key))
    }
}
