//! Leases: clients grant them, hang keys on them, keep them alive or forget them, and revoke them.
//!
//! What they are told is no row of the history: it is judged at once, against what was promised
//! before, and the log's expiries are judged as they are committed. What becomes of the keys is in
//! the log as well, so the model of the history knows it, and every read is judged by that.
//!
//! | name | what |
//! |---|---|
//! | LeaseNeverEarly | no lease expires before its time has passed, by the fastest clock that is |
//! |                 | possible, since what was answered was asked for |
//! | LeaseNotResurrected | whoever asks after its end was committed, or somebody was told of it, |
//! |                 | finds it gone |
//! | LeaseEnds | what is gone was revoked, or has expired; and what is left alone goes |

use super::Client;
use crate::chance::{MILLION, usize_of};
use crate::coverage::Point;
use crate::invariants::{broken, must};
use crate::options::{MS, SECOND};
use crate::trace::{Who, say};
use crate::world::{World, machine_of};
use raftd::codec::msgpack::Reader;
use raftd::kv::command::{decode_header, decode_next};
use raftd::kv::{Command, PutWith};
use raftd::types::Term;
use raftd::wire::client::{Consistency, command_request};
use raftd::wire::error::Error;
use raftd::wire::leases::{KeysFrom, LeaseRequest, lease_request};
use raftd::wire::reply::ReplyBody;
use std::collections::BTreeMap;

/// Leases that a client cares for at once.
const MINE_MAX: usize = 3;
/// The longest that a client asks for. Seconds.
const TTL_S_MAX: u64 = 3;
/// Keys that hang on leases: so few that they meet.
const KEYS: u64 = 6;
/// Numbers that clients choose begin here: the cluster never gets there.
const CHOSEN_FROM: u64 = 1 << 40;

/// What a client has asked about a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    Grant { ttl_s: u64 },
    Hang,
    KeepAlive,
    TimeToLive,
    Revoke,
    List,
}

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    wish: Wish,
    /// 0: none, or one that the cluster chooses. Of a list, behind which one it begins.
    lease: u64,
    /// Which of the lease's keys come first.
    from: KeysFrom,
    /// When it was asked. True time.
    at: u64,
}

/// A client's leases.
#[derive(Default, Debug)]
pub(super) struct Holder {
    mine: Vec<u64>,
    asked: BTreeMap<u64, Asked>,
    /// What was not all in a reply, and where the rest is.
    goes_on: Option<(Wish, u64, KeysFrom)>,
}

impl Holder {
    pub(super) fn give_up(&mut self, request: u64) {
        self.asked.remove(&request);
    }

    pub(super) fn stop(&mut self) {
        self.asked.clear();
        self.goes_on = None;
    }
}

/// What is known of a lease. No number is ever granted twice. True times.
#[derive(Clone, Copy, Default, Debug)]
struct Promise {
    ttl_s: u64,
    granted_at: u64,
    /// It does not expire before.
    until: u64,
    /// When somebody was told first that it is gone.
    gone_at: Option<u64>,
    revoke_asked: bool,
}

/// What anybody was promised.
#[derive(Default, Debug)]
pub(crate) struct Promises {
    leases: BTreeMap<u64, Promise>,
    chosen: u64,
    /// Committed entries that were looked at.
    judged: usize,
    /// When the expiry of a lease was committed.
    expired: BTreeMap<u64, u64>,
    /// When its end was: its expiry, or a revocation.
    ended: BTreeMap<u64, u64>,
    /// One of them could not be read: who knows what expired in it.
    blind: bool,
    /// The terms in which chosen numbers were granted.
    terms: BTreeMap<u64, Term>,
}

impl World {
    /// A client asks something about leases, beside what else it does.
    pub(super) fn ask_about_leases(&mut self, client: usize) {
        let going_on = self.crowd.clients[client].holder.goes_on.take();
        let chosen = going_on.or_else(|| {
            let (wish, lease) = self.choose_wish(client)?;
            Some((wish, lease, KeysFrom::START))
        });
        let Some((wish, lease, from)) = chosen else { return };
        let it = &mut self.crowd.clients[client];
        let astray = it.chance.one_in(20);
        let node = if astray { it.chance.pick(&self.crowd.reach) } else { it.prefers };
        if !self.has_line(client, node) {
            return;
        }
        let key = format!("l{:02}", self.crowd.clients[client].chance.below(KEYS)).into_bytes();
        let value = self.new_value(client);
        let it = &self.crowd.clients[client];
        let request = it.requests + 1;
        let pipe = it.lines[node].as_ref().expect("it was just made sure of").pipe;
        let mut bytes = Vec::new();
        let command = |bytes: &mut Vec<u8>, command: Command<'_>| {
            command_request(bytes, request, None, command);
        };
        let about =
            |bytes: &mut Vec<u8>, asked: LeaseRequest| lease_request(bytes, request, &asked);
        match wish {
            Wish::Grant { ttl_s } => command(&mut bytes, Command::LeaseGrant { lease, ttl_s }),
            Wish::Revoke => command(&mut bytes, Command::LeaseRevoke { lease }),
            Wish::Hang => {
                let put = PutWith { key: &key, value: &value, lease, ..PutWith::default() };
                command(&mut bytes, Command::PutWith(put));
            }
            Wish::KeepAlive => about(&mut bytes, LeaseRequest::KeepAlive { lease }),
            Wish::TimeToLive => {
                about(&mut bytes, LeaseRequest::TimeToLive { lease, keys: true, from });
            }
            Wish::List => {
                let consistency = Consistency::Linearizable;
                about(&mut bytes, LeaseRequest::List { after: lease, consistency });
            }
        }
        say!(self, Who::Client(client), "ask", "n{} #{request} {wish:?} {lease}", node + 1);
        self.send_request(client, pipe, bytes);
        let asked = Asked { wish, lease, from, at: self.now };
        self.crowd.clients[client].holder.asked.insert(request, asked);
        if wish == Wish::Revoke
            && let Some(promise) = self.crowd.promises.leases.get_mut(&lease)
        {
            promise.revoke_asked = true;
        }
    }

    fn choose_wish(&mut self, client: usize) -> Option<(Wish, u64)> {
        let promises = &mut self.crowd.promises;
        let Client { chance, holder, .. } = &mut self.crowd.clients[client];
        if holder.mine.is_empty() || (holder.mine.len() < MINE_MAX && chance.one_in(6)) {
            let ttl_s = chance.below(TTL_S_MAX + 1);
            if chance.one_in(2) {
                return Some((Wish::Grant { ttl_s }, 0));
            }
            promises.chosen += 1;
            return Some((Wish::Grant { ttl_s }, CHOSEN_FROM + promises.chosen));
        }
        let nth = chance.index(holder.mine.len());
        // At times somebody else's, which may be gone.
        let known: Vec<u64> = promises.leases.keys().rev().take(40).copied().collect();
        let any = if chance.one_in(8) { chance.pick(&known) } else { holder.mine[nth] };
        match chance.below(20) {
            0..=6 => Some((Wish::KeepAlive, any)),
            7..=12 => Some((Wish::Hang, any)),
            13..=15 => Some((Wish::TimeToLive, any)),
            16 => Some((Wish::List, 0)),
            17 => Some((Wish::Revoke, holder.mine.swap_remove(nth))),
            // It is left alone from now on.
            _ => {
                holder.mine.swap_remove(nth);
                None
            }
        }
    }

    /// Whether an answer is about leases: then it is judged.
    pub(super) fn on_lease(&mut self, client: usize, request: u64, body: &ReplyBody<'_>) -> bool {
        let holder = &mut self.crowd.clients[client].holder;
        let Some(asked) = holder.asked.remove(&request) else { return false };
        say!(self, Who::Client(client), "hear", "#{request} {:?}: {body:?}", asked.wish);
        match (asked.wish, body) {
            (Wish::Grant { ttl_s }, ReplyBody::LeaseTerm { term, .. }) => {
                let fits = asked.lease == 0 || asked.lease == term.lease;
                must!(fits && term.ttl_s >= ttl_s, "Answer", "{asked:?} was granted {term:?}");
                self.note_grant(client, &asked, (term.lease, term.ttl_s));
            }
            (Wish::Hang, ReplyBody::PutWith { revision, .. }) => {
                self.crowd.told = self.crowd.told.max(revision.0);
                self.judge_alive(&asked);
            }
            (Wish::KeepAlive, ReplyBody::LeaseTerm { term, .. }) if term.ttl_s > 0 => {
                self.coverage.hit(Point::LeaseKept);
                self.judge_alive(&asked);
                self.note_promise(&asked, term.ttl_s);
            }
            (Wish::TimeToLive, ReplyBody::LeaseTimes(times, names)) if times.ttl_s > 0 => {
                let held_ms = 3 * self.options.election_timeout_ns / MS;
                let most_ms = (times.ttl_s * 1000).max(held_ms) + 1;
                let (count, next) = (usize_of(times.key_count), times.next);
                let from_first = asked.from.after == 0 || asked.from.list != next.list;
                let whole = count == names.len() || (count > names.len() && next.after > 0);
                let sound = times.left_ms <= most_ms && (whole || !from_first);
                must!(sound, "Answer", "{asked:?} got {times:?}");
                self.judge_alive(&asked);
                if next.after > 0 {
                    let holder = &mut self.crowd.clients[client].holder;
                    holder.goes_on = Some((asked.wish, asked.lease, next));
                }
            }
            (Wish::KeepAlive, ReplyBody::LeaseTerm { .. })
            | (Wish::TimeToLive, ReplyBody::LeaseTimes(..))
            | (Wish::Hang | Wish::Revoke, ReplyBody::Error(Error::LeaseNotFound)) => {
                self.coverage.hit(Point::LeaseGone);
                self.judge_gone(client, &asked);
            }
            (Wish::Revoke, ReplyBody::LeaseRevoke { revision }) => {
                self.coverage.hit(Point::LeaseRevoked);
                self.crowd.told = self.crowd.told.max(revision.0);
                self.judge_gone(client, &asked);
            }
            (Wish::List, ReplyBody::LeaseList(list)) => {
                let last = list.leases.last().copied().filter(|_| list.more);
                must!(!list.more || last.is_some(), "Answer", "{asked:?} got {list:?}");
                self.judge_list(&asked, &list.leases, last.unwrap_or(u64::MAX));
                let goes_on = last.map(|last| (asked.wish, last, KeysFrom::START));
                self.crowd.clients[client].holder.goes_on = goes_on;
            }
            (_, ReplyBody::Error(error)) => self.lease_refused(client, &asked, error),
            (_, body) => broken("Answer", format!("{asked:?} was answered {body:?}")),
        }
        true
    }

    fn lease_refused(&mut self, client: usize, asked: &Asked, error: &Error) {
        let sound = matches!(
            error,
            Error::NotLeader { .. }
                | Error::Busy { .. }
                | Error::NoSpace
                | Error::NotReady { .. }
                | Error::Removed { .. }
                | Error::OutcomeUnknown
        ) || (asked.wish == Wish::Hang && matches!(error, Error::OverQuota { .. }));
        must!(sound, "Answer", "{asked:?} was refused: {error}");
        let it = &mut self.crowd.clients[client];
        if let Error::NotLeader { leader: Some((leader, _)) } = error {
            it.prefers = machine_of(*leader);
        }
    }

    fn note_grant(&mut self, client: usize, asked: &Asked, (lease, ttl_s): (u64, u64)) {
        self.coverage.hit(Point::LeaseGranted);
        let promise = Promise { ttl_s, granted_at: self.now, ..Promise::default() };
        let before = self.crowd.promises.leases.insert(lease, promise);
        must!(before.is_none(), "Answer", "lease {lease} was granted twice");
        self.note_promise(&Asked { lease, ..*asked }, ttl_s);
        self.crowd.clients[client].holder.mine.push(lease);
    }

    /// From when it was asked on, by the fastest clock, and rounded to milliseconds twice.
    fn note_promise(&mut self, asked: &Asked, ttl_s: u64) {
        let ppm = self.options.clock_ppm;
        let whole = ttl_s * SECOND / (MILLION + ppm) * MILLION;
        let until = (asked.at + whole).saturating_sub(2 * MS);
        let Some(promise) = self.crowd.promises.leases.get_mut(&asked.lease) else { return };
        must!(ttl_s == promise.ttl_s, "Answer", "{asked:?}: {ttl_s} s, not {promise:?}");
        promise.until = promise.until.max(until);
        let expired = self.crowd.promises.expired.get(&asked.lease);
        let early = expired.is_some_and(|expired| *expired < until);
        must!(!early, "LeaseNeverEarly", "{asked:?} was kept alive, and expired at {expired:?}");
    }

    fn judge_alive(&self, asked: &Asked) {
        let gone_at = self.crowd.promises.gone_at(asked.lease);
        must!(
            gone_at.is_none_or(|gone_at| gone_at >= asked.at),
            "LeaseNotResurrected",
            "{asked:?} found a lease that was gone at {gone_at:?}"
        );
    }

    fn judge_gone(&mut self, client: usize, asked: &Asked) {
        self.crowd.clients[client].holder.mine.retain(|lease| *lease != asked.lease);
        let promises = &mut self.crowd.promises;
        let expired = promises.blind || promises.expired.contains_key(&asked.lease);
        let Some(promise) = promises.leases.get_mut(&asked.lease) else { return };
        let ended = promise.revoke_asked || expired;
        must!(ended, "LeaseEnds", "{asked:?} heard that it is gone, and it is {promise:?}");
        promise.gone_at.get_or_insert(self.now);
    }

    /// Judges what was listed of the leases up to `last`.
    fn judge_list(&self, asked: &Asked, listed: &[u64], last: u64) {
        must!(listed.is_sorted_by(|one, next| one < next), "Answer", "{listed:?} do not ascend");
        let promises = &self.crowd.promises;
        let first = asked.lease + 1;
        let behind = listed.first().is_none_or(|one| *one >= first);
        must!(behind, "Answer", "{asked:?} got {listed:?}");
        for (lease, promise) in promises.leases.range(first.min(last)..=last) {
            let there = listed.binary_search(lease).is_ok();
            let gone = promises.gone_at(*lease).is_some_and(|gone_at| gone_at < asked.at);
            must!(!(there && gone), "LeaseNotResurrected", "{lease} is listed: {promise:?}");
            let lives =
                promise.granted_at < asked.at && promise.until > self.now && !promise.revoke_asked;
            must!(there || !lives, "LeaseEnds", "{lease} is not listed: {promise:?}");
        }
    }

    /// Looks at what was committed since the last turn.
    pub(crate) fn judge_expiries(&mut self) {
        let (proof, promises) = (&self.proof, &mut self.crowd.promises);
        while let Some(payload) = proof.payloads.get(promises.judged) {
            let term = proof.committed[promises.judged].link.term;
            promises.judged += 1;
            let Some(payload) = payload else {
                promises.blind = true;
                continue;
            };
            if payload.is_empty() {
                continue;
            }
            let mut reader = Reader::new(payload);
            decode_header(&mut reader).expect("a committed entry has a header");
            while !reader.rest().is_empty() {
                let next = decode_next(&mut reader);
                let (_, command) = next.expect("a committed entry holds commands");
                let point = promises.judge(command, term, self.now);
                point.into_iter().for_each(|point| self.coverage.hit(point));
            }
        }
    }

    /// What nobody keeps alive goes, from every member that runs, once it has heard of it: within
    /// `within_ns` beside its own time by the slowest clock.
    pub(crate) fn await_expiries(&mut self, within_ns: u64) {
        let ppm = self.options.clock_ppm;
        let longest = TTL_S_MAX * SECOND + 3 * self.options.election_timeout_ns + SECOND;
        let limit = self.now + within_ns + longest / (MILLION - ppm) * MILLION;
        let left = |it: &World| {
            let Some(settled) = it.proof.settled_configuration() else { return 1 };
            let members = settled.members().into_iter();
            let nodes = members.filter_map(|id| it.machines[machine_of(id)].node.as_ref());
            nodes.map(|node| node.inspect().store.lease_count()).sum::<usize>()
        };
        while left(self) > 0 {
            must!(self.now < limit, "LeaseEnds", "{} leases do not end", left(self));
            self.run_until(self.now + 20 * MS);
        }
    }
}

impl Promises {
    /// Since when nobody may find a lease any more.
    fn gone_at(&self, lease: u64) -> Option<u64> {
        let told_at = self.leases.get(&lease).and_then(|promise| promise.gone_at);
        told_at.into_iter().chain(self.ended.get(&lease).copied()).min()
    }

    /// Looks at a command of an entry that was just committed, and says what is worth noting.
    fn judge(&mut self, command: Command<'_>, term: Term, now: u64) -> Option<Point> {
        match command {
            Command::LeaseGrant { lease, .. } => {
                self.terms.insert(lease, term);
                None
            }
            Command::LeaseExpire { term: said_in, lease, .. } if said_in == term => {
                let later = self.terms.get(&lease).is_some_and(|granted_in| *granted_in < term);
                self.expired.entry(lease).or_insert(now);
                self.ended.entry(lease).or_insert(now);
                let promise = self.leases.get(&lease);
                let early = promise.is_some_and(|promise| now < promise.until);
                must!(!early, "LeaseNeverEarly", "{lease} expires at {now}: {promise:?}");
                Some(if later { Point::LeaseExpiredLater } else { Point::LeaseExpired })
            }
            Command::LeaseCheckpoint { term: said_in, due_ms, .. } if said_in == term => {
                Some(if due_ms == 0 { Point::LeaseTakenBack } else { Point::LeaseNoted })
            }
            Command::LeaseRevoke { lease } => {
                self.ended.entry(lease).or_insert(now);
                None
            }
            Command::LeaseExpire { .. }
            | Command::LeaseCheckpoint { .. }
            | Command::Put { .. }
            | Command::DeleteRange { .. }
            | Command::Compact { .. }
            | Command::OpenSession
            | Command::PutIf { .. }
            | Command::PutWith(_)
            | Command::DeleteRangeWith(_)
            | Command::Txn(_) => None,
        }
    }
}
