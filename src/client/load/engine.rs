//! The loop: who asks, when there is time for it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::client::Clock;

use super::error::LoadError;
use super::link::{Link, State};
use super::script::Script;
use super::speaker::{Answer, Refusal, Said, Speaker};
use super::task::{OnFailure, Pace, Taken, Task};
use super::ticker::Ticker;

/// Without an answer for this long the load has failed. Nanoseconds.
const STALLED_NS: u64 = 10_000_000_000;

/// A connection that broke is opened again after this. Nanoseconds.
const REOPEN_NS: u64 = 10_000_000;

/// Bytes read from one connection at once: all its answers, unless it has hundreds of reads in
/// flight.
const READ_BYTES: usize = 256 * 1024;

/// The finest an open loop looks whether something is due: an operation is asked that late at most
/// by our doing, and 20,000 wake-ups a second are what a core can spare.
const TICK_NS_MIN: u64 = 50_000;
const TICK_NS_MAX: u64 = 1_000_000;

const TICKER: Token = Token(usize::MAX);

/// Connections, and requests in flight on each at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Connections.
    pub connections: usize,
    /// Requests in flight on each at most.
    pub depth: usize,
}

/// Whom to ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The servers.
    pub endpoints: Vec<SocketAddr>,
    /// The one to begin with: who leads.
    pub first: usize,
}

/// Asks until the script is over, on this thread. `speak` makes each connection's speaker.
pub fn run<S: Speaker>(
    clock: Clock,
    target: &Target,
    shape: Shape,
    script: &mut Script<'_>,
    speak: impl FnMut() -> S,
) -> Result<(), LoadError> {
    let mut engine = Engine::new(clock, target, shape, script, speak)?;
    let mut events = Events::with_capacity(1024);
    let mut progress = (0, clock.now_ns());
    loop {
        let now_ns = clock.now_ns();
        let idle = engine.in_flight == 0 && engine.again.is_empty();
        if idle && engine.script.is_over(now_ns) {
            return Ok(());
        }
        if engine.script.done() != progress.0 || (idle && engine.closed == 0) {
            progress = (engine.script.done(), now_ns);
        } else if now_ns - progress.1 > STALLED_NS {
            return Err(LoadError::Stalled { in_flight: engine.in_flight });
        }
        // Closed connections are opened again by the clock.
        let wait = Duration::from_millis(if engine.closed > 0 { 2 } else { 50 });
        match engine.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(LoadError::Io { doing: "wait for answers", source }),
            Ok(()) => {}
        }
        for event in &events {
            if event.token() == TICKER {
                engine.tick()?;
            } else {
                engine.serve(event.token().0)?;
            }
        }
        engine.go_on()?;
    }
}

struct Engine<'t, 's, 'l, S> {
    clock: Clock,
    target: &'t Target,
    script: &'s mut Script<'l>,
    poll: Poll,
    ticker: Option<Ticker>,
    links: Vec<Link<S>>,
    /// Links that are not ready.
    closed: usize,
    /// Links that have something to send.
    dirty: Vec<usize>,
    /// Where an open loop goes on to look for a free place.
    cursor: usize,
    in_flight: usize,
    /// What is to be asked once more.
    again: VecDeque<Task>,
    input: Vec<u8>,
}

impl<'t, 's, 'l, S: Speaker> Engine<'t, 's, 'l, S> {
    fn new(
        clock: Clock,
        target: &'t Target,
        shape: Shape,
        script: &'s mut Script<'l>,
        mut speak: impl FnMut() -> S,
    ) -> Result<Engine<'t, 's, 'l, S>, LoadError> {
        let io = |source| LoadError::Io { doing: "make a poll", source };
        let poll = Poll::new().map_err(io)?;
        let ticker = match script.pace() {
            Pace::Closed => None,
            Pace::Open { per_second } => {
                let gap_ns = 1_000_000_000 / per_second.max(1);
                let interval = Duration::from_nanos(gap_ns.clamp(TICK_NS_MIN, TICK_NS_MAX));
                let ticker = Ticker::every(interval).map_err(io)?;
                let mut source = SourceFd(&ticker.as_raw_fd());
                poll.registry().register(&mut source, TICKER, Interest::READABLE).map_err(io)?;
                Some(ticker)
            }
        };
        let link = |_| Link::new(speak(), target.first, shape.depth);
        let links: Vec<_> = (0..shape.connections).map(link).collect();
        let mut engine = Engine {
            clock,
            target,
            script,
            poll,
            ticker,
            closed: links.len(),
            links,
            dirty: Vec::new(),
            cursor: 0,
            in_flight: 0,
            again: VecDeque::new(),
            input: vec![0; READ_BYTES],
        };
        for at in 0..engine.links.len() {
            engine.open(at)?;
        }
        engine.go_on()?;
        Ok(engine)
    }

    fn open(&mut self, at: usize) -> Result<(), LoadError> {
        let link = &mut self.links[at];
        let address = self.target.endpoints[link.endpoint];
        if let Err(error) = link.open(address, self.poll.registry(), Token(at)) {
            return self.broke(at, "connect", error);
        }
        if link.state == State::Ready {
            self.closed -= 1;
        }
        self.mark(at);
        Ok(())
    }

    /// Takes what a connection brought.
    fn serve(&mut self, at: usize) -> Result<(), LoadError> {
        let mut input = std::mem::take(&mut self.input);
        let served = self.read(at, &mut input);
        self.input = input;
        served?;
        if self.links[at].state == State::Ready && self.ticker.is_none() {
            self.fill(at);
        }
        self.mark(at);
        Ok(())
    }

    fn read(&mut self, at: usize, input: &mut Vec<u8>) -> Result<(), LoadError> {
        let mut more = true;
        while more {
            let bytes = match self.links[at].receive(input) {
                Ok((bytes, full)) => {
                    more = full;
                    bytes
                }
                Err(error) => return self.broke(at, "receive", error),
            };
            let now_ns = self.clock.now_ns();
            let mut rest = bytes;
            loop {
                let heard = self.links[at].speaker.hear(rest).map_err(LoadError::answer)?;
                let Some(heard) = heard else { break };
                rest = &rest[heard.consumed..];
                match heard.said {
                    Said::Welcome => {
                        self.links[at].state = State::Ready;
                        self.closed -= 1;
                    }
                    Said::TurnedAway(why) => return self.turned_away(at, why),
                    Said::Part => {}
                    Said::Answer { id, answer } => {
                        if self.take(at, id, &answer, now_ns)? == Stays::No {
                            return Ok(());
                        }
                    }
                }
            }
            self.links[at].keep(rest);
        }
        Ok(())
    }

    fn take(
        &mut self,
        at: usize,
        id: u64,
        answer: &Answer<'_>,
        now_ns: u64,
    ) -> Result<Stays, LoadError> {
        let link = &mut self.links[at];
        let slot = usize::try_from(id).unwrap_or(usize::MAX);
        let Some(task) = link.tasks.get_mut(slot).and_then(Option::take) else {
            return Err(LoadError::answer(format!("answer {id} to a request that was never made")));
        };
        link.free.push(slot);
        self.in_flight -= 1;
        match self.script.take(&task, answer, now_ns)? {
            Taken::Done => {}
            Taken::Then(next) => self.ask(at, next),
            Taken::Again(task) => {
                self.again.push_back(task);
                self.follow(at, answer);
                return Ok(Stays::No);
            }
        }
        Ok(Stays::Yes)
    }

    /// Leaves a server that does not do what is asked, for the one that leads if it named it.
    fn follow(&mut self, at: usize, answer: &Answer<'_>) {
        let leader = match answer {
            Answer::Refused(Refusal::NotLeader { leader: Some(leader) }) => {
                let address = leader.parse::<SocketAddr>().ok();
                self.target.endpoints.iter().position(|endpoint| Some(*endpoint) == address)
            }
            Answer::Refused(_)
            | Answer::Put { .. }
            | Answer::Found(_)
            | Answer::Missing
            | Answer::Scanned { .. } => None,
        };
        let next = (self.links[at].endpoint + 1) % self.target.endpoints.len();
        // A leader that is named and does not lead is asked again a little later, too.
        self.close(at, leader.unwrap_or(next), "another server leads");
    }

    fn turned_away(&mut self, at: usize, why: String) -> Result<(), LoadError> {
        match self.script.on_failure() {
            OnFailure::Stop => Err(LoadError::TurnedAway { why }),
            OnFailure::GoOn => {
                let next = (self.links[at].endpoint + 1) % self.target.endpoints.len();
                self.close(at, next, &why);
                Ok(())
            }
        }
    }

    fn broke(
        &mut self,
        at: usize,
        doing: &'static str,
        source: io::Error,
    ) -> Result<(), LoadError> {
        match self.script.on_failure() {
            OnFailure::Stop => Err(LoadError::Io { doing, source }),
            OnFailure::GoOn => {
                let next = (self.links[at].endpoint + 1) % self.target.endpoints.len();
                self.close(at, next, "a connection broke");
                Ok(())
            }
        }
    }

    /// Closes a connection, to be opened again to `endpoint`.
    fn close(&mut self, at: usize, endpoint: usize, why: &str) {
        let link = &mut self.links[at];
        if link.state == State::Ready {
            self.closed += 1;
        }
        let lost = link.close(self.clock.now_ns() + REOPEN_NS);
        link.endpoint = endpoint;
        self.in_flight -= lost.len();
        for task in lost {
            self.script.lost(&task, why);
            self.again.push_back(task);
        }
    }

    fn tick(&mut self) -> Result<(), LoadError> {
        let Some(ticker) = &self.ticker else { return Ok(()) };
        ticker.take().map_err(|source| LoadError::Io { doing: "read a timer", source })
    }

    /// What is due by the clock: connections to be opened, operations to be asked, bytes to be
    /// sent.
    fn go_on(&mut self) -> Result<(), LoadError> {
        if self.closed > 0 {
            let now_ns = self.clock.now_ns();
            for at in 0..self.links.len() {
                match self.links[at].state {
                    State::Closed { until_ns } if until_ns <= now_ns => self.open(at)?,
                    State::Closed { .. } | State::Opening | State::Ready => {}
                }
            }
        }
        if self.ticker.is_some() || !self.again.is_empty() {
            self.spread();
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for at in dirty.drain(..) {
            self.links[at].is_dirty = false;
            if let Err(error) = self.links[at].flush() {
                self.broke(at, "send", error)?;
            }
        }
        // Whoever broke has nothing to send; the list is kept for its memory.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        Ok(())
    }

    /// Asks on this connection as long as it has free places.
    fn fill(&mut self, at: usize) {
        let now_ns = self.clock.now_ns();
        while !self.links[at].free.is_empty() {
            let Some(task) = self.next_task(now_ns) else { return };
            self.ask(at, task);
        }
    }

    /// Asks on all connections in turn what is due.
    fn spread(&mut self) {
        let now_ns = self.clock.now_ns();
        while let Some(at) = self.free_link() {
            let Some(task) = self.next_task(now_ns) else { return };
            self.ask(at, task);
            self.mark(at);
        }
    }

    fn next_task(&mut self, now_ns: u64) -> Option<Task> {
        self.again.pop_front().or_else(|| self.script.next(now_ns))
    }

    /// The next connection with a free place.
    fn free_link(&mut self) -> Option<usize> {
        let count = self.links.len();
        let is_free = |link: &Link<S>| link.state == State::Ready && !link.free.is_empty();
        let found = (0..count)
            .map(|step| (self.cursor + step) % count)
            .find(|at| is_free(&self.links[*at]))?;
        self.cursor = (found + 1) % count;
        Some(found)
    }

    fn ask(&mut self, at: usize, task: Task) {
        let link = &mut self.links[at];
        let slot = link.free.pop().expect("the caller has found a free place");
        link.tasks[slot] = Some(task);
        let id = u64::try_from(slot).unwrap_or(u64::MAX);
        link.speaker.ask(&mut link.out, id, self.script.asked(&task));
        self.in_flight += 1;
    }

    fn mark(&mut self, at: usize) {
        let link = &mut self.links[at];
        if !link.is_dirty {
            link.is_dirty = true;
            self.dirty.push(at);
        }
    }
}

/// Whether a connection is still open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stays {
    Yes,
    No,
}
