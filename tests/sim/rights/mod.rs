//! Who may do what, as the log alone says it: `model`. Every moment of it is kept, so that whatever
//! is answered can be held against all that was true while it was asked.
//!
//! NoRightNoService: what was served was allowed, and what was denied was not, at some moment
//! between the question and the answer. A linearizable question begins no earlier than the last
//! change that anybody had been told of; another one, at what the node asked had applied.

mod model;

pub(crate) use model::{Needs, ROOT, Rights};

use crate::chance::{Chance, u64_of};
use crate::coverage::Point;
use crate::invariants::must;
use crate::options::Class;
use crate::world::World;
use raftd::codec::msgpack::Reader;
use raftd::kv::command::{Issued, decode_header, decode_issued};
use raftd::kv::{Asker, AuthRefusal, Command, Denial, Request, Txn};
use raftd::types::Credential;
use std::collections::BTreeMap;

/// What a change came to: the revision of users and roles then.
pub(crate) type Changed = Result<u64, AuthRefusal>;

/// All moments of who may do what.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Committed entries that were looked at.
    judged: usize,
    /// One of them could not be read: who knows what it changed.
    blind: bool,
    /// From which entry on it was so.
    moments: Vec<(u64, Rights)>,
    /// What each change came to, wherever it is in the log.
    changes: BTreeMap<Vec<u8>, Vec<(u64, Changed)>>,
    /// Where values were put first.
    puts: BTreeMap<Vec<u8>, u64>,
    /// The entry of the last change that anybody was told of.
    told: u64,
}

impl Ledger {
    /// Every value that a transaction may put, in whichever branch and however deep.
    fn note_puts(&mut self, index: u64, txn: Txn<'_>) {
        for request in txn.branch(true).chain(txn.branch(false)) {
            match request {
                Request::Put(put) => {
                    self.puts.entry(put.value.to_vec()).or_insert(index);
                }
                Request::Txn(inner) => self.note_puts(index, inner),
                Request::Delete(_) | Request::Range(_) => {}
            }
        }
    }

    pub(crate) fn new() -> Ledger {
        Ledger {
            judged: 0,
            blind: false,
            moments: vec![(0, Rights::default())],
            changes: BTreeMap::new(),
            puts: BTreeMap::new(),
            told: 0,
        }
    }

    /// Everything as it is now.
    pub(crate) fn newest(&self) -> &Rights {
        &self.moments.last().expect("there is one from the start").1
    }

    /// The moment that an entry belongs to.
    pub(crate) fn moment_of(&self, index: u64) -> usize {
        self.moments.partition_point(|(from, _)| *from <= index) - 1
    }

    /// The earliest moment that a question asked now can be answered from.
    pub(crate) fn floor(&self) -> usize {
        self.moment_of(self.told)
    }

    /// All moments from one on.
    pub(crate) fn since(&self, moment: usize) -> impl Iterator<Item = &Rights> {
        self.moments[moment..].iter().map(|(_, rights)| rights)
    }

    /// A moment that is over, or the newest.
    pub(crate) fn any(&self, chance: &mut Chance) -> &Rights {
        let back = chance.index(self.moments.len().min(8));
        &self.moments[self.moments.len() - 1 - back].1
    }

    /// The entry that put a value, if one did.
    pub(crate) fn put_at(&self, value: &[u8]) -> Option<u64> {
        self.puts.get(value).copied()
    }

    /// Committed entries so far.
    pub(crate) fn length(&self) -> u64 {
        u64_of(self.judged)
    }

    /// Somebody is told what a change came to that entered the log after `after`.
    pub(crate) fn tell(&mut self, args: &[u8], after: u64, changed: Changed) -> bool {
        let all = self.changes.get(args).into_iter().flatten();
        let mut same = all.filter(|(index, came_to)| *index > after && *came_to == changed);
        // The earliest: whichever it was, that one was before.
        let Some((index, _)) = same.next() else { return self.blind };
        self.told = self.told.max(*index);
        true
    }

    /// Notes a command of the newest entry. Whether it is done, and what is worth noting.
    fn note(&mut self, issued: Issued<'_>) -> (bool, Option<Point>) {
        let index = self.length();
        let allowed = allows(self.newest(), &issued);
        if !allowed {
            return (false, Some(Point::DeniedInLog));
        }
        let point = match issued.command {
            Command::Auth(change) => {
                let mut rights = self.newest().clone();
                let changed = rights.change(&change.verb());
                let known = self.changes.entry(change.args().to_vec()).or_default();
                known.push((index, changed));
                self.enter(index, rights)
            }
            Command::Put { value, .. } | Command::PutIf { value, .. } => {
                self.puts.entry(value.to_vec()).or_insert(index);
                None
            }
            Command::PutWith(put) => {
                self.puts.entry(put.value.to_vec()).or_insert(index);
                None
            }
            Command::Txn(txn) => {
                self.note_puts(index, txn);
                None
            }
            Command::Compact { .. } => {
                let named = issued.asker.login == Credential::CLUSTER;
                Some(Point::CompactedByName).filter(|_| named)
            }
            Command::DeleteRange { .. }
            | Command::DeleteRangeWith(_)
            | Command::OpenSession
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseExpire { .. }
            | Command::LeaseCheckpoint { .. } => None,
        };
        (true, point)
    }

    fn enter(&mut self, index: u64, rights: Rights) -> Option<Point> {
        let before = self.newest();
        if rights == *before {
            return None;
        }
        let point = match (before.enabled, rights.enabled) {
            (false, true) => Point::RightsEnabled,
            (true, false) => Point::RightsDisabled,
            (true, true) | (false, false) => Point::RightsChanged,
        };
        self.moments.push((index, rights));
        Some(point)
    }
}

/// Whether a command is done, as things are. What a leader says of leases it says for itself.
pub(crate) fn allows(rights: &Rights, issued: &Issued<'_>) -> bool {
    let leaders =
        matches!(issued.command, Command::LeaseExpire { .. } | Command::LeaseCheckpoint { .. });
    leaders || !rights.enabled || {
        let needs = Needs::of_command(issued.command);
        rights.judge(issued.asker, &needs).is_ok()
    }
}

/// Does what a command of the log does to users and roles.
pub(crate) fn follow(rights: &mut Rights, command: &Command<'_>) {
    if let Command::Auth(change) = command {
        // What is refused changes nothing.
        _ = rights.change(&change.verb());
    }
}

impl World {
    /// Looks at what was committed since the last turn: at who may do what, and at the leases.
    pub(crate) fn judge_committed(&mut self) {
        let (proof, ledger) = (&self.proof, &mut self.crowd.ledger);
        let rights_count = self.options.has(Class::Rights);
        while let Some(payload) = proof.payloads.get(ledger.judged) {
            let term = proof.committed[ledger.judged].link.term;
            ledger.judged += 1;
            ledger.blind |= payload.is_none();
            let payload = payload.as_deref().unwrap_or_default();
            if payload.is_empty() {
                continue;
            }
            let mut reader = Reader::new(payload);
            decode_header(&mut reader).expect("a committed entry has a header");
            while !reader.rest().is_empty() {
                let next = decode_issued(&mut reader);
                let issued = next.expect("a committed entry holds commands");
                let (allowed, point) = ledger.note(issued);
                point.into_iter().for_each(|point| self.coverage.hit(point));
                if allowed && !(ledger.blind && rights_count) {
                    let point = self.crowd.promises.judge(issued.command, term, self.now);
                    point.into_iter().for_each(|point| self.coverage.hit(point));
                }
            }
        }
        self.crowd.promises.blind |= ledger.blind;
    }

    /// The earliest moment that a question to a node can be answered from.
    pub(crate) fn rights_floor(&self, node: usize, linearizable: bool) -> usize {
        let ledger = &self.crowd.ledger;
        if linearizable {
            return self.rights_floor_of_leaders();
        }
        // Whoever loads its state anew may stand before what it had applied.
        let goes_back = self.options.has(Class::States);
        let applied = self.proof.seen[node].applied.get();
        if goes_back { 0 } else { ledger.moment_of(applied.min(ledger.length())) }
    }

    /// From which moment on a leader's answer may be, if it is asked now. Whoever holds the lease
    /// judges by its own state; which is an old one where clocks break the bound that leases rest
    /// on (seed 7767).
    pub(crate) fn rights_floor_of_leaders(&self) -> usize {
        if self.options.clocks_keep_bound() { self.crowd.ledger.floor() } else { 0 }
    }

    /// Somebody was served, or denied.
    pub(crate) fn must_fit(
        &mut self,
        (asker, needs): (Asker, &Needs),
        floor: usize,
        judged: Result<(), Denial>,
    ) {
        let point = match judged {
            Ok(()) if asker.acting.is_some() => Some(Point::ActedFor),
            Ok(()) => None,
            Err(Denial::NoUser) => Some(Point::DeniedNobody),
            Err(Denial::LoginEnded) => Some(Point::DeniedEnded),
            Err(Denial::NotPermitted) => Some(Point::DeniedForRight),
        };
        point.into_iter().for_each(|point| self.coverage.hit(point));
        let ledger = &self.crowd.ledger;
        let only_root = Needs { root: true, keys: Vec::new() };
        let by_right = judged.is_ok()
            && !needs.keys.is_empty()
            && ledger.newest().judge(asker, &only_root) == Err(Denial::NotPermitted);
        self.coverage.hit_if(by_right, Point::ServedByRight);
        // As for leaders.
        let floor = if self.options.clocks_keep_bound() { floor } else { 0 };
        let fits = ledger.since(floor).any(|rights| rights.judge(asker, needs) == judged);
        must!(
            fits || ledger.blind,
            "NoRightNoService",
            "{asker:?} wanted {needs:?} and got {judged:?}, which was right at no moment since \
             {floor}: {:?}",
            ledger.newest()
        );
    }

    /// Whether every change so far could be read.
    pub(crate) fn sees_rights(&self) -> bool {
        !self.crowd.ledger.blind
    }
}
