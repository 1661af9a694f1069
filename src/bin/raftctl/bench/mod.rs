//! bench: how much a cluster takes, and how long it takes.
//!
//! ```text
//! no key begins with the prefix   or it is refused: the keys are put over, and deleted
//! put every key → load, warming up and then measured → read every key back → delete them
//! ```
//! It goes on when a leader changes: the waiting is in the latencies. Its connections do not log
//! in: where rights count it is refused at its first question.

pub(crate) mod args;
mod report;

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use raftd::client::load::{
    self, KeyNumber, Ledger, LoadError, OnFailure, Pace, RaftdSpeaker, Script, Shape, Signals,
    Tally, Target, Work, Workload,
};
use raftd::client::{Client, Clock, Deadline, RangeArgs, prefix_end, process_cpu_ns};
use raftd::program::raise_descriptor_limit;
use raftd::types::NodeId;
use raftd::wire::client::Consistency;

use super::args::{Format, Freshness};
use super::exit::{End, Failure};
use super::save::Progress;
use args::BenchArgs;
use report::Measured;

/// For what is not measured: enough to be quick.
const QUICK: Shape = Shape { connections: 16, depth: 32 };

/// Keys deleted at once: more would hold others up, since a delete is done in one turn.
const DELETED_AT_ONCE: u32 = 1000;

/// How often is looked whether the time is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) fn bench(
    client: &mut Client,
    format: Format,
    args: &BenchArgs,
) -> Result<(Vec<u8>, End), Failure> {
    let layout = args.layout()?;
    let consistency = match args.consistency {
        Freshness::Linearizable => Consistency::Linearizable,
        Freshness::Lease => Consistency::Lease,
        Freshness::Serializable => {
            return Err(Failure::usage("bench judges what it reads: linearizable or lease"));
        }
    };
    if client.options().login.is_some() {
        return Err(Failure::usage("bench's connections do not log in: leave out --user"));
    }
    raise_descriptor_limit();
    refuse_what_is_there(client, args)?;
    let target = find_leader(client)?;
    let mut bench = Bench {
        clock: Clock::start(),
        target,
        consistency,
        ledger: Ledger::new(layout, args.keys),
        progress: Progress::begin(),
    };
    let measured = bench.measure(client, args);
    let cleaned = if args.keep { Ok(()) } else { bench.clean(client) };
    bench.progress.end();
    let (measured, checked) = measured?;
    cleaned?;
    let text = report::report(format, args, &measured);
    let wrong = measured.tally.wrong + checked.wrong;
    if wrong == 0 {
        return Ok((text, End::Done));
    }
    super::print(&text)?;
    let why = anyhow::anyhow!(
        "{wrong} answers were wrong: older than what was acknowledged before, or of another key. \
         Does anybody else write keys that begin with the prefix?"
    );
    Err(Failure { end: End::Unhealthy, why })
}

/// Nobody's keys are put over or deleted.
fn refuse_what_is_there(client: &mut Client, args: &BenchArgs) -> Result<(), Failure> {
    let (key, end) = (args.prefix.as_bytes(), prefix_end(args.prefix.as_bytes()));
    let asked = RangeArgs { end: &end, count_only: true, ..RangeArgs::of_key(key) };
    let count = client.range(&asked)?.count;
    if count == 0 || args.overwrite {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "{count} keys begin with {:?} already: name another --prefix, or give --overwrite, which \
         puts over them and deletes them",
        args.prefix
    )))
}

/// Where the servers are, and who leads.
fn find_leader(client: &Client) -> Result<Target, Failure> {
    let mut endpoints = Vec::new();
    let mut first = None;
    for (endpoint, answer) in client.status_all() {
        let address = resolve(&endpoint)?;
        let at = place_of(&mut endpoints, address);
        let Ok(status) = answer else { continue };
        if status.leader == Some(status.node) {
            first = Some(at);
        } else if let Some(leader) = status.leader_address.filter(|_| first.is_none()) {
            first = Some(place_of(&mut endpoints, resolve(&leader)?));
        }
    }
    // Whoever is asked first names the leader, if there is one.
    Ok(Target { endpoints, first: first.unwrap_or_default() })
}

fn resolve(endpoint: &str) -> Result<SocketAddr, Failure> {
    let found = endpoint.to_socket_addrs().with_context(|| format!("cannot resolve {endpoint}"));
    let first = found.and_then(|mut addresses| {
        addresses.next().with_context(|| format!("{endpoint} has no address"))
    });
    first.map_err(|why| Failure { end: End::Unavailable, why })
}

/// The place of an address, which is added if it is new.
fn place_of(endpoints: &mut Vec<SocketAddr>, address: SocketAddr) -> usize {
    endpoints.iter().position(|known| *known == address).unwrap_or_else(|| {
        endpoints.push(address);
        endpoints.len() - 1
    })
}

struct Bench {
    clock: Clock,
    target: Target,
    consistency: Consistency,
    ledger: Ledger,
    progress: Progress,
}

impl Bench {
    /// Puts every key, loads, reads every key back.
    fn measure(&mut self, client: &Client, args: &BenchArgs) -> Result<(Measured, Tally), Failure> {
        let keys = args.keys;
        let filled = self.every_key(Work::Fill, &format!("{keys} keys are put"))?;
        if filled.refusals() > filled.repeated {
            let why: Vec<&str> = filled.errors.keys().map(String::as_str).collect();
            return Err(Failure::refused(format!("cannot put the keys: {}", why.join("; "))));
        }
        let (clock, warm_up, duration) = (self.clock, args.warm_up, args.duration);
        let (workload, shape, pace) = (args.workload(), args.shape(), args.pace());
        let (seen, tally) = self.run(workload, shape, pace, |progress, signals, ended| {
            wait(warm_up, "warming up", progress, ended);
            let syncs = syncs(client);
            let before = (clock.now_ns(), signals.done(), process_cpu_ns());
            signals.measure();
            wait(duration, "measuring", progress, ended);
            let after = (clock.now_ns(), signals.done(), process_cpu_ns());
            (before, after, syncs)
        })?;
        let (before, after, first) = seen;
        let measured = Measured {
            elapsed_ns: after.0.saturating_sub(before.0),
            ops: after.1.saturating_sub(before.1),
            cpu_ns: after.2.saturating_sub(before.2),
            syncs: syncs_between(first, syncs(client)),
            tally,
        };
        let checked = self.every_key(Work::Check, &format!("{keys} keys are read back"))?;
        Ok((measured, checked))
    }

    fn every_key(&mut self, work: Work, doing: &str) -> Result<Tally, Failure> {
        let workload = Workload::of_all(work);
        let ((), tally) = self.run(workload, QUICK, Pace::Closed, |progress, signals, ended| {
            while !ended() {
                progress.show(&format!("{doing}, {} done", signals.done()));
                Deadline::after(LOOK_EVERY).wait();
            }
        })?;
        Ok(tally)
    }

    /// Loads from a thread of its own as long as `watch` takes; that hears when the load has ended.
    fn run<T>(
        &mut self,
        workload: Workload,
        shape: Shape,
        pace: Pace,
        watch: impl FnOnce(&mut Progress, &Signals, &dyn Fn() -> bool) -> T,
    ) -> Result<(T, Tally), Failure> {
        let Bench { clock, target, consistency, ledger, progress } = self;
        let (clock, consistency) = (*clock, *consistency);
        let signals = Signals::default();
        thread::scope(|scope| {
            let signals = &signals;
            let loading = scope.spawn(move || -> Result<Tally, LoadError> {
                let seed = clock.now_ns();
                let mut script =
                    Script::new(workload, pace, OnFailure::GoOn, seed, ledger, signals);
                let speak = || RaftdSpeaker::new(consistency);
                load::run(clock, target, shape, &mut script, speak)?;
                Ok(script.finish())
            });
            let seen = watch(progress, signals, &|| loading.is_finished());
            signals.end();
            let tally = loading.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            Ok((seen, tally))
        })
    }

    /// Deletes the keys.
    fn clean(&mut self, client: &mut Client) -> Result<(), Failure> {
        let (mut from, mut to) = (Vec::new(), Vec::new());
        let keys = self.ledger.keys();
        for first in (0..keys).step_by(usize::try_from(DELETED_AT_ONCE).unwrap_or(usize::MAX)) {
            self.ledger.layout().write_key(KeyNumber(first), &mut from);
            let behind = KeyNumber(first.saturating_add(DELETED_AT_ONCE));
            self.ledger.layout().write_key(behind, &mut to);
            client.delete_range(&from, &to)?;
            self.progress.show(&format!("{first} of {keys} keys are deleted"));
        }
        Ok(())
    }
}

/// Lets time pass, until the load ends.
fn wait(time: Duration, doing: &str, progress: &mut Progress, ended: &dyn Fn() -> bool) {
    let deadline = Deadline::after(time);
    while let Some(left) = deadline.remaining().filter(|_| !ended()) {
        progress.show(&format!("{doing}, {} s left", left.as_secs()));
        deadline.at_most(LOOK_EVERY).wait();
    }
}

/// What each server says of its syncs; `None` for one that does not answer.
fn syncs(client: &Client) -> Vec<Option<(NodeId, u64)>> {
    let said = client.status_all().into_iter();
    said.map(|(_, answer)| answer.ok().map(|status| (status.node, status.syncs))).collect()
}

/// The syncs between, and of how many servers; `None` if one did not answer or was started anew.
fn syncs_between(
    before: Vec<Option<(NodeId, u64)>>,
    after: Vec<Option<(NodeId, u64)>>,
) -> Option<(u64, usize)> {
    let mut nodes = Vec::new();
    let mut sum = 0;
    for (before, after) in before.into_iter().zip(after) {
        let ((node, then), (same, now)) = (before?, after?);
        if node != same {
            return None;
        }
        if !nodes.contains(&node) {
            nodes.push(node);
            sum += now.checked_sub(then)?;
        }
    }
    Some((sum, nodes.len()))
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Failure {
        let end = match &error {
            LoadError::TurnedAway { .. } | LoadError::Refused { .. } => End::Refused,
            LoadError::Io { .. }
            | LoadError::Answer { .. }
            | LoadError::LeaderLost
            | LoadError::Stalled { .. } => End::Unavailable,
        };
        Failure { end, why: error.into() }
    }
}
